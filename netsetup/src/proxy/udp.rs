//! UDP: one connected socket to the container a client, so that answers find their way back; forgotten after 90 s of silence.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::pktinfo;
use crate::port::ReservedPort;

/// As docker-proxy's: a client that is silent for so long is forgotten.
const SILENCE: Duration = Duration::from_secs(90);
/// How often the silent ones are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// Source addresses can be forged: when all places are taken, the one that has been silent for the longest time gives way.
const MOST_CLIENTS: usize = 1024;
/// Datagrams of one socket in one `ready`.
const TURN_DATAGRAMS: usize = 64;
const RECEIVE_BUFFER: usize = 1024 * 1024;
const FRONT: u64 = u64::MAX;

/// A client is also the address that it used for us: the answer must come from there.
type Client = (SocketAddr, pktinfo::Local);

#[derive(Debug)]
pub(super) struct UdpProxy {
    pub(super) epoll: OwnedFd,
    reserved: ReservedPort,
    /// None: datagrams lead to nobody.
    target: Option<IpAddr>,
    target_port: u16,
    numbers: HashMap<Client, usize>,
    paths: Vec<Option<Path>>,
    free: Vec<usize>,
    next_sweep: Instant,
    scratch: Box<[u8]>,
}

#[derive(Debug)]
struct Path {
    client: Client,
    socket: OwnedFd,
    last_used: Instant,
}

impl UdpProxy {
    pub(super) fn new(target: SocketAddr, reserved: ReservedPort) -> Result<UdpProxy, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        // The reservation kept it small. The kernel limits it to net.core.rmem_max.
        sockopt::set_socket_recv_buffer_size(reserved.fd(), RECEIVE_BUFFER)?;
        pktinfo::enable(reserved.fd(), reserved.address())
            .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::INVAL))?;
        // Level-triggered: what one `ready` doesn't get through wakes the owner again.
        epoll::add(&epoll, reserved.fd(), EventData::new_u64(FRONT), EventFlags::IN)?;
        Ok(UdpProxy {
            epoll,
            reserved,
            target: Some(target.ip()),
            target_port: target.port(),
            numbers: HashMap::new(),
            paths: Vec::new(),
            free: Vec::new(),
            next_sweep: Instant::now() + SWEEP,
            scratch: vec![0; 64 * 1024].into_boxed_slice(),
        })
    }

    pub(super) fn clients(&self) -> usize {
        self.numbers.len()
    }

    #[cfg(test)]
    pub(super) fn reserved_port(&self) -> u16 {
        self.reserved.port()
    }

    pub(super) fn host(&self) -> SocketAddr {
        SocketAddr::new(self.reserved.address(), self.reserved.port())
    }

    pub(super) fn aim(&mut self, container: Option<IpAddr>) {
        self.numbers.clear();
        self.paths.clear();
        self.free.clear();
        self.target = container;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.numbers.is_empty()).then_some(self.next_sweep)
    }

    pub(super) fn ready(&mut self, now: Instant) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        if epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&rustix::event::Timespec::default()),
        )
        .is_ok()
        {
            // Answers first: a new client may take a silent one's place, and with it its number.
            for event in &events {
                if event.data.u64() != FRONT {
                    self.answer(event.data.u64() as usize, now);
                }
            }
            if events.iter().any(|event| event.data.u64() == FRONT) {
                self.forward(now);
            }
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.sweep(now);
        }
    }

    /// From the clients to the container.
    pub(super) fn forward(&mut self, now: Instant) {
        for _ in 0..TURN_DATAGRAMS {
            let received = match pktinfo::receive(self.reserved.fd(), &mut self.scratch) {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // An ICMP error for an earlier answer, reported once: the queue behind it is as it was.
                Err(_) => continue,
            };
            let Ok(number) = self.path((received.from, received.to), now) else {
                continue;
            };
            if let Some(Some(path)) = self.paths.get_mut(number) {
                path.last_used = now;
                let data = &self.scratch[..received.length];
                // ECONNREFUSED is about an *earlier* datagram and keeps this one from being sent: once more (moby#8795's kin).
                if net::send(&path.socket, data, SendFlags::empty()) == Err(Errno::CONNREFUSED) {
                    let _ = net::send(&path.socket, data, SendFlags::empty());
                }
            }
        }
    }

    /// From the container to one client.
    fn answer(&mut self, number: usize, now: Instant) {
        let Some(Some(path)) = self.paths.get_mut(number) else {
            return;
        };
        for _ in 0..TURN_DATAGRAMS {
            match net::recv(&path.socket, &mut self.scratch[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    path.last_used = now;
                    let (to, from) = path.client;
                    // A full buffer loses the datagram, as a router would.
                    let _ = pktinfo::send(self.reserved.fd(), &self.scratch[..length], from, to);
                }
                Err(Errno::AGAIN) => return,
                // Nobody listened there (ICMP); somebody may by now.
                Err(_) => {}
            }
        }
    }

    fn path(&mut self, client: Client, now: Instant) -> Result<usize, Errno> {
        if let Some(number) = self.numbers.get(&client) {
            return Ok(*number);
        }
        if self.numbers.len() >= MOST_CLIENTS {
            self.forget_longest_silent();
        }
        let target = SocketAddr::new(self.target.ok_or(Errno::NETUNREACH)?, self.target_port);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let family = super::family(target.ip());
        let open = || net::socket_with(family, SocketType::DGRAM, flags, None);
        let socket = match open() {
            Err(Errno::MFILE | Errno::NFILE) if !self.numbers.is_empty() => {
                self.forget_longest_silent();
                open()?
            }
            other => other?,
        };
        net::connect(&socket, &target)?;
        let number = self.free.pop().unwrap_or_else(|| {
            self.paths.push(None);
            self.paths.len() - 1
        });
        if let Err(errno) = epoll::add(&self.epoll, &socket, EventData::new_u64(number as u64), EventFlags::IN) {
            self.free.push(number);
            return Err(errno);
        }
        self.paths[number] = Some(Path { client, socket, last_used: now });
        self.numbers.insert(client, number);
        Ok(number)
    }

    fn sweep(&mut self, now: Instant) {
        let silent: Vec<Client> = self
            .paths
            .iter()
            .flatten()
            .filter(|p| now.saturating_duration_since(p.last_used) >= SILENCE)
            .map(|p| p.client)
            .collect();
        silent.into_iter().for_each(|client| self.forget(client));
    }

    fn forget_longest_silent(&mut self) {
        if let Some(client) = self.paths.iter().flatten().min_by_key(|path| path.last_used).map(|path| path.client) {
            self.forget(client);
        }
    }

    fn forget(&mut self, client: Client) {
        if let Some(number) = self.numbers.remove(&client) {
            self.paths[number] = None;
            self.free.push(number);
        }
    }
}
