//! A container's volumes: the user's, those of `--volumes-from`, and VOLUMEs of the image.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use serde::{Deserialize, Serialize};

use crate::op::Op;
use crate::request::mounts::VolumeOptions;
use crate::volume;

/// One volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Empty: a folder in the container's own, as older versions made them.
    #[serde(default)]
    pub name: String,
    /// Its content on the host.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// The container may only read it.
    pub read_only: bool,
    /// Filled with what the image has at the target.
    pub copy: bool,
    /// Goes with the container (`--rm`, `rm -v`) when no other has it.
    #[serde(default)]
    pub anonymous: bool,
    /// Is to be made.
    #[serde(default)]
    pub new: bool,
    /// Subpath, propagation, and the driver's options in force.
    #[serde(default)]
    pub options: VolumeOptions,
}

impl Volume {
    /// Whether its content is in its folder, so that it can be filled; else the driver's options say what is mounted.
    pub fn is_folder(&self) -> bool {
        self.options.driver.is_empty()
    }
}

/// Makes those that aren't there yet.
pub fn ops(volumes: &[Volume]) -> Vec<Op> {
    let new = volumes.iter().filter(|volume| volume.new);
    let make = |volume: &Volume| {
        let store = volume.source.parent().and_then(Path::parent).unwrap_or(Path::new("/")).to_path_buf();
        let (name, options) = (volume.name.clone(), volume.options.clone());
        Op::Volume(volume::op::Op::Make { store, name, labels: options.labels, driver: options.driver })
    };
    new.map(make).collect()
}

/// As the OCI configuration has it.
pub fn mount(volume: &Volume) -> Mount {
    let options = &volume.options;
    let mut words = vec![options.propagation.name().to_string()];
    words.extend(volume.read_only.then(|| "ro".to_string()));
    let driver = |key: &str| options.driver.get(key).map(String::as_str).unwrap_or_default();
    let of_driver: Vec<&str> = driver("o").split(',').filter(|word| !word.is_empty()).collect();
    let bound = volume.is_folder() || of_driver.iter().any(|word| ["bind", "rbind"].contains(word));
    let mut mount = Mount::default();
    mount.set_destination(volume.target.clone());
    if bound {
        words.push("rbind".to_string());
        words.extend(options.subpath.iter().map(|path| format!("subpath={path}")));
        let source = if volume.is_folder() { volume.source.clone() } else { PathBuf::from(driver("device")) };
        mount.set_typ(Some("bind".to_string())).set_source(Some(source));
    } else {
        mount.set_typ(Some(driver("type").to_string())).set_source(Some(PathBuf::from(driver("device"))));
    }
    words.extend(of_driver.iter().filter(|word| !["bind", "rbind"].contains(word)).map(|word| word.to_string()));
    mount.set_options(Some(words));
    mount
}
