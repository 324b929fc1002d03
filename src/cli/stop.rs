//! The end of a command line that isn't carried out: help, or what is wrong with it.

use std::io::Write;

/// Nothing is to be done but to print this and leave.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// Help or version text for stdout; exit code 0.
    Help(String),
    /// A wrong command line; the text goes to stderr, without a newline at its end.
    Usage {
        /// What is wrong, and where help is. One to three lines.
        message: String,
        /// 125 for a wrong flag (docker's code for "the engine failed"), 1 for a wrong command or argument count, 0 for none at all.
        code: u8,
    },
}

/// Arguments may be 128 KiB long; a message about them may not.
const LONGEST_MESSAGE: usize = 800;

/// The beginning of a text, with `…` where the rest is missing.
pub(crate) fn bounded(text: &str, letters: usize) -> String {
    match text.char_indices().nth(letters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl Stop {
    /// A wrong flag or value of `command` (`None`: before any command).
    pub(super) fn flag(message: impl AsRef<str>, command: Option<&str>) -> Stop {
        Stop::usage(message.as_ref(), command, 125)
    }

    /// A wrong command word or number of arguments.
    pub(super) fn arguments(message: impl AsRef<str>, command: Option<&str>) -> Stop {
        Stop::usage(message.as_ref(), command, 1)
    }

    /// Nobody asked for this help: no command was typed. As docker: on stderr, and no failure.
    pub(super) fn nothing_typed(help: &str) -> Stop {
        Stop::Usage { message: help.trim_end().to_owned(), code: 0 }
    }

    fn usage(message: &str, command: Option<&str>, code: u8) -> Stop {
        let help = match command {
            Some(command) => format!("minidock {command} --help"),
            None => "minidock --help".to_owned(),
        };
        let message = bounded(message, LONGEST_MESSAGE);
        Stop::Usage { message: format!("minidock: {message}\nSee '{help}'."), code }
    }

    /// The exit code: 0 for help.
    pub fn code(&self) -> u8 {
        match self {
            Stop::Help(_) => 0,
            Stop::Usage { code, .. } => *code,
        }
    }

    /// Prints the text where it belongs and returns the exit code. A closed stdout is not an error.
    pub fn report(self) -> u8 {
        let code = self.code();
        let _ = match self {
            Stop::Help(text) => std::io::stdout().write_all(text.as_bytes()),
            Stop::Usage { message, .. } => writeln!(std::io::stderr(), "{}", crate::error::plain(&message)),
        };
        code
    }
}
