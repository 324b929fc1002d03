//! `container prune`: removes all containers that don't run.

use std::path::Path;

use anyhow::Result;

use super::filter::{Filters, confirmed};
use super::stop;
use crate::cli::PruneArgs;
use crate::containers;
use crate::error;
use crate::events::{self, Event};
use crate::format::human;
use crate::plan::paths::ContainerFolder;
use crate::recover::Scope;
use crate::roots::Roots;
use crate::view;

/// What its `--filter` knows.
pub const FILTERS: &[&str] = &["label", "label!", "until"];

/// Removes all stopped containers.
pub fn containers(roots: &Roots, args: &PruneArgs) -> Result<u8> {
    let filters = Filters::parse(&args.filter, FILTERS)?;
    if !confirmed("WARNING! This will remove all stopped containers.", args.force) {
        return Ok(0);
    }
    let (ids, bytes) = remove_stopped(roots, &filters)?;
    if !ids.is_empty() {
        println!("Deleted Containers:\n{}\n", ids.join("\n"));
    }
    println!("Total reclaimed space: {}", human::size(bytes));
    Ok(0)
}

/// Removes them; gives their ids, and the bytes that are free now.
pub fn remove_stopped(roots: &Roots, filters: &Filters) -> Result<(Vec<String>, u64)> {
    let (mut ids, mut bytes) = (Vec::new(), 0);
    for state in containers::all(roots) {
        let old = filters.until(view::nanoseconds(&state.created), view::now())?;
        if state.is_alive() || !old || !filters.labels(&state.config.labels) {
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
