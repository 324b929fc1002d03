//! `system df` and `system prune`.

use anyhow::{Result, bail};

use super::filter::{Filters, confirmed};
use super::{Engine, image_list, networks, prune, volume};
use crate::cli::{NetworkPruneArgs, SystemDfArgs, SystemPruneArgs};
use crate::containers;
use crate::format::disk::{self, Total};
use crate::format::{ContainerView, human};
use crate::roots::Roots;
use crate::state::Status;
use crate::view;
use crate::volume::{Store, users};

/// Shows what takes how much room.
pub fn df(roots: &Roots, args: &SystemDfArgs) -> Result<u8> {
    let json = args.format.as_deref() == Some("json");
    if args.verbose && args.format.as_deref().is_some_and(|format| !["", "table", "json"].contains(&format)) {
        bail!("with the verbose flag there is no template; use --format json");
    }
    users::settle(roots);
    let (images, bytes, reclaimable) = image_list::usage(roots)?;
    let in_use = |line: &&crate::format::images::ImageLine| line.usage.is_some_and(|usage| usage.containers > 0);
    let of_images =
        Total { count: images.len(), active: images.iter().filter(in_use).count(), bytes, reclaimable, percent: true };
    let states = containers::all(roots);
    let mut of_containers = Total { count: states.len(), percent: true, ..Total::default() };
    let mut listed = Vec::new();
    for state in &states {
        let size = view::size(roots, state);
        let active = state.is_alive() || state.status == Status::Restarting;
        of_containers.active += usize::from(active);
        of_containers.bytes += size.own;
        of_containers.reclaimable += if active { 0 } else { size.own };
        if let Ok(request) = view::request(state) {
            listed.push((state, request, size));
        }
    }
    let store = Store::of(roots);
    let links = users::counts(roots);
    let mut of_volumes = Total { percent: true, ..Total::default() };
    let mut volumes = Vec::new();
    for record in store.all()? {
        let bytes = crate::sizes::of_folder(&store.data(&record.name));
        let count = links.get(&record.name).copied().unwrap_or(0);
        of_volumes.count += 1;
        of_volumes.active += usize::from(count > 0);
        of_volumes.bytes += bytes;
        of_volumes.reclaimable += if count == 0 { bytes } else { 0 };
        let mut line = volume::line(&store, record);
        (line.links, line.size_bytes) = (Some(count), Some(bytes));
        volumes.push(line);
    }
    if args.verbose {
        let views: Vec<ContainerView> = listed
            .iter()
            // docker leaves the image's share out here.
            .map(|(state, request, size)| ContainerView {
                size: Some(crate::format::SizeView { image: 0, ..*size }),
                ..view::of(roots, state, request)
            })
            .collect();
        print!("{}", disk::verbose(&images, &views, &volumes, view::now(), json)?);
    } else {
        print!("{}", disk::print(of_images, of_containers, of_volumes, args.format.as_deref())?);
    }
    Ok(0)
}

/// Removes all that isn't used.
pub fn prune_all(engine: &Engine, args: &SystemPruneArgs) -> Result<u8> {
    let roots = &engine.roots;
    let filters = Filters::parse(&args.filter, prune::FILTERS)?;
    if args.volumes && !filters.values("until").is_empty() {
        bail!("the \"until\" filter is not supported with \"--volumes\"");
    }
    if !confirmed(&warning(args), args.force) {
        return Ok(0);
    }
    let (ids, mut bytes) = prune::remove_stopped(roots, &filters)?;
    print!("{}", volume::report("Deleted Containers:", &ids));
    let mut code = networks::prune(engine, &NetworkPruneArgs { force: true, filter: args.filter.clone() })?;
    if args.volumes {
        let pruned = volume::prune_all(roots, false, &filters)?;
        print!("{}", volume::report("Deleted Volumes:", &pruned.names));
        bytes += pruned.bytes;
    }
    match image_list::prune_all(roots, args.all, &args.filter) {
        Ok(pruned) => {
            print!("{}", volume::report("Deleted Images:", &pruned.names));
            bytes += pruned.bytes;
        }
        Err(error) => {
            eprintln!("minidock: {}", crate::error::text(&error));
            code = 1;
        }
    }
    println!("Total reclaimed space: {}", human::size(bytes));
    Ok(code)
}

/// docker's list of what will go.
fn warning(args: &SystemPruneArgs) -> String {
    let mut text =
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
            .to_string();
    if args.volumes {
        text += "  - all anonymous volumes not used by at least one container\n";
    }
    text += match args.all {
        true => "  - all images without at least one container associated to them\n  - all build cache\n",
        false => "  - all dangling images\n  - unused build cache\n",
    };
    if !args.filter.is_empty() {
        text += "\n  Items to be pruned will be filtered with:\n";
        for filter in &args.filter {
            text += &format!("  - {filter}\n");
        }
    }
    text
}
