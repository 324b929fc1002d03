//! Bad input: every refusal says what, on what and what to do, on one or two lines, with docker's exit code, and leaves
//! nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::TestHost;
use host::command::Output;

/// A refusal: its exit code, at most two lines, no backtrace, these words.
fn refused(output: Output, code: i32, words: &[&str]) {
    let output = output.exits(code).says(words);
    let lines = output.err().lines().count();
    assert!((1..=2).contains(&lines), "{lines} lines:\n{}", output.describe());
    for noise in ["panicked", "RUST_BACKTRACE", "Error {", "Os {", "called `"] {
        assert!(!output.err().contains(noise), "{}", output.describe());
    }
    assert_eq!(output.out(), "", "{}", output.describe());
}

#[test]
fn bad_flags_of_run_are_refused_in_words_of_the_user() {
    let host = TestHost::new();
    #[rustfmt::skip]
    let table: &[(&[&str], &[&str])] = &[
        (&["--nme", "x"],                           &["--nme", "--name"]),
        (&["--gpus", "all"],                        &["--gpus"]),
        (&["--ip", "1.2.3.4"],                      &["user specified IP address", "network create"]),
        (&["--restart", "always"],                  &["--restart"]),
        (&["-p", "70000:80"],                       &["70000"]),
        (&["-p", "80:80:80:80"],                    &["80:80:80:80"]),
        (&["-p", "300.1.1.1:80:80"],                &["300.1.1.1"]),
        (&["-p", "80:80/icmp"],                     &["icmp"]),
        (&["-p", "8000-8001:80-89"],                &["8000-8001"]),
        (&["-m", "lots"],                           &["lots"]),
        (&["-m", "1"],                              &["-m"]),
        (&["-m", "64m", "--memory-swap", "32m"],    &["--memory-swap"]),
        (&["--memory-swap", "64m"],                 &["--memory-swap"]),
        (&["--cpus", "-1"],                         &["--cpus"]),
        (&["--cpus", "many"],                       &["many"]),
        (&["--cpus", "1", "--cpu-quota", "1000"],   &["--cpus", "--cpu-quota"]),
        (&["--cpuset-cpus", "0-999999999"],         &["--cpuset-cpus"]),
        (&["--cpuset-cpus", "x"],                   &["--cpuset-cpus"]),
        (&["--pids-limit", "x"],                    &["--pids-limit"]),
        (&["--blkio-weight", "5"],                  &["--blkio-weight"]),
        (&["--device-read-bps", "/dev/null"],       &["--device-read-bps"]),
        (&["--oom-score-adj", "2000"],              &["--oom-score-adj"]),
        (&["--net-cls", "nonsense"],                &["--net-cls"]),
        (&["--name", "../x"],                       &["../x"]),
        (&["--name", "a/b"],                        &["a/b"]),
        (&["--name", "-rf"],                        &["-rf"]),
        (&["--network", "moon"],                    &["moon"]),
        (&["--network", "container:nobody"],        &["nobody"]),
        (&["-u", "4294967295"],                     &["4294967295"]),
        (&["-u", "-1"],                             &["-1"]),
        (&["-u", "0x0"],                            &["0x0"]),
        (&["-u", "root:no-such-group"],             &["no-such-group"]),
        (&["-v", "relative:"],                      &["relative:"]),
        (&["-v", "/a:relative"],                    &["relative"]),
        (&["-v", "/a:/b:sideways"],                 &["sideways"]),
        (&["--mount", "type=bind,dst=/x"],          &["--mount"]),
        (&["--mount", "type=magic,dst=/x"],         &["magic"]),
        (&["--tmpfs", "relative"],                  &["relative"]),
        (&["-e", "=x"],                             &["=x"]),
        (&["--env-file", "/no/such/file"],          &["/no/such/file"]),
        (&["-h", "not a name"],                     &["not a name"]),
        (&["-h", "-x"],                             &["-x"]),
        (&["--add-host", "name"],                   &["--add-host"]),
        (&["--add-host", "name:nowhere"],           &["nowhere"]),
        (&["--dns", "nowhere"],                     &["nowhere"]),
        (&["--ulimit", "nofile"],                   &["--ulimit"]),
        (&["--ulimit", "bananas=1"],                &["bananas"]),
        (&["--ulimit", "nofile=2:1"],               &["--ulimit"]),
        (&["--sysctl", "kernel.core_pattern=x"],    &["kernel.core_pattern"]),
        (&["--sysctl", "novalue"],                  &["novalue"]),
        (&["--shm-size", "huge"],                   &["--shm-size"]),
        (&["--security-opt", "trust=me"],           &["trust=me"]),
        (&["--stop-signal", "SIGNONSENSE"],         &["SIGNONSENSE"]),
        (&["--pull", "sometimes"],                  &["sometimes"]),
        (&["--publish-mode", "magic"],              &["magic"]),
        (&["--entrypoint", ""],                     &[]),
        (&["-w", "relative"],                       &["relative"]),
        (&["--rm=perhaps"],                         &["perhaps"]),
        (&["--cap-drop", "NO_SUCH"],                &["NO_SUCH"]),
        (&["--device", "relative"],                 &["relative"]),
    ];
    let mut wrong = Vec::new();
    for (flags, words) in table {
        let image: &[&str] = if *flags == ["--entrypoint", ""] { &["busybox:none"] } else { &["busybox", "true"] };
        let output = host.minidock(&[&["run", "--rm"], *flags, image].concat());
        let text = output.describe();
        // All rows are told at once, not only the first.
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| refused(output, 125, words))) {
            let why = panic.downcast_ref::<String>().cloned().unwrap_or(text);
            wrong.push(why);
        }
    }
    assert_eq!(host.minidock(&["ps", "-aq"]).ok().out(), "");
    assert!(wrong.is_empty(), "{} rows:\n\n{}", wrong.len(), wrong.join("\n"));
    host.finish();
}

#[test]
fn bad_arguments_of_other_commands_are_refused() {
    let host = TestHost::new();
    #[rustfmt::skip]
    let table: &[(&[&str], i32, &[&str])] = &[
        (&["stop", "nobody"],                       1, &["nobody"]),
        (&["rm", "nobody"],                         1, &["nobody"]),
        (&["logs", "nobody"],                       1, &["nobody"]),
        (&["port", "nobody"],                       1, &["nobody"]),
        (&["exec", "nobody", "true"],               1, &["nobody"]),
        (&["inspect", "nobody"],                    1, &["nobody"]),
        (&["tag", "nobody", "x"],                   1, &["nobody"]),
        (&["tag", "busybox", "UPPER CASE"],         1, &["UPPER CASE"]),
        (&["rmi", "nobody"],                        1, &["nobody"]),
        (&["load", "-i", "/no/such/file"],          1, &["/no/such/file"]),
        (&["load", "-i", "/dev/null"],              1, &["/dev/null"]),
        (&["import", "/no/such/file"],              1, &["/no/such/file"]),
        (&["ps", "--filter", "nonsense"],           1, &["nonsense"]),
        (&["pull", "x"],                            1, &["pull", "load"]),
        (&["run"],                                  1, &["run"]),
        (&["proxy", "-proto", "tcp"],               1, &["proxy"]),
    ];
    let mut wrong = Vec::new();
    for (args, code, words) in table {
        let output = host.minidock(args).exits_any(&[*code, 125]);
        let output = output.says(words);
        if output.err().lines().count() > 4 || output.err().contains("panicked") {
            wrong.push(output.describe());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    host.finish();
}

#[test]
fn a_user_who_is_not_root_is_told_so() {
    let host = TestHost::new();
    let program = host.work.join("minidock");
    std::fs::copy(host::minidock(), &program).unwrap(); // where the user may execute it
    host.sh("chmod 755 . ..; chmod 755 minidock").ok();
    let output = host
        .sh(&format!("setpriv --reuid 65534 --regid 65534 --clear-groups {} run --rm busybox true", program.display()));
    refused(output, 125, &["root"]);
    host.finish();
}

#[test]
fn a_full_disk_is_an_error_that_leaves_nothing() {
    let host = TestHost::bare();
    host.sh(&format!("mount -t tmpfs -o size=1m tmpfs {}", host.root.display())).ok();
    let file = host::images::busybox().to_str().unwrap();
    let output = host.minidock(&["load", "-q", "-i", file]).exits(1);
    assert!(output.err().to_lowercase().contains("no space left"), "{}", output.describe());
    assert_eq!(host.minidock(&["images", "-q"]).ok().out(), "");
    host.sh(&format!("umount {}", host.root.display())).ok();
    host.finish();
}

#[test]
fn a_read_only_root_folder_is_named() {
    let host = TestHost::bare();
    host.sh(&format!("mount -t tmpfs -o ro tmpfs {}", host.root.display())).ok();
    let file = host::images::busybox().to_str().unwrap();
    let output = host.minidock(&["load", "-q", "-i", file]).exits(1).says(&[host.root.to_str().unwrap()]);
    assert!(output.err().to_lowercase().contains("read-only"), "{}", output.describe());
    host.sh(&format!("umount {}", host.root.display())).ok();
    host.finish();
}

#[test]
fn a_wrong_firewall_name_is_refused_from_flag_and_environment() {
    let mut host = TestHost::new();
    refused(
        host.minidock(&["run", "--firewall", "magic", "--rm", "busybox", "true"]),
        125,
        &["magic", "nftables", "iptables"],
    );
    host.set("MINIDOCK_FIREWALL", "magic");
    refused(host.minidock(&["run", "--rm", "busybox", "true"]), 125, &["MINIDOCK_FIREWALL", "magic"]);
    host.finish();
}

#[test]
fn a_name_in_use_by_a_stopped_container_is_refused() {
    let host = TestHost::new();
    host.minidock(&["run", "--name", "taken", "busybox", "true"]).ok();
    refused(host.minidock(&["run", "--rm", "--name", "taken", "busybox", "true"]), 125, &["taken", "rm"]);
    host.remove(&["taken"]);
    host.finish();
}

#[test]
fn a_huge_command_line_is_no_problem() {
    let host = TestHost::new();
    let mut args: Vec<String> = ["run", "--rm"].map(String::from).to_vec();
    for number in 0..2000 {
        args.extend(["-e".to_string(), format!("VARIABLE_{number}=some value that takes room")]);
    }
    args.extend(["busybox", "sh", "-c", "env | grep -c VARIABLE_"].map(String::from));
    assert_eq!(host.minidock(&args).ok().out(), "2000");
    host.finish();
}
