//! The user's terminal: raw mode while a `-t` container is attached, its size, and the way back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, Winsize, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// A terminal whose mode is to be restored.
pub struct Saved {
    terminal: OwnedFd,
    mode: Termios,
}

impl Saved {
    /// Remembers the mode of this terminal; `None` when it's not one.
    pub fn new(terminal: BorrowedFd<'_>) -> Result<Option<Saved>> {
        if !isatty(terminal) {
            return Ok(None);
        }
        let mode = tcgetattr(terminal).context("cannot read the terminal's mode")?;
        let terminal = terminal.try_clone_to_owned().context("cannot keep the terminal")?;
        Ok(Some(Saved { terminal, mode }))
    }

    /// The terminal's descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.terminal.as_fd()
    }

    /// Every byte goes to the container as typed, ^C included.
    pub fn make_raw(&self) -> Result<()> {
        let mut raw = self.mode.clone();
        raw.make_raw();
        tcsetattr(&self.terminal, OptionalActions::Now, &raw).context("cannot make the terminal raw")
    }

    /// Puts the mode back as it was.
    pub fn restore(&self) {
        // Nothing helps when the terminal is gone, and nobody is there to be told.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.mode);
    }
}

/// Rows and columns of a terminal; docker's 0×0 means unknown.
pub fn size(terminal: BorrowedFd<'_>) -> (u16, u16) {
    tcgetwinsize(terminal.as_fd()).map_or((0, 0), |size| (size.ws_row, size.ws_col))
}

/// Sets it. A size that the kernel refuses leaves the former one; the program isn't worse off.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = tcsetwinsize(terminal, size);
}

/// Whether to print in colours: only on a terminal, and never with NO_COLOR (no-color.org: set and not empty).
pub fn colours(out: impl AsFd) -> bool {
    isatty(out) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
