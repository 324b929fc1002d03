//! NAT, published ports, protection from outside: the same for two back ends.
//!
//! Which back end serves is decided in the plan: an op belongs to one of them.

pub mod conntrack;
pub(crate) mod docker;
pub mod element;
pub(crate) mod encode;
pub mod iptables;
pub(crate) mod iptables_rules;
pub(crate) mod messages;
pub mod nftables;
pub(crate) mod router_nat;
mod ruleset;
pub(crate) mod table;

use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::undo::Residue;
use crate::{Backend, Command, Network, Result};

/// Operations on the firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// In an own nftables table.
    Nftables(nftables::Op),
    /// Rules of iptables.
    Iptables(iptables::Op),
    /// Flows that the kernel remembers.
    Conntrack(conntrack::Op),
}

impl Op {
    pub(crate) fn residue(&self) -> Option<Residue> {
        match self {
            Op::Nftables(op) => Some(op.residue()),
            Op::Iptables(op) => Some(op.residue()),
            Op::Conntrack(_) => None,
        }
    }

    pub(crate) fn explain(&self) -> Vec<Command> {
        match self {
            Op::Nftables(op) => op.explain(),
            Op::Iptables(op) => op.explain(),
            Op::Conntrack(op) => op.explain(),
        }
    }
}

/// Applies the ops in order, those of one back end as one transaction.
pub(crate) fn apply(ops: &[Op], host: &mut Host) -> Result<()> {
    let back_end = |op: &Op| std::mem::discriminant(op);
    for chunk in ops.chunk_by(|one, next| back_end(one) == back_end(next)) {
        let (mut nftables, mut iptables) = (Vec::new(), Vec::new());
        for op in chunk {
            match op {
                Op::Nftables(op) => nftables.push(op),
                Op::Iptables(op) => iptables.push(op),
                Op::Conntrack(op) => op.apply(host),
            }
        }
        if !nftables.is_empty() {
            nftables::apply(&nftables, host.netfilter()?)?;
        }
        if !iptables.is_empty() {
            iptables::apply(&iptables)?;
        }
    }
    Ok(())
}

/// What the network's back end already holds. With nftables also the rules of iptables, where a dockerd's policy judges
/// what passes and the rules that let the network through are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facts {
    /// The own table, and what dockerd has where it needs rules for our sake.
    Nftables(nftables::Facts, Option<iptables::Facts>),
    /// All rules.
    Iptables(iptables::Facts),
}

impl Facts {
    /// Whether a dockerd is seen here whose rules don't know the network yet.
    pub fn beside_docker(&self) -> bool {
        match self {
            Facts::Nftables(_, docker) => docker.is_some(),
            Facts::Iptables(facts) => facts.beside_docker(),
        }
    }

    pub(crate) fn read(host: &mut Host, network: &Network) -> Result<Facts> {
        Ok(match network.backend {
            Backend::Nftables => {
                let families: Vec<_> = nftables::families(network).collect();
                let (tables, docker) = table::read(host.netfilter()?, network, &families)?;
                let docker = if docker { docker::lacking(host.netfilter()?, network)? } else { None };
                Facts::Nftables(nftables::Facts { tables }, docker)
            }
            Backend::Iptables => {
                Facts::Iptables(iptables::Facts::read(network.ipv4.is_some(), network.ipv6.is_some())?)
            }
        })
    }
}
