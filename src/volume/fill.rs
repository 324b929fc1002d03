//! Fills empty volumes with what the image has at their place, as docker does.
//!
//! A child process mounts the image's layers in a mount namespace of its own and copies; nothing but the copy outlives
//! it, however it ends. A mark beside the volume says that a copy is under way; where its maker was killed, the next start
//! begins anew. The image is hostile: no path of it is followed but inside it.

mod tree;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;

use crate::error;
use crate::plan::volumes::Volume;
use crate::sys::{self, Fork};

/// The longest message taken from the child.
const MESSAGE_MAX: u64 = 65_536;

/// Copies what the image has at each volume's target into the volume's folder, if that is empty; it then takes over
/// owner, mode and times of the image's folder. Where the image has nothing, the volume stays as it is; a file there is
/// an error. `layers` are folders, lowest first; without one (`--rootfs`) there is nothing to copy. `merged` is an
/// existing folder, mounted on only in the child's mount namespace. `in_use` tells of a volume that others have
/// mounted. All paths on the host are absolute.
///
/// Doesn't return before all is copied. Only for a single-threaded process (see [`sys::fork`]).
///
/// # Errors
/// A file of the image where the volume is to be, no room, a child that was killed.
pub fn fill(volumes: &[Volume], layers: &[PathBuf], merged: &Path, in_use: &dyn Fn(&Volume) -> bool) -> Result<()> {
    let work = |volume: &&Volume| volume.copy && is_empty(&volume.source) || mark(volume).exists();
    let volumes: Vec<_> = volumes.iter().filter(work).collect();
    if volumes.is_empty() || layers.is_empty() {
        return Ok(());
    }
    in_child(|| {
        let image = mount_image(layers, merged).context("cannot mount the image's layers to fill its volumes")?;
        volumes.iter().try_for_each(|volume| {
            fill_one(volume, &image, in_use(volume))
                .with_context(|| format!("cannot fill the volume at {:?}", volume.target))
        })
    })
}

/// Runs `work` in a forked child, which dies with this process, and gives back its error.
///
/// The child's first word in the pipe is its pid: there are other children (the cleaner never ends by itself), and only
/// this one may be waited for. The number can't go to another process before we have waited. No word at all means that
/// it was killed in its first microseconds; then its zombie stays until this process, whose start has failed, ends too.
fn in_child(work: impl FnOnce() -> Result<()>) -> Result<()> {
    const WHAT: &str = "cannot start the process that fills volumes";
    let parent = rustix::process::getpid();
    let (answer, tell) = pipe_with(PipeFlags::CLOEXEC).context(WHAT)?;
    if let Fork::Child = sys::fork().context(WHAT)? {
        let mut tell = File::from(tell);
        let told = begin_child(parent, &mut tell).and_then(|()| work());
        // Nobody is left to be told when the pipe is broken.
        let _ = told.as_ref().map_err(|error| tell.write_all(error::text(error).as_bytes()));
        sys::exit_now(told.is_err().into());
    }
    drop(tell);
    let mut said = Vec::new();
    File::from(answer).take(MESSAGE_MAX).read_to_end(&mut said).context("cannot hear from the copy of volumes")?;
    let Some((pid, message)) = said.split_first_chunk() else { bail!("the copy into volumes was killed; try again") };
    let status = loop {
        match waitpid(Pid::from_raw(i32::from_ne_bytes(*pid)), None) {
            Err(nix::Error::EINTR) => {}
            status => break status.context("cannot wait for the copy into volumes")?,
        }
    };
    match status {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(..) => Err(anyhow!("{}", String::from_utf8_lossy(message))),
        WaitStatus::Signaled(_, signal, _) => bail!("the copy into volumes was killed by {signal}; is memory short?"),
        other => bail!("the copy into volumes ended unexpectedly: {other:?}"),
    }
}

/// Without its parent the child would keep the journal's lock and the cleaner's pipe open: it dies at once as well.
fn begin_child(parent: rustix::process::Pid, tell: &mut File) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask to end with minidock")?;
    if rustix::process::getppid() != Some(parent) {
        bail!("minidock has ended");
    }
    tell.write_all(&rustix::process::getpid().as_raw_nonzero().get().to_ne_bytes()).context("cannot tell the pid")
}

/// The image's root folder, from a read-only overlay in a new mount namespace.
///
/// The layers go by short names: links in a tmpfs on `merged`. So any number of layers fits into mount(2)'s one page,
/// and no `:` or `,` in a path needs an escape. An overlay without a writable layer wants at least two: an empty folder
/// is the lowest, and even the whiteouts of a single layer are hidden.
pub fn mount_image(layers: &[PathBuf], merged: &Path) -> Result<OwnedFd> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    // Else our mounts would appear on the host, where `/` is shared.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).context("cannot make the mounts private")?;
    // Without devices: a device node that is opened by mistake fails instead of acting.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), merged, Some("tmpfs"), flags, Some("mode=700"))
        .with_context(|| format!("cannot mount a tmpfs on {}", merged.display()))?;
    std::env::set_current_dir(merged)?;
    std::fs::create_dir("root")?;
    std::fs::create_dir("empty")?;
    for (number, layer) in layers.iter().enumerate() {
        std::os::unix::fs::symlink(layer, number.to_string())?;
    }
    let topmost_first: String = (0..layers.len()).rev().map(|number| format!("{number}:")).collect();
    // Off: what only a writable layer or a forged mark could ask for.
    let data = format!("lowerdir={topmost_first}empty,index=off,metacopy=off,redirect_dir=nofollow");
    let flags = flags | MsFlags::MS_RDONLY | MsFlags::MS_NOATIME;
    mount(Some("overlay"), "root", Some("overlay"), flags, Some(data.as_str()))
        .with_context(|| format!("cannot mount an overlay of {} layers", layers.len()))?;
    Ok(rustix::fs::openat(CWD, "root", FOLDER, Mode::empty())?)
}

/// No FIFO or device can be opened by it, and nothing is followed at the end of a path.
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What isn't there or can't be read isn't filled: the mount will say why.
fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// The mark of a copy that is under way.
fn mark(volume: &Volume) -> PathBuf {
    volume.source.with_file_name("filling")
}

fn fill_one(volume: &Volume, image: &OwnedFd, in_use: bool) -> Result<()> {
    // Of several starts with one new volume, one copies and the others wait for it.
    let folder = open_host(volume.source.parent().unwrap_or(Path::new("/")))?;
    rustix::fs::flock(&folder, FlockOperation::LockExclusive).context("cannot lock the volume")?;
    let mark = mark(volume);
    if mark.exists() {
        if !in_use {
            clear(&volume.source).context("cannot clear what a killed start has copied")?;
        }
        std::fs::remove_file(&mark).context("cannot remove the mark of a killed start")?;
    }
    if !volume.copy || !is_empty(&volume.source) {
        return Ok(());
    }
    let from = match resolve(image, &volume.target) {
        Ok(from) => from,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR) => bail!("the image has no folder but a file there; choose another place with -v"),
        Err(errno) => return Err(io::Error::from(errno)).context("cannot open the image's folder"),
    };
    let context = || format!("cannot copy the image's files to {}", volume.source.display());
    // What another container may write meanwhile must not be cleared: then without the mark.
    if !in_use {
        File::create(&mark).with_context(context)?;
    }
    tree::copy(from.as_fd(), open_host(&volume.source)?.as_fd()).with_context(context)?;
    if in_use { Ok(()) } else { std::fs::remove_file(&mark).with_context(context) }
}

fn clear(folder: &Path) -> io::Result<()> {
    std::fs::read_dir(folder)?.try_for_each(|entry| images::remove_tree(&entry?.path()))
}

fn open_host(folder: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, folder, FOLDER, Mode::empty())
        .map_err(io::Error::from)
        .with_context(|| format!("cannot open {}", folder.display()))
}

/// Opens a folder of the image; links in its path are followed as in the container, never out of the image.
fn resolve(image: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // The last part may be a link too.
    let flags = FOLDER.difference(OFlags::NOFOLLOW);
    for _ in 0..1000 {
        match rustix::fs::openat2(image, path, flags, Mode::empty(), how) {
            // Any rename on the host while a `..` was walked: openat2(2) asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

#[cfg(test)]
mod tests;
