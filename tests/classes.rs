//! Which class the packets of a container are counted in, by tc's own counters: for each kind of network, with and without
//! the kernel's `cgroup` classifier, which stock kernels have (tests/vm/vm.sh). The rates are in tests/shaping.rs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::io::Read;
use std::net::TcpListener;

use host::{Firewall, LIMIT, OUTSIDE, TestHost, lacks};

const CLASSES: [&str; 3] = ["1:10", "1:11", "1:30"];
/// What a container sends each time, and what may be noise: answers to ARP, the ends of earlier connections.
const SENT: u64 = 100_000;
const NOISE: u64 = 10_000;

/// The lecture's tree, with a third class for what has none.
fn make_tree(host: &TestHost) {
    let classes = CLASSES.map(|class| format!("tc class add dev uplink parent 1: classid {class} htb rate 500mbit\n"));
    host.sh(&format!("tc qdisc add dev uplink root handle 1: htb default 30\n{}", classes.concat())).ok();
}

/// The lecture's row 8. False where the kernel lacks it.
fn add_classifier(host: &TestHost) -> bool {
    let added = host.sh("tc filter add dev uplink protocol ip parent 1:0 prio 1 handle 1: cgroup").code() == 0;
    if !added {
        lacks("cls_cgroup");
    }
    added
}

fn without_tree(host: TestHost) {
    host.sh("tc qdisc del dev uplink root").ok();
    host.finish();
}

/// Bytes by class since the tree was made.
fn counted(host: &TestHost) -> [u64; 3] {
    let text = host.sh("tc -s class show dev uplink").ok().out();
    CLASSES.map(|class| {
        let (_, rest) =
            text.split_once(&format!("class htb {class} ")).unwrap_or_else(|| panic!("no class {class}:\n{text}"));
        let (_, bytes) = rest.split_once(" Sent ").unwrap();
        bytes.split(' ').next().unwrap().parse().unwrap()
    })
}

/// Lets `send` send to a port of the outside, and says which of the classes it was counted in.
#[track_caller]
fn class_of(host: &TestHost, send: impl FnOnce(&str)) -> Vec<&'static str> {
    let listener = host.outside.run(|| TcpListener::bind((OUTSIDE, 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let before = counted(host);
    let sink = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes.len() as u64
    });
    send(&format!("head -c {SENT} /dev/zero | busybox nc {OUTSIDE} {port}"));
    assert_eq!(sink.join().unwrap(), SENT);
    let after = counted(host);
    let grown = [0, 1, 2].map(|at| after[at] - before[at]);
    assert!(grown.iter().all(|bytes| *bytes < NOISE || *bytes >= SENT), "spread over the classes: {grown:?}");
    CLASSES.into_iter().zip(grown).filter(|(_, bytes)| *bytes >= SENT).map(|(class, _)| class).collect()
}

/// Three containers at the same time, one without a class; what they run, and what is run in them later.
fn each_in_its_class(host: &TestHost, network: &str) {
    for (name, class) in [("aa", Some("1:10")), ("bb", Some("1:11")), ("cc", None)] {
        let class = class.map(|class| vec!["--net-cls", class]).unwrap_or_default();
        host.detached(&[&["--name", name, "--network", network][..], &class, &["busybox", "sleep", "1000"]].concat());
    }
    for (name, class) in [("aa", "1:10"), ("bb", "1:11"), ("cc", "1:30"), ("aa", "1:10")] {
        let sent = class_of(host, |script| drop(host.minidock(&["exec", name, "sh", "-c", script]).ok()));
        assert_eq!(sent, [class], "exec in {name} on {network}");
    }
    let words = ["run", "--rm", "--network", network, "--net-cls", "1:11", "busybox", "sh", "-c"];
    let sent = class_of(host, |script| drop(host.minidock(&[&words[..], &[script]].concat()).ok()));
    assert_eq!(sent, ["1:11"], "the program itself on {network}");
    let sent = class_of(host, |script| drop(host.sh(script).ok()));
    assert_eq!(sent, ["1:30"], "the host's own traffic beside {network}");
    host.remove(&["aa", "bb", "cc"]);
}

fn on_bridges(firewall: Firewall, classifier: bool) {
    let host = TestHost::with_firewall(firewall);
    make_tree(&host);
    if !classifier || add_classifier(&host) {
        host.minidock(&["network", "create", "lan"]).ok();
        each_in_its_class(&host, "bridge");
        each_in_its_class(&host, "lan");
        host.minidock(&["network", "rm", "lan"]).ok();
    }
    without_tree(host);
}

#[test]
fn bridged_with_nftables() {
    on_bridges(Firewall::Nftables, false);
}

#[test]
fn bridged_with_nftables_beside_the_cgroup_classifier() {
    on_bridges(Firewall::Nftables, true);
}

#[test]
fn bridged_with_iptables() {
    on_bridges(Firewall::Iptables, false);
}

#[test]
fn bridged_with_iptables_beside_the_cgroup_classifier() {
    on_bridges(Firewall::Iptables, true);
}

/// Without cgroup2 the classifier is the only way, and a warning says so.
#[test]
fn on_the_host_s_network() {
    let host = TestHost::new();
    make_tree(&host);
    let words = ["run", "--rm", "--network", "host", "--net-cls", "1:10", "busybox", "true"];
    let warned = host.minidock(&words).ok().err();
    if host.sh("grep -q ' - cgroup2 ' /proc/self/mountinfo").code() == 0 {
        assert_eq!(warned, "");
        each_in_its_class(&host, "host");
    } else {
        assert!(warned.contains("prio 1 handle 1: cgroup"), "{warned}");
    }
    without_tree(host);
}

#[test]
fn on_the_host_s_network_by_the_cgroup_classifier() {
    let host = TestHost::new();
    make_tree(&host);
    if add_classifier(&host) {
        each_in_its_class(&host, "host");
    }
    without_tree(host);
}

/// Rows 6 to 8 of the lecture, typed: the classifier finds a process's class by its group.
#[test]
fn the_lecture_s_own_group_beside_a_container() {
    let host = TestHost::new();
    make_tree(&host);
    if add_classifier(&host) {
        host.detached(&["--name", "aa", "--net-cls", "1:10", "busybox", "sleep", "1000"]);
        let group = format!("byhand{}", std::process::id());
        let mount = host.sh("sed -n 's/^[^ ]* \\([^ ]*\\) cgroup [^ ]*net_cls.*/\\1/p' /proc/mounts | head -n 1").ok();
        let group = format!("{}/{group}", mount.out());
        host.sh(&format!("mkdir {group}; echo 0x00010011 > {group}/net_cls.classid")).ok();
        let typed = class_of(&host, |script| drop(host.sh(&format!("echo $$ >{group}/cgroup.procs; {script}")).ok()));
        assert_eq!(typed, ["1:11"]);
        let sent = class_of(&host, |script| drop(host.minidock(&["exec", "aa", "sh", "-c", script]).ok()));
        assert_eq!(sent, ["1:10"]);
        host::wait_until("the group is empty", || host.sh(&format!("rmdir {group}")).code() == 0);
        host.remove(&["aa"]);
    }
    without_tree(host);
}
