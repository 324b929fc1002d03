//! Small promises of everyday commands: what was typed is shown as it was typed, what is empty is shown as Go shows it,
//! and the container's own files in /etc are there whatever is mounted over it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::TestHost;
use host::groups::{Version, value, version};

#[test]
fn what_was_typed_is_what_inspect_shows() {
    let host = TestHost::new();
    host.minidock(&["create", "--name", "typed", "--stop-signal", "USR1", "busybox", "true"]).ok();
    assert_eq!(host.inspect("typed", "{{.Config.StopSignal}}"), "USR1");
    host.minidock(&["create", "--name", "number", "--stop-signal", "10", "busybox", "true"]).ok();
    assert_eq!(host.inspect("number", "{{.Config.StopSignal}}"), "10");
    host.minidock(&["create", "--name", "plain", "busybox", "true"]).ok();
    assert_eq!(host.inspect("plain", "{{.Config.StopSignal}}"), "SIGTERM");
    let check = ["--health-retries", "4", "--health-cmd", "true", "--health-timeout", "2s", "--health-interval", "3s"];
    host.minidock(&[&["create", "--name", "checked"], &check[..], &["busybox", "true"]].concat()).ok();
    assert_eq!(
        host.inspect("checked", "{{json .Config.Healthcheck}}"),
        r#"{"Test":["CMD-SHELL","true"],"Interval":3000000000,"Timeout":2000000000,"Retries":4}"#
    );
    host.remove(&["typed", "number", "plain", "checked"]);
    host.finish();
}

#[test]
fn what_is_empty_is_shown_as_go_shows_it() {
    let host = TestHost::new();
    let script = "mkdir -p /tmp/empty-$$ && tar -C /tmp/empty-$$ -cf - . && rmdir /tmp/empty-$$";
    let archive = host.sh(script).ok().stdout;
    host.command(&["import", "-", "imported"]).input(archive).run().ok();
    let template = "{{.Config.Cmd}} {{.Config.Env}} {{.Config.ExposedPorts}} {{.Config.Labels}} {{.Config.Volumes}} \
                    {{.Config.Entrypoint}} {{.Config.Healthcheck}} [{{.Config.User}}{{.Config.WorkingDir}}]";
    let shown = host.minidock(&["image", "inspect", "-f", template, "imported"]).ok();
    assert_eq!(shown.out(), "[] [] map[] map[] map[] [] <nil> []");
    host.minidock(&["create", "--name", "box", "busybox", "true"]).ok();
    assert_eq!(host.inspect("box", "{{.Config.ExposedPorts}} {{.HostConfig.Binds}}"), "map[] []");
    host.minidock(&["create", "--name", "open", "--expose", "80", "busybox", "true"]).ok();
    assert_eq!(host.inspect("open", "{{.Config.ExposedPorts}}"), "map[80/tcp:{}]");
    host.remove(&["box", "open"]);
    host.minidock(&["rmi", "imported"]).ok();
    host.finish();
}

#[test]
fn a_domain_name_is_felt_inside() {
    let host = TestHost::new();
    let run = |flags: &[&str], script: &str| {
        host.minidock(&[&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat()).ok().out()
    };
    let both = ["-h", "web", "--domainname", "ex.org"];
    let script = "hostname; cat /proc/sys/kernel/domainname /etc/hostname; tail -n 1 /etc/hosts | cut -f 2";
    assert_eq!(run(&both, script), "web\nex.org\nweb\nweb.ex.org web");
    assert_eq!(run(&["-h", "web.ex.org"], "hostname; tail -n 1 /etc/hosts | cut -f 2"), "web.ex.org\nweb.ex.org web");
    host.minidock(&[&["create", "--name", "box"], &both[..], &["busybox", "true"]].concat()).ok();
    assert_eq!(host.inspect("box", "{{.Config.Hostname}} {{.Config.Domainname}}"), "web ex.org");
    host.minidock(&["run", "--rm", "--domainname", "x", "--uts", "host", "busybox", "true"])
        .exits(125)
        .says(&["domainname"]);
    host.minidock(&["run", "--rm", "--domainname", "a b", "busybox", "true"]).exits(125).says(&["--domainname"]);
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn what_is_mounted_over_etc_hides_neither_hosts_nor_resolv_conf() {
    let host = TestHost::new();
    let folder = host.work.join("etc");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("mine"), "mine\n").unwrap();
    let bind = format!("{}:/etc", folder.display());
    let script = "cat /etc/mine; cat /etc/hostname; grep -c nameserver /etc/resolv.conf; grep -c inside /etc/hosts";
    let run = |volume: &str, script: &str| {
        host.minidock(&["run", "--rm", "-h", "inside", "-v", volume, "busybox", "sh", "-c", script]).ok().out()
    };
    assert_eq!(run(&bind, script), "mine\ninside\n1\n1");
    assert_eq!(run("over-etc:/etc", "cat /etc/hostname; grep -c nameserver /etc/resolv.conf"), "inside\n1");
    // What the user mounts on the very file still wins, and a shallow mount that is named last hides no deeper one.
    let hosts = format!("{}:/etc/hosts", folder.join("mine").display());
    assert_eq!(run(&hosts, "cat /etc/hosts"), "mine");
    let flags = ["-v", &format!("{}:/a/b", folder.display()), "--tmpfs", "/a"];
    let seen = host.minidock(&[&["run", "--rm"], &flags[..], &["busybox", "cat", "/a/b/mine"]].concat()).ok();
    assert_eq!(seen.out(), "mine");
    host.minidock(&["volume", "rm", "over-etc"]).ok();
    host.finish();
}

#[test]
fn v1s_memory_switches_are_set_and_v2_says_that_it_has_none() {
    let host = TestHost::new();
    let run = |flags: &[&str]| {
        host.minidock(&[&["run", "-d", "--name", "box"], flags, &["busybox", "sleep", "1000"]].concat())
    };
    if version("memory") == Some(Version::V1) {
        run(&["-m", "32m", "--memory-swappiness", "7", "--oom-kill-disable"]).ok();
        assert_eq!(value(&host, "box", "memory", "memory.swappiness", ""), "7");
        let control = value(&host, "box", "memory", "memory.oom_control", "");
        assert!(control.starts_with("oom_kill_disable 1"), "{control}");
        assert_eq!(host.inspect("box", "{{.HostConfig.MemorySwappiness}} {{.HostConfig.OomKillDisable}}"), "7 true");
    } else {
        for flag in ["--memory-swappiness=7", "--oom-kill-disable"] {
            run(&["-m", "32m", flag]).exits(125).says(&[flag.split('=').next().unwrap()]);
        }
    }
    host.minidock(&["rm", "-f", "box"]);
    run(&["--memory-swappiness", "101"]).exits(125).says(&["0-100"]);
    host.finish();
}

#[test]
fn no_command_is_no_failure_and_create_speaks_of_itself() {
    let host = TestHost::bare();
    for words in [&[][..], &["container"], &["network"]] {
        let help = host.minidock(words).exits(0);
        assert_eq!(help.out(), "");
        assert!(help.err().starts_with("Usage: minidock"), "{}", help.describe());
    }
    let help = host.minidock(&["--help"]).ok();
    let glued = help.out().lines().find(|line| line.starts_with("  completion")).unwrap().to_owned();
    assert!(glued.starts_with("  completion "), "{glued}");
    host.minidock(&["create"])
        .exits(1)
        .says(&["'minidock create' requires at least 1 argument", "minidock create --help"]);
    host.minidock(&["run"]).exits(1).says(&["'minidock run' requires at least 1 argument"]);
    for command in ["stop", "start", "rm", "logs", "update", "port"] {
        let words: &[&str] =
            if command == "update" { &["update", "-m", "32m", "nosuch"] } else { &[command, "nosuch"] };
        let refused = host.minidock(words).exits(1);
        assert!(refused.err().starts_with("minidock: "), "{}", refused.describe());
    }
    host.finish();
}

#[test]
fn the_last_network_leaves_no_folder_of_this_host() {
    let host = TestHost::new();
    host.minidock(&["run", "--rm", "busybox", "true"]).ok();
    let folders = || {
        let found = host.sh(&format!("find {} -name 'net-*'", host.root.display())).ok();
        found.out()
    };
    assert_ne!(folders(), "");
    host.minidock(&["network", "rm", "bridge"]).ok();
    assert_eq!(folders(), "");
    host.finish();
}
