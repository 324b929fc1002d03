//! What containers share with each other, and what they must not keep of their caller.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::{TestHost, images, read, wait_until};
use serde_json::json;

#[test]
fn a_joined_network_keeps_the_owner_s_host_name_and_files() {
    let host = TestHost::new();
    host.detached(&["--name", "owner", "-h", "foo", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "second", "--network", "container:owner", "busybox", "sleep", "1000"]);
    for container in ["owner", "second"] {
        let said = host.minidock(&["exec", container, "sh", "-c", "hostname; cat /etc/hostname"]).ok().out();
        assert_eq!(said, "foo\nfoo", "{container}");
    }
    let third =
        host.minidock(&["run", "--rm", "--network", "container:second", "busybox", "sh", "-c", "echo $HOSTNAME"]);
    assert_eq!(third.ok().out(), "foo");
    host.remove(&["second", "owner"]);
    host.finish();
}

#[test]
fn a_shareable_container_shares_its_memory_and_a_private_one_refuses() {
    let host = TestHost::new();
    host.detached(&[
        "--name",
        "shared",
        "--ipc",
        "shareable",
        "busybox",
        "sh",
        "-c",
        "echo 42 >/dev/shm/n; sleep 1000",
    ]);
    wait_until("the file is there", || host.minidock(&["exec", "shared", "cat", "/dev/shm/n"]).code() == 0);
    let joined = host.minidock(&["run", "--rm", "--ipc", "container:shared", "busybox", "cat", "/dev/shm/n"]);
    assert_eq!(joined.ok().out(), "42");
    host.detached(&["--name", "private", "busybox", "sleep", "1000"]);
    host.minidock(&["run", "--rm", "--ipc", "container:private", "busybox", "true"])
        .exits(125)
        .says(&["non-shareable"]);
    host.remove(&["shared", "private"]);
    host.finish();
}

#[test]
fn a_volume_can_not_be_laid_over_proc_by_a_link_of_the_image() {
    let host = TestHost::new();
    let mut layer = images::Layer::new();
    layer.link("data", "/proc").folder("bin", 0o755).file(
        "bin/busybox",
        0o755,
        &std::fs::read("/usr/bin/busybox").unwrap(),
    );
    let config = json!({"Cmd": ["/bin/busybox", "true"], "Volumes": {"/data": {}}});
    let archive = host.work.join("evil.tar");
    std::fs::write(&archive, images::docker_archive(&[layer.bytes()], config, &["evil:latest"])).unwrap();
    host.minidock(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    host.minidock(&["run", "--rm", "evil"]).exits(125).says(&["/data", "/proc"]);
    host.finish();
}

#[test]
fn a_detached_container_holds_nothing_that_its_caller_had_open() {
    let host = TestHost::new();
    let script = format!("x=$({} run -d --name held busybox sleep 1000 3>&1) && echo got", host::minidock().display());
    // The command substitution would wait for the container's end.
    assert_eq!(host.sh(&script).ok().out(), "got");
    host.remove(&["held"]);
    host.finish();
}

#[test]
fn the_cidfile_says_the_id_while_the_container_runs() {
    let host = TestHost::new();
    let file = host.work.join("cid");
    let run = host.spawn(&["run", "--rm", "--cidfile", file.to_str().unwrap(), "busybox", "sleep", "1000"]);
    wait_until("the id is in the file", || std::fs::read(&file).is_ok_and(|id| id.len() == 64));
    host.minidock(&["kill", &read(&file)]).ok();
    run.wait().exits(137);
    host.finish();
}

#[test]
fn a_stopped_client_keeps_nobody_from_stopping_and_removing_its_container() {
    let host = TestHost::new();
    let run = host.spawn(&["run", "--name", "slow", "busybox", "yes"]);
    wait_until("it runs", || host.minidock(&["inspect", "slow"]).code() == 0);
    run.signal(nix::sys::signal::Signal::SIGSTOP);
    host.minidock(&["stop", "-t", "1", "slow"]).ok();
    host.minidock(&["rm", "slow"]).ok();
    run.signal(nix::sys::signal::Signal::SIGCONT);
    run.wait().exits(137);
    host.finish();
}

#[test]
fn a_source_of_v_that_is_not_there_is_made_once_with_its_parents() {
    let host = TestHost::new();
    let source = host.work.join("made/here");
    let (x, y) = (format!("{}:/x", source.display()), format!("{}:/y", source.display()));
    host.minidock(&["run", "--rm", "-v", &x, "-v", &y, "busybox", "touch", "/x/file"]).ok();
    assert!(source.join("file").exists());
    host.finish();
}

#[test]
fn a_damaged_network_journal_is_told_and_not_forgotten() {
    let host = TestHost::new();
    host.minidock(&["run", "--rm", "busybox", "true"]).ok();
    let journal = host::residue::files_named(&host.root.join("run/network/bridge"), "journal").remove(0);
    let good = read(&journal);
    std::fs::write(&journal, good.replacen("{\"net\"", "nonsense", 1)).unwrap();
    host.sh("ip link set docker0 down").ok();
    host.minidock(&["run", "--rm", "busybox", "true"]).exits(125).says(&["journal", "damaged"]);
    std::fs::write(&journal, good).unwrap();
    host.minidock(&["network", "rm", "bridge"]).ok();
    assert_eq!(host.sh("ip -br link show type bridge").out(), "");
    host.finish();
}

#[test]
fn the_net_cls_mount_goes_with_the_network() {
    let host = TestHost::new();
    let mounted = || host.sh("grep -c '^net_cls ' /proc/mounts || true").out();
    assert_eq!(mounted(), "0");
    host.minidock(&["run", "--rm", "--net-cls", "1:10", "busybox", "true"]).ok();
    assert_eq!(mounted(), "1");
    host.minidock(&["network", "rm", "bridge"]).ok();
    assert_eq!(mounted(), "0");
    host.finish();
}
