//! What this host has and lacks for containers, each finding with its remedy. Looking changes nothing: what has to be
//! tried is tried in a network namespace that ends with this process.

mod host;
mod network;
mod probe;

use crate::cli::Global;
use crate::commands::Engine;
use crate::config::Config;
use crate::format::doctor::{Finding, Level};
use crate::roots::Roots;

/// All findings, in the order of a start: rights, kernel, cgroups, disk, network, left-overs. The last one may leave this
/// process in a namespace of its own, so nothing should come after it.
pub fn examine(global: &Global) -> Vec<Finding> {
    let roots = Roots::new(global.root.as_deref());
    let mut found = host::examine(&roots);
    let config = Config::read(&roots.root).map(|mut config| {
        config.firewall = global.firewall.or(config.firewall);
        config
    });
    match config {
        Ok(config) => {
            found.push(ok("configuration", "no mistakes in config.toml"));
            let engine = Engine { roots, config };
            found.extend(network::examine(&engine));
            found.push(probe::examine(&engine));
        }
        Err(why) => found.push(fail("configuration", why, "mend the line; README.md tells the keys")),
    }
    found
}

fn ok(what: &'static str, found: impl Into<String>) -> Finding {
    Finding { level: Level::Ok, what, found: found.into(), remedy: String::new() }
}

fn note(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Note, what, found: found.into(), remedy: remedy.into() }
}

fn warn(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Warn, what, found: found.into(), remedy: remedy.into() }
}

fn fail(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { level: Level::Fail, what, found: found.into(), remedy: remedy.into() }
}

/// A small file of /proc or /sys, trimmed; empty where there is none.
fn small_file(path: &str) -> String {
    use std::io::Read;
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(1 << 20).read_to_string(&mut text);
    }
    text.trim().to_owned()
}
