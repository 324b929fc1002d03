//! `attach`, and what a client of `run` shows and passes on: several at once, detach keys, signals, slow readers, the
//! user's terminal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::io::Read;
use std::process::Stdio;

use host::pty::Terminal;
use host::{TestHost, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// ctrl-p, ctrl-q
const DETACH: &str = "\x10\x11";

fn parent(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn kill_9(pid: u32) {
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
}

#[test]
fn a_terminal_is_left_by_keys_and_attached_to_again() {
    let host = TestHost::new();
    let mut terminal = Terminal::start(host.command(&["run", "--rm", "-it", "--name", "box", "busybox", "sh"]), 24, 80);
    terminal.wait_for("# ");
    terminal.send("x=kept\r");
    terminal.send(DETACH);
    assert_eq!(terminal.wait(), 0, "run's client left");
    terminal.mode_is_restored();
    assert_eq!(host.inspect("box", "{{.State.Status}}"), "running");

    let mut terminal = Terminal::start(host.command(&["attach", "box"]), 30, 90);
    terminal.wait_for("# ");
    assert!(terminal.is_raw());
    // A lone ctrl-p is the program's (the last command again).
    terminal.send("echo is $x; stty size\r");
    terminal.wait_for("is kept");
    terminal.wait_for("30 90");
    terminal.send(DETACH);
    terminal.wait_for("read escape sequence");
    assert_eq!(terminal.wait(), 1);
    terminal.mode_is_restored();

    let keys = ["attach", "--detach-keys", "ctrl-x,q", "box"];
    let mut terminal = Terminal::start(host.command(&keys), 30, 90);
    terminal.wait_for("# ");
    terminal.send("echo a\x10\x11b\r");
    terminal.send("\x18q");
    assert_eq!(terminal.wait(), 1);
    let mut terminal = Terminal::start(host.command(&["attach", "box"]), 30, 90);
    terminal.wait_for("# ");
    terminal.send("exit 3\r");
    assert_eq!(terminal.wait(), 3, "the exit code is the program's");
    terminal.mode_is_restored();
    host.finish();
}

#[test]
fn several_clients_share_one_terminal() {
    let host = TestHost::new();
    let mut first = Terminal::start(host.command(&["run", "--rm", "-it", "--name", "box", "busybox", "sh"]), 24, 80);
    first.wait_for("# ");
    let mut second = Terminal::start(host.command(&["attach", "box"]), 25, 81);
    second.wait_for("# ");
    let mut watcher = host.spawn(&["attach", "--no-stdin", "box"]);
    watcher.wait_attached();
    second.send("echo from $((40+2))\r");
    for terminal in [&first, &second] {
        terminal.wait_for("from 42");
    }
    watcher.wait_for("from 42");
    first.send("echo from $((40+3))\r");
    second.wait_for("from 43");
    watcher.wait_for("from 43");
    second.resize(33, 99);
    wait_until("the new size has come through", || {
        first.send("stty size\r");
        first.screen().contains("33 99")
    });
    second.kill();
    first.send("echo from $((40+4))\r");
    first.wait_for("from 44");
    assert!(!watcher.has_ended());
    first.send("exit 6\r");
    assert_eq!(first.wait(), 6);
    assert_eq!(watcher.wait().code(), 6);
    second.mode_is_restored();
    host.finish();
}

#[test]
fn output_goes_to_every_client_and_stderr_stays_apart() {
    let host = TestHost::new();
    let script = "while [ ! -e /go ]; do sleep 0.02; done; echo out; echo err >&2; exit 9";
    host.detached(&["--name", "box", "busybox", "sh", "-c", script]);
    let clients: Vec<_> = (0..3).map(|_| host.spawn(&["attach", "box"])).collect();
    clients.iter().for_each(host::command::Running::wait_attached);
    host.minidock(&["exec", "box", "touch", "/go"]).exits_any(&[0, 137]); // its end may overtake touch
    for client in clients {
        let output = client.wait().exits(9);
        assert_eq!((output.out().as_str(), output.err().as_str()), ("out", "err"));
    }
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn input_comes_from_several_clients_and_a_detached_program_keeps_its_input_open() {
    let host = TestHost::new();
    host.detached(&["-i", "--name", "box", "busybox", "cat"]);
    for text in ["one\n", "two\n"] {
        let client = host.command(&["attach", "box"]).open_input().spawn();
        let mut client = client;
        client.write(text.as_bytes());
        client.wait_for(text);
        client.close_input();
        client.signal(Signal::SIGKILL);
        client.wait();
    }
    assert_eq!(host.inspect("box", "{{.State.Status}}"), "running");
    let ignored = host.command(&["attach", "--no-stdin", "box"]).input("three\n").spawn();
    ignored.wait_attached();
    host.minidock(&["exec", "box", "sh", "-c", "kill -9 1; true"]).ok();
    host.minidock(&["kill", "box"]).ok();
    ignored.wait().exits(137);
    assert_eq!(host.minidock(&["logs", "box"]).ok().out(), "one\ntwo");
    host.remove(&["box"]);
    // In the foreground the input ends with the first client's, whoever else has come.
    let mut first = host.command(&["run", "--rm", "-i", "--name", "box", "busybox", "cat"]).open_input().spawn();
    first.write(b"a\n");
    first.wait_for("a\n");
    let mut second = host.command(&["attach", "box"]).open_input().spawn();
    second.write(b"b\n");
    first.wait_for("b\n");
    second.close_input();
    first.close_input();
    second.wait().ok();
    assert_eq!(first.wait().ok().out(), "a\nb");
    host.finish();
}

#[test]
fn signals_are_passed_on_or_only_end_the_client() {
    let host = TestHost::new();
    let script = "trap 'echo got TERM; exit 5' TERM; echo ready; while :; do sleep 0.02; done";
    host.detached(&["--name", "box", "busybox", "sh", "-c", script]);
    host.wait_logged("box", "ready");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let client = host.spawn(&["attach", "--sig-proxy=false", "box"]);
        client.wait_attached();
        client.signal(signal);
        client.wait().exits(128 + signal as i32);
    }
    let client = host.spawn(&["attach", "box"]);
    client.wait_attached();
    client.signal(Signal::SIGKILL);
    client.wait();
    assert_eq!(host.inspect("box", "{{.State.Status}}"), "running", "it outlives its clients");
    let client = host.spawn(&["attach", "box"]);
    client.wait_attached();
    client.signal(Signal::SIGTERM);
    assert_eq!(client.wait().exits(5).out(), "got TERM");
    host.remove(&["box"]);
    // The client of run, too.
    let client = host.spawn(&["run", "--sig-proxy=false", "--name", "box", "busybox", "sh", "-c", script]);
    client.wait_for("ready");
    client.signal(Signal::SIGTERM);
    client.wait().exits(143);
    assert_eq!(host.inspect("box", "{{.State.Status}}"), "running");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_stalled_client_stops_neither_the_program_nor_the_others_for_ever_and_is_told_what_it_missed() {
    let host = TestHost::new();
    let script = "while [ ! -e /go ]; do sleep 0.02; done; i=0; while [ $i -lt 60000 ]; do i=$((i+1)); \
                  echo \"line $i, and some more text to make it one of a hundred bytes, or something very near to it....\"; done";
    host.detached(&["--name", "box", "--log-driver", "none", "busybox", "sh", "-c", script]);
    let mut command = host.command(&["attach", "box"]).raw();
    let mut stalled = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let reader = host.spawn(&["attach", "box"]);
    host::command::wait_attached(stalled.id());
    reader.wait_attached();
    host.minidock(&["exec", "box", "touch", "/go"]).exits_any(&[0, 137]); // its end may overtake touch
    let output = reader.wait().ok();
    let lines: Vec<&str> = std::str::from_utf8(&output.stdout).unwrap().lines().collect();
    assert_eq!(lines.len(), 60000, "the other client has seen it all");
    assert!(lines.iter().enumerate().all(|(at, line)| line.starts_with(&format!("line {}, ", at + 1))));
    host.wait_exited("box");
    let (mut got, mut notes) = (vec![], String::new());
    stalled.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    stalled.stderr.take().unwrap().read_to_string(&mut notes).unwrap();
    assert_eq!(stalled.wait().unwrap().code(), Some(0));
    let missing: usize = notes.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or_default();
    assert!(missing > 0, "it was told: {notes}");
    assert_eq!(got.len() + missing, output.stdout.len(), "{notes}");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn run_attaches_only_what_a_says() {
    let host = TestHost::new();
    let script = "echo out; echo err >&2; cat; exit 4";
    let run = |flags: &[&str]| {
        let words = [&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat();
        let output = host.command(&words).input("in\n").run().exits(4);
        (output.out(), output.err())
    };
    let texts = |out: &str, err: &str| (out.to_string(), err.to_string());
    assert_eq!(run(&["-a", "stdout"]), texts("out", ""));
    assert_eq!(run(&["-a", "STDERR"]), texts("", "err"));
    assert_eq!(run(&["-a", "stdin", "-i"]), texts("", ""));
    assert_eq!(run(&["-a", "stdin", "-a", "stdout", "-i"]), texts("out\nin", ""));
    assert_eq!(run(&["-i"]), texts("out\nin", "err"));
    host.minidock(&["run", "-d", "-a", "stdout", "busybox"])
        .exits(1)
        .says(&["conflicting options: cannot specify both --attach and --detach"]);
    host.minidock(&["run", "-a", "foo", "busybox"]).exits(125).says(&["valid streams are STDIN, STDOUT and STDERR"]);
    host.minidock(&["run", "--detach-keys", "shift-b", "busybox"])
        .exits(125)
        .says(&["invalid detach keys (shift-b): Unknown character: 'shift-b'"]);
    host.finish();
}

#[test]
fn what_cannot_be_attached_to_is_said() {
    let host = TestHost::new();
    host.minidock(&["attach", "nobody"]).exits(1).says(&["No such container: nobody"]);
    host.minidock(&["attach", "--detach-keys", "ctrl-", "nobody"]).exits(1).says(&["invalid detach keys"]);
    host.detached(&["-it", "--name", "box", "busybox", "sh"]);
    host.minidock(&["attach", "box"]).exits(1).says(&["the input device is not a TTY"]);
    host.minidock(&["stop", "-t", "0", "box"]).ok();
    host.minidock(&["attach", "box"]).exits(1).says(&["You cannot attach to a stopped container, start it first"]);
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn start_a_joins_a_running_container_and_starts_one_with_its_input() {
    let host = TestHost::new();
    host.minidock(&["create", "-i", "--name", "box", "busybox", "cat"]).ok();
    assert_eq!(host.command(&["start", "-ai", "box"]).input("hello\n").run().ok().out(), "hello");
    host.minidock(&["start", "box"]).ok();
    let client = host.command(&["start", "-ai", "box"]).input("again\n").spawn();
    assert_eq!(client.wait().ok().out(), "again");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn the_terminal_is_restored_when_client_and_monitor_are_killed() {
    let host = TestHost::new();
    let mut terminal = Terminal::start(host.command(&["run", "--rm", "-it", "--name", "box", "busybox", "sh"]), 24, 80);
    terminal.wait_for("# ");
    assert!(terminal.is_raw());
    let monitor = parent(host.pid("box"));
    // Stopped first, so that neither sees the other's end.
    for pid in [monitor, terminal.child.id()] {
        kill(Pid::from_raw(pid as i32), Signal::SIGSTOP).unwrap();
    }
    kill_9(monitor);
    terminal.kill();
    terminal.mode_is_restored();
    wait_until("the container is gone", || host.minidock(&["ps", "-aq"]).ok().out().is_empty());
    // The same for attach and exec, whose client alone is killed.
    host.detached(&["-it", "--name", "box", "busybox", "sh"]);
    for words in [&["attach", "box"][..], &["exec", "-it", "box", "sh"]] {
        let mut terminal = Terminal::start(host.command(words), 24, 80);
        terminal.wait_for("# ");
        assert!(terminal.is_raw());
        terminal.kill();
        terminal.mode_is_restored();
    }
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_killed_client_takes_its_container_along_unless_that_has_a_restart_policy() {
    let host = TestHost::new();
    let client = host.spawn(&["run", "--name", "box", "busybox", "sh", "-c", "echo ready; sleep 1000"]);
    client.wait_for("ready");
    client.signal(Signal::SIGKILL);
    client.wait();
    host.wait_exited("box");
    host.remove(&["box"]);
    let words = ["run", "--restart", "always", "--name", "box", "busybox", "sh", "-c", "echo ready; sleep 1000"];
    let client = host.spawn(&words);
    client.wait_for("ready");
    let pid = host.pid("box");
    client.signal(Signal::SIGKILL);
    client.wait();
    // The monitor has noticed by the time that it answers another client.
    let other = host.spawn(&["attach", "--sig-proxy=false", "box"]);
    other.wait_attached();
    other.signal(Signal::SIGTERM);
    other.wait().exits(143);
    assert_eq!(host.pid("box"), pid, "the same run goes on");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_container_whose_monitor_is_killed_ends_its_clients_with_a_word() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "busybox", "sh", "-c", "echo ready; sleep 1000"]);
    let client = host.spawn(&["attach", "box"]);
    let monitor = parent(host.pid("box"));
    client.wait_attached();
    kill_9(monitor);
    client.wait().exits(137).says(&["monitor was killed"]);
    host.remove(&["box"]);
    host.finish();
}
