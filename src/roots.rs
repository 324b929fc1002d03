//! Where one engine keeps its things: the root (images, containers) and the run directory (leases, network journals).
//!
//! Two roots are two fully separate engines. Only the default root uses the plain names (`docker0`, table `minidock`)
//! in the machine's own network namespace; see [`Roots::is_default`].

use std::path::{Path, PathBuf};

/// The default root, used when neither `--root` nor `MINIDOCK_ROOT` is given.
pub const DEFAULT_ROOT: &str = "/var/lib/minidock";
/// The default root's run directory (a tmpfs: it's gone after a reboot, as the kernel's things are).
pub const DEFAULT_RUN: &str = "/run/minidock";

/// The folders of one engine.
#[derive(Debug, Clone)]
pub struct Roots {
    /// Images and containers, kept over a reboot.
    pub root: PathBuf,
    /// What describes the kernel's present state only.
    pub run: PathBuf,
}

impl Roots {
    /// The folders for `--root`/`MINIDOCK_ROOT`, or the default ones.
    pub fn new(root: Option<&Path>) -> Roots {
        // One spelling for one root: names and bridges are derived from it, and paths in plans must be absolute.
        let root = root.map(|root| {
            let root = std::path::absolute(root).unwrap_or_else(|_| root.to_path_buf());
            std::fs::canonicalize(&root).unwrap_or(root)
        });
        match root {
            Some(root) if root != Path::new(DEFAULT_ROOT) => Roots { run: root.join("run"), root },
            _ => Roots { root: DEFAULT_ROOT.into(), run: DEFAULT_RUN.into() },
        }
    }

    /// Whether this is the system's own engine.
    pub fn is_default(&self) -> bool {
        self.root == Path::new(DEFAULT_ROOT)
    }

    /// One folder a container, named by its id.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// One container's folder.
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// One symbolic link a name, pointing to the id: made and taken by one system call.
    pub fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    /// Run folders of all networks.
    pub fn networks(&self) -> PathBuf {
        self.run.join("network")
    }

    /// The network's run folder: lock, journal, leases, names.
    pub fn network(&self, name: &str) -> PathBuf {
        self.networks().join(name)
    }

    /// The network's address leases.
    pub fn leases(&self, network: &str) -> PathBuf {
        self.network(network).join("leases")
    }
}
