//! The crash test of networks: minidock is killed right before and right after every journal write while networks are made,
//! joined by two cards, connected, disconnected and removed. Afterwards the next commands leave the host as it was.
//!
//! Needs a debug build; see `tests/crash.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::os::unix::process::CommandExt;
use std::time::Duration;

use host::{Firewall, TestHost};

/// A life with networks; what becomes of each command is anybody's guess when something is killed on the way.
fn live(host: &TestHost) {
    for line in [
        "network create --subnet 10.5.0.0/24 lan",
        "network create --ipv6 wan",
        "run -d --name crash --network lan --network wan -p 10080:80 busybox sleep 1000",
        "network connect --alias db bridge crash",
        "network disconnect lan crash",
        "network connect lan crash",
        "network disconnect bridge crash",
        "rm -f crash",
        "network rm lan wan",
    ] {
        // In a process group of its own: that is what may be killed.
        let mut command = host.command(&line.split(' ').collect::<Vec<_>>()).raw();
        command.process_group(0).output().unwrap();
    }
}

fn writes(host: &TestHost) -> usize {
    std::fs::read_to_string(host.work.join("writes")).unwrap_or_default().lines().count()
}

fn host_with(firewall: Firewall, wish: Option<&str>) -> TestHost {
    let mut host = TestHost::with_firewall(firewall);
    let count = host.work.join("writes").display().to_string();
    host.set("MINIDOCK_CRASH_COUNT", &count);
    if let Some(wish) = wish {
        host.set("MINIDOCK_CRASH", wish);
    }
    host
}

fn killed_at_every_write(firewall: Firewall, side: &str) {
    let counting = host_with(firewall, None);
    live(&counting);
    let whole = writes(&counting);
    counting.finish();
    assert!(whole > 12, "{whole} writes only");
    for number in 1..=whole {
        let wish = format!("{side}:{number}");
        eprintln!("{wish} of {whole}");
        let mut host = host_with(firewall, Some(&wish));
        live(&host);
        host.unset("MINIDOCK_CRASH");
        host.unset("MINIDOCK_CRASH_COUNT");
        // A process that is just dying may hold its lock a moment longer: then the command after the next recovers.
        let mut left = Vec::new();
        for _ in 0..20 {
            host.minidock(&["rm", "-f", "crash"]);
            host.minidock(&["network", "rm", "-f", "lan", "wan", "bridge"]);
            left = host.leftovers(Duration::from_secs(3));
            if left.is_empty() {
                break;
            }
        }
        assert!(left.is_empty(), "left over after {wish}:\n  {}", left.join("\n  "));
        // And the names and subnets can be used again.
        host.minidock(&["network", "create", "--subnet", "10.5.0.0/24", "lan"]).ok();
        host.minidock(&["network", "rm", "lan"]).ok();
        host.finish();
    }
}

#[test]
fn one_process_killed_after_each_write() {
    killed_at_every_write(Firewall::Nftables, "after");
}

#[test]
fn all_processes_killed_before_each_write() {
    killed_at_every_write(Firewall::Nftables, "all-before");
}

#[test]
fn all_processes_killed_after_each_write() {
    killed_at_every_write(Firewall::Nftables, "all-after");
}

#[test]
fn all_processes_killed_after_each_write_with_iptables() {
    killed_at_every_write(Firewall::Iptables, "all-after");
}
