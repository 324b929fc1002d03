//! `-it`: a real terminal inside, the size passed on, and the user's own terminal restored whatever happens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::pty::Terminal;
use host::{TestHost, wait_until};

#[test]
fn it_gives_a_terminal_with_this_size_and_resizing() {
    let host = TestHost::new();
    let mut terminal = Terminal::start(host.command(&["run", "--rm", "-it", "busybox", "sh"]), 33, 101);
    terminal.wait_for("# ");
    assert!(terminal.is_raw(), "the client's terminal passes keys on as they are typed");
    terminal.send("tty; stty size; echo ready\r");
    terminal.wait_for("/dev/pts/0");
    terminal.wait_for("33 101");
    terminal.resize(44, 111);
    wait_until("the new size has come through", || {
        terminal.send("stty size\r");
        terminal.screen().contains("44 111")
    });
    terminal.send("exit 7\r");
    assert_eq!(terminal.wait(), 7);
    terminal.mode_is_restored();
    host.finish();
}

#[test]
fn control_c_reaches_the_program_as_a_signal() {
    let host = TestHost::new();
    let mut terminal = Terminal::start(host.command(&["run", "--rm", "-it", "--name", "box", "busybox", "sh"]), 24, 80);
    terminal.wait_for("# ");
    terminal.send("sleep 1000\r");
    wait_until("sleep runs", || host.minidock(&["exec", "box", "pidof", "sleep"]).code() == 0);
    terminal.send("\x03echo status $?\r");
    terminal.wait_for("status 130");
    terminal.send("exit\r");
    terminal.wait();
    terminal.mode_is_restored();
    host.finish();
}

#[test]
fn the_terminal_is_restored_when_the_program_is_killed_or_cannot_start() {
    let host = TestHost::new();
    let mut terminal = Terminal::start(host.command(&["run", "--rm", "-it", "--name", "box", "busybox", "sh"]), 24, 80);
    terminal.wait_for("# ");
    host.minidock(&["kill", "box"]).ok();
    assert_eq!(terminal.wait(), 137);
    terminal.mode_is_restored();
    let mut terminal = Terminal::start(host.command(&["run", "--rm", "-it", "busybox", "no-such-program"]), 24, 80);
    assert_eq!(terminal.wait(), 127);
    terminal.mode_is_restored();
    host.finish();
}

#[test]
fn the_terminal_is_restored_when_the_client_is_terminated() {
    let host = TestHost::new();
    let script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done";
    let mut terminal = Terminal::start(host.command(&["run", "--rm", "-it", "busybox", "sh", "-c", script]), 24, 80);
    terminal.wait_for("ready");
    let client = nix::unistd::Pid::from_raw(terminal.child.id() as i32);
    nix::sys::signal::kill(client, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(terminal.wait(), 3);
    terminal.mode_is_restored();
    host.finish();
}

#[test]
fn a_terminal_window_that_closes_takes_the_container_with_it() {
    let host = TestHost::new();
    let mut terminal = Terminal::start(host.command(&["run", "--rm", "-it", "busybox", "sh"]), 24, 80);
    terminal.wait_for("# ");
    terminal.kill();
    drop(terminal);
    wait_until("the container is gone", || host.minidock(&["ps", "-aq"]).ok().out().is_empty());
    host.finish();
}

#[test]
fn exec_it_gives_a_terminal_too() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    let mut terminal = Terminal::start(host.command(&["exec", "-it", "box", "sh"]), 20, 70);
    terminal.wait_for("# ");
    terminal.send("stty size; tty\r");
    terminal.wait_for("20 70");
    terminal.wait_for("/dev/pts/");
    terminal.send("exit 4\r");
    assert_eq!(terminal.wait(), 4);
    terminal.mode_is_restored();
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn t_without_a_terminal_is_refused_for_input_and_works_for_output() {
    let host = TestHost::new();
    host.minidock(&["run", "--rm", "-it", "busybox", "true"]).exits(1).says(&["TTY"]);
    let output = host.minidock(&["run", "--rm", "-t", "busybox", "sh", "-c", "tty; echo done"]).ok();
    assert_eq!(output.out().replace('\r', ""), "/dev/pts/0\ndone");
    host.finish();
}

#[test]
fn a_detached_terminal_keeps_its_log() {
    let host = TestHost::new();
    let id = host.detached(&["-t", "busybox", "sh", "-c", "tty"]);
    host.wait_exited(&id);
    assert_eq!(host.minidock(&["logs", &id]).ok().out().trim_end(), "/dev/pts/0");
    host.remove(&[&id]);
    host.finish();
}
