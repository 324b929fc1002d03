//! What the own nftables table holds: the facts before a plan, and the removal after it.

use super::docker;
use super::element::Element;
use super::encode::{self, Family, Table};
use super::nftables::{explain_failure, families, network_elements};
use super::ruleset::{Chain, chains, sets, uses, write_table};
use crate::host::Host;
use crate::netlink::{Answer, Batch, Failure, Netlink, attribute, attributes, text_of};
use crate::undo::Undone;
use crate::{Network, Result, survey};

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

/// What of the tables is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Those that the network needs.
    pub tables: Vec<TableFacts>,
}

/// What of one table is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    /// IPv4, IPv6 or bridges.
    pub family: Family,
    /// The table, its chains and rules.
    pub state: TableState,
    /// What it lacks of the network.
    pub missing: Vec<Element>,
}

impl TableFacts {
    /// Of a table that isn't there.
    pub fn nothing(network: &Network, family: Family) -> TableFacts {
        TableFacts { family, state: TableState::Missing, missing: network_elements(network, family) }
    }
}

/// One sendmsg with a question for each table, each chain and each element of the network: cheaper than to list the
/// rules, and enough, since a chain tells how many rules it has.
///
/// Also whether dockerd has a chain for its users in one of those families, which costs no question of its own.
pub(crate) fn read(netlink: &mut Netlink, network: &Network, families: &[Family]) -> Result<(Vec<TableFacts>, bool)> {
    const NFTA_TABLE_USE: u16 = 3;
    let mut batch = Batch::default();
    let mut asked = Vec::new();
    for family in families {
        let mut table = Table { batch: &mut batch, name: &network.table, family: *family };
        let first = table.table(encode::GETTABLE, 0);
        let chains = chains(*family, &network.table);
        for chain in &chains {
            table.chain(encode::GETCHAIN, 0, chain.name);
        }
        let elements = network_elements(network, *family);
        for element in &elements {
            element.encoded(None).iter().take(1).for_each(|encoded| {
                table.element(encode::GETSETELEM, 0, encoded);
            });
        }
        asked.push((*family, first, chains, elements));
    }
    let users: Vec<usize> = families.iter().filter_map(|family| docker::ask(&mut batch, *family)).collect();
    let (answers, failures) =
        netlink.exchange(&batch).map_err(|failure| failure.into_error("read the nftables tables"))?;
    if let Some(failure) = failures.into_iter().find(|failure| failure.errno != libc::ENOENT) {
        return Err(explain_failure(failure, Family::Ip, &network.table));
    }
    let answer = |index: usize| answers.iter().find(|answer| answer.index == index);
    let facts = |(family, first, chains, elements): (Family, usize, Vec<Chain>, Vec<Element>)| {
        let whole_chain = |(index, chain): (usize, &Chain)| {
            answer(first + 1 + index).is_some_and(|answer| used(answer, NFTA_CHAIN_USE) == uses(&chains, chain))
        };
        let state = match answer(first) {
            None => TableState::Missing,
            Some(table)
                if used(table, NFTA_TABLE_USE) >= chains.len() + sets(family).len()
                    && chains.iter().enumerate().all(whole_chain) =>
            {
                TableState::Whole
            }
            Some(_) => TableState::Broken,
        };
        let missing = |(index, _): &(usize, Element)| answer(first + 1 + chains.len() + index).is_none();
        let missing = elements.into_iter().enumerate().filter(missing).map(|(_, element)| element).collect();
        TableFacts { family, state, missing }
    };
    let docker = users.into_iter().any(|index| answer(index).is_some());
    Ok((asked.into_iter().map(facts).collect(), docker))
}

/// As [`read`], of the tables that the network needs. Where the first one isn't there yet, an error tells whether this
/// kernel can have it at all.
pub(super) fn read_usable(host: &mut Host, network: &Network) -> Result<(Vec<TableFacts>, bool)> {
    let families: Vec<Family> = families(network).collect();
    let netlink = host.netfilter()?;
    let found = read(netlink, network, &families)?;
    if let Some(first) = found.0.first().filter(|first| first.state == TableState::Missing) {
        try_table(netlink, first.family, &network.table)
            .map_err(|failure| explain_failure(failure, first.family, &network.table))?;
    }
    Ok(found)
}

/// NFTA_CHAIN_USE
pub(super) const NFTA_CHAIN_USE: u16 = 6;

/// How often something is used, as an answer tells it.
pub(super) fn used(answer: &Answer, kind: u16) -> usize {
    let value = answer.payload.get(4..).and_then(|body| attribute(body, kind));
    value.and_then(|value| value.try_into().ok()).map_or(0, u32::from_be_bytes) as usize
}

/// What of the table that judges containers' frames is there; none when this kernel can't have one.
pub(crate) fn read_guard(netlink: &mut Netlink, network: &Network) -> Option<TableFacts> {
    let facts = read(netlink, network, &[Family::Bridge]).ok()?.0.pop()?;
    (facts.state == TableState::Whole || bridges_can_be_guarded(netlink, &network.table)).then_some(facts)
}

/// Whether this kernel has nftables for frames on bridges.
pub(crate) fn bridges_can_be_guarded(netlink: &mut Netlink, table: &str) -> bool {
    try_table(netlink, Family::Bridge, table).is_ok()
}

/// Whether this kernel can have the table: tried in a transaction without its end, which the kernel only checks.
fn try_table(netlink: &mut Netlink, family: Family, name: &str) -> std::result::Result<(), Failure> {
    let mut batch = Batch::default();
    let mut table = Table { batch: &mut batch, name, family };
    table.begin();
    write_table(&mut table, libc::NLM_F_CREATE as u16);
    let (_, failures) = netlink.exchange(&batch)?;
    failures.into_iter().next().map_or(Ok(()), Err)
}

/// Removes the table, unless another network still is in it.
pub(crate) fn undo_table(netlink: &mut Netlink, family: Family, name: &str) -> Result<Undone> {
    let what = || format!("remove the nftables table {} {name}", family.name());
    // Frames are judged as long as a card is known.
    let sets: &[&str] = if family == Family::Bridge { &["senders", "senders6"] } else { &["bridges"] };
    let mut links: Vec<String> = Vec::new();
    for set in sets {
        let mut batch = Batch::default(); // a socket carries out one dump at a time
        Table { batch: &mut batch, name, family }.elements(set);
        let (answers, failures) = netlink.exchange(&batch).map_err(|failure| failure.into_error(what()))?;
        match failures.into_iter().next() {
            Some(failure) if failure.errno != libc::ENOENT => return Err(failure.into_error(what())),
            _ => {}
        }
        links.extend(answers.iter().flat_map(elements_of).map(|(key, _)| text_of(key.get(..16).unwrap_or(&key))));
    }
    if !links.is_empty() {
        let family = family.name();
        return Ok(Undone::NotOurs(format!("the nftables table {family} {name} still serves {}", links.join(", "))));
    }
    let mut batch = Batch::default();
    let mut table = Table { batch: &mut batch, name, family };
    table.begin();
    table.table(encode::DELTABLE, 0);
    table.end();
    match netlink.send(&batch) {
        Ok(()) => Ok(Undone::Removed),
        Err(failure) if failure.errno == libc::ENOENT => Ok(Undone::NotThere),
        Err(failure) => Err(failure.into_error(what())),
    }
}

/// include/uapi/linux/netlink.h, NLM_F_NONREC: not what is in it.
const NONREC: u16 = 0x100;

/// Whether a chain is one that iptables-nft makes with its table, and empty: by its name, kind, hook and priority
/// (iptables/nft.c, xtables_ipv4), since a table of such a name may be the user's own.
fn is_bare(chain: &survey::Chain) -> bool {
    let hook = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].contains(&chain.name.as_str())
        && chain.hook == chain.name.to_ascii_lowercase();
    let kind = match (chain.table.as_str(), chain.hook) {
        ("nat", _) => "nat",
        ("mangle", "output") => "route",
        _ => "filter",
    };
    // Not the kernel's own number for `security`: that is 50.
    let priority = match (chain.table.as_str(), chain.hook) {
        ("raw", "prerouting" | "output") => Some(-300),
        ("mangle", _) => Some(-150),
        ("nat", "prerouting" | "output") => Some(-100),
        ("filter", "input" | "forward" | "output") => Some(0),
        ("nat", "input" | "postrouting") => Some(100),
        ("security", "input" | "forward" | "output") => Some(150),
        _ => None,
    };
    hook && chain.kind == kind && priority == Some(chain.priority) && chain.rules.is_empty() && !chain.drops
}

/// Removes a table of iptables-nft in which nobody has anything: only built-in chains, without rules, that let everything
/// through. The kernel refuses when something has come since the look.
pub(crate) fn undo_empty(netlink: &mut Netlink, family: Family, name: &str) -> Result<Undone> {
    let what = || format!("remove the empty table {} {name} of iptables", family.name());
    let rules = survey::rules(netlink)?;
    let its = |of: &str, table: &str| of == family.name() && table == name;
    let chains: Vec<_> = rules.chains.iter().filter(|chain| its(chain.family, &chain.table)).collect();
    if chains.is_empty() {
        return Ok(Undone::NotThere); // or a table that isn't of iptables-nft
    }
    let in_use = || Undone::NotOurs(format!("the table {name} of iptables is in use"));
    if !chains.iter().all(|chain| is_bare(chain)) || rules.maps.iter().any(|map| its(map.family, &map.table)) {
        return Ok(in_use());
    }
    let mut batch = Batch::default();
    let mut table = Table { batch: &mut batch, name, family };
    table.begin();
    for chain in &chains {
        table.chain(encode::DELCHAIN, NONREC, &chain.name);
    }
    table.table(encode::DELTABLE, NONREC);
    table.end();
    match netlink.send(&batch) {
        Ok(()) => Ok(Undone::Removed),
        Err(failure) if failure.errno == libc::ENOENT => Ok(Undone::NotThere),
        Err(failure) if failure.errno == libc::EBUSY => Ok(in_use()),
        Err(failure) => Err(failure.into_error(what())),
    }
}

/// Removes those of the elements that are there and still ours: one question, one transaction for all.
pub(crate) fn undo_elements(netlink: &mut Netlink, family: Family, name: &str, elements: &[Element]) -> Result<Undone> {
    let what = || format!("remove elements from the nftables table {} {name}", family.name());
    let encoded: Vec<Vec<encode::Element>> = elements.iter().map(|element| element.encoded(None)).collect();
    let answers = ask(netlink, family, name, &encoded).map_err(|failure| failure.into_error(what()))?;

    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for (index, element) in elements.iter().enumerate() {
        let Some(answer) = &answers[index] else {
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
        delete(netlink, family, name, &ours).map_err(|failure| failure.into_error(what()))?;
    }
    Ok(match (others.is_empty(), ours.is_empty()) {
        (false, _) => {
            let family = family.name();
            Undone::NotOurs(format!("the nftables table {family} {name} leads elsewhere: {}", others.join(", ")))
        }
        (true, true) => Undone::NotThere,
        (true, false) => Undone::Removed,
    })
}

/// Adds those of the elements that aren't there: one question, one transaction for all. Gives back how many.
pub(crate) fn add_missing(
    netlink: &mut Netlink,
    family: Family,
    name: &str,
    elements: &[Element],
    comment: &str,
) -> Result<usize> {
    let what = || format!("bring back elements of the nftables table {} {name}", family.name());
    let (missing, encoded) = missing_of(netlink, family, name, elements, comment)?;
    if missing.is_empty() {
        return Ok(0);
    }
    let mut batch = Batch::default();
    let mut table = Table { batch: &mut batch, name, family };
    table.begin();
    for index in &missing {
        for element in &encoded[*index] {
            table.element(encode::NEWSETELEM, libc::NLM_F_CREATE as u16, element);
        }
    }
    table.end();
    match netlink.send(&batch) {
        // Another container has the port by now: its owner will be told when this one is restarted.
        Err(failure) if failure.errno == libc::EEXIST => Ok(0),
        Err(failure) => Err(failure.into_error(what())),
        Ok(()) => Ok(missing.len()),
    }
}

/// What the kernel has of each of the elements; none of those that aren't there.
fn ask(
    netlink: &mut Netlink,
    family: Family,
    name: &str,
    elements: &[Vec<encode::Element>],
) -> std::result::Result<Vec<Option<Answer>>, Failure> {
    let mut found = Vec::with_capacity(elements.len());
    // All answers to a question wait in the socket's receive buffer, of which a small message takes about 800 bytes; the
    // comments in them may be longer.
    for chunk in elements.chunks(64) {
        let mut question = Batch::default();
        let mut table = Table { batch: &mut question, name, family };
        chunk.iter().flat_map(|parts| parts.first()).for_each(|start| {
            table.element(encode::GETSETELEM, 0, start);
        });
        let (answers, failures) = netlink.exchange(&question)?;
        if let Some(failure) = failures.into_iter().find(|failure| failure.errno != libc::ENOENT) {
            return Err(failure);
        }
        let first = found.len();
        found.resize_with(first + chunk.len(), || None);
        for answer in answers {
            let index = first + answer.index;
            if let Some(place) = found.get_mut(index) {
                *place = Some(answer);
            }
        }
    }
    Ok(found)
}

/// The indexes of the elements that aren't there, and all of them encoded.
fn missing_of(
    netlink: &mut Netlink,
    family: Family,
    name: &str,
    elements: &[Element],
    comment: &str,
) -> Result<(Vec<usize>, Vec<Vec<encode::Element>>)> {
    let marked = |element: &Element| {
        let port = matches!(element, Element::Port { .. } | Element::Span { .. });
        element.encoded(port.then_some(comment))
    };
    let encoded: Vec<Vec<encode::Element>> = elements.iter().map(marked).collect();
    let answers = ask(netlink, family, name, &encoded).map_err(|failure| failure.into_error("look for elements"))?;
    let missing = (0..encoded.len()).filter(|index| answers[*index].is_none()).collect();
    Ok((missing, encoded))
}

/// Deletes in one transaction; one by one when a part was gone already.
fn delete(
    netlink: &mut Netlink,
    family: Family,
    name: &str,
    elements: &[&encode::Element],
) -> std::result::Result<(), Failure> {
    let mut batch = Batch::default();
    let mut table = Table { batch: &mut batch, name, family };
    table.begin();
    for element in elements {
        table.element(encode::DELSETELEM, 0, element);
    }
    table.end();
    match netlink.send(&batch) {
        Err(failure) if failure.errno == libc::ENOENT && elements.len() > 1 => {
            elements.iter().try_for_each(|element| delete(netlink, family, name, &[element]))
        }
        Err(failure) if failure.errno == libc::ENOENT => Ok(()),
        result => result,
    }
}

/// Key and data of each element in an NFT_MSG_NEWSETELEM.
fn elements_of(answer: &Answer) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
    const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
    let list =
        answer.payload.get(4..).and_then(|body| attribute(body, NFTA_SET_ELEM_LIST_ELEMENTS)).unwrap_or_default();
    let value =
        |element: &[u8], kind| attribute(element, kind).and_then(|nested| attribute(nested, 1)).map(<[u8]>::to_vec);
    attributes(list).map(move |(_, element)| (value(element, 1).unwrap_or_default(), value(element, 2)))
}
