//! Owner, mode, times and extended attributes of a layer's files: which are kept, and in which order they are set.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::beneath;
use crate::entries::{Entry, Kind, Time};
use crate::layer::{Trouble, refused, shown};

/// Owner, mode, attributes, times of an open file or folder; in this order, because a change of owner clears the
/// set-uid bit and the file capability, and everything else changes the times.
pub(crate) fn set_all(fd: impl AsFd, entry: &Entry) -> Result<(), Trouble> {
    let (uid, gid) = owner(entry)?;
    fs::fchown(&fd, Some(uid), Some(gid))?;
    fs::fchmod(&fd, Mode::from_raw_mode(entry.mode))?;
    for (name, value) in kept(entry) {
        attribute(name, value, fs::fsetxattr(&fd, name, value, XattrFlags::empty()))?;
    }
    Ok(fs::futimens(&fd, &times(entry))?)
}

/// The same for what can't be opened (links, devices, FIFOs), through a name that we have just made ourselves.
pub(crate) fn set_by_name(parent: &OwnedFd, base: &[u8], entry: &Entry) -> Result<(), Trouble> {
    let (uid, gid) = owner(entry)?;
    fs::chownat(parent, base, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    let object = fs::openat(parent, base, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if entry.kind != Kind::Symlink {
        // Through /proc, because fchmod takes no O_PATH fd and fchmodat2 came with 6.6.
        fs::chmod(beneath::proc_path(object.as_fd()), Mode::from_raw_mode(entry.mode))?;
    }
    for (name, value) in kept(entry) {
        let path = [beneath::proc_path(parent.as_fd()).as_bytes(), b"/", base].concat();
        attribute(name, value, fs::lsetxattr(path, name, value, XattrFlags::empty()))?;
    }
    Ok(fs::utimensat(parent, base, &times(entry), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn owner(entry: &Entry) -> Result<(Uid, Gid), Trouble> {
    // u32::MAX means "leave it" to chown.
    let id = |id: u64| match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(refused(&format!("owner {id} is out of range"))),
    };
    Ok((Uid::from_raw(id(entry.uid)?), Gid::from_raw(id(entry.gid)?)))
}

/// An archive without an atime gets the mtime: reproducible, and no file looks read.
fn times(entry: &Entry) -> Timestamps {
    let spec = |time: Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: spec(entry.atime.unwrap_or(entry.mtime)), last_modification: spec(entry.mtime) }
}

fn kept(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry.xattrs.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).filter(|(name, _)| keeps(name))
}

/// Which attributes an image may bring. `trusted.*` and `user.overlay.*` would forge overlayfs's own marks
/// (redirects, opaque folders); labels of security modules belong to the host.
pub fn keeps(name: &[u8]) -> bool {
    match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => name.starts_with(b"user.") && !name.starts_with(b"user.overlay."),
    }
}

/// A lost file capability would break the program later and without a word: an error. Others are a nicety that
/// the file system (or the kind of file: no user.* on links) may not offer.
fn attribute(name: &[u8], value: &[u8], result: rustix::io::Result<()>) -> Result<(), Trouble> {
    match result {
        // ext4 says ENOSPC when an attribute doesn't fit into its one block, also on an empty disk.
        Err(Errno::NOSPC) if value.len() > 2048 => {
            Err(refused(&format!("the attribute {} is too large for this file system", shown(name))))
        }
        Err(Errno::OPNOTSUPP | Errno::PERM) if name != b"security.capability" => Ok(()),
        Err(Errno::INVAL | Errno::RANGE | Errno::TOOBIG) => {
            Err(refused(&format!("the attribute {} has a value that the kernel refuses", shown(name))))
        }
        result => Ok(result?),
    }
}
