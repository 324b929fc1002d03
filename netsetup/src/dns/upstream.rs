//! The name servers that questions are passed on to: those given by the user, or the host's, read again when they change.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::names::is_fresh;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The servers behind systemd-resolved's stub.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const MOST_BYTES: u64 = 64 * 1024;
const MOST_SERVERS: usize = 8;
/// How long the server that answered in the place of a silent one is asked first.
const PREFERENCE: Duration = Duration::from_secs(30);

/// One server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Server {
    pub address: SocketAddr,
    /// Asked from the container's network namespace: the user named it for the container. The host's own servers may be
    /// on the host's loopback.
    pub inside: bool,
}

#[derive(Debug)]
pub(super) struct Upstreams {
    given: bool,
    servers: Vec<Server>,
    seen: Option<[Option<Stamp>; 2]>,
    files: [PathBuf; 2],
    preferred: Option<(SocketAddr, Instant)>,
}

/// Device, inode, size, time of the last change.
type Stamp = (u64, u64, u64, (i64, i64));

impl Upstreams {
    pub fn new(given: &[IpAddr]) -> Upstreams {
        let server = |address: &IpAddr| Server { address: SocketAddr::new(*address, 53), inside: true };
        Upstreams {
            given: !given.is_empty(),
            servers: given.iter().take(MOST_SERVERS).map(server).collect(),
            seen: None,
            files: [PathBuf::from(RESOLV_CONF), PathBuf::from(RESOLVED)],
            preferred: None,
        }
    }

    /// The servers of this moment, in the order in which they're to be asked.
    pub fn servers(&mut self, now: Instant) -> Vec<Server> {
        if !self.given {
            self.refresh();
        }
        let mut servers = self.servers.clone();
        if let Some((address, until)) = self.preferred {
            match servers.iter().position(|server| server.address == address) {
                Some(at) if now < until => servers[..=at].rotate_right(1),
                _ => self.preferred = None,
            }
        }
        servers
    }

    /// This one answered while those before it were silent.
    pub fn prefer(&mut self, server: Server, now: Instant) {
        self.preferred = Some((server.address, now + PREFERENCE));
    }

    fn refresh(&mut self) {
        let stamps = [stamp(&self.files[0]), stamp(&self.files[1])];
        if self.seen.as_ref() == Some(&stamps) {
            return;
        }
        let mut addresses = read(&self.files[0]);
        // The stub, and its variant without search domains, would do; but they are only a detour, and can be stopped.
        let is_stub = |address: &SocketAddr| matches!(address.ip().to_string().as_str(), "127.0.0.53" | "127.0.0.54");
        if !addresses.is_empty() && addresses.iter().all(is_stub) {
            let real = read(&self.files[1]);
            if !real.is_empty() {
                addresses = real;
            }
        }
        if addresses.is_empty() {
            // resolv.conf(5): without a server, the one on this machine.
            addresses.push(SocketAddr::from(([127, 0, 0, 1], 53)));
        }
        addresses.truncate(MOST_SERVERS);
        self.servers = addresses.into_iter().map(|address| Server { address, inside: false }).collect();
        let settled = stamps.iter().flatten().all(|stamp| !is_fresh(stamp.3));
        self.seen = settled.then_some(stamps);
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.dev(), data.ino(), data.size(), (data.mtime(), data.mtime_nsec())))
}

fn read(path: &Path) -> Vec<SocketAddr> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(MOST_BYTES).read_to_end(&mut bytes); // what can't be read names no server
    }
    parse(&String::from_utf8_lossy(&bytes))
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().map(|line| line.split_whitespace());
    let server = |mut words: std::str::SplitWhitespace<'_>| {
        (words.next() == Some("nameserver")).then(|| words.next()).flatten().and_then(address)
    };
    words.filter_map(server).collect()
}

/// `10.0.0.1`, `fd00::1`, `fe80::1%eth0`.
fn address(text: &str) -> Option<SocketAddr> {
    let Some((address, zone)) = text.split_once('%') else {
        return text.parse().ok().map(|address| SocketAddr::new(address, 53));
    };
    let index = std::fs::read_to_string(format!("/sys/class/net/{}/ifindex", Path::new(zone).file_name()?.to_str()?));
    let scope = index.ok()?.trim().parse().ok()?;
    Some(SocketAddr::V6(SocketAddrV6::new(address.parse().ok()?, 53, 0, scope)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams(folder: &Path) -> Upstreams {
        Upstreams { files: [folder.join("etc"), folder.join("resolved")], ..Upstreams::new(&[]) }
    }

    fn addresses(upstreams: &mut Upstreams) -> Vec<String> {
        upstreams.servers(Instant::now()).iter().map(|server| server.address.ip().to_string()).collect()
    }

    #[test]
    fn the_hosts_servers_are_followed() {
        let folder = std::env::temp_dir().join(format!("netsetup-upstream-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut upstreams = upstreams(&folder);
        assert_eq!(addresses(&mut upstreams), ["127.0.0.1"], "no file: the server on this machine");
        for (text, servers) in [
            (
                "# x\nnameserver 10.0.0.1\n nameserver  fd00::1 \nsearch a\nnameserver bad\n",
                vec!["10.0.0.1", "fd00::1"],
            ),
            ("nameserver 10.0.0.2\n", vec!["10.0.0.2"]),
            ("nameserver 10.0.0.3\n", vec!["10.0.0.3"]),
            ("nameserver 127.0.0.53\n", vec!["127.0.0.53"]),
        ] {
            std::fs::write(&upstreams.files[0], text).unwrap();
            assert_eq!(addresses(&mut upstreams), servers);
        }
        std::fs::write(&upstreams.files[1], "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(addresses(&mut upstreams), ["192.0.2.1"], "the servers behind the stub");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn who_answers_in_anothers_place_is_asked_first_for_a_while() {
        let mut upstreams = Upstreams::new(&["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
        let now = Instant::now();
        let second = upstreams.servers(now)[1];
        assert!(second.inside);
        upstreams.prefer(second, now);
        assert_eq!(upstreams.servers(now)[0], second);
        assert_eq!(upstreams.servers(now + PREFERENCE)[1], second);
    }
}
