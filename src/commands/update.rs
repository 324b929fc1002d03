//! `update`: other limits and another restart policy for containers, running ones too.

use std::time::Duration;

use anyhow::{Result, bail};

use super::each;
use crate::cli::UpdateArgs;
use crate::containers;
use crate::events::{self, Event};
use crate::monitor::control::call::{self, Ended};
use crate::recover::{self, Claim};
use crate::request::update::updated;
use crate::roots::Roots;
use crate::state::State;
use crate::view;

const PATIENCE: Duration = Duration::from_secs(20);

/// Changes limits and restart policies.
pub fn update(roots: &Roots, args: &UpdateArgs) -> Result<u8> {
    each(&args.containers, |name| {
        let id = containers::find_id(roots, name)?;
        loop {
            match one(roots, &id, name, args) {
                // It has just ended: the next look finds it so.
                Err(error) if error.is::<Ended>() => {}
                other => break other?,
            }
        }
        println!("{name}");
        Ok(())
    })
}

fn one(roots: &Roots, id: &str, name: &str, args: &UpdateArgs) -> Result<()> {
    match recover::claim(roots, id, PATIENCE)? {
        Claim::Gone => bail!("{}{name}", containers::NO_SUCH),
        Claim::Running(state) => {
            let request = updated(&view::request(&state)?, args)?;
            call::call(roots, id, "update", &serde_json::to_value(request)?)?;
        }
        Claim::Ours(_journal) => {
            let Some(mut state) = State::read(&roots.container(id))? else { bail!("{}{name}", containers::NO_SUCH) };
            let request = updated(&view::request(&state)?, args)?;
            let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
            request.limits.check_cpus(cpus)?;
            state.request = serde_json::to_value(request)?;
            state.write(roots)?;
            events::note(roots, Event::container("update", &state));
        }
    }
    Ok(())
}
