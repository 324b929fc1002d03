//! The monitor's loop while the program runs: output to the log and the clients, input and signals from them, questions
//! at the control socket, proxies, and the end of PID 1.
//!
//! One thread, one poll(2). When a client is slow, the container's pipes are left full until it has caught up: output
//! never piles up in memory (see `peers` for how long an attached client may take).

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::control::{self, Answer, Program, Served};
use super::ending::Ending;
use super::peers::{HIGH_WATER, Peers, Wish};
use crate::events::{self, Event};
use crate::health::probe::Checker;
use crate::request::restart::Restart;
use crate::request::signal::Signal;
use crate::roots::Roots;
use crate::state::Status;
use crate::{log, process, terminal, wire};

/// From one try to the next when another process has the routers' lock.
const WHILE_ROUTERS_ARE_BUSY: Duration = Duration::from_millis(200);
const CHUNK: usize = wire::MAX_FRAME;
/// More than a terminal holds (TTYB_DEFAULT_MEM_LIMIT of 64 KiB in drivers/tty/tty_buffer.c, and its line of 4 KiB).
const MOST_IN_TERMINAL: u64 = 1 << 20;

/// What the loop carries.
pub struct Relay {
    /// PID 1.
    pub pidfd: OwnedFd,
    /// Reading ends of the program's standard output and error.
    pub outputs: [Option<OwnedFd>; 2],
    /// The terminal's master, with `-t`.
    pub terminal: Option<OwnedFd>,
    /// The log; none with `--log-driver none`.
    pub log: Option<log::Writer>,
    /// Who is connected.
    pub peers: Peers,
    /// What the control socket's handlers work on; none for `exec`.
    pub served: Option<Served>,
    /// Whether there is a program to attach to.
    pub running: bool,
    /// What was typed and the terminal hasn't taken yet.
    pub to_terminal: Vec<u8>,
    /// The writing end of its standard input (`-i` without `-t`).
    pub stdin: Option<Stdin>,
    /// Whether the monitor itself is to end.
    pub ending: Ending,
    /// What is told when a client of `exec` leaves; of a container it is known from `served`.
    pub on_detach: Option<(Roots, Event)>,
}

/// What `attach` gets to write into.
pub struct Stdin {
    /// The pipe.
    pub pipe: OwnedFd,
    /// The program's input ends with the first client's that has had its say (docker's StdinOnce).
    pub once: bool,
}

/// How the program ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Exit code, 128+n when signal n ended it.
    pub code: i32,
    /// By SIGKILL: perhaps for memory.
    pub killed: bool,
}

impl Relay {
    /// Runs until PID 1 has ended and all its output has been read. `on_end` is called when PID 1 has ended, to kill
    /// processes outside its pid namespace.
    pub fn run(&mut self, on_end: impl FnOnce(Ended, Option<&Served>)) -> Result<Ended> {
        let mut on_end = Some(on_end);
        let mut ended = None;
        for fd in self.outputs.iter().chain([&self.terminal]).flatten() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        self.running = true;
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
            if self.step(ended.is_none(), None)? && ended.is_none() {
                let end = reap(&self.pidfd)?;
                ended = Some(end);
                self.running = false;
                self.ending.clear();
                if let Some(on_end) = on_end.take() {
                    on_end(end, self.served.as_ref());
                }
                self.take_rest();
            }
        }
    }

    /// Serves the control socket and the proxies while no program runs, until `deadline` or until `stop` says so after a
    /// question was answered.
    pub fn idle(&mut self, deadline: Instant, mut stop: impl FnMut(&Served) -> bool) -> Result<()> {
        while Instant::now() < deadline && !self.served.as_ref().is_some_and(&mut stop) {
            self.step(false, Some(deadline))?;
        }
        Ok(())
    }

    /// One turn; true when PID 1 has ended.
    fn step(&mut self, running: bool, deadline: Option<Instant>) -> Result<bool> {
        let mut pid1_ended = false;
        for (role, events) in self.wait(running, deadline)? {
            match role {
                Role::Pid1 => pid1_ended = true,
                Role::Output(stream) => self.read_output(stream),
                Role::Terminal => self.serve_terminal(events),
                Role::Listener => self.peers.accept(),
                Role::Health => {}
                Role::Session => self.end_session(),
                Role::Ending => self.end_in_order(),
                Role::Peer(index) => self.serve_peer(index, events),
                Role::Resolver => {
                    if let Some(resolver) = self.resolver() {
                        resolver.ready(Instant::now());
                    }
                }
                Role::Rules => {
                    if let Some(watch) = self.served.as_mut().and_then(|served| served.watch.as_mut()) {
                        watch.ready(Instant::now());
                    }
                }
                Role::Proxy(index) => {
                    // A question may have taken the proxy away in this very turn.
                    if let Some(proxy) = self.served.as_mut().and_then(|served| served.proxies.get_mut(index)) {
                        proxy.ready(Instant::now());
                    }
                }
            }
        }
        if running {
            self.look_after_routers();
            self.look_after_rules();
        }
        let now = Instant::now();
        self.ending.turn(&self.pidfd, now);
        for proxy in self.served.iter_mut().flat_map(|served| &mut served.proxies) {
            if proxy.timeout(now) == Some(Duration::ZERO) {
                proxy.ready(now);
            }
        }
        if let Some(resolver) = self.resolver().filter(|resolver| resolver.timeout(now) == Some(Duration::ZERO)) {
            resolver.ready(now);
        }
        if let Some(served) = self.served.as_mut().filter(|served| running && served.health.is_some()) {
            check_health(served, now);
        }
        self.peers.tidy();
        Ok(pid1_ended)
    }

    fn resolver(&mut self) -> Option<&mut netsetup::dns::Resolver> {
        self.served.as_mut().and_then(|served| served.resolver.as_mut())
    }

    /// Wakes them, when the container has just been started.
    fn look_after_routers(&mut self) {
        let now = Instant::now();
        let Some(served) = self.served.as_mut().filter(|served| served.routers_due.is_some_and(|due| due <= now))
        else {
            return;
        };
        served.routers_due = None;
        match crate::router::container_starts(&served.order.engine, &served.state) {
            Ok(true) => {}
            Ok(false) => served.routers_due = Some(now + WHILE_ROUTERS_ARE_BUSY),
            Err(problem) => self.peers.note(&format!("minidock: {}\n", crate::error::text(&problem))),
        }
    }

    /// Somebody may have flushed the firewall: brings back what is missing. An error is no matter here, the next change
    /// leads here again, and `network repair` tells it.
    fn look_after_rules(&mut self) {
        let Some(served) = &mut self.served else { return };
        let now = Instant::now();
        let Some(watch) = &mut served.watch else { return };
        if !watch.is_due(now) {
            served.looks.look(&served.order.engine, &served.state, now);
            return;
        }
        let change = watch.last_change().unwrap_or(now);
        if crate::walk::is_under_way(&served.order.engine.roots) {
            return; // its end is a change, too, and leads here again
        }
        served.looks.changed(change);
        let entries = served.journal.contents().map(|contents| contents.entries).unwrap_or_default();
        if let Ok(mut host) = netsetup::Host::open() {
            let _ = crate::network::repair::container(&served.order.engine, &served.state, &entries, &mut host);
        }
        // After the mending, which others' traffic waits for.
        served.looks.look(&served.order.engine, &served.state, Instant::now());
    }

    fn wait(&self, running: bool, deadline: Option<Instant>) -> Result<Vec<(Role, PollFlags)>> {
        let room = self.peers.have_room();
        let proxies = self.served.as_ref().map_or(&[][..], |served| &served.proxies);
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(6 + proxies.len());
        let mut roles = Vec::with_capacity(6 + proxies.len());
        let mut watch = |fd, events, role| {
            fds.push(PollFd::from_borrowed_fd(fd, events));
            roles.push(role);
        };
        if running {
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
            events.set(PollFlags::OUT, !self.to_terminal.is_empty());
            if !events.is_empty() {
                watch(terminal.as_fd(), events, Role::Terminal);
            }
        }
        for (index, fd, events) in self.peers.watch(self.to_terminal.len() < HIGH_WATER) {
            watch(fd, events, index.map_or(Role::Listener, Role::Peer));
        }
        let resolver = self.served.as_ref().and_then(|served| served.resolver.as_ref());
        if let Some(resolver) = resolver {
            watch(resolver.fd(), PollFlags::IN, Role::Resolver);
        }
        for (index, proxy) in proxies.iter().enumerate() {
            watch(proxy.fd(), PollFlags::IN, Role::Proxy(index));
        }
        let rules = self.served.as_ref().and_then(|served| served.watch.as_ref());
        if let Some(rules) = rules {
            watch(rules.fd(), PollFlags::IN, Role::Rules);
        }
        if let Some(session) = self.served.as_ref().and_then(|served| served.session.as_ref()) {
            watch(session.as_fd(), PollFlags::IN, Role::Session);
        }
        if let Some(ending) = self.ending.fd() {
            watch(ending, PollFlags::IN, Role::Ending);
        }
        let health = self.served.as_ref().filter(|_| running).and_then(|served| served.health.as_ref());
        if let Some(pipe) = health.and_then(Checker::fd) {
            watch(pipe, PollFlags::IN, Role::Health);
        }
        let now = Instant::now();
        let until = [deadline, self.peers.deadline(), health.map(Checker::deadline), self.ending.deadline()];
        let until = until.into_iter().flatten();
        let timeouts = until.map(|deadline| deadline.saturating_duration_since(now));
        let timeouts = timeouts.chain(resolver.and_then(|resolver| resolver.timeout(now)));
        let timeouts = timeouts.chain(rules.and_then(|rules| rules.timeout(now)));
        let routers = self.served.as_ref().filter(|_| running).and_then(|served| served.routers_due);
        let timeouts = timeouts.chain(routers.map(|due| due.saturating_duration_since(now)));
        let looks = self.served.as_ref().filter(|served| running && served.watch.is_some());
        let timeouts = timeouts.chain(looks.and_then(|served| served.looks.timeout(now)));
        let timeout = proxies.iter().filter_map(|proxy| proxy.timeout(now)).chain(timeouts).min().map(timespec);
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the container"),
        }
        let ready = fds.iter().zip(roles).filter(|(fd, _)| !fd.revents().is_empty());
        Ok(ready.map(|(fd, role)| (role, fd.revents())).collect())
    }

    /// The command of its session has ended: so does the program, and no policy starts it again.
    pub fn end_session(&mut self) {
        let Some(served) = &mut self.served else { return };
        served.session = None;
        (served.state.stopped_by_hand, served.restart_now) = (true, false);
        process::signal(&self.pidfd, libc::SIGKILL);
        if served.state.status == Status::Paused {
            // v1's freezer holds even SIGKILL back.
            let _ = control::thaw(served);
        }
    }

    /// As `stop`, but as for a machine that goes down: the next boot starts what its policy wants.
    fn end_in_order(&mut self) {
        if !self.ending.is_asked() {
            return;
        }
        let (mut signal, mut seconds) = (libc::SIGTERM, 10);
        if let Some(served) = &mut self.served {
            (served.shutting_down, served.restart_now) = (Some(Instant::now()), false);
            (signal, seconds) = (served.state.config.stop_signal, served.state.config.stop_timeout_seconds);
        }
        if !self.running {
            return;
        }
        self.ending.begin(&self.pidfd, signal, u64::try_from(seconds).ok().map(Duration::from_secs));
        if let Some(served) = &mut self.served {
            events::note(&served.order.engine.roots, Event::killed(&served.state, Signal(signal)));
            if served.state.status == Status::Paused {
                let _ = control::thaw(served); // a frozen program gets the signal when it goes on
            }
        }
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
    /// output open still (a program left behind by `exec`, another container that was sent it) isn't waited for, and may
    /// write on for ever: only what is in the pipe at this moment counts.
    fn take_rest(&mut self) {
        let mut chunk = [0u8; CHUNK];
        for stream in 0..self.outputs.len() {
            let Some(output) = self.outputs[stream].take() else { continue };
            let there = rustix::io::ioctl_fionread(&output).unwrap_or(MOST_IN_TERMINAL);
            self.pass_rest(stream, &output, there, &mut chunk);
        }
        if let Some(terminal) = self.terminal.take() {
            // FIONREAD doesn't count what is on its way between the two sides (tty_buffer.c).
            self.pass_rest(0, &terminal, MOST_IN_TERMINAL, &mut chunk);
        }
    }

    /// At most `left` bytes.
    fn pass_rest(&mut self, stream: usize, from: &OwnedFd, mut left: u64, chunk: &mut [u8]) {
        while left > 0 {
            let most = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match rustix::io::read(from, &mut chunk[..most]) {
                Ok(count) if count > 0 => {
                    self.pass_output(stream, &chunk[..count]);
                    left -= count as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                _ => return,
            }
        }
    }

    fn pass_output(&mut self, stream: usize, bytes: &[u8]) {
        if let Some(log) = &mut self.log {
            log.write(stream, bytes);
        }
        self.peers.output(stream, bytes);
    }

    fn serve_terminal(&mut self, events: PollFlags) {
        let Some(terminal) = &self.terminal else { return };
        if events.contains(PollFlags::OUT)
            && let Ok(written) = rustix::io::write(terminal, &self.to_terminal)
        {
            self.to_terminal.drain(..written);
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

    fn serve_peer(&mut self, index: usize, events: PollFlags) {
        for wish in self.peers.serve(index, events) {
            match wish {
                Wish::Signal(number) => drop(process::signal(&self.pidfd, number)),
                Wish::Input(bytes) => self.to_terminal.extend_from_slice(&bytes),
                Wish::Resize(rows, columns) => {
                    if let Some(terminal) = &self.terminal {
                        terminal::set_size(terminal.as_fd(), rows, columns);
                        self.served.iter().for_each(|served| control::resized(served, rows, columns));
                    }
                }
                Wish::Detached => {
                    if let Some((roots, event)) = &self.on_detach {
                        events::note(roots, event.clone());
                    }
                    if let Some(served) = &self.served {
                        events::note(&served.order.engine.roots, Event::container("detach", &served.state));
                    }
                }
                Wish::StdinEnd => drop(self.stdin.take_if(|stdin| stdin.once)),
                Wish::OwnerDied => {
                    // One with a restart policy isn't meant to end with its first client.
                    let stays = |served: &Served| served.order.request.restart != Restart::No;
                    if !self.served.as_ref().is_some_and(stays) {
                        process::signal(&self.pidfd, libc::SIGKILL);
                    }
                }
                Wish::Call(request) if request.kind == control::ATTACH => self.attach(index, &request),
                Wish::Call(request) if request.kind == "wait" => {
                    if let Err(error) = self.peers.wait(index) {
                        self.peers.answer(index, &Answer { ok: None, error: Some(error) });
                    }
                }
                Wish::Call(request) => {
                    let program =
                        Program { pidfd: self.pidfd.as_fd(), terminal: self.terminal.as_ref().map(AsFd::as_fd) };
                    let Some(served) = &mut self.served else { continue };
                    let answer = match control::handle(served, program, &request) {
                        Ok(ok) => Answer { ok: Some(ok), error: None },
                        Err(error) => Answer { ok: None, error: Some(crate::error::text(&error)) },
                    };
                    self.peers.answer(index, &answer);
                }
            }
        }
    }
}

impl Relay {
    fn attach(&mut self, index: usize, request: &control::Request) {
        let wants_stdin = request.body.get("stdin").and_then(serde_json::Value::as_bool) == Some(true);
        if !self.running {
            let error = Some("You cannot attach to a restarting container, wait until it is running".to_string());
            return self.peers.answer(index, &Answer { ok: None, error });
        }
        if let Err(error) = self.peers.may_attach() {
            return self.peers.answer(index, &Answer { ok: None, error: Some(error) });
        }
        let stdin = self.stdin.as_ref().filter(|_| wants_stdin).map(|stdin| stdin.pipe.as_fd());
        let ok = serde_json::json!({"terminal": self.terminal.is_some(), "stdin": stdin.is_some()});
        if let Some(served) = &self.served {
            events::note(&served.order.engine.roots, Event::container("attach", &served.state));
        }
        self.peers.attach(index, &Answer { ok: Some(ok), error: None }, stdin);
    }
}

#[derive(Clone, Copy)]
enum Role {
    Pid1,
    Output(usize),
    Terminal,
    Listener,
    Peer(usize),
    Proxy(usize),
    Resolver,
    Rules,
    /// Looked at in each turn.
    Health,
    Session,
    Ending,
}

fn check_health(served: &mut Served, now: Instant) {
    let Some(health) = &mut served.health else { return };
    if health.fd().is_none() && now < health.deadline() {
        return;
    }
    let before = served.state.health.clone();
    let changed = health.turn(&served.order.engine.roots, &mut served.state);
    if served.state.health != before {
        // A full disk: the next result is another try.
        let _ = served.state.write(&served.order.engine.roots);
    }
    if changed && let Some(health) = &served.state.health {
        let action = format!("health_status: {}", health.status.name());
        events::note(&served.order.engine.roots, Event::container(&action, &served.state));
    }
}

/// For poll(2).
pub fn timespec(duration: Duration) -> Timespec {
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
