//! System calls that no crate wraps.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// A child of this process that makes system calls for us on another processor while we do other things.
///
/// It shares our memory and our descriptors, so that it costs no copy of either (and what our descriptors hold, the lock of
/// a journal or the pipe that tells of our end, is held until it has ended, too); its stack and its task are its own.
struct Aside<T> {
    /// None once it has been waited for.
    child: Option<Pid>,
    task: Box<T>,
    _stack: Box<[u128]>,
}

/// Of [`Aside`]: what it does needs some hundred bytes.
const STACK_BYTES: usize = 8 << 10;

impl<T: Sync> Aside<T> {
    /// None when the kernel refuses the child; the caller then does the work itself.
    ///
    /// `body` gets a pointer to the task. It may share nothing else with us: it takes no lock, allocates nothing, and makes
    /// its system calls by rustix, which doesn't touch the errno that it shares with us.
    fn start(task: Box<T>, body: extern "C" fn(*mut c_void) -> c_int) -> Result<Aside<T>, Box<T>> {
        let mut stack = vec![0u128; STACK_BYTES / size_of::<u128>()].into_boxed_slice();
        let top = stack.as_mut_ptr_range().end;
        let argument = std::ptr::from_ref::<T>(&task).cast_mut().cast::<c_void>();
        // SAFETY: `top` is the aligned end of memory that, like `task`, lives until the child has ended: `wait` and `drop`
        // wait for it, and boxes stay where they are. The child runs `body` alone, whose duties are said above. A copy of
        // this that a fork makes has no child in it.
        let pid =
            unsafe { libc::clone(body, top.cast(), libc::CLONE_VM | libc::CLONE_FILES | libc::SIGCHLD, argument) };
        match (pid > 0).then(|| Pid::from_raw(pid)).flatten() {
            Some(child) => Ok(Aside { child: Some(child), task, _stack: stack }),
            None => Err(task),
        }
    }
}

impl<T> Aside<T> {
    fn wait(&mut self) {
        if let Some(child) = self.child.take() {
            while let Err(rustix::io::Errno::INTR) = waitpid(Some(child), WaitOptions::empty()) {}
        }
    }
}

impl<T> Drop for Aside<T> {
    fn drop(&mut self) {
        self.wait();
    }
}

/// Makes a network namespace beside us.
pub(crate) struct NetnsMaker(Aside<AtomicI32>);

impl NetnsMaker {
    /// None when the kernel refuses the child; the caller then does the work itself.
    pub(crate) fn start() -> Option<NetnsMaker> {
        // The namespace's descriptor; -1 while, or where, there is none.
        Aside::start(Box::new(AtomicI32::new(-1)), make_netns).ok().map(NetnsMaker)
    }

    /// Waits for the namespace; None when it couldn't be made.
    pub(crate) fn finish(mut self) -> Option<OwnedFd> {
        self.wait()
    }

    fn wait(&mut self) -> Option<OwnedFd> {
        self.0.wait();
        let fd = self.0.task.swap(-1, Ordering::Acquire);
        // SAFETY: the child opened it in the table of descriptors that it shared with us, and has ended: it's ours alone.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl Drop for NetnsMaker {
    fn drop(&mut self) {
        drop(self.wait());
    }
}

/// The child of [`NetnsMaker`].
extern "C" fn make_netns(result: *mut c_void) -> c_int {
    // SAFETY: `Aside::start` gave a pointer to its box, which outlives us.
    let result = unsafe { &*result.cast::<AtomicI32>() };
    // SAFETY: a new network namespace for this process takes no memory and no descriptor away from the one it shares both
    // with.
    let made = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    let made = made
        .and_then(|()| rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()));
    if let Ok(fd) = made {
        result.store(fd.into_raw_fd(), Ordering::Release);
    }
    0
}

/// A sender that was killed has sent nothing, as far as we know.
const UNSENT: i32 = -1;

/// Sends beside us what a socket carries out within the call.
pub(crate) struct Sender(Aside<Sending>);

struct Sending {
    socket: RawFd,
    bytes: Vec<u8>,
    /// 0, the error, or [`UNSENT`].
    errno: AtomicI32,
}

impl Sender {
    /// Begins to send. The socket must stay open until [`Sender::finish`], or until this is dropped.
    pub(crate) fn start(socket: BorrowedFd<'_>, bytes: Vec<u8>) -> io::Result<Sender> {
        let task = Box::new(Sending { socket: socket.as_raw_fd(), bytes, errno: AtomicI32::new(UNSENT) });
        Aside::start(task, send).map(Sender).map_err(|_| io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// Waits until it's sent.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.0.wait();
        match self.0.task.errno.load(Ordering::Acquire) {
            0 => Ok(()),
            UNSENT => Err(io::Error::other("the process that was to send to the kernel was killed")),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// The child of [`Sender`].
extern "C" fn send(task: *mut c_void) -> c_int {
    // SAFETY: `Aside::start` gave a pointer to its box, which outlives us.
    let task = unsafe { &*task.cast::<Sending>() };
    // SAFETY: `Sender::start`'s caller keeps the socket open in the table of descriptors that we share.
    let socket = unsafe { BorrowedFd::borrow_raw(task.socket) };
    let sent = rustix::net::send(socket, &task.bytes, rustix::net::SendFlags::empty());
    task.errno.store(sent.map_or_else(|errno| errno.raw_os_error(), |_| 0), Ordering::Release);
    0
}

/// Has the kernel keep only those messages of a netlink socket whose first one isn't of one of these types: a notice of
/// something that nobody waits for doesn't wake the reader. (BPF reads in network byte order, message types are in the
/// host's: only the lower byte is looked at.)
pub(crate) fn leave_out(socket: BorrowedFd<'_>, kinds: &[u8]) -> io::Result<()> {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let at = if cfg!(target_endian = "little") { 4 } else { 5 };
    let op = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let mut program = vec![op(LOAD_BYTE, 0, at)];
    for (number, kind) in kinds.iter().enumerate() {
        program.push(op(JUMP_EQUAL, (kinds.len() - number) as u8, u32::from(*kind)));
    }
    program.extend([op(RETURN, 0, u32::MAX), op(RETURN, 0, 0)]);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: pointer and length describe `filter`, whose pointer and length describe `program`; both outlive the call,
    // and the kernel copies the program.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            mem::size_of_val(&filter) as u32,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A socket to ask iptables-legacy with, or ip6tables-legacy.
pub(crate) fn raw_socket(v6: bool) -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    Ok(socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?)
}

/// How many entries a table of iptables-legacy has; none when it can't be asked. struct ipt_getinfo of
/// include/uapi/linux/netfilter_ipv4/ip_tables.h, and struct ip6t_getinfo, its twin: the name, 11 numbers, the number of
/// entries, their size.
pub(crate) fn legacy_entries(socket: BorrowedFd<'_>, v6: bool, table: &str) -> Option<u32> {
    /// IPT_SO_GET_INFO and IP6T_SO_GET_INFO.
    const GET_INFO: i32 = 64;
    const SIZE: usize = 32 + 4 * 13;
    let mut info = [0_u8; SIZE];
    let name = table.as_bytes();
    info.get_mut(..name.len().min(31))?.copy_from_slice(name.get(..name.len().min(31))?);
    let mut length = SIZE as libc::socklen_t;
    let level = if v6 { libc::SOL_IPV6 } else { libc::SOL_IP };
    // SAFETY: the kernel reads and writes at most `length` bytes of `info`, and writes `length`; both live through the call.
    let code =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, info.as_mut_ptr().cast(), &raw mut length) };
    let number = info.get(76..80).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    number.filter(|_| code == 0)
}
