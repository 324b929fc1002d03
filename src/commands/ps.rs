//! `ps` and `port`.

use anyhow::{Result, anyhow};

use crate::cli::{PortArgs, PsArgs};
use crate::containers;
use crate::format;
use crate::format::ps::Filter;
use crate::roots::Roots;
use crate::view;

/// Lists containers.
pub fn ps(roots: &Roots, args: &PsArgs) -> Result<u8> {
    let filter = Filter::parse(&args.filter).map_err(|why| anyhow!(why))?;
    let mut states = containers::all(roots);
    let last = if args.latest { Some(1) } else { args.last.and_then(|last| usize::try_from(last).ok()) };
    if !args.all && last.is_none() && !filter.wants_stopped() {
        states.retain(|state| state.is_alive());
    }
    let mut listed = Vec::with_capacity(states.len());
    for state in states {
        match view::request(&state) {
            Ok(request) => listed.push((request, state)),
            Err(problem) => eprintln!("minidock: warning: {}", crate::error::text(&problem)),
        }
    }
    let mut views: Vec<_> = listed.iter().map(|(request, state)| view::of(roots, state, request)).collect();
    views.retain(|view| filter.fits(view));
    views.truncate(last.unwrap_or(usize::MAX));
    print!("{}", format::ps::print(&views, args.format.as_deref(), args.quiet, args.no_trunc, view::now())?);
    Ok(0)
}

/// Prints where a container's ports are published.
pub fn port(roots: &Roots, args: &PortArgs) -> Result<u8> {
    let state = containers::find(roots, &args.container)?;
    let ports: Vec<_> = if state.is_alive() { state.ports().copied().collect() } else { vec![] };
    let text = match &args.private_port {
        None => format::port::list(&ports),
        Some(wanted) => format::port::one(&ports, wanted, &args.container).map_err(|why| anyhow!(why))?,
    };
    print!("{text}");
    Ok(0)
}
