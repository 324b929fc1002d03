//! A published port: which host address and port leads to which port of the container, and by what means.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A transport protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293
    Tcp,
    /// RFC 768
    Udp,
    /// RFC 9260
    Sctp,
}

impl Protocol {
    /// The number in the IP header (IANA protocol numbers).
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// The name that docker, iptables and nft use: `tcp`, `udp`, `sctp`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = String;

    /// Accepts what docker accepts: the name in any case.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Ok(Protocol::Sctp),
            _ => Err(format!("unknown protocol {text:?}: use tcp, udp or sctp")),
        }
    }
}

/// How packets to the host port come to the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// The kernel rewrites the destination; the container sees the client's real address.
    Dnat,
    /// The built-in proxy accepts and connects anew; the container sees the gateway's address.
    Proxy,
}

/// One published port. In a plan `host_port` is never 0: a random port has been reserved by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// The transport protocol of both sides.
    pub protocol: Protocol,
    /// The host's address that the port is published on; `0.0.0.0` and `::` mean every address of their version.
    pub host_address: IpAddr,
    /// The port on the host, 1-65535.
    pub host_port: u16,
    /// The port in the container, 1-65535.
    pub container_port: u16,
    /// DNAT or proxy.
    pub mode: PublishMode,
}

impl fmt::Display for PortMapping {
    /// `0.0.0.0:10080->80/tcp` or `[::]:10080->80/tcp`, the way `docker ps` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = SocketAddr::new(self.host_address, self.host_port);
        write!(f, "{at}->{}/{}", self.container_port, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_names_go_both_ways() {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            assert_eq!(protocol.name().parse(), Ok(protocol));
            assert_eq!(protocol.name().to_uppercase().parse(), Ok(protocol));
        }
        assert!("icmp".parse::<Protocol>().is_err());
    }

    #[test]
    fn a_mapping_reads_as_docker_prints_it() {
        let mapping = PortMapping {
            protocol: Protocol::Udp,
            host_address: [0, 0, 0, 0].into(),
            host_port: 10053,
            container_port: 53,
            mode: PublishMode::Dnat,
        };
        assert_eq!(mapping.to_string(), "0.0.0.0:10053->53/udp");
        let mapping = PortMapping { host_address: std::net::Ipv6Addr::UNSPECIFIED.into(), ..mapping };
        assert_eq!(mapping.to_string(), "[::]:10053->53/udp");
    }
}
