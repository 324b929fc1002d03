//! Who is asked, and from where.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use anyhow::{Result, anyhow, bail};
use netsetup::{Host, Protocol};

use crate::containers;
use crate::roots::Roots;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// tcp or udp
    pub protocol: Protocol,
    /// Address and port.
    pub address: SocketAddr,
}

impl Target {
    /// `HOST:PORT`, `[::1]:PORT`, with `/udp` for UDP. HOST: an address, `localhost`, or a container's name.
    pub fn parse(roots: &Roots, text: &str) -> Result<Target> {
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
        let address = match host.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) if host == "localhost" => Ipv4Addr::LOCALHOST.into(),
            Err(_) => of_container(roots, host)?,
        };
        Ok(Target { protocol, address: SocketAddr::new(address, port) })
    }
}

/// A running container's first address.
fn of_container(roots: &Roots, name: &str) -> Result<IpAddr> {
    let state = containers::find_running(roots, name).map_err(|error| {
        let stopped = error.to_string().ends_with("is not running");
        let remedy = if stopped { format!(": minidock start {name}") } else { String::new() };
        anyhow!("{name} is no address, and as a container: {error}{remedy}")
    })?;
    let places = state.attachments.iter().flat_map(|attachment| [attachment.ipv4, attachment.ipv6]).flatten();
    match places.map(|place| place.address).next() {
        Some(address) => Ok(address),
        None => bail!("container {name} has no address of its own"),
    }
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
        let read = |text: &str| Target::parse(&roots, text);
        let target = read("10.0.0.1:53/udp").unwrap();
        assert_eq!((target.protocol, target.address.to_string().as_str()), (Protocol::Udp, "10.0.0.1:53"));
        assert_eq!(read("[::1]:80").unwrap().address.to_string(), "[::1]:80");
        assert_eq!(read("localhost:80").unwrap().address.to_string(), "127.0.0.1:80");
        for wrong in ["", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:x", "10.0.0.1:80/xyz", "10.0.0.1:80/sctp", "nobody:80"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!("outside".parse(), Ok(From::Outside));
        assert_eq!("web".parse(), Ok(From::Container("web".to_owned())));
    }
}
