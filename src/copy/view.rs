//! The files of a container as its program sees them: of one that runs through its PID 1, of another by mounting its layers,
//! volumes and binds in a mount namespace of this process, which ends with it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use runtime::mounts::{self, Attributes, Bind, Live, Op, Overlay, Propagation};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::containers::NO_SUCH;
use crate::journal::Journal;
use crate::plan::paths::ContainerFolder;
use crate::plan::volumes::Volume;
use crate::recover::{self, Claim};
use crate::request::mounts::Mount;
use crate::roots::Roots;
use crate::state::State;
use crate::view;

/// How long to wait for a container that is just being started or ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// What of a container is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// All that its program sees, volumes and binds too.
    Everything,
    /// Its own files alone, as `export` has them.
    OwnFiles,
}

/// A container's root folder. While it lives, a container that doesn't run can't be started or removed.
#[derive(Debug)]
pub struct View {
    /// O_PATH.
    pub root: OwnedFd,
    _journal: Option<Journal>,
}

impl View {
    /// Opens the view. It may move this process into another mount namespace, so descriptors of the host are opened before.
    ///
    /// # Errors
    /// The container is gone, or its layers can't be mounted.
    pub fn open(roots: &Roots, id: &str, wanted: Wanted) -> Result<View> {
        loop {
            match recover::claim(roots, id, PATIENCE)? {
                Claim::Gone => return Err(anyhow!("{NO_SUCH}{}", recover::short(id))),
                Claim::Running(state) => {
                    if let Some(root) = of_running(&state, wanted)? {
                        return Ok(View { root, _journal: None });
                    }
                    // It has just ended.
                }
                Claim::Ours(journal) => {
                    recover::settle(roots, id, &journal)?;
                    let Some(state) = State::read(&roots.container(id))? else { continue };
                    let root = of_stopped(roots, &state, wanted)?;
                    return Ok(View { root, _journal: Some(journal) });
                }
            }
        }
    }
}

fn of_running(state: &State, wanted: Wanted) -> Result<Option<OwnedFd>> {
    let context = || format!("cannot reach the files of container {}", state.name);
    let Some(process) = state.process else { return Ok(None) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{}/root", process.pid), flags, Mode::empty());
    // Checked after the open: now it can't have been another process's.
    if !process.is_alive() {
        return Ok(None);
    }
    let root = root.map_err(std::io::Error::from).with_context(context)?;
    if wanted == Wanted::Everything {
        return Ok(Some(root));
    }
    // A copy of the root's own mount, without those below it, can only be made from inside the namespace.
    let open = |path: String| std::fs::File::open(path);
    let (own, theirs) = (open("/proc/self/ns/mnt".into())?, open(format!("/proc/{}/ns/mnt", process.pid)));
    if !process.is_alive() {
        return Ok(None);
    }
    let theirs = theirs.with_context(context)?;
    let enter = |namespace: &std::fs::File| {
        move_into_link_name_space(rustix::fd::AsFd::as_fd(namespace), Some(LinkNameSpaceType::Mount))
    };
    enter(&theirs).with_context(context)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&root, c"", flags);
    // Our own root folder comes back with it.
    enter(&own).with_context(context)?;
    Ok(Some(tree.map_err(std::io::Error::from).with_context(context)?))
}

fn of_stopped(roots: &Roots, state: &State, wanted: Wanted) -> Result<OwnedFd> {
    let context = || format!("cannot mount the files of container {}", state.name);
    let folder = ContainerFolder::new(&roots.container(&state.id));
    let mut ops = vec![Op::Isolate(Propagation { kind: libc::MS_PRIVATE, recursive: true })];
    let request = view::request(state)?;
    ops.push(if state.layers.is_empty() {
        let crate::request::ImageSource::Rootfs(path) = &request.image else {
            return Err(anyhow!("container {} has neither layers nor a root folder", state.name));
        };
        Op::RootFolder(std::fs::canonicalize(path).with_context(context)?)
    } else {
        let folders = (&*folder.upper(), &*folder.work(), &*folder.merged());
        let facts = runtime::Facts::read()?;
        Op::Overlay(Overlay::plan(&state.layers, folders, false, &facts)?)
    });
    if wanted == Wanted::Everything {
        ops.extend(own_files(&folder, &state.etc_folder));
        ops.extend(state.volumes.iter().filter_map(volume));
        ops.extend(request.mounts.iter().chain(&state.inherited).filter_map(bind));
    }
    if request.read_only {
        ops.push(Op::Seal { target: PathBuf::from("/"), attributes: Attributes::read_only() });
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).with_context(context)?;
    let mut live = Live::default();
    mounts::apply(&ops, &mut live).with_context(context)?;
    let root = live.root.ok_or_else(|| anyhow!("the root file system was not mounted"))?;
    rustix::fd::AsFd::as_fd(&root.fd()).try_clone_to_owned().with_context(context)
}

/// hosts, hostname and resolv.conf, as the container has them over the image's.
fn own_files(folder: &ContainerFolder, etc: &Path) -> Vec<Op> {
    let etc = if etc.as_os_str().is_empty() { folder.clone() } else { ContainerFolder::new(etc) };
    [(etc.hosts(), "/etc/hosts"), (etc.hostname(), "/etc/hostname"), (etc.resolv_conf(), "/etc/resolv.conf")]
        .into_iter()
        .filter(|(source, _)| source.exists())
        .map(|(source, target)| mount(source, None, Path::new(target), false))
        .collect()
}

fn volume(volume: &Volume) -> Option<Op> {
    // What a driver mounts is there while a container runs.
    let subpath = volume.options.subpath.as_ref().map(PathBuf::from);
    volume.is_folder().then(|| mount(volume.source.clone(), subpath, &volume.target, volume.read_only))
}

fn bind(wanted: &Mount) -> Option<Op> {
    match wanted {
        Mount::Bind { source, target, read_only, .. } if source.exists() => {
            Some(mount(source.clone(), None, target, *read_only))
        }
        _ => None,
    }
}

fn mount(source: PathBuf, subpath: Option<PathBuf>, target: &Path, read_only: bool) -> Op {
    Op::Bind(Bind {
        source,
        subpath,
        target: target.to_path_buf(),
        recursive: true,
        attributes: if read_only { Attributes::read_only() } else { Attributes::default() },
        below: Attributes::default(),
        propagation: Propagation { kind: libc::MS_PRIVATE, recursive: true },
    })
}
