//! Network: forwarding, other engines and firewalls, MTU, names.

use std::path::Path;

use netsetup::{Backend, Host};

use super::{fail, note, ok, small_file, warn};
use crate::commands::Engine;
use crate::format::doctor::Finding;
use crate::network;

pub fn examine(engine: &Engine) -> Vec<Finding> {
    let mut found = vec![forwarding(), firewall_program(engine)];
    found.extend(lacking(engine));
    found.extend(other_firewalls(engine));
    found.extend(cut_off(engine));
    found.push(other_engines());
    found.push(mtu(engine));
    found.push(names());
    found.extend(connections());
    found
}

fn forwarding() -> Finding {
    match small_file("/proc/sys/net/ipv4/ip_forward").as_str() {
        "1" => ok("forwarding", "net.ipv4.ip_forward is 1"),
        _ if writable("/proc/sys/net/ipv4/ip_forward") => {
            note("forwarding", "net.ipv4.ip_forward is 0", "nothing to do: the first container with a network sets it")
        }
        _ => fail(
            "forwarding",
            "net.ipv4.ip_forward is 0, and /proc/sys is read-only",
            "sysctl net.ipv4.ip_forward=1 outside, or run with --network none or host",
        ),
    }
}

fn writable(path: &str) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

fn firewall_program(engine: &Engine) -> Finding {
    match engine.config.firewall.unwrap_or_default() {
        Backend::Nftables => ok("firewall", "nftables, by netlink"),
        Backend::Iptables => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&path).any(|folder| folder.join("iptables").is_file());
            match found {
                true => ok("firewall", "iptables"),
                false => fail("firewall", "iptables isn't installed", "install it, or use --firewall nftables"),
            }
        }
    }
}

/// What of firewalls this kernel lacks, as the network's first container would be told.
fn lacking(engine: &Engine) -> Vec<Finding> {
    let network = crate::facts::default_network(engine, crate::host_netns::is_machines_own());
    let facts = Host::open().and_then(|mut host| netsetup::Facts::read(&mut host, &network));
    let Ok(facts) = facts.map(|facts| netsetup::Facts { bridge: None, ..facts }) else { return vec![] };
    let remedy = "load nf_tables, nft_nat, nft_masq and nf_tables_bridge (modprobe), or boot a kernel that has them";
    netsetup::warnings(&network, &facts).into_iter().map(|text| warn("firewall", text, remedy)).collect()
}

/// What drops the traffic of networks that are here, or will be.
fn in_the_way(engine: &Engine) -> Vec<Finding> {
    let Ok(mut host) = Host::open() else { return vec![] };
    let finding = |one: netsetup::Obstacle| {
        warn(
            "other firewalls",
            format!("{} drops {}", one.place, one.effect),
            format!("to let it pass: {}", one.remedy),
        )
    };
    network::obstacles(engine, &mut host).into_iter().map(|(_, one)| finding(one)).collect()
}

/// Chains of others that drop what is forwarded: no rule of our own table can save a packet from them.
fn other_firewalls(engine: &Engine) -> Vec<Finding> {
    let namespaces = match netsetup::survey::survey(vec![]) {
        Ok(namespaces) => namespaces,
        Err(error) => {
            return vec![note("other firewalls", format!("can't be read: {error}"), "see 'nft list ruleset'")];
        }
    };
    let Some(host) = namespaces.iter().find(|namespace| namespace.is_host) else { return vec![] };
    let mut found = in_the_way(engine);
    if !host.legacy_tables.is_empty() {
        let text = format!("iptables-legacy is in use ({}), which nftables can't see", host.legacy_tables.join(", "));
        found.push(note("other firewalls", text, "look at 'iptables-legacy-save' when packets get lost"));
    }
    if found.is_empty() {
        found.push(ok("other firewalls", "none that drops what is forwarded"));
    }
    if small_file("/proc/sys/net/bridge/bridge-nf-call-iptables") == "1" {
        let remedy = "sysctl net.bridge.bridge-nf-call-iptables=0 if containers can't reach each other";
        found.push(note("other firewalls", "bridged packets pass the firewall (br_netfilter)", remedy));
    }
    found
}

/// Containers whose bridge was deleted by hand.
fn cut_off(engine: &Engine) -> Vec<Finding> {
    let finding = |one: network::repair::CutOff| {
        let text = format!("{} is cut off from network {}: {}", one.container, one.network, one.why);
        warn("networks", text, one.remedy())
    };
    network::repair::cut_off(engine).unwrap_or_default().into_iter().map(finding).collect()
}

fn other_engines() -> Finding {
    let engines = [
        ("docker", "/run/docker.sock"),
        ("podman", "/run/podman/podman.sock"),
        ("containerd", "/run/containerd/containerd.sock"),
        ("CRI-O", "/run/crio/crio.sock"),
        ("libvirt", "/run/libvirt/libvirt-sock"),
        ("LXD", "/var/snap/lxd/common/lxd/unix.socket"),
    ];
    let running: Vec<&str> =
        engines.into_iter().filter(|(_, socket)| Path::new(socket).exists()).map(|(name, _)| name).collect();
    match running.is_empty() {
        true => ok("other engines", "none"),
        false => note(
            "other engines",
            running.join(", "),
            "they can live side by side; an existing docker0 is shared. For a bridge of our own set 'bridge' in config.toml",
        ),
    }
}

fn mtu(engine: &Engine) -> Finding {
    let Ok(mut host) = Host::open() else {
        return fail("MTU", "no netlink socket can be opened", "look for a sandbox that forbids AF_NETLINK");
    };
    let outside = netsetup::egress_mtu(&mut host);
    match engine.config.mtu {
        Some(own) if own > outside => warn(
            "MTU",
            format!("config.toml says {own}, but the route to the outside takes {outside}"),
            format!("set mtu = {outside}, or leave it out"),
        ),
        Some(own) => ok("MTU", format!("{own} (config.toml), outside {outside}")),
        None => ok("MTU", format!("{outside}, as the route to the outside")),
    }
}

fn names() -> Finding {
    let text = small_file("/etc/resolv.conf");
    let servers: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("nameserver")).map(str::trim).collect();
    let remedy = "give one with --dns or dns = [\"…\"] in config.toml if containers need names";
    match servers.as_slice() {
        [] => note("name servers", "/etc/resolv.conf names none", remedy),
        list if list.iter().all(|server| server.starts_with("127.")) => {
            let text = format!("{}: only on this host; containers ask through minidock", list.join(", "));
            note("name servers", text, remedy)
        }
        list => ok("name servers", list.join(", ")),
    }
}

fn connections() -> Vec<Finding> {
    let number = |name: &str| small_file(&format!("/proc/sys/net/netfilter/{name}")).parse::<u64>().ok();
    match (number("nf_conntrack_count"), number("nf_conntrack_max")) {
        (Some(count), Some(most)) if count * 10 > most * 8 => vec![warn(
            "connections",
            format!("{count} of at most {most} tracked connections: new ones will be dropped"),
            "sysctl net.netfilter.nf_conntrack_max=…",
        )],
        _ => vec![],
    }
}
