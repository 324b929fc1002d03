//! Routers in namespaces of their own (`minidock router …`): the lecture's `routerns`.
//!
//! A router has a folder with a journal, as a container has, and a definition that is written when all of it stands:
//! one without a definition was cut off in its making, and is undone by the next command. Each one-to-one address has
//! the same pair of files below it. After a reboot it sleeps, until `boot`, a container of its network or a command about
//! routers wakes it.

mod definition;
mod floating;
mod plan;
mod undo;
mod wishes;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use netsetup::router::{Op as RouterOp, Switch, make_namespace};
use netsetup::{Backend, Host, Live};

pub use definition::{Definition, Floating, Side, all, find};
pub use floating::{add as add_floating, container_ends, remove as remove_floating};
pub use undo::{recover, remove};
pub use wishes::container_starts;

use crate::commands::Engine;
use crate::explain::Command;
use crate::journal::{self, FORMAT, Header, Journal};
use crate::op::{self, Op};
use crate::residue::Residue;
use crate::roots::Roots;
use crate::state::State;
use crate::{error, facts, files, host_netns, network};

/// `--inside NET[,ip]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// The network's name.
    pub network: String,
    /// The router's address in it; without one the network's gateway, or the next that is free.
    pub address: Option<Ipv4Addr>,
}

/// `--outside BRIDGE,ip/len,gateway`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// The bridge's name.
    pub bridge: String,
    /// The router's address there.
    pub address: Ipv4Addr,
    /// The subnet's length in bits.
    pub prefix_len: u8,
    /// Where its default route leads.
    pub gateway: Ipv4Addr,
}

/// What is to be made.
#[derive(Debug, Clone)]
pub struct Request {
    /// The router's name, in `ip netns` too.
    pub name: String,
    /// The leg in a minidock network.
    pub inside: Inside,
    /// The leg in an outside bridge.
    pub outside: Outside,
}

/// Tells the user of each operation as it happens.
pub type Say<'a> = &'a mut dyn FnMut(&[Command]);

/// The file in a router's folder with why a monitor couldn't wake it, as it was told last.
const PROBLEM: &str = "problem";

/// The folder of all routers.
fn folder_of_all(roots: &Roots) -> PathBuf {
    roots.root.join("routers")
}

/// One router's folder.
fn folder(roots: &Roots, name: &str) -> PathBuf {
    folder_of_all(roots).join(name)
}

/// Who holds a router's leases.
pub fn lease_owner(name: &str) -> String {
    format!("router:{name}")
}

/// Makes a router. After an error nothing of it is left.
pub fn create(engine: &Engine, request: &Request, say: Say<'_>) -> Result<()> {
    let roots = &engine.roots;
    let _lock = lock(roots)?;
    let folder = folder(roots, &request.name);
    if folder.exists() {
        bail!("router {0} is there already; remove it first: minidock router rm {0}", request.name);
    }
    let mut host = Host::open()?;
    let (definition, network) = decide(engine, request, &mut host)?;
    if let Some((network, facts)) = &network {
        network::ensure(roots, network, facts, &mut host, say)?;
    }
    files::ensure_folder(&folder)?;
    let journal = new_journal(&folder, &format!("router {}", request.name), &[leased(&definition)])?;
    let made = make(roots, &definition, &journal, &mut host, say);
    drop(journal);
    if let Err(error) = made {
        return Err(match undo::undo_router(roots, &request.name) {
            Ok(()) => error,
            Err(problem) => error.context(format!("and something is left over: {}", error::text(&problem))),
        });
    }
    Ok(())
}

/// Makes the routers again that stood before the machine was started anew, and gives running containers their addresses.
/// Costs one look for a folder where nobody has a router. Gives back what went wrong.
pub fn wake(engine: &Engine) -> Vec<anyhow::Error> {
    let roots = &engine.roots;
    if !folder_of_all(roots).exists() {
        return vec![];
    }
    let asleep = definition::asleep(roots);
    if asleep.is_empty() {
        return vec![];
    }
    match lock(roots) {
        Ok(held) => wake_these(engine, &asleep, &held).into_iter().map(|(_, error)| error).collect(),
        Err(error) => vec![error],
    }
}

/// Gives back what went wrong, with the router's name.
fn wake_these(engine: &Engine, asleep: &[Definition], held: &Held) -> Vec<(String, anyhow::Error)> {
    let roots = &engine.roots;
    let mut problems = Vec::new();
    let mut awake = Vec::new();
    for router in asleep {
        match wake_one(engine, router, held) {
            Ok(()) => awake.push(router),
            Err(error) => {
                let error = error.context(format!("router {} could not be made again", router.name));
                problems.push((router.name.clone(), error));
            }
        }
    }
    // Not `containers::all`, which waits for those that end.
    let states =
        || crate::containers::ids(roots).into_iter().filter_map(|id| State::read(&roots.container(&id)).ok()?);
    for router in awake {
        let given = states().filter(State::is_alive).map(|state| wishes::give_of(roots, router, &state, held));
        problems.extend(given.filter_map(Result::err).map(|error| (router.name.clone(), error)));
    }
    problems
}

fn wake_one(engine: &Engine, router: &Definition, _held: &Held) -> Result<()> {
    let roots = &engine.roots;
    let folder = folder(roots, &router.name);
    // Another command may have been first.
    if !folder.join(definition::ASLEEP).exists() || folder.join(definition::STANDING).exists() {
        return Ok(());
    }
    if Path::new("/run/netns").join(&router.name).symlink_metadata().is_ok() {
        bail!("there is another network namespace of its name (ip netns list)");
    }
    let mut host = Host::open()?;
    netsetup::router::switch_of(&mut host, &router.outside.bridge)?;
    let (network, facts) = facts::router_network(engine, &router.inside.network, &mut host)?;
    network::ensure(roots, &network, &facts, &mut host, &mut |_| {})?;
    let journal = new_journal(&folder, &format!("router {}", router.name), &[leased(router)])?;
    let made = make(roots, router, &journal, &mut host, &mut |_| {});
    drop(journal);
    match made {
        Ok(()) => {
            let _ = std::fs::remove_file(folder.join(PROBLEM));
            Ok(std::fs::remove_file(folder.join(definition::ASLEEP))?)
        }
        Err(error) => Err(match undo::put_to_sleep(roots, &router.name) {
            Ok(()) => error,
            Err(problem) => error.context(format!("and something is left over: {}", error::text(&problem))),
        }),
    }
}

/// The addresses that sleeping routers have in a network: nobody else's meanwhile.
pub fn addresses_of_sleeping(roots: &Roots, network: &str) -> Vec<std::net::IpAddr> {
    if !folder_of_all(roots).exists() {
        return vec![];
    }
    let inside = definition::asleep(roots).into_iter().map(|router| router.inside);
    inside.filter(|side| side.network == network).map(|side| side.address.into()).collect()
}

fn leased(definition: &Definition) -> Residue {
    Residue::Lease {
        network: definition.inside.network.clone(),
        address: definition.inside.address.into(),
        id: lease_owner(&definition.name),
    }
}

/// What `create` would do, as commands. Changes nothing.
pub fn dry_run(engine: &Engine, request: &Request) -> Result<Vec<Command>> {
    let mut host = Host::open()?;
    let (definition, network) = decide(engine, request, &mut host)?;
    let mut commands = Vec::new();
    if let Some((network, facts)) = &network {
        commands.extend(netsetup::plan_network(network, facts)?.iter().flat_map(netsetup::Op::explain));
    }
    commands.extend(plan::router(&definition).iter().flat_map(netsetup::Op::explain));
    Ok(commands)
}

fn make(roots: &Roots, definition: &Definition, journal: &Journal, host: &mut Host, say: Say<'_>) -> Result<()> {
    let (inside, owner) = (&definition.inside, lease_owner(&definition.name));
    {
        let _lock = network::lock(roots, &inside.network)?;
        if !netsetup::lease::claim(&roots.leases(&inside.network), &owner, inside.address.into())? {
            bail!(
                "{} has been taken meanwhile; give the router another address with --inside {},ADDRESS",
                inside.address,
                inside.network
            );
        }
    }
    for op in plan::router(definition) {
        say(&op.explain());
        if let netsetup::Op::Router(RouterOp::Namespace { netns }) = &op {
            make_namespace(netns, |residue| journal.record(&[Residue::Net(residue.clone())]))?;
            continue;
        }
        let op = Op::Net(op);
        journal.record(&op.residue(None).into_iter().collect::<Vec<_>>())?;
        op::apply(&[op], &mut Live { host, netns: None, init_pid: None })?;
    }
    definition.write(roots)
}

/// Everything that is decided: names, MACs, addresses. Reads the host, changes nothing.
fn decide(
    engine: &Engine,
    request: &Request,
    host: &mut Host,
) -> Result<(Definition, Option<(netsetup::Network, netsetup::Facts)>)> {
    let Request { name, inside, outside } = request;
    check_name(name)?;
    if Path::new("/run/netns").join(name).symlink_metadata().is_ok() {
        bail!("the network namespace {name} is there already (ip netns list): choose another name for the router");
    }
    let (network, facts) = facts::router_network(engine, &inside.network, host)?;
    let address = plan::inside_address(engine, &network, &facts, inside, host)?;
    plan::check_outside(outside, &network)?;
    let there = netsetup::router::switch_of(host, &outside.bridge)?;
    let mark = network::mark(&engine.roots.root.join(name));
    let side = |letter: char, link: &str, network: &str, bridge: &str, address: Ipv4Addr, prefix_len, mtu| Side {
        network: network.to_owned(),
        bridge: bridge.to_owned(),
        link: link.to_owned(),
        host_link: format!("rt{mark:08x}{letter}"),
        mac: plan::mac(address),
        address,
        prefix_len,
        mtu,
    };
    // The lecture's name, unless the switch has it already; a veth's end has a namespace for itself.
    let free = there.switch == Switch::Linux || netsetup::router::ovs_port_is_free("taprouterex");
    let outside_link = if free { "taprouterex".to_owned() } else { format!("rt{mark:08x}o") };
    let definition = Definition {
        version: definition::FORMAT,
        name: name.clone(),
        created: crate::log::now(),
        backend: engine.config.firewall.unwrap_or(Backend::Nftables),
        inside: side(
            'i',
            "taprouter",
            &network.name,
            &network.bridge,
            address,
            plan::subnet(&network)?.prefix_len,
            network.mtu,
        ),
        outside: side('o', &outside_link, "", &outside.bridge, outside.address, outside.prefix_len, there.mtu),
        switch: there.switch,
        gateway: outside.gateway,
        network_gateway: plan::gateway(&network)?,
        other: serde_json::Map::new(),
    };
    Ok((definition, Some((network, facts))))
}

/// docker's rule for names; it is a folder's name, too.
fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.len() < 2
        || name.len() > 64
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !name.chars().all(good)
    {
        bail!("invalid router name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 2 to 64 of them");
    }
    Ok(())
}

fn new_journal(folder: &Path, owner: &str, first: &[Residue]) -> Result<Journal> {
    let header = Header {
        volumes: vec![],
        minidock_journal: FORMAT,
        owner: owner.to_owned(),
        boot_id: journal::boot_id(),
        auto_remove: false,
        netns: host_netns::current(),
        image: None,
        birth: None,
        session: None,
        other: serde_json::Map::new(),
    };
    Journal::create(&folder.join("journal"), &header, first)
}

/// The routers' lock; dropped with it.
struct Held {
    _file: std::fs::File,
}

/// One lock for all routers: they are few, and made by hand.
fn lock(roots: &Roots) -> Result<Held> {
    let folder = folder_of_all(roots);
    files::ensure_folder(&folder)?;
    let file = network::lock_file(&folder.join(".lock")).context("cannot lock the routers")?;
    Ok(Held { _file: file })
}

/// The lock, unless somebody else has it: a monitor waits for nobody.
fn try_lock(roots: &Roots) -> Option<Held> {
    let path = folder_of_all(roots).join(".lock");
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).ok()?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(Held { _file: file })
}
