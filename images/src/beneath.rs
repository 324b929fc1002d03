//! Paths below a hostile folder: resolved by the kernel (openat2) or step by step by fd, never by string.
//!
//! Symbolic links are followed as a process chrooted there would follow them; `..` stops at the top.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// Mode of folders that an archive uses without describing them, as docker makes them.
const IMPLIED: Mode = Mode::from_raw_mode(0o755);

/// An entry's name as a path below the top: no empty, `.` or `..` part, no slash at either end; empty for the
/// top itself. Absolute names are taken from the top (docker does so); a name that leads out is an error.
pub(crate) fn clean(name: &[u8]) -> std::result::Result<Vec<u8>, &'static str> {
    if name.is_empty() {
        return Err("its name is empty");
    }
    if name.contains(&0) {
        return Err("its name holds a NUL byte");
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop().ok_or("its name leads out of the layer by ..")?),
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

/// Folder and last part of a cleaned path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Opens something below `root` as a process chrooted there would see it.
pub(crate) fn open(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let path = if path.is_empty() { b".".as_slice() } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: a rename somewhere on the machine came in between and `..` could not be checked (openat2(2)).
    let mut tries = 0;
    loop {
        match fs::openat2(root.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < 1000 => tries += 1,
            result => return result,
        }
    }
}

/// Opens a folder below `root`.
pub(crate) fn open_dir(root: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens a folder below `root` and makes what is missing on the way, also behind a symbolic link whose target
/// isn't there yet (`var/run -> /run` in a layer without `run`).
pub(crate) fn make_dirs(root: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    let root = root.as_fd();
    match open_dir(root, path) {
        Err(Errno::NOENT) => {}
        result => return result,
    }
    // `done` is physical: all of its parts are real folders, so `..` may be cut off as text.
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut todo: Vec<Vec<u8>> = parts(path).rev().collect();
    let mut current = open_dir(root, b"")?;
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == b".." {
            done.pop();
            current = open_dir(root, &done.join(&b'/'))?;
            continue;
        }
        match fs::mkdirat(&current, part.as_slice(), IMPLIED) {
            Ok(()) => {
                // The process's umask must not show in an image.
                let made = step(&current, &part)?;
                fs::fchmod(&made, IMPLIED)?;
                current = made;
                done.push(part);
                continue;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let stat = fs::statat(&current, part.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            current = step(&current, &part)?;
            done.push(part);
            continue;
        }
        links += 1;
        if links > 40 {
            return Err(Errno::LOOP);
        }
        let target = fs::readlinkat(&current, part.as_slice(), Vec::new())?.into_bytes();
        if target.starts_with(b"/") {
            done.clear();
            current = open_dir(root, b"")?;
        }
        todo.extend(parts(&target).rev());
    }
    Ok(current)
}

/// The parts that matter of any path.
fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> + '_ {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec)
}

/// Opens a real folder (no link) in a folder.
pub(crate) fn step(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

/// A path that names an open file, for the calls that take no fd (`lsetxattr` of a link, `chmod` by O_PATH).
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Removes a folder with all that a hostile program may have put into it: nested deeper than there are descriptors, or
/// than a path can be long. "Not there" is success.
///
/// # Errors
/// The kernel's.
pub fn remove_tree(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match fs::open(folder, flags, Mode::empty()) {
        Err(Errno::NOENT) => Ok(()),
        folder => Ok(remove(folder?, name.as_bytes())?),
    }
}

/// How deep `remove` goes with an open fd for each level.
const DEEP: usize = 64;

/// Removes a file, or a folder with all that is in it, of any depth and with few fds; "not there" is success.
pub(crate) fn remove(dir: impl AsFd, name: &[u8]) -> Result<()> {
    let dir = dir.as_fd();
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    let top = step(dir, name)?;
    let mut moved = 0;
    while empty_dir(&top, &top, 0, &mut moved)? {}
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Removes what is in `dir`; what lies too deep is moved to the top for the next round. Says whether anything
/// was there.
fn empty_dir(dir: &OwnedFd, top: &OwnedFd, depth: usize, moved: &mut u64) -> Result<bool> {
    let mut any = false;
    let mut entries = fs::Dir::read_from(dir)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        any = true;
        match fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        match fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        if depth >= DEEP {
            lift(dir, name, top, moved)?;
            continue;
        }
        while empty_dir(&step(dir, name.to_bytes())?, top, depth + 1, moved)? {}
        fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
    }
    Ok(any)
}

/// Moves a folder to the top under a name that is free there.
fn lift(dir: &OwnedFd, name: &std::ffi::CStr, top: &OwnedFd, moved: &mut u64) -> Result<()> {
    loop {
        *moved += 1;
        let free = format!(".deep-{moved}");
        match fs::renameat_with(dir, name, top, free.as_str(), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_never_lead_out() {
        let clean = |name: &str| clean(name.as_bytes()).map(|path| String::from_utf8(path).unwrap());
        assert_eq!(clean("./a//b/./c/").unwrap(), "a/b/c");
        assert_eq!(clean("/etc/passwd").unwrap(), "etc/passwd");
        assert_eq!(clean("a/../b").unwrap(), "b");
        assert_eq!(clean(".").unwrap(), "");
        assert_eq!(clean("/").unwrap(), "");
        for bad in ["", "..", "../x", "a/../../x", "/../x", "a\0b"] {
            assert!(clean(bad).is_err(), "{bad:?}");
        }
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"c"), (&b""[..], &b"c"[..]));
    }
}
