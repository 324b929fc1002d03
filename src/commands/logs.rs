//! `logs`: prints what a container wrote, from its json-file log.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cli::LogsArgs;
use crate::containers;
use crate::journal::Journal;
use crate::log::Record;
use crate::request::logs::{Nanoseconds, time};
use crate::roots::Roots;
use crate::state::{State, Status};

/// How often a followed log is looked at.
const FOLLOW: Duration = Duration::from_millis(50);

/// Prints it: what went to stderr goes to stderr.
pub fn logs(roots: &Roots, args: &LogsArgs) -> Result<u8> {
    let state = containers::find(roots, &args.container)?;
    let folder = roots.container(&state.id);
    let path = folder.join("container.log");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("container {} keeps no log: it was started with --log-driver none", args.container)
        }
        Err(error) => return Err(error).with_context(|| format!("cannot open the log {}", path.display())),
    };
    let now = jiff::Timestamp::now().as_nanosecond();
    let window = Window {
        since: args.since.as_deref().map(|text| time("--since", text, now)).transpose()?,
        until: args.until.as_deref().map(|text| time("--until", text, now)).transpose()?,
    };
    let mut lines = Lines { reader: BufReader::new(file), cut: Vec::new() };
    let mut tail = VecDeque::new();
    while let Some(record) = lines.next(&path)? {
        if !window.holds(&record) {
            continue;
        }
        tail.push_back(record);
        match args.tail.0 {
            None => print_all(&mut tail, args.timestamps)?,
            Some(wanted) if tail.len() > wanted => drop(tail.pop_front()),
            Some(_) => {}
        }
    }
    print_all(&mut tail, args.timestamps)?;
    if args.follow {
        follow(&folder, &path, lines, &window, args.timestamps)?;
    }
    Ok(0)
}

fn follow(folder: &Path, path: &Path, mut lines: Lines, window: &Window, timestamps: bool) -> Result<()> {
    loop {
        // Asked before the read: what was written before its end is then read for sure.
        let alive = State::read(folder)?.is_some_and(|state| state.status == Status::Running)
            && Journal::is_owned(&folder.join("journal"));
        while let Some(record) = lines.next(path)? {
            if window.holds(&record) {
                print_all(&mut VecDeque::from([record]), timestamps)?;
            }
        }
        if !alive {
            return Ok(());
        }
        std::thread::sleep(FOLLOW);
    }
}

struct Lines {
    reader: BufReader<File>,
    /// A last line that isn't finished yet.
    cut: Vec<u8>,
}

impl Lines {
    fn next(&mut self, path: &Path) -> Result<Option<Record>> {
        self.reader.read_until(b'\n', &mut self.cut).with_context(|| format!("cannot read {}", path.display()))?;
        if self.cut.last() != Some(&b'\n') {
            return Ok(None);
        }
        let record =
            serde_json::from_slice(&self.cut).with_context(|| format!("the log {} is damaged", path.display()));
        self.cut.clear();
        record.map(Some)
    }
}

struct Window {
    since: Option<Nanoseconds>,
    until: Option<Nanoseconds>,
}

impl Window {
    fn holds(&self, record: &Record) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let Ok(time) = record.time.parse::<jiff::Timestamp>().map(|time| time.as_nanosecond()) else { return true };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }
}

fn print_all(records: &mut VecDeque<Record>, timestamps: bool) -> Result<()> {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    for record in records.drain(..) {
        let time = if timestamps { format!("{} ", record.time) } else { String::new() };
        let out: &mut dyn Write = if record.stream == "stderr" { &mut stderr } else { &mut stdout };
        let result = out.write_all(time.as_bytes()).and_then(|()| out.write_all(record.log.as_bytes()));
        match result.and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => crate::sys::exit_now(141),
            other => other.context("cannot print the log")?,
        }
    }
    Ok(())
}
