//! The plan: descriptions and facts in, operations out. Pure: no system call, no clock, no environment.

use std::net::IpAddr;

use crate::facts::{FORWARDING6, Facts, accept_ra_key, route_localnet_key};
use crate::firewall::element::{Element, Ports};
use crate::firewall::nftables::Family;
use crate::firewall::{self, conntrack, iptables, iptables_rules, nftables};
use crate::subnet::bits_of;
use crate::{
    Backend, Driver, Endpoint, Error, GatewayMode, Network, Op, Place, PortMapping, Protocol, PublishMode, Result,
    Subnet, link, netns, parent, sysctl,
};

/// What the network still lacks on this host; empty when all is there.
///
/// # Errors
/// [`Error::Refused`] when something else has the bridge's name or the subnet.
pub fn plan_network(network: &Network, facts: &Facts) -> Result<Vec<Op>> {
    if network.driver != Driver::Bridge {
        return parent::plan(network, facts);
    }
    if !valid_link_name(&network.bridge) {
        return Err(Error::Refused(format!(
            "the network {} can't work: the bridge's name {:?} needs 1-15 letters, digits, dots and dashes",
            network.name, network.bridge
        )));
    }
    if let Some(subnet) = network.subnets().find(|subnet| bits_of(subnet.gateway) - subnet.prefix_len.min(128) < 2) {
        return Err(Error::Refused(format!(
            "the network {} can't work: the subnet {subnet} is too small; the most are /30 and, in IPv6, /126",
            network.name
        )));
    }
    let mut ops = plan_forwarding(network, facts);
    ops.extend(plan_bridge(network, facts)?.into_iter().map(Op::Link));
    ops.extend(plan_settings(network, facts));
    match &facts.firewall {
        firewall::Facts::Nftables(facts, docker) => {
            let rules = nftables::plan_network(network, facts).into_iter();
            ops.extend(rules.map(|op| Op::Firewall(firewall::Op::Nftables(op))));
            let beside = docker.iter().flat_map(|facts| iptables::plan_beside_docker(network, facts));
            ops.extend(beside.map(|op| Op::Firewall(firewall::Op::Iptables(op))));
        }
        firewall::Facts::Iptables(facts) => {
            let rules = iptables::plan_network(network, facts).into_iter();
            ops.extend(rules.map(|op| Op::Firewall(firewall::Op::Iptables(op))));
        }
        firewall::Facts::Absent => {}
    }
    let guard = facts.guard.iter().flat_map(|facts| nftables::plan_table(network, facts));
    ops.extend(guard.map(|op| Op::Firewall(firewall::Op::Nftables(op))));
    Ok(ops)
}

fn write(key: impl Into<String>, old: Option<&str>, new: &str, why: &str) -> Op {
    Op::Sysctl(sysctl::Op::Write {
        key: key.into(),
        old: old.map(str::to_owned),
        new: new.to_owned(),
        why: why.to_owned(),
    })
}

/// The host as a router. What can't be changed is left: then published ports go by the proxy ([`publish_mode`]).
fn plan_forwarding(network: &Network, facts: &Facts) -> Vec<Op> {
    let mut ops = Vec::new();
    if network.internal || !facts.settings_writable {
        return ops;
    }
    if network.ipv4.is_some() && !facts.ip_forward {
        let why = "the host passes packets on between containers and the outside";
        ops.push(write("net/ipv4/ip_forward", Some("0"), "1", why));
    }
    if network.ipv6.is_some() && !facts.ipv6.forwarding {
        let why = "a router listens to other routers only when told so: keep this link's default route";
        ops.extend(facts.ipv6.advertised.iter().map(|link| write(accept_ra_key(link), Some("1"), "2", why)));
        ops.push(write(FORWARDING6, Some("0"), "1", "the same for IPv6"));
    }
    ops
}

/// Settings of the bridge. Those of a new one go with it.
fn plan_settings(network: &Network, facts: &Facts) -> Vec<Op> {
    let (bridge, found) = (&network.bridge, facts.bridge.is_some());
    let mut ops = Vec::new();
    if !facts.settings_writable {
        return ops;
    }
    if network.ipv4.is_some() && !network.internal && !facts.route_localnet {
        let why = "localhost:PORT reaches published ports";
        ops.push(write(route_localnet_key(bridge), found.then_some("0"), "1", why));
    }
    let accepts = facts.ipv6.bridge_accepts.as_deref();
    if facts.ipv6.available && accepts != Some("0") && (!found || accepts.is_some()) {
        ops.push(write(accept_ra_key(bridge), accepts, "0", "no container may pose as the host's router"));
    }
    if network.ipv6.is_some() && !found {
        // Neighbours are asked from the link-local address: until the kernel has tried it for a second and a half, what
        // comes from outside reaches no container.
        let why = "the bridge's own address is used at once, without a trial";
        ops.push(write(format!("net/ipv6/conf/{bridge}/accept_dad"), None, "0", why));
    }
    ops
}

const NO_FIREWALL: &str = "this kernel has no nftables, and iptables doesn't work either";

/// What the user should know of a network's containers on this host: what is lacking, and what follows from it.
pub fn warnings(network: &Network, facts: &Facts) -> Vec<String> {
    if network.driver != Driver::Bridge {
        return vec![];
    }
    let name = &network.name;
    if facts.firewall.is_absent() {
        let out = if network.internal { "" } else { "containers can't reach the outside (no masquerade), " };
        return vec![format!(
            "network {name}: {NO_FIREWALL}: {out}ports are published by the proxy, and nothing keeps networks apart"
        )];
    }
    // Told with the network's first container.
    let anew = facts.bridge.is_none() && facts.guard.is_none();
    let guard = format!(
        "network {name}: this kernel has no nftables for bridges (nf_tables_bridge): nothing keeps a container from \
         sending with its neighbours' addresses"
    );
    if anew { vec![guard] } else { vec![] }
}

/// By what means a port of the host's is published, and why not by DNAT where that can't serve.
pub fn publish_mode(
    wanted: PublishMode,
    network: &Network,
    facts: &Facts,
    protocol: Protocol,
    host_address: IpAddr,
) -> (PublishMode, Option<&'static str>) {
    let same_version = network.subnets().any(|subnet| subnet.gateway.is_ipv4() == host_address.is_ipv4());
    let reason = if protocol == Protocol::Sctp {
        return (PublishMode::Dnat, None); // which the proxy can't carry
    } else if !same_version {
        "the container has no address of that IP version"
    } else if host_address == IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]) {
        "the kernel takes no answer to ::1 from a bridge"
    } else if facts.firewall.is_absent() {
        NO_FIREWALL
    } else if facts.settings_writable {
        return (wanted, None);
    } else if host_address.is_ipv4() && !facts.ip_forward || host_address.is_ipv6() && !facts.ipv6.forwarding {
        "this host doesn't forward packets, and /proc/sys is read-only"
    } else if host_address.is_ipv4()
        && !facts.route_localnet
        && (host_address.is_unspecified() || host_address.is_loopback())
    {
        "route_localnet can't be set: /proc/sys is read-only"
    } else {
        return (wanted, None);
    };
    (PublishMode::Proxy, Some(reason).filter(|_| wanted == PublishMode::Dnat))
}

fn plan_bridge(network: &Network, facts: &Facts) -> Result<Vec<link::Op>> {
    let name = &network.bridge;
    if let Some(found) = facts.bridge.as_ref().filter(|found| found.kind != "bridge") {
        let kind = if found.kind.is_empty() { "another kind of link" } else { &found.kind };
        return Err(Error::Refused(format!(
            "cannot use {name} as a bridge: it is there and is {kind}; rename or remove it"
        )));
    }
    let mut ops = Vec::new();
    if facts.bridge.is_none() {
        ops.push(link::Op::Bridge { name: name.clone(), mac: network.bridge_mac(), mtu: network.mtu });
    }
    // In an isolated network the host has no address of that version.
    let with_host = |subnet: &&Subnet| network.gateway_mode(subnet.gateway.is_ipv6()) != GatewayMode::Isolated;
    for subnet in network.subnets().filter(with_host) {
        ops.extend(plan_address(network, subnet, facts)?);
    }
    if !facts.bridge.as_ref().is_some_and(|found| found.up) {
        ops.push(link::Op::BridgeUp { name: name.clone() });
    }
    Ok(ops)
}

/// The bridge's address in one subnet, where it isn't there yet.
fn plan_address(network: &Network, subnet: &Subnet, facts: &Facts) -> Result<Option<link::Op>> {
    let name = &network.bridge;
    let version = |address: &IpAddr| address.is_ipv4() == subnet.gateway.is_ipv4();
    let there = facts.bridge.iter().flat_map(|found| &found.addresses).filter(|(address, _)| version(address));
    let mut other = None;
    for (address, prefix_len) in there {
        if *address == subnet.gateway {
            return Ok(None);
        }
        other = other.or(Some((address, prefix_len)));
    }
    // A bridge may have IPv6 addresses of its own beside the network's.
    if let Some((address, prefix_len)) = other.filter(|(address, _)| address.is_ipv4()) {
        return Err(Error::Refused(format!(
            "the bridge {name} has the address {address}/{prefix_len}, not {}/{}: take its address for the network, \
             or remove the bridge",
            subnet.gateway, subnet.prefix_len
        )));
    }
    if let Some(other) = facts.addresses.iter().find(|other| subnet.overlaps(other.address, other.prefix_len)) {
        return Err(Error::Refused(format!(
            "cannot use the subnet {subnet} for {name}: {} has {}/{} in it; choose another subnet",
            if other.link.is_empty() { "another link" } else { &other.link },
            other.address,
            other.prefix_len
        )));
    }
    Ok(Some(link::Op::BridgeAddress {
        bridge: name.clone(),
        address: subnet.gateway,
        prefix_len: subnet.prefix_len,
        with_bridge: facts.bridge.is_none(),
    }))
}

/// dev_valid_name() in net/core/dev.c, and no character that a firewall's or the shell's language would take for its own.
fn valid_link_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=15).contains(&name.len()) && name.chars().all(good) && !name.starts_with(['.', '-'])
}

/// One container's links, name and ports. Ports in proxy mode are no concern of the kernel.
pub fn plan_endpoint(network: &Network, endpoint: &Endpoint) -> Vec<Op> {
    if network.driver != Driver::Bridge {
        return parent::plan_card(network, endpoint);
    }
    let mut links = vec![link::Op::Veth {
        host: endpoint.host_link.clone(),
        inside: endpoint.inside_link.clone(),
        bridge: endpoint.bridge.clone(),
        mac: endpoint.mac,
        mtu: endpoint.mtu,
        alias: endpoint.name.clone(),
        hairpin: endpoint.hairpin,
        // Where br_netfilter shows the firewall what goes from port to port, that judges it; isolated ports would then keep
        // a container from its neighbour's published ports too, which are translated inside the bridge.
        isolated: !network.icc && !endpoint.hairpin,
        group: if endpoint.may_spoof { 0 } else { nftables::card_group(&network.table) },
    }];
    let places = endpoint.places().map(|place| (place.address, place.prefix_len));
    links.extend(
        places.chain(endpoint.extra_addresses.iter().copied()).map(|(address, prefix_len)| link::Op::Address {
            link: endpoint.inside_link.clone(),
            address,
            prefix_len,
        }),
    );
    let gateways = endpoint.places().filter_map(|place| place.gateway);
    links.extend(gateways.map(|gateway| link::Op::DefaultRoute { gateway }));
    if endpoint.first {
        links.push(link::Op::LoopbackUp);
    }
    let name = endpoint.first.then(|| Op::Netns(netns::Op::Name { name: endpoint.name.clone() }));
    let rules = plan_rules(network, endpoint);
    links.into_iter().map(Op::Link).chain(name).chain(rules.into_iter().map(Op::Firewall)).collect()
}

/// What the firewall is told of a container: what it may send, and its published ports. One transaction with nftables.
pub fn plan_rules(network: &Network, endpoint: &Endpoint) -> Vec<firewall::Op> {
    if network.no_firewall {
        return vec![];
    }
    let mut rules: Vec<firewall::Op> = Vec::new();
    let mut forget = Vec::new();
    if !endpoint.may_spoof {
        let elements = senders(endpoint);
        rules.push(firewall::Op::Nftables(nftables::Op::Senders { table: network.table.clone(), elements }));
    }
    for v6 in [false, true] {
        let version = |mapping: &&PortMapping| mapping.host_address.is_ipv6() == v6;
        let ports = |mode| endpoint.ports.iter().filter(version).filter(move |mapping| mapping.mode == mode);
        let place = if v6 { endpoint.ipv6 } else { endpoint.ipv4 };
        let dnat: Vec<PortMapping> = ports(PublishMode::Dnat).copied().collect();
        if let Some(Place { address, .. }) = place.filter(|_| !dnat.is_empty() && !network.internal) {
            let dnat = Ports(dnat);
            let udp = dnat.runs().into_iter().filter(|run| run.first.protocol == Protocol::Udp);
            forget.extend(udp.map(|run| {
                let (mapping, last) = (run.first, run.last.host_port);
                firewall::Op::Conntrack(conntrack::Op::Forget { mapping, last, address })
            }));
            rules.extend(plan_ports(network, endpoint, dnat, address, v6));
        }
        let proxied: Vec<PortMapping> = ports(PublishMode::Proxy).copied().collect();
        let table_is_there = network.subnets().any(|subnet| subnet.gateway.is_ipv6() == v6);
        if !proxied.is_empty() && table_is_there {
            rules.extend(plan_proxied(network, proxied, v6));
        }
    }
    rules.extend(forget);
    rules
}

/// Gives all that a container sends through the host a traffic class: `--net-cls`, `--net-rate`.
pub fn plan_class(network: &Network, endpoint: &Endpoint, class: u32) -> Vec<Op> {
    let one = |place: &Place| {
        let (address, v6) = (place.address, place.address.is_ipv6());
        match network.backend {
            Backend::Nftables => firewall::Op::Nftables(nftables::Op::Classes {
                family: if v6 { Family::Ip6 } else { Family::Ip },
                table: network.table.clone(),
                elements: vec![Element::Class { address, class }],
            }),
            Backend::Iptables => firewall::Op::Iptables(iptables_rules::class(address, class)),
        }
    };
    endpoint.places().map(one).map(Op::Firewall).collect()
}

/// The MAC and addresses that a card may send from.
fn senders(endpoint: &Endpoint) -> Vec<Element> {
    let (link, mac) = (&endpoint.host_link, endpoint.mac);
    let mut addresses: Vec<IpAddr> = endpoint.places().map(|place| place.address).collect();
    addresses.extend(endpoint.extra_addresses.iter().map(|(address, _)| *address));
    if addresses.iter().any(IpAddr::is_ipv6) {
        addresses.push(link_local(mac));
    }
    let target = |address: &IpAddr| Element::Target { link: link.clone(), address: *address };
    let mut targets: Vec<Element> = addresses.iter().filter(|address| address.is_ipv6()).map(target).collect();
    if !targets.is_empty() {
        addresses.push(IpAddr::from([0_u16; 8])); // before it has an address: reports of groups, checks of addresses
    }
    let sender = |address: &IpAddr| Element::Sender { link: link.clone(), mac, address: *address };
    let mut elements: Vec<Element> = addresses.iter().map(sender).collect();
    elements.append(&mut targets);
    elements
}

/// The link-local address that the kernel makes of a MAC (RFC 4291, appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> IpAddr {
    let words = [[a ^ 2, b], [c, 0xff], [0xfe, d], [e, f]].map(u16::from_be_bytes);
    IpAddr::from([0xfe80, 0, 0, 0, words[0], words[1], words[2], words[3]])
}

fn plan_ports(network: &Network, endpoint: &Endpoint, ports: Ports, address: IpAddr, v6: bool) -> Vec<firewall::Op> {
    let family = if v6 { Family::Ip6 } else { Family::Ip };
    let table = network.table.clone();
    match (network.backend, network.gateway_mode(v6)) {
        (_, GatewayMode::Isolated) => vec![],
        (Backend::Nftables, GatewayMode::Routed) => {
            vec![firewall::Op::Nftables(nftables::Op::Open { family, table, ports, address })]
        }
        (Backend::Nftables, GatewayMode::Nat) => {
            let short_id: String = endpoint.owner.chars().take(12).collect();
            let comment = format!("{} {short_id}", endpoint.name);
            vec![firewall::Op::Nftables(nftables::Op::Publish { family, table, ports, address, comment })]
        }
        (Backend::Iptables, GatewayMode::Routed) => {
            ports.0.iter().map(|port| firewall::Op::Iptables(iptables_rules::open(network, port, address))).collect()
        }
        (Backend::Iptables, GatewayMode::Nat) => {
            ports.runs().iter().map(|run| firewall::Op::Iptables(iptables::Op::publish(run, address))).collect()
        }
    }
}

fn plan_proxied(network: &Network, ports: Vec<PortMapping>, v6: bool) -> Vec<firewall::Op> {
    match network.backend {
        Backend::Nftables => {
            let family = if v6 { Family::Ip6 } else { Family::Ip };
            let (table, ports) = (network.table.clone(), Ports(ports));
            vec![firewall::Op::Nftables(nftables::Op::Proxied { family, table, ports })]
        }
        Backend::Iptables => {
            ports.iter().map(|port| firewall::Op::Iptables(iptables_rules::proxied(network, port))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::Ipv6Facts;
    use crate::firewall::nftables::TableFacts;

    fn network(backend: Backend) -> Network {
        let ipv4 = Some(Subnet::new([172, 17, 0, 1], 16));
        Network { ipv4, backend, ..Network::new("bridge", "docker0") }
    }

    /// A host that has nothing yet.
    fn nothing(network: &Network) -> Facts {
        let firewall = match network.backend {
            Backend::Nftables => {
                let tables = nftables::families(network).map(|family| TableFacts::nothing(network, family)).collect();
                firewall::Facts::Nftables(nftables::Facts { tables }, None)
            }
            Backend::Iptables => firewall::Facts::Iptables(iptables::Facts::default()),
        };
        Facts {
            bridge: None,
            addresses: Vec::new(),
            ip_forward: false,
            route_localnet: false,
            bridge_netfilter: false,
            egress_mtu: 1500,
            firewall,
            guard: None,
            settings_writable: true,
            ipv6: Ipv6Facts::default(),
        }
    }

    fn endpoint() -> Endpoint {
        let port = |host_address: Ipv4Addr, host_port, container_port, protocol, mode| PortMapping {
            protocol,
            host_address: host_address.into(),
            host_port,
            container_port,
            mode,
        };
        let any = Ipv4Addr::UNSPECIFIED;
        Endpoint {
            owner: "3f2a9c11d0b2e4f5".repeat(4),
            name: "web".into(),
            host_link: "veth3f2a9c1".into(),
            inside_link: "eth0".into(),
            mac: [2, 0x42, 172, 17, 0, 2],
            ipv4: Some(Place {
                address: [172, 17, 0, 2].into(),
                prefix_len: 16,
                gateway: Some([172, 17, 0, 1].into()),
            }),
            ipv6: None,
            extra_addresses: vec![],
            may_spoof: false,
            first: true,
            mtu: 1500,
            bridge: "docker0".into(),
            hairpin: false,
            ports: vec![
                port(any, 10080, 80, Protocol::Tcp, PublishMode::Dnat),
                port(Ipv4Addr::LOCALHOST, 10053, 53, Protocol::Udp, PublishMode::Dnat),
                port(any, 9000, 9000, Protocol::Tcp, PublishMode::Proxy),
            ],
        }
    }

    fn script(ops: &[Op]) -> String {
        let commands = ops.iter().flat_map(Op::explain).map(|(command, _)| command + "\n");
        commands.collect()
    }

    #[test]
    fn a_network_with_nftables() {
        let network = network(Backend::Nftables);
        let ops = plan_network(&network, &nothing(&network)).unwrap();
        let text = script(&ops);
        let (head, table) = text.split_once("nft -f - <<'EOF'\n").unwrap();
        assert_eq!(
            head,
            "echo 1 > /proc/sys/net/ipv4/ip_forward\n\
             ip link add docker0 address 02:42:ac:11:00:01 mtu 1500 type bridge\n\
             ip addr add 172.17.0.1/16 dev docker0\n\
             ip link set docker0 up\n\
             echo 1 > /proc/sys/net/ipv4/conf/docker0/route_localnet\n"
        );
        let (table, elements) = table.split_once("EOF\n").unwrap();
        assert!(table.starts_with("table ip minidock {\n\tset bridges { type ifname; }\n"));
        assert!(table.contains("\t\tip saddr @masqueraded oifname != @bridges masquerade comment "));
        assert_eq!(
            elements,
            "nft add element ip minidock bridges '{ \"docker0\" }'\n\
             nft add element ip minidock subnets '{ 172.17.0.0/16 }'\n\
             nft add element ip minidock same_bridge '{ \"docker0\" . \"docker0\" }'\n\
             nft add element ip minidock masqueraded '{ 172.17.0.0/16 }'\n"
        );
    }

    #[test]
    fn a_network_with_iptables() {
        let network = network(Backend::Iptables);
        let text = script(&plan_network(&network, &nothing(&network)).unwrap());
        let (_, rules) = text.split_once("route_localnet\n").unwrap();
        assert_eq!(
            rules,
            "iptables -t raw -N MINIDOCK-GUARD\n\
             iptables -t raw -I PREROUTING -j MINIDOCK-GUARD\n\
             iptables -t raw -A MINIDOCK-GUARD -d 127.0.0.0/8 ! -i lo -j DROP\n\
             iptables -t raw -A MINIDOCK-GUARD -s 127.0.0.0/8 ! -i lo -j DROP\n\
             iptables -t nat -N DOCKER\n\
             iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
             iptables -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER\n\
             iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n\
             iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -o docker0 -m conntrack --ctstate DNAT -j MASQUERADE\n\
             iptables -t nat -A POSTROUTING -s 127.0.0.0/8 -o docker0 -j MASQUERADE\n\
             iptables -N MINIDOCK-FORWARD\n\
             iptables -I FORWARD -j MINIDOCK-FORWARD\n\
             iptables -N MINIDOCK-PINGS\n\
             iptables -I MINIDOCK-PINGS -i docker0 -j RETURN\n\
             iptables -I MINIDOCK-FORWARD -i docker0 -o docker0 -j ACCEPT\n\
             iptables -I MINIDOCK-FORWARD -o docker0 -m conntrack --ctstate DNAT -j ACCEPT\n\
             iptables -I MINIDOCK-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             iptables -A MINIDOCK-FORWARD -o docker0 -j DROP\n\
             iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n\
             iptables -N MINIDOCK-INPUT\n\
             iptables -I INPUT -j MINIDOCK-INPUT\n\
             iptables -N MINIDOCK-GATES\n\
             iptables -A MINIDOCK-GATES -d 172.17.0.1/32 -j DROP\n\
             iptables -I MINIDOCK-INPUT -i docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN\n\
             iptables -I MINIDOCK-INPUT -d 172.17.0.1/32 -i docker0 -j RETURN\n\
             iptables -A MINIDOCK-INPUT -i docker0 -j MINIDOCK-GATES\n"
        );
    }

    #[test]
    fn an_endpoint() {
        let text = script(&plan_endpoint(&network(Backend::Nftables), &endpoint()));
        assert_eq!(
            text,
            "ip link add veth3f2a9c1 mtu 1500 group 365153437 type veth peer name eth0 address 02:42:ac:11:00:02 mtu 1500 netns $pid\n\
             ip link set veth3f2a9c1 alias web\n\
             ip link set veth3f2a9c1 master docker0\n\
             ip link set veth3f2a9c1 up\n\
             nsenter -t $pid -n ip link set eth0 up\n\
             nsenter -t $pid -n ip addr add 172.17.0.2/16 dev eth0\n\
             nsenter -t $pid -n ip route add default via 172.17.0.1\n\
             nsenter -t $pid -n ip link set lo up\n\
             mkdir -p /var/run/netns\n\
             ln -s /proc/$pid/ns/net /var/run/netns/web\n\
             nft add element bridge minidock senders '{ \"veth3f2a9c1\" . 02:42:ac:11:00:02 . 172.17.0.2 }'\n\
             nft add element ip minidock ports '{ tcp . 10080 comment \"web 3f2a9c11d0b2\" : 172.17.0.2 . 80 }'\n\
             nft add element ip minidock ports_at '{ udp . 127.0.0.1 . 10053 comment \"web 3f2a9c11d0b2\" : 172.17.0.2 . 53 }'\n\
             nft add element ip minidock proxied '{ tcp . 9000 }'\n\
             conntrack -D -p udp --orig-dst 127.0.0.1 --orig-port-dst 10053 || true\n"
        );
        let text = script(&plan_endpoint(&network(Backend::Iptables), &endpoint()));
        let (_, rules) = text.split_once("/var/run/netns/web\n").unwrap();
        assert_eq!(
            rules,
            "nft add element bridge minidock senders '{ \"veth3f2a9c1\" . 02:42:ac:11:00:02 . 172.17.0.2 }'\n\
             iptables -t nat -A DOCKER -p tcp -m tcp --dport 10080 -j DNAT --to-destination 172.17.0.2:80\n\
             iptables -t nat -A DOCKER -d 127.0.0.1/32 -p udp -m udp --dport 10053 -j DNAT --to-destination 172.17.0.2:53\n\
             iptables -I MINIDOCK-GATES -p tcp -m tcp --dport 9000 -j RETURN\n\
             conntrack -D -p udp --orig-dst 127.0.0.1 --orig-port-dst 10053 || true\n"
        );
    }

    #[test]
    fn a_bridge_with_another_address_is_refused() {
        let network = network(Backend::Nftables);
        let mut facts = nothing(&network);
        facts.bridge = Some(crate::Bridge {
            index: 7,
            kind: "bridge".into(),
            up: true,
            mtu: 1500,
            addresses: vec![([10, 200, 0, 1].into(), 24)],
        });
        assert_eq!(
            plan_network(&network, &facts).unwrap_err().to_string(),
            "the bridge docker0 has the address 10.200.0.1/24, not 172.17.0.1/16: take its address for the network, \
             or remove the bridge"
        );
        assert!(plan_network(&facts.adopt(&network), &facts).is_ok());
    }

    #[test]
    fn names_that_are_no_link_names_are_refused() {
        for bridge in ["", "a-bridge-too-long", "a b", "a/b", "a\"b", "..", "-x", "br;reboot"] {
            let network = Network { bridge: bridge.into(), ..network(Backend::Nftables) };
            assert!(plan_network(&network, &nothing(&network)).is_err(), "{bridge:?}");
        }
    }

    /// The journal of a container and a network as the first version writes it: every later one must read it.
    #[test]
    fn residues_keep_their_written_form() {
        let network = network(Backend::Nftables);
        let mut ops = plan_network(&network, &nothing(&network)).unwrap();
        ops.extend(plan_endpoint(&network, &endpoint()));
        let lines = |ops: &[Op]| {
            let residues = ops.iter().filter_map(|op| op.residue(Some(42)));
            residues.map(|residue| serde_json::to_string(&residue).unwrap() + "\n").collect::<String>()
        };
        assert_eq!(
            lines(&ops),
            r#"{"Sysctl":{"key":"net/ipv4/ip_forward","old":"0","new":"1"}}
{"Bridge":{"name":"docker0"}}
{"NftTable":{"family":"ip","name":"minidock"}}
{"NftElements":{"family":"ip","table":"minidock","elements":[{"Bridge":{"name":"docker0"}},{"Subnet":{"address":"172.17.0.0","prefix_len":16}},{"SameBridge":{"name":"docker0"}},{"Masqueraded":{"address":"172.17.0.0","prefix_len":16}}]}}
{"Link":{"name":"veth3f2a9c1","alias":"web"}}
{"NetnsName":{"name":"web","pid":42}}
{"NftElements":{"family":"bridge","table":"minidock","elements":[{"Sender":{"link":"veth3f2a9c1","mac":[2,66,172,17,0,2],"address":"172.17.0.2"}}]}}
{"NftElements":{"family":"ip","table":"minidock","elements":[{"Port":{"protocol":"tcp","host_address":"0.0.0.0","host_port":10080,"address":"172.17.0.2","port":80}},{"Port":{"protocol":"udp","host_address":"127.0.0.1","host_port":10053,"address":"172.17.0.2","port":53}}]}}
{"NftElements":{"family":"ip","table":"minidock","elements":[{"Proxied":{"protocol":"tcp","port":9000}}]}}
"#
        );
        let publish = plan_endpoint(&self::network(Backend::Iptables), &endpoint());
        let text = lines(&publish);
        assert!(text.contains(r#"{"IptablesRule":{"table":"nat","chain":"DOCKER","rule":["-p","tcp","#), "{text}");
        for line in text.lines() {
            let residue: crate::Residue = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&residue).unwrap(), line);
        }
    }
}
