//! Words that people and scripts look for: as docker says them, with the way out, and without Rust's own words in them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::{OUTSIDE, TestHost};

#[test]
fn missing_arguments_point_to_the_help() {
    let host = TestHost::new();
    for (words, wanted) in [
        (&["run"][..], "'minidock run' requires at least 1 argument\nSee 'minidock run --help'."),
        (&["create"], "'minidock create' requires at least 1 argument\nSee 'minidock create --help'."),
        (&["exec", "x"], "'minidock exec' requires at least 2 arguments\nSee 'minidock exec --help'."),
    ] {
        let output = host.minidock(words).exits(1);
        assert_eq!(output.err(), format!("minidock: {wanted}"), "{words:?}");
    }
    host.finish();
}

/// Each names a file that isn't there, by another way of reading.
#[test]
fn no_error_speaks_rust() {
    let host = TestHost::new();
    host.detached(&["--name", "web", "busybox", "sleep", "1000"]);
    let cases: &[(i32, &[&str])] = &[
        (1, &["load", "-i", "/nonexistent"]),
        (1, &["import", "/nonexistent"]),
        (125, &["run", "--env-file", "/nonexistent", "busybox"]),
        (125, &["run", "--label-file", "/nonexistent", "busybox"]),
        (125, &["run", "--security-opt", "seccomp=/nonexistent", "busybox"]),
        (125, &["run", "--rootfs", "/nonexistent", "true"]),
        (125, &["run", "./nonexistent.tar"]),
        (125, &["run", "--cidfile", "/nonexistent/x", "busybox"]),
        (1, &["cp", "/nonexistent", "web:/"]),
        (1, &["cp", "web:/nonexistent", "/tmp"]),
        (1, &["export", "-o", "/nonexistent/x", "web"]),
        (1, &["save", "-o", "/nonexistent/x", "busybox"]),
        (1, &["man", "/proc/nonexistent"]),
        (127, &["session", "--", "/nonexistent"]),
        (127, &["exec", "web", "/nonexistent"]),
        (127, &["run", "--rm", "busybox", "/nonexistent"]),
    ];
    for (code, words) in cases {
        let output = host.minidock(words).exits(*code);
        assert!(!output.err().contains("os error") && !output.err().is_empty(), "{words:?}: {}", output.err());
    }
    // Also in a folder that isn't the program's.
    std::fs::write(host.root.join("config.toml"), "bip = 1\n").unwrap();
    let output = host.minidock(&["ps"]);
    assert!(!output.err().contains("os error"), "{}", output.err());
    std::fs::remove_file(host.root.join("config.toml")).unwrap();
    host.remove(&["web"]);
    host.finish();
}

#[test]
fn what_is_no_archive_is_called_so_with_the_way_out() {
    let host = TestHost::new();
    std::fs::write(host.work.join("short.txt"), "hello\n").unwrap();
    std::fs::write(host.work.join("long.txt"), "hello\n".repeat(1000)).unwrap();
    for file in ["short.txt", "long.txt"] {
        for words in [&["load", "-i", file][..], &["import", file]] {
            host.minidock(words).exits(1).says(&[file, "unrecognized format: not a tar archive", "docker save"]);
        }
        host.minidock(&["run", &format!("./{file}")]).exits(125).says(&["not a tar archive"]);
    }
    host.finish();
}

#[test]
fn what_docker_s_users_look_for() {
    let host = TestHost::new();
    host.detached(&["--name", "web", "busybox", "sleep", "1000"]);
    host.minidock(&["exec", "web", "nosuch"]).exits(127).says(&[
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"nosuch\": executable file not found in $PATH",
    ]);
    host.minidock(&["run", "--rm", "-v", "data:/x:zz", "busybox", "true"]).exits(125).says(&["zz", "nocopy, z, Z"]);
    // A flag's value that can't be: docker's code for flags, whatever the command.
    host.minidock(&["logs", "--tail", "foo", "web"]).exits(125).says(&["See 'minidock logs --help'."]);
    let output = host.minidock(&["run", "--rm", "--network", "nonet", "busybox", "true"]).exits(125);
    assert!(
        output.err().contains("network nonet not found") && !output.err().contains("did you mean"),
        "{}",
        output.err()
    );
    host.remove(&["web"]);
    host.finish();
}

/// The class must be made by the user; until it is, the container runs, and a line says which command makes it.
#[test]
fn a_class_that_is_not_there_is_told() {
    let host = TestHost::new();
    host.sh(&format!("ip route replace default via {OUTSIDE}")).ok();
    let run = || host.minidock(&["run", "--rm", "--net-cls", "1:10", "busybox", "true"]).ok().err();
    let class = "tc class add dev uplink parent 1: classid 1:10 htb rate 8mbit";
    let told = run();
    assert!(told.starts_with("WARNING: --net-cls 1:10: uplink has no tree"), "{told}");
    host.sh("tc qdisc add dev uplink root handle 1: htb").ok();
    let told = run();
    assert!(told.starts_with("WARNING: --net-cls 1:10: uplink has no class 1:10") && told.ends_with(class), "{told}");
    // What it advises, is what was missing.
    host.sh(class).ok();
    assert_eq!(run(), "");
    host.sh("tc qdisc del dev uplink root; tc qdisc add dev uplink root handle 2: htb").ok();
    assert!(run().contains("the tree of uplink has the handle 2:"), "{}", run());
    host.sh("tc qdisc del dev uplink root").ok();
    host.finish();
}
