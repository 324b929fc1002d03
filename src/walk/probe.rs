//! The probe: a TCP connection or a datagram from a port that is known before it is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use netsetup::Protocol;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

/// A socket that is bound and hasn't sent anything.
pub struct Probe {
    socket: OwnedFd,
    protocol: Protocol,
    to: SocketAddr,
    /// Its own port.
    pub port: u16,
}

/// What the client saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// TCP: the connection stands.
    Connected,
    /// UDP: a datagram came back.
    Datagram,
    /// Somebody said no: a reset, or an ICMP message that the port is closed.
    Refused,
    /// There is no way, or somebody on it said so.
    Unreachable(Errno),
    /// Nothing came back in time.
    Silence,
}

impl Answer {
    /// Whether nothing came back.
    pub fn is_silence(self) -> bool {
        self == Answer::Silence
    }

    /// In a word or two.
    pub fn text(self) -> String {
        match self {
            Answer::Connected => "connected".to_owned(),
            Answer::Datagram => "answered".to_owned(),
            Answer::Refused => "refused".to_owned(),
            Answer::Unreachable(error) => crate::error::io_text(&error.into()).to_lowercase(),
            Answer::Silence => "no answer".to_owned(),
        }
    }
}

impl Probe {
    /// Makes one in the caller's network namespace.
    pub fn make(protocol: Protocol, to: SocketAddr) -> Result<Probe> {
        let (family, any): (_, IpAddr) = match to {
            SocketAddr::V4(_) => (AddressFamily::INET, Ipv4Addr::UNSPECIFIED.into()),
            SocketAddr::V6(_) => (AddressFamily::INET6, Ipv6Addr::UNSPECIFIED.into()),
        };
        let kind = if protocol == Protocol::Udp { SocketType::DGRAM } else { SocketType::STREAM };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(family, kind, flags, None).context("cannot make a socket for the probe")?;
        net::bind(&socket, &SocketAddr::new(any, 0)).context("cannot bind the probe's socket")?;
        let own: SocketAddr = net::getsockname(&socket)?.try_into().context("the probe's socket has no address")?;
        Ok(Probe { socket, protocol, to, port: own.port() })
    }

    /// Its address, as far as the socket knows.
    pub fn local_address(&self) -> SocketAddr {
        let own = net::getsockname(&self.socket).ok().and_then(|own| own.try_into().ok());
        own.unwrap_or_else(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.port))
    }

    /// Sends it, and waits for what comes back.
    pub fn send(&self, limit: Duration) -> Result<Answer> {
        match net::connect(&self.socket, &self.to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Ok(answer_of(error)),
        }
        if self.protocol == Protocol::Udp
            && let Err(error) = net::send(&self.socket, b"minidock walk\n", SendFlags::empty())
        {
            return Ok(answer_of(error));
        }
        let wanted = if self.protocol == Protocol::Udp { PollFlags::IN } else { PollFlags::OUT };
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Answer::Silence);
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut fds = [PollFd::new(&self.socket, wanted)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Ok(Answer::Silence),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for the probe's answer"),
            }
        }
        if let Err(error) = sockopt::socket_error(&self.socket)? {
            return Ok(answer_of(error));
        }
        if self.protocol != Protocol::Udp {
            return Ok(Answer::Connected);
        }
        match net::recv(&self.socket, &mut [0_u8; 64], RecvFlags::empty()) {
            Ok(_) => Ok(Answer::Datagram),
            Err(error) => Ok(answer_of(error)),
        }
    }
}

fn answer_of(error: Errno) -> Answer {
    match error {
        Errno::CONNREFUSED => Answer::Refused,
        Errno::TIMEDOUT => Answer::Silence,
        error => Answer::Unreachable(error),
    }
}
