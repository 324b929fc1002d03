//! `update`: other limits for a running container, felt by its processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::TestHost;

/// A container that was started without any limit, so that groups have to be made for it while it runs.
fn unlimited(host: &TestHost, script: &str) {
    host.detached(&["--name", "box", "busybox", "sh", "-c", script]);
}

#[test]
fn a_memory_limit_is_felt_by_a_process_that_runs() {
    let host = TestHost::new();
    // Fills 64 MiB once it is told to.
    unlimited(
        &host,
        "while [ ! -e /go ]; do sleep 0.05; done; head -c 67108864 /dev/zero | tail -c 67108864 >/dev/null; echo done",
    );
    assert_eq!(host.minidock(&["update", "-m", "16m", "--memory-swap", "16m", "box"]).ok().out(), "box");
    assert_eq!(host.inspect("box", "{{.HostConfig.Memory}}"), "16777216");
    host.minidock(&["exec", "box", "touch", "/go"]).exits_any(&[0, 137]); // its end may overtake touch
    host.wait_exited("box");
    let logs = host.minidock(&["logs", "box"]).ok();
    // While the tail's pages are being freed, the kernel may choose the shell too: then there's no word of it.
    if host.inspect("box", "{{.State.ExitCode}}") != "137" {
        assert_eq!(logs.out(), "done", "{}", logs.describe());
        assert!(logs.err().contains("Killed"), "the tail was not killed: {}", logs.describe());
    }
    // And the next run has it from the beginning.
    host.minidock(&["update", "-m", "32m", "--memory-swap", "32m", "box"]).ok();
    assert_eq!(host.inspect("box", "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"), "33554432 33554432");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn memory_limits_go_up_and_down() {
    let host = TestHost::new();
    host.detached(&["-m", "32m", "--name", "box", "busybox", "sleep", "1000"]);
    for size in ["64m", "24m", "128m"] {
        host.minidock(&["update", "-m", size, "--memory-swap", size, "box"]).ok();
    }
    host.minidock(&["update", "-m", "200m", "box"]).exits(1).says(&["memoryswap"]);
    assert_eq!(host.inspect("box", "{{.HostConfig.Memory}}"), "134217728");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_limit_of_processes_is_felt_and_taken_away_again() {
    let host = TestHost::new();
    unlimited(&host, "sleep 1000");
    let crowd = || host.minidock(&["exec", "box", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait"]);
    crowd().ok();
    host.minidock(&["update", "--pids-limit", "5", "box"]).ok();
    let refused = crowd();
    assert!(refused.err().contains("fork"), "{}", refused.describe());
    host.minidock(&["update", "--pids-limit", "-1", "box"]).ok();
    crowd().ok();
    host.remove(&["box"]);
    host.finish();
}

/// CPU time in clock ticks that the container's program has used: /proc/PID/stat, fields 14 and 15.
fn ticks(host: &TestHost) -> u64 {
    let stat = host::read(format!("/proc/{}/stat", host.pid("box")));
    stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_cpu_quota_slows_a_busy_program_down() {
    let host = TestHost::new();
    unlimited(&host, "while :; do :; done");
    host.minidock(&["update", "--cpus", "0.1", "box"]).ok();
    let (before, begin) = (ticks(&host), std::time::Instant::now());
    std::thread::sleep(std::time::Duration::from_secs(2)); // the time over which it's measured
    let (used, passed) = (ticks(&host) - before, begin.elapsed().as_secs_f64() * 100.0);
    assert!((used as f64) < passed * 0.2, "{used} ticks of {passed}");
    host::wait_until("it has its share", || ticks(&host) > before);
    host.minidock(&["update", "--cpu-quota", "50000", "box"]).exits(1).says(&["Conflicting options"]);
    host.minidock(&["update", "--cpu-shares", "512", "--blkio-weight", "300", "box"]).ok();
    assert_eq!(host.inspect("box", "{{.HostConfig.CpuShares}} {{.HostConfig.NanoCpus}}"), "512 100000000");
    if host::groups::version("blkio") == Some(host::groups::Version::V1) {
        assert_eq!(host::groups::value(&host, "box", "blkio", "blkio.bfq.weight", ""), "300");
    }
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_restart_policy_can_be_given_later() {
    let host = TestHost::new();
    unlimited(&host, "echo run; sleep 1000");
    host.minidock(&["update", "--restart", "always", "box"]).ok();
    assert_eq!(host.inspect("box", "{{.HostConfig.RestartPolicy.Name}}"), "always");
    host.sh(&format!("kill -9 {}", host.pid("box"))).ok();
    host::wait_until("it runs again", || host.minidock(&["logs", "box"]).out() == "run\nrun");
    host::wait_until("it is said to", || host.inspect("box", "{{.State.Status}}") == "running");
    host.minidock(&["update", "--restart", "no", "box"]).ok();
    host.sh(&format!("kill -9 {}", host.pid("box"))).ok();
    host.wait_exited("box");
    host.minidock(&["update", "box"]).exits(1).says(&["one or more flags"]);
    host.minidock(&["update", "--restart", "sometimes", "box"]).exits(1).says(&["unknown policy"]);
    host.minidock(&["update", "--memory", "1m", "box"]).exits(1).says(&["6MB"]);
    host.remove(&["box"]);
    host.detached(&["--rm", "--name", "box", "busybox", "sleep", "1000"]);
    host.minidock(&["update", "--restart", "always", "box"]).exits(1).says(&["AutoRemove is enabled"]);
    host.remove(&["box"]);
    host.finish();
}
