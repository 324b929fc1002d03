//! The resolver's sockets, born inside the container's network namespace.

use std::net::SocketAddrV4;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{ADDRESS, PORT, redirect};
use crate::netlink::Netlink;
use crate::{Error, Result};

/// What the container's queries arrive at. It keeps the namespace alive: to be dropped when the container ends.
#[derive(Debug)]
pub struct Sockets {
    pub(super) udp: OwnedFd,
    pub(super) tcp: OwnedFd,
    /// The namespace, for questions to servers that the user named.
    pub(super) netns: OwnedFd,
}

impl Sockets {
    /// In the network namespace of this moment, with the redirect. lo must be up: a socket bound to an
    /// address that the kernel has no route to yet answers from another one (RTN_BROADCAST in __inet_bind()).
    ///
    /// # Errors
    /// What the kernel says.
    pub fn here() -> Result<Sockets> {
        let made = match Netlink::netfilter() {
            Ok(mut netlink) => redirect::make(&mut netlink).map_err(|failure| failure.errno),
            Err(_) => Err(libc::EPROTONOSUPPORT),
        };
        match made {
            Ok(()) => Sockets::bind(PORT),
            // Without nftables we sit on the port itself, and a name server in the container can't.
            Err(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::ENOENT | libc::EINVAL) => {
                Sockets::bind(53)
            }
            Err(errno) => {
                return Err(Error::system(
                    "redirect the container's name queries",
                    std::io::Error::from_raw_os_error(errno),
                ));
            }
        }
        .map_err(|errno| Error::system(format!("listen for name queries on {ADDRESS} in the container"), errno))
    }

    /// In the namespace of this descriptor (`/proc/PID/ns/net`). The calling thread goes there for a moment.
    ///
    /// # Errors
    /// What the kernel says. If the way back is barred, that is the error, and the thread is in the wrong namespace.
    pub fn inside(netns: BorrowedFd<'_>) -> Result<Sockets> {
        enter(netns, Sockets::here).map_err(|errno| Error::system("enter the container's network namespace", errno))?
    }

    fn bind(port: u16) -> std::result::Result<Sockets, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let address = SocketAddrV4::new(ADDRESS, port);
        let open = |kind| {
            let socket = net::socket_with(AddressFamily::INET, kind, flags, None)?;
            net::bind(&socket, &address)?;
            Ok::<_, Errno>(socket)
        };
        let (udp, tcp) = (open(SocketType::DGRAM)?, open(SocketType::STREAM)?);
        net::listen(&tcp, 64)?;
        Ok(Sockets { udp, tcp, netns: own_netns()? })
    }
}

/// Calls the closure inside another network namespace.
pub(super) fn enter<T>(netns: BorrowedFd<'_>, action: impl FnOnce() -> T) -> std::result::Result<T, Errno> {
    let home = own_netns()?;
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
    let value = action();
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(value)
}

fn own_netns() -> std::result::Result<OwnedFd, Errno> {
    use rustix::fs::{Mode, OFlags, open};
    open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}
