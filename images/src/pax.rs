//! Fields of tar headers: numbers (octal, or base 256), texts, and the records of PAX headers.

use std::io;

use crate::entries::Time;
use crate::error::refusal;

/// What extension headers say about the entry that follows them.
#[derive(Default)]
pub(crate) struct Extra {
    pub any: bool,
    pub pax: bool,
    pub long_name: Option<Vec<u8>>,
    pub long_link: Option<Vec<u8>>,
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub atime: Option<Time>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extra {
    /// Records are `LENGTH key=value\n`, the length counting all of it: the value may hold any byte.
    pub(crate) fn read_pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        let bad = || refusal("a damaged PAX header");
        while !records.is_empty() {
            let space = records.iter().take(20).position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length: usize = decimal(&records[..space]).ok_or_else(bad)?;
            if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(bad());
            }
            let record = &records[space + 1..length - 1];
            records = &records[length..];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            self.read_record(key, value)
                .ok_or_else(|| refusal(format!("a PAX header with a bad {}", String::from_utf8_lossy(key))))??;
        }
        Ok(())
    }

    /// None: the value is bad. A later record overrides an earlier one.
    fn read_record(&mut self, key: &[u8], value: &[u8]) -> Option<io::Result<()>> {
        let path = || (!value.contains(&0)).then(|| value.to_vec());
        match key {
            b"path" => self.path = Some(path()?),
            b"linkpath" => self.linkpath = Some(path()?),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(pax_time(value)?),
            b"atime" => self.atime = Some(pax_time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Some(Err(refusal(
                    "a sparse file in PAX form (GNU.sparse), which is not supported; \
                     write the archive with tar --format=gnu, or without --sparse",
                )));
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.contains(&0) {
                        return None;
                    }
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(Ok(()))
    }
}

/// A tar number: octal text, or base 256 when the first bit is set. An empty field is 0 (v7 archives).
pub(crate) fn number(field: &[u8], what: &str) -> io::Result<u64> {
    let bad = || refusal(format!("a header with a bad {what}: damaged, or not a tar archive"));
    if let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) {
        // The second bit is the sign; a negative number (a time before 1970) is its two's complement.
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { i128::from(first & 0x3f) };
        if negative {
            value = (value << 6) | i128::from(first & 0x3f);
        }
        for byte in rest {
            value = value.checked_mul(256).ok_or_else(bad)? | i128::from(*byte);
        }
        return match what {
            "mtime" => i64::try_from(value).map(|value| value as u64).map_err(|_| bad()),
            _ => u64::try_from(value).map_err(|_| bad()),
        };
    }
    let digits = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    if digits.is_empty() {
        return Ok(0);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
    if digits.starts_with('+') {
        return Err(bad());
    }
    u64::from_str_radix(digits, 8).map_err(|_| bad())
}

pub(crate) fn small(field: &[u8; 8], what: &str) -> io::Result<u32> {
    u32::try_from(number(field, what)?).map_err(|_| refusal(format!("a device with an absurd {what}")))
}

/// Up to the first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Digits only: no sign, no space.
fn decimal<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// `[-]seconds[.fraction]`
fn pax_time(value: &[u8]) -> Option<Time> {
    let value = std::str::from_utf8(value).ok()?;
    let (negative, value) = match value.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let (seconds, fraction) = value.split_once('.').unwrap_or((value, ""));
    let seconds: i64 = decimal(seconds.as_bytes())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256_and_may_be_empty() {
        assert_eq!(number(b"0000644\0", "mode").unwrap(), 0o644);
        assert_eq!(number(b"   644 \0", "mode").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0", "mode").unwrap(), 0);
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0", "uid").unwrap(), 256);
        assert_eq!(number(&[0xff; 12], "mtime").unwrap() as i64, -1);
        assert!(number(&[0xff; 12], "size").is_err());
        assert!(number(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "size").is_err());
        for bad in [&b"9"[..], b"-1", b"+1", b"1 1", b"\xc3\x28"] {
            assert!(number(bad, "mode").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pax_times_keep_their_nanoseconds_also_before_1970() {
        let time = |text: &str| pax_time(text.as_bytes()).map(|t| (t.seconds, t.nanoseconds));
        assert_eq!(time("1"), Some((1, 0)));
        assert_eq!(time("1.5"), Some((1, 500_000_000)));
        assert_eq!(time("1.0000000019"), Some((1, 1)));
        assert_eq!(time("-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time("-3"), Some((-3, 0)));
        for bad in ["", ".", "x", "1.x", "--1", "99999999999999999999"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn pax_values_may_hold_newlines_and_equal_signs() {
        let mut extra = Extra::default();
        let value = b"a=b\nc\0";
        let record = [b"35 SCHILY.xattr.security.x=".as_slice(), value, b"\n"].concat();
        let record = [record.len().to_string().as_bytes(), &record[2..]].concat();
        extra.read_pax(&record).unwrap();
        assert_eq!(extra.xattrs, [(b"security.x".to_vec(), value.to_vec())]);
        for bad in [&b"8 path=a\n"[..], b"4 a\n", b"-9 path=a\n", b"99999999999999999999999 p=a\n", b"8 path=\0x"] {
            assert!(Extra::default().read_pax(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
