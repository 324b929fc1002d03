//! UDP with `IP_PKTINFO` and `IPV6_PKTINFO` (ip(7), ipv6(7)): to which of our addresses did a datagram come, and from
//! which shall the answer go. The one `unsafe` place of the proxy: rustix has no such control message, nix only behind its
//! `net` feature.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Room for one control message, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// One of this host's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Local {
    pub(super) address: IpAddr,
    /// Index of the link, for an address that means nothing without it (IPv6 link-local); else 0.
    pub(super) link: u32,
}

/// A received datagram.
pub(super) struct Received {
    pub(super) length: usize,
    pub(super) from: SocketAddr,
    /// The address that the sender used for us.
    pub(super) to: Local,
}

/// Has the kernel tell the destination address of each datagram. `address`: what the socket is bound to.
pub(super) fn enable(socket: BorrowedFd<'_>, address: IpAddr) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (level, option) = match address {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    // SAFETY: the pointer and the length describe `on`, which outlives the call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), mem::size_of_val(&on) as u32)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives one datagram without blocking.
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([0; 64]);
    // SAFETY: all-zero is a valid value of these plain C structs.
    let (mut from, mut message): (libc::sockaddr_in6, libc::msghdr) = unsafe { (mem::zeroed(), mem::zeroed()) };
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
    let from = if libc::c_int::from(from.sin6_family) == libc::AF_INET6 {
        let address = Ipv6Addr::from(from.sin6_addr.s6_addr);
        SocketAddr::V6(SocketAddrV6::new(address, u16::from_be(from.sin6_port), 0, from.sin6_scope_id))
    } else {
        // SAFETY: the kernel wrote a sockaddr_in, which is smaller than a sockaddr_in6 and no stricter aligned.
        let from: libc::sockaddr_in = unsafe { (&raw const from).cast::<libc::sockaddr_in>().read() };
        let address = Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr));
        SocketAddr::V4(SocketAddrV4::new(address, u16::from_be(from.sin_port)))
    };
    let mut to = Local { address: unspecified(from), link: 0 };
    // SAFETY: the kernel has written valid control messages and their true total length; CMSG_FIRSTHDR checks that length, and
    // there is only the one that we asked for. `read_unaligned` since CMSG_DATA promises no alignment.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null() {
            let kind = ((*header).cmsg_level, (*header).cmsg_type);
            let has = |size: usize| (*header).cmsg_len >= libc::CMSG_LEN(size as u32) as usize;
            if kind == (libc::IPPROTO_IP, libc::IP_PKTINFO) && has(mem::size_of::<libc::in_pktinfo>()) {
                let info: libc::in_pktinfo = libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().read_unaligned();
                // `ipi_addr` is the header's destination; `ipi_spec_dst` is the address to answer from, also for a broadcast.
                to.address = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into();
            } else if kind == (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) && has(mem::size_of::<libc::in6_pktinfo>()) {
                let info: libc::in6_pktinfo = libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().read_unaligned();
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                // Nobody answers from a multicast address: the kernel chooses then.
                if !address.is_multicast() {
                    let link = if address.is_unicast_link_local() { info.ipi6_ifindex as u32 } else { 0 };
                    to = Local { address: address.into(), link };
                }
            }
        }
    }
    Ok(Received { length: length as usize, from, to })
}

fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Sends one datagram to `to` with `from` as its source address, without blocking. Both are of the socket's version.
pub(super) fn send(socket: BorrowedFd<'_>, data: &[u8], from: Local, to: SocketAddr) -> io::Result<()> {
    match (from.address, to) {
        (IpAddr::V4(address), SocketAddr::V4(to)) => {
            // SAFETY: all-zero is a valid value of this plain C struct.
            let mut name: libc::sockaddr_in = unsafe { mem::zeroed() };
            name.sin_family = libc::AF_INET as u16;
            name.sin_addr.s_addr = u32::from(*to.ip()).to_be();
            name.sin_port = to.port().to_be();
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(address).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            send_with(socket, data, name, (libc::IPPROTO_IP, libc::IP_PKTINFO), info)
        }
        (IpAddr::V6(address), SocketAddr::V6(to)) => {
            // SAFETY: all-zero is a valid value of this plain C struct.
            let mut name: libc::sockaddr_in6 = unsafe { mem::zeroed() };
            name.sin6_family = libc::AF_INET6 as u16;
            name.sin6_addr.s6_addr = to.ip().octets();
            name.sin6_port = to.port().to_be();
            name.sin6_scope_id = to.scope_id();
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: address.octets() },
                ipi6_ifindex: from.link as _,
            };
            send_with(socket, data, name, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info)
        }
        _ => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
    }
}

/// One sendmsg with one control message. `Name` and `Info` are plain C structs of at most 28 and 20 bytes.
fn send_with<Name, Info>(
    socket: BorrowedFd<'_>,
    data: &[u8],
    mut name: Name,
    (level, kind): (libc::c_int, libc::c_int),
    info: Info,
) -> io::Result<()> {
    let mut control = Control([0; 64]);
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = mem::size_of_val(&name) as u32;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let size = mem::size_of_val(&info) as u32;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE of at most 20 bytes is 40 bytes, within `control`, so the first header exists and its data fits;
    // sendmsg only reads what `message` points to, all of it alive with its true length.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(size) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
        libc::CMSG_DATA(header).cast::<Info>().write_unaligned(info);
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
