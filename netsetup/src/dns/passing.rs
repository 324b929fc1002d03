//! Questions that were passed on and wait for an answer: a bounded table. Each attempt has a socket of its own, so that its
//! port is as hard to guess for a forger as its id; it's connected, so that only the server's answers come in.

use std::io::ErrorKind;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{self, Query, Said};
use super::upstream::Server;

/// Waiting questions of the container. Two descriptors each at most.
pub(super) const MOST: usize = 256;
/// Of one client (a socket of a program), so that one that floods leaves room for the others.
const MOST_OF_ONE: usize = 32;
/// The next server is asked too after so much silence. Clients wait for 5 s.
const PATIENCE: Duration = Duration::from_secs(1);
/// Then the client is told that there's no answer.
const LIMIT: Duration = Duration::from_secs(8);

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Udp(SocketAddrV4),
    /// The connection's place and its number.
    Tcp(usize, u32),
}

/// A question to be passed on.
pub(super) struct Asked<'a> {
    pub from: From,
    /// As the client sent it.
    pub message: &'a [u8],
    pub query: Query,
    pub servers: Vec<Server>,
}

/// A question that waits.
#[derive(Debug)]
struct Waiting {
    from: From,
    message: Vec<u8>,
    query: Query,
    servers: Vec<Server>,
    /// A server has been silent for too long. (One that refuses costs no time.)
    silence: bool,
    /// How many attempts there have been.
    tried: usize,
    attempts: [Option<Attempt>; 2],
    next: Instant,
    limit: Instant,
    /// The last server's refusal, for the client if no other knows better.
    refusal: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Attempt {
    socket: OwnedFd,
    id: u16,
    server: usize,
    /// By TCP: what is still to be sent, and what has come.
    stream: Option<(Vec<u8>, Vec<u8>)>,
}

/// What a server says.
enum Verdict {
    /// The answer, and the server's number.
    Answer(Vec<u8>, usize),
    /// It can't; with its words, if it had any.
    Failure(Option<Vec<u8>>),
}

/// What became of a question.
#[derive(Debug)]
pub(super) struct Done {
    pub from: From,
    pub message: Vec<u8>,
    pub query: Query,
    /// None: no server said anything.
    pub answer: Option<Vec<u8>>,
    /// The server that answered after others were silent.
    pub preferred: Option<Server>,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Passing {
    slots: Vec<Option<Waiting>>,
    free: Vec<usize>,
    count: usize,
}

/// Opens a socket in the right namespace.
pub(super) trait Open: Fn(Server, SocketType) -> Result<OwnedFd, Errno> {}
impl<F: Fn(Server, SocketType) -> Result<OwnedFd, Errno>> Open for F {}

impl Passing {
    /// Takes a question on. Gives back what came of it: whether it waits now, and what has been decided.
    pub fn add(&mut self, asked: Asked<'_>, epoll: &OwnedFd, open: &impl Open, now: Instant) -> (bool, Vec<Done>) {
        let mut done = Vec::new();
        if !self.make_room(asked.from, asked.message, &mut done) {
            return (false, done);
        }
        let mut waiting = Waiting {
            from: asked.from,
            message: asked.message.to_vec(),
            query: asked.query,
            servers: asked.servers,
            silence: false,
            tried: 0,
            attempts: [None, None],
            next: now,
            limit: now + LIMIT,
            refusal: None,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let sent = waiting.ask_next(slot, epoll, open, now);
        self.count += 1;
        self.slots[slot] = Some(waiting);
        if !sent {
            done.extend(self.finish(slot, None, None));
        }
        (true, done)
    }

    /// False for a question that waits already (its client has lost patience) and for one too many.
    fn make_room(&mut self, from: From, message: &[u8], done: &mut Vec<Done>) -> bool {
        let mut of_one = 0;
        for waiting in self.slots.iter().flatten().filter(|waiting| waiting.from == from) {
            if waiting.message == message {
                return false;
            }
            of_one += 1;
        }
        if of_one >= MOST_OF_ONE {
            return false;
        }
        if self.count >= MOST {
            // Whoever has most of them loses the oldest.
            let share = |one: &Waiting| self.slots.iter().flatten().filter(|other| other.from == one.from).count();
            let candidates = self.slots.iter().enumerate().filter_map(|(slot, one)| Some((slot, one.as_ref()?)));
            let worst = candidates.max_by_key(|(_, one)| (share(one), std::cmp::Reverse(one.limit)));
            match worst.map(|(slot, _)| slot) {
                Some(slot) => done.extend(self.finish(slot, None, None)),
                None => return false,
            }
        }
        true
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.count
    }

    /// When there's something to do without input.
    pub fn deadline(&self) -> Option<Instant> {
        self.slots.iter().flatten().map(|waiting| waiting.next.min(waiting.limit)).min()
    }

    /// Forgets the questions of a connection that is gone.
    pub fn forget(&mut self, from: From) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].as_ref().is_some_and(|waiting| waiting.from == from) {
                drop(self.finish(slot, None, None));
            }
        }
    }

    /// Asks further servers where the first ones are silent, and gives up where all are.
    pub fn turn(&mut self, epoll: &OwnedFd, open: &impl Open, now: Instant) -> Vec<Done> {
        let mut done = Vec::new();
        for slot in 0..self.slots.len() {
            let Some(waiting) = &mut self.slots[slot] else { continue };
            let over = now >= waiting.limit;
            waiting.silence |= now >= waiting.next;
            if over || now >= waiting.next && !waiting.ask_next(slot, epoll, open, now) && waiting.is_alone() {
                done.extend(self.finish(slot, None, None));
            }
        }
        done
    }

    /// Input for an attempt: `token` is the slot × 2 + which.
    pub fn ready(&mut self, token: usize, epoll: &OwnedFd, open: &impl Open, now: Instant) -> Option<Done> {
        let (slot, which) = (token / 2, token % 2);
        let waiting = self.slots.get_mut(slot)?.as_mut()?;
        let answer = waiting.read(which, epoll, token)?;
        match answer {
            Verdict::Answer(bytes, server) => {
                let late = server != 0 && waiting.silence;
                let preferred = waiting.servers.get(server).copied().filter(|_| late);
                self.finish(slot, Some(bytes), preferred)
            }
            Verdict::Failure(refusal) => {
                // This server can't: the next one at once, but nobody is asked twice for it.
                waiting.attempts[which] = None;
                waiting.refusal = refusal.or(waiting.refusal.take());
                let more = waiting.tried < waiting.servers.len() && waiting.ask_next(slot, epoll, open, now);
                if more || !waiting.is_alone() {
                    return None;
                }
                self.finish(slot, None, None)
            }
        }
    }

    fn finish(&mut self, slot: usize, answer: Option<Vec<u8>>, preferred: Option<Server>) -> Option<Done> {
        let waiting = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        self.count -= 1;
        let answer = answer.or(waiting.refusal);
        Some(Done { from: waiting.from, message: waiting.message, query: waiting.query, answer, preferred })
    }
}

impl Waiting {
    fn is_alone(&self) -> bool {
        self.attempts.iter().all(Option::is_none)
    }

    /// Asks the next server that can be asked; false when there's none (any more).
    fn ask_next(&mut self, slot: usize, epoll: &OwnedFd, open: &impl Open, now: Instant) -> bool {
        // Two rounds by UDP, for a datagram can be lost.
        let most = self.servers.len() * if matches!(self.from, From::Udp(_)) { 2 } else { 1 };
        while self.tried < most {
            let (server, which) = (self.tried % self.servers.len(), self.tried % 2);
            self.tried += 1;
            self.next = now + PATIENCE;
            let attempt = self.attempt(server, open).and_then(|attempt| {
                let events = if attempt.stream.is_some() { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
                epoll::add(epoll, &attempt.socket, EventData::new_u64((slot * 2 + which) as u64), events)?;
                Ok(attempt)
            });
            if let Ok(attempt) = attempt {
                self.attempts[which] = Some(attempt);
                return true;
            }
        }
        self.next = self.limit;
        false
    }

    fn attempt(&self, server: usize, open: &impl Open) -> Result<Attempt, Errno> {
        let to = self.servers.get(server).copied().ok_or(Errno::INVAL)?;
        let mut random = [0; 2];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let mut message = self.message.clone();
        message.get_mut(..2).ok_or(Errno::INVAL)?.copy_from_slice(&random);
        let id = u16::from_be_bytes(random);
        if matches!(self.from, From::Udp(_)) {
            let socket = open(to, SocketType::DGRAM)?;
            net::connect(&socket, &to.address)?;
            net::send(&socket, &message, SendFlags::NOSIGNAL)?;
            return Ok(Attempt { socket, id, server, stream: None });
        }
        let socket = open(to, SocketType::STREAM)?;
        match net::connect(&socket, &to.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno),
        }
        let mut out = (message.len() as u16).to_be_bytes().to_vec();
        out.extend_from_slice(&message);
        Ok(Attempt { socket, id, server, stream: Some((out, Vec::new())) })
    }

    /// What the server says; `None`: nothing yet.
    fn read(&mut self, which: usize, epoll: &OwnedFd, token: usize) -> Option<Verdict> {
        let attempt = self.attempts.get_mut(which)?.as_mut()?;
        let (id, server) = (attempt.id, attempt.server);
        let judge = |bytes: Vec<u8>| match message::response(&bytes, id, &self.message, self.query.end) {
            Said::Nothing => None,
            Said::Answer => Some(Verdict::Answer(bytes, server)),
            Said::Failure => Some(Verdict::Failure(Some(bytes))),
        };
        if attempt.stream.is_some() {
            return match attempt.exchange(epoll, token) {
                Ok(None) => None,
                Ok(Some(bytes)) => judge(bytes).or(Some(Verdict::Failure(None))),
                Err(_) => Some(Verdict::Failure(None)),
            };
        }
        let mut buffer = vec![0; 65536];
        for _ in 0..8 {
            match net::recv(&attempt.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    // What doesn't fit is forged, or late: the true answer may still come.
                    if let Some(verdict) = judge(buffer[..length].to_vec()) {
                        return Some(verdict);
                    }
                }
                Err(Errno::AGAIN) => return None,
                Err(_) => return Some(Verdict::Failure(None)), // ICMP: nobody there
            }
        }
        None
    }
}

impl Attempt {
    /// Sends and receives what goes; the whole answer once it's there.
    fn exchange(&mut self, epoll: &OwnedFd, token: usize) -> std::io::Result<Option<Vec<u8>>> {
        let Some((out, input)) = &mut self.stream else { return Ok(None) };
        if !out.is_empty() {
            match net::send(&self.socket, out, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(out.drain(..sent)),
                Err(Errno::AGAIN | Errno::INPROGRESS) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
            if out.is_empty() {
                epoll::modify(epoll, self.socket.as_fd(), EventData::new_u64(token as u64), EventFlags::IN)?;
            }
        }
        let mut chunk = [0; 4096];
        loop {
            match net::recv(&self.socket, &mut chunk[..], RecvFlags::empty()) {
                Ok((0, _)) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok((length, _)) => input.extend_from_slice(&chunk[..length]),
                Err(Errno::AGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
            if let [high, low, rest @ ..] = &input[..] {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if rest.len() >= length {
                    return Ok(Some(rest[..length].to_vec()));
                }
            }
        }
    }
}

/// A socket for a server, in the network namespace of this moment.
pub(super) fn socket(server: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}
