//! Other people's rules that drop our traffic: the user is told which and what to do, and what is told works. They're
//! never changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::command::wait_listening;
use host::net::{fetch_once, unreachable};
use host::{HOST, TestHost, images, within};

const SERVER: [&str; 6] = ["--name", "web", "busybox", "httpd", "-f", "-h"];

/// Which rules, what is told of them, and what to look at afterwards: they're as they were.
const FOREIGN: [(&str, &str, &str); 4] = [
    ("iptables -P FORWARD DROP", "table ip filter, chain FORWARD, policy drop", "iptables -S FORWARD | head -n 1"),
    (
        "iptables-legacy -P FORWARD DROP",
        "table ip filter of iptables-legacy, chain FORWARD, policy drop",
        "iptables-legacy -S FORWARD | head -n 1",
    ),
    (
        "nft add table inet theirs; nft 'add chain inet theirs pass { type filter hook forward priority 10; policy drop; }'",
        "table inet theirs, chain pass, policy drop",
        "nft list chain inet theirs pass | grep policy",
    ),
    (
        "nft add table ip theirs; nft 'add chain ip theirs pass { type filter hook forward priority -5; }'; \
         nft add chain ip theirs no; nft add rule ip theirs pass ip saddr 192.0.2.1 accept; \
         nft add rule ip theirs pass jump no; nft add rule ip theirs no counter reject",
        "table ip theirs, chain pass, rule `reject`",
        "nft list chain ip theirs no | grep -o reject",
    ),
];

#[test]
fn foreign_rules_that_drop_are_named_with_a_remedy_that_works() {
    for (foreign, told, look) in FOREIGN {
        let host = TestHost::new();
        host.sh(foreign).ok();
        let before = host.sh(look).ok().out();
        let run = host.minidock(&[&["run", "-d", "-p", "10080:80"], &SERVER[..], &["/www"]].concat()).ok();
        let warning = run.err();
        assert!(
            warning.starts_with("WARNING: another firewall drops") && warning.contains(told),
            "{foreign}: {warning}"
        );
        wait_listening(&host.inside("web"), 80);
        assert!(unreachable(&host.outside, &format!("{HOST}:10080")), "{foreign}: it does drop");
        let inspected = host.minidock(&["network", "inspect", "bridge"]).ok().err();
        assert!(inspected.contains(told), "{foreign}: network inspect: {inspected}");
        let doctor = host.minidock(&["doctor"]).out();
        assert!(doctor.contains(told), "{foreign}: doctor: {doctor}");
        let (_, remedy) = warning.split_once("to let it pass: ").unwrap();
        host.sh(remedy).ok();
        let served = within(host::LIMIT, || {
            fetch_once(&host.outside, &format!("{HOST}:10080"), "/index.html").is_ok_and(|page| page == images::PAGE)
        });
        assert!(served, "{foreign}: the remedy `{remedy}` helps");
        host.minidock(&["exec", "web", "ping", "-c1", "-W30", host::OUTSIDE]).ok();
        assert_eq!(
            host.minidock(&["network", "inspect", "bridge"]).ok().err(),
            "",
            "{foreign}: nothing is in the way now"
        );
        assert!(!host.minidock(&["doctor"]).out().contains(told), "{foreign}: nor does doctor say so");
        assert_eq!(host.sh(look).ok().out(), before, "{foreign}: theirs is as it was");
        host.remove(&["web"]);
        host.discard();
    }
}

#[test]
fn rules_that_let_our_traffic_pass_are_no_obstacle() {
    let host = TestHost::new();
    host.sh(
        "nft add table ip theirs; nft 'add chain ip theirs pass { type filter hook forward priority 10; policy drop; }'
         nft add rule ip theirs pass iifname '{ docker0, eth9 }' counter accept
         nft add rule ip theirs pass oifname docker0 accept; nft add rule ip theirs pass ip saddr 192.0.2.1 drop",
    )
    .ok();
    assert_eq!(host.minidock(&["run", "--rm", "busybox", "true"]).ok().err(), "");
    assert_eq!(host.minidock(&["network", "inspect", "bridge"]).ok().err(), "");
    host.discard();
}

/// The proxy's clients come to the host itself.
#[test]
fn foreign_rules_for_input_that_keep_clients_from_the_proxy_are_named() {
    let policy = "nft add table inet theirs; nft 'add chain inet theirs in { type filter hook input priority 10; policy drop; }'
                  nft add rule inet theirs in iifname lo accept; nft add rule inet theirs in ct state established,related accept";
    for (foreign, told) in [
        (policy, "table inet theirs, chain in, policy drop"),
        ("iptables -I INPUT -p tcp --dport 10080 -j DROP", "table ip filter, chain INPUT, rule `-p tcp"),
    ] {
        let host = TestHost::new();
        host.sh(foreign).ok();
        let flags = ["run", "-d", "--publish-mode", "proxy", "-p", "10080:80"];
        let warning = host.minidock(&[&flags[..], &SERVER[..], &["/www"]].concat()).ok().err();
        assert!(warning.contains("port 10080/tcp") && warning.contains(told), "{foreign}: {warning}");
        wait_listening(&host.inside("web"), 80);
        assert!(unreachable(&host.outside, &format!("{HOST}:10080")), "{foreign}: it does drop");
        assert!(host.minidock(&["network", "inspect", "bridge"]).ok().err().contains(told));
        assert!(host.minidock(&["doctor"]).out().contains(told));
        let (_, remedy) = warning.split_once("to let it pass: ").unwrap();
        host.sh(remedy).ok();
        let served = within(host::LIMIT, || {
            fetch_once(&host.outside, &format!("{HOST}:10080"), "/index.html").is_ok_and(|page| page == images::PAGE)
        });
        assert!(served, "{foreign}: the remedy `{remedy}` helps");
        assert_eq!(host.minidock(&["network", "inspect", "bridge"]).ok().err(), "");
        host.remove(&["web"]);
        host.discard();
    }
}

/// Nobody has asked; the container's monitor notices.
#[test]
fn a_foreign_rule_that_comes_later_is_told() {
    let host = TestHost::new();
    let flags = ["run", "-d", "-p", "0.0.0.0:10080:80"];
    assert_eq!(host.minidock(&[&flags[..], &SERVER[..], &["/www"]].concat()).ok().err(), "");
    assert_eq!(host.minidock(&["network", "ls"]).ok().err(), "");
    let events = || host.minidock(&["events", "--since", "1h", "--until", "0s"]).ok().out();
    assert!(!events().contains("obstacle"));
    let chain = "nft add table ip theirs; nft 'add chain ip theirs pass { type filter hook forward priority 10; }'";
    host.sh(&format!("{chain}; nft add rule ip theirs pass oifname docker0 drop")).ok();
    host::wait_until("the monitor tells it", || events().contains("network obstacle"));
    let told = "table ip theirs, chain pass, rule `oifname";
    assert!(events().contains(told), "{}", events());
    assert!(host.minidock(&["network", "ls"]).ok().err().contains(told));
    // Told once, whatever else changes.
    host.sh("nft add rule ip theirs pass ip saddr 192.0.2.1 accept").ok();
    host.sh("nft delete table ip theirs").ok();
    host::wait_until("nothing is in the way", || {
        host.sh("cat $MINIDOCK_ROOT/run/network/bridge/obstacles").ok().out().is_empty()
    });
    assert_eq!(host.minidock(&["network", "ls"]).ok().err(), "");
    assert_eq!(events().matches("network obstacle").count(), 1, "{}", events());
    host.remove(&["web"]);
    host.finish();
}
