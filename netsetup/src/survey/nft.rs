//! All of nftables in one namespace: chains with their hooks, rules as text, sets and maps with their elements. What
//! iptables-nft has made is among it.
//!
//! Numbers: include/uapi/linux/netfilter/nf_tables.h

use serde::Serialize;

use super::nft_text::{self, Sets};
use crate::Result;
use crate::netlink::{Answer, Batch, Netlink, attribute, attributes, text_of, u32_at};

/// A chain.
#[derive(Debug, Clone, Serialize)]
pub struct Chain {
    /// `ip`, `ip6`, `inet`, `bridge`, …
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// `nat`, `filter`, `route`; empty for one that the kernel doesn't call.
    pub kind: String,
    /// `prerouting`, …; empty for one that the kernel doesn't call.
    pub hook: &'static str,
    /// Its place among the chains of the hook.
    pub priority: i32,
    /// Whether what falls through it is dropped.
    pub drops: bool,
    /// In order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Debug, Clone, Serialize)]
pub struct Rule {
    /// The number that `nft -a` shows.
    pub handle: u64,
    /// About as nft writes it.
    pub text: String,
    /// The note of who made it.
    pub comment: String,
    /// Maps and sets that it looks into.
    pub looks_into: Vec<String>,
}

/// A set or map with a name.
#[derive(Debug, Clone, Serialize)]
pub struct Map {
    /// Its family.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Its elements.
    pub elements: Vec<Element>,
}

/// An element.
#[derive(Debug, Clone, Serialize)]
pub struct Element {
    /// As nft writes it: `tcp . 10080`
    pub key: String,
    /// What a map has for it: `172.17.0.2 . 80`; empty in a set.
    pub data: String,
    /// The note of who made it.
    pub comment: String,
}

/// All of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rules {
    /// All chains.
    pub chains: Vec<Chain>,
    /// Sets and maps with a name.
    pub maps: Vec<Map>,
}

impl Rules {
    /// Whether some of this family (`ip`, `ip6`) looks like the work of iptables-nft.
    pub fn of_iptables(&self, family: &str) -> bool {
        self.chains.iter().any(|chain| chain.family == family && chain.of_iptables())
    }

    /// The chain of this name.
    pub fn chain(&self, family: &str, table: &str, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.family == family && chain.table == table && chain.name == name)
    }

    /// The map or set of this name.
    pub fn map(&self, family: &str, table: &str, name: &str) -> Option<&Map> {
        self.maps.iter().find(|map| map.family == family && map.table == table && map.name == name)
    }
}

impl Chain {
    /// Whether it is in one of the tables that iptables-nft keeps.
    pub fn of_iptables(&self) -> bool {
        matches!(self.family, "ip" | "ip6")
            && matches!(self.table.as_str(), "filter" | "nat" | "mangle" | "raw" | "security")
    }
}

const SUBSYSTEM: u16 = 10 << 8;
const GETCHAIN: u16 = 4;
const GETRULE: u16 = 7;
const GETSET: u16 = 10;
const GETSETELEM: u16 = 13;

/// nfgenmsg comes first in each message.
fn body(answer: &Answer) -> &[u8] {
    answer.payload.get(4..).unwrap_or_default()
}

pub(crate) fn family_name(family: u8) -> &'static str {
    match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "?",
    }
}

/// NF_INET_*, and those of the families that have others.
fn hook_name(family: u8, hook: u32) -> &'static str {
    match (family, hook) {
        (5, 0) | (1, 5) => "ingress",
        (5, 1) => "egress",
        (_, 0) => "prerouting",
        (_, 1) => "input",
        (_, 2) => "forward",
        (_, 3) => "output",
        (_, 4) => "postrouting",
        _ => "?",
    }
}

/// A number in network byte order.
fn number(bytes: Option<&[u8]>) -> u32 {
    bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// Reads everything; nothing where the kernel lacks nftables.
pub(crate) fn read(netfilter: &mut Netlink) -> Result<Rules> {
    let mut dump = |kind: u16, family: u8, rest: &[u8]| -> Vec<Answer> {
        let mut batch = Batch::default();
        batch.push(SUBSYSTEM | kind, libc::NLM_F_DUMP as u16, |out| {
            out.extend_from_slice(&[family, 0, 0, 0]);
            out.extend_from_slice(rest);
        });
        netfilter.exchange(&batch).map(|(answers, _)| answers).unwrap_or_default()
    };
    let mut chains: Vec<Chain> = dump(GETCHAIN, 0, &[]).iter().map(chain).collect();
    let mut sets = Sets::default();
    let found: Vec<(u8, String, String, Vec<u8>)> = dump(GETSET, 0, &[])
        .iter()
        .map(|answer| {
            let text = |kind| attribute(body(answer), kind).map(text_of).unwrap_or_default();
            (answer.payload.first().copied().unwrap_or(0), text(1), text(2), body(answer).to_vec())
        })
        .collect();
    let mut maps = Vec::new();
    for (family, table, name, set) in found {
        let mut names = Vec::new();
        crate::firewall::messages::text(&mut names, 1, &table);
        crate::firewall::messages::text(&mut names, 2, &name);
        let types = nft_text::Types::of_set(&set);
        let elements: Vec<Element> = dump(GETSETELEM, family, &names)
            .iter()
            .filter_map(|answer| attribute(body(answer), 3))
            .flat_map(attributes)
            .filter_map(|(_, element)| nft_text::element(element, &types))
            .collect();
        sets.note(family, &table, &name, &types, &elements);
        if !name.starts_with("__") {
            maps.push(Map { family: family_name(family), table, name, elements: join_intervals(elements) });
        }
    }
    for answer in dump(GETRULE, 0, &[]) {
        let text = |kind| attribute(body(&answer), kind).map(text_of).unwrap_or_default();
        let family = answer.payload.first().copied().unwrap_or(0);
        let (table, name) = (text(1), text(2));
        let handle = attribute(body(&answer), 3).and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes);
        let expressions = attribute(body(&answer), 4).unwrap_or_default();
        let (rule, looks_into) = nft_text::rule(expressions, family, &table, &sets);
        let comment = attribute(body(&answer), 7).map(nft_text::comment).unwrap_or_default();
        if let Some(chain) = chains
            .iter_mut()
            .find(|chain| chain.family == family_name(family) && chain.table == table && chain.name == name)
        {
            chain.rules.push(Rule { handle, text: rule, comment, looks_into });
        }
    }
    Ok(Rules { chains, maps })
}

/// About how many rules there are, from the chains alone (NFTA_CHAIN_USE, which counts jumps to a chain, too).
pub(crate) fn count(netfilter: &mut Netlink) -> usize {
    let mut batch = Batch::default();
    batch.push(SUBSYSTEM | GETCHAIN, libc::NLM_F_DUMP as u16, |out| out.extend_from_slice(&[0; 4]));
    let chains = netfilter.exchange(&batch).map(|(answers, _)| answers).unwrap_or_default();
    chains.iter().map(|chain| number(attribute(body(chain), 6)) as usize).sum()
}

fn chain(answer: &Answer) -> Chain {
    let family = answer.payload.first().copied().unwrap_or(0);
    let text = |kind| attribute(body(answer), kind).map(text_of).unwrap_or_default();
    let hook = attribute(body(answer), 4);
    Chain {
        family: family_name(family),
        table: text(1),
        name: text(3),
        kind: text(7),
        hook: hook.map_or("", |hook| hook_name(family, number(attribute(hook, 1)))),
        priority: hook.map_or(0, |hook| number(attribute(hook, 2)) as i32),
        drops: attribute(body(answer), 5).is_some_and(|policy| number(Some(policy)) == 0),
        rules: Vec::new(),
    }
}

/// The kernel gives an interval as its first element and one, marked, that comes after its last.
fn join_intervals(elements: Vec<Element>) -> Vec<Element> {
    if !elements.iter().any(|element| element.data == nft_text::INTERVAL_END) {
        return elements;
    }
    let mut sorted = elements;
    sorted.sort_by_key(|element| nft_text::order(&element.key));
    let mut joined: Vec<Element> = Vec::new();
    for element in sorted {
        match joined.last_mut() {
            Some(start) if element.data == nft_text::INTERVAL_END => {
                start.key = nft_text::interval(&start.key, &element.key);
            }
            _ if element.data == nft_text::INTERVAL_END => {}
            _ => joined.push(element),
        }
    }
    joined
}

/// A u32 in the host's byte order.
pub(super) fn host_number(bytes: &[u8]) -> u32 {
    match bytes.len() {
        4.. => u32_at(bytes, 0),
        _ => bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)),
    }
}
