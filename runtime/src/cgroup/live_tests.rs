//! The kernel's side, with groups of their own below the top of each hierarchy. Needs root; runs on every layout
//! (`vmtest`: copy the test binary, run it with the filter `live`).

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use oci_spec::runtime::LinuxResources;

use super::{Attach, Home, Layout, Op, Request, Residue, Undone, apply, attach, explain_attach, file, plan, undo};
use crate::defaults;

/// A container's groups that are removed at the end, whatever happens.
struct Groups {
    ops: Vec<Op>,
}

impl Groups {
    fn plan(test: &str, id: &str, resources: &LinuxResources) -> Groups {
        let parent = format!("mdtest-{test}-{}", std::process::id());
        let mount = std::env::temp_dir().join(&parent);
        let request = Request {
            id,
            parent: &parent,
            resources: Some(resources),
            net_cls: None,
            class_way: super::ClassWay::NetCls,
            net_cls_mount: &mount,
        };
        Groups { ops: plan(&request, &Layout::read().unwrap()).unwrap() }
    }

    fn residues(&self) -> Vec<Residue> {
        self.ops.iter().rev().filter_map(Op::residue).collect()
    }

    fn attach(&self) -> Attach {
        attach(&self.ops)
    }

    fn is_gone(&self) -> bool {
        self.ops
            .iter()
            .filter(|op| matches!(op, Op::Create { .. } | Op::Parent { .. }))
            .all(|op| !file::exists(op.path()))
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        undo(&self.residues());
    }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// Starts a shell that enters the groups by the explained commands, then runs a script.
fn start(attach: &Attach, script: &str) -> Child {
    let enter: String = explain_attach(attach).iter().map(|(line, _)| line.replace("$pid", "$$") + "\n").collect();
    let script = format!("set -e\n{enter}{script}");
    Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn run(attach: &Attach, script: &str) -> (bool, String) {
    let output = start(attach, script).wait_with_output().unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    )
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::yield_now();
    }
}

/// Every limit that this host can keep.
fn all_limits() -> LinuxResources {
    let layout = Layout::read().unwrap();
    let has = |controller: &str| layout.home(controller).is_some();
    let mut parts = Vec::new();
    if has("memory") {
        let swap = if layout.has_swap_limit() { r#","swap":134217728"# } else { "" };
        parts.push(format!(r#""memory":{{"limit":67108864,"reservation":33554432{swap}}}"#));
    }
    let cpuset = if has("cpuset") { r#","cpus":"0","mems":"0""# } else { "" };
    if has("cpu") {
        parts.push(format!(r#""cpu":{{"shares":512,"quota":50000,"period":100000{cpuset}}}"#));
    }
    if has("pids") {
        parts.push(r#""pids":{"limit":20}"#.to_owned());
    }
    let mut all = resources(&format!("{{{}}}", parts.join(",")));
    all.set_devices(Some(defaults::device_rules()));
    all
}

#[test]
fn live_explained_commands_do_the_same_as_apply() {
    let limits = all_limits();
    let ours = Groups::plan("explain", "applied", &limits);
    let theirs = Groups::plan("explain", "typed", &limits);
    apply(&ours.ops).unwrap();
    let script: String = theirs.ops.iter().flat_map(Op::explain).map(|(line, _)| line + "\n").collect();
    let output = Command::new("sh").args(["-e", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut compared = 0;
    for (one, other) in ours.ops.iter().zip(&theirs.ops) {
        let files: Vec<(PathBuf, PathBuf)> = match one {
            Op::Write { path, .. } => vec![(path.clone(), other.path().to_owned())],
            Op::DeviceRules { path, .. } => {
                vec![(path.join("devices.list"), other.path().join("devices.list"))]
            }
            _ => Vec::new(),
        };
        for (one, other) in files {
            assert_eq!(fs::read_to_string(&one).unwrap(), fs::read_to_string(&other).unwrap(), "{}", one.display());
            compared += 1;
        }
    }
    assert!(compared >= 3, "{compared}");
}

#[test]
fn live_limits_are_read_back() {
    let layout = Layout::read().unwrap();
    let groups = Groups::plan("values", "a", &all_limits());
    apply(&groups.ops).unwrap();
    let parent = format!("mdtest-values-{}", std::process::id());
    let value = |controller: &str, v1: &str, v2: &str| {
        let (top, name) = match layout.home(controller)? {
            Home::V1(v1_home) => (&v1_home.mount, v1),
            Home::V2(v2_home) => (&v2_home.mount, v2),
        };
        Some(fs::read_to_string(top.join(&parent).join("a").join(name)).unwrap().trim().to_owned())
    };
    for (controller, v1, v2, wanted) in [
        ("memory", "memory.limit_in_bytes", "memory.max", ["67108864", "67108864"]),
        ("memory", "memory.soft_limit_in_bytes", "memory.low", ["33554432", "33554432"]),
        ("pids", "pids.max", "pids.max", ["20", "20"]),
        ("cpu", "cpu.shares", "cpu.weight", ["512", "20"]),
        ("cpu", "cpu.cfs_quota_us", "cpu.max", ["50000", "50000 100000"]),
        ("cpuset", "cpuset.cpus", "cpuset.cpus", ["0", "0"]),
    ] {
        if let Some(there) = value(controller, v1, v2) {
            assert!(wanted.contains(&there.as_str()), "{controller} {v1}: {there}");
        }
    }
}

#[test]
fn live_device_rules_hold() {
    let groups = Groups::plan("devices", "a", &all_limits());
    apply(&groups.ops).unwrap();
    let node = std::env::temp_dir().join(format!("mdtest-devices-{}", std::process::id()));
    let script = format!(
        "cat /dev/null; head -c 1 /dev/urandom >/dev/null; echo x >/dev/null\nmknod {0} b 7 0; rm {0}\n\
        if head -c 1 /dev/kmsg >/dev/null; then echo kmsg opened; exit 1; fi\nif sh -c 'exec 3<>/dev/kmsg'; then echo kmsg opened; exit 1; fi",
        node.display()
    );
    let (good, output) = run(&groups.attach(), &script);
    assert!(good && output.matches("Operation not permitted").count() == 2, "{output}");
}

/// The eBPF form on every host with cgroup2, also where the devices controller is a v1 one.
#[test]
fn live_the_kernel_takes_the_device_program() {
    let Some(v2) = Layout::read().unwrap().v2 else {
        return;
    };
    let name = format!("mdtest-program-{}", std::process::id());
    let path = v2.mount.join(&name).join("a");
    let rules = super::devices::parse(&defaults::device_rules()).unwrap();
    let ops = vec![
        Op::Parent { path: v2.mount.join(&name) },
        Op::Create { path: path.clone(), controllers: Vec::new(), group: format!("{name}/a") },
        Op::DeviceProgram { path, rules },
    ];
    let groups = Groups { ops };
    apply(&groups.ops).unwrap();
    let script = "cat /dev/null; echo x >/dev/null; if sh -c 'exec 3</dev/kmsg'; then echo kmsg opened; exit 1; fi";
    let (good, output) = run(&groups.attach(), script);
    assert!(good && output.contains("Operation not permitted"), "{output}");
}

#[test]
fn live_the_pids_limit_is_felt() {
    let groups = Groups::plan("pids", "a", &resources(r#"{"pids":{"limit":5}}"#));
    apply(&groups.ops).unwrap();
    let (_, output) =
        run(&groups.attach(), "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 >/dev/null 2>&1 & done; echo all started");
    assert!(!output.contains("all started") && output.to_lowercase().contains("fork"), "{output}");
    assert!(undo(&groups.residues()).iter().all(|result| matches!(result, Ok(Undone::Removed))));
    assert!(groups.is_gone());
}

#[test]
fn live_what_is_left_is_killed_and_removed() {
    let groups = Groups::plan("kill", "a", &all_limits());
    apply(&groups.ops).unwrap();
    // A group made by the container itself, deep, with processes in it, that ignore everything but SIGKILL.
    let inner: Vec<PathBuf> = super::groups(&groups.ops).into_iter().map(|group| group.path).collect();
    let mut script = "trap '' TERM INT HUP\n".to_owned();
    for folder in &inner {
        script += &format!("mkdir -p {0}/in/in/in {0}/in/other\n", folder.display());
    }
    // v1 lets a process sit in an inner group at once; on cgroup2 too, as none of these passes controllers on. A v1
    // cpuset group would need its lists first.
    for folder in inner.iter().filter(|folder| !folder.join("cpuset.memory_migrate").exists()) {
        script += &format!("(echo 0 > {}/in/in/in/cgroup.procs; exec sleep 1000) &\n", folder.display());
    }
    script += "(setsid sleep 1000) & (setsid sleep 1000) &\necho ready\nwait";
    let mut child = start(&groups.attach(), &script);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let results = undo(&groups.residues());
    assert!(results.iter().all(|result| matches!(result, Ok(Undone::Removed))), "{results:?}");
    assert!(groups.is_gone());
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    // Again: nothing there, no error.
    assert!(undo(&groups.residues()).iter().all(|result| matches!(result, Ok(Undone::NotThere))));
}

#[test]
fn live_v1_kills_by_the_list_of_processes() {
    let layout = Layout::read().unwrap();
    let Some(v1) = layout.v1.iter().find(|v1| v1.controllers.iter().any(|name| name == "pids" || name == "freezer"))
    else {
        return;
    };
    let name = format!("mdtest-v1kill-{}", std::process::id());
    let ops = vec![
        Op::Parent { path: v1.mount.join(&name) },
        Op::Create {
            path: v1.mount.join(&name).join("a"),
            controllers: v1.controllers.clone(),
            group: format!("{name}/a"),
        },
    ];
    let groups = Groups { ops };
    apply(&groups.ops).unwrap();
    let mut child =
        start(&groups.attach(), "trap '' TERM\nfor i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done\necho ready\nwait");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let results = undo(&groups.residues());
    assert!(results.iter().all(|result| matches!(result, Ok(Undone::Removed))), "{results:?}");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn live_starts_and_ends_at_the_same_moment_share_the_parent() {
    let limits = all_limits();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let limits = &limits;
            scope.spawn(move || {
                for round in 0..25 {
                    let groups = Groups::plan("race", &format!("w{worker}r{round}"), limits);
                    apply(&groups.ops).unwrap();
                    let results = undo(&groups.residues());
                    assert!(results.iter().all(|result| matches!(result, Ok(Undone::Removed))), "{results:?}");
                }
            });
        }
    });
    let last = Groups::plan("race", "last", &limits);
    until("the parent to go", || last.is_gone());
}

#[test]
fn live_a_group_of_another_is_neither_taken_nor_removed() {
    let groups = Groups::plan("others", "a", &resources("{}"));
    apply(&groups.ops).unwrap();
    let error = apply(&groups.ops).unwrap_err().to_string();
    assert!(error.contains("exists already") && error.contains("rmdir"), "{error}");
    let path = groups.ops.last().unwrap().path().to_owned();
    let elsewhere = std::env::temp_dir().join(format!("mdtest-others-{}", std::process::id())).join("a");
    fs::create_dir_all(&elsewhere).unwrap();
    let parent = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
    for (path, group) in [
        (path.clone(), "a".to_owned()),
        (path.clone(), "minidock/a".to_owned()),
        (path.clone(), String::new()),
        (path.join("../a"), format!("{parent}/a")),
        (path.parent().unwrap().to_owned(), format!("{parent}/a")),
        (PathBuf::from("/"), "/".to_owned()),
        (elsewhere.clone(), format!("{parent}/a")),
    ] {
        let result = undo(&[Residue::Cgroup { path: path.clone(), group: group.clone() }]);
        assert!(matches!(result[..], [Ok(Undone::NotOurs(_))]), "{path:?} {group}: {result:?}");
    }
    assert!(path.exists() && elsewhere.exists());
    fs::remove_dir_all(elsewhere.parent().unwrap()).unwrap();
}

#[test]
fn live_errors_say_what_to_do() {
    let groups = Groups::plan("errors", "a", &resources(r#"{"pids":{"limit":5}}"#));
    apply(&groups.ops).unwrap();
    let pids = groups.ops.iter().find(|op| op.path().ends_with("pids.max")).unwrap().path().to_owned();
    let write = |path: &Path, value: &str| {
        apply(&[Op::Write { path: path.to_owned(), value: value.to_owned(), why: "--test".to_owned() }])
            .unwrap_err()
            .to_string()
    };
    let error = write(&pids, "x");
    assert!(
        error.contains("\"x\"")
            && error.contains("--test")
            && error.contains("pids.max")
            && error.contains("does not take"),
        "{error}"
    );
    let error = write(&pids.with_file_name("memory.nonsense"), "1");
    assert!(error.contains("no such file for the group"), "{error}");
}

#[test]
fn live_use_is_read_on_every_layout() {
    let layout = Layout::read().unwrap();
    let groups = Groups::plan("stats", "a", &all_limits());
    apply(&groups.ops).unwrap();
    let group = format!("mdtest-stats-{}/a", std::process::id());
    let busy = "x=0; while [ $x -lt 20000 ]; do x=$((x+1)); done; echo ready; sleep 1000 >/dev/null 2>&1";
    let mut child = start(&groups.attach(), busy);
    let mut line = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    until("both processes", || super::stats(&layout, &group).pids == Some(2));
    let now = super::stats(&layout, &group);
    assert_eq!(now.memory_bytes.is_some(), layout.home("memory").is_some(), "{now:?}");
    assert!(now.memory_bytes.is_none_or(|bytes| (10_000..67_108_864).contains(&bytes)), "{now:?}");
    assert!(now.cpu_ns.is_some_and(|ns| ns > 100_000), "{now:?}");
    undo(&groups.residues());
    child.wait().unwrap();
    assert_eq!(super::stats(&layout, &group), super::Stats::default());
}

/// The lecture's file, on whichever hierarchy this host has or on one that is mounted for it.
#[test]
fn live_net_cls_is_written_as_in_the_lecture() {
    let run = || {
        // Mounts made here are seen by this thread alone.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let parent = format!("mdtest-netcls-{}", std::process::id());
        let mount = std::env::temp_dir().join(&parent);
        let mut layout = Layout::read().unwrap();
        layout.writable_top = None;
        let request = Request {
            id: "a",
            parent: &parent,
            resources: None,
            net_cls: Some(0x0001_0010),
            class_way: super::ClassWay::NetCls,
            net_cls_mount: &mount,
        };
        let groups = Groups { ops: plan(&request, &layout).unwrap() };
        apply(&groups.ops).unwrap();
        let file = groups.ops.iter().map(Op::path).find(|path| path.ends_with("net_cls.classid")).unwrap().to_owned();
        assert_eq!(fs::read_to_string(&file).unwrap().trim(), 0x0001_0010.to_string());
        let (good, output) =
            self::run(&groups.attach(), "grep -q mdtest-netcls /proc/self/cgroup && grep net_cls /proc/self/cgroup");
        assert!(good && output.contains(&parent), "{output}");
        let results = undo(&groups.residues());
        assert!(results.iter().all(|result| matches!(result, Ok(Undone::Removed))), "{results:?}");
        assert!(!file.exists() && !mount.exists());
    };
    std::thread::spawn(run).join().unwrap();
}
