//! A subnet of either IP version: its first address and its length in bits. Pure arithmetic.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A subnet; the host bits of its address are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    /// The first address.
    pub first: IpAddr,
    /// Its length in bits.
    pub prefix_len: u8,
}

impl Subnet {
    /// The subnet that an address lies in. A length that is too long is the whole address.
    pub fn around(address: IpAddr, prefix_len: u8) -> Subnet {
        let prefix_len = prefix_len.min(width(address));
        Subnet { first: from_bits(address, bits(address) & mask(address, prefix_len)), prefix_len }
    }

    /// The last address, in IPv4 the one for everybody.
    pub fn last(&self) -> IpAddr {
        let all = mask(self.first, width(self.first));
        from_bits(self.first, bits(self.first) | (all & !mask(self.first, self.prefix_len)))
    }

    /// The address this many steps after the first; the last one where there are fewer.
    pub fn nth(&self, steps: u128) -> IpAddr {
        from_bits(self.first, bits(self.first).saturating_add(steps).min(bits(self.last())))
    }

    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.is_ipv4() == address.is_ipv4() && Subnet::around(address, self.prefix_len) == *self
    }

    /// Whether all of the other lies in it.
    pub fn holds(&self, other: &Subnet) -> bool {
        self.prefix_len <= other.prefix_len && self.contains(other.first)
    }

    /// Whether they have addresses in common.
    pub fn overlaps(&self, other: &Subnet) -> bool {
        self.holds(other) || other.holds(self)
    }

    /// Whether it's one of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// An address of the same version as `like`.
fn from_bits(like: IpAddr, bits: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

fn mask(like: IpAddr, prefix_len: u8) -> u128 {
    let width = width(like);
    let all = if width == 32 { u128::from(u32::MAX) } else { u128::MAX };
    let host = u32::from(width - prefix_len.min(width));
    all & u128::MAX.checked_shl(host).unwrap_or(0)
}

/// An address with a length, as people write it: `10.0.0.5/24`.
pub fn parse_with_host(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let digits = !length.is_empty() && length.len() <= 3 && length.bytes().all(|byte| byte.is_ascii_digit());
    let length = length.parse().ok().filter(|length| digits && *length <= width(address))?;
    Some((address, length))
}

impl FromStr for Subnet {
    type Err = String;

    /// Host bits must be zero, so that a typing mistake isn't taken for another subnet.
    fn from_str(text: &str) -> Result<Subnet, String> {
        let Some((address, length)) = parse_with_host(text) else {
            return Err(format!("invalid CIDR address: {text}"));
        };
        let subnet = Subnet::around(address, length);
        match subnet.first == address {
            true => Ok(subnet),
            false => Err(format!("invalid subnet {text}: it should be {subnet}")),
        }
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Subnet, String> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_and_last_address() {
        for (text, last, second) in [
            ("10.1.2.0/24", "10.1.2.255", "10.1.2.1"),
            ("0.0.0.0/0", "255.255.255.255", "0.0.0.1"),
            ("10.0.0.7/32", "10.0.0.7", "10.0.0.7"),
            ("fd00::/64", "fd00::ffff:ffff:ffff:ffff", "fd00::1"),
            ("::/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1"),
        ] {
            assert_eq!(subnet(text).last().to_string(), last, "{text}");
            assert_eq!(subnet(text).nth(1).to_string(), second, "{text}");
            assert_eq!(subnet(text).to_string(), text);
        }
    }

    #[test]
    fn overlaps_are_seen_within_one_version_only() {
        for (a, b, expected) in [
            ("10.0.0.0/8", "10.1.2.0/24", true),
            ("10.1.2.0/24", "10.0.0.0/8", true),
            ("10.1.2.0/24", "10.1.3.0/24", false),
            ("0.0.0.0/0", "fd00::/8", false),
            ("::/0", "fd00::/64", true),
        ] {
            assert_eq!(subnet(a).overlaps(&subnet(b)), expected, "{a} {b}");
        }
    }

    #[test]
    fn what_is_no_subnet() {
        for text in
            ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0/8", "x/8", "::/129", "10.0.0.0/8/8"]
        {
            assert_eq!(text.parse::<Subnet>(), Err(format!("invalid CIDR address: {text}")));
        }
        assert_eq!(
            "10.1.2.3/24".parse::<Subnet>(),
            Err("invalid subnet 10.1.2.3/24: it should be 10.1.2.0/24".to_owned())
        );
    }
}
