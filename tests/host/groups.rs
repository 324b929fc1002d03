//! Where a container's control groups are, on a v1, v2 or hybrid host: found as a person would, by /proc/PID/cgroup
//! and the mounts.

use std::path::PathBuf;

use super::TestHost;

/// Which interface a controller has on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// The interface of a controller, `None` where no mounted hierarchy has it. Facts of the kernel, not of the engine.
pub fn version(controller: &str) -> Option<Version> {
    let mounts = super::read("/proc/self/mountinfo");
    let has_v1 = mounts.lines().any(|line| {
        let Some((_, right)) = line.split_once(" - cgroup ") else {
            return false;
        };
        right.split([' ', ',']).any(|word| word == controller)
    });
    if has_v1 {
        return Some(Version::V1);
    }
    let unified = mounts.lines().filter(|line| line.contains(" - cgroup2 ")).filter_map(|line| line.split(' ').nth(4));
    let has = |root: &str| {
        let controllers = std::fs::read_to_string(format!("{root}/cgroup.controllers")).unwrap_or_default();
        controllers.split_whitespace().any(|name| name == controller)
    };
    unified.into_iter().any(has).then_some(Version::V2)
}

/// The folder of a container's group that has this controller.
pub fn folder(host: &TestHost, container: &str, controller: &str) -> PathBuf {
    let pid = host.pid(container);
    folder_of(host, pid, controller).unwrap_or_else(|| panic!("{container} has no group with {controller}"))
}

/// The folder of a process's group that has this controller: its v1 hierarchy, else the unified one.
pub fn folder_of(host: &TestHost, pid: u32, controller: &str) -> Option<PathBuf> {
    host.host.run(|| {
        let groups = super::read(format!("/proc/{pid}/cgroup"));
        let mounts = super::read("/proc/thread-self/mountinfo");
        let groups: Vec<(&str, &str)> =
            groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).collect();
        let v1 =
            groups.iter().find(|(names, _)| !controller.is_empty() && names.split(',').any(|name| name == controller));
        let (kind, group) = match v1 {
            Some((_, group)) => ("cgroup", group),
            None => ("cgroup2", &groups.iter().find(|(names, _)| names.is_empty())?.1),
        };
        let mount = mounts.lines().find(|line| {
            let Some((_, right)) = line.split_once(" - ") else {
                return false;
            };
            let fields: Vec<&str> = right.split(' ').collect();
            fields[0] == kind && (kind == "cgroup2" || fields[2].split(',').any(|name| name == controller))
        })?;
        let fields: Vec<&str> = mount.split(' ').collect();
        let below = group.strip_prefix(fields[3].trim_end_matches('/')).unwrap_or(group);
        Some(PathBuf::from(format!("{}{below}", fields[4])))
    })
}

/// The content of a file of a container's group: `v1` or `v2` names the file.
pub fn value(host: &TestHost, container: &str, controller: &str, v1: &str, v2: &str) -> String {
    let name = if version(controller) == Some(Version::V2) { v2 } else { v1 };
    let path = folder(host, container, controller).join(name);
    host.host.run(|| super::read(path)).trim().to_string()
}
