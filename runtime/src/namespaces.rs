//! The container's namespaces: which are new, which are somebody else's, which are the host's.
//!
//! Nothing of them stays on the host: a namespace lives as long as a process is in it.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::cgroup::{self, Group};
use crate::error::Error;
use crate::{Command, shell};

/// Where one kind of namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// The container's own.
    New,
    /// The caller's.
    Host,
    /// Another container's or a named one: `/proc/PID/ns/net`, `/run/netns/NAME`.
    Join(PathBuf),
}

/// The one operation of this family: a process in its namespaces and cgroups. The mount namespace is always new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Process ids.
    pub pid: Namespace,
    /// Network devices, addresses, ports.
    pub net: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// System V and POSIX message queues, semaphores, shared memory.
    pub ipc: Namespace,
    /// What the process sees as `/` of each cgroup hierarchy.
    pub cgroup: Namespace,
    /// The groups that the process enters before it makes its cgroup namespace.
    pub cgroups: Vec<Group>,
    /// For a new uts namespace.
    pub hostname: Option<String>,
    /// For a new uts namespace: the NIS domain.
    pub domainname: Option<String>,
}

/// Reads the namespaces off a configuration.
pub(crate) fn plan(spec: &Spec, cgroups: Vec<Group>) -> Result<Op, Error> {
    let mut op = Op {
        pid: Namespace::Host,
        net: Namespace::Host,
        uts: Namespace::Host,
        ipc: Namespace::Host,
        cgroup: Namespace::Host,
        cgroups,
        hostname: spec.hostname().clone(),
        domainname: spec.domainname().clone(),
    };
    let mut mount = Namespace::Host;
    for namespace in spec.linux().iter().filter_map(|linux| linux.namespaces().as_ref()).flatten() {
        let place = match namespace.typ() {
            LinuxNamespaceType::Pid => &mut op.pid,
            LinuxNamespaceType::Network => &mut op.net,
            LinuxNamespaceType::Uts => &mut op.uts,
            LinuxNamespaceType::Ipc => &mut op.ipc,
            LinuxNamespaceType::Cgroup => &mut op.cgroup,
            LinuxNamespaceType::Mount => &mut mount,
            kind @ (LinuxNamespaceType::User | LinuxNamespaceType::Time) => {
                return Err(Error::refused(format!(
                    "a {kind} namespace is not supported yet; leave it out of linux.namespaces"
                )));
            }
        };
        if *place != Namespace::Host {
            return Err(Error::refused(format!("linux.namespaces names the {} namespace twice", namespace.typ())));
        }
        *place = match namespace.path() {
            None => Namespace::New,
            Some(path) if path.is_absolute() => Namespace::Join(path.clone()),
            Some(path) => {
                return Err(Error::refused(format!("the namespace path {} is not absolute", path.display())));
            }
        };
    }
    if mount != Namespace::New {
        return Err(Error::refused(
            "the container needs a mount namespace of its own (linux.namespaces without mount, or with a path)",
        ));
    }
    for (what, name) in [("host name", &op.hostname), ("domain name", &op.domainname)] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else {
            continue;
        };
        if op.uts == Namespace::Host {
            return Err(Error::refused(format!(
                "cannot set the {what} {name}: the container shares the host's uts namespace"
            )));
        }
        if name.len() > 64 || name.contains(['\0', '\n']) {
            return Err(Error::refused(format!(
                "the {what} {name:?} is longer than 64 bytes or has a control character"
            )));
        }
    }
    Ok(op)
}

/// Its `CLONE_NEW*` bit, its name, its place in [`Op`].
type Kind = (u64, &'static str, fn(&Op) -> &Namespace);

/// What each kind is called by clone(2), unshare(1) and /proc/PID/ns.
pub(crate) const KINDS: [Kind; 5] = [
    (libc::CLONE_NEWPID as u64, "pid", |op| &op.pid),
    (libc::CLONE_NEWNET as u64, "net", |op| &op.net),
    (libc::CLONE_NEWUTS as u64, "uts", |op| &op.uts),
    (libc::CLONE_NEWIPC as u64, "ipc", |op| &op.ipc),
    (libc::CLONE_NEWCGROUP as u64, "cgroup", |op| &op.cgroup),
];

impl Op {
    /// The flags of clone3: all that is new but net and cgroup.
    ///
    /// The network namespace is made by the caller while init mounts (0.8-3 ms), the cgroup namespace by init once it is
    /// in its groups, because the groups at that moment become the namespace's `/`.
    pub(crate) fn clone_flags(&self) -> u64 {
        let later = (libc::CLONE_NEWNET | libc::CLONE_NEWCGROUP) as u64;
        let new = KINDS.iter().filter(|(_, _, of)| *of(self) == Namespace::New);
        new.fold(libc::CLONE_NEWNS as u64, |flags, (flag, ..)| flags | flag) & !later
    }

    /// The namespaces of others: kind, name, path.
    pub(crate) fn joined(&self) -> impl Iterator<Item = (u64, &'static str, &PathBuf)> {
        KINDS.iter().filter_map(|(flag, name, of)| match of(self) {
            Namespace::Join(path) => Some((*flag, *name, path)),
            Namespace::New | Namespace::Host => None,
        })
    }

    /// As shell commands: a process that does nothing holds the namespaces, `$pid` is its pid on the host.
    pub fn explain(&self) -> Vec<Command> {
        let is_new = |namespace: &Namespace| *namespace == Namespace::New;
        let mut holder = String::new();
        let joins: Vec<_> = self.joined().map(|(_, name, path)| format!(" --{name}={}", shell::word(path))).collect();
        if !joins.is_empty() {
            holder += &format!("nsenter{} ", joins.concat());
        }
        holder += "unshare --mount --propagation unchanged";
        for (flag, name) in [(&self.uts, "uts"), (&self.ipc, "ipc"), (&self.net, "net")] {
            if is_new(flag) {
                holder += &format!(" --{name}");
            }
        }
        if is_new(&self.pid) {
            holder += " --pid --fork --kill-child";
        }
        let waits = is_new(&self.cgroup);
        // PID 1 gets no signal that it has no handler for: a plain sleep there could be killed by force only.
        let sleeper =
            if is_new(&self.pid) { r#"sh -c "trap exit TERM; sleep infinity & wait""# } else { "sleep infinity" };
        if waits {
            // Signals to an init without a handler are lost, so the sender below repeats it until it has worked.
            let sleeper = sleeper.replace('"', "\\\"");
            holder += &format!(
                " sh -c 'trap exit TERM; trap \"exec unshare --cgroup {sleeper}\" USR1; while :; do sleep 0.05; done'"
            );
        } else {
            holder += &format!(" {sleeper}");
        }
        // It outlives the script, and must not hold what the script writes to.
        holder += " </dev/null >/dev/null 2>&1 &";
        let find_pid = match self.pid {
            Namespace::Host => "pid=$!",
            // Both unshare --fork and nsenter --pid stay behind as the parent.
            Namespace::New | Namespace::Join(_) => "until pid=$(pgrep -P $!); do kill -0 $!; sleep 0.05; done",
        };
        let mut commands = vec![
            (holder, "a process that holds the container's namespaces (clone3 with CLONE_NEW… in minidock)".to_owned()),
            (find_pid.to_owned(), "its pid on the host".to_owned()),
        ];
        commands.extend(cgroup::explain_attach(&self.attach()));
        if waits {
            commands.push((
                "until [ \"$(readlink /proc/$pid/ns/cgroup)\" != \"$(readlink /proc/self/ns/cgroup)\" ]; do kill -USR1 $pid; sleep 0.05; done"
                    .to_owned(),
                "now that it is in its groups, they become / of its cgroup namespace".to_owned(),
            ));
        }
        if is_new(&self.net) {
            commands.push((
                "nsenter -t $pid -n -- ip link set lo up".to_owned(),
                "loopback is down in a new network namespace".to_owned(),
            ));
        }
        if let Some(name) = self.hostname.as_deref().filter(|name| !name.is_empty()) {
            commands
                .push((format!("nsenter -t $pid -u -- hostname {}", shell::word(name)), "host name inside".to_owned()));
        }
        if let Some(name) = self.domainname.as_deref().filter(|name| !name.is_empty()) {
            let inner = format!("echo {} > /proc/sys/kernel/domainname", shell::word(name));
            commands.push((
                format!("nsenter -t $pid -u -- sh -c {}", shell::word(inner)),
                "NIS domain name inside".to_owned(),
            ));
        }
        commands
    }

    fn attach(&self) -> cgroup::Attach {
        let v1 = self.cgroups.iter().filter(|group| !group.controllers.is_empty());
        cgroup::Attach {
            v2: self.cgroups.iter().find(|group| group.controllers.is_empty()).map(|group| group.path.clone()),
            v1: v1.map(|group| group.path.join("cgroup.procs")).collect(),
        }
    }
}
