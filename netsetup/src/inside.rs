//! Acting inside another network namespace: one that has a name for `ip netns`, or one held by a descriptor.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sched::{CloneFlags, setns};

use crate::{Error, Result};

/// Runs the action in the namespace and comes back, whatever the action says. Only for a single-threaded caller: sockets
/// opened by the action stay in that namespace, and so does what it reads of /proc/sys/net.
///
/// # Errors
/// The action's own, or that the namespace can't be entered or left.
pub fn within<T>(netns: BorrowedFd<'_>, action: impl FnOnce() -> Result<T>) -> Result<T> {
    let home = File::open("/proc/thread-self/ns/net")
        .map_err(|error| Error::system("open /proc/thread-self/ns/net", error))?;
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|error| Error::system("enter a network namespace", error))?;
    let result = action();
    setns(&home, CloneFlags::CLONE_NEWNET)
        .map_err(|error| Error::system("return to the host's network namespace", error))?;
    result
}

/// The namespace that `ip netns` knows by this name.
///
/// # Errors
/// When there is none, in words that tell where names are listed.
pub fn named(name: &str) -> Result<File> {
    let path = crate::netns::path_of(name)?;
    if path.exists() && !crate::netns::is_namespace(&path) {
        return Err(Error::Refused(format!("{} is no network namespace", path.display())));
    }
    File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::Refused(format!("there is no network namespace {name}: `ip netns list` shows those that are there"))
        }
        _ => Error::system(format!("open the network namespace {name}"), error),
    })
}

/// [`within`] a namespace that has a name.
pub fn within_named<T>(name: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    within(named(name)?.as_fd(), action)
}
