//! Network namespaces: a new one for a container, and its name for `ip netns`.
//!
//! The namespace itself is never journaled: it goes when the last process and the last fd that hold it are gone.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};

use crate::dns::Sockets;
use crate::netlink::Netlink;
use crate::sys::NetnsMaker;
use crate::undo::{Residue, Undone};
use crate::{Command, Error, Result, link, query};

/// Where iproute2 looks for named namespaces (`/var/run` is `/run`).
const NAMES: &str = "/run/netns";

/// A fresh network namespace, made before the container's process joins it, with a netlink socket inside.
pub struct NewNetns {
    /// What is being made in here by another process. First, so that it's waited for before its socket is closed.
    pub(crate) making: Option<link::Making>,
    fd: OwnedFd,
    /// The namespace in which the caller lives.
    outside: OwnedFd,
    pub(crate) route: Netlink,
    /// Links that were made in here: name and index.
    pub(crate) links: Vec<(String, u32)>,
    /// The index that the next link in here gets. None in a namespace where links have come and gone: the kernel counts
    /// on (dev_index_reserve() in net/core/dev.c), so that it can't be told from those that are there.
    pub(crate) next_index: Option<u32>,
    pub(crate) resolver: Option<Sockets>,
}

/// A namespace that is being made, which takes the kernel half a millisecond, while the caller does other things.
pub struct Begun(Option<NetnsMaker>);

impl Begun {
    /// Begins. Nothing is left of it when this is dropped.
    pub fn begin() -> Begun {
        Begun(NetnsMaker::start())
    }

    /// Waits until it's there. Only for a single-threaded caller.
    pub fn finish(self) -> Result<OwnedFd> {
        match self.0.and_then(NetnsMaker::finish) {
            Some(fd) => Ok(fd),
            None => Ok(make_holder()?.0.into()), // tells why it can't be made, if it can't
        }
    }
}

impl NewNetns {
    /// Makes a namespace; the caller is back in its own when this returns. Only for a single-threaded caller.
    pub fn create() -> Result<NewNetns> {
        NewNetns::of(make_holder()?.0.into())
    }

    /// A namespace that has just been made, with a netlink socket inside; the caller is back in its own when this returns.
    /// Only for a single-threaded caller.
    pub fn of(fd: OwnedFd) -> Result<NewNetns> {
        let mut new = NewNetns::enter(fd)?;
        // Some hosts put tunnel devices into each new namespace, so the first index after lo may be taken.
        new.next_index = Some(query::highest_index(&mut new.route)? + 1);
        Ok(new)
    }

    fn enter(fd: OwnedFd) -> Result<NewNetns> {
        let outside = rustix::fs::open(
            "/proc/thread-self/ns/net",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(|error| Error::system("open /proc/thread-self/ns/net", error))?;
        setns(&fd, CloneFlags::CLONE_NEWNET)
            .map_err(|error| Error::system("enter the container's network namespace", error))?;
        let route = Netlink::route();
        setns(&outside, CloneFlags::CLONE_NEWNET)
            .map_err(|error| Error::system("return to the host's network namespace", error))?;
        Ok(NewNetns { making: None, fd, outside, route: route?, links: Vec::new(), next_index: None, resolver: None })
    }

    /// The namespace of a process, with a netlink socket inside; the caller is back in its own when this returns. Only for
    /// a single-threaded caller.
    pub fn of_process(pid: u32) -> Result<NewNetns> {
        let path = format!("/proc/{pid}/ns/net");
        let fd = File::open(&path).map_err(|error| Error::system(format!("open {path}"), error))?;
        NewNetns::enter(fd.into())
    }

    /// Removes a link that has no end on the host. One that is gone already is no error.
    pub fn remove_link(&mut self, name: &str) -> Result<()> {
        let Some(found) = query::get(&mut self.route, name)? else { return Ok(()) };
        match link::delete(&mut self.route, found.index) {
            Err(failure) if failure.errno != libc::ENODEV => {
                Err(failure.into_error(format!("remove the container's link {name}")))
            }
            _ => Ok(()),
        }
    }

    /// The namespace, for setns(2).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The sockets of its name server, if the plan had one.
    pub fn take_resolver(&mut self) -> Option<Sockets> {
        self.resolver.take()
    }

    pub(crate) fn outside(&self) -> BorrowedFd<'_> {
        self.outside.as_fd()
    }
}

/// Operations on namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Makes the namespace of the container's PID 1 visible to `ip netns` under this name.
    Name {
        /// The container's name.
        name: String,
    },
}

impl Op {
    pub(crate) fn residue(&self, init_pid: Option<u32>) -> Option<Residue> {
        let Op::Name { name } = self;
        Some(Residue::NetnsName { name: name.clone(), pid: init_pid? })
    }

    pub(crate) fn explain(&self) -> Vec<Command> {
        let Op::Name { name } = self;
        vec![
            ("mkdir -p /var/run/netns".to_owned(), "where ip netns looks for names".to_owned()),
            (
                format!("ln -s /proc/$pid/ns/net /var/run/netns/{name}"),
                format!("ip netns exec {name} … finds the container's network namespace"),
            ),
        ]
    }

    pub(crate) fn apply(&self, init_pid: Option<u32>) -> Result<()> {
        let Op::Name { name } = self;
        let what = || format!("name the network namespace in {NAMES}/{name}");
        let Some(pid) = init_pid else {
            return Err(Error::system(what(), io::Error::other("the container has no process yet")));
        };
        let (path, target) = (path_of(name)?, target_of(pid));
        let link = || std::os::unix::fs::symlink(&target, &path);
        match link() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(NAMES).map_err(|error| Error::system(format!("create {NAMES}"), error))?;
                link().map_err(|error| Error::system(what(), error))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Error::System {
                what: what(),
                source: error,
                detail: Some(format!(
                    "see `ip netns list`; choose another --name, or remove that one: ip netns del {name}"
                )),
            }),
            result => result.map_err(|error| Error::system(what(), error)),
        }
    }
}

/// Removes the name when it still is this process's.
pub(crate) fn undo(name: &str, pid: u32) -> Result<Undone> {
    let path = path_of(name)?;
    match fs::read_link(&path) {
        Ok(target) if target == Path::new(&target_of(pid)) => {}
        Ok(target) => {
            return Ok(Undone::NotOurs(format!("{} leads to {}", path.display(), target.display())));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Undone::NotThere),
        // EINVAL: not a symbolic link but a bind mount, which is what `ip netns add` makes.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            return Ok(Undone::NotOurs(format!("{} was made by `ip netns add`", path.display())));
        }
        Err(error) => return Err(Error::system(format!("read {}", path.display()), error)),
    }
    match fs::remove_file(&path) {
        Ok(()) => Ok(Undone::Removed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Undone::NotThere),
        Err(error) => Err(Error::system(format!("remove {}", path.display()), error)),
    }
}

/// A new network namespace that only the descriptor holds, and its inode. The caller is back in its own when this returns.
pub(crate) fn make_holder() -> Result<(File, u64)> {
    let own = || {
        File::open("/proc/thread-self/ns/net").map_err(|error| Error::system("open /proc/thread-self/ns/net", error))
    };
    let outside = own()?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| Error::system("make a network namespace", error))?;
    let inside = own();
    setns(&outside, CloneFlags::CLONE_NEWNET)
        .map_err(|error| Error::system("return to the host's network namespace", error))?;
    let inside = inside?;
    let inode = inside.metadata().map_err(|error| Error::system("look at a network namespace", error))?.ino();
    Ok((inside, inode))
}

/// Fails when `ip netns` has something of this name.
pub(crate) fn check_free(name: &str) -> Result<()> {
    match fs::symlink_metadata(path_of(name)?) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(Error::Refused(format!(
            "the network namespace {name} is there already: see `ip netns list`; choose another name, or remove that \
             one: ip netns del {name}"
        ))),
    }
}

/// Gives a namespace a name that keeps it alive: a bind mount, as `ip netns add` makes it.
pub(crate) fn hold(name: &str, netns: BorrowedFd<'_>) -> Result<()> {
    let what = || format!("name the network namespace in {NAMES}/{name}");
    let path = path_of(name)?;
    fs::create_dir_all(NAMES).map_err(|error| Error::system(format!("create {NAMES}"), error))?;
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(&path)
        .map_err(|error| Error::system(what(), error))?;
    let source = format!("/proc/self/fd/{}", netns.as_raw_fd());
    let nothing: Option<&str> = None;
    nix::mount::mount(Some(source.as_str()), &path, nothing, nix::mount::MsFlags::MS_BIND, nothing)
        .map_err(|error| Error::system(what(), error))
}

/// Removes a name that holds this namespace, or the empty file that a maker left that was killed before the mount.
pub(crate) fn undo_hold(name: &str, inode: u64) -> Result<Undone> {
    let path = path_of(name)?;
    let what = || format!("remove {}", path.display());
    let found = match fs::symlink_metadata(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Undone::NotThere),
        Err(error) => return Err(Error::system(what(), error)),
    };
    if found.ino() != inode && !(found.is_file() && found.len() == 0 && !is_namespace(&path)) {
        return Ok(Undone::NotOurs(format!("{} is another network namespace", path.display())));
    }
    match nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(error) => return Err(Error::system(what(), error)),
    }
    match fs::remove_file(&path) {
        Ok(()) => Ok(Undone::Removed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Undone::NotThere),
        Err(error) => Err(Error::system(what(), error)),
    }
}

/// Whether a file is on nsfs.
pub(crate) fn is_namespace(path: &Path) -> bool {
    /// NSFS_MAGIC of include/uapi/linux/magic.h
    const NSFS: i64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == NSFS)
}

fn target_of(pid: u32) -> String {
    format!("/proc/{pid}/ns/net")
}

/// Names come from a journal too, so each is checked here: one plain file name.
pub(crate) fn path_of(name: &str) -> Result<PathBuf> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) || name.len() > 255 {
        return Err(Error::Refused(format!("{name:?} can't be the name of a network namespace")));
    }
    Ok(Path::new(NAMES).join(name))
}
