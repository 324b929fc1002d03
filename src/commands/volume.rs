//! `volume create`, `ls`, `inspect`, `rm`, `prune`.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, anyhow, bail};

use super::each;
use super::filter::{Filters, confirmed};
use crate::cli::{VolumeCreateArgs, VolumeInspectArgs, VolumeLsArgs, VolumePruneArgs, VolumeRmArgs};
use crate::events::{self, Event};
use crate::format::{self, Document, volumes::VolumeLine};
use crate::names;
use crate::progress::Progress;
use crate::request::mounts::check_driver_options;
use crate::roots::Roots;
use crate::volume::{self, ANONYMOUS, DRIVER, Record, Store, users};

/// Makes a volume and prints its name. One that is there is no error, as docker has it.
pub fn create(roots: &Roots, args: &VolumeCreateArgs) -> Result<u8> {
    let name = match (&args.volume, &args.name) {
        (Some(_), Some(_)) => {
            bail!("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
        }
        (Some(name), None) | (None, Some(name)) => Some(name.clone()).filter(|name| !name.is_empty()),
        (None, None) => None,
    };
    if let Some(driver) = args.driver.as_deref().filter(|driver| !["", DRIVER].contains(driver)) {
        bail!(
            "create {}: error looking up volume plugin {driver}: plugin {driver:?} not found; there is local",
            name.unwrap_or_default()
        );
    }
    let mut labels = pairs(&args.label);
    let options = pairs(&args.opt);
    check_driver_options(&options).map_err(|why| anyhow!("create {}: {why}", name.as_deref().unwrap_or_default()))?;
    let name = match name {
        Some(name) => {
            volume::check_name(&name).map_err(|why| anyhow!("create {name}: {why}"))?;
            name
        }
        None => {
            labels.insert(ANONYMOUS.to_string(), String::new());
            names::new_id()
        }
    };
    let store = Store::of(roots);
    let _guard = store.lock_shared()?;
    if store.create(&Record::new(&name, labels, options.clone()))? {
        events::note(roots, Event::new("volume", "create", &name).with("driver", DRIVER));
    } else if store.find(&name)?.options != options && !options.is_empty() {
        bail!(
            "create {name}: a volume of this name exists with other options; remove it first: minidock volume rm {name}"
        );
    }
    println!("{name}");
    Ok(0)
}

fn pairs(words: &[String]) -> BTreeMap<String, String> {
    words.iter().map(|word| word.split_once('=').unwrap_or((word, ""))).map(|(a, b)| (a.into(), b.into())).collect()
}

/// Lists volumes by name.
pub fn ls(roots: &Roots, args: &VolumeLsArgs) -> Result<u8> {
    let filters = Filters::parse(&args.filter, &["dangling", "driver", "label", "label!", "name"])?;
    let dangling = filters.boolean("dangling")?;
    users::settle(roots);
    let used = if dangling.is_some() { users::counts(roots) } else { HashMap::new() };
    let store = Store::of(roots);
    let mut lines = Vec::new();
    for record in store.all()? {
        let fits = filters.names(&record.name)
            && filters.fits("driver", |driver| record.driver == driver)
            && filters.labels(&record.labels)
            && dangling.is_none_or(|dangling| dangling != used.contains_key(&record.name));
        if fits {
            lines.push(line(&store, record));
        }
    }
    print!("{}", format::volumes::print(&lines, args.format.as_deref(), args.quiet)?);
    Ok(0)
}

/// A volume as lists show it; its size is not counted.
pub fn line(store: &Store, record: Record) -> VolumeLine {
    VolumeLine {
        mountpoint: store.data(&record.name),
        name: record.name,
        driver: record.driver,
        labels: record.labels,
        links: None,
        size_bytes: None,
    }
}

/// Prints everything known of volumes.
pub fn inspect(roots: &Roots, args: &VolumeInspectArgs) -> Result<u8> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for name in &args.names {
        match document(roots, name) {
            Ok(document) => found.push(document),
            Err(problem) => problems.push(problem),
        }
    }
    print!("{}", format::inspect::print(&found, args.format.as_deref())?);
    for problem in &problems {
        eprintln!("minidock: {}", crate::error::text(problem));
    }
    Ok(u8::from(!problems.is_empty()))
}

/// docker's document of a volume.
pub fn document(roots: &Roots, name: &str) -> Result<Document> {
    let store = Store::of(roots);
    let record = store.find(name)?;
    Ok(format::volumes::document(&format::volumes::VolumeView {
        mountpoint: store.data(name),
        name: record.name,
        driver: record.driver,
        created: record.created,
        labels: record.labels,
        options: record.options,
    }))
}

/// Removes volumes.
pub fn rm(roots: &Roots, args: &VolumeRmArgs) -> Result<u8> {
    let store = Store::of(roots);
    users::settle(roots);
    each(&args.names, |name| {
        if args.force && store.read(name)?.is_none() {
            println!("{name}");
            return Ok(());
        }
        store.remove(name, &|name| users::of(roots, name, None))?;
        events::note(roots, Event::new("volume", "destroy", name).with("driver", DRIVER));
        println!("{name}");
        Ok(())
    })
}

/// Removes what no container uses, and says how much room that made.
pub fn prune(roots: &Roots, args: &VolumePruneArgs) -> Result<u8> {
    let filters = Filters::parse(&args.filter, &["all", "label", "label!"])?;
    let all = args.all || filters.boolean("all")?.unwrap_or(false);
    let what = if all { "all" } else { "anonymous" };
    let warning = format!("WARNING! This will remove {what} local volumes not used by at least one container.");
    if !confirmed(&warning, args.force) {
        return Ok(0);
    }
    let pruned = prune_all(roots, all, &filters)?;
    print!("{}", report("Deleted Volumes:", &pruned.names));
    println!("Total reclaimed space: {}", format::human::size(pruned.bytes));
    Ok(0)
}

/// docker's list of what a prune has removed; nothing where nothing was.
pub fn report(title: &str, lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!("{title}\n{}\n\n", lines.join("\n")) }
}

/// What a prune has removed.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Names, or docker's lines.
    pub names: Vec<String>,
    /// Room that is free now.
    pub bytes: u64,
}

/// Removes the volumes that no container uses; without `all` only anonymous ones.
pub fn prune_all(roots: &Roots, all: bool, filters: &Filters) -> Result<Pruned> {
    let store = Store::of(roots);
    store.sweep();
    users::settle(roots);
    let mut pruned = Pruned::default();
    let mut progress = Progress::new("Pruning volumes");
    for record in store.all()? {
        if !(all || record.is_anonymous()) || !filters.labels(&record.labels) {
            continue;
        }
        if !users::of(roots, &record.name, None).is_empty() {
            continue;
        }
        let bytes = crate::sizes::of_folder(&store.data(&record.name));
        match store.remove(&record.name, &|name| users::of(roots, name, None)) {
            Ok(()) => {
                events::note(roots, Event::new("volume", "destroy", &record.name).with("driver", DRIVER));
                pruned.names.push(record.name);
                pruned.bytes += bytes;
                progress.at(pruned.bytes, None);
            }
            // A container has begun to use it, or somebody else was faster.
            Err(error)
                if error.to_string().contains("volume is in use") || error.to_string().contains(volume::NO_SUCH) => {}
            Err(error) => return Err(error),
        }
    }
    if !pruned.names.is_empty() {
        events::note(roots, Event::new("volume", "prune", "").with("reclaimed", pruned.bytes));
    }
    Ok(pruned)
}
