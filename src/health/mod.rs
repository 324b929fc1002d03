//! Health checks: what docker's HEALTHCHECK says, and what comes of its runs. Pure; [`probe`] runs them.

pub mod probe;

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// docker keeps so many results.
const LOG_ENTRIES: usize = 5;

/// A health check in docker's words, as it stands in an image's configuration and in `inspect`. Times in nanoseconds;
/// 0: docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", word…]` or `["CMD-SHELL", line]`; empty: the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// From the end of one run to the next.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// A run that takes longer has failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// In this time after the start, failures don't count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// The interval in that time.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// So many failures one after another make it unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Healthcheck {
    /// What the flags leave open is the image's.
    pub fn over(self, image: Option<&Healthcheck>) -> Healthcheck {
        let Some(image) = image else { return self };
        let or = |own: u64, other: u64| if own == 0 { other } else { own };
        Healthcheck {
            test: if self.test.is_empty() { image.test.clone() } else { self.test },
            interval: or(self.interval, image.interval),
            timeout: or(self.timeout, image.timeout),
            start_period: or(self.start_period, image.start_period),
            start_interval: or(self.start_interval, image.start_interval),
            retries: or(self.retries, image.retries),
        }
    }

    /// The program of a run; none when there's nothing to check. `shell`: the image's SHELL.
    pub fn command(&self, shell: &[String]) -> Option<Vec<String>> {
        let (kind, words) = self.test.split_first()?;
        match kind.as_str() {
            "CMD" if !words.is_empty() => Some(words.to_vec()),
            "CMD-SHELL" => {
                let shell = if shell.is_empty() { &["/bin/sh".to_string(), "-c".to_string()][..] } else { shell };
                Some(shell.iter().chain(words).cloned().collect())
            }
            _ => None,
        }
    }

    fn time(nanoseconds: u64, default_s: u64) -> Duration {
        if nanoseconds == 0 { Duration::from_secs(default_s) } else { Duration::from_nanos(nanoseconds) }
    }

    /// How long a run may take.
    pub fn timeout(&self) -> Duration {
        Healthcheck::time(self.timeout, 30)
    }

    /// The pause before a run.
    pub fn pause(&self, status: Status, since_start: Duration) -> Duration {
        match status == Status::Starting && since_start < Duration::from_nanos(self.start_period) {
            true => Healthcheck::time(self.start_interval, 5),
            false => Healthcheck::time(self.interval, 30),
        }
    }
}

/// docker's word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No run has succeeded, nor have too many failed.
    Starting,
    /// The last run succeeded, or not too many have failed since.
    Healthy,
    /// Too many have failed.
    Unhealthy,
}

impl Status {
    /// docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Status::Starting => "starting",
            Status::Healthy => "healthy",
            Status::Unhealthy => "unhealthy",
        }
    }
}

/// One run of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// RFC 3339.
    pub start: String,
    /// RFC 3339.
    pub end: String,
    /// 0: healthy; -1: it took too long.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: String,
}

/// What the runs so far say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// In a word.
    pub status: Status,
    /// Failures one after another.
    pub failing_streak: u32,
    /// The last five, oldest first.
    pub log: Vec<Probe>,
}

impl Health {
    /// At the start.
    pub fn new() -> Health {
        Health { status: Status::Starting, failing_streak: 0, log: vec![] }
    }

    /// Takes a run's result in; true when the status has changed. `since_start`: when that run began. docker's rules
    /// (daemon/health.go).
    pub fn note(&mut self, probe: Probe, check: &Healthcheck, since_start: Duration) -> bool {
        let before = self.status;
        let failed = probe.exit_code != 0;
        if self.log.len() >= LOG_ENTRIES {
            self.log.drain(..=self.log.len() - LOG_ENTRIES);
        }
        self.log.push(probe);
        let is_early = self.status == Status::Starting && since_start < Duration::from_nanos(check.start_period);
        if !failed {
            (self.failing_streak, self.status) = (0, Status::Healthy);
        } else if !is_early {
            self.failing_streak += 1;
            let most = if check.retries == 0 { 3 } else { check.retries };
            if u64::from(self.failing_streak) >= most {
                self.status = Status::Unhealthy;
            }
        }
        self.status != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(exit_code: i32) -> Probe {
        Probe { exit_code, ..Probe::default() }
    }

    #[test]
    fn three_failures_one_after_another_make_it_unhealthy_and_one_success_healthy() {
        let (mut health, check) = (Health::new(), Healthcheck::default());
        let later = Duration::from_secs(100);
        let told: Vec<bool> = [1, 1, 0, 1, 1, 1, 1, 0].map(|code| health.note(probe(code), &check, later)).to_vec();
        assert_eq!(told, [false, false, true, false, false, true, false, true]);
        assert_eq!((health.status, health.failing_streak, health.log.len()), (Status::Healthy, 0, 5));
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let check = Healthcheck { start_period: 10_000_000_000, retries: 1, ..Healthcheck::default() };
        let mut health = Health::new();
        assert!(!health.note(probe(1), &check, Duration::from_secs(9)));
        assert_eq!((health.status, health.failing_streak), (Status::Starting, 0));
        assert!(health.note(probe(1), &check, Duration::from_secs(11)));
        assert_eq!(check.pause(Status::Starting, Duration::from_secs(9)), Duration::from_secs(5));
        assert_eq!(check.pause(Status::Starting, Duration::from_secs(11)), Duration::from_secs(30));
    }

    #[test]
    fn flags_go_over_the_image_and_commands_are_dockers_forms() {
        let image: Healthcheck =
            serde_json::from_str(r#"{"Test":["CMD-SHELL","exit 0"],"Interval":1000000000,"Retries":7}"#).unwrap();
        let both = Healthcheck { interval: 5, ..Healthcheck::default() }.over(Some(&image));
        assert_eq!((both.interval, both.retries), (5, 7));
        assert_eq!(both.command(&[]).unwrap(), ["/bin/sh", "-c", "exit 0"]);
        assert_eq!(both.command(&["bash".into(), "-lc".into()]).unwrap(), ["bash", "-lc", "exit 0"]);
        let none = Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() };
        assert_eq!(none.over(Some(&image)).command(&[]), None);
    }
}
