//! Links with their addresses, and neighbours: ARP, neighbour discovery, forwarding tables of bridges.

use std::net::IpAddr;

use serde::Serialize;

use crate::Result;
use crate::netlink::{Answer, Batch, Netlink, attribute, attributes, text_of, u16_at, u32_at};

/// A link.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What somebody noted of it.
    pub alias: String,
    /// `bridge`, `veth`, …; empty for hardware and lo.
    pub kind: String,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it has a carrier: the other end is on, too.
    pub carrier: bool,
    /// In bytes.
    pub mtu: u32,
    /// `02:42:…`
    pub mac: String,
    /// Index of the bridge that it belongs to; 0: none.
    pub master: u32,
    /// Index of the other end, or of the link that it sits on.
    pub peer_index: u32,
    /// The number by which its namespace calls the one of the other end; none: the same.
    #[serde(skip)]
    pub peer_number: Option<i32>,
    /// The inode of the other end's namespace, where it is known.
    pub peer_namespace: Option<u64>,
    /// Addresses and the lengths of their subnets.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A neighbour.
#[derive(Debug, Clone, Serialize)]
pub struct Neighbour {
    /// The link's index: for a bridge's forwarding entry the port's.
    pub link: u32,
    /// Its address; none in a forwarding table.
    pub address: Option<IpAddr>,
    /// `02:42:…`; empty while it is looked for.
    pub mac: String,
    /// Index of the bridge, in a forwarding table.
    pub bridge: u32,
    /// NUD_* of include/uapi/linux/neighbour.h
    pub state: u16,
}

const IFF_LOWER_UP: u32 = 1 << 16;

/// All links.
pub(super) fn read(route: &mut Netlink) -> Result<Vec<Link>> {
    let links = dump(route, libc::RTM_GETLINK, 16, "list the links")?;
    let mut links: Vec<Link> =
        links.iter().filter(|answer| answer.kind == libc::RTM_NEWLINK).map(|answer| link(&answer.payload)).collect();
    for answer in dump(route, libc::RTM_GETADDR, 8, "list the addresses")? {
        let (index, length) = (u32_at(&answer.payload, 4), answer.payload.get(1).copied().unwrap_or(0));
        let body = answer.payload.get(8..).unwrap_or_default();
        let value = attribute(body, libc::IFA_LOCAL).or_else(|| attribute(body, libc::IFA_ADDRESS));
        if let (Some(address), Some(link)) = (value.and_then(ip), links.iter_mut().find(|link| link.index == index)) {
            link.addresses.push((address, length));
        }
    }
    Ok(links)
}

fn link(payload: &[u8]) -> Link {
    const IFLA_LINK_NETNSID: u16 = 37;
    let flags = u32_at(payload, 8);
    let mut link = Link {
        index: u32_at(payload, 4),
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(payload.get(16..).unwrap_or_default()) {
        match kind {
            libc::IFLA_IFNAME => link.name = text_of(value),
            libc::IFLA_IFALIAS => link.alias = text_of(value),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0),
            libc::IFLA_MASTER => link.master = u32_at(value, 0),
            libc::IFLA_LINK => link.peer_index = u32_at(value, 0),
            libc::IFLA_ADDRESS => link.mac = mac(value),
            libc::IFLA_LINKINFO => link.kind = attribute(value, 1).map(text_of).unwrap_or_default(),
            IFLA_LINK_NETNSID => link.peer_number = Some(u32_at(value, 0) as i32),
            _ => {}
        }
    }
    if link.peer_index == link.index && link.peer_number.is_none() {
        link.peer_index = 0; // some devices name themselves
    }
    link
}

/// All neighbours that are (or were just) there.
pub(super) fn neighbours(route: &mut Netlink) -> Result<Vec<Neighbour>> {
    const NDA_DST: u16 = 1;
    const NDA_LLADDR: u16 = 2;
    const NDA_MASTER: u16 = 9;
    let mut found = Vec::new();
    for family in [libc::AF_UNSPEC as u8, libc::AF_BRIDGE as u8] {
        let mut batch = Batch::default();
        batch.push(libc::RTM_GETNEIGH, libc::NLM_F_DUMP as u16, |out| {
            out.extend_from_slice(&[family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        });
        let (answers, _) = route.exchange(&batch).map_err(|failure| failure.into_error("list the neighbours"))?;
        for answer in answers.iter().filter(|answer| answer.kind == libc::RTM_NEWNEIGH) {
            let body = answer.payload.get(12..).unwrap_or_default();
            found.push(Neighbour {
                link: u32_at(&answer.payload, 4),
                address: attribute(body, NDA_DST).and_then(ip),
                mac: attribute(body, NDA_LLADDR).map(mac).unwrap_or_default(),
                bridge: attribute(body, NDA_MASTER).map_or(0, |value| u32_at(value, 0)),
                state: u16_at(&answer.payload, 8),
            });
        }
    }
    Ok(found)
}

/// A dump with an empty header of this length.
pub(super) fn dump(route: &mut Netlink, kind: u16, header: usize, what: &str) -> Result<Vec<Answer>> {
    let mut batch = Batch::default();
    batch.push(kind, libc::NLM_F_DUMP as u16, |out| out.resize(out.len() + header, 0));
    let (answers, failures) = route.exchange(&batch).map_err(|failure| failure.into_error(what))?;
    match failures.into_iter().next() {
        None => Ok(answers),
        Some(failure) => Err(failure.into_error(what)),
    }
}

/// An address of 4 or 16 bytes.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn mac(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
