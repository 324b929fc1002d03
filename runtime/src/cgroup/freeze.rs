//! Freezing a container's processes, and moving them into a group that is made while they run.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::{Error, file};

/// More than any list of processes that a container is allowed to have.
const LIST_LIMIT: usize = 16 << 20;
/// More levels of groups than a container makes.
const DEEPEST: u32 = 16;
/// A process that forks faster than this many rounds can follow isn't moved whole; `pids.max` stops it first.
const ROUNDS: u32 = 100;

/// Whether processes can be frozen by this group: each one of cgroup2, and those of v1's freezer.
pub fn can_freeze(group: &Path) -> bool {
    file::exists(&group.join("cgroup.freeze")) || file::exists(&group.join("freezer.state"))
}

/// Freezes the processes of a group, or lets them go on. The kernel freezes them one after the other: see [`is_frozen`].
///
/// # Errors
/// The group is gone or can't freeze.
pub fn freeze(group: &Path, frozen: bool) -> Result<(), Error> {
    let v2 = group.join("cgroup.freeze");
    let (path, value) = match (file::exists(&v2), frozen) {
        (true, true) => (v2, "1"),
        (true, false) => (v2, "0"),
        (false, true) => (group.join("freezer.state"), "FROZEN"),
        (false, false) => (group.join("freezer.state"), "THAWED"),
    };
    file::write(&path, value).map_err(|error| Error::io(format!("write {value} to {}", path.display()), error))
}

/// Whether all processes of a group are frozen. On v1 the question also makes the kernel look again (freezer_read() in
/// kernel/cgroup/legacy_freezer.c).
pub fn is_frozen(group: &Path) -> bool {
    match file::read(&group.join("cgroup.events"), 4096) {
        Ok(events) => events.lines().any(|line| line == "frozen 1"),
        Err(_) => file::read(&group.join("freezer.state"), 64).is_ok_and(|state| state.trim() == "FROZEN"),
    }
}

/// Moves all processes of `from` and the groups below it into `to`, a group of another hierarchy that was made just now.
/// What they fork meanwhile is born where its parent is, so that a few rounds catch all.
///
/// # Errors
/// The kernel refuses one of them.
pub fn move_all(from: &Path, to: &Path) -> Result<(), Error> {
    let target = to.join("cgroup.procs");
    let mut moved = BTreeSet::new();
    for _ in 0..ROUNDS {
        let mut found = BTreeSet::new();
        list(from, 0, &mut found).map_err(|error| Error::io(format!("list {}", from.display()), error))?;
        let new: Vec<&String> = found.iter().filter(|pid| !moved.contains(*pid)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for pid in new {
            match file::write(&target, pid) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {} // it has ended
                Err(error) => {
                    return Err(Error::io(format!("move process {pid} into {}", to.display()), error));
                }
            }
        }
        moved = found;
    }
    Err(Error::refused(format!("the processes in {} multiply faster than they can be moved", from.display())))
}

fn list(group: &Path, depth: u32, found: &mut BTreeSet<String>) -> io::Result<()> {
    let text = file::read(&group.join("cgroup.procs"), LIST_LIMIT)?;
    found.extend(text.lines().map(str::to_owned));
    if depth < DEEPEST {
        for entry in std::fs::read_dir(group)?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                match list(&entry.path(), depth + 1, found) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}
