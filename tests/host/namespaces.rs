//! The namespaces of a test host: made by a thread that unshares, kept by their file descriptors, entered by a
//! thread or by a new process between fork and exec. No names, no `ip netns exec` (it would hide /sys/fs/cgroup).

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};

/// A network namespace and, for the host itself, a mount namespace with it.
pub struct Namespaces {
    net: File,
    mnt: Option<File>,
}

impl Namespaces {
    /// The network namespace of a process.
    pub fn network_of(pid: u32) -> Namespaces {
        let net =
            File::open(format!("/proc/{pid}/ns/net")).unwrap_or_else(|error| panic!("network of pid {pid}: {error}"));
        Namespaces { net, mnt: None }
    }

    /// The machine's own namespaces: what the tests must never change.
    pub fn machine() -> Namespaces {
        Namespaces::network_of(std::process::id())
    }

    /// The same namespaces by descriptors of its own.
    pub fn duplicate(&self) -> Namespaces {
        let copy = |file: &File| file.try_clone().unwrap();
        Namespaces { net: copy(&self.net), mnt: self.mnt.as_ref().map(copy) }
    }

    /// The network namespace's inode number, as in `net:[4026531840]`.
    pub fn inode(&self) -> u64 {
        self.net.metadata().unwrap().ino()
    }

    /// The descriptor of the network namespace, for a path below /proc.
    pub fn net_fd(&self) -> i32 {
        self.net.as_raw_fd()
    }

    /// Moves the calling thread in. Async-signal-safe: a new process calls it between fork and exec.
    pub fn enter(&self) -> std::io::Result<()> {
        setns(&self.net, CloneFlags::CLONE_NEWNET)?;
        match &self.mnt {
            Some(mnt) => Ok(setns(mnt, CloneFlags::CLONE_NEWNS)?),
            None => Ok(()),
        }
    }

    /// Runs a closure inside, on a thread of its own. Sockets that it makes stay inside wherever they go.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(CloneFlags::CLONE_FS).unwrap(); // a mount namespace is entered by one thread alone
                self.enter().unwrap();
                action()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// A host and the outside, joined by a link: `uplink` 10.99.0.1/24 here, `eth0` 10.99.0.2/24 there.
pub fn machine() -> (Namespaces, Namespaces) {
    let outside = on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Namespaces { net: File::open("/proc/thread-self/ns/net").unwrap(), mnt: None }
    });
    let host = on_a_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        own_mounts();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap(); // a new namespace has the machine's value
        ip(&format!(
            "link set lo up\n\
             link add uplink type veth peer name eth0 netns /proc/{}/fd/{}\n\
             addr add {}/24 dev uplink\n\
             link set uplink up\n",
            std::process::id(),
            outside.net.as_raw_fd(),
            super::HOST
        ));
        Namespaces {
            net: File::open("/proc/thread-self/ns/net").unwrap(),
            mnt: Some(File::open("/proc/thread-self/ns/mnt").unwrap()),
        }
    });
    outside.run(|| ip(&format!("link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n", super::OUTSIDE)));
    host.run(|| ip(&format!("route add default via {}\n", super::OUTSIDE)));
    (host, outside)
}

/// Mounts that no other host sees: /sys of the own network namespace (brctl reads it) with the machine's
/// cgroups in it, and an empty /run (named namespaces, xtables.lock).
fn own_mounts() {
    use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let cgroups = open_tree(rustix::fs::CWD, "/sys/fs/cgroup", flags).unwrap();
    umount2("/sys", MntFlags::MNT_DETACH).unwrap();
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), nothing).unwrap();
    let place = |what: &std::os::fd::OwnedFd, at: &std::path::Path| {
        move_mount(what.as_fd(), "", rustix::fs::CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
    };
    let top = Path::new("/sys/fs/cgroup");
    place(&cgroups, top);
    let there = statfs(top).unwrap();
    if there.filesystem_type() != TMPFS_MAGIC || statvfs(top).unwrap().flags().contains(FsFlags::ST_RDONLY) {
        return mount_run();
    }
    // A folder of its own for the hierarchies: to remove a folder takes the mounts away that other hosts have on it.
    let entries: Vec<PathBuf> = std::fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path()).collect();
    let (mut links, mut trees) = (vec![], vec![]);
    for path in entries {
        match std::fs::read_link(&path) {
            Ok(target) => links.push((path, target)),
            // One of another test's, perhaps, that is just going.
            Err(_) if !is_mount(&path) => {}
            Err(_) => trees.push((open_tree(rustix::fs::CWD, &path, flags).unwrap(), path)),
        }
    }
    mount(Some("tmpfs"), top, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
    for (path, target) in links {
        std::os::unix::fs::symlink(target, path).unwrap();
    }
    for (tree, path) in trees {
        std::fs::create_dir(&path).unwrap();
        place(&tree, &path);
    }
    mount_run();
}

/// Whether it is another filesystem than the folder above it.
fn is_mount(path: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    device(path).is_some_and(|own| Some(own) != path.parent().and_then(device))
}

fn mount_run() {
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755")).unwrap();
    std::fs::create_dir("/run/lock").unwrap();
}

/// Runs a closure with the net_cls hierarchy mounted where nobody else sees it; nothing where it can't be mounted
/// alone, because the machine has it with another controller.
pub fn with_net_cls_mounted<T: Send + Default>(at: &str, action: impl FnOnce() -> T + Send) -> T {
    on_a_thread(|| {
        let nothing: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
        let mounted = mount(Some("net_cls"), at, Some("cgroup"), MsFlags::empty(), Some("net_cls"));
        if mounted.is_ok() { action() } else { T::default() }
    })
}

fn on_a_thread<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(action).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

/// `ip -batch`: the lines, in the calling thread's namespaces.
fn ip(lines: &str) {
    use std::io::Write;
    let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("iproute2 is there");
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "ip -batch failed on:\n{lines}");
}
