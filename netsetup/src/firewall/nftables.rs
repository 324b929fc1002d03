//! The nftables back end: an own table, spoken to over netlink. No process is started.
//!
//! A published port is one element of a map, so the cost of a packet doesn't grow with the ports, and the kernel itself
//! refuses a second mapping of the same port. Networks are elements of sets: adding one adds no rule.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::encode::{self, Table};
use super::ruleset::{FAMILY, script, write_table};
pub use super::table::{Facts, TableState};
use crate::link::quoted;
use crate::netlink::{Batch, Failure, Netlink};
use crate::subnet::{from_number, last_address, to_number};
use crate::undo::Residue;
use crate::{Command, Error, Network, PortMapping, Protocol, Result, Subnet};

/// Operations on the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Makes the table with its sets, chains and rules.
    Table {
        /// The table's name.
        table: String,
        /// The table is there, but chains or rules are missing: write all rules anew. Elements stay.
        repair: bool,
    },
    /// Tells the table of a network.
    Network {
        /// The table's name.
        table: String,
        /// The network's bridge.
        bridge: String,
        /// What the table lacks of it.
        elements: Vec<Element>,
    },
    /// Leads host ports to a container.
    Publish {
        /// The table's name.
        table: String,
        /// The ports; all of them or none.
        ports: Vec<PortMapping>,
        /// The container's address.
        address: IpAddr,
        /// Whose ports they are.
        comment: String,
    },
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
    /// A published port.
    Port {
        /// tcp, udp, sctp.
        protocol: Protocol,
        /// The host's address; `0.0.0.0`: every.
        host_address: IpAddr,
        /// The port on the host.
        host_port: u16,
        /// The container's address: the mark by which undo knows its own.
        address: IpAddr,
        /// The port in the container.
        port: u16,
    },
}

impl Element {
    /// The map's or set's name.
    pub fn set(&self) -> &'static str {
        match self {
            Element::Bridge { .. } => "bridges",
            Element::Subnet { .. } => "subnets",
            Element::SameBridge { .. } => "same_bridge",
            Element::Port { host_address, .. } if host_address.is_unspecified() => "ports",
            Element::Port { .. } => "ports_at",
        }
    }

    /// The element as nft writes it.
    pub(super) fn text(&self, comment: Option<&str>) -> String {
        match self {
            Element::Bridge { name } => format!("\"{name}\""),
            Element::Subnet { address, prefix_len } => format!("{address}/{prefix_len}"),
            Element::SameBridge { name } => format!("\"{name}\" . \"{name}\""),
            Element::Port { protocol, host_address, host_port, address, port } => {
                let at = if host_address.is_unspecified() { String::new() } else { format!("{host_address} . ") };
                let comment = comment.map(|comment| format!(" comment \"{comment}\"")).unwrap_or_default();
                format!("{protocol} . {at}{host_port}{comment} : {address} . {port}")
            }
        }
    }

    /// The element, and the end of its interval.
    pub(super) fn encoded(&self, comment: Option<&str>) -> Vec<encode::Element> {
        let plain =
            |key: Vec<u8>| encode::Element { set: self.set(), key, data: None, interval_end: false, comment: None };
        match self {
            Element::Bridge { name } => vec![plain(encode::link_name(name).to_vec())],
            Element::SameBridge { name } => vec![plain(encode::link_name(name).repeat(2))],
            Element::Subnet { address, prefix_len } => {
                let start = plain(encode::octets(*address));
                let last = last_address(*address, *prefix_len);
                let after = from_number(to_number(last).wrapping_add(1), *address);
                let end = (!after.is_unspecified())
                    .then(|| encode::Element { interval_end: true, ..plain(encode::octets(after)) });
                std::iter::once(start).chain(end).collect()
            }
            Element::Port { protocol, host_address, host_port, address, port } => {
                let (protocol, host, host_port) =
                    ([protocol.number()], encode::octets(*host_address), host_port.to_be_bytes());
                let key = if host_address.is_unspecified() {
                    encode::words(&[&protocol, &host_port])
                } else {
                    encode::words(&[&protocol, &host, &host_port])
                };
                let data = Some(encode::destination(*address, *port));
                vec![encode::Element { data, comment: comment.map(str::to_owned), ..plain(key) }]
            }
        }
    }
}

impl Op {
    pub(crate) fn residue(&self) -> Residue {
        match self {
            Op::Table { table, .. } => Residue::NftTable { family: FAMILY.to_owned(), name: table.clone() },
            Op::Network { table, .. } | Op::Publish { table, .. } => {
                Residue::NftElements { family: FAMILY.to_owned(), table: table.clone(), elements: self.elements() }
            }
        }
    }

    fn elements(&self) -> Vec<Element> {
        match self {
            Op::Table { .. } => Vec::new(),
            Op::Network { elements, .. } => elements.clone(),
            Op::Publish { ports, address, .. } => ports.iter().map(|mapping| port_element(mapping, *address)).collect(),
        }
    }

    fn comment(&self) -> Option<String> {
        match self {
            Op::Publish { comment, .. } => Some(harmless(comment)),
            _ => None,
        }
    }

    pub(crate) fn explain(&self) -> Vec<Command> {
        match self {
            Op::Table { table, repair } => {
                let why = if *repair {
                    "chains or rules are missing: write them anew"
                } else {
                    "NAT, published ports and protection in a table of their own"
                };
                vec![(format!("nft -f - <<'EOF'\n{}EOF", script(table, *repair)), why.to_owned())]
            }
            Op::Network { table, bridge, .. } => self
                .elements()
                .iter()
                .map(|element| {
                    (
                        add_command(table, element.set(), &element.text(None)),
                        format!("{bridge} is a network of containers"),
                    )
                })
                .collect(),
            Op::Publish { table, .. } => {
                let (elements, comment) = (self.elements(), self.comment());
                let command = |set: &str| {
                    let texts: Vec<String> = elements
                        .iter()
                        .filter(|element| element.set() == set)
                        .map(|element| element.text(comment.as_deref()))
                        .collect();
                    (!texts.is_empty()).then(|| {
                        (add_command(table, set, &texts.join(", ")), "lead host ports to the container".to_owned())
                    })
                };
                ["ports", "ports_at"].into_iter().filter_map(command).collect()
            }
        }
    }
}

fn add_command(table: &str, set: &str, elements: &str) -> String {
    format!("nft add element {FAMILY} {table} {set} {}", quoted(&format!("{{ {elements} }}")))
}

fn port_element(mapping: &PortMapping, address: IpAddr) -> Element {
    Element::Port {
        protocol: mapping.protocol,
        host_address: mapping.host_address,
        host_port: mapping.host_port,
        address,
        port: mapping.container_port,
    }
}

/// nft has no escapes in strings.
fn harmless(comment: &str) -> String {
    comment
        .chars()
        .map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' { c } else { '?' })
        .take(100)
        .collect()
}

/// Applies the ops as one transaction: all or nothing.
pub(crate) fn apply(ops: &[&Op], netlink: &mut Netlink) -> Result<()> {
    const EXCL: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
    let mut batch = Batch::default();
    let mut sources: Vec<(usize, &Op, Element)> = Vec::new(); // what each message came from
    let mut table = Table { batch: &mut batch, name: "" };
    table.begin();
    for op in ops {
        match op {
            Op::Table { table: name, repair } => {
                table.name = name;
                write_table(&mut table, if *repair { libc::NLM_F_CREATE as u16 } else { EXCL });
            }
            Op::Network { table: name, .. } | Op::Publish { table: name, .. } => {
                table.name = name;
                let comment = op.comment();
                for element in op.elements() {
                    for encoded in element.encoded(comment.as_deref()) {
                        let index = table.element(encode::NEWSETELEM, EXCL, &encoded);
                        sources.push((index, op, element.clone()));
                    }
                }
            }
        }
    }
    table.end();
    let name = table.name.to_owned();
    netlink.send(&batch).map_err(|failure| {
        let source = sources.iter().find(|(index, _, _)| Some(*index) == failure.index);
        match source {
            Some((_, op, element)) if failure.errno == libc::EEXIST => taken(&name, op, element),
            _ => explain_failure(failure, &name),
        }
    })
}

/// The error for an element that is there already.
fn taken(table: &str, op: &Op, element: &Element) -> Error {
    let holder = format!("the nftables map {FAMILY} {table} {}", element.set());
    match (op, element) {
        (Op::Publish { ports, .. }, Element::Port { protocol, host_address, host_port, .. }) => {
            let same = |mapping: &&PortMapping| {
                (&mapping.protocol, &mapping.host_address, &mapping.host_port) == (protocol, host_address, host_port)
            };
            match ports.iter().find(same) {
                Some(mapping) => Error::PortTaken { mapping: *mapping, holder },
                None => Error::Refused(holder),
            }
        }
        _ => Error::Refused(format!("{holder} already has {}", element.text(None))),
    }
}

/// An error about the table, with a hint where one helps.
pub(super) fn explain_failure(failure: Failure, table: &str) -> Error {
    let mut error = failure.into_error(format!("write the nftables table {FAMILY} {table}"));
    if let Error::System { source, detail, .. } = &mut error {
        let hint = match source.raw_os_error() {
            Some(libc::ENOENT) => Some(
                "the table is not there any more, or this kernel lacks an nftables module: try --firewall iptables",
            ),
            Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => {
                Some("this kernel lacks nftables: try --firewall iptables")
            }
            Some(libc::EEXIST | libc::EBUSY) => {
                Some("a table of this name is there and looks different: remove it with nft delete table")
            }
            _ => None,
        };
        *detail = detail.take().or(hint.map(str::to_owned));
    }
    error
}

/// What is missing of the table for this network.
pub(crate) fn plan_network(network: &Network, facts: &Facts) -> Vec<Op> {
    let table = |repair| Op::Table { table: network.table.clone(), repair };
    let mut ops = Vec::new();
    match facts.table {
        TableState::Missing => ops.push(table(false)),
        TableState::Broken => ops.push(table(true)),
        TableState::Whole => {}
    }
    if !facts.missing.is_empty() {
        ops.push(Op::Network {
            table: network.table.clone(),
            bridge: network.bridge.clone(),
            elements: facts.missing.clone(),
        });
    }
    ops
}

/// What the table holds of a network.
pub(crate) fn network_elements(network: &Network) -> Vec<Element> {
    let name = &network.bridge;
    let subnets = network.ipv4.iter();
    let subnet = |subnet: &Subnet| Element::Subnet { address: subnet.first(), prefix_len: subnet.prefix_len };
    std::iter::once(Element::Bridge { name: name.clone() })
        .chain(subnets.map(subnet))
        .chain([Element::SameBridge { name: name.clone() }])
        .collect()
}
