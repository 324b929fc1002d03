//! Links, addresses and routes of the container's network namespace, by three netlink dumps (rtnetlink(7)): there is no `ip` in the image.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use serde::Serialize;

const RTM_GETLINK: u16 = 18;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const MOST_ENTRIES: usize = 256;

/// A link with its addresses.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) index: u32,
    /// The interface index of the veth's other end, in the host's namespace.
    pub(super) peer_index: Option<u32>,
    pub(super) mac: Option<String>,
    pub(super) mtu: Option<u32>,
    pub(super) up: bool,
    /// With prefix length: `172.17.0.2/16`
    pub(super) addresses: Vec<String>,
}

/// A route of the main table.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Route {
    /// `default` or `172.17.0.0/16`
    pub(super) destination: String,
    pub(super) gateway: Option<String>,
    pub(super) interface: Option<String>,
}

/// Reads both.
pub(super) fn read() -> Result<(Vec<Interface>, Vec<Route>), String> {
    let mut interfaces = BTreeMap::new();
    for payload in dump(RTM_GETLINK, RTM_NEWLINK, 16)? {
        if let Some(interface) = interface(&payload) {
            interfaces.insert(interface.index, interface);
        }
    }
    for payload in dump(RTM_GETADDR, RTM_NEWADDR, 8)? {
        if let Some((index, address)) = address(&payload)
            && let Some(interface) = interfaces.get_mut(&index)
        {
            interface.addresses.push(address);
        }
    }
    let name = |index: u32| interfaces.get(&index).map(|interface: &Interface| interface.name.clone());
    let routes = dump(RTM_GETROUTE, RTM_NEWROUTE, 12)?.iter().filter_map(|payload| route(payload, &name)).collect();
    Ok((interfaces.into_values().collect(), routes))
}

/// The payloads of all messages of one dump. `body` is the length of the request's empty body.
fn dump(request: u16, answer: u16, body: usize) -> Result<Vec<Vec<u8>>, String> {
    let failed = |errno: rustix::io::Errno| format!("netlink: {errno}");
    let socket = net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is 0
    )
    .map_err(failed)?;
    let mut message = Vec::new();
    message.extend((16 + body as u32).to_ne_bytes());
    message.extend(request.to_ne_bytes());
    message.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    message.resize(16 + body, 0);
    net::send(&socket, &message, SendFlags::empty()).map_err(failed)?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (length, _) = net::recv(&socket, &mut buffer[..], RecvFlags::empty()).map_err(failed)?;
        let mut data = &buffer[..length];
        while let Some((kind, payload, rest)) =
            split(data, 16, |data| (u32_at(data, 0).unwrap_or(0) as usize, u16_at(data, 4).unwrap_or(0)))
        {
            match kind {
                2 | 3 => return Ok(found), // error or done: what is here is what there is
                kind if kind == answer && found.len() < MOST_ENTRIES => found.push(payload.to_vec()),
                _ => {}
            }
            data = rest;
        }
    }
}

/// Splits off a length-type-value record: messages and attributes have the same form.
fn split(data: &[u8], header: usize, read: impl Fn(&[u8]) -> (usize, u16)) -> Option<(u16, &[u8], &[u8])> {
    if data.len() < header {
        return None;
    }
    let (length, kind) = read(data);
    let payload = data.get(header..length)?;
    Some((kind, payload, data.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn attributes(mut data: &[u8]) -> BTreeMap<u16, &[u8]> {
    let mut found = BTreeMap::new();
    while let Some((kind, payload, rest)) =
        split(data, 4, |data| (u16_at(data, 0).unwrap_or(0) as usize, u16_at(data, 2).unwrap_or(0)))
    {
        found.insert(kind & 0x3fff, payload);
        data = rest;
    }
    found
}

fn interface(payload: &[u8]) -> Option<Interface> {
    let (index, flags) = (u32_at(payload, 4)?, u32_at(payload, 8)?);
    let attributes = attributes(payload.get(16..)?);
    let mac = attributes.get(&1).filter(|mac| mac.len() == 6 && mac.iter().any(|byte| *byte != 0));
    Some(Interface {
        name: String::from_utf8_lossy(attributes.get(&3)?).trim_end_matches('\0').to_string(),
        index,
        peer_index: attributes.get(&5).and_then(|value| u32_at(value, 0)).filter(|peer| *peer != 0 && *peer != index),
        mac: mac.map(|mac| mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")),
        mtu: attributes.get(&4).and_then(|value| u32_at(value, 0)),
        up: flags & 1 == 1,
        addresses: Vec::new(),
    })
}

fn address(payload: &[u8]) -> Option<(u32, String)> {
    let (prefix, index) = (*payload.get(1)?, u32_at(payload, 4)?);
    let attributes = attributes(payload.get(8..)?);
    // IFA_LOCAL is our end of a point-to-point link; IPv6 has only IFA_ADDRESS.
    let address = ip(attributes.get(&2).or_else(|| attributes.get(&1))?)?;
    Some((index, format!("{address}/{prefix}")))
}

fn route(payload: &[u8], name: &dyn Fn(u32) -> Option<String>) -> Option<Route> {
    let (prefix, table, kind) = (*payload.get(1)?, *payload.get(4)?, *payload.get(7)?);
    // The main table's unicast routes: what `ip route` prints.
    if table != 254 || kind != 1 {
        return None;
    }
    let attributes = attributes(payload.get(12..)?);
    let destination = match attributes.get(&1).and_then(|value| ip(value)) {
        Some(address) => format!("{address}/{prefix}"),
        None => "default".to_string(),
    };
    let gateway = attributes.get(&5).and_then(|value| ip(value)).map(|address| address.to_string());
    let interface = attributes.get(&4).and_then(|value| u32_at(value, 0)).and_then(name);
    Some(Route { destination, gateway, interface })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_seen() {
        let (interfaces, _) = read().unwrap();
        let lo = interfaces.iter().find(|interface| interface.name == "lo").unwrap();
        assert_eq!((lo.index, lo.mac.as_ref(), lo.mtu), (1, None, Some(65536)));
    }

    #[test]
    fn damaged_messages_are_left_out() {
        for length in 0..40 {
            let payload = vec![0xff; length];
            assert_eq!(interface(&payload), None);
            assert_eq!(address(&payload), None);
            assert_eq!(route(&payload, &|_| None), None);
        }
        assert!(attributes(&[0, 0, 1, 0, 9]).is_empty(), "a length of zero must not loop");
    }
}
