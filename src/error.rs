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
    text.replace('\n', " ")
}

/// An I/O error without Rust's `(os error 17)`.
pub fn io_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn causes_stand_on_one_line_and_none_twice() {
        let error: anyhow::Error = anyhow!("no space left").context("cannot write a: no space left");
        assert_eq!(text(&error), "cannot write a: no space left");
        let error = Err::<(), _>(anyhow!("why")).context("what").unwrap_err();
        assert_eq!(text(&error), "what: why");
    }
}
