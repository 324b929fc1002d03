//! The host's side: netlink sockets of the caller's network namespace, opened when first needed.

use crate::netlink::Netlink;
use crate::{Error, Result, query};

/// Sockets into the network namespace of the caller.
pub struct Host {
    route: Option<Netlink>,
    netfilter: Option<Netlink>,
    /// The last bridge looked up, and its index.
    bridge: Option<(String, u32)>,
}

impl Host {
    /// Costs nothing: each socket is opened when first used, in the network namespace of that moment.
    pub fn open() -> Result<Host> {
        Ok(Host { route: None, netfilter: None, bridge: None })
    }

    pub(crate) fn route(&mut self) -> Result<&mut Netlink> {
        match &mut self.route {
            Some(netlink) => Ok(netlink),
            none => Ok(none.insert(Netlink::route()?)),
        }
    }

    pub(crate) fn netfilter(&mut self) -> Result<&mut Netlink> {
        match &mut self.netfilter {
            Some(netlink) => Ok(netlink),
            none => Ok(none.insert(Netlink::netfilter()?)),
        }
    }

    /// The index of a bridge that must be there.
    pub(crate) fn bridge_index(&mut self, name: &str) -> Result<u32> {
        match self.known_bridge(name) {
            Some(index) => Ok(index),
            None => {
                let Some(found) = query::get(self.route()?, name)? else {
                    return Err(Error::Refused(format!("the bridge {name} is gone: was it removed by hand?")));
                };
                self.remember_bridge(name, found.index);
                Ok(found.index)
            }
        }
    }

    /// The index of a bridge that was there a moment ago, if it has been looked up.
    pub(crate) fn known_bridge(&self, name: &str) -> Option<u32> {
        self.bridge.as_ref().filter(|(known, _)| known == name).map(|(_, index)| *index)
    }

    pub(crate) fn remember_bridge(&mut self, name: &str, index: u32) {
        self.bridge = Some((name.to_owned(), index));
    }

    pub(crate) fn forget_bridge(&mut self) {
        self.bridge = None;
    }
}
