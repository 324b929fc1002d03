//! The entries of a tar stream, each with its name, links, owner, times and extended attributes.
//!
//! The field formats are the `tar` crate's (`tar::Header`); the iteration is ours, because the crate's reads
//! GNU long names and PAX headers of any size into memory, splits PAX records at newlines (a file capability
//! may contain one), and in its raw mode doesn't know PAX sizes. Formats: POSIX.1-2001 pax, GNU tar, v7.

use std::io::{self, Read, Seek, SeekFrom};

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::error::refusal;
use crate::limits::Limits;
use crate::pax::{Extra, number, small, text};

const BLOCK: u64 = 512;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A further name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A folder.
    Dir,
    /// A named pipe.
    Fifo,
}

/// A point in time: seconds since 1970 and nanoseconds (0 to 999 999 999, counted upwards also before 1970).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Negative before 1970.
    pub seconds: i64,
    /// Always counted upwards.
    pub nanoseconds: u32,
}

/// An old GNU sparse file: which pieces of it are in the archive.
#[derive(Clone, Debug, Default)]
pub struct Sparse {
    /// Size of the file with its holes.
    pub real_bytes: u64,
    /// Offset and length of the pieces, in order.
    pub pieces: Vec<(u64, u64)>,
}

/// One entry, with its extension headers applied.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// As in the archive: any bytes but NUL; not cleaned.
    pub name: Vec<u8>,
    /// Target of a symlink or hard link.
    pub link: Vec<u8>,
    /// Permission bits, set-uid and its kin included.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Time of the last change of the content.
    pub mtime: Time,
    /// Time of the last look, where the archive has it.
    pub atime: Option<Time>,
    /// Bytes of data in the archive.
    pub size: u64,
    /// Where the data begins in the stream.
    pub data_offset: u64,
    /// Major and minor number.
    pub device: (u32, u32),
    /// Extended attributes: name and value.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Which parts of the file are in the archive, when it isn't whole.
    pub sparse: Option<Sparse>,
}

/// Reads entries one after the other; between two calls of [`TarReader::next`] it is a `Read` of the current
/// entry's data.
pub struct TarReader<'a, R> {
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
        TarReader { source, limits, skip, offset: 0, left: 0, padding: 0, ended: false }
    }

    /// The next entry, or None at the end of the archive.
    ///
    /// # Errors
    /// The stream's, or what is wrong with the archive.
    #[allow(clippy::should_implement_trait, reason = "an iterator can't lend the data between two entries")]
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extra = Extra::default();
        loop {
            let (left, padding) = (self.left, self.padding);
            self.skip_bytes(left.checked_add(padding).ok_or_else(|| refusal("an entry's size overflows"))?)?;
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
                b'L' => extra.long_name = Some(self.long_text("long name", extra.long_name.is_some())?),
                b'K' => extra.long_link = Some(self.long_text("long link", extra.long_link.is_some())?),
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
        let link = extra.long_link.or(extra.linkpath).unwrap_or_else(|| text(&old.linkname).to_vec());
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
                return Err(refusal(format!("{shown:?}: unknown kind of entry {:?}", other as char)));
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
            (Kind::Char | Kind::Block, Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor).into(),
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
                None => Time { seconds: number(&old.mtime, "mtime")? as i64, nanoseconds: 0 },
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
        let gnu = header.as_gnu().ok_or_else(|| refusal("a sparse file outside a GNU archive"))?;
        let mut sparse = Sparse { real_bytes: number(&gnu.realsize, "real size")?, pieces: Vec::new() };
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
                return Err(refusal(format!("a sparse file of more than {limit} pieces")));
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
        let first = self.offset == 0;
        let mut header = Header::new_old();
        match self.block(header.as_mut_bytes()) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if first && error.kind() == io::ErrorKind::UnexpectedEof => return Err(no_archive()),
            Err(error) => return Err(error),
        }
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            // Two zero blocks are the end; one alone is met in the wild and taken as the end by everybody.
            self.ended = true;
            return Ok(None);
        }
        let said = number(&header.as_old().cksum, "checksum");
        let said = if first { said.map_err(|_| no_archive())? } else { said? };
        let bytes = header.as_bytes();
        let plain = |range: std::ops::Range<usize>| bytes[range].iter().map(|b| u64::from(*b)).sum::<u64>();
        if said != plain(0..148) + plain(156..512) + 8 * u64::from(b' ') {
            let damaged = || refusal("not a tar header (wrong checksum): not a tar archive, or damaged");
            return Err(if first { no_archive() } else { damaged() });
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
            return Err(refusal(format!("a {what} of {} bytes; the limit is {limit}", self.left)));
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
        let wanted = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
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
/// Already its first block is none of tar's.
fn no_archive() -> io::Error {
    refusal(
        "unrecognized format: not a tar archive, plain or compressed with gzip or zstd; docker save, docker export and tar \
         make one",
    )
}
