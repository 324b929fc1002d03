//! Other people's rules that drop our traffic: the user is told which and what to do, and what is told works. They're
//! never changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::collections::BTreeSet;
use std::time::{Instant, SystemTime};

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

fn events_of_obstacles(host: &TestHost) -> usize {
    host.minidock(&["events", "--since", "1h", "--until", "0s"]).ok().out().matches("network obstacle").count()
}

/// When a monitor has looked last.
fn last_look(host: &TestHost) -> Option<SystemTime> {
    let path = host.root.join("run/network/bridge/obstacles");
    path.metadata().ok().filter(|there| there.len() > 0).and_then(|there| there.modified().ok())
}

fn wait_for_a_look_after(host: &TestHost, change: &str) {
    host.sh(change).ok();
    let changed = SystemTime::now();
    host::wait_until("somebody looks after the change", || last_look(host).is_some_and(|look| look >= changed));
}

/// Whoever looks, looks for all containers of the network.
#[test]
fn a_container_without_a_proxy_does_not_take_back_what_is_told_of_another_s() {
    let host = TestHost::new();
    let sleep = ["busybox", "sleep", "1000"];
    host.detached(&[&["--name", "one", "--publish-mode", "proxy", "-p", "9001:80"], &sleep[..]].concat());
    host.detached(&[&["--name", "two", "--publish-mode", "proxy", "-p", "9002:80"], &sleep[..]].concat());
    host.detached(&[&["--name", "three"], &sleep[..]].concat());
    host.sh("nft add table inet fw; nft 'add chain inet fw in { type filter hook input priority 0; policy drop; }'")
        .ok();
    host::wait_until("it is told", || events_of_obstacles(&host) > 0);
    for change in ["nft add table ip t1", "nft add rule inet fw in tcp dport 22 accept"] {
        host.sh(change).ok();
        let changed = SystemTime::now();
        host::wait_until("somebody looks after the change", || {
            let told = host.minidock(&["network", "ls"]).ok().err();
            assert!(told.contains("table inet fw, chain in, policy drop"), "{change}: {told}");
            last_look(&host).is_some_and(|look| look >= changed)
        });
    }
    assert_eq!(events_of_obstacles(&host), 1);
    host.remove(&["one", "two", "three"]);
    host.discard();
}

/// A monitor must not read all rules of a busy host again and again; nor may it miss the last change.
#[test]
fn a_storm_of_changes_is_looked_at_every_few_seconds() {
    let host = TestHost::new();
    for (name, port) in [("one", "9001:80"), ("two", "9002:80"), ("three", "9003:80")] {
        host.detached(&["--name", name, "-p", port, "busybox", "sleep", "1000"]);
    }
    let begin = Instant::now();
    let mut looks = BTreeSet::new();
    for number in 0..12 {
        host.sh(&format!("nft add table ip t{number}")).ok();
        let changed = Instant::now();
        host::wait_until("half a second is over", || {
            looks.extend(last_look(&host));
            changed.elapsed().as_millis() > 500
        });
    }
    let most = 2 + begin.elapsed().as_secs() / 5;
    assert!((1..=most as usize).contains(&looks.len()), "{} looks, at most {most}", looks.len());
    wait_for_a_look_after(&host, "nft add chain ip t1 pass '{ type filter hook forward priority 10; policy drop; }'");
    assert!(host.minidock(&["network", "ls"]).ok().err().contains("table ip t1, chain pass, policy drop"));
    host.remove(&["one", "two", "three"]);
    host.discard();
}

#[test]
fn more_rules_than_a_monitor_reads_are_told_as_not_judged() {
    let host = TestHost::new();
    host.detached(&["--name", "one", "-p", "9001:80", "busybox", "sleep", "1000"]);
    let rules = (0..5000).map(|number| format!("ip saddr 10.0.{}.{} accept\n", number >> 8, number & 255));
    let table = format!("table ip big {{\nchain c {{\n{}}}\n}}", rules.collect::<String>());
    std::fs::write(host.work.join("big.nft"), table).unwrap();
    host.sh(&format!("nft -f {}", host.work.join("big.nft").display())).ok();
    host::wait_until("it is told", || events_of_obstacles(&host) > 0);
    let told = host.minidock(&["network", "ls"]).ok().err();
    assert!(told.contains("WARNING: network bridge: not judged: too many foreign rules"), "{told}");
    wait_for_a_look_after(&host, "nft add table ip t1");
    assert_eq!(events_of_obstacles(&host), 1);
    wait_for_a_look_after(&host, "nft delete table ip big");
    assert_eq!(host.minidock(&["network", "ls"]).ok().err(), "");
    host.remove(&["one"]);
    host.discard();
}
