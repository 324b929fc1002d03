//! The definitions of networks: one JSON file each in the root's `networks` folder, kept over a reboot. What of a network
//! is on the host is another matter, told by its journal in the run folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use super::options::Driver;
use super::subnet::Subnet;
use crate::files;
use crate::roots::Roots;

/// The format that this program writes.
pub const FORMAT: u32 = 1;
/// A definition is a few hundred bytes, its labels perhaps some thousand.
const MAX_BYTES: u64 = 1 << 20;

/// A network as it was asked for, with what was chosen for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// Format version.
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name.
    pub name: String,
    /// RFC 3339; empty for the networks that are always there.
    pub created: String,
    /// What it is made of.
    pub driver: Driver,
    /// Whether containers get IPv4 addresses.
    pub ipv4: bool,
    /// Whether containers get IPv6 addresses.
    pub ipv6: bool,
    /// No way out.
    pub internal: bool,
    /// docker's word for networks that anybody may join; kept for `inspect`.
    pub attachable: bool,
    /// Its subnets: one for each IP version.
    pub pools: Vec<Pool>,
    /// The driver's options, as typed.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Fields of other versions.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The subnet.
    pub subnet: Subnet,
    /// `--ip-range`: containers get addresses from here only.
    pub range: Option<Subnet>,
    /// The containers' gateway; of a bridge, its own address.
    pub gateway: Option<IpAddr>,
    /// `--aux-address`: addresses that no container gets.
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// The user named the subnet, so that addresses in it can be asked for.
    pub configured: bool,
}

impl Definition {
    /// The subnet of one IP version.
    pub fn pool(&self, ipv4: bool) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.subnet.is_ipv4() == ipv4)
    }
}

fn folder(roots: &Roots) -> PathBuf {
    roots.root.join("networks")
}

fn path(roots: &Roots, name: &str) -> PathBuf {
    folder(roots).join(format!("{name}.json"))
}

/// All networks that were created, by name.
pub fn all(roots: &Roots) -> Vec<Definition> {
    let entries = fs::read_dir(folder(roots)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".json").filter(|name| valid_name(name)).map(str::to_owned)
    });
    let mut all: Vec<Definition> = names.filter_map(|name| read(roots, &name).ok().flatten()).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// The network of this very name; `None`: there is none.
pub fn read(roots: &Roots, name: &str) -> Result<Option<Definition>> {
    if !valid_name(name) {
        return Ok(None);
    }
    let path = path(roots, name);
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let definition: Definition = serde_json::from_reader(io::Read::take(file, MAX_BYTES))
        .with_context(|| format!("the network's definition {} is damaged", path.display()))?;
    if definition.version > FORMAT {
        bail!("the network {name} was made by a newer minidock (format {})", definition.version);
    }
    Ok(Some(definition))
}

/// Keeps a new network; fails when one of the name is there.
pub fn write_new(roots: &Roots, definition: &Definition) -> Result<()> {
    let path = path(roots, &definition.name);
    files::ensure_folder(&folder(roots))?;
    let unborn = folder(roots).join(format!(".{}", definition.id));
    files::replace(&unborn, &serde_json::to_vec(definition)?)?;
    let born = renameat_with(CWD, &unborn, CWD, &path, RenameFlags::NOREPLACE);
    if let Err(error) = born {
        let _ = fs::remove_file(&unborn);
        if error == rustix::io::Errno::EXIST {
            bail!("{}", already_exists(&definition.name));
        }
        return Err(error).with_context(|| format!("cannot keep the network {}", path.display()));
    }
    Ok(())
}

/// docker's words.
pub fn already_exists(name: &str) -> String {
    format!("network with name {name} already exists")
}

/// Forgets a network.
pub fn remove(roots: &Roots, name: &str) -> Result<()> {
    let path = path(roots, name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Sweeps what a killed `network create` has begun. The caller holds the lock that keeps other creates away.
pub fn sweep(roots: &Roots) {
    for entry in fs::read_dir(folder(roots)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') && name != LOCK {
            let _ = fs::remove_file(entry.path());
        }
    }
}

const LOCK: &str = ".lock";

/// The lock of everything that makes or removes definitions.
pub fn lock_path(roots: &Roots) -> Result<PathBuf> {
    files::ensure_folder(&folder(roots))?;
    Ok(folder(roots).join(LOCK))
}

/// A network's name is a file's name too, and a part of messages and comments.
pub fn valid_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    name.len() <= 128
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(letter)
}

/// The one that a user means among `all`: by name, id, or the beginning of just one id.
pub fn choose(all: Vec<Definition>, wanted: &str) -> Result<Definition> {
    if let Some(at) = all.iter().position(|one| one.name == wanted || one.id == wanted) {
        return all.into_iter().nth(at).ok_or_else(|| anyhow!("network {wanted} not found"));
    }
    let digits = !wanted.is_empty() && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    let fitting: Vec<usize> =
        all.iter().enumerate().filter(|(_, one)| digits && one.id.starts_with(wanted)).map(|(at, _)| at).collect();
    match fitting.as_slice() {
        [at] => all.into_iter().nth(*at).ok_or_else(|| anyhow!("network {wanted} not found")),
        [] => bail!("network {} not found{}", crate::cli::bounded(wanted, 128), near_miss(&all, wanted)),
        several => bail!("network {wanted} is ambiguous ({} matches found on ID prefix)", several.len()),
    }
}

fn near_miss(all: &[Definition], wanted: &str) -> String {
    // Nobody who has mistyped a network's name wants to do without any.
    let real = all.iter().filter(|one| !matches!(one.driver, Driver::Null | Driver::Host));
    let best = real.map(|one| (crate::near::distance(wanted, &one.name), one.name.as_str())).min();
    match best {
        Some((distance, name)) if distance <= 2 && distance < name.len() => format!(" (did you mean {name}?)"),
        _ if valid_name(wanted) && wanted.len() <= 64 => {
            let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).take(8).collect();
            let more = if all.len() > names.len() { ", …" } else { "" };
            format!("; there are {}{more}; make it with: minidock network create {wanted}", names.join(", "))
        }
        _ => String::new(),
    }
}

/// An id that is the same for the same root and name: of the networks that are always there and have no file.
pub fn fixed_id(root: &Path, name: &str) -> String {
    derived_id(root.as_os_str().as_encoded_bytes(), name)
}

/// The id of a container's place in a network.
pub fn endpoint_id(container: &str, network: &str) -> String {
    derived_id(container.as_bytes(), network)
}

fn derived_id(first: &[u8], second: &str) -> String {
    let mut id = String::new();
    for round in 0..4_u64 {
        // FNV-1a, 64 bits, from four starting points: no secret, only a name that nothing else has.
        let bytes = first.iter().chain(b"\0").chain(second.as_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325 ^ (round.wrapping_mul(0x9e37_79b9_7f4a_7c15)), |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        id += &format!("{hash:016x}");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str, id: &str) -> Definition {
        Definition {
            version: FORMAT,
            id: id.into(),
            name: name.into(),
            created: String::new(),
            driver: Driver::Bridge,
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

    #[test]
    fn a_network_is_found_by_name_id_and_beginning() {
        let all = vec![network("lan", "aa11"), network("aa", "ab22"), network("wan", "cc33")];
        let find = |word: &str| choose(all.clone(), word).map(|one| one.name).map_err(|error| error.to_string());
        assert_eq!(find("lan").as_deref(), Ok("lan"));
        assert_eq!(find("ab22").as_deref(), Ok("aa"));
        assert_eq!(find("c").as_deref(), Ok("wan"));
        assert_eq!(find("aa").as_deref(), Ok("aa"), "a name wins over an id's beginning");
        assert_eq!(find("a").unwrap_err(), "network a is ambiguous (2 matches found on ID prefix)");
        assert_eq!(find("lam").unwrap_err(), "network lam not found (did you mean lan?)");
        assert_eq!(
            find("nothing").unwrap_err(),
            "network nothing not found; there are lan, aa, wan; make it with: minidock network create nothing"
        );
        assert_eq!(find("").unwrap_err(), "network  not found");
    }

    #[test]
    fn names_are_file_names() {
        for name in ["a", "lan", "my_net-1.2", &"x".repeat(128)] {
            assert!(valid_name(name), "{name}");
        }
        for name in ["", ".mounts", "-a", "a/b", "..", "a b", "ä", "a\n", &"x".repeat(129)] {
            assert!(!valid_name(name), "{name}");
        }
    }

    #[test]
    fn fixed_ids_are_stable_and_differ() {
        let id = fixed_id(Path::new("/var/lib/minidock"), "bridge");
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(id, fixed_id(Path::new("/var/lib/minidock"), "bridge"));
        assert_ne!(id, fixed_id(Path::new("/var/lib/minidock"), "host"));
        assert_ne!(id, fixed_id(Path::new("/x"), "bridge"));
    }

    /// Every later version must read what the first one has written.
    #[test]
    fn a_definition_of_the_first_version_is_read() {
        let text = r#"{"version":1,"id":"ab","name":"lan","created":"2026-01-01T00:00:00Z","driver":"bridge","ipv4":true,
            "ipv6":false,"internal":false,"attachable":false,"pools":[{"subnet":"10.5.0.0/24","range":"10.5.0.128/25",
            "gateway":"10.5.0.1","auxiliary":{"a":"10.5.0.2"},"configured":true}],"options":{},"labels":{},"new":1}"#;
        let read: Definition = serde_json::from_str(text).unwrap();
        assert_eq!(read.pool(true).unwrap().range.unwrap().to_string(), "10.5.0.128/25");
        assert!(serde_json::to_string(&read).unwrap().ends_with("\"new\":1}"), "fields of later versions are kept");
    }
}
