//! Images from every kind of file, and refused archives that leave the store as it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::collections::BTreeSet;
use std::path::Path;

use host::images::{self, Layer, Packing};
use host::{TestHost, images::PAGE};
use tar::EntryType;

const CAT: [&str; 2] = ["cat", "/www/index.html"];

fn written(host: &TestHost, name: &str, bytes: &[u8]) -> String {
    let path = host.work.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// The layers, names and configurations in the store, by file.
fn store(host: &TestHost) -> BTreeSet<String> {
    fn walk(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                walk(&path, found);
            } else if !path.to_string_lossy().ends_with("lock") {
                found.insert(path.display().to_string());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&host.root, &mut found);
    found
}

#[test]
fn every_form_of_archive_is_loaded_and_runs() {
    let host = TestHost::bare();
    let (layers, config) = ([images::rootfs()], images::busybox_config);
    let oci = |name: &str, packing| images::oci_layout(&layers, config(), name, packing);
    images::write_layout(&host.work.join("layout"), &oci("oci-folder:1", Packing::Gzip));
    let new = images::docker_archive(&layers, config(), &["docker-new:1"]);
    let forms = [
        ("docker-new:1", written(&host, "new.tar", &new)),
        (
            "docker-gzip:1",
            written(
                &host,
                "new.tar.gz",
                &images::piped(&["gzip", "-1"], &images::docker_archive(&layers, config(), &["docker-gzip:1"])),
            ),
        ),
        ("docker-old:1", written(&host, "old.tar", &images::docker_archive_old(&layers, config(), "docker-old", "1"))),
        ("oci-folder:1", host.work.join("layout").display().to_string()),
        ("oci-plain:1", written(&host, "plain.tar", &images::oci_tar(&oci("oci-plain:1", Packing::Plain)))),
        ("oci-gzip:1", written(&host, "gzip.tar", &images::oci_tar(&oci("oci-gzip:1", Packing::Gzip)))),
        ("oci-zstd:1", written(&host, "zstd.tar", &images::oci_tar(&oci("oci-zstd:1", Packing::Zstd)))),
    ];
    for (name, file) in &forms {
        let loaded = host.minidock(&["load", "-i", file]).ok();
        assert!(loaded.out().contains(&format!("Loaded image: {name}")), "{}", loaded.describe());
        assert_eq!(host.output_of(&[&[*name], &CAT[..]].concat()) + "\n", PAGE, "{name}");
    }
    host.finish();
}

#[test]
fn load_reads_standard_input() {
    let host = TestHost::bare();
    let archive = std::fs::read(images::busybox()).unwrap();
    assert!(host.command(&["load"]).input(archive).run().ok().out().contains("Loaded image: busybox:latest"));
    assert_eq!(host.output_of(&[&["busybox"], &CAT[..]].concat()) + "\n", PAGE);
    host.finish();
}

#[test]
fn import_makes_an_image_of_a_tar_a_folder_or_standard_input() {
    let host = TestHost::bare();
    let tar = images::busybox_rootfs().to_str().unwrap();
    let id = host.minidock(&["import", "-c", "CMD [\"cat\", \"/www/index.html\"]", tar, "from-tar:1"]).ok().out();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(host.output_of(&["from-tar:1"]) + "\n", PAGE);
    let folder = host.work.join("rootfs");
    std::fs::create_dir(&folder).unwrap();
    host.sh(&format!("tar -xf {tar} -C {}", folder.display())).ok();
    host.minidock(&["import", folder.to_str().unwrap(), "from-folder"]).ok();
    assert_eq!(host.output_of(&[&["from-folder"], &CAT[..]].concat()) + "\n", PAGE);
    host.command(&["import", "-", "from-stdin"]).input(std::fs::read(tar).unwrap()).run().ok();
    assert_eq!(host.output_of(&[&["from-stdin"], &CAT[..]].concat()) + "\n", PAGE);
    host.finish();
}

#[test]
fn run_takes_a_file_or_a_folder_without_a_load() {
    let host = TestHost::bare();
    std::fs::copy(images::busybox(), host.work.join("image.tar")).unwrap();
    assert_eq!(host.output_of(&[&["./image.tar"], &CAT[..]].concat()) + "\n", PAGE);
    let folder = host.work.join("rootfs");
    std::fs::create_dir(&folder).unwrap();
    host.sh(&format!("tar -xf {} -C rootfs", images::busybox_rootfs().display())).ok();
    assert_eq!(host.output_of(&[&["--rootfs", folder.to_str().unwrap()], &CAT[..]].concat()) + "\n", PAGE);
    host.output_of(&["--rootfs", folder.to_str().unwrap(), "sh", "-c", "echo kept >/tmp/kept"]);
    host.minidock(&["run", "--rm", "./missing.tar", "true"]).exits(125).says(&["./missing.tar"]);
    host.finish();
}

#[test]
fn images_tag_inspect_and_rmi_speak_docker_s_language() {
    let host = TestHost::new();
    let id = host.minidock(&["image", "inspect", "--format", "{{.Id}}", "busybox"]).ok().out();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let table = host.minidock(&["images"]).ok().out();
    let (head, row) = table.split_once('\n').unwrap();
    assert_eq!(head.split_whitespace().collect::<Vec<_>>(), ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    assert_eq!(row.split_whitespace().take(3).collect::<Vec<_>>(), ["busybox", "latest", &id[7..19]]);
    assert_eq!(host.minidock(&["images", "-q"]).ok().out(), id[7..19]);
    host.minidock(&["tag", "busybox", "lab/tools:2"]).ok();
    assert_eq!(host.minidock(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok().out().lines().count(), 2);
    assert_eq!(host.output_of(&[&["lab/tools:2"], &CAT[..]].concat()) + "\n", PAGE);
    let document: serde_json::Value =
        serde_json::from_slice(&host.minidock(&["image", "inspect", "busybox"]).ok().stdout).unwrap();
    assert_eq!(document[0]["Config"]["Cmd"], serde_json::json!(["sh"]));
    assert_eq!(document[0]["RepoTags"].as_array().unwrap().len(), 2);
    assert_eq!(host.minidock(&["rmi", "busybox"]).ok().out(), "Untagged: busybox:latest");
    assert!(host.minidock(&["rmi", "lab/tools:2"]).ok().out().contains(&format!("Deleted: {id}")));
    assert_eq!(host.minidock(&["images", "-q"]).ok().out(), "");
    host.minidock(&["rmi", "busybox"]).exits(1).says(&["busybox"]);
    host.finish();
}

#[test]
fn an_image_in_use_is_not_removed() {
    let host = TestHost::new();
    let id = host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    host.minidock(&["rmi", "busybox"]).exits(1).says(&[&id[..12]]);
    host.minidock(&["rmi", "-f", "busybox"]); // forced or not: what runs keeps its files
    assert_eq!(host.minidock(&["exec", "box", "cat", "/www/index.html"]).ok().out() + "\n", PAGE);
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn an_unknown_image_is_refused_with_a_near_name() {
    let host = TestHost::new();
    host.minidock(&["run", "--rm", "busybx", "true"]).exits(125).says(&["busybx", "busybox"]);
    host.finish();
}

#[test]
fn owners_modes_times_and_links_of_a_layer_are_kept() {
    let host = TestHost::bare();
    let mut layer = Layer::new();
    layer.owner(12, 34).file("data", 0o4751, b"x").owner(0, 0).hard_link("hard", "data").link("soft", "../etc/passwd");
    layer.file("with space and ünicode", 0o600, b"y");
    let archive = images::docker_archive(&[images::rootfs(), layer.bytes()], images::busybox_config(), &["kept:1"]);
    host.minidock(&["load", "-i", &written(&host, "kept.tar", &archive)]).ok();
    let script = "stat -c '%u %g %a %Y %h' /data; stat -c %i /data /hard | uniq | wc -l; readlink /soft; stat -c '%a %s' '/with space and ünicode'";
    assert_eq!(host.output_of(&["kept:1", "sh", "-c", script]), "12 34 4751 1000000000 2\n1\n../etc/passwd\n600 1");
    host.finish();
}

#[test]
fn whiteouts_and_opaque_folders_hide_what_is_below() {
    let host = TestHost::bare();
    let mut lower = Layer::new();
    lower
        .folder("d", 0o755)
        .file("d/old", 0o644, b"")
        .folder("o", 0o755)
        .file("o/old", 0o644, b"")
        .file("gone", 0o644, b"");
    let mut upper = Layer::new();
    upper.file(".wh.gone", 0o644, b"").file("d/.wh.old", 0o644, b"").file("d/new", 0o644, b"");
    upper.folder("o", 0o755).file("o/.wh..wh..opq", 0o644, b"").file("o/new", 0o644, b"");
    let layers = [images::rootfs(), lower.bytes(), upper.bytes()];
    host.minidock(&[
        "load",
        "-i",
        &written(&host, "x.tar", &images::docker_archive(&layers, images::busybox_config(), &["white:1"])),
    ])
    .ok();
    assert_eq!(
        host.output_of(&["white:1", "sh", "-c", "ls /d /o; ls /gone 2>/dev/null; find / -xdev -name '.wh.*'"]),
        "/d:\nnew\n\n/o:\nnew"
    );
    host.finish();
}

/// Archives that no honest tool writes: (what it is, the archive's bytes).
fn hostile_archives() -> Vec<(&'static str, Vec<u8>)> {
    let image =
        |layer: Vec<u8>| images::docker_archive(&[images::rootfs(), layer], images::busybox_config(), &["bad:1"]);
    let layer = |build: &dyn Fn(&mut Layer) -> &mut Layer| {
        let mut layer = Layer::new();
        build(&mut layer);
        image(layer.bytes())
    };
    let good = image(Layer::new().file("x", 0o644, b"x").bytes());
    let replaced = |from: &str, to: &str| {
        let at = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = good.clone();
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    vec![
        ("a name that climbs out", layer(&|l| l.file("../canary", 0o644, b"bad"))),
        ("a name that climbs out deeper", layer(&|l| l.file("a/../../../canary", 0o644, b"bad"))),
        ("a hard link to outside", layer(&|l| l.hard_link("x", "../../../../../../etc/passwd"))),
        (
            "a file through a link that climbs out",
            layer(&|l| l.link("a", "../../../../..").file("a/tmp/minidock-canary", 0o644, b"bad")),
        ),
        (
            "a folder swapped for a link",
            layer(&|l| {
                l.folder("a", 0o755).file("a/x", 0o644, b"").link("a", "/tmp").file("a/minidock-canary", 0o644, b"bad")
            }),
        ),
        ("a whiteout through a link", layer(&|l| l.link("a", "/etc").file("a/.wh.passwd", 0o644, b""))),
        ("an unknown entry type", layer(&|l| l.entry(EntryType::new(b'Q'), "x", 0o644, "", b"x"))),
        ("a cut-off archive", good[..good.len() / 2].to_vec()),
        ("a layer with another digest", replaced("root:x:0:0:root", "evil:x:0:0:root")),
        ("a manifest that is no JSON", replaced("[{\"Config\"", "[{{{{{{{{{")),
        ("nothing", Vec::new()),
        ("text", b"this is no archive\n".to_vec()),
        ("a tar without an image", Layer::new().file("x", 0o644, b"x").bytes()),
    ]
}

#[test]
fn a_hostile_archive_writes_nothing_outside_and_a_refused_one_leaves_the_store_as_it_was() {
    let host = TestHost::new();
    let before = store(&host);
    let passwd = host::read("/etc/passwd");
    for (what, bytes) in hostile_archives() {
        eprintln!("{what}");
        let load = host.minidock(&["load", "-i", &written(&host, "bad.tar", &bytes)]);
        // Some are harmless by design (a link that is followed inside the root): loaded, then they must be inside.
        if load.code() == 0 {
            host.minidock(&["rmi", "-f", "bad:1"]).ok();
        } else {
            let load = load.exits(1).says(&["bad.tar"]);
            assert!(load.err().lines().count() <= 2, "{}", load.describe());
        }
        assert_eq!(store(&host), before, "{what}: the store has changed");
        assert!(!Path::new("/tmp/minidock-canary").exists(), "{what}: written outside");
        assert!(!host.base.join("canary").exists() && !host.root.join("canary").exists(), "{what}: written outside");
        assert_eq!(host::read("/etc/passwd"), passwd, "{what}: the host's file was changed");
    }
    host.finish();
}

#[test]
fn what_must_be_refused_is_refused() {
    let host = TestHost::bare();
    let harmless =
        ["a file through a link that climbs out", "a folder swapped for a link", "a whiteout through a link"];
    for (what, bytes) in hostile_archives().iter().filter(|(what, _)| !harmless.contains(what)) {
        let load = host.minidock(&["load", "-i", &written(&host, "bad.tar", bytes)]);
        assert_ne!(load.code(), 0, "{what} was loaded:\n{}", load.describe());
    }
    host.finish();
}

#[test]
fn a_bomb_meets_a_limit_and_not_the_machine_s_memory() {
    let host = TestHost::bare();
    let zeros = "head -c 3000000000 /dev/zero";
    let script =
        format!("ulimit -v 2000000; {zeros} | gzip -1 >bomb.gz; ! {} load -i bomb.gz", host::minidock().display());
    let output = host.sh(&script).ok();
    assert!(!output.err().contains("panicked"), "{}", output.describe());
    host.finish();
}

#[test]
fn loads_of_the_same_image_at_the_same_moment_all_succeed() {
    let host = TestHost::bare();
    let file = images::busybox().to_str().unwrap();
    let loads: Vec<_> = (0..6).map(|_| host.spawn(&["load", "-i", file])).collect();
    for load in loads {
        load.wait().ok();
    }
    assert_eq!(host.minidock(&["images", "-q"]).ok().out().lines().count(), 1);
    assert_eq!(host.output_of(&[&["busybox"], &CAT[..]].concat()) + "\n", PAGE);
    host.finish();
}

#[test]
fn loading_running_and_removing_at_the_same_moment_never_breaks_a_run() {
    let host = TestHost::new();
    let file = images::busybox().to_str().unwrap();
    for _ in 0..5 {
        let remove = host.spawn(&["rmi", "-f", "busybox"]);
        let load = host.spawn(&["load", "-q", "-i", file]);
        let run = host.spawn(&["run", "--rm", "busybox", "cat", "/www/index.html"]);
        let (run, _, load) = (run.wait(), remove.wait(), load.wait());
        load.ok();
        match run.code() {
            0 => assert_eq!(run.out() + "\n", PAGE),
            _ => drop(run.exits(125).says(&["busybox"])), // removed before it began: said so, whole
        }
    }
    host.minidock(&["load", "-q", "-i", file]).ok();
    assert_eq!(host.output_of(&[&["busybox"], &CAT[..]].concat()) + "\n", PAGE);
    host.finish();
}

#[test]
fn a_killed_load_leaves_nothing_that_the_next_command_does_not_sweep() {
    let host = TestHost::bare();
    let archive = std::fs::read(images::busybox()).unwrap();
    let mut load = host.command(&["load"]).open_input().spawn();
    load.write(&archive[..archive.len() / 2]);
    host::wait_until("something half-made is there", || !store(&host).is_empty());
    load.signal(nix::sys::signal::Signal::SIGKILL);
    load.wait();
    host.minidock(&["load", "-q", "-i", images::busybox().to_str().unwrap()]).ok();
    assert_eq!(host.output_of(&[&["busybox"], &CAT[..]].concat()) + "\n", PAGE);
    host.minidock(&["rmi", "busybox"]).ok();
    host.finish();
}

#[test]
fn the_demo_image_is_made_once_and_a_new_program_replaces_it() {
    let host = TestHost::bare();
    let words = ["--rm", "--network", "none", "--entrypoint", "/minidock", "demo", "--version"];
    let first: Vec<_> = (0..4).map(|_| host.spawn(&[&["run"], &words[..]].concat())).collect();
    for run in first {
        run.wait().ok();
    }
    let ids = || host.minidock(&["images", "-q"]).ok().out();
    let old = ids();
    assert_eq!(old.lines().count(), 1, "{old}");
    let layers = || std::fs::read_dir(host.root.join("images/layers")).unwrap().count();
    let made = layers();
    // Another file is another program, though it does the same.
    std::fs::copy(host::minidock(), host.work.join("newer")).unwrap();
    let newer = |words: &[&str]| host.sh(&format!("chmod +x newer; ./newer {}", words.join(" "))).ok();
    newer(&[&["run"], &words[..]].concat());
    assert!(ids() != old && ids().lines().count() == 1, "{old} {}", ids());
    assert_eq!(layers(), made);
    // One that a container uses stays as long as the container.
    let used = ids();
    newer(&["create", "--name", "box", "demo"]);
    host.minidock(&[&["run"], &words[..]].concat()).ok();
    let both = ids();
    assert!(both.lines().count() == 2 && both.contains(&used), "{both}");
    host.minidock(&["rm", "box"]).ok();
    newer(&[&["run"], &words[..]].concat());
    assert_eq!(ids().lines().count(), 1, "{}", ids());
    host.finish();
}
