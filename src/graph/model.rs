//! The picture: namespaces as the kernel has them, each with its owner as minidock knows it.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use anyhow::Result;
use netsetup::survey::{self, Link, Namespace};
use netsetup::{PortMapping, PublishMode, shell};
use serde_json::{Value, json};

use super::differences;
use crate::commands::Engine;
use crate::containers;
use crate::recover::short;
use crate::router::{self, Definition, Floating};
use crate::state::State;

/// Whose a namespace is.
#[derive(Debug, Clone)]
pub enum Owner {
    /// The host itself, with the names of containers that share it.
    Host(Vec<String>),
    /// A container's.
    Container(Box<State>),
    /// A router's, with its one-to-one addresses.
    Router(Box<Definition>, Vec<Floating>),
    /// Made by hand, or by somebody else.
    Hand,
}

/// All that is known at one moment.
pub struct Picture {
    /// As the kernel has them; the host first.
    pub namespaces: Vec<Namespace>,
    /// Whose they are, by inode.
    pub owners: BTreeMap<u64, Owner>,
    /// What differs from what minidock thinks.
    pub differences: Vec<Difference>,
}

/// Something that isn't as minidock thinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The namespace; 0: none of them.
    pub namespace: u64,
    /// In the user's words: what is, what was expected, what to do.
    pub text: String,
}

impl Picture {
    /// Looks at the kernel and at the state files.
    pub fn take(engine: &Engine) -> Result<Picture> {
        Picture::take_with(engine, Vec::new())
    }

    /// The same, with further namespaces that nobody else holds.
    pub fn take_with(engine: &Engine, more: Vec<File>) -> Result<Picture> {
        let roots = &engine.roots;
        let running: Vec<State> = containers::all(roots).into_iter().filter(State::is_alive).collect();
        let mut owners: BTreeMap<u64, Owner> = BTreeMap::new();
        let own = std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |data| data.ino());
        owners.insert(own, Owner::Host(Vec::new()));
        let mut files = more;
        for state in running {
            let Some(process) = state.process else { continue };
            let Ok(file) = File::open(format!("/proc/{}/ns/net", process.pid)) else { continue };
            let inode = file.metadata().map_or(0, |data| data.ino());
            match owners.get_mut(&inode) {
                Some(Owner::Host(guests)) => guests.push(state.name.clone()),
                Some(Owner::Container(known)) if state.attachments.is_empty() || !known.attachments.is_empty() => {}
                _ => {
                    owners.insert(inode, Owner::Container(Box::new(state)));
                    files.push(file);
                }
            }
        }
        for router in router::all(roots) {
            if let Ok(file) = netsetup::named(&router.name) {
                let inode = file.metadata().map_or(0, |data| data.ino());
                let floating = router.floating(roots);
                owners.insert(inode, Owner::Router(Box::new(router), floating));
                files.push(file);
            }
        }
        let namespaces = survey::survey(files)?;
        let mut picture = Picture { namespaces, owners, differences: Vec::new() };
        picture.differences = differences::find(engine, &picture);
        Ok(picture)
    }

    /// The host.
    pub fn host(&self) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.is_host)
    }

    /// The namespace with this inode.
    pub fn namespace(&self, inode: u64) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.inode == inode)
    }

    /// Whose it is.
    pub fn owner(&self, namespace: &Namespace) -> &Owner {
        self.owners.get(&namespace.inode).unwrap_or(&Owner::Hand)
    }

    /// The network that a bridge of the host carries.
    pub fn network_of(&self, bridge: &Link) -> Option<&str> {
        let mut attachments = self.containers().flat_map(|state| &state.attachments);
        attachments.find(|attachment| attachment.bridge == bridge.name).map(|attachment| attachment.network.as_str())
    }

    /// What to call it.
    pub fn title(&self, namespace: &Namespace) -> String {
        match self.owner(namespace) {
            Owner::Container(state) => state.name.clone(),
            Owner::Router(router, _) => router.name.clone(),
            Owner::Host(_) | Owner::Hand => namespace.title().replace(char::is_control, "?"),
        }
    }

    /// The other end of a link that is one of a pair.
    pub fn peer(&self, link: &Link) -> Option<(&Namespace, &Link)> {
        if link.kind != "veth" {
            return None;
        }
        let there = self.namespace(link.peer_namespace?)?;
        Some((there, there.link(link.peer_index)?))
    }

    /// What a link leads to outside of its namespace or beside it: its other end, or the parent of a macvlan or ipvlan.
    pub fn leads_to<'a>(&'a self, namespace: &'a Namespace, link: &Link) -> Option<(&'a Namespace, &'a Link)> {
        if !matches!(link.kind.as_str(), "macvlan" | "macvtap" | "ipvlan") {
            return self.peer(link);
        }
        let there = link.peer_namespace.map_or(Some(namespace), |inode| self.namespace(inode))?;
        Some((there, there.link(link.peer_index)?))
    }

    /// Containers and the networks that they are in: what minidock knows of running ones.
    pub fn containers(&self) -> impl Iterator<Item = &State> {
        self.owners.values().filter_map(|owner| match owner {
            Owner::Container(state) => Some(&**state),
            _ => None,
        })
    }

    /// The whole, for programs.
    pub fn json(&self) -> Value {
        let namespaces: Vec<Value> = self
            .namespaces
            .iter()
            .map(|namespace| {
                let owner = match self.owner(namespace) {
                    Owner::Host(guests) => json!({"kind": "host", "containers": guests}),
                    Owner::Container(state) => json!({
                        "kind": "container",
                        "id": state.id,
                        "name": state.name,
                        "image": state.image,
                        "attachments": state.attachments,
                    }),
                    Owner::Router(router, floating) => {
                        json!({"kind": "router", "definition": &**router, "floating": floating})
                    }
                    Owner::Hand => json!({"kind": "other"}),
                };
                let differences: Vec<&str> = self.differences_of(namespace).collect();
                json!({
                    "title": self.title(namespace),
                    "kernel": namespace,
                    "minidock": owner,
                    "differences": differences,
                })
            })
            .collect();
        let all: Vec<&str> = self.differences.iter().map(|difference| difference.text.as_str()).collect();
        json!({"version": 1, "namespaces": namespaces, "differences": all})
    }

    /// What differs in one namespace.
    pub fn differences_of<'a>(&'a self, namespace: &Namespace) -> impl Iterator<Item = &'a str> {
        let inode = namespace.inode;
        self.differences.iter().filter(move |one| one.namespace == inode).map(|one| one.text.as_str())
    }
}

/// What minidock knows of a container, in one line.
pub fn thinks(state: &State) -> String {
    let mut text = format!("container {} of {}", short(&state.id), state.image);
    for attachment in &state.attachments {
        let addresses: Vec<String> =
            [attachment.ipv4, attachment.ipv6].iter().flatten().map(|place| place.address.to_string()).collect();
        text += &format!(", {} on {}", addresses.join(" and "), attachment.network);
    }
    text
}

/// `10.0.0.1/24`
pub fn addresses(link: &Link) -> Vec<String> {
    let shown = |address: &std::net::IpAddr| match address {
        std::net::IpAddr::V6(address) => !address.is_unicast_link_local(),
        std::net::IpAddr::V4(_) => true,
    };
    link.addresses.iter().filter(|(one, _)| shown(one)).map(|(one, length)| format!("{one}/{length}")).collect()
}

/// A route as `ip route` writes it.
pub fn route(namespace: &Namespace, route: &survey::Route) -> String {
    let mut text = match route.destination {
        (_, 0) => "default".to_owned(),
        (address, length) => format!("{address}/{length}"),
    };
    text += match route.kind {
        6 => " blackhole",
        7 => " unreachable",
        8 => " prohibit",
        _ => "",
    };
    if let Some(gateway) = route.gateway {
        text += &format!(" via {gateway}");
    }
    if let Some(link) = namespace.link(route.link) {
        text += &format!(" dev {}", shell::quoted(&link.name));
    }
    if route.table != 254 {
        text += &format!(" table {}", route.table);
    }
    text
}

/// Rules that translate or lead somewhere, and what was put into the maps that they look into. iptables' own words where
/// the rules are its.
pub fn translations(namespace: &Namespace) -> Vec<String> {
    let mut lines = Vec::new();
    for chain in &namespace.rules.chains {
        for rule in chain.rules.iter().filter(|_| !chain.of_iptables()) {
            let translates =
                ["dnat to ", "snat to ", "masquerade", "redirect"].iter().any(|words| rule.text.contains(words));
            if translates {
                let why = if rule.comment.is_empty() { String::new() } else { format!("  # {}", rule.comment) };
                lines.push(format!("{} {}: {}{why}", chain.table, chain.name, rule.text));
            }
        }
    }
    for (program, saved) in [("iptables", &namespace.iptables), ("ip6tables", &namespace.ip6tables)] {
        let mut table = "";
        for line in saved {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if table == "nat" && line.starts_with("-A") && !line.contains("-j DOCKER") {
                lines.push(format!("{program} -t nat {}", shell::quoted_line(line)));
            }
        }
    }
    lines
}

/// What is published on this host: where, to what, whose. As the firewall's maps have it, and what proxies serve, of which
/// the firewall knows nothing.
pub fn published(picture: &Picture, namespace: &Namespace) -> Vec<(String, String, String)> {
    let mut found = by_firewall(namespace);
    if namespace.is_host {
        for state in picture.containers() {
            found.extend(by_proxy(state));
        }
    }
    found
}

/// The ports that a container's proxy serves; neighbours in one line.
fn by_proxy(state: &State) -> Vec<(String, String, String)> {
    let ports = state.attachments.iter().flat_map(|one| one.ports.iter().map(move |port| (one, port)));
    let mut ports: Vec<_> = ports
        .filter(|(_, port)| port.mode == PublishMode::Proxy)
        .filter_map(|(attachment, port)| Some((attachment.address_for(port.host_address)?, port)))
        .collect();
    ports.sort_by_key(|(to, port)| (port.protocol, port.host_address, *to, port.host_port));
    let follows = |(to, one): &(IpAddr, &PortMapping), (next_to, next): &(IpAddr, &PortMapping)| {
        (one.protocol, one.host_address, to) == (next.protocol, next.host_address, next_to)
            && one.host_port.checked_add(1) == Some(next.host_port)
            && one.container_port.checked_add(1) == Some(next.container_port)
    };
    let mut found = Vec::new();
    for range in ports.chunk_by(follows) {
        let [(to, first), ..] = range else { continue };
        let last = |port: fn(&PortMapping) -> u16| match range.last() {
            Some((_, last)) if range.len() > 1 => format!("-{}", port(last)),
            _ => String::new(),
        };
        let at = if first.host_address == IpAddr::from([0; 4]) {
            "*".to_owned()
        } else {
            crate::format::port::bracketed(first.host_address)
        };
        found.push((
            format!("{} {at}:{}{}", first.protocol, first.host_port, last(|port| port.host_port)),
            format!("{}{}", SocketAddr::new(*to, first.container_port), last(|port| port.container_port)),
            format!("{}, by its proxy", state.name),
        ));
    }
    found
}

/// What the firewall leads on.
fn by_firewall(namespace: &Namespace) -> Vec<(String, String, String)> {
    let is_port_map = |name: &str| name.starts_with("ports") || name.starts_with("spans");
    let mut found = Vec::new();
    for map in namespace.rules.maps.iter().filter(|map| is_port_map(&map.name)) {
        for element in map.elements.iter().filter(|element| !element.data.is_empty()) {
            // A range has two halves: `tcp . 9000-tcp . 9010`; its ports stay the same inside.
            let (first, last) = match element.key.split_once('-') {
                Some((first, last)) => (first, last.rsplit(" . ").next()),
                None => (element.key.as_str(), None),
            };
            let words: Vec<&str> = first.split(" . ").collect();
            let last = last.map_or(String::new(), |last| format!("-{last}"));
            let at = match words[..] {
                [protocol, address, port] => format!("{protocol} {address}:{port}{last}"),
                [protocol, port] => format!("{protocol} *:{port}{last}"),
                _ => element.key.clone(),
            };
            let whose = element.comment.split(' ').next().unwrap_or_default().to_owned();
            found.push((at, element.data.replace(" . ", ":"), whose));
        }
    }
    let lines = [&namespace.iptables, &namespace.ip6tables];
    for line in lines.into_iter().flatten().filter(|line| line.starts_with("-A DOCKER ")) {
        let after = |flag: &str| {
            let mut words = line.split(' ').skip_while(|word| *word != flag);
            words.nth(1)
        };
        if let (Some(port), Some(to)) = (after("--dport"), after("--to-destination")) {
            let at = after("-d").map_or("*".to_owned(), |at| match at.strip_suffix("/128") {
                Some(v6) => format!("[{v6}]"),
                None => at.trim_end_matches("/32").to_owned(),
            });
            found.push((format!("{} {at}:{port}", after("-p").unwrap_or("?")), to.to_owned(), String::new()));
        }
    }
    found
}

/// A rate as tc writes it.
pub fn rate(bits: u64) -> String {
    match bits {
        bits if bits >= 1_000_000 && bits % 1_000_000 == 0 => format!("{}mbit", bits / 1_000_000),
        bits if bits >= 1_000 => format!("{}kbit", bits / 1_000),
        bits => format!("{bits}bit"),
    }
}
