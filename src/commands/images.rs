//! `load`, `import`, `images`, `tag`, `rmi`: the commands about images.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};
use images::{Callback, ImageId, ImportOptions, Input, LoadOptions, Loaded, Phase, Reference, Removed, Store};

use super::each;
use crate::cli::{ImportArgs, LoadArgs, RmiArgs, TagArgs};
use crate::containers;
use crate::events::{self, Event};
use crate::format;
use crate::journal;
use crate::progress::Progress;
use crate::recover;
use crate::roots::Roots;
use crate::state::State;

/// Loads images from an archive, a layout or standard input.
pub fn load(roots: &Roots, args: &LoadArgs) -> Result<u8> {
    let input = match &args.input {
        Some(path) => input_of(path),
        None => Input::Stdin,
    };
    let store = Store::open(&roots.root)?;
    let loaded = store.load(input, &LoadOptions { progress: progress(args.quiet), ..LoadOptions::default() })?;
    for loaded in loaded {
        events::note(roots, Event::new("image", "load", &loaded.id.to_string()));
        if !args.quiet {
            for (name, old) in &loaded.moved {
                println!("The image {name} already exists, renaming the old one with ID {old} to empty string");
            }
        }
        for name in &loaded.names {
            println!("Loaded image: {name}");
        }
        if loaded.names.is_empty() {
            println!("Loaded image ID: {}", loaded.id);
        }
    }
    Ok(0)
}

/// Draws how far a load is, on a terminal.
fn progress(quiet: bool) -> Option<Callback> {
    let line = Mutex::new(if quiet { Progress::none() } else { Progress::new("Loading") });
    Some(Box::new(move |phase, done, total| {
        // Only a panic could poison it.
        let Ok(mut line) = line.lock() else { return };
        line.rename(match phase {
            Phase::Reading => "Reading",
            Phase::Unpacking => "Unpacking",
            Phase::Committing => "Writing to the disk",
        });
        line.at(done, total);
    }))
}

fn input_of(path: &Path) -> Input {
    if path == Path::new("-") {
        Input::Stdin
    } else if path.is_dir() {
        Input::Dir(path.to_path_buf())
    } else {
        Input::File(path.to_path_buf())
    }
}

/// Makes an image of a root file system.
pub fn import(roots: &Roots, args: &ImportArgs) -> Result<u8> {
    let name = args.name.as_deref().map(Reference::parse).transpose()?;
    let load = LoadOptions { progress: progress(false), ..LoadOptions::default() };
    let options = ImportOptions { load, changes: args.change.clone(), message: args.message.clone() };
    let loaded = Store::open(&roots.root)?.import(input_of(&args.source), name.as_ref(), &options)?;
    events::note(roots, Event::new("image", "import", &loaded.id.to_string()));
    println!("{}", loaded.id);
    Ok(0)
}

/// What `run ./FILE` gets: an archive of images, or a root file system.
pub fn load_or_import(store: &Store, path: &Path) -> Result<Vec<Loaded>> {
    let options = LoadOptions { names: false, ..LoadOptions::default() };
    match store.load(input_of(path), &options) {
        Err(images::Error::NotAnImage { .. }) => {
            let options = ImportOptions { load: options, ..ImportOptions::default() };
            Ok(vec![store.import(input_of(path), None, &options)?])
        }
        other => Ok(other?),
    }
}

/// Gives an image a further name.
pub fn tag(roots: &Roots, args: &TagArgs) -> Result<u8> {
    let target = Reference::parse(&args.target)?;
    let store = Store::open(&roots.root)?;
    store.tag(&args.source, &target)?;
    if let Ok(image) = store.find(&args.source) {
        events::note(roots, Event::new("image", "tag", &image.id.to_string()).with("name", &target));
    }
    Ok(0)
}

/// Removes names and images.
pub fn rmi(roots: &Roots, args: &RmiArgs) -> Result<u8> {
    let store = Store::open(&roots.root)?;
    each(&args.images, |name| {
        let removed = match store.remove(name, args.force, &|id| users(roots, id)) {
            Err(error @ images::Error::NoSuchImage { .. }) if args.force => {
                eprintln!("minidock: {error}");
                return Ok(());
            }
            other => other?,
        };
        for removed in removed {
            match removed {
                Removed::Untagged(name) => {
                    events::note(roots, Event::new("image", "untag", &name.to_string()).with("name", &name));
                    println!("Untagged: {name}");
                }
                Removed::Deleted(id) => {
                    events::note(roots, Event::new("image", "delete", &id.to_string()));
                    println!("Deleted: {id}");
                }
                Removed::DeletedLayer(id) => println!("Deleted: {id}"),
            }
        }
        Ok(())
    })
}

/// The containers that stand on an image: their journals name it from the first moment on.
pub fn users(roots: &Roots, id: &ImageId) -> Vec<String> {
    let wanted = id.to_string();
    let uses = |container: &String| {
        // One that is just ending is as good as gone.
        if recover::wait_if_ending(roots, container).unwrap_or(false) {
            return None;
        }
        let folder = roots.container(container);
        let Ok(contents) = journal::read(&folder.join("journal")) else {
            return Some(format!("perhaps container {}, whose journal can't be read", recover::short(container)));
        };
        let image = contents.header?.image?;
        let name = State::read(&folder).ok().flatten().map(|state| format!(" ({})", state.name)).unwrap_or_default();
        (image == wanted).then(|| format!("container {}{name}", recover::short(container)))
    };
    containers::ids(roots).iter().filter_map(uses).collect()
}

/// docker's rule.
fn comment(json: &serde_json::Value) -> String {
    let last = json["history"].as_array().and_then(|steps| steps.last()).map(|step| &step["comment"]);
    let own = json["comment"].as_str().filter(|own| !own.is_empty());
    own.or(last.and_then(serde_json::Value::as_str)).unwrap_or_default().to_string()
}

/// Everything known of an image, as `inspect` prints it.
pub fn document(store: &Store, name: &str) -> Result<format::Document> {
    let image = store.find(name)?;
    let config = &image.config;
    let json = config.json();
    Ok(format::images::inspect(&format::images::ImageView {
        id: image.id.to_string(),
        names: store
            .names_of(image.id)
            .context("cannot list the image's names")?
            .iter()
            .map(|name| name.to_string())
            .collect(),
        created: config.created().to_string(),
        author: config.author().to_string(),
        comment: comment(&json),
        architecture: config.architecture().to_string(),
        os: config.os().to_string(),
        config: json.get("config").and_then(|config| config.as_object().cloned()).unwrap_or_default(),
        size_bytes: image.size_bytes,
        diff_ids: config.diff_ids().iter().map(|id| id.to_string()).collect(),
        layers: image.layers.clone(),
    }))
}
