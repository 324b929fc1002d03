//! `stop`, `kill`, `rm`, `wait`: the commands that end containers, or wait for their end.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::each;
use crate::cli::{KillArgs, RmArgs, StopArgs, WaitArgs};
use crate::containers;
use crate::events::{self, Event};
use crate::process;
use crate::recover::{self, Claim, Scope};
use crate::request::signal::{self, Signal};
use crate::roots::Roots;
use crate::state::State;

/// After SIGKILL, how long the monitor may take to notice and to undo.
const PATIENCE: Duration = Duration::from_secs(20);

/// The stop signal, then SIGKILL; returns when nothing of the run is left.
pub fn stop(roots: &Roots, args: &StopArgs) -> Result<u8> {
    let signal = args.signal.as_deref().map(signal_number).transpose()?;
    each(&args.containers, |name| {
        let state = containers::find(roots, name)?;
        let seconds = args.timeout.unwrap_or(state.config.stop_timeout_seconds);
        let grace = u64::try_from(seconds).ok().map(Duration::from_secs);
        end(roots, &state, signal.unwrap_or(state.config.stop_signal), grace)?;
        println!("{name}");
        Ok(())
    })
}

fn signal_number(text: &str) -> Result<i32> {
    signal::parse(text).map(|signal| signal.0).map_err(|why| anyhow!(why))
}

/// Asks the program to end, then kills it, and waits until its run has been undone.
pub fn end(roots: &Roots, state: &State, signal: i32, grace: Option<Duration>) -> Result<()> {
    if let Some(pidfd) = state.process.and_then(|process| process.open()) {
        process::signal(&pidfd, signal);
        if !process::wait_end(&pidfd, grace) {
            process::signal(&pidfd, libc::SIGKILL);
            process::wait_end(&pidfd, Some(PATIENCE));
        }
    }
    match recover::wait_for_owner(roots, &state.id, PATIENCE)? {
        Some(journal) => recover::settle(roots, &state.id, &journal),
        None => Ok(()),
    }
}

/// Sends a signal.
pub fn kill(roots: &Roots, args: &KillArgs) -> Result<u8> {
    let signal = args.signal.as_deref().map_or(Ok(libc::SIGKILL), signal_number)?;
    each(&args.containers, |name| {
        let state = containers::find_running(roots, name).context("cannot kill container")?;
        let sent = state.process.and_then(|process| process.open()).is_some_and(|pidfd| {
            let sent = process::signal(&pidfd, signal);
            if signal == libc::SIGKILL {
                process::wait_end(&pidfd, Some(PATIENCE));
            }
            sent
        });
        if !sent {
            bail!("cannot kill container: container {} is not running", recover::short(&state.id));
        }
        events::note(roots, Event::killed(&state, Signal(signal)));
        println!("{name}");
        Ok(())
    })
}

/// Removes containers: the undo of their journals.
pub fn rm(roots: &Roots, args: &RmArgs) -> Result<u8> {
    each(&args.containers, |name| {
        let id = match containers::find_id(roots, name) {
            Err(error) if args.force && error.to_string().starts_with(containers::NO_SUCH) => {
                eprintln!("Error response: {error}");
                return Ok(());
            }
            other => other?,
        };
        let journal = loop {
            match recover::claim(roots, &id, PATIENCE)? {
                Claim::Gone => break None,
                Claim::Ours(journal) => break Some(journal),
                Claim::Running(_) if !args.force => bail!(
                    "cannot remove container {name:?}: container is running: stop the container before removing or \
                     force remove"
                ),
                Claim::Running(state) => end(roots, &state, libc::SIGKILL, Some(PATIENCE))?,
            }
        };
        let scope = if args.volumes { Scope::Container } else { Scope::ContainerWithoutVolumes };
        let problems = journal.map(|journal| recover::undo(roots, &journal, scope)).unwrap_or_default();
        recover::first_error(problems).with_context(|| format!("cannot remove container {name:?}"))?;
        println!("{name}");
        Ok(())
    })
}

/// Waits for the end of containers and prints their exit codes.
pub fn wait(roots: &Roots, args: &WaitArgs) -> Result<u8> {
    each(&args.containers, |name| {
        let state = containers::find(roots, name)?;
        if let Some(pidfd) = state.process.and_then(|process| process.open()) {
            process::wait_end(&pidfd, None);
        }
        let folder = roots.container(&state.id);
        drop(recover::wait_for_owner(roots, &state.id, PATIENCE)?);
        let state = State::read(&folder)?.ok_or_else(|| {
            anyhow!("container {name} was started with --rm and is gone, its exit code with it; start it without --rm")
        })?;
        println!("{}", state.exit_code);
        Ok(())
    })
}
