//! What can go wrong with cgroups, in the user's words.

use std::{io, path::PathBuf};

/// An error of the cgroup family.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request can't work on this host; nothing has been done.
    #[error("{0}")]
    Refused(String),
    /// A group of this name is there already: another container's, or a left-over that no journal names.
    #[error("cgroup {} exists already: a container of this id is running or was not removed; remove it, or `rmdir` the group", .0.display())]
    Exists(PathBuf),
    /// The kernel refused one step.
    #[error("cannot {what}: {source}{advice}")]
    Failed {
        /// The step and its object: `write 64 to /sys/fs/cgroup/…/pids.max (--pids-limit 64)`.
        what: String,
        /// The kernel's answer.
        source: io::Error,
        /// The reason and the way out, beginning with `; `, or empty.
        advice: String,
    },
}

impl Error {
    /// A step that failed, without more to say than the kernel does.
    pub(super) fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::Failed { what: what.into(), source: source.into(), advice: String::new() }
    }

    /// A step that failed for a reason we know.
    pub(super) fn advised(what: impl Into<String>, source: impl Into<io::Error>, advice: &str) -> Error {
        let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
        Error::Failed { what: what.into(), source: source.into(), advice }
    }

    /// A request that this host can't fulfil.
    pub(super) fn refused(message: impl Into<String>) -> Error {
        Error::Refused(message.into())
    }
}
