//! The proxy against real sockets on loopback: 127.0.0.1 plays the host, 127.0.0.x the container.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;
use crate::PublishMode;
use crate::port::reserve;

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LIMIT: Duration = Duration::from_secs(20);

/// A proxy in a loop such as the monitor's.
struct Running {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Proxy>>,
}

/// The tests share one table of descriptors, and many systems begin with a limit of 1024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

fn proxy(protocol: Protocol, host: Ipv4Addr, container: SocketAddr, gate: Option<Gate>) -> Proxy {
    raise_descriptor_limit();
    let reserved = reserve(protocol, host, 0).unwrap();
    let mapping = PortMapping {
        protocol,
        host_address: host.into(),
        host_port: reserved.port(),
        container_port: container.port(),
        mode: PublishMode::Proxy,
    };
    Proxy::new(&mapping, container.ip(), reserved, gate).unwrap()
}

fn port_of(proxy: &Proxy) -> u16 {
    match &proxy.kind {
        Kind::Tcp(proxy) => proxy.reserved_port(),
        Kind::Udp(proxy) => proxy.reserved_port(),
    }
}

fn run(mut proxy: Proxy) -> Running {
    let (port, stop) = (port_of(&proxy), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let thread = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            turn(&mut proxy);
        }
        proxy
    });
    Running { port, stop, thread: Some(thread) }
}

/// Waits for at most 20 ms: long enough that a wrong `timeout` shows as slowness, short enough to stop soon.
fn turn(proxy: &mut Proxy) {
    let wait = proxy.timeout(Instant::now()).unwrap_or(LIMIT).min(Duration::from_millis(20));
    poll(&mut [PollFd::from_borrowed_fd(proxy.fd(), PollFlags::IN)], Some(&Timespec::try_from(wait).unwrap())).unwrap();
    proxy.ready(Instant::now());
}

impl Running {
    fn client(&self) -> TcpStream {
        let stream = TcpStream::connect((LOCAL, self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn stop(mut self) -> Proxy {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "still not: {what}");
        thread::sleep(Duration::from_millis(2)); // the pace of asking, not a wait for luck
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn container(address: [u8; 4]) -> TcpListener {
    TcpListener::bind((Ipv4Addr::from(address), 0)).unwrap()
}

/// Answers each connection with what it sends, to its end.
fn echo(listener: TcpListener) {
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    stream.write_all(&buffer[..read]).unwrap();
                }
            });
        }
    });
}

#[test]
fn bytes_arrive_whole_and_each_fin_is_passed_on_by_itself() {
    let server = container([127, 0, 1, 1]);
    let running = run(proxy(Protocol::Tcp, LOCAL, server.local_addr().unwrap(), None));
    let (sent, answer) = (pattern(9_000_001), pattern(7_000_003));
    let (expected, reply) = (sent.clone(), answer.clone());
    let served = thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap(); // ends only if the client's FIN came through
        assert!(got == expected);
        stream.write_all(&reply).unwrap(); // and the other direction is still open
    });
    let mut client = running.client();
    client.write_all(&sent).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got == answer);
    served.join().unwrap();
    assert_eq!(drain(running.stop()), 0);
}

/// Lets a stopped proxy finish; how many clients are left then.
fn drain(mut proxy: Proxy) -> usize {
    let end = Instant::now() + LIMIT;
    while proxy.clients() > 0 && Instant::now() < end {
        turn(&mut proxy);
    }
    proxy.clients()
}

#[test]
fn no_client_is_taken_before_the_container_listens() {
    let port = container([127, 0, 1, 2]).local_addr().unwrap(); // free again at once
    let running = run(proxy(Protocol::Tcp, LOCAL, port, Some(Gate::here().unwrap())));
    for _ in 0..20 {
        let error = TcpStream::connect((LOCAL, running.port)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        thread::sleep(Duration::from_millis(5)); // over several looks of the gate
    }
    echo(TcpListener::bind(port).unwrap());
    let mut client = None;
    until("connected", || {
        client = TcpStream::connect((LOCAL, running.port)).ok();
        client.is_some()
    });
    // The very first client that gets in is served.
    let mut client = client.unwrap();
    client.write_all(b"first").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"first");
}

#[test]
fn the_gate_looks_into_the_containers_namespace_and_not_into_ours() {
    let port = container([127, 0, 1, 3]).local_addr().unwrap();
    let (ready, inside) = std::sync::mpsc::channel();
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    let other = thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let netns = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        ready.send(netns).unwrap();
        finished.recv().unwrap();
        let _listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.port())).unwrap();
        ready.send(std::fs::File::open("/dev/null").unwrap()).unwrap();
        let _ = finished.recv();
    });
    let netns = inside.recv().unwrap();
    let home = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    let gate = Gate::inside(netns.as_fd()).unwrap();
    assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), home);
    let ours = TcpListener::bind(port).unwrap();
    let SocketAddr::V4(address) = port else { panic!() };
    assert_eq!(gate.is_open((*address.ip()).into(), port.port()), Ok(false), "{ours:?} is in another namespace");
    finish.send(()).unwrap();
    inside.recv().unwrap();
    assert_eq!(gate.is_open((*address.ip()).into(), port.port()), Ok(true));
    drop(finish);
    other.join().unwrap();
    assert_eq!(gate.is_open((*address.ip()).into(), port.port()), Ok(false));
}

#[test]
fn when_nobody_listens_any_more_a_client_gets_rst() {
    let server = container([127, 0, 1, 4]);
    let running = run(proxy(Protocol::Tcp, LOCAL, server.local_addr().unwrap(), Some(Gate::here().unwrap())));
    until("open", || TcpStream::connect((LOCAL, running.port)).is_ok());
    drop(server);
    let mut client = running.client();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_goes_through_in_both_directions() {
    let server = container([127, 0, 1, 5]);
    let running = run(proxy(Protocol::Tcp, LOCAL, server.local_addr().unwrap(), None));
    let abort = |stream: TcpStream| rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();

    let mut client = running.client();
    abort(server.accept().unwrap().0);
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);

    let client = running.client();
    let (mut inside, _) = server.accept().unwrap();
    abort(client);
    assert_eq!(inside.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);

    // After its FIN the client can still say that it has gone.
    let client = running.client();
    let (mut inside, _) = server.accept().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(inside.read(&mut [0; 1]).unwrap(), 0);
    abort(client);
    until("the server is told", || inside.take_error().unwrap().is_some());
    drop(inside);
    assert_eq!(drain(running.stop()), 0);
}

#[test]
fn a_client_that_does_not_read_costs_a_bounded_buffer_and_nobody_elses_time() {
    let server = container([127, 0, 1, 6]);
    let address = server.local_addr().unwrap();
    let running = run(proxy(Protocol::Tcp, LOCAL, address, None));
    let slow = running.client();
    let (flood, _) = server.accept().unwrap();
    flood.set_nonblocking(true).unwrap();
    echo(server);
    // Fill everything on the way until nothing has moved for a while.
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_millis(300) {
        if (&flood).write(&[7; 65536]).is_ok() {
            last = Instant::now();
        }
    }
    let mut other = running.client();
    let sent = pattern(1_000_000);
    let writer = thread::spawn({
        let (mut other, sent) = (other.try_clone().unwrap(), sent.clone());
        move || other.write_all(&sent).unwrap()
    });
    let mut got = vec![0; sent.len()];
    other.read_exact(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got == sent);
    drop(other);
    let proxy = running.stop();
    let Kind::Tcp(tcp) = &proxy.kind else { panic!() };
    assert!(tcp.kept() > 0 && tcp.kept() <= 64 * 1024, "{} bytes kept", tcp.kept());
    drop((slow, flood));
    let mut proxy = proxy;
    until("all gone", || {
        turn(&mut proxy);
        proxy.clients() == 0
    });
    let Kind::Tcp(tcp) = &proxy.kind else { panic!() };
    assert_eq!(tcp.kept(), 0, "the account of kept bytes is even");
}

#[test]
fn three_hundred_clients_at_once() {
    let server = container([127, 0, 1, 7]);
    let running = run(proxy(Protocol::Tcp, LOCAL, server.local_addr().unwrap(), None));
    echo(server);
    let clients: Vec<_> = (0..300).map(|_| running.client()).collect();
    for (number, mut client) in clients.iter().enumerate() {
        client.write_all(&(number as u64).to_be_bytes()).unwrap();
    }
    for (number, mut client) in clients.iter().enumerate() {
        let mut answer = [0; 8];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(u64::from_be_bytes(answer), number as u64);
    }
    drop(clients);
    assert_eq!(drain(running.stop()), 0);
}

/// Not a test of itself: the proxy process of the next one, which lowers its own limit of open files.
#[test]
#[ignore = "started by another test"]
fn child_with_few_descriptors() {
    let Ok(target) = std::env::var("MINIDOCK_TEST_PROXY_TARGET") else {
        return;
    };
    let proxy = proxy(Protocol::Tcp, LOCAL, target.parse().unwrap(), None);
    println!("\nport={}", port_of(&proxy));
    let mut proxy = proxy;
    loop {
        turn(&mut proxy);
    }
}

#[test]
fn out_of_descriptors_it_pauses_and_goes_on() {
    let server = container([127, 0, 1, 8]);
    let target = server.local_addr().unwrap().to_string();
    echo(server);
    let name = "proxy::tests::child_with_few_descriptors";
    let mut child = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 24; exec \"$0\" --ignored --nocapture --exact \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env("MINIDOCK_TEST_PROXY_TARGET", target)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let port: u16 = lines.find_map(|line| line.unwrap().strip_prefix("port=").map(|p| p.parse().unwrap())).unwrap();
    // More clients than it has descriptors for: the kernel's queue holds those that can't be served yet.
    let mut clients: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect((LOCAL, port)).unwrap()).collect();
    for client in &mut clients {
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.write_all(b"?").unwrap();
    }
    for mut client in clients {
        let mut answer = [0; 1];
        client.read_exact(&mut answer).unwrap();
        // The client ends here, and its descriptors serve the next.
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn udp_client(to: [u8; 4], port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((LOCAL, 0)).unwrap();
    // A connected socket takes answers from this very address alone.
    socket.connect((Ipv4Addr::from(to), port)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

fn ask(client: &UdpSocket, text: &[u8]) -> Vec<u8> {
    client.send(text).unwrap();
    let mut buffer = [0; 65536];
    let length = client.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

fn udp_echo(socket: UdpSocket) {
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
}

#[test]
fn udp_answers_find_their_client_and_come_from_the_address_it_used() {
    let server = UdpSocket::bind("127.0.2.1:0").unwrap();
    let running = run(proxy(Protocol::Udp, Ipv4Addr::UNSPECIFIED, server.local_addr().unwrap(), None));
    udp_echo(server);
    let clients = [udp_client([127, 0, 0, 1], running.port), udp_client([127, 0, 0, 9], running.port)];
    for round in 0..3u8 {
        for (number, client) in clients.iter().enumerate() {
            let text = [round, number as u8];
            assert_eq!(ask(client, &text), text);
        }
    }
    let large = pattern(60_000);
    assert!(ask(&clients[0], &large) == large);
    assert_eq!(ask(&clients[1], b""), b"", "an empty datagram is a datagram");
    assert_eq!(running.stop().clients(), 2);
}

#[test]
fn udp_datagrams_sent_before_the_container_answers_cost_no_later_one() {
    let address = UdpSocket::bind("127.0.2.2:0").unwrap().local_addr().unwrap();
    let mut proxy = proxy(Protocol::Udp, LOCAL, address, None);
    let client = udp_client([127, 0, 0, 1], port_of(&proxy));
    // Nobody there: ICMP makes an error on the inner socket, which must not swallow what follows.
    for _ in 0..3 {
        client.send(b"lost").unwrap();
        until("taken", || {
            proxy.ready(Instant::now());
            proxy.clients() == 1
        });
    }
    // Takes the last error away; the next one is read by nobody before the datagram that matters.
    proxy.ready(Instant::now());
    client.send(b"refused, and its error is still unread").unwrap();
    let Kind::Udp(udp) = &mut proxy.kind else { panic!() };
    udp.forward(Instant::now());
    let server = UdpSocket::bind(address).unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    client.send(b"kept").unwrap();
    udp.forward(Instant::now());
    let mut buffer = [0; 16];
    let (length, _) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"kept");
}

#[test]
fn silent_udp_clients_are_forgotten_and_their_number_is_bounded() {
    let server = UdpSocket::bind("127.0.2.3:0").unwrap();
    let mut proxy = proxy(Protocol::Udp, LOCAL, server.local_addr().unwrap(), None);
    let to = (LOCAL, port_of(&proxy));
    let mut known = std::collections::BTreeSet::new();
    for _ in 0..1200 {
        let client = UdpSocket::bind((LOCAL, 0)).unwrap();
        known.insert(client.local_addr().unwrap().port());
        client.send_to(b"x", to).unwrap();
        proxy.ready(Instant::now());
        assert!(proxy.clients() <= 1024);
    }
    assert!(proxy.clients() == 1024 || known.len() < 1024, "{} of {}", proxy.clients(), known.len());
    proxy.ready(Instant::now() + Duration::from_secs(80));
    assert!(proxy.clients() > 0);
    proxy.ready(Instant::now() + Duration::from_secs(95));
    assert_eq!(proxy.clients(), 0);
    assert_eq!(proxy.timeout(Instant::now()), None, "nothing to sweep, nothing to wake up for");
}

#[test]
fn sctp_is_refused_with_the_reason() {
    let Ok(reserved) = reserve(Protocol::Sctp, LOCAL, 0) else {
        return;
    };
    let mapping = PortMapping {
        protocol: Protocol::Sctp,
        host_address: LOCAL.into(),
        host_port: 1,
        container_port: 1,
        mode: PublishMode::Proxy,
    };
    let error = Proxy::new(&mapping, LOCAL, reserved, None).unwrap_err();
    assert!(error.to_string().contains("only tcp and udp"), "{error}");
}
