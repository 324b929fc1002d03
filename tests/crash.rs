//! The crash test: minidock is killed right before and right after every single journal write, at the start, during the
//! undo, and during the recovery from an earlier crash. Afterwards the host is as it was before.
//!
//! Needs a debug build: `MINIDOCK_CRASH=[all-]before:N|[all-]after:N` kills the process (or its whole group) at its N-th
//! write, `MINIDOCK_CRASH_COUNT=FILE` gets a line for each write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::time::Duration;

use host::{Firewall, TestHost};

/// A run with everything that leaves something: name, lease, links, rules, limits, net_cls, a volume.
const FULL: &[&str] = &[
    "--rm",
    "--name",
    "crash",
    "-p",
    "10080:80",
    "-p",
    "10053:53/udp",
    "--pids-limit",
    "50",
    "--cpus",
    "1",
    "--net-cls",
    "1:10",
    "-v",
    "/volume",
];

/// A host whose first run will be killed; `None` as the wish only counts.
fn host_with(firewall: Firewall, wish: Option<&str>) -> TestHost {
    let mut host = TestHost::with_firewall(firewall);
    let count = host.work.join("writes").display().to_string();
    host.set("MINIDOCK_CRASH_COUNT", &count);
    if let Some(wish) = wish {
        host.set("MINIDOCK_CRASH", wish);
    }
    host
}

fn writes(host: &TestHost) -> usize {
    std::fs::read_to_string(host.work.join("writes")).unwrap_or_default().lines().count()
}

/// The whole life of a container; its outcome is anybody's guess when something is killed on the way.
fn live(host: &TestHost) -> String {
    host.minidock(&[&["run"], FULL, &["busybox", "true"]].concat()).describe()
}

/// How many journal writes a life has, all processes together.
fn count(firewall: Firewall) -> usize {
    let host = host_with(firewall, None);
    host.minidock(&[&["run"], FULL, &["busybox", "true"]].concat()).ok();
    assert!(host.leftovers(Duration::from_secs(8)).is_empty(), "a run without a crash leaves something");
    let writes = writes(&host);
    host.finish();
    writes
}

/// What a recovery by the next command must reach.
fn recover(mut host: TestHost) {
    host.unset("MINIDOCK_CRASH");
    host.unset("MINIDOCK_CRASH_COUNT");
    assert_eq!(host.minidock(&["ps", "-aq"]).ok().out(), "", "a half-made container is listed");
    let left = host.leftovers(Duration::from_secs(8));
    assert!(left.is_empty(), "left over after the recovery:\n  {}", left.join("\n  "));
    // And the name, port and address can be used again.
    host.minidock(&[&["run"], FULL, &["busybox", "true"]].concat()).ok();
    host.finish();
}

/// Kills one process at each write: the other one (or, when that was the last, the next command) cleans up.
fn one_is_killed(firewall: Firewall, side: &str) {
    let writes_of_a_life = count(firewall);
    assert!(writes_of_a_life >= 4, "the journal is written for each stage; {writes_of_a_life} writes");
    for number in 1..=writes_of_a_life {
        let wish = format!("{side}:{number}");
        eprintln!("{wish} of {writes_of_a_life}");
        let host = host_with(firewall, Some(&wish));
        live(&host);
        host::wait_until("the write is reached", || writes(&host) >= number);
        // The cleaner needs no command. When it is itself the killed one, nobody is left to act until the next.
        host.leftovers(Duration::from_millis(if number == 1 { 200 } else { 1500 }));
        recover(host);
    }
}

/// Kills the whole process group at each write: the next command recovers.
fn all_are_killed(firewall: Firewall, side: &str) {
    for number in 1..=count(firewall) {
        let wish = format!("all-{side}:{number}");
        eprintln!("{wish}");
        let host = host_with(firewall, Some(&wish));
        live(&host);
        host::wait_until("the write is reached", || writes(&host) >= number);
        recover(host);
    }
}

#[test]
fn one_process_killed_before_each_write_with_nftables() {
    one_is_killed(Firewall::Nftables, "before");
}

#[test]
fn one_process_killed_after_each_write_with_nftables() {
    one_is_killed(Firewall::Nftables, "after");
}

#[test]
fn all_processes_killed_before_each_write_with_nftables() {
    all_are_killed(Firewall::Nftables, "before");
}

#[test]
fn all_processes_killed_after_each_write_with_nftables() {
    all_are_killed(Firewall::Nftables, "after");
}

#[test]
fn one_process_killed_after_each_write_with_iptables() {
    one_is_killed(Firewall::Iptables, "after");
}

#[test]
fn all_processes_killed_before_each_write_with_iptables() {
    all_are_killed(Firewall::Iptables, "before");
}

#[test]
fn all_processes_killed_after_each_write_with_iptables() {
    all_are_killed(Firewall::Iptables, "after");
}

/// The monitor dies while its program runs; the cleaner takes over without any command.
#[test]
fn a_killed_monitor_is_cleaned_up_after_without_any_command() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        host.detached(&[FULL, &["busybox", "sleep", "1000"]].concat());
        let status = host::read(format!("/proc/{}/status", host.pid("crash")));
        let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_string();
        host.sh(&format!("kill -9 {monitor}")).ok();
        host.finish();
    }
}

/// The recovery is killed at each of its writes, and recovered from by the one after it.
#[test]
fn a_recovery_that_is_killed_is_finished_by_the_next() {
    let last = count(Firewall::Nftables);
    for number in 1..=last {
        for side in ["before", "after"] {
            for write in 1.. {
                let wish = format!("all-after:{number}");
                let mut host = host_with(Firewall::Nftables, Some(&wish));
                live(&host);
                host::wait_until("the write is reached", || writes(&host) >= number);
                let _ = std::fs::remove_file(host.work.join("writes"));
                let second = format!("{side}:{write}");
                eprintln!("{wish}, then {second} of the recovery");
                host.set("MINIDOCK_CRASH", &second);
                host.minidock(&["ps", "-a"]);
                let reached = writes(&host) >= write;
                recover(host);
                if !reached {
                    break; // the recovery has no more writes
                }
            }
        }
    }
}

/// The journal's own rules: what isn't ours is left alone.
#[test]
fn a_thing_of_somebody_else_under_a_journaled_name_is_left_alone() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    let card = host.sh("ip -o link show master docker0 | sed 's/^[0-9]*: //; s/@.*//'").ok().out();
    host.sh(&format!("kill -9 {0}; while [ -e /proc/{0}/root ]; do :; done", host.pid("box"))).ok();
    host::wait_until("the card is gone with its namespace", || host.sh(&format!("ip link show {card}")).code() != 0);
    host.sh(&format!("ip link add {card} type bridge")).ok(); // the same name, another's link
    host.minidock(&["rm", "-f", "box"]);
    host.sh(&format!("ip link show {card} && ip link del {card}")).ok();
    host.finish();
}
