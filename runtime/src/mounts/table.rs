//! The pure part: from the OCI configuration to the list of mount operations, in docker's order.
//!
//! Two lists, because two lanes work at the same time: what needs the network namespace (sysfs shows its devices) waits
//! until the caller has made it, everything else doesn't.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Mount};

use super::beneath::normal;
use super::options::{Options, Propagation, mount_flags};
use super::{Attributes, Bind, Device, FileSystem, NodeKind, Op, Overlay};
use crate::defaults;
use crate::error::Error;
use crate::facts::Facts;
use crate::namespaces::{self, Namespace};
use crate::plan::{Bundle, Rootfs};
use crate::sys;

/// The operations before and after the network namespace is there.
#[derive(Debug)]
pub(crate) struct Table {
    pub early: Vec<Op>,
    pub late: Vec<Op>,
}

/// Links that docker and the OCI specification put into every `/dev`.
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Files of /proc that lxcfs covers; nothing else may be mounted in there (CVE-2019-16884).
const PROC_COVERS: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
];

/// Works out all mount operations.
pub(crate) fn plan(bundle: &Bundle, namespaces: &namespaces::Op, facts: &Facts) -> Result<Table, Error> {
    let linux = bundle.spec.linux().as_ref();
    let mut draft = Draft { early: Vec::new(), late: Vec::new(), late_folders: Vec::new() };
    let propagation = rootfs_propagation(linux.and_then(|linux| linux.rootfs_propagation().as_deref()))?;
    // Slave, as runc: what the host mounts later on a volume is seen, nothing goes the other way.
    draft.add(Op::Isolate(propagation.unwrap_or(Propagation { kind: libc::MS_SLAVE, recursive: true })));
    draft.add(root(&bundle.rootfs, facts)?);

    let mounts: Vec<&Mount> = bundle.spec.mounts().iter().flatten().chain(bundle.mounts_extra).collect();
    for mount in &mounts {
        draft.mount(mount, namespaces)?;
    }
    let is_bound = |path: &str| {
        mounts
            .iter()
            .any(|mount| normal(mount.destination()) == Path::new(path) && mount.typ().as_deref() == Some("bind"))
    };
    // Whoever binds the host's /dev gets the host's nodes, and nothing is made in there.
    if !is_bound("/dev") {
        draft.devices(linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default(), facts.kcore)?;
    }
    let terminal = bundle.spec.process().as_ref().is_some_and(|process| process.terminal().unwrap_or(false));
    if terminal {
        if !mounts.iter().any(|mount| normal(mount.destination()) == Path::new("/dev/pts")) {
            return Err(Error::refused(
                "a terminal (-t) needs a devpts mounted on /dev/pts; the configuration has none",
            ));
        }
        draft.add(Op::Console(PathBuf::from("/dev/console")));
    }
    if let Some(linux) = linux {
        draft.sysctls(linux.sysctl().iter().flatten(), namespaces)?;
        // Read-only first: a masked path below a read-only one must end up on top.
        draft.split(linux.readonly_paths().iter().flatten(), Op::ReadOnly);
        draft.split(linux.masked_paths().iter().flatten(), Op::Mask);
    }
    if bundle.spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false)) {
        let attributes = Attributes { set: sys::MOUNT_ATTR_RDONLY, clear: 0 };
        draft.late.push(Op::Seal { target: PathBuf::from("/"), attributes });
    }
    // The parent is isolated as slave or private already; only the other kinds are left to set on the new root itself.
    let visible = propagation.filter(|propagation| matches!(propagation.kind, libc::MS_SHARED | libc::MS_UNBINDABLE));
    draft.late.push(Op::PivotRoot { propagation: visible });
    Ok(Table { early: draft.early, late: draft.late })
}

fn rootfs_propagation(word: Option<&str>) -> Result<Option<Propagation>, Error> {
    match word {
        None | Some("") => Ok(None),
        Some(word) => Propagation::parse(word)
            .map(|propagation| Some(Propagation { recursive: true, ..propagation }))
            .ok_or_else(|| {
                Error::refused(format!("unknown rootfsPropagation {word:?}: use private, slave, shared or unbindable"))
            }),
    }
}

fn root(rootfs: &Rootfs, facts: &Facts) -> Result<Op, Error> {
    match rootfs {
        Rootfs::Overlay { lower, upper, work, merged, volatile } => {
            Ok(Op::Overlay(Overlay::plan(lower, (upper, work, merged), *volatile, facts)?))
        }
        Rootfs::Dir(path) if !path.is_absolute() => {
            Err(Error::refused(format!("the root folder {} is not an absolute path", path.display())))
        }
        Rootfs::Dir(path) if normal(path) == Path::new("/") => {
            Err(Error::refused("the host's / can't be a container's root file system; bind what you need with -v"))
        }
        Rootfs::Dir(path) => Ok(Op::RootFolder(path.clone())),
    }
}

struct Draft {
    early: Vec<Op>,
    late: Vec<Op>,
    /// Targets of late mounts: what lies below them is late, too.
    late_folders: Vec<PathBuf>,
}

impl Draft {
    fn add(&mut self, op: Op) {
        self.early.push(op);
    }

    /// Adds an operation to the lane of its target.
    fn place(&mut self, target: &Path, op: Op) {
        if self.is_late(target) { self.late.push(op) } else { self.early.push(op) }
    }

    fn is_late(&self, target: &Path) -> bool {
        self.late_folders.iter().any(|folder| target.starts_with(folder))
    }

    fn mount(&mut self, mount: &Mount, namespaces: &namespaces::Op) -> Result<(), Error> {
        let target = normal(mount.destination());
        let shown = target.display().to_string();
        if target == Path::new("/") {
            return Err(Error::refused("nothing can be mounted on the container's /"));
        }
        if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
            return Err(Error::refused(format!("id-mapped mounts are not supported (mount on {shown})")));
        }
        let options = Options::parse(mount.options().iter().flatten().map(String::as_str), &shown)?;
        let kind = mount.typ().as_deref().unwrap_or("");
        check_proc(&target, kind, mount)?;
        if options.bind.is_some() || kind == "bind" {
            return self.bind(mount, target, options);
        }
        if kind == "sysfs" || kind == "cgroup" {
            self.late_folders.push(target.clone());
        }
        match kind {
            "" => Err(Error::refused(format!("the mount on {shown} has neither a type nor the option bind"))),
            "cgroup" => self.cgroup(&target, &options, namespaces),
            _ => {
                let source =
                    mount.source().as_ref().map_or_else(|| kind.to_owned(), |source| source.display().to_string());
                let op = file_system(kind, source, target.clone(), &options);
                self.place(&target, op);
                self.seal_below(&target, &options);
                Ok(())
            }
        }
    }

    fn bind(&mut self, mount: &Mount, target: PathBuf, options: Options) -> Result<(), Error> {
        let Some(source) = mount.source().clone().filter(|source| source.is_absolute()) else {
            return Err(Error::refused(format!(
                "the bind mount on {} needs an absolute source path",
                target.display()
            )));
        };
        let (subpath, unknown): (Vec<_>, Vec<_>) = options.data.iter().partition(|word| word.starts_with("subpath="));
        if let Some(word) = unknown.first() {
            return Err(Error::refused(format!("unknown option {word} of the bind mount on {}", target.display())));
        }
        let bind = Bind {
            source,
            subpath: subpath.first().and_then(|word| word.strip_prefix("subpath=")).map(PathBuf::from),
            target: target.clone(),
            recursive: options.bind.unwrap_or(false),
            attributes: options.attributes,
            below: options.recursive,
            propagation: options.propagation.unwrap_or(Propagation { kind: libc::MS_PRIVATE, recursive: true }),
        };
        self.place(&target, Op::Bind(bind));
        Ok(())
    }

    fn seal_below(&mut self, target: &Path, options: &Options) {
        if !options.recursive.is_empty() {
            let op = Op::Seal { target: target.to_owned(), attributes: options.recursive };
            self.place(target, op);
        }
    }

    /// cgroup2 as one mount; v1 as docker shows it: a tmpfs with one folder for each hierarchy.
    ///
    /// Only the hierarchies where the container has a group of its own: in another one it would see the host's top group.
    fn cgroup(&mut self, target: &Path, options: &Options, namespaces: &namespaces::Op) -> Result<(), Error> {
        let plain = |kind: &str, target: PathBuf, data: &str, attributes: Attributes| {
            let data = data.to_owned();
            Op::FileSystem(FileSystem {
                kind: kind.to_owned(),
                source: if kind == "cgroup2" { "cgroup".to_owned() } else { kind.to_owned() },
                target,
                attributes,
                flags: 0,
                data,
                propagation: options.propagation,
                strict: false,
            })
        };
        let v1: Vec<_> = namespaces.cgroups.iter().filter(|group| !group.controllers.is_empty()).collect();
        let has_v2 = namespaces.cgroups.iter().any(|group| group.controllers.is_empty());
        if v1.is_empty() {
            if has_v2 || namespaces.cgroup == Namespace::New {
                self.late.push(plain("cgroup2", target.to_owned(), "", options.attributes));
            }
            return Ok(());
        }
        let writable = Attributes { set: options.attributes.set & !sys::MOUNT_ATTR_RDONLY, clear: 0 };
        self.late.push(plain("tmpfs", target.to_owned(), "mode=755", writable));
        for group in v1 {
            let name = group.controllers.join(",");
            self.late.push(plain("cgroup", target.join(&name), &name, options.attributes));
            if group.controllers.len() > 1 {
                for controller in &group.controllers {
                    self.late.push(Op::Symlink { path: target.join(controller), target: PathBuf::from(&name) });
                }
            }
        }
        if has_v2 {
            self.late.push(plain("cgroup2", target.join("unified"), "", options.attributes));
        }
        if options.attributes.set & sys::MOUNT_ATTR_RDONLY != 0 {
            let attributes = Attributes { set: sys::MOUNT_ATTR_RDONLY, clear: 0 };
            self.late.push(Op::Seal { target: target.to_owned(), attributes });
        }
        Ok(())
    }

    fn devices(&mut self, asked: &[LinuxDevice], kcore: bool) -> Result<(), Error> {
        let asked: Vec<Device> = asked.iter().map(device).collect::<Result<_, _>>()?;
        let taken: BTreeSet<&Path> = asked.iter().map(|device| device.path.as_path()).collect();
        for node in defaults::NODES.iter().filter(|node| !taken.contains(Path::new(node.path))) {
            let (path, major, minor) = (PathBuf::from(node.path), node.major, node.minor);
            self.add(Op::Device(Device { path, kind: NodeKind::Character, major, minor, mode: 0o666, uid: 0, gid: 0 }));
        }
        for (path, target) in LINKS {
            if !taken.contains(Path::new(path)) {
                self.add(Op::Symlink { path: PathBuf::from(path), target: PathBuf::from(target) });
            }
        }
        if kcore && !taken.contains(Path::new("/dev/core")) {
            self.add(Op::Symlink { path: PathBuf::from("/dev/core"), target: PathBuf::from("/proc/kcore") });
        }
        // /dev/console is the container's own terminal, /dev/ptmx its own devpts: never the host's (as runc).
        let own = ["/dev/console", "/dev/ptmx"];
        for device in asked.into_iter().filter(|device| !own.iter().any(|path| device.path == Path::new(path))) {
            let path = device.path.clone();
            self.place(&path, Op::Device(device));
        }
        Ok(())
    }

    fn sysctls<'a>(
        &mut self,
        sysctls: impl Iterator<Item = (&'a String, &'a String)>,
        namespaces: &namespaces::Op,
    ) -> Result<(), Error> {
        let own = defaults::OwnNamespaces {
            network: namespaces.net == Namespace::New,
            ipc: namespaces.ipc == Namespace::New,
            uts: namespaces.uts == Namespace::New,
        };
        let sorted: BTreeSet<_> = sysctls.collect();
        for (name, value) in sorted {
            let key = defaults::check_sysctl(name, value, own).map_err(Error::Refused)?;
            let late = key.starts_with("net");
            let op = Op::Sysctl { key: key.display().to_string(), value: value.clone() };
            if late { self.late.push(op) } else { self.early.push(op) }
        }
        Ok(())
    }

    /// One operation for the paths of each lane.
    fn split<'a>(&mut self, paths: impl Iterator<Item = &'a String>, op: fn(Vec<PathBuf>) -> Op) {
        let (late, early): (Vec<_>, Vec<_>) =
            paths.map(|path| normal(Path::new(path))).partition(|path| self.is_late(path));
        if !early.is_empty() {
            self.early.push(op(early));
        }
        if !late.is_empty() {
            self.late.push(op(late));
        }
    }
}

fn file_system(kind: &str, source: String, target: PathBuf, options: &Options) -> Op {
    Op::FileSystem(FileSystem {
        kind: kind.to_owned(),
        source,
        target,
        attributes: options.attributes,
        flags: options.file_system,
        data: options.data.join(","),
        propagation: options.propagation,
        strict: kind == "proc" || kind == "sysfs",
    })
}

/// Nothing is mounted inside /proc but a procfs on /proc itself and single files that lxcfs makes.
fn check_proc(target: &Path, kind: &str, mount: &Mount) -> Result<(), Error> {
    let allowed = !target.starts_with("/proc")
        || (target == Path::new("/proc")
            && (kind == "proc" || mount.source().as_deref().is_some_and(|source| source == Path::new("/proc"))))
        || PROC_COVERS.iter().any(|path| target == Path::new(path));
    if allowed {
        return Ok(());
    }
    Err(Error::refused(format!(
        "cannot mount on {}: the container's /proc must be a real one (security)",
        target.display()
    )))
}

fn device(device: &LinuxDevice) -> Result<Device, Error> {
    let path = normal(device.path());
    let kind = match device.typ() {
        LinuxDeviceType::B => NodeKind::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => NodeKind::Character,
        LinuxDeviceType::P => NodeKind::Fifo,
        LinuxDeviceType::A => {
            return Err(Error::refused(format!("the device {} needs a type: b, c or p", path.display())));
        }
    };
    let number = |number: i64, what: &str| {
        u32::try_from(number)
            .map_err(|_| Error::refused(format!("bad {what} number {number} of the device {}", path.display())))
    };
    // A pipe has no numbers; some configurations write 0, some -1.
    let (major, minor) = if kind == NodeKind::Fifo {
        (0, 0)
    } else {
        (number(device.major(), "major")?, number(device.minor(), "minor")?)
    };
    Ok(Device {
        kind,
        major,
        minor,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        path,
    })
}

/// The flags word of mount(2) for a file system.
pub(super) fn flags(mount: &FileSystem) -> u64 {
    mount.flags | mount_flags(mount.attributes)
}
