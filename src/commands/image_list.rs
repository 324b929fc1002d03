//! `images`, `history` and `image prune`: what images there are, how they were made, and which nobody needs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result};
use images::{Image, Reference, Removed, Store};

use super::filter::{Filters, confirmed};
use super::volume::{Pruned, report};
use crate::cli::{HistoryArgs, ImagePruneArgs, ImagesArgs};
use crate::containers;
use crate::events::{self, Event};
use crate::format::history::{self, Step};
use crate::format::human::{self, Nanoseconds};
use crate::format::images::{self as lines, ImageLine, Usage};
use crate::glob;
use crate::journal;
use crate::progress::Progress;
use crate::roots::Roots;
use crate::view;

/// Lists images: a line a name.
pub fn images(roots: &Roots, args: &ImagesArgs) -> Result<u8> {
    let filters =
        Filters::parse(&args.filter, &["before", "dangling", "label", "label!", "reference", "since", "until"])?;
    let store = Store::open(&roots.root)?;
    let pattern = args.repository.as_deref().filter(|text| text.contains(['*', '?', '[']));
    let wanted = args.repository.as_deref().filter(|_| pattern.is_none()).map(Reference::parse).transpose()?;
    let with_tag = args.repository.as_deref().is_some_and(|text| text.rsplit('/').next().unwrap_or(text).contains(':'));
    let mut lines = Vec::new();
    for image in filtered(&store, &filters)? {
        let fits = |name: &&Reference| {
            filters.fits("reference", |pattern| is_like(name, pattern))
                && pattern.is_none_or(|pattern| is_like(name, pattern))
                && wanted.as_ref().is_none_or(|wanted| {
                    wanted.repository() == name.repository() && (!with_tag || wanted.tag() == name.tag())
                })
        };
        lines.extend(image.names.iter().filter(fits).map(|name| line(&image, Some(name))));
        if image.names.is_empty() && args.repository.is_none() && filters.values("reference").is_empty() {
            lines.push(line(&image, None));
        }
    }
    lines.sort_by_key(|line| std::cmp::Reverse(line.created));
    let style = lines::Style { quiet: args.quiet, no_trunc: args.no_trunc, digests: args.digests };
    print!("{}", lines::print(&lines, args.format.as_deref(), style, view::now())?);
    Ok(0)
}

/// One line of `images`.
pub fn line(image: &Image, name: Option<&Reference>) -> ImageLine {
    ImageLine {
        id: image.id.to_string(),
        repository: name.map(Reference::repository),
        tag: name.and_then(Reference::tag).map(str::to_string),
        digest: image.manifest_digest.map(|digest| digest.to_string()),
        created: created(image),
        size_bytes: image.size_bytes,
        usage: None,
    }
}

fn created(image: &Image) -> Option<Nanoseconds> {
    view::nanoseconds(image.config.created())
}

/// All images that the filters let through; one that is removed meanwhile is left out.
fn filtered(store: &Store, filters: &Filters) -> Result<Vec<Image>> {
    let moment = |key: &str| -> Result<Vec<Nanoseconds>> {
        filters.values(key).iter().map(|name| Ok(created(&store.find(name)?).unwrap_or(0))).collect()
    };
    let (before, since) = (moment("before")?, moment("since")?);
    let dangling = filters.boolean("dangling")?;
    let mut found = Vec::new();
    for summary in store.images()? {
        let Ok(image) = store.find(&summary.id.to_string()) else { continue };
        let labels: BTreeMap<String, String> =
            image.config.labels().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let time = created(&image).unwrap_or(0);
        let fits = dangling.is_none_or(|dangling| dangling == image.names.is_empty())
            && filters.labels(&labels)
            && before.iter().all(|other| time < *other)
            && since.iter().all(|other| time > *other)
            && filters.until(Some(time), view::now())?;
        if fits {
            found.push(image);
        }
    }
    Ok(found)
}

/// docker's `reference=`: a pattern of the name, with or without its tag.
fn is_like(name: &Reference, pattern: &str) -> bool {
    glob::matches(pattern, &name.to_string()) || glob::matches(pattern, &name.repository())
}

/// Prints how an image was made, the last step first.
pub fn history(roots: &Roots, args: &HistoryArgs) -> Result<u8> {
    let store = Store::open(&roots.root)?;
    let image = store.find(&args.image)?;
    let json = image.config.json();
    let mut sizes = store.layer_sizes(image.id).context("cannot read the image's layers")?.into_iter();
    let text = |step: &serde_json::Value, key: &str| step[key].as_str().unwrap_or_default().to_string();
    let mut steps: Vec<Step> = Vec::new();
    for step in json["history"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let empty = step["empty_layer"].as_bool().unwrap_or(false);
        steps.push(Step {
            id: None,
            created: view::nanoseconds(&text(step, "created")),
            created_text: text(step, "created"),
            created_by: text(step, "created_by"),
            comment: text(step, "comment"),
            size_bytes: if empty { 0 } else { sizes.next().map_or(0, |(_, bytes)| bytes) },
        });
    }
    // Layers that the configuration says nothing about, as old imports have them.
    steps.extend(sizes.map(|(_, size_bytes)| Step {
        created: created(&image),
        created_text: image.config.created().to_string(),
        size_bytes,
        ..Step::default()
    }));
    steps.reverse();
    if let Some(last) = steps.first_mut() {
        last.id = Some(image.id.to_string());
    }
    let style = history::Style {
        format: args.format.as_deref(),
        quiet: args.quiet,
        no_trunc: args.no_trunc,
        human: args.human.unwrap_or(true),
    };
    print!("{}", history::print(&steps, style, view::now())?);
    Ok(0)
}

/// Removes images that nobody needs, and says how much room that made.
pub fn prune(roots: &Roots, args: &ImagePruneArgs) -> Result<u8> {
    let filters = Filters::parse(&args.filter, &["dangling", "label", "label!", "until"])?;
    let all = args.all || filters.boolean("dangling")? == Some(false);
    let warning = match all {
        true => "WARNING! This will remove all images without at least one container associated to them.",
        false => "WARNING! This will remove all dangling images.",
    };
    if !confirmed(warning, args.force) {
        return Ok(0);
    }
    let pruned = prune_all(roots, all, &args.filter)?;
    print!("{}", report("Deleted Images:", &pruned.names));
    println!("Total reclaimed space: {}", human::size(pruned.bytes));
    Ok(0)
}

/// Removes images without a container; without `all` only those without a name.
pub fn prune_all(roots: &Roots, all: bool, filters: &[String]) -> Result<Pruned> {
    let filters: Vec<String> = filters.iter().filter(|filter| !filter.starts_with("dangling=")).cloned().collect();
    let filters = Filters::parse(&filters, &["label", "label!", "until"])?;
    let store = Store::open(&roots.root)?;
    store.sweep()?;
    let used = used(roots);
    let mut pruned = Pruned::default();
    let mut progress = Progress::new("Pruning images");
    for image in filtered(&store, &filters)? {
        if !all && !image.names.is_empty() || used.contains_key(&image.id.to_string()) {
            continue;
        }
        let sizes: HashMap<String, u64> =
            store.layer_sizes(image.id)?.into_iter().map(|(layer, bytes)| (layer.to_string(), bytes)).collect();
        let mut names: Vec<String> = image.names.iter().map(Reference::to_string).collect();
        if names.is_empty() {
            names.push(image.id.to_string());
        }
        for name in names {
            let removed = match store.remove(&name, false, &|id| super::images::users(roots, id)) {
                Ok(removed) => removed,
                // A container has begun to use it, or somebody else was faster.
                Err(images::Error::InUse { .. } | images::Error::NoSuchImage { .. }) => break,
                Err(error) => return Err(error.into()),
            };
            for step in removed {
                match step {
                    Removed::Untagged(name) => {
                        events::note(roots, Event::new("image", "untag", &image.id.to_string()).with("name", &name));
                        pruned.names.push(format!("untagged: {name}"));
                    }
                    Removed::Deleted(id) => {
                        events::note(roots, Event::new("image", "delete", &id.to_string()));
                        pruned.names.push(format!("deleted: {id}"));
                    }
                    Removed::DeletedLayer(layer) => {
                        pruned.bytes += sizes.get(&layer.to_string()).copied().unwrap_or(0);
                        pruned.names.push(format!("deleted: {layer}"));
                    }
                }
            }
        }
        progress.at(pruned.bytes, None);
    }
    events::note(roots, Event::new("image", "prune", "").with("reclaimed", pruned.bytes));
    Ok(pruned)
}

/// How many containers stand on each image.
pub fn used(roots: &Roots) -> HashMap<String, usize> {
    let mut used = HashMap::new();
    for id in containers::ids(roots) {
        let contents = journal::read(&roots.container(&id).join("journal")).ok();
        if let Some(image) = contents.and_then(|contents| contents.header).and_then(|header| header.image) {
            *used.entry(image).or_default() += 1;
        }
    }
    used
}

/// All images as `system df` counts them: each line with what it shares with others, and the bytes of all layers, those
/// of images without a container apart.
pub fn usage(roots: &Roots) -> Result<(Vec<ImageLine>, u64, u64)> {
    let store = Store::open(&roots.root)?;
    let used = used(roots);
    let images = filtered(&store, &Filters::default())?;
    let mut users: HashMap<String, usize> = HashMap::new();
    let mut layers = Vec::new();
    for image in &images {
        let mut seen = BTreeSet::new();
        let own: Vec<(String, u64)> = store
            .layer_sizes(image.id)
            .unwrap_or_default()
            .into_iter()
            .map(|(layer, bytes)| (layer.to_string(), bytes))
            .filter(|(layer, _)| seen.insert(layer.clone()))
            .collect();
        for (layer, _) in &own {
            *users.entry(layer.clone()).or_default() += 1;
        }
        layers.push(own);
    }
    let (mut lines, mut counted) = (Vec::new(), BTreeSet::new());
    let (mut total, mut unique_of_used) = (0, 0);
    for (image, own) in images.iter().zip(&layers) {
        let shared: u64 = own.iter().filter(|(layer, _)| users.get(layer) > Some(&1)).map(|(_, bytes)| bytes).sum();
        let unique = own.iter().map(|(_, bytes)| bytes).sum::<u64>() - shared;
        total += own.iter().filter(|(layer, _)| counted.insert(layer.clone())).map(|(_, bytes)| bytes).sum::<u64>();
        let containers = used.get(&image.id.to_string()).copied().unwrap_or(0);
        if containers > 0 {
            unique_of_used += unique;
        }
        let mut line = line(image, image.names.first());
        line.usage = Some(Usage { shared_bytes: shared, unique_bytes: unique, containers });
        lines.push(line);
    }
    // docker's sum: what only images with containers have is not reclaimable.
    Ok((lines, total, total - unique_of_used))
}
