//! Brings back what somebody has taken away of networks and published ports: a flushed table, deleted rules.
//!
//! Each monitor watches over its own container's rules, and over what its networks have in common under the lock of all
//! networks, so that the first one makes it and the others find it there. `network repair` does the same by hand.

use std::net::IpAddr;

use anyhow::Result;
use netsetup::{Host, Network};

use super::catalog;
use super::options::Driver;
use crate::commands::Engine;
use crate::containers;
use crate::facts::DEFAULT_NETWORK;
use crate::journal;
use crate::residue::Residue;
use crate::state::State;

/// Repairs the networks of a container and its own rules; true when something was missing.
///
/// # Errors
/// The firewall can't be read or written.
pub fn container(engine: &Engine, state: &State, entries: &[Residue], host: &mut Host) -> Result<bool> {
    let mut missing = false;
    for attachment in &state.attachments {
        missing |= network(engine, &attachment.network, host)?;
    }
    let comment = format!("{} {}", state.name, crate::recover::short(&state.id));
    Ok(missing | (netsetup::repair(&rules(state, entries), &comment, host)? > 0))
}

/// The rules that the container has now. The journal still names those of networks that it was disconnected from, whose
/// addresses may be others' by now.
fn rules(state: &State, entries: &[Residue]) -> Vec<netsetup::Residue> {
    let links: Vec<&str> = state.attachments.iter().map(|one| one.host_link.as_str()).collect();
    let addresses: Vec<IpAddr> = state
        .attachments
        .iter()
        .flat_map(|one| [one.ipv4, one.ipv6].into_iter().flatten().map(|place| place.address))
        .collect();
    let given_back: Vec<String> = entries
        .iter()
        .filter_map(|entry| if let Residue::Lease { address, .. } = entry { Some(*address) } else { None })
        .filter(|address: &IpAddr| !addresses.contains(address))
        .map(|address| address.to_string())
        .collect();
    let mentions = |word: &String| {
        let bare = word.trim_start_matches('[');
        given_back.iter().any(|address| {
            bare.strip_prefix(address.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', ']']))
        })
    };
    let mut rules = Vec::new();
    for entry in entries {
        match entry {
            Residue::Net(netsetup::Residue::NftElements { family, table, elements }) => {
                let elements: Vec<_> = elements.iter().filter(|one| one.is_of(&links, &addresses)).cloned().collect();
                let (family, table) = (family.clone(), table.clone());
                rules.push(netsetup::Residue::NftElements { family, table, elements });
            }
            Residue::Net(netsetup::Residue::IptablesRule { rule, .. }) if rule.iter().any(mentions) => {}
            Residue::Net(residue) => rules.push(residue.clone()),
            _ => {}
        }
    }
    rules
}

/// Makes what is missing of a network that is in use; true when something was.
fn network(engine: &Engine, name: &str, host: &mut Host) -> Result<bool> {
    let Ok(definition) = catalog::find(engine, name) else { return Ok(false) };
    if definition.driver != Driver::Bridge {
        return Ok(false);
    }
    let wanted = catalog::for_the_kernel(engine, &definition)?;
    let facts = netsetup::Facts::read(host, &wanted)?;
    // Without its bridge the cards are cut off, which a rule doesn't mend: see [`cut_off`].
    if facts.bridge.is_none() {
        return Ok(false);
    }
    let there: Network = facts.adopt(&wanted);
    if netsetup::plan_network(&there, &facts)?.is_empty() {
        return Ok(false);
    }
    let _lock = super::lock(&engine.roots, name)?;
    super::make(&engine.roots, &there, host, &mut |_| {})?;
    Ok(true)
}

/// `minidock network repair`: the networks of all running containers of this host, and their rules. Gives back the names
/// of the containers and networks of which something was missing.
///
/// # Errors
/// The firewall can't be read or written.
pub fn all(engine: &Engine) -> Result<Vec<String>> {
    let mut host = Host::open()?;
    let mut repaired = Vec::new();
    for definition in
        std::iter::once(DEFAULT_NETWORK.to_owned()).chain(catalog::all(engine).into_iter().map(|one| one.name))
    {
        if !repaired.contains(&definition) && network(engine, &definition, &mut host)? {
            repaired.push(definition);
        }
    }
    for state in containers::all(&engine.roots).into_iter().filter(State::is_alive) {
        let contents = journal::read(&engine.roots.container(&state.id).join("journal"))?;
        let here = contents.header.as_ref().is_some_and(|header| header.netns == crate::host_netns::current());
        if here && container(engine, &state, &contents.entries, &mut host)? {
            repaired.push(state.name);
        }
    }
    Ok(repaired)
}

/// A running container whose card hangs in no bridge: somebody has deleted the bridge, or taken the card out of it.
pub struct CutOff {
    /// The container.
    pub container: String,
    /// The network.
    pub network: String,
    /// What has happened, in words.
    pub why: String,
}

impl CutOff {
    /// What makes it whole again: a start makes bridge and card anew.
    pub fn remedy(&self) -> String {
        format!("minidock restart {}", self.container)
    }
}

/// The running containers of this host that a bridge has lost. Rules can't mend that: the card must be made anew.
///
/// # Errors
/// The links can't be read.
pub fn cut_off(engine: &Engine) -> Result<Vec<CutOff>> {
    let namespaces = netsetup::survey::survey(vec![])?;
    let Some(host) = namespaces.iter().find(|namespace| namespace.is_host) else { return Ok(vec![]) };
    let mut found = Vec::new();
    for state in containers::all(&engine.roots).into_iter().filter(State::is_alive) {
        for one in state.attachments.iter().filter(|one| !one.host_link.is_empty()) {
            // A container of another network namespace has no card here.
            let Some(card) = host.link_named(&one.host_link) else { continue };
            if host.link(card.master).is_some_and(|master| master.name == one.bridge) {
                continue;
            }
            let why = match host.link_named(&one.bridge) {
                None => format!("the bridge {} is gone; was it removed by hand?", one.bridge),
                Some(_) => format!("its card {} isn't in the bridge {}", one.host_link, one.bridge),
            };
            found.push(CutOff { container: state.name.clone(), network: one.network.clone(), why });
        }
    }
    Ok(found)
}
