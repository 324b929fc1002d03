//! The cgroup limits of a container, checked against each other by docker's rules.

use serde::{Deserialize, Serialize};

use super::cpus::{CpuSet, nano_cpus};
pub use super::throttle::Throttle;
use super::throttle::{bytes_per_second, per_second, throttles};
use super::{Invalid, size};
use crate::cli::RunArgs;

/// docker's least memory limit: below it no program starts.
const LEAST_MEMORY_BYTES: u64 = 6 << 20;
/// The period that `--cpus` is spread over, in microseconds: the kernel's default.
pub const DEFAULT_PERIOD_US: u64 = 100_000;

/// What the container may use. `None`: no limit asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `--memory`
    pub memory_bytes: Option<u64>,
    /// `--memory-swap`: memory and swap together. Twice the memory limit where only that was given, as docker does.
    pub memory_swap: Option<MemorySwap>,
    /// `--memory-reservation`
    pub memory_reservation_bytes: Option<u64>,
    /// `--cpus` in billionths of a CPU
    pub nano_cpus: Option<u64>,
    /// `--cpu-shares`, as typed: the kernel's 2 to 262144
    pub cpu_shares: Option<u64>,
    /// `--cpu-period` in microseconds
    pub cpu_period_us: Option<u64>,
    /// `--cpu-quota` in microseconds; negative: no limit
    pub cpu_quota_us: Option<i64>,
    /// `--cpuset-cpus`
    pub cpuset_cpus: Option<CpuSet>,
    /// `--cpuset-mems`
    pub cpuset_mems: Option<CpuSet>,
    /// `--pids-limit`; `None` is also what -1 and 0 mean
    pub pids: Option<u64>,
    /// `--blkio-weight`, 10 to 1000
    pub blkio_weight: Option<u16>,
    /// `--device-read-bps`
    pub device_read_bps: Vec<Throttle>,
    /// `--device-write-bps`
    pub device_write_bps: Vec<Throttle>,
    /// `--device-read-iops`
    pub device_read_iops: Vec<Throttle>,
    /// `--device-write-iops`
    pub device_write_iops: Vec<Throttle>,
    /// `--oom-score-adj`, -1000 to 1000
    pub oom_score_adj: Option<i32>,
    /// `--memory-swappiness`, 0 to 100
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<u64>,
    /// `--oom-kill-disable`
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom_kill_disable: bool,
}

/// Memory and swap together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemorySwap {
    /// So many bytes, memory included.
    Bytes(u64),
    /// `-1`: as much swap as the host has.
    Unlimited,
}

impl Limits {
    /// Checks the limit flags of `run`.
    pub(crate) fn from_args(args: &RunArgs) -> Result<Limits, Invalid> {
        let mut limits = Limits {
            memory_bytes: memory("-m, --memory", &args.memory)?,
            memory_reservation_bytes: memory("--memory-reservation", &args.memory_reservation)?,
            nano_cpus: cpus(args)?,
            cpu_shares: cpu_shares(args.cpu_shares)?,
            cpu_period_us: cpu_period(args.cpu_period)?,
            cpu_quota_us: cpu_quota(args.cpu_quota)?,
            cpuset_cpus: cpu_set("--cpuset-cpus", &args.cpuset_cpus)?,
            cpuset_mems: cpu_set("--cpuset-mems", &args.cpuset_mems)?,
            pids: args.pids_limit.and_then(|pids| u64::try_from(pids).ok()).filter(|pids| *pids > 0),
            blkio_weight: blkio_weight(args.blkio_weight)?,
            device_read_bps: throttles("--device-read-bps", &args.device_read_bps, bytes_per_second)?,
            device_write_bps: throttles("--device-write-bps", &args.device_write_bps, bytes_per_second)?,
            device_read_iops: throttles("--device-read-iops", &args.device_read_iops, per_second)?,
            device_write_iops: throttles("--device-write-iops", &args.device_write_iops, per_second)?,
            oom_score_adj: oom_score(args.oom_score_adj)?,
            memory_swappiness: swappiness(args.memory_swappiness)?,
            oom_kill_disable: args.oom_kill_disable,
            memory_swap: None,
        };
        limits.memory_swap = memory_swap(&args.memory_swap, limits.memory_bytes)?;
        limits.agree()?;
        Ok(limits)
    }

    fn agree(&self) -> Result<(), Invalid> {
        if let (Some(memory), Some(reservation)) = (self.memory_bytes, self.memory_reservation_bytes)
            && memory < reservation
        {
            return Err(Invalid::new(format!(
                "minimum memory limit can not be less than memory reservation limit: --memory is {memory} bytes, \
                 --memory-reservation {reservation}; lower the reservation"
            )));
        }
        if self.nano_cpus.is_some() && (self.cpu_period_us.is_some() || self.cpu_quota_us.is_some()) {
            let other = if self.cpu_period_us.is_some() { "--cpu-period" } else { "--cpu-quota" };
            return Err(Invalid::new(format!(
                "conflicting options: --cpus and {other} cannot both be set; --cpus N means --cpu-quota N×{DEFAULT_PERIOD_US}"
            )));
        }
        Ok(())
    }

    /// The CFS quota and period in microseconds, whichever flag they come from. `None`: no limit.
    pub fn cpu_bandwidth(&self) -> Option<(i64, u64)> {
        if let Some(nano) = self.nano_cpus {
            // The kernel takes no quota below 1 ms.
            let quota = (u128::from(nano) * u128::from(DEFAULT_PERIOD_US) / 1_000_000_000).max(1000);
            return Some((i64::try_from(quota).unwrap_or(i64::MAX), DEFAULT_PERIOD_US));
        }
        match (self.cpu_quota_us, self.cpu_period_us) {
            (None, None) => None,
            (quota, period) => Some((quota.unwrap_or(-1), period.unwrap_or(DEFAULT_PERIOD_US))),
        }
    }

    /// Checks what depends on how many CPUs the host has.
    ///
    /// # Errors
    /// `--cpus` asks for more than there are.
    pub fn check_cpus(&self, host_cpus: u64) -> Result<(), Invalid> {
        match self.nano_cpus {
            Some(nano) if nano > host_cpus.saturating_mul(1_000_000_000) => Err(Invalid::new(format!(
                "range of CPUs is from 0.01 to {host_cpus}.00, as there are only {host_cpus} CPUs available; lower --cpus"
            ))),
            _ => Ok(()),
        }
    }
}

/// A memory limit; 0 is "no limit", as docker has it.
fn memory(flag: &str, text: &Option<String>) -> Result<Option<u64>, Invalid> {
    let Some(text) = text else { return Ok(None) };
    match size::bytes(flag, text)? {
        0 => Ok(None),
        bytes if bytes < LEAST_MEMORY_BYTES => {
            Err(Invalid::value(flag, text, "minimum memory limit allowed is 6MB; write 6m or more").by_engine())
        }
        bytes => Ok(Some(bytes)),
    }
}

fn memory_swap(text: &Option<String>, memory: Option<u64>) -> Result<Option<MemorySwap>, Invalid> {
    let flag = "--memory-swap";
    let text = text.as_deref().unwrap_or("0");
    if text == "-1" {
        return Ok(Some(MemorySwap::Unlimited));
    }
    let swap = size::bytes(flag, text)?;
    match (swap, memory) {
        (0, memory) => Ok(memory.map(|memory| MemorySwap::Bytes(memory.saturating_mul(2)))),
        (_, None) => Err(Invalid::value(flag, text, "it includes the memory limit, so it needs --memory too")),
        (swap, Some(memory)) if swap < memory => Err(Invalid::value(
            flag,
            text,
            format!("it includes the memory limit, so it can't be less than --memory ({memory} bytes)"),
        )),
        (swap, Some(_)) => Ok(Some(MemorySwap::Bytes(swap))),
    }
}

fn cpus(args: &RunArgs) -> Result<Option<u64>, Invalid> {
    let Some(text) = &args.cpus else {
        return Ok(None);
    };
    match nano_cpus(text).map_err(|why| Invalid::value("--cpus", text, why))? {
        0 => Ok(None),
        nano if nano < 10_000_000 => Err(Invalid::value("--cpus", text, "the least is 0.01 CPUs")),
        nano => Ok(Some(nano)),
    }
}

fn cpu_shares(shares: Option<i64>) -> Result<Option<u64>, Invalid> {
    let flag = "-c, --cpu-shares";
    match shares {
        None | Some(0) => Ok(None),
        Some(shares) if shares < 0 => Err(Invalid::value(flag, shares.to_string(), "value must be a positive number")),
        Some(shares) => Ok(Some(shares.unsigned_abs())),
    }
}

fn cpu_period(period: Option<i64>) -> Result<Option<u64>, Invalid> {
    match period {
        None | Some(0) => Ok(None),
        Some(us) if (1000..=1_000_000).contains(&us) => Ok(Some(us.unsigned_abs())),
        Some(us) => Err(Invalid::value(
            "--cpu-period",
            us.to_string(),
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        )),
    }
}

fn cpu_quota(quota: Option<i64>) -> Result<Option<i64>, Invalid> {
    match quota {
        None | Some(0) => Ok(None),
        Some(us) if us > 0 && us < 1000 => {
            Err(Invalid::value("--cpu-quota", us.to_string(), "CPU cfs quota can not be less than 1ms (i.e. 1000)"))
        }
        Some(us) => Ok(Some(us.max(-1))),
    }
}

fn cpu_set(flag: &str, text: &Option<String>) -> Result<Option<CpuSet>, Invalid> {
    match text.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => CpuSet::parse(text).map(Some).map_err(|why| Invalid::value(flag, text, why)),
    }
}

/// -1 is docker's way to say nothing.
fn swappiness(value: Option<i64>) -> Result<Option<u64>, Invalid> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => u64::try_from(value).ok().filter(|value| *value <= 100).map(Some).ok_or_else(|| {
            Invalid::value("--memory-swappiness", value.to_string(), "valid memory swappiness range is 0-100")
        }),
    }
}

fn blkio_weight(weight: Option<i64>) -> Result<Option<u16>, Invalid> {
    match weight {
        None | Some(0) => Ok(None),
        Some(weight @ 10..=1000) => Ok(u16::try_from(weight).ok()),
        Some(weight) => {
            Err(Invalid::value("--blkio-weight", weight.to_string(), "range of blkio weight is from 10 to 1000"))
        }
    }
}

fn oom_score(score: Option<i64>) -> Result<Option<i32>, Invalid> {
    match score {
        None => Ok(None),
        Some(score @ -1000..=1000) => Ok(i32::try_from(score).ok()),
        Some(score) => {
            Err(Invalid::value("--oom-score-adj", score.to_string(), "range for oom score adj is [-1000, 1000]"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> RunArgs {
        RunArgs::default()
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn swap_is_twice_the_memory_unless_said() {
        let limits = Limits::from_args(&RunArgs { memory: some("64m"), ..args() }).unwrap();
        assert_eq!(limits.memory_bytes, Some(64 << 20));
        assert_eq!(limits.memory_swap, Some(MemorySwap::Bytes(128 << 20)));
        let limits = Limits::from_args(&RunArgs { memory: some("64m"), memory_swap: some("64m"), ..args() }).unwrap();
        assert_eq!(limits.memory_swap, Some(MemorySwap::Bytes(64 << 20)));
        let limits = Limits::from_args(&RunArgs { memory: some("64m"), memory_swap: some("-1"), ..args() }).unwrap();
        assert_eq!(limits.memory_swap, Some(MemorySwap::Unlimited));
        assert_eq!(Limits::from_args(&args()).unwrap(), Limits::default());
    }

    #[test]
    fn memory_limits_must_agree() {
        let wrong = [
            RunArgs { memory: some("5m"), ..args() },
            RunArgs { memory_swap: some("64m"), ..args() },
            RunArgs { memory: some("64m"), memory_swap: some("32m"), ..args() },
            RunArgs { memory: some("64m"), memory_swap: some("-2"), ..args() },
            RunArgs { memory: some("64m"), memory_reservation: some("65m"), ..args() },
            RunArgs { memory_reservation: some("1m"), ..args() },
        ];
        for args in wrong {
            let error = Limits::from_args(&args).unwrap_err();
            assert!(error.message.contains("memory"), "{error}");
            assert_eq!(error.code, 125);
        }
    }

    #[test]
    fn cpus_become_quota_and_period() {
        let bandwidth = |args: RunArgs| Limits::from_args(&args).unwrap().cpu_bandwidth();
        assert_eq!(bandwidth(RunArgs { cpus: some("1.5"), ..args() }), Some((150_000, 100_000)));
        assert_eq!(bandwidth(RunArgs { cpus: some("0.01"), ..args() }), Some((1000, 100_000)));
        assert_eq!(bandwidth(RunArgs { cpu_quota: Some(20_000), ..args() }), Some((20_000, 100_000)));
        assert_eq!(bandwidth(RunArgs { cpu_quota: Some(-1), cpu_period: Some(50_000), ..args() }), Some((-1, 50_000)));
        assert_eq!(bandwidth(args()), None);
    }

    #[test]
    fn cpu_flags_out_of_range_or_in_conflict_are_refused() {
        let wrong = [
            RunArgs { cpus: some("1"), cpu_quota: Some(20_000), ..args() },
            RunArgs { cpus: some("1"), cpu_period: Some(20_000), ..args() },
            RunArgs { cpus: some("0.001"), ..args() },
            RunArgs { cpu_period: Some(999), ..args() },
            RunArgs { cpu_period: Some(1_000_001), ..args() },
            RunArgs { cpu_period: Some(-1), ..args() },
            RunArgs { cpu_quota: Some(999), ..args() },
            RunArgs { cpu_shares: Some(-1), ..args() },
            RunArgs { cpuset_cpus: some("0-999999999"), ..args() },
        ];
        for args in wrong {
            assert!(Limits::from_args(&args).is_err(), "{args:?}");
        }
        let many = Limits::from_args(&RunArgs { cpus: some("3"), ..args() }).unwrap();
        assert!(many.check_cpus(2).unwrap_err().message.contains("only 2 CPUs"));
        assert_eq!(many.check_cpus(3), Ok(()));
    }

    #[test]
    fn rates_name_a_device() {
        let limits = Limits::from_args(&RunArgs {
            device_read_bps: vec!["/dev/sda:1mb".into()],
            device_write_iops: vec!["/dev/sda:100".into()],
            ..args()
        })
        .unwrap();
        assert_eq!(limits.device_read_bps, [Throttle { device: "/dev/sda".into(), rate: 1 << 20 }]);
        assert_eq!(limits.device_write_iops[0].rate, 100);
        for text in ["foo", "/dev/sda", "/etc/x:1", "/dev/sda:", "/dev/sda:0", "/dev/sda:-1", "/dev/sda:x"] {
            assert!(Limits::from_args(&RunArgs { device_read_bps: vec![text.into()], ..args() }).is_err(), "{text}");
            assert!(Limits::from_args(&RunArgs { device_read_iops: vec![text.into()], ..args() }).is_err(), "{text}");
        }
    }

    #[test]
    fn small_numbers_have_their_ranges() {
        for weight in [9, 1001, -1, i64::MAX] {
            assert!(Limits::from_args(&RunArgs { blkio_weight: Some(weight), ..args() }).is_err());
        }
        for score in [-1001, 1001] {
            assert!(Limits::from_args(&RunArgs { oom_score_adj: Some(score), ..args() }).is_err());
        }
        let limits = Limits::from_args(&RunArgs {
            pids_limit: Some(-1),
            oom_score_adj: Some(-500),
            blkio_weight: Some(0),
            ..args()
        })
        .unwrap();
        assert_eq!((limits.pids, limits.oom_score_adj, limits.blkio_weight), (None, Some(-500), None));
    }
}
