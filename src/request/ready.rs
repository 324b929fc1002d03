//! `run -d --wait`: when a container counts as ready.

use std::time::Duration;

use regex::Regex;

use super::{Invalid, logs};
use crate::cli::RunArgs;

/// How long is waited by default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// One condition.
#[derive(Debug, Clone)]
pub enum Ready {
    /// The container accepts connections: on this port, or on all its published ones, or all its exposed ones.
    Port(Option<u16>),
    /// A line of its log fits.
    Log(Regex),
    /// Its health check says so.
    Healthy,
    /// It answers a GET request with 2xx or 3xx: on this port, or on the first that [`Ready::Port`] would look at.
    Http(Option<u16>, String),
}

/// All conditions, and how long they may take together.
#[derive(Debug)]
pub struct Wait {
    /// All have to fit.
    pub conditions: Vec<Ready>,
    /// `--wait-timeout`
    pub timeout: Duration,
}

impl Wait {
    /// Reads `--wait` and `--wait-timeout`; none without the former.
    ///
    /// # Errors
    /// A condition that isn't one, or `--wait` in the foreground.
    pub fn from_args(args: &RunArgs) -> Result<Option<Wait>, Invalid> {
        let timeout = match args.wait_timeout.as_deref() {
            None => DEFAULT_TIMEOUT,
            Some(text) => {
                let seconds = text.parse::<u64>().ok().map(Duration::from_secs);
                let time = || logs::duration(text).and_then(|time| u64::try_from(time).ok()).map(Duration::from_nanos);
                seconds.or_else(time).ok_or_else(|| {
                    Invalid::value("--wait-timeout", text, "not a duration; write one such as 30s or 1m30s")
                })?
            }
        };
        match (args.wait.is_empty(), args.wait_timeout.is_some()) {
            (true, true) => return Err(Invalid::new("--wait-timeout needs --wait: what is to be waited for?")),
            (true, false) => return Ok(None),
            _ if !args.detach => return Err(Invalid::new("--wait needs -d: in the foreground you see it yourself")),
            _ => {}
        }
        if args.log_driver.as_deref() == Some("none") && args.wait.iter().any(|text| text.starts_with("log:")) {
            return Err(Invalid::new("--wait log:… needs a log; leave out --log-driver none"));
        }
        let conditions = args.wait.iter().map(|text| parse(text)).collect::<Result<_, _>>()?;
        Ok(Some(Wait { conditions, timeout }))
    }
}

fn parse(text: &str) -> Result<Ready, Invalid> {
    let wrong = |why: &str| Invalid::value("--wait", text, why);
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match text.split_once(':') {
        None if text == "port" => Ok(Ready::Port(None)),
        None if text == "healthy" => Ok(Ready::Healthy),
        Some(("port", number)) => match port(number) {
            Some(number) => Ok(Ready::Port(Some(number))),
            None => Err(wrong("not a port: 1-65535")),
        },
        Some(("log", pattern)) => {
            let regex = Regex::new(pattern).map_err(|error| {
                let why = error.to_string();
                wrong(why.lines().last().unwrap_or("not a pattern"))
            })?;
            Ok(Ready::Log(regex))
        }
        Some(("http", rest)) => {
            let (number, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let path = if path.is_empty() { "/" } else { path };
            if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
                return Err(wrong("a path without spaces, such as /healthz"));
            }
            match (number.is_empty(), port(number)) {
                (false, None) => Err(wrong("not a port: 1-65535")),
                (_, number) => Ok(Ready::Http(number, path.to_string())),
            }
        }
        _ => Err(wrong("there are port, port:N, log:PATTERN, healthy, http:/path and http:N/path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_and_others_refused() {
        assert!(matches!(parse("port"), Ok(Ready::Port(None))));
        assert!(matches!(parse("port:80"), Ok(Ready::Port(Some(80)))));
        assert!(matches!(parse("healthy"), Ok(Ready::Healthy)));
        assert!(matches!(parse("log:ready to (accept|serve)"), Ok(Ready::Log(_))));
        assert!(matches!(parse("http:/x"), Ok(Ready::Http(None, path)) if path == "/x"));
        assert!(matches!(parse("http:8080/"), Ok(Ready::Http(Some(8080), path)) if path == "/"));
        for text in ["", "ready", "port:0", "port:x", "log:(", "http:x/y", "http:/a b", "healthy:1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
