//! Mount options as mount(8) and the OCI specification spell them, turned into the kernel's bits.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::sys::{
    MOUNT_ATTR_ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_RELATIME, MOUNT_ATTR_STRICTATIME,
};

/// What a mount's events have to do with other namespaces' mounts; mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`.
    pub kind: u64,
    /// The mounts below too (`rprivate`, …).
    pub recursive: bool,
}

impl Propagation {
    /// By its OCI name: `private`, `rslave` …
    pub fn parse(word: &str) -> Option<Propagation> {
        let (recursive, kind) = match word {
            "private" => (false, libc::MS_PRIVATE),
            "rprivate" => (true, libc::MS_PRIVATE),
            "slave" => (false, libc::MS_SLAVE),
            "rslave" => (true, libc::MS_SLAVE),
            "shared" => (false, libc::MS_SHARED),
            "rshared" => (true, libc::MS_SHARED),
            "unbindable" => (false, libc::MS_UNBINDABLE),
            "runbindable" => (true, libc::MS_UNBINDABLE),
            _ => return None,
        };
        Some(Propagation { kind, recursive })
    }

    /// The name that mount(8) takes behind `--make-`.
    pub fn name(self) -> String {
        let kind = match self.kind {
            libc::MS_SLAVE => "slave",
            libc::MS_SHARED => "shared",
            libc::MS_UNBINDABLE => "unbindable",
            _ => "private",
        };
        format!("{}{kind}", if self.recursive { "r" } else { "" })
    }
}

/// Attributes of one mount, as mount_setattr(2) takes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
}

impl Attributes {
    /// Only to read.
    pub fn read_only() -> Attributes {
        Attributes { set: MOUNT_ATTR_RDONLY, clear: 0 }
    }

    /// Whether nothing is to be changed.
    pub fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0
    }

    fn change(&mut self, attribute: u64, on: bool) {
        // The access time is one number of three values, not single bits (mount_setattr(2)).
        if matches!(attribute, MOUNT_ATTR_RELATIME | MOUNT_ATTR_NOATIME | MOUNT_ATTR_STRICTATIME) {
            self.set &= !MOUNT_ATTR_ATIME;
            self.clear |= MOUNT_ATTR_ATIME;
            self.set |= if on { attribute } else { MOUNT_ATTR_RELATIME };
            return;
        }
        let (to, from) = if on { (&mut self.set, &mut self.clear) } else { (&mut self.clear, &mut self.set) };
        *to |= attribute;
        *from &= !attribute;
    }

    /// The words for mount(8)'s `-o`.
    pub fn words(self) -> Vec<&'static str> {
        let mut words = Vec::new();
        for (on, off, attribute) in FLAGS {
            if matches!(attribute, MOUNT_ATTR_RELATIME | MOUNT_ATTR_NOATIME | MOUNT_ATTR_STRICTATIME) {
                if self.clear & MOUNT_ATTR_ATIME != 0 && self.set & MOUNT_ATTR_ATIME == attribute {
                    words.push(on);
                }
            } else if self.set & attribute != 0 {
                words.push(on);
            } else if self.clear & attribute != 0 {
                words.push(off);
            }
        }
        words
    }
}

/// The word that sets an attribute, the one that clears it, the attribute.
const FLAGS: [(&str, &str, u64); 9] = [
    ("ro", "rw", MOUNT_ATTR_RDONLY),
    ("nosuid", "suid", MOUNT_ATTR_NOSUID),
    ("nodev", "dev", MOUNT_ATTR_NODEV),
    ("noexec", "exec", MOUNT_ATTR_NOEXEC),
    ("noatime", "atime", MOUNT_ATTR_NOATIME),
    ("nodiratime", "diratime", MOUNT_ATTR_NODIRATIME),
    ("relatime", "norelatime", MOUNT_ATTR_RELATIME),
    ("strictatime", "nostrictatime", MOUNT_ATTR_STRICTATIME),
    ("nosymfollow", "symfollow", MOUNT_ATTR_NOSYMFOLLOW),
];

/// A mount's options, sorted by who takes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// For the mount itself.
    pub attributes: Attributes,
    /// For the mount and all below it (`rro` and its kin).
    pub recursive: Attributes,
    /// `bind` (false) or `rbind` (true).
    pub bind: Option<bool>,
    /// Its propagation.
    pub propagation: Option<Propagation>,
    /// `sync`, `dirsync`, `mand`, `lazytime`, `silent`: bits of mount(2) that belong to the file system.
    pub file_system: u64,
    /// What the file system parses itself: `mode=755`.
    pub data: Vec<String>,
}

impl Options {
    /// Sorts option words; an unknown one is the file system's.
    ///
    /// # Errors
    /// Options that another runtime invented or that this one doesn't offer.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>, destination: &str) -> Result<Options, Error> {
        let mut options = Options::default();
        // The same word twice (an engine's default and the user's) is no different from once.
        let mut data = BTreeSet::new();
        for word in words {
            if word.is_empty() || word == "defaults" {
                continue;
            }
            if let Some(propagation) = Propagation::parse(word) {
                options.propagation = Some(propagation);
            } else if let Some((attribute, on)) = attribute(word) {
                options.attributes.change(attribute, on);
            } else if let Some((attribute, on)) = word.strip_prefix('r').and_then(attribute) {
                options.recursive.change(attribute, on);
            } else {
                match word {
                    "bind" => options.bind = options.bind.or(Some(false)),
                    "rbind" => options.bind = Some(true),
                    "sync" => options.file_system |= libc::MS_SYNCHRONOUS,
                    "dirsync" => options.file_system |= libc::MS_DIRSYNC,
                    "lazytime" => options.file_system |= libc::MS_LAZYTIME,
                    "silent" => options.file_system |= libc::MS_SILENT,
                    "async" | "nolazytime" | "loud" | "nomand" => {}
                    "remount" | "mand" | "tmpcopyup" | "idmap" | "ridmap" => {
                        return Err(Error::refused(format!("mount option {word} of {destination} is not supported")));
                    }
                    _ if data.insert(word) => options.data.push(word.to_owned()),
                    _ => {}
                }
            }
        }
        Ok(options)
    }
}

fn attribute(word: &str) -> Option<(u64, bool)> {
    FLAGS.iter().find_map(|(on, off, attribute)| {
        (word == *on).then_some((*attribute, true)).or_else(|| (word == *off).then_some((*attribute, false)))
    })
}

/// Attributes as the older bits of mount(2).
pub fn mount_flags(attributes: Attributes) -> u64 {
    const PAIRS: [(u64, u64); 8] = [
        (MOUNT_ATTR_RDONLY, libc::MS_RDONLY),
        (MOUNT_ATTR_NOSUID, libc::MS_NOSUID),
        (MOUNT_ATTR_NODEV, libc::MS_NODEV),
        (MOUNT_ATTR_NOEXEC, libc::MS_NOEXEC),
        (MOUNT_ATTR_NOATIME, libc::MS_NOATIME),
        (MOUNT_ATTR_NODIRATIME, libc::MS_NODIRATIME),
        (MOUNT_ATTR_STRICTATIME, libc::MS_STRICTATIME),
        (MOUNT_ATTR_NOSYMFOLLOW, libc::MS_NOSYMFOLLOW),
    ];
    let flags = PAIRS.iter().filter(|(attribute, _)| attributes.set & attribute != 0);
    flags.fold(0, |all, (_, flag)| all | flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        Options::parse(words.split(','), "/x").unwrap()
    }

    #[test]
    fn words_go_where_they_belong() {
        let options = parse("nosuid,strictatime,mode=755,size=65536k,rprivate");
        assert_eq!(options.attributes.words(), ["nosuid", "strictatime"]);
        assert_eq!(options.data, ["mode=755", "size=65536k"]);
        assert_eq!(options.propagation.unwrap().name(), "rprivate");
        let options = parse("rbind,ro,rro,ro");
        assert_eq!(
            (options.bind, options.attributes.set, options.recursive.set),
            (Some(true), MOUNT_ATTR_RDONLY, MOUNT_ATTR_RDONLY)
        );
        assert_eq!(parse("ro,rw").attributes, Attributes { set: 0, clear: MOUNT_ATTR_RDONLY }, "the last word wins");
        assert_eq!(parse("noatime,relatime").attributes.words(), ["relatime"]);
        assert_eq!(mount_flags(parse("ro,nosuid,nodev,noexec").attributes), 0xf);
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        assert!(Options::parse(["tmpcopyup"], "/x").unwrap_err().to_string().contains("tmpcopyup of /x"));
    }
}
