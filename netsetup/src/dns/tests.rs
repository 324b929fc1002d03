//! The resolver with real sockets, in a network namespace of each test's own.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::message::kind;
use super::names::{self, Entry};
use super::{Resolver, Scope, Sockets};

const LIMIT: Duration = Duration::from_secs(20);

/// Runs in a new network namespace with lo up.
fn in_namespace<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            assert!(std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
            action()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("netsetup-dns-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Folder(path)
    }

    fn scope(&self, internal: bool) -> Vec<Scope> {
        vec![Scope { network: "lab".into(), folder: self.0.clone(), internal }]
    }

    fn enter(&self, id: &str, addresses: &[&str], names: &[&str]) {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        names::publish(&self.0, id, &Entry { addresses, names }).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Serves on a thread until dropped.
struct Served {
    stop: Arc<AtomicBool>,
    /// Most questions that waited, most connections.
    most: Arc<[AtomicUsize; 2]>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn serve(scopes: Vec<Scope>, servers: &[&str]) -> Served {
    let servers: Vec<IpAddr> = servers.iter().map(|text| text.parse().unwrap()).collect();
    let mut resolver = Resolver::new(Sockets::here().unwrap(), scopes, &servers).unwrap();
    let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]));
    let (stopped, seen) = (stop.clone(), most.clone());
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            let now = Instant::now();
            let wait = resolver.timeout(now).unwrap_or(LIMIT).min(Duration::from_millis(20));
            let wait = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as i64 };
            let _ = poll(&mut [PollFd::from_borrowed_fd(resolver.fd(), PollFlags::IN)], Some(&wait));
            resolver.ready(Instant::now());
            let (waiting, clients) = resolver.load();
            seen[0].fetch_max(waiting, Ordering::Relaxed);
            seen[1].fetch_max(clients, Ordering::Relaxed);
        }
    });
    Served { stop, most, thread: Some(thread) }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&1u16.to_be_bytes());
    message
}

/// An answer: its code, and the data of its records.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    code: u8,
    cut: bool,
    data: Vec<Vec<u8>>,
}

fn read(question: &[u8], message: &[u8]) -> Answer {
    assert_eq!(message[..2], question[..2], "the client's id");
    assert_eq!(message[12..question.len()], question[12..], "the client's question");
    let count = u16::from_be_bytes([message[6], message[7]]);
    let mut at = question.len();
    let data = (0..count).map(|_| {
        let length = usize::from(u16::from_be_bytes([message[at + 10], message[at + 11]]));
        at += 12 + length;
        message[at - length..at].to_vec()
    });
    let data = data.collect();
    Answer { code: message[3] & 0xf, cut: message[2] & 2 != 0, data }
}

fn try_udp(socket: &UdpSocket, name: &str, kind: u16, wait: Duration) -> Option<Answer> {
    let question = question(rand(), name, kind);
    socket.send(&question).unwrap();
    socket.set_read_timeout(Some(wait)).unwrap();
    let mut buffer = [0; 65536];
    loop {
        let length = socket.recv(&mut buffer).ok()?;
        if buffer[..2] == question[..2] {
            return Some(read(&question, &buffer[..length]));
        }
    }
}

fn rand() -> u16 {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    u16::from_be_bytes(bytes)
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect("127.0.0.11:53").unwrap();
    socket
}

fn ask(name: &str, kind: u16) -> Answer {
    try_udp(&client(), name, kind, LIMIT).unwrap_or_else(|| panic!("no answer about {name}"))
}

fn addresses(name: &str) -> Vec<Vec<u8>> {
    let answer = ask(name, kind::A);
    assert_eq!(answer.code, 0);
    answer.data
}

fn ask_tcp(stream: &mut TcpStream, name: &str, kind: u16) -> Answer {
    let question = question(7, name, kind);
    stream.write_all(&(question.len() as u16).to_be_bytes()).unwrap();
    stream.write_all(&question).unwrap();
    read(&question, &receive_tcp(stream))
}

fn receive_tcp(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    answer
}

fn tcp() -> TcpStream {
    let stream = TcpStream::connect("127.0.0.11:53").unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// A server that says 192.0.2.1 to everything, but: `cut…` is too long for UDP, `silent…` gets nothing, `sick…` a failure.
/// Before each true answer by UDP it sends forged ones.
struct Upstream {
    asked: Arc<AtomicUsize>,
    ports: Arc<std::sync::Mutex<Vec<(u16, u16)>>>,
}

fn upstream(address: &str) -> Upstream {
    let address: IpAddr = address.parse().unwrap();
    let (asked, ports) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(vec![])));
    let udp = UdpSocket::bind(SocketAddr::new(address, 53)).unwrap();
    let tcp = TcpListener::bind(SocketAddr::new(address, 53)).unwrap();
    let (count, seen) = (asked.clone(), ports.clone());
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::Relaxed);
            let question = &buffer[..length];
            seen.lock().unwrap().push((from.port(), u16::from_be_bytes([question[0], question[1]])));
            let name = String::from_utf8_lossy(&question[13..]).into_owned();
            if name.starts_with("silent") {
                continue;
            }
            let mut forged = upstream_answer(question, 0, 99);
            forged[0] ^= 0x55;
            udp.send_to(&forged, from).unwrap();
            let mut forged = upstream_answer(question, 0, 99);
            forged[13] ^= 1;
            udp.send_to(&forged, from).unwrap();
            let mut answer = upstream_answer(question, if name.starts_with("sick") { 2 } else { 0 }, 1);
            if name.starts_with("cut") {
                answer[2] |= 2;
            }
            udp.send_to(&answer, from).unwrap();
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let question = receive_tcp(&mut stream);
            let answer = upstream_answer(&question, 0, 1);
            let (first, second) = answer.split_at(20);
            stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(first).unwrap();
            stream.write_all(second).unwrap();
        }
    });
    Upstream { asked, ports }
}

fn upstream_answer(question: &[u8], code: u8, last: u8) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= 0x80;
    answer[3] = 0x80 | code;
    answer[7] = 1;
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, last]);
    answer
}

#[test]
fn names_are_answered_by_udp_and_tcp() {
    let folder = Folder::new("answered");
    in_namespace(|| {
        let _served = serve(folder.scope(true), &[]);
        folder.enter("c1", &["172.18.0.2", "fd00::2"], &["web", "0123456789ab", "all"]);
        folder.enter("c2", &["172.18.0.3"], &["db", "all"]);
        for name in ["web", "WEB", "0123456789ab", "web.lab"] {
            assert_eq!(addresses(name), [[172, 18, 0, 2]], "{name}");
        }
        assert_eq!(ask("web", kind::AAAA).data, [[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]]);
        assert_eq!(ask("db", kind::AAAA), Answer { code: 0, cut: false, data: vec![] }, "IPv4 only");
        assert_eq!(ask("3.0.18.172.in-addr.arpa", kind::PTR).data, [b"\x02db\x03lab\0"]);
        let firsts: std::collections::BTreeSet<Vec<u8>> = (0..4).map(|_| addresses("all")[0].clone()).collect();
        assert_eq!(firsts.len(), 2, "they take turns");
        let mut stream = tcp();
        for name in ["web", "all", "db"] {
            assert_eq!(ask_tcp(&mut stream, name, kind::A).code, 0, "{name}");
        }
        assert_eq!(ask("nobody", kind::A).code, 2, "a closed network asks nobody");
        names::withdraw(&folder.0, "c2").unwrap();
        assert_eq!(ask("db", kind::A).code, 2, "gone at once");
    });
}

#[test]
fn the_rest_is_passed_on_and_forged_answers_are_not_believed() {
    let folder = Folder::new("passed");
    in_namespace(|| {
        let server = upstream("127.0.0.1");
        let _served = serve(folder.scope(false), &["127.0.0.1"]);
        folder.enter("c1", &["172.18.0.2"], &["web"]);
        for number in 0..20 {
            assert_eq!(addresses(&format!("a{number}.example.org")), [[192, 0, 2, 1]]);
        }
        let ports = server.ports.lock().unwrap().clone();
        let differ = |values: Vec<u16>| values.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(differ(ports.iter().map(|(port, _)| *port).collect()) > 15, "ports are random: {ports:?}");
        assert!(differ(ports.iter().map(|(_, id)| *id).collect()) > 15, "ids are random: {ports:?}");
        assert!(ask("cut.example.org", kind::A).cut, "the client is told to come by TCP");
        assert_eq!(ask_tcp(&mut tcp(), "cut.example.org", kind::A).data, [[192, 0, 2, 1]]);
        assert_eq!(ask("sick.example.org", kind::A).code, 2);
        let before = server.asked.load(Ordering::Relaxed);
        ask("web", kind::A);
        ask("web", 15);
        ask("web", kind::AAAA);
        assert_eq!(server.asked.load(Ordering::Relaxed), before, "our own names stay here");
    });
}

#[test]
fn another_server_is_asked_when_one_is_dead_silent_or_sick() {
    let folder = Folder::new("another");
    in_namespace(|| {
        // Nobody listens on .2; .3 is silent; .4 answers.
        let mute = UdpSocket::bind("127.0.0.3:53").unwrap();
        let good = upstream("127.0.0.4");
        let _served = serve(folder.scope(false), &["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
        let start = Instant::now();
        assert_eq!(addresses("a.example.org"), [[192, 0, 2, 1]]);
        assert!(start.elapsed() > Duration::from_millis(900), "the silent one was given its time");
        // Who answered is asked first now. (One that is late, on a loaded machine, isn't waited for.)
        mute.set_nonblocking(true).unwrap();
        let alone = (0..10).any(|number| {
            while mute.recv_from(&mut [0; 512]).is_ok() {}
            assert_eq!(addresses(&format!("b{number}.example.org")), [[192, 0, 2, 1]]);
            mute.recv_from(&mut [0; 512]).is_err()
        });
        assert!(alone, "the silent one is asked again and again");
        assert!(good.asked.load(Ordering::Relaxed) >= 2);
        assert_eq!(ask_tcp(&mut tcp(), "c.example.org", kind::A).data, [[192, 0, 2, 1]]);
    });
}

#[test]
fn a_server_that_never_answers_is_told_as_a_failure_within_its_time() {
    let folder = Folder::new("never");
    in_namespace(|| {
        let _mute = UdpSocket::bind("127.0.0.3:53").unwrap();
        let _served = serve(folder.scope(false), &["127.0.0.3"]);
        let start = Instant::now();
        assert_eq!(ask("a.example.org", kind::A).code, 2);
        assert!(start.elapsed() > Duration::from_secs(7));
        assert_eq!(ask_tcp(&mut tcp(), "a.example.org", kind::A).code, 2);
    });
}

#[test]
fn one_that_floods_does_not_starve_the_others() {
    let folder = Folder::new("flood");
    in_namespace(|| {
        let _server = upstream("127.0.0.1");
        let served = serve(folder.scope(false), &["127.0.0.1"]);
        folder.enter("c1", &["172.18.0.2"], &["web"]);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Rubbish, questions that wait for ever, and connections that say nothing.
            scope.spawn(|| {
                let socket = client();
                let mut number = 0u32;
                while !stop.load(Ordering::Relaxed) {
                    number = number.wrapping_add(1);
                    let bytes = if number.is_multiple_of(2) {
                        vec![number as u8; (number % 600) as usize]
                    } else {
                        question(number as u16, &format!("silent{number}.example.org"), kind::A)
                    };
                    let _ = socket.send(&bytes);
                }
            });
            scope.spawn(|| {
                let mut held = std::collections::VecDeque::new();
                while !stop.load(Ordering::Relaxed) {
                    held.extend(TcpStream::connect("127.0.0.11:53").map(|mut stream| {
                        let _ = stream.write_all(&[0]);
                        stream
                    }));
                    if held.len() > 200 {
                        held.pop_front();
                    }
                }
            });
            let good = client();
            let patient = |name: &str| {
                // As a C library: asks again after a while.
                (0..120).any(|_| try_udp(&good, name, kind::A, Duration::from_millis(500)).is_some())
            };
            for number in 0..30 {
                assert!(patient("web"), "our own name, {number}");
                assert!(patient(&format!("b{number}.example.org")), "another's name, {number}");
            }
            assert_eq!(ask_tcp(&mut tcp(), "web", kind::A).data, [[172, 18, 0, 2]]);
            stop.store(true, Ordering::Relaxed);
        });
        let [waiting, clients] = &*served.most;
        assert!(waiting.load(Ordering::Relaxed) <= 256, "{waiting:?} questions waited");
        assert!(clients.load(Ordering::Relaxed) <= 64, "{clients:?} connections");
    });
}

/// More addresses than a plain datagram holds: cut by UDP, whole for who takes more (EDNS), and by TCP.
#[test]
fn a_long_answer_of_our_own_is_cut_and_whole_by_edns_and_tcp() {
    let folder = Folder::new("long");
    in_namespace(|| {
        let _served = serve(folder.scope(true), &[]);
        for number in 0..60 {
            folder.enter(&format!("c{number}"), &[&format!("172.18.1.{number}")], &["all"]);
        }
        let plain = ask("all", kind::A);
        assert!(plain.cut && plain.data.len() < 40, "{plain:?}");
        let mut question = question(77, "all", kind::A);
        question[11] = 1; // one additional record: OPT, root name, 4096 bytes
        question.extend_from_slice(&[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
        let socket = client();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.send(&question).unwrap();
        let mut buffer = [0; 8192];
        let length = socket.recv(&mut buffer).unwrap();
        assert!(length > 512 && buffer[2] & 2 == 0, "{length}");
        assert_eq!(u16::from_be_bytes([buffer[6], buffer[7]]), 60);
        let whole = ask_tcp(&mut tcp(), "all", kind::A);
        assert!(!whole.cut && whole.data.len() == 60, "{whole:?}");
    });
}

#[test]
fn a_container_may_have_a_name_server_of_its_own() {
    let folder = Folder::new("own");
    in_namespace(|| {
        let _served = serve(folder.scope(true), &[]);
        folder.enter("c1", &["172.18.0.2"], &["web"]);
        let _udp = UdpSocket::bind("0.0.0.0:53").unwrap();
        let _tcp = TcpListener::bind("0.0.0.0:53").unwrap();
        assert_eq!(addresses("web"), [[172, 18, 0, 2]]);
        assert_eq!(ask_tcp(&mut tcp(), "web", kind::A).data, [[172, 18, 0, 2]]);
    });
}

#[test]
fn many_messages_on_one_connection_and_a_closed_side() {
    let folder = Folder::new("many");
    in_namespace(|| {
        let _server = upstream("127.0.0.1");
        let _served = serve(folder.scope(false), &["127.0.0.1"]);
        let mut stream = tcp();
        let mut all = Vec::new();
        for number in 0..12u16 {
            let question = question(number, &format!("n{number}.example.org"), kind::A);
            all.extend_from_slice(&(question.len() as u16).to_be_bytes());
            all.extend_from_slice(&question);
        }
        stream.write_all(&all).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut ids: Vec<u16> = (0..12)
            .map(|_| {
                let answer = receive_tcp(&mut stream);
                u16::from_be_bytes([answer[0], answer[1]])
            })
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..12).collect::<Vec<u16>>());
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "then it's closed");
    });
}
