//! What a start costs from spawn to the executed program. Prints a line; fails only where something is far off.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::host::{Container, Groups, isolated, wait};
use crate::{Stdio, init};

/// As the caller makes it: unshare, keep, go back.
fn new_netns() -> OwnedFd {
    let open = || OwnedFd::from(std::fs::File::open("/proc/self/ns/net").unwrap());
    let own = open();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let new = open();
    nix::sched::setns(own.as_fd(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    new
}

#[test]
fn a_start_takes_few_milliseconds() {
    isolated("speed::a_start_takes_few_milliseconds", |host| {
        let rounds = std::env::var("ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
        let mut times: Vec<[Duration; 4]> = Vec::new();
        for _ in 0..rounds {
            let container = Container::new(host, &["true"]);
            let begin = Instant::now();
            let plan = container.plan().unwrap();
            let planned = begin.elapsed();
            let _groups = Groups::make(&plan.cgroup).unwrap();
            let null = || OwnedFd::from(std::fs::File::options().read(true).write(true).open("/dev/null").unwrap());
            let stdio = Stdio::Pipes { stdin: null(), stdout: null(), stderr: null() };
            let early = std::env::var_os("NETNS_FIRST").map(|_| new_netns());
            let begin = Instant::now();
            let netns = early.unwrap_or_else(new_netns);
            let netted = begin.elapsed();
            let starting = init::spawn(&plan, stdio, init::Network::Made(netns.as_fd())).unwrap();
            let spawned = begin.elapsed();
            let running = starting.go().wait().unwrap();
            let running_after = begin.elapsed();
            times.push([planned, netted, spawned, running_after]);
            assert_eq!(wait(&running), 0);
        }
        for (index, what) in ["plan", "netns", "netns + spawn", "netns to exec"].iter().enumerate() {
            let mut column: Vec<_> = times.iter().map(|row| row[index]).collect();
            column.sort();
            println!("REPORT {what}: min {:?} median {:?}", column[0], column[column.len() / 2]);
        }
        let best = times.iter().map(|row| row[3]).min().unwrap();
        assert!(best < Duration::from_millis(60), "{best:?}");
    });
}
