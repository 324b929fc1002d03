//! Links, addresses and routes over rtnetlink: the bridge on the host, the veth pair, the container's eth0.
//!
//! The veth pair is made by one message from inside the container's namespace: eth0 is born in place and the other end
//! goes out to the host, into the bridge, up. Made on the host and moved, it would wait ~18 ms for an RCU grace period.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::netlink::{Batch, Failure, Netlink, Posted};
use crate::netns::NewNetns;
use crate::shell::quoted;
use crate::undo::Residue;
use crate::{Command, Error, Live, Result, query};

const ACK: u16 = libc::NLM_F_ACK as u16;
const NEW: u16 = ACK | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// Operations on links, addresses and routes. Those on the container's side go in one message batch, and its
/// namespace's death undoes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Makes a bridge.
    Bridge {
        /// The bridge's name.
        name: String,
        /// Its MAC, fixed so that it doesn't follow its ports'.
        mac: [u8; 6],
        /// In bytes.
        mtu: u32,
    },
    /// Gives the bridge its address, the containers' gateway.
    BridgeAddress {
        /// The bridge's name.
        bridge: String,
        /// The address.
        address: IpAddr,
        /// The subnet's length in bits.
        prefix_len: u8,
        /// Whether the bridge is made by the same plan, so that the address goes with it.
        with_bridge: bool,
    },
    /// Switches the bridge on.
    BridgeUp {
        /// The bridge's name.
        name: String,
    },
    /// Makes a veth pair: one end in the container, up; the other in the bridge, up, with the container's name as alias.
    Veth {
        /// The end on the host.
        host: String,
        /// The end in the container.
        inside: String,
        /// The bridge that the host end joins.
        bridge: String,
        /// MAC of the inside end.
        mac: [u8; 6],
        /// Of both ends, in bytes.
        mtu: u32,
        /// The container's name.
        alias: String,
        /// Frames may go back through the port that they came from.
        hairpin: bool,
        /// Frames don't go to other isolated ports of the bridge (icc=false).
        isolated: bool,
        /// The host end's group, by which the firewall knows whose frames it judges; 0: nobody's.
        group: u32,
    },
    /// Gives the container's link its address.
    Address {
        /// The link in the container.
        link: String,
        /// The address.
        address: IpAddr,
        /// The subnet's length in bits.
        prefix_len: u8,
    },
    /// Leads everything else to the gateway.
    DefaultRoute {
        /// The bridge's address.
        gateway: IpAddr,
    },
    /// Leads everything else to another gateway than before: a container that runs has come into a network, or left one.
    ReplaceDefaultRoute {
        /// The bridge's address.
        gateway: IpAddr,
    },
    /// Switches the container's lo on.
    LoopbackUp,
}

impl Op {
    pub(crate) fn residue(&self) -> Option<Residue> {
        match self {
            Op::Bridge { name, .. } => Some(Residue::Bridge { name: name.clone() }),
            Op::BridgeAddress { bridge, address, prefix_len, with_bridge: false } => {
                Some(Residue::BridgeAddress { bridge: bridge.clone(), address: *address, prefix_len: *prefix_len })
            }
            Op::Veth { host, alias, .. } => Some(Residue::Link { name: host.clone(), alias: alias.clone() }),
            // The bridge's or the namespace's death removes them; a found bridge stays up.
            Op::BridgeAddress { .. }
            | Op::BridgeUp { .. }
            | Op::Address { .. }
            | Op::DefaultRoute { .. }
            | Op::ReplaceDefaultRoute { .. }
            | Op::LoopbackUp => None,
        }
    }

    pub(crate) fn explain(&self) -> Vec<Command> {
        let line = |command: String, why: &str| (command, why.to_owned());
        match self {
            Op::Bridge { name, mac, mtu } => vec![line(
                format!("ip link add {name} address {} mtu {mtu} type bridge", mac_text(mac)),
                "a switch in the kernel that the containers plug into",
            )],
            Op::BridgeAddress { bridge, address, prefix_len, .. } => {
                vec![line(
                    format!("ip addr add {address}/{prefix_len} dev {bridge}{}", nodad(*address)),
                    "the host's address in the network: the containers' gateway",
                )]
            }
            Op::BridgeUp { name } => vec![line(format!("ip link set {name} up"), "switch the bridge on")],
            Op::Veth { host, inside, bridge, mac, mtu, alias, hairpin, isolated, group } => {
                let in_group = if *group == 0 { String::new() } else { format!(" group {group}") };
                let mut commands = vec![
                    line(
                        format!(
                            "ip link add {host} mtu {mtu}{in_group} type veth peer name {inside} address {} mtu {mtu} netns $pid",
                            mac_text(mac)
                        ),
                        "a virtual cable: one end on the host, the other in the container",
                    ),
                    line(format!("ip link set {host} alias {}", quoted(alias)), "note whose cable it is"),
                    line(format!("ip link set {host} master {bridge}"), "plug the host's end into the bridge"),
                    line(format!("ip link set {host} up"), "switch the host's end on"),
                    line(format!("nsenter -t $pid -n ip link set {inside} up"), "switch the container's end on"),
                ];
                if *hairpin {
                    commands.push(line(
                        format!("ip link set {host} type bridge_slave hairpin on"),
                        "br_netfilter translates inside the bridge: let a container reach its own published port",
                    ));
                }
                if *isolated {
                    commands.push(line(
                        format!("ip link set {host} type bridge_slave isolated on"),
                        "containers of this network don't reach each other",
                    ));
                }
                commands
            }
            Op::Address { link, address, prefix_len } => {
                vec![line(
                    format!("nsenter -t $pid -n ip addr add {address}/{prefix_len} dev {link}{}", nodad(*address)),
                    "the container's address",
                )]
            }
            Op::DefaultRoute { gateway } => {
                vec![line(
                    format!("nsenter -t $pid -n ip {}route add default via {gateway}", v6_flag(*gateway)),
                    "what is not in the subnet goes through the host",
                )]
            }
            Op::ReplaceDefaultRoute { gateway } => {
                vec![line(
                    format!("nsenter -t $pid -n ip {}route replace default via {gateway}", v6_flag(*gateway)),
                    "what is in none of the subnets goes this way now",
                )]
            }
            Op::LoopbackUp => {
                vec![line("nsenter -t $pid -n ip link set lo up".to_owned(), "localhost inside the container")]
            }
        }
    }

    fn inside(&self) -> bool {
        matches!(
            self,
            Op::Veth { .. }
                | Op::Address { .. }
                | Op::DefaultRoute { .. }
                | Op::ReplaceDefaultRoute { .. }
                | Op::LoopbackUp
        )
    }

    /// What the op does, for `cannot …: …`.
    fn what(&self) -> String {
        match self {
            Op::Bridge { name, .. } => format!("create the bridge {name}"),
            Op::BridgeAddress { bridge, address, prefix_len, .. } => {
                format!("give {address}/{prefix_len} to the bridge {bridge}")
            }
            Op::BridgeUp { name } => format!("switch on the bridge {name}"),
            Op::Veth { host, inside, bridge, .. } => {
                format!("create the link {inside} in the container with {host} in {bridge}")
            }
            Op::Address { link, address, prefix_len } => {
                format!("give {address}/{prefix_len} to {link} in the container")
            }
            Op::DefaultRoute { gateway } | Op::ReplaceDefaultRoute { gateway } => {
                format!("route the container's traffic by {gateway}")
            }
            Op::LoopbackUp => "switch on lo in the container".to_owned(),
        }
    }

    fn error(&self, failure: Failure) -> Error {
        match self {
            // br_add_if() in net/bridge/br_if.c: BR_MAX_PORTS
            Op::Veth { bridge, .. } if failure.errno == libc::EXFULL => Error::Refused(format!(
                "the bridge {bridge} is full: it has 1023 links, and Linux lets no bridge have more; remove containers, or \
                 start this one in another network (minidock network create)"
            )),
            _ => failure.into_error(self.what()),
        }
    }
}

/// Applies the ops in order; consecutive ops of the container's side go out in one sendmsg from inside its namespace.
pub(crate) fn apply(ops: &[Op], live: &mut Live) -> Result<()> {
    for chunk in ops.chunk_by(|one, next| one.inside() && next.inside()) {
        match chunk {
            [op] if !op.inside() => apply_on_host(op, live.host)?,
            ops => {
                let Some(netns) = live.netns.as_deref_mut() else {
                    return Err(Error::Refused("the container has no network namespace of its own".to_owned()));
                };
                apply_inside(ops, live.host, netns)?;
            }
        }
    }
    Ok(())
}

fn apply_on_host(op: &Op, host: &mut Host) -> Result<()> {
    let mut batch = Batch::default();
    match op {
        Op::Bridge { name, mac, mtu } => {
            let mut message = LinkMessage::default();
            message.attributes = vec![
                LinkAttribute::IfName(name.clone()),
                LinkAttribute::Address(mac.to_vec()),
                LinkAttribute::Mtu(*mtu),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
            ];
            batch.push_route(RouteNetlinkMessage::NewLink(message), NEW);
            host.forget_bridge();
        }
        Op::BridgeAddress { bridge, address, prefix_len, .. } => {
            batch.push_route(address_message(host.bridge_index(bridge)?, *address, *prefix_len), NEW);
        }
        Op::BridgeUp { name } => {
            let mut message = up_message();
            message.attributes = vec![LinkAttribute::IfName(name.clone())];
            batch.push_route(RouteNetlinkMessage::SetLink(message), ACK);
        }
        _ => {}
    }
    host.route()?.send(&batch).map_err(|failure| op.error(failure))
}

fn apply_inside(ops: &[Op], host: &mut Host, netns: &mut NewNetns) -> Result<()> {
    let messages = messages(ops, host, netns)?;
    netns.route.send(&messages.inside).map_err(|failure| failed(&messages.inside_ops, failure))?;
    finish_outside(&messages.outside, &messages.outside_ops, host)
}

/// Links of a container that are being made by another process.
pub(crate) struct Making {
    posted: Posted,
    inside_ops: Vec<Op>,
    outside: Batch,
    outside_ops: Vec<Op>,
}

/// Begins to apply ops of the container's side, which takes the kernel a millisecond, while the caller does other things;
/// [`finish`] waits for it. Dropped without that, it's waited for all the same.
///
/// # Errors
/// What the kernel refuses is told by [`finish`].
pub fn begin(ops: &[Op], host: &mut Host, netns: &mut NewNetns) -> Result<()> {
    finish(host, netns)?;
    if ops.is_empty() {
        return Ok(());
    }
    let messages = messages(ops, host, netns)?;
    let owned = |ops: &[&Op]| ops.iter().map(|op| (*op).clone()).collect();
    match netns.route.post(&messages.inside) {
        Ok(posted) => {
            let (inside_ops, outside_ops) = (owned(&messages.inside_ops), owned(&messages.outside_ops));
            netns.making = Some(Making { posted, inside_ops, outside: messages.outside, outside_ops });
            Ok(())
        }
        // No process to be had for it: at once, then.
        Err(_) => {
            netns.route.send(&messages.inside).map_err(|failure| failed(&messages.inside_ops, failure))?;
            finish_outside(&messages.outside, &messages.outside_ops, host)
        }
    }
}

/// Waits for what [`begin`] has begun, if anything.
///
/// # Errors
/// As [`crate::apply`].
pub fn finish(host: &mut Host, netns: &mut NewNetns) -> Result<()> {
    let Some(Making { posted, inside_ops, outside, outside_ops }) = netns.making.take() else { return Ok(()) };
    let all = |ops: &[Op], failure: Failure| failed(&ops.iter().collect::<Vec<_>>(), failure);
    netns.route.collect(posted).map_err(|failure| all(&inside_ops, failure))?;
    finish_outside(&outside, &outside_ops.iter().collect::<Vec<_>>(), host)
}

fn finish_outside(outside: &Batch, ops: &[&Op], host: &mut Host) -> Result<()> {
    if outside.len() > 0 {
        host.route()?.send(outside).map_err(|failure| failed(ops, failure))?;
    }
    Ok(())
}

/// What goes out from inside the container's namespace, and what after it from the host's; each message with the op whose
/// it is.
struct Messages<'a> {
    inside: Batch,
    inside_ops: Vec<&'a Op>,
    outside: Batch,
    outside_ops: Vec<&'a Op>,
}

fn messages<'a>(ops: &'a [Op], host: &mut Host, netns: &mut NewNetns) -> Result<Messages<'a>> {
    let (mut inside, mut outside) = (Batch::default(), Batch::default());
    let (mut inside_ops, mut outside_ops) = (Vec::new(), Vec::new());
    for op in ops {
        match op {
            Op::Veth { host: name, inside: link, bridge, mac, mtu, alias, hairpin, isolated, group } => {
                let mut peer = LinkMessage::default();
                peer.attributes = vec![
                    LinkAttribute::IfName(link.clone()),
                    LinkAttribute::Address(mac.to_vec()),
                    LinkAttribute::Mtu(*mtu),
                ];
                let mut message = up_message();
                message.attributes = vec![
                    LinkAttribute::IfName(name.clone()),
                    LinkAttribute::NetNsFd(netns.outside().as_raw_fd()),
                    LinkAttribute::Controller(host.bridge_index(bridge)?),
                    LinkAttribute::Mtu(*mtu),
                    LinkAttribute::Group(*group),
                    LinkAttribute::LinkInfo(vec![
                        LinkInfo::Kind(InfoKind::Veth),
                        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
                    ]),
                ];
                inside.push_route(RouteNetlinkMessage::NewLink(message), NEW);
                // The peer can't be born up: veth_open() wants the other end, which isn't tied to it yet. Nor can its index
                // be chosen: veth_newlink() in drivers/net/veth.c takes it only along with one for the other end.
                let mut up = up_message();
                up.attributes = vec![LinkAttribute::IfName(link.clone())];
                inside.push_route(RouteNetlinkMessage::SetLink(up), ACK);
                inside_ops.resize(inside.len(), op);
                let index = match &mut netns.next_index {
                    Some(next) => {
                        *next += 1;
                        *next - 1
                    }
                    None => {
                        let batch = std::mem::take(&mut inside);
                        netns.route.send(&batch).map_err(|failure| failed(&inside_ops, failure))?;
                        inside_ops.clear();
                        let Some(found) = query::get(&mut netns.route, link)? else {
                            return Err(Error::Refused(format!("the link {link} has vanished while it was made")));
                        };
                        found.index
                    }
                };
                netns.links.push((link.clone(), index));
                // Neither can be said when the link is made (rtnl_create_link ignores IFLA_IFALIAS).
                outside.push_route(RouteNetlinkMessage::NewLink(dressing(name, alias, *hairpin, *isolated)), ACK);
            }
            Op::Address { link, address, prefix_len } => {
                let index = netns.links.iter().find(|(name, _)| name == link).map_or(0, |(_, index)| *index);
                inside.push_route(address_message(index, *address, *prefix_len), NEW);
            }
            Op::DefaultRoute { gateway } => {
                inside.push_route(default_route_message(*gateway), NEW);
            }
            Op::ReplaceDefaultRoute { gateway } => {
                let replace = ACK | (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
                inside.push_route(default_route_message(*gateway), replace);
            }
            _ => {
                let mut message = up_message();
                message.attributes = vec![LinkAttribute::IfName("lo".to_owned())];
                inside.push_route(RouteNetlinkMessage::SetLink(message), ACK);
            }
        }
        inside_ops.resize(inside.len(), op);
        outside_ops.resize(outside.len(), op);
    }
    Ok(Messages { inside, inside_ops, outside, outside_ops })
}

/// The error of the op whose message was refused.
fn failed(ops: &[&Op], failure: Failure) -> Error {
    match failure.index.and_then(|index| ops.get(index)) {
        Some(op) => op.error(failure),
        None => failure.into_error("set up the container's links"),
    }
}

fn up_message() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

/// RTM_NEWLINK without NLM_F_CREATE changes the link of that name.
fn dressing(name: &str, alias: &str, hairpin: bool, isolated: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::IfAlias(alias.to_owned())];
    let wanted =
        [hairpin.then_some(InfoBridgePort::HairpinMode(true)), isolated.then_some(InfoBridgePort::Isolated(true))];
    let port: Vec<InfoBridgePort> = wanted.into_iter().flatten().collect();
    if !port.is_empty() {
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(port)),
        ]));
    }
    message
}

fn address_message(index: u32, address: IpAddr, prefix_len: u8) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = prefix_len;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    if address.is_ipv6() {
        // Given out by one engine alone: waiting a second for somebody to protest (RFC 4862) would be in vain.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    RouteNetlinkMessage::NewAddress(message)
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn default_route_message(gateway: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot; // what `ip route add` writes
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(gateway.into())];
    RouteNetlinkMessage::NewRoute(message)
}

/// A default route without a gateway.
pub(crate) fn route_by_device(index: u32, v6: bool) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = if v6 { RouteScope::Universe } else { RouteScope::Link };
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Oif(index)];
    RouteNetlinkMessage::NewRoute(message)
}

/// Takes away an address that a found bridge was given.
pub(crate) fn delete_address(
    netlink: &mut Netlink,
    index: u32,
    address: IpAddr,
    prefix_len: u8,
) -> std::result::Result<(), Failure> {
    let mut batch = Batch::default();
    if let RouteNetlinkMessage::NewAddress(message) = address_message(index, address, prefix_len) {
        batch.push_route(RouteNetlinkMessage::DelAddress(message), ACK);
    }
    netlink.send(&batch)
}

/// Removes a link. Costs 14-28 ms of waiting for an RCU grace period: not for the normal end of a container.
pub(crate) fn delete(netlink: &mut Netlink, index: u32) -> std::result::Result<(), Failure> {
    let mut batch = Batch::default();
    let mut message = LinkMessage::default();
    message.header.index = index;
    batch.push_route(RouteNetlinkMessage::DelLink(message), ACK);
    netlink.send(&batch)
}

/// What `ip addr add` wants for an IPv6 address that needs no check.
fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

/// `ip` takes `default` for IPv4 unless it's told.
fn v6_flag(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "-6 " } else { "" }
}

pub(crate) fn mac_text(mac: &[u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
