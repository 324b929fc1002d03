//! The networks' registers of names, as a running container's journal knows them: striking it out, and its new name.

use anyhow::Result;
use netsetup::dns::names;

use crate::residue::Residue;

/// Nobody finds it by name any more. What can't be struck out now, the undo of the journal tries again.
pub fn strike_out(entries: &[Residue]) {
    for entry in entries {
        if let Residue::Names { folder, id } = entry {
            let _ = names::withdraw(folder, id);
        }
    }
}

/// Its new name takes the old one's place in all its networks.
pub fn rename(entries: &[Residue], new: &str) -> Result<()> {
    for residue in entries {
        let Residue::Names { folder, id } = residue else { continue };
        let Some(mut entry) = names::entry(folder, id) else { continue };
        // The name comes first.
        entry.names.iter_mut().take(1).for_each(|name| *name = new.to_string());
        names::publish(folder, id, &entry)?;
    }
    Ok(())
}
