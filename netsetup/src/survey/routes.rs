//! Routes, and the kernel's answer to "where would this packet go?".

use std::net::IpAddr;

use serde::Serialize;

use super::links::{dump, ip};
use crate::Result;
use crate::netlink::{Batch, Netlink, attribute, u32_at};

/// A route.
#[derive(Debug, Clone, Serialize)]
pub struct Route {
    /// First address and length of the destination.
    pub destination: (IpAddr, u8),
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The link's index; 0: none (blackhole, several hops).
    pub link: u32,
    /// The table: 254 is `main`.
    pub table: u32,
    /// RTN_*: 1 unicast, 6 blackhole, 7 unreachable, 8 prohibit.
    pub kind: u8,
}

/// What a route look-up says.
#[derive(Debug, Clone, Serialize)]
pub struct Lookup {
    /// RTN_*: 1 unicast, 2 local, …
    pub kind: u8,
    /// The outgoing link's index.
    pub link: u32,
    /// The next hop; none: a neighbour.
    pub gateway: Option<IpAddr>,
    /// The source address that the kernel would take.
    pub source: Option<IpAddr>,
}

const HEADER: usize = 12; // struct rtmsg

/// All routes but those of table `local` and the kernel's own of IPv6 (link-local, multicast).
pub(crate) fn read(route: &mut Netlink) -> Result<Vec<Route>> {
    const TABLE_LOCAL: u32 = 255;
    let mut routes = Vec::new();
    for answer in dump(route, libc::RTM_GETROUTE, HEADER, "list the routes")? {
        let (payload, body) = (&answer.payload, answer.payload.get(HEADER..).unwrap_or_default());
        let byte = |at: usize| payload.get(at).copied().unwrap_or(0);
        let any = match i32::from(byte(0)) {
            libc::AF_INET => IpAddr::from([0; 4]),
            libc::AF_INET6 => IpAddr::from([0; 16]),
            _ => continue,
        };
        let table = attribute(body, libc::RTA_TABLE).map_or(u32::from(byte(4)), |value| u32_at(value, 0));
        let first = attribute(body, libc::RTA_DST).and_then(ip).unwrap_or(any);
        let of_kernel = matches!(first, IpAddr::V6(first) if first.is_multicast() || first.is_unicast_link_local());
        if table == TABLE_LOCAL || of_kernel || answer.kind != libc::RTM_NEWROUTE {
            continue;
        }
        routes.push(Route {
            destination: (first, byte(1)),
            gateway: attribute(body, libc::RTA_GATEWAY).and_then(ip),
            link: attribute(body, libc::RTA_OIF).map_or(0, |value| u32_at(value, 0)),
            table,
            kind: byte(7),
        });
    }
    Ok(routes)
}

/// Where the caller's namespace would send a packet (`ip route get`): from itself, or one that came in by a link.
///
/// # Errors
/// The errno where there is no way: ENETUNREACH, EHOSTUNREACH, EINVAL (a route that says so), EXDEV (the reverse path).
pub fn lookup(to: IpAddr, from: Option<IpAddr>, came_in_by: Option<u32>) -> Result<std::result::Result<Lookup, i32>> {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let bits = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let mut batch = Batch::default();
    batch.push(libc::RTM_GETROUTE, 0, |out| {
        out.extend_from_slice(&[family as u8, bits(to), from.map_or(0, bits), 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut put = |kind: u16, value: &[u8]| {
            out.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
            out.extend_from_slice(&kind.to_ne_bytes());
            out.extend_from_slice(value);
        };
        put(libc::RTA_DST, &bytes(to));
        if let Some(from) = from {
            put(libc::RTA_SRC, &bytes(from));
        }
        if let Some(index) = came_in_by {
            put(libc::RTA_IIF, &index.to_ne_bytes());
        }
    });
    let (answers, failures) =
        Netlink::route()?.exchange(&batch).map_err(|failure| failure.into_error("look a route up"))?;
    if let Some(failure) = failures.into_iter().next() {
        return Ok(Err(failure.errno));
    }
    let Some(answer) = answers.iter().find(|answer| answer.kind == libc::RTM_NEWROUTE) else {
        return Ok(Err(libc::ENETUNREACH));
    };
    let body = answer.payload.get(HEADER..).unwrap_or_default();
    Ok(Ok(Lookup {
        kind: answer.payload.get(7).copied().unwrap_or(0),
        link: attribute(body, libc::RTA_OIF).map_or(0, |value| u32_at(value, 0)),
        gateway: attribute(body, libc::RTA_GATEWAY).and_then(ip),
        source: attribute(body, libc::RTA_PREFSRC).and_then(ip),
    }))
}
