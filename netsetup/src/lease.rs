//! Leases of addresses: one name in a folder per address, made exclusively, so that no address is given twice even when
//! fifty starts ask at the same moment.
//!
//! A lease is a symbolic link `172.17.0.2 -> OWNER`: it comes into being in one system call, with its owner, or not at
//! all, and `ls -l` shows who has what. Addresses go round, so that one just given back isn't used again at once.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use crate::subnet::{Subnet, first_address, from_number, last_address, to_number};
use crate::undo::Undone;
use crate::{Error, Network, Result};

/// The address given last: a hint where to go on, never needed. One for each IP version.
const CURSORS: [&str; 2] = [".last", ".last6"];
/// Longer than every address, so that each writer overwrites all of the one before.
const CURSOR_WIDTHS: [usize; 2] = [16, 40];

/// Takes an address for the owner: the wanted one, or the next that is free. `in_use` are addresses that others have
/// without a lease of ours. Makes the folder when it isn't there.
///
/// # Errors
/// [`Error::AddressTaken`] for a wanted address that can't be had, [`Error::NoAddress`] when none is free.
pub fn take(
    dir: &Path,
    owner: &str,
    network: &Network,
    subnet: &Subnet,
    in_use: &BTreeSet<IpAddr>,
    wanted: Option<IpAddr>,
) -> Result<IpAddr> {
    if let Some(address) = wanted {
        check_wanted(network, subnet, in_use, address)?;
        if !claim(dir, owner, address)? {
            return Err(taken(dir, address));
        }
        return Ok(address);
    }
    for address in candidates(dir, subnet, in_use) {
        if claim(dir, owner, address)? {
            return Ok(address);
        }
    }
    Err(Error::NoAddress { subnet: subnet.first(), prefix_len: subnet.prefix_len })
}

/// The error for an address that has a lease.
pub fn taken(dir: &Path, address: IpAddr) -> Error {
    let why = owner(dir, address)
        .map_or_else(|| "it was just taken".to_owned(), |owner| format!("the container {owner} has it"));
    Error::AddressTaken { address, why }
}

/// Whether a container may have this address, leases aside.
///
/// # Errors
/// [`Error::AddressTaken`] with the reason.
pub fn check_wanted(network: &Network, subnet: &Subnet, in_use: &BTreeSet<IpAddr>, address: IpAddr) -> Result<()> {
    let refused = |why: String| Err(Error::AddressTaken { address, why });
    if !subnet.contains(address) {
        return refused(format!("it is not in the subnet {subnet} of the network {}", network.name));
    }
    if address == subnet.first() || address == subnet.last() {
        return refused(format!("it names the subnet {subnet} itself or everybody in it"));
    }
    if address == subnet.gateway {
        return refused(format!("it is the host's own in {}", network.bridge));
    }
    if subnet.reserved.contains(&address) {
        return refused(format!("the network {} keeps it for another use", network.name));
    }
    if in_use.contains(&address) {
        return refused(format!("somebody on {} uses it", network.bridge));
    }
    Ok(())
}

/// The addresses that a container may have, in the order in which they go round, without those in use. Leased ones are
/// among them: [`claim`] finds out.
pub fn candidates<'a>(
    dir: &Path,
    subnet: &'a Subnet,
    in_use: &'a BTreeSet<IpAddr>,
) -> impl Iterator<Item = IpAddr> + use<'a> {
    let (first, count) = span(subnet);
    let last = read_cursor(dir, subnet.gateway).filter(|last| subnet.contains(*last)).map_or(0, to_number);
    let start = last.saturating_add(1).saturating_sub(first);
    let round = (0..count).map(move |step| from_number(first + ((start % count + step) % count), subnet.gateway));
    round.filter(move |address| {
        *address != subnet.gateway && !in_use.contains(address) && !subnet.reserved.contains(address)
    })
}

/// The number of the first address for containers, and how many there are: never the subnet's first and last.
fn span(subnet: &Subnet) -> (u128, u128) {
    let (range, length) = subnet.range.unwrap_or((subnet.gateway, subnet.prefix_len));
    let first = to_number(first_address(range, length)).max(to_number(subnet.first()).saturating_add(1));
    let end = to_number(last_address(range, length)).saturating_add(1).min(to_number(subnet.last()));
    (first, end.saturating_sub(first))
}

/// Takes this very address; false when somebody has it. Makes the folder when it isn't there.
pub fn claim(dir: &Path, owner: &str, address: IpAddr) -> Result<bool> {
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
pub fn release(dir: &Path, owner: &str, address: IpAddr) -> Result<Undone> {
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
pub fn owner(dir: &Path, address: IpAddr) -> Option<String> {
    fs::read_link(dir.join(address.to_string())).ok()?.into_os_string().into_string().ok()
}

/// Lets a new, empty folder of leases begin somewhere in the subnet: two engines on one bridge that both count from its
/// first address give the same ones to containers that neither can see while they're silent. `mark`: the engine's own.
pub fn start_at(dir: &Path, subnet: &Subnet, mark: u32) {
    let (first, count) = span(subnet);
    write_cursor(dir, from_number(first + u128::from(mark) % count.max(1), subnet.gateway));
}

fn version(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

fn read_cursor(dir: &Path, like: IpAddr) -> Option<IpAddr> {
    let mut bytes = [0; CURSOR_WIDTHS[1]];
    let length = fs::File::open(dir.join(CURSORS[version(like)])).ok()?.read_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes[..length]).ok()?.trim().parse().ok()
}

/// Lets a new, empty folder of leases begin in the last quarter of the subnet: dockerd gives the lowest address that it
/// doesn't know to be taken, and knows none of ours.
pub fn start_far(dir: &Path, subnet: &Subnet, mark: u32) {
    let (first, count) = span(subnet);
    let quarter = (count / 4).max(1);
    write_cursor(dir, from_number(first + count - quarter + u128::from(mark) % quarter.div_ceil(2), subnet.gateway));
}

/// One pwrite of a fixed width: readers see the old or the new address. A failure only costs a longer search.
fn write_cursor(dir: &Path, address: IpAddr) {
    let version = version(address);
    let text = format!("{address:<width$}\n", address = address.to_string(), width = CURSOR_WIDTHS[version] - 1);
    let path = dir.join(CURSORS[version]);
    if let Ok(file) = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path) {
        let _ = file.write_at(text.as_bytes(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
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
        let mut network = Network::new("test", "br0");
        network.ipv4 = Some(Subnet::new(gateway.parse::<IpAddr>().unwrap(), prefix_len));
        network
    }

    fn take(
        dir: &Path,
        owner: &str,
        network: &Network,
        in_use: &BTreeSet<IpAddr>,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr> {
        super::take(dir, owner, network, network.ipv4.as_ref().unwrap(), in_use, wanted)
    }

    fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
        Ipv4Addr::new(a, b, c, d).into()
    }

    fn text(result: Result<IpAddr>) -> String {
        result.map_or_else(|error| error.to_string(), |address| address.to_string())
    }

    #[test]
    fn addresses_go_round_and_end_with_an_error() {
        let (folder, none, net) = (Folder::new("round"), BTreeSet::new(), network("10.0.0.1", 29));
        let take_next = || text(take(&folder.0, "c", &net, &none, None));
        assert_eq!(take_next(), "10.0.0.2");
        assert_eq!(release(&folder.0, "c", v4(10, 0, 0, 2)).unwrap(), Undone::Removed);
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
            fs::write(folder.0.join(CURSORS[0]), damage).unwrap();
            assert_eq!(text(take(&folder.0, "c", &net, &none, None)), "10.0.0.1", "{damage:?}");
            release(&folder.0, "c", v4(10, 0, 0, 1)).unwrap();
        }
    }

    #[test]
    fn addresses_in_use_are_left_out() {
        let folder = Folder::new("in-use");
        let in_use = [v4(10, 0, 0, 2), v4(10, 0, 0, 3)].into();
        assert_eq!(text(take(&folder.0, "c", &network("10.0.0.1", 24), &in_use, None)), "10.0.0.4");
    }

    #[test]
    fn a_wanted_address_is_given_or_refused_with_a_reason() {
        let (folder, net) = (Folder::new("wanted"), network("10.0.0.1", 24));
        let in_use = [v4(10, 0, 0, 9)].into();
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
        let given: Vec<IpAddr> = std::thread::scope(|scope| {
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

    #[test]
    fn ipv6_addresses_and_ranges() {
        let (folder, none, net) = (Folder::new("v6"), BTreeSet::new(), network("fd00:1::1", 64));
        let mut subnet = net.ipv4.clone().unwrap();
        let next = |subnet: &Subnet| text(super::take(&folder.0, "c", &net, subnet, &none, None));
        assert_eq!((next(&subnet), next(&subnet)), ("fd00:1::2".to_owned(), "fd00:1::3".to_owned()));
        subnet.range = Some(("fd00:1::ff00".parse().unwrap(), 126));
        subnet.reserved = vec!["fd00:1::ff01".parse().unwrap()];
        for address in ["fd00:1::ff00", "fd00:1::ff02", "fd00:1::ff03"] {
            assert_eq!(next(&subnet), address);
        }
        assert!(next(&subnet).starts_with("no free address"));
        assert!(super::take(&folder.0, "c", &net, &subnet, &none, Some("fd00:1::ff01".parse().unwrap())).is_err());
    }
}
