//! Anonymous volumes: VOLUMEs of the image and `-v /path`. Folders in the container's own folder, gone with it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::image::ImageFacts;
use super::paths::ContainerFolder;
use crate::request::RunRequest;
use crate::request::mounts::Mount;

/// One anonymous volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// The container may only read it.
    pub read_only: bool,
    /// Filled with what the image has at the target.
    pub copy: bool,
}

/// The volumes of a container: the user's, then those of the image that the user mounts nothing on.
pub fn of(request: &RunRequest, image: &ImageFacts, folder: &ContainerFolder) -> Vec<Volume> {
    let user = request.mounts.iter().filter_map(|mount| match mount {
        Mount::Volume { target, read_only, copy } => Some((target.clone(), *read_only, *copy)),
        _ => None,
    });
    let taken = |target: &Path| request.mounts.iter().any(|mount| mount.target() == target);
    let of_image = image.volumes.iter().filter(|target| !taken(target)).map(|target| (target.clone(), false, true));
    user.chain(of_image)
        .enumerate()
        .map(|(index, (target, read_only, copy))| Volume {
            source: folder.volumes().join(index.to_string()),
            target,
            read_only,
            copy,
        })
        .collect()
}
