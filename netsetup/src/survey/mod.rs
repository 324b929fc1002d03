//! A survey: the network as the kernel has it now, in this namespace and in all that hang together with it. Reading
//! changes nothing. Its cost is no matter: a person looks at it (`net graph`, `walk`).

mod links;
mod nft;
mod nft_text;
mod places;
mod qdisc;
mod routes;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use serde::Serialize;

pub use links::{Link, Neighbour};
pub use nft::{Chain, Element, Map, Rule, Rules};
pub(crate) use nft::{count as count_rules, family_name, read as rules};
pub use places::Place;
pub use qdisc::{Class, Qdisc, filter_kinds};
pub(crate) use routes::read as routes;
pub use routes::{Lookup, Route, lookup};

use crate::firewall::iptables;
use crate::inside::within;
use crate::netlink::Netlink;
use crate::{Result, sysctl};

/// One network namespace.
#[derive(Debug, Serialize)]
pub struct Namespace {
    /// Its inode, which names it: `net:[4026531840]`.
    pub inode: u64,
    /// Its names in `ip netns`.
    pub names: Vec<String>,
    /// Processes in it; the first few.
    pub processes: Vec<u32>,
    /// Whether it is the caller's own: the host.
    pub is_host: bool,
    /// Links, addresses, their place in bridges.
    pub links: Vec<Link>,
    /// Routes of all tables but `local`.
    pub routes: Vec<Route>,
    /// ARP, neighbour discovery, and the forwarding tables of bridges.
    pub neighbours: Vec<Neighbour>,
    /// Queueing disciplines that somebody has set.
    pub qdiscs: Vec<Qdisc>,
    /// nftables.
    pub rules: Rules,
    /// Rules of iptables, as `iptables-save` prints them; empty without any.
    pub iptables: Vec<String>,
    /// The same of `ip6tables-save`.
    pub ip6tables: Vec<String>,
    /// Tables of the old iptables (`iptables-legacy`), which nftables can't show.
    pub legacy_tables: Vec<String>,
    /// net.ipv4.ip_forward
    pub ip_forward: bool,
    /// net.ipv6.conf.all.forwarding
    pub ip6_forward: bool,
    #[serde(skip)]
    file: Option<File>,
}

impl Namespace {
    /// What to call it: its name, or where it is found.
    pub fn title(&self) -> String {
        match (self.is_host, self.names.first(), self.processes.first()) {
            (true, _, _) => "host".to_owned(),
            (false, Some(name), _) => name.clone(),
            (false, None, Some(pid)) => format!("netns of pid {pid}"),
            (false, None, None) => format!("net:[{}]", self.inode),
        }
    }

    /// Runs the action in this namespace. Only for a single-threaded caller.
    pub fn run<T>(&self, action: impl FnOnce() -> Result<T>) -> Result<T> {
        match &self.file {
            Some(file) if !self.is_host => within(file.as_fd(), action),
            _ => action(),
        }
    }

    /// Its descriptor; none for the caller's own.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(File::as_fd)
    }

    /// The link of this index.
    pub fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The link of this name.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }
}

/// Looks at this namespace and at all that have a name, are given by a descriptor (`more`), or hang on one of these by
/// a link.
pub fn survey(more: Vec<File>) -> Result<Vec<Namespace>> {
    let places = places::find(more)?;
    let mut found: Vec<Namespace> = Vec::new();
    for place in places {
        // A container that ends while we look is no error, just not there.
        if let Some(namespace) = read(place)? {
            found.push(namespace);
        }
    }
    places::tie(&mut found)?;
    Ok(found)
}

fn read(place: Place) -> Result<Option<Namespace>> {
    let action = || {
        let mut route = Netlink::route()?;
        let on = |key: &str| Ok::<_, crate::Error>(sysctl::read(key)?.is_some_and(|value| value != "0"));
        let rules = nft::read(&mut Netlink::netfilter()?)?;
        Ok(Namespace {
            inode: place.inode,
            names: place.names.clone(),
            processes: place.processes.clone(),
            is_host: place.is_host,
            links: links::read(&mut route)?,
            routes: routes::read(&mut route)?,
            neighbours: links::neighbours(&mut route)?,
            qdiscs: qdisc::read(&mut route)?,
            iptables: if rules.of_iptables("ip") { iptables::save() } else { Vec::new() },
            ip6tables: if rules.of_iptables("ip6") { iptables::saved_by("ip6tables-save") } else { Vec::new() },
            rules,
            legacy_tables: legacy_tables(),
            ip_forward: on("net/ipv4/ip_forward")?,
            ip6_forward: on("net/ipv6/conf/all/forwarding")?,
            file: None,
        })
    };
    let namespace = if place.is_host { action() } else { within(place.file.as_fd(), action) };
    match namespace {
        Ok(namespace) => Ok(Some(Namespace { file: Some(place.file), ..namespace })),
        Err(error) if place.is_host => Err(error),
        Err(_) => Ok(None),
    }
}

/// Whether iptables-legacy has tables of one IP version here.
pub(crate) fn legacy_is_used(v6: bool) -> bool {
    let path = if v6 { "/proc/thread-self/net/ip6_tables_names" } else { "/proc/thread-self/net/ip_tables_names" };
    std::fs::read_to_string(path).is_ok_and(|text| !text.is_empty())
}

/// The kernel makes a table of the old iptables when somebody first looks at it.
fn legacy_tables() -> Vec<String> {
    let files = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
    files
        .iter()
        .filter_map(|path| std::fs::read_to_string(path.replace("/proc/net", "/proc/thread-self/net")).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}
