//! Paths inside a root folder whose content is hostile: resolved by the kernel as if that folder were `/`, never by string.
//!
//! A link in an image (`/dev → ../../etc`, `/etc/hosts → /etc/shadow`) leads to a place inside the root folder, and the
//! magic links of a procfs lead nowhere (CVE-2026-41579, CVE-2021-30465, CVE-2024-45310).

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Link chains longer than this are a loop (the kernel's own limit, path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// How often a look-up is tried again that raced with a rename (EAGAIN, openat2(2)).
const MAX_RACES: u32 = 128;

/// A root folder, by descriptor.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Takes an open (O_PATH is enough) folder.
    pub fn new(fd: OwnedFd) -> Root {
        Root { fd }
    }

    /// Opens something that is there; links are followed inside the root.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR; ELOOP for a loop or a magic link.
    pub fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        open(self.fd.as_fd(), path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens something that is there and whose path has no link at all.
    ///
    /// # Errors
    /// As [`Root::open`]; ELOOP for any link.
    pub fn open_plain(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        open(self.fd.as_fd(), path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
    }

    /// Opens (O_PATH) a folder, and makes what is missing on the way with mode 0755.
    ///
    /// # Errors
    /// The kernel's: ENOTDIR, EROFS, ENOSPC, ELOOP.
    pub fn folder(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.make(path, FileType::Directory, 0)
    }

    /// Opens (O_PATH) anything but a folder, and makes an empty file when nothing is there.
    ///
    /// # Errors
    /// As [`Root::folder`].
    pub fn file(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.make(path, FileType::RegularFile, 0)
    }

    /// The folder of a path, made when missing, and the last part of it: for mknodat, symlinkat.
    ///
    /// # Errors
    /// EINVAL for a path without a last part (`/`, `/a/..`); else as [`Root::folder`].
    pub fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Errno> {
        let (parent, name) = split(path)?;
        Ok((self.folder(parent)?, name))
    }

    /// The descriptor of the root folder itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn make(&self, path: &Path, kind: FileType, links: u32) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH
            | OFlags::CLOEXEC
            | if kind == FileType::Directory { OFlags::DIRECTORY } else { OFlags::empty() };
        match self.open(path, flags) {
            Err(Errno::NOENT) if links < MAX_LINKS => {}
            other => return other,
        }
        let (parent_path, name) = split(path)?;
        let parent = self.make(parent_path, FileType::Directory, links + 1)?;
        let made = if kind == FileType::Directory {
            rustix::fs::mkdirat(&parent, name, Mode::from(0o755))
        } else {
            let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            rustix::fs::openat(&parent, name, create, Mode::from(0o644)).map(drop)
        };
        match made {
            // What was just made, or made by somebody else since: either way not through a link.
            Ok(()) => open(parent.as_fd(), Path::new(name), flags | OFlags::NOFOLLOW, ResolveFlags::NO_MAGICLINKS),
            // Something is there although its path leads nowhere: a dangling link. What it names is made, inside the root.
            Err(Errno::EXIST) => {
                // Or it has come into being since, which is no link to be read: a magic one would lead anywhere.
                match open(parent.as_fd(), Path::new(name), flags, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
                {
                    Err(Errno::NOENT | Errno::XDEV) => {}
                    other => return other,
                }
                let target = rustix::fs::readlinkat(&parent, name, Vec::new())?;
                let target = Path::new(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(target.as_bytes()));
                self.make(&parent_path.join(target), kind, links + 1)
            }
            Err(error) => Err(error),
        }
    }
}

/// What an open descriptor is.
///
/// # Errors
/// The kernel's.
pub fn file_type(fd: BorrowedFd) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

/// Whether a descriptor is the character device `major:minor` and not something that was put in its place.
pub fn is_char_device(fd: BorrowedFd, major: u32, minor: u32) -> bool {
    rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (major, minor)
    })
}

/// Whether a descriptor lies on a procfs, and not on something that an image put in its place (CVE-2019-19921).
pub fn is_procfs(fd: BorrowedFd) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// A container path without `.`, `..` and double slashes, as far as words alone can tell.
pub fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normal
}

fn open(base: BorrowedFd, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let mut races = 0;
    loop {
        match rustix::fs::openat2(base, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if races < MAX_RACES => races += 1,
            result => return result,
        }
    }
}

fn split(path: &Path) -> Result<(&Path, &OsStr), Errno> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((if parent.as_os_str().is_empty() { Path::new(".") } else { parent }, name)),
        _ => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("runtime-beneath-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("root")).unwrap();
            Folder(path)
        }
        fn root(&self) -> Root {
            Root::new(rustix::fs::open(self.0.join("root"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn missing_folders_are_made_inside_the_root_whatever_links_say() {
        let folder = Folder::new("links");
        fs::create_dir(folder.0.join("canary")).unwrap();
        symlink("../../canary", folder.0.join("root/dev")).unwrap();
        symlink("/../../../canary", folder.0.join("root/run")).unwrap();
        symlink("nowhere/deep", folder.0.join("root/dangling")).unwrap();
        symlink("loop", folder.0.join("root/loop")).unwrap();
        let root = folder.root();
        root.folder(Path::new("/dev/pts")).unwrap();
        root.file(Path::new("/run/hosts")).unwrap();
        root.folder(Path::new("/dangling/x")).unwrap();
        assert_eq!(root.folder(Path::new("/loop/x")).unwrap_err(), Errno::LOOP);
        assert_eq!(fs::read_dir(folder.0.join("canary")).unwrap().count(), 0, "something was made outside");
        assert!(folder.0.join("root/canary/pts").is_dir());
        assert!(folder.0.join("root/canary/hosts").is_file());
        assert!(folder.0.join("root/nowhere/deep/x").is_dir());
    }

    #[test]
    fn a_plain_path_has_no_links() {
        let folder = Folder::new("plain");
        fs::create_dir(folder.0.join("root/real")).unwrap();
        symlink("real", folder.0.join("root/proc")).unwrap();
        let root = folder.root();
        assert_eq!(root.open_plain(Path::new("/proc"), OFlags::PATH).unwrap_err(), Errno::LOOP);
        root.open_plain(Path::new("/real"), OFlags::PATH).unwrap();
        root.open(Path::new("/proc"), OFlags::PATH).unwrap();
    }

    #[test]
    fn words_are_normalised() {
        for (path, expected) in [("/a/./b//c", "/a/b/c"), ("/../a", "/a"), ("a/..", "/"), ("/", "/")] {
            assert_eq!(normal(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
