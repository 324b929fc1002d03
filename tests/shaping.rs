//! Traffic classes: what `--net-cls` and `--net-rate` promise is measured through the host's uplink, in an outside
//! namespace, on several containers at the same time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use host::{Firewall, OUTSIDE, TestHost, wait_until};

/// What of a full frame on Ethernet is a TCP segment's data, with time stamps; the rest is headers, which tc counts.
const GOODPUT: f64 = 1448.0 / 1514.0;
/// Long enough for TCP to find its rate and for the first burst to be over.
const WARM_UP: Duration = Duration::from_millis(1200);
const WINDOW: Duration = Duration::from_secs(3);

/// The tree of the lecture, made by hand: Mbit/s of 1:10, 1:11 and the default class. Low enough for an emulated machine.
const TREE: [(&str, u32); 3] = [("1:10", 2), ("1:11", 4), ("1:30", 8)];

fn make_tree(host: &TestHost) {
    let mut script = "tc qdisc add dev uplink root handle 1: htb default 30\n".to_string();
    for (class, rate) in TREE {
        // A short queue: what is in it when a sender ends is soon gone.
        script += &format!(
            "tc class add dev uplink parent 1: classid {class} htb rate {rate}mbit ceil {rate}mbit burst 16k\n\
             tc qdisc add dev uplink parent {class} pfifo limit 50\n"
        );
    }
    host.sh(&script).ok();
}

/// The kernel's own classifier, which asks net_cls: the lecture's row 8. False where the kernel lacks it.
fn add_classifier(host: &TestHost) -> bool {
    let added = host.sh("tc filter add dev uplink protocol ip parent 1:0 prio 1 handle 1: cgroup").code() == 0;
    if !added {
        host::lacks("cls_cgroup");
    }
    added
}

/// Where there is none, packets that leave by no bridge are left to the classifier.
fn has_cgroup2(host: &TestHost) -> bool {
    host.sh("grep -q ' - cgroup2 ' /proc/self/mountinfo").code() == 0
}

/// Takes all that comes to a port of the outside and counts it.
struct Sink {
    bytes: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sink {
    fn new(host: &TestHost, port: u16) -> Sink {
        let listener = host.outside.run(|| TcpListener::bind((OUTSIDE, port)).unwrap());
        listener.set_nonblocking(true).unwrap();
        let (bytes, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (bytes.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 256 * 1024];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                while !stopped.load(Ordering::Relaxed) {
                    match stream.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(length) => drop(count.fetch_add(length as u64, Ordering::Relaxed)),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => break,
                    }
                }
            }
        });
        Sink { bytes, stop, thread: Some(thread) }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Sends to a port of the outside for as long as it lives.
fn sender(port: u16) -> String {
    format!("nc {OUTSIDE} {port} </dev/zero")
}

/// Mbit/s on the wire of several sinks at the same time.
fn rates(sinks: &[Sink]) -> Vec<f64> {
    wait_until("everybody sends", || sinks.iter().all(|sink| sink.bytes.load(Ordering::Relaxed) > 0));
    std::thread::sleep(WARM_UP); // the first burst isn't what is measured
    let counts = || sinks.iter().map(|sink| sink.bytes.load(Ordering::Relaxed)).collect::<Vec<_>>();
    let (start, before) = (Instant::now(), counts());
    std::thread::sleep(WINDOW);
    let (seconds, after) = (start.elapsed().as_secs_f64(), counts());
    before.iter().zip(&after).map(|(before, after)| (after - before) as f64 * 8e-6 / seconds / GOODPUT).collect()
}

/// Measures until everybody has their rate, a few times at most: a busy machine may not send as much as it is allowed to
/// for a while, but a wrong class has a wrong rate always.
#[track_caller]
fn assert_rates(wanted: &[u32], mut measure: impl FnMut() -> Vec<f64>) {
    let near = |(is, should): (&f64, &u32)| (is / f64::from(*should) - 1.0).abs() < 0.10;
    let mut seen = vec![];
    for _ in 0..8 {
        seen.push(measure());
        if seen.last().is_some_and(|rates| rates.iter().zip(wanted).all(near)) {
            return;
        }
    }
    panic!("measured {seen:.1?} Mbit/s, never {wanted:?}");
}

/// Three containers in 1:10, 1:11 and the default class have the rates of the tree; with the flags for all of them.
#[track_caller]
fn three_have_their_rates(host: &TestHost, flags: &[&str]) {
    let sinks = [5010, 5011, 5030].map(|port| Sink::new(host, port));
    for (name, class, port) in [("aa", Some("1:10"), 5010), ("bb", Some("1:11"), 5011), ("cc", None, 5030)] {
        let class = class.map(|class| vec!["--net-cls", class]).unwrap_or_default();
        let command = sender(port);
        host.detached(&[&["--name", name][..], flags, &class, &["busybox", "sh", "-c", &command]].concat());
    }
    assert_rates(&TREE.map(|(_, rate)| rate), || rates(&sinks));
    host.remove(&["aa", "bb", "cc"]);
}

fn without_tree(host: TestHost) {
    host.sh("tc qdisc del dev uplink root").ok();
    host.finish();
}

#[test]
fn bridged_containers_are_in_their_classes_with_nftables() {
    let host = TestHost::with_firewall(Firewall::Nftables);
    make_tree(&host);
    three_have_their_rates(&host, &[]);
    // The class is the host's own matter: nothing of it leaves the host, and the tree is as it was.
    let tree = host.sh("tc class show dev uplink").ok().out();
    assert_eq!(tree.lines().count(), 3, "{tree}");
    let left = host.sh("nft list map ip minidock classes").ok().out();
    assert!(!left.contains("elements"), "classes went with their containers: {left}");
    without_tree(host);
}

#[test]
fn bridged_containers_are_in_their_classes_with_iptables() {
    let host = TestHost::with_firewall(Firewall::Iptables);
    make_tree(&host);
    three_have_their_rates(&host, &[]);
    assert!(!host.sh("iptables-save -t mangle").ok().out().contains("CLASSIFY"));
    without_tree(host);
}

#[test]
fn bridged_containers_are_in_their_classes_beside_the_cgroup_classifier() {
    let host = TestHost::new();
    make_tree(&host);
    if add_classifier(&host) {
        three_have_their_rates(&host, &[]);
    }
    without_tree(host);
}

#[test]
fn containers_of_the_hosts_network_are_in_their_classes() {
    let host = TestHost::new();
    make_tree(&host);
    if !has_cgroup2(&host) {
        return without_tree(host);
    }
    three_have_their_rates(&host, &["--network", "host"]);
    without_tree(host);
}

#[test]
fn containers_of_the_hosts_network_are_in_their_classes_by_the_cgroup_classifier() {
    let host = TestHost::new();
    make_tree(&host);
    if add_classifier(&host) {
        three_have_their_rates(&host, &["--network", "host"]);
    }
    without_tree(host);
}

/// What leaves by a macvlan goes straight to its parent's queue.
#[test]
fn containers_of_a_macvlan_are_in_their_classes() {
    let host = TestHost::new();
    make_tree(&host);
    if !has_cgroup2(&host) {
        return without_tree(host);
    }
    let macvlan = ["network", "create", "-d", "macvlan", "-o", "parent=uplink", "--subnet", "10.99.0.0/24"];
    host.minidock(&[&macvlan[..], &["--gateway", OUTSIDE, "--ip-range", "10.99.0.128/25", "segment"]].concat()).ok();
    three_have_their_rates(&host, &["--network", "segment"]);
    let rated = ["--network", "segment", "--net-rate", "3mbit"];
    let sink = [Sink::new(&host, 5080)];
    host.detached(&[&["--name", "aa"], &rated[..], &["busybox", "sh", "-c", &sender(5080)]].concat());
    assert_rates(&[3], || rates(&sink));
    host.remove(&["aa"]);
    let refused = host.minidock(&["run", "--rm", "--network", "segment", "--net-rate-in", "3mbit", "busybox", "true"]);
    refused.exits(125).says(&["--net-rate-in needs a bridge", "network segment"]);
    host.minidock(&["network", "create", "other"]).ok();
    host.detached(&["--name", "aa", "--network", "other", "--net-cls", "1:10", "busybox", "sleep", "1000"]);
    let refused = host.minidock(&["network", "connect", "segment", "aa"]).exits(1);
    refused.says(&["have a class", "stop it first"]);
    host.remove(&["aa"]);
    host.minidock(&["network", "rm", "segment", "other"]).ok();
    without_tree(host);
}

/// Class and rates hold on a card that comes while the container runs, in both firewalls, and go with it.
#[test]
fn a_card_that_comes_later_has_the_class_and_the_rates() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        make_tree(&host);
        for network in ["first", "second"] {
            host.minidock(&["network", "create", network]).ok();
        }
        let wait = "while ! test -e /go; do sleep 0.1; done; exec ";
        for (name, flags, port) in [
            ("aa", &["--net-cls", "1:10", "--net-rate-in", "5mbit"][..], 5090),
            ("bb", &["--net-rate", "3mbit"][..], 5091),
        ] {
            let script = format!("{wait}{}", sender(port));
            let command = ["busybox", "sh", "-c", &script];
            host.detached(&[&["--name", name, "--network", "first"], flags, &command].concat());
            host.minidock(&["network", "connect", "second", name]).ok();
            host.minidock(&["network", "disconnect", "first", name]).ok();
        }
        let sinks = [5090, 5091].map(|port| Sink::new(&host, port));
        for name in ["aa", "bb"] {
            host.minidock(&["exec", name, "touch", "/go"]).ok();
        }
        assert_rates(&[2, 3], || rates(&sinks));
        let link = host.sh("ip -o link show | sed -n 's/.*\\(veth[^@]*_1\\)@.*/\\1/p'").ok().out();
        let shown: Vec<_> = link.lines().map(|link| host.sh(&format!("tc qdisc show dev {link}")).ok().out()).collect();
        let limited = shown.iter().filter(|text| text.contains("tbf") && text.contains("rate 5Mbit")).count();
        assert_eq!(limited, 1, "{shown:?}");
        let is_there = |host: &TestHost| {
            let rules = host.sh("nft list ruleset; iptables-save -t mangle 2>/dev/null").ok().out();
            rules.contains(": 1:10") || rules.contains("--set-class 0001:0010")
        };
        assert!(is_there(&host));
        host.minidock(&["network", "disconnect", "second", "aa"]).ok();
        assert!(!is_there(&host), "the class goes with the card");
        host.remove(&["aa", "bb"]);
        host.minidock(&["network", "rm", "first", "second"]).ok();
        without_tree(host);
    }
}

fn disciplines(host: &TestHost) -> String {
    host.sh("tc qdisc show dev uplink; tc class show dev uplink").ok().out()
}

#[test]
fn a_rate_needs_no_tree_made_by_hand_and_takes_its_own_away() {
    let host = TestHost::new();
    let before = disciplines(&host);
    let with_host = ["run", "--rm", "--network", "host", "--net-rate", "4mbit", "busybox", "true"];
    if !has_cgroup2(&host) {
        let refused = host.minidock(&with_host).exits(125);
        assert!(refused.err().contains("it needs cgroup2"), "{}", refused.err());
        assert_eq!(disciplines(&host), before);
        return host.finish();
    }
    let sinks = [5040, 5041, 5042].map(|port| Sink::new(&host, port));
    for (name, network, rate, port) in
        [("aa", "bridge", "2mbit", 5040), ("bb", "bridge", "6mbit", 5041), ("cc", "host", "4mbit", 5042)]
    {
        let flags = ["--name", name, "--network", network, "--net-rate", rate];
        host.detached(&[&flags[..], &["busybox", "sh", "-c", &sender(port)]].concat());
    }
    assert_rates(&[2, 6, 4], || rates(&sinks));
    host.remove(&["bb", "cc"]);
    assert_eq!(host.sh("tc class show dev uplink").ok().out().lines().count(), 1, "the others' classes are gone");
    // All processes at once; the next command finds what they left.
    host.kill_everything();
    host.minidock(&["rm", "-f", "aa"]).ok();
    assert_eq!(disciplines(&host), before);
    host.finish();
}

#[test]
fn a_rate_uses_a_tree_that_is_there_and_leaves_it() {
    let host = TestHost::new();
    make_tree(&host);
    let before = disciplines(&host);
    let sinks = [5050, 5051].map(|port| Sink::new(&host, port));
    host.detached(&["--name", "aa", "--net-rate", "12mbit,ceil=14mbit", "busybox", "sh", "-c", &sender(5050)]);
    host.detached(&["--name", "bb", "--net-cls", "1:10", "busybox", "sh", "-c", &sender(5051)]);
    let classes = host.sh("tc class show dev uplink").ok().out();
    assert!(classes.contains("rate 12Mbit ceil 14Mbit"), "{classes}");
    assert_rates(&[2], || rates(&sinks)[1..].to_vec());
    host.remove(&["aa", "bb"]);
    assert_eq!(disciplines(&host), before);
    // A discipline without classes is somebody's choice.
    host.sh("tc qdisc replace dev uplink root tbf rate 100mbit burst 64k latency 50ms").ok();
    let refused = host.minidock(&["run", "--rm", "--net-rate", "8mbit", "busybox", "true"]);
    assert_eq!(refused.code(), 125);
    assert!(refused.err().contains("uplink has the queueing discipline tbf"), "{}", refused.err());
    assert!(disciplines(&host).contains("tbf"));
    without_tree(host);
}

#[test]
fn a_class_that_is_somebody_else_s_by_now_stays() {
    let host = TestHost::new();
    make_tree(&host);
    host.detached(&["--name", "aa", "--net-rate", "12mbit", "busybox", "sleep", "1000"]);
    let classes = host.sh("tc class show dev uplink").ok().out();
    let class = classes.lines().find(|line| line.contains("12Mbit")).unwrap().split(' ').nth(2).unwrap().to_owned();
    host.sh(&format!("tc class del dev uplink classid {class}")).ok();
    host.sh(&format!("tc class add dev uplink parent 1: classid {class} htb rate 13mbit")).ok();
    host.remove(&["aa"]);
    assert!(host.sh("tc class show dev uplink").ok().out().contains("rate 13Mbit"), "it isn't minidock's");
    without_tree(host);
}

#[test]
fn what_comes_to_a_container_has_a_rate_too() {
    let host = TestHost::new();
    let listener = host.outside.run(|| TcpListener::bind((OUTSIDE, 5060)).unwrap());
    host.detached(&[
        "--name",
        "aa",
        "--net-rate-in",
        "6mbit",
        "busybox",
        "sh",
        "-c",
        &format!("nc {OUTSIDE} 5060 >/dev/null"),
    ]);
    let (mut stream, _) = listener.accept().unwrap();
    let stop = AtomicBool::new(false);
    let received = || {
        let text = host.minidock(&["exec", "aa", "cat", "/sys/class/net/eth0/statistics/rx_bytes"]).ok().out();
        (Instant::now(), text.parse::<u64>().unwrap())
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let block = [0; 65536];
            while !stop.load(Ordering::Relaxed) {
                if stream.write_all(&block).is_err() {
                    break;
                }
            }
        });
        std::thread::sleep(WARM_UP);
        let measure = || {
            let (start, before) = received();
            std::thread::sleep(WINDOW);
            let (end, after) = received();
            vec![(after - before) as f64 * 8e-6 / (end - start).as_secs_f64()]
        };
        let measured = std::panic::catch_unwind(AssertUnwindSafe(|| assert_rates(&[6], measure)));
        stop.store(true, Ordering::Relaxed); // also after a failure, or the sender would never be joined
        measured.unwrap();
    });
    host.remove(&["aa"]);
    host.finish();
}

#[test]
fn a_bad_line_where_the_kernel_has_netem_and_a_reason_where_not() {
    let host = TestHost::new();
    let has_netem = host.sh("tc qdisc add dev lo root netem delay 1ms && tc qdisc del dev lo root").code() == 0;
    let flags = ["run", "--rm", "--net-delay", "100ms", "--net-loss", "0.1%", "busybox"];
    if has_netem {
        let shown = host.output_of(&["--net-delay", "200ms", "busybox", "ping", "-c", "1", "-W", "5", host::HOST]);
        let time: f64 = shown.split("time=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(time >= 200.0, "{shown}");
        let lost = ["run", "--rm", "--net-loss", "100%", "busybox", "ping", "-c", "3", "-W", "1", host::HOST];
        assert!(host.minidock(&lost).exits(1).out().contains("100% packet loss"));
        // A card that comes later is as bad.
        host.minidock(&["network", "create", "--subnet", "10.5.0.0/24", "later"]).ok();
        host.detached(&["--name", "aa", "--net-delay", "200ms", "busybox", "sleep", "1000"]);
        host.minidock(&["network", "connect", "later", "aa"]).ok();
        let shown = host.minidock(&["exec", "aa", "ping", "-c", "1", "-W", "5", "10.5.0.1"]).ok().out();
        let time: f64 = shown.split("time=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(time >= 200.0, "{shown}");
        host.remove(&["aa"]);
        host.minidock(&["network", "rm", "later"]).ok();
    } else {
        host::lacks("sch_netem");
        let refused = host.minidock(&[&flags[..], &["true"]].concat());
        assert_eq!(refused.code(), 125);
        assert!(refused.err().contains("this kernel has no sch_netem"), "{}", refused.err());
    }
    host.finish();
}

/// Rows 6 to 8 of the lecture, each command typed by hand beside minidock: the same classes, the same rates.
#[test]
fn the_lectures_own_commands_give_the_same() {
    let host = TestHost::new();
    make_tree(&host);
    let mounted =
        host.sh("mkdir -p /sys/fs/cgroup/net_cls && mount -t cgroup -onet_cls net_cls /sys/fs/cgroup/net_cls");
    if mounted.code() != 0 {
        return without_tree(host); // held with other controllers by this machine
    }
    // Row 8. This kernel may lack tc's cgroup classifier: then nft says the same in its words.
    host.sh(
        "tc filter add dev uplink protocol ip parent 1:0 prio 1 handle 1: cgroup 2>/dev/null ||
         nft 'table ip byhand { chain out { type filter hook output priority mangle; meta cgroup != 0 meta priority set meta cgroup; }; }'",
    )
    .ok();
    // Row 7, for a port.
    host.sh("tc filter add dev uplink protocol ip parent 1:0 prio 2 u32 match ip dport 5071 0xffff flowid 1:11").ok();
    let group = format!("/sys/fs/cgroup/net_cls/byhand{}", std::process::id());
    host.sh(&format!("mkdir {group}; echo 0x00010010 > {group}/net_cls.classid")).ok();
    let sinks = [5070, 5071, 5072].map(|port| Sink::new(&host, port));
    let script = format!("echo $$ > {group}/tasks; exec sh -c 'busybox nc {OUTSIDE} 5070 </dev/zero'");
    let by_hand = host.shell(&host.host, &script).spawn();
    host.detached(&["--name", "bb", "busybox", "sh", "-c", &sender(5071)]);
    host.detached(&["--name", "cc", "busybox", "sh", "-c", &sender(5072)]);
    assert_rates(&[2, 4, 8], || rates(&sinks));
    drop(sinks);
    host.remove(&["bb", "cc"]);
    by_hand.wait();
    wait_until("the group is empty", || host.sh(&format!("rmdir {group}")).code() == 0);
    host.sh("umount /sys/fs/cgroup/net_cls; rmdir /sys/fs/cgroup/net_cls 2>/dev/null; nft delete table ip byhand 2>/dev/null; true").ok();
    without_tree(host);
}
