//! Networks that a running container leaves and joins again, whatever happened to it or to the network in between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::command::wait_listening;
use host::net::{Server, ask_udp, fetch, silent_udp, unreachable};
use host::{Firewall, HOST, OUTSIDE, TestHost, images};

const IDLE: [&str; 4] = ["--name", "box", "busybox", "sleep"];

fn idle(host: &TestHost) {
    host.detached(&[&IDLE[..], &["1000"]].concat());
}

fn network(host: &TestHost, verb: &str, name: &str) {
    host.minidock(&["network", verb, name, "box"]).ok();
}

/// Reaches the gateway of `lan` by its own card.
fn reaches(host: &TestHost, gateway: &str) {
    host.minidock(&["exec", "box", "ping", "-c", "1", "-W", "30", gateway]).ok();
}

/// The kernel counts a namespace's link numbers on: a new card's isn't the highest one's next.
#[test]
fn a_network_is_joined_again_and_again() {
    let host = TestHost::new();
    for (name, subnet) in [("lan", "10.5.0.0/24"), ("wan", "10.6.0.0/24")] {
        host.minidock(&["network", "create", "--subnet", subnet, name]).ok();
    }
    idle(&host);
    for _ in 0..3 {
        network(&host, "connect", "lan");
        reaches(&host, "10.5.0.1");
        network(&host, "connect", "wan");
        network(&host, "disconnect", "lan");
        reaches(&host, "10.6.0.1");
        network(&host, "connect", "lan");
        network(&host, "disconnect", "wan");
        reaches(&host, "10.5.0.1");
        network(&host, "disconnect", "bridge");
        network(&host, "connect", "bridge");
        network(&host, "disconnect", "lan");
    }
    host.remove(&["box"]);
    host.minidock(&["network", "rm", "lan", "wan"]).ok();
    host.finish();
}

#[test]
fn whatever_happened_between() {
    let host = TestHost::new();
    let create = || drop(host.minidock(&["network", "create", "--subnet", "10.5.0.0/24", "lan"]).ok());
    create();
    idle(&host);
    network(&host, "connect", "lan");
    network(&host, "disconnect", "lan");
    // Another network of the same name.
    host.minidock(&["network", "rm", "lan"]).ok();
    create();
    network(&host, "connect", "lan");
    reaches(&host, "10.5.0.1");
    network(&host, "disconnect", "lan");
    host.minidock(&["restart", "-t", "0", "box"]).ok();
    network(&host, "connect", "lan");
    reaches(&host, "10.5.0.1");
    network(&host, "disconnect", "lan");
    let bridge = host.minidock(&["network", "inspect", "-f", "{{slice .Id 0 12}}", "lan"]).ok().out();
    host.sh(&format!("ip link del br-{bridge}")).ok();
    network(&host, "connect", "lan");
    reaches(&host, "10.5.0.1");
    network(&host, "disconnect", "lan");
    // Its name is that of its links; they are found under the old one.
    network(&host, "connect", "lan");
    host.minidock(&["rename", "box", "other"]).ok();
    host.minidock(&["rename", "other", "box"]).ok();
    host.minidock(&["rename", "box", "third"]).ok();
    host.minidock(&["network", "disconnect", "lan", "third"]).ok();
    let links = host.minidock(&["exec", "third", "ip", "-o", "link"]).ok().out();
    assert!(!links.contains("eth1"), "the card is still there: {links}");
    host.minidock(&["network", "connect", "lan", "third"]).ok();
    host.minidock(&["rename", "third", "box"]).ok();
    reaches(&host, "10.5.0.1");
    // Its monitor's death is its end.
    let monitor = host.inspect("box", "{{.State.Pid}}");
    let monitor = host.sh(&format!("sed -n 's/^PPid:\\t//p' /proc/{monitor}/status")).ok().out();
    network(&host, "disconnect", "lan");
    host.sh(&format!("kill -9 {monitor}")).ok();
    host.wait_exited("box");
    host.minidock(&["start", "box"]).ok();
    network(&host, "connect", "lan");
    reaches(&host, "10.5.0.1");
    host.remove(&["box"]);
    host.minidock(&["network", "rm", "lan"]).ok();
    host.finish();
}

#[test]
fn cards_on_a_parent_come_back_too() {
    let host = TestHost::new();
    let segment = "--subnet 10.99.0.0/24 --ip-range 10.99.0.64/26 --gateway 10.99.0.2";
    let words: Vec<&str> = "network create -d macvlan -o parent=uplink".split(' ').chain(segment.split(' ')).collect();
    host.minidock(&[&words[..], &["pub"]].concat()).ok();
    host.minidock(&["network", "create", "--subnet", "10.5.0.0/24", "lan"]).ok();
    idle(&host);
    for _ in 0..2 {
        network(&host, "connect", "pub");
        network(&host, "connect", "lan");
        reaches(&host, OUTSIDE);
        network(&host, "disconnect", "pub");
        reaches(&host, "10.5.0.1");
        network(&host, "connect", "pub");
        reaches(&host, OUTSIDE);
        network(&host, "disconnect", "lan");
        network(&host, "disconnect", "pub");
    }
    host.remove(&["box"]);
    host.minidock(&["network", "rm", "lan", "pub"]).ok();
    host.finish();
}

const SERVE: [&str; 5] = ["busybox", "httpd", "-f", "-h", "/www"];

fn lan_and_wan(host: &TestHost) {
    host.minidock(&["network", "create", "--subnet", "10.5.0.0/24", "lan"]).ok();
    host.minidock(&["network", "create", "--subnet", "10.6.0.0/24", "wan"]).ok();
}

fn served(host: &TestHost, why: &str) {
    assert_eq!(fetch(&host.outside, &format!("{HOST}:10080"), "/index.html"), images::PAGE, "{why}");
}

/// Without a network, with the same one again, with another one, and with one that comes before it.
fn ports_follow(firewall: Firewall, mode: &str) {
    let host = TestHost::with_firewall(firewall);
    lan_and_wan(&host);
    let flags = ["--publish-mode", mode, "--name", "box", "--network", "lan", "-p", "10080:80"];
    host.detached(&[&flags[..], &SERVE[..]].concat());
    wait_listening(&host.inside("box"), 80);
    served(&host, "at first");
    network(&host, "disconnect", "lan");
    assert!(unreachable(&host.outside, &format!("{HOST}:10080")));
    assert_eq!(host.minidock(&["port", "box"]).ok().out(), "");
    let taken = host.minidock(&["run", "--rm", "-p", "10080:80", "busybox", "true"]).exits(125);
    taken.says(&["10080"]); // it stays the container's
    network(&host, "connect", "lan");
    served(&host, "in the same network again");
    assert!(host.minidock(&["port", "box"]).ok().out().contains("10080"));
    network(&host, "disconnect", "lan");
    network(&host, "connect", "wan");
    served(&host, "in another network");
    // A higher priority takes the default route, and the ports with it.
    host.minidock(&["network", "connect", "--gw-priority", "5", "lan", "box"]).ok();
    served(&host, "by the new way out");
    let ports = "{{range $name, $one := .NetworkSettings.Networks}}{{$name}} {{end}}";
    assert_eq!(host.inspect("box", ports), "lan wan ");
    network(&host, "disconnect", "wan");
    served(&host, "the network that doesn't carry them leaves");
    if mode == "dnat" {
        host.sh("nft list ruleset | grep -q 10080").ok();
        let flush = match firewall {
            Firewall::Nftables => "nft flush map ip minidock ports",
            Firewall::Iptables => "iptables -t nat -F DOCKER",
        };
        host.sh(flush).ok();
        served(&host, "the watch brings them back to where they lead now");
    }
    host.minidock(&["restart", "-t", "0", "box"]).ok();
    wait_listening(&host.inside("box"), 80);
    served(&host, "after a restart");
    host.remove(&["box"]);
    host.minidock(&["network", "rm", "lan", "wan"]).ok();
    host.finish();
}

#[test]
fn published_ports_follow_the_networks() {
    ports_follow(Firewall::Nftables, "dnat");
}

#[test]
fn published_ports_follow_the_networks_with_iptables() {
    ports_follow(Firewall::Iptables, "dnat");
}

#[test]
fn published_ports_follow_the_networks_by_the_proxy() {
    ports_follow(Firewall::Nftables, "proxy");
}

/// Nothing of the ports is left in a run that began without a network, or only with one that has no way in: the network
/// that comes brings them.
fn ports_come_with_a_network(firewall: Firewall, mode: &str) {
    let host = TestHost::with_firewall(firewall);
    lan_and_wan(&host);
    host.minidock(&["network", "create", "--internal", "--subnet", "10.7.0.0/24", "inner"]).ok();
    let flags = ["--publish-mode", mode, "--name", "box", "--network", "inner", "-p", "10080:80", "-p", "81"];
    host.detached(&[&flags[..], &SERVE[..]].concat());
    let ports = || host.minidock(&["port", "box"]).ok().out();
    assert_eq!(ports(), "", "an internal network has no published ports");
    network(&host, "connect", "lan");
    wait_listening(&host.inside("box"), 80);
    served(&host, "after an internal network alone");
    assert!(ports().contains("80/tcp -> 0.0.0.0:10080") && ports().contains("81/tcp -> "), "{}", ports());
    network(&host, "disconnect", "lan");
    network(&host, "disconnect", "inner");
    host.minidock(&["restart", "-t", "0", "box"]).ok();
    assert!(unreachable(&host.outside, &format!("{HOST}:10080")));
    network(&host, "connect", "inner");
    // Meanwhile somebody else has it: said then, and all is as before.
    host.detached(&["--name", "other", "-p", "10080:80", "busybox", "sleep", "1000"]);
    let network = |verb| host.minidock(&["network", verb, "wan", "box"]);
    network("connect").exits(1).says(&["10080", "port is already allocated by container other"]);
    assert!(!host.inspect("box", "{{json .NetworkSettings.Networks}}").contains("wan"));
    host.remove(&["other"]);
    network("connect").ok();
    wait_listening(&host.inside("box"), 80);
    served(&host, "after disconnect, restart, connect");
    host.remove(&["box"]);
    assert!(unreachable(&host.outside, &format!("{HOST}:10080")));
    host.minidock(&["network", "rm", "lan", "wan", "inner"]).ok();
    host.finish();
}

#[test]
fn published_ports_come_with_the_first_network_that_has_a_way_in() {
    ports_come_with_a_network(Firewall::Nftables, "dnat");
}

#[test]
fn published_ports_come_with_the_first_network_that_has_a_way_in_with_iptables() {
    ports_come_with_a_network(Firewall::Iptables, "dnat");
}

#[test]
fn published_ports_come_with_the_first_network_that_has_a_way_in_by_the_proxy() {
    ports_come_with_a_network(Firewall::Nftables, "proxy");
}

/// One thing that fails doesn't keep state, names and /etc/hosts from telling how it is.
#[test]
fn what_can_t_be_done_on_the_way_out_doesn_t_hide_that_the_card_is_gone() {
    let host = TestHost::new();
    lan_and_wan(&host);
    host.detached(&["--name", "box", "--network", "lan", "-p", "10080:80", "busybox", "sleep", "1000"]);
    network(&host, "connect", "wan");
    // The ports are to go to wan then, which can't be read.
    let definition = host.root.join("networks/wan.json");
    let whole = host::read(&definition);
    std::fs::write(&definition, "{").unwrap();
    host.minidock(&["network", "disconnect", "lan", "box"]).exits(1);
    let hosts = host.minidock(&["exec", "box", "cat", "/etc/hosts"]).ok().out();
    assert!(!hosts.contains("10.5.0.") && hosts.contains("10.6.0."), "{hosts}");
    let state = host.sh("cat $MINIDOCK_ROOT/containers/*/state.json").ok().out();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["attachments"].as_array().unwrap().len(), 1, "{state}");
    assert_eq!(state["attachments"][0]["network"], "wan");
    std::fs::write(&definition, whole).unwrap();
    network(&host, "connect", "lan");
    host.minidock(&["network", "disconnect", "lan", "box"]).ok();
    assert!(host.minidock(&["port", "box"]).ok().out().contains("10080"), "the next change brings the ports along");
    host.remove(&["box"]);
    host.minidock(&["network", "rm", "lan", "wan"]).ok();
    host.finish();
}

#[test]
fn udp_ports_follow_too() {
    for mode in ["dnat", "proxy"] {
        let host = TestHost::new();
        lan_and_wan(&host);
        let flags = ["--publish-mode", mode, "--name", "box", "--network", "lan", "-p", "10053:53/udp", "busybox"];
        host.detached(&[&flags[..], &["sleep", "1000"]].concat());
        let server = Server::udp(&host.inside("box"), "0.0.0.0:53");
        let to = format!("{HOST}:10053");
        assert!(ask_udp(&host.outside, &to, "one").ends_with(" one"));
        network(&host, "disconnect", "lan");
        assert!(silent_udp(&host.outside, &to));
        network(&host, "connect", "wan");
        assert!(ask_udp(&host.outside, &to, "two").ends_with(" two"));
        drop(server);
        host.remove(&["box"]);
        host.minidock(&["network", "rm", "lan", "wan"]).ok();
        host.finish();
    }
}

/// What a card had is another's after it has left; the container's end must not touch it.
#[test]
fn what_a_card_had_belongs_to_the_next_who_has_it() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        host.minidock(&[
            "network",
            "create",
            "--subnet",
            "10.5.0.0/24",
            "-o",
            "com.docker.network.bridge.gateway_mode_ipv4=routed",
            "lan",
        ])
        .ok();
        let run = |name: &str| {
            let flags = ["--name", name, "--network", "lan", "--ip", "10.5.0.9", "-p", "80"];
            host.detached(&[&flags[..], &SERVE[..]].concat());
            wait_listening(&host.inside(name), 80);
        };
        run("box");
        network(&host, "disconnect", "lan");
        run("heir");
        host.outside("ip route add 10.5.0.0/24 via 10.99.0.1").ok();
        let fetched = || fetch(&host.outside, "10.5.0.9:80", "/index.html");
        assert_eq!(fetched(), images::PAGE);
        let rules = || host.sh("nft -s list ruleset").ok().out();
        let before = rules();
        host.remove(&["box"]);
        assert_eq!(rules(), before, "the end of the former one took rules away");
        assert_eq!(fetched(), images::PAGE);
        host.remove(&["heir"]);
        host.minidock(&["network", "rm", "lan"]).ok();
        host.finish();
    }
}

/// A connection that fails on its way gives back what it has taken.
#[test]
fn a_failed_connection_leaves_nothing() {
    let host = TestHost::new();
    lan_and_wan(&host);
    idle(&host);
    let leases = || host.sh("ls $MINIDOCK_ROOT/run/network/lan/leases 2>/dev/null | grep -v '^[.]' || true").ok().out();
    let journal = || host.sh("wc -c $MINIDOCK_ROOT/containers/*/journal").ok().out();
    let before = journal();
    // Its link's name is taken, by somebody else's link.
    let id = host.inspect("box", "{{.Id}}");
    let link = format!("veth{}_1", &id[..7]);
    host.sh(&format!("ip link add {link} type veth peer name other && ip link set {link} alias mine")).ok();
    host.minidock(&["network", "connect", "lan", "box"]).exits(1);
    host.sh("ip link show other").ok();
    assert_eq!(leases(), "");
    host.sh("ip link del other").ok();
    network(&host, "connect", "lan");
    assert_ne!(leases(), "");
    network(&host, "disconnect", "lan");
    assert_eq!((leases(), journal()), (String::new(), before), "neither leases nor journal grow");
    host.remove(&["box"]);
    host.minidock(&["network", "rm", "lan", "wan"]).ok();
    host.finish();
}
