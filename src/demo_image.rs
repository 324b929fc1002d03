//! The built-in image `demo`: this very program as the image's only file, running its web server.
//!
//! Made on first use, without file or network, and made anew when the program has changed.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use images::{ImportOptions, Input, LoadOptions, Reference, Store};

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
    if let Ok(image) = store.find("demo") {
        let made_of = image.config.labels().find(|(key, _)| *key == LABEL).map(|(_, value)| value.to_string());
        if made_of.is_none_or(|made_of| made_of == mark) {
            return Ok(());
        }
    }
    let folder = roots.root.join(format!("demo.tmp-{}", std::process::id()));
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
    removed.with_context(|| format!("cannot remove {}", folder.display()))
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
