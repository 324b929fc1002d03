//! What the own nftables table holds: the facts before a plan, and the removal after it.

use super::encode::{self, Table};
use super::nftables::{Element, explain_failure, network_elements};
use super::ruleset::{CHAINS, Chain, FAMILY, SETS};
use crate::netlink::{Answer, Batch, Failure, Netlink, attribute, attributes, text_of};
use crate::undo::Undone;
use crate::{Network, Result};

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
    /// What the table lacks of the network.
    pub missing: Vec<Element>,
}

impl Facts {
    /// One sendmsg with a question for the table, each chain and each element of the network: cheaper than to list the
    /// rules, and enough, since a chain tells how many rules it has.
    pub(crate) fn read(netlink: &mut Netlink, network: &Network) -> Result<Facts> {
        const NFTA_TABLE_USE: u16 = 3;
        const NFTA_CHAIN_USE: u16 = 6;
        let mut batch = Batch::default();
        let mut table = Table { batch: &mut batch, name: &network.table };
        table.table(encode::GETTABLE, 0);
        for chain in &CHAINS {
            table.chain(encode::GETCHAIN, 0, chain.name);
        }
        let elements = network_elements(network);
        for element in &elements {
            element.encoded(None).iter().take(1).for_each(|encoded| {
                table.element(encode::GETSETELEM, 0, encoded);
            });
        }
        let (answers, failures) =
            netlink.exchange(&batch).map_err(|failure| failure.into_error("read the nftables table"))?;
        if let Some(failure) = failures.into_iter().find(|failure| failure.errno != libc::ENOENT) {
            return Err(explain_failure(failure, &network.table));
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
            answer(index + 1).is_some_and(|answer| used(answer, NFTA_CHAIN_USE) as usize == chain.uses())
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
        let missing = |(index, _): &(usize, Element)| answer(1 + CHAINS.len() + index).is_none();
        let missing = elements.into_iter().enumerate().filter(missing).map(|(_, element)| element).collect();
        Ok(Facts { table: state, missing })
    }
}

/// Removes the table, unless another network still is in it.
pub(crate) fn undo_table(netlink: &mut Netlink, name: &str) -> Result<Undone> {
    let mut batch = Batch::default();
    Table { batch: &mut batch, name }.elements("bridges");
    let what = || format!("remove the nftables table {FAMILY} {name}");
    let (answers, failures) = netlink.exchange(&batch).map_err(|failure| failure.into_error(what()))?;
    match failures.into_iter().next() {
        Some(failure) if failure.errno != libc::ENOENT => return Err(failure.into_error(what())),
        _ => {}
    }
    let bridges: Vec<String> = answers.iter().flat_map(elements_of).map(|(key, _)| text_of(&key)).collect();
    if !bridges.is_empty() {
        return Ok(Undone::NotOurs(format!("the nftables table {FAMILY} {name} still serves {}", bridges.join(", "))));
    }
    let mut batch = Batch::default();
    let mut table = Table { batch: &mut batch, name };
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
pub(crate) fn undo_elements(netlink: &mut Netlink, name: &str, elements: &[Element]) -> Result<Undone> {
    let what = || format!("remove elements from the nftables table {FAMILY} {name}");
    let mut question = Batch::default();
    let mut table = Table { batch: &mut question, name };
    let encoded: Vec<Vec<encode::Element>> = elements.iter().map(|element| element.encoded(None)).collect();
    encoded.iter().flat_map(|parts| parts.first()).for_each(|start| {
        table.element(encode::GETSETELEM, 0, start);
    });
    let (answers, failures) = netlink.exchange(&question).map_err(|failure| failure.into_error(what()))?;
    if let Some(failure) = failures.into_iter().find(|failure| failure.errno != libc::ENOENT) {
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
        (false, _) => {
            Undone::NotOurs(format!("the nftables table {FAMILY} {name} leads elsewhere: {}", others.join(", ")))
        }
        (true, true) => Undone::NotThere,
        (true, false) => Undone::Removed,
    })
}

/// Deletes in one transaction; one by one when a part was gone already.
fn delete(netlink: &mut Netlink, name: &str, elements: &[&encode::Element]) -> std::result::Result<(), Failure> {
    let mut batch = Batch::default();
    let mut table = Table { batch: &mut batch, name };
    table.begin();
    for element in elements {
        table.element(encode::DELSETELEM, 0, element);
    }
    table.end();
    match netlink.send(&batch) {
        Err(failure) if failure.errno == libc::ENOENT && elements.len() > 1 => {
            elements.iter().try_for_each(|element| delete(netlink, name, &[element]))
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
