//! The demo server's sockets: one poll loop over the listener, the signals and at most 256 clients, each with deadlines.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::http::{self, Parsed, Request, Response};
use super::page;
use super::view::{Client as Peer, View};

const MOST_CLIENTS: usize = 256;
/// A head must be whole, and an answer taken, within this time.
const EXCHANGE: Duration = Duration::from_secs(20);
/// An idle connection is kept for this time.
const IDLE: Duration = Duration::from_secs(60);
/// After the last answer the client has this time to close, so that no RST overtakes the answer.
const LINGER: Duration = Duration::from_secs(2);
/// After SIGTERM answers on their way have this time.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long no client is accepted when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    deadline: Instant,
    state: State,
}

#[derive(PartialEq)]
enum State {
    /// Waits for a request, or for the rest of one.
    Reading,
    /// Sends an answer; `true`: another request may follow.
    Answering(bool),
    /// FIN has been sent; what comes is thrown away.
    Lingering(usize),
}

/// Serves until SIGTERM or SIGINT. PID 1 gets no signal that it has no handler for: here they come through a signalfd, so
/// that `docker stop` doesn't take its ten seconds.
pub(super) fn run(port: u16) -> Result<(), String> {
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGCHLD]
        .into_iter()
        .for_each(|signal| signals.add(signal));
    signals.thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|error| format!("cannot wait for signals: {error}"))?;
    let listener = listen(port)
        .map_err(|error| format!("cannot listen at port {port}: {error}; choose another with PORT=8080"))?;
    log(&format!("listening at port {port}, pid {}", std::process::id()));

    let mut clients: Vec<Client> = Vec::new();
    let mut accept_from = Instant::now();
    let mut farewell: Option<Instant> = None;
    loop {
        let now = Instant::now();
        clients.retain(|client| now < client.deadline);
        if farewell.is_some_and(|end| now >= end || clients.is_empty()) {
            return Ok(());
        }
        let accepting = farewell.is_none() && clients.len() < MOST_CLIENTS && now >= accept_from;
        let (signalled, knocking, touched) =
            wait(&signals, accepting.then_some(&listener), &clients, farewell, accept_from)?;
        let now = Instant::now();
        for index in touched.into_iter().rev() {
            if !clients[index].turn(now, farewell.is_none()) {
                clients.swap_remove(index);
            }
        }
        if knocking && !accept(&listener, &mut clients, now) {
            accept_from = now + PAUSE;
        }
        if signalled && let Some(signal) = read_signals(&signals) {
            log(&format!("{signal}: goodbye"));
            farewell = Some(now + FAREWELL);
            clients.retain(|client| matches!(client.state, State::Answering(_)));
        }
    }
}

/// Waits for the next event or deadline: (a signal, a new client, the clients with something to do).
fn wait(
    signals: &SignalFd,
    listener: Option<&TcpListener>,
    clients: &[Client],
    farewell: Option<Instant>,
    accept_from: Instant,
) -> Result<(bool, bool, Vec<usize>), String> {
    let mut fds = vec![PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
    for client in clients {
        let interest = if matches!(client.state, State::Answering(_)) { PollFlags::OUT } else { PollFlags::IN };
        fds.push(PollFd::from_borrowed_fd(client.stream.as_fd(), interest));
    }
    if let Some(listener) = listener {
        fds.push(PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN));
    }
    let now = Instant::now();
    let pause_end = Some(accept_from).filter(|at| *at > now);
    let next = clients.iter().map(|client| client.deadline).chain(farewell).chain(pause_end).min();
    let timeout =
        next.and_then(|at| Timespec::try_from(at.saturating_duration_since(now) + Duration::from_millis(1)).ok());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(format!("cannot wait for clients: {error}")),
    }
    let touched = (0..clients.len()).filter(|index| !fds[index + 1].revents().is_empty()).collect();
    let knocking = listener.is_some() && fds.last().is_some_and(|fd| !fd.revents().is_empty());
    Ok((!fds[0].revents().is_empty(), knocking, touched))
}

/// A socket for both IP families where there is IPv6, else for IPv4.
fn listen(port: u16) -> Result<TcpListener, rustix::io::Errno> {
    let open = |family| {
        let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if family == AddressFamily::INET6 {
            sockopt::set_ipv6_v6only(&socket, false)?;
            net::bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
        } else {
            net::bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        }
        net::listen(&socket, 512)?;
        Ok(TcpListener::from(socket))
    };
    // ipv6.disable=1 has no family, disable_ipv6=1 no address.
    open(AddressFamily::INET6).or_else(|_| open(AddressFamily::INET))
}

/// Takes whoever waits; `false` when descriptors have run out.
fn accept(listener: &TcpListener, clients: &mut Vec<Client>, now: Instant) -> bool {
    while clients.len() < MOST_CLIENTS {
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            // A client that has gone meanwhile is nobody's trouble.
            Err(error) => {
                return !matches!(
                    error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
                );
            }
        };
        if stream.set_nonblocking(true).is_ok() {
            let _ = stream.set_nodelay(true);
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let (input, output) = (Vec::new(), Vec::new());
            clients.push(Client {
                stream,
                peer,
                input,
                output,
                sent: 0,
                deadline: now + EXCHANGE,
                state: State::Reading,
            });
        }
    }
    true
}

/// The name of a signal that ends us. As PID 1 we are also everybody's parent: ended orphans are collected.
fn read_signals(signals: &SignalFd) -> Option<Signal> {
    let mut last = None;
    while let Ok(Some(info)) = signals.read_signal() {
        match Signal::try_from(info.ssi_signo as i32) {
            Ok(Signal::SIGCHLD) => {
                while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_)) {}
            }
            Ok(signal) => last = Some(signal),
            Err(_) => {}
        }
    }
    last
}

impl Client {
    /// Does what the socket allows; `false` when the connection is over. `stay`: no farewell yet.
    fn turn(&mut self, now: Instant, stay: bool) -> bool {
        match self.state {
            State::Reading => self.read(now, stay),
            State::Answering(_) => self.send(now, stay),
            State::Lingering(_) => self.linger(),
        }
    }

    fn read(&mut self, now: Instant, stay: bool) -> bool {
        let mut buffer = [0; http::MOST_HEAD_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                if self.input.is_empty() {
                    self.deadline = now + EXCHANGE; // the idle time is over
                }
                self.input.extend_from_slice(&buffer[..length]);
                self.answer(now, stay)
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// Answers the first request of the input, if it is whole.
    fn answer(&mut self, now: Instant, stay: bool) -> bool {
        let (response, is_head, keep_alive) = match http::parse(&self.input) {
            Parsed::Partial => return true,
            Parsed::Whole(request, used) => {
                let response = respond(&request, self.peer, self.stream.local_addr().ok());
                self.log(&self.input[..used], response.status, response.body.len());
                self.input.drain(..used);
                (response, request.is_head, request.keep_alive && stay)
            }
            Parsed::Refused((status, why)) => {
                let response = Response {
                    status,
                    content_type: "text/plain; charset=utf-8",
                    body: format!("{status}: {why}\n").into_bytes(),
                };
                self.log(&self.input, status, response.body.len());
                self.input = Vec::new();
                (response, false, false)
            }
        };
        let date = jiff::fmt::rfc2822::DateTimePrinter::new()
            .timestamp_to_rfc9110_string(&jiff::Timestamp::now())
            .unwrap_or_default();
        self.output = response.bytes(is_head, keep_alive, &date);
        self.sent = 0;
        self.deadline = now + EXCHANGE;
        self.state = State::Answering(keep_alive);
        self.send(now, stay)
    }

    fn send(&mut self, now: Instant, stay: bool) -> bool {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(0) => return false,
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        self.output = Vec::new();
        if self.state == State::Answering(true) && stay {
            self.state = State::Reading;
            self.deadline = now + if self.input.is_empty() { IDLE } else { EXCHANGE };
            // The next request may be here already (pipelining). Each is answered before the next is looked at, and the input is
            // bounded by what one read takes, so this doesn't go deep: a request has 18 bytes at least.
            return self.input.is_empty() || self.answer(now, stay);
        }
        self.deadline = now + LINGER;
        self.state = State::Lingering(0);
        self.stream.shutdown(Shutdown::Write).is_ok()
    }

    /// Reads away what the client still sends: closing with unread input would be an RST, which could destroy the answer.
    fn linger(&mut self) -> bool {
        let State::Lingering(thrown) = &mut self.state else {
            return false;
        };
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                *thrown += length;
                *thrown < 256 * 1024
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// `172.17.0.1:53422 "GET / HTTP/1.1" 200 15321`
    fn log(&self, head: &[u8], status: u16, length: usize) {
        let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).find(|line| !line.is_empty()).unwrap_or_default();
        log(&format!("{} \"{}\" {status} {length}", self.peer, line[..line.len().min(200)].escape_ascii()));
    }
}

/// Nobody may read our stdout; that is no reason to end.
fn log(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn respond(request: &Request, peer: SocketAddr, local: Option<SocketAddr>) -> Response {
    let view = || View::read(Peer::new(peer, local));
    let (status, content_type, body) = match request.path.as_str() {
        "/" | "/index.html" => (200, "text/html; charset=utf-8", page::render(&view()).into_bytes()),
        "/json" => (200, "application/json", view().json()),
        "/healthz" => (200, "text/plain; charset=utf-8", b"ok\n".to_vec()),
        path => (404, "text/html; charset=utf-8", page::not_found(path).into_bytes()),
    };
    Response { status, content_type, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connected pair, and the server's side of it as a client of ours.
    fn connected() -> (TcpStream, Client) {
        let listener = listen(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let outside = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        outside.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut clients = Vec::new();
        assert!(accept(&listener, &mut clients, Instant::now()));
        (outside, clients.remove(0))
    }

    /// Turns until the client's side of a finished exchange is to be read.
    fn serve(client: &mut Client) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(client.stream.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::try_from(Duration::from_secs(10)).unwrap())).unwrap();
        client.turn(Instant::now(), true)
    }

    #[test]
    fn two_requests_in_one_packet_are_answered_in_order_on_one_connection() {
        let (mut outside, mut client) = connected();
        outside
            .write_all(
                b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nHEAD /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            )
            .unwrap();
        assert!(serve(&mut client));
        let mut text = String::new();
        outside.read_to_string(&mut text).unwrap(); // ends by our FIN
        let second = text.find("\r\n\r\nok\n").unwrap() + 7;
        assert!(text.starts_with("HTTP/1.1 200 OK") && text[second..].starts_with("HTTP/1.1 404 Not Found"), "{text}");
        assert!(text.ends_with("Connection: close\r\n\r\n"), "HEAD has no body: {text}");
        outside.shutdown(Shutdown::Write).unwrap();
        assert!(!serve(&mut client), "over");
    }

    #[test]
    fn a_refused_request_gets_its_answer_although_its_body_is_still_coming() {
        let (mut outside, mut client) = connected();
        outside.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n").unwrap();
        outside.write_all(&[b'x'; 50_000]).unwrap();
        while client.state == State::Reading {
            assert!(serve(&mut client));
        }
        let mut text = String::new();
        outside.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 405 ") && text.contains("Allow: GET, HEAD\r\n"), "{text}");
    }

    #[test]
    fn an_ipv4_client_is_shown_with_its_ipv4_address() {
        let (outside, client) = connected();
        assert_eq!(client.peer, outside.local_addr().unwrap());
        assert!(client.peer.is_ipv4());
    }
}
