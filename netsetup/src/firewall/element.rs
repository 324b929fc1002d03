//! What the tables' sets and maps hold: one element for each network, container or published port.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::encode;
use crate::subnet::{from_number, last_address, to_number};
use crate::{PortMapping, Protocol};

/// Published ports of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports(pub Vec<PortMapping>);

/// A run of ports with consecutive numbers on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first of them.
    pub first: PortMapping,
    /// The last of them.
    pub last: PortMapping,
}

impl Ports {
    /// The ports, as few runs as may be, in their order.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for port in &self.0 {
            match runs.last_mut().filter(|run| follows(&run.last, port)) {
                Some(run) => run.last = *port,
                None => runs.push(Run { first: *port, last: *port }),
            }
        }
        runs
    }

    /// One element for each run with the same numbers on both sides, else one for each port: nftables can't add.
    pub(super) fn elements(&self, address: IpAddr) -> Vec<Element> {
        let single = |mapping: &PortMapping| Element::Port {
            protocol: mapping.protocol,
            host_address: mapping.host_address,
            host_port: mapping.host_port,
            address,
            port: mapping.container_port,
        };
        let mut elements = Vec::new();
        let mut rest = self.0.as_slice();
        for run in self.runs() {
            let count = usize::from(run.last.host_port - run.first.host_port) + 1;
            let (ports, after) = rest.split_at(count.min(rest.len()));
            rest = after;
            if count > 1 && run.first.host_port == run.first.container_port {
                elements.push(Element::Span {
                    protocol: run.first.protocol,
                    host_address: run.first.host_address,
                    first: run.first.host_port,
                    last: run.last.host_port,
                    address,
                });
            } else {
                elements.extend(ports.iter().map(single));
            }
        }
        elements
    }

    /// The container's own ports.
    pub(super) fn opened(&self, address: IpAddr) -> Vec<Element> {
        let mut ports: Vec<(Protocol, u16)> =
            self.0.iter().map(|mapping| (mapping.protocol, mapping.container_port)).collect();
        ports.sort_unstable();
        ports.dedup();
        let spans = ports.chunk_by(|one, next| one.0 == next.0 && one.1 + 1 == next.1);
        let element = |span: &[(Protocol, u16)]| {
            let ((protocol, first), (_, last)) = (span.first()?, span.last()?);
            Some(Element::Opened { protocol: *protocol, address, first: *first, last: *last })
        };
        spans.filter_map(element).collect()
    }

    /// The host's ports.
    pub(super) fn proxied(&self) -> Vec<Element> {
        self.0.iter().map(|mapping| Element::Proxied { protocol: mapping.protocol, port: mapping.host_port }).collect()
    }
}

fn follows(last: &PortMapping, port: &PortMapping) -> bool {
    let next = |one: u16, other: u16| one.checked_add(1) == Some(other);
    (last.protocol, last.host_address, last.mode) == (port.protocol, port.host_address, port.mode)
        && next(last.host_port, port.host_port)
        && next(last.container_port, port.container_port)
}

/// An element that we have made; what undo needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Element {
    /// A bridge of containers.
    Bridge {
        /// Its name.
        name: String,
    },
    /// A subnet of containers.
    Subnet {
        /// Its first address.
        address: IpAddr,
        /// Its length in bits.
        prefix_len: u8,
    },
    /// Traffic that stays within a bridge.
    SameBridge {
        /// The bridge's name.
        name: String,
    },
    /// A bridge without a way out.
    Internal {
        /// Its name.
        name: String,
    },
    /// A bridge whose containers are reached at their own addresses.
    Routed {
        /// Its name.
        name: String,
    },
    /// A subnet that leaves with the host's address.
    Masqueraded {
        /// Its first address.
        address: IpAddr,
        /// Its length in bits.
        prefix_len: u8,
    },
    /// A published port.
    Port {
        /// tcp, udp, sctp.
        protocol: Protocol,
        /// The host's address; `0.0.0.0` and `::`: every.
        host_address: IpAddr,
        /// The port on the host.
        host_port: u16,
        /// The container's address: the mark by which undo knows its own.
        address: IpAddr,
        /// The port in the container.
        port: u16,
    },
    /// Published ports with the same numbers on both sides.
    Span {
        /// tcp, udp, sctp.
        protocol: Protocol,
        /// The host's address; `0.0.0.0` and `::`: every.
        host_address: IpAddr,
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
        /// The container's address.
        address: IpAddr,
    },
    /// Ports of a container in a routed network.
    Opened {
        /// tcp, udp, sctp.
        protocol: Protocol,
        /// The container's address.
        address: IpAddr,
        /// The first port.
        first: u16,
        /// The last port.
        last: u16,
    },
    /// A port of the host that a proxy serves.
    Proxied {
        /// tcp, udp.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// What a card may send as.
    Sender {
        /// The host's end of the veth pair.
        link: String,
        /// The card's MAC.
        mac: [u8; 6],
        /// An address of the card.
        address: IpAddr,
    },
    /// The traffic class of a container's packets.
    Class {
        /// The container's address.
        address: IpAddr,
        /// As tc(8) has it: major number × 65536 + minor number.
        class: u32,
    },
    /// The address that a card may advertise as its own.
    Target {
        /// The host's end of the veth pair.
        link: String,
        /// An IPv6 address of the card.
        address: IpAddr,
    },
}

impl Element {
    /// Whether it's of a card that has this end on the host or this address; true for what is of no card.
    pub fn is_of(&self, links: &[&str], addresses: &[IpAddr]) -> bool {
        match self {
            Element::Port { address, .. }
            | Element::Span { address, .. }
            | Element::Opened { address, .. }
            | Element::Class { address, .. } => addresses.contains(address),
            // By the link: a card sends from its link-local address, too.
            Element::Sender { link, .. } | Element::Target { link, .. } => links.contains(&link.as_str()),
            _ => true,
        }
    }

    /// Whether it's of this card; false for what is of no card.
    pub fn is_of_card(&self, link: &str, addresses: &[IpAddr]) -> bool {
        let of_none = matches!(
            self,
            Element::Bridge { .. }
                | Element::Subnet { .. }
                | Element::SameBridge { .. }
                | Element::Internal { .. }
                | Element::Routed { .. }
                | Element::Masqueraded { .. }
                | Element::Proxied { .. }
        );
        !of_none && self.is_of(&[link], addresses)
    }

    /// The map's or set's name.
    pub fn set(&self) -> &'static str {
        match self {
            Element::Bridge { .. } => "bridges",
            Element::Subnet { .. } => "subnets",
            Element::SameBridge { .. } => "same_bridge",
            Element::Internal { .. } => "internal",
            Element::Routed { .. } => "routed",
            Element::Masqueraded { .. } => "masqueraded",
            Element::Port { host_address, .. } if host_address.is_unspecified() => "ports",
            Element::Port { .. } => "ports_at",
            Element::Span { host_address, .. } if host_address.is_unspecified() => "spans",
            Element::Span { .. } => "spans_at",
            Element::Opened { .. } => "opened",
            Element::Proxied { .. } => "proxied",
            Element::Sender { address, .. } if address.is_ipv4() => "senders",
            Element::Sender { .. } => "senders6",
            Element::Target { .. } => "targets",
            Element::Class { .. } => "classes",
        }
    }

    /// The element as nft writes it.
    pub(crate) fn text(&self, comment: Option<&str>) -> String {
        let at = |address: &IpAddr| if address.is_unspecified() { String::new() } else { format!("{address} . ") };
        let comment = comment.map(|comment| format!(" comment \"{comment}\"")).unwrap_or_default();
        let span = |first: &u16, last: &u16| if first == last { first.to_string() } else { format!("{first}-{last}") };
        match self {
            Element::Bridge { name } | Element::Internal { name } | Element::Routed { name } => format!("\"{name}\""),
            Element::Subnet { address, prefix_len } | Element::Masqueraded { address, prefix_len } => {
                format!("{address}/{prefix_len}")
            }
            Element::SameBridge { name } => format!("\"{name}\" . \"{name}\""),
            Element::Port { protocol, host_address, host_port, address, port } => {
                format!("{protocol} . {}{host_port}{comment} : {address} . {port}", at(host_address))
            }
            Element::Span { protocol, host_address, first, last, address } => {
                format!("{protocol} . {}{}{comment} : {address}", at(host_address), span(first, last))
            }
            Element::Opened { protocol, address, first, last } => {
                format!("{address} . {protocol} . {}", span(first, last))
            }
            Element::Proxied { protocol, port } => format!("{protocol} . {port}"),
            Element::Sender { link, mac, address } => {
                format!("\"{link}\" . {} . {address}", crate::link::mac_text(mac))
            }
            Element::Class { address, class } => format!("{address} : {:x}:{:x}", class >> 16, class & 0xffff),
            Element::Target { link, address } => format!("\"{link}\" . 0x{:032x}", to_number(*address)),
        }
    }

    /// The element, and in a set of plain intervals the end of the interval.
    pub(super) fn encoded(&self, comment: Option<&str>) -> Vec<encode::Element> {
        let plain = |key: Vec<u8>| encode::Element {
            set: self.set(),
            key,
            key_end: None,
            data: None,
            interval_end: false,
            comment: comment.map(str::to_owned),
        };
        // Keys of several values of which the last is a range of ports.
        let range = |before: &[&[u8]], first: &u16, last: &u16| {
            let key = |port: &u16| encode::words(&[before, &[&port.to_be_bytes()]].concat());
            encode::Element { key_end: Some(key(last)), ..plain(key(first)) }
        };
        let one = match self {
            Element::Bridge { name } | Element::Internal { name } | Element::Routed { name } => {
                plain(encode::link_name(name).to_vec())
            }
            Element::SameBridge { name } => plain(encode::link_name(name).repeat(2)),
            Element::Subnet { address, prefix_len } | Element::Masqueraded { address, prefix_len } => {
                let start = plain(encode::octets(*address));
                let last = last_address(*address, *prefix_len);
                let after = from_number(to_number(last).wrapping_add(1), *address);
                let end = (!after.is_unspecified())
                    .then(|| encode::Element { interval_end: true, ..plain(encode::octets(after)) });
                return std::iter::once(start).chain(end).collect();
            }
            Element::Port { protocol, host_address, host_port, address, port } => {
                let (protocol, host, host_port) =
                    ([protocol.number()], encode::octets(*host_address), host_port.to_be_bytes());
                let key = if host_address.is_unspecified() {
                    encode::words(&[&protocol, &host_port])
                } else {
                    encode::words(&[&protocol, &host, &host_port])
                };
                encode::Element { data: Some(encode::destination(*address, *port)), ..plain(key) }
            }
            Element::Span { protocol, host_address, first, last, address } => {
                let (protocol, host) = ([protocol.number()], encode::octets(*host_address));
                let before: &[&[u8]] = if host_address.is_unspecified() { &[&protocol] } else { &[&protocol, &host] };
                encode::Element { data: Some(encode::octets(*address)), ..range(before, first, last) }
            }
            Element::Opened { protocol, address, first, last } => {
                range(&[&encode::octets(*address), &[protocol.number()]], first, last)
            }
            Element::Proxied { protocol, port } => plain(encode::words(&[&[protocol.number()], &port.to_be_bytes()])),
            Element::Sender { link, mac, address } => {
                plain(encode::words(&[&encode::link_name(link), mac, &encode::octets(*address)]))
            }
            Element::Class { address, class } => {
                encode::Element { data: Some(class.to_ne_bytes().to_vec()), ..plain(encode::octets(*address)) }
            }
            Element::Target { link, address } => {
                plain(encode::words(&[&encode::link_name(link), &encode::octets(*address)]))
            }
        };
        vec![one]
    }
}
