//! cgroups: where a container's groups lie, which limits are written there, and how they go away again.
//!
//! [`Layout`] is what this host is, [`plan`] turns limits into [`Op`]s, [`apply`] makes them, [`undo`] removes them.
//! Each controller is used where the host has it, on v1, on cgroup2, or some here and some there (hybrid).

mod apply;
mod attach;
mod bpf_sys;
mod cpulist;
mod devices;
mod error;
mod explain;
mod file;
mod freeze;
mod io;
mod layout;
#[cfg(test)]
mod layout_tests;
mod limits;
#[cfg(test)]
mod live_tests;
mod memory;
mod net_cls;
mod plan;
#[cfg(test)]
mod plan_tests;
mod program;
mod stats;
mod undo;

pub use apply::apply;
pub use attach::{Attach, Group, attach, explain_attach, groups};
pub use devices::{DeviceKind, DeviceRule};
pub use error::Error;
pub use freeze::{can_freeze, freeze, is_frozen, move_all};
pub use layout::{Home, KernelController, Layout, V1, V2};
pub use net_cls::{ClassId, ClassWay, parse_net_cls};
pub use plan::{Request, plan};
pub use stats::{Stats, stats};
pub use undo::{Residue, Undone, undo};

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The group that holds all containers' groups of the default engine.
pub const PARENT: &str = "minidock";

/// One operation on the host's cgroups. Names only: what it needs besides lies in the file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Mounts the v1 net_cls hierarchy, which this host has nowhere. Shared by all containers.
    Mount {
        /// The mount point; made when missing.
        at: PathBuf,
        /// The controllers of that hierarchy, as mount(8) takes them: `net_cls`, or `net_cls,net_prio`
        /// where the kernel already holds the two together.
        options: String,
    },
    /// Makes the group above the containers' groups. Shared: found is as good as made, and it goes when it is empty. What
    /// it needs is written when the container's own group is in it: from then on nobody else removes it.
    Parent {
        /// The folder of the group.
        path: PathBuf,
    },
    /// Writes one value into one control file of the parent group, unless another container has filled it already.
    Fill {
        /// The control file.
        path: PathBuf,
        /// The text to write.
        value: String,
        /// The meaning, for people.
        why: String,
    },
    /// Makes the container's own group in one hierarchy, exclusively.
    Create {
        /// The folder of the group; its last part is the container's id.
        path: PathBuf,
        /// What is mounted there: the v1 controllers of the hierarchy, empty for cgroup2.
        controllers: Vec<String>,
        /// `minidock/ID`: the part of `path` that is ours.
        group: String,
    },
    /// Writes one value into one control file.
    Write {
        /// The control file.
        path: PathBuf,
        /// The text to write.
        value: String,
        /// The flag and the meaning, for people.
        why: String,
    },
    /// v1: the rules of the devices controller, in order.
    DeviceRules {
        /// The folder of the container's group.
        path: PathBuf,
        /// What is allowed and denied; starts from "everything allowed".
        rules: Vec<DeviceRule>,
    },
    /// cgroup2: an eBPF program of type `cgroup_skb` that writes a class on all that the group's processes send.
    ClassProgram {
        /// The folder of the container's group.
        path: PathBuf,
        /// The class.
        class: ClassId,
    },
    /// cgroup2: the same rules as an eBPF program of type `cgroup_device`.
    DeviceProgram {
        /// The folder of the container's group.
        path: PathBuf,
        /// What is allowed and denied; starts from "everything allowed".
        rules: Vec<DeviceRule>,
    },
}

impl Op {
    /// What stays on the host when every process of the container is dead.
    ///
    /// Values, device rules and programs die with their group; the parent group is removed with the last child.
    pub fn residue(&self) -> Option<Residue> {
        match self {
            Op::Create { path, group, .. } => Some(Residue::Cgroup { path: path.clone(), group: group.clone() }),
            Op::Mount { at, .. } => Some(Residue::NetClsMount { path: at.clone() }),
            Op::Parent { .. }
            | Op::Fill { .. }
            | Op::Write { .. }
            | Op::DeviceRules { .. }
            | Op::ClassProgram { .. }
            | Op::DeviceProgram { .. } => None,
        }
    }

    /// Whether the effect belongs to all containers, so that its residue stands in the network's journal, in no container's.
    pub fn is_shared(&self) -> bool {
        matches!(self, Op::Mount { .. } | Op::Parent { .. } | Op::Fill { .. })
    }

    /// The file or folder that the operation is about.
    pub fn path(&self) -> &Path {
        match self {
            Op::Mount { at, .. } => at,
            Op::Parent { path, .. }
            | Op::Create { path, .. }
            | Op::Fill { path, .. }
            | Op::Write { path, .. }
            | Op::DeviceRules { path, .. }
            | Op::ClassProgram { path, .. }
            | Op::DeviceProgram { path, .. } => path,
        }
    }

    /// The shell commands that do the same, each with a short reason.
    pub fn explain(&self) -> Vec<(String, String)> {
        explain::explain(self)
    }
}
