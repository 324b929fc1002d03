//! Limits: read back in the group's files, and felt by the program. The same tests on v1, v2 and hybrid hosts; where
//! the host has no such controller, the flag is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::time::Instant;

use host::command::Output;
use host::groups::{Version, folder, value, version};
use host::{TestHost, wait_until};

/// Starts a container named `box` with a limit, and false where the host lacks the controller (then it is refused).
fn limited(host: &TestHost, controller: &str, flags: &[&str]) -> bool {
    let run = host.minidock(&[&["run", "-d", "--name", "box"], flags, &["busybox", "sleep", "1000"]].concat());
    refused_without(run, controller, flags)
}

/// Whether it ran; where the controller is missing, it must have been refused by name.
fn refused_without(run: Output, controller: &str, flags: &[&str]) -> bool {
    match version(controller) {
        Some(_) => {
            run.ok();
            true
        }
        None => {
            run.exits(125).says(&[flags[0]]);
            false
        }
    }
}

#[test]
fn memory_limits_are_read_back() {
    let host = TestHost::new();
    if limited(&host, "memory", &["-m", "64m", "--memory-reservation", "32m"]) {
        assert_eq!(value(&host, "box", "memory", "memory.limit_in_bytes", "memory.max"), "67108864");
        assert_eq!(value(&host, "box", "memory", "memory.soft_limit_in_bytes", "memory.low"), "33554432");
        let swap = if version("memory") == Some(Version::V1) {
            ("memory.memsw.limit_in_bytes", "134217728")
        } else {
            ("memory.swap.max", "67108864")
        };
        let file = folder(&host, "box", "memory").join(swap.0);
        if host.host.run(|| file.exists()) {
            assert_eq!(host.host.run(|| host::read(&file)).trim(), swap.1, "as much swap again, as docker gives");
        }
    }
    host.minidock(&["rm", "-f", "box"]);
    host.finish();
}

#[test]
fn memory_and_swap_together_are_read_back() {
    let host = TestHost::new();
    if limited(&host, "memory", &["-m", "64m", "--memory-swap", "96m"]) {
        let (name, expected) = if version("memory") == Some(Version::V1) {
            ("memory.memsw.limit_in_bytes", "100663296")
        } else {
            ("memory.swap.max", "33554432")
        };
        let file = folder(&host, "box", "memory").join(name);
        if host.host.run(|| file.exists()) {
            assert_eq!(host.host.run(|| host::read(&file)).trim(), expected);
        }
    }
    host.minidock(&["rm", "-f", "box"]);
    host.finish();
}

#[test]
fn a_program_over_its_memory_limit_is_killed_with_137() {
    let host = TestHost::new();
    let run =
        host.minidock(&["run", "--name", "box", "-m", "24m", "--memory-swap", "24m", "busybox", "tail", "/dev/zero"]);
    if version("memory").is_some() {
        run.exits(137);
        assert_eq!(host.inspect("box", "{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
    } else {
        run.exits(125).says(&["-m"]);
    }
    host.minidock(&["rm", "-f", "box"]);
    host.finish();
}

#[test]
fn cpu_limits_are_read_back() {
    let host = TestHost::new();
    if limited(&host, "cpu", &["--cpus", "1.5", "--cpu-shares", "512"]) {
        if version("cpu") == Some(Version::V1) {
            assert_eq!(value(&host, "box", "cpu", "cpu.cfs_quota_us", ""), "150000");
            assert_eq!(value(&host, "box", "cpu", "cpu.cfs_period_us", ""), "100000");
            assert_eq!(value(&host, "box", "cpu", "cpu.shares", ""), "512");
        } else {
            assert_eq!(value(&host, "box", "cpu", "", "cpu.max"), "150000 100000");
            let weight: u32 = value(&host, "box", "cpu", "", "cpu.weight").parse().unwrap();
            assert!((20..=59).contains(&weight), "half of the usual share: {weight}"); // runc's old and new conversion
        }
    }
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn cpu_period_and_quota_are_read_back() {
    let host = TestHost::new();
    if limited(&host, "cpu", &["--cpu-period", "50000", "--cpu-quota", "20000"]) {
        if version("cpu") == Some(Version::V1) {
            assert_eq!(value(&host, "box", "cpu", "cpu.cfs_quota_us", ""), "20000");
            assert_eq!(value(&host, "box", "cpu", "cpu.cfs_period_us", ""), "50000");
        } else {
            assert_eq!(value(&host, "box", "cpu", "", "cpu.max"), "20000 50000");
        }
    }
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn a_busy_program_gets_its_cpu_quota_and_no_more() {
    let host = TestHost::new();
    let flags = ["--name", "box", "--cpu-period", "20000", "--cpu-quota", "4000"];
    host.detached(&[&flags[..], &["busybox", "sh", "-c", "while :; do :; done"]].concat());
    let pid = host.pid("box");
    let used = || {
        let stat = host::read(format!("/proc/{pid}/stat"));
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|n| n.parse().unwrap()).collect();
        (fields[0] + fields[1]) as f64 / 100.0 // clock ticks: USER_HZ is 100
    };
    let throttled = || -> u64 {
        let stat = value(&host, "box", "cpu", "cpu.stat", "cpu.stat");
        stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")).unwrap().parse().unwrap()
    };
    let (start, before, periods) = (Instant::now(), used(), throttled());
    wait_until("it has been throttled for a while", || throttled() >= periods + 40 || start.elapsed().as_secs() > 50);
    let share = (used() - before) / start.elapsed().as_secs_f64();
    assert!(throttled() > periods, "it was never throttled");
    assert!(share < 0.30, "a fifth of a CPU was allowed, {share:.2} used");
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn the_cpuset_is_read_back_and_felt() {
    let host = TestHost::new();
    if limited(&host, "cpuset", &["--cpuset-cpus", "0", "--cpuset-mems", "0"]) {
        assert_eq!(value(&host, "box", "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
        assert_eq!(value(&host, "box", "cpuset", "cpuset.mems", "cpuset.mems"), "0");
        assert_eq!(
            host.minidock(&["exec", "box", "grep", "Cpus_allowed_list", "/proc/self/status"]).ok().out(),
            "Cpus_allowed_list:\t0"
        );
        assert_eq!(host.minidock(&["exec", "box", "nproc"]).ok().out(), "1");
        host.minidock(&["run", "--rm", "--cpuset-cpus", "0-99999", "busybox", "true"])
            .exits(125)
            .says(&["--cpuset-cpus"]);
    }
    host.minidock(&["rm", "-f", "box"]);
    host.finish();
}

#[test]
fn the_number_of_processes_is_read_back_and_felt() {
    let host = TestHost::new();
    assert!(limited(&host, "pids", &["--pids-limit", "20"]));
    assert_eq!(value(&host, "box", "pids", "pids.max", "pids.max"), "20");
    host.remove(&["box"]);
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo survived";
    let run = host.minidock(&["run", "--rm", "--pids-limit", "5", "busybox", "sh", "-c", script]);
    assert!(run.code() != 0 && !run.out().contains("survived"), "{}", run.describe());
    run.says(&["can't fork"]);
    host.finish();
}

/// A block device of this machine that can be opened: (node, `major:minor`).
fn disk() -> (String, String) {
    let names = host::residue::names_in(std::path::Path::new("/sys/block"));
    let usable = names.iter().find_map(|name| {
        let number = std::fs::read_to_string(format!("/sys/block/{name}/dev")).ok()?.trim().to_string();
        let node = format!("/dev/{name}");
        std::fs::File::open(&node).is_ok().then_some((node, number))
    });
    usable.expect("the tests need a block device that root can open, such as a loop device")
}

#[test]
fn disk_throttles_are_read_back() {
    let host = TestHost::new();
    let (disk, number) = disk();
    let controller = if version("blkio").is_some() { "blkio" } else { "io" };
    let read = format!("{disk}:1mb");
    let write = format!("{disk}:77");
    if limited(&host, controller, &["--device-read-bps", &read, "--device-write-iops", &write]) {
        if controller == "blkio" {
            assert_eq!(value(&host, "box", "blkio", "blkio.throttle.read_bps_device", ""), format!("{number} 1048576"));
            assert_eq!(value(&host, "box", "blkio", "blkio.throttle.write_iops_device", ""), format!("{number} 77"));
        } else {
            let line = value(&host, "box", "io", "", "io.max");
            assert!(line.starts_with(&number) && line.contains("rbps=1048576") && line.contains("wiops=77"), "{line}");
        }
    }
    host.minidock(&["rm", "-f", "box"]);
    host.finish();
}

#[test]
fn the_disk_weight_is_read_back_or_refused_where_the_kernel_has_none() {
    let host = TestHost::new();
    let controller = if version("blkio").is_some() { "blkio" } else { "io" };
    let run = host.minidock(&["run", "-d", "--name", "box", "--blkio-weight", "300", "busybox", "sleep", "1000"]);
    if run.code() == 0 {
        let group = folder(&host, "box", controller);
        let files = ["blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight"].map(|name| group.join(name));
        let values: Vec<String> =
            host.host.run(|| files.iter().filter_map(|file| std::fs::read_to_string(file).ok()).collect());
        assert!(
            values
                .iter()
                .any(|value| value.trim() == "300" || value.contains("default 300") || value.contains("default 2930")),
            "{values:?}"
        );
    } else {
        run.exits(125).says(&["--blkio-weight"]);
    }
    host.minidock(&["rm", "-f", "box"]);
    host.finish();
}

#[test]
fn net_cls_1_10_reads_back_as_0x00010010() {
    let host = TestHost::new();
    for flag in ["1:10", "0x00010010"] {
        host.detached(&["--name", "box", "--net-cls", flag, "busybox", "sleep", "1000"]);
        assert_eq!(value(&host, "box", "net_cls", "net_cls.classid", ""), "65552", "{flag}"); // the kernel prints decimal
        let group = folder(&host, "box", "net_cls");
        let pid = host.pid("box").to_string();
        let tasks = host.host.run(|| host::read(group.join("tasks")));
        assert!(tasks.lines().any(|task| task == pid), "PID 1 is not in {}: {tasks}", group.display());
        host.remove(&["box"]);
    }
    host.minidock(&["run", "--rm", "--net-cls", "70000:1", "busybox", "true"]).exits(125).says(&["--net-cls"]);
    host.finish();
}

#[test]
fn two_containers_with_net_cls_share_the_mount_and_have_their_own_classes() {
    let host = TestHost::new();
    host.detached(&["--name", "one", "--net-cls", "1:10", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "two", "--net-cls", "1:11", "busybox", "sleep", "1000"]);
    assert_eq!(value(&host, "one", "net_cls", "net_cls.classid", ""), "65552");
    host.remove(&["one"]);
    assert_eq!(value(&host, "two", "net_cls", "net_cls.classid", ""), "65553");
    host.remove(&["two"]);
    host.finish();
}

#[test]
fn a_device_that_is_not_allowed_can_be_named_but_not_opened() {
    let host = TestHost::new();
    let (_, number) = disk();
    let (major, minor) = number.split_once(':').unwrap();
    let script = format!(
        "mknod /tmp/sda b 8 0 && head -c 1 /tmp/sda; mknod /tmp/disk b {major} {minor} && head -c 1 /tmp/disk; \
         mknod /tmp/fuse c 10 229 && head -c 1 /tmp/fuse; mknod /tmp/zero c 1 5 && head -c 3 /tmp/zero | wc -c"
    );
    let run = host.minidock(&["run", "--rm", "busybox", "sh", "-c", &script]).ok();
    assert_eq!(run.out(), "3", "{}", run.describe());
    for name in ["sda", "disk", "fuse"] {
        assert!(run.err().contains(&format!("/tmp/{name}: Operation not permitted")), "{}", run.describe());
    }
    host.finish();
}

#[test]
fn a_device_given_with_device_is_opened_as_allowed() {
    let host = TestHost::new();
    let (disk, _) = disk();
    let script = ": </dev/disk && echo read; (: >>/dev/disk) 2>/dev/null || echo read-only";
    let read_only = host.output_of(&["--device", &format!("{disk}:/dev/disk:r"), "busybox", "sh", "-c", script]);
    assert_eq!(read_only, "read\nread-only");
    let open = ": </dev/fuse && echo opened";
    assert_eq!(host.output_of(&["--device", "/dev/fuse", "busybox", "sh", "-c", open]), "opened");
    let make = format!("[ -e /dev/fuse ] || mknod /dev/fuse c 10 229; {open}");
    assert_eq!(host.output_of(&["--privileged", "busybox", "sh", "-c", &make]), "opened");
    let missing = ["run", "--rm", "--device", "/dev/no-such-device", "busybox", "true"];
    host.minidock(&missing).exits(125).says(&["/dev/no-such-device"]);
    host.finish();
}

#[test]
fn device_rules_hold_for_exec_too() {
    let host = TestHost::new();
    host.detached(&["--name", "box", "busybox", "sleep", "1000"]);
    let run = host.minidock(&["exec", "box", "sh", "-c", "mknod /tmp/fuse c 10 229 && head -c 1 /tmp/fuse"]);
    assert!(run.err().contains("Operation not permitted"), "{}", run.describe());
    host.remove(&["box"]);
    host.finish();
}

#[test]
fn the_oom_score_is_set() {
    let host = TestHost::new();
    assert_eq!(host.output_of(&["--oom-score-adj", "500", "busybox", "cat", "/proc/self/oom_score_adj"]), "500");
    assert_eq!(host.output_of(&["busybox", "cat", "/proc/self/oom_score_adj"]), "0");
    host.finish();
}

#[test]
fn a_published_port_answers_on_this_kernel() {
    let host = TestHost::new();
    host.detached(&["--name", "web", "-p", "10080:80", "busybox", "httpd", "-f", "-h", "/www"]);
    assert_eq!(host::net::fetch(&host.outside, &format!("{}:10080", host::HOST), "/index.html"), host::images::PAGE);
    assert_eq!(host::net::fetch(&host.host, "127.0.0.1:10080", "/index.html"), host::images::PAGE);
    host.remove(&["web"]);
    host.finish();
}
