//! A rule has killed the probe: whose it is, and what to do.

use std::net::{IpAddr, SocketAddr};

use netsetup::shell::{self, quoted};
use netsetup::survey::{Chain, Namespace};
use netsetup::trace::Packet;

use super::super::path::Way;
use super::super::{Outcome, Rule, why};
use super::{container, given, network_around, prefix};
use crate::graph::Owner;
use crate::state::State;

/// `packet`: as it was when it died, the probe or its answer.
pub(super) fn killed(way: &Way<'_>, place: u64, rule: &Rule, packet: Option<Packet>) -> Outcome {
    let namespace = way.picture.namespace(place);
    let title = namespace.map_or("?".to_owned(), |one| way.title(one));
    let prefix = namespace.map(|one| prefix(way, one)).unwrap_or_default();
    let own = namespace.is_some_and(|place| why::is_own(way, place, rule));
    let chain = namespace.and_then(|one| one.rules.chain(&rule.family, &rule.table, &rule.chain));
    let what = if rule.text.contains("reject") || rule.text.contains("-j REJECT") { "rejected" } else { "dropped" };
    let text = match rule.handle {
        0 => format!("{what} on {title} by the policy of the chain {} {} {}", rule.family, rule.table, rule.chain),
        _ => format!("{what} on {title} by the rule `{}` in {} {} {}", rule.text, rule.family, rule.table, rule.chain),
    };
    let nobody = own && nobody_has(way);
    let text = if nobody { format!("nothing here has the address {}; {text}", way.target.address.ip()) } else { text };
    let remedy = match chain {
        _ if own => own_remedy(way, rule),
        Some(chain) if chain.of_iptables() => by_iptables(way, namespace, chain, rule, packet, &prefix),
        _ => {
            let place = (&*rule.family, &*rule.table, &*rule.chain);
            let accept = nft(&prefix, "insert", place, &accept_by_nft(way, chain, packet));
            match rule.handle {
                _ if !can_be_named(place) => accept,
                0 => accept,
                handle => {
                    let delete = nft(&prefix, "delete", place, &[format!("handle {handle}")]);
                    format!("{delete} (or {accept})")
                }
            }
        }
    };
    Outcome { reached: false, answer: String::new(), text, killed_by: Some(rule.clone()), remedy: Some(remedy) }
}

fn can_be_named((_, table, chain): (&str, &str, &str)) -> bool {
    shell::is_nft_name(table) && shell::is_nft_name(chain)
}

/// `nft insert rule inet corp fence WORDS`, a command for each. nft reads its words as one text: see
/// [`shell::is_nft_name`].
pub(super) fn nft(prefix: &str, verb: &str, place: (&str, &str, &str), rules: &[String]) -> String {
    if !can_be_named(place) {
        return format!(
            "whoever made that chain gave it a name that nft doesn't take; see {prefix}nft -a list ruleset"
        );
    }
    let (family, table, chain) = place;
    let command = |words: &String| format!("{prefix}nft {verb} rule {family} {table} {chain} {words}");
    rules.iter().map(command).collect::<Vec<_>>().join(" && ")
}

/// The packet that was killed: of which IP version, and what of it says which flow it is: its destination, or of an answer
/// its source.
fn flow(way: &Way<'_>, packet: Option<Packet>) -> (bool, SocketAddr) {
    match packet {
        Some(packet) if packet.destination.port() == way.port => (true, packet.source),
        Some(packet) => (false, packet.destination),
        None => (false, way.target.address),
    }
}

/// What lets the probed flow pass a chain: the packet that died; where packets pass in both directions, its answers, too.
fn accept_by_nft(way: &Way<'_>, chain: Option<&Chain>, packet: Option<Packet>) -> Vec<String> {
    let (is_answer, at) = flow(way, packet);
    let (ip, protocol) = (if at.is_ipv4() { "ip" } else { "ip6" }, way.target.protocol);
    let rule = |address: &str, port: &str| format!("{ip} {address} {} {protocol} {port} {} accept", at.ip(), at.port());
    let (asks, answers) = (rule("daddr", "dport"), rule("saddr", "sport"));
    match chain.map(|chain| chain.hook) {
        _ if is_answer => vec![answers],
        Some("forward") => vec![asks, answers],
        _ => vec![asks],
    }
}

/// The same in iptables' words; a rule is taken away by its words where these are plain and nobody else can have written
/// them, else by its number.
fn by_iptables(
    way: &Way<'_>,
    namespace: Option<&Namespace>,
    chain: &Chain,
    rule: &Rule,
    packet: Option<Packet>,
    prefix: &str,
) -> String {
    let program = if rule.family == "ip6" { "ip6tables" } else { "iptables" };
    let program = format!("{prefix}{program} -t {}", quoted(&rule.table));
    let name = quoted(&rule.chain);
    if rule.handle == 0 {
        let (is_answer, at) = flow(way, packet);
        let accept = |address: &str, port: &str| {
            let (protocol, ip) = (way.target.protocol, at.ip());
            format!("{program} -I {name} -p {protocol} {address} {ip} {port} {} -j ACCEPT", at.port())
        };
        let (asks, answers) = (accept("-d", "--dport"), accept("-s", "--sport"));
        return match chain.hook {
            _ if is_answer => answers,
            "forward" => format!("{asks} && {answers} (or, for all: {program} -P {name} ACCEPT)"),
            _ => format!("{asks} (or, for all: {program} -P {name} ACCEPT)"),
        };
    }
    let ours = namespace.is_some_and(|place| place.is_host);
    let number = chain.rules.iter().position(|one| one.handle == rule.handle);
    match (rule.text.strip_prefix("-A "), number) {
        (Some(words), _) if ours && shell::is_plain(words) => format!("{program} -D {words}"),
        (_, Some(number)) => format!("{program} -D {name} {}", number + 1),
        (_, None) => format!("see {program} -nvL {name} --line-numbers"),
    }
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
            SocketAddr::new(address, port)
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
