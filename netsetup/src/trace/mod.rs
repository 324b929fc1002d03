//! The kernel's own trace of a packet: a table of our own sets `nftrace` on the packets of one flow and marks where they
//! come by, and the kernel tells each rule that they meet (NFNLGRP_NFTRACE).
//!
//! The table belongs to the socket that made it (NFT_TABLE_F_OWNER): the kernel removes it with that socket, however the
//! process ends. So nothing is journaled, and nothing can be left over.

mod visitor;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols};
use serde::Serialize;

pub use visitor::Visitor;

use crate::firewall::conntrack;
use crate::firewall::messages::{BRIDGE, Expressions, INET, Messages, meta, payload};
use crate::netlink::{Netlink, attribute, text_of, u16_at, u32_at};
use crate::{Error, Protocol, Result};

/// The table's name, with the process in it: two walks at once must not meet.
fn table_name() -> String {
    format!("minidock_walk_{}", std::process::id())
}

/// Before every other chain, and behind it.
const FIRST: i32 = -2000;
const LAST: i32 = 2000;

/// Hooks by number (NF_INET_*; the bridge family's are the same five).
pub const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];

/// Watches one flow in one namespace.
pub struct Tracer {
    /// Keeps the tables alive.
    _tables: Netlink,
    events: Socket,
    table: String,
}

/// Something that a packet met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The kernel's number of the packet in this namespace.
    pub id: u32,
    /// What it met.
    pub what: What,
    /// `inet`, `ip`, `bridge`, …
    pub family: &'static str,
    /// The packet as it was when it came into the chain.
    pub packet: Option<Packet>,
    /// Index of the link that it came in by; 0: none.
    pub came_in: u32,
    /// Index of the link that it is to leave by; 0: none yet.
    pub goes_out: u32,
}

/// A rule, the end of a chain, or one of our marks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum What {
    /// Our mark: it has come to a hook (`end`: and all other chains have let it pass).
    Mark {
        /// `prerouting`, …
        hook: String,
        /// Behind all chains of the hook.
        end: bool,
    },
    /// A rule that fits it.
    Rule {
        /// Its table.
        table: String,
        /// Its chain.
        chain: String,
        /// Its number.
        handle: u64,
        /// `accept`, `drop`, `jump X`, `continue`, …
        verdict: String,
    },
    /// The end of a chain that the kernel calls, or of one that was jumped to.
    Policy {
        /// The chain's table.
        table: String,
        /// The chain.
        chain: String,
        /// `accept` or `drop`.
        verdict: String,
    },
}

/// Addresses and ports of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Packet {
    /// Where from.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
    /// TCP's flags; 0 for others.
    pub tcp_flags: u8,
}

/// One probe has some tens; what comes on top is others' traffic of the same port.
const MOST_EVENTS: usize = 10_000;

impl Tracer {
    /// Begins to watch, in the caller's network namespace, packets of this protocol from or to this port.
    pub fn begin(protocol: Protocol, port: u16) -> Result<Tracer> {
        let mut tables = Netlink::netfilter()?;
        let table = table_name();
        let what = "trace packets";
        tables.send(&messages(INET, &table, protocol, port)).map_err(|failure| {
            let mut error = failure.into_error(what);
            if let Error::System { detail, .. } = &mut error {
                *detail = Some("tracing needs nftables and Linux 5.12 or newer".to_owned());
            }
            error
        })?;
        // Not every kernel has nftables for bridges; without it frames between two ports aren't told.
        let _ = tables.send(&messages(BRIDGE, &table, protocol, port));
        let listen = || -> io::Result<Socket> {
            const NFNLGRP_NFTRACE: u32 = 9;
            let mut socket = Socket::new(protocols::NETLINK_NETFILTER)?;
            socket.bind(&NetlinkAddress::new(0, 0))?;
            socket.add_membership(NFNLGRP_NFTRACE)?;
            let _ = nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(1 << 20));
            Ok(socket)
        };
        let events = listen().map_err(|error| Error::system(what, error))?;
        Ok(Tracer { _tables: tables, events, table })
    }

    /// What has been met so far, in order.
    pub fn read(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut buffer: Vec<u8> = Vec::with_capacity(1 << 16);
        while events.len() < MOST_EVENTS {
            buffer.clear();
            match self.events.recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(0) => break,
                Ok(_) => events_of(&buffer, &self.table, &mut events),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {} // a flood: what came before is enough
                Err(_) => break,
            }
        }
        events
    }
}

impl AsFd for Tracer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

/// The table: at each hook a first and a last chain; where packets come into the namespace, the first one sets the mark.
fn messages(family: u8, table: &str, protocol: Protocol, port: u16) -> crate::netlink::Batch {
    let mut messages = Messages::begin(family, table);
    messages.own_table();
    for (number, hook) in HOOKS.iter().enumerate() {
        messages.base_chain(&format!("first_{hook}"), "filter", number as u32, FIRST);
        messages.base_chain(&format!("last_{hook}"), "filter", number as u32, LAST);
    }
    for hook in ["first_prerouting", "first_output"] {
        for offset in [0, 2] {
            let rule = Expressions::default()
                .meta(meta::L4PROTO)
                .equal(&[protocol.number()])
                .payload(payload::TRANSPORT, offset, 2)
                .equal(&port.to_be_bytes())
                .constant(&[1])
                .set_meta(meta::NFTRACE);
            messages.rule(hook, &rule, "minidock walk");
        }
    }
    // The kernel shows the packet with a chain's first rule, never with its policy: so each has a rule that does nothing.
    for hook in HOOKS {
        for place in ["first", "last"] {
            messages.rule(&format!("{place}_{hook}"), &Expressions::default().constant(&[1]), "minidock walk: a mark");
        }
    }
    messages.end()
}

/// The messages of one datagram.
fn events_of(bytes: &[u8], own_table: &str, events: &mut Vec<Event>) {
    const HEADER: usize = 16;
    const NFT_MSG_TRACE: u16 = 10 << 8 | 17;
    let mut rest = bytes;
    while rest.len() >= HEADER {
        let length = u32_at(rest, 0) as usize;
        if length < HEADER || length > rest.len() {
            return;
        }
        if u16_at(rest, 4) == NFT_MSG_TRACE {
            let event = event(rest.get(HEADER + 4..length).unwrap_or_default(), own_table);
            // The first chains have more than one rule of ours that fits; the packet is with the first.
            let again = |last: &&Event| {
                event.as_ref().is_some_and(|one| (one.id, one.family, &one.what) == (last.id, last.family, &last.what))
            };
            let is_mark = event.as_ref().is_some_and(|one| matches!(one.what, What::Mark { .. }));
            if !(is_mark && events.last().filter(again).is_some()) {
                events.extend(event);
            }
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
}

fn event(body: &[u8], own_table: &str) -> Option<Event> {
    const POLICY: u32 = 1;
    const RETURN: u32 = 2;
    let number = |kind| attribute(body, kind).and_then(|value| value.try_into().ok()).map_or(0, u32::from_be_bytes);
    let text = |kind| attribute(body, kind).map(text_of).unwrap_or_default();
    let (table, chain, kind) = (text(1), text(2), number(4));
    // NFTA_TRACE_NFPROTO: the packet's family; in table inet it is 2 or 10.
    let family = crate::survey::family_name(number(15) as u8);
    let code = attribute(body, 5).and_then(|verdict| attribute(verdict, 1));
    let verdict = match kind {
        POLICY => i32::from_be_bytes(attribute(body, 16)?.try_into().ok()?),
        _ => i32::from_be_bytes(code?.try_into().ok()?),
    };
    let target = attribute(body, 5).and_then(|verdict| attribute(verdict, 2)).map(text_of).unwrap_or_default();
    let verdict = match verdict & if verdict >= 0 { 0xff } else { -1 } {
        0 => "drop".to_owned(),
        1 => "accept".to_owned(),
        2 => "stolen".to_owned(),
        3 => "queue".to_owned(),
        -1 => "continue".to_owned(),
        -2 => "break".to_owned(),
        -3 => format!("jump {target}"),
        -4 => format!("goto {target}"),
        -5 => "return".to_owned(),
        other => other.to_string(),
    };
    let what = match (table == own_table, kind) {
        (true, POLICY | RETURN) => return None,
        (true, _) => {
            let (place, hook) = chain.split_once('_')?;
            What::Mark { hook: hook.to_owned(), end: place == "last" }
        }
        (false, POLICY | RETURN) => What::Policy { table, chain, verdict },
        (false, _) => {
            let handle = attribute(body, 3).and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes);
            What::Rule { table, chain, handle, verdict }
        }
    };
    let packet = attribute(body, 8).and_then(|network| packet(network, attribute(body, 9).unwrap_or_default()));
    Some(Event { id: number(6), what, family, packet, came_in: number(10), goes_out: number(12) })
}

/// An IP header and the beginning of what it carries.
fn packet(network: &[u8], transport: &[u8]) -> Option<Packet> {
    let address = |at: usize, length: usize| -> Option<IpAddr> {
        let bytes = network.get(at..at + length)?;
        match length {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
    };
    let (source, destination, protocol) = match network.first()? >> 4 {
        4 => (address(12, 4)?, address(16, 4)?, *network.get(9)?),
        6 => (address(8, 16)?, address(24, 16)?, *network.get(6)?),
        _ => return None,
    };
    let port = |at: usize| transport.get(at..at + 2).and_then(|two| two.try_into().ok()).map_or(0, u16::from_be_bytes);
    Some(Packet {
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
        tcp_flags: if protocol == Protocol::Tcp.number() { transport.get(13).copied().unwrap_or(0) } else { 0 },
    })
}

/// The flows that the caller's namespace remembers from this source port: how each began, and what its answers look like.
pub fn flows(protocol: Protocol, port: u16) -> Vec<(String, String)> {
    Netlink::netfilter().map(|mut netlink| conntrack::flows_from(&mut netlink, protocol, port)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_messages_end_the_reading_without_a_panic() {
        for length in 0..96 {
            let bytes: Vec<u8> = (0..length).map(|byte| (byte * 53) as u8).collect();
            let _ = event(&bytes, "t");
            let _ = packet(&bytes, &bytes);
            events_of(&bytes, "t", &mut Vec::new());
        }
    }

    #[test]
    fn a_packet_is_read_from_its_headers() {
        let mut network = vec![0x45; 20];
        network[9] = 6;
        network[12..20].copy_from_slice(&[10, 0, 0, 9, 172, 17, 0, 2]);
        let mut transport = vec![0; 20];
        transport[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        transport[13] = 2;
        let read = packet(&network, &transport).unwrap();
        assert_eq!(read.source, "10.0.0.9:40000".parse().unwrap());
        assert_eq!(read.destination, "172.17.0.2:80".parse().unwrap());
        assert_eq!(read.tcp_flags, 2);
    }
}
