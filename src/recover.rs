//! The one way to remove a container: undo of its journal. Failed start, end with `--rm`, `rm`, and the recovery of what
//! a crash left all come here.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::fs::{FlockOperation, flock};

use crate::events::{self, Event};
use crate::files;
use crate::host_netns;
use crate::journal::{self, Contents, Journal, Present};
use crate::residue::{self, Residue};
use crate::roots::Roots;
use crate::state::{State, Status};

/// How long to wait for a container that is just being removed and still holds a name or an address.
const PATIENCE: Duration = Duration::from_secs(10);

/// How far an undo goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scope {
    /// What the run of the program needed; the container stays, exited.
    Run,
    /// All of it.
    Container,
    /// All but its anonymous volumes: docker's plain `rm`.
    ContainerWithoutVolumes,
}

/// Undoes a container's journal, whose lock the caller holds. An empty list is success; after an error the journal keeps
/// its entries for the next try.
pub fn undo(roots: &Roots, journal: &Journal, scope: Scope) -> Vec<anyhow::Error> {
    let contents = match journal.contents() {
        Ok(contents) => contents,
        Err(error) => return vec![error],
    };
    if !contents.unknown.is_empty() {
        return vec![anyhow!(
            "the journal has {} entries that this version of minidock doesn't know (first: {}); \
             remove the container with the version that made it",
            contents.unknown.len(),
            contents.unknown[0].1
        )];
    }
    let mut entries = of_this_boot(&contents);
    let mut stay = entries.contains(&Residue::VolumesStay);
    if scope == Scope::ContainerWithoutVolumes && !stay && entries.iter().any(is_volume) {
        // Before anything is gone: whoever finishes this removal after a crash finds no state to tell it.
        if let Err(error) = journal.record(&[Residue::VolumesStay]) {
            return vec![error];
        }
        stay = true;
    }
    if stay {
        entries.retain(|entry| !is_volume(entry));
    }
    let netns = contents.header.as_ref().and_then(|header| header.netns);
    let (of_run, of_container): (Vec<Residue>, Vec<Residue>) = entries.into_iter().partition(Residue::ends_with_run);
    let errors = residue::undo(roots, netns, &of_run);
    if !errors.is_empty() {
        return errors;
    }
    match scope {
        Scope::Run => journal.keep_only(&of_container).err().into_iter().collect(),
        Scope::Container | Scope::ContainerWithoutVolumes => residue::undo(roots, netns, &of_container),
    }
}

fn is_volume(entry: &Residue) -> bool {
    matches!(entry, Residue::Volume { .. })
}

/// Removes a container, whose journal's lock the caller holds: the undo of its journal. One whose removal fails is left
/// `dead`, for the next try.
pub fn remove(roots: &Roots, id: &str, journal: &Journal, scope: Scope) -> Vec<anyhow::Error> {
    // A container that was never finished has no state, and nobody was told that it was created.
    let state = State::read(&roots.container(id)).ok().flatten();
    let mut errors = undo(roots, journal, scope);
    match state {
        Some(state) if errors.is_empty() => events::note(roots, Event::container("destroy", &state)),
        Some(mut state) => {
            (state.status, state.error) = (Status::Dead, errors.first().map(crate::error::text).unwrap_or_default());
            // What is left of its folder may be without a state already; then the next command goes on.
            let has_state = matches!(State::read(&roots.container(id)), Ok(Some(_)));
            errors.extend(has_state.then(|| state.write(roots).err()).flatten());
        }
        None => {}
    }
    errors
}

/// After a reboot the kernel's things are gone and their names may be another's: only files are left to be undone.
fn of_this_boot(contents: &Contents) -> Vec<Residue> {
    let same = contents.header.as_ref().is_some_and(|header| header.boot_id == journal::boot_id());
    let keep = |entry: &&Residue| same || !matches!(entry, Residue::Net(_) | Residue::Cgroup(_));
    contents.entries.iter().filter(keep).cloned().collect()
}

/// Recovers every container whose owner has died without undoing it. Errors are for the user to see; none stops it.
pub fn recover_all(roots: &Roots) -> Vec<anyhow::Error> {
    let mut errors = Vec::new();
    for entry in std::fs::read_dir(roots.containers()).into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if let Err(error) = recover(roots, &id) {
            errors.push(error.context(format!("cannot clean up after container {}", short(&id))));
        }
    }
    errors
}

/// Recovers one container if its owner has died. Does nothing to one that lives or has ended in order.
pub fn recover(roots: &Roots, id: &str) -> Result<()> {
    let folder = roots.container(id);
    let Some(journal) = Journal::take_over(&folder.join("journal"))? else {
        if !folder.join("journal").exists() {
            remove_unborn(roots, id)?;
        }
        return Ok(());
    };
    settle(roots, id, &journal)
}

/// Brings a container whose owner has ended (or died) into its final state: removed, or exited with nothing left of its
/// run. The caller holds the journal's lock.
pub fn settle(roots: &Roots, id: &str, journal: &Journal) -> Result<()> {
    settle_ended(roots, id, journal, None)
}

/// [`settle`], with the exit code if the monitor could still say it. Kernel objects go first: what can't be written (a
/// full disk) must not keep an address or a port.
pub fn settle_ended(roots: &Roots, id: &str, journal: &Journal, code: Option<i32>) -> Result<()> {
    let contents = journal.contents()?;
    let Some(header) = &contents.header else {
        return files::remove_folder(roots, &roots.container(id)); // the owner died before it wrote a byte
    };
    let state = State::read(&roots.container(id))?;
    // `--rm` means at the end of a run: one that was only created waits for its first.
    let ended_session = header.session.is_some_and(|session| !session.is_alive());
    let stays = |state: &State| match state.status {
        _ if ended_session => false,
        Status::Created => true,
        Status::Removing => false,
        // Its removal failed once, and nobody sees a `--rm` container that has ended: it's tried again until it works.
        _ => !header.auto_remove,
    };
    let Some(mut state) = state.filter(stays) else {
        return first_error(remove(roots, id, journal, Scope::Container));
    };
    let undone = match contents.entries.iter().any(Residue::ends_with_run) {
        true => first_error(undo(roots, journal, Scope::Run)),
        false => Ok(()),
    };
    crate::monitor::control::remove(&roots.container(id));
    if matches!(state.status, Status::Running | Status::Paused | Status::Restarting) {
        match code {
            Some(code) => state.end(code, false, ""),
            None => state.end(137, false, "its monitor was killed"),
        }
        state.write(roots)?;
    }
    undone
}

/// The group by which a container's processes can be frozen.
pub fn freezer(entries: &[Residue]) -> Option<&Path> {
    let groups = entries.iter().filter_map(|entry| match entry {
        Residue::Cgroup(runtime::cgroup::Residue::Cgroup { path, .. }) => Some(path.as_path()),
        _ => None,
    });
    groups.into_iter().find(|group| runtime::cgroup::can_freeze(group))
}

/// This boot and this network namespace, for a journal that begins now.
pub fn present() -> Present {
    Present { boot_id: journal::boot_id(), netns: host_netns::current() }
}

/// A folder without a journal: its maker died between two system calls, or is between them now. The maker holds the
/// containers folder's lock shared for that moment.
fn remove_unborn(roots: &Roots, id: &str) -> Result<()> {
    let containers = File::open(roots.containers()).context("cannot open the containers' folder")?;
    flock(&containers, FlockOperation::LockExclusive).context("cannot lock the containers' folder")?;
    let folder = roots.container(id);
    if folder.join("journal").exists() { Ok(()) } else { files::remove_folder(roots, &folder) }
}

/// Who has a container.
pub enum Claim {
    /// This process, by the journal's lock; its program doesn't run.
    Ours(Journal),
    /// Its monitor: the program runs.
    Running(Box<State>),
    /// Nobody; it's gone.
    Gone,
}

/// Takes a container that doesn't run, and waits for one that is just being started, ended or removed, however that
/// turns out. Fails after `limit`.
pub fn claim(roots: &Roots, id: &str, limit: Duration) -> Result<Claim> {
    let folder = roots.container(id);
    let path = folder.join("journal");
    let deadline = Instant::now() + limit;
    loop {
        if let Some(journal) = Journal::take_over(&path)? {
            return Ok(Claim::Ours(journal));
        }
        if !path.exists() {
            return Ok(Claim::Gone);
        }
        if let Some(state) = State::read(&folder)?.filter(State::is_alive) {
            return Ok(Claim::Running(Box::new(state)));
        }
        if Instant::now() >= deadline {
            return Err(anyhow!("container {} is still held by its monitor", short(id)));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the journal is free and takes it; `None` when the container is gone by then.
pub fn wait_for_owner(roots: &Roots, id: &str, limit: Duration) -> Result<Option<Journal>> {
    let path = roots.container(id).join("journal");
    let deadline = Instant::now() + limit;
    loop {
        if let Some(journal) = Journal::take_over(&path)? {
            return Ok(Some(journal));
        }
        if !path.exists() {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Err(anyhow!("container {} is still held by its monitor", short(id)));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for a container that is about to vanish; false when it lives, or stays (exited).
pub fn wait_if_ending(roots: &Roots, owner: &str) -> Result<bool> {
    let folder = roots.container(owner);
    let deadline = Instant::now() + PATIENCE;
    while !owner.is_empty() && folder.exists() {
        // A start that isn't finished has no state yet; it will have one, or be undone.
        if State::read(&folder)?.is_some_and(|state| state.is_alive() || !state.auto_remove) {
            return Ok(false);
        }
        if let Some(journal) = Journal::take_over(&folder.join("journal"))? {
            settle(roots, owner, &journal)?;
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(true)
}

/// The first error, told with how many others there are.
pub fn first_error(errors: Vec<anyhow::Error>) -> Result<()> {
    let more = errors.len().saturating_sub(1);
    match errors.into_iter().next() {
        None => Ok(()),
        Some(error) if more == 0 => Err(error),
        Some(error) => Err(error.context(format!("{} things could not be undone; the first", more + 1))),
    }
}

/// docker's short form of an id.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
