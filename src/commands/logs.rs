//! `logs`: prints what a container wrote, from its json-file log or from systemd's journal.

mod journal;

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;

use crate::cli::LogsArgs;
use crate::containers;
use crate::journal::Journal;
use crate::log::Record;
use crate::log::read::Reader;
use crate::plan::paths::ContainerFolder;
use crate::request::LogDriver;
use crate::request::logs::{Nanoseconds, time};
use crate::roots::Roots;
use crate::state::{State, Status};
use crate::view;

/// A followed log is looked at this often even if nothing tells of a change.
const LOOK: Duration = Duration::from_millis(500);
/// Output is handed on in pieces of this size.
const PIECE: usize = 64 << 10;

/// Prints it: what went to stderr goes to stderr.
pub fn logs(roots: &Roots, args: &LogsArgs) -> Result<u8> {
    let now = jiff::Timestamp::now().as_nanosecond();
    let read = |flag: &str, text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        text.map(|text| time(flag, text, now)).transpose()
    };
    let window = Window { since: read("--since", &args.since)?, until: read("--until", &args.until)? };
    let state = containers::find(roots, &args.container)?;
    let request = view::request(&state)?;
    match request.log {
        LogDriver::JsonFile | LogDriver::Journald => {}
        LogDriver::None => bail!(
            "configured logging driver does not support reading: container {} was started with --log-driver none",
            args.container
        ),
    }
    let folder = roots.container(&state.id);
    let mut printer = Printer { args, stdout: vec![], stderr: vec![], damaged: 0 };
    if request.log == LogDriver::Journald {
        return journal::print((&state, &request), &folder, args, &window, &mut printer);
    }
    let path = ContainerFolder::new(&folder).log();
    // Before the log is read: no change after that is missed.
    let watch = args.follow.then(|| Watch::new(&folder));
    let mut reader = None;
    loop {
        // Asked before the read: what was written before its end is then read for sure.
        let goes_on = watch.is_some() && goes_on(&folder)? && !window.is_over();
        if reader.is_none() {
            reader = open(&path, args.tail.0)?;
        }
        if let Some(reader) = &mut reader {
            let more = print_all(reader, &window, &mut printer)?;
            if !more {
                return Ok(0);
            }
        }
        match &watch {
            Some(watch) if goes_on => watch.wait(window.left()),
            _ => return Ok(0),
        }
    }
}

/// None: nothing has been written yet.
fn open(path: &Path, tail: Option<usize>) -> Result<Option<Reader>> {
    let mut reader = match Reader::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("cannot open the log {}", path.display()))?,
    };
    if let Some(records) = tail {
        reader.tail(records).with_context(|| format!("cannot read the log {}", path.display()))?;
    }
    Ok(Some(reader))
}

/// Prints what is there; false when the wanted time is over.
fn print_all(reader: &mut Reader, window: &Window, printer: &mut Printer<'_>) -> Result<bool> {
    while let Some(record) = reader.next().context("cannot read the log")? {
        match window.place(&record) {
            Place::Before => {}
            Place::Inside => printer.print(&record)?,
            Place::After => {
                printer.flush()?;
                return Ok(false);
            }
        }
    }
    printer.flush()?;
    if reader.damaged > printer.damaged {
        eprintln!("minidock: warning: {} damaged lines of the log were skipped", reader.damaged - printer.damaged);
        printer.damaged = reader.damaged;
    }
    Ok(true)
}

/// Whether more may come: the program runs, or will again.
fn goes_on(folder: &Path) -> Result<bool> {
    let lives = |state: State| matches!(state.status, Status::Running | Status::Paused | Status::Restarting);
    Ok(State::read(folder)?.is_some_and(lives) && Journal::is_owned(&folder.join("journal")))
}

/// `--since` and `--until`.
struct Window {
    since: Option<Nanoseconds>,
    until: Option<Nanoseconds>,
}

enum Place {
    Before,
    Inside,
    After,
}

impl Window {
    fn place(&self, record: &Record) -> Place {
        if self.since.is_none() && self.until.is_none() {
            return Place::Inside;
        }
        let Ok(time) = record.time.parse::<jiff::Timestamp>().map(|time| time.as_nanosecond()) else {
            return Place::Inside;
        };
        if self.until.is_some_and(|until| time > until) {
            return Place::After;
        }
        if self.since.is_some_and(|since| time < since) { Place::Before } else { Place::Inside }
    }

    fn left(&self) -> Option<Duration> {
        let left = self.until? - jiff::Timestamp::now().as_nanosecond();
        Some(Duration::from_nanos(left.clamp(0, i128::from(u64::MAX)) as u64))
    }

    fn is_over(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }
}

/// Tells when something in the container's folder has changed.
struct Watch(Option<std::os::fd::OwnedFd>);

impl Watch {
    fn new(folder: &Path) -> Watch {
        // The kernel bounds the number of watches: without one, the log is looked at every now and then.
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let wanted = inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::DELETE;
        let watch = inotify::init(flags).ok();
        Watch(watch.filter(|watch| inotify::add_watch(watch, folder, wanted).is_ok()))
    }

    fn wait(&self, limit: Option<Duration>) {
        let limit = limit.map_or(LOOK, |limit| limit.min(LOOK));
        let Some(watch) = &self.0 else { return std::thread::sleep(limit.min(LOOK / 10)) };
        let start = Instant::now();
        let timeout = crate::monitor::relay::timespec(limit);
        let _ = poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&timeout));
        let mut events = [0u8; 4096];
        while rustix::io::read(watch, &mut events).is_ok_and(|count| count > 0) {}
        // A program that writes without a pause is read in larger pieces.
        std::thread::sleep(Duration::from_millis(5).saturating_sub(start.elapsed()));
    }
}

/// Collects output, so that a long log isn't printed line by line, and keeps the order of the two streams.
struct Printer<'a> {
    args: &'a LogsArgs,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    damaged: u64,
}

impl Printer<'_> {
    fn print(&mut self, record: &Record) -> Result<()> {
        let is_stderr = record.stream == "stderr";
        let other = if is_stderr { &self.stdout } else { &self.stderr };
        if !other.is_empty() || self.stdout.len() + self.stderr.len() > PIECE {
            self.flush()?;
        }
        let out = if is_stderr { &mut self.stderr } else { &mut self.stdout };
        if self.args.timestamps {
            out.extend_from_slice(full_time(&record.time).as_bytes());
            out.push(b' ');
        }
        if self.args.details {
            let pairs: Vec<String> =
                record.attrs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
            out.extend_from_slice(pairs.join(",").as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(record.log.as_bytes());
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
        let result = stdout.write_all(&self.stdout).and_then(|()| stdout.flush());
        let result = result.and_then(|()| stderr.write_all(&self.stderr));
        self.stdout.clear();
        self.stderr.clear();
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => crate::sys::exit_now(141),
            other => other.context("cannot print the log"),
        }
    }
}

/// Nine digits of a second's fraction, as docker prints them; its own files have fewer.
fn full_time(text: &str) -> String {
    text.parse::<jiff::Timestamp>().map_or_else(|_| text.to_string(), |time| format!("{time:.9}"))
}

/// As Go's url.QueryEscape.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            b' ' => "+".to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
