//! What the small PID 1 of `--init` shows of itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::TestHost;

#[test]
fn pid_1_shows_docker_s_words_and_none_of_ours() {
    let host = TestHost::new();
    let flags = ["--init", "--name", "box", "-e", "PASSWORD=geheim", "-e", "A=b", "--label", "some=thing"];
    host.detached(&[&flags[..], &["busybox", "sleep", "1000"]].concat());
    let shown = host.minidock(&["exec", "box", "cat", "/proc/1/cmdline"]).ok().out();
    assert_eq!(shown.trim_end_matches('\0'), "/sbin/docker-init\0--\0sleep\x001000");
    let pid = host.pid("box");
    let environ = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(environ.contains("PASSWORD=geheim") && !environ.contains("MINIDOCK_ROOT"), "{environ:?}");
    // Started by another, shorter command: what fits is shown, and nothing else.
    host.minidock(&["restart", "-t", "0", "box"]).ok();
    host.minidock(&["stop", "-t", "0", "box"]).ok();
    host.minidock(&["start", "box"]).ok();
    let shown = host.minidock(&["exec", "box", "cat", "/proc/1/cmdline"]).ok().out();
    assert!(shown.starts_with("/sbin/docker-init") && !shown.contains("start"), "{shown:?}");
    host.remove(&["box"]);
    host.finish();
}
