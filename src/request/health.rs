//! `--health-*` and `--no-healthcheck`: a health check over the image's.

use super::{Invalid, logs};
use crate::cli::RunArgs;
use crate::health::Healthcheck;

/// Reads the flags; docker's rules and sentences.
///
/// # Errors
/// A time that isn't one, or flags that contradict each other.
pub(super) fn from_args(args: &RunArgs) -> Result<Option<Healthcheck>, Invalid> {
    let times = [
        ("--health-interval", &args.health_interval),
        ("--health-timeout", &args.health_timeout),
        ("--health-start-period", &args.health_start_period),
        ("--health-start-interval", &args.health_start_interval),
    ];
    let cmd = args.health_cmd.as_deref().filter(|cmd| !cmd.is_empty());
    let any = cmd.is_some() || args.health_retries.is_some() || times.iter().any(|(_, text)| text.is_some());
    if args.no_healthcheck {
        return match any {
            true => Err(Invalid::new("--no-healthcheck conflicts with --health-* options")),
            false => Ok(Some(Healthcheck { test: vec!["NONE".to_string()], ..Healthcheck::default() })),
        };
    }
    if !any {
        return Ok(None);
    }
    let [interval, timeout, start_period, start_interval] = times.map(|(flag, text)| time(flag, text.as_deref()));
    let retries = args.health_retries.unwrap_or(0);
    let retries = u64::try_from(retries).map_err(|_| Invalid::new("--health-retries cannot be negative"))?;
    let test = cmd.map(|cmd| vec!["CMD-SHELL".to_string(), cmd.to_string()]).unwrap_or_default();
    Ok(Some(Healthcheck {
        test,
        interval: interval?,
        timeout: timeout?,
        start_period: start_period?,
        start_interval: start_interval?,
        retries,
    }))
}

/// Nanoseconds; 0 is docker's default.
fn time(flag: &str, text: Option<&str>) -> Result<u64, Invalid> {
    let Some(text) = text else { return Ok(0) };
    let wrong = || Invalid::value(flag, text, "not a duration; write one such as 30s, 1m30s or 500ms");
    let nanoseconds = if text == "0" { 0 } else { logs::duration(text).ok_or_else(wrong)? };
    match u64::try_from(nanoseconds) {
        Ok(0) => Ok(0),
        Ok(short) if short < 1_000_000 => Err(Invalid::value(flag, text, "cannot be less than 1ms")),
        Ok(time) if i64::try_from(time).is_ok() => Ok(time),
        _ if nanoseconds < 0 => Err(Invalid::new(format!("{flag} cannot be negative"))),
        _ => Err(wrong()),
    }
}
