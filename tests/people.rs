//! What people and scripts look at: ps with its filters, inspect with sizes, near misses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::TestHost;

#[test]
fn ps_filters_by_what_docker_filters_by() {
    let host = TestHost::new();
    host.detached(&["--name", "old", "--label", "a=1", "-p", "10080:80", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "web", "--network", "none", "-v", "/data", "busybox", "sleep", "1000"]);
    host.minidock(&["run", "--name", "gone", "busybox", "sh", "-c", "exit 3"]).exits(3);
    let names = |flags: &[&str]| {
        let mut args = vec!["ps", "--format", "{{.Names}}"];
        args.extend(flags);
        host.minidock(&args).ok().out().replace('\n', " ")
    };
    for (flags, expected) in [
        (&[][..], "web old"),
        (&["-a"], "gone web old"),
        (&["-f", "name=^/o.d$"], "old"),
        (&["-f", "status=exited"], "gone"),
        (&["-f", "exited=3"], ""),
        (&["-a", "-f", "exited=3"], "gone"),
        (&["-a", "-f", "before=web"], "old"),
        (&["-a", "-f", "since=old"], "gone web"),
        (&["-f", "network=none"], "web"),
        (&["-f", "volume=/data"], "web"),
        (&["-f", "publish=10080"], "old"),
        (&["-f", "expose=80/tcp"], "old"),
        (&["-f", "publish=80"], ""),
        (&["-f", "label=a"], "old"),
        (&["-a", "-f", "ancestor=busybox", "-f", "status=running", "-f", "status=exited"], "gone web old"),
        (&["-n", "2"], "gone web"),
        (&["-l"], "gone"),
    ] {
        assert_eq!(names(flags), expected, "{flags:?}");
    }
    host.minidock(&["ps", "-f", "since=nobody"]).exits(1).says(&["No such container: nobody"]);
    host.minidock(&["ps", "-f", "nmae=x"]).exits(1).says(&["invalid filter 'nmae'", "did you mean name?"]);
    host.minidock(&["ps", "-f", "x"]).says(&["bad format of filter"]);
    let both = host.minidock(&["ps", "-q", "--format", "{{.Names}}"]).ok();
    assert_eq!(both.err(), "WARNING: Ignoring custom format, because both --format and --quiet are set.");
    assert_eq!(both.out().lines().map(str::len).collect::<Vec<_>>(), [12, 12]);
    host.remove(&["old", "web", "gone"]);
    host.finish();
}

#[test]
fn sizes_are_those_of_the_files_written() {
    let host = TestHost::new();
    host.minidock(&["run", "--name", "box", "busybox", "sh", "-c", "head -c 2150 /dev/zero >/file"]).ok();
    let image: u64 = host.minidock(&["image", "inspect", "-f", "{{.Size}}", "busybox"]).ok().out().parse().unwrap();
    let sizes = host.minidock(&["inspect", "-s", "-f", "{{.SizeRw}} {{.SizeRootFs}}", "box"]).ok().out();
    assert_eq!(sizes, format!("2150 {}", image + 2150));
    assert_eq!(host.inspect("box", "{{.SizeRw}}"), "<nil>");
    assert!(host.minidock(&["ps", "-as"]).ok().out().contains("2.15kB (virtual "));
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn the_document_has_docker_s_fields_and_prints_as_docker_s() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "-p", "127.0.0.1:10081:81", "--expose", "90", "busybox", "sleep", "1000"]);
    for (template, expected) in [
        ("{{.NetworkSettings.Ports}}", "map[81/tcp:[{127.0.0.1 10081}] 90/tcp:[]]"),
        ("{{.HostConfig.PortBindings}}", "map[81/tcp:[{127.0.0.1 10081}]]"),
        ("{{.HostConfig.LogConfig.Type}}", "json-file"),
        ("{{.Config.ExposedPorts}}", "map[81/tcp:{} 90/tcp:{}]"),
        ("{{json .Config.ExposedPorts}}", r#"{"81/tcp":{},"90/tcp":{}}"#),
        ("{{.State.Health}}", "<nil>"),
        ("{{with .State.Health}}x{{else}}none{{end}}", "none"),
        ("{{json .HostConfig.Binds}}", "null"),
        ("{{.HostConfig.NanoCPUs}}", "0"),
        ("{{index .HostConfig.MaskedPaths 1}}", "/proc/asound"),
    ] {
        assert_eq!(host.inspect("box", template), expected, "{template}");
    }
    // The first container's line is printed before the second one's error, and the exit code is 1.
    let wrong = host.minidock(&["inspect", "-f", "{{.Name}} {{.Nope}}", "box"]).exits(1);
    assert_eq!(String::from_utf8_lossy(&wrong.stdout), "\n");
    wrong.says(&[
        "template parsing error: template: :1:12: executing \"\" at <.Nope>: map has no entry for key \"Nope\"",
    ]);
    let state = host.inspect("box", "{{json .State}}");
    assert!(state.starts_with(r#"{"Status":"running","Running":true,"Paused":false,"Restarting":false"#), "{state}");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn near_misses_are_named() {
    let host = TestHost::new();
    host.detached(&["--name", "web", "busybox", "sleep", "1000"]);
    for (line, near) in [
        (&["stop", "wbe"][..], "did you mean web?"),
        (&["inspect", "--format", "x", "wbe"], "did you mean web?"),
        (&["run", "--rm", "busybx", "true"], "did you mean busybox?"),
        (&["rmi", "busybx"], "did you mean busybox?"),
        (&["isnpect", "web"], "did you mean 'inspect'?"),
        (&["container", "stpo", "web"], "did you mean 'container stop'?"),
        (&["run", "--naem", "x", "busybox"], "did you mean --name?"),
    ] {
        host.minidock(line).says(&[near]);
    }
    host.remove(&["web"]);
    host.finish();
}
