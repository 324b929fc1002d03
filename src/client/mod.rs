//! The client of a foreground program or of `attach`: carries bytes, signals and the terminal between the user and a
//! container's monitor.
//!
//! One poll loop, no thread. The user's own descriptors stay in the mode that they have (another process may share them):
//! they're written only when poll(2) says so, and pipes by at most a page, which then can't block.

pub mod attached;
mod guard;
pub mod keys;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};

use crate::terminal::{self, Saved};
use crate::wire;
use guard::Guard;
use keys::{DetachKeys, Watch};

/// Stop reading from the monitor while this much waits for a slow reader.
const HIGH_WATER: usize = 256 << 10;
/// A write of at most PIPE_BUF bytes to a pipe that poll(2) calls writable doesn't block (pipe(7)).
const PIPE_CHUNK: usize = 4096;

/// What the user's flags say about a client (`-a`, `--sig-proxy`, `--detach-keys`).
#[derive(Debug, Clone)]
pub struct Options {
    /// Show the program's standard output.
    pub stdout: bool,
    /// Show its standard error.
    pub stderr: bool,
    /// Pass signals on; otherwise one that would end the client makes it leave the container.
    pub sig_proxy: bool,
    /// These keys make it leave, with a terminal.
    pub detach_keys: DetachKeys,
}

impl Default for Options {
    fn default() -> Options {
        Options { stdout: true, stderr: true, sig_proxy: true, detach_keys: DetachKeys::default() }
    }
}

/// What a client is to do.
pub struct Client {
    /// To the monitor.
    pub monitor: UnixStream,
    /// Where the monitor waits for facts of the host.
    pub facts_pipe: Option<OwnedFd>,
    /// What has already come from there.
    pub received: Vec<u8>,
    /// The program runs already (`attach`); otherwise the monitor is just starting it.
    pub attached: bool,
    /// Where standard input's bytes go (`-i` without `-t`): the writing end of the container's stdin, our own pipe.
    pub stdin_pipe: Option<OwnedFd>,
    /// A terminal is attached (`-t`).
    pub terminal: bool,
    /// Typed bytes go to the terminal (`-i` with `-t`).
    pub interactive: bool,
    /// Return as soon as the program runs (`-d`).
    pub detach: bool,
    /// The user's choices.
    pub options: Options,
}

/// docker's words when the detach keys end `attach` or `exec`; the exit code is 1.
pub const DETACHED: &str = "read escape sequence";

/// How it ended.
#[derive(Debug)]
pub enum Ended {
    /// The program runs, and the client is to leave (`-d`, or the detach keys).
    Detached,
    /// This signal made the client leave a program that lives on.
    Signal(i32),
    /// The program's exit code.
    Exit(i32),
    /// The start failed.
    Failed {
        /// The exit code: 125, 126, 127.
        code: i32,
        /// What to print.
        message: String,
    },
    /// The reader of our standard output has gone.
    BrokenPipe,
}

struct Output {
    fd: OwnedFd,
    waiting: Vec<u8>,
    is_pipe: bool,
    broken: bool,
}

impl Output {
    fn new(fd: BorrowedFd<'_>) -> Result<Output> {
        let is_pipe =
            rustix::fs::fstat(fd).is_ok_and(|stat| !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file());
        Ok(Output { fd: fd.try_clone_to_owned()?, waiting: vec![], is_pipe, broken: false })
    }

    fn write_some(&mut self) {
        let limit = if self.is_pipe { PIPE_CHUNK } else { HIGH_WATER };
        let chunk = &self.waiting[..self.waiting.len().min(limit)];
        match rustix::io::write(&self.fd, chunk) {
            Ok(written) => drop(self.waiting.drain(..written)),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => {
                self.broken = true;
                self.waiting.clear();
            }
        }
    }
}

/// The signals that a client passes on, blocked before the monitor is forked so that none is lost.
pub fn forwarded_signals() -> SigSet {
    // Not those that a process gets for its own deeds, nor SIGCHLD, SIGPIPE and SIGURG, as docker; the job control
    // signals stop this process as the user's shell expects.
    let own = [
        Signal::SIGKILL,
        Signal::SIGSTOP,
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGTRAP,
        Signal::SIGABRT,
        Signal::SIGSYS,
        Signal::SIGCHLD,
        Signal::SIGPIPE,
        Signal::SIGURG,
        Signal::SIGTSTP,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
    ];
    let mut set = SigSet::all();
    own.into_iter().for_each(|signal| set.remove(signal));
    set
}

/// Runs until the container has ended, or the client may leave it. `on_start` is called when the program runs.
pub fn run(client: Client, on_start: &mut dyn FnMut() -> Result<()>) -> Result<Ended> {
    let saved = if client.terminal { Saved::new(io::stdin().as_fd())? } else { None };
    let mut looped = Loop::new(client, saved)?;
    let result = looped.run(on_start);
    if let Some(saved) = &looped.saved {
        saved.restore();
    }
    if let Some(guard) = looped.guard.take() {
        guard.dismiss();
    }
    result
}

struct Loop {
    client: Client,
    signals: SignalFd,
    stdout: Output,
    stderr: Output,
    received: Vec<u8>,
    to_monitor: Vec<u8>,
    to_stdin: Vec<u8>,
    stdin_open: bool,
    detach_keys: Watch,
    saved: Option<Saved>,
    guard: Option<Guard>,
    ended: Option<Ended>,
    /// SIGTERM and SIGINT so far: who sends three wants to get away, whatever the program does with them.
    terminations: u32,
}

/// docker's number, and its words.
const ENOUGH: u32 = 3;
const FORCED: &[u8] = b"\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n";

impl Loop {
    fn new(mut client: Client, saved: Option<Saved>) -> Result<Loop> {
        let signals = SignalFd::with_flags(&forwarded_signals(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("cannot watch for signals")?;
        client.monitor.set_nonblocking(true)?;
        if let Some(pipe) = &client.stdin_pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let stdin_open = client.stdin_pipe.is_some() || client.interactive;
        Ok(Loop {
            received: std::mem::take(&mut client.received),
            detach_keys: Watch::new(client.options.detach_keys.clone()),
            client,
            signals,
            stdout: Output::new(io::stdout().as_fd())?,
            stderr: Output::new(io::stderr().as_fd())?,
            to_monitor: vec![],
            to_stdin: vec![],
            stdin_open,
            saved,
            guard: None,
            ended: None,
            terminations: 0,
        })
    }

    fn run(&mut self, on_start: &mut dyn FnMut() -> Result<()>) -> Result<Ended> {
        if self.client.attached {
            self.take_terminal()?;
            self.take_frames()?;
        }
        loop {
            if self.terminations >= ENOUGH {
                self.stderr.waiting.extend_from_slice(FORCED);
                self.stderr.write_some(); // what a reader doesn't take at once is lost
                return Ok(Ended::Exit(1));
            }
            let all_written = self.stdout.waiting.is_empty() && self.stderr.waiting.is_empty();
            if let Some(ended) = self.ended.take_if(|_| all_written) {
                return Ok(ended);
            }
            if self.stdout.broken {
                return Ok(Ended::BrokenPipe);
            }
            if self.step()? {
                on_start()?;
            }
        }
    }

    /// One turn; true when the program has started in it.
    fn step(&mut self) -> Result<bool> {
        let stdin = io::stdin();
        let room = self.stdout.waiting.len() < HIGH_WATER && self.stderr.waiting.len() < HIGH_WATER;
        let mut monitor_events = PollFlags::empty();
        monitor_events.set(PollFlags::IN, room && self.ended.is_none());
        monitor_events.set(PollFlags::OUT, !self.to_monitor.is_empty());
        let wants_input = self.stdin_open && self.to_stdin.is_empty() && self.to_monitor.len() < HIGH_WATER;
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        let place = |fds: &mut Vec<PollFd<'_>>| fds.len() - 1;
        // Left out when nothing is wanted of it: a closed connection would end every poll at once.
        let at_monitor = (!monitor_events.is_empty()).then(|| {
            fds.push(PollFd::new(&self.client.monitor, monitor_events));
            place(&mut fds)
        });
        let (mut at_stdin, mut at_pipe, mut at_out, mut at_err) = (None, None, None, None);
        if wants_input {
            fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
            at_stdin = Some(place(&mut fds));
        }
        if let Some(pipe) = &self.client.stdin_pipe {
            // With nothing to write, only the reader's going away is of interest.
            let events = if self.to_stdin.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::new(pipe, events));
            at_pipe = Some(place(&mut fds));
        }
        if !self.stdout.waiting.is_empty() {
            fds.push(PollFd::new(&self.stdout.fd, PollFlags::OUT));
            at_out = Some(place(&mut fds));
        }
        if !self.stderr.waiting.is_empty() {
            fds.push(PollFd::new(&self.stderr.fd, PollFlags::OUT));
            at_err = Some(place(&mut fds));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(error).context("cannot wait for the container"),
        }
        let ready = |at: Option<usize>| at.is_some_and(|at| !fds[at].revents().is_empty());
        let monitor = at_monitor.map_or(PollFlags::empty(), |at| fds[at].revents());
        let signalled = !fds[0].revents().is_empty();
        let (stdin_ready, pipe_ready) = (ready(at_stdin), ready(at_pipe));
        let pipe_gone = at_pipe.is_some_and(|at| fds[at].revents().contains(PollFlags::ERR));
        let (out_ready, err_ready) = (ready(at_out), ready(at_err));
        drop(fds);

        if signalled {
            self.take_signals(&stdin)?;
        }
        if out_ready {
            self.stdout.write_some();
        }
        if err_ready {
            self.stderr.write_some();
        }
        if stdin_ready {
            self.read_stdin(&stdin);
        }
        if pipe_ready && !self.to_stdin.is_empty() {
            self.write_stdin();
        }
        if pipe_gone || (!self.stdin_open && self.to_stdin.is_empty()) {
            if self.client.stdin_pipe.take().is_some() {
                // The monitor has it open too; now the program sees the end of its input.
                wire::push(&mut self.to_monitor, wire::STDIN_END, &[]);
                self.write_monitor();
            }
            self.stdin_open &= self.client.interactive;
        }
        if monitor.contains(PollFlags::OUT) {
            self.write_monitor();
        }
        if monitor.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && room {
            return self.read_monitor();
        }
        Ok(false)
    }

    fn read_monitor(&mut self) -> Result<bool> {
        let mut chunk = [0u8; 64 << 10];
        let end = match rustix::io::read(&self.client.monitor, &mut chunk) {
            Ok(0) => true,
            Ok(count) => {
                self.received.extend_from_slice(&chunk[..count]);
                false
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Err(_) => true,
        };
        let started = self.take_frames()?;
        if started {
            if self.client.detach {
                self.ended = Some(Ended::Detached);
            } else {
                self.take_terminal()?;
            }
        }
        if end && self.ended.is_none() {
            // Only a kill of the monitor ends it without a word, and its death kills the container.
            self.stderr
                .waiting
                .extend_from_slice(b"minidock: the container's monitor was killed, and the container with it\n");
            self.ended = Some(Ended::Exit(137));
        }
        Ok(started)
    }

    /// What has come from the monitor; true when the program has started.
    fn take_frames(&mut self) -> Result<bool> {
        let Loop { received, stdout, stderr, ended, client, .. } = self;
        let mut started = false;
        wire::drain(received, |kind, content| match kind {
            wire::STDOUT if client.options.stdout => stdout.waiting.extend_from_slice(content),
            wire::STDERR if client.options.stderr => stderr.waiting.extend_from_slice(content),
            wire::NOTE => stderr.waiting.extend_from_slice(content),
            wire::STARTED => started = true,
            wire::EXIT => *ended = Some(Ended::Exit(wire::number(content))),
            wire::FAILED => {
                let message = String::from_utf8_lossy(content.get(4..).unwrap_or_default()).into_owned();
                *ended = Some(Ended::Failed { code: wire::number(content), message });
            }
            _ => {}
        })
        .map_err(|what| anyhow::anyhow!("the container's monitor sent {what}"))?;
        Ok(started)
    }

    /// From here on the user's terminal is the program's.
    fn take_terminal(&mut self) -> Result<()> {
        let Some(saved) = &self.saved else { return Ok(()) };
        // Without -i nobody reads the keyboard: ^C must go on making a signal.
        if self.client.interactive {
            self.guard = Some(Guard::post(saved)?);
            saved.make_raw()?;
        }
        if self.client.attached {
            // A changed size makes the program draw itself again for the newcomer, as docker does it.
            push_size(&mut self.to_monitor, 1);
        }
        push_size(&mut self.to_monitor, 0);
        Ok(())
    }

    fn take_signals(&mut self, stdin: &io::Stdin) -> Result<()> {
        while let Some(info) = self.signals.read_signal().context("cannot read a signal")? {
            let number = info.ssi_signo as i32;
            self.terminations += u32::from([libc::SIGTERM, libc::SIGINT].contains(&number));
            if number == Signal::SIGWINCH as i32 {
                if self.client.terminal && rustix::termios::isatty(stdin) {
                    push_size(&mut self.to_monitor, 0);
                }
            } else if self.client.options.sig_proxy {
                wire::push(&mut self.to_monitor, wire::SIGNAL, &number.to_le_bytes());
            } else if number != Signal::SIGCONT as i32 {
                self.leave(Ended::Signal(number));
            }
        }
        Ok(())
    }

    fn read_stdin(&mut self, stdin: &io::Stdin) {
        let mut chunk = [0u8; 16 << 10];
        let count = match rustix::io::read(stdin, &mut chunk) {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            Err(_) => 0,
        };
        if count == 0 {
            self.stdin_open = false;
        } else if self.client.interactive {
            let (pass, detach) = self.detach_keys.feed(&chunk[..count]);
            wire::push(&mut self.to_monitor, wire::INPUT, &pass);
            if detach {
                self.leave(Ended::Detached);
            }
        } else {
            self.to_stdin.extend_from_slice(&chunk[..count]);
        }
    }

    fn write_stdin(&mut self) {
        let Some(pipe) = &self.client.stdin_pipe else { return };
        match rustix::io::write(pipe, &self.to_stdin) {
            Ok(written) => drop(self.to_stdin.drain(..written)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => {
                self.to_stdin.clear();
                self.stdin_open = false;
            }
        }
    }

    /// The program lives on without this client.
    fn leave(&mut self, ended: Ended) {
        wire::push(&mut self.to_monitor, wire::DETACH, &[]);
        self.write_monitor();
        self.ended = Some(ended);
    }

    fn write_monitor(&mut self) {
        if let Ok(written) = rustix::io::write(&self.client.monitor, &self.to_monitor) {
            self.to_monitor.drain(..written);
        }
    }
}

/// The terminal's size, larger by `more`.
fn push_size(out: &mut Vec<u8>, more: u16) {
    let (rows, columns) = terminal::size(io::stdin().as_fd());
    let mut content = rows.saturating_add(more).to_le_bytes().to_vec();
    content.extend_from_slice(&columns.saturating_add(more).to_le_bytes());
    wire::push(out, wire::RESIZE, &content);
}
