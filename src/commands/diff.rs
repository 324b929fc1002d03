//! `diff`: what a container has changed of its image.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags};

use crate::changes;
use crate::cli::DiffArgs;
use crate::containers;
use crate::plan::paths::ContainerFolder;
use crate::roots::Roots;
use crate::volume;

/// Prints the changes, a line each.
pub fn diff(roots: &Roots, args: &DiffArgs) -> Result<u8> {
    let state = containers::find(roots, &args.container)?;
    if state.layers.is_empty() {
        bail!("container {} runs in a folder of the host (--rootfs); what it was before is not known", state.name);
    }
    let folder = ContainerFolder::new(&roots.container(&state.id));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let upper = rustix::fs::openat(CWD, folder.upper(), flags, Mode::empty())
        .map_err(std::io::Error::from)
        .with_context(|| format!("cannot read the changes of container {}", state.name))?;
    // In a mount namespace of this process, which ends with it.
    let lower = volume::mount_image(&state.layers, &folder.merged()).context("cannot mount the image's layers")?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (path, kind) in changes::of(&upper, &lower)? {
        out.write_all(&[kind.letter() as u8, b' ', b'/'])?;
        out.write_all(path.as_os_str().as_bytes())?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(0)
}
