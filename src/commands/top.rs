//! `top`: the processes of a container.

use std::collections::HashMap;
use std::io::Read;

use anyhow::{Result, anyhow};

use crate::cli::TopArgs;
use crate::containers;
use crate::events::{self, Event};
use crate::format::table;
use crate::processes::{self, columns};
use crate::roots::Roots;
use crate::view;

/// Prints a container's processes, in ps's columns.
pub fn top(roots: &Roots, args: &TopArgs) -> Result<u8> {
    let state = containers::find_running(roots, &args.container())?;
    let processes = processes::of_container(roots, &state.id);
    let (titles, rows) = columns::table(&args.options(), &processes, &around()).map_err(|why| anyhow!(why))?;
    events::note(roots, Event::container("top", &state));
    print!("{}", table::align_wide(std::iter::once(&titles).chain(&rows)));
    Ok(0)
}

fn around() -> columns::Around {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = uptime.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    columns::Around {
        now: view::now() / 1_000_000_000,
        uptime_ticks: (seconds * 100.0) as u64,
        memory: processes::total_memory(),
        page: rustix::param::page_size() as u64,
        users: names("/etc/passwd"),
        groups: names("/etc/group"),
    }
}

/// Number → name of the host's own file: ids in `top` are the host's.
fn names(path: &str) -> HashMap<u32, String> {
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(1 << 20).read_to_string(&mut text);
    }
    let mut names = HashMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(id)) = (fields.next(), fields.nth(1).and_then(|id| id.parse().ok())) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}
