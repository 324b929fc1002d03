//! The outer archive: a tar file, a folder, or a stream, opened so that its members can be read in any order (and
//! by several threads at once), since `manifest.json` may come last.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::beneath;
use crate::compression::{Compression, decode};
use crate::digest::Digest;
use crate::entries::{Kind, TarReader};
use crate::error::{Error, Failure, Result, at, refusal};
use crate::limits::Limits;
use crate::meter::{Budget, Stored, Unpacked};
use crate::progress::{Phase, Progress};
use crate::workspace::Workspace;

/// Where an archive comes from.
#[derive(Clone, Debug)]
pub enum Input {
    /// A tar file (or a folder, or a pipe: what stands there decides).
    File(PathBuf),
    /// A folder.
    Dir(PathBuf),
    /// Standard input.
    Stdin,
}

impl Input {
    /// How messages call it.
    pub fn name(&self) -> String {
        match self {
            Input::File(path) | Input::Dir(path) => path.display().to_string(),
            Input::Stdin => "standard input".into(),
        }
    }

    /// Opens it.
    pub(crate) fn open(&self) -> Result<Opened> {
        let path = match self {
            Input::Stdin => {
                let path = Path::new("standard input");
                let fd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(at("open", path))?;
                return Ok(Opened::Stream(File::from(fd)));
            }
            Input::File(path) | Input::Dir(path) => path,
        };
        let file = File::open(path).map_err(at("open", path))?;
        let kind = file.metadata().map_err(at("look at", path))?.file_type();
        if kind.is_dir() {
            return Ok(Opened::Folder(file.into()));
        }
        if let Input::Dir(path) = self {
            return Err(at("read", path)(Errno::NOTDIR));
        }
        Ok(if kind.is_file() { Opened::File(file) } else { Opened::Stream(file) })
    }
}

/// An opened input.
pub(crate) enum Opened {
    File(File),
    Folder(OwnedFd),
    Stream(File),
}

/// A part of a file that several threads may read.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    file: Arc<File>,
    offset: u64,
    pub size: u64,
}

impl Blob {
    /// Reads it from its beginning.
    pub fn reader(&self) -> BlobReader {
        BlobReader { blob: self.clone(), done: 0 }
    }

    /// All of it, if it isn't larger than `limit`.
    pub fn bytes(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.size > limit {
            return Err(refusal(format!("it has {} bytes; the limit is {limit}", self.size)));
        }
        let mut bytes = Vec::with_capacity(self.size as usize);
        self.reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Distinguishes it from other parts of the same archive.
    pub fn place(&self) -> (usize, u64) {
        (Arc::as_ptr(&self.file) as usize, self.offset)
    }
}

pub(crate) struct BlobReader {
    blob: Blob,
    done: u64,
}

impl Read for BlobReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.size - self.done;
        let wanted = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.blob.file.read_at(&mut into[..wanted], self.blob.offset + self.done)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.done += count as u64;
        Ok(count)
    }
}

/// A member of a tar archive.
enum Member {
    File { offset: u64, size: u64 },
    Link(Vec<u8>),
}

/// Longest name, or link, of a member that we look at.
const MEMBER_NAME_MAX: usize = 512;

/// The archive, with its members by name.
pub(crate) struct Archive {
    /// How messages call it.
    pub name: String,
    /// What to call an image whose only name is a tag: the file's or folder's own name.
    pub stem: Option<String>,
    members: Members,
}

enum Members {
    Tar { file: Arc<File>, index: HashMap<Vec<u8>, Member> },
    Folder(OwnedFd),
}

impl Archive {
    /// Opens an archive. What can't be read in any order is first copied into the workspace, uncompressed.
    pub fn open(input: &Input, workspace: &Workspace, limits: &Limits, progress: &Progress<'_>) -> Result<Archive> {
        let name = input.name();
        let stem = match input {
            Input::File(path) | Input::Dir(path) => {
                path.file_stem().map(|stem| stem.to_string_lossy().trim_end_matches(".tar").to_ascii_lowercase())
            }
            Input::Stdin => None,
        };
        let fail = |failure: Failure| failure.of(&name, workspace.path());
        let file = match input.open()? {
            Opened::Folder(fd) => {
                return Ok(Archive { name, stem, members: Members::Folder(fd) });
            }
            Opened::Stream(file) => spool(file, workspace, limits, progress).map_err(fail)?,
            Opened::File(file) => {
                let head =
                    Blob { file: Arc::new(clone(&file).map_err(fail)?), offset: 0, size: size(&file).map_err(fail)? };
                match decode(head.reader()).map_err(|error| fail(Failure::reading(error, None)))?.0 {
                    Compression::Plain => file,
                    _ => spool(file, workspace, limits, progress).map_err(fail)?,
                }
            }
        };
        let index = index(&file, limits).map_err(|error| fail(Failure::reading(error, None)))?;
        Ok(Archive { name, stem, members: Members::Tar { file: Arc::new(file), index } })
    }

    /// A member by its name in the archive; None if it isn't there.
    pub fn get(&self, name: &str) -> Result<Option<Blob>> {
        let path = beneath::clean(name.as_bytes()).map_err(|why| self.refused(name, why))?;
        match &self.members {
            Members::Folder(root) => self.open_beneath(root, name, &path),
            Members::Tar { file, index } => {
                let mut path = path;
                // `docker save` of old wrote a symlink where a layer came twice.
                for _ in 0..10 {
                    match index.get(&path) {
                        None => return Ok(None),
                        Some(Member::File { offset, size }) => {
                            return Ok(Some(Blob { file: Arc::clone(file), offset: *offset, size: *size }));
                        }
                        Some(Member::Link(target)) => path.clone_from(target),
                    }
                }
                Err(self.refused(name, "too many links"))
            }
        }
    }

    /// The same, but it must be there.
    pub fn need(&self, name: &str) -> Result<Blob> {
        self.get(name)?.ok_or_else(|| self.refused(name, "missing from the archive (incomplete?)"))
    }

    /// A member of `blobs/sha256/`, whose name is its digest. The caller verifies it while reading.
    pub fn blob(&self, digest: &Digest) -> Result<Blob> {
        self.need(&format!("blobs/sha256/{}", digest.hex()))
    }

    /// A JSON document; its digest is checked if it is known.
    pub fn json(&self, name: &str, blob: &Blob, digest: Option<&Digest>, limits: &Limits) -> Result<Vec<u8>> {
        let bytes = blob
            .bytes(limits.json_bytes)
            .map_err(|error| Failure::reading(error, Some(name.to_owned())).of(&self.name, Path::new("")))?;
        match digest {
            Some(digest) if Digest::of(&bytes) != *digest => {
                Err(self.refused(name, format!("its digest is {}, not {digest}: damaged", Digest::of(&bytes))))
            }
            _ => Ok(bytes),
        }
    }

    /// An error about one member.
    pub fn refused(&self, entry: &str, why: impl Into<String>) -> Error {
        let entry: String = entry.chars().flat_map(char::escape_debug).take(200).collect();
        Error::Refused { archive: self.name.clone(), entry: Some(entry), why: why.into() }
    }

    /// The folder may be hostile, too: nothing outside it, and only regular files (a FIFO would block us).
    fn open_beneath(&self, root: &OwnedFd, name: &str, path: &[u8]) -> Result<Option<Blob>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let shown = || Path::new(&self.name).join(name);
        let fd = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(Errno::XDEV) => return Err(self.refused(name, "it leads out of the folder")),
            fd => fd.map_err(|error| at("open", &shown())(error))?,
        };
        let stat = rustix::fs::fstat(&fd).map_err(|error| at("look at", &shown())(error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.refused(name, "it is not a file"));
        }
        Ok(Some(Blob { file: Arc::new(fd.into()), offset: 0, size: stat.st_size as u64 }))
    }
}

fn clone(file: &File) -> Result<File, Failure> {
    file.try_clone().map_err(|source| Failure::Io { entry: None, source })
}

fn size(file: &File) -> Result<u64, Failure> {
    file.metadata().map(|meta| meta.len()).map_err(|source| Failure::Io { entry: None, source })
}

/// Copies a stream, uncompressed, into a file of the workspace that has no name any more.
fn spool(source: File, workspace: &Workspace, limits: &Limits, progress: &Progress<'_>) -> Result<File, Failure> {
    let path = workspace.path().join("archive");
    let failed = |error| Failure::writing(error, None);
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).map_err(failed)?;
    std::fs::remove_file(&path).map_err(failed)?;
    let limits = Limits { unpacked_bytes: limits.archive_bytes, ..limits.clone() };
    let budget = Budget::new(&limits);
    let reading = |error| Failure::reading(error, None);
    let stored = Stored::new(BufReader::with_capacity(128 << 10, source), None);
    let counter = stored.counter();
    let (_, decoded) = decode(stored).map_err(reading)?;
    let mut from = Unpacked::new(decoded, counter.clone(), &budget);
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count.map_err(reading)?,
        };
        io::Write::write_all(&mut file, &buffer[..count]).map_err(failed)?;
        progress.at(Phase::Reading, counter.get(), None);
    }
}

/// Where each member's data lies. Names that lead out can't be asked for, so they don't matter here.
fn index(file: &File, limits: &Limits) -> io::Result<HashMap<Vec<u8>, Member>> {
    let length = file.metadata()?.len();
    let mut source = file.try_clone()?;
    io::Seek::rewind(&mut source)?;
    let mut tar = TarReader::seekable(source, limits);
    let mut index = HashMap::new();
    while let Some(entry) = tar.next()? {
        if index.len() >= limits.archive_entries {
            return Err(refusal(format!("more than {} entries", limits.archive_entries)));
        }
        let Ok(path) = beneath::clean(&entry.name) else {
            continue;
        };
        // No form has such names; all of them together must not fill the memory.
        if path.len() > MEMBER_NAME_MAX || entry.link.len() > MEMBER_NAME_MAX {
            continue;
        }
        if entry.data_offset.checked_add(entry.size).is_none_or(|end| end > length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let member = match entry.kind {
            Kind::File if entry.sparse.is_none() => Member::File { offset: entry.data_offset, size: entry.size },
            Kind::Symlink => {
                let (folder, _) = beneath::split(&path);
                match beneath::clean(&[folder, b"/", &entry.link].concat()) {
                    Ok(target) => Member::Link(target),
                    Err(_) => continue,
                }
            }
            Kind::HardLink => match beneath::clean(&entry.link) {
                Ok(target) => Member::Link(target),
                Err(_) => continue,
            },
            _ => continue,
        };
        index.insert(path, member);
    }
    if !tar.ended {
        return Err(refusal("it ends without tar's end marker: not a tar archive, or truncated"));
    }
    Ok(index)
}
