//! Copies a folder with everything in it, by descriptors: types, owners, modes, times, attributes, hard links, holes.
//!
//! The source may hold anything but doesn't change; nobody else writes to the destination. Not recursive, and holds no
//! descriptor per level: folders are opened again by their path from the top, so depth ends only at PATH_MAX. Memory:
//! the names of the folders still to be visited, and one path per file of several names.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use rustix::fs::{
    self, AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

/// The kernel's limits for the list of names and for a value (XATTR_LIST_MAX, XATTR_SIZE_MAX; linux/limits.h).
const XATTR_MAX: usize = 65_536;

/// Copies the content of `from` into the empty folder `to`, which gets the owner, mode, times and attributes of `from`.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut copy = Copy { from, to, path: PathBuf::new(), linked: HashMap::new(), buffer: vec![0; 2 * XATTR_MAX] };
    let mut steps = vec![Step::Leave];
    copy.entries(&mut steps)?;
    while let Some(step) = steps.pop() {
        match step {
            Step::Enter(name) => {
                copy.path.push(name);
                steps.push(Step::Leave);
                copy.entries(&mut steps)?;
            }
            Step::Leave => {
                copy.leave().map_err(|error| copy.failed(OsStr::new(""), error))?;
                copy.path.pop();
            }
        }
    }
    Ok(())
}

enum Step {
    /// Go down into this folder.
    Enter(OsString),
    /// Complete the folder, go up.
    Leave,
}

struct Copy<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    /// Where we are, from the top.
    path: PathBuf,
    /// Device and inode of files with several names: the first copy, and how many more names may come.
    linked: HashMap<(u64, u64), (PathBuf, u64)>,
    /// For names and values of attributes.
    buffer: Vec<u8>,
}

/// An entry of a folder.
struct Entry<'a> {
    from: &'a OwnedFd,
    to: &'a OwnedFd,
    name: &'a CStr,
    stat: Stat,
}

impl Copy<'_> {
    /// Makes everything in this folder; what its sub-folders hold is left to `steps`.
    fn entries(&mut self, steps: &mut Vec<Step>) -> Result<()> {
        let open = || Ok((open_folder(self.from, &self.path)?, open_folder(self.to, &self.path)?));
        let (from, to) = open().map_err(|error| self.failed(OsStr::new(""), error))?;
        let list = Dir::read_from(&from).map_err(|errno| self.failed(OsStr::new(""), errno.into()))?;
        for entry in list {
            let entry = entry.map_err(|errno| self.failed(OsStr::new(""), errno.into()))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            match self.entry(&from, &to, entry.file_name()) {
                Ok(true) => steps.push(Step::Enter(name.to_owned())),
                Ok(false) => {}
                Err(error) => return Err(self.failed(name, error)),
            }
        }
        Ok(())
    }

    /// Makes one entry; true when it is a folder to enter.
    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr) -> io::Result<bool> {
        let stat = match fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW) {
            // A whiteout in a folder that only one layer has: an overlay lists it, but there is no such file.
            Err(Errno::NOENT) => return Ok(false),
            stat => stat?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let entry = Entry { from, to, name, stat };
        match kind {
            // Closed to all others until it is complete.
            FileType::Directory => fs::mkdirat(to, name, Mode::RWXU)?,
            _ if self.link(&entry)? => {}
            FileType::RegularFile => self.file(&entry)?,
            FileType::Symlink => {
                fs::symlinkat(fs::readlinkat(from, name, Vec::new())?, to, name)?;
                entry.set_by_name()?;
            }
            _ => {
                fs::mknodat(to, name, kind, mode(&entry.stat), entry.stat.st_rdev)?;
                entry.set_by_name()?;
            }
        }
        Ok(kind == FileType::Directory)
    }

    /// Makes one more name of a file copied before; false when it is the first name.
    fn link(&mut self, entry: &Entry) -> io::Result<bool> {
        if entry.stat.st_nlink < 2 {
            return Ok(false);
        }
        let inode = (entry.stat.st_dev, entry.stat.st_ino);
        let Some((first, more)) = self.linked.get_mut(&inode) else {
            let path = self.path.join(OsStr::from_bytes(entry.name.to_bytes()));
            self.linked.insert(inode, (path, entry.stat.st_nlink - 1));
            return Ok(false);
        };
        fs::linkat(self.to, first.as_path(), entry.to, entry.name, AtFlags::empty())?;
        *more -= 1;
        if *more == 0 {
            self.linked.remove(&inode);
        }
        Ok(true)
    }

    fn file(&mut self, entry: &Entry) -> io::Result<()> {
        // NONBLOCK: should a FIFO stand here by now, it is found out instead of waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let from = File::from(fs::openat(entry.from, entry.name, flags, Mode::empty())?);
        let stat = fs::fstat(&from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("no regular file any more; is the image being changed?"));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = File::from(fs::openat(entry.to, entry.name, flags, Mode::RUSR | Mode::WUSR)?);
        content(&from, &to, u64::try_from(stat.st_size).unwrap_or(0))?;
        self.set_all(from.as_fd(), to.as_fd())
    }

    /// Last, because entries made in it change a folder's times, and would inherit its default ACL and group.
    fn leave(&mut self) -> io::Result<()> {
        let from = open_folder(self.from, &self.path)?;
        let to = open_folder(self.to, &self.path)?;
        self.set_all(from.as_fd(), to.as_fd())
    }

    /// Owner, mode, attributes, times: in this order, for a change of owner clears the set-uid bit and the file's
    /// capability, and all of them change the times.
    fn set_all(&mut self, from: BorrowedFd, to: BorrowedFd) -> io::Result<()> {
        let stat = fs::fstat(from)?;
        fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        fs::fchmod(to, mode(&stat))?;
        self.attributes(from, to)?;
        Ok(fs::futimens(to, &times(&stat))?)
    }

    fn attributes(&mut self, from: BorrowedFd, to: BorrowedFd) -> io::Result<()> {
        let (list, value) = self.buffer.split_at_mut(XATTR_MAX);
        let length = match fs::flistxattr(from, &mut *list) {
            Err(Errno::OPNOTSUPP) => return Ok(()),
            length => length?,
        };
        for name in list[..length].split(|byte| *byte == 0).filter(|name| keeps(name)) {
            let length = fs::fgetxattr(from, name, &mut *value)?;
            match fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
                // A program without its capability would break later and without a word; the others are a nicety.
                Err(Errno::OPNOTSUPP) if name != b"security.capability" => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Quoted, because names may hold newlines and terminal sequences.
    fn failed(&self, name: &OsStr, error: io::Error) -> anyhow::Error {
        let what = if name.is_empty() { self.path.clone() } else { self.path.join(name) };
        let way_out = match error.kind() {
            io::ErrorKind::StorageFull => "; free some space there or keep containers elsewhere with --root",
            io::ErrorKind::QuotaExceeded => "; free some of the quota or keep containers elsewhere with --root",
            io::ErrorKind::InvalidFilename => "; folders are nested too deep",
            _ => "",
        };
        anyhow!("{:?}: {}{way_out}", Path::new("/").join(what), crate::error::io_text(&error))
    }
}

impl Entry<'_> {
    /// For what isn't opened (links, devices, FIFOs, sockets); the name is one that we have just made.
    fn set_by_name(&self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.stat.st_uid), Gid::from_raw(self.stat.st_gid));
        fs::chownat(self.to, self.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(self.stat.st_mode) != FileType::Symlink {
            // Once more after mknod: the umask, and chown clears set-uid.
            fs::chmodat(self.to, self.name, mode(&self.stat), AtFlags::empty())?;
        }
        Ok(fs::utimensat(self.to, self.name, &times(&self.stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// Opens a folder by its path from the top. No part of it may be a link or another mount.
fn open_folder(top: BorrowedFd, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(fs::openat2(top, path, flags, Mode::empty(), how)?)
}

/// Copies what isn't a hole. `io::copy` lets the kernel move the bytes (copy_file_range, else sendfile) where it can.
fn content(from: &File, to: &File, size: u64) -> io::Result<()> {
    let mut at = 0;
    while at < size {
        let start = match fs::seek(from, SeekFrom::Data(at)) {
            // Only a hole is left.
            Err(Errno::NXIO) => return to.set_len(size),
            start => start?,
        };
        let end = fs::seek(from, SeekFrom::Hole(start))?;
        fs::seek(from, SeekFrom::Start(start))?;
        fs::seek(to, SeekFrom::Start(start))?;
        let mut data: io::Take<&File> = from.take(end - start);
        if io::copy(&mut data, &mut &*to)? == 0 {
            return Err(io::Error::other("the file got shorter; is the image being changed?"));
        }
        at = end;
    }
    Ok(())
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

/// What an image may bring. `trusted.*` and `user.overlay.*` are overlayfs's own marks; labels of security modules
/// belong to the host.
fn keeps(name: &[u8]) -> bool {
    match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => name.starts_with(b"user.") && !name.starts_with(b"user.overlay."),
    }
}
