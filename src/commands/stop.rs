//! `stop`, `kill`, `rm`, `wait`: the commands that end containers, or wait for their end.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;

use super::{each, shutdown};
use crate::cli::{ContainersArgs, KillArgs, RmArgs, StopArgs};
use crate::containers;
use crate::error;
use crate::events::{self, Event};
use crate::journal::Journal;
use crate::monitor::control::call;
use crate::monitor::relay::timespec;
use crate::process;
use crate::recover::{self, Claim, Scope};
use crate::request::restart::Restart;
use crate::request::signal::{self, Signal};
use crate::roots::Roots;
use crate::state::{State, Status};
use crate::view;

/// After SIGKILL, how long the monitor may take to notice and to undo.
const PATIENCE: Duration = Duration::from_secs(20);

/// The stop signal, then SIGKILL, to all at once; returns when nothing of the runs is left.
pub fn stop(roots: &Roots, args: &StopArgs) -> Result<u8> {
    let signal = args.signal.as_deref().map(signal_number).transpose()?;
    let found = args.containers.iter().map(|name| containers::find(roots, name)).collect();
    let mut code = 0;
    shutdown::stop_these(roots, found, signal, args.timeout, |at, result| match result {
        Ok(()) => println!("{}", args.containers[at]),
        Err(problem) => {
            eprintln!("minidock: {}", error::text(&problem));
            code = 1;
        }
    });
    Ok(code)
}

/// How long the program has for its end; none: for ever.
pub fn grace(state: &State, wanted: Option<i64>) -> Option<Duration> {
    u64::try_from(wanted.unwrap_or(state.config.stop_timeout_seconds)).ok().map(Duration::from_secs)
}

/// A signal's number.
///
/// # Errors
/// There's no such signal.
pub fn signal_number(text: &str) -> Result<i32> {
    signal::parse(text).map(|signal| signal.0).map_err(|why| anyhow!(why))
}

/// Asks the program to end, then kills it, and waits until its run has been undone. No restart policy starts it again.
pub fn end(roots: &Roots, state: &State, signal: i32, grace: Option<Duration>, why: Why) -> Result<()> {
    let state = ask_to_end(roots, state, signal, why)?;
    insist(roots, &state, grace)
}

/// Who stops a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The user: `unless-stopped` doesn't start it at boot either.
    Hand,
    /// The user, at any price: a monitor that can't be told is killed, and its cleaner ends the run.
    Force,
}

/// Asks the program to end; gives the container's state then. From here on no restart policy starts it.
///
/// # Errors
/// Its monitor can't be told, and would start it again.
pub fn ask_to_end(roots: &Roots, state: &State, signal: i32, why: Why) -> Result<State> {
    let state = stopping(roots, state, why)?.0;
    if let Some(pidfd) = state.process.and_then(|process| process.open()) {
        send(roots, &state, &pidfd, signal);
    }
    Ok(state)
}

/// Kills the program if it doesn't end in time (none: it has for ever), and waits until its run has been undone.
///
/// # Errors
/// The monitor doesn't let go of it.
pub fn insist(roots: &Roots, state: &State, grace: Option<Duration>) -> Result<()> {
    kill_after(roots, state, grace);
    let deadline = Instant::now() + PATIENCE;
    while !is_undone(roots, state)? {
        if Instant::now() >= deadline {
            return Err(still_held(state));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The monitor doesn't take away what the run needed.
pub fn still_held(state: &State) -> anyhow::Error {
    anyhow!(
        "container {} is still held by its monitor, which may be stopped (see 'ps -C minidock'); \
         'minidock rm -f {}' ends it at any price",
        recover::short(&state.id),
        state.name
    )
}

/// Whether nothing of this run of it is left; undoes what a monitor that was killed has left.
///
/// # Errors
/// That fails.
pub fn is_undone(roots: &Roots, state: &State) -> Result<bool> {
    let folder = roots.container(&state.id);
    if let Some(journal) = Journal::take_over(&folder.join("journal"))? {
        return recover::settle(roots, &state.id, &journal).map(|()| true);
    }
    // Another command may have started it once more; that is another run.
    let again = State::read(&folder)?.is_some_and(|now| now.is_open() && now.process != state.process);
    Ok(again || !folder.join("journal").exists())
}

/// The signal, to what runs now.
pub fn signal_program(roots: &Roots, state: &State, signal: i32) {
    if let Some(pidfd) = state.process.and_then(|process| process.open()) {
        send(roots, state, &pidfd, signal);
    }
}

/// SIGKILL, if the program hasn't ended by then (none: it has for ever).
pub fn kill_after(roots: &Roots, state: &State, grace: Option<Duration>) {
    let Some(pidfd) = state.process.and_then(|process| process.open()) else { return };
    if !process::wait_end(&pidfd, grace) {
        send(roots, state, &pidfd, libc::SIGKILL);
        process::wait_end(&pidfd, Some(PATIENCE));
    }
}

/// Sends a signal to its program, and tells of it.
pub fn send(roots: &Roots, state: &State, pidfd: &OwnedFd, signal: i32) -> bool {
    // Before the signal, so that nobody reads of the program's death first.
    if !process::wait_end(pidfd, Some(Duration::ZERO)) {
        events::note(roots, Event::killed(state, Signal(signal)));
    }
    let sent = process::signal(pidfd, signal);
    if sent {
        thaw(roots, state);
    }
    sent
}

/// A frozen program gets the signal when it goes on.
fn thaw(roots: &Roots, state: &State) {
    if state.status == Status::Paused {
        let _ = call::call(roots, &state.id, "unpause", &Value::Null);
    }
}

/// Tells the monitor that the container is stopped, and by whom; gives the state then, and whether the monitor had to be
/// killed. One that has just ended needs no telling. One that can't be told would start the program again: then it isn't
/// ended at all, unless by force.
fn stopping(roots: &Roots, state: &State, why: Why) -> Result<(State, bool)> {
    if !state.is_alive() {
        return Ok((state.clone(), false));
    }
    let told = call::call(roots, &state.id, "stopping", &Value::Null);
    let now = State::read(&roots.container(&state.id))?.unwrap_or_else(|| state.clone());
    let Some(error) = told.err().filter(|_| now.is_alive()) else { return Ok((now, false)) };
    if why == Why::Force && kill_monitor(&now).is_some_and(|pidfd| process::wait_end(&pidfd, Some(PATIENCE))) {
        return Ok((now, true));
    }
    may_end(roots, &now, Some(error)).map(|()| (now, false))
}

/// Whether a program whose monitor couldn't be told, and so why, can be ended: not when it would be started again.
///
/// # Errors
/// It would.
pub fn may_end(roots: &Roots, state: &State, told: Option<anyhow::Error>) -> Result<()> {
    let Some(error) = told else { return Ok(()) };
    let Some(now) = State::read(&roots.container(&state.id))?.filter(State::is_alive) else { return Ok(()) };
    match view::request(&now)?.restart {
        Restart::No => Ok(()),
        _ => Err(error.context(format!(
            "cannot stop the container: its restart policy would start it again; 'minidock rm -f {}' ends it at any price",
            now.name
        ))),
    }
}

/// Kills its monitor, and so its program. A container that an older version started doesn't say who that is.
pub fn kill_monitor(state: &State) -> Option<OwnedFd> {
    let pidfd = state.monitor.and_then(|monitor| monitor.open())?;
    process::signal(&pidfd, libc::SIGKILL);
    Some(pidfd)
}

/// Sends a signal.
pub fn kill(roots: &Roots, args: &KillArgs) -> Result<u8> {
    let signal = args.signal.as_deref().filter(|text| !text.is_empty()).map_or(Ok(libc::SIGKILL), signal_number)?;
    each(&args.containers, |name| {
        let mut state = containers::find_running(roots, name).context("cannot kill container")?;
        let mut forced = false;
        if signal == libc::SIGKILL || signal == state.config.stop_signal {
            let why = if signal == libc::SIGKILL { Why::Force } else { Why::Hand };
            (state, forced) = stopping(roots, &state, why)?;
        }
        let sent = match state.process.and_then(|process| process.open()) {
            Some(pidfd) => {
                let sent = send(roots, &state, &pidfd, signal);
                if signal == libc::SIGKILL {
                    process::wait_end(&pidfd, Some(PATIENCE));
                }
                sent || forced
            }
            None => {
                forced || state.status == Status::Restarting || state.status == Status::Exited && state.stopped_by_hand
            }
        };
        if !sent {
            bail!("cannot kill container: container {} is not running", recover::short(&state.id));
        }
        println!("{name}");
        Ok(())
    })
}

/// Removes containers: the undo of their journals.
pub fn rm(roots: &Roots, args: &RmArgs) -> Result<u8> {
    each(&args.containers, |name| {
        let id = match containers::find_id(roots, name) {
            Err(error) if args.force && error.to_string().starts_with(containers::NO_SUCH) => {
                eprintln!("minidock: {error}");
                return Ok(());
            }
            other => other?,
        };
        let scope = if args.volumes { Scope::Container } else { Scope::ContainerWithoutVolumes };
        remove(roots, &id, name, args.force, scope)?;
        println!("{name}");
        Ok(())
    })
}

/// Removes one container; a running one only by force.
pub fn remove(roots: &Roots, id: &str, name: &str, force: bool, scope: Scope) -> Result<()> {
    let journal = loop {
        let claim = match recover::claim(roots, id, PATIENCE) {
            // Its state can't be read, or its monitor hangs though its program has ended: its journal says what to undo.
            Err(error) if force => match call::listener(roots, id) {
                Some(monitor) => {
                    process::signal(&monitor, libc::SIGKILL);
                    process::wait_end(&monitor, Some(PATIENCE));
                    recover::wait_for_owner(roots, id, PATIENCE)?.map_or(Claim::Gone, Claim::Ours)
                }
                None => return Err(error),
            },
            other => other?,
        };
        match claim {
            Claim::Gone if force => return Ok(()),
            Claim::Gone => bail!("{}{name}", containers::NO_SUCH), // another command was faster
            Claim::Ours(journal) => break journal,
            Claim::Running(state) if !force => bail!(
                "cannot remove container {name:?}: container is {}: stop the container before removing or force remove",
                match state.status {
                    Status::Paused => "paused",
                    Status::Restarting => "restarting",
                    _ => "running",
                }
            ),
            Claim::Running(state) => end(roots, &state, libc::SIGKILL, Some(PATIENCE), Why::Force)?,
        }
    };
    // By force also one whose state this version can't read: its journal alone says what to undo.
    let state = State::read(&roots.container(id));
    if let Some(mut state) = if force { state.unwrap_or_default() } else { state? } {
        state.status = Status::Removing;
        state.write(roots)?; // whoever comes after a crash goes on with it
    }
    recover::first_error(recover::remove(roots, id, &journal, scope))
        .with_context(|| format!("cannot remove container {name:?}"))
}

/// Waits for the end of containers and prints their exit codes, in the order of the arguments. All are asked first: one
/// with `--rm` can't be asked any more when it has ended.
pub fn wait(roots: &Roots, args: &ContainersArgs) -> Result<u8> {
    let mut asked: Vec<Result<Asked>> = args.containers.iter().map(|name| ask(roots, name)).collect();
    let mut next = asked.drain(..);
    each(&args.containers, |name| {
        let code = next.next().unwrap_or_else(|| bail!("{}{name}", containers::NO_SUCH))?.code(roots)?;
        println!("{code}");
        Ok(())
    })
}

struct Asked {
    id: String,
    monitor: Option<UnixStream>,
    /// The run that it's about.
    program: Option<OwnedFd>,
}

fn ask(roots: &Roots, name: &str) -> Result<Asked> {
    let state = containers::find(roots, name)?;
    let program = state.process.and_then(|process| process.open());
    let mut asked = Asked { id: state.id.clone(), monitor: None, program };
    if state.is_alive()
        && let Ok(monitor) = call::connect(roots, &state.id)
    {
        monitor.set_read_timeout(None)?;
        if call::ask(&monitor, "wait", &Value::Null).is_ok() {
            asked.monitor = Some(monitor);
        }
    }
    Ok(asked)
}

impl Asked {
    fn code(self, roots: &Roots) -> Result<i64> {
        if let Some(monitor) = &self.monitor {
            self.wait_for_answer(monitor)?;
        }
        if let Some(code) = self.monitor.and_then(|monitor| call::hear(&monitor, &self.id).ok()) {
            return code.as_i64().ok_or_else(|| anyhow!("the container's monitor sent no exit code"));
        }
        // It had ended just before, or its monitor was killed: whoever has it now notes how it ended.
        drop(recover::wait_for_owner(roots, &self.id, PATIENCE)?);
        let state = State::read(&roots.container(&self.id))?;
        state.map(|state| i64::from(state.exit_code)).ok_or_else(|| {
            anyhow!("{}{}: it was started with --rm and has ended", containers::NO_SUCH, recover::short(&self.id))
        })
    }

    /// For ever while the program runs; then its monitor has to tell soon.
    fn wait_for_answer(&self, monitor: &UnixStream) -> Result<()> {
        let Some(program) = &self.program else { return Ok(()) };
        let wait = |fds: &mut [PollFd<'_>], limit: Option<Duration>| loop {
            match poll(fds, limit.map(timespec).as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.context("cannot wait for the container's end"),
            }
        };
        let mut fds = [PollFd::new(monitor, PollFlags::IN), PollFd::new(program, PollFlags::IN)];
        wait(&mut fds, None)?;
        if fds[0].revents().is_empty() && wait(&mut fds[..1], Some(PATIENCE))? == 0 {
            return Err(call::unanswered(&self.id, std::io::ErrorKind::TimedOut.into()));
        }
        Ok(())
    }
}
