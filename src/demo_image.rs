//! The built-in image `demo`: this very program as the image's only file, running its web server.
//!
//! Made on first use, without file or network, and made anew when the program has changed; the former one goes then, unless
//! a container uses it.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use images::{Image, ImportOptions, Input, LoadOptions, Reference, Store};
use rustix::fs::{FlockOperation, flock};

use crate::commands::images::users;
use crate::files;
use crate::roots::Roots;

/// Which program the image was made of.
const LABEL: &str = "minidock.demo";

/// Whether a name means the demo image.
pub fn is_demo(name: &str) -> bool {
    matches!(name, "demo" | "demo:latest")
}

/// Makes the image unless it is there. A user's own image of that name is left alone.
pub fn ensure(roots: &Roots) -> Result<()> {
    let program = Path::new("/proc/self/exe");
    let data = fs::metadata(program).context("cannot look at the minidock program")?;
    let mark = format!("{}-{}-{}", env!("CARGO_PKG_VERSION"), data.len(), data.mtime_nsec() + data.mtime());
    let store = Store::open(&roots.root)?;
    let is_there = || store.find("demo").is_ok_and(|image| made_of(&image).is_none_or(|made_of| made_of == mark));
    if is_there() {
        return Ok(());
    }
    // Of several first runs at once, one makes it.
    let lock = File::open(&roots.root).with_context(|| format!("cannot open {}", roots.root.display()))?;
    flock(&lock, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", roots.root.display()))?;
    if is_there() {
        return Ok(());
    }
    let folder = roots.root.join("demo.tmp");
    let _ = fs::remove_dir_all(&folder); // of one that was killed
    let made = fill(&folder, program).and_then(|()| {
        let changes = vec![
            "ENTRYPOINT [\"/minidock\", \"demo-server\"]".to_string(),
            "EXPOSE 80/tcp".to_string(),
            "STOPSIGNAL SIGTERM".to_string(),
            format!("LABEL {LABEL}={mark}"),
        ];
        let name = Reference::parse("demo")?;
        let options = ImportOptions { load: LoadOptions::default(), changes, message: Some("built in".to_string()) };
        store.import(Input::Dir(folder.clone()), Some(&name), &options)?;
        Ok(())
    });
    let removed = fs::remove_dir_all(&folder);
    made.context("cannot make the built-in image demo")?;
    remove_former(roots, &store);
    removed.with_context(|| format!("cannot remove {}", folder.display()))
}

fn made_of(image: &Image) -> Option<String> {
    image.config.labels().find(|(key, _)| *key == LABEL).map(|(_, value)| value.to_string())
}

/// Those of former programs have lost their name. One in use stays until the next program's time; an error is no reason
/// not to run.
fn remove_former(roots: &Roots, store: &Store) {
    for summary in store.images().into_iter().flatten().filter(|summary| summary.names.is_empty()) {
        let id = summary.id.to_string();
        if store.find(&id).is_ok_and(|image| made_of(&image).is_some()) {
            let _ = store.remove(&id, false, &|id| users(roots, id));
        }
    }
}

fn fill(folder: &Path, program: &Path) -> Result<()> {
    files::ensure_folder(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for (name, mode) in [("tmp", 0o1777), ("etc", 0o755), ("proc", 0o555), ("sys", 0o555), ("dev", 0o755)] {
        fs::DirBuilder::new().mode(mode).create(folder.join(name))?;
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode))?;
    }
    fs::write(folder.join("etc/passwd"), "root:x:0:0:root:/:/minidock\nnobody:x:65534:65534:nobody:/:/minidock\n")?;
    fs::write(folder.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    fs::copy(program, folder.join("minidock"))?;
    fs::set_permissions(folder.join("minidock"), fs::Permissions::from_mode(0o755))?;
    Ok(())
}
