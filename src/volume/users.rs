//! Who uses a volume: the containers whose journals name it, from the first moment of their making until they're removed.

use crate::containers;
use crate::journal;
use crate::recover;
use crate::roots::Roots;
use crate::state::State;

/// The full ids of the containers that a volume belongs to, but `except`.
pub fn of(roots: &Roots, name: &str, except: Option<&str>) -> Vec<String> {
    let mut users = containers::ids(roots);
    users.retain(|id| Some(id.as_str()) != except && names_of(roots, id).iter().any(|other| other == name));
    users
}

/// Waits for the removal of containers with volumes that have ended with `--rm`: to their users they are gone already.
pub fn settle(roots: &Roots) {
    for id in containers::ids(roots) {
        if header(roots, &id).is_some_and(|header| header.auto_remove && !header.volumes.is_empty()) {
            // What can't be removed is told when its left-overs are recovered.
            let _ = recover::wait_if_ending(roots, &id);
        }
    }
}

/// How many containers use each volume.
pub fn counts(roots: &Roots) -> std::collections::HashMap<String, usize> {
    let mut counts = std::collections::HashMap::new();
    for id in containers::ids(roots) {
        for name in names_of(roots, &id) {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

/// Whether another container runs with the volume.
pub fn has_mounted(roots: &Roots, name: &str, except: &str) -> bool {
    let alive = |id: &String| State::read(&roots.container(id)).ok().flatten().is_some_and(|state| state.is_alive());
    of(roots, name, Some(except)).iter().any(alive)
}

fn names_of(roots: &Roots, id: &str) -> Vec<String> {
    header(roots, id).map(|header| header.volumes).unwrap_or_default()
}

fn header(roots: &Roots, id: &str) -> Option<journal::Header> {
    journal::read(&roots.container(id).join("journal")).ok()?.header
}
