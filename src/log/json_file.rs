//! docker's json-file: one JSON object a line, `{"log":…,"stream":…,"time":…}`, in `container.log`; when that is full it
//! becomes `container.log.1`, the former one `.2`, and so on; the oldest goes.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{missing, now};
use crate::request::log_options::LogOptions;

/// Records are collected up to here before a write.
const BATCH: usize = 128 << 10;

/// The writer.
pub struct JsonFile {
    path: PathBuf,
    file: File,
    /// Bytes of `file` that are whole records.
    size: u64,
    max_bytes: u64,
    max_files: u32,
    /// `,"attrs":{…}` or nothing.
    attributes: Vec<u8>,
    waiting: Vec<u8>,
    dropped: u64,
}

/// The name of an older file: 1 is the one before the present one.
pub fn older(path: &Path, age: u32) -> PathBuf {
    match age {
        0 => path.to_path_buf(),
        _ => {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{age}"));
            name.into()
        }
    }
}

fn make(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

impl JsonFile {
    /// Makes the file, or goes on writing at its end.
    pub fn open(path: &Path, options: &LogOptions, attributes: &[(String, String)]) -> Result<JsonFile> {
        let what = || format!("cannot make the log {}", path.display());
        let file = make(path).with_context(what)?;
        let size = file.metadata().with_context(what)?.len();
        let mut text = Vec::new();
        if !attributes.is_empty() {
            let map: serde_json::Map<_, _> =
                attributes.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
            text.extend_from_slice(b",\"attrs\":");
            serde_json::to_writer(&mut text, &map)?;
        }
        Ok(JsonFile {
            path: path.to_path_buf(),
            file,
            size,
            max_bytes: options.max_bytes(),
            max_files: options.max_files(),
            attributes: text,
            waiting: vec![],
            dropped: 0,
        })
    }

    /// Takes one record; it's in the file after the next [`JsonFile::flush`].
    pub fn record(&mut self, line: &[u8], stream: &str, time: &str) {
        let before = self.waiting.len();
        push_record(&mut self.waiting, line, stream, &self.attributes, time);
        // A file ends with the record that reaches its size, as docker's.
        if self.waiting.len() >= BATCH || self.size + self.waiting.len() as u64 >= self.max_bytes {
            let rest = match self.size + (before as u64) < self.max_bytes {
                true => Vec::new(),
                false => self.waiting.split_off(before),
            };
            self.flush();
            self.waiting = rest;
        }
    }

    /// Writes what has been taken.
    pub fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if self.size >= self.max_bytes {
            self.rotate();
        }
        let mut out = Vec::new();
        if self.dropped > 0 {
            let text = missing(self.dropped, "the disk was full");
            push_record(&mut out, text.as_bytes(), "stderr", &[], &now());
        }
        out.append(&mut self.waiting);
        match self.file.write_all(&out) {
            Ok(()) => {
                self.size += out.len() as u64;
                self.dropped = 0;
            }
            Err(_) => {
                // Half a record would damage the file for its readers.
                if self.file.metadata().is_ok_and(|data| data.len() > self.size) {
                    let _ = self.file.set_len(self.size);
                }
                self.dropped += out.len() as u64;
            }
        }
    }

    /// Begins a new file. The new one is made first: where that fails, the present one is written on. Readers find their
    /// way by inode numbers, see `read`.
    fn rotate(&mut self) {
        let mut fresh = self.path.as_os_str().to_owned();
        fresh.push(".new");
        let _ = std::fs::remove_file(&fresh);
        let Ok(file) = make(Path::new(&fresh)) else { return };
        for age in (0..self.max_files.saturating_sub(1)).rev() {
            let _ = std::fs::rename(older(&self.path, age), older(&self.path, age + 1));
        }
        if std::fs::rename(&fresh, &self.path).is_ok() {
            (self.file, self.size) = (file, 0);
        }
    }
}

fn push_record(out: &mut Vec<u8>, line: &[u8], stream: &str, attributes: &[u8], time: &str) {
    out.extend_from_slice(b"{\"log\":");
    // Writing a string to memory can't fail; bytes that aren't UTF-8 become U+FFFD, as docker does.
    let _ = serde_json::to_writer(&mut *out, &String::from_utf8_lossy(line));
    out.extend_from_slice(b",\"stream\":\"");
    out.extend_from_slice(stream.as_bytes());
    out.push(b'"');
    out.extend_from_slice(attributes);
    out.extend_from_slice(b",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

#[cfg(test)]
mod tests {
    use super::super::{MAX_LINE, Record, Source, Writer};
    use super::*;
    use crate::request::LogDriver;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("minidock-log-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        fn log(&self) -> PathBuf {
            self.0.join("container.log")
        }

        fn records(&self, age: u32) -> Vec<Record> {
            let text = std::fs::read_to_string(older(&self.log(), age)).unwrap_or_default();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn writer(scratch: &Scratch, options: &LogOptions) -> Writer {
        let labels = [("tier".to_string(), "web".to_string())].into();
        let source = Source { id: "c", name: "n", image: "i", labels: &labels, env: &["A=1".into()] };
        Writer::open(LogDriver::JsonFile, options, &scratch.log(), &source).unwrap().unwrap()
    }

    fn written(name: &str, pieces: &[(usize, &[u8])]) -> Vec<(String, String)> {
        let scratch = Scratch::new(name);
        let mut writer = writer(&scratch, &LogOptions::default());
        pieces.iter().for_each(|(stream, bytes)| writer.write(*stream, bytes));
        writer.finish();
        let check = |record: &Record| assert!(record.time.ends_with('Z') && record.time.len() == 30, "{}", record.time);
        scratch.records(0).into_iter().inspect(check).map(|record| (record.stream, record.log)).collect()
    }

    #[test]
    fn lines_are_joined_over_writes_and_streams_kept_apart() {
        let lines = written("join", &[(0, b"a"), (1, b"err\n"), (0, b"b\nc")]);
        let text = |stream: &str, log: &str| (stream.to_string(), log.to_string());
        assert_eq!(lines, [text("stderr", "err\n"), text("stdout", "ab\n"), text("stdout", "c")]);
    }

    #[test]
    fn long_lines_are_cut_into_parts_without_losing_a_byte() {
        let long = vec![b'x'; 3 * MAX_LINE + 5];
        let lines = written("long", &[(0, &long), (0, b"\n")]);
        assert_eq!(lines.iter().map(|(_, log)| log.len()).sum::<usize>(), long.len() + 1);
        assert!(lines.iter().all(|(_, log)| log.len() <= MAX_LINE));
    }

    #[test]
    fn files_are_rotated_at_their_size_and_the_oldest_goes() {
        let scratch = Scratch::new("rotate");
        let options = LogOptions { max_bytes: Some(4000), max_files: Some(3), ..LogOptions::default() };
        let mut writer = writer(&scratch, &options);
        // In one piece and in many: both are cut at the size.
        let many: String = (0..200).map(|number| format!("line {number}\n")).collect();
        writer.write(0, many.as_bytes());
        for number in 200..400 {
            writer.write(0, format!("line {number}\n").as_bytes());
        }
        let lines: Vec<String> = (0..3).rev().flat_map(|age| scratch.records(age)).map(|record| record.log).collect();
        let first = 400 - lines.len();
        assert!(first > 0 && lines.len() > 60);
        assert!(lines.iter().enumerate().all(|(at, line)| *line == format!("line {}\n", first + at)), "{lines:?}");
        for age in [1, 2] {
            let size = older(&scratch.log(), age).metadata().unwrap().len();
            assert!((4000..4100).contains(&size), "{size}");
        }
        assert!(!older(&scratch.log(), 3).exists());
        drop(writer);
    }

    #[test]
    fn one_file_begins_anew_and_a_restart_goes_on() {
        let scratch = Scratch::new("one");
        let options = LogOptions { max_bytes: Some(1000), max_files: Some(1), ..LogOptions::default() };
        for round in 0..3 {
            let mut writer = writer(&scratch, &options);
            (0..7).for_each(|number| writer.write(0, format!("line {}\n", 7 * round + number).as_bytes()));
        }
        let lines: Vec<String> = scratch.records(0).into_iter().map(|record| record.log).collect();
        assert_eq!(lines.last().unwrap(), "line 20\n");
        assert!(lines.len() <= 13 && std::fs::read_dir(&scratch.0).unwrap().count() == 1, "{lines:?}");
    }

    #[test]
    fn attributes_are_kept_with_each_record() {
        let scratch = Scratch::new("attributes");
        let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect();
        let options = LogOptions { labels: names(&["tier", "none"]), env: names(&["A", "B"]), ..Default::default() };
        writer(&scratch, &options).write(1, b"x\n");
        let records = scratch.records(0);
        let attributes: Vec<_> = records[0].attrs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(attributes, ["A=1", "tier=web"]);
    }
}
