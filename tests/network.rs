//! The network from every side: published ports, masquerade, isolation, modes, for both firewall back ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::command::{listening, wait_listening};
use host::net::{Server, ask_udp, fetch, fetch_once, silent_udp, unreachable};
use host::{Firewall, HOST, OUTSIDE, TestHost, images, wait_until};
use nix::sys::signal::Signal;

const SERVER: [&str; 5] = ["busybox", "httpd", "-f", "-h", "/www"];

/// One test for each firewall back end and publish mode.
macro_rules! for_each_way {
    ($($test:ident)*) => {
        mod dnat_by_nftables { $(#[test] fn $test() { super::$test(super::Firewall::Nftables, "dnat") })* }
        mod dnat_by_iptables { $(#[test] fn $test() { super::$test(super::Firewall::Iptables, "dnat") })* }
        mod proxy_beside_nftables { $(#[test] fn $test() { super::$test(super::Firewall::Nftables, "proxy") })* }
        mod proxy_beside_iptables { $(#[test] fn $test() { super::$test(super::Firewall::Iptables, "proxy") })* }
    };
}

for_each_way! {
    a_published_page_is_fetched_from_everywhere
    a_published_udp_port_answers_from_everywhere
    a_port_published_on_localhost_is_local
    no_unpublished_port_is_reached_by_a_forged_route
    nobody_is_served_before_the_container_listens
    a_port_in_use_is_refused_and_its_holder_named
    many_ports_of_one_container_are_published_and_gone_with_it
}

/// One test for each firewall back end.
macro_rules! for_each_firewall {
    ($($test:ident)*) => {
        mod nftables { $(#[test] fn $test() { super::$test(super::Firewall::Nftables) })* }
        mod iptables { $(#[test] fn $test() { super::$test(super::Firewall::Iptables) })* }
    };
}

for_each_firewall! {
    an_outside_server_sees_the_host_s_address
    a_published_port_does_not_catch_traffic_for_other_machines
    containers_reach_each_other_by_address
    an_existing_bridge_is_used_as_it_is_and_stays
}

fn web(host: &TestHost, flags: &[&str]) -> String {
    let id = host.detached(&[&["--name", "web"], flags, &SERVER].concat());
    wait_listening(&host.inside("web"), 80);
    id
}

fn a_published_page_is_fetched_from_everywhere(firewall: Firewall, mode: &str) {
    let host = TestHost::with_firewall(firewall);
    web(&host, &["-p", "10080:80", "--publish-mode", mode]);
    host.detached(&["--name", "other", "busybox", "sleep", "1000"]);
    let (web, other) = (host.inside("web"), host.inside("other"));
    for (who, place) in
        [("outside", &host.outside), ("the host", &host.host), ("another container", &other), ("itself", &web)]
    {
        eprintln!("{who} asks");
        assert_eq!(fetch(place, &format!("{HOST}:10080"), "/index.html"), images::PAGE, "{who}, by the host's address");
        if who != "outside" {
            assert_eq!(
                fetch(place, "172.17.0.1:10080", "/index.html"),
                images::PAGE,
                "{who}, by the gateway's address"
            );
        }
    }
    assert_eq!(fetch(&host.host, "127.0.0.1:10080", "/index.html"), images::PAGE, "the host, by localhost");
    let client = fetch(&host.outside, &format!("{HOST}:10080"), "/cgi-bin/client");
    let expected = if mode == "dnat" { OUTSIDE } else { "172.17.0.1" };
    assert_eq!(
        client.trim_start_matches('[').trim_start_matches("::ffff:").trim_end_matches(']'),
        expected,
        "the client that the server sees"
    );
    drop((web, other));
    host.remove(&["web", "other"]);
    assert!(unreachable(&host.outside, &format!("{HOST}:10080")), "nobody answers when the container is gone");
    host.finish();
}

fn a_published_udp_port_answers_from_everywhere(firewall: Firewall, mode: &str) {
    let host = TestHost::with_firewall(firewall);
    host.detached(&["--name", "dns", "-p", "10053:53/udp", "--publish-mode", mode, "busybox", "sleep", "1000"]);
    host.detached(&["--name", "other", "busybox", "sleep", "1000"]);
    let (inside, other) = (host.inside("dns"), host.inside("other"));
    let server = Server::udp(&inside, "0.0.0.0:53");
    let answer = ask_udp(&host.outside, &format!("{HOST}:10053"), "from outside");
    assert!(answer.ends_with(" from outside"), "{answer}");
    if mode == "dnat" {
        assert!(answer.starts_with(OUTSIDE), "the real client is seen: {answer}");
    }
    assert!(ask_udp(&host.host, &format!("{HOST}:10053"), "own").ends_with(" own"));
    assert!(ask_udp(&host.host, "127.0.0.1:10053", "localhost").ends_with(" localhost"));
    assert!(ask_udp(&other, &format!("{HOST}:10053"), "neighbour").ends_with(" neighbour"));
    assert!(ask_udp(&inside, &format!("{HOST}:10053"), "hairpin").ends_with(" hairpin"));
    drop((server, inside, other));
    host.remove(&["dns", "other"]);
    host.finish();
}

fn a_port_published_on_localhost_is_local(firewall: Firewall, mode: &str) {
    let host = TestHost::with_firewall(firewall);
    web(&host, &["-p", "127.0.0.1:10080:80", "-p", &format!("{HOST}:10081:80"), "--publish-mode", mode]);
    assert_eq!(fetch(&host.host, "127.0.0.1:10080", "/index.html"), images::PAGE);
    assert_eq!(fetch(&host.outside, &format!("{HOST}:10081"), "/index.html"), images::PAGE);
    assert!(unreachable(&host.host, "127.0.0.1:10081"), "published on the other address only");
    assert!(unreachable(&host.outside, &format!("{HOST}:10080")));
    // CVE-2020-8558: a neighbour sends a packet for 127.0.0.1 over the wire. That the route works at all is shown with
    // a plain server of the host, which route_localnet of the uplink would open.
    host.outside(
        "ip addr del 127.0.0.1/8 dev lo; echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet; \
         ip route add 127.0.0.1/32 via 10.99.0.1 dev eth0 src 10.99.0.2",
    )
    .ok();
    assert!(unreachable(&host.outside, "127.0.0.1:10080"), "a forged destination gets in");
    host.remove(&["web"]);
    host.finish();
}

fn no_unpublished_port_is_reached_by_a_forged_route(firewall: Firewall, mode: &str) {
    let host = TestHost::with_firewall(firewall);
    web(&host, &["-p", "10080:80", "--publish-mode", mode]);
    let (inside, address) = (host.inside("web"), host.address("web"));
    let hidden = Server::http(&inside, "0.0.0.0:8080");
    let hidden_udp = Server::udp(&inside, "0.0.0.0:8081");
    host.outside(&format!("ip route add 172.17.0.0/16 via {HOST}")).ok();
    assert_eq!(fetch(&host.host, &format!("{address}:8080"), "/"), "172.17.0.1", "the server is there");
    assert!(unreachable(&host.outside, &format!("{address}:8080")), "an unpublished port");
    assert!(unreachable(&host.outside, &format!("{address}:80")), "a published port, by the container's address");
    assert!(silent_udp(&host.outside, &format!("{address}:8081")), "an unpublished UDP port");
    assert!(hidden_udp.clients().is_empty() && hidden.clients() == ["172.17.0.1"], "packets from outside got in");
    assert_eq!(
        fetch(&host.outside, &format!("{HOST}:10080"), "/index.html"),
        images::PAGE,
        "the published one still works"
    );
    drop((hidden, hidden_udp, inside));
    host.remove(&["web"]);
    host.finish();
}

fn nobody_is_served_before_the_container_listens(firewall: Firewall, mode: &str) {
    let host = TestHost::with_firewall(firewall);
    host.detached(&["--name", "slow", "-p", "10080:80", "--publish-mode", mode, "busybox", "sleep", "1000"]);
    assert!(unreachable(&host.outside, &format!("{HOST}:10080")));
    assert!(unreachable(&host.host, "127.0.0.1:10080"));
    let inside = host.inside("slow");
    let server = Server::http(&inside, "0.0.0.0:80");
    assert!(!fetch(&host.outside, &format!("{HOST}:10080"), "/").is_empty());
    drop((server, inside));
    host.remove(&["slow"]);
    host.finish();
}

fn a_port_in_use_is_refused_and_its_holder_named(firewall: Firewall, mode: &str) {
    let host = TestHost::with_firewall(firewall);
    let holder = Server::http(&host.host, "0.0.0.0:10080");
    let run = |flags: &[&str]| {
        host.minidock(&[&["run", "-d", "--publish-mode", mode], flags, &["busybox", "sleep", "1000"]].concat())
    };
    run(&["-p", "10080:80"]).exits(125).says(&["10080", &format!("pid {}", std::process::id())]);
    run(&["-p", "10079:79", "-p", "10080:80"]).exits(125).says(&["10080"]);
    drop(holder);
    let id = run(&["-p", "10080:80", "--name", "first"]).ok().out();
    run(&["-p", "10080:80"]).exits(125).says(&["10080", "first"]);
    assert_eq!(host.minidock(&["ps", "-aq", "--no-trunc"]).ok().out(), id, "refused runs leave no container");
    run(&["-p", "10080:80/udp", "--name", "udp"]).ok();
    host.remove(&["first", "udp"]);
    host.minidock(&["run", "--rm", "-p", "10080:80", "busybox", "true"]).ok();
    host.finish();
}

fn many_ports_of_one_container_are_published_and_gone_with_it(firewall: Firewall, mode: &str) {
    let host = TestHost::with_firewall(firewall);
    web(&host, &["-p", "10080-10089:80-89", "-p", "80", "--expose", "81", "-P", "--publish-mode", mode]);
    let ports = host.minidock(&["port", "web"]).ok().out();
    assert_eq!(ports.lines().filter(|line| line.contains("0.0.0.0:1008")).count(), 10, "{ports}");
    let random = ports
        .lines()
        .filter(|line| line.starts_with("80/tcp -> 0.0.0.0:"))
        .filter_map(|line| line.rsplit(':').next()?.parse::<u16>().ok());
    let random: Vec<u16> = random.filter(|port| *port != 10080).collect();
    assert_eq!(random.len(), 1, "{ports}");
    assert_eq!(fetch(&host.outside, &format!("{HOST}:{}", random[0]), "/index.html"), images::PAGE);
    let inside = host.inside("web");
    let server = Server::http(&inside, "0.0.0.0:89");
    assert!(!fetch(&host.outside, &format!("{HOST}:10089"), "/").is_empty());
    drop((server, inside));
    host.remove(&["web"]);
    assert!(unreachable(&host.outside, &format!("{HOST}:10089")));
    host.finish();
}

fn an_outside_server_sees_the_host_s_address(firewall: Firewall) {
    let host = TestHost::with_firewall(firewall);
    let server = Server::http(&host.outside, "0.0.0.0:8000");
    let udp = Server::udp(&host.outside, "0.0.0.0:8001");
    let page = host.output_of(&["busybox", "wget", "-q", "-O", "-", &format!("http://{OUTSIDE}:8000/")]);
    assert_eq!((page.as_str(), server.clients()), (HOST, vec![HOST.to_string()]));
    host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    let inside = host.inside("box");
    assert_eq!(ask_udp(&inside, &format!("{OUTSIDE}:8001"), "x"), format!("{HOST} x"));
    let to_host = Server::http(&host.host, "0.0.0.0:8002");
    assert_eq!(fetch(&inside, "172.17.0.1:8002", "/"), host.address("box"), "the host itself sees the container");
    drop((server, udp, to_host, inside));
    host.remove(&["box"]);
    host.finish();
}

fn a_published_port_does_not_catch_traffic_for_other_machines(firewall: Firewall) {
    let host = TestHost::with_firewall(firewall);
    web(&host, &["-p", "10080:80"]);
    let elsewhere = Server::http(&host.outside, "0.0.0.0:10080");
    host.detached(&["--name", "other", "busybox", "sleep", "1000"]);
    let other = host.inside("other");
    assert_eq!(fetch(&other, &format!("{OUTSIDE}:10080"), "/"), HOST, "the outside's own port 10080");
    assert_eq!(fetch(&host.host, &format!("{OUTSIDE}:10080"), "/"), HOST);
    drop((elsewhere, other));
    host.remove(&["web", "other"]);
    host.finish();
}

fn containers_reach_each_other_by_address(firewall: Firewall) {
    let host = TestHost::with_firewall(firewall);
    web(&host, &[]);
    let url = format!("http://{}/index.html", host.address("web"));
    assert_eq!(host.output_of(&["busybox", "wget", "-q", "-O", "-", &url]) + "\n", images::PAGE);
    host.remove(&["web"]);
    host.finish();
}

fn an_existing_bridge_is_used_as_it_is_and_stays(firewall: Firewall) {
    let host = TestHost::with_firewall(firewall);
    host.sh("ip link add docker0 type bridge; ip addr add 192.168.77.1/24 dev docker0; ip link set docker0 up").ok();
    // Another engine's container is there already, and has talked.
    host.sh(
        "ip link add vethother type veth peer name inside; ip link set vethother master docker0 up; \
         unshare -n sh -c 'echo $$ >other; until ip link show inside >/dev/null 2>&1; do :; done; ip addr add 192.168.77.2/24 dev inside; \
         ip link set inside up; exec sleep 1000' >/dev/null 2>&1 & \
         until [ -s other ] && [ \"$(readlink /proc/$(cat other)/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do :; done; \
         ip link set inside netns $(cat other); until busybox ping -c 1 -W 1 192.168.77.2 >/dev/null; do :; done",
    )
    .ok();
    web(&host, &["-p", "10080:80"]);
    let address = host.address("web");
    assert!(address.starts_with("192.168.77.") && address != "192.168.77.2", "{address}");
    assert_eq!(fetch(&host.outside, &format!("{HOST}:10080"), "/index.html"), images::PAGE);
    let server = Server::http(&host.outside, "0.0.0.0:8000");
    assert_eq!(fetch(&host.inside("web"), &format!("{OUTSIDE}:8000"), "/"), HOST);
    drop(server);
    host.remove(&["web"]);
    assert!(host.sh("ip -4 -o addr show docker0").ok().out().contains("192.168.77.1/24"));
    host.sh("kill $(cat other); ip link del docker0; until ! ip link show vethother 2>/dev/null; do :; done").ok();
    host.finish();
}

#[test]
fn the_first_container_makes_the_bridge_and_the_second_uses_it() {
    let host = TestHost::new();
    let show = "ip -4 route; ip link show eth0; ip link show lo";
    let output = host.output_of(&["busybox", "sh", "-c", show]);
    assert!(output.contains("default via 172.17.0.1 dev eth0") && output.contains("LOOPBACK,UP"), "{output}");
    assert!(host.sh("ip -4 -o addr show docker0").ok().out().contains("172.17.0.1/16"));
    assert_eq!(host.sh("cat /proc/sys/net/ipv4/ip_forward").ok().out(), "1");
    host.output_of(&["busybox", "ping", "-c", "1", "-W", "30", "172.17.0.1"]);
    host.finish();
}

#[test]
fn the_container_s_namespace_has_its_name_in_ip_netns() {
    let host = TestHost::new();
    host.detached(&["--name", "web", "busybox", "sleep", "1000"]);
    let names = host.sh("ip netns").ok().out();
    assert_eq!(names.split_whitespace().next(), Some("web"), "{names}");
    let address = host.address("web");
    assert!(host.sh("ip netns exec web ip -4 -o addr show eth0").ok().out().contains(&format!("{address}/16")));
    host.remove(&["web"]);
    wait_until("the name is gone", || host.sh("ip netns").ok().out().is_empty());
    host.finish();
}

#[test]
fn a_name_in_ip_netns_that_is_not_ours_is_left_alone() {
    let host = TestHost::new();
    host.sh("ip netns add web").ok();
    let before = host.sh("stat -L -c %i /run/netns/web").ok().out();
    host.minidock(&["run", "-d", "--name", "web", "busybox", "sleep", "1000"]); // refused or run: both are sensible
    host.minidock(&["rm", "-f", "web"]);
    assert_eq!(host.sh("stat -L -c %i /run/netns/web").ok().out(), before);
    host.sh("ip netns del web; umount /run/netns").ok();
    host.finish();
}

#[test]
fn the_proxy_works_by_hand_with_the_lecture_s_flags() {
    let host = TestHost::new();
    web(&host, &[]);
    let address = host.address("web");
    let flags = [
        "-proto",
        "tcp",
        "-host-ip",
        "0.0.0.0",
        "-host-port",
        "10080",
        "-container-ip",
        &address,
        "-container-port",
        "80",
    ];
    let proxy = host.spawn(&[&["proxy"], &flags[..]].concat());
    assert_eq!(fetch(&host.outside, &format!("{HOST}:10080"), "/index.html"), images::PAGE);
    assert_eq!(fetch(&host.host, "127.0.0.1:10080", "/index.html"), images::PAGE);
    proxy.signal(Signal::SIGTERM);
    proxy.wait();
    assert!(!listening(&host.host, 10080));
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn network_none_has_only_loopback() {
    let host = TestHost::new();
    assert_eq!(
        host.output_of(&["--network", "none", "busybox", "sh", "-c", "ls /sys/class/net; ip -4 -o addr | wc -l"]),
        "lo\n1"
    );
    assert!(host.sh("ls /sys/class/net").ok().out().split('\n').eq(["lo", "uplink"]), "no bridge is made for it");
    host.finish();
}

#[test]
fn network_host_is_the_host_s_and_publishes_nothing() {
    let host = TestHost::new();
    host.detached(&["--name", "web", "--network", "host", "busybox", "httpd", "-f", "-h", "/www"]);
    assert_eq!(host.inside("web").inode(), host.host.inode());
    assert_eq!(fetch(&host.outside, &format!("{HOST}:80"), "/index.html"), images::PAGE);
    assert_eq!(host.minidock(&["exec", "web", "hostname"]).ok().out(), host.sh("hostname").ok().out());
    host.remove(&["web"]);
    assert!(host.sh("ls /sys/class/net").ok().out().split('\n').eq(["lo", "uplink"]));
    host.finish();
}

#[test]
fn network_container_shares_the_other_s_namespace() {
    let host = TestHost::new();
    web(&host, &[]);
    let page = host.output_of(&[
        "--network",
        "container:web",
        "busybox",
        "wget",
        "-q",
        "-O",
        "-",
        "http://127.0.0.1/index.html",
    ]);
    assert_eq!(page + "\n", images::PAGE);
    host.minidock(&["run", "--rm", "--network", "container:nobody", "busybox", "true"]).exits(125).says(&["nobody"]);
    host.minidock(&["run", "--rm", "--network", "container:web", "-p", "1:1", "busybox", "true"]).exits(125);
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn network_ns_joins_a_namespace_made_by_hand() {
    let host = TestHost::new();
    host.sh("ip netns add lab; ip -n lab link set lo up; ip -n lab addr add 10.77.0.1/24 dev lo").ok();
    let output = host.output_of(&["--network", "ns:/run/netns/lab", "busybox", "ip", "-4", "-o", "addr"]);
    assert!(output.contains("10.77.0.1/24"), "{output}");
    host.minidock(&["run", "--rm", "--network", "ns:/run/netns/nothing", "busybox", "true"])
        .exits(125)
        .says(&["/run/netns/nothing"]);
    host.sh("ip netns del lab; umount /run/netns").ok();
    host.finish();
}

#[test]
fn the_demo_image_shows_its_page_and_json_on_10080() {
    let host = TestHost::bare();
    host.detached(&["--name", "demo", "-p", "10080:80", "demo"]);
    let page = fetch(&host.outside, &format!("{HOST}:10080"), "/");
    for word in ["<html", "demo", &host.address("demo"), OUTSIDE] {
        assert!(page.contains(word), "the page doesn't show {word}:\n{page}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&fetch(&host.outside, &format!("{HOST}:10080"), "/json")).unwrap();
    let text = json.to_string();
    for word in
        [&host.address("demo"), OUTSIDE, "172.17.0.1", "pid", "hostname", "mounts", "routes", "namespaces", "cgroup"]
    {
        assert!(text.contains(word), "the JSON has no {word}:\n{text}");
    }
    assert!(fetch_once(&host.outside, &format!("{HOST}:10080"), "/nothing-here").is_err(), "404");
    host.remove(&["demo"]);
    host.finish();
}

#[test]
fn a_stopped_container_s_address_and_ports_are_free_again() {
    let host = TestHost::new();
    host.minidock(&["run", "--name", "gone", "-p", "10080:80", "busybox", "true"]).ok();
    host.detached(&["--name", "next", "-p", "10080:80", "busybox", "sleep", "1000"]);
    assert!(host.sh("ip netns").ok().out().starts_with("next"));
    host.remove(&["gone", "next"]);
    host.finish();
}

#[test]
fn the_bridge_lists_the_container_s_card_with_its_name() {
    let host = TestHost::new();
    host.detached(&["--name", "web", "busybox", "sleep", "1000"]);
    let cards = host.sh("ip -j link show master docker0").ok().out();
    let cards: serde_json::Value = serde_json::from_str(&cards).unwrap();
    assert_eq!(cards[0]["ifalias"], "web");
    let card = cards[0]["ifname"].as_str().unwrap();
    assert!(card.starts_with("veth") && card.len() == 11, "{card}");
    assert!(host.sh("brctl show docker0").ok().out().contains(card));
    host.remove(&["web"]);
    host.finish();
}
