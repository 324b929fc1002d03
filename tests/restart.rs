//! Restart policies, `restart`, and what ends them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::time::{Duration, Instant};

use host::TestHost;

fn runs(host: &TestHost, name: &str) -> usize {
    host.minidock(&["logs", name]).out().lines().filter(|line| *line == "run").count()
}

#[test]
fn on_failure_starts_it_so_often_and_no_more() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo run; exit 3"]);
    host::wait_until("it has run thrice", || runs(&host, "box") == 3);
    host.wait_exited("box");
    let template = "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}} {{.HostConfig.RestartPolicy.Name}}";
    assert_eq!(host.inspect("box", template), "exited 3 2 on-failure");
    host.detached(&["--name", "good", "--restart", "on-failure", "busybox", "sh", "-c", "echo run"]);
    host.wait_exited("good");
    assert_eq!((runs(&host, "good"), host.inspect("good", "{{.RestartCount}}")), (1, "0".into()));
    host.remove(&["box", "good"]);
    host.finish();
}

/// 100, 200, 400, 800 ms: the fifth run begins after 1.5 s at the earliest, and a loop without pauses would have had
/// dozens by then.
#[test]
fn the_pauses_double_and_stop_ends_the_loop_in_a_pause() {
    let host = TestHost::new();
    let begin = Instant::now();
    host.detached(&["--name", "box", "--restart", "always", "busybox", "sh", "-c", "echo run; exit 1"]);
    host::wait_until("it has run five times", || runs(&host, "box") >= 5);
    assert!(begin.elapsed() >= Duration::from_millis(1500), "after {:?}", begin.elapsed());
    // Looked at in one pause: one that ends meanwhile doesn't count, the next is twice as long.
    let pausing = || host.inspect("box", "{{.State.Status}} {{.RestartCount}}");
    host::wait_until("it was looked at in a pause", || {
        let pause = pausing();
        let template = "{{.State.Running}} {{.State.Restarting}} {{.State.Pid}} {{.State.ExitCode}}";
        let shown = host.inspect("box", template);
        let listed = host.minidock(&["ps", "--format", "{{.Status}}"]).ok().out();
        let (exec, rm) = (host.minidock(&["exec", "box", "true"]), host.minidock(&["rm", "box"]));
        if !pause.starts_with("restarting") || pausing() != pause {
            return false;
        }
        assert_eq!(shown, "true true 0 1");
        assert!(listed.starts_with("Restarting (1) "), "{listed}");
        exec.exits_any(&[1, 126]);
        rm.exits(1).says(&["container is restarting"]);
        true
    });
    // It doesn't wait for the pause's end: at least once in a few pauses that get longer it's back before.
    let prompt = (0..5).any(|_| {
        host::wait_until("it has run seven times", || runs(&host, "box") >= 7);
        host::wait_until("it is in a pause", || pausing().starts_with("restarting"));
        let begin = Instant::now();
        host.minidock(&["stop", "box"]).ok();
        let pause = Duration::from_millis(100) * (1 << (runs(&host, "box") - 1).min(9));
        let prompt = begin.elapsed() < pause / 2;
        if !prompt {
            host.remove(&["box"]);
            host.detached(&["--name", "box", "--restart", "always", "busybox", "sh", "-c", "echo run; exit 1"]);
        }
        prompt
    });
    assert!(prompt, "stop waits for the pause's end");
    assert_eq!(host.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 1");
    let before = runs(&host, "box");
    host.minidock(&["start", "box"]).ok();
    host::wait_until("it runs again", || runs(&host, "box") > before);
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_stopped_or_killed_container_is_not_started_by_its_policy() {
    let host = TestHost::new();
    for how in [&["stop", "-t", "0"][..], &["kill"], &["kill", "-s", "TERM"]] {
        let script = "trap 'exit 0' TERM; echo run; while :; do sleep 0.1; done";
        host.detached(&["--name", "box", "--restart", "always", "busybox", "sh", "-c", script]);
        host::wait_until("it runs", || runs(&host, "box") == 1);
        host.minidock(&[how, &["box"]].concat()).ok();
        host.wait_exited("box");
        assert_eq!(runs(&host, "box"), 1, "{how:?}");
        host.minidock(&["rm", "box"]).ok();
    }
    // A program that is killed by somebody else is started again.
    host.detached(&["--name", "box", "--restart", "unless-stopped", "busybox", "sh", "-c", "echo run; sleep 1000"]);
    let pid = host.pid("box");
    host.sh(&format!("kill -9 {pid}")).ok();
    host::wait_until("it runs again", || runs(&host, "box") == 2);
    host::wait_until("it is said to run", || host.inspect("box", "{{.State.Status}}") == "running");
    assert_ne!(host.pid("box"), pid);
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn ports_and_name_are_there_in_each_run_and_free_in_a_pause() {
    let host = TestHost::new();
    let script = "echo -e 'HTTP/1.0 200 OK\\r\\n\\r\\nhi' | nc -l -p 80; exit 1";
    host.detached(&["--name", "web", "--restart", "always", "-p", "10080:80", "busybox", "sh", "-c", script]);
    for _ in 0..3 {
        host::wait_until("it answers", || host.outside("curl -s -m 2 http://10.99.0.1:10080/").out() == "hi");
    }
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn restart_keeps_a_container_with_rm() {
    let host = TestHost::new();
    host.detached(&["--rm", "--name", "box", "busybox", "sh", "-c", "touch /mark; ls /mark; sleep 1000"]);
    let pid = host.pid("box");
    host.minidock(&["restart", "-t", "0", "box"]).ok();
    assert_ne!(host.pid("box"), pid);
    host.minidock(&["exec", "box", "ls", "/mark"]).ok();
    host.minidock(&["stop", "-t", "0", "box"]).ok();
    host::wait_until("it is gone", || host.minidock(&["ps", "-aq"]).ok().out().is_empty());
    host.finish();
}

#[test]
fn a_foreground_client_gets_the_first_exit_code() {
    let host = TestHost::new();
    let run =
        host.minidock(&["run", "--name", "box", "--restart", "always", "busybox", "sh", "-c", "echo run; exit 7"]);
    assert_eq!(run.exits(7).out(), "run");
    host::wait_until("it goes on without its client", || runs(&host, "box") >= 2);
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_killed_monitor_ends_the_loop_and_leaves_nothing_of_the_run() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "--restart", "always", "-p", "10080:80", "busybox", "sleep", "1000"]);
    host.sh(&format!("kill -9 {}", host.monitor("box"))).ok();
    host.wait_exited("box");
    host.minidock(&["start", "box"]).ok();
    host.remove(&["box"]);
    host.finish();
}

/// Its monitor can't be told that it is stopped: the way to it is gone.
fn unreachable(host: &TestHost) {
    let id = host.detached(&["--name", "box", "--restart", "always", "-p", "10080:80", "busybox", "sleep", "1000"]);
    std::fs::remove_file(host.root.join("containers").join(id).join("control")).unwrap();
}

#[test]
fn a_monitor_that_cannot_be_told_is_removed_by_force() {
    let host = TestHost::new();
    unreachable(&host);
    host.minidock(&["stop", "-t", "0", "box"]).exits(1).says(&["restart policy", "'minidock rm -f box'"]);
    assert_eq!(host.inspect("box", "{{.State.Status}}"), "running");
    host.minidock(&["rm", "-f", "box"]).ok();
    assert_eq!(host.minidock(&["ps", "-aq"]).ok().out(), "");
    host.finish();
}

#[test]
fn a_monitor_that_cannot_be_told_is_killed_with_its_program() {
    let host = TestHost::new();
    unreachable(&host);
    host.minidock(&["kill", "box"]).ok();
    host.wait_exited("box");
    host.minidock(&["start", "box"]).ok();
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn wrong_policies_are_refused() {
    let host = TestHost::new();
    host.minidock(&["run", "--restart", "sometimes", "busybox"]).exits(125).says(&["unknown policy 'sometimes'"]);
    host.minidock(&["run", "--rm", "--restart", "always", "busybox"]).exits(125).says(&["both --restart and --rm"]);
    host.finish();
}
