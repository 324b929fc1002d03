//! Waits until a container is ready: `run -d --wait`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netsetup::Protocol;
use nix::sched::{CloneFlags, setns};

use crate::containers;
use crate::health::Status as HealthStatus;
use crate::log::read::Reader;
use crate::network::definition::{self, Definition};
use crate::network::options::{self, BridgeOptions, Driver, Gateway};
use crate::plan::paths::ContainerFolder;
use crate::process::Process;
use crate::request::network::NetworkMode;
use crate::request::ready::{Ready, Wait};
use crate::roots::Roots;
use crate::state::State;
use crate::view;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// A single connection or answer may take so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Nobody needs more of an answer than its first line.
const LONGEST_LINE: u64 = 4096;

/// Returns when all conditions are met.
///
/// # Errors
/// The time is over, the container has ended, or a condition can't ever be met. The container is left as it is.
pub fn wait(roots: &Roots, id: &str, wait: &Wait) -> Result<()> {
    let deadline = Instant::now() + wait.timeout;
    // A process can be in one network namespace only; the first condition that needs the container's enters it.
    let mut inside = None;
    for condition in &wait.conditions {
        let mut log = Log::default();
        loop {
            let state = alive(roots, id)?;
            let met = match condition {
                Ready::Healthy => is_healthy(&state)?,
                Ready::Log(pattern) => log.finds(roots, &state, pattern)?,
                Ready::Port(port) => {
                    let ports = ports(&state, *port)?;
                    let address = address(roots, &state, &mut inside)?;
                    ports.iter().all(|port| connect(address, *port).is_some())
                }
                Ready::Http(port, path) => {
                    let port = ports(&state, *port)?.first().copied().unwrap_or(80);
                    answers(address(roots, &state, &mut inside)?, port, path)
                }
            };
            if met {
                break;
            }
            if Instant::now() >= deadline {
                bail!(
                    "container {} is not ready after {:?}: {}; it runs on, see 'minidock logs {}'",
                    state.name,
                    wait.timeout,
                    words(condition),
                    state.name
                );
            }
            std::thread::sleep(PAUSE);
        }
    }
    Ok(())
}

fn words(condition: &Ready) -> String {
    match condition {
        Ready::Port(Some(port)) => format!("nothing accepts connections on port {port}"),
        Ready::Port(None) => "not all of its ports accept connections".to_string(),
        Ready::Log(pattern) => format!("no line of its log fits {:?}", pattern.as_str()),
        Ready::Healthy => "its health check has not succeeded".to_string(),
        Ready::Http(_, path) => format!("no good answer to GET {path}"),
    }
}

fn alive(roots: &Roots, id: &str) -> Result<State> {
    match containers::read(roots, id)? {
        Some(state) if state.is_alive() => Ok(state),
        Some(state) => bail!(
            "container {} has ended with exit code {} before it was ready; see 'minidock logs {}'",
            state.name,
            state.exit_code,
            state.name
        ),
        None => bail!("the container has ended before it was ready, and is removed; start it without --rm to see why"),
    }
}

fn is_healthy(state: &State) -> Result<bool> {
    let Some(health) = &state.health else {
        bail!("container {} has no health check; give one with --health-cmd", state.name)
    };
    if health.status == HealthStatus::Unhealthy {
        let said = health.log.last().map(|probe| probe.output.trim().to_string()).unwrap_or_default();
        let said = if said.is_empty() { "its check says nothing" } else { &said };
        bail!("container {} is unhealthy: {said}; it runs on, see 'minidock logs {0}'", state.name);
    }
    Ok(health.status == HealthStatus::Healthy)
}

fn ports(state: &State, wanted: Option<u16>) -> Result<Vec<u16>> {
    if let Some(port) = wanted {
        return Ok(vec![port]);
    }
    let published = state.ports().filter(|port| port.protocol == Protocol::Tcp).map(|port| port.container_port);
    let mut ports: Vec<u16> = published.collect();
    if ports.is_empty() {
        ports = state.config.exposed.iter().filter_map(|text| text.strip_suffix("/tcp")?.parse().ok()).collect();
    }
    if ports.is_empty() {
        bail!("container {} publishes and exposes no TCP port; write --wait port:N or http:N/path", state.name);
    }
    Ok(ports)
}

/// Where the container listens, as this process sees it: from the host, or, where the host has no place in its network
/// (macvlan, ipvlan, an isolated gateway), from inside.
fn address(roots: &Roots, state: &State, inside: &mut Option<Process>) -> Result<IpAddr> {
    let own = state.attachments.iter().find_map(|one| {
        let place = one.ipv4.or(one.ipv6)?;
        Some(place.address)
    });
    if view::request(state)?.network.mode == NetworkMode::Host {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    let first = state.attachments.first().map(|one| definition::read(roots, &one.network)).transpose()?;
    let from_here = first.is_some_and(|network| network.is_none_or(|network| host_is_in(&network)));
    if !from_here && *inside != state.process {
        let process = state.process.with_context(|| format!("container {} is not running", state.name))?;
        let what = || format!("cannot enter the network namespace of container {}", state.name);
        let namespace = File::open(format!("/proc/{}/ns/net", process.pid)).with_context(what)?;
        if process.is_alive() {
            setns(namespace, CloneFlags::CLONE_NEWNET).with_context(what)?;
            *inside = Some(process);
        }
    }
    Ok(own.unwrap_or(Ipv4Addr::LOCALHOST.into()))
}

/// Whether the host has an address in the network.
fn host_is_in(network: &Definition) -> bool {
    let has_gateways = |options: BridgeOptions| {
        !options.inhibit_ipv4 && ![options.gateway_ipv4, options.gateway_ipv6].contains(&Gateway::Isolated)
    };
    network.driver == Driver::Bridge && options::bridge(&network.options).is_ok_and(has_gateways)
}

fn connect(address: IpAddr, port: u16) -> Option<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE).ok()
}

fn answers(address: IpAddr, port: u16, path: &str) -> bool {
    let Some(mut stream) = connect(address, port) else { return false };
    let limits = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
    let host = SocketAddr::new(address, port);
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: minidock\r\nConnection: close\r\n\r\n");
    if limits.is_err() || stream.write_all(request.as_bytes()).is_err() {
        return false;
    }
    let mut line = Vec::new();
    let read = BufReader::new(stream.take(LONGEST_LINE)).read_until(b'\n', &mut line);
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split(' ');
    read.is_ok()
        && words.next().is_some_and(|version| version.starts_with("HTTP/"))
        && words.next().is_some_and(|code| matches!(code.as_bytes(), [b'2' | b'3', _, _]))
}

/// The container's log, read on from where it was left; its file may come a moment after its program.
#[derive(Default)]
struct Log(Option<Reader>);

impl Log {
    fn finds(&mut self, roots: &Roots, state: &State, pattern: &regex::Regex) -> Result<bool> {
        let path = ContainerFolder::new(&roots.container(&state.id)).log();
        if self.0.is_none() {
            self.0 = Reader::open(&path).ok();
        }
        let Some(reader) = &mut self.0 else { return Ok(false) };
        while let Some(record) = reader.next().with_context(|| format!("cannot read {}", path.display()))? {
            if pattern.is_match(record.log.trim_end_matches('\n')) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
