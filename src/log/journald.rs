//! journald: each line is one entry with docker's fields, sent in journald's own protocol
//! (systemd.io/JOURNAL_NATIVE_PROTOCOL). `journalctl CONTAINER_NAME=…` reads them.
//!
//! Sending never waits: what a journal that doesn't read can't take is dropped, and counted in the next entry.

use std::os::unix::net::UnixDatagram;

use anyhow::{Context, Result};

use super::{Source, missing};
use crate::request::log_options::LogOptions;

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// syslog's numbers: docker has `info` for standard output and `err` for standard error.
const PRIORITIES: [&str; 2] = ["6", "3"];

/// What entries have of ours.
const OWN_FIELDS: [&str; 9] = [
    "MESSAGE",
    "PRIORITY",
    "CONTAINER_PARTIAL_MESSAGE",
    "CONTAINER_ID",
    "CONTAINER_ID_FULL",
    "CONTAINER_NAME",
    "CONTAINER_TAG",
    "IMAGE_NAME",
    "SYSLOG_IDENTIFIER",
];

/// The writer.
pub struct Journald {
    socket: UnixDatagram,
    /// The fields that are the same in all entries.
    fields: Vec<u8>,
    dropped: u64,
}

impl Journald {
    /// Connects.
    ///
    /// # Errors
    /// There is no journald here.
    pub fn open(source: &Source<'_>, options: &LogOptions) -> Result<Journald> {
        let socket = UnixDatagram::unbound().context("cannot make a socket for journald")?;
        socket.connect(SOCKET).with_context(|| {
            format!("cannot log to journald: nobody listens on {SOCKET}; use --log-driver json-file (the default)")
        })?;
        socket.set_nonblocking(true)?;
        let short = crate::recover::short(source.id);
        let mut fields = Vec::new();
        for (name, value) in [
            ("CONTAINER_ID", short),
            ("CONTAINER_ID_FULL", source.id),
            ("CONTAINER_NAME", source.name),
            ("CONTAINER_TAG", short),
            ("IMAGE_NAME", source.image),
            ("SYSLOG_IDENTIFIER", short),
        ] {
            push(&mut fields, name, value.as_bytes());
        }
        for (name, value) in source.attributes(options) {
            let name = field_name(&name);
            // An image's label or variable must not pass for another container's name.
            if !OWN_FIELDS.contains(&name.as_str()) {
                push(&mut fields, &name, value.as_bytes());
            }
        }
        Ok(Journald { socket, fields, dropped: 0 })
    }

    /// Sends one line, or a part of a longer one.
    pub fn record(&mut self, line: &[u8], stream: usize) {
        if self.dropped > 0 {
            let text = missing(self.dropped, "journald didn't read");
            if !self.send(text.trim_end().as_bytes(), 1, false) {
                self.dropped += line.len() as u64;
                return;
            }
            self.dropped = 0;
        }
        let (text, partial) = match line.strip_suffix(b"\n") {
            Some(text) => (text, false),
            None => (line, true),
        };
        if !self.send(text, stream, partial) {
            self.dropped += line.len() as u64;
        }
    }

    fn send(&self, text: &[u8], stream: usize, partial: bool) -> bool {
        let mut entry = Vec::with_capacity(text.len() + self.fields.len() + 64);
        push(&mut entry, "MESSAGE", text);
        push(&mut entry, "PRIORITY", PRIORITIES[stream].as_bytes());
        if partial {
            push(&mut entry, "CONTAINER_PARTIAL_MESSAGE", b"true");
        }
        entry.extend_from_slice(&self.fields);
        self.socket.send(&entry).is_ok()
    }
}

/// A field. A value with a newline has its length before it, as 8 bytes, little endian; the short form is for others.
fn push(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// journald takes capital letters, digits and underscores, not at the beginning; docker changes the others to `_`.
fn field_name(name: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(fit).collect::<String>().trim_start_matches(|c: char| c == '_' || c.is_ascii_digit()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_in_the_native_protocol() {
        let mut out = Vec::new();
        push(&mut out, "MESSAGE", b"a");
        push(&mut out, "OTHER", b"b\nc");
        assert_eq!(out, b"MESSAGE=a\nOTHER\n\x03\0\0\0\0\0\0\0b\nc\n");
        assert_eq!(field_name("com.example/Tier"), "COM_EXAMPLE_TIER");
        assert_eq!(field_name("_9a"), "A");
    }
}
