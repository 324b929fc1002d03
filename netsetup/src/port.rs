//! Reserves host ports: the kernel is the allocator. A reserved port is a socket that is bound and not listening, so nobody
//! else can have the number, a client gets RST, and the reservation ends with the process that holds it.
//!
//! TIME_WAIT makes this less simple than it sounds. Without SO_REUSEADDR, `bind` fails for a minute after an earlier server (or
//! proxy) closed its connections; with it on both sides, two engines could bind the same port, since neither listens. So:
//! 1. bind without SO_REUSEADDR: the usual case, and exclusive;
//! 2. if that fails, bind with it (the kernel still refuses if anyone listens or has bound without it), as the holder of a lock
//!    that other engines respect: an abstract unix socket, which belongs to the network namespace and dies with us. Then
//!    switch SO_REUSEADDR off again: a server that got its `bind` through beside us fails in `listen`.

pub mod holder;
mod kept;
pub(crate) mod sock_diag;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, ipproto, sockopt};

use crate::Protocol;
pub use holder::{Holder, Listener, listeners};
pub use kept::Kept;

/// Why a port can't be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody has it. The engine may know the container by the holder's pid.
    #[error("cannot publish port {port}{}: in use by {}; choose another with -p", of(*.protocol, *.address), who(.holder))]
    InUse {
        /// The protocol wanted.
        protocol: Protocol,
        /// The host address wanted.
        address: IpAddr,
        /// The port wanted; 0 when no random port was free.
        port: u16,
        /// The process, where it can be known.
        holder: Option<Holder>,
    },
    /// The address is no address of this host.
    #[error("cannot publish port {port} on {address}: this host has no such address; see them with `ip addr`")]
    NoSuchAddress {
        /// The host address wanted.
        address: IpAddr,
        /// The port wanted.
        port: u16,
    },
    /// The kernel doesn't speak the protocol.
    #[error(
        "cannot publish port {port}/{protocol}: this kernel has no {protocol} ({errno}); try `modprobe {protocol}`"
    )]
    NoProtocol {
        /// The protocol wanted.
        protocol: Protocol,
        /// The port wanted.
        port: u16,
        /// What `socket` said.
        errno: Errno,
    },
    /// Anything else: no permission, too many open files ...
    #[error("cannot publish port {port}{}: {errno}", of(*.protocol, *.address))]
    Other {
        /// The protocol wanted.
        protocol: Protocol,
        /// The host address wanted.
        address: IpAddr,
        /// The port wanted.
        port: u16,
        /// What `socket` or `bind` said.
        errno: Errno,
    },
}

fn of(protocol: Protocol, address: IpAddr) -> String {
    let protocol = if protocol == Protocol::Tcp { String::new() } else { format!("/{protocol}") };
    let address = if address.is_unspecified() { String::new() } else { format!(" on {address}") };
    protocol + &address
}

fn who(holder: &Option<Holder>) -> String {
    holder.as_ref().map_or_else(|| "another program".to_string(), Holder::to_string)
}

/// A host port that is ours while this value lives (or a copy of its socket in another process).
#[derive(Debug)]
pub struct ReservedPort {
    protocol: Protocol,
    address: SocketAddr,
    socket: OwnedFd,
    /// The lock of step 2: its closing is the unlocking.
    lock: Option<Arc<OwnedFd>>,
}

impl ReservedPort {
    /// The port's number, never 0.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The host address, `0.0.0.0` or `::` for any.
    pub fn address(&self) -> IpAddr {
        self.address.ip()
    }

    /// The transport protocol.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The bound socket (CLOEXEC, non-blocking).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Begins to take clients (TCP).
    pub(crate) fn listen(&self) -> Result<(), Errno> {
        // `listen` looks for conflicts once more, and a TIME_WAIT would be one. The accepted sockets inherit the option, and so do
        // their TIME_WAITs: the next engine gets the port back at once. A listening socket is exclusive all the same.
        sockopt::set_socket_reuseaddr(&self.socket, true)?;
        net::listen(&self.socket, 4096)
    }

    /// Takes no more clients (TCP); the port stays bound (inet_shutdown() in net/ipv4/af_inet.c), and nobody else's.
    pub(crate) fn close(&self) -> Result<(), Errno> {
        net::shutdown(&self.socket, net::Shutdown::Both)?;
        sockopt::set_socket_reuseaddr(&self.socket, false)
    }
}

/// Reserves a port in the current network namespace; `host_port` 0 takes a random free one.
///
/// # Errors
/// [`PortError`]: in use (with the holder), no such address, no such protocol.
pub fn reserve(protocol: Protocol, host_address: impl Into<IpAddr>, host_port: u16) -> Result<ReservedPort, PortError> {
    let host_address = host_address.into();
    let wanted = SocketAddr::new(host_address, host_port);
    let failed = |errno| match errno {
        Errno::ADDRINUSE => PortError::InUse {
            protocol,
            address: host_address,
            port: host_port,
            holder: (host_port != 0).then(|| holder::find(protocol, host_address, host_port)).flatten(),
        },
        Errno::ADDRNOTAVAIL => PortError::NoSuchAddress { address: host_address, port: host_port },
        errno => PortError::Other { protocol, address: host_address, port: host_port, errno },
    };
    let socket = socket(protocol, host_address).map_err(|errno| match errno {
        Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT => PortError::NoProtocol { protocol, port: host_port, errno },
        errno => failed(errno),
    })?;
    let lock = match net::bind(&socket, &wanted) {
        Ok(()) => None,
        Err(Errno::ADDRINUSE) if protocol == Protocol::Tcp && host_port != 0 => {
            Some(bind_over_time_wait(&socket, wanted).map_err(failed)?)
        }
        Err(errno) => return Err(failed(errno)),
    };
    if protocol == Protocol::Udp {
        // Where DNAT serves, a stray datagram to this socket would lie in it for ever: let it hold next to nothing.
        sockopt::set_socket_recv_buffer_size(&socket, 0).map_err(failed)?;
    }
    let bound = net::getsockname(&socket).and_then(SocketAddr::try_from).map_err(failed)?;
    Ok(ReservedPort { protocol, address: bound, socket, lock })
}

fn socket(protocol: Protocol, address: IpAddr) -> Result<OwnedFd, Errno> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    if address.is_ipv4() {
        return net::socket_with(AddressFamily::INET, kind, flags, Some(number));
    }
    let socket = net::socket_with(AddressFamily::INET6, kind, flags, Some(number))?;
    // The same number of IPv4 is reserved by itself.
    sockopt::set_ipv6_v6only(&socket, true)?;
    Ok(socket)
}

/// Step 2 of the module's comment. Returns the lock, which must live as long as the socket.
fn bind_over_time_wait(socket: &OwnedFd, wanted: SocketAddr) -> Result<Arc<OwnedFd>, Errno> {
    let lock = lock(wanted.port())?;
    sockopt::set_socket_reuseaddr(socket, true)?;
    net::bind(socket, &wanted)?;
    sockopt::set_socket_reuseaddr(socket, false)?;
    Ok(lock)
}

/// The lock of a port, whatever the address: "any" and a specific address exclude each other too. One process takes it
/// once for all its sockets with that number (of both IP versions, of several addresses).
fn lock(port: u16) -> Result<Arc<OwnedFd>, Errno> {
    static OWN: Mutex<Vec<(u16, Weak<OwnedFd>)>> = Mutex::new(Vec::new());
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    own.retain(|(_, lock)| lock.strong_count() > 0);
    if let Some(lock) = own.iter().find(|(of, _)| *of == port).and_then(|(_, lock)| lock.upgrade()) {
        return Ok(lock);
    }
    let lock = net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let name = format!("minidock/port/tcp/{port}");
    net::bind(&lock, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    let lock = Arc::new(lock);
    own.push((port, Arc::downgrade(&lock)));
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};

    const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
    const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

    fn own_pid() -> u32 {
        std::process::id()
    }

    #[test]
    fn a_reserved_port_answers_rst_and_is_free_again_when_dropped() {
        let reserved = reserve(Protocol::Tcp, ANY, 0).unwrap();
        assert_ne!(reserved.port(), 0);
        let refused = TcpStream::connect((LOCAL, reserved.port())).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let port = reserved.port();
        drop(reserved);
        assert_eq!(reserve(Protocol::Tcp, ANY, port).unwrap().port(), port);
    }

    #[test]
    fn the_same_port_cannot_be_reserved_twice() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let first = reserve(protocol, ANY, 0).unwrap();
            for address in [ANY, LOCAL] {
                match reserve(protocol, address, first.port()) {
                    Err(PortError::InUse { port, .. }) => assert_eq!(port, first.port()),
                    other => panic!("{protocol} {address}: {other:?}"),
                }
            }
        }
        // Two specific addresses are two ports.
        let first = reserve(Protocol::Tcp, Ipv4Addr::new(127, 0, 0, 4), 0).unwrap();
        reserve(Protocol::Tcp, Ipv4Addr::new(127, 0, 0, 5), first.port()).unwrap();
    }

    /// Leaves a TIME_WAIT at a port of this host: the side that closes first has it.
    fn time_wait() -> u16 {
        let listener = TcpListener::bind((LOCAL, 0)).unwrap(); // std sets SO_REUSEADDR, as servers do
        let port = listener.local_addr().unwrap().port();
        let mut client = TcpStream::connect((LOCAL, port)).unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        port
    }

    /// The same left by a client with a port of its choice: Linux 6.1 takes a short way then (`fastreuse`, no conflict
    /// check among those who set SO_REUSEADDR), and only our own lock keeps a second engine away. 6.12 checks by itself.
    fn time_wait_of_a_client() -> u16 {
        let listener = TcpListener::bind((LOCAL, 0)).unwrap();
        let client = socket(Protocol::Tcp, LOCAL.into()).unwrap();
        sockopt::set_socket_reuseaddr(&client, true).unwrap();
        net::bind(&client, &SocketAddrV4::new(LOCAL, 0)).unwrap();
        let port = SocketAddrV4::try_from(net::getsockname(&client).unwrap()).unwrap().port();
        let SocketAddr::V4(server) = listener.local_addr().unwrap() else { panic!() };
        assert_eq!(net::connect(&client, &server), Err(Errno::INPROGRESS));
        let (mut accepted, _) = listener.accept().unwrap();
        drop(client);
        assert_eq!(accepted.read(&mut [0; 1]).unwrap(), 0);
        port
    }

    #[test]
    fn a_port_in_time_wait_can_be_reserved_but_only_once() {
        only_once(time_wait());
        only_once(time_wait_of_a_client());
    }

    /// A container that was proxied on several addresses starts again: each has a TIME_WAIT.
    #[test]
    fn one_port_of_several_addresses_is_reserved_over_time_wait() {
        let addresses: [IpAddr; 3] = [
            Ipv4Addr::new(127, 0, 0, 6).into(),
            Ipv4Addr::new(127, 0, 0, 7).into(),
            std::net::Ipv6Addr::LOCALHOST.into(),
        ];
        let port = reserve(Protocol::Tcp, addresses[0], 0).unwrap().port();
        for address in addresses {
            let listener = TcpListener::bind((address, port)).unwrap();
            let mut client = TcpStream::connect((address, port)).unwrap();
            drop(listener.accept().unwrap());
            assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        }
        let again: Vec<_> = addresses.iter().map(|address| reserve(Protocol::Tcp, *address, port).unwrap()).collect();
        assert!(again.iter().all(|one| one.lock.is_some()), "the test needs a TIME_WAIT");
        assert!(matches!(reserve(Protocol::Tcp, addresses[0], port), Err(PortError::InUse { .. })));
    }

    fn only_once(port: u16) {
        let plain = socket(Protocol::Tcp, ANY.into()).unwrap();
        assert_eq!(
            net::bind(&plain, &SocketAddrV4::new(ANY, port)),
            Err(Errno::ADDRINUSE),
            "the test needs a TIME_WAIT"
        );
        let first = reserve(Protocol::Tcp, ANY, port).unwrap();
        for address in [ANY, LOCAL] {
            assert!(
                matches!(reserve(Protocol::Tcp, address, port), Err(PortError::InUse { .. })),
                "second engine on {address}"
            );
        }
        // A server may get past bind beside us, but never to listening.
        TcpListener::bind((LOCAL, port)).unwrap_err();
        TcpListener::bind((ANY, port)).unwrap_err();
        // Nor does its try take the port away from us.
        first.listen().unwrap();
        TcpStream::connect((LOCAL, port)).unwrap();
    }

    #[test]
    fn a_port_that_was_proxied_is_free_at_once_for_the_next_engine() {
        let first = reserve(Protocol::Tcp, LOCAL, 0).unwrap();
        first.listen().unwrap();
        let mut client = TcpStream::connect((LOCAL, first.port())).unwrap();
        let port = first.port();
        drop(net::accept(first.fd()).unwrap()); // the proxy closes first: TIME_WAIT is here
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        drop((client, first));
        reserve(Protocol::Tcp, LOCAL, port).unwrap();
    }

    #[test]
    fn the_holder_is_named() {
        let listener = TcpListener::bind((LOCAL, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = reserve(Protocol::Tcp, ANY, port).unwrap_err();
        let text = error.to_string();
        let PortError::InUse { holder: Some(holder), .. } = error else { panic!("{text}") };
        assert_eq!(holder.pid, own_pid());
        assert!(
            text.starts_with(&format!("cannot publish port {port}: in use by "))
                && text.ends_with("; choose another with -p"),
            "{text}"
        );

        let udp = UdpSocket::bind((LOCAL, 0)).unwrap();
        let port = udp.local_addr().unwrap().port();
        let text = reserve(Protocol::Udp, LOCAL, port).unwrap_err().to_string();
        assert!(
            text.contains(&format!("{port}/udp on 127.0.0.1: in use by "))
                && text.contains(&format!("(pid {})", own_pid())),
            "{text}"
        );
    }

    #[test]
    fn a_reserving_engine_is_named_where_the_kernel_shows_idle_sockets() {
        let first = reserve(Protocol::Tcp, LOCAL, 0).unwrap();
        let query = sock_diag::open().unwrap();
        let shown =
            sock_diag::sockets_at(&query, Protocol::Tcp, first.port(), 1 << sock_diag::state::BOUND_INACTIVE).unwrap();
        let Err(PortError::InUse { holder, .. }) = reserve(Protocol::Tcp, LOCAL, first.port()) else { panic!() };
        assert_eq!(holder.map(|h| h.pid), (!shown.is_empty()).then(own_pid));
    }

    #[test]
    fn wrong_addresses_and_missing_protocols_are_told_apart() {
        let error = reserve(Protocol::Tcp, Ipv4Addr::new(192, 0, 2, 1), 0).unwrap_err();
        assert!(matches!(error, PortError::NoSuchAddress { .. }), "{error}");
        match reserve(Protocol::Sctp, LOCAL, 0) {
            Ok(reserved) => assert_ne!(reserved.port(), 0),
            Err(error) => assert!(error.to_string().contains("this kernel has no sctp"), "{error}"),
        }
    }
}
