//! Asks the kernel which sockets have a port: `NETLINK_SOCK_DIAG` dumps of the network namespace in which the query socket was made.
//!
//! `/proc/net/tcp` would not do: a socket that is bound and not listening (a reserved port) isn't in it. Kernels from 6.8 on
//! show such a socket here as BOUND_INACTIVE; older ones don't show it at all. Wire format: linux/inet_diag.h, sock_diag(7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use crate::Protocol;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// `INET_DIAG_SKV6ONLY`: sent for listening IPv6 sockets.
const SKV6ONLY: u16 = 11;
const NETLINK_HEADER: usize = 16;
/// `struct inet_diag_msg`: family, state, timer, retrans, sockid (48 bytes), expires, rqueue, wqueue, uid, inode.
const DIAG_MESSAGE: usize = 72;
/// A port has few sockets as a rule; a server with a million connections must not make us read them all.
const MOST_SOCKETS: usize = 4096;

/// TCP states as the kernel numbers them (net/tcp_states.h). UDP uses 1, ESTABLISHED, when connected and CLOSE when not.
pub(crate) mod state {
    pub(crate) const TIME_WAIT: u8 = 6;
    pub(crate) const CLOSE: u8 = 7;
    pub(crate) const LISTEN: u8 = 10;
    pub(crate) const BOUND_INACTIVE: u8 = 13;
}

/// Every state but TIME_WAIT, which has no socket and so no owner.
pub(crate) const OWNED_STATES: u32 = !(1 << state::TIME_WAIT);

/// One socket of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) state: u8,
    /// Its local address; unspecified for "any".
    pub(crate) address: IpAddr,
    /// An IPv6 socket that takes no IPv4.
    pub(crate) v6_only: bool,
    /// What `/proc/PID/fd` shows as `socket:[inode]`; 0 when no file belongs to it.
    pub(crate) inode: u32,
}

impl Socket {
    /// Whether it and a socket at this address would want the same packets. Two specific addresses don't collide.
    pub(crate) fn meets(&self, address: IpAddr) -> bool {
        let own = self.address.to_canonical();
        if own.is_ipv6() && own.is_unspecified() {
            return address.is_ipv6() || !self.v6_only;
        }
        own.is_ipv4() == address.is_ipv4() && (own.is_unspecified() || address.is_unspecified() || own == address)
    }

    /// Whether a packet to this very address is its.
    pub(crate) fn takes(&self, address: IpAddr) -> bool {
        !address.is_unspecified() && self.meets(address)
    }
}

/// A query socket; it stays in the namespace where it was made, wherever its owner goes.
pub(crate) fn open() -> Result<OwnedFd, Errno> {
    net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))
}

/// The sockets of both IP families with this local port and one of the states (a bit mask, `1 << state`).
/// A kernel without the protocol's diag module answers with none (Debian has inet_diag, udp_diag as modules; they load by themselves).
pub(crate) fn sockets_at(query: &OwnedFd, protocol: Protocol, port: u16, states: u32) -> Result<Vec<Socket>, Errno> {
    let mut found = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        match dump(query, family, protocol, port, states, &mut found) {
            Ok(()) | Err(Errno::NOENT | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn dump(
    query: &OwnedFd,
    family: u8,
    protocol: Protocol,
    port: u16,
    states: u32,
    found: &mut Vec<Socket>,
) -> Result<(), Errno> {
    net::send(query, &request(family, protocol.number(), port, states), SendFlags::empty())?;
    let mut buffer = vec![0u8; 32 * 1024];
    loop {
        let (read, _) = net::recv(query, &mut buffer[..], RecvFlags::empty())?;
        if let Some(end) = parse(&buffer[..read.min(buffer.len())], port, found) {
            return end;
        }
    }
}

/// `nlmsghdr` + `struct inet_diag_req_v2`. The kernel filters by `idiag_sport`.
fn request(family: u8, protocol: u8, port: u16, states: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(72);
    message.extend(72u32.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    message.extend([0; 8]); // sequence number, port id
    message.extend([family, protocol, 0, 0]);
    message.extend(states.to_ne_bytes());
    message.extend(port.to_be_bytes());
    message.extend([0; 46]); // destination port, both addresses, interface, cookie: anything
    message
}

/// Takes one datagram of the dump; `Some` when the dump is over.
fn parse(mut data: &[u8], port: u16, found: &mut Vec<Socket>) -> Option<Result<(), Errno>> {
    while data.len() >= NETLINK_HEADER {
        let length = u32_at(data, 0) as usize;
        if length < NETLINK_HEADER || length > data.len() {
            return Some(Err(Errno::BADMSG));
        }
        let (message, payload) = (&data[..length], &data[NETLINK_HEADER..length]);
        match u16_at(message, 4) {
            NLMSG_DONE => return Some(Ok(())),
            NLMSG_ERROR => {
                let code = if payload.len() >= 4 { u32_at(payload, 0) as i32 } else { 0 };
                return Some(if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(code.saturating_neg())) });
            }
            SOCK_DIAG_BY_FAMILY if payload.len() >= DIAG_MESSAGE && found.len() < MOST_SOCKETS => {
                found.extend((payload[4..6] == port.to_be_bytes()).then(|| socket(payload)));
            }
            _ => {}
        }
        data = &data[length.next_multiple_of(4).min(data.len())..];
    }
    None
}

fn socket(payload: &[u8]) -> Socket {
    let source: [u8; 16] = std::array::from_fn(|i| payload[8 + i]);
    let v4 = payload[0] == libc::AF_INET as u8;
    let address: IpAddr = if v4 {
        Ipv4Addr::new(source[0], source[1], source[2], source[3]).into()
    } else {
        Ipv6Addr::from(source).into()
    };
    let v6_only = !v4 && is_v6_only(&payload[DIAG_MESSAGE..]);
    Socket { state: payload[1], address, v6_only, inode: u32_at(payload, 68) }
}

fn is_v6_only(mut attributes: &[u8]) -> bool {
    while attributes.len() >= 4 {
        let (length, kind) = (u16_at(attributes, 0) as usize, u16_at(attributes, 2));
        if length < 4 || length > attributes.len() {
            return false;
        }
        if kind == SKV6ONLY && length > 4 {
            return attributes[4] != 0;
        }
        attributes = &attributes[length.next_multiple_of(4).min(attributes.len())..];
    }
    false
}

fn u16_at(data: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([data[at], data[at + 1]])
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn listeners(port: u16) -> Vec<Socket> {
        sockets_at(&open().unwrap(), Protocol::Tcp, port, 1 << state::LISTEN).unwrap()
    }

    #[test]
    fn a_listener_is_found_with_its_address_and_only_while_it_lives() {
        let listener = TcpListener::bind("127.0.0.7:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = listeners(port);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].address, IpAddr::from([127, 0, 0, 7]));
        assert_ne!(found[0].inode, 0);
        drop(listener);
        assert_eq!(listeners(port), []);
    }

    #[test]
    fn an_ipv6_listener_counts_for_ipv4_only_if_it_takes_both() {
        let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        assert!(listeners(both.local_addr().unwrap().port())[0].takes([127, 0, 0, 1].into()));
        let only = net::socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
        net::sockopt::set_ipv6_v6only(&only, true).unwrap();
        net::bind(&only, &std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0)).unwrap();
        net::listen(&only, 1).unwrap();
        let listener = TcpListener::from(only);
        let found = &listeners(listener.local_addr().unwrap().port())[0];
        assert!(!found.takes([127, 0, 0, 1].into()) && found.takes(Ipv6Addr::LOCALHOST.into()));
        assert!(!found.meets(Ipv4Addr::UNSPECIFIED.into()));
    }

    #[test]
    fn a_udp_socket_is_found_as_closed_or_established() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let at = |port| sockets_at(&open().unwrap(), Protocol::Udp, port, OWNED_STATES).unwrap();
        assert_eq!(at(port)[0].state, state::CLOSE);
        socket.connect("127.0.0.1:9").unwrap();
        assert_eq!(at(port)[0].state, 1);
    }

    #[test]
    fn damaged_answers_end_the_dump_without_a_panic() {
        let mut found = Vec::new();
        for length in [0u32, 3, 15, 17, 4000] {
            let mut data = length.to_ne_bytes().to_vec();
            data.resize(16, 0);
            assert_eq!(parse(&data, 1, &mut found), Some(Err(Errno::BADMSG)));
        }
        let mut short = 20u32.to_ne_bytes().to_vec();
        short.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        short.resize(20, 0xff);
        assert_eq!(parse(&short, 1, &mut found), None);
        assert!(!is_v6_only(&[2, 0, 11, 0, 1]));
        assert_eq!(found, []);
    }
}
