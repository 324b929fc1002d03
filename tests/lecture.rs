//! The lecture's checklist (rows 5, 6, 8-10 and 11-16 of its table): each of its commands, typed as it stands there, finds
//! what it must find beside minidock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::command::wait_listening;
use host::groups::value;
use host::net::{Server, fetch};
use host::{Firewall, HOST, OUTSIDE, TestHost, images, wait_until};

fn web(host: &TestHost) {
    host.detached(&["--name", "test", "-p", "10080:80", "busybox", "httpd", "-f", "-h", "/www"]);
    wait_listening(&host.inside("test"), 80);
}

/// Row 5: the cgroup subsystems.
#[test]
fn row_5_limits_are_set_by_docker_s_flags_and_read_back() {
    let host = TestHost::new();
    host.detached(&["--name", "test", "--cpu-shares", "512", "--pids-limit", "30", "busybox", "sleep", "1000"]);
    let shares = value(&host, "test", "cpu", "cpu.shares", "cpu.weight");
    assert!(["512", "20", "59"].contains(&shares.as_str()), "{shares}");
    assert_eq!(value(&host, "test", "pids", "pids.max", "pids.max"), "30");
    host.remove(&["test"]);
    host.finish();
}

/// Row 6: a net_cls hierarchy that the student has mounted is used, and stays.
#[test]
fn row_6_net_cls_mounted_by_hand_is_used_and_stays() {
    let host = TestHost::new();
    let was_there = std::path::Path::new("/sys/fs/cgroup/net_cls").exists();
    if host.sh("mkdir /sys/fs/cgroup/net_cls && mount -t cgroup -onet_cls net_cls /sys/fs/cgroup/net_cls").code() == 0 {
        host.detached(&["--name", "test", "--net-cls", "1:10", "busybox", "sleep", "1000"]);
        let mounts = host.sh("grep -c net_cls /proc/self/mountinfo").ok().out();
        assert_eq!(mounts, "1", "it is not mounted a second time");
        let found = host.sh("grep -rl 65552 /sys/fs/cgroup/net_cls --include net_cls.classid").ok().out();
        assert!(found.starts_with("/sys/fs/cgroup/net_cls/"), "{found}");
        host.remove(&["test"]);
        assert_eq!(host.sh("grep -c net_cls /proc/self/mountinfo").ok().out(), "1");
        wait_until("it can be unmounted", || host.sh("umount /sys/fs/cgroup/net_cls").code() == 0);
        host.sh("rmdir /sys/fs/cgroup/net_cls").ok();
    } else if !was_there {
        host.sh("rmdir /sys/fs/cgroup/net_cls 2>/dev/null || :").ok(); // held with other controllers by this machine
    }
    host.finish();
}

/// Row 8: what `echo 0x00010010 > net_cls.classid` writes.
#[test]
fn row_8_net_cls_1_10_is_what_the_echo_writes() {
    let host = TestHost::new();
    host.detached(&["--name", "test", "--net-cls", "1:10", "busybox", "sleep", "1000"]);
    assert_eq!(value(&host, "test", "net_cls", "net_cls.classid", ""), 0x0001_0010.to_string());
    host.remove(&["test"]);
    let explained = host.minidock(&["run", "--dry-run", "--net-cls", "1:10", "busybox", "true"]).ok().out();
    assert!(
        explained.lines().any(|line| line.contains("echo 0x00010010 >") && line.contains("net_cls.classid")),
        "{explained}"
    );
    host.finish();
}

/// Row 9: `brctl show docker0`.
#[test]
fn row_9_brctl_lists_the_cards_of_all_containers() {
    let host = TestHost::new();
    let ids: Vec<String> = (0..3).map(|_| host.detached(&["busybox", "sleep", "1000"])).collect();
    let shown = host.sh("brctl show docker0").ok().out();
    assert_eq!(shown.matches("veth").count(), 3, "{shown}");
    host.remove(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    host.finish();
}

/// Row 10: the pair, in the lecture's form.
#[test]
fn row_10_explain_prints_the_pair_in_the_lecture_s_form() {
    let host = TestHost::new();
    let explained = host.minidock(&["run", "--dry-run", "busybox", "true"]).ok().out();
    let pair = explained.lines().any(|line| line.contains("ip link add") && line.contains("type veth peer name"));
    let master = explained.lines().any(|line| line.contains("ip link set veth") && line.contains("master docker0"));
    assert!(pair && master, "{explained}");
    host.finish();
}

/// Rows 11 and 12: everything by hand, for a container without a network.
#[test]
fn rows_11_and_12_a_network_made_by_hand_works() {
    let host = TestHost::new();
    host.detached(&["--name", "test", "--network", "none", "busybox", "httpd", "-f", "-h", "/www"]);
    let pid = host.minidock(&["inspect", "--format={{ .State.Pid }}", "test"]).ok().out();
    let names = host.sh("ip netns").ok().out();
    host.sh(&format!(
        "brctl addbr testbr; ip addr add 172.18.0.1/16 dev testbr; ip link set testbr up
         ip link add name veth1 mtu 1500 type veth peer name veth2 mtu 1500
         ip link set veth1 master testbr
         ip link set veth1 up
         mkdir -p /var/run/netns
         rm -f /var/run/netns/{pid}
         ln -s /proc/{pid}/ns/net /var/run/netns/{pid}
         ip link set veth2 netns {pid}
         ip netns exec {pid} ip link set veth2 name eth0
         ip netns exec {pid} ip addr add 172.18.0.2/16 dev eth0
         ip netns exec {pid} ip link set eth0 up"
    ))
    .ok();
    assert_eq!(fetch(&host.host, "172.18.0.2:80", "/index.html"), images::PAGE);
    assert!(host.sh("ip netns").ok().out().contains(&pid), "{names}");
    host.remove(&["test"]);
    host.sh(&format!(
        "rm /var/run/netns/{pid}; ip link del testbr; until ! ip link show veth1 2>/dev/null; do :; done"
    ))
    .ok();
    host.finish();
}

/// Row 12, the other half: with minidock no `ln` is needed.
#[test]
fn row_12_ip_netns_shows_each_container_by_name() {
    let host = TestHost::new();
    web(&host);
    assert!(host.sh("ip netns").ok().out().split_whitespace().any(|word| word == "test"));
    let shown = host.sh("ip netns exec test ip addr show eth0").ok().out();
    assert!(shown.contains("172.17.0.2/16"), "{shown}");
    host.remove(&["test"]);
    host.finish();
}

/// Row 13: MASQUERADE, and the connection's entry that translates the reply back.
#[test]
fn row_13_masquerade_is_the_lecture_s_line_and_works() {
    let host = TestHost::with_firewall(Firewall::Iptables);
    web(&host);
    let rules = host.sh("iptables-save -t nat").ok().out();
    assert!(rules.lines().any(|line| line == "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"), "{rules}");
    let server = Server::http(&host.outside, "0.0.0.0:8000");
    assert_eq!(fetch(&host.inside("test"), &format!("{OUTSIDE}:8000"), "/"), HOST);
    let entries = host.sh("conntrack -L -p tcp 2>/dev/null").ok().out();
    let line =
        entries.lines().find(|line| line.contains("dport=8000")).unwrap_or_else(|| panic!("no entry:\n{entries}"));
    assert!(line.contains("src=172.17.0.2") && line.contains(&format!("dst={HOST}")), "{line}");
    drop(server);
    host.remove(&["test"]);
    host.finish();
}

/// Row 14.
#[test]
fn row_14_p_10080_80_serves_the_page() {
    let host = TestHost::new();
    web(&host);
    let page = host.outside(&format!("curl -s http://{HOST}:10080/index.html")).ok();
    assert_eq!(String::from_utf8(page.stdout).unwrap(), images::PAGE);
    host.remove(&["test"]);
    host.finish();
}

/// Row 15.
#[test]
fn row_15_the_proxy_takes_the_lecture_s_flags() {
    let host = TestHost::new();
    host.detached(&["--name", "test", "busybox", "httpd", "-f", "-h", "/www"]);
    assert_eq!(host.address("test"), "172.17.0.2");
    let line = "proxy -proto tcp -host-ip 0.0.0.0 -host-port 10080 -container-ip 172.17.0.2 -container-port 80";
    let proxy = host.spawn(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(fetch(&host.outside, &format!("{HOST}:10080"), "/index.html"), images::PAGE);
    drop(proxy);
    host.remove(&["test"]);
    host.finish();
}

/// Row 16.
#[test]
fn row_16_dnat_is_the_lecture_s_line() {
    let host = TestHost::with_firewall(Firewall::Iptables);
    web(&host);
    let rules = host.sh("iptables-save -t nat").ok().out();
    let expected = "-A DOCKER -p tcp -m tcp --dport 10080 -j DNAT --to-destination 172.17.0.2:80";
    assert!(rules.lines().any(|line| line == expected), "{rules}");
    let nft_host = TestHost::with_firewall(Firewall::Nftables);
    web(&nft_host);
    let ruleset = nft_host.sh("nft list table ip minidock").ok().out();
    for word in ["10080", "172.17.0.2", "masquerade", "dnat"] {
        assert!(ruleset.contains(word), "no {word}:\n{ruleset}");
    }
    host.remove(&["test"]);
    nft_host.remove(&["test"]);
    host.finish();
    nft_host.finish();
}
