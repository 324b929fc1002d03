//! Networks beyond IPv4 with NAT: IPv6 alone, routed and isolated gateways, with the same promises as elsewhere; SCTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use host::command::wait_listening;
use host::namespaces::Namespaces;
use host::net::{Server, fetch, unreachable};
use host::{Firewall, HOST, LIMIT, OUTSIDE, TestHost, images};
use rustix::net::{AddressFamily, SocketType, accept, bind, connect, ipproto, listen, socket};

const HOST6: &str = "fd00:99::1";
const OUTSIDE6: &str = "fd00:99::2";
const GATEWAY: &str = "com.docker.network.bridge.gateway_mode_ipv";

/// A host with IPv6 on the wire to the outside.
fn with_ipv6(firewall: Firewall) -> TestHost {
    let host = TestHost::with_firewall(firewall);
    host.sh(&format!("ip -6 addr add {HOST6}/64 dev uplink nodad")).ok();
    host.outside(&format!("ip -6 addr add {OUTSIDE6}/64 dev eth0 nodad")).ok();
    host.sh(&format!("ip -6 route add default via {OUTSIDE6}")).ok();
    host
}

fn without_ipv6(host: TestHost) {
    host.sh(&format!("ip -6 route del default; ip -6 addr del {HOST6}/64 dev uplink")).ok();
    host.outside(&format!("ip -6 addr del {OUTSIDE6}/64 dev eth0")).ok();
    host.finish();
}

fn create(host: &TestHost, words: &[&str]) {
    host.minidock(&[&["network", "create"], words].concat()).ok();
}

/// A page on port 80, and one on 81 that nobody publishes.
fn web(host: &TestHost, name: &str, flags: &[&str]) {
    let script = "httpd -p 81 -h /www; exec httpd -f -h /www";
    host.detached(&[&["--name", name], flags, &["busybox", "sh", "-c", script]].concat());
    wait_listening(&host.inside(name), 80);
    wait_listening(&host.inside(name), 81);
}

fn page(from: &Namespaces, at: &str) {
    assert_eq!(fetch(from, at, "/index.html"), images::PAGE, "{at}");
}

fn address6(host: &TestHost, name: &str) -> String {
    host.inspect(name, "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}")
}

fn exec(host: &TestHost, name: &str, script: &str) -> String {
    host.minidock(&["exec", name, "sh", "-c", script]).ok().out()
}

#[test]
fn a_network_of_ipv6_alone_has_everything_with_nftables() {
    ipv6_alone(Firewall::Nftables);
}

#[test]
fn a_network_of_ipv6_alone_has_everything_with_iptables() {
    ipv6_alone(Firewall::Iptables);
}

fn ipv6_alone(firewall: Firewall) {
    let host = with_ipv6(firewall);
    create(&host, &["--ipv4=false", "--ipv6", "six"]);
    create(&host, &["--ipv4=false", "--ipv6", "-o", "com.docker.network.bridge.enable_icc=false", "apart"]);
    web(&host, "web", &["--network", "six", "-p", "10080:80", "-p", "80"]);
    let address = address6(&host, "web");
    assert!(address.starts_with("fd"), "unique-local: {address}");
    assert_eq!(exec(&host, "web", "ip -4 -o addr show dev eth0"), "");

    // Published on both IP versions, each random port with one number.
    let ports = host.minidock(&["port", "web", "80"]).ok().out();
    let at = |prefix: &str| -> Vec<u16> {
        ports.lines().filter_map(|line| line.strip_prefix(prefix)?.parse().ok()).collect()
    };
    assert_eq!((at("[::]:").len(), at("[::]:")), (2, at("0.0.0.0:")), "{ports}");
    for port in at("[::]:") {
        page(&host.outside, &format!("[{HOST6}]:{port}"));
        page(&host.host, &format!("[::1]:{port}"));
        page(&host.outside, &format!("{HOST}:{port}"));
    }
    page(&host.inside("web"), &format!("[{HOST6}]:10080"));

    // Out by NAT66; names; nothing that wasn't published, whatever way is forged.
    let server = Server::http(&host.outside, "[::]:8000");
    assert_eq!(fetch(&host.inside("web"), &format!("[{OUTSIDE6}]:8000"), "/"), HOST6);
    assert_eq!(server.clients(), [HOST6]);
    host.detached(&["--name", "peer", "--network", "six", "busybox", "sleep", "1000"]);
    exec(&host, "peer", "ping -6 -c 1 -W 30 web && ping -6 -c 1 -W 30 $(nslookup web | sed -n 's/^Address: //p')");
    host.outside(&format!("ip -6 route add {address}/128 via {HOST6}")).ok();
    page(&host.inside("peer"), &format!("[{address}]:81"));
    for port in [80, 81] {
        assert!(unreachable(&host.outside, &format!("[{address}]:{port}")), "{port} by a forged route");
    }
    host.outside(&format!("ip -6 route del {address}/128")).ok();

    // Other networks, and one whose containers are apart.
    web(&host, "alone", &["--network", "apart"]);
    host.detached(&["--name", "lonely", "--network", "apart", "busybox", "sleep", "1000"]);
    let alone = address6(&host, "alone");
    page(&host.host, &format!("[{alone}]:80"));
    assert!(unreachable(&host.inside("lonely"), &format!("[{alone}]:80")), "icc=false");
    assert!(unreachable(&host.inside("peer"), &format!("[{alone}]:80")), "another network");
    assert!(unreachable(&host.inside("lonely"), &format!("[{address}]:81")), "another network");
    page(&host.inside("lonely"), &format!("[{HOST6}]:10080"));

    // A neighbour's address is not to be had, and a router's advertisement from a container changes nothing.
    let stolen = format!("ip -6 addr flush dev eth0 scope global; ip -6 addr add {address}9/64 dev eth0 nodad");
    let peer = host.inside("peer");
    host.shell(&peer, &stolen).run().ok();
    assert!(unreachable(&peer, &format!("[{address}]:81")), "from an address that isn't its own");

    // A card that comes and goes while it runs, and the next start.
    host.detached(&["--name", "late", "busybox", "sleep", "1000"]);
    host.minidock(&["network", "connect", "--alias", "db", "six", "late"]).ok();
    exec(&host, "late", "ping -6 -c 1 -W 30 web");
    assert!(exec(&host, "late", "ip -6 route").contains("default via fd"), "the way out of IPv6 comes with it");
    exec(&host, "web", "ping -6 -c 1 -W 30 db");
    host.minidock(&["restart", "-t", "0", "web"]).ok();
    wait_listening(&host.inside("web"), 80);
    page(&host.outside, &format!("[{HOST6}]:10080"));
    host.minidock(&["network", "disconnect", "six", "late"]).ok();
    assert!(!exec(&host, "late", "ip -6 route").contains("default"));
    drop(server);
    host.remove(&["web", "peer", "alone", "lonely", "late"]);
    host.minidock(&["network", "rm", "six", "apart"]).ok();
    without_ipv6(host);
}

#[test]
fn a_routed_network_is_reached_by_its_own_addresses_at_published_ports() {
    for firewall in Firewall::BOTH {
        let host = with_ipv6(firewall);
        let routed = |version: u8| format!("{GATEWAY}{version}=routed");
        let subnets = ["--ipv6", "--subnet", "10.5.0.0/24", "--subnet", "fd05::/64"];
        create(&host, &[&subnets[..], &["-o", &routed(4), "-o", &routed(6), "lan"]].concat());
        create(&host, &["--ipv6", "other"]);
        web(&host, "web", &["--network", "lan", "--ip", "10.5.0.9", "--ip6", "fd05::9", "-p", "80"]);
        host.detached(&["--name", "box", "--network", "other", "busybox", "sleep", "1000"]);
        host.detached(&["--name", "peer", "--network", "lan", "busybox", "sleep", "1000"]);
        host.outside(&format!("ip route add 10.5.0.0/24 via {HOST}; ip -6 route add fd05::/64 via {HOST6}")).ok();
        let server = Server::http(&host.outside, "[::]:8000");
        for (own, outside) in [("10.5.0.9", OUTSIDE), ("[fd05::9]", "[fd00:99::2]")] {
            page(&host.outside, &format!("{own}:80"));
            assert!(unreachable(&host.outside, &format!("{own}:81")), "{own}: not published");
            assert!(unreachable(&host.inside("box"), &format!("{own}:81")), "{own}: another network");
            page(&host.inside("box"), &format!("{own}:80"));
            let ping = format!("ping -c 1 -W 1 {}", own.trim_matches(['[', ']']));
            let answered = |name: &str| host.minidock(&["exec", name, "sh", "-c", &ping]).code() == 0;
            assert!(host.outside(&ping).code() == 0 && answered("peer"), "{own}: pings from outside and inside");
            assert!(!answered("box"), "{own}: another network's container pings it");
            let seen = fetch(&host.inside("web"), &format!("{outside}:8000"), "/");
            let seen = seen.strip_prefix("::ffff:").unwrap_or(&seen).to_owned();
            assert_eq!(seen, own.trim_matches(['[', ']']), "its own address outside");
        }
        drop(server);
        host.remove(&["web", "box", "peer"]);
        host.outside("ip route del 10.5.0.0/24; ip -6 route del fd05::/64").ok();
        host.minidock(&["network", "rm", "lan", "other"]).ok();
        without_ipv6(host);
    }
}

#[test]
fn an_isolated_network_is_without_the_host() {
    for firewall in Firewall::BOTH {
        let host = with_ipv6(firewall);
        let isolated = [format!("{GATEWAY}4=isolated"), format!("{GATEWAY}6=isolated")];
        let options = ["-o", &isolated[0], "-o", &isolated[1]];
        let refused = host.minidock(&[&["network", "create"], &options[..], &["lan"]].concat()).exits(1);
        refused.says(&["gateway mode 'isolated' can only be used for an internal network"]);
        let subnets = ["--internal", "--ipv6", "--subnet", "10.6.0.0/24", "--subnet", "fd06::/64"];
        create(&host, &[&subnets[..], &options, &["lan"]].concat());
        web(&host, "web", &["--network", "lan", "--wait", "port:80"]);
        host.detached(&["--name", "box", "--network", "lan", "busybox", "sleep", "1000"]);
        let on_host = host.sh("ip -o addr show type bridge; ip route; ip -6 route").ok().out();
        assert!(!on_host.contains("10.6.0.") && !on_host.contains("fd06:"), "{on_host}");
        let _server = Server::http(&host.host, "[::]:8000");
        for (address, gateway) in [("10.6.0.2", "10.6.0.1"), ("[fd06::2]", "[fd06::1]")] {
            page(&host.inside("box"), &format!("{address}:80"));
            assert!(unreachable(&host.host, &format!("{address}:80")), "{address} from the host");
            assert!(unreachable(&host.inside("box"), &format!("{gateway}:8000")), "the host at {gateway}");
        }
        // The host's link has an address that the kernel made: it opens nothing either.
        let bridge =
            host.sh("ip -o -6 addr show type bridge scope link | sed 's/.*inet6 \\([^/]*\\).*/\\1/'").ok().out();
        if let Some(link_local) = bridge.lines().next() {
            let index = host.inside("box").run(|| std::fs::read_to_string("/sys/class/net/eth0/ifindex").ok());
            drop(index);
            let scoped = host.minidock(&["exec", "box", "ping", "-6", "-c", "1", "-W", "1", "-I", "eth0", link_local]);
            assert_ne!(scoped.code(), 0, "the host answers at {link_local}");
        }
        exec(&host, "box", "ping -c 1 -W 30 web");
        host.remove(&["web", "box"]);
        host.minidock(&["network", "rm", "lan"]).ok();
        without_ipv6(host);
    }
}

/// The bridge asks for neighbours from its link-local address: when the first container runs, that is in use and not on
/// trial (for a second and a half).
#[test]
fn a_new_bridge_asks_for_neighbours_at_once() {
    let host = with_ipv6(Firewall::Nftables);
    create(&host, &["--ipv6", "six"]);
    web(&host, "web", &["--network", "six", "-p", "10080:80"]);
    let own = || host.sh("ip -6 -o addr show scope link | grep ' br-' || true").ok().out();
    host::wait_until("it has its address", || !own().is_empty());
    assert!(!own().contains("tentative"), "{}", own());
    page(&host.outside, &format!("[{HOST6}]:10080"));
    host.remove(&["web"]);
    host.minidock(&["network", "rm", "six"]).ok();
    without_ipv6(host);
}

fn sctp(place: &Namespaces, family: AddressFamily) -> Option<OwnedFd> {
    place.run(|| socket(family, SocketType::STREAM, Some(ipproto::SCTP))).ok()
}

#[test]
fn a_published_sctp_port_answers_or_the_reason_is_told() {
    for firewall in Firewall::BOTH {
        let host = with_ipv6(firewall);
        create(&host, &["--ipv6", "lan"]);
        let flags = ["--network", "lan", "-p", "7777:7000/sctp", "busybox", "sleep", "1000"];
        if sctp(&host.host, AddressFamily::INET).is_none() {
            host::lacks("sctp");
            let refused = host.minidock(&[&["run", "--rm"], &flags[..]].concat()).exits(125);
            refused.says(&["cannot publish port 7777/sctp: this kernel has no sctp", "modprobe sctp"]);
        } else {
            host.detached(&[&["--name", "web"], &flags[..]].concat());
            assert_eq!(host.minidock(&["port", "web"]).ok().out(), "7000/sctp -> 0.0.0.0:7777\n7000/sctp -> [::]:7777");
            for (family, any, host_address) in
                [(AddressFamily::INET, "0.0.0.0:7000", HOST), (AddressFamily::INET6, "[::]:7000", HOST6)]
            {
                let server = sctp(&host.inside("web"), family).unwrap();
                bind(&server, &any.parse::<SocketAddr>().unwrap()).unwrap();
                listen(&server, 4).unwrap();
                let serving = std::thread::spawn(move || {
                    let mut client = TcpStream::from(accept(&server).unwrap());
                    client.write_all(b"hello").unwrap();
                });
                let client = sctp(&host.outside, family).unwrap();
                let at = SocketAddr::new(host_address.parse::<IpAddr>().unwrap(), 7777);
                connect(&client, &at).unwrap();
                let mut client = TcpStream::from(client);
                client.set_read_timeout(Some(LIMIT)).unwrap();
                let mut said = [0; 5];
                client.read_exact(&mut said).unwrap();
                assert_eq!(&said, b"hello");
                serving.join().unwrap();
            }
            host.remove(&["web"]);
        }
        host.minidock(&["network", "rm", "lan"]).ok();
        without_ipv6(host);
    }
}
