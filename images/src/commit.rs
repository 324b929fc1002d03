//! The last step of `load` and `import`: what lies finished in the workspace is renamed into the store, under the
//! lock, in an order in which whatever exists has what it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::digest::{Digest, ImageId};
use crate::error::{Error, Result, at};
use crate::load::Loaded;
use crate::reference::Reference;
use crate::store::{LayerRecord, Record, Store, VERSION, rename, write_json};
use crate::workspace::Workspace;

/// An unpacked layer in the workspace, its record beside it.
pub(crate) struct Tree {
    pub path: PathBuf,
    pub record: LayerRecord,
}

/// An image to be committed; its files lie in the workspace.
pub(crate) struct Prepared {
    pub id: ImageId,
    pub path: PathBuf,
    pub layers: Vec<Digest>,
    pub names: Vec<Reference>,
}

/// Writes an image's files into the workspace. None: a layer is missing.
pub(crate) fn prepare(
    store: &Store,
    workspace: &Workspace,
    trees: &BTreeMap<Digest, Tree>,
    raw: Vec<u8>,
    manifest: Option<&[u8]>,
    layers: Vec<Digest>,
    names: Vec<Reference>,
) -> Result<Option<Prepared>> {
    // The legacy form's document has been made by us from theirs: what we store must be readable.
    Config::check(raw.clone()).map_err(|why| Error::Refused { archive: String::new(), entry: None, why })?;
    let mut size_bytes = 0;
    for diff_id in BTreeSet::from_iter(&layers) {
        size_bytes += match trees.get(diff_id) {
            Some(tree) => tree.record.size_bytes,
            None => match store.layer(diff_id)? {
                Some(record) => record.size_bytes,
                None => return Ok(None),
            },
        };
    }
    let id = ImageId(Digest::of(&raw));
    let path = workspace.path().join(format!("image-{}", id.0.hex()));
    let write = |name: &str, bytes: &[u8]| {
        let path = path.join(name);
        std::fs::write(&path, bytes).map_err(at("write", &path))
    };
    match std::fs::create_dir(&path) {
        // From the try before.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => made.map_err(at("create", &path))?,
    }
    write("config.json", &raw)?;
    if let Some(manifest) = manifest {
        write("manifest.json", manifest)?;
    }
    let manifest_digest = manifest.map(Digest::of);
    let record = Record { version: VERSION, layers: layers.clone(), size_bytes, manifest_digest };
    write_json(&path.join("image.json"), &record)?;
    Ok(Some(Prepared { id, path, layers, names }))
}

/// Moves everything into place. None: a layer is missing. On an error, what was moved is moved back.
pub(crate) fn commit(
    store: &Store,
    workspace: &Workspace,
    trees: &mut BTreeMap<Digest, Tree>,
    images: &[Prepared],
    sync: bool,
) -> Result<Option<Vec<Loaded>>> {
    if sync && !trees.is_empty() {
        let dir = store.dir();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        let fd = rustix::fs::open(dir, flags, rustix::fs::Mode::empty()).map_err(at("open", dir))?;
        rustix::fs::syncfs(&fd).map_err(at("write to the disk", dir))?;
    }
    let _lock = store.lock_exclusive()?;
    for diff_id in images.iter().flat_map(|image| &image.layers) {
        if !trees.contains_key(diff_id) && store.layer(diff_id)?.is_none() {
            return Ok(None);
        }
    }
    let mut moves = Moves::default();
    let result = move_all(store, workspace, trees, images, &mut moves);
    if result.is_err() {
        moves.back();
    }
    result.map(Some)
}

/// Renames that can be taken back.
#[derive(Default)]
struct Moves(Vec<(PathBuf, PathBuf)>);

impl Moves {
    fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        rename(from, to)?;
        self.0.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn back(self) {
        for (from, to) in self.0.iter().rev() {
            // Where this fails, too, sweep will find a layer or a folder that nobody names.
            let _ = rename(to, from);
        }
    }
}

/// A layer's tree first, then its record, then the images, then the names: whatever exists has what it needs.
fn move_all(
    store: &Store,
    workspace: &Workspace,
    trees: &BTreeMap<Digest, Tree>,
    images: &[Prepared],
    moves: &mut Moves,
) -> Result<Vec<Loaded>> {
    let used: BTreeSet<&Digest> = images.iter().flat_map(|image| &image.layers).collect();
    for (diff_id, tree) in trees.iter().filter(|(diff_id, _)| used.contains(diff_id)) {
        if store.layer(diff_id)?.is_some() {
            continue;
        }
        let to = store.layer_path(diff_id);
        if to.exists() {
            // Half a commit of a crashed process.
            rename(&to, &workspace.path().join(format!("half-{}", diff_id.hex())))?;
        }
        moves.rename(&tree.path, &to)?;
        moves.rename(&tree.path.with_extension("json"), &to.with_extension("json"))?;
    }
    for image in images {
        let to = store.dir().join("by-id").join(image.id.0.hex());
        if !to.exists() {
            moves.rename(&image.path, &to)?;
        }
    }
    let mut loaded = Vec::new();
    for image in images {
        let mut moved = Vec::new();
        for name in &image.names {
            if let Some(before) = store.set_name(workspace, name, image.id)?.filter(|before| *before != image.id) {
                moved.push((name.clone(), before));
            }
        }
        loaded.push(Loaded { id: image.id, names: image.names.clone(), moved });
    }
    Ok(loaded)
}
