//! Small bounded reads and writes of kernel files.

use std::{io, path::Path};

use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags, open},
    io::Errno,
};

/// The cgroup v1 magic number of statfs(2), linux/magic.h.
pub(super) const CGROUP_MAGIC: u64 = 0x0027_e0eb;
/// The cgroup2 magic number of statfs(2), linux/magic.h.
pub(super) const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Reads a kernel file whole; an error when it is longer than `limit` bytes.
pub(super) fn read(path: &Path, limit: usize) -> io::Result<String> {
    let fd = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    read_fd(&fd, limit)
}

/// Reads from an open file up to its end; an error when that is longer than `limit` bytes.
pub(super) fn read_fd(fd: &OwnedFd, limit: usize) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        if bytes.len() > limit {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
        }
        if bytes.capacity() - bytes.len() < 4096 {
            bytes.reserve(bytes.capacity());
        }
        match rustix::io::read(fd, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not text"))
}

/// Writes `value` with one write(2), as control files want it. Never creates or truncates.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    let fd = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write_fd(&fd, value)
}

/// Writes `value` into an open control file with one write(2).
pub(super) fn write_fd(fd: &OwnedFd, value: &str) -> io::Result<()> {
    loop {
        match rustix::io::write(fd, value.as_bytes()) {
            Ok(count) if count == value.len() => return Ok(()),
            Ok(_) => {
                return Err(io::Error::new(io::ErrorKind::WriteZero, "the kernel took only a part"));
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a path exists, without following a last link.
pub(super) fn exists(path: &Path) -> bool {
    rustix::fs::lstat(path).is_ok()
}

/// The file system magic below a path.
pub(super) fn magic(path: &Path) -> io::Result<u64> {
    // f_type is signed or not depending on the architecture; both fit the 32-bit magic numbers.
    Ok(rustix::fs::statfs(path)?.f_type as u64)
}
