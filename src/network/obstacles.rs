//! Rules of others that drop a network's traffic and came after the network was made. Monitors notice them: one of those of
//! a network looks, writes down what it has found, and tells it as an event; `network ls` and `inspect` warn.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use netsetup::{Host, PublishMode};
use rustix::fs::{FlockOperation, flock};

use super::catalog;
use super::options::Driver;
use crate::commands::Engine;
use crate::events::{self, Event};
use crate::roots::Roots;
use crate::state::State;

/// The file in the network's run folder: what was found last, a line each. Its time is that of the last look, its lock
/// the looker's.
pub const FILE: &str = "obstacles";
/// A monitor looks at least this long after the change that it was told of ([`netsetup::Watch`]): a look within this time
/// has seen that change.
const FRESH: Duration = Duration::from_millis(140);
const MAX_BYTES: u64 = 64 << 10;

fn path(roots: &Roots, network: &str) -> PathBuf {
    roots.network(network).join(FILE)
}

/// Looks at what is in the way of a container's networks, unless another monitor does or has just done so, and tells what
/// is new. Costs a reading of all rules.
pub fn look(engine: &Engine, state: &State, host: &mut Host) {
    for one in &state.attachments {
        let proxied: Vec<_> = one.ports.iter().filter(|port| port.mode == PublishMode::Proxy).copied().collect();
        let _ = look_at(engine, &one.network, &one.network_id, &proxied, host); // the next change leads here again
    }
}

fn look_at(engine: &Engine, name: &str, id: &str, proxied: &[netsetup::PortMapping], host: &mut Host) -> Result<()> {
    let definition = catalog::find(engine, name)?;
    if definition.driver != Driver::Bridge {
        return Ok(());
    }
    let path = path(&engine.roots, name);
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    // What this container's own proxies serve nobody else looks at.
    let age = file.metadata()?.modified()?.elapsed().unwrap_or_default();
    let before = lines(&mut file)?;
    if age < FRESH && !before.is_empty() && proxied.is_empty() {
        return Ok(());
    }
    let network = catalog::for_the_kernel(engine, &definition)?;
    let mut found = netsetup::obstacles(host, &network);
    found.extend(netsetup::input_obstacles(host, proxied));
    let now: Vec<String> = found.iter().map(|one| one.to_string().replace('\n', " ")).collect();
    for new in now.iter().filter(|one| !before.contains(one)) {
        let id = if id.is_empty() { definition.id.as_str() } else { id };
        let event = Event::new("network", "obstacle", id).with("name", name).with("type", "bridge").with("what", new);
        events::note(&engine.roots, event);
    }
    // Also when nothing is new: its time says that somebody has looked.
    file.rewind()?;
    file.set_len(0)?;
    let text: String = now.iter().map(|line| format!("{line}\n")).collect();
    Ok(file.write_all(if text.is_empty() { b"\n" } else { text.as_bytes() })?)
}

fn lines(file: &mut File) -> Result<Vec<String>> {
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Whether a monitor has found something in the way of a network.
pub fn any_noted(roots: &Roots, network: &str) -> bool {
    File::open(path(roots, network))
        .ok()
        .and_then(|mut file| lines(&mut file).ok())
        .is_some_and(|lines| lines.iter().any(|line| !line.is_empty()))
}
