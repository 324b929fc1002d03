//! The container's `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`, as docker writes them.

use std::fmt::Write;
use std::net::IpAddr;

use netsetup::Endpoint;

/// What `--dns` and its kin say.
#[derive(Debug, Default, Clone, Copy)]
pub struct Dns<'a> {
    /// Name servers; those of the host when empty.
    pub servers: &'a [IpAddr],
    /// Search domains; those of the host when empty, none when it's just `.`.
    pub search: &'a [String],
    /// Options; those of the host when empty.
    pub options: &'a [String],
}

/// `/etc/hosts`: the loopback names, the user's lines, the container's own name with its address in every network.
pub fn hosts(extra: &[(String, IpAddr)], own: &[IpAddr], name: &str) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (name, address) in extra {
        let _ = writeln!(text, "{address}\t{name}");
    }
    for address in own {
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

/// The addresses of a container's cards, in their order.
pub fn own_addresses(cards: &[Endpoint]) -> Vec<IpAddr> {
    cards.iter().flat_map(|card| card.places().map(|place| place.address)).collect()
}

/// The text of `/etc/hosts` after the container has come into a network or has left one: lines with addresses that it
/// has no more go, lines for new ones come. What programs in the container have written stays.
pub fn hosts_changed(text: &str, gone: &[IpAddr], new: &[IpAddr], name: &str) -> String {
    let is_gone = |line: &str| {
        let address = line.split_whitespace().next().and_then(|word| word.parse::<IpAddr>().ok());
        address.is_some_and(|address| gone.contains(&address) || new.contains(&address))
    };
    let mut changed: String = text.lines().filter(|line| !is_gone(line)).map(|line| format!("{line}\n")).collect();
    for address in new {
        let _ = writeln!(changed, "{address}\t{name}");
    }
    changed
}

/// Whom the container asks for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The monitor's resolver, which knows the other containers and passes the rest on.
    Resolver,
    /// The host's servers.
    Host,
    /// The same, but the container doesn't share the host's loopback: servers on 127.0.0.0/8 and ::1 are of no use to it.
    OwnLoopback,
}

/// `/etc/resolv.conf` from the host's text and the flags.
pub fn resolv_conf(host: &str, dns: Dns<'_>, way: Way) -> String {
    let mut servers: Vec<String> = dns.servers.iter().map(IpAddr::to_string).collect();
    let own_loopback = way == Way::OwnLoopback;
    let (mut search, mut options): (Vec<&str>, Vec<&str>) = (vec![], vec![]);
    for line in host.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") if dns.servers.is_empty() => {
                servers
                    .extend(words.next().filter(|server| !(own_loopback && is_loopback(server))).map(str::to_string));
            }
            Some("search" | "domain") => search = words.collect(),
            Some("options") => options.extend(words),
            _ => {}
        }
    }
    if !dns.search.is_empty() {
        search = dns.search.iter().map(String::as_str).filter(|domain| *domain != ".").collect();
    }
    if !dns.options.is_empty() {
        options = dns.options.iter().map(String::as_str).collect();
    }
    let mut text = String::new();
    if way == Way::Resolver {
        servers = vec![netsetup::dns::ADDRESS.to_string()];
        // As docker: a container's name is tried as it is before the search domains are.
        if !options.iter().any(|option| option.starts_with("ndots:")) {
            options.push("ndots:0");
        }
    }
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    for (word, list) in [("search", search), ("options", options)] {
        if !list.is_empty() {
            let _ = writeln!(text, "{word} {}", list.join(" "));
        }
    }
    text
}

fn is_loopback(server: &str) -> bool {
    // A zone (`fe80::1%eth0`) is no part of the address.
    let address = server.split('%').next().unwrap_or(server);
    address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str =
        "# made by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch lan example.org\noptions edns0\n";

    #[test]
    fn the_hosts_servers_are_taken_but_not_those_on_its_loopback() {
        let text = resolv_conf(HOST, Dns::default(), Way::OwnLoopback);
        assert_eq!(text, "nameserver 10.0.0.2\nsearch lan example.org\noptions edns0\n");
        assert!(resolv_conf(HOST, Dns::default(), Way::Host).contains("127.0.0.53"));
    }

    #[test]
    fn flags_take_the_place_of_the_hosts_lines() {
        let servers = ["1.1.1.1".parse().unwrap()];
        let dns = Dns { servers: &servers, search: &[".".into()], options: &["ndots:2".into()] };
        let resolver = resolv_conf(HOST, dns, Way::Resolver);
        assert_eq!(resolver, "nameserver 127.0.0.11\noptions ndots:2\n");
        assert_eq!(resolv_conf(HOST, dns, Way::OwnLoopback), "nameserver 1.1.1.1\noptions ndots:2\n");
    }

    #[test]
    fn the_resolver_takes_the_place_of_all_servers() {
        let text = resolv_conf(HOST, Dns::default(), Way::Resolver);
        assert_eq!(text, "nameserver 127.0.0.11\nsearch lan example.org\noptions edns0 ndots:0\n");
    }

    #[test]
    fn hosts_ends_with_the_containers_own_name() {
        let own = [[172, 17, 0, 2].into(), "fd00::2".parse().unwrap()];
        let text = hosts(&[("db".into(), [10, 0, 0, 9].into())], &own, "web");
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("10.0.0.9\tdb\n172.17.0.2\tweb\nfd00::2\tweb\n"));
        let changed = hosts_changed(&text, &[[172, 17, 0, 2].into()], &[[10, 5, 0, 3].into()], "web");
        assert!(changed.ends_with("10.0.0.9\tdb\nfd00::2\tweb\n10.5.0.3\tweb\n"), "{changed}");
    }
}
