//! The container's network: mode, ports, names, resolver, net_cls; and what docker refuses together.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use netsetup::{Protocol, PublishMode};
use serde::{Deserialize, Serialize};

use super::ports::{self, Publish};
use super::{Invalid, names, text};
use crate::cli::RunArgs;

/// Everything about the network that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// `--network`
    pub mode: NetworkMode,
    /// `-p`, port by port. Empty in modes that can't publish.
    pub publish: Vec<Publish>,
    /// `-P`: all of `exposed` and of the image's EXPOSE, on random ports
    pub publish_all: bool,
    /// `--expose`
    pub exposed: BTreeSet<(u16, Protocol)>,
    /// `--publish-mode`; `None`: DNAT, or what the configuration file says
    pub publish_mode: Option<PublishMode>,
    /// `--hostname`; `None`: the first 12 digits of the id
    pub hostname: Option<String>,
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
}

/// Whose network stack the container has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// One of its own, on the default bridge.
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
    pub(super) fn from_args(
        args: &RunArgs,
        warnings: &mut Vec<String>,
    ) -> Result<Network, Invalid> {
        let mut network = Network {
            mode: mode(args)?,
            publish: ports::publish(&args.publish)?,
            publish_all: args.publish_all,
            exposed: ports::expose(&args.expose)?,
            publish_mode: publish_mode(args.publish_mode.as_deref())?,
            hostname: names::host(args.hostname.as_deref().unwrap_or_default())?,
            dns: args
                .dns
                .iter()
                .map(|text| dns(text))
                .collect::<Result<_, _>>()?,
            dns_search: args
                .dns_search
                .iter()
                .map(|text| domain(text))
                .collect::<Result<_, _>>()?,
            dns_options: args
                .dns_option
                .iter()
                .map(|text| dns_option(text))
                .collect::<Result<_, _>>()?,
            extra_hosts: args
                .add_host
                .iter()
                .map(|text| extra_host(text))
                .collect::<Result<_, _>>()?,
            net_cls: args.net_cls.as_deref().map(net_cls).transpose()?,
        };
        network.agree(args)?;
        network.discard_ports(warnings);
        Ok(network)
    }

    /// What docker refuses together, in its words.
    fn agree(&self, args: &RunArgs) -> Result<(), Invalid> {
        let conflict = |what: &str, with: &str| {
            Err(Invalid::new(format!(
                "conflicting options: {what} and the {with}; leave one out"
            )))
        };
        if self.hostname.is_some() && args.uts.as_deref() == Some("host") {
            return conflict("hostname", "UTS mode");
        }
        let publishes = !self.publish.is_empty() || self.publish_all;
        match self.mode {
            NetworkMode::Container(_) if self.hostname.is_some() => {
                conflict("hostname", "network mode")
            }
            NetworkMode::Container(_) if !self.dns.is_empty() => conflict("dns", "network mode"),
            NetworkMode::Container(_) if !self.extra_hosts.is_empty() => {
                conflict("custom host-to-IP mapping", "network mode")
            }
            NetworkMode::Container(_) if publishes => {
                conflict("port publishing", "container type network mode")
            }
            NetworkMode::Container(_) if !self.exposed.is_empty() => {
                conflict("port exposing", "container type network mode")
            }
            NetworkMode::Namespace(_) if publishes => {
                conflict("port publishing", "network mode ns:PATH")
            }
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
            warnings.push(format!(
                "WARNING: Published ports are discarded when using {mode} network mode"
            ));
            self.publish.clear();
            self.publish_all = false;
        }
    }
}

fn mode(args: &RunArgs) -> Result<NetworkMode, Invalid> {
    let flag = "--network";
    let text = match &args.network[..] {
        [] => return Ok(NetworkMode::Bridge),
        [one] => one,
        [_, second, ..] => {
            return Err(Invalid::value(
                flag,
                second,
                "a container on several networks is not available yet; give one --network",
            ));
        }
    };
    let bytes = text.as_bytes();
    let after = |prefix: &[u8]| {
        bytes
            .strip_prefix(prefix)
            .map(OsStr::from_bytes)
            .filter(|rest| !rest.is_empty())
    };
    if let Some(path) = after(b"ns:") {
        return match path.as_bytes().first() {
            Some(b'/') => Ok(NetworkMode::Namespace(PathBuf::from(path))),
            _ => Err(Invalid::value(
                flag,
                text,
                "write ns: and an absolute path, such as ns:/run/netns/NAME",
            )),
        };
    }
    if let Some(name) = after(b"container:") {
        return Ok(NetworkMode::Container(name.to_string_lossy().into_owned()));
    }
    match bytes {
        b"" | b"default" | b"bridge" => Ok(NetworkMode::Bridge),
        b"none" => Ok(NetworkMode::None),
        b"host" => Ok(NetworkMode::Host),
        b"container:" | b"ns:" => Err(Invalid::value(
            flag,
            text,
            "nothing follows the colon; write container:NAME or ns:PATH",
        )),
        _ => Err(Invalid::value(
            flag,
            text,
            "no such network: networks of your own are not available yet; use bridge, none, host, container:NAME or ns:PATH",
        )),
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

fn dns(text: &str) -> Result<IpAddr, Invalid> {
    text.parse()
        .map_err(|_| Invalid::value("--dns", text, "IP address is not correctly formatted"))
}

fn domain(text: &str) -> Result<String, Invalid> {
    let name = text.strip_suffix('.').unwrap_or(text);
    match text == "." || (name.len() <= 253 && name.split('.').all(names::label)) {
        true => Ok(text.to_owned()),
        false => Err(Invalid::value(
            "--dns-search",
            text,
            "not a valid domain; write one such as example.org, or . for none",
        )),
    }
}

/// One word of resolv.conf's options line: a newline would be a line of the user's own.
fn dns_option(text: &str) -> Result<String, Invalid> {
    let word =
        !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic());
    match word {
        true => Ok(text.to_owned()),
        false => Err(Invalid::value(
            "--dns-option",
            text,
            "write one option of resolv.conf(5), such as ndots:2",
        )),
    }
}

fn extra_host(text: &str) -> Result<ExtraHost, Invalid> {
    let flag = "--add-host";
    let bad = || Invalid::value(flag, text, "bad format for add-host; write NAME:ADDRESS");
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(bad)?;
    if !name.split('.').all(names::label) {
        return Err(bad());
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address);
    let address = match bare {
        "host-gateway" => None,
        _ => Some(bare.parse().map_err(|_| {
            Invalid::value(
                flag,
                text,
                format!(
                    "invalid IP address in add-host: {address:?}; write an address or host-gateway"
                ),
            )
        })?),
    };
    Ok(ExtraHost {
        name: name.to_owned(),
        address,
    })
}

/// `1:10` as tc writes class ids (hexadecimal, major and minor), or the number itself as net_cls.classid takes it.
fn net_cls(text: &str) -> Result<u32, Invalid> {
    let wrong = || {
        Invalid::value(
            "--net-cls",
            text,
            "write MAJOR:MINOR in hexadecimal as tc does, such as 1:10, or 0xAAAABBBB such as 0x00010010",
        )
    };
    let hexadecimal = |digits: &str| {
        let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u32::from_str_radix(digits, 16).ok().filter(|_| all)
    };
    let id = match text.split_once(':') {
        Some((major, minor)) => {
            let half = |digits: &str| hexadecimal(digits).filter(|half| *half <= 0xffff);
            let minor = if minor.is_empty() {
                Some(0)
            } else {
                half(minor)
            };
            half(major)
                .zip(minor)
                .map(|(major, minor)| major << 16 | minor)
        }
        None => match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => hexadecimal(digits),
            None => text
                .parse()
                .ok()
                .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit())),
        },
    };
    id.filter(|id| *id != 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: RunArgs) -> Result<(Network, Vec<String>), Invalid> {
        let mut warnings = Vec::new();
        Network::from_args(&args, &mut warnings).map(|network| (network, warnings))
    }

    fn with(network: &str) -> RunArgs {
        RunArgs {
            network: vec![network.into()],
            ..RunArgs::default()
        }
    }

    #[test]
    fn network_modes() {
        let table = [
            ("bridge", NetworkMode::Bridge),
            ("default", NetworkMode::Bridge),
            ("none", NetworkMode::None),
            ("host", NetworkMode::Host),
            ("container:web", NetworkMode::Container("web".into())),
            (
                "ns:/run/netns/x",
                NetworkMode::Namespace("/run/netns/x".into()),
            ),
        ];
        for (text, mode) in table {
            assert_eq!(read(with(text)).unwrap().0.mode, mode, "{text}");
        }
        for text in ["foo", "container:", "ns:", "ns:x", "Host"] {
            assert!(read(with(text)).is_err(), "{text}");
        }
        assert!(
            read(RunArgs {
                network: vec!["host".into(), "none".into()],
                ..RunArgs::default()
            })
            .is_err()
        );
    }

    #[test]
    fn what_another_containers_network_rules_out() {
        let base = || with("container:web");
        let list = |text: &str| vec![text.to_owned()];
        let table = [
            (
                RunArgs {
                    hostname: Some("h".into()),
                    ..base()
                },
                "hostname and the network mode",
            ),
            (
                RunArgs {
                    dns: list("1.1.1.1"),
                    ..base()
                },
                "dns and the network mode",
            ),
            (
                RunArgs {
                    add_host: list("a:1.1.1.1"),
                    ..base()
                },
                "custom host-to-IP mapping and the network mode",
            ),
            (
                RunArgs {
                    publish: list("80"),
                    ..base()
                },
                "port publishing and the container type network mode",
            ),
            (
                RunArgs {
                    publish_all: true,
                    ..base()
                },
                "port publishing and the container type network mode",
            ),
            (
                RunArgs {
                    expose: list("80"),
                    ..base()
                },
                "port exposing and the container type network mode",
            ),
            (
                RunArgs {
                    publish: list("80"),
                    ..with("ns:/x")
                },
                "port publishing",
            ),
            (
                RunArgs {
                    hostname: Some("h".into()),
                    uts: Some("host".into()),
                    ..RunArgs::default()
                },
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
        let (network, warnings) = read(RunArgs {
            publish: vec!["80:80".into()],
            ..with("host")
        })
        .unwrap();
        assert_eq!(
            warnings,
            ["WARNING: Published ports are discarded when using host network mode"]
        );
        assert!(network.publish.is_empty());
    }

    #[test]
    fn resolver_and_hosts_lines_cant_be_smuggled() {
        let list = |text: &str| vec![text.to_owned()];
        let (network, _) = read(RunArgs {
            dns: list("::1"),
            dns_search: list("example.org."),
            dns_option: list("ndots:2"),
            add_host: vec![
                "a:1.2.3.4".into(),
                "b=::1".into(),
                "c:[::1]".into(),
                "d:host-gateway".into(),
                "e:::1".into(),
            ],
            ..RunArgs::default()
        })
        .unwrap();
        let addresses: Vec<_> = network
            .extra_hosts
            .iter()
            .map(|host| host.address.map(|address| address.to_string()))
            .collect();
        assert_eq!(
            addresses,
            [
                Some("1.2.3.4".into()),
                Some("::1".into()),
                Some("::1".into()),
                None,
                Some("::1".into())
            ]
        );
        for text in [
            "foo",
            "foo:300.1.1.1",
            ":1.1.1.1",
            "a\nb:1.1.1.1",
            "a b:1.1.1.1",
            "a:1.1.1.1\nx",
        ] {
            assert!(
                read(RunArgs {
                    add_host: list(text),
                    ..RunArgs::default()
                })
                .is_err(),
                "{text}"
            );
        }
        for text in ["", "a\nnameserver 6.6.6.6", "a b"] {
            assert!(
                read(RunArgs {
                    dns_option: list(text),
                    ..RunArgs::default()
                })
                .is_err(),
                "{text}"
            );
        }
        for text in ["", "-a", "a..b", "a\nb", &"x".repeat(300)] {
            assert!(
                read(RunArgs {
                    dns_search: list(text),
                    ..RunArgs::default()
                })
                .is_err(),
                "{text}"
            );
        }
        assert!(
            read(RunArgs {
                dns: list("foo"),
                ..RunArgs::default()
            })
            .is_err()
        );
    }

    #[test]
    fn class_ids() {
        for (text, id) in [
            ("1:10", 0x0001_0010),
            ("0x00010010", 0x0001_0010),
            ("0x10010", 0x0001_0010),
            ("65552", 0x0001_0010),
            ("10:", 0x0010_0000),
            ("ffff:ffff", u32::MAX),
        ] {
            assert_eq!(net_cls(text), Ok(id), "{text}");
        }
        for text in [
            "",
            ":",
            "0",
            "0x0",
            "0:0",
            "10000:1",
            "1:10000",
            "1:2:3",
            "x",
            "0x1ffffffff",
            "-1",
            "+1",
            "1:+1",
        ] {
            assert!(net_cls(text).is_err(), "{text}");
        }
    }
}
