//! Flows that the kernel remembers. A UDP client that keeps sending from one port stays with the translation of its
//! first packet: the flows of a mapping are forgotten when it comes and when it goes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::encode::{bytes, header, nested};
use crate::host::Host;
use crate::netlink::{Batch, Netlink, attribute};
use crate::{Command, PortMapping, Protocol};

/// Operations on the connection table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Forgets the flows to host ports. It leaves nothing behind, and a failure is none: the flows end by themselves.
    Forget {
        /// The first of the published ports.
        mapping: PortMapping,
        /// The last of them, on the host.
        last: u16,
        /// The container's address.
        address: IpAddr,
    },
}

impl Op {
    pub(crate) fn explain(&self) -> Vec<Command> {
        let Op::Forget { mapping, last, .. } = self;
        let at = if mapping.host_address.is_unspecified() {
            String::new()
        } else {
            format!(" --orig-dst {}", mapping.host_address)
        };
        let family = if mapping.host_address.is_ipv6() { "-f ipv6 " } else { "" };
        let (protocol, first) = (mapping.protocol, mapping.host_port);
        let command = if first == *last {
            format!("conntrack -D {family}-p {protocol}{at} --orig-port-dst {first} || true")
        } else {
            format!(
                "for port in $(seq {first} {last}); do conntrack -D {family}-p {protocol}{at} --orig-port-dst $port; \
                 done || true"
            )
        };
        vec![(command, "flows from before the mapping would go on to where they went".to_owned())]
    }

    pub(crate) fn target(&self) -> Target {
        let Op::Forget { mapping, last, address } = self;
        let (protocol, host_address) = (mapping.protocol, mapping.host_address);
        Target { protocol, host_address, host_ports: (mapping.host_port, *last), address: *address }
    }
}

/// Published ports of the host and the container that they lead to: whose flows are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub protocol: Protocol,
    pub host_address: IpAddr,
    /// The first and the last.
    pub host_ports: (u16, u16),
    pub address: IpAddr,
}

/// Addresses and ports of one direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tuple {
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
}

/// include/uapi/linux/netfilter/nfnetlink_conntrack.h
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_FILTER: u16 = 25;
const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;

/// Up to so many ports the kernel is asked for each one's flows, above for all of the protocol: each question goes through
/// the whole table, but only what it finds costs much.
const MOST_QUESTIONS: usize = 64;
/// So many flows are deleted by one message.
const DELETED_AT_ONCE: usize = 512;

/// Deletes the flows to published ports, best effort. The table may hold millions: they're judged as they come, and
/// nothing is kept of them but what is about to be deleted.
pub(crate) fn forget(host: &mut Host, targets: &[Target]) {
    let Ok(netlink) = host.netfilter() else {
        return;
    };
    let kind = |target: &Target| (target.protocol, target.host_address.is_ipv4());
    let mut kinds: Vec<(Protocol, bool)> = targets.iter().map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for (protocol, ipv4) in kinds {
        let these: Vec<&Target> = targets.iter().filter(|target| kind(target) == (protocol, ipv4)).collect();
        let mut ports: Vec<u16> = Vec::new();
        for (first, last) in these.iter().map(|target| target.host_ports) {
            ports.extend((first..=last).take(MOST_QUESTIONS + 1));
            if ports.len() > MOST_QUESTIONS {
                break;
            }
        }
        ports.sort_unstable();
        ports.dedup();
        let ports: Vec<Option<u16>> =
            if ports.len() > MOST_QUESTIONS { vec![None] } else { ports.into_iter().map(Some).collect() };
        let mut deletes = Deletes { family: family_of(ipv4), batch: Batch::default(), netlink: None };
        for port in ports {
            flows_to(netlink, deletes.family, protocol, port, |tuple, orig, reply| {
                let meant = |target: &&Target| {
                    (target.host_ports.0..=target.host_ports.1).contains(&orig.destination_port)
                        && concerned(&orig, &reply, target.host_address, target.address)
                };
                if these.iter().any(meant) {
                    deletes.push(tuple);
                }
            });
        }
        if deletes.batch.len() > 0 {
            let _ = netlink.send(&deletes.batch); // a flow that ended meanwhile is no matter
        }
    }
}

fn family_of(ipv4: bool) -> u8 {
    if ipv4 { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// Flows to be deleted.
struct Deletes {
    family: u8,
    batch: Batch,
    /// Another socket, while a dump comes by the first one; opened when there are many.
    netlink: Option<Netlink>,
}

impl Deletes {
    fn push(&mut self, tuple: &[u8]) {
        self.batch.push(SUBSYSTEM | DELETE, 0, |out| {
            header(out, self.family, 0);
            bytes(out, CTA_TUPLE_ORIG | 0x8000, tuple);
        });
        if self.batch.len() < DELETED_AT_ONCE {
            return;
        }
        let full = std::mem::take(&mut self.batch);
        if self.netlink.is_none() {
            self.netlink = Netlink::netfilter().ok();
        }
        if let Some(netlink) = &mut self.netlink {
            let _ = netlink.send(&full);
        }
    }
}

/// One direction of a flow, as a person reads it: `172.17.0.2:80 -> 10.0.0.9:40000`.
fn arrow(tuple: &Tuple) -> String {
    let end = |address, port| std::net::SocketAddr::new(address, port).to_string();
    format!("{} -> {}", end(tuple.source, tuple.source_port), end(tuple.destination, tuple.destination_port))
}

/// The flows of the caller's namespace that began at this source port: how they began, and what an answer looks like.
pub(crate) fn flows_from(netlink: &mut Netlink, protocol: Protocol, port: u16) -> Vec<(String, String)> {
    let mut batch = Batch::default();
    batch.push(SUBSYSTEM | GET, libc::NLM_F_DUMP as u16, |out| header(out, 0, 0));
    let Ok((answers, _)) = netlink.exchange(&batch) else {
        return Vec::new();
    };
    let read = |payload: &[u8]| {
        let body = payload.get(4..)?;
        let (orig, number) = tuple(attribute(body, CTA_TUPLE_ORIG)?)?;
        let (reply, _) = tuple(attribute(body, CTA_TUPLE_REPLY)?)?;
        (number == protocol.number() && orig.source_port == port).then(|| (arrow(&orig), arrow(&reply)))
    };
    answers.iter().filter_map(|answer| read(&answer.payload)).collect()
}

/// Deletes all flows that begin at, or were first sent to, one of these addresses, best effort.
pub(crate) fn forget_addresses(netlink: &mut Netlink, addresses: &[std::net::Ipv4Addr]) {
    let mut batch = Batch::default();
    batch.push(SUBSYSTEM | GET, libc::NLM_F_DUMP as u16, |out| header(out, libc::AF_INET as u8, 0));
    let Ok((answers, _)) = netlink.exchange(&batch) else {
        return;
    };
    let mut deletes = Batch::default();
    for raw in answers.iter().filter_map(|answer| attribute(answer.payload.get(4..)?, CTA_TUPLE_ORIG)) {
        let ip = attribute(raw, CTA_TUPLE_IP).unwrap_or_default();
        let is_one = |kind| attribute(ip, kind).is_some_and(|found| addresses.iter().any(|one| one.octets() == found));
        if is_one(1) || is_one(2) {
            deletes.push(SUBSYSTEM | DELETE, 0, |out| {
                header(out, libc::AF_INET as u8, 0);
                bytes(out, CTA_TUPLE_ORIG | 0x8000, raw);
            });
        }
    }
    if deletes.len() > 0 {
        let _ = netlink.send(&deletes); // a flow that ended meanwhile is no matter
    }
}

/// Whether the flow goes to the mapping's host address and is either translated to the container, to a container that was
/// there before, or not at all. A flow that is only masqueraded passes by this host to another's port.
fn concerned(orig: &Tuple, reply: &Tuple, host_address: IpAddr, address: IpAddr) -> bool {
    let here = host_address.is_unspecified() || orig.destination == host_address;
    let redirected = reply.source != orig.destination || reply.source_port != orig.destination_port;
    let masqueraded = reply.destination != orig.source;
    here && (redirected || !masqueraded || reply.source == address)
}

/// The flows with this protocol, and destination port if one is given: the raw tuple, and both directions. The kernel
/// filters them since 5.8 (CTA_FILTER), before that it sends all.
fn flows_to(
    netlink: &mut Netlink,
    family: u8,
    protocol: Protocol,
    port: Option<u16>,
    mut each: impl FnMut(&[u8], Tuple, Tuple),
) {
    // net/netfilter/nf_internals.h: CTA_FILTER_F_CTA_PROTO_NUM, CTA_FILTER_F_CTA_PROTO_DST_PORT
    let filter: u32 = if port.is_some() { 1 << 3 | 1 << 5 } else { 1 << 3 };
    let mut batch = Batch::default();
    batch.push(SUBSYSTEM | GET, libc::NLM_F_DUMP as u16, |out| {
        header(out, family, 0);
        nested(out, CTA_TUPLE_ORIG, |out| {
            nested(out, CTA_TUPLE_PROTO, |out| {
                bytes(out, 1, &[protocol.number()]);
                bytes(out, 3, &port.unwrap_or_default().to_be_bytes());
            });
        });
        nested(out, CTA_FILTER, |out| {
            // The only numbers of netfilter in host byte order.
            bytes(out, 1, &filter.to_ne_bytes());
            bytes(out, 2, &0_u32.to_ne_bytes());
        });
    });
    // Without conntrack there is nothing to be forgotten.
    let _ = netlink.exchange_each(&batch, |answer| {
        let mut read = || {
            let body = answer.payload.get(4..)?;
            let raw = attribute(body, CTA_TUPLE_ORIG)?;
            let (orig, number) = tuple(raw)?;
            let (reply, _) = tuple(attribute(body, CTA_TUPLE_REPLY)?)?;
            if number == protocol.number() && port.is_none_or(|port| port == orig.destination_port) {
                each(raw, orig, reply);
            }
            Some(())
        };
        let _ = read();
    });
}

fn tuple(bytes: &[u8]) -> Option<(Tuple, u8)> {
    let (ip, proto) = (attribute(bytes, CTA_TUPLE_IP)?, attribute(bytes, CTA_TUPLE_PROTO)?);
    // CTA_IP_V4_SRC and _DST are 1 and 2, CTA_IP_V6_SRC and _DST 3 and 4.
    let address = |kind| match (attribute(ip, kind), attribute(ip, kind + 2)) {
        (Some(octets), _) => octets.try_into().ok().map(|octets: [u8; 4]| IpAddr::from(octets)),
        (None, octets) => octets?.try_into().ok().map(|octets: [u8; 16]| IpAddr::from(octets)),
    };
    let port = |kind| attribute(proto, kind)?.try_into().ok().map(u16::from_be_bytes);
    let tuple =
        Tuple { source: address(1)?, destination: address(2)?, source_port: port(2)?, destination_port: port(3)? };
    Some((tuple, *attribute(proto, 1)?.first()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flows_of_the_mapping_are_forgotten() {
        let tuple = |source: &str, source_port, destination: &str, destination_port| Tuple {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            source_port,
            destination_port,
        };
        let container = "172.17.0.2".parse().unwrap();
        let any = IpAddr::from([0, 0, 0, 0]);
        let orig = tuple("10.0.0.2", 5000, "10.0.0.1", 53);
        let plain = tuple("10.0.0.1", 53, "10.0.0.2", 5000);
        let ours = tuple("172.17.0.2", 53, "10.0.0.2", 5000);
        let stale = tuple("172.17.0.9", 53, "10.0.0.2", 5000);
        assert!(concerned(&orig, &plain, any, container), "from before the mapping");
        assert!(concerned(&orig, &ours, any, container), "of the mapping");
        assert!(concerned(&orig, &stale, any, container), "of a mapping before");
        assert!(!concerned(&orig, &ours, "10.0.0.9".parse().unwrap(), container), "to another address");
        let passing = tuple("172.17.0.3", 5000, "8.8.8.8", 53);
        let masqueraded = tuple("8.8.8.8", 53, "10.0.0.1", 5000);
        assert!(!concerned(&passing, &masqueraded, any, container), "a container's own question to a server");
    }
}
