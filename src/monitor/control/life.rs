//! What changes a container's life while its monitor has it: stop, restart, pause, rename.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use netsetup::{Host, Live};
use serde_json::Value;

use super::Served;
use crate::events::{self, Event};
use crate::files;
use crate::journal::Journal;
use crate::monitor::cleaner::Cleaner;
use crate::name_register;
use crate::op::{self, Op};
use crate::recover;
use crate::reservation;
use crate::residue::Residue;
use crate::state::Status;

/// It is stopped: no restart policy may start it again. By the user, or, with `{"shutdown": true}`, because the machine
/// goes down: then the next boot may.
pub fn stopping(served: &mut Served, body: &Value) -> Result<Value> {
    if body.get("shutdown").and_then(Value::as_bool) == Some(true) {
        (served.shutting_down, served.restart_now) = (Some(Instant::now()), false);
        return Ok(Value::Null);
    }
    if !served.state.stopped_by_hand {
        served.state.stopped_by_hand = true;
        served.restart_now = false;
        write(served)?;
    }
    Ok(Value::Null)
}

/// The user restarts this run of it (`{"pid": 42}`): after its end it's started again at once, whatever its policy says.
/// Another run by now is what was wanted already.
pub fn restart(served: &mut Served, body: &Value) -> Result<Value> {
    let meant = body.get("pid").and_then(Value::as_u64);
    if meant == served.state.process.map(|process| u64::from(process.pid)) {
        served.restart_now = true;
        served.state.stopped_by_hand = false;
    }
    Ok(Value::Null)
}

/// Freezes its processes.
pub fn pause(served: &mut Served) -> Result<Value> {
    match served.state.status {
        Status::Paused => bail!("Container {} is already paused", served.state.id),
        Status::Restarting => bail!("Container {} is restarting, wait until the container is running", served.state.id),
        _ => {}
    }
    freeze(served, true)?;
    served.state.status = Status::Paused;
    write(served)?;
    note(served, "pause");
    Ok(Value::Null)
}

/// Lets them go on.
pub fn unpause(served: &mut Served) -> Result<Value> {
    if served.state.status != Status::Paused {
        bail!("Container {} is not paused", served.state.id);
    }
    freeze(served, false)?;
    served.state.status = Status::Running;
    write(served)?;
    note(served, "unpause");
    Ok(Value::Null)
}

fn freeze(served: &Served, frozen: bool) -> Result<()> {
    let entries = served.journal.contents()?.entries;
    let group = recover::freezer(&entries).ok_or_else(|| {
        anyhow!("this host can't freeze processes: it has neither cgroup2 nor v1's freezer; mount cgroup2")
    })?;
    runtime::cgroup::freeze(group, frozen).context("cannot freeze the container's processes")
}

/// `{"name": "new"}`
pub fn rename(served: &mut Served, body: &Value) -> Result<Value> {
    let Some(new) = body.get("name").and_then(Value::as_str) else { bail!("no name was given") };
    let (roots, id) = (served.order.engine.roots.clone(), served.state.id.clone());
    let old = std::mem::replace(&mut served.state.name, new.to_string());
    let done = take_name(served, &old, new);
    if done.is_err() {
        served.state.name = old;
        return done.map(|()| Value::Null);
    }
    write(served)?;
    files::remove_name(&roots, &old, &id)?;
    name_register::rename(&served.journal.contents()?.entries, new)?;
    let event = Event::container("rename", &served.state).with("oldName", format!("/{old}"));
    events::note(&roots, event);
    Ok(Value::Null)
}

/// Journal, name and the name of the network namespace. The journal begins with what outlives this run, so that it is
/// written anew; its new lock needs a new cleaner too.
fn take_name(served: &mut Served, old: &str, new: &str) -> Result<()> {
    let (roots, id) = (&served.order.engine.roots, &served.state.id);
    let contents = served.journal.contents()?;
    let journal = served.journal.successor(&reservation::with_name(&contents.entries, new, id))?;
    let cleaner = Cleaner::fork(roots, id, &journal)?;
    journal.take_place()?;
    served.journal = journal;
    if let Some(former) = served.cleaner.replace(cleaner) {
        former.dismiss();
    }
    reservation::take_free_name(roots, new, id)?;
    rename_netns(&served.journal, &contents.entries, old, new)
}

fn rename_netns(journal: &Journal, entries: &[Residue], old: &str, new: &str) -> Result<()> {
    // Once: a name that it had before is in the journal twice.
    let found = entries.iter().rev().find_map(|entry| match entry {
        Residue::Net(residue @ netsetup::Residue::NetnsName { name, pid }) if name == old => Some((residue, *pid)),
        _ => None,
    });
    let Some((residue, pid)) = found else { return Ok(()) };
    let op = Op::Net(netsetup::Op::Netns(netsetup::netns::Op::Name { name: new.to_string() }));
    let mut host = Host::open()?;
    journal.record(&op.residue(Some(pid)).into_iter().collect::<Vec<_>>())?;
    op::apply(&[op], &mut Live { host: &mut host, netns: None, init_pid: Some(pid) })?;
    for result in netsetup::undo(std::slice::from_ref(residue), &mut host) {
        result?;
    }
    journal.strike(|_, entry| matches!(entry, Residue::Net(other) if other == residue))
}

fn write(served: &Served) -> Result<()> {
    served.state.write(&served.order.engine.roots)
}

fn note(served: &Served, action: &str) {
    events::note(&served.order.engine.roots, Event::container(action, &served.state));
}
