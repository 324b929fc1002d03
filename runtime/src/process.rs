//! What a container's process becomes: user, capabilities, seccomp rules, limits, working directory, program.
//!
//! Everything that can be prepared is prepared here, in the plan; `process/identity.rs` has the order.

mod identity;
mod program;

use std::ffi::CString;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, PosixRlimitType};

pub(crate) use identity::{become_user, die_with, look_up, on_host};
pub(crate) use program::execute;

use crate::capabilities::{Set, Sets};
use crate::error::Error;
use crate::facts::Facts;
use crate::mounts::beneath::normal;
use crate::plan::Seccomp;
use crate::seccomp::{self, Filter};
use crate::{Command, shell};

/// The one operation of this family: see [`Process`].
pub type Op = Process;

/// What a process becomes before, and with, its execve.
#[derive(Debug, Clone)]
pub struct Process {
    /// The program and its arguments.
    pub args: Vec<CString>,
    /// `NAME=value`.
    pub env: Vec<CString>,
    /// The working directory; made when missing.
    pub cwd: PathBuf,
    /// The streams are a terminal of the container's own.
    pub terminal: bool,
    /// Who it runs as.
    pub user: User,
    /// File mode creation mask.
    pub umask: u32,
    /// Its capabilities.
    pub capabilities: Sets,
    /// The kernel's newest capability: all others are dropped by number.
    pub last_cap: u8,
    /// Resource limits.
    pub limits: Vec<Limit>,
    /// Set-uid programs gain nothing.
    pub no_new_privileges: bool,
    /// System call rules.
    pub seccomp: Option<Filter>,
    /// The rules are the user's own, and may forbid anything.
    pub own_rules: bool,
    /// How gladly the kernel kills it when memory runs out: -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// AppArmor profile.
    pub apparmor: Option<CString>,
    /// PID 1 stays ours and the program is its child (`--init`).
    pub reaper: bool,
}

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// Numbers that are known before the root file system is.
    Ids {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary group ids.
        groups: Vec<u32>,
    },
    /// Looked up in the container's own files once they're mounted.
    Named {
        /// `name|uid[:group|gid]`, as docker's `-u`.
        name: String,
        /// `--group-add`.
        group_add: Vec<String>,
    },
}

/// One resource limit; setrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// `RLIMIT_NOFILE` …
    pub resource: u32,
    /// `nofile`
    pub name: &'static str,
    /// What counts; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Up to where the process may raise it.
    pub hard: u64,
}

/// The parts of a bundle that a process is planned from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub linux: Option<&'a Linux>,
    pub seccomp: Seccomp,
    pub user: Option<&'a str>,
    pub group_add: &'a [String],
    pub init: bool,
}

/// Decides everything about a process.
pub(crate) fn plan(process: &oci_spec::runtime::Process, request: &Request, facts: &Facts) -> Result<Process, Error> {
    let args = strings(process.args().iter().flatten(), "argument")?;
    if args.first().is_none_or(|program| program.is_empty()) {
        return Err(Error::refused("no command specified: the image has none, so name one behind the image"));
    }
    let env = strings(process.env().iter().flatten(), "environment variable")?;
    if !process.cwd().is_absolute() {
        return Err(Error::refused(format!(
            "the working directory {} is not an absolute path",
            process.cwd().display()
        )));
    }
    let capabilities = match process.capabilities() {
        None => Sets::default(),
        Some(sets) => {
            let set = |names: &Option<oci_spec::runtime::Capabilities>| {
                // A kernel older than a capability doesn't have it; nobody can have it there (runc leaves it out, too).
                Set(names.as_ref().map_or(0, |names| Set::from_oci(names).0) & Set::all(facts.last_cap).0)
            };
            Sets {
                bounding: set(sets.bounding()),
                effective: set(sets.effective()),
                permitted: set(sets.permitted()),
                inheritable: set(sets.inheritable()),
                ambient: set(sets.ambient()),
            }
        }
    };
    let missing =
        Set((capabilities.bounding.0 | capabilities.permitted.0 | capabilities.effective.0) & !facts.capabilities.0);
    if let Some(name) = missing.names().next() {
        return Err(Error::refused(format!(
            "cannot give the container {name}: minidock itself doesn't have it here; leave it out"
        )));
    }
    let limits = process.rlimits().iter().flatten().map(|limit| {
        let (resource, name) = resource(limit.typ());
        check_limit(Limit { resource, name, soft: limit.soft(), hard: limit.hard() }, facts)
    });
    let apparmor =
        process.apparmor_profile().as_deref().filter(|profile| !profile.is_empty() && *profile != "unconfined");
    if let Some(profile) = apparmor
        && !facts.apparmor
    {
        return Err(Error::refused(format!(
            "the AppArmor profile {profile} was asked for, and AppArmor is not enabled on this host"
        )));
    }
    Ok(Process {
        limits: limits.collect::<Result<_, _>>()?,
        seccomp: rules(request, capabilities)?,
        own_rules: matches!(request.seccomp, Seccomp::FromSpec),
        args,
        env,
        cwd: normal(process.cwd()),
        terminal: process.terminal().unwrap_or(false),
        user: user(process, request),
        umask: process.user().umask().unwrap_or(0o022) & 0o777,
        capabilities,
        last_cap: facts.last_cap,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: process.oom_score_adj().map(check_oom_score).transpose()?,
        apparmor: strings(apparmor.map(str::to_owned).iter(), "AppArmor profile")?.pop(),
        reaper: request.init,
    })
}

fn user(process: &oci_spec::runtime::Process, request: &Request) -> User {
    let user = process.user();
    let groups = user.additional_gids().clone().unwrap_or_default();
    match request.user {
        Some(name) => User::Named { name: name.to_owned(), group_add: request.group_add.to_vec() },
        None if !request.group_add.is_empty() => User::Named {
            name: format!("{}:{}", user.uid(), user.gid()),
            group_add: request.group_add.iter().cloned().chain(groups.iter().map(u32::to_string)).collect(),
        },
        None => User::Ids { uid: user.uid(), gid: user.gid(), groups },
    }
}

fn rules(request: &Request, capabilities: Sets) -> Result<Option<Filter>, Error> {
    match request.seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default => Ok(Some(Filter { program: seccomp::default_filter(capabilities.bounding), flags: 0 })),
        Seccomp::FromSpec => {
            let profile = request.linux.and_then(|linux| linux.seccomp().as_ref());
            profile.map(seccomp::compile).transpose().map_err(|error| Error::refused(error.to_string()))
        }
    }
}

fn strings<'a>(texts: impl Iterator<Item = &'a String>, what: &str) -> Result<Vec<CString>, Error> {
    texts
        .map(|text| {
            CString::new(text.as_bytes()).map_err(|_| Error::refused(format!("the {what} {text:?} holds a zero byte")))
        })
        .collect()
}

fn check_oom_score(score: i32) -> Result<i32, Error> {
    if (-1000..=1000).contains(&score) {
        return Ok(score);
    }
    Err(Error::refused(format!("the OOM score adjustment {score} is not between -1000 and 1000")))
}

fn check_limit(limit: Limit, facts: &Facts) -> Result<Limit, Error> {
    let number = |value: u64| {
        if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() }
    };
    if limit.soft > limit.hard {
        return Err(Error::refused(format!(
            "ulimit {}: the soft limit {} is above the hard limit {}",
            limit.name,
            number(limit.soft),
            number(limit.hard)
        )));
    }
    let ours = facts.hard_limits.get(limit.resource as usize).copied().unwrap_or(u64::MAX);
    if limit.hard > ours && !facts.can_raise_limits {
        return Err(Error::refused(format!(
            "cannot raise the limit {} to {}: the hard limit here is {} and we lack CAP_SYS_RESOURCE; ask for at most {}",
            limit.name,
            number(limit.hard),
            number(ours),
            number(ours)
        )));
    }
    Ok(limit)
}

fn resource(kind: PosixRlimitType) -> (u32, &'static str) {
    match kind {
        PosixRlimitType::RlimitCpu => (libc::RLIMIT_CPU, "cpu"),
        PosixRlimitType::RlimitFsize => (libc::RLIMIT_FSIZE, "fsize"),
        PosixRlimitType::RlimitData => (libc::RLIMIT_DATA, "data"),
        PosixRlimitType::RlimitStack => (libc::RLIMIT_STACK, "stack"),
        PosixRlimitType::RlimitCore => (libc::RLIMIT_CORE, "core"),
        PosixRlimitType::RlimitRss => (libc::RLIMIT_RSS, "rss"),
        PosixRlimitType::RlimitNproc => (libc::RLIMIT_NPROC, "nproc"),
        PosixRlimitType::RlimitNofile => (libc::RLIMIT_NOFILE, "nofile"),
        PosixRlimitType::RlimitMemlock => (libc::RLIMIT_MEMLOCK, "memlock"),
        PosixRlimitType::RlimitAs => (libc::RLIMIT_AS, "as"),
        PosixRlimitType::RlimitLocks => (libc::RLIMIT_LOCKS, "locks"),
        PosixRlimitType::RlimitSigpending => (libc::RLIMIT_SIGPENDING, "sigpending"),
        PosixRlimitType::RlimitMsgqueue => (libc::RLIMIT_MSGQUEUE, "msgqueue"),
        PosixRlimitType::RlimitNice => (libc::RLIMIT_NICE, "nice"),
        PosixRlimitType::RlimitRtprio => (libc::RLIMIT_RTPRIO, "rtprio"),
        PosixRlimitType::RlimitRttime => (libc::RLIMIT_RTTIME, "rttime"),
    }
}

/// From here on `ps` shows these words for this process, as far as they fit in the place of its former ones, which may be a
/// user's secrets. Nobody may use the program's arguments afterwards.
pub fn show_as(words: &str) {
    if let Ok(words) = CString::new(words) {
        crate::sys::show_as(&[words], None);
    }
}

impl Process {
    /// Whether HOME is among the variables.
    pub(crate) fn has_home(&self) -> bool {
        self.env.iter().any(|variable| variable.to_bytes().starts_with(b"HOME="))
    }

    /// As a shell command, and what no command does as comments.
    pub fn explain(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut note = |text: String| commands.push((format!("# {text}"), String::new()));
        let list = |set: Set| {
            set.names().map(|name| name.trim_start_matches("CAP_").to_ascii_lowercase()).collect::<Vec<_>>().join(",")
        };
        note(format!(
            "capabilities (capset): bounding, permitted, effective = {}; inheritable = {{{}}}",
            list(self.capabilities.bounding),
            list(self.capabilities.inheritable)
        ));
        if let Some(filter) = &self.seccomp {
            note(format!("system call rules (seccomp): {} BPF instructions", filter.program.len()));
        }
        if self.no_new_privileges {
            note("set-uid programs gain nothing: prctl(PR_SET_NO_NEW_PRIVS, 1)".to_owned());
        }
        if let Some(profile) = &self.apparmor {
            note(format!("AppArmor profile {}", profile.to_string_lossy()));
        }
        if self.reaper {
            note("--init: PID 1 stays a small process of minidock that reaps and passes signals on; the program is its child".to_owned());
        }
        if let User::Named { name, .. } = &self.user {
            note(format!("user {name}, looked up in the container's /etc/passwd and /etc/group"));
        }
        for limit in &self.limits {
            let number = |value: u64| {
                if value == u64::MAX { "unlimited".to_owned() } else { value.to_string() }
            };
            let command = format!("prlimit --pid $pid --{}={}:{}", limit.name, number(limit.soft), number(limit.hard));
            commands.push((command, "resource limit; children inherit it".to_owned()));
        }
        if let Some(score) = self.oom_score_adj {
            commands.push((
                format!("echo {score} > /proc/$pid/oom_score_adj"),
                "how gladly the kernel kills it".to_owned(),
            ));
        }
        commands.push((self.enter(), "the program, with nothing but its own environment".to_owned()));
        commands
    }

    /// The environment is emptied before nsenter, so that the image needs no `env`; nsenter itself is named by path,
    /// because the container's PATH is already in force when it is looked up.
    fn enter(&self) -> String {
        let words = |list: &[CString]| list.iter().map(|text| shell::word(bytes(text))).collect::<Vec<_>>().join(" ");
        let ids = match &self.user {
            User::Ids { uid, gid, .. } if (*uid, *gid) != (0, 0) => format!(" -S {uid} -G {gid}"),
            User::Ids { .. } | User::Named { .. } => String::new(),
        };
        let cwd =
            if self.cwd == Path::new("/") { String::new() } else { format!(" --wdns={}", shell::word(&self.cwd)) };
        format!("env -i {} \"$(command -v nsenter)\" -t $pid -a{ids}{cwd} -- {}", words(&self.env), words(&self.args))
    }
}

fn bytes(text: &CString) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(text.as_bytes())
}
