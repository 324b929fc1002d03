//! Notices when somebody changes rules: the kernel tells every change of nftables (iptables-nft's among them) to a
//! netlink group. What became of our own rules is looked at a moment later, once for a whole burst of changes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_sys::{Socket, SocketAddr, protocols};

use crate::{Error, Result, sys};

/// include/uapi/linux/netfilter/nfnetlink.h
const NFNLGRP_NFTABLES: u32 = 7;
/// NFT_MSG_NEWSETELEM, NEWGEN, TRACE: other containers' starts, the number of a change, a packet's way.
const NO_LOSS: [u8; 3] = [12, 15, 17];
/// From the first change of a burst to the look.
const PAUSE: Duration = Duration::from_millis(150);
/// A look costs a millisecond at most, but others' starts and ends must not make it a constant burden.
const BETWEEN_LOOKS: Duration = Duration::from_millis(400);

/// A watch over the rules of the network namespace in which it was opened.
pub struct Watch {
    socket: Socket,
    due: Option<Instant>,
    last_look: Option<Instant>,
}

impl Watch {
    /// Opens it.
    ///
    /// # Errors
    /// A kernel without nftables, no descriptors left.
    pub fn open() -> Result<Watch> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(protocols::NETLINK_NETFILTER)?;
            sys::leave_out(socket.as_fd(), &NO_LOSS)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(NFNLGRP_NFTABLES)?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| Error::system("watch the firewall's changes", error))?;
        Ok(Watch { socket, due: None, last_look: None })
    }

    /// Readable when something has changed.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// How long the owner may sleep until it must ask [`Watch::is_due`].
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(now))
    }

    /// Takes the notices, after [`Watch::fd`] was readable.
    pub fn ready(&mut self, now: Instant) {
        let mut buffer = Vec::with_capacity(8192);
        // What doesn't fit or was lost (ENOBUFS) says the same: something has changed.
        for _ in 0..64 {
            buffer.clear();
            match self.socket.recv(&mut buffer, libc::MSG_DONTWAIT | libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => {}
            }
        }
        let earliest = self.last_look.map_or(now, |last| last + BETWEEN_LOOKS);
        self.due.get_or_insert((now + PAUSE).max(earliest));
    }

    /// Whether it's time to look; true once for each burst.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            (self.due, self.last_look) = (None, Some(now));
        }
        due
    }
}
