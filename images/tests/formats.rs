//! All forms in which images come, and the wrong ones' messages.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use images::{Error, ImportOptions, Input, LoadOptions, Loaded, Reference, Store};
use serde_json::json;
use support::*;

fn layers() -> Vec<Vec<u8>> {
    vec![tar(&[dir("bin"), file("bin/sh", "shell"), file("old", "1")]), tar(&[file(".wh.old", ""), file("new", "22")])]
}

fn load(store: &Store, input: Input) -> Vec<Loaded> {
    store.load(input, &options()).unwrap()
}

/// The image is whole: layers in order, configuration, names, size.
fn check(store: &Store, name: &str) {
    let image = store.find(name).unwrap();
    assert_eq!(image.layers.len(), 2);
    assert_eq!(fs::read_to_string(image.layers[0].join("bin/sh")).unwrap(), "shell");
    assert_eq!(fs::read_to_string(image.layers[1].join("new")).unwrap(), "22");
    assert_eq!(image.config.cmd(), ["sh"]);
    assert_eq!(image.size_bytes, 5 + 1 + 2);
    assert_eq!(image.id.0, images::Digest::of(image.config.raw()));
    assert!(image.names.contains(&Reference::parse(name).unwrap()), "{:?}", image.names);
}

#[test]
fn docker_save_old_form() {
    let temp = Temp::new();
    let store = temp.store();
    let loaded = load(&store, temp.input("a.tar", &pack(&docker_old(&layers(), &["me/app:1", "app:latest"]))));
    assert_eq!(loaded[0].names.iter().map(Reference::to_string).collect::<Vec<_>>(), ["me/app:1", "app:latest"]);
    check(&store, "me/app:1");
    check(&store, "app");
    assert_eq!(store.images().unwrap().len(), 1);
}

#[test]
fn docker_save_old_form_with_a_link_for_a_layer_that_comes_twice() {
    let temp = Temp::new();
    let store = temp.store();
    let layer = tar(&[file("a", "1")]);
    let twice = [layer.clone(), tar(&[file("b", "2")]), layer];
    let mut members = docker_old(&twice, &["twice:1"]);
    let id = |n: usize| images::Digest::of(format!("{n}").as_bytes()).hex();
    let last = format!("{}/layer.tar", id(2));
    members.remove(&last).unwrap();
    let target = format!("../{}/layer.tar", id(0));
    let mut archive = entry(&symlink(&last, &target));
    archive.extend(pack(&members));
    load(&store, temp.input("a.tar", &archive));
    let image = store.find("twice:1").unwrap();
    // overlayfs refuses the same folder twice; the upper one hides the lower one wholly.
    assert_eq!(image.layers.len(), 2);
    assert_eq!(fs::read_to_string(image.layers[1].join("a")).unwrap(), "1");
    assert_eq!(fs::read_to_string(image.layers[0].join("b")).unwrap(), "2");
}

#[test]
fn docker_save_new_form_has_oci_blobs_and_manifest_json() {
    let temp = Temp::new();
    let store = temp.store();
    // docker ≥ 25: the layers are plain tars below blobs/, index.json names the image, manifest.json as well.
    let mut members = oci(&layers(), "1", |layer| layer.to_vec());
    let name = |bytes: &[u8]| format!("blobs/sha256/{}", images::Digest::of(bytes).hex());
    let manifest = json!([{
        "Config": name(&config(&layers(), json!({"Cmd": ["sh"]}))), "RepoTags": ["new:1"],
        "Layers": layers().iter().map(|layer| name(layer)).collect::<Vec<_>>(),
        "LayerSources": {}
    }]);
    members.insert("manifest.json".into(), manifest.to_string().into_bytes());
    load(&store, temp.input("new.tar", &pack(&members)));
    check(&store, "new:1");
}

#[test]
fn dockers_oldest_form_gets_a_configuration_of_today() {
    let temp = Temp::new();
    let store = temp.store();
    let mut members = Members::new();
    let ids = ["a".repeat(64), "b".repeat(64)];
    for (n, layer) in layers().iter().enumerate() {
        let mut json = json!({"id": ids[n], "created": "2014-01-01T00:00:00Z", "os": "linux", "architecture": "amd64",
                              "config": {"Cmd": ["sh"]}, "container_config": {"Cmd": ["x"]}});
        if n > 0 {
            json["parent"] = ids[n - 1].as_str().into();
        }
        members.insert(format!("{}/json", ids[n]), json.to_string().into_bytes());
        members.insert(format!("{}/layer.tar", ids[n]), layer.clone());
    }
    let repositories = json!({"oldest": {"1": ids[1], "latest": ids[1]}});
    members.insert("repositories".into(), repositories.to_string().into_bytes());
    load(&store, temp.input("oldest.tar", &pack(&members)));
    check(&store, "oldest:1");
    check(&store, "oldest");
    assert_eq!(store.find("oldest").unwrap().config.created(), "2014-01-01T00:00:00Z");
    assert_eq!(store.find("oldest").unwrap().config.diff_ids().len(), 2);

    // A chain that leads back into itself.
    members.insert(format!("{}/json", ids[0]), json!({"parent": ids[1]}).to_string().into_bytes());
    let error = store.load(temp.input("circle.tar", &pack(&members)), &options()).unwrap_err();
    assert!(error.to_string().contains("127 layers"), "{error}");
}

#[test]
fn oci_layouts_with_plain_gzip_and_zstd_layers_as_tar_and_as_folder() {
    type Pack = fn(&[u8]) -> Vec<u8>;
    let two_members: Pack = |layer| [gzip(&layer[..700]), gzip(&layer[700..])].concat();
    let packs: [(&str, Pack); 4] =
        [("plain", |layer| layer.to_vec()), ("gzip", gzip), ("gzip2", two_members), ("zstd", zstd)];
    for (name, pack_layer) in packs {
        let temp = Temp::new();
        let store = temp.store();
        let members = oci(&layers(), &format!("example.com/{name}:1"), pack_layer);
        load(&store, temp.input("oci.tar", &pack(&members)));
        check(&store, &format!("example.com/{name}:1"));
        assert!(store.find(&format!("example.com/{name}:1")).unwrap().manifest_digest.is_some());

        let folder = temp.0.join("oci-folder");
        for (member, bytes) in &members {
            let path = folder.join(member);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let other = Store::open(&temp.0.join("other")).unwrap();
        load(&other, Input::Dir(folder.clone()));
        check(&other, &format!("example.com/{name}:1"));
        load(&other, Input::File(folder));
    }
}

#[test]
fn a_name_that_is_only_a_tag_gets_the_files_name() {
    let temp = Temp::new();
    let store = temp.store();
    let archive = pack(&oci(&layers(), "1.36", gzip));
    load(&store, temp.input("Busybox.tar", &archive));
    check(&store, "busybox:1.36");
    load(&store, temp.input("other.tar.gz", &gzip(&archive)));
    check(&store, "other:1.36");
    // A file name that can't be an image's name.
    assert!(load(&store, temp.input("a b.tar", &archive))[0].names.is_empty());
    let quiet = LoadOptions { names: false, ..options() };
    assert!(store.load(temp.input("quiet.tar", &archive), &quiet).unwrap()[0].names.is_empty());
    assert!(store.find("quiet:1.36").is_err());
}

#[test]
fn a_pinned_name_finds_the_manifest() {
    let temp = Temp::new();
    let store = temp.store();
    load(&store, temp.input("a.tar", &pack(&oci(&layers(), "example.com/app:1", gzip))));
    let image = store.find("example.com/app:1").unwrap();
    let pinned = format!("example.com/app@{}", image.manifest_digest.unwrap());
    assert_eq!(store.find(&pinned).unwrap().id, image.id);
    assert!(store.find(&format!("example.com/other@{}", image.manifest_digest.unwrap())).is_err());
}

#[test]
fn the_hosts_platform_is_picked_also_from_nested_indexes() {
    let host = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let temp = Temp::new();
    let store = temp.store();
    let mut members = Members::new();
    let mut platforms = Vec::new();
    for (os, architecture) in [("linux", "s390x"), ("windows", host), ("linux", host), ("unknown", "unknown")] {
        let layer = [tar(&[file("platform", &format!("{os}/{architecture}"))])];
        let mut manifest = oci_image(&mut members, &layer, json!({}), gzip);
        manifest["platform"] = json!({"os": os, "architecture": architecture});
        platforms.push(manifest);
    }
    let inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": platforms});
    let mut nested = blob(&mut members, INDEX, inner.to_string().into_bytes());
    nested["annotations"] = json!({"io.containerd.image.name": "docker.io/library/multi:1",
                                   "org.opencontainers.image.ref.name": "1"});
    let mut direct = members.clone();
    index(&mut members, &[nested]);
    load(&store, temp.input("nested.tar", &pack(&members)));
    let read = |name: &str| fs::read_to_string(store.find(name).unwrap().layers[0].join("platform")).unwrap();
    assert_eq!(read("multi:1"), format!("linux/{host}"));

    // The platforms may stand in index.json itself, without a name.
    index(&mut direct, &platforms);
    let loaded = load(&store, temp.input("direct.tar", &pack(&direct)));
    assert_eq!((loaded.len(), loaded[0].names.len()), (1, 0));
    assert_eq!(loaded[0].id, store.find("multi:1").unwrap().id);

    index(&mut direct, &platforms[..2]);
    let error = store.load(temp.input("none.tar", &pack(&direct)), &options()).unwrap_err().to_string();
    assert!(error.contains(&format!("no image for linux/{host}; it has linux/s390x, windows/{host}")), "{error}");
}

#[test]
fn compressed_archives_and_standard_input_are_read() {
    let temp = Temp::new();
    let archive = pack(&docker_old(&layers(), &["app:1"]));
    for (name, bytes) in [("a.tar.gz", gzip(&archive)), ("a.tar.zst", zstd(&archive))] {
        let store = Store::open(&temp.0.join(name.replace("a.", "root-"))).unwrap();
        load(&store, temp.input(name, &bytes));
        check(&store, "app:1");
        assert_eq!(fs::read_dir(store.dir().join("tmp")).unwrap().count(), 0);
    }
    for bytes in [archive.clone(), gzip(&archive)] {
        assert!(child("load", &temp.0.join("piped"), &bytes).success());
        check(&Store::open(&temp.0.join("piped")).unwrap(), "app:1");
        fs::remove_dir_all(temp.0.join("piped")).unwrap();
    }
    let layer = tar(&[file("a", "1")]);
    assert!(child("import", &temp.0.join("piped"), &gzip(&layer)).success());
    let image = Store::open(&temp.0.join("piped")).unwrap().find("piped").unwrap();
    assert_eq!(image.config.comment(), "Imported from -");
    assert!(!child("load", &temp.0.join("piped"), &archive[..5000]).success());
    assert!(!child("import", &temp.0.join("piped"), &layer[..512]).success());
}

/// Runs this test program's [`in_a_child`] with standard input.
fn child(verb: &str, root: &std::path::Path, stdin: &[u8]) -> std::process::ExitStatus {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_a_child"])
        .env("IMAGES_TEST_VERB", verb)
        .env("IMAGES_TEST_ROOT", root)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait().unwrap()
}

/// Not a test of its own: what [`child`] runs.
#[test]
fn in_a_child() {
    let Some(verb) = std::env::var_os("IMAGES_TEST_VERB") else {
        return;
    };
    let store = Store::open(std::env::var_os("IMAGES_TEST_ROOT").unwrap().as_ref()).unwrap();
    if verb == "load" {
        store.load(Input::Stdin, &options()).unwrap();
    } else {
        let import = ImportOptions { load: options(), ..Default::default() };
        store.import(Input::Stdin, Some(&Reference::parse("piped").unwrap()), &import).unwrap();
    }
}

#[test]
fn import_makes_dockers_empty_configuration_and_takes_changes() {
    let temp = Temp::new();
    let store = temp.store();
    let rootfs = tar(&[dir("./"), file("./bin/sh", "x")]);
    let name = Reference::parse("mine").unwrap();
    let import = ImportOptions { load: options(), ..Default::default() };
    let first = store.import(temp.input("rootfs.tar", &rootfs), Some(&name), &import).unwrap();
    let image = store.find("mine").unwrap();
    assert_eq!(image.config.json()["config"], json!({}));
    assert_eq!(image.config.json()["rootfs"]["diff_ids"][0], images::Digest::of(&rootfs).to_string());
    assert_eq!((image.config.os(), image.layers.len(), image.config.cmd().len()), ("linux", 1, 0));
    assert!(image.config.comment().contains("rootfs.tar") && image.config.oci().is_some());

    let changes = vec![r#"CMD ["/bin/sh"]"#.into(), "ENV A=1".into(), "EXPOSE 80".into()];
    let import = ImportOptions { load: options(), changes, message: Some("by hand".into()) };
    let second = store.import(temp.input("rootfs.tgz", &gzip(&rootfs)), Some(&name), &import).unwrap();
    assert_eq!(second.moved, [(name, first.id)], "the name has moved");
    let image = store.find("mine").unwrap();
    assert_eq!((image.config.cmd(), image.config.env()), (&["/bin/sh".to_owned()][..], &["A=1".to_owned()][..]));
    assert_eq!(image.config.comment(), "by hand");
    // One layer, two images.
    assert_eq!(store.images().unwrap().len(), 2);
    assert_eq!(fs::read_dir(store.dir().join("layers")).unwrap().count(), 3, "tree, record, empty");

    let bad = ImportOptions { load: options(), changes: vec!["RUN x".into()], message: None };
    let error = store.import(temp.input("rootfs.tar", &rootfs), None, &bad).unwrap_err();
    assert!(matches!(error, Error::BadChange { .. }));
}

#[test]
fn import_of_a_folder_keeps_everything_and_gives_the_same_id_twice() {
    let temp = Temp::new();
    let store = temp.store();
    let folder = temp.0.join("rootfs");
    fs::create_dir_all(folder.join("bin")).unwrap();
    let entries = [
        E { mode: 0o1777, owner: (3, 4), ..dir("tmp") },
        E {
            mode: 0o4755,
            owner: (7, 8),
            pax: vec![(b"mtime", b"5.000000006"), (b"SCHILY.xattr.user.note", b"a\nb")],
            ..file("bin/suid", "12")
        },
        hardlink("bin/again", "bin/suid"),
        symlink("link", "/nowhere"),
        E { mode: 0o666, device: (1, 3), ..e(b'3', "null") },
        e(b'6', "fifo"),
        E { name: b"latin\xe9", ..file("", "x") },
        E { name: &[b'l'; 255], ..file("", "long") },
    ];
    let fd: std::os::fd::OwnedFd = fs::File::open(&folder).unwrap().into();
    images::unpack_tar(&tar(&entries)[..], &fd, images::Devices::Create, &images::Limits::default()).unwrap();
    // Left out: a socket.
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    let import = ImportOptions { load: options(), ..Default::default() };
    let first = store.import(Input::Dir(folder.clone()), None, &import).unwrap();
    let second = store.import(Input::File(folder.clone()), None, &import).unwrap();
    let (first, second) = (store.find(&first.id.to_string()).unwrap(), store.find(&second.id.short()).unwrap());
    assert_eq!(first.config.diff_ids(), second.config.diff_ids());
    fs::remove_file(folder.join("socket")).unwrap();
    assert_eq!(listing(&first.layers[0]), listing(&folder));
    let layer = &first.layers[0];
    let meta = |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(layer.join(name)).unwrap());
    assert_eq!(meta("bin/suid"), meta("bin/again"));
    if user_xattrs(&temp.0) {
        assert_eq!(xattr(&layer.join("bin/suid"), "user.note").as_deref(), Some(&b"a\nb"[..]));
    }
    let modified = fs::metadata(layer.join("bin/suid")).unwrap().modified().unwrap();
    assert_eq!(modified.duration_since(std::time::UNIX_EPOCH).unwrap(), std::time::Duration::new(5, 6));
}

#[test]
fn an_image_without_layers_has_an_empty_folder() {
    let temp = Temp::new();
    let store = temp.store();
    load(&store, temp.input("a.tar", &pack(&docker_old(&[], &["none:1"]))));
    let image = store.find("none:1").unwrap();
    assert_eq!((image.layers.len(), image.size_bytes), (1, 0));
    assert_eq!(fs::read_dir(&image.layers[0]).unwrap().count(), 0);
}

#[test]
fn several_images_in_one_archive_share_their_layers() {
    let temp = Temp::new();
    let store = temp.store();
    let base = tar(&[file("base", "1")]);
    let mut members = docker_old(&[base.clone(), tar(&[file("one", "1")])], &["one:1"]);
    let other = docker_old(&[base, tar(&[file("two", "2")])], &["two:1"]);
    let mut list: Vec<serde_json::Value> = serde_json::from_slice(&members["manifest.json"]).unwrap();
    let mut second: Vec<serde_json::Value> = serde_json::from_slice(&other["manifest.json"]).unwrap();
    second[0]["Layers"][1] = "second/layer.tar".into();
    members.insert("second/layer.tar".into(), tar(&[file("two", "2")]));
    let config = second[0]["Config"].as_str().unwrap().to_owned();
    members.insert(config.clone(), other[&config].clone());
    list.append(&mut second);
    members.insert("manifest.json".into(), serde_json::to_vec(&list).unwrap());
    assert_eq!(load(&store, temp.input("two.tar", &pack(&members))).len(), 2);
    let (one, two) = (store.find("one:1").unwrap(), store.find("two:1").unwrap());
    assert_eq!(one.layers[0], two.layers[0]);
    assert!(two.layers[1].join("two").exists());
}

#[test]
fn inputs_that_are_not_there_or_not_images_are_named() {
    let temp = Temp::new();
    let store = temp.store();
    let error = |input: Input| store.load(input, &options()).unwrap_err().to_string();
    assert!(error(Input::File("/no/such.tar".into())).contains("/no/such.tar"));
    assert!(error(temp.input("x.xz", b"\xfd7zXZ\0 and more")).contains("xz -d"));
    let windows = json!({"os": "windows", "architecture": "amd64", "rootfs": {"diff_ids": []}}).to_string();
    let mut members = Members::new();
    members.insert("c.json".into(), windows.into_bytes());
    members.insert("manifest.json".into(), br#"[{"Config":"c.json","RepoTags":null,"Layers":null}]"#.to_vec());
    assert!(error(temp.input("w.tar", &pack(&members))).contains("for windows"));
    fs::create_dir(temp.0.join("empty")).unwrap();
    assert!(error(Input::Dir(temp.0.join("empty"))).contains("use import"));
}
