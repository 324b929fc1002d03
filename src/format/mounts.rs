//! What `inspect` shows of the mounts that were asked for: docker has a place for `-v`, for `--tmpfs`, for `--mount` and for
//! `--volumes-from` each.

use super::document::{Document, object};
use crate::request::RunRequest;
use crate::request::mounts::{Mount, Propagation};

/// `-v SOURCE:TARGET`.
pub(super) fn binds(request: &RunRequest) -> Vec<String> {
    let mode = |read_only: &bool| if *read_only { ":ro" } else { "" };
    let bind = |mount: &Mount| match mount {
        Mount::Bind { source, target, read_only, create_source: true, .. } => {
            Some(format!("{}:{}{}", source.display(), target.display(), mode(read_only)))
        }
        Mount::Volume { name: Some(name), target, read_only, options, .. } if !options.by_mount => {
            Some(format!("{name}:{}{}", target.display(), mode(read_only)))
        }
        _ => None,
    };
    request.mounts.iter().filter_map(bind).collect()
}

/// `--volumes-from`.
pub(super) fn volumes_from(request: &RunRequest) -> impl Iterator<Item = String> {
    request.volumes_from.iter().map(|from| match from.read_only {
        true => format!("{}:ro", from.container),
        false => from.container.clone(),
    })
}

/// `--tmpfs`.
pub(super) fn tmpfs(request: &RunRequest) -> Document {
    let mounts = request.mounts.iter().filter_map(|mount| match mount {
        Mount::Tmpfs { target, options, by_mount: false } => {
            Some((target.to_string_lossy().into_owned(), Document::from(options.join(","))))
        }
        _ => None,
    });
    Document::Map(mounts.collect())
}

/// `--mount`.
pub(super) fn by_mount(request: &RunRequest) -> Vec<Document> {
    request.mounts.iter().filter_map(one).collect()
}

fn one(mount: &Mount) -> Option<Document> {
    let (kind, source, read_only) = match mount {
        Mount::Bind { source, read_only, create_source: false, .. } => {
            ("bind", source.to_string_lossy().into_owned(), *read_only)
        }
        Mount::Volume { name, read_only, options, .. } if options.by_mount => {
            ("volume", name.clone().unwrap_or_default(), *read_only)
        }
        Mount::Tmpfs { options, by_mount: true, .. } => {
            ("tmpfs", String::new(), options.iter().any(|option| option == "ro"))
        }
        _ => return None,
    };
    let nothing = || Document::omittable(None::<bool>);
    let (bind, volume, tmpfs) = match mount {
        Mount::Bind { propagation, recursive, writable_below, .. } => {
            (bind_options(*propagation, *recursive, *writable_below), nothing(), nothing())
        }
        Mount::Volume { copy, options, .. } => {
            let plain = *copy && options.subpath.is_none() && options.labels.is_empty() && options.driver.is_empty();
            let shown = object! {
                "NoCopy": Document::omittable(!copy),
                "Labels": Document::omittable(&options.labels),
                "Subpath": Document::omittable(options.subpath.clone().unwrap_or_default()),
                "DriverConfig": object! { "Options": Document::omittable(&options.driver) },
            };
            (nothing(), if plain { nothing() } else { Document::omittable(shown) }, nothing())
        }
        Mount::Tmpfs { options, .. } => (nothing(), nothing(), tmpfs_options(options)),
    };
    Some(object! {
        "Type": kind,
        "Source": Document::omittable(source),
        "Target": mount.target(),
        "ReadOnly": Document::omittable(read_only),
        "BindOptions": bind,
        "VolumeOptions": volume,
        "TmpfsOptions": tmpfs,
    })
}

fn bind_options(propagation: Propagation, recursive: bool, writable_below: bool) -> Document {
    if propagation == Propagation::default() && recursive && !writable_below {
        return Document::omittable(None::<bool>);
    }
    let told = if propagation == Propagation::default() { "" } else { propagation.name() };
    Document::omittable(object! {
        "Propagation": Document::omittable(told),
        "NonRecursive": Document::omittable(!recursive),
        "ReadOnlyNonRecursive": Document::omittable(writable_below),
    })
}

fn tmpfs_options(options: &[String]) -> Document {
    let value = |key: &str| options.iter().rev().find_map(|option| option.strip_prefix(key)?.strip_prefix('='));
    let size: Option<u64> = value("size").and_then(|size| size.parse().ok());
    let mode = value("mode").and_then(|mode| u32::from_str_radix(mode, 8).ok());
    if size.is_none() && mode.is_none() {
        return Document::omittable(None::<bool>);
    }
    Document::omittable(object! {
        "SizeBytes": Document::omittable(size.unwrap_or(0)),
        "Mode": Document::omittable(mode.unwrap_or(0)),
    })
}
