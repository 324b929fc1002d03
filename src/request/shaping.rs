//! `--net-rate`, `--net-rate-in`, `--net-delay`, `--net-loss`: words as tc(8) takes them.

use netsetup::tc::{Netem, Rate};
use serde::{Deserialize, Serialize};

use super::network::NetworkMode;
use super::{Invalid, size};
use crate::cli::RunArgs;

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shaping {
    /// `--net-rate`: what the container sends.
    pub rate: Option<Rate>,
    /// `--net-rate-in`: what comes to it.
    pub rate_in: Option<Rate>,
    /// `--net-delay` and `--net-loss`.
    pub netem: Option<Netem>,
}

impl Shaping {
    pub(super) fn from_args(args: &RunArgs, mode: &NetworkMode) -> Result<Shaping, Invalid> {
        let shaping = Shaping {
            rate: args.net_rate.as_deref().map(|text| rate("--net-rate", text)).transpose()?,
            rate_in: args.net_rate_in.as_deref().map(|text| rate("--net-rate-in", text)).transpose()?,
            netem: netem(args.net_delay.as_deref(), args.net_loss.as_deref())?,
        };
        shaping.agree(args, mode)?;
        Ok(shaping)
    }

    fn agree(&self, args: &RunArgs, mode: &NetworkMode) -> Result<(), Invalid> {
        if self.rate.is_some() && args.net_cls.is_some() {
            return Err(Invalid::new(
                "conflicting options: --net-rate and --net-cls; --net-rate makes a class of its own, leave one out",
            ));
        }
        let bridged = *mode == NetworkMode::Bridge;
        if self.rate.is_some() && !bridged && *mode != NetworkMode::Host {
            return Err(Invalid::new("--net-rate needs a network of minidock's or the host's; leave it out"));
        }
        if !bridged && (self.rate_in.is_some() || self.netem.is_some()) {
            let why = "--net-rate-in, --net-delay and --net-loss need a card of the container's own, on a bridge; leave \
                       them out";
            return Err(Invalid::new(why));
        }
        Ok(())
    }
}

/// `8mbit[,ceil=16mbit][,burst=32k]`
fn rate(flag: &str, text: &str) -> Result<Rate, Invalid> {
    let wrong = |why: &str| Invalid::value(flag, text, why);
    let mut parts = text.split(',');
    let number = |part: &str| {
        bits(part)
            .ok_or_else(|| wrong("write a rate as tc does, such as 8mbit, 500kbit or 1mbps (bytes), from 8kbit up"))
    };
    let own = number(parts.next().unwrap_or_default())?;
    let mut rate = Rate { bits: own, ceil: own, burst: default_burst(own) };
    for part in parts {
        match part.split_once('=') {
            Some(("ceil", value)) if flag == "--net-rate" => rate.ceil = number(value)?,
            Some(("burst", value)) => {
                let bytes = size::parse(value).ok().and_then(|bytes| u32::try_from(bytes).ok());
                rate.burst = bytes
                    .filter(|bytes| *bytes >= 1600)
                    .ok_or_else(|| wrong("a burst is a size of at least 1600 bytes, one packet, such as 32k"))?;
            }
            _ if flag == "--net-rate" => return Err(wrong("after the rate come ceil=RATE and burst=SIZE")),
            _ => return Err(wrong("after the rate comes burst=SIZE")),
        }
    }
    if rate.ceil < rate.bits {
        return Err(wrong("ceil is what it may have at most: not less than the rate"));
    }
    Ok(rate)
}

/// 10 ms' worth, but a few packets.
fn default_burst(bits: u64) -> u32 {
    u32::try_from(bits / 8 / 100).unwrap_or(u32::MAX).clamp(16 * 1024, 8 << 20)
}

/// tc's units: `bit` is the default, `bps` are bytes; k, m, g, t are powers of 1000, with an i of 1024.
fn bits(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let (unit, times) = match unit.strip_suffix("bps") {
        Some(unit) => (unit, 8.0),
        None => (unit.strip_suffix("bit").or(Some(unit).filter(|unit| unit.is_empty()))?, 1.0),
    };
    let factor: f64 = match unit {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "ki" => 1024.0,
        "mi" => 1_048_576.0,
        "gi" => 1_073_741_824.0,
        _ => return None,
    };
    let bits = (number * factor * times) as u64;
    (8_000..=1_000_000_000_000).contains(&bits).then_some(bits)
}

fn netem(delay: Option<&str>, loss: Option<&str>) -> Result<Option<Netem>, Invalid> {
    let mut netem = Netem::default();
    if let Some(text) = delay {
        let wrong =
            || Invalid::value("--net-delay", text, "write TIME[,JITTER], such as 100ms or 100ms,10ms; an hour at most");
        let (delay, jitter) = text.split_once(',').unwrap_or((text, "0"));
        netem.delay_us = microseconds(delay).filter(|time| *time > 0).ok_or_else(wrong)?;
        netem.jitter_us = microseconds(jitter).filter(|time| *time <= netem.delay_us).ok_or_else(wrong)?;
    }
    if let Some(text) = loss {
        let percent: Option<f64> = text.trim_end_matches('%').parse().ok();
        let percent = percent.filter(|percent| *percent > 0.0 && *percent <= 100.0);
        let percent = percent
            .ok_or_else(|| Invalid::value("--net-loss", text, "write a percentage above 0, such as 1% or 0.5%"))?;
        netem.loss_ppm = (percent * 1e4).round().max(1.0) as u32;
    }
    Ok((netem != Netem::default()).then_some(netem))
}

/// `100ms`, `1.5s`, `250us`; a bare number is microseconds, as tc's. An hour at most.
fn microseconds(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match unit {
        "" | "us" | "usec" => 1.0,
        "ms" | "msec" => 1e3,
        "s" | "sec" => 1e6,
        _ => return None,
    };
    let time = (number * factor) as u64;
    (time <= 3_600_000_000).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_tcs() {
        for (text, is) in [
            ("8mbit", 8_000_000),
            ("8MBIT", 8_000_000),
            ("500kbit", 500_000),
            ("1.5gbit", 1_500_000_000),
            ("1mbps", 8_000_000),
            ("64000", 64_000),
            ("1mibit", 1_048_576),
        ] {
            assert_eq!(rate("--net-rate", text).unwrap().bits, is, "{text}");
        }
        let full = rate("--net-rate", "8mbit,ceil=16mbit,burst=32k").unwrap();
        assert_eq!((full.bits, full.ceil, full.burst), (8_000_000, 16_000_000, 32 * 1024));
        assert_eq!(rate("--net-rate", "8mbit").unwrap(), Rate { bits: 8_000_000, ceil: 8_000_000, burst: 16384 });
        for text in
            ["", "fast", "8", "-1mbit", "8mbit,", "8mbit,ceil=4mbit", "8mbit,burst=1", "8mb", "9999tbit", "nanbit"]
        {
            assert!(rate("--net-rate", text).is_err(), "{text}");
        }
        assert!(rate("--net-rate-in", "8mbit,ceil=16mbit").is_err());
    }

    #[test]
    fn delays_and_losses() {
        let read = |delay, loss| netem(delay, loss).unwrap();
        assert_eq!(read(None, None), None);
        let both = read(Some("100ms,10ms"), Some("0.5%")).unwrap();
        assert_eq!(both, Netem { delay_us: 100_000, jitter_us: 10_000, loss_ppm: 5000 });
        for (delay, loss) in [
            (Some("0"), None),
            (Some("1ms,2ms"), None),
            (Some("x"), None),
            (Some("2h"), None),
            (None, Some("0")),
            (None, Some("101%")),
        ] {
            assert!(netem(delay, loss).is_err(), "{delay:?} {loss:?}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let read = |args: &RunArgs, mode| Shaping::from_args(args, &mode).map(|shaping| shaping.rate.is_some());
        let rate = RunArgs { net_rate: Some("8mbit".into()), ..RunArgs::default() };
        assert_eq!(read(&rate, NetworkMode::Bridge), Ok(true));
        assert_eq!(read(&rate, NetworkMode::Host), Ok(true));
        assert!(read(&rate, NetworkMode::None).is_err());
        assert!(read(&RunArgs { net_cls: Some("1:10".into()), ..rate }, NetworkMode::Bridge).is_err());
        let inside = RunArgs { net_rate_in: Some("8mbit".into()), ..RunArgs::default() };
        assert!(read(&inside, NetworkMode::Host).is_err());
    }
}
