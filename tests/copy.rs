//! `cp`, `diff`, `export`: what is copied where, by docker's rules, and against a container that fights back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use host::{TestHost, images, wait_until};

fn sleeping(host: &TestHost, name: &str, args: &[&str]) {
    host.detached(&[&["--name", name, "--network", "none"], args, &["busybox", "sleep", "1000"]].concat());
}

fn cp(host: &TestHost, from: &str, to: &str) {
    let output = host.minidock(&["cp", from, to]).ok();
    assert_eq!((output.out(), output.err()), (String::new(), String::new()), "without a terminal nothing is said");
}

fn inside(host: &TestHost, name: &str, script: &str) -> String {
    host.minidock(&["exec", name, "sh", "-c", script]).ok().out()
}

fn tree(folder: &Path) -> Vec<String> {
    fn walk(top: &Path, folder: &Path, found: &mut Vec<String>) {
        let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            found.push(path.strip_prefix(top).unwrap().display().to_string());
            if path.is_dir() && !path.is_symlink() {
                walk(top, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found
}

#[test]
fn names_slashes_and_dots_mean_what_docker_means() {
    let host = TestHost::new();
    sleeping(&host, "box", &[]);
    let work = host.work.clone();
    fs::create_dir_all(work.join("dir/sub")).unwrap();
    fs::write(work.join("dir/sub/deep"), "deep").unwrap();
    fs::write(work.join("file"), "content").unwrap();
    // In: a new name, an existing folder, a folder into a folder, a folder's content, a new folder.
    cp(&host, "file", "box:/tmp/new");
    cp(&host, "./file", "box:/tmp/");
    cp(&host, "dir", "box:/tmp");
    cp(&host, "dir/.", "box:/home");
    cp(&host, "dir", "box:/tmp/other");
    cp(&host, "dir/.", "box:tmp/third");
    assert_eq!(
        inside(&host, "box", "cat /tmp/new /tmp/file; cd /tmp; find dir other third /home/sub -type f | sort"),
        "contentcontent/home/sub/deep\ndir/sub/deep\nother/sub/deep\nthird/sub/deep"
    );
    // Out.
    let out = work.join("out");
    fs::create_dir(&out).unwrap();
    cp(&host, "box:/tmp/dir", "out");
    cp(&host, "box:/tmp/dir/.", "out/content");
    cp(&host, "box:/tmp/new", "out/renamed");
    cp(&host, "box:/tmp/file", "out/content/");
    assert_eq!(
        tree(&out),
        ["content", "content/file", "content/sub", "content/sub/deep", "dir", "dir/sub", "dir/sub/deep", "renamed"]
    );
    // A file is replaced, never a folder by a file or a file by a folder.
    fs::write(work.join("file"), "second").unwrap();
    cp(&host, "file", "box:/tmp/new");
    assert_eq!(inside(&host, "box", "cat /tmp/new"), "second");
    host.minidock(&["cp", "dir", "box:/tmp/new"]).exits(1).says(&["cannot copy directory"]);
    inside(&host, "box", "mkdir -p /tmp/clash/file; mkdir /tmp/clash2; touch /tmp/clash2/dir");
    host.minidock(&["cp", "file", "box:/tmp/clash"]).exits(1).says(&["cannot overwrite directory with non-directory"]);
    host.minidock(&["cp", "dir", "box:/tmp/clash2"]).exits(1).says(&["cannot overwrite non-directory with directory"]);
    // Mistakes.
    host.minidock(&["cp", "box:/nope", "."]).exits(1).says(&["Could not find the file /nope in container box"]);
    host.minidock(&["cp", "nope", "box:/"]).exits(1).says(&["lstat nope: no such file or directory"]);
    host.minidock(&["cp", "file", "box:/no/where"]).exits(1).says(&["no such directory"]);
    host.minidock(&["cp", "file", "box:/tmp/none/"]).exits(1).says(&["no such directory"]);
    host.minidock(&["cp", "box:/tmp/new", "none/where"])
        .exits(1)
        .says(&["invalid output path: directory \"none\" does not exist"]);
    host.minidock(&["cp", "box:/a", "box:/b"]).exits(1).says(&["copying between containers is not supported"]);
    host.minidock(&["cp", "a", "b"]).exits(1).says(&["must specify at least one container source"]);
    host.minidock(&["cp", "bx:/a", "b"]).exits(1).says(&["No such container: bx", "did you mean box"]);
    host.minidock(&["cp", "box:/tmp/new/", "b"]).exits(1).says(&["not a directory"]);
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn owners_modes_times_and_links_are_kept_as_asked() {
    let host = TestHost::new();
    sleeping(&host, "box", &[]);
    let file = host.work.join("file");
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    chown(&file, Some(1000), Some(2000)).unwrap();
    host.sh("touch -d @1234567890 file; ln -s file link; ln -s /nowhere dangling").ok();
    cp(&host, "file", "box:/tmp/plain");
    host.minidock(&["cp", "-a", "file", "box:/tmp/kept"]).ok();
    assert_eq!(
        inside(&host, "box", "stat -c '%u %g %a %Y' /tmp/plain /tmp/kept"),
        "0 0 640 1234567890\n1000 2000 640 1234567890"
    );
    cp(&host, "link", "box:/tmp/link");
    host.minidock(&["cp", "-L", "link", "box:/tmp/followed"]).ok();
    assert_eq!(inside(&host, "box", "readlink /tmp/link; cat /tmp/followed"), "file\nx");
    // Out: the owner is who copies; a set-uid program of somebody else's isn't one of ours.
    inside(
        &host,
        "box",
        "echo p >/tmp/prog; chown 1000:1000 /tmp/prog; chmod 4755 /tmp/prog; ln -s prog /tmp/lp; ln /tmp/prog /tmp/hard; mkdir /tmp/d; ln /tmp/prog /tmp/d/a; ln /tmp/prog /tmp/d/b",
    );
    cp(&host, "box:/tmp/prog", "prog");
    let stat = fs::metadata(host.work.join("prog")).unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777), (0, 0o755));
    host.minidock(&["cp", "-a", "box:/tmp/prog", "kept"]).ok();
    let stat = fs::metadata(host.work.join("kept")).unwrap();
    assert_eq!((stat.uid(), stat.mode() & 0o7777), (1000, 0o4755));
    cp(&host, "box:/tmp/lp", "lp");
    host.minidock(&["cp", "-L", "box:/tmp/lp", "followed"]).ok();
    assert_eq!(fs::read_link(host.work.join("lp")).unwrap(), Path::new("prog"));
    assert_eq!(host::read(host.work.join("followed")), "p\n");
    cp(&host, "box:/tmp/d", "d");
    let inode = |name: &str| fs::metadata(host.work.join(name)).unwrap().ino();
    assert_eq!(inode("d/a"), inode("d/b"), "two names of one file stay that");
    // Through a link of the container: inside of it.
    inside(&host, "box", "ln -s /tmp/target /tmp/way; ln -s / /tmp/root");
    cp(&host, "file", "box:/tmp/way");
    cp(&host, "file", "box:/tmp/root/tmp/by-root");
    assert_eq!(inside(&host, "box", "cat /tmp/target /tmp/by-root"), "xx");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn archives_go_through_stdin_and_stdout() {
    let host = TestHost::new();
    sleeping(&host, "box", &[]);
    inside(&host, "box", "mkdir /tmp/d; echo one >/tmp/d/one; mkfifo /tmp/d/pipe; ln -s one /tmp/d/link");
    let list = |args: &[&str]| {
        let tar = host.minidock(args).ok().stdout;
        String::from_utf8(images::piped(&["tar", "-t"], &tar)).unwrap()
    };
    let mut names: Vec<String> = list(&["cp", "box:/tmp/d", "-"]).lines().map(String::from).collect();
    names.sort();
    assert_eq!(names, ["d/", "d/link", "d/one", "d/pipe"]);
    assert_eq!(list(&["cp", "box:/tmp/d/one", "-"]), "one\n");
    let long = format!("{}/{}", "a".repeat(120), "b".repeat(120));
    inside(&host, "box", &format!("mkdir -p /tmp/l/{}; echo long >/tmp/l/{long}", "a".repeat(120)));
    assert!(list(&["cp", "box:/tmp/l", "-"]).contains(&format!("l/{long}\n")));
    let mut layer = images::Layer::new();
    layer.owner(7, 8).folder("sub", 0o711).file("sub/file", 0o600, b"from tar").file("made/on/the/way", 0o644, b"w");
    let tar = layer.hard_link("hard", "sub/file").bytes();
    host.command(&["cp", "-", "box:/tmp"]).input(tar.clone()).run().ok();
    assert_eq!(
        inside(&host, "box", "cat /tmp/sub/file /tmp/made/on/the/way; stat -c ' %u %g %a %h' /tmp/sub/file"),
        "from tarw 7 8 600 2"
    );
    host.command(&["cp", "-", "box:/home"]).input(images::piped(&["gzip"], &tar)).run().ok();
    assert_eq!(inside(&host, "box", "cat /home/hard"), "from tar");
    host.command(&["cp", "-", "box:/tmp/d/one"])
        .input(tar)
        .run()
        .exits(1)
        .says(&["extraction point is not a directory"]);
    host.command(&["cp", "-", "box:/tmp"]).input(vec![1; 2000]).run().exits(1);
    // What leads out of the folder stays inside of the container.
    inside(&host, "box", &format!("ln -s {} /tmp/evil", host.work.display()));
    let evil =
        images::Layer::new().file("evil/../../../../canary", 0o644, b"x").file("evil/canary", 0o644, b"x").bytes();
    host.command(&["cp", "-", "box:/tmp"]).input(evil).run();
    assert!(!host.work.join("canary").exists() && !Path::new("/canary").exists());
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn volumes_binds_and_tmpfs_are_seen_running_and_stopped() {
    let host = TestHost::new();
    let bound = host.work.join("bound");
    fs::create_dir(&bound).unwrap();
    fs::write(bound.join("b"), "bind").unwrap();
    fs::write(host.work.join("new"), "new").unwrap();
    let bind = format!("{}:/bound:ro", bound.display());
    sleeping(&host, "box", &["-v", "vol:/vol", "-v", &bind, "--tmpfs", "/mem"]);
    inside(&host, "box", "echo v >/vol/v; echo m >/mem/m; echo own >/own");
    for (path, text) in [("/vol/v", "v\n"), ("/bound/b", "bind"), ("/mem/m", "m\n"), ("/own", "own\n")] {
        cp(&host, &format!("box:{path}"), "got");
        assert_eq!(host::read(host.work.join("got")), text, "{path}");
    }
    cp(&host, "new", "box:/mem/new");
    cp(&host, "new", "box:/vol/new");
    host.minidock(&["cp", "new", "box:/bound/new"]).exits(1).says(&["read-only"]);
    assert_eq!(inside(&host, "box", "cat /mem/new /vol/new"), "newnew");
    host.minidock(&["stop", "-t", "0", "box"]).ok();
    for (path, text) in [("/vol/v", "v\n"), ("/bound/b", "bind"), ("/own", "own\n"), ("/etc/hostname", "")] {
        cp(&host, &format!("box:{path}"), "got");
        assert!(host::read(host.work.join("got")).starts_with(text), "{path}");
    }
    cp(&host, "new", "box:/vol/later");
    cp(&host, "new", "box:/later");
    host.minidock(&["cp", "new", "box:/bound/new"]).exits(1).says(&["read-only"]);
    assert_eq!(host::read(host.root.join("volumes/vol/_data/later")), "new", "into the volume, not below its place");
    let id = host.inspect("box", "{{.Id}}");
    assert_eq!(host::read(host.root.join(format!("containers/{id}/upper/later"))), "new");
    host.minidock(&["start", "box"]).ok();
    assert_eq!(inside(&host, "box", "cat /later /vol/later"), "newnew");
    host.remove(&["box"]);
    // Never started, and read-only.
    host.minidock(&["create", "--name", "made", "--read-only", "-v", "vol:/vol", "busybox"]).ok();
    cp(&host, "made:/vol/later", "got");
    host.minidock(&["cp", "new", "made:/x"]).exits(1).says(&["container rootfs is marked read-only"]);
    cp(&host, "new", "made:/vol/into-created");
    host.remove(&["made"]);
    host.minidock(&["volume", "rm", "vol"]).ok();
    host.finish();
}

/// Swaps a folder for a link to the host's canary, as fast as a shell can.
const SWAP: &str = "mkdir -p /t/d; echo inside >/t/d/secret; ln -s $CANARY /t/link; \
    while :; do mv /t/d /t/x; mv /t/link /t/d; mv /t/d /t/link; mv /t/x /t/d; done";

#[test]
fn a_container_that_swaps_folders_for_links_reaches_nothing_of_the_host() {
    let host = TestHost::new();
    let canary = host.work.join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), "of the host").unwrap();
    fs::create_dir(host.work.join("d")).unwrap();
    fs::write(host.work.join("d/planted"), "x").unwrap();
    let before = fs::metadata(&canary).unwrap();
    let env = format!("CANARY={}", canary.display());
    host.detached(&["--name", "evil", "--network", "none", "-e", &env, "busybox", "sh", "-c", SWAP]);
    wait_until("it swaps", || host.minidock(&["exec", "evil", "test", "-e", "/t/x"]).code() == 0);
    let mut copied = 0;
    for round in 0..60 {
        for (number, path) in ["evil:/t", "evil:/t/d", "evil:/t/d/secret", "evil:/t/d/."].iter().enumerate() {
            let out = host.work.join(format!("out-{round}-{number}"));
            copied += usize::from(host.minidock(&["cp", "-L", path, out.to_str().unwrap()]).code() == 0);
            let found = host.sh(&format!("grep -r 'of the host' {0} 2>/dev/null || true", out.display())).ok().out();
            assert_eq!(found, "", "a file of the host came out of the container");
        }
        host.minidock(&["cp", "d/planted", "evil:/t/d/"]);
        host.minidock(&["cp", "d", "evil:/t/d"]);
        host.minidock(&["cp", "d/.", "evil:/t"]);
        let tar = images::Layer::new().folder("d", 0o755).file("d/planted", 0o644, b"x").bytes();
        host.command(&["cp", "-", "evil:/t"]).input(tar).run();
        host.minidock(&["diff", "evil"]).ok();
        assert_eq!(tree(&canary), ["secret"], "something was made on the host in round {round}");
        assert!(!Path::new("/t").exists(), "the container's path was looked for on the host");
    }
    assert!(copied > 0, "nothing was ever copied");
    host.sh("grep -rq inside out-*").ok();
    host.minidock(&["exec", "evil", "sh", "-c", "find /t -name planted | grep -q ."]).ok();
    let after = fs::metadata(&canary).unwrap();
    assert_eq!((before.mode(), before.uid(), before.mtime()), (after.mode(), after.uid(), after.mtime()));
    host.remove(&["evil"]);
    host.finish();
}

#[test]
fn devices_and_fifos_of_a_container_neither_act_nor_block() {
    let host = TestHost::new();
    sleeping(&host, "box", &[]);
    inside(
        &host,
        "box",
        "mkdir /tmp/d; mknod /tmp/d/disk b 8 0; mknod /tmp/d/null c 1 3; mkfifo /tmp/d/pipe; echo x >/tmp/d/x",
    );
    host.minidock(&["cp", "box:/tmp/d", "d"]).ok().says(&["d/disk", "was not copied"]);
    assert_eq!(tree(&host.work.join("d")), ["pipe", "x"]);
    // The kernel's own files are not walked through.
    host.minidock(&["cp", "box:/", "whole"]).ok();
    assert_eq!(tree(&host.work.join("whole/proc")), Vec::<String>::new());
    assert_eq!(tree(&host.work.join("whole/sys")), Vec::<String>::new());
    assert!(host.work.join("whole/bin/busybox").exists());
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn diff_tells_what_was_added_changed_and_deleted() {
    let host = TestHost::new();
    host.minidock(&["run", "--name", "still", "busybox", "true"]).ok();
    assert_eq!(host.minidock(&["diff", "still"]).ok().out(), "", "what an engine makes in a container is no change");
    let script = "echo x >/etc/new; rm /etc/group; mkdir -p /a/b; touch /a/b/c; chmod 700 /home; rm -r /www; mkdir /www; \
        echo y >/www/y; touch -d @1 /tmp; rm -r /var; echo f >/var; exec sleep 1000";
    host.detached(&["--name", "box", "--network", "none", "-v", "/vol", "busybox", "sh", "-c", script]);
    wait_until("it is done", || host.minidock(&["exec", "box", "test", "-f", "/var"]).code() == 0);
    let wanted = "A /a\nA /a/b\nA /a/b/c\nC /etc\nD /etc/group\nA /etc/new\nC /home\nC /var\nA /vol\nC /www\n\
        D /www/cgi-bin\nD /www/index.html\nA /www/y";
    assert_eq!(host.minidock(&["diff", "box"]).ok().out(), wanted);
    host.minidock(&["kill", "box"]).ok();
    assert_eq!(host.minidock(&["diff", "box"]).ok().out(), wanted, "a stopped one has the same");
    host.minidock(&["diff", "nobody"]).exits(1).says(&["nobody"]);
    host.minidock(&["rm", "-v", "box", "still"]).ok();
    host.finish();
}

#[test]
fn export_has_the_container_s_own_files_and_import_takes_them() {
    let host = TestHost::new();
    sleeping(&host, "box", &["-v", "vol:/vol"]);
    inside(&host, "box", "echo mine >/mine; echo v >/vol/v; rm /etc/group");
    let listed = |tar: &[u8]| String::from_utf8(images::piped(&["tar", "-t"], tar)).unwrap();
    let live = host.minidock(&["export", "box"]).ok().stdout;
    for stopped in [false, true] {
        let tar = host.minidock(&["export", "box"]).ok().stdout;
        let names = listed(&tar);
        let names: Vec<&str> = names.lines().collect();
        for name in ["mine", "bin/busybox", "vol/", "proc/"] {
            assert!(names.contains(&name), "{name} is missing (stopped: {stopped})");
        }
        for name in ["vol/v", "etc/group", "proc/version", "./"] {
            assert!(!names.contains(&name), "{name} is there (stopped: {stopped})");
        }
        if !stopped {
            host.minidock(&["stop", "-t", "0", "box"]).ok();
        }
    }
    host.minidock(&["export", "-o", "box.tar", "box"]).ok();
    assert_eq!(tree(&host.work), ["box.tar"]);
    assert_eq!(fs::metadata(host.work.join("box.tar")).unwrap().len(), live.len() as u64);
    host.minidock(&["import", "box.tar", "again:1"]).ok();
    assert_eq!(host.output_of(&["again:1", "/bin/cat", "/mine"]), "mine");
    host.minidock(&["export", "-o", "no/where.tar", "box"])
        .exits(1)
        .says(&["invalid output path: directory \"no\" does not exist"]);
    assert_eq!(tree(&host.work), ["box.tar"]);
    host.remove(&["box"]);
    host.minidock(&["volume", "rm", "vol"]).ok();
    host.finish();
}

#[test]
fn symlinked_sources_on_the_host_are_ordinary_paths() {
    let host = TestHost::new();
    sleeping(&host, "box", &[]);
    fs::create_dir(host.work.join("real")).unwrap();
    fs::write(host.work.join("real/f"), "x").unwrap();
    symlink("real", host.work.join("way")).unwrap();
    cp(&host, "way/f", "box:/tmp/f");
    cp(&host, "way/", "box:/tmp/way");
    cp(&host, "box:/tmp/f", "way/g");
    assert_eq!(inside(&host, "box", "cat /tmp/f /tmp/way/f"), "xx");
    assert_eq!(host::read(host.work.join("real/g")), "x");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn on_a_terminal_docker_s_sentence_tells_what_was_copied() {
    let host = TestHost::new();
    sleeping(&host, "box", &[]);
    fs::write(host.work.join("file"), "x").unwrap();
    for (args, said) in [
        (&["cp", "file", "box:/tmp/f"][..], "Successfully copied 2.05kB to box:/tmp/f"),
        (&["cp", "box:/tmp/f", "out"], "Successfully copied 2.05kB to out"),
        (&["cp", "-q", "file", "box:/tmp/f"], ""),
        (&["cp", "--quiet=false", "file", "box:/tmp/f"], "Successfully copied"),
    ] {
        let mut terminal = host::pty::Terminal::start(host.command(args), 24, 80);
        assert_eq!(terminal.wait(), 0);
        match said {
            "" => assert_eq!(terminal.screen(), ""),
            said => terminal.wait_for(said),
        }
    }
    host.minidock(&["cp", "--quiet=false", "file", "box:/tmp/f"])
        .ok()
        .says(&["Successfully copied 2.05kB to box:/tmp/f"]);
    host.remove(&["box"]);
    host.finish();
}
