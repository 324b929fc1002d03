//! A monitor that hangs: every command that talks to it comes back, says why, and there is a way out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::time::{Duration, Instant};

use host::{TestHost, wait_until};

/// A container whose monitor is stopped; gives the monitor.
fn stuck(host: &TestHost, name: &str, policy: &str) -> u32 {
    host.detached(&["--name", name, "--restart", policy, "busybox", "sleep", "1000"]);
    let monitor = host.monitor(name);
    host.sh(&format!("kill -STOP {monitor}")).ok();
    monitor
}

#[test]
fn commands_come_back_from_a_monitor_that_hangs_and_say_so() {
    let host = TestHost::new();
    host.minidock(&["network", "create", "lan"]).ok();
    let hangs = "doesn't answer; was it stopped with SIGSTOP?";
    let cases: [(&str, &str, &[&str], i32, &str); 12] = [
        ("c-always", "always", &["stop", "-t", "0", "c-always"], 1, hangs),
        ("c-restart", "no", &["restart", "-t", "0", "c-restart"], 1, hangs),
        ("c-pause", "no", &["pause", "c-pause"], 1, hangs),
        ("c-rename", "no", &["rename", "c-rename", "c-other"], 1, hangs),
        ("c-update", "no", &["update", "--restart", "always", "c-update"], 1, hangs),
        ("c-attach", "no", &["attach", "--no-stdin", "c-attach"], 1, hangs),
        ("c-connect", "no", &["network", "connect", "lan", "c-connect"], 1, hangs),
        ("c-leave", "no", &["network", "disconnect", "bridge", "c-leave"], 1, hangs),
        ("c-kill", "always", &["kill", "c-kill"], 0, ""),
        ("c-rm", "always", &["rm", "-f", "c-rm"], 0, ""),
        ("c-wait", "no", &["wait", "c-wait"], 1, hangs),
        // It is patient twice: with the question, and with the undo.
        ("c-stop", "no", &["stop", "-t", "0", "c-stop"], 1, "'minidock rm -f c-stop' ends it"),
    ];
    let monitors: Vec<u32> = cases.iter().map(|(name, policy, ..)| stuck(&host, name, policy)).collect();
    // All at once: each may take its time.
    let begin = Instant::now();
    let running: Vec<_> = cases.iter().map(|(_, _, words, ..)| host.spawn(words)).collect();
    // What needs no monitor goes on meanwhile.
    assert_eq!(host.minidock(&["exec", "c-pause", "echo", "in"]).ok().out(), "in");
    host.minidock(&["logs", "c-pause"]).ok();
    host.minidock(&["top", "c-pause"]).ok();
    assert_eq!(host.inspect("c-pause", "{{.State.Status}}"), "running");
    host.sh(&format!("kill -9 {}", host.pid("c-wait"))).ok();
    let mut removal = None;
    for ((name, _, words, code, text), running) in cases.iter().zip(running) {
        let mut running = running;
        let left = Duration::from_secs(100).saturating_sub(begin.elapsed());
        assert!(host::within(left, || running.has_ended()), "{words:?} doesn't come back");
        let output = running.wait().exits(*code);
        assert!(output.err().contains(text), "{words:?}: {}", output.err());
        if *name == "c-wait" {
            // The way out, here for one whose program has ended; c-rm's ran.
            removal = Some(host.spawn(&["rm", "-f", "c-wait"]));
        }
    }
    assert_eq!(host.minidock(&["ps", "-aqf", "name=c-rm"]).ok().out(), "");
    let mut removal = removal.expect("c-wait has come back");
    assert!(host::within(Duration::from_secs(100), || removal.has_ended()), "rm -f doesn't come back");
    removal.wait().ok();
    // Those that go on have lost nothing: what they were asked is done.
    let gone = ["c-rm", "c-kill", "c-wait"];
    for ((name, ..), monitor) in cases.iter().zip(monitors).filter(|(case, _)| !gone.contains(&case.0)) {
        assert!(host.sh(&format!("kill -CONT {monitor}")).code() == 0, "{name}");
    }
    wait_until("it has its new name", || host.minidock(&["inspect", "c-other"]).code() == 0);
    let ids = host.minidock(&["ps", "-aq"]).ok().out();
    host.remove(&ids.lines().collect::<Vec<_>>());
    host.minidock(&["network", "rm", "lan"]).ok();
    host.finish();
}
