//! The engine's operation: the sum of the families'. Its functions are one `match` that forwards.

use anyhow::Result;

use crate::explain::Command;
use crate::files;
use crate::residue::Residue;
use crate::volume;

/// One effect on the host (or, for the init lane, inside the container's namespaces).
#[derive(Debug, Clone)]
pub enum Op {
    /// Folders and small files below the root.
    Files(files::Op),
    /// Control groups, their limits, device rules, the net_cls mount.
    Cgroup(runtime::cgroup::Op),
    /// Volumes.
    Volume(volume::op::Op),
    /// Links, addresses, routes, sysctls, firewall, the namespace's name.
    Net(netsetup::Op),
}

impl Op {
    /// What stays on the host when every process is dead. `init_pid` is known once the container's init has been made.
    pub fn residue(&self, init_pid: Option<u32>) -> Option<Residue> {
        match self {
            Op::Files(op) => op.residue(),
            Op::Volume(_) => None,
            Op::Cgroup(op) => op.residue().map(Residue::Cgroup),
            Op::Net(op) => op.residue(init_pid).map(of_net),
        }
    }

    /// The commands a person would type.
    pub fn explain(&self) -> Vec<Command> {
        match self {
            Op::Files(op) => op.explain(),
            Op::Volume(op) => op.explain(),
            Op::Cgroup(op) => op.explain(),
            Op::Net(op) => op.explain(),
        }
    }
}

/// A file outlives the kernel's things: a reboot, the namespace of its host.
fn of_net(residue: netsetup::Residue) -> Residue {
    match residue {
        netsetup::Residue::Names { folder, id } => Residue::Names { folder, id },
        other => Residue::Net(other),
    }
}

/// Applies operations in order, each run of one family as a slice.
pub fn apply(ops: &[Op], net: &mut netsetup::Live<'_>) -> Result<()> {
    let mut rest = ops;
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|op| std::mem::discriminant(*op) == std::mem::discriminant(first)).count();
        let (run, after) = rest.split_at(same);
        rest = after;
        match first {
            Op::Files(_) => {
                let run: Vec<files::Op> =
                    run.iter().filter_map(|op| if let Op::Files(op) = op { Some(op.clone()) } else { None }).collect();
                files::apply(&run)?;
            }
            Op::Volume(_) => {
                let run: Vec<volume::op::Op> =
                    run.iter().filter_map(|op| if let Op::Volume(op) = op { Some(op.clone()) } else { None }).collect();
                volume::op::apply(&run)?;
            }
            Op::Cgroup(_) => {
                let run: Vec<runtime::cgroup::Op> =
                    run.iter().filter_map(|op| if let Op::Cgroup(op) = op { Some(op.clone()) } else { None }).collect();
                runtime::cgroup::apply(&run)?;
            }
            Op::Net(_) => {
                let run: Vec<netsetup::Op> =
                    run.iter().filter_map(|op| if let Op::Net(op) = op { Some(op.clone()) } else { None }).collect();
                netsetup::apply(&run, net)?;
            }
        }
    }
    Ok(())
}
