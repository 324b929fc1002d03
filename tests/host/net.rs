//! Clients and servers on a test host, made of sockets that are born in one of its namespaces: no program needs to
//! be started, and a peer's address can be looked at.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::namespaces::Namespaces;
use super::{LIMIT, within};

/// How long a connection may take that is expected to fail: dropped packets answer nothing.
const REFUSED_LIMIT: Duration = Duration::from_millis(1500);

/// Connects from a namespace.
pub fn connect(from: &Namespaces, to: &str, limit: Duration) -> std::io::Result<TcpStream> {
    let to: SocketAddr = to.parse().expect("address:port");
    let stream = from.run(|| TcpStream::connect_timeout(&to, limit))?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// One HTTP/1.0 request; the answer's body.
pub fn fetch_once(from: &Namespaces, to: &str, path: &str) -> std::io::Result<String> {
    let mut stream = connect(from, to, Duration::from_secs(3))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.") && head.contains(" 200") => Ok(body.to_string()),
        _ => Err(std::io::Error::other(format!("no page but: {answer:?}"))),
    }
}

/// Fetches a page; tries again while the server is still starting.
#[track_caller]
pub fn fetch(from: &Namespaces, to: &str, path: &str) -> String {
    let mut last = None;
    within(LIMIT, || {
        last = Some(fetch_once(from, to, path));
        matches!(last, Some(Ok(_)))
    });
    last.expect("tried once").unwrap_or_else(|error| panic!("cannot fetch http://{to}{path}: {error}"))
}

/// Whether a TCP connection can't be made, neither accepted nor taken late.
pub fn unreachable(from: &Namespaces, to: &str) -> bool {
    connect(from, to, REFUSED_LIMIT).is_err()
}

/// Sends a datagram until an answer comes; the answer.
#[track_caller]
pub fn ask_udp(from: &Namespaces, to: &str, question: &str) -> String {
    let socket = from.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buffer = [0; 2048];
    let mut answer = None;
    within(LIMIT, || {
        let _ = socket.send_to(question.as_bytes(), to); // refused by ICMP while the server isn't there
        answer =
            socket.recv_from(&mut buffer).ok().map(|(size, _)| String::from_utf8_lossy(&buffer[..size]).into_owned());
        answer.is_some()
    });
    answer.unwrap_or_else(|| panic!("no answer by UDP from {to}"))
}

/// Whether a datagram gets no answer in a short time.
pub fn silent_udp(from: &Namespaces, to: &str) -> bool {
    let socket = from.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(REFUSED_LIMIT)).unwrap();
    let _ = socket.send_to(b"anybody?", to);
    socket.recv_from(&mut [0; 64]).is_err()
}

/// A server on a thread that tells each client its address; it ends when dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<IpAddr>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// HTTP on TCP: the body is the client's address.
    pub fn http(place: &Namespaces, address: &str) -> Server {
        let listener =
            place.run(|| TcpListener::bind(address)).unwrap_or_else(|error| panic!("listen on {address}: {error}"));
        listener.set_nonblocking(true).unwrap();
        Server::start(move |seen| match listener.accept() {
            Ok((stream, client)) => {
                seen.lock().unwrap().push(client.ip());
                let _ = greet(stream, client.ip()); // the client may have left
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        })
    }

    /// UDP: each datagram is answered by the sender's address and the datagram.
    pub fn udp(place: &Namespaces, address: &str) -> Server {
        let socket = place.run(|| UdpSocket::bind(address)).unwrap_or_else(|error| panic!("bind {address}: {error}"));
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Server::start(move |seen| {
            let mut buffer = [0; 2048];
            if let Ok((size, client)) = socket.recv_from(&mut buffer) {
                seen.lock().unwrap().push(client.ip());
                let answer = format!("{} {}", client.ip(), String::from_utf8_lossy(&buffer[..size]));
                let _ = socket.send_to(answer.as_bytes(), client);
            }
        })
    }

    fn start(mut turn: impl FnMut(&Mutex<Vec<IpAddr>>) + Send + 'static) -> Server {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, clients) = (stop.clone(), seen.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                turn(&clients);
            }
        });
        Server { stop, seen, thread: Some(thread) }
    }

    /// The addresses of all clients so far, each named once: who isn't answered in time comes again.
    pub fn clients(&self) -> Vec<String> {
        let mut clients: Vec<String> = self.seen.lock().unwrap().iter().map(IpAddr::to_string).collect();
        clients.sort();
        clients.dedup();
        clients
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn greet(mut stream: TcpStream, client: IpAddr) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    write!(stream, "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n{client}")
}
