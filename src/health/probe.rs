//! Runs health checks, from the monitor and without holding it up: each run is a forked process that enters the
//! container as `exec` does, waits for the program's end and writes the result into a pipe.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{Health, Healthcheck, Probe};
use crate::commands::exec;
use crate::error::Failure;
use crate::log;
use crate::process;
use crate::roots::Roots;
use crate::state::{State, Status};
use crate::sys::{self, Fork};

/// docker keeps so much of a run's output.
const MOST_OUTPUT: usize = 4096;
/// Of a result; the relay has other work, and comes back while there is more.
const READS_A_TURN: usize = 16;
/// A result longer than this isn't one.
const MOST_RESULT: usize = 256 << 10;
/// What the forked process may take beyond the check's own time limit.
const SPARE: Duration = Duration::from_secs(10);
/// docker's exit code of a run that took too long.
const TIMED_OUT: i32 = -1;

/// The checks of one run of a container, one after the other.
pub struct Checker {
    check: Healthcheck,
    command: Vec<String>,
    started: Instant,
    due: Instant,
    running: Option<Running>,
}

struct Running {
    child: Pid,
    pipe: OwnedFd,
    received: Vec<u8>,
    began: Instant,
    start: String,
    deadline: Instant,
}

impl Checker {
    /// For a program that has just been started; none when there's nothing to check.
    pub fn new(state: &State) -> Option<Checker> {
        let check = state.config.health.clone()?;
        let command = check.command(&state.config.shell)?;
        let started = Instant::now();
        let due = started + check.pause(super::Status::Starting, Duration::ZERO);
        Some(Checker { check, command, started, due, running: None })
    }

    /// For poll(2), while a check runs.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().map(|running| running.pipe.as_fd())
    }

    /// When [`Checker::turn`] is wanted even if nothing comes from the pipe.
    pub fn deadline(&self) -> Instant {
        self.running.as_ref().map_or(self.due, |running| running.deadline)
    }

    /// Goes on as far as it can without waiting. True when the state has changed in a way to be told.
    pub fn turn(&mut self, roots: &Roots, state: &mut State) -> bool {
        let now = Instant::now();
        if self.running.is_some() {
            return self.hear(now, state);
        }
        if now >= self.due {
            // A frozen program can't be asked.
            match (state.status == Status::Running).then(|| self.begin(roots, state)).flatten() {
                Some(running) => self.running = Some(running),
                None => self.due = now + self.pause(state),
            }
        }
        false
    }

    fn pause(&self, state: &State) -> Duration {
        let status = state.health.as_ref().map_or(super::Status::Starting, |health| health.status);
        self.check.pause(status, self.started.elapsed())
    }

    fn begin(&self, roots: &Roots, state: &State) -> Option<Running> {
        let (pipe, result) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let (start, began) = (log::now(), Instant::now());
        let monitor = rustix::process::getpid();
        match sys::fork().ok()? {
            Fork::Parent(child) => {
                let deadline = began + self.check.timeout() + SPARE;
                Some(Running { child, pipe, received: vec![], began, start, deadline })
            }
            Fork::Child => {
                sys::close_all_but(&[result.as_fd()]);
                let probe = self.ask(roots, state, start, monitor);
                let mut result = File::from(result);
                // More than the pipe holds is never written: the output is bounded.
                let _ = result.write_all(&serde_json::to_vec(&probe).unwrap_or_default());
                sys::exit_now(0)
            }
        }
    }

    /// In the forked process.
    fn ask(&self, roots: &Roots, state: &State, start: String, monitor: rustix::process::Pid) -> Probe {
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        if rustix::process::getppid() != Some(monitor) {
            sys::exit_now(1);
        }
        let timeout = self.check.timeout();
        match exec::probe(roots, state, &self.command) {
            Ok((running, outputs)) => {
                let (exit_code, output) = watch(&running.pidfd, outputs, timeout);
                Probe { start, end: log::now(), exit_code, output }
            }
            Err(error) => {
                let failure = Failure::from(error);
                let output = format!(
                    "OCI runtime exec failed: exec failed: unable to start container process: {}",
                    failure.message
                );
                Probe { start, end: log::now(), exit_code: i32::from(failure.code), output }
            }
        }
    }

    fn hear(&mut self, now: Instant, state: &mut State) -> bool {
        let Some(running) = &mut self.running else { return false };
        let mut chunk = [0u8; 4096];
        let mut ended = false;
        for _ in 0..READS_A_TURN {
            match rustix::io::read(&running.pipe, &mut chunk) {
                Ok(0) => ended = true,
                Ok(count) if running.received.len() < MOST_RESULT => {
                    running.received.extend_from_slice(&chunk[..count])
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => ended = true,
            }
            if ended {
                break;
            }
        }
        if !ended && now < running.deadline {
            return false;
        }
        let Some(running) = self.running.take() else { return false };
        let since_start = running.began.saturating_duration_since(self.started);
        let start = running.start.clone();
        let probe = serde_json::from_slice(&running.received).unwrap_or_else(|_| Probe {
            start,
            end: log::now(),
            exit_code: TIMED_OUT,
            output: too_long(self.check.timeout()),
        });
        drop(running);
        let changed = state.health.get_or_insert_with(Health::new).note(probe, &self.check, since_start);
        self.due = now + self.pause(state);
        changed
    }
}

impl Drop for Running {
    /// It has ended, or is to: nobody waits for it any more.
    fn drop(&mut self) {
        let _ = kill(self.child, Signal::SIGKILL);
        let _ = waitpid(self.child, None);
    }
}

fn too_long(timeout: Duration) -> String {
    format!("Health check exceeded timeout ({timeout:?})")
}

/// The program's exit code and the beginning of its output. Kills it when its time is over.
fn watch(pidfd: &OwnedFd, outputs: [Option<OwnedFd>; 2], timeout: Duration) -> (i32, String) {
    let mut outputs: Vec<File> = outputs.into_iter().flatten().map(File::from).collect();
    let mut output = Vec::new();
    let deadline = Instant::now() + timeout;
    let mut chunk = [0u8; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            process::signal(pidfd, libc::SIGKILL);
            return (TIMED_OUT, too_long(timeout));
        }
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(pidfd, PollFlags::IN)];
        fds.extend(outputs.iter().map(|file| PollFd::new(file, PollFlags::IN)));
        let timeout = crate::monitor::relay::timespec(left);
        if !matches!(poll(&mut fds, Some(&timeout)), Ok(_) | Err(rustix::io::Errno::INTR)) {
            return (TIMED_OUT, "cannot wait for the health check".to_string());
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut open = Vec::with_capacity(2);
        for (mut file, ready) in outputs.drain(..).zip(&ready[1..]) {
            let count = if *ready { file.read(&mut chunk).unwrap_or(0) } else { 1 };
            if *ready {
                let room = MOST_OUTPUT - output.len().min(MOST_OUTPUT);
                output.extend_from_slice(&chunk[..count.min(room)]);
            }
            if count > 0 {
                open.push(file);
            }
        }
        outputs = open;
        // What it left running may hold the outputs open; only its own end counts.
        if ready[0] && !ready[1..].contains(&true) {
            break;
        }
    }
    let code = match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
        Ok(Some(status)) => status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal)),
        _ => None,
    };
    (code.unwrap_or(TIMED_OUT), String::from_utf8_lossy(&output).into_owned())
}
