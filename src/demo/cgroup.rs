//! The container's cgroups and limits, wherever the host has each controller: cgroup v1, v2, or some on either (hybrid).

use serde::Serialize;

use super::process::{Mount, text};

/// The groups and what they allow.
#[derive(Debug, Serialize)]
pub(super) struct Cgroup {
    /// `v1`, `v2`, `hybrid`, or `not visible` when no cgroup filesystem is mounted in the container
    pub(super) layout: &'static str,
    pub(super) membership: Vec<Membership>,
    pub(super) limits: Limits,
    /// The files that were found, as they are.
    pub(super) files: Vec<File>,
}

/// A line of /proc/self/cgroup.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Membership {
    /// 0 is cgroup v2.
    pub(super) hierarchy: u32,
    /// Empty for v2.
    pub(super) controllers: Vec<String>,
    /// Seen from the cgroup namespace's root.
    pub(super) path: String,
}

/// A control file and its content.
#[derive(Debug, Serialize)]
pub(super) struct File {
    pub(super) path: String,
    pub(super) value: String,
}

/// Each `null` when there is no limit or when it can't be seen.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Limits {
    pub(super) memory_bytes: Option<u64>,
    pub(super) memory_used_bytes: Option<u64>,
    pub(super) memory_reservation_bytes: Option<u64>,
    /// Swap alone, without memory, on v1 and v2 alike.
    pub(super) swap_bytes: Option<u64>,
    /// How many processors' time: 0.5 is half of one.
    pub(super) cpus: Option<f64>,
    /// v1, 2-262144, default 1024
    pub(super) cpu_shares: Option<u64>,
    /// v2, 1-10000, default 100
    pub(super) cpu_weight: Option<u64>,
    pub(super) pids: Option<u64>,
    pub(super) pids_used: Option<u64>,
    pub(super) cpuset_cpus: Option<String>,
    pub(super) cpuset_mems: Option<String>,
    /// `0x00010010`: major 1, minor 0x10
    pub(super) net_cls_classid: Option<String>,
}

/// The files that are looked for, in every hierarchy that has them.
const FILES: [&str; 22] = [
    "memory.max",
    "memory.current",
    "memory.low",
    "memory.swap.max",
    "cpu.max",
    "cpu.weight",
    "pids.max",
    "pids.current",
    "cpuset.cpus.effective",
    "cpuset.mems.effective",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "cpu.shares",
    "cpuset.cpus",
    "cpuset.mems",
    "net_cls.classid",
    "blkio.weight",
    "io.weight",
];

pub(super) fn read(mounts: &[Mount]) -> Result<Cgroup, String> {
    let membership = parse_membership(&text("/proc/self/cgroup")?);
    let mut files = Vec::new();
    let (mut v1, mut v2) = (false, false);
    for mount in mounts.iter().filter(|mount| matches!(mount.filesystem.as_str(), "cgroup" | "cgroup2")) {
        let is_v2 = mount.filesystem == "cgroup2";
        let (named, words) = (is_v2, mount.options.split(',').collect::<Vec<_>>());
        let group = membership.iter().find(|group| {
            if named {
                group.controllers.is_empty()
            } else {
                group.controllers.iter().any(|name| words.contains(&name.as_str()))
            }
        });
        // A mount from outside of our cgroup namespace (root `/..`) shows somebody else's files, not ours.
        let Some(group) = group.filter(|_| !mount.root.starts_with("/..")) else {
            continue;
        };
        v1 |= !is_v2;
        v2 |= is_v2;
        let folder = folder(mount, &group.path);
        for name in FILES {
            let path = format!("{folder}/{name}");
            if let Ok(value) = text(&path)
                && files.iter().all(|file: &File| file.path != path)
            {
                files.push(File { path, value: value.trim_end().to_string() });
            }
        }
    }
    let layout = match (v1, v2) {
        (true, true) => "hybrid",
        (true, false) => "v1",
        (false, true) => "v2",
        (false, false) => "not visible",
    };
    let limits = limits(&|name| {
        files.iter().find(|file| file.path.rsplit('/').next() == Some(name)).map(|file| file.value.as_str())
    });
    Ok(Cgroup { layout, membership, limits, files })
}

/// Where our group's files are: the mount may show the whole hierarchy or only our part of it.
fn folder(mount: &Mount, path: &str) -> String {
    let below = path
        .strip_prefix(mount.root.trim_end_matches('/'))
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        .unwrap_or("");
    let folder = format!("{}{}", mount.target.trim_end_matches('/'), below.trim_end_matches('/'));
    // A path like `/../x` (we were moved out of our own namespace's root), or one that the mount doesn't have.
    if below.contains("/..") || !std::path::Path::new(&folder).is_dir() { mount.target.clone() } else { folder }
}

fn parse_membership(table: &str) -> Vec<Membership> {
    let line = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (hierarchy, controllers, path) = (fields.next()?.parse().ok()?, fields.next()?, fields.next()?);
        let controllers = controllers.split(',').filter(|name| !name.is_empty()).map(str::to_string).collect();
        Some(Membership { hierarchy, controllers, path: path.to_string() })
    };
    table.lines().take(64).filter_map(line).collect()
}

fn limits<'a>(value: &dyn Fn(&str) -> Option<&'a str>) -> Limits {
    let number = |name: &str| value(name).and_then(|text| text.parse::<u64>().ok());
    // "No limit" on v1 is the largest page-aligned number.
    let v1_bytes = |name: &str| number(name).filter(|bytes| *bytes < 1 << 62);
    let list = |names: [&str; 2]| names.into_iter().filter_map(value).find(|text| !text.is_empty()).map(str::to_string);
    let memory = number("memory.max").or_else(|| v1_bytes("memory.limit_in_bytes"));
    let quota = || {
        let (quota, period) = match value("cpu.max") {
            Some(text) => text.split_once(' ')?,
            None => (value("cpu.cfs_quota_us")?, value("cpu.cfs_period_us")?),
        };
        let (quota, period) = (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?);
        (quota > 0.0 && period > 0.0).then(|| quota / period)
    };
    Limits {
        memory_bytes: memory,
        memory_used_bytes: number("memory.current").or_else(|| number("memory.usage_in_bytes")),
        memory_reservation_bytes: number("memory.low")
            .filter(|bytes| *bytes > 0)
            .or_else(|| v1_bytes("memory.soft_limit_in_bytes")),
        swap_bytes: number("memory.swap.max").or_else(|| {
            v1_bytes("memory.memsw.limit_in_bytes").map(|both| both.saturating_sub(memory.unwrap_or_default()))
        }),
        cpus: quota(),
        cpu_shares: number("cpu.shares"),
        cpu_weight: number("cpu.weight"),
        pids: number("pids.max"),
        pids_used: number("pids.current"),
        cpuset_cpus: list(["cpuset.cpus.effective", "cpuset.cpus"]),
        cpuset_mems: list(["cpuset.mems.effective", "cpuset.mems"]),
        net_cls_classid: number("net_cls.classid").map(|id| format!("{id:#010x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, &str)]) -> Limits {
        limits(&|name| files.iter().find(|(file, _)| *file == name).map(|(_, value)| *value))
    }

    #[test]
    fn the_same_limits_are_read_from_v1_and_from_v2() {
        let v2 = of(&[
            ("memory.max", "67108864"),
            ("memory.swap.max", "1048576"),
            ("cpu.max", "50000 100000"),
            ("pids.max", "32"),
        ]);
        let v1 = of(&[
            ("memory.limit_in_bytes", "67108864"),
            ("memory.memsw.limit_in_bytes", "68157440"),
            ("cpu.cfs_quota_us", "50000"),
            ("cpu.cfs_period_us", "100000"),
            ("pids.max", "32"),
        ]);
        assert_eq!(v2, v1);
        assert_eq!(
            (v2.cpus, v2.memory_bytes, v2.swap_bytes, v2.pids),
            (Some(0.5), Some(64 << 20), Some(1 << 20), Some(32))
        );
    }

    #[test]
    fn no_limit_is_null_in_every_dialect() {
        let v2 = of(&[
            ("memory.max", "max"),
            ("memory.swap.max", "max"),
            ("memory.low", "0"),
            ("cpu.max", "max 100000"),
            ("pids.max", "max"),
        ]);
        let v1 = of(&[
            ("memory.limit_in_bytes", "9223372036854771712"),
            ("memory.memsw.limit_in_bytes", "9223372036854771712"),
            ("memory.soft_limit_in_bytes", "9223372036854771712"),
            ("cpu.cfs_quota_us", "-1"),
            ("cpu.cfs_period_us", "100000"),
        ]);
        assert_eq!(v2, Limits::default());
        assert_eq!(v1, Limits::default());
        assert_eq!(of(&[("cpu.max", "1 0"), ("memory.max", "rubbish")]), Limits::default());
    }

    #[test]
    fn the_class_id_is_shown_as_the_lecture_writes_it() {
        assert_eq!(of(&[("net_cls.classid", "65552")]).net_cls_classid.as_deref(), Some("0x00010010"));
    }

    #[test]
    fn membership_lines_of_all_layouts() {
        let groups = parse_membership("5:cpu,cpuacct:/docker/x\n1:name=systemd:/a:b\n0::/\nrubbish\n");
        assert_eq!(groups.len(), 3);
        assert_eq!(groups[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(groups[1].path, "/a:b");
        assert!(groups[2].controllers.is_empty());
    }

    #[test]
    fn the_groups_folder_is_found_below_the_mount() {
        let mount = |root: &str| Mount {
            target: "/proc/self".into(),
            source: String::new(),
            filesystem: "cgroup".into(),
            options: String::new(),
            root: root.into(),
        };
        assert_eq!(folder(&mount("/"), "/task"), "/proc/self/task");
        assert_eq!(folder(&mount("/docker/x"), "/docker/x/task"), "/proc/self/task");
        assert_eq!(folder(&mount("/docker/x"), "/docker/xy"), "/proc/self");
        assert_eq!(folder(&mount("/"), "/not/there"), "/proc/self");
        assert_eq!(folder(&mount("/"), "/../.."), "/proc/self");
    }
}
