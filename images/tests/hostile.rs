//! Hostile archives (users.md §3 D): each is refused, or unpacked harmlessly; nothing outside the layer changes, and
//! after a refusal the store is as it was.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;

use images::{Devices, Error, ImportOptions, Limits, LoadOptions, Store};
use serde_json::json;
use support::*;

/// Unpacks into `TEMP/work/layer`, with canaries beside and above it.
struct Bench {
    temp: Temp,
}

impl Bench {
    fn new() -> Bench {
        let temp = Temp::new();
        fs::create_dir_all(temp.0.join("work/layer")).unwrap();
        fs::create_dir(temp.0.join("canary")).unwrap();
        for place in ["canary/file", "work/file", "file"] {
            temp.file(place, b"canary");
        }
        Bench { temp }
    }

    fn layer(&self) -> std::path::PathBuf {
        self.temp.0.join("work/layer")
    }

    fn unpack(&self, archive: &[u8]) -> Result<(), String> {
        self.unpack_with(archive, &Limits::default())
    }

    fn unpack_with(&self, archive: &[u8], limits: &Limits) -> Result<(), String> {
        let folder: OwnedFd = File::open(self.layer()).unwrap().into();
        images::unpack_tar(archive, &folder, Devices::Create, limits).map(drop).map_err(|error| format!("{error:?}"))
    }

    /// Everything but the layer.
    fn outside(&self) -> Vec<String> {
        let names = |place: &str| -> Vec<String> {
            let entries = fs::read_dir(self.temp.0.join(place)).unwrap();
            entries.map(|entry| format!("{place}/{:?}", entry.unwrap().file_name())).collect()
        };
        let text = |place: &str| {
            let path = self.temp.0.join(place);
            let mode = std::os::unix::fs::MetadataExt::mode(&fs::symlink_metadata(&path).unwrap());
            format!("{mode:o} {:?}", fs::read(path).unwrap())
        };
        let mut lines = [names(""), names("work"), listing(&self.temp.0.join("canary"))].concat();
        lines.extend([text("work/file"), text("file")]);
        lines.sort();
        lines
    }

    /// Unpacks and makes sure that nothing outside has changed.
    fn safely(&self, name: &str, archive: &[u8]) -> Result<(), String> {
        let before = self.outside();
        let result = self.unpack(archive);
        assert_eq!(self.outside(), before, "{name} changed something outside the layer");
        result
    }
}

#[test]
fn archives_that_reach_out_of_the_layer_are_refused() {
    let canary = Bench::new();
    let absolute = canary.temp.0.join("canary").display().to_string();
    let absolute_file = format!("{absolute}/file");
    let long = "x".repeat(4096);
    let deep = "a/".repeat(2048) + "b";
    let table: Vec<(&str, Vec<E<'_>>, &str)> = vec![
        ("..", vec![file("..", "x")], "leads out"),
        ("../x", vec![file("../x", "x")], "leads out"),
        ("a/../../x", vec![dir("a"), file("a/../../x", "x")], "leads out"),
        ("/../x", vec![file("/../x", "x")], "leads out"),
        ("empty name", vec![file("", "x")], "empty"),
        ("NUL in a name", vec![E { pax: vec![(b"path", b"a\0b")], ..file("x", "x") }], "bad path"),
        ("4096 characters", vec![file(&long, "x")], "4096 bytes"),
        ("300 characters in one part", vec![file(&long[..300], "x")], "longer than this file system"),
        ("deeper than PATH_MAX", vec![file(&deep, "x")], "bytes, more than"),
        (". as a file", vec![file(".", "x")], "only a folder"),
        (". as a link", vec![symlink("./", "/canary")], "only a folder"),
        ("hard link to ..", vec![hardlink("a", "../file")], "leads out"),
        ("hard link to an absolute path outside", vec![hardlink("a", "/etc/shadow")], "doesn't have"),
        ("hard link to the canary", vec![hardlink("a", &absolute_file)], "doesn't have"),
        ("hard link before its target", vec![hardlink("a", "b"), file("b", "x")], "doesn't have"),
        ("hard link to itself", vec![hardlink("a", "a")], "doesn't have"),
        ("hard link to the top", vec![hardlink("a", "/")], "layer's top"),
        ("hard link to a folder", vec![dir("d"), hardlink("a", "d")], "folder"),
        ("hard link through a link", vec![symlink("l", &absolute), hardlink("a", "l/file")], "doesn't have"),
        ("a file as a folder", vec![file("a", "x"), file("a/b", "x")], "a file, not a folder"),
        ("links in a circle", vec![symlink("a", "b"), symlink("b", "a"), file("a/x", "x")], "too many symbolic links"),
        ("link to itself", vec![symlink("a", "a/b"), file("a/x", "x")], "too many symbolic links"),
        ("link to nothing", vec![symlink("a", "")], "to nothing"),
        (".wh. alone", vec![file(".wh.", "")], "without a name"),
        (".wh... (that is ..)", vec![file("d/.wh...", "")], "without a name"),
        (".wh.. (that is .)", vec![file(".wh..", "")], "without a name"),
        ("below a whiteout", vec![file(".wh.a/b", "x")], ".wh."),
        ("owner -1", vec![E { owner: (u64::from(u32::MAX), 0), ..file("a", "x") }], "out of range"),
        ("owner 2^40", vec![E { pax: vec![(b"uid", b"1099511627776")], ..file("a", "x") }], "out of range"),
        ("unknown kind", vec![e(b'Z', "a")], "unknown kind"),
        ("PAX sparse", vec![E { pax: vec![(b"GNU.sparse.major", b"1")], ..file("a", "x") }], "GNU.sparse"),
        ("PAX size 2^63", vec![E { pax: vec![(b"size", b"9223372036854775808")], ..file("a", "x") }], "absurd"),
        ("PAX size negative", vec![E { pax: vec![(b"size", b"-1")], ..file("a", "x") }], "bad size"),
        ("PAX size 2^80", vec![E { pax: vec![(b"size", b"1208925819614629174706176")], ..file("a", "x") }], "bad size"),
        ("PAX size too large", vec![E { pax: vec![(b"size", b"999999")], ..file("a", "x") }], "too early"),
        (
            "forged file capability",
            vec![E { pax: vec![(b"SCHILY.xattr.security.capability", b"x")], ..file("a", "x") }],
            "refuses",
        ),
    ];
    for (name, entries, reason) in table {
        let bench = Bench::new();
        let error = bench.safely(name, &tar(&entries)).expect_err(name);
        assert!(error.contains(reason), "{name}: {error}");
    }
    assert_eq!(fs::read(canary.temp.0.join("canary/file")).unwrap(), b"canary");
}

#[test]
fn links_to_the_outside_are_followed_inside_the_layer_only() {
    let bench = Bench::new();
    let canary = bench.temp.0.join("canary").display().to_string();
    let target = format!("{canary}/file");
    // All targets lie in the test's own folder: where this fails, the machine isn't harmed.
    let climbing = format!("/../../../../../../../..{canary}");
    let entries = [
        // A link, then a file below it; a chain of links; a link upwards.
        symlink("a", &canary),
        file("a/file", "evil"),
        symlink("one", "two"),
        symlink("two", &climbing),
        file("one/new", "evil"),
        symlink("up", "../.."),
        file("up/file", "evil"),
        // A folder that becomes a link between two entries, and a parent that does.
        dir("d"),
        file("d/file", "1"),
        symlink("d", &canary),
        file("d/file", "evil"),
        dir("p/q"),
        file("p/q/file", "1"),
        symlink("p", &canary),
        file("p/q/file", "evil"),
        // Whiteouts and opaque marks through a link.
        file("a/.wh.gone", ""),
        file("a/.wh..wh..opq", ""),
        // A file written over a link must replace the link.
        symlink("over", &target),
        file("over", "evil"),
        // A second name for a link, then a file over that name.
        symlink("first", &target),
        hardlink("second", "first"),
        file("second", "evil"),
        // A folder over a link, a device over a link.
        symlink("folder", &canary),
        dir("folder"),
        file("folder/file", "evil"),
        E { device: (1, 3), ..symlink("null", &target) },
        E { device: (1, 3), ..e(b'3', "null") },
    ];
    bench.safely("links", &tar(&entries)).unwrap();
    let layer = bench.layer();
    let inside = |path: &str| layer.join(path.trim_start_matches('/'));
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    assert_eq!(read(&inside(&format!("{canary}/file"))), "evil", "the link's target inside the layer");
    assert_eq!(read(&inside(&format!("{canary}/new"))), "evil");
    assert_eq!(read(&inside("file")), "evil", "'up' stops at the layer's top");
    assert!(fs::symlink_metadata(inside("over")).unwrap().is_file());
    assert!(fs::symlink_metadata(inside("first")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(inside("second")).unwrap().is_file());
    assert!(fs::symlink_metadata(inside("folder")).unwrap().is_dir());
    assert!(xattr(&inside(&canary), "trusted.overlay.opaque").is_some());
    assert!(xattr(&bench.temp.0.join("canary"), "trusted.overlay.opaque").is_none());
}

#[test]
fn a_file_over_a_hard_link_leaves_the_other_name_alone() {
    let bench = Bench::new();
    bench.safely("hard link", &tar(&[file("a", "one"), hardlink("b", "a"), file("b", "two")])).unwrap();
    assert_eq!(fs::read_to_string(bench.layer().join("a")).unwrap(), "one");
    assert_eq!(fs::read_to_string(bench.layer().join("b")).unwrap(), "two");
}

#[test]
fn case_and_unicode_twins_are_two_files() {
    let bench = Bench::new();
    let entries = [file("Name", "1"), file("name", "2"), file("\u{e9}", "3"), file("e\u{301}", "4")];
    bench.safely("twins", &tar(&entries)).unwrap();
    let read = |name: &str| fs::read_to_string(bench.layer().join(name)).unwrap();
    assert_eq!((read("Name"), read("name")), ("1".into(), "2".into()));
    assert_eq!((read("\u{e9}"), read("e\u{301}")), ("3".into(), "4".into()));
}

#[test]
fn headers_that_claim_a_gibibyte_are_refused_before_they_are_read() {
    for (kind, what) in [(b'x', "PAX header"), (b'L', "long name"), (b'K', "long link")] {
        struct Counted(Vec<u8>, usize);
        impl std::io::Read for Counted {
            fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
                let left = self.0.len().saturating_sub(self.1);
                let count = into.len();
                into.fill(b'a');
                let known = left.min(count);
                into[..known].copy_from_slice(&self.0[self.0.len() - left..][..known]);
                self.1 += count;
                Ok(count)
            }
        }
        let bench = Bench::new();
        let mut source = Counted(header(&e(kind, "x"), 1 << 30).as_bytes().to_vec(), 0);
        let folder: OwnedFd = File::open(bench.layer()).unwrap().into();
        let error = images::unpack_tar(&mut source, &folder, Devices::Create, &Limits::default()).unwrap_err();
        assert!(format!("{error:?}").contains(what), "{error:?}");
        assert!(source.1 < 4 << 20, "{} bytes were read for a {what}", source.1);
    }
}

#[test]
fn damaged_headers_are_refused() {
    let two = |kind| [entry(&e(kind, "x")), entry(&e(kind, "x")), tar(&[file("a", "")])].concat();
    let mut wrong = tar(&[file("a", "x")]);
    wrong[0] = b'b';
    let cut = tar(&[file("a", &"x".repeat(2000))]);
    let lone = {
        let data = pax(&[(b"path", b"a")]);
        [header(&e(b'x', "x"), data.len() as u64).as_bytes().to_vec(), padded(data), vec![0; 1024]].concat()
    };
    let mut sparse = e(b'S', "a");
    sparse.data = b"0123";
    for (name, archive, reason) in [
        ("two PAX headers", two(b'x'), "two PAX"),
        ("two long names", two(b'L'), "two long name"),
        ("wrong checksum", wrong, "not a tar archive"),
        ("not tar at all", b"#!/bin/sh\necho hello\n".repeat(100), "not a tar archive"),
        ("cut in the data", cut[..1000].to_vec(), "too early"),
        ("cut in the first header", cut[..100].to_vec(), "not a tar archive, plain or"),
        ("a header for nothing", lone, "after an extension header"),
        ("sparse outside GNU", tar(&[sparse]), "sparse"),
    ] {
        let error = Bench::new().safely(name, &archive).expect_err(name);
        assert!(error.contains(reason), "{name}: {error}");
    }
}

fn sparse(real: u64, pieces: &[(u64, u64)], data: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_path("s").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(data.len() as u64);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(real);
    for (field, (offset, length)) in gnu.sparse.iter_mut().zip(pieces) {
        field.set_offset(*offset);
        field.set_length(*length);
    }
    header.set_cksum();
    [header.as_bytes().to_vec(), padded(data.to_vec()), vec![0; 1024]].concat()
}

#[test]
fn sparse_files_keep_their_holes_and_absurd_ones_are_refused() {
    let bench = Bench::new();
    let data = [vec![b'a'; 512], b"end".to_vec()].concat();
    bench.safely("sparse", &sparse(1 << 20, &[(4096, 512), ((1 << 20) - 3, 3)], &data)).unwrap();
    let bytes = fs::read(bench.layer().join("s")).unwrap();
    assert_eq!((bytes.len(), &bytes[4096..4099], &bytes[(1 << 20) - 3..]), (1 << 20, &b"aaa"[..], &b"end"[..]));
    assert!(bytes[..4096].iter().all(|byte| *byte == 0));
    for (name, archive) in [
        ("1 EiB", sparse(1 << 60, &[(0, 3)], b"abc")),
        ("overlap", sparse(100, &[(0, 3), (1, 3)], b"abcabc")),
        ("beyond its size", sparse(2, &[(0, 3)], b"abc")),
        ("more than is there", sparse(100, &[(0, 50)], b"abc")),
        ("overflow", sparse(u64::MAX >> 1, &[((u64::MAX >> 1) - 1, 3)], b"abc")),
    ] {
        Bench::new().safely(name, &archive).expect_err(name);
    }
}

#[test]
fn bombs_meet_limits() {
    let table: Vec<(&str, Limits, Vec<u8>, &str)> = vec![
        (
            "entries",
            Limits { entries: 100, ..Limits::default() },
            tar(&(0..101).map(|_| file("f", "")).collect::<Vec<_>>()),
            "more than 100 entries",
        ),
        (
            "bytes",
            Limits { unpacked_bytes: 1 << 20, ..Limits::default() },
            tar(&[file("f", &"x".repeat(1 << 20))]),
            "when unpacked",
        ),
    ];
    for (name, limits, archive, reason) in table {
        let bench = Bench::new();
        let error = bench.unpack_with(&archive, &limits).expect_err(name);
        assert!(error.contains(reason), "{name}: {error}");
    }
    // gzip 1000:1, as an import, as a layer, and as the outer archive.
    let temp = Temp::new();
    let store = temp.store();
    let before = state(&store);
    let limits = Limits { ratio: 100, ratio_from_bytes: 1 << 20, ..Limits::default() };
    let zeros = "\0".repeat(32 << 20);
    let layer = tar(&[file("zeros", &zeros)]);
    let import = ImportOptions { load: LoadOptions { limits: limits.clone(), ..options() }, ..Default::default() };
    let bomb = |error: Error| assert!(error.to_string().contains("a bomb?"), "{error}");
    bomb(store.import(temp.input("a.tar.gz", &gzip(&layer)), None, &import).unwrap_err());
    bomb(store.import(temp.input("a.tar.zst", &zstd(&layer)), None, &import).unwrap_err());
    let load = LoadOptions { limits, ..options() };
    let image = pack(&oci(std::slice::from_ref(&layer), "bomb:1", gzip));
    bomb(store.load(temp.input("b.tar", &image), &load).unwrap_err());
    let image = pack(&docker_old(&[layer], &["bomb:1"]));
    bomb(store.load(temp.input("c.tar.gz", &gzip(&image)), &load).unwrap_err());
    assert_eq!(state(&store), before);
}

#[test]
fn a_deep_tree_is_removed_without_running_out_of_files() {
    let bench = Bench::new();
    // 2000 levels in each of three steps, deeper than PATH_MAX by a link.
    let deep = "d/".repeat(2000);
    let link = "d/".repeat(1999) + "d";
    let entries =
        [dir(&deep), symlink("l", &link), dir(Box::leak(format!("l/{deep}").into_boxed_str())), file("d", "flat")];
    bench.safely("deep", &tar(&entries)).unwrap();
    assert_eq!(fs::read_to_string(bench.layer().join("d")).unwrap(), "flat");
}

/// Loads an archive that must be refused, and compares the store.
fn refused(store: &Store, temp: &Temp, name: &str, archive: &[u8], reason: &str) {
    let before = state(store);
    let error = store.load(temp.input("bad.tar", archive), &options()).expect_err(name);
    assert!(matches!(error, Error::Refused { .. } | Error::NotAnImage { .. }), "{name}: {error:?}");
    let text = error.to_string();
    assert!(text.contains(reason) && text.contains("bad.tar"), "{name}: {text}");
    assert!(text.lines().count() == 1, "{name}: one line: {text}");
    assert_eq!(state(store), before, "{name}: the store has changed");
}

#[test]
fn damaged_and_forged_images_are_refused_and_the_store_is_as_before() {
    let temp = Temp::new();
    let store = temp.store();
    let layers = [tar(&[file("a", "1")]), tar(&[file("b", "2")])];
    let good = docker_old(&[tar(&[file("good", "1")])], &["good:1"]);
    store.load(temp.input("good.tar", &pack(&good)), &options()).unwrap();

    let docker = || docker_old(&layers, &["x:1"]);
    let manifest = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut members = docker();
        let mut manifest = serde_json::from_slice(&members["manifest.json"]).unwrap();
        change(&mut manifest);
        members.insert("manifest.json".into(), manifest.to_string().into_bytes());
        pack(&members)
    };
    let oci = || oci(&layers, "x:1", gzip);
    let swap = |mut members: Members, name: &str, bytes: &[u8]| {
        assert!(members.contains_key(name));
        members.insert(name.to_owned(), bytes.to_vec());
        pack(&members)
    };
    let blob_of =
        |members: &Members, bytes: &[u8]| members.iter().find(|(_, data)| data.as_slice() == bytes).unwrap().0.clone();
    let changed = |members: Members, name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = members[name].clone();
        change(&mut bytes);
        swap(members, name, &bytes)
    };
    let deep = "[".repeat(100_000);
    let layer_blob = blob_of(&oci(), &gzip(&layers[1]));
    let config_name = blob_of(&docker(), &config(&layers, json!({"Cmd": ["sh"]})));
    let index = |value: serde_json::Value| swap(oci(), "index.json", value.to_string().as_bytes());
    let descriptor = |digest: &str| json!({"mediaType": MANIFEST, "digest": digest, "size": 1});
    let both = {
        let mut members = Members::new();
        let mut manifest = serde_json::from_slice::<serde_json::Value>(
            &oci().iter().find(|(_, data)| data.starts_with(b"{\"config\"")).unwrap().1.clone(),
        )
        .unwrap();
        manifest["manifests"] = json!([]);
        let descriptor = blob(&mut members, MANIFEST, manifest.to_string().into_bytes());
        support::index(&mut members, &[descriptor]);
        pack(&members)
    };
    let many: Vec<Vec<u8>> = (0..128).map(|n| tar(&[file("n", &n.to_string())])).collect();
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no tar", b"hello".repeat(1000), "not a tar"),
        ("empty file", vec![], "end marker"),
        ("no image", tar(&[file("etc/passwd", "x")]), "use import"),
        ("truncated", pack(&docker())[..3000].to_vec(), "truncated"),
        ("truncated gzip", gzip(&pack(&docker()))[..300].to_vec(), "truncated"),
        ("manifest.json is no JSON", swap(docker(), "manifest.json", b"{"), "bad JSON"),
        ("manifest.json too deep", swap(docker(), "manifest.json", deep.as_bytes()), "bad JSON"),
        ("manifest.json too large", swap(docker(), "manifest.json", &vec![b' '; 5 << 20]), "limit"),
        ("manifest.json null", swap(docker(), "manifest.json", b"null"), "bad JSON"),
        ("no images in it", swap(docker(), "manifest.json", b"[]"), "no image"),
        ("config missing", manifest(&|m| m[0]["Config"] = "no.json".into()), "missing"),
        ("config outside", manifest(&|m| m[0]["Config"] = "../../etc/passwd".into()), "leads out"),
        ("config null", manifest(&|m| m[0]["Config"] = json!(null)), "bad JSON"),
        ("layers null", manifest(&|m| m[0]["Layers"] = json!(null)), "2 layers, but the archive has 0"),
        ("one layer fewer", manifest(&|m| drop(m[0]["Layers"].as_array_mut().unwrap().pop())), "but the archive has 1"),
        ("layers swapped", manifest(&|m| m[0]["Layers"].as_array_mut().unwrap().reverse()), "damaged, or of another"),
        ("layer missing", manifest(&|m| m[0]["Layers"][0] = "no/layer.tar".into()), "missing"),
        ("layer is a number", manifest(&|m| m[0]["Layers"][0] = 1.into()), "bad JSON"),
        ("bad tag", manifest(&|m| m[0]["RepoTags"][0] = "../x:1".into()), "invalid image name"),
        ("tag with a newline", manifest(&|m| m[0]["RepoTags"][0] = "a\nb:1".into()), "invalid image name"),
        ("config changed", changed(docker(), &config_name, &|bytes| bytes.push(b' ')), "digest"),
        ("config deep", manifest(&|m| m[0]["Config"] = "manifest.json".into()), "configuration"),
        ("index null", index(json!({"schemaVersion": 2, "manifests": null})), "bad JSON"),
        ("index with layers", index(json!({"schemaVersion": 2, "manifests": [], "layers": []})), "at once"),
        ("index empty", index(json!({"schemaVersion": 2, "manifests": []})), "no image"),
        ("digest with ..", index(json!({"schemaVersion": 2, "manifests": [descriptor("sha256:../../x")]})), "JSON"),
        ("unknown algorithm", index(json!({"schemaVersion": 2, "manifests": [descriptor("md5:00")]})), "index.json"),
        (
            "blob missing",
            index(json!({"schemaVersion": 2, "manifests": [descriptor(&format!("sha256:{}", "0".repeat(64)))]})),
            "missing",
        ),
        ("index and manifest at once", both, "at once"),
        ("layer blob flipped", changed(oci(), &layer_blob, &|bytes| *bytes.last_mut().unwrap() ^= 1), "sha256"),
        ("layer blob longer", changed(oci(), &layer_blob, &|bytes| bytes.push(0)), "bytes, not"),
        ("layer blob cut", changed(oci(), &layer_blob, &|bytes| bytes.truncate(bytes.len() - 1)), "bytes, not"),
        ("128 layers", pack(&docker_old(&many, &["x:1"])), "127 layers"),
        ("128 OCI layers", pack(&support::oci(&many, "x:1", gzip)), "127 layers"),
        ("a hostile layer", pack(&docker_old(&[tar(&[file("../x", "")])], &["x:1"])), "../x: its name leads out"),
    ];
    for (name, archive, reason) in table {
        refused(&store, &temp, name, &archive, reason);
    }
    // The same image is taken when it is whole.
    store.load(temp.input("x.tar", &pack(&docker())), &options()).unwrap();
}

#[test]
fn one_bad_layer_among_many_refuses_the_image_whole() {
    let temp = Temp::new();
    let store = temp.store();
    let mut layers: Vec<Vec<u8>> = (0..20).map(|n| tar(&[file("n", &n.to_string())])).collect();
    layers[13] = tar(&[file("fine", ""), hardlink("a", "/etc/shadow")]);
    refused(&store, &temp, "layer 13", &pack(&docker_old(&layers, &["x:1"])), "/etc/shadow");
}

#[test]
fn a_folder_as_image_cannot_lead_to_files_outside() {
    let temp = Temp::new();
    let store = temp.store();
    let members = oci(&[tar(&[file("a", "1")])], "x:1", gzip);
    let folder = temp.0.join("oci");
    for (name, bytes) in &members {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let outside = temp.file("outside", &members["index.json"]);
    let before = state(&store);
    let index = folder.join("index.json");
    let load = || store.load(images::Input::Dir(folder.clone()), &options());
    fs::remove_file(&index).unwrap();
    std::os::unix::fs::symlink(&outside, &index).unwrap();
    assert!(load().unwrap_err().to_string().contains("leads out"));
    fs::remove_file(&index).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &index, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(load().unwrap_err().to_string().contains("not a file"));
    assert_eq!(state(&store), before);
    fs::remove_file(&index).unwrap();
    fs::write(&index, &members["index.json"]).unwrap();
    load().unwrap();
}

/// A small generator of numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }
}

#[test]
fn no_order_of_entries_reaches_out_of_the_layer() {
    let bench = Bench::new();
    let canary = bench.temp.0.join("canary").display().to_string();
    let target = format!("{canary}/file");
    let names = [
        "a",
        "b",
        "a/b",
        "b/a",
        "a/file",
        "b/file",
        "a/b/file",
        "file",
        "./",
        ".wh.a",
        "a/.wh.b",
        "b/.wh..wh..opq",
        "a/.wh.file",
        "../file",
        "a/../b",
        "/a",
        &canary[1..],
        &target[1..],
    ];
    let links = ["a", "b", "..", "../..", "../../canary", "../file", "/", "/a", "a/b", &canary, &target, "."];
    let before = bench.outside();
    let mut taken = 0;
    for seed in 1..=200u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let entries: Vec<E<'_>> = (0..12)
            .map(|_| E {
                kind: [b'0', b'0', b'1', b'2', b'2', b'5', b'6'][dice.roll(7)],
                link: dice.pick(&links).as_bytes(),
                mode: [0o644, 0o755, 0o4777, 0][dice.roll(4)],
                owner: (dice.roll(3) as u64, 0),
                ..e(b'0', dice.pick(&names))
            })
            .map(|entry| if entry.kind == b'0' { E { data: b"evil", ..entry } } else { entry })
            .collect();
        // An archive that is refused half way has shown as much; go on in what is there, so that seeds add up.
        for entry in &entries {
            taken += usize::from(bench.unpack(&tar(std::slice::from_ref(entry))).is_ok());
        }
        assert_eq!(bench.outside(), before, "seed {seed} reached out");
    }
    assert!(taken > 1000, "the generator makes too little that is taken: {taken}");
}

#[test]
fn random_damage_never_panics() {
    let bench = Bench::new();
    let capability: &[u8] = b"SCHILY.xattr.security.capability";
    let ping: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let long = "n".repeat(200);
    let entries = [
        dir("d"),
        E { pax: vec![(capability, ping), (b"mtime", b"1.5")], ..file("d/a", "0123456789") },
        hardlink("d/b", "d/a"),
        symlink("l", "d"),
        file(&long, "x"),
    ];
    let mut whole: Vec<u8> = entries.iter().flat_map(entry).collect();
    whole.extend(sparse(4096, &[(0, 3), (512, 4)], &[b'x'; 7]));
    let (mut taken, mut refused) = (0, 0);
    for seed in 1..=1000u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bytes = whole.clone();
        for _ in 0..=dice.roll(3) {
            let at = dice.roll(bytes.len());
            bytes[at] = [0, 0xff, 0x80, b'0', b'7', b'/', dice.roll(256) as u8][dice.roll(7)];
        }
        // Mend the checksums, or nearly all damage would end there.
        for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
        if dice.roll(4) == 0 {
            bytes.truncate(dice.roll(bytes.len()));
        }
        match bench.unpack(&bytes) {
            Ok(()) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(taken > 100 && refused > 100, "{taken} taken, {refused} refused");
}
