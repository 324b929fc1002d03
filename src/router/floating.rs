//! One-to-one addresses: an address outside that belongs to one container.
//!
//! It goes with the container's run: an address that is given to another container must not lead there.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, bail};
use netsetup::router::Op as RouterOp;
use netsetup::{Host, Live};

use super::definition::{self, Definition, Floating};
use super::plan::first_address;
use super::{Held, Say, all, find, folder, folder_of_all, lock, new_journal, undo, wishes};
use crate::containers;
use crate::error;
use crate::files;
use crate::op::{self, Op};
use crate::recover::short;
use crate::residue::Residue;
use crate::roots::Roots;
use crate::state::State;

/// Gives an outside address to a container. Gives back a warning, where its published ports will suffer.
pub fn add(roots: &Roots, router: &str, outside: Ipv4Addr, container: &str, say: Say<'_>) -> Result<Option<String>> {
    add_while_held(roots, router, outside, container, say, &lock(roots)?)
}

/// As [`add`], by somebody who has the routers' lock.
pub(super) fn add_while_held(
    roots: &Roots,
    router: &str,
    outside: Ipv4Addr,
    container: &str,
    say: Say<'_>,
    _held: &Held,
) -> Result<Option<String>> {
    let router = find(roots, router)?;
    let state = containers::find_running(roots, container)?;
    let inside = address_in(&state, &router)?;
    check(roots, &router, outside, &state)?;
    let folder = folder(roots, &router.name).join("floating").join(outside.to_string());
    files::ensure_folder(&folder)?;
    let floating = Floating {
        version: definition::FORMAT,
        outside,
        inside,
        container: state.id.clone(),
        name: state.name.clone(),
    };
    let ops = ops(&router, &floating);
    let residues: Vec<Residue> = residues(&router, &floating).into_iter().map(Residue::Net).collect();
    let journal = new_journal(&folder, &format!("{outside} of router {}", router.name), &residues)?;
    let mut host = Host::open()?;
    let made = ops.iter().try_for_each(|op| {
        say(&op.explain());
        op::apply(std::slice::from_ref(op), &mut Live { host: &mut host, netns: None, init_pid: None })
    });
    let made =
        made.and_then(|()| files::replace(&folder.join("floating.json"), &serde_json::to_vec_pretty(&floating)?));
    let made = made.and_then(|()| wishes::note(roots, &router.name, &floating));
    drop(journal);
    if let Err(error) = made {
        return Err(match undo::undo_folder(roots, &folder) {
            Ok(()) => error,
            Err(problem) => error.context(format!("and something is left over: {}", error::text(&problem))),
        });
    }
    let published = published(&state);
    let moves = router.inside.address != router.network_gateway;
    Ok((moves && published).then(|| {
        format!(
            "{} answers by {} from now on: clients outside reach its published ports only by {outside}",
            state.name, router.name
        )
    }))
}

fn published(state: &State) -> bool {
    state.attachments.iter().any(|attachment| !attachment.ports.is_empty())
}

/// The container's address in the router's network.
fn address_in(state: &State, router: &Definition) -> Result<Ipv4Addr> {
    let network = &router.inside.network;
    let attachment = state.attachments.iter().find(|attachment| attachment.network == *network);
    match attachment.map(|attachment| attachment.ipv4.map(|place| place.address)) {
        Some(Some(IpAddr::V4(address))) => Ok(address),
        Some(_) => bail!("container {} has no IPv4 address in network {network}", state.name),
        None => bail!(
            "container {} is not in network {network}, which router {} serves; start it with --network {network}",
            state.name,
            router.name
        ),
    }
}

fn check(roots: &Roots, router: &Definition, outside: Ipv4Addr, state: &State) -> Result<()> {
    let side = &router.outside;
    let subnet = first_address(side.address, side.prefix_len);
    let last = Ipv4Addr::from_bits(subnet.to_bits() | u32::MAX.checked_shr(u32::from(side.prefix_len)).unwrap_or(0));
    if first_address(outside, side.prefix_len) != subnet || outside == subnet || outside == last {
        bail!("{outside} is no address of the outside network {subnet}/{} of router {}", side.prefix_len, router.name);
    }
    if outside == side.address || outside == router.gateway {
        let whose = if outside == side.address { "the router's own" } else { "the outside gateway's" };
        bail!("{outside} is {whose} address; choose another in {subnet}/{}", side.prefix_len);
    }
    for other in router.floating(roots) {
        if other.outside == outside {
            bail!(
                "{outside} belongs to container {} already; take it away first: minidock router floating rm {} {outside}",
                other.name,
                router.name
            );
        }
        if other.container == state.id {
            bail!("container {} has the address {} in router {} already", state.name, other.outside, router.name);
        }
    }
    Ok(())
}

/// What makes it: the pair of rules, and the container's way out where the host is its gateway.
pub(super) fn ops(router: &Definition, floating: &Floating) -> Vec<Op> {
    let pair = RouterOp::Floating {
        netns: router.name.clone(),
        backend: router.backend,
        link: router.outside.link.clone(),
        outside: floating.outside,
        inside: floating.inside,
        comment: format!("{} {}", floating.name, short(&floating.container)),
    };
    // Its answers must leave by the router, which alone knows the translation.
    let route = RouterOp::DefaultRoute { netns: floating.name.clone(), gateway: router.inside.address };
    let moves = router.inside.address != router.network_gateway;
    [Some(pair), moves.then_some(route)].into_iter().flatten().map(|op| Op::Net(netsetup::Op::Router(op))).collect()
}

fn residues(router: &Definition, floating: &Floating) -> Vec<netsetup::Residue> {
    let pair = netsetup::Residue::Floating {
        netns: router.name.clone(),
        backend: router.backend,
        link: router.outside.link.clone(),
        outside: floating.outside,
        inside: floating.inside,
    };
    let route = netsetup::Residue::DefaultRoute {
        netns: floating.name.clone(),
        gateway: router.network_gateway,
        instead_of: router.inside.address,
    };
    let moves = router.inside.address != router.network_gateway;
    [Some(pair), moves.then_some(route)].into_iter().flatten().collect()
}

/// Takes an address away from its container.
pub fn remove(roots: &Roots, router: &str, outside: Ipv4Addr, say: Say<'_>) -> Result<()> {
    let _lock = lock(roots)?;
    let router = find(roots, router)?;
    let wished = wishes::forget(roots, &router.name, outside)?;
    let Some(floating) = router.floating(roots).into_iter().find(|one| one.outside == outside) else {
        if wished {
            return Ok(()); // its container doesn't run
        }
        bail!("router {0} has no address {outside}; minidock router floating ls {0}", router.name);
    };
    say(&netsetup::Op::Router(RouterOp::Unfloat {
        netns: router.name.clone(),
        backend: router.backend,
        link: router.outside.link.clone(),
        outside,
        inside: floating.inside,
    })
    .explain());
    if router.inside.address != router.network_gateway {
        say(&netsetup::Op::Router(RouterOp::DefaultRoute {
            netns: floating.name.clone(),
            gateway: router.network_gateway,
        })
        .explain());
    }
    undo::undo_folder(roots, &folder(roots, &router.name).join("floating").join(outside.to_string()))
}

/// Takes away the addresses of a container whose run ends, before its own address is given back. Costs one look for a
/// folder where nobody has a router.
pub fn container_ends(roots: &Roots, id: &str) -> Result<()> {
    // A router's own lease is given back by the router's undo, which holds the lock.
    if id.starts_with("router:") || !folder_of_all(roots).exists() {
        return Ok(());
    }
    let _lock = lock(roots)?;
    for router in all(roots) {
        for floating in router.floating(roots).iter().filter(|floating| floating.container == id) {
            let folder = folder(roots, &router.name).join("floating").join(floating.outside.to_string());
            undo::undo_folder(roots, &folder)?;
        }
    }
    Ok(())
}
