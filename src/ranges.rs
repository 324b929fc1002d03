//! Lists of ports in files: neighbours as one entry with a count, `"20000-29999/tcp"` for texts. Ten thousand ports are then
//! one entry instead of a megabyte. A list without ranges, as earlier versions wrote all of them, looks as it always did; a
//! range is an entry that format 1 doesn't know, so that a minidock of then refuses it instead of taking one port for all.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An entry, and how many there are with it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Entry<T> {
    Many {
        first: T,
        count: u32,
    },
    /// `count` beside the fields of the first one was written for some days.
    One {
        #[serde(flatten)]
        first: T,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<u32>,
    },
}

/// `after(first, n)`: what the nth entry after the first one would be.
fn write<T: Copy + PartialEq + Serialize, S: Serializer>(
    list: &[T],
    after: fn(&T, u16) -> Option<T>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let mut runs: Vec<(T, u32)> = Vec::new();
    for entry in list {
        match runs.last_mut() {
            Some((first, count))
                if u16::try_from(*count).ok().and_then(|nth| after(first, nth)).as_ref() == Some(entry) =>
            {
                *count += 1;
            }
            _ => runs.push((*entry, 1)),
        }
    }
    let entry = |(first, count)| match count {
        1 => Entry::One { first, count: None },
        count => Entry::Many { first, count },
    };
    runs.into_iter().map(entry).collect::<Vec<_>>().serialize(to)
}

fn read<'de, T: Copy + DeserializeOwned, D: Deserializer<'de>>(
    after: fn(&T, u16) -> Option<T>,
    from: D,
) -> Result<Vec<T>, D::Error> {
    let mut list = Vec::new();
    for entry in Vec::<Entry<T>>::deserialize(from)? {
        let (first, count) = match entry {
            Entry::Many { first, count } => (first, count),
            Entry::One { first, count } => (first, count.unwrap_or(1)),
        };
        list.push(first);
        for nth in 1..count {
            let next = u16::try_from(nth).ok().and_then(|nth| after(&first, nth));
            list.push(next.ok_or_else(|| D::Error::custom("a range of ports goes beyond 65535"))?);
        }
    }
    Ok(list)
}

/// For `#[serde(with)]`: published ports with their numbers on the host.
pub mod mappings {
    use netsetup::PortMapping;

    use super::{Deserializer, Serializer};

    fn after(first: &PortMapping, nth: u16) -> Option<PortMapping> {
        let (host_port, container_port) = (first.host_port.checked_add(nth)?, first.container_port.checked_add(nth)?);
        Some(PortMapping { host_port, container_port, ..*first })
    }

    /// Whether it would be written with a range.
    pub fn has_some(list: &[PortMapping]) -> bool {
        list.windows(2).any(|pair| after(&pair[0], 1) == Some(pair[1]))
    }

    pub fn serialize<S: Serializer>(list: &[PortMapping], to: S) -> Result<S::Ok, S::Error> {
        super::write(list, after, to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PortMapping>, D::Error> {
        super::read(after, from)
    }
}

/// For `#[serde(with)]`: ports as the user wished them.
pub mod wishes {
    use super::{Deserializer, Serializer};
    use crate::request::ports::{HostPort, Publish};

    fn after(first: &Publish, nth: u16) -> Option<Publish> {
        let host = match first.host {
            HostPort::Fixed(port) => HostPort::Fixed(port.checked_add(nth)?),
            HostPort::Random => HostPort::Random,
            HostPort::FirstFree(..) => return None,
        };
        Some(Publish { host, container_port: first.container_port.checked_add(nth)?, ..*first })
    }

    pub fn serialize<S: Serializer>(list: &[Publish], to: S) -> Result<S::Ok, S::Error> {
        super::write(list, after, to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Publish>, D::Error> {
        super::read(after, from)
    }
}

/// For `#[serde(with)]`: exposed ports as texts, `80/tcp`.
pub mod texts {
    use serde::{Deserialize, Serialize};

    use super::{Deserializer, Serializer};

    fn numbers(text: &str) -> Option<(u16, &str)> {
        let (port, protocol) = text.split_once('/')?;
        Some((port.parse().ok()?, protocol))
    }

    /// Whether it would be written with a range.
    pub fn has_some(list: &[String]) -> bool {
        list.windows(2).any(|pair| {
            matches!((numbers(&pair[0]), numbers(&pair[1])), (Some((port, protocol)), Some((next, its)))
                if its == protocol && port.checked_add(1) == Some(next))
        })
    }

    pub fn serialize<S: Serializer>(list: &[String], to: S) -> Result<S::Ok, S::Error> {
        let mut runs: Vec<(&String, Option<u16>)> = Vec::new();
        for text in list {
            if let (Some((first, last)), Some((port, protocol))) = (runs.last_mut(), numbers(text))
                && let Some((start, its)) = numbers(first)
                && its == protocol
                && last.unwrap_or(start).checked_add(1) == Some(port)
            {
                *last = Some(port);
                continue;
            }
            runs.push((text, None));
        }
        let text = |(first, last): &(&String, Option<u16>)| match (last, first.split_once('/')) {
            (Some(last), Some((start, protocol))) => format!("{start}-{last}/{protocol}"),
            _ => (*first).clone(),
        };
        runs.iter().map(text).collect::<Vec<_>>().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
        let mut list = Vec::new();
        for text in Vec::<String>::deserialize(from)? {
            let range = text.split_once('/').and_then(|(ports, protocol)| {
                let (first, last) = ports.split_once('-')?;
                Some((first.parse::<u16>().ok()?, last.parse::<u16>().ok()?, protocol))
            });
            match range {
                Some((first, last, protocol)) => list.extend((first..=last).map(|port| format!("{port}/{protocol}"))),
                None => list.push(text),
            }
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::request::ports::{Publish, publish};

    #[derive(Serialize, Deserialize)]
    struct File {
        #[serde(with = "wishes")]
        wishes: Vec<Publish>,
        #[serde(with = "texts")]
        texts: Vec<String>,
        #[serde(with = "mappings")]
        mappings: Vec<netsetup::PortMapping>,
    }

    fn file(flags: &[&str], texts: &[&str]) -> File {
        let wishes = publish(&flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>()).unwrap();
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        let mapping = |one: &Publish| netsetup::PortMapping {
            protocol: one.protocol,
            host_address: one.host_address,
            host_port: one.container_port,
            container_port: one.container_port,
            mode: netsetup::PublishMode::Dnat,
        };
        File { mappings: wishes.iter().map(mapping).collect(), wishes, texts }
    }

    #[test]
    fn ranges_are_one_entry_and_come_back_in_order() {
        for flags in [
            &["20000-29999:20000-29999"][..],
            &["80", "81", "53/udp", "8000-8002:9000-9002", "127.0.0.1:7-9:7-9/sctp", "8080-8090:443"],
            &["65535:65535", "5:5"],
            &[],
        ] {
            let texts = ["10/tcp", "8/tcp", "9/tcp", "9/udp", "10/udp", "x", "65535/tcp"];
            let before = file(flags, &texts);
            let text = serde_json::to_string(&before).unwrap();
            assert!(text.len() < 2000, "{text}");
            let after: File = serde_json::from_str(&text).unwrap();
            assert_eq!((before.wishes, before.texts), (after.wishes, after.texts), "{text}");
            assert_eq!(before.mappings, after.mappings, "{text}");
        }
    }

    #[test]
    fn a_list_without_ranges_looks_as_it_always_did() {
        let before = file(&["10080:80", "53:53/udp"], &["53/udp", "80/tcp"]);
        let now = serde_json::to_value(&before).unwrap();
        let then = json!({"wishes": before.wishes, "texts": before.texts, "mappings": before.mappings});
        assert_eq!(now, then);
        // Each by itself, as earlier versions wrote ranges.
        let before = file(&["8000-8099:8000-8099"], &[]);
        let then = json!({"wishes": before.wishes, "texts": before.texts, "mappings": before.mappings});
        assert_eq!(serde_json::from_value::<File>(then).unwrap().wishes, before.wishes);
    }

    #[test]
    fn a_range_that_can_t_be_is_an_error() {
        let mut text: Value = serde_json::to_value(file(&["1-2:65000-65001"], &[])).unwrap();
        text["mappings"][0]["count"] = json!(4_000_000_000_u32);
        assert!(serde_json::from_value::<File>(text).is_err_and(|why| why.to_string().contains("beyond 65535")));
    }
}
