//! Traffic classes: what `--net-cls` and `--net-rate` promise is measured through the host's uplink, in an outside
//! namespace, on several containers at the same time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::io::Read;
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
