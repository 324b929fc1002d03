//! `save`: what it writes is loaded again as the same files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::{TestHost, images};
use serde_json::{Value, json};
use tar::EntryType;

/// Kind, mode, owner, links, size, time and content of every file that the image has.
const SHOW: &str = "cd /; find . -mindepth 1 -xdev -path ./proc -prune -o -path ./sys -prune -o -path ./dev -prune -o -path ./etc \
                    -prune -o -path './bin/*' -prune -o -print0 | sort -z | xargs -0 stat -c '%n %F %a %u:%g %h %s %Y %N'; \
                    find data opaque -type f -exec md5sum {} + | sort";

fn layered() -> Vec<u8> {
    let base = images::rootfs();
    let one = images::Layer::new()
        .folder("data", 0o1775)
        .owner(7, 8)
        .file("data/set-uid", 0o4755, b"x")
        .file("data/gone", 0o600, b"hidden")
        .hard_link("data/second-name", "data/set-uid")
        .link("data/link", "../somewhere else")
        .folder("opaque", 0o700)
        .file("opaque/below", 0o644, b"hidden too")
        .entry(EntryType::Fifo, "data/fifo", 0o640, "", b"")
        .file(&format!("data/{}", "long".repeat(20)), 0o644, b"long name")
        .bytes();
    let two = images::Layer::new()
        .file("data/.wh.gone", 0o644, b"")
        .folder("opaque", 0o750)
        .file("opaque/.wh..wh..opq", 0o644, b"")
        .file("opaque/above", 0o644, b"seen")
        .bytes();
    let config = json!({"Cmd": ["sh"], "Env": ["A=b"], "Labels": {"l": "m"}});
    images::docker_archive(&[base, one, two], config, &["layered:one"])
}

#[test]
fn what_is_saved_is_loaded_as_the_same_files_and_configuration() {
    let host = TestHost::new();
    std::fs::write(host.work.join("in.tar"), layered()).unwrap();
    host.minidock(&["load", "-q", "-i", "in.tar"]).ok();
    let show = || host.minidock(&["run", "--rm", "layered:one", "sh", "-c", SHOW]).ok().out();
    let config = || host.minidock(&["image", "inspect", "layered:one", "--format", "{{json .Config}}"]).ok().out();
    let (files, settings) = (show(), config());
    assert!(files.contains("./data/set-uid regular file 4755 7:8 2 ") && files.contains("./opaque/above"), "{files}");
    assert!(!files.contains("gone") && !files.contains("below"), "{files}");
    host.minidock(&["save", "-o", "out.tar", "layered:one"]).ok();
    host.minidock(&["rmi", "layered:one"]).ok();
    assert_eq!(host.minidock(&["load", "-i", "out.tar"]).ok().out(), "Loaded image: layered:one");
    assert_eq!(show(), files);
    assert_eq!(config(), settings);
    host.finish();
}

#[test]
fn several_images_go_to_stdout_and_are_an_oci_layout_too() {
    let host = TestHost::new();
    host.minidock(&["tag", "busybox", "other:1"]).ok();
    host.minidock(&["tag", "busybox", "other:2"]).ok();
    std::fs::write(host.work.join("in.tar"), layered()).unwrap();
    host.minidock(&["load", "-q", "-i", "in.tar"]).ok();
    let path = host.work.join("all.tar").display().to_string();
    let minidock = host::minidock().display().to_string();
    host.sh(&format!(
        "{minidock} save other layered:one | cat > {path}; mkdir -p {path}.d; tar -xf {path} -C {path}.d"
    ))
    .ok();
    let read = |name: &str| -> Value { serde_json::from_str(&host::read(format!("{path}.d/{name}"))).unwrap() };
    let manifest = read("manifest.json");
    assert_eq!(manifest[0]["RepoTags"], json!(["other:1", "other:2"]));
    assert_eq!(manifest[1]["RepoTags"], json!(["layered:one"]));
    let index = read("index.json");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 3);
    for blob in std::fs::read_dir(format!("{path}.d/blobs/sha256")).unwrap().flatten() {
        let digest = images::sha256(&std::fs::read(blob.path()).unwrap());
        assert!(digest.ends_with(&blob.file_name().into_string().unwrap()), "{digest}");
    }
    // As a layout alone.
    std::fs::remove_file(format!("{path}.d/manifest.json")).unwrap();
    for image in ["other:1", "other:2", "layered:one"] {
        host.minidock(&["rmi", image]).ok();
    }
    let loaded = host.minidock(&["load", "-i", &format!("{path}.d")]).ok().out();
    for image in ["other:1", "other:2", "layered:one"] {
        assert!(loaded.contains(&format!("Loaded image: {image}")), "{loaded}");
        host.minidock(&["run", "--rm", image, "true"]).ok();
    }
    host.finish();
}

#[test]
fn the_usual_mistakes() {
    let host = TestHost::new();
    host.minidock(&["save"]).exits(1).says(&["requires at least 1 argument"]);
    host.minidock(&["save", "-o", "x.tar", "busybx"]).exits(1).says(&["no such image: busybx; did you mean busybox?"]);
    host.minidock(&["save", "-o", "/no/such/x.tar", "busybox"]).exits(1).says(&["invalid output path"]);
    host.minidock(&["save", "-o", ".", "busybox"]).exits(1).says(&["is a directory"]);
    assert!(!host.work.join("x.tar").exists());
    let id = host.minidock(&["images", "-q", "busybox"]).ok().out();
    host.minidock(&["image", "save", "-o", "id.tar", &id]).ok();
    assert!(host.minidock(&["load", "-i", "id.tar"]).ok().out().starts_with("Loaded image ID: sha256:"));
    host.finish();
}

/// A device node of the test's own: a mistake must not cost the machine its /dev/null.
#[test]
fn only_regular_files_are_written_and_only_for_their_owner() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    let work = host.work.display().to_string();
    host.sh(&format!(
        "cd {work}; mknod null c 1 3; mkfifo fifo; ln -s null to-null; echo old > file; ln -s file to-file"
    ))
    .ok();
    for (path, what) in [("null", "got a device"), ("to-null", "got a device"), ("fifo", "got a FIFO")] {
        let words = ["invalid output path", "must be a directory or a regular file", what];
        host.minidock(&["save", "-o", path, "busybox"]).exits(1).says(&words);
        host.minidock(&["export", "-o", path, "box"]).exits(1).says(&words);
        host.minidock(&["cp", "box:/etc/hosts", path]).exits(1).says(&words);
    }
    let kinds = format!("cd {work}; stat -c %F null fifo to-null to-file");
    let expected = "character special file\nfifo\nsymbolic link\nsymbolic link";
    assert_eq!(host.sh(&kinds).ok().out(), expected);
    host.minidock(&["save", "-o", "to-file", "busybox"]).ok();
    host.minidock(&["export", "-o", "new", "box"]).ok();
    assert_eq!(host.sh(&kinds).ok().out(), expected);
    host.sh(&format!("cd {work}; tar -tf file; tar -tf new")).ok();
    assert_eq!(host.sh(&format!("cd {work}; stat -c %a file new")).ok().out(), "600\n600");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn what_is_saved_again_has_the_same_bytes_and_attributes_are_kept() {
    let host = TestHost::new();
    std::fs::write(host.work.join("in.tar"), layered()).unwrap();
    host.minidock(&["load", "-q", "-i", "in.tar"]).ok();
    // A layer with attributes, and with more files than a folder's list keeps in their order.
    host.minidock(&["run", "--name", "box", "busybox", "sh", "-c", "mkdir /many; cd /many; touch $(seq 1 300)"]).ok();
    host.minidock(&["export", "-o", "plain.tar", "box"]).ok();
    host.sh("mkdir r; tar -C r -xf plain.tar").ok();
    let mark = |file: &str, name: &str, value: &str| {
        let set = rustix::fs::setxattr(host.work.join(file), name, value.as_bytes(), rustix::fs::XattrFlags::empty());
        set.is_ok()
    };
    let can_mark = mark("r/many/7", "user.colour", "blue") && mark("r/many", "user.kind", "folder");
    mark("r/many/8", "trusted.hidden", "x");
    host.minidock(&["import", "r", "many:1"]).ok();
    let save = |file: &str| {
        host.minidock(&["save", "-o", file, "layered:one", "many:1"]).ok();
        std::fs::read(host.work.join(file)).unwrap()
    };
    let first = save("one.tar");
    assert!(first == save("two.tar"), "saved twice");
    host.minidock(&["rm", "box"]).ok();
    host.minidock(&["rmi", "layered:one", "many:1"]).ok();
    host.minidock(&["load", "-q", "-i", "one.tar"]).ok();
    assert!(first == save("three.tar"), "loaded and saved again");
    if can_mark {
        host.minidock(&["create", "--name", "box", "many:1", "true"]).ok();
        host.minidock(&["export", "-o", "again.tar", "box"]).ok();
        let archive = String::from_utf8_lossy(&std::fs::read(host.work.join("again.tar")).unwrap()).into_owned();
        for (attribute, count) in
            [("SCHILY.xattr.user.colour=blue", 1), ("SCHILY.xattr.user.kind=folder", 1), ("SCHILY.xattr.trusted", 0)]
        {
            assert_eq!(archive.matches(attribute).count(), count, "{attribute}");
        }
        host.remove(&["box"]);
    }
    host.finish();
}
