//! The router namespace, the lecture's part one: `minidock router …` makes what the lecture types, and everything in it is
//! ordinary. On a Linux bridge and on Open vSwitch, with both firewall back ends, and after every crash.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::time::Duration;

use host::command::wait_listening;
use host::net::{Server, fetch, unreachable};
use host::{Firewall, TestHost, images, wait_until};

/// The machine in the outside network, behind `br-ex`.
const FAR: &str = "16.158.1.1";
const CREATE: &[&str] = &[
    "router",
    "create",
    "routerns",
    "--inside",
    "bridge,172.17.0.200",
    "--outside",
    "br-ex,16.158.1.100/24,16.158.1.1",
];

/// Plugs the outside into a bridge `br-ex`, as 16.158.1.1.
fn outside_network(host: &TestHost) {
    let netns = format!("/proc/{}/fd/{}", std::process::id(), host.outside.net_fd());
    host.sh(&format!(
        "ip link add br-ex type bridge; ip link set br-ex up
         ip link add ex0 type veth peer name ex1 netns {netns}
         ip link set ex0 master br-ex up"
    ))
    .ok();
    host.outside(&format!("ip addr add {FAR}/24 dev ex1; ip link set ex1 up")).ok();
}

fn remove_outside_network(host: &TestHost) {
    host.sh("ip link del ex0; ip link del br-ex").ok();
}

fn web(host: &TestHost, name: &str) {
    host.detached(&["--name", name, "busybox", "httpd", "-f", "-h", "/www"]);
    wait_listening(&host.inside(name), 80);
}

#[test]
fn the_lecture_s_router_with_both_firewalls() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        outside_network(&host);
        web(&host, "vm");
        host.minidock(CREATE).ok();
        assert_eq!(
            host.minidock(&["router", "floating", "add", "routerns", "16.158.1.103", "vm"]).ok().out(),
            "16.158.1.103"
        );

        // From the outside to the floating address, and from the container to the outside: both directions of the pair.
        let seen = Server::http(&host.outside, &format!("{FAR}:8000"));
        assert_eq!(fetch(&host.outside, "16.158.1.103:80", "/index.html"), images::PAGE);
        assert_eq!(
            fetch(&host.inside("vm"), &format!("{FAR}:8000"), "/"),
            "16.158.1.103",
            "it leaves as its own address"
        );

        // What has no address of its own leaves as the router.
        web(&host, "other");
        host.sh("ip netns exec other ip route replace default via 172.17.0.200").ok();
        assert_eq!(fetch(&host.inside("other"), &format!("{FAR}:8000"), "/"), "16.158.1.100");
        drop(seen);

        // The route table of the lecture.
        let routes = host.sh("ip netns exec routerns route -n").ok().out();
        let line = |destination: &str| {
            let line = routes.lines().find(|line| line.starts_with(destination)).unwrap_or_else(|| panic!("{routes}"));
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(line("0.0.0.0")[1], FAR);
        assert_eq!(line("0.0.0.0")[7], "taprouterex");
        assert_eq!(line("172.17.0.0")[7], "taprouter");
        assert_eq!(line("16.158.1.0")[7], "taprouterex");
        assert_eq!(host.sh("ip netns exec routerns sysctl -n net.ipv4.ip_forward").ok().out(), "1");
        assert!(host.sh("ip netns list").ok().out().contains("routerns"));

        let address = host.address("vm");
        if firewall == Firewall::Iptables {
            let rules = host.sh("ip netns exec routerns iptables -t nat -nvL").ok().out();
            let rule = |target: &str| {
                let line = rules.lines().find(|line| line.contains(target) && line.contains("16.158.1.103"));
                let words: Vec<String> =
                    line.unwrap_or_else(|| panic!("{rules}")).split_whitespace().map(str::to_owned).collect();
                words[5..].join(" ")
            };
            assert_eq!(rule("DNAT"), format!("* * 0.0.0.0/0 16.158.1.103 to:{address}"));
            assert_eq!(rule("SNAT"), format!("* * {address} 0.0.0.0/0 to:16.158.1.103"));
        } else {
            let rules = host.sh("ip netns exec routerns nft list ruleset").ok().out();
            assert!(
                rules.contains(&format!(": {address}")) && rules.contains("dnat to ip daddr map @floating_in"),
                "{rules}"
            );
        }
        // A command typed by hand works beside it.
        host.sh("ip netns exec routerns iptables -t nat -A PREROUTING -d 16.158.1.77/32 -j DNAT --to-destination 172.17.0.9").ok();

        let listed = host.minidock(&["router", "ls"]).ok().out();
        assert!(listed.lines().nth(1).unwrap().starts_with("routerns   bridge    172.17.0.200/16   br-ex"), "{listed}");
        assert_eq!(
            host.minidock(&["router", "inspect", "-f", "{{.Outside.Address}}", "routerns"]).ok().out(),
            "16.158.1.100"
        );

        host.minidock(&["router", "floating", "rm", "routerns", "16.158.1.103"]).ok();
        assert!(unreachable(&host.outside, "16.158.1.103:80"));
        assert!(host.sh("ip netns exec vm ip route show default").ok().out().contains("172.17.0.1 "), "led back");
        host.minidock(&["router", "rm", "routerns"]).ok();
        host.remove(&["vm", "other"]);
        remove_outside_network(&host);
        host.finish();
    }
}

/// The lecture's own addresses: a network that leaves its gateway's address to the router.
#[test]
fn the_router_is_the_gateway_of_a_network() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        outside_network(&host);
        let option = "com.docker.network.bridge.inhibit_ipv4=true";
        let subnet = ["--subnet", "192.168.1.0/24", "--gateway", "192.168.1.1", "-o", option, "vms"];
        host.minidock(&[&["network", "create"], &subnet[..]].concat()).ok();
        host.detached(&[
            "--name",
            "vm",
            "--network",
            "vms",
            "--ip",
            "192.168.1.3",
            "busybox",
            "httpd",
            "-f",
            "-h",
            "/www",
        ]);
        host.detached(&["--name", "other", "--network", "vms", "busybox", "sleep", "1000"]);
        wait_listening(&host.inside("vm"), 80);
        assert!(!host.sh("ip -4 addr").ok().out().contains("192.168.1.1/"), "the host has no address there");
        let create =
            ["router", "create", "routerns", "--inside", "vms", "--outside", "br-ex,16.158.1.100/24,16.158.1.1"];
        host.minidock(&create).ok();
        let address = host.sh("ip netns exec routerns ip -4 addr show dev taprouter").ok().out();
        assert!(address.contains("inet 192.168.1.1/24 brd 192.168.1.255 scope global taprouter"), "{address}");
        host.minidock(&["router", "floating", "add", "routerns", "16.158.1.103", "vm"]).ok();
        assert!(host.sh("ip netns exec vm ip route show default").ok().out().contains("via 192.168.1.1 "), "as it was");
        assert_eq!(fetch(&host.outside, "16.158.1.103:80", "/index.html"), images::PAGE);
        let seen = Server::http(&host.outside, &format!("{FAR}:8000"));
        assert_eq!(fetch(&host.inside("vm"), &format!("{FAR}:8000"), "/"), "16.158.1.103");
        assert_eq!(fetch(&host.inside("other"), &format!("{FAR}:8000"), "/"), "16.158.1.100", "SNAT for the rest");
        drop(seen);
        host.minidock(&["router", "rm", "routerns"]).ok();
        host.remove(&["vm", "other"]);
        host.minidock(&["network", "rm", "vms"]).ok();
        remove_outside_network(&host);
        host.finish();
    }
}

/// The router's maker has told what a person would type; typed on a second host, it makes the same.
#[test]
fn what_it_explains_makes_the_same() {
    for firewall in Firewall::BOTH {
        let state = |host: &TestHost| {
            let place = "ip netns exec routerns";
            let text = host
                .sh(&format!(
                    "{place} ip -o addr show | sed 's/valid_lft.*//; s/^[0-9]*: //; /inet6/d'
                     {place} ip route | sort; {place} sysctl net.ipv4.ip_forward net.ipv4.conf.taprouter.arp_notify
                     {place} iptables-save | grep -v '^[#:]' | sed 's/\\[.*//' ; {place} nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'
                     for link in /sys/class/net/rt*; do echo ${{link##*/rt????????}} $(cat $link/ifalias) $(basename $(readlink $link/master)); done
                     {place} cat /sys/class/net/taprouter/address
                     ip netns exec vm ip route"
                ))
                .ok()
                .out();
            text.replace(" \n", "\n")
        };
        let float = ["router", "floating", "add", "routerns", "16.158.1.103", "vm"];
        let real = TestHost::with_firewall(firewall);
        outside_network(&real);
        real.detached(&["--name", "vm", "busybox", "sleep", "1000"]);
        let planned = real.minidock(&[CREATE, &["--dry-run"]].concat()).ok().out();
        assert!(real.sh("! ip netns list | grep routerns").code() == 0, "--dry-run changes nothing");
        let told = real.minidock(&[CREATE, &["--explain"]].concat()).ok().err();
        assert_eq!(planned.replace("#!/bin/sh -eu\n", "").trim_end(), told.trim_end(), "--dry-run says what happens");
        let told = [told, real.minidock(&[&float[..], &["--explain"]].concat()).ok().err()].join("\n");

        let typed = TestHost::with_firewall(firewall);
        outside_network(&typed);
        typed.detached(&["--name", "vm", "busybox", "sleep", "1000"]);
        let id = |host: &TestHost| host.inspect("vm", "{{.Id}}")[..12].to_owned();
        typed.sh(&told.replace(&id(&real), &id(&typed))).ok();
        assert_eq!(
            state(&real).replace(&id(&real), "ID"),
            state(&typed).replace(&id(&typed), "ID"),
            "explained and made are the same"
        );

        // The way back, too.
        let told = real.minidock(&["router", "floating", "rm", "routerns", "16.158.1.103", "--explain"]).ok().err();
        typed.sh(&told).ok();
        assert_eq!(state(&real), state(&typed));
        real.minidock(&["router", "rm", "routerns"]).ok();
        typed.sh("ip netns del routerns").ok();
        for host in [real, typed] {
            host.remove(&["vm"]);
            wait_until("the legs are gone", || host.sh("! ls /sys/class/net | grep ^rt").code() == 0);
            remove_outside_network(&host);
            if host.sh("mountpoint -q /run/netns").code() == 0 {
                host.sh("umount /run/netns").ok(); // `ip netns add` has made it one
            }
            host.finish();
        }
    }
}

/// A router that is killed in its making, at every write, is taken away by the next command; so is an address.
#[test]
fn killed_at_each_write_nothing_is_left() {
    for firewall in Firewall::BOTH {
        let live = |host: &TestHost| {
            host.minidock(CREATE);
            host.minidock(&["router", "floating", "add", "routerns", "16.158.1.103", "vm"]);
        };
        let prepared = |wish: Option<&str>| {
            let mut host = TestHost::with_firewall(firewall);
            outside_network(&host);
            host.detached(&["--name", "vm", "busybox", "sleep", "1000"]);
            let count = host.work.join("writes").display().to_string();
            host.set("MINIDOCK_CRASH_COUNT", &count);
            if let Some(wish) = wish {
                host.set("MINIDOCK_CRASH", wish);
            }
            host
        };
        let done = |mut host: TestHost, stands: bool| {
            host.unset("MINIDOCK_CRASH");
            host.unset("MINIDOCK_CRASH_COUNT");
            let routers = host.minidock(&["router", "ls", "-q"]).ok().out();
            let floating = host.minidock(&["router", "floating", "ls"]).ok().out();
            if stands {
                assert_eq!(routers, "routerns");
                host.minidock(&["router", "rm", "routerns"]).ok();
            } else if routers == "routerns" {
                // Only the address was cut off.
                assert_eq!(floating.lines().count(), 1, "{floating}");
                let routes = host.sh("ip netns exec vm ip route show default").ok().out();
                assert!(routes.contains("172.17.0.1 "), "the container's route leads back: {routes}");
                let rules = host.sh("ip netns exec routerns nft list ruleset").ok().out();
                assert!(!rules.contains("16.158.1.103"), "{rules}");
                let addresses = host.sh("ip netns exec routerns ip addr").ok().out();
                assert!(!addresses.contains("16.158.1.103"), "{addresses}");
                host.minidock(&["router", "rm", "routerns"]).ok();
            }
            assert_eq!(host.sh("ls /run/netns").ok().out(), "vm");
            assert_eq!(host.sh("ls /sys/class/net | grep -c ^rt || :").ok().out(), "0");
            assert_eq!(std::fs::read_dir(host.root.join("routers")).unwrap().count(), 1, "the lock alone");
            assert!(!host.root.join("run/network/bridge/leases/172.17.0.200").exists());
            // And the name and the addresses can be used again.
            host.minidock(CREATE).ok();
            host.minidock(&["router", "rm", "routerns"]).ok();
            host.remove(&["vm"]);
            remove_outside_network(&host);
            host.finish();
        };
        let counting = prepared(None);
        live(&counting);
        let writes = std::fs::read_to_string(counting.work.join("writes")).unwrap().lines().count();
        assert!(writes >= 5, "{writes} writes: lease, namespace, two legs, address");
        done(counting, true);
        for number in 1..=writes {
            for side in ["before", "after"] {
                let wish = format!("{side}:{number}");
                eprintln!("{wish} of {writes}");
                let host = prepared(Some(&wish));
                live(&host);
                done(host, false);
            }
        }
    }
}

/// `router rm` killed at any moment is finished by the next command.
#[test]
fn killed_while_it_is_removed() {
    for step in 0..12_u64 {
        let host = TestHost::with_firewall(if step % 2 == 0 { Firewall::Nftables } else { Firewall::Iptables });
        outside_network(&host);
        host.detached(&["--name", "vm", "busybox", "sleep", "1000"]);
        host.minidock(CREATE).ok();
        host.minidock(&["router", "floating", "add", "routerns", "16.158.1.103", "vm"]).ok();
        let removing = host.spawn(&["router", "rm", "routerns"]);
        std::thread::sleep(Duration::from_millis(step * 4)); // the moment is the input of this test
        removing.signal(nix::sys::signal::Signal::SIGKILL);
        removing.wait();
        if host.minidock(&["router", "ls", "-q"]).ok().out() == "routerns" {
            host.minidock(&["router", "rm", "routerns"]).ok();
        }
        assert_eq!(host.sh("ls /run/netns").ok().out(), "vm");
        assert!(host.sh("ip netns exec vm ip route show default").ok().out().contains("172.17.0.1 "));
        host.remove(&["vm"]);
        remove_outside_network(&host);
        host.finish();
    }
}

/// An address must not lead to whoever gets the container's address next.
#[test]
fn a_floating_address_ends_with_its_container() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        outside_network(&host);
        web(&host, "vm");
        host.minidock(CREATE).ok();
        host.minidock(&["router", "floating", "add", "routerns", "16.158.1.103", "vm"]).ok();
        assert!(!unreachable(&host.outside, "16.158.1.103:80"));
        // It comes back with the container's next run: after a restart, and after a stop and a start.
        let comes_back = || wait_until("the address is back", || !unreachable(&host.outside, "16.158.1.103:80"));
        host.minidock(&["restart", "-t", "0", "vm"]).ok();
        comes_back();
        host.minidock(&["stop", "-t", "0", "vm"]).ok();
        wait_until("the address is away", || {
            host.minidock(&["router", "floating", "ls"]).ok().out().lines().count() == 1
        });
        host.minidock(&["start", "vm"]).ok();
        comes_back();
        // One that was taken away while it was stopped, or given to another, doesn't.
        host.minidock(&["stop", "-t", "0", "vm"]).ok();
        host.minidock(&["router", "floating", "rm", "routerns", "16.158.1.103"]).ok();
        host.minidock(&["start", "vm"]).ok();
        host.minidock(&["router", "floating", "add", "routerns", "16.158.1.104", "vm"]).ok();
        assert!(unreachable(&host.outside, "16.158.1.103:80"));
        host.remove(&["vm"]);
        assert_eq!(host.minidock(&["router", "floating", "ls"]).ok().out().lines().count(), 1);
        let rules = host.sh("ip netns exec routerns nft list ruleset").ok().out();
        assert!(!rules.contains("16.158.1.103"), "{rules}");
        host.minidock(&["router", "rm", "routerns"]).ok();
        remove_outside_network(&host);
        host.finish();
    }
}

/// What a reboot leaves: the root, without what is for one boot; nothing in the kernel.
fn reboot(host: &TestHost) {
    host.minidock(&["boot", "--stop"]).ok();
    let root = host.root.display();
    host.sh(&format!(
        "find {root}/routers -name journal | xargs sed -i '1s/\"boot_id\":\"[^\"]*\"/\"boot_id\":\"another\"/'
         umount /run/netns/routerns; rm /run/netns/routerns
         nft flush ruleset; ip link del docker0; rm -r {root}/run/network; echo 0 >/proc/sys/net/ipv4/ip_forward"
    ))
    .ok();
}

/// The router and its containers' addresses come back with `boot`, with a container of its network, and with a command.
#[test]
fn a_router_outlives_a_reboot_with_its_addresses() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        outside_network(&host);
        let flags = ["--name", "vm", "--restart", "always", "--stop-signal", "KILL"];
        host.detached(&[&flags[..], &["busybox", "httpd", "-f", "-h", "/www"]].concat());
        wait_listening(&host.inside("vm"), 80);
        let create: Vec<&str> =
            CREATE.iter().map(|word| if *word == "bridge,172.17.0.200" { "bridge" } else { *word }).collect();
        host.minidock(&create).ok();
        host.minidock(&["router", "floating", "add", "routerns", "16.158.1.103", "vm"]).ok();
        let answers = || wait_until("the address answers", || !unreachable(&host.outside, "16.158.1.103:80"));
        answers();
        // The container's own address may be another one.
        let inside = || {
            let text = host.minidock(&["router", "inspect", "routerns"]).ok().out();
            text.lines().filter(|line| !line.contains("\"Inside\": \"")).collect::<String>()
        };
        let before = inside();
        for wake in [&["boot"][..], &["start", "vm"], &["router", "ls"]] {
            reboot(&host);
            assert!(unreachable(&host.outside, "16.158.1.103:80"));
            // Who comes first doesn't get the router's address.
            host.detached(&["--name", "early", "--network", "none", "busybox", "sleep", "1000"]);
            host.minidock(wake).ok();
            if wake == ["router", "ls"] {
                assert!(host.minidock(wake).ok().out().contains("routerns"));
                host.minidock(&["start", "vm"]).ok();
            }
            answers();
            assert_eq!(inside(), before, "after {wake:?}");
            host.remove(&["early"]);
        }
        // Without its outside bridge it can't be made: said, and made once the bridge is there.
        reboot(&host);
        remove_outside_network(&host);
        host.minidock(&["boot"]).exits(1).says(&["router routerns could not be made again", "br-ex"]);
        assert!(host.sh("ip netns list; ip link").ok().out().lines().all(|line| !line.contains("rout")));
        outside_network(&host);
        assert!(host.minidock(&["router", "ls"]).ok().out().contains("routerns"));
        answers();
        reboot(&host);
        host.minidock(&["router", "rm", "routerns"]).ok();
        assert!(!host.minidock(&["router", "ls"]).ok().out().contains("routerns"));
        host.remove(&["vm"]);
        remove_outside_network(&host);
        host.finish();
    }
}

#[test]
fn what_cannot_work_is_refused_with_the_way_out() {
    let host = TestHost::new();
    outside_network(&host);
    let create = |name: &str, inside: &str, outside: &str| {
        host.minidock(&["router", "create", name, "--inside", inside, "--outside", outside])
    };
    let good = "br-ex,16.158.1.100/24,16.158.1.1";
    create("r1", "bridge", "br-no,16.158.1.100/24,16.158.1.1")
        .exits(1)
        .says(&["there is no bridge br-no", "ip link add"]);
    create("r1", "bridge", "uplink,16.158.1.100/24,16.158.1.1").exits(1).says(&["uplink is a veth, not a bridge"]);
    create("r1", "bridge", "br-ex,16.158.1.100/24,16.158.2.1").exits(1).says(&["not in the subnet"]);
    create("r1", "bridge", "br-ex,172.17.3.1/24,172.17.3.2").exits(1).says(&["overlaps"]);
    create("r1", "bridge,172.17.0.1", good).exits(1).says(&["address of the host's own bridge docker0"]);
    create("r1", "bridge,10.1.1.1", good).exits(1).says(&["no address in network bridge"]);
    create("r1", "nonesuch", good).exits(1).says(&["network nonesuch not found"]);
    create("a/b", "bridge", good).exits(1).says(&["invalid router name"]);
    create("r1", "bridge", "br-ex").exits(125).says(&["BRIDGE,ADDRESS/LENGTH,GATEWAY"]);
    create("r1", "bridge", "br-ex,fd00:1::2/64,fd00:1::1")
        .exits(125)
        .says(&["fd00:1::2 is an IPv6 address", "IPv4 only"]);
    create("r1", "bridge,fd00::9", good).exits(125).says(&["fd00::9 is an IPv6 address", "IPv4 only"]);
    host.minidock(&["network", "create", "--ipv4=false", "--ipv6", "--subnet", "fd00:9::/64", "six"]).ok();
    create("r1", "six", good)
        .exits(1)
        .says(&["network six has no IPv4 addresses", "IPv6 leaves the network by the host"]);
    host.minidock(&["network", "rm", "six"]).ok();
    assert!(host.minidock(&["router", "create", "--help"]).ok().out().contains("a router for IPv4"));
    host.sh("ip netns add taken").ok();
    create("taken", "bridge", good).exits(1).says(&["network namespace taken is there already"]);
    assert!(host.sh("ip netns list").ok().out().contains("taken"), "another's namespace stays");
    host.sh("ip netns del taken; umount /run/netns").ok();

    create("r1", "bridge", good).ok();
    create("r1", "bridge", good).exits(1).says(&["router r1 is there already", "minidock router rm r1"]);
    host.minidock(&["network", "rm", "bridge"]).exits(1);
    let add = |address: &str, container: &str| host.minidock(&["router", "floating", "add", "r1", address, container]);
    add("16.158.1.103", "nobody").exits(1).says(&["No such container: nobody"]);
    host.detached(&["--name", "vm", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "alone", "--network", "none", "busybox", "sleep", "1000"]);
    add("16.158.1.103", "alone").exits(1).says(&["not in network bridge"]);
    add("16.158.2.103", "vm").exits(1).says(&["no address of the outside network"]);
    add("16.158.1.100", "vm").exits(1).says(&["the router's own"]);
    add("16.158.1.1", "vm").exits(1).says(&["gateway's"]);
    add("16.158.1.103", "vm").ok();
    add("16.158.1.103", "vm").exits(1).says(&["belongs to container vm already"]);
    add("16.158.1.104", "vm").exits(1).says(&["has the address 16.158.1.103"]);
    host.minidock(&["router", "floating", "rm", "r1", "16.158.1.9"]).exits(1).says(&["has no address 16.158.1.9"]);
    host.minidock(&["router", "rm", "nobody", "r1"]).exits(1).says(&["No such router: nobody"]);
    assert_eq!(host.minidock(&["router", "ls", "-q"]).ok().out(), "");
    host.remove(&["vm", "alone"]);
    remove_outside_network(&host);
    host.finish();
}

/// Open vSwitch outside, as the lecture has it: its userspace datapath, so that the kernel needs no module.
#[test]
fn open_vswitch_carries_the_outside_leg() {
    let mut host = TestHost::new();
    let folder = host.work.join("ovs");
    std::fs::create_dir(&folder).unwrap();
    for name in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        host.set(name, folder.to_str().unwrap());
    }
    host.sh("cd $OVS_RUNDIR; exec >log 2>&1
         ovsdb-tool create conf.db /usr/share/openvswitch/vswitch.ovsschema
         ovsdb-server conf.db --remote=punix:db.sock --pidfile=o.pid --detach --log-file=o.log --no-chdir
         ovs-vsctl --no-wait init
         ovs-vswitchd unix:db.sock --pidfile=v.pid --detach --log-file=v.log --no-chdir
         ovs-vsctl add-br br-ex -- set bridge br-ex datapath_type=netdev
         ip link set br-ex up; ip addr add 16.158.1.1/24 dev br-ex")
        .ok();
    web(&host, "vm");
    let told = host.minidock(&[CREATE, &["--explain"]].concat()).ok().err();
    assert!(
        told.contains("ovs-vsctl -- add-port br-ex taprouterex -- set Interface taprouterex type=internal"),
        "{told}"
    );
    assert!(told.contains("ip link set taprouterex netns routerns"), "{told}");
    host.minidock(&["router", "floating", "add", "routerns", "16.158.1.103", "vm"]).ok();
    assert_eq!(fetch(&host.host, "16.158.1.103:80", "/index.html"), images::PAGE);
    let notes = host.sh("ovs-vsctl get Interface taprouterex external-ids").ok().out();
    assert!(notes.contains("iface-status=active") && notes.contains("attached-mac=\"02:52:10:9e:01:64\""), "{notes}");
    // A second router finds the lecture's name taken.
    let second = ["router", "create", "r2", "--inside", "bridge", "--outside", "br-ex,16.158.1.101/24,16.158.1.1"];
    host.minidock(&second).ok();
    assert_eq!(host.sh("ovs-vsctl list-ports br-ex | wc -l").ok().out(), "2");
    host.minidock(&["router", "rm", "routerns", "r2"]).ok();
    assert_eq!(host.sh("ovs-vsctl list-ports br-ex").ok().out(), "");

    // Killed after the port was noted: the switch's database outlives every process.
    for wish in ["before:4", "after:4", "after:3"] {
        let count = host.work.join(format!("writes-{wish}")).display().to_string();
        host.set("MINIDOCK_CRASH_COUNT", &count);
        host.set("MINIDOCK_CRASH", wish);
        host.minidock(CREATE);
        host.unset("MINIDOCK_CRASH");
        host.unset("MINIDOCK_CRASH_COUNT");
        assert_eq!(host.minidock(&["router", "ls", "-q"]).ok().out(), "");
        assert_eq!(host.sh("ovs-vsctl list-ports br-ex").ok().out(), "");
    }
    host.remove(&["vm"]);
    host.sh("cd $OVS_RUNDIR; ovs-vsctl del-br br-ex; for f in v.pid o.pid; do p=$(cat $f); kill $p; while [ -d /proc/$p ]; do sleep 0.01; done; done").ok();
    host.finish();
}

/// A container's monitor wakes only what serves its own networks, waits for nobody, and tells failures as events.
#[test]
fn a_sleeping_router_is_no_burden_for_containers() {
    let host = TestHost::new();
    outside_network(&host);
    host.detached(&["--name", "first", "busybox", "sleep", "1000"]);
    host.minidock(CREATE).ok();
    host.remove(&["first"]);
    reboot(&host);
    host.minidock(&["ps"]).ok();
    host.minidock(&["network", "create", "other"]).ok();
    let is_awake = || host.sh("ip netns list").ok().out().contains("routerns");
    host.minidock(&["run", "--rm", "--network", "other", "busybox", "true"]).ok();
    assert!(!is_awake(), "it serves another network");
    // Another process has the routers' lock.
    let lock = std::fs::File::create(host.root.join("routers/.lock")).unwrap();
    lock.lock().unwrap();
    let id =
        host.detached(&["--name", "web", "busybox", "sh", "-c", "echo begin; sleep 1; echo tick; exec sleep 1000"]);
    // Not by a command, which would look for routers that are half made.
    let log = host.root.join("containers").join(&id).join("container.log");
    wait_until("its monitor goes on", || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("tick")));
    assert!(!is_awake());
    drop(lock);
    wait_until("it is woken once the lock is free", is_awake);
    host.remove(&["web"]);
    host.minidock(&["network", "rm", "other"]).ok();
    reboot(&host);
    host.minidock(&["ps"]).ok();
    remove_outside_network(&host);
    let told =
        || host.minidock(&["events", "--since", "1h", "--until", "0s"]).ok().out().matches("router problem").count();
    for _ in 0..2 {
        let run = host.minidock(&["run", "--rm", "busybox", "sleep", "1"]).ok();
        assert_eq!(run.err(), "", "the router is none of its matters");
        wait_until("the event is told", || told() > 0);
    }
    assert_eq!(told(), 1);
    host.minidock(&["router", "rm", "routerns"]).ok();
    host.finish();
}
