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
    /// Of `memory_bytes`, page cache that can be taken back at once (`inactive_file`): docker doesn't count it.
    pub cache_bytes: Option<u64>,
    /// The limit; None without one.
    pub memory_limit_bytes: Option<u64>,
    /// Read from and written to block devices.
    pub block_bytes: Option<(u64, u64)>,
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
    let text = |controller: &str, v1: &str, v2: &str| {
        let (top, name) = match layout.home(controller)? {
            Home::V1(home) => (&home.mount, v1),
            Home::V2(home) => (&home.mount, v2),
        };
        file::read(&top.join(group).join(name), 64 << 10).ok()
    };
    let memory_stat = text("memory", "memory.stat", "memory.stat").unwrap_or_default();
    let field = |name: &str| {
        memory_stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
    };
    let limit: Option<u64> =
        text("memory", "memory.limit_in_bytes", "memory.max").and_then(|text| text.trim().parse().ok());
    Stats {
        memory_bytes,
        cpu_ns: v1_cpu.or_else(v2_cpu),
        pids,
        cache_bytes: field("total_inactive_file").or_else(|| field("inactive_file")),
        // v1 says "none" by the largest number of pages.
        memory_limit_bytes: limit.filter(|limit| *limit < NO_LIMIT),
        block_bytes: text("blkio", "blkio.throttle.io_service_bytes_recursive", "io.stat")
            .map(|text| block_bytes(&text)),
    }
}

/// PAGE_COUNTER_MAX of the kernel's include/linux/page_counter.h, in bytes, is a little below 2^63.
const NO_LIMIT: u64 = 1 << 62;

/// v1: `8:0 Read 4096` a line; cgroup2: `8:0 rbytes=4096 wbytes=0 …`.
fn block_bytes(text: &str) -> (u64, u64) {
    let (mut read, mut written) = (0u64, 0u64);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, kind, number] = words.as_slice() {
            let number = number.parse().unwrap_or(0);
            match *kind {
                "Read" => read = read.saturating_add(number),
                "Write" => written = written.saturating_add(number),
                _ => {}
            }
        }
        for word in words {
            let number = |name: &str| word.strip_prefix(name).and_then(|number| number.parse::<u64>().ok());
            read = read.saturating_add(number("rbytes=").unwrap_or(0));
            written = written.saturating_add(number("wbytes=").unwrap_or(0));
        }
    }
    (read, written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_bytes_of_both_versions() {
        assert_eq!(block_bytes("8:0 Read 4096\n8:0 Write 7\n8:0 Sync 1\n8:16 Read 4\nTotal 4107\n"), (4100, 7));
        assert_eq!(block_bytes("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=1\n"), (11, 20));
        assert_eq!(block_bytes("nonsense"), (0, 0));
    }
}
