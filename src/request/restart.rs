//! `--restart`: what happens when the program has ended.

use serde::{Deserialize, Serialize};

use super::Invalid;

/// The restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Restart {
    /// The container stays exited.
    #[default]
    No,
    /// Started again after a failure, at most so many times in a row; 0: any number of times.
    OnFailure(u32),
    /// Started again whatever happens, at boot too.
    Always,
    /// As `always`, but not at boot if it was stopped before.
    UnlessStopped,
}

impl Restart {
    /// docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Restart::No => "no",
            Restart::OnFailure(_) => "on-failure",
            Restart::Always => "always",
            Restart::UnlessStopped => "unless-stopped",
        }
    }

    /// docker's `MaximumRetryCount`.
    pub fn most(self) -> u32 {
        if let Restart::OnFailure(most) = self { most } else { 0 }
    }

    /// Whether a program that has ended with `code` after `count` restarts is started again.
    pub fn wants(self, code: i32, count: u32) -> bool {
        match self {
            Restart::No => false,
            Restart::OnFailure(most) => code != 0 && (most == 0 || count < most),
            Restart::Always | Restart::UnlessStopped => true,
        }
    }
}

/// Reads `--restart`; an empty text is `no`.
///
/// # Errors
/// docker's sentences.
pub(super) fn parse(text: &str) -> Result<Restart, Invalid> {
    let (name, count) = match text.split_once(':') {
        Some(("", _)) => return Err(Invalid::new("invalid restart policy format: no policy provided before colon")),
        Some((name, count)) => (name, count),
        None => (text, ""),
    };
    let count: i64 = match count {
        "" => 0,
        count => count
            .parse()
            .map_err(|_| Invalid::new("invalid restart policy format: maximum retry count must be an integer"))?,
    };
    let policy = match name {
        "" | "no" => Restart::No,
        "always" => Restart::Always,
        "unless-stopped" => Restart::UnlessStopped,
        "on-failure" => match u32::try_from(count) {
            Ok(count) => return Ok(Restart::OnFailure(count)),
            Err(_) if count < 0 => {
                return Err(Invalid::new("invalid restart policy: maximum retry count cannot be negative"));
            }
            Err(_) => return Err(Invalid::new("invalid restart policy: maximum retry count is too large")),
        },
        other => {
            let other = crate::cli::bounded(other, 60);
            return Err(Invalid::new(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
                 'unless-stopped'"
            )));
        }
    };
    match count {
        0 => Ok(policy),
        count => {
            let negative = if count < 0 { " and cannot be negative" } else { "" };
            Err(Invalid::new(format!(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_docker_does() {
        for (text, policy) in [
            ("", Restart::No),
            ("no", Restart::No),
            ("always", Restart::Always),
            ("unless-stopped", Restart::UnlessStopped),
            ("on-failure", Restart::OnFailure(0)),
            ("on-failure:", Restart::OnFailure(0)),
            ("on-failure:3", Restart::OnFailure(3)),
        ] {
            assert_eq!(parse(text), Ok(policy), "{text}");
        }
        for (text, why) in [
            ("sometimes", "unknown policy 'sometimes'; use one of"),
            (":3", "no policy provided before colon"),
            ("always:3", "can only be used with 'on-failure'"),
            ("no:-3", "and cannot be negative"),
            ("on-failure:-1", "cannot be negative"),
            ("on-failure:x", "must be an integer"),
        ] {
            assert!(parse(text).unwrap_err().message.contains(why), "{text}");
        }
    }

    #[test]
    fn on_failure_counts_and_always_does_not() {
        assert!(Restart::OnFailure(2).wants(1, 1) && !Restart::OnFailure(2).wants(1, 2));
        assert!(Restart::OnFailure(0).wants(1, 1000) && !Restart::OnFailure(0).wants(0, 0));
        assert!(Restart::Always.wants(0, 1000) && !Restart::No.wants(1, 0));
    }
}
