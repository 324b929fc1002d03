//! Why a rule is there: from its comment, the map that it looks into, and what minidock knows of containers and routers.

use std::net::SocketAddr;

use netsetup::survey::{Chain, Namespace};
use netsetup::trace::Packet;

use super::Rule;
use super::path::Way;
use crate::graph::Owner;
use crate::recover::short;
use crate::state::State;

/// One sentence, or nothing that could be said.
pub fn why(way: &Way<'_>, namespace: &Namespace, rule: &Rule, packet: Option<Packet>) -> Option<String> {
    let chain = namespace.rules.chain(&rule.family, &rule.table, &rule.chain);
    let found = chain.and_then(|chain| chain.rules.iter().find(|one| one.handle == rule.handle));
    let comment = found.map(|found| found.comment.clone()).filter(|comment| !comment.is_empty());
    if let Some(floating) = floating(way, namespace, rule, packet) {
        return Some(floating);
    }
    let ours = may_be_own(way, namespace);
    let leads = packet.filter(|_| ours).and_then(|packet| {
        let in_map = found.into_iter().flat_map(|found| &found.looks_into).find_map(|map| {
            let map = namespace.rules.map(&rule.family, &rule.table, map)?;
            let element = map.elements.iter().find(|element| key_fits(&element.key, &packet))?;
            container_of(way, &element.comment)
        });
        in_map.or_else(|| by_destination(way, &rule.text))
    });
    if let Some(state) = leads.filter(|_| rule.text.contains("dnat") || rule.text.contains("-j DNAT")) {
        return Some(match packet.and_then(|packet| flag(state, &packet)) {
            Some(flag) => format!("because {} was started with {flag}", state.name),
            None => format!("because of container {}", state.name),
        });
    }
    let own = is_own(way, namespace, rule) || ours && rule.chain == "DOCKER";
    match (comment, own) {
        (Some(comment), true) => Some(format!("minidock's: {comment}")),
        (Some(comment), false) => Some(format!("its maker notes: {comment}")),
        (None, true) => Some("minidock's own rule".to_owned()),
        (None, false) if rule.handle == 0 => Some(format!("somebody has given the chain {} this policy", rule.chain)),
        (None, false) if ours => of_iptables(rule),
        (None, false) => Some("not minidock's".to_owned()),
    }
}

/// Whether minidock's rules may be here: on the host and in its routers. In other namespaces somebody else can have taken
/// its names.
fn may_be_own(way: &Way<'_>, namespace: &Namespace) -> bool {
    namespace.is_host || matches!(way.picture.owner(namespace), Owner::Router(..))
}

/// Whether minidock has made it. A container's name server has a table in the container itself.
pub fn is_own(way: &Way<'_>, namespace: &Namespace, rule: &Rule) -> bool {
    let named = rule.table.starts_with("minidock") || rule.chain.starts_with("MINIDOCK");
    let of_names = rule.table == netsetup::dns::TABLE && matches!(way.picture.owner(namespace), Owner::Container(_));
    of_names || named && may_be_own(way, namespace)
}

/// What minidock writes with iptables into chains that all share.
fn of_iptables(rule: &Rule) -> Option<String> {
    if rule.text.contains("-j MASQUERADE") {
        return Some("containers leave with this host's address".to_owned());
    }
    if rule.text.contains("--dst-type LOCAL -j DOCKER") {
        return Some("published ports of this host's own addresses".to_owned());
    }
    if rule.text.contains("-j MINIDOCK-") {
        return Some("minidock's own chain".to_owned());
    }
    Some("not minidock's".to_owned())
}

/// A router's one-to-one address.
fn floating(way: &Way<'_>, namespace: &Namespace, rule: &Rule, packet: Option<Packet>) -> Option<String> {
    let Owner::Router(router, all) = way.picture.owner(namespace) else { return None };
    let translates = ["dnat", "snat", "DNAT", "SNAT"].iter().any(|word| rule.text.contains(word));
    let packet = packet.filter(|_| translates)?;
    let (from, to) = (packet.source.ip(), packet.destination.ip());
    let one = all.iter().find(|one| to == one.outside || from == one.inside || from == one.outside || to == one.inside);
    Some(match one {
        Some(one) => format!("because of minidock router floating add {} {} {}", router.name, one.outside, one.name),
        None => format!("because router {} translates all that has no address of its own", router.name),
    })
}

/// Whether an element's key, `tcp . 10080` or `tcp . 10.0.0.1 . 10080` or a range of these, fits the packet.
fn key_fits(key: &str, packet: &Packet) -> bool {
    let (first, last) = match key.split_once('-') {
        Some((first, last)) => (first, last),
        None => (key, key),
    };
    let words = |text: &str| text.split(" . ").map(str::trim).map(str::to_owned).collect::<Vec<_>>();
    let (first, last) = (words(first), words(last));
    let port = |words: &[String]| words.last().and_then(|word| word.parse::<u16>().ok());
    let at = packet.destination;
    let address_fits = first.iter().filter_map(|word| word.parse::<std::net::IpAddr>().ok()).all(|one| one == at.ip());
    match (port(&first), port(&last)) {
        (Some(first), Some(last)) => (first..=last).contains(&at.port()) && address_fits,
        _ => false,
    }
}

/// The container that a comment `NAME ID` means.
fn container_of<'a>(way: &'a Way<'_>, comment: &str) -> Option<&'a State> {
    let id = comment.split(' ').nth(1)?;
    way.picture.containers().find(|state| short(&state.id) == id)
}

/// The container to which `--to-destination 172.17.0.2:80` leads; in IPv6 it has quotes for its brackets.
fn by_destination<'a>(way: &'a Way<'_>, text: &str) -> Option<&'a State> {
    let to: SocketAddr = text.split("--to-destination ").nth(1)?.split(' ').next()?.trim_matches('\'').parse().ok()?;
    way.picture.containers().find(|state| {
        let places = state.attachments.iter().flat_map(|attachment| [attachment.ipv4, attachment.ipv6]).flatten();
        places.into_iter().any(|place| place.address == to.ip())
    })
}

/// The flag that published the port: `-p 127.0.0.1:10080:80/udp`.
pub fn flag(state: &State, packet: &Packet) -> Option<String> {
    let at = packet.destination;
    let port = state.attachments.iter().flat_map(|attachment| &attachment.ports).find(|port| {
        port.host_port == at.port() && (port.host_address.is_unspecified() || port.host_address == at.ip())
    })?;
    let address = match port.host_address {
        address if address.is_unspecified() => String::new(),
        std::net::IpAddr::V6(address) => format!("[{address}]:"),
        address => format!("{address}:"),
    };
    let protocol = if port.protocol == netsetup::Protocol::Tcp { String::new() } else { format!("/{}", port.protocol) };
    Some(format!("-p {address}{}:{}{protocol}", port.host_port, port.container_port))
}

/// The line of `iptables-save` for a rule of iptables-nft, with quotes for the shell: the n-th of its chain.
pub fn iptables_line(namespace: &Namespace, chain: &Chain, handle: u64) -> Option<String> {
    let saved = if chain.family == "ip6" { &namespace.ip6tables } else { &namespace.iptables };
    let number = chain.rules.iter().position(|rule| rule.handle == handle)?;
    let mut table = "";
    let start = format!("-A {} ", chain.name);
    let lines = saved.iter().filter(|line| {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        }
        table == chain.table && line.starts_with(&start)
    });
    lines.collect::<Vec<_>>().get(number).map(|line| netsetup::shell::quoted_line(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_of_a_port_map_is_known_again() {
        let packet = Packet {
            source: "10.0.0.9:40000".parse().unwrap(),
            destination: "10.0.0.1:8005".parse().unwrap(),
            tcp_flags: 2,
        };
        for (key, fits) in [
            ("tcp . 8005", true),
            ("tcp . 8006", false),
            ("tcp . 10.0.0.1 . 8005", true),
            ("tcp . 10.0.0.2 . 8005", false),
            ("tcp . 8000-tcp . 8009", true),
            ("nonsense", false),
        ] {
            assert_eq!(key_fits(key, &packet), fits, "{key}");
        }
    }
}
