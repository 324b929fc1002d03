//! `minidock proxy -proto tcp -host-ip 0.0.0.0 -host-port 10080 -container-ip 172.17.0.2 -container-port 80`: docker-proxy's flags.
//!
//! By hand there is no container whose namespace could be asked, so it takes clients at once, as docker-proxy does; one that
//! can't be connected gets RST.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Proxy, ProxyError};
use crate::port::{self, PortError};
use crate::{PortMapping, Protocol, PublishMode};

const USAGE: &str = "\
Usage: minidock proxy -proto tcp|udp -host-ip IP -host-port PORT -container-ip IP -container-port PORT

Forwards a port of this host to a container by hand, with docker-proxy's flags, until SIGINT or SIGTERM.

  -proto NAME            tcp (default) or udp
  -host-ip IP            address of this host to listen on (default 0.0.0.0: all)
  -host-port PORT        port of this host, 1-65535
  -container-ip IP       where to connect to
  -container-port PORT   port there, 1-65535
";

/// Why the proxy by hand ended without a signal.
#[derive(Debug, thiserror::Error)]
pub enum ByHandError {
    /// The arguments make no sense; the text says which and why.
    #[error("minidock proxy: {0}\nSee `minidock proxy -help`.")]
    Usage(String),
    /// The host port can't be had.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The proxy can't be made.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// A system call failed.
    #[error("minidock proxy: {0}: {1}")]
    System(&'static str, Errno),
}

/// Runs a proxy in the foreground until SIGINT, SIGTERM or SIGHUP. `args` are what follows `minidock proxy`.
///
/// # Errors
/// [`ByHandError`]: bad arguments, port in use, no resources.
pub fn run_by_hand(args: &[OsString]) -> Result<(), ByHandError> {
    let Some((mapping, container)) = parse(args).map_err(ByHandError::Usage)? else {
        print!("{USAGE}");
        return Ok(());
    };
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    let raw = |errno: nix::Error| Errno::from_raw_os_error(errno as i32);
    signals.thread_block().map_err(|e| ByHandError::System("cannot block signals", raw(e)))?;
    let ended = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)
        .map_err(|e| ByHandError::System("cannot wait for signals", raw(e)))?;

    // A client takes two descriptors, and the usual soft limit of 1024 is for programs that call select().
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });

    let reserved = port::reserve(mapping.protocol, mapping.host_address, mapping.host_port)?;
    let mut proxy = Proxy::new(&mapping, container, reserved, None)?;
    eprintln!("{mapping} at {container}: forwarding until Ctrl-C");
    loop {
        let timeout = proxy.timeout(Instant::now()).and_then(|t| Timespec::try_from(t).ok());
        let mut fds = [
            PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(proxy.fd(), PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(ByHandError::System("cannot wait for clients", errno)),
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        proxy.ready(Instant::now());
    }
}

/// `None`: help was asked for.
fn parse(args: &[OsString]) -> Result<Option<(PortMapping, IpAddr)>, String> {
    let (mut protocol, mut host_address, mut host_port, mut container, mut container_port) =
        (Protocol::Tcp, IpAddr::V4(Ipv4Addr::UNSPECIFIED), None, None, None);
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let text = word.to_str().ok_or_else(|| format!("{word:?} is not UTF-8"))?;
        // Go's flag package takes one or two dashes, and `-flag value` as well as `-flag=value`.
        let Some(flag) = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).filter(|flag| !flag.is_empty())
        else {
            return Err(format!("unexpected argument {text:?}: every value follows its flag"));
        };
        let (name, attached) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag, None),
        };
        if matches!(name, "h" | "help") {
            return Ok(None);
        }
        if name == "use-listen-fd" {
            return Err("-use-listen-fd is docker's own arrangement with its daemon; minidock has none: leave it out"
                .to_string());
        }
        if !matches!(name, "proto" | "host-ip" | "host-port" | "container-ip" | "container-port") {
            return Err(format!("unknown flag -{name}"));
        }
        let value = match attached {
            Some(value) => value,
            None => words.next().and_then(|next| next.to_str()).ok_or_else(|| format!("-{name} wants a value"))?,
        };
        match name {
            "proto" => protocol = value.parse().map_err(|error| format!("-proto: {error}"))?,
            "host-ip" => host_address = address(name, value)?,
            "host-port" => host_port = Some(number(name, value)?),
            "container-ip" => container = Some(address(name, value)?),
            _ => container_port = Some(number(name, value)?),
        }
    }
    if protocol == Protocol::Sctp {
        return Err(
            "-proto sctp: the proxy carries only tcp and udp; `minidock run -p PORT:PORT/sctp` does it in the kernel"
                .to_string(),
        );
    }
    let host_port = host_port.ok_or("-host-port is missing")?;
    let container = container.ok_or("-container-ip is missing")?;
    let container_port = container_port.ok_or("-container-port is missing")?;
    if container.is_unspecified() {
        return Err(format!("-container-ip {container} is no address to connect to"));
    }
    if host_port == container_port
        && (host_address == container
            || (host_address.is_unspecified()
                && container.is_loopback()
                && host_address.is_ipv4() == container.is_ipv4()))
    {
        return Err(format!(
            "{container}:{container_port} is this proxy's own port: it would connect to itself without end"
        ));
    }
    Ok(Some((PortMapping { protocol, host_address, host_port, container_port, mode: PublishMode::Proxy }, container)))
}

fn address(flag: &str, value: &str) -> Result<IpAddr, String> {
    value.parse().map_err(|_| format!("-{flag} {value:?} is not an IP address"))
}

fn number(flag: &str, value: &str) -> Result<u16, String> {
    value.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("-{flag} {value:?} is not a port: 1-65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<(PortMapping, IpAddr)>, String> {
        parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_lectures_line_is_understood_with_one_dash_two_dashes_and_equals_signs() {
        let expected = PortMapping {
            protocol: Protocol::Udp,
            host_address: [127, 0, 0, 1].into(),
            host_port: 10080,
            container_port: 80,
            mode: PublishMode::Proxy,
        };
        for line in [
            "-proto udp -host-ip 127.0.0.1 -host-port 10080 -container-ip 172.17.0.2 -container-port 80",
            "--container-port=80 --proto=UDP -host-ip=127.0.0.1 --host-port 10080 -container-ip=172.17.0.2",
        ] {
            assert_eq!(parsed(line), Ok(Some((expected, [172, 17, 0, 2].into()))), "{line}");
        }
        assert_eq!(parsed("-help"), Ok(None));
    }

    #[test]
    fn bad_lines_are_refused_with_the_reason() {
        for (line, reason) in [
            ("", "-host-port is missing"),
            ("-host-port 1 -container-ip 10.0.0.1", "-container-port is missing"),
            ("-host-port 1 -container-port 2", "-container-ip is missing"),
            ("-host-port 0", "not a port"),
            ("-host-port 65536", "not a port"),
            ("-host-port", "wants a value"),
            ("-host-ip localhost", "not an IP address"),
            ("-proto icmp", "unknown protocol"),
            ("-proto sctp", "only tcp and udp"),
            ("-verbose", "unknown flag -verbose"),
            ("-", "unexpected argument"),
            ("80:80", "unexpected argument"),
            ("-host-port 80 -container-ip 127.0.0.1 -container-port 80", "connect to itself"),
            ("-use-listen-fd", "daemon"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
