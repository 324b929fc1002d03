//! How far a load is: told to a callback, now and then. Drawing is the caller's job.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Copying the archive, because it can't be read in any order (a pipe, or compressed as a whole).
    Reading,
    /// Unpacking layers.
    Unpacking,
    /// Writing to the disk and giving names.
    Committing,
}

/// Called with the phase, the bytes of the archive done in it, and their total where it is known. Several
/// threads may call it.
pub type Callback = Box<dyn Fn(Phase, u64, Option<u64>) + Send + Sync>;

/// Bytes between two calls.
const STEP: u64 = 1 << 20;

/// Adds up what the threads report.
pub(crate) struct Progress<'a> {
    callback: Option<&'a Callback>,
    unpacked: AtomicU64,
    told: AtomicU64,
}

impl<'a> Progress<'a> {
    pub fn new(callback: Option<&'a Callback>) -> Progress<'a> {
        Progress { callback, unpacked: AtomicU64::new(0), told: AtomicU64::new(0) }
    }

    /// Says where a phase is, at most once a `STEP`.
    pub fn at(&self, phase: Phase, done: u64, total: Option<u64>) {
        let Some(callback) = self.callback else {
            return;
        };
        if done / STEP != self.told.swap(done / STEP, Relaxed) || Some(done) == total {
            callback(phase, done, total);
        }
    }

    /// A thread has read so many more bytes of its layer.
    pub fn unpacked(&self, count: u64, total: u64) {
        let done = self.unpacked.fetch_add(count, Relaxed) + count;
        self.at(Phase::Unpacking, done, Some(total));
    }
}
