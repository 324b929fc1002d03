//! Published and exposed ports: `[ip:][host[-range]:]container[-range][/proto]`.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use netsetup::Protocol;
use serde::{Deserialize, Serialize};

use super::Invalid;

const FLAG: &str = "-p, --publish";
/// No more ports than there are numbers; each is a socket and a firewall element.
const MOST: usize = 65536;

/// One port of the container that is to be reached through the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The transport protocol of both sides.
    pub protocol: Protocol,
    /// The host's address; `0.0.0.0`: all of them.
    pub host_address: IpAddr,
    /// No address was given: all addresses of both IP versions, on the same port.
    #[serde(default)]
    pub both: bool,
    /// The host's port.
    pub host: HostPort,
    /// The container's port, 1-65535.
    pub container_port: u16,
}

/// Which port of the host is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPort {
    /// Any free one.
    Random,
    /// This one.
    Fixed(u16),
    /// The first free one of a range (first, last).
    FirstFree(u16, u16),
}

/// Reads all `-p` flags; ranges come out as single ports, in order.
///
/// # Errors
/// The first flag that is wrong, or two that want the same port of the host.
pub fn publish(flags: &[String]) -> Result<Vec<Publish>, Invalid> {
    let mut ports = Vec::new();
    for text in flags {
        one(text, &mut ports).map_err(|why| Invalid::value(FLAG, text, why))?;
        if ports.len() > MOST {
            return Err(Invalid::value(
                FLAG,
                text,
                format!("more than {MOST} ports are published; use --network host"),
            ));
        }
    }
    refuse_twice(&ports)?;
    Ok(ports)
}

fn one(text: &str, into: &mut Vec<Publish>) -> Result<(), String> {
    let (rest, protocol) = split_protocol(text)?;
    let (address, host, container) = split_parts(rest)?;
    if container.is_empty() {
        return Err(format!("no port specified: {text}<empty>; write HOST:CONTAINER, such as 8080:80"));
    }
    let (address, both) = (host_address(address)?, address.is_empty());
    let inside = range(container).ok_or_else(|| format!("invalid containerPort: {container}; ports are 1 to 65535"))?;
    // docker takes host port 0 for "any free one".
    let outside = match host {
        "" | "0" => None,
        host => Some(range(host).ok_or_else(|| format!("invalid hostPort: {host}; ports are 1 to 65535"))?),
    };
    let many = inside.len() > 1;
    if let Some(outside) = &outside
        && many
        && outside.len() != inside.len()
    {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}; make them equally long"
        ));
    }
    for (nth, container_port) in inside.enumerate() {
        let host = match &outside {
            None => HostPort::Random,
            Some(outside) if !many && outside.len() > 1 => HostPort::FirstFree(*outside.start(), *outside.end()),
            Some(outside) => HostPort::Fixed(outside.start() + u16::try_from(nth).unwrap_or(0)),
        };
        into.push(Publish { protocol, host_address: address, both, host, container_port });
    }
    Ok(())
}

fn split_protocol(text: &str) -> Result<(&str, Protocol), String> {
    match text.split_once('/') {
        None => Ok((text, Protocol::Tcp)),
        Some((rest, name)) => {
            let protocol = match name.to_ascii_lowercase().as_str() {
                "" | "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                _ => return Err(format!("invalid proto: {name}; use tcp, udp or sctp")),
            };
            Ok((rest, protocol))
        }
    }
}

/// `ip:host:container` → its three parts, empty where not given. An IPv6 address stands in brackets.
fn split_parts(text: &str) -> Result<(&str, &str, &str), String> {
    let Some((before, container)) = text.rsplit_once(':') else {
        return Ok(("", "", text));
    };
    match before.rsplit_once(':') {
        None => Ok(("", before, container)),
        Some((address, host)) => Ok((address, host, container)),
    }
}

fn host_address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare.is_empty() {
        return Ok(Ipv4Addr::UNSPECIFIED.into());
    }
    match bare.parse() {
        Ok(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(_) => Err(format!("{text} is an IPv4 address in IPv6's clothes; write it as such")),
            None => Ok(address.into()),
        },
        Ok(address) => Ok(address),
        Err(_) => Err(format!("invalid IP address: {text}")),
    }
}

/// `80` or `80-90`, never with 0.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

/// Two flags that want one port of the host can't both be served; `0.0.0.0` overlaps every address.
fn refuse_twice(ports: &[Publish]) -> Result<(), Invalid> {
    let mut taken: HashMap<(Protocol, u16), Vec<IpAddr>> = HashMap::new();
    for publish in ports {
        let HostPort::Fixed(port) = publish.host else {
            continue;
        };
        let addresses = taken.entry((publish.protocol, port)).or_default();
        let address = publish.host_address;
        let clash = |other: &IpAddr| {
            let any = other.is_unspecified() || address.is_unspecified();
            *other == address || (any && other.is_ipv4() == address.is_ipv4())
        };
        if addresses.iter().any(clash) {
            return Err(Invalid::new(format!(
                "port {port}/{} of the host is published twice by -p; give each a port of its own",
                publish.protocol
            )));
        }
        addresses.push(address);
        addresses.extend(publish.both.then_some(IpAddr::from(Ipv6Addr::UNSPECIFIED)));
    }
    Ok(())
}

/// Reads all `--expose` flags: `80`, `80-90/udp`. Also what an image's EXPOSE has.
///
/// # Errors
/// The first flag that is wrong.
pub fn expose(flags: &[String]) -> Result<BTreeSet<(u16, Protocol)>, Invalid> {
    let mut ports = BTreeSet::new();
    for text in flags {
        let wrong = |why: String| Invalid::value("--expose", text, why);
        let (rest, protocol) = split_protocol(text).map_err(wrong)?;
        if rest.contains(':') {
            return Err(wrong(format!("invalid port format for --expose: {rest}; to publish it use -p")));
        }
        let range = range(rest).ok_or_else(|| wrong("invalid range format; ports are 1 to 65535".to_owned()))?;
        ports.extend(range.map(|port| (port, protocol)));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Publish> {
        publish(&[text.to_owned()]).unwrap()
    }

    #[test]
    fn the_forms_of_a_published_port() {
        use HostPort::{FirstFree, Fixed, Random};
        let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        let table = [
            ("80", Protocol::Tcp, any, Random, 80),
            ("8080:80", Protocol::Tcp, any, Fixed(8080), 80),
            ("0:80", Protocol::Tcp, any, Random, 80),
            (":80", Protocol::Tcp, any, Random, 80),
            ("53:53/udp", Protocol::Udp, any, Fixed(53), 53),
            ("53:53/UDP", Protocol::Udp, any, Fixed(53), 53),
            ("1:1/sctp", Protocol::Sctp, any, Fixed(1), 1),
            ("127.0.0.1:8080:80", Protocol::Tcp, local, Fixed(8080), 80),
            ("127.0.0.1::80", Protocol::Tcp, local, Random, 80),
            ("8000-8005:80", Protocol::Tcp, any, FirstFree(8000, 8005), 80),
            ("[::1]:8080:80", Protocol::Tcp, Ipv6Addr::LOCALHOST.into(), Fixed(8080), 80),
            ("65535:65535", Protocol::Tcp, any, Fixed(65535), 65535),
        ];
        for (text, protocol, host_address, host, container_port) in table {
            let both = host_address.is_unspecified();
            assert_eq!(read(text), [Publish { protocol, host_address, both, host, container_port }], "{text}");
        }
    }

    #[test]
    fn ranges_come_out_port_by_port() {
        let ports = read("10-12:20-22/udp");
        assert_eq!(ports.len(), 3);
        assert_eq!((ports[2].host, ports[2].container_port), (HostPort::Fixed(12), 22));
        assert!(read("20-22").iter().all(|port| port.host == HostPort::Random));
        assert_eq!(read("1-65535:1-65535").len(), 65535);
    }

    #[test]
    fn wrong_ports_are_refused() {
        for text in [
            "",
            ":",
            "80:",
            "abc:80",
            "80:abc",
            "70000:80",
            "80:0",
            "80:65536",
            "80-90:80-85",
            "90-80:90-80",
            "80:80/foo",
            "1.2.3:80:80",
            "1.2.3.4.5:80:80",
            "[::ffff:1.2.3.4]:80:80",
            "a:b:c:d",
            "80:-1",
            "+80:80",
            "80 : 80",
            "80/tcp/udp",
            "-",
            "1-2-3",
        ] {
            let error = publish(&[text.to_owned()]).unwrap_err();
            assert!(error.message.contains("--publish"), "{text}: {error}");
        }
    }

    #[test]
    fn one_host_port_is_published_once() {
        let check = |list: &[&str]| publish(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert!(check(&["80:80", "80:81"]).unwrap_err().message.contains("80/tcp of the host is published twice"));
        assert!(check(&["80:80", "127.0.0.1:80:81"]).is_err());
        assert!(check(&["127.0.0.1:80:80", "127.0.0.2:80:80", "80:80/udp"]).is_ok());
        assert!(check(&["80", "80"]).is_ok());
        assert!(check(&["1-65535", "1-65535"]).unwrap_err().message.contains("65536"));
    }

    #[test]
    fn exposed_ports() {
        let ports = expose(&["80".into(), "90-91/udp".into(), "80/tcp".into()]).unwrap();
        assert_eq!(
            ports.into_iter().collect::<Vec<_>>(),
            [(80, Protocol::Tcp), (90, Protocol::Udp), (91, Protocol::Udp)]
        );
        for text in ["foo", "80-70", "0", "8080:80", "80/x", ""] {
            assert!(expose(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
