//! Leases of addresses: one name in a folder per address, made exclusively, so that no address is given twice even when
//! fifty starts ask at the same moment.
//!
//! A lease is a symbolic link `172.17.0.2 -> OWNER`: it comes into being in one system call, with its owner, or not at
//! all, and `ls -l` shows who has what. Addresses go round, so that one just given back isn't used again at once.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use crate::undo::Undone;
use crate::{Error, Network, Result};

/// The address given last: a hint where to go on, never needed.
const CURSOR: &str = ".last";
/// Longer than every address, so that each writer overwrites all of the one before.
const CURSOR_WIDTH: usize = 16;

/// Takes an address for the owner: the wanted one, or the next that is free. `in_use` are addresses that others have
/// without a lease of ours. Makes the folder when it isn't there.
///
/// # Errors
/// [`Error::AddressTaken`] for a wanted address that can't be had, [`Error::NoAddress`] when none is free.
pub fn take(
    dir: &Path,
    owner: &str,
    network: &Network,
    in_use: &BTreeSet<Ipv4Addr>,
    wanted: Option<Ipv4Addr>,
) -> Result<Ipv4Addr> {
    if let Some(address) = wanted {
        return take_wanted(dir, owner, network, in_use, address);
    }
    for address in candidates(dir, network, in_use) {
        if claim(dir, owner, address)? {
            return Ok(address);
        }
    }
    let (subnet, prefix_len) = network.subnet();
    Err(Error::NoAddress { subnet, prefix_len })
}

fn take_wanted(
    dir: &Path,
    claimant: &str,
    network: &Network,
    in_use: &BTreeSet<Ipv4Addr>,
    address: Ipv4Addr,
) -> Result<Ipv4Addr> {
    let (subnet, prefix_len) = network.subnet();
    let refused = |why: String| Err(Error::AddressTaken { address, why });
    if !network.contains(address) {
        return refused(format!("it is not in the subnet {subnet}/{prefix_len} of the network {}", network.name));
    }
    if address == subnet || address == network.broadcast() {
        return refused(format!("it names the subnet {subnet}/{prefix_len} itself or everybody in it"));
    }
    if address == network.gateway {
        return refused(format!("it is the host's own in {}", network.bridge));
    }
    if in_use.contains(&address) {
        return refused(format!("somebody on {} uses it", network.bridge));
    }
    if !claim(dir, claimant, address)? {
        return refused(
            owner(dir, address)
                .map_or_else(|| "it was just taken".to_owned(), |owner| format!("the container {owner} has it")),
        );
    }
    Ok(address)
}

/// The addresses that a container may have, in the order in which they go round, without those in use. Leased ones are
/// among them: [`claim`] finds out.
pub fn candidates<'a>(
    dir: &Path,
    network: &Network,
    in_use: &'a BTreeSet<Ipv4Addr>,
) -> impl Iterator<Item = Ipv4Addr> + use<'a> {
    // Never the subnet's first and last address.
    let first = network.subnet().0.to_bits().saturating_add(1);
    let count = network.broadcast().to_bits().saturating_sub(first);
    let last = read_cursor(dir).filter(|last| network.contains(*last)).map_or(0, Ipv4Addr::to_bits);
    let start = last.saturating_add(1).saturating_sub(first);
    let gateway = network.gateway;
    let round = (0..count)
        .map(move |step| Ipv4Addr::from_bits(first + ((u64::from(start) + u64::from(step)) % u64::from(count)) as u32));
    round.filter(move |address| *address != gateway && !in_use.contains(address))
}

/// Takes this very address; false when somebody has it. Makes the folder when it isn't there.
pub fn claim(dir: &Path, owner: &str, address: Ipv4Addr) -> Result<bool> {
    let what = || format!("lease the address {address} in {}", dir.display());
    if owner.is_empty() || owner.contains('\0') {
        return Err(Error::Refused(format!("cannot {}: the owner has no name", what())));
    }
    let path = dir.join(address.to_string());
    let mut made = symlink(owner, &path);
    if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        fs::create_dir_all(dir).map_err(|error| Error::system(format!("create {}", dir.display()), error))?;
        made = symlink(owner, &path);
    }
    match made {
        Ok(()) => {
            write_cursor(dir, address);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::system(what(), error)),
    }
}

/// Gives the address back, when it is this owner's.
pub fn release(dir: &Path, owner: &str, address: Ipv4Addr) -> Result<Undone> {
    match self::owner(dir, address) {
        None => return Ok(Undone::NotThere),
        Some(other) if other != owner => {
            return Ok(Undone::NotOurs(format!("the address {address} belongs to the container {other}")));
        }
        Some(_) => {}
    }
    match fs::remove_file(dir.join(address.to_string())) {
        Ok(()) => Ok(Undone::Removed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Undone::NotThere),
        Err(error) => Err(Error::system(format!("give back the address {address} in {}", dir.display()), error)),
    }
}

/// Who has the address.
pub fn owner(dir: &Path, address: Ipv4Addr) -> Option<String> {
    fs::read_link(dir.join(address.to_string())).ok()?.into_os_string().into_string().ok()
}

/// Lets a new, empty folder of leases begin somewhere in the subnet: two engines on one bridge that both count from its
/// first address give the same ones to containers that neither can see while they're silent. `mark`: the engine's own.
pub fn start_at(dir: &Path, network: &Network, mark: u32) {
    let (first, last) = (network.subnet().0.to_bits(), network.broadcast().to_bits());
    let hosts = (last - first).saturating_sub(1).max(1);
    write_cursor(dir, Ipv4Addr::from_bits(first + mark % hosts));
}

fn read_cursor(dir: &Path) -> Option<Ipv4Addr> {
    let mut bytes = [0; CURSOR_WIDTH];
    let length = fs::File::open(dir.join(CURSOR)).ok()?.read_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes[..length]).ok()?.trim().parse().ok()
}

/// One pwrite of a fixed width: readers see the old or the new address. A failure only costs a longer search.
fn write_cursor(dir: &Path, address: Ipv4Addr) {
    let text = format!("{address:<width$}\n", address = address.to_string(), width = CURSOR_WIDTH - 1);
    if let Ok(file) = fs::OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(CURSOR)) {
        let _ = file.write_at(text.as_bytes(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backend;
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("netsetup-lease-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn network(gateway: &str, prefix_len: u8) -> Network {
        Network {
            name: "test".into(),
            bridge: "br0".into(),
            gateway: gateway.parse().unwrap(),
            prefix_len,
            mtu: 1500,
            table: "t".into(),
            backend: Backend::Nftables,
        }
    }

    fn text(result: Result<Ipv4Addr>) -> String {
        result.map_or_else(|error| error.to_string(), |address| address.to_string())
    }

    #[test]
    fn addresses_go_round_and_end_with_an_error() {
        let (folder, none, net) = (Folder::new("round"), BTreeSet::new(), network("10.0.0.1", 29));
        let take_next = || text(take(&folder.0, "c", &net, &none, None));
        assert_eq!(take_next(), "10.0.0.2");
        assert_eq!(release(&folder.0, "c", Ipv4Addr::new(10, 0, 0, 2)).unwrap(), Undone::Removed);
        for address in ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"] {
            assert_eq!(take_next(), address);
        }
        assert_eq!(
            take_next(),
            "no free address in 10.0.0.0/29: remove containers, or use a network with a larger subnet"
        );
    }

    #[test]
    fn a_damaged_cursor_costs_nothing_but_time() {
        let (folder, none, net) = (Folder::new("cursor"), BTreeSet::new(), network("10.0.0.6", 29));
        for damage in ["", "rubbish", "192.168.1.1", "10.0.0.255999999999999999999"] {
            fs::create_dir_all(&folder.0).unwrap();
            fs::write(folder.0.join(CURSOR), damage).unwrap();
            assert_eq!(text(take(&folder.0, "c", &net, &none, None)), "10.0.0.1", "{damage:?}");
            release(&folder.0, "c", Ipv4Addr::new(10, 0, 0, 1)).unwrap();
        }
    }

    #[test]
    fn addresses_in_use_are_left_out() {
        let folder = Folder::new("in-use");
        let in_use = [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)].into();
        assert_eq!(text(take(&folder.0, "c", &network("10.0.0.1", 24), &in_use, None)), "10.0.0.4");
    }

    #[test]
    fn a_wanted_address_is_given_or_refused_with_a_reason() {
        let (folder, net) = (Folder::new("wanted"), network("10.0.0.1", 24));
        let in_use = [Ipv4Addr::new(10, 0, 0, 9)].into();
        let want = |address: &str| text(take(&folder.0, "c1", &net, &in_use, Some(address.parse().unwrap())));
        assert_eq!(want("10.0.0.7"), "10.0.0.7");
        for (address, why) in [
            ("10.0.0.7", "the container c1 has it"),
            ("10.0.0.9", "somebody on br0 uses it"),
            ("10.0.0.1", "it is the host's own in br0"),
            ("10.0.0.0", "it names the subnet 10.0.0.0/24 itself or everybody in it"),
            ("10.0.0.255", "it names the subnet 10.0.0.0/24 itself or everybody in it"),
            ("10.0.1.7", "it is not in the subnet 10.0.0.0/24 of the network test"),
        ] {
            assert_eq!(want(address), format!("cannot give the address {address}: {why}; choose another one"));
        }
    }

    #[test]
    fn only_the_owner_gives_back() {
        let folder = Folder::new("owner");
        let address = take(&folder.0, "c1", &network("10.0.0.1", 24), &BTreeSet::new(), None).unwrap();
        assert_eq!(owner(&folder.0, address).as_deref(), Some("c1"));
        assert!(matches!(release(&folder.0, "c2", address).unwrap(), Undone::NotOurs(_)));
        assert_eq!(release(&folder.0, "c1", address).unwrap(), Undone::Removed);
        assert_eq!(release(&folder.0, "c1", address).unwrap(), Undone::NotThere);
    }

    #[test]
    fn fifty_at_the_same_moment_get_fifty_addresses() {
        let (folder, net) = (Folder::new("fifty"), network("10.0.0.1", 24));
        let start = std::sync::Barrier::new(50);
        let given: Vec<Ipv4Addr> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..50)
                .map(|index| {
                    let (folder, net, start) = (&folder, &net, &start);
                    scope.spawn(move || {
                        start.wait();
                        let mine: Vec<_> = (0..4)
                            .map(|_| take(&folder.0, &format!("c{index}"), net, &BTreeSet::new(), None).unwrap())
                            .collect();
                        mine.iter()
                            .for_each(|address| assert_eq!(owner(&folder.0, *address), Some(format!("c{index}"))));
                        mine
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(given.len(), 200);
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 200);
    }
}
