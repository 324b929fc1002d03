//! `events`: what has happened, and what happens, until told to stop.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use crate::cli::EventsArgs;
use crate::events::{self, Event};
use crate::format::events::{Filter, Printer};
use crate::request::logs;
use crate::roots::Roots;
use crate::view;

/// Prints events.
pub fn events(roots: &Roots, args: &EventsArgs) -> Result<u8> {
    let filter = Filter::parse(&args.filter).map_err(|why| anyhow!(why))?;
    let printer = Printer::new(args.format.as_deref())?;
    let now = view::now();
    let time = |flag: &str, text: &Option<String>| {
        let time = text.as_deref().map(|text| logs::time(flag, text, now.into())).transpose()?;
        anyhow::Ok(time.map(|time| u64::try_from(time).unwrap_or(0)))
    };
    let (since, until) = (time("--since", &args.since)?, time("--until", &args.until)?);
    // docker tells what is past only when a time was given.
    let since = since.unwrap_or(if until.is_some() { 0 } else { now });
    let print = |event: &Event| -> Result<bool> {
        if event.time < since || until.is_some_and(|until| event.time > until) || !filter.fits(event) {
            return Ok(true);
        }
        let mut out = io::stdout().lock();
        match out.write_all(printer.line(event)?.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            other => other.map(|()| true).context("cannot print"),
        }
    };
    let mut history = History::open(roots)?;
    loop {
        for event in history.read(roots) {
            if !print(&event)? {
                return Ok(0);
            }
        }
        let left = until.map(|until| until.saturating_sub(view::now()));
        if left == Some(0) {
            return Ok(0);
        }
        history.wait(left)?;
    }
}

/// The files of events, read on as they grow.
struct History {
    /// Wakes when something in the run folder is written or renamed.
    watch: OwnedFd,
    /// The file being read; `None` while there is none.
    file: Option<BufReader<File>>,
    /// A line whose end isn't there yet.
    part: Vec<u8>,
    /// The file before it has been read.
    began: bool,
}

impl History {
    fn open(roots: &Roots) -> Result<History> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .context("cannot watch for events (inotify_init1); see fs.inotify.max_user_instances")?;
        let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, &roots.run, flags)
            .with_context(|| format!("cannot watch {}", roots.run.display()))?;
        Ok(History { watch, file: None, part: vec![], began: false })
    }

    /// What has come since the last call.
    fn read(&mut self, roots: &Roots) -> Vec<Event> {
        let mut found = vec![];
        if !std::mem::replace(&mut self.began, true)
            && let Ok(former) = File::open(events::former_path(roots))
        {
            self.file = Some(BufReader::new(former));
        }
        loop {
            self.read_file(&mut found);
            // The file has been put aside when its name is another's: that is read from its beginning.
            let Ok(next) = File::open(events::path(roots)) else { return found };
            let inode = |file: &File| file.metadata().map(|data| data.ino()).ok();
            if self.file.as_ref().is_some_and(|file| inode(file.get_ref()) == inode(&next)) {
                return found;
            }
            // A writer may still have had the old one open.
            self.read_file(&mut found);
            self.part.clear();
            self.file = Some(BufReader::new(next));
        }
    }

    fn read_file(&mut self, found: &mut Vec<Event>) {
        let Some(file) = &mut self.file else { return };
        while file.read_until(b'\n', &mut self.part).is_ok_and(|length| length > 0) {
            if !self.part.ends_with(b"\n") {
                return;
            }
            found.extend(serde_json::from_slice(&self.part).ok());
            self.part.clear();
        }
    }

    /// Until something is written, or so many nanoseconds.
    fn wait(&self, limit: Option<u64>) -> Result<()> {
        let limit = limit.map(|left| Timespec {
            tv_sec: (left / 1_000_000_000).try_into().unwrap_or(i64::MAX),
            tv_nsec: (left % 1_000_000_000).try_into().unwrap_or(0),
        });
        match poll(&mut [PollFd::new(&self.watch, PollFlags::IN)], limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for events"),
        }
        // What woke us doesn't matter, only that it did.
        while rustix::io::read(&self.watch, &mut [0u8; 4096][..]).is_ok_and(|length| length > 0) {}
        Ok(())
    }
}
