//! Turns a process of ours into the container's: the steps between the mounts and execve, in the one order that works.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::Signal;

use super::{Limit, Process, User};
use crate::error::{Doing, StartError};
use crate::mounts::beneath::{Root, is_procfs};
use crate::{capabilities, seccomp, sys, users};

/// What had to be looked up in the container's root file system.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Who.
    pub uid: u32,
    gid: u32,
    groups: Vec<u32>,
    cwd: OwnedFd,
    /// With HOME, which docker always sets.
    pub env: Vec<CString>,
}

/// The steps that need the host's /proc: before pivot_root, or before another's mount namespace is joined.
pub(crate) fn on_host(process: &Process) -> Result<(), StartError> {
    if let Some(score) = process.oom_score_adj {
        write_own("oom_score_adj", &score.to_string()).map_err(|error| match error {
            Errno::ACCESS | Errno::PERM => StartError::new(format!(
                "cannot set the OOM score adjustment {score}: lowering it below our own needs CAP_SYS_RESOURCE"
            )),
            error => StartError::new(format!("cannot set the OOM score adjustment {score}: {error}")),
        })?;
    }
    if let Some(profile) = &process.apparmor {
        let profile = profile.to_string_lossy();
        // In force from the next execve on.
        let stacked = write_own("attr/apparmor/exec", &format!("exec {profile}"));
        stacked
            .or_else(|_| write_own("attr/exec", &format!("exec {profile}")))
            .doing(|| format!("use the AppArmor profile {profile}"))?;
    }
    Ok(())
}

/// Writes a file of this process in the host's /proc, and of nothing that pretends to be it (CVE-2019-16884).
fn write_own(name: &str, value: &str) -> Result<(), Errno> {
    let file = rustix::fs::open(format!("/proc/self/{name}"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    if !is_procfs(file.as_fd()) {
        return Err(Errno::XDEV);
    }
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

/// Looks up the user and the working directory, inside `root`. A container's own working directory is made when it's
/// missing; that of a later process must be there, as runc has it.
pub(crate) fn look_up(process: &Process, root: &Root, make_cwd: bool) -> Result<Ready, StartError> {
    let mut env = process.env.clone();
    let (uid, gid, groups) = match &process.user {
        User::Ids { uid, gid, groups } if process.has_home() => (*uid, *gid, groups.clone()),
        User::Ids { uid, gid, groups } => {
            // A broken passwd is an error only for those who need it.
            let files = users::UserFiles::from_root(root.fd()).unwrap_or_default();
            let found = users::resolve(&files, &format!("{uid}:{gid}"), &[]);
            add_home(&mut env, found.map_or_else(|_| "/".into(), |user| user.home));
            (*uid, *gid, groups.clone())
        }
        User::Named { name, group_add } => {
            let files = users::UserFiles::from_root(root.fd()).map_err(|error| StartError::new(error.to_string()))?;
            let mut user =
                users::resolve(&files, name, group_add).map_err(|error| StartError::new(error.to_string()))?;
            // Left out, a program that changes its gid would shed a group that files deny things to (CVE-2022-36109).
            if !user.groups.contains(&user.gid) {
                user.groups.insert(0, user.gid);
            }
            if !process.has_home() {
                add_home(&mut env, user.home);
            }
            (user.uid, user.gid, user.groups)
        }
    };
    let cwd = match make_cwd {
        true => root.folder(&process.cwd),
        false => root.open(&process.cwd, OFlags::PATH | OFlags::DIRECTORY),
    };
    let cwd = cwd.map_err(|error| {
        let why = match error {
            Errno::NOTDIR => "it is not a folder".to_owned(),
            Errno::LOOP => "it leads through a magic or endless link (security)".to_owned(),
            error => crate::error::text(&error.into()),
        };
        StartError::new(format!("cannot use the working directory {}: {why}", process.cwd.display()))
    })?;
    Ok(Ready { uid, gid, groups, cwd, env })
}

fn add_home(env: &mut Vec<CString>, home: std::path::PathBuf) {
    let mut variable = b"HOME=".to_vec();
    variable.extend_from_slice(home.as_os_str().as_bytes());
    env.extend(CString::new(variable).ok());
}

/// Gives up everything that the container's process shall not have. After it, only execve is left.
pub(crate) fn become_user(process: &Process, ready: &Ready) -> Result<(), StartError> {
    rustix::process::umask(Mode::from(process.umask));
    own_streams(ready.uid);
    let entered = rustix::process::fchdir(&ready.cwd);
    for limit in &process.limits {
        // A limit below what this process needs itself comes last; what raises it needs rights that are about to go.
        match is_late(limit) {
            true if limit.hard >= NEEDED => set_limit(&Limit { soft: NEEDED, ..limit.clone() })?,
            true => {}
            false => set_limit(limit)?,
        }
    }
    // The bounding set needs CAP_SETPCAP, which is about to go.
    capabilities::drop_bounding(process.capabilities.bounding, process.last_cap).doing(|| "drop capabilities")?;
    let groups: Vec<Gid> = ready.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups).doing(|| "set the supplementary groups")?;
    let (uid, gid) = (Uid::from_raw(ready.uid), Gid::from_raw(ready.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).doing(|| format!("become the group {}", ready.gid))?;
    // Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before that goes; with it, as late as can be.
    if !process.no_new_privileges {
        install_rules(process)?;
    }
    if ready.uid != 0 {
        capabilities::keep_over_setuid().doing(|| "keep capabilities")?;
    }
    rustix::thread::set_thread_res_uid(uid, uid, uid).doing(|| format!("become the user {}", ready.uid))?;
    let mut sets = process.capabilities;
    if ready.uid != 0 {
        // What execve would leave: else the program of another user is found with root's right to read everything.
        (sets.effective, sets.permitted) = (sets.ambient, sets.ambient);
    }
    capabilities::set(sets.effective, sets.permitted, sets.inheritable).doing(|| "set capabilities")?;
    capabilities::set_ambient(sets.ambient).doing(|| "set ambient capabilities")?;
    // Where root may not go (NFS, a user's own folder), the user may.
    if entered.is_err() {
        rustix::process::fchdir(&ready.cwd)
            .doing(|| format!("go to the working directory {}", process.cwd.display()))?;
    }
    check_inside(process)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).doing(|| "set no_new_privs")?;
        install_rules(process)?;
    }
    Ok(())
}

/// So many descriptors this process may need on its way to the program.
const NEEDED: u64 = 64;

fn is_late(limit: &Limit) -> bool {
    limit.resource == libc::RLIMIT_NOFILE && limit.soft < NEEDED
}

/// A limit on open files that is too low for this process itself, right before the program has it.
pub(super) fn limit_descriptors(process: &Process) -> Result<(), StartError> {
    process.limits.iter().filter(|limit| is_late(limit)).try_for_each(set_limit)
}

fn set_limit(limit: &Limit) -> Result<(), StartError> {
    sys::set_limit(limit.resource, limit.soft, limit.hard)
        .doing(|| format!("set the limit {} to {}:{}", limit.name, limit.soft, limit.hard))
}

/// The kernel says "(unreachable)" for a folder outside the root: a descriptor of the host that leaked (CVE-2024-21626).
fn check_inside(process: &Process) -> Result<(), StartError> {
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        _ => Err(StartError::new(format!(
            "the working directory {} is outside of the container's root (security)",
            process.cwd.display()
        ))),
    }
}

fn install_rules(process: &Process) -> Result<(), StartError> {
    match &process.seccomp {
        Some(filter) => seccomp::install(&filter.program, filter.flags).doing(|| "install the seccomp rules"),
        None => Ok(()),
    }
}

/// Lets another user than root reopen its streams (`echo x > /dev/stderr`). Pipes and our own terminal only: a file or
/// a terminal of the host keeps its owner.
fn own_streams(uid: u32) {
    if uid == 0 {
        return;
    }
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(fd) else {
            continue;
        };
        let ours = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo || is_terminal_slave(fd, stat.st_rdev);
        if ours {
            // The group of a terminal stays tty. A pipe end on a read-only file system and the like is no reason to fail.
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None);
        }
    }
}

/// A pty of the container's own devpts: only then is it ours. Without -t no pty gets here but one of the host.
fn is_terminal_slave(fd: BorrowedFd, device: u64) -> bool {
    let own = rustix::fs::stat("/dev/console");
    (136..144).contains(&rustix::fs::major(device))
        && own
            .is_ok_and(|own| own.st_rdev == device && rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_dev == own.st_dev))
}

/// Dies when the caller dies; with None, lives on. The kernel forgets it whenever credentials change, so it is said early
/// and again right before execve.
pub(crate) fn die_with(parent: Option<BorrowedFd>) -> Result<(), StartError> {
    let Some(parent) = parent else { return Ok(()) };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).doing(|| "set the parent-death signal")?;
    // The parent may have died before: then its pidfd is readable, and no signal will come.
    let mut poll = [rustix::event::PollFd::from_borrowed_fd(parent, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut poll, Some(&now)) {
        Ok(0) => Ok(()),
        _ => Err(StartError::new("the process that started this container is gone")),
    }
}
