//! Limits on block devices: v1 `blkio.*`, cgroup2 `io.*`.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice};

use super::{Error, Home, limits::rate, plan::Draft};

/// The four throttle lists: flag, v1 file, key of cgroup2's `io.max`.
const THROTTLES: [(&str, &str, &str); 4] = [
    ("--device-read-bps", "blkio.throttle.read_bps_device", "rbps"),
    ("--device-write-bps", "blkio.throttle.write_bps_device", "wbps"),
    ("--device-read-iops", "blkio.throttle.read_iops_device", "riops"),
    ("--device-write-iops", "blkio.throttle.write_iops_device", "wiops"),
];

/// Plans `--blkio-weight`, `--blkio-weight-device` and the throttles.
pub(super) fn plan(resources: &LinuxResources, draft: &mut Draft) -> Result<(), Error> {
    let Some(block) = resources.block_io() else {
        return Ok(());
    };
    if block.leaf_weight().is_some_and(|weight| weight != 0) {
        return Err(Error::refused("cannot keep a blkio leaf weight: Linux dropped it with the CFQ scheduler (5.0)"));
    }
    plan_weights(block, draft)?;
    plan_throttles(block, draft)
}

fn plan_weights(block: &LinuxBlockIo, draft: &mut Draft) -> Result<(), Error> {
    let range = |flag: &str, weight: u16| {
        if (10..=1000).contains(&weight) {
            return Ok(weight);
        }
        Err(Error::refused(format!("invalid {flag} {weight}: 10 to 1000, or 0 to leave it alone")))
    };
    if let Some(weight) = block.weight().filter(|weight| *weight != 0) {
        let flag = format!("--blkio-weight {}", range("--blkio-weight", weight)?);
        let scale = Scale::find(&flag, draft)?;
        let home = draft.home("blkio", &flag)?;
        let value = match scale {
            Scale::Bfq(_) => weight.to_string(),
            Scale::Cost => format!("default {}", scale.value(weight)),
        };
        draft.write(home, "blkio", scale.file(), value, format!("{flag}: share of a busy disk{}", scale.remark()));
    }
    for device in block.weight_device().iter().flatten() {
        let name = number(device.major(), device.minor())?;
        if device.leaf_weight().is_some_and(|weight| weight != 0) {
            return Err(Error::refused(format!(
                "cannot keep a blkio leaf weight for {name}: Linux dropped it with the CFQ scheduler (5.0)"
            )));
        }
        let Some(weight) = device.weight().filter(|weight| *weight != 0) else {
            continue;
        };
        let flag = format!("--blkio-weight-device {name}:{}", range("--blkio-weight-device", weight)?);
        let scale = Scale::find(&flag, draft)?;
        let home = draft.home("blkio", &flag)?;
        let value = format!("{name} {}", scale.value(weight));
        draft.write(
            home,
            "blkio",
            scale.device_file(),
            value,
            format!("{flag}: share of this disk when it is busy{}", scale.remark()),
        );
    }
    Ok(())
}

/// Which kernel code shares a disk by weights, and on which scale. The flag of Bfq tells whether it is the v1 one.
#[derive(Clone, Copy)]
enum Scale {
    /// The BFQ scheduler: 1 to 1000, as docker's flag.
    Bfq(bool),
    /// cgroup2's io cost controller: 1 to 10000.
    Cost,
}

impl Scale {
    fn find(flag: &str, draft: &Draft) -> Result<Scale, Error> {
        let home = draft.home("blkio", flag)?;
        match home {
            Home::V1(_) if draft.layout.bfq => Ok(Scale::Bfq(true)),
            Home::V2(_) if draft.layout.bfq => Ok(Scale::Bfq(false)),
            Home::V2(_) if draft.layout.iocost => Ok(Scale::Cost),
            _ => Err(Error::refused(format!(
                "cannot keep {flag}: no disk scheduler of this kernel takes weights; load BFQ (modprobe bfq) and choose it for the disk, or leave the flag out"
            ))),
        }
    }

    fn file(self) -> &'static str {
        match self {
            Scale::Bfq(true) => "blkio.bfq.weight",
            Scale::Bfq(false) => "io.bfq.weight",
            Scale::Cost => "io.weight",
        }
    }

    fn device_file(self) -> &'static str {
        match self {
            Scale::Bfq(true) => "blkio.bfq.weight_device",
            Scale::Bfq(false) => "io.bfq.weight",
            Scale::Cost => "io.weight",
        }
    }

    /// 10 to 1000 spread over 1 to 10000, as the cgroup2 conversions of runc and crun do.
    fn value(self, weight: u16) -> u64 {
        match self {
            Scale::Bfq(_) => u64::from(weight),
            Scale::Cost => 1 + (u64::from(weight) - 10) * 9999 / 990,
        }
    }

    fn remark(self) -> &'static str {
        match self {
            Scale::Bfq(_) => "",
            Scale::Cost => ", on cgroup2's scale of 1 to 10000",
        }
    }
}

fn plan_throttles(block: &LinuxBlockIo, draft: &mut Draft) -> Result<(), Error> {
    let lists = [
        block.throttle_read_bps_device(),
        block.throttle_write_bps_device(),
        block.throttle_read_iops_device(),
        block.throttle_write_iops_device(),
    ];
    // cgroup2 takes all four numbers of a disk in one line.
    let mut lines: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for ((flag, v1_file, key), list) in THROTTLES.into_iter().zip(lists) {
        for device in list.iter().flatten().filter(|device: &&LinuxThrottleDevice| device.rate() != 0) {
            let name = number(device.major(), device.minor())?;
            let shown = if key.ends_with("bps") { rate(device.rate()) } else { device.rate().to_string() };
            let why = format!("{flag} {name}:{shown}");
            let home = draft.home("blkio", &why)?;
            match home {
                Home::V1(_) => draft.write(home, "blkio", v1_file, format!("{name} {}", device.rate()), why),
                Home::V2(_) => {
                    let line = lines.entry(name).or_default();
                    line.0.push(format!("{key}={}", device.rate()));
                    line.1.push(why);
                }
            }
        }
    }
    for (name, (values, whys)) in lines {
        let home = draft.home("blkio", &whys.join(" "))?;
        draft.write(home, "blkio", "io.max", format!("{name} {}", values.join(" ")), whys.join(" "));
    }
    Ok(())
}

/// `8:0`.
fn number(major: i64, minor: i64) -> Result<String, Error> {
    if !(0..1 << 12).contains(&major) || !(0..1 << 20).contains(&minor) {
        return Err(Error::refused(format!("invalid block device {major}:{minor}: the numbers are out of range")));
    }
    Ok(format!("{major}:{minor}"))
}
