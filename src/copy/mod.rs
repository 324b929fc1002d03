//! Copying files into and out of containers: `cp` and `export`.
//!
//! Both ends may be hostile and alive: a process of the container can swap a folder for a link between any two of our
//! system calls. So nothing is ever reached by a path of the host: a path is resolved by the kernel inside the
//! container's root (openat2 IN_ROOT), everything below it by descriptors that follow no link, and a file is opened for
//! reading only when its inode, already held, is known to be a regular file (a device would act, a FIFO wait). No
//! program of the image is ever run. (CVE-2018-15664, CVE-2019-10152, GHSA-vp62-88p7-qqf5.)

pub mod attributes;
pub mod ends;
pub mod place;
pub mod tar_out;
pub mod view;
pub mod walk;

use std::io::Read;

use anyhow::Result;
use images::Entry;

/// Where entries go.
#[derive(Debug)]
pub enum Sink<'a> {
    /// A tar stream.
    Tar(tar_out::TarOut<'a>),
    /// A folder.
    Folder(place::Place<'a>),
}

impl Sink<'_> {
    /// Takes an entry with its data.
    ///
    /// # Errors
    /// What went wrong, with the entry's name.
    pub fn add(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<()> {
        match self {
            Sink::Tar(tar) => tar.add(entry, data),
            Sink::Folder(place) => place.add(entry, data),
        }
    }

    /// After the last entry.
    ///
    /// # Errors
    /// As above.
    pub fn finish(self) -> Result<()> {
        match self {
            Sink::Tar(tar) => tar.finish(),
            Sink::Folder(place) => place.finish(),
        }
    }
}

/// Bytes that an entry takes in a tar archive: docker counts these.
pub fn archive_bytes(entry: &Entry) -> u64 {
    512 + entry.size.next_multiple_of(512)
}

/// A name for people: one line, terminal sequences escaped, not too long.
pub fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().flat_map(char::escape_debug).take(200).collect()
}
