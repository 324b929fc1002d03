//! The monitor's loop while the program runs: output to the log and the client, input and signals from the client,
//! proxies, and the end of PID 1.
//!
//! One thread, one poll(2). When the client is slow, the container's pipes are left full until it has caught up: output
//! is never dropped and never piles up in memory.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netsetup::proxy::Proxy;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::Winsize;

use crate::log;
use crate::terminal::Saved;
use crate::{process, wire};

/// Output that the client hasn't taken yet; beyond it the container waits.
const HIGH_WATER: usize = 256 << 10;
const CHUNK: usize = wire::MAX_FRAME;

/// What the loop carries.
pub struct Relay {
    /// PID 1.
    pub pidfd: OwnedFd,
    /// Reading ends of the program's standard output and error.
    pub outputs: [Option<OwnedFd>; 2],
    /// The terminal's master, with `-t`.
    pub terminal: Option<OwnedFd>,
    /// The foreground client.
    pub client: Option<UnixStream>,
    /// The client's terminal, to be restored if the client is killed.
    pub client_terminal: Option<Saved>,
    /// Published ports without DNAT.
    pub proxies: Vec<Proxy>,
    /// The log; none with `--log-driver none`.
    pub log: Option<log::Writer>,
    /// To the client.
    pub to_client: Vec<u8>,
}

/// How the program ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Exit code, 128+n when signal n ended it.
    pub code: i32,
    /// By SIGKILL: perhaps for memory.
    pub killed: bool,
}

#[derive(Default)]
struct FromClient {
    received: Vec<u8>,
    to_terminal: Vec<u8>,
}

impl Relay {
    /// Runs until PID 1 has ended and all its output has been read. `on_end` is called when PID 1 has ended, to kill
    /// processes outside its pid namespace.
    pub fn run(&mut self, on_end: impl FnOnce(Ended)) -> Result<Ended> {
        let mut on_end = Some(on_end);
        let mut from_client = FromClient::default();
        let mut ended = None;
        if let Some(client) = &self.client {
            client.set_nonblocking(true)?;
        }
        for fd in self.outputs.iter().chain([&self.terminal]).flatten() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        loop {
            if let Some(ended) = ended
                && self.outputs.iter().all(Option::is_none)
                && self.terminal.is_none()
            {
                if let Some(log) = &mut self.log {
                    log.finish();
                }
                return Ok(ended);
            }
            if self.step(&mut from_client, ended.is_some())? && ended.is_none() {
                let end = reap(&self.pidfd)?;
                ended = Some(end);
                if let Some(on_end) = on_end.take() {
                    on_end(end);
                }
                self.take_rest();
            }
        }
    }

    /// One turn; true when PID 1 has ended.
    fn step(&mut self, from_client: &mut FromClient, ended: bool) -> Result<bool> {
        let mut pid1_ended = false;
        for (role, events) in self.wait(from_client, ended)? {
            match role {
                Role::Pid1 => pid1_ended = true,
                Role::Output(stream) => self.read_output(stream),
                Role::Terminal => self.serve_terminal(events, from_client),
                Role::Client => self.serve_client(events, from_client),
                Role::Proxy(index) => self.proxies[index].ready(Instant::now()),
            }
        }
        let now = Instant::now();
        for proxy in &mut self.proxies {
            if proxy.timeout(now) == Some(Duration::ZERO) {
                proxy.ready(now);
            }
        }
        Ok(pid1_ended)
    }

    fn wait(&self, from_client: &FromClient, ended: bool) -> Result<Vec<(Role, PollFlags)>> {
        let room = self.client.is_none() || self.to_client.len() < HIGH_WATER;
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(5 + self.proxies.len());
        let mut roles = Vec::with_capacity(5 + self.proxies.len());
        let mut watch = |fd, events, role| {
            fds.push(PollFd::from_borrowed_fd(fd, events));
            roles.push(role);
        };
        if !ended {
            watch(self.pidfd.as_fd(), PollFlags::IN, Role::Pid1);
        }
        if room {
            for (stream, output) in self.outputs.iter().enumerate() {
                if let Some(output) = output {
                    watch(output.as_fd(), PollFlags::IN, Role::Output(stream));
                }
            }
        }
        if let Some(terminal) = &self.terminal {
            let mut events = PollFlags::empty();
            events.set(PollFlags::IN, room);
            events.set(PollFlags::OUT, !from_client.to_terminal.is_empty());
            if !events.is_empty() {
                watch(terminal.as_fd(), events, Role::Terminal);
            }
        }
        if let Some(client) = &self.client {
            let mut events = PollFlags::empty();
            events.set(PollFlags::IN, from_client.to_terminal.len() < HIGH_WATER);
            events.set(PollFlags::OUT, !self.to_client.is_empty());
            watch(client.as_fd(), events, Role::Client);
        }
        for (index, proxy) in self.proxies.iter().enumerate() {
            watch(proxy.fd(), PollFlags::IN, Role::Proxy(index));
        }
        let now = Instant::now();
        let timeout = self.proxies.iter().filter_map(|proxy| proxy.timeout(now)).min().map(timespec);
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the container"),
        }
        let ready = fds.iter().zip(roles).filter(|(fd, _)| !fd.revents().is_empty());
        Ok(ready.map(|(fd, role)| (role, fd.revents())).collect())
    }

    fn read_output(&mut self, stream: usize) {
        let Some(output) = &self.outputs[stream] else { return };
        let mut chunk = [0u8; CHUNK];
        match rustix::io::read(output, &mut chunk) {
            Ok(0) => self.outputs[stream] = None,
            Ok(count) => self.pass_output(stream, &chunk[..count]),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => self.outputs[stream] = None,
        }
    }

    /// Reads what is there now, however slow the client is, and closes the outputs. All writers are dead: the kernel ends
    /// a pid namespace's other processes before its PID 1, and `on_end` has killed those of another one. Whoever holds an
    /// output open still (a program left behind by `exec`, another container that was sent it) isn't waited for.
    fn take_rest(&mut self) {
        let mut chunk = [0u8; CHUNK];
        for stream in 0..self.outputs.len() {
            let Some(output) = self.outputs[stream].take() else { continue };
            while let Ok(count) = rustix::io::read(&output, &mut chunk)
                && count > 0
            {
                self.pass_output(stream, &chunk[..count]);
            }
        }
        if let Some(terminal) = self.terminal.take() {
            while let Ok(count) = rustix::io::read(&terminal, &mut chunk)
                && count > 0
            {
                self.pass_output(0, &chunk[..count]);
            }
        }
    }

    fn pass_output(&mut self, stream: usize, bytes: &[u8]) {
        if let Some(log) = &mut self.log {
            log.write(stream, bytes);
        }
        if self.client.is_some() {
            wire::push(&mut self.to_client, if stream == 0 { wire::STDOUT } else { wire::STDERR }, bytes);
            self.write_client(); // at once: a turn of the loop less on the way
        }
    }

    fn serve_terminal(&mut self, events: PollFlags, from_client: &mut FromClient) {
        let Some(terminal) = &self.terminal else { return };
        if events.contains(PollFlags::OUT)
            && let Ok(written) = rustix::io::write(terminal, &from_client.to_terminal)
        {
            from_client.to_terminal.drain(..written);
        }
        if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            let mut chunk = [0u8; CHUNK];
            match rustix::io::read(terminal, &mut chunk) {
                Ok(count) if count > 0 => self.pass_output(0, &chunk[..count]),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                // EIO: the last holder of the other side has closed it, and everything has been read (pty(7)).
                _ => self.terminal = None,
            }
        }
    }

    fn serve_client(&mut self, events: PollFlags, from_client: &mut FromClient) {
        if events.contains(PollFlags::OUT) {
            self.write_client();
        }
        if !events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        let Some(client) = &self.client else { return };
        let mut chunk = [0u8; CHUNK];
        let gone = match rustix::io::read(client, &mut chunk) {
            Ok(0) => true,
            Ok(count) => {
                from_client.received.extend_from_slice(&chunk[..count]);
                false
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Err(_) => true,
        };
        let mut detached = false;
        let damaged = wire::drain(&mut from_client.received, |kind, content| match kind {
            wire::SIGNAL => {
                process::signal(&self.pidfd, wire::number(content));
            }
            wire::INPUT => from_client.to_terminal.extend_from_slice(content),
            wire::RESIZE if content.len() >= 4 => resize(self.terminal.as_ref(), content),
            wire::DETACH => detached = true,
            _ => {}
        })
        .is_err();
        if detached {
            self.drop_client();
        } else if gone || damaged {
            // Killed without having detached: its container goes with it.
            if let Some(terminal) = &self.client_terminal {
                terminal.restore();
            }
            process::signal(&self.pidfd, libc::SIGKILL);
            self.drop_client();
        }
    }

    /// Sends the client what it takes now.
    pub fn write_client(&mut self) {
        if let Some(client) = &self.client
            && let Ok(written) = rustix::io::write(client, &self.to_client)
        {
            self.to_client.drain(..written);
        }
    }

    fn drop_client(&mut self) {
        self.client = None;
        self.client_terminal = None;
        self.to_client.clear();
    }

    /// Sends the client what is left for it, the last frame included, however slow it is.
    pub fn flush_client(&mut self) {
        while let Some(client) = &self.client
            && !self.to_client.is_empty()
        {
            let mut fds = [PollFd::new(client, PollFlags::OUT)];
            if poll(&mut fds, None).is_ok() && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
                self.drop_client();
                return;
            }
            self.write_client();
        }
    }
}

#[derive(Clone, Copy)]
enum Role {
    Pid1,
    Output(usize),
    Terminal,
    Client,
    Proxy(usize),
}

fn resize(terminal: Option<&OwnedFd>, content: &[u8]) {
    let word = |at: usize| u16::from_le_bytes([content[at], content[at + 1]]);
    let size = Winsize { ws_row: word(0), ws_col: word(2), ws_xpixel: 0, ws_ypixel: 0 };
    if let Some(terminal) = terminal {
        // A size that the kernel refuses leaves the former one; the program isn't worse off.
        let _ = rustix::termios::tcsetwinsize(terminal, size);
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

fn reap(pidfd: &OwnedFd) -> Result<Ended> {
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
        .context("cannot read how the container's program ended")?;
    let Some(status) = status else { return Ok(Ended { code: 255, killed: false }) };
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended { code, killed: false },
        (None, Some(signal)) => Ended { code: 128 + signal, killed: signal == libc::SIGKILL },
        (None, None) => Ended { code: 255, killed: false },
    })
}
