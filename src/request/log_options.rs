//! `--log-driver` and `--log-opt`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Invalid, LogDriver};

/// A log file's size when nothing else is said.
pub const DEFAULT_MAX_BYTES: u64 = 10_000_000;
/// How many log files are kept when nothing else is said.
pub const DEFAULT_MAX_FILES: u32 = 3;

/// What was asked for; docker's names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogOptions {
    /// `max-size`: a file that has reached this many bytes is rotated.
    pub max_bytes: Option<u64>,
    /// `max-file`
    pub max_files: Option<u32>,
    /// `labels`: these are noted with each record.
    pub labels: Vec<String>,
    /// `env`: these variables are noted with each record.
    pub env: Vec<String>,
    /// As typed, for `inspect`.
    pub typed: BTreeMap<String, String>,
}

impl LogOptions {
    /// Bytes of a file.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes.unwrap_or(DEFAULT_MAX_BYTES)
    }

    /// Files kept, the present one among them.
    pub fn max_files(&self) -> u32 {
        self.max_files.unwrap_or(DEFAULT_MAX_FILES)
    }
}

/// Reads `--log-driver`.
///
/// # Errors
/// There is no such driver.
pub fn driver(text: Option<&str>) -> Result<LogDriver, Invalid> {
    match text {
        None | Some("" | "json-file") => Ok(LogDriver::JsonFile),
        Some("journald") => Ok(LogDriver::Journald),
        Some("none") => Ok(LogDriver::None),
        Some(text) => Err(Invalid::value("--log-driver", text, "there are json-file, journald and none")),
    }
}

/// Reads the `--log-opt`s of a driver.
///
/// # Errors
/// An unknown option, or one with a wrong value.
pub fn options(driver: LogDriver, texts: &[String]) -> Result<LogOptions, Invalid> {
    let mut options = LogOptions::default();
    for text in texts {
        let invalid = |why: &str| Invalid::value("--log-opt", text, why);
        let Some((name, value)) = text.split_once('=') else { return Err(invalid("write NAME=VALUE")) };
        let names = || value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let is_file = driver == LogDriver::JsonFile;
        match name {
            "max-size" if is_file => options.max_bytes = Some(size(value).ok_or_else(|| invalid(SIZES))?),
            "max-file" if is_file => {
                let count = value.parse().ok().filter(|count| (1..=1000).contains(count));
                options.max_files = Some(count.ok_or_else(|| invalid("max-file cannot be less than 1 or above 1000"))?);
            }
            "labels" if driver != LogDriver::None => options.labels = names(),
            "env" if driver != LogDriver::None => options.env = names(),
            "mode" if value == "blocking" => {}
            "mode" => return Err(invalid("only blocking is there: a log never holds up its container")),
            "compress" if is_file && matches!(value, "false" | "0") => {}
            "compress" if is_file => return Err(invalid("rotated files are not compressed; leave it out")),
            _ => {
                let (driver, known) = match driver {
                    LogDriver::JsonFile => ("json-file", "max-size, max-file, labels and env"),
                    LogDriver::Journald => ("journald", "labels and env"),
                    LogDriver::None => ("none", "none"),
                };
                return Err(invalid(&format!("unknown log opt '{name}' for {driver} log driver; there are {known}")));
            }
        }
        options.typed.insert(name.to_owned(), value.to_owned());
    }
    Ok(options)
}

const SIZES: &str = "write a number of bytes, or one with k, m or g such as 10m; -1 means no limit";

/// Whether a text is a size that `max-size` takes.
pub fn is_size(text: &str) -> bool {
    size(text).is_some_and(|bytes| bytes > 0)
}

/// Units are powers of 1000 here, as docker's.
fn size(text: &str) -> Option<u64> {
    if text == "-1" {
        return Some(u64::MAX);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim().to_ascii_lowercase().trim_end_matches('b') {
        "" => 1e0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor;
    (1.0..1e18).contains(&bytes).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<LogOptions, Invalid> {
        options(LogDriver::JsonFile, &texts.iter().map(|text| text.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn sizes_and_counts_are_dockers() {
        let options = read(&["max-size=10m", "max-file=5", "labels=a,b", "env=X"]).unwrap();
        assert_eq!((options.max_bytes(), options.max_files()), (10_000_000, 5));
        assert_eq!((options.labels.len(), options.env.len(), options.typed["max-size"].as_str()), (2, 1, "10m"));
        assert_eq!(read(&[]).unwrap().max_bytes(), DEFAULT_MAX_BYTES);
        for (text, bytes) in [("-1", u64::MAX), ("512", 512), ("1.5k", 1500), ("2KB", 2000), ("1g", 1_000_000_000)] {
            assert_eq!(read(&[&format!("max-size={text}")]).unwrap().max_bytes(), bytes, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for text in [
            "max-size=0",
            "max-size=x",
            "max-size=-5",
            "max-file=0",
            "max-file=x",
            "foo=bar",
            "max-size",
            "compress=true",
            "mode=non-blocking",
        ] {
            let error = read(&[text]).unwrap_err();
            assert!(error.message.contains("--log-opt") && error.message.contains(text), "{error}");
        }
        assert!(options(LogDriver::None, &["max-size=1m".into()]).is_err());
        assert!(driver(Some("syslog")).is_err());
    }
}
