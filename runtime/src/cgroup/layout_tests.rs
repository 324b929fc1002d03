//! Layouts of seven hosts, from their own files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::layout::{Files, Home, Layout};

/// A host made of files.
pub(super) struct Fixture(BTreeMap<PathBuf, String>);

impl Files for Fixture {
    fn read(&self, path: &Path) -> Option<String> {
        self.0.get(path).cloned()
    }
    fn exists(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
}

fn fixture(files: &[(&str, &str)]) -> Fixture {
    Fixture(files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect())
}

/// `/proc/cgroups` with `name hierarchy` pairs.
fn kernel(text: &str) -> String {
    let lines = text.split(", ").map(|pair| pair.replace(' ', "\t") + "\t1\t1\n");
    "#subsys_name\thierarchy\tnum_cgroups\tenabled\n".to_owned() + &lines.collect::<String>()
}

/// Debian 12, kernel 6.1, cgroup2 alone.
pub(super) fn pure_v2() -> Layout {
    let mounts = "23 1 8:1 / / rw - ext4 /dev/vda rw\n24 23 0:21 / /proc rw - proc proc rw\n25 23 0:22 / /sys rw - sysfs sysfs rw\n\
        36 25 0:27 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
    Layout::from_files(
        mounts,
        &fixture(&[
            (
                "/proc/cgroups",
                &kernel(
                    "cpuset 0, cpu 0, cpuacct 0, blkio 0, memory 0, devices 0, freezer 0, net_cls 0, net_prio 0, hugetlb 0, pids 0",
                ),
            ),
            ("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n"),
            ("/sys/fs/cgroup/cgroup.subtree_control", "cpuset cpu io memory pids\n"),
            ("/sys/fs/cgroup/cpuset.cpus.effective", "0-3\n"),
            ("/sys/fs/cgroup/cpuset.mems.effective", "0\n"),
            ("/sys/fs/cgroup/io.cost.qos", ""),
            ("/proc/swaps", ""),
        ]),
    )
}

const HYBRID: &str = "23 1 8:1 / / rw - ext4 /dev/vda rw\n25 23 0:22 / /sys rw - sysfs sysfs rw\n\
36 25 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime shared:10 - tmpfs tmpfs ro,mode=755,inode64\n\
37 36 0:28 / /sys/fs/cgroup/systemd rw,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd\n\
38 36 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:12 - cgroup cgroup rw,cpu,cpuacct\n\
39 36 0:30 / /sys/fs/cgroup/net_cls,net_prio rw,relatime shared:13 - cgroup cgroup rw,net_cls,net_prio\n";

/// Debian 12, kernel 6.1, as systemd's hybrid mode: every controller on v1.
pub(super) fn hybrid() -> Layout {
    let mounts = HYBRID.to_owned()
        + "40 36 0:31 / /sys/fs/cgroup/cpuset rw shared:14 - cgroup cgroup rw,cpuset\n\
        41 36 0:32 / /sys/fs/cgroup/blkio rw shared:15 - cgroup cgroup rw,blkio\n42 36 0:33 / /sys/fs/cgroup/memory rw shared:16 - cgroup cgroup rw,memory\n\
        43 36 0:34 / /sys/fs/cgroup/devices rw shared:17 - cgroup cgroup rw,devices\n47 36 0:38 / /sys/fs/cgroup/pids rw shared:21 - cgroup cgroup rw,pids\n\
        50 36 0:41 / /sys/fs/cgroup/unified rw shared:24 - cgroup2 cgroup2 rw,nsdelegate\n";
    Layout::from_files(
        &mounts,
        &fixture(&[
            (
                "/proc/cgroups",
                &kernel("cpuset 4, cpu 2, cpuacct 2, blkio 5, memory 6, devices 7, net_cls 3, net_prio 3, pids 11"),
            ),
            ("/sys/fs/cgroup/cpuset/cpuset.cpus", "0-1\n"),
            ("/sys/fs/cgroup/cpuset/cpuset.mems", "0\n"),
            ("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/unified/cgroup.controllers", "\n"),
            ("/sys/fs/cgroup/unified/cgroup.subtree_control", "\n"),
        ]),
    )
}

/// Debian's kernel 6.12 in systemd's hybrid mode: memory and cpuset have no v1 any more.
pub(super) fn hybrid_612() -> Layout {
    let mounts = HYBRID.to_owned()
        + "41 36 0:32 / /sys/fs/cgroup/blkio rw shared:15 - cgroup cgroup rw,blkio\n43 36 0:34 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
        47 36 0:38 / /sys/fs/cgroup/pids rw shared:21 - cgroup cgroup rw,pids\n50 36 0:41 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
    Layout::from_files(
        &mounts,
        &fixture(&[
            (
                "/proc/cgroups",
                &kernel("cpuset 0, cpu 2, cpuacct 2, blkio 4, memory 0, devices 5, net_cls 3, net_prio 3, pids 9"),
            ),
            ("/sys/fs/cgroup/unified/cgroup.controllers", "cpuset memory\n"),
            ("/sys/fs/cgroup/unified/cgroup.subtree_control", "cpuset memory\n"),
            ("/sys/fs/cgroup/unified/cpuset.cpus.effective", "0-1\n"),
            ("/sys/fs/cgroup/unified/cpuset.mems.effective", "0\n"),
            ("/proc/swaps", ""),
        ]),
    )
}

/// The project's own machines: every controller alone on v1 below a writable tmpfs, cgroup2 beside it, net_cls nowhere.
pub(super) fn test_machine() -> Layout {
    let mut mounts =
        "1 0 8:1 / / rw - ext4 /dev/vda rw\n31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
            .to_owned();
    for (id, name) in ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"].iter().enumerate() {
        mounts += &format!("{} 31 0:{id} / /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}\n", 32 + id);
    }
    mounts += "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    Layout::from_files(
        &mounts,
        &fixture(&[
            (
                "/proc/cgroups",
                &kernel(
                    "cpuset 3, cpu 1, cpuacct 2, blkio 7, memory 4, devices 5, freezer 6, net_cls 0, net_prio 0, hugetlb 0, pids 8",
                ),
            ),
            ("/sys/fs/cgroup/cpuset/cpuset.cpus", "0-1\n"),
            ("/sys/fs/cgroup/cpuset/cpuset.mems", "0\n"),
            ("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "1\n"),
            ("/sys/fs/cgroup/blkio/blkio.bfq.io_service_bytes", ""),
            ("/sys/fs/cgroup/unified/cgroup.controllers", "hugetlb\n"),
            ("/sys/fs/cgroup/unified/cgroup.subtree_control", "\n"),
        ]),
    )
}

fn place(layout: &Layout, controller: &str) -> String {
    match layout.home(controller) {
        Some(Home::V1(v1)) => format!("v1 {}", v1.mount.display()),
        Some(Home::V2(v2)) => format!("v2 {}", v2.mount.display()),
        None => "nowhere".to_owned(),
    }
}

#[test]
fn pure_v2_has_everything_in_one_tree() {
    let layout = pure_v2();
    for controller in ["memory", "cpu", "cpuacct", "cpuset", "blkio", "pids", "devices", "freezer", "hugetlb"] {
        assert_eq!(place(&layout, controller), "v2 /sys/fs/cgroup", "{controller}");
    }
    assert_eq!(place(&layout, "net_cls"), "nowhere");
    assert_eq!(layout.cpus.as_deref(), Some("0-3"));
    assert!(layout.swap_limit && layout.iocost && !layout.bfq);
    assert_eq!(layout.writable_top, None);
}

#[test]
fn hybrid_takes_each_controller_where_it_is() {
    let layout = hybrid();
    assert_eq!(place(&layout, "memory"), "v1 /sys/fs/cgroup/memory");
    assert_eq!(place(&layout, "cpuacct"), "v1 /sys/fs/cgroup/cpu,cpuacct");
    assert_eq!(place(&layout, "net_cls"), "v1 /sys/fs/cgroup/net_cls,net_prio");
    // No v1 freezer in this fixture: every cgroup2 group can be frozen.
    assert_eq!(place(&layout, "freezer"), "v2 /sys/fs/cgroup/unified");
    assert!(layout.has_swap_limit());
    // systemd's tmpfs is read-only.
    assert_eq!(layout.writable_top, None);

    let newer = hybrid_612();
    assert_eq!(place(&newer, "memory"), "v2 /sys/fs/cgroup/unified");
    assert_eq!(place(&newer, "cpuset"), "v2 /sys/fs/cgroup/unified");
    assert_eq!(place(&newer, "pids"), "v1 /sys/fs/cgroup/pids");
    assert_eq!(place(&newer, "devices"), "v1 /sys/fs/cgroup/devices");
    assert_eq!(newer.cpus.as_deref(), Some("0-1"));
    assert!(newer.has_swap_limit());

    let here = test_machine();
    assert_eq!(place(&here, "hugetlb"), "v2 /sys/fs/cgroup/unified");
    assert_eq!(place(&here, "cpu"), "v1 /sys/fs/cgroup/cpu");
    assert_eq!(here.writable_top.as_deref(), Some(Path::new("/sys/fs/cgroup")));
    assert!(here.bfq);
    assert!(!here.v1.iter().any(|v1| v1.mount.ends_with("systemd")));
}

#[test]
fn nothing_mounted_is_a_layout_too() {
    let layout = Layout::from_files("1 0 8:1 / / rw - ext4 /dev/vda rw\n", &fixture(&[]));
    assert_eq!(layout, Layout::default());
    assert!(layout.why_missing("memory").contains("no cgroups are mounted"));
    let layout = Layout::from_files("", &fixture(&[("/proc/cgroups", &kernel("memory 0"))]));
    assert!(layout.why_missing("memory").contains("mount -t cgroup2"));
    let switched_off = kernel("memory 0").replace("1\n", "0\n");
    let layout = Layout::from_files("", &fixture(&[("/proc/cgroups", &switched_off)]));
    assert!(layout.why_missing("memory").contains("cgroup_disable=memory"));
}

#[test]
fn a_mount_table_is_read_as_the_kernel_resolves_paths() {
    // Inside a container: the root of the mount is a group, the mount point is what counts. Blanks are octal.
    let line = |id, parent, point: &str, rest: &str| format!("{id} {parent} 0:1 /docker/abc {point} rw - {rest}\n");
    let layout = |text: &str| Layout::from_files(text, &fixture(&[]));
    let inside = layout(&line(5, 1, "/sys/fs/cgroup\\040x/memory", "cgroup cgroup rw,memory"));
    assert_eq!(place(&inside, "memory"), "v1 /sys/fs/cgroup x/memory");
    // A mount on top hides what is below it, and so does one on a folder above.
    let covered = line(1, 0, "/", "ext4 x rw")
        + &line(2, 1, "/sys/fs/cgroup", "cgroup2 x rw")
        + &line(3, 2, "/sys/fs/cgroup", "tmpfs x rw");
    assert_eq!(layout(&covered).v2, None);
    let above = line(1, 0, "/", "ext4 x rw")
        + &line(2, 1, "/sys/fs/cgroup", "cgroup2 x rw")
        + &line(3, 1, "/sys", "tmpfs x rw");
    assert_eq!(layout(&above).v2, None);
    let again = covered + &line(4, 3, "/sys/fs/cgroup/unified", "cgroup2 x rw");
    assert_eq!(layout(&again).v2.unwrap().mount, Path::new("/sys/fs/cgroup/unified"));
    // A neighbour whose name begins alike hides nothing.
    let neighbour = line(1, 0, "/", "ext4 x rw")
        + &line(2, 1, "/sys/fs/cgroup", "cgroup2 x rw")
        + &line(3, 1, "/sys/fs/cg", "tmpfs x rw");
    assert!(layout(&neighbour).v2.is_some());
    // The second mount of the same hierarchy is not another one; rubbish is passed over.
    let twice = line(2, 1, "/a", "cgroup x rw,xattr,memory")
        + &line(3, 1, "/b", "cgroup x rw,memory")
        + "rubbish\n1 2 3\n - \n";
    assert_eq!(layout(&twice).v1.len(), 1);
    // Parents in a circle, as in a table that changed while it was read.
    layout(&(line(2, 3, "/a/b", "cgroup2 x rw") + &line(3, 2, "/a", "tmpfs x rw")));
}

#[test]
fn a_hidden_net_cls_hierarchy_is_found_by_its_partners() {
    let files = fixture(&[
        ("/proc/cgroups", &kernel("net_cls 3, net_prio 3")),
        ("/proc/self/cgroup", "3:net_cls,net_prio:/\n0::/\n"),
    ]);
    assert_eq!(Layout::from_files("", &files).net_cls_with, ["net_prio"]);
}

#[test]
fn this_host_is_read_quickly() {
    let layout = Layout::read().unwrap();
    assert!(layout.v2.is_some() || !layout.v1.is_empty(), "{layout:?}");
    let json = serde_json::to_string(&layout).unwrap();
    assert_eq!(serde_json::from_str::<Layout>(&json).unwrap(), layout);
}
