//! `--init`: PID 1 stays this process. It reaps what is left to it, passes signals on, and ends as the program ends.
//!
//! It already is what the program will be: same user, capabilities and rules; nothing of the host but its binary, which is
//! not to be seen from inside because the process is not dumpable.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::BorrowedFd;

use rustix::process::Pid;

use crate::channel::Channel;
use crate::error::{Doing, StartError};
use crate::process::{self, Process, die_with};
use crate::sys::{self, Fork};

/// Forks the program and looks after it; never returns but with an error.
pub(crate) fn run(
    process: &Process,
    env: &[CString],
    channel: &Channel,
    parent: BorrowedFd,
) -> Result<Infallible, StartError> {
    // This process's own are those of `minidock run`: with the secrets of `-e`, for all in the container to read.
    let shown: Vec<CString> =
        [c"/sbin/docker-init", c"--"].map(CString::from).into_iter().chain(process.args.to_vec()).collect();
    sys::show_as(&shown, Some(env));
    // Blocked before there is anything to lose: a signal between the fork and the loop stays pending.
    sys::block_signals();
    match sys::fork().doing(|| "fork the program")? {
        Fork::Child => {
            foreground();
            sys::reset_signals();
            sys::close_range(3, u32::MAX, true).doing(|| "close descriptors")?;
            Err(process::execute(process, env, channel))
        }
        Fork::Parent(child) => {
            die_with(Some(parent))?;
            // The program's own copy of the channel is the last: it closes with its execve.
            sys::close_range(0, u32::MAX, false).doing(|| "close descriptors")?;
            sys::exit_now(look_after(child))
        }
    }
}

/// A process group of its own for the program and, with a terminal, the foreground: Ctrl-C is the program's.
fn foreground() {
    let _ = rustix::process::setpgid(None, None);
    let group = rustix::process::getpgrp();
    // Without a terminal there is nothing to do. SIGTTOU, which a background group gets here, is blocked still.
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), group);
    let _: Pid = group;
}

fn look_after(child: i32) -> i32 {
    loop {
        let Ok(signal) = sys::wait_for_signal() else {
            continue;
        };
        if signal != libc::SIGCHLD {
            let _ = sys::kill(child, signal);
            continue;
        }
        // One SIGCHLD may stand for many children.
        loop {
            match sys::reap() {
                Ok(Some(reaped)) if reaped.pid == child => return reaped.status,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
    }
}
