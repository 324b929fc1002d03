//! Starts another process inside a running container (`exec`).
//!
//! Between the caller and the new process stands a short-lived helper: it closes everything of the host and only then
//! makes the process, which is born inside the container's pid namespace and is seen there with nothing of the host in
//! it, even by a container that may trace (CVE-2016-9962). CLONE_PARENT makes it the caller's child, to be waited for.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};

use crate::cgroup::Group;
use crate::channel::Channel;
use crate::error::{Doing, StartError};
use crate::facts::Facts;
use crate::init::{self, Running, Stdio};
use crate::mounts::beneath::Root;
use crate::plan::Seccomp;
use crate::process::{self, Process, die_with};
use crate::sys::{self, Clone, CloneArgs};
use crate::terminal::Terminal;

/// The container to start something in.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its PID 1, in the caller's pid namespace.
    pub pid: u32,
    /// When that process was started: field 22 of /proc/PID/stat. Another process of the same pid is never touched.
    pub starttime: u64,
    /// Its id, for messages.
    pub id: &'a str,
    /// Its configuration, for seccomp rules.
    pub spec: &'a Spec,
    /// Where its seccomp rules come from.
    pub seccomp: Seccomp,
    /// `exec -u`; None: the numbers of the process.
    pub user: Option<&'a str>,
    /// `--group-add` of the container.
    pub group_add: &'a [String],
    /// The new process dies with the caller. Docker's `exec` leaves it running.
    pub die_with_caller: bool,
}

/// Starts a process in a running container and returns once its program is executed.
///
/// # Errors
/// The container is gone or another, the program can't be started (as for a container's own).
pub fn spawn(target: Target, process: &oci_spec::runtime::Process, stdio: Stdio) -> Result<Running, StartError> {
    let facts = Facts::read()?;
    let request = process::Request {
        linux: target.spec.linux().as_ref(),
        seccomp: target.seccomp,
        user: target.user,
        group_add: target.group_add,
        init: false,
    };
    let process = process::plan(process, &request, &facts)?;
    let container = open_container(&target)?;
    let groups = groups_of(target.pid, &facts)?;
    let v2 = groups.iter().find(|group| group.controllers.is_empty());
    let v2 = v2
        .map(|group| open_folder(&group.path).doing(|| format!("open the cgroup {}", group.path.display())))
        .transpose()?;
    // What was read by pid is the container's only if the process is still the same.
    check_starttime(&target)?;

    let parent = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .doing(|| "open a pidfd of this process")?;
    let (channel, inner) = Channel::pair().doing(|| "make a socket pair")?;
    // Born in the cgroup2 group, as its child will be; the descriptor ends here.
    let args = CloneArgs { flags: 0, cgroup: v2.as_ref().map(AsFd::as_fd) };
    let helper = sys::clone3(&args).doing(|| "clone")?;
    let Clone::Parent { pidfd: helper, .. } = helper else {
        let joining = Joining {
            process: &process,
            container,
            groups: &groups,
            parent: target.die_with_caller.then_some(parent.as_fd()),
            stdio: &stdio,
        };
        init::run_child(&inner, || help(joining, &inner));
    };
    drop(inner);
    drop(stdio);
    let (outcome, pid) = channel.outcome_of_helper();
    init::end(&helper);
    // Our child, and not waited for yet: its pid can't be another's, also when it has ended by now.
    let raw = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let pidfd = raw
        .map(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).doing(|| "open a pidfd of the new process"))
        .transpose()?;
    match (outcome, pid, pidfd) {
        (Ok(terminal), Some(pid), Some(pidfd)) => Ok(Running { pid, pidfd, terminal }),
        (outcome, _, pidfd) => {
            if let Some(pidfd) = pidfd {
                init::end(&pidfd);
            }
            Err(outcome.err().unwrap_or_else(|| {
                let text =
                    "the process that should join the container was killed; is the container at its memory limit?";
                StartError::new(text)
            }))
        }
    }
}

fn open_container(target: &Target) -> Result<OwnedFd, StartError> {
    let gone = || StartError::new(format!("container {} is not running", target.id));
    let pid = i32::try_from(target.pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    check_starttime(target)?;
    Ok(pidfd)
}

fn check_starttime(target: &Target) -> Result<(), StartError> {
    if starttime(target.pid).ok() == Some(target.starttime) {
        return Ok(());
    }
    Err(StartError::new(format!("container {} is not running", target.id)))
}

/// When a process was started, in clock ticks since boot: field 22 of /proc/PID/stat. With the pid it names a process for
/// as long as the machine runs.
///
/// # Errors
/// There is no such process.
pub fn starttime(pid: u32) -> std::io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name, which may hold anything.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    fields
        .split_ascii_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| std::io::Error::other("bad /proc/PID/stat"))
}

/// The groups that a process is in and this one is not.
fn groups_of(pid: u32, facts: &Facts) -> Result<Vec<Group>, StartError> {
    let read = |path: String| std::fs::read_to_string(&path).doing(|| format!("read {path}"));
    let (theirs, ours) = (read(format!("/proc/{pid}/cgroup"))?, read("/proc/self/cgroup".to_owned())?);
    Ok(groups(&theirs, &ours, facts))
}

/// Pure: from two /proc/PID/cgroup (cgroups(7)) and the layout.
fn groups(theirs: &str, ours: &str, facts: &Facts) -> Vec<Group> {
    let different = theirs.lines().filter(|line| !ours.lines().any(|other| other == *line));
    different
        .filter_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let path = path.trim_start_matches('/');
            if controllers.is_empty() {
                let v2 = facts.cgroup.v2.as_ref()?;
                return Some(Group { path: v2.mount.join(path), controllers: Vec::new() });
            }
            let names: Vec<&str> = controllers.split(',').collect();
            let v1 =
                facts.cgroup.v1.iter().find(|v1| v1.controllers.iter().all(|name| names.contains(&name.as_str())))?;
            Some(Group { path: v1.mount.join(path), controllers: v1.controllers.clone() })
        })
        .collect()
}

fn open_folder(path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// What the helper and the new process work with.
struct Joining<'a> {
    process: &'a Process,
    container: OwnedFd,
    groups: &'a [Group],
    /// When the process shall die with it.
    parent: Option<BorrowedFd<'a>>,
    stdio: &'a Stdio,
}

/// The helper: drops what is the host's, and makes the process inside.
fn help(joining: Joining, channel: &Channel) -> Result<Infallible, StartError> {
    init::protect(joining.parent)?;
    let mut keep = vec![channel.as_fd().as_raw_fd(), joining.container.as_raw_fd()];
    keep.extend(joining.parent.map(|fd| fd.as_raw_fd()));
    init::take_streams(joining.stdio, &mut keep)?;
    sys::reset_signals();
    process::on_host(joining.process)?;
    init::enter_v1_groups(joining.groups)?;
    // All at once by the pidfd (Linux 5.8), so that a pid can't be reused in between. The pid namespace takes effect for
    // children only. Namespaces that are the host's anyway don't hurt.
    let all = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWCGROUP;
    sys::setns(joining.container.as_fd(), all as u64).doing(|| "join the container's namespaces; it may have ended")?;
    // From here on there are the streams, the channel and, when asked for, the caller's pidfd.
    drop(joining.container);
    let args = CloneArgs { flags: libc::CLONE_PARENT as u64, cgroup: None };
    match sys::clone3(&args).doing(|| "make the process inside the container")? {
        Clone::Parent { pid, .. } => {
            channel.pid(pid).doing(|| "report the new process")?;
            sys::exit_now(0)
        }
        Clone::Child => Err(join(joining.process, joining.parent, joining.stdio, channel)),
    }
}

/// The new process, from its birth inside to execve.
fn join(process: &Process, parent: Option<BorrowedFd>, stdio: &Stdio, channel: &Channel) -> StartError {
    match prepare(process, parent, stdio, channel) {
        Ok(env) => process::execute(process, &env, channel),
        Err(error) => error,
    }
}

fn prepare(
    process: &Process,
    parent: Option<BorrowedFd>,
    stdio: &Stdio,
    channel: &Channel,
) -> Result<Vec<CString>, StartError> {
    rustix::process::setsid().doing(|| "become a session leader")?;
    rustix::process::umask(Mode::empty());
    // Joining its mount namespace has made the container's / ours.
    let root = Root::new(open_folder(Path::new("/")).doing(|| "open the container's root")?);
    let ready = process::look_up(process, &root, false)?;
    if let Some(size) = stdio.size() {
        let terminal = Terminal::open(&root, size)?;
        init::use_terminal(terminal.slave.as_fd(), ready.uid)?;
        channel.terminal(terminal.master.as_fd()).doing(|| "hand the terminal over")?;
    }
    process::become_user(process, &ready)?;
    die_with(parent)?;
    sys::close_range(3, u32::MAX, true).doing(|| "close descriptors")?;
    Ok(ready.env)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Layout, V1, V2};

    #[test]
    fn only_groups_of_its_own_are_joined() {
        let cgroup = Layout {
            v1: vec![
                V1 { mount: "/sys/fs/cgroup/cpu,cpuacct".into(), controllers: vec!["cpu".into(), "cpuacct".into()] },
                V1 { mount: "/sys/fs/cgroup/pids".into(), controllers: vec!["pids".into()] },
            ],
            v2: Some(V2 { mount: "/sys/fs/cgroup/unified".into(), controllers: Vec::new(), enabled: Vec::new() }),
            ..Layout::default()
        };
        let facts = Facts { cgroup, ..Facts::for_tests() };
        let theirs = "9:name=systemd:/\n3:cpu,cpuacct:/minidock/abc\n2:pids:/\n0::/minidock/abc\n";
        let ours = "9:name=systemd:/\n3:cpu,cpuacct:/\n2:pids:/\n0::/\n";
        let paths: Vec<_> =
            groups(theirs, ours, &facts).into_iter().map(|group| group.path.display().to_string()).collect();
        assert_eq!(paths, ["/sys/fs/cgroup/cpu,cpuacct/minidock/abc", "/sys/fs/cgroup/unified/minidock/abc"]);
    }

    #[test]
    fn the_start_time_is_read() {
        assert!(starttime(std::process::id()).unwrap() > 0);
        assert!(starttime(0).is_err());
    }
}
