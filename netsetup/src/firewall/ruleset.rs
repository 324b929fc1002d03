//! The table of the nftables back end as data: its sets, chains and rules, each rule as nft writes it and as the
//! kernel takes it. A test holds the two together.

use std::fmt::Write;

use super::encode::{self, Expression, Table, Type, ct, meta, payload};

pub(super) const FAMILY: &str = "ip";

pub(super) struct Set {
    pub name: &'static str,
    key: &'static [Type],
    data: &'static [Type],
    interval: bool,
}

pub(super) const SETS: [Set; 5] = [
    Set { name: "bridges", key: &[Type::Link], data: &[], interval: false },
    Set { name: "subnets", key: &[Type::Address], data: &[], interval: true },
    Set { name: "same_bridge", key: &[Type::Link, Type::Link], data: &[], interval: false },
    Set { name: "ports", key: &[Type::Protocol, Type::Port], data: &[Type::Address, Type::Port], interval: false },
    Set {
        name: "ports_at",
        key: &[Type::Protocol, Type::Address, Type::Port],
        data: &[Type::Address, Type::Port],
        interval: false,
    },
];

pub(super) struct Chain {
    pub name: &'static str,
    /// Type, hook's name and number (NF_INET_*), priority as nft writes it and as a number.
    hook: Option<(&'static str, &'static str, u32, &'static str, i32)>,
    pub rules: &'static [Rule],
}

pub(super) struct Rule {
    text: &'static str,
    comment: &'static str,
    expressions: &'static [Expression],
}

impl Chain {
    /// What the kernel counts as the chain's uses: its rules and the jumps to it.
    pub fn uses(&self) -> usize {
        let expressions = CHAINS.iter().flat_map(|chain| chain.rules).flat_map(|rule| rule.expressions);
        let jumps = expressions.filter(|one| matches!(one, Expression::Jump(target) if *target == self.name));
        self.rules.len() + jumps.count()
    }
}

const LO: &[u8] = b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const IIFNAME: Expression = Expression::Meta { key: meta::IIFNAME, register: encode::REG_1 };
const OIFNAME: Expression = Expression::Meta { key: meta::OIFNAME, register: encode::REG_1 };
const SOURCE: Expression =
    Expression::Payload { base: payload::NETWORK, offset: 12, length: 4, register: encode::REG_1 };
const L4PROTO: Expression = Expression::Meta { key: meta::L4PROTO, register: encode::REG_1 };
/// The first byte suffices for 127.0.0.0/8.
const SOURCE_NET: Expression =
    Expression::Payload { base: payload::NETWORK, offset: 12, length: 1, register: encode::REG_1 };
const DESTINATION_NET: Expression =
    Expression::Payload { base: payload::NETWORK, offset: 16, length: 1, register: encode::REG_1 };
const LOOPBACK_NET: &[u8] = &[127];
const RTN_LOCAL: &[u8] = &2_u32.to_ne_bytes();
const ZERO: &[u8] = &[0; 4];
/// IP_CT_ESTABLISHED and IP_CT_RELATED as NF_CT_STATE_BIT()s.
const ESTABLISHED_RELATED: u32 = 2 | 4;
const IPS_DST_NAT: u32 = 1 << 5;

/// The whole table. Each chain is created in this order, with these rules.
pub(super) const CHAINS: [Chain; 6] = [
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
            expressions: &[Expression::FibDestinationType, Expression::Equal(RTN_LOCAL), Expression::Jump("publish")],
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
                expressions: &[OIFNAME, Expression::InSet { set: "bridges", inverted: true }, Expression::Accept],
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
                    Expression::Meta { key: meta::OIFNAME, register: encode::REG_2 },
                    Expression::InSet { set: "same_bridge", inverted: false },
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
                    Expression::InSet { set: "subnets", inverted: false },
                    OIFNAME,
                    Expression::InSet { set: "bridges", inverted: true },
                    Expression::Masquerade,
                ],
            },
            Rule {
                text: "ip saddr @subnets ct status dnat masquerade",
                comment: "containers to published ports: the answer must come back this way",
                expressions: &[
                    SOURCE,
                    Expression::InSet { set: "subnets", inverted: false },
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
                    Expression::InSet { set: "bridges", inverted: false },
                    Expression::Masquerade,
                ],
            },
        ],
    },
];

/// The table as a script for `nft -f`.
pub(super) fn script(table: &str, repair: bool) -> String {
    let types = |types: &[Type]| types.iter().map(|one| one.name()).collect::<Vec<_>>().join(" . ");
    let mut text = String::new();
    if repair {
        let _ = writeln!(text, "flush table {FAMILY} {table}");
    }
    let _ = writeln!(text, "table {FAMILY} {table} {{");
    for set in &SETS {
        let (word, data) =
            if set.data.is_empty() { ("set", String::new()) } else { ("map", format!(" : {}", types(set.data))) };
        let flags = if set.interval { "; flags interval" } else { "" };
        let _ = writeln!(text, "\t{word} {} {{ type {}{data}{flags}; }}", set.name, types(set.key));
    }
    for chain in &CHAINS {
        let _ = writeln!(text, "\tchain {} {{", chain.name);
        if let Some((kind, hook, _, priority, _)) = chain.hook {
            let _ = writeln!(text, "\t\ttype {kind} hook {hook} priority {priority}; policy accept;");
        }
        for rule in chain.rules {
            let _ = writeln!(text, "\t\t{} comment \"{}\"", rule.text, rule.comment);
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

/// The messages that make the table; with elements that are there already it keeps them.
pub(super) fn write_table(table: &mut Table, flags: u16) {
    table.table(encode::NEWTABLE, flags);
    for chain in &CHAINS {
        match chain.hook {
            Some((kind, _, hook, _, priority)) => table.base_chain(flags, chain.name, kind, hook, priority),
            None => table.chain(encode::NEWCHAIN, flags, chain.name),
        };
    }
    for (id, set) in SETS.iter().enumerate() {
        table.set(flags, id as u32 + 1, set.name, set.key, set.data, set.interval);
    }
    table.flush();
    for chain in &CHAINS {
        for rule in chain.rules {
            table.rule(chain.name, rule.expressions, rule.comment);
        }
    }
}
