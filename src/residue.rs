//! Residues: what an operation leaves on the host when every process is dead, and how it is taken away again.
//!
//! A residue holds what undo needs (kind, name, owner mark), not the whole operation, so an older or newer minidock can
//! undo it. This enum is the sum of the families'; their own modules know how.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::crash;
use crate::explain::{Command, quote};
use crate::roots::Roots;
use crate::{files, host_netns, volume};

/// One journal entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residue {
    /// A container's own folder: image changes, logs, state, and the journal itself.
    Folder {
        /// The folder's path.
        path: PathBuf,
    },
    /// A mount in the host's mount namespace.
    Mount {
        /// Where.
        path: PathBuf,
    },
    /// A container's name, a symbolic link to its id.
    Name {
        /// The name.
        name: String,
        /// The owner.
        id: String,
    },
    /// An anonymous volume of a container. It goes with the container, if no other uses it.
    Volume {
        /// Its name.
        name: String,
        /// The container.
        id: String,
    },
    /// The container's anonymous volumes are to stay: it was removed by a plain `rm`. Nothing on the host by itself; a
    /// crash in the middle of the removal must not forget it.
    VolumesStay,
    /// An address of a network.
    Lease {
        /// The network's name.
        network: String,
        /// The address.
        address: IpAddr,
        /// The owner.
        id: String,
    },
    /// A container's entry in a network's register of names.
    Names {
        /// The register.
        folder: PathBuf,
        /// The container's id.
        id: String,
    },
    /// A link, rule, sysctl or name of a network namespace.
    Net(netsetup::Residue),
    /// A control group or a cgroup mount.
    Cgroup(runtime::cgroup::Residue),
}

impl Residue {
    /// Whether it belongs to one run of the container (gone when its program ends) or to the container itself (gone
    /// with `rm`).
    pub fn ends_with_run(&self) -> bool {
        !matches!(self, Residue::Folder { .. } | Residue::Name { .. } | Residue::Volume { .. } | Residue::VolumesStay)
    }
}

impl Residue {
    /// How a person takes it away by hand: the commands, and why. What a script of `--dry-run` never makes has none.
    pub fn explain(&self) -> Vec<Command> {
        match self {
            Residue::Mount { path } => {
                vec![(format!("umount {} 2>/dev/null || :", quote(path)), "the mount".to_string())]
            }
            Residue::Names { folder, id } => {
                netsetup::Residue::Names { folder: folder.clone(), id: id.clone() }.explain()
            }
            Residue::Net(residue) => residue.explain(),
            Residue::Cgroup(residue) => residue.explain(),
            Residue::Folder { .. }
            | Residue::Name { .. }
            | Residue::Volume { .. }
            | Residue::VolumesStay
            | Residue::Lease { .. } => vec![],
        }
    }
}

/// Takes residues away, last made first. Goes on after a failure and gives back what went wrong; what is already gone is
/// success, and what isn't ours is left alone and told.
///
/// `netns`: the inode of the network namespace that the entries were made in.
pub fn undo(roots: &Roots, netns: Option<u64>, entries: &[Residue]) -> Vec<anyhow::Error> {
    undo_telling(roots, netns, entries, &mut |what| eprintln!("minidock: left alone: {what}"))
}

/// As [`undo`]; `left` hears of what is left alone.
pub fn undo_telling(
    roots: &Roots,
    netns: Option<u64>,
    entries: &[Residue],
    left: &mut dyn FnMut(String),
) -> Vec<anyhow::Error> {
    let mut errors = Vec::new();
    let mut rest = entries;
    let mut rules_stay = false;
    while let Some(last) = rest.last() {
        // A family takes its whole run of entries at once, so that it can send them in one message.
        let start = rest.iter().rposition(|other| !same_family(other, last)).map_or(0, |index| index + 1);
        let (before, run) = rest.split_at(start);
        rest = before;
        crash::point(crash::When::Before);
        // What still leads to an address would lead to its next owner: it's given back when the next undo has succeeded.
        if !(rules_stay && matches!(last, Residue::Lease { .. }))
            && let Err(error) = undo_family(roots, netns, run, left)
        {
            rules_stay |= matches!(last, Residue::Net(_));
            errors.extend(error);
        }
        crash::point(crash::When::After);
    }
    errors
}

fn same_family(a: &Residue, b: &Residue) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

fn undo_family(
    roots: &Roots,
    netns: Option<u64>,
    run: &[Residue],
    left: &mut dyn FnMut(String),
) -> Result<(), Vec<anyhow::Error>> {
    let mut net = Vec::new();
    let mut cgroups = Vec::new();
    let mut errors = Vec::new();
    for residue in run.iter().rev() {
        let done = match residue {
            Residue::Net(residue) => {
                net.push(residue.clone());
                Ok(())
            }
            Residue::Cgroup(residue) => {
                cgroups.push(residue.clone());
                Ok(())
            }
            Residue::Folder { path } => files::remove_folder(roots, path),
            Residue::Mount { path } => files::remove_mount(roots, path),
            Residue::Volume { name, id } => volume::op::undo(roots, name, id),
            Residue::VolumesStay => Ok(()),
            Residue::Name { name, id } => files::remove_name(roots, name, id),
            Residue::Names { folder, id } => netsetup::dns::names::withdraw(folder, id).map(|_| ()).map_err(Into::into),
            Residue::Lease { network, address, id } => {
                errors.extend(crate::router::container_ends(roots, id).err());
                netsetup::lease::release(&roots.leases(network), id, *address).map(|_| ()).map_err(Into::into)
            }
        };
        errors.extend(done.err());
    }
    if !net.is_empty() {
        errors.extend(undo_net(netns, &net, left));
    }
    for result in runtime::cgroup::undo(&cgroups) {
        match result {
            Ok(runtime::cgroup::Undone::NotOurs(what)) => left(what.to_string()),
            Ok(_) => {}
            Err(error) => errors.push(error.into()),
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn undo_net(netns: Option<u64>, residues: &[netsetup::Residue], left: &mut dyn FnMut(String)) -> Vec<anyhow::Error> {
    let entered = match host_netns::enter(netns) {
        Ok(host_netns::Entered::Gone) => return vec![], // its links and rules went with it
        Ok(entered) => entered,
        Err(error) => return vec![error],
    };
    let mut host = match netsetup::Host::open() {
        Ok(host) => host,
        Err(error) => return vec![anyhow!(error)],
    };
    let mut errors = Vec::new();
    for result in netsetup::undo(residues, &mut host) {
        match result {
            Ok(netsetup::Undone::NotOurs(what)) => left(what),
            Ok(_) => {}
            Err(error) => errors.push(error.into()),
        }
    }
    drop(entered);
    errors
}
