//! Rates of block devices: `--device-read-bps` and its kin.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Invalid, size, text};

/// A rate of one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// Below /dev. Its device numbers are looked up with the host's facts.
    #[serde(with = "text::one")]
    pub device: PathBuf,
    /// Bytes or operations per second, at least 1.
    pub rate: u64,
}

/// Reads the flags of one kind.
pub(super) fn throttles(
    flag: &str,
    list: &[String],
    rate: fn(&str) -> Result<u64, String>,
) -> Result<Vec<Throttle>, Invalid> {
    list.iter()
        .map(|text| {
            let (device, number) =
                text.rsplit_once(':').ok_or_else(|| Invalid::value(flag, text, "bad format; write DEVICE:RATE"))?;
            if !device.starts_with("/dev/") {
                return Err(Invalid::value(
                    flag,
                    text,
                    format!("bad format for device path: {device}; it must be below /dev/"),
                ));
            }
            let rate = rate(number).map_err(|why| Invalid::value(flag, text, why))?;
            Ok(Throttle { device: PathBuf::from(device), rate })
        })
        .collect()
}

/// A rate in bytes.
pub(super) fn bytes_per_second(text: &str) -> Result<u64, String> {
    let why = "invalid rate; write a positive number of bytes per second, with kb, mb or gb if wanted";
    size::parse(text).ok().filter(|rate| *rate > 0).ok_or_else(|| why.to_owned())
}

/// A rate in operations.
pub(super) fn per_second(text: &str) -> Result<u64, String> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|rate| *rate > 0 && digits)
        .ok_or_else(|| "invalid rate; write a positive number".to_owned())
}
