//! The lines of `network ls`, and the document of `network inspect`.

use std::collections::BTreeMap;

use super::document::{Document, object};
use super::human::{self, Nanoseconds};
use super::ps::short_id;
use super::rows::{List, Row};
use super::template::FormatError;

const LIST: List = List {
    headers: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
};

/// A network as `ls` and `inspect` print it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkFacts {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name.
    pub name: String,
    /// When it was made; `None`: it is always there.
    pub created: Option<Nanoseconds>,
    /// docker's name of the driver.
    pub driver: String,
    /// Whether containers get IPv4 addresses.
    pub ipv4: bool,
    /// Whether containers get IPv6 addresses.
    pub ipv6: bool,
    /// No way out.
    pub internal: bool,
    /// docker's word for networks that anybody may join.
    pub attachable: bool,
    /// Its subnets.
    pub pools: Vec<PoolFacts>,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The running containers in it, by id.
    pub containers: BTreeMap<String, Member>,
}

/// A subnet of a network, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolFacts {
    /// Such as `10.5.0.0/24`.
    pub subnet: String,
    /// Where containers' addresses come from; empty: all of it.
    pub range: String,
    /// Empty: none.
    pub gateway: String,
    /// Addresses that no container gets.
    pub auxiliary: BTreeMap<String, String>,
}

/// A container's place in a network, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// The container's name.
    pub name: String,
    /// The place's own id.
    pub endpoint_id: String,
    /// Of its link.
    pub mac: String,
    /// With the subnet's length: `10.5.0.2/24`; empty: none.
    pub ipv4: String,
    /// As above.
    pub ipv6: String,
}

/// Prints networks in the order given.
///
/// # Errors
/// The template is wrong.
pub fn print(
    networks: &[NetworkFacts],
    format: Option<&str>,
    quiet: bool,
    no_trunc: bool,
) -> Result<String, FormatError> {
    let rows: Vec<Row> = networks.iter().map(|network| row(network, no_trunc)).collect();
    LIST.print(&rows, format, quiet)
}

fn row(network: &NetworkFacts, no_trunc: bool) -> Row {
    let labels: Vec<String> = network.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let fields = vec![
        ("ID", if no_trunc { network.id.clone() } else { short_id(&network.id) }),
        ("Name", network.name.clone()),
        ("Driver", network.driver.clone()),
        ("Scope", "local".to_owned()),
        ("IPv4", network.ipv4.to_string()),
        ("IPv6", network.ipv6.to_string()),
        ("Internal", network.internal.to_string()),
        ("Labels", labels.join(",")),
        ("CreatedAt", created_at(network.created)),
    ];
    Row { fields, labels: network.labels.clone() }
}

/// Go's `Time.String()`: with the nanoseconds, which docker's other lists leave out.
fn created_at(time: Option<Nanoseconds>) -> String {
    let Some(time) = time else {
        return "0001-01-01 00:00:00 +0000 UTC".to_owned();
    };
    let whole = human::created_at(time / 1_000_000_000);
    let part = match time % 1_000_000_000 {
        0 => String::new(),
        part => format!(".{part:09}").trim_end_matches('0').to_owned(),
    };
    match whole.split_once(" +") {
        Some((date, zone)) => format!("{date}{part} +{zone}"),
        None => whole,
    }
}

/// The document of a network.
pub fn document(network: &NetworkFacts) -> Document {
    let fixed = network.created.is_none();
    let pools: Vec<Document> = network.pools.iter().map(pool).collect();
    object! {
        "Name": network.name.as_str(),
        "Id": network.id.as_str(),
        "Created": human::rfc3339(network.created),
        "Scope": "local",
        "Driver": network.driver.as_str(),
        "EnableIPv4": network.ipv4,
        "EnableIPv6": network.ipv6,
        "IPAM": object! {
            "Driver": "default",
            "Options": if fixed { None::<bool>.into() } else { Document::Map(BTreeMap::new()) },
            "Config": Document::list_or_null(pools),
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": object! { "Network": "" },
        "ConfigOnly": false,
        "Containers": Document::Map(
            network.containers.iter().map(|(id, one)| (id.clone(), member(one))).collect()
        ),
        "Options": &network.options,
        "Labels": &network.labels,
    }
}

fn pool(pool: &PoolFacts) -> Document {
    object! {
        "Subnet": pool.subnet.as_str(),
        "IPRange": Document::omittable(pool.range.as_str()),
        "Gateway": Document::omittable(pool.gateway.as_str()),
        "AuxiliaryAddresses": Document::omittable(&pool.auxiliary),
    }
}

fn member(member: &Member) -> Document {
    object! {
        "Name": member.name.as_str(),
        "EndpointID": member.endpoint_id.as_str(),
        "MacAddress": member.mac.as_str(),
        "IPv4Address": member.ipv4.as_str(),
        "IPv6Address": member.ipv6.as_str(),
    }
}

/// The filters of `network ls` and `network prune`, ready to be asked. Filters of one key are alternatives, different
/// keys all have to fit; labels all have to fit.
#[derive(Debug)]
pub struct Filter {
    conditions: Vec<(Key, String)>,
    /// Made before this moment.
    until: Option<Nanoseconds>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Name,
    Id,
    Driver,
    Scope,
    Type,
    Dangling,
    Label,
    NotLabel,
}

/// Which command filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    /// `network ls`
    Ls,
    /// `network prune`
    Prune,
}

impl Filter {
    /// Reads `-f KEY=VALUE` flags. `time` reads the value of `until=`.
    ///
    /// # Errors
    /// The first one that is wrong, with what there is.
    pub fn parse(
        flags: &[String],
        filtering: Filtering,
        time: impl Fn(&str) -> Option<Nanoseconds>,
    ) -> Result<Filter, String> {
        let mut filter = Filter { conditions: Vec::new(), until: None };
        for flag in flags {
            let (key, value) =
                flag.split_once('=').ok_or_else(|| format!("bad format of filter {flag:?} (expected name=value)"))?;
            let key = key.trim().to_ascii_lowercase();
            let key = match (key.as_str(), filtering) {
                ("label", _) => Key::Label,
                ("label!", Filtering::Prune) => Key::NotLabel,
                ("until", Filtering::Prune) => {
                    let wrong = || format!("invalid filter 'until={value}'; write a time, or 24h for 24 hours ago");
                    filter.until = Some(time(value).ok_or_else(wrong)?);
                    continue;
                }
                ("name", Filtering::Ls) => Key::Name,
                ("id", Filtering::Ls) => Key::Id,
                ("driver", Filtering::Ls) => Key::Driver,
                ("scope", Filtering::Ls) => Key::Scope,
                ("type", Filtering::Ls) => Key::Type,
                ("dangling", Filtering::Ls) => Key::Dangling,
                (key, Filtering::Ls) => {
                    return Err(format!(
                        "invalid filter '{key}'; there are name, id, driver, scope, type, label, dangling"
                    ));
                }
                (key, Filtering::Prune) => {
                    return Err(format!("invalid filter '{key}'; there are label, label!, until"));
                }
            };
            let wrong = match key {
                Key::Type => !["custom", "builtin"].contains(&value),
                Key::Scope => !["local", "swarm", "global"].contains(&value),
                Key::Dangling => crate::cli::boolean(value).is_err(),
                _ => false,
            };
            if wrong {
                return Err(format!("invalid filter '{flag}'"));
            }
            filter.conditions.push((key, value.to_owned()));
        }
        Ok(filter)
    }

    /// Whether a network is let through.
    pub fn fits(&self, network: &NetworkFacts) -> bool {
        let all_of = [Key::Label, Key::NotLabel];
        let one_of = [Key::Name, Key::Id, Key::Driver, Key::Scope, Key::Type, Key::Dangling];
        let values =
            |key: Key| self.conditions.iter().filter(move |(other, _)| *other == key).map(|(_, value)| value.as_str());
        all_of.into_iter().all(|key| values(key).all(|value| fits(network, key, value)))
            && one_of
                .into_iter()
                .all(|key| values(key).next().is_none() || values(key).any(|value| fits(network, key, value)))
            && self.until.is_none_or(|until| network.created.is_some_and(|created| created < until))
    }
}

fn fits(network: &NetworkFacts, key: Key, value: &str) -> bool {
    match key {
        // docker takes a regular expression for the one, a part for the other.
        Key::Name => crate::commands::filter::like(value, &network.name),
        Key::Id => network.id.contains(value),
        Key::Driver => network.driver == value,
        Key::Scope => value == "local",
        Key::Type => (value == "builtin") == network.created.is_none(),
        Key::Dangling => {
            let unused = network.created.is_some() && network.containers.is_empty();
            crate::cli::boolean(value) == Ok(unused)
        }
        Key::Label => has_label(network, value),
        Key::NotLabel => !has_label(network, value),
    }
}

fn has_label(network: &NetworkFacts, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => network.labels.get(key).is_some_and(|found| found == value),
        None => network.labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str) -> NetworkFacts {
        NetworkFacts {
            id: "3f2a9c11d0b2e4f5".repeat(4),
            name: name.into(),
            created: Some(1_735_787_045_120_000_000),
            driver: "bridge".into(),
            ipv4: true,
            pools: vec![PoolFacts { subnet: "10.5.0.0/24".into(), gateway: "10.5.0.1".into(), ..PoolFacts::default() }],
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..NetworkFacts::default()
        }
    }

    #[test]
    fn the_list_is_dockers() {
        assert_eq!(
            print(&[network("lan"), network("a-longer-name")], None, false, false).unwrap(),
            "NETWORK ID     NAME            DRIVER    SCOPE\n\
             3f2a9c11d0b2   lan             bridge    local\n\
             3f2a9c11d0b2   a-longer-name   bridge    local\n"
        );
        assert_eq!(print(&[network("lan")], None, true, false).unwrap(), "3f2a9c11d0b2\n");
        assert_eq!(
            print(&[network("lan")], Some("json"), false, false).unwrap(),
            "{\"CreatedAt\":\"2025-01-02 03:04:05.12 +0000 UTC\",\"Driver\":\"bridge\",\"ID\":\"3f2a9c11d0b2\",\
             \"IPv4\":\"true\",\"IPv6\":\"false\",\"Internal\":\"false\",\"Labels\":\"a=b\",\"Name\":\"lan\",\
             \"Scope\":\"local\"}\n"
        );
        assert_eq!(print(&[network("lan")], Some("{{.Name}} {{.Label \"a\"}}"), false, false).unwrap(), "lan b\n");
    }

    #[test]
    fn the_document_is_dockers() {
        let mut lan = network("lan");
        lan.containers.insert(
            "c1".into(),
            Member {
                name: "web".into(),
                endpoint_id: "e1".into(),
                mac: "02:42:0a:05:00:02".into(),
                ipv4: "10.5.0.2/24".into(),
                ipv6: String::new(),
            },
        );
        let expected = r#"{"Name":"lan","Id":"3f2a9c11d0b2e4f53f2a9c11d0b2e4f53f2a9c11d0b2e4f53f2a9c11d0b2e4f5","Created":"2025-01-02T03:04:05.12Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":{},"Config":[{"Subnet":"10.5.0.0/24","Gateway":"10.5.0.1"}]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{"c1":{"Name":"web","EndpointID":"e1","MacAddress":"02:42:0a:05:00:02","IPv4Address":"10.5.0.2/24","IPv6Address":""}},"Options":{},"Labels":{"a":"b"}}"#;
        assert_eq!(serde_json::to_string(&document(&lan)).unwrap(), expected);
    }

    #[test]
    fn filters() {
        let builtin = NetworkFacts { created: None, name: "bridge".into(), ..network("x") };
        let parse = |flag: &str, of| Filter::parse(&[flag.to_owned()], of, |text| text.parse().ok());
        for (flag, lan, fixed) in [
            ("name=la", true, false),
            ("driver=bridge", true, true),
            ("driver=macvlan", false, false),
            ("id=3f2a", true, true),
            ("type=custom", true, false),
            ("type=builtin", false, true),
            ("scope=swarm", false, false),
            ("dangling=true", true, false),
            ("dangling=false", false, true),
            ("label=a", true, true),
            ("label=a=c", false, false),
        ] {
            let filter = parse(flag, Filtering::Ls).unwrap();
            assert_eq!((filter.fits(&network("lan")), filter.fits(&builtin)), (lan, fixed), "{flag}");
        }
        assert!(parse("until=1735787045120000001", Filtering::Prune).unwrap().fits(&network("lan")));
        assert!(!parse("until=1735787045120000000", Filtering::Prune).unwrap().fits(&network("lan")));
        assert!(!parse("label!=a", Filtering::Prune).unwrap().fits(&network("lan")));
        for flag in ["foo=bar", "name", "type=x", "dangling=x", "until=1", "label!=a"] {
            assert!(parse(flag, Filtering::Ls).is_err(), "{flag}");
        }
        assert!(parse("name=x", Filtering::Prune).is_err());
    }
}
