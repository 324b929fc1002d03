//! The keys that let go of a terminal (`--detach-keys`): found over reads, and held back until it's clear that they're
//! something else.

use serde::{Deserialize, Serialize};

/// A sequence of bytes; none: no keys detach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    /// docker's: ctrl-p, ctrl-q.
    fn default() -> DetachKeys {
        DetachKeys(vec![0x10, 0x11])
    }
}

impl DetachKeys {
    /// Reads docker's form: `ctrl-a`, `ctrl-@` to `ctrl-_`, `DEL`, or a single character, joined by commas. Empty text
    /// means the default.
    ///
    /// # Errors
    /// docker's words.
    pub fn parse(text: &str) -> Result<DetachKeys, String> {
        if text.is_empty() {
            return Ok(DetachKeys::default());
        }
        let keys = text.split(',').map(|key| one(key).ok_or_else(|| format!("Unknown character: '{key}'")));
        let keys = keys.collect::<Result<Vec<u8>, String>>();
        keys.map(DetachKeys).map_err(|why| {
            let text = crate::cli::bounded(text, 60);
            format!("invalid detach keys ({text}): {}; write for example ctrl-p,ctrl-q", crate::cli::bounded(&why, 80))
        })
    }
}

fn one(key: &str) -> Option<u8> {
    match (key.as_bytes(), key.strip_prefix("ctrl-").map(str::as_bytes)) {
        (&[byte], _) => Some(byte),
        (_, Some(&[letter @ b'a'..=b'z'])) => Some(letter - b'a' + 1),
        (_, Some(&[sign @ (b'@' | b'['..=b'_')])) => Some(sign - b'@'),
        _ if key == "DEL" => Some(0x7f),
        _ => None,
    }
}

/// Looks for the keys in what is typed.
#[derive(Debug, Default)]
pub struct Watch {
    keys: DetachKeys,
    /// The beginning of the keys, typed and not passed on yet.
    held: Vec<u8>,
}

impl Watch {
    /// Looks for these.
    pub fn new(keys: DetachKeys) -> Watch {
        Watch { keys, held: vec![] }
    }

    /// Gives back the bytes to pass on, and whether the keys are complete; what was typed after them is dropped.
    pub fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let keys = &self.keys.0;
        let mut pass = Vec::with_capacity(typed.len() + self.held.len());
        for &byte in typed {
            self.held.push(byte);
            while !keys.starts_with(&self.held) {
                pass.push(self.held.remove(0));
            }
            if !keys.is_empty() && self.held.len() == keys.len() {
                self.held.clear();
                return (pass, true);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_over_reads_and_their_beginnings_are_passed_on() {
        let mut keys = Watch::default();
        assert_eq!(keys.feed(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.feed(b"\x11x"), (vec![], true));
        let mut keys = Watch::default();
        assert_eq!(keys.feed(b"\x10\x10\x11"), (b"\x10".to_vec(), true));
        let mut keys = Watch::default();
        assert_eq!(keys.feed(b"\x10c"), (b"\x10c".to_vec(), false));
    }

    #[test]
    fn keys_that_repeat_themselves_are_found() {
        let mut keys = Watch::new(DetachKeys::parse("a,a,b").unwrap());
        assert_eq!(keys.feed(b"aaab"), (b"a".to_vec(), true));
        let mut keys = Watch::new(DetachKeys::parse("x").unwrap());
        assert_eq!(keys.feed(b"12x3"), (b"12".to_vec(), true));
    }

    #[test]
    fn dockers_forms_are_read() {
        for (text, bytes) in [
            ("", &[0x10, 0x11][..]),
            ("ctrl-a", &[1]),
            ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", &[0, 27, 28, 29, 30, 31]),
            ("ctrl-z,Z,DEL,%", &[26, b'Z', 127, b'%']),
        ] {
            assert_eq!(DetachKeys::parse(text).unwrap().0, bytes, "{text}");
        }
        for text in ["shift-b", "ctrl-A", "ctrl-ab", "a,,b", "ctrl-", "é", "ctrl-p, ctrl-q"] {
            let error = DetachKeys::parse(text).unwrap_err();
            assert!(error.starts_with(&format!("invalid detach keys ({text}): Unknown character: ")), "{error}");
        }
    }
}
