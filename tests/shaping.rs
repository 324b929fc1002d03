//! Traffic classes: what `--net-cls` and `--net-rate` promise is measured through the host's uplink, in an outside
//! namespace, on several containers at the same time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use host::{Firewall, OUTSIDE, TestHost, wait_until};

/// What of a full frame on Ethernet is a TCP segment's data, with time stamps; the rest is headers, which tc counts.
const GOODPUT: f64 = 1448.0 / 1514.0;
/// Long enough for TCP to find its rate and for the first burst to be over.
const WARM_UP: Duration = Duration::from_millis(1500);
const WINDOW: Duration = Duration::from_secs(4);

/// The tree of the lecture, made by hand: Mbit/s of 1:10, 1:11 and the default class.
const TREE: [(&str, u32); 3] = [("1:10", 8), ("1:11", 20), ("1:30", 40)];

fn make_tree(host: &TestHost) {
    let mut script = "tc qdisc add dev uplink root handle 1: htb default 30\n".to_string();
    for (class, rate) in TREE {
        script += &format!(
            "tc class add dev uplink parent 1: classid {class} htb rate {rate}mbit ceil {rate}mbit burst 16k\n"
        );
    }
    host.sh(&script).ok();
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

#[track_caller]
fn assert_rates(measured: &[f64], wanted: &[u32]) {
    let near = |(is, should): (&f64, &u32)| (is / f64::from(*should) - 1.0).abs() < 0.10;
    assert!(measured.iter().zip(wanted).all(near), "measured {measured:.1?} Mbit/s, not {wanted:?}");
}

/// Three containers in 1:10, 1:11 and the default class; with the flags for all of them.
fn measure(host: &TestHost, flags: &[&str]) -> Vec<f64> {
    let sinks = [5010, 5011, 5030].map(|port| Sink::new(host, port));
    for (name, class, port) in [("aa", Some("1:10"), 5010), ("bb", Some("1:11"), 5011), ("cc", None, 5030)] {
        let class = class.map(|class| vec!["--net-cls", class]).unwrap_or_default();
        let command = sender(port);
        host.detached(&[&["--name", name][..], flags, &class, &["busybox", "sh", "-c", &command]].concat());
    }
    let measured = rates(&sinks);
    host.remove(&["aa", "bb", "cc"]);
    measured
}

fn without_tree(host: TestHost) {
    host.sh("tc qdisc del dev uplink root").ok();
    host.finish();
}

#[test]
fn bridged_containers_are_in_their_classes_with_nftables() {
    let host = TestHost::with_firewall(Firewall::Nftables);
    make_tree(&host);
    assert_rates(&measure(&host, &[]), &[8, 20, 40]);
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
    assert_rates(&measure(&host, &[]), &[8, 20, 40]);
    assert!(!host.sh("iptables-save -t mangle").ok().out().contains("CLASSIFY"));
    without_tree(host);
}

#[test]
fn containers_of_the_hosts_network_are_in_their_classes() {
    let host = TestHost::new();
    make_tree(&host);
    assert_rates(&measure(&host, &["--network", "host"]), &[8, 20, 40]);
    without_tree(host);
}

fn disciplines(host: &TestHost) -> String {
    host.sh("tc qdisc show dev uplink; tc class show dev uplink").ok().out()
}

#[test]
fn a_rate_needs_no_tree_made_by_hand_and_takes_its_own_away() {
    let host = TestHost::new();
    let before = disciplines(&host);
    let sinks = [5040, 5041, 5042].map(|port| Sink::new(&host, port));
    for (name, network, rate, port) in
        [("aa", "bridge", "8mbit", 5040), ("bb", "bridge", "20mbit", 5041), ("cc", "host", "12mbit", 5042)]
    {
        let flags = ["--name", name, "--network", network, "--net-rate", rate];
        host.detached(&[&flags[..], &["busybox", "sh", "-c", &sender(port)]].concat());
    }
    assert_rates(&rates(&sinks), &[8, 20, 12]);
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
    assert_rates(&rates(&sinks)[1..], &[8]);
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
fn what_comes_to_a_container_has_a_rate_too() {
    let host = TestHost::new();
    let listener = host.outside.run(|| TcpListener::bind((OUTSIDE, 5060)).unwrap());
    host.detached(&[
        "--name",
        "aa",
        "--net-rate-in",
        "16mbit",
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
    let rate = std::thread::scope(|scope| {
        scope.spawn(|| {
            let block = [0; 65536];
            while !stop.load(Ordering::Relaxed) {
                if stream.write_all(&block).is_err() {
                    break;
                }
            }
        });
        std::thread::sleep(WARM_UP);
        let (start, before) = received();
        std::thread::sleep(WINDOW);
        let (end, after) = received();
        stop.store(true, Ordering::Relaxed);
        (after - before) as f64 * 8e-6 / (end - start).as_secs_f64()
    });
    assert_rates(&[rate], &[16]);
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
    } else {
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
    assert_rates(&rates(&sinks), &[8, 20, 40]);
    drop(sinks);
    host.remove(&["bb", "cc"]);
    by_hand.wait();
    wait_until("the group is empty", || host.sh(&format!("rmdir {group}")).code() == 0);
    host.sh("umount /sys/fs/cgroup/net_cls; rmdir /sys/fs/cgroup/net_cls 2>/dev/null; nft delete table ip byhand 2>/dev/null; true").ok();
    without_tree(host);
}
