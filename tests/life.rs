//! A container's life beyond one run: create, start, stop, start again, restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::TestHost;

#[test]
fn a_created_container_is_listed_started_and_keeps_its_changes_over_its_runs() {
    let host = TestHost::new();
    let script = "n=$(cat /count 2>/dev/null || echo 0); echo $((n+1)) > /count; echo run $((n+1)); exit $((n+5))";
    let id = host.minidock(&["create", "--name", "box", "-p", "10080:80", "busybox", "sh", "-c", script]).ok().out();
    assert_eq!(host.inspect("box", "{{.Id}} {{.State.Status}} {{.State.Pid}}"), format!("{id} created 0"));
    assert_eq!(host.inspect("box", "{{.State.StartedAt}}"), "0001-01-01T00:00:00Z");
    assert_eq!(host.minidock(&["ps", "-aq", "--no-trunc"]).ok().out(), id);
    assert_eq!(host.minidock(&["ps", "-a", "--format", "{{.Status}}"]).ok().out(), "Created");
    assert_eq!(host.minidock(&["ps", "-q"]).ok().out(), "");
    assert_eq!(host.minidock(&["start", "box"]).ok().out(), "box");
    host.wait_exited("box");
    assert_eq!(host.inspect("box", "{{.State.ExitCode}}"), "5");
    assert_eq!(host.minidock(&["start", "-a", "box"]).exits(6).out(), "run 2");
    assert_eq!(host.minidock(&["logs", "box"]).ok().out(), "run 1\nrun 2", "one log for all runs");
    host.minidock(&["rm", "box"]).ok();
    host.finish();
}

#[test]
fn a_container_is_started_again_with_a_new_network_and_the_same_ports() {
    let host = TestHost::new();
    let serve = "while :; do echo -e 'HTTP/1.0 200 OK\\r\\n\\r\\nhi' | nc -l -p 80; done";
    host.detached(&["--name", "web", "-p", "10080:80", "busybox", "sh", "-c", serve]);
    let fetch = || host.outside("wget -q -O - http://10.99.0.1:10080/");
    host::wait_until("it answers", || fetch().out() == "hi");
    let before = host.pid("web");
    assert_eq!(host.minidock(&["restart", "-t", "0", "web"]).ok().out(), "web");
    assert_ne!(host.pid("web"), before);
    host::wait_until("it answers again", || fetch().out() == "hi");
    host.minidock(&["stop", "-t", "0", "web"]).ok();
    assert_ne!(fetch().code(), 0);
    // Its port is free for others meanwhile, and its own start fails then, with the reason in its state.
    host.detached(&["--name", "other", "-p", "10080:80", "busybox", "sleep", "1000"]);
    host.minidock(&["start", "web"]).exits(1).says(&["port is already allocated", "other"]);
    assert_eq!(host.inspect("web", "{{.State.Status}} {{.State.ExitCode}}"), "exited 128");
    assert!(host.inspect("web", "{{.State.Error}}").contains("port is already allocated"));
    host.remove(&["other"]);
    host.minidock(&["start", "web"]).ok();
    host::wait_until("it answers once more", || fetch().out() == "hi");
    assert_eq!(host.inspect("web", "{{.State.Status}} {{.State.ExitCode}}{{.State.Error}}"), "running 0");
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn a_failed_start_leaves_the_container_created_with_dockers_exit_code() {
    let host = TestHost::new();
    host.minidock(&["create", "--name", "box", "busybox", "/no/such"]).ok();
    host.minidock(&["start", "box"]).exits(1).says(&["/no/such"]);
    assert_eq!(host.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "created 127");
    host.minidock(&["create", "--rm", "--name", "gone", "busybox", "/no/such"]).ok();
    host.minidock(&["start", "gone"]).exits(1);
    host.minidock(&["inspect", "gone"]).exits(1);
    host.minidock(&["rm", "box"]).ok();
    host.finish();
}

#[test]
fn starts_of_one_container_at_once_start_it_once() {
    let host = TestHost::new();
    host.minidock(&["create", "--name", "one", "busybox", "sh", "-c", "echo started; sleep 1000"]).ok();
    let starts: Vec<_> = (0..6).map(|_| host.spawn(&["start", "one"])).collect();
    for start in starts {
        assert_eq!(start.wait().ok().out(), "one");
    }
    assert_eq!(host.inspect("one", "{{.State.Status}}"), "running");
    host::wait_until("it has written", || host.minidock(&["logs", "one"]).out() == "started");
    host.minidock(&["start", "one"]).ok();
    host.remove(&["one"]);
    host.finish();
}

#[test]
fn a_created_container_with_rm_is_removed_after_its_run_only() {
    let host = TestHost::new();
    host.minidock(&["create", "--rm", "--name", "box", "busybox", "cat", "/etc/hostname"]).ok();
    assert_eq!(host.minidock(&["ps", "-a", "--format", "{{.Names}}"]).ok().out(), "box");
    host.minidock(&["start", "-a", "box"]).ok();
    host::wait_until("it is gone", || host.minidock(&["ps", "-aq"]).ok().out().is_empty());
    host.finish();
}

#[test]
fn standard_input_goes_to_a_started_container_and_a_lone_attach_leaves_it_open() {
    let host = TestHost::new();
    host.minidock(&["create", "-i", "--name", "box", "busybox", "cat"]).ok();
    assert_eq!(host.command(&["start", "-ai", "box"]).input("hello").run().ok().out(), "hello");
    host.minidock(&["create", "--name", "two", "busybox", "true"]).ok();
    host.minidock(&["start", "-a", "box", "two"]).exits(1).says(&["cannot start and attach multiple containers"]);
    host.remove(&["box", "two"]);
    host.finish();
}

#[test]
fn what_can_not_work_is_refused_by_create_already() {
    let host = TestHost::new();
    host.minidock(&["create", "nosuch"]).exits(125).says(&["nosuch"]);
    host.minidock(&["create", "-d", "busybox"]).exits(125).says(&["unknown shorthand flag: 'd' in -d"]);
    host.minidock(&["create", "--sysctl", "kernel.panic=1", "busybox", "true"]).exits(125).says(&["kernel.panic"]);
    host.minidock(&["create", "--name", "box", "busybox", "true"]).ok();
    host.minidock(&["create", "--name", "box", "busybox", "true"]).exits(125).says(&["Conflict", "box"]);
    host.minidock(&["start", "nosuch", "box"]).exits(1).says(&["No such container: nosuch"]);
    host.wait_exited("box");
    host.minidock(&["container", "rm", "box"]).ok();
    host.finish();
}

/// The image that a container was made of is kept for it, and used for its starts whatever the name means by then.
#[test]
fn a_container_keeps_its_image() {
    let host = TestHost::new();
    host.minidock(&["create", "--name", "box", "busybox", "echo", "hi"]).ok();
    host.minidock(&["rmi", "busybox"]).exits(1);
    host.minidock(&["tag", "busybox", "other"]).ok();
    assert_eq!(host.minidock(&["start", "-a", "box"]).ok().out(), "hi");
    host.remove(&["box"]);
    host.finish();
}
