//! UDP with `IP_PKTINFO` (ip(7)): to which of our addresses did a datagram come, and from which shall the answer go.
//! The one `unsafe` place of the proxy: rustix has no such control message, nix only behind its `net` feature.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Room for one `in_pktinfo` control message, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// A received datagram.
pub(super) struct Received {
    pub(super) length: usize,
    pub(super) from: SocketAddrV4,
    /// The address that the sender used for us.
    pub(super) to: Ipv4Addr,
}

/// Has the kernel tell the destination address of each datagram.
pub(super) fn enable(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length describe `on`, which outlives the call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_PKTINFO,
            (&raw const on).cast(),
            mem::size_of_val(&on) as u32,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives one datagram without blocking.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; 64]);
    // SAFETY: all-zero is a valid value of these plain C structs.
    let (mut from, mut message): (libc::sockaddr_in, libc::msghdr) = unsafe { (mem::zeroed(), mem::zeroed()) };
    let mut data = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = mem::size_of_val(&from) as u32;
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: every pointer in `message` is to a live local or to the caller's buffer, each with its true length.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut to = Ipv4Addr::UNSPECIFIED;
    // SAFETY: the kernel has written valid control messages and their true total length; CMSG_FIRSTHDR checks that length, and
    // there is only the one that we asked for. `read_unaligned` since CMSG_DATA promises no alignment.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null()
            && ((*header).cmsg_level, (*header).cmsg_type) == (libc::IPPROTO_IP, libc::IP_PKTINFO)
            && (*header).cmsg_len >= libc::CMSG_LEN(mem::size_of::<libc::in_pktinfo>() as u32) as usize
        {
            let info: libc::in_pktinfo = libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().read_unaligned();
            // `ipi_addr` is the header's destination; `ipi_spec_dst` is the address to answer from, also for a broadcast.
            to = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
        }
    }
    let from = SocketAddrV4::new(Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)), u16::from_be(from.sin_port));
    Ok(Received { length: length as usize, from, to })
}

/// Sends one datagram to `to` with `from` as its source address, without blocking.
pub(super) fn send(socket: BorrowedFd<'_>, data: &[u8], from: Ipv4Addr, to: SocketAddrV4) -> io::Result<()> {
    let mut control = Control([0; 64]);
    // SAFETY: all-zero is a valid value of these plain C structs.
    let (mut name, mut message): (libc::sockaddr_in, libc::msghdr) = unsafe { (mem::zeroed(), mem::zeroed()) };
    name.sin_family = libc::AF_INET as u16;
    name.sin_addr.s_addr = u32::from(*to.ip()).to_be();
    name.sin_port = to.port().to_be();
    let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = mem::size_of_val(&name) as u32;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let size = mem::size_of_val(&info) as u32;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE of an in_pktinfo is 32 bytes, within `control`, so the first header exists and its data fits; sendmsg
    // only reads what `message` points to, all of it alive with its true length.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(size) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::IPPROTO_IP;
        (*header).cmsg_type = libc::IP_PKTINFO;
        (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
        libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().write_unaligned(info);
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
