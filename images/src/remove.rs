//! `rmi`, and the sweep of what crashed processes have left.
//!
//! Everything is renamed into a workspace under the lock, and deleted from there when nobody waits any more.

use std::collections::BTreeSet;

use crate::digest::{Digest, ImageId};
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::store::{Store, layer_name, rename};
use crate::workspace::{self, Workspace};

/// One step of a removal, in the order and with the words of `docker rmi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(Reference),
    /// The image is gone.
    Deleted(ImageId),
    /// A layer that no other image uses is gone (its diff id).
    DeletedLayer(Digest),
}

impl Store {
    /// Removes what crashed jobs have left; gives their number. `load`, `import` and `remove` do it themselves.
    pub fn sweep(&self) -> Result<usize> {
        let swept = workspace::sweep(&self.dir.join("tmp"))?;
        self.sweep_layers()?;
        Ok(swept)
    }

    /// Layers that no image uses: a crash came in the middle of a commit or of a removal.
    fn sweep_layers(&self) -> Result<()> {
        if self.orphans().is_ok_and(|orphans| orphans.is_empty()) {
            return Ok(());
        }
        // It may just as well be a commit that is under way: what counts is what one sees under the lock.
        let trash = self.workspace()?;
        let _lock = self.lock_exclusive()?;
        for name in self.orphans()? {
            rename(&self.dir.join("layers").join(&name), &trash.path().join(&name))?;
        }
        Ok(())
    }

    /// Files below `layers/` that belong to no image.
    fn orphans(&self) -> Result<Vec<String>> {
        let files = self.list("layers")?;
        let used: BTreeSet<String> = self.used_layers()?.iter().map(layer_name).collect();
        let whole = |name: &String| {
            let layer = name.strip_suffix(".json").unwrap_or(name);
            layer == "empty" || used.contains(layer)
        };
        Ok(files.into_iter().filter(|name| !whole(name)).collect())
    }

    fn used_layers(&self) -> Result<BTreeSet<Digest>> {
        let mut used = BTreeSet::new();
        for id in self.ids()? {
            used.extend(self.record(id)?.layers);
        }
        Ok(used)
    }

    /// Removes a name, or an image with its names, as `docker rmi`: by name while it has others, only the name;
    /// otherwise the image and the layers that no other image uses. `in_use` names the containers of an image;
    /// an image in use is never deleted. With `force`, its last name can be taken away all the same, and several
    /// names by one id.
    pub fn remove(
        &self,
        name_or_id: &str,
        force: bool,
        in_use: &dyn Fn(&ImageId) -> Vec<String>,
    ) -> Result<Vec<Removed>> {
        self.sweep()?;
        // Declared before the lock: the trees are deleted when nobody waits for it any more.
        let trash = self.workspace()?;
        let _lock = self.lock_exclusive()?;
        let id = self.resolve(name_or_id)?;
        let names = self.names_of(id)?;
        let asked = Reference::parse(name_or_id).ok().filter(|name| names.contains(name));
        let users = in_use(&id);
        let refuse = |users| Err(Error::InUse { image: name_or_id.to_owned(), users });
        let untag = match &asked {
            Some(name) if names.len() > 1 => return self.untag(&trash, std::slice::from_ref(name)),
            Some(name) if !users.is_empty() && force => {
                return self.untag(&trash, std::slice::from_ref(name));
            }
            _ if !users.is_empty() => return refuse(users),
            None if names.len() > 1 && !force => {
                let names = names.iter().map(Reference::to_string).collect();
                return Err(Error::SeveralNames { id: id.short(), names });
            }
            _ => names,
        };
        let mut removed = self.untag(&trash, &untag)?;
        self.delete(&trash, id, &mut removed)?;
        Ok(removed)
    }

    fn untag(&self, trash: &Workspace, names: &[Reference]) -> Result<Vec<Removed>> {
        let mut removed = Vec::new();
        for (count, name) in names.iter().enumerate() {
            rename(&self.name_path(name)?, &trash.path().join(format!("name-{count}")))?;
            removed.push(Removed::Untagged(name.clone()));
        }
        Ok(removed)
    }

    /// The image first, then each layer's record before its tree: a crash leaves only what sweep knows.
    fn delete(&self, trash: &Workspace, id: ImageId, removed: &mut Vec<Removed>) -> Result<()> {
        let layers = self.record(id)?.layers;
        rename(&self.dir.join("by-id").join(id.0.hex()), &trash.path().join("image"))?;
        removed.push(Removed::Deleted(id));
        let used = self.used_layers()?;
        let mut done = BTreeSet::new();
        for layer in layers.iter().rev() {
            if used.contains(layer) || !done.insert(*layer) {
                continue;
            }
            let tree = self.layer_path(layer);
            let name = layer_name(layer);
            rename(&tree.with_extension("json"), &trash.path().join(format!("{name}.json")))?;
            rename(&tree, &trash.path().join(name))?;
            removed.push(Removed::DeletedLayer(*layer));
        }
        Ok(())
    }
}
