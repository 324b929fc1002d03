//! From an OCI configuration and this host's facts to everything that will happen. Pure: no file, no clock, no environment.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, Spec};

use crate::cgroup;
use crate::error::Error;
use crate::facts::Facts;
use crate::process::{self, Process};
use crate::{Command, mounts, namespaces};

/// What a container is made from: an OCI bundle, and what the OCI configuration has no word for.
#[derive(Debug, Clone)]
pub struct Bundle<'a> {
    /// The OCI configuration (`config.json`).
    pub spec: &'a Spec,
    /// The container's id; the name of its cgroups.
    pub id: &'a str,
    /// The root file system.
    pub rootfs: Rootfs,
    /// Mounts behind those of `spec`.
    pub mounts_extra: &'a [Mount],
    /// Where the seccomp rules come from.
    pub seccomp: Seccomp,
    /// `docker run -u`: a name or number, looked up in the container's own /etc/passwd. None: the numbers of `spec`.
    pub user: Option<&'a str>,
    /// `--group-add`: names or numbers.
    pub group_add: &'a [String],
    /// `--net-cls`: the class id, `0xMAJORMINOR`.
    pub net_cls: Option<u32>,
    /// What else sees to that class.
    pub class_way: cgroup::ClassWay,
    /// Where net_cls is mounted when this host has it nowhere.
    pub net_cls_mount: &'a Path,
    /// The cgroup above the container's own: [`cgroup::PARENT`].
    pub cgroup_parent: &'a str,
    /// `--init`: PID 1 only reaps and passes signals on.
    pub init: bool,
}

/// A root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rootfs {
    /// Read-only layers below a writable one, mounted in the container's own mount namespace only.
    Overlay {
        /// Folders, lowest first.
        lower: Vec<PathBuf>,
        /// Takes the changes.
        upper: PathBuf,
        /// The overlay's own; empty, beside `upper`.
        work: PathBuf,
        /// An empty folder to mount it on.
        merged: PathBuf,
        /// Never sync: for `--rm`.
        volatile: bool,
    },
    /// A folder, used as it is: changes stay in it.
    Dir(PathBuf),
}

/// Where seccomp rules come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seccomp {
    /// Docker's default rules.
    Default,
    /// None.
    Unconfined,
    /// `linux.seccomp` of the configuration; none when it has none.
    FromSpec,
}

/// Everything that will happen, decided.
#[derive(Debug, Clone)]
pub struct Plan {
    /// On the host, before there is a process. Has residues.
    pub cgroup: Vec<cgroup::Op>,
    /// The process and its namespaces.
    pub namespaces: namespaces::Op,
    /// In the container's mount namespace, in order; the last one is pivot_root.
    pub mounts: Vec<mounts::Op>,
    /// How many of `mounts` show nothing of the network; whoever types them makes the network after these.
    pub mounts_before_go: usize,
    /// What PID 1 becomes.
    pub process: Process,
}

/// One operation of any family, for whoever prints or journals them all.
#[derive(Debug, Clone)]
pub enum Op {
    /// Groups and limits.
    Cgroup(cgroup::Op),
    /// The process.
    Namespaces(namespaces::Op),
    /// A mount.
    Mount(mounts::Op),
    /// What the process becomes.
    Process(process::Op),
}

impl Op {
    /// What stays on the host when every process of the container is dead: only cgroups do.
    pub fn residue(&self) -> Option<cgroup::Residue> {
        match self {
            Op::Cgroup(op) => op.residue(),
            Op::Namespaces(_) | Op::Mount(_) | Op::Process(_) => None,
        }
    }

    /// The same as shell commands, each with a reason. `$pid` is PID 1's pid on the host, `$root` the mounted root.
    pub fn explain(&self) -> Vec<Command> {
        match self {
            Op::Cgroup(op) => op.explain(),
            Op::Namespaces(op) => op.explain(),
            Op::Mount(op) => op.explain(),
            Op::Process(op) => op.explain(),
        }
    }
}

impl Plan {
    /// What happens before the network's operations: groups, the process, its first mounts.
    pub fn ops_before_go(&self) -> Vec<Op> {
        let cgroup = self.cgroup.iter().cloned().map(Op::Cgroup);
        let mounts = self.mounts.iter().take(self.mounts_before_go).cloned().map(Op::Mount);
        cgroup.chain([Op::Namespaces(self.namespaces.clone())]).chain(mounts).collect()
    }

    /// What happens after them: the mounts that show the network, pivot_root, the program.
    pub fn ops_after_go(&self) -> Vec<Op> {
        let mounts = self.mounts.iter().skip(self.mounts_before_go).cloned().map(Op::Mount);
        mounts.chain([Op::Process(self.process.clone())]).collect()
    }
}

/// Decides everything about a container.
///
/// # Errors
/// A bundle that can't work here, as a whole: nothing is left out to make the rest fit.
pub fn plan(bundle: &Bundle, facts: &Facts) -> Result<Plan, Error> {
    refuse_unknown(bundle.spec)?;
    let cgroup = cgroup::plan(
        &cgroup::Request {
            id: bundle.id,
            parent: bundle.cgroup_parent,
            resources: bundle.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()),
            net_cls: bundle.net_cls,
            class_way: bundle.class_way,
            net_cls_mount: bundle.net_cls_mount,
        },
        &facts.cgroup,
    )?;
    let namespaces = namespaces::plan(bundle.spec, cgroup::groups(&cgroup))?;
    let table = mounts::plan(bundle, &namespaces, facts)?;
    let request = process::Request {
        linux: bundle.spec.linux().as_ref(),
        seccomp: bundle.seccomp,
        user: bundle.user,
        group_add: bundle.group_add,
        init: bundle.init,
    };
    let Some(process) = bundle.spec.process() else {
        return Err(Error::refused("the configuration has no process to run"));
    };
    let process = process::plan(process, &request, facts)?;
    if bundle.init && namespaces.pid != namespaces::Namespace::New {
        return Err(Error::refused("--init needs a pid namespace of the container's own: leave --pid or --init out"));
    }
    let mounts_before_go = table.early.len();
    let mounts = table.early.into_iter().chain(table.late).collect();
    Ok(Plan { cgroup, namespaces, mounts, mounts_before_go, process })
}

/// What the configuration may ask for and this runtime doesn't do is refused, never left out.
fn refuse_unknown(spec: &Spec) -> Result<(), Error> {
    let linux = spec.linux().as_ref();
    let process = spec.process().as_ref();
    let is_true = |condition: bool, what: &str| {
        if condition {
            Err(Error::refused(format!("{what} is not supported yet; leave it out of the configuration")))
        } else {
            Ok(())
        }
    };
    is_true(spec.hooks().is_some(), "hooks")?;
    is_true(
        spec.solaris().is_some() || spec.windows().is_some() || spec.vm().is_some() || spec.zos().is_some(),
        "another platform's section",
    )?;
    is_true(
        linux.is_some_and(|linux| linux.uid_mappings().is_some() || linux.gid_mappings().is_some()),
        "linux.uidMappings",
    )?;
    is_true(linux.is_some_and(|linux| linux.intel_rdt().is_some()), "linux.intelRdt")?;
    is_true(linux.is_some_and(|linux| linux.personality().is_some()), "linux.personality")?;
    is_true(linux.is_some_and(|linux| linux.memory_policy().is_some()), "linux.memoryPolicy")?;
    is_true(linux.is_some_and(|linux| linux.time_offsets().is_some()), "linux.timeOffsets")?;
    is_true(linux.is_some_and(|linux| linux.net_devices().is_some()), "linux.netDevices")?;
    is_true(
        linux.and_then(|linux| linux.mount_label().as_deref()).is_some_and(|label| !label.is_empty()),
        "linux.mountLabel (SELinux)",
    )?;
    is_true(
        process.and_then(|process| process.selinux_label().as_deref()).is_some_and(|label| !label.is_empty()),
        "process.selinuxLabel",
    )?;
    is_true(process.is_some_and(|process| process.io_priority().is_some()), "process.ioPriority")?;
    is_true(process.is_some_and(|process| process.scheduler().is_some()), "process.scheduler")?;
    is_true(process.is_some_and(|process| process.exec_cpu_affinity().is_some()), "process.execCPUAffinity")
}
