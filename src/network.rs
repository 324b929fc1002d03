//! What containers of a network share: bridge, firewall table, sysctls. They belong to the network's own journal, under
//! the network's lock, and stay when a container goes; `minidock network rm` takes them away.

pub mod catalog;
pub mod create;
pub mod definition;
pub mod joining;
pub mod obstacles;
pub mod options;
pub mod pools;
pub mod remove;
pub mod repair;
pub mod subnet;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use netsetup::{Facts, Host, Live, Network, Obstacle};
use rustix::fs::{FlockOperation, flock};

use crate::commands::Engine;
use crate::explain::Command;
use crate::files;
use crate::host_netns;
use crate::journal::{self, FORMAT, Header, Journal};
use crate::op::{self, Op};
use crate::residue::Residue;
use crate::roots::Roots;
use definition::Definition;

/// Makes what is missing of a network, and then tells which rules of others are in its way. `facts` are those that the plan was made from; they're read again under the lock,
/// because another start may have made it meanwhile.
pub fn ensure(
    roots: &Roots,
    network: &Network,
    facts: &Facts,
    host: &mut Host,
    say: &mut dyn FnMut(&[Command]),
) -> Result<Vec<Obstacle>> {
    // The facts were read before the address was leased, which is what keeps others from removing the network.
    let same = facts.bridge.as_ref().is_some_and(|bridge| Some(bridge.index) == link_index(&network.bridge));
    if same && netsetup::plan_network(network, facts)?.is_empty() {
        return Ok(vec![]);
    }
    let _lock = lock(roots, &network.name)?;
    make(roots, network, host, say)
}

/// Makes what is missing of a created network. The MTU is the way out's, unless an option says otherwise.
pub fn ensure_defined(engine: &Engine, definition: &Definition, host: &mut Host) -> Result<Vec<Obstacle>> {
    let mut network = catalog::for_the_kernel(engine, definition)?;
    if network.mtu == 0 {
        network.mtu = netsetup::egress_mtu(host);
    }
    let _lock = lock(&engine.roots, &network.name)?;
    make(&engine.roots, &network, host, &mut |_| {})
}

/// What of others is in the way of every network's traffic, with the network's name. The default one counts before it is
/// there, too.
pub fn obstacles(engine: &Engine, host: &mut Host) -> Vec<(String, Obstacle)> {
    let mut found = Vec::new();
    for definition in catalog::all(engine).into_iter().filter(|one| one.driver == options::Driver::Bridge) {
        if let Ok(network) = catalog::for_the_kernel(engine, &definition) {
            found.extend(netsetup::obstacles(host, &network).into_iter().map(|one| (definition.name.clone(), one)));
        }
    }
    found.extend(before_proxies(engine, host));
    found
}

/// What of others is in the way of the ports that running containers' proxies serve, with the network's name.
fn before_proxies(engine: &Engine, host: &mut Host) -> Vec<(String, Obstacle)> {
    let mut ports: std::collections::BTreeMap<String, Vec<netsetup::PortMapping>> = std::collections::BTreeMap::new();
    for state in crate::containers::all(&engine.roots).into_iter().filter(crate::state::State::is_alive) {
        for one in state.attachments {
            let proxied = one.ports.into_iter().filter(|port| port.mode == netsetup::PublishMode::Proxy);
            ports.entry(one.network).or_default().extend(proxied);
        }
    }
    let found = |(name, ports): (String, Vec<netsetup::PortMapping>)| {
        let found = netsetup::input_obstacles(host, &ports);
        found.into_iter().map(|one| (name.clone(), one)).collect::<Vec<_>>()
    };
    ports.into_iter().flat_map(found).collect()
}

/// The caller holds the network's lock. Tells which rules of others are in the network's way: now that something of it
/// has come anew, and not at each start, which it would slow down.
fn make(roots: &Roots, network: &Network, host: &mut Host, say: &mut dyn FnMut(&[Command])) -> Result<Vec<Obstacle>> {
    // Networks have a table and settings in common: one at a time looks what is missing, and makes it.
    let _of_all = lock(roots, OF_ALL)?;
    let facts = Facts::read(host, network)?;
    let ops: Vec<Op> = netsetup::plan_network(network, &facts)?.into_iter().map(Op::Net).collect();
    let residues: Vec<Residue> = ops.iter().filter_map(|op| op.residue(None)).collect();
    let (mut of_all, own): (Vec<_>, Vec<_>) = residues.into_iter().partition(|residue| is_of_all(residue, network));
    // A table that was found is another root's in the same place: whoever leaves it last takes it away.
    of_all.extend(own.iter().filter_map(table_of));
    record(roots, OF_ALL, &of_all)?;
    record(roots, &network.name, &own)?;
    apply(&ops, host, say)?;
    Ok(netsetup::obstacles(host, network))
}

/// The table that elements are in.
fn table_of(residue: &Residue) -> Option<Residue> {
    match residue {
        Residue::Net(netsetup::Residue::NftElements { family, table, .. }) => {
            Some(Residue::Net(netsetup::Residue::NftTable { family: family.clone(), name: table.clone() }))
        }
        _ => None,
    }
}

/// Whether a residue belongs to all networks: it stays until the last one goes.
fn is_of_all(residue: &Residue, network: &Network) -> bool {
    let Residue::Net(residue) = residue else { return false };
    match residue {
        netsetup::Residue::NftTable { .. }
        | netsetup::Residue::IptablesTable { .. }
        | netsetup::Residue::IptablesChain { .. } => true,
        // A link's own settings have its name in their path.
        netsetup::Residue::Sysctl { key, .. } => !key.split('/').any(|part| part == network.bridge),
        netsetup::Residue::IptablesRule { rule, .. } => !rule
            .iter()
            .any(|word| *word == network.bridge || network.subnets().any(|subnet| *word == subnet.to_string())),
        _ => false,
    }
}

/// The index of a link; not from /sys, which shows the namespace that it was mounted in.
fn link_index(name: &str) -> Option<u32> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    name_to_index(socket, name).ok()
}

/// Writes residues to the journal of the network `name` (or one of those that belong to several), as far as it doesn't
/// have them yet. The caller holds the lock of that name.
fn record(roots: &Roots, name: &str, residues: &[Residue]) -> Result<()> {
    let path = journal_path(roots, name);
    let known = match path.exists().then(|| journal::read(&path)).transpose()? {
        Some(contents) if contents.header.as_ref().is_some_and(|header| header.boot_id == journal::boot_id()) => {
            contents.entries
        }
        Some(_) => {
            let _ = std::fs::remove_file(&path); // another boot's: the kernel has forgotten it all
            vec![]
        }
        None => vec![],
    };
    let mut new: Vec<Residue> = Vec::new();
    for residue in residues {
        if !known.contains(residue) && !new.contains(residue) {
            new.push(residue.clone());
        }
    }
    if new.is_empty() && path.exists() {
        return Ok(());
    }
    files::ensure_folder(path.parent().unwrap_or(&path))?;
    if path.exists() {
        let Some(journal) = Journal::take_over(&path)? else {
            bail!("the journal {} is locked by another process", path.display());
        };
        return journal.record(&new);
    }
    let header = Header {
        volumes: vec![],
        minidock_journal: FORMAT,
        owner: format!("network {name}"),
        boot_id: journal::boot_id(),
        auto_remove: false,
        netns: host_netns::current(),
        image: None,
        birth: None,
        session: None,
        other: serde_json::Map::new(),
    };
    Journal::create(&path, &header, &new).map(|_| ())
}

fn apply(ops: &[Op], host: &mut Host, say: &mut dyn FnMut(&[Command])) -> Result<()> {
    for op in ops {
        say(&op.explain());
    }
    op::apply(ops, &mut Live { host, netns: None, init_pid: None })
}

/// Makes what all containers share outside of networks: the net_cls mount.
pub fn ensure_mounts(
    roots: &Roots,
    ops: &[runtime::cgroup::Op],
    host: &mut Host,
    say: &mut dyn FnMut(&[Command]),
) -> Result<()> {
    if ops.is_empty() {
        return Ok(());
    }
    let _lock = lock(roots, SHARED_MOUNTS)?;
    let ops: Vec<Op> = ops.iter().cloned().map(Op::Cgroup).collect();
    record(roots, SHARED_MOUNTS, &ops.iter().filter_map(|op| op.residue(None)).collect::<Vec<_>>())?;
    apply(&ops, host, say)
}

/// Not a network's name (none begins with a dot): the journal of shared cgroup mounts.
const SHARED_MOUNTS: &str = ".mounts";
/// As above: the journal of what all networks have in common, such as the firewall's table and ip_forward.
const OF_ALL: &str = ".all";

/// One journal for each network namespace that plays the host: what is in one says nothing of another. A mount is in no
/// network namespace, and found from each.
fn journal_path(roots: &Roots, name: &str) -> PathBuf {
    if name == SHARED_MOUNTS {
        return roots.network(name).join("journal");
    }
    roots.network(name).join(net_folder()).join("journal")
}

/// The folder of the network namespace that plays the host.
fn net_folder() -> String {
    format!("net-{}", host_netns::current().unwrap_or(0))
}

/// The network's lock; dropped with the file.
pub fn lock(roots: &Roots, name: &str) -> Result<File> {
    let folder = roots.network(name);
    let path = folder.join("lock");
    loop {
        if !folder.exists() {
            files::ensure_folder(&folder)?;
        }
        match lock_file(&path) {
            // The folder goes with its network: a lock on a removed file is nobody's.
            Ok(file) if is_there(&file, &path) => return Ok(file),
            Err(error) if folder.exists() => return Err(error),
            _ => {}
        }
    }
}

fn is_there(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(held), Ok(there)) = (file.metadata(), std::fs::metadata(path)) else { return false };
    held.ino() == there.ino() && held.dev() == there.dev()
}

/// A lock that is a file; dropped with it.
pub fn lock_file(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot open the lock {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Whether a residue belongs to a stage that leads traffic to the container: undone before the exit is reported.
pub fn leads_traffic(residue: &Residue) -> Option<&netsetup::Residue> {
    match residue {
        // What a card may send is no matter once nobody sends.
        Residue::Net(netsetup::Residue::NftElements { family, .. }) if family == "bridge" => None,
        Residue::Net(net @ (netsetup::Residue::NftElements { .. } | netsetup::Residue::IptablesRule { .. })) => {
            Some(net)
        }
        _ => None,
    }
}

/// A number that is the same for the same root (FNV-1a, 32 bits).
pub fn mark(root: &Path) -> u32 {
    let bytes = root.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roots_mark_is_stable_and_its_own() {
        assert_eq!(mark(Path::new("/a")), mark(Path::new("/a")));
        assert_ne!(mark(Path::new("/a")), mark(Path::new("/b")));
    }
}
