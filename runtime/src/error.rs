//! What can go wrong before and while a container's program starts, in the user's words.

use std::fmt::Display;
use std::io;

use crate::cgroup;

/// An error of the runtime on the caller's side: facts, plan, clone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bundle can't work on this host; nothing has been done.
    #[error("{0}")]
    Refused(String),
    /// A cgroup step or request failed.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The kernel refused one step.
    #[error("cannot {what}: {}", text(source))]
    System {
        /// The step and its object.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// A bundle that can't work.
    pub(crate) fn refused(message: impl Into<String>) -> Error {
        Error::Refused(message.into())
    }

    /// A step that the kernel refused.
    pub(crate) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::System { what: what.into(), source: source.into() }
    }
}

/// Why a program was not started, as docker's exit statuses tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartErrorKind {
    /// The program is not there: exit status 127.
    NotFound,
    /// The program is there and can't be executed: exit status 126.
    NotExecutable,
    /// Anything else went wrong on the way: exit status 125.
    Other,
}

impl StartErrorKind {
    /// The exit status that docker gives for it.
    pub fn exit_status(self) -> u8 {
        match self {
            StartErrorKind::NotFound => 127,
            StartErrorKind::NotExecutable => 126,
            StartErrorKind::Other => 125,
        }
    }
}

/// A container (or an `exec`) that did not come to its program. Nothing of it is left running.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// What the exit status is made from.
    pub kind: StartErrorKind,
    /// What failed, on what, and why.
    pub message: String,
}

impl StartError {
    /// An error on the way to the program.
    pub(crate) fn new(message: impl Into<String>) -> StartError {
        StartError { kind: StartErrorKind::Other, message: message.into() }
    }

    /// The same for a program that is not there.
    pub(crate) fn not_found(message: impl Into<String>) -> StartError {
        StartError { kind: StartErrorKind::NotFound, message: message.into() }
    }

    /// The same for a program that can't be executed.
    pub(crate) fn not_executable(message: impl Into<String>) -> StartError {
        StartError { kind: StartErrorKind::NotExecutable, message: message.into() }
    }
}

impl From<Error> for StartError {
    fn from(error: Error) -> StartError {
        StartError::new(error.to_string())
    }
}

/// Names the step of a failed system call: `cannot WHAT: No such file or directory`.
pub(crate) trait Doing<T> {
    /// `what` is only formatted when the step has failed.
    fn doing<D: Display>(self, what: impl FnOnce() -> D) -> Result<T, StartError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing<D: Display>(self, what: impl FnOnce() -> D) -> Result<T, StartError> {
        self.map_err(|error| StartError::new(format!("cannot {}: {}", what(), text(&error.into()))))
    }
}

/// The kernel's answer without Rust's `(os error 2)`.
pub(crate) fn text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
