//! A rule has killed the probe: whose it is, and what to do.

use std::net::IpAddr;

use netsetup::survey::Namespace;

use super::super::path::Way;
use super::super::{Outcome, Rule};
use super::{container, given, network_around, prefix};
use crate::graph::Owner;
use crate::state::State;

pub(super) fn killed(way: &Way<'_>, place: u64, rule: &Rule) -> Outcome {
    let namespace = way.picture.namespace(place);
    let title = namespace.map_or("?".to_owned(), |one| way.title(one));
    let prefix = namespace.map(|one| prefix(way, one)).unwrap_or_default();
    let own = is_own(rule);
    let iptables = rule.text.starts_with("-A ") || rule.handle == 0 && is_iptables(namespace, rule);
    let what = if rule.text.contains("reject") || rule.text.contains("-j REJECT") { "rejected" } else { "dropped" };
    let text = match rule.handle {
        0 => format!("{what} on {title} by the policy of the chain {} {} {}", rule.family, rule.table, rule.chain),
        _ => format!("{what} on {title} by the rule `{}` in {} {} {}", rule.text, rule.family, rule.table, rule.chain),
    };
    let nobody = own && nobody_has(way);
    let text = if nobody { format!("nothing here has the address {}; {text}", way.target.address.ip()) } else { text };
    let program = if rule.family == "ip6" { "ip6tables" } else { "iptables" };
    let remedy = match (own, iptables, rule.handle) {
        (true, _, _) => own_remedy(way, rule),
        (false, true, 0) => format!(
            "{prefix}{program} -t {} -I {} -j ACCEPT with what is to pass (docker's own place is DOCKER-USER), or {prefix}{program} -t {0} -P {1} ACCEPT",
            rule.table, rule.chain
        ),
        (false, true, _) => {
            format!("{prefix}{program} -t {} {}", rule.table, rule.text.replacen("-A ", "-D ", 1))
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

/// Whether the address that was asked for is one of a network's, and nobody's: no namespace and no neighbour has it.
fn nobody_has(way: &Way<'_>) -> bool {
    let asked = way.target.address.ip();
    let known = |place: &Namespace| {
        place.links.iter().any(|link| link.addresses.iter().any(|(one, _)| *one == asked))
            || place.neighbours.iter().any(|one| one.address == Some(asked) && !one.mac.is_empty())
    };
    network_around(way, asked).is_some() && given(way, asked).is_none() && !way.picture.namespaces.iter().any(known)
}

/// Whether minidock has made it.
pub(super) fn is_own(rule: &Rule) -> bool {
    rule.table.starts_with("minidock") || rule.chain.starts_with("MINIDOCK")
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
    if let (Some(from), Some((to, there))) = (from, given(way, asked.ip())) {
        return apart(from, to, &there.network, asked.port());
    }
    match owner_of(way, asked.ip()) {
        Some(name) => format!(
            "port {0}{protocol} of {name} is not published: start it with -p HOSTPORT:{0}{protocol}, and ask the host for HOSTPORT",
            asked.port()
        ),
        None => match network_around(way, asked.ip()) {
            Some(network) => format!(
                "no running container has the address {}: minidock network inspect {} tells who has which",
                asked.ip(),
                network.name
            ),
            None => "only published ports lead to containers: minidock ps shows which are".to_owned(),
        },
    }
}

/// Two containers that minidock's rules keep apart: within `network`, where the one has the address that was asked for, or
/// because the other isn't in it.
fn apart(from: &State, to: &State, network: &str, port: u16) -> String {
    if from.attachments.iter().any(|one| one.network == network) {
        return format!(
            "the network {network} keeps its containers apart (com.docker.network.bridge.enable_icc=false): publish \
             the port, or put both into another network: minidock network connect NETWORK {}",
            from.name
        );
    }
    let shared = to.attachments.iter().find_map(|place| {
        from.attachments.iter().find(|own| own.network == place.network)?;
        Some((place, place.ipv4.or(place.ipv6)?.address))
    });
    match shared {
        Some((place, address)) => format!(
            "{} isn't in the network {network}; in {}, which they share, {} is {address}: minidock walk --from {0} {}",
            from.name,
            place.network,
            to.name,
            std::net::SocketAddr::new(address, port)
        ),
        None => {
            format!("{} and {} have no network in common: minidock network connect {network} {0}", from.name, to.name)
        }
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
