//! For the shell: `completion`, the candidates that its scripts ask for, and `man`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use images::Store;

use super::Engine;
use crate::cli::complete::{self, Wanted};
use crate::cli::{CompletionArgs, ManArgs, man};
use crate::config::Config;
use crate::roots::Roots;
use crate::{containers, network};

/// Prints the script for a shell.
pub fn completion(args: &CompletionArgs) -> Result<u8> {
    let Some(script) = complete::script(&args.shell) else {
        bail!("no completion for {:?}; there are bash, zsh and fish", args.shell);
    };
    print!("{script}");
    Ok(0)
}

/// `minidock __complete WORDS…`: the candidates for the last word, a line each; `:files` leaves it to the shell.
pub fn complete(words: &[String]) {
    let (found, wanted) = complete::candidates(words);
    let typed = words.last().map(String::as_str).unwrap_or_default();
    let root = std::env::var_os("MINIDOCK_ROOT").filter(|root| !root.is_empty());
    let roots = Roots::new(root.as_deref().map(Path::new));
    for line in found.into_iter().chain(names(roots, wanted).into_iter().filter(|name| name.starts_with(typed))) {
        println!("{line}");
    }
    if wanted == Wanted::Files {
        println!(":files");
    }
}

/// Nothing is made or recovered here: completing a word must not change anything.
fn names(roots: Roots, wanted: Wanted) -> Vec<String> {
    match wanted {
        Wanted::Containers => containers::all(&roots).into_iter().map(|state| state.name).collect(),
        Wanted::Images if roots.root.join("images").is_dir() => {
            let images = Store::open(&roots.root).and_then(|store| store.images()).unwrap_or_default();
            images.into_iter().flat_map(|image| image.names).map(|name| name.to_string()).collect()
        }
        Wanted::Networks => {
            let engine = Engine { config: Config::default(), roots };
            let own = network::definition::all(&engine.roots).into_iter().map(|definition| definition.name);
            let mut names: Vec<String> = own.chain(["bridge", "host", "none"].map(str::to_owned)).collect();
            names.sort();
            names.dedup();
            names
        }
        Wanted::Volumes => crate::volume::Store::of(&roots).names(),
        Wanted::Images | Wanted::Files | Wanted::Nothing => vec![],
    }
}

/// Writes the man pages into a folder.
pub fn man(args: &ManArgs) -> Result<u8> {
    for (name, text) in man::pages() {
        let path = args.folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(0)
}
