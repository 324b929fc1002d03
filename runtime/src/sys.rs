//! The raw system calls that nix and rustix don't offer: clone3, close_range, mount_setattr, execve and a few ioctls.
//!
//! The only file of the runtime's start path with `unsafe` in it. One small safe function for each call; a SAFETY comment
//! says what a caller could do wrong and why it can't.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use crate::mounts::Attributes;

// linux/mount.h; libc has these for other C libraries only.
pub const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub const MOUNT_ATTR_NODEV: u64 = 0x4;
pub const MOUNT_ATTR_NOEXEC: u64 = 0x8;
pub const MOUNT_ATTR_ATIME: u64 = 0x70;
pub const MOUNT_ATTR_RELATIME: u64 = 0x0;
pub const MOUNT_ATTR_NOATIME: u64 = 0x10;
pub const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
pub const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
pub const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;
/// linux/sched.h; too big for libc's `c_int`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Turns a system call's result into an [`io::Result`].
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Which side of a clone this is.
#[derive(Debug)]
pub enum Clone {
    /// The caller: the child's pid in the caller's pid namespace, and its pidfd when it was asked for.
    Parent {
        /// The child's pid as the caller sees it.
        pid: u32,
        /// Refers to the child even after its pid was reused.
        pidfd: OwnedFd,
    },
    /// The new process: a copy of the caller.
    Child,
}

/// What [`clone3`] shall make.
#[derive(Debug, Default)]
pub struct CloneArgs<'a> {
    /// `CLONE_NEW*` and `CLONE_PARENT` bits. Bits that share memory or file tables are refused.
    pub flags: u64,
    /// A cgroup2 folder in which the child is born (`CLONE_INTO_CGROUP`, Linux 5.7): costs 0.2 ms where a later attach costs 12.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Forks with new namespaces, like clone3(2). The child's death is signalled by SIGCHLD.
///
/// # Errors
/// The kernel's: EPERM without CAP_SYS_ADMIN, ENOSPC/EUSERS at a namespace limit, EAGAIN at a pid limit, EBUSY when a
/// cgroup2 folder can't take processes.
pub fn clone3(args: &CloneArgs) -> io::Result<Clone> {
    let sharing = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_FS | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    if args.flags & sharing as u64 != 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data; all zeroes is its documented "nothing asked for".
    let mut raw: libc::clone_args = unsafe { std::mem::zeroed() };
    raw.flags = args.flags | libc::CLONE_PIDFD as u64;
    raw.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    // A child of CLONE_PARENT inherits its parent's exit signal; the kernel refuses one of its own.
    if args.flags & libc::CLONE_PARENT as u64 == 0 {
        raw.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = args.cgroup {
        raw.flags |= CLONE_INTO_CGROUP;
        raw.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no memory is shared (checked above) and no stack is given, so the child goes on with a copy of this one, as
    // after fork(). What a raw clone skips of libc's fork() are its atfork handlers and its lock reset: both matter
    // only with more than one thread, and the start path has one. `raw` and `pidfd` outlive the call.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut raw, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Clone::Child);
    }
    // SAFETY: the kernel has just put a new descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Clone::Parent { pid: pid as u32, pidfd })
}

/// Ends this process at once: no destructors, no atexit handlers, which belong to the process it was cloned from.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit takes any status and does not return; it touches no memory.
    unsafe { libc::_exit(status) }
}

/// Closes (or marks close-on-exec) the descriptors from `first` to `last`, like close_range(2) (Linux 5.9; the flag 5.11).
///
/// # Errors
/// ENOSYS on an older kernel.
pub fn close_range(first: u32, last: u32, only_on_exec: bool) -> io::Result<()> {
    let flags = if only_on_exec { libc::CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: closing takes no pointer. Owned descriptors in the range would be left dangling, so callers use this only
    // where the process is about to exec or never touches them again (init, the reaper).
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Changes attributes and propagation of a mount given by its fd, like mount_setattr(2) (Linux 5.12).
///
/// `propagation` is one of `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE` or 0.
///
/// # Errors
/// The kernel's: EINVAL for a mount that isn't the fd's root, EPERM without CAP_SYS_ADMIN.
pub fn mount_setattr(mount: BorrowedFd, recursive: bool, change: Attributes, propagation: u64) -> io::Result<()> {
    let attributes = MountAttr { attr_set: change.set, attr_clr: change.clear, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attributes` lives across the call and its true size is given; the path is an empty C string.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Null-terminated pointers to strings that somebody else keeps alive: what execve(2) wants.
pub struct StringArray<'a> {
    pointers: Vec<*const c_char>,
    _strings: std::marker::PhantomData<&'a CString>,
}

impl<'a> StringArray<'a> {
    /// Prepares argv or envp; done before the point where an allocation would be unwelcome.
    pub fn new(strings: &'a [CString]) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        StringArray { pointers, _strings: std::marker::PhantomData }
    }
}

/// Replaces this process by a program, like execve(2). Returns only on failure.
pub fn execve(path: &CStr, arguments: &StringArray, environment: &StringArray) -> io::Error {
    // SAFETY: both arrays end with a null pointer and borrow their strings (see StringArray), so everything the kernel
    // reads is alive and terminated.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// What kind of namespace an fd is (`CLONE_NEW*`), by the ioctl NS_GET_NSTYPE (ioctl_ns(2)).
///
/// # Errors
/// ENOTTY when the file isn't a namespace.
pub fn namespace_type(fd: BorrowedFd) -> io::Result<u64> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: this request takes no argument and only returns a number.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) }.into()).map(|kind| kind as u64)
}

/// Joins namespaces: of one namespace file, or (Linux 5.8) those of a pidfd's process named by `flags`, all or none.
///
/// # Errors
/// EINVAL when the file is of another kind, ESRCH when the process is gone.
pub fn setns(fd: BorrowedFd, flags: u64) -> io::Result<()> {
    // SAFETY: numbers only. A changed mount namespace can't invalidate memory, only later path look-ups.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags as libc::c_int) }.into()).map(drop)
}

/// Opens the peer of a pty master without going through a path (TIOCGPTPEER, Linux 4.13): the path could lead elsewhere
/// in a hostile mount namespace (CVE-2025-52565).
///
/// # Errors
/// ENOTTY when `master` isn't one.
pub fn pty_peer(master: BorrowedFd) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor.
    let fd = check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
    // SAFETY: fresh from the kernel, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Unlocks the peer of a pty master (TIOCSPTLCK).
///
/// # Errors
/// ENOTTY when `master` isn't one.
pub fn pty_unlock(master: BorrowedFd) -> io::Result<()> {
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads one int, which lives across the call.
    check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }.into()).map(drop)
}

/// Makes a terminal the controlling one of this session leader (TIOCSCTTY), without stealing it.
///
/// # Errors
/// EPERM when it controls another session already or this process leads none.
pub fn set_controlling_terminal(terminal: BorrowedFd) -> io::Result<()> {
    // SAFETY: the argument is a number (0 = don't steal).
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Brings the loopback device of this process's network namespace up (SIOCSIFFLAGS; netdevice(7)).
///
/// # Errors
/// The kernel's; ENODEV can't be, every network namespace has lo.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data; zeroes are an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as c_char;
    request.ifr_name[1] = b'o' as c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request reads one ifreq, which lives across the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into()).map(drop)
}

/// Makes `fd` readable as number `target` (0, 1 or 2) and inherited by exec, like dup2(2).
///
/// # Errors
/// EMFILE/EBUSY, the kernel's.
pub fn become_standard_stream(fd: BorrowedFd, target: RawFd) -> io::Result<()> {
    // SAFETY: only called after clone, in a process whose streams 0-2 nobody holds as OwnedFd; if fd == target the call
    // changes nothing, which is why callers move fds below 3 away first.
    check(unsafe { libc::dup2(fd.as_raw_fd(), target) }.into()).map(drop)
}

/// Sets one resource limit of this process (setrlimit(2)); `RLIM_INFINITY` is `u64::MAX`.
///
/// # Errors
/// EPERM when the hard limit is raised without CAP_SYS_RESOURCE, EINVAL for soft > hard or a number above fs.nr_open.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the struct lives across the call; an unknown resource gives EINVAL.
    check(unsafe { libc::setrlimit(resource, &raw const limit) }.into()).map(drop)
}

/// Reads one hard resource limit of this process.
///
/// # Errors
/// EINVAL for an unknown resource.
pub fn hard_limit(resource: u32) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit into ours.
    check(unsafe { libc::getrlimit(resource, &raw mut limit) }.into())?;
    Ok(limit.rlim_max)
}

/// Gives every signal its default action and blocks none: dispositions "ignored" and the mask survive execve(2), and
/// the engine ignores SIGPIPE (Rust does) and blocks what it reads from a signalfd.
pub fn reset_signals() {
    // SAFETY: zeroes are a valid kernel sigaction: SIG_DFL, no flags, empty mask. The raw call reaches the two real-time
    // signals that libc keeps for itself; SIGKILL and SIGSTOP give EINVAL, which changes nothing.
    unsafe {
        let default = [0u64; 4];
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null_mut::<u64>(), 8usize);
        }
        let none = 0u64;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null_mut::<u64>(),
            8usize,
        );
    }
}

/// Blocks every signal, so that [`wait_for_signal`] gets them. As PID 1 this is also what makes signals arrive at all: a
/// namespace's init never receives one that it neither handles nor blocks (pid_namespaces(7)).
pub fn block_signals() {
    let all = u64::MAX;
    // SAFETY: the kernel reads 8 bytes of mask; SIGKILL and SIGSTOP are silently left out.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, std::ptr::null_mut::<u64>(), 8usize);
    }
}

/// Waits for any blocked signal and returns its number (rt_sigtimedwait(2) without a limit).
///
/// # Errors
/// EINTR.
pub fn wait_for_signal() -> io::Result<i32> {
    let all = u64::MAX;
    // SAFETY: the mask lives across the call; no siginfo and no time are asked for.
    let signal = check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const all,
            std::ptr::null_mut::<libc::siginfo_t>(),
            std::ptr::null::<libc::timespec>(),
            8usize,
        )
    })?;
    Ok(signal as i32)
}

/// Sends a signal to a process by number; only for PID 1's own child, which can't be reaped by anybody else.
///
/// # Errors
/// ESRCH, EINVAL.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: numbers only.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// One reaped child.
pub struct Reaped {
    /// Its pid in this process's pid namespace.
    pub pid: i32,
    /// Its exit status, or 128 + the signal that killed it.
    pub status: i32,
}

/// Reaps one dead child, if there is one (waitpid(2) with WNOHANG and `__WALL`).
///
/// # Errors
/// ECHILD when there are no children at all.
pub fn reap() -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: the kernel writes one int into ours.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) }.into())?;
    if pid == 0 {
        return Ok(None);
    }
    let status = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    Ok(Some(Reaped { pid: pid as i32, status }))
}

/// Which side of a fork this is.
pub enum Fork {
    /// The caller, with the child's pid.
    Parent(i32),
    /// The new process.
    Child,
}

/// A plain fork(2): clone3 is not among the system calls that docker's rules allow a container.
///
/// # Errors
/// EAGAIN at a limit on processes, ENOMEM.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the process has one thread, so the child's memory is in a consistent state.
    match check(unsafe { libc::fork() }.into())? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid as i32)),
    }
}

/// Overwrites this process's command line and, if given, its environment, as /proc/PID/cmdline and environ show them, in the
/// memory where the kernel has put them (prctl(PR_SET_MM) would need CAP_SYS_RESOURCE). What doesn't fit is cut off. Nobody
/// may use the program's arguments afterwards, nor the C library's environment if that is overwritten. Does nothing where
/// the memory isn't as expected.
pub fn show_as(words: &[CString], env: Option<&[CString]>) {
    // Measured once: after the first time the words no longer end where the C library's pointers to them say.
    static PLACE: OnceLock<Option<[usize; 3]>> = OnceLock::new();
    let Some([start, env_start, end]) = *PLACE.get_or_init(arguments_and_environment) else { return };
    // SAFETY: both ends lie in the initial stack, which is mapped without a gap from the arguments to AT_EXECFN: below
    // env_start are the arguments, as they were compared. One thread, and no reference to it.
    let area = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, end - start) };
    let (args_area, env_area) = area.split_at_mut(env_start - start);
    for (area, words) in [(args_area, Some(words)), (env_area, env)] {
        let Some(words) = words else { continue };
        area.fill(0);
        let bytes = words.iter().flat_map(|word| word.as_bytes_with_nul());
        let room = area.len().saturating_sub(1); // the last byte stays 0: the end of the last word
        area[..room].iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
    }
}

/// Where the arguments begin, the environment begins and ends.
fn arguments_and_environment() -> Option<[usize; 3]> {
    use std::os::unix::ffi::OsStrExt;
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut own = Vec::new();
    for word in std::env::args_os() {
        own.extend_from_slice(word.as_bytes());
        own.push(0);
    }
    // create_elf_tables() in fs/binfmt_elf.c: the arguments, the environment and the program's name follow each other.
    // SAFETY: getauxval(3) only reads; environ ends with a null pointer, and this process has one thread.
    let (end, env_start) = unsafe {
        let end = libc::getauxval(libc::AT_EXECFN) as usize;
        let first = if environ.is_null() { std::ptr::null() } else { *environ };
        (end, if first.is_null() { end } else { first as usize })
    };
    let start = env_start.wrapping_sub(own.len());
    if end == 0 || start > env_start || env_start > end || end - start > MOST_ARGUMENTS {
        return None;
    }
    // SAFETY: from start to env_start lie the arguments or, were that wrong, the stack that main() runs on, mapped without a
    // gap.
    let args_area = unsafe { std::slice::from_raw_parts(start as *const u8, own.len()) };
    (*args_area == own[..]).then_some([start, env_start, end])
}

/// A kernel gives the arguments at most 6 MiB (bprm_stack_limits() in fs/exec.c).
const MOST_ARGUMENTS: usize = 6 << 20;
