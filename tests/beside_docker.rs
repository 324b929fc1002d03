//! Beside a dockerd: its rules and its bridge as it makes them, here by hand (tests/docker/beside.sh does it with a real
//! one). Both engines' traffic passes, no address is given twice, and neither takes away what is the other's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::os::unix::fs::MetadataExt;

use host::command::wait_listening;
use host::namespaces::Namespaces;
use host::net::{Server, fetch, fetch_once, unreachable};
use host::{Firewall, HOST, TestHost, images, within};

const SERVER: [&str; 5] = ["busybox", "httpd", "-f", "-h", "/www"];

/// What dockerd 20.10 leaves after its start, and one of its containers that publishes port 10090.
const DOCKERD: &str = "
    iptables -t nat -N DOCKER 2>/dev/null || true
    iptables -N DOCKER; iptables -N DOCKER-ISOLATION-STAGE-1; iptables -N DOCKER-ISOLATION-STAGE-2; iptables -N DOCKER-USER
    iptables -A DOCKER-USER -j RETURN
    iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
    iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
    iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
    iptables -A DOCKER-ISOLATION-STAGE-2 -j RETURN
    iptables -P FORWARD DROP
    iptables -I FORWARD -i docker0 -o docker0 -j ACCEPT
    iptables -I FORWARD -i docker0 ! -o docker0 -j ACCEPT
    iptables -I FORWARD -o docker0 -j DOCKER
    iptables -I FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    iptables -I FORWARD -j DOCKER-ISOLATION-STAGE-1
    iptables -I FORWARD -j DOCKER-USER
    iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
    iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
    iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    iptables -t nat -A DOCKER -i docker0 -j RETURN
    ip link show docker0 >/dev/null 2>&1 || {
        ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up; }
    echo 1 >/proc/sys/net/ipv4/ip_forward
    ip netns add theirs
    ip link add vethdocker type veth peer name eth0 netns theirs
    ip link set vethdocker master docker0 up
    ip -n theirs addr add 172.17.0.2/16 dev eth0; ip -n theirs link set eth0 up; ip -n theirs link set lo up
    ip -n theirs route add default via 172.17.0.1
    iptables -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 10090 -j DNAT --to-destination 172.17.0.2:80
    iptables -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
    iptables -t nat -A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE";

/// dockerd, its container and all its rules gone.
const NO_DOCKERD: &str = "iptables -P FORWARD ACCEPT; iptables -F; iptables -X; iptables -t nat -F; iptables -t nat -X;
    for pid in $(ip netns pids theirs); do kill $pid; done; ip link del vethdocker; ip netns del theirs; umount /run/netns || true; ip link del docker0; echo 0 >/proc/sys/net/ipv4/ip_forward";

fn rules(host: &TestHost) -> Vec<String> {
    let text = host.sh("iptables-save").ok().out();
    text.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect()
}

fn inode(pid: &str) -> Option<u64> {
    std::fs::metadata(format!("/proc/{pid}/ns/net")).ok().map(|data| data.ino())
}

/// The other engine's container serves.
fn theirs(host: &TestHost) -> Server {
    let pid = host.sh("ip netns exec theirs sleep 1000 >/dev/null 2>&1 </dev/null & echo $!").ok().out();
    let own = host.host.inode();
    host::wait_until("the other engine's container is there", || inode(&pid) != Some(own));
    Server::http(&Namespaces::network_of(pid.parse().unwrap()), "0.0.0.0:80")
}

fn web(host: &TestHost, name: &str, flags: &[&str]) {
    host.detached(&[&["--name", name], flags, &SERVER].concat());
    wait_listening(&host.inside(name), 80);
}

fn served(host: &TestHost, port: u16) -> bool {
    within(host::LIMIT, || {
        fetch_once(&host.outside, &format!("{HOST}:{port}"), "/index.html").is_ok_and(|page| page == images::PAGE)
    })
}

/// Published ports and the way out work for both engines. `closed`: docker's containers are reached only where docker
/// lets one in.
fn all_pass(host: &TestHost, closed: bool) {
    assert!(served(host, 10080), "a port on the default bridge");
    assert!(served(host, 10081), "a port on a network of ours");
    assert!(!fetch(&host.outside, &format!("{HOST}:10090"), "/").is_empty(), "docker's own port");
    for name in ["web", "lan-web"] {
        let out = host.minidock(&["exec", name, "ping", "-c1", "-W30", host::OUTSIDE]);
        assert_eq!(out.code(), 0, "{name} gets out: {}", out.err());
    }
    let lan = host.inside("lan-web");
    assert!(!closed || unreachable(&lan, "172.17.0.2:80"), "docker's container is not ours to open");
}

fn clean_up(host: TestHost, theirs: &[String]) {
    host.remove(&["web", "lan-web"]);
    host.minidock(&["network", "rm", "lan"]).ok();
    host.minidock(&["network", "rm", "bridge"]).ok();
    let rest = rules(&host);
    for rule in theirs {
        assert!(rest.contains(rule), "docker's rule {rule} stays:\n{}", rest.join("\n"));
    }
    // The chain DOCKER keeps its ways in while docker's ports are in it.
    let is_ours = |rule: &&String| ["MINIDOCK", "1008", "br-", "-s 127.0.0.0/8"].iter().any(|word| rule.contains(word));
    let ours: Vec<_> = rest.iter().filter(is_ours).collect();
    assert!(ours.is_empty(), "none of ours is left: {ours:?}");
    let rest = host.sh("iptables-save | grep MINIDOCK || true; nft list tables | grep minidock || true").ok().out();
    assert_eq!(rest, "", "ours are gone");
    assert!(host.sh("ip link show docker0; cat /proc/sys/net/ipv4/ip_forward").ok().out().ends_with('1'));
    assert!(!fetch(&host.outside, &format!("{HOST}:10090"), "/").is_empty(), "docker's port still works");
    host.sh(NO_DOCKERD).ok();
    host.finish();
}

#[test]
fn a_dockerd_that_was_here_first() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        host.sh(DOCKERD).ok();
        let docker_s = rules(&host);
        let server = theirs(&host);
        host.minidock(&["network", "create", "lan"]).ok();
        web(&host, "web", &["-p", "10080:80"]);
        web(&host, "lan-web", &["-p", "10081:80", "--network", "lan"]);
        let address: std::net::Ipv4Addr = host.address("web").parse().unwrap();
        assert!(address.octets()[2] >= 192, "{address}: far from where docker counts from");
        all_pass(&host, true);
        // dockerd writes its rules anew when it's restarted, and puts them in front.
        host.sh("iptables -D FORWARD -j DOCKER-USER; iptables -I FORWARD -j DOCKER-USER").ok();
        all_pass(&host, true);
        clean_up(host, &docker_s);
        drop(server);
    }
}

#[test]
fn a_dockerd_that_comes_later() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        host.minidock(&["network", "create", "lan"]).ok();
        // Its container will have 172.17.0.2: on a real host where docker is installed, ours begin elsewhere.
        host.minidock(&["run", "--rm", "busybox", "true"]).ok();
        web(&host, "web", &["-p", "10080:80"]);
        web(&host, "lan-web", &["-p", "10081:80", "--network", "lan"]);
        let before = rules(&host);
        host.sh(DOCKERD).ok();
        // Ours are mended within a second; what was there already and docker wants too, is both's.
        let way_in = "-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER";
        let of_docker = |rule: &String| !rule.contains("MINIDOCK") && (!before.contains(rule) || rule == way_in);
        let docker_s: Vec<String> = rules(&host).into_iter().filter(of_docker).collect();
        let server = theirs(&host);
        // The rules for iptables were written for a host without dockerd, which then finds forwarding on, and lets all
        // pass but what its own networks send each other.
        all_pass(&host, firewall == Firewall::Nftables);
        clean_up(host, &docker_s);
        drop(server);
    }
}

/// docker's rules come first; what a routed network lets in is judged by its own all the same.
#[test]
fn a_routed_network_stays_closed_beside_a_dockerd() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        host.sh(DOCKERD).ok();
        let mode = "com.docker.network.bridge.gateway_mode_ipv4=routed";
        host.minidock(&["network", "create", "--subnet", "10.5.0.0/24", "-o", mode, "lan"]).ok();
        web(&host, "web", &["--network", "lan", "--ip", "10.5.0.9", "-p", "80"]);
        let other = Server::http(&host.inside("web"), "0.0.0.0:81");
        host.outside(&format!("ip route add 10.5.0.0/24 via {HOST}")).ok();
        assert_eq!(fetch(&host.outside, "10.5.0.9:80", "/index.html"), images::PAGE, "{}", firewall.name());
        assert!(unreachable(&host.outside, "10.5.0.9:81"), "{}: not published", firewall.name());
        drop(other);
        host.remove(&["web"]);
        host.minidock(&["network", "rm", "lan"]).ok();
        host.discard();
    }
}
