//! `walk` and `net graph` look into namespaces that containers fill as they like: no word of theirs becomes a command in what
//! the user is advised to type, none of their rules passes for minidock's, nothing of theirs speaks to the terminal. And what
//! is advised must work when it's typed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::command::wait_listening;
use host::{Firewall, HOST, TestHost};
use serde_json::Value;

const PAGES: [&str; 5] = ["busybox", "httpd", "-f", "-h", "/www"];

#[track_caller]
fn walk(host: &TestHost, words: &str, reached: bool) -> Value {
    let words: Vec<&str> = ["walk", "--format", "json"].into_iter().chain(words.split(' ')).collect();
    let output = host.minidock(&words).exits(i32::from(!reached));
    let report: Value = serde_json::from_str(&output.out()).unwrap();
    assert_eq!(report["outcome"]["reached"], reached, "{report:#}");
    report
}

fn remedy(report: &Value) -> String {
    report["outcome"]["remedy"].as_str().unwrap().to_owned()
}

/// Types what a walk advises, without what is in brackets.
#[track_caller]
fn take_advice(host: &TestHost, report: &Value) {
    host.sh(remedy(report).split(" (").next().unwrap()).ok();
}

fn served(firewall: Firewall) -> TestHost {
    let host = TestHost::with_firewall(firewall);
    host.detached(&[&["--name", "web", "--cap-add", "NET_ADMIN", "-p", "10080:80"], &PAGES[..]].concat());
    wait_listening(&host.inside("web"), 80);
    host
}

#[test]
fn no_word_of_a_containers_is_a_command() {
    let host = served(Firewall::Nftables);
    let target = format!("--from outside {HOST}:10080");
    // A comment that a shell would run, also where it stands in double quotes.
    for comment in ["$(reboot${IFS}-f)", "$(reboot -f)", "`reboot -f`", "a'b;reboot -f;'", "x\n-A INPUT --modprobe=/x"]
    {
        let comment = comment.replace('\'', "'\\''");
        host.sh(&format!(
            "ip netns exec web iptables -A INPUT -p tcp --dport 80 -m comment --comment '{comment}' -j DROP"
        ))
        .ok();
        let report = walk(&host, &target, false);
        assert_eq!(remedy(&report), "ip netns exec web iptables -t filter -D INPUT 1", "{report:#}");
        let text = host.minidock(&["walk", "--from", "outside", &format!("{HOST}:10080")]).exits(1).out();
        assert!(!text.contains("\"$(") && !text.contains("\"`") && !text.contains("\n-A"), "{text}");
        take_advice(&host, &report);
        walk(&host, &target, true);
    }
    // In the picture such a rule stands as a command.
    host.sh("ip netns exec web iptables -t nat -A POSTROUTING -m comment --comment '$(reboot -f)' -j MASQUERADE").ok();
    let picture = host.minidock(&["net", "graph"]).ok().out();
    assert!(picture.contains("iptables -t nat -A POSTROUTING -m comment --comment '$(reboot -f)' -j"), "{picture}");
    host.sh("ip netns exec web iptables -t nat -F POSTROUTING").ok();
    // A card's name.
    let rename = |from: &str, to: &str| {
        host.sh(&format!("ip -n web link set '{from}' down; ip -n web link set '{from}' name '{to}'")).ok();
    };
    rename("eth0", ";reboot;#");
    let report = walk(&host, &target, false);
    assert_eq!(remedy(&report), "ip netns exec web ip link set dev ';reboot;#' up", "{report:#}");
    take_advice(&host, &report);
    walk(&host, "web:80", true);
    rename(";reboot;#", "eth0");
    host.sh("ip -n web link set eth0 up; ip -n web route add default via 172.17.0.1").ok();
    walk(&host, &target, true);
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn nothing_of_a_containers_speaks_to_the_terminal() {
    let host = served(Firewall::Nftables);
    let escape = '\u{1b}';
    host.sh(&format!(
        "ip netns exec web nft -f - <<'EOF'\ntable ip own {{ chain in {{ type filter hook input priority 0; tcp dport 80 \
         drop comment \"{escape}[2Jx\n  -> reboot -f\"; }}; chain out {{ type nat hook postrouting priority 100; tcp dport 9 \
         masquerade comment \"{escape}[2Jx\n  ! reboot -f\"; }}; }}\nEOF"
    ))
    .ok();
    let text = host.minidock(&["walk", "--from", "outside", &format!("{HOST}:10080")]).exits(1).out();
    assert!(text.contains("its maker notes: ?[2Jx?  -> reboot -f"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("  -> ")).count(), 1, "{text}");
    let picture = host.minidock(&["net", "graph"]).ok().out();
    assert!(picture.contains("# ?[2Jx?  ! reboot -f"), "{picture}");
    for text in [text, picture] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
    host.remove(&["web"]);
    host.finish();
}

/// Tables and chains that a container calls like minidock's.
#[test]
fn a_containers_rules_are_not_minidocks() {
    let host = served(Firewall::Nftables);
    let target = format!("--from outside {HOST}:10080");
    host.sh("ip netns exec web nft -f - <<'EOF'\ntable ip minidock { chain in { type filter hook input priority 0; tcp dport 80 drop; }; }\nEOF").ok();
    let report = walk(&host, &target, false);
    assert!(remedy(&report).starts_with("ip netns exec web nft delete rule ip minidock in handle "), "{report:#}");
    assert!(!report["hops"].to_string().contains("minidock's own rule"), "{report:#}");
    take_advice(&host, &report);
    host.sh("ip netns exec web iptables -N MINIDOCK-GUARD; ip netns exec web iptables -A MINIDOCK-GUARD -j DROP").ok();
    host.sh("ip netns exec web iptables -A INPUT -p tcp --dport 80 -j MINIDOCK-GUARD").ok();
    let report = walk(&host, &target, false);
    assert_eq!(remedy(&report), "ip netns exec web iptables -t filter -D MINIDOCK-GUARD 1", "{report:#}");
    take_advice(&host, &report);
    walk(&host, &target, true);
    host.remove(&["web"]);
    host.finish();
}

/// A policy: the rule that is advised lets the probed flow pass, its answers too.
#[test]
fn what_lets_a_flow_pass_can_be_typed() {
    for firewall in Firewall::BOTH {
        let host = served(firewall);
        let target = format!("--from outside {HOST}:10080");
        let fence = "type filter hook forward priority -10; policy drop;";
        host.sh(&format!("nft add table inet corp; nft 'add chain inet corp fence {{ {fence} }}'")).ok();
        let report = walk(&host, &target, false);
        assert!(
            remedy(&report).contains("nft insert rule inet corp fence ip daddr 172.17.0.2 tcp dport 80 accept && ")
        );
        take_advice(&host, &report);
        walk(&host, &target, true);
        host.sh("nft delete table inet corp").ok();
        for (chain, undo) in [("INPUT", "ACCEPT"), ("OUTPUT", "ACCEPT")] {
            host.sh(&format!("ip netns exec web iptables -P {chain} DROP")).ok();
            let report = walk(&host, &target, false);
            let wanted = format!("ip netns exec web iptables -t filter -I {chain} -p tcp ");
            assert!(remedy(&report).starts_with(&wanted), "{report:#}");
            take_advice(&host, &report);
            walk(&host, &target, true);
            host.sh(&format!("ip netns exec web iptables -P {chain} {undo}")).ok();
        }
        host.remove(&["web"]);
        host.finish();
    }
}

#[test]
fn a_paused_container_is_told() {
    let host = served(Firewall::Nftables);
    host.minidock(&["pause", "web"]).ok();
    let text = |target: &str| {
        let report: Value = serde_json::from_str(&host.minidock(&["walk", "--format", "json", target]).out()).unwrap();
        report["outcome"].to_string()
    };
    for target in ["web:80", &format!("{HOST}:10080")] {
        let text = text(target);
        assert!(text.contains("web is paused") && text.contains("minidock unpause web"), "{text}");
    }
    host.minidock(&["unpause", "web"]).ok();
    assert!(!text("web:80").contains("paused"));
    host.remove(&["web"]);
    host.finish();
}
