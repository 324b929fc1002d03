//! Which outside addresses are a container's at its next start: one small file each in the router's folder.
//!
//! What makes an address work goes with the container's run; the wish stays until the address is taken away, given to
//! another container, or the router is removed. The address itself is free meanwhile: who asks for it gets it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::definition::{Definition, Floating, asleep};
use super::floating::add_while_held;
use super::{Held, PROBLEM, all, folder, folder_of_all, try_lock, wake_these};
use crate::commands::Engine;
use crate::error;
use crate::events::{self, Event};
use crate::files;
use crate::roots::Roots;
use crate::state::State;

/// The wishes' folder of a router.
pub(super) const FOLDER: &str = "wishes";

fn path(roots: &Roots, router: &str, outside: Ipv4Addr) -> PathBuf {
    folder(roots, router).join(FOLDER).join(format!("{outside}.json"))
}

/// Notes an address that has just been given to a container. The caller holds the routers' lock.
pub(super) fn note(roots: &Roots, router: &str, floating: &Floating) -> Result<()> {
    let path = path(roots, router, floating.outside);
    files::ensure_folder(&folder(roots, router).join(FOLDER))?;
    for known in read(roots, router) {
        let container_is_gone = !roots.container(&known.container).exists();
        if known.container == floating.container || container_is_gone {
            forget(roots, router, known.outside)?;
        }
    }
    files::replace(&path, &serde_json::to_vec_pretty(floating)?)
}

/// Forgets one; true when there was one.
pub(super) fn forget(roots: &Roots, router: &str, outside: Ipv4Addr) -> Result<bool> {
    match std::fs::remove_file(path(roots, router, outside)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot forget {outside} of router {router}")),
    }
}

/// All of a router's.
pub(super) fn read(roots: &Roots, router: &str) -> Vec<Floating> {
    let entries = std::fs::read_dir(folder(roots, router).join(FOLDER)).into_iter().flatten().flatten();
    entries.filter_map(|entry| serde_json::from_slice(&std::fs::read(entry.path()).ok()?).ok()).collect()
}

/// Wakes the routers of a container's networks, and gives a container that has just been started its addresses again.
/// Costs one look for a folder where nobody has a router. False when another process has the routers' lock: to be called
/// again. A router that can't be woken is an event.
///
/// # Errors
/// An address is another's by now, or the container isn't in the router's network any more.
pub fn container_starts(engine: &Engine, state: &State) -> Result<bool> {
    let roots = &engine.roots;
    if !folder_of_all(roots).exists() {
        return Ok(true);
    }
    let serves = |router: &Definition| state.attachments.iter().any(|one| one.network == router.inside.network);
    let asleep: Vec<Definition> = asleep(roots).into_iter().filter(serves).collect();
    let wished = |router: &Definition| read(roots, &router.name).iter().any(|wish| wish.container == state.id);
    let awake: Vec<Definition> = all(roots).into_iter().filter(wished).collect();
    if asleep.is_empty() && awake.is_empty() {
        return Ok(true);
    }
    let Some(held) = try_lock(roots) else { return Ok(false) };
    for (router, problem) in wake_these(engine, &asleep, &held) {
        tell_once(roots, &router, &error::text(&problem));
    }
    awake.iter().try_for_each(|router| give_of(roots, router, state, &held))?;
    Ok(true)
}

/// An event, unless it was the last one of this router.
fn tell_once(roots: &Roots, router: &str, problem: &str) {
    let path = folder(roots, router).join(PROBLEM);
    if std::fs::read(&path).is_ok_and(|told| told == problem.as_bytes()) {
        return;
    }
    let _ = std::fs::write(&path, problem);
    events::note(roots, Event::new("router", "problem", router).with("name", router).with("what", problem));
}

/// Gives a running container those of its addresses of a router that it lacks.
pub(super) fn give_of(roots: &Roots, router: &Definition, state: &State, held: &Held) -> Result<()> {
    for wish in read(roots, &router.name).into_iter().filter(|wish| wish.container == state.id) {
        if router.floating(roots).iter().any(|there| there.outside == wish.outside && there.container == state.id) {
            continue;
        }
        add_while_held(roots, &router.name, wish.outside, &state.id, &mut |_| {}, held).with_context(|| {
            format!("container {} is without its address {} of router {}", state.name, wish.outside, router.name)
        })?;
    }
    Ok(())
}
