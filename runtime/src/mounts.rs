//! The container's mounts, one operation for each thing that the kernel does at once.
//!
//! Everything here happens in the container's own mount namespace and dies with it, so no operation has a residue. In
//! explained commands `$pid` is the container's PID 1 and `$root` the folder where its root file system is mounted.

mod apply;
pub mod beneath;
mod explain;
pub mod options;
mod overlay;
mod table;

use std::path::PathBuf;

pub use apply::{Live, apply};
pub use options::{Attributes, Propagation};
pub use overlay::Overlay;
pub(crate) use table::plan;

use crate::Command;

/// One operation in the container's mount namespace. Targets are paths of the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Cuts the whole tree off from the host's: nothing mounted from here on appears there.
    Isolate(Propagation),
    /// The root file system from layers; must come before everything with a target.
    Overlay(Overlay),
    /// A folder as the root file system, bound onto itself because pivot_root wants a mount.
    RootFolder(PathBuf),
    /// A new file system.
    FileSystem(FileSystem),
    /// A folder, file or device of the host.
    Bind(Bind),
    /// A device node.
    Device(Device),
    /// A symbolic link that isn't there.
    Symlink {
        /// Where.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// The pseudo terminal of `-t`: opened in the container's own devpts, bound to this path.
    Console(PathBuf),
    /// Files and folders that shall look empty; those that aren't there are skipped.
    Mask(Vec<PathBuf>),
    /// Files and folders that can't be written; those that aren't there are skipped.
    ReadOnly(Vec<PathBuf>),
    /// A kernel parameter of one of the container's namespaces.
    Sysctl {
        /// The file below `/proc/sys`: `net/ipv4/ip_forward`.
        key: String,
        /// The value.
        value: String,
    },
    /// Changes attributes of a mount that was writable until now; `/` is the root file system itself.
    Seal {
        /// The mount.
        target: PathBuf,
        /// What to change.
        attributes: Attributes,
    },
    /// Makes the root file system `/` and lets go of the host's.
    PivotRoot {
        /// `rootfsPropagation` when it isn't private.
        propagation: Option<Propagation>,
    },
}

/// A new file system, as mount(2) takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// `proc`, `tmpfs` …
    pub kind: String,
    /// The first column of /proc/mounts.
    pub source: String,
    /// Where; made when missing.
    pub target: PathBuf,
    /// Of the mount.
    pub attributes: Attributes,
    /// `sync` and its kin: MS_* bits.
    pub flags: u64,
    /// For the file system: `mode=755,size=64k`.
    pub data: String,
    /// When it isn't the namespace's default.
    pub propagation: Option<Propagation>,
    /// The target must not be reached through a link: what trusts /proc and /sys must find the real ones (CVE-2019-19921).
    pub strict: bool,
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// A path of the host.
    pub source: PathBuf,
    /// What to bind of the source folder, whose content is not to be trusted: looked up as if the source were `/`. An
    /// option `subpath=PATH` of the OCI configuration's mount.
    pub subpath: Option<PathBuf>,
    /// A path of the container; made when missing, as what the source is.
    pub target: PathBuf,
    /// With the mounts below the source.
    pub recursive: bool,
    /// Of the top mount.
    pub attributes: Attributes,
    /// Of all mounts (docker's read-only volumes since 25: `rro`).
    pub below: Attributes,
    /// As docker: rprivate when nothing is said.
    pub propagation: Propagation,
}

/// What kind of node a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// `c`
    Character,
    /// `b`
    Block,
    /// `p`: no device, a named pipe.
    Fifo,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub kind: NodeKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Op {
    /// The same as shell commands, each with a reason.
    pub fn explain(&self) -> Vec<Command> {
        explain::explain(self)
    }

    /// Whether it speaks of a link of the network namespace, which must be there for it: `net/ipv4/conf/eth0/…`.
    pub(crate) fn needs_links(&self) -> bool {
        let of_link = |key: &str| ["/conf/", "/neigh/"].iter().any(|part| key.contains(part));
        matches!(self, Op::Sysctl { key, .. } if of_link(key))
    }

    /// A short name for error messages: `mount proc on /proc`.
    pub(crate) fn title(&self) -> String {
        match self {
            Op::Isolate(propagation) => format!("make all mounts {}", propagation.name()),
            Op::Overlay(overlay) => {
                format!("mount the image's layers on {}", overlay.merged.display())
            }
            Op::RootFolder(path) => format!("use {} as root file system", path.display()),
            Op::FileSystem(mount) => format!("mount {} on {}", mount.kind, mount.target.display()),
            Op::Bind(bind) => format!("bind {} to {}", bind.source.display(), bind.target.display()),
            Op::Device(device) => format!("make the device {}", device.path.display()),
            Op::Symlink { path, .. } => format!("make the link {}", path.display()),
            Op::Console(path) => format!("make the terminal {}", path.display()),
            Op::Mask(_) => "mask paths".to_owned(),
            Op::ReadOnly(_) => "make paths read-only".to_owned(),
            Op::Sysctl { key, value } => format!("set the kernel parameter {} to {value}", key.replace('/', ".")),
            Op::Seal { target, .. } => format!("change the mount {}", target.display()),
            Op::PivotRoot { .. } => "make the new root file system /".to_owned(),
        }
    }
}
