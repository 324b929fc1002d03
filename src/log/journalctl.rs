//! Reading a log back from systemd's journal through its own program, `journalctl`, as a person would: the journal's
//! files have a format of their own that only systemd knows well. One process a `logs`, none else.

use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command as Program, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;

use super::{Record, Source};
use crate::request::log_options::LogOptions;

/// An entry of ours is some 16 KiB of text; bytes that aren't text come as a list of numbers.
const LONGEST_ENTRY: usize = 1 << 20;
const CHUNK: usize = 64 << 10;

/// Which entries are wanted; times in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Not before.
    pub since: Option<i128>,
    /// Not after.
    pub until: Option<i128>,
    /// So many at the end; `None`: all.
    pub tail: Option<usize>,
    /// What comes later, too.
    pub follow: bool,
}

/// What [`Reader::next`] has found.
#[derive(Debug)]
pub enum Next {
    /// An entry.
    Entry(Box<Record>),
    /// None in the given time.
    Nothing,
    /// The program has ended.
    End,
}

/// A running `journalctl`; it's ended with this.
pub struct Reader {
    child: Child,
    stdout: ChildStdout,
    buffer: Vec<u8>,
    /// The rest of an entry that is too long is on its way.
    skipping: bool,
    /// Of the last entry.
    time: String,
    attributes: Vec<(String, String)>,
}

impl Reader {
    /// Starts it.
    ///
    /// # Errors
    /// It isn't installed.
    pub fn open(source: &Source<'_>, options: &LogOptions, wanted: Wanted) -> Result<Reader> {
        // What the journal has been sent is in it then. An older systemd has no such switch: then it comes a moment later.
        let quiet = || Stdio::null();
        let sync = Program::new("journalctl").arg("--sync").stdin(quiet()).stdout(quiet()).stderr(quiet()).status();
        let started = sync.and_then(|_| {
            let mut program = Program::new("journalctl");
            program.args(words(source.id, wanted)).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
        });
        let mut child = match started {
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "the container logs to journald, which is read by journalctl, and that isn't installed here; where it is, \
                 'journalctl CONTAINER_NAME={}' prints the log",
                source.name
            ),
            other => other.context("cannot run journalctl")?,
        };
        let stdout = child.stdout.take().context("journalctl has no output")?;
        Ok(Reader {
            child,
            stdout,
            buffer: Vec::new(),
            skipping: false,
            time: super::now(),
            attributes: source.attributes(options),
        })
    }

    /// The next entry, waited for so long (none: for ever).
    ///
    /// # Errors
    /// The program failed (its reason is on stderr), or what it writes makes no sense.
    pub fn next(&mut self, limit: Option<Duration>) -> Result<Next> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let record = if std::mem::take(&mut self.skipping) { self.left_out() } else { self.record(&line)? };
                self.time.clone_from(&record.time);
                return Ok(Next::Entry(Box::new(record)));
            }
            if self.buffer.len() > LONGEST_ENTRY {
                self.skipping = true;
            }
            if self.skipping {
                self.buffer.clear();
            }
            let timeout = limit.map(crate::monitor::relay::timespec);
            match poll(&mut [PollFd::new(&self.stdout, PollFlags::IN)], timeout.as_ref()) {
                Ok(0) => return Ok(Next::Nothing),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for journalctl"),
            }
            let mut chunk = vec![0; CHUNK];
            let count = self.stdout.read(&mut chunk).context("cannot read from journalctl")?;
            if count == 0 {
                let status = self.child.wait().context("cannot wait for journalctl")?;
                return if status.success() { Ok(Next::End) } else { bail!("journalctl failed ({status})") };
            }
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }

    /// What stands in the place of an entry that no monitor of ours has written: anybody may write into the journal.
    fn left_out(&self) -> Record {
        Record {
            log: format!("minidock: an entry of more than {LONGEST_ENTRY} bytes is left out here\n"),
            stream: super::STREAMS[1].to_owned(),
            attrs: self.attributes.iter().cloned().collect(),
            time: self.time.clone(),
        }
    }

    fn record(&self, line: &[u8]) -> Result<Record> {
        let entry: Value = serde_json::from_slice(line).context("journalctl wrote what is no JSON")?;
        let field = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let mut log = match entry.get("MESSAGE") {
            Some(Value::Array(bytes)) => {
                let bytes: Vec<u8> = bytes.iter().filter_map(|byte| byte.as_u64()?.try_into().ok()).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            _ => field("MESSAGE").to_owned(),
        };
        if field("CONTAINER_PARTIAL_MESSAGE") != "true" {
            log.push('\n');
        }
        let time =
            field("__REALTIME_TIMESTAMP").parse().ok().and_then(|time| jiff::Timestamp::from_microsecond(time).ok());
        Ok(Record {
            log,
            stream: super::STREAMS[usize::from(field("PRIORITY") == "3")].to_owned(),
            attrs: self.attributes.iter().cloned().collect(),
            time: time.unwrap_or_default().to_string(),
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have ended, and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn words(id: &str, wanted: Wanted) -> Vec<String> {
    let time = |time: i128| format!("@{}.{:06}", time.div_euclid(1_000_000_000), time.rem_euclid(1_000_000_000) / 1000);
    let mut words: Vec<String> = ["--quiet", "--no-pager", "--all", "--output=json"].map(str::to_owned).to_vec();
    words.push("--output-fields=MESSAGE,PRIORITY,CONTAINER_PARTIAL_MESSAGE".to_owned());
    words.push(format!("--lines={}", wanted.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string())));
    words.extend(wanted.since.map(|since| format!("--since={}", time(since))));
    words.extend(wanted.until.map(|until| format!("--until={}", time(until))));
    words.extend(wanted.follow.then(|| "--follow".to_owned()));
    words.push(format!("CONTAINER_ID_FULL={id}"));
    // journald itself adds this field: what a user of the host, or of a container, sends in our name is not ours.
    words.push("_UID=0".to_owned());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_told_in_journalctls_words() {
        let wanted = Wanted { since: Some(1_500_000_000_250_000_000), until: None, tail: Some(3), follow: true };
        let words = words("c0ffee", wanted).join(" ");
        assert!(
            words.ends_with("--lines=3 --since=@1500000000.250000 --follow CONTAINER_ID_FULL=c0ffee _UID=0"),
            "{words}"
        );
    }
}
