//! The networks that a container is to join: each wish of the request with the network that it means and what of that is
//! on the host, in the order of the container's cards.

use std::net::IpAddr;

use anyhow::{Result, anyhow, bail};
use netsetup::{GatewayMode, Host, Network};

use super::catalog;
use super::definition::Definition;
use super::options::{self, Driver};
use crate::commands::Engine;
use crate::facts;
use crate::host_netns;
use crate::request::RunRequest;
use crate::request::attach::{self, Attach};

/// A network that the container joins.
#[derive(Debug, Clone)]
pub struct Joining {
    /// The network as it is (or will be) on this host.
    pub network: Network,
    /// What is there of it.
    pub facts: netsetup::Facts,
    /// What the user wants of it; its name is the network's.
    pub wish: Attach,
    /// Where ports are published that name no address.
    pub host_binding: Option<IpAddr>,
    /// What the links in the container are called: `eth`.
    pub link_prefix: String,
}

impl Joining {
    /// Where the default route of one IP version can lead.
    pub fn gateway(&self, ipv4: bool) -> Option<IpAddr> {
        let subnet = if ipv4 { self.network.ipv4.as_ref() } else { self.network.ipv6.as_ref() };
        // An isolated network is internal, unless the gateway's address was left to a router (inhibit_ipv4).
        subnet.filter(|_| !self.network.internal).map(|subnet| subnet.gateway)
    }

    /// Whether host ports can lead into it.
    pub fn publishes(&self) -> bool {
        !self.network.internal
            && self.network.driver == netsetup::Driver::Bridge
            && self.network.gateway_mode_ipv4 != GatewayMode::Isolated
    }
}

/// Puts the names of networks in the place of ids, and warns of what they won't do. The default network costs nothing.
///
/// # Errors
/// A network isn't there.
pub fn settle_names(engine: &Engine, request: &mut RunRequest) -> Result<()> {
    let publishes = !request.network.publish.is_empty() || request.network.publish_all;
    let mut leads_in = false;
    for wish in &mut request.network.attach {
        if wish.is_default() {
            leads_in = true;
            continue;
        }
        let definition = catalog::find(engine, &wish.network)?;
        check(&definition, wish)?;
        // A bridge that leaves the gateway's address to a router (inhibit_ipv4) has no way in by this host.
        leads_in |= publishes
            && definition.driver == Driver::Bridge
            && !definition.internal
            && catalog::for_the_kernel(engine, &definition)?.gateway_mode_ipv4 != GatewayMode::Isolated;
        wish.network = definition.name;
    }
    if publishes && !leads_in && !request.network.attach.is_empty() {
        request.warnings.push(
            "Published ports lead nowhere: the container is only in networks that nothing from outside leads into; they \
             come with the first other one that it's connected to"
                .to_owned(),
        );
    }
    Ok(())
}

/// Reads what is there of the networks. The default network alone costs no file.
///
/// # Errors
/// A network isn't there, or can't be joined as wished.
pub fn read(engine: &Engine, wishes: &[Attach], host: &mut Host) -> Result<Vec<Joining>> {
    let default = [Attach::to(attach::DEFAULT)];
    let wishes = if wishes.is_empty() { &default[..] } else { wishes };
    let mut joinings: Vec<Joining> = Vec::with_capacity(wishes.len());
    for wish in wishes {
        let joining = read_one(engine, wish, host)?;
        if joinings.iter().any(|other| other.network.name == joining.network.name) {
            bail!("network {:?} is specified multiple times", joining.network.name);
        }
        joinings.push(joining);
    }
    // Stable: the order of the flags, unless a priority says otherwise.
    joinings.sort_by_key(|joining| std::cmp::Reverse(joining.wish.gateway_priority));
    Ok(joinings)
}

/// One of them.
///
/// # Errors
/// As [`read`].
pub fn read_one(engine: &Engine, wish: &Attach, host: &mut Host) -> Result<Joining> {
    if wish.is_default() {
        let mut wanted = facts::default_network(engine, host_netns::is_machines_own());
        if engine.config.mtu.is_none() {
            wanted.mtu = netsetup::egress_mtu(host);
        }
        let facts = netsetup::Facts::read(host, &wanted)?;
        return Ok(Joining {
            network: facts.adopt(&wanted),
            facts,
            wish: wish.clone(),
            host_binding: None,
            link_prefix: "eth".to_owned(),
        });
    }
    let definition = catalog::find(engine, &wish.network)?;
    if matches!(definition.driver, Driver::Host | Driver::Null) {
        bail!(
            "a container can't be in network {} beside others; run it with --network {} alone",
            definition.name,
            definition.name
        );
    }
    check(&definition, wish)?;
    let mut wanted = catalog::for_the_kernel(engine, &definition)?;
    let own_mtu = wanted.mtu != 0;
    if !own_mtu {
        wanted.mtu = netsetup::egress_mtu(host);
    }
    let facts = netsetup::Facts::read(host, &wanted)?;
    wanted.no_firewall = facts.firewall.is_absent();
    let (host_binding, link_prefix) = match definition.driver {
        Driver::Bridge => {
            let options = options::bridge(&definition.options).map_err(|why| anyhow!(why))?;
            (options.host_binding, options.link_prefix)
        }
        _ => (None, None),
    };
    // A bridge that is there keeps its MTU; its addresses are the definition's, or it is refused. Cards on a parent can't
    // have a larger one than that.
    match (&facts.bridge, &wanted.driver) {
        (Some(bridge), netsetup::Driver::Bridge) if bridge.kind == "bridge" => wanted.mtu = bridge.mtu,
        (Some(parent), netsetup::Driver::Macvlan { .. } | netsetup::Driver::Ipvlan { .. }) => {
            wanted.mtu = if own_mtu { wanted.mtu.min(parent.mtu) } else { parent.mtu };
        }
        _ => {}
    }
    Ok(Joining {
        network: wanted,
        facts,
        wish: Attach { network: definition.name, ..wish.clone() },
        host_binding,
        link_prefix: link_prefix.unwrap_or_else(|| "eth".to_owned()),
    })
}

/// docker's rules about wished addresses, in its words.
pub fn check(definition: &Definition, wish: &Attach) -> Result<()> {
    let wished = [wish.ipv4.map(IpAddr::from), wish.ipv6.map(IpAddr::from)];
    for address in wished.into_iter().flatten() {
        let Some(pool) = definition.pool(address.is_ipv4()) else {
            bail!(
                "invalid endpoint settings: network {} gives no {} addresses, so it can't give {address}",
                definition.name,
                if address.is_ipv4() { "IPv4" } else { "IPv6" }
            );
        };
        if !pool.configured {
            bail!(
                "invalid config for network {}: invalid endpoint settings: user specified IP address is supported only \
                 when connecting to networks with user configured subnets; create it with --subnet {}",
                definition.name,
                pool.subnet
            );
        }
        if !pool.subnet.contains(address) {
            bail!(
                "invalid config for network {}: invalid endpoint settings: no configured subnet or ip-range contain the \
                 IP address {address}: its subnet is {}",
                definition.name,
                pool.subnet
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::network::definition::Pool;

    #[test]
    fn wished_addresses_need_a_subnet_of_the_user_s() {
        let pool = |text: &str, configured| Pool {
            subnet: text.parse().unwrap(),
            range: None,
            gateway: None,
            auxiliary: BTreeMap::new(),
            configured,
        };
        let mut definition: Definition = serde_json::from_str(
            r#"{"version":1,"id":"","name":"lan","created":"","driver":"bridge","ipv4":true,"ipv6":false,"internal":false,
                "attachable":false,"pools":[],"options":{},"labels":{}}"#,
        )
        .unwrap();
        definition.pools = vec![pool("10.5.0.0/24", true)];
        let wish = |text: &str| Attach::parse(&format!("lan,{text}")).unwrap();
        assert!(check(&definition, &wish("ip=10.5.0.9")).is_ok());
        let why = |text: &str, definition: &Definition| check(definition, &wish(text)).unwrap_err().to_string();
        assert!(why("ip=10.6.0.9", &definition).contains("no configured subnet or ip-range contain"));
        assert!(why("ip6=fd00::9", &definition).contains("gives no IPv6 addresses"));
        definition.pools = vec![pool("10.5.0.0/24", false)];
        assert!(why("ip=10.5.0.9", &definition).contains("user configured subnets"));
    }
}
