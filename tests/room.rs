//! What takes room and how it is given back: `images` and its filters, `history`, `system df`, the prunes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use host::{TestHost, images, wait_until};
use serde_json::json;

/// Loads an image of busybox's rootfs and one more layer with a file of this many bytes.
fn load(host: &TestHost, name: &str, bytes: usize, labels: serde_json::Value) {
    let layer = images::Layer::new()
        .file(&format!("{}-file", name.replace([':', '/'], "-")), 0o644, &vec![b'x'; bytes])
        .bytes();
    let config = json!({ "Env": [format!("PATH={}", images::PATH)], "Cmd": ["sh"], "Labels": labels });
    let archive = images::docker_archive(&[images::rootfs(), layer], config, &[name]);
    host.command(&["load", "-q"]).input(archive).run().ok();
}

fn names(host: &TestHost, args: &[&str]) -> Vec<String> {
    let all = [&["images", "--format", "{{.Repository}}:{{.Tag}}"], args].concat();
    let mut names: Vec<String> = host.minidock(&all).ok().out().lines().map(String::from).collect();
    names.sort();
    names
}

#[test]
fn images_are_filtered_as_docker_filters_them() {
    let host = TestHost::new();
    load(&host, "lab/one:1", 10, json!({ "owner": "a" }));
    load(&host, "lab/one:2", 20, json!({ "owner": "b" }));
    assert_eq!(names(&host, &[]), ["busybox:latest", "lab/one:1", "lab/one:2"]);
    assert_eq!(names(&host, &["lab/one"]), ["lab/one:1", "lab/one:2"]);
    assert_eq!(names(&host, &["-f", "reference=lab/*:1"]), ["lab/one:1"]);
    assert_eq!(names(&host, &["-f", "reference=lab/*"]), ["lab/one:1", "lab/one:2"]);
    assert_eq!(names(&host, &["-f", "reference=*"]), ["busybox:latest"]);
    assert_eq!(names(&host, &["-f", "label=owner"]), ["lab/one:1", "lab/one:2"]);
    assert_eq!(names(&host, &["-f", "label=owner=b"]), ["lab/one:2"]);
    assert_eq!(names(&host, &["-f", "dangling=true"]), Vec::<String>::new());
    assert_eq!(names(&host, &["-f", "until=1s"]), ["busybox:latest", "lab/one:1", "lab/one:2"]);
    assert_eq!(names(&host, &["-f", "until=2000-01-01"]), Vec::<String>::new());
    host.minidock(&["images", "-f", "colour=red"]).exits(1).says(&["invalid filter 'colour'"]);
    host.minidock(&["images", "-f", "before=nope"]).exits(1).says(&["nope"]);
    let digests = host.minidock(&["images", "--digests", "busybox"]).ok().out();
    assert!(digests.starts_with("REPOSITORY   TAG       DIGEST    IMAGE ID"), "{digests}");
    // The name moves on: the old image has none any more.
    load(&host, "lab/one:1", 11, json!({}));
    assert_eq!(names(&host, &["-f", "dangling=true"]), ["<none>:<none>"]);
    host.finish();
}

#[test]
fn history_tells_the_steps_with_their_sizes() {
    let host = TestHost::bare();
    let layer = images::Layer::new().file("f", 0o644, &[b'x'; 1000]).bytes();
    host.command(&["import", "-c", "CMD [\"sh\"]", "-m", "from a test", "-", "made:1"]).input(layer).run().ok();
    let table = host.minidock(&["history", "made:1"]).ok().out();
    assert!(table.starts_with("IMAGE          CREATED"), "{table}");
    assert_eq!(host.minidock(&["history", "--format", "{{.Comment}}", "made:1"]).ok().out(), "from a test");
    let id = host.minidock(&["images", "-q", "--no-trunc"]).ok().out();
    assert_eq!(host.minidock(&["history", "-q", "--no-trunc", "made:1"]).ok().out(), id);
    assert_eq!(host.minidock(&["history", "--format", "{{.Size}}", "made:1"]).ok().out(), "1kB");
    assert_eq!(host.minidock(&["history", "-H=false", "--format", "{{.Size}}", "made:1"]).ok().out(), "1000");
    host.minidock(&["history", "nope"]).exits(1).says(&["nope"]);
    host.finish();
}

#[test]
fn system_df_counts_each_layer_once() {
    let host = TestHost::new();
    load(&host, "big:1", 2_000_000, json!({}));
    load(&host, "big:2", 1_000_000, json!({}));
    let of = |kind: &str, field: &str| {
        let all = host.minidock(&["system", "df", "--format", &format!("{{{{.Type}}}}={{{{.{field}}}}}")]).ok().out();
        all.lines().find_map(|line| line.strip_prefix(&format!("{kind}="))).expect("such a line").to_string()
    };
    let table = host.minidock(&["system", "df"]).ok().out();
    assert!(
        table.starts_with("TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\nImages          3         0 "),
        "{table}"
    );
    assert!(table.ends_with("Build Cache     0         0         0B        0B"), "{table}");
    assert!(of("Images", "Reclaimable").ends_with("(100%)"));
    host.detached(&[
        "--name",
        "box",
        "--network",
        "none",
        "-v",
        "vol:/v",
        "big:1",
        "sh",
        "-c",
        "head -c 5000 /dev/zero >/v/f; head -c 3000 /dev/zero >/f; exec sleep 1000",
    ]);
    wait_until("it has written", || of("Containers", "Size") == "3kB");
    assert_eq!((of("Images", "Active"), of("Containers", "Active")), ("1".to_string(), "1".to_string()));
    assert_eq!(of("Containers", "Reclaimable"), "0B (0%)");
    assert_eq!(
        (of("Local Volumes", "Size"), of("Local Volumes", "Reclaimable")),
        ("5kB".to_string(), "0B (0%)".to_string())
    );
    let verbose = host.minidock(&["system", "df", "-v"]).ok().out();
    for part in [
        "Images space usage:\n\nREPOSITORY",
        "Containers space usage:\n\nCONTAINER ID",
        "Local Volumes space usage:\n\nVOLUME NAME   LINKS     SIZE\nvol           1         5kB",
        "Build cache usage: 0B",
    ] {
        assert!(verbose.contains(part), "{part} is not in\n{verbose}");
    }
    let big = verbose.lines().find(|line| line.starts_with("big") && line.contains("2MB")).unwrap();
    assert!(big.ends_with("1"), "{big}");
    host.minidock(&["stop", "-t", "0", "box"]).ok();
    assert_eq!(of("Containers", "Reclaimable"), "3kB (100%)");
    host.remove(&["box"]);
    assert_eq!(of("Local Volumes", "Reclaimable"), "5kB (100%)");
    host.minidock(&["volume", "rm", "vol"]).ok();
    host.finish();
}

#[test]
fn prunes_take_what_is_not_used_and_nothing_else() {
    let host = TestHost::new();
    load(&host, "old:1", 50_000, json!({ "keep": "no" }));
    load(&host, "old:1", 60_000, json!({}));
    host.detached(&["--name", "runs", "--network", "none", "-v", "/used", "busybox", "sleep", "1000"]);
    host.minidock(&["run", "--name", "ended", "--network", "none", "-v", "/anon", "-v", "named:/n", "busybox", "true"])
        .ok();
    let refused = host.command(&["image", "prune"]).input("n").run().ok().out();
    assert!(refused.starts_with("WARNING! This will remove all dangling images.\n"), "{refused}");
    let pruned = host.minidock(&["image", "prune", "-f"]).ok().out();
    assert!(
        pruned.starts_with("Deleted Images:\ndeleted: sha256:") && pruned.ends_with("Total reclaimed space: 50kB"),
        "{pruned}"
    );
    assert_eq!(names(&host, &[]), ["busybox:latest", "old:1"]);
    assert_eq!(
        host.minidock(&["image", "prune", "-af", "--filter", "label=nope"]).ok().out(),
        "Total reclaimed space: 0B"
    );
    let asked = host.command(&["system", "prune", "--volumes"]).input("").run().ok().out();
    for line in [
        "WARNING! This will remove:\n  - all stopped containers\n",
        "  - all networks not used",
        "  - all anonymous volumes",
        "  - all dangling images\n",
    ] {
        assert!(asked.contains(line), "{line} is not in\n{asked}");
    }
    let ended = host.inspect("ended", "{{.Id}}");
    let done = host.minidock(&["system", "prune", "-f"]).ok().out();
    assert!(done.contains(&format!("Deleted Containers:\n{ended}\n\n")) && !done.contains("Deleted Volumes"), "{done}");
    assert_eq!(host.minidock(&["ps", "-aq", "--format", "{{.Names}}"]).ok().out().lines().count(), 1);
    assert_eq!(host.minidock(&["volume", "ls", "-q"]).ok().out().lines().count(), 3);
    let done = host.minidock(&["system", "prune", "-af", "--volumes"]).ok().out();
    assert!(done.contains("Deleted Volumes:\n") && done.contains("untagged: old:1\n"), "{done}");
    assert_eq!(host.minidock(&["volume", "ls", "-q"]).ok().out().lines().count(), 2, "a used and a named volume stay");
    assert_eq!(names(&host, &[]), ["busybox:latest"], "an image in use stays");
    host.minidock(&["system", "prune", "--volumes", "--filter", "until=1h", "-f"]).exits(1).says(&["not supported"]);
    host.minidock(&["rm", "-fv", "runs"]).ok();
    host.minidock(&["volume", "rm", "named"]).ok();
    host.finish();
}
