//! Which volumes a container gets: names for the anonymous ones, what is there already, what other containers have.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{ANONYMOUS, Store};
use crate::containers;
use crate::names;
use crate::plan::image::ImageFacts;
use crate::plan::volumes::Volume;
use crate::request::RunRequest;
use crate::request::mounts::{Mount, VolumeOptions};
use crate::roots::Roots;
use crate::state::State;
use crate::view;

/// A container's volumes and the binds that it takes over.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    /// All volumes.
    pub volumes: Vec<Volume>,
    /// Binds of `--volumes-from`.
    pub inherited: Vec<Mount>,
}

impl Chosen {
    /// What a container that was made before has.
    pub fn of(state: &State) -> Chosen {
        let volumes = state.volumes.iter().map(|volume| Volume { new: false, ..volume.clone() });
        Chosen { volumes: volumes.collect(), inherited: state.inherited.clone() }
    }
}

/// Chooses: the user's own mounts win, then what `--volumes-from` gives, then VOLUMEs of the image. The caller holds the
/// store's lock until its journal names the volumes. Without any wish nothing is read.
///
/// # Errors
/// An unknown container, a volume with other options than it has, a damaged record.
pub fn choose(roots: &Roots, request: &RunRequest, image: &ImageFacts) -> Result<Chosen> {
    let store = Store::of(roots);
    let mut chosen = Chosen::default();
    for mount in &request.mounts {
        if let Mount::Volume { target, read_only, copy, name, options } = mount {
            let named = one(&store, name.as_deref(), target, options)?;
            chosen.volumes.push(Volume { read_only: *read_only, copy: *copy && named.copy, ..named });
        }
    }
    for from in &request.volumes_from {
        inherit(roots, request, &mut chosen, &from.container, from.read_only)?;
    }
    for target in &image.volumes {
        if !is_taken(request, &chosen, target) {
            chosen.volumes.push(one(&store, None, target, &VolumeOptions::default())?);
        }
    }
    Ok(chosen)
}

fn is_taken(request: &RunRequest, chosen: &Chosen, target: &Path) -> bool {
    request.mounts.iter().chain(&chosen.inherited).any(|mount| mount.target() == target)
        || chosen.volumes.iter().any(|volume| volume.target == target)
}

fn one(store: &Store, name: Option<&str>, target: &Path, wanted: &VolumeOptions) -> Result<Volume> {
    let (name, anonymous) = name.map_or_else(|| (names::new_id(), true), |name| (name.to_string(), false));
    let record = if anonymous { None } else { store.read(&name)? };
    let mut options = wanted.clone();
    let (mut new, mut of_anonymous) = (true, anonymous);
    match &record {
        Some(record) => {
            if !options.driver.is_empty() && options.driver != record.options {
                bail!(
                    "the volume {name} exists with other options; leave volume-opt out, or remove it first: minidock \
                     volume rm {name}"
                );
            }
            options.driver = record.options.clone();
            (new, of_anonymous) = (false, record.is_anonymous());
        }
        None if anonymous => {
            options.labels.insert(ANONYMOUS.to_string(), String::new());
        }
        None => {}
    }
    let volume = Volume {
        source: store.data(&name),
        name,
        target: target.to_path_buf(),
        read_only: false,
        copy: options.driver.is_empty() && options.subpath.is_none(),
        // Named by its 64 digits it is the user's by now.
        anonymous: of_anonymous && anonymous,
        new,
        options,
    };
    Ok(volume)
}

/// What another container has: its volumes and binds, at the same places.
fn inherit(roots: &Roots, request: &RunRequest, chosen: &mut Chosen, from: &str, read_only: bool) -> Result<()> {
    let state = containers::find(roots, from).context("cannot take volumes over (--volumes-from)")?;
    for volume in &state.volumes {
        if is_taken(request, chosen, &volume.target) {
            continue;
        }
        if volume.name.is_empty() {
            bail!("container {from} was made by an older minidock; its volumes can't be taken over: make it anew");
        }
        chosen.volumes.push(Volume {
            read_only: volume.read_only || read_only,
            new: false,
            copy: false,
            ..volume.clone()
        });
    }
    let theirs = view::request(&state)?;
    for mount in theirs.mounts.iter().chain(&state.inherited) {
        if let Mount::Bind { target, .. } = mount
            && !is_taken(request, chosen, target)
        {
            let mut mount = mount.clone();
            if let Mount::Bind { read_only: theirs, create_source, .. } = &mut mount {
                *theirs |= read_only;
                *create_source = false;
            }
            chosen.inherited.push(mount);
        }
    }
    Ok(())
}
