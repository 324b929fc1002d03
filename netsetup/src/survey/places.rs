//! Where to look: network namespaces with a name, those given, and those that hang on one of these by a link.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Namespace;
use crate::inside::within;
use crate::netlink::{Batch, Netlink, attribute, u32_at};
use crate::{Error, Result};

/// Processes remembered of one namespace.
const PROCESSES: usize = 4;
/// More namespaces than this are no picture.
const MOST: usize = 2048;

/// One namespace, before it is looked into.
#[derive(Debug)]
pub struct Place {
    /// Its inode.
    pub inode: u64,
    /// Names in `ip netns`.
    pub names: Vec<String>,
    /// Processes in it.
    pub processes: Vec<u32>,
    /// Whether it is the caller's.
    pub is_host: bool,
    /// Holds it.
    pub file: File,
}

/// Finds them, the caller's own first.
pub(super) fn find(more: Vec<File>) -> Result<Vec<Place>> {
    let own = File::open("/proc/thread-self/ns/net")
        .map_err(|error| Error::system("open /proc/thread-self/ns/net", error))?;
    let mut places: Vec<Place> = Vec::new();
    add(&mut places, own, None);
    if let Some(first) = places.first_mut() {
        first.is_host = true;
    }
    let mut names: Vec<String> = fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for name in names {
        let path = Path::new("/run/netns").join(&name);
        if crate::netns::is_namespace(&path)
            && let Ok(file) = File::open(&path)
        {
            add(&mut places, file, Some(name));
        }
    }
    for file in more {
        add(&mut places, file, None);
    }
    let others = of_processes(&mut places);
    tied(&mut places, others);
    Ok(places)
}

fn add(places: &mut Vec<Place>, file: File, name: Option<String>) {
    let Ok(inode) = file.metadata().map(|data| data.ino()) else { return };
    match places.iter_mut().find(|place| place.inode == inode) {
        Some(place) => place.names.extend(name),
        None => {
            places.push(Place { inode, names: name.into_iter().collect(), processes: Vec::new(), is_host: false, file })
        }
    }
}

/// Notes the processes of the known places; gives back the namespaces of all other processes.
fn of_processes(places: &mut [Place]) -> BTreeMap<u64, (u32, Vec<u32>)> {
    let mut others: BTreeMap<u64, (u32, Vec<u32>)> = BTreeMap::new();
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    for pid in pids {
        let Ok(inode) = fs::metadata(format!("/proc/{pid}/ns/net")).map(|data| data.ino()) else { continue };
        let processes = match places.iter_mut().find(|place| place.inode == inode) {
            Some(place) => &mut place.processes,
            None => &mut others.entry(inode).or_insert((pid, Vec::new())).1,
        };
        if processes.len() < PROCESSES {
            processes.push(pid);
        }
    }
    others
}

/// Adds those of the others that a known one has a number for: the kernel gives one when a link leads there.
fn tied(places: &mut Vec<Place>, mut others: BTreeMap<u64, (u32, Vec<u32>)>) {
    let mut next = 0;
    while next < places.len() && places.len() < MOST && !others.is_empty() {
        let candidates: Vec<(u64, File)> = others
            .iter()
            .filter_map(|(inode, (pid, _))| Some((*inode, File::open(format!("/proc/{pid}/ns/net")).ok()?)))
            .collect();
        let known = within(places[next].file.as_fd(), || {
            let mut route = Netlink::route()?;
            Ok(candidates.iter().map(|(_, file)| number_of(&mut route, file).is_some()).collect::<Vec<_>>())
        });
        for ((inode, file), known) in candidates.into_iter().zip(known.unwrap_or_default()) {
            let same = file.metadata().is_ok_and(|data| data.ino() == inode);
            if known
                && same
                && let Some((_, processes)) = others.remove(&inode)
            {
                places.push(Place { inode, names: Vec::new(), processes, is_host: false, file });
            }
        }
        next += 1;
    }
}

/// The number by which a namespace calls another one (`link-netnsid`), if it has one.
fn number_of(route: &mut Netlink, file: &File) -> Option<i32> {
    const RTM_GETNSID: u16 = 90;
    const NETNSA_NSID: u16 = 1;
    const NETNSA_FD: u16 = 3;
    let mut batch = Batch::default();
    batch.push(RTM_GETNSID, 0, |out| {
        out.extend_from_slice(&[0; 4]); // struct rtgenmsg
        out.extend_from_slice(&[8, 0]);
        out.extend_from_slice(&NETNSA_FD.to_ne_bytes());
        out.extend_from_slice(&(file.as_raw_fd() as u32).to_ne_bytes());
    });
    let (answers, _) = route.exchange(&batch).ok()?;
    let number = u32_at(attribute(answers.first()?.payload.get(4..)?, NETNSA_NSID)?, 0) as i32;
    (number >= 0).then_some(number)
}

/// Finds for each link of a pair the other end: the namespace and the index there.
pub(super) fn tie(namespaces: &mut [Namespace]) -> Result<()> {
    for at in 0..namespaces.len() {
        let wanted: Vec<i32> = namespaces[at].links.iter().filter_map(|link| link.peer_number).collect();
        let mut numbers: BTreeMap<i32, u64> = BTreeMap::new();
        if !wanted.is_empty() {
            let found = namespaces[at].run(|| {
                let mut route = Netlink::route()?;
                Ok(namespaces
                    .iter()
                    .filter_map(|other| Some((number_of(&mut route, other.file.as_ref()?)?, other.inode)))
                    .collect::<BTreeMap<_, _>>())
            });
            numbers = found.unwrap_or_default();
        }
        let own = namespaces[at].inode;
        for link in &mut namespaces[at].links {
            link.peer_namespace = match link.peer_number {
                Some(number) => numbers.get(&number).copied(),
                None if link.peer_index != 0 => Some(own),
                None => None,
            };
        }
    }
    Ok(())
}
