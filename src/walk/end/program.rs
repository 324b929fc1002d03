//! The probe came to where it should: who listens there, and what became of the answer.

use std::net::{IpAddr, SocketAddr};

use netsetup::port::{Holder, Listener};
use netsetup::survey::{self, Namespace};
use netsetup::{Protocol, PublishMode};

use super::super::path::{End, Followed, Way};
use super::super::{Answer, Outcome};
use super::nowhere::no_route;
use super::rule::killed;
use super::{ended, monitored, prefix, publisher, stopped_publisher};
use crate::graph::Owner;

/// The end of a packet that was handed to whoever listens.
pub(super) fn delivered(
    way: &Way<'_>,
    there: &Followed,
    place: u64,
    back: Option<&Followed>,
    answer: &Answer,
) -> Outcome {
    let outcome = ended;
    let program = |takes: Option<&Listener>, at: SocketAddr, title: &str| program(way, takes, at, title);
    let Some(namespace) = way.picture.namespace(place) else {
        return outcome("it came to a namespace that is gone by now".to_owned(), None);
    };
    let title = way.title(namespace);
    let at = there.last.map_or(way.target.address, |packet| packet.destination);
    let protocol = way.target.protocol;
    let listeners = namespace.run(|| Ok(netsetup::port::listeners(protocol, at.ip(), at.port()))).unwrap_or_default();
    let takes = listeners.iter().find(|one| one.takes);
    match (answer, takes) {
        (Answer::Connected, takes) => {
            outcome(format!("it reached {}", program(takes, at, &title)), proxied(way, takes))
        }
        (Answer::Datagram, takes) => {
            outcome(format!("answered by {}", program(takes, at, &title)), proxied(way, takes))
        }
        (Answer::Refused, None) => refused(way, namespace, at, &listeners),
        (Answer::Refused, Some(one)) => outcome(
            format!("it reached {}, and was refused nevertheless", program(Some(one), at, &title)),
            Some("a rule with reject, or a full queue of connections".to_owned()),
        ),
        (_, None) => refused(way, namespace, at, &listeners),
        (_, Some(one)) => match back.map(|back| &back.end) {
            Some(End::Killed { place, rule }) => {
                let mut killed = killed(way, *place, rule, back.and_then(|back| back.last));
                killed.text =
                    format!("it reached {}, but the answer was {}", program(Some(one), at, &title), killed.text);
                killed
            }
            Some(End::NoWay { .. } | End::Never) => {
                let from = there.last.map_or(at.ip(), |packet| packet.source.ip());
                let mut none = no_route(way, Some(namespace), from);
                let can = namespace.run(|| survey::lookup(from, None, None)).is_ok_and(|found| found.is_ok());
                if can {
                    none = outcome(format!("it reached {}, which didn't answer", program(Some(one), at, &title)), None);
                } else {
                    none.text = format!(
                        "it reached {}, but the answer finds no way: {}",
                        program(Some(one), at, &title),
                        none.text
                    );
                }
                none
            }
            Some(End::Gone { place, link } | End::Lost { place, link, .. }) => {
                let there = way.picture.namespace(*place);
                let by = there.and_then(|one| one.link(*link)).map(|link| link.name.clone()).unwrap_or_default();
                let on = there.map(|one| way.title(one)).unwrap_or_default();
                outcome(
                    format!(
                        "it reached {}, but the answer left {on} by {by} and didn't come back to the client",
                        program(Some(one), at, &title)
                    ),
                    Some(format!("lead the answers back the way the question came: see the routes of {title}")),
                )
            }
            _ => outcome(
                format!("it reached {}, which didn't answer in time", program(Some(one), at, &title)),
                (protocol == Protocol::Udp)
                    .then(|| "UDP needn't be answered: the program may not know what to say to the probe".to_owned()),
            ),
        },
    }
}

/// `httpd (pid 12) on 0.0.0.0:80 of web`
fn program(way: &Way<'_>, listener: Option<&Listener>, at: SocketAddr, title: &str) -> String {
    match listener {
        Some(listener) => {
            let who = match listener.holder.as_ref() {
                Some(holder) => who(way, holder, title),
                None => "a program".to_owned(),
            };
            format!("{who} on {} of {title}", SocketAddr::new(listener.address, at.port()))
        }
        None => format!("{at} of {title}"),
    }
}

/// A monitor serves in the host's namespace as its container's proxy, in the container's as the name server. What a program
/// calls itself says nothing: the demo is minidock, too.
fn who(way: &Way<'_>, holder: &Holder, title: &str) -> String {
    match monitored(way, holder) {
        Some(state) if state.name == title => {
            format!("the name server in {}'s monitor (pid {})", state.name, holder.pid)
        }
        Some(state) => format!("the proxy in {}'s monitor (pid {})", state.name, holder.pid),
        None => holder.to_string(),
    }
}

/// A connection that a container's proxy has taken ends there; the proxy makes another one.
fn proxied(way: &Way<'_>, listener: Option<&Listener>) -> Option<String> {
    let state = monitored(way, listener?.holder.as_ref()?)?;
    let asked = way.target.address;
    let by_number = || {
        let attachments = state.attachments.iter();
        let mut ports = attachments.flat_map(|one| one.ports.iter().map(move |port| (state, one, port)));
        ports.find(|(_, _, port)| port.host_port == asked.port() && port.protocol == way.target.protocol)
    };
    // IPv6 clients of a container without IPv6 come to a proxy for a port that is led on by DNAT for the others.
    let (_, attachment, port) =
        publisher(std::iter::once(state), way.target.protocol, asked.ip(), asked.port()).or_else(by_number)?;
    let address = attachment.address_for(port.host_address)?;
    let flag = if way.target.protocol == Protocol::Udp { "/udp" } else { "" };
    Some(format!(
        "that is the proxy of {}, which asks the container itself, with this host's address: minidock walk {}{flag}",
        state.name,
        SocketAddr::new(address, port.container_port)
    ))
}

fn refused(way: &Way<'_>, namespace: &Namespace, at: SocketAddr, listeners: &[Listener]) -> Outcome {
    let title = way.title(namespace);
    let protocol = way.target.protocol;
    let (text, remedy) = match (listeners.first(), way.picture.owner(namespace)) {
        (Some(other), _) => (
            format!(
                "nothing on {title} takes packets to {at}: {} listens on {} only",
                other.holder.as_ref().map_or("a program".to_owned(), ToString::to_string),
                SocketAddr::new(other.address, at.port())
            ),
            "let the program listen on 0.0.0.0 (or [::]), not on localhost alone".to_owned(),
        ),
        (None, Owner::Container(state)) => (
            format!("nothing listens on {protocol} port {} in {title}", at.port()),
            // The host's program, in its namespace: an image needn't have one.
            format!(
                "does its program run, and on which port? minidock logs {}; {}ss -ltnu",
                state.name,
                prefix(way, namespace)
            ),
        ),
        (None, _) if namespace.is_host => {
            let who = way.picture.namespaces.iter().find(|other| {
                matches!(way.picture.owner(other), Owner::Container(_))
                    && other
                        .run(|| Ok(netsetup::port::listeners(protocol, IpAddr::from([0, 0, 0, 0]), at.port())))
                        .is_ok_and(|found| !found.is_empty())
            });
            let flag = if protocol == Protocol::Udp { "/udp" } else { "" };
            let published = publisher(way.picture.containers(), protocol, at.ip(), at.port());
            let stopped = stopped_publisher(way, at.ip(), at.port());
            match who {
                _ if published.is_some_and(|(_, _, port)| port.mode == PublishMode::Proxy) => {
                    let (name, inside) =
                        published.map_or(("", 0), |(state, _, port)| (&*state.name, port.container_port));
                    (
                        format!(
                            "the proxy of {name} takes nobody: nothing listens on {protocol} port {inside} in {name}"
                        ),
                        format!("does its program run, and on which port? minidock logs {name}"),
                    )
                }
                _ if stopped.is_some() => {
                    let name = stopped.unwrap_or_default();
                    (
                        format!(
                            "nothing listens on {protocol} port {} of this host: {name}, which published it, doesn't run",
                            at.port()
                        ),
                        format!("minidock start {name}"),
                    )
                }
                Some(other) => (
                    format!(
                        "port {} of this host is not published, and no program of the host listens on it",
                        at.port()
                    ),
                    format!("{} listens on that port: start it with -p {}:{1}{flag}", way.title(other), at.port()),
                ),
                None => (
                    format!(
                        "nothing listens on {protocol} port {} of this host, and no container has published it",
                        at.port()
                    ),
                    format!(
                        "publish one: minidock run -p {}:PORT{flag} …; minidock ps shows what is published",
                        at.port()
                    ),
                ),
            }
        }
        (None, _) => (
            format!("nothing listens on {protocol} {at} in {title}"),
            format!("start a program there that listens on port {}", at.port()),
        ),
    };
    ended(text, Some(remedy))
}
