//! `minidock run` as a program that a script calls: exit codes, bytes, signals, and nothing left afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::collections::BTreeSet;
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use host::command::Running;
use host::{TestHost, images, wait_until};
use nix::sys::signal::Signal;

#[test]
fn the_program_s_output_is_printed_and_its_exit_code_given_back() {
    let host = TestHost::new();
    for code in [0, 1, 3, 255] {
        let output =
            host.minidock(&["run", "--rm", "busybox", "sh", "-c", &format!("echo out; echo err >&2; exit {code}")]);
        let output = output.exits(code);
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    }
    host.finish();
}

#[test]
fn a_program_that_is_not_there_gives_127_one_that_cannot_run_126_a_wrong_flag_125() {
    let host = TestHost::new();
    host.minidock(&["run", "--rm", "busybox", "no-such-program"]).exits(127).says(&["no-such-program"]);
    host.minidock(&["run", "--rm", "busybox", "/no/such/program"]).exits(127).says(&["/no/such/program"]);
    host.minidock(&["run", "--rm", "busybox", "/etc/passwd"]).exits(126).says(&["/etc/passwd"]);
    host.minidock(&["run", "--rm", "busybox", "/etc"]).exits(126).says(&["/etc"]);
    host.minidock(&["run", "--rm", "--no-such-flag", "busybox", "true"]).exits(125).says(&["--no-such-flag"]);
    host.minidock(&["run", "--rm", "no-such-image", "true"]).exits(125).says(&["no-such-image"]);
    host.finish();
}

#[test]
fn death_by_a_signal_gives_128_and_its_number() {
    let host = TestHost::new();
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
        // PID 1 is deaf to signals of its own namespace, so a child dies and the shell passes it on.
        let script = format!("sh -c 'kill -{signal} $$'; exit $?");
        host.minidock(&["run", "--rm", "busybox", "sh", "-c", &script]).exits(code);
    }
    let run = host.spawn(&["run", "--rm", "--name", "deaf", "busybox", "sleep", "1000"]);
    wait_running(&host, "deaf");
    host.minidock(&["kill", "deaf"]).ok();
    run.wait().exits(137);
    host.finish();
}

#[test]
fn sixty_four_mebibytes_pass_byte_exact_also_to_a_slow_reader() {
    let host = TestHost::new();
    let script = "dd if=/dev/urandom of=/tmp/x bs=1M count=64 2>/dev/null; sha256sum </tmp/x >&2; cat /tmp/x";
    let mut command = host.command(&["run", "--rm", "busybox", "sh", "-c", script]).raw();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let count = stdout.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        if bytes.len() >> 22 != (bytes.len() + count) >> 22 {
            std::thread::sleep(Duration::from_millis(40)); // the slowness under test, every 4 MiB
        }
        bytes.extend_from_slice(&buffer[..count]);
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(bytes.len(), 64 << 20);
    assert!(String::from_utf8_lossy(&output.stderr).starts_with(&images::sha256(&bytes)), "the bytes differ");
    host.finish();
}

#[test]
fn standard_input_reaches_the_program_with_i_and_only_then() {
    let host = TestHost::new();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let output = host.command(&["run", "--rm", "-i", "busybox", "cat"]).input(bytes.clone()).run().ok();
    assert!(output.stdout == bytes, "{} bytes came back of {}", output.stdout.len(), bytes.len());
    let output = host.command(&["run", "--rm", "busybox", "cat"]).input("not for you").run().ok();
    assert_eq!(output.out(), "");
    host.finish();
}

#[test]
fn a_program_that_stops_reading_does_not_hang_the_run() {
    let host = TestHost::new();
    let input = vec![b'x'; 1 << 20];
    host.command(&["run", "--rm", "-i", "busybox", "head", "-c", "1"]).input(input).run().ok();
    host.finish();
}

#[test]
fn a_reader_that_leaves_ends_the_program_by_sigpipe_and_leaves_nothing() {
    let host = TestHost::new();
    let program = host::minidock();
    let line = host.sh(&format!("{} run --rm busybox yes | head -n 1", program.display())).ok();
    assert_eq!(line.out(), "y");
    host.finish();
}

#[test]
fn signals_are_passed_on_to_the_program() {
    let host = TestHost::new();
    for (signal, name) in
        [(Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT"), (Signal::SIGHUP, "HUP"), (Signal::SIGUSR1, "USR1")]
    {
        let script = format!("trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.02; done");
        let run = host.spawn(&["run", "--rm", "busybox", "sh", "-c", &script]);
        run.wait_for("ready");
        run.signal(signal);
        assert_eq!(run.wait().exits(7).out(), format!("ready\ngot {name}"));
    }
    host.finish();
}

#[test]
fn a_killed_foreground_client_takes_its_container_with_it() {
    let host = TestHost::new();
    let run = host.spawn(&["run", "--rm", "-p", "10080:80", "--name", "web", "busybox", "sleep", "1000"]);
    wait_running(&host, "web");
    run.signal(Signal::SIGKILL);
    assert_eq!(run.wait().code(), 137);
    wait_until("the container is gone", || host.minidock(&["ps", "-aq"]).ok().out().is_empty());
    host.finish();
}

#[test]
fn a_killed_monitor_leaves_nothing() {
    let host = TestHost::new();
    let pid = {
        host.detached(&["--rm", "-p", "10080:80", "--name", "web", "busybox", "sleep", "1000"]);
        host.pid("web")
    };
    let status = host::read(format!("/proc/{pid}/status"));
    let monitor: i32 = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(monitor), Signal::SIGKILL).unwrap();
    wait_until("PID 1 has died with its monitor", || !std::path::Path::new(&format!("/proc/{pid}/root")).exists());
    host.finish(); // the cleaner takes over: no command is needed
}

#[test]
fn rm_leaves_nothing_of_a_container() {
    let host = TestHost::new();
    host.minidock(&[
        "run",
        "--rm",
        "-p",
        "10080:80",
        "-m",
        "64m",
        "-v",
        "/anonymous",
        "busybox",
        "touch",
        "/anonymous/x",
        "/y",
    ])
    .ok();
    assert_eq!(host.minidock(&["ps", "-aq"]).ok().out(), "");
    host.finish();
}

#[test]
fn without_rm_the_container_stays_until_it_is_removed() {
    let host = TestHost::new();
    host.minidock(&["run", "--name", "once", "busybox", "sh", "-c", "echo hi; exit 4"]).exits(4);
    assert_eq!(host.inspect("once", "{{.State.Status}} {{.State.ExitCode}}"), "exited 4");
    assert_eq!(host.minidock(&["logs", "once"]).ok().out(), "hi");
    host.minidock(&["rm", "once"]).ok();
    host.finish();
}

#[test]
fn fifty_starts_at_the_same_moment_get_fifty_addresses() {
    let host = TestHost::new();
    let started: Vec<Running> = (0..50).map(|_| host.spawn(&["run", "-d", "busybox", "sleep", "1000"])).collect();
    let ids: Vec<String> = started.into_iter().map(|run| run.wait().ok().out()).collect();
    let addresses: BTreeSet<String> = ids.iter().map(|id| host.address(id)).collect();
    assert_eq!(addresses.len(), 50, "{addresses:?}");
    assert!(
        !addresses.contains("172.17.0.1") && addresses.iter().all(|address| address.starts_with("172.17.")),
        "{addresses:?}"
    );
    let shown: BTreeSet<String> =
        ids.iter().map(|id| host.minidock(&["exec", id, "hostname", "-i"]).ok().out()).collect();
    assert_eq!(shown, addresses);
    host.remove(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    host.finish();
}

#[test]
fn the_id_is_written_to_the_cidfile_and_an_existing_one_is_refused() {
    let host = TestHost::new();
    let file = host.work.join("id");
    let file_name = file.to_str().unwrap();
    let id = host.detached(&["--cidfile", file_name, "busybox", "sleep", "1000"]);
    assert_eq!(host::read(&file), id);
    host.minidock(&["run", "--rm", "--cidfile", file_name, "busybox", "true"])
        .exits(125)
        .says(&["container ID file", file_name]);
    host.remove(&[&id]);
    host.finish();
}

#[test]
fn init_reaps_orphans_and_passes_signals_on() {
    let host = TestHost::new();
    host.detached(&["--init", "--name", "init", "busybox", "sh", "-c", "(sleep 0.01 &) ; exec sleep 1000"]);
    let zombies = || host.minidock(&["exec", "init", "sh", "-c", "cat /proc/[0-9]*/stat | grep -c ' Z '"]).out();
    wait_until("no zombie is left", || zombies() == "0");
    assert_ne!(host.minidock(&["exec", "init", "cat", "/proc/1/comm"]).ok().out(), "sleep");
    host.minidock(&["stop", "-t", "60", "init"]).ok();
    assert_eq!(host.inspect("init", "{{.State.ExitCode}}"), "143", "SIGTERM has reached the program");
    host.remove(&["init"]);
    host.finish();
}

#[test]
fn two_roots_are_two_engines() {
    let (one, two) = (TestHost::new(), TestHost::new());
    one.detached(&["--name", "same", "busybox", "sleep", "1000"]);
    two.detached(&["--name", "same", "busybox", "sleep", "1000"]);
    assert_eq!(one.minidock(&["ps", "-q"]).ok().out().lines().count(), 1);
    one.remove(&["same"]);
    assert_eq!(two.minidock(&["ps", "-q"]).ok().out().lines().count(), 1);
    two.remove(&["same"]);
    one.finish();
    two.finish();
}

fn wait_running(host: &TestHost, name: &str) {
    wait_until(&format!("{name} runs"), || {
        let state = host.minidock(&["inspect", "--format", "{{.State.Status}}", name]);
        state.code() == 0 && state.out() == "running"
    });
}
