//! Which addresses this host has a use for: its routes in all tables, and the subnets of its links. Reading changes
//! nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::host::Host;
use crate::netlink::{Answer, Batch, Netlink, attributes, u32_at};
use crate::{Result, query};

const DUMP: u16 = libc::NLM_F_DUMP as u16;
/// include/uapi/linux/rtnetlink.h: the table of the host's own addresses.
const TABLE_MAIN: u32 = 254;
/// rtm_flags: an entry of a cache, such as a learned MTU, which is no route.
const RTM_F_CLONED: u32 = 0x200;

/// A destination that this host has a route to, or the subnet of one of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The first address, or the host's own.
    pub address: IpAddr,
    /// Length in bits.
    pub prefix_len: u8,
    /// The link that leads there; empty: none (a blackhole), or several.
    pub link: String,
    /// The routing table; `None`: an address of a link.
    pub table: Option<u32>,
}

impl Known {
    /// `the route 10.0.0.0/8 dev tun0 (table 52)`, `the address 10.1.0.1/24 of eth0`.
    pub fn describe(&self) -> String {
        let what = format!("{}/{}", self.address, self.prefix_len);
        match self.table {
            None => format!("the address {what} of {}", self.link),
            Some(table) => {
                let link = if self.link.is_empty() { String::new() } else { format!(" dev {}", self.link) };
                let table = if table == TABLE_MAIN { String::new() } else { format!(" (table {table})") };
                format!("the route {what}{link}{table}")
            }
        }
    }
}

/// All of them, both IP versions. Addresses come first, because they tell more than the routes made from them.
pub fn known(host: &mut Host) -> Result<Vec<Known>> {
    let netlink = host.route()?;
    let links: HashMap<u32, String> =
        query::list(netlink, 0)?.into_iter().map(|found| (found.index, found.name)).collect();
    let mut all = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = AddressMessage::default();
        message.header.family = family;
        let answers = dump(netlink, RouteNetlinkMessage::GetAddress(message), "list the host's addresses")?;
        all.extend(answers.iter().filter_map(|answer| address(answer, &links)));
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let answers = dump(netlink, RouteNetlinkMessage::GetRoute(message), "list the host's routes")?;
        all.extend(answers.iter().filter_map(|answer| route(answer, &links)));
    }
    Ok(all)
}

/// The bridges that have an address.
pub fn bridges(host: &mut Host) -> Result<Vec<String>> {
    let bridges: Vec<String> = query::list(host.route()?, 0)?
        .into_iter()
        .filter(|found| found.kind == "bridge")
        .map(|found| found.name)
        .collect();
    let known = known(host)?;
    let addressed =
        |name: &String| known.iter().any(|one| one.table.is_none() && one.link == *name && !is_link_local(one.address));
    Ok(bridges.into_iter().filter(addressed).collect())
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn dump(netlink: &mut Netlink, message: RouteNetlinkMessage, what: &str) -> Result<Vec<Answer>> {
    let mut batch = Batch::default();
    batch.push_route(message, DUMP);
    let (answers, failures) = netlink.exchange(&batch).map_err(|failure| failure.into_error(what))?;
    match failures.into_iter().next() {
        None => Ok(answers),
        // A kernel without IPv6 has none of its routes.
        Some(failure) if matches!(failure.errno, libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => Ok(Vec::new()),
        Some(failure) => Err(failure.into_error(what)),
    }
}

/// struct ifaddrmsg: family, length of the prefix, flags, scope, index.
fn address(answer: &Answer, links: &HashMap<u32, String>) -> Option<Known> {
    if answer.kind != libc::RTM_NEWADDR {
        return None;
    }
    let prefix_len = *answer.payload.get(1)?;
    let link = links.get(&u32_at(&answer.payload, 4)).cloned().unwrap_or_default();
    let mut own = None;
    for (kind, value) in attributes(answer.payload.get(8..)?) {
        match kind {
            libc::IFA_LOCAL => own = ip(value),
            // In IPv4 the other end of a point-to-point link; in IPv6 the address itself.
            libc::IFA_ADDRESS if own.is_none() => own = ip(value),
            _ => {}
        }
    }
    Some(Known { address: own?, prefix_len, link, table: None })
}

/// struct rtmsg: family, length of the destination's prefix, of the source's, TOS, table, protocol, scope, type, flags.
fn route(answer: &Answer, links: &HashMap<u32, String>) -> Option<Known> {
    if answer.kind != libc::RTM_NEWROUTE || u32_at(&answer.payload, 8) & RTM_F_CLONED != 0 {
        return None;
    }
    let (family, prefix_len) = (*answer.payload.first()?, *answer.payload.get(1)?);
    let mut table = u32::from(*answer.payload.get(4)?);
    let mut destination = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let mut link = String::new();
    for (kind, value) in attributes(answer.payload.get(12..)?) {
        match kind {
            libc::RTA_DST => destination = ip(value)?,
            libc::RTA_OIF => link = links.get(&u32_at(value, 0)).cloned().unwrap_or_default(),
            libc::RTA_TABLE => table = u32_at(value, 0),
            _ => {}
        }
    }
    Some(Known { address: destination, prefix_len, link, table: Some(table) })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_says_whose_it_is() {
        let known = |table| Known { address: [10, 0, 0, 0].into(), prefix_len: 8, link: "tun0".into(), table };
        assert_eq!(known(Some(254)).describe(), "the route 10.0.0.0/8 dev tun0");
        assert_eq!(known(Some(52)).describe(), "the route 10.0.0.0/8 dev tun0 (table 52)");
        assert_eq!(known(None).describe(), "the address 10.0.0.0/8 of tun0");
        let blackhole = Known { link: String::new(), ..known(Some(254)) };
        assert_eq!(blackhole.describe(), "the route 10.0.0.0/8");
    }

    /// The test's own namespace has at least lo's addresses, which are in the table `local`.
    #[test]
    fn the_hosts_own_addresses_are_known() {
        let all = known(&mut Host::open().unwrap()).unwrap();
        assert!(all.iter().all(|known| known.prefix_len <= 128));
    }
}
