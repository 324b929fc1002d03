//! Kernel settings below /proc/sys. The plan knows the old value, so that undo can bring it back.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use crate::undo::{Residue, Undone};
use crate::{Command, Error, Result};

/// Operations on kernel settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Writes a setting that has another value now.
    Write {
        /// Path below /proc/sys, such as `net/ipv4/ip_forward` (a link's name may hold dots).
        key: String,
        /// The value found; None for a setting of a link that the same plan makes: it goes with the link.
        old: Option<String>,
        /// The value to be.
        new: String,
        /// What the setting is good for.
        why: String,
    },
}

impl Op {
    pub(crate) fn residue(&self) -> Option<Residue> {
        let Op::Write { key, old, new, .. } = self;
        Some(Residue::Sysctl { key: key.clone(), old: old.clone()?, new: new.clone() })
    }

    pub(crate) fn explain(&self) -> Vec<Command> {
        let Op::Write { key, new, why, .. } = self;
        vec![(format!("echo {new} > /proc/sys/{key}"), why.clone())]
    }

    pub(crate) fn apply(&self) -> Result<()> {
        let Op::Write { key, new, .. } = self;
        write(key, new)
    }
}

/// Brings the old value back when the value still is ours.
pub(crate) fn undo(key: &str, old: &str, new: &str) -> Result<Undone> {
    match read(key)? {
        None => Ok(Undone::NotThere),
        Some(value) if value == new => write(key, old).map(|()| Undone::Removed),
        Some(value) if value == old => Ok(Undone::NotThere),
        Some(value) => Ok(Undone::NotOurs(format!("/proc/sys/{key} was set to {value}"))),
    }
}

/// Whether settings can be changed here at all; some sandboxes have /proc/sys read-only.
pub(crate) fn writable() -> bool {
    rustix::fs::statvfs("/proc/sys/net").is_ok_and(|data| !data.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// The setting's value without its newline; None when this kernel (or link) has no such setting.
pub(crate) fn read(key: &str) -> Result<Option<String>> {
    match fs::read_to_string(path_of(key)?) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::system(format!("read /proc/sys/{key}"), error)),
    }
}

pub(crate) fn write(key: &str, value: &str) -> Result<()> {
    fs::write(path_of(key)?, value).map_err(|error| Error::system(format!("write {value} to /proc/sys/{key}"), error))
}

/// Keys come from a journal too, so each is checked here.
fn path_of(key: &str) -> Result<String> {
    if key.starts_with('/') || key.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(Error::Refused(format!("{key:?} is no kernel setting")));
    }
    Ok(format!("/proc/sys/{key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_below_proc_sys() {
        for key in ["../../etc/passwd", "/etc/passwd", "net//x", "net/../../../etc/passwd", ""] {
            assert!(path_of(key).is_err(), "{key}");
        }
        assert!(path_of("net/ipv4/conf/br.5/route_localnet").is_ok());
    }
}
