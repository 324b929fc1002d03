//! Names: containers find each other by DNS, everything else goes to the host's name servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use host::namespaces::Namespaces;
use host::{LIMIT, OUTSIDE, TestHost, wait_until};

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const TXT: u16 = 16;

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

/// The code of an answer, and its records' data as text: addresses, and names with dots.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    code: u8,
    data: Vec<String>,
}

fn read(question: &[u8], message: &[u8]) -> Answer {
    assert_eq!(message[..2], question[..2], "the id");
    assert_eq!(message[12..question.len()], question[12..], "the question");
    let mut at = question.len();
    let mut data = Vec::new();
    for _ in 0..u16::from_be_bytes([message[6], message[7]]) {
        let length = usize::from(u16::from_be_bytes([message[at + 10], message[at + 11]]));
        let bytes = &message[at + 12..at + 12 + length];
        data.push(match bytes {
            [a, b, c, d] => format!("{a}.{b}.{c}.{d}"),
            bytes if bytes.len() == 16 => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap()).to_string(),
            bytes => {
                let (mut words, mut rest) = (vec![], bytes);
                while let [length, after @ ..] = rest {
                    if *length == 0 {
                        break;
                    }
                    let (label, more) = after.split_at(usize::from(*length).min(after.len()));
                    words.push(String::from_utf8_lossy(label).into_owned());
                    rest = more;
                }
                words.join(".")
            }
        });
        at += 12 + length;
    }
    Answer { code: message[3] & 0xf, data }
}

/// Asks as a C library does: by UDP to 127.0.0.11, once more after a while; none after `patience`.
fn try_ask(place: &Namespaces, name: &str, kind: u16, patience: Duration) -> Option<Answer> {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let question = question(NEXT.fetch_add(1, Ordering::Relaxed) as u16, name, kind);
    let socket = place.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.connect("127.0.0.11:53").unwrap();
    let start = Instant::now();
    let mut buffer = [0; 4096];
    while start.elapsed() < patience {
        let _ = socket.send(&question); // refused by ICMP where nobody listens
        socket.set_read_timeout(Some(patience.min(Duration::from_secs(1)))).unwrap();
        if let Ok(length) = socket.recv(&mut buffer) {
            return Some(read(&question, &buffer[..length]));
        }
    }
    None
}

#[track_caller]
fn ask(place: &Namespaces, name: &str, kind: u16) -> Answer {
    try_ask(place, name, kind, LIMIT).unwrap_or_else(|| panic!("no answer about {name}"))
}

#[track_caller]
fn addresses(place: &Namespaces, name: &str) -> Vec<String> {
    let answer = ask(place, name, A);
    assert_eq!(answer.code, 0, "{name}");
    answer.data
}

fn ask_tcp(place: &Namespaces, name: &str) -> Answer {
    let question = question(9, name, A);
    let mut stream = place.run(|| TcpStream::connect("127.0.0.11:53")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(&[&(question.len() as u16).to_be_bytes()[..], &question].concat()).unwrap();
    read(&question, &receive(&mut stream).unwrap())
}

fn receive(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// A name server that answers each question with its own address, by UDP and TCP; it remembers what it was asked. (Not how
/// often: who is answered late asks again.)
struct Upstream {
    stop: Arc<AtomicBool>,
    asked: Arc<Mutex<BTreeSet<String>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

fn upstream(place: &Namespaces, address: &str) -> Upstream {
    let at = format!("{address}:53");
    let (udp, tcp) = place.run(|| (UdpSocket::bind(&at).unwrap(), TcpListener::bind(&at).unwrap()));
    udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeSet::new())));
    let mine: std::net::Ipv4Addr = address.parse().unwrap();
    let answer = move |question: &[u8]| {
        let mut answer = question.to_vec();
        answer[2] |= 0x80;
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
        answer.extend_from_slice(&mine.octets());
        answer
    };
    let (stopped, seen) = (stop.clone(), asked.clone());
    let by_udp = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while !stopped.load(Ordering::Relaxed) {
            if let Ok((length, from)) = udp.recv_from(&mut buffer) {
                seen.lock().unwrap().insert(name_in(&buffer[..length]));
                let _ = udp.send_to(&answer(&buffer[..length]), from);
            }
        }
    });
    let (stopped, seen) = (stop.clone(), asked.clone());
    let by_tcp = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            let Ok((mut stream, _)) = tcp.accept() else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            if let Ok(question) = receive(&mut stream) {
                seen.lock().unwrap().insert(format!("{} by TCP", name_in(&question)));
                let answer = answer(&question);
                let _ = stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat());
            }
        }
    });
    Upstream { stop, asked, threads: vec![by_udp, by_tcp] }
}

impl Upstream {
    fn was_asked(&self, name: &str) -> bool {
        self.asked.lock().unwrap().contains(name)
    }
}

/// The name in a question, with dots.
fn name_in(question: &[u8]) -> String {
    let (mut words, mut rest) = (Vec::new(), question.get(12..).unwrap_or_default());
    while let [length, after @ ..] = rest {
        if *length == 0 {
            break;
        }
        let (word, more) = after.split_at(usize::from(*length).min(after.len()));
        words.push(String::from_utf8_lossy(word).into_owned());
        rest = more;
    }
    words.join(".").to_lowercase()
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Gives the test host a resolv.conf of its own.
fn resolv_conf(host: &TestHost, text: &str) {
    let file = host.work.join("resolv.conf");
    let first = !file.exists();
    std::fs::write(&file, text).unwrap();
    if first {
        host.sh(&format!("mount --bind {} /etc/resolv.conf", file.display())).ok();
    }
}

fn finish(host: TestHost) {
    host.sh("! grep -q ' /etc/resolv.conf ' /proc/self/mountinfo || umount /etc/resolv.conf").ok();
    host.finish();
}

#[test]
fn containers_on_the_default_bridge_find_each_other() {
    let host = TestHost::new();
    let id = host.detached(&["--name", "web", "demo"]);
    let address = host.address("web");
    // The program's own resolver, that of the C library in busybox.
    let page = host.output_of(&["busybox", "wget", "-qO-", "http://web/json"]);
    assert!(page.contains("\"hostname\""), "{page}");
    let found = host.output_of(&["busybox", "nslookup", "web"]);
    assert!(found.contains(&address) && found.contains("127.0.0.11"), "{found}");
    let shell = host.detached(&["--name", "shell", "busybox", "sleep", "1000"]);
    let inside = host.inside("shell");
    for name in ["web", "WEB", &id[..12], "web.bridge"] {
        assert_eq!(addresses(&inside, name), [address.as_str()], "{name}");
        assert_eq!(ask_tcp(&inside, name).data, [address.as_str()], "{name} by TCP");
    }
    assert_eq!(addresses(&inside, &shell[..12]), [host.address("shell")], "its own");
    assert_eq!(ask(&inside, "web", AAAA), Answer { code: 0, data: vec![] }, "it's there, but has no IPv6");
    assert_eq!(ask(&inside, "web", TXT), Answer { code: 0, data: vec![] });
    let mut reversed: Vec<&str> = address.split('.').rev().collect();
    reversed.push("in-addr.arpa");
    assert_eq!(ask(&inside, &reversed.join("."), PTR).data, ["web.bridge"]);
    // Gone with the container, at once; back when it is.
    host.minidock(&["stop", "-t", "0", "web"]).ok();
    assert!(ask(&inside, "web", A).data.is_empty());
    host.minidock(&["start", "web"]).ok();
    assert_eq!(addresses(&inside, "web"), [host.address("web")]);
    host.minidock(&["rename", "web", "www"]).ok();
    assert_eq!(addresses(&inside, "www"), [host.address("www")]);
    assert!(ask(&inside, "web", A).data.is_empty());
    host.minidock(&["restart", "-t", "0", "www"]).ok();
    assert_eq!(addresses(&inside, "www"), [host.address("www")]);
    host.remove(&["www", "shell"]);
    finish(host);
}

#[test]
fn other_names_go_to_the_hosts_servers_even_after_they_change() {
    let host = TestHost::new();
    host.outside("ip addr add 10.99.0.3/24 dev eth0").ok();
    let (first, second) = (upstream(&host.outside, OUTSIDE), upstream(&host.outside, "10.99.0.3"));
    resolv_conf(&host, &format!("nameserver {OUTSIDE}\nsearch lab.test\n"));
    host.detached(&["--name", "aa", "busybox", "sleep", "1000"]);
    let inside = host.inside("aa");
    assert_eq!(addresses(&inside, "example.org"), [OUTSIDE]);
    assert_eq!(ask_tcp(&inside, "tcp.example.org").data, [OUTSIDE]);
    assert!(first.was_asked("example.org") && first.was_asked("tcp.example.org by TCP"));
    let text = host.minidock(&["exec", "aa", "cat", "/etc/resolv.conf"]).ok().out();
    assert_eq!(text, "nameserver 127.0.0.11\nsearch lab.test\noptions ndots:0");
    // The names of containers are nobody else's business.
    ask(&inside, "aa", A);
    ask(&inside, "aa", TXT);
    assert!(!first.was_asked("aa") && !first.was_asked("aa by TCP"));
    resolv_conf(&host, "nameserver 10.99.0.3\n");
    assert_eq!(addresses(&inside, "second.example.org"), ["10.99.0.3"]);
    assert_eq!((first.was_asked("second.example.org"), second.was_asked("second.example.org")), (false, true));
    // systemd-resolved's stub isn't asked (nobody is there), but the servers behind it.
    host.sh("mkdir -p /run/systemd/resolve; echo nameserver 10.99.0.2 >/run/systemd/resolve/resolv.conf").ok();
    resolv_conf(&host, "nameserver 127.0.0.53\noptions edns0 trust-ad\n");
    assert_eq!(addresses(&inside, "example.org"), [OUTSIDE]);
    host.sh("rm -r /run/systemd").ok();
    // A server on the host's own loopback, such as dnsmasq.
    let local = upstream(&host.host, "127.0.0.1");
    resolv_conf(&host, "nameserver 127.0.0.1\n");
    assert_eq!(addresses(&inside, "example.org"), ["127.0.0.1"]);
    drop((first, second, local));
    assert_eq!(ask(&inside, "example.org", A).code, 2, "no server: a failure, not silence");
    host.outside("ip addr del 10.99.0.3/24 dev eth0").ok();
    host.remove(&["aa"]);
    finish(host);
}

#[test]
fn servers_of_dns_are_asked_from_inside_the_container() {
    let host = TestHost::new();
    let elsewhere = upstream(&host.host, "127.0.0.1");
    resolv_conf(&host, "nameserver 127.0.0.1\n");
    host.detached(&["--name", "aa", "--dns", "127.0.0.1", "--dns", OUTSIDE, "busybox", "sleep", "1000"]);
    let inside = host.inside("aa");
    let outside = upstream(&host.outside, OUTSIDE);
    assert_eq!(addresses(&inside, "example.org"), [OUTSIDE], "nobody listens on its own 127.0.0.1");
    let own = upstream(&inside, "127.0.0.1");
    // One that is late, on a loaded machine, isn't waited for.
    wait_until("its own server is asked first", || addresses(&inside, "own.example.org") == ["127.0.0.1"]);
    assert!(own.was_asked("own.example.org") && elsewhere.asked.lock().unwrap().is_empty());
    drop((own, outside, elsewhere));
    host.remove(&["aa"]);
    finish(host);
}

#[test]
fn a_container_may_be_a_name_server_itself() {
    let host = TestHost::new();
    host.detached(&["--name", "dns", "busybox", "sleep", "1000"]);
    let inside = host.inside("dns");
    let own = upstream(&inside, "0.0.0.0");
    assert_eq!(addresses(&inside, "dns"), [host.address("dns")]);
    assert!(own.asked.lock().unwrap().is_empty(), "127.0.0.11 is still ours");
    drop(own);
    host.remove(&["dns"]);
    finish(host);
}

#[test]
fn containers_without_a_network_of_their_own() {
    let host = TestHost::new();
    resolv_conf(&host, "nameserver 10.99.0.2\n");
    host.detached(&["--name", "aa", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "guest", "--network", "container:aa", "busybox", "sleep", "1000"]);
    let text = |network: &str| host.output_of(&["--network", network, "busybox", "cat", "/etc/resolv.conf"]);
    assert_eq!(text("none"), "nameserver 10.99.0.2");
    assert_eq!(text("host"), "nameserver 10.99.0.2");
    assert!(text("container:aa").contains("nameserver 127.0.0.11"));
    assert_eq!(addresses(&host.inside("guest"), "aa"), [host.address("aa")]);
    host.detached(&["--name", "lonely", "--network", "none", "busybox", "sleep", "1000"]);
    assert_eq!(try_ask(&host.inside("lonely"), "aa", A, Duration::from_millis(300)), None);
    assert!(ask(&host.inside("aa"), "lonely", A).data.is_empty(), "it's in no network");
    host.remove(&["guest", "aa", "lonely"]);
    finish(host);
}

#[test]
fn the_name_goes_when_monitor_and_program_are_killed() {
    let host = TestHost::new();
    host.detached(&["--name", "aa", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "bb", "--rm", "busybox", "sleep", "1000"]);
    let inside = host.inside("aa");
    assert_eq!(addresses(&inside, "bb"), [host.address("bb")]);
    let monitor = host.sh(&format!("awk '/^PPid:/{{print $2}}' /proc/{}/status", host.pid("bb"))).ok().out();
    host.sh(&format!("kill -9 {monitor}")).ok();
    wait_until("the cleaner has struck b out", || ask(&inside, "bb", A).data.is_empty());
    host.remove(&["aa"]);
    finish(host);
}

/// Ends the flood, also when the test fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_container_that_floods_starves_nobody() {
    let host = TestHost::new();
    let server = upstream(&host.outside, OUTSIDE);
    resolv_conf(&host, &format!("nameserver {OUTSIDE}\n"));
    for name in ["bad", "good"] {
        host.detached(&["--name", name, "busybox", "sleep", "1000"]);
    }
    let (bad, good) = (host.inside("bad"), host.inside("good"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stops = Stops(&stop);
        scope.spawn(|| {
            let socket = bad.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
            socket.connect("127.0.0.11:53").unwrap();
            let mut number = 0u32;
            while !stop.load(Ordering::Relaxed) {
                number = number.wrapping_add(1);
                let _ = match number % 3 {
                    0 => socket.send(&vec![number as u8; number as usize % 700]),
                    1 => socket.send(&question(number as u16, &format!("n{number}.example.org"), A)),
                    _ => socket.send(&question(number as u16, "good", A)),
                };
            }
        });
        scope.spawn(|| {
            let mut held = std::collections::VecDeque::new();
            while !stop.load(Ordering::Relaxed) {
                held.extend(bad.run(|| TcpStream::connect("127.0.0.11:53")));
                if held.len() > 100 {
                    held.pop_front();
                }
            }
        });
        for number in 0..20 {
            assert_eq!(addresses(&good, "bad"), [host.address("bad")]);
            assert_eq!(addresses(&good, &format!("g{number}.example.org")), [OUTSIDE]);
            // Others in the flooding container itself.
            assert_eq!(addresses(&bad, "good"), [host.address("good")]);
            assert_eq!(addresses(&bad, &format!("b{number}.example.org")), [OUTSIDE]);
        }
        assert_eq!(ask_tcp(&bad, "good").data, [host.address("good")]);
        // And its monitor still does the rest of its work.
        assert_eq!(host.minidock(&["exec", "bad", "echo", "here"]).ok().out(), "here");
    });
    drop(server);
    host.remove(&["bad", "good"]);
    finish(host);
}

#[test]
fn names_on_networks_of_ones_own() {
    let host = TestHost::new();
    let server = upstream(&host.outside, OUTSIDE);
    resolv_conf(&host, &format!("nameserver {OUTSIDE}\n"));
    host.minidock(&["network", "create", "front"]).ok();
    host.minidock(&["network", "create", "--internal", "back"]).ok();
    let address = |name: &str, network: &str| {
        host.inspect(name, &format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}"))
    };
    for name in ["db1", "db2"] {
        host.detached(&["--name", name, "--network", "back", "--network-alias", "db", "busybox", "sleep", "1000"]);
    }
    host.detached(&["--name", "web", "--network", "front", "--network", "back", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "client", "--network", "front", "busybox", "sleep", "1000"]);
    let (db, web, client) = (host.inside("db1"), host.inside("web"), host.inside("client"));
    // Both with the alias, each in its turn the first.
    let mut both = vec![address("db1", "back"), address("db2", "back")];
    both.sort();
    let firsts: BTreeSet<String> = (0..6).map(|_| addresses(&web, "db")[0].clone()).collect();
    assert_eq!(firsts.len(), 2, "they take turns");
    let mut found = addresses(&web, "db");
    found.sort();
    assert_eq!(found, both);
    // Names of networks that one isn't in stay unknown, and each network tells its own address.
    assert_eq!(addresses(&db, "web"), [address("web", "back")]);
    assert_eq!(addresses(&client, "web"), [address("web", "front")]);
    assert_eq!(addresses(&web, "web.back"), [address("web", "back")]);
    assert_eq!(addresses(&client, "db1"), [OUTSIDE], "somebody outside may have that name");
    // An internal network asks nobody; who is in another one too may.
    assert_eq!(ask(&db, "secret.example.org", A).code, 2);
    assert_eq!(ask_tcp(&db, "secret.example.org").code, 2);
    for asked in ["secret.example.org", "secret.example.org by TCP"] {
        assert!(!server.was_asked(asked), "a question left the internal network");
    }
    assert_eq!(addresses(&web, "example.org"), [OUTSIDE]);
    // On the fly.
    host.minidock(&["network", "connect", "--alias", "late", "back", "client"]).ok();
    assert_eq!(addresses(&client, "db1"), [address("db1", "back")]);
    assert_eq!(addresses(&db, "late"), [address("client", "back")]);
    host.minidock(&["network", "disconnect", "back", "client"]).ok();
    assert_eq!(addresses(&client, "db1"), [OUTSIDE]);
    assert!(ask(&db, "late", A).data.is_empty());
    drop(server);
    host.remove(&["db1", "db2", "web", "client"]);
    host.minidock(&["network", "rm", "front", "back"]).ok();
    finish(host);
}

/// IPv6 addresses by name and back, also of a card that comes later.
#[test]
fn ipv6_addresses_by_name_and_back() {
    let host = TestHost::new();
    host.minidock(&["network", "create", "--ipv6", "--subnet", "fd00:53::/64", "six"]).ok();
    host.detached(&["--name", "web", "--network", "six", "--ip6", "fd00:53::9", "busybox", "sleep", "1000"]);
    host.detached(&["--name", "aa", "--network", "six", "busybox", "sleep", "1000"]);
    let inside = host.inside("aa");
    assert_eq!(ask(&inside, "web", AAAA), Answer { code: 0, data: vec!["fd00:53::9".into()] });
    let nibbles: Vec<String> = u128::from("fd00:53::9".parse::<std::net::Ipv6Addr>().unwrap())
        .to_be_bytes()
        .iter()
        .rev()
        .flat_map(|byte| [format!("{:x}", byte & 15), format!("{:x}", byte >> 4)])
        .collect();
    assert_eq!(ask(&inside, &format!("{}.ip6.arpa", nibbles.join(".")), PTR).data, ["web.six"]);
    host.minidock(&["network", "disconnect", "six", "web"]).ok();
    assert!(ask(&inside, "web", AAAA).data.is_empty());
    host.minidock(&["network", "connect", "--ip6", "fd00:53::b00", "six", "web"]).ok();
    assert_eq!(ask(&inside, "web", AAAA).data, ["fd00:53::b00"]);
    host.remove(&["web", "aa"]);
    host.minidock(&["network", "rm", "six"]).ok();
    finish(host);
}

/// The process that serves a container's names.
fn monitor(host: &TestHost, container: &str) -> String {
    host.sh(&format!("awk '/^PPid:/{{print $2}}' /proc/{}/status", host.pid(container))).ok().out()
}

/// A small limit of the caller's is enough for the program, but not for the name server of the container.
#[test]
fn a_small_limit_of_open_files_is_not_the_name_servers() {
    let host = TestHost::new();
    let server = upstream(&host.outside, OUTSIDE);
    resolv_conf(&host, &format!("nameserver {OUTSIDE}\n"));
    let minidock = host::minidock();
    host.sh(&format!("ulimit -Sn 48; exec {} run -d --name aa busybox sleep 1000", minidock.display())).ok();
    let inside = host.inside("aa");
    let held: Vec<TcpStream> = (0..60).map(|_| inside.run(|| TcpStream::connect("127.0.0.11:53")).unwrap()).collect();
    assert_eq!(addresses(&inside, "example.org"), [OUTSIDE]);
    let connections = || host.sh(&format!("ls -l /proc/{}/fd | grep -c socket:", monitor(&host, "aa"))).ok().out();
    wait_until("all are served", || connections().parse::<u32>().unwrap() > 60);
    let limit = host.sh(&format!("prlimit --noheadings -o SOFT -n -p {}", host.pid("aa"))).ok().out();
    assert_eq!(limit.trim(), "48", "the program's own limit is the caller's");
    drop((held, server));
    host.remove(&["aa"]);
    finish(host);
}

/// No resolv.conf: the server on this machine is asked (resolv.conf(5)), and the container starts all the same.
#[test]
fn a_host_without_a_resolv_conf() {
    let host = TestHost::new();
    resolv_conf(&host, "");
    let local = upstream(&host.host, "127.0.0.1");
    host.detached(&["--name", "aa", "--dns-search", "lab.test", "--dns-option", "ndots:2", "busybox", "sleep", "1000"]);
    assert_eq!(addresses(&host.inside("aa"), "example.org"), ["127.0.0.1"]);
    let text = host.minidock(&["exec", "aa", "cat", "/etc/resolv.conf"]).ok().out();
    assert_eq!(text, "nameserver 127.0.0.11\nsearch lab.test\noptions ndots:2");
    drop(local);
    host.remove(&["aa"]);
    finish(host);
}
