//! Taking a network away: what is on the host of it, and its definition. And the sweeping up after a removal or a making
//! that was cut off.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use netsetup::{Facts, Host};

use super::definition::{self, Definition};
use super::{OF_ALL, SHARED_MOUNTS, journal_path, lock, net_folder};
use crate::commands::Engine;
use crate::containers;
use crate::facts::{self, DEFAULT_NETWORK};
use crate::host_netns;
use crate::journal::{self, Journal};
use crate::recover::{self, first_error};
use crate::residue::{self, Residue};
use crate::roots::Roots;
use crate::state::{State, Status};

/// Removes a network. The default one is only taken off this host: it's made again when it's needed.
///
/// # Errors
/// A container uses it, or something of it can't be removed.
pub fn remove(engine: &Engine, definition: &Definition) -> Result<()> {
    let (roots, name) = (&engine.roots, definition.name.as_str());
    for (_, owner) in users(roots, name) {
        wait_if_ended(roots, &owner)?;
    }
    let _definitions = super::lock_file(&definition::lock_path(roots)?)?;
    let stayed;
    {
        let _lock = lock(roots, name)?;
        let users = users(roots, name);
        if !users.is_empty() {
            bail!("{}", in_use(roots, definition, &users));
        }
        stayed = undo(roots, name)?;
        let _ = std::fs::remove_file(roots.network(name).join(super::obstacles::FILE));
        if name != DEFAULT_NETWORK {
            definition::remove(roots, name)?;
            remove_folder(&roots.network(name));
        }
    }
    settle_of_all(roots)?;
    match stayed {
        Some(what) => bail!("network {name} is removed, but not all of it: {what}; it isn't minidock's any more"),
        None => Ok(()),
    }
}

/// A container whose end has been told may hold its addresses for a moment longer.
fn wait_if_ended(roots: &Roots, owner: &str) -> Result<()> {
    let folder = roots.container(owner);
    let ended = |state: &State| !state.is_alive() && matches!(state.status, Status::Exited | Status::Created);
    match State::read(&folder)? {
        Some(state) if ended(&state) => {
            if let Some(journal) = recover::wait_for_owner(roots, owner, PATIENCE)? {
                recover::settle(roots, owner, &journal)?;
            }
            Ok(())
        }
        _ => recover::wait_if_ending(roots, owner).map(|_| ()),
    }
}

/// How long an ended container may take to give its addresses back.
const PATIENCE: Duration = Duration::from_secs(10);

/// docker's words: `error while removing network: network lan id … has active endpoints (name:"web" id:"…")`.
fn in_use(roots: &Roots, definition: &Definition, users: &[(String, String)]) -> String {
    let mut ids: Vec<&str> = users.iter().map(|(_, owner)| owner.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    // An owner without a folder is a router.
    let name =
        |id: &str| State::read(&roots.container(id)).ok().flatten().map_or_else(|| id.to_owned(), |state| state.name);
    let endpoints: Vec<String> =
        ids.iter().map(|id| format!("name:{:?} id:{:?}", name(id), recover::short(id))).collect();
    format!(
        "error while removing network: network {} id {} has active endpoints ({}); it is in use: disconnect or remove \
         those containers first",
        definition.name,
        definition.id,
        endpoints.join(", ")
    )
}

/// Takes away what a failed `network create` has made.
pub(super) fn forget(roots: &Roots, name: &str) -> Result<()> {
    {
        let _lock = lock(roots, name)?;
        undo(roots, name)?;
        remove_folder(&roots.network(name));
    }
    settle_of_all(roots)
}

/// What belongs to all networks goes with the last one that is on this host.
fn settle_of_all(roots: &Roots) -> Result<()> {
    let path = journal_path(roots, OF_ALL);
    if path.exists() {
        let _lock = lock(roots, OF_ALL)?;
        if !any_on_this_host(roots) {
            undo_of_all(roots)?;
        }
    }
    // The net_cls mount goes too, unless a container still has a group in it, or somebody else has.
    if !any_on_this_host(roots) && journal_path(roots, SHARED_MOUNTS).exists() {
        let _lock = lock(roots, SHARED_MOUNTS)?;
        let _ = undo(roots, SHARED_MOUNTS);
    }
    Ok(())
}

/// Whether any network has something on this host.
fn any_on_this_host(roots: &Roots) -> bool {
    names(roots).iter().any(|name| journal_path(roots, name).exists())
}

/// The names of the networks that have a folder for the running system.
fn names(roots: &Roots) -> Vec<String> {
    let entries = std::fs::read_dir(roots.run.join("network")).into_iter().flatten().flatten();
    // Locks are files, networks have folders.
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Sweeps what killed processes have left of networks: of the default one when nobody uses it and something of it is
/// missing, of others when they have no definition (any more). A created network that isn't whole is made whole when
/// it's used.
pub fn recover(engine: &Engine) -> Result<()> {
    let roots = &engine.roots;
    let mut removed = false;
    for name in names(roots) {
        forget_gone(roots, &name);
        let folder = roots.network(&name);
        sweep_unborn(roots, &name)?;
        let known = name == DEFAULT_NETWORK || definition::read(roots, &name)?.is_some();
        if (known && !journal_path(roots, &name).exists()) || !users(roots, &name).is_empty() {
            continue;
        }
        if name == DEFAULT_NETWORK {
            removed |= recover_default(engine)?;
        } else if !known {
            let _lock = lock(roots, &name)?;
            if definition::read(roots, &name)?.is_none() && users(roots, &name).is_empty() {
                undo(roots, &name)?;
                remove_folder(&folder);
                removed = true;
            }
        }
    }
    for name in [OF_ALL, SHARED_MOUNTS] {
        forget_gone(roots, name);
        sweep_unborn(roots, name)?;
    }
    let orphaned = journal_path(roots, OF_ALL).exists() && !any_on_this_host(roots);
    if removed || orphaned { settle_of_all(roots) } else { Ok(()) }
}

/// Whether it was taken away.
fn recover_default(engine: &Engine) -> Result<bool> {
    let (roots, name) = (&engine.roots, DEFAULT_NETWORK);
    let network = facts::default_network(engine, host_netns::is_machines_own());
    let _lock = lock(roots, name)?;
    if !users(roots, name).is_empty() {
        return Ok(false);
    }
    let facts = Facts::read(&mut Host::open()?, &network)?;
    if netsetup::plan_network(&network, &facts)?.is_empty() {
        return Ok(false);
    }
    undo(roots, name).map(|_| true)
}

/// A journal whose maker was killed before it had begun.
fn sweep_unborn(roots: &Roots, name: &str) -> Result<()> {
    let unborn = journal_path(roots, name).with_extension("new");
    if unborn.exists() {
        let _lock = lock(roots, name)?;
        let _ = std::fs::remove_file(&unborn);
    }
    Ok(())
}

/// Forwarding stays on while another bridge has an address: another root, or another engine, relies on it.
fn undo_of_all(roots: &Roots) -> Result<()> {
    let others = netsetup::routes::bridges(&mut Host::open()?)?;
    undo_but(roots, OF_ALL, |residue| {
        !others.is_empty() && matches!(residue, Residue::Net(netsetup::Residue::Sysctl { .. }))
    })
    .map(|_| ())
}

/// Undoes a journal of this network namespace. The caller holds the lock of that name. Gives back why a bridge of ours is
/// still there: somebody has put other links into it.
fn undo(roots: &Roots, name: &str) -> Result<Option<String>> {
    undo_but(roots, name, |_| false)
}

fn undo_but(roots: &Roots, name: &str, keep: impl Fn(&Residue) -> bool) -> Result<Option<String>> {
    let path = journal_path(roots, name);
    let mut stayed = None;
    let Some(journal) = Journal::take_over(&path)? else { return Ok(None) };
    let contents = journal.contents()?;
    let header = contents.header.as_ref();
    let this_boot = header.is_some_and(|header| header.boot_id == journal::boot_id());
    if this_boot {
        let entries: Vec<Residue> = contents.entries.iter().filter(|entry| !keep(entry)).cloned().collect();
        let mut tell = |what: String| match what.starts_with("the bridge ") && what.contains(" still has ") {
            true => stayed = Some(what),
            false => eprintln!("minidock: left alone: {what}"),
        };
        first_error(residue::undo_telling(roots, header.and_then(|header| header.netns), &entries, &mut tell))
            .with_context(|| format!("cannot remove network {name}"))?;
    }
    std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    if let Some(folder) = path.parent().filter(|folder| name != SHARED_MOUNTS && folder.ends_with(net_folder())) {
        let _ = std::fs::remove_dir(folder); // one that isn't empty stays
    }
    Ok(stayed)
}

/// Addresses and owners, as far as they are in this network namespace.
pub fn users(roots: &Roots, name: &str) -> Vec<(String, String)> {
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

/// Containers that are to be in the network when they're started again.
pub fn stopped_users(roots: &Roots, definition: &Definition) -> Vec<State> {
    let mut states = containers::all(roots);
    states.retain(|state| {
        crate::view::request(state).is_ok_and(|request| {
            request.network.attach.iter().any(|one| one.network == definition.name || one.network == definition.id)
        })
    });
    states
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

/// Removes a network's folder for the running system, as far as it holds nothing of another network namespace. The caller
/// holds its lock, which goes with it: whoever waits for it notices.
pub fn remove_folder(folder: &Path) {
    let entries: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
    for entry in &entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("net-") {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
    let elsewhere = entries
        .iter()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("net-") && entry.path().join("journal").exists());
    if !elsewhere {
        let _ = std::fs::remove_dir_all(folder);
    }
}
