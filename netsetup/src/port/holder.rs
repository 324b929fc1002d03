//! Who has a port: from the port to its socket's inode (sock_diag) to the process that has it open (`/proc/PID/fd`).

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use super::sock_diag::{self, state};
use crate::Protocol;

/// The search is a courtesy in an error message: a host with 50 000 processes must not hang for it. (A loaded virtual
/// machine needed over 300 ms for 200.)
const LONGEST_SEARCH: Duration = Duration::from_secs(2);

/// A process that has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// In the pid namespace of our own `/proc`.
    pub pid: u32,
    /// The program's name as `/proc/PID/comm` has it (≤ 15 bytes), control characters replaced.
    pub program: String,
}

impl fmt::Display for Holder {
    /// `nginx (pid 812)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.program, self.pid)
    }
}

/// The holder of a port in the current network namespace, or `None` where it can't be known: the process is in another
/// pid namespace, the kernel itself holds the port, the socket is bound but idle on a kernel before 6.8, or time ran out.
pub fn find(protocol: Protocol, address: IpAddr, port: u16) -> Option<Holder> {
    let query = sock_diag::open().ok()?;
    let mut sockets = sock_diag::sockets_at(&query, protocol, port, sock_diag::OWNED_STATES).ok()?;
    sockets.retain(|s| s.inode != 0 && s.meets(address));
    sockets.sort_by_key(|s| match s.state {
        state::LISTEN => 0,
        state::BOUND_INACTIVE | state::CLOSE => 1,
        _ => 2,
    });
    let links: Vec<Vec<u8>> = sockets.iter().take(16).map(|s| format!("socket:[{}]", s.inode).into_bytes()).collect();
    if links.is_empty() {
        return None;
    }
    let deadline = Instant::now() + LONGEST_SEARCH;
    let mut best: Option<(usize, u32)> = None;
    // Readers of /proc get the low pids first, and a server's children share its socket: the parent is found first.
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(rank) = rank_of_open_link(pid, &links, deadline)
            && best.is_none_or(|(known, _)| rank < known)
        {
            best = Some((rank, pid));
        }
        if best.is_some_and(|(rank, _)| rank == 0) || Instant::now() > deadline {
            break;
        }
    }
    let (_, pid) = best?;
    Some(Holder { pid, program: program(pid) })
}

/// Who listens on a port of the current network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address that it listens on; unspecified: every.
    pub address: IpAddr,
    /// Whether packets to the address that was asked for are its.
    pub takes: bool,
    /// The process, as far as it can be known.
    pub holder: Option<Holder>,
}

/// The sockets that wait for packets on this port, those first that take packets to the address.
pub fn listeners(protocol: Protocol, address: IpAddr, port: u16) -> Vec<Listener> {
    let states = match protocol {
        Protocol::Tcp | Protocol::Sctp => 1 << state::LISTEN,
        Protocol::Udp => 1 << state::CLOSE,
    };
    let Ok(query) = sock_diag::open() else { return Vec::new() };
    let mut sockets = sock_diag::sockets_at(&query, protocol, port, states).unwrap_or_default();
    sockets.sort_by_key(|socket| !socket.takes(address));
    sockets
        .iter()
        .take(8)
        .map(|socket| Listener {
            address: socket.address.to_canonical(),
            takes: socket.takes(address),
            holder: holder_of(socket.inode),
        })
        .collect()
}

/// The process that has a socket open.
fn holder_of(inode: u32) -> Option<Holder> {
    let links = [format!("socket:[{inode}]").into_bytes()];
    let deadline = Instant::now() + LONGEST_SEARCH;
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.take_while(|_| Instant::now() < deadline)
        .find(|pid| rank_of_open_link(*pid, &links, deadline).is_some())
        .map(|pid| Holder { pid, program: program(pid) })
}

/// The place in `links` of the first one that this process has open.
fn rank_of_open_link(pid: u32, links: &[Vec<u8>], deadline: Instant) -> Option<usize> {
    let mut best = None;
    for fd in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        if let Ok(target) = fs::read_link(fd.path())
            && let Some(rank) = links.iter().position(|link| link == target.as_os_str().as_bytes())
            && best.is_none_or(|known| rank < known)
        {
            best = Some(rank);
        }
        if Instant::now() > deadline {
            break;
        }
    }
    best
}

/// A process names itself: what it says is shown to a person, so it may not move the cursor.
fn program(pid: u32) -> String {
    let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name: String = String::from_utf8_lossy(comm.trim_ascii_end())
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(64)
        .collect();
    if name.is_empty() { "a process".to_string() } else { name }
}
