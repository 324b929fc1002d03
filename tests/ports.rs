//! Published ports: both IP versions, ranges, very many, clients that talk on over a restart, hosts where DNAT can't serve.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use host::command::wait_listening;
use host::net::{Server, fetch, unreachable};
use host::{Firewall, HOST, TestHost, images, within};

const SERVER: [&str; 5] = ["busybox", "httpd", "-f", "-h", "/www"];

fn web(host: &TestHost, flags: &[&str]) {
    host.detached(&[&["--name", "web"], flags, &SERVER].concat());
    wait_listening(&host.inside("web"), 80);
}

/// IPv6 on the wire to the outside.
fn with_ipv6(host: &TestHost) {
    host.sh("ip -6 addr add fd00:99::1/64 dev uplink nodad").ok();
    host.outside("ip -6 addr add fd00:99::2/64 dev eth0 nodad").ok();
}

#[test]
fn a_port_has_the_same_number_in_both_ip_versions() {
    let host = TestHost::new();
    with_ipv6(&host);
    web(&host, &["-p", "10080:80", "-p", "80"]);
    let ports = host.minidock(&["port", "web", "80"]).ok().out();
    let at = |prefix: &str| -> Vec<u16> {
        ports.lines().filter_map(|line| line.strip_prefix(prefix)?.parse().ok()).collect()
    };
    assert_eq!((at("0.0.0.0:").len(), at("[::]:").len()), (2, 2), "{ports}");
    assert_eq!(at("0.0.0.0:"), at("[::]:"), "{ports}");
    for port in at("[::]:") {
        // The container has no IPv6: the proxy serves by itself.
        assert_eq!(fetch(&host.outside, &format!("[fd00:99::1]:{port}"), "/index.html"), images::PAGE);
        assert_eq!(fetch(&host.host, &format!("[::1]:{port}"), "/index.html"), images::PAGE);
        assert_eq!(fetch(&host.outside, &format!("{HOST}:{port}"), "/index.html"), images::PAGE);
    }
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn a_port_on_one_ipv6_address_is_only_there() {
    let host = TestHost::new();
    with_ipv6(&host);
    web(&host, &["-p", "[::1]:10080:80", "-p", "0.0.0.0:10081:80"]);
    assert_eq!(fetch(&host.host, "[::1]:10080", "/index.html"), images::PAGE);
    assert!(unreachable(&host.outside, "[fd00:99::1]:10080") && unreachable(&host.outside, &format!("{HOST}:10080")));
    assert_eq!(fetch(&host.outside, &format!("{HOST}:10081"), "/index.html"), images::PAGE);
    assert!(unreachable(&host.host, "[::1]:10081"), "an IPv4 address is IPv4 alone");
    assert_eq!(host.minidock(&["port", "web"]).ok().out(), "80/tcp -> 0.0.0.0:10081\n80/tcp -> [::1]:10080");
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn ten_thousand_ports_are_one_element_and_few_descriptors() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        let start = Instant::now();
        web(&host, &["-p", "20000-29999:20000-29999", "--publish-mode", "dnat"]);
        eprintln!("{}: started with 10 000 ports in {:?}", firewall.name(), start.elapsed());
        // The container has no IPv6; that this is done for IPv4 alone is said.
        let script = ["run", "--dry-run", "-p", "30000-30256:30000-30256", "busybox", "true"];
        assert!(host.minidock(&script).ok().out().contains("# WARNING: 257 ports are published for IPv4 clients only"));
        let script = ["run", "--dry-run", "-p", "30000-30255:30000-30255", "busybox", "true"];
        assert!(!host.minidock(&script).ok().out().contains("IPv4 clients only"));
        let ports = host.minidock(&["port", "web"]).ok().out();
        assert_eq!(ports.lines().filter(|line| line.contains("0.0.0.0:")).count(), 10_000);
        let state = host.sh("cat $MINIDOCK_ROOT/containers/*/state.json").ok().out();
        assert!(state.len() < 10_000, "the ports are ranges in the state file, too: {} bytes", state.len());
        assert!(host.minidock(&["ps"]).ok().out().contains("0.0.0.0:20000-29999->20000-29999/tcp"));
        let rules = host.sh("nft list ruleset").ok().out();
        assert!(rules.contains("20000-29999") && !rules.contains("20001"), "{rules}");
        let monitor = host.sh(&format!("ps -o ppid= -p {}", host.pid("web"))).ok().out();
        let descriptors = host.sh(&format!("ls /proc/{}/fd | wc -l", monitor.trim())).ok().out();
        assert!(descriptors.parse::<u32>().unwrap() < 300, "{descriptors} descriptors");
        let inside = host.inside("web");
        for port in [20_000, 25_555, 29_999] {
            let server = Server::http(&inside, &format!("0.0.0.0:{port}"));
            assert!(!fetch(&host.outside, &format!("{HOST}:{port}"), "/").is_empty(), "{port}");
            drop(server);
            let taken = host.host.run(|| std::net::TcpListener::bind(("0.0.0.0", port)));
            assert!(taken.is_err(), "{port} is kept from others");
        }
        drop(inside);
        host.remove(&["web"]);
        host.finish();
    }
}

#[test]
fn ports_that_are_no_range_are_taken_away_in_one_go_too() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        let ports: Vec<String> = (10_001..11_201).step_by(2).map(|port| format!("-p={port}:{port}")).collect();
        let flags: Vec<&str> = ports.iter().map(String::as_str).chain(["--publish-mode", "dnat"]).collect();
        web(&host, &flags);
        assert_eq!(
            host.minidock(&["port", "web"]).ok().out().lines().filter(|line| line.contains("0.0.0.0:")).count(),
            600
        );
        host.minidock(&["rm", "-f", "web"]).ok();
        let rules = host.sh("nft list ruleset").ok().out();
        assert!(!rules.contains("10001") && !rules.contains("11199"), "{rules}");
        host.finish();
    }
}

#[test]
fn a_udp_client_reaches_the_next_container() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        let client = host.outside.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let ask = |what: &str| {
            let mut buffer = [0; 100];
            within(host::LIMIT, || {
                let _ = client.send_to(what.as_bytes(), format!("{HOST}:10053"));
                client.recv_from(&mut buffer).is_ok_and(|(size, _)| buffer[..size].ends_with(what.as_bytes()))
            })
        };
        for (nth, holder) in ["one", "two", "three"].into_iter().enumerate() {
            // Another address each time, so that a remembered flow leads nowhere.
            let spare = format!("spare{nth}");
            host.detached(&["--name", &spare, "busybox", "sleep", "1000"]);
            host.detached(&["--name", holder, "-p", "10053:53/udp", "busybox", "sleep", "1000"]);
            let server = Server::udp(&host.inside(holder), "0.0.0.0:53");
            assert!(ask(holder), "{}: {holder} has no answer", firewall.name());
            drop(server);
            host.remove(&[holder]);
            let _ = client.send_to(b"between", format!("{HOST}:10053")); // remembered as a flow to this host itself
        }
        host.remove(&["spare0", "spare1", "spare2"]);
        host.finish();
    }
}

#[test]
fn where_dnat_cannot_serve_the_plan_takes_the_proxy_and_says_why() {
    let host = TestHost::new();
    host.sh("mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys").ok();
    let script = host.minidock(&["run", "--dry-run", "-p", "10080:80", "busybox", "true"]).ok().out();
    assert!(script.contains("minidock proxy") && script.contains("/proc/sys is read-only"), "{script}");
    assert!(!script.contains("ip_forward") && !script.contains("nft add element ip minidock ports"), "{script}");
    host.sh("umount /proc/sys").ok();
    let script = host.minidock(&["run", "--dry-run", "-p", "0.0.0.0:10080:80", "busybox", "true"]).ok().out();
    assert!(!script.contains("minidock proxy"), "{script}");
    host.finish();
}

/// No two of them are neighbours: each has an element of its own, and all of them must fit into the journal. The rules of
/// iptables don't: then nothing is begun.
#[test]
fn very_many_separate_ports_are_started_and_taken_away_or_refused_cleanly() {
    let host = TestHost::new();
    let publish: Vec<String> =
        (0..31_000).map(|nth| format!("-p=0.0.0.0:{}:{}/udp", 2 * nth + 2000, 1 + nth % 7)).collect();
    let run = |firewall: &str, count: usize| {
        let flags = ["--firewall", firewall, "run", "-d", "--name", "many", "--publish-mode", "dnat"];
        let words: Vec<&str> = flags.into_iter().chain(publish[..count].iter().map(String::as_str)).collect();
        host.minidock(&[&words[..], &["busybox", "sleep", "1000"]].concat())
    };
    run("nftables", 24_000).ok();
    let journal = host.sh("cat $MINIDOCK_ROOT/containers/*/journal | wc -c").ok().out();
    assert!(journal.parse::<u32>().unwrap() < 1_000_000, "{journal}");
    assert_eq!(host.minidock(&["port", "many"]).ok().out().lines().count(), 24_000);
    host.minidock(&["rm", "-f", "many"]).ok();
    let rules = host.sh("nft list map ip minidock ports").ok().out();
    assert!(!rules.contains("2000"), "{rules}");
    run("iptables", 31_000).exits(125).says(&["journal", "publish fewer ports"]);
    assert_eq!(host.minidock(&["ps", "-aq"]).ok().out(), "");
    let rules = host.sh("iptables-save").ok().out();
    assert!(!rules.contains("--dport"), "{rules}");
    host.finish();
}

/// The kernel's table of flows may be huge: a start with UDP ports keeps none of the flows that aren't to be forgotten.
#[test]
fn flows_to_udp_ports_are_forgotten_without_collecting_all_others() {
    const FLOWS: usize = 20_000;
    let host = TestHost::new();
    host.detached(&["--name", "warm", "-p", "7000:70/udp", "busybox", "sleep", "1000"]);
    host.sh("echo 600 >/proc/sys/net/netfilter/nf_conntrack_udp_timeout").ok();
    let flows = || -> usize {
        host.sh("cat /proc/sys/net/netfilter/nf_conntrack_count").ok().out().trim().parse().unwrap_or_default()
    };
    let send_to = |port: u16| {
        host.host.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for number in 0..FLOWS {
                socket.send_to(b"x", (format!("127.1.{}.{}", number >> 8, number & 255).as_str(), port)).unwrap();
            }
        });
    };
    let peak = |name: &str| -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", host.monitor(name))).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let start = |name: &str| {
        host.detached(&["--name", name, "-p", "5000:50/udp", "-p", "6000:60/udp", "busybox", "sleep", "1000"])
    };
    start("before");
    let before = peak("before");
    host.remove(&["before"]);
    send_to(20_000);
    send_to(6000);
    assert!(flows() >= 2 * FLOWS, "{}", flows());
    start("after");
    assert!((FLOWS..FLOWS + FLOWS / 2).contains(&flows()), "those to port 6000 are gone: {}", flows());
    let grown = peak("after").saturating_sub(before);
    assert!(grown < 2048, "{grown} kB more");
    host.remove(&["warm", "after"]);
    host.finish();
}
