//! SIGTERM to a monitor: whoever ends the processes of the session or service that it was started in (systemd does when
//! the machine goes down) wants the container to end in order, as `stop` ends it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::process;

/// What a monitor and its cleaner never die of. SIGHUP follows SIGTERM when systemd ends a session (`SendSIGHUP=`).
pub fn blocked() -> SigSet {
    [Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

/// The wish and its time.
pub struct Ending {
    source: Option<SignalFd>,
    kill_at: Option<Instant>,
}

impl Ending {
    /// The signals of [`blocked`] are blocked by now.
    pub fn new() -> Ending {
        // Without a descriptor for it, a SIGTERM waits for ever: no reason to fail a start.
        let source = SignalFd::with_flags(&blocked(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).ok();
        Ending { source, kill_at: None }
    }

    /// Readable when [`Ending::is_asked`] has something to say.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.source.as_ref().map(AsFd::as_fd)
    }

    /// Whether a SIGTERM has come.
    pub fn is_asked(&self) -> bool {
        let Some(source) = &self.source else { return false };
        let mut asked = false;
        while let Ok(Some(info)) = source.read_signal() {
            asked |= info.ssi_signo == Signal::SIGTERM as u32;
        }
        asked
    }

    /// The program gets its stop signal, and SIGKILL when `grace` is over (never with `None`).
    pub fn begin(&mut self, program: &OwnedFd, signal: i32, grace: Option<Duration>) {
        process::signal(program, signal);
        self.kill_at = self.kill_at.or(grace.and_then(|grace| Instant::now().checked_add(grace)));
    }

    /// When [`Ending::turn`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.kill_at
    }

    /// Kills the program whose time is over.
    pub fn turn(&mut self, program: &OwnedFd, now: Instant) {
        if self.kill_at.take_if(|at| *at <= now).is_some() {
            process::signal(program, libc::SIGKILL);
        }
    }

    /// The program has ended.
    pub fn clear(&mut self) {
        self.kill_at = None;
    }
}
