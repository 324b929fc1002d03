//! Where a container's first process enters its groups, read off the operations.

use std::path::{Path, PathBuf};

use super::Op;

/// The entrances of a container's groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attach {
    /// The cgroup2 group's folder: open it (O_PATH or O_RDONLY) and give it to clone3 as CLONE_INTO_CGROUP.
    pub v2: Option<PathBuf>,
    /// `cgroup.procs` of each v1 group: the process writes `0` into all of them back to back (a write waits for a grace
    /// period only when the last one is long ago), and unshares its cgroup namespace after that, never before.
    pub v1: Vec<PathBuf>,
}

/// One group of a container, for whoever mounts `/sys/fs/cgroup` inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The folder on the host.
    pub path: PathBuf,
    /// The v1 controllers of the hierarchy (they are the mount options too); empty for cgroup2.
    pub controllers: Vec<String>,
}

/// The groups that a plan makes, in its order.
pub fn groups(ops: &[Op]) -> Vec<Group> {
    let group = |op: &Op| match op {
        Op::Create { path, controllers, .. } => Some(Group { path: path.clone(), controllers: controllers.clone() }),
        _ => None,
    };
    ops.iter().filter_map(group).collect()
}

/// The entrances of the groups that a plan makes.
pub fn attach(ops: &[Op]) -> Attach {
    let mut attach = Attach::default();
    for Group { path, controllers } in groups(ops) {
        if controllers.is_empty() {
            attach.v2 = Some(path);
        } else {
            attach.v1.push(path.join("cgroup.procs"));
        }
    }
    attach
}

/// The shell commands that move `$pid` into the groups.
pub fn explain_attach(attach: &Attach) -> Vec<(String, String)> {
    let v2 = attach.v2.iter().map(|folder| folder.join("cgroup.procs"));
    let files: Vec<PathBuf> = v2.chain(attach.v1.iter().cloned()).collect();
    let reason = |index: usize| {
        if index == 0 { "the container's first process enters its groups; its children inherit them" } else { "" }
    };
    let line = |file: &Path| format!("echo $pid > {}", super::explain::quote(&file.to_string_lossy()));
    files.iter().enumerate().map(|(index, file)| (line(file), reason(index).to_owned())).collect()
}
