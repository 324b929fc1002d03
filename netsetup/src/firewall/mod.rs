//! NAT, published ports, protection from outside: the same for two back ends.
//!
//! Which back end serves is decided in the plan: an op belongs to one of them.

pub(crate) mod compact;
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
use crate::{Backend, Command, Error, Network, Result};

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
        let (mut nftables, mut iptables, mut flows) = (Vec::new(), Vec::new(), Vec::new());
        for op in chunk {
            match op {
                Op::Nftables(op) => nftables.push(op),
                Op::Iptables(op) => iptables.push(op),
                Op::Conntrack(op) => flows.push(op.target()),
            }
        }
        if !nftables.is_empty() {
            nftables::apply(&nftables, host.netfilter()?)?;
        }
        if !iptables.is_empty() {
            iptables::apply(&iptables)?;
        }
        conntrack::forget(host, &flows);
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
    /// Neither works on this host.
    Absent,
}

impl Facts {
    /// Whether a dockerd is seen here whose rules don't know the network yet.
    pub fn beside_docker(&self) -> bool {
        match self {
            Facts::Nftables(_, docker) => docker.is_some(),
            Facts::Iptables(facts) => facts.beside_docker(),
            Facts::Absent => false,
        }
    }

    /// Whether neither nftables nor iptables works here.
    pub fn is_absent(&self) -> bool {
        matches!(self, Facts::Absent)
    }

    pub(crate) fn read(host: &mut Host, network: &Network) -> Result<Facts> {
        match network.backend {
            Backend::Nftables => match table::read_usable(host, network) {
                Err(error) if lacks_nftables(&error) && !iptables::works() => Ok(Facts::Absent),
                Err(error) => Err(error),
                Ok((tables, docker)) => {
                    let docker = if docker { docker::lacking(host.netfilter()?, network)? } else { None };
                    Ok(Facts::Nftables(nftables::Facts { tables }, docker))
                }
            },
            Backend::Iptables => {
                let facts = iptables::Facts::read(network.ipv4.is_some(), network.ipv6.is_some());
                // iptables-legacy reads nothing, and without complaint, where the kernel can't have it.
                let doubtful = facts.as_ref().map_or(true, iptables::Facts::is_empty);
                let no_nftables =
                    |host: &mut Host| table::read_usable(host, network).is_err_and(|error| lacks_nftables(&error));
                if doubtful && !iptables::works() && no_nftables(host) {
                    return Ok(Facts::Absent);
                }
                Ok(Facts::Iptables(facts?))
            }
        }
    }
}

/// Whether an error says that this kernel has no nftables, or not all that our table needs: the errors of
/// net/netfilter/nfnetlink.c for a subsystem, and of nf_tables_api.c for a module, that isn't there.
fn lacks_nftables(error: &Error) -> bool {
    let lacking =
        [libc::ENOENT, libc::EINVAL, libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT, libc::ENOPROTOOPT];
    error.errno().is_some_and(|errno| lacking.contains(&errno))
}
