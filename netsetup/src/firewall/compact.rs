//! Elements in journals: separate published ports of one address are one entry with a list of numbers. A journal is
//! bounded, and thirty thousand ports that are no range would be megabytes. Few ports look as they always did.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::element::Element;
use crate::Protocol;

/// So many in a row are worth a list, which earlier versions can't read.
const WORTH: usize = 16;

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    One(Element),
    Many { port_list: List },
}

#[derive(Serialize, Deserialize)]
struct List {
    protocol: Protocol,
    host_address: IpAddr,
    address: IpAddr,
    /// On the host, in the container, and how many there are from these on.
    ports: Vec<(u16, u16, u16)>,
}

type Common = (Protocol, IpAddr, IpAddr);

fn common(element: &Element) -> Option<Common> {
    match element {
        Element::Port { protocol, host_address, address, .. } => Some((*protocol, *host_address, *address)),
        _ => None,
    }
}

fn list((protocol, host_address, address): Common, elements: &[Element]) -> List {
    let mut ports: Vec<(u16, u16, u16)> = Vec::new();
    for element in elements {
        let Element::Port { host_port, port, .. } = element else { continue };
        let next = |(host, inside, count): &&mut (u16, u16, u16)| {
            (host.checked_add(*count), inside.checked_add(*count)) == (Some(*host_port), Some(*port))
        };
        match ports.last_mut().filter(next) {
            Some(run) => run.2 += 1,
            None => ports.push((*host_port, *port, 1)),
        }
    }
    List { protocol, host_address, address, ports }
}

pub fn serialize<S: Serializer>(elements: &[Element], to: S) -> Result<S::Ok, S::Error> {
    let mut entries = Vec::new();
    for run in elements.chunk_by(|one, next| common(one).is_some() && common(one) == common(next)) {
        match run.first().and_then(common) {
            Some(common) if run.len() >= WORTH => entries.push(Entry::Many { port_list: list(common, run) }),
            _ => entries.extend(run.iter().cloned().map(Entry::One)),
        }
    }
    entries.serialize(to)
}

pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Element>, D::Error> {
    let mut elements = Vec::new();
    for entry in Vec::<Entry>::deserialize(from)? {
        let List { protocol, host_address, address, ports } = match entry {
            Entry::One(element) => {
                elements.push(element);
                continue;
            }
            Entry::Many { port_list } => port_list,
        };
        for (host_port, port, count) in ports {
            let beyond = || serde::de::Error::custom("a range of ports goes beyond 65535");
            for nth in 0..count {
                let host_port = host_port.checked_add(nth).ok_or_else(beyond)?;
                let port = port.checked_add(nth).ok_or_else(beyond)?;
                elements.push(Element::Port { protocol, host_address, host_port, address, port });
            }
        }
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::undo::Residue;

    fn port(host_port: u16, port: u16, address: [u8; 4]) -> Element {
        let host_address = IpAddr::from([0, 0, 0, 0]);
        Element::Port { protocol: Protocol::Tcp, host_address, host_port, address: address.into(), port }
    }

    fn written(elements: Vec<Element>) -> (Residue, String) {
        let residue = Residue::NftElements { family: "ip".into(), table: "minidock".into(), elements };
        let text = serde_json::to_string(&residue).unwrap();
        (residue, text)
    }

    #[test]
    fn separate_ports_are_small_and_come_back_in_order() {
        let bridge = Element::Bridge { name: "docker0".into() };
        let mut all = vec![bridge.clone(), port(5, 5, [10, 0, 0, 9])];
        all.extend((1..=32_767).map(|nth| port(2 * nth, 80, [10, 0, 0, 1])));
        all.extend((1..=200).map(|nth| port(nth, nth + 1000, [10, 0, 0, 2])));
        all.push(bridge);
        all.extend([port(65_535, 1, [10, 0, 0, 2]), port(7, 65_535, [10, 0, 0, 2])]);
        let (residue, text) = written(all);
        assert!(text.len() < 450_000, "{}", text.len());
        assert_eq!(serde_json::from_str::<Residue>(&text).unwrap(), residue);
    }

    #[test]
    fn few_ports_look_as_they_always_did_and_nonsense_is_an_error() {
        let (residue, text) = written((1..15).map(|nth| port(nth, 80, [10, 0, 0, 1])).collect());
        assert!(!text.contains("port_list"), "{text}");
        assert_eq!(serde_json::from_str::<Residue>(&text).unwrap(), residue);
        let (_, text) = written((1..60).map(|nth| port(nth, nth, [10, 0, 0, 1])).collect());
        assert!(text.contains("[1,1,59]"), "{text}");
        assert!(serde_json::from_str::<Residue>(&text.replace("[1,1,59]", "[65000,1,600]")).is_err());
    }
}
