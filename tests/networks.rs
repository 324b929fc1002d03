//! Networks of one's own: made, listed, joined by several cards in the order of the flags, apart from each other, removed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::command::wait_listening;
use host::net::{fetch, unreachable};
use host::{Firewall, HOST, OUTSIDE, TestHost, images};

fn create(host: &TestHost, words: &[&str]) -> String {
    host.minidock(&[&["network", "create"], words].concat()).ok().out()
}

fn inspect(host: &TestHost, network: &str, template: &str) -> String {
    host.minidock(&["network", "inspect", "--format", template, network]).ok().out()
}

#[test]
fn a_network_is_made_listed_inspected_and_removed() {
    let host = TestHost::new();
    let id = create(&host, &["--label", "a=b", "lan"]);
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    let bridge = format!("br-{}", &id[..12]);
    assert!(host.sh(&format!("ip -4 -o addr show {bridge}")).ok().out().contains("10.208.0.1/24"), "made at once");
    let list = host.minidock(&["network", "ls"]).ok().out();
    let short = &id[..12];
    assert!(list.lines().any(|line| line == format!("{short}   lan       bridge    local")), "{list}");
    assert_eq!(host.minidock(&["network", "ls", "-q", "--filter", "type=custom"]).ok().out(), short);
    assert_eq!(host.minidock(&["network", "ls", "--filter", "label=a", "--format", "{{.Name}}"]).ok().out(), "lan");
    assert_eq!(
        inspect(&host, short, "{{.Name}} {{.Driver}} {{(index .IPAM.Config 0).Subnet}}"),
        "lan bridge 10.208.0.0/24"
    );
    host.minidock(&["network", "create", "lan"]).exits(1).says(&["network with name lan already exists"]);
    host.minidock(&["network", "inspect", "lam"]).exits(1).says(&["network lam not found", "did you mean lan?"]);
    host.minidock(&["network", "rm", "host"]).exits(1).says(&["host is a pre-defined network and cannot be removed"]);
    assert_eq!(host.minidock(&["network", "rm", "lan"]).ok().out(), "lan");
    assert_eq!(host.sh(&format!("ip link show {bridge}")).code(), 1);
    assert_eq!(host.sh("nft list ruleset").ok().out(), "", "the table goes with the last network");
    assert_eq!(host.sh("cat /proc/sys/net/ipv4/ip_forward").ok().out(), "0");
    host.minidock(&["network", "rm", "lan"]).exits(1).says(&["network lan not found"]);
    host.minidock(&["network", "rm", "-f", "lan"]).ok();
    host.finish();
}

#[test]
fn new_subnets_avoid_every_route_in_all_tables_and_clashes_name_the_other_side() {
    let host = TestHost::new();
    host.sh(
        "ip route add 10.208.0.0/24 via 10.99.0.2; ip route add 10.208.1.0/24 dev uplink table 77; \
         ip route add blackhole 10.208.2.0/25; ip route add 0.0.0.0/1 via 10.99.0.2; ip route replace default via 10.99.0.2",
    )
    .ok();
    create(&host, &["one"]);
    assert_eq!(inspect(&host, "one", "{{(index .IPAM.Config 0).Subnet}}"), "10.208.3.0/24");
    for (subnet, words) in [
        ("10.208.1.128/25", "the route 10.208.1.0/24 dev uplink (table 77)"),
        ("10.208.0.0/16", "the network one (10.208.3.0/24)"),
        ("10.99.0.0/28", "the address 10.99.0.1/24 of uplink"),
        ("172.17.0.0/24", "the network bridge (172.17.0.0/16)"),
    ] {
        let refused = host.minidock(&["network", "create", "--subnet", subnet, "x"]).exits(1);
        refused.says(&["Pool overlaps with other one on this address space", words]);
    }
    create(&host, &["--subnet", "10.5.0.0/24", "two"]);
    host.minidock(&["network", "create", "--subnet", "10.5.0.0/25", "x"]).exits(1).says(&["the network two"]);
    host.minidock(&["network", "rm", "one", "two"]).ok();
    host.sh("ip route del 10.208.0.0/24; ip route del 10.208.1.0/24 table 77; ip route del blackhole 10.208.2.0/25; \
         ip route del 0.0.0.0/1")
        .ok();
    host.finish();
}

/// The same for IPv6: a whole site's prefix routed elsewhere, in a table of its own, and each clash with its owner's name.
#[test]
fn ipv6_subnets_avoid_every_route_in_all_tables_and_clashes_name_the_other_side() {
    let host = TestHost::new();
    host.sh("ip -6 addr add fd99::1/64 dev uplink nodad; ip -6 route add fd70:1::/48 dev uplink table 77; \
         ip -6 route add blackhole fd70:2::/64; ip -6 route add default via fd99::2 table 78")
        .ok();
    create(&host, &["--ipv6", "one"]);
    let own = inspect(&host, "one", "{{(index .IPAM.Config 1).Subnet}}");
    assert!(own.starts_with("fd") && own.ends_with("/64"), "{own}");
    for (subnet, words) in [
        ("fd70:1:0:5::/64", "the route fd70:1::/48 dev uplink (table 77)".to_owned()),
        ("fd70:2::/60", "the route fd70:2::/64".to_owned()),
        ("fd99::/80", "the address fd99::1/64 of uplink".to_owned()),
        (&*own, format!("the network one ({own})")),
    ] {
        let refused = host.minidock(&["network", "create", "--ipv6", "--subnet", subnet, "x"]).exits(1);
        refused.says(&["Pool overlaps with other one on this address space", &words]);
    }
    // Nothing of the pool is free: not even in a table that no rule leads to.
    host.sh("ip -6 route add fd00::/8 dev uplink table 77").ok();
    host.minidock(&["network", "create", "--ipv6", "x"]).exits(1).says(&["routes to all unique-local IPv6 addresses"]);
    host.sh("ip -6 route del fd00::/8 table 77").ok();
    host.minidock(&["network", "rm", "one"]).ok();
    host.sh("ip -6 route del fd70:1::/48 table 77; ip -6 route del blackhole fd70:2::/64; \
         ip -6 route del default table 78; ip -6 addr del fd99::1/64 dev uplink")
        .ok();
    host.finish();
}

/// Two roots on one host choose different subnets, also at the same moment.
#[test]
fn networks_made_at_the_same_time_by_two_roots_have_different_subnets() {
    let host = TestHost::new();
    let other = host.work.join("other-root").display().to_string();
    let making: Vec<_> = (0..12)
        .map(|number| {
            let name = format!("net{number}");
            match number % 2 {
                0 => host.spawn(&["network", "create", &name]),
                _ => host.spawn(&["--root", &other, "network", "create", &name]),
            }
        })
        .collect();
    for one in making {
        one.wait().ok();
    }
    let addresses =
        host.sh("ip -4 -o addr show | sed -n 's/.*inet \\(10\\.208[^ ]*\\).*/\\1/p' | sort -u | wc -l").ok().out();
    assert_eq!(addresses, "12");
    for root in [host.root.display().to_string(), other.clone()] {
        host.minidock(&["--root", &root, "network", "prune", "-f"]).ok();
    }
    assert_eq!(host.sh("ip -4 -o addr show | grep -c 10.208").out(), "0");
    // The first root leaves forwarding on for the second one, which doesn't know that it was off.
    host.sh("echo 0 >/proc/sys/net/ipv4/ip_forward").ok();
    std::fs::remove_dir_all(&other).unwrap();
    host.finish();
}

#[test]
fn cards_and_the_way_out_follow_the_order_of_the_flags_or_the_priority() {
    let host = TestHost::new();
    create(&host, &["--subnet", "10.5.0.0/24", "zebra"]);
    create(&host, &["--subnet", "10.6.0.0/24", "ant"]);
    create(&host, &["--subnet", "10.7.0.0/24", "--internal", "inner"]);
    let show = [
        "busybox",
        "sh",
        "-c",
        "ip -4 -o addr | sed -n 's/.*\\(eth.\\) *inet \\([0-9.]*\\).*/\\1 \\2/p'; ip route | grep default",
    ];
    let run = |flags: &[&str]| host.output_of(&[flags, &show].concat());
    let first = run(&["--network", "zebra", "--network", "ant"]);
    assert_eq!(first, "eth0 10.5.0.2\neth1 10.6.0.2\ndefault via 10.5.0.1 dev eth0 ");
    let first = run(&["--network", "zebra", "--network", "name=ant,gw-priority=1"]);
    assert_eq!(first, "eth0 10.6.0.3\neth1 10.5.0.3\ndefault via 10.6.0.1 dev eth0 ");
    let first = run(&["--network", "inner", "--network", "zebra"]);
    assert_eq!(
        first, "eth0 10.7.0.2\neth1 10.5.0.4\ndefault via 10.5.0.1 dev eth1 ",
        "an internal network leads nowhere"
    );
    assert_eq!(
        host.output_of(&["--network", "inner", "busybox", "sh", "-c", "ip route | grep -c default || true"]),
        "0"
    );
    let discarded = host.minidock(&["run", "--rm", "--network", "inner", "-p", "10080:80", "busybox", "true"]).ok();
    discarded.says(&["WARNING: Published ports lead nowhere"]);
    host.minidock(&["network", "rm", "zebra", "ant", "inner"]).ok();
    host.finish();
}

#[test]
fn addresses_macs_names_of_links_and_own_names_are_as_wished() {
    let host = TestHost::new();
    create(&host, &["--subnet", "10.5.0.0/24", "--ip-range", "10.5.0.128/25", "--aux-address", "r=10.5.0.129", "lan"]);
    create(&host, &["auto"]);
    host.detached(&[
        "--name",
        "web",
        "--hostname",
        "web.example",
        "--network",
        "lan",
        "--ip",
        "10.5.0.9",
        "--mac-address",
        "02:00:00:00:00:09",
        "--link-local-ip",
        "169.254.7.7",
        "--network",
        "auto,driver-opt=com.docker.network.endpoint.ifname=lab0",
        "busybox",
        "sleep",
        "1000",
    ]);
    let show = host.minidock(&["exec", "web", "sh", "-c", "ip -o addr; ip link show eth0; cat /etc/hosts"]).ok().out();
    for words in [
        "10.5.0.9/24",
        "169.254.7.7/16",
        "02:00:00:00:00:09",
        "lab0",
        "10.5.0.9\tweb.example web\n",
        "10.208.0.2\tweb.example",
    ] {
        assert!(show.contains(words), "no {words}: {show}");
    }
    let refused = |flags: &[&str], words: &[&str]| {
        host.minidock(&[&["run", "--rm"], flags, &["busybox", "true"]].concat()).exits(125).says(words);
    };
    refused(&["--network", "lan", "--ip", "10.5.0.9"], &["Address already in use", "container web has it"]);
    refused(&["--network", "lan", "--ip", "10.5.0.1"], &["10.5.0.1", "the host's own"]);
    refused(&["--network", "lan", "--ip", "10.5.0.129"], &["10.5.0.129", "keeps it for another use"]);
    refused(&["--network", "lan", "--ip", "10.9.0.1"], &["no configured subnet or ip-range contain the IP address"]);
    refused(&["--network", "auto", "--ip", "10.208.0.9"], &["user configured subnets"]);
    refused(&["--network", "lam"], &["network lam not found", "did you mean lan?"]);
    refused(&["--network", "lan", "--network", "host"], &["cannot attach both"]);
    assert_eq!(
        host.output_of(&["--network", "lan", "busybox", "sh", "-c", "ip -4 -o addr show eth0 | grep -o 10.5.0.128/24"]),
        "10.5.0.128/24",
        "from the range"
    );
    let places =
        "{{range $name, $one := .NetworkSettings.Networks}}{{$name}}={{$one.IPAddress}}/{{$one.Gateway}} {{end}}";
    let inspected = host.minidock(&["inspect", "--format", places, "web"]).ok().out();
    assert_eq!(inspected, "auto=10.208.0.2/10.208.0.1 lan=10.5.0.9/10.5.0.1 ");
    assert_eq!(host.minidock(&["ps", "--format", "{{.Networks}}"]).ok().out(), "auto,lan");
    assert_eq!(
        inspect(&host, "lan", "{{range .Containers}}{{.Name}} {{.IPv4Address}} {{.MacAddress}}{{end}}"),
        "web 10.5.0.9/24 02:00:00:00:00:09"
    );
    host.minidock(&["network", "rm", "lan"]).exits(1).says(&["has active endpoints", "name:\"web\""]);
    host.remove(&["web"]);
    host.minidock(&["network", "rm", "lan", "auto"]).ok();
    host.finish();
}

#[test]
fn a_port_is_published_into_the_network_and_at_its_host_binding() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        create(&host, &["lan"]);
        create(&host, &["-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1", "local"]);
        host.detached(&["--name", "web", "--network", "lan", "-p", "10080:80", "busybox", "httpd", "-f", "-h", "/www"]);
        host.detached(&[
            "--name",
            "own",
            "--network",
            "local",
            "-p",
            "10081:80",
            "busybox",
            "httpd",
            "-f",
            "-h",
            "/www",
        ]);
        wait_listening(&host.inside("web"), 80);
        wait_listening(&host.inside("own"), 80);
        assert_eq!(fetch(&host.outside, &format!("{HOST}:10080"), "/index.html"), images::PAGE);
        assert_eq!(fetch(&host.host, "127.0.0.1:10081", "/index.html"), images::PAGE);
        assert!(unreachable(&host.outside, &format!("{HOST}:10081")));
        host.remove(&["web", "own"]);
        host.minidock(&["network", "rm", "lan", "local"]).ok();
        host.finish();
    }
}

#[test]
fn a_network_outlives_a_reboot_and_its_bridge_is_made_again() {
    let host = TestHost::new();
    let id = create(&host, &["--subnet", "10.5.0.0/24", "-o", "com.docker.network.driver.mtu=1400", "lan"]);
    let bridge = format!("br-{}", &id[..12]);
    host.sh(&format!("ip link del {bridge}; nft flush ruleset")).ok();
    let show = "ip link show eth0 | grep -o 'mtu [0-9]*'";
    assert_eq!(host.output_of(&["--network", "lan", "busybox", "sh", "-c", show]), "mtu 1400", "deleted by hand");
    // After a reboot the run folder is empty, and so is the host.
    let leases = host.root.join("run/network/lan/leases");
    let leased = || std::fs::read_dir(&leases).unwrap().flatten().any(|one| one.file_name() != ".last");
    host::wait_until("the container has given back its address", || !leased());
    host.sh(&format!("ip link del {bridge}; nft flush ruleset; rm -r {}/run/network", host.root.display())).ok();
    assert_eq!(host.minidock(&["network", "ls", "-q", "--filter", "name=lan"]).ok().out(), &id[..12]);
    assert_eq!(host.output_of(&["--network", &id[..8], "busybox", "sh", "-c", show]), "mtu 1400", "after a reboot");
    assert!(host.sh(&format!("ip -4 -o addr show {bridge}")).ok().out().contains("10.5.0.1/24"));
    host.sh("echo 0 >/proc/sys/net/ipv4/ip_forward").ok();
    host.minidock(&["network", "rm", "lan"]).ok();
    host.finish();
}

#[test]
fn a_stopped_container_joins_the_network_again_and_says_when_it_is_gone() {
    let host = TestHost::new();
    create(&host, &["--subnet", "10.5.0.0/24", "lan"]);
    host.minidock(&[
        "create",
        "--name",
        "box",
        "--network",
        "lan",
        "--ip",
        "10.5.0.7",
        "busybox",
        "sh",
        "-c",
        "ip -o -4 addr",
    ])
    .ok();
    assert!(host.minidock(&["start", "-a", "box"]).ok().out().contains("10.5.0.7/24"));
    assert_eq!(host.minidock(&["network", "prune", "-f"]).ok().out(), "", "a stopped container still needs it");
    assert!(host.minidock(&["start", "-a", "box"]).ok().out().contains("10.5.0.7/24"));
    host.minidock(&["network", "rm", "lan"]).ok();
    host.minidock(&["start", "-a", "box"]).exits_any(&[1, 125]).says(&["network lan not found"]);
    host.minidock(&["rm", "box"]).ok();
    host.finish();
}

#[test]
fn runs_and_networks_at_the_same_time_do_not_disturb_each_other() {
    let host = TestHost::new();
    create(&host, &["lan"]);
    let runs: Vec<_> = (0..6)
        .map(|_| host.spawn(&["run", "--rm", "--network", "lan", "--network", "bridge", "busybox", "true"]))
        .collect();
    let making: Vec<_> = (0..6).map(|number| host.spawn(&["network", "create", &format!("n{number}")])).collect();
    for one in making {
        one.wait().ok();
    }
    let removing: Vec<_> = (0..6).map(|number| host.spawn(&["network", "rm", &format!("n{number}")])).collect();
    for one in removing.into_iter().chain(runs) {
        one.wait().ok();
    }
    host.minidock(&["network", "rm", "lan"]).ok();
    host.finish();
}

/// Cards on a link of the host. (The kernel of the usual test machine has macvlan only, no ipvlan, vlan and dummy links:
/// those are tested in a VM by tests/vm/parents.sh.)
#[test]
fn macvlan_containers_are_on_the_segment_of_the_parent() {
    let host = TestHost::new();
    let missing = host.minidock(&["network", "create", "-d", "macvlan", "-o", "parent=eth7", "x"]).exits(1);
    missing.says(&["the parent link eth7 of network x is not there"]);
    let segment = ["--subnet", "10.99.0.0/24", "--gateway", OUTSIDE, "--ip-range", "10.99.0.64/26"];
    create(&host, &[&["-d", "macvlan", "-o", "parent=uplink"], &segment[..], &["pub"]].concat());
    let same = host.minidock(&["network", "create", "-d", "macvlan", "-o", "parent=uplink", "x"]).exits(1);
    same.says(&["network pub is already using parent interface uplink"]);
    host.detached(&["--name", "one", "--network", "pub", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "two", "busybox", "sleep", "1000"]);
    host.minidock(&["network", "connect", "pub", "two"]).ok();
    // The host itself reaches no card on its own link: it looks from inside.
    let serve = ["busybox", "httpd", "-f", "-h", "/www"];
    host.detached(&[&["--name", "ready", "--network", "pub", "--wait", "port:80"], &serve[..]].concat());
    host.remove(&["ready"]);
    let in_one = |words: &str| host.minidock(&["exec", "one", "sh", "-c", words]).ok().out();
    assert!(in_one("ip route").contains(&format!("default via {OUTSIDE} dev eth0")));
    in_one(&format!("ping -c 1 -W 30 {OUTSIDE}"));
    in_one("ping -c 1 -W 30 two");
    assert!(in_one("ip -o -4 addr show eth0").contains("10.99.0.64/24"));
    host.outside("ping -c 1 -W 30 10.99.0.65").ok();
    host.minidock(&["network", "disconnect", "pub", "two"]).ok();
    assert_eq!(host.minidock(&["exec", "two", "sh", "-c", "ip -o link | grep -c eth"]).ok().out(), "1");
    let discarded = host.minidock(&["run", "--rm", "--network", "pub", "-p", "80:80", "busybox", "true"]).ok();
    discarded.says(&["WARNING: Published ports lead nowhere"]);
    host.remove(&["one", "two"]);
    host.minidock(&["network", "rm", "pub"]).ok();
    host.finish();
}

/// Somebody has put a link of their own into the bridge.
#[test]
fn a_bridge_that_stays_is_told() {
    let host = TestHost::new();
    assert_eq!(host.output_of(&["busybox", "echo", "hi"]), "hi");
    host.sh("ip link add mine type veth peer name yours && ip link set mine master docker0").ok();
    let rm = host.minidock(&["network", "rm", "bridge"]).exits(1);
    let rm = rm.says(&["network bridge is removed, but not all of it: the bridge docker0 still has mine"]);
    assert_eq!(rm.out(), "");
    // The kernel's setting stays with a bridge that somebody uses.
    host.sh("ip link del mine; ip link del docker0; echo 0 >/proc/sys/net/ipv4/ip_forward").ok();
    host.minidock(&["network", "rm", "bridge"]).ok();
    host.finish();
}

/// iptables-nft makes tables for our rules and never takes them away.
#[test]
fn no_empty_table_of_iptables_is_left() {
    let host = TestHost::with_firewall(host::Firewall::Iptables);
    let tables = || host.sh("nft list tables").ok().out();
    let run = || assert_eq!(host.output_of(&["-p", "10080:80", "busybox", "echo", "hi"]), "hi");
    assert_eq!(tables(), "");
    run();
    assert!(tables().contains("table ip nat") && tables().contains("table ip raw"), "{}", tables());
    host.minidock(&["network", "rm", "bridge"]).ok();
    assert_eq!(tables(), "", "{}", host.sh("nft list ruleset").out());
    // One that was there before stays, and one in which somebody has put something.
    host.sh("iptables -t nat -A OUTPUT -d 192.0.2.1 -j ACCEPT; iptables -t nat -F").ok();
    run();
    host.sh("iptables -t raw -A OUTPUT -d 192.0.2.1 -j ACCEPT; iptables -P INPUT DROP").ok();
    host.minidock(&["network", "rm", "bridge"]).ok();
    let mut left: Vec<String> = tables().lines().map(str::to_owned).collect();
    left.sort();
    assert_eq!(left, ["table ip filter", "table ip nat", "table ip raw"]);
    host.sh("nft flush ruleset").ok();
    host.finish();
}

/// What still leads to an address would lead to its next owner.
#[test]
fn an_address_is_kept_while_rules_lead_to_it() {
    let host = TestHost::with_firewall(host::Firewall::Iptables);
    host.detached(&["--name", "web", "-p", "10080:80", "busybox", "sleep", "1000"]);
    let address = host.address("web");
    let leased = || host.root.join("run/network/bridge/leases").join(&address).symlink_metadata().is_ok();
    assert!(leased());
    // iptables fails for a while.
    host.sh("mount --bind /bin/false /usr/sbin/xtables-nft-multi").ok();
    host.minidock(&["rm", "-f", "web"]).exits(1);
    assert!(leased(), "the rule that leads to it is still there");
    host.sh("umount /usr/sbin/xtables-nft-multi").ok();
    host::wait_until("the next commands clear up", || {
        host.minidock(&["ps", "-a"]);
        !leased()
    });
    assert!(!host.sh("iptables-save").ok().out().contains("--dport 10080"));
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn events_of_the_default_network_have_its_id() {
    let host = TestHost::new();
    assert_eq!(host.output_of(&["busybox", "echo", "hi"]), "hi");
    let id = host.minidock(&["network", "ls", "--no-trunc", "-q", "-f", "name=bridge"]).ok().out();
    let events =
        ["events", "--since", "1h", "--until", "0s", "-f", "type=network", "--format", "{{.Action}} {{.Actor.ID}}"];
    host::wait_until("the end is told", || host.minidock(&events).ok().out().contains("disconnect"));
    assert_eq!(host.minidock(&events).ok().out(), format!("connect {id}\ndisconnect {id}"));
    host.finish();
}

#[test]
fn a_network_without_a_parent_says_what_it_lacks() {
    let host = TestHost::new();
    for driver in ["ipvlan", "macvlan"] {
        let made = host.minidock(&["network", "create", "-d", driver, "lan"]);
        if made.code() == 0 {
            host.minidock(&["network", "rm", "lan"]).ok(); // this kernel has the driver dummy
        } else {
            made.exits(1).says(&["needs the driver dummy", "-o parent=eth0"]);
        }
    }
    host.finish();
}
