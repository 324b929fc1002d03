//! Linux capabilities: their names, docker's `--cap-add` and `--cap-drop`, and the system calls that set them.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// A set of capabilities, bit n = capability number n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Set(pub u64);

/// Every capability that this program knows a name for; the index is the kernel's number (linux/capability.h).
pub const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// An unknown name in `--cap-add` or `--cap-drop`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {name:?}{}; give ALL or a name of capabilities(7) with or without CAP_", near.map(|near| format!(", did you mean {near}?")).unwrap_or_default())]
pub struct UnknownCapability {
    /// What was given.
    pub name: String,
    /// The known name that looks most like it.
    pub near: Option<&'static str>,
}

impl Set {
    /// No capability.
    pub const EMPTY: Set = Set(0);

    /// Every capability of a kernel whose `/proc/sys/kernel/cap_last_cap` is `last`.
    pub fn all(last: u8) -> Set {
        Set(u64::MAX >> (63 - last.min(63)))
    }

    /// Whether a capability is in the set, by number.
    pub fn has(self, number: u8) -> bool {
        number < 64 && self.0 >> number & 1 == 1
    }

    /// Whether a capability is in the set, by its full name.
    pub fn has_name(self, name: &str) -> bool {
        number(name).is_some_and(|number| self.has(number))
    }

    /// The set with one more capability.
    #[must_use]
    pub fn with(self, number: u8) -> Set {
        Set(self.0 | 1u64.checked_shl(number.into()).unwrap_or(0))
    }

    /// The set without one.
    #[must_use]
    pub fn without(self, number: u8) -> Set {
        Set(self.0 & !1u64.checked_shl(number.into()).unwrap_or(0))
    }

    /// The names in it, by number. A number without a name is left out: OCI's files have no way to say it.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(number, _)| self.0 >> number & 1 == 1).map(|(_, name)| *name)
    }

    /// The set of OCI names. Every name that oci_spec knows is in [`NAMES`].
    pub fn from_oci(capabilities: &oci_spec::runtime::Capabilities) -> Set {
        let numbers = capabilities.iter().filter_map(|capability| number(&capability.to_string()));
        numbers.fold(Set::EMPTY, Set::with)
    }

    /// The set as OCI names.
    pub fn to_oci(self) -> oci_spec::runtime::Capabilities {
        self.names().filter_map(|name| name.trim_start_matches("CAP_").parse().ok()).collect()
    }
}

/// The number of a capability by its full name, such as `CAP_NET_RAW`.
pub fn number(name: &str) -> Option<u8> {
    let short = |name: &'static str| name.trim_start_matches("CAP_");
    let wanted = name.strip_prefix("CAP_").unwrap_or(name);
    let index = NAMES.iter().position(|known| short(known) == wanted)?;
    u8::try_from(index).ok()
}

/// Reads one name of a flag: any case, with or without `CAP_`.
///
/// # Errors
/// A name that capabilities(7) does not have.
pub fn parse(name: &str) -> Result<u8, UnknownCapability> {
    let upper = name.trim().to_ascii_uppercase();
    number(&upper).ok_or_else(|| UnknownCapability { name: name.chars().take(64).collect(), near: near(&upper) })
}

/// Works out docker's set: the defaults, changed by `--cap-add` and `--cap-drop`.
///
/// As docker does: `ALL` added means everything but what is dropped; `ALL` dropped means only what is added; otherwise
/// the defaults without the dropped ones, and with the added ones.
///
/// # Errors
/// An unknown name.
pub fn resolve(default: Set, add: &[String], drop: &[String], last: u8) -> Result<Set, UnknownCapability> {
    let is_all = |name: &String| ["ALL", "CAP_ALL"].contains(&name.trim().to_ascii_uppercase().as_str());
    let set = |names: &[String]| -> Result<Set, UnknownCapability> {
        let mut named = names.iter().filter(|name| !is_all(name));
        named.try_fold(Set::EMPTY, |set, name| Ok(set.with(parse(name)?)))
    };
    let (added, dropped) = (set(add)?, set(drop)?);
    let result = if add.iter().any(is_all) {
        Set(Set::all(last).0 & !dropped.0)
    } else if drop.iter().any(is_all) {
        added
    } else {
        Set(default.0 & !dropped.0 | added.0)
    };
    // A kernel older than a capability refuses the whole set.
    Ok(Set(result.0 & Set::all(last).0))
}

/// The known name with the fewest edits, when it is a likely slip of the finger.
fn near(upper: &str) -> Option<&'static str> {
    let wanted = upper.strip_prefix("CAP_").unwrap_or(upper);
    if wanted.is_empty() || wanted.len() > 32 {
        return None;
    }
    let short = |name: &'static str| name.trim_start_matches("CAP_");
    let ranked = NAMES.iter().map(|name| (distance(wanted.as_bytes(), short(name).as_bytes()), *name));
    ranked.min_by_key(|(edits, _)| *edits).filter(|(edits, _)| *edits <= 1 + wanted.len() / 4).map(|(_, name)| name)
}

/// Levenshtein's edit distance.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let change = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The number of the kernel's newest capability, from `/proc/sys/kernel/cap_last_cap`; the newest known one when that
/// can't be read.
pub fn last_cap() -> u8 {
    let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap_or_default();
    text.trim().parse().ok().filter(|last| *last < 64).unwrap_or(40)
}

/// The five sets of a process, as execve(2) works on them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    /// What file capabilities and root's exec can ever give.
    pub bounding: Set,
    /// What the process uses.
    pub effective: Set,
    /// What the process may use.
    pub permitted: Set,
    /// Always empty for docker (CVE-2022-24769): files with inheritable bits would give them to any user.
    pub inheritable: Set,
    /// What a program run by another user than root keeps.
    pub ambient: Set,
}

impl Sets {
    /// Docker's sets for a process that starts as root: bounding, permitted and effective alike, nothing inheritable.
    /// For another user the kernel clears permitted and effective at setuid(2), as wanted.
    pub fn docker(set: Set) -> Sets {
        Sets { bounding: set, effective: set, permitted: set, inheritable: Set::EMPTY, ambient: Set::EMPTY }
    }
}

/// Drops everything outside `keep` from the bounding set. Needs CAP_SETPCAP; to be called before the ids change.
///
/// Walks by number up to the kernel's last, so a capability newer than this program is dropped too. Does not allocate.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn drop_bounding(keep: Set, last: u8) -> io::Result<()> {
    for number in 0..=last.min(63) {
        if !keep.has(number) {
            rustix::thread::remove_capability_from_bounding_set(one(number))?;
        }
    }
    Ok(())
}

/// Sets effective, permitted and inheritable of the calling thread. Does not allocate.
///
/// # Errors
/// EPERM when a capability is asked for that the process does not have.
pub fn set(effective: Set, permitted: Set, inheritable: Set) -> io::Result<()> {
    let bits = |set: Set| CapabilitySet::from_bits_retain(set.0);
    let sets =
        CapabilitySets { effective: bits(effective), permitted: bits(permitted), inheritable: bits(inheritable) };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Makes the ambient set of the calling thread. Its members must be permitted and inheritable. Does not allocate.
///
/// # Errors
/// EPERM for a member that is not.
pub fn set_ambient(ambient: Set) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    for number in (0..64u8).filter(|number| ambient.has(*number)) {
        rustix::thread::configure_capability_in_ambient_set(one(number), true)?;
    }
    Ok(())
}

/// Keeps permitted capabilities over a setuid(2) away from root (PR_SET_KEEPCAPS); execve clears the flag.
///
/// # Errors
/// EPERM when securebits lock it.
pub fn keep_over_setuid() -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(true)?)
}

/// One capability as rustix has it; numbers without a name there are kept.
fn one(number: u8) -> CapabilitySet {
    CapabilitySet::from_bits_retain(Set::EMPTY.with(number).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_table_has_the_kernels_numbers() {
        for (name, value) in [
            ("CAP_CHOWN", 0),
            ("CAP_NET_RAW", 13),
            ("CAP_SYS_ADMIN", 21),
            ("CAP_SETFCAP", 31),
            ("CAP_CHECKPOINT_RESTORE", 40),
        ] {
            assert_eq!(number(name), Some(value), "{name}");
        }
        let all = Set::all(40);
        assert_eq!(all.names().count(), 41);
        assert_eq!(all.to_oci().len(), 41);
        assert_eq!(Set::from_oci(&all.to_oci()), all);
    }

    #[test]
    fn flags_change_the_defaults_as_docker_does() {
        let default = Set::EMPTY.with(0).with(13);
        let resolve = |add: &[&str], drop: &[&str]| {
            resolve(default, &names(add), &names(drop), 40).map(|set| set.names().collect::<Vec<_>>())
        };
        assert_eq!(resolve(&[], &[]).unwrap(), ["CAP_CHOWN", "CAP_NET_RAW"]);
        assert_eq!(
            resolve(&["net_admin", "Cap_Sys_Time"], &["CAP_CHOWN"]).unwrap(),
            ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_TIME"]
        );
        assert_eq!(resolve(&["kill"], &["all"]).unwrap(), ["CAP_KILL"]);
        assert_eq!(resolve(&["ALL"], &["SYS_ADMIN"]).unwrap().len(), 40);
        assert_eq!(resolve(&["ALL"], &["ALL"]).unwrap().len(), 41);
        // An older kernel does not know the newest ones.
        assert_eq!(super::resolve(default, &names(&["ALL"]), &[], 37).unwrap(), Set::all(37));
    }

    #[test]
    fn an_unknown_name_is_refused_with_its_neighbour() {
        for (name, near) in [
            ("NET_ADMIM", Some("CAP_NET_ADMIN")),
            ("cap_sys_admn", Some("CAP_SYS_ADMIN")),
            ("frobnicate", None),
            ("", None),
        ] {
            let error = parse(name).unwrap_err();
            assert_eq!(error.near, near, "{name}");
            assert!(error.to_string().starts_with("unknown capability"), "{error}");
        }
        assert!(parse(&"x".repeat(100_000)).unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn a_child_gives_its_capabilities_up() {
        let last = last_cap();
        let keep = Set::EMPTY.with(0).with(8).with(13);
        // A thread's capabilities are its own: the test process keeps its.
        let status = std::thread::spawn(move || {
            let held = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let held = held.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap().to_owned();
            if u64::from_str_radix(&held, 16).unwrap() & keep.0 != keep.0 {
                return None;
            }
            drop_bounding(keep, last).unwrap();
            set(keep, keep, Set::EMPTY).unwrap();
            set_ambient(Set::EMPTY).unwrap();
            assert_eq!(set_ambient(keep).unwrap_err().raw_os_error(), Some(libc::EPERM));
            assert_eq!(set(Set::all(last), keep, Set::EMPTY).unwrap_err().raw_os_error(), Some(libc::EPERM));
            Some(std::fs::read_to_string("/proc/thread-self/status").unwrap())
        });
        let status = status.join().unwrap().expect("this test needs root");
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        let expected = format!("{:016x}", keep.0);
        assert_eq!(
            [field("CapBnd:"), field("CapPrm:"), field("CapEff:")],
            [expected.clone(), expected.clone(), expected]
        );
        assert_eq!([field("CapInh:"), field("CapAmb:")], ["0".repeat(16), "0".repeat(16)]);
    }
}
