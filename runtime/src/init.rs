//! Starts a container: clone3, then two lanes. Init mounts while the caller makes links and rules; "go" joins them.
//!
//! Init is a clone, not an exec, of this program (an exec costs 0.5 ms): what it needs is ready before the clone, and until
//! execve it holds a copy of our memory and our binary. It protects both: it is not dumpable, so nothing in the container
//! can look into it or through `/proc/1/exe` (that takes CAP_SYS_PTRACE), and closes all descriptors it inherits first.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::cgroup::Group;
use crate::channel::{Channel, Message};
use crate::error::{Doing, Error, StartError};
use crate::mounts::Live;
use crate::namespaces::{self, Namespace};
use crate::plan::Plan;
use crate::process::{self, die_with};
use crate::sys::{self, Clone, CloneArgs};
use crate::terminal::Size;
use crate::{mounts, reaper};

/// The program's standard streams.
#[derive(Debug)]
pub enum Stdio {
    /// Three descriptors of the caller's choice; the caller's own copies of other ends stay with it.
    Pipes {
        /// Read by the program.
        stdin: OwnedFd,
        /// Written by it.
        stdout: OwnedFd,
        /// Written by it.
        stderr: OwnedFd,
    },
    /// A new terminal inside the container.
    Terminal {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
}

impl Stdio {
    pub(crate) fn size(&self) -> Option<Size> {
        match self {
            Stdio::Pipes { .. } => None,
            Stdio::Terminal { rows, columns } => Some(Size { rows: *rows, columns: *columns }),
        }
    }
}

/// The network namespace of a container that has one of its own.
#[derive(Debug, Clone, Copy)]
pub enum Network<'a> {
    /// Made by the caller, who brings up loopback too, at any time before "go".
    Made(BorrowedFd<'a>),
    /// Made by the caller, and nothing else will be done about it: init brings up loopback.
    Bare(BorrowedFd<'a>),
    /// What the plan says: one of another, the host's, or a new one that init makes, with nothing but loopback.
    AsPlanned,
}

impl<'a> Network<'a> {
    fn fd(self) -> Option<BorrowedFd<'a>> {
        match self {
            Network::Made(fd) | Network::Bare(fd) => Some(fd),
            Network::AsPlanned => None,
        }
    }
}

/// A container whose first process exists and mounts. It must be told to go on, or it ends when this is dropped.
#[must_use = "a container that is not told to go on ends"]
#[derive(Debug)]
pub struct Starting {
    /// PID 1, in the caller's pid namespace.
    pub pid: u32,
    /// The same, safe against pid reuse.
    pub pidfd: OwnedFd,
    channel: Channel,
    gone: bool,
}

/// A container whose program runs.
#[derive(Debug)]
pub struct Running {
    /// The process, in the caller's pid namespace; the caller is its parent.
    pub pid: u32,
    /// The same, safe against pid reuse; readable once the process has ended.
    pub pidfd: OwnedFd,
    /// The terminal's outer end, when one was asked for.
    pub terminal: Option<OwnedFd>,
}

/// Clones the container's first process, which at once begins with its mounts.
///
/// The calling process must have one thread, and must live as long as the container: its death kills the container.
///
/// # Errors
/// A namespace that can't be joined or made. Errors of init itself come from [`Going::wait`].
pub fn spawn(plan: &Plan, stdio: Stdio, network: Network<'_>) -> Result<Starting, Error> {
    let (channel, inner) = Channel::pair().map_err(|error| Error::system("make a socket pair", error))?;
    let joined = open_joined(&plan.namespaces)?;
    let parent = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .map_err(|error| Error::system("open a pidfd of this process", error))?;
    let group = plan.namespaces.cgroups.iter().find(|group| group.controllers.is_empty());
    let group = group
        .map(|group| {
            rustix::fs::open(&group.path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| Error::system(format!("open the cgroup {}", group.path.display()), error))
        })
        .transpose()?;
    let args = CloneArgs { flags: plan.namespaces.clone_flags(), cgroup: group.as_ref().map(AsFd::as_fd) };
    let pid_namespace = joined.iter().find(|joined| joined.kind == libc::CLONE_NEWPID as u64);
    let cloned = clone_into(pid_namespace.map(|joined| joined.fd.as_fd()), &args)?;
    match cloned {
        Clone::Parent { pid, pidfd } => Ok(Starting { pid, pidfd, channel, gone: false }),
        Clone::Child => {
            let parent = parent.as_fd();
            let inherited = Inherited { channel: &inner, parent, joined: &joined, network, stdio: &stdio };
            run_child(&inner, || run(plan, &inherited))
        }
    }
}

impl Starting {
    /// Says that all is ready on the caller's side: the program may run from now on.
    pub fn go(self) -> Going {
        // A failure to send means that init has ended; why is in the channel.
        let _ = self.channel.go();
        Going(self)
    }
}

/// A container whose program is about to run. Init still needs some tenths of a millisecond for it.
#[must_use = "a container that nobody waits for ends"]
#[derive(Debug)]
pub struct Going(Starting);

impl Going {
    /// Waits until the program is executed.
    ///
    /// # Errors
    /// Anything that went wrong in init since the clone; the process is gone then.
    pub fn wait(self) -> Result<Running, StartError> {
        self.0.wait()
    }
}

impl Starting {
    fn wait(mut self) -> Result<Running, StartError> {
        let terminal = self.channel.outcome()?;
        let pidfd = self.pidfd.try_clone().doing(|| "copy a pidfd")?;
        self.gone = true;
        Ok(Running { pid: self.pid, pidfd, terminal })
    }
}

impl Drop for Starting {
    /// Also the way out of a failed [`Going::wait`]: nothing of the container is left.
    fn drop(&mut self) {
        if !self.gone {
            end(&self.pidfd);
        }
    }
}

/// Kills and reaps a child.
pub(crate) fn end(pidfd: &OwnedFd) {
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    while let Err(rustix::io::Errno::INTR) =
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
    {}
}

/// A namespace of somebody else, open.
struct Joined {
    kind: u64,
    name: &'static str,
    fd: OwnedFd,
}

fn open_joined(namespaces: &namespaces::Op) -> Result<Vec<Joined>, Error> {
    namespaces
        .joined()
        .map(|(kind, name, path)| {
            let fail =
                |error: std::io::Error| Error::system(format!("join the {name} namespace {}", path.display()), error);
            let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
            let fd = fd.map_err(|error| fail(error.into()))?;
            match sys::namespace_type(fd.as_fd()) {
                Ok(found) if found == kind => Ok(Joined { kind, name, fd }),
                Ok(_) => Err(Error::refused(format!("{} is a namespace, but not one of type {name}", path.display()))),
                Err(_) => Err(Error::refused(format!("{} is not a namespace", path.display()))),
            }
        })
        .collect()
}

/// Clones, with the child in another pid namespace when one is given. Our own never changes, only our children's.
///
/// In the child nothing may fail any more: it would go on with the caller's code.
fn clone_into(namespace: Option<BorrowedFd>, args: &CloneArgs) -> Result<Clone, Error> {
    let clone = || {
        let what = "make the container's first process and its namespaces";
        sys::clone3(args).map_err(|error| Error::system(what, error))
    };
    let Some(namespace) = namespace else {
        return clone();
    };
    let own = rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::system("open our pid namespace", error))?;
    let pid = libc::CLONE_NEWPID as u64;
    sys::setns(namespace, pid).map_err(|error| Error::system("join the pid namespace", error))?;
    let result = clone();
    if !matches!(result, Ok(Clone::Child)) {
        sys::setns(own.as_fd(), pid).map_err(|error| Error::system("go back to our pid namespace", error))?;
    }
    result
}

/// What the child got from its caller.
struct Inherited<'a> {
    channel: &'a Channel,
    parent: BorrowedFd<'a>,
    joined: &'a [Joined],
    network: Network<'a>,
    stdio: &'a Stdio,
}

/// The child's frame: whatever happens, the caller's code never goes on in it.
pub(crate) fn run_child(channel: &Channel, body: impl FnOnce() -> Result<std::convert::Infallible, StartError>) -> ! {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    let error = match result {
        Ok(Err(error)) => error,
        Ok(Ok(never)) => match never {},
        Err(_) => StartError::new("the container's first process met a bug in minidock; please report it"),
    };
    channel.failed(&error);
    sys::exit_now(125)
}

/// Init: from clone to exec, one straight line.
fn run(plan: &Plan, inherited: &Inherited) -> Result<std::convert::Infallible, StartError> {
    let channel = inherited.channel;
    protect(Some(inherited.parent))?;
    let mut keep = vec![channel.as_fd().as_raw_fd(), inherited.parent.as_raw_fd()];
    keep.extend(inherited.joined.iter().map(|joined| joined.fd.as_raw_fd()));
    keep.extend(inherited.network.fd().map(|fd| fd.as_raw_fd()));
    take_streams(inherited.stdio, &mut keep)?;
    sys::reset_signals();
    rustix::process::setsid().doing(|| "become a session leader")?;
    // Modes of nodes and folders are meant as they're written.
    rustix::process::umask(Mode::empty());

    enter_v1_groups(&plan.namespaces.cgroups)?;
    enter_namespaces(&plan.namespaces, inherited.joined)?;
    process::on_host(&plan.process)?;
    let mut live = Live::default();
    live.terminal_size = inherited.stdio.size();
    enter_network(&plan.namespaces, inherited.network)?;
    // A parameter of one link can only be set once the link is there.
    let of_links = plan.mounts.iter().position(mounts::Op::needs_links);
    let (before, after) = plan.mounts.split_at(of_links.unwrap_or(plan.mounts.len()));
    mounts::apply(before, &mut live)?;
    if of_links.is_some() {
        wait_for_go(channel)?;
        mounts::apply(after, &mut live)?;
    }

    let ready = match &live.root {
        Some(root) => process::look_up(&plan.process, root, true)?,
        None => return Err(StartError::new("the plan has no root file system")),
    };
    if let Some(terminal) = &live.terminal {
        use_terminal(terminal.slave.as_fd(), ready.uid)?;
        channel.terminal(terminal.master.as_fd()).doing(|| "hand the terminal over")?;
    }
    // The user's own seccomp rules may forbid to receive a message; with ours there's time for all of it before.
    let waits_early = plan.process.own_rules && of_links.is_none();
    if waits_early {
        wait_for_go(channel)?;
    }
    process::become_user(&plan.process, &ready)?;
    if of_links.is_none() && !waits_early {
        wait_for_go(channel)?;
    }
    if plan.process.reaper {
        return reaper::run(&plan.process, &ready.env, channel, inherited.parent);
    }
    die_with(Some(inherited.parent))?;
    // All of ours are close-on-exec; this is for what a library might have opened otherwise.
    sys::close_range(3, u32::MAX, true).doing(|| "close descriptors")?;
    Err(process::execute(&plan.process, &ready.env, channel))
}

fn wait_for_go(channel: &Channel) -> Result<(), StartError> {
    match channel.receive().doing(|| "hear from the caller")? {
        Some(Message::Go) => Ok(()),
        _ => Err(StartError::new("the start was given up")),
    }
}

/// The first thing in every process that is going to be a container's.
pub(crate) fn protect(parent: Option<BorrowedFd>) -> Result<(), StartError> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).doing(|| "become undumpable")?;
    die_with(parent)
}

/// Puts the streams on 0-2 and closes everything that isn't in `keep`: locks, journals and sockets of the engine must
/// not live on in here.
pub(crate) fn take_streams(stdio: &Stdio, keep: &mut [RawFd]) -> Result<(), StartError> {
    if let Stdio::Pipes { stdin, stdout, stderr } = stdio {
        // Out of the way first: one of them may be number 0, 1 or 2 itself.
        let moved = [stdin, stdout, stderr].map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3));
        for (target, fd) in (0..).zip(moved) {
            let fd = fd.doing(|| "set up the standard streams")?;
            sys::become_standard_stream(fd.as_fd(), target).doing(|| "set up the standard streams")?;
        }
    }
    keep.sort_unstable();
    let mut next = 3;
    for fd in keep.iter().map(|fd| *fd as u32).chain([u32::MAX]) {
        if fd > next {
            sys::close_range(next, if fd == u32::MAX { fd } else { fd - 1 }, false)
                .doing(|| "close inherited descriptors")?;
        }
        next = next.max(fd.saturating_add(1));
    }
    Ok(())
}

/// Enters the v1 groups; on cgroup2 the process was born in its group.
///
/// `0` into `tasks` moves a single thread that is the writer itself, for which the kernel skips its global lock and so the
/// grace period of 12 ms that a write to `cgroup.procs` waits for (cgroup_procs_write_start, Linux 5.5). We have one thread.
pub(crate) fn enter_v1_groups(groups: &[Group]) -> Result<(), StartError> {
    for group in groups.iter().filter(|group| !group.controllers.is_empty()) {
        let tasks = group.path.join("tasks");
        let file = rustix::fs::open(&tasks, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        file.and_then(|file| rustix::io::write(file, b"0"))
            .doing(|| format!("enter the cgroup {}", group.path.display()))?;
    }
    Ok(())
}

fn enter_namespaces(namespaces: &namespaces::Op, joined: &[Joined]) -> Result<(), StartError> {
    // The pid namespace was joined by being born in it.
    for joined in joined.iter().filter(|joined| joined.kind != libc::CLONE_NEWPID as u64) {
        sys::setns(joined.fd.as_fd(), joined.kind).doing(|| format!("join the {} namespace", joined.name))?;
    }
    if namespaces.cgroup == Namespace::New {
        unshare(libc::CLONE_NEWCGROUP).doing(|| "make the cgroup namespace")?;
    }
    if let Some(name) = namespaces.hostname.as_deref().filter(|name| !name.is_empty()) {
        rustix::system::sethostname(name.as_bytes()).doing(|| format!("set the host name {name}"))?;
    }
    if let Some(name) = namespaces.domainname.as_deref().filter(|name| !name.is_empty()) {
        rustix::system::setdomainname(name.as_bytes()).doing(|| format!("set the domain name {name}"))?;
    }
    Ok(())
}

fn enter_network(namespaces: &namespaces::Op, network: Network<'_>) -> Result<(), StartError> {
    let enter = |fd: BorrowedFd| sys::setns(fd, libc::CLONE_NEWNET as u64).doing(|| "enter the network namespace");
    match (&namespaces.net, network) {
        (Namespace::New, Network::Made(fd)) => enter(fd),
        (Namespace::New, Network::Bare(fd)) => {
            enter(fd)?;
            sys::loopback_up().doing(|| "bring loopback up")
        }
        (Namespace::New, Network::AsPlanned) => {
            unshare(libc::CLONE_NEWNET).doing(|| "make the network namespace")?;
            sys::loopback_up().doing(|| "bring loopback up")
        }
        (Namespace::Host | Namespace::Join(_), Network::AsPlanned) => Ok(()),
        (Namespace::Host | Namespace::Join(_), Network::Made(_) | Network::Bare(_)) => {
            Err(StartError::new("a network namespace was made for a container that is to have none of its own"))
        }
    }
}

fn unshare(kind: i32) -> Result<(), rustix::io::Errno> {
    nix::sched::unshare(nix::sched::CloneFlags::from_bits_retain(kind))
        .map_err(|error| rustix::io::Errno::from_raw_os_error(error as i32))
}

/// Makes the terminal the session's and the three streams.
pub(crate) fn use_terminal(slave: BorrowedFd, uid: u32) -> Result<(), StartError> {
    if uid != 0 {
        rustix::fs::fchown(slave, Some(rustix::fs::Uid::from_raw(uid)), None)
            .doing(|| "give the terminal to the user")?;
    }
    sys::set_controlling_terminal(slave).doing(|| "make the terminal the controlling one")?;
    for target in 0..3 {
        sys::become_standard_stream(slave, target).doing(|| "set up the standard streams")?;
    }
    Ok(())
}
