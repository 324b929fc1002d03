//! Who uses a volume: the containers whose journals name it, from the first moment of their making until they're removed.

use crate::containers;
use crate::journal;
use crate::roots::Roots;

/// The full ids of the containers that a volume belongs to, but `except`.
pub fn of(roots: &Roots, name: &str, except: Option<&str>) -> Vec<String> {
    let mut users = containers::ids(roots);
    users.retain(|id| Some(id.as_str()) != except && names_of(roots, id).iter().any(|other| other == name));
    users
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

fn names_of(roots: &Roots, id: &str) -> Vec<String> {
    let contents = journal::read(&roots.container(id).join("journal"));
    contents.ok().and_then(|contents| contents.header).map(|header| header.volumes).unwrap_or_default()
}
