//! Flags of the commands about routers.

use std::net::Ipv4Addr;

use clap::Args;

use crate::router::{Inside, Outside};

/// Make a router in a network namespace of its own. It routes and translates IPv4; IPv6 networks use `-o
/// com.docker.network.bridge.gateway_mode_ipv6=nat|routed` instead.
#[derive(Debug, Clone, Args)]
pub struct RouterCreateArgs {
    /// The network that it serves, and its IPv4 address there [default: the gateway's if the bridge leaves it free, else the next]
    #[arg(long, required = true, value_name = "NETWORK[,ADDRESS]", value_parser = inside)]
    pub inside: Inside,
    /// The bridge outside (Linux or Open vSwitch), its IPv4 address there, and the next hop of its default route
    #[arg(long, required = true, value_name = "BRIDGE,ADDRESS/LENGTH,GATEWAY", value_parser = outside)]
    pub outside: Outside,
    /// Print each operation with its reason while it happens
    #[arg(long)]
    pub explain: bool,
    /// Print what would happen as a shell script; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The router's name, in `ip netns` too
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// List routers.
#[derive(Debug, Clone, Default, Args)]
pub struct RouterLsArgs {
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Print everything known of routers.
#[derive(Debug, Clone, Default, Args)]
pub struct RouterInspectArgs {
    /// `json`, or a Go template such as '{{.Outside.Address}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Names
    #[arg(required = true, value_name = "ROUTER")]
    pub names: Vec<String>,
}

/// Remove routers.
#[derive(Debug, Clone, Default, Args)]
pub struct RouterRmArgs {
    /// Names
    #[arg(required = true, value_name = "ROUTER")]
    pub names: Vec<String>,
}

/// One-to-one addresses: add ROUTER ADDRESS CONTAINER, rm ROUTER ADDRESS, ls [ROUTER].
#[derive(Debug, Clone, Default, Args)]
pub struct RouterFloatingArgs {
    /// Print each operation with its reason while it happens
    #[arg(long)]
    pub explain: bool,
    /// `add ROUTER ADDRESS CONTAINER`, `rm ROUTER ADDRESS`, or `ls [ROUTER]`
    #[arg(required = true, value_name = "add|rm|ls")]
    words: Vec<String>,
}

/// What is to be done with one-to-one addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Floating {
    /// Give an address to a container.
    Add {
        /// The router.
        router: String,
        /// The address outside.
        outside: Ipv4Addr,
        /// The container.
        container: String,
    },
    /// Take it away.
    Rm {
        /// The router.
        router: String,
        /// The address outside.
        outside: Ipv4Addr,
    },
    /// List them.
    Ls {
        /// Only this router's.
        router: Option<String>,
    },
}

impl RouterFloatingArgs {
    /// What the words say.
    pub fn action(&self) -> Result<Floating, String> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        match words[..] {
            ["add", router, outside, container] => Ok(Floating::Add {
                router: router.to_owned(),
                outside: address(outside)?,
                container: container.to_owned(),
            }),
            ["rm" | "remove", router, outside] => {
                Ok(Floating::Rm { router: router.to_owned(), outside: address(outside)? })
            }
            ["ls" | "list"] => Ok(Floating::Ls { router: None }),
            ["ls" | "list", router] => Ok(Floating::Ls { router: Some(router.to_owned()) }),
            _ => Err(
                "use 'floating add ROUTER ADDRESS CONTAINER', 'floating rm ROUTER ADDRESS' or 'floating ls [ROUTER]'"
                    .to_owned(),
            ),
        }
    }
}

fn address(text: &str) -> Result<Ipv4Addr, String> {
    let bare = text.split_once('/').map_or(text, |(address, _)| address);
    if bare.trim_matches(['[', ']']).parse::<std::net::Ipv6Addr>().is_ok() {
        return Err(format!(
            "{text} is an IPv6 address, and a router routes and translates IPv4 only; IPv6 leaves a network by the host: \
             network create --ipv6 [-o com.docker.network.bridge.gateway_mode_ipv6=routed]"
        ));
    }
    text.parse().map_err(|_| format!("{text:?} is no IPv4 address"))
}

fn inside(text: &str) -> Result<Inside, String> {
    let (network, wanted) = match text.split_once(',') {
        Some((network, wanted)) => (network, Some(address(wanted)?)),
        None => (text, None),
    };
    match network.is_empty() {
        true => Err("name the network: NETWORK[,ADDRESS]".to_owned()),
        false => Ok(Inside { network: network.to_owned(), address: wanted }),
    }
}

fn outside(text: &str) -> Result<Outside, String> {
    let wanted = "BRIDGE,ADDRESS/LENGTH,GATEWAY, such as br-ex,16.158.1.100/24,16.158.1.1";
    let parts: Vec<&str> = text.split(',').collect();
    let [bridge, subnet, gateway] = parts[..] else {
        return Err(format!("use {wanted}"));
    };
    let (own, length) = subnet.split_once('/').ok_or_else(|| format!("{subnet:?} has no length; use {wanted}"))?;
    let own = address(own)?;
    let prefix_len = length.parse().ok().filter(|length| (1..=30).contains(length));
    let bridge_ok = (1..=15).contains(&bridge.len())
        && bridge.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && !bridge.starts_with(['.', '-']);
    if !bridge_ok {
        return Err(format!("{bridge:?} can't be a bridge's name; use {wanted}"));
    }
    Ok(Outside {
        bridge: bridge.to_owned(),
        address: own,
        prefix_len: prefix_len.ok_or_else(|| format!("/{length} is no length from 1 to 30; use {wanted}"))?,
        gateway: address(gateway)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_read_as_the_lecture_has_them() {
        assert_eq!(inside("vm,192.168.1.1"), Ok(Inside { network: "vm".into(), address: "192.168.1.1".parse().ok() }));
        assert_eq!(inside("vm").unwrap().address, None);
        let there = outside("br-ex,16.158.1.100/24,16.158.1.1").unwrap();
        assert_eq!((there.bridge.as_str(), there.prefix_len), ("br-ex", 24));
        for wrong in [
            "",
            "br",
            "br,1.2.3.4,1.2.3.1",
            "br,1.2.3.4/31,1.2.3.1",
            "br,1.2.3.4/24",
            "a b,1.2.3.4/24,1.2.3.1",
            "-x,1.2.3.4/24,1.2.3.1",
            "br,1.2.3/24,1.2.3.1",
            "br,1.2.3.4/24,x",
        ] {
            assert!(outside(wrong).is_err(), "{wrong}");
        }
        for wrong in ["br,fd00::1/64,fd00::2", "br,1.2.3.4/24,fd00::1"] {
            assert!(outside(wrong).unwrap_err().contains("IPv4 only"), "{wrong}");
        }
        assert!(inside("vm,fd00::1").unwrap_err().contains("IPv4 only"));
        assert!(inside(",1.2.3.4").is_err() && inside("vm,x").is_err());
    }

    #[test]
    fn what_floating_is_asked_for() {
        let words =
            |text: &str| RouterFloatingArgs { explain: false, words: text.split(' ').map(str::to_owned).collect() };
        assert!(matches!(words("add r 1.2.3.4 web").action(), Ok(Floating::Add { .. })));
        assert!(matches!(words("rm r 1.2.3.4").action(), Ok(Floating::Rm { .. })));
        assert!(matches!(words("ls").action(), Ok(Floating::Ls { router: None })));
        for wrong in ["add r web", "add r web 1.2.3.4", "rm r", "show", "ls a b"] {
            assert!(words(wrong).action().is_err(), "{wrong}");
        }
    }
}
