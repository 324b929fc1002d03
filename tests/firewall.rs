//! What somebody does to the firewall while containers run: flushes, reloads, foreign policies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::time::Instant;

use host::command::wait_listening;
use host::net::{fetch, fetch_once, unreachable};
use host::{Firewall, HOST, LIMIT, TestHost, images, within};

const SERVER: [&str; 5] = ["busybox", "httpd", "-f", "-h", "/www"];

fn web(host: &TestHost, flags: &[&str]) {
    host.detached(&[&["--name", "web"], flags, &SERVER].concat());
    wait_listening(&host.inside("web"), 80);
}

fn comes_back(host: &TestHost, what: &str) {
    let start = Instant::now();
    let served = within(LIMIT, || {
        fetch_once(&host.outside, &format!("{HOST}:10080"), "/index.html").is_ok_and(|page| page == images::PAGE)
    });
    assert!(served, "after {what}: not back");
    eprintln!("after {what}: back within {:?}", start.elapsed());
}

fn a_flush_is_mended(firewall: Firewall, flushes: &[&str]) {
    let host = TestHost::with_firewall(firewall);
    web(&host, &["-p", "10080:80"]);
    assert_eq!(fetch(&host.outside, &format!("{HOST}:10080"), "/index.html"), images::PAGE);
    let address = host.address("web");
    host.outside(&format!("ip route add 172.17.0.0/16 via {HOST}")).ok();
    for flush in flushes {
        host.sh(flush).ok();
        comes_back(&host, flush);
        // Protection is back with it.
        assert!(unreachable(&host.outside, &format!("{address}:80")), "after {flush}: a forged route gets in");
    }
    host.remove(&["web"]);
    assert!(unreachable(&host.outside, &format!("{HOST}:10080")), "the mended port goes with its container");
    host.finish();
}

#[test]
fn nftables_rules_come_back_after_a_flush() {
    a_flush_is_mended(
        Firewall::Nftables,
        &[
            "nft flush ruleset",
            "nft delete table ip minidock",
            "nft flush table ip minidock",
            "nft flush map ip minidock ports",
        ],
    );
}

#[test]
fn iptables_rules_come_back_after_a_flush() {
    a_flush_is_mended(
        Firewall::Iptables,
        &["iptables -t nat -F", "iptables -F; iptables -t nat -F", "nft flush ruleset"],
    );
}

#[test]
fn rules_of_iptables_legacy_come_back_after_a_flush() {
    let host = TestHost::with_firewall(Firewall::Iptables);
    // As a host whose alternative for iptables is the old one.
    host.sh("mount --bind /usr/sbin/xtables-legacy-multi /usr/sbin/xtables-nft-multi").ok();
    web(&host, &["-p", "10080:80"]);
    assert_eq!(fetch(&host.outside, &format!("{HOST}:10080"), "/index.html"), images::PAGE);
    assert!(host.sh("iptables-legacy-save -t nat").ok().out().contains("--dport 10080"), "the rules are the old one's");
    for flush in ["iptables-legacy -t nat -F", "iptables-legacy -F; iptables-legacy -t nat -F"] {
        host.sh(flush).ok();
        comes_back(&host, flush);
    }
    host.remove(&["web"]);
    assert!(unreachable(&host.outside, &format!("{HOST}:10080")));
    host.discard();
}

#[test]
fn rules_of_ip6tables_legacy_come_back_after_a_flush() {
    let host = TestHost::with_firewall(Firewall::Iptables);
    host.sh("mount --bind /usr/sbin/xtables-legacy-multi /usr/sbin/xtables-nft-multi").ok();
    host.sh("ip -6 addr add fd00:99::1/64 dev uplink nodad").ok();
    host.outside("ip -6 addr add fd00:99::2/64 dev eth0 nodad").ok();
    host.minidock(&["network", "create", "--ipv6", "lan"]).ok();
    web(&host, &["--network", "lan", "-p", "10080:80"]);
    let served =
        || fetch_once(&host.outside, "[fd00:99::1]:10080", "/index.html").is_ok_and(|page| page == images::PAGE);
    assert!(within(host::LIMIT, served));
    let rules = || host.sh("ip6tables-legacy-save -t nat").ok().out().contains("--dport 10080");
    assert!(rules(), "the rules are the old one's");
    for flush in ["ip6tables-legacy -t nat -F", "ip6tables-legacy -F; ip6tables-legacy -t nat -F"] {
        host.sh(flush).ok();
        assert!(within(host::LIMIT, || rules() && served()), "after {flush}");
    }
    host.remove(&["web"]);
    assert!(!rules());
    host.discard();
}

#[test]
fn many_containers_mend_once_and_disturb_nobody() {
    let host = TestHost::new();
    for number in 0..6 {
        host.detached(&[
            "-p",
            &format!("{}:80", 10080 + number),
            "--name",
            &format!("web{number}"),
            "busybox",
            "httpd",
            "-f",
            "-h",
            "/www",
        ]);
        wait_listening(&host.inside(&format!("web{number}")), 80);
    }
    let foreign = "nft add table ip foreign; nft add chain ip foreign forward '{ type filter hook forward priority 10; }'; \
                   nft add rule ip foreign forward ip saddr 192.0.2.1 drop";
    host.sh(&format!("nft flush ruleset; {foreign}")).ok();
    for number in 0..6 {
        let served =
            within(LIMIT, || fetch_once(&host.outside, &format!("{HOST}:{}", 10080 + number), "/index.html").is_ok());
        assert!(served, "web{number} is not back");
    }
    assert!(host.sh("nft list table ip foreign").ok().out().contains("ip saddr 192.0.2.1 drop"), "others' rules stay");
    let rules = host.sh("nft list table ip minidock").ok().out();
    assert_eq!(rules.matches("jump publish").count(), 2, "each rule is there once:\n{rules}");
    let names: Vec<String> = (0..6).map(|number| format!("web{number}")).collect();
    host.remove(&names.iter().map(String::as_str).collect::<Vec<_>>());
    host.sh("nft delete table ip foreign").ok();
    host.finish();
}

#[test]
fn repair_by_hand_names_what_it_brought_back() {
    let host = TestHost::new();
    web(&host, &["-p", "10080:80"]);
    assert_eq!(host.minidock(&["network", "repair"]).ok().out(), "", "nothing is missing");
    // The monitor is stopped, so that it can't be the first.
    let monitor = host.sh(&format!("ps -o ppid= -p {}", host.pid("web"))).ok().out();
    host.sh(&format!("kill -STOP {monitor}; nft flush ruleset")).ok();
    let repaired = host.minidock(&["network", "repair"]).ok().out();
    assert_eq!(repaired, "bridge\nweb");
    assert_eq!(fetch(&host.outside, &format!("{HOST}:10080"), "/index.html"), images::PAGE);
    host.sh(&format!("kill -CONT {monitor}")).ok();
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn a_bridge_deleted_by_hand_is_told_with_the_remedy_that_helps() {
    let host = TestHost::new();
    web(&host, &["-p", "10080:80"]);
    host.sh("ip link del docker0").ok();
    let told = |because: &str| {
        let repair = host.minidock(&["network", "repair"]).exits(1);
        let doctor = host.minidock(&["doctor"]).out();
        for text in [repair.err(), doctor] {
            for part in ["web is cut off from network bridge", because, "minidock restart web"] {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
    };
    told("the bridge docker0 is gone");
    // The next container makes the bridge anew, without the first one's card.
    host.output_of(&["busybox", "true"]);
    told("isn't in the bridge docker0");
    host.minidock(&["restart", "-t", "0", "web"]).ok();
    wait_listening(&host.inside("web"), 80);
    assert_eq!(fetch(&host.outside, &format!("{HOST}:10080"), "/index.html"), images::PAGE);
    assert_eq!(host.minidock(&["network", "repair"]).ok().out(), "");
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn a_container_sends_only_with_its_own_address_unless_it_may_spoof() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        let script =
            "ip addr flush dev eth0; ip addr add 172.17.0.99/16 dev eth0; ping -c 2 -W 5 172.17.0.1 >/dev/null";
        let run = |option: &str| {
            let flags = ["run", "--rm", "--cap-add", "NET_ADMIN", "--security-opt", option];
            host.minidock(&[&flags[..], &["busybox", "sh", "-c", script]].concat())
        };
        run("net-spoof=allow").ok();
        run("net-spoof=deny").exits(1);
        host.minidock(&["run", "--rm", "--security-opt", "net-spoof=x", "busybox", "true"])
            .exits(125)
            .says(&["net-spoof=allow"]);
        host.finish();
    }
}

/// A table that iptables-nft might keep is the user's own when anything in it isn't as iptables-nft makes it.
#[test]
fn an_own_table_of_the_user_outlives_the_last_network() {
    let theirs = [
        "add chain ip nat prerouting { type nat hook prerouting priority -100; policy accept; }",
        "add chain ip nat PREROUTING { type nat hook prerouting priority -90; policy accept; }",
        "add chain ip nat OUTPUT { type nat hook postrouting priority 100; policy accept; }",
        "add chain ip nat POSTROUTING { type filter hook postrouting priority 100; policy accept; }",
        "add chain ip nat mine",
        "add set ip nat mine { type ipv4_addr; }",
    ];
    for line in theirs {
        let host = TestHost::with_firewall(Firewall::Iptables);
        host.minidock(&["network", "create", "own"]).ok();
        host.minidock(&["run", "--rm", "--network", "own", "busybox", "true"]).ok();
        host.sh(&format!("nft flush ruleset; nft add table ip nat; nft '{line}'")).ok();
        let before = host.sh("nft list ruleset").ok().out();
        host.minidock(&["network", "rm", "own"]).ok();
        assert_eq!(host.sh("nft list ruleset").ok().out(), before, "{line}");
        host.sh("nft flush ruleset").ok();
        host.discard();
    }
}
