//! State on disk of other versions of minidock: read, used, kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::path::PathBuf;

use host::TestHost;
use serde_json::{Value, json};

fn state(path: &PathBuf) -> Value {
    serde_json::from_str(&host::read(path)).unwrap()
}

fn path_of(host: &TestHost, id: &str, file: &str) -> PathBuf {
    host.root.join("containers").join(id).join(file)
}

/// The files in tests/versions were written by minidock 0c82ff7, the first that ran containers. Only its image and what
/// it runs are other ones here.
#[test]
fn a_container_of_the_first_version_is_listed_started_stopped_and_removed() {
    let host = TestHost::new();
    let young = host.minidock(&["create", "--name", "young", "busybox", "true"]).ok().out();
    let young = state(&path_of(&host, &young, "state.json"));
    let fixture = |name: &str| {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/versions").join(name);
        host::read(path).replace("@ROOT@", host.root.to_str().unwrap())
    };
    let mut old: Value = serde_json::from_str(&fixture("first.state.json")).unwrap();
    let id = old["id"].as_str().unwrap().to_string();
    old["image_id"] = young["image_id"].clone();
    old["layers"] = young["layers"].clone();
    old["request"]["command"] = json!(["sh", "-c", "echo here; exec sleep 1000"]);
    for folder in ["upper", "work", "merged"] {
        std::fs::create_dir_all(path_of(&host, &id, folder)).unwrap();
    }
    let journal = fixture("first.journal").replace(
        "sha256:dd4f0aaa883e21eb5b707054dd2a64dad55bb4a91799cc6deaf624d85d0925c9",
        young["image_id"].as_str().unwrap(),
    );
    std::fs::write(path_of(&host, &id, "journal"), journal).unwrap();
    std::fs::write(path_of(&host, &id, "state.json"), old.to_string()).unwrap();
    std::os::unix::fs::symlink(&id, host.root.join("names/web")).unwrap();

    let list = host.minidock(&["ps", "-a", "--format", "{{.Names}} {{.Status}}", "--filter", "name=web"]).ok().out();
    assert!(list.starts_with("web Exited (137)"), "{list}");
    assert_eq!(host.inspect("web", "{{.State.Status}} {{.HostConfig.Memory}}"), "exited 67108864");
    host.minidock(&["start", "web"]).ok();
    host::wait_until("it runs", || host.minidock(&["logs", "web"]).out() == "here");
    assert_eq!(host.minidock(&["port", "web"]).ok().out(), "80/tcp -> 0.0.0.0:10080");
    assert_eq!(host.minidock(&["exec", "web", "echo", "hi"]).ok().out(), "hi");
    host.minidock(&["stop", "-t", "0", "web"]).ok();
    assert!(state(&path_of(&host, &id, "state.json")).get("attachment").is_none(), "written as today");
    host.minidock(&["rm", "web", "young"]).ok();
    assert!(!host.root.join("containers").join(&id).exists());
    host.finish();
}

#[test]
fn fields_of_another_version_are_kept_at_every_level() {
    let host = TestHost::new();
    let id = host.detached(&["--name", "box", "--label", "a=b", "busybox", "sleep", "1000"]);
    host.minidock(&["stop", "-t", "0", "box"]).ok();
    let path = path_of(&host, &id, "state.json");
    let mut written = state(&path);
    let places = ["", "/config", "/request", "/request/limits", "/request/network", "/attachments/0"];
    for place in places {
        let part = written.pointer_mut(place).unwrap_or_else(|| panic!("{place} of {}", host::read(&path)));
        part["from_the_future"] = json!({ "at": place });
    }
    written["version"] = json!(3);
    std::fs::write(&path, written.to_string()).unwrap();
    let kept = |after: &str, places: &[&str]| {
        let now = state(&path);
        for place in places {
            assert_eq!(now.pointer(place).unwrap()["from_the_future"]["at"], *place, "after {after}: {now}");
        }
        assert_eq!(now["version"], 3, "after {after}");
    };
    host.minidock(&["rename", "box", "renamed"]).ok();
    kept("rename", &places);
    host.minidock(&["update", "--restart", "on-failure", "--cpu-shares", "512", "renamed"]).ok();
    kept("update", &places);
    host.minidock(&["start", "renamed"]).ok();
    // Where it is in its network belongs to a run.
    let lasting = &places[..5];
    kept("start", lasting);
    host.minidock(&["update", "-m", "64m", "renamed"]).ok();
    host.minidock(&["pause", "renamed"]).ok();
    host.minidock(&["unpause", "renamed"]).ok();
    kept("update and pause while it runs", lasting);
    host.minidock(&["stop", "-t", "0", "renamed"]).ok();
    kept("stop", lasting);
    assert_eq!(host.inspect("renamed", "{{.HostConfig.CpuShares}} {{.HostConfig.Memory}}"), "512 67108864");
    host.minidock(&["rm", "renamed"]).ok();
    host.finish();
}

#[test]
fn what_a_newer_version_wrote_is_refused_with_the_reason_and_only_removed_by_force() {
    let host = TestHost::new();
    let id = host.minidock(&["create", "--name", "new", "busybox", "true"]).ok().out();
    let path = path_of(&host, &id, "state.json");
    let mut written = state(&path);
    written["version"] = json!(9);
    written["status"] = json!("dreaming");
    std::fs::write(&path, written.to_string()).unwrap();
    host.minidock(&["start", "new"]).exits(1).says(&["was written by a newer minidock (format 9"]);
    host.minidock(&["rm", "new"]).exits(1).says(&["newer minidock"]);
    host.minidock(&["ps", "-a"]).ok().says(&["newer minidock", "rm -f"]);
    assert_eq!(state(&path), written, "nobody has touched it");
    assert_eq!(host.minidock(&["rm", "-f", "new"]).ok().out(), "new");
    host.minidock(&["create", "--name", "new", "busybox", "true"]).ok();
    host.minidock(&["rm", "new"]).ok();

    for (what, make, file, read) in [
        ("volume", vec!["volume", "create", "vv"], "volumes/vv/volume.json", vec!["volume", "inspect", "vv"]),
        ("network", vec!["network", "create", "lan"], "networks/lan.json", vec!["network", "inspect", "lan"]),
    ] {
        host.minidock(&make).ok();
        let path = host.root.join(file);
        let before = host::read(&path);
        let mut written = state(&path);
        assert_eq!(written["version"], 1, "{what}");
        written["version"] = json!(9);
        std::fs::write(&path, written.to_string()).unwrap();
        host.minidock(&read).exits(1).says(&["newer minidock"]);
        std::fs::write(&path, before).unwrap();
    }
    host.minidock(&["volume", "rm", "vv"]).ok();
    host.minidock(&["network", "rm", "lan"]).ok();
    let version = host.root.join("images/version");
    let before = host::read(&version);
    std::fs::write(&version, r#"{"version":9}"#).unwrap();
    host.minidock(&["images"]).exits(1).says(&["newer minidock"]);
    std::fs::write(&version, before).unwrap();
    host.finish();
}

#[test]
fn a_running_container_with_a_damaged_state_is_ended_by_what_its_journal_says() {
    let host = TestHost::new();
    let flags = ["--restart", "always", "-p", "10080:80", "-v", "/anonymous", "busybox", "sleep", "1000"];
    for (name, damage) in [("cut", &b"{\"version\":1,"[..]), ("newer", b"{\"version\":9}"), ("empty", b"")] {
        let id = host.detached(&[&["--name", name][..], &flags].concat());
        let (pid, monitor) = (host.pid(name), host.monitor(name));
        std::fs::write(path_of(&host, &id, "state.json"), damage).unwrap();
        host.minidock(&["rm", name]).exits(1).says(&["rm -f"]);
        host.minidock(&["stop", name]).exits(1).says(&["rm -f"]);
        assert_eq!(host.minidock(&["rm", "-f", "-v", name]).ok().out(), name);
        let gone = || [pid, monitor].iter().all(|pid| !PathBuf::from(format!("/proc/{pid}")).exists());
        host::wait_until("its processes are gone", gone);
    }
    assert_eq!(host.minidock(&["volume", "ls", "-q"]).ok().out(), "");
    host.finish();
}

#[test]
fn every_file_has_a_version() {
    let host = TestHost::new();
    let id = host.detached(&["--name", "box", "-v", "vol:/v", "busybox", "sleep", "1000"]);
    let first_line =
        |path: PathBuf| -> Value { serde_json::from_str(host::read(path).lines().next().unwrap()).unwrap() };
    for (file, field) in [
        (path_of(&host, &id, "state.json"), "version"),
        (path_of(&host, &id, "journal"), "minidock_journal"),
        (path_of(&host, &id, "config.json"), "ociVersion"),
        (host.root.join("volumes/vol/volume.json"), "version"),
        (host.root.join("images/version"), "version"),
        (host.root.join("run/events.jsonl"), "version"),
    ] {
        assert!(!first_line(file.clone())[field].is_null(), "{}", file.display());
    }
    host.remove(&["box"]);
    host.minidock(&["volume", "rm", "vol"]).ok();
    host.finish();
}

/// An earlier minidock reads states without ranges, and must not take the first port of a range for all of them.
#[test]
fn ranges_of_ports_have_a_format_of_their_own_and_older_ones_are_read() {
    let host = TestHost::new();
    let id = |name: &str| host.inspect(name, "{{.Id}}");
    host.detached(&["--name", "plain", "-p", "0.0.0.0:8000:80", "-p", "0.0.0.0:8002:82", "busybox", "sleep", "1000"]);
    let plain = path_of(&host, &id("plain"), "state.json");
    assert_eq!(state(&plain)["version"], 1);
    host.remove(&["plain"]);

    host.detached(&["--name", "many", "-p", "0.0.0.0:8000-8009:9000-9009", "busybox", "sleep", "1000"]);
    let many = path_of(&host, &id("many"), "state.json");
    let written = state(&many);
    assert_eq!(written["version"], 2, "{written}");
    // What format 1 looks for in an entry, as its reader fails without.
    for list in ["/attachments/0/ports/0", "/request/network/publish/0"] {
        let entry = written.pointer(list).unwrap();
        assert_eq!((&entry["count"], entry.get("protocol")), (&json!(10), None), "{entry}");
    }
    host.minidock(&["stop", "-t", "0", "many"]).ok();
    // As a range was written without the number, and as each port was written by itself.
    let mut between = state(&many);
    let mut first = between.clone();
    for list in ["/attachments/0/ports", "/request/network/publish"] {
        let entry = between.pointer(list).unwrap()[0].clone();
        let flat = |count: u64, nth: u64| {
            let mut one = entry["first"].clone();
            for key in ["host_port", "container_port"] {
                if let Some(port) = one.get(key).and_then(Value::as_u64) {
                    one[key] = json!(port + nth);
                }
            }
            if let Some(port) = one.pointer("/host/Fixed").and_then(Value::as_u64) {
                one["host"]["Fixed"] = json!(port + nth);
            }
            if count > 1 {
                one["count"] = json!(count);
            }
            one
        };
        *between.pointer_mut(list).unwrap() = json!([flat(10, 0)]);
        *first.pointer_mut(list).unwrap() = (0..10).map(|nth| flat(1, nth)).collect();
    }
    for mut old in [between, first] {
        old["version"] = json!(1);
        std::fs::write(&many, old.to_string()).unwrap();
        host.minidock(&["start", "many"]).ok();
        let ports = host.minidock(&["port", "many"]).ok().out();
        assert!(ports.lines().count() == 10 && ports.contains("9009/tcp -> 0.0.0.0:8009"), "{ports}");
        assert_eq!(state(&many)["version"], 2, "written as today");
        host.minidock(&["stop", "-t", "0", "many"]).ok();
    }
    host.remove(&["many"]);
    host.finish();
}
