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
