//! The trial: bridge, rules and a veth pair are really made, in a network namespace that ends with this process.

use netsetup::{Facts, Host, Live};
use nix::sched::{CloneFlags, unshare};

use super::{fail, ok};
use crate::commands::Engine;
use crate::facts;
use crate::format::doctor::Finding;

/// Leaves this process in the new namespace.
pub fn examine(engine: &Engine) -> Finding {
    let remedy = "look for missing kernel modules (bridge, veth, nf_tables, nft_chain_nat, xt_MASQUERADE), or run with \
                  --network host or none";
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        return fail(
            "network",
            format!("no network namespace can be made: {error}"),
            "look for a sandbox, or user.max_net_namespaces",
        );
    }
    match make(engine) {
        Ok(()) => ok("network", "bridge, NAT and rules work (tried in a namespace of its own)"),
        Err(error) => fail("network", crate::error::text(&error), remedy),
    }
}

fn make(engine: &Engine) -> anyhow::Result<()> {
    let mut host = Host::open()?;
    let network = facts::default_network(engine, false);
    let facts = Facts::read(&mut host, &network)?;
    let ops = netsetup::plan_network(&network, &facts)?;
    netsetup::apply(&ops, &mut Live { host: &mut host, netns: None, init_pid: None })?;
    Ok(())
}
