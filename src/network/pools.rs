//! Subnets for new networks: the first of the pools that nobody has, neither another network nor a route of the host in
//! any table. Pure: who has what is given.

use std::net::{IpAddr, Ipv6Addr};

use super::subnet::Subnet;

/// Pools of IPv4, and the length of a network's subnet in each. The first one is far from what docker (172.17-31,
/// 192.168), podman (10.88, 10.89), libvirt (192.168.122) and most offices use; the others are for hosts that have a
/// route for all of 10.0.0.0/8 (many VPNs). The default networks of roots are 172.17.0.0 to 172.31.0.0/16.
const POOLS: [(&str, u8); 3] = [("10.208.0.0/14", 24), ("192.168.128.0/17", 24), ("172.30.0.0/15", 24)];
/// A subnet of IPv6 has 64 bits for hosts (RFC 4291 2.5.1), and a site 16 bits for subnets (RFC 4193 3.1).
const SITE_BITS: u8 = 48;
const SUBNET_BITS: u8 = 64;

/// A subnet that somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The subnet.
    pub subnet: Subnet,
    /// Who has it, for messages: `the route 10.0.0.0/8 dev tun0`.
    pub by: String,
}

/// Whether a route says nothing about who has an address: the default routes, and the halves of the address space that
/// VPNs lay over them.
pub fn is_default_route(subnet: &Subnet) -> bool {
    subnet.prefix_len <= 1
}

/// Our own pools, as `info` prints them.
pub fn defaults() -> String {
    POOLS.map(|(pool, length)| format!("{pool} in /{length}")).join(", ")
}

/// The first subnet that nobody has of the pools: those of the configuration, else ours.
pub fn free_ipv4(configured: Option<&[(Subnet, u8)]>, taken: &[Taken]) -> Option<Subnet> {
    match configured {
        Some(pools) => pools.iter().find_map(|(pool, length)| first_free(*pool, *length, taken)),
        None => POOLS.iter().find_map(|(pool, length)| first_free(pool.parse().ok()?, *length, taken)),
    }
}

/// The first subnet that nobody has of the site's unique-local prefix (RFC 4193). `site`: 40 bits that are this host's
/// and root's own.
pub fn free_ipv6(site: u64, taken: &[Taken]) -> Option<Subnet> {
    let prefix = 0xfd_u128 << 120 | u128::from(site & 0xff_ffff_ffff) << 80;
    first_free(Subnet::around(IpAddr::V6(Ipv6Addr::from_bits(prefix)), SITE_BITS), SUBNET_BITS, taken)
}

fn first_free(pool: Subnet, prefix_len: u8, taken: &[Taken]) -> Option<Subnet> {
    let width = if pool.is_ipv4() { 32 } else { 128 };
    let count = 1_u128 << (prefix_len - pool.prefix_len);
    let step = 1_u128 << (width - prefix_len);
    let mut near: Vec<&Subnet> = taken.iter().map(|taken| &taken.subnet).collect();
    near.retain(|subnet| subnet.overlaps(&pool));
    let mut candidates = (0..count).map(|number| Subnet::around(pool.nth(number * step), prefix_len));
    candidates.find(|candidate| !near.iter().any(|taken| taken.overlaps(candidate)))
}

/// Who has a part of this subnet.
pub fn clash<'a>(wanted: &Subnet, taken: &'a [Taken]) -> Option<&'a Taken> {
    taken.iter().find(|taken| taken.subnet.overlaps(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(list: &[&str]) -> Vec<Taken> {
        list.iter().map(|text| Taken { subnet: text.parse().unwrap(), by: (*text).to_owned() }).collect()
    }

    fn free(list: &[&str]) -> Option<String> {
        free_ipv4(None, &taken(list)).map(|subnet| subnet.to_string())
    }

    #[test]
    fn the_first_subnet_that_nobody_has() {
        assert_eq!(free(&[]).as_deref(), Some("10.208.0.0/24"));
        assert_eq!(free(&["10.208.0.0/24"]).as_deref(), Some("10.208.1.0/24"));
        assert_eq!(free(&["10.208.0.128/25", "10.208.1.7/32"]).as_deref(), Some("10.208.2.0/24"));
        assert_eq!(free(&["10.208.0.0/16", "fd00::/8"]).as_deref(), Some("10.209.0.0/24"));
        assert_eq!(free(&["10.0.0.0/8"]).as_deref(), Some("192.168.128.0/24"));
        assert_eq!(free(&["10.0.0.0/8", "192.168.0.0/16"]).as_deref(), Some("172.30.0.0/24"));
        assert_eq!(free(&["10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12"]), None);
    }

    #[test]
    fn the_configuration_s_pools_take_the_place_of_ours() {
        let pools: &[(Subnet, u8)] = &[("10.9.0.0/26".parse().unwrap(), 27)];
        let free = |list: &[&str]| free_ipv4(Some(pools), &taken(list)).map(|subnet| subnet.to_string());
        assert_eq!(free(&[]).as_deref(), Some("10.9.0.0/27"));
        assert_eq!(free(&["10.9.0.0/27"]).as_deref(), Some("10.9.0.32/27"));
        assert_eq!(free(&["10.9.0.0/16"]), None);
    }

    #[test]
    fn a_thousand_networks_find_room() {
        let pool: Subnet = POOLS[0].0.parse().unwrap();
        let network = |number: u128| Taken { subnet: Subnet::around(pool.nth(number << 8), 24), by: String::new() };
        let mut all: Vec<Taken> = (0..1023).map(network).collect();
        assert_eq!(free_ipv4(None, &all).unwrap().to_string(), "10.211.255.0/24");
        all.push(network(1023));
        assert_eq!(free_ipv4(None, &all).unwrap().to_string(), "192.168.128.0/24");
    }

    #[test]
    fn ipv6_subnets_are_unique_local() {
        let first = free_ipv6(0x12_3456_789a, &[]).unwrap();
        assert_eq!(first.to_string(), "fd12:3456:789a::/64");
        let all = [Taken { subnet: first, by: String::new() }];
        assert_eq!(free_ipv6(0x12_3456_789a, &all).unwrap().to_string(), "fd12:3456:789a:1::/64");
        assert_eq!(free_ipv6(0x12_3456_789a, &taken(&["fd00::/8"])), None);
    }

    #[test]
    fn a_clash_names_the_other_side() {
        let all = taken(&["10.1.0.0/16", "fd00::/64"]);
        assert_eq!(clash(&"10.1.2.0/24".parse().unwrap(), &all).unwrap().by, "10.1.0.0/16");
        assert_eq!(clash(&"10.0.0.0/8".parse().unwrap(), &all).unwrap().by, "10.1.0.0/16");
        assert_eq!(clash(&"10.2.0.0/16".parse().unwrap(), &all), None);
    }

    #[test]
    fn default_routes_take_nothing() {
        for (text, expected) in [("0.0.0.0/0", true), ("128.0.0.0/1", true), ("::/0", true), ("10.0.0.0/8", false)] {
            assert_eq!(is_default_route(&text.parse().unwrap()), expected, "{text}");
        }
    }
}
