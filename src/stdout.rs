//! Writing to standard output and standard error without a panic: `print!`, `println!` and `eprintln!` of this program.
//!
//! std's own panic where the reader is gone (`minidock ps | head -1`) or the disk is full. A command goes on with its work
//! then: `rm -f a b c | true` removes all three.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

static FAILED: OnceLock<ErrorKind> = OnceLock::new();

/// Writes, unless an earlier write has failed; the first failure is kept for [`code`].
pub fn write(text: Arguments<'_>) {
    if FAILED.get().is_none()
        && let Err(error) = io::stdout().write_fmt(text)
    {
        if error.kind() != ErrorKind::BrokenPipe {
            eprintln!("minidock: cannot write to standard output: {}", crate::error::io_text(&error));
        }
        let _ = FAILED.set(error.kind());
    }
}

/// Writes a line for the user to standard error, without Rust's own words in it. Nobody can be told where that fails.
pub fn complain(text: Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{}", crate::error::plain(&text.to_string()));
}

/// The exit code of a command that has come to this one: 141 (128+SIGPIPE) where the reader went away, 1 where writing
/// failed otherwise.
pub fn code(code: u8) -> u8 {
    if let Err(error) = io::stdout().flush() {
        let _ = FAILED.set(error.kind());
    }
    match (code, FAILED.get()) {
        (0, Some(ErrorKind::BrokenPipe)) => 141,
        (0, Some(_)) => 1,
        _ => code,
    }
}

/// As std's, without the panic.
macro_rules! print {
    ($($arguments:tt)*) => { $crate::stdout::write(format_args!($($arguments)*)) };
}

/// As std's, without the panic.
macro_rules! println {
    () => { $crate::stdout::write(format_args!("\n")) };
    ($($arguments:tt)*) => { $crate::stdout::write(format_args!("{}\n", format_args!($($arguments)*))) };
}

/// As std's, without the panic, and without `(os error 2)`.
macro_rules! eprintln {
    ($($arguments:tt)*) => { $crate::stdout::complain(format_args!($($arguments)*)) };
}
