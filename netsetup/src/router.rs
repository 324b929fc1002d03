//! A router in a network namespace of its own: the lecture's `routerns`. A named namespace, a leg in each of two bridges,
//! forwarding, a default route, and address translation by ordinary rules.
//!
//! What is in the namespace goes with it. On the host stay its name (a bind mount, as `ip netns add` makes it), the host's
//! ends of the legs, and a port in Open vSwitch's database.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::route::{RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use crate::firewall::router_nat;
use crate::host::Host;
use crate::inside::{named, within, within_named};
use crate::link::mac_text;
use crate::netlink::{Batch, Netlink, attribute};
use crate::shell::quoted;
use crate::undo::{Residue, Undone};
use crate::{Backend, Command, Error, Live, Result, netns, ovs, query, sysctl};

const ACK: u16 = libc::NLM_F_ACK as u16;
const NEW: u16 = ACK | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// What carries a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// The kernel's bridge.
    Linux,
    /// Open vSwitch.
    OpenVswitch,
}

/// A bridge that a leg can be plugged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carrier {
    /// What carries it.
    pub switch: Switch,
    /// In bytes.
    pub mtu: u32,
}

/// What is there under a bridge's name.
///
/// # Errors
/// [`Error::Refused`] when it is no bridge of either kind, with the commands that make one.
pub fn switch_of(host: &mut Host, bridge: &str) -> Result<Carrier> {
    match query::get(host.route()?, bridge)? {
        Some(found) if found.kind == "bridge" => Ok(Carrier { switch: Switch::Linux, mtu: found.mtu }),
        found if ovs::has_bridge(bridge) => {
            Ok(Carrier { switch: Switch::OpenVswitch, mtu: found.map_or(1500, |found| found.mtu) })
        }
        Some(found) => {
            let kind = if found.kind.is_empty() { "a plain card".to_owned() } else { format!("a {}", found.kind) };
            Err(Error::Refused(format!("{bridge} is {kind}, not a bridge: put it into one, and name that")))
        }
        None => Err(Error::Refused(format!(
            "there is no bridge {bridge}; make it: ip link add {bridge} type bridge; ip link set {bridge} up (or \
             ovs-vsctl add-br {bridge})"
        ))),
    }
}

/// Operations on a router. `netns` is always its name in `ip netns`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Makes the namespace and gives it a name that keeps it alive.
    Namespace {
        /// The name.
        netns: String,
    },
    /// Makes a leg: a veth pair with one end in the namespace, up and with an address.
    Leg {
        /// The router.
        netns: String,
        /// The end on the host.
        host: String,
        /// The end in the namespace.
        inside: String,
        /// MAC of the inside end.
        mac: [u8; 6],
        /// Of both ends, in bytes.
        mtu: u32,
        /// The mark of the owner: the host end's alias.
        alias: String,
        /// The leg's address.
        address: Ipv4Addr,
        /// The subnet's length in bits.
        prefix_len: u8,
        /// What the leg is for.
        why: String,
    },
    /// Plugs a leg's host end into a bridge and switches it on.
    Plug {
        /// The end on the host.
        host: String,
        /// The bridge.
        bridge: String,
    },
    /// Makes a leg of a port of Open vSwitch, as the lecture does: a link that the switch makes, moved into the namespace.
    OvsLeg {
        /// The router.
        netns: String,
        /// The bridge.
        bridge: String,
        /// The port, named as its link.
        port: String,
        /// Its MAC.
        mac: [u8; 6],
        /// The mark of the owner.
        owner: String,
        /// The leg's address.
        address: Ipv4Addr,
        /// The subnet's length in bits.
        prefix_len: u8,
        /// What the leg is for.
        why: String,
    },
    /// Switches forwarding on in the namespace.
    Forwarding {
        /// The router.
        netns: String,
    },
    /// Leads what has no other route to the gateway. Replaces a default route that is there.
    DefaultRoute {
        /// The router, or a container.
        netns: String,
        /// The next hop.
        gateway: Ipv4Addr,
    },
    /// Translates what leaves by the outside leg and has no address of its own.
    SourceNat {
        /// The router.
        netns: String,
        /// Which firewall holds the rule.
        backend: Backend,
        /// The subnet's first address.
        subnet: Ipv4Addr,
        /// Its length in bits.
        prefix_len: u8,
        /// The outside leg.
        link: String,
        /// The outside leg's address.
        address: Ipv4Addr,
    },
    /// One-to-one translation: the outside address answers for the inside one, and the inside one leaves as it.
    Floating {
        /// The router.
        netns: String,
        /// Which firewall holds the rules.
        backend: Backend,
        /// The outside leg, which answers ARP for the address.
        link: String,
        /// The address outside.
        outside: Ipv4Addr,
        /// The container's address.
        inside: Ipv4Addr,
        /// Whose it is.
        comment: String,
    },
    /// Takes a one-to-one translation away, with the flows that used it.
    Unfloat {
        /// The router.
        netns: String,
        /// Which firewall holds the rules.
        backend: Backend,
        /// The outside leg.
        link: String,
        /// The address outside.
        outside: Ipv4Addr,
        /// The container's address.
        inside: Ipv4Addr,
    },
}

/// The two rules of the lecture, as `iptables-save` prints them: chain, whether it goes before all others, words.
fn floating_rules(outside: Ipv4Addr, inside: Ipv4Addr) -> [(&'static str, bool, String); 2] {
    [
        ("PREROUTING", false, format!("-d {outside}/32 -j DNAT --to-destination {inside}")),
        // Before the rule for the rest, which would take it.
        ("POSTROUTING", true, format!("-s {inside}/32 -j SNAT --to-source {outside}")),
    ]
}

fn source_nat_rule(subnet: Ipv4Addr, prefix_len: u8, link: &str, address: Ipv4Addr) -> String {
    format!("-s {subnet}/{prefix_len} -o {link} -j SNAT --to-source {address}")
}

impl Op {
    /// What stays on the host. A namespace has none before it is made ([`made_namespace`]).
    pub(crate) fn residue(&self) -> Option<Residue> {
        match self {
            Op::Leg { host, alias, .. } => Some(Residue::Link { name: host.clone(), alias: alias.clone() }),
            Op::OvsLeg { bridge, port, owner, .. } => {
                Some(Residue::OvsPort { bridge: bridge.clone(), port: port.clone(), owner: owner.clone() })
            }
            _ => None,
        }
    }

    pub(crate) fn explain(&self) -> Vec<Command> {
        let line = |command: String, why: &str| (command, why.to_owned());
        match self {
            Op::Namespace { netns } => {
                vec![line(format!("ip netns add {netns}"), "a network of its own, with a name that keeps it alive")]
            }
            Op::Leg { netns, host, inside, mac, mtu, alias, address, prefix_len, why } => {
                let mut commands = vec![
                    (
                        format!(
                            "ip link add {host} mtu {mtu} type veth peer name {inside} address {} mtu {mtu} netns {netns}",
                            mac_text(mac)
                        ),
                        why.clone(),
                    ),
                    line(format!("ip link set {host} alias {}", quoted(alias)), "note whose cable it is"),
                ];
                commands.extend(explain_address(netns, inside, *address, *prefix_len));
                commands
            }
            Op::Plug { host, bridge } => vec![
                line(format!("ip link set {host} master {bridge}"), "plug the host's end into the bridge"),
                line(format!("ip link set {host} up"), "switch the host's end on"),
            ],
            Op::OvsLeg { netns, bridge, port, mac, owner, address, prefix_len, why } => {
                let words = ovs::add_port(bridge, port, &mac_text(mac), owner);
                let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
                let mut commands = vec![
                    (format!("ovs-vsctl {}", words.join(" ")), why.clone()),
                    line(format!("ip link set {port} netns {netns}"), "move it into the router"),
                ];
                commands.extend(explain_address(netns, port, *address, *prefix_len));
                commands
            }
            Op::Forwarding { netns } => vec![
                line(
                    format!("ip netns exec {netns} sysctl -qw net.ipv4.ip_forward=1"),
                    "it is a router: it passes on what isn't for itself",
                ),
                line(format!("ip netns exec {netns} ip link set lo up"), "its own localhost"),
            ],
            Op::DefaultRoute { netns, gateway } => vec![line(
                format!("ip netns exec {netns} ip route replace default via {gateway}"),
                "what has no other route goes there",
            )],
            Op::SourceNat { netns, backend, subnet, prefix_len, link, address } => {
                let why = "all that leaves without an address of its own leaves with the router's";
                let rule = match backend {
                    Backend::Iptables => format!(
                        "ip netns exec {netns} iptables -t nat -A POSTROUTING {}",
                        source_nat_rule(*subnet, *prefix_len, link, *address)
                    ),
                    Backend::Nftables => format!(
                        "ip netns exec {netns} nft -f - <<'EOF'\n{}EOF",
                        router_nat::script(*subnet, *prefix_len, link, *address)
                    ),
                };
                vec![line(rule, why)]
            }
            Op::Floating { netns, backend, link, outside, inside, comment } => {
                let mut commands = vec![line(
                    format!("ip netns exec {netns} ip addr add {outside}/32 dev {link}"),
                    "the router answers ARP for the address",
                )];
                match backend {
                    Backend::Iptables => {
                        commands.extend(floating_rules(*outside, *inside).map(|(chain, first, rule)| {
                            let how = if first { "-I" } else { "-A" };
                            line(
                                format!("ip netns exec {netns} iptables -t nat {how} {chain} {rule}"),
                                if first {
                                    "it leaves as its outside address"
                                } else {
                                    "its outside address leads to it"
                                },
                            )
                        }))
                    }
                    Backend::Nftables => commands.extend(
                        router_nat::floating_commands(*outside, *inside, comment)
                            .map(|(command, why)| line(format!("ip netns exec {netns} {command}"), why)),
                    ),
                }
                commands
            }
            Op::Unfloat { netns, backend, link, outside, inside } => {
                let mut commands = Vec::new();
                match backend {
                    Backend::Iptables => commands.extend(floating_rules(*outside, *inside).map(|(chain, _, rule)| {
                        line(
                            format!("ip netns exec {netns} iptables -t nat -D {chain} {rule}"),
                            "no translation any more",
                        )
                    })),
                    Backend::Nftables => commands.extend(
                        router_nat::unfloat_commands(*outside, *inside)
                            .map(|(command, why)| line(format!("ip netns exec {netns} {command}"), why)),
                    ),
                }
                commands.push(line(
                    format!("ip netns exec {netns} ip addr del {outside}/32 dev {link}"),
                    "nobody answers for the address any more",
                ));
                commands.push(line(
                    format!("ip netns exec {netns} sh -c 'conntrack -D --orig-dst {outside}; conntrack -D --orig-src {inside}' || true"),
                    "flows from before would go on",
                ));
                commands
            }
        }
    }

    /// `record` writes the residue that is only known when the namespace has been made, before it gets its name.
    pub(crate) fn apply(&self, live: &mut Live) -> Result<()> {
        match self {
            Op::Namespace { .. } => Err(Error::Refused("a namespace is made by make_namespace".to_owned())),
            Op::Leg { netns, host, inside, mac, mtu, alias, address, prefix_len, .. } => {
                let what = || format!("make the leg {inside} of the router {netns}");
                let fd = named(netns)?;
                let mut peer = LinkMessage::default();
                peer.attributes = vec![
                    LinkAttribute::IfName(inside.clone()),
                    LinkAttribute::Address(mac.to_vec()),
                    LinkAttribute::Mtu(*mtu),
                    LinkAttribute::NetNsFd(fd.as_raw_fd()),
                ];
                let mut message = LinkMessage::default();
                message.attributes = vec![
                    LinkAttribute::IfName(host.clone()),
                    LinkAttribute::Mtu(*mtu),
                    LinkAttribute::LinkInfo(vec![
                        LinkInfo::Kind(InfoKind::Veth),
                        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
                    ]),
                ];
                let mut dressing = LinkMessage::default();
                dressing.attributes = vec![LinkAttribute::IfName(host.clone()), LinkAttribute::IfAlias(alias.clone())];
                let mut batch = Batch::default();
                batch.push_route(RouteNetlinkMessage::NewLink(message), NEW);
                batch.push_route(RouteNetlinkMessage::NewLink(dressing), ACK);
                live.host.route()?.send(&batch).map_err(|failure| failure.into_error(what()))?;
                within(fd.as_fd(), || give_address(inside, *address, *prefix_len))
            }
            Op::Plug { host, bridge } => {
                let index = live.host.bridge_index(bridge)?;
                let mut message = LinkMessage::default();
                message.header.flags = LinkFlags::Up;
                message.header.change_mask = LinkFlags::Up;
                message.attributes = vec![LinkAttribute::IfName(host.clone()), LinkAttribute::Controller(index)];
                let mut batch = Batch::default();
                batch.push_route(RouteNetlinkMessage::NewLink(message), ACK);
                live.host
                    .route()?
                    .send(&batch)
                    .map_err(|failure| failure.into_error(format!("plug {host} into the bridge {bridge}")))
            }
            Op::OvsLeg { netns, bridge, port, mac, owner, address, prefix_len, .. } => {
                let what = format!("make the leg {port} of the router {netns}");
                ovs::make_port(&ovs::add_port(bridge, port, &mac_text(mac), owner), &what)?;
                let fd = named(netns)?;
                let mut message = LinkMessage::default();
                message.attributes = vec![LinkAttribute::IfName(port.clone()), LinkAttribute::NetNsFd(fd.as_raw_fd())];
                let mut batch = Batch::default();
                batch.push_route(RouteNetlinkMessage::NewLink(message), ACK);
                live.host.route()?.send(&batch).map_err(|failure| failure.into_error(what))?;
                within(fd.as_fd(), || give_address(port, *address, *prefix_len))
            }
            Op::Forwarding { netns } => within_named(netns, || {
                sysctl::write("net/ipv4/ip_forward", "1")?;
                let mut batch = Batch::default();
                batch.push_route(up_message("lo"), ACK);
                Netlink::route()?.send(&batch).map_err(|failure| failure.into_error("switch on lo in the router"))
            }),
            Op::DefaultRoute { netns, gateway } => {
                within_named(netns, || replace_default_route(&mut Netlink::route()?, netns, *gateway))
            }
            Op::SourceNat { netns, backend, subnet, prefix_len, link, address } => {
                within_named(netns, || match backend {
                    Backend::Iptables => crate::firewall::iptables::write_lines(&[(
                        "nat",
                        format!("-A POSTROUTING {}", source_nat_rule(*subnet, *prefix_len, link, *address)),
                    )]),
                    Backend::Nftables => router_nat::make(*subnet, *prefix_len, link, *address),
                })
            }
            Op::Floating { netns, backend, link, outside, inside, comment } => within_named(netns, || {
                let mut route = Netlink::route()?;
                let index = index_of(&mut route, link)?;
                let mut batch = Batch::default();
                batch.push_route(address_message(index, *outside, 32), NEW);
                route
                    .send(&batch)
                    .map_err(|failure| failure.into_error(format!("give {outside} to {link} of the router {netns}")))?;
                match backend {
                    Backend::Iptables => {
                        let lines = floating_rules(*outside, *inside).map(|(chain, first, rule)| {
                            ("nat", format!("{} {chain} {rule}", if first { "-I" } else { "-A" }))
                        });
                        crate::firewall::iptables::write_lines(&lines)
                    }
                    Backend::Nftables => router_nat::float(*outside, *inside, comment),
                }
            }),
            Op::Unfloat { netns, backend, link, outside, inside } => {
                within_named(netns, || unfloat(*backend, link, *outside, *inside))
            }
        }
    }
}

fn explain_address(netns: &str, link: &str, address: Ipv4Addr, prefix_len: u8) -> [Command; 3] {
    [
        (
            format!(
                "ip netns exec {netns} ip -4 addr add {address}/{prefix_len} brd {} scope global dev {link}",
                broadcast(address, prefix_len)
            ),
            "the router's address on this side".to_owned(),
        ),
        (
            format!("ip netns exec {netns} sysctl -qw net.ipv4.conf.{link}.arp_notify=1"),
            "tell the neighbours at once who has the address now".to_owned(),
        ),
        (format!("ip netns exec {netns} ip link set {link} up"), "switch the router's end on".to_owned()),
    ]
}

/// In the caller's network namespace: the link's address, up.
fn give_address(link: &str, address: Ipv4Addr, prefix_len: u8) -> Result<()> {
    sysctl::write(&format!("net/ipv4/conf/{link}/arp_notify"), "1")?;
    let mut route = Netlink::route()?;
    let index = index_of(&mut route, link)?;
    let mut batch = Batch::default();
    batch.push_route(address_message(index, address, prefix_len), NEW);
    batch.push_route(up_message(link), ACK);
    route.send(&batch).map_err(|failure| failure.into_error(format!("give {address}/{prefix_len} to {link}")))
}

/// Whether Open vSwitch can have one more port of this name.
pub fn ovs_port_is_free(name: &str) -> bool {
    !ovs::has_port(name)
}

/// Takes away as much as there is: a half-made pair too.
fn unfloat(backend: Backend, link: &str, outside: Ipv4Addr, inside: Ipv4Addr) -> Result<()> {
    match backend {
        Backend::Iptables => {
            for (chain, _, rule) in floating_rules(outside, inside) {
                crate::firewall::iptables::remove_rule("nat", chain, &rule)?;
            }
        }
        Backend::Nftables => router_nat::unfloat(outside, inside)?,
    }
    let mut route = Netlink::route()?;
    if let Some(found) = query::get(&mut route, link)? {
        match crate::link::delete_address(&mut route, found.index, outside.into(), 32) {
            Err(failure) if failure.errno != libc::EADDRNOTAVAIL => {
                return Err(failure.into_error(format!("take {outside} from {link}")));
            }
            _ => {}
        }
    }
    crate::firewall::conntrack::forget_addresses(&mut Netlink::netfilter()?, &[outside, inside]);
    Ok(())
}

/// Takes a one-to-one address away; a router that is gone has taken it along.
pub(crate) fn undo_floating(
    netns: &str,
    backend: Backend,
    link: &str,
    outside: Ipv4Addr,
    inside: Ipv4Addr,
) -> Result<Undone> {
    match named(netns) {
        Ok(fd) => within(fd.as_fd(), || unfloat(backend, link, outside, inside)).map(|()| Undone::Removed),
        Err(_) => Ok(Undone::NotThere),
    }
}

/// Leads a container's default route back to where it was, when it still leads to the router.
pub(crate) fn undo_default_route(netns: &str, gateway: Ipv4Addr, instead_of: Ipv4Addr) -> Result<Undone> {
    let Ok(fd) = named(netns) else {
        return Ok(Undone::NotThere);
    };
    within(fd.as_fd(), || {
        let mut route = Netlink::route()?;
        if default_gateway(&mut route)? != Some(instead_of) {
            return Ok(Undone::NotThere);
        }
        replace_default_route(&mut route, netns, gateway)?;
        Ok(Undone::Removed)
    })
}

/// The next hop of the main table's IPv4 default route.
fn default_gateway(route: &mut Netlink) -> Result<Option<Ipv4Addr>> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    let mut batch = Batch::default();
    batch.push_route(RouteNetlinkMessage::GetRoute(message), libc::NLM_F_DUMP as u16);
    let (answers, _) = route.exchange(&batch).map_err(|failure| failure.into_error("list the routes"))?;
    Ok(answers.iter().filter(|answer| answer.kind == libc::RTM_NEWROUTE).find_map(|answer| {
        // struct rtmsg: family, length of the destination, …, table
        let is_default = answer.payload.get(1) == Some(&0) && answer.payload.get(4) == Some(&libc::RT_TABLE_MAIN);
        let gateway = attribute(answer.payload.get(12..)?, libc::RTA_GATEWAY)?;
        is_default.then(|| <[u8; 4]>::try_from(gateway).ok().map(Ipv4Addr::from))?
    }))
}

fn replace_default_route(route: &mut Netlink, netns: &str, gateway: Ipv4Addr) -> Result<()> {
    let mut batch = Batch::default();
    let replace = ACK | (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
    batch.push_route(RouteNetlinkMessage::NewRoute(default_route(gateway)), replace);
    route.send(&batch).map_err(|failure| failure.into_error(format!("lead the default route of {netns} to {gateway}")))
}

/// Makes the namespace of a router. `record` is told what will stay on the host, after the namespace has been made and
/// before it gets the name that keeps it alive: its inode is the mark by which undo knows it.
///
/// # Errors
/// When the name is taken; whatever `record` says.
pub fn make_namespace<E: From<Error>>(
    name: &str,
    record: impl FnOnce(&Residue) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let (fd, inode) = netns::make_holder()?;
    netns::check_free(name)?;
    record(&Residue::Netns { name: name.to_owned(), inode })?;
    Ok(netns::hold(name, fd.as_fd())?)
}

fn index_of(route: &mut Netlink, link: &str) -> Result<u32> {
    match query::get(route, link)? {
        Some(found) => Ok(found.index),
        None => Err(Error::Refused(format!("the router's leg {link} is gone: was it removed by hand?"))),
    }
}

fn up_message(link: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![LinkAttribute::IfName(link.to_owned())];
    RouteNetlinkMessage::SetLink(message)
}

/// The network's part of an IPv4 address.
pub(crate) fn mask(prefix_len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0)
}

fn broadcast(address: Ipv4Addr, prefix_len: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() | !mask(prefix_len))
}

fn address_message(index: u32, address: Ipv4Addr, prefix_len: u8) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix_len;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
    if prefix_len < 31 {
        message.attributes.push(AddressAttribute::Broadcast(broadcast(address, prefix_len)));
    }
    RouteNetlinkMessage::NewAddress(message)
}

fn default_route(gateway: Ipv4Addr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot; // what `ip route add` writes
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway))];
    message
}
