//! The pause before a restart: docker's. 100 ms, doubled each time up to a minute, from the beginning again once a
//! program has run for ten seconds.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// A program that ran so long had started well.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// What the pause was last.
#[derive(Default)]
pub struct Backoff {
    last: Duration,
}

impl Backoff {
    /// The next pause, after a run of this length.
    pub fn next(&mut self, ran: Duration) -> Duration {
        self.last = match self.last {
            _ if ran >= GOOD_RUN => FIRST,
            Duration::ZERO => FIRST,
            last => (last * 2).min(LONGEST),
        };
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_to_a_minute_and_begins_anew_after_a_good_run() {
        let mut backoff = Backoff::default();
        let mut pauses = (0..12).map(|_| backoff.next(Duration::from_secs(1)).as_millis());
        for wanted in [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000] {
            assert_eq!(pauses.next(), Some(wanted));
        }
        assert_eq!(backoff.next(Duration::from_secs(10)), FIRST);
        assert_eq!(backoff.next(Duration::from_secs(9)), 2 * FIRST);
    }
}
