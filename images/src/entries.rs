//! The entries of a tar stream, each with its name, links, owner, times and extended attributes.
//!
//! The field formats are the `tar` crate's (`tar::Header`); the iteration is ours, because the crate's reads
//! GNU long names and PAX headers of any size into memory, splits PAX records at newlines (a file capability
//! may contain one), and in its raw mode doesn't know PAX sizes. Formats: POSIX.1-2001 pax, GNU tar, v7.

use std::io::{self, Read, Seek, SeekFrom};

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::error::refusal;
use crate::limits::Limits;

const BLOCK: u64 = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Dir,
    Fifo,
}

/// A point in time: seconds since 1970 and nanoseconds (0 to 999 999 999, counted upwards also before 1970).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// An old GNU sparse file: which pieces of it are in the archive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sparse {
    /// Size of the file with its holes.
    pub real_bytes: u64,
    /// Offset and length of the pieces, in order.
    pub pieces: Vec<(u64, u64)>,
}

/// One entry, with its extension headers applied.
#[derive(Debug)]
pub(crate) struct Entry {
    pub kind: Kind,
    /// As in the archive: any bytes but NUL; not cleaned.
    pub name: Vec<u8>,
    /// Target of a symlink or hard link.
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: Time,
    pub atime: Option<Time>,
    /// Bytes of data in the archive.
    pub size: u64,
    /// Where the data begins in the stream.
    pub data_offset: u64,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<Sparse>,
}

/// Reads entries one after the other; between two calls of [`TarReader::next`] it is a `Read` of the current
/// entry's data.
pub(crate) struct TarReader<'a, R> {
    source: R,
    limits: &'a Limits,
    skip: fn(&mut R, u64) -> io::Result<()>,
    offset: u64,
    /// Data of the current entry not read yet, and the padding behind it.
    left: u64,
    padding: u64,
    /// The end-of-archive marker was there.
    pub ended: bool,
}

impl<'a, R: Read> TarReader<'a, R> {
    /// For a stream; skipped data is read.
    pub fn new(source: R, limits: &'a Limits) -> Self {
        TarReader::with(source, limits, |source, count| {
            match io::copy(&mut source.by_ref().take(count), &mut io::sink())? {
                copied if copied == count => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        })
    }

    fn with(source: R, limits: &'a Limits, skip: fn(&mut R, u64) -> io::Result<()>) -> Self {
        TarReader {
            source,
            limits,
            skip,
            offset: 0,
            left: 0,
            padding: 0,
            ended: false,
        }
    }

    /// The next entry, or None at the end of the archive.
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extra = Extra::default();
        loop {
            let (left, padding) = (self.left, self.padding);
            self.skip_bytes(
                left.checked_add(padding)
                    .ok_or_else(|| refusal("an entry's size overflows"))?,
            )?;
            (self.left, self.padding) = (0, 0);
            let Some(header) = self.header()? else {
                if extra.any {
                    return Err(refusal("the archive ends after an extension header"));
                }
                return Ok(None);
            };
            let kind = header.as_bytes()[156];
            let mut size = number(&header.as_old().size, "size")?;
            if !matches!(kind, b'L' | b'K' | b'x' | b'g' | b'X') {
                size = extra.size.unwrap_or(size);
            }
            self.begin(size)?;
            match kind {
                // Global headers describe the archive (git writes its commit there), not a file.
                b'g' => {}
                b'L' => {
                    extra.long_name = Some(self.long_text("long name", extra.long_name.is_some())?)
                }
                b'K' => {
                    extra.long_link = Some(self.long_text("long link", extra.long_link.is_some())?)
                }
                b'x' | b'X' => {
                    if extra.pax {
                        return Err(refusal("two PAX headers for one entry"));
                    }
                    let records = self.all(self.limits.header_bytes, "PAX header")?;
                    extra.pax = true;
                    extra.read_pax(&records)?;
                }
                _ => return self.entry(kind, &header, extra).map(Some),
            }
            extra.any = kind != b'g' || extra.any;
        }
    }

    /// Reads what stands behind the end marker (padding to tar's record size; it is part of the digest).
    pub fn drain(&mut self) -> io::Result<()> {
        io::copy(&mut self.source, &mut io::sink()).map(drop)
    }

    /// Sets the bounds of the data that follows a header.
    fn begin(&mut self, size: u64) -> io::Result<()> {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK;
        if size > i64::MAX as u64 {
            return Err(refusal("an entry's size is absurd"));
        }
        Ok(())
    }

    fn entry(&mut self, kind: u8, header: &Header, extra: Extra) -> io::Result<Entry> {
        let old = header.as_old();
        let ustar = header.as_ustar();
        let name = match extra.long_name.or(extra.path) {
            Some(name) => name,
            None => match ustar.filter(|ustar| ustar.prefix[0] != 0) {
                Some(ustar) => [text(&ustar.prefix), b"/", text(&ustar.name)].concat(),
                None => text(&old.name).to_vec(),
            },
        };
        let link = extra
            .long_link
            .or(extra.linkpath)
            .unwrap_or_else(|| text(&old.linkname).to_vec());
        let kind = match kind {
            // In v7 archives a folder is a file whose name ends in a slash.
            0 | b'0' if name.ends_with(b"/") => Kind::Dir,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => {
                let shown = String::from_utf8_lossy(&name).into_owned();
                return Err(refusal(format!(
                    "{shown:?}: unknown kind of entry {:?}",
                    other as char
                )));
            }
        };
        for (what, value) in [("name", &name), ("link target", &link)] {
            if value.len() > self.limits.path_bytes {
                let start = String::from_utf8_lossy(&value[..60]).into_owned();
                return Err(refusal(format!(
                    "the {what} {start}... has {} bytes, more than {}",
                    value.len(),
                    self.limits.path_bytes
                )));
            }
        }
        let data_offset = self.offset;
        let sparse = match header.as_bytes()[156] {
            b'S' => Some(self.old_gnu_sparse(header)?),
            _ => None,
        };
        let device = match (kind, ustar, header.as_gnu()) {
            (Kind::Char | Kind::Block, Some(ustar), _) => {
                (&ustar.dev_major, &ustar.dev_minor).into()
            }
            (Kind::Char | Kind::Block, _, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor).into(),
            _ => None,
        };
        let device = match device {
            Some((major, minor)) => (small(major, "major number")?, small(minor, "minor number")?),
            None => (0, 0),
        };
        Ok(Entry {
            kind,
            name,
            link,
            mode: (number(&old.mode, "mode")? & 0o7777) as u32,
            uid: extra.uid.map_or_else(|| number(&old.uid, "uid"), Ok)?,
            gid: extra.gid.map_or_else(|| number(&old.gid, "gid"), Ok)?,
            mtime: match extra.mtime {
                Some(time) => time,
                None => Time {
                    seconds: number(&old.mtime, "mtime")? as i64,
                    nanoseconds: 0,
                },
            },
            atime: extra.atime,
            size: self.left,
            data_offset,
            device,
            xattrs: extra.xattrs,
            sparse,
        })
    }

    /// The pieces of a sparse file ('S' of GNU tar's old format); further ones stand in blocks of their own
    /// before the data.
    fn old_gnu_sparse(&mut self, header: &Header) -> io::Result<Sparse> {
        let gnu = header
            .as_gnu()
            .ok_or_else(|| refusal("a sparse file outside a GNU archive"))?;
        let mut sparse = Sparse {
            real_bytes: number(&gnu.realsize, "real size")?,
            pieces: Vec::new(),
        };
        let (mut end, mut stored) = (0u64, 0u64);
        let limit = self.limits.sparse_pieces;
        let mut add = |piece: &GnuSparseHeader| -> io::Result<()> {
            if piece.offset[0] == 0 || piece.numbytes[0] == 0 {
                return Ok(());
            }
            let offset = number(&piece.offset, "offset of a piece")?;
            let length = number(&piece.numbytes, "length of a piece")?;
            let bad = || refusal("the pieces of a sparse file overlap or overflow");
            if offset < end {
                return Err(bad());
            }
            end = offset.checked_add(length).ok_or_else(bad)?;
            stored = stored.checked_add(length).ok_or_else(bad)?;
            if sparse.pieces.len() >= limit {
                return Err(refusal(format!(
                    "a sparse file of more than {limit} pieces"
                )));
            }
            sparse.pieces.push((offset, length));
            Ok(())
        };
        gnu.sparse.iter().try_for_each(&mut add)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.source.read_exact(block.as_mut_bytes())?;
            self.offset += BLOCK;
            block.sparse().iter().try_for_each(&mut add)?;
            more = block.is_extended();
        }
        if end > sparse.real_bytes || stored != self.left {
            return Err(refusal("the pieces of a sparse file don't fit its size"));
        }
        Ok(sparse)
    }

    /// The next header; None at the end. The checksum must fit.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        if !self.block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            // Two zero blocks are the end; one alone is met in the wild and taken as the end by everybody.
            self.ended = true;
            return Ok(None);
        }
        let said = number(&header.as_old().cksum, "checksum")?;
        let bytes = header.as_bytes();
        let plain =
            |range: std::ops::Range<usize>| bytes[range].iter().map(|b| u64::from(*b)).sum::<u64>();
        if said != plain(0..148) + plain(156..512) + 8 * u64::from(b' ') {
            return Err(refusal(
                "not a tar header (wrong checksum): not a tar archive, or damaged",
            ));
        }
        Ok(Some(header))
    }

    /// Fills one block; false when the stream ends exactly before it.
    fn block(&mut self, block: &mut [u8; 512]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < block.len() {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.offset += BLOCK;
        Ok(true)
    }

    /// The data of a GNU 'L' or 'K' entry, up to its NUL.
    fn long_text(&mut self, what: &str, twice: bool) -> io::Result<Vec<u8>> {
        if twice {
            return Err(refusal(format!("two {what}s for one entry")));
        }
        // One byte for the NUL.
        let mut name = self.all(self.limits.path_bytes as u64 + 1, what)?;
        name.truncate(text(&name).len());
        Ok(name)
    }

    /// All data of a header entry; its size is checked before anything is read.
    fn all(&mut self, limit: u64, what: &str) -> io::Result<Vec<u8>> {
        if self.left > limit {
            return Err(refusal(format!(
                "a {what} of {} bytes; the limit is {limit}",
                self.left
            )));
        }
        let mut data = vec![0; self.left as usize];
        self.read_exact(&mut data)?;
        Ok(data)
    }

    fn skip_bytes(&mut self, count: u64) -> io::Result<()> {
        if count > 0 {
            (self.skip)(&mut self.source, count)?;
            self.offset = self.offset.saturating_add(count);
        }
        Ok(())
    }
}

impl<'a, R: Read + Seek> TarReader<'a, R> {
    /// For a file; skipped data isn't read. (That it is there must be checked against the file's length.)
    pub fn seekable(source: R, limits: &'a Limits) -> Self {
        TarReader::with(source, limits, |source, count| {
            let count = i64::try_from(count).map_err(|_| refusal("an entry's size overflows"))?;
            source.seek(SeekFrom::Current(count)).map(drop)
        })
    }
}

impl<R: Read> Read for TarReader<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let wanted = into
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self.source.read(&mut into[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        self.offset += count as u64;
        Ok(count)
    }
}

/// What extension headers say about the entry that follows them.
#[derive(Default)]
struct Extra {
    any: bool,
    pax: bool,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    linkpath: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    atime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extra {
    /// Records are `LENGTH key=value\n`, the length counting all of it: the value may hold any byte.
    fn read_pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        let bad = || refusal("a damaged PAX header");
        while !records.is_empty() {
            let space = records
                .iter()
                .take(20)
                .position(|byte| *byte == b' ')
                .ok_or_else(bad)?;
            let length: usize = decimal(&records[..space]).ok_or_else(bad)?;
            if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(bad());
            }
            let record = &records[space + 1..length - 1];
            records = &records[length..];
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            self.read_record(key, value).ok_or_else(|| {
                refusal(format!(
                    "a PAX header with a bad {}",
                    String::from_utf8_lossy(key)
                ))
            })??;
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
fn number(field: &[u8], what: &str) -> io::Result<u64> {
    let bad = || {
        refusal(format!(
            "a header with a bad {what}: damaged, or not a tar archive"
        ))
    };
    if let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) {
        // The second bit is the sign; a negative number (a time before 1970) is its two's complement.
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative {
            -1
        } else {
            i128::from(first & 0x3f)
        };
        if negative {
            value = (value << 6) | i128::from(first & 0x3f);
        }
        for byte in rest {
            value = value.checked_mul(256).ok_or_else(bad)? | i128::from(*byte);
        }
        return match what {
            "mtime" => i64::try_from(value)
                .map(|value| value as u64)
                .map_err(|_| bad()),
            _ => u64::try_from(value).map_err(|_| bad()),
        };
    }
    let digits = field
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if digits.is_empty() {
        return Ok(0);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
    if digits.starts_with('+') {
        return Err(bad());
    }
    u64::from_str_radix(digits, 8).map_err(|_| bad())
}

fn small(field: &[u8; 8], what: &str) -> io::Result<u32> {
    u32::try_from(number(field, what)?)
        .map_err(|_| refusal(format!("a device with an absurd {what}")))
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Digits only: no sign, no space.
fn decimal<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let digits = std::str::from_utf8(digits).ok()?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
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
        (false, _) => Time {
            seconds,
            nanoseconds,
        },
        (true, 0) => Time {
            seconds: -seconds,
            nanoseconds,
        },
        (true, _) => Time {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
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
        assert!(
            number(
                &[
                    0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
                ],
                "size"
            )
            .is_err()
        );
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
        for bad in [
            &b"8 path=a\n"[..],
            b"4 a\n",
            b"-9 path=a\n",
            b"99999999999999999999999 p=a\n",
            b"8 path=\0x",
        ] {
            assert!(
                Extra::default().read_pax(bad).is_err(),
                "{}",
                String::from_utf8_lossy(bad)
            );
        }
    }
}
