//! How it ended: who answered, or what killed the probe, and what to do.

use std::net::{IpAddr, SocketAddr};

use netsetup::port::Listener;
use netsetup::survey::{self, Namespace};

use super::path::{End, Followed, Way};
use super::{Answer, Outcome, Rule};
use crate::graph::Owner;
use crate::state::State;

/// The end of the story.
pub fn outcome(way: &Way<'_>, there: &Followed, back: Option<&Followed>, answer: &Answer) -> Outcome {
    let mut outcome = told(way, there, back, answer);
    outcome.answer = answer.text();
    outcome.reached = matches!(answer, Answer::Connected | Answer::Datagram);
    outcome
}

fn told(way: &Way<'_>, there: &Followed, back: Option<&Followed>, answer: &Answer) -> Outcome {
    let text = |text: String, remedy: Option<String>| Outcome {
        reached: false,
        answer: String::new(),
        text,
        killed_by: None,
        remedy,
    };
    let asked = way.target.address;
    match &there.end {
        End::Delivered { place } => delivered(way, there, *place, back, answer),
        End::Killed { place, rule } => killed(way, *place, rule),
        End::NoWay { place, came_in } => no_way(way, *place, *came_in, there),
        End::Vanished { place, hook } => vanished(way, *place, hook),
        End::Lost { place, link, next } => {
            unanswered_by_reverse_path(way, *next, there).unwrap_or_else(|| lost(way, *place, *link, *next))
        }
        End::Gone { place, link } => {
            let name = way.picture.namespace(*place).and_then(|one| one.link(*link)).map(|link| link.name.clone());
            let said = match answer {
                Answer::Connected | Answer::Datagram => "somebody beyond it answered",
                Answer::Refused => "somebody beyond it refused",
                _ => "nobody beyond it answered",
            };
            text(format!("it left this host by {}; {said}", name.unwrap_or_default()), None)
        }
        End::Never => match answer {
            Answer::Unreachable(_) => no_route(way, way.picture.namespace(way.start), asked.ip()),
            Answer::Connected | Answer::Datagram => {
                text("it was answered, but the kernel told nothing of its way".to_owned(), None)
            }
            _ => text(
                format!("the kernel told nothing of a packet to {asked}"),
                Some("see `nft list ruleset` for a chain with a priority below -2000".to_owned()),
            ),
        },
    }
}

fn no_route(way: &Way<'_>, place: Option<&Namespace>, to: IpAddr) -> Outcome {
    let title = place.map_or("the client".to_owned(), |place| way.title(place));
    let prefix = place.map(|place| prefix(way, place)).unwrap_or_default();
    let v6 = if to.is_ipv6() { "-6 " } else { "" };
    let rejecting = place.and_then(|place| {
        place
            .routes
            .iter()
            .filter(|route| matches!(route.kind, 6..=8))
            .find(|route| netsetup::first_address(to, route.destination.1) == route.destination.0)
            .map(|route| crate::graph::model::route(place, route))
    });
    let (text, remedy) = match rejecting {
        Some(route) => (
            format!("{title} has a route that rejects packets to {to}: {route}"),
            format!("{prefix}ip {v6}route del {route}"),
        ),
        None => (
            format!("{title} has no route to {to}"),
            format!("{prefix}ip {v6}route add {to} via GATEWAY (or add a default route); see {prefix}ip {v6}route"),
        ),
    };
    Outcome { reached: false, answer: String::new(), text, killed_by: None, remedy: Some(remedy) }
}

/// `ip netns exec web `, where it is needed.
fn prefix(way: &Way<'_>, place: &Namespace) -> String {
    match (place.is_host, place.names.first(), place.processes.first()) {
        (true, _, _) => String::new(),
        (false, Some(name), _) => format!("ip netns exec {name} "),
        (false, None, Some(pid)) => format!("nsenter -t {pid} -n "),
        (false, None, None) => format!("(in {}) ", way.title(place)),
    }
}

fn killed(way: &Way<'_>, place: u64, rule: &Rule) -> Outcome {
    let namespace = way.picture.namespace(place);
    let title = namespace.map_or("?".to_owned(), |one| way.title(one));
    let prefix = namespace.map(|one| prefix(way, one)).unwrap_or_default();
    let own = rule.table.starts_with("minidock") || rule.chain.starts_with("MINIDOCK");
    let iptables = rule.text.starts_with("-A ") || rule.handle == 0 && is_iptables(namespace, rule);
    let what = if rule.text.contains("reject") || rule.text.contains("-j REJECT") { "rejected" } else { "dropped" };
    let text = match rule.handle {
        0 => format!("{what} on {title} by the policy of the chain {} {} {}", rule.family, rule.table, rule.chain),
        _ => format!("{what} on {title} by the rule `{}` in {} {} {}", rule.text, rule.family, rule.table, rule.chain),
    };
    let remedy = match (own, iptables, rule.handle) {
        (true, _, _) => own_remedy(way, rule),
        (false, true, 0) => format!(
            "{prefix}iptables -t {} -I {} -j ACCEPT with what is to pass (docker's own place is DOCKER-USER), or {prefix}iptables -t {0} -P {1} ACCEPT",
            rule.table, rule.chain
        ),
        (false, true, _) => {
            format!("{prefix}iptables -t {} {}", rule.table, rule.text.replacen("-A ", "-D ", 1))
        }
        (false, false, 0) => format!(
            "{prefix}nft insert rule {} {} {} … accept with what is to pass",
            rule.family, rule.table, rule.chain
        ),
        (false, false, handle) => format!(
            "{prefix}nft delete rule {0} {1} {2} handle {handle} (or nft insert rule {0} {1} {2} … accept before it)",
            rule.family, rule.table, rule.chain
        ),
    };
    Outcome { reached: false, answer: String::new(), text, killed_by: Some(rule.clone()), remedy: Some(remedy) }
}

fn is_iptables(namespace: Option<&Namespace>, rule: &Rule) -> bool {
    namespace
        .and_then(|one| one.rules.chain(&rule.family, &rule.table, &rule.chain))
        .is_some_and(|chain| chain.of_iptables())
}

/// minidock's own rules drop what nobody has asked to let in.
fn own_remedy(way: &Way<'_>, rule: &Rule) -> String {
    let asked = way.target.address;
    if rule.chain.to_lowercase().contains("guard") {
        return format!("127.0.0.0/8 is for each host alone: publish it on another address, -p {}:PORT", asked.port());
    }
    let protocol = if way.target.protocol == netsetup::Protocol::Udp { "/udp" } else { "" };
    let from = way.picture.namespace(way.start).and_then(|place| container(way, place));
    if let Some(from) = from
        && rule.family == "bridge"
    {
        return format!(
            "a container's card sends with its own MAC and addresses only: give {} the address with --ip, or start it \
             with --security-opt net-spoof=allow",
            from.name
        );
    }
    let asked_for = way.picture.namespaces.iter().filter_map(|place| container(way, place)).find(|state| {
        let mut places = state.attachments.iter().flat_map(|one| [one.ipv4, one.ipv6]).flatten();
        places.any(|place| place.address == asked.ip())
    });
    if let (Some(from), Some(to)) = (from, asked_for) {
        let networks = |state: &State| -> Vec<String> {
            state.attachments.iter().map(|attachment| attachment.network.clone()).collect()
        };
        let (ours, theirs) = (networks(from), networks(to));
        return match ours.iter().find(|network| theirs.contains(network)) {
            Some(network) => format!(
                "the network {network} keeps its containers apart (com.docker.network.bridge.enable_icc=false): publish \
                 the port, or put both into another network: minidock network connect NETWORK {}",
                from.name
            ),
            None => format!(
                "{} and {} have no network in common: minidock network connect {} {0}",
                from.name,
                to.name,
                theirs.first().map_or("NETWORK", String::as_str)
            ),
        };
    }
    match owner_of(way, asked.ip()) {
        Some(name) => format!(
            "port {0}{protocol} of {name} is not published: start it with -p HOSTPORT:{0}{protocol}, and ask the host for HOSTPORT",
            asked.port()
        ),
        None => "only published ports lead to containers; start it with -p".to_owned(),
    }
}

fn container<'a>(way: &'a Way<'_>, place: &Namespace) -> Option<&'a State> {
    match way.picture.owner(place) {
        Owner::Container(state) => Some(state),
        _ => None,
    }
}

/// The container that has an address.
fn owner_of(way: &Way<'_>, address: IpAddr) -> Option<String> {
    way.picture.namespaces.iter().find_map(|namespace| {
        let has = namespace.links.iter().any(|link| link.addresses.iter().any(|(one, _)| *one == address));
        matches!(way.picture.owner(namespace), Owner::Container(_)).then_some(())?;
        has.then(|| way.title(namespace))
    })
}

fn no_way(way: &Way<'_>, place: u64, came_in: u32, there: &Followed) -> Outcome {
    let outcome = |text: String, remedy: String| Outcome {
        reached: false,
        answer: String::new(),
        text,
        killed_by: None,
        remedy: Some(remedy),
    };
    let Some(namespace) = way.picture.namespace(place) else {
        return outcome("it ended in a namespace that is gone".to_owned(), "try again".to_owned());
    };
    let (title, prefix) = (way.title(namespace), prefix(way, namespace));
    let to = there.last.map_or(way.target.address.ip(), |packet| packet.destination.ip());
    let from = there.last.map(|packet| packet.source.ip());
    let forwards = if to.is_ipv4() { namespace.ip_forward } else { namespace.ip6_forward };
    if came_in != 0 && !forwards {
        let key = if to.is_ipv4() { "net.ipv4.ip_forward" } else { "net.ipv6.conf.all.forwarding" };
        return outcome(format!("{title} doesn't pass packets on: {key} is 0"), format!("{prefix}sysctl -w {key}=1"));
    }
    let found = namespace.run(|| survey::lookup(to, from.filter(|_| came_in != 0), (came_in != 0).then_some(came_in)));
    // Since 6.13 the kernel says EINVAL for EXDEV (inet_rtm_getroute()): then there is a way on, but not for this sender.
    let other_card = || {
        let ways =
            namespace.run(|| Ok((survey::lookup(to, None, None)?, survey::lookup(from.unwrap_or(to), None, None)?)));
        matches!(ways, Ok((Ok(_), Ok(back))) if from.is_some() && to.is_ipv4() && back.link != came_in)
    };
    match found {
        Ok(Err(libc::EXDEV | libc::EINVAL)) if came_in != 0 && other_card() => outcome(
            format!(
                "{title} dropped it: answers to {} would leave by another card (rp_filter)",
                from.map(|from| from.to_string()).unwrap_or_default()
            ),
            format!("{prefix}sysctl -w net.ipv4.conf.all.rp_filter=2"),
        ),
        Ok(Err(_)) => no_route(way, Some(namespace), to),
        _ => outcome(
            format!("{title} found no way on for a packet to {to}"),
            format!("see {prefix}ip route get {to}, and the counters in {prefix}nstat -az"),
        ),
    }
}

fn vanished(way: &Way<'_>, place: u64, hook: &str) -> Outcome {
    let namespace = way.picture.namespace(place);
    let title = namespace.map_or("?".to_owned(), |one| way.title(one));
    let legacy = namespace.map(|one| one.legacy_tables.clone()).unwrap_or_default();
    let (text, remedy) = if legacy.is_empty() {
        (
            format!("it vanished on {title} in {hook}, and no rule of nftables says why"),
            "a queue to a program, or a chain with a priority above 2000 may have it: nft list ruleset".to_owned(),
        )
    } else {
        (
            format!(
                "it vanished on {title} in {hook}: there are rules of the old iptables (tables {}), which can't be traced",
                legacy.join(", ")
            ),
            "see iptables-legacy-save -c, whose counters tell which rule it was".to_owned(),
        )
    };
    Outcome { reached: false, answer: String::new(), text, killed_by: None, remedy: Some(remedy) }
}

/// With rp_filter, not even ARP is answered to a sender whom the answer would reach by another card.
fn unanswered_by_reverse_path(way: &Way<'_>, next: IpAddr, there: &Followed) -> Option<Outcome> {
    let from = there.last.map(|packet| packet.source.ip()).filter(IpAddr::is_ipv4)?;
    let (asked, card) = way.picture.namespaces.iter().find_map(|place| {
        let has = |link: &&survey::Link| link.up && link.addresses.iter().any(|(one, _)| *one == next);
        Some((place, place.links.iter().find(has)?))
    })?;
    let back = asked.run(|| survey::lookup(from, None, None)).ok()?.ok()?;
    let by = asked.link(back.link).filter(|other| other.index != card.index && other.name != "lo")?;
    Some(Outcome {
        reached: false,
        answer: String::new(),
        text: format!(
            "{} doesn't answer for {next}: answers to {from} would leave by another card (rp_filter), by {} instead of {}",
            way.title(asked),
            by.name,
            card.name
        ),
        killed_by: None,
        remedy: Some(format!(
            "see {0}ip route get {from} and take the wrong route away; or {0}sysctl -w net.ipv4.conf.all.rp_filter=2",
            prefix(way, asked)
        )),
    })
}

fn lost(way: &Way<'_>, place: u64, link: u32, next: IpAddr) -> Outcome {
    let outcome = |text: String, remedy: String| Outcome {
        reached: false,
        answer: String::new(),
        text,
        killed_by: None,
        remedy: Some(remedy),
    };
    let Some(namespace) = way.picture.namespace(place) else {
        return outcome("it ended in a namespace that is gone".to_owned(), "try again".to_owned());
    };
    let (title, prefix) = (way.title(namespace), prefix(way, namespace));
    let name = namespace.link(link).map(|link| link.name.clone()).unwrap_or_default();
    // A cable that is off at one of its ends.
    for other in &way.picture.namespaces {
        for end in &other.links {
            let Some((far, far_end)) = way.picture.peer(end) else { continue };
            let has =
                |place: &Namespace| place.links.iter().any(|link| link.addresses.iter().any(|(one, _)| *one == next));
            let concerned = has(far) || has(other) || other.inode == namespace.inode && end.index == link;
            if concerned && !end.up {
                let prefix = self::prefix(way, other);
                return outcome(
                    format!(
                        "it left {title} by {name}, but {} of {}, the cable to {} of {}, is switched off",
                        end.name,
                        way.title(other),
                        far_end.name,
                        way.title(far)
                    ),
                    format!("{prefix}ip link set {} up", end.name),
                );
            }
        }
    }
    let neighbour = namespace.neighbours.iter().find(|one| one.link == link && one.address == Some(next));
    match neighbour.map(|one| one.mac.is_empty()) {
        None | Some(true) => outcome(
            format!("nobody on {name} answers for {next}: no neighbour has that address"),
            format!("is its container running? minidock ps; {prefix}ip neigh show dev {name}"),
        ),
        Some(false) => outcome(
            format!("it left {title} by {name} for {next}, and didn't come in there"),
            format!(
                "see the bridge's table, bridge fdb show, and minidock net graph; {prefix}ip neigh show dev {name}"
            ),
        ),
    }
}

fn delivered(way: &Way<'_>, there: &Followed, place: u64, back: Option<&Followed>, answer: &Answer) -> Outcome {
    let outcome = |text: String, remedy: Option<String>| Outcome {
        reached: false,
        answer: String::new(),
        text,
        killed_by: None,
        remedy,
    };
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
            outcome(format!("connected: {}", program(takes, at, &title)), proxied(way, takes))
        }
        (Answer::Datagram, takes) => outcome(format!("answered by {}", program(takes, at, &title)), None),
        (Answer::Refused, None) => refused(way, namespace, at, &listeners),
        (Answer::Refused, Some(one)) => outcome(
            format!("it reached {}, and was refused nevertheless", program(Some(one), at, &title)),
            Some("a rule with reject, or a full queue of connections".to_owned()),
        ),
        (_, None) => refused(way, namespace, at, &listeners),
        (_, Some(one)) => match back.map(|back| &back.end) {
            Some(End::Killed { place, rule }) => {
                let mut killed = killed(way, *place, rule);
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
                (protocol == netsetup::Protocol::Udp)
                    .then(|| "UDP needn't be answered: the program may not know what to say to the probe".to_owned()),
            ),
        },
    }
}

/// `httpd (pid 12) listens on 0.0.0.0:80 of web`
fn program(listener: Option<&Listener>, at: SocketAddr, title: &str) -> String {
    match listener {
        Some(listener) => {
            let who = listener.holder.as_ref().map_or("a program".to_owned(), ToString::to_string);
            format!("{who} on {} of {title}", SocketAddr::new(listener.address, at.port()))
        }
        None => format!("{at} of {title}"),
    }
}

/// A connection that minidock's own proxy has taken ends there; the proxy makes another one.
fn proxied(way: &Way<'_>, listener: Option<&Listener>) -> Option<String> {
    let holder = listener?.holder.as_ref().filter(|holder| holder.program.starts_with("minidock"))?;
    let state = way.picture.containers().find(|state| {
        state
            .attachments
            .iter()
            .flat_map(|attachment| &attachment.ports)
            .any(|port| port.host_port == way.target.address.port() && port.mode == netsetup::PublishMode::Proxy)
    })?;
    let port = state
        .attachments
        .iter()
        .flat_map(|attachment| &attachment.ports)
        .find(|port| port.host_port == way.target.address.port())?;
    let address = state.attachments.iter().find_map(|attachment| attachment.address_for(port.host_address))?;
    Some(format!(
        "that is the proxy of {} (pid {}), which makes a connection of its own: minidock walk {}",
        state.name,
        holder.pid,
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
            format!(
                "does its program run, and on which port? minidock logs {0}; minidock exec {0} netstat -ltn",
                state.name
            ),
        ),
        (None, _) if namespace.is_host => {
            let who = way.picture.namespaces.iter().find(|other| {
                matches!(way.picture.owner(other), Owner::Container(_))
                    && other
                        .run(|| Ok(netsetup::port::listeners(protocol, IpAddr::from([0, 0, 0, 0]), at.port())))
                        .is_ok_and(|found| !found.is_empty())
            });
            let flag = if protocol == netsetup::Protocol::Udp { "/udp" } else { "" };
            match who {
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
    Outcome { reached: false, answer: String::new(), text, killed_by: None, remedy: Some(remedy) }
}
