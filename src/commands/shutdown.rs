//! Ends many containers side by side, so that none waits for another's time nor for another's monitor that is stuck: `stop`,
//! and `boot --stop` before the machine goes down. One loop, no threads.

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
use crate::events::{self, Event};
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
    let mut failed = false;
    let ending = |state: State| {
        let (signal, grace) = (state.config.stop_signal, Some(grace(&state)));
        Ending { state, step: Step::Calling, since: Instant::now(), signal, grace, for_shutdown: true }
    };
    side_by_side(roots, waiting.drain(..).map(ending).collect(), |_, one, result| match result {
        Ok(()) => println!("{}", one.state.name),
        Err(problem) => {
            eprintln!("minidock: cannot stop container {}: {}", one.state.name, error::text(&problem));
            failed = true;
        }
    });
    Ok(u8::from(failed))
}

/// Stops these containers by hand; gives what came of each, in their order. Each name stands for one: a mistake is handed
/// through.
///
/// `signal`, `seconds`: instead of their own.
pub fn stop_these(
    roots: &Roots,
    found: Vec<Result<State>>,
    signal: Option<i32>,
    seconds: Option<i64>,
    mut tell: impl FnMut(usize, Result<()>),
) {
    let mut results: Vec<Option<Result<()>>> = Vec::with_capacity(found.len());
    let (mut endings, mut places) = (VecDeque::new(), Vec::new());
    for (place, state) in found.into_iter().enumerate() {
        match state {
            Ok(state) if state.is_alive() => {
                let (signal, grace) = (signal.unwrap_or(state.config.stop_signal), stop::grace(&state, seconds));
                places.push(place);
                endings.push_back(Ending {
                    state,
                    step: Step::Calling,
                    since: Instant::now(),
                    signal,
                    grace,
                    for_shutdown: false,
                });
                results.push(None);
            }
            other => results.push(Some(other.map(drop))),
        }
    }
    // Told in their order, each as soon as those before it are known: as docker does it.
    let mut told = 0;
    let mut tell_known = |results: &mut Vec<Option<Result<()>>>| {
        while let Some(result) = results.get_mut(told).and_then(Option::take) {
            tell(told, result);
            told += 1;
        }
    };
    tell_known(&mut results);
    side_by_side(roots, endings, |index, one, result| {
        if result.is_ok() {
            events::note(roots, Event::container("stop", &one.state));
        }
        results[places[index]] = Some(result);
        tell_known(&mut results);
    });
}

/// Ends all; `done` is called with each one's index as it comes to its end.
fn side_by_side(roots: &Roots, mut waiting: VecDeque<Ending>, mut done: impl FnMut(usize, &Ending, Result<()>)) {
    let mut active: Vec<(usize, Ending)> = Vec::new();
    let mut next = 0;
    while !active.is_empty() || !waiting.is_empty() {
        while active.len() < AT_ONCE
            && let Some(mut one) = waiting.pop_front()
        {
            one.since = Instant::now();
            active.push((next, one));
            next += 1;
        }
        active.retain_mut(|(index, one)| match one.turn(roots) {
            Ok(false) => true,
            Ok(true) => {
                done(*index, one, Ok(()));
                false
            }
            Err(problem) => {
                done(*index, one, Err(problem));
                false
            }
        });
        wait(&active);
    }
}

fn grace(state: &State) -> Duration {
    stop::grace(state, None).map_or(LONGEST, |grace| grace.min(LONGEST))
}

/// Until one of them may have something to do.
fn wait(active: &[(usize, Ending)]) {
    let fds = active.iter().filter_map(|(_, one)| one.fd());
    let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    if !active.is_empty() {
        // An interrupted wait is as good as a short one.
        let pause =
            if active.iter().any(|(_, one)| matches!(one.step, Step::Ended { .. })) { PAUSE / 5 } else { PAUSE };
        let _ = poll(&mut fds, Some(&timespec(pause)));
    }
}

/// One container on its way.
struct Ending {
    state: State,
    step: Step,
    since: Instant,
    signal: i32,
    /// How long its program has for its end; none: for ever.
    grace: Option<Duration>,
    /// Else by hand: then a monitor that hangs isn't killed, and a policy doesn't start the program again at boot either.
    for_shutdown: bool,
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
    fn tell(&mut self, roots: &Roots) -> Result<()> {
        let why = if self.for_shutdown { json!({ "shutdown": true }) } else { serde_json::Value::Null };
        let asked = call::try_connect(roots, &self.state.id)
            .and_then(|socket| socket.map(|socket| call::ask(&socket, "stopping", &why).map(|()| socket)).transpose());
        match asked {
            Ok(Some(socket)) => self.next(Step::Asked(socket)),
            Ok(None) => {}
            // Nobody is there who would start it again.
            Err(error) => self.told(roots, Err(error))?,
        }
        Ok(())
    }

    /// Its monitor has been told, or can't be.
    fn told(&mut self, roots: &Roots, told: Result<()>) -> Result<()> {
        if !self.for_shutdown {
            stop::may_end(roots, &self.state, told.err())?;
        }
        self.signal(roots);
        Ok(())
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
                let answer = call::hear(socket, &self.state.id).map(drop);
                self.told(roots, answer)?;
            }
            // Its program has its signal and its time even so. A monitor that only can't be called hears this.
            Step::Calling | Step::Asked(_) if late && self.for_shutdown => {
                if let Some(monitor) = self.state.monitor.and_then(|monitor| monitor.open()) {
                    process::signal(&monitor, libc::SIGTERM);
                }
                self.signal(roots);
            }
            Step::Calling | Step::Asked(_) if late => {
                let hangs = call::unanswered(&self.state.id, std::io::ErrorKind::TimedOut.into());
                self.told(roots, Err(hangs))?;
            }
            Step::Calling => self.tell(roots)?,
            Step::Signalled(pidfd) if is_ready(pidfd.as_fd()) => self.next(Step::Ended { forced: false }),
            Step::Signalled(pidfd) if self.grace.is_some_and(|grace| self.since.elapsed() >= grace) => {
                stop::send(roots, &self.state, pidfd, libc::SIGKILL);
                if let Ok(pidfd) = pidfd.try_clone() {
                    self.next(Step::Killed(pidfd));
                }
            }
            Step::Killed(pidfd) if is_ready(pidfd.as_fd()) => self.next(Step::Ended { forced: false }),
            Step::Killed(_) if late && self.for_shutdown => self.force(),
            Step::Killed(_) if late => self.next(Step::Ended { forced: false }),
            Step::Ended { forced } => {
                if stop::is_undone(roots, &self.state)? {
                    return Ok(true);
                }
                match forced {
                    _ if late && !self.for_shutdown => return Err(stop::still_held(&self.state)),
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
                stop::send(roots, &self.state, &pidfd, self.signal);
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
