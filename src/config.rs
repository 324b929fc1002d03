//! The configuration files: /etc/minidock/config.toml, and config.toml in the root folder, which wins key by key.
//! A wrong key or value is an error with its line; a missing file is no error.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use netsetup::{Backend, PublishMode};
use serde::Deserialize;

/// The machine's file.
pub const SYSTEM_FILE: &str = "/etc/minidock/config.toml";
/// The file in the root folder.
pub const ROOT_FILE: &str = "config.toml";
/// Far above any sensible file.
const LARGEST_BYTES: u64 = 1 << 20;

/// What the files say; `None`: minidock's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// `firewall = "nftables"` or `"iptables"`
    pub firewall: Option<Backend>,
    /// `publish_mode = "dnat"` or `"proxy"`
    pub publish_mode: Option<PublishMode>,
    /// `bridge = "docker0"`: a link name
    pub bridge: Option<String>,
    /// `bip = "172.17.0.1/16"`: the bridge's address and prefix length
    pub bip: Option<(Ipv4Addr, u8)>,
    /// `mtu = 1500`
    pub mtu: Option<u32>,
    /// `dns = ["9.9.9.9"]`
    pub dns: Option<Vec<IpAddr>>,
}

/// The file as written. Values are checked one by one afterwards, so that an error names its key.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    firewall: Option<toml::Spanned<String>>,
    publish_mode: Option<toml::Spanned<String>>,
    bridge: Option<toml::Spanned<String>>,
    bip: Option<toml::Spanned<String>>,
    mtu: Option<toml::Spanned<i64>>,
    dns: Option<Vec<toml::Spanned<String>>>,
}

impl Config {
    /// Reads both files.
    ///
    /// # Errors
    /// File, line, and what is wrong there.
    pub fn read(root: &Path) -> Result<Config, String> {
        let system = read_file(Path::new(SYSTEM_FILE))?;
        let own = read_file(&root.join(ROOT_FILE))?;
        Ok(own.or(system))
    }

    fn or(self, other: Config) -> Config {
        Config {
            firewall: self.firewall.or(other.firewall),
            publish_mode: self.publish_mode.or(other.publish_mode),
            bridge: self.bridge.or(other.bridge),
            bip: self.bip.or(other.bip),
            mtu: self.mtu.or(other.mtu),
            dns: self.dns.or(other.dns),
        }
    }

    /// Reads the text of one file. `name` is for messages.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, name: &str) -> Result<Config, String> {
        let line = |offset: usize| text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
        let written: Written = toml::from_str(text).map_err(|error| {
            let place = error.span().map(|span| format!(" line {}", line(span.start))).unwrap_or_default();
            format!("{name}{place}: {}", error.message())
        })?;
        let wrong = |key: &str, start: usize, why: &str| format!("{name} line {}: {key}: {why}", line(start));
        let checked = |key: &str, value: &toml::Spanned<String>, why: &str| wrong(key, value.span().start, why);
        let mut config = Config::default();
        if let Some(value) = &written.firewall {
            config.firewall = Some(match value.get_ref().as_str() {
                "nftables" => Backend::Nftables,
                "iptables" => Backend::Iptables,
                _ => {
                    return Err(checked("firewall", value, "use \"nftables\" or \"iptables\""));
                }
            });
        }
        if let Some(value) = &written.publish_mode {
            config.publish_mode = Some(match value.get_ref().as_str() {
                "dnat" => PublishMode::Dnat,
                "proxy" => PublishMode::Proxy,
                _ => return Err(checked("publish_mode", value, "use \"dnat\" or \"proxy\"")),
            });
        }
        if let Some(value) = written.bridge {
            if !is_link_name(value.get_ref()) {
                return Err(checked(
                    "bridge",
                    &value,
                    "a link name has 1 to 15 characters, without '/', ':' and spaces",
                ));
            }
            config.bridge = Some(value.into_inner());
        }
        if let Some(value) = &written.bip {
            let address = bridge_address(value.get_ref());
            let why = "write the bridge's address with its prefix length (8 to 30), such as \"172.17.0.1/16\"";
            config.bip = Some(address.ok_or_else(|| checked("bip", value, why))?);
        }
        if let Some(value) = &written.mtu {
            // 68: the least that IPv4 allows (RFC 791); 65535: the most that a veth takes.
            let mtu = u32::try_from(*value.get_ref()).ok().filter(|mtu| (68..=65535).contains(mtu));
            config.mtu = Some(mtu.ok_or_else(|| wrong("mtu", value.span().start, "write a number from 68 to 65535"))?);
        }
        if let Some(list) = &written.dns {
            let address = |value: &toml::Spanned<String>| {
                value.get_ref().parse().map_err(|_| checked("dns", value, "write IP addresses, such as [\"9.9.9.9\"]"))
            };
            config.dns = Some(list.iter().map(address).collect::<Result<_, _>>()?);
        }
        Ok(config)
    }
}

fn read_file(path: &Path) -> Result<Config, String> {
    use io::Read;
    let name = path.display().to_string();
    let failed = |error: io::Error| format!("cannot read {name}: {error}");
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Config::default());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(LARGEST_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    match text.len() as u64 > LARGEST_BYTES {
        true => Err(format!("{name}: larger than 1 MiB")),
        false => Config::parse(&text, &name),
    }
}

/// dev_valid_name() of the kernel's net/core/dev.c.
fn is_link_name(text: &str) -> bool {
    let letters = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    letters && !text.is_empty() && text.len() < 16 && text != "." && text != ".."
}

/// An address that a host of the network can have: neither the network's own nor the broadcast's.
fn bridge_address(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let length: u8 = length.parse().ok().filter(|length| (8..=30).contains(length))?;
    let host_part = u32::MAX >> length;
    let host = u32::from(address) & host_part;
    (host != 0 && host != host_part && !address.is_loopback() && !address.is_multicast()).then_some((address, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys() {
        let text = "# comment\nfirewall = \"iptables\"\npublish_mode = \"proxy\"\nbridge = \"br0\"\nbip = \"10.1.0.1/24\"\nmtu = 1450\ndns = [\"9.9.9.9\", \"::1\"]\n";
        let expected = Config {
            firewall: Some(Backend::Iptables),
            publish_mode: Some(PublishMode::Proxy),
            bridge: Some("br0".into()),
            bip: Some(([10, 1, 0, 1].into(), 24)),
            mtu: Some(1450),
            dns: Some(vec!["9.9.9.9".parse().unwrap(), "::1".parse().unwrap()]),
        };
        assert_eq!(Config::parse(text, "f"), Ok(expected));
        assert_eq!(Config::parse("", "f"), Ok(Config::default()));
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let table = [
            ("\n\nfoo = 1", "line 3", "foo"),
            ("firewall = \"x\"", "line 1", "firewall"),
            ("\nfirewall = 3", "line 2", ""),
            ("publish_mode = \"x\"", "line 1", "publish_mode"),
            ("bridge = \"a/b\"", "line 1", "bridge"),
            ("bridge = \"sixteen-letters-\"", "line 1", "bridge"),
            ("bip = \"172.17.0.0/16\"", "line 1", "bip"),
            ("bip = \"172.17.0.1\"", "line 1", "bip"),
            ("bip = \"172.17.255.255/16\"", "line 1", "bip"),
            ("\nmtu = 67", "line 2", "mtu"),
            ("mtu = \"x\"", "line 1", ""),
            ("\n\ndns = [\"1.1.1.1\",\n \"x\"]", "line 4", "dns"),
            ("mtu = 1500\nmtu = 1500", "line 2", ""),
            ("= =", "line 1", ""),
        ];
        for (text, line, key) in table {
            let error = Config::parse(text, "conf").unwrap_err();
            assert!(error.starts_with(&format!("conf {line}")) && error.contains(key), "{text}: {error}");
        }
    }

    #[test]
    fn the_roots_file_wins() {
        let system = Config::parse("mtu = 1400\nbridge = \"a\"", "f").unwrap();
        let own = Config::parse("mtu = 1300", "f").unwrap();
        assert_eq!(own.or(system), Config::parse("mtu = 1300\nbridge = \"a\"", "f").unwrap());
    }
}
