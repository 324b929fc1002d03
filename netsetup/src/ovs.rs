//! Open vSwitch, as far as a link is to be plugged into one of its bridges: the program `ovs-vsctl`, as a person would
//! use it. Only run where a bridge isn't the kernel's own.

use std::io;
use std::process::{Command as Program, Stdio};

use crate::undo::Undone;
use crate::{Error, Result};

/// What marks a port as minidock's in the switch's own database.
const MARK: &str = "external-ids:minidock";

/// Whether Open vSwitch has a bridge of this name. False where it isn't installed.
pub(crate) fn has_bridge(name: &str) -> bool {
    run(&["br-exists", name], "look for the bridge").is_ok_and(|(ok, _)| ok)
}

/// Whether the switch has a port of this name, in any of its bridges.
pub(crate) fn has_port(name: &str) -> bool {
    run(&["port-to-br", name], "look for the port").is_ok_and(|(ok, _)| ok)
}

/// The words after `ovs-vsctl` that make a port which is a link of this host: the lecture's form, and the owner's mark.
pub(crate) fn add_port(bridge: &str, link: &str, mac: &str, owner: &str) -> Vec<String> {
    let mut words: Vec<String> = ["--", "add-port", bridge, link].map(str::to_owned).to_vec();
    // A value with colons is a string to ovs-vsctl only in quotes.
    for what in [
        "type=internal".to_owned(),
        format!("mac=\"{mac}\""),
        "external-ids:iface-status=active".to_owned(),
        format!("external-ids:attached-mac=\"{mac}\""),
        format!("{MARK}=\"{owner}\""),
    ] {
        words.extend(["--", "set", "Interface", link].map(str::to_owned));
        words.push(what);
    }
    words
}

/// Runs such a line.
pub(crate) fn make_port(words: &[String], what: &str) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words, what)? {
        (true, _) => Ok(()),
        (false, message) => Err(Error::Refused(format!("cannot {what}: ovs-vsctl says: {message}"))),
    }
}

/// Takes a port out of the switch's database, when it is marked as this owner's.
pub(crate) fn unplug(bridge: &str, link: &str, owner: &str) -> Result<Undone> {
    let what = format!("take {link} out of the Open vSwitch bridge {bridge}");
    let (there, mark) = run(&["--if-exists", "get", "Interface", link, MARK], &what)?;
    if !there || mark.is_empty() {
        return Ok(Undone::NotThere); // no such port, or one without a mark: not ours
    }
    if mark.trim_matches('"') != owner {
        return Ok(Undone::NotOurs(format!("the Open vSwitch port {link} belongs to {mark}")));
    }
    match run(&["--if-exists", "del-port", bridge, link], &what)? {
        (true, _) => Ok(Undone::Removed),
        (false, message) => Err(Error::Refused(format!("cannot {what}: ovs-vsctl says: {message}"))),
    }
}

/// Runs `ovs-vsctl`: whether it succeeded, and what it printed (its error message where it didn't).
fn run(words: &[&str], what: &str) -> Result<(bool, String)> {
    let output = Program::new("ovs-vsctl")
        .args(["--timeout=10", "--no-syslog"])
        .args(words)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::Refused(format!("cannot {what}: ovs-vsctl is not installed (Debian: openvswitch-switch)"))
            }
            _ => Error::system("run ovs-vsctl", error),
        })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(match output.status.success() {
        true => (true, text(&output.stdout)),
        false => (false, text(&output.stderr).lines().last().unwrap_or_default().to_owned()),
    })
}
