//! The test host itself: a harness that can't see a left-over thing proves nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::time::Duration;

use host::{HOST, OUTSIDE, TestHost, net};

const SHORT: Duration = Duration::from_millis(100);

#[test]
fn a_fresh_host_has_nothing_left_over() {
    TestHost::bare().finish();
}

#[test]
fn the_outside_and_the_host_reach_each_other() {
    let host = TestHost::bare();
    let server = net::Server::http(&host.outside, "0.0.0.0:80");
    assert_eq!(net::fetch(&host.host, &format!("{OUTSIDE}:80"), "/"), HOST);
    assert_eq!(server.clients(), [HOST]);
    let answering = net::Server::udp(&host.host, "0.0.0.0:53");
    assert_eq!(net::ask_udp(&host.outside, &format!("{HOST}:53"), "hello"), format!("{OUTSIDE} hello"));
    drop((server, answering));
    assert!(net::unreachable(&host.outside, &format!("{HOST}:80")));
    host.finish();
}

#[test]
fn each_kind_of_residue_is_seen() {
    let cases: &[(&str, &str, &str)] = &[
        ("+ link: veth1 ", "ip link add veth1 type veth peer name veth2", "ip link del veth1"),
        (
            "+ address: uplink inet 10.5.5.5/32",
            "ip addr add 10.5.5.5/32 dev uplink",
            "ip addr del 10.5.5.5/32 dev uplink",
        ),
        ("+ route: 10.6.0.0/16", "ip route add 10.6.0.0/16 via 10.99.0.2", "ip route del 10.6.0.0/16"),
        ("- route: default", "ip route del default", "ip route add default via 10.99.0.2"),
        ("+ netns name: web", "mkdir -p /run/netns; ln -s /proc/1/ns/net /run/netns/web", "rm /run/netns/web"),
        ("+ nft: table", "nft add table ip minidock", "nft delete table ip minidock"),
        ("+ iptables: nat: -A POSTROUTING", "iptables -t nat -A POSTROUTING -j MASQUERADE", "iptables -t nat -F"),
        ("+ iptables: nat: chain DOCKER", "iptables -t nat -N DOCKER", "iptables -t nat -X DOCKER"),
        ("+ mount: /", "mkdir -p m; mount -t tmpfs x $PWD/m", "umount $PWD/m"),
        (
            "+ sysctl: net.ipv4.ip_forward 1",
            "echo 1 >/proc/sys/net/ipv4/ip_forward",
            "echo 0 >/proc/sys/net/ipv4/ip_forward",
        ),
        ("+ folder in /run: minidock", "mkdir /run/minidock", "rmdir /run/minidock"),
        ("+ temporary file: x", "touch $TMPDIR/x", "rm $TMPDIR/x"),
        (
            "+ file: names/web",
            "mkdir -p $MINIDOCK_ROOT/names; touch $MINIDOCK_ROOT/names/web",
            "rm $MINIDOCK_ROOT/names/web",
        ),
        ("+ process: ", "sleep 60 >/dev/null 2>&1 & echo $! >pid", "kill $(cat pid)"),
    ];
    let host = TestHost::bare();
    for (expected, make, take_away) in cases {
        host.sh(make).ok();
        let left = host.leftovers(SHORT);
        assert!(left.iter().any(|line| line.starts_with(expected)), "'{make}' is not seen, but: {left:?}");
        host.sh(take_away).ok();
        let left = host.leftovers(host::LIMIT);
        assert!(left.is_empty(), "after '{take_away}': {left:?}");
    }
    host.finish();
}

#[test]
fn a_cgroup_of_a_container_without_a_folder_is_seen() {
    let host = TestHost::bare();
    let id = "0123456789abcdef".repeat(3) + &format!("{:016x}", std::process::id());
    let find = "awk '/ - cgroup/ && / (rw,)?.*(pids|memory)/ {print $5; exit}' /proc/self/mountinfo";
    host.sh(&format!("d=$({find})/minidock-harness/{id}; mkdir -p $d; echo $d >group")).ok();
    let left = host.leftovers(SHORT);
    host.sh("d=$(cat group); rmdir $d $(dirname $d)").ok();
    assert!(left.iter().any(|line| line.starts_with("+ cgroup: ") && line.ends_with(&id)), "{left:?}");
    host.finish();
}

#[test]
fn what_the_networks_journal_lists_may_stay_and_nothing_else() {
    let host = TestHost::bare();
    let journal = host.root.join("run/network/bridge");
    std::fs::create_dir_all(&journal).unwrap();
    host.sh("ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up").ok();
    assert!(!host.leftovers(SHORT).is_empty(), "no journal lists docker0");
    std::fs::write(journal.join("journal"), "{\"Bridge\":{\"name\":\"docker0\"}}\n").unwrap();
    let left = host.leftovers(SHORT);
    assert!(left.is_empty(), "{left:?}");
    host.sh("ip link add veth1 type veth peer name veth2; ip link set veth1 master docker0").ok();
    let left = host.leftovers(SHORT);
    assert!(left.iter().any(|line| line.contains("veth2")), "{left:?}");
    host.sh("ip link del veth1").ok();
    host.finish();
}

#[test]
fn hosts_do_not_see_each_other() {
    let (one, two) = (TestHost::bare(), TestHost::bare());
    one.sh("ip link add docker0 type bridge; mkdir -p /run/netns; touch /run/netns/x").ok();
    assert_eq!(two.sh("ip -br link show docker0 2>/dev/null | wc -l; ls /run").ok().out(), "0\nlock");
    assert!(two.leftovers(SHORT).is_empty());
    one.sh("ip link del docker0; rm /run/netns/x").ok();
    one.finish();
    two.finish();
}

#[test]
fn brctl_and_cgroups_are_seen_on_a_test_host_as_on_a_machine() {
    let host = TestHost::bare();
    host.sh("ip link add docker0 type bridge; ip link add veth1 type veth peer name veth2; ip link set veth1 master docker0").ok();
    assert!(host.sh("brctl show docker0").ok().out().contains("veth1"));
    host.sh("grep -q ' - cgroup' /proc/self/mountinfo; test -n \"$(ls /sys/fs/cgroup)\"").ok();
    host.sh("ip link del docker0; ip link del veth1").ok();
    host.finish();
}

#[test]
#[should_panic(expected = "left over on the test host")]
fn finish_fails_when_something_is_left() {
    let host = TestHost::bare();
    host.sh("ip link add veth1 type veth peer name veth2").ok();
    host.finish_within(SHORT);
}
