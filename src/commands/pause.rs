//! `pause`, `unpause` and `rename`: changes of a running container, made by its monitor.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use super::each;
use crate::cli::{ContainersArgs, RenameArgs};
use crate::containers;
use crate::events::{self, Event};
use crate::files;
use crate::journal;
use crate::monitor::control::call;
use crate::recover::{self, Claim};
use crate::request::names;
use crate::reservation;
use crate::roots::Roots;
use crate::state::{State, Status};

/// How long the kernel may take to freeze all processes: one in the middle of disk work must finish that first.
const FREEZING: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);

/// Freezes all processes of containers.
pub fn pause(roots: &Roots, args: &ContainersArgs) -> Result<u8> {
    each(&args.containers, |name| {
        let state = running(roots, name)?;
        call::call(roots, &state.id, "pause", &Value::Null)?;
        wait_frozen(roots, &state)?;
        println!("{name}");
        Ok(())
    })
}

fn wait_frozen(roots: &Roots, state: &State) -> Result<()> {
    let entries = journal::read(&roots.container(&state.id).join("journal"))?.entries;
    let Some(group) = recover::freezer(&entries) else { return Ok(()) };
    let deadline = Instant::now() + FREEZING;
    while !runtime::cgroup::is_frozen(group) {
        // Another command may have let it go on, or ended it.
        if State::read(&roots.container(&state.id))?.is_none_or(|now| now.status != Status::Paused) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let _ = call::call(roots, &state.id, "unpause", &Value::Null);
            bail!("a process of the container can't be frozen: it waits for a disk or a file server; try again");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Lets them go on.
pub fn unpause(roots: &Roots, args: &ContainersArgs) -> Result<u8> {
    each(&args.containers, |name| {
        let state = containers::find(roots, name)?;
        if !state.is_alive() {
            bail!("Container {} is not paused", state.id);
        }
        call::call(roots, &state.id, "unpause", &Value::Null)?;
        println!("{name}");
        Ok(())
    })
}

fn running(roots: &Roots, name: &str) -> Result<State> {
    let state = containers::find(roots, name)?;
    match state.is_alive() {
        true => Ok(state),
        false => bail!("Container {} is not running", state.id),
    }
}

/// Gives a container another name.
pub fn rename(roots: &Roots, args: &RenameArgs) -> Result<u8> {
    let id = containers::find_id(roots, &args.container)?;
    let new = names::container(&args.new_name).map_err(|why| anyhow!(why.message.replace("--name", "NEW_NAME")))?;
    let Some(new) = new else { bail!("neither old nor new names may be empty") };
    match recover::claim(roots, &id, PATIENCE)? {
        Claim::Gone => bail!("{}{}", containers::NO_SUCH, args.container),
        Claim::Running(state) if state.name == new => return same_name(),
        Claim::Running(state) => {
            reservation::wait_for_name(roots, &new)?; // here, where nobody's output waits meanwhile
            match call::call(roots, &state.id, "rename", &json!({ "name": new })) {
                // It has just ended: the next look finds it so.
                Err(error) if error.is::<call::Ended>() => return rename(roots, args),
                other => drop(other?),
            }
        }
        Claim::Ours(journal) => {
            let folder = roots.container(&id);
            let Some(mut state) = State::read(&folder)? else { bail!("{}{}", containers::NO_SUCH, args.container) };
            if state.name == new {
                return same_name();
            }
            let journal = journal.successor(&reservation::with_name(&journal.contents()?.entries, &new, &id))?;
            journal.take_place()?;
            reservation::take_new_name(roots, &new, &id)?;
            let old = std::mem::replace(&mut state.name, new);
            state.write(roots)?;
            files::remove_name(roots, &old, &id)?;
            events::note(roots, Event::container("rename", &state).with("oldName", format!("/{old}")));
        }
    }
    Ok(0)
}

fn same_name() -> Result<u8> {
    bail!("Renaming a container with the same name as its current name")
}
