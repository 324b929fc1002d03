//! What the plan takes from an image: its configuration and its layers, or a plain folder.

use std::path::PathBuf;

use images::{Config, Image};
use serde::Deserialize;

use crate::health::Healthcheck;

/// The root file system and the image's defaults.
#[derive(Debug, Clone, Default)]
pub struct ImageFacts {
    /// `sha256:…`; empty for a folder.
    pub id: String,
    /// As the user named it.
    pub name: String,
    /// Layer folders, lowest first.
    pub layers: Vec<PathBuf>,
    /// `--rootfs`.
    pub rootfs: Option<PathBuf>,
    /// ENV.
    pub env: Vec<String>,
    /// ENTRYPOINT.
    pub entrypoint: Vec<String>,
    /// CMD.
    pub cmd: Vec<String>,
    /// WORKDIR.
    pub workdir: String,
    /// USER.
    pub user: String,
    /// VOLUME.
    pub volumes: Vec<PathBuf>,
    /// EXPOSE, `80/tcp`.
    pub exposed: Vec<String>,
    /// STOPSIGNAL.
    pub stop_signal: Option<String>,
    /// HEALTHCHECK.
    pub health: Option<Healthcheck>,
    /// SHELL.
    pub shell: Vec<String>,
    /// LABEL.
    pub labels: Vec<(String, String)>,
}

impl ImageFacts {
    /// A folder has no configuration.
    pub fn folder(rootfs: PathBuf) -> ImageFacts {
        ImageFacts { name: rootfs.display().to_string(), rootfs: Some(rootfs), ..ImageFacts::default() }
    }

    /// An image of the store.
    pub fn of(name: &str, image: &Image) -> ImageFacts {
        let config: &Config = &image.config;
        ImageFacts {
            id: image.id.to_string(),
            name: name.to_string(),
            layers: image.layers.clone(),
            rootfs: None,
            env: config.env().to_vec(),
            entrypoint: config.entrypoint().to_vec(),
            cmd: config.cmd().to_vec(),
            workdir: config.workdir().to_string(),
            user: config.user().to_string(),
            volumes: config.volumes().map(PathBuf::from).collect(),
            exposed: config.exposed_ports().map(str::to_string).collect(),
            stop_signal: config.stop_signal().map(str::to_string),
            // One that isn't docker's is none: an image may hold anything.
            health: config.healthcheck().and_then(|check| Healthcheck::deserialize(check).ok()),
            shell: config.shell().to_vec(),
            labels: config.labels().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        }
    }
}
