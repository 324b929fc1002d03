//! One layer: a tar stream becomes a folder in overlayfs's own form (whiteouts are 0:0 devices, opaque folders
//! carry an attribute).
//!
//! The stream is hostile. Each entry's folder is opened by the kernel *inside* the layer (openat2 IN_ROOT: links
//! are followed as in a chroot), and the entry is made in that fd, always new (O_EXCL, no link followed): what an
//! earlier entry has put there is removed first. So no order of entries can reach outside. Never `tar::unpack`.
//! Only the unpacking process writes there: the folder is below a 0700 one and gets its real name when it is done.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::beneath;
use crate::entries::{Entry, Kind, Sparse, TarReader};
use crate::error::{Failure, refusal};
use crate::limits::Devices;
use crate::metadata::{set_all, set_by_name};
use crate::meter::Budget;

/// Marks a folder that hides what the layers below have there (overlayfs(5), "opaque directories").
const OPAQUE: &str = "trusted.overlay.opaque";

/// What came out of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contents {
    /// Sum of the sizes of regular files, as docker counts an image's size.
    pub size_bytes: u64,
    /// Number of entries.
    pub entries: u64,
    /// The archive had its end marker; without it, it may have been cut off between two entries.
    pub ended: bool,
}

/// Unpacks a whole tar stream into an empty folder, to the stream's last byte.
pub(crate) fn unpack(
    source: impl Read,
    folder: &OwnedFd,
    devices: Devices,
    budget: &Budget<'_>,
) -> Result<Contents, Failure> {
    let mut tar = TarReader::new(source, budget.limits);
    let mut layer = Layer { root: folder, parent: None, devices, budget, buffer: vec![0; 128 << 10] };
    let mut contents = Contents::default();
    while let Some(entry) = tar.next().map_err(|error| Failure::reading(error, None))? {
        contents.entries += 1;
        let name = || Some(shown(&entry.name));
        budget.take_entry().map_err(|error| Failure::reading(error, name()))?;
        layer.add(&entry, &mut tar)?;
        if entry.kind == Kind::File {
            contents.size_bytes += entry.sparse.as_ref().map_or(entry.size, |sparse| sparse.real_bytes);
        }
    }
    layer.leave().map_err(|error| Failure::writing(error.into(), None))?;
    tar.drain().map_err(|error| Failure::reading(error, None))?;
    contents.ended = tar.ended;
    Ok(contents)
}

/// An entry's name for people: one line, not too long.
pub(crate) fn shown(name: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(name).chars().flat_map(char::escape_debug).take(200).collect();
    if text.is_empty() { "(an entry without a name)".into() } else { text }
}

struct Layer<'a> {
    root: &'a OwnedFd,
    /// The folder of the last entry, kept open: archives come folder by folder.
    parent: Option<Parent>,
    devices: Devices,
    budget: &'a Budget<'a>,
    buffer: Vec<u8>,
}

struct Parent {
    path: Vec<u8>,
    fd: OwnedFd,
    /// Its times before we worked in it: set again when we leave, so that "folders last" needs no list of all
    /// folders in memory.
    times: Timestamps,
}

impl Layer<'_> {
    /// Adds one entry; errors carry its name.
    fn add(&mut self, entry: &Entry, data: &mut impl Read) -> Result<(), Failure> {
        let name = || Some(shown(&entry.name));
        let refused = |why: &str| Failure::Refused { entry: name(), why: why.into() };
        let path = beneath::clean(&entry.name).map_err(refused)?;
        let (parent, base) = beneath::split(&path);
        if parent.split(|byte| *byte == b'/').any(|part| part.starts_with(b".wh.")) {
            return Err(refused("names that begin with .wh. are whiteouts and have nothing below them"));
        }
        let result = if base.is_empty() {
            self.top(entry)
        } else if let Some(hidden) = base.strip_prefix(b".wh.") {
            self.whiteout(parent, hidden)
        } else {
            self.make(entry, parent, base, data)
        };
        result.map_err(|error| match error {
            Trouble::Reading(error) => Failure::reading(error, name()),
            Trouble::Writing(error) => Failure::writing(error, name()),
        })
    }

    /// The layer's own folder ("./").
    fn top(&mut self, entry: &Entry) -> Result<(), Trouble> {
        if entry.kind != Kind::Dir {
            return Err(refused("only a folder can stand at the top of a layer"));
        }
        self.leave()?;
        set_all(self.root, entry)
    }

    /// `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` all that they have in this folder (OCI image
    /// spec, layer.md). Both speak about layers below only, never about entries of this layer.
    fn whiteout(&mut self, parent: &[u8], hidden: &[u8]) -> Result<(), Trouble> {
        if hidden == b".wh..opq" {
            let parent = self.enter(parent)?;
            return Ok(fs::fsetxattr(&parent.fd, OPAQUE, b"y", XattrFlags::empty())?);
        }
        if hidden.starts_with(b".wh.") {
            // aufs's own files (.wh..wh.plnk, .wh..wh.aufs) in images of that time: no content.
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused("a whiteout without a name"));
        }
        let parent = self.enter(parent)?;
        match fs::mknodat(&parent.fd, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            Err(Errno::EXIST) => {}
            result => return Ok(result?),
        }
        // This layer has NAME as well, so it hides the lower one by itself; a folder must not be merged, though.
        match beneath::step(&parent.fd, hidden) {
            Ok(folder) => Ok(fs::fsetxattr(folder, OPAQUE, b"y", XattrFlags::empty())?),
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn make(&mut self, entry: &Entry, parent: &[u8], base: &[u8], data: &mut impl Read) -> Result<(), Trouble> {
        if matches!(entry.kind, Kind::Char | Kind::Block) {
            match self.devices {
                Devices::Create => {}
                Devices::Skip => return Ok(()),
                Devices::Refuse => {
                    return Err(refused("it is a device, and devices are not allowed here"));
                }
            }
        }
        // The hard link's target first: what it resolves to must not depend on the removal of the old entry.
        let target = match entry.kind {
            Kind::HardLink => Some(self.target(entry)?),
            Kind::Symlink if entry.link.is_empty() => {
                return Err(refused("a symbolic link to nothing"));
            }
            _ => None,
        };
        self.enter(parent)?;
        let Some(parent) = &self.parent else {
            return Ok(());
        };
        let dir = parent.fd.as_fd();
        let hides_lower = make_room(&parent.fd, base, entry.kind)?;
        match entry.kind {
            Kind::Dir => {
                match fs::mkdirat(dir, base, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let folder = beneath::step(dir, base)?;
                set_all(&folder, entry)?;
                if hides_lower {
                    fs::fsetxattr(folder, OPAQUE, b"y", XattrFlags::empty())?;
                }
            }
            Kind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = File::from(fs::openat(dir, base, flags, Mode::RUSR | Mode::WUSR)?);
                fill(&file, entry, data, self.budget, &mut self.buffer)?;
                set_all(file, entry)?;
            }
            Kind::HardLink => {
                let Some((folder, name)) = target else {
                    return Ok(());
                };
                // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is a second name of that link.
                match fs::linkat(folder, name.as_slice(), dir, base, AtFlags::empty()) {
                    Err(Errno::NOENT) => return Err(refused(&missing(&entry.link))),
                    Err(Errno::PERM) => return Err(refused("a hard link to a folder")),
                    result => result?,
                }
            }
            Kind::Symlink => {
                fs::symlinkat(entry.link.as_slice(), dir, base)?;
                set_by_name(&parent.fd, base, entry)?;
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let (kind, device) = match entry.kind {
                    Kind::Char => (FileType::CharacterDevice, fs::makedev(entry.device.0, entry.device.1)),
                    Kind::Block => (FileType::BlockDevice, fs::makedev(entry.device.0, entry.device.1)),
                    _ => (FileType::Fifo, 0),
                };
                fs::mknodat(dir, base, kind, Mode::RUSR | Mode::WUSR, device)?;
                set_by_name(&parent.fd, base, entry)?;
            }
        }
        Ok(())
    }

    /// Folder and name of a hard link's target. An absolute one counts from the layer's top (docker writes such).
    fn target(&self, entry: &Entry) -> Result<(OwnedFd, Vec<u8>), Trouble> {
        let path = beneath::clean(&entry.link).map_err(|why| refused(&format!("a bad link target: {why}")))?;
        let (folder, name) = beneath::split(&path);
        if name.is_empty() {
            return Err(refused("a hard link to the layer's top"));
        }
        match beneath::open_dir(self.root, folder) {
            Ok(fd) => Ok((fd, name.to_vec())),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(refused(&missing(&entry.link))),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes `path` the current folder.
    fn enter(&mut self, path: &[u8]) -> Result<&Parent, Trouble> {
        if self.parent.as_ref().is_none_or(|parent| parent.path != path) {
            self.leave()?;
            let fd = beneath::make_dirs(self.root, path)?;
            let stat = fs::fstat(&fd)?;
            let times = Timestamps {
                last_access: Timespec { tv_sec: stat.st_atime as i64, tv_nsec: stat.st_atime_nsec as i64 },
                last_modification: Timespec { tv_sec: stat.st_mtime as i64, tv_nsec: stat.st_mtime_nsec as i64 },
            };
            self.parent = Some(Parent { path: path.to_vec(), fd, times });
        }
        self.parent.as_ref().ok_or_else(|| Trouble::Writing(io::ErrorKind::NotFound.into()))
    }

    /// Leaves the current folder and gives it its times back.
    fn leave(&mut self) -> rustix::io::Result<()> {
        match self.parent.take() {
            Some(parent) => fs::futimens(&parent.fd, &parent.times),
            None => Ok(()),
        }
    }
}

/// An error with its side: bad input, or trouble with the folder.
pub(crate) enum Trouble {
    Reading(io::Error),
    Writing(io::Error),
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Trouble {
        Trouble::Writing(error.into())
    }
}

pub(crate) fn refused(why: &str) -> Trouble {
    Trouble::Reading(refusal(why))
}

fn missing(link: &[u8]) -> String {
    format!("a hard link to {}, which the layer doesn't have (before it)", shown(link))
}

/// Removes what an earlier entry has put here, as docker does: a folder over a folder is merged, everything else
/// is replaced. Says whether a whiteout stood here, so that a folder in its place must be opaque.
fn make_room(parent: &OwnedFd, base: &[u8], kind: Kind) -> Result<bool, Trouble> {
    let stat = match fs::statat(parent, base, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        stat => stat?,
    };
    let there = FileType::from_raw_mode(stat.st_mode);
    if there == FileType::Directory && kind == Kind::Dir {
        return Ok(false);
    }
    beneath::remove(parent, base)?;
    Ok(there == FileType::CharacterDevice && stat.st_rdev == 0)
}

/// Writes a file's data; holes of sparse files stay holes.
fn fill(
    file: &File,
    entry: &Entry,
    data: &mut impl Read,
    budget: &Budget<'_>,
    buffer: &mut [u8],
) -> Result<(), Trouble> {
    let Some(Sparse { real_bytes, pieces }) = &entry.sparse else {
        return copy(data, entry.size, buffer, |bytes, _| (&mut &*file).write_all(bytes));
    };
    // Holes cost no disk here, but whoever copies the file later pays for them.
    budget.take_bytes(real_bytes.saturating_sub(entry.size)).map_err(Trouble::Reading)?;
    fs::ftruncate(file, *real_bytes)?;
    for (offset, length) in pieces {
        copy(data, *length, buffer, |bytes, done| file.write_all_at(bytes, offset + done))?;
    }
    Ok(())
}

/// Hands `count` bytes to `write`, with the number of bytes before them.
fn copy(
    data: &mut impl Read,
    count: u64,
    buffer: &mut [u8],
    mut write: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> Result<(), Trouble> {
    let mut done = 0;
    while done < count {
        let want = buffer.len().min(usize::try_from(count - done).unwrap_or(usize::MAX));
        let got = match data.read(&mut buffer[..want]) {
            Ok(0) => return Err(Trouble::Reading(io::ErrorKind::UnexpectedEof.into())),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result.map_err(Trouble::Reading)?,
        };
        write(&buffer[..got], done).map_err(Trouble::Writing)?;
        done += got as u64;
    }
    Ok(())
}

/// Unpacks an uncompressed tar stream into an empty folder (opened with O_RDONLY), within the limits.
pub fn unpack_tar(
    source: impl Read,
    folder: &OwnedFd,
    devices: Devices,
    limits: &crate::Limits,
) -> Result<Contents, Failure> {
    let budget = Budget::new(limits);
    let stored = std::rc::Rc::new(std::cell::Cell::new(u64::MAX));
    let source = crate::meter::Unpacked::new(source, stored, &budget);
    unpack(source, folder, devices, &budget)
}
