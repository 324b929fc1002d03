//! The container's network: mode, ports, names, resolver, net_cls; and what docker refuses together.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use netsetup::{Protocol, PublishMode};
use serde::{Deserialize, Serialize};

use super::attach::{self, Attach, BesideFlags};
use super::net_cls::net_cls;
use super::ports::{self, Publish};
use super::shaping::Shaping;
use super::{Invalid, hosts, names, text};
use crate::cli::RunArgs;
use crate::network::definition;

/// Everything about the network that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Whose network stack: of `--network`
    pub mode: NetworkMode,
    /// The networks of a stack of its own, in the order of the flags. Empty in the other modes (and, in a request of an
    /// earlier version, for the default network alone).
    #[serde(default)]
    pub attach: Vec<Attach>,
    /// `network disconnect` has taken it out of its last network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// `-p`, port by port. Empty in modes that can't publish.
    #[serde(with = "crate::ranges::wishes")]
    pub publish: Vec<Publish>,
    /// `-P`: all of `exposed` and of the image's EXPOSE, on random ports
    pub publish_all: bool,
    /// The address for those, of the configuration; none: all addresses.
    #[serde(default)]
    pub publish_address: Option<IpAddr>,
    /// `--expose`
    pub exposed: BTreeSet<(u16, Protocol)>,
    /// `--publish-mode`; `None`: DNAT, or what the configuration file says
    pub publish_mode: Option<PublishMode>,
    /// `--hostname`; `None`: the first 12 digits of the id
    pub hostname: Option<String>,
    /// `--domainname`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// `--dns`
    pub dns: Vec<IpAddr>,
    /// `--dns-search`; `["."]` means no search line
    pub dns_search: Vec<String>,
    /// `--dns-option`
    pub dns_options: Vec<String>,
    /// `--add-host`
    pub extra_hosts: Vec<ExtraHost>,
    /// `--net-cls`: the class id as net_cls.classid takes it, 0xAAAABBBB
    pub net_cls: Option<u32>,
    /// `--net-rate` and its kin
    #[serde(default)]
    pub shaping: Shaping,
}

/// Whose network stack the container has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// One of its own, with a card in each of the networks.
    #[default]
    Bridge,
    /// One of its own with a loopback device only.
    None,
    /// The host's.
    Host,
    /// That of a container, by name or id.
    Container(String),
    /// That of a namespace file, such as /run/netns/NAME.
    Namespace(#[serde(with = "text::one")] PathBuf),
}

/// A line of /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address; `None`: the host's, as seen from the container (`host-gateway`).
    pub address: Option<IpAddr>,
}

impl Network {
    /// Adds a network. A request of an earlier version has none for the default one.
    pub fn attach_to(&mut self, wish: Attach) {
        if self.attach.is_empty() && !self.alone {
            self.attach.push(Attach::to(attach::DEFAULT));
        }
        self.alone = false;
        self.attach.push(wish);
    }

    /// Takes a network off; false where it wasn't there.
    pub fn detach_from(&mut self, network: &str) -> bool {
        if self.attach.is_empty() && !self.alone {
            self.attach.push(Attach::to(attach::DEFAULT));
        }
        let before = self.attach.len();
        self.attach.retain(|wish| wish.network != network);
        self.alone = self.attach.is_empty();
        self.attach.len() < before
    }

    pub(super) fn from_args(args: &RunArgs, warnings: &mut Vec<String>) -> Result<Network, Invalid> {
        let (mode, attach) = networks(args)?;
        let mut network = Network {
            mode,
            attach,
            alone: false,
            publish: ports::publish(&args.publish)?,
            publish_all: args.publish_all,
            publish_address: None,
            exposed: ports::expose(&args.expose)?,
            publish_mode: publish_mode(args.publish_mode.as_deref())?,
            hostname: names::host("-h, --hostname", args.hostname.as_deref().unwrap_or_default())?,
            domainname: names::host("--domainname", args.domainname.as_deref().unwrap_or_default())?,
            dns: args.dns.iter().map(|text| hosts::dns(text)).collect::<Result<_, _>>()?,
            dns_search: args.dns_search.iter().map(|text| hosts::domain(text)).collect::<Result<_, _>>()?,
            dns_options: args.dns_option.iter().map(|text| hosts::dns_option(text)).collect::<Result<_, _>>()?,
            extra_hosts: args.add_host.iter().map(|text| hosts::extra_host(text)).collect::<Result<_, _>>()?,
            net_cls: args.net_cls.as_deref().map(net_cls).transpose()?,
            shaping: Shaping::default(),
        };
        network.agree(args)?;
        network.shaping = Shaping::from_args(args, &network.mode)?;
        network.discard_ports(warnings);
        Ok(network)
    }

    /// What docker refuses together, in its words.
    fn agree(&self, args: &RunArgs) -> Result<(), Invalid> {
        let conflict = |what: &str, with: &str| {
            Err(Invalid::new(format!("conflicting options: {what} and the {with}; leave one out")))
        };
        if self.domainname.is_some() && args.uts.as_deref() == Some("host") {
            return conflict("domainname", "UTS mode");
        }
        if self.hostname.is_some() && args.uts.as_deref() == Some("host") {
            return conflict("hostname", "UTS mode");
        }
        let publishes = !self.publish.is_empty() || self.publish_all;
        match self.mode {
            NetworkMode::Container(_) if self.hostname.is_some() => conflict("hostname", "network mode"),
            NetworkMode::Container(_) if self.domainname.is_some() => conflict("domainname", "network mode"),
            NetworkMode::Container(_) if !self.dns.is_empty() => conflict("dns", "network mode"),
            NetworkMode::Container(_) if !self.extra_hosts.is_empty() => {
                conflict("custom host-to-IP mapping", "network mode")
            }
            NetworkMode::Container(_) if publishes => conflict("port publishing", "container type network mode"),
            NetworkMode::Container(_) if !self.exposed.is_empty() => {
                conflict("port exposing", "container type network mode")
            }
            NetworkMode::Namespace(_) if publishes => conflict("port publishing", "network mode ns:PATH"),
            _ => Ok(()),
        }
    }

    /// docker starts such a container all the same, and says so.
    fn discard_ports(&mut self, warnings: &mut Vec<String>) {
        let mode = match self.mode {
            NetworkMode::Host => "host",
            NetworkMode::None => "none",
            _ => return,
        };
        if !self.publish.is_empty() || self.publish_all {
            warnings.push(format!("Published ports are discarded when using {mode} network mode"));
            self.publish.clear();
            self.publish_all = false;
        }
    }
}

/// The mode, and the networks with what is wanted of each.
fn networks(args: &RunArgs) -> Result<(NetworkMode, Vec<Attach>), Invalid> {
    let beside = BesideFlags {
        aliases: &args.network_alias,
        ipv4: args.ip.as_deref(),
        ipv6: args.ip6.as_deref(),
        link_local: &args.link_local_ip,
        mac: args.mac_address.as_deref(),
    };
    if let [text] = &args.network[..]
        && let Some(mode) = other_mode(text)?
    {
        return match beside.is_empty() {
            true => Ok((mode, vec![])),
            false => Err(Invalid::new(format!(
                "conflicting options: addresses and aliases need a network to be in, which --network {} is not; leave \
                 them out",
                text.to_string_lossy()
            ))),
        };
    }
    let mut attach = Vec::with_capacity(args.network.len().max(1));
    for text in &args.network {
        if other_mode(text)?.is_some() {
            return Err(Invalid::new(format!(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes: {} goes with \
                 no other network",
                text.to_string_lossy()
            )));
        }
        let wrong = |why: String| Invalid::value("--network", text, why);
        let one =
            Attach::parse(text.to_str().ok_or_else(|| wrong("a network's name is text".to_owned()))?).map_err(wrong)?;
        if !definition::valid_name(&one.network) {
            return Err(wrong(format!("network {} not found", one.network)));
        }
        if attach.iter().any(|other: &Attach| other.network == one.network) {
            return Err(Invalid::new(format!("network {:?} is specified multiple times", one.network)));
        }
        attach.push(one);
    }
    if attach.is_empty() {
        attach.push(Attach::to(attach::DEFAULT));
    }
    beside.apply(&mut attach[0])?;
    attach.iter().filter(|one| one.is_default()).try_for_each(attach::check_default)?;
    let mut links: Vec<&str> = attach.iter().filter_map(|one| one.link.as_deref()).collect();
    links.sort_unstable();
    if let Some(twice) = links.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Invalid::new(format!("two networks want the interface name {}; give each its own", twice[0])));
    }
    Ok((NetworkMode::Bridge, attach))
}

/// The modes in which the container has no card of its own; `None`: a network's name.
fn other_mode(text: &OsStr) -> Result<Option<NetworkMode>, Invalid> {
    let flag = "--network";
    let bytes = text.as_bytes();
    let after = |prefix: &[u8]| bytes.strip_prefix(prefix).map(OsStr::from_bytes).filter(|rest| !rest.is_empty());
    if let Some(path) = after(b"ns:") {
        return match path.as_bytes().first() {
            Some(b'/') => Ok(Some(NetworkMode::Namespace(PathBuf::from(path)))),
            _ => Err(Invalid::value(flag, text, "write ns: and an absolute path, such as ns:/run/netns/NAME")),
        };
    }
    if let Some(name) = after(b"container:") {
        return Ok(Some(NetworkMode::Container(name.to_string_lossy().into_owned())));
    }
    match bytes {
        b"none" => Ok(Some(NetworkMode::None)),
        b"host" => Ok(Some(NetworkMode::Host)),
        b"container:" | b"ns:" => {
            Err(Invalid::value(flag, text, "nothing follows the colon; write container:NAME or ns:PATH"))
        }
        _ => Ok(None),
    }
}

/// Also the configuration file's key.
pub(crate) fn publish_mode(text: Option<&str>) -> Result<Option<PublishMode>, Invalid> {
    match text {
        None | Some("") => Ok(None),
        Some("dnat") => Ok(Some(PublishMode::Dnat)),
        Some("proxy") => Ok(Some(PublishMode::Proxy)),
        Some(text) => Err(Invalid::value("--publish-mode", text, "use dnat or proxy")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: RunArgs) -> Result<(Network, Vec<String>), Invalid> {
        let mut warnings = Vec::new();
        Network::from_args(&args, &mut warnings).map(|network| (network, warnings))
    }

    fn with(network: &str) -> RunArgs {
        RunArgs { network: vec![network.into()], ..RunArgs::default() }
    }

    #[test]
    fn network_modes() {
        let table = [
            ("bridge", NetworkMode::Bridge),
            ("default", NetworkMode::Bridge),
            ("none", NetworkMode::None),
            ("host", NetworkMode::Host),
            ("container:web", NetworkMode::Container("web".into())),
            ("ns:/run/netns/x", NetworkMode::Namespace("/run/netns/x".into())),
        ];
        for (text, mode) in table {
            assert_eq!(read(with(text)).unwrap().0.mode, mode, "{text}");
        }
        for text in ["container:", "ns:", "ns:x", ".mounts", "a/b"] {
            assert!(read(with(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn several_networks_keep_the_order_of_the_flags() {
        let several = |list: &[&str]| RunArgs {
            network: list.iter().map(|text| (*text).into()).collect(),
            ip: Some("10.5.0.9".into()),
            ..RunArgs::default()
        };
        let network = read(several(&["zebra", "ant,gw-priority=5"])).unwrap().0;
        assert_eq!(network.mode, NetworkMode::Bridge);
        let names: Vec<_> = network.attach.iter().map(|one| one.network.as_str()).collect();
        assert_eq!(names, ["zebra", "ant"]);
        assert_eq!((network.attach[0].ipv4.is_some(), network.attach[1].ipv4.is_some()), (true, false));
        assert_eq!(read(with("")).unwrap().0.attach, [Attach::to("bridge")]);
        assert_eq!(read(RunArgs::default()).unwrap().0.attach, [Attach::to("bridge")]);
        for (list, words) in [
            (&["lan", "host"][..], "cannot attach both user-defined and non-user-defined"),
            (&["none", "lan"], "cannot attach both"),
            (&["host", "none"], "cannot attach both"),
            (&["lan", "container:web"], "cannot attach both"),
            (&["lan", "lan"], "network \"lan\" is specified multiple times"),
            (&["lan", "name=lan"], "specified multiple times"),
            (&["host"], "addresses and aliases need a network"),
            (&["bridge"], "supported on user defined networks only"),
            (&["lan,ip=10.5.0.8"], "cannot specify both --ip and per-network IPv4 address"),
        ] {
            let error = read(several(list)).unwrap_err();
            assert!(error.message.contains(words), "{list:?}: {error}");
        }
    }

    #[test]
    fn what_another_containers_network_rules_out() {
        let base = || with("container:web");
        let list = |text: &str| vec![text.to_owned()];
        let table = [
            (RunArgs { hostname: Some("h".into()), ..base() }, "hostname and the network mode"),
            (RunArgs { dns: list("1.1.1.1"), ..base() }, "dns and the network mode"),
            (RunArgs { add_host: list("a:1.1.1.1"), ..base() }, "custom host-to-IP mapping and the network mode"),
            (RunArgs { publish: list("80"), ..base() }, "port publishing and the container type network mode"),
            (RunArgs { publish_all: true, ..base() }, "port publishing and the container type network mode"),
            (RunArgs { expose: list("80"), ..base() }, "port exposing and the container type network mode"),
            (RunArgs { publish: list("80"), ..with("ns:/x") }, "port publishing"),
            (
                RunArgs { hostname: Some("h".into()), uts: Some("host".into()), ..RunArgs::default() },
                "hostname and the UTS mode",
            ),
        ];
        for (args, words) in table {
            let error = read(args).unwrap_err();
            assert!(error.message.contains(words), "{error}");
        }
        assert!(read(base()).is_ok());
    }

    #[test]
    fn ports_of_the_hosts_network_are_discarded_with_a_warning() {
        let (network, warnings) = read(RunArgs { publish: vec!["80:80".into()], ..with("host") }).unwrap();
        assert_eq!(warnings, ["Published ports are discarded when using host network mode"]);
        assert!(network.publish.is_empty());
    }
}
