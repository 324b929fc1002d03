//! Who reaches whom: networks apart, internal and routed ones, both IP versions, and containers that pose as others.

// A failed step is the end of a test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod host;

use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};

use host::*;
use netsetup::{Backend, GatewayMode, Network, Subnet};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};

/// The host's and the outside's IPv6 addresses on the wire.
const HOST6: &str = "fd00:99::1";
const OUTSIDE6: &str = "fd00:99::2";

/// Runs the test for each back end, with frames in bridges shown to the firewall and not.
fn on_both(test: fn(&mut TestHost)) {
    let run = |(backend, bridge_netfilter): (Backend, bool)| {
        std::thread::spawn(move || {
            let mut host = TestHost::new(backend);
            let shown = u8::from(bridge_netfilter);
            sh(&format!(
                "cd /proc/sys/net/bridge; echo {shown} > bridge-nf-call-iptables; echo {shown} > bridge-nf-call-ip6tables"
            ));
            sh("ip -6 addr add fd00:99::1/64 dev eth1 nodad");
            host.outside.sh("ip -6 addr add fd00:99::2/64 dev eth0 nodad");
            host.network.ipv6 = Some(subnet("fd00:a::1", 64));
            test(&mut host);
        })
    };
    let cases =
        [(Backend::Nftables, false), (Backend::Iptables, false), (Backend::Nftables, true), (Backend::Iptables, true)];
    let threads = cases.map(|case| (case, run(case)));
    let failed: Vec<_> = threads.into_iter().filter_map(|(one, thread)| thread.join().err().map(|_| one)).collect();
    assert!(failed.is_empty(), "failed with {failed:?}");
}

fn subnet(gateway: &str, prefix_len: u8) -> Subnet {
    Subnet::new(ip(gateway), prefix_len)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A second network: 10.7.0.0/24 and fd00:b::/64.
fn second(host: &TestHost) -> Network {
    Network {
        bridge: "br-b".into(),
        ipv4: Some(subnet("10.7.0.1", 24)),
        ipv6: Some(subnet("fd00:b::1", 64)),
        ..host.network.clone()
    }
}

/// The container's addresses of both versions.
fn addresses(host: &TestHost, number: u8) -> Vec<IpAddr> {
    let endpoint_of = |subnet: &Subnet| match subnet.gateway {
        IpAddr::V4(gateway) => IpAddr::from((gateway.to_bits() & !0xff | u32::from(number)).to_be_bytes()),
        IpAddr::V6(gateway) => IpAddr::from((gateway.to_bits() & !0xff | u128::from(number)).to_be_bytes()),
    };
    host.network.subnets().map(endpoint_of).collect()
}

fn reaches(machine: &Machine, to: IpAddr, port: u16) -> bool {
    machine.within(|| ask_tcp(to, port, COMES)).is_ok()
}

fn never_reaches(machine: &Machine, to: IpAddr, port: u16) -> bool {
    machine.within(|| ask_tcp(to, port, NEVER)).is_err()
}

#[test]
fn containers_of_other_networks_are_out_of_reach_but_for_published_ports() {
    on_both(|host| {
        let web = host.container(2, &[tcp("0.0.0.0", 10080, 80), tcp("::", 10080, 80)]);
        let of_web = addresses(host, 2);
        let neighbour = host.container(4, &[]);
        let first = host.network.clone();
        host.network = second(host);
        let other = host.container(3, &[]);
        web.machine.within(|| serve_tcp(80));
        serve_tcp(9999); // the host's own, on every address
        for address in &of_web {
            assert!(reaches(&neighbour.machine, *address, 80), "{address} within the network");
            assert!(never_reaches(&other.machine, *address, 80), "{address} from another network");
        }
        for (own, others) in host.network.subnets().zip(first.subnets()) {
            assert!(reaches(&other.machine, own.gateway, 9999), "the own gateway {}", own.gateway);
            assert!(never_reaches(&other.machine, others.gateway, 9999), "another's gateway {}", others.gateway);
            assert!(reaches(&other.machine, others.gateway, 10080), "a published port at {}", others.gateway);
        }
        for address in [HOST.into(), ip(HOST6)] {
            assert!(reaches(&other.machine, address, 10080), "a published port at {address}");
            assert!(reaches(&other.machine, address, 9999), "the host's own port at {address}");
        }
    });
}

#[test]
fn ipv6_is_as_ipv4() {
    on_both(|host| {
        let web = host.container(2, &[tcp("0.0.0.0", 10080, 80), tcp("::", 10080, 80), udp("::", 10053, 53)]);
        let of_web = addresses(host, 2)[1];
        web.machine.within(|| {
            serve_tcp(80);
            serve_tcp(81);
            serve_udp(53);
        });
        host.outside.within(|| serve_tcp(8000));
        // The outside sees this host, the container sees the outside.
        assert_eq!(web.machine.within(|| ask_tcp(ip(OUTSIDE6), 8000, COMES)).unwrap(), HOST6);
        assert_eq!(host.outside.within(|| ask_tcp(ip(HOST6), 10080, COMES)).unwrap(), OUTSIDE6);
        assert_eq!(host.outside.within(|| ask_udp(ip(HOST6), 10053, COMES)).unwrap(), OUTSIDE6);
        assert_eq!(ask_tcp(ip(HOST6), 10080, COMES).unwrap(), HOST6);
        assert_eq!(web.machine.within(|| ask_tcp(ip(HOST6), 10080, COMES)).unwrap(), "fd00:a::1", "hairpin");
        // A forged route.
        host.outside.sh(&format!("ip -6 route add fd00:a::/64 via {HOST6}"));
        assert!(ask_tcp(of_web, 81, COMES).is_ok());
        assert!(never_reaches(&host.outside, of_web, 81) && never_reaches(&host.outside, of_web, 80));
        // And alone.
        host.network = Network { ipv4: None, ..second(host) };
        let alone = host.container(5, &[tcp("::", 10085, 80)]);
        alone.machine.within(|| serve_tcp(80));
        assert_eq!(host.outside.within(|| ask_tcp(ip(HOST6), 10085, COMES)).unwrap(), OUTSIDE6);
        assert_eq!(alone.machine.within(|| ask_tcp(ip(OUTSIDE6), 8000, COMES)).unwrap(), HOST6);
        host.remove(alone);
        host.remove(web);
        assert!(never_reaches(&host.outside, ip(HOST6), 10080));
    });
}

#[test]
fn forwarding_leaves_the_host_its_advertised_default_route() {
    on_both(|host| {
        sh("echo 1 > /proc/sys/net/ipv6/conf/eth1/accept_ra; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding");
        let advertised = || sh("ip -6 route show default proto ra").contains("eth1");
        wait_for("the router's advertisement", || {
            advertise(&host.outside);
            advertised()
        });
        host.up();
        assert_eq!(sh("cat /proc/sys/net/ipv6/conf/all/forwarding").trim(), "1");
        assert!(advertised(), "the default route is gone");
        host.down();
        assert_eq!(sh("cat /proc/sys/net/ipv6/conf/eth1/accept_ra /proc/sys/net/ipv6/conf/all/forwarding"), "1\n0\n");
    });
}

#[test]
fn an_internal_network_has_no_way_out_and_none_in() {
    on_both(|host| {
        let web = host.container(6, &[tcp("0.0.0.0", 10080, 80), tcp("::", 10080, 80)]);
        web.machine.within(|| serve_tcp(80));
        host.network = Network { internal: true, ..second(host) };
        let one = host.container(2, &[]);
        let two = host.container(3, &[]);
        let of_one = addresses(host, 2);
        one.machine.within(|| serve_tcp(80));
        serve_tcp(9999);
        host.outside.within(|| serve_tcp(8000));
        host.outside.sh(&format!("ip route add 10.7.0.0/24 via {HOST}; ip -6 route add fd00:b::/64 via {HOST6}"));
        for ((address, outside), on_host) in
            of_one.iter().zip([OUTSIDE.into(), ip(OUTSIDE6)]).zip([HOST.into(), ip(HOST6)])
        {
            assert!(reaches(&two.machine, *address, 80), "{address} within the network");
            assert!(ask_tcp(*address, 80, COMES).is_ok(), "{address} from the host");
            assert!(never_reaches(&host.outside, *address, 80), "{address} from outside");
            assert!(never_reaches(&two.machine, outside, 8000), "the outside {outside}");
            assert!(never_reaches(&two.machine, on_host, 9999), "the host's other address {on_host}");
            assert!(never_reaches(&two.machine, on_host, 10080), "another network's published port at {on_host}");
        }
        for subnet in host.network.clone().subnets() {
            assert!(reaches(&two.machine, subnet.gateway, 9999), "the gateway {}", subnet.gateway);
        }
    });
}

#[test]
fn without_icc_containers_dont_reach_each_other() {
    on_both(|host| {
        host.network.icc = false;
        let one = host.container(2, &[tcp("0.0.0.0", 10080, 80), tcp("::", 10080, 80)]);
        let two = host.container(3, &[]);
        one.machine.within(|| {
            serve_tcp(80);
            serve_tcp(81);
        });
        host.outside.within(|| serve_tcp(8000));
        for address in addresses(host, 2) {
            assert!(ask_tcp(address, 81, COMES).is_ok());
            assert!(never_reaches(&two.machine, address, 81), "{address}");
        }
        // Nor by the host as a router.
        two.machine.sh("ip route add 172.17.0.2/32 via 172.17.0.1; ip -6 route add fd00:a::2/128 via fd00:a::1");
        for address in addresses(host, 2) {
            assert!(never_reaches(&two.machine, address, 81), "{address} by way of the gateway");
        }
        assert!(reaches(&two.machine, OUTSIDE.into(), 8000) && reaches(&two.machine, ip(OUTSIDE6), 8000));
        assert!(reaches(&two.machine, HOST.into(), 10080) && reaches(&two.machine, ip(HOST6), 10080), "published");
    });
}

#[test]
fn a_routed_network_keeps_its_addresses_and_opens_published_ports_alone() {
    on_both(|host| {
        host.network.gateway_mode_ipv4 = GatewayMode::Routed;
        host.network.gateway_mode_ipv6 = GatewayMode::Routed;
        let web = host.container(2, &[tcp("0.0.0.0", 10080, 80), tcp("::", 10080, 80)]);
        web.machine.within(|| {
            serve_tcp(80);
            serve_tcp(81);
        });
        host.outside.within(|| serve_tcp(8000));
        host.outside.sh(&format!("ip route add 172.17.0.0/16 via {HOST}; ip -6 route add fd00:a::/64 via {HOST6}"));
        for (address, outside) in addresses(host, 2).into_iter().zip([OUTSIDE.into(), ip(OUTSIDE6)]) {
            assert_eq!(web.machine.within(|| ask_tcp(outside, 8000, COMES)).unwrap(), address.to_string());
            assert_eq!(host.outside.within(|| ask_tcp(address, 80, COMES)).unwrap(), outside.to_string());
            assert!(never_reaches(&host.outside, address, 81), "{address}");
        }
        assert!(never_reaches(&host.outside, HOST.into(), 10080), "no port of the host is led on");
        host.outside.sh("ping -c 1 -W 5 172.17.0.2 && ping -c 1 -W 5 fd00:a::2");
        host.remove(web);
    });
}

#[test]
fn without_masquerade_containers_leave_with_their_own_address() {
    on_both(|host| {
        host.network.masquerade = false;
        let one = host.container(2, &[]);
        host.outside.within(|| serve_tcp(8000));
        host.outside.sh(&format!("ip route add 172.17.0.0/16 via {HOST}; ip -6 route add fd00:a::/64 via {HOST6}"));
        for (address, outside) in addresses(host, 2).into_iter().zip([OUTSIDE.into(), ip(OUTSIDE6)]) {
            assert_eq!(one.machine.within(|| ask_tcp(outside, 8000, COMES)).unwrap(), address.to_string());
        }
    });
}

#[test]
fn a_range_is_one_element_or_rule_and_leads_each_port() {
    on_both(|host| {
        let ports: Vec<_> = (8000..=8999).map(|port| tcp("0.0.0.0", port, port)).collect();
        let shifted: Vec<_> = (0..10).map(|number| tcp("::", 10080 + number, 80 + number)).collect();
        let web = host.container(2, &[ports, shifted].concat());
        let rules = sh("nft list ruleset");
        assert!(rules.contains("8000-8999"), "{rules}");
        assert!(!rules.contains("8001"), "{rules}");
        web.machine.within(|| {
            serve_tcp(8000);
            serve_tcp(8999);
            serve_tcp(85);
        });
        for (address, port) in [(HOST.into(), 8000), (HOST.into(), 8999), (ip(HOST6), 10085)] {
            assert!(host.outside.within(|| ask_tcp(address, port, COMES)).is_ok(), "{address} {port}");
        }
        let again = host.try_container(3, &[tcp("0.0.0.0", 8500, 80)]);
        assert!(host.network.backend == Backend::Nftables || again.is_err(), "iptables names the holder");
        host.remove(web);
        assert!(!sh("nft list ruleset").contains("8000-8999"));
    });
}

/// A container sends with another's address, or another's MAC: with the guard nothing of it arrives, and without the
/// guard everything does (which shows that the test can fail).
#[test]
fn a_container_cannot_pose_as_another() {
    on_both(|host| {
        serve_tcp(9999);
        let poses = [
            ("the own address", "true", true),
            ("another IPv4 address", "ip addr flush dev eth0 scope global; ip addr add 172.17.0.77/16 dev eth0", false),
            (
                "another IPv6 address",
                "ip -6 addr flush dev eth0 scope global; ip -6 addr add fd00:a::77/64 dev eth0 nodad",
                false,
            ),
            ("another MAC", "ip link set eth0 address 02:42:ac:11:00:77", false),
        ];
        for may_spoof in [false, true] {
            host.may_spoof = may_spoof;
            for (what, pose, always) in poses {
                let one = host.container(2, &[]);
                one.machine.sh(pose);
                let gateways: Vec<IpAddr> = host.network.subnets().map(|subnet| subnet.gateway).collect();
                let v6 = what.contains("IPv6");
                let to = gateways[usize::from(v6)];
                let patience = if always || may_spoof { COMES } else { NEVER };
                let arrived = one.machine.within(|| ask_tcp(to, 9999, patience)).is_ok();
                assert_eq!(arrived, always || may_spoof, "{what}, may_spoof={may_spoof}");
                if !arrived {
                    let neighbours = sh("ip neigh show dev docker0");
                    assert!(!neighbours.contains(".77 lladdr") && !neighbours.contains("::77 lladdr"), "{neighbours}");
                }
                host.remove(one);
                sh("ip neigh flush dev docker0");
            }
        }
    });
}

#[test]
fn a_container_s_router_advertisement_changes_nothing() {
    on_both(|host| {
        let victim = host.container(3, &[]);
        victim.machine.sh("echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra");
        for may_spoof in [false, true] {
            host.may_spoof = may_spoof;
            let one = host.container(2, &[]);
            let advertised = || victim.machine.sh("ip -6 route show default proto ra").contains("eth0");
            if may_spoof {
                wait_for("an advertisement that nobody stops", || {
                    advertise(&one.machine);
                    advertised()
                });
            } else {
                for _ in 0..20 {
                    advertise(&one.machine);
                }
                std::thread::sleep(std::time::Duration::from_millis(NEVER));
                assert!(!advertised(), "the neighbour believes it");
            }
            assert!(!sh("ip -6 route show default").contains("docker0"), "the host believes it");
            host.remove(one);
        }
    });
}

/// Sends a router advertisement to all on the link, as a router with a lifetime of half an hour (RFC 4861, 4.2).
fn advertise(from: &Machine) {
    let message = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    from.within(|| {
        let index = sh("ip -o link show eth0").split(':').next().map(str::to_owned).unwrap();
        let socket = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
        sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
        let all = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, index.trim().parse().unwrap());
        let _ = sendto(&socket, &message, SendFlags::empty(), &all); // no address yet: next time
    });
    std::thread::sleep(std::time::Duration::from_millis(20));
}
