//! The control socket of a running container's monitor: questions and answers, bad callers, and who may not reach it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use host::{TestHost, wait_until};

const ANSWER: u8 = 7;
const CALL: u8 = 20;

fn folder(host: &TestHost, id: &str) -> PathBuf {
    host.root.join("containers").join(id)
}

fn connect(host: &TestHost, id: &str) -> std::io::Result<UnixStream> {
    let folder = std::fs::File::open(folder(host, id))?;
    let socket = UnixStream::connect(format!("/proc/self/fd/{}/control", folder.as_raw_fd()))?;
    socket.set_read_timeout(Some(host::LIMIT))?;
    Ok(socket)
}

fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
    bytes.extend_from_slice(content);
    bytes
}

fn answer(socket: &mut UnixStream) -> serde_json::Value {
    let mut head = [0u8; 5];
    socket.read_exact(&mut head).expect("an answer comes");
    assert_eq!(head[0], ANSWER);
    let mut content = vec![0; u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize];
    socket.read_exact(&mut content).unwrap();
    serde_json::from_slice(&content).unwrap()
}

fn ask(host: &TestHost, id: &str, question: &str) -> serde_json::Value {
    let mut socket = connect(host, id).expect("the monitor listens");
    socket.write_all(&frame(CALL, question.as_bytes())).unwrap();
    answer(&mut socket)
}

fn pings(host: &TestHost, id: &str) -> bool {
    ask(host, id, r#"{"kind":"ping"}"#) == serde_json::json!({"ok": null})
}

#[test]
fn a_monitor_answers_while_its_container_runs_and_the_socket_goes_with_the_run() {
    let host = TestHost::new();
    let id = host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    assert!(pings(&host, &id));
    let unknown = ask(&host, &id, r#"{"kind":"dance","body":{"how":"well"}}"#);
    assert!(unknown["error"].as_str().unwrap().contains("doesn't know 'dance'"), "{unknown}");
    let socket = folder(&host, &id).join("control");
    let data = socket.metadata().unwrap();
    assert!(data.file_type().is_socket());
    assert_eq!(data.permissions().mode() & 0o777, 0o600);
    host.minidock(&["stop", "-t", "0", "box"]).ok();
    wait_until("the socket is gone", || !socket.exists());
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_root_with_a_long_path_has_control_sockets_too() {
    let mut host = TestHost::new();
    let long = host.base.join("root").join("x".repeat(180));
    host.set("MINIDOCK_ROOT", long.to_str().unwrap());
    host.minidock(&["load", "-q", "-i", host::images::busybox().to_str().unwrap()]).ok();
    let id = host.detached(&["--network", "none", "busybox", "sleep", "1000"]);
    let folder = std::fs::File::open(long.join("containers").join(&id)).unwrap();
    let mut socket = UnixStream::connect(format!("/proc/self/fd/{}/control", folder.as_raw_fd())).unwrap();
    socket.write_all(&frame(CALL, br#"{"kind":"ping"}"#)).unwrap();
    assert_eq!(answer(&mut socket), serde_json::json!({"ok": null}));
    host.remove(&[&id]);
    host.finish();
}

#[test]
fn bad_callers_do_not_hold_up_the_container_or_each_other() {
    let host = TestHost::new();
    let id = host.detached(&["--name", "box", "busybox", "sh", "-c", "while :; do echo line; sleep 0.05; done"]);
    // Half a frame, never finished; more than the monitor serves at once would wait for the others' time-out.
    let mut half: Vec<UnixStream> = (0..40).map(|_| connect(&host, &id).unwrap()).collect();
    for socket in &mut half {
        socket.write_all(&[CALL, 200, 0, 0, 0, b'{']).unwrap();
    }
    // Nonsense, a frame that is too long, output frames from a caller: the connection is closed.
    for bytes in [frame(CALL, b"not json"), vec![CALL, 255, 255, 255, 127], frame(1, b"x"), frame(16, &[9, 0, 0, 0])] {
        let mut socket = connect(&host, &id).unwrap();
        socket.write_all(&bytes).unwrap();
        let mut rest = vec![];
        socket.read_to_end(&mut rest).expect("the monitor closes it");
        assert!(rest.is_empty());
    }
    // One that asks and asks, and reads nothing.
    let mut greedy = connect(&host, &id).unwrap();
    greedy.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let question = frame(CALL, br#"{"kind":"dance"}"#);
    while greedy.write_all(&question).is_ok() {}
    assert!(pings(&host, &id));
    let lines = || host.minidock(&["logs", "box"]).ok().out().lines().count();
    let before = lines();
    wait_until("the container goes on writing", || lines() > before + 3);
    let rss = std::fs::read_to_string(format!("/proc/{}/status", parent(host.pid("box")))).unwrap();
    let kilobytes: u64 = rss.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim()[..]
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(kilobytes < 64 << 10, "the monitor keeps {kilobytes} kB for bad callers");
    drop((half, greedy));
    host.remove(&["box"]);
    host.finish();
}

fn parent(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_killed_monitors_socket_answers_nobody_and_the_next_command_cleans_up() {
    let host = TestHost::new();
    let id = host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    let monitor = nix::unistd::Pid::from_raw(parent(host.pid("box")) as i32);
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("nobody listens", || connect(&host, &id).is_err());
    host.wait_exited("box");
    wait_until("the socket is gone", || !folder(&host, &id).join("control").exists());
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_monitor_that_was_stopped_is_told_apart_from_one_that_has_ended() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    let monitor = nix::unistd::Pid::from_raw(parent(host.pid("box")) as i32);
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let attach = host.minidock(&["attach", "--no-stdin", "box"]);
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGCONT).unwrap();
    attach.exits(1).says(&["doesn't answer", "SIGSTOP"]);
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_container_has_no_way_to_the_socket() {
    let host = TestHost::new();
    let id = host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    let sockets =
        host.minidock(&["exec", "box", "sh", "-c", "ls -l /proc/[0-9]*/fd | grep socket; find / -xdev -type s"]);
    assert_eq!(sockets.out(), "", "no socket inside");
    // Another user who can reach the file is turned away without an answer.
    for path in [host.root.clone(), host.root.join("containers"), folder(&host, &id)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let socket = folder(&host, &id).join("control");
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    let short = host.base.join("short");
    std::os::unix::fs::symlink(folder(&host, &id), &short).unwrap();
    let socket = short.join("control");
    let answered = std::thread::spawn(move || {
        // Of this thread alone: the raw system call, not the C library's.
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).unwrap();
        let mut socket = UnixStream::connect(socket).expect("the file may be reached");
        let _ = socket.write_all(&frame(CALL, br#"{"kind":"ping"}"#));
        let mut rest = vec![];
        let _ = socket.read_to_end(&mut rest);
        rest
    });
    assert!(answered.join().unwrap().is_empty(), "another user was answered");
    assert!(pings(&host, &id));
    host.remove(&["box"]);
    host.finish();
}

/// Others' waiting keeps nobody from stopping it.
#[test]
fn those_who_wait_and_are_silent_take_nobody_s_place() {
    let host = TestHost::new();
    let id = host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    let waiting: Vec<UnixStream> = (0..256)
        .map(|_| {
            let mut socket = connect(&host, &id).unwrap();
            socket.write_all(&frame(CALL, br#"{"kind":"wait"}"#)).unwrap();
            assert!(pings(&host, &id), "it has come so far");
            socket
        })
        .collect();
    let refused = ask(&host, &id, r#"{"kind":"wait"}"#);
    assert!(refused["error"].as_str().unwrap().contains("256 commands wait"), "{refused}");
    let mut attached: Vec<UnixStream> = Vec::new();
    for number in 0..65 {
        let mut socket = connect(&host, &id).unwrap();
        socket.write_all(&frame(CALL, br#"{"kind":"attach"}"#)).unwrap();
        let answer = answer(&mut socket);
        assert_eq!(answer["error"].is_null(), number < 64, "{number}: {answer}");
        attached.push(socket);
    }
    // More silent ones than there are places: each is given up after a second.
    let silent: Vec<UnixStream> = (0..64).map(|_| connect(&host, &id).unwrap()).collect();
    assert!(pings(&host, &id));
    host.minidock(&["stop", "-t", "0", "box"]).ok();
    drop((waiting, attached, silent));
    host.remove(&["box"]);
    host.finish();
}

/// A program that was left behind with the output in its hands, and writes on.
#[test]
fn a_foreign_writer_does_not_hold_the_end() {
    let host = TestHost::new();
    let mut run = host.spawn(&["run", "--name", "box", "busybox", "sh", "-c", "echo first; exec sleep 1000"]);
    run.wait_for("first");
    let pid = host.pid("box");
    let mut writer = std::process::Command::new("sh");
    // Through the namespace of the program's files: the same pipe, held from outside of the container.
    writer.args(["-c", &format!("exec yes foreign > /proc/{pid}/fd/1")]).stderr(std::process::Stdio::null());
    let mut writer = writer.spawn().unwrap();
    run.wait_for("foreign");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("the run has ended", || run.has_ended());
    let _ = writer.kill();
    writer.wait().unwrap();
    drop(run);
    host.remove(&["box"]);
    host.finish();
}
