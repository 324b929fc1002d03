//! Where networks end: a bridge that is full, ports that nothing leads in, addresses that ports are published on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::TestHost;

#[test]
fn a_full_bridge_is_told_with_the_way_out() {
    let host = TestHost::new();
    host.minidock(&["run", "--rm", "busybox", "true"]).ok();
    host::wait_until("the bridge is empty", || host.sh("ip link show master docker0").ok().out().is_empty());
    // One short of BR_MAX_PORTS.
    host.sh("seq 1022 | sed 's/.*/link add f& type veth peer name g&\\nlink set f& master docker0/' | ip -batch -")
        .ok();
    host.minidock(&["run", "-d", "--name", "last", "busybox", "sleep", "1000"]).ok();
    host.minidock(&["run", "--rm", "busybox", "true"])
        .exits(125)
        .says(&["the bridge docker0 is full: it has 1023 links", "minidock network create"]);
    host.minidock(&["network", "create", "lan"]).ok();
    host.minidock(&["run", "--rm", "--network", "lan", "busybox", "true"]).ok();
    host.minidock(&["network", "rm", "lan"]).ok();
    host.remove(&["last"]);
    host.discard();
}

#[test]
fn ports_of_a_network_without_a_way_in_are_told_of() {
    let host = TestHost::new();
    host.minidock(&[
        "network",
        "create",
        "--subnet",
        "10.7.0.0/24",
        "-o",
        "com.docker.network.bridge.inhibit_ipv4=true",
        "lan",
    ])
    .ok();
    let run = host.minidock(&["run", "--rm", "-p", "10080:80", "--network", "lan", "busybox", "true"]).ok();
    assert!(run.err().contains("Published ports lead nowhere"), "{}", run.err());
    host.minidock(&["network", "rm", "lan"]).ok();
    host.finish();
}

#[test]
fn an_address_written_out_is_not_the_networks_default() {
    let host = TestHost::new();
    host.minidock(&["network", "create", "-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1", "lan"]).ok();
    host.detached(&[
        "--name",
        "web",
        "--network",
        "lan",
        "-p",
        "10080:80",
        "-p",
        "0.0.0.0:10081:81",
        "busybox",
        "sleep",
        "1000",
    ]);
    let ports = host.minidock(&["port", "web"]).ok().out();
    assert_eq!(ports, "80/tcp -> 127.0.0.1:10080\n81/tcp -> 0.0.0.0:10081");
    host.remove(&["web"]);
    host.minidock(&["network", "rm", "lan"]).ok();
    host.finish();
}
