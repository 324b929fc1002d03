//! Signals by name or number, as `kill`, `stop` and `--stop-signal` take them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A signal's number on Linux (1 to 64).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal(pub i32);

impl Signal {
    /// SIGTERM, what `stop` sends first by default.
    pub const TERM: Signal = Signal(15);
}

/// Linux's numbers on x86 and ARM (signal(7)). glibc keeps 32 and 33 for itself: SIGRTMIN is 34.
const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
    ("RTMAX", 64),
];

/// Reads `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3`, `SIGRTMAX-2`.
///
/// # Errors
/// docker's words, and the forms that are understood.
pub fn parse(text: &str) -> Result<Signal, String> {
    let wrong = || format!("invalid signal: {text}; write a name such as TERM or a number from 1 to 64");
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().filter(|number| (1..=64).contains(number)).map(Signal).ok_or_else(wrong);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(Signal(*number));
    }
    let offset = |text: &str| text.parse::<i32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
        (Some(up), _) => offset(up).and_then(|up| up.checked_add(34)),
        (_, Some(down)) => offset(down).map(|down| 64 - down),
        _ => None,
    };
    number.filter(|number| (34..=64).contains(number)).map(Signal).ok_or_else(wrong)
}

impl fmt::Display for Signal {
    /// `SIGTERM`, `SIGRTMIN+3`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "SIGRTMIN+{}", self.0 - 34),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("9", 9),
            ("RTMIN+3", 37),
            ("SIGRTMAX-2", 62),
            ("rtmin", 34),
            ("64", 64),
        ] {
            assert_eq!(parse(text), Ok(Signal(number)), "{text}");
        }
        for text in [
            "",
            "0",
            "65",
            "-1",
            "FOO",
            "SIG",
            "RTMIN+31",
            "RTMIN+-1",
            "RTMAX-31",
            "RTMIN+99999999999",
            "TERM ",
            "1.5",
            "+9",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!((Signal(15).to_string(), Signal(37).to_string()), ("SIGTERM".to_owned(), "SIGRTMIN+3".to_owned()));
    }
}
