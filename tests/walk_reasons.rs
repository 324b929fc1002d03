//! `walk`: the reasons that it gives must be the true ones: names as the sender's name server knows them, who really listens,
//! addresses that nobody has, bridges that somebody has removed, rules of others by IPv6.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::command::wait_listening;
use host::{Firewall, HOST, OUTSIDE, TestHost};
use serde_json::Value;

const HOST6: &str = "fd00:99::1";
const OUTSIDE6: &str = "fd00:99::2";

/// The report of a walk that must reach (or not), as JSON.
#[track_caller]
fn walk(host: &TestHost, words: &str, reached: bool) -> Value {
    let words: Vec<&str> = ["walk", "--format", "json"].into_iter().chain(words.split(' ')).collect();
    let output = host.minidock(&words).exits(i32::from(!reached));
    let report: Value = serde_json::from_str(&output.out()).unwrap();
    assert_eq!(report["outcome"]["reached"], reached, "{report:#}");
    report
}

/// The end says all of these words, and none that begins with `!`.
#[track_caller]
fn outcome(report: &Value, words: &[&str]) {
    let text = report["outcome"].to_string();
    for word in words {
        match word.strip_prefix('!') {
            Some(word) => assert!(!text.contains(word), "the end says {word:?}:\n{report:#}"),
            None => assert!(text.contains(word), "the end doesn't say {word:?}:\n{report:#}"),
        }
    }
}

#[track_caller]
fn note(report: &Value, words: &str) {
    assert!(report["note"].as_str().is_some_and(|note| note.contains(words)), "the note isn't {words:?}:\n{report:#}");
}

fn create(host: &TestHost, words: &str) {
    host.minidock(&["network", "create"].into_iter().chain(words.split(' ')).collect::<Vec<_>>()).ok();
}

const PAGES: [&str; 5] = ["busybox", "httpd", "-f", "-h", "/www"];

#[test]
fn a_name_is_what_the_senders_name_server_says() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        for network in ["--subnet 10.20.0.0/24 front", "--subnet 10.30.0.0/24 back", "--subnet 10.40.0.0/24 far"] {
            create(&host, network);
        }
        let web = ["--name", "web", "--network", "front,ip=10.20.0.9", "--network", "back,ip=10.30.0.9,alias=shop"];
        host.detached(&[&web[..], &PAGES].concat());
        host.detached(&["--name", "db", "--network", "back", "busybox", "sleep", "1000"]);
        host.detached(&["--name", "lone", "--network", "far", "busybox", "sleep", "1000"]);
        host.detached(&["--name", "guest", "--network", "container:db", "busybox", "sleep", "1000"]);
        wait_listening(&host.inside("web"), 80);
        let short: String = host.inspect("web", "{{.Id}}").chars().take(12).collect();
        // The network that both are in, not the first one; by name, alias, short id, and with the network's name behind.
        for name in ["web", "Shop", &*short, "web.back"] {
            for from in ["db", "guest"] {
                let report = walk(&host, &format!("--from {from} {name}:80"), true);
                assert_eq!(report["target"], "10.30.0.9:80", "{report:#}");
                note(&report, &format!("{name} is 10.30.0.9 in network back, where {from} is, too"));
                outcome(&report, &["it reached ", "of web"]);
            }
        }
        // Nobody's: they have no network in common, and that is the reason, not icc.
        let report = walk(&host, "--from lone web:80", false);
        note(&report, "lone's name server knows no web: they share no network. In network front it is 10.20.0.9");
        outcome(&report, &["lone and web have no network in common", "minidock network connect front lone", "!icc"]);
        // Typed as the address in the other network: the one to take is told.
        let report = walk(&host, "--from db 10.20.0.9:80", false);
        outcome(&report, &["db isn't in the network front", "minidock walk --from db 10.30.0.9:80", "!icc"]);
        walk(&host, "--from db 10.30.0.9:80", true);
        // An alias of another network isn't known to a sender; this host has all of them.
        host.minidock(&["walk", "--from", "lone", "shop:80"]).exits(1).says(&["No such container: shop"]);
        let report = walk(&host, "shop:80", true);
        note(&report, "in network back shop is 10.30.0.9");
        let report = walk(&host, "web:80", true);
        note(&report, "web is 10.20.0.9 in network front (and 10.30.0.9 in network back)");
        host.remove(&["guest", "web", "db", "lone"]);
        host.minidock(&["network", "rm", "front", "back", "far"]).ok();
        host.finish();
    }
}

#[test]
fn the_proxy_is_the_monitor_and_not_whoever_is_called_so() {
    let host = TestHost::new();
    let pid_of_parent = |name: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid(name))).unwrap();
        status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap().to_owned()
    };
    // The demo's own server is a program called minidock.
    host.detached(&["--name", "own", "-p", "10080:80", "demo"]);
    host.detached(&["--name", "web", "--publish-mode", "proxy", "-p", "10081:80", "-p", "10082:82", "demo"]);
    wait_listening(&host.inside("own"), 80);
    wait_listening(&host.inside("web"), 80);
    for from in ["", "--from outside "] {
        let report = walk(&host, &format!("{from}{HOST}:10080"), true);
        outcome(&report, &["it reached ", "(pid ", ":80 of own", "!proxy"]);
        let report = walk(&host, &format!("{from}{HOST}:10081"), true);
        let monitor = format!("it reached the proxy in web's monitor (pid {})", pid_of_parent("web"));
        let inside = format!("minidock walk {}:80", host.address("web"));
        outcome(&report, &[&monitor, "10081 of host", "with this host's address", &inside]);
    }
    // What DNAT can't serve is the proxy's: IPv6 to a container without it.
    let report = walk(&host, "[::1]:10080", true);
    outcome(&report, &["the proxy in own's monitor", &format!("minidock walk {}:80", host.address("own"))]);
    // A proxy takes nobody before its container does.
    let report = walk(&host, &format!("{HOST}:10082"), false);
    outcome(&report, &["refused", "the proxy of web takes nobody: nothing listens on tcp port 82 in web", "logs web"]);
    // The monitor in its container's namespace is the name server.
    let report = walk(&host, "--from own 127.0.0.11:53/udp", true);
    outcome(&report, &[&format!("the name server in own's monitor (pid {})", pid_of_parent("own")), "!proxy"]);
    // Stopped: whose port it was.
    host.minidock(&["stop", "-t", "0", "own"]).ok();
    let report = walk(&host, &format!("{HOST}:10080"), false);
    outcome(&report, &["own, which published it, doesn't run", "minidock start own"]);
    host.remove(&["own", "web"]);
    host.finish();
}

#[test]
fn an_address_that_nobody_has() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        create(&host, "--ipv6 --subnet 10.20.0.0/24 --subnet fd00:20::/64 front");
        host.detached(&["--name", "web", "--network", "front", "-p", "10080:80", "busybox", "sleep", "1000"]);
        for from in ["", "--from web "] {
            for (address, asked) in [("10.20.0.99", "ARP"), ("[fd00:20::99]", "neighbour discovery")] {
                let report = walk(&host, &format!("{from}{address}:80"), false);
                let bare = address.trim_matches(['[', ']']);
                let nobody = format!("answers for {bare} (no answer to {asked}): nothing has that address");
                outcome(&report, &[&nobody, "minidock network inspect front", "!-p "]);
            }
        }
        let report = walk(&host, "--from outside 10.20.0.99:80", false);
        outcome(
            &report,
            &["nothing here has the address 10.20.0.99", "dropped on host", "minidock network inspect front", "!-p "],
        );
        // The gateway is looked for, not the address beyond.
        host.sh("ip -n web route replace default via 10.20.0.77").ok();
        let report = walk(&host, &format!("--from web {OUTSIDE}:80"), false);
        outcome(&report, &["nobody on eth0 answers for 10.20.0.77", "the gateway"]);
        host.remove(&["web"]);
        host.minidock(&["network", "rm", "front"]).ok();
        host.finish();
    }
}

#[test]
fn a_bridge_that_somebody_has_removed() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        host.detached(&[&["--name", "web", "-p", "10080:80"], &PAGES[..]].concat());
        host.detached(&["--name", "db", "busybox", "sleep", "1000"]);
        wait_listening(&host.inside("web"), 80);
        walk(&host, &format!("{HOST}:10080"), true);
        host.sh("ip link del docker0").ok();
        let web = ["web is cut off from network bridge: the bridge docker0 is gone; was it removed by hand?"];
        for words in ["127.0.0.1:10080", &format!("{HOST}:10080"), &format!("--from outside {HOST}:10080"), "web:80"] {
            outcome(&walk(&host, words, false), &[&web[..], &["minidock restart web ", "network repair"]].concat());
        }
        outcome(
            &walk(&host, &format!("--from db {OUTSIDE}:80"), false),
            &["db is cut off from network bridge", "minidock restart db "],
        );
        outcome(&walk(&host, "--from db web:80", false), &["minidock restart", " db", " web"]);
        // What it advises, helps.
        host.minidock(&["restart", "-t", "0", "web"]).ok();
        wait_listening(&host.inside("web"), 80);
        walk(&host, &format!("--from outside {HOST}:10080"), true);
        // A bridge that isn't there with no container at all.
        host.remove(&["web", "db"]);
        host.minidock(&["network", "rm", "bridge"]).ok();
        host.sh("ip route del default").ok();
        let report = walk(&host, "172.17.0.2:80", false);
        outcome(&report, &["no route to 172.17.0.2", "the bridge of network bridge", "isn't there"]);
        host.sh(&format!("ip route add default via {OUTSIDE}")).ok();
        host.finish();
    }
}

#[test]
fn the_name_servers_rules_are_shown_on_request_only() {
    let host = TestHost::new();
    host.detached(&[&["--name", "web"], &PAGES[..]].concat());
    host.detached(&["--name", "db", "busybox", "sleep", "1000"]);
    wait_listening(&host.inside("web"), 80);
    let plain = walk(&host, "--from db web:80", true)["hops"].clone();
    assert!(!plain.to_string().contains("minidock_names"), "{plain:#}");
    let all = walk(&host, "--names --from db web:80", true)["hops"].clone();
    assert!(all.to_string().contains("minidock_names"), "{all:#}");
    // Where they are what matters, they are there.
    let report = walk(&host, "--from db 127.0.0.11:53", true);
    assert!(report["hops"].to_string().contains("becomes to 127.0.0.11:65353"), "{report:#}");
    host.remove(&["web", "db"]);
    host.finish();
}

/// Rules of others, by IPv6: in nftables' and in ip6tables' words, by policy, inside a container, and the reverse path.
#[test]
fn foreign_rules_by_ipv6() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        host.sh(&format!("ip -6 addr add {HOST6}/64 dev uplink nodad; ip -6 route add default via {OUTSIDE6}")).ok();
        host.outside(&format!("ip -6 addr add {OUTSIDE6}/64 dev eth0 nodad")).ok();
        create(&host, "--ipv6 --subnet 10.20.0.0/24 --subnet fd00:20::/64 six");
        let web = ["--name", "web", "--network", "six,ip6=fd00:20::9", "-p", "10080:80"];
        host.detached(&[&web[..], &PAGES].concat());
        host.detached(&["--name", "db", "--network", "six", "busybox", "sleep", "1000"]);
        wait_listening(&host.inside("web"), 80);
        let target = format!("--from outside [{HOST6}]:10080");
        let report = walk(&host, &target, true);
        assert!(report["hops"].to_string().contains("because web was started with -p "), "{report:#}");
        let help = |report: &Value| {
            let remedy = report["outcome"]["remedy"].as_str().unwrap().split(" (").next().unwrap().to_owned();
            host.sh(&remedy).ok();
        };
        // nftables.
        let table = |rule: &str| {
            format!(
                "nft -f - <<'EOF'\ntable ip6 corp {{ chain fence {{ type filter hook forward priority -10; policy accept; {rule}; }}; }}\nEOF"
            )
        };
        host.sh(&table("tcp dport 80 drop comment \"ticket 6\"")).ok();
        let report = walk(&host, &target, false);
        outcome(
            &report,
            &["dropped on host by the rule `tcp dport 80 drop` in ip6 corp fence", "nft delete rule ip6 corp fence"],
        );
        assert!(report["hops"].to_string().contains("ticket 6"), "{report:#}");
        help(&report);
        walk(&host, &target, true);
        // ip6tables.
        host.sh("ip6tables -I FORWARD -p tcp --dport 80 -j DROP").ok();
        let report = walk(&host, &target, false);
        outcome(
            &report,
            &[
                "-A FORWARD -p tcp -m tcp --dport 80 -j DROP",
                "ip6tables -t filter -D FORWARD -p tcp -m tcp --dport 80 -j DROP",
            ],
        );
        help(&report);
        walk(&host, &target, true);
        // There's no rp_filter for IPv6: firewalls have a rule in its place. The answers would leave by another card.
        let reverse = |first: &str| {
            let rule = "meta nfproto ipv6 fib saddr . iif oif missing drop";
            let chain = format!("type filter hook prerouting priority raw; {first} {rule};");
            host.sh(&format!("nft -f - <<'EOF'\ntable inet rp {{ chain back {{ {chain} }}; }}\nEOF")).ok();
        };
        let db = host.inspect("db", "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}");
        reverse("icmpv6 type nd-neighbor-solicit accept;"); // as firewalld does it
        walk(&host, "--from db [fd00:20::9]:80", true);
        let question = format!("--from db [{HOST6}]:10080");
        walk(&host, &question, true);
        host.sh(&format!("ip -6 route add {db}/128 dev uplink")).ok();
        let report = walk(&host, &question, false);
        outcome(
            &report,
            &["dropped on host by the rule `", "fib saddr", "in inet rp back", "nft delete rule inet rp back"],
        );
        // Without that exception, not even the question who has the gateway's address is heard.
        host.sh(&format!(
            "nft delete table inet rp; ip -n db -6 neigh flush dev eth0; ip -6 route del {db}/128 dev uplink"
        ))
        .ok();
        walk(&host, &question, true);
        host.sh(&format!("ip -n db -6 neigh flush dev eth0; ip -6 route add {db}/128 dev uplink")).ok();
        reverse("");
        let report = walk(&host, &question, false);
        outcome(
            &report,
            &[&format!("answers to {db} would leave by another card"), "by uplink instead of", "in inet rp back"],
        );
        host.sh(&format!("nft delete table inet rp; ip -6 route del {db}/128 dev uplink")).ok();
        // Inside the container.
        host.sh("ip netns exec web nft -f - <<'EOF'\ntable ip6 own { chain in { type filter hook input priority 0; tcp dport 80 drop; }; }\nEOF").ok();
        let report = walk(&host, &target, false);
        outcome(
            &report,
            &["dropped on web by the rule `tcp dport 80 drop`", "ip netns exec web nft delete rule ip6 own in"],
        );
        host.remove(&["web", "db"]);
        host.minidock(&["network", "rm", "six"]).ok();
        host.sh(&format!("ip -6 route del default; ip -6 addr del {HOST6}/64 dev uplink; nft delete table ip6 corp"))
            .ok();
        host.outside(&format!("ip -6 addr del {OUTSIDE6}/64 dev eth0")).ok();
        host.finish();
    }
}
