//! Limits: the request's flags as the OCI specification's `linux.resources` (config-linux.md, "Control groups").

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder,
};

use crate::request::limits::{Limits, MemorySwap, Throttle};

/// A block device's numbers.
pub type DeviceNumbers = (i64, i64);

/// The OCI resources. `block_devices`: the numbers of the devices that the throttles name.
/// `can_limit_swap`: this kernel accounts swap. Where it doesn't, docker's implicit limit (twice the memory) is left out,
/// as docker does; one that the user asked for is refused by the runtime.
pub fn resources(
    limits: &Limits,
    can_limit_swap: bool,
    devices: Vec<LinuxDeviceCgroup>,
    block_devices: &BTreeMap<PathBuf, DeviceNumbers>,
) -> Result<LinuxResources> {
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(devices));
    resources.set_memory(memory(limits, can_limit_swap));
    resources.set_cpu(cpu(limits));
    if let Some(limit) = limits.pids {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit as i64);
        resources.set_pids(Some(pids));
    }
    resources.set_block_io(block_io(limits, block_devices)?);
    Ok(resources)
}

fn memory(limits: &Limits, can_limit_swap: bool) -> Option<LinuxMemory> {
    let sizes = limits.memory_bytes.or(limits.memory_reservation_bytes).is_some() || limits.memory_swap.is_some();
    if !sizes && limits.memory_swappiness.is_none() && !limits.oom_kill_disable {
        return None;
    }
    let mut memory = LinuxMemory::default();
    memory.set_swappiness(limits.memory_swappiness);
    memory.set_disable_oom_killer(limits.oom_kill_disable.then_some(true));
    memory.set_limit(limits.memory_bytes.map(|bytes| bytes as i64));
    memory.set_reservation(limits.memory_reservation_bytes.map(|bytes| bytes as i64));
    let implicit = limits.memory_bytes.map(|bytes| MemorySwap::Bytes(bytes.saturating_mul(2)));
    let swap = limits.memory_swap.filter(|swap| can_limit_swap || Some(*swap) != implicit);
    memory.set_swap(swap.map(|swap| match swap {
        MemorySwap::Bytes(bytes) => bytes as i64,
        MemorySwap::Unlimited => -1,
    }));
    Some(memory)
}

fn cpu(limits: &Limits) -> Option<LinuxCpu> {
    let bandwidth = limits.cpu_bandwidth();
    let (cpus, mems) = (limits.cpuset_cpus.as_ref(), limits.cpuset_mems.as_ref());
    if bandwidth.is_none() && limits.cpu_shares.is_none() && cpus.is_none() && mems.is_none() {
        return None;
    }
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(limits.cpu_shares);
    cpu.set_quota(bandwidth.map(|(quota, _)| quota));
    cpu.set_period(bandwidth.map(|(_, period)| period));
    cpu.set_cpus(cpus.map(|set| set.text.clone()));
    cpu.set_mems(mems.map(|set| set.text.clone()));
    Some(cpu)
}

fn block_io(limits: &Limits, block_devices: &BTreeMap<PathBuf, DeviceNumbers>) -> Result<Option<LinuxBlockIo>> {
    let throttles = |list: &[Throttle]| -> Result<Option<Vec<LinuxThrottleDevice>>> {
        let devices: Result<Vec<_>> = list.iter().map(|throttle| throttle_device(throttle, block_devices)).collect();
        devices.map(|devices| (!devices.is_empty()).then_some(devices))
    };
    let mut io = LinuxBlockIo::default();
    io.set_weight(limits.blkio_weight);
    io.set_throttle_read_bps_device(throttles(&limits.device_read_bps)?);
    io.set_throttle_write_bps_device(throttles(&limits.device_write_bps)?);
    io.set_throttle_read_iops_device(throttles(&limits.device_read_iops)?);
    io.set_throttle_write_iops_device(throttles(&limits.device_write_iops)?);
    Ok((io != LinuxBlockIo::default()).then_some(io))
}

fn throttle_device(throttle: &Throttle, devices: &BTreeMap<PathBuf, DeviceNumbers>) -> Result<LinuxThrottleDevice> {
    let (major, minor) = devices.get(&throttle.device).ok_or_else(|| {
        anyhow!("no such block device: {}; lsblk lists those of this host", throttle.device.display())
    })?;
    Ok(LinuxThrottleDeviceBuilder::default().major(*major).minor(*minor).rate(throttle.rate).build()?)
}
