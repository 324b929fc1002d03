//! How far long work is: one line on the terminal of standard error, drawn over again. Without a terminal, nothing.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::format::human;
use crate::terminal;

/// Shorter work shows no line at all.
const PATIENCE: Duration = Duration::from_millis(300);
/// Between two drawings.
const STEP: Duration = Duration::from_millis(100);
/// Of the bar.
const BAR: usize = 24;

/// A line about one piece of work; wiped off when it's dropped.
#[derive(Debug)]
pub struct Progress {
    what: String,
    begun: Instant,
    drawn: Option<Instant>,
    on: bool,
}

impl Progress {
    /// A line that begins with these words.
    pub fn new(what: &str) -> Progress {
        let on = rustix::termios::isatty(std::io::stderr());
        Progress { what: what.to_string(), begun: Instant::now(), drawn: None, on }
    }

    /// Without any line: `--quiet`.
    pub fn none() -> Progress {
        Progress { what: String::new(), begun: Instant::now(), drawn: None, on: false }
    }

    /// From here on it's about something else.
    pub fn rename(&mut self, what: &str) {
        if self.what != what {
            (self.what, self.begun) = (what.to_string(), Instant::now());
        }
    }

    /// So many bytes are done, of so many.
    pub fn at(&mut self, done: u64, total: Option<u64>) {
        let elapsed = self.begun.elapsed();
        let soon = self.drawn.map_or(elapsed < PATIENCE, |drawn| drawn.elapsed() < STEP);
        if !self.on || soon {
            return;
        }
        self.drawn = Some(Instant::now());
        let width = match terminal::size(std::io::stderr().as_fd()).1 {
            0 => 80,
            columns => usize::from(columns),
        };
        let text: String = line(&self.what, done, total, elapsed).chars().take(width.saturating_sub(1)).collect();
        let _ = write!(std::io::stderr(), "\r{text}\x1b[K");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// `Loading [=====>      ]  12.3MB / 45MB  27%  8.1MB/s`
fn line(what: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = human::size((done as f64 / elapsed.as_secs_f64().max(0.001)) as u64);
    let amount = human::size(done);
    match total.filter(|total| *total > 0) {
        None => format!("{what}  {amount}  {rate}/s"),
        Some(total) => {
            let part = (done as f64 / total as f64).min(1.0);
            let filled = (part * BAR as f64) as usize;
            let bar = format!("{}>", "=".repeat(filled.min(BAR - 1)));
            format!("{what} [{bar:<BAR$}] {amount} / {}  {}%  {rate}/s", human::size(total), (part * 100.0) as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_bytes_rate_and_share() {
        let second = Duration::from_secs(2);
        assert_eq!(line("Copying", 3_000_000, None, second), "Copying  3MB  1.5MB/s");
        assert_eq!(
            line("Loading", 5_000_000, Some(10_000_000), second),
            "Loading [============>           ] 5MB / 10MB  50%  2.5MB/s"
        );
        assert!(line("x", 20, Some(10), second).contains("100%"));
        assert!(line("x", 0, Some(0), Duration::ZERO).ends_with("0B/s"));
    }
}
