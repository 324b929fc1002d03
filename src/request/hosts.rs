//! What goes into the container's resolv.conf and /etc/hosts: `--dns`, `--dns-search`, `--dns-option`, `--add-host`.

use std::net::IpAddr;

use super::network::ExtraHost;
use super::{Invalid, names};

/// An address for resolv.conf.
pub(super) fn dns(text: &str) -> Result<IpAddr, Invalid> {
    text.parse().map_err(|_| Invalid::value("--dns", text, "IP address is not correctly formatted"))
}

/// A domain for resolv.conf's search line.
pub(super) fn domain(text: &str) -> Result<String, Invalid> {
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
pub(super) fn dns_option(text: &str) -> Result<String, Invalid> {
    let word = !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic());
    match word {
        true => Ok(text.to_owned()),
        false => Err(Invalid::value("--dns-option", text, "write one option of resolv.conf(5), such as ndots:2")),
    }
}

/// A line for /etc/hosts.
pub(super) fn extra_host(text: &str) -> Result<ExtraHost, Invalid> {
    let flag = "--add-host";
    let bad = || Invalid::value(flag, text, "bad format for add-host; write NAME:ADDRESS");
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    if !name.split('.').all(names::label) {
        return Err(bad());
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address = match bare {
        "host-gateway" => None,
        _ => Some(bare.parse().map_err(|_| {
            Invalid::value(
                flag,
                text,
                format!("invalid IP address in add-host: {address:?}; write an address or host-gateway"),
            )
        })?),
    };
    Ok(ExtraHost { name: name.to_owned(), address })
}

#[cfg(test)]
mod tests {
    use super::super::network::Network;
    use super::*;
    use crate::cli::RunArgs;

    fn read(args: RunArgs) -> Result<(Network, Vec<String>), Invalid> {
        let mut warnings = Vec::new();
        Network::from_args(&args, &mut warnings).map(|network| (network, warnings))
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
        let addresses: Vec<_> =
            network.extra_hosts.iter().map(|host| host.address.map(|address| address.to_string())).collect();
        assert_eq!(
            addresses,
            [Some("1.2.3.4".into()), Some("::1".into()), Some("::1".into()), None, Some("::1".into())]
        );
        for text in ["foo", "foo:300.1.1.1", ":1.1.1.1", "a\nb:1.1.1.1", "a b:1.1.1.1", "a:1.1.1.1\nx"] {
            assert!(read(RunArgs { add_host: list(text), ..RunArgs::default() }).is_err(), "{text}");
        }
        for text in ["", "a\nnameserver 6.6.6.6", "a b"] {
            assert!(read(RunArgs { dns_option: list(text), ..RunArgs::default() }).is_err(), "{text}");
        }
        for text in ["", "-a", "a..b", "a\nb", &"x".repeat(300)] {
            assert!(read(RunArgs { dns_search: list(text), ..RunArgs::default() }).is_err(), "{text}");
        }
        assert!(read(RunArgs { dns: list("foo"), ..RunArgs::default() }).is_err());
    }
}
