//! What becomes of a program's output: docker's json-file, journald, or nothing.
//!
//! Whatever happens to the log (a full disk, a journal that doesn't read), the container goes on and its exit status is
//! kept: what can't be written is dropped, and the next record that fits says how many bytes are missing.

pub mod journalctl;
mod journald;
pub mod json_file;
pub mod read;

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::request::LogDriver;
use crate::request::log_options::LogOptions;
use journald::Journald;
use json_file::JsonFile;

/// docker cuts longer lines into parts of this size; a part has no newline at its end.
const MAX_LINE: usize = 16 << 10;
/// docker's names of the two streams.
const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// One line of a json-file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The text, with its newline.
    pub log: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// `--log-opt labels` and `env`: for `logs --details`.
    #[serde(default)]
    pub attrs: std::collections::BTreeMap<String, String>,
    /// RFC 3339 with nanoseconds.
    pub time: String,
}

/// Whose log it is, for what goes into each record.
pub struct Source<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its image, as named.
    pub image: &'a str,
    /// Its labels.
    pub labels: &'a std::collections::BTreeMap<String, String>,
    /// Its environment, `NAME=VALUE`.
    pub env: &'a [String],
}

impl Source<'_> {
    /// The labels and variables that the options name.
    fn attributes(&self, options: &LogOptions) -> Vec<(String, String)> {
        let labels = options.labels.iter().filter_map(|name| Some((name.clone(), self.labels.get(name)?.clone())));
        let variable = |name: &String| self.env.iter().find_map(|one| one.strip_prefix(name)?.strip_prefix('='));
        let env = options.env.iter().filter_map(|name| Some((name.clone(), variable(name)?.to_string())));
        let mut all: Vec<(String, String)> = labels.chain(env).collect();
        all.sort();
        all.dedup_by(|a, b| a.0 == b.0);
        all
    }
}

/// The writer: one a container, in its monitor.
pub struct Writer {
    pending: [Vec<u8>; 2],
    sink: Sink,
}

enum Sink {
    JsonFile(JsonFile),
    Journald(Journald),
}

impl Writer {
    /// Begins or continues the log at `path`; `None` for `--log-driver none`.
    ///
    /// # Errors
    /// The file can't be made; there is no journal.
    pub fn open(driver: LogDriver, options: &LogOptions, path: &Path, source: &Source<'_>) -> Result<Option<Writer>> {
        let sink = match driver {
            LogDriver::None => return Ok(None),
            LogDriver::JsonFile => Sink::JsonFile(JsonFile::open(path, options, &source.attributes(options))?),
            LogDriver::Journald => Sink::Journald(Journald::open(source, options)?),
        };
        Ok(Some(Writer { pending: [vec![], vec![]], sink }))
    }

    /// Takes bytes of standard output (`stream` 0) or standard error (1), and writes the whole lines among them.
    pub fn write(&mut self, stream: usize, bytes: &[u8]) {
        let time = now();
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = MAX_LINE - self.pending[stream].len();
            let (take, whole) = match rest.iter().take(room).position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (rest.len().min(room), rest.len() >= room),
            };
            self.pending[stream].extend_from_slice(&rest[..take]);
            rest = &rest[take..];
            if whole {
                self.record(stream, &time);
            }
        }
        self.flush();
    }

    /// Writes what came without a newline at the end.
    pub fn finish(&mut self) {
        let time = now();
        for stream in 0..STREAMS.len() {
            if !self.pending[stream].is_empty() {
                self.record(stream, &time);
            }
        }
        self.flush();
    }

    fn record(&mut self, stream: usize, time: &str) {
        match &mut self.sink {
            Sink::JsonFile(file) => file.record(&self.pending[stream], STREAMS[stream], time),
            Sink::Journald(journal) => journal.record(&self.pending[stream], stream),
        }
        self.pending[stream].clear();
    }

    fn flush(&mut self) {
        if let Sink::JsonFile(file) = &mut self.sink {
            file.flush();
        }
    }
}

/// What takes the place of records that couldn't be written.
fn missing(bytes: u64, why: &str) -> String {
    format!("[minidock: {bytes} bytes of log are missing here: {why}]\n")
}

/// The present time as docker writes it: RFC 3339, UTC, nanoseconds.
pub fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}
