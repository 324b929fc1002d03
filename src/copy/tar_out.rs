//! Entries as a tar stream, in GNU's form: long names and links, large numbers, file capabilities in PAX headers.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use images::{Entry, Kind};
use tar::{Builder, EntryType, Header};

use super::shown;

/// A tar stream being written.
pub struct TarOut<'a> {
    tar: Builder<Box<dyn Write + 'a>>,
}

impl std::fmt::Debug for TarOut<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TarOut")
    }
}

impl<'a> TarOut<'a> {
    /// Writes to `to`.
    pub fn new(to: Box<dyn Write + 'a>) -> TarOut<'a> {
        TarOut { tar: Builder::new(to) }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// The stream's.
    pub fn add(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<()> {
        self.write(entry, data).with_context(|| format!("cannot write {} to the archive", shown(&entry.name)))
    }

    fn write(&mut self, entry: &Entry, data: &mut dyn Read) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(match entry.kind {
            Kind::File => EntryType::Regular,
            Kind::HardLink => EntryType::Link,
            Kind::Symlink => EntryType::Symlink,
            Kind::Char => EntryType::Char,
            Kind::Block => EntryType::Block,
            Kind::Dir => EntryType::Directory,
            Kind::Fifo => EntryType::Fifo,
        });
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_mtime(u64::try_from(entry.mtime.seconds).unwrap_or(0));
        header.set_size(if entry.kind == Kind::File { entry.size } else { 0 });
        if matches!(entry.kind, Kind::Char | Kind::Block) {
            header.set_device_major(entry.device.0)?;
            header.set_device_minor(entry.device.1)?;
        }
        if !entry.xattrs.is_empty() {
            let names: Vec<String> = entry
                .xattrs
                .iter()
                .map(|(name, _)| format!("SCHILY.xattr.{}", String::from_utf8_lossy(name)))
                .collect();
            let values = entry.xattrs.iter().map(|(_, value)| value.as_slice());
            self.tar.append_pax_extensions(names.iter().map(String::as_str).zip(values))?;
        }
        let name = Path::new(OsStr::from_bytes(&entry.name));
        match entry.kind {
            Kind::HardLink | Kind::Symlink => {
                self.tar.append_link(&mut header, name, Path::new(OsStr::from_bytes(&entry.link)))
            }
            _ => self.tar.append_data(&mut header, name, data),
        }
    }

    /// Writes the end.
    ///
    /// # Errors
    /// The stream's.
    pub fn finish(mut self) -> Result<()> {
        self.tar.finish().and_then(|()| self.tar.get_mut().flush()).context("cannot write the archive's end")
    }
}
