//! `save`: images as one archive, which is docker's (`manifest.json`) and an OCI layout at once, as docker's own is.
//!
//! The layers' archives aren't kept by the store, so they are made anew of the layers' folders: same files, owners,
//! modes, times (whole seconds), attributes and deletions, but other bytes; so layers and image get other digests. What
//! is saved twice, or loaded and saved again, has the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use images::{Digest, Entry, Image, Kind, Reference, Store, Time};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use sha2::Digest as _;
use tar::{Builder, EntryType, Header};

use super::cp::Output;
use crate::cli::SaveArgs;
use crate::copy::attributes;
use crate::copy::tar_out::TarOut;
use crate::copy::walk::{Order, walk};
use crate::events::{self, Event};
use crate::progress::Progress;
use crate::roots::Roots;

const BLOBS: &str = "blobs/sha256";

/// Writes them.
pub fn save(roots: &Roots, args: &SaveArgs) -> Result<u8> {
    if args.output.is_none() && rustix::termios::isatty(io::stdout()) {
        bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    }
    let store = Store::open(&roots.root)?;
    let _guard = store.lock_shared()?; // no layer goes meanwhile
    let wanted = wanted(&store, &args.images)?;
    let output = args.output.as_deref().map(|path| Output::create(path, "save image")).transpose()?;
    let to: Box<dyn Write + '_> = match &output {
        Some(output) => Box::new(BufWriter::new(&output.file)),
        None => Box::new(BufWriter::new(io::stdout().lock())),
    };
    let progress = if output.is_some() { Progress::new("Saving") } else { Progress::none() };
    let mut archive = Archive { tar: Builder::new(to), written: BTreeSet::new(), progress, bytes: 0 };
    let (mut docker, mut oci) = (Vec::new(), Vec::new());
    let mut layers = BTreeMap::new();
    for (image, names) in &wanted {
        add(&mut archive, &store, image, names, &mut layers, (&mut docker, &mut oci))?;
    }
    archive.file("manifest.json", &serde_json::to_vec(&docker)?)?;
    archive.file(
        "index.json",
        &serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": oci,
        }))?,
    )?;
    archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.tar.finish().and_then(|()| archive.tar.get_mut().flush()).context("cannot write the archive's end")?;
    drop(archive);
    if let Some(output) = output {
        output.keep()?;
    }
    for (image, _) in &wanted {
        events::note(roots, Event::new("image", "save", &image.id.to_string()));
    }
    Ok(0)
}

/// Each image once, with the names by which it was asked for: none for an id.
fn wanted(store: &Store, words: &[String]) -> Result<Vec<(Image, Vec<Reference>)>> {
    let mut wanted: Vec<(Image, Vec<Reference>)> = Vec::new();
    for word in words {
        let mut found = Vec::new();
        match Reference::parse(word) {
            // docker: a name without a tag means all its tags.
            Ok(name) if !word.rsplit('/').next().is_some_and(|last| last.contains([':', '@'])) => {
                let same = |other: &Reference| (other.domain(), other.path()) == (name.domain(), name.path());
                for summary in store.images()? {
                    let names: Vec<Reference> = summary.names.into_iter().filter(same).collect();
                    if !names.is_empty() {
                        found.push((store.find(&summary.id.to_string())?, names));
                    }
                }
            }
            _ => {}
        }
        if found.is_empty() {
            let image = store.find(word)?;
            let named = Reference::parse(word).ok().filter(|name| image.names.contains(name));
            found.push((image, named.into_iter().collect()));
        }
        for (image, names) in found {
            match wanted.iter_mut().find(|(known, _)| known.id == image.id) {
                Some((_, known)) => known.extend(names),
                None => wanted.push((image, names)),
            }
        }
    }
    for (_, names) in &mut wanted {
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.to_string()));
    }
    Ok(wanted)
}

/// A layer's folder → its new digest and size.
type Layers = BTreeMap<PathBuf, (Digest, u64)>;

fn add(
    archive: &mut Archive<'_>,
    store: &Store,
    image: &Image,
    names: &[Reference],
    layers: &mut Layers,
    (docker, oci): (&mut Vec<Value>, &mut Vec<Value>),
) -> Result<()> {
    let mut own = Vec::new();
    for folder in store.layer_folders(image.id)? {
        let layer = match layers.get(&folder) {
            Some(layer) => *layer,
            None => {
                let layer = archive.layer(store, &folder)?;
                layers.insert(folder, layer);
                layer
            }
        };
        own.push(layer);
    }
    let mut config = image.config.json();
    let fields = config.as_object_mut().ok_or_else(|| anyhow!("the image {} has no configuration", image.id))?;
    let ids: Vec<String> = own.iter().map(|(digest, _)| digest.to_string()).collect();
    fields.insert("rootfs".to_string(), json!({"type": "layers", "diff_ids": ids}));
    let config = serde_json::to_vec(&config)?;
    let config_digest = archive.blob(&config)?;
    let layer_of = |(digest, size): &(Digest, u64)| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size});
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len()},
        "layers": own.iter().map(layer_of).collect::<Vec<_>>(),
    }))?;
    let digest = archive.blob(&manifest)?;
    let tags: Vec<String> = names.iter().map(Reference::to_string).collect();
    docker.push(json!({
        "Config": format!("{BLOBS}/{}", config_digest.hex()),
        "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
        "Layers": own.iter().map(|(digest, _)| format!("{BLOBS}/{}", digest.hex())).collect::<Vec<_>>(),
    }));
    let mut described = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len(),
    });
    if tags.is_empty() {
        oci.push(described.clone());
    }
    for name in names {
        let full = format!("{}/{}:{}", name.domain(), name.path(), name.tag().unwrap_or("latest"));
        described["annotations"] = json!({
            "io.containerd.image.name": full,
            "org.opencontainers.image.ref.name": name.tag().unwrap_or("latest"),
        });
        oci.push(described.clone());
    }
    Ok(())
}

struct Archive<'a> {
    tar: Builder<Box<dyn Write + 'a>>,
    written: BTreeSet<Digest>,
    progress: Progress,
    bytes: u64,
}

impl Archive<'_> {
    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.entry(name, bytes.len() as u64, &mut &bytes[..])
    }

    fn entry(&mut self, name: &str, size: u64, data: &mut dyn Read) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(size);
        self.tar.append_data(&mut header, name, data).with_context(|| format!("cannot write {name} to the archive"))
    }

    fn blob(&mut self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.written.insert(digest) {
            self.file(&format!("{BLOBS}/{}", digest.hex()), bytes)?;
        }
        Ok(digest)
    }

    /// A layer by way of a file without a name, because its digest and size come before it in the archive.
    fn layer(&mut self, store: &Store, folder: &Path) -> Result<(Digest, u64)> {
        let what = || format!("cannot read the layer {}", folder.display());
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = rustix::fs::open(store.dir(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(io::Error::from)
            .with_context(|| format!("cannot make a file without a name in {}", store.dir().display()))?;
        let mut file = File::from(file);
        let mut hash = sha2::Sha256::new();
        let mut size = 0;
        let mut tar = TarOut::new(Box::new(Hashing { to: BufWriter::new(&file), hash: &mut hash, size: &mut size }));
        let top: OwnedFd = File::open(folder).with_context(what)?.into();
        let (bytes, progress) = (&mut self.bytes, &mut self.progress);
        walk(&top, b"", Order::ByName, &mut |entry, data| {
            *bytes += crate::copy::archive_bytes(entry);
            progress.at(*bytes, None);
            layer_entry(&top, entry, data, &mut tar)
        })
        .with_context(what)?;
        tar.finish()?;
        let digest = Digest::finish(hash);
        if self.written.insert(digest) {
            file.rewind()?;
            self.entry(&format!("{BLOBS}/{}", digest.hex()), size, &mut file)?;
        }
        Ok((digest, size))
    }
}

/// overlayfs's marks become the archive's (OCI image-spec, layer.md): a 0:0 device is `.wh.NAME`, an opaque folder has
/// `.wh..wh..opq` in it.
fn layer_entry(top: &OwnedFd, entry: &Entry, data: &mut dyn Read, tar: &mut TarOut<'_>) -> Result<()> {
    let mark = |name: Vec<u8>| Entry {
        kind: Kind::File,
        name,
        link: vec![],
        mode: 0,
        // When it was unpacked here says nothing, and would make other bytes of it each time.
        mtime: Time { seconds: 0, nanoseconds: 0 },
        size: 0,
        device: (0, 0),
        xattrs: vec![],
        ..entry.clone()
    };
    if entry.kind == Kind::Char && entry.device == (0, 0) {
        let at = entry.name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let name = [&entry.name[..at], b".wh.", &entry.name[at..]].concat();
        return tar.add(&mark(name), &mut io::empty());
    }
    // The folder itself is no entry of the layer.
    let is_top = entry.name == b"./";
    let (xattrs, opaque) = match entry.kind {
        Kind::File | Kind::Dir => attributes::of(top, &entry.name)?,
        _ => (vec![], false),
    };
    if !is_top {
        tar.add(&Entry { xattrs, ..entry.clone() }, data)?;
    }
    if opaque {
        let folder: &[u8] = if is_top { b"" } else { &entry.name };
        tar.add(&mark([folder, b".wh..wh..opq"].concat()), &mut io::empty())?;
    }
    Ok(())
}

/// Counts and hashes what goes through.
struct Hashing<'a, W: Write> {
    to: W,
    hash: &'a mut sha2::Sha256,
    size: &'a mut u64,
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(&bytes[..count]);
        *self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
