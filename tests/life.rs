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
    let fetch = || host.outside("busybox wget -q -O - http://10.99.0.1:10080/");
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
    host.minidock(&["create", "nosuch"]).exits(1).says(&["nosuch"]);
    host.minidock(&["create", "-d", "busybox"]).exits(125).says(&["unknown shorthand flag: 'd' in -d"]);
    host.minidock(&["create", "--sysctl", "kernel.panic=1", "busybox", "true"]).exits(1).says(&["kernel.panic"]);
    host.minidock(&["create", "--name", "box", "busybox", "true"]).ok();
    host.minidock(&["create", "--name", "box", "busybox", "true"]).exits(1).says(&["Conflict", "box"]);
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

#[test]
fn pause_freezes_and_unpause_lets_go_on() {
    let host = TestHost::new();
    let script = "while :; do echo x; sleep 0.01; done";
    host.detached(&["--name", "box", "busybox", "sh", "-c", script]);
    let lines = || host.minidock(&["logs", "box"]).ok().out().lines().count();
    host::wait_until("it writes", || lines() > 0);
    assert_eq!(host.minidock(&["pause", "box"]).ok().out(), "box");
    assert_eq!(host.inspect("box", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}"), "paused true true");
    assert!(host.minidock(&["ps", "--format", "{{.Status}}"]).ok().out().ends_with("(Paused)"));
    // What was in the pipe may still be on its way into the log: the kernel says whether the program had its turn.
    let turns = || {
        let status = host::read(format!("/proc/{}/status", host.pid("box")));
        status.lines().filter(|line| line.contains("ctxt_switches")).collect::<String>()
    };
    let before = turns();
    std::thread::sleep(std::time::Duration::from_millis(300)); // the time in which nothing may happen
    assert_eq!(turns(), before);
    let before = lines();
    host.minidock(&["pause", "box"]).exits(1).says(&["is already paused"]);
    host.minidock(&["start", "box"]).exits(1).says(&["cannot start a paused container, try unpause instead"]);
    host.minidock(&["rm", "box"]).exits(1).says(&["container is paused"]);
    host.minidock(&["unpause", "box"]).ok();
    host::wait_until("it goes on", || lines() > before);
    host.minidock(&["unpause", "box"]).exits(1).says(&["is not paused"]);
    // A frozen one can be stopped and removed all the same.
    host.minidock(&["pause", "box"]).ok();
    host.minidock(&["stop", "-t", "1", "box"]).ok();
    assert_eq!(host.inspect("box", "{{.State.Status}}"), "exited");
    host.minidock(&["pause", "box"]).exits(1).says(&["is not running"]);
    host.minidock(&["start", "box"]).ok();
    host.minidock(&["container", "pause", "box"]).ok();
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn rename_changes_the_name_of_a_running_and_of_a_stopped_container() {
    let host = TestHost::new();
    host.detached(&["--name", "old", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "other", "busybox", "true"]);
    host.minidock(&["rename", "old", "new"]).ok();
    assert_eq!(host.inspect("new", "{{.Name}}"), "/new");
    host.minidock(&["inspect", "old"]).exits(1);
    assert_eq!(host.sh("ls /run/netns").ok().out(), "new", "the namespace's name goes with it");
    host.minidock(&["rename", "new", "new"]).exits(1).says(&["same name"]);
    host.minidock(&["rename", "new", "other"]).exits(1).says(&["Conflict", "already in use"]);
    host.minidock(&["rename", "new", "-x"]).exits_any(&[1, 125]);
    assert_eq!(host.inspect("new", "{{.State.Status}}"), "running");
    host.minidock(&["run", "--rm", "--name", "old", "busybox", "true"]).ok();
    host.wait_exited("other");
    host.minidock(&["rename", "other", "third"]).ok();
    host.minidock(&["start", "-a", "third"]).ok();
    // A crash after the renaming: the new name is given back too.
    let status = host::read(format!("/proc/{}/status", host.pid("new")));
    let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_string();
    host.sh(&format!("kill -9 {monitor}")).ok();
    host.wait_exited("new");
    host.remove(&["new", "third"]);
    host.finish();
}

#[test]
fn wait_prints_the_codes_of_all_also_of_those_that_vanish() {
    let host = TestHost::new();
    host.detached(&["--name", "kept", "busybox", "sh", "-c", "while ! [ -e /go ]; do sleep 0.02; done; exit 4"]);
    host.detached(&[
        "--rm",
        "--name",
        "gone",
        "busybox",
        "sh",
        "-c",
        "while ! [ -e /go ]; do sleep 0.02; done; exit 5",
    ]);
    let wait = host.spawn(&["wait", "kept", "gone"]);
    host::wait_until("it waits for both", || {
        let opened = std::fs::read_dir(format!("/proc/{}/fd", wait.pid())).into_iter().flatten().flatten();
        let sockets = opened.filter_map(|one| std::fs::read_link(one.path()).ok());
        sockets.filter(|target| target.to_string_lossy().starts_with("socket:")).count() >= 2
    });
    for name in ["gone", "kept"] {
        host.minidock(&["exec", name, "touch", "/go"]).exits_any(&[0, 137]); // its end may overtake touch
    }
    assert_eq!(wait.wait().ok().out(), "4\n5");
    assert_eq!(host.minidock(&["wait", "kept"]).ok().out(), "4");
    host.minidock(&["create", "--name", "new", "busybox", "true"]).ok();
    assert_eq!(host.minidock(&["wait", "new"]).ok().out(), "0");
    host.minidock(&["wait", "nosuch", "kept"]).exits(1).says(&["No such container: nosuch"]);
    // A killed monitor can't answer.
    host.detached(&["--name", "victim", "busybox", "sleep", "1000"]);
    let wait = host.spawn(&["wait", "victim"]);
    let status = host::read(format!("/proc/{}/status", host.pid("victim")));
    let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_string();
    host.sh(&format!("kill -9 {monitor}")).ok();
    assert_eq!(wait.wait().ok().out(), "137");
    host.remove(&["kept", "new", "victim"]);
    host.finish();
}

#[test]
fn prune_removes_what_does_not_run() {
    let host = TestHost::new();
    host.detached(&["--name", "lives", "busybox", "sleep", "1000"]);
    let one = host.minidock(&["create", "--label", "a=b", "busybox", "true"]).ok().out();
    let two = host.detached(&["busybox", "sh", "-c", "echo 12345 > /file"]);
    host.wait_exited(&two);
    assert!(
        host.command(&["container", "prune"]).input("n\n").run().ok().out().starts_with("WARNING! This will remove")
    );
    let pruned = host.minidock(&["container", "prune", "-f", "--filter", "label=a=b"]).ok().out();
    assert_eq!(pruned, format!("Deleted Containers:\n{one}\n\nTotal reclaimed space: 0B"));
    let pruned = host.command(&["container", "prune"]).input("y\n").run().ok().out();
    assert!(pruned.ends_with(&format!("Deleted Containers:\n{two}\n\nTotal reclaimed space: 6B")), "{pruned}");
    assert_eq!(host.minidock(&["ps", "-a", "--format", "{{.Names}}"]).ok().out(), "lives");
    assert_eq!(host.minidock(&["container", "prune", "-f"]).ok().out(), "Total reclaimed space: 0B");
    host.remove(&["lives"]);
    host.finish();
}

/// The start is stopped after its third journal entry (its cgroups), as only a debug build can be.
#[test]
fn a_container_that_is_being_made_is_listed_as_created() {
    let host = TestHost::new();
    let words = ["run", "--rm", "--network", "none", "--name", "slow", "--label", "a=b", "busybox", "echo", "hi"];
    let count = host.work.join("writes").display().to_string();
    let run = host.command(&words).env("MINIDOCK_CRASH_COUNT", &count).env("MINIDOCK_CRASH", "stop-after:3").spawn();
    let list =
        || host.minidock(&["ps", "-a", "--format", "{{.Names}} {{.Image}} {{.Status}} {{.Command}} {{.Labels}}"]);
    host::wait_until("it is listed", || list().out() == "slow busybox Created \"echo hi\" a=b");
    assert_eq!(host.minidock(&["ps", "-q"]).ok().out(), "");
    let monitor = host::read(format!("/proc/{0}/task/{0}/children", run.pid()));
    host::wait_until("it is stopped", || host::read(format!("/proc/{}/stat", monitor.trim())).contains(") T "));
    host.sh(&format!("kill -CONT {monitor}")).ok();
    assert_eq!(run.wait().ok().out(), "hi");
    host::wait_until("it is gone", || list().out().is_empty());
    host.finish();
}

/// A container of another version: fields that this one doesn't know are kept, fields that it lacks have their defaults.
#[test]
fn a_container_of_another_version_lives_on() {
    let host = TestHost::new();
    let id = host.minidock(&["create", "--name", "box", "busybox", "true"]).ok().out();
    let path = host.root.join("containers").join(&id).join("state.json");
    let mut state: serde_json::Value = serde_json::from_str(&host::read(&path)).unwrap();
    state["from_the_future"] = serde_json::json!({ "a": [1, 2] });
    for young in ["stopped_by_hand", "restart_count", "inherited", "attachments"] {
        state.as_object_mut().unwrap().remove(young);
    }
    for young in ["restart", "health"] {
        state["request"].as_object_mut().unwrap().remove(young);
    }
    std::fs::write(&path, state.to_string()).unwrap();
    assert_eq!(host.inspect("box", "{{.State.Status}} {{.HostConfig.RestartPolicy.Name}}"), "created no");
    host.minidock(&["rename", "box", "renamed"]).ok();
    host.minidock(&["start", "-a", "renamed"]).ok();
    host.wait_exited("renamed");
    let state: serde_json::Value = serde_json::from_str(&host::read(&path)).unwrap();
    assert_eq!(state["from_the_future"]["a"][1], 2);
    host.minidock(&["rm", "renamed"]).ok();
    host.finish();
}
