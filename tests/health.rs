//! Health checks of images and flags, and `run -d --wait`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::time::Duration;

use host::{TestHost, wait_until};

const QUICK: [&str; 6] = ["--health-interval", "50ms", "--health-retries", "2", "--health-timeout", "60s"];

fn status(host: &TestHost, name: &str) -> String {
    host.inspect(name, "{{.State.Health.Status}}")
}

#[test]
fn a_check_is_starting_then_healthy_then_unhealthy_and_told_as_events() {
    let host = TestHost::new();
    let check = ["--health-cmd", "echo checked; test -e /ready"];
    let flags =
        [&["--name", "box"][..], &check, &QUICK, &["--health-start-period", "60s", "--health-start-interval", "50ms"]];
    host.detached(&[&flags.concat()[..], &["busybox", "sleep", "1000"]].concat());
    assert_eq!(status(&host, "box"), "starting");
    wait_until("a check has failed", || host.inspect("box", "{{len .State.Health.Log}}") != "0");
    assert_eq!(host.inspect("box", "{{.State.Health.FailingStreak}}"), "0", "not in the start period");
    assert!(host.minidock(&["ps", "--format", "{{.Status}}"]).ok().out().ends_with("(health: starting)"));
    host.minidock(&["exec", "box", "touch", "/ready"]).ok();
    wait_until("it is healthy", || status(&host, "box") == "healthy");
    assert!(host.minidock(&["ps", "--format", "{{.Status}}"]).ok().out().ends_with("(healthy)"));
    host.minidock(&["exec", "box", "rm", "/ready"]).ok();
    wait_until("it is unhealthy", || status(&host, "box") == "unhealthy");
    let checks = host.inspect("box", "{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}");
    assert!(checks.trim().ends_with("1 checked"), "{checks}");
    wait_until("it has failed twice at least", || host.inspect("box", "{{.State.Health.FailingStreak}}") != "1");
    let told = || -> Vec<String> {
        let events = std::fs::read_to_string(host.root.join("run/events.jsonl")).unwrap();
        events.split("health_status: ").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    };
    wait_until("both are told", || told().len() >= 2);
    assert_eq!(told(), ["healthy", "unhealthy"]);
    let test = host.inspect("box", "{{json .Config.Healthcheck.Test}} {{json .Config.Healthcheck.Interval}}");
    assert_eq!(test, r#"["CMD-SHELL","echo checked; test -e /ready"] 50000000"#);
    host.minidock(&["stop", "-t", "0", "box"]).ok();
    assert_eq!(status(&host, "box"), "unhealthy", "nobody checks it any more");
    host.minidock(&["start", "box"]).ok();
    assert_eq!(status(&host, "box"), "starting");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_check_that_hangs_is_killed_and_has_failed_and_holds_nobody_up() {
    let host = TestHost::new();
    let flags =
        ["--name", "box", "--health-cmd", "sleep 1000", "--health-interval", "50ms", "--health-timeout", "300ms"];
    host.detached(
        &[&flags[..], &["--health-retries", "1", "busybox", "sh", "-c", "while :; do echo x; sleep 0.05; done"]]
            .concat(),
    );
    wait_until("it is unhealthy", || status(&host, "box") == "unhealthy");
    let last = host.inspect("box", "{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}");
    assert!(last.starts_with("-1 Health check exceeded timeout"), "{last}");
    host.remove(&["box"]);
    // While a check hangs, the container ends and is removed at once: this one's time is longer than any command's.
    host.detached(&[
        "--name",
        "box",
        "--health-cmd",
        "sleep 1000",
        "--health-interval",
        "50ms",
        "--health-timeout",
        "1h",
        "busybox",
        "cat",
        "/dev/zero",
    ]);
    wait_until("a check hangs", || host.minidock(&["top", "box"]).out().contains("sleep 1000"));
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn the_image_s_check_is_taken_changed_or_switched_off() {
    let host = TestHost::new();
    let config = serde_json::json!({
        "Cmd": ["sh"], "Env": ["PATH=/bin"],
        "Healthcheck": { "Test": ["CMD", "sh", "-c", "exit 0"], "Interval": 50_000_000 },
    });
    let archive = host.work.join("checked.tar");
    std::fs::write(&archive, host::images::docker_archive(&[host::images::rootfs()], config, &["checked:latest"]))
        .unwrap();
    host.minidock(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    host.detached(&["--name", "box", "checked", "sleep", "1000"]);
    wait_until("it is healthy", || status(&host, "box") == "healthy");
    host.detached(&["--name", "none", "--no-healthcheck", "checked", "sleep", "1000"]);
    assert_eq!(host.inspect("none", "{{.State.Health}}"), "<nil>");
    host.remove(&["box", "none"]);
    host.finish();
}

#[test]
fn wrong_flags_are_refused() {
    let host = TestHost::new();
    let refused = |flags: &[&str], why: &str| {
        host.minidock(&[&["run"], flags, &["busybox", "true"]].concat()).exits(125).says(&[why]);
    };
    refused(&["--no-healthcheck", "--health-cmd", "true"], "--no-healthcheck conflicts");
    refused(&["--health-cmd", "true", "--health-interval", "1us"], "less than 1ms");
    refused(&["--health-cmd", "true", "--health-timeout", "soon"], "not a duration");
    refused(&["--health-cmd", "true", "--health-retries", "-1"], "cannot be negative");
    refused(&["--wait", "port"], "needs -d");
    refused(&["-d", "--wait", "luck"], "there are port");
    refused(&["-d", "--wait-timeout", "3s"], "needs --wait");
    host.finish();
}

#[test]
fn wait_returns_when_it_is_ready() {
    let host = TestHost::new();
    let serve = |answer: &str| {
        format!(
            "sleep 0.5; echo getting ready; while :; do printf 'HTTP/1.0 {answer}\\r\\n\\r\\nhi' | nc -l -p 80; done"
        )
    };
    let begin = std::time::Instant::now();
    let ok = serve("200 OK");
    host.detached(&[
        "--name",
        "one",
        "-p",
        "10080:80",
        "--wait",
        "port",
        "--wait",
        "log:ge[t]+ing",
        "busybox",
        "sh",
        "-c",
        &ok,
    ]);
    assert!(begin.elapsed() >= Duration::from_millis(500));
    assert_eq!(host::net::fetch(&host.outside, "10.99.0.1:10080", "/"), "hi");
    host.detached(&["--name", "two", "--expose", "80", "--wait", "http:/x", "busybox", "sh", "-c", &ok]);
    host.detached(&["--name", "three", "--network", "none", "--wait", "http:80/", "busybox", "sh", "-c", &ok]);
    let healthy =
        ["--health-cmd", "test -e /ok", "--wait", "healthy", "busybox", "sh", "-c", "sleep 0.3; touch /ok; sleep 1000"];
    host.detached(
        &[
            &["--name", "four"][..],
            &QUICK,
            &["--health-start-period", "60s", "--health-start-interval", "50ms"],
            &healthy,
        ]
        .concat(),
    );
    assert_eq!(status(&host, "four"), "healthy");
    host.remove(&["one", "two", "three", "four"]);
    host.finish();
}

#[test]
fn wait_fails_when_it_will_not_be_ready() {
    let host = TestHost::new();
    let run = |flags: &[&str], script: &str| {
        let words = [&["run", "-d", "--name", "box"], flags, &["busybox", "sh", "-c", script]].concat();
        host.minidock(&words).exits(125)
    };
    run(&["--wait", "port:80"], "exit 3").says(&["ended with exit code 3 before it was ready"]);
    host.remove(&["box"]);
    run(&["--rm", "--wait", "port:80"], "exit 3").says(&["before it was ready"]);
    run(&["--wait", "log:ready", "--wait-timeout", "300ms"], "sleep 1000").says(&["is not ready after 300ms", "log"]);
    assert_eq!(host.inspect("box", "{{.State.Status}}"), "running", "it may be looked at");
    host.remove(&["box"]);
    // The server may be late on a loaded machine: then nothing listens yet.
    let told = ["1", "5", "25"].iter().any(|seconds| {
        let script = "while :; do printf 'HTTP/1.0 500 No\\r\\n\\r\\n' | nc -l -p 80; done";
        let output = run(&["--wait", "http:80/", "--wait-timeout", seconds], script);
        host.remove(&["box"]);
        output.err().contains("no good answer to GET /")
    });
    assert!(told, "the reason is the server's answer");
    run(&["--wait", "healthy"], "sleep 1000").says(&["has no health check"]);
    run(&[&["--wait", "healthy", "--health-cmd", "echo broken; false"][..], &QUICK].concat(), "sleep 1000")
        .says(&["is unhealthy: broken"]);
    host.remove(&["box"]);
    run(&["--wait", "port"], "sleep 1000").says(&["neither -p, --expose nor the image names a TCP port"]);
    assert_eq!(host.minidock(&["ps", "-aq"]).ok().out(), "", "what is known beforehand makes no container");
    host.finish();
}

#[test]
fn health_checks_and_exec_have_the_containers_limit_of_open_files() {
    let host = TestHost::new();
    // The monitor raises its own for the name server and proxies; the program keeps what its starter had.
    let flags = format!("--name box -p 18080:80 --publish-mode proxy --health-cmd 'ulimit -n' {}", QUICK.join(" "));
    let minidock = host::minidock();
    host.sh(&format!("ulimit -Sn 200; {} run -d {flags} busybox sleep 1000", minidock.display())).ok();
    assert_eq!(host.minidock(&["exec", "box", "sh", "-c", "ulimit -n"]).ok().out(), "200");
    let hard = host.minidock(&["exec", "box", "sh", "-c", "ulimit -Hn"]).ok().out();
    let of_program = host::read(format!("/proc/{}/limits", host.pid("box")));
    assert!(of_program.lines().any(|line| line.starts_with("Max open files") && line.contains(&hard)), "{of_program}");
    wait_until("it is healthy", || status(&host, "box") == "healthy");
    let monitor = host::read(format!("/proc/{}/limits", host.monitor("box")));
    assert!(!monitor.lines().any(|line| line.starts_with("Max open files ") && line.contains(" 200 ")), "{monitor}");
    assert_eq!(host.inspect("box", "{{with index .State.Health.Log 0}}{{.Output}}{{end}}").trim(), "200");
    // Its own wish stands above that.
    host.detached(&["--name", "few", "--ulimit", "nofile=50:60", "busybox", "sleep", "1000"]);
    assert_eq!(host.minidock(&["exec", "few", "sh", "-c", "ulimit -n; ulimit -Hn"]).ok().out(), "50\n60");
    host.remove(&["box", "few"]);
    host.finish();
}
