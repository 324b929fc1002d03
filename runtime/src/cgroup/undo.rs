//! Taking groups away again: kill what is left in them, wait until they are empty, remove them.

use std::{
    fmt::Write as _,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, rmdir, unlinkat},
    io::Errno,
    mount::{UnmountFlags, unmount},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use super::{Error, file};
use crate::shell;

/// How long killed processes may take to leave their group. Tearing down gigabytes takes seconds; more means a task
/// that the kernel can't kill (stuck in a device or on a dead NFS server).
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The deepest tree of groups that a container may leave behind.
const DEEPEST: usize = 200;

/// What stays on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Residue {
    /// A container's group in one hierarchy.
    Cgroup {
        /// The folder.
        path: PathBuf,
        /// `minidock/ID`: the end of `path` that is ours.
        group: String,
    },
    /// The net_cls hierarchy that minidock mounted. For the network's journal.
    NetClsMount {
        /// The mount point.
        path: PathBuf,
    },
}

impl Residue {
    /// How a person takes it away by hand: the commands, and why.
    pub fn explain(&self) -> Vec<(String, String)> {
        match self {
            Residue::Cgroup { path, .. } => {
                let (group, parent) = (shell::word(path), path.parent().map(shell::word).unwrap_or_default());
                let above = path.parent().and_then(|parent| parent.parent()).map(shell::word).unwrap_or_default();
                vec![(
                    format!(
                        "for try in $(seq 100); do [ -d {group} ] || break; for pid in $(cat {group}/cgroup.procs); do echo $pid > {above}/cgroup.procs; done; rmdir {group} 2>/dev/null || sleep 0.05; done; rmdir {parent} 2>/dev/null || :"
                    ),
                    "the container's group; the shell that the commands were typed in leaves it first".to_owned(),
                )]
            }
            Residue::NetClsMount { path } => {
                let path = shell::word(path);
                vec![(
                    format!("if mountpoint -q {path}; then umount {path}; fi; rmdir {path} 2>/dev/null || :"),
                    "net_cls, which no other container uses by now".to_owned(),
                )]
            }
        }
    }
}

/// What an undo found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// It was there and is gone now.
    Removed,
    /// It was gone already.
    NotThere,
    /// It is somebody else's, and was left alone; says why.
    NotOurs(String),
}

/// Removes residues; one result each, in their order. Never stops at an error.
///
/// Empty groups cost one rmdir(2) each. What is left in the others is killed in all of them first, then they are
/// removed, so that the processes of one container are waited for once. The parent group goes with its last child.
pub fn undo(residues: &[Residue]) -> Vec<Result<Undone, Error>> {
    let mut results: Vec<Option<Result<Undone, Error>>> = residues.iter().map(first_try).collect();
    let groups = |results: &[Option<_>]| -> Vec<usize> {
        (0..results.len()).filter(|index| results[*index].is_none()).collect()
    };
    let busy = groups(&results);
    for index in &busy {
        if let Residue::Cgroup { path, .. } = &residues[*index] {
            kill(path);
        }
    }
    let end = Instant::now() + LONGEST_WAIT;
    for index in busy {
        if let Residue::Cgroup { path, .. } = &residues[index] {
            results[index] = Some(remove(path, end));
        }
    }
    for residue in residues {
        if let Residue::Cgroup { path, group } = residue {
            remove_parents(path, group);
        }
    }
    for (index, residue) in residues.iter().enumerate() {
        if let Residue::NetClsMount { path } = residue {
            results[index] = Some(unmount_net_cls(path));
        }
    }
    let lost = || Err(Error::refused("internal error: a residue was not handled"));
    results.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
}

/// The whole job for a group that is empty or gone; None when there is more to do.
fn first_try(residue: &Residue) -> Option<Result<Undone, Error>> {
    let Residue::Cgroup { path, group } = residue else {
        return None;
    };
    if let Some(why) = not_ours(path, group) {
        return Some(Ok(Undone::NotOurs(why)));
    }
    match rmdir(path) {
        Ok(()) => Some(Ok(Undone::Removed)),
        Err(Errno::NOENT | Errno::NODEV) => Some(Ok(Undone::NotThere)),
        Err(Errno::BUSY | Errno::NOTEMPTY) => None,
        Err(error) => Some(Err(Error::io(format!("remove the cgroup {}", path.display()), error))),
    }
}

/// Why a journaled path is not a container's group of ours. A journal may be damaged: its path alone removes nothing.
fn not_ours(path: &Path, group: &str) -> Option<String> {
    let climbs = path.components().any(|part| matches!(part, Component::ParentDir | Component::CurDir));
    let named = group.contains('/') && Path::new(group).is_relative() && path.ends_with(group) && path.is_absolute();
    if climbs || !named || Path::new(group).components().count() < 2 {
        return Some(format!("{} does not end in the group {group:?}", path.display()));
    }
    match file::magic(path) {
        Ok(file::CGROUP_MAGIC | file::CGROUP2_MAGIC) => None,
        Ok(_) => Some(format!("{} is not on a cgroup file system", path.display())),
        // Gone: rmdir says so again.
        Err(_) => None,
    }
}

/// Sends SIGKILL to everything in a group and in the groups below it. Errors show up when the group does not empty.
fn kill(group: &Path) {
    // Since 5.14 cgroup2 does it in one write, for the whole tree and without a race against forks.
    if file::write(&group.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    kill_listed(group, 0);
    // A v1 freezer holds even SIGKILL back until it thaws.
    let freezer = group.join("freezer.state");
    if file::exists(&freezer) {
        file::write(&freezer, "THAWED").ok();
    }
}

/// v1: kills by pid, but never a stranger. A pid read from the list may be reused before it is opened; so the list is
/// read a second time, and only what is still in it is signalled, through the pidfd opened in between.
fn kill_listed(group: &Path, depth: usize) {
    let procs = group.join("cgroup.procs");
    let list = || -> Vec<i32> {
        let text = file::read(&procs, 8 << 20).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    // At a few hundred at a time, so that a crowd does not meet the limit on open files.
    for pids in list().chunks(256) {
        let open = |pid: &i32| Some((*pid, pidfd_open(Pid::from_raw(*pid)?, PidfdFlags::empty()).ok()?));
        let opened: Vec<(i32, OwnedFd)> = pids.iter().filter_map(open).collect();
        let still: std::collections::BTreeSet<i32> = list().into_iter().collect();
        for (_, fd) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
            pidfd_send_signal(fd, Signal::KILL).ok();
        }
    }
    if depth < DEEPEST {
        for child in children(group) {
            kill_listed(&group.join(child), depth + 1);
        }
    }
}

/// The names of the groups directly below a group.
fn children(group: &Path) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(group).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.file_name()).collect()
}

/// Removes a group whose processes have been killed. Dying processes are busy for a moment: tried again, with a limit.
fn remove(group: &Path, end: Instant) -> Result<Undone, Error> {
    let mut pause = Duration::from_micros(100);
    loop {
        match rmdir(group) {
            Ok(()) => return Ok(Undone::Removed),
            Err(Errno::NOENT | Errno::NODEV) => return Ok(Undone::Removed),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(error) => {
                return Err(Error::io(format!("remove the cgroup {}", group.display()), error));
            }
        }
        if Instant::now() >= end {
            return Err(still_busy(group));
        }
        remove_below(group);
        // A process that was forked while its parent was killed.
        kill(group);
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

fn still_busy(group: &Path) -> Error {
    let text = file::read(&group.join("cgroup.procs"), 1 << 20).unwrap_or_default();
    let mut who = String::new();
    for pid in text.lines().take(5) {
        let name = file::read(&Path::new("/proc").join(pid).join("comm"), 64).unwrap_or_default();
        write!(who, " {pid} ({})", name.trim()).ok();
    }
    let advice = if who.is_empty() {
        "groups below it could not be removed".to_owned()
    } else {
        format!(
            "killed processes are still in it:{who}; the kernel is waiting for a device or file system to let them go"
        )
    };
    Error::advised(format!("remove the cgroup {}", group.display()), Errno::BUSY, &advice)
}

/// Removes the empty groups below a group, deepest first, by file descriptors and without following links.
fn remove_below(group: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(folder) = rustix::fs::open(group, flags, Mode::empty()) {
        remove_children(&folder, 0);
    }
}

fn remove_children(folder: &OwnedFd, depth: usize) {
    let Ok(entries) = Dir::read_from(folder) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        if entry.file_type() != FileType::Directory || name == c"." || name == c".." {
            continue;
        }
        if unlinkat(folder, name, AtFlags::REMOVEDIR) != Err(Errno::BUSY) || depth >= DEEPEST {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(child) = openat(folder.as_fd(), name, flags, Mode::empty()) {
            remove_children(&child, depth + 1);
            unlinkat(folder, name, AtFlags::REMOVEDIR).ok();
        }
    }
}

/// The parent groups are nobody's own: they go when nothing is in them. Busy is the usual case.
fn remove_parents(path: &Path, group: &str) {
    if not_ours(path, group).is_some() {
        return;
    }
    let mut folder = path;
    for _ in 1..Path::new(group).components().count() {
        let Some(parent) = folder.parent() else {
            return;
        };
        if rmdir(parent).is_err() {
            return;
        }
        folder = parent;
    }
}

fn unmount_net_cls(path: &Path) -> Result<Undone, Error> {
    match file::magic(path) {
        Ok(file::CGROUP_MAGIC) if file::exists(&path.join("net_cls.classid")) => {}
        Ok(_) => {
            // The mount is gone, the folder may be left; one with something in it is not ours.
            return match rmdir(path) {
                Ok(()) => Ok(Undone::Removed),
                Err(Errno::NOENT) => Ok(Undone::NotThere),
                Err(_) => Ok(Undone::NotOurs(format!("{} is not a net_cls mount", path.display()))),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Undone::NotThere),
        Err(error) => return Err(Error::io(format!("look at {}", path.display()), error)),
    }
    unmount(path, UnmountFlags::NOFOLLOW).map_err(|error| {
        Error::advised(format!("unmount {}", path.display()), error, "something still works in that folder")
    })?;
    rmdir(path).ok();
    Ok(Undone::Removed)
}
