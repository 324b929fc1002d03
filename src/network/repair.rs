//! Brings back what somebody has taken away of networks and published ports: a flushed table, deleted rules.
//!
//! Each monitor watches over its own container's rules, and over what its networks have in common under the lock of all
//! networks, so that the first one makes it and the others find it there. `network repair` does the same by hand.

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
    let rules: Vec<netsetup::Residue> = entries
        .iter()
        .filter_map(|entry| if let Residue::Net(residue) = entry { Some(residue.clone()) } else { None })
        .collect();
    Ok(missing | (netsetup::repair(&rules, &comment, host)? > 0))
}

/// Makes what is missing of a network that is in use; true when something was.
fn network(engine: &Engine, name: &str, host: &mut Host) -> Result<bool> {
    let Ok(definition) = catalog::find(engine, name) else { return Ok(false) };
    if definition.driver != Driver::Bridge {
        return Ok(false);
    }
    let wanted = catalog::for_the_kernel(engine, &definition)?;
    let facts = netsetup::Facts::read(host, &wanted)?;
    // A bridge that is gone has taken its containers' links with it: nothing here brings those back.
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
