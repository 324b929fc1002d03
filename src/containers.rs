//! Finding containers by name, id or the beginning of an id.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::files;
use crate::journal::{self, Journal};
use crate::recover;
use crate::residue::Residue;
use crate::roots::Roots;
use crate::state::{State, Status};

/// How long a monitor may take to note how its program ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// All containers with a state, newest first. One whose `--rm` removal is under way is as good as gone.
pub fn all(roots: &Roots) -> Vec<State> {
    let mut states: Vec<State> = ids(roots)
        .iter()
        .filter_map(|id| read(roots, id).ok().flatten())
        .filter(|state| state.is_alive() || !state.auto_remove || state.status == Status::Created)
        .collect();
    states.sort_by(|a, b| b.created.cmp(&a.created));
    states
}

/// The containers that are being made now, as far as they're known: docker lists them as created.
pub fn being_made(roots: &Roots) -> Vec<State> {
    let made = |id: &String| {
        let path = roots.container(id).join("journal");
        if State::read(&roots.container(id)).ok()?.is_some() || !Journal::is_owned(&path) {
            return None;
        }
        let contents = journal::read(&path).ok()?;
        let name = contents.entries.iter().rev().find_map(|entry| match entry {
            Residue::Name { name, .. } => Some(name.clone()),
            _ => None,
        });
        State::being_made(id, name?, contents.header?)
    };
    ids(roots).iter().filter_map(made).collect()
}

/// A container's state, for people and scripts to see. Between the end of a program and its monitor's note of it, for
/// which this waits, nobody can say how it ended.
pub fn read(roots: &Roots, id: &str) -> Result<Option<State>> {
    let folder = roots.container(id);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = State::read(&folder)?;
        let open = state.as_ref().is_some_and(|state| state.is_open() && !state.auto_remove && !state.is_alive());
        if !open || !Journal::is_owned(&folder.join("journal")) || Instant::now() >= deadline {
            return Ok(state);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The ids of all containers, those included that are being made or removed.
pub fn ids(roots: &Roots) -> Vec<String> {
    let entries = std::fs::read_dir(roots.containers()).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|id| is_id(id)).collect()
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The id that a user means: a name, an id, or the beginning of just one id.
pub fn find_id(roots: &Roots, wanted: &str) -> Result<String> {
    if !wanted.is_empty() && !wanted.contains('/') && wanted != "." && wanted != ".." {
        if let Some(id) = files::name_owner(roots, wanted) {
            return Ok(id);
        }
        let mut fitting = ids(roots);
        fitting.retain(|id| id.starts_with(wanted));
        match fitting.as_slice() {
            [id] => return Ok(id.clone()),
            [] => {}
            several => bail!("the id {wanted} fits {} containers; give more of its digits", several.len()),
        }
    }
    let near = near_miss(roots, wanted).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    bail!("{NO_SUCH}{wanted}{near}")
}

/// How every message about an unknown container begins; scripts look for it.
pub const NO_SUCH: &str = "No such container: ";

/// The container's name that somebody may have meant.
pub fn near_miss(roots: &Roots, wanted: &str) -> Option<String> {
    let entries = std::fs::read_dir(roots.names()).into_iter().flatten().flatten();
    crate::near::miss(wanted, entries.map(|entry| entry.file_name().to_string_lossy().into_owned()))
}

/// The container's state.
pub fn find(roots: &Roots, wanted: &str) -> Result<State> {
    let id = find_id(roots, wanted)?;
    match read(roots, &id)? {
        Some(state) => Ok(state),
        None => bail!("container {wanted} is just being made or removed; try again"),
    }
}

/// The state of a container that must be running.
pub fn find_running(roots: &Roots, wanted: &str) -> Result<State> {
    let state = find(roots, wanted)?;
    if !state.is_alive() {
        // docker's words; scripts look for "is not running"
        bail!("container {} is not running", recover::short(&state.id));
    }
    Ok(state)
}
