//! System calls that no crate wraps.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

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

/// A socket to ask iptables-legacy with.
pub(crate) fn raw_ipv4_socket() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
    Ok(socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?)
}

/// How many entries a table of iptables-legacy has; none when it can't be asked. struct ipt_getinfo of
/// include/uapi/linux/netfilter_ipv4/ip_tables.h: the name, 11 numbers, the number of entries, their size.
pub(crate) fn legacy_entries(socket: BorrowedFd<'_>, table: &str) -> Option<u32> {
    const IPT_SO_GET_INFO: i32 = 64;
    const SIZE: usize = 32 + 4 * 13;
    let mut info = [0_u8; SIZE];
    let name = table.as_bytes();
    info.get_mut(..name.len().min(31))?.copy_from_slice(name.get(..name.len().min(31))?);
    let mut length = SIZE as libc::socklen_t;
    // SAFETY: the kernel reads and writes at most `length` bytes of `info`, and writes `length`; both live through the call.
    let code = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_IP, IPT_SO_GET_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    let number = info.get(76..80).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    number.filter(|_| code == 0)
}
