//! Counting: a reader that hashes and counts what passes, and the budget that all layers of a load share.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::refusal;
use crate::limits::Limits;
use crate::progress::Progress;

/// What one load has used up so far; shared by its threads.
pub(crate) struct Budget<'a> {
    pub limits: &'a Limits,
    unpacked: AtomicU64,
    entries: AtomicU64,
    /// Set when one layer failed: the others need not go on.
    pub stop: AtomicBool,
}

impl<'a> Budget<'a> {
    pub fn new(limits: &'a Limits) -> Budget<'a> {
        let (unpacked, entries) = (AtomicU64::new(0), AtomicU64::new(0));
        Budget { limits, unpacked, entries, stop: AtomicBool::new(false) }
    }

    /// Takes uncompressed bytes from the budget.
    pub fn take_bytes(&self, count: u64) -> io::Result<()> {
        let limit = self.limits.unpacked_bytes;
        match self.unpacked.fetch_add(count, Relaxed).checked_add(count) {
            Some(sum) if sum <= limit => Ok(()),
            _ => Err(refusal(format!("more than {limit} bytes when unpacked (a bomb?)"))),
        }
    }

    /// Takes one entry from the budget.
    pub fn take_entry(&self) -> io::Result<()> {
        let limit = self.limits.entries;
        if self.entries.fetch_add(1, Relaxed) >= limit {
            return Err(refusal(format!("more than {limit} entries (a bomb?)")));
        }
        Ok(())
    }
}

/// Hashes and counts the bytes of the archive as they are stored.
pub(crate) struct Stored<'p, R> {
    inner: R,
    hash: Sha256,
    count: Rc<Cell<u64>>,
    /// Told of every read, with the total of all layers.
    progress: Option<(&'p Progress<'p>, u64)>,
}

/// The same for the uncompressed stream, and holds it to the limits.
pub(crate) struct Unpacked<'b, R> {
    inner: R,
    hash: Sha256,
    count: u64,
    stored: Rc<Cell<u64>>,
    budget: &'b Budget<'b>,
}

impl<'p, R: Read> Stored<'p, R> {
    pub fn new(inner: R, progress: Option<(&'p Progress<'p>, u64)>) -> Stored<'p, R> {
        Stored { inner, hash: Sha256::new(), count: Rc::new(Cell::new(0)), progress }
    }

    /// The number of bytes so far, for [`Unpacked`]'s ratio.
    pub fn counter(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.count)
    }

    /// The digest of all bytes.
    pub fn digest(self) -> Digest {
        Digest::finish(self.hash)
    }
}

impl<R: Read> Read for Stored<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.hash.update(&into[..count]);
        self.count.set(self.count.get() + count as u64);
        if let Some((progress, total)) = self.progress {
            progress.unpacked(count as u64, total);
        }
        Ok(count)
    }
}

impl<'b, R: Read> Unpacked<'b, R> {
    pub fn new(inner: R, stored: Rc<Cell<u64>>, budget: &'b Budget<'b>) -> Unpacked<'b, R> {
        Unpacked { inner, hash: Sha256::new(), count: 0, stored, budget }
    }

    /// The digest of the whole stream, and its length.
    pub fn finish(self) -> (Digest, u64) {
        (Digest::finish(self.hash), self.count)
    }
}

impl<R: Read> Read for Unpacked<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.budget.stop.load(Relaxed) {
            return Err(refusal("stopped: another layer failed"));
        }
        let count = self.inner.read(into)?;
        self.hash.update(&into[..count]);
        self.count += count as u64;
        self.budget.take_bytes(count as u64)?;
        let Limits { ratio, ratio_from_bytes, .. } = *self.budget.limits;
        if self.count > ratio_from_bytes && self.count / ratio > self.stored.get() {
            return Err(refusal(format!("it unpacks to more than {ratio} times its size (a bomb?)")));
        }
        Ok(count)
    }
}
