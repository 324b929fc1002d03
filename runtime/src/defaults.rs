//! Docker's defaults for a container, as OCI values: capabilities, mounts, devices, masked paths, sysctl rules.
//!
//! Facts of moby's `daemon/pkg/oci/defaults.go` and runc's `libcontainer/specconv`.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Mount};

use crate::capabilities;

/// The search path of an image that sets none.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The size of `/dev/shm` without `--shm-size`, in bytes.
pub const SHM_BYTES: u64 = 64 << 20;

/// The 14 capabilities, by name.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Paths that a container must not read.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that a container must not write.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The default capabilities.
pub fn capabilities() -> capabilities::Set {
    let numbers = CAPABILITIES.iter().filter_map(|name| capabilities::number(name));
    numbers.fold(capabilities::Set::EMPTY, capabilities::Set::with)
}

/// The masked paths. `thermal_cpus` are the CPUs with a `thermal_throttle` folder ([`thermal_cpus`]): its counters tell
/// what the neighbours do (GHSA-6fw5-f8r9-fgfm).
pub fn masked_paths(thermal_cpus: &[u32]) -> Vec<String> {
    let thermal = thermal_cpus.iter().map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
    MASKED_PATHS.iter().map(|path| (*path).to_owned()).chain(thermal).collect()
}

/// Facts: the CPUs that show thermal counters. Most virtual machines have none.
///
/// Asks the first CPU only, and lists the others when it has them: a start should not pay for 256 lookups.
pub fn thermal_cpus() -> Vec<u32> {
    let has = |cpu: u32| Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle")).exists();
    if !has(0) {
        return Vec::new();
    }
    let folders = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().filter_map(Result::ok);
    let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix("cpu")?.parse().ok();
    let mut cpus: Vec<u32> = folders.filter_map(|entry| number(entry.file_name())).filter(|cpu| has(*cpu)).collect();
    cpus.sort_unstable();
    cpus
}

/// The read-only paths.
pub fn readonly_paths() -> Vec<String> {
    READONLY_PATHS.iter().map(|path| (*path).to_owned()).collect()
}

/// One node of `/dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Where it is.
    pub path: &'static str,
    /// Its numbers.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
}

/// The character devices of every container, mode 0666, owner root. `/dev/ptmx` is a link to `pts/ptmx`, and
/// `/dev/console` is the container's terminal.
pub const NODES: [Node; 6] = [
    Node { path: "/dev/null", major: 1, minor: 3 },
    Node { path: "/dev/random", major: 1, minor: 8 },
    Node { path: "/dev/full", major: 1, minor: 7 },
    Node { path: "/dev/tty", major: 5, minor: 0 },
    Node { path: "/dev/zero", major: 1, minor: 5 },
    Node { path: "/dev/urandom", major: 1, minor: 9 },
];

/// The default nodes as OCI devices.
pub fn devices() -> Vec<LinuxDevice> {
    let device = |node: &Node| {
        let mut device = LinuxDevice::default();
        device
            .set_path(PathBuf::from(node.path))
            .set_typ(LinuxDeviceType::C)
            .set_major(node.major.into())
            .set_minor(node.minor.into())
            .set_file_mode(Some(0o666))
            .set_uid(Some(0))
            .set_gid(Some(0));
        device
    };
    NODES.iter().map(device).collect()
}

/// The default device rules: nothing, but making any node (it can't be opened then), the standard nodes, and terminals.
/// FUSE is denied by name, as docker does, although the first rule covers it.
pub fn device_rules() -> Vec<LinuxDeviceCgroup> {
    let char_device = |major: i64, minor: Option<i64>| device_rule(true, LinuxDeviceType::C, Some(major), minor, "rwm");
    let mut rules = vec![
        device_rule(false, LinuxDeviceType::A, None, None, "rwm"),
        device_rule(false, LinuxDeviceType::C, Some(10), Some(229), "rwm"),
        device_rule(true, LinuxDeviceType::C, None, None, "m"),
        device_rule(true, LinuxDeviceType::B, None, None, "m"),
    ];
    rules.extend(NODES.iter().map(|node| char_device(node.major.into(), Some(node.minor.into()))));
    // Terminals of the container's devpts, ptmx, and the console.
    rules.extend([char_device(136, None), char_device(5, Some(2)), char_device(5, Some(1))]);
    rules
}

/// One OCI device rule; no number = any.
pub fn device_rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_typ(Some(kind)).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
    rule
}

/// The rules of `--privileged`: every device.
pub fn device_rules_privileged() -> Vec<LinuxDeviceCgroup> {
    vec![device_rule(true, LinuxDeviceType::A, None, None, "rwm")]
}

/// The default mounts in docker's order, with `/dev/shm` of `shm_bytes`.
pub fn mounts(shm_bytes: u64) -> Vec<Mount> {
    let shm_size = format!("size={}", shm_bytes);
    let table: [(&str, &str, &str, &[&str]); 7] = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm_size]),
    ];
    let mount = |(destination, kind, source, options): (&str, &str, &str, &[&str])| {
        let mut mount = Mount::default();
        mount
            .set_destination(PathBuf::from(destination))
            .set_typ(Some(kind.to_owned()))
            .set_source(Some(PathBuf::from(source)))
            .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
        mount
    };
    table.into_iter().map(mount).collect()
}

/// Which namespaces of its own a container has, as far as sysctls care.
#[derive(Debug, Clone, Copy)]
pub struct OwnNamespaces {
    /// Not `--network host`, `container:X` or `ns:PATH`.
    pub network: bool,
    /// Not `--ipc host` or `container:X`.
    pub ipc: bool,
    /// Not `--uts host`.
    pub uts: bool,
}

/// Checks one `--sysctl NAME=VALUE`: only what belongs to a namespace that is the container's own may be written.
/// Returns the file's path below `/proc/sys`.
///
/// # Errors
/// A name outside docker's list, of a shared namespace, or one that is not a plain name (CVE-2022-0811).
pub fn check_sysctl(name: &str, value: &str, own: OwnNamespaces) -> Result<PathBuf, String> {
    let shown: String = name.chars().take(80).collect();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./".contains(&b);
    // sysctl(8): with a slash first, slashes separate and dots are part of a name (net/ipv4/conf/eth0.100/…).
    let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let parts: Vec<String> = if slashes {
        name.split('/').map(str::to_owned).collect()
    } else {
        name.split('.').map(|part| part.replace('/', ".")).collect()
    };
    let broken = name.len() > 255
        || !name.bytes().all(plain)
        || parts.len() < 2
        || parts.iter().any(|part| part.is_empty() || part == "." || part == "..");
    if broken {
        return Err(format!("invalid sysctl {shown:?}: a name such as net.ipv4.ip_forward"));
    }
    if value.len() > 4096 || value.bytes().any(|b| b == 0 || b == b'\n') {
        return Err(format!("invalid value for sysctl {shown}: one line, at most 4096 bytes"));
    }
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let dotted = parts.join(".");
    let (is_own, flag) = match dotted.as_str() {
        name if name.starts_with("net.") => (own.network, "--network"),
        name if name.starts_with("fs.mqueue.") || IPC.contains(&name) => (own.ipc, "--ipc"),
        // runc refuses the hostname here, as -h sets it; only the domain name is left.
        "kernel.domainname" => (own.uts, "--uts"),
        "kernel.hostname" => {
            return Err("sysctl kernel.hostname would fight with -h; give the host name with -h".to_owned());
        }
        _ => {
            return Err(format!(
                "sysctl {shown} belongs to the whole host, not to a container; allowed are net.*, fs.mqueue.* and kernel.{{msg*,sem,shm*,domainname}}"
            ));
        }
    };
    if !is_own {
        return Err(format!(
            "sysctl {shown} would change the host or another container: this one shares its namespace ({flag})"
        ));
    }
    Ok(parts.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_dockers() {
        assert_eq!(capabilities().names().count(), 14);
        // CapBnd of a docker container, as /proc/self/status prints it.
        assert_eq!(format!("{:016x}", capabilities().0), "00000000a80425fb");
        assert_eq!(masked_paths(&[0, 1]).last().unwrap(), "/sys/devices/system/cpu/cpu1/thermal_throttle");
        let mounts: Vec<String> =
            mounts(SHM_BYTES).iter().map(|mount| mount.destination().display().to_string()).collect();
        assert_eq!(mounts.join(" "), "/proc /dev /dev/pts /sys /sys/fs/cgroup /dev/mqueue /dev/shm");
        assert_eq!(devices().len(), 6);
        assert!(!device_rules()[0].allow());
    }

    #[test]
    fn only_sysctls_of_own_namespaces_are_allowed() {
        let own = OwnNamespaces { network: true, ipc: true, uts: true };
        for (name, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.100/rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
            ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
            ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
            ("kernel.sem", "kernel/sem"),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
            ("kernel.domainname", "kernel/domainname"),
        ] {
            assert_eq!(check_sysctl(name, "1", own).unwrap(), Path::new(path), "{name}");
        }
        for name in [
            "kernel.core_pattern",
            "kernel.shm_rmid_forced+kernel.core_pattern",
            "kernel.hostname",
            "vm.overcommit_memory",
            "fs.file-max",
            "net",
            "net.",
            "",
            "net/../kernel/core_pattern",
            "net.ipv4.//..//..//kernel/core_pattern",
            "net/./x",
            "/net/ipv4/ip_forward",
            "net.ipv4.ip forward",
            "net.ipv4.a\0b",
            "user.max_user_namespaces",
            "kernel.sem/../core_pattern",
        ] {
            assert!(check_sysctl(name, "1", own).is_err(), "{name}");
        }
        assert!(check_sysctl("net.ipv4.ip_forward", "1\n2", own).is_err());
        let shared = OwnNamespaces { network: false, ipc: false, uts: false };
        for name in ["net.ipv4.ip_forward", "kernel.sem", "fs.mqueue.msg_max", "kernel.domainname"] {
            assert!(check_sysctl(name, "1", shared).unwrap_err().contains("shares its namespace"), "{name}");
        }
    }
}
