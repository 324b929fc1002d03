//! `network create`: chooses what the user left open, keeps the definition, and makes the bridge.
//!
//! The definition comes first: a network whose making was cut off is one that isn't on the host yet, and is made when it
//! is first used.

use std::fs::File;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use netsetup::Host;
use rustix::fs::{FlockOperation, flock};

use super::definition::{self, Definition, FORMAT, Pool};
use super::options::Driver;
use super::pools::{self, Taken};
use super::subnet::Subnet;
use super::{catalog, lock_file};
use crate::commands::Engine;
use crate::names;
use crate::request::network_create::NewNetwork;

/// Makes the network.
///
/// # Errors
/// The name or a subnet is another's, or the host can't have it. Nothing is left then.
pub fn create(engine: &Engine, wanted: NewNetwork) -> Result<Definition> {
    let roots = &engine.roots;
    let _definitions = lock_file(&definition::lock_path(roots)?)?;
    definition::sweep(roots);
    if definition::read(roots, &wanted.name)?.is_some() {
        bail!("{}", definition::already_exists(&wanted.name));
    }
    // Other roots choose subnets of the same host.
    let _host = lock_namespace()?;
    let mut host = Host::open()?;
    let mut definition = Definition {
        version: FORMAT,
        id: names::new_id(),
        name: wanted.name,
        created: crate::log::now(),
        driver: wanted.driver,
        ipv4: wanted.ipv4,
        ipv6: wanted.ipv6,
        internal: wanted.internal,
        attachable: wanted.attachable,
        pools: wanted.pools,
        options: wanted.options,
        labels: wanted.labels,
        other: serde_json::Map::new(),
    };
    let others = catalog::all(engine);
    check_link(&definition, &others)?;
    let taken = taken(&definition, &others, &mut host)?;
    choose_pools(&mut definition, engine.config.subnet_pools.as_deref(), &taken)?;
    definition::write_new(roots, &definition)?;
    match super::ensure_defined(engine, &definition, &mut host) {
        Ok(obstacles) => {
            for obstacle in obstacles {
                eprintln!("WARNING: {obstacle}");
            }
            Ok(definition)
        }
        Err(error) => {
            let undone = super::remove::forget(roots, &definition.name);
            definition::remove(roots, &definition.name)?;
            undone?;
            Err(error)
        }
    }
}

/// Held while a subnet is chosen and its bridge made: by the network namespace itself, which all roots have in common.
fn lock_namespace() -> Result<File> {
    let path = "/proc/self/ns/net";
    let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {path}"))?;
    Ok(file)
}

/// Two networks can't have one bridge, nor two of macvlan one parent.
fn check_link(definition: &Definition, others: &[Definition]) -> Result<()> {
    let link = catalog::link_of(definition)?;
    let same = |other: &&Definition| catalog::link_of(other).is_ok_and(|other| other == link);
    let Some(other) = others.iter().find(same) else { return Ok(()) };
    match definition.driver {
        Driver::Bridge => bail!(
            "cannot create network {} ({link}): conflicts with network {} ({}): networks have same bridge name; choose \
             another com.docker.network.bridge.name",
            definition.name,
            other.name,
            &other.id[..12]
        ),
        _ if definition.driver == other.driver => {
            bail!("network {} is already using parent interface {link}; connect to that one", other.name)
        }
        _ => bail!("network {} already uses the link {link}", other.name),
    }
}

/// Who has which addresses: other networks, and what the host has a route to.
fn taken(definition: &Definition, others: &[Definition], host: &mut Host) -> Result<Vec<Taken>> {
    let of_networks = others.iter().flat_map(|other| {
        other
            .pools
            .iter()
            .map(|pool| Taken { subnet: pool.subnet, by: format!("the network {} ({})", other.name, pool.subnet) })
    });
    let mut taken: Vec<Taken> = of_networks.collect();
    // The subnet of macvlan and ipvlan is that of the parent's segment, to which the host has a route of course.
    if definition.driver == Driver::Bridge {
        let link = catalog::link_of(definition)?;
        for known in netsetup::routes::known(host)?.into_iter().filter(|known| known.link != link) {
            let subnet = Subnet::around(known.address, known.prefix_len);
            if !pools::is_default_route(&subnet) {
                taken.push(Taken { subnet, by: known.describe() });
            }
        }
    }
    Ok(taken)
}

/// Fills in what the user left open: the subnets and gateways.
fn choose_pools(definition: &mut Definition, configured: Option<&[(Subnet, u8)]>, taken: &[Taken]) -> Result<()> {
    for pool in &definition.pools {
        if let Some(other) = pools::clash(&pool.subnet, taken) {
            bail!(
                "invalid pool request: Pool overlaps with other one on this address space: {} is partly or wholly that \
                 of {}; choose another --subnet",
                pool.subnet,
                other.by
            );
        }
    }
    if definition.ipv4 && definition.pool(true).is_none() {
        let Some(subnet) = pools::free_ipv4(configured, taken) else {
            bail!(
                "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the \
                 network: this host has routes to all private networks (see 'ip route show table all'); give one with \
                 --subnet"
            );
        };
        definition.pools.insert(0, chosen(subnet));
    }
    if definition.ipv6 && definition.pool(false).is_none() {
        // RFC 4193 3.2: 40 random bits; those of the id are.
        let site = u64::from_str_radix(definition.id.get(..10).unwrap_or("0"), 16).unwrap_or(0);
        let Some(subnet) = pools::free_ipv6(site, taken) else {
            bail!("this host has routes to all unique-local IPv6 addresses (fc00::/7); give a subnet with --subnet");
        };
        definition.pools.push(chosen(subnet));
    }
    for pool in &mut definition.pools {
        if pool.gateway.is_none() {
            pool.gateway = Some(gateway(pool));
        }
    }
    Ok(())
}

fn chosen(subnet: Subnet) -> Pool {
    Pool { subnet, range: None, gateway: None, auxiliary: Default::default(), configured: false }
}

/// The first address that isn't kept for another use.
fn gateway(pool: &Pool) -> IpAddr {
    let kept = |address: &IpAddr| pool.auxiliary.values().any(|kept| kept == address);
    let candidates = (1..=pool.auxiliary.len() as u128 + 1).map(|step| pool.subnet.nth(step));
    candidates.into_iter().find(|address| !kept(address)).unwrap_or(pool.subnet.first)
}
