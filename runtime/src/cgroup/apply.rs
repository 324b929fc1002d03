//! Making the operations true.

use std::{io, os::fd::AsFd, path::Path};

use rustix::{
    fs::{Mode, OFlags, mkdir, open},
    io::Errno,
    mount::{MountFlags, mount},
};

use super::program::{self, Instruction};
use super::{ClassId, DeviceRule, Error, Op, bpf_sys, devices, file};

/// How often a parent group that another container's removal has just taken away is made again.
const PARENT_TRIES: usize = 100;

/// Applies a slice of a plan, in order.
///
/// # Errors
/// The first step that failed; what was made before it stays, and is undone by its residues.
pub fn apply(ops: &[Op]) -> Result<(), Error> {
    for (index, op) in ops.iter().enumerate() {
        match op {
            Op::Mount { at, options } => mount_net_cls(at, options)?,
            Op::Parent { path } => make_parent(path)?,
            Op::Fill { path, value, why } => fill(path, value, why)?,
            Op::Create { path, .. } => create(path, &ops[..index])?,
            Op::Write { path, value, why } => {
                file::write(path, value).map_err(|error| write_error(path, value, why, error))?;
            }
            Op::DeviceRules { path, rules } => write_rules(path, rules)?,
            Op::DeviceProgram { path, rules } => attach_devices(path, rules)?,
            Op::ClassProgram { path, class } => attach_class(path, *class)?,
        }
    }
    Ok(())
}

fn mode() -> Mode {
    Mode::from_raw_mode(0o755)
}

fn mount_net_cls(at: &Path, options: &str) -> Result<(), Error> {
    let what = format!("mount the net_cls controller at {}", at.display());
    std::fs::create_dir_all(at).map_err(|error| Error::io(format!("make {}", at.display()), error))?;
    // Another minidock may have been faster; a second mount on top would stay for ever.
    if file::magic(at).is_ok_and(|magic| magic == file::CGROUP_MAGIC) {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
    let data = std::ffi::CString::new(options).map_err(|error| Error::io(what.clone(), io::Error::other(error)))?;
    mount("net_cls", at, "cgroup", flags, data.as_c_str()).map_err(|error| {
        let advice = match error {
            Errno::BUSY => {
                "the kernel holds net_cls together with other controllers; `cat /proc/self/cgroup` names them"
            }
            Errno::INVAL | Errno::NODEV => "this kernel was built or booted without cgroup v1's net_cls",
            Errno::PERM => "mounting cgroups needs root in the first user namespace",
            _ => "",
        };
        Error::advised(what, error, advice)
    })
}

/// Makes a parent group. One that can't be made because the parent above it has just been removed is left to `create`.
fn make_parent(path: &Path) -> Result<(), Error> {
    match mkdir(path, mode()) {
        Ok(()) | Err(Errno::EXIST | Errno::NOENT | Errno::NODEV) => Ok(()),
        Err(error) => Err(mkdir_error(path, error)),
    }
}

/// Makes the container's group. The end of the last other container may remove the parent in between: make it again.
fn create(path: &Path, before: &[Op]) -> Result<(), Error> {
    for _ in 0..PARENT_TRIES {
        match mkdir(path, mode()) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => return Err(Error::Exists(path.to_owned())),
            // NODEV: the parent was removed between the kernel's look at it and the making.
            Err(Errno::NOENT | Errno::NODEV) => {}
            Err(error) => return Err(mkdir_error(path, error)),
        }
        for op in before {
            if let Op::Parent { path: parent } = op
                && path.starts_with(parent)
            {
                make_parent(parent)?;
            }
        }
    }
    Err(mkdir_error(path, Errno::NOENT))
}

fn fill(path: &Path, value: &str, why: &str) -> Result<(), Error> {
    let filled = file::read(path, 1 << 16).is_ok_and(|text| !text.trim().is_empty());
    if filled {
        return Ok(());
    }
    file::write(path, value).map_err(|error| write_error(path, value, why, error))
}

fn write_rules(group: &Path, rules: &[DeviceRule]) -> Result<(), Error> {
    let open = |name: &str| {
        let path = group.join(name);
        open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Error::io(format!("open {}", path.display()), error))
    };
    let (allow, deny) = (open("devices.allow")?, open("devices.deny")?);
    for (name, line) in devices::v1_lines(rules)? {
        // One write(2) is one rule.
        let fd = if name == "devices.allow" { &allow } else { &deny };
        file::write_fd(fd, &line).map_err(|error| write_error(&group.join(name), &line, "device rule", error))?;
    }
    Ok(())
}

fn attach_devices(group: &Path, rules: &[DeviceRule]) -> Result<(), Error> {
    attach_program(group, bpf_sys::Kind::Device, &program::assemble(rules), "device rules")
}

fn attach_class(group: &Path, class: ClassId) -> Result<(), Error> {
    attach_program(group, bpf_sys::Kind::Egress, &program::class(class.0), "packets' class")
}

fn attach_program(group: &Path, kind: bpf_sys::Kind, code: &[Instruction], what: &str) -> Result<(), Error> {
    let fail = |error: io::Error| {
        let advice = match error.raw_os_error() {
            Some(libc::EPERM) => {
                "loading eBPF programs needs root in the first user namespace (CAP_BPF and CAP_NET_ADMIN or CAP_SYS_ADMIN)"
            }
            Some(libc::EINVAL | libc::ENOSYS) => "the kernel needs CONFIG_CGROUP_BPF for this on cgroup2",
            _ => "",
        };
        Error::advised(format!("attach the {what} to {}", group.display()), error, advice)
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let folder = open(group, flags, Mode::empty()).map_err(|error| fail(error.into()))?;
    let program = bpf_sys::load(kind, code).map_err(fail)?;
    bpf_sys::attach(kind, folder.as_fd(), program.as_fd()).map_err(fail)
}

fn mkdir_error(path: &Path, error: Errno) -> Error {
    let advice = match error {
        Errno::ROFS => "the cgroup file system is mounted read-only; remount it read-write (mount -o remount,rw)",
        Errno::ACCESS | Errno::PERM => "only root may make groups here",
        Errno::AGAIN => "the group above has its cgroup.max.descendants or cgroup.max.depth reached",
        Errno::NOSPC | Errno::NOMEM => "the kernel has no room for more groups; remove unused ones",
        Errno::NOENT => "the group above is being removed again and again",
        _ => "",
    };
    Error::advised(format!("make the cgroup {}", path.display()), error, advice)
}

fn write_error(path: &Path, value: &str, why: &str, error: io::Error) -> Error {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let shown: String = value.chars().take(80).collect();
    let advice = advice(&name, error.raw_os_error());
    Error::advised(format!("write {shown:?} to {} ({why})", path.display()), error, advice)
}

/// What an error number of a control file means; linux/Documentation/admin-guide/cgroup-v1 and cgroup-v2.
fn advice(file: &str, code: Option<i32>) -> &'static str {
    match (file, code) {
        ("cgroup.subtree_control", Some(libc::EBUSY)) => {
            "cgroup2 passes no controllers on from a group that has processes in it; move them into a group of their own first (in a container: mkdir /sys/fs/cgroup/init and move them there)"
        }
        ("cgroup.subtree_control", Some(libc::ENOENT)) => "the group above does not offer one of these controllers",
        ("cgroup.subtree_control", Some(libc::EINVAL)) => {
            "a controller refuses: cpu does so while real-time processes run outside the top group"
        }
        ("cgroup.subtree_control", Some(libc::EOPNOTSUPP)) => {
            "the group is a threaded one, which can't have these controllers"
        }
        ("cpuset.cpus" | "cpuset.mems", Some(libc::EINVAL | libc::EACCES)) => {
            "the group above does not have all of these"
        }
        ("cpuset.cpus" | "cpuset.mems", Some(libc::ERANGE | libc::ENODEV)) => "there is no such CPU or memory node",
        ("cpuset.cpus" | "cpuset.mems", Some(libc::EBUSY)) => "another group has these for itself alone",
        ("cpu.cfs_quota_us" | "cpu.cfs_period_us" | "cpu.max", Some(libc::EINVAL)) => {
            "the kernel takes periods from 1000 to 1000000 microseconds, quotas from 1000, and on v1 not more than the group above has"
        }
        (file, Some(libc::ENODEV | libc::ENXIO)) if is_disk_file(file) => {
            "there is no such block device; give a whole disk, not a partition"
        }
        (file, Some(libc::EINVAL | libc::EOPNOTSUPP)) if is_disk_file(file) => {
            "the kernel does not take it for this device; give a whole disk, and for weights one that uses BFQ"
        }
        ("memory.limit_in_bytes" | "memory.memsw.limit_in_bytes" | "memory.max", Some(libc::EBUSY)) => {
            "more is in use already"
        }
        ("devices.allow", Some(libc::EPERM)) => "the group above does not have this device itself",
        (_, Some(libc::ENOENT)) => {
            "this kernel has no such file for the group: the feature is not built in or not enabled"
        }
        (_, Some(libc::EINVAL | libc::ERANGE)) => "the kernel does not take this value",
        (_, Some(libc::EROFS)) => "the cgroup file system is mounted read-only",
        _ => "",
    }
}

fn is_disk_file(name: &str) -> bool {
    name.starts_with("blkio.") || name.starts_with("io.")
}
