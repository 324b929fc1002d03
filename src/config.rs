//! The configuration files: /etc/minidock/config.toml, and config.toml in the root folder, which wins key by key.
//! A wrong key or value is an error with its line; a missing file is no error.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use netsetup::{Backend, PublishMode};
use serde::Deserialize;

use crate::network::subnet::Subnet;
use crate::request::log_options;

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
    /// `publish_address = "127.0.0.1"`: of ports that are published without an address
    pub publish_address: Option<IpAddr>,
    /// `log_max_size = "10m"`: as run's --log-opt max-size
    pub log_max_size: Option<String>,
    /// `log_max_file = 3`: as run's --log-opt max-file
    pub log_max_file: Option<i64>,
    /// `subnet_pools = [{ base = "10.208.0.0/14", size = 24 }]`: where new networks take their subnets
    pub subnet_pools: Option<Vec<(Subnet, u8)>>,
}

/// The keys, for near misses and for `info`.
pub const KEYS: [&str; 10] = [
    "firewall",
    "publish_mode",
    "publish_address",
    "bridge",
    "bip",
    "mtu",
    "subnet_pools",
    "dns",
    "log_max_size",
    "log_max_file",
];

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
    publish_address: Option<toml::Spanned<String>>,
    log_max_size: Option<toml::Spanned<String>>,
    log_max_file: Option<toml::Spanned<i64>>,
    subnet_pools: Option<Vec<toml::Spanned<WrittenPool>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPool {
    base: String,
    size: u8,
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
            publish_address: self.publish_address.or(other.publish_address),
            log_max_size: self.log_max_size.or(other.log_max_size),
            log_max_file: self.log_max_file.or(other.log_max_file),
            subnet_pools: self.subnet_pools.or(other.subnet_pools),
        }
    }

    /// What is set for a key of [`KEYS`], as one would write it.
    pub fn value(&self, key: &str) -> Option<String> {
        match key {
            "firewall" => self.firewall.map(|backend| backend.to_string()),
            "publish_mode" => self.publish_mode.map(|mode| match mode {
                PublishMode::Dnat => "dnat".to_owned(),
                PublishMode::Proxy => "proxy".to_owned(),
            }),
            "publish_address" => self.publish_address.map(|address| address.to_string()),
            "bridge" => self.bridge.clone(),
            "bip" => self.bip.map(|(address, length)| format!("{address}/{length}")),
            "mtu" => self.mtu.map(|mtu| mtu.to_string()),
            "subnet_pools" => self.subnet_pools.as_ref().map(|pools| {
                pools.iter().map(|(base, size)| format!("{base} in /{size}")).collect::<Vec<_>>().join(", ")
            }),
            "dns" => self.dns.as_ref().map(|list| list.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")),
            "log_max_size" => self.log_max_size.clone(),
            "log_max_file" => self.log_max_file.map(|files| files.to_string()),
            _ => None,
        }
    }

    /// Where a key's value comes from, for `info`: the root's file, the machine's, or neither.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn source(root: &Path, key: &str) -> Result<Option<PathBuf>, String> {
        for path in [root.join(ROOT_FILE), PathBuf::from(SYSTEM_FILE)] {
            if read_file(&path)?.value(key).is_some() {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Reads the text of one file. `name` is for messages.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, name: &str) -> Result<Config, String> {
        let line = |offset: usize| text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
        let written: Written = toml::from_str(text).map_err(|error| {
            let place = error.span().map(|span| format!(" line {}", line(span.start))).unwrap_or_default();
            // toml names the key between the first backticks, and then all that there are.
            let unknown = error.message().strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
            let near = unknown.map(|key| crate::near::hint(key, KEYS)).unwrap_or_default();
            let row = error.span().and_then(|span| text.lines().nth(line(span.start) - 1));
            let quotes =
                row.and_then(unquoted).map(|meant| format!("; texts stand in quotes: {meant}")).unwrap_or_default();
            format!("{name}{place}: {}{near}{quotes}", error.message())
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
        if let Some(value) = &written.publish_address {
            let why = "write an IP address, such as \"127.0.0.1\"";
            config.publish_address = Some(value.get_ref().parse().map_err(|_| checked("publish_address", value, why))?);
        }
        if let Some(value) = written.log_max_size {
            let text = value.get_ref();
            if !log_options::is_size(text) {
                return Err(checked("log_max_size", &value, "write a size such as \"10m\""));
            }
            config.log_max_size = Some(value.into_inner());
        }
        if let Some(value) = &written.log_max_file {
            let files = *value.get_ref();
            if !(1..=1000).contains(&files) {
                return Err(wrong("log_max_file", value.span().start, "write a number from 1 to 1000"));
            }
            config.log_max_file = Some(files);
        }
        if let Some(list) = &written.subnet_pools {
            let pool = |value: &toml::Spanned<WrittenPool>| {
                let why = "write an IPv4 subnet and the length of each network's, such as \
                           [{ base = \"10.208.0.0/14\", size = 24 }]";
                let WrittenPool { base, size } = value.get_ref();
                let base: Option<Subnet> = base.parse().ok();
                base.filter(|base| base.is_ipv4() && (base.prefix_len..=30).contains(size))
                    .map(|base| (base, *size))
                    .ok_or_else(|| wrong("subnet_pools", value.span().start, why))
            };
            config.subnet_pools = Some(list.iter().map(pool).collect::<Result<_, _>>()?);
        }
        Ok(config)
    }
}

/// `firewall = "nftables"` for `firewall = nftables`.
fn unquoted(row: &str) -> Option<String> {
    let (key, value) = row.split_once('=')?;
    let (key, value) = (key.trim(), value.split('#').next()?.trim());
    let texts = ["firewall", "publish_mode", "publish_address", "bridge", "bip", "log_max_size"];
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:/_-".contains(&byte);
    (texts.contains(&key) && !value.is_empty() && value.bytes().all(plain)).then(|| format!("{key} = \"{value}\""))
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
            publish_address: Some("127.0.0.1".parse().unwrap()),
            log_max_size: Some("1m".into()),
            log_max_file: Some(2),
            subnet_pools: Some(vec![("10.9.0.0/16".parse().unwrap(), 26)]),
        };
        for key in KEYS {
            assert!(expected.value(key).is_some() && Config::default().value(key).is_none(), "{key}");
        }
        let text = format!(
            "{text}publish_address = \"127.0.0.1\"\nlog_max_size = \"1m\"\nlog_max_file = 2\n\
             subnet_pools = [{{ base = \"10.9.0.0/16\", size = 26 }}]\n"
        );
        assert_eq!(Config::parse(&text, "f"), Ok(expected));
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
            ("\nfirewall = nftables", "line 2", "in quotes: firewall = \"nftables\""),
            ("bip = 172.17.0.1/16 # mine\n", "line 1", "in quotes: bip = \"172.17.0.1/16\""),
            ("log_max_size = 10m", "line 1", "in quotes: log_max_size = \"10m\""),
            ("\nfirewal = \"nftables\"", "line 2", "did you mean firewall?"),
            ("\npublish_address = \"x\"", "line 2", "publish_address"),
            ("log_max_size = \"x\"", "line 1", "log_max_size"),
            ("log_max_file = 0", "line 1", "log_max_file"),
            ("\nsubnet_pools = [{ base = \"10.0.0.0/16\", size = 8 }]", "line 2", "subnet_pools"),
            ("subnet_pools = [{ base = \"10.0.0.0/16\", sise = 8 }]", "line 1", "sise"),
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
