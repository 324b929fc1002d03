//! A failed command: what is printed after `minidock: `, and the exit code. The code is decided here, in one place.

use runtime::StartError;

/// docker's exit code for "the engine failed", as against the container's program.
pub const ENGINE_FAILED: u8 = 125;

/// What a command that failed leaves with.
#[derive(Debug, Clone)]
pub struct Failure {
    /// 125: the engine; 126: the program can't be executed; 127: no such program; 1: any other command.
    pub code: u8,
    /// One or two lines for the user.
    pub message: String,
}

impl From<anyhow::Error> for Failure {
    /// For a start.
    fn from(error: anyhow::Error) -> Failure {
        let code = match (error.downcast_ref::<StartError>(), error.downcast_ref::<Failure>()) {
            (Some(error), _) => error.kind.exit_status(),
            (None, Some(failure)) => failure.code,
            (None, None) => ENGINE_FAILED,
        };
        Failure { code, message: text(&error) }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The whole chain of causes on one line: `what: why: deeper why`. A cause that its effect already tells is left out.
pub fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.downcast_ref::<std::io::Error>().map_or_else(|| cause.to_string(), io_text);
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    plain(&text.replace('\n', " "))
}

/// Words for the user without what Rust puts behind an error of the system, `(os error 2)`, wherever in a chain of causes it
/// stands. All that goes to stderr comes by here (see `stdout`).
pub fn plain(text: &str) -> String {
    let mut pieces = text.split(" (os error ");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        match piece.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => plain.push_str(rest),
            _ => {
                plain.push_str(" (os error ");
                plain.push_str(piece);
            }
        }
    }
    plain
}

/// An I/O error without Rust's `(os error 17)`.
pub fn io_text(error: &std::io::Error) -> String {
    plain(&error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn no_error_speaks_rust() {
        let system = || std::io::Error::from_raw_os_error(2);
        let whole = format!("cannot read a: {}; nor b: {}, really", system(), system());
        assert_eq!(plain(&whole), "cannot read a: No such file or directory; nor b: No such file or directory, really");
        for same in ["", "a (os error x) b", "a (os error 2", "(os error 2)"] {
            assert_eq!(plain(same), same);
        }
        let error = anyhow::Error::from(crate::request::Invalid::new(format!("cannot read it: {}", system())));
        assert_eq!(text(&error.context("flag")), "flag: cannot read it: No such file or directory");
        assert_eq!(io_text(&system()), "No such file or directory");
    }

    #[test]
    fn causes_stand_on_one_line_and_none_twice() {
        let error: anyhow::Error = anyhow!("no space left").context("cannot write a: no space left");
        assert_eq!(text(&error), "cannot write a: no space left");
        let error = Err::<(), _>(anyhow!("why")).context("what").unwrap_err();
        assert_eq!(text(&error), "what: why");
    }
}
