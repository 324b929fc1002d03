//! `minidock session` and `minidock boot`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::{TestHost, minidock, wait_until};

fn listed(host: &TestHost) -> String {
    host.minidock(&["ps", "-a", "--format", "{{.Names}}"]).ok().out()
}

fn script(lines: &str) -> String {
    format!("m={}; {lines}", minidock().display())
}

#[test]
fn containers_of_a_session_are_gone_when_its_command_has_ended() {
    let host = TestHost::new();
    host.detached(&["--name", "other", "busybox", "sleep", "1000"]);
    let lines = script(
        "$m run -d --name one --restart always -p 10080:80 busybox sleep 1000 >&2; $m run --name two busybox true; \
         $m create --name three busybox true >&2; $m run -d --name four busybox sleep 1000 >&2; $m pause four >&2; \
         $m ps -a --format '{{.Names}}'; exit 7",
    );
    let session = host.minidock(&["session", "--", "sh", "-c", &lines]).exits(7);
    let mut seen: Vec<String> = session.out().lines().map(str::to_string).collect();
    seen.sort();
    assert_eq!(seen, ["four", "one", "other", "three", "two"], "they stay while it runs");
    assert_eq!(listed(&host), "other", "and are gone when the command returns");
    host.minidock(&["session", "/no/such"]).exits(127);
    host.minidock(&["session", "sh", "-c", "kill -9 $$"]).exits(137);
    host.command(&["run", "--rm", "busybox", "true"])
        .env("MINIDOCK_SESSION", "1:1")
        .run()
        .exits(125)
        .says(&["has ended"]);
    host.remove(&["other"]);
    host.finish();
}

#[test]
fn they_are_gone_whoever_is_killed() {
    let host = TestHost::new();
    let lines =
        script("$m run -d --name one busybox sleep 1000; $m run --name two busybox true; echo made; exec sleep 1000");
    for victims in ["command", "minidock", "keeper too", "monitors too"] {
        let session = host.spawn(&["session", "--", "sh", "-c", &lines]);
        wait_until("the containers are made", || session.stdout().contains("made"));
        let children = host::read(format!("/proc/{0}/task/{0}/children", session.pid()));
        let mut children = children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap());
        let (command, keeper) = (children.next().unwrap(), children.next().unwrap());
        let status = host::read(format!("/proc/{}/status", host.pid("one")));
        let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_string();
        let own = session.pid();
        let pids = match victims {
            "command" => format!("{command}"),
            "minidock" => format!("{own} {command}"),
            "keeper too" => format!("{own} {keeper} {command}"),
            _ => format!("{own} {keeper} {monitor} {command}"),
        };
        host.sh(&format!("kill -9 {pids}")).ok();
        if victims == "command" {
            session.wait().exits(137);
        }
        let folders = || std::fs::read_dir(host.root.join("containers")).unwrap().count();
        match victims {
            // The cleaner may look before the last of them is dead: then the next command removes them.
            "monitors too" => {}
            // The one that had ended is nobody's any more: the next command removes it.
            "keeper too" => wait_until("the running one is gone by itself", || folders() <= 1),
            _ => wait_until("both are gone by themselves", || folders() == 0),
        }
        // A monitor that is still at its undo is listed until it's done.
        wait_until("no container is listed", || listed(&host).is_empty());
    }
    host.finish();
}

#[test]
fn boot_starts_what_its_policy_wants() {
    let host = TestHost::new();
    for (name, policy) in [("always", "always"), ("unless", "unless-stopped"), ("failed", "on-failure"), ("none", "no")]
    {
        host.detached(&["--name", name, "--restart", policy, "busybox", "sleep", "1000"]);
    }
    host.detached(&["--name", "stopped1", "--restart", "always", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "stopped2", "--restart", "unless-stopped", "busybox", "sleep", "1000"]);
    host.detached(&[
        "--name",
        "joined",
        "--restart",
        "always",
        "--network",
        "container:always",
        "busybox",
        "sleep",
        "1000",
    ]);
    host.minidock(&["create", "--name", "created", "--restart", "always", "busybox", "sleep", "1000"]).ok();
    host.minidock(&["stop", "-t", "0", "stopped1", "stopped2"]).ok();
    host.kill_everything();
    let mut started: Vec<String> = host.minidock(&["boot"]).ok().out().lines().map(str::to_string).collect();
    started.sort();
    assert_eq!(started, ["always", "failed", "joined", "stopped1", "unless"]);
    let mut running: Vec<String> =
        host.minidock(&["ps", "--format", "{{.Names}}"]).ok().out().lines().map(str::to_string).collect();
    running.sort();
    assert_eq!(running, started);
    assert_eq!(host.minidock(&["boot"]).ok().out(), "", "nothing is left to be started");
    host.remove(&["always", "unless", "failed", "none", "stopped1", "stopped2", "joined", "created"]);
    host.finish();
}

/// The line that systemd runs when the unit stops, with this engine and a `systemctl` that says what the machine does.
fn unit_stops(host: &TestHost, machine_is: &str) {
    let unit = include_str!("../systemd/minidock-boot.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStop=")).unwrap();
    let line = line.replace("/usr/local/bin/minidock", env!("CARGO_BIN_EXE_minidock"));
    let script = format!(
        "mkdir -p fake; printf '#!/bin/sh\\necho {machine_is}\\n' >fake/systemctl; chmod +x fake/systemctl; \
         export MINIDOCK_ROOT={}; PATH=$PWD/fake:$PATH; {line}",
        host.root.display()
    );
    host.sh(&script).ok();
}

#[test]
fn the_machine_going_down_stops_all_and_the_next_boot_starts_them() {
    let host = TestHost::new();
    let polite = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.02; done";
    let policies = [("polite", "unless-stopped"), ("always", "always"), ("none", "no")];
    for (name, policy) in policies {
        host.detached(&["--name", name, "--restart", policy, "busybox", "sh", "-c", polite]);
        host::wait_until("it is ready", || host.minidock(&["logs", name]).out().contains("ready"));
    }
    let deaf = "trap '' TERM; while :; do sleep 0.02; done";
    host.detached(&["--name", "deaf", "--restart", "always", "--stop-timeout", "1", "busybox", "sh", "-c", deaf]);
    // Asked first, as the newer one; nobody waits for it.
    host.detached(&["--name", "deafer", "--restart", "no", "--stop-timeout", "4", "busybox", "sh", "-c", deaf]);
    host.detached(&["--name", "frozen", "--restart", "always", "busybox", "sh", "-c", "sleep 1000"]);
    host.minidock(&["pause", "frozen"]).ok();
    host.detached(&["--name", "looping", "--restart", "always", "busybox", "false"]);
    // A unit that is stopped or restarted by hand touches none of them.
    unit_stops(&host, "running");
    for name in ["polite", "always", "none", "deaf"] {
        assert_eq!(host.inspect(name, "{{.State.Status}}"), "running", "{name}");
    }
    unit_stops(&host, "stopping");
    for (name, _) in policies {
        assert_eq!(host.inspect(name, "{{.State.Status}} {{.State.ExitCode}}"), "exited 3", "{name}");
        assert!(host.minidock(&["logs", name]).out().contains("bye"), "{name} was not asked");
    }
    assert_eq!(host.inspect("deaf", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    let ended = |name: &str| host.inspect(name, "{{.State.FinishedAt}}");
    assert!(ended("deaf") < ended("deafer"), "{} {}", ended("deaf"), ended("deafer"));
    assert_eq!(host.minidock(&["ps", "-q"]).ok().out(), "");
    host.kill_everything();
    let mut started: Vec<String> = host.minidock(&["boot"]).ok().out().lines().map(str::to_string).collect();
    started.sort();
    assert_eq!(started, ["always", "deaf", "frozen", "looping", "polite"]);
    host.remove(&["polite", "always", "none", "deaf", "deafer", "frozen", "looping"]);
    host.finish();
}

#[test]
fn the_machine_going_down_waits_for_no_monitor_that_is_stuck() {
    let host = TestHost::new();
    let names = ["stuck-1", "stuck-2", "stuck-3", "stuck-4"];
    // Its program has its time to end all the same.
    let polite = "trap 'touch /asked; exit' TERM; touch /ready; while :; do sleep 0.02; done";
    for name in names {
        let id = host.detached(&["--name", name, "--restart", "always", "busybox", "sh", "-c", polite]);
        host::wait_until("it waits for its signal", || {
            host.root.join("containers").join(&id).join("upper/ready").exists()
        });
    }
    host.detached(&["--name", "lost", "--restart", "always", "busybox", "sleep", "1000"]);
    std::fs::remove_file(host.root.join("containers").join(host.inspect("lost", "{{.Id}}")).join("control")).unwrap();
    host.detached(&["--name", "good", "--stop-timeout", "0", "busybox", "sleep", "1000"]);
    for name in names {
        host.sh(&format!("kill -STOP {}", host.monitor(name))).ok();
    }
    let begin = std::time::Instant::now();
    let stopped = host.minidock(&["boot", "--stop"]).ok().out();
    // Each of them has ten seconds for its monitor to answer, and as many to take away what is left of it.
    assert!(begin.elapsed().as_secs() < 80, "one after the other: {:?}", begin.elapsed());
    for name in names {
        host.minidock(&["cp", &format!("{name}:/asked"), "-"]).ok();
    }
    assert_eq!(stopped.lines().next(), Some("good"), "it has to wait for nobody: {stopped}");
    assert_eq!(stopped.lines().count(), 6, "{stopped}");
    assert_eq!(host.minidock(&["ps", "-q"]).ok().out(), "");
    host.remove(&[&names[..], &["lost", "good"]].concat());
    host.finish();
}

/// What systemd does with the scope of a login when the machine goes down: SIGTERM and SIGHUP to all in it.
#[test]
fn a_monitor_that_is_told_to_end_stops_its_container_in_order() {
    let host = TestHost::new();
    let polite = "trap 'echo bye; exit 3' TERM; echo ready; grep Sig /proc/self/status; while :; do sleep 0.02; done";
    host.detached(&["--name", "polite", "--restart", "always", "busybox", "sh", "-c", polite]);
    host.detached(&["--name", "deaf", "--stop-timeout", "0", "busybox", "sleep", "1000"]);
    let log = |name: &str| host.minidock(&["logs", name]).ok().out();
    host::wait_until("it is ready", || log("polite").contains("SigIgn"));
    let masks = log("polite");
    for mask in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
        assert!(masks.contains(mask), "the container has the monitor's signals: {masks}");
    }
    let cleaner = |name: &str| host.sh(&format!("pgrep -P {}", host.monitor(name))).ok().out().replace('\n', " ");
    let program = |name: &str| host.pid(name).to_string();
    for name in ["polite", "deaf"] {
        let (monitor, others) = (host.monitor(name).to_string(), cleaner(name));
        let all = others.split(' ').filter(|pid| **pid != *program(name)).chain([monitor.as_str()]);
        let all: Vec<&str> = all.filter(|pid| !pid.is_empty()).collect();
        assert_eq!(all.len(), 2, "the monitor and its cleaner: {all:?}");
        host.sh(&format!("kill -HUP {0}; kill -TERM {0}", all.join(" "))).ok();
    }
    for (name, code) in [("polite", "3"), ("deaf", "137")] {
        host.wait_exited(name);
        assert_eq!(host.inspect(name, "{{.State.Status}} {{.State.ExitCode}}"), format!("exited {code}"), "{name}");
    }
    assert!(log("polite").contains("bye"));
    host.kill_everything();
    assert_eq!(host.minidock(&["boot"]).ok().out(), "polite", "it was not stopped by hand");
    host.remove(&["polite", "deaf"]);
    host.finish();
}

#[test]
fn a_shutdown_that_came_to_nothing_is_forgotten_with_the_next_run() {
    let host = TestHost::new();
    let deaf = "trap 'echo asked' TERM; echo run; while :; do sleep 0.02; done";
    host.detached(&["--name", "box", "--restart", "always", "--stop-timeout", "90", "busybox", "sh", "-c", deaf]);
    let logged = |line: &str| host.minidock(&["logs", "box"]).out().lines().filter(|found| *found == line).count();
    host::wait_until("it is ready", || logged("run") == 1);
    host.sh(&format!(
        "export MINIDOCK_ROOT={}; m={}; $m boot --stop >log 2>&1 & pid=$!; \
         timeout 100 sh -c \"until $m logs box | grep -q asked; do sleep 0.05; done\"; kill -9 $pid",
        host.root.display(),
        env!("CARGO_BIN_EXE_minidock")
    ))
    .ok();
    host.minidock(&["restart", "-t", "0", "box"]).ok();
    host::wait_until("it was restarted", || logged("run") == 2);
    host.sh(&format!("kill -9 {}", host.pid("box"))).ok();
    host::wait_until("its policy starts it again", || logged("run") == 3);
    host.remove(&["box"]);
    host.finish();
}
