//! The class id of the net_cls controller: `--net-cls 1:10` and its file form.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::Error;

/// A traffic class handle of tc(8): major and minor, 16 bits each. Never 0, which means "no class".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassId(pub u32);

impl ClassId {
    /// What is written to `net_cls.classid`: `0x00010010` for 1:10.
    pub fn file_form(self) -> String {
        format!("{:#010x}", self.0)
    }
}

/// What makes the class of a socket that of its packets, beside net_cls, which only helps where a filter asks for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClassWay {
    /// Nothing: net_cls must be there.
    #[default]
    NetCls,
    /// Its packets go straight to the host's cards: where there is cgroup2, a program writes the class on each of them.
    Packets,
    /// Not net_cls, but the program alone, with this class.
    Rated(u32),
    /// Somebody else sees to it on the host: net_cls is written where it is there.
    Carried,
}

/// As tc prints a handle: hexadecimal without `0x`.
impl fmt::Display for ClassId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{:x}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl FromStr for ClassId {
    type Err = Error;
    fn from_str(text: &str) -> Result<ClassId, Error> {
        parse_net_cls(text).map(ClassId)
    }
}

/// Reads `MAJOR:MINOR` (both hexadecimal, as tc(8) reads them: `1:10` is class 0x10 of qdisc 1) or `0xAAAABBBB`.
///
/// # Errors
/// A text that is neither, a part beyond 16 bits, and 0:0, which would mean no class.
pub fn parse_net_cls(text: &str) -> Result<u32, Error> {
    let refuse = |why: &str| {
        Error::refused(format!(
            "invalid net_cls class {text:?}: {why}; give MAJOR:MINOR in hexadecimal as tc does (1:10) or 0xAAAABBBB (0x00010010)"
        ))
    };
    let hex = |digits: &str, most: usize| -> Option<u32> {
        // from_str_radix takes a leading plus sign; tc does not.
        let clean = (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        clean.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    let value = if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        hex(digits, 8).ok_or_else(|| refuse("not a 32-bit hexadecimal number"))?
    } else if let Some((major, minor)) = text.split_once(':') {
        let part = |digits| hex(digits, 4).ok_or_else(|| refuse("each part is one to four hexadecimal digits"));
        part(major)? << 16 | part(minor)?
    } else {
        return Err(refuse("no colon and no 0x"));
    };
    if value == 0 {
        return Err(refuse("0 means no class"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_hexadecimal_as_in_tc() {
        for (text, value) in [
            ("1:10", 0x0001_0010),
            ("0x00010010", 0x0001_0010),
            ("0x10010", 0x0001_0010),
            ("10:1", 0x0010_0001),
            ("ffff:fffe", 0xffff_fffe),
            ("1:0", 0x0001_0000),
            ("0X100001", 0x0010_0001),
        ] {
            assert_eq!(parse_net_cls(text).unwrap(), value, "{text}");
        }
        assert_eq!(ClassId(0x0001_0010).file_form(), "0x00010010");
        assert_eq!(ClassId(0x0001_0010).to_string(), "1:10");
        assert_eq!("a:f".parse::<ClassId>().unwrap().to_string(), "a:f");
    }

    #[test]
    fn what_is_no_class_is_refused() {
        for text in [
            "",
            ":",
            "1",
            "1:",
            ":10",
            "1:10:2",
            "10000:1",
            "1:10000",
            "0x",
            "0x1ffffffff",
            "-1:1",
            "+1:1",
            "1:g",
            " 1:10",
            "0:0",
            "0x0",
            "1 :10",
            "0x+1",
            "１:1",
        ] {
            let error = parse_net_cls(text).unwrap_err().to_string();
            assert!(error.contains("net_cls") && error.contains("1:10"), "{text}: {error}");
        }
    }
}
