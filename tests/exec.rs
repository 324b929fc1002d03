//! `exec`: its flags and mistakes, terminals and detach keys, and a container under memory pressure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::pty::Terminal;
use host::{TestHost, wait_until};

#[test]
fn what_cannot_be_entered_or_started_has_dockers_exit_code_and_a_reason() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    for (words, code, reason) in [
        (&["-w", "/no/such", "box", "pwd"][..], 126, "/no/such"),
        (&["-w", "/bin/busybox", "box", "pwd"], 126, "not a folder"),
        (&["-w", "relative", "box", "pwd"], 126, "absolute path"),
        (&["-u", "nosuch", "box", "id"], 126, "unable to find user nosuch: no matching entries in passwd file"),
        (&["-u", "5:nosuch", "box", "id"], 126, "unable to find group nosuch"),
        (&["box", "no-such-program"], 127, "executable file not found in $PATH"),
        (&["box", "/etc"], 126, "/etc"),
        (&["-d", "box", "no-such-program"], 1, "executable file not found in $PATH"),
        (&["--env-file", "/no/such", "box", "env"], 1, "/no/such"),
        (&["--detach-keys", "ctrl-", "box", "env"], 1, "invalid detach keys"),
        (&["-it", "box", "sh"], 1, "the input device is not a TTY"),
    ] {
        host.minidock(&[&["exec"], words].concat()).exits(code).says(&[reason]);
    }
    assert_eq!(
        host.minidock(&["exec", "box", "sh", "-c", "ls -d /no 2>/dev/null; true"]).ok().out(),
        "",
        "none is made"
    );
    host.minidock(&["pause", "box"]).ok();
    host.minidock(&["exec", "box", "true"]).exits(1).says(&["is paused, unpause the container before exec"]);
    host.minidock(&["attach", "box"]).exits(1).says(&["You cannot attach to a paused container, unpause it first"]);
    host.minidock(&["unpause", "box"]).ok();
    host.minidock(&["exec", "box", "true"]).ok();
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn environment_files_and_flags_go_over_the_containers_own() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "-e", "A=outer", "-e", "B=outer", "busybox", "sleep", "1000"]);
    let file = host.work.join("env");
    std::fs::write(&file, "# comment\nB=file\nC=file\nHOST\n").unwrap();
    let words = [
        "exec",
        "--env-file",
        file.to_str().unwrap(),
        "-e",
        "C=flag",
        "-e",
        "HERE",
        "box",
        "sh",
        "-c",
        "echo $A $B $C $HOST $HERE",
    ];
    let output = host.command(&words).env("HOST", "host").env("HERE", "here").run().ok();
    assert_eq!(output.out(), "outer file flag host here");
    let caps = |flags: &[&str]| {
        let words = [&["exec"], flags, &["box", "grep", "CapEff", "/proc/self/status"]].concat();
        u64::from_str_radix(host.minidock(&words).ok().out().split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    assert!(caps(&["--privileged"]).count_ones() > caps(&[]).count_ones());
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_terminal_is_left_by_keys_and_its_program_goes_on() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    for (flags, keys) in [(&[][..], "\x10\x11"), (&["--detach-keys", "a,b"], "ab")] {
        let script = "echo ready; sleep 0.05; while ! [ -e /stop ]; do sleep 0.02; done; touch /done";
        let words = [&["exec", "-it"], flags, &["box", "sh", "-c", script]].concat();
        let mut terminal = Terminal::start(host.command(&words), 24, 80);
        terminal.wait_for("ready");
        terminal.send(keys);
        terminal.wait_for("read escape sequence");
        assert_eq!(terminal.wait(), 1);
        terminal.mode_is_restored();
        host.minidock(&["exec", "box", "touch", "/stop"]).ok();
        wait_until("it has gone on", || host.minidock(&["exec", "box", "rm", "/done"]).code() == 0);
        host.minidock(&["exec", "box", "rm", "/stop"]).ok();
    }
    host.remove(&["box"]);
    host.finish();
}

/// `/sys/fs/cgroup/…` of the container's memory controller, if there's one with files of v1 or v2.
fn memory_group(host: &TestHost, container: &str) -> Option<std::path::PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", host.pid(container))).unwrap();
    let path = |line: &str| line.rsplit(':').next().unwrap().trim_start_matches('/').to_string();
    let v1 =
        text.lines().find(|line| line.contains(":memory:")).map(|line| format!("/sys/fs/cgroup/memory/{}", path(line)));
    let v2 = text.lines().find(|line| line.starts_with("0::")).map(|line| format!("/sys/fs/cgroup/{}", path(line)));
    let group = std::path::PathBuf::from(v1.or(v2)?);
    (group.join("memory.limit_in_bytes").exists() || group.join("memory.max").exists()).then_some(group)
}

fn number(group: &std::path::Path, names: [&str; 2]) -> u64 {
    names.iter().find_map(|name| std::fs::read_to_string(group.join(name)).ok()?.trim().parse().ok()).unwrap()
}

#[test]
fn exec_works_in_a_container_that_is_at_its_memory_limit() {
    let host = TestHost::new();
    // Reads a file that is bigger than the limit over and over: each page needs another one's place. (Not a program that
    // is killed for lack of memory: while its pages are being freed, the kernel may choose the shell next.)
    let reader = "dd if=/dev/zero of=/file bs=1 count=1 seek=67108863; while :; do cat /file >/dev/null; done";
    host.detached(&["--name", "box", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", reader]);
    let Some(group) = memory_group(&host, "box") else { return host.discard() };
    let full = || number(&group, ["memory.usage_in_bytes", "memory.current"]) > 15 << 20;
    wait_until("it is at its limit", full);
    let mut terminal = Terminal::start(host.command(&["exec", "-it", "box", "sh"]), 24, 80);
    terminal.wait_for("# ");
    for round in 0..10 {
        assert_eq!(host.minidock(&["exec", "box", "echo", "hi"]).ok().out(), "hi");
        terminal.send(&format!("echo round $(({round}+100))\r"));
        terminal.wait_for(&format!("round {}", round + 100));
    }
    wait_until("it is at its limit still", full);
    terminal.send("exit 3\r");
    assert_eq!(terminal.wait(), 3);
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn exec_itself_takes_almost_nothing_of_a_containers_memory() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "-m", "16m", "--shm-size", "64m", "busybox", "sleep", "1000"]);
    let Some(group) = memory_group(&host, "box") else { return host.discard() };
    host.minidock(&["exec", "box", "true"]).ok();
    // Filled up to one megabyte: what a few small processes need (the kernel counts in portions of up to 256 kB for each
    // processor, and gives back a process's own structures a while after its end).
    let usage = || number(&group, ["memory.usage_in_bytes", "memory.current"]);
    let limit = number(&group, ["memory.limit_in_bytes", "memory.max"]);
    let blocks = (limit - usage()) / 1024 - 1024;
    host.minidock(&["exec", "box", "dd", "if=/dev/zero", "of=/dev/shm/fill", "bs=1k", &format!("count={blocks}")]).ok();
    for _ in 0..10 {
        host.minidock(&["exec", "box", "true"]).ok();
    }
    assert!(limit - usage() < 3 << 19, "it was full: {} of {limit}", usage());
    assert_eq!(host.inspect("box", "{{.State.Status}}"), "running");
    host.remove(&["box"]);
    host.finish();
}
