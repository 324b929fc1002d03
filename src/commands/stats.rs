//! `stats`: what containers use. CPU and memory come from their cgroups, network bytes from their namespace.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use runtime::cgroup::{Layout, PARENT, Stats, stats as cgroup_stats};

use crate::cli::StatsArgs;
use crate::containers;
use crate::format::stats::{StatsView, print};
use crate::processes;
use crate::roots::Roots;
use crate::state::State;

/// Between two looks, which the use of CPU is the difference of.
const INTERVAL: Duration = Duration::from_millis(1000);
/// The first difference needs less.
const FIRST_INTERVAL: Duration = Duration::from_millis(300);

/// Prints what containers use, once or again and again.
pub fn stats(roots: &Roots, args: &StatsArgs) -> Result<u8> {
    let layout = Layout::read()?;
    let mut code = 0;
    let mut chosen = vec![];
    for name in &args.containers {
        match containers::find(roots, name) {
            Ok(state) => chosen.push((name.clone(), state.id)),
            Err(problem) => {
                eprintln!("minidock: {}", crate::error::text(&problem));
                code = 1;
            }
        }
    }
    if code != 0 {
        return Ok(code);
    }
    let terminal = rustix::termios::isatty(io::stdout());
    let mut before = HashMap::new();
    look(roots, args, &chosen, &layout, &mut before);
    std::thread::sleep(FIRST_INTERVAL);
    loop {
        let views = look(roots, args, &chosen, &layout, &mut before);
        let text = print(&views, args.format.as_deref(), args.no_trunc)?;
        let mut out = io::stdout().lock();
        let written = match terminal && !args.no_stream {
            // As docker: from the top, each line cleared to its end, then the rest of the screen.
            true => write!(out, "\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
            false => out.write_all(text.as_bytes()),
        };
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
            other => other.context("cannot print")?,
        }
        if args.no_stream {
            return Ok(0);
        }
        drop(out);
        std::thread::sleep(INTERVAL);
    }
}

/// When a container was last looked at, and the CPU time that it had used by then.
type Before = HashMap<String, (Instant, u64)>;

fn look(
    roots: &Roots,
    args: &StatsArgs,
    chosen: &[(String, String)],
    layout: &Layout,
    before: &mut Before,
) -> Vec<StatsView> {
    let states: Vec<(String, State)> = if chosen.is_empty() {
        let all = containers::all(roots).into_iter().filter(|state| args.all || state.is_alive());
        all.map(|state| (crate::recover::short(&state.id).to_owned(), state)).collect()
    } else {
        let read = |(name, id): &(String, String)| Some((name.clone(), containers::read(roots, id).ok()??));
        chosen.iter().filter_map(read).collect()
    };
    states.into_iter().map(|(name, state)| view(roots, &name, &state, layout, before)).collect()
}

fn view(roots: &Roots, asked: &str, state: &State, layout: &Layout, before: &mut Before) -> StatsView {
    let mut view = StatsView {
        container: asked.to_owned(),
        id: state.id.clone(),
        name: state.name.clone(),
        ..StatsView::default()
    };
    let Some(process) = state.process.filter(|_| state.is_alive()) else { return view };
    let Stats { memory_bytes, cpu_ns, pids, cache_bytes, memory_limit_bytes, block_bytes } =
        cgroup_stats(layout, &format!("{PARENT}/{}", state.id));
    // Without a limit a container has no group of its own in a v1 hierarchy: then its processes say what they use.
    let own = match (memory_bytes, pids, cpu_ns) {
        (Some(_), Some(_), Some(_)) => vec![],
        _ => processes::of_container(roots, &state.id),
    };
    let cpu_ns = cpu_ns.or_else(|| Some(own.iter().map(|process| process.ticks * 10_000_000).sum()));
    let now = Instant::now();
    if let Some(cpu) = cpu_ns
        && let Some((then, cpu_then)) = before.insert(state.id.clone(), (now, cpu))
    {
        let elapsed = now.duration_since(then).as_nanos().max(1) as f64;
        view.cpu_percent = cpu.saturating_sub(cpu_then) as f64 / elapsed * 100.0;
    }
    let page = rustix::param::page_size() as u64;
    let memory = memory_bytes.unwrap_or_else(|| own.iter().map(|process| process.resident_pages * page).sum());
    // docker counts cache that can be taken back at once as free.
    view.memory = cache_bytes.filter(|cache| *cache < memory).map_or(memory, |cache| memory - cache);
    let host = processes::total_memory();
    view.memory_limit = memory_limit_bytes.map_or(host, |limit| limit.min(host));
    view.network = processes::network_bytes(process.pid);
    view.block = block_bytes.unwrap_or_default();
    view.pids = pids.unwrap_or_else(|| own.iter().map(|process| process.threads).sum());
    view
}
