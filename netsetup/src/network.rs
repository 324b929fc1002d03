//! The descriptions that everything here starts from: a network (what containers share) and an endpoint (one
//! container's part of it).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::mapping::PortMapping;
use crate::subnet::Subnet;

/// Which of the kernel's firewall interfaces holds the NAT rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// An own nftables table, spoken to over netlink; no process is started.
    #[default]
    Nftables,
    /// The rules of the lecture, written by the `iptables` program.
    Iptables,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Nftables => "nftables",
            Backend::Iptables => "iptables",
        })
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "nftables" | "nft" => Ok(Backend::Nftables),
            "iptables" => Ok(Backend::Iptables),
            _ => Err(format!("unknown firewall {text:?}: use nftables or iptables")),
        }
    }
}

/// What makes the links of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge of its own on the host, and NAT.
    #[default]
    Bridge,
    /// Further MACs on a link of the host.
    Macvlan {
        /// The link of the host.
        parent: String,
        /// How they reach each other.
        mode: MacvlanMode,
    },
    /// Further addresses on a link of the host, with its MAC.
    Ipvlan {
        /// The link of the host.
        parent: String,
        /// Switch or router.
        mode: IpvlanMode,
        /// Who reaches whom: bridge, private or vepa.
        #[serde(default)]
        flag: MacvlanMode,
    },
}

/// Modes of macvlan (include/uapi/linux/if_link.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// They reach each other.
    #[default]
    Bridge,
    /// They don't.
    Private,
    /// Only by an outside switch.
    Vepa,
    /// One container has the link.
    Passthru,
}

/// Modes of ipvlan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanMode {
    /// A switch.
    #[default]
    L2,
    /// A router without netfilter on the host.
    L3,
    /// A router with it.
    L3s,
}

/// How containers of a network and the world outside reach each other (docker's gateway_mode_ipv4 and _ipv6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayMode {
    /// Containers leave with the host's address, and are reached by published ports.
    #[default]
    Nat,
    /// Containers keep their address; published ports are reached at it.
    Routed,
    /// The host has no address in the network (internal networks only).
    Isolated,
}

/// What the containers of one network share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The network's name, such as `bridge`.
    pub name: String,
    /// 64 hexadecimal digits; empty where nobody has given one.
    #[serde(default)]
    pub id: String,
    /// What makes its links.
    #[serde(default)]
    pub driver: Driver,
    /// The bridge's link name, such as `docker0`; at most 15 bytes.
    pub bridge: String,
    /// Its IPv4 addresses; none in an IPv6-only network.
    #[serde(default)]
    pub ipv4: Option<Subnet>,
    /// Its IPv6 addresses.
    #[serde(default)]
    pub ipv6: Option<Subnet>,
    /// MTU of the bridge and its links, in bytes.
    pub mtu: u32,
    /// The nftables table, `minidock`; in upper case the prefix of own iptables chains.
    pub table: String,
    /// Which firewall holds the rules.
    pub backend: Backend,
    /// No firewall works on this host: no rules are made, and what needs them is done without or not at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_firewall: bool,
    /// No way out and no way in: neither masquerade nor published ports.
    #[serde(default)]
    pub internal: bool,
    /// Whether its containers reach each other.
    #[serde(default = "yes")]
    pub icc: bool,
    /// Whether containers leave with the host's address (in mode nat).
    #[serde(default = "yes")]
    pub masquerade: bool,
    /// IPv4: NAT, routed or isolated.
    #[serde(default)]
    pub gateway_mode_ipv4: GatewayMode,
    /// IPv6: NAT, routed or isolated.
    #[serde(default)]
    pub gateway_mode_ipv6: GatewayMode,
}

fn yes() -> bool {
    true
}

impl Network {
    /// A network of this name on this bridge with docker's defaults: MTU 1500, containers reach each other, NAT. It has
    /// no addresses yet.
    pub fn new(name: &str, bridge: &str) -> Network {
        Network {
            name: name.to_owned(),
            id: String::new(),
            driver: Driver::Bridge,
            bridge: bridge.to_owned(),
            ipv4: None,
            ipv6: None,
            mtu: 1500,
            table: "minidock".to_owned(),
            backend: Backend::Nftables,
            no_firewall: false,
            internal: false,
            icc: true,
            masquerade: true,
            gateway_mode_ipv4: GatewayMode::Nat,
            gateway_mode_ipv6: GatewayMode::Nat,
        }
    }

    /// The subnets, IPv4 first.
    pub fn subnets(&self) -> impl Iterator<Item = &Subnet> {
        self.ipv4.iter().chain(&self.ipv6)
    }

    /// The subnet of the address's family.
    pub fn subnet_of(&self, address: IpAddr) -> Option<&Subnet> {
        if address.is_ipv4() { self.ipv4.as_ref() } else { self.ipv6.as_ref() }
    }

    /// Whether the address lies in one of the subnets.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.subnets().any(|subnet| subnet.contains(address))
    }

    /// NAT, routed or isolated, for IPv6 or IPv4.
    pub fn gateway_mode(&self, v6: bool) -> GatewayMode {
        if v6 { self.gateway_mode_ipv6 } else { self.gateway_mode_ipv4 }
    }

    /// The bridge's MAC, made from the gateway's address. A bridge without one of its own takes its ports' lowest and
    /// changes it as containers come and go, which breaks the neighbours' ARP entries.
    pub fn bridge_mac(&self) -> [u8; 6] {
        self.subnets().next().map_or([0x02, 0x42, 0, 0, 0, 1], |subnet| mac_of(subnet.gateway))
    }
}

/// The MAC that a card with this address gets: docker's for IPv4, and for IPv6 alone one from the address's last bytes.
pub fn mac_of(address: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => (address.to_bits() as u32).to_be_bytes(),
    };
    [0x02, 0x42, a, b, c, d]
}

/// A card's address in one of the two families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The address.
    pub address: IpAddr,
    /// The subnet's length in bits.
    pub prefix_len: u8,
    /// Where the default route leads; none when this card has no default route.
    pub gateway: Option<IpAddr>,
}

/// One container's part of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The container's id.
    pub owner: String,
    /// The container's name: alias of its link, name for `ip netns`, comment of its ports.
    pub name: String,
    /// The veth's end on the host, such as `veth1a2b3c4`.
    pub host_link: String,
    /// The veth's end in the container, `eth0`.
    pub inside_link: String,
    /// MAC of the inside end.
    pub mac: [u8; 6],
    /// The IPv4 address.
    pub ipv4: Option<Place>,
    /// The IPv6 address.
    pub ipv6: Option<Place>,
    /// Further addresses and their prefix lengths (`--link-local-ip`).
    #[serde(default)]
    pub extra_addresses: Vec<(IpAddr, u8)>,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
    /// The bridge that the host end belongs to.
    pub bridge: String,
    /// Let the bridge send a frame back to the port that it came from: `Facts::bridge_netfilter`. Where br_netfilter
    /// translates addresses inside the bridge, a container reaches its own published port only so.
    pub hairpin: bool,
    /// Frames with another's MAC or address are let through (`--security-opt net-spoof=allow`).
    #[serde(default)]
    pub may_spoof: bool,
    /// The container's first card: it comes with lo switched on and the namespace's name.
    #[serde(default = "yes")]
    pub first: bool,
    /// The published ports.
    pub ports: Vec<PortMapping>,
}

impl Endpoint {
    /// Its addresses in the network, IPv4 first.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.ipv4.iter().chain(&self.ipv6)
    }

    /// The address to which a port of this host address leads: that of the same family, else the only one.
    pub fn address_for(&self, host_address: IpAddr) -> Option<IpAddr> {
        let (same, other) = if host_address.is_ipv4() { (&self.ipv4, &self.ipv6) } else { (&self.ipv6, &self.ipv4) };
        same.as_ref().or(other.as_ref()).map(|place| place.address)
    }
}
