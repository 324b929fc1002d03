//! The guard: a small process that puts the user's terminal back when its client is killed while the terminal is raw,
//! whoever else was killed with it.
//!
//! It sleeps on a pipe whose writing end only the client has. A client that ends in order puts the terminal back itself
//! and sends the guard away: by then the user's shell may already have another mode.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::sys::{self, Fork};
use crate::terminal::Saved;

const GO: u8 = b'q';

/// The client's handle.
pub struct Guard {
    wake: OwnedFd,
    pid: Pid,
}

impl Guard {
    /// Forks it for the terminal as it is now. It keeps nothing else open, and has a session of its own, so that it
    /// survives what ends the client's group.
    pub fn post(saved: &Saved) -> Result<Guard> {
        let (sleep, wake) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        match sys::fork().context("cannot fork the terminal's guard")? {
            Fork::Parent(pid) => Ok(Guard { wake, pid }),
            Fork::Child => {
                let _ = rustix::process::setsid();
                let _ = rustix::process::chdir("/");
                std::mem::forget(wake);
                let _ = crate::streams::leave_stdio();
                sys::close_all_but(&[sleep.as_fd(), saved.fd()]);
                let mut order = [0u8];
                while rustix::io::read(&sleep, &mut order) == Err(rustix::io::Errno::INTR) {}
                if order != [GO] {
                    saved.restore();
                }
                sys::exit_now(0)
            }
        }
    }

    /// Sends it away.
    pub fn dismiss(self) {
        let _ = rustix::io::write(&self.wake, &[GO]);
        drop(self.wake);
        let _ = waitpid(self.pid, None);
    }
}
