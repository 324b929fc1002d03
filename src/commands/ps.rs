//! `ps` and `port`.

use std::collections::HashMap;

use anyhow::{Result, anyhow};

use crate::cli::{PortArgs, PsArgs};
use crate::containers;
use crate::format;
use crate::format::ContainerView;
use crate::format::ps::Style;
use crate::format::ps_filter::Filter;
use crate::roots::Roots;
use crate::state::Status;
use crate::view;

/// Lists containers.
pub fn ps(roots: &Roots, args: &PsArgs) -> Result<u8> {
    let filter = Filter::parse(&args.filter).map_err(|why| anyhow!(why))?;
    if args.quiet && args.format.is_some() {
        eprintln!("WARNING: Ignoring custom format, because both --format and --quiet are set.");
    }
    let landmarks: HashMap<String, u64> = filter
        .landmarks()
        .map(|name| Ok((name.to_owned(), view::nanoseconds(&containers::find(roots, name)?.created).unwrap_or(0))))
        .collect::<Result<_>>()?;
    let last = if args.latest { Some(1) } else { args.last.and_then(|last| usize::try_from(last).ok()) };
    let last = last.filter(|last| *last > 0);
    let mut states = containers::all(roots);
    if !args.all && last.is_none() && !filter.wants_stopped() {
        states.retain(|state| state.is_alive() || state.status == Status::Restarting);
    } else {
        states.extend(containers::being_made(roots));
        states.sort_by(|a, b| b.created.cmp(&a.created));
    }
    let mut listed = Vec::with_capacity(states.len());
    for state in states {
        match view::request(&state) {
            Ok(request) => listed.push((request, state)),
            Err(problem) => eprintln!("minidock: warning: {}", crate::error::text(&problem)),
        }
    }
    // Sizes are looked for only where they are shown: that walks every container's files.
    let size = args.size || args.format.as_deref().is_some_and(|format| format.contains(".Size"));
    let mut views: Vec<_> = listed.iter().map(|(request, state)| (view::of(roots, state, request), state)).collect();
    views.retain(|(view, _)| filter.fits(view, &|name| landmarks.get(name).copied()));
    views.truncate(last.unwrap_or(usize::MAX));
    let mut named = Named::new(roots);
    let views: Vec<ContainerView> = views
        .into_iter()
        .map(|(view, state)| ContainerView {
            size: size.then(|| view::size(roots, state)),
            image_name: named.shown(&view),
            ..view
        })
        .collect();
    let style = Style { format: args.format.as_deref(), quiet: args.quiet, no_trunc: args.no_trunc, size: args.size };
    print!("{}", format::ps::print(&views, style, view::now())?);
    Ok(0)
}

/// Which image a name means now: docker shows the id of an image that has lost the name that its container was made by.
struct Named {
    store: Option<images::Store>,
    known: HashMap<String, Option<String>>,
}

impl Named {
    fn new(roots: &Roots) -> Named {
        Named { store: images::Store::open(&roots.root).ok(), known: HashMap::new() }
    }

    fn shown(&mut self, view: &ContainerView) -> String {
        let name = view.image_name.clone();
        let Some(store) = self.store.as_ref().filter(|_| !view.image_id.is_empty()) else { return name };
        let find = || store.find(&name).ok().map(|image| image.id.to_string());
        let now = self.known.entry(name.clone()).or_insert_with(find);
        if now.as_deref() == Some(&view.image_id) { name } else { view.image_id.clone() }
    }
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
