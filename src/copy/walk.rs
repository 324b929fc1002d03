//! Reads a file or a whole folder as the entries of an archive, while its owner may change it at any moment.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use images::{Entry, Kind, Time};
use rustix::fs::{self, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::shown;

/// A file capability has at most 24 bytes (linux/capability.h, vfs_ns_cap_data).
const CAPABILITY_MAX: usize = 64;

/// What a walk tells for each entry.
pub type Each<'a> = &'a mut dyn FnMut(&Entry, &mut dyn Read) -> Result<()>;

/// In which order a folder's entries come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As the file system has them: nothing of a folder is held in memory, however large a container makes it.
    AsFound,
    /// The same for the same files, always. For folders of ours.
    ByName,
}

/// Reads `top` and, where it's a folder, all below it. `name` is the first entry's; below it are the others'. An empty
/// name stands for a folder's content alone. What vanishes meanwhile, or is swapped for a link, is left out.
///
/// The kernel's own file systems (procfs, sysfs, …) and the container's /dev are entries, but not entered.
///
/// # Errors
/// What can't be read, and what `each` says.
pub fn walk(top: &OwnedFd, name: &[u8], order: Order, each: Each<'_>) -> Result<()> {
    let stat = fs::fstat(top).map_err(|errno| failed(name, errno))?;
    let mut walk = Walk { top: top.as_fd(), order, linked: HashMap::new() };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return walk.leaf(top, &stat, name.to_vec(), each);
    }
    let folder = open_folder(top.as_fd(), Path::new("")).map_err(|errno| failed(name, errno))?;
    let mut entry = entry_of(&folder, &stat, if name.is_empty() { b"./".to_vec() } else { [name, b"/"].concat() });
    entry.kind = Kind::Dir;
    each(&entry, &mut io::empty())?;
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        walk.folder(&path, name, &mut todo, each)?;
    }
    Ok(())
}

struct Walk<'a> {
    top: BorrowedFd<'a>,
    order: Order,
    /// Device and inode of files with several names: the first one's entry.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl Walk<'_> {
    fn folder(&mut self, path: &Path, prefix: &[u8], todo: &mut Vec<PathBuf>, each: Each<'_>) -> Result<()> {
        let folder = match open_folder(self.top, path) {
            // Gone, or swapped for something else.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(()),
            folder => folder.map_err(|errno| failed(path.as_os_str().as_bytes(), errno))?,
        };
        let device = fs::fstat(&folder).map(|stat| stat.st_dev).unwrap_or_default();
        let list = Dir::read_from(&folder).map_err(|errno| failed(path.as_os_str().as_bytes(), errno))?;
        let names = list.map_while(|item| Some(item.ok()?.file_name().to_owned()));
        let mut names: Box<dyn Iterator<Item = CString>> =
            Box::new(names.filter(|base| !matches!(base.to_bytes(), b"." | b"..")));
        if self.order == Order::ByName {
            let mut sorted: Vec<CString> = names.collect();
            sorted.sort_unstable();
            names = Box::new(sorted.into_iter());
        }
        for base in names {
            let base = base.as_c_str();
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(fd) = fs::openat(&folder, base, flags, Mode::empty()) else { continue };
            let Ok(stat) = fs::fstat(&fd) else { continue };
            let path = path.join(OsStr::from_bytes(base.to_bytes()));
            let bytes = path.as_os_str().as_bytes();
            let name = if prefix.is_empty() { bytes.to_vec() } else { [prefix, b"/", bytes].concat() };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                each(&entry_of(&fd, &stat, [&name[..], b"/"].concat()), &mut io::empty())?;
                let dev = prefix.is_empty() && bytes == b"dev";
                if stat.st_dev == device || !(dev || is_kernels(&fd)) {
                    todo.push(path);
                }
            } else {
                self.leaf(&fd, &stat, name, each)?;
            }
        }
        Ok(())
    }

    fn leaf(&mut self, fd: &OwnedFd, stat: &Stat, name: Vec<u8>, each: Each<'_>) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut entry = entry_of(fd, stat, name);
        if stat.st_nlink > 1 && kind != FileType::Directory {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.linked.get(&inode) {
                (entry.kind, entry.link, entry.size) = (Kind::HardLink, first.clone(), 0);
                return each(&entry, &mut io::empty());
            }
            self.linked.insert(inode, entry.name.clone());
        }
        match kind {
            FileType::RegularFile => {
                let file = open_file(fd).map_err(|errno| failed(&entry.name, errno))?;
                let mut data = Exact { file: file.take(entry.size), left: entry.size };
                each(&entry, &mut data)
            }
            FileType::Symlink => {
                entry.kind = Kind::Symlink;
                let link = fs::readlinkat(fd, "", Vec::new()).map_err(|errno| failed(&entry.name, errno))?;
                entry.link = link.into_bytes();
                each(&entry, &mut io::empty())
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => each(&entry, &mut io::empty()),
            // A socket is nothing without its process.
            _ => Ok(()),
        }
    }
}

/// Opens for reading the very inode that an O_PATH descriptor holds, known to be a regular file: no swap of its name can
/// make it a device or a FIFO.
fn open_file(fd: &OwnedFd) -> Result<File, Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).map(File::from)
}

/// Opens a folder by its path from the top; no part of it may be a link.
fn open_folder(top: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    fs::openat2(top, path, flags, Mode::empty(), how)
}

/// File systems that show the kernel, not files.
fn is_kernels(fd: &OwnedFd) -> bool {
    /// linux/magic.h: proc, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs, tracefs, securityfs, bpf.
    const MAGIC: [i64; 10] = [
        0x9fa0,
        0x6265_6572,
        0x0027_e0eb,
        0x6367_7270,
        0x1cd1,
        0x1980_0202,
        0x6462_6720,
        0x7472_6163,
        0x7363_6673,
        0xcafe_4a11,
    ];
    fs::fstatfs(fd).is_ok_and(|stat| MAGIC.contains(&stat.f_type))
}

fn entry_of(fd: &OwnedFd, stat: &Stat, name: Vec<u8>) -> Entry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::Char,
        FileType::BlockDevice => Kind::Block,
        FileType::Fifo => Kind::Fifo,
        _ => Kind::File,
    };
    let mut value = [0; CAPABILITY_MAX];
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let capability = match kind {
        Kind::File => fs::getxattr(path, "security.capability", &mut value).ok(),
        _ => None,
    };
    Entry {
        kind,
        name,
        link: Vec::new(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid.into(),
        gid: stat.st_gid.into(),
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        atime: None,
        size: if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        data_offset: 0,
        device: (fs::major(stat.st_rdev), fs::minor(stat.st_rdev)),
        xattrs: capability
            .map(|length| (b"security.capability".to_vec(), value[..length].to_vec()))
            .into_iter()
            .collect(),
        sparse: None,
    }
}

/// As many bytes as the file had when it was looked at: one that grows is cut, one that shrinks gets zeros, as tar does.
struct Exact {
    file: io::Take<File>,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..most];
        let mut count = self.file.read(buffer)?;
        if count == 0 {
            buffer.fill(0);
            count = buffer.len();
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn failed(name: &[u8], errno: Errno) -> anyhow::Error {
    let what = if name.is_empty() { b"/".as_slice() } else { name };
    anyhow!("cannot read {}: {}", shown(what), crate::error::io_text(&io::Error::from(errno)))
}
