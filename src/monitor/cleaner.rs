//! The cleaner: does the slow removal after the exit status has been reported, and takes over when the monitor is
//! killed.
//!
//! Forked while the container is being made, it sleeps on a pipe whose writing end only the monitor has. It shares the
//! journal's lock, so nobody else recovers the container meanwhile; when both are killed, the next minidock does.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::journal::Journal;
use crate::recover;
use crate::roots::Roots;
use crate::sys::{self, Fork};

/// The monitor's handle. Dropping it, or dying, sets the cleaner to work.
pub struct Cleaner {
    wake: OwnedFd,
}

const NOTHING_TO_DO: u8 = b'q';
const ENDED: u8 = b'e';
/// A start has the processors for itself: it takes a few milliseconds.
const PAUSE_NS: i64 = 50_000_000;

impl Cleaner {
    /// Forks it. It keeps nothing open but the journal and the pipe: whoever waits for the end of the client's
    /// connection, a terminal or a pipe must not wait for the cleaner.
    pub fn fork(roots: &Roots, id: &str, journal: &Journal) -> Result<Cleaner> {
        let (sleep, wake) = pipe_with(PipeFlags::CLOEXEC).context("cannot make the cleaner's pipe")?;
        match sys::fork().context("cannot fork the cleaner")? {
            Fork::Parent(_) => Ok(Cleaner { wake }),
            Fork::Child => {
                sys::close_all_but(&[sleep.as_fd(), journal.as_fd()]);
                std::mem::forget(wake);
                // What an earlier crash left, off the path of the start that runs meanwhile. Its own container's journal is
                // locked, so it isn't touched. A problem is told by the next command that lists containers.
                let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE_NS };
                let _ = poll(&mut [PollFd::new(&sleep, PollFlags::IN)], Some(&pause));
                runtime::process::show_as(&format!("minidock: cleaner {}", recover::short(id)));
                recover::recover_all(roots);
                let mut order = [0u8; 5];
                let woken = loop {
                    match rustix::io::read(&sleep, &mut order) {
                        Err(rustix::io::Errno::INTR) => {}
                        other => break other,
                    }
                };
                let ended = match woken {
                    Ok(1..) if order[0] == NOTHING_TO_DO => sys::exit_now(0),
                    Ok(5) if order[0] == ENDED => Some(i32::from_le_bytes([order[1], order[2], order[3], order[4]])),
                    _ => None,
                };
                if !journal.is_current() {
                    sys::exit_now(0); // another cleaner has the container
                }
                // Nobody is left to be told of an error: the journal keeps the entry, and the next command reports it.
                sys::exit_now(recover::settle_ended(roots, id, journal, ended).is_err().into())
            }
        }
    }

    /// The program has ended with this code: undo the rest.
    pub fn finish(self, code: i32) {
        let [a, b, c, d] = code.to_le_bytes();
        let _ = rustix::io::write(&self.wake, &[ENDED, a, b, c, d]);
    }

    /// The monitor has undone everything itself.
    pub fn dismiss(self) {
        let _ = rustix::io::write(&self.wake, &[NOTHING_TO_DO]);
    }
}
