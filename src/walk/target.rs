//! Who is asked, and from where.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use anyhow::{Result, anyhow, bail};
use netsetup::dns::{self, Scope};
use netsetup::{Host, Protocol};

use crate::containers;
use crate::plan::names::register;
use crate::roots::Roots;
use crate::state::{Attachment, State};

/// Where the probe begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum From {
    /// This host.
    #[default]
    Host,
    /// A client outside.
    Outside,
    /// A container.
    Container(String),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<From, String> {
        match text {
            "" => Err("name a container, or say outside or host".to_owned()),
            "host" => Ok(From::Host),
            "outside" => Ok(From::Outside),
            name => Ok(From::Container(name.to_owned())),
        }
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            From::Host => "host",
            From::Outside => "outside",
            From::Container(name) => name,
        })
    }
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// tcp or udp
    pub protocol: Protocol,
    /// Address and port.
    pub address: SocketAddr,
    /// How a name came to be this address, where that isn't plain.
    pub note: Option<String>,
}

impl Target {
    /// `HOST:PORT`, `[::1]:PORT`, with `/udp` for UDP. HOST: an address, `localhost`, or what a container is called where
    /// the sender is.
    pub fn parse(roots: &Roots, from: &From, text: &str) -> Result<Target> {
        let (place, protocol) = match text.rsplit_once('/') {
            Some((place, protocol)) => (place, protocol.parse().map_err(|why: String| anyhow!(why))?),
            None => (text, Protocol::Tcp),
        };
        if protocol == Protocol::Sctp {
            bail!("walk sends tcp and udp probes; for sctp use another tool");
        }
        let wrong = || anyhow!("{text:?} is no HOST:PORT[/udp], such as 10.0.0.1:10080 or web:80");
        let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let (address, note) = match host.parse::<IpAddr>() {
            Ok(address) => (address, None),
            Err(_) if host.is_empty() => return Err(wrong()),
            Err(_) if host == "localhost" => (Ipv4Addr::LOCALHOST.into(), None),
            Err(_) => match from {
                From::Container(sender) => asked_by(roots, sender, host)?,
                From::Host | From::Outside => asked_here(roots, host)?,
            },
        };
        if *from == From::Outside && address.is_loopback() {
            bail!(
                "{host} is the client's own there: nobody outside can ask this host by it; ask for one of this host's \
                 addresses (see ip -br addr), or walk from the host: minidock walk {place}"
            );
        }
        Ok(Target { protocol, address: SocketAddr::new(address, port), note })
    }
}

/// What a container's name server tells it; else the container's first address, for a walk that shows why they can't
/// reach each other.
fn asked_by(roots: &Roots, sender: &str, name: &str) -> Result<(IpAddr, Option<String>)> {
    let sender = containers::find_running(roots, sender)?;
    let attachments = attachments(roots, &sender);
    let scopes: Vec<Scope> = attachments.iter().map(|one| scope(roots, one)).collect();
    if let Some((scope, addresses)) = dns::look_up(&scopes, name) {
        let mut note =
            format!("{name} is {} in network {}, where {} is, too", list(&addresses), scope.network, sender.name);
        let address = first(&addresses).filter(|_| addresses.len() > 1);
        address.into_iter().for_each(|address| note += &format!("; asked: {address}"));
        return first(&addresses).map(|address| (address, Some(note))).ok_or_else(|| no_address(name));
    }
    let state = running(roots, name)?;
    let (place, address) = place(&state).ok_or_else(|| no_address(name))?;
    let note = if attachments.is_empty() {
        format!("{name} is {address} in network {}", place.network)
    } else {
        let network = &place.network;
        format!(
            "{}'s name server knows no {name}: they share no network. In network {network} it is {address}",
            sender.name
        )
    };
    Ok((address, Some(note)))
}

/// A container's name or id; else what one is called in a network.
fn asked_here(roots: &Roots, name: &str) -> Result<(IpAddr, Option<String>)> {
    let unknown = match running(roots, name) {
        Ok(state) => {
            let (place, address) = place(&state).ok_or_else(|| no_address(name))?;
            let others = state.attachments.iter().filter(|one| one.network != place.network);
            let others: Vec<String> =
                others.filter_map(|one| Some(format!("{} in network {}", address_of(one)?, one.network))).collect();
            let note = format!("{name} is {address} in network {} (and {})", place.network, others.join(", "));
            return Ok((address, (!others.is_empty()).then_some(note)));
        }
        Err(error) => error,
    };
    let mut scopes: Vec<Scope> = Vec::new();
    for state in containers::all(roots).into_iter().filter(State::is_alive) {
        scopes.extend(state.attachments.iter().map(|one| scope(roots, one)));
    }
    let Some((scope, addresses)) = dns::look_up(&scopes, name) else { return Err(unknown) };
    let address = first(&addresses).ok_or_else(|| no_address(name))?;
    Ok((address, Some(format!("in network {} {name} is {}", scope.network, list(&addresses)))))
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" and ")
}

fn first(addresses: &[IpAddr]) -> Option<IpAddr> {
    addresses.iter().find(|address| address.is_ipv4()).or(addresses.first()).copied()
}

fn no_address(name: &str) -> anyhow::Error {
    anyhow!("container {name} has no address of its own")
}

fn running(roots: &Roots, name: &str) -> Result<State> {
    containers::find_running(roots, name).map_err(|error| {
        let stopped = error.to_string().ends_with("is not running");
        let remedy = if stopped { format!(": minidock start {name}") } else { String::new() };
        anyhow!("{name} is no address, and as a container: {error}{remedy}")
    })
}

fn scope(roots: &Roots, attachment: &Attachment) -> Scope {
    let folder = register(&roots.networks(), &attachment.network);
    Scope { network: attachment.network.clone(), folder, internal: false }
}

fn address_of(attachment: &Attachment) -> Option<IpAddr> {
    [attachment.ipv4, attachment.ipv6].into_iter().flatten().map(|place| place.address).next()
}

/// The first network where it has an address; one with a bridge before others, which this host itself can't reach.
fn place(state: &State) -> Option<(&Attachment, IpAddr)> {
    let all = || state.attachments.iter().filter_map(|one| Some((one, address_of(one)?)));
    all().find(|(one, _)| !one.bridge.is_empty()).or_else(|| all().next())
}

/// Its networks, or those of the container whose network it shares.
fn attachments(roots: &Roots, state: &State) -> Vec<Attachment> {
    if !state.attachments.is_empty() {
        return state.attachments.clone();
    }
    let namespace = |state: &State| {
        let path = format!("/proc/{}/ns/net", state.process?.pid);
        std::fs::metadata(path).ok().map(|data| std::os::unix::fs::MetadataExt::ino(&data))
    };
    let own = namespace(state);
    let mut others = containers::all(roots).into_iter().filter(State::is_alive);
    let shared = others.find(|other| !other.attachments.is_empty() && own.is_some() && namespace(other) == own);
    shared.map(|other| other.attachments).unwrap_or_default()
}

/// The card by which a client outside would come in: the one that has the address that is asked for, unless it is a
/// bridge, a container's or lo; else that of the way out.
pub fn uplink(host: &mut Host, asked: IpAddr) -> Result<Option<String>> {
    let _ = host;
    let namespaces = netsetup::survey::survey(Vec::new())?;
    let Some(own) = namespaces.iter().find(|namespace| namespace.is_host) else { return Ok(None) };
    let has = own
        .links
        .iter()
        .find(|link| link.name != "lo" && link.kind != "bridge" && link.addresses.iter().any(|(one, _)| *one == asked));
    if let Some(link) = has {
        return Ok(Some(link.name.clone()));
    }
    // A public address stands for the outside.
    let far: IpAddr = match asked {
        IpAddr::V4(_) => Ipv4Addr::new(8, 8, 8, 8).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888).into(),
    };
    let way = netsetup::survey::lookup(far, None, None)?.ok();
    Ok(way.and_then(|way| own.link(way.link)).map(|link| link.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let roots = Roots::new(Some(std::path::Path::new("/nonexistent/minidock")));
        let read = |text: &str| Target::parse(&roots, &From::Host, text);
        let target = read("10.0.0.1:53/udp").unwrap();
        assert_eq!((target.protocol, target.address.to_string().as_str()), (Protocol::Udp, "10.0.0.1:53"));
        assert_eq!(read("[::1]:80").unwrap().address.to_string(), "[::1]:80");
        assert_eq!(read("localhost:80").unwrap().address.to_string(), "127.0.0.1:80");
        for wrong in ["", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:x", "10.0.0.1:80/xyz", "10.0.0.1:80/sctp", "nobody:80"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for own in ["localhost:80", "127.0.0.1:80", "[::1]:80"] {
            let error = Target::parse(&roots, &From::Outside, own).unwrap_err().to_string();
            assert!(error.contains("the client's own") && error.contains(&format!("minidock walk {own}")), "{error}");
        }
        assert_eq!("outside".parse(), Ok(From::Outside));
        assert_eq!("web".parse(), Ok(From::Container("web".to_owned())));
    }
}
