//! Volumes: named, anonymous, of the image, taken over; their commands; what stays and what goes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::{TestHost, images, wait_until};
use serde_json::json;

/// An image `db` with a VOLUME /data that has a file, owned by 1000.
fn load_db(host: &TestHost) {
    let mut layer = images::Layer::new();
    layer.owner(1000, 1000).folder("data", 0o750).file("data/seed", 0o640, b"from the image\n").owner(0, 0);
    layer.folder("empty", 0o755);
    let config = json!({ "Env": [format!("PATH={}", images::PATH)], "Cmd": ["sh"], "Volumes": { "/data": {} } });
    let archive = images::docker_archive(&[images::rootfs(), layer.bytes()], config, &["db:latest"]);
    host.command(&["load", "-q"]).input(archive).run().ok();
}

fn volumes(host: &TestHost) -> Vec<String> {
    host.minidock(&["volume", "ls", "-q"]).ok().out().lines().map(String::from).collect()
}

#[test]
fn the_commands_make_show_and_remove_volumes_as_docker_s_do() {
    let host = TestHost::bare();
    assert_eq!(host.minidock(&["volume", "create", "--label", "a=1", "data"]).ok().out(), "data");
    assert_eq!(host.minidock(&["volume", "create", "data"]).ok().out(), "data", "one that is there is no error");
    let anonymous = host.minidock(&["volume", "create"]).ok().out();
    assert!(anonymous.len() == 64 && anonymous.bytes().all(|byte| byte.is_ascii_hexdigit()), "{anonymous}");
    let table = host.minidock(&["volume", "ls"]).ok().out();
    assert!(table.starts_with("DRIVER    VOLUME NAME\n") && table.contains("\nlocal     data"), "{table}");
    assert_eq!(host.minidock(&["volume", "ls", "-q", "-f", "label=a=1"]).ok().out(), "data");
    assert_eq!(
        host.minidock(&["volume", "ls", "--format", "{{.Name}} {{.Scope}}", "-f", "name=ata"]).ok().out(),
        "data local"
    );
    assert_eq!(host.minidock(&["volume", "ls", "-q", "-f", "label!=a"]).ok().out(), anonymous);
    host.minidock(&["volume", "ls", "-f", "colour=red"]).exits(1).says(&["invalid filter 'colour'"]);
    let mountpoint = host.minidock(&["volume", "inspect", "-f", "{{.Mountpoint}}", "data"]).ok().out();
    assert_eq!(mountpoint, host.root.join("volumes/data/_data").display().to_string());
    let document: serde_json::Value =
        serde_json::from_slice(&host.minidock(&["volume", "inspect", "data", anonymous.as_str()]).ok().stdout).unwrap();
    assert_eq!(document[0]["Labels"]["a"], "1");
    assert_eq!(document[0]["Options"], serde_json::Value::Null);
    assert_eq!(document[1]["Labels"]["com.docker.volume.anonymous"], "");
    let missing =
        host.minidock(&["volume", "inspect", "dta"]).exits(1).says(&["get dta: no such volume; did you mean data?"]);
    assert_eq!(missing.out(), "[]");
    host.minidock(&["volume", "rm", "nope"]).exits(1).says(&["get nope: no such volume"]);
    assert_eq!(host.minidock(&["volume", "rm", "-f", "nope"]).ok().out(), "nope");
    host.minidock(&["volume", "create", "a/b"]).exits(1).says(&["includes invalid characters for a local volume name"]);
    host.minidock(&["volume", "create", "-d", "nfs", "x1"]).exits(1).says(&["nfs", "not found"]);
    host.minidock(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "x1"]).exits(1).says(&["--tmpfs"]);
    let asked = host.command(&["volume", "prune"]).input("n\n").run().ok().out();
    assert!(asked.starts_with("WARNING! This will remove anonymous local volumes not used by at least one container.\nAre you sure you want to continue? [y/N]"), "{asked}");
    let pruned = host.command(&["volume", "prune"]).input("y\n").run().ok().out();
    assert!(pruned.ends_with(&format!("Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 0B")), "{pruned}");
    assert_eq!(volumes(&host), ["data"], "a named volume is not pruned without -a");
    std::fs::write(host.root.join("volumes/data/_data/x"), "12345").unwrap();
    assert_eq!(
        host.minidock(&["volume", "prune", "-af"]).ok().out(),
        "Deleted Volumes:\ndata\n\nTotal reclaimed space: 5B"
    );
    assert_eq!(host.minidock(&["volume", "prune", "-f"]).ok().out(), "Total reclaimed space: 0B");
    host.finish();
}

#[test]
fn a_named_volume_outlives_containers_and_is_filled_once() {
    let host = TestHost::new();
    load_db(&host);
    let first = host.output_of(&[
        "-v",
        "store:/data",
        "db",
        "sh",
        "-c",
        "cat /data/seed; stat -c '%u %a' /data; echo mine >/data/own",
    ]);
    assert_eq!(first, "from the image\n1000 750");
    assert_eq!(volumes(&host), ["store"], "--rm doesn't remove a named volume");
    assert_eq!(
        host.output_of(&["-v", "store:/mnt", "busybox", "sh", "-c", "cat /mnt/seed /mnt/own; rm /mnt/seed"]),
        "from the image\nmine"
    );
    assert_eq!(host.output_of(&["-v", "store:/data", "db", "ls", "/data"]), "own", "it isn't filled a second time");
    // Made before, but still empty: filled. With nocopy: not.
    host.minidock(&["volume", "create", "empty"]).ok();
    assert_eq!(host.output_of(&["-v", "plain:/data:nocopy", "db", "ls", "/data"]), "");
    assert_eq!(host.output_of(&["-v", "empty:/data:ro", "db", "ls", "/data"]), "seed");
    host.minidock(&["run", "--rm", "-v", "empty:/data:ro", "db", "touch", "/data/x"]).exits(1).says(&["Read-only"]);
    host.minidock(&["volume", "rm", "store", "plain", "empty"]).ok();
    host.finish();
}

#[test]
fn anonymous_volumes_go_with_rm_v_and_with_rm_alone_they_stay() {
    let host = TestHost::new();
    load_db(&host);
    host.output_of(&["-v", "/anon", "db", "sh", "-c", "echo x >/anon/x; cat /data/seed"]);
    assert!(volumes(&host).is_empty(), "--rm takes the anonymous ones");
    host.minidock(&["run", "--name", "one", "-v", "kept:/k", "-v", "/anon", "db", "sh", "-c", "echo x >/anon/x"]).ok();
    let names = volumes(&host);
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(
        host.inspect("one", "{{range .Mounts}}{{.Type}} {{.Destination}} {{.Driver}},{{end}}"),
        "volume /k local,volume /anon local,volume /data local,"
    );
    let in_use = host.minidock(&["volume", "rm", "kept"]).exits(1);
    let id = host.inspect("one", "{{.Id}}");
    in_use.says(&[&format!("remove kept: volume is in use - [{id}]")]);
    assert_eq!(host.minidock(&["volume", "ls", "-q", "-f", "dangling=true"]).ok().out(), "");
    host.minidock(&["rm", "one"]).ok();
    assert_eq!(volumes(&host).len(), 3, "a plain rm leaves them");
    assert_eq!(host.minidock(&["volume", "ls", "-q", "-f", "dangling=true"]).ok().out().lines().count(), 3);
    host.minidock(&["volume", "prune", "-f"]).ok();
    assert_eq!(volumes(&host), ["kept"]);
    host.minidock(&["run", "--name", "two", "-v", "kept:/k", "db", "true"]).ok();
    assert_eq!(volumes(&host).len(), 2);
    host.minidock(&["rm", "-v", "two"]).ok();
    assert_eq!(volumes(&host), ["kept"], "rm -v takes the anonymous ones, not the named one");
    host.minidock(&["volume", "rm", "kept"]).ok();
    host.finish();
}

#[test]
fn volumes_from_shares_volumes_and_binds_until_the_last_user_goes() {
    let host = TestHost::new();
    load_db(&host);
    let folder = host.work.join("shared");
    std::fs::create_dir(&folder).unwrap();
    let bind = format!("{}:/bound", folder.display());
    host.detached(&[
        "--rm",
        "--name",
        "owner",
        "-v",
        &bind,
        "-v",
        "named:/n",
        "--tmpfs",
        "/t",
        "db",
        "sh",
        "-c",
        "echo a >/data/a; exec sleep 1000",
    ]);
    wait_until("it has written", || host.minidock(&["exec", "owner", "cat", "/data/a"]).out() == "a");
    let name = host.inspect("owner", "{{range .Mounts}}{{if eq .Destination \"/data\"}}{{.Name}}{{end}}{{end}}");
    host.detached(&["--rm", "--name", "user", "--volumes-from", "owner:ro", "busybox", "sleep", "1000"]);
    let exec = |args: &[&str]| host.minidock(&[&["exec", "user"], args].concat());
    assert_eq!(exec(&["cat", "/data/a"]).ok().out(), "a");
    exec(&["touch", "/data/b"]).exits(1).says(&["Read-only"]);
    exec(&["touch", "/bound/b"]).exits(1).says(&["Read-only"]);
    exec(&["ls", "/t"]).exits(1);
    assert_eq!(
        host.inspect("user", "{{range .Mounts}}{{.Destination}} {{.RW}},{{end}}"),
        "/bound false,/n false,/data false,"
    );
    host.remove(&["owner"]);
    assert!(volumes(&host).contains(&name), "another container still has it");
    assert_eq!(exec(&["cat", "/data/a"]).ok().out(), "a");
    host.remove(&["user"]);
    wait_until("it went with its last user", || !volumes(&host).contains(&name));
    host.minidock(&["run", "--rm", "--volumes-from", "ownr", "busybox", "true"])
        .exits(125)
        .says(&["No such container: ownr"]);
    host.minidock(&["volume", "rm", "named"]).ok();
    host.finish();
}

#[test]
fn mount_gives_subpaths_labels_and_the_local_driver_s_options() {
    let host = TestHost::new();
    let data = host.root.join("volumes/data/_data");
    host.output_of(&[
        "--mount",
        "src=data,dst=/v,volume-label=owner=lab",
        "busybox",
        "sh",
        "-c",
        "mkdir -p /v/a/b; echo deep >/v/a/b/file; ln -s /etc /v/out; ln -s a/b /v/in",
    ]);
    assert_eq!(host.minidock(&["volume", "inspect", "-f", "{{.Labels.owner}}", "data"]).ok().out(), "lab");
    assert_eq!(
        host.output_of(&["--mount", "src=data,dst=/v,volume-subpath=a/b,readonly", "busybox", "cat", "/v/file"]),
        "deep"
    );
    assert_eq!(host.output_of(&["--mount", "src=data,dst=/v,volume-subpath=in", "busybox", "ls", "/v"]), "file");
    // A link out of the volume is looked up inside of it, where there is no /etc.
    host.minidock(&["run", "--rm", "--mount", "src=data,dst=/v,volume-subpath=out", "busybox", "true"])
        .exits(125)
        .says(&["cannot access path out"]);
    host.minidock(&["run", "--rm", "--mount", "src=data,dst=/v,volume-subpath=none", "busybox", "true"]).exits(125);
    assert!(data.join("a/b/file").exists());
    let elsewhere = host.work.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("here"), "x").unwrap();
    host.minidock(&[
        "volume",
        "create",
        "-o",
        "type=none",
        "-o",
        "o=bind,ro",
        "-o",
        &format!("device={}", elsewhere.display()),
        "bound",
    ])
    .ok();
    assert_eq!(host.output_of(&["-v", "bound:/b", "busybox", "ls", "/b"]), "here");
    host.minidock(&["run", "--rm", "-v", "bound:/b", "busybox", "touch", "/b/x"]).exits(1).says(&["Read-only"]);
    host.minidock(&[
        "run",
        "--rm",
        "--mount",
        "src=data,dst=/v,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/srv",
        "busybox",
        "true",
    ])
    .exits(125)
    .says(&["exists with other options"]);
    assert_eq!(
        host.output_of(&[
            "--mount",
            "type=tmpfs,dst=/t,tmpfs-size=64k,tmpfs-mode=700",
            "busybox",
            "sh",
            "-c",
            "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'"
        ]),
        "700\n64"
    );
    host.minidock(&["volume", "rm", "data", "bound"]).ok();
    host.finish();
}

#[test]
fn a_failed_start_leaves_no_anonymous_and_no_half_made_volume() {
    let host = TestHost::new();
    load_db(&host);
    host.minidock(&["run", "-v", "/anon", "db", "no-such-program"]).exits(127);
    wait_until("nothing anonymous is left", || volumes(&host).is_empty());
    // A file where the volume is to be: the filling fails.
    host.minidock(&["run", "-v", "half:/etc/passwd", "busybox", "true"]).exits(125).says(&["/etc/passwd"]);
    let left: Vec<_> =
        std::fs::read_dir(host.root.join("volumes")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty() || left == ["half"], "{left:?}");
    std::fs::create_dir_all(host.root.join("volumes/.0123456789abcdef/_data")).unwrap();
    host.minidock(&["ps"]).ok();
    assert!(!host.root.join("volumes/.0123456789abcdef").exists(), "the next command sweeps what is half made");
    host.minidock(&["volume", "prune", "-af"]).ok();
    host.finish();
}

#[test]
fn many_containers_at_once_share_one_new_volume() {
    let host = TestHost::new();
    load_db(&host);
    let runs: Vec<_> = (0..8)
        .map(|number| {
            host.spawn(&[
                "run",
                "--rm",
                "--network",
                "none",
                "-v",
                "shared:/data",
                "db",
                "sh",
                "-c",
                &format!("cat /data/seed; touch /data/{number}"),
            ])
        })
        .collect();
    for run in runs {
        assert_eq!(run.wait().ok().out(), "from the image");
    }
    let list = host.output_of(&["-v", "shared:/data", "busybox", "ls", "/data"]);
    assert_eq!(list, "0\n1\n2\n3\n4\n5\n6\n7\nseed", "all of them wrote into the same folder");
    host.minidock(&["volume", "rm", "shared"]).ok();
    host.finish();
}

#[test]
fn a_removal_never_takes_a_volume_away_from_a_container_that_starts() {
    let host = TestHost::new();
    for _ in 0..6 {
        host.minidock(&["volume", "create", "data"]).ok();
        std::fs::write(host.root.join("volumes/data/_data/old"), "").unwrap();
        let run = host.spawn(&[
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            "data:/d",
            "busybox",
            "sh",
            "-c",
            "touch /d/new; ls /d; sleep 0.05; ls /d",
        ]);
        while host.minidock(&["volume", "rm", "data"]).code() != 0 {
            // In use: again until the container is gone.
        }
        let seen = run.wait().ok().out();
        let halves: Vec<&str> = seen.split("new\n").collect();
        assert!(seen == "new\nold\nnew\nold" || seen == "new\nnew", "its volume changed under it: {seen:?} {halves:?}");
        host.minidock(&["volume", "rm", "-f", "data"]).ok();
    }
    host.finish();
}

#[test]
fn a_container_of_an_older_minidock_is_still_removed() {
    let host = TestHost::new();
    host.minidock(&["run", "--name", "old", "-v", "/anon", "busybox", "true"]).ok();
    let id = host.inspect("old", "{{.Id}}");
    let folder = host.root.join("containers").join(&id);
    // As the version before volumes wrote it: no names, the content in the container's folder.
    let text = host::read(folder.join("state.json"));
    let mut state: serde_json::Value = serde_json::from_str(&text).unwrap();
    let name = state["volumes"][0]["name"].as_str().unwrap().to_string();
    std::fs::create_dir_all(folder.join("volumes/0")).unwrap();
    state["volumes"] =
        json!([{ "source": folder.join("volumes/0"), "target": "/anon", "read_only": false, "copy": true }]);
    state.as_object_mut().unwrap().remove("inherited");
    std::fs::write(folder.join("state.json"), state.to_string()).unwrap();
    let journal = host::read(folder.join("journal"));
    let lines: Vec<&str> = journal.lines().filter(|line| !line.contains("{\"volume\"")).collect();
    let mut header: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    header.as_object_mut().unwrap().remove("volumes");
    std::fs::write(folder.join("journal"), format!("{header}\n{}\n", lines[1..].join("\n"))).unwrap();
    assert_eq!(host.inspect("old", "{{range .Mounts}}{{.Name}} {{.Destination}}{{end}}"), "0 /anon");
    host.minidock(&["rm", "old"]).ok();
    assert!(!folder.exists());
    host.minidock(&["volume", "rm", &name]).ok();
    host.finish();
}

#[test]
fn a_read_only_bind_is_read_only_all_the_way_down_unless_told_otherwise() {
    let host = TestHost::new();
    let folder = host.work.join("bound");
    host.sh("mkdir -p bound/below && mount -t tmpfs tmpfs bound/below").ok();
    let source = folder.display();
    let touch = |mount: &str| {
        host.minidock(&["run", "--rm", "--network", "none", "--mount", mount, "busybox", "touch", "/b/below/x"]).code()
    };
    assert_eq!(touch(&format!("type=bind,src={source},dst=/b")), 0);
    assert_eq!(touch(&format!("type=bind,src={source},dst=/b,readonly")), 1);
    assert_eq!(touch(&format!("type=bind,src={source},dst=/b,readonly,bind-recursive=writable")), 0);
    let strict = "readonly,bind-recursive=readonly,bind-propagation=rprivate";
    assert_eq!(touch(&format!("type=bind,src={source},dst=/b,{strict}")), 1);
    host.sh("umount bound/below").ok();
    host.finish();
}

#[test]
fn inspect_finds_volumes_too() {
    let host = TestHost::bare();
    host.minidock(&["volume", "create", "data"]).ok();
    for args in
        [&["inspect", "-f", "{{.Name}}", "data"][..], &["inspect", "--type", "volume", "-f", "{{.Name}}", "data"]]
    {
        assert_eq!(host.minidock(args).ok().out(), "data");
    }
    host.minidock(&["inspect", "--type", "volume", "nope"]).exits(1).says(&["no such volume"]);
    host.minidock(&["volume", "rm", "data"]).ok();
    host.finish();
}
