//! A router's end: undo of its journals. `rm`, a failed `create` and the recovery after a crash all come here.

use std::path::Path;

use anyhow::{Context, Result, bail};
use netsetup::{Host, Links, Residue as Net, Undone};

use super::definition::{self, ASLEEP, STANDING};
use super::{PROBLEM, find, folder, folder_of_all, lock, wishes};
use crate::containers;
use crate::host_netns;
use crate::journal::{self, Journal};
use crate::recover::first_error;
use crate::residue::{self, Residue};
use crate::roots::Roots;

/// Removes a router with its one-to-one addresses.
pub fn remove(roots: &Roots, name: &str) -> Result<()> {
    let _lock = lock(roots)?;
    if definition::read(roots, name, ASLEEP)?.is_none() {
        find(roots, name)?;
    }
    undo_router(roots, name)
}

/// Undoes routers and addresses that were cut off in their making, or whose container is gone. A router whose boot is over
/// falls asleep, with what its containers wish of it. Nothing is read where nobody has ever made a router.
pub fn recover(roots: &Roots) -> Result<()> {
    if !folder_of_all(roots).exists() {
        return Ok(());
    }
    let _lock = lock(roots)?;
    for name in names_in(&folder_of_all(roots)) {
        let folder = folder(roots, &name);
        // Written when all of it stands; what a newer version wrote stands too.
        if folder.join(STANDING).exists() && !of_this_boot(&folder) {
            std::fs::rename(folder.join(STANDING), folder.join(ASLEEP))?;
        }
        if !folder.join(STANDING).exists() {
            match folder.join(ASLEEP).exists() {
                true => put_to_sleep(roots, &name)?,
                false => undo_router(roots, &name)?,
            }
            continue;
        }
        // Killed between the two when it was made again.
        ignore_missing(std::fs::remove_file(folder.join(ASLEEP)))?;
        for address in names_in(&folder.join("floating")) {
            let folder = folder.join("floating").join(&address);
            let written = std::fs::read(folder.join("floating.json")).ok();
            let floating: Option<super::Floating> = written.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let alive = floating.is_some_and(|floating| containers::find_running(roots, &floating.container).is_ok());
            if !alive {
                undo_folder(roots, &folder)?;
            }
        }
    }
    Ok(())
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

fn of_this_boot(folder: &Path) -> bool {
    journal::read(&folder.join("journal"))
        .is_ok_and(|contents| contents.header.is_some_and(|header| header.boot_id == journal::boot_id()))
}

/// Takes away what is on the host of a router that isn't (or no longer) made; definition and wishes stay. The caller holds
/// the routers' lock.
pub(super) fn put_to_sleep(roots: &Roots, name: &str) -> Result<()> {
    let folder = folder(roots, name);
    undo_floating(roots, &folder)?;
    undo_journal(roots, &folder)
}

fn undo_floating(roots: &Roots, folder: &Path) -> Result<()> {
    for address in names_in(&folder.join("floating")) {
        undo_folder(roots, &folder.join("floating").join(address))?;
    }
    Ok(ignore_missing(std::fs::remove_dir(folder.join("floating")))?)
}

/// The caller holds the routers' lock.
pub(super) fn undo_router(roots: &Roots, name: &str) -> Result<()> {
    let folder = folder(roots, name);
    // From here on it counts as half-made, whatever happens.
    ignore_missing(std::fs::remove_file(folder.join(ASLEEP)))?;
    ignore_missing(std::fs::remove_file(folder.join(STANDING)))?;
    ignore_missing(std::fs::remove_file(folder.join(PROBLEM)))?;
    undo_floating(roots, &folder)?;
    ignore_missing(std::fs::remove_dir_all(folder.join(wishes::FOLDER)))?;
    undo_folder(roots, &folder)
}

/// Undoes the journal in a folder, then removes the folder.
pub(super) fn undo_folder(roots: &Roots, folder: &Path) -> Result<()> {
    undo_journal(roots, folder)?;
    ignore_missing(std::fs::remove_dir(folder)).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Undoes the journal in a folder, and removes what was written with it, the journal last.
fn undo_journal(roots: &Roots, folder: &Path) -> Result<()> {
    let path = folder.join("journal");
    if path.exists() {
        let Some(journal) = Journal::take_over(&path)? else {
            bail!("the journal {} is held by another process", path.display());
        };
        let contents = journal.contents()?;
        if let Some((_, unknown)) = contents.unknown.first() {
            bail!("the journal {} was written by a newer minidock ({unknown}): remove it with that", path.display());
        }
        let header = contents.header.as_ref();
        let this_boot = header.is_some_and(|header| header.boot_id == journal::boot_id());
        let outlives =
            |entry: &&Residue| this_boot || matches!(entry, Residue::Lease { .. } | Residue::Net(Net::OvsPort { .. }));
        let entries: Vec<Residue> = contents.entries.iter().filter(outlives).cloned().collect();
        first_error(undo_entries(roots, header.and_then(|header| header.netns), &entries))
            .with_context(|| format!("cannot undo {}", folder.display()))?;
    }
    let context = || format!("cannot remove {}", folder.display());
    for name in ["journal.new", "router.json", "router.json.tmp", "floating.json", "floating.json.tmp", "journal"] {
        ignore_missing(std::fs::remove_file(folder.join(name))).with_context(context)?;
    }
    Ok(())
}

/// Links are removed at once: nothing else would take them away while the namespace lives.
fn undo_entries(roots: &Roots, netns: Option<u64>, entries: &[Residue]) -> Vec<anyhow::Error> {
    let mut errors = Vec::new();
    for entry in entries.iter().rev() {
        let Residue::Net(net) = entry else {
            errors.extend(residue::undo(roots, netns, std::slice::from_ref(entry)));
            continue;
        };
        let _entered = match host_netns::enter(netns) {
            // Its links went with it; names and the switch's database are in no network namespace.
            Ok(host_netns::Entered::Gone) if matches!(net, Net::Link { .. }) => continue,
            Ok(entered) => entered,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let results = match Host::open() {
            Ok(mut host) => netsetup::undo_with(std::slice::from_ref(net), &mut host, Links::WaitMs(0)),
            Err(error) => vec![Err(error)],
        };
        for result in results {
            match result {
                Ok(Undone::NotOurs(what)) => eprintln!("minidock: left alone: {what}"),
                Ok(_) => {}
                Err(error) => errors.push(error.into()),
            }
        }
    }
    errors
}

fn ignore_missing(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
