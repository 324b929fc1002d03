//! The nftables back end: own tables, spoken to over netlink. No process is started.
//!
//! A published port is one element of a map, so the cost of a packet doesn't grow with the ports, and the kernel itself
//! refuses a second mapping of the same port. A range with the same numbers on both sides is one element too. Networks are
//! elements of sets: adding one adds no rule.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use super::element::{Element, Ports};
pub use super::encode::Family;
use super::encode::{self, Table};
pub(crate) use super::ruleset::card_group;
use super::ruleset::{script, write_table};
pub use super::table::{Facts, TableFacts, TableState};
use crate::netlink::{Batch, Failure, Netlink};
use crate::shell::quoted;
use crate::undo::Residue;
use crate::{Command, Error, GatewayMode, Network, PortMapping, Result};

/// Operations on the tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Makes the table with its sets, chains and rules.
    Table {
        /// IPv4, IPv6 or bridges.
        family: Family,
        /// The table's name.
        table: String,
        /// The table is there, but chains or rules are missing: write all rules anew. Elements stay.
        repair: bool,
    },
    /// Tells the table of a network.
    Network {
        /// IPv4 or IPv6.
        family: Family,
        /// The table's name.
        table: String,
        /// The network's bridge.
        bridge: String,
        /// What the table lacks of it.
        elements: Vec<Element>,
    },
    /// Leads host ports to a container.
    Publish {
        /// IPv4 or IPv6.
        family: Family,
        /// The table's name.
        table: String,
        /// The ports; all of them or none.
        ports: Ports,
        /// The container's address.
        address: IpAddr,
        /// Whose ports they are.
        comment: String,
    },
    /// Opens the container's own ports (in a routed network).
    Open {
        /// IPv4 or IPv6.
        family: Family,
        /// The table's name.
        table: String,
        /// The ports.
        ports: Ports,
        /// The container's address.
        address: IpAddr,
    },
    /// Lets other networks' containers to ports that the proxy serves.
    Proxied {
        /// IPv4 or IPv6.
        family: Family,
        /// The table's name.
        table: String,
        /// The ports.
        ports: Ports,
    },
    /// Gives a container's packets a traffic class.
    Classes {
        /// IPv4 or IPv6.
        family: Family,
        /// The table's name.
        table: String,
        /// Its addresses with the class.
        elements: Vec<Element>,
    },
    /// Tells what a container's card may send.
    Senders {
        /// The table's name.
        table: String,
        /// Its MAC and addresses.
        elements: Vec<Element>,
    },
}

impl Op {
    pub(crate) fn residue(&self) -> Residue {
        let (family, table) = self.table();
        let (family, table) = (family.name().to_owned(), table.to_owned());
        match self {
            Op::Table { .. } => Residue::NftTable { family, name: table },
            _ => Residue::NftElements { family, table, elements: self.elements() },
        }
    }

    fn table(&self) -> (Family, &str) {
        match self {
            Op::Table { family, table, .. }
            | Op::Network { family, table, .. }
            | Op::Publish { family, table, .. }
            | Op::Open { family, table, .. }
            | Op::Classes { family, table, .. }
            | Op::Proxied { family, table, .. } => (*family, table),
            Op::Senders { table, .. } => (Family::Bridge, table),
        }
    }

    pub(crate) fn elements(&self) -> Vec<Element> {
        match self {
            Op::Table { .. } => Vec::new(),
            Op::Network { elements, .. } | Op::Senders { elements, .. } | Op::Classes { elements, .. } => {
                elements.clone()
            }
            Op::Publish { ports, address, .. } => ports.elements(*address),
            Op::Open { ports, address, .. } => ports.opened(*address),
            Op::Proxied { ports, .. } => ports.proxied(),
        }
    }

    fn comment(&self) -> Option<String> {
        match self {
            Op::Publish { comment, .. } => Some(harmless(comment)),
            _ => None,
        }
    }

    pub(crate) fn explain(&self) -> Vec<Command> {
        let (family, table) = self.table();
        let why = match self {
            Op::Table { repair, .. } => {
                let why = match (repair, family) {
                    (true, _) => "chains or rules are missing: write them anew",
                    (false, Family::Bridge) => "what containers may send, in a table of its own",
                    (false, _) => "NAT, published ports and protection in a table of their own",
                };
                return vec![(format!("nft -f - <<'EOF'\n{}EOF", script(family, table, *repair)), why.to_owned())];
            }
            Op::Network { bridge, .. } => {
                let why = format!("{bridge} is a network of containers");
                let elements = self.elements();
                let command =
                    |element: &Element| (add_command(family, table, element.set(), &element.text(None)), why.clone());
                return elements.iter().map(command).collect();
            }
            Op::Publish { .. } => "lead host ports to the container",
            Op::Open { .. } => "let others in to the container's ports",
            Op::Proxied { .. } => "containers of other networks may use these ports of the host",
            Op::Senders { .. } => "the container sends as itself only",
            Op::Classes { .. } => "its packets' class on their way out: that of its sockets ends at the veth pair",
        };
        let (elements, comment) = (self.elements(), self.comment());
        let mut sets: Vec<&str> = elements.iter().map(Element::set).collect();
        sets.dedup();
        let command = |set: &str| {
            let texts = elements.iter().filter(|element| element.set() == set);
            let texts: Vec<String> = texts.map(|element| element.text(comment.as_deref())).collect();
            (add_command(family, table, set, &texts.join(", ")), why.to_owned())
        };
        let mut seen: Vec<&str> = Vec::new();
        sets.retain(|set| {
            !seen.contains(set) && {
                seen.push(set);
                true
            }
        });
        sets.into_iter().map(command).collect()
    }
}

fn add_command(family: Family, table: &str, set: &str, elements: &str) -> String {
    format!("nft add element {} {table} {set} {}", family.name(), quoted(&format!("{{ {elements} }}")))
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
    let mut table = Table { batch: &mut batch, name: "", family: Family::Ip };
    table.begin();
    for op in ops {
        (table.family, table.name) = op.table();
        if let Op::Table { repair, .. } = op {
            write_table(&mut table, if *repair { libc::NLM_F_CREATE as u16 } else { EXCL });
        }
        let comment = op.comment();
        for element in op.elements() {
            for encoded in element.encoded(comment.as_deref()) {
                // What two containers may have in common is no clash.
                let shared = matches!(element, Element::Proxied { .. });
                let flags = if shared { libc::NLM_F_CREATE as u16 } else { EXCL };
                let index = table.element(encode::NEWSETELEM, flags, &encoded);
                sources.push((index, op, element.clone()));
            }
        }
    }
    table.end();
    let (family, name) = (table.family, table.name.to_owned());
    netlink.send(&batch).map_err(|failure| {
        let source = sources.iter().find(|(index, _, _)| Some(*index) == failure.index);
        match source {
            // A range that overlaps another one is not "there" but "not empty" (nft_pipapo_insert).
            Some((_, op, element)) if matches!(failure.errno, libc::EEXIST | libc::ENOTEMPTY) => taken(op, element),
            _ => explain_failure(failure, family, &name),
        }
    })
}

/// The error for an element that is there already.
fn taken(op: &Op, element: &Element) -> Error {
    let (family, table) = op.table();
    let holder = format!("the nftables map {} {table} {}", family.name(), element.set());
    match (op, element) {
        (Op::Publish { ports, .. }, Element::Port { protocol, host_address, host_port, .. })
        | (Op::Publish { ports, .. }, Element::Span { protocol, host_address, first: host_port, .. }) => {
            let same = |mapping: &&PortMapping| {
                (&mapping.protocol, &mapping.host_address, &mapping.host_port) == (protocol, host_address, host_port)
            };
            match ports.0.iter().find(same) {
                Some(mapping) => Error::PortTaken { mapping: *mapping, holder },
                None => Error::Refused(holder),
            }
        }
        _ => Error::Refused(format!("{holder} already has {}", element.text(None))),
    }
}

/// An error about the table, with a hint where one helps.
pub(super) fn explain_failure(failure: Failure, family: Family, table: &str) -> Error {
    let mut error = failure.into_error(format!("write the nftables table {} {table}", family.name()));
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

/// What is missing of the tables for this network.
pub(crate) fn plan_network(network: &Network, facts: &Facts) -> Vec<Op> {
    facts.tables.iter().flat_map(|facts| plan_table(network, facts)).collect()
}

/// What is missing of one table.
pub(crate) fn plan_table(network: &Network, facts: &TableFacts) -> Vec<Op> {
    let (family, table) = (facts.family, network.table.clone());
    let mut ops = Vec::new();
    if facts.state != TableState::Whole {
        ops.push(Op::Table { family, table: table.clone(), repair: facts.state == TableState::Broken });
    }
    if !facts.missing.is_empty() {
        ops.push(Op::Network { family, table, bridge: network.bridge.clone(), elements: facts.missing.clone() });
    }
    ops
}

/// The tables that a network's packets go through, those of frames apart.
pub(crate) fn families(network: &Network) -> impl Iterator<Item = Family> {
    let family = |v6: bool| if v6 { Family::Ip6 } else { Family::Ip };
    network.subnets().map(move |subnet| family(subnet.gateway.is_ipv6()))
}

/// What a table holds of a network.
pub(crate) fn network_elements(network: &Network, family: Family) -> Vec<Element> {
    let (subnet, v6) = match family {
        Family::Ip => (&network.ipv4, false),
        Family::Ip6 => (&network.ipv6, true),
        Family::Bridge => return Vec::new(),
    };
    let Some(subnet) = subnet else { return Vec::new() };
    let name = &network.bridge;
    let (address, prefix_len) = (subnet.first(), subnet.prefix_len);
    let mut elements = vec![Element::Bridge { name: name.clone() }, Element::Subnet { address, prefix_len }];
    if network.icc {
        elements.push(Element::SameBridge { name: name.clone() });
    }
    if network.internal {
        elements.push(Element::Internal { name: name.clone() });
        return elements;
    }
    match network.gateway_mode(v6) {
        GatewayMode::Nat if network.masquerade => elements.push(Element::Masqueraded { address, prefix_len }),
        GatewayMode::Routed => elements.push(Element::Routed { name: name.clone() }),
        _ => {}
    }
    elements
}
