//! `boot --stop`: ends all containers before the machine goes down, side by side, so that none waits for another's time nor
//! for another's monitor that is stuck. One loop, no threads.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;

use super::stop;
use crate::containers;
use crate::error;
use crate::monitor::control::call;
use crate::monitor::relay::timespec;
use crate::process;
use crate::recover;
use crate::roots::Roots;
use crate::state::State;

/// The longest that a program has for its end when the machine goes down: after the unit's `TimeoutStopSec` systemd would
/// kill whatever is left.
const LONGEST: Duration = Duration::from_secs(100);
/// How long a monitor may take to answer, and to take away what its run needed. After that it's killed, and its cleaner
/// does the rest.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many at a time; each has a descriptor open.
const AT_ONCE: usize = 256;
/// Between two looks at what no descriptor tells.
const PAUSE: Duration = Duration::from_millis(5);

/// Stops all containers, each with its own signal and time, and prints their names. Nobody has stopped them by hand: the
/// next boot starts those whose policy wants it.
pub fn stop_all(roots: &Roots) -> Result<u8> {
    // Whoever has least time comes first.
    let mut waiting: Vec<State> = containers::all(roots).into_iter().filter(State::is_alive).collect();
    waiting.sort_by_key(grace);
    let mut waiting: VecDeque<State> = waiting.into();
    let mut active: Vec<Ending> = Vec::new();
    let mut failed = false;
    while !active.is_empty() || !waiting.is_empty() {
        while active.len() < AT_ONCE
            && let Some(state) = waiting.pop_front()
        {
            active.push(Ending { state, step: Step::Calling, since: Instant::now() });
        }
        let mut going = Vec::with_capacity(active.len());
        for mut one in active {
            match one.turn(roots) {
                Ok(false) => going.push(one),
                Ok(true) => println!("{}", one.state.name),
                Err(problem) => {
                    eprintln!("minidock: cannot stop container {}: {}", one.state.name, error::text(&problem));
                    failed = true;
                }
            }
        }
        active = going;
        wait(&active);
    }
    Ok(u8::from(failed))
}

fn grace(state: &State) -> Duration {
    stop::grace(state, None).map_or(LONGEST, |grace| grace.min(LONGEST))
}

/// Until one of them may have something to do.
fn wait(active: &[Ending]) {
    let mut fds: Vec<PollFd<'_>> =
        active.iter().filter_map(Ending::fd).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    if !active.is_empty() {
        // An interrupted wait is as good as a short one.
        let _ = poll(&mut fds, Some(&timespec(PAUSE)));
    }
}

/// One container on its way.
struct Ending {
    state: State,
    step: Step,
    since: Instant,
}

enum Step {
    /// Its monitor hasn't taken the call.
    Calling,
    /// Its monitor has been told, and has not answered.
    Asked(UnixStream),
    /// Its program has got its signal.
    Signalled(OwnedFd),
    /// Its program has got SIGKILL.
    Killed(OwnedFd),
    /// Its program has ended; what the run needed is being taken away.
    Ended {
        /// By the cleaner: the monitor was stuck.
        forced: bool,
    },
}

impl Ending {
    /// Tells its monitor, so that no restart policy starts it again.
    fn tell(&mut self, roots: &Roots) {
        let asked = call::try_connect(roots, &self.state.id).and_then(|socket| {
            socket
                .map(|socket| call::ask(&socket, "stopping", &json!({ "shutdown": true })).map(|()| socket))
                .transpose()
        });
        match asked {
            Ok(Some(socket)) => self.next(Step::Asked(socket)),
            Ok(None) => {}
            // Nobody is there who would start it again.
            Err(_) => self.signal(roots),
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.step {
            Step::Asked(socket) => Some(socket.as_fd()),
            Step::Signalled(pidfd) | Step::Killed(pidfd) => Some(pidfd.as_fd()),
            Step::Calling | Step::Ended { .. } => None,
        }
    }

    fn next(&mut self, step: Step) {
        (self.step, self.since) = (step, Instant::now());
    }

    /// Goes on as far as it can without waiting. True when nothing of the run is left.
    fn turn(&mut self, roots: &Roots) -> Result<bool> {
        let late = self.since.elapsed() >= PATIENCE;
        match &self.step {
            Step::Asked(socket) if is_ready(socket.as_fd()) => {
                // Its answer, or that it has just ended: either way it starts nothing again.
                let _ = call::hear(socket, &self.state.id);
                self.signal(roots);
            }
            // Its program has its signal and its time even so. A monitor that only can't be called hears this.
            Step::Calling | Step::Asked(_) if late => {
                if let Some(monitor) = self.state.monitor.and_then(|monitor| monitor.open()) {
                    process::signal(&monitor, libc::SIGTERM);
                }
                self.signal(roots);
            }
            Step::Calling => self.tell(roots),
            Step::Signalled(pidfd) if is_ready(pidfd.as_fd()) => self.next(Step::Ended { forced: false }),
            Step::Signalled(pidfd) if self.since.elapsed() >= grace(&self.state) => {
                stop::send(roots, &self.state, pidfd, libc::SIGKILL);
                if let Ok(pidfd) = pidfd.try_clone() {
                    self.next(Step::Killed(pidfd));
                }
            }
            Step::Killed(pidfd) if is_ready(pidfd.as_fd()) => self.next(Step::Ended { forced: false }),
            Step::Killed(_) if late => self.force(),
            Step::Ended { forced } => {
                if stop::is_undone(roots, &self.state)? {
                    return Ok(true);
                }
                match forced {
                    true if late => bail!("container {} is still held by its monitor", recover::short(&self.state.id)),
                    false if late => self.force(),
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(false)
    }

    /// The stop signal, to what runs now.
    fn signal(&mut self, roots: &Roots) {
        if let Ok(Some(now)) = State::read(&roots.container(&self.state.id)) {
            self.state = now;
        }
        match self.state.process.and_then(|process| process.open()) {
            Some(pidfd) => {
                stop::send(roots, &self.state, &pidfd, self.state.config.stop_signal);
                self.next(Step::Signalled(pidfd));
            }
            None => self.next(Step::Ended { forced: false }),
        }
    }

    /// Its monitor doesn't do its work: it's killed, with the program, and its cleaner goes on.
    fn force(&mut self) {
        stop::kill_monitor(&self.state);
        self.next(Step::Ended { forced: true });
    }
}

fn is_ready(fd: BorrowedFd<'_>) -> bool {
    let now = timespec(Duration::ZERO);
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&now)).is_ok_and(|count| count > 0)
}
