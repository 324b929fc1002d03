//! The nftables back end: an own table, spoken to over netlink. No process is started.
//!
//! A published port is one element of a map, so the cost of a packet doesn't grow with the ports, and the kernel itself
//! refuses a second mapping of the same port. Networks are elements of sets: adding one adds no rule.

use std::fmt::Write;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::encode::{self, Expression, Table, Type, ct, meta, payload};
use crate::link::quoted;
use crate::netlink::{Answer, Batch, Failure, Netlink, attribute, attributes};
use crate::network::mask;
use crate::undo::{Residue, Undone};
use crate::{Command, Error, Network, PortMapping, Protocol, Result};

const FAMILY: &str = "ip";

struct Set {
    name: &'static str,
    key: &'static [Type],
    data: &'static [Type],
    interval: bool,
}

const SETS: [Set; 5] = [
    Set {
        name: "bridges",
        key: &[Type::Link],
        data: &[],
        interval: false,
    },
    Set {
        name: "subnets",
        key: &[Type::Address],
        data: &[],
        interval: true,
    },
    Set {
        name: "same_bridge",
        key: &[Type::Link, Type::Link],
        data: &[],
        interval: false,
    },
    Set {
        name: "ports",
        key: &[Type::Protocol, Type::Port],
        data: &[Type::Address, Type::Port],
        interval: false,
    },
    Set {
        name: "ports_at",
        key: &[Type::Protocol, Type::Address, Type::Port],
        data: &[Type::Address, Type::Port],
        interval: false,
    },
];

struct Chain {
    name: &'static str,
    /// Type, hook's name and number (NF_INET_*), priority as nft writes it and as a number.
    hook: Option<(&'static str, &'static str, u32, &'static str, i32)>,
    rules: &'static [Rule],
}

struct Rule {
    text: &'static str,
    comment: &'static str,
    expressions: &'static [Expression],
}

const LO: &[u8] = b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const IIFNAME: Expression = Expression::Meta {
    key: meta::IIFNAME,
    register: encode::REG_1,
};
const OIFNAME: Expression = Expression::Meta {
    key: meta::OIFNAME,
    register: encode::REG_1,
};
const SOURCE: Expression = Expression::Payload {
    base: payload::NETWORK,
    offset: 12,
    length: 4,
    register: encode::REG_1,
};
const L4PROTO: Expression = Expression::Meta {
    key: meta::L4PROTO,
    register: encode::REG_1,
};
/// The first byte suffices for 127.0.0.0/8.
const SOURCE_NET: Expression = Expression::Payload {
    base: payload::NETWORK,
    offset: 12,
    length: 1,
    register: encode::REG_1,
};
const DESTINATION_NET: Expression = Expression::Payload {
    base: payload::NETWORK,
    offset: 16,
    length: 1,
    register: encode::REG_1,
};
const LOOPBACK_NET: &[u8] = &[127];
const RTN_LOCAL: &[u8] = &2_u32.to_ne_bytes();
const ZERO: &[u8] = &[0; 4];
/// IP_CT_ESTABLISHED and IP_CT_RELATED as NF_CT_STATE_BIT()s.
const ESTABLISHED_RELATED: u32 = 2 | 4;
const IPS_DST_NAT: u32 = 1 << 5;

/// The whole table. Each chain is created in this order, with these rules.
const CHAINS: [Chain; 6] = [
    Chain {
        name: "guard",
        hook: Some(("filter", "prerouting", 0, "raw", -300)),
        rules: &[
            Rule {
                text: "iifname != \"lo\" ip daddr 127.0.0.0/8 drop",
                comment: "localhost is for this host alone, whatever route_localnet says",
                expressions: &[
                    IIFNAME,
                    Expression::Differ(LO),
                    DESTINATION_NET,
                    Expression::Equal(LOOPBACK_NET),
                    Expression::Drop,
                ],
            },
            Rule {
                text: "iifname != \"lo\" ip saddr 127.0.0.0/8 drop",
                comment: "nobody else may pose as localhost",
                expressions: &[
                    IIFNAME,
                    Expression::Differ(LO),
                    SOURCE_NET,
                    Expression::Equal(LOOPBACK_NET),
                    Expression::Drop,
                ],
            },
        ],
    },
    Chain {
        name: "prerouting",
        hook: Some(("nat", "prerouting", 0, "dstnat", -100)),
        rules: &[Rule {
            text: "ip daddr != 127.0.0.0/8 fib daddr type local jump publish",
            comment: "from other hosts and containers to this host",
            expressions: &[
                DESTINATION_NET,
                Expression::Differ(LOOPBACK_NET),
                Expression::FibDestinationType,
                Expression::Equal(RTN_LOCAL),
                Expression::Jump("publish"),
            ],
        }],
    },
    Chain {
        name: "output",
        hook: Some(("nat", "output", 3, "-100", -100)),
        rules: &[Rule {
            text: "fib daddr type local jump publish",
            comment: "from this host to itself",
            expressions: &[
                Expression::FibDestinationType,
                Expression::Equal(RTN_LOCAL),
                Expression::Jump("publish"),
            ],
        }],
    },
    Chain {
        name: "publish",
        hook: None,
        rules: &[
            Rule {
                text: "dnat ip to meta l4proto . ip daddr . th dport map @ports_at",
                comment: "ports published on one address",
                expressions: &[
                    L4PROTO,
                    Expression::Payload {
                        base: payload::NETWORK,
                        offset: 16,
                        length: 4,
                        register: encode::REG_1_SECOND_WORD,
                    },
                    Expression::Payload {
                        base: payload::TRANSPORT,
                        offset: 2,
                        length: 2,
                        register: encode::REG_1_THIRD_WORD,
                    },
                    Expression::Map { map: "ports_at" },
                    Expression::Dnat,
                ],
            },
            Rule {
                text: "dnat ip to meta l4proto . th dport map @ports",
                comment: "ports published on every address",
                expressions: &[
                    L4PROTO,
                    Expression::Payload {
                        base: payload::TRANSPORT,
                        offset: 2,
                        length: 2,
                        register: encode::REG_1_SECOND_WORD,
                    },
                    Expression::Map { map: "ports" },
                    Expression::Dnat,
                ],
            },
        ],
    },
    Chain {
        name: "forward",
        hook: Some(("filter", "forward", 2, "filter", 0)),
        rules: &[
            Rule {
                text: "oifname != @bridges accept",
                comment: "only what goes to containers is judged here",
                expressions: &[
                    OIFNAME,
                    Expression::InSet {
                        set: "bridges",
                        inverted: true,
                    },
                    Expression::Accept,
                ],
            },
            Rule {
                text: "ct state established,related accept",
                comment: "answers to containers",
                expressions: &[
                    Expression::Ct { key: ct::STATE },
                    Expression::Mask(ESTABLISHED_RELATED),
                    Expression::Differ(ZERO),
                    Expression::Accept,
                ],
            },
            Rule {
                text: "ct status dnat accept",
                comment: "published ports",
                expressions: &[
                    Expression::Ct { key: ct::STATUS },
                    Expression::Mask(IPS_DST_NAT),
                    Expression::Differ(ZERO),
                    Expression::Accept,
                ],
            },
            Rule {
                text: "iifname . oifname @same_bridge accept",
                comment: "containers of one network",
                expressions: &[
                    IIFNAME,
                    Expression::Meta {
                        key: meta::OIFNAME,
                        register: encode::REG_2,
                    },
                    Expression::InSet {
                        set: "same_bridge",
                        inverted: false,
                    },
                    Expression::Accept,
                ],
            },
            Rule {
                text: "drop",
                comment: "no other way in, such as a route to the subnet by this host",
                expressions: &[Expression::Drop],
            },
        ],
    },
    Chain {
        name: "postrouting",
        hook: Some(("nat", "postrouting", 4, "srcnat", 100)),
        rules: &[
            Rule {
                text: "ip saddr @subnets oifname != @bridges masquerade",
                comment: "containers leave with this host's address",
                expressions: &[
                    SOURCE,
                    Expression::InSet {
                        set: "subnets",
                        inverted: false,
                    },
                    OIFNAME,
                    Expression::InSet {
                        set: "bridges",
                        inverted: true,
                    },
                    Expression::Masquerade,
                ],
            },
            Rule {
                text: "ip saddr @subnets ct status dnat masquerade",
                comment: "containers to published ports: the answer must come back this way",
                expressions: &[
                    SOURCE,
                    Expression::InSet {
                        set: "subnets",
                        inverted: false,
                    },
                    Expression::Ct { key: ct::STATUS },
                    Expression::Mask(IPS_DST_NAT),
                    Expression::Differ(ZERO),
                    Expression::Masquerade,
                ],
            },
            Rule {
                text: "ip saddr 127.0.0.0/8 oifname @bridges masquerade",
                comment: "localhost to published ports: no container can answer to 127.0.0.1",
                expressions: &[
                    SOURCE_NET,
                    Expression::Equal(LOOPBACK_NET),
                    OIFNAME,
                    Expression::InSet {
                        set: "bridges",
                        inverted: false,
                    },
                    Expression::Masquerade,
                ],
            },
        ],
    },
];

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
        /// The subnet's first address.
        subnet: Ipv4Addr,
        /// The subnet's length in bits.
        prefix_len: u8,
    },
    /// Leads host ports to a container.
    Publish {
        /// The table's name.
        table: String,
        /// The ports; all of them or none.
        ports: Vec<PortMapping>,
        /// The container's address.
        address: Ipv4Addr,
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
        address: Ipv4Addr,
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
        host_address: Ipv4Addr,
        /// The port on the host.
        host_port: u16,
        /// The container's address: the mark by which undo knows its own.
        address: Ipv4Addr,
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
    fn text(&self, comment: Option<&str>) -> String {
        match self {
            Element::Bridge { name } => format!("\"{name}\""),
            Element::Subnet {
                address,
                prefix_len,
            } => format!("{address}/{prefix_len}"),
            Element::SameBridge { name } => format!("\"{name}\" . \"{name}\""),
            Element::Port {
                protocol,
                host_address,
                host_port,
                address,
                port,
            } => {
                let at = if host_address.is_unspecified() {
                    String::new()
                } else {
                    format!("{host_address} . ")
                };
                let comment = comment
                    .map(|comment| format!(" comment \"{comment}\""))
                    .unwrap_or_default();
                format!("{protocol} . {at}{host_port}{comment} : {address} . {port}")
            }
        }
    }

    /// The element, and the end of its interval.
    fn encoded(&self, comment: Option<&str>) -> Vec<encode::Element> {
        let plain = |key: Vec<u8>| encode::Element {
            set: self.set(),
            key,
            data: None,
            interval_end: false,
            comment: None,
        };
        match self {
            Element::Bridge { name } => vec![plain(encode::link_name(name).to_vec())],
            Element::SameBridge { name } => vec![plain(encode::link_name(name).repeat(2))],
            Element::Subnet {
                address,
                prefix_len,
            } => {
                let start = plain(address.octets().to_vec());
                let after = (address.to_bits() | !mask(*prefix_len)).checked_add(1);
                let end = after.map(|after| encode::Element {
                    interval_end: true,
                    ..plain(after.to_be_bytes().to_vec())
                });
                std::iter::once(start).chain(end).collect()
            }
            Element::Port {
                protocol,
                host_address,
                host_port,
                address,
                port,
            } => {
                let (protocol, host, host_port) = (
                    [protocol.number()],
                    host_address.octets(),
                    host_port.to_be_bytes(),
                );
                let key = if host_address.is_unspecified() {
                    encode::words(&[&protocol, &host_port])
                } else {
                    encode::words(&[&protocol, &host, &host_port])
                };
                let data = Some(encode::destination(*address, *port));
                vec![encode::Element {
                    data,
                    comment: comment.map(str::to_owned),
                    ..plain(key)
                }]
            }
        }
    }
}

impl Op {
    pub(crate) fn residue(&self) -> Residue {
        match self {
            Op::Table { table, .. } => Residue::NftTable {
                family: FAMILY.to_owned(),
                name: table.clone(),
            },
            Op::Network { table, .. } | Op::Publish { table, .. } => Residue::NftElements {
                family: FAMILY.to_owned(),
                table: table.clone(),
                elements: self.elements(),
            },
        }
    }

    fn elements(&self) -> Vec<Element> {
        match self {
            Op::Table { .. } => Vec::new(),
            Op::Network {
                bridge,
                subnet,
                prefix_len,
                ..
            } => vec![
                Element::Bridge {
                    name: bridge.clone(),
                },
                Element::Subnet {
                    address: *subnet,
                    prefix_len: *prefix_len,
                },
                Element::SameBridge {
                    name: bridge.clone(),
                },
            ],
            Op::Publish { ports, address, .. } => ports
                .iter()
                .map(|mapping| port_element(mapping, *address))
                .collect(),
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
                vec![(
                    format!("nft -f - <<'EOF'\n{}EOF", script(table, *repair)),
                    why.to_owned(),
                )]
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
                        (
                            add_command(table, set, &texts.join(", ")),
                            "lead host ports to the container".to_owned(),
                        )
                    })
                };
                ["ports", "ports_at"]
                    .into_iter()
                    .filter_map(command)
                    .collect()
            }
        }
    }
}

fn add_command(table: &str, set: &str, elements: &str) -> String {
    format!(
        "nft add element {FAMILY} {table} {set} {}",
        quoted(&format!("{{ {elements} }}"))
    )
}

fn port_element(mapping: &PortMapping, address: Ipv4Addr) -> Element {
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
        .map(|c| {
            if c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ' {
                c
            } else {
                '?'
            }
        })
        .take(100)
        .collect()
}

/// The table as a script for `nft -f`.
fn script(table: &str, repair: bool) -> String {
    let types = |types: &[Type]| {
        types
            .iter()
            .map(|one| one.name())
            .collect::<Vec<_>>()
            .join(" . ")
    };
    let mut text = String::new();
    if repair {
        let _ = writeln!(text, "flush table {FAMILY} {table}");
    }
    let _ = writeln!(text, "table {FAMILY} {table} {{");
    for set in &SETS {
        let (word, data) = if set.data.is_empty() {
            ("set", String::new())
        } else {
            ("map", format!(" : {}", types(set.data)))
        };
        let flags = if set.interval { "; flags interval" } else { "" };
        let _ = writeln!(
            text,
            "\t{word} {} {{ type {}{data}{flags}; }}",
            set.name,
            types(set.key)
        );
    }
    for chain in &CHAINS {
        let _ = writeln!(text, "\tchain {} {{", chain.name);
        if let Some((kind, hook, _, priority, _)) = chain.hook {
            let _ = writeln!(
                text,
                "\t\ttype {kind} hook {hook} priority {priority}; policy accept;"
            );
        }
        for rule in chain.rules {
            let _ = writeln!(text, "\t\t{} comment \"{}\"", rule.text, rule.comment);
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

/// Applies the ops as one transaction: all or nothing.
pub(crate) fn apply(ops: &[&Op], netlink: &mut Netlink) -> Result<()> {
    const EXCL: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
    let mut batch = Batch::default();
    let mut sources: Vec<(usize, Error)> = Vec::new(); // which error a message's refusal becomes
    let mut table = Table {
        batch: &mut batch,
        name: "",
    };
    table.begin();
    for op in ops {
        match op {
            Op::Table {
                table: name,
                repair,
            } => {
                table.name = name;
                write_table(
                    &mut table,
                    if *repair {
                        libc::NLM_F_CREATE as u16
                    } else {
                        EXCL
                    },
                );
            }
            Op::Network { table: name, .. } | Op::Publish { table: name, .. } => {
                table.name = name;
                let comment = op.comment();
                for element in op.elements() {
                    for encoded in element.encoded(comment.as_deref()) {
                        let index = table.element(encode::NEWSETELEM, EXCL, &encoded);
                        sources.push((index, taken(name, op, &element)));
                    }
                }
            }
        }
    }
    table.end();
    netlink
        .send(&batch)
        .map_err(|failure| explain_failure(failure, sources, ops))
}

fn write_table(table: &mut Table, flags: u16) {
    table.table(encode::NEWTABLE, flags);
    for chain in &CHAINS {
        match chain.hook {
            Some((kind, _, hook, _, priority)) => {
                table.base_chain(flags, chain.name, kind, hook, priority)
            }
            None => table.chain(encode::NEWCHAIN, flags, chain.name),
        };
    }
    for (id, set) in SETS.iter().enumerate() {
        table.set(
            flags,
            id as u32 + 1,
            set.name,
            set.key,
            set.data,
            set.interval,
        );
    }
    table.flush();
    for chain in &CHAINS {
        for rule in chain.rules {
            table.rule(chain.name, rule.expressions, rule.comment);
        }
    }
}

/// The error for an element that is there already.
fn taken(table: &str, op: &Op, element: &Element) -> Error {
    let holder = format!("the nftables map {FAMILY} {table} {}", element.set());
    match (op, element) {
        (
            Op::Publish { ports, .. },
            Element::Port {
                protocol,
                host_address,
                host_port,
                ..
            },
        ) => {
            let same = |mapping: &&PortMapping| {
                (&mapping.protocol, &mapping.host_address, &mapping.host_port)
                    == (protocol, host_address, host_port)
            };
            match ports.iter().find(same) {
                Some(mapping) => Error::PortTaken {
                    mapping: *mapping,
                    holder,
                },
                None => Error::Refused(holder),
            }
        }
        _ => Error::Refused(format!("{holder} already has {}", element.text(None))),
    }
}

fn explain_failure(failure: Failure, sources: Vec<(usize, Error)>, ops: &[&Op]) -> Error {
    if failure.errno == libc::EEXIST
        && let Some((_, error)) = sources
            .into_iter()
            .find(|(index, _)| Some(*index) == failure.index)
    {
        return error;
    }
    let name = ops.iter().map(|op| match op {
        Op::Table { table, .. } | Op::Network { table, .. } | Op::Publish { table, .. } => {
            table.as_str()
        }
    });
    let mut error = failure.into_error(format!(
        "write the nftables table {FAMILY} {}",
        name.last().unwrap_or_default()
    ));
    if let Error::System { source, detail, .. } = &mut error {
        let hint = match source.raw_os_error() {
            Some(libc::ENOENT) => Some(
                "the table is not there any more, or this kernel lacks an nftables module: try --firewall iptables",
            ),
            Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => {
                Some("this kernel lacks nftables: try --firewall iptables")
            }
            Some(libc::EEXIST | libc::EBUSY) => Some(
                "a table of this name is there and looks different: remove it with nft delete table",
            ),
            _ => None,
        };
        *detail = detail.take().or(hint.map(str::to_owned));
    }
    error
}

/// How much of the table is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableState {
    /// Nothing.
    Missing,
    /// The table, but not all of its chains and rules: somebody has flushed it.
    Broken,
    /// Everything.
    Whole,
}

/// What of the table is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The table, its chains and rules.
    pub table: TableState,
    /// Whether the table knows the network.
    pub network: bool,
}

impl Facts {
    /// One sendmsg with a question for the table, each chain and each element of the network: cheaper than to list the
    /// rules, and enough, since a chain tells how many rules it has.
    pub(crate) fn read(netlink: &mut Netlink, network: &Network) -> Result<Facts> {
        const NFTA_TABLE_USE: u16 = 3;
        const NFTA_CHAIN_USE: u16 = 6;
        let mut batch = Batch::default();
        let mut table = Table {
            batch: &mut batch,
            name: &network.table,
        };
        table.table(encode::GETTABLE, 0);
        for chain in &CHAINS {
            table.chain(encode::GETCHAIN, 0, chain.name);
        }
        let elements: Vec<Element> = network_op(network).elements();
        for element in &elements {
            element.encoded(None).iter().take(1).for_each(|encoded| {
                table.element(encode::GETSETELEM, 0, encoded);
            });
        }
        let (answers, failures) = netlink
            .exchange(&batch)
            .map_err(|failure| failure.into_error("read the nftables table"))?;
        if let Some(failure) = failures
            .into_iter()
            .find(|failure| failure.errno != libc::ENOENT)
        {
            return Err(explain_failure(
                failure,
                Vec::new(),
                &[&Op::Table {
                    table: network.table.clone(),
                    repair: false,
                }],
            ));
        }
        let answer = |index: usize| answers.iter().find(|answer| answer.index == index);
        let used = |answer: &Answer, kind: u16| {
            answer
                .payload
                .get(4..)
                .and_then(|body| attribute(body, kind))
                .and_then(|value| value.try_into().ok())
                .map_or(0, u32::from_be_bytes)
        };
        let whole_chain = |(index, chain): (usize, &Chain)| {
            let jumps = CHAINS
                .iter()
                .flat_map(|chain| chain.rules)
                .flat_map(|rule| rule.expressions);
            let jumps = jumps.filter(|expression| matches!(expression, Expression::Jump(target) if *target == chain.name)).count();
            answer(index + 1).is_some_and(|answer| {
                used(answer, NFTA_CHAIN_USE) as usize == chain.rules.len() + jumps
            })
        };
        let state = match answer(0) {
            None => TableState::Missing,
            Some(table)
                if used(table, NFTA_TABLE_USE) as usize >= CHAINS.len() + SETS.len()
                    && CHAINS.iter().enumerate().all(whole_chain) =>
            {
                TableState::Whole
            }
            Some(_) => TableState::Broken,
        };
        let network = (0..elements.len()).all(|index| answer(1 + CHAINS.len() + index).is_some());
        Ok(Facts {
            table: state,
            network,
        })
    }
}

/// What is missing of the table for this network.
pub(crate) fn plan_network(network: &Network, facts: &Facts) -> Vec<Op> {
    let table = |repair| Op::Table {
        table: network.table.clone(),
        repair,
    };
    let mut ops = Vec::new();
    match facts.table {
        TableState::Missing => ops.push(table(false)),
        TableState::Broken => ops.push(table(true)),
        TableState::Whole => {}
    }
    if !facts.network {
        ops.push(network_op(network));
    }
    ops
}

fn network_op(network: &Network) -> Op {
    let (subnet, prefix_len) = network.subnet();
    Op::Network {
        table: network.table.clone(),
        bridge: network.bridge.clone(),
        subnet,
        prefix_len,
    }
}

/// Removes the table, unless another network still is in it.
pub(crate) fn undo_table(netlink: &mut Netlink, name: &str) -> Result<Undone> {
    let mut batch = Batch::default();
    Table {
        batch: &mut batch,
        name,
    }
    .elements("bridges");
    let what = || format!("remove the nftables table {FAMILY} {name}");
    let (answers, failures) = netlink
        .exchange(&batch)
        .map_err(|failure| failure.into_error(what()))?;
    match failures.into_iter().next() {
        Some(failure) if failure.errno != libc::ENOENT => return Err(failure.into_error(what())),
        _ => {}
    }
    let bridges: Vec<String> = answers
        .iter()
        .flat_map(elements_of)
        .map(|(key, _)| crate::netlink::text_of(&key))
        .collect();
    if !bridges.is_empty() {
        return Ok(Undone::NotOurs(format!(
            "the nftables table {FAMILY} {name} still serves {}",
            bridges.join(", ")
        )));
    }
    let mut batch = Batch::default();
    let mut table = Table {
        batch: &mut batch,
        name,
    };
    table.begin();
    table.table(encode::DELTABLE, 0);
    table.end();
    match netlink.send(&batch) {
        Ok(()) => Ok(Undone::Removed),
        Err(failure) if failure.errno == libc::ENOENT => Ok(Undone::NotThere),
        Err(failure) => Err(failure.into_error(what())),
    }
}

/// Removes those of the elements that are there and still ours: one question, one transaction for all.
pub(crate) fn undo_elements(
    netlink: &mut Netlink,
    name: &str,
    elements: &[Element],
) -> Result<Undone> {
    let what = || format!("remove elements from the nftables table {FAMILY} {name}");
    let mut question = Batch::default();
    let mut table = Table {
        batch: &mut question,
        name,
    };
    let encoded: Vec<Vec<encode::Element>> = elements
        .iter()
        .map(|element| element.encoded(None))
        .collect();
    encoded
        .iter()
        .flat_map(|parts| parts.first())
        .for_each(|start| {
            table.element(encode::GETSETELEM, 0, start);
        });
    let (answers, failures) = netlink
        .exchange(&question)
        .map_err(|failure| failure.into_error(what()))?;
    if let Some(failure) = failures
        .into_iter()
        .find(|failure| failure.errno != libc::ENOENT)
    {
        return Err(failure.into_error(what()));
    }

    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for (index, element) in elements.iter().enumerate() {
        let Some(answer) = answers.iter().find(|answer| answer.index == index) else {
            continue;
        };
        let found = elements_of(answer).next().map(|(_, data)| data);
        let wanted = encoded[index].first().and_then(|start| start.data.clone());
        match found {
            Some(data) if wanted.is_some() && data != wanted => others.push(element.text(None)),
            _ => ours.extend(&encoded[index]),
        }
    }
    if !ours.is_empty() {
        delete(netlink, name, &ours).map_err(|failure| failure.into_error(what()))?;
    }
    Ok(match (others.is_empty(), ours.is_empty()) {
        (false, _) => Undone::NotOurs(format!(
            "the nftables table {FAMILY} {name} leads elsewhere: {}",
            others.join(", ")
        )),
        (true, true) => Undone::NotThere,
        (true, false) => Undone::Removed,
    })
}

/// Deletes in one transaction; one by one when a part was gone already.
fn delete(
    netlink: &mut Netlink,
    name: &str,
    elements: &[&encode::Element],
) -> std::result::Result<(), Failure> {
    let mut batch = Batch::default();
    let mut table = Table {
        batch: &mut batch,
        name,
    };
    table.begin();
    for element in elements {
        table.element(encode::DELSETELEM, 0, element);
    }
    table.end();
    match netlink.send(&batch) {
        Err(failure) if failure.errno == libc::ENOENT && elements.len() > 1 => elements
            .iter()
            .try_for_each(|element| delete(netlink, name, &[element])),
        Err(failure) if failure.errno == libc::ENOENT => Ok(()),
        result => result,
    }
}

/// Key and data of each element in an NFT_MSG_NEWSETELEM.
fn elements_of(answer: &Answer) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
    const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
    let list = answer
        .payload
        .get(4..)
        .and_then(|body| attribute(body, NFTA_SET_ELEM_LIST_ELEMENTS))
        .unwrap_or_default();
    let value = |element: &[u8], kind| {
        attribute(element, kind)
            .and_then(|nested| attribute(nested, 1))
            .map(<[u8]>::to_vec)
    };
    attributes(list)
        .map(move |(_, element)| (value(element, 1).unwrap_or_default(), value(element, 2)))
}
