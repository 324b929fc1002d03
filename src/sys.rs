//! The engine's own raw system calls: one small safe function each.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::unistd::ForkResult;

/// Which process this is, after [`fork`].
pub enum Fork {
    /// The one that called.
    Parent,
    /// The new one. It must end with [`exit_now`].
    Child,
}

/// Forks this single-threaded process.
pub fn fork() -> nix::Result<Fork> {
    // SAFETY: the program has one thread whenever this is called (see ARCHITECTURE.md), so no lock can be held by a
    // thread that the child doesn't have; the child may allocate and do what it likes.
    Ok(match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { .. } => Fork::Parent,
        ForkResult::Child => Fork::Child,
    })
}

/// Ends this process at once: a forked child's way out, for the parent's buffers and exit handlers aren't its to run.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no precondition.
    unsafe { libc::_exit(code) }
}

/// Closes a forked child's copy of a descriptor that its parent still owns.
pub fn close_inherited(fd: &impl AsRawFd) {
    // SAFETY: only called in a child that never uses `fd` again and ends with `exit_now`, which runs no destructor that
    // would close the number a second time.
    unsafe { libc::close(fd.as_raw_fd()) };
}

/// Sends any signal number (real-time ones too) to a process; false when it has ended or the number is none.
pub fn pidfd_send_signal(pidfd: &OwnedFd, number: i32) -> bool {
    // SAFETY: the kernel checks both numbers; a null siginfo asks for the same as kill(2), and nothing is written.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    result == 0
}
