//! What a container uses now, read with the cgroups-rs crate (0.3.4) where that is right.
//!
//! Its controllers are built here from our own [`Layout`], one by one: its `Cgroup` type asks one statfs(2) whether the
//! whole host is v1 or cgroup2, and so reads the wrong tree on a hybrid host. Not used beside that: its memory reader
//! for cgroup2 (it unwraps `memory.max`, a panic when the container ends meanwhile), its writers (paths by string, one
//! controller after the other, co-mounted ones twice, nothing to journal), and it has no device rules for cgroup2.

use cgroups_rs::{cpu::CpuController, cpuacct::CpuAcctController, memory::MemController, pid::PidController};
use serde::Serialize;

use super::{Home, Layout, file};

/// Use of memory, CPU and processes; None where the container has no group for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Memory in use, page cache included.
    pub memory_bytes: Option<u64>,
    /// CPU time used so far.
    pub cpu_ns: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Reads the use of the groups `group` (`minidock/ID`), wherever this host has them.
pub fn stats(layout: &Layout, group: &str) -> Stats {
    // The folder of the container's group, when it has one in that hierarchy.
    let folder = |controller: &str, file: &str| {
        let (top, is_v2) = match layout.home(controller)? {
            Home::V1(v1) => (&v1.mount, false),
            Home::V2(v2) => (&v2.mount, true),
        };
        let folder = top.join(group);
        file::exists(&folder.join(file)).then_some((folder, is_v2))
    };
    let memory_bytes = match layout.home("memory") {
        Some(Home::V2(v2)) => {
            file::read(&v2.mount.join(group).join("memory.current"), 64).ok().and_then(|text| text.trim().parse().ok())
        }
        _ => folder("memory", "memory.usage_in_bytes")
            .map(|(folder, is_v2)| MemController::new(folder, is_v2).memory_stat().usage_in_bytes),
    };
    let v1_cpu = folder("cpuacct", "cpuacct.usage").map(|(folder, _)| CpuAcctController::new(folder).cpuacct().usage);
    // Every cgroup2 group counts its CPU time, also beside a v1 cpuacct that the container has no group in.
    let v2_cpu = || {
        let folder = layout.v2.as_ref()?.mount.join(group);
        let stat = CpuController::new(folder, true).cpu().stat;
        let microseconds: u64 = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()?;
        Some(microseconds.saturating_mul(1000))
    };
    let pids = folder("pids", "pids.current")
        .and_then(|(folder, is_v2)| PidController::new(folder, is_v2).get_pid_current().ok());
    Stats { memory_bytes, cpu_ns: v1_cpu.or_else(v2_cpu), pids }
}
