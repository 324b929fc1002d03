//! Kernel state: explain = apply, undo leaves nothing, what is there is respected, what is damaged is mended.

// A failed step is the end of a test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod host;

use std::process::Command;

use host::*;
use netsetup::firewall::nftables::TableState;
use netsetup::{
    Backend, Error, Facts, Host, Links, Live, Op, Undone, apply, bridge_addresses_in_use, egress_mtu, firewall,
    plan_endpoint, plan_network, undo, undo_with,
};
use netsetup::{Residue, Subnet};
use serde_json::Value;

/// Runs on a host of its own.
fn on_a_host<T: Send + 'static>(backend: Backend, test: impl FnOnce(&mut TestHost) -> T + Send + 'static) -> T {
    std::thread::spawn(move || test(&mut TestHost::new(backend))).join().unwrap()
}

const BOTH: [Backend; 2] = [Backend::Nftables, Backend::Iptables];

/// Links, addresses, routes, rules and settings, without what can't be the same twice (indexes, random MACs, timers).
fn snapshot(container: Option<&Machine>) -> String {
    let settings = "cd /proc/sys/net/ipv4; grep . ip_forward conf/*/route_localnet conf/*/forwarding; ls -1 /run/netns 2>/dev/null || true";
    let mut text = network_state();
    text += &nftables_state();
    text += &sh("iptables-save | sed 's/\\[[0-9:]*\\]//; /^#/d'");
    text += &sh(settings);
    text + &container.map(|machine| machine.within(network_state)).unwrap_or_default()
}

fn network_state() -> String {
    let settled = || !sh("ip -o link show type veth; ip -o link show type bridge").contains("LOWERLAYERDOWN");
    wait_for("links to settle", settled);
    let mut text = String::new();
    for command in ["ip -j -d link", "ip -j addr", "ip -j route", "ip -j route show table local"] {
        let mut value: Value = serde_json::from_str(&sh(command)).unwrap();
        clean(&mut value);
        text += &format!("{command}\n{}\n", serde_json::to_string_pretty(&value).unwrap());
    }
    text
}

fn clean(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let veth_outside = map
                .get("ifname")
                .and_then(Value::as_str)
                .is_some_and(|name| name.starts_with("veth") || name == "eth1");
            map.retain(|key, _| {
                let random = [
                    "ifindex",
                    "link_index",
                    "bridge_id",
                    "root_id",
                    "designated_bridge",
                    "designated_root",
                    "id",
                    "port_id",
                    "no",
                    "operstate",
                    "qdisc",
                    "tso_max_size",
                    "tso_max_segs",
                ];
                // The state follows the carrier; flags say whether the link is switched on.
                let random = random.contains(&key.as_str()) || key.ends_with("timer");
                !(random || veth_outside && key == "address")
            });
            if let Some(addresses) = map.get_mut("addr_info").and_then(Value::as_array_mut) {
                addresses.retain(|one| one["family"] == "inet"); // IPv6 link-local addresses come from the random MACs
            }
            if let Some(flags) = map.get_mut("flags").and_then(Value::as_array_mut) {
                flags.retain(|flag| !["LOWER_UP", "NO-CARRIER", "linkdown"].iter().any(|carrier| flag == carrier));
            }
            map.values_mut().for_each(clean);
        }
        Value::Array(list) => list.iter_mut().for_each(clean),
        _ => {}
    }
}

fn nftables_state() -> String {
    let mut value: Value = serde_json::from_str(&sh("nft -j list ruleset")).unwrap();
    fn strip(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("handle");
                if let Some(elements) = map.get_mut("elem").and_then(Value::as_array_mut) {
                    elements.sort_by_key(|element| element.to_string());
                }
                map.values_mut().for_each(strip);
            }
            Value::Array(list) => list.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut value);
    serde_json::to_string_pretty(&value).unwrap() + &sh("nft list ruleset | grep -v '^$' | grep -v elements | sort")
}

fn assert_same(what: &str, one: &str, other: &str) {
    if one != other {
        let differs = one.lines().zip(other.lines()).take_while(|(a, b)| a == b).count();
        let around = |text: &str| text.lines().skip(differs.saturating_sub(12)).take(24).collect::<Vec<_>>().join("\n");
        panic!("{what}: different at line {differs}:\nFIRST\n{}\nSECOND\n{}", around(one), around(other));
    }
}

/// A container with one port of each kind, and the network below it.
fn ports() -> Vec<netsetup::PortMapping> {
    vec![tcp("0.0.0.0", 10080, 80), udp("0.0.0.0", 10053, 53), tcp("127.0.0.1", 8080, 80), tcp("10.99.0.1", 8081, 81)]
}

#[test]
fn the_explained_commands_make_the_same_state() {
    for backend in BOTH {
        let applied = on_a_host(backend, |host| {
            let ops = host.up();
            let container = host.container(2, &ports());
            let script: Vec<String> =
                ops.iter().chain(&container.ops).flat_map(Op::explain).map(|(command, _)| command).collect();
            (script.join("\n"), snapshot(Some(&container.machine)))
        });
        let (script, state) = applied;
        assert!(state.contains("docker0") && state.contains("10080") && state.contains("\"hairpin\": true"), "{state}");
        let typed = on_a_host(backend, move |_| {
            let machine = Machine::new();
            sh(&format!("set -e\npid={}\n{script}", machine.pid()));
            snapshot(Some(&machine))
        });
        assert_same(&format!("{backend}: applied and typed"), &state, &typed);
    }
}

#[test]
fn undo_leaves_nothing() {
    for backend in BOTH {
        on_a_host(backend, move |host| {
            let before = snapshot(None);
            let container = host.container(2, &ports());
            let twice = container.journal.clone();
            assert!(snapshot(None) != before);
            assert!(sh("ip netns list").contains("c2"));
            for undone in host.remove(container) {
                assert!(undone == Undone::Removed || undone == Undone::NotThere, "{undone:?}");
            }
            for result in undo(&twice, &mut host.host) {
                assert_eq!(result.unwrap(), Undone::NotThere, "the second time");
            }
            let network = host.journal.clone();
            assert_eq!(host.down(), vec![Undone::Removed; network.len()]);
            // iptables keeps its empty built-in chains.
            sh(
                "for table in raw nat filter; do nft list table ip $table >/dev/null 2>&1 && nft delete table ip $table; done; true",
            );
            assert_same(&format!("{backend}: before and after"), &before, &snapshot(None));
            host.journal = network;
            for undone in host.down() {
                assert_eq!(undone, Undone::NotThere, "the second time");
            }
        });
    }
}

#[test]
fn every_prefix_of_a_container_is_undone() {
    for backend in BOTH {
        on_a_host(backend, move |host| {
            host.up();
            let before = snapshot(None);
            let endpoint = host.endpoint(2, &ports());
            let ops = plan_endpoint(&host.network, &endpoint);
            for count in 0..=ops.len() {
                let mut machine = Machine::new();
                let pid = machine.pid();
                // The journal is written first: it may name what was never made.
                let journal: Vec<_> = ops.iter().rev().filter_map(|op| op.residue(Some(pid))).collect();
                apply(
                    &ops[..count],
                    &mut Live { host: &mut host.host, netns: Some(&mut machine.netns), init_pid: Some(pid) },
                )
                .unwrap();
                drop(machine);
                for result in undo(&journal, &mut host.host) {
                    assert!(!matches!(result.unwrap(), Undone::NotOurs(_)));
                }
                assert_same(&format!("{backend} after {count} ops"), &before, &snapshot(None));
            }
        });
    }
}

#[test]
fn what_is_there_is_not_planned_again() {
    for backend in BOTH {
        on_a_host(backend, |host| {
            assert!(!host.up().is_empty());
            assert_eq!(host.up(), [], "the second time");
        });
    }
}

#[test]
fn a_flushed_ruleset_is_mended_and_ports_survive_a_flush_of_rules() {
    on_a_host(Backend::Nftables, |host| {
        let web = host.container(2, &ports());
        let whole = nftables_state();
        let table = |host: &mut TestHost| match host.facts().firewall {
            firewall::Facts::Nftables(facts, _) => (facts.tables[0].state, facts.tables[0].missing.is_empty()),
            other => panic!("{other:?}"),
        };
        for (damage, state) in [
            ("nft flush table ip minidock", TableState::Broken),
            ("nft flush chain ip minidock guard", TableState::Broken),
            (
                "nft flush chain ip minidock prerouting; nft flush chain ip minidock output; nft flush chain ip minidock publish; nft delete chain ip minidock publish",
                TableState::Broken,
            ),
            ("nft flush set ip minidock bridges", TableState::Whole),
        ] {
            sh(damage);
            assert_eq!(table(host).0, state, "{damage}");
            let network_is_there = table(host).1;
            assert_eq!(network_is_there, !damage.contains("flush set"), "{damage}");
            host.up();
            assert_eq!(table(host), (TableState::Whole, true), "{damage}");
        }
        // Only the order of the chains may differ by now.
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(|line| line.trim_end_matches(',')).collect();
            lines.sort();
            lines.join("\n")
        };
        assert_same("mended", &sorted(&whole), &sorted(&nftables_state()));
        sh("nft flush ruleset");
        assert_eq!(table(host), (TableState::Missing, false));
        host.up();
        assert_eq!(table(host), (TableState::Whole, true));
        for undone in host.remove(web) {
            assert!(!matches!(undone, Undone::NotOurs(_)), "{undone:?}");
        }
    });
}

#[test]
fn flushed_rules_of_iptables_are_mended() {
    on_a_host(Backend::Iptables, |host| {
        host.up();
        let whole = sh("iptables-save | sed 's/\\[[0-9:]*\\]//; /^#/d'");
        for damage in [
            "iptables -F MINIDOCK-FORWARD",
            "iptables -D MINIDOCK-FORWARD -o docker0 -j DROP",
            "iptables -t nat -F POSTROUTING; iptables -t nat -F PREROUTING; iptables -t nat -F OUTPUT",
            "iptables -t raw -F; iptables -t raw -X",
        ] {
            sh(damage);
            assert!(!host.up().is_empty(), "{damage}");
            assert_eq!(whole, sh("iptables-save | sed 's/\\[[0-9:]*\\]//; /^#/d'"), "{damage}");
        }
    });
}

#[test]
fn a_bridge_that_is_there_keeps_its_address_and_survives() {
    on_a_host(Backend::Nftables, |host| {
        sh("ip link add docker0 type bridge; ip addr add 10.200.0.1/24 dev docker0; ip link set docker0 mtu 1400");
        let before = snapshot(None);
        let facts = host.facts();
        host.network = facts.adopt(&host.network);
        let ops = plan_network(&host.network, &facts).unwrap();
        let script: Vec<String> = ops.iter().flat_map(Op::explain).map(|(command, _)| command).collect();
        assert!(script.iter().any(|command| command.contains("subnets '{ 10.200.0.0/24 }'")), "{script:?}");
        assert_eq!((host.network.ipv4.clone(), host.network.mtu), (Some(Subnet::new([10, 200, 0, 1], 24)), 1400));
        host.up();
        assert!(sh("ip addr show docker0").contains("10.200.0.1/24") && !sh("ip addr show docker0").contains("172.17"));
        host.down();
        // It was switched on, and stays so.
        sh("ip link set docker0 down");
        assert_same("before and after", &before, &snapshot(None));
    });
    on_a_host(Backend::Nftables, |host| {
        sh("ip link add docker0 type bridge; ip link set docker0 up");
        host.up();
        assert!(sh("ip addr show docker0").contains("172.17.0.1/16"), "a bridge without an address gets one");
        host.down();
        assert!(sh("ip link show docker0").contains("docker0") && !sh("ip addr show docker0").contains("172.17.0.1"));
    });
}

#[test]
fn a_name_or_subnet_that_is_taken_is_refused() {
    on_a_host(Backend::Nftables, |host| {
        let network = host.network.clone();
        sh("ip link add docker0 type veth peer name other");
        let network_facts = host.facts();
        assert_eq!(
            plan_network(&network, &network_facts).unwrap_err().to_string(),
            "cannot use docker0 as a bridge: it is there and is veth; rename or remove it"
        );
        sh("ip link del docker0; ip addr add 172.17.5.1/24 dev eth1");
        let facts = host.facts();
        assert_eq!(
            plan_network(&network, &facts).unwrap_err().to_string(),
            "cannot use the subnet 172.17.0.0/16 for docker0: eth1 has 172.17.5.1/24 in it; choose another subnet"
        );
    });
}

#[test]
fn undo_leaves_alone_what_is_not_ours() {
    on_a_host(Backend::Nftables, |host| {
        let container = host.container(2, &[tcp("0.0.0.0", 10080, 80)]);
        let judged = |residue: &&Residue| matches!(residue, Residue::NftElements { family, .. } if family == "bridge");
        let journal: Vec<_> = container.journal.iter().rev().filter(|residue| !judged(residue)).cloned().collect();
        drop(container.machine);
        wait_for("the link to vanish", || !sh("ip link").contains("veth020202"));
        // Another's things under the same names.
        sh("ip link add veth020202 type veth peer name other; ip link set veth020202 alias stranger
            ln -sfn /proc/1/ns/net /run/netns/c2
            nft delete element ip minidock ports '{ tcp . 10080 }'; nft add element ip minidock ports '{ tcp . 10080 : 172.17.0.9 . 80 }'
            echo 0 > /proc/sys/net/ipv4/ip_forward; ip link add foreign type veth peer name abroad; ip link set foreign master docker0");
        for result in undo(&journal, &mut host.host) {
            assert!(matches!(result, Ok(Undone::NotOurs(_))), "{result:?}");
        }
        assert!(sh("ip link").contains("veth020202") && sh("nft list ruleset").contains("172.17.0.9 . 80"));
        let undone = host.down();
        assert!(
            undone
                .iter()
                .any(|one| matches!(one, Undone::NotOurs(why) if why == "the bridge docker0 still has foreign")),
            "{undone:?}"
        );
        assert_eq!(sh("cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
    });
}

#[test]
fn the_table_stays_while_another_network_is_in_it() {
    for backend in BOTH {
        on_a_host(backend, |host| {
            host.up();
            let first = std::mem::take(&mut host.journal);
            let bridge = std::mem::replace(&mut host.network.bridge, "br-lab".into());
            host.network.ipv4 = Some(Subnet::new([10, 7, 0, 1], 16));
            host.up();
            let second = std::mem::replace(&mut host.journal, first);
            let undone = host.down();
            assert!(undone.iter().any(|one| matches!(one, Undone::NotOurs(_))), "{undone:?}");
            let rules = sh("nft list ruleset");
            assert!(rules.contains("br-lab") && !rules.contains(&bridge), "{rules}");
            host.journal = second;
            host.down();
            assert!(!sh("nft list ruleset").contains("br-lab"));
        });
    }
}

#[test]
fn the_namespace_is_visible_to_ip_netns() {
    on_a_host(Backend::Nftables, |host| {
        let container = host.container(2, &[]);
        assert!(sh("ip netns list").lines().any(|line| line.starts_with("c2")));
        assert!(sh("ip netns exec c2 ip addr").contains("172.17.0.2/16"));
        assert!(sh("ip netns exec c2 ip addr").contains("LOOPBACK,UP"));
        assert!(sh("ip netns exec c2 ip route").contains("default via 172.17.0.1 dev eth0"));
        assert!(sh("brctl show docker0").contains("veth020202"));
        assert!(sh("ip link show veth020202").contains("alias c2"));
        // The name is exclusive.
        let endpoint = netsetup::Endpoint { host_link: "vethother".into(), ..host.endpoint(2, &[]) };
        let mut machine = Machine::new();
        let pid = machine.pid();
        let ops = plan_endpoint(&host.network, &endpoint);
        let error =
            apply(&ops, &mut Live { host: &mut host.host, netns: Some(&mut machine.netns), init_pid: Some(pid) })
                .unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("cannot name the network namespace in /run/netns/c2: File exists (see "), "{error}");
        host.remove(container);
        assert!(!sh("ip netns list").contains("c2"));
    });
}

#[test]
fn a_link_with_no_namespace_left_vanishes_without_a_delete() {
    on_a_host(Backend::Nftables, |host| {
        let container = host.container(2, &[]);
        let journal: Vec<_> = container.journal.iter().rev().cloned().collect();
        drop(container.machine);
        undo_with(&journal, &mut host.host, Links::Leave).into_iter().for_each(|result| assert!(result.is_ok()));
        wait_for("the link to vanish", || !sh("ip link").contains("veth020202"));
        // One that somebody still holds is deleted after the wait.
        let container = host.container(3, &[]);
        let journal: Vec<_> = container.journal.iter().rev().cloned().collect();
        let results = undo_with(&journal, &mut host.host, Links::WaitMs(20));
        assert!(results.into_iter().all(|result| result.unwrap() == Undone::Removed));
        assert!(!sh("ip link").contains("veth030303"));
    });
}

#[test]
fn addresses_on_the_bridge_are_seen() {
    on_a_host(Backend::Nftables, |host| {
        host.up();
        assert!(bridge_addresses_in_use(&mut host.host, &host.network).unwrap().is_empty());
        let container = host.container(2, &[]);
        container.machine.within(|| serve_tcp(80));
        assert!(ask_tcp(container.address, 80, COMES).is_ok());
        sh(
            "ip neigh add 172.17.0.77 lladdr 02:42:ac:11:00:77 dev docker0 nud stale; ip neigh add 172.17.0.78 lladdr 02:42:ac:11:00:78 dev docker0",
        );
        let seen = bridge_addresses_in_use(&mut host.host, &host.network).unwrap();
        // .77 is an old entry, its port is gone; .78 is permanent.
        assert_eq!(seen, [[172, 17, 0, 2].into(), [172, 17, 0, 78].into()].into());
    });
}

#[test]
fn the_mtu_follows_the_default_route() {
    on_a_host(Backend::Nftables, |host| {
        assert_eq!(egress_mtu(&mut host.host), 1500, "without a route");
        sh("ip link set eth1 mtu 1380; ip route add default via 10.99.0.2");
        assert_eq!(egress_mtu(&mut host.host), 1380);
        host.network.mtu = host.facts().egress_mtu;
        let container = host.container(2, &[]);
        for link in ["docker0", "veth020202"] {
            assert!(sh(&format!("ip link show {link}")).contains("mtu 1380"));
        }
        assert!(container.machine.sh("ip link show eth0").contains("mtu 1380"));
    });
}

#[test]
fn errors_name_the_op_that_failed() {
    on_a_host(Backend::Nftables, |host| {
        let _first = host.container(2, &[]);
        // Same name of the link, then a gateway that can't be reached.
        let mut endpoint = netsetup::Endpoint { name: "c3".into(), ..host.endpoint(2, &[]) };
        let error = |endpoint: &netsetup::Endpoint, host: &mut TestHost| {
            let mut machine = Machine::new();
            let ops = plan_endpoint(&host.network, endpoint);
            let pid = Some(machine.pid());
            apply(&ops, &mut Live { host: &mut host.host, netns: Some(&mut machine.netns), init_pid: pid })
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error(&endpoint, host),
            "cannot create the link eth0 in the container with veth020202 in docker0: File exists"
        );
        endpoint.host_link = "vethother".into();
        endpoint.ipv4.as_mut().unwrap().gateway = Some([10, 1, 1, 1].into());
        let text = error(&endpoint, host);
        assert!(
            text.starts_with(
                "cannot route the container's traffic by 10.1.1.1: Network is unreachable (Nexthop has invalid gateway"
            ),
            "{text}"
        );
    });
}

#[test]
fn a_missing_iptables_names_its_package() {
    // The programs are hidden by an empty folder over each place where they are looked for.
    on_a_host(Backend::Iptables, |host| {
        let places = ["/usr/sbin", "/usr/local/sbin"];
        for path in places.into_iter().filter(|path| std::path::Path::new(path).exists()) {
            nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
        }
        let error = Facts::read(&mut host.host, &host.network).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot read the rules of iptables: iptables-save is not installed; install the package iptables, or use --firewall nftables"
        );
    });
}

#[test]
fn fifty_processes_lease_fifty_addresses() {
    // This test binary again, as fifty processes: each leases one address.
    const DIR: &str = "NETSETUP_TEST_LEASES";
    let subnet = Subnet::new(GATEWAY, 16);
    let network = netsetup::Network { ipv4: Some(subnet.clone()), ..netsetup::Network::new("bridge", "docker0") };
    if let Some(dir) = std::env::var_os(DIR) {
        let owner = std::process::id().to_string();
        netsetup::lease::take(dir.as_ref(), &owner, &network, &subnet, &Default::default(), None).unwrap();
        return;
    }
    let dir = std::env::temp_dir().join(format!("netsetup-leases-{}", std::process::id()));
    let again = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "fifty_processes_lease_fifty_addresses"])
            .env(DIR, &dir)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..50).map(|_| again()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let names =
        std::fs::read_dir(&dir).unwrap().filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_symlink());
    assert_eq!(names.count(), 50);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn without_rights_the_error_says_so() {
    let error = Error::System {
        what: "create the bridge b".into(),
        source: std::io::Error::from_raw_os_error(libc::EPERM),
        detail: None,
    };
    assert_eq!(error.to_string(), "cannot create the bridge b: permission denied: needs root (CAP_NET_ADMIN)");
    assert!(Host::open().is_ok(), "opening costs nothing and needs no rights");
}

#[test]
fn the_filters_of_queueing_disciplines_are_seen() {
    on_a_host(Backend::Nftables, |host| {
        assert_eq!(netsetup::survey::filter_kinds(&mut host.host).unwrap(), [""; 0]);
        sh("ip link add some0 type veth peer name some1; tc qdisc add dev some0 root handle 1: htb
            tc filter add dev some0 parent 1: protocol ip u32 match ip dst 192.0.2.1/32 classid 1:10");
        let kinds = netsetup::survey::filter_kinds(&mut host.host).unwrap();
        assert!(!kinds.is_empty() && kinds.iter().all(|kind| kind == "u32"), "{kinds:?}");
    });
}
