//! Why a request is refused, in the user's words.

use std::fmt;

use crate::cli::bounded;

/// A request that can't be meant: what, on what, why, and the way out, on one or two lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The whole text, without a program name in front.
    pub message: String,
    /// The exit code: 125, or 1 where docker's client counts its arguments.
    pub code: u8,
    /// docker's daemon refuses it, not the client: the exit code is 125 for `run`, and 1 for every other command.
    pub by_engine: bool,
}

impl Invalid {
    /// A flag's value is wrong. `flag` as docker names it: `-m, --memory`.
    pub fn value(flag: &str, value: impl AsRef<std::ffi::OsStr>, why: impl fmt::Display) -> Invalid {
        let value = bounded(&value.as_ref().to_string_lossy(), 120);
        let why = bounded(&why.to_string(), 500);
        Invalid::new(format!("invalid argument {value:?} for \"{flag}\" flag: {why}"))
    }

    /// Flags that can't go together, or anything else.
    pub fn new(message: impl Into<String>) -> Invalid {
        Invalid { message: message.into(), code: 125, by_engine: false }
    }

    /// What docker leaves to its daemon to find.
    #[must_use]
    pub fn by_engine(self) -> Invalid {
        Invalid { by_engine: true, ..self }
    }

    /// Too few arguments.
    pub fn arguments(message: impl Into<String>) -> Invalid {
        Invalid { message: message.into(), code: 1, by_engine: false }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Invalid {}
