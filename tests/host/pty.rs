//! A terminal made by the test: the client runs on its slave end, the test types and reads at the master end.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};

use rustix::pty::OpenptFlags;
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use super::command::{Capture, Invocation};
use super::{LIMIT, within};

/// A command on a terminal of its own. Killed when dropped.
pub struct Terminal {
    pub child: Child,
    master: File,
    slave: OwnedFd,
    screen: Capture,
    mode_before: String,
}

impl Terminal {
    /// Starts the command as leader of a session with this terminal.
    pub fn start(invocation: Invocation<'_>, rows: u16, columns: u16) -> Terminal {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let slave =
            rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
                .unwrap();
        let master = File::from(master);
        set_size(&master, rows, columns);
        let mode_before = mode(&tcgetattr(&slave).unwrap());
        let mut command = invocation.raw();
        let end = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
        // SAFETY: between fork and exec, two system calls on descriptor 0, which is the slave by then.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                Ok(rustix::process::ioctl_tiocsctty(std::os::fd::BorrowedFd::borrow_raw(0))?)
            })
        };
        let child = command.spawn().expect("minidock starts");
        let screen = Capture::start(master.try_clone().unwrap());
        Terminal { child, master, slave, screen, mode_before }
    }

    /// Types this.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Everything shown so far.
    pub fn screen(&self) -> String {
        self.screen.text()
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        assert!(
            within(LIMIT, || self.screen().contains(text)),
            "waited in vain for '{text}' on the terminal:\n{}",
            self.screen()
        );
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.master, rows, columns); // the kernel sends SIGWINCH to the foreground group
    }

    /// Fails unless the terminal's mode is what it was before the command.
    #[track_caller]
    pub fn mode_is_restored(&self) {
        assert!(
            within(LIMIT, || mode(&tcgetattr(&self.slave).unwrap()) == self.mode_before),
            "the terminal's mode was not restored:\n  before {}\n  now    {}",
            self.mode_before,
            mode(&tcgetattr(&self.slave).unwrap())
        );
    }

    /// Whether the terminal is in raw mode (no echo, no line editing).
    pub fn is_raw(&self) -> bool {
        let mode = tcgetattr(&self.slave).unwrap();
        !mode.local_modes.contains(rustix::termios::LocalModes::ECHO)
            && !mode.local_modes.contains(rustix::termios::LocalModes::ICANON)
    }

    /// Waits for the command's end; its exit code.
    pub fn wait(&mut self) -> i32 {
        assert!(
            within(LIMIT, || self.child.try_wait().unwrap().is_some()),
            "the command on the terminal didn't end:\n{}",
            self.screen()
        );
        let status = self.child.wait().unwrap();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_size(terminal: impl AsFd, rows: u16, columns: u16) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}

fn mode(mode: &Termios) -> String {
    let Termios { input_modes, output_modes, control_modes, local_modes, .. } = mode;
    format!("{input_modes:?} {output_modes:?} {control_modes:?} {local_modes:?}")
}
