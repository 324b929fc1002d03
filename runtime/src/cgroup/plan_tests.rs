//! Plans as the shell scripts that a teacher would write.

use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::{Layout, Request, layout_tests as hosts, plan, plan::check_name};

fn script(layout: &Layout, json: &str, net_cls: Option<u32>) -> Result<String, String> {
    let resources: LinuxResources = serde_json::from_str(json).unwrap();
    let request = Request {
        id: "c0ffee",
        parent: "minidock",
        resources: Some(&resources),
        net_cls,
        class_way: super::ClassWay::NetCls,
        net_cls_mount: Path::new("/run/minidock/net_cls"),
    };
    let ops = plan(&request, layout).map_err(|error| error.to_string())?;
    let lines =
        ops.iter().flat_map(super::Op::explain).map(|(command, _)| command.replace("/sys/fs/cgroup", "$C") + "\n");
    Ok(lines.collect())
}

const LIMITS: &str = r#"{"memory":{"limit":67108864,"swap":134217728,"reservation":33554432},
    "cpu":{"quota":150000,"period":100000,"shares":512,"cpus":"0"},"pids":{"limit":64},
    "blockIO":{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1048576}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":100}]}}"#;

#[test]
fn on_pure_v2() {
    let expected = "\
mkdir -p $C/minidock
mkdir $C/minidock/c0ffee
echo '+memory +cpu +cpuset +pids +io' > $C/minidock/cgroup.subtree_control
echo 67108864 > $C/minidock/c0ffee/memory.max
echo 67108864 > $C/minidock/c0ffee/memory.swap.max
echo 33554432 > $C/minidock/c0ffee/memory.low
echo 20 > $C/minidock/c0ffee/cpu.weight
echo '150000 100000' > $C/minidock/c0ffee/cpu.max
echo 0 > $C/minidock/c0ffee/cpuset.cpus
echo 64 > $C/minidock/c0ffee/pids.max
echo '8:0 rbps=1048576 wiops=100' > $C/minidock/c0ffee/io.max
";
    assert_eq!(script(&hosts::pure_v2(), LIMITS, None).unwrap(), expected);
}

#[test]
fn on_hybrid_with_v1_controllers() {
    let expected = "\
mkdir -p $C/memory/minidock
mkdir $C/memory/minidock/c0ffee
echo 67108864 > $C/memory/minidock/c0ffee/memory.limit_in_bytes
echo 134217728 > $C/memory/minidock/c0ffee/memory.memsw.limit_in_bytes
echo 33554432 > $C/memory/minidock/c0ffee/memory.soft_limit_in_bytes
mkdir -p $C/cpu,cpuacct/minidock
mkdir $C/cpu,cpuacct/minidock/c0ffee
echo 512 > $C/cpu,cpuacct/minidock/c0ffee/cpu.shares
echo 100000 > $C/cpu,cpuacct/minidock/c0ffee/cpu.cfs_period_us
echo 150000 > $C/cpu,cpuacct/minidock/c0ffee/cpu.cfs_quota_us
mkdir -p $C/cpuset/minidock
mkdir $C/cpuset/minidock/c0ffee
grep -q . $C/cpuset/minidock/cpuset.cpus || echo 0-1 > $C/cpuset/minidock/cpuset.cpus
grep -q . $C/cpuset/minidock/cpuset.mems || echo 0 > $C/cpuset/minidock/cpuset.mems
echo 0 > $C/cpuset/minidock/c0ffee/cpuset.mems
echo 0 > $C/cpuset/minidock/c0ffee/cpuset.cpus
mkdir -p $C/pids/minidock
mkdir $C/pids/minidock/c0ffee
echo 64 > $C/pids/minidock/c0ffee/pids.max
mkdir -p $C/blkio/minidock
mkdir $C/blkio/minidock/c0ffee
echo '8:0 1048576' > $C/blkio/minidock/c0ffee/blkio.throttle.read_bps_device
echo '8:0 100' > $C/blkio/minidock/c0ffee/blkio.throttle.write_iops_device
mkdir -p $C/net_cls,net_prio/minidock
mkdir $C/net_cls,net_prio/minidock/c0ffee
echo 0x00010010 > $C/net_cls,net_prio/minidock/c0ffee/net_cls.classid
mkdir -p $C/unified/minidock
mkdir $C/unified/minidock/c0ffee
";
    assert_eq!(script(&hosts::hybrid(), LIMITS, Some(0x0001_0010)).unwrap(), expected);
}

#[test]
fn on_hybrid_612_memory_and_cpuset_are_on_cgroup2() {
    let expected = "\
mkdir -p $C/unified/minidock
mkdir $C/unified/minidock/c0ffee
echo '+memory +cpuset' > $C/unified/minidock/cgroup.subtree_control
echo 67108864 > $C/unified/minidock/c0ffee/memory.max
echo 0 > $C/unified/minidock/c0ffee/memory.swap.max
echo 1 > $C/unified/minidock/c0ffee/cpuset.cpus
mkdir -p $C/pids/minidock
mkdir $C/pids/minidock/c0ffee
echo 64 > $C/pids/minidock/c0ffee/pids.max
";
    let json = r#"{"memory":{"limit":67108864,"swap":67108864},"cpu":{"cpus":"1"},"pids":{"limit":64}}"#;
    assert_eq!(script(&hosts::hybrid_612(), json, None).unwrap(), expected);
}

#[test]
fn net_cls_is_mounted_where_the_host_has_not() {
    let lines = |layout: &Layout| script(layout, "{}", Some(0x0001_0010)).unwrap();
    let expected = "\
mkdir -p $C/net_cls
mount -t cgroup -o net_cls net_cls $C/net_cls
mkdir -p $C/net_cls/minidock
mkdir $C/net_cls/minidock/c0ffee
echo 0x00010010 > $C/net_cls/minidock/c0ffee/net_cls.classid
mkdir -p $C/unified/minidock
mkdir $C/unified/minidock/c0ffee
";
    assert_eq!(lines(&hosts::test_machine()), expected);
    // Never in the cgroup2 tree.
    assert!(
        lines(&hosts::pure_v2())
            .starts_with("mkdir -p /run/minidock/net_cls\nmount -t cgroup -o net_cls net_cls /run/minidock/net_cls\n")
    );
}

#[test]
fn device_rules_are_lines_on_v1_and_a_program_on_v2() {
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(crate::defaults::device_rules()));
    let json = serde_json::to_string(&resources).unwrap();
    let mut only_v1 = hosts::test_machine();
    only_v1.v2 = None;
    let v1 = script(&only_v1, &json, None).unwrap();
    assert!(v1.starts_with("mkdir -p $C/devices/minidock\nmkdir $C/devices/minidock/c0ffee\necho a > $C/devices/minidock/c0ffee/devices.deny\necho 'c *:* m' > "), "{v1}");
    // Denied by name, but nothing allows it: no line.
    assert!(!v1.contains("10:229"));
    // A hybrid host has both: the program is far cheaper than a v1 group more.
    let hybrid = script(&hosts::test_machine(), &json, None).unwrap();
    assert!(hybrid.contains("# bpf(2)") && !hybrid.contains("$C/devices"), "{hybrid}");
    let v2 = script(&hosts::pure_v2(), &json, None).unwrap();
    assert!(v2.starts_with("mkdir -p $C/minidock\nmkdir $C/minidock/c0ffee\n# bpf(2): a device filter for $C/minidock/c0ffee: deny a, deny c 10:229 rwm, allow c *:* m"), "{v2}");
    resources.set_devices(Some(crate::defaults::device_rules_privileged()));
    let json = serde_json::to_string(&resources).unwrap();
    assert_eq!(script(&hosts::pure_v2(), &json, None).unwrap(), "mkdir -p $C/minidock\nmkdir $C/minidock/c0ffee\n");
}

#[test]
fn a_plan_without_limits_has_one_group() {
    let only = |layout: &Layout| script(layout, "{}", None).unwrap();
    assert_eq!(only(&hosts::hybrid()), "mkdir -p $C/unified/minidock\nmkdir $C/unified/minidock/c0ffee\n");
    let mut v1 = hosts::hybrid();
    v1.v2 = None;
    assert_eq!(only(&v1), "mkdir -p $C/pids/minidock\nmkdir $C/pids/minidock/c0ffee\n");
    assert_eq!(only(&Layout::default()), "");
    // Unlimited is how a group starts.
    let unlimited = r#"{"memory":{"limit":-1,"swap":-1,"reservation":0},"cpu":{"quota":-1,"shares":0,"cpus":""},"pids":{"limit":-1},"devices":[],"blockIO":{"weight":0}}"#;
    assert_eq!(script(&hosts::pure_v2(), unlimited, None).unwrap(), "mkdir -p $C/minidock\nmkdir $C/minidock/c0ffee\n");
}

#[test]
fn the_top_group_is_asked_to_pass_a_controller_on() {
    let mut layout = hosts::pure_v2();
    layout.v2.as_mut().unwrap().enabled.clear();
    let lines = script(&layout, r#"{"pids":{"limit":3},"memory":{"limit":4194304}}"#, None).unwrap();
    assert!(lines.starts_with("echo '+memory +pids' > $C/cgroup.subtree_control\nmkdir -p $C/minidock\n"), "{lines}");
}

#[test]
fn nested_parents_are_made_one_by_one() {
    let resources: LinuxResources = serde_json::from_str(r#"{"pids":{"limit":3}}"#).unwrap();
    let request = Request {
        id: "a",
        parent: "lab/blue",
        resources: Some(&resources),
        net_cls: None,
        class_way: super::ClassWay::NetCls,
        net_cls_mount: Path::new("/x"),
    };
    let ops = plan(&request, &hosts::pure_v2()).unwrap();
    let paths: Vec<String> = ops.iter().map(|op| op.path().display().to_string()).collect();
    assert_eq!(
        paths.join(" ").replace("/sys/fs/cgroup/", ""),
        "lab lab/blue lab/blue/a lab/cgroup.subtree_control lab/blue/cgroup.subtree_control lab/blue/a/pids.max"
    );
    assert_eq!(
        serde_json::to_string(&ops[2].residue()).unwrap(),
        r#"{"Cgroup":{"path":"/sys/fs/cgroup/lab/blue/a","group":"lab/blue/a"}}"#
    );
}

#[test]
fn what_cannot_be_kept_is_refused_whole() {
    let nothing = Layout::default();
    let no_swap = Layout { swap_limit: false, ..hosts::hybrid() };
    let no_weights = Layout { iocost: false, ..hosts::pure_v2() };
    for (layout, json, words) in [
        (&nothing, r#"{"memory":{"limit":67108864}}"#, "cannot keep -m 64m: no cgroups are mounted; mount -t cgroup2"),
        (&nothing, r#"{"devices":[{"allow":false}]}"#, "no cgroups are mounted"),
        (
            &no_swap,
            r#"{"memory":{"limit":67108864,"swap":134217728}}"#,
            "cannot keep --memory-swap 128m: this kernel does not count swap",
        ),
        (&hosts::pure_v2(), r#"{"memory":{"swap":134217728}}"#, "needs -m"),
        (
            &hosts::pure_v2(),
            r#"{"memory":{"limit":67108864,"swap":33554432}}"#,
            "--memory-swap 32m is less than -m 64m",
        ),
        (&hosts::pure_v2(), r#"{"memory":{"limit":-2}}"#, "invalid -m -2"),
        (&hosts::pure_v2(), r#"{"memory":{"limit":67108864,"reservation":134217728}}"#, "more than -m 64m"),
        (&hosts::pure_v2(), r#"{"memory":{"swappiness":10}}"#, "--memory-swappiness: cgroup2 has no such switch"),
        (
            &hosts::pure_v2(),
            r#"{"memory":{"disableOOMKiller":true}}"#,
            "--oom-kill-disable: cgroup2 has no such switch",
        ),
        (&hosts::pure_v2(), r#"{"memory":{"kernel":1048576}}"#, "kernel memory limit"),
        (&hosts::pure_v2(), r#"{"cpu":{"cpus":"0-999999999"}}"#, "there is no number 4; this host has the CPUs 0-3"),
        (&hosts::pure_v2(), r#"{"cpu":{"cpus":"0-"}}"#, "invalid --cpuset-cpus \"0-\""),
        (&hosts::pure_v2(), r#"{"cpu":{"mems":"1"}}"#, "this host has the memory nodes 0"),
        (&hosts::pure_v2(), r#"{"cpu":{"quota":-7}}"#, "invalid --cpu-quota -7"),
        (&hosts::pure_v2(), r#"{"cpu":{"realtimeRuntime":1000}}"#, "cgroup2 has no real-time limits"),
        (&hosts::pure_v2(), r#"{"blockIO":{"weight":9}}"#, "invalid --blkio-weight 9: 10 to 1000"),
        (&no_weights, r#"{"blockIO":{"weight":500}}"#, "modprobe bfq"),
        (&hosts::hybrid(), r#"{"blockIO":{"weight":500}}"#, "modprobe bfq"),
        (&hosts::pure_v2(), r#"{"blockIO":{"leafWeight":500}}"#, "leaf weight"),
        (
            &hosts::pure_v2(),
            r#"{"blockIO":{"throttleReadBpsDevice":[{"major":-1,"minor":0,"rate":1}]}}"#,
            "out of range",
        ),
        (&hosts::hybrid(), r#"{"unified":{"memory.high":"1"}}"#, "neither on a mounted v1 hierarchy nor in cgroup2"),
        (&hosts::pure_v2(), r#"{"unified":{"../x.y":"1"}}"#, "invalid `unified` entry"),
        (&hosts::pure_v2(), r#"{"unified":{"cgroup.procs":"1"}}"#, "invalid `unified` entry"),
        (&hosts::pure_v2(), r#"{"unified":{"memory.high/../../x":"1"}}"#, "invalid `unified` entry"),
        (&hosts::pure_v2(), r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#, "invalid huge page size"),
        (
            &hosts::pure_v2(),
            r#"{"network":{"priorities":[{"name":"eth0","priority":1}]}}"#,
            "the network priority of eth0",
        ),
        (&hosts::pure_v2(), r#"{"network":{"classID":5}}"#, "two net_cls classes"),
    ] {
        let error = script(layout, json, json.contains("classID").then_some(1)).unwrap_err();
        assert!(error.contains(words), "{json}: {error}");
        assert!(!error.contains('\n'));
    }
}

#[test]
fn weights_are_put_on_the_scale_of_the_host() {
    let weight = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":16,"weight":10}]}}"#;
    let tail = |layout: &Layout| {
        script(layout, weight, None)
            .unwrap()
            .lines()
            .filter(|line| line.contains("weight"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(
        tail(&hosts::pure_v2()),
        "echo 'default 4950' > $C/minidock/c0ffee/io.weight\necho '8:16 1' > $C/minidock/c0ffee/io.weight"
    );
    let bfq = Layout { bfq: true, ..hosts::pure_v2() };
    assert_eq!(
        tail(&bfq),
        "echo 500 > $C/minidock/c0ffee/io.bfq.weight\necho '8:16 10' > $C/minidock/c0ffee/io.bfq.weight"
    );
    assert_eq!(
        tail(&hosts::test_machine()),
        "echo 500 > $C/blkio/minidock/c0ffee/blkio.bfq.weight\necho '8:16 10' > $C/blkio/minidock/c0ffee/blkio.bfq.weight_device"
    );
    for (shares, weight) in [(0, 1), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)] {
        assert_eq!(super::limits::weight_of_shares(shares), weight, "{shares}");
    }
}

#[test]
fn names_that_climb_are_refused() {
    for name in ["", ".", "..", "a/b", "-rf", ".hidden", "a b", "a\n", "é", "a'b", "$x", &"x".repeat(256)] {
        assert!(check_name("container id", name, false).is_err(), "{name:?}");
    }
    for parent in ["/minidock", "minidock/", "a//b", "a/../b", "../x", "1/2/3/4/5/6/7/8/9"] {
        assert!(check_name("cgroup parent", parent, true).is_err(), "{parent:?}");
    }
}

#[test]
fn reasons_name_the_flag() {
    let resources: LinuxResources = serde_json::from_str(LIMITS).unwrap();
    let request = Request {
        id: "a",
        parent: "minidock",
        resources: Some(&resources),
        net_cls: None,
        class_way: super::ClassWay::NetCls,
        net_cls_mount: Path::new("/x"),
    };
    let ops = plan(&request, &hosts::pure_v2()).unwrap();
    let reasons: String = ops.iter().flat_map(super::Op::explain).map(|(_, reason)| reason + "\n").collect();
    for flag in [
        "-m 64m",
        "--memory-swap 128m",
        "--memory-reservation 32m",
        "--cpus 1.5",
        "--cpu-shares 512",
        "--cpuset-cpus 0",
        "--pids-limit 64",
        "--device-read-bps 8:0:1m",
        "--device-write-iops 8:0:100",
    ] {
        assert!(reasons.contains(flag), "{flag} in {reasons}");
    }
}
