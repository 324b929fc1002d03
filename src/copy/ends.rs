//! The two ends of a `cp`, with docker's rules for trailing slashes, `/.`, links and what isn't there yet.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Result, anyhow, bail};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How many links in a row are followed by hand; docker's number.
const MAX_LINKS: u32 = 10;

/// What a path leads to.
#[derive(Debug)]
pub struct Found {
    /// O_PATH: nothing has been opened by it.
    pub fd: OwnedFd,
    /// What it is.
    pub kind: FileType,
}

/// A path that doesn't lead to what was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing is there.
    NotFound,
    /// The path ends in a slash, but there is no folder.
    NotAFolder,
    /// Anything else that the kernel said.
    Other(Errno),
}

impl From<Errno> for Missing {
    fn from(errno: Errno) -> Missing {
        match errno {
            Errno::NOENT => Missing::NotFound,
            Errno::NOTDIR => Missing::NotAFolder,
            errno => Missing::Other(errno),
        }
    }
}

/// Looks a path up as a process whose root is `root` would.
///
/// # Errors
/// [`Missing`].
pub fn look(root: BorrowedFd<'_>, path: &[u8], follow: bool) -> Result<Found, Missing> {
    let nofollow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let fd = open(root, path, OFlags::PATH | nofollow)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    Ok(Found { fd, kind })
}

fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"/".as_slice() } else { path };
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..1000 {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            // A rename while a `..` was walked; openat2(2).
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Whether the path can only mean a folder: `a/`, `a/.`, `.`.
fn asserts_folder(path: &[u8]) -> bool {
    path.ends_with(b"/") || path.ends_with(b"/.") || path == b"."
}

/// The path without `.`, `..`, doubled and last slashes, by the letter; absolute.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    [b"/".as_slice(), &parts.join(&b'/')].concat()
}

fn split(clean: &[u8]) -> (&[u8], &[u8]) {
    let at = clean.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    (&clean[..at.max(1)], &clean[(at + 1).min(clean.len())..])
}

/// What is to be copied.
#[derive(Debug)]
pub struct Source {
    /// The file or folder.
    pub found: Found,
    /// Its name; none when only its content is meant (`DIR/.`, `/`).
    pub name: Option<Vec<u8>>,
}

impl Source {
    /// Resolves a source path, which is absolute.
    ///
    /// # Errors
    /// Nothing there, or no folder where the path says so.
    pub fn find(root: BorrowedFd<'_>, path: &[u8], follow: bool) -> Result<Source, Missing> {
        let folder = asserts_folder(path);
        let found = look(root, path, follow || folder)?;
        if folder && found.kind != FileType::Directory {
            return Err(Missing::NotAFolder);
        }
        let clean = clean(path);
        let (_, name) = split(&clean);
        let content_only = path.ends_with(b"/.") || path == b"." || name.is_empty();
        Ok(Source { found, name: (!content_only).then(|| name.to_vec()) })
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.found.kind == FileType::Directory
    }
}

/// Where the copy goes.
#[derive(Debug)]
pub struct Target {
    /// The folder that gets it.
    pub folder: OwnedFd,
    /// The name that it gets there; none: the content goes right into the folder.
    pub name: Option<Vec<u8>>,
}

impl Target {
    /// Resolves a target path, which is absolute, for this source. Messages begin with what is wrong.
    ///
    /// # Errors
    /// docker's refusals.
    pub fn find(root: BorrowedFd<'_>, path: &[u8], source: &Source) -> Result<Target> {
        let (clean, found) = follow(root, path)?;
        let (parent, name) = split(&clean);
        let folder = |path: &[u8]| match open(root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(folder) => Ok(folder),
            Err(Errno::NOENT) => Err(anyhow!("no such directory: {}", super::shown(path))),
            Err(Errno::NOTDIR) => Err(anyhow!("not a directory: {}", super::shown(path))),
            Err(errno) => Err(anyhow!("{}: {}", super::shown(path), std::io::Error::from(errno))),
        };
        match found {
            Some(found) if found.kind == FileType::Directory => {
                Ok(Target { folder: folder(&clean)?, name: source.name.clone() })
            }
            Some(_) if asserts_folder(path) => bail!("not a directory: {}", super::shown(&clean)),
            Some(_) if source.is_folder() => bail!("cannot copy directory"),
            Some(found) if found.kind != FileType::RegularFile => {
                bail!("destination {:?} must be a directory or a regular file", super::shown(&clean))
            }
            None if asserts_folder(path) && !source.is_folder() => {
                bail!("no such directory: {}", super::shown(path))
            }
            Some(_) | None => Ok(Target { folder: folder(parent)?, name: Some(name.to_vec()) }),
        }
    }

    /// Resolves the folder that gets the content of an archive.
    ///
    /// # Errors
    /// Nothing there, or no folder.
    pub fn extraction_point(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Missing> {
        Ok(open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)?)
    }
}

/// Follows links at the end of a path, also one that leads to nothing yet; the path without them, and what is there.
fn follow(root: BorrowedFd<'_>, path: &[u8]) -> Result<(Vec<u8>, Option<Found>)> {
    let mut path = path.to_vec();
    for _ in 0..=MAX_LINKS {
        let clean = clean(&path);
        match look(root, &clean, false) {
            Ok(found) if found.kind == FileType::Symlink => {
                let target = rustix::fs::readlinkat(&found.fd, "", Vec::new())
                    .map_err(|errno| anyhow!("{}: {}", super::shown(&clean), std::io::Error::from(errno)))?
                    .into_bytes();
                path = match target.first() {
                    Some(b'/') => target,
                    _ => [split(&clean).0, b"/", &target].concat(),
                };
            }
            Ok(found) => return Ok((clean, Some(found))),
            Err(Missing::NotFound) => return Ok((clean, None)),
            Err(Missing::NotAFolder) => bail!("not a directory: {}", super::shown(&clean)),
            Err(Missing::Other(errno)) => bail!("{}: {}", super::shown(&clean), std::io::Error::from(errno)),
        }
    }
    bail!("too many links in {}", super::shown(&path))
}

/// The host's own root folder, which is one end of a `cp`.
///
/// # Errors
/// The kernel's.
pub fn host_root() -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/", flags, Mode::empty())?)
}

/// A path of the host as typed, made absolute; what its end says (`/.`) stays.
pub fn absolute(path: &OsStr, cwd: &std::path::Path) -> Vec<u8> {
    match path.as_bytes() {
        path if path.starts_with(b"/") => path.to_vec(),
        path => [cwd.as_os_str().as_bytes(), b"/", path].concat(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn paths_are_cleaned_and_split_by_the_letter() {
        for (path, wanted) in [("/a//b/./c/", "/a/b/c"), ("a/../b", "/b"), ("/..", "/"), ("", "/")] {
            assert_eq!(clean(path.as_bytes()), wanted.as_bytes());
        }
        assert_eq!(split(b"/a/b"), (&b"/a"[..], &b"b"[..]));
        assert_eq!(split(b"/a"), (&b"/"[..], &b"a"[..]));
        assert_eq!(split(b"/"), (&b"/"[..], &b""[..]));
        assert!(
            asserts_folder(b"/a/") && asserts_folder(b"/a/.") && !asserts_folder(b"/a/b.") && !asserts_folder(b"/a")
        );
    }

    /// docker's table: what is there, what is copied, where it ends.
    #[test]
    fn a_target_is_docker_s() {
        let top = std::env::temp_dir().join(format!("minidock-ends-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&top);
        for folder in ["dir/sub", "other"] {
            std::fs::create_dir_all(top.join(folder)).unwrap();
        }
        std::fs::write(top.join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/other", top.join("link")).unwrap();
        std::os::unix::fs::symlink("new", top.join("dangling")).unwrap();
        std::os::unix::fs::symlink("/../../../../etc", top.join("out")).unwrap();
        let root = rustix::fs::open(&top, OFlags::PATH, Mode::empty()).unwrap();
        let source = |path: &str| Source::find(root.as_fd(), path.as_bytes(), false).unwrap();
        let target = |from: &str, to: &str| {
            let target = Target::find(root.as_fd(), to.as_bytes(), &source(from)).map_err(|error| error.to_string())?;
            let folder =
                std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&target.folder)))
                    .unwrap();
            let folder = folder.strip_prefix(&top).unwrap().display().to_string();
            Ok::<_, String>(format!(
                "{folder}|{}",
                target.name.map(|name| String::from_utf8(name).unwrap()).unwrap_or_default()
            ))
        };
        for (from, to, wanted) in [
            ("/file", "/other", "other|file"),
            ("/file", "/other/", "other|file"),
            ("/file", "/new", "|new"),
            ("/file", "/other/new", "other|new"),
            ("/file", "/link", "other|file"),
            ("/file", "/dangling", "|new"),
            ("/dir", "/other", "other|dir"),
            ("/dir/.", "/other", "other|"),
            ("/dir/", "/other", "other|dir"),
            ("/dir", "/new", "|new"),
            ("/dir/.", "/new", "|new"),
            ("/", "/other", "other|"),
            ("/link", "/other", "other|link"),
            ("/link/", "/other", "other|link"),
        ] {
            assert_eq!(target(from, to).as_deref(), Ok(wanted), "{from} {to}");
        }
        assert!(target("/file", "/new/").unwrap_err().starts_with("no such directory"));
        assert!(target("/file", "/no/new").unwrap_err().starts_with("no such directory"));
        assert_eq!(target("/dir", "/file").unwrap_err(), "cannot copy directory");
        assert!(target("/file", "/file/").unwrap_err().starts_with("not a directory"));
        assert!(target("/file", "/out/x").is_err(), "a link out of the root leads nowhere");
        let find = |path: &str| Source::find(root.as_fd(), path.as_bytes(), false).map(drop);
        assert_eq!(find("/nope"), Err(Missing::NotFound));
        assert_eq!(find("/file/"), Err(Missing::NotAFolder));
        assert_eq!(find("/out/passwd"), Err(Missing::NotFound));
        std::fs::remove_dir_all(&top).unwrap();
    }
}
