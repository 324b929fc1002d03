//! What isn't as minidock thinks: links, addresses, routes, rules that somebody has changed by hand, and strangers in its
//! places.

use std::net::IpAddr;

use netsetup::PublishMode;
use netsetup::shell::quoted;
use netsetup::survey::Namespace;

use super::model::{Difference, Owner, Picture};
use crate::commands::Engine;
use crate::recover::short;
use crate::state::{Attachment, State};

/// Compares each thing that minidock has made and still needs with the kernel's.
pub fn find(_engine: &Engine, picture: &Picture) -> Vec<Difference> {
    let mut found = Vec::new();
    let Some(host) = picture.host() else { return found };
    let mut say = |namespace: u64, text: String| found.push(Difference { namespace, text });
    for namespace in &picture.namespaces {
        match picture.owner(namespace) {
            Owner::Container(state) => {
                for attachment in &state.attachments {
                    container(picture, namespace, host, state, attachment, &mut say);
                }
            }
            Owner::Router(router, floating) => {
                for (side, what) in [(&router.inside, "inside"), (&router.outside, "outside")] {
                    let link = namespace.link_named(&side.link);
                    let has = link.is_some_and(|link| {
                        link.up && link.addresses.iter().any(|(address, _)| *address == IpAddr::V4(side.address))
                    });
                    if !has {
                        say(
                            namespace.inode,
                            format!("its {what} leg {} has no {} (or is down)", side.link, side.address),
                        );
                    }
                }
                if !namespace.ip_forward {
                    say(namespace.inode, "net.ipv4.ip_forward is 0: it passes nothing on".to_owned());
                }
                for one in floating {
                    let text = one.outside.to_string();
                    let in_maps =
                        namespace.rules.maps.iter().any(|map| map.elements.iter().any(|element| element.key == text));
                    if !in_maps && !namespace.iptables.iter().any(|line| line.contains(&format!("-d {text}/32"))) {
                        say(namespace.inode, format!("the rules for {text} (container {}) are gone", one.name));
                    }
                }
            }
            Owner::Host(_) | Owner::Hand => {}
        }
    }
    if !host.ip_forward && picture.containers().any(|state| !state.attachments.is_empty()) {
        say(
            host.inode,
            "net.ipv4.ip_forward is 0: nothing passes between containers and the outside; sysctl -w \
             net.ipv4.ip_forward=1"
                .to_owned(),
        );
    }
    strangers(picture, host, &mut say);
    found
}

fn container(
    picture: &Picture,
    namespace: &Namespace,
    host: &Namespace,
    state: &State,
    attachment: &Attachment,
    say: &mut impl FnMut(u64, String),
) {
    let inside = &attachment.inside_link;
    match namespace.link_named(inside) {
        None => say(namespace.inode, format!("its link {inside} is gone")),
        Some(link) => {
            if !link.up {
                let inside = quoted(inside);
                say(namespace.inode, format!("{inside} is down; ip netns exec {} ip link set {inside} up", state.name));
            }
            for place in [attachment.ipv4, attachment.ipv6].into_iter().flatten() {
                if !link.addresses.iter().any(|(address, _)| *address == place.address) {
                    say(namespace.inode, format!("{inside} has no {}, which minidock gave it", place.address));
                }
                // A container with an address of its own outside answers by its router.
                let gateway = by_router(picture, state).or(place.gateway);
                let default = namespace
                    .routes
                    .iter()
                    .find(|route| route.destination.1 == 0 && route.destination.0.is_ipv4() == place.address.is_ipv4());
                match (gateway, default.map(|route| route.gateway)) {
                    (Some(wanted), None) => {
                        say(namespace.inode, format!("it has no default route; minidock made one via {wanted}"));
                    }
                    (Some(wanted), Some(Some(now))) if now != wanted => {
                        say(namespace.inode, format!("its default route leads to {now}; minidock's led to {wanted}"));
                    }
                    _ => {}
                }
            }
        }
    }
    // A macvlan or ipvlan has no other end: its card was made on the host and went into the container.
    let is_cable = namespace.link_named(inside).is_none_or(|link| link.kind == "veth");
    if attachment.host_link.is_empty() || !is_cable {
        return;
    }
    match host.link_named(&attachment.host_link) {
        None => say(host.inode, format!("{}, the cable of {}, is gone", attachment.host_link, state.name)),
        Some(link) => {
            if !link.up {
                let name = quoted(&link.name);
                say(host.inode, format!("{name}, the cable of {}, is down; ip link set {name} up", state.name));
            }
            let master = host.link(link.master).map(|master| master.name.as_str());
            if master != Some(attachment.bridge.as_str()) {
                say(
                    host.inode,
                    format!(
                        "{}, the cable of {}, is {}, not in {1}'s bridge {3}; ip link set {0} master {3}",
                        quoted(&link.name),
                        state.name,
                        master.map_or("in no bridge".to_owned(), |other| format!("in {other}")),
                        quoted(&attachment.bridge)
                    ),
                );
            }
        }
    }
    for port in attachment.ports.iter().filter(|port| port.mode == PublishMode::Dnat) {
        let Some(address) = attachment.address_for(port.host_address) else { continue };
        if !is_published(host, port.host_port, address, port.container_port) {
            say(
                host.inode,
                format!(
                    "the rule for {port} of {} is gone; minidock network repair (or restart the container)",
                    state.name
                ),
            );
        }
    }
}

/// The router's address, where one leads an outside address to the container.
fn by_router(picture: &Picture, state: &State) -> Option<IpAddr> {
    picture.owners.values().find_map(|owner| match owner {
        Owner::Router(router, floating) if floating.iter().any(|one| one.container == state.id) => {
            Some(router.inside.address.into())
        }
        _ => None,
    })
}

/// Whether the firewall leads the port there.
fn is_published(host: &Namespace, port: u16, address: IpAddr, container_port: u16) -> bool {
    let fits = |key: &str| {
        let last = key.rsplit(" . ").next().unwrap_or_default();
        match last.split_once('-') {
            Some((first, end)) => {
                let end = end.rsplit(" . ").next().unwrap_or_default();
                first.parse().is_ok_and(|first: u16| first <= port) && end.parse().is_ok_and(|end: u16| port <= end)
            }
            None => last.parse() == Ok(port),
        }
    };
    let text = address.to_string();
    let in_maps = host.rules.maps.iter().any(|map| {
        map.elements.iter().any(|element| {
            // The range's end is in the key's last word of its second half.
            let key = element.key.as_str();
            element.data.split(" . ").next() == Some(&text) && (fits(key) || range_has(key, port))
        })
    });
    let to =
        [format!("--to-destination {text}:{container_port}"), format!("--to-destination [{text}]:{container_port}")];
    in_maps
        || host.iptables.iter().chain(&host.ip6tables).any(|line| {
            (line.contains(&format!("--dport {port} ")) || line.contains("--dport ") && line.contains(':'))
                && (to.iter().any(|to| line.ends_with(to)) || line.contains(&format!("--to-destination {text}:")))
        })
}

/// `tcp . 8000-tcp . 8999`
fn range_has(key: &str, port: u16) -> bool {
    let number = |text: &str| text.rsplit(" . ").next().and_then(|word| word.parse::<u16>().ok());
    key.split_once('-')
        .and_then(|(first, last)| Some((number(first)?, number(last)?)))
        .is_some_and(|(first, last)| (first..=last).contains(&port))
}

/// Cards in minidock's bridges, and entries in its table, that belong to nobody it knows.
fn strangers(picture: &Picture, host: &Namespace, say: &mut impl FnMut(u64, String)) {
    let attachments: Vec<(&State, &Attachment)> =
        picture.containers().flat_map(|state| state.attachments.iter().map(move |one| (state, one))).collect();
    let routers: Vec<&str> = picture
        .owners
        .values()
        .filter_map(|owner| match owner {
            Owner::Router(router, _) => Some([router.inside.host_link.as_str(), router.outside.host_link.as_str()]),
            _ => None,
        })
        .flatten()
        .collect();
    let bridges: Vec<u32> = attachments
        .iter()
        .filter_map(|(_, attachment)| host.link_named(&attachment.bridge).map(|link| link.index))
        .collect();
    for link in host.links.iter().filter(|link| link.master != 0 && bridges.contains(&link.master)) {
        let known = attachments.iter().any(|(_, attachment)| attachment.host_link == link.name);
        if !known && !routers.contains(&link.name.as_str()) {
            let bridge = host.link(link.master).map(|bridge| bridge.name.clone()).unwrap_or_default();
            say(host.inode, format!("{} is in {bridge}, and minidock doesn't know it", link.name));
        }
    }
    for map in host.rules.maps.iter().filter(|map| map.table.starts_with("minidock") && map.name.starts_with("ports")) {
        for element in map.elements.iter().filter(|element| !element.comment.is_empty()) {
            let id = element.comment.split(' ').nth(1).unwrap_or_default();
            let known = picture.containers().any(|state| short(&state.id) == id);
            if id.len() == 12 && !known {
                say(
                    host.inode,
                    format!("{} leads to {} ({}), which doesn't run", element.key, element.data, element.comment),
                );
            }
        }
    }
}
