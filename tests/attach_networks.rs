//! `network connect` and `disconnect`: of running, stopped and created containers, with what they have to carry over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::command::wait_listening;
use host::net::{fetch, unreachable};
use host::{Firewall, HOST, TestHost, images};

fn networks(host: &TestHost) {
    host.minidock(&["network", "create", "--subnet", "10.5.0.0/24", "lan"]).ok();
    host.minidock(&["network", "create", "--subnet", "10.6.0.0/24", "wan"]).ok();
}

fn exec(host: &TestHost, words: &str) -> String {
    host.minidock(&["exec", "box", "sh", "-c", words]).ok().out()
}

const ADDRESSES: &str = "ip -4 -o addr | sed -n 's/.*\\(eth.\\) *inet \\([0-9.]*\\).*/\\1 \\2/p'";
const WAY: &str = "ip route | sed -n 's/^default via \\([0-9.]*\\) .*/\\1/p'";

#[test]
fn a_running_container_comes_into_a_network_and_leaves_it() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        networks(&host);
        host.detached(&["--name", "box", "--hostname", "box", "--network", "lan", "busybox", "sleep", "1000"]);
        host.detached(&["--name", "other", "--network", "wan", "busybox", "sleep", "1000"]);
        host.minidock(&["network", "connect", "--ip", "10.6.0.9", "--alias", "db", "wan", "box"]).ok();
        assert_eq!(exec(&host, ADDRESSES), "eth0 10.5.0.2\neth1 10.6.0.9");
        assert_eq!(exec(&host, WAY), "10.5.0.1", "the way out stays");
        assert!(exec(&host, "cat /etc/hosts").ends_with("10.5.0.2\tbox\n10.6.0.9\tbox"), "its own names");
        exec(&host, "ping -c 1 -W 30 10.6.0.2");
        exec(&host, "ping -c 1 -W 30 other");
        host.minidock(&["exec", "other", "ping", "-c", "1", "-W", "30", "db"]).ok();
        let places =
            "{{range $name, $one := .NetworkSettings.Networks}}{{$name}}={{$one.IPAddress}} {{$one.Aliases}} {{end}}";
        assert_eq!(host.minidock(&["inspect", "-f", places, "box"]).ok().out(), "lan=10.5.0.2 [] wan=10.6.0.9 [db] ");
        let again = host.minidock(&["network", "connect", "wan", "box"]).exits(1);
        again.says(&["endpoint with name box already exists in network wan"]);
        host.minidock(&["network", "disconnect", "lan", "box"]).ok();
        assert_eq!((exec(&host, ADDRESSES), exec(&host, WAY)), ("eth1 10.6.0.9".into(), "10.6.0.1".into()));
        assert!(!exec(&host, "cat /etc/hosts").contains("10.5.0.2"));
        host.minidock(&["network", "rm", "lan"]).ok();
        let refused = host.minidock(&["network", "disconnect", "bridge", "box"]).exits(1);
        refused.says(&["is not connected to network bridge"]);
        host.minidock(&["network", "disconnect", "-f", "bridge", "box"]).ok();
        host.minidock(&["network", "connect", "--gw-priority", "1", "bridge", "box"]).ok();
        assert_eq!(
            (exec(&host, ADDRESSES), exec(&host, WAY)),
            ("eth1 10.6.0.9\neth0 172.17.0.2".into(), "172.17.0.1".into())
        );
        host.minidock(&["restart", "-t", "0", "box"]).ok();
        let after = (exec(&host, ADDRESSES), exec(&host, WAY));
        assert_eq!(
            after,
            ("eth0 172.17.0.3\neth1 10.6.0.9".into(), "172.17.0.1".into()),
            "a restart keeps the networks"
        );
        host.remove(&["box", "other"]);
        host.minidock(&["network", "rm", "wan"]).ok();
        host.finish();
    }
}

#[test]
fn published_ports_go_on_in_the_next_network() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        networks(&host);
        let serve = ["busybox", "httpd", "-f", "-h", "/www"];
        host.detached(&[&["--name", "box", "--network", "lan", "-p", "10080:80"], &serve[..]].concat());
        wait_listening(&host.inside("box"), 80);
        host.minidock(&["network", "connect", "wan", "box"]).ok();
        assert_eq!(fetch(&host.outside, &format!("{HOST}:10080"), "/index.html"), images::PAGE);
        host.minidock(&["network", "disconnect", "lan", "box"]).ok();
        assert_eq!(fetch(&host.outside, &format!("{HOST}:10080"), "/index.html"), images::PAGE, "by the other network");
        host.minidock(&["network", "disconnect", "wan", "box"]).ok();
        assert!(unreachable(&host.outside, &format!("{HOST}:10080")));
        assert_eq!(exec(&host, "ip -4 -o addr show | grep -vc ' lo '|| true"), "0", "in no network at all");
        host.remove(&["box"]);
        host.minidock(&["network", "rm", "lan", "wan"]).ok();
        host.finish();
    }
}

#[test]
fn a_container_that_does_not_run_gets_its_networks_at_the_next_start() {
    let host = TestHost::new();
    networks(&host);
    host.minidock(&["create", "--name", "box", "--network", "lan", "busybox", "sh", "-c", ADDRESSES]).ok();
    host.minidock(&["network", "connect", "--ip", "10.6.0.7", "wan", "box"]).ok();
    assert_eq!(host.minidock(&["start", "-a", "box"]).ok().out(), "eth0 10.5.0.2\neth1 10.6.0.7");
    host.minidock(&["network", "disconnect", "lan", "box"]).ok();
    assert_eq!(host.minidock(&["start", "-a", "box"]).ok().out(), "eth0 10.6.0.7");
    let refused = host.minidock(&["network", "connect", "--ip", "10.9.0.1", "lan", "box"]).exits(1);
    refused.says(&["no configured subnet or ip-range contain"]);
    host.minidock(&["network", "disconnect", "wan", "box"]).ok();
    assert_eq!(host.minidock(&["start", "-a", "box"]).ok().out(), "", "in no network");
    host.minidock(&["network", "connect", "bridge", "box"]).ok();
    assert_eq!(host.minidock(&["start", "-a", "box"]).ok().out(), "eth0 172.17.0.2");
    host.minidock(&["rm", "box"]).ok();
    host.minidock(&["network", "rm", "lan", "wan"]).ok();
    host.finish();
}

#[test]
fn what_can_not_be_connected_says_why() {
    let host = TestHost::new();
    networks(&host);
    host.detached(&["--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "hosted", "--network", "host", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "lanned", "--network", "lan", "--ip", "10.5.0.9", "busybox", "sleep", "1000"]);
    let connect = |words: &[&str], why: &[&str]| {
        host.minidock(&[&["network", "connect"], words].concat()).exits(1).says(why);
    };
    connect(&["lan", "box"], &["private (none) mode"]);
    connect(&["lan", "hosted"], &["cannot be connected to any other network"]);
    connect(&["host", "lanned"], &["cannot connect container to host network"]);
    connect(&["lam", "lanned"], &["network lam not found", "did you mean lan?"]);
    connect(&["wan", "lammed"], &["No such container: lammed"]);
    host.minidock(&["network", "connect", "--ip", "10.5.0.9", "lan", "lanned"]).exits(1);
    host.minidock(&["network", "connect", "--alias", "a", "bridge", "lanned"])
        .exits(125)
        .says(&["user-defined networks"]);
    host.detached(&["--name", "second", "--network", "wan", "busybox", "sleep", "1000"]);
    connect(&["--ip", "10.5.0.9", "lan", "second"], &["Address already in use", "container lanned has it"]);
    host.minidock(&["network", "disconnect", "host", "hosted"])
        .exits(1)
        .says(&["cannot disconnect container from host network"]);
    host.remove(&["box", "hosted", "lanned", "second"]);
    host.minidock(&["network", "rm", "lan", "wan"]).ok();
    host.finish();
}

/// Its address may be another container's by then.
#[test]
fn a_repair_does_not_bring_back_the_ports_of_a_disconnected_network() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        networks(&host);
        host.minidock(&["network", "create", "--internal", "inn"]).ok();
        let serve = ["busybox", "httpd", "-f", "-h", "/www"];
        host.detached(&[&["--name", "box", "--network", "lan", "-p", "10080:80"], &serve[..]].concat());
        let rules = || host.sh("nft list ruleset").ok().out();
        assert!(rules().contains("10080"));
        host.minidock(&["network", "connect", "inn", "box"]).ok();
        host.minidock(&["network", "disconnect", "lan", "box"]).ok();
        assert!(!rules().contains("10080"), "the disconnection takes it away: {}", rules());
        host.minidock(&["network", "repair"]).ok();
        assert!(!rules().contains("10080"), "{}", rules());
        host.sh("truncate -s 3G \"$(ls -d \"$MINIDOCK_ROOT\"/containers/*/hosts)\"").ok();
        host.minidock(&["network", "connect", "wan", "box"]).ok();
        host.remove(&["box"]);
        host.minidock(&["network", "rm", "lan", "wan", "inn"]).ok();
        host.finish();
    }
}
