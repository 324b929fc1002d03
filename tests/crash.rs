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

/// The network's journal, the container's journal and the reservation are written before there is a cleaner.
const WRITES_BEFORE_THE_CLEANER: usize = 3;

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
    assert!(host.leftovers(host::LIMIT).is_empty(), "a run without a crash leaves something");
    let writes = writes(&host);
    host.finish();
    writes
}

/// What a recovery by the next command must reach.
fn recover(mut host: TestHost) {
    host.unset("MINIDOCK_CRASH");
    host.unset("MINIDOCK_CRASH_COUNT");
    // A process that is just dying may hold its lock a moment longer, and the cleaner may still be at work (its container
    // is listed until it's done): then a command after the next recovers.
    let (mut left, mut listed) = (Vec::new(), String::new());
    for _ in 0..20 {
        listed = host.minidock(&["ps", "-aq"]).ok().out();
        left = host.leftovers(Duration::from_secs(3));
        if left.is_empty() && listed.is_empty() {
            break;
        }
    }
    assert_eq!(listed, "", "a half-made container is listed");
    assert!(left.is_empty(), "left over after the recovery:\n  {}", left.join("\n  "));
    // And the name, port and address can be used again.
    host.minidock(&[&["run"], FULL, &["busybox", "true"]].concat()).ok();
    host.finish();
}

/// How many of the writes come before the program runs.
fn count_of_the_start(firewall: Firewall) -> usize {
    let host = host_with(firewall, None);
    host.detached(&[FULL, &["busybox", "sleep", "1000"]].concat());
    let writes = writes(&host);
    host.remove(&["crash"]);
    host.finish();
    writes
}

/// Kills one process at each write. During the start it is the monitor: the cleaner takes over without any command
/// (unless it wasn't there yet: it is made after the reservation). Later the cleaner itself may be the killed one: the next command
/// recovers.
fn one_is_killed(firewall: Firewall, side: &str) {
    let (start, whole) = (count_of_the_start(firewall), count(firewall));
    assert!(start >= 3 && whole >= start, "{start} writes of the start, {whole} in all");
    for number in 1..=whole {
        let wish = format!("{side}:{number}");
        eprintln!("{wish} of {whole}, {start} of them at the start");
        let host = host_with(firewall, Some(&wish));
        live(&host);
        host::wait_until("the write is reached", || writes(&host) >= number);
        if number > WRITES_BEFORE_THE_CLEANER && number <= start {
            // The network's half-written journal is the network's: the next command sweeps it.
            let container_s = |line: &String| !line.ends_with("/journal.new");
            let mut left = Vec::new();
            host::within(host::LIMIT, || {
                left = host.leftovers(Duration::ZERO).into_iter().filter(container_s).collect();
                left.is_empty()
            });
            assert!(left.is_empty(), "the cleaner left, after {wish}:\n  {}", left.join("\n  "));
        }
        recover(host);
    }
}

/// Kills the whole process group at each write: the next command recovers.
fn all_are_killed(firewall: Firewall, side: &str) {
    let mut with_something_left = 0;
    for number in 1..=count(firewall) {
        let wish = format!("all-{side}:{number}");
        eprintln!("{wish}");
        let host = host_with(firewall, Some(&wish));
        live(&host);
        host::wait_until("the write is reached", || writes(&host) >= number);
        with_something_left += usize::from(!host.leftovers(Duration::from_millis(300)).is_empty());
        recover(host);
    }
    assert!(with_something_left >= 3, "only {with_something_left} of the crashes left anything to recover");
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

/// A container that is kept after its end: the journal is shortened at the end of the run, which is a write too.
#[test]
fn all_processes_killed_at_each_write_of_a_container_that_is_kept() {
    let kept: Vec<&str> = FULL.iter().copied().filter(|flag| *flag != "--rm").collect();
    let live = |host: &TestHost| {
        host.minidock(&[&["run"], &kept[..], &["busybox", "true"]].concat());
        // A plain `rm` writes that the anonymous volume stays. It has no process group of its own, and this test is in the one
        // that it would be killed with.
        host.sh(&format!("setsid -w {} rm -f crash || true", host::minidock().display())).ok();
    };
    let counting = host_with(Firewall::Nftables, None);
    live(&counting);
    let whole = writes(&counting);
    counting.finish();
    assert!(whole > count_of_the_start(Firewall::Nftables), "the end of the run is written");
    for side in ["all-before", "all-after"] {
        for number in 1..=whole {
            let wish = format!("{side}:{number}");
            eprintln!("{wish} of {whole}");
            let mut host = host_with(Firewall::Nftables, Some(&wish));
            live(&host);
            host::wait_until("the write is reached", || writes(&host) >= number);
            host.unset("MINIDOCK_CRASH");
            host.unset("MINIDOCK_CRASH_COUNT");
            host.minidock(&["ps", "-a"]).ok();
            host.minidock(&["rm", "-f", "crash"]); // where its end was reached, it is still listed
            recover(host);
        }
    }
}

/// Everything is killed at a moment of the undo, one after the other: the undo of `--rm` writes nothing, so that these
/// moments are found by the clock.
#[test]
fn all_processes_killed_at_any_moment_of_the_removal() {
    for step in 0_u64..40 {
        let host = TestHost::with_firewall(if step % 4 == 0 { Firewall::Iptables } else { Firewall::Nftables });
        let pause = Duration::from_micros(step * 400);
        eprintln!("{pause:?} after the order");
        host.detached(&[FULL, &["busybox", "sleep", "1000"]].concat());
        let remove = host.spawn(&["rm", "-f", "crash"]);
        std::thread::sleep(pause); // the moment is the input of this test, nothing is waited for
        host.kill_everything();
        drop(remove);
        recover(host);
    }
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

/// A `--rm` container isn't listed once it has ended, so nobody would ask again for a removal that failed.
#[test]
fn a_failed_removal_is_tried_again_by_the_next_command() {
    let host = TestHost::new();
    let id = host.detached(&["--rm", "--name", "crash", "busybox", "sleep", "1000"]);
    let busy = host.root.join("containers").join(&id).join("merged");
    host.sh(&format!("mount -t tmpfs busy {}", busy.display())).ok();
    host.minidock(&["rm", "-f", "crash"]);
    host.minidock(&["ps", "-a"]);
    assert!(busy.exists(), "what is mounted on can't be removed");
    host.sh(&format!("umount {}", busy.display())).ok();
    host.minidock(&["ps", "-a"]).ok();
    host.finish();
}

/// The recovery is killed at each of its writes, and recovered from by the one after it.
#[test]
fn a_recovery_that_is_killed_is_finished_by_the_next() {
    let last = count(Firewall::Nftables);
    // Each stage has several moments; what the first crash leaves differs by stage.
    for number in (1..=last).rev().step_by(3) {
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
