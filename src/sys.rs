//! The engine's own raw system calls: one small safe function each.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::unistd::ForkResult;

/// Which process this is, after [`fork`].
pub enum Fork {
    /// The one that called; the new one's pid.
    Parent(nix::unistd::Pid),
    /// The new one. It must end with [`exit_now`].
    Child,
}

/// Forks this single-threaded process.
pub fn fork() -> nix::Result<Fork> {
    // SAFETY: the program has one thread whenever this is called (see ARCHITECTURE.md), so no lock can be held by a
    // thread that the child doesn't have; the child may allocate and do what it likes.
    Ok(match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Fork::Parent(child),
        ForkResult::Child => Fork::Child,
    })
}

/// Ends this process at once: a forked child's way out, for the parent's buffers and exit handlers aren't its to run, and a
/// quick one for who has nothing buffered.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no precondition.
    unsafe { libc::_exit(code) }
}

/// SIGINT and SIGQUIT do what they do by default. A shell without job control starts its background commands with both
/// ignored (POSIX, "Asynchronous Lists"), yet `kill -INT` ends docker's `stats` or `events` there too.
pub fn default_interrupts() {
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: SIG_DFL is no handler of ours, and the program has one thread when this is called.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Has the allocator take memory in larger pieces and keep what is freed: a start would else give pages back and fault them
/// in anew, several times.
pub fn keep_freed_memory() {
    // SAFETY: mallopt(3) only changes the allocator's own parameters; the program has one thread.
    unsafe {
        libc::mallopt(libc::M_TOP_PAD, 256 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
    }
}

/// Closes a forked child's copies of every descriptor from 3 on but these: its parent's, and whatever the caller of
/// minidock left open.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > first {
            // SAFETY: only called in a forked child before it opens anything; it never uses or drops an owner of another
            // descriptor (it ends with `exit_now`), so no number is closed twice or used after.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
        }
        first = fd.saturating_add(1);
    }
}

/// Sends any signal number (real-time ones too) to a process; false when it has ended or the number is none.
pub fn pidfd_send_signal(pidfd: &OwnedFd, number: i32) -> bool {
    // SAFETY: the kernel checks both numbers; a null siginfo asks for the same as kill(2), and nothing is written.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    result == 0
}
