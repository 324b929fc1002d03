//! nf_tables expressions → about the text that `nft list ruleset` prints. What isn't known is shown by its name.
//!
//! nft compiles a rule to loads into registers and comparisons of them; read backwards, each register holds the words for
//! what was loaded, and a comparison prints them with its value.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::nft::{Element, host_number};
use crate::netlink::{attribute, attributes, text_of};

/// Marks the end of an interval among the elements of a set.
pub(super) const INTERVAL_END: &str = "]";

/// What a value is, for printing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Address,
    Protocol,
    Port,
    Name,
    State,
    Status,
    Mark,
    KindOfRoute,
    Family,
    Verdict,
    Other,
}

/// The types of a set's key and data with their lengths in bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Types {
    key: Vec<(Type, usize)>,
    data: Vec<(Type, usize)>,
}

/// nft's numbers of types (enum datatypes), six bits each in a concatenation, and their lengths.
fn types_of(number: u32, length: usize) -> Vec<(Type, usize)> {
    if number == 0xffff_ff00 {
        return vec![(Type::Verdict, 16)];
    }
    let one = |number: u32| match number {
        7 => (Type::Address, 4),
        8 => (Type::Address, 16),
        9 => (Type::Other, 6),
        12 => (Type::Protocol, 1),
        13 => (Type::Port, 2),
        19 => (Type::Mark, 4),
        26 => (Type::State, 4),
        28 => (Type::Status, 4),
        41 => (Type::Name, 16),
        _ => (Type::Other, length),
    };
    let mut parts = Vec::new();
    let mut rest = number;
    while rest != 0 {
        parts.push(one(rest & 0x3f));
        rest >>= 6;
    }
    parts.reverse();
    parts
}

impl Types {
    pub fn of_set(set: &[u8]) -> Types {
        let number = |kind| attribute(set, kind).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        Types { key: types_of(number(4), number(5) as usize), data: types_of(number(6), number(7) as usize) }
    }
}

/// Sets by family, table and name: their types, and their elements in one line.
#[derive(Default)]
pub(super) struct Sets(BTreeMap<(u8, String, String), (Types, String)>);

impl Sets {
    pub fn note(&mut self, family: u8, table: &str, name: &str, types: &Types, elements: &[Element]) {
        let texts: Vec<String> = elements
            .iter()
            .filter(|element| element.data != INTERVAL_END)
            .map(|element| match element.data.is_empty() {
                true => element.key.clone(),
                false => format!("{} : {}", element.key, element.data),
            })
            .collect();
        self.0.insert((family, table.to_owned(), name.to_owned()), (types.clone(), texts.join(", ")));
    }
}

/// An element of a set.
pub(super) fn element(element: &[u8], types: &Types) -> Option<Element> {
    const INTERVAL: u32 = 1;
    let key = attribute(attribute(element, 1)?, 1)?;
    let flags = attribute(element, 3).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    let end = attribute(element, 10).and_then(|end| attribute(end, 1));
    let key = match end {
        Some(end) => format!("{}-{}", values(key, &types.key), values(end, &types.key)),
        None => values(key, &types.key),
    };
    let data = match attribute(element, 2) {
        _ if flags & INTERVAL != 0 => INTERVAL_END.to_owned(),
        Some(data) => match (attribute(data, 1), attribute(data, 2)) {
            (Some(bytes), _) => values(bytes, &types.data),
            (None, Some(bytes)) => verdict(bytes),
            _ => String::new(),
        },
        None => String::new(),
    };
    Some(Element { key, data, comment: attribute(element, 6).map(comment).unwrap_or_default() })
}

/// Sorts addresses and numbers as the kernel does.
pub(super) fn order(key: &str) -> (u128, String) {
    let number = match key.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => u128::from(address.to_bits()),
        Ok(IpAddr::V6(address)) => address.to_bits(),
        Err(_) => key.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0),
    };
    (number, key.to_owned())
}

/// `10.0.0.0` up to but without `10.1.0.0` is `10.0.0.0/16`.
pub(super) fn interval(first: &str, after: &str) -> String {
    match (first.parse::<Ipv4Addr>(), after.parse::<Ipv4Addr>()) {
        (Ok(first), Ok(after)) => {
            let size = after.to_bits().wrapping_sub(first.to_bits());
            match size.is_power_of_two() && first.to_bits() & (size - 1) == 0 {
                true => format!("{first}/{}", 32 - size.trailing_zeros()),
                false => format!("{first}-{}", Ipv4Addr::from_bits(after.to_bits().wrapping_sub(1))),
            }
        }
        _ => format!("{first}-<{after}"),
    }
}

/// The text of a comment in user data.
pub(super) fn comment(user_data: &[u8]) -> String {
    let mut rest = user_data;
    while let [kind, length, after @ ..] = rest {
        let value = after.get(..usize::from(*length)).unwrap_or(after);
        if *kind == 0 {
            return text_of(value);
        }
        rest = after.get(usize::from(*length)..).unwrap_or_default();
    }
    String::new()
}

fn values(bytes: &[u8], types: &[(Type, usize)]) -> String {
    let mut rest = bytes;
    let mut texts = Vec::new();
    for (one, length) in types {
        let taken = if types.len() > 1 { length.next_multiple_of(4) } else { rest.len() };
        let part = rest.get(..taken.min(rest.len())).unwrap_or_default();
        texts.push(value(part.get(..(*length).min(part.len())).unwrap_or_default(), *one));
        rest = rest.get(taken.min(rest.len())..).unwrap_or_default();
    }
    texts.join(" . ")
}

fn flags(bits: u32, names: &[(u32, &str)]) -> String {
    let words: Vec<&str> = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if words.is_empty() { format!("{bits:#x}") } else { words.join(",") }
}

/// NF_CT_STATE_BIT()s and IPS_*.
const STATES: &[(u32, &str)] = &[(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
const STATUSES: &[(u32, &str)] =
    &[(1, "expected"), (2, "seen-reply"), (4, "assured"), (8, "confirmed"), (16, "snat"), (32, "dnat")];

fn value(bytes: &[u8], one: Type) -> String {
    let hex = || bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"));
    match (one, bytes) {
        (Type::Address, _) => super::links::ip(bytes).map_or_else(hex, |address| address.to_string()),
        (Type::Port, [a, b]) => u16::from_be_bytes([*a, *b]).to_string(),
        (Type::Protocol, [number, ..]) => match number {
            1 => "icmp".to_owned(),
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            58 => "ipv6-icmp".to_owned(),
            132 => "sctp".to_owned(),
            other => other.to_string(),
        },
        (Type::Family, [family]) => match family {
            2 => "ipv4".to_owned(),
            10 => "ipv6".to_owned(),
            other => other.to_string(),
        },
        (Type::Name, _) => {
            let whole = bytes.contains(&0) || bytes.len() >= 16;
            format!("\"{}{}\"", text_of(bytes), if whole { "" } else { "*" })
        }
        (Type::State, _) => flags(host_number(bytes), STATES),
        (Type::Status, _) => flags(host_number(bytes), STATUSES),
        (Type::Mark, _) => format!("{:#x}", host_number(bytes)),
        (Type::KindOfRoute, _) => match host_number(bytes) {
            1 => "unicast".to_owned(),
            2 => "local".to_owned(),
            3 => "broadcast".to_owned(),
            5 => "multicast".to_owned(),
            other => other.to_string(),
        },
        (_, [number]) => number.to_string(),
        _ => hex(),
    }
}

fn verdict(bytes: &[u8]) -> String {
    let code = attribute(bytes, 1).and_then(|code| code.try_into().ok()).map_or(0, i32::from_be_bytes);
    let chain = attribute(bytes, 2).map(text_of).unwrap_or_default();
    match code {
        0 => "drop".to_owned(),
        1 => "accept".to_owned(),
        3 => "queue".to_owned(),
        -1 => "continue".to_owned(),
        -3 => format!("jump {chain}"),
        -4 => format!("goto {chain}"),
        -5 => "return".to_owned(),
        other => format!("verdict {other}"),
    }
}

/// What a register holds: words, type, whether a mask has been laid on it.
#[derive(Debug, Clone)]
struct Loaded {
    words: String,
    one: Type,
    mask: Option<Vec<u8>>,
}

/// One rule's text, and the names of the sets and maps that it looks into.
pub(super) fn rule(expressions: &[u8], family: u8, table: &str, sets: &Sets) -> (String, Vec<String>) {
    let mut reader = Reader { family, table, sets, registers: BTreeMap::new(), words: Vec::new(), looked: Vec::new() };
    for (_, expression) in attributes(expressions) {
        let name = attribute(expression, 1).map(text_of).unwrap_or_default();
        reader.read(&name, attribute(expression, 2).unwrap_or_default());
    }
    (reader.words.join(" "), reader.looked)
}

struct Reader<'a> {
    family: u8,
    table: &'a str,
    sets: &'a Sets,
    registers: BTreeMap<u32, Loaded>,
    words: Vec<String>,
    looked: Vec<String>,
}

/// Registers of 16 bytes are four words each, from word 8 on.
fn word(register: u32) -> u32 {
    if (1..=4).contains(&register) { 4 + register * 4 } else { register }
}

impl Reader<'_> {
    fn load(&mut self, register: u32, words: impl Into<String>, one: Type) {
        self.registers.insert(word(register), Loaded { words: words.into(), one, mask: None });
    }

    fn loaded(&self, register: u32) -> Loaded {
        let nothing = || Loaded { words: format!("reg {register}"), one: Type::Other, mask: None };
        self.registers.get(&word(register)).cloned().unwrap_or_else(nothing)
    }

    fn read(&mut self, name: &str, data: &[u8]) {
        let number = |kind| attribute(data, kind).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        let has = |kind| attribute(data, kind).is_some();
        let text = |kind| attribute(data, kind).map(text_of).unwrap_or_default();
        match name {
            "meta" if has(3) => {
                let what = meta(number(2)).0;
                let from = self.loaded(number(3)).words;
                self.words.push(format!("meta {what} set {from}"));
            }
            "meta" => {
                let (what, one) = meta(number(2));
                let plain = matches!(what, "iifname" | "oifname" | "iif" | "oif");
                self.load(number(1), if plain { what.to_owned() } else { format!("meta {what}") }, one);
            }
            "payload" if has(1) => self.payload(number(1), number(2), number(3), number(4)),
            "ct" if has(1) => {
                let (what, one) = match number(2) {
                    0 => ("ct state", Type::State),
                    1 => ("ct direction", Type::Other),
                    2 => ("ct status", Type::Status),
                    3 => ("ct mark", Type::Mark),
                    8 => ("ct original saddr", Type::Address),
                    9 => ("ct original daddr", Type::Address),
                    10 => ("ct original protocol", Type::Protocol),
                    12 => ("ct original proto-dst", Type::Port),
                    _ => ("ct …", Type::Other),
                };
                self.load(number(1), what, one);
            }
            "fib" => {
                let of = flags(number(3), &[(1, "saddr"), (2, "daddr"), (4, "mark"), (8, "iif"), (16, "oif")]);
                let (result, one) = match number(2) {
                    1 => ("oif", Type::Other),
                    2 => ("oifname", Type::Name),
                    _ => ("type", Type::KindOfRoute),
                };
                self.load(number(1), format!("fib {} {result}", of.replace(',', " . ")), one);
            }
            "bitwise" => {
                let mut loaded = self.loaded(number(1));
                loaded.mask = attribute(data, 4).and_then(|mask| attribute(mask, 1)).map(<[u8]>::to_vec);
                self.registers.insert(word(number(2)), loaded);
            }
            "cmp" => {
                let value = attribute(data, 3).and_then(|value| attribute(value, 1)).unwrap_or_default();
                self.compare(number(1), number(2), value);
            }
            "range" => {
                let loaded = self.loaded(number(1));
                let bound = |kind| {
                    let bytes = attribute(data, kind).and_then(|bound| attribute(bound, 1)).unwrap_or_default();
                    value(bytes, loaded.one)
                };
                self.words.push(format!("{} {}{}-{}", loaded.words, not(number(2)), bound(3), bound(4)));
            }
            "lookup" => self.look_up(&text(1), number(2), has(3).then(|| number(3)), number(5) & 1 != 0),
            "immediate" => match attribute(data, 2) {
                Some(bytes) if attribute(bytes, 2).is_some() => {
                    self.words.push(verdict(attribute(bytes, 2).unwrap_or_default()));
                }
                Some(bytes) => {
                    let bytes = attribute(bytes, 1).unwrap_or_default();
                    let one = match bytes.len() {
                        4 | 16 => Type::Address,
                        2 => Type::Port,
                        _ => Type::Other,
                    };
                    self.load(number(1), value(bytes, one), one);
                }
                None => {}
            },
            "nat" => {
                let mut to = if has(3) { self.loaded(number(3)).words } else { String::new() };
                if has(5) && self.registers.contains_key(&word(number(5))) {
                    to = format!("{to}:{}", self.loaded(number(5)).words);
                }
                self.words.push(format!("{} to {to}", if number(1) == 0 { "snat" } else { "dnat" }));
            }
            "masq" => self.words.push("masquerade".to_owned()),
            "redir" => {
                let to = if has(1) { format!(" to :{}", self.loaded(number(1)).words) } else { String::new() };
                self.words.push(format!("redirect{to}"));
            }
            "reject" => self.words.push("reject".to_owned()),
            "counter" => {}
            "log" => self.words.push(match has(2) {
                true => format!("log prefix \"{}\"", text(2)),
                false => "log".to_owned(),
            }),
            "match" => self.words.push(format!("xt match \"{}\"", text(1))),
            "target" => self.words.push(format!("xt target \"{}\"", text(1))),
            other => self.words.push(other.to_owned()),
        }
    }

    fn payload(&mut self, register: u32, base: u32, offset: u32, length: u32) {
        // In table inet `ip saddr` is compiled with a look at the family before it, which nft doesn't print.
        if base == 1 && self.words.last().is_some_and(|last| last.starts_with("meta nfproto ")) {
            self.words.pop();
        }
        let (words, one) = match (base, offset, length) {
            (1, 12, 1..=4) => ("ip saddr".to_owned(), Type::Address),
            (1, 16, 1..=4) => ("ip daddr".to_owned(), Type::Address),
            (1, 8, 5..=16) => ("ip6 saddr".to_owned(), Type::Address),
            (1, 24, 5..=16) => ("ip6 daddr".to_owned(), Type::Address),
            (1, 9, 1) => ("ip protocol".to_owned(), Type::Protocol),
            (1, 6, 1) => ("ip6 nexthdr".to_owned(), Type::Protocol),
            (1, 8, 1) => ("ip ttl".to_owned(), Type::Other),
            (2, 0, 2) | (2, 2, 2) => {
                // `meta l4proto tcp` before a port is `tcp dport` in nft's words.
                let before = self.words.last().and_then(|last| protocol_of(last));
                let of = match before {
                    Some(protocol) if self.words.last().is_some_and(|last| last.starts_with("meta")) => {
                        self.words.pop();
                        protocol
                    }
                    _ => self.words.iter().rev().find_map(|one| protocol_of(one)).unwrap_or_else(|| "th".to_owned()),
                };
                (format!("{of} {}", if offset == 0 { "sport" } else { "dport" }), Type::Port)
            }
            (0, 0, 6) => ("ether daddr".to_owned(), Type::Other),
            (0, 6, 6) => ("ether saddr".to_owned(), Type::Other),
            (2, 13, 1) => ("tcp flags".to_owned(), Type::Other),
            (2, 0, 1) => ("icmp type".to_owned(), Type::Other),
            _ => (
                format!("@{},{},{}", ["ll", "nh", "th"].get(base as usize).unwrap_or(&"?"), offset * 8, length * 8),
                Type::Other,
            ),
        };
        self.load(register, words, one);
    }

    fn compare(&mut self, register: u32, operator: u32, bytes: &[u8]) {
        let loaded = self.loaded(register);
        let with_mask = |mask: &[u8]| match (loaded.one, mask.len()) {
            (Type::State, _) => {
                let bits = host_number(mask);
                (operator == 1 && bytes.iter().all(|byte| *byte == 0))
                    .then(|| format!("ct state {}", flags(bits, STATES)))
            }
            (Type::Status, _) => Some(format!("ct status {}", flags(host_number(mask), STATUSES))),
            (Type::Address, 4 | 16) => {
                let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
                Some(format!("{} {}{}/{ones}", loaded.words, not(operator), value(bytes, Type::Address)))
            }
            _ => None,
        };
        let text = match &loaded.mask {
            Some(mask) => with_mask(mask).unwrap_or_else(|| {
                format!(
                    "{} & {} {} {}",
                    loaded.words,
                    value(mask, Type::Other),
                    sign(operator),
                    value(bytes, loaded.one)
                )
            }),
            // An address that is compared in its first bytes only.
            None if loaded.one == Type::Address && bytes.len() < 4 => {
                let mut whole = bytes.to_vec();
                whole.resize(4, 0);
                format!("{} {}{}/{}", loaded.words, not(operator), value(&whole, Type::Address), bytes.len() * 8)
            }
            None if operator > 1 => format!("{} {} {}", loaded.words, sign(operator), value(bytes, loaded.one)),
            None => format!("{} {}{}", loaded.words, not(operator), value(bytes, loaded.one)),
        };
        self.words.push(text);
    }

    fn look_up(&mut self, set: &str, source: u32, destination: Option<u32>, inverted: bool) {
        let known = self.sets.0.get(&(self.family, self.table.to_owned(), set.to_owned()));
        let count = known.map_or(1, |(types, _)| types.key.len().max(1));
        let mut at = word(source);
        let mut parts = Vec::new();
        for number in 0..count {
            parts.push(self.registers.get(&at).map_or_else(|| "…".to_owned(), |loaded| loaded.words.clone()));
            let length = known.and_then(|(types, _)| types.key.get(number)).map_or(4, |(_, length)| *length);
            at += length.div_ceil(4) as u32;
        }
        let of = match (set.starts_with("__"), known) {
            (true, Some((_, elements))) => format!("{{ {elements} }}"),
            _ => {
                self.looked.push(set.to_owned());
                format!("@{set}")
            }
        };
        let of_data = known.and_then(|(types, _)| types.data.first()).map_or(Type::Other, |(one, _)| *one);
        match destination {
            Some(0) => self.words.push(format!("{} vmap {of}", parts.join(" . "))),
            Some(register) => {
                // A port in the second word is part of the same data.
                self.registers.remove(&(word(register) + 1));
                self.load(register, format!("{} map {of}", parts.join(" . ")), of_data);
            }
            None => self.words.push(format!("{} {}{of}", parts.join(" . "), if inverted { "!= " } else { "" })),
        }
    }
}

fn protocol_of(word: &str) -> Option<String> {
    let rest = word.strip_prefix("ip protocol ").or_else(|| word.strip_prefix("meta l4proto "))?;
    matches!(rest, "tcp" | "udp" | "sctp").then(|| rest.to_owned())
}

fn not(operator: u32) -> &'static str {
    if operator == 1 { "!= " } else { "" }
}

fn sign(operator: u32) -> &'static str {
    ["==", "!=", "<", "<=", ">", ">="].get(operator as usize).copied().unwrap_or("?")
}

/// NFT_META_*
fn meta(key: u32) -> (&'static str, Type) {
    match key {
        3 => ("mark", Type::Mark),
        4 => ("iif", Type::Other),
        5 => ("oif", Type::Other),
        6 => ("iifname", Type::Name),
        7 => ("oifname", Type::Name),
        10 => ("skuid", Type::Other),
        12 => ("nftrace", Type::Other),
        2 => ("priority", Type::Other),
        15 => ("nfproto", Type::Family),
        16 => ("l4proto", Type::Protocol),
        17 => ("ibrname", Type::Name),
        18 => ("obrname", Type::Name),
        19 => ("pkttype", Type::Other),
        23 => ("cgroup", Type::Other),
        _ => ("…", Type::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_subnets_where_they_can_be() {
        assert_eq!(interval("172.17.0.0", "172.18.0.0"), "172.17.0.0/16");
        assert_eq!(interval("10.0.0.5", "10.0.0.9"), "10.0.0.5-10.0.0.8");
        assert_eq!(interval("0.0.0.0", "0.0.0.0"), "0.0.0.0-255.255.255.255");
    }

    #[test]
    fn values_are_printed_as_nft_does() {
        assert_eq!(value(&6_u32.to_ne_bytes(), Type::State), "established,related");
        assert_eq!(value(b"docker0\0\0\0\0\0\0\0\0\0", Type::Name), "\"docker0\"");
        assert_eq!(value(b"veth", Type::Name), "\"veth*\"");
        assert_eq!(value(&[0x27, 0x60], Type::Port), "10080");
        assert_eq!(types_of(12 << 6 | 13, 8), [(Type::Protocol, 1), (Type::Port, 2)]);
        assert_eq!(comment(&[1, 1, 9, 0, 4, b'w', b'e', b'b', 0]), "web");
    }

    #[test]
    fn damaged_expressions_end_the_reading_without_a_panic() {
        for length in 0..64 {
            let bytes: Vec<u8> = (0..length).map(|byte: u8| byte.wrapping_mul(37)).collect();
            let _ = rule(&bytes, 2, "t", &Sets::default());
            let _ = element(&bytes, &Types::default());
            let _ = comment(&bytes);
        }
    }
}
