//! Makes entries in a folder that may be a living container's: each is made new in a folder held by descriptor, and what it
//! is given (owner, mode, times) it gets through a descriptor of itself, never by a name that could have been swapped.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use images::{Entry, Kind};
use runtime::mounts::beneath::Root;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{ends, shown};

/// Who owns what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// As the entry says.
    Kept,
    /// This user and group.
    Is(u32, u32),
}

/// How the folder of an entry is found.
#[derive(Debug)]
pub enum Way {
    /// By its names alone; a link on the way is an error. For what a walk has read: there each folder is an entry.
    NoLinks,
    /// As a process would whose root is this folder: links are followed inside it, missing folders made. For archives, whose
    /// entries lie below this path in it.
    Inside(Root, Vec<u8>),
}

/// Where entries are made.
#[derive(Debug)]
pub struct Place<'a> {
    folder: &'a OwnedFd,
    way: Way,
    owner: Owner,
    /// On the host nothing of a container becomes a device, nor gets rights that its owner there didn't have.
    on_host: bool,
    /// Folders with their times, set at the end, for all that is made in them changes them.
    folders: Vec<(Vec<u8>, Timestamps)>,
    buffer: Vec<u8>,
    /// Names of devices that were left out.
    pub left_out: Vec<String>,
}

impl<'a> Place<'a> {
    /// Makes entries in `folder`.
    pub fn new(folder: &'a OwnedFd, way: Way, owner: Owner, on_host: bool) -> Place<'a> {
        Place { folder, way, owner, on_host, folders: Vec::new(), buffer: vec![0; 128 << 10], left_out: Vec::new() }
    }

    /// Makes one entry. What is in its way is replaced, but no folder by a file, nor a file by a folder.
    ///
    /// # Errors
    /// With the entry's name.
    pub fn add(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<()> {
        let path = ends::clean(&entry.name);
        let path = &path[1..];
        self.make(entry, path, data).with_context(|| format!("cannot copy {}", shown(&entry.name)))
    }

    fn make(&mut self, entry: &Entry, path: &[u8], data: &mut dyn Read) -> Result<()> {
        if path.is_empty() {
            // The content of the folder is meant, which keeps what it is.
            return Ok(());
        }
        let (parent_path, base) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (b"".as_slice(), path),
        };
        if self.on_host && matches!(entry.kind, Kind::Char | Kind::Block) {
            self.left_out.push(shown(&entry.name));
            return Ok(());
        }
        // A hard link's target first, for it may be what is in the way.
        let first = match entry.kind {
            Kind::HardLink => Some(self.linked(&entry.link)?),
            _ => None,
        };
        let parent = self.parent(parent_path)?;
        let is_folder = make_room(&parent, base, entry.kind)?;
        match entry.kind {
            Kind::Dir => {
                if !is_folder {
                    fs::mkdirat(&parent, base, Mode::RWXU).map_err(io::Error::from)?;
                }
                let made = held(&parent, base, OFlags::DIRECTORY)?;
                self.dress(&made, entry)?;
                self.folders.push((path.to_vec(), times(entry)));
            }
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = fs::openat(&parent, base, flags, Mode::RUSR | Mode::WUSR).map_err(io::Error::from)?;
                let file = File::from(file);
                self.write(&file, entry, data)?;
                self.dress(&file.into(), entry)?;
            }
            Kind::HardLink => {
                let Some((folder, name)) = first else { return Ok(()) };
                fs::linkat(&folder, name.as_slice(), &parent, base, AtFlags::empty()).map_err(io::Error::from)?;
            }
            Kind::Symlink => {
                fs::symlinkat(entry.link.as_slice(), &parent, base).map_err(io::Error::from)?;
                self.dress(&held(&parent, base, OFlags::empty())?, entry)?;
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let (kind, device) = match entry.kind {
                    Kind::Char => (FileType::CharacterDevice, fs::makedev(entry.device.0, entry.device.1)),
                    Kind::Block => (FileType::BlockDevice, fs::makedev(entry.device.0, entry.device.1)),
                    _ => (FileType::Fifo, 0),
                };
                fs::mknodat(&parent, base, kind, Mode::RUSR | Mode::WUSR, device).map_err(io::Error::from)?;
                self.dress(&held(&parent, base, OFlags::empty())?, entry)?;
            }
        }
        Ok(())
    }

    fn parent(&self, path: &[u8]) -> Result<OwnedFd> {
        let opened = match &self.way {
            Way::NoLinks => open_plain(self.folder, path),
            Way::Inside(root, top) => {
                let path = [top.as_slice(), b"/", path].concat();
                root.folder(Path::new(std::ffi::OsStr::from_bytes(&path)))
            }
        };
        match opened {
            Err(Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => Err(anyhow!("{} is no folder (any more)", shown(path))),
            opened => Ok(opened.map_err(io::Error::from)?),
        }
    }

    fn linked(&self, link: &[u8]) -> Result<(OwnedFd, Vec<u8>)> {
        let link = ends::clean(link);
        let (parent, base) = match link.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&link[1.min(at)..at], &link[at + 1..]),
            None => bail!("a hard link to nothing"),
        };
        Ok((self.parent(parent)?, base.to_vec()))
    }

    fn write(&mut self, file: &File, entry: &Entry, data: &mut dyn Read) -> io::Result<()> {
        let whole = [(0, entry.size)];
        let pieces: &[(u64, u64)] = entry.sparse.as_ref().map_or(&whole, |sparse| &sparse.pieces);
        for (mut at, length) in pieces.iter().copied() {
            let mut left = length;
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                let count = data.read(&mut self.buffer[..most])?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                file.write_all_at(&self.buffer[..count], at)?;
                (at, left) = (at + count as u64, left - count as u64);
            }
        }
        match &entry.sparse {
            Some(sparse) => file.set_len(sparse.real_bytes),
            None => Ok(()),
        }
    }

    /// Owner, mode, capability, times: in this order, for a change of owner clears the set-uid bit and the capability.
    fn dress(&self, fd: &OwnedFd, entry: &Entry) -> Result<()> {
        let (uid, gid) = match self.owner {
            Owner::Is(uid, gid) => (uid, gid),
            Owner::Kept => match (u32::try_from(entry.uid), u32::try_from(entry.gid)) {
                (Ok(uid), Ok(gid)) if uid != u32::MAX && gid != u32::MAX => (uid, gid),
                _ => bail!("its owner is out of range"),
            },
        };
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        fs::chownat(fd, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags).map_err(io::Error::from)?;
        // A program of the container must not become a set-uid program of somebody else's.
        let foreign = self.on_host && (u64::from(uid), u64::from(gid)) != (entry.uid, entry.gid);
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        if entry.kind != Kind::Symlink {
            let mode = if foreign && entry.kind == Kind::File { entry.mode & 0o1777 } else { entry.mode };
            fs::chmod(&path, Mode::from_raw_mode(mode)).map_err(io::Error::from)?;
        }
        if entry.kind == Kind::File && !(self.on_host && self.owner != Owner::Kept) {
            for (name, value) in entry.xattrs.iter().filter(|(name, _)| name == b"security.capability") {
                fs::setxattr(&path, name.as_slice(), value, XattrFlags::empty()).map_err(io::Error::from)?;
            }
        }
        if entry.kind != Kind::Dir {
            fs::utimensat(fd, "", &times(entry), flags).map_err(io::Error::from)?;
        }
        Ok(())
    }

    /// Sets the folders' times.
    ///
    /// # Errors
    /// None but the kernel's; a folder that was swapped meanwhile is left alone.
    pub fn finish(self) -> Result<()> {
        for (path, times) in self.folders.iter().rev() {
            if let Ok(folder) = self.parent(path) {
                let _ = fs::utimensat(&folder, "", times, AtFlags::EMPTY_PATH);
            }
        }
        for name in &self.left_out {
            eprintln!("minidock: warning: the device {name} was not copied: it would be a real one on the host");
        }
        Ok(())
    }
}

/// O_PATH of what was just made; swapped for a link it is that link itself.
fn held(parent: &OwnedFd, base: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(parent, base, flags, Mode::empty())?)
}

fn open_plain(top: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b".".as_slice() } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    fs::openat2(top.as_fd(), path, flags, Mode::empty(), how)
}

/// Removes what is in the way; true when it is a folder that stays.
fn make_room(parent: &OwnedFd, base: &[u8], kind: Kind) -> Result<bool> {
    let there = match fs::statat(parent, base, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        there => FileType::from_raw_mode(there.map_err(io::Error::from)?.st_mode),
    };
    match (there == FileType::Directory, kind == Kind::Dir) {
        (true, true) => Ok(true),
        (true, false) => bail!("cannot overwrite directory with non-directory"),
        (false, true) => bail!("cannot overwrite non-directory with directory"),
        (false, false) => match fs::unlinkat(parent, base, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(false),
            Err(Errno::BUSY) => bail!("something is mounted there, so it can't be replaced"),
            Err(errno) => Err(io::Error::from(errno).into()),
        },
    }
}

fn times(entry: &Entry) -> Timestamps {
    let spec = |time: images::Time| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: spec(entry.atime.unwrap_or(entry.mtime)), last_modification: spec(entry.mtime) }
}
