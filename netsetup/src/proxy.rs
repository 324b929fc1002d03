//! The built-in port proxy, for what DNAT can't serve: a client's connection ends here, and a second one goes to the container.
//!
//! It is driven by its owner's poll loop, has no thread and never blocks: poll [`Proxy::fd`] for input with [`Proxy::timeout`],
//! then call [`Proxy::ready`], which does a bounded amount of work. A TCP port isn't put into listening before the container
//! listens ([`Gate`]): until then clients get RST, as from a program that isn't there, and not an early "connected".

mod by_hand;
mod gate;
mod pktinfo;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::AddressFamily;

use crate::port::ReservedPort;
use crate::{PortMapping, Protocol};
pub use by_hand::{ByHandError, run_by_hand};
pub use gate::Gate;

/// The address family of a socket that is to talk to this address.
fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// Why there can be no proxy for a port.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// TCP and UDP only.
    #[error("the proxy cannot carry {0}: only tcp and udp; publish the port in mode dnat")]
    Protocol(Protocol),
    /// A system call failed when the proxy was made.
    #[error("cannot set up the proxy for port {port}: {errno}")]
    System {
        /// The host port.
        port: u16,
        /// What the kernel said.
        errno: Errno,
    },
}

/// The proxy of one published port.
#[derive(Debug)]
pub struct Proxy {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tcp(tcp::TcpProxy),
    Udp(udp::UdpProxy),
}

impl Proxy {
    /// A proxy from the reserved port to `container:mapping.container_port`. Without a gate it takes TCP clients at once.
    /// UDP has no listening, so a gate means nothing to it.
    ///
    /// # Errors
    /// [`ProxyError`]: SCTP, or no descriptors or memory left.
    pub fn new(
        mapping: &PortMapping,
        container: impl Into<IpAddr>,
        reserved: ReservedPort,
        gate: Option<Gate>,
    ) -> Result<Proxy, ProxyError> {
        let port = reserved.port();
        let target = SocketAddr::new(container.into(), mapping.container_port);
        let kind = match reserved.protocol() {
            Protocol::Tcp => tcp::TcpProxy::new(target, reserved, gate).map(Kind::Tcp),
            Protocol::Udp => udp::UdpProxy::new(target, reserved).map(Kind::Udp),
            Protocol::Sctp => return Err(ProxyError::Protocol(Protocol::Sctp)),
        };
        Ok(Proxy { kind: kind.map_err(|errno| ProxyError::System { port, errno })? })
    }

    /// An epoll descriptor: readable when [`Proxy::ready`] has something to do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(proxy) => proxy.epoll.as_fd(),
            Kind::Udp(proxy) => proxy.epoll.as_fd(),
        }
    }

    /// How long the owner may sleep at most before it calls [`Proxy::ready`] though `fd` is silent. Zero while a client has more
    /// data than one turn may carry.
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        let deadline = match &self.kind {
            Kind::Tcp(proxy) => proxy.deadline(now),
            Kind::Udp(proxy) => proxy.deadline(),
        };
        deadline.map(|at| at.saturating_duration_since(now))
    }

    /// Does what there is to do, but only so much: the owner has other work. Errors concern single clients and end there.
    pub fn ready(&mut self, now: Instant) {
        match &mut self.kind {
            Kind::Tcp(proxy) => proxy.ready(now),
            Kind::Udp(proxy) => proxy.ready(now),
        }
    }

    /// Leads clients to another address from now on, or to nobody: they get RST. Those that it serves lose their connection.
    /// The port stays reserved. A TCP port opens again once the gate sees the container listen.
    ///
    /// # Errors
    /// The kernel refuses to listen again: no memory.
    pub fn aim(&mut self, container: Option<IpAddr>, gate: Option<Gate>) -> Result<(), ProxyError> {
        let port = self.host().port();
        let aimed = match &mut self.kind {
            Kind::Tcp(proxy) => proxy.aim(container, gate),
            Kind::Udp(proxy) => {
                proxy.aim(container);
                Ok(())
            }
        };
        aimed.map_err(|errno| ProxyError::System { port, errno })
    }

    /// The address of the host that it serves.
    pub fn host(&self) -> SocketAddr {
        match &self.kind {
            Kind::Tcp(proxy) => proxy.host(),
            Kind::Udp(proxy) => proxy.host(),
        }
    }

    /// How many clients it serves at the moment.
    pub fn clients(&self) -> usize {
        match &self.kind {
            Kind::Tcp(proxy) => proxy.clients(),
            Kind::Udp(proxy) => proxy.clients(),
        }
    }
}
