//! The pseudo terminal of `-t`, made by the container's process in the container's own devpts.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::Winsize;

use crate::error::{Doing, StartError};
use crate::mounts::beneath::{Root, is_char_device};
use crate::sys;

/// devpts' magic number (linux/magic.h).
const DEVPTS_SUPER_MAGIC: rustix::fs::FsWord = 0x1cd1;

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// Both ends of a pseudo terminal.
#[derive(Debug)]
pub struct Terminal {
    /// The engine's end.
    pub master: OwnedFd,
    /// The program's end.
    pub slave: OwnedFd,
}

impl Terminal {
    /// Opens a new pair.
    ///
    /// Only descriptors that are checked to be what they should: with a path, an image's own `/dev/pts/0` or
    /// `/dev/ptmx` would be opened with the host's rights (CVE-2025-52565).
    pub(crate) fn open(root: &Root, size: Size) -> Result<Terminal, StartError> {
        let master =
            root.open(Path::new("/dev/pts/ptmx"), OFlags::RDWR | OFlags::NOCTTY).doing(|| "open /dev/pts/ptmx")?;
        let on_devpts = rustix::fs::fstatfs(&master).is_ok_and(|stat| stat.f_type == DEVPTS_SUPER_MAGIC);
        if !on_devpts || !is_char_device(master.as_fd(), 5, 2) {
            return Err(StartError::new(
                "cannot make a terminal: /dev/pts/ptmx of this container is not one (security)",
            ));
        }
        sys::pty_unlock(master.as_fd()).doing(|| "unlock the terminal")?;
        let slave = sys::pty_peer(master.as_fd()).doing(|| "open the terminal's inner end")?;
        resize(&master, size).doing(|| "set the terminal's size")?;
        Ok(Terminal { master, slave })
    }
}

/// Sets a terminal's size; the program gets SIGWINCH.
///
/// # Errors
/// ENOTTY.
pub fn resize(terminal: impl AsFd, size: Size) -> Result<(), Errno> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size)
}
