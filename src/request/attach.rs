//! One place in a network that a container is to have: `--network NAME`, docker's long form
//! `--network name=NAME,ip=…,alias=…`, and the flags of `network connect`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::Invalid;

/// The default network's name.
pub const DEFAULT: &str = "bridge";

/// What is wanted of one network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The network's name or id, as typed.
    pub network: String,
    /// Further names of the container in it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The IPv4 address; `None`: any.
    #[serde(default)]
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address; `None`: any.
    #[serde(default)]
    pub ipv6: Option<Ipv6Addr>,
    /// Further addresses of the link, beside the network's own.
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    /// The MAC address; `None`: made from the IP address.
    #[serde(default)]
    pub mac: Option<[u8; 6]>,
    /// The highest one has the default gateway.
    #[serde(default)]
    pub gateway_priority: i64,
    /// The link's name in the container; `None`: the next `ethN`.
    #[serde(default)]
    pub link: Option<String>,
}

impl Attach {
    /// A place in a network, without wishes.
    pub fn to(network: &str) -> Attach {
        Attach { network: network.to_owned(), ..Attach::default() }
    }

    /// Whether it's the default network.
    pub fn is_default(&self) -> bool {
        self.network == DEFAULT
    }

    /// Reads one `--network`: a name alone, or a list of `key=value`, in which the name may stand first by itself.
    ///
    /// # Errors
    /// docker's words for the first wrong field.
    pub fn parse(text: &str) -> Result<Attach, String> {
        let mut attach = Attach::default();
        if !text.contains(['=', ',']) {
            attach.network = text.to_owned();
            return Ok(attach.named());
        }
        for (nth, field) in text.split(',').enumerate() {
            match field.split_once('=') {
                None if nth == 0 && !field.trim().is_empty() => attach.network = field.trim().to_owned(),
                None | Some(("", _)) => return Err(format!("invalid field {field}")),
                Some((key, value)) => attach.set(&key.trim().to_ascii_lowercase(), value.trim())?,
            }
        }
        match attach.network.is_empty() {
            true => Err("network name/id is not specified".to_owned()),
            false => Ok(attach.named()),
        }
    }

    fn named(mut self) -> Attach {
        if matches!(self.network.as_str(), "" | "default") {
            self.network = DEFAULT.to_owned();
        }
        self
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "name" => self.network = value.to_owned(),
            "alias" => self.aliases.push(alias(value)?),
            "ip" => self.ipv4 = Some(ipv4(value)?),
            "ip6" => self.ipv6 = Some(ipv6(value)?),
            "mac-address" => self.mac = Some(mac(value)?),
            "link-local-ip" => self.link_local.push(link_local(value)?),
            "gw-priority" => {
                let number = value.parse().map_err(|_| format!("invalid gw-priority: {value:?} is no whole number"))?;
                self.gateway_priority = number;
            }
            "driver-opt" => self.set_driver_option(value)?,
            _ => {
                let keys = ["name", "alias", "ip", "ip6", "mac-address", "link-local-ip", "gw-priority", "driver-opt"];
                let near = keys.iter().find(|known| crate::near::distance(key, known) <= 2 && key.len() > 1);
                let hint = match near {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("there are {}", keys.join(", ")),
                };
                return Err(format!("invalid field key {key}; {hint}"));
            }
        }
        Ok(())
    }

    /// `com.docker.network.endpoint.ifname=NAME`, the one option that an endpoint has.
    pub fn set_driver_option(&mut self, text: &str) -> Result<(), String> {
        match text.split_once('=') {
            Some(("com.docker.network.endpoint.ifname", name)) => {
                let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                let valid = (1..=15).contains(&name.len()) && name.chars().all(good) && !name.starts_with(['.', '-']);
                if !valid || name == "lo" {
                    return Err(format!("invalid interface name {name:?}: 1 to 15 letters, digits, '_', '.', '-'"));
                }
                self.link = Some(name.to_owned());
                Ok(())
            }
            _ => Err(format!("unknown driver option {text:?}; there is com.docker.network.endpoint.ifname=NAME")),
        }
    }
}

/// An alias is a host name that DNS serves.
pub fn alias(text: &str) -> Result<String, String> {
    let label = |label: &str| super::names::label(label);
    match text.len() <= 253 && text.split('.').all(label) {
        true => Ok(text.to_owned()),
        false => Err(format!("invalid alias {text:?}: write a host name")),
    }
}

/// An IPv4 address.
pub fn ipv4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("invalid IPv4 address: {text}"))
}

/// An IPv6 address.
pub fn ipv6(text: &str) -> Result<Ipv6Addr, String> {
    text.parse().map_err(|_| format!("invalid IPv6 address: {text}"))
}

/// An address of 169.254.0.0/16 or fe80::/10, as docker wants it.
pub fn link_local(text: &str) -> Result<IpAddr, String> {
    match text.parse() {
        Ok(IpAddr::V4(address)) if address.is_link_local() => Ok(address.into()),
        Ok(IpAddr::V6(address)) if address.is_unicast_link_local() => Ok(address.into()),
        Ok(_) => Err(format!("invalid link-local IP address: {text} is not in 169.254.0.0/16 or fe80::/10")),
        Err(_) => Err(format!("invalid link-local IP address: {text}")),
    }
}

/// Six bytes as Go's net.ParseMAC reads them: `02:42:ac:11:00:02`, `02-42-…`, `0242.ac11.0002`.
pub fn mac(text: &str) -> Result<[u8; 6], String> {
    let wrong = || format!("{text} is not a valid mac address");
    let digits: String = match text.chars().find(|c| !c.is_ascii_hexdigit()) {
        Some('.') if text.split('.').all(|group| group.len() == 4) => text.split('.').collect(),
        Some(separator @ (':' | '-')) if text.split(separator).all(|pair| pair.len() == 2) => {
            text.split(separator).collect()
        }
        _ => return Err(wrong()),
    };
    let number = u64::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 12 && digits.is_ascii());
    let [_, _, mac @ ..] = number.ok_or_else(wrong)?.to_be_bytes();
    // The kernel refuses a group address (is_valid_ether_addr() in linux/etherdevice.h) and one of zeros.
    match mac[0] & 1 == 1 || mac == [0; 6] {
        true => Err(format!("{text} can't be a link's MAC address: it names a group, or nobody")),
        false => Ok(mac),
    }
}

/// The flags of `run` that stand beside `--network` belong to the first network. docker's refusals.
pub struct BesideFlags<'a> {
    /// `--network-alias`
    pub aliases: &'a [String],
    /// `--ip`
    pub ipv4: Option<&'a str>,
    /// `--ip6`
    pub ipv6: Option<&'a str>,
    /// `--link-local-ip`
    pub link_local: &'a [String],
    /// `--mac-address`
    pub mac: Option<&'a str>,
}

impl BesideFlags<'_> {
    /// Puts them into the first network.
    ///
    /// # Errors
    /// A wrong value, or one that was given in both places.
    pub fn apply(&self, first: &mut Attach) -> Result<(), Invalid> {
        let both = |flag: &str, what: &str| {
            Err(Invalid::new(format!("conflicting options: cannot specify both {flag} and {what}")))
        };
        if !self.aliases.is_empty() {
            if !first.aliases.is_empty() {
                return both("--network-alias", "per-network alias");
            }
            let read = |text: &String| alias(text).map_err(|why| Invalid::value("--network-alias", text, why));
            first.aliases = self.aliases.iter().map(read).collect::<Result<_, _>>()?;
        }
        if let Some(text) = self.ipv4.filter(|text| !text.is_empty()) {
            if first.ipv4.is_some() {
                return both("--ip", "per-network IPv4 address");
            }
            first.ipv4 = Some(ipv4(text).map_err(|why| Invalid::value("--ip", text, why))?);
        }
        if let Some(text) = self.ipv6.filter(|text| !text.is_empty()) {
            if first.ipv6.is_some() {
                return both("--ip6", "per-network IPv6 address");
            }
            first.ipv6 = Some(ipv6(text).map_err(|why| Invalid::value("--ip6", text, why))?);
        }
        if !self.link_local.is_empty() {
            if !first.link_local.is_empty() {
                return both("--link-local-ip", "per-network link-local IP addresses");
            }
            let read = |text: &String| link_local(text).map_err(|why| Invalid::value("--link-local-ip", text, why));
            first.link_local = self.link_local.iter().map(read).collect::<Result<_, _>>()?;
        }
        if let Some(text) = self.mac.filter(|text| !text.is_empty()) {
            if first.mac.is_some() {
                return both("--mac-address", "per-network MAC address");
            }
            first.mac = Some(mac(text).map_err(|why| Invalid::value("--mac-address", text, why))?);
        }
        Ok(())
    }

    /// Whether none of them is given.
    pub fn is_empty(&self) -> bool {
        let some = |text: Option<&str>| text.is_some_and(|text| !text.is_empty());
        self.aliases.is_empty() && self.link_local.is_empty() && !some(self.ipv4) && !some(self.ipv6) && !some(self.mac)
    }
}

/// docker's rules about wishes of the default network, which has neither names nor a subnet of the user's own.
///
/// # Errors
/// docker's words.
pub fn check_default(attach: &Attach) -> Result<(), Invalid> {
    if !attach.aliases.is_empty() {
        return Err(Invalid::new(
            "network-scoped aliases are only supported for user-defined networks; see 'minidock network create'",
        ));
    }
    if attach.ipv4.is_some() || attach.ipv6.is_some() {
        return Err(Invalid::new(
            "invalid config for network bridge: invalid endpoint settings: user specified IP address is supported on \
             user defined networks only; see 'minidock network create --subnet'",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_network() {
        assert_eq!(Attach::parse("lan"), Ok(Attach::to("lan")));
        assert_eq!(Attach::parse(""), Ok(Attach::to("bridge")));
        assert_eq!(Attach::parse("default"), Ok(Attach::to("bridge")));
        let whole = Attach {
            network: "lan".into(),
            aliases: vec!["db".into(), "a.b".into()],
            ipv4: Some([10, 5, 0, 9].into()),
            ipv6: Some("fd00::9".parse().unwrap()),
            link_local: vec![[169, 254, 1, 1].into()],
            mac: Some([2, 0x42, 0xac, 0x11, 0, 2]),
            gateway_priority: -5,
            link: Some("lan0".into()),
        };
        let fields = "alias=db,alias=a.b,ip=10.5.0.9,ip6=fd00::9,link-local-ip=169.254.1.1,\
                      mac-address=02:42:AC:11:00:02,gw-priority=-5,\
                      driver-opt=com.docker.network.endpoint.ifname=lan0";
        assert_eq!(Attach::parse(&format!("name=lan,{fields}")), Ok(whole.clone()));
        assert_eq!(Attach::parse(&format!("lan,{fields}")), Ok(whole.clone()));
        assert_eq!(Attach::parse(&format!("{fields}, NAME = lan")), Ok(whole));
    }

    #[test]
    fn wrong_fields_are_named() {
        for (text, words) in [
            ("ip=10.0.0.1", "network name/id is not specified"),
            ("lan,", "invalid field "),
            ("lan,foo", "invalid field foo"),
            ("lan,=x", "invalid field =x"),
            ("lan,ipp=1.2.3.4", "invalid field key ipp; did you mean ip?"),
            ("lan,zzzzzz=1", "invalid field key zzzzzz; there are name, alias"),
            ("lan,ip=10.0.0", "invalid IPv4 address: 10.0.0"),
            ("lan,ip=fd00::1", "invalid IPv4 address"),
            ("lan,ip6=10.0.0.1", "invalid IPv6 address"),
            ("lan,mac-address=1", "1 is not a valid mac address"),
            ("lan,mac-address=01:00:5e:00:00:01", "names a group"),
            ("lan,gw-priority=high", "invalid gw-priority"),
            ("lan,alias=a b", "invalid alias"),
            ("lan,link-local-ip=10.0.0.1", "not in 169.254.0.0/16"),
            ("lan,driver-opt=x=y", "unknown driver option"),
            ("lan,driver-opt=com.docker.network.endpoint.ifname=a/b", "invalid interface name"),
        ] {
            let why = Attach::parse(text).unwrap_err();
            assert!(why.contains(words), "{text}: {why}");
        }
    }

    #[test]
    fn mac_addresses_in_gos_forms() {
        for text in ["02:42:ac:11:00:02", "02-42-AC-11-00-02", "0242.ac11.0002"] {
            assert_eq!(mac(text), Ok([2, 0x42, 0xac, 0x11, 0, 2]), "{text}");
        }
        for text in [
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03:04",
            "0242ac110002",
            "02:42:ac:11:00:0g",
            "2:42:ac:11:0:2",
            "02:42-ac:11:00:02",
        ] {
            assert!(mac(text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_beside_belong_to_the_first_network_and_stand_in_one_place_only() {
        let none = BesideFlags { aliases: &[], ipv4: None, ipv6: None, link_local: &[], mac: None };
        let aliases = ["db".to_owned()];
        let mut first = Attach::to("lan");
        BesideFlags { aliases: &aliases, ipv4: Some("10.5.0.9"), mac: Some("02:00:00:00:00:01"), ..none }
            .apply(&mut first)
            .unwrap();
        assert_eq!((first.aliases.len(), first.ipv4.is_some(), first.mac), (1, true, Some([2, 0, 0, 0, 0, 1])));
        let error = BesideFlags { ipv4: Some("10.5.0.8"), ..none }.apply(&mut first).unwrap_err();
        assert_eq!(error.message, "conflicting options: cannot specify both --ip and per-network IPv4 address");
        let error = BesideFlags { aliases: &aliases, ..none }.apply(&mut first).unwrap_err();
        assert_eq!(error.message, "conflicting options: cannot specify both --network-alias and per-network alias");
        assert!(BesideFlags { ipv4: Some("10.5.0"), ..none }.apply(&mut Attach::to("lan")).is_err());
    }

    #[test]
    fn the_default_network_has_no_names_and_no_wished_addresses() {
        assert!(check_default(&Attach::to("bridge")).is_ok());
        assert!(check_default(&Attach::parse("bridge,alias=x").unwrap()).unwrap_err().message.contains("user-defined"));
        assert!(check_default(&Attach::parse("bridge,ip=172.17.0.9").unwrap()).is_err());
        assert!(check_default(&Attach::parse("bridge,mac-address=02:00:00:00:00:01").unwrap()).is_ok());
    }
}
