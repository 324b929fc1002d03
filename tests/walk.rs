//! `walk`: a real probe, told hop by hop by the kernel's own trace; and for each way of dying the rule or the missing piece
//! that killed it, and the way out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::command::wait_listening;
use host::{Firewall, HOST, OUTSIDE, TestHost};
use serde_json::Value;

/// `web` serves HTTP on port 80, published as 10080; `db` serves nothing.
fn prepared(firewall: Firewall) -> TestHost {
    let host = TestHost::with_firewall(firewall);
    host.detached(&["--name", "web", "-p", "10080:80", "busybox", "httpd", "-f", "-h", "/www"]);
    host.detached(&["--name", "db", "busybox", "sleep", "1000"]);
    wait_listening(&host.inside("web"), 80);
    host
}

fn end(host: TestHost) {
    host.remove(&["web", "db"]);
    host.finish();
}

/// The report of a walk that must reach (or not), as JSON.
#[track_caller]
fn walk(host: &TestHost, words: &str, reached: bool) -> Value {
    let words: Vec<&str> = ["walk", "--format", "json"].into_iter().chain(words.split(' ')).collect();
    let mut last = None;
    // The probe waits for a second and a half: on a loaded machine its answer may be late.
    host::within(host::LIMIT, || {
        let output = host.minidock(&words);
        let report: Value = serde_json::from_str(&output.out()).unwrap();
        let as_wished = report["outcome"]["reached"] == reached;
        last = Some((output, report));
        as_wished
    });
    let (output, report) = last.unwrap();
    output.exits(i32::from(!reached));
    assert_eq!(report["outcome"]["reached"], reached, "{}", pretty(&report));
    report
}

fn pretty(report: &Value) -> String {
    serde_json::to_string_pretty(report).unwrap()
}

/// Whether a hop has all these words somewhere.
fn has_hop(report: &Value, words: &[&str]) -> bool {
    let hops = report["hops"].as_array().unwrap().iter().chain(report["back"].as_array().unwrap());
    hops.into_iter().any(|hop| {
        let text = hop.to_string();
        words.iter().all(|word| text.contains(word))
    })
}

#[track_caller]
fn hop(report: &Value, words: &[&str]) {
    assert!(has_hop(report, words), "no hop with {words:?} in\n{}", pretty(report));
}

#[track_caller]
fn outcome(report: &Value, words: &[&str]) {
    let text = report["outcome"].to_string();
    for word in words {
        assert!(text.contains(word), "the end doesn't say {word:?}:\n{}", pretty(report));
    }
}

#[test]
fn a_published_port_from_outside() {
    for firewall in Firewall::BOTH {
        let host = prepared(firewall);
        let report = walk(&host, &format!("--from outside {HOST}:10080"), true);
        hop(&report, &["outside", "sends"]);
        hop(&report, &["uplink", "comes in"]);
        hop(
            &report,
            &[&format!("to {HOST}:10080 becomes to 172.17.0.2:80"), "because web was started with -p 10080:80"],
        );
        if firewall == Firewall::Iptables {
            hop(&report, &["-A DOCKER -p tcp -m tcp --dport 10080 -j DNAT --to-destination 172.17.0.2:80"]);
        }
        hop(&report, &["is passed on, by the route 172.17.0.0/16 dev docker0"]);
        hop(&report, &["docker0", "172.17.0.2 is at 02:42:ac:11:00:02, behind port veth", "the cable to eth0 of web"]);
        hop(&report, &["web", "comes in: 198.51.100."]);
        outcome(&report, &["connected", "httpd (pid ", "of web"]);
        let remembered = report["conntrack"].to_string();
        assert!(remembered.contains("172.17.0.2:80 -> 198.51.100."), "{remembered}");
        // The same for people.
        let text = host.minidock(&["walk", "--from", "outside", &format!("{HOST}:10080")]).ok().out();
        for wanted in
            ["tcp probe from outside (198.51.100.", "because web was started with -p 10080:80", "reached (connected)"]
        {
            assert!(text.contains(wanted), "no {wanted:?}:\n{text}");
        }
        end(host);
    }
}

#[test]
fn a_published_port_from_the_host_from_a_container_and_from_itself() {
    for firewall in Firewall::BOTH {
        let host = prepared(firewall);
        for target in [format!("{HOST}:10080"), "127.0.0.1:10080".to_owned(), "localhost:10080".to_owned()] {
            let report = walk(&host, &target, true);
            hop(&report, &["host", "sends"]);
            hop(&report, &["becomes to 172.17.0.2:80", "because web was started with -p 10080:80"]);
            outcome(&report, &["connected", "of web"]);
        }
        let report = walk(&host, "127.0.0.1:10080", true);
        hop(&report, &["from 127.0.0.1:", "becomes from 172.17.0.1:"]);
        // Hairpin: from another container, and from the very one.
        for from in ["db", "web"] {
            let report = walk(&host, &format!("--from {from} {HOST}:10080"), true);
            hop(&report, &[from, "sends"]);
            hop(&report, &["host", "docker0", "comes in"]);
            hop(&report, &["becomes to 172.17.0.2:80", "because web was started with -p 10080:80"]);
            hop(&report, &["becomes from 172.17.0.1:"]);
            outcome(&report, &["connected", "of web"]);
        }
        // Without a published port, on the bridge itself.
        let report = walk(&host, "--from db web:80", true);
        hop(&report, &["behind port veth", "of web"]);
        end(host);
    }
}

#[test]
fn udp_answered_and_not() {
    let host = TestHost::new();
    host.detached(&["--name", "web", "-p", "10053:53/udp", "busybox", "sleep", "1000"]);
    let server = host::net::Server::udp(&host.inside("web"), "0.0.0.0:53");
    host.detached(&["--name", "db", "-p", "127.0.0.1:10054:54/udp", "busybox", "sleep", "1000"]);
    let report = walk(&host, &format!("--from outside {HOST}:10053/udp"), true);
    hop(&report, &["becomes to 172.17.0.2:53", "because web was started with -p 10053:53/udp"]);
    outcome(&report, &["answered by "]);
    drop(server);
    let report = walk(&host, "127.0.0.1:10054/udp", false);
    hop(&report, &["because db was started with -p 127.0.0.1:10054:54/udp"]);
    outcome(
        &report,
        &["refused", "nothing listens on udp port 54 in db", "minidock logs db; ip netns exec db ss -ltnu"],
    );
    end(host);
}

#[test]
fn ports_that_nobody_has() {
    let host = prepared(Firewall::Nftables);
    // Published, but nothing listens there.
    host.detached(&["--name", "deaf", "-p", "10081:81", "busybox", "sleep", "1000"]);
    let report = walk(&host, &format!("--from outside {HOST}:10081"), false);
    hop(&report, &["because deaf was started with -p 10081:81"]);
    outcome(&report, &["refused", "nothing listens on tcp port 81 in deaf"]);
    // Published, and the program listens on localhost only.
    host.detached(&["--name", "shy", "-p", "10082:82", "busybox", "httpd", "-f", "-p", "127.0.0.1:82"]);
    wait_listening(&host.inside("shy"), 82);
    let report = walk(&host, &format!("--from outside {HOST}:10082"), false);
    outcome(&report, &["listens on 127.0.0.1:82 only", "let the program listen on 0.0.0.0"]);
    // Not published at all: neither by the host's address nor straight to the container's.
    let report = walk(&host, &format!("--from outside {HOST}:80"), false);
    outcome(&report, &["refused", "port 80 of this host is not published", "listens on that port", "-p 80:80"]);
    let report = walk(&host, "--from outside web:80", false);
    outcome(
        &report,
        &[
            "dropped on host by the rule `drop` in ip minidock forward",
            "port 80 of web is not published",
            "-p HOSTPORT:80",
        ],
    );
    assert_eq!(report["outcome"]["killed_by"]["chain"], "forward", "{}", pretty(&report));
    // On the host only, by its own word.
    host.detached(&["--name", "local", "-p", "127.0.0.1:10083:80", "busybox", "httpd", "-f", "-h", "/www"]);
    wait_listening(&host.inside("local"), 80);
    walk(&host, "127.0.0.1:10083", true);
    let report = walk(&host, &format!("--from outside {HOST}:10083"), false);
    outcome(&report, &["refused"]);
    host.remove(&["deaf", "shy", "local"]);
    end(host);
}

/// A rule of somebody else is named with the command that takes it away, and that command works.
#[test]
fn a_foreign_rule_is_named_with_the_way_out() {
    for firewall in Firewall::BOTH {
        let host = prepared(firewall);
        let target = format!("--from outside {HOST}:10080");
        let remedy = |report: &Value| report["outcome"]["remedy"].as_str().unwrap().to_owned();

        host.sh("nft -f - <<'EOF'\ntable inet corp { chain fence { type filter hook forward priority -10; policy accept; ip saddr 198.51.100.0/24 tcp dport 80 counter drop comment \"ticket 4711\"; }; }\nEOF").ok();
        let report = walk(&host, &target, false);
        outcome(
            &report,
            &[
                "no answer",
                "dropped on host by the rule `ip saddr 198.51.100.0/24 tcp dport 80 drop` in inet corp fence",
                "nft delete rule inet corp fence handle",
            ],
        );
        hop(&report, &["corp fence", "ticket 4711"]);
        let command = remedy(&report);
        host.sh(command.split(" (").next().unwrap()).ok();
        walk(&host, &target, true);

        // The card's name counts, too: the probe seems to come in by the uplink.
        host.sh("nft add rule inet corp fence iifname uplink drop").ok();
        let report = walk(&host, &target, false);
        outcome(&report, &[r#"iifname \"uplink\" drop"#]);
        host.sh("nft delete table inet corp").ok();

        // By a policy.
        host.sh("nft -f - <<'EOF'\ntable inet corp { chain fence { type filter hook forward priority -10; policy drop; }; }\nEOF").ok();
        let report = walk(&host, &target, false);
        outcome(&report, &["dropped on host by the policy of the chain inet corp fence"]);
        host.sh("nft delete table inet corp").ok();

        // By iptables, in iptables' words.
        host.sh("iptables -I FORWARD -p tcp --dport 80 -j DROP").ok();
        let report = walk(&host, &target, false);
        outcome(
            &report,
            &[
                "-A FORWARD -p tcp -m tcp --dport 80 -j DROP",
                "iptables -t filter -D FORWARD -p tcp -m tcp --dport 80 -j DROP",
            ],
        );
        host.sh(&remedy(&report)).ok();
        // Inside the container, too.
        host.sh("ip netns exec web nft -f - <<'EOF'\ntable ip own { chain in { type filter hook input priority 0; tcp dport 80 reject; }; }\nEOF").ok();
        let report = walk(&host, &target, false);
        outcome(
            &report,
            &[
                "rejected on web by the rule `tcp dport 80 reject`",
                "ip netns exec web nft delete rule ip own in handle",
            ],
        );
        host.sh("ip netns exec web nft delete table ip own").ok();
        // The answer is dropped on its way back.
        host.sh("nft -f - <<'EOF'\ntable inet corp { chain fence { type filter hook forward priority -10; tcp sport 80 drop; }; }\nEOF").ok();
        let report = walk(&host, &target, false);
        outcome(&report, &["it reached httpd", "but the answer was dropped on host by the rule `tcp sport 80 drop`"]);
        host.sh("nft delete table inet corp").ok();
        walk(&host, &target, true);
        host.sh("iptables -D FORWARD -p tcp --dport 80 -j DROP 2>/dev/null || :").ok();
        end(host);
    }
}

#[test]
fn missing_pieces_are_named_with_the_way_out() {
    let host = prepared(Firewall::Nftables);
    let target = format!("--from outside {HOST}:10080");
    let cases = [
        (
            "sysctl -qw net.ipv4.ip_forward=0",
            vec!["net.ipv4.ip_forward is 0", "sysctl -w net.ipv4.ip_forward=1"],
            "sysctl -qw net.ipv4.ip_forward=1",
        ),
        (
            "ip route del 172.17.0.0/16; ip route del default",
            vec!["host has no route to 172.17.0.2"],
            &*format!("ip route add 172.17.0.0/16 dev docker0 src 172.17.0.1; ip route add default via {OUTSIDE}"),
        ),
        (
            "ip route add unreachable 172.17.0.2",
            vec!["a route that rejects packets to 172.17.0.2", "ip route del 172.17.0.2/32 unreachable"],
            "ip route del unreachable 172.17.0.2",
        ),
        (
            "ip netns exec web ip route del default",
            vec!["but the answer finds no way", "web has no route to 198.51.100."],
            "ip netns exec web ip route add default via 172.17.0.1",
        ),
        (
            "ip netns exec web ip link set eth0 down",
            vec!["eth0 of web, the cable to veth", "ip netns exec web ip link set dev eth0 up"],
            "ip netns exec web sh -c 'ip link set eth0 up; ip route add default via 172.17.0.1'",
        ),
        (
            "ip netns exec web ip addr del 172.17.0.2/16 dev eth0; ip neigh flush dev docker0",
            vec!["nobody on docker0 answers for 172.17.0.2"],
            "ip netns exec web sh -c 'ip addr add 172.17.0.2/16 dev eth0; ip route add default via 172.17.0.1'; ip neigh flush dev docker0",
        ),
    ];
    walk(&host, &target, true);
    for (change, words, back) in cases {
        host.sh(change).ok();
        let report = walk(&host, &target, false);
        outcome(&report, &words);
        host.sh(back).ok();
        walk(&host, &target, true);
    }
    // The sender itself has no way.
    host.sh("ip netns exec db ip route del default").ok();
    let report = walk(&host, &format!("--from db {OUTSIDE}:80"), false);
    outcome(&report, &["unreachable", &format!("db has no route to {OUTSIDE}"), "ip netns exec db ip route add"]);
    let report = walk(&host, "--from db 172.17.0.99:80", false);
    outcome(&report, &["nobody on eth0 answers for 172.17.0.99"]);
    end(host);
}

/// What keeps containers apart, and what keeps them from lying, with the way out; each by IPv4, and by IPv6 where there is
/// such a rule.
#[test]
fn isolation_is_named_with_the_way_out() {
    for firewall in Firewall::BOTH {
        let host = prepared(firewall);
        for words in [
            "--ipv6 --subnet 10.20.0.0/24 --subnet fd00:20::/64 front",
            "--subnet 10.30.0.0/24 -o com.docker.network.bridge.enable_icc=false apart",
        ] {
            host.minidock(&["network", "create"].into_iter().chain(words.split(' ')).collect::<Vec<_>>()).ok();
        }
        let flags = ["--ip", "10.20.0.9", "--ip6", "fd00:20::9"];
        host.detached(&[&["--name", "shop", "--network", "front"], &flags[..], &["busybox", "sleep", "1000"]].concat());
        for (name, address) in [("one", "10.30.0.8"), ("two", "10.30.0.9")] {
            host.detached(&["--name", name, "--network", "apart", "--ip", address, "busybox", "sleep", "1000"]);
        }
        // Another network.
        for target in ["10.20.0.9:80", "10.20.0.9:80/udp"] {
            let report = walk(&host, &format!("--from db {target}"), false);
            outcome(
                &report,
                &[
                    "dropped on host by the",
                    "db and shop have no network in common",
                    "minidock network connect front db",
                ],
            );
            assert!(!report["outcome"]["killed_by"].is_null(), "{}", pretty(&report));
        }
        // From outside to what isn't published, by IPv6.
        let report = walk(&host, "--from outside [fd00:20::9]:80", false);
        outcome(&report, &["dropped on host by the", "port 80 of shop is not published"]);
        // One network without icc.
        let report = walk(&host, "--from one 10.30.0.9:80", false);
        outcome(
            &report,
            &["the network apart keeps its containers apart", "enable_icc=false", "minidock network connect"],
        );
        // A container that lies about its address. (By iptables there's nothing to name: see the test of its own.)
        host.sh("ip netns exec db sh -c 'ip addr add 172.17.0.77/16 dev eth0; ip route replace default via 172.17.0.1 src 172.17.0.77'").ok();
        let report = walk(&host, &format!("--from db {OUTSIDE}:80"), false);
        outcome(&report, &["bridge minidock cards", "give db the address with --ip", "net-spoof=allow"]);
        host.sh(
            "ip netns exec db sh -c 'ip addr del 172.17.0.77/16 dev eth0; ip route replace default via 172.17.0.1'",
        )
        .ok();
        // Nothing listens, by IPv6.
        let report = walk(&host, "[fd00:20::9]:81", false);
        outcome(&report, &["refused", "nothing listens on tcp port 81 in shop"]);
        host.remove(&["shop", "one", "two"]);
        host.minidock(&["network", "rm", "front", "apart"]).ok();
        end(host);
    }
}

#[test]
fn a_stopped_container_and_the_reverse_path() {
    let host = prepared(Firewall::Nftables);
    // The host would answer by another card: rp_filter.
    let words =
        ["answers to 172.17.0.3 would leave by another card (rp_filter)", "sysctl -w net.ipv4.conf.all.rp_filter=2"];
    host.sh("sysctl -qw net.ipv4.conf.docker0.rp_filter=1; ip route add 172.17.0.3/32 dev uplink").ok();
    outcome(&walk(&host, &format!("--from db {OUTSIDE}:80"), false), &words); // not even ARP is answered
    let mac = host.sh("cat /sys/class/net/docker0/address").ok().out();
    host.sh(&format!("ip netns exec db ip neigh replace 172.17.0.1 lladdr {mac} dev eth0")).ok();
    let report = walk(&host, &format!("--from db {OUTSIDE}:80"), false);
    hop(&report, &["host", "docker0", "comes in"]);
    outcome(&report, &words);
    host.sh("ip route del 172.17.0.3/32").ok();
    // Stopped.
    host.minidock(&["stop", "-t", "0", "web"]).ok();
    host.minidock(&["walk", "web:80"]).exits(1).says(&["is not running", "minidock start web"]);
    let report = walk(&host, "172.17.0.2:80", false);
    outcome(&report, &["nobody on docker0 answers for 172.17.0.2", "minidock ps"]);
    let report = walk(&host, &format!("--from outside {HOST}:10080"), false);
    outcome(&report, &["refused", "nothing listens on tcp port 10080 of this host", "web, which published it"]);
    end(host);
}

/// The probe leaves this host: what is beyond can't be seen, but what came back can.
#[test]
fn the_way_out_of_a_container() {
    for firewall in Firewall::BOTH {
        let host = prepared(firewall);
        let server = host::net::Server::http(&host.outside, "0.0.0.0:8000");
        let report = walk(&host, &format!("--from db {OUTSIDE}:8000"), true);
        hop(&report, &["db", "sends 172.17.0.3:"]);
        hop(
            &report,
            &[
                "host",
                "from 172.17.0.3:",
                &format!("becomes from {HOST}:"),
                "containers leave with this host's address",
            ],
        );
        drop(server);
        end(host);
    }
}

/// Through a router's namespace, with the command that its rules come from.
#[test]
fn through_a_router() {
    for firewall in Firewall::BOTH {
        let host = prepared(firewall);
        host.sh("ip link add br-ex type bridge; ip link set br-ex up; ip netns add far
             ip link add f0 type veth peer name eth0 netns far; ip link set f0 master br-ex up
             ip -n far addr add 16.158.1.1/24 dev eth0; ip -n far link set eth0 up")
            .ok();
        host.minidock(&[
            "router",
            "create",
            "routerns",
            "--inside",
            "bridge",
            "--outside",
            "br-ex,16.158.1.100/24,16.158.1.1",
        ])
        .ok();
        host.minidock(&["router", "floating", "add", "routerns", "16.158.1.103", "web"]).ok();
        let report = walk(&host, "--from web 16.158.1.1:80", false);
        hop(
            &report,
            &[
                "routerns",
                "becomes from 16.158.1.103:",
                "because of minidock router floating add routerns 16.158.1.103 web",
            ],
        );
        outcome(&report, &["nothing listens on tcp 16.158.1.1:80 in far"]);
        // The way in, by the pair's other half; the router remembers what it has rewritten.
        host.sh("ip addr add 16.158.1.5/24 dev br-ex").ok();
        let report = walk(&host, "16.158.1.103:80", true);
        hop(&report, &["routerns", "to 16.158.1.103:80 becomes to 172.17.0.2:80", "router floating add"]);
        outcome(&report, &["connected", "of web"]);
        host.sh("ip addr del 16.158.1.5/24 dev br-ex").ok();
        host.minidock(&["router", "rm", "routerns"]).ok();
        host.sh("ip netns del far; ip link del br-ex; umount /run/netns").ok();
        end(host);
    }
}

/// Whatever happens to the walk, the kernel takes away what it has made: tables, the client's cable.
#[test]
fn a_killed_walk_leaves_nothing() {
    let host = prepared(Firewall::Nftables);
    host.sh("nft -f - <<'EOF'\ntable inet corp { chain fence { type filter hook forward priority -10; policy drop; }; }\nEOF").ok();
    let tables = || host.sh("nft list tables; ip netns exec web nft list tables").ok().out();
    let before = tables();
    let walking = host.spawn(&["walk", "--from", "outside", &format!("{HOST}:10080")]);
    host::wait_until("it traces", || tables().matches("minidock_walk").count() >= 3);
    assert!(host.sh("ip -br link").ok().out().contains("mdwalk"), "the client's cable is there");
    walking.signal(nix::sys::signal::Signal::SIGKILL);
    walking.wait();
    host::wait_until("the tables are gone", || tables() == before);
    host::wait_until("the cable is gone", || !host.sh("ip -br link").ok().out().contains("mdwalk"));
    host.sh("nft delete table inet corp").ok();
    end(host);
}

#[test]
fn what_cannot_be_walked_is_refused() {
    let host = TestHost::new();
    let walk = |words: &[&str]| host.minidock(&[&["walk"], words].concat());
    walk(&["nonsense"]).exits(1).says(&["no HOST:PORT"]);
    walk(&["nobody:80"]).exits(1).says(&["nobody is no address", "No such container"]);
    walk(&["127.0.0.1:80/sctp"]).exits(1).says(&["tcp and udp"]);
    walk(&["--from", "nobody", "127.0.0.1:80"]).exits(1).says(&["No such container: nobody"]);
    walk(&["--format", "svg", "127.0.0.1:80"]).exits(125).says(&["use text or json"]);
    host.finish();
}

#[test]
fn a_proxy_and_ipv6() {
    let host = TestHost::new();
    let proxy = ["--publish-mode", "proxy"];
    let server = ["busybox", "httpd", "-f", "-h", "/www"];
    host.detached(&[&["--name", "web", "-p", "10080:80"], &proxy[..], &server[..]].concat());
    wait_listening(&host.inside("web"), 80);
    let report = walk(&host, &format!("--from outside {HOST}:10080"), true);
    outcome(&report, &["that is the proxy of web", "minidock walk 172.17.0.2:80"]);
    let report = walk(&host, "172.17.0.2:80", true);
    hop(&report, &["behind port veth", "of web"]);

    host.minidock(&["network", "create", "--ipv6", "--subnet", "fd00:77::/64", "six"]).ok();
    host.detached(&[&["--name", "six6", "--network", "six", "--ip6", "fd00:77::7"], &server[..]].concat());
    host.detached(&["--name", "db", "--network", "six", "busybox", "sleep", "1000"]);
    wait_listening(&host.inside("six6"), 80);
    let report = walk(&host, "--from db [fd00:77::7]:80", true);
    hop(&report, &["fd00:77::7 is at ", "behind port veth", "of six6"]);
    outcome(&report, &["connected", "of six6"]);
    host.remove(&["web", "six6", "db"]);
    host.minidock(&["network", "rm", "six"]).ok();
    host.finish();
}
