//! The container's TCP connections to the resolver: length-prefixed messages, several on one connection, answers in the
//! order in which they're known. Bounded in number, time and memory.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags};

/// More than this: the one that has been silent for the longest time gives way.
pub(super) const MOST: usize = 64;
/// A connection that says and hears nothing for so long is closed.
const SILENCE: Duration = Duration::from_secs(10);
/// Questions of one connection that wait; then it isn't read.
const MOST_WAITING: usize = 16;
/// Answers that the client hasn't read; then it's closed.
const MOST_UNREAD: usize = 256 * 1024;
/// Connections accepted in one turn.
const TURN: usize = 16;
/// How long nobody is let in when there's no descriptor left, and no connection of ours that could give one.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    number: u32,
    input: Vec<u8>,
    output: Vec<u8>,
    waiting: usize,
    /// It has closed its side.
    ended: bool,
    last: Instant,
    events: EventFlags,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Clients {
    slots: Vec<Option<Client>>,
    free: Vec<usize>,
    number: u32,
    /// Until when the listener isn't watched.
    paused: Option<Instant>,
}

/// What happened to a connection.
pub(super) enum Turn {
    /// Whole messages; perhaps none.
    Messages(u32, Vec<Vec<u8>>),
    /// It's gone.
    Closed(u32),
}

impl Clients {
    pub fn len(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Takes new connections. `base`: what their numbers in epoll start at. Gives back who had to leave. When it sets
    /// [`Clients::paused`], the listener stays ready: its owner must not watch it until then, or it would spin.
    pub fn accept(&mut self, listener: &OwnedFd, epoll: &OwnedFd, base: u64, now: Instant) -> Vec<(usize, u32)> {
        self.paused = None;
        let mut left = Vec::new();
        for _ in 0..TURN {
            let socket = match net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => socket,
                // Out of descriptors: a silent one's serves better.
                Err(Errno::MFILE | Errno::NFILE) => match self.longest_silent() {
                    Some(slot) => {
                        left.extend(self.close(slot));
                        continue;
                    }
                    None => {
                        self.paused = Some(now + PAUSE);
                        break;
                    }
                },
                Err(Errno::NOBUFS | Errno::NOMEM) => {
                    self.paused = Some(now + PAUSE);
                    break;
                }
                Err(_) => break,
            };
            if self.len() >= MOST
                && let Some(slot) = self.longest_silent()
            {
                left.extend(self.close(slot));
            }
            let slot = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                self.slots.len() - 1
            });
            if epoll::add(epoll, &socket, EventData::new_u64(base + slot as u64), EventFlags::IN).is_err() {
                self.free.push(slot);
                continue;
            }
            self.number = self.number.wrapping_add(1);
            self.slots[slot] = Some(Client {
                socket,
                number: self.number,
                input: Vec::new(),
                output: Vec::new(),
                waiting: 0,
                ended: false,
                last: now,
                events: EventFlags::IN,
            });
        }
        left
    }

    /// Until when the listener is to be left alone.
    pub fn paused(&self) -> Option<Instant> {
        self.paused
    }

    /// First those for whom nothing is under way.
    fn longest_silent(&self) -> Option<usize> {
        let all = self.slots.iter().enumerate().filter_map(|(slot, client)| Some((slot, client.as_ref()?)));
        all.min_by_key(|(_, client)| (client.waiting > 0, client.last)).map(|(slot, _)| slot)
    }

    fn close(&mut self, slot: usize) -> Option<(usize, u32)> {
        let client = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some((slot, client.number))
    }

    /// Reads and writes what goes.
    pub fn ready(&mut self, slot: usize, epoll: &OwnedFd, base: u64, now: Instant) -> Option<Turn> {
        let client = self.slots.get_mut(slot)?.as_mut()?;
        let number = client.number;
        let messages = client.write().and_then(|()| client.read(now));
        match messages {
            Ok(messages) => {
                self.watch(slot, epoll, base);
                Some(Turn::Messages(number, messages))
            }
            Err(_) => {
                self.close(slot);
                Some(Turn::Closed(number))
            }
        }
    }

    /// An answer for a connection, if it's still the same. `waited`: the question was passed on. False when it's gone.
    pub fn answer(
        &mut self,
        at: (usize, u32),
        bytes: &[u8],
        waited: bool,
        place: (&OwnedFd, u64),
        now: Instant,
    ) -> bool {
        let (slot, number) = at;
        let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut).filter(|one| one.number == number) else {
            return false;
        };
        client.waiting -= usize::from(waited && client.waiting > 0);
        client.last = now;
        let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
        client.output.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        client.output.extend_from_slice(bytes);
        if client.write().is_err() || client.output.len() > MOST_UNREAD || client.is_over() {
            self.close(slot);
            return false;
        }
        self.watch(slot, place.0, place.1);
        true
    }

    /// A question of this connection has been passed on.
    pub fn waits(&mut self, slot: usize) {
        if let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) {
            client.waiting += 1;
        }
    }

    fn watch(&mut self, slot: usize, epoll: &OwnedFd, base: u64) {
        let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let mut events = EventFlags::empty();
        // At the end of its side, input would wake us for ever.
        events.set(EventFlags::IN, client.waiting < MOST_WAITING && !client.ended);
        events.set(EventFlags::OUT, !client.output.is_empty());
        if events != client.events {
            client.events = events;
            let data = EventData::new_u64(base + slot as u64);
            let _ = epoll::modify(epoll, client.socket.as_fd(), data, events); // it's in there
        }
    }

    /// When the next one has been silent for too long, or the pause ends.
    pub fn deadline(&self) -> Option<Instant> {
        self.slots.iter().flatten().map(|client| client.last + SILENCE).chain(self.paused).min()
    }

    /// Closes those.
    pub fn sweep(&mut self, now: Instant) -> Vec<(usize, u32)> {
        let silent = |client: &Client| now >= client.last + SILENCE;
        let slots: Vec<usize> = (0..self.slots.len())
            .filter(|slot| self.slots.get(*slot).and_then(Option::as_ref).is_some_and(silent))
            .collect();
        slots.into_iter().filter_map(|slot| self.close(slot)).collect()
    }
}

impl Client {
    fn write(&mut self) -> Result<(), Errno> {
        while !self.output.is_empty() {
            match net::send(&self.socket, &self.output, SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.output.drain(..sent)),
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Whole messages of what has come, as many as may wait.
    fn read(&mut self, now: Instant) -> Result<Vec<Vec<u8>>, Errno> {
        let mut messages = Vec::new();
        let mut chunk = [0; 4096];
        match net::recv(&self.socket, &mut chunk[..], RecvFlags::empty()) {
            Ok((0, _)) => self.ended = true,
            Ok((length, _)) => self.input.extend_from_slice(&chunk[..length]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        while let [high, low, rest @ ..] = &self.input[..] {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            if rest.len() < length {
                break;
            }
            messages.push(rest[..length].to_vec());
            self.input.drain(..2 + length);
            self.last = now;
        }
        if messages.is_empty() && self.is_over() { Err(Errno::PIPE) } else { Ok(messages) }
    }

    fn is_over(&self) -> bool {
        self.ended && self.waiting == 0 && self.output.is_empty()
    }
}
