//! The tables of the nftables back end as data: sets, chains and rules, each rule as nft writes it and as the kernel
//! takes it. A test holds the two together. IPv4 and IPv6 have a table each with the same rules, bridges a third one.

use std::fmt::Write;

use super::encode::{self, Expression, Family, Table, Type, ct, link_name, meta, payload, word};

pub(super) struct Set {
    pub name: &'static str,
    key: Vec<Type>,
    data: Vec<Type>,
    interval: bool,
}

pub(super) struct Chain {
    pub name: &'static str,
    /// Type, hook's name and number (NF_INET_*, NF_BR_*), priority as nft writes it and as a number.
    hook: Option<(&'static str, &'static str, u32, &'static str, i32)>,
    pub rules: Vec<Rule>,
}

pub(super) struct Rule {
    text: String,
    comment: &'static str,
    expressions: Vec<Expression>,
}

/// What the kernel counts as a chain's uses: its rules and the jumps to it.
pub(super) fn uses(chains: &[Chain], chain: &Chain) -> usize {
    let expressions = chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.expressions);
    let jumps = expressions.filter(|one| matches!(one, Expression::Jump(target) if *target == chain.name));
    chain.rules.len() + jumps.count()
}

/// The link group of guarded cards (`ip link … group`): one for each table, so that two engines don't judge each other's
/// containers.
pub(crate) fn card_group(table: &str) -> u32 {
    let hash = table.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash & 0x7fff_ffff) | 0x1_0000
}

pub(super) fn sets(family: Family) -> Vec<Set> {
    let set = |name, key: &[Type], data: &[Type], interval| Set { name, key: key.into(), data: data.into(), interval };
    let address = match family {
        Family::Ip => Type::Address,
        Family::Ip6 => Type::Address6,
        Family::Bridge => {
            return vec![
                set("senders", &[Type::Link, Type::Mac, Type::Address], &[], false),
                set("senders6", &[Type::Link, Type::Mac, Type::Address6], &[], false),
                set("targets", &[Type::Link, Type::Target], &[], false),
            ];
        }
    };
    vec![
        set("bridges", &[Type::Link], &[], false),
        set("subnets", &[address], &[], true),
        set("same_bridge", &[Type::Link, Type::Link], &[], false),
        set("ports", &[Type::Protocol, Type::Port], &[address, Type::Port], false),
        set("ports_at", &[Type::Protocol, address, Type::Port], &[address, Type::Port], false),
        set("internal", &[Type::Link], &[], false),
        set("routed", &[Type::Link], &[], false),
        set("masqueraded", &[address], &[], true),
        set("spans", &[Type::Protocol, Type::Port], &[address], true),
        set("spans_at", &[Type::Protocol, address, Type::Port], &[address], true),
        set("opened", &[address, Type::Protocol, Type::Port], &[], true),
        set("proxied", &[Type::Protocol, Type::Port], &[], false),
        set("classes", &[address], &[Type::Class], false),
    ]
}

/// include/uapi/linux/rtnetlink.h
const RTN_UNICAST: u32 = 1;
const RTN_LOCAL: u32 = 2;
/// IP_CT_ESTABLISHED and IP_CT_RELATED as NF_CT_STATE_BIT()s.
const ESTABLISHED_RELATED: u32 = 2 | 4;
const IPS_DST_NAT: u32 = 1 << 5;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

const IIFNAME: Expression = Expression::Meta { key: meta::IIFNAME, register: encode::REG_1 };
const OIFNAME: Expression = Expression::Meta { key: meta::OIFNAME, register: encode::REG_1 };
const L4PROTO: Expression = Expression::Meta { key: meta::L4PROTO, register: encode::REG_1 };

fn payload(base: u32, offset: u32, length: u32, register: u32) -> Expression {
    Expression::Payload { base, offset, length, register }
}

/// Part of a packet whose place depends on the IP version.
struct Ip {
    family: Family,
    name: &'static str,
    /// Where source and destination are in the header, and how long they are.
    source: u32,
    destination: u32,
    length: u32,
}

impl Ip {
    fn source(&self) -> Expression {
        payload(payload::NETWORK, self.source, self.length, encode::REG_1)
    }

    fn destination(&self, register: u32) -> Expression {
        payload(payload::NETWORK, self.destination, self.length, register)
    }

    /// The words that an address takes.
    fn words(&self) -> u32 {
        self.length / 4
    }
}

fn port(register: u32) -> Expression {
    payload(payload::TRANSPORT, 2, 2, register)
}

fn in_set(set: &'static str) -> Expression {
    Expression::InSet { set, inverted: false }
}

fn not_in(set: &'static str) -> Expression {
    Expression::InSet { set, inverted: true }
}

fn number(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// Goes on when any of the bits is set in register 1.
fn any_of(bits: u32) -> [Expression; 2] {
    [Expression::Mask(number(bits)), Expression::Differ(number(0))]
}

fn rule(text: impl Into<String>, comment: &'static str, expressions: Vec<Expression>) -> Rule {
    Rule { text: text.into(), comment, expressions }
}

/// The chains of a table, in the order in which they are created.
pub(super) fn chains(family: Family, table: &str) -> Vec<Chain> {
    let ip = match family {
        Family::Bridge => return vec![cards(table)],
        Family::Ip => Ip { family, name: "ip", source: 12, destination: 16, length: 4 },
        Family::Ip6 => Ip { family, name: "ip6", source: 8, destination: 24, length: 16 },
    };
    vec![
        guard(&ip),
        prerouting(&ip),
        output(&ip),
        publish(&ip),
        forward(&ip),
        input(&ip),
        shaping(&ip),
        postrouting(&ip),
    ]
}

/// Localhost. The kernel itself drops packets for ::1 from a wire (ip6_rcv_core() in net/ipv6/ip6_input.c).
fn guard(ip: &Ip) -> Chain {
    let lo = || Expression::Differ(link_name("lo").to_vec());
    let local = |offset| [payload(payload::NETWORK, offset, 1, encode::REG_1), Expression::Equal(vec![127])];
    let drop = |offset| [IIFNAME, lo()].into_iter().chain(local(offset)).chain([Expression::Drop]).collect();
    let rules = match ip.family {
        Family::Ip => vec![
            rule(
                "iifname != \"lo\" ip daddr 127.0.0.0/8 drop",
                "localhost is for this host alone, whatever route_localnet says",
                drop(16),
            ),
            rule("iifname != \"lo\" ip saddr 127.0.0.0/8 drop", "nobody else may pose as localhost", drop(12)),
        ],
        _ => vec![],
    };
    Chain { name: "guard", hook: Some(("filter", "prerouting", 0, "raw", -300)), rules }
}

fn prerouting(ip: &Ip) -> Chain {
    const COMMENT: &str = "from other hosts and containers to this host";
    let mut expressions = match ip.family {
        Family::Ip => vec![payload(payload::NETWORK, 16, 1, encode::REG_1), Expression::Differ(vec![127])],
        _ => vec![],
    };
    let text = if expressions.is_empty() { "" } else { "ip daddr != 127.0.0.0/8 " };
    expressions.extend([
        Expression::FibDestinationType { by_link: false },
        Expression::Equal(number(RTN_LOCAL)),
        Expression::Jump("publish"),
    ]);
    let rules = vec![rule(format!("{text}fib daddr type local jump publish"), COMMENT, expressions)];
    Chain { name: "prerouting", hook: Some(("nat", "prerouting", 0, "dstnat", -100)), rules }
}

fn output(ip: &Ip) -> Chain {
    // An answer to ::1 would come in by the bridge, where the kernel takes no packet for ::1: the proxy serves it.
    let localhost = std::net::Ipv6Addr::LOCALHOST.octets().to_vec();
    let (text, mut expressions) = match ip.family {
        Family::Ip => ("", vec![]),
        _ => ("ip6 daddr != ::1 ", vec![ip.destination(encode::REG_1), Expression::Differ(localhost)]),
    };
    expressions.extend([
        Expression::FibDestinationType { by_link: false },
        Expression::Equal(number(RTN_LOCAL)),
        Expression::Jump("publish"),
    ]);
    let rules = vec![rule(format!("{text}fib daddr type local jump publish"), "from this host to itself", expressions)];
    Chain { name: "output", hook: Some(("nat", "output", 3, "-100", -100)), rules }
}

fn publish(ip: &Ip) -> Chain {
    let (name, family) = (ip.name, ip.family);
    let at = |map| {
        let dnat = Expression::Dnat { family, port: map == "ports_at" };
        vec![L4PROTO, ip.destination(word(1)), port(word(1 + ip.words())), Expression::Map { map }, dnat]
    };
    let any = |map| {
        let dnat = Expression::Dnat { family, port: map == "ports" };
        vec![L4PROTO, port(word(1)), Expression::Map { map }, dnat]
    };
    let rules = vec![
        rule(
            format!("dnat {name} to meta l4proto . {name} daddr . th dport map @ports_at"),
            "ports published on one address",
            at("ports_at"),
        ),
        rule(
            format!("dnat {name} to meta l4proto . th dport map @ports"),
            "ports published on every address",
            any("ports"),
        ),
        rule(
            format!("dnat to meta l4proto . {name} daddr . th dport map @spans_at"),
            "ranges published on one address",
            at("spans_at"),
        ),
        rule("dnat to meta l4proto . th dport map @spans", "ranges published on every address", any("spans")),
    ];
    Chain { name: "publish", hook: None, rules }
}

fn established() -> Vec<Expression> {
    let [mask, differ] = any_of(ESTABLISHED_RELATED);
    vec![Expression::Ct { key: ct::STATE }, mask, differ, Expression::Accept]
}

fn forward(ip: &Ip) -> Chain {
    let name = ip.name;
    let [mask, differ] = any_of(IPS_DST_NAT);
    let (icmp, icmp_name) = if ip.family == Family::Ip { (ICMP, "icmp") } else { (ICMPV6, "ipv6-icmp") };
    let rules = vec![
        rule(
            "oifname != @bridges iifname != @internal accept",
            "only what goes to containers, or leaves internal networks, is judged here",
            vec![OIFNAME, not_in("bridges"), IIFNAME, not_in("internal"), Expression::Accept],
        ),
        rule("ct state established,related accept", "answers to containers", established()),
        rule(
            "iifname . oifname @same_bridge accept",
            "containers of one network",
            vec![
                IIFNAME,
                Expression::Meta { key: meta::OIFNAME, register: word(4) },
                in_set("same_bridge"),
                Expression::Accept,
            ],
        ),
        rule(
            "iifname @internal drop",
            "an internal network has no way out",
            vec![IIFNAME, in_set("internal"), Expression::Drop],
        ),
        rule("oifname @internal drop", "and no way in", vec![OIFNAME, in_set("internal"), Expression::Drop]),
        rule(
            "ct status dnat accept",
            "published ports",
            vec![Expression::Ct { key: ct::STATUS }, mask, differ, Expression::Accept],
        ),
        rule(
            format!("{name} daddr . meta l4proto . th dport @opened accept"),
            "published ports of routed networks",
            vec![
                ip.destination(encode::REG_1),
                Expression::Meta { key: meta::L4PROTO, register: word(ip.words()) },
                port(word(ip.words() + 1)),
                in_set("opened"),
                Expression::Accept,
            ],
        ),
        rule(
            format!("iifname != @bridges oifname @routed meta l4proto {icmp_name} accept"),
            "routed networks answer pings, but not those of other networks' containers",
            vec![
                IIFNAME,
                not_in("bridges"),
                OIFNAME,
                in_set("routed"),
                L4PROTO,
                Expression::Equal(vec![icmp]),
                Expression::Accept,
            ],
        ),
        rule("drop", "no other way in, such as a route to the subnet by this host", vec![Expression::Drop]),
    ];
    Chain { name: "forward", hook: Some(("filter", "forward", 2, "filter", 0)), rules }
}

/// Packets of containers to the host itself.
fn input(ip: &Ip) -> Chain {
    let name = ip.name;
    let mut rules = vec![
        rule(
            "iifname != @bridges accept",
            "only what comes from containers is judged here",
            vec![IIFNAME, not_in("bridges"), Expression::Accept],
        ),
        rule("ct state established,related accept", "answers to this host", established()),
        rule(
            "fib daddr . iif type != unicast accept",
            "to the gateway of the own network",
            vec![
                Expression::FibDestinationType { by_link: true },
                Expression::Differ(number(RTN_UNICAST)),
                Expression::Accept,
            ],
        ),
    ];
    if ip.family == Family::Ip6 {
        rules.push(rule(
            "ip6 daddr ff00::/8 accept",
            "neighbour discovery",
            vec![payload(payload::NETWORK, 24, 1, encode::REG_1), Expression::Equal(vec![0xff]), Expression::Accept],
        ));
    }
    rules.extend([
        rule(
            "iifname @internal drop",
            "an internal network reaches its gateway alone",
            vec![IIFNAME, in_set("internal"), Expression::Drop],
        ),
        rule(
            "meta l4proto . th dport @proxied accept",
            "published ports that the proxy serves",
            vec![L4PROTO, port(word(1)), in_set("proxied"), Expression::Accept],
        ),
        rule(
            format!("{name} daddr @subnets drop"),
            "another network's gateway",
            vec![ip.destination(encode::REG_1), in_set("subnets"), Expression::Drop],
        ),
    ]);
    Chain { name: "input", hook: Some(("filter", "input", 1, "filter", 0)), rules }
}

/// A socket's class doesn't outlive the veth pair (____dev_forward_skb() in include/linux/netdevice.h): here the packet gets
/// it once more, when its sender's address hasn't been rewritten yet.
fn shaping(ip: &Ip) -> Chain {
    let rules = vec![rule(
        format!("meta priority set {} saddr map @classes", ip.name),
        "classes of containers with --net-cls or --net-rate",
        vec![ip.source(), Expression::Map { map: "classes" }, Expression::SetPriority],
    )];
    Chain { name: "shaping", hook: Some(("filter", "postrouting", 4, "mangle", -150)), rules }
}

fn postrouting(ip: &Ip) -> Chain {
    let name = ip.name;
    let [mask, differ] = any_of(IPS_DST_NAT);
    let mut rules = vec![
        rule(
            format!("{name} saddr @masqueraded oifname != @bridges masquerade"),
            "containers leave with this host's address",
            vec![ip.source(), in_set("masqueraded"), OIFNAME, not_in("bridges"), Expression::Masquerade],
        ),
        rule(
            format!("{name} saddr @subnets ct status dnat masquerade"),
            "containers to published ports: the answer must come back this way",
            vec![
                ip.source(),
                in_set("subnets"),
                Expression::Ct { key: ct::STATUS },
                mask,
                differ,
                Expression::Masquerade,
            ],
        ),
    ];
    if ip.family == Family::Ip {
        rules.push(rule(
            "ip saddr 127.0.0.0/8 oifname @bridges masquerade",
            "localhost to published ports: no container can answer to 127.0.0.1",
            vec![
                payload(payload::NETWORK, 12, 1, encode::REG_1),
                Expression::Equal(vec![127]),
                OIFNAME,
                in_set("bridges"),
                Expression::Masquerade,
            ],
        ));
    }
    Chain { name: "postrouting", hook: Some(("nat", "postrouting", 4, "srcnat", 100)), rules }
}

/// What a guarded card may send: frames from its own MAC with its own address, and no advertisements of routers or of
/// others' addresses.
fn cards(table: &str) -> Chain {
    const ARP: [u8; 2] = 0x0806_u16.to_be_bytes();
    const IPV4: [u8; 2] = 0x0800_u16.to_be_bytes();
    const IPV6: [u8; 2] = 0x86dd_u16.to_be_bytes();
    let group = card_group(table);
    let protocol = Expression::Meta { key: meta::PROTOCOL, register: encode::REG_1 };
    let ethertype = payload(payload::LINK, 12, 2, encode::REG_1);
    let frame = payload(payload::LINK, 6, 6, word(4));
    let icmpv6 = |kind: u8| {
        vec![
            ethertype.clone(),
            Expression::Equal(IPV6.to_vec()),
            L4PROTO,
            Expression::Equal(vec![ICMPV6]),
            payload(payload::TRANSPORT, 0, 1, encode::REG_1),
            Expression::Equal(vec![kind]),
        ]
    };
    let with = |mut list: Vec<Expression>, more: Vec<Expression>| {
        list.extend(more);
        list
    };
    let arp_address = payload(payload::NETWORK, 14, 4, word(6));
    let tagged = |kind: u16| vec![ethertype.clone(), Expression::Equal(kind.to_be_bytes().to_vec()), Expression::Drop];
    let rules = vec![
        rule(
            format!("iifgroup != {group} accept"),
            "only cards of containers are judged here",
            vec![
                Expression::Meta { key: meta::IIFGROUP, register: encode::REG_1 },
                Expression::Differ(number(group)),
                Expression::Accept,
            ],
        ),
        // A tag of VLAN 0 is none to the receiver (802.1Q's priority tag), but hides the frame's kind from the rules below.
        rule("ether type 8021q drop", "no tagged frames", tagged(0x8100)),
        rule("ether type 8021ad drop", "nor doubly tagged ones", tagged(0x88a8)),
        rule(
            "iifname . ether saddr . ip saddr @senders accept",
            "IPv4 from the own MAC and address",
            vec![
                protocol.clone(),
                Expression::Equal(IPV4.to_vec()),
                IIFNAME,
                frame.clone(),
                payload(payload::NETWORK, 12, 4, word(6)),
                in_set("senders"),
                Expression::Accept,
            ],
        ),
        rule(
            "iifname . ether saddr . arp saddr ip @senders iifname . arp saddr ether . arp saddr ip @senders accept",
            "ARP about the own MAC and address",
            vec![
                ethertype.clone(),
                Expression::Equal(ARP.to_vec()),
                IIFNAME,
                frame.clone(),
                arp_address.clone(),
                in_set("senders"),
                IIFNAME,
                payload(payload::NETWORK, 8, 6, word(4)),
                arp_address,
                in_set("senders"),
                Expression::Accept,
            ],
        ),
        rule(
            "icmpv6 type nd-router-advert drop",
            "no container is a router",
            with(icmpv6(134), vec![Expression::Drop]),
        ),
        rule("icmpv6 type nd-redirect drop", "nor redirects", with(icmpv6(137), vec![Expression::Drop])),
        rule(
            "icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets drop",
            "nor has others' addresses",
            with(
                icmpv6(136),
                vec![IIFNAME, payload(payload::TRANSPORT, 8, 16, word(4)), not_in("targets"), Expression::Drop],
            ),
        ),
        rule(
            "iifname . ether saddr . ip6 saddr @senders6 accept",
            "IPv6 from the own MAC and address",
            vec![
                protocol,
                Expression::Equal(IPV6.to_vec()),
                IIFNAME,
                frame,
                payload(payload::NETWORK, 8, 16, word(6)),
                in_set("senders6"),
                Expression::Accept,
            ],
        ),
        rule("drop", "nothing else", vec![Expression::Drop]),
    ];
    Chain { name: "cards", hook: Some(("filter", "prerouting", 0, "-300", -300)), rules }
}

/// The table as a script for `nft -f`.
pub(super) fn script(family: Family, table: &str, repair: bool) -> String {
    let types = |types: &[Type]| types.iter().map(|one| one.name()).collect::<Vec<_>>().join(" . ");
    let family_name = family.name();
    let mut text = String::new();
    if repair {
        let _ = writeln!(text, "table {family_name} {table}\nflush table {family_name} {table}");
    }
    let _ = writeln!(text, "table {family_name} {table} {{");
    for set in sets(family) {
        let (word, data) =
            if set.data.is_empty() { ("set", String::new()) } else { ("map", format!(" : {}", types(&set.data))) };
        let flags = if set.interval { "; flags interval" } else { "" };
        let kind = if set.key.contains(&Type::Target) {
            "typeof iifname . @th,64,128".to_owned()
        } else {
            format!("type {}", types(&set.key))
        };
        let _ = writeln!(text, "\t{word} {} {{ {kind}{data}{flags}; }}", set.name);
    }
    for chain in chains(family, table) {
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
    let chains = chains(table.family, table.name);
    for chain in &chains {
        match chain.hook {
            Some((kind, _, hook, _, priority)) => table.base_chain(flags, chain.name, kind, hook, priority),
            None => table.chain(encode::NEWCHAIN, flags, chain.name),
        };
    }
    for (id, set) in sets(table.family).iter().enumerate() {
        table.set(flags, id as u32 + 1, set.name, &set.key, &set.data, set.interval);
    }
    table.flush();
    for chain in &chains {
        for rule in &chain.rules {
            table.rule(chain.name, &rule.expressions, rule.comment);
        }
    }
}
