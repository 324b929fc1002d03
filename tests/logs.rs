//! Logs: what is kept, rotation, `logs` and its flags, following over rotations and to the end, log drivers, full disks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use host::pty::Terminal;
use host::{TestHost, wait_until};

fn folder(host: &TestHost, id: &str) -> PathBuf {
    host.root.join("containers").join(id)
}

/// Runs a script to its end in a kept container.
fn ran(host: &TestHost, flags: &[&str], script: &str) -> String {
    let id = host.detached(&[flags, &["busybox", "sh", "-c", script]].concat());
    host.wait_exited(&id);
    id
}

#[test]
fn streams_tail_times_and_details_are_printed_as_docker_does() {
    let host = TestHost::new();
    let flags = ["--label", "tier=a b", "-e", "X=1=2", "--log-opt", "labels=tier,none", "--log-opt", "env=X"];
    // One after the other, each when the one before is in the log: two pipes have no order of their own.
    let script = "echo one; until [ -e /a ]; do sleep 0.02; done; echo two >&2; until [ -e /b ]; do sleep 0.02; done; printf three";
    let id = host.detached(&[&flags[..], &["busybox", "sh", "-c", script]].concat());
    host.wait_logged(&id, "one");
    host.minidock(&["exec", &id, "touch", "/a"]).ok();
    wait_until("the second is logged", || host.minidock(&["logs", &id]).err() == "two");
    host.minidock(&["exec", &id, "touch", "/b"]).exits_any(&[0, 137]); // its end may overtake touch
    host.wait_exited(&id);
    let logs = |flags: &[&str]| {
        let output = host.minidock(&[&["logs"], flags, &[id.as_str()]].concat()).ok();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let texts = |out: &str, err: &str| (out.to_string(), err.to_string());
    assert_eq!(logs(&[]), texts("one\nthree", "two\n"));
    assert_eq!(logs(&["-n", "2"]), texts("three", "two\n"));
    assert_eq!(logs(&["--tail", "0"]), texts("", ""));
    assert_eq!(logs(&["--tail", "all"]), texts("one\nthree", "two\n"));
    assert_eq!(logs(&["--tail=-1"]), texts("one\nthree", "two\n"));
    assert_eq!(logs(&["--details"]), texts("X=1%3D2,tier=a+b one\nX=1%3D2,tier=a+b three", "X=1%3D2,tier=a+b two\n"));
    let (out, err) = logs(&["-t"]);
    let times: Vec<&str> = out.lines().chain(err.lines()).map(|line| line.split_once(' ').unwrap().0).collect();
    assert!(times.iter().all(|time| time.len() == 30 && time.ends_with('Z')), "{times:?}");
    // one, three, two; a time itself is within both --since and --until.
    assert_eq!(logs(&["--since", times[2]]), texts("three", "two\n"));
    assert_eq!(logs(&["--until", times[2]]), texts("one\n", "two\n"));
    assert_eq!(logs(&["--since", times[2], "--until", times[2]]), texts("", "two\n"));
    assert_eq!(logs(&["--since", "10m"]), texts("one\nthree", "two\n"));
    assert_eq!(logs(&["--until", "10m"]), texts("", ""));
    // docker counts the tail first.
    assert_eq!(logs(&["-n", "1", "--until", times[2]]), texts("", ""));
    for zone in ["UTC0", "XYZ-5"] {
        let local = if zone == "UTC0" { times[1][..19].to_string() } else { shifted(times[1]) };
        let output = host.command(&["logs", "--since", &local, &id]).env("TZ", zone).run().ok();
        assert!(output.out().ends_with("three"), "{zone}: {local}");
        assert!(!output.out().is_empty());
    }
    host.minidock(&["logs", "--since", "yesterday", &id]).exits(1).says(&["--since", "yesterday"]);
    host.minidock(&["logs", "nobody"]).exits(1).says(&["No such container: nobody"]);
    host.remove(&[&id]);
    host.finish();
}

/// The same moment on a clock five hours ahead.
fn shifted(time: &str) -> String {
    let output =
        std::process::Command::new("date").env("TZ", "XYZ-5").args(["-d", time, "+%Y-%m-%dT%H:%M:%S"]).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_string()
}

#[test]
fn logs_are_rotated_and_all_kept_files_are_read() {
    let host = TestHost::new();
    let flags = ["--log-opt", "max-size=4k", "--log-opt", "max-file=3"];
    let id = ran(&host, &flags, "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; done");
    let names = ["container.log", "container.log.1", "container.log.2"];
    let sizes: Vec<u64> = names.iter().map(|name| folder(&host, &id).join(name).metadata().unwrap().len()).collect();
    assert!(sizes.iter().all(|size| *size < 4200) && sizes[1] >= 4000, "{sizes:?}");
    assert!(!folder(&host, &id).join("container.log.3").exists());
    let output = host.minidock(&["logs", &id]).ok().out();
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines.len() > 100 && lines.len() < 300);
    for (at, line) in lines.iter().rev().enumerate() {
        assert_eq!(*line, format!("line {}", 300 - at));
    }
    assert_eq!(host.minidock(&["logs", "-n", "90", &id]).ok().out().lines().next(), Some("line 211"));
    assert_eq!(
        host.inspect(&id, "{{json .HostConfig.LogConfig}}"),
        r#"{"Type":"json-file","Config":{"max-file":"3","max-size":"4k"}}"#
    );
    host.minidock(&["run", "--log-opt", "max-size=x", "busybox"]).exits(125).says(&["--log-opt", "max-size=x"]);
    host.minidock(&["run", "--log-opt", "foo=1", "busybox"])
        .exits(125)
        .says(&["unknown log opt 'foo' for json-file log driver"]);
    host.remove(&[&id]);
    host.finish();
}

#[test]
fn a_followed_log_goes_on_over_rotations_and_ends_with_the_container() {
    let host = TestHost::new();
    // A hundred lines at a time, when both followers have read those before: who falls behind by two files has lost some.
    let script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i; [ $((i%100)) != 0 ] || \
                  until [ -e /go$i ]; do sleep 0.01; done; done; echo end >&2";
    let flags =
        ["--name", "box", "--log-opt", "max-size=20k", "--log-opt", "max-file=2", "busybox", "sh", "-c", script];
    host.detached(&flags);
    let followers: Vec<_> = (0..2).map(|_| host.spawn(&["logs", "-f", "box"])).collect();
    for line in (100..=3000).step_by(100) {
        followers.iter().for_each(|follower| follower.wait_for(&format!("line {line}\n")));
        host.minidock(&["exec", "box", "touch", &format!("/go{line}")]).exits_any(&[0, 137]); // its end may overtake touch
    }
    for follower in followers {
        let output = follower.wait().ok();
        let out = output.out();
        let numbers: Vec<u32> = out.lines().map(|line| line[5..].parse().unwrap()).collect();
        assert_eq!(numbers.last(), Some(&3000));
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "a line was missed or came twice");
        assert_eq!(output.err(), "end");
    }
    assert_eq!(host.minidock(&["logs", "-f", "-n", "1", "box"]).ok().err(), "end", "an ended one isn't waited for");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn following_is_prompt_and_ends_with_until_or_a_removed_container() {
    let host = TestHost::new();
    host.detached(&[
        "--rm",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "while ! [ -e /go ]; do sleep 0.01; done; echo go; sleep 1000",
    ]);
    let follower = host.spawn(&["logs", "-f", "box"]);
    let until = host.spawn(&["logs", "-f", "--until=-700ms", "box"]);
    host.minidock(&["exec", "box", "touch", "/go"]).exits_any(&[0, 137]); // its end may overtake touch
    follower.wait_for("go\n");
    until.wait().ok();
    host.remove(&["box"]);
    assert_eq!(follower.wait().ok().out(), "go");
    // Its own end is told to the follower of one that exits.
    host.detached(&["--name", "box", "busybox", "sh", "-c", "echo a; sleep 0.3; printf b"]);
    assert_eq!(host.minidock(&["logs", "-f", "box"]).ok().out(), "a\nb");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_followed_log_goes_on_over_restarts_by_policy() {
    let host = TestHost::new();
    let script = "while ! [ -e /go ]; do sleep 0.01; done; echo run; exit 3";
    host.detached(&["--name", "box", "--restart", "on-failure:2", "busybox", "sh", "-c", script]);
    let follower = host.spawn(&["logs", "-f", "box"]);
    let client = host.spawn(&["attach", "box"]);
    client.wait_attached();
    host.minidock(&["exec", "box", "touch", "/go"]).exits_any(&[0, 137]); // its end may overtake touch
    assert_eq!(follower.wait().ok().out(), "run\nrun\nrun");
    assert_eq!(client.wait().exits(3).out(), "run", "a client is attached to one run");
    host.wait_exited("box");
    assert_eq!(host.inspect("box", "{{.State.Status}} {{.RestartCount}}"), "exited 2");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_reader_that_goes_away_ends_logs() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "busybox", "sh", "-c", "while :; do echo line; sleep 0.01; done"]);
    let output = host.sh(&format!("{} logs -f box | head -n 3", host::minidock().display())).ok();
    assert_eq!(output.out(), "line\nline\nline");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_terminals_log_is_what_was_shown() {
    let host = TestHost::new();
    let mut terminal = Terminal::start(host.command(&["run", "-it", "--name", "box", "busybox", "sh"]), 24, 80);
    terminal.wait_for("# ");
    terminal.send("echo a$((1+1)); exit\r");
    terminal.wait();
    let logged = || String::from_utf8_lossy(&host.minidock(&["logs", "box"]).ok().stdout).into_owned();
    assert!(logged().contains("a2\r\n"), "{}", logged());
    host::wait_until("all is on the terminal", || logged() == terminal.screen());
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn without_a_log_there_is_nothing_to_read() {
    let host = TestHost::new();
    host.minidock(&["create", "--name", "new", "busybox", "true"]).ok();
    assert_eq!(host.minidock(&["logs", "-f", "new"]).ok().out(), "");
    let id = ran(&host, &["--log-driver", "none"], "echo a");
    assert!(!folder(&host, &id).join("container.log").exists());
    host.minidock(&["logs", &id]).exits(1).says(&["configured logging driver does not support reading"]);
    host.minidock(&["run", "--log-driver", "syslog", "busybox"]).exits(125).says(&["json-file, journald and none"]);
    host.remove(&[&id, "new"]);
    host.finish();
}

#[test]
fn journald_gets_each_line_with_dockers_fields_where_it_listens() {
    let host = TestHost::new();
    let refused = host.minidock(&["run", "--log-driver", "journald", "busybox"]).exits(125);
    refused.says(&["nobody listens on", "json-file"]);
    host.sh("mkdir -p /run/systemd/journal").ok(); // the host has a /run of its own
    let journal = host.host.run(|| UnixDatagram::bind("/run/systemd/journal/socket").unwrap());
    journal.set_read_timeout(Some(host::LIMIT)).unwrap();
    let flags = ["run", "--name", "box", "--label", "tier=web", "--log-driver", "journald", "--log-opt", "labels=tier"];
    let flags =
        [&flags[..], &["--label", "container_id_full=another", "--log-opt", "labels=tier,container_id_full"]].concat();
    host.minidock(&[&flags[..], &["busybox", "sh", "-c", "echo out; sleep 0.1; printf err >&2"]].concat()).ok();
    let entry = || {
        let mut bytes = vec![0; 70_000];
        let count = journal.recv(&mut bytes).expect("an entry comes");
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    };
    let (first, second) = (entry(), entry());
    for line in ["MESSAGE=out", "PRIORITY=6", "CONTAINER_NAME=box", "IMAGE_NAME=busybox", "TIER=web"] {
        assert!(first.lines().any(|field| field == line), "{line} is not in\n{first}");
    }
    assert!(!first.contains("another"), "{first}");
    assert!(second.contains("MESSAGE=err\nPRIORITY=3\nCONTAINER_PARTIAL_MESSAGE=true\n"), "{second}");
    assert_eq!(host.inspect("box", "{{.HostConfig.LogConfig.Type}}"), "journald");
    // A journal that doesn't read holds up nobody.
    host.minidock(&["run", "--rm", "--log-driver", "journald", "busybox", "sh", "-c", "seq 1 20000"]).ok();
    host.remove(&["box"]);
    host.sh("rm -r /run/systemd").ok();
    host.finish();
}

#[test]
fn a_full_disk_neither_blocks_a_container_nor_costs_its_exit_status() {
    let mut host = TestHost::new();
    let disk = host.base.join("disk");
    std::fs::create_dir(&disk).unwrap();
    host.sh(&format!("mount -t tmpfs -o size=6m tmpfs {}", disk.display())).ok();
    host.set("MINIDOCK_ROOT", disk.to_str().unwrap());
    let script = "while ! [ -e /go ]; do sleep 0.02; done; seq 1 100000; while ! [ -e /more ]; do sleep 0.02; done; echo last; exit 7";
    host.sh("mkdir -p fs/bin; cp /bin/busybox fs/bin/ 2>/dev/null || true").ok();
    host.minidock(&["load", "-q", "-i", host::images::busybox().to_str().unwrap()]).ok();
    host.detached(&["--name", "box", "busybox", "sh", "-c", script]);
    let client = host.spawn(&["attach", "box"]);
    client.wait_attached();
    // Little is left for the log, and what it takes isn't what is given back later.
    let fill = format!("dd if=/dev/zero of={0}/fill bs=4k 2>/dev/null || truncate -s -256k {0}/fill", disk.display());
    host.sh(&fill).ok();
    host.minidock(&["exec", "box", "touch", "/go"]).exits_any(&[0, 137]); // its end may overtake touch
    client.wait_for("\n100000\n");
    host.sh(&format!("rm {}/fill", disk.display())).ok();
    host.minidock(&["exec", "box", "touch", "/more"]).exits_any(&[0, 137]);
    client.wait().exits(7);
    host.wait_exited("box");
    assert_eq!(host.inspect("box", "{{.State.ExitCode}}"), "7");
    let output = host.minidock(&["logs", "box"]).ok();
    assert!(output.out().ends_with("last"));
    assert!(output.err().contains("bytes of log are missing here: the disk was full"), "{}", output.err());
    assert!(!output.err().contains("damaged"), "half a line stayed: {}", output.err());
    host.remove(&["box"]);
    // Full from before its end on: the status is kept even so.
    host.detached(&[
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        "while ! [ -e /go ]; do sleep 0.02; done; seq 1 100000; exit 9",
    ]);
    host.sh(&fill).ok();
    host.minidock(&["exec", "box", "touch", "/go"]).exits_any(&[0, 137]); // its end may overtake touch
    host.wait_exited("box");
    assert_eq!(host.inspect("box", "{{.State.ExitCode}}"), "9");
    let output = host.minidock(&["logs", "box"]).ok();
    let lines: Vec<String> = output.out().lines().map(String::from).collect();
    assert!(lines.len() < 100_000, "the disk was not full");
    assert!(!output.err().contains("damaged"), "half a line stayed: {}", output.err());
    // Where a line was lost, a later one may have found room; half of one would be out of its turn.
    let numbers: Vec<u32> = lines.iter().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.first() == Some(&1) && numbers.windows(2).all(|pair| pair[0] < pair[1]), "no half line");
    host.sh(&format!("rm {}/fill", disk.display())).ok();
    host.remove(&["box"]);
    host.minidock(&["network", "rm", "bridge"]);
    host.sh(&format!("umount {}", disk.display())).ok();
    host.finish();
}

#[test]
fn short_runs_lose_nothing_of_their_output() {
    let host = TestHost::new();
    short_runs(&host, 40);
    host.finish();
}

/// 10 000 of them: `cargo test --release --test logs -- --ignored ten_thousand`
#[test]
#[ignore = "takes minutes"]
fn ten_thousand_short_runs_lose_nothing_of_their_output() {
    let host = TestHost::new();
    short_runs(&host, 10_000);
    host.finish();
}

/// Runs of random size (0 to 300 kB, small ones more often) whose output and log must be what they wrote, to the byte.
fn short_runs(host: &TestHost, count: u32) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for number in 0..count {
        let size = (next() % 300_000) >> (next() % 18);
        let seed = next() % 1_000_000;
        // Lines of changing length with their number in them; half of it goes to stderr by a second process.
        let script = format!(
            "awk 'BEGIN {{ n = 0; while (n < {size}) {{ s = sprintf(\"%d:%0\" (n % 97 + 1) \"d\", {seed} + n, n); print s; n += length(s) + 1 }} \
             printf \"end\" }}'; echo err{number} >&2"
        );
        let kept = number % 4 == 0;
        let words: &[&str] = if kept { &["run", "--name", "box"] } else { &["run", "--rm"] };
        let output = host.minidock(&[words, &["--network", "none", "busybox", "sh", "-c", &script]].concat()).ok();
        let expected = expected(size, seed);
        assert!(
            output.stdout == expected,
            "run {number} (size {size}): {} bytes of {}",
            output.stdout.len(),
            expected.len()
        );
        assert_eq!(output.stderr, format!("err{number}\n").as_bytes(), "run {number}");
        if kept {
            let log = host.minidock(&["logs", "box"]).ok();
            assert!(
                log.stdout == expected,
                "log {number} (size {size}): {} bytes of {}",
                log.stdout.len(),
                expected.len()
            );
            assert_eq!(log.stderr, output.stderr);
            host.remove(&["box"]);
        }
    }
}

fn expected(size: u64, seed: u64) -> Vec<u8> {
    let (mut bytes, mut n) = (Vec::new(), 0);
    while n < size {
        let line = format!("{}:{:0width$}\n", seed + n, n, width = (n % 97 + 1) as usize);
        bytes.extend_from_slice(line.as_bytes());
        n += line.len() as u64;
    }
    bytes.extend_from_slice(b"end");
    bytes
}

#[test]
fn the_program_is_not_slowed_down_by_its_log() {
    // A guard against quadratic behaviour: 20 MB in lines through pipe, log and rotation.
    let host = TestHost::new();
    let id =
        host.detached(&["busybox", "sh", "-c", "yes 'a line of forty bytes, or something near' | head -c 20000000"]);
    host.minidock(&["wait", &id]).ok(); // within the time that a command may take
    wait_until("it is rotated by default", || folder(&host, &id).join("container.log.1").exists());
    assert!(folder(&host, &id).join("container.log.1").metadata().unwrap().len() < 10_100_000);
    host.remove(&[&id]);
    host.finish();
}

/// A journald that takes what is sent, and a `journalctl` that knows it: entries in a file, arguments in another.
fn fake_journal(host: &mut TestHost) -> UnixDatagram {
    host.sh("mkdir -p /run/systemd/journal fake; touch fake/entries").ok();
    let script = format!(
        "#!/bin/sh\ncd {}/fake; case \"$*\" in --sync) exit;; *--follow*) tail=-f;; esac; echo \"$*\" >>words\n\
         exec tail -n +1 $tail entries\n",
        host.work.display()
    );
    let path = host.work.join("fake/journalctl");
    std::fs::write(&path, script).unwrap();
    host.sh("chmod +x fake/journalctl").ok();
    let path = format!("{}:{}", host.work.join("fake").display(), std::env::var("PATH").unwrap());
    host.set("PATH", &path);
    let journal = host.host.run(|| UnixDatagram::bind("/run/systemd/journal/socket").unwrap());
    journal.set_read_timeout(Some(host::LIMIT)).unwrap();
    journal
}

/// Takes so many entries and files them as `journalctl --output=json` tells them; the nth is of the second 1500000000+n.
fn file_entries(host: &TestHost, journal: &UnixDatagram, from: u64, count: u64) {
    for nth in from..from + count {
        let mut bytes = vec![0; 70_000];
        let length = journal.recv(&mut bytes).expect("an entry comes");
        let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
        let mut entry: serde_json::Map<String, serde_json::Value> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        entry.insert("__REALTIME_TIMESTAMP".to_owned(), format!("{}", (1_500_000_000 + nth) * 1_000_000).into());
        let mut file = std::fs::OpenOptions::new().append(true).open(host.work.join("fake/entries")).unwrap();
        file.write_all((serde_json::to_string(&entry).unwrap() + "\n").as_bytes()).unwrap();
    }
}

#[test]
fn logs_in_the_journal_are_read_through_journalctl() {
    let mut host = TestHost::new();
    let journal = fake_journal(&mut host);
    let flags = ["--name", "box", "--log-driver", "journald", "--label", "tier=web", "--log-opt", "labels=tier"];
    let script = "echo one; until [ -e /go ]; do sleep 0.02; done; echo two >&2; exec sleep 1000";
    host.minidock(&[&["run", "-d"], &flags[..], &["busybox", "sh", "-c", script]].concat()).ok();
    file_entries(&host, &journal, 0, 1);
    host.minidock(&["exec", "box", "touch", "/go"]).ok();
    file_entries(&host, &journal, 1, 1);
    let read = host.minidock(&["logs", "box"]).ok();
    assert_eq!((read.out().as_str(), read.err().as_str()), ("one", "two"));
    let id = host.inspect("box", "{{.Id}}");
    let words = || host::read(host.work.join("fake/words")).lines().last().unwrap().to_owned();
    assert!(words().ends_with(&format!("--lines=all CONTAINER_ID_FULL={id} _UID=0")), "{}", words());
    host.minidock(&["logs", "--tail", "3", "--since", "1500000000", "box"]).ok();
    assert!(words().contains("--lines=3 --since=@1500000000.000000 "), "{}", words());
    // What journalctl says in spite of it is left out all the same.
    assert_eq!(host.minidock(&["logs", "--since", "1500000001", "box"]).ok().out(), "");
    assert_eq!(
        host.minidock(&["logs", "--until", "1500000000", "-t", "box"]).ok().out(),
        "2017-07-14T02:40:00.000000000Z one"
    );
    assert_eq!(host.minidock(&["logs", "--details", "--until", "1500000000", "box"]).ok().out(), "tier=web one");
    // Followed: what comes is printed, and it ends with the container.
    let follower = host.spawn(&["logs", "-f", "box"]);
    follower.wait_for("one");
    assert!(words().contains("--follow"), "{}", words());
    host.minidock(&["exec", "box", "sh", "-c", "echo three >/proc/1/fd/1"]).ok();
    file_entries(&host, &journal, 2, 1);
    follower.wait_for("three");
    host.minidock(&["stop", "-t", "0", "box"]).ok();
    assert_eq!(follower.wait().ok().out(), "one\nthree");
    // An entry that is far too long is left out, and nothing else.
    let entries = host.work.join("fake/entries");
    let first = host::read(&entries).lines().next().unwrap().to_owned();
    let long = first.replace("one", &"x".repeat(3 << 20));
    std::fs::write(&entries, format!("{first}\n{long}\n{}\n", first.replace("one", "last"))).unwrap();
    let read = host.minidock(&["logs", "box"]).ok();
    assert_eq!(read.out(), "one\nlast");
    read.says(&["an entry of more than 1048576 bytes is left out"]);
    // Without journalctl the error names it.
    host.set("PATH", "/nowhere");
    host.minidock(&["logs", "box"]).exits(1).says(&["'journalctl CONTAINER_NAME=box'"]);
    host.set("PATH", &std::env::var("PATH").unwrap());
    host.remove(&["box"]);
    host.sh("rm -r /run/systemd").ok();
    host.finish();
}
