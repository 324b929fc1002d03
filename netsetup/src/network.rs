//! The descriptions that everything here starts from: a network (what containers share) and an endpoint (one
//! container's part of it).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::mapping::PortMapping;

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

/// What the containers of one network share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The network's name, such as `bridge`.
    pub name: String,
    /// The bridge's link name, such as `docker0`; at most 15 bytes.
    pub bridge: String,
    /// The bridge's own address, the containers' gateway.
    pub gateway: Ipv4Addr,
    /// The subnet's length in bits, at most 30.
    pub prefix_len: u8,
    /// MTU of the bridge and its links, in bytes.
    pub mtu: u32,
    /// The nftables table, `minidock`; in upper case the prefix of own iptables chains.
    pub table: String,
    /// Which firewall holds the rules.
    pub backend: Backend,
}

impl Network {
    /// The subnet: its first address and its length in bits.
    pub fn subnet(&self) -> (Ipv4Addr, u8) {
        (first_address(self.gateway, self.prefix_len), self.prefix_len)
    }

    /// Whether the address lies in the subnet.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        first_address(address, self.prefix_len) == self.subnet().0
    }

    /// The subnet's last address.
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet().0.to_bits() | !mask(self.prefix_len))
    }

    /// The bridge's MAC, made from the gateway's address. A bridge without one of its own takes its ports' lowest and
    /// changes it as containers come and go, which breaks the neighbours' ARP entries.
    pub fn bridge_mac(&self) -> [u8; 6] {
        let [a, b, c, d] = self.gateway.octets();
        [0x02, 0x42, a, b, c, d]
    }
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
    /// The container's address.
    pub address: Ipv4Addr,
    /// The subnet's length in bits.
    pub prefix_len: u8,
    /// Where the default route leads: the bridge's address.
    pub gateway: Ipv4Addr,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
    /// The bridge that the host end belongs to.
    pub bridge: String,
    /// Let the bridge send a frame back to the port that it came from: `Facts::bridge_netfilter`. Where br_netfilter
    /// translates addresses inside the bridge, a container reaches its own published port only so.
    pub hairpin: bool,
    /// The published ports.
    pub ports: Vec<PortMapping>,
}

pub(crate) fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0)
}

pub(crate) fn first_address(address: Ipv4Addr, prefix_len: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & mask(prefix_len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_the_gateway_without_its_host_part() {
        let cases = [
            ("172.17.0.1", 16, "172.17.0.0", "172.17.255.255"),
            ("10.1.2.3", 30, "10.1.2.0", "10.1.2.3"),
            ("10.1.2.3", 0, "0.0.0.0", "255.255.255.255"),
            ("10.1.2.3", 32, "10.1.2.3", "10.1.2.3"),
        ];
        for (gateway, prefix_len, first, last) in cases {
            let network = Network {
                name: "n".into(),
                bridge: "b".into(),
                gateway: gateway.parse().unwrap(),
                prefix_len,
                mtu: 1500,
                table: "t".into(),
                backend: Backend::Nftables,
            };
            assert_eq!(network.subnet(), (first.parse().unwrap(), prefix_len), "{gateway}/{prefix_len}");
            assert_eq!(network.broadcast(), last.parse::<Ipv4Addr>().unwrap(), "{gateway}/{prefix_len}");
        }
    }
}
