//! The files in a container's folder.

use std::path::{Path, PathBuf};

/// `$ROOT/containers/ID`.
#[derive(Debug, Clone)]
pub struct ContainerFolder(PathBuf);

impl ContainerFolder {
    /// The folder itself.
    pub fn new(path: &Path) -> ContainerFolder {
        ContainerFolder(path.to_path_buf())
    }

    /// The overlay's writable layer: the container's changes.
    pub fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    /// The overlay's own workspace.
    pub fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// Where the overlay is mounted, in the container's mount namespace only.
    pub fn merged(&self) -> PathBuf {
        self.0.join("merged")
    }

    /// `/dev/shm` of the container, with `--ipc shareable`.
    pub fn shared_memory(&self) -> PathBuf {
        self.0.join("shm")
    }

    /// `/etc/hosts` of the container.
    pub fn hosts(&self) -> PathBuf {
        self.0.join("hosts")
    }

    /// `/etc/hostname` of the container.
    pub fn hostname(&self) -> PathBuf {
        self.0.join("hostname")
    }

    /// `/etc/resolv.conf` of the container.
    pub fn resolv_conf(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.0.join("container.log")
    }

    /// The OCI configuration.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }
}
