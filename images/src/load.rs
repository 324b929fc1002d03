//! `load`: archive → layers unpacked side by side in a workspace → one short commit under the lock.
//!
//! Until the commit nothing of the store changes; what fails before it leaves nothing behind.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::archive::{Archive, Input};
use crate::commit::{Prepared, Tree, commit, prepare};
use crate::compression::decode;
use crate::digest::{Digest, ImageId};
use crate::error::{Error, Failure, Result};
use crate::formats::{self, Found, FoundConfig, Layer};
use crate::layer;
use crate::limits::{Devices, Limits};
use crate::meter::{Budget, Stored, Unpacked};
use crate::progress::{Callback, Phase, Progress};
use crate::reference::Reference;
use crate::store::{LayerRecord, Store, VERSION, write_json};
use crate::workspace::Workspace;

/// How to load or import.
pub struct LoadOptions {
    /// Bounds for hostile archives.
    pub limits: Limits,
    /// What to do with device nodes.
    pub devices: Devices,
    /// Told how far it is.
    pub progress: Option<Callback>,
    /// Write everything to the disk before the commit (syncfs), so that a crash of the *machine* can't leave a
    /// layer half written. Without it a load is faster; a crash of the process does no harm either way.
    pub sync: bool,
    /// Layers to unpack at the same time; 0 chooses. The threads end before `load` returns.
    pub threads: usize,
    /// Give the images the names that the archive has for them.
    pub names: bool,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        let (limits, devices) = (Limits::default(), Devices::default());
        LoadOptions { limits, devices, progress: None, sync: true, threads: 0, names: true }
    }
}

/// An image that `load` or `import` has put into the store.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its id.
    pub id: ImageId,
    /// The names that it got now.
    pub names: Vec<Reference>,
    /// Those of them that another image had until now.
    pub moved: Vec<(Reference, ImageId)>,
}

impl Store {
    /// Loads all images of an archive.
    pub fn load(&self, input: Input, options: &LoadOptions) -> Result<Vec<Loaded>> {
        self.sweep()?;
        let workspace = self.workspace()?;
        let progress = Progress::new(options.progress.as_ref());
        let archive = Archive::open(&input, &workspace, &options.limits, &progress)?;
        let found = formats::read(&archive, &options.limits)?;
        let mut job = Job::new(self, &workspace, &archive, options, &progress, &found);
        loop {
            job.unpack_missing()?;
            if let Some(loaded) = job.commit()? {
                return Ok(loaded);
            }
            // Another process has removed a layer that we counted on; now we unpack it ourselves. This ends when
            // we have all of them.
        }
    }
}

struct Job<'a> {
    store: &'a Store,
    workspace: &'a Workspace,
    archive: &'a Archive,
    options: &'a LoadOptions,
    progress: &'a Progress<'a>,
    found: &'a [Found],
    /// Each layer of the archive once, and for each image the numbers of its layers.
    layers: Vec<&'a Layer>,
    images: Vec<Vec<usize>>,
    /// The layers' diff ids, as far as known.
    diff_ids: Vec<Option<Digest>>,
    /// What we have unpacked.
    trees: BTreeMap<Digest, Tree>,
    budget: Budget<'a>,
}

impl<'a> Job<'a> {
    fn new(
        store: &'a Store,
        workspace: &'a Workspace,
        archive: &'a Archive,
        options: &'a LoadOptions,
        progress: &'a Progress<'a>,
        found: &'a [Found],
    ) -> Job<'a> {
        let (mut layers, mut images) = (Vec::new(), Vec::new());
        let mut known = BTreeMap::new();
        for image in found {
            let numbers = image.layers.iter().map(|layer| {
                // Layers of the oldest form don't say their diff id; the place in the archive distinguishes them.
                let key = (layer.diff_id, layer.diff_id.is_none().then(|| layer.blob.place()));
                *known.entry(key).or_insert_with(|| {
                    layers.push(layer);
                    layers.len() - 1
                })
            });
            images.push(numbers.collect());
        }
        let diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        let budget = Budget::new(&options.limits);
        let trees = BTreeMap::new();
        Job { store, workspace, archive, options, progress, found, layers, images, diff_ids, trees, budget }
    }

    /// Unpacks what neither the store nor the workspace has.
    fn unpack_missing(&mut self) -> Result<()> {
        let mut todo = Vec::new();
        for (number, diff_id) in self.diff_ids.iter().enumerate() {
            match diff_id {
                Some(diff_id) if self.trees.contains_key(diff_id) || self.store.layer(diff_id)?.is_some() => {}
                _ => {
                    let name = format!("layer-{}-{number}", self.trees.len());
                    let (path, folder) = self.workspace.folder(&name, 0o755)?;
                    todo.push(Todo { number, layer: self.layers[number], path, folder });
                }
            }
        }
        let total = todo.iter().map(|todo| todo.layer.blob.size).sum();
        let unpack = |todo: &Todo<'_>| unpack_one(todo, self.options, &self.budget, self.progress, total);
        let results = side_by_side(&todo, self.options.threads, &self.budget, unpack)
            .map_err(|failure| failure.of(&self.archive.name, self.store.dir()))?;
        for (todo, record) in todo.into_iter().zip(results) {
            write_json(&todo.path.with_extension("json"), &record)?;
            self.diff_ids[todo.number] = Some(record.diff_id);
            self.trees.insert(record.diff_id, Tree { path: todo.path, record });
        }
        Ok(())
    }

    /// None: a layer is neither in the store nor in the workspace any more.
    fn commit(&mut self) -> Result<Option<Vec<Loaded>>> {
        let mut prepared: Vec<Prepared> = Vec::new();
        for (found, numbers) in self.found.iter().zip(&self.images) {
            let Some(layers) = numbers.iter().map(|number| self.diff_ids[*number]).collect::<Option<Vec<_>>>() else {
                return Ok(None);
            };
            let raw = match &found.config {
                FoundConfig::Ready(raw) => raw.clone(),
                FoundConfig::Legacy(legacy) => formats::modern(legacy, &layers).to_string().into_bytes(),
            };
            let names = if self.options.names { found.names.clone() } else { Vec::new() };
            let manifest = found.manifest.as_deref();
            let id = ImageId(Digest::of(&raw));
            // One image twice in an archive: all names go to it.
            match prepared.iter_mut().find(|image| image.id == id) {
                Some(known) => known.names.extend(names),
                None => {
                    let Some(image) = prepare(self.store, self.workspace, &self.trees, raw, manifest, layers, names)
                        .map_err(|error| self.name_it(error))?
                    else {
                        return Ok(None);
                    };
                    prepared.push(image);
                }
            }
        }
        self.progress.at(Phase::Committing, 0, None);
        commit(self.store, self.workspace, &mut self.trees, &prepared, self.options.sync)
    }

    fn name_it(&self, error: Error) -> Error {
        match error {
            Error::Refused { entry, why, .. } => Error::Refused { archive: self.archive.name.clone(), entry, why },
            error => error,
        }
    }
}

/// A layer and the empty folder for it.
struct Todo<'a> {
    number: usize,
    layer: &'a Layer,
    path: PathBuf,
    folder: OwnedFd,
}

/// Unpacks one layer and verifies both of its digests.
fn unpack_one(
    todo: &Todo<'_>,
    options: &LoadOptions,
    budget: &Budget<'_>,
    progress: &Progress<'_>,
    total: u64,
) -> Result<LayerRecord, Failure> {
    let Layer { entry, blob, digest, diff_id } = todo.layer;
    let mut stored = Stored::new(blob.reader(), Some((progress, total)));
    let result = unpack_stream(&mut stored, &todo.folder, options.devices, budget);
    let (record, _) = result.map_err(|failure| failure.within(entry))?;
    let refused = |why| Err(Failure::Refused { entry: Some(entry.clone()), why });
    let is = stored.digest();
    if let Some(said) = digest
        && is != *said
    {
        return refused(format!("its digest is {is}, not {said}: damaged"));
    }
    if let Some(said) = diff_id
        && record.diff_id != *said
    {
        return refused(format!(
            "unpacked, its digest is {}, not {said}: damaged, or of another image",
            record.diff_id
        ));
    }
    Ok(record)
}

/// Unpacks a stream, compressed or not, to its last byte; says whether it had tar's end marker.
pub(crate) fn unpack_stream(
    stored: &mut Stored<'_, impl std::io::Read>,
    folder: &OwnedFd,
    devices: Devices,
    budget: &Budget<'_>,
) -> Result<(LayerRecord, bool), Failure> {
    let counter = stored.counter();
    let reading = |error| Failure::reading(error, None);
    let (_, decoded) = decode(&mut *stored).map_err(reading)?;
    let mut unpacked = Unpacked::new(decoded, counter, budget);
    let contents = layer::unpack(&mut unpacked, folder, devices, budget)?;
    let (diff_id, _) = unpacked.finish();
    // What a decoder leaves unread belongs to the blob's digest, too.
    std::io::copy(stored, &mut std::io::sink()).map_err(reading)?;
    Ok((LayerRecord { version: VERSION, diff_id, size_bytes: contents.size_bytes }, contents.ended))
}

/// Runs `work` for all items, several at a time. The first failure stops the others and is the result.
fn side_by_side<T: Sync, U: Send>(
    items: &[T],
    threads: usize,
    budget: &Budget<'_>,
    work: impl Fn(&T) -> Result<U, Failure> + Sync,
) -> Result<Vec<U>, Failure> {
    let available = || std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
    let threads = if threads == 0 { available() } else { threads }.min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let results = Mutex::new((BTreeMap::new(), None));
    let lost = || Failure::Refused { entry: None, why: "the unpacker failed on it".into() };
    let worker = || {
        while let Some((number, item)) =
            Some(next.fetch_add(1, Relaxed)).and_then(|number| Some((number, items.get(number)?)))
        {
            let result = work(item);
            let Ok(mut results) = results.lock() else {
                return;
            };
            match result {
                Ok(value) => drop(results.0.insert(number, value)),
                Err(failure) => {
                    budget.stop.store(true, Relaxed);
                    results.1.get_or_insert(failure);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            // A panic of a decoder shows as a missing result.
            let _ = worker.join();
        }
    });
    let (values, failure) = results.into_inner().map_err(|_| lost())?;
    match failure {
        Some(failure) => Err(failure),
        None if values.len() == items.len() => Ok(values.into_values().collect()),
        None => Err(lost()),
    }
}
