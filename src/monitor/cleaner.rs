//! The cleaner: does the slow removal after the exit status has been reported, and takes over when the monitor is
//! killed.
//!
//! Forked while the container is being made, it sleeps on a pipe whose writing end only the monitor has. It shares the
//! journal's lock, so nobody else recovers the container meanwhile; when both are killed, the next minidock does.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
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

impl Cleaner {
    /// Forks it. `client` is the monitor's connection, which the cleaner must not keep open: the client takes its end
    /// for the monitor's death.
    pub fn fork(roots: &Roots, id: &str, journal: &Journal, client: &impl std::os::fd::AsRawFd) -> Result<Cleaner> {
        let (sleep, wake) = pipe_with(PipeFlags::CLOEXEC).context("cannot make the cleaner's pipe")?;
        match sys::fork().context("cannot fork the cleaner")? {
            Fork::Parent => Ok(Cleaner { wake }),
            Fork::Child => {
                drop(wake);
                sys::close_inherited(client);
                // Off the path of the start that runs meanwhile: what an earlier crash left. Its own container's
                // journal is locked, so it isn't touched. A problem is told by the next command that lists containers.
                recover::recover_all(roots);
                let mut order = [0u8; 1];
                let woken = loop {
                    match rustix::io::read(&sleep, &mut order) {
                        Err(rustix::io::Errno::INTR) => {}
                        other => break other,
                    }
                };
                if woken == Ok(1) && order[0] == NOTHING_TO_DO {
                    sys::exit_now(0);
                }
                // Nobody is left to be told of an error: the journal keeps the entry, and the next command reports it.
                sys::exit_now(recover::settle(roots, id, journal).is_err().into())
            }
        }
    }

    /// The monitor has undone everything itself.
    pub fn dismiss(self) {
        let _ = rustix::io::write(&self.wake, &[NOTHING_TO_DO]);
    }
}
