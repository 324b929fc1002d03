//! The volume family: making one. A complete volume has no residue of its own: a named one stays, whoever made it (docker's
//! rule), and an anonymous one is in its container's journal from the reservation on. Half-made ones are swept by name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;

use super::{ANONYMOUS, Record, Store};
use crate::events::{self, Event};
use crate::explain::{Command, quote};
use crate::roots::Roots;

/// An operation on volumes.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A volume that isn't there yet. Another maker may come first: then theirs is used.
    Make {
        /// The store's folder.
        store: PathBuf,
        /// The name.
        name: String,
        /// `volume-label` and the mark of anonymous ones.
        labels: BTreeMap<String, String>,
        /// `volume-opt`.
        driver: BTreeMap<String, String>,
    },
}

impl Op {
    /// The commands a person would type.
    pub fn explain(&self) -> Vec<Command> {
        let Op::Make { store, name, labels, .. } = self;
        let why = if labels.contains_key(ANONYMOUS) { "an anonymous volume" } else { "a new volume" };
        let (folder, data) = (store.join(name), store.join(name).join("_data"));
        vec![(
            format!(
                "mkdir -p -m 700 {} && mkdir -p -m 701 {} && mkdir -m 755 {}",
                quote(store),
                quote(&folder),
                quote(&data)
            ),
            why.to_string(),
        )]
    }

    /// How a person takes it away again; a volume with a name stays.
    pub fn explain_undo(&self) -> Vec<Command> {
        let Op::Make { store, name, labels, .. } = self;
        let command = (format!("rm -rf {}", quote(&store.join(name))), "the anonymous volume".to_string());
        if labels.contains_key(ANONYMOUS) { vec![command] } else { vec![] }
    }
}

/// Makes them, in order.
///
/// # Errors
/// The file system's.
pub fn apply(ops: &[Op]) -> Result<()> {
    for op in ops {
        let Op::Make { store, name, labels, driver } = op;
        Store { dir: store.clone() }.create(&Record::new(name, labels.clone(), driver.clone()))?;
    }
    Ok(())
}

/// Takes a container's anonymous volume away, unless others use it.
///
/// # Errors
/// The file system's.
pub fn undo(roots: &Roots, name: &str, id: &str) -> Result<()> {
    let store = Store::of(roots);
    let was_there = store.folder(name).exists();
    store.remove_anonymous(name, &|name| super::users::of(roots, name, Some(id)))?;
    if was_there && !store.folder(name).exists() {
        events::note(roots, Event::volume("destroy", name));
    }
    Ok(())
}
