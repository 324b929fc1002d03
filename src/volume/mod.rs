//! The volume store: a folder a volume, with its content in `_data` and a small record beside it.
//!
//! ```text
//! $ROOT/volumes/            flock: shared while a container is made, exclusive for the moment of a removal
//!               NAME/volume.json, _data/
//!               .HEX/       half made or half removed, locked by whoever is at it; swept when nobody is
//! ```
//! A volume is made beside its place and takes its name by a rename that never replaces, so that it is there whole or
//! not at all, and of several makers at once one wins.

pub mod choose;
mod fill;
pub mod op;
pub mod users;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use fill::{fill, mount_image};

use crate::names;
use crate::roots::Roots;

/// The format that this program writes.
pub const FORMAT: u32 = 1;
/// The label by which docker knows a volume that nobody named.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";
/// The one driver.
pub const DRIVER: &str = "local";
/// How a message about an unknown volume ends; scripts look for it.
pub const NO_SUCH: &str = "no such volume";
/// A record larger than this is damage, not data.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// `volume.json`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format version.
    pub version: u32,
    /// The name.
    pub name: String,
    /// Always `local`.
    pub driver: String,
    /// RFC 3339.
    pub created: String,
    /// The user's, and [`ANONYMOUS`].
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `type`, `device`, `o` of the local driver.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Fields of other versions.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Record {
    /// A new volume's.
    pub fn new(name: &str, labels: BTreeMap<String, String>, options: BTreeMap<String, String>) -> Record {
        Record {
            version: FORMAT,
            name: name.to_string(),
            driver: DRIVER.to_string(),
            created: crate::log::now(),
            labels,
            options,
            other: serde_json::Map::new(),
        }
    }

    /// Whether it came into being without a name of the user's.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }
}

/// The folder of all volumes.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// Keeps volumes from being removed, or from being used anew, while it lives.
#[derive(Debug)]
pub struct Guard {
    _lock: File,
}

impl Store {
    /// The store of a root. Nothing is made yet.
    pub fn of(roots: &Roots) -> Store {
        Store { dir: roots.root.join("volumes") }
    }

    /// A volume's folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What a container sees of a volume.
    pub fn data(&self, name: &str) -> PathBuf {
        self.folder(name).join("_data")
    }

    /// Held by the making of a container until its journal names the volumes: meanwhile none is removed.
    ///
    /// # Errors
    /// The folder can't be made or opened.
    pub fn lock_shared(&self) -> Result<Guard> {
        self.lock(FlockOperation::LockShared)
    }

    /// Held from the look for users until the volume is out of the way.
    ///
    /// # Errors
    /// As above.
    pub fn lock_exclusive(&self) -> Result<Guard> {
        self.lock(FlockOperation::LockExclusive)
    }

    fn lock(&self, how: FlockOperation) -> Result<Guard> {
        let file = match File::open(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                crate::files::ensure_folder(&self.dir)?;
                File::open(&self.dir)
            }
            opened => opened,
        };
        let file = file.with_context(|| format!("cannot open {}", self.dir.display()))?;
        loop {
            match flock(&file, how) {
                Err(Errno::INTR) => {}
                result => {
                    result.with_context(|| format!("cannot lock {}", self.dir.display()))?;
                    return Ok(Guard { _lock: file });
                }
            }
        }
    }

    /// Makes a volume; false when there is one of that name already (it stays as it is).
    ///
    /// # Errors
    /// The file system's: full, read-only.
    pub fn create(&self, record: &Record) -> Result<bool> {
        let context = || format!("cannot make the volume {}", record.name);
        if self.folder(&record.name).exists() {
            return Ok(false);
        }
        let workspace = self.workspace().with_context(context)?;
        let data = workspace.path.join("_data");
        fs::create_dir(&data).with_context(context)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).with_context(context)?;
        let path = workspace.path.join("volume.json");
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path).with_context(context)?;
        file.write_all(&serde_json::to_vec(record)?).with_context(context)?;
        // As docker: others may pass through, for a program that gave its rights away.
        fs::set_permissions(&workspace.path, fs::Permissions::from_mode(0o701)).with_context(context)?;
        match renameat_with(CWD, &workspace.path, CWD, self.folder(&record.name), RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(io::Error::from(error)).with_context(context),
        }
    }

    /// A volume's record.
    ///
    /// # Errors
    /// No such volume (with the near miss), or a damaged record.
    pub fn find(&self, name: &str) -> Result<Record> {
        match self.read(name)? {
            Some(record) => Ok(record),
            None => {
                let hint = self.near(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                Err(anyhow!("get {name}: {NO_SUCH}{hint}"))
            }
        }
    }

    /// A volume's record, if there is one.
    ///
    /// # Errors
    /// A damaged record.
    pub fn read(&self, name: &str) -> Result<Option<Record>> {
        if !is_name(name) {
            return Ok(None);
        }
        let path = self.folder(name).join("volume.json");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MAX_RECORD_BYTES), &mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let record: Record = serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?;
        if record.version > FORMAT {
            bail!("{} was written by a newer minidock (format {}); use that one", path.display(), record.version);
        }
        Ok(Some(record))
    }

    /// All volumes by name.
    ///
    /// # Errors
    /// A damaged record.
    pub fn all(&self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for name in self.names() {
            records.extend(self.read(&name)?); // removed since: none
        }
        Ok(records)
    }

    /// Their names, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| is_name(name));
        names.sort();
        names
    }

    fn near(&self, name: &str) -> Option<String> {
        let best = self.names().into_iter().map(|other| (crate::near::distance(name, &other), other)).min()?;
        (best.0 <= 2 && best.0 < best.1.len()).then_some(best.1)
    }

    /// Removes a volume. It's out of the way at once; its content is deleted after that.
    ///
    /// # Errors
    /// No such volume, or `users` names containers: docker's words.
    pub fn remove(&self, name: &str, users: &dyn Fn(&str) -> Vec<String>) -> Result<()> {
        let workspace = {
            let _guard = self.lock_exclusive()?;
            self.find(name)?;
            let users = users(name);
            if !users.is_empty() {
                bail!("remove {name}: volume is in use - [{}]", users.join(", "));
            }
            self.take_away(name)?
        };
        drop(workspace);
        Ok(())
    }

    /// Removes an anonymous volume of a container that goes, unless another container uses it. Takes no lock, for its
    /// caller holds a journal: the look for users comes after the volume is out of the way, and it goes back where one
    /// has come. Whoever comes later finds no such volume.
    ///
    /// # Errors
    /// The file system's.
    pub fn remove_anonymous(&self, name: &str, users: &dyn Fn(&str) -> Vec<String>) -> Result<()> {
        match self.read(name)? {
            Some(record) if record.is_anonymous() => {}
            _ => return Ok(()),
        }
        if !users(name).is_empty() {
            return Ok(());
        }
        let workspace = match self.take_away(name) {
            Ok(workspace) => workspace,
            Err(_) if !self.folder(name).exists() => return Ok(()), // another has removed it
            Err(error) => return Err(error),
        };
        if !users(name).is_empty() {
            let back = workspace.path.join("volume");
            return renameat_with(CWD, back, CWD, self.folder(name), RenameFlags::NOREPLACE)
                .map_err(io::Error::from)
                .with_context(|| format!("cannot put the volume {name} back, which a container has begun to use"));
        }
        Ok(())
    }

    fn take_away(&self, name: &str) -> Result<Workspace> {
        let context = || format!("cannot remove the volume {name}");
        let workspace = self.workspace().with_context(context)?;
        fs::rename(self.folder(name), workspace.path.join("volume")).with_context(context)?;
        Ok(workspace)
    }

    /// A folder for one job, removed when it's dropped, and by [`Store::sweep`] when its owner was killed.
    fn workspace(&self) -> io::Result<Workspace> {
        loop {
            let id = names::new_id();
            let path = self.dir.join(format!(".{}", id.get(..16).unwrap_or(&id)));
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    crate::files::ensure_folder(&self.dir).map_err(io::Error::other)?;
                    continue;
                }
                made => made?,
            }
            // A sweep may take the new folder for a dead one until it is locked: then we take another.
            let Ok(folder) = File::open(&path) else { continue };
            let locked = flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok();
            if locked && rustix::fs::fstat(&folder)?.st_nlink > 0 {
                return Ok(Workspace { path, _lock: folder });
            }
        }
    }

    /// Removes what killed makers and removers have left.
    pub fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let Ok(folder) = File::open(entry.path()) else { continue };
            if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
                // What can't be removed now is left to the next sweep.
                let _ = images::remove_tree(&entry.path());
            }
        }
    }
}

#[derive(Debug)]
struct Workspace {
    path: PathBuf,
    _lock: File,
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // It may have become the volume itself. Only the name that is still there is ours.
        let _ = images::remove_tree(&self.path);
    }
}

/// Whether docker would take it for a volume's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, and it fits into a file name.
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && (2..=255).contains(&name.len())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Refuses a name that no volume can have, in docker's words.
///
/// # Errors
/// Why.
pub fn check_name(name: &str) -> Result<(), String> {
    match name.len() {
        _ if is_name(name) => Ok(()),
        0 | 1 => Err("volume name is too short, names should be at least two alphanumeric characters".to_string()),
        256.. => Err("volume name is too long; a file name has at most 255 bytes".to_string()),
        _ => Err(format!(
            "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        )),
    }
}

#[cfg(test)]
mod tests;
