//! Who the program runs as: `-u name|uid[:group|gid]` and `--group-add` against the container's own files.
//!
//! [`UserFiles`] are the facts (`/etc/passwd`, `/etc/group`), read before the start from the image's layers or, for
//! `exec`, from the running container's root; [`resolve`] is pure. As docker does, bind mounts over these files don't
//! count at the start. Both files are hostile: bounded, never through a link to the host, never a FIFO or a device.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fgetxattr, fstat, open, openat, openat2, readlinkat},
    io::Errno,
};

/// Neither file is ever this long (about 100 000 users); a longer one is an attack (CVE-2026-47262).
const LONGEST_FILE: usize = 8 << 20;
/// A line longer than this is damaged, or an attack: about 8000 members of one group.
const LONGEST_LINE: usize = 64 << 10;
/// Linux's own limit on supplementary groups (NGROUPS_MAX).
const MOST_GROUPS: usize = 65_536;
/// Links followed within one path, as the kernel has it.
const MOST_LINKS: usize = 40;
/// Go's, and so docker's, range of ids.
const LARGEST_ID: u32 = i32::MAX.unsigned_abs();

/// The user database of a container; None = there is no such file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserFiles {
    /// `/etc/passwd`.
    pub passwd: Option<Vec<u8>>,
    /// `/etc/group`.
    pub group: Option<Vec<u8>>,
}

/// Who the program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary group ids, sorted, each once.
    pub groups: Vec<u32>,
    /// The value of HOME: from passwd, `/` without an entry.
    pub home: PathBuf,
}

/// Why a user can't be told; the texts for unknown names are docker's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name, or a part of the specification, means nobody.
    #[error("{0}")]
    NoSuchUser(String),
    /// One of the files can't be read or is out of bounds.
    #[error("cannot read {file} of the container: {why}")]
    Unreadable {
        /// `/etc/passwd` or `/etc/group`.
        file: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl UserFiles {
    /// Reads the files below the root folder of a running container, such as `/proc/PID/root`.
    ///
    /// # Errors
    /// A file that is too large, not a regular file, or that can't be read.
    pub fn from_root(root: BorrowedFd) -> Result<UserFiles, Error> {
        UserFiles::read(&|path| {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Ok(fd) => Ok(Some(fd)),
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// Reads the files from folders that overlayfs will put on top of each other, the topmost first; one folder for a
    /// plain root. Whiteouts, opaque folders and links behave as in the mounted overlay.
    ///
    /// # Errors
    /// As [`UserFiles::from_root`].
    pub fn from_layers<P: AsRef<Path>>(layers: &[P]) -> Result<UserFiles, Error> {
        let folder = |path: &P| open(path.as_ref(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let roots = layers.iter().map(folder).collect::<Result<Vec<OwnedFd>, Errno>>();
        let roots = roots
            .map_err(|error| Error::Unreadable { file: "/etc/passwd", why: io::Error::from(error).to_string() })?;
        UserFiles::read(&|path| find_in_layers(&roots, Path::new(path)))
    }

    fn read(find: &dyn Fn(&str) -> io::Result<Option<OwnedFd>>) -> Result<UserFiles, Error> {
        let content = |file: &'static str| -> Result<Option<Vec<u8>>, Error> {
            let fail = |error: io::Error| Error::Unreadable { file, why: error.to_string() };
            let Some(handle) = find(&file[1..]).map_err(fail)? else {
                return Ok(None);
            };
            read_regular(&handle).map(Some).map_err(fail)
        };
        Ok(UserFiles { passwd: content("/etc/passwd")?, group: content("/etc/group")? })
    }
}

/// Works out who `user` is. `user` is the `-u` flag or the image's USER; empty = root.
///
/// A string of digits is always an id, never the *name* of an entry: a user named "1000" with uid 0 must not make
/// `-u 1000` root (CVE-2016-3697, CVE-2026-46680). What can't be read is refused, and never means root.
///
/// # Errors
/// Unknown names, malformed specifications, ids out of range, malformed entries for the wanted name.
pub fn resolve(files: &UserFiles, user: &str, group_add: &[String]) -> Result<User, Error> {
    let (user_part, group_part) = split(user)?;
    let mut result = User { uid: 0, gid: 0, groups: Vec::new(), home: PathBuf::from("/") };
    let wanted = match user_part {
        "" => Wanted::Id(0),
        text => Wanted::parse(text, "user")?,
    };
    let mut name = None;
    match find_entry(files.passwd.as_deref(), "/etc/passwd", &wanted)? {
        Some(entry) => {
            result.uid = entry.id(2, "/etc/passwd")?;
            result.gid = entry.id(3, "/etc/passwd")?;
            result.home = entry
                .field(5)
                .filter(|home| !home.is_empty())
                .map_or(PathBuf::from("/"), |home| OsStr::from_bytes(home).into());
            name = Some(entry.field(0).unwrap_or_default());
        }
        None => match wanted {
            Wanted::Id(uid) => result.uid = uid,
            Wanted::Name(name) => {
                return Err(Error::NoSuchUser(format!(
                    "unable to find user {name}: no matching entries in passwd file"
                )));
            }
        },
    }
    match group_part {
        Some(text) => result.gid = group_id(files, text)?,
        // As docker: an explicit group stands alone, otherwise every group that lists the user is his.
        None => {
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                result.groups = groups_of(files.group.as_deref(), name)?;
            }
        }
    }
    for text in group_add {
        result.groups.push(group_id(files, text)?);
    }
    result.groups.sort_unstable();
    result.groups.dedup();
    if result.groups.len() > MOST_GROUPS {
        return Err(Error::NoSuchUser(format!("user {user:?} is in more than {MOST_GROUPS} groups")));
    }
    Ok(result)
}

/// `user`, `user:group`, or nothing at all.
fn split(user: &str) -> Result<(&str, Option<&str>), Error> {
    let malformed = |why: &str| {
        let shown: String = user.chars().take(80).collect();
        Err(Error::NoSuchUser(format!("invalid user {shown:?}: {why}; give NAME|UID[:GROUP|GID]")))
    };
    if user.len() > 512 {
        return malformed("too long");
    }
    if user.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return malformed("a blank or control character in it");
    }
    match user.split_once(':') {
        None => Ok((user, None)),
        Some((_, group)) if group.contains(':') => malformed("more than one colon"),
        Some(("", _)) => malformed("no user before the colon"),
        Some((_, "")) => malformed("no group behind the colon"),
        Some((user, group)) => Ok((user, Some(group))),
    }
}

#[derive(Debug, Clone, Copy)]
enum Wanted<'a> {
    Id(u32),
    Name(&'a str),
}

impl<'a> Wanted<'a> {
    fn parse(text: &'a str, noun: &str) -> Result<Wanted<'a>, Error> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Wanted::Name(text));
        }
        match text.parse::<u32>() {
            Ok(id) if id <= LARGEST_ID => Ok(Wanted::Id(id)),
            _ => {
                let shown: String = text.chars().take(40).collect();
                Err(Error::NoSuchUser(format!("invalid {noun} {shown}: uids and gids must be in range 0-{LARGEST_ID}")))
            }
        }
    }
}

/// The id of a group given as name or number.
fn group_id(files: &UserFiles, text: &str) -> Result<u32, Error> {
    let broken =
        text.is_empty() || text.len() > 256 || text.chars().any(|c| c.is_control() || c.is_whitespace() || c == ':');
    let shown: String = text.chars().take(80).collect();
    if broken {
        return Err(Error::NoSuchUser(format!("invalid group {shown:?}: give NAME|GID")));
    }
    match Wanted::parse(text, "group")? {
        Wanted::Id(gid) => Ok(gid),
        wanted @ Wanted::Name(_) => match find_entry(files.group.as_deref(), "/etc/group", &wanted)? {
            Some(entry) => entry.id(2, "/etc/group"),
            None => Err(Error::NoSuchUser(format!("unable to find group {shown}: no matching entries in group file"))),
        },
    }
}

/// The ids of the groups that list `name`. Entries without a readable id belong to nobody.
fn groups_of(file: Option<&[u8]>, name: &[u8]) -> Result<Vec<u32>, Error> {
    let mut groups = Vec::new();
    for entry in entries(file, "/etc/group") {
        let entry = entry?;
        let member = entry.field(3).is_some_and(|list| list.split(|b| *b == b',').any(|member| member == name));
        if member && let Ok(gid) = entry.id(2, "/etc/group") {
            groups.push(gid);
        }
    }
    Ok(groups)
}

/// One line of either file.
#[derive(Clone, Copy)]
struct Entry<'a>(&'a [u8]);

impl<'a> Entry<'a> {
    fn field(&self, index: usize) -> Option<&'a [u8]> {
        self.0.split(|b| *b == b':').nth(index)
    }

    /// A number in the entry. An empty or odd one is an error: taking it for 0 would make a root.
    fn id(&self, index: usize, file: &'static str) -> Result<u32, Error> {
        let text = self.field(index).unwrap_or_default();
        let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u32>().ok());
        number.filter(|number| digits && *number <= LARGEST_ID).ok_or_else(|| {
            let name = String::from_utf8_lossy(self.field(0).unwrap_or_default()).chars().take(40).collect::<String>();
            Error::Unreadable { file, why: format!("the entry of {name:?} has no valid id in field {}", index + 1) }
        })
    }
}

/// The entries of a file. Comments, empty lines and NIS's `+` and `-` lines are none.
fn entries<'a>(file: Option<&'a [u8]>, name: &'static str) -> impl Iterator<Item = Result<Entry<'a>, Error>> {
    let lines = file.unwrap_or_default().split(|b| *b == b'\n');
    let lines = lines.enumerate().filter(|(_, line)| !matches!(line.first(), None | Some(b'#' | b'+' | b'-')));
    lines.map(move |(number, line)| {
        if line.len() > LONGEST_LINE {
            return Err(Error::Unreadable {
                file: name,
                why: format!("line {} is longer than {LONGEST_LINE} bytes", number + 1),
            });
        }
        Ok(Entry(line.strip_suffix(b"\r").unwrap_or(line)))
    })
}

/// The first entry for a name or id.
fn find_entry<'a>(file: Option<&'a [u8]>, name: &'static str, wanted: &Wanted) -> Result<Option<Entry<'a>>, Error> {
    for entry in entries(file, name) {
        let entry = entry?;
        let fits = match wanted {
            Wanted::Id(id) => entry.id(2, name).is_ok_and(|there| there == *id),
            Wanted::Name(name) => entry.field(0) == Some(name.as_bytes()),
        };
        if fits {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Reads a file by its O_PATH handle: only a regular one is opened for reading, so a FIFO can't hang us (CVE-2024-9676)
/// and a device node is never touched.
fn read_regular(handle: &OwnedFd) -> io::Result<Vec<u8>> {
    let about = fstat(handle)?;
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    if usize::try_from(about.st_size).is_ok_and(|size| size > LONGEST_FILE) {
        return Err(io::Error::other(format!("longer than {LONGEST_FILE} bytes")));
    }
    // The handle's own link, so that this is the inode just looked at.
    let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let file = std::fs::File::from(open(
        link,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )?);
    let mut content = Vec::new();
    // It may grow while it is read.
    io::Read::read_to_end(&mut io::Read::take(file, LONGEST_FILE as u64 + 1), &mut content)?;
    if content.len() > LONGEST_FILE {
        return Err(io::Error::other(format!("longer than {LONGEST_FILE} bytes")));
    }
    Ok(content)
}

/// A folder of the overlay: the folders that make it up, the topmost first.
type Merged = Vec<OwnedFd>;

/// Looks a path up as the overlay would show it. One name at a time, never following a link in the kernel: nothing can
/// lead out of the layers.
fn find_in_layers(roots: &[OwnedFd], path: &Path) -> io::Result<Option<OwnedFd>> {
    let mut left: VecDeque<OsString> = names(path);
    let mut above: Vec<Merged> = Vec::new();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            above.pop();
            continue;
        }
        let here: &[OwnedFd] = above.last().map_or(roots, |folder| folder);
        match look(here, &name)? {
            Found::Nothing => return Ok(None),
            Found::Folder(folder) => {
                if left.is_empty() {
                    return Ok(folder.into_iter().next());
                }
                above.push(folder);
            }
            Found::Link(target) => {
                links += 1;
                if links > MOST_LINKS || left.len() > 1000 {
                    return Err(Errno::LOOP.into());
                }
                if target.is_absolute() {
                    above.clear();
                }
                for name in names(&target).into_iter().rev() {
                    left.push_front(name);
                }
            }
            Found::Other(file) if left.is_empty() => return Ok(Some(file)),
            Found::Other(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// The names in a path, without empty ones and dots.
fn names(path: &Path) -> VecDeque<OsString> {
    let parts = path.as_os_str().as_bytes().split(|b| *b == b'/');
    parts.filter(|part| !part.is_empty() && *part != b".").map(|part| OsString::from_vec(part.to_vec())).collect()
}

enum Found {
    Nothing,
    Folder(Merged),
    Link(PathBuf),
    Other(OwnedFd),
}

/// Looks one name up in a folder of the overlay.
fn look(folder: &[OwnedFd], name: &OsStr) -> io::Result<Found> {
    let mut merged = Merged::new();
    for layer in folder {
        let found = match openat(layer, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let about = fstat(&found)?;
        let kind = FileType::from_raw_mode(about.st_mode);
        if kind == FileType::Directory {
            let opaque = is_opaque(layer, name);
            merged.push(found);
            if opaque {
                break;
            }
            continue;
        }
        // A file below a folder is hidden by it.
        if !merged.is_empty() {
            break;
        }
        return Ok(match kind {
            // overlayfs's whiteout; Documentation/filesystems/overlayfs.rst
            FileType::CharacterDevice if about.st_rdev == 0 => Found::Nothing,
            FileType::Symlink => {
                Found::Link(OsString::from_vec(readlinkat(found.as_fd(), "", Vec::new())?.into_bytes()).into())
            }
            _ => Found::Other(found),
        });
    }
    Ok(if merged.is_empty() { Found::Nothing } else { Found::Folder(merged) })
}

/// Whether a folder hides those below it.
fn is_opaque(layer: &OwnedFd, name: &OsStr) -> bool {
    // Extended attributes can't be read through O_PATH.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(folder) = openat(layer, name, flags, Mode::empty()) else {
        return false;
    };
    let mut value = [0u8; 4];
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .into_iter()
        .any(|key| fgetxattr(&folder, key, &mut value).is_ok_and(|length| length == 1 && value[0] == b'y'))
}

#[cfg(test)]
mod tests;
