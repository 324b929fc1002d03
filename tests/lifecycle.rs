//! The commands of a first hour: ps, inspect, logs, exec, stop, kill, rm, wait, port, version.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::{TestHost, wait_until};

#[test]
fn a_detached_container_is_seen_logged_stopped_and_removed() {
    let host = TestHost::new();
    let script = "trap 'echo bye; exit 0' TERM; echo hello; echo oops >&2; while :; do sleep 0.02; done";
    let id = host.detached(&["--name", "web", "busybox", "sh", "-c", script]);
    assert_eq!(host.minidock(&["ps", "-q", "--no-trunc"]).ok().out(), id);
    assert_eq!(host.minidock(&["ps", "-q"]).ok().out(), id[..12]);
    let table = host.minidock(&["ps"]).ok().out();
    let (head, row) = table.split_once('\n').unwrap();
    assert!(head.starts_with("CONTAINER ID   IMAGE     COMMAND"), "{head}");
    assert!(
        row.starts_with(&id[..12]) && row.contains("busybox") && row.contains("Up ") && row.ends_with("web"),
        "{row}"
    );
    wait_until("both lines are logged", || host.minidock(&["logs", "web"]).ok().err() == "oops");
    assert_eq!(host.minidock(&["logs", "web"]).ok().out(), "hello");
    assert_eq!(host.minidock(&["stop", "-t", "60", "web"]).ok().out(), "web");
    assert_eq!(host.inspect("web", "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}"), "exited 0 false");
    assert_eq!(host.minidock(&["logs", "web"]).ok().out(), "hello\nbye");
    assert_eq!(host.minidock(&["ps", "-q"]).ok().out(), "");
    assert!(host.minidock(&["ps", "-a"]).ok().out().contains("Exited (0)"));
    assert_eq!(host.minidock(&["rm", "web"]).ok().out(), "web");
    assert_eq!(host.minidock(&["ps", "-aq"]).ok().out(), "");
    host.finish();
}

#[test]
fn inspect_gives_the_pid_and_docker_s_fields() {
    let host = TestHost::new();
    let id = host.detached(&["--name", "web", "-p", "10080:80", "-e", "A=1", "-m", "64m", "busybox", "sleep", "1000"]);
    let pid = host.pid("web");
    assert_eq!(host::read(format!("/proc/{pid}/cmdline")), "sleep\x001000\0");
    assert_eq!(host.minidock(&["inspect", "--format={{ .State.Pid }}", &id[..12]]).ok().out(), pid.to_string());
    assert_eq!(host.inspect("web", "{{.Id}}"), id);
    assert_eq!(host.inspect("web", "{{.Name}}"), "/web");
    assert_eq!(host.inspect("web", "{{.HostConfig.Memory}}"), (64 << 20).to_string());
    assert!(host.inspect("web", "{{json .Config.Env}}").contains("\"A=1\""));
    assert_eq!(host.inspect("web", "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}"), "10080");
    assert_eq!(host.inspect("web", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"), host.address("web"));
    let whole: serde_json::Value = serde_json::from_slice(&host.minidock(&["inspect", "web"]).ok().stdout).unwrap();
    assert_eq!(whole[0]["State"]["Pid"], pid);
    host.minidock(&["inspect", "--format", "{{.State", "web"]).exits(64);
    host.minidock(&["inspect", "nobody"]).exits(1).says(&["nobody"]);
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn exec_runs_in_the_container_with_its_own_exit_code_input_user_and_environment() {
    let host = TestHost::new();
    host.detached(&[
        "--name",
        "box",
        "-e",
        "A=from-run",
        "-w",
        "/tmp",
        "--hostname",
        "inside",
        "busybox",
        "sleep",
        "1000",
    ]);
    let exec = |args: &[&str]| host.minidock(&[&["exec"], args].concat());
    assert_eq!(
        exec(&["box", "sh", "-c", "hostname; pwd; echo $A; cat /proc/1/cmdline | tr '\\0' ' '"]).ok().out(),
        "inside\n/tmp\nfrom-run\nsleep 1000 "
    );
    exec(&["box", "sh", "-c", "exit 5"]).exits(5);
    exec(&["box", "no-such-program"]).exits(127);
    exec(&["box", "/etc/passwd"]).exits(126);
    assert_eq!(
        exec(&["-e", "A=other", "-w", "/www", "-u", "student", "box", "sh", "-c", "echo $A; pwd; id -un"]).ok().out(),
        "other\n/www\nstudent"
    );
    let echoed = host.command(&["exec", "-i", "box", "cat"]).input("through").run().ok();
    assert_eq!(echoed.out(), "through");
    let status =
        exec(&["box", "grep", "-E", "^(CapInh|CapEff|CapBnd|Seccomp|NoNewPrivs):", "/proc/self/status"]).ok().out();
    let of_pid_1 =
        exec(&["box", "grep", "-E", "^(CapInh|CapEff|CapBnd|Seccomp|NoNewPrivs):", "/proc/1/status"]).ok().out();
    assert_eq!(status, of_pid_1, "exec gives no more rights than run");
    assert_eq!(
        exec(&["box", "sh", "-c", "cat /proc/self/cgroup"]).ok().out(),
        exec(&["box", "cat", "/proc/1/cgroup"]).ok().out()
    );
    exec(&["nobody", "true"]).exits(1).says(&["nobody"]);
    host.minidock(&["stop", "-t", "0", "box"]).ok();
    exec(&["box", "true"]).exits(1).says(&["not running"]);
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn exec_d_comes_back_at_once() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    host.minidock(&["exec", "-d", "box", "sh", "-c", "echo late >/tmp/late; exec sleep 1000"]).ok();
    wait_until("it has run", || host.minidock(&["exec", "box", "cat", "/tmp/late"]).out() == "late");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn logs_follow_until_the_end_and_tail_gives_the_last_lines() {
    let host = TestHost::new();
    host.detached(&["--name", "talk", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.05; done"]);
    let followed = host.minidock(&["logs", "-f", "talk"]).ok().out();
    assert_eq!(followed, "line 1\nline 2\nline 3\nline 4\nline 5");
    assert_eq!(host.minidock(&["logs", "--tail", "2", "talk"]).ok().out(), "line 4\nline 5");
    assert_eq!(host.minidock(&["logs", "-n", "0", "talk"]).ok().out(), "");
    let stamped = host.minidock(&["logs", "-t", "--tail", "1", "talk"]).ok().out();
    let (time, line) = stamped.split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && line == "line 5", "{stamped}");
    host.minidock(&["logs", "nobody"]).exits(1).says(&["nobody"]);
    host.remove(&["talk"]);
    host.finish();
}

#[test]
fn stop_asks_and_then_kills_and_uses_the_stop_signal() {
    let host = TestHost::new();
    host.detached(&["--name", "deaf", "busybox", "sh", "-c", "trap '' TERM; while :; do sleep 0.02; done"]);
    host.minidock(&["stop", "-t", "1", "deaf"]).ok();
    assert_eq!(host.inspect("deaf", "{{.State.ExitCode}}"), "137");
    let script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.02; done";
    host.detached(&["--name", "polite", "--stop-signal", "USR1", "busybox", "sh", "-c", script]);
    host.wait_logged("polite", "ready");
    host.minidock(&["stop", "-t", "60", "polite"]).ok();
    assert_eq!(host.inspect("polite", "{{.State.ExitCode}}"), "9");
    host.remove(&["deaf", "polite"]);
    host.finish();
}

#[test]
fn kill_sends_the_named_signal() {
    let host = TestHost::new();
    host.detached(&[
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.02; done",
    ]);
    wait_until("it is ready", || host.minidock(&["logs", "box"]).out() == "ready");
    host.minidock(&["kill", "-s", "SIGUSR1", "box"]).ok();
    wait_until("it has got it", || host.minidock(&["logs", "box"]).out() == "ready\nusr1");
    host.minidock(&["kill", "-s", "NONSENSE", "box"]).exits(1).says(&["NONSENSE"]);
    assert_eq!(host.minidock(&["kill", "box"]).ok().out(), "box");
    host.wait_exited("box");
    host.minidock(&["kill", "box"]).exits(1).says(&["not running"]);
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_running_container_is_removed_only_by_force() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    host.minidock(&["rm", "box"]).exits(1).says(&["box", "running"]);
    host.minidock(&["rm", "-f", "box"]).ok();
    host.minidock(&["rm", "box"]).exits(1).says(&["box"]);
    host.finish();
}

#[test]
fn a_name_in_use_is_refused_and_free_again_after_rm() {
    let host = TestHost::new();
    let id = host.detached(&["--name", "web", "busybox", "sleep", "1000"]);
    let refused = host.minidock(&["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).exits(125);
    refused.says(&["web", &id[..12]]);
    assert_eq!(host.minidock(&["ps", "-aq"]).ok().out().lines().count(), 1);
    host.remove(&["web"]);
    host.minidock(&["run", "--rm", "--name", "web", "busybox", "true"]).ok();
    host.minidock(&["run", "--rm", "--name", "web", "busybox", "true"]).ok();
    host.finish();
}

#[test]
fn of_many_runs_with_one_name_one_wins() {
    let host = TestHost::new();
    let runs: Vec<_> =
        (0..8).map(|_| host.spawn(&["run", "-d", "--name", "one", "busybox", "sleep", "1000"])).collect();
    let codes: Vec<i32> = runs.into_iter().map(|run| run.wait().code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| *code == 0 || *code == 125), "{codes:?}");
    host.remove(&["one"]);
    host.finish();
}

#[test]
fn a_container_is_found_by_the_beginning_of_its_id() {
    let host = TestHost::new();
    let id = host.detached(&["busybox", "sleep", "1000"]);
    assert_eq!(host.inspect(&id[..6], "{{.Id}}"), id);
    host.remove(&[&id[..8]]);
    host.finish();
}

#[test]
fn wait_prints_the_exit_code() {
    let host = TestHost::new();
    let id = host.detached(&["busybox", "sh", "-c", "sleep 0.1; exit 6"]);
    assert_eq!(host.minidock(&["wait", &id]).ok().out(), "6");
    host.remove(&[&id]);
    host.finish();
}

#[test]
fn port_tells_where_a_port_is_published() {
    let host = TestHost::new();
    host.detached(&["--name", "web", "-p", "10080:80", "-p", "127.0.0.1:10053:53/udp", "busybox", "sleep", "1000"]);
    let all = host.minidock(&["port", "web"]).ok().out();
    assert!(all.lines().any(|line| line == "80/tcp -> 0.0.0.0:10080"), "{all}");
    assert!(all.lines().any(|line| line == "53/udp -> 127.0.0.1:10053"), "{all}");
    assert_eq!(host.minidock(&["port", "web", "80"]).ok().out(), "0.0.0.0:10080\n[::]:10080");
    assert_eq!(host.minidock(&["port", "web", "53/udp"]).ok().out(), "127.0.0.1:10053");
    host.minidock(&["port", "web", "81"]).exits(1);
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn the_long_forms_are_the_short_ones() {
    let host = TestHost::new();
    let id = host.minidock(&["container", "run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok().out();
    assert_eq!(host.minidock(&["container", "ls", "-q", "--no-trunc"]).ok().out(), id);
    assert_eq!(host.minidock(&["container", "exec", "box", "echo", "hi"]).ok().out(), "hi");
    host.minidock(&["container", "stop", "-t", "0", "box"]).ok();
    host.minidock(&["container", "rm", "box"]).ok();
    assert!(host.minidock(&["image", "ls"]).ok().out().contains("busybox"));
    host.finish();
}

#[test]
fn version_and_help_are_printed_without_a_root() {
    let host = TestHost::bare();
    assert!(host.minidock(&["version"]).ok().out().contains(env!("CARGO_PKG_VERSION")));
    assert!(host.minidock(&["--version"]).ok().out().contains(env!("CARGO_PKG_VERSION")));
    assert!(host.minidock(&["--help"]).ok().out().contains("run"));
    assert!(host.minidock(&["run", "--help"]).ok().out().contains("--publish"));
    host.minidock(&["frobnicate"]).exits(1).says(&["frobnicate"]);
    host.finish();
}

#[test]
fn ps_filters_and_formats() {
    let host = TestHost::new();
    host.detached(&["--name", "front", "--label", "tier=front", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "back", "busybox", "true"]);
    host.wait_exited("back");
    let names = |args: &[&str]| host.minidock(&[&["ps", "--format", "{{.Names}}"], args].concat()).ok().out();
    assert_eq!(names(&[]), "front");
    assert_eq!(names(&["-a"]), "back\nfront", "the youngest first");
    assert_eq!(names(&["-a", "--filter", "status=exited"]), "back");
    assert_eq!(names(&["-a", "--filter", "label=tier=front"]), "front");
    assert_eq!(names(&["-a", "--filter", "name=ba"]), "back");
    host.remove(&["front", "back"]);
    host.finish();
}
