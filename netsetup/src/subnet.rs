//! Subnets of both IP versions: the range of a network's addresses and what in it is not for containers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A network's addresses in one IP version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The host's address in it, the containers' gateway. With its length it makes the subnet.
    pub gateway: IpAddr,
    /// The subnet's length in bits.
    pub prefix_len: u8,
    /// The part from which addresses are given (`--ip-range`): an address in it and its length in bits. `None`: all.
    #[serde(default)]
    pub range: Option<(IpAddr, u8)>,
    /// Addresses that others have (`--aux-address`).
    #[serde(default)]
    pub reserved: Vec<IpAddr>,
}

impl Subnet {
    /// The subnet around the gateway.
    pub fn new(gateway: impl Into<IpAddr>, prefix_len: u8) -> Subnet {
        Subnet { gateway: gateway.into(), prefix_len, range: None, reserved: Vec::new() }
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        first_address(self.gateway, self.prefix_len)
    }

    /// The last address; in IPv4 the broadcast address.
    pub fn last(&self) -> IpAddr {
        last_address(self.gateway, self.prefix_len)
    }

    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.gateway.is_ipv4() && first_address(address, self.prefix_len) == self.first()
    }

    /// Whether the two have addresses in common.
    pub fn overlaps(&self, address: IpAddr, prefix_len: u8) -> bool {
        let shorter = self.prefix_len.min(prefix_len);
        address.is_ipv4() == self.gateway.is_ipv4()
            && first_address(self.gateway, shorter) == first_address(address, shorter)
    }
}

impl fmt::Display for Subnet {
    /// `172.17.0.0/16`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix_len)
    }
}

/// Bits of an address of this version: 32 or 128.
pub(crate) fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address as a number.
pub(crate) fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The number as an address of the same version as `like`.
pub(crate) fn from_number(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(number as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(number).into(),
    }
}

/// The bits of the host's part, set.
fn host_bits(address: IpAddr, prefix_len: u8) -> u128 {
    let length = bits_of(address) - prefix_len.min(bits_of(address));
    1_u128.checked_shl(u32::from(length)).map_or(u128::MAX, |bit| bit - 1)
}

/// The first address of the subnet around this one.
pub fn first_address(address: IpAddr, prefix_len: u8) -> IpAddr {
    from_number(to_number(address) & !host_bits(address, prefix_len), address)
}

/// The last address of the subnet around this one.
pub fn last_address(address: IpAddr, prefix_len: u8) -> IpAddr {
    from_number(to_number(address) | host_bits(address, prefix_len), address)
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
            ("fd00:1:2::1", 64, "fd00:1:2::", "fd00:1:2::ffff:ffff:ffff:ffff"),
            ("fd00::1", 128, "fd00::1", "fd00::1"),
            ("fd00::1", 0, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ];
        for (gateway, prefix_len, first, last) in cases {
            let subnet = Subnet::new(gateway.parse::<IpAddr>().unwrap(), prefix_len);
            assert_eq!(subnet.to_string(), format!("{first}/{prefix_len}"));
            assert_eq!(subnet.last(), last.parse::<IpAddr>().unwrap(), "{subnet}");
            assert!(subnet.contains(subnet.last()) && subnet.overlaps(subnet.first(), 24));
        }
        let subnet = Subnet::new(Ipv4Addr::new(10, 0, 0, 1), 24);
        assert!(!subnet.contains("10.0.1.1".parse().unwrap()) && !subnet.contains("::a00:1".parse().unwrap()));
    }
}
