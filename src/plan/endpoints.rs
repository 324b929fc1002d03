//! The container's cards: one for each network, with its addresses, its name and its part of the default routes. Pure.

use std::net::IpAddr;
use std::path::Path;

use netsetup::{Endpoint, Place, PortMapping};

use crate::network::joining::Joining;
use crate::op::Op;
use crate::plan::names;
use crate::reservation::Reservation;
use crate::state::Attachment;

/// The addresses leased in one network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leased {
    /// IPv4.
    pub ipv4: Option<IpAddr>,
    /// IPv6.
    pub ipv6: Option<IpAddr>,
}

/// Which network has the default route of one IP version: the first that leads out.
pub fn way_out(joinings: &[Joining], ipv4: bool) -> Option<usize> {
    joinings.iter().position(|joining| joining.gateway(ipv4).is_some())
}

/// Which network the published ports lead into: that of the default route, else the first that has ports at all.
pub fn port_network(joinings: &[Joining]) -> Option<usize> {
    let out = way_out(joinings, true).or(way_out(joinings, false));
    out.filter(|at| joinings[*at].publishes()).or(joinings.iter().position(Joining::publishes))
}

/// Every endpoint, in the order of the networks.
pub fn endpoints(joinings: &[Joining], reservation: &Reservation) -> Vec<Endpoint> {
    let (out4, out6) = (way_out(joinings, true), way_out(joinings, false));
    let with_ports = port_network(joinings);
    let mut names = Names::new(joinings);
    let pairs = joinings.iter().zip(&reservation.addresses).enumerate();
    pairs
        .map(|(nth, (joining, leased))| {
            let ports = if with_ports == Some(nth) { reservation.ports.clone() } else { vec![] };
            let ways = (out4 == Some(nth), out6 == Some(nth));
            let owner = Owner { id: &reservation.id, name: &reservation.name };
            endpoint(joining, *leased, owner, Card { link: names.next(joining), host_link: None, nth }, ways, ports)
        })
        .collect()
}

/// Whose card it is.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// Which card of the container it is.
#[derive(Debug, Clone)]
pub struct Card {
    /// The link's name in the container.
    pub link: String,
    /// The link's name on the host; `None`: made from the id and the number.
    pub host_link: Option<String>,
    /// Its number; the first one (0) comes with lo and the namespace's name.
    pub nth: usize,
}

/// One endpoint. `ways`: whether it has the default route of IPv4, and of IPv6.
pub fn endpoint(
    joining: &Joining,
    leased: Leased,
    owner: Owner<'_>,
    card: Card,
    ways: (bool, bool),
    ports: Vec<PortMapping>,
) -> Endpoint {
    let (network, wish) = (&joining.network, &joining.wish);
    let place = |address: Option<IpAddr>, way: bool| {
        let address = address?;
        let subnet = network.subnet_of(address)?;
        let gateway = joining.gateway(address.is_ipv4()).filter(|_| way);
        Some(Place { address, prefix_len: subnet.prefix_len, gateway })
    };
    let made_from = leased.ipv4.or(leased.ipv6).unwrap_or(IpAddr::from([0, 0, 0, 1]));
    Endpoint {
        owner: owner.id.to_owned(),
        name: owner.name.to_owned(),
        host_link: card.host_link.unwrap_or_else(|| host_link(owner.id, card.nth)),
        inside_link: card.link,
        mac: wish.mac.unwrap_or_else(|| netsetup::mac_of(made_from)),
        ipv4: place(leased.ipv4, ways.0),
        ipv6: place(leased.ipv6, ways.1),
        extra_addresses: wish
            .link_local
            .iter()
            .map(|address| (*address, if address.is_ipv4() { 16 } else { 64 }))
            .collect(),
        // A kernel without nftables for bridges can't judge frames.
        may_spoof: joining.facts.guard.is_none(),
        first: card.nth == 0,
        mtu: network.mtu,
        bridge: network.bridge.clone(),
        hairpin: joining.facts.bridge_netfilter,
        ports,
    }
}

/// `veth0123456`, and for further cards `vet1…`: a digit that tells them apart, and the id's beginning.
pub fn host_link(id: &str, nth: usize) -> String {
    let digits = id.get(..7).unwrap_or(id);
    if nth == 0 { format!("veth{digits}") } else { format!("veth{digits}_{nth}") }
}

/// Names of links in the container, each once.
pub struct Names {
    taken: Vec<String>,
}

impl Names {
    /// Names that users have asked for are nobody else's.
    pub fn new(joinings: &[Joining]) -> Names {
        Names { taken: joinings.iter().filter_map(|joining| joining.wish.link.clone()).collect() }
    }

    /// Beside links that are there.
    pub fn beside(taken: Vec<String>) -> Names {
        Names { taken }
    }

    /// The wished name, or the next free number.
    pub fn next(&mut self, joining: &Joining) -> String {
        if let Some(wished) = &joining.wish.link {
            return wished.clone();
        }
        let mut number = 0_usize;
        loop {
            let name = format!("{}{number}", joining.link_prefix);
            if !self.taken.contains(&name) {
                self.taken.push(name.clone());
                return name;
            }
            number += 1;
        }
    }
}

/// The operations of all endpoints: links first, rules last, so that no port leads into a container without its card.
/// `networks`: the folder of all networks' run files.
pub fn ops(joinings: &[Joining], endpoints: &[Endpoint], networks: &Path) -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    for (joining, endpoint) in joinings.iter().zip(endpoints) {
        ops.extend(netsetup::plan_endpoint(&joining.network, endpoint).into_iter().map(Op::Net));
        ops.push(names::publish(networks, &joining.network, endpoint, &joining.wish.aliases));
    }
    ops.push(names::listen());
    // Stable; links that stand together go out in one message. The name server after lo is up, and before the rules, which
    // a start may have to try twice.
    ops.sort_by_key(|op| match op {
        Op::Net(netsetup::Op::Link(_) | netsetup::Op::Parent(_)) => 0,
        Op::Net(netsetup::Op::Dns(netsetup::dns::Op::Listen)) => 1,
        Op::Net(netsetup::Op::Dns(_)) => 2,
        Op::Net(netsetup::Op::Firewall(_)) => 4,
        _ => 3,
    });
    ops
}

/// The namespace's name for `ip netns`.
pub fn name(name: &str) -> Op {
    Op::Net(netsetup::Op::Netns(netsetup::netns::Op::Name { name: name.to_owned() }))
}

/// What the state file says of an endpoint.
pub fn attachment(joining: &Joining, endpoint: &Endpoint) -> Attachment {
    Attachment {
        network: joining.network.name.clone(),
        network_id: joining.network.id.clone(),
        bridge: endpoint.bridge.clone(),
        host_link: endpoint.host_link.clone(),
        inside_link: endpoint.inside_link.clone(),
        ipv4: endpoint.ipv4,
        ipv6: endpoint.ipv6,
        extra_addresses: endpoint.extra_addresses.clone(),
        mac: endpoint.mac,
        aliases: joining.wish.aliases.clone(),
        gateway_priority: joining.wish.gateway_priority,
        gateways: [true, false].into_iter().filter_map(|ipv4| joining.gateway(ipv4)).collect(),
        ports: endpoint.ports.clone(),
    }
}
