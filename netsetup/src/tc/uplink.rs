//! The uplink, and what queueing discipline it has.

use super::encode::{self, Message, ROOT};
use super::{OWN_MAJOR, class_text};
use crate::host::Host;
use crate::netlink::{Batch, Netlink, attribute, text_of, u32_at};
use crate::{Error, Result, query};

/// The link by which the host reaches the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub link: String,
    /// What shapes it.
    pub tree: Tree,
}

/// The root of a link's queueing disciplines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// The kernel's default: nobody has set one.
    None,
    /// A tree of HTB classes.
    Htb {
        /// Its handle's number.
        major: u16,
        /// The classes in it.
        classes: Vec<u32>,
    },
    /// Another one that somebody has set: `fq_codel 8001:`.
    Other(String),
}

impl Uplink {
    /// The link with the default route.
    ///
    /// # Errors
    /// There is none, or the kernel doesn't say.
    pub fn read(host: &mut Host) -> Result<Uplink> {
        let found = crate::facts::egress_link(host).map(|index| query::get_index(host.route()?, index)).transpose()?;
        let Some(found) = found.flatten().filter(|found| found.name != "lo") else {
            return Err(Error::Refused(
                "--net-rate needs an uplink, and this host has no default route: add one (ip route add default …)"
                    .to_owned(),
            ));
        };
        let tree = tree(host.route()?, found.index)?;
        Ok(Uplink { link: found.name, tree })
    }

    /// The class for a container: in the tree that is there, or in one of our own. `seed`: made from the container's id.
    ///
    /// # Errors
    /// Somebody has set a discipline that has no classes.
    pub fn class(&self, seed: u16) -> Result<u32> {
        const NONE: &[u32] = &[];
        let (major, classes) = match &self.tree {
            Tree::None => (OWN_MAJOR, NONE),
            Tree::Htb { major, classes } => (*major, classes.as_slice()),
            Tree::Other(kind) => {
                return Err(Error::Refused(format!(
                    "--net-rate: {link} has the queueing discipline {kind}, which isn't minidock's to replace; remove it \
                     (tc qdisc del dev {link} root) or make it an htb",
                    link = self.link
                )));
            }
        };
        // People count from 1; and 0xffff is tc's own.
        let (first, count) = (0x1000_u32, 0xe000_u32);
        (0..count)
            .map(|step| u32::from(major) << 16 | (first + (u32::from(seed) + step) % count))
            .find(|class| !classes.contains(class))
            .ok_or_else(|| Error::Refused(format!("the tree of {} is full", self.link)))
    }

    /// The container's class as tc writes it.
    pub fn class_text(class: u32) -> String {
        class_text(class)
    }
}

pub(super) fn tree(netlink: &mut Netlink, index: u32) -> Result<Tree> {
    let mut batch = Batch::default();
    encode::list(&mut batch, Message::Qdisc, index);
    let what = "list the queueing disciplines";
    let (answers, failures) = netlink.exchange(&batch).map_err(|failure| failure.into_error(what))?;
    if let Some(failure) = failures.into_iter().next() {
        return Err(failure.into_error(what));
    }
    for answer in answers {
        let (of, handle, parent) =
            (u32_at(&answer.payload, 4), u32_at(&answer.payload, 8), u32_at(&answer.payload, 12));
        // A discipline without a number is the kernel's default.
        if of != index || parent != ROOT || handle == 0 {
            continue;
        }
        let kind = answer.payload.get(20..).and_then(|rest| attribute(rest, encode::KIND)).map(text_of);
        let (kind, major) = (kind.unwrap_or_default(), (handle >> 16) as u16);
        if kind != "htb" {
            return Ok(Tree::Other(format!("{kind} {major:x}:")));
        }
        return Ok(Tree::Htb { major, classes: classes(netlink, index, handle)? });
    }
    Ok(Tree::None)
}

/// The struct tc_htb_opt of a class; none where it isn't there.
pub(super) fn class_parms(netlink: &mut Netlink, index: u32, class: u32) -> Result<Option<Vec<u8>>> {
    const PARMS: u16 = 1;
    let mut batch = Batch::default();
    encode::list(&mut batch, Message::Class, index);
    let (answers, _) = netlink.exchange(&batch).map_err(|failure| failure.into_error("list the traffic classes"))?;
    let found = answers.iter().find(|answer| u32_at(&answer.payload, 8) == class);
    let options = found.and_then(|answer| attribute(answer.payload.get(20..)?, encode::OPTIONS));
    Ok(options.and_then(|options| attribute(options, PARMS)).map(<[u8]>::to_vec))
}

fn classes(netlink: &mut Netlink, index: u32, qdisc: u32) -> Result<Vec<u32>> {
    let mut batch = Batch::default();
    encode::list(&mut batch, Message::Class, index);
    let (answers, failures) =
        netlink.exchange(&batch).map_err(|failure| failure.into_error("list the traffic classes"))?;
    if let Some(failure) = failures.into_iter().next() {
        return Err(failure.into_error("list the traffic classes"));
    }
    let handles = answers.iter().map(|answer| u32_at(&answer.payload, 8));
    Ok(handles.filter(|handle| handle & 0xffff_0000 == qdisc).collect())
}
