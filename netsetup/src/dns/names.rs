//! The register of names: a folder for each network, in it a symbolic link for each container that has a place there:
//! `ID -> 172.18.0.2,fd00::2 web 0123456789ab db`. It comes into being, changes and goes in one system call each, with all
//! that it says; `ls -l` shows who is called what. Readers keep what they read until the folder changes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::undo::Undone;
use crate::{Error, Result};

/// A folder that was changed less than this before it was read may change again with the same time in its inode (clock
/// ticks are 1-10 ms), so it's read again next time.
const TICK: Duration = Duration::from_millis(40);
/// Longest name (RFC 1035) and label.
const LONGEST: usize = 253;
const LONGEST_LABEL: usize = 63;

/// What one container is called in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// Its names; the first is the answer to a reverse look-up.
    pub names: Vec<String>,
}

impl Entry {
    /// As the link's text. Names that DNS can't carry are left out: nobody can ask for them.
    pub fn text(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        let mut text = if addresses.is_empty() { "-".to_owned() } else { addresses.join(",") };
        let mut seen = Vec::new();
        for name in self.names.iter().map(|name| name.to_ascii_lowercase()) {
            if is_name(&name) && !seen.contains(&name) {
                text.push(' ');
                text.push_str(&name);
                seen.push(name);
            }
        }
        text
    }

    fn read(text: &str) -> Entry {
        let mut words = text.split(' ');
        let addresses = words.next().unwrap_or_default().split(',').filter_map(|word| word.parse().ok()).collect();
        Entry { addresses, names: words.filter(|name| is_name(name)).map(str::to_owned).collect() }
    }
}

fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.len() <= LONGEST_LABEL && label.bytes().all(|byte| byte.is_ascii_graphic())
    };
    name.len() <= LONGEST && name.split('.').all(label)
}

/// Enters the container `id`, or changes its entry. Makes the folder when it isn't there.
///
/// # Errors
/// The entry is longer than the file system's links may be (4095 bytes; XFS: 1023), or what the kernel says.
pub fn publish(folder: &Path, id: &str, entry: &Entry) -> Result<()> {
    let (path, text) = (path_of(folder, id)?, entry.text());
    let failed = |error: io::Error| {
        let detail = (error.raw_os_error() == Some(libc::ENAMETOOLONG))
            .then(|| "all its names together are too long for one link: give it fewer aliases".to_owned());
        let what = format!("enter the container's names in {}", folder.display());
        Err(Error::System { what, source: error, detail })
    };
    let mut made = symlink(&text, &path);
    if made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        fs::create_dir_all(folder).map_err(|error| Error::system(format!("create {}", folder.display()), error))?;
        made = symlink(&text, &path);
    }
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Only the container's own monitor, or whoever holds its journal, writes its entry: nobody else uses this name.
            let new = folder.join(format!(".{id}"));
            let _ = fs::remove_file(&new);
            symlink(&text, &new).and_then(|()| fs::rename(&new, &path)).or_else(failed)
        }
        other => other.or_else(failed),
    }
}

/// Strikes the container out.
///
/// # Errors
/// What the kernel says.
pub fn withdraw(folder: &Path, id: &str) -> Result<Undone> {
    let path = path_of(folder, id)?;
    let _ = fs::remove_file(folder.join(format!(".{id}"))); // of a change that was interrupted
    match fs::remove_file(&path) {
        Ok(()) => Ok(Undone::Removed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Undone::NotThere),
        Err(error) => Err(Error::system(format!("remove {}", path.display()), error)),
    }
}

/// The container's entry, if it has one.
pub fn entry(folder: &Path, id: &str) -> Option<Entry> {
    let text = fs::read_link(path_of(folder, id).ok()?).ok()?;
    text.to_str().map(Entry::read)
}

/// Ids come from a journal too.
fn path_of(folder: &Path, id: &str) -> Result<PathBuf> {
    if id.is_empty() || id.starts_with('.') || id.contains(['/', '\0']) {
        return Err(Error::Refused(format!("{id:?} can't be the id of a container")));
    }
    Ok(folder.join(id))
}

/// What a folder says, as last read.
#[derive(Debug)]
pub(super) struct View {
    folder: PathBuf,
    seen: Option<Stamp>,
    addresses: BTreeMap<String, Vec<IpAddr>>,
    names: BTreeMap<IpAddr, String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl View {
    pub fn new(folder: PathBuf) -> View {
        View { folder, seen: None, addresses: BTreeMap::new(), names: BTreeMap::new() }
    }

    /// The addresses of everybody with this name, which is in lower case.
    pub fn addresses(&mut self, name: &str) -> &[IpAddr] {
        self.refresh();
        self.addresses.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The same for a question's name, which may have the network's behind it: `web`, `web.front`.
    pub fn known(&mut self, name: &str, network: &str) -> &[IpAddr] {
        // The question is in lower case by now, a network's name need not be.
        let network = network.to_ascii_lowercase();
        let in_network = name.strip_suffix(network.as_str()).and_then(|rest| rest.strip_suffix('.'));
        let short = in_network.filter(|_| self.addresses(name).is_empty());
        self.addresses(short.unwrap_or(name))
    }

    /// The name of whoever has this address.
    pub fn name(&mut self, address: IpAddr) -> Option<&str> {
        self.refresh();
        self.names.get(&address).map(String::as_str)
    }

    fn refresh(&mut self) {
        let stamp = fs::metadata(&self.folder).ok().map(|data| Stamp {
            device: data.dev(),
            inode: data.ino(),
            changed: (data.mtime(), data.mtime_nsec()),
        });
        if stamp.is_some() && stamp == self.seen {
            return;
        }
        self.addresses.clear();
        self.names.clear();
        for link in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if link.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let Ok(text) = fs::read_link(link.path()) else { continue };
            let Some(text) = text.to_str() else { continue };
            let entry = Entry::read(text);
            if let Some(first) = entry.names.first() {
                entry.addresses.iter().for_each(|address| {
                    self.names.insert(*address, first.clone());
                });
            }
            for name in entry.names {
                self.addresses.entry(name).or_default().extend(&entry.addresses);
            }
        }
        self.addresses.values_mut().for_each(|list| list.sort_unstable());
        self.seen = stamp.filter(|stamp| !is_fresh(stamp.changed));
    }
}

/// Whether a file's time is so near to now that a later change may bear the same.
pub(super) fn is_fresh((seconds, nanoseconds): (i64, i64)) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let then = Duration::new(seconds.try_into().unwrap_or(0), nanoseconds.try_into().unwrap_or(0));
    now.saturating_sub(then) < TICK
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("netsetup-names-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn entry(addresses: &[&str], names: &[&str]) -> Entry {
        Entry {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn names_come_change_and_go_at_once() {
        let folder = Folder::new("come");
        let mut view = View::new(folder.0.clone());
        assert!(view.addresses("web").is_empty());
        for round in 0..50u8 {
            let address = IpAddr::from([10, 0, 0, round]);
            publish(&folder.0, "c1", &entry(&[&address.to_string(), "fd00::2"], &["Web", "c1", "all"])).unwrap();
            assert_eq!(view.addresses("web"), [address, "fd00::2".parse().unwrap()]);
            publish(&folder.0, "c2", &entry(&["10.0.1.1"], &["db", "all"])).unwrap();
            assert_eq!(view.addresses("all").len(), 3);
            assert_eq!(view.name(address), Some("web"));
            publish(&folder.0, "c1", &entry(&["10.0.2.2"], &["www"])).unwrap();
            assert!(view.addresses("web").is_empty());
            assert_eq!(view.addresses("www").len(), 1);
            assert_eq!(withdraw(&folder.0, "c2").unwrap(), Undone::Removed);
            assert!(view.addresses("db").is_empty());
            assert_eq!(withdraw(&folder.0, "c1").unwrap(), Undone::Removed);
            assert_eq!(withdraw(&folder.0, "c1").unwrap(), Undone::NotThere);
        }
    }

    #[test]
    fn what_dns_cannot_carry_is_left_out() {
        let long = "x".repeat(64);
        let text = entry(&["10.0.0.1"], &["ok", "two words", "a..b", &long, "", "OK", "with\nline"]).text();
        assert_eq!(text, "10.0.0.1 ok");
        assert_eq!(Entry::read("- x y").names, ["x", "y"]);
        assert_eq!(Entry::read("rubbish"), entry(&[], &[]));
    }

    #[test]
    fn too_many_names_are_an_error_with_a_way_out() {
        let folder = Folder::new("many");
        let names: Vec<String> = (0..1000).map(|number| format!("alias{number}")).collect();
        let error = publish(&folder.0, "c1", &Entry { addresses: vec![], names }).unwrap_err();
        assert!(error.to_string().contains("fewer aliases"), "{error}");
        assert!(publish(&folder.0, "../c1", &entry(&[], &[])).is_err());
    }
}
