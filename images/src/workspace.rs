//! A folder below the store's `tmp/` for one job. Whatever is half made lies there, under a lock that dies with
//! the process, so that [`sweep`] can tell a living job's folder from a dead one's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::beneath;
use crate::error::{Result, at};

/// One job's folder; removed when dropped.
#[derive(Debug)]
pub(crate) struct Workspace {
    path: PathBuf,
    name: String,
    parent: OwnedFd,
    /// Holds the lock.
    dir: OwnedFd,
}

impl Workspace {
    /// Makes a folder with a random name in `tmp`.
    pub fn create(tmp: &Path) -> Result<Workspace> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = fs::open(tmp, flags, Mode::empty()).map_err(at("open", tmp))?;
        loop {
            let name = random_name().map_err(at("name a folder in", tmp))?;
            let path = tmp.join(&name);
            match fs::mkdirat(&parent, name.as_str(), Mode::RWXU) {
                Err(Errno::EXIST) => continue,
                made => made.map_err(at("create", &path))?,
            }
            // A sweep may take the new folder for a dead one until we hold its lock: then we take another.
            let dir = match beneath::step(&parent, name.as_bytes()) {
                Err(Errno::NOENT) => continue,
                dir => dir.map_err(at("open", &path))?,
            };
            if !lock(&dir, FlockOperation::NonBlockingLockExclusive).map_err(at("lock", &path))? {
                continue;
            }
            if fs::fstat(&dir).map_err(at("look at", &path))?.st_nlink > 0 {
                return Ok(Workspace { path, name, parent, dir });
            }
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in it and opens it.
    pub fn folder(&self, name: &str, mode: u32) -> Result<(PathBuf, OwnedFd)> {
        let path = self.path.join(name);
        fs::mkdirat(&self.dir, name, Mode::RWXU).map_err(at("create", &path))?;
        let folder = beneath::step(&self.dir, name.as_bytes()).map_err(at("open", &path))?;
        fs::fchmod(&folder, Mode::from_raw_mode(mode)).map_err(at("set the mode of", &path))?;
        Ok((path, folder))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What can't be removed now is left to the next sweep.
        let _ = beneath::remove(&self.parent, self.name.as_bytes());
    }
}

/// Removes what dead jobs have left in `tmp`; gives their number.
pub(crate) fn sweep(tmp: &Path) -> Result<usize> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = fs::open(tmp, flags, Mode::empty()).map_err(at("open", tmp))?;
    let mut entries = fs::Dir::read_from(&parent).map_err(at("read", tmp))?;
    let mut removed = 0;
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(at("read", tmp))?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        // Its owner, or another sweep, may remove it at any moment.
        let Ok(dir) = beneath::step(&parent, name) else {
            continue;
        };
        if lock(&dir, FlockOperation::NonBlockingLockExclusive).map_err(at("lock", tmp))? {
            beneath::remove(&parent, name).map_err(at("clean up", tmp))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// flock(2); false: another holds it. It belongs to the open file, so it ends with the process.
pub(crate) fn lock(fd: impl AsFd, operation: FlockOperation) -> io::Result<bool> {
    loop {
        match fs::flock(&fd, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}
