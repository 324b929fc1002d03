//! The sum of the families: one `match` that forwards.

use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::netns::NewNetns;
use crate::undo::Residue;
use crate::{Command, Result, dns, firewall, link, netns, parent, router, sysctl, tc};

/// An operation: data only, names chosen in the plan; no fd, no pid, no index of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Links, addresses, routes.
    Link(link::Op),
    /// Cards on a link of the host: macvlan and ipvlan.
    Parent(parent::Op),
    /// Kernel settings.
    Sysctl(sysctl::Op),
    /// NAT, published ports, protection.
    Firewall(firewall::Op),
    /// Names of namespaces.
    Netns(netns::Op),
    /// Shaping.
    Tc(tc::Op),
    /// Names that containers find each other by.
    Dns(dns::Op),
    /// A router in a namespace of its own.
    Router(router::Op),
}

impl Op {
    /// What stays on the host when every process is dead; to be written to the journal before the op is applied. A
    /// namespace's name has none without the container's PID 1.
    pub fn residue(&self, init_pid: Option<u32>) -> Option<Residue> {
        match self {
            Op::Link(op) => op.residue(),
            Op::Parent(op) => op.residue(),
            Op::Sysctl(op) => op.residue(),
            Op::Firewall(op) => op.residue(),
            Op::Netns(op) => op.residue(init_pid),
            Op::Tc(op) => op.residue(),
            Op::Dns(op) => op.residue(),
            Op::Router(op) => op.residue(),
        }
    }

    /// The commands that a person would type, and why. `$pid` is the container's PID 1 as the host sees it.
    pub fn explain(&self) -> Vec<Command> {
        match self {
            Op::Link(op) => op.explain(),
            Op::Parent(op) => op.explain(),
            Op::Sysctl(op) => op.explain(),
            Op::Firewall(op) => op.explain(),
            Op::Netns(op) => op.explain(),
            Op::Tc(op) => op.explain(),
            Op::Dns(op) => op.explain(),
            Op::Router(op) => op.explain(),
        }
    }
}

/// What applying needs beside the plan.
pub struct Live<'a> {
    /// The host's sockets.
    pub host: &'a mut Host,
    /// The container's namespace; needed by link ops on the container's side.
    pub netns: Option<&'a mut NewNetns>,
    /// PID 1 of the container as the host sees it; needed by [`netns::Op::Name`].
    pub init_pid: Option<u32>,
}

/// Applies the ops in their order. Consecutive ops of one family go out in one message batch where the kernel allows it.
/// After an error some ops may have taken effect: undo the residues of all.
pub fn apply(ops: &[Op], live: &mut Live) -> Result<()> {
    let family = |op: &Op| std::mem::discriminant(op);
    for chunk in ops.chunk_by(|one, next| family(one) == family(next)) {
        let (mut links, mut rules) = (Vec::new(), Vec::new());
        for op in chunk {
            match op {
                Op::Link(op) => links.push(op.clone()),
                Op::Firewall(op) => rules.push(op.clone()),
                Op::Parent(op) => op.apply(live)?,
                Op::Sysctl(op) => op.apply()?,
                Op::Netns(op) => op.apply(live.init_pid)?,
                Op::Tc(op) => op.apply(live.host, live.netns.as_deref_mut())?,
                Op::Dns(op) => op.apply(live.netns.as_deref_mut())?,
                Op::Router(op) => op.apply(live)?,
            }
        }
        link::apply(&links, live)?;
        firewall::apply(&rules, live.host)?;
    }
    Ok(())
}
