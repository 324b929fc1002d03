//! `boot`: starts what its restart policy wants after the machine has been started; `boot --stop` ends all before it
//! goes down.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::stop::{self, Why};
use super::{Engine, start};
use crate::containers;
use crate::error;
use crate::request::restart::Restart;
use crate::roots::Roots;
use crate::state::State;
use crate::view;

/// The longest that a program has for its end when the machine goes down: after the unit's `TimeoutStopSec` systemd would
/// kill whatever is left.
const LONGEST: Duration = Duration::from_secs(100);

/// Starts them; prints their names. A container that needs another one (`--network container:X`) is tried again when
/// others have been started.
pub fn boot(engine: &Engine) -> Result<u8> {
    let mut waiting: Vec<State> = containers::all(&engine.roots).into_iter().filter(wants_start).collect();
    waiting.reverse(); // the oldest first
    loop {
        let before = waiting.len();
        let mut failed = Vec::new();
        for state in waiting {
            match start::begin(engine, &state) {
                Ok(()) => println!("{}", state.name),
                Err(problem) => failed.push((state, problem)),
            }
        }
        if failed.is_empty() || failed.len() == before {
            for (state, problem) in &failed {
                eprintln!("minidock: cannot start container {}: {}", state.name, error::text(problem));
            }
            return Ok(u8::from(!failed.is_empty()));
        }
        waiting = failed.into_iter().map(|(state, _)| state).collect();
    }
}

/// Stops all containers, each with its own signal and time, all at once; prints their names. Nobody has stopped them by
/// hand: the next boot starts those whose policy wants it.
pub fn stop(roots: &Roots) -> Result<u8> {
    let begin = Instant::now();
    let mut failed = false;
    let mut tell = |state: &State, problem: anyhow::Error| {
        eprintln!("minidock: cannot stop container {}: {}", state.name, error::text(&problem));
        failed = true;
    };
    let mut ending = Vec::new();
    for state in containers::all(roots).into_iter().filter(State::is_alive) {
        match stop::ask_to_end(roots, &state, state.config.stop_signal, Why::Shutdown) {
            Ok(state) => ending.push(state),
            Err(problem) => tell(&state, problem),
        }
    }
    // The shortest first: none waits for one that has longer.
    let grace = |state: &State| stop::grace(state, None).map_or(LONGEST, |grace| grace.min(LONGEST));
    ending.sort_by_key(grace);
    for state in ending {
        let left = grace(&state).saturating_sub(begin.elapsed());
        match stop::insist(roots, &state, Some(left)) {
            Ok(()) => println!("{}", state.name),
            Err(problem) => tell(&state, problem),
        }
    }
    Ok(u8::from(failed))
}

/// docker's rule: `always` even if it was stopped before, and none that was never started.
fn wants_start(state: &State) -> bool {
    let policy = view::request(state).map_or(Restart::No, |request| request.restart);
    let wanted = match policy {
        Restart::No => false,
        Restart::Always => true,
        Restart::UnlessStopped => !state.stopped_by_hand,
        Restart::OnFailure(_) => !state.stopped_by_hand && policy.wants(state.exit_code, state.restart_count),
    };
    wanted && !state.started.is_empty() && !state.is_alive()
}
