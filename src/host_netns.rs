//! The network namespace that plays the host: where a container's links and rules were made.
//!
//! Usually it's the one that minidock runs in. A journal names it by inode, so that a minidock started elsewhere (a
//! test host, `nsenter --net`) undoes things where they are, not where it happens to stand.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The inode of the namespace that this process is in; it names the namespace while that lives.
pub fn current() -> Option<u64> {
    inode(Path::new("/proc/self/ns/net"))
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|data| data.ino())
}

/// NET_NS_INIT_INO of include/uapi/linux/nsfs.h: the first network namespace has this inode since Linux 6.18.
const FIRST_INODE: u64 = 0xEFFF_FFF9;

/// Whether this process stands in the machine's first network namespace, where the default root's things live.
pub fn is_machines_own() -> bool {
    match (current(), inode(Path::new("/proc/1/ns/net"))) {
        (Some(ours), Some(first)) => ours == first,
        // Some sandboxes don't let even root look at process 1. An older kernel gives its first namespace an inode of
        // the same region, below all that are made later, so in doubt it is the machine's own.
        (Some(ours), None) => ours == FIRST_INODE || !kernel_has_fixed_inode(),
        _ => true,
    }
}

fn kernel_has_fixed_inode() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(18))
}

/// What [`enter`] did; dropping it goes back.
#[must_use]
pub enum Entered {
    /// It's the present one.
    Here,
    /// Went there from this one.
    Moved(File),
    /// No process and no name holds it any more: the kernel has removed what was in it.
    Gone,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Entered::Moved(home) = self
            && let Err(error) = move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))
        {
            eprintln!("minidock: cannot go back to the own network namespace: {error}");
        }
    }
}

/// Goes to the namespace with this inode. `None` is the present one.
pub fn enter(wanted: Option<u64>) -> Result<Entered> {
    let Some(wanted) = wanted.filter(|inode| Some(*inode) != current()) else {
        return Ok(Entered::Here);
    };
    let Some(there) = find(wanted) else { return Ok(Entered::Gone) };
    let home = File::open("/proc/self/ns/net").context("cannot open the own network namespace")?;
    move_into_link_name_space(there.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter the network namespace net:[{wanted}]"))?;
    Ok(Entered::Moved(home))
}

/// Whether anything holds the namespace with this inode.
pub fn exists(wanted: u64) -> bool {
    Some(wanted) == current() || find(wanted).is_some()
}

/// Looks for a holder: a name below /run/netns, or a process.
fn find(wanted: u64) -> Option<File> {
    let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path().join("ns/net"));
    for path in names.chain(processes) {
        if inode(&path) == Some(wanted)
            && let Ok(file) = File::open(&path)
            && file.metadata().is_ok_and(|data| data.ino() == wanted)
        {
            return Some(file);
        }
    }
    None
}
