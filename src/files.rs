//! The files family: folders and small files below the root, and names.
//!
//! What is inside a container's folder goes with the folder, which is the residue that the reservation journals; so
//! most of these operations name none of their own.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::explain::{Command, quote};
use crate::residue::Residue;
use crate::roots::Roots;

/// An operation on files.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A folder that must not exist yet.
    Folder {
        /// Its path.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// What it is for.
        why: &'static str,
    },
    /// A folder of the host with its parents, found or made: the source of `-v`. It stays, as docker's does: it isn't the
    /// container's, and others may use it by then.
    Source {
        /// Its path.
        path: PathBuf,
    },
    /// A tmpfs of the host's mount namespace: the `/dev/shm` of `--ipc shareable`, for other containers to bind. It's the
    /// one mount that isn't in the container's own namespace, so it leaves a residue.
    SharedMemory {
        /// Where; made.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A file of the container's own folder; one of a former run is written anew.
    File {
        /// Its path.
        path: PathBuf,
        /// Its content.
        text: String,
        /// Permission bits.
        mode: u32,
        /// What it is for.
        why: &'static str,
    },
}

impl Op {
    /// What stays beside the container's folder.
    pub fn residue(&self) -> Option<Residue> {
        match self {
            Op::SharedMemory { path, .. } => Some(Residue::Mount { path: path.clone() }),
            Op::Folder { .. } | Op::Source { .. } | Op::File { .. } => None,
        }
    }

    /// The command a person would type.
    pub fn explain(&self) -> Vec<Command> {
        match self {
            Op::Folder { path, mode, why } => {
                vec![(format!("mkdir -p -m {mode:o} {}", quote(path)), why.to_string())]
            }
            Op::Source { path } => vec![(
                format!("mkdir -p {}", quote(path)),
                "the source of -v is not there: docker makes it, and so does minidock".to_string(),
            )],
            Op::SharedMemory { path, bytes } => vec![(
                format!("mkdir -p {0} && mount -t tmpfs -o {1} shm {0}", quote(path), shm_options(*bytes)),
                "a /dev/shm that other containers may share".to_string(),
            )],
            Op::File { path, text, mode, why } => {
                let path = quote(path);
                let quoted = quote(Path::new(text));
                let mut commands =
                    vec![(format!("printf %s {quoted} > {path}; chmod {mode:o} {path}"), why.to_string())];
                if text.starts_with(&format!("nameserver {}\n", netsetup::dns::ADDRESS)) {
                    commands.push(own_name_server(&path));
                }
                commands
            }
        }
    }
}

/// The script starts no monitor, so nobody answers at the address in its container's resolv.conf. Without the variable
/// this line changes nothing, so that the script makes exactly what minidock makes.
fn own_name_server(resolv_conf: &str) -> Command {
    (
        format!("[ -z \"${{NAMESERVER-}}\" ] || echo \"nameserver $NAMESERVER\" > {resolv_conf}"),
        format!(
            "{} is minidock's own name server, which this script doesn't start: with NAMESERVER=9.9.9.9 set before it, \
             its container asks that one (and finds no other container by name)",
            netsetup::dns::ADDRESS
        ),
    )
}

/// Makes them, in order.
pub fn apply(ops: &[Op]) -> Result<()> {
    for op in ops {
        match op {
            Op::Folder { path, mode, .. } => {
                fs::DirBuilder::new().mode(*mode).create(path).with_context(|| cannot_make("folder", path))?;
                // mkdir(2) obeys the umask; the container's root folder must not depend on the caller's.
                fs::set_permissions(path, Permissions::from_mode(*mode))
                    .with_context(|| cannot_make("folder", path))?;
            }
            Op::Source { path } => fs::create_dir_all(path).with_context(|| cannot_make("folder", path))?,
            Op::SharedMemory { path, bytes } => mount_shared_memory(path, *bytes)?,
            Op::File { path, text, mode, .. } => write_anew(path, text.as_bytes(), *mode)?,
        }
    }
    Ok(())
}

fn shm_options(bytes: u64) -> String {
    format!("nosuid,nodev,noexec,mode=1777,size={bytes}")
}

fn mount_shared_memory(path: &Path, bytes: u64) -> Result<()> {
    let what = || format!("cannot mount the shared memory {}", path.display());
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {} // of a former run
        made => made.with_context(what)?,
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = CString::new(format!("mode=1777,size={bytes}")).with_context(what)?;
    mount("shm", path, "tmpfs", flags, options.as_c_str()).with_context(what)
}

/// Unmounts what [`Op::SharedMemory`] has mounted.
pub fn remove_mount(roots: &Roots, path: &Path) -> Result<()> {
    if !path.starts_with(roots.containers()) {
        bail!("{} is no mount of this root's containers; left alone", path.display());
    }
    match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // EINVAL: nothing is mounted there.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot unmount {}", path.display())),
    }
}

fn cannot_make(what: &str, path: &Path) -> String {
    format!("cannot make the {what} {}", path.display())
}

fn write_anew(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_NOFOLLOW)
        .mode(mode)
        .open(path)
        .with_context(|| cannot_make("file", path))?;
    file.write_all(bytes).with_context(|| format!("cannot write {}", path.display()))?;
    file.set_permissions(Permissions::from_mode(mode)).with_context(|| cannot_make("file", path))
}

/// Replaces a file at once: a reader sees the old or the new one, never half of it.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    prepare(path, bytes)?.put()
}

/// A file that is written and not yet in its place.
#[must_use = "a file that isn't put in its place is lost"]
pub struct Prepared {
    temporary: PathBuf,
    path: PathBuf,
}

/// The longer half of [`replace`].
pub fn prepare(path: &Path, bytes: &[u8]) -> Result<Prepared> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    write_anew(&temporary, bytes, 0o600)?;
    Ok(Prepared { temporary, path: path.to_path_buf() })
}

impl Prepared {
    /// The rest of it.
    pub fn put(self) -> Result<()> {
        fs::rename(&self.temporary, &self.path).with_context(|| format!("cannot replace {}", self.path.display()))
    }
}

/// Writes over an existing file.
pub fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path)?;
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0)?;
    file.set_len(bytes.len() as u64)
}

/// Makes a folder of the engine and its parents, readable for root only (CVE-2021-41091: other users must not reach
/// set-uid programs of an image through it).
pub fn ensure_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("{}; is the root folder writable?", cannot_make("folder", path)))
}

/// Takes a name: `Ok(None)` when it's ours now, the present owner's id otherwise.
pub fn take_name(roots: &Roots, name: &str, id: &str) -> Result<Option<String>> {
    let path = roots.names().join(name);
    match std::os::unix::fs::symlink(id, &path) {
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok(Some(name_owner(roots, name).unwrap_or_default()))
        }
        Err(error) => Err(error).with_context(|| format!("cannot take the name {name}")),
    }
}

/// Who has the name.
pub fn name_owner(roots: &Roots, name: &str) -> Option<String> {
    let target = fs::read_link(roots.names().join(name)).ok()?;
    target.to_str().map(str::to_string)
}

/// Gives a name back, if it is still this owner's.
pub fn remove_name(roots: &Roots, name: &str, id: &str) -> Result<()> {
    if name_owner(roots, name).as_deref() != Some(id) {
        return Ok(());
    }
    let path = roots.names().join(name);
    ignore_missing(fs::remove_file(&path)).with_context(|| format!("cannot remove {}", path.display()))
}

/// Takes everything out of a folder of ours.
pub fn empty_folder(path: &Path) -> Result<()> {
    let context = || format!("cannot empty {}", path.display());
    for entry in fs::read_dir(path).with_context(context)? {
        let entry = entry.with_context(context)?;
        match entry.file_type().with_context(context)?.is_dir() {
            true => ignore_missing(fs::remove_dir_all(entry.path())),
            false => ignore_missing(fs::remove_file(entry.path())),
        }
        .with_context(context)?;
    }
    Ok(())
}

/// Removes a container's folder. The journal goes when nothing else is left but the state, so that a crash half-way is
/// found and finished.
pub fn remove_folder(roots: &Roots, path: &Path) -> Result<()> {
    if path.parent() != Some(&roots.containers()) {
        bail!("{} is not a container's folder of this root; left alone", path.display());
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let context = || format!("cannot remove {}", path.display());
    for entry in entries {
        let entry = entry.with_context(context)?;
        if entry.file_name() == "journal" || entry.file_name() == "state.json" {
            continue;
        }
        if entry.file_type().with_context(context)?.is_dir() {
            images::remove_tree(&entry.path()).with_context(context)?;
        } else {
            ignore_missing(fs::remove_file(entry.path())).with_context(context)?;
        }
    }
    ignore_missing(fs::remove_file(path.join("journal"))).with_context(context)?;
    // After the journal: a container with a journal and no state is one that is being made.
    ignore_missing(fs::remove_file(path.join("state.json"))).with_context(context)?;
    ignore_missing(fs::remove_dir(path)).with_context(context)
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
