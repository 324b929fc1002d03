//! The probe has found no way on, or nobody who takes it.

use std::net::IpAddr;

use netsetup::shell::quoted;
use netsetup::survey::{self, Namespace};

use super::super::Outcome;
use super::super::path::{Followed, Way};
use super::{ended, given, network_around, prefix};

pub(super) fn no_route(way: &Way<'_>, place: Option<&Namespace>, to: IpAddr) -> Outcome {
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
        None => match network_around(way, to).filter(|_| place.is_some_and(|place| place.is_host)) {
            Some(network) => (
                format!(
                    "host has no route to {to}: the bridge of network {}, whose address that is, isn't there",
                    network.name
                ),
                "the network's first container makes it: minidock ps shows whether one runs".to_owned(),
            ),
            None => (
                format!("{title} has no route to {to}"),
                format!("{prefix}ip {v6}route add {to} via GATEWAY (or add a default route); see {prefix}ip {v6}route"),
            ),
        },
    };
    ended(text, Some(remedy))
}

pub(super) fn no_way(way: &Way<'_>, place: u64, came_in: u32, there: &Followed) -> Outcome {
    let outcome = |text: String, remedy: String| ended(text, Some(remedy));
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

pub(super) fn vanished(way: &Way<'_>, place: u64, hook: &str) -> Outcome {
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
    ended(text, Some(remedy))
}

/// With rp_filter, not even ARP is answered to a sender whom the answer would reach by another card. IPv6 has no rp_filter;
/// a rule in its place drops the question who has an address, too, which isn't traced.
pub(super) fn unanswered_by_reverse_path(way: &Way<'_>, next: IpAddr, there: &Followed) -> Option<Outcome> {
    let from = there.last.map(|packet| packet.source.ip())?;
    let (asked, card) = way.picture.namespaces.iter().find_map(|place| {
        let has = |link: &&survey::Link| link.up && link.addresses.iter().any(|(one, _)| *one == next);
        Some((place, place.links.iter().find(has)?))
    })?;
    let back = asked.run(|| survey::lookup(from, None, None)).ok()?.ok()?;
    let by = asked.link(back.link).filter(|other| other.index != card.index && other.name != "lo")?;
    let prefix = prefix(way, asked);
    let (why, remedy) = if from.is_ipv4() {
        ("rp_filter".to_owned(), format!("{prefix}sysctl -w net.ipv4.conf.all.rp_filter=2"))
    } else {
        let (chain, rule) = reverse_path_rule(asked)?;
        let place = format!("{} {} {}", chain.family, chain.table, chain.name);
        (
            format!("the rule `{}` in {place}", rule.text),
            super::rule::nft(
                &prefix,
                "delete",
                (chain.family, &chain.table, &chain.name),
                &[format!("handle {}", rule.handle)],
            ),
        )
    };
    let v6 = if from.is_ipv6() { "-6 " } else { "" };
    Some(ended(
        format!(
            "{} doesn't answer for {next}: answers to {from} would leave by another card ({why}), by {} instead of {}",
            way.title(asked),
            by.name,
            card.name
        ),
        Some(format!("see {prefix}ip {v6}route get {from} and take the wrong route away; or {remedy}")),
    ))
}

/// A rule that drops packets to whose sender no route leads by the card that they came in by.
fn reverse_path_rule(place: &Namespace) -> Option<(&survey::Chain, &survey::Rule)> {
    let is_one = |rule: &&survey::Rule| {
        rule.text.contains("fib saddr") && rule.text.contains(" oif ") && rule.text.contains("drop")
    };
    let chains = place.rules.chains.iter().filter(|chain| ["ip6", "inet"].contains(&chain.family));
    chains.into_iter().find_map(|chain| Some((chain, chain.rules.iter().find(is_one)?)))
}

pub(super) fn lost(way: &Way<'_>, place: u64, link: u32, next: IpAddr) -> Outcome {
    let outcome = |text: String, remedy: String| ended(text, Some(remedy));
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
                let prefix = super::prefix(way, other);
                return outcome(
                    format!(
                        "it left {title} by {name}, but {} of {}, the cable to {} of {}, is switched off",
                        end.name,
                        way.title(other),
                        far_end.name,
                        way.title(far)
                    ),
                    format!("{prefix}ip link set dev {} up", quoted(&end.name)),
                );
            }
        }
    }
    let neighbour = namespace.neighbours.iter().find(|one| one.link == link && one.address == Some(next));
    match neighbour.map(|one| one.mac.is_empty()) {
        None | Some(true) => outcome(nobody(way, &name, next), what_to_do(way, &prefix, &name, next)),
        Some(false) => outcome(
            format!("it left {title} by {name} for {next}, and didn't come in there"),
            format!(
                "see the bridge's table, bridge fdb show, and minidock net graph; {prefix}ip neigh show dev {}",
                quoted(&name)
            ),
        ),
    }
}

/// Nobody has said that an address is his.
fn nobody(way: &Way<'_>, link: &str, next: IpAddr) -> String {
    let asked = if next.is_ipv4() { "ARP" } else { "neighbour discovery" };
    let whose = match given(way, next) {
        Some((state, _)) => format!("the address of {}", state.name),
        None if next != way.target.address.ip() => "the gateway".to_owned(),
        None => "nothing has that address".to_owned(),
    };
    format!("nobody on {link} answers for {next} (no answer to {asked}): {whose}")
}

fn what_to_do(way: &Way<'_>, prefix: &str, link: &str, next: IpAddr) -> String {
    let v6 = if next.is_ipv6() { "-6 " } else { "" };
    let look = format!("{prefix}ip {v6}neigh show dev {}", quoted(link));
    match (given(way, next), network_around(way, next)) {
        (Some((state, _)), _) => {
            format!("has {0} lost it? minidock net graph marks what differs; minidock restart {0}; {look}", state.name)
        }
        (None, Some(network)) => {
            format!(
                "who has which address: minidock network inspect {}; is its container running? minidock ps; {look}",
                network.name
            )
        }
        (None, None) => format!("is there such a machine, and is it up? {look}"),
    }
}
