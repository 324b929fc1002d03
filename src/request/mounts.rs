//! What is mounted into the container: the values that `-v`, `--mount` and `--tmpfs` come to.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Invalid, text};

/// One mount, by its target in the container (absolute, cleaned, never `/`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// A folder or file of the host.
    Bind {
        /// Absolute path on the host.
        #[serde(with = "text::one")]
        source: PathBuf,
        /// Path in the container.
        #[serde(with = "text::one")]
        target: PathBuf,
        /// Only to read.
        read_only: bool,
        /// How mounts made later on one side appear on the other.
        propagation: Propagation,
        /// With the mounts below the source.
        recursive: bool,
        /// Read-only is the mount itself alone, not those below it.
        #[serde(default)]
        writable_below: bool,
        /// A missing source is made as a folder (`-v`), or is an error (`--mount`).
        create_source: bool,
    },
    /// A file system in memory.
    Tmpfs {
        /// Path in the container.
        #[serde(with = "text::one")]
        target: PathBuf,
        /// Options of mount(8), such as `size=65536k`; without docker's defaults.
        options: Vec<String>,
        /// It was asked for by `--mount`, not `--tmpfs`: `inspect` shows it in another place.
        #[serde(default)]
        by_mount: bool,
    },
    /// A volume: a folder of the engine's that outlives containers. Filled from the image while it is empty.
    Volume {
        /// Path in the container.
        #[serde(with = "text::one")]
        target: PathBuf,
        /// Only to read.
        read_only: bool,
        /// Filled with what the image has there.
        copy: bool,
        /// Without one it's anonymous, and goes with the container.
        #[serde(default)]
        name: Option<String>,
        /// What only some volumes have.
        #[serde(default)]
        options: Box<VolumeOptions>,
    },
}

/// The rarer wishes for a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeOptions {
    /// How mounts made later on one side appear on the other.
    #[serde(default)]
    pub propagation: Propagation,
    /// A folder or file of the volume in its place; relative, without `..`.
    #[serde(default)]
    pub subpath: Option<String>,
    /// It was asked for by `--mount`, not `-v`: `inspect` shows it in another place.
    #[serde(default)]
    pub by_mount: bool,
    /// For a volume that is new.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The local driver's `type`, `device` and `o`, for a volume that is new.
    #[serde(default)]
    pub driver: BTreeMap<String, String>,
}

/// `--volumes-from`: what another container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumesFrom {
    /// Name or id.
    pub container: String,
    /// All of it only to read.
    pub read_only: bool,
}

impl Mount {
    /// Where it is in the container.
    pub fn target(&self) -> &Path {
        match self {
            Mount::Bind { target, .. } | Mount::Tmpfs { target, .. } | Mount::Volume { target, .. } => target,
        }
    }
}

/// mount_namespaces(7): shared subtrees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// `private`
    Private,
    /// `rprivate`, docker's default
    #[default]
    Rprivate,
    /// `shared`
    Shared,
    /// `rshared`
    Rshared,
    /// `slave`
    Slave,
    /// `rslave`
    Rslave,
}

impl Propagation {
    /// The word that docker and mount(8) use.
    pub fn name(self) -> &'static str {
        match self {
            Propagation::Private => "private",
            Propagation::Rprivate => "rprivate",
            Propagation::Shared => "shared",
            Propagation::Rshared => "rshared",
            Propagation::Slave => "slave",
            Propagation::Rslave => "rslave",
        }
    }

    /// By its name.
    pub(super) fn parse(text: &[u8]) -> Option<Propagation> {
        use Propagation::{Private, Rprivate, Rshared, Rslave, Shared, Slave};
        [Private, Rprivate, Shared, Rshared, Slave, Rslave].into_iter().find(|mode| mode.name().as_bytes() == text)
    }
}

/// The local driver's options: what mount(8) would get for the volume.
///
/// # Errors
/// One that it doesn't know, or can't do, and why.
pub fn check_driver_options(options: &BTreeMap<String, String>) -> Result<(), String> {
    if let Some(key) = options.keys().find(|key| !["type", "device", "o"].contains(&key.as_str())) {
        return Err(match key.as_str() {
            "size" => "quota size requested but no quota support; use --tmpfs with size=".to_owned(),
            _ => format!("invalid option: {key:?}; the local driver has type, device and o"),
        });
    }
    if options.is_empty() {
        return Ok(());
    }
    let get = |key: &str| options.get(key).map(String::as_str).unwrap_or_default();
    if get("device").is_empty() {
        return Err("missing device in volume options".to_owned());
    }
    let bind = get("o").split(',').any(|word| word == "bind" || word == "rbind");
    match get("type") {
        "" if !bind => Err("missing type in volume options".to_owned()),
        "tmpfs" => Err("a volume of type tmpfs is not supported: minidock mounts it in each container by itself, so \
                        its content would not be shared; use --tmpfs"
            .to_owned()),
        _ if bind && !get("device").starts_with('/') => Err("device must be an absolute path to be bound".to_owned()),
        _ => Ok(()),
    }
}

/// Checks that no two mounts have one target.
pub(super) fn refuse_twice(mounts: &[Mount]) -> Result<(), Invalid> {
    let mut seen = HashSet::new();
    match mounts.iter().find(|mount| !seen.insert(mount.target())) {
        None => Ok(()),
        Some(mount) => {
            Err(Invalid::new(format!("duplicate mount point: {}; mount one thing there", mount.target().display())))
        }
    }
}

/// A path in the container: absolute, `.` and `..` and doubled slashes taken out by the letter, as docker does.
pub(super) fn target(path: &OsStr) -> Result<PathBuf, String> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(format!("invalid mount path: {:?} mount path must be absolute", path.to_string_lossy()));
    }
    refuse_nul(bytes)?;
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in bytes.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    let mut clean = Vec::with_capacity(bytes.len());
    for part in parts {
        clean.push(b'/');
        clean.extend_from_slice(part);
    }
    Ok(PathBuf::from(OsString::from_vec(clean)))
}

/// A path on the host; one that begins with a dot is relative to the working directory.
pub(super) fn source(path: &OsStr, cwd: &Path) -> Result<PathBuf, String> {
    refuse_nul(path.as_bytes())?;
    let path = Path::new(path);
    match path.as_os_str().as_bytes().first() {
        Some(b'/') => Ok(path.to_owned()),
        Some(b'.') => Ok(cwd.join(path).components().collect()),
        _ => Err(format!("{:?} is not an absolute path", path.display().to_string())),
    }
}

fn refuse_nul(bytes: &[u8]) -> Result<(), String> {
    match bytes.contains(&0) {
        true => Err("the path holds a NUL byte".to_owned()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_cleaned_by_the_letter() {
        for (text, clean) in
            [("/a", "/a"), ("//a//b/", "/a/b"), ("/a/../b", "/b"), ("/../../etc", "/etc"), ("/./a/.", "/a")]
        {
            assert_eq!(target(OsStr::new(text)).unwrap(), Path::new(clean));
        }
        for text in ["", "a", "/", "/..", "/a/..", "/a\0b", "./a"] {
            assert!(target(OsStr::new(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn relative_sources_begin_with_a_dot() {
        let cwd = Path::new("/home/x");
        assert_eq!(source(OsStr::new("./a"), cwd).unwrap(), Path::new("/home/x/a"));
        assert_eq!(source(OsStr::new("."), cwd).unwrap(), Path::new("/home/x"));
        assert_eq!(source(OsStr::new("../a"), cwd).unwrap(), Path::new("/home/x/../a"));
        assert_eq!(source(OsStr::new("/a"), cwd).unwrap(), Path::new("/a"));
        assert!(source(OsStr::new("a"), cwd).is_err());
    }
}
