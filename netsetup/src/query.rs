//! The links that are there, asked of rtnetlink.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};

use crate::Result;
use crate::netlink::{Batch, Netlink, attribute, attributes, text_of, u32_at};

/// A link as the kernel tells it, as far as anybody here asks. Read by hand: the packet crate's parser refuses whole
/// messages for one attribute that a newer kernel has extended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub index: u32,
    pub name: String,
    pub alias: String,
    pub kind: String,
    pub up: bool,
    pub mtu: u32,
    /// Index of the bridge that it belongs to; 0: none.
    pub master: u32,
}

const RTM_NEWLINK: u16 = libc::RTM_NEWLINK;
const IFLA_INFO_KIND: u16 = 1;

impl Found {
    fn read(payload: &[u8]) -> Found {
        let mut found =
            Found { index: u32_at(payload, 4), up: u32_at(payload, 8) & libc::IFF_UP as u32 != 0, ..Found::default() };
        for (kind, value) in attributes(payload.get(16..).unwrap_or_default()) {
            match kind {
                libc::IFLA_IFNAME => found.name = text_of(value),
                libc::IFLA_IFALIAS => found.alias = text_of(value),
                libc::IFLA_MTU => found.mtu = u32_at(value, 0),
                libc::IFLA_MASTER => found.master = u32_at(value, 0),
                libc::IFLA_LINKINFO => found.kind = attribute(value, IFLA_INFO_KIND).map(text_of).unwrap_or_default(),
                _ => {}
            }
        }
        found
    }
}

/// The link of this name.
pub(crate) fn get(netlink: &mut Netlink, name: &str) -> Result<Option<Found>> {
    get_by(netlink, 0, Some(name), name)
}

/// The link of this index.
pub(crate) fn get_index(netlink: &mut Netlink, index: u32) -> Result<Option<Found>> {
    get_by(netlink, index, None, &format!("link {index}"))
}

fn get_by(netlink: &mut Netlink, index: u32, name: Option<&str>, what: &str) -> Result<Option<Found>> {
    let mut batch = Batch::default();
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    message.attributes.extend(name.map(|name| LinkAttribute::IfName(name.to_owned())));
    batch.push_route(RouteNetlinkMessage::GetLink(message), 0);
    let (answers, failures) =
        netlink.exchange(&batch).map_err(|failure| failure.into_error(format!("look for {what}")))?;
    match failures.into_iter().next() {
        None => Ok(answers.iter().find(|answer| answer.kind == RTM_NEWLINK).map(|answer| Found::read(&answer.payload))),
        Some(failure) if failure.errno == libc::ENODEV => Ok(None),
        Some(failure) => Err(failure.into_error(format!("look for {what}"))),
    }
}

/// The links that belong to this bridge (all links where `master` is 0).
pub(crate) fn list(netlink: &mut Netlink, master: u32) -> Result<Vec<Found>> {
    let mut batch = Batch::default();
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    if master != 0 {
        message.attributes.push(LinkAttribute::Controller(master));
    }
    batch.push_route(RouteNetlinkMessage::GetLink(message), libc::NLM_F_DUMP as u16);
    let (answers, failures) = netlink.exchange(&batch).map_err(|failure| failure.into_error("list the links"))?;
    if let Some(failure) = failures.into_iter().next() {
        return Err(failure.into_error("list the links"));
    }
    let found = answers.iter().filter(|answer| answer.kind == RTM_NEWLINK).map(|answer| Found::read(&answer.payload));
    Ok(found.filter(|found| master == 0 || found.master == master).collect())
}

/// The highest index of a link in this namespace.
pub(crate) fn highest_index(netlink: &mut Netlink) -> Result<u32> {
    Ok(list(netlink, 0)?.iter().map(|found| found.index).max().unwrap_or(0))
}
