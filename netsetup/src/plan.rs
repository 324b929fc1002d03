//! The plan: descriptions and facts in, operations out. Pure: no system call, no clock, no environment.

use crate::facts::{Facts, route_localnet_key};
use crate::firewall::{self, conntrack, iptables, nftables};
use crate::network::first_address;
use crate::{
    Backend, Endpoint, Error, Network, Op, PortMapping, Protocol, PublishMode, Result, link, netns,
    sysctl,
};

/// What the network still lacks on this host; empty when all is there.
///
/// # Errors
/// [`Error::Refused`] when something else has the bridge's name or the subnet.
pub fn plan_network(network: &Network, facts: &Facts) -> Result<Vec<Op>> {
    if network.prefix_len > 30 || !valid_link_name(&network.bridge) {
        return Err(Error::Refused(format!(
            "the network {} can't work: the bridge's name needs 1-15 bytes, the subnet at most 30 bits ({} /{})",
            network.name, network.bridge, network.prefix_len
        )));
    }
    let mut ops = Vec::new();
    if !facts.ip_forward {
        ops.push(Op::Sysctl(sysctl::Op::Write {
            key: "net/ipv4/ip_forward".to_owned(),
            old: Some("0".to_owned()),
            new: "1".to_owned(),
            why: "the host passes packets on between containers and the outside".to_owned(),
        }));
    }
    ops.extend(plan_bridge(network, facts)?.into_iter().map(Op::Link));
    if !facts.route_localnet {
        ops.push(Op::Sysctl(sysctl::Op::Write {
            key: route_localnet_key(&network.bridge),
            old: facts.bridge.as_ref().map(|_| "0".to_owned()),
            new: "1".to_owned(),
            why: "localhost:PORT reaches published ports".to_owned(),
        }));
    }
    match &facts.firewall {
        firewall::Facts::Nftables(facts) => {
            let rules = nftables::plan_network(network, facts).into_iter();
            ops.extend(rules.map(|op| Op::Firewall(firewall::Op::Nftables(op))));
        }
        firewall::Facts::Iptables(facts) => {
            let rules = iptables::plan_network(network, facts).into_iter();
            ops.extend(rules.map(|op| Op::Firewall(firewall::Op::Iptables(op))));
        }
    }
    Ok(ops)
}

fn plan_bridge(network: &Network, facts: &Facts) -> Result<Vec<link::Op>> {
    let name = &network.bridge;
    if let Some(found) = facts.bridge.as_ref().filter(|found| found.kind != "bridge") {
        let kind = if found.kind.is_empty() {
            "another kind of link"
        } else {
            &found.kind
        };
        return Err(Error::Refused(format!(
            "cannot use {name} as a bridge: it is there and is {kind}; rename or remove it"
        )));
    }
    let addressed = facts.bridge.as_ref().is_some_and(|found| {
        found
            .addresses
            .iter()
            .any(|(address, _)| *address == network.gateway)
    });
    let mut ops = Vec::new();
    if facts.bridge.is_none() {
        ops.push(link::Op::Bridge {
            name: name.clone(),
            mac: network.bridge_mac(),
            mtu: network.mtu,
        });
    }
    if !addressed {
        if let Some(other) = facts.addresses.iter().find(|other| overlap(network, other)) {
            let (subnet, prefix_len) = network.subnet();
            return Err(Error::Refused(format!(
                "cannot use the subnet {subnet}/{prefix_len} for {name}: {} has {}/{} in it; choose another subnet",
                if other.link.is_empty() {
                    "another link"
                } else {
                    &other.link
                },
                other.address,
                other.prefix_len
            )));
        }
        ops.push(link::Op::BridgeAddress {
            bridge: name.clone(),
            address: network.gateway,
            prefix_len: network.prefix_len,
            with_bridge: facts.bridge.is_none(),
        });
    }
    if !facts.bridge.as_ref().is_some_and(|found| found.up) {
        ops.push(link::Op::BridgeUp { name: name.clone() });
    }
    Ok(ops)
}

/// Whether another link's subnet and the network's have addresses in common.
fn overlap(network: &Network, other: &crate::facts::Address) -> bool {
    let shorter = network.prefix_len.min(other.prefix_len);
    first_address(network.gateway, shorter) == first_address(other.address, shorter)
}

/// dev_valid_name() in net/core/dev.c, and no character that a firewall's or the shell's language would take for its own.
fn valid_link_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=15).contains(&name.len()) && name.chars().all(good) && !name.starts_with(['.', '-'])
}

/// One container's links, name and ports. Ports in proxy mode are no concern of the kernel.
pub fn plan_endpoint(network: &Network, endpoint: &Endpoint) -> Vec<Op> {
    let links = [
        link::Op::Veth {
            host: endpoint.host_link.clone(),
            inside: endpoint.inside_link.clone(),
            bridge: endpoint.bridge.clone(),
            mac: endpoint.mac,
            mtu: endpoint.mtu,
            alias: endpoint.name.clone(),
            hairpin: endpoint.hairpin,
        },
        link::Op::Address {
            link: endpoint.inside_link.clone(),
            address: endpoint.address,
            prefix_len: endpoint.prefix_len,
        },
        link::Op::DefaultRoute {
            gateway: endpoint.gateway,
        },
        link::Op::LoopbackUp,
    ];
    let name = Op::Netns(netns::Op::Name {
        name: endpoint.name.clone(),
    });
    let ports: Vec<PortMapping> = endpoint
        .ports
        .iter()
        .filter(|mapping| mapping.mode == PublishMode::Dnat)
        .copied()
        .collect();
    let forget = ports
        .iter()
        .filter(|mapping| mapping.protocol == Protocol::Udp)
        .map(|mapping| {
            firewall::Op::Conntrack(conntrack::Op::Forget {
                mapping: *mapping,
                address: endpoint.address,
            })
        });
    let rules = plan_ports(network, endpoint, &ports)
        .into_iter()
        .chain(forget);
    links
        .into_iter()
        .map(Op::Link)
        .chain([name])
        .chain(rules.map(Op::Firewall))
        .collect()
}

fn plan_ports(network: &Network, endpoint: &Endpoint, ports: &[PortMapping]) -> Vec<firewall::Op> {
    if ports.is_empty() {
        return Vec::new();
    }
    let short_id: String = endpoint.owner.chars().take(12).collect();
    let publish = |mapping: &PortMapping| {
        firewall::Op::Iptables(iptables::Op::Publish {
            mapping: *mapping,
            address: endpoint.address,
        })
    };
    match network.backend {
        Backend::Nftables => vec![firewall::Op::Nftables(nftables::Op::Publish {
            table: network.table.clone(),
            ports: ports.to_vec(),
            address: endpoint.address,
            comment: format!("{} {short_id}", endpoint.name),
        })],
        Backend::Iptables => ports.iter().map(publish).collect(),
    }
}
