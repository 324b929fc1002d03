//! A folder as a tar stream, for `import DIR`: it goes the same way, and through the same checks, as an archive,
//! and gets a diff id that depends on its contents alone (names sorted, no device numbers, no atimes).
//!
//! The folder may be hostile and may change meanwhile: it is read beneath its fd, and no link is followed. Other
//! file systems mounted in it are left out (an empty folder stands for them), and so are sockets.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use tar::Header;

use crate::beneath::proc_path;
use crate::error::refusal;
use crate::layer::shown;
use crate::metadata::keeps;

/// Most bytes of names to keep in memory.
const NAMES_MAX: usize = 256 << 20;

/// A `Read` of the folder's tar stream.
pub(crate) struct FolderTar {
    root: OwnedFd,
    device: u64,
    /// Names still to come: of each open folder, the last first. The top itself is the first.
    todo: Vec<Vec<u8>>,
    /// Hard links seen: inode to the first name.
    links: HashMap<u64, Vec<u8>>,
    /// Bytes of the names in these two.
    names_bytes: usize,
    /// Headers and padding ready to be read.
    ready: Vec<u8>,
    given: usize,
    /// The file whose data comes now, and what is left of it.
    file: Option<(File, u64, Vec<u8>)>,
    padding: usize,
    ended: bool,
}

impl FolderTar {
    pub fn new(root: OwnedFd) -> FolderTar {
        FolderTar {
            root,
            device: 0,
            todo: vec![Vec::new()],
            links: HashMap::new(),
            names_bytes: 0,
            ready: Vec::new(),
            given: 0,
            file: None,
            padding: 0,
            ended: false,
        }
    }

    /// Prepares the next entry.
    fn advance(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.given = 0;
        let Some(path) = self.todo.pop() else {
            self.ready.resize(1024, 0);
            self.ended = true;
            return Ok(());
        };
        self.names_bytes = self.names_bytes.saturating_sub(path.len());
        let named = |error: Errno| {
            let error = io::Error::from(error);
            io::Error::new(error.kind(), refusal(format!("{}: {error}", shown(&path))))
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let object = match self.open(&path, flags) {
            // Removed meanwhile.
            Err(Errno::NOENT) => return Ok(()),
            object => object.map_err(named)?,
        };
        let stat = fs::fstat(&object).map_err(named)?;
        if path.is_empty() {
            self.device = stat.st_dev;
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut size = 0;
        let mut link = Vec::new();
        let tar_kind = match kind {
            FileType::RegularFile => match self.links.get(&stat.st_ino) {
                Some(first) => {
                    link.clone_from(first);
                    b'1'
                }
                None => {
                    size = stat.st_size as u64;
                    self.file = Some((self.reopen(&path, &stat).map_err(named)?, size, path.clone()));
                    self.padding = (size.wrapping_neg() % 512) as usize;
                    b'0'
                }
            },
            FileType::Directory => {
                if stat.st_dev == self.device {
                    self.list(&path).map_err(|error| refusal(format!("{}: {error}", shown(&path))))?;
                }
                b'5'
            }
            FileType::Symlink => {
                link = fs::readlinkat(&object, "", Vec::new()).map_err(named)?.into_bytes();
                b'2'
            }
            FileType::CharacterDevice => b'3',
            FileType::BlockDevice => b'4',
            FileType::Fifo => b'6',
            _ => return Ok(()),
        };
        if kind != FileType::Directory && stat.st_nlink > 1 {
            self.names_bytes += path.len();
            self.links.entry(stat.st_ino).or_insert_with(|| path.clone());
        }
        let xattrs = xattrs(&object).map_err(named)?;
        self.header(tar_kind, &path, &link, size, &stat, &xattrs)
    }

    fn open(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { b".".as_slice() } else { path };
        loop {
            match fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Opens a file's data, if it is still the same file.
    fn reopen(&self, path: &[u8], stat: &Stat) -> rustix::io::Result<File> {
        let fd = self.open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let now = fs::fstat(&fd)?;
        match (now.st_dev, now.st_ino) == (stat.st_dev, stat.st_ino) {
            true => Ok(fd.into()),
            false => Err(Errno::STALE),
        }
    }

    fn list(&mut self, path: &[u8]) -> io::Result<()> {
        let folder = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::new(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            self.names_bytes += path.len() + 1 + name.len();
            if self.names_bytes > NAMES_MAX {
                return Err(refusal("too many names for the memory"));
            }
            names.push(match path.is_empty() {
                true => name.to_vec(),
                false => [path, b"/", name].concat(),
            });
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.todo.append(&mut names);
        Ok(())
    }

    /// A PAX header with everything, and the entry's own.
    fn header(
        &mut self,
        kind: u8,
        path: &[u8],
        link: &[u8],
        size: u64,
        stat: &Stat,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        let name = if path.is_empty() { b"./".as_slice() } else { path };
        let mut pax = Vec::new();
        record(&mut pax, b"path", name);
        if !link.is_empty() {
            record(&mut pax, b"linkpath", link);
        }
        record(&mut pax, b"size", size.to_string().as_bytes());
        record(&mut pax, b"uid", stat.st_uid.to_string().as_bytes());
        record(&mut pax, b"gid", stat.st_gid.to_string().as_bytes());
        record(&mut pax, b"mtime", seconds(stat.st_mtime, stat.st_mtime_nsec as i64).as_bytes());
        for (name, value) in xattrs {
            record(&mut pax, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        let mut extra = Header::new_ustar();
        extra.set_entry_type(tar::EntryType::XHeader);
        extra.set_size(pax.len() as u64);
        extra.set_cksum();
        let mut header = Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(stat.st_mode & 0o7777);
        // tar's own size field holds 8 GiB; the PAX record is the one that counts.
        header.set_size(if size < 8 << 30 { size } else { 0 });
        if kind == b'3' || kind == b'4' {
            header.set_device_major(fs::major(stat.st_rdev))?;
            header.set_device_minor(fs::minor(stat.st_rdev))?;
        }
        header.set_cksum();
        self.ready.extend_from_slice(extra.as_bytes());
        self.ready.extend_from_slice(&pax);
        self.ready.resize(self.ready.len().next_multiple_of(512), 0);
        self.ready.extend_from_slice(header.as_bytes());
        Ok(())
    }

    fn read_file(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some((file, left, path)) = &mut self.file else {
            return Ok(0);
        };
        if *left == 0 {
            self.file = None;
            self.ready.clear();
            self.ready.resize(self.padding, 0);
            self.given = 0;
            return Ok(0);
        }
        let wanted = into.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let count = file.read(&mut into[..wanted])?;
        if count == 0 {
            return Err(refusal(format!("{}: it shrank while it was read", shown(path))));
        }
        *left -= count as u64;
        Ok(count)
    }
}

impl Read for FolderTar {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            if self.given < self.ready.len() {
                let ready = &self.ready[self.given..];
                let count = ready.len().min(into.len());
                into[..count].copy_from_slice(&ready[..count]);
                self.given += count;
                return Ok(count);
            }
            if self.file.is_some() {
                match self.read_file(into)? {
                    0 => continue,
                    count => return Ok(count),
                }
            }
            if self.ended {
                return Ok(0);
            }
            self.advance()?;
        }
    }
}

/// `LENGTH key=value\n`, where the length counts itself.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(length.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

fn seconds(seconds: i64, nanoseconds: i64) -> String {
    match (seconds, nanoseconds) {
        (_, 0) => seconds.to_string(),
        (0.., _) => format!("{seconds}.{nanoseconds:09}"),
        (-1, _) => format!("-0.{:09}", 1_000_000_000 - nanoseconds),
        _ => format!("{}.{:09}", seconds + 1, 1_000_000_000 - nanoseconds),
    }
}

/// The attributes that an image may have, sorted.
fn xattrs(object: &OwnedFd) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = proc_path(object.as_fd());
    // The kernel's own limits (XATTR_LIST_MAX, XATTR_SIZE_MAX).
    let mut list = vec![0u8; 65_536];
    let count = match fs::listxattr(path.as_str(), list.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        count => count?,
    };
    let mut names: Vec<&[u8]> = list[..count].split(|byte| *byte == 0).filter(|name| keeps(name)).collect();
    names.sort_unstable();
    let mut found = Vec::new();
    for name in names {
        let mut value = vec![0u8; 65_536];
        match fs::getxattr(path.as_str(), name, value.as_mut_slice()) {
            Err(Errno::NODATA) => {}
            count => {
                value.truncate(count?);
                found.push((name.to_vec(), value));
            }
        }
    }
    Ok(found)
}
