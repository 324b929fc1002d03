//! A router's plan: its definition in, operations out; and what is refused before anything is made.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, bail};
use netsetup::router::{Op as RouterOp, Switch};
use netsetup::{Facts, GatewayMode, Host, Network, Op, Subnet};

use super::{Definition, Inside, Outside, Side, lease_owner};
use crate::commands::Engine;

/// Everything that makes the router, in order.
pub fn router(definition: &Definition) -> Vec<Op> {
    let netns = &definition.name;
    let (inside, outside) = (&definition.inside, &definition.outside);
    let owner = lease_owner(netns);
    let leg = |side: &Side, why: &str| RouterOp::Leg {
        netns: netns.clone(),
        host: side.host_link.clone(),
        inside: side.link.clone(),
        mac: side.mac,
        mtu: side.mtu,
        alias: owner.clone(),
        address: side.address,
        prefix_len: side.prefix_len,
        why: why.to_owned(),
    };
    let plug = |side: &Side| RouterOp::Plug { host: side.host_link.clone(), bridge: side.bridge.clone() };
    let to_the_outside = "a cable to the network outside";
    let mut ops = vec![
        RouterOp::Namespace { netns: netns.clone() },
        RouterOp::Forwarding { netns: netns.clone() },
        leg(inside, "a cable to the network inside"),
        plug(inside),
    ];
    match definition.switch {
        Switch::Linux => ops.extend([leg(outside, to_the_outside), plug(outside)]),
        Switch::OpenVswitch => ops.push(RouterOp::OvsLeg {
            netns: netns.clone(),
            bridge: outside.bridge.clone(),
            port: outside.link.clone(),
            mac: outside.mac,
            owner: owner.clone(),
            address: outside.address,
            prefix_len: outside.prefix_len,
            why: "a port of the switch outside, which is a link of this host".to_owned(),
        }),
    }
    ops.extend([
        RouterOp::DefaultRoute { netns: netns.clone(), gateway: definition.gateway },
        RouterOp::SourceNat {
            netns: netns.clone(),
            backend: definition.backend,
            subnet: first_address(inside.address, inside.prefix_len),
            prefix_len: inside.prefix_len,
            link: outside.link.clone(),
            address: outside.address,
        },
    ]);
    ops.into_iter().map(Op::Router).collect()
}

/// The router's address in the network: the wanted one; else the gateway's, where the bridge leaves it to a router; else
/// the next that is free.
pub fn inside_address(
    engine: &Engine,
    network: &Network,
    facts: &Facts,
    inside: &Inside,
    host: &mut Host,
) -> Result<Ipv4Addr> {
    let subnet = subnet(network)?;
    let taken_by_bridge = bridge_has_gateway(network);
    let leases = engine.roots.leases(&network.name);
    let wanted = match inside.address {
        None if !taken_by_bridge => subnet.gateway,
        None => {
            let in_use = netsetup::bridge_addresses_in_use(host, network)?;
            let free = |address: &IpAddr| netsetup::lease::owner(&leases, *address).is_none();
            match netsetup::lease::candidates(&leases, subnet, &in_use).find(free) {
                Some(address) => address,
                None => bail!("network {} has no free address left for the router", network.name),
            }
        }
        Some(address) if address == subnet.gateway && taken_by_bridge => bail!(
            "{address} is the address of the host's own bridge {0} in network {1}; choose another for the router \
             (--inside {1},ADDRESS), or make a network whose gateway is left to it: minidock network create -o \
             com.docker.network.bridge.inhibit_ipv4=true …",
            network.bridge,
            network.name
        ),
        Some(address) => address.into(),
    };
    if !subnet.contains(wanted) || wanted == subnet.first() || wanted == subnet.last() {
        bail!("{wanted} is no address in network {}: its subnet is {subnet}", network.name);
    }
    if facts.addresses.iter().any(|own| own.address == wanted) {
        bail!("{wanted} is this host's own address; choose another for the router");
    }
    match (netsetup::lease::owner(&leases, wanted), wanted) {
        (Some(owner), _) => bail!(
            "{wanted} is in use in network {}: {} has it; choose another for the router",
            network.name,
            if owner.starts_with("router:") { owner } else { format!("container {}", crate::recover::short(&owner)) }
        ),
        (None, IpAddr::V4(wanted)) => Ok(wanted),
        (None, IpAddr::V6(_)) => bail!("a router translates IPv4 only"),
    }
}

/// The network's IPv4 subnet.
pub fn subnet(network: &Network) -> Result<&Subnet> {
    match &network.ipv4 {
        Some(subnet) => Ok(subnet),
        None => bail!(
            "network {} has no IPv4 addresses; a router routes and translates IPv4 only, and IPv6 leaves the network by the host",
            network.name
        ),
    }
}

/// Where the network's containers send what leaves the subnet.
pub fn gateway(network: &Network) -> Result<Ipv4Addr> {
    match subnet(network)?.gateway {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => bail!("network {} has no IPv4 gateway", network.name),
    }
}

/// Whether the host's bridge has the gateway's address itself.
fn bridge_has_gateway(network: &Network) -> bool {
    network.gateway_mode_ipv4 != GatewayMode::Isolated
}

/// What can't work outside.
pub fn check_outside(outside: &Outside, network: &Network) -> Result<()> {
    let Outside { bridge, address, prefix_len, gateway } = outside;
    if *prefix_len > 30 || first_address(*address, *prefix_len) != first_address(*gateway, *prefix_len) {
        bail!("the gateway {gateway} is not in the subnet of {address}/{prefix_len}: the router could never reach it");
    }
    if address == gateway {
        bail!("{address} can't be the router's own address and its gateway; --outside BRIDGE,ADDRESS/LENGTH,GATEWAY");
    }
    if *bridge == network.bridge {
        bail!("{bridge} is the bridge of network {} itself: a router needs two sides", network.name);
    }
    if subnet(network)?.overlaps((*address).into(), *prefix_len) {
        bail!(
            "{address}/{prefix_len} overlaps with the subnet of network {}: a router needs two subnets",
            network.name
        );
    }
    Ok(())
}

/// Made from the address, and never that of a bridge or container with the same address.
pub fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x52, a, b, c, d]
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0)
}

/// The subnet's first address.
pub fn first_address(address: Ipv4Addr, prefix_len: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & mask(prefix_len))
}
