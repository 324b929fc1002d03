//! `inspect` and `version`.

use ::images::Store;
use anyhow::Result;

use super::{Engine, images};
use crate::cli::{InspectArgs, InspectKind, VersionArgs};
use crate::containers;
use crate::format::{self, Document};
use crate::roots::Roots;
use crate::view;

/// Prints everything known of containers and images.
pub fn inspect(roots: &Roots, args: &InspectArgs) -> Result<u8> {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for name in &args.names {
        match find(roots, name, args.kind(), args.size) {
            Ok(document) => found.push(document),
            Err(problem) => problems.push(problem),
        }
    }
    let (text, failed) = format::inspect::print_some(&found, args.format.as_deref())?;
    print!("{text}");
    if let Some(error) = failed {
        return Err(error.into());
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    Ok(u8::from(!problems.is_empty()))
}

fn find(roots: &Roots, name: &str, kind: InspectKind, size: bool) -> Result<Document, String> {
    let missing = |what: &str| {
        let near = match what {
            "image" => near_image(roots, name),
            _ => containers::near_miss(roots, name).or_else(|| near_image(roots, name).filter(|_| what == "object")),
        };
        format!(
            "Error: No such {what}: {name}{}",
            near.map(|near| format!("; did you mean {near}?")).unwrap_or_default()
        )
    };
    if kind == InspectKind::Volume {
        return super::volume::document(roots, name).map_err(|error| format!("Error: {}", crate::error::text(&error)));
    }
    if kind != InspectKind::Image {
        match containers::find(roots, name) {
            Ok(state) => {
                let request = view::request(&state).map_err(|error| format!("Error: {error:#}"))?;
                let view = view::of(roots, &state, &request);
                let size = size.then(|| view::size(roots, &state));
                return Ok(format::inspect::container(&format::ContainerView { size, ..view }));
            }
            Err(error) if !error.to_string().starts_with(containers::NO_SUCH) => {
                return Err(format!("Error: {error:#}"));
            }
            Err(_) if kind == InspectKind::Container => return Err(missing("container")),
            Err(_) => {}
        }
    }
    let image = Store::open(&roots.root).map_err(Into::into).and_then(|store| images::document(&store, name));
    if image.is_err()
        && kind == InspectKind::Any
        && let Ok(volume) = super::volume::document(roots, name)
    {
        return Ok(volume);
    }
    image.map_err(|_| missing(if kind == InspectKind::Image { "image" } else { "object" }))
}

fn near_image(roots: &Roots, name: &str) -> Option<String> {
    match Store::open(&roots.root).ok()?.find(name) {
        Err(::images::Error::NoSuchImage { near, .. }) => near,
        _ => None,
    }
}

/// Prints what minidock and its host are.
pub fn version(engine: &Engine, args: &VersionArgs) -> Result<u8> {
    let uname = rustix::system::uname();
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let view = format::version::VersionView {
        version: env!("CARGO_PKG_VERSION").to_string(),
        oci_spec: crate::plan::OCI_VERSION.to_string(),
        os_arch: format!("linux/{arch}"),
        kernel: uname.release().to_string_lossy().into_owned(),
        root: engine.roots.root.display().to_string(),
        firewall: engine.config.firewall.unwrap_or_default().to_string(),
        cgroup: runtime::cgroup::Layout::read().map(|layout| layout_name(&layout).to_string()).unwrap_or_default(),
    };
    print!("{}", format::version::print(&view, args.format.as_deref())?);
    Ok(0)
}

/// systemd's words for the three arrangements.
pub fn layout_name(layout: &runtime::cgroup::Layout) -> &'static str {
    match (layout.v1.is_empty(), layout.v2.is_some()) {
        (true, true) => "v2",
        (false, true) => "hybrid",
        (false, false) => "v1",
        (true, false) => "none",
    }
}
