//! `network create`: the flags, checked for sense alone. Which subnet is free is found out later.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Invalid, Surroundings, labels};
use crate::cli::NetworkCreateArgs;
use crate::network::definition::{self, Pool};
use crate::network::options::{self, Driver, Gateway};
use crate::network::subnet::{self, Subnet};

/// The network that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNetwork {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub driver: Driver,
    /// Whether containers get IPv4 addresses.
    pub ipv4: bool,
    /// Whether containers get IPv6 addresses.
    pub ipv6: bool,
    /// No way out.
    pub internal: bool,
    /// Kept for `inspect`.
    pub attachable: bool,
    /// The subnets that were named; the others are chosen.
    pub pools: Vec<Pool>,
    /// The driver's options, as typed.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl NewNetwork {
    /// Checks the flags.
    ///
    /// # Errors
    /// The first flag that can't be meant, or two that contradict each other.
    pub fn from_args(args: &NetworkCreateArgs) -> Result<NewNetwork, Invalid> {
        let wrong = |why: String| Invalid::arguments(why);
        if !definition::valid_name(&args.name) {
            return Err(wrong(format!(
                "invalid network name {:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* is allowed, at most 128 letters",
                crate::cli::bounded(&args.name, 140)
            )));
        }
        if ["bridge", "host", "none", "default", "container"].contains(&args.name.as_str()) {
            return Err(wrong(definition::already_exists(&args.name)));
        }
        let driver = driver(&args.driver)?;
        if args.ipam_driver != "default" {
            return Err(wrong(format!("no IPAM driver {:?}: there is only default", args.ipam_driver)));
        }
        if !matches!(args.scope.as_deref(), None | Some("" | "local")) {
            return Err(wrong("minidock has no swarm: the scope of a network is local".to_owned()));
        }
        if !args.ipv4 && !args.ipv6 {
            return Err(wrong("IPv4 or IPv6 must be enabled: leave --ipv4=false out, or add --ipv6".to_owned()));
        }
        let options = pairs("-o, --opt", &args.opt)?;
        check_options(driver, &options, args.internal).map_err(wrong)?;
        Ok(NewNetwork {
            name: args.name.clone(),
            driver,
            ipv4: args.ipv4,
            ipv6: args.ipv6,
            internal: args.internal,
            attachable: args.attachable,
            pools: pools(args)?,
            options,
            labels: labels::gather(&[], &args.label, &Surroundings::real())?,
        })
    }
}

fn driver(text: &str) -> Result<Driver, Invalid> {
    match text {
        "bridge" | "" => Ok(Driver::Bridge),
        "macvlan" => Ok(Driver::Macvlan),
        "ipvlan" => Ok(Driver::Ipvlan),
        "host" => Err(Invalid::arguments("only one instance of \"host\" network is allowed: run with --network host")),
        "null" | "none" => {
            Err(Invalid::arguments("only one instance of \"null\" network is allowed: run with --network none"))
        }
        "overlay" => Err(Invalid::arguments(
            "plugin \"overlay\" not found: minidock has no swarm; use bridge, macvlan or ipvlan",
        )),
        _ => {
            let near = ["bridge", "macvlan", "ipvlan"].into_iter().find(|name| crate::near::distance(text, name) <= 2);
            let hint = near.map_or_else(
                || "; there are bridge, macvlan and ipvlan".to_owned(),
                |near| format!("; did you mean {near}?"),
            );
            Err(Invalid::arguments(format!("plugin {:?} not found{hint}", crate::cli::bounded(text, 60))))
        }
    }
}

fn check_options(driver: Driver, options: &BTreeMap<String, String>, internal: bool) -> Result<(), String> {
    if driver != Driver::Bridge {
        return options::parent(driver, options).map(|_| ());
    }
    let read = options::bridge(options)?;
    let isolated = read.gateway_ipv4 == Gateway::Isolated || read.gateway_ipv6 == Gateway::Isolated;
    match isolated && !internal {
        // docker's words.
        true => Err("gateway mode 'isolated' can only be used for an internal network; add --internal".to_owned()),
        false => Ok(()),
    }
}

/// `KEY=VALUE` flags; a later one wins.
pub(super) fn pairs(flag: &str, list: &[String]) -> Result<BTreeMap<String, String>, Invalid> {
    let mut pairs = BTreeMap::new();
    for text in list {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.trim().is_empty() {
            return Err(Invalid::value(flag, text, "write KEY=VALUE"));
        }
        pairs.insert(key.trim().to_owned(), value.to_owned());
    }
    Ok(pairs)
}

/// The subnets with what belongs to each, as docker's client puts them together.
fn pools(args: &NetworkCreateArgs) -> Result<Vec<Pool>, Invalid> {
    let wrong = |why: String| Invalid::arguments(why);
    if args.subnet.len() < args.ip_range.len() || args.subnet.len() < args.gateway.len() {
        return Err(wrong("every ip-range or gateway must have a corresponding subnet; add --subnet".to_owned()));
    }
    let mut pools: Vec<Pool> = Vec::new();
    for text in &args.subnet {
        let subnet: Subnet = text.parse().map_err(wrong)?;
        check_subnet(&subnet, args)?;
        if let Some(other) = pools.iter().find(|other| other.subnet.is_ipv4() == subnet.is_ipv4()) {
            return Err(wrong(match other.subnet.overlaps(&subnet) {
                true => {
                    format!("multiple overlapping subnet configuration is not supported: {} and {subnet}", other.subnet)
                }
                false => format!(
                    "a network has one subnet of each IP version, not both {} and {subnet}; make two networks",
                    other.subnet
                ),
            }));
        }
        pools.push(Pool { subnet, range: None, gateway: None, auxiliary: BTreeMap::new(), configured: true });
    }
    for text in &args.ip_range {
        let range: Subnet = text.parse().map_err(|why: String| wrong(why.replace("subnet", "ip-range")))?;
        let Some(pool) = pools.iter_mut().find(|pool| pool.subnet.contains(range.first)) else {
            return Err(wrong(format!("no matching subnet for range {text}")));
        };
        if !pool.subnet.holds(&range) {
            return Err(wrong(format!(
                "invalid ip-range {range}: CIDR block is bigger than its parent subnet {}",
                pool.subnet
            )));
        }
        if let Some(other) = pool.range.replace(range) {
            return Err(wrong(format!(
                "cannot configure multiple ranges ({range}, {other}) on the same subnet ({})",
                pool.subnet
            )));
        }
    }
    for text in &args.gateway {
        let gateway = address("--gateway", text)?;
        let Some(pool) = pools.iter_mut().find(|pool| pool.subnet.contains(gateway)) else {
            return Err(wrong(format!("no matching subnet for gateway {text}")));
        };
        usable(&pool.subnet, gateway).map_err(|why| wrong(format!("invalid gateway {text}: {why}")))?;
        if let Some(other) = pool.gateway.replace(gateway) {
            return Err(wrong(format!(
                "cannot configure multiple gateways ({gateway}, {other}) for the same subnet ({})",
                pool.subnet
            )));
        }
    }
    for text in &args.aux_address {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(Invalid::value("--aux-address", text, "write NAME=ADDRESS"));
        };
        let auxiliary = address("--aux-address", value)?;
        let Some(pool) = pools.iter_mut().find(|pool| pool.subnet.contains(auxiliary)) else {
            return Err(wrong(format!("no matching subnet for aux-address {value}")));
        };
        pool.auxiliary.insert(name.to_owned(), auxiliary);
    }
    for pool in &pools {
        if let Some((name, address)) = pool.auxiliary.iter().find(|(_, address)| pool.gateway == Some(**address)) {
            return Err(wrong(format!("the auxiliary address {name}={address} is the gateway; leave one of them out")));
        }
    }
    Ok(pools)
}

fn check_subnet(subnet: &Subnet, args: &NetworkCreateArgs) -> Result<(), Invalid> {
    let wrong = |why: &str| Err(Invalid::arguments(format!("invalid subnet {subnet}: {why}")));
    match subnet.is_ipv4() {
        true if !args.ipv4 => return wrong("IPv4 is switched off by --ipv4=false"),
        false if !args.ipv6 => return wrong("it is one of IPv6; add --ipv6"),
        _ => {}
    }
    // /31 and /32 have no room for a gateway and a container, /127 and /128 neither.
    let longest = if subnet.is_ipv4() { 30 } else { 126 };
    if subnet.prefix_len > longest {
        return wrong(&format!("it has no room for a gateway and a container; at most /{longest}"));
    }
    let special = match subnet.first {
        IpAddr::V4(first) => {
            first.is_loopback() || first.is_multicast() || first.octets()[0] == 0 || first.octets()[0] >= 240
        }
        IpAddr::V6(first) => first.is_multicast() || first.is_unspecified() || first.is_loopback(),
    };
    match special {
        true => wrong("these addresses are no machine's; choose a private subnet, such as 10.5.0.0/24"),
        false => Ok(()),
    }
}

pub(super) fn address(flag: &str, text: &str) -> Result<IpAddr, Invalid> {
    let bare = text.split_once('/').map_or(text, |(address, _)| address);
    match (bare.parse(), text == bare || subnet::parse_with_host(text).is_some()) {
        (Ok(address), true) => Ok(address),
        _ => Err(Invalid::value(flag, text, "invalid IP address")),
    }
}

/// Whether a machine can have the address.
fn usable(subnet: &Subnet, address: IpAddr) -> Result<(), String> {
    match address == subnet.first || (subnet.is_ipv4() && address == subnet.last()) {
        true => Err(format!("it names the subnet {subnet} itself or everybody in it")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[(&str, &str)]) -> NetworkCreateArgs {
        let mut args =
            NetworkCreateArgs { name: "lan".into(), ipv4: true, ipam_driver: "default".into(), ..Default::default() };
        for (flag, value) in words {
            let value = (*value).to_owned();
            match *flag {
                "subnet" => args.subnet.push(value),
                "range" => args.ip_range.push(value),
                "gateway" => args.gateway.push(value),
                "aux" => args.aux_address.push(value),
                "opt" => args.opt.push(value),
                "driver" => args.driver = value,
                "name" => args.name = value,
                "ipv6" => args.ipv6 = true,
                "ipv4" => args.ipv4 = false,
                "internal" => args.internal = true,
                other => panic!("{other}"),
            }
        }
        args
    }

    #[test]
    fn subnets_with_what_belongs_to_them() {
        let read = NewNetwork::from_args(&args(&[
            ("subnet", "10.5.0.0/24"),
            ("subnet", "fd00:5::/64"),
            ("ipv6", ""),
            ("gateway", "10.5.0.254"),
            ("range", "10.5.0.128/25"),
            ("aux", "router=10.5.0.9"),
            ("aux", "six=fd00:5::9"),
        ]))
        .unwrap();
        let [four, six] = &read.pools[..] else { panic!("{read:?}") };
        assert_eq!(four.range.unwrap().to_string(), "10.5.0.128/25");
        assert_eq!(four.gateway.unwrap().to_string(), "10.5.0.254");
        assert_eq!(four.auxiliary["router"].to_string(), "10.5.0.9");
        assert_eq!((six.gateway, six.auxiliary["six"].to_string().as_str()), (None, "fd00:5::9"));
    }

    #[test]
    fn what_is_refused_and_in_which_words() {
        for (flags, words) in [
            (&[("subnet", "10.5.0.1/24")][..], "invalid subnet 10.5.0.1/24: it should be 10.5.0.0/24"),
            (&[("subnet", "lan")], "invalid CIDR address: lan"),
            (&[("gateway", "10.5.0.1")], "every ip-range or gateway must have a corresponding subnet"),
            (&[("subnet", "10.5.0.0/24"), ("gateway", "10.6.0.1")], "no matching subnet for gateway 10.6.0.1"),
            (&[("subnet", "10.5.0.0/24"), ("gateway", "10.5.0.255")], "invalid gateway 10.5.0.255"),
            (&[("subnet", "10.5.0.0/24"), ("range", "10.6.0.0/25")], "no matching subnet for range 10.6.0.0/25"),
            (&[("subnet", "10.5.0.0/24"), ("range", "10.5.0.0/16")], "bigger than its parent subnet"),
            (&[("subnet", "10.5.0.0/24"), ("aux", "a=10.6.0.1")], "no matching subnet for aux-address 10.6.0.1"),
            (&[("subnet", "10.5.0.0/24"), ("subnet", "10.5.0.0/16")], "multiple overlapping subnet"),
            (&[("subnet", "10.5.0.0/24"), ("subnet", "10.6.0.0/24")], "one subnet of each IP version"),
            (&[("subnet", "fd00::/64")], "add --ipv6"),
            (&[("ipv4", "")], "IPv4 or IPv6 must be enabled"),
            (&[("subnet", "10.5.0.0/31")], "no room"),
            (&[("subnet", "127.0.0.0/8")], "no machine's"),
            (&[("driver", "brigde")], "plugin \"brigde\" not found; did you mean bridge?"),
            (&[("driver", "host")], "only one instance of \"host\" network is allowed"),
            (&[("driver", "none")], "only one instance of \"null\" network is allowed"),
            (&[("name", "a b")], "invalid network name \"a b\""),
            (&[("name", "host")], "network with name host already exists"),
            (&[("opt", "com.docker.network.bridge.gateway_mode_ipv4=isolated")], "'isolated' can only be used"),
            (&[("opt", "parent=eth0")], "has no option \"parent\""),
        ] {
            let error = NewNetwork::from_args(&args(flags)).unwrap_err();
            assert!(error.message.contains(words), "{flags:?}: {error}");
            assert_eq!(error.code, 1, "{flags:?}");
        }
        assert!(NewNetwork::from_args(&args(&[("ipv4", ""), ("ipv6", "")])).is_ok());
        assert!(NewNetwork::from_args(&args(&[("driver", "macvlan"), ("opt", "parent=eth0")])).is_ok());
    }
}
