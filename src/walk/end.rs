//! How it ended: who answered, or what killed the probe, and what to do.

mod nowhere;
mod program;
mod rule;

use std::net::IpAddr;

use netsetup::Protocol;
use netsetup::port::Holder;
use netsetup::shell::quoted;
use netsetup::survey::Namespace;

use super::path::{End, Followed, Way};
use super::{Answer, Outcome, why};
use crate::containers;
use crate::graph::Owner;
use crate::network::catalog;
use crate::network::definition::Definition;
use crate::network::repair;
use crate::process;
use crate::state::{Attachment, State, Status};

/// The end of the story.
pub fn outcome(way: &Way<'_>, there: &Followed, back: Option<&Followed>, answer: &Answer) -> Outcome {
    let mut outcome = told(way, there, back, answer);
    if !matches!(answer, Answer::Connected | Answer::Datagram) {
        cut_off(way, there, &mut outcome);
    }
    paused(way, there, &mut outcome);
    outcome.answer = answer.text();
    outcome.reached = matches!(answer, Answer::Connected | Answer::Datagram);
    outcome
}

fn told(way: &Way<'_>, there: &Followed, back: Option<&Followed>, answer: &Answer) -> Outcome {
    let asked = way.target.address;
    match &there.end {
        End::Delivered { place } => program::delivered(way, there, *place, back, answer),
        End::Killed { place, rule } => rule::killed(way, *place, rule, there.last),
        End::NoWay { place, came_in } => nowhere::no_way(way, *place, *came_in, there),
        End::Vanished { place, hook } => nowhere::vanished(way, *place, hook),
        End::Lost { place, link, next } => nowhere::unanswered_by_reverse_path(way, *next, there)
            .unwrap_or_else(|| nowhere::lost(way, *place, *link, *next)),
        End::Gone { place, link } => {
            let name = way.picture.namespace(*place).and_then(|one| one.link(*link)).map(|link| link.name.clone());
            let said = match answer {
                Answer::Connected | Answer::Datagram => "somebody beyond it answered",
                Answer::Refused => "somebody beyond it refused",
                _ => "nobody beyond it answered",
            };
            ended(format!("it left this host by {}; {said}", name.unwrap_or_default()), None)
        }
        End::Never => match answer {
            Answer::Unreachable(_) => nowhere::no_route(way, way.picture.namespace(way.start), asked.ip()),
            Answer::Connected | Answer::Datagram => {
                ended("it was answered, but the kernel told nothing of its way".to_owned(), None)
            }
            _ => ended(
                format!("the kernel told nothing of a packet to {asked}"),
                Some("see `nft list ruleset` for a chain with a priority below -2000".to_owned()),
            ),
        },
    }
}

/// `ip netns exec web `, where it is needed.
fn prefix(way: &Way<'_>, place: &Namespace) -> String {
    match (place.is_host, place.names.first(), place.processes.first()) {
        (true, _, _) => String::new(),
        (false, Some(name), _) => format!("ip netns exec {} ", quoted(name)),
        (false, None, Some(pid)) => format!("nsenter -t {pid} -n "),
        (false, None, None) => format!("(in {}) ", way.title(place)),
    }
}

/// An end without a rule that is to blame.
fn ended(text: String, remedy: Option<String>) -> Outcome {
    Outcome { reached: false, answer: String::new(), text, killed_by: None, remedy }
}

fn container<'a>(way: &'a Way<'_>, place: &Namespace) -> Option<&'a State> {
    match way.picture.owner(place) {
        Owner::Container(state) => Some(state),
        _ => None,
    }
}

/// The running container to which minidock has given an address, and its place there.
fn given<'a>(way: &'a Way<'_>, address: IpAddr) -> Option<(&'a State, &'a Attachment)> {
    way.picture.containers().find_map(|state| {
        let has = |one: &&Attachment| [one.ipv4, one.ipv6].iter().flatten().any(|place| place.address == address);
        Some((state, state.attachments.iter().find(has)?))
    })
}

/// The network in whose subnet an address is.
fn network_around(way: &Way<'_>, address: IpAddr) -> Option<Definition> {
    let has = |one: &Definition| one.pools.iter().any(|pool| pool.subnet.contains(address));
    catalog::all(way.engine).into_iter().find(has)
}

/// `-p 10080:80` of a container, as far as a packet to this address and port of the host would be led to it.
fn publisher<'a>(
    states: impl Iterator<Item = &'a State>,
    protocol: Protocol,
    address: IpAddr,
    port: u16,
) -> Option<(&'a State, &'a Attachment, &'a netsetup::PortMapping)> {
    let fits = |one: &&netsetup::PortMapping| {
        let host = one.host_address;
        one.protocol == protocol
            && one.host_port == port
            && (host == address || host.is_unspecified() && host.is_ipv4() == address.is_ipv4())
    };
    let mut found = states.flat_map(|state| {
        let ports = state.attachments.iter().flat_map(|one| one.ports.iter().map(move |port| (one, port)));
        ports.map(move |(attachment, port)| (state, attachment, port))
    });
    found.find(|(_, _, port)| fits(port))
}

/// The container whose monitor a process is: the monitor is its container's parent.
fn monitored<'a>(way: &'a Way<'_>, holder: &Holder) -> Option<&'a State> {
    way.picture.containers().find(|state| {
        state.process.and_then(|process| process::parent(process.pid)).is_some_and(|parent| parent == holder.pid)
    })
}

/// A container on the way whose bridge somebody has removed explains whatever became of the packet, but for a rule of
/// somebody else, which would have dropped it all the same.
fn cut_off(way: &Way<'_>, there: &Followed, outcome: &mut Outcome) {
    let foreign = match &there.end {
        End::Killed { place, rule } => {
            !way.picture.namespace(*place).is_some_and(|place| why::is_own(way, place, rule))
        }
        _ => false,
    };
    if foreign || matches!(there.end, End::Delivered { .. }) {
        return;
    }
    let asked = way.target.address;
    let sender = way.picture.namespace(way.start).and_then(|place| container(way, place));
    let published = publisher(way.picture.containers(), way.target.protocol, asked.ip(), asked.port());
    let last = there.last.and_then(|packet| given(way, packet.destination.ip()));
    let concerned = [
        sender,
        given(way, asked.ip()).map(|(state, _)| state),
        published.map(|(state, ..)| state),
        last.map(|(state, _)| state),
    ];
    let all = repair::cut_off(way.engine).unwrap_or_default();
    let is_concerned = |name: &str| concerned.iter().flatten().any(|state| state.name == name);
    let Some(first) = all.iter().find(|one| is_concerned(&one.container)) else { return };
    let mut names: Vec<&str> = all.iter().map(|one| one.container.as_str()).filter(|name| is_concerned(name)).collect();
    names.dedup();
    let what = format!("{} is cut off from network {}: {}", first.container, first.network, first.why);
    outcome.text = match &outcome.killed_by {
        Some(_) => format!("{what} ({})", outcome.text),
        None => what,
    };
    outcome.remedy = Some(format!(
        "minidock restart {} (a start makes bridge and card anew); minidock network repair tells of all that are cut off",
        names.join(" ")
    ));
}

/// A paused container's kernel still takes connections, and its programs don't answer.
fn paused(way: &Way<'_>, there: &Followed, outcome: &mut Outcome) {
    let asked = way.target.address;
    let delivered = match there.end {
        End::Delivered { place } => way.picture.namespace(place).and_then(|place| container(way, place)),
        _ => return,
    };
    let published = || publisher(way.picture.containers(), way.target.protocol, asked.ip(), asked.port());
    let state = delivered.or_else(|| published().map(|(state, ..)| state));
    let Some(state) = state.filter(|state| state.status == Status::Paused) else { return };
    let name = &state.name;
    outcome.text += &format!("; {name} is paused: its programs stand still, and nothing is answered");
    outcome.remedy = Some(format!("minidock unpause {name}"));
}

/// The stopped container that would have a port of this host.
fn stopped_publisher(way: &Way<'_>, address: IpAddr, port: u16) -> Option<String> {
    let states: Vec<State> = containers::all(&way.engine.roots);
    let stopped = states.iter().filter(|state| !state.is_alive());
    publisher(stopped, way.target.protocol, address, port).map(|(state, ..)| state.name.clone())
}
