//! What a container has changed of its image: its overlay's upper folder against the layers below, told as docker tells it.
//!
//! The upper folder may be a living container's: it is read by descriptors that follow no link.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// What an engine makes in each container; docker has it in a layer of its own, which it doesn't show.
const OWN: [&str; 11] = [
    "dev",
    "dev/console",
    "dev/pts",
    "dev/shm",
    "etc",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
    "proc",
    "sys",
];

/// docker's three letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `A`
    Added,
    /// `C`
    Changed,
    /// `D`
    Deleted,
}

impl Kind {
    /// The letter.
    pub fn letter(self) -> char {
        match self {
            Kind::Added => 'A',
            Kind::Changed => 'C',
            Kind::Deleted => 'D',
        }
    }
}

/// All changes, sorted by path (relative to `/`). `upper` and `lower` are folders: the changes, and the image's layers
/// mounted together.
///
/// # Errors
/// What can't be read. What vanishes meanwhile is left out.
pub fn of(upper: &OwnedFd, lower: &OwnedFd) -> Result<Vec<(PathBuf, Kind)>> {
    let mut found = Vec::new();
    folder(upper, lower, Path::new(""), true, &mut found)?;
    found.sort();
    Ok(found)
}

/// The changes in one folder; true when there are some. `merged`: the layers have a folder there too.
fn folder(
    upper: &OwnedFd,
    lower: &OwnedFd,
    path: &Path,
    merged: bool,
    found: &mut Vec<(PathBuf, Kind)>,
) -> Result<bool> {
    let before = found.len();
    let mut names = BTreeSet::new();
    let mut folders = Vec::new();
    // Closed again before its folders are entered: depth costs no descriptors.
    {
        let above = match open_folder(upper.as_fd(), path) {
            // Gone, swapped, or deeper than a path can be long.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => return Ok(false),
            opened => opened.map_err(io::Error::from).with_context(|| format!("cannot read {}", path.display()))?,
        };
        let below = merged.then(|| open_folder(lower.as_fd(), path).ok()).flatten();
        for entry in Dir::read_from(&above)?.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = fs::statat(&above, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let old = below.as_ref().and_then(|below| fs::statat(below, name, AtFlags::SYMLINK_NOFOLLOW).ok());
            let name = OsStr::from_bytes(name.to_bytes());
            names.insert(name.to_owned());
            let here = path.join(name);
            if is_whiteout(&stat) {
                found.extend(old.map(|_| (here, Kind::Deleted)));
                continue;
            }
            let was_folder = old.as_ref().is_some_and(is_folder);
            let own = OWN.iter().any(|own| here == Path::new(own));
            let kind = match &old {
                None if !own => Some(Kind::Added),
                Some(old) if differs(old, &stat) => Some(Kind::Changed),
                _ => None,
            };
            found.extend(kind.map(|kind| (here.clone(), kind)));
            if is_folder(&stat) {
                folders.push((here, was_folder, kind.is_some()));
            }
        }
        if let Some(below) = below.filter(|_| is_opaque(&above)) {
            for entry in Dir::read_from(&below)?.flatten() {
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name != "." && name != ".." && !names.contains(name) {
                    found.push((path.join(name), Kind::Deleted));
                }
            }
        }
    }
    for (here, was_folder, told) in folders {
        if folder(upper, lower, &here, was_folder, found)? && !told {
            found.push((here, Kind::Changed));
        }
    }
    Ok(found.len() > before)
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// A character device 0:0 hides what the layers have there; Documentation/filesystems/overlayfs.rst.
fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// A folder that hides all that the layers have in it.
fn is_opaque(folder: &OwnedFd) -> bool {
    let mut value = [0; 1];
    fs::fgetxattr(folder, "trusted.overlay.opaque", &mut value).is_ok_and(|length| value[..length] == *b"y")
}

/// docker's comparison: a folder's size and times are no change of it.
fn differs(old: &Stat, new: &Stat) -> bool {
    let meta = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    let content = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    meta(old) != meta(new) || !is_folder(old) && content(old) != content(new)
}

fn open_folder(top: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat2(top, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}
