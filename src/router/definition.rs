//! What a router is, on disk: written when all of it stands, read by every command about it.

use std::io;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use netsetup::Backend;
use netsetup::router::Switch;
use serde::{Deserialize, Serialize};

use super::{folder, folder_of_all};
use crate::files;
use crate::roots::Roots;

/// The format that this program writes.
pub const FORMAT: u32 = 1;

/// The definition of a router that stands.
pub const STANDING: &str = "router.json";
/// That of one whose boot is over, until it is made again.
pub const ASLEEP: &str = "asleep.json";

/// One leg.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Side {
    /// The minidock network; empty for the outside.
    pub network: String,
    /// The bridge.
    pub bridge: String,
    /// The leg's name in the router.
    pub link: String,
    /// The other end's name on the host.
    pub host_link: String,
    /// MAC of the leg.
    pub mac: [u8; 6],
    /// Its address.
    pub address: Ipv4Addr,
    /// The subnet's length in bits.
    pub prefix_len: u8,
    /// In bytes.
    pub mtu: u32,
}

/// A router.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Definition {
    /// Format version.
    pub version: u32,
    /// Its name, in `ip netns` too.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// Which firewall holds its rules.
    pub backend: Backend,
    /// The leg in a minidock network.
    pub inside: Side,
    /// The leg in an outside bridge.
    pub outside: Side,
    /// What carries the outside bridge.
    pub switch: Switch,
    /// The next hop of its default route.
    pub gateway: Ipv4Addr,
    /// Where the network's containers send what leaves the subnet, unless told otherwise.
    pub network_gateway: Ipv4Addr,
    /// Fields of other versions.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// A one-to-one address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Floating {
    /// Format version.
    pub version: u32,
    /// The address outside.
    pub outside: Ipv4Addr,
    /// The container's address.
    pub inside: Ipv4Addr,
    /// The container's id.
    pub container: String,
    /// The container's name.
    pub name: String,
}

impl Definition {
    /// Writes it: from now on the router stands.
    pub fn write(&self, roots: &Roots) -> Result<()> {
        files::replace(&folder(roots, &self.name).join(STANDING), &serde_json::to_vec_pretty(self)?)
    }

    /// Its one-to-one addresses, in order.
    pub fn floating(&self, roots: &Roots) -> Vec<Floating> {
        let entries = std::fs::read_dir(folder(roots, &self.name).join("floating")).into_iter().flatten().flatten();
        let read = |path: std::path::PathBuf| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
        let mut all: Vec<Floating> = entries.filter_map(|entry| read(entry.path().join("floating.json"))).collect();
        all.sort_by_key(|one| one.outside);
        all
    }
}

/// The router of this name that stands.
pub fn find(roots: &Roots, name: &str) -> Result<Definition> {
    match read(roots, name, STANDING)? {
        Some(router) => Ok(router),
        None if read(roots, name, ASLEEP)?.is_some() => {
            bail!("router {name} was not made again since the machine has been started: minidock router ls says why")
        }
        None => bail!("No such router: {name}; minidock router ls lists them"),
    }
}

/// A definition of either kind.
pub fn read(roots: &Roots, name: &str, file: &str) -> Result<Option<Definition>> {
    let path = folder(roots, name).join(file);
    let plain = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    let bytes = match plain.then(|| std::fs::read(&path)) {
        Some(Ok(bytes)) => bytes,
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
        _ => return Ok(None),
    };
    let router: Definition =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))?;
    if router.version > FORMAT {
        bail!("the router {name} was made by a newer minidock (format {})", router.version);
    }
    Ok(Some(router))
}

/// All routers that stand, by name.
pub fn all(roots: &Roots) -> Vec<Definition> {
    all_with(roots, STANDING)
}

/// All that wait for being made again.
pub fn asleep(roots: &Roots) -> Vec<Definition> {
    all_with(roots, ASLEEP)
}

fn all_with(roots: &Roots, file: &str) -> Vec<Definition> {
    let entries = std::fs::read_dir(folder_of_all(roots)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut routers: Vec<Definition> = names.filter_map(|name| read(roots, &name, file).ok().flatten()).collect();
    routers.sort_by(|a, b| a.name.cmp(&b.name));
    routers
}
