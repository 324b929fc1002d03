//! The options of network drivers (`network create -o KEY=VALUE`), with docker's keys: text in, settings out. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What a network is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A bridge on the host that containers plug into.
    Bridge,
    /// Cards with MACs of their own on a link of the host.
    Macvlan,
    /// Cards that share the MAC of a link of the host.
    Ipvlan,
    /// The host's own network stack.
    Host,
    /// A loopback device only.
    Null,
}

impl Driver {
    /// docker's name.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Bridge => "bridge",
            Driver::Macvlan => "macvlan",
            Driver::Ipvlan => "ipvlan",
            Driver::Host => "host",
            Driver::Null => "null",
        }
    }
}

/// How packets from outside come to the containers, for one IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gateway {
    /// To published ports, and what goes out is masqueraded.
    #[default]
    Nat,
    /// By their own addresses, to published ports only.
    Routed,
    /// Not at all: the bridge has no address of the host.
    Isolated,
}

/// The settings of a network of the bridge driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeOptions {
    /// The gateway's IPv4 address is left to somebody else on the bridge, such as a router.
    pub inhibit_ipv4: bool,
    /// `com.docker.network.bridge.name`: the link's name; `None`: made from the network's id.
    pub name: Option<String>,
    /// `…enable_icc`: containers reach each other.
    pub icc: bool,
    /// `…enable_ip_masquerade`: what goes out has the host's address.
    pub masquerade: bool,
    /// `…host_binding_ipv4` (or `_ipv6`): where ports are published that name no address.
    pub host_binding: Option<IpAddr>,
    /// `com.docker.network.driver.mtu`, in bytes; `None`: the way out's.
    pub mtu: Option<u32>,
    /// `…gateway_mode_ipv4`
    pub gateway_ipv4: Gateway,
    /// `…gateway_mode_ipv6`
    pub gateway_ipv6: Gateway,
    /// `com.docker.network.container_iface_prefix`: instead of `eth`
    pub link_prefix: Option<String>,
}

/// The modes of macvlan and ipvlan: linux/if_link.h's MACVLAN_MODE_* and IPVLAN_MODE_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// macvlan: containers reach each other directly.
    Bridge,
    /// macvlan: containers don't reach each other.
    Private,
    /// macvlan: by a switch outside.
    Vepa,
    /// macvlan: one container has the link for itself.
    Passthru,
    /// ipvlan: a switch.
    L2,
    /// ipvlan: a router; no broadcasts.
    L3,
    /// ipvlan: a router, and the host's firewall sees the packets.
    L3s,
}

impl Mode {
    /// docker's and iproute2's name.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Bridge => "bridge",
            Mode::Private => "private",
            Mode::Vepa => "vepa",
            Mode::Passthru => "passthru",
            Mode::L2 => "l2",
            Mode::L3 => "l3",
            Mode::L3s => "l3s",
        }
    }
}

/// The settings of a network of the macvlan or ipvlan driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentOptions {
    /// `parent`: the host's link, `eth0` or (made when it's missing) its vlan `eth0.10`; `None`: a link of its own that
    /// leads nowhere.
    pub parent: Option<String>,
    /// `macvlan_mode` or `ipvlan_mode`
    pub mode: Mode,
    /// `ipvlan_flag`, with ipvlan: bridge, private or vepa
    pub flag: Mode,
    /// `com.docker.network.driver.mtu`, in bytes; `None`: the parent's.
    pub mtu: Option<u32>,
}

const BRIDGE: &str = "com.docker.network.bridge.";
/// Every key with the drivers that have it.
const KEYS: [(&str, &[Driver]); 15] = [
    ("com.docker.network.bridge.name", &[Driver::Bridge]),
    ("com.docker.network.bridge.enable_icc", &[Driver::Bridge]),
    ("com.docker.network.bridge.enable_ip_masquerade", &[Driver::Bridge]),
    ("com.docker.network.bridge.host_binding_ipv4", &[Driver::Bridge]),
    ("com.docker.network.bridge.host_binding_ipv6", &[Driver::Bridge]),
    ("com.docker.network.bridge.gateway_mode_ipv4", &[Driver::Bridge]),
    ("com.docker.network.bridge.gateway_mode_ipv6", &[Driver::Bridge]),
    ("com.docker.network.bridge.inhibit_ipv4", &[Driver::Bridge]),
    ("com.docker.network.container_iface_prefix", &[Driver::Bridge]),
    ("com.docker.network.driver.mtu", &[Driver::Bridge, Driver::Macvlan, Driver::Ipvlan]),
    ("mtu", &[Driver::Bridge, Driver::Macvlan, Driver::Ipvlan]),
    ("parent", &[Driver::Macvlan, Driver::Ipvlan]),
    ("macvlan_mode", &[Driver::Macvlan]),
    ("ipvlan_mode", &[Driver::Ipvlan]),
    ("ipvlan_flag", &[Driver::Ipvlan]),
];

/// Checks that the driver has every key.
fn check_keys(driver: Driver, options: &BTreeMap<String, String>) -> Result<(), String> {
    for key in options.keys() {
        if KEYS.iter().any(|(known, drivers)| known == key && drivers.contains(&driver)) {
            continue;
        }
        let of_driver: Vec<&str> =
            KEYS.iter().filter(|(_, drivers)| drivers.contains(&driver)).map(|(key, _)| *key).collect();
        let short = |text: &str| text.rsplit('.').next().unwrap_or(text).to_owned();
        let near = of_driver.iter().find(|known| short(known) == short(key));
        let hint = match near {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are {}", of_driver.join(", ")),
        };
        return Err(format!("the {} driver has no option {key:?}; {hint}", driver.name()));
    }
    Ok(())
}

/// Reads the options of the bridge driver.
///
/// # Errors
/// The first key or value that is wrong.
pub fn bridge(options: &BTreeMap<String, String>) -> Result<BridgeOptions, String> {
    check_keys(Driver::Bridge, options)?;
    let get = |key: &str| options.get(&format!("{BRIDGE}{key}")).map(String::as_str);
    let switch = |key: &str, default: bool| match get(key) {
        None => Ok(default),
        Some(text) => crate::cli::boolean(text).map_err(|why| format!("invalid value for {BRIDGE}{key}={text}: {why}")),
    };
    let gateway = |key: &str| match get(key) {
        None | Some("") | Some("nat") => Ok(Gateway::Nat),
        Some("routed") => Ok(Gateway::Routed),
        Some("isolated") => Ok(Gateway::Isolated),
        Some(text) => Err(format!("invalid value for {BRIDGE}{key}={text}: use nat, routed or isolated")),
    };
    let binding = |key: &str, ipv4: bool| match get(key) {
        None | Some("") => Ok(None),
        Some(text) => match text.parse::<IpAddr>() {
            Ok(address) if address.is_ipv4() == ipv4 => Ok(Some(address)),
            _ => Err(format!("invalid value for {BRIDGE}{key}={text}: write an address of the host")),
        },
    };
    let name = get("name").filter(|name| !name.is_empty()).map(link_name).transpose()?;
    let prefix = options.get("com.docker.network.container_iface_prefix").filter(|prefix| !prefix.is_empty());
    Ok(BridgeOptions {
        name,
        icc: switch("enable_icc", true)?,
        masquerade: switch("enable_ip_masquerade", true)?,
        host_binding: binding("host_binding_ipv4", true)?.or(binding("host_binding_ipv6", false)?),
        mtu: mtu(options)?,
        gateway_ipv4: gateway("gateway_mode_ipv4")?,
        inhibit_ipv4: switch("inhibit_ipv4", false)?,
        gateway_ipv6: gateway("gateway_mode_ipv6")?,
        // Two digits must fit behind it.
        link_prefix: prefix.map(|prefix| link_name(&format!("{prefix}00")).map(|_| prefix.clone())).transpose()?,
    })
}

/// Reads the options of the macvlan or ipvlan driver.
///
/// # Errors
/// The first key or value that is wrong.
pub fn parent(driver: Driver, options: &BTreeMap<String, String>) -> Result<ParentOptions, String> {
    check_keys(driver, options)?;
    let macvlan = driver == Driver::Macvlan;
    let (key, modes) = match macvlan {
        true => ("macvlan_mode", &[Mode::Bridge, Mode::Private, Mode::Vepa, Mode::Passthru][..]),
        false => ("ipvlan_mode", &[Mode::L2, Mode::L3, Mode::L3s][..]),
    };
    Ok(ParentOptions {
        parent: options.get("parent").filter(|name| !name.is_empty()).map(|name| parent_name(name)).transpose()?,
        mode: mode(options, key, modes)?,
        flag: mode(options, "ipvlan_flag", &[Mode::Bridge, Mode::Private, Mode::Vepa])?,
        mtu: mtu(options)?,
    })
}

/// The first of the modes is the default.
fn mode(options: &BTreeMap<String, String>, key: &str, modes: &[Mode]) -> Result<Mode, String> {
    let text = options.get(key).map_or("", String::as_str);
    let default = modes.first().copied().unwrap_or(Mode::Bridge);
    if text.is_empty() {
        return Ok(default);
    }
    modes.iter().copied().find(|mode| mode.name() == text).ok_or_else(|| {
        let names: Vec<&str> = modes.iter().map(|mode| mode.name()).collect();
        format!("invalid value for {key}={text}: use {}", names.join(", "))
    })
}

fn mtu(options: &BTreeMap<String, String>) -> Result<Option<u32>, String> {
    let Some(text) = options.get("com.docker.network.driver.mtu").or_else(|| options.get("mtu")) else {
        return Ok(None);
    };
    match text.parse::<u32>() {
        Ok(0) => Ok(None),
        Ok(mtu) if (68..=65535).contains(&mtu) => Ok(Some(mtu)),
        _ => Err(format!("invalid value for com.docker.network.driver.mtu={text}: write a number from 68 to 65535")),
    }
}

/// dev_valid_name() in net/core/dev.c, and no character that a shell or a firewall's language takes for its own.
fn link_name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let valid = (1..=15).contains(&text.len()) && text.chars().all(good) && !text.starts_with(['.', '-']);
    match valid {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} can't be the name of a link: 1 to 15 letters, digits, '_', '.', '-'")),
    }
}

fn parent_name(text: &str) -> Result<String, String> {
    let name = link_name(text)?;
    match name.as_str() {
        "lo" => Err("loopback interface is not a valid parent link; name the host's uplink".to_owned()),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_bridges_options() {
        let read = bridge(&options(&[])).unwrap();
        assert!(read.icc && read.masquerade && read.name.is_none() && read.mtu.is_none());
        let read = bridge(&options(&[
            ("com.docker.network.bridge.name", "lab0"),
            ("com.docker.network.bridge.enable_icc", "false"),
            ("com.docker.network.bridge.enable_ip_masquerade", "0"),
            ("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1"),
            ("com.docker.network.bridge.gateway_mode_ipv6", "routed"),
            ("com.docker.network.driver.mtu", "1400"),
            ("com.docker.network.container_iface_prefix", "net"),
        ]))
        .unwrap();
        assert_eq!(
            read,
            BridgeOptions {
                inhibit_ipv4: false,
                name: Some("lab0".into()),
                icc: false,
                masquerade: false,
                host_binding: Some([127, 0, 0, 1].into()),
                mtu: Some(1400),
                gateway_ipv4: Gateway::Nat,
                gateway_ipv6: Gateway::Routed,
                link_prefix: Some("net".into()),
            }
        );
    }

    #[test]
    fn wrong_options_are_named() {
        for (key, value, words) in [
            ("com.docker.network.bridge.enable_icc", "maybe", "enable_icc=maybe"),
            ("com.docker.network.bridge.name", "a/b", "can't be the name of a link"),
            ("com.docker.network.bridge.name", "sixteen-letters-", "can't be the name of a link"),
            ("com.docker.network.bridge.gateway_mode_ipv4", "x", "use nat, routed or isolated"),
            ("com.docker.network.bridge.host_binding_ipv4", "::1", "write an address"),
            ("com.docker.network.driver.mtu", "10", "68 to 65535"),
            ("enable_icc", "false", "did you mean com.docker.network.bridge.enable_icc?"),
            ("parent", "eth0", "the bridge driver has no option \"parent\""),
        ] {
            let why = bridge(&options(&[(key, value)])).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn macvlan_and_ipvlan() {
        let read = parent(Driver::Macvlan, &options(&[("parent", "eth0.10")])).unwrap();
        assert_eq!((read.parent.as_deref(), read.mode), (Some("eth0.10"), Mode::Bridge));
        let read = parent(Driver::Ipvlan, &options(&[("ipvlan_mode", "l3"), ("ipvlan_flag", "vepa")])).unwrap();
        assert_eq!((read.mode, read.flag), (Mode::L3, Mode::Vepa));
        assert!(parent(Driver::Macvlan, &options(&[("macvlan_mode", "l2")])).is_err());
        assert!(parent(Driver::Macvlan, &options(&[("ipvlan_mode", "l2")])).is_err());
        assert!(parent(Driver::Macvlan, &options(&[("parent", "lo")])).is_err());
    }
}
