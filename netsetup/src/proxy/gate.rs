//! Does the container listen? Asked of the kernel by sock_diag inside the container's network namespace, without sending it anything.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Protocol;
use crate::port::sock_diag::{self, state};

/// A view into a container's network namespace. It keeps no namespace alive for longer than the proxy lives.
#[derive(Debug)]
pub struct Gate {
    query: OwnedFd,
}

impl Gate {
    /// For the current network namespace.
    ///
    /// # Errors
    /// What `socket` says: no sock_diag in this kernel, too many open files.
    pub fn here() -> Result<Gate, Errno> {
        Ok(Gate { query: sock_diag::open()? })
    }

    /// For the namespace of this descriptor (`/proc/PID/ns/net`). The calling thread goes there for a moment and comes back.
    ///
    /// # Errors
    /// What `setns` or `socket` says. If the way back is barred, that is the error, and the thread is in the wrong namespace.
    pub fn inside(netns: BorrowedFd<'_>) -> Result<Gate, Errno> {
        use rustix::fs::{Mode, OFlags, open};
        let home = open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
        let gate = Gate::here();
        move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))?;
        gate
    }

    /// Whether a TCP socket listens there that a connection to `address:port` would reach.
    pub(super) fn is_open(&self, address: IpAddr, port: u16) -> Result<bool, Errno> {
        let listeners = sock_diag::sockets_at(&self.query, Protocol::Tcp, port, 1 << state::LISTEN)?;
        Ok(listeners.iter().any(|socket| socket.takes(address)))
    }
}
