//! `container prune`: removes all containers that don't run.

use std::path::Path;

use anyhow::{Result, bail};

use super::filter::confirmed;
use super::stop;
use crate::cli::PruneArgs;
use crate::containers;
use crate::error;
use crate::events::{self, Event};
use crate::format::human;
use crate::plan::paths::ContainerFolder;
use crate::recover::Scope;
use crate::request::logs;
use crate::roots::Roots;
use crate::state::State;
use crate::view;

/// Removes all stopped containers.
pub fn containers(roots: &Roots, args: &PruneArgs) -> Result<u8> {
    let filter = Filter::parse(&args.filter)?;
    if !confirmed("WARNING! This will remove all stopped containers.", args.force) {
        return Ok(0);
    }
    let (ids, bytes) = remove_stopped(roots, &filter)?;
    if !ids.is_empty() {
        println!("Deleted Containers:\n{}\n", ids.join("\n"));
    }
    println!("Total reclaimed space: {}", human::size(bytes));
    Ok(0)
}

/// Removes them; gives their ids, and the bytes that are free now.
pub fn remove_stopped(roots: &Roots, filter: &Filter) -> Result<(Vec<String>, u64)> {
    let (mut ids, mut bytes) = (Vec::new(), 0);
    for state in containers::all(roots) {
        if state.is_alive() || !filter.fits(&state) {
            continue;
        }
        let size = folder_bytes(&ContainerFolder::new(&roots.container(&state.id)).upper());
        // One that was started meanwhile is left alone.
        match stop::remove(roots, &state.id, &state.name, false, Scope::ContainerWithoutVolumes) {
            Ok(()) => {
                bytes += size;
                ids.push(state.id);
            }
            Err(problem) if problem.to_string().starts_with(containers::NO_SUCH) => {} // removed meanwhile
            Err(problem) => eprintln!("minidock: warning: {}", error::text(&problem)),
        }
    }
    let event = Event::new("container", "prune", "").with("reclaimed", bytes);
    events::note(roots, event);
    Ok((ids, bytes))
}

/// `--filter` of the prune commands: all conditions have to fit.
pub struct Filter {
    until: Option<logs::Nanoseconds>,
    labels: Vec<(String, bool)>,
}

impl Filter {
    /// Reads `until=TIME`, `label=KEY[=VALUE]`, `label!=KEY[=VALUE]`.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn parse(flags: &[String]) -> Result<Filter> {
        let mut filter = Filter { until: None, labels: vec![] };
        for flag in flags {
            let Some((key, value)) = flag.split_once('=') else {
                bail!("invalid argument {flag:?} for \"--filter\" flag: bad format of filter (expected name=value)")
            };
            match key.trim() {
                "until" => filter.until = Some(logs::time("--filter until", value, i128::from(view::now()))?),
                "label" => filter.labels.push((value.to_string(), true)),
                "label!" => filter.labels.push((value.to_string(), false)),
                key => bail!("invalid filter '{key}'; there are until, label, label!"),
            }
        }
        Ok(filter)
    }

    fn fits(&self, state: &State) -> bool {
        let created = i128::from(view::nanoseconds(&state.created).unwrap_or(0));
        let young = self.until.is_some_and(|until| created >= until);
        let has = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => state.config.labels.get(key).is_some_and(|found| found == value),
            None => state.config.labels.contains_key(wanted),
        };
        !young && self.labels.iter().all(|(label, wanted)| has(label) == *wanted)
    }
}

/// Bytes of the files below a folder of ours; links aren't followed.
fn folder_bytes(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
            Ok(data) if data.is_file() => data.len(),
            _ => 0,
        })
        .sum()
}
