//! Undo: residues of a journal, removed in the order given. Not there is success, another's is left alone, and an error
//! doesn't stop the rest.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::firewall::conntrack::Target;
use crate::firewall::nftables::{Element, Family};
use crate::firewall::{conntrack, docker, iptables, table};
use crate::host::Host;
use crate::{Backend, Error, Protocol, Result, dns, link, netns, ovs, query, router, sysctl, tc};

/// What stays on the host when every process is dead, with what undo needs to find it and to know it as its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Residue {
    /// The host's end of a container's veth pair.
    Link {
        /// Its name, made from the container's id.
        name: String,
        /// The container's name, the owner's mark.
        alias: String,
    },
    /// The parent of macvlan or ipvlan cards, made for a network.
    ParentLink {
        /// Its name.
        name: String,
        /// `vlan` or `dummy`.
        kind: String,
    },
    /// A bridge.
    Bridge {
        /// Its name.
        name: String,
    },
    /// An address given to a bridge that was there before.
    BridgeAddress {
        /// The bridge's name.
        bridge: String,
        /// The address.
        address: IpAddr,
        /// The subnet's length in bits.
        prefix_len: u8,
    },
    /// An nftables table.
    NftTable {
        /// `ip`, `ip6` or `bridge`.
        family: String,
        /// Its name.
        name: String,
    },
    /// Elements of sets and maps of an nftables table.
    NftElements {
        /// `ip`, `ip6` or `bridge`.
        family: String,
        /// The table's name.
        table: String,
        /// The elements.
        #[serde(with = "crate::firewall::compact")]
        elements: Vec<Element>,
    },
    /// A rule of iptables.
    IptablesRule {
        /// Of ip6tables.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        v6: bool,
        /// filter, nat, mangle or raw.
        table: String,
        /// Its chain.
        chain: String,
        /// The words after the chain, as `iptables-save` prints them.
        rule: Vec<String>,
    },
    /// A chain of iptables.
    IptablesChain {
        /// Of ip6tables.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        v6: bool,
        /// filter, nat, mangle or raw.
        table: String,
        /// Its name.
        chain: String,
    },
    /// A table that iptables-nft made for our rules.
    IptablesTable {
        /// Of ip6tables.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        v6: bool,
        /// filter, nat, mangle or raw.
        table: String,
    },
    /// A namespace's name for `ip netns`.
    NetnsName {
        /// The container's name.
        name: String,
        /// PID 1 of the container as the host saw it.
        pid: u32,
    },
    /// A container's class in the uplink's tree, and the tree with the last one if it's ours.
    TcClass {
        /// The uplink.
        link: String,
        /// Major number × 65536 + minor number.
        class: u32,
        /// Held meanwhile.
        lock: std::path::PathBuf,
        /// The rate that it was given, which tells it from one that somebody else has made. Older journals lack it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate: Option<tc::Rate>,
    },
    /// A container's entry in a network's register of names.
    Names {
        /// The register.
        folder: std::path::PathBuf,
        /// The container's id.
        id: String,
    },
    /// A namespace that its name keeps alive.
    Netns {
        /// The name.
        name: String,
        /// The namespace's inode, the mark by which it is known.
        inode: u64,
    },
    /// A port in the database of Open vSwitch, which outlives even a reboot.
    OvsPort {
        /// The bridge.
        bridge: String,
        /// The port, named as its link.
        port: String,
        /// The owner's mark.
        owner: String,
    },
    /// A one-to-one address in a router.
    Floating {
        /// The router's name in `ip netns`.
        netns: String,
        /// Which firewall holds the rules.
        backend: Backend,
        /// The router's outside leg.
        link: String,
        /// The address outside.
        outside: Ipv4Addr,
        /// The container's address.
        inside: Ipv4Addr,
    },
    /// A default route of a container that was led to a router.
    DefaultRoute {
        /// The container's name in `ip netns`.
        netns: String,
        /// Where it led before.
        gateway: Ipv4Addr,
        /// Where it leads: the mark by which it is known.
        instead_of: Ipv4Addr,
    },
    /// A kernel setting.
    Sysctl {
        /// Path below /proc/sys.
        key: String,
        /// The value to bring back.
        old: String,
        /// The value that was written.
        new: String,
    },
}

/// What became of a residue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// Removed now.
    Removed,
    /// It was gone already, or had never come.
    NotThere,
    /// It isn't what was made, or others use it: left alone. Says why.
    NotOurs(String),
}

/// How long undo waits for links that are about to vanish by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// The link's namespace may still be dying: look for at most this many milliseconds whether it went by itself (which
    /// costs nothing), then remove it (which waits 14-28 ms in the kernel).
    WaitMs(u32),
    /// Don't wait: leave to the kernel what is about to vanish. Only after the container's processes are dead.
    Leave,
}

/// A dead namespace's links are gone 16-25 ms later; on a loaded machine the workqueue takes longer.
const WAIT_MS: u32 = 200;

/// Undoes the residues in this order; one result each. Waits for dying links (see [`Links::WaitMs`]).
pub fn undo(residues: &[Residue], host: &mut Host) -> Vec<Result<Undone>> {
    undo_with(residues, host, Links::WaitMs(WAIT_MS))
}

/// As [`undo`], with a choice for links.
pub fn undo_with(residues: &[Residue], host: &mut Host, links: Links) -> Vec<Result<Undone>> {
    let is_iptables =
        |residue: &Residue| matches!(residue, Residue::IptablesRule { .. } | Residue::IptablesChain { .. });
    let mut results = Vec::with_capacity(residues.len());
    for chunk in residues.chunk_by(|one, next| is_iptables(one) && is_iptables(next)) {
        if is_iptables(&chunk[0]) {
            results.extend(iptables::undo(&chunk.iter().collect::<Vec<_>>()));
            let udp = chunk.iter().filter_map(iptables::udp_ports);
            let targets: Vec<Target> = udp.map(|(at, ports, address)| udp_target(at, ports, address)).collect();
            conntrack::forget(host, &targets);
        } else {
            results.extend(chunk.iter().map(|residue| undo_one(residue, host, links)));
        }
    }
    results
}

fn undo_one(residue: &Residue, host: &mut Host, links: Links) -> Result<Undone> {
    match residue {
        Residue::Link { name, alias } => undo_link(name, alias, host, links),
        Residue::ParentLink { name, kind } => crate::parent::undo(name, kind, host),
        Residue::Bridge { name } => undo_bridge(name, host, links),
        Residue::BridgeAddress { bridge, address, prefix_len } => undo_address(bridge, *address, *prefix_len, host),
        Residue::NftTable { family, name } => table::undo_table(host.netfilter()?, family_of(family)?, name),
        Residue::NftElements { family, table, elements } => {
            let result = table::undo_elements(host.netfilter()?, family_of(family)?, table, elements);
            let target = |element: &Element| match element {
                Element::Port { protocol: Protocol::Udp, host_address, host_port, address, .. } => {
                    Some(udp_target(*host_address, (*host_port, *host_port), *address))
                }
                Element::Span { protocol: Protocol::Udp, host_address, first, last, address } => {
                    Some(udp_target(*host_address, (*first, *last), *address))
                }
                _ => None,
            };
            conntrack::forget(host, &elements.iter().filter_map(target).collect::<Vec<_>>());
            result
        }
        Residue::IptablesRule { .. } | Residue::IptablesChain { .. } => {
            iptables::undo(&[residue]).pop().unwrap_or(Ok(Undone::NotThere))
        }
        Residue::IptablesTable { v6, table } => {
            let family = if *v6 { Family::Ip6 } else { Family::Ip };
            table::undo_empty(host.netfilter()?, family, table)
        }
        Residue::NetnsName { name, pid } => netns::undo(name, *pid),
        Residue::TcClass { link, class, lock, rate } => tc::undo(link, *class, *rate, lock, host),
        Residue::Names { folder, id } => dns::names::withdraw(folder, id),
        Residue::Netns { name, inode } => netns::undo_hold(name, *inode),
        Residue::OvsPort { bridge, port, owner } => ovs::unplug(bridge, port, owner),
        Residue::Floating { netns, backend, link, outside, inside } => {
            router::undo_floating(netns, *backend, link, *outside, *inside)
        }
        Residue::DefaultRoute { netns, gateway, instead_of } => {
            router::undo_default_route(netns, *gateway, *instead_of)
        }
        Residue::Sysctl { key, old, new } => sysctl::undo(key, old, new),
    }
}

fn udp_target(host_address: IpAddr, host_ports: (u16, u16), address: IpAddr) -> Target {
    Target { protocol: Protocol::Udp, host_address, host_ports, address }
}

fn family_of(name: &str) -> Result<Family> {
    Family::of(name).ok_or_else(|| Error::Refused(format!("{name:?} is no family of nftables")))
}

/// No RTM_DELLINK for the normal end of a container: its namespace's death removes the link, and the call waits.
fn undo_link(name: &str, alias: &str, host: &mut Host, links: Links) -> Result<Undone> {
    let Some(found) = query::get(host.route()?, name)? else {
        return Ok(Undone::NotThere);
    };
    // Without an alias it was cut off between its birth and its second message; the name is made from our id.
    if found.kind != "veth" || !(found.alias == alias || found.alias.is_empty()) {
        return Ok(Undone::NotOurs(format!("the link {name} is {} {:?}", found.kind, found.alias)));
    }
    let wait_ms = match links {
        Links::WaitMs(wait_ms) => wait_ms,
        Links::Leave => return Ok(Undone::Removed),
    };
    let gone = wait_until(wait_ms, || {
        Ok(query::get_index(host.route()?, found.index)?.is_none_or(|now| now.name != found.name))
    })?;
    if gone {
        return Ok(Undone::Removed);
    }
    delete_link(name, found.index, host)
}

fn undo_bridge(name: &str, host: &mut Host, links: Links) -> Result<Undone> {
    let Some(found) = query::get(host.route()?, name)? else {
        return Ok(Undone::NotThere);
    };
    if found.kind != "bridge" {
        return Ok(Undone::NotOurs(format!("the link {name} is a {}", found.kind)));
    }
    // dockerd doesn't make its bridge again until it is restarted.
    if name == "docker0" && host.netfilter().is_ok_and(docker::is_here) {
        return Ok(Undone::NotOurs("the bridge docker0 is dockerd's, too".to_owned()));
    }
    let wait_ms = if let Links::WaitMs(wait_ms) = links { wait_ms } else { 0 };
    let free = wait_until(wait_ms, || Ok(query::list(host.route()?, found.index)?.is_empty()))?;
    if !free {
        let ports: Vec<String> = query::list(host.route()?, found.index)?.into_iter().map(|port| port.name).collect();
        return Ok(Undone::NotOurs(format!("the bridge {name} still has {}", ports.join(", "))));
    }
    host.forget_bridge();
    delete_link(name, found.index, host)
}

fn undo_address(bridge: &str, address: IpAddr, prefix_len: u8, host: &mut Host) -> Result<Undone> {
    let Some(found) = query::get(host.route()?, bridge)? else {
        return Ok(Undone::NotThere);
    };
    match link::delete_address(host.route()?, found.index, address, prefix_len) {
        Ok(()) => Ok(Undone::Removed),
        Err(failure) if failure.errno == libc::EADDRNOTAVAIL => Ok(Undone::NotThere),
        Err(failure) => Err(failure.into_error(format!("take {address}/{prefix_len} from the bridge {bridge}"))),
    }
}

fn delete_link(name: &str, index: u32, host: &mut Host) -> Result<Undone> {
    match link::delete(host.route()?, index) {
        Ok(()) => Ok(Undone::Removed),
        Err(failure) if failure.errno == libc::ENODEV => Ok(Undone::NotThere),
        Err(failure) => Err(failure.into_error(format!("remove the link {name}"))),
    }
}

/// Asks again every 2 ms until it is so (true) or the time is over (false).
fn wait_until(wait_ms: u32, mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let end = Instant::now() + Duration::from_millis(u64::from(wait_ms));
    loop {
        if done()? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
