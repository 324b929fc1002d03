//! Notices when somebody changes rules: the kernel tells every change of nftables (iptables-nft's among them) to a
//! netlink group. iptables-legacy tells nobody: the number of rules in its tables is looked at once a second. What became of our own rules is looked at a moment later, once for a whole burst of changes.

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
    last_change: Option<Instant>,
    legacy: Option<Legacy>,
}

/// The tables of iptables-legacy and ip6tables-legacy.
struct Legacy {
    /// Whether it's IPv6's, and its name.
    tables: Vec<(bool, String)>,
    entries: Vec<Option<u32>>,
    next: Instant,
}

/// From one look at iptables-legacy to the next; together with the mending, within a second.
const LEGACY_PAUSE: Duration = Duration::from_millis(700);

impl Legacy {
    /// None when iptables-legacy has no tables here.
    fn open() -> Option<Legacy> {
        let tables = [legacy_tables(false), legacy_tables(true)].concat();
        let entries = counts(&tables);
        (!tables.is_empty()).then(|| Legacy { tables, entries, next: Instant::now() + LEGACY_PAUSE })
    }

    /// Whether rules have come or gone since the last look.
    fn has_changed(&mut self, now: Instant) -> bool {
        self.next = now + LEGACY_PAUSE;
        let before = std::mem::replace(&mut self.entries, counts(&self.tables));
        before != self.entries
    }
}

/// The names of iptables-legacy's tables.
fn legacy_tables(v6: bool) -> Vec<(bool, String)> {
    let file = if v6 { "ip6_tables_names" } else { "ip_tables_names" };
    let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    text.lines().map(|name| (v6, name.to_owned())).collect()
}

/// How many rules iptables-legacy has.
pub(crate) fn legacy_rules(v6: bool) -> usize {
    counts(&legacy_tables(v6)).into_iter().flatten().map(|entries| entries as usize).sum()
}

fn counts(tables: &[(bool, String)]) -> Vec<Option<u32>> {
    let socket = |v6: bool| tables.iter().any(|one| one.0 == v6).then(|| sys::raw_socket(v6).ok()).flatten();
    let (ipv4, ipv6) = (socket(false), socket(true));
    let count = |(v6, name): &(bool, String)| {
        let socket = if *v6 { ipv6.as_ref() } else { ipv4.as_ref() };
        sys::legacy_entries(socket?.as_fd(), *v6, name)
    };
    tables.iter().map(count).collect()
}

impl Watch {
    /// Opens it.
    ///
    /// # Errors
    /// A kernel without nftables, no descriptors left.
    ///
    /// `legacy`: over the rules of iptables-legacy, too, where it has any.
    pub fn open(legacy: bool) -> Result<Watch> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(protocols::NETLINK_NETFILTER)?;
            sys::leave_out(socket.as_fd(), &NO_LOSS)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(NFNLGRP_NFTABLES)?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| Error::system("watch the firewall's changes", error))?;
        Ok(Watch {
            socket,
            due: None,
            last_look: None,
            last_change: None,
            legacy: if legacy { Legacy::open() } else { None },
        })
    }

    /// Readable when something has changed.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// How long the owner may sleep until it must ask [`Watch::is_due`].
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        let legacy = self.legacy.as_ref().map(|legacy| legacy.next);
        self.due.into_iter().chain(legacy).min().map(|due| due.saturating_duration_since(now))
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
        self.last_change = Some(Instant::now());
        let earliest = self.last_look.map_or(now, |last| last + BETWEEN_LOOKS);
        self.due.get_or_insert((now + PAUSE).max(earliest));
    }

    /// When the last change was noticed: at that time it had happened.
    pub fn last_change(&self) -> Option<Instant> {
        self.last_change
    }

    /// Whether it's time to look; true once for each burst.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let changed = self.legacy.as_mut().is_some_and(|legacy| legacy.next <= now && legacy.has_changed(now));
        if changed {
            self.last_change = Some(now);
        }
        let due = changed || self.due.is_some_and(|due| due <= now);
        if due {
            (self.due, self.last_look) = (None, Some(now));
        }
        due
    }
}
