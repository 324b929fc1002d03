//! The rules that a network needs, as `iptables` and `ip6tables` take them.

use super::iptables::{DOCKER, DOCKER_USER, Op, words};
use crate::{Backend, GatewayMode, Network, PortMapping, Subnet};

/// Names of own chains: 28 characters are the most that one may have.
struct Chains {
    guard: String,
    forward: String,
    input: String,
    gates: String,
    pings: String,
    docker: String,
}

impl Chains {
    fn of(network: &Network) -> Chains {
        let prefix: String = network.table.to_uppercase().chars().take(20).collect();
        let name = |what: &str| format!("{prefix}-{what}");
        Chains {
            guard: name("GUARD"),
            forward: name("FORWARD"),
            input: name("INPUT"),
            gates: name("GATES"),
            pings: name("PINGS"),
            docker: name("DOCKER"),
        }
    }
}

/// Writes rules of one IP version.
struct Writer {
    v6: bool,
    ops: Vec<Op>,
}

impl Writer {
    fn chain(&mut self, table: &str, chain: &str, why: &str) {
        self.ops.push(Op::Chain { v6: self.v6, table: table.into(), chain: chain.into(), why: why.into() });
    }

    fn rule(&mut self, (table, chain): (&str, &str), first: bool, rule: &str, why: &str) {
        let rule = words(rule);
        let (v6, table, chain, why) = (self.v6, table.into(), chain.into(), why.into());
        self.ops.push(Op::Rule { v6, table, chain, rule, first, why });
    }
}

/// Everything that a network needs in one IP version. `docker`: there is a chain DOCKER-USER.
///
/// A chain's way in comes before its rules, so that undo, in reverse, finds the chain empty. Accepting rules go to the
/// front and dropping ones to the end: a repair that adds only what is missing keeps the order that matters.
pub(super) fn rules(network: &Network, subnet: &Subnet, docker: bool) -> Vec<Op> {
    let mut writer = Writer { v6: subnet.gateway.is_ipv6(), ops: Vec::new() };
    let chains = Chains::of(network);
    nat(&mut writer, network, subnet, &chains);
    forward(&mut writer, network, &chains, docker);
    input(&mut writer, network, subnet, &chains);
    if docker {
        writer.ops.extend(beside_docker(network, subnet));
    }
    writer.ops
}

fn nat(writer: &mut Writer, network: &Network, subnet: &Subnet, chains: &Chains) {
    let (v6, bridge, guard) = (writer.v6, &network.bridge, &chains.guard);
    if !v6 {
        writer.chain("raw", guard, "protection of localhost");
        writer.rule(("raw", "PREROUTING"), true, &format!("-j {guard}"), "judge every packet that comes in");
        let why = "localhost is for this host alone, whatever route_localnet says";
        writer.rule(("raw", guard), false, "-d 127.0.0.0/8 ! -i lo -j DROP", why);
        let why = "nobody else may pose as localhost";
        writer.rule(("raw", guard), false, "-s 127.0.0.0/8 ! -i lo -j DROP", why);
    }
    writer.chain("nat", DOCKER, "the published ports");
    let why = "from other hosts and containers to this host";
    writer.rule(("nat", "PREROUTING"), false, "-m addrtype --dst-type LOCAL -j DOCKER", why);
    // An answer to ::1 would come in by the bridge, where the kernel takes no packet for ::1: the proxy serves it.
    let not_localhost = if v6 { "! -d ::1/128 " } else { "" };
    let rule = format!("{not_localhost}-m addrtype --dst-type LOCAL -j DOCKER");
    writer.rule(("nat", "OUTPUT"), false, &rule, "from this host to itself");
    if network.internal {
        return;
    }
    if network.masquerade && network.gateway_mode(v6) == GatewayMode::Nat {
        let why = "containers leave with this host's address";
        writer.rule(("nat", "POSTROUTING"), false, &format!("-s {subnet} ! -o {bridge} -j MASQUERADE"), why);
    }
    let why = "containers to published ports: the answer must come back this way";
    let rule = format!("-s {subnet} -o {bridge} -m conntrack --ctstate DNAT -j MASQUERADE");
    writer.rule(("nat", "POSTROUTING"), false, &rule, why);
    if !v6 {
        let why = "localhost to published ports: no container can answer to 127.0.0.1";
        writer.rule(("nat", "POSTROUTING"), false, &format!("-s 127.0.0.0/8 -o {bridge} -j MASQUERADE"), why);
    }
}

fn forward(writer: &mut Writer, network: &Network, chains: &Chains, docker: bool) {
    let (bridge, chain) = (&network.bridge, &chains.forward);
    if network.internal {
        // In a table of its own, before everybody's accepting rules.
        let why = "an internal network has no way out";
        writer.rule(("mangle", "FORWARD"), false, &format!("-i {bridge} ! -o {bridge} -j DROP"), why);
        writer.rule(("mangle", "FORWARD"), false, &format!("! -i {bridge} -o {bridge} -j DROP"), "and no way in");
    }
    writer.chain("filter", chain, "what may pass to containers");
    writer.rule(("filter", "FORWARD"), true, &format!("-j {chain}"), "judge every packet that passes");
    let own = ("filter", chain.as_str());
    let pings = ("filter", chains.pings.as_str());
    writer.chain("filter", &chains.pings, "who may ping routed networks");
    let why = "not the containers of other networks";
    writer.rule(pings, true, &format!("-i {bridge} -j RETURN"), why);
    if network.icc {
        let rule = format!("-i {bridge} -o {bridge} -j ACCEPT");
        writer.rule(own, true, &rule, "containers of one network");
    }
    if !network.internal {
        if network.gateway_mode(writer.v6) == GatewayMode::Routed {
            let icmp = if writer.v6 { "ipv6-icmp" } else { "icmp" };
            writer.rule(pings, false, &format!("-o {bridge} -j ACCEPT"), "everybody else");
            let rule = format!("-o {bridge} -p {icmp} -j {}", chains.pings);
            writer.rule(own, true, &rule, "routed networks answer pings");
        }
        let rule = format!("-o {bridge} -m conntrack --ctstate DNAT -j ACCEPT");
        writer.rule(own, true, &rule, "published ports");
        let rule = format!("-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        writer.rule(own, true, &rule, "answers to containers");
    }
    let why = "no other way in, such as a route to the subnet by this host";
    writer.rule(own, false, &format!("-o {bridge} -j DROP"), why);
    if !network.internal && !docker {
        let rule = format!("-i {bridge} ! -o {bridge} -j ACCEPT");
        writer.rule(("filter", "FORWARD"), false, &rule, "containers may go out");
    }
}

/// The chain with what lets networks past dockerd's policy.
pub(super) fn docker_chain(network: &Network) -> String {
    Chains::of(network).docker
}

/// Past dockerd's policy, which drops what it doesn't know: rules in the chain that it leaves to its users. (A rule of ours
/// for nftables, which iptables can't read, would keep dockerd from its own table.) What docker's containers are sent is
/// left to docker.
pub(super) fn beside_docker(network: &Network, subnet: &Subnet) -> Vec<Op> {
    let mut writer = Writer { v6: subnet.gateway.is_ipv6(), ops: Vec::new() };
    let chains = Chains::of(network);
    let (bridge, chain) = (&network.bridge, chains.docker);
    if network.internal {
        return vec![];
    }
    writer.chain("filter", &chain, "what docker's policy would drop");
    writer.rule(("filter", DOCKER_USER), true, &format!("-j {chain}"), "docker's place for the rules of others");
    let own = ("filter", chain.as_str());
    if network.gateway_mode(writer.v6) == GatewayMode::Routed {
        // Rules of nftables judge it whatever is accepted here; those of iptables stand behind docker's in the same hook.
        let verdict = if network.backend == Backend::Iptables { &chains.forward } else { "ACCEPT" };
        let why = "what comes in is judged by this network's own rules";
        writer.rule(own, true, &format!("-o {bridge} -j {verdict}"), why);
    } else {
        let rule = format!("-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT");
        writer.rule(own, true, &rule, "answers and published ports");
    }
    if bridge == "docker0" {
        return writer.ops; // docker lets its own bridge out
    }
    if network.icc {
        writer.rule(own, true, &format!("-i {bridge} -o {bridge} -j ACCEPT"), "containers of one network");
    }
    for theirs in ["docker0", "br-+"] {
        let why = "docker's own networks are docker's to judge";
        writer.rule(own, false, &format!("-i {bridge} -o {theirs} -j RETURN"), why);
    }
    writer.rule(own, false, &format!("-i {bridge} ! -o {bridge} -j ACCEPT"), "containers may go out");
    writer.ops
}

/// Packets of containers to the host itself: their own gateway, but no other network's.
fn input(writer: &mut Writer, network: &Network, subnet: &Subnet, chains: &Chains) {
    let (bridge, input, gates) = (&network.bridge, &chains.input, &chains.gates);
    let gateway = format!("{}/{}", subnet.gateway, if writer.v6 { 128 } else { 32 });
    writer.chain("filter", input, "what containers send to this host");
    writer.rule(("filter", "INPUT"), true, &format!("-j {input}"), "judge every packet to this host");
    writer.chain("filter", gates, "the gateways of networks");
    let why = "another network's gateway";
    writer.rule(("filter", gates), false, &format!("-d {gateway} -j DROP"), why);
    let why = "answers to this host";
    let rule = format!("-i {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN");
    writer.rule(("filter", input), true, &rule, why);
    let why = "to the gateway of the own network";
    writer.rule(("filter", input), true, &format!("-d {gateway} -i {bridge} -j RETURN"), why);
    writer.rule(("filter", input), false, &format!("-i {bridge} -j {gates}"), "is it another network's?");
    if network.internal {
        let why = "an internal network reaches its gateway alone";
        let rule = format!("-i {bridge} -m addrtype --dst-type LOCAL -j DROP");
        writer.rule(("filter", input), false, &rule, why);
    }
}

/// Opens a container's own port in a routed network.
pub(crate) fn open(network: &Network, mapping: &PortMapping, address: std::net::IpAddr) -> Op {
    let (v6, chain) = (address.is_ipv6(), Chains::of(network).forward);
    let (length, protocol) = (if v6 { 128 } else { 32 }, mapping.protocol);
    let (bridge, port) = (&network.bridge, mapping.container_port);
    let rule =
        words(&format!("-d {address}/{length} -o {bridge} -p {protocol} -m {protocol} --dport {port} -j ACCEPT"));
    let why = "let others in to the container's port".to_owned();
    Op::Rule { v6, table: "filter".into(), chain, rule, first: true, why }
}

/// Lets other networks' containers to a port that the proxy serves.
pub(crate) fn proxied(network: &Network, mapping: &PortMapping) -> Op {
    let (v6, chain) = (mapping.host_address.is_ipv6(), Chains::of(network).gates);
    let (protocol, port) = (mapping.protocol, mapping.host_port);
    let at = match mapping.host_address {
        address if address.is_unspecified() => String::new(),
        address => format!("-d {address}/{} ", if v6 { 128 } else { 32 }),
    };
    let rule = words(&format!("{at}-p {protocol} -m {protocol} --dport {port} -j RETURN"));
    let why = "containers of other networks may use this port of the host".to_owned();
    Op::Rule { v6, table: "filter".into(), chain, rule, first: true, why }
}

/// Gives a container's packets a traffic class on their way out.
pub(crate) fn class(address: std::net::IpAddr, class: u32) -> Op {
    let (v6, length) = if address.is_ipv6() { (true, 128) } else { (false, 32) };
    // As iptables-save prints it.
    let (major, minor) = (class >> 16, class & 0xffff);
    let rule = words(&format!("-s {address}/{length} -j CLASSIFY --set-class {major:04x}:{minor:04x}"));
    let why = "its packets' class on their way out: that of its sockets ends at the veth pair".to_owned();
    Op::Rule { v6, table: "mangle".into(), chain: "POSTROUTING".into(), rule, first: false, why }
}
