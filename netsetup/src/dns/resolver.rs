//! The resolver: what its sockets bring is answered from the register, or passed on.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketType};

use super::clients::{Clients, Turn};
use super::message::{self, Code, Query, Record, Reject, kind};
use super::names::View;
use super::passing::{self, Asked, Done, From, Passing};
use super::upstream::{Server, Upstreams};
use super::{Scope, Sockets, sockets};

/// Datagrams in one `ready`.
const TURN: usize = 64;
/// Longer questions than this by UDP are nobody's.
const LONGEST: usize = 4096;
/// Numbers in epoll: attempts from 0, connections from here, then the two sockets.
const CLIENTS: u64 = 1 << 32;
const UDP: u64 = 1 << 33;
const TCP: u64 = UDP + 1;

/// The DNS server of one container.
#[derive(Debug)]
pub struct Resolver {
    epoll: OwnedFd,
    sockets: Sockets,
    scopes: Vec<(Scope, View)>,
    upstreams: Upstreams,
    clients: Clients,
    passing: Passing,
    /// Goes up with each answer, so that several containers with one name get their turn.
    rotation: usize,
}

/// What our names say to a question.
enum Local {
    Records(Vec<Record>),
    /// Not our name.
    Unknown,
}

impl Resolver {
    /// Serves these sockets. `servers`: those of `--dns`, asked from inside the container; without, the host's.
    ///
    /// # Errors
    /// No descriptors or memory left.
    pub fn new(sockets: Sockets, scopes: Vec<Scope>, servers: &[IpAddr]) -> crate::Result<Resolver> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).and_then(|epoll| {
            epoll::add(&epoll, &sockets.udp, EventData::new_u64(UDP), EventFlags::IN)?;
            epoll::add(&epoll, &sockets.tcp, EventData::new_u64(TCP), EventFlags::IN)?;
            Ok(epoll)
        });
        let epoll = epoll.map_err(|errno| crate::Error::system("serve names to the container", errno))?;
        let mut resolver = Resolver {
            epoll,
            sockets,
            scopes: Vec::new(),
            upstreams: Upstreams::new(servers),
            clients: Clients::default(),
            passing: Passing::default(),
            rotation: 0,
        };
        resolver.set_scopes(scopes);
        Ok(resolver)
    }

    /// The networks that the container is in from now on.
    pub fn set_scopes(&mut self, scopes: Vec<Scope>) {
        let with_view = |scope: Scope| (scope.clone(), View::new(scope.folder));
        self.scopes = scopes.into_iter().map(with_view).collect();
    }

    /// An epoll descriptor: readable when [`Resolver::ready`] has something to do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// How long the owner may sleep at most before it calls [`Resolver::ready`] though `fd` is silent.
    pub fn timeout(&self, now: Instant) -> Option<Duration> {
        let deadline = [self.passing.deadline(), self.clients.deadline()].into_iter().flatten().min();
        deadline.map(|at| at.saturating_duration_since(now))
    }

    /// Does what there is to do, but only so much: the owner has other work. Errors concern single questions.
    pub fn ready(&mut self, now: Instant) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(TURN);
        let no_wait = rustix::event::Timespec::default();
        // Nothing here can fail but by a signal; then the next turn brings the same.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&no_wait));
        for event in &events {
            match event.data.u64() {
                UDP => self.receive(now),
                TCP => self.accept(now),
                number @ CLIENTS.. => self.serve((number - CLIENTS) as usize, now),
                token => {
                    let done = self.passing.ready(token as usize, &self.epoll, &opener(&self.sockets), now);
                    self.finish(done, now);
                }
            }
        }
        if self.passing.deadline().is_some_and(|at| now >= at) {
            let done = self.passing.turn(&self.epoll, &opener(&self.sockets), now);
            self.finish(done, now);
        }
        if self.clients.paused().is_some_and(|at| now >= at) {
            self.accept(now);
        }
        if self.clients.deadline().is_some_and(|at| now >= at) {
            let left = self.clients.sweep(now);
            self.forget(&left);
        }
    }

    /// How many questions wait, and how many TCP connections there are.
    pub fn load(&self) -> (usize, usize) {
        (self.passing.len(), self.clients.len())
    }

    /// Lets new connections in, and doesn't watch the listener while there are no descriptors for them.
    fn accept(&mut self, now: Instant) {
        let was_paused = self.clients.paused().is_some();
        let left = self.clients.accept(&self.sockets.tcp, &self.epoll, CLIENTS, now);
        self.forget(&left);
        let is_paused = self.clients.paused().is_some();
        if was_paused != is_paused {
            let events = if is_paused { EventFlags::empty() } else { EventFlags::IN };
            let _ = epoll::modify(&self.epoll, &self.sockets.tcp, EventData::new_u64(TCP), events); // it's in there
        }
    }

    fn receive(&mut self, now: Instant) {
        let mut buffer = [0; LONGEST];
        for _ in 0..TURN {
            match net::recvfrom(&self.sockets.udp, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _, Some(from))) => {
                    if let Ok(from) = SocketAddrV4::try_from(from) {
                        self.question(From::Udp(from), &buffer[..length], now);
                    }
                }
                Ok(_) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {} // ICMP for an earlier answer: its client is gone
            }
        }
    }

    fn serve(&mut self, slot: usize, now: Instant) {
        match self.clients.ready(slot, &self.epoll, CLIENTS, now) {
            Some(Turn::Messages(number, messages)) => {
                for message in messages {
                    self.question(From::Tcp(slot, number), &message, now);
                }
            }
            Some(Turn::Closed(number)) => self.passing.forget(From::Tcp(slot, number)),
            None => {}
        }
    }

    fn question(&mut self, from: From, bytes: &[u8], now: Instant) {
        let query = match Query::read(bytes) {
            Ok(query) => query,
            Err(Reject::Silently) => return,
            Err(Reject::With(code)) => return self.answer(from, &message::rejection(bytes, code), false, now),
        };
        let most = most(from, &query);
        if let Local::Records(records) = self.local(&query) {
            return self.answer(from, &query.answer(bytes, Code::NoError, &records, most), false, now);
        }
        // CVE-2024-29018: nothing that is asked in a closed network may be heard outside, not even by a name server.
        if self.scopes.iter().all(|(scope, _)| scope.internal) {
            return self.answer(from, &query.answer(bytes, Code::ServerFailure, &[], most), false, now);
        }
        let servers = self.upstreams.servers(now);
        let asked = Asked { from, message: bytes, query: query.clone(), servers };
        let (waits, done) = self.passing.add(asked, &self.epoll, &opener(&self.sockets), now);
        if let From::Tcp(slot, _) = from {
            if waits {
                self.clients.waits(slot);
            } else {
                self.answer(from, &query.answer(bytes, Code::ServerFailure, &[], most), false, now);
            }
        }
        self.finish(done, now);
    }

    fn finish(&mut self, done: impl IntoIterator<Item = Done>, now: Instant) {
        for Done { from, message, query, answer, preferred } in done {
            if let Some(server) = preferred {
                self.upstreams.prefer(server, now);
            }
            let most = most(from, &query);
            let answer = match answer {
                Some(answer) => query.passed_on(&message, answer, most),
                None => query.answer(&message, Code::ServerFailure, &[], most),
            };
            self.answer(from, &answer, true, now);
        }
    }

    fn answer(&mut self, from: From, bytes: &[u8], waited: bool, now: Instant) {
        match from {
            // A full buffer loses the answer, as any datagram; the client asks again.
            From::Udp(client) => drop(net::sendto(&self.sockets.udp, bytes, SendFlags::empty(), &client)),
            From::Tcp(slot, number) => {
                if !self.clients.answer((slot, number), bytes, waited, (&self.epoll, CLIENTS), now) {
                    self.passing.forget(from);
                }
            }
        }
    }

    fn forget(&mut self, left: &[(usize, u32)]) {
        left.iter().for_each(|(slot, number)| self.passing.forget(From::Tcp(*slot, *number)));
    }

    /// Asks our own register.
    fn local(&mut self, query: &Query) -> Local {
        let Some(name) = query.name.as_deref().filter(|_| query.is_internet()) else { return Local::Unknown };
        if let Some(address) = message::reversed(name) {
            for (scope, view) in &mut self.scopes {
                if let Some(name) = view.name(address) {
                    let whole = format!("{name}.{}", scope.network);
                    let records = if query.kind == kind::PTR { vec![Record::Name(whole)] } else { vec![] };
                    return Local::Records(records);
                }
            }
            return Local::Unknown;
        }
        for (scope, view) in &mut self.scopes {
            let all = view.known(name, &scope.network);
            if all.is_empty() {
                continue;
            }
            let wanted = |address: &&IpAddr| match query.kind {
                kind::A => address.is_ipv4(),
                kind::AAAA => address.is_ipv6(),
                _ => false,
            };
            // None of this kind: the name is there all the same, and nobody outside is asked for it.
            let mut found: Vec<Record> = all.iter().filter(wanted).copied().map(Record::Address).collect();
            if !found.is_empty() {
                self.rotation = self.rotation.wrapping_add(1);
                let by = self.rotation % found.len();
                found.rotate_left(by);
            }
            return Local::Records(found);
        }
        Local::Unknown
    }
}

fn most(from: From, query: &Query) -> usize {
    match from {
        From::Udp(_) => query.most_udp(),
        From::Tcp(..) => usize::from(u16::MAX),
    }
}

/// Makes sockets where the server is to be asked from.
fn opener(sockets: &Sockets) -> impl Fn(Server, SocketType) -> Result<OwnedFd, Errno> {
    move |server: Server, kind| {
        let address: SocketAddr = server.address;
        if server.inside {
            sockets::enter(sockets.netns.as_fd(), || passing::socket(address, kind))?
        } else {
            passing::socket(address, kind)
        }
    }
}
