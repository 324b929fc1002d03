//! What containers of a network share: bridge, firewall table, sysctls. They belong to the network's own journal, under
//! the network's lock, and stay when a container goes; `minidock network rm` takes them away.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use netsetup::{Facts, Host, Live, Network};
use rustix::fs::{FlockOperation, flock};

use crate::explain::Command;
use crate::facts::DEFAULT_NETWORK;
use crate::files;
use crate::host_netns;
use crate::journal::{self, FORMAT, Header, Journal};
use crate::op::{self, Op};
use crate::recover::{self, first_error};
use crate::residue::{self, Residue};
use crate::roots::Roots;

/// Makes what is missing of a network. `facts` are those that the plan was made from; they're read again under the lock,
/// because another start may have made it meanwhile.
pub fn ensure(
    roots: &Roots,
    network: &Network,
    facts: &Facts,
    host: &mut Host,
    say: &mut dyn FnMut(&[Command]),
) -> Result<()> {
    // The facts were read before the address was leased, which is what keeps others from removing the network.
    let same = facts.bridge.as_ref().is_some_and(|bridge| Some(bridge.index) == link_index(&network.bridge));
    if same && netsetup::plan_network(network, facts)?.is_empty() {
        return Ok(());
    }
    let _lock = lock(roots, &network.name)?;
    let facts = Facts::read(host, network)?;
    let ops: Vec<Op> = netsetup::plan_network(network, &facts)?.into_iter().map(Op::Net).collect();
    apply_shared(roots, &network.name, &ops, host, say)
}

/// The index of a link; not from /sys, which shows the namespace that it was mounted in.
fn link_index(name: &str) -> Option<u32> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    name_to_index(socket, name).ok()
}

/// Applies operations whose residues belong to the network `name`, recording those that its journal doesn't have yet.
/// The caller holds the network's lock.
fn apply_shared(roots: &Roots, name: &str, ops: &[Op], host: &mut Host, say: &mut dyn FnMut(&[Command])) -> Result<()> {
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
    let mut new = Vec::new();
    for residue in ops.iter().filter_map(|op| op.residue(None)) {
        if !known.contains(&residue) && !new.contains(&residue) {
            new.push(residue);
        }
    }
    files::ensure_folder(path.parent().unwrap_or(&path))?;
    if path.exists() {
        let Some(journal) = Journal::take_over(&path)? else {
            bail!("the journal {} is locked by another process", path.display());
        };
        journal.record(&new)?;
    } else {
        let header = Header {
            volumes: vec![],
            minidock_journal: FORMAT,
            owner: format!("network {name}"),
            boot_id: journal::boot_id(),
            auto_remove: false,
            netns: host_netns::current(),
            image: None,
        };
        Journal::create(&path, &header, &new)?;
    }
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
    apply_shared(roots, SHARED_MOUNTS, &ops, host, say)
}

/// Not a network's name (a docker name can't begin with a dot): the journal of shared cgroup mounts.
const SHARED_MOUNTS: &str = ".mounts";

/// Removes what a network has on the host. Fails while containers use it.
pub fn remove(roots: &Roots, name: &str) -> Result<()> {
    if name != DEFAULT_NETWORK {
        bail!("network {name} not found; there is only {DEFAULT_NETWORK}");
    }
    if !journal_path(roots, name).exists() {
        return Ok(()); // nothing was made, or all of it was found
    }
    for (_, owner) in users(roots, name) {
        recover::wait_if_ending(roots, &owner)?;
    }
    let _lock = lock(roots, name)?;
    if let Some((address, owner)) = users(roots, name).first() {
        bail!("network {name} is in use: container {} has {address}; remove it first", recover::short(owner));
    }
    undo_all(roots, name)?;
    // The net_cls mount belongs to no single network. It goes with the last one, unless a container still has a group in
    // it, or somebody else has.
    if journal_path(roots, SHARED_MOUNTS).exists() {
        let _lock = lock(roots, SHARED_MOUNTS)?;
        let _ = undo_all(roots, SHARED_MOUNTS);
    }
    Ok(())
}

/// Removes a network that nobody uses and of which something is missing: its maker was killed half-way.
pub fn recover(roots: &Roots, network: &Network) -> Result<()> {
    forget_gone(roots, &network.name);
    let path = journal_path(roots, &network.name);
    for name in [&network.name, SHARED_MOUNTS] {
        let unborn = journal_path(roots, name).with_extension("new");
        if unborn.exists() {
            let _lock = lock(roots, name)?;
            let _ = std::fs::remove_file(&unborn); // its maker was killed before it had begun
        }
    }
    if !path.exists() || !users(roots, &network.name).is_empty() {
        return Ok(());
    }
    let _lock = lock(roots, &network.name)?;
    if !users(roots, &network.name).is_empty() {
        return Ok(());
    }
    let facts = Facts::read(&mut Host::open()?, network)?;
    if netsetup::plan_network(network, &facts)?.is_empty() { Ok(()) } else { undo_all(roots, &network.name) }
}

fn undo_all(roots: &Roots, name: &str) -> Result<()> {
    let path = journal_path(roots, name);
    let Some(journal) = Journal::take_over(&path)? else { return Ok(()) };
    let contents = journal.contents()?;
    let header = contents.header.as_ref();
    let this_boot = header.is_some_and(|header| header.boot_id == journal::boot_id());
    if this_boot {
        first_error(residue::undo(roots, header.and_then(|header| header.netns), &contents.entries))
            .with_context(|| format!("cannot remove network {name}"))?;
    }
    std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}

/// Addresses and owners, as far as they are in this network namespace.
fn users(roots: &Roots, name: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(roots.leases(name)).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let address = entry.file_name().to_string_lossy().into_owned();
            let owner = netsetup::lease::owner(&roots.leases(name), address.parse().ok()?)?;
            let elsewhere = journal::read(&roots.container(&owner).join("journal"))
                .is_ok_and(|contents| contents.header.is_some_and(|header| header.netns != host_netns::current()));
            (!elsewhere).then_some((address, owner))
        })
        .collect()
}

/// One journal for each network namespace that plays the host: what is in one says nothing of another. A mount is in no
/// network namespace, and found from each.
fn journal_path(roots: &Roots, name: &str) -> PathBuf {
    if name == SHARED_MOUNTS {
        return roots.network(name).join("journal");
    }
    roots.network(name).join(format!("net-{}", host_netns::current().unwrap_or(0))).join("journal")
}

/// Forgets what was made in namespaces that are gone: the kernel has removed it with them.
fn forget_gone(roots: &Roots, name: &str) {
    for entry in std::fs::read_dir(roots.network(name)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(inode) = name.strip_prefix("net-").and_then(|inode| inode.parse().ok()) else { continue };
        if !host_netns::exists(inode) {
            for file in ["journal", "journal.new"] {
                let _ = std::fs::remove_file(entry.path().join(file));
            }
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// The network's lock; dropped with the file.
pub fn lock(roots: &Roots, name: &str) -> Result<File> {
    let folder = roots.network(name);
    if !folder.exists() {
        files::ensure_folder(&folder)?;
    }
    lock_file(&folder.join("lock"))
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
