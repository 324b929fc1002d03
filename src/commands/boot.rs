//! `boot`: starts what its restart policy wants after the machine has been started. `boot --stop`, which ends all before
//! it goes down, is in `shutdown.rs`.

use anyhow::Result;

use super::{Engine, start};
use crate::containers;
use crate::error;
use crate::request::restart::Restart;
use crate::state::State;
use crate::view;

/// Starts them; prints their names. A container that needs another one (`--network container:X`) is tried again when
/// others have been started.
pub fn boot(engine: &Engine) -> Result<u8> {
    // Before a container takes what is theirs.
    let problems = crate::router::wake(engine);
    for problem in &problems {
        eprintln!("minidock: {}", error::text(problem));
    }
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
            return Ok(u8::from(!failed.is_empty() || !problems.is_empty()));
        }
        waiting = failed.into_iter().map(|(state, _)| state).collect();
    }
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
