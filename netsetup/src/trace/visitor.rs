//! A client from outside: a throw-away namespace on a cable of its own. What it sends is led into the uplink's card as if
//! it had come in there (a redirect on our own cable; the uplink itself isn't touched), so that rules which name the
//! uplink judge it.
//!
//! Nothing holds the namespace but this process. With it go the cable, and with the cable the redirect, the route and the
//! neighbour entry on the host: nothing is left, however the process ends.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use crate::firewall::messages::text;
use crate::host::Host;
use crate::inside::within;
use crate::netlink::{Batch, Netlink};
use crate::{Error, Result, netns, query, sysctl};

const ACK: u16 = libc::NLM_F_ACK as u16;
const NEW: u16 = ACK | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// A client from outside.
pub struct Visitor {
    netns: File,
    /// The namespace's inode.
    pub inode: u64,
    /// The end of its cable on the host.
    pub cable: String,
    /// Its address: one of those that are kept for documentation, which nobody has.
    pub address: IpAddr,
    /// The card that its packets seem to come in by; none where they come in by the cable itself.
    pub enters_by: Option<String>,
    /// Why they don't seem to come in by the uplink.
    pub why_not: Option<String>,
}

impl Visitor {
    /// Makes one. `uplink`: the card by which clients from outside come in. Only for a single-threaded caller.
    pub fn make(host: &mut Host, uplink: Option<&str>, v6: bool) -> Result<Visitor> {
        let (fd, inode) = netns::make_holder()?;
        let cable = format!("mdwalk{:x}", std::process::id());
        let (own_mac, far_mac) = ([0x02, 0x6d, 0x64, 0, 0, 1], [0x02, 0x6d, 0x64, 0, 0, 2]);
        let number = free_number(host)?;
        let (address, gateway): (IpAddr, IpAddr) = match v6 {
            false => (Ipv4Addr::new(198, 51, 100, number).into(), Ipv4Addr::new(198, 51, 100, 1).into()),
            true => (
                Ipv6Addr::new(0x2001, 0xdb8, 0x6d64, 0, 0, 0, 0, u16::from(number)).into(),
                Ipv6Addr::new(0x2001, 0xdb8, 0x6d64, 0, 0, 0, 0, 1).into(),
            ),
        };
        let what = "make a client outside";
        let mut batch = Batch::default();
        batch.push_route(pair(&cable, far_mac, own_mac, &fd), NEW);
        batch.push_route(up(&cable), ACK);
        host.route()?.send(&batch).map_err(|failure| failure.into_error(what))?;
        within(fd.as_fd(), || {
            let mut batch = Batch::default();
            batch.push_route(up("eth0"), ACK);
            batch.push_route(up("lo"), ACK);
            let mut route = Netlink::route()?;
            route.send(&batch).map_err(|failure| failure.into_error(what))?;
            let index = index_of(&mut route, "eth0")?;
            let mut batch = Batch::default();
            own_address(&mut batch, index, address);
            neighbour(&mut batch, index, gateway, far_mac);
            one_route(&mut batch, index, None, Some(gateway), v6);
            route.send(&batch).map_err(|failure| failure.into_error(what))
        })?;
        let index = index_of(host.route()?, &cable)?;
        let mut batch = Batch::default();
        neighbour(&mut batch, index, address, own_mac);
        one_route(&mut batch, index, Some(address), None, v6);
        host.route()?.send(&batch).map_err(|failure| failure.into_error(what))?;
        let mut visitor = Visitor { netns: fd, inode, cable, address, enters_by: None, why_not: None };
        match uplink {
            None => {
                visitor.why_not =
                    Some("this host has no way out, so no card by which a client would come in".to_owned())
            }
            Some(uplink) => match redirect(host, index, uplink) {
                Ok(()) => visitor.enters_by = Some(uplink.to_owned()),
                Err(why) => visitor.why_not = Some(why.to_string()),
            },
        }
        Ok(visitor)
    }

    /// Its namespace.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// The namespace as a file, for the survey.
    pub fn file(&self) -> Option<File> {
        self.netns.try_clone().ok()
    }
}

impl Drop for Visitor {
    /// Takes the cable away at once; the kernel would do it a moment after this process has ended.
    fn drop(&mut self) {
        if let Ok(mut route) = Netlink::route()
            && let Ok(Some(found)) = query::get(&mut route, &self.cable)
        {
            let _ = crate::link::delete(&mut route, found.index);
        }
    }
}

/// The last byte of an address that no other client has at the moment. One that has just gone may still have its route.
fn free_number(host: &mut Host) -> Result<u8> {
    let used: Vec<u8> = crate::survey::routes(host.route()?)?
        .iter()
        .filter_map(|route| match route.destination {
            (IpAddr::V4(address), 32) if address.octets()[..3] == [198, 51, 100] => Some(address.octets()[3]),
            (IpAddr::V6(address), 128) if address.segments()[..3] == [0x2001, 0xdb8, 0x6d64] => {
                Some(address.segments()[7] as u8)
            }
            _ => None,
        })
        .collect();
    let first = (std::process::id() % 250) as u8;
    let mut numbers = (0..250_u8).map(|step| 2 + ((u16::from(first) + u16::from(step)) % 250) as u8);
    numbers
        .find(|number| !used.contains(number))
        .ok_or_else(|| Error::Refused("250 clients from outside are walking at the moment; try again".to_owned()))
}

fn pair(cable: &str, mac: [u8; 6], far_mac: [u8; 6], netns: &File) -> RouteNetlinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName("eth0".to_owned()),
        LinkAttribute::Address(far_mac.to_vec()),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(cable.to_owned()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    RouteNetlinkMessage::NewLink(message)
}

fn up(link: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![LinkAttribute::IfName(link.to_owned())];
    RouteNetlinkMessage::SetLink(message)
}

fn index_of(route: &mut Netlink, link: &str) -> Result<u32> {
    query::get(route, link)?
        .map(|found| found.index)
        .ok_or_else(|| Error::Refused(format!("the link {link} of the client outside is gone")))
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn family(v6: bool) -> u8 {
    if v6 { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 }
}

fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn own_address(batch: &mut Batch, index: u32, address: IpAddr) {
    let length = if address.is_ipv4() { 32 } else { 128 };
    batch.push(libc::RTM_NEWADDR, NEW, |out| {
        // struct ifaddrmsg; IFA_F_NODAD
        out.extend_from_slice(&[family(address.is_ipv6()), length, 2, 0]);
        out.extend_from_slice(&index.to_ne_bytes());
        put(out, libc::IFA_LOCAL, &bytes(address));
        put(out, libc::IFA_ADDRESS, &bytes(address));
    });
}

/// A neighbour that needn't be asked for.
fn neighbour(batch: &mut Batch, index: u32, address: IpAddr, mac: [u8; 6]) {
    const NUD_PERMANENT: u16 = 0x80;
    batch.push(libc::RTM_NEWNEIGH, ACK | (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16, |out| {
        // struct ndmsg
        out.extend_from_slice(&[family(address.is_ipv6()), 0, 0, 0]);
        out.extend_from_slice(&index.to_ne_bytes());
        out.extend_from_slice(&NUD_PERMANENT.to_ne_bytes());
        out.extend_from_slice(&[0, 0]);
        put(out, 1, &bytes(address));
        put(out, 2, &mac);
    });
}

/// A route to one address, or to all, by this link.
fn one_route(batch: &mut Batch, index: u32, to: Option<IpAddr>, gateway: Option<IpAddr>, v6: bool) {
    const ONLINK: u32 = 4; // RTNH_F_ONLINK
    let length = to.map_or(0, |to| if to.is_ipv4() { 32 } else { 128 });
    let scope = if gateway.is_some() { 0 } else { 253 };
    batch.push(libc::RTM_NEWROUTE, NEW, |out| {
        // struct rtmsg: table main, made at run time, unicast
        out.extend_from_slice(&[family(v6), length, 0, 0, libc::RT_TABLE_MAIN, 3, if v6 { 0 } else { scope }, 1]);
        out.extend_from_slice(&gateway.map_or(0, |_| ONLINK).to_ne_bytes());
        if let Some(to) = to {
            put(out, libc::RTA_DST, &bytes(to));
        }
        if let Some(gateway) = gateway {
            put(out, libc::RTA_GATEWAY, &bytes(gateway));
        }
        put(out, libc::RTA_OIF, &index.to_ne_bytes());
    });
}

/// Leads all that comes in by the cable into the uplink's card (clsact, u32, mirred).
fn redirect(host: &mut Host, cable: u32, uplink: &str) -> Result<()> {
    // A strict reverse path filter would drop what comes in by another card than the answers go out by.
    for key in ["all".to_owned(), uplink.to_owned()] {
        if sysctl::read(&format!("net/ipv4/conf/{key}/rp_filter"))?.as_deref() == Some("1") {
            return Err(Error::Refused(format!("net.ipv4.conf.{key}.rp_filter is 1")));
        }
    }
    let target = index_of(host.route()?, uplink)?;
    const CLSACT: u32 = 0xffff_fff1; // TC_H_CLSACT
    const INGRESS: u32 = 0xffff_fff2; // TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
    const ALL_PROTOCOLS: u32 = 0x0300; // htons(ETH_P_ALL)
    const NESTED: u16 = 0x8000;
    let tcmsg = |out: &mut Vec<u8>, handle: u32, parent: u32, info: u32| {
        out.extend_from_slice(&[0; 4]);
        for number in [cable, handle, parent, info] {
            out.extend_from_slice(&number.to_ne_bytes());
        }
    };
    let mut parameters = Vec::new(); // struct tc_mirred: index, capab, action STOLEN, refcnt, bindcnt, INGRESS_REDIR, link
    for number in [0, 0, 4, 0, 0, 3, target] {
        parameters.extend_from_slice(&number.to_ne_bytes());
    }
    let mut action = Vec::new();
    text(&mut action, 1, "mirred");
    let mut options = Vec::new();
    put(&mut options, 2, &parameters);
    put(&mut action, 2 | NESTED, &options);
    let mut actions = Vec::new();
    put(&mut actions, 1 | NESTED, &action);
    // struct tc_u32_sel: TERMINAL, one key that fits everything
    let mut selector = vec![1, 0, 1, 0];
    selector.extend_from_slice(&[0; 12]);
    selector.extend_from_slice(&[0; 16]);
    let mut batch = Batch::default();
    batch.push(libc::RTM_NEWQDISC, NEW, |out| {
        tcmsg(out, 0xffff_0000, CLSACT, 0);
        text(out, 1, "clsact");
    });
    batch.push(libc::RTM_NEWTFILTER, NEW, |out| {
        tcmsg(out, 0, INGRESS, 1 << 16 | ALL_PROTOCOLS);
        text(out, 1, "u32");
        let mut body = Vec::new();
        put(&mut body, 5, &selector);
        put(&mut body, 7 | NESTED, &actions);
        put(out, 2 | NESTED, &body);
    });
    host.route()?.send(&batch).map_err(|failure| failure.into_error(format!("lead a cable's packets into {uplink}")))
}
