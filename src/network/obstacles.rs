//! Rules of others that drop a network's traffic and came after the network was made. Monitors notice them: one of those of
//! a network looks for all of its containers, at most each few seconds, writes down what it has found, and tells it as an
//! event; `network ls` and `inspect` warn.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use netsetup::{Host, Others, PortMapping, PublishMode};
use rustix::fs::{FlockOperation, flock};

use super::catalog;
use super::options::Driver;
use crate::commands::Engine;
use crate::containers;
use crate::events::{self, Event};
use crate::roots::Roots;
use crate::state::{Attachment, State};

/// The file in the network's run folder: what was found last, a line each. Its time is that of the last look, its lock
/// the looker's.
pub const FILE: &str = "obstacles";
/// From one look at a network to the next: all rules of the host are read for it.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);
/// Until it is seen what another monitor has found that looks at this moment.
const WHILE_BUSY: Duration = Duration::from_millis(300);
/// A monitor doesn't read more rules than these: hosts of a Kubernetes cluster have tens of thousands.
const MOST_RULES: usize = 4096;
const MAX_BYTES: usize = 64 << 10;
const MAX_LINE: usize = 2 << 10;
const NOT_JUDGED: &str = "not judged: too many foreign rules";

/// When a monitor looks next.
#[derive(Debug, Default)]
pub struct Looks {
    /// The last change of the firewall that nobody is known to have looked at, and when to see to it.
    due: Option<(SystemTime, Instant)>,
}

impl Looks {
    /// The firewall has changed, at the latest at this time.
    pub fn changed(&mut self, at: Instant) {
        let change = SystemTime::now() - at.elapsed();
        // A look that is due already stays due then, but must have seen this change, too.
        self.due = Some((change, self.due.map_or(at, |(_, due)| due)));
    }

    /// How long until [`Looks::look`] has something to do.
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        self.due.map(|(_, due)| due.saturating_duration_since(now))
    }

    /// When it's due, looks at what is in the way of a container's networks, unless another monitor has seen the change,
    /// and tells what is new.
    pub fn look(&mut self, engine: &Engine, state: &State, now: Instant) {
        let Some((change, _)) = self.due.filter(|(_, due)| *due <= now) else { return };
        self.due = None;
        let Ok(mut host) = Host::open() else { return };
        let mut look = Look { engine, state, change, host: &mut host, others: None };
        // An error is no matter: the next change leads here again.
        let later = state.attachments.iter().filter_map(|one| look.at(one).ok().flatten()).min();
        self.due = later.map(|wait| (change, Instant::now() + wait));
    }
}

/// One monitor's look at all networks of its container.
struct Look<'a> {
    engine: &'a Engine,
    state: &'a State,
    change: SystemTime,
    host: &'a mut Host,
    /// Read when the first network needs them; none when there are too many.
    others: Option<Option<Others>>,
}

impl Look<'_> {
    /// How long to wait where it is too early.
    fn at(&mut self, one: &Attachment) -> Result<Option<Duration>> {
        let definition = catalog::find(self.engine, &one.network)?;
        if definition.driver != Driver::Bridge {
            return Ok(None);
        }
        let roots = &self.engine.roots;
        let path = path(roots, &one.network);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(Some(WHILE_BUSY));
        }
        let before = lines(&mut file)?;
        let last = file.metadata()?.modified()?;
        // A time in the future is from before the clock was set.
        if let Ok(age) = last.elapsed()
            && !before.is_empty()
        {
            if last >= self.change {
                return Ok(None);
            }
            if age < BETWEEN_LOOKS {
                return Ok(Some(BETWEEN_LOOKS - age));
            }
        }
        let began = SystemTime::now();
        let others = match &mut self.others {
            Some(others) => others,
            none => none.insert(Others::read(self.host, Some(MOST_RULES))),
        };
        let now = match others {
            Some(others) => {
                let mut found = others.obstacles(&catalog::for_the_kernel(self.engine, &definition)?);
                found.extend(others.input_obstacles(&proxied(roots, self.state, &one.network)));
                bounded(found.iter().map(ToString::to_string))
            }
            None => vec![format!("{NOT_JUDGED}; minidock network inspect {} reads them all", one.network)],
        };
        for new in now.iter().filter(|one| !before.contains(one)) {
            let id = if one.network_id.is_empty() { &definition.id } else { &one.network_id };
            let event = Event::new("network", "obstacle", id).with("name", &one.network).with("type", "bridge");
            events::note(roots, event.with("what", new));
        }
        // Also when nothing is new: its time says that somebody has looked. Never empty for those who read meanwhile.
        let text = if now.is_empty() { "\n".to_owned() } else { now.join("\n") + "\n" };
        file.rewind()?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        Ok(file.set_modified(began).map(|()| None)?)
    }
}

/// The ports of all running containers of a network that the proxy serves because the user has asked for it.
fn proxied(roots: &Roots, own: &State, network: &str) -> Vec<PortMapping> {
    // Not `containers::all`, which waits for those that end.
    let others = containers::ids(roots).into_iter().filter(|id| *id != own.id);
    let others = others.filter_map(|id| State::read(&roots.container(&id)).ok().flatten()).filter(State::is_alive);
    let mut ports: Vec<PortMapping> = Vec::new();
    for state in others.chain([own.clone()]) {
        let here = state.attachments.iter().filter(|one| one.network == network);
        ports.extend(here.flat_map(|one| &one.ports).filter(|port| is_asked(port)));
    }
    ports.sort_unstable_by_key(|port| (port.host_port, port.host_address));
    ports
}

/// Whether the user has asked for a proxy: those that come along with DNAT, for IPv6, are no reason to read all rules.
pub fn is_asked(port: &PortMapping) -> bool {
    port.mode == PublishMode::Proxy && port.host_address.is_ipv4()
}

/// As much of it as is written down, a line each.
fn bounded(found: impl Iterator<Item = String>) -> Vec<String> {
    let mut left = MAX_BYTES;
    found
        .map(|text| {
            let end = text.floor_char_boundary(MAX_LINE.min(text.len()));
            text[..end].replace('\n', " ")
        })
        .take_while(|line| {
            let fits = line.len() < left;
            left = left.saturating_sub(line.len() + 1);
            fits
        })
        .collect()
}

fn path(roots: &Roots, network: &str) -> PathBuf {
    roots.network(network).join(FILE)
}

fn lines(file: &mut File) -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
}

/// What a monitor has noted of a network.
#[derive(Debug, PartialEq, Eq)]
pub enum Noted {
    /// Nothing is in its way.
    Nothing,
    /// Something was in its way at the last look.
    Something,
    /// There were too many rules to read, in these words.
    NotJudged(String),
}

/// What a monitor has noted of a network.
pub fn noted(roots: &Roots, network: &str) -> Noted {
    let lines = File::open(path(roots, network)).ok().and_then(|mut file| lines(&mut file).ok()).unwrap_or_default();
    match lines.into_iter().find(|line| !line.is_empty()) {
        None => Noted::Nothing,
        Some(line) if line.starts_with(NOT_JUDGED) => Noted::NotJudged(line),
        Some(_) => Noted::Something,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_has_a_bound() {
        let many = bounded((0..100_000).map(|number| format!("another firewall: {number}\nä")));
        let bytes: usize = many.iter().map(|line| line.len() + 1).sum();
        assert!((MAX_BYTES - 100..=MAX_BYTES).contains(&bytes), "{bytes}");
        assert!(many.iter().all(|line| !line.contains('\n')));
        let long = bounded([format!("a{}", "ä".repeat(MAX_BYTES))].into_iter());
        assert!((MAX_LINE - 1..=MAX_LINE).contains(&long[0].len()), "{}", long[0].len());
    }
}
