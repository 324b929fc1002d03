//! What happened, for `events`: an append-only file of JSON lines in the run directory, shared by all containers.
//!
//! Each line is one write(2) with O_APPEND, so writers need no lock. A file that has grown beyond a megabyte is renamed
//! away and a new one begins: at most two files are kept. An event that can't be written is lost, and nothing else.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::network::definition;
use crate::plan::volumes::Volume;
use crate::request::signal::Signal;
use crate::roots::Roots;
use crate::state::State;

/// The format that this program writes; lines of any other are read as far as they have the same fields.
const FORMAT: u32 = 1;
/// A file larger than this is put aside.
const MAX_BYTES: u64 = 1 << 20;
/// A single event larger than this (a container with huge labels) is written without its attributes.
const MAX_EVENT: usize = 64 << 10;

/// One event, in docker's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Format version of the line; 0: one of the first, without it.
    #[serde(default)]
    pub version: u32,
    /// Nanoseconds since 1970; 0: [`note`] fills it in.
    pub time: u64,
    /// `container`, `network`, `volume` or `image`
    pub kind: String,
    /// `start`, `die`, …
    pub action: String,
    /// Id of the container, network or image; name of the volume.
    pub id: String,
    /// docker's attributes: `name`, `image`, `exitCode`, labels.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// An event without attributes. docker's actions:
    ///
    /// - container: create start attach detach die kill stop pause unpause restart rename resize update destroy oom
    ///   `health_status: healthy` `exec_create: CMD` `exec_start: CMD` exec_detach exec_die archive-path extract-to-dir
    ///   export top prune
    /// - network: create connect disconnect destroy prune
    /// - volume: create mount unmount destroy prune
    /// - image: load import tag untag delete save prune
    pub fn new(kind: &str, action: &str, id: &str) -> Event {
        Event {
            version: FORMAT,
            time: 0,
            kind: kind.to_owned(),
            action: action.to_owned(),
            id: id.to_owned(),
            attributes: BTreeMap::new(),
        }
    }

    /// An event of a container, with docker's attributes: its labels, its image, its name.
    pub fn container(action: &str, state: &State) -> Event {
        let mut event = Event::new("container", action, &state.id);
        event.attributes = state.config.labels.clone();
        event.with("image", &state.image).with("name", &state.name)
    }

    /// One more attribute.
    pub fn with(mut self, key: &str, value: impl ToString) -> Event {
        self.attributes.insert(key.to_owned(), value.to_string());
        self
    }

    /// `die`, with how it ended and how long it ran.
    pub fn died(state: &State, exit_code: i32) -> Event {
        let seconds = crate::view::nanoseconds(&state.started)
            .map_or(0, |started| crate::view::now().saturating_sub(started) / 1_000_000_000);
        Event::container("die", state).with("execDuration", seconds).with("exitCode", exit_code)
    }

    /// `connect` or `disconnect` of a container's network.
    pub fn network(roots: &Roots, action: &str, state: &State, network: (&str, &str)) -> Event {
        let (id, name) = network;
        // The default one has no file, and its id stands in no attachment.
        let fixed = || definition::fixed_id(&roots.root, name);
        let id = if id.is_empty() { fixed() } else { id.to_owned() };
        let driver = match definition::read(roots, name) {
            Ok(Some(definition)) => definition.driver.name(),
            _ => "bridge",
        };
        Event::new("network", action, &id).with("container", &state.id).with("name", name).with("type", driver)
    }

    /// `create` or `destroy` of a volume.
    pub fn volume(action: &str, name: &str) -> Event {
        Event::new("volume", action, name).with("driver", crate::volume::DRIVER)
    }

    /// `kill`, with the signal's number.
    pub fn killed(state: &State, signal: Signal) -> Event {
        Event::container("kill", state).with("signal", signal.0)
    }
}

/// The volumes that came into being with a container.
pub fn of_creation(state: &State) -> Vec<Event> {
    let new = state.volumes.iter().filter(|volume| volume.new && !volume.name.is_empty());
    new.map(|volume| Event::volume("create", &volume.name)).collect()
}

/// What a run begins with, beside the program: volumes, then networks.
pub fn of_start(roots: &Roots, state: &State) -> Vec<Event> {
    let mount = |volume: &Volume| {
        Event::volume("mount", &volume.name)
            .with("container", &state.id)
            .with("destination", volume.target.display())
            .with("propagation", "")
            .with("read/write", !volume.read_only)
    };
    let mut events: Vec<Event> = named(state).map(mount).collect();
    events.extend(networks(roots, "connect", state));
    events
}

/// What ends with a run.
pub fn of_end(roots: &Roots, state: &State) -> Vec<Event> {
    let mut events: Vec<Event> = networks(roots, "disconnect", state).collect();
    events.extend(named(state).map(|volume| Event::volume("unmount", &volume.name).with("container", &state.id)));
    events
}

fn named(state: &State) -> impl Iterator<Item = &Volume> {
    state.volumes.iter().filter(|volume| !volume.name.is_empty())
}

fn networks<'a>(roots: &'a Roots, action: &'a str, state: &'a State) -> impl Iterator<Item = Event> + 'a {
    let networks = state.attachments.iter().map(|one| (one.network_id.as_str(), one.network.as_str()));
    networks.map(move |network| Event::network(roots, action, state, network))
}

/// The file that is written now.
pub fn path(roots: &Roots) -> PathBuf {
    roots.run.join("events.jsonl")
}

/// The one before it.
pub fn former_path(roots: &Roots) -> PathBuf {
    roots.run.join("events.1.jsonl")
}

/// Writes an event down. Never fails a command, and never waits: one open, one write, one close.
pub fn note(roots: &Roots, event: Event) {
    note_all(roots, [event]);
}

/// Writes several down by one write.
pub fn note_all(roots: &Roots, events: impl IntoIterator<Item = Event>) {
    let mut text = Vec::new();
    for mut event in events {
        if event.time == 0 {
            event.time = crate::view::now();
        }
        let before = text.len();
        if serde_json::to_writer(&mut text, &event).is_err() || text.len() - before > MAX_EVENT {
            text.truncate(before);
            event.attributes.retain(|key, value| key.len() + value.len() < 512);
            let few: BTreeMap<_, _> = std::mem::take(&mut event.attributes).into_iter().take(32).collect();
            event.attributes = few;
            let _ = serde_json::to_writer(&mut text, &event);
        }
        text.push(b'\n');
    }
    let path = path(roots);
    let open = || OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let Ok(mut file) = open() else { return };
    if is_full(&file) {
        rotate(roots, &file);
        match open() {
            Ok(new) => file = new,
            Err(_) => return,
        }
    }
    let _ = file.write_all(&text);
}

fn is_full(file: &File) -> bool {
    file.metadata().is_ok_and(|data| data.len() > MAX_BYTES)
}

/// Puts the full file aside. Two writers may meet here: the one that comes later sees that the name is another file's by
/// then. Between its look and its rename a third could have filled a new file only by writing a megabyte.
fn rotate(roots: &Roots, full: &File) {
    let path = path(roots);
    let same = |data: std::fs::Metadata| full.metadata().is_ok_and(|ours| ours.ino() == data.ino());
    if std::fs::metadata(&path).is_ok_and(same) {
        let _ = std::fs::rename(&path, former_path(roots));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> Roots {
        let root = std::env::temp_dir().join(format!("minidock-events-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("run")).unwrap();
        Roots { run: root.join("run"), root }
    }

    fn lines(path: &std::path::Path) -> Vec<Event> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn events_are_lines_in_their_order() {
        let roots = scratch("order");
        note(&roots, Event::new("volume", "create", "v").with("driver", "local"));
        note_all(&roots, [Event::new("container", "start", "c"), Event::new("container", "die", "c")]);
        let events = lines(&path(&roots));
        assert_eq!(events.iter().map(|event| event.action.as_str()).collect::<Vec<_>>(), ["create", "start", "die"]);
        assert_eq!(events[0].attributes["driver"], "local");
        assert!(events[0].time > 0 && events[0].time <= events[2].time);
        std::fs::remove_dir_all(&roots.root).unwrap();
    }

    #[test]
    fn the_file_stays_small_and_no_folder_is_no_error() {
        let roots = scratch("size");
        let long = Event::new("container", "start", "c").with("label", "x".repeat(20_000));
        for _ in 0..200 {
            note(&roots, long.clone());
        }
        for path in [path(&roots), former_path(&roots)] {
            let length = std::fs::metadata(&path).unwrap().len();
            assert!(length > 0 && length < MAX_BYTES + 30_000, "{length}");
            assert!(!lines(&path).is_empty());
        }
        note(&roots, Event::new("container", "huge", "c").with("label", "x".repeat(2 << 20)).with("name", "web"));
        let last = lines(&path(&roots)).pop().unwrap();
        assert_eq!((last.action.as_str(), last.attributes.len()), ("huge", 1));
        std::fs::remove_dir_all(&roots.root).unwrap();
        note(&roots, long);
    }

    #[test]
    fn many_writers_lose_nothing() {
        let roots = scratch("many");
        std::thread::scope(|scope| {
            for nth in 0..4 {
                let roots = &roots;
                scope.spawn(move || {
                    (0..100).for_each(|n| note(roots, Event::new("container", "x", &format!("{nth}-{n}"))))
                });
            }
        });
        assert_eq!(lines(&path(&roots)).len(), 400);
        std::fs::remove_dir_all(&roots.root).unwrap();
    }
}
