//! Networks on a link of the host (macvlan and ipvlan): their parent link, where it is to be made, and the containers'
//! cards on it. A card is born in the container's namespace and goes with it, so it leaves nothing on the host.

use std::os::fd::AsRawFd;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVlan, IpVlanFlags, IpVlanMode, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, MacVlanMode,
};
use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::host::Host;
use crate::netlink::Batch;
use crate::undo::{Residue, Undone};
use crate::{Command, Driver, Endpoint, Error, IpvlanMode, Live, MacvlanMode, Network, Result, link, query};

const ACK: u16 = libc::NLM_F_ACK as u16;
const NEW: u16 = ACK | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// Operations on parents and cards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Makes a vlan of a link, and switches it on.
    Vlan {
        /// The vlan's link, `eth0.10`.
        name: String,
        /// The link, `eth0`.
        parent: String,
        /// The vlan's number, 1 to 4094 (IEEE 802.1Q).
        number: u16,
    },
    /// Makes a link that leads nowhere: the parent of a network that has none on the host.
    Dummy {
        /// Its name.
        name: String,
    },
    /// Makes a container's card.
    Card {
        /// The host's link.
        parent: String,
        /// The name that it is born with, which no link of the host has: older kernels look there for it (EEXIST).
        born: String,
        /// The card in the container.
        inside: String,
        /// Macvlan or ipvlan, and how.
        driver: Driver,
        /// Its MAC; an ipvlan has its parent's.
        mac: [u8; 6],
        /// In bytes.
        mtu: u32,
    },
    /// Leads everything else by the card itself: in ipvlan's mode l3 there is no gateway to ask for.
    DefaultRoute {
        /// The card.
        link: String,
        /// Whether it's IPv6's.
        v6: bool,
    },
}

impl Op {
    pub(crate) fn residue(&self) -> Option<Residue> {
        match self {
            Op::Vlan { name, .. } => Some(Residue::ParentLink { name: name.clone(), kind: "vlan".to_owned() }),
            Op::Dummy { name } => Some(Residue::ParentLink { name: name.clone(), kind: "dummy".to_owned() }),
            // The namespace's death removes them.
            Op::Card { .. } | Op::DefaultRoute { .. } => None,
        }
    }

    pub(crate) fn explain(&self) -> Vec<Command> {
        let line = |command: String, why: &str| (command, why.to_owned());
        match self {
            Op::Vlan { name, parent, number } => vec![
                line(format!("ip link add link {parent} name {name} type vlan id {number}"), "the network's own vlan"),
                line(format!("ip link set {name} up"), "switch the vlan on"),
            ],
            Op::Dummy { name } => vec![
                line(format!("ip link add {name} type dummy"), "a link that leads nowhere, for containers to meet on"),
                line(format!("ip link set {name} up"), "switch it on"),
            ],
            Op::Card { parent, born, inside, driver, mac, mtu } => {
                let [a, b, c, d, e, f] = mac;
                let (address, kind) = match driver {
                    Driver::Ipvlan { mode, flag, .. } => {
                        (String::new(), format!("ipvlan mode {} {}", ipvlan_mode(*mode).1, macvlan_mode(*flag).1))
                    }
                    Driver::Macvlan { mode, .. } => (
                        format!("address {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} "),
                        format!("macvlan mode {}", macvlan_mode(*mode).1),
                    ),
                    Driver::Bridge => (String::new(), String::new()),
                };
                vec![
                    line(
                        format!("ip link add link {parent} name {born} {address}mtu {mtu} netns $pid type {kind}"),
                        "a card of the container's own on the host's link",
                    ),
                    line(format!("nsenter -t $pid -n ip link set {born} name {inside}"), "its name in the container"),
                    line(format!("nsenter -t $pid -n ip link set {inside} up"), "switch the card on"),
                ]
            }
            Op::DefaultRoute { link, v6 } => {
                let version = if *v6 { "-6 " } else { "" };
                vec![line(
                    format!("nsenter -t $pid -n ip {version}route add default dev {link}"),
                    "the host's link routes it on",
                )]
            }
        }
    }

    pub(crate) fn apply(&self, live: &mut Live) -> Result<()> {
        let mut batch = Batch::default();
        match self {
            Op::Vlan { name, parent, number } => {
                let index = index_of(live.host, parent)?;
                let data = InfoData::Vlan(vec![InfoVlan::Id(*number)]);
                let info = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)];
                let attributes = vec![LinkAttribute::Link(index), LinkAttribute::LinkInfo(info)];
                batch.push_route(RouteNetlinkMessage::NewLink(up(name, attributes)), NEW);
            }
            Op::Dummy { name } => {
                let attributes = vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Dummy)])];
                batch.push_route(RouteNetlinkMessage::NewLink(up(name, attributes)), NEW);
            }
            Op::Card { parent, born, inside, driver, mac, mtu } => {
                return apply_card(live, Card { parent, born, inside, driver, mac, mtu: *mtu }, self);
            }
            Op::DefaultRoute { link, v6 } => {
                let Some(netns) = live.netns.as_deref_mut() else { return Err(no_namespace()) };
                let index = netns.links.iter().find(|(name, _)| name == link).map_or(0, |(_, index)| *index);
                batch.push_route(link::route_by_device(index, *v6), NEW);
                return netns.route.send(&batch).map_err(|failure| failure.into_error(self.what()));
            }
        }
        live.host.route()?.send(&batch).map_err(|failure| self.error(failure))
    }

    fn what(&self) -> String {
        match self {
            Op::Vlan { name, parent, number } => format!("make the vlan {number} of {parent} as {name}"),
            Op::Dummy { name } => format!("make the link {name}"),
            Op::Card { parent, inside, .. } => format!("make the container's card {inside} on {parent}"),
            Op::DefaultRoute { link, .. } => format!("route the container's traffic by {link}"),
        }
    }

    fn error(&self, failure: crate::netlink::Failure) -> Error {
        let mut error = failure.into_error(self.what());
        if let Error::System { source, detail, .. } = &mut error {
            let hint = match source.raw_os_error() {
                Some(libc::EOPNOTSUPP) if matches!(self, Op::Dummy { .. }) => {
                    "a network without a parent needs the driver dummy, which this kernel lacks: name a link of this host, \
                     -o parent=eth0 (see 'ip link'), or modprobe dummy"
                }
                Some(libc::EOPNOTSUPP) => "this kernel lacks the driver: modprobe macvlan, ipvlan, 8021q or dummy",
                Some(libc::EBUSY) => "the link is in a bridge or bond, or has another kind of cards already",
                _ => return error,
            };
            *detail = Some(hint.to_owned());
        }
        error
    }
}

struct Card<'a> {
    parent: &'a str,
    born: &'a str,
    inside: &'a str,
    driver: &'a Driver,
    mac: &'a [u8; 6],
    mtu: u32,
}

/// Asked for on the host, where the parent is; born in the container.
fn apply_card(live: &mut Live, card: Card<'_>, op: &Op) -> Result<()> {
    let index = index_of(live.host, card.parent)?;
    let Some(netns) = live.netns.as_deref_mut() else { return Err(no_namespace()) };
    let mut attributes =
        vec![LinkAttribute::Link(index), LinkAttribute::NetNsFd(netns.fd().as_raw_fd()), LinkAttribute::Mtu(card.mtu)];
    let info = match card.driver {
        Driver::Macvlan { mode, .. } => {
            attributes.push(LinkAttribute::Address(card.mac.to_vec()));
            let data = InfoData::MacVlan(vec![InfoMacVlan::Mode(macvlan_mode(*mode).0)]);
            vec![LinkInfo::Kind(InfoKind::MacVlan), LinkInfo::Data(data)]
        }
        Driver::Ipvlan { mode, flag, .. } => {
            let flags = match flag {
                MacvlanMode::Private => IpVlanFlags::Private,
                MacvlanMode::Vepa => IpVlanFlags::Vepa,
                MacvlanMode::Bridge | MacvlanMode::Passthru => IpVlanFlags::empty(),
            };
            let data = vec![InfoIpVlan::Mode(ipvlan_mode(*mode).0), InfoIpVlan::Flags(flags)];
            vec![LinkInfo::Kind(InfoKind::IpVlan), LinkInfo::Data(InfoData::IpVlan(data))]
        }
        Driver::Bridge => return Err(Error::Refused("a bridge has no cards of this kind".to_owned())),
    };
    attributes.push(LinkAttribute::LinkInfo(info));
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(card.born.to_owned())];
    message.attributes.extend(attributes);
    let mut batch = Batch::default();
    batch.push_route(RouteNetlinkMessage::NewLink(message), NEW);
    live.host.route()?.send(&batch).map_err(|failure| op.error(failure))?;
    let Some(found) = query::get(&mut netns.route, card.born)? else {
        return Err(Error::Refused(format!("the card {} has vanished while it was made", card.born)));
    };
    netns.next_index = netns.next_index.map(|index| index.max(found.index + 1));
    netns.links.push((card.inside.to_owned(), found.index));
    let mut batch = Batch::default();
    let mut message = LinkMessage::default();
    message.header.index = found.index;
    message.attributes = vec![LinkAttribute::IfName(card.inside.to_owned())];
    (message.header.flags, message.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
    batch.push_route(RouteNetlinkMessage::SetLink(message), ACK);
    netns.route.send(&batch).map_err(|failure| op.error(failure))
}

fn no_namespace() -> Error {
    Error::Refused("the container has no network namespace of its own".to_owned())
}

fn up(name: &str, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    (message.header.flags, message.header.change_mask) = (LinkFlags::Up, LinkFlags::Up);
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    message.attributes.extend(attributes);
    message
}

fn index_of(host: &mut Host, name: &str) -> Result<u32> {
    match query::get(host.route()?, name)? {
        Some(found) => Ok(found.index),
        None => Err(Error::Refused(format!("the parent link {name} is not there; see 'ip link'"))),
    }
}

fn macvlan_mode(mode: MacvlanMode) -> (MacVlanMode, &'static str) {
    match mode {
        MacvlanMode::Bridge => (MacVlanMode::Bridge, "bridge"),
        MacvlanMode::Private => (MacVlanMode::Private, "private"),
        MacvlanMode::Vepa => (MacVlanMode::Vepa, "vepa"),
        MacvlanMode::Passthru => (MacVlanMode::Passthrough, "passthru"),
    }
}

fn ipvlan_mode(mode: IpvlanMode) -> (IpVlanMode, &'static str) {
    match mode {
        IpvlanMode::L2 => (IpVlanMode::L2, "l2"),
        IpvlanMode::L3 => (IpVlanMode::L3, "l3"),
        IpvlanMode::L3s => (IpVlanMode::L3S, "l3s"),
    }
}

/// The vlan that a parent's name means, `eth0.10`: the link and the number.
pub fn vlan_of(name: &str) -> Option<(&str, u16)> {
    let (link, number) = name.rsplit_once('.')?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse().ok().filter(|number| digits && (1..=4094).contains(number))?;
    (!link.is_empty()).then_some((link, number))
}

/// What the network's parent lacks. `facts`: of the link with the parent's name.
///
/// # Errors
/// [`Error::Refused`]: it's missing, and not one that is made.
pub(crate) fn plan(network: &Network, facts: &Facts) -> Result<Vec<crate::Op>> {
    let name = &network.bridge;
    if facts.bridge.is_some() {
        return Ok(Vec::new());
    }
    // The engine's own names of links that lead nowhere.
    if name.starts_with("dm-") || name.starts_with("di-") {
        return Ok(vec![crate::Op::Parent(Op::Dummy { name: name.clone() })]);
    }
    match vlan_of(name) {
        Some((parent, number)) => {
            Ok(vec![crate::Op::Parent(Op::Vlan { name: name.clone(), parent: parent.to_owned(), number })])
        }
        None => Err(Error::Refused(format!(
            "the parent link {name} of network {} is not there; name one of 'ip link', or its vlan, such as eth0.10",
            network.name
        ))),
    }
}

/// A container's card, its addresses and routes.
pub(crate) fn plan_card(network: &Network, endpoint: &Endpoint) -> Vec<crate::Op> {
    let link = &endpoint.inside_link;
    let mut ops = vec![crate::Op::Parent(Op::Card {
        parent: network.bridge.clone(),
        born: endpoint.host_link.clone(),
        inside: link.clone(),
        driver: network.driver.clone(),
        mac: endpoint.mac,
        mtu: endpoint.mtu,
    })];
    let places = endpoint.places().map(|place| (place.address, place.prefix_len));
    for (address, prefix_len) in places.chain(endpoint.extra_addresses.iter().copied()) {
        ops.push(crate::Op::Link(link::Op::Address { link: link.clone(), address, prefix_len }));
    }
    let routed = matches!(network.driver, Driver::Ipvlan { mode: IpvlanMode::L3 | IpvlanMode::L3s, .. });
    for gateway in endpoint.places().filter_map(|place| place.gateway) {
        ops.push(match routed {
            true => crate::Op::Parent(Op::DefaultRoute { link: link.clone(), v6: gateway.is_ipv6() }),
            false => crate::Op::Link(link::Op::DefaultRoute { gateway }),
        });
    }
    if endpoint.first {
        ops.push(crate::Op::Link(link::Op::LoopbackUp));
        ops.push(crate::Op::Netns(crate::netns::Op::Name { name: endpoint.name.clone() }));
    }
    ops
}

/// Removes a parent that was made.
pub(crate) fn undo(name: &str, kind: &str, host: &mut Host) -> Result<Undone> {
    let Some(found) = query::get(host.route()?, name)? else { return Ok(Undone::NotThere) };
    if found.kind != kind {
        return Ok(Undone::NotOurs(format!("the link {name} is {:?}, no {kind}", found.kind)));
    }
    match link::delete(host.route()?, found.index) {
        Ok(()) => Ok(Undone::Removed),
        Err(failure) if failure.errno == libc::ENODEV => Ok(Undone::NotThere),
        Err(failure) => Err(failure.into_error(format!("remove the link {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_are_seen_in_the_parents_name() {
        for (text, expected) in [
            ("eth0.10", Some(("eth0", 10))),
            ("bond0.1.4094", Some(("bond0.1", 4094))),
            ("eth0", None),
            ("eth0.0", None),
            ("eth0.4095", None),
            ("eth0.x", None),
            (".5", None),
        ] {
            assert_eq!(vlan_of(text), expected, "{text}");
        }
    }

    #[test]
    fn the_commands_of_cards_and_parents() {
        let script = |op: Op| op.explain().into_iter().map(|(command, _)| command).collect::<Vec<_>>().join("\n");
        let card = |driver| Op::Card {
            parent: "eth0".into(),
            born: "veth1".into(),
            inside: "eth0".into(),
            driver,
            mac: [2, 66, 10, 5, 0, 2],
            mtu: 1500,
        };
        assert_eq!(
            script(card(Driver::Macvlan { parent: "eth0".into(), mode: MacvlanMode::Bridge })),
            "ip link add link eth0 name veth1 address 02:42:0a:05:00:02 mtu 1500 netns $pid type macvlan mode bridge\n\
             nsenter -t $pid -n ip link set veth1 name eth0\n\
             nsenter -t $pid -n ip link set eth0 up"
        );
        let ipvlan = Driver::Ipvlan { parent: "eth0".into(), mode: IpvlanMode::L3, flag: MacvlanMode::Bridge };
        assert_eq!(
            script(card(ipvlan)),
            "ip link add link eth0 name veth1 mtu 1500 netns $pid type ipvlan mode l3 bridge\n\
             nsenter -t $pid -n ip link set veth1 name eth0\n\
             nsenter -t $pid -n ip link set eth0 up"
        );
        assert_eq!(
            script(Op::Vlan { name: "eth0.10".into(), parent: "eth0".into(), number: 10 }),
            "ip link add link eth0 name eth0.10 type vlan id 10\nip link set eth0.10 up"
        );
    }
}
