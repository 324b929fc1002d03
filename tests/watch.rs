//! The commands that watch containers: events, stats, top.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::pty::Terminal;
use host::{TestHost, wait_until};

#[test]
fn events_tell_the_life_of_a_container_and_follow() {
    let host = TestHost::new();
    let before = host.minidock(&["events", "--since", "1h", "--until", "0s"]).ok().out();
    assert!(!before.contains("container start"), "{before}");
    let follower = host.spawn(&["events", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"]);
    let seen = |text: &str| follower.stdout().contains(text);
    // The follower may begin after the first one's start: repeat until it has seen one.
    wait_until("the follower sees a start", || {
        host.minidock(&["run", "--rm", "--name", "first", "busybox", "true"]).ok();
        seen("container start first\n")
    });
    host.detached(&["--name", "web", "--label", "a=1", "busybox", "sleep", "1000"]);
    wait_until("the start is told", || seen("container start web\n"));
    host.minidock(&["exec", "web", "sh", "-c", "exit 3"]).exits(3);
    wait_until("the exec is told", || seen("exec_create: sh -c exit 3 web\n") && seen("exec_die web\n"));
    host.minidock(&["kill", "web"]).ok();
    wait_until("the end is told", || seen("container die web\n") && seen("container kill web\n"));
    follower.signal(nix::sys::signal::Signal::SIGTERM);
    follower.wait();
    // What is past, with filters, ends by itself.
    let past = |flags: &[&str]| {
        let mut args = vec!["events", "--since", "1h", "--until", "0s"];
        args.extend(flags);
        host.minidock(&args).ok().out()
    };
    let died = past(&["-f", "event=die", "-f", "container=web"]);
    assert!(died.contains(" container die ") && died.contains("exitCode=137") && died.contains("a=1"), "{died}");
    assert_eq!(died.lines().count(), 1);
    assert_eq!(past(&["-f", "label=a", "-f", "event=create", "--format", "{{.Action}}"]), "create");
    assert_eq!(past(&["-f", "container=nobody"]), "");
    let json: serde_json::Value =
        serde_json::from_str(&past(&["-f", "event=die", "-f", "container=web", "--format", "json"])).unwrap();
    assert_eq!((&json["status"], &json["Actor"]["Attributes"]["image"]), (&"die".into(), &"busybox".into()));
    let exec = past(&["-f", "event=exec_die"]);
    assert!(exec.contains("exitCode=3") && exec.contains("execID="), "{exec}");
    host.minidock(&["events", "-f", "evnt=die"]).exits(1).says(&["did you mean event?"]);
    host.minidock(&["events", "--since", "yesterday"]).says(&["--since"]);
    host.minidock(&["system", "events", "--format", "{{"]).exits(64).says(&["Error parsing format"]);
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn a_follower_reads_on_in_the_new_file_when_the_old_one_is_full() {
    let host = TestHost::new();
    let folder = host.root.join("run");
    std::fs::create_dir_all(&folder).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let line = format!("{{\"time\":{now},\"kind\":\"volume\",\"action\":\"old\",\"id\":\"v\"}}\n");
    std::fs::write(folder.join("events.jsonl"), line.repeat(20_000)).unwrap();
    let follower = host.spawn(&["events", "--since", "1h", "--format", "{{.Action}}"]);
    follower.wait_for("old\n");
    host.minidock(&["run", "--rm", "busybox", "true"]).ok();
    follower.wait_for("die\n");
    assert!(folder.join("events.1.jsonl").exists());
    assert!(std::fs::metadata(folder.join("events.jsonl")).unwrap().len() < 100_000);
    follower.signal(nix::sys::signal::Signal::SIGTERM);
    follower.wait();
    host.finish();
}

#[test]
fn stats_show_what_is_used() {
    let host = TestHost::new();
    let busy = "head -c 20000000 /dev/zero >/dev/shm/x; echo filled; while :; do :; done";
    host.detached(&["--name", "busy", "-m", "64m", "--pids-limit", "50", "busybox", "sh", "-c", busy]);
    host.detached(&["--name", "idle", "busybox", "sleep", "1000"]);
    wait_until("the memory is filled", || host.minidock(&["logs", "busy"]).ok().out() == "filled");
    let table = host.minidock(&["stats", "--no-stream"]).ok().out();
    assert!(table.starts_with("CONTAINER ID   NAME      CPU %"), "{table}");
    assert_eq!(table.lines().count(), 3, "{table}");
    let ask =
        |name: &str, template: &str| host.minidock(&["stats", "--no-stream", "--format", template, name]).ok().out();
    let number = |text: &str| text.trim_end_matches('%').parse::<f64>().unwrap();
    wait_until("it is busy", || number(&ask("busy", "{{.CPUPerc}}")) > 5.0);
    assert!(number(&ask("idle", "{{.CPUPerc}}")) < 5.0);
    let memory = ask("busy", "{{.MemUsage}}");
    assert!(memory.ends_with(" / 64MiB") && !memory.starts_with('0'), "{memory}");
    assert!(number(&ask("busy", "{{.MemPerc}}")) > 25.0, "{memory}");
    assert_eq!(ask("busy", "{{.PIDs}}"), "1");
    assert_eq!(ask("idle", "{{.Name}} {{.PIDs}}"), "idle 1");
    assert!(!ask("idle", "{{.MemUsage}}").starts_with("0B"));
    // Bytes on the network, of the container's side.
    host.minidock(&["exec", "idle", "ping", "-c", "2", "-s", "1000", host::HOST]).ok();
    let sent = ask("idle", "{{.NetIO}}");
    assert!(sent.split(" / ").all(|bytes| bytes.ends_with("kB")), "{sent}");
    host.minidock(&["kill", "busy"]).ok();
    wait_until("it is stopped", || host.minidock(&["stats", "--no-stream"]).ok().out().lines().count() == 2);
    assert_eq!(ask("busy", "{{.CPUPerc}} {{.MemUsage}}"), "0.00% 0B / 0B");
    assert_eq!(host.minidock(&["stats", "-a", "--no-stream"]).ok().out().lines().count(), 3);
    host.minidock(&["stats", "--no-stream", "nobody"]).exits(1).says(&["No such container: nobody"]);
    host.remove(&["busy", "idle"]);
    host.finish();
}

#[test]
fn stats_go_on_until_told_to_stop() {
    let host = TestHost::new();
    host.detached(&["--name", "idle", "busybox", "sleep", "1000"]);
    let binary = host::minidock();
    let binary = binary.to_str().unwrap();
    // As a script's background command has it: with SIGINT ignored.
    let stream = host
        .shell(&host.host, "trap '' INT; exec \"$MINIDOCK\" stats --format '{{.Name}}'")
        .env("MINIDOCK", binary)
        .spawn();
    wait_until("three looks", || stream.stdout().matches("idle").count() >= 3);
    stream.signal(nix::sys::signal::Signal::SIGINT);
    stream.wait();
    host.remove(&["idle"]);
    host.finish();
}

#[test]
fn top_lists_the_processes_with_ps_s_columns() {
    let host = TestHost::new();
    host.detached(&["--name", "web", "busybox", "sh", "-c", "sleep 1000 & exec sleep 2000"]);
    host.minidock(&["exec", "-d", "web", "sleep", "3000"]).ok();
    let pid = host.pid("web");
    wait_until("all three are there", || host.minidock(&["top", "web"]).ok().out().lines().count() == 4);
    let table = host.minidock(&["top", "web"]).ok().out();
    let head = "UID                 PID                 PPID                C                   STIME               TTY                 TIME                CMD";
    assert_eq!(table.lines().next().unwrap(), head);
    for (what, column) in [("sleep 1000", "root"), ("sleep 3000", "?"), ("sleep 2000", &pid.to_string())] {
        assert!(table.lines().any(|line| line.ends_with(what) && line.contains(column)), "{table}");
    }
    let own = host.minidock(&["container", "top", "web", "-o", "pid,args"]).ok().out();
    assert!(own.lines().any(|line| line.starts_with(&pid.to_string()) && line.ends_with("sleep 2000")), "{own}");
    assert!(host.minidock(&["top", "web", "aux"]).ok().out().starts_with("USER "));
    host.minidock(&["top", "web", "-o", "pdi"]).exits(1).says(&["unknown user-defined format specifier", "pid"]);
    host.minidock(&["stop", "-t", "0", "web"]).ok();
    host.minidock(&["top", "web"]).exits(1).says(&["is not running"]);
    host.remove(&["web"]);
    host.finish();
}

/// Everything that docker tells of, in its order and with its attributes.
#[test]
fn each_step_of_a_life_is_an_event_with_dockers_attributes() {
    let host = TestHost::new();
    let mut seen = 1; // the image's load
    let mut told = |what: &[&str]| {
        let format = "{{.Type}} {{.Action}} {{.Actor.ID}} {{json .Actor.Attributes}}";
        let all = host.minidock(&["events", "--since", "1h", "--until", "0s", "--format", format]).ok().out();
        let lines: Vec<String> = all.lines().skip(seen).map(str::to_string).collect();
        let actions: Vec<String> = lines
            .iter()
            .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ").trim_end_matches(':').to_string())
            .collect();
        assert_eq!(actions, what, "{all}");
        seen += lines.len();
        lines
    };
    host.minidock(&["network", "create", "lan"]).ok();
    told(&["network create"]);
    let id = host.detached(&[
        "--name",
        "box",
        "--network",
        "lan",
        "-v",
        "vol:/v:ro",
        "-v",
        "/anon",
        "busybox",
        "sleep",
        "1000",
    ]);
    let lines = told(&[
        "volume create",
        "volume create",
        "container create",
        "volume mount",
        "volume mount",
        "network connect",
        "container start",
    ]);
    let has = |line: &str, what: &[&str]| what.iter().for_each(|what| assert!(line.contains(what), "{what}: {line}"));
    has(
        &lines[3],
        &["volume mount vol ", "\"destination\":\"/v\"", "\"read/write\":\"false\"", &id, "\"driver\":\"local\""],
    );
    has(&lines[5], &["\"name\":\"lan\"", "\"type\":\"bridge\"", &format!("\"container\":\"{id}\"")]);
    host.minidock(&["network", "connect", "bridge", "box"]).ok();
    host.minidock(&["network", "disconnect", "bridge", "box"]).ok();
    told(&["network connect", "network disconnect"]);
    host.minidock(&["exec", "box", "true"]).ok();
    told(&["container exec_create", "container exec_start", "container exec_die"]);
    host.minidock(&["top", "box"]).ok();
    host.minidock(&["cp", "box:/bin/busybox", "out"]).ok();
    let lines = told(&["container top", "container archive-path"]);
    has(&lines[1], &["\"path\":\"/bin/busybox\""]);
    host.minidock(&["cp", "out", "box:/tmp"]).ok();
    host.minidock(&["export", "-o", "./out.tar", "box"]).ok();
    host.minidock(&["rename", "box", "crate"]).ok();
    host.minidock(&["update", "--cpu-shares", "512", "crate"]).ok();
    host.minidock(&["pause", "crate"]).ok();
    host.minidock(&["unpause", "crate"]).ok();
    let lines = told(&[
        "container extract-to-dir",
        "container export",
        "container rename",
        "container update",
        "container pause",
        "container unpause",
    ]);
    has(&lines[2], &["\"oldName\":\"/box\"", "\"name\":\"crate\""]);
    host.minidock(&["stop", "-t", "0", "crate"]).ok();
    let ended = ["container die", "network disconnect", "volume unmount", "volume unmount", "container stop"];
    let kills = ["container kill", "container kill"];
    let lines = told(&[&kills[..], &ended[..]].concat());
    has(&lines[2], &["\"exitCode\":\"137\"", "execDuration"]);
    host.minidock(&["start", "crate"]).ok();
    told(&["volume mount", "volume mount", "network connect", "container start"]);
    host.minidock(&["rm", "-f", "-v", "crate"]).ok();
    told(&[&["container kill"], &ended[..4], &["volume destroy", "container destroy"]].concat());
    host.minidock(&["volume", "rm", "vol"]).ok();
    host.minidock(&["network", "rm", "lan"]).ok();
    host.minidock(&["tag", "busybox", "copy"]).ok();
    host.minidock(&["rmi", "copy"]).ok();
    told(&["volume destroy", "network destroy", "image tag", "image untag"]);
    host.finish();
}

#[test]
fn a_terminal_s_size_and_a_client_s_leave_are_events() {
    let host = TestHost::new();
    host.detached(&["-it", "--name", "box", "busybox", "cat"]);
    let mut terminal = Terminal::start(host.command(&["attach", "box"]), 24, 80);
    host::command::wait_attached(terminal.child.id());
    terminal.resize(30, 100);
    let actions = || {
        host.minidock(&[
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--format",
            "{{.Action}} {{.Actor.Attributes.width}}",
        ])
        .out()
    };
    host::wait_until("the new size is told", || actions().contains("resize 100"));
    terminal.send("\x10\x11");
    host::wait_until("that it left is told", || actions().lines().any(|line| line.starts_with("detach")));
    host.remove(&["box"]);
    host.finish();
}
