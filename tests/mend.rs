//! What a newcomer has stumbled over: what `ps` shows of a container's helpers, low limits, hints in errors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::{TestHost, wait_until};

fn shown(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
        .unwrap_or_default()
        .trim_end_matches('\0')
        .replace('\0', " ")
}

/// All that show this word in their command line.
fn who_shows(word: &str) -> Vec<String> {
    let folders = std::fs::read_dir("/proc").unwrap();
    let pids = folders.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    pids.map(shown).filter(|words| words.contains(word)).collect()
}

#[test]
fn nobody_keeps_the_words_of_a_command_that_has_returned() {
    let host = TestHost::new();
    let secret = format!("geheim-{}", std::process::id());
    let variable = format!("PW={secret}");
    let flags = ["-d", "--init", "--restart", "always", "--name", "box", "-e", &variable];
    host.minidock(&[&["run"], &flags[..], &["busybox", "sleep", "1000"]].concat()).ok();
    host.minidock(&["exec", "-d", "-e", &variable, "box", "sleep", "1001"]).ok();
    wait_until("none shows it", || who_shows(&secret).is_empty());
    assert_eq!(shown(host.monitor("box")), "minidock: monitor box");
    // As before: a program that its monitor starts again still shows its own words.
    let first = host.pid("box");
    host.minidock(&["restart", "-t", "0", "box"]).ok();
    assert_ne!(host.pid("box"), first);
    assert_eq!(shown(host.pid("box")), "/sbin/docker-init -- sleep 1000");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_limit_on_open_files_is_the_program_s_not_ours() {
    let host = TestHost::new();
    for limit in ["nofile=3", "nofile=5:5", "nofile=5:1000"] {
        let script = ["--ulimit", limit, "busybox", "sh", "-c", "ulimit -n"];
        let soft = limit.trim_start_matches("nofile=").split(':').next().unwrap();
        assert_eq!(host.output_of(&script).trim(), soft, "{limit}");
    }
    host.detached(&["--init", "--ulimit", "nofile=5", "--name", "low", "busybox", "sleep", "1000"]);
    assert_eq!(host.minidock(&["exec", "low", "sh", "-c", "ulimit -Sn; ulimit -Hn"]).ok().out(), "5\n5");
    host.remove(&["low"]);
    host.finish();
}

#[test]
fn many_containers_have_their_time_for_an_end_together() {
    let host = TestHost::new();
    let names = ["aa", "bb", "cc", "dd", "ee", "ff"];
    for name in names {
        // Deaf to SIGTERM, and known to be so by its first line.
        host.detached(&[
            "--name",
            name,
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "trap '' TERM; echo deaf; sleep 1000",
        ]);
        host.wait_logged(name, "deaf");
    }
    for command in ["restart", "stop"] {
        let begin = std::time::Instant::now();
        let done = host.minidock(&[&[command, "-t", "4", "aa", "nobody"], &names[1..]].concat());
        let took = begin.elapsed();
        let done = done.exits(1).says(&["No such container: nobody"]);
        assert_eq!(done.out(), names.join("\n"));
        assert!((4..names.len() as u64 * 4 - 2).contains(&took.as_secs()), "{command}: {took:?}");
        if command == "restart" {
            // The next run may be deaf only in a moment.
            names.into_iter().for_each(|name| {
                wait_until("it is deaf again", || host.minidock(&["logs", name]).out().lines().count() == 2)
            });
        }
    }
    names
        .into_iter()
        .for_each(|name| assert_eq!(host.inspect(name, "{{.State.Status}} {{.State.ExitCode}}"), "exited 137"));
    host.remove(&names);
    host.finish();
}

#[test]
fn a_wait_that_can_t_be_met_is_refused_before_anything_is_made() {
    let host = TestHost::new();
    for (wait, words) in [("port", "--wait port:N"), ("http:/", "--wait port:N"), ("healthy", "--health-cmd")] {
        let args = ["run", "-d", "--name", "box", "--wait", wait, "busybox", "sleep", "1000"];
        host.minidock(&args).exits(125).says(&[words]);
        assert_eq!(host.minidock(&["ps", "-aq"]).ok().out(), "");
    }
    // With --expose there is a port; nobody listens on it.
    let args = ["--expose", "80", "--name", "box", "--wait", "port", "--wait-timeout", "0", "busybox", "sleep", "1000"];
    host.minidock(&[&["run", "-d"], &args[..]].concat()).exits(125).says(&["is not ready"]);
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn three_signals_free_the_client_of_a_deaf_program() {
    let host = TestHost::new();
    let script = "trap '' INT TERM; echo deaf; while :; do sleep 1; done";
    let mut client = host.spawn(&["run", "--rm", "--name", "box", "busybox", "sh", "-c", script]);
    client.wait_for("deaf");
    for _ in 0..3 {
        assert!(!client.has_ended());
        client.signal(nix::sys::signal::Signal::SIGINT);
        // Two of a kind that are pending are one.
        let pid = client.pid();
        wait_until("it has taken the signal", || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            !status.lines().any(|line| line.starts_with("ShdPnd:") && !line.ends_with("0000000000000000"))
        });
    }
    let ended = client.wait().exits(1);
    assert_eq!(ended.err().trim_start(), "got 3 SIGTERM/SIGINTs, forcefully exiting");
    host.minidock(&["rm", "-f", "box"]);
    host.finish();
}

#[test]
fn errors_of_the_first_minutes_say_the_way_out() {
    let host = TestHost::new();
    host.minidock(&["run", "nginx"]).exits(125).says(&[
        "no such image: nginx",
        "pulls from no registry",
        "minidock load -i",
    ]);
    host.minidock(&["run", "busybox", "-d"]).exits(127).says(&["exec: \"-d\"", "flags go before the image"]);
    host.minidock(&["run", "-d", "busybox", "--name", "x"]).exits(127).says(&["flags go before the image"]);
    let plain = host.minidock(&["run", "busybox", "nonsense"]).exits(127);
    assert!(!plain.err().contains("flags go"), "{}", plain.err());
    host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    host.minidock(&["exec", "box", "-it", "sh"]).exits(127).says(&["flags go before the container"]);
    for (word, reason) in [("compose", "minidock network create"), ("swarm", "this machine"), ("context", "no daemon")]
    {
        host.minidock(&[word, "ls"]).exits(1).says(&["not available yet", reason]);
    }
    for (typed, meant) in [("prune", None), ("strat", Some("start")), ("imags", Some("images"))] {
        let said = host.minidock(&[typed]).exits(1).err();
        assert_eq!(
            said.lines().next().and_then(|line| line.split("did you mean '").nth(1)),
            meant.map(|word| format!("{word}'?")).as_deref(),
            "{said}"
        );
    }
    host.minidock(&["ps", "-aq"]).ok();
    let left = host.minidock(&["ps", "-aq"]).ok().out();
    host.minidock(&[&["rm", "-f"], &left.lines().collect::<Vec<_>>()[..]].concat()).ok();
    host.finish();
}

#[test]
fn a_router_s_missing_flags_are_named() {
    let host = TestHost::new();
    host.minidock(&["router", "create", "r1"]).exits(1).says(&["needs --inside NETWORK", "and --outside BRIDGE"]);
    host.minidock(&["router", "create"]).exits(1);
    host.finish();
}
