//! What this host already has of a network. Reading changes nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

use crate::firewall::nftables::TableFacts;
use crate::firewall::table;
use crate::host::Host;
use crate::netlink::{Answer, Batch, Netlink, attribute, attributes, text_of, u16_at, u32_at};
use crate::{Network, Result, firewall, query, sysctl};

const DEFAULT_MTU: u32 = 1500;
const DUMP: u16 = libc::NLM_F_DUMP as u16;

/// What is already there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The link with the bridge's name.
    pub bridge: Option<Bridge>,
    /// All addresses of this host, IPv6 link-local ones apart.
    pub addresses: Vec<Address>,
    /// net.ipv4.ip_forward
    pub ip_forward: bool,
    /// route_localnet of the bridge, when it is there.
    pub route_localnet: bool,
    /// br_netfilter shows bridged packets to the firewall (net.bridge.bridge-nf-call-iptables).
    pub bridge_netfilter: bool,
    /// MTU of the default route's device, in bytes.
    pub egress_mtu: u32,
    /// What the firewall holds.
    pub firewall: firewall::Facts,
    /// What of the table that judges containers' frames is there; none when this kernel has no nftables for bridges.
    pub guard: Option<TableFacts>,
    /// Kernel settings can be changed: /proc/sys isn't mounted read-only.
    pub settings_writable: bool,
    /// What IPv6 needs; nothing in a network without it.
    pub ipv6: Ipv6Facts,
}

/// IPv6 settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ipv6Facts {
    /// This kernel has IPv6.
    pub available: bool,
    /// net.ipv6.conf.all.forwarding
    pub forwarding: bool,
    /// Links that take their default route from router advertisements (accept_ra is 1), which a router doesn't unless
    /// it's told to (2).
    pub advertised: Vec<String>,
    /// accept_ra of the bridge, when it is there.
    pub bridge_accepts: Option<String>,
}

/// A link that bears the bridge's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its index.
    pub index: u32,
    /// What it is: `bridge`, or something else that is in the way.
    pub kind: String,
    /// Whether it is switched on.
    pub up: bool,
    /// In bytes.
    pub mtu: u32,
    /// Its addresses and their prefix lengths, the first one first.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// An address of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The link's index.
    pub index: u32,
    /// The link's name, as far as the kernel tells it.
    pub link: String,
    /// The address.
    pub address: IpAddr,
    /// The subnet's length in bits.
    pub prefix_len: u8,
}

impl Facts {
    /// Reads all of it; well under 0.3 ms with nftables, ~6 ms with iptables (a process).
    pub fn read(host: &mut Host, network: &Network) -> Result<Facts> {
        let found = query::get(host.route()?, &network.bridge)?;
        let addresses = addresses(host.route()?)?;
        if let Some(found) = &found {
            host.remember_bridge(&network.bridge, found.index);
        } else {
            host.forget_bridge();
        }
        let bridge = found.map(|found| {
            let own = addresses.iter().filter(|one| one.index == found.index);
            Bridge {
                index: found.index,
                kind: found.kind,
                up: found.up,
                mtu: found.mtu,
                addresses: own.map(|one| (one.address, one.prefix_len)).collect(),
            }
        });
        let on = |key: &str| sysctl::read(key).map(|value| value.is_some_and(|value| value != "0"));
        Ok(Facts {
            ip_forward: on("net/ipv4/ip_forward")?,
            route_localnet: bridge.is_some() && on(&route_localnet_key(&network.bridge))?,
            bridge_netfilter: on("net/bridge/bridge-nf-call-iptables")?,
            egress_mtu: egress_mtu(host),
            firewall: firewall::Facts::read(host, &adopt(bridge.as_ref(), network))?,
            guard: host.netfilter().ok().and_then(|netlink| table::read_guard(netlink, network)),
            settings_writable: sysctl::writable(),
            ipv6: ipv6(network, bridge.is_some())?,
            bridge,
            addresses,
        })
    }

    /// The network as this host has it: a bridge that is there keeps its address, which is the containers' gateway.
    /// Its MTU is kept too. Where no firewall works, it is a network without one.
    pub fn adopt(&self, network: &Network) -> Network {
        Network { no_firewall: self.firewall.is_absent(), ..adopt(self.bridge.as_ref(), network) }
    }
}

fn adopt(bridge: Option<&Bridge>, network: &Network) -> Network {
    let mut network = network.clone();
    let Some(bridge) = bridge.filter(|bridge| bridge.kind == "bridge") else {
        return network;
    };
    for (subnet, longest) in [(&mut network.ipv4, 30), (&mut network.ipv6, 126)] {
        let Some(subnet) = subnet else { continue };
        let version = |(address, _): &&(IpAddr, u8)| address.is_ipv4() == subnet.gateway.is_ipv4();
        let same = |(address, _): &&(IpAddr, u8)| *address == subnet.gateway;
        let usable = |one: &&(IpAddr, u8)| version(one) && one.1 <= longest;
        let kept = bridge.addresses.iter().find(same).or_else(|| bridge.addresses.iter().find(usable));
        if let Some((address, prefix_len)) = kept {
            (subnet.gateway, subnet.prefix_len) = (*address, *prefix_len);
        }
    }
    network.mtu = bridge.mtu;
    network
}

fn ipv6(network: &Network, bridge: bool) -> Result<Ipv6Facts> {
    let bridge_accepts = if bridge { sysctl::read(&accept_ra_key(&network.bridge))? } else { None };
    let available = bridge_accepts.is_some() || std::path::Path::new("/proc/sys/net/ipv6").exists();
    if network.ipv6.is_none() {
        return Ok(Ipv6Facts { available, bridge_accepts, ..Ipv6Facts::default() });
    }
    let forwarding = sysctl::read(FORWARDING6)?.is_some_and(|value| value != "0");
    let mut advertised = Vec::new();
    if !forwarding {
        for entry in std::fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
            let link = entry.file_name().to_string_lossy().into_owned();
            let accepts =
                |link: &str| sysctl::read(&accept_ra_key(link)).ok().flatten().is_some_and(|value| value == "1");
            if !["all", "default", "lo", network.bridge.as_str()].contains(&link.as_str()) && accepts(&link) {
                advertised.push(link);
            }
        }
        advertised.sort();
    }
    Ok(Ipv6Facts { available, forwarding, advertised, bridge_accepts })
}

pub(crate) const FORWARDING6: &str = "net/ipv6/conf/all/forwarding";

pub(crate) fn accept_ra_key(link: &str) -> String {
    format!("net/ipv6/conf/{link}/accept_ra")
}

pub(crate) fn route_localnet_key(bridge: &str) -> String {
    format!("net/ipv4/conf/{bridge}/route_localnet")
}

/// MTU of the default route's device in bytes, 1500 when there is none.
pub fn egress_mtu(host: &mut Host) -> u32 {
    let mtu = |host: &mut Host| -> Option<u32> {
        let index = egress_link(host)?;
        Some(query::get_index(host.route().ok()?, index).ok()??.mtu)
    };
    // lo's 65536 would be the answer of a host that routes everything to itself.
    mtu(host).filter(|mtu| (68..=65535).contains(mtu)).unwrap_or(DEFAULT_MTU)
}

/// The index of the link by which the host reaches the outside.
pub(crate) fn egress_link(host: &mut Host) -> Option<u32> {
    let device = |netlink: &mut Netlink| -> Option<u32> {
        // One lookup, as `ip route get`: the routes may be many. A public address stands for the outside.
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet(Ipv4Addr::new(8, 8, 8, 8)))];
        let mut batch = Batch::default();
        batch.push_route(RouteNetlinkMessage::GetRoute(message), 0);
        let (answers, _) = netlink.exchange(&batch).ok()?;
        let answer = answers.iter().find(|answer| answer.kind == libc::RTM_NEWROUTE)?;
        attribute(answer.payload.get(12..)?, libc::RTA_OIF).map(|value| u32_at(value, 0))
    };
    device(host.route().ok()?)
}

/// Addresses of containers (or machines) on the bridge that the kernel has seen there: its neighbours, as far as their
/// MAC is still behind a port of the bridge. (Entries of dead containers linger for minutes, but their ports are gone.)
pub fn bridge_addresses_in_use(host: &mut Host, network: &Network) -> Result<BTreeSet<IpAddr>> {
    let known = host.known_bridge(&network.bridge);
    let netlink = host.route()?;
    let found = if known.is_some() { known } else { query::get(netlink, &network.bridge)?.map(|found| found.index) };
    let Some(bridge) = found else {
        return Ok(BTreeSet::new());
    };
    let mut neighbours = Vec::new();
    for (family, subnet) in [(AddressFamily::Inet, &network.ipv4), (AddressFamily::Inet6, &network.ipv6)] {
        if subnet.is_some() {
            neighbours.extend(self::neighbours(netlink, family, bridge)?);
        }
    }
    if neighbours.is_empty() {
        return Ok(BTreeSet::new());
    }
    let behind_ports: BTreeSet<Vec<u8>> =
        self::neighbours(netlink, AddressFamily::Bridge, bridge)?.into_iter().map(|one| one.mac).collect();
    let alive = |one: &Neighbour| match one.state {
        NUD_PERMANENT | NUD_REACHABLE | NUD_DELAY | NUD_PROBE => true,
        NUD_STALE => behind_ports.contains(&one.mac),
        _ => false,
    };
    Ok(neighbours.iter().filter(|one| alive(one)).filter_map(|one| one.address).collect())
}

/// include/uapi/linux/neighbour.h
const NUD_REACHABLE: u16 = 0x02;
const NUD_STALE: u16 = 0x04;
const NUD_DELAY: u16 = 0x08;
const NUD_PROBE: u16 = 0x10;
const NUD_PERMANENT: u16 = 0x80;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_MASTER: u16 = 9;

struct Neighbour {
    state: u16,
    address: Option<IpAddr>,
    mac: Vec<u8>,
}

/// The ARP entries of a link, or (family bridge) the forwarding entries of a bridge's ports.
fn neighbours(netlink: &mut Netlink, family: AddressFamily, index: u32) -> Result<Vec<Neighbour>> {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    let bridge = family == AddressFamily::Bridge;
    message.attributes =
        vec![if bridge { NeighbourAttribute::Controller(index) } else { NeighbourAttribute::IfIndex(index) }];
    let answers = dump(netlink, RouteNetlinkMessage::GetNeighbour(message), "list the bridge's neighbours")?;
    let ours = |answer: &&Answer| {
        let body = answer.payload.get(12..).unwrap_or_default();
        if bridge {
            attribute(body, NDA_MASTER).is_some_and(|value| u32_at(value, 0) == index)
        } else {
            u32_at(&answer.payload, 4) == index
        }
    };
    let read = |answer: &Answer| {
        let body = answer.payload.get(12..).unwrap_or_default();
        Neighbour {
            state: u16_at(&answer.payload, 8),
            address: attribute(body, NDA_DST).and_then(ip),
            mac: attribute(body, NDA_LLADDR).unwrap_or_default().to_vec(),
        }
    };
    Ok(answers.iter().filter(|answer| answer.kind == libc::RTM_NEWNEIGH).filter(ours).map(read).collect())
}

fn addresses(netlink: &mut Netlink) -> Result<Vec<Address>> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Unspec;
    let answers = dump(netlink, RouteNetlinkMessage::GetAddress(message), "list the host's addresses")?;
    let read = |answer: &Answer| {
        let mut found = Address {
            index: u32_at(&answer.payload, 4),
            link: String::new(),
            address: Ipv4Addr::UNSPECIFIED.into(),
            prefix_len: *answer.payload.get(1)?,
        };
        for (kind, value) in attributes(answer.payload.get(8..)?) {
            match kind {
                // IPv6 has IFA_LOCAL only on tunnels. In IPv4 it follows IFA_ADDRESS, which is the other end on those.
                libc::IFA_ADDRESS | libc::IFA_LOCAL => found.address = ip(value)?,
                libc::IFA_LABEL => found.link = text_of(value),
                _ => {}
            }
        }
        let link_local = matches!(found.address, IpAddr::V6(address) if address.is_unicast_link_local());
        (!link_local).then_some(found)
    };
    Ok(answers.iter().filter(|answer| answer.kind == libc::RTM_NEWADDR).filter_map(read).collect())
}

fn dump(netlink: &mut Netlink, message: RouteNetlinkMessage, what: &str) -> Result<Vec<Answer>> {
    let mut batch = Batch::default();
    batch.push_route(message, DUMP);
    let (answers, failures) = netlink.exchange(&batch).map_err(|failure| failure.into_error(what))?;
    match failures.into_iter().next() {
        None => Ok(answers),
        Some(failure) => Err(failure.into_error(what)),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
