//! Rights, kernel, cgroups, disk, left-overs.

use std::path::Path;

use runtime::capabilities;
use runtime::cgroup::Layout;

use super::{fail, note, ok, small_file, warn};
use crate::containers;
use crate::format::doctor::Finding;
use crate::format::human;
use crate::journal::Journal;
use crate::roots::Roots;
use crate::state::State;

/// Below this a start may fail half-way.
const LITTLE_SPACE: u64 = 100 << 20;

pub fn examine(roots: &Roots) -> Vec<Finding> {
    let mut found = rights();
    found.extend(kernel());
    found.extend(cgroups());
    found.extend(disk(&roots.root));
    found.push(left_overs(roots));
    found
}

fn rights() -> Vec<Finding> {
    if !rustix::process::geteuid().is_root() {
        return vec![fail(
            "rights",
            "not root",
            "run it with sudo: containers need namespaces, cgroups and firewall rules",
        )];
    }
    let needed = ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_SETUID", "CAP_SETGID"];
    let effective = small_file("/proc/self/status");
    let effective = effective.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or("0").trim();
    let effective = u64::from_str_radix(effective, 16).unwrap_or(0);
    let has = |name: &str| capabilities::number(name).is_some_and(|number| effective >> number & 1 == 1);
    let missing: Vec<&str> = needed.into_iter().filter(|name| !has(name)).collect();
    match missing.is_empty() {
        true => vec![ok("rights", "root, with the capabilities that containers need")],
        false => vec![fail(
            "rights",
            format!("root, but without {}", missing.join(", ")),
            "start minidock outside of the container or sandbox that took them away",
        )],
    }
}

fn kernel() -> Vec<Finding> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut found = vec![match runtime::Facts::read() {
        Ok(facts) => {
            if !facts.overlay {
                return vec![fail("kernel", format!("Linux {release} without overlayfs"), "modprobe overlay")];
            }
            if facts.apparmor {
                return vec![ok("kernel", format!("Linux {release}, overlayfs, AppArmor"))];
            }
            ok("kernel", format!("Linux {release}, overlayfs"))
        }
        Err(error) => {
            fail("kernel", format!("Linux {release}: {error}"), "boot a newer kernel, or one with the feature")
        }
    }];
    let missing: Vec<&str> = ["mnt", "pid", "uts", "ipc", "net", "cgroup"]
        .into_iter()
        .filter(|name| !Path::new(&format!("/proc/self/ns/{name}")).exists())
        .collect();
    if !missing.is_empty() {
        let what = format!("no namespaces of kind {}", missing.join(", "));
        found.push(fail("namespaces", what, "boot a kernel with CONFIG_NAMESPACES and its kinds"));
    }
    if small_file("/proc/sys/kernel/seccomp/actions_avail").is_empty() {
        let remedy = "boot a kernel with CONFIG_SECCOMP_FILTER, or run with --security-opt seccomp=unconfined";
        found.push(fail("seccomp", "the kernel has no seccomp filters", remedy));
    }
    found
}

/// What each controller is for.
const CONTROLLERS: [(&str, &str); 5] = [
    ("memory", "-m"),
    ("cpu", "--cpus"),
    ("cpuset", "--cpuset-cpus"),
    ("pids", "--pids-limit"),
    ("blkio", "--device-read-bps and --blkio-weight"),
];

fn cgroups() -> Vec<Finding> {
    let layout = match Layout::read() {
        Ok(layout) => layout,
        Err(error) => return vec![fail("cgroups", error.to_string(), "mount -t cgroup2 none /sys/fs/cgroup")],
    };
    let name = crate::commands::inspect::layout_name(&layout);
    if name == "none" {
        return vec![fail("cgroups", "no hierarchy is mounted", "mount -t cgroup2 none /sys/fs/cgroup")];
    }
    let (there, missing): (Vec<_>, Vec<_>) =
        CONTROLLERS.into_iter().partition(|(controller, _)| layout.home(controller).is_some());
    let names: Vec<&str> = there.iter().map(|(controller, _)| *controller).collect();
    let mut found = vec![ok("cgroups", format!("{name}: {}", names.join(" ")))];
    for (controller, flags) in missing {
        let remedy = match controller {
            "memory" => "add cgroup_enable=memory to the kernel's command line, or mount the controller",
            _ => "mount the controller, or use a kernel that has it",
        };
        found.push(warn("cgroups", format!("no {controller} controller: {flags} can't be kept"), remedy));
    }
    if !layout.has_swap_limit() {
        let remedy = "switch swap on, or add swapaccount=1 to the kernel's command line (cgroup v1)";
        found.push(note("cgroups", "swap can't be limited: --memory-swap is refused", remedy));
    }
    found
}

fn disk(root: &Path) -> Vec<Finding> {
    // The root may not be there yet.
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let (Ok(data), Ok(space)) = (rustix::fs::statfs(existing), rustix::fs::statvfs(existing)) else {
        return vec![fail(
            "disk",
            format!("{} can't be read", existing.display()),
            "choose another folder with --root",
        )];
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let place = format!("{} on {}", root.display(), human::size(free));
    let mut found = vec![];
    if space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        found.push(fail("disk", format!("{} is read-only", existing.display()), "choose another folder with --root"));
    } else if free < LITTLE_SPACE {
        let remedy = "make room (minidock container prune, minidock rmi), or choose another folder with --root";
        found.push(fail("disk", format!("{place} free: too little"), remedy));
    } else {
        found.push(ok("disk", format!("{place} free")));
    }
    // overlayfs takes neither itself nor a network file system for its upper folder (the kernel's overlayfs.rst).
    let unfit = match data.f_type as u32 {
        0x794c_7630 => Some("overlayfs"),
        0x6969 => Some("NFS"),
        0xff53_4d42 | 0xfe53_4d42 => Some("CIFS"),
        _ => None,
    };
    if let Some(kind) = unfit {
        let text = format!("{} is on {kind}, which can't hold containers' layers", existing.display());
        found.push(fail("disk", text, "put --root on a local file system, or mount a tmpfs there"));
    }
    found
}

/// Containers whose monitor and cleaner have been killed.
fn left_overs(roots: &Roots) -> Finding {
    let left = containers::ids(roots)
        .into_iter()
        .filter(|id| {
            let folder = roots.container(id);
            let open = State::read(&folder).ok().flatten().is_none_or(|state| state.is_open() && !state.is_alive());
            open && !Journal::is_owned(&folder.join("journal"))
        })
        .count();
    match left {
        0 => ok("left-overs", "none"),
        one => warn(
            "left-overs",
            format!("{one} containers whose processes were killed"),
            "any other command cleans up: minidock ps",
        ),
    }
}
