//! Real packets through real kernels: both firewall back ends, with and without br_netfilter.

// A failed step is the end of a test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod host;

use std::net::{Ipv4Addr, UdpSocket};

use host::*;
use netsetup::{Backend, Error};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Runs the test for each back end, with frames in bridges shown to the firewall and not, each on a host of its own.
fn everywhere(test: fn(&mut TestHost)) {
    let one = |backend: Backend, bridge_netfilter: bool| {
        std::thread::Builder::new()
            .name(format!("{backend} br_netfilter={bridge_netfilter}"))
            .spawn(move || {
                let mut host = TestHost::new(backend);
                sh(&format!("echo {} > /proc/sys/net/bridge/bridge-nf-call-iptables", u8::from(bridge_netfilter)));
                test(&mut host);
            })
            .unwrap()
    };
    let cases =
        [(Backend::Nftables, false), (Backend::Nftables, true), (Backend::Iptables, false), (Backend::Iptables, true)];
    let threads: Vec<_> = cases.into_iter().map(|(backend, filter)| (backend, filter, one(backend, filter))).collect();
    let failed: Vec<_> = threads
        .into_iter()
        .filter_map(|(backend, filter, thread)| thread.join().err().map(|_| (backend, filter)))
        .collect();
    assert!(failed.is_empty(), "failed with (back end, br_netfilter) {failed:?}");
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    everywhere(|host| {
        let web = host.container(2, &[tcp("0.0.0.0", 10080, 80), udp("0.0.0.0", 10053, 53)]);
        let client = host.container(3, &[]);
        web.machine.within(|| {
            serve_tcp(80);
            serve_udp(53);
        });
        let check = |from: &str, to: Ipv4Addr, seen: Ipv4Addr| {
            assert_eq!(ask_tcp(to, 10080, COMES).unwrap(), seen.to_string(), "tcp from {from} to {to}");
            assert_eq!(ask_udp(to, 10053, COMES).unwrap(), seen.to_string(), "udp from {from} to {to}");
        };
        host.outside.within(|| check("outside", HOST, OUTSIDE));
        check("localhost", LOCALHOST, GATEWAY);
        check("localhost", Ipv4Addr::new(127, 1, 2, 3), GATEWAY);
        check("the host", HOST, HOST);
        check("the host", GATEWAY, GATEWAY);
        for (from, machine) in [("another container", &client.machine), ("itself", &web.machine)] {
            machine.within(|| {
                check(from, HOST, GATEWAY);
                check(from, GATEWAY, GATEWAY);
            });
        }
        client.machine.within(|| assert_eq!(ask_tcp(web.address, 80, COMES).unwrap(), "172.17.0.3", "without NAT"));
    });
}

#[test]
fn a_container_goes_out_with_the_hosts_address() {
    everywhere(|host| {
        let client = host.container(2, &[]);
        host.outside.within(|| {
            serve_tcp(80);
            serve_udp(53);
        });
        client.machine.within(|| {
            assert_eq!(ask_tcp(OUTSIDE, 80, COMES).unwrap(), HOST.to_string());
            assert_eq!(ask_udp(OUTSIDE, 53, COMES).unwrap(), HOST.to_string());
        });
    });
}

#[test]
fn a_port_published_on_one_address_is_there_alone() {
    everywhere(|host| {
        let web = host.container(2, &[tcp("127.0.0.1", 10080, 80), tcp("10.99.0.1", 10081, 80)]);
        web.machine.within(|| serve_tcp(80));
        assert_eq!(ask_tcp(LOCALHOST, 10080, COMES).unwrap(), GATEWAY.to_string());
        assert!(ask_tcp(HOST, 10080, NEVER).is_err());
        assert!(ask_tcp(LOCALHOST, 10081, NEVER).is_err());
        host.outside.within(|| {
            assert!(ask_tcp(HOST, 10080, NEVER).is_err());
            assert_eq!(ask_tcp(HOST, 10081, COMES).unwrap(), OUTSIDE.to_string());
        });
    });
}

#[test]
fn localhost_is_closed_to_others_even_with_route_localnet() {
    everywhere(|host| {
        let web = host.container(2, &[tcp("127.0.0.1", 10080, 80), tcp("0.0.0.0", 10081, 80)]);
        let attacker = host.container(3, &[]);
        web.machine.within(|| serve_tcp(80));
        serve_tcp(9000); // a server of the host's own, on every address including localhost
        sh(
            "for f in all eth1; do echo 1 > /proc/sys/net/ipv4/conf/$f/route_localnet; echo 0 > /proc/sys/net/ipv4/conf/$f/rp_filter; done",
        );
        let attack = |via: Ipv4Addr, link: &str| {
            sh(&format!(
                "ip route del local 127.0.0.0/8 dev lo table local 2>/dev/null; ip route del local 127.0.0.1 dev lo table local 2>/dev/null
                 ip addr flush dev lo; ip route add 127.0.0.0/8 via {via} dev {link}
                 echo 1 > /proc/sys/net/ipv4/conf/{link}/route_localnet"
            ));
            for port in [10080, 10081, 9000] {
                assert!(ask_tcp(LOCALHOST, port, NEVER).is_err(), "127.0.0.1:{port} reached over {link}");
            }
        };
        // The attack works where nothing guards: else this test could not fail.
        let probe = |open: bool| host.outside.within(|| ask_tcp(HOST, 9000, if open { COMES } else { NEVER }));
        assert!(probe(true).is_ok());
        host.outside.within(|| attack(HOST, "eth0"));
        attacker.machine.within(|| attack(GATEWAY, "eth0"));
        match host.network.backend {
            Backend::Nftables => sh("nft flush chain ip minidock guard; nft flush chain ip minidock prerouting"),
            Backend::Iptables => sh("iptables -t raw -F; iptables -t nat -F PREROUTING"),
        };
        let reached = host.outside.within(|| ask_tcp(LOCALHOST, 9000, COMES));
        assert!(reached.is_ok(), "the attack of this test doesn't work: {reached:?}");
    });
}

#[test]
fn a_forged_route_reaches_no_unpublished_port() {
    everywhere(|host| {
        let web = host.container(2, &[tcp("0.0.0.0", 10080, 80)]);
        web.machine.within(|| {
            serve_tcp(80);
            serve_tcp(81);
            serve_udp(53);
        });
        host.outside.sh(&format!("ip route add 172.17.0.0/16 via {HOST}"));
        host.outside.within(|| {
            for port in [80, 81] {
                assert!(ask_tcp(web.address, port, NEVER).is_err(), "port {port}");
            }
            assert!(ask_udp(web.address, 53, NEVER).is_err());
            assert_eq!(ask_tcp(HOST, 10080, COMES).unwrap(), OUTSIDE.to_string());
        });
        // The host itself may go anywhere.
        assert_eq!(ask_tcp(web.address, 81, COMES).unwrap(), GATEWAY.to_string());
        match host.network.backend {
            Backend::Nftables => sh("nft flush chain ip minidock forward"),
            Backend::Iptables => sh("iptables -F MINIDOCK-FORWARD"),
        };
        host.outside
            .within(|| assert!(ask_tcp(web.address, 81, COMES).is_ok(), "the attack of this test doesn't work"));
    });
}

#[test]
fn traffic_that_only_passes_the_host_is_left_alone() {
    everywhere(|host| {
        // A second machine beyond the host has a server on the published port's number.
        let beyond = Machine::new();
        sh(&format!(
            "ip link add eth2 type veth peer name eth0 netns {}; ip addr add 10.98.0.1/24 dev eth2; ip link set eth2 up",
            beyond.pid()
        ));
        beyond.sh("ip addr add 10.98.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.98.0.1");
        beyond.within(|| serve_tcp(10080));
        let web = host.container(2, &[tcp("0.0.0.0", 10080, 80)]);
        web.machine.within(|| serve_tcp(80));
        host.outside.sh(&format!("ip route add 10.98.0.0/24 via {HOST}"));
        host.outside
            .within(|| assert_eq!(ask_tcp(Ipv4Addr::new(10, 98, 0, 2), 10080, COMES).unwrap(), OUTSIDE.to_string()));
        // From a container, too: masqueraded, not redirected.
        web.machine.within(|| assert_eq!(ask_tcp(Ipv4Addr::new(10, 98, 0, 2), 10080, COMES).unwrap(), "10.98.0.1"));
    });
}

#[test]
fn a_udp_flow_from_before_finds_the_new_container() {
    everywhere(|host| {
        host.up();
        let socket = host.outside.within(|| UdpSocket::bind((OUTSIDE, 0)).unwrap());
        assert!(ask_udp_on(&socket, HOST, 10053, NEVER).is_err(), "nobody is there yet");
        for number in [2, 3] {
            // Each is removed with the client still sending from the same port.
            let container = host.container(number, &[udp("0.0.0.0", 10053, 53)]);
            container.machine.within(|| serve_udp(53));
            assert_eq!(ask_udp_on(&socket, HOST, 10053, COMES).unwrap(), OUTSIDE.to_string(), "container {number}");
            host.remove(container);
        }
        let flows = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap_or_default();
        assert!(!flows.contains("dport=10053"), "{flows}");
    });
}

#[test]
fn a_port_is_given_once() {
    everywhere(|host| {
        let first = host.container(2, &[tcp("0.0.0.0", 10080, 80)]);
        first.machine.within(|| serve_tcp(80));
        let refused = host.try_container(3, &[udp("0.0.0.0", 10080, 80), tcp("0.0.0.0", 10080, 80)]);
        let Err(Error::PortTaken { mapping, holder }) = refused.map(|container| container.ops) else {
            panic!("not refused")
        };
        assert_eq!((mapping.host_port, mapping.protocol.name()), (10080, "tcp"));
        assert!(holder.contains("minidock ports") || holder.contains("--to-destination 172.17.0.2:80"), "{holder}");
        host.outside.within(|| {
            assert_eq!(ask_tcp(HOST, 10080, COMES).unwrap(), OUTSIDE.to_string(), "the first one still serves")
        });
        let second = host.container(3, &[udp("0.0.0.0", 10080, 80), tcp("0.0.0.0", 10081, 80)]);
        drop(second);
    });
}

#[test]
fn a_hundred_ports_are_published_at_once() {
    everywhere(|host| {
        let ports: Vec<_> = (0..100).map(|number| tcp("0.0.0.0", 20000 + number, 80)).collect();
        let web = host.container(2, &ports);
        web.machine.within(|| serve_tcp(80));
        host.outside.within(|| {
            for port in [20000, 20050, 20099] {
                assert_eq!(ask_tcp(HOST, port, COMES).unwrap(), OUTSIDE.to_string());
            }
        });
        host.remove(web);
        host.outside.within(|| assert!(ask_tcp(HOST, 20050, NEVER).is_err()));
    });
}
