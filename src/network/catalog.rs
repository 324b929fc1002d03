//! All networks of a root: those that were created, and `bridge`, `host` and `none`, which are always there. And what
//! each is for the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, anyhow, bail};
use netsetup::{GatewayMode, IpvlanMode, MacvlanMode, Network};

use super::definition::{self, Definition, FORMAT, Pool};
use super::options::{self, Driver, Gateway, Mode};
use super::subnet::Subnet;
use crate::commands::Engine;
use crate::facts::{self, DEFAULT_NETWORK};
use crate::host_netns;

/// Every network, in the order of their names.
pub fn all(engine: &Engine) -> Vec<Definition> {
    let mut all = definition::all(&engine.roots);
    all.extend([default(engine), fixed(engine, "host", Driver::Host), fixed(engine, "none", Driver::Null)]);
    all.sort_by_key(|one| natural(&one.name));
    all
}

/// The one that a user means: by name, id, or the beginning of an id.
///
/// # Errors
/// docker's words, with a near miss.
pub fn find(engine: &Engine, wanted: &str) -> Result<Definition> {
    if wanted == DEFAULT_NETWORK || wanted == "default" {
        return Ok(default(engine));
    }
    match definition::read(&engine.roots, wanted)? {
        Some(definition) => Ok(definition),
        None => definition::choose(all(engine), wanted),
    }
}

fn fixed(engine: &Engine, name: &str, driver: Driver) -> Definition {
    Definition {
        version: FORMAT,
        id: definition::fixed_id(&engine.roots.root, name),
        name: name.to_owned(),
        created: String::new(),
        driver,
        ipv4: true,
        ipv6: false,
        internal: false,
        attachable: false,
        pools: vec![],
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        other: serde_json::Map::new(),
    }
}

/// The default network, as it is made where nothing is there of it yet.
fn default(engine: &Engine) -> Definition {
    let network = facts::default_network(engine, host_netns::is_machines_own());
    let pools = network.subnets().map(|subnet| Pool {
        subnet: Subnet::around(subnet.gateway, subnet.prefix_len),
        range: None,
        gateway: Some(subnet.gateway),
        auxiliary: BTreeMap::new(),
        configured: false,
    });
    let option = |key: &str, value: &str| (format!("com.docker.network.{key}"), value.to_owned());
    Definition {
        pools: pools.collect(),
        ipv6: network.ipv6.is_some(),
        options: BTreeMap::from([
            option("bridge.default_bridge", "true"),
            option("bridge.enable_icc", "true"),
            option("bridge.enable_ip_masquerade", "true"),
            option("bridge.host_binding_ipv4", "0.0.0.0"),
            option("bridge.name", &network.bridge),
            option("driver.mtu", &network.mtu.to_string()),
        ]),
        ..fixed(engine, DEFAULT_NETWORK, Driver::Bridge)
    }
}

/// `net2` before `net10`, as docker sorts: runs of digits count as numbers.
fn natural(name: &str) -> Vec<(bool, u128, String)> {
    let mut parts: Vec<(bool, u128, String)> = Vec::new();
    for letter in name.chars() {
        let digit = letter.is_ascii_digit();
        match parts.last_mut() {
            Some((numeric, _, text)) if *numeric == digit => text.push(letter),
            // Digits come before letters, as in ASCII.
            _ => parts.push((digit, 0, letter.to_string())),
        }
    }
    parts
        .into_iter()
        .map(|(numeric, _, text)| match numeric {
            true => (false, text.parse().unwrap_or(u128::MAX), text),
            false => (true, 0, text),
        })
        .collect()
}

/// The name of a network's link on the host: its bridge, or the parent of its containers' links.
pub fn link_of(definition: &Definition) -> Result<String> {
    let digits = definition.id.get(..12).unwrap_or(&definition.id);
    match definition.driver {
        Driver::Bridge => {
            let options = options::bridge(&definition.options).map_err(|why| broken(definition, &why))?;
            Ok(options.name.unwrap_or_else(|| format!("br-{digits}")))
        }
        Driver::Macvlan | Driver::Ipvlan => {
            let options =
                options::parent(definition.driver, &definition.options).map_err(|why| broken(definition, &why))?;
            let own = if definition.driver == Driver::Macvlan { "dm" } else { "di" };
            Ok(options.parent.unwrap_or_else(|| format!("{own}-{digits}")))
        }
        Driver::Host | Driver::Null => bail!("the network {} has no link", definition.name),
    }
}

/// What a network is for the kernel. The MTU is the option's; 0 where it was left open.
pub fn for_the_kernel(engine: &Engine, definition: &Definition) -> Result<Network> {
    let wrong = |why: String| broken(definition, &why);
    let mut network = facts::default_network(engine, host_netns::is_machines_own());
    if definition.name == DEFAULT_NETWORK {
        network.id = definition.id.clone();
        return Ok(network);
    }
    let (table, backend) = (network.table, network.backend);
    network = Network { table, backend, ..Network::new(&definition.name, &link_of(definition)?) };
    network.id = definition.id.clone();
    network.internal = definition.internal;
    network.ipv4 = definition.pool(true).map(|pool| subnet(definition, pool)).transpose()?;
    network.ipv6 = definition.pool(false).map(|pool| subnet(definition, pool)).transpose()?;
    network.mtu = 0;
    match definition.driver {
        Driver::Bridge => {
            let options = options::bridge(&definition.options).map_err(wrong)?;
            network.icc = options.icc;
            network.masquerade = options.masquerade;
            network.gateway_mode_ipv4 = match options.inhibit_ipv4 {
                true => GatewayMode::Isolated, // the host has no address there; containers have their gateway
                false => gateway_mode(options.gateway_ipv4),
            };
            network.gateway_mode_ipv6 = gateway_mode(options.gateway_ipv6);
            network.mtu = options.mtu.unwrap_or(0);
        }
        Driver::Macvlan => {
            let options = options::parent(definition.driver, &definition.options).map_err(wrong)?;
            let mode = match options.mode {
                Mode::Private => MacvlanMode::Private,
                Mode::Vepa => MacvlanMode::Vepa,
                Mode::Passthru => MacvlanMode::Passthru,
                _ => MacvlanMode::Bridge,
            };
            network.internal |= options.parent.is_none();
            network.driver = netsetup::Driver::Macvlan { parent: network.bridge.clone(), mode };
            network.mtu = options.mtu.unwrap_or(0);
        }
        Driver::Ipvlan => {
            let options = options::parent(definition.driver, &definition.options).map_err(wrong)?;
            let mode = match options.mode {
                Mode::L3 => IpvlanMode::L3,
                Mode::L3s => IpvlanMode::L3s,
                _ => IpvlanMode::L2,
            };
            let flag = match options.flag {
                Mode::Private => MacvlanMode::Private,
                Mode::Vepa => MacvlanMode::Vepa,
                _ => MacvlanMode::Bridge,
            };
            network.internal |= options.parent.is_none();
            network.driver = netsetup::Driver::Ipvlan { parent: network.bridge.clone(), mode, flag };
            network.mtu = options.mtu.unwrap_or(0);
        }
        Driver::Host | Driver::Null => bail!("the network {} has nothing on the host", definition.name),
    }
    Ok(network)
}

fn gateway_mode(gateway: Gateway) -> GatewayMode {
    match gateway {
        Gateway::Nat => GatewayMode::Nat,
        Gateway::Routed => GatewayMode::Routed,
        Gateway::Isolated => GatewayMode::Isolated,
    }
}

fn subnet(definition: &Definition, pool: &Pool) -> Result<netsetup::Subnet> {
    let gateway: IpAddr = pool
        .gateway
        .ok_or_else(|| anyhow!("has no gateway in {}", pool.subnet))
        .with_context(|| format!("the definition of network {}", definition.name))?;
    let mut subnet = netsetup::Subnet::new(gateway, pool.subnet.prefix_len);
    subnet.range = pool.range.map(|range| (range.first, range.prefix_len));
    subnet.reserved = pool.auxiliary.values().copied().collect();
    Ok(subnet)
}

fn broken(definition: &Definition, why: &str) -> anyhow::Error {
    anyhow!("the definition of network {} can't be used: {why}", definition.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_as_people_count() {
        let mut names = ["net10", "net2", "bridge", "net", "2net", "net2b"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["2net", "bridge", "net", "net2", "net2b", "net10"]);
    }
}
