//! Published ports as `ps` and `port` print them.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use netsetup::{PortMapping, Protocol};

/// The PORTS column: `0.0.0.0:8000-8001->8000-8001/tcp, 0.0.0.0:10080->80/tcp`. `exposed` are the ports that are only
/// noted; those that are published too are left out.
pub fn column(mappings: &[PortMapping], exposed: &BTreeSet<(u16, Protocol)>) -> String {
    let published: BTreeSet<_> = mappings.iter().map(|mapping| (mapping.container_port, mapping.protocol)).collect();
    let mut ports: Vec<(u16, String, u16, Protocol)> = mappings
        .iter()
        .map(|mapping| (mapping.container_port, bracketed(mapping.host_address), mapping.host_port, mapping.protocol))
        .chain(exposed.difference(&published).map(|(port, protocol)| (*port, String::new(), 0, *protocol)))
        .collect();
    ports.sort();
    ports.dedup();
    // docker joins neighbours with one number on both sides; others come last, one by one.
    let mut finished = Vec::new();
    let mut alone = Vec::new();
    let mut order = Vec::new();
    let mut groups: HashMap<(String, Protocol), (u16, u16)> = HashMap::new();
    for (inside, address, outside, protocol) in ports {
        if !address.is_empty() && outside != inside {
            alone.push(format!("{address}:{outside}->{inside}/{protocol}"));
            continue;
        }
        let key = (address, protocol);
        match groups.get_mut(&key) {
            None => {
                groups.insert(key.clone(), (inside, inside));
                order.push(key);
            }
            Some((_, last)) if u32::from(inside) == u32::from(*last) + 1 => *last = inside,
            Some(group) => {
                finished.push(range(&key, *group));
                *group = (inside, inside);
            }
        }
    }
    let open = order.iter().filter_map(|key| groups.get(key).map(|group| range(key, *group)));
    finished.into_iter().chain(open).chain(alone).collect::<Vec<_>>().join(", ")
}

/// An IPv6 address stands in brackets before a port.
pub fn bracketed(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

fn range((address, protocol): &(String, Protocol), (first, last): (u16, u16)) -> String {
    let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
    match &address[..] {
        "" => format!("{ports}/{protocol}"),
        address => format!("{address}:{ports}->{ports}/{protocol}"),
    }
}

/// The lines of `port CONTAINER`: `80/tcp -> 0.0.0.0:10080`.
pub fn list(mappings: &[PortMapping]) -> String {
    let mut mappings: Vec<&PortMapping> = mappings.iter().collect();
    mappings.sort_by_key(|mapping| (mapping.container_port, mapping.protocol, mapping.host_address, mapping.host_port));
    mappings
        .iter()
        .map(|m| format!("{}/{} -> {}\n", m.container_port, m.protocol, SocketAddr::new(m.host_address, m.host_port)))
        .collect()
}

/// The lines of `port CONTAINER PRIVATE_PORT[/PROTO]`.
///
/// # Errors
/// docker's sentence when that port isn't published.
pub fn one(mappings: &[PortMapping], wanted: &str, container: &str) -> Result<String, String> {
    let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let port: u16 = number.parse().map_err(|_| format!("invalid port ({number}): write one such as 80 or 53/udp"))?;
    let lines: String = mappings
        .iter()
        .filter(|mapping| {
            mapping.container_port == port && mapping.protocol.to_string() == protocol.to_ascii_lowercase()
        })
        .map(|mapping| format!("{}\n", SocketAddr::new(mapping.host_address, mapping.host_port)))
        .collect();
    match lines.is_empty() {
        true => Err(format!("No public port '{wanted}' published for {container}")),
        false => Ok(lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netsetup::PublishMode;

    fn mapping(address: &str, host_port: u16, container_port: u16, protocol: Protocol) -> PortMapping {
        PortMapping {
            protocol,
            host_address: address.parse().unwrap(),
            host_port,
            container_port,
            mode: PublishMode::Dnat,
        }
    }

    /// The expected text is docker's client's for the same ports.
    #[test]
    fn neighbours_are_joined() {
        use Protocol::{Tcp, Udp};
        let mappings = [
            mapping("0.0.0.0", 10080, 80, Tcp),
            mapping("0.0.0.0", 8001, 8001, Tcp),
            mapping("0.0.0.0", 8000, 8000, Tcp),
            mapping("127.0.0.1", 9, 9, Udp),
        ];
        let exposed = BTreeSet::from([(53, Udp), (7, Tcp), (8, Tcp), (80, Tcp)]);
        assert_eq!(
            column(&mappings, &exposed),
            "7-8/tcp, 127.0.0.1:9->9/udp, 53/udp, 0.0.0.0:8000-8001->8000-8001/tcp, 0.0.0.0:10080->80/tcp"
        );
        assert_eq!(column(&[], &BTreeSet::new()), "");
        assert_eq!(
            column(&[], &BTreeSet::from([(1, Tcp), (3, Tcp), (4, Tcp), (65535, Tcp)])),
            "1/tcp, 3-4/tcp, 65535/tcp"
        );
    }

    #[test]
    fn the_port_command() {
        let mappings = [mapping("127.0.0.1", 5353, 53, Protocol::Udp), mapping("0.0.0.0", 10080, 80, Protocol::Tcp)];
        assert_eq!(list(&mappings), "53/udp -> 127.0.0.1:5353\n80/tcp -> 0.0.0.0:10080\n");
        assert_eq!(one(&mappings, "80", "web"), Ok("0.0.0.0:10080\n".to_owned()));
        assert_eq!(one(&mappings, "53/udp", "web"), Ok("127.0.0.1:5353\n".to_owned()));
        assert_eq!(one(&mappings, "53", "web"), Err("No public port '53' published for web".to_owned()));
        assert!(one(&mappings, "x", "web").is_err());
    }
}
