//! Facts: where this host keeps each cgroup controller. Read once per command, changes nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, file};

/// More than any mount table of a sane host (a mount is about 150 bytes).
const MOUNTINFO_LIMIT: usize = 16 << 20;
/// More than any other file read here.
const SMALL: usize = 64 << 10;

/// Where the controllers live: some on v1 mounts, some on cgroup2, some nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The mounted v1 hierarchies that have controllers, each once.
    pub v1: Vec<V1>,
    /// The mounted cgroup2 tree.
    pub v2: Option<V2>,
    /// What the kernel says it has (`/proc/cgroups`); empty where that can't be read.
    pub kernel: Vec<KernelController>,
    /// The controllers that share net_cls's hierarchy although it is mounted nowhere we can see.
    pub net_cls_with: Vec<String>,
    /// The tmpfs below the v1 mounts, when files can be made there (systemd mounts it read-only).
    pub writable_top: Option<PathBuf>,
    /// CPUs that groups can have, such as `0-3`.
    pub cpus: Option<String>,
    /// Memory nodes that groups can have.
    pub mems: Option<String>,
    /// Swap can be limited: v1 `memory.memsw.*`, or a cgroup2 kernel with swap.
    pub swap_limit: bool,
    /// The BFQ scheduler is there: `blkio.bfq.weight` on v1, `io.bfq.weight` on cgroup2.
    pub bfq: bool,
    /// The kernel has the io cost controller: `io.weight` on cgroup2.
    pub iocost: bool,
}

/// A mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct V1 {
    /// The folder of the topmost group that can be seen.
    pub mount: PathBuf,
    /// Its controllers, in the kernel's order: `cpu`, `cpuacct`.
    pub controllers: Vec<String>,
}

/// The cgroup2 tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct V2 {
    /// The folder of the topmost group that can be seen.
    pub mount: PathBuf,
    /// What that group offers (`cgroup.controllers`).
    pub controllers: Vec<String>,
    /// What its children have (`cgroup.subtree_control`).
    pub enabled: Vec<String>,
}

/// One line of `/proc/cgroups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelController {
    /// The controller's v1 name.
    pub name: String,
    /// The v1 hierarchy's number; 0 = on cgroup2 or on none.
    pub hierarchy: u32,
    /// False when the kernel was booted with `cgroup_disable=NAME`.
    pub enabled: bool,
}

/// The place of one controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home<'a> {
    /// On a v1 hierarchy.
    V1(&'a V1),
    /// On the cgroup2 tree.
    V2(&'a V2),
}

impl Layout {
    /// Reads this host's layout as the calling process sees it.
    ///
    /// # Errors
    /// `/proc/self/mountinfo` can't be read. Anything else that is missing makes the layout poorer.
    pub fn read() -> Result<Layout, Error> {
        let mountinfo = file::read(Path::new("/proc/self/mountinfo"), MOUNTINFO_LIMIT)
            .map_err(|error| Error::advised("read /proc/self/mountinfo", error, "is /proc mounted?"))?;
        Ok(Layout::from_files(&mountinfo, &Host))
    }

    /// The pure part of [`Layout::read`]: everything but the mount table comes through `files`.
    pub(super) fn from_files(mountinfo: &str, files: &dyn Files) -> Layout {
        let mounts = Mount::parse_all(mountinfo);
        let mut layout = Layout { kernel: parse_kernel(&files.text("/proc/cgroups")), ..Layout::default() };
        for mount in mounts.iter().filter(|mount| mount.kind != Kind::Other && mount.is_visible(&mounts)) {
            if mount.kind == Kind::V2 {
                layout.add_v2(mount, files);
            } else {
                layout.add_v1(mount);
            }
        }
        let top = Path::new("/sys/fs/cgroup");
        layout.writable_top = mounts
            .iter()
            .find(|mount| mount.point == top && mount.is_tmpfs && mount.is_writable && mount.is_visible(&mounts))
            .map(|mount| mount.point.clone());
        layout.read_net_cls(files);
        layout.read_cpuset(files);
        layout.read_features(files);
        layout
    }

    /// Where a controller is, by its v1 name (`blkio` is cgroup2's `io`). None: on this host nowhere.
    ///
    /// cgroup2 has no `devices` controller (eBPF does its work) and no `cpuacct` and `freezer` (every group has them): the tree itself is their home.
    pub fn home(&self, controller: &str) -> Option<Home<'_>> {
        if let Some(v1) = self.v1.iter().find(|v1| v1.controllers.iter().any(|name| name == controller)) {
            return Some(Home::V1(v1));
        }
        let v2 = self.v2.as_ref()?;
        let there = match controller {
            "devices" | "cpuacct" | "freezer" => true,
            "blkio" => v2.controllers.iter().any(|name| name == "io"),
            name => v2.controllers.iter().any(|other| other == name),
        };
        there.then_some(Home::V2(v2))
    }

    /// Whether `--memory-swap` can be kept on this host. Docker's default (twice the memory) must not be filled in where it can't.
    pub fn has_swap_limit(&self) -> bool {
        self.swap_limit && self.home("memory").is_some()
    }

    /// Why a controller has no home, and the way out, in one sentence.
    pub(super) fn why_missing(&self, controller: &str) -> String {
        match self.kernel.iter().find(|known| known.name == controller) {
            Some(known) if !known.enabled => {
                format!("the kernel was booted with cgroup_disable={controller}; boot without it")
            }
            Some(_) if self.v2.is_none() => format!(
                "the kernel has the {controller} controller, but it is mounted nowhere; mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified (or at /sys/fs/cgroup if that is empty)"
            ),
            Some(_) => format!(
                "this kernel offers the {controller} controller neither on a mounted v1 hierarchy nor in cgroup2's cgroup.controllers (inside a container: it was not delegated)"
            ),
            None if self.kernel.is_empty() && self.v1.is_empty() && self.v2.is_none() => {
                "no cgroups are mounted; mount -t cgroup2 cgroup2 /sys/fs/cgroup".to_owned()
            }
            None => format!("this kernel was built without the {controller} cgroup controller"),
        }
    }

    fn add_v1(&mut self, mount: &Mount) {
        // The super options hold flags too (xattr, noprefix, clone_children): keep what is a controller.
        let controllers: Vec<String> = mount
            .super_options
            .split(',')
            .filter(|name| KNOWN_V1.contains(name) || self.kernel.iter().any(|known| known.name == *name))
            .map(str::to_owned)
            .collect();
        // A second mount of the same hierarchy (a bind mount, say): the first in the table is the host's own.
        if !controllers.is_empty() && !self.v1.iter().any(|v1| v1.controllers == controllers) {
            self.v1.push(V1 { mount: mount.point.clone(), controllers });
        }
    }

    fn add_v2(&mut self, mount: &Mount, files: &dyn Files) {
        if self.v2.is_some() {
            return;
        }
        let words = |name: &str| -> Vec<String> {
            let text = files.read(&mount.point.join(name)).unwrap_or_default();
            text.split_ascii_whitespace().map(str::to_owned).collect()
        };
        let (controllers, enabled) = (words("cgroup.controllers"), words("cgroup.subtree_control"));
        self.v2 = Some(V2 { mount: mount.point.clone(), controllers, enabled });
    }

    /// A hierarchy can live on without a visible mount; the kernel then takes it only with the same set of controllers.
    fn read_net_cls(&mut self, files: &dyn Files) {
        let attached = self.kernel.iter().any(|known| known.name == "net_cls" && known.hierarchy != 0);
        if !attached || self.home("net_cls").is_some() {
            return;
        }
        let own = files.text("/proc/self/cgroup");
        let sets = own.lines().filter_map(|line| line.split(':').nth(1));
        let set = sets.map(|set| set.split(',').collect::<Vec<_>>()).find(|set| set.contains(&"net_cls"));
        self.net_cls_with = set.into_iter().flatten().filter(|name| *name != "net_cls").map(str::to_owned).collect();
    }

    fn read_cpuset(&mut self, files: &dyn Files) {
        let (cpus, mems) = match self.home("cpuset") {
            Some(Home::V1(v1)) => (v1.mount.join("cpuset.cpus"), v1.mount.join("cpuset.mems")),
            Some(Home::V2(v2)) => (v2.mount.join("cpuset.cpus.effective"), v2.mount.join("cpuset.mems.effective")),
            None => return,
        };
        let value = |path: &Path| files.read(path).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        (self.cpus, self.mems) = (value(&cpus), value(&mems));
    }

    fn read_features(&mut self, files: &dyn Files) {
        self.swap_limit = match self.home("memory") {
            Some(Home::V1(v1)) => files.exists(&v1.mount.join("memory.memsw.limit_in_bytes")),
            // memory.swap.max is not in the root group; it exists exactly where the kernel has swap.
            Some(Home::V2(_)) => files.exists(Path::new("/proc/swaps")),
            None => false,
        };
        (self.bfq, self.iocost) = match self.home("blkio") {
            // The weight files are not in the root group, the statistics of the same policy are.
            Some(Home::V1(v1)) => (files.exists(&v1.mount.join("blkio.bfq.io_service_bytes")), false),
            Some(Home::V2(v2)) => (
                files.exists(Path::new("/sys/module/bfq")) || files.exists(&v2.mount.join("init.scope/io.bfq.weight")),
                files.exists(&v2.mount.join("io.cost.qos")) || files.exists(&v2.mount.join("io.weight")),
            ),
            None => (false, false),
        };
    }
}

/// Controllers known even where `/proc/cgroups` is silent about them.
const KNOWN_V1: [&str; 14] = [
    "cpuset",
    "cpu",
    "cpuacct",
    "blkio",
    "memory",
    "devices",
    "freezer",
    "net_cls",
    "perf_event",
    "net_prio",
    "hugetlb",
    "pids",
    "rdma",
    "misc",
];

/// `/proc/cgroups`: name, hierarchy, number of groups, enabled.
fn parse_kernel(text: &str) -> Vec<KernelController> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let controllers = lines.filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (name, hierarchy, _groups, enabled) = (words.next()?, words.next()?, words.next()?, words.next()?);
        Some(KernelController { name: name.to_owned(), hierarchy: hierarchy.parse().ok()?, enabled: enabled == "1" })
    });
    controllers.take(64).collect()
}

/// The files behind a layout: the host's, or a test's.
pub(super) trait Files {
    /// The content, None when it can't be read.
    fn read(&self, path: &Path) -> Option<String>;
    /// Whether there is such a file.
    fn exists(&self, path: &Path) -> bool;
    /// The content, empty when it can't be read.
    fn text(&self, path: &str) -> String {
        self.read(Path::new(path)).unwrap_or_default()
    }
}

struct Host;

impl Files for Host {
    fn read(&self, path: &Path) -> Option<String> {
        file::read(path, SMALL).ok()
    }
    fn exists(&self, path: &Path) -> bool {
        file::exists(path)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    V1,
    V2,
    Other,
}

/// One line of mountinfo, as far as it matters here; proc_pid_mountinfo(5).
#[derive(Debug)]
struct Mount {
    id: u32,
    parent: u32,
    point: PathBuf,
    kind: Kind,
    is_tmpfs: bool,
    is_writable: bool,
    super_options: String,
}

impl Mount {
    fn parse_all(text: &str) -> Vec<Mount> {
        text.lines().filter_map(Mount::parse).collect()
    }

    fn parse(line: &str) -> Option<Mount> {
        let (fields, file_system) = line.split_once(" - ")?;
        let mut fields = fields.split(' ');
        let (id, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        // The root of the mount does not matter: what is mounted here is as far up as we can see, in a container too.
        let (_device, _root, point, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let mut file_system = file_system.split(' ');
        let (kind, _source, super_options) = (file_system.next()?, file_system.next()?, file_system.next()?);
        let writable = |options: &str| !options.split(',').any(|option| option == "ro");
        Some(Mount {
            id,
            parent,
            point: unescape(point),
            kind: match kind {
                "cgroup" => Kind::V1,
                "cgroup2" => Kind::V2,
                _ => Kind::Other,
            },
            is_tmpfs: kind == "tmpfs",
            is_writable: writable(options) && writable(super_options),
            super_options: super_options.to_owned(),
        })
    }

    /// Whether the path of the mount leads to it: neither it nor a mount above it is covered by another one.
    fn is_visible(&self, mounts: &[Mount]) -> bool {
        if mounts.iter().any(|other| other.parent == self.id && other.id != self.id && other.point == self.point) {
            return false;
        }
        let mut mount = self;
        // The parents form a tree; the bound is for a table that changed while it was read.
        for _ in 0..64 {
            let Some(above) = mounts.iter().find(|other| other.id == mount.parent && other.id != mount.id) else {
                return true;
            };
            // Numbers first: comparing paths is what costs here.
            let hides = |other: &Mount| {
                other.parent == above.id
                    && other.id != above.id
                    && other.id != mount.id
                    && if other.point == above.point {
                        mount.point != above.point
                    } else {
                        other.point != mount.point && mount.point.starts_with(&other.point)
                    }
            };
            if mounts.iter().any(hides) {
                return false;
            }
            mount = above;
        }
        false
    }
}

/// mountinfo writes blank, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> PathBuf {
    if !text.contains('\\') {
        return PathBuf::from(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if *first == b'\\' => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes))
}
