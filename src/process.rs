//! A process that can't be mistaken for another: pid and start time, and a pidfd to signal it by (a reused pid is never
//! signalled; podman#25104 is what happens otherwise).

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// A process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// In the host's pid namespace.
    pub pid: u32,
    /// Clock ticks after boot: field 22 of /proc/PID/stat (proc(5)).
    pub start_ticks: u64,
}

impl Process {
    /// The process that has this pid now.
    pub fn now(pid: u32) -> Option<Process> {
        let (state, start_ticks) = stat(pid)?;
        (state != 'Z' && state != 'X').then_some(Process { pid, start_ticks })
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        Process::now(self.pid) == Some(*self)
    }

    /// A handle to it; `None` when it has ended.
    pub fn open(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Checked after the open: from here on the pid can't go to another while we hold the handle.
        self.is_alive().then_some(pidfd)
    }
}

/// The pid of a process's parent.
pub fn parent(pid: u32) -> Option<u32> {
    let text = std::fs::read(format!("/proc/{pid}/status")).ok()?;
    String::from_utf8_lossy(&text).lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

/// State letter and start time; the command name between them may hold any byte, so the last `)` counts.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/stat")).ok()?).into_owned();
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Sends a signal by number; false when the process has ended.
pub fn signal(pidfd: &OwnedFd, number: i32) -> bool {
    crate::sys::pidfd_send_signal(pidfd, number)
}

/// Waits until the process has ended; false when the time is over first. `None` waits for ever.
pub fn wait_end(pidfd: &OwnedFd, limit: Option<Duration>) -> bool {
    let deadline = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_another_start_time_is_another_process() {
        let us = Process::now(std::process::id()).unwrap();
        assert!(us.is_alive() && us.open().is_some());
        assert_eq!(parent(us.pid), Some(rustix::process::getppid().unwrap().as_raw_nonzero().get() as u32));
        let other = Process { start_ticks: us.start_ticks + 1, ..us };
        assert!(!other.is_alive() && other.open().is_none());
    }
}
