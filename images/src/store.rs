//! The store: a folder whose files are the whole truth. Nothing is kept running, nothing is kept in memory.
//!
//! ```text
//! ROOT/images/version              {"version":1}
//!             lock                 flock: shared by starts, exclusive for the moment of a change
//!             names/NAME:TAG       -> ../by-id/HEX    ('/' written as '%'; a symlink can be replaced in one step)
//!             by-id/HEX/config.json, image.json [, manifest.json]
//!             layers/26HEX/        the unpacked tree, read-only ever after; the name is the beginning of the
//!             layers/26HEX.json    diff id (short, because overlayfs takes all paths in one page), this the whole
//!             layers/empty/        for images without layers
//!             tmp/RANDOM/          one job's half-made things
//! ```
//! The compressed blobs aren't kept: layers are only read unpacked, and `save` can write an equal image from the
//! trees (its blobs' digests would change, its diff ids not).

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::digest::{Digest, ImageId};
use crate::error::{Error, Result, at};
use crate::near;
use crate::reference::Reference;
use crate::workspace::{self, Workspace};

/// Version of the files described above.
pub(crate) const VERSION: u64 = 1;

/// An opened store.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) dir: PathBuf,
}

/// Keeps images from being removed while it lives; see [`Store::lock_shared`].
#[derive(Debug)]
pub struct Guard {
    _lock: OwnedFd,
}

/// An image, ready to be run.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of its configuration.
    pub id: ImageId,
    /// All its names, sorted.
    pub names: Vec<Reference>,
    /// Its configuration.
    pub config: Config,
    /// Folders for overlayfs, lowest first, each once (overlayfs refuses a folder that comes twice); never empty.
    pub layers: Vec<PathBuf>,
    /// Sum of its layers' file sizes.
    pub size_bytes: u64,
    /// Digest of its manifest, where it came with one (OCI layouts).
    pub manifest_digest: Option<Digest>,
}

/// One line of `minidock images`.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Digest of its configuration.
    pub id: ImageId,
    /// All its names, sorted; none for a dangling image.
    pub names: Vec<Reference>,
    /// RFC 3339 time as the configuration has it; may be empty.
    pub created: String,
    /// Sum of its layers' file sizes.
    pub size_bytes: u64,
}

/// `by-id/HEX/image.json`
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub version: u64,
    /// Diff ids, lowest first.
    pub layers: Vec<Digest>,
    pub size_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<Digest>,
}

/// `layers/26HEX.json`; without it the tree beside it doesn't count.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub version: u64,
    pub diff_id: Digest,
    pub size_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Versioned {
    version: u64,
}

impl Store {
    /// Opens the store of a root, `ROOT/images`; makes it if it isn't there.
    pub fn open(root: &Path) -> Result<Store> {
        let store = Store { dir: root.join("images") };
        let path = store.dir.join("version");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return store.create(),
            Err(error) => return Err(at("read", &path)(error)),
        };
        let Versioned { version } = parse(&path, &text)?;
        if version > VERSION {
            return Err(Error::Version { path, found: version, known: VERSION });
        }
        Ok(store)
    }

    /// Makes the folders; the version file comes last and says that all is there. Two processes may do it at once.
    fn create(self) -> Result<Store> {
        // 0700: other users must not reach set-uid files of layers (CVE-2021-41091).
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for name in ["names", "by-id", "layers", "layers/empty", "tmp"] {
            let path = self.dir.join(name);
            builder.create(&path).map_err(at("create", &path))?;
        }
        // The top of a container's root folder for an image without layers: everybody may look.
        let empty = self.dir.join("layers/empty");
        rustix::fs::chmod(&empty, Mode::from_raw_mode(0o755)).map_err(at("set the mode of", &empty))?;
        let lock = self.dir.join("lock");
        fs::File::create(&lock).map_err(at("create", &lock))?;
        let workspace = self.workspace()?;
        let version = workspace.path().join("version");
        write_json(&version, &Versioned { version: VERSION })?;
        rename(&version, &self.dir.join("version"))?;
        Ok(self)
    }

    /// The store's folder, `ROOT/images`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Held by a start from before `find` until its journal names the image: meanwhile nothing is removed. Don't
    /// load, tag or remove in the same process while you hold it: those wait for it.
    pub fn lock_shared(&self) -> Result<Guard> {
        self.lock(FlockOperation::LockShared)
    }

    pub(crate) fn lock_exclusive(&self) -> Result<Guard> {
        self.lock(FlockOperation::LockExclusive)
    }

    fn lock(&self, operation: FlockOperation) -> Result<Guard> {
        let path = self.dir.join("lock");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty()).map_err(at("open", &path))?;
        workspace::lock(&file, operation).map_err(at("lock", &path))?;
        Ok(Guard { _lock: file })
    }

    pub(crate) fn workspace(&self) -> Result<Workspace> {
        Workspace::create(&self.dir.join("tmp"))
    }

    /// Finds an image by name, id or the beginning of an id; a name goes first, as in docker.
    pub fn find(&self, name_or_id: &str) -> Result<Image> {
        let id = self.resolve(name_or_id)?;
        self.image(id)
    }

    /// The id alone.
    pub(crate) fn resolve(&self, name_or_id: &str) -> Result<ImageId> {
        if let Some(prefix) = name_or_id.strip_prefix("sha256:") {
            return self.by_prefix(prefix)?.ok_or_else(|| self.no_such(name_or_id));
        }
        let name = Reference::parse(name_or_id);
        if let Ok(name) = &name
            && let Some(id) = self.by_name(name)?
        {
            return Ok(id);
        }
        match (self.by_prefix(name_or_id)?, name) {
            (Some(id), _) => Ok(id),
            (None, Ok(_)) => Err(self.no_such(name_or_id)),
            (None, Err(_)) if is_hex(name_or_id) => Err(self.no_such(name_or_id)),
            (None, Err(error)) => Err(error),
        }
    }

    fn no_such(&self, name: &str) -> Error {
        let known: Vec<String> = self.names().unwrap_or_default().iter().map(|(name, _)| name.to_string()).collect();
        Error::NoSuchImage { name: name.to_owned(), near: near::nearest(name, &known) }
    }

    fn by_name(&self, name: &Reference) -> Result<Option<ImageId>> {
        if let Some(digest) = name.digest() {
            return self.by_manifest(name, digest);
        }
        let Ok(path) = self.name_path(name) else {
            return Ok(None);
        };
        match fs::read_link(&path) {
            Ok(target) => target_id(&path, &target).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("read", &path)(error)),
        }
    }

    /// `name@sha256:…`: an image of that repository whose manifest has the digest (docker's meaning), or that is
    /// the id.
    fn by_manifest(&self, name: &Reference, digest: Digest) -> Result<Option<ImageId>> {
        for (known, id) in self.names()? {
            let same = (known.domain(), known.path()) == (name.domain(), name.path());
            if same && (id.0 == digest || self.record(id)?.manifest_digest == Some(digest)) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    fn by_prefix(&self, prefix: &str) -> Result<Option<ImageId>> {
        if !is_hex(prefix) {
            return Ok(None);
        }
        if let Some(digest) = Digest::from_hex(prefix) {
            let there = self.dir.join("by-id").join(prefix).exists();
            return Ok(there.then_some(ImageId(digest)));
        }
        let fits: Vec<ImageId> = self.ids()?.into_iter().filter(|id| id.0.hex().starts_with(prefix)).collect();
        match fits[..] {
            [] => Ok(None),
            [id] => Ok(Some(id)),
            _ => Err(Error::Ambiguous { prefix: prefix.to_owned(), ids: fits.iter().map(ImageId::short).collect() }),
        }
    }

    /// Reads an image's files.
    fn image(&self, id: ImageId) -> Result<Image> {
        let path = self.dir.join("by-id").join(id.0.hex()).join("config.json");
        let raw = fs::read(&path).map_err(at("read", &path))?;
        let config = Config::parse(raw).map_err(|why| Error::Damaged { path, why })?;
        let record = self.record(id)?;
        // Of a layer that comes twice only the upper one counts: it hides the lower one wholly.
        let mut seen = BTreeSet::new();
        let mut layers: Vec<PathBuf> =
            record.layers.iter().rev().filter(|id| seen.insert(**id)).map(|id| self.layer_path(id)).collect();
        layers.reverse();
        if layers.is_empty() {
            layers.push(self.dir.join("layers/empty"));
        }
        Ok(Image {
            id,
            names: self.names_of(id)?,
            config,
            layers,
            size_bytes: record.size_bytes,
            manifest_digest: record.manifest_digest,
        })
    }

    pub(crate) fn record(&self, id: ImageId) -> Result<Record> {
        let path = self.dir.join("by-id").join(id.0.hex()).join("image.json");
        let text = fs::read(&path).map_err(at("read", &path))?;
        let record: Record = parse(&path, &text)?;
        if record.version > VERSION {
            return Err(Error::Version { path, found: record.version, known: VERSION });
        }
        Ok(record)
    }

    /// All images, the newest first.
    pub fn images(&self) -> Result<Vec<Summary>> {
        let mut images = Vec::new();
        for id in self.ids()? {
            match self.image(id) {
                Ok(image) => images.push(Summary {
                    id,
                    names: image.names,
                    created: image.config.created().to_owned(),
                    size_bytes: image.size_bytes,
                }),
                // Removed by another process since we listed it.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        images.sort_by(|a, b| b.created.cmp(&a.created).then(a.names.cmp(&b.names)));
        Ok(images)
    }

    /// Gives an image a (further) name, which moves there if another image has it.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<()> {
        let workspace = self.workspace()?;
        let _lock = self.lock_exclusive()?;
        let id = self.resolve(source)?;
        self.set_name(&workspace, target, id).map(drop)
    }

    /// Points a name to an image and gives the id that had it before. Needs the exclusive lock.
    pub(crate) fn set_name(&self, workspace: &Workspace, name: &Reference, id: ImageId) -> Result<Option<ImageId>> {
        let path = self.name_path(name)?;
        let before = self.by_name(name)?;
        let link = workspace.path().join("name");
        symlink(format!("../by-id/{}", id.0.hex()), &link).map_err(at("create", &link))?;
        rename(&link, &path)?;
        Ok(before)
    }

    /// The folders of all of an image's layers, lowest first; one that it has twice comes twice, as in its history.
    ///
    /// # Errors
    /// A damaged or newer record.
    pub fn layer_folders(&self, id: ImageId) -> Result<Vec<PathBuf>> {
        Ok(self.record(id)?.layers.iter().map(|layer| self.layer_path(layer)).collect())
    }

    /// Folder of a layer.
    pub(crate) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.dir.join("layers").join(layer_name(diff_id))
    }

    /// The record of a layer that is in the store.
    pub(crate) fn layer(&self, diff_id: &Digest) -> Result<Option<LayerRecord>> {
        let path = self.layer_path(diff_id).with_extension("json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(at("read", &path))?,
        };
        let record: LayerRecord = parse(&path, &text)?;
        if record.diff_id != *diff_id {
            let why = format!("it belongs to {}, not to {diff_id}", record.diff_id);
            return Err(Error::Damaged { path, why });
        }
        Ok(Some(record))
    }

    /// All ids, sorted.
    pub(crate) fn ids(&self) -> Result<Vec<ImageId>> {
        Ok(self.list("by-id")?.iter().filter_map(|name| Digest::from_hex(name)).map(ImageId).collect())
    }

    /// All names with their images, sorted.
    fn names(&self) -> Result<Vec<(Reference, ImageId)>> {
        let mut names = Vec::new();
        for file in self.list("names")? {
            let path = self.dir.join("names").join(&file);
            let target = match fs::read_link(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                target => target.map_err(at("read", &path))?,
            };
            names.push((Reference::parse(&file.replace('%', "/"))?, target_id(&path, &target)?));
        }
        names.sort();
        Ok(names)
    }

    /// The names of one image, sorted.
    pub fn names_of(&self, id: ImageId) -> Result<Vec<Reference>> {
        Ok(self.names()?.into_iter().filter(|(_, its)| *its == id).map(|(name, _)| name).collect())
    }

    pub(crate) fn name_path(&self, name: &Reference) -> Result<PathBuf> {
        let bad = |why: &str| Error::BadName { name: name.to_string(), why: why.to_owned() };
        if name.digest().is_some() {
            return Err(bad("an image can't be named by a digest; use name:tag"));
        }
        // '%' is in no name, so this can be read back.
        let file = name.to_string().replace('/', "%");
        if file.len() > 255 {
            return Err(bad("it is longer than a file name can be (255 bytes)"));
        }
        Ok(self.dir.join("names").join(file))
    }

    pub(crate) fn list(&self, folder: &str) -> Result<BTreeSet<String>> {
        let path = self.dir.join(folder);
        let entries = fs::read_dir(&path).map_err(at("read", &path))?;
        entries.map(|entry| Ok(entry.map_err(at("read", &path))?.file_name().to_string_lossy().into_owned())).collect()
    }
}

/// The first 26 digits: 104 bits; the record beside it has them all.
pub(crate) fn layer_name(diff_id: &Digest) -> String {
    let mut name = diff_id.hex();
    name.truncate(26);
    name
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn target_id(path: &Path, target: &Path) -> Result<ImageId> {
    let hex = target.strip_prefix("../by-id").ok().and_then(Path::to_str);
    hex.and_then(Digest::from_hex)
        .map(ImageId)
        .ok_or_else(|| Error::Damaged { path: path.to_owned(), why: format!("it points to {}", target.display()) })
}

fn parse<T: for<'a> Deserialize<'a>>(path: &Path, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| Error::Damaged { path: path.to_owned(), why: error.to_string() })
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec(value).map_err(|error| at("write", path)(io::Error::other(error)))?;
    text.push(b'\n');
    fs::write(path, text).map_err(at("write", path))
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(at("rename", from))
}
