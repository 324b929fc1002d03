//! Container logs in docker's json-file format: one JSON object a line, `{"log":…,"stream":…,"time":…}`.
//!
//! A full disk never blocks the container and never costs its exit status: what can't be written is dropped, and the
//! next line that fits says how many bytes are missing.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// docker cuts longer lines into parts of this size; a part has no newline at its end.
const MAX_LINE: usize = 16 << 10;

/// One line of the file.
#[derive(Serialize, Deserialize)]
pub struct Record {
    /// The text, with its newline.
    pub log: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// RFC 3339 with nanoseconds.
    pub time: String,
}

/// The writer: one a container, in its monitor.
pub struct Writer {
    file: File,
    pending: [Vec<u8>; 2],
    dropped: u64,
}

const STREAMS: [&str; 2] = ["stdout", "stderr"];

impl Writer {
    /// Makes the file.
    pub fn create(path: &Path) -> Result<Writer> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot make the log {}", path.display()))?;
        Ok(Writer { file, pending: [vec![], vec![]], dropped: 0 })
    }

    /// Takes bytes of standard output (`stream` 0) or standard error (1), and writes the whole lines among them.
    pub fn write(&mut self, stream: usize, bytes: &[u8]) {
        let mut out = Vec::with_capacity(bytes.len() + 128);
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
                push_record(&mut out, &self.pending[stream], STREAMS[stream], &time);
                self.pending[stream].clear();
            }
        }
        self.put(&out);
    }

    /// Writes what came without a newline at the end.
    pub fn finish(&mut self) {
        let mut out = Vec::new();
        let time = now();
        for (stream, pending) in self.pending.iter_mut().enumerate() {
            if !pending.is_empty() {
                push_record(&mut out, pending, STREAMS[stream], &time);
                pending.clear();
            }
        }
        self.put(&out);
    }

    fn put(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let mut notice = Vec::new();
        if self.dropped > 0 {
            let text = format!("[minidock: {} bytes of log are missing here: the disk was full]\n", self.dropped);
            push_record(&mut notice, text.as_bytes(), "stderr", &now());
        }
        notice.extend_from_slice(lines);
        let before = self.file.metadata().map(|data| data.len());
        match self.file.write_all(&notice) {
            Ok(()) => self.dropped = 0,
            Err(_) => {
                // Half a line would damage the file for its readers.
                if let Ok(length) = before {
                    let _ = self.file.set_len(length);
                }
                self.dropped += lines.len() as u64;
            }
        }
    }
}

fn push_record(out: &mut Vec<u8>, line: &[u8], stream: &str, time: &str) {
    out.extend_from_slice(b"{\"log\":");
    // Writing a string to memory can't fail; bytes that aren't UTF-8 become U+FFFD, as docker does.
    let _ = serde_json::to_writer(&mut *out, &String::from_utf8_lossy(line));
    out.extend_from_slice(b",\"stream\":\"");
    out.extend_from_slice(stream.as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// The present time as docker writes it: RFC 3339, UTC, nanoseconds.
pub fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pieces: &[(usize, &[u8])]) -> Vec<(String, String)> {
        let path = std::env::temp_dir().join(format!("minidock-log-{}-{:?}", std::process::id(), pieces.as_ptr()));
        let mut writer = Writer::create(&path).unwrap();
        for (stream, bytes) in pieces {
            writer.write(*stream, bytes);
        }
        writer.finish();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        text.lines()
            .map(|line| {
                let record: Record = serde_json::from_str(line).unwrap();
                assert!(record.time.ends_with('Z') && record.time.contains('.'), "{}", record.time);
                (record.stream, record.log)
            })
            .collect()
    }

    #[test]
    fn lines_are_joined_over_writes_and_streams_kept_apart() {
        let lines = written(&[(0, b"a"), (1, b"err\n"), (0, b"b\nc")]);
        let text = |stream: &str, log: &str| (stream.to_string(), log.to_string());
        assert_eq!(lines, [text("stderr", "err\n"), text("stdout", "ab\n"), text("stdout", "c")]);
    }

    #[test]
    fn long_lines_are_cut_into_parts_without_losing_a_byte() {
        let long = vec![b'x'; 3 * MAX_LINE + 5];
        let lines = written(&[(0, &long), (0, b"\n")]);
        assert_eq!(lines.iter().map(|(_, log)| log.len()).sum::<usize>(), long.len() + 1);
        assert!(lines.iter().all(|(_, log)| log.len() <= MAX_LINE));
    }
}
