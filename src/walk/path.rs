//! Events → hops: from namespace to namespace, by the cables and bridges between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use netsetup::survey::{self, Link, Namespace};
use netsetup::trace::{Event, Packet, Visitor, What};

use super::why;
use super::{Hop, Rule, Target};
use crate::commands::Engine;
use crate::graph::Picture;

/// No way is longer; a loop would be.
const MOST_HOPS: usize = 16;

/// Which packets are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The probe's.
    There,
    /// The answer's.
    Back,
}

/// Where the tracks end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All chains have let it in: it's up to a socket.
    Delivered {
        /// The namespace.
        place: u64,
    },
    /// A rule, or the end of a chain, has dropped it.
    Killed {
        /// The namespace.
        place: u64,
        /// The rule.
        rule: Rule,
    },
    /// It came in, and no way on was found for it.
    NoWay {
        /// The namespace.
        place: u64,
        /// The link that it came in by; 0: it was sent there.
        came_in: u32,
    },
    /// It came to a hook, and something that nftables doesn't tell of took it away there.
    Vanished {
        /// The namespace.
        place: u64,
        /// The hook.
        hook: String,
    },
    /// It left by a link and didn't come in at the next place.
    Lost {
        /// The namespace that it left.
        place: u64,
        /// The link.
        link: u32,
        /// The address that was looked for on that link.
        next: IpAddr,
    },
    /// It left by a link that leads to where nothing can be seen.
    Gone {
        /// The namespace that it left.
        place: u64,
        /// The link.
        link: u32,
    },
    /// It was never seen.
    Never,
}

/// A followed way.
pub struct Followed {
    /// Its stations.
    pub hops: Vec<Hop>,
    /// Where it ends.
    pub end: End,
    /// The packet as it was seen last.
    pub last: Option<Packet>,
}

/// Everything that is known of one probe.
pub struct Way<'a> {
    /// Whose networks and containers these are.
    pub engine: &'a Engine,
    /// The network after the probe.
    pub picture: &'a Picture,
    /// What was told in each namespace.
    pub events: &'a BTreeMap<u64, Vec<Event>>,
    /// The client outside.
    pub visitor: Option<&'a Visitor>,
    /// Who is asked.
    pub target: &'a Target,
    /// The namespace that the probe was sent from.
    pub start: u64,
    /// The probe's own port.
    pub port: u16,
}

/// One packet's way through one namespace: the events with one number.
struct Leg<'a> {
    events: Vec<&'a Event>,
}

impl Leg<'_> {
    fn first_packet(&self) -> Option<Packet> {
        self.events.iter().find_map(|event| event.packet)
    }

    fn starts_at(&self, hook: &str) -> bool {
        matches!(self.events.first().map(|event| &event.what), Some(What::Mark { hook: at, end: false }) if at == hook)
    }

    fn is_between_hooks(&self) -> bool {
        matches!(self.events.last().map(|event| &event.what), Some(What::Mark { end: true, .. }))
    }

    fn came_in(&self) -> u32 {
        self.events.first().map_or(0, |event| event.came_in)
    }
}

impl Way<'_> {
    /// What to call a namespace.
    pub fn title(&self, namespace: &Namespace) -> String {
        match self.visitor {
            Some(visitor) if visitor.inode == namespace.inode => "outside".to_owned(),
            _ => self.picture.title(namespace),
        }
    }

    fn is(&self, packet: &Packet, direction: Direction) -> bool {
        match direction {
            Direction::There => packet.source.port() == self.port,
            Direction::Back => packet.destination.port() == self.port,
        }
    }

    /// The address that the probe was sent from.
    pub fn source(&self, start: u64) -> Option<SocketAddr> {
        self.legs(start, Direction::There).first().and_then(Leg::first_packet).map(|packet| packet.source)
    }

    /// Packets of this direction in a namespace. Frames that only pass a bridge aren't among them.
    fn legs(&self, place: u64, direction: Direction) -> Vec<Leg<'_>> {
        let mut legs: Vec<(Vec<u32>, Leg<'_>)> = Vec::new();
        for event in self.events.get(&place).into_iter().flatten().filter(|event| event.family != "bridge") {
            if event.packet.is_some_and(|packet| !self.is(&packet, direction)) {
                continue;
            }
            // A packet that was sent here and comes in by lo begins again.
            let begins =
                matches!(&event.what, What::Mark { hook, end: false } if hook == "prerouting" || hook == "output");
            let known = legs.iter().rposition(|(ids, _)| ids.contains(&event.id));
            // The kernel's number has the link in it by which the packet came in, and that changes from a port of a bridge to
            // the bridge: a new number in the middle is the last packet that was let on.
            let goes_on =
                || legs.iter().rposition(|(_, leg)| leg.is_between_hooks()).filter(|_| event.packet.is_some());
            match known.or_else(goes_on).filter(|_| !begins).and_then(|at| legs.get_mut(at)) {
                Some((ids, leg)) => {
                    ids.push(event.id);
                    leg.events.push(event);
                }
                None if event.packet.is_some() => legs.push((vec![event.id], Leg { events: vec![event] })),
                None => {}
            }
        }
        legs.into_iter().map(|(_, leg)| leg).collect()
    }

    /// Follows the first packet of a direction from a namespace on.
    pub fn follow(&self, start: u64, direction: Direction) -> Followed {
        let mut followed = Followed { hops: Vec::new(), end: End::Never, last: None };
        let (mut place, mut entered): (u64, Option<u32>) = (start, None);
        let mut left: Option<(u64, u32, IpAddr)> = None;
        for _ in 0..MOST_HOPS {
            let Some(namespace) = self.picture.namespace(place) else { break };
            let legs = self.legs(place, direction);
            let leg = legs.iter().find(|leg| match entered {
                None => leg.starts_at("output"),
                Some(index) => leg.starts_at("prerouting") && leg.came_in() == index,
            });
            let Some(leg) = leg else {
                followed.end = match left {
                    Some((place, link, next)) => self.lost(place, link, next, direction),
                    None => End::Never,
                };
                return followed;
            };
            if let Some(end) = self.through(namespace, leg, entered, &mut followed) {
                followed.end = end;
                return followed;
            }
            let out = leg.events.iter().rev().map(|event| event.goes_out).find(|index| *index != 0).unwrap_or(0);
            let Some(link) = namespace.link(out) else {
                followed.end = End::Gone { place, link: out };
                return followed;
            };
            let to = followed.last.map_or(self.target.address.ip(), |packet| packet.destination.ip());
            match self.next(namespace, link, to, &mut followed.hops) {
                Next::Into { namespace: into, link: index } => {
                    left = Some((place, out, next_stop(namespace, link, to)));
                    (place, entered) = (into, Some(index));
                }
                Next::Nowhere { next } => {
                    followed.end = self.lost(place, out, next, direction);
                    return followed;
                }
                Next::Outside => {
                    followed.end = End::Gone { place, link: out };
                    return followed;
                }
            }
        }
        followed
    }

    /// Whether a rule has taken it on the way: one for bridges, or with br_netfilter one of the bridge's host. Else it is
    /// lost.
    fn lost(&self, place: u64, link: u32, next: IpAddr, direction: Direction) -> End {
        for namespace in &self.picture.namespaces {
            let mut ours: Vec<u32> = Vec::new();
            for event in self.events.get(&namespace.inode).into_iter().flatten() {
                if event.packet.is_some_and(|packet| self.is(&packet, direction)) {
                    ours.push(event.id);
                }
                if let Some(rule) = killer(namespace, event).filter(|_| ours.contains(&event.id)) {
                    return End::Killed { place: namespace.inode, rule };
                }
            }
        }
        End::Lost { place, link, next }
    }

    /// One namespace's part; the end, when it ends there.
    fn through(
        &self,
        namespace: &Namespace,
        leg: &Leg<'_>,
        entered: Option<u32>,
        followed: &mut Followed,
    ) -> Option<End> {
        let title = self.title(namespace);
        let place = namespace.inode;
        let name = |index: u32| namespace.link(index).map_or_else(|| format!("link {index}"), |link| link.name.clone());
        let mut hook = String::new();
        let mut passed = true;
        if let (None, Some(packet)) = (entered, leg.first_packet()) {
            let out = leg.events.iter().map(|event| event.goes_out).find(|index| *index != 0).unwrap_or(0);
            followed.hops.push(Hop {
                place: title.clone(),
                at: "output".to_owned(),
                what: format!(
                    "sends {} -> {}{}",
                    packet.source,
                    packet.destination,
                    self.route(namespace, packet.destination.ip(), out)
                ),
                ..Hop::default()
            });
            followed.last = Some(packet);
        }
        for event in &leg.events {
            if let Some(packet) = event.packet {
                self.rewritten(&title, &hook, packet, followed);
            }
            match &event.what {
                What::Mark { hook: at, end } => {
                    passed = *end;
                    if !*end {
                        hook.clone_from(at);
                        followed.hops.extend(self.at_hook(namespace, at, event, entered, followed.last));
                    }
                }
                What::Rule { table, chain, handle, verdict } => {
                    if let Some(rule) = killer(namespace, event) {
                        followed.hops.push(self.rule_hop(namespace, &title, rule.clone(), followed.last));
                        return Some(End::Killed { place, rule });
                    }
                    if verdict == "continue" {
                        continue; // counters and marks: nothing is decided
                    }
                    let rule = rule_of(namespace, event, table, chain, *handle, verdict);
                    followed.hops.push(self.rule_hop(namespace, &title, rule, followed.last));
                }
                What::Policy { .. } => {
                    if let Some(rule) = killer(namespace, event) {
                        followed.hops.push(self.rule_hop(namespace, &title, rule.clone(), followed.last));
                        return Some(End::Killed { place, rule });
                    }
                }
            }
        }
        match (hook.as_str(), passed) {
            ("input", true) => {
                let at = followed.last.map(|packet| packet.destination.to_string()).unwrap_or_default();
                followed.hops.push(Hop {
                    place: title,
                    at: "socket".to_owned(),
                    what: format!("is handed to whoever has {at}"),
                    ..Hop::default()
                });
                Some(End::Delivered { place })
            }
            ("postrouting", true) => {
                let out = leg.events.iter().rev().map(|event| event.goes_out).find(|index| *index != 0).unwrap_or(0);
                followed.hops.push(Hop { place: title, at: name(out), what: "leaves".to_owned(), ..Hop::default() });
                None
            }
            ("prerouting" | "output" | "forward", true) => Some(End::NoWay { place, came_in: entered.unwrap_or(0) }),
            _ => Some(End::Vanished { place, hook }),
        }
    }

    /// Notes how the packet has changed since it was seen last.
    fn rewritten(&self, title: &str, hook: &str, packet: Packet, followed: &mut Followed) {
        if let Some(before) =
            followed.last.filter(|before| before.source != packet.source || before.destination != packet.destination)
        {
            let mut changes = Vec::new();
            if before.destination != packet.destination {
                changes.push(format!("to {} becomes to {}", before.destination, packet.destination));
            }
            if before.source != packet.source {
                changes.push(format!("from {} becomes from {}", before.source, packet.source));
            }
            let change = changes.join(", ");
            match followed.hops.last_mut().filter(|hop| hop.rule.is_some() && hop.place == *title) {
                Some(hop) => hop.rewrite = Some(change),
                None => followed.hops.push(Hop {
                    place: title.to_owned(),
                    at: if hook.is_empty() { "conntrack".to_owned() } else { hook.to_owned() },
                    what: "is translated as its connection was at its beginning".to_owned(),
                    rewrite: Some(change),
                    ..Hop::default()
                }),
            }
        }
        followed.last = Some(packet);
    }

    /// What coming to a hook means.
    fn at_hook(
        &self,
        namespace: &Namespace,
        hook: &str,
        event: &Event,
        entered: Option<u32>,
        packet: Option<Packet>,
    ) -> Option<Hop> {
        let name = |index: u32| namespace.link(index).map_or_else(|| format!("link {index}"), |link| link.name.clone());
        let hop = |at: String, what: String| Some(Hop { place: self.title(namespace), at, what, ..Hop::default() });
        let to = packet.map(|packet| packet.destination.ip());
        match hook {
            "prerouting" if entered.is_some() => {
                let seen =
                    packet.map(|packet| format!(": {} -> {}", packet.source, packet.destination)).unwrap_or_default();
                hop(name(event.came_in), format!("comes in{seen}"))
            }
            "input" => hop("routing".to_owned(), format!("{} is an address of this namespace", to?)),
            "forward" => {
                let route = self.route(namespace, to?, event.goes_out);
                hop("routing".to_owned(), format!("is passed on{route}"))
            }
            _ => None,
        }
    }

    /// ` by the route 172.17.0.0/16 dev docker0`, as far as it is plain.
    fn route(&self, namespace: &Namespace, to: IpAddr, out: u32) -> String {
        let fitting = namespace
            .routes
            .iter()
            .filter(|route| route.link == out && contains(route.destination, to))
            .max_by_key(|route| route.destination.1);
        match fitting {
            Some(route) => format!(", by the route {}", crate::graph::model::route(namespace, route)),
            None => namespace.link(out).map(|link| format!(", by {}", link.name)).unwrap_or_default(),
        }
    }

    fn rule_hop(&self, namespace: &Namespace, title: &str, rule: Rule, packet: Option<Packet>) -> Hop {
        Hop {
            place: title.to_owned(),
            at: format!("{} {}", rule.table, rule.chain),
            what: rule.verdict.clone(),
            why: why::why(self, namespace, &rule, packet),
            rule: Some(rule),
            rewrite: None,
        }
    }

    /// Where a packet that leaves by a link comes in.
    fn next(&self, namespace: &Namespace, link: &Link, to: IpAddr, hops: &mut Vec<Hop>) -> Next {
        if link.name == "lo" {
            return Next::Into { namespace: namespace.inode, link: link.index };
        }
        let next = next_stop(namespace, link, to);
        let mac = namespace
            .neighbours
            .iter()
            .find(|one| one.link == link.index && one.address == Some(next) && !one.mac.is_empty())
            .map(|one| one.mac.clone());
        if link.kind == "bridge" {
            return match mac {
                Some(mac) => self.across(namespace, link, &mac, next, hops),
                None => Next::Nowhere { next },
            };
        }
        let Some((there, end)) = self.picture.peer(link) else {
            return match (&*link.kind, mac) {
                ("veth", _) => Next::Outside,
                (_, None) if next != to => Next::Nowhere { next },
                _ => Next::Outside,
            };
        };
        if let Some(visitor) = self.visitor.filter(|visitor| there.is_host && end.name == visitor.cable)
            && let Some(card) = visitor.enters_by.as_ref().and_then(|card| there.link_named(card))
        {
            return Next::Into { namespace: there.inode, link: card.index };
        }
        match there.link(end.master).filter(|master| master.kind == "bridge") {
            None => Next::Into { namespace: there.inode, link: end.index },
            Some(bridge) => match mac {
                Some(mac) => self.across(there, bridge, &mac, next, hops),
                None => Next::Nowhere { next },
            },
        }
    }

    /// Through a bridge: to the bridge's own namespace, or out by the port behind which the address is.
    fn across(&self, namespace: &Namespace, bridge: &Link, mac: &str, next: IpAddr, hops: &mut Vec<Hop>) -> Next {
        let title = self.title(namespace);
        let own = bridge.mac == mac
            || namespace
                .neighbours
                .iter()
                .any(|one| one.bridge == bridge.index && one.mac == mac && one.link == bridge.index);
        if own {
            return Next::Into { namespace: namespace.inode, link: bridge.index };
        }
        let port = namespace
            .neighbours
            .iter()
            .find(|one| one.bridge == bridge.index && one.mac == mac && one.link != bridge.index)
            .and_then(|one| namespace.link(one.link));
        let Some(port) = port else { return Next::Nowhere { next } };
        let peer = self.picture.peer(port);
        let to = peer.map(|(there, end)| format!(", the cable to {} of {}", end.name, self.title(there)));
        hops.push(Hop {
            place: title,
            at: bridge.name.clone(),
            what: format!("{next} is at {mac}, behind port {}{}", port.name, to.unwrap_or_default()),
            ..Hop::default()
        });
        match peer {
            Some((there, end)) => Next::Into { namespace: there.inode, link: end.index },
            None => Next::Outside,
        }
    }
}

enum Next {
    Into { namespace: u64, link: u32 },
    Nowhere { next: IpAddr },
    Outside,
}

/// The address that is looked for on a link: the gateway's, where the way leads by one.
fn next_stop(namespace: &Namespace, link: &Link, to: IpAddr) -> IpAddr {
    let lookup = namespace.run(|| survey::lookup(to, None, None)).ok().and_then(Result::ok);
    lookup.filter(|found| found.link == link.index).and_then(|found| found.gateway).unwrap_or(to)
}

/// Whether an address lies in a subnet.
fn contains((first, length): (IpAddr, u8), address: IpAddr) -> bool {
    match (first, address) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
            netsetup::first_address(address, length) == netsetup::first_address(first, length)
        }
        _ => false,
    }
}

/// The rule that an event tells of, when it has dropped the packet.
fn killer(namespace: &Namespace, event: &Event) -> Option<Rule> {
    match &event.what {
        What::Rule { table, chain, handle, verdict } if verdict == "drop" || verdict == "stolen" => {
            Some(rule_of(namespace, event, table, chain, *handle, verdict))
        }
        What::Policy { table, chain, verdict } if verdict == "drop" => {
            let mut rule = rule_of(namespace, event, table, chain, 0, verdict);
            rule.text = format!("policy {verdict}");
            Some(rule)
        }
        _ => None,
    }
}

/// Finds a rule's words.
fn rule_of(namespace: &Namespace, event: &Event, table: &str, chain: &str, handle: u64, verdict: &str) -> Rule {
    // A rule in table inet is told with the packet's family.
    let families = [event.family, "inet", "bridge", "ip", "ip6"];
    let found = families.iter().find_map(|family| namespace.rules.chain(family, table, chain));
    let rule = found.and_then(|chain| chain.rules.iter().find(|rule| rule.handle == handle));
    let mut text = rule.map(|rule| rule.text.clone()).unwrap_or_default();
    if let Some(found) = found.filter(|found| found.of_iptables())
        && let Some(line) = why::iptables_line(namespace, found, handle)
    {
        text = line;
    }
    Rule {
        family: found.map_or(event.family, |chain| chain.family).to_owned(),
        table: table.to_owned(),
        chain: chain.to_owned(),
        handle,
        text,
        verdict: verdict.to_owned(),
    }
}
