//! Rules and policies of others that drop what passes to or from a network: no rule of our own can save a packet from
//! them. They're never changed; the user is told which it is, and what lets the network through.
//!
//! Two packets are led through every chain that the kernel calls for passing packets: a container's first to the outside,
//! and a client's first to a published port; and through those for packets to the host itself a client's first to each port
//! that the proxy serves. A rule whose conditions can't be judged here counts as one that doesn't match.

use std::collections::BTreeMap;

use crate::firewall::iptables;
use crate::shell::{is_nft_name, printable, quoted};
use crate::watch::legacy_rules;
use crate::{Driver, Host, Network, PortMapping, Protocol, facts, query, survey};

/// Somebody's chain that drops a network's packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// `table ip filter, chain FORWARD, policy drop`
    pub place: String,
    /// What doesn't work.
    pub effect: String,
    /// The commands that let the network through.
    pub remedy: String,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "another firewall drops {}: {}; to let it pass: {}", self.effect, self.place, self.remedy)
    }
}

/// Everybody's rules, read once for many questions.
pub struct Others {
    rules: survey::Rules,
    uplink: Option<String>,
    /// By IP version, once they're asked for: `iptables-save` is a program.
    tables: [Option<Vec<Table>>; 2],
}

impl Others {
    /// Reads them. Costs a few milliseconds (`iptables-save`, where iptables has rules); not for each start. None when
    /// there are more than `most` rules, which costs but a look at the chains.
    pub fn read(host: &mut Host, most: Option<usize>) -> Option<Others> {
        if most.is_some_and(|most| count(host) > most) {
            return None;
        }
        let uplink = uplink(host);
        let rules = host.netfilter().ok().and_then(|netlink| survey::rules(netlink).ok()).unwrap_or_default();
        Some(Others { rules, uplink, tables: [None, None] })
    }

    fn tables(&mut self, v6: bool) -> &[Table] {
        let rules = &self.rules;
        self.tables[usize::from(v6)].get_or_insert_with(|| {
            let mut tables = native(rules, v6);
            tables.extend(of_iptables(rules, v6));
            tables
        })
    }

    /// What is in a network's way.
    pub fn obstacles(&mut self, network: &Network) -> Vec<Obstacle> {
        if network.internal || network.driver != Driver::Bridge {
            return vec![];
        }
        let uplink = self.uplink.clone();
        let uplink = uplink.as_deref();
        let mut found = Vec::new();
        for subnet in network.subnets() {
            let v6 = subnet.gateway.is_ipv6();
            let subnet = subnet.to_string();
            let bridge = network.bridge.as_str();
            let out = Packet { bridge, from: Some(bridge), to: uplink, published: false, subnet: &subnet, port: None };
            let back = Packet { from: uplink, to: Some(bridge), published: true, ..out };
            for table in self.tables(v6) {
                found.extend(table.obstacles(&out, &back));
            }
        }
        found
    }

    /// What drops packets to ports that the proxy serves: the host itself takes those, so that the chains for input judge
    /// them. Ports with the same place and remedy but for their number are told once.
    pub fn input_obstacles(&mut self, ports: &[PortMapping]) -> Vec<Obstacle> {
        let uplink = self.uplink.clone();
        let mut found: Vec<Obstacle> = Vec::new();
        for port in ports {
            let local = port.host_address.is_loopback();
            let packet = Packet {
                bridge: "",
                from: if local { Some("lo") } else { uplink.as_deref() },
                to: None,
                published: false,
                subnet: "",
                port: Some((port.protocol, port.host_port)),
            };
            let tables = self.tables(port.host_address.is_ipv6());
            for one in tables.iter().flat_map(|table| table.input_obstacles(&packet, port)) {
                if !found.iter().any(|other| other.place == one.place) {
                    found.push(one);
                }
            }
        }
        found
    }
}

/// As [`Others::obstacles`], for one network.
pub fn obstacles(host: &mut Host, network: &Network) -> Vec<Obstacle> {
    if network.internal || network.driver != Driver::Bridge {
        return vec![];
    }
    Others::read(host, None).map(|mut others| others.obstacles(network)).unwrap_or_default()
}

/// As [`Others::input_obstacles`], for the ports of one container.
pub fn input_obstacles(host: &mut Host, ports: &[PortMapping]) -> Vec<Obstacle> {
    if ports.is_empty() {
        return vec![];
    }
    Others::read(host, None).map(|mut others| others.input_obstacles(ports)).unwrap_or_default()
}

/// How many rules there are: those of nftables, and of iptables-legacy.
fn count(host: &mut Host) -> usize {
    let native = host.netfilter().map_or(0, survey::count_rules);
    [false, true].into_iter().filter(|v6| survey::legacy_is_used(*v6)).fold(native, |sum, v6| sum + legacy_rules(v6))
}

fn uplink(host: &mut Host) -> Option<String> {
    let index = facts::egress_link(host)?;
    query::get_index(host.route().ok()?, index).ok().flatten().map(|link| link.name)
}

/// The first packet of a connection.
#[derive(Debug, Clone, Copy)]
struct Packet<'a> {
    bridge: &'a str,
    /// The cards; none: it isn't known which.
    from: Option<&'a str>,
    to: Option<&'a str>,
    /// Led to a container by a published port.
    published: bool,
    subnet: &'a str,
    /// Where it goes on the host itself; none: it passes.
    port: Option<(Protocol, u16)>,
}

/// The way out where nft can't be told of a chain.
const UNNAMED: &str = "whoever made that chain gave it a name that nft doesn't take; see nft -a list ruleset";

/// How its rules are written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Language {
    Nft,
    /// With the program's name.
    Iptables(&'static str),
}

/// One table.
#[derive(Debug)]
struct Table {
    language: Language,
    /// `ip filter`
    name: String,
    chains: BTreeMap<String, Vec<String>>,
    /// What the kernel calls for passing packets, and whether what falls through is dropped.
    called: Vec<(String, bool)>,
    /// The same of packets to the host itself.
    input: Vec<(String, bool)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    Accept,
    /// By this rule.
    Drop(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fits {
    No,
    Perhaps,
    Yes,
}

/// Tables of nftables, without ours and those that iptables keeps.
fn native(rules: &survey::Rules, v6: bool) -> Vec<Table> {
    let mut tables: BTreeMap<(&str, &str), Table> = BTreeMap::new();
    let family = if v6 { "ip6" } else { "ip" };
    let others = rules.chains.iter().filter(|chain| {
        !chain.of_iptables() && [family, "inet"].contains(&chain.family) && !chain.table.starts_with("minidock")
    });
    for chain in others {
        let table = tables.entry((chain.family, chain.table.as_str())).or_insert_with(|| Table {
            language: Language::Nft,
            name: format!("{} {}", chain.family, chain.table),
            chains: BTreeMap::new(),
            called: vec![],
            input: vec![],
        });
        table.chains.insert(chain.name.clone(), chain.rules.iter().map(|rule| rule.text.clone()).collect());
        match chain.hook {
            "forward" => table.called.push((chain.name.clone(), chain.drops)),
            "input" => table.input.push((chain.name.clone(), chain.drops)),
            _ => {}
        }
    }
    tables.into_values().collect()
}

/// Tables of iptables, those of iptables-legacy too.
fn of_iptables(rules: &survey::Rules, v6: bool) -> Vec<Table> {
    let mut tables = Vec::new();
    let names = if v6 { ["ip6tables", "ip6tables-legacy"] } else { ["iptables", "iptables-legacy"] };
    for (legacy, program) in names.into_iter().enumerate() {
        let used =
            if legacy == 0 { rules.of_iptables(if v6 { "ip6" } else { "ip" }) } else { survey::legacy_is_used(v6) };
        if used {
            tables.extend(saved(&iptables::saved_by(&format!("{program}-save")), program, v6));
        }
    }
    tables
}

/// What `iptables-save` has printed.
fn saved(lines: &[String], program: &'static str, v6: bool) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in lines {
        if let Some(name) = line.strip_prefix('*') {
            let name = format!("{} {name}", if v6 { "ip6" } else { "ip" });
            let language = Language::Iptables(program);
            tables.push(Table { language, name, chains: BTreeMap::new(), called: vec![], input: vec![] });
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            table.chains.insert(name.to_owned(), vec![]);
            match name {
                "FORWARD" => table.called.push((name.to_owned(), policy == "DROP")),
                "INPUT" => table.input.push((name.to_owned(), policy == "DROP")),
                _ => {}
            }
        } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) {
            table.chains.entry(chain.to_owned()).or_default().push(rule.to_owned());
        }
    }
    tables
}

impl Table {
    fn obstacles(&self, out: &Packet<'_>, back: &Packet<'_>) -> Vec<Obstacle> {
        let bridge = out.bridge;
        let mut found: Vec<Obstacle> = Vec::new();
        for (chain, drops) in &self.called {
            let by = |packet: &Packet<'_>| self.how(chain, *drops, packet);
            let (sent, asked) = (by(out), by(back));
            let effect = match (&sent, &asked) {
                (Some(_), Some(_)) => {
                    format!("what {bridge}'s containers send out and what comes to their published ports")
                }
                (Some(_), None) => format!("what {bridge}'s containers send out"),
                (None, Some(_)) => format!("what comes to the published ports of {bridge}'s containers"),
                (None, None) => continue,
            };
            let place = self.place(chain, &sent.or(asked).unwrap_or_default());
            found.push(Obstacle { place, effect, remedy: self.remedy(chain, bridge) });
        }
        found
    }

    /// What in a chain drops a packet, if anything does.
    fn how(&self, chain: &str, drops: bool, packet: &Packet<'_>) -> Option<String> {
        match self.judge(chain, packet, 0) {
            Some(Verdict::Drop(rule)) => Some(format!("rule `{rule}`")),
            None if drops => Some("policy drop".to_owned()),
            _ => None,
        }
    }

    fn place(&self, chain: &str, how: &str) -> String {
        let place = match self.language {
            Language::Iptables(program) if program.ends_with("legacy") => {
                format!("table {} of {program}, chain {chain}, {how}", self.name)
            }
            _ => format!("table {}, chain {chain}, {how}", self.name),
        };
        printable(&place)
    }

    /// Whether nft can be told of a chain: see [`is_nft_name`]. The table's name begins with its family.
    fn can_be_named(&self, chain: &str) -> bool {
        is_nft_name(chain) && self.name.split_once(' ').is_some_and(|(_, name)| is_nft_name(name))
    }

    fn input_obstacles(&self, packet: &Packet<'_>, port: &PortMapping) -> Vec<Obstacle> {
        let (protocol, number) = (port.protocol, port.host_port);
        let effect = format!("what comes to port {number}/{protocol} of this host, which minidock's proxy serves");
        let found = |(chain, drops): &(String, bool)| {
            let place = self.place(chain, &self.how(chain, *drops, packet)?);
            Some(Obstacle { place, effect: effect.clone(), remedy: self.input_remedy(chain, protocol, number) })
        };
        self.input.iter().filter_map(found).collect()
    }

    fn input_remedy(&self, chain: &str, protocol: Protocol, number: u16) -> String {
        if self.chains.keys().any(|name| name.starts_with("ufw")) {
            return format!("ufw allow {number}/{protocol}");
        }
        match self.language {
            Language::Nft if self.name.ends_with(" firewalld") => {
                format!("firewall-cmd --add-port={number}/{protocol}")
            }
            Language::Nft if !self.can_be_named(chain) => UNNAMED.to_owned(),
            Language::Nft => format!("nft insert rule {} {chain} {protocol} dport {number} accept", self.name),
            Language::Iptables(program) => {
                let table = self.name.split(' ').next_back().filter(|name| *name != "filter");
                let table = table.map(|name| format!("-t {} ", quoted(name))).unwrap_or_default();
                format!("{program} {table}-I {chain} -p {protocol} --dport {number} -j ACCEPT")
            }
        }
    }

    fn remedy(&self, chain: &str, bridge: &str) -> String {
        if self.chains.keys().any(|name| name.starts_with("ufw")) {
            return format!("ufw route allow in on {bridge} && ufw route allow out on {bridge}");
        }
        match self.language {
            Language::Nft if self.name.ends_with(" firewalld") => {
                format!("firewall-cmd --zone=trusted --add-interface={bridge}")
            }
            Language::Nft if !self.can_be_named(chain) => UNNAMED.to_owned(),
            Language::Nft => {
                let insert = |rule: &str| format!("nft insert rule {} {chain} {rule} accept", self.name);
                [
                    insert(&format!("iifname {bridge}")),
                    insert(&format!("oifname {bridge} ct state established,related")),
                    insert(&format!("oifname {bridge} ct status dnat")),
                ]
                .join(" && ")
            }
            Language::Iptables(program) => {
                let table = self.name.split(' ').next_back().filter(|name| *name != "filter");
                let table = table.map(|name| format!("-t {} ", quoted(name))).unwrap_or_default();
                format!(
                    "{program} {table}-I {chain} -i {bridge} -j ACCEPT && {program} {table}-I {chain} -o {bridge} -m \
                     conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"
                )
            }
        }
    }

    /// What becomes of a packet in a chain; none when it falls through.
    fn judge(&self, chain: &str, packet: &Packet<'_>, depth: u32) -> Option<Verdict> {
        // NFT_JUMP_STACK_SIZE
        if depth > 16 {
            return None;
        }
        for rule in self.chains.get(chain)? {
            let (fits, act) = match self.language {
                Language::Nft => nft(rule, packet),
                Language::Iptables(_) => iptables_rule(rule, packet),
            };
            if fits != Fits::Yes {
                continue;
            }
            match act {
                Act::Accept => return Some(Verdict::Accept),
                Act::Drop => return Some(Verdict::Drop(rule.clone())),
                Act::Return => return None,
                Act::Jump(to) => {
                    if let Some(verdict) = self.judge(to, packet, depth + 1) {
                        return Some(verdict);
                    }
                }
                Act::Goto(to) => return self.judge(to, packet, depth + 1),
                Act::Other => {}
            }
        }
        None
    }
}

/// What a rule does with a packet that it fits.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act<'a> {
    Accept,
    Drop,
    Return,
    Jump(&'a str),
    Goto(&'a str),
    Other,
}

/// Whether a card is the named one, perhaps with a wildcard at its end.
fn is_card(pattern: &str, wildcard: char, card: Option<&str>, bridge: &str) -> Fits {
    let fits = |name: &str| match pattern.strip_suffix(wildcard) {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    match card {
        Some(card) if fits(card) => Fits::Yes,
        Some(_) => Fits::No,
        None if pattern == bridge => Fits::No,
        None => Fits::Perhaps,
    }
}

fn unless(no: bool, fits: Fits) -> Fits {
    match (no, fits) {
        (true, Fits::Yes) => Fits::No,
        (true, Fits::No) => Fits::Yes,
        _ => fits,
    }
}

/// The state of a connection's first packet.
fn is_state(list: &str, packet: &Packet<'_>) -> Fits {
    let fits = list.split(',').map(str::trim).any(|word| match word.to_ascii_lowercase().as_str() {
        "new" => true,
        "dnat" => packet.published,
        _ => false,
    });
    if fits { Fits::Yes } else { Fits::No }
}

fn is_protocol(name: &str, packet: &Packet<'_>) -> Fits {
    match packet.port {
        Some((protocol, _)) if protocol.name() == name => Fits::Yes,
        Some(_) if matches!(name, "tcp" | "udp" | "sctp" | "icmp" | "ipv6-icmp") => Fits::No,
        _ => Fits::Perhaps,
    }
}

/// A list of ports and of ranges with this letter between their ends.
fn is_port(list: &str, to: char, packet: &Packet<'_>) -> Fits {
    let Some((_, wanted)) = packet.port else { return Fits::Perhaps };
    let fit = |word: &str| {
        let (first, last) = word.split_once(to).unwrap_or((word, word));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) if (first..=last).contains(&wanted) => Fits::Yes,
            (Ok(_), Ok(_)) => Fits::No,
            _ => Fits::Perhaps,
        }
    };
    list.split(',').map(|word| fit(word.trim())).max().unwrap_or(Fits::Perhaps)
}

fn iptables_rule<'a>(rule: &'a str, packet: &Packet<'_>) -> (Fits, Act<'a>) {
    let (mut fits, mut act, mut no) = (Fits::Yes, Act::Other, false);
    let mut words = rule.split(' ');
    while let Some(word) = words.next() {
        if word == "!" {
            no = true;
            continue;
        }
        let one = match word {
            "-i" => is_card(words.next().unwrap_or_default(), '+', packet.from, packet.bridge),
            "-o" => is_card(words.next().unwrap_or_default(), '+', packet.to, packet.bridge),
            "-s" if words.next() == Some(packet.subnet) => {
                if packet.from == Some(packet.bridge) {
                    Fits::Yes
                } else {
                    Fits::No
                }
            }
            "--ctstate" => is_state(words.next().unwrap_or_default(), packet),
            "-m" => match words.next() {
                Some("conntrack" | "comment" | "tcp" | "udp" | "sctp" | "multiport") => continue,
                _ => Fits::Perhaps,
            },
            "-p" => is_protocol(words.next().unwrap_or_default(), packet),
            "--dport" | "--dports" => is_port(words.next().unwrap_or_default(), ':', packet),
            "--comment" => {
                // iptables-save quotes what has spaces.
                let first = words.next().unwrap_or_default();
                if first.starts_with('"') && (first.len() == 1 || !first.ends_with('"')) {
                    for word in words.by_ref() {
                        if word.ends_with('"') {
                            break;
                        }
                    }
                }
                continue;
            }
            "-j" | "-g" => {
                let target = words.next().unwrap_or_default();
                act = match target {
                    "ACCEPT" => Act::Accept,
                    "DROP" | "REJECT" => Act::Drop,
                    "RETURN" => Act::Return,
                    _ if word == "-g" => Act::Goto(target),
                    _ => Act::Jump(target),
                };
                break;
            }
            _ => Fits::Perhaps,
        };
        fits = fits.min(unless(std::mem::take(&mut no), one));
    }
    (fits, act)
}

fn nft<'a>(rule: &'a str, packet: &Packet<'_>) -> (Fits, Act<'a>) {
    let (mut fits, mut act) = (Fits::Yes, Act::Other);
    let mut words = rule.split(' ').peekable();
    while let Some(word) = words.next() {
        let one = match word {
            "counter" => {
                // Perhaps with its numbers.
                while words
                    .next_if(|next| matches!(*next, "packets" | "bytes") || next.parse::<u64>().is_ok())
                    .is_some()
                {}
                continue;
            }
            "accept" => {
                act = Act::Accept;
                break;
            }
            "drop" | "reject" => {
                act = Act::Drop;
                break;
            }
            "return" => {
                act = Act::Return;
                break;
            }
            "jump" | "goto" => {
                let to = words.next().unwrap_or_default();
                act = if word == "jump" { Act::Jump(to) } else { Act::Goto(to) };
                break;
            }
            "iifname" | "oifname" => {
                let card = if word == "iifname" { packet.from } else { packet.to };
                let no = words.next_if_eq(&"!=").is_some();
                let any = values(&mut words).into_iter();
                let fit = any.map(|name| is_card(name.trim_matches('"'), '*', card, packet.bridge)).max();
                unless(no, fit.unwrap_or(Fits::Perhaps))
            }
            "tcp" | "udp" | "sctp" if words.next_if_eq(&"dport").is_some() => {
                let no = words.next_if_eq(&"!=").is_some();
                let fits = is_port(&values(&mut words).join(","), '-', packet);
                is_protocol(word, packet).min(unless(no, fits))
            }
            "ct" => {
                let key = words.next().unwrap_or_default();
                let no = words.next_if_eq(&"!=").is_some();
                let list = values(&mut words).join(",");
                match key {
                    "state" => unless(no, is_state(&list, packet)),
                    "status" if list == "dnat" => unless(no, if packet.published { Fits::Yes } else { Fits::No }),
                    _ => Fits::Perhaps,
                }
            }
            _ => Fits::Perhaps,
        };
        fits = fits.min(one);
    }
    (fits, act)
}

/// One value, or those of `{ a, b }`; none of a set with a name, which isn't looked into.
fn values<'a>(words: &mut std::iter::Peekable<std::str::Split<'a, char>>) -> Vec<&'a str> {
    match words.next() {
        Some("{") => words.by_ref().take_while(|word| *word != "}").map(|word| word.trim_end_matches(',')).collect(),
        Some(word) if !word.starts_with(['@', '.']) && words.peek() != Some(&".") => vec![word],
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(uplink: Option<&str>) -> [Packet<'_>; 2] {
        let out = Packet {
            bridge: "docker0",
            from: Some("docker0"),
            to: uplink,
            published: false,
            subnet: "172.17.0.0/16",
            port: None,
        };
        [out, Packet { from: uplink, to: Some("docker0"), published: true, ..out }]
    }

    fn found(text: &str) -> Vec<String> {
        let lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        let [out, back] = packets(Some("eth0"));
        saved(&lines, "iptables", false)
            .iter()
            .flat_map(|table| table.obstacles(&out, &back))
            .map(|one| one.to_string())
            .collect()
    }

    #[test]
    fn policies_and_rules_of_iptables() {
        assert_eq!(found("*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p udp -j DROP"), [""; 0]);
        let policy =
            found("*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        assert_eq!(
            policy,
            [
                "another firewall drops what docker0's containers send out and what comes to their published ports: table ip \
              filter, chain FORWARD, policy drop; to let it pass: iptables -I FORWARD -i docker0 -j ACCEPT && iptables -I \
              FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"
            ]
        );
        // What the remedy makes.
        let mended = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j \
                      ACCEPT\n-A FORWARD -i docker0 -j ACCEPT";
        assert_eq!(found(mended), [""; 0]);
        let rule = found(
            "*filter\n:FORWARD ACCEPT [0:0]\n:x - [0:0]\n-A FORWARD -o docker0 -j x\n-A x -m comment --comment \"a b\" -j REJECT --reject-with icmp-port-unreachable",
        );
        assert!(
            rule[0].contains("what comes to the published ports") && rule[0].contains("rule `-m comment"),
            "{rule:?}"
        );
        let ufw = found("*filter\n:FORWARD DROP [0:0]\n:ufw-before-forward - [0:0]\n-A FORWARD -j ufw-before-forward");
        assert!(ufw[0].ends_with("ufw route allow in on docker0 && ufw route allow out on docker0"), "{ufw:?}");
        assert_eq!(found("*mangle\n:FORWARD ACCEPT [0:0]\n-A FORWARD -i eth1 -j DROP"), [""; 0]);
    }

    #[test]
    fn what_comes_to_the_proxy() {
        let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        let port = |protocol, host_address: &str| PortMapping {
            protocol,
            host_address: host_address.parse().unwrap(),
            host_port: 10080,
            container_port: 80,
            mode: crate::PublishMode::Proxy,
        };
        let found = |text: &str, protocol, from| -> Vec<String> {
            let port = port(protocol, "0.0.0.0");
            let packet = Packet { from: Some(from), to: None, port: Some((protocol, 10080)), ..packets(None)[0] };
            let tables = saved(&lines(text), "iptables", false);
            tables.iter().flat_map(|table| table.input_obstacles(&packet, &port)).map(|one| one.to_string()).collect()
        };
        let policy =
            "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT";
        assert_eq!(
            found(policy, Protocol::Tcp, "eth0"),
            [
                "another firewall drops what comes to port 10080/tcp of this host, which minidock's proxy serves: table ip \
              filter, chain INPUT, policy drop; to let it pass: iptables -I INPUT -p tcp --dport 10080 -j ACCEPT"
            ]
        );
        assert_eq!(found(policy, Protocol::Tcp, "lo"), [""; 0]);
        let open = "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m multiport --dports 22,10000:10100 -j ACCEPT";
        assert_eq!(found(open, Protocol::Tcp, "eth0"), [""; 0]);
        assert_eq!(found(open, Protocol::Udp, "eth0").len(), 1);
        let rule = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 10080 -j DROP";
        assert!(found(rule, Protocol::Tcp, "eth0")[0].contains("rule `-p tcp -m tcp --dport 10080 -j DROP`"));
        for (text, fits) in [
            ("tcp dport 10080 drop", Fits::Yes),
            ("tcp dport { 22, 10000-10100 } accept", Fits::Yes),
            ("tcp dport != 22 drop", Fits::Yes),
            ("udp dport 10080 drop", Fits::No),
            ("tcp dport 22 drop", Fits::No),
            ("tcp dport @open accept", Fits::Perhaps),
        ] {
            let packet = Packet { port: Some((Protocol::Tcp, 10080)), ..packets(Some("eth0"))[0] };
            assert_eq!(nft(text, &packet).0, fits, "{text}");
        }
    }

    #[test]
    fn rules_of_nftables() {
        for (rule, sent, asked) in [
            ("drop", Fits::Yes, Fits::Yes),
            ("iifname \"docker0\" drop", Fits::Yes, Fits::No),
            ("iifname != \"docker0\" counter packets 0 bytes 0 drop", Fits::No, Fits::Yes),
            ("oifname { \"docker0\", \"eth9\" } reject", Fits::No, Fits::Yes),
            ("oifname \"dock*\" ct state established,related drop", Fits::No, Fits::No),
            ("ct status dnat drop", Fits::No, Fits::Yes),
            ("ct state new drop", Fits::Yes, Fits::Yes),
            ("tcp dport 80 drop", Fits::Perhaps, Fits::Perhaps),
            ("iifname @lan drop", Fits::Perhaps, Fits::Perhaps),
        ] {
            let [out, back] = packets(Some("eth0"));
            assert_eq!((nft(rule, &out), nft(rule, &back)), ((sent, Act::Drop), (asked, Act::Drop)), "{rule}");
        }
        assert_eq!(nft("oifname \"eth0\" drop", &packets(None)[0]).0, Fits::Perhaps);
    }
}
