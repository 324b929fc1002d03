//! `--cap-add`, `--cap-drop`: names, and how they change a container's capabilities.

use serde::{Deserialize, Serialize};

use super::Invalid;

/// capabilities(7), in the order of their numbers (0 to 40).
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

/// Which capabilities are added to the default ones and taken from them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityChanges {
    /// `CAP_…` names, or `ALL`.
    pub add: Vec<String>,
    /// `CAP_…` names, or `ALL`.
    pub drop: Vec<String>,
}

impl CapabilityChanges {
    pub(super) fn parse(add: &[String], drop: &[String]) -> Result<CapabilityChanges, Invalid> {
        let read = |flag: &str, list: &[String]| -> Result<Vec<String>, Invalid> {
            let mut names = Vec::new();
            for text in list {
                let name = name(text).map_err(|why| Invalid::value(flag, text, why))?;
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            Ok(names)
        };
        Ok(CapabilityChanges {
            add: read("--cap-add", add)?,
            drop: read("--cap-drop", drop)?,
        })
    }

    /// The capabilities of a container: docker's rules. `defaults` are the fourteen, `last` is the kernel's highest
    /// number (/proc/sys/kernel/cap_last_cap).
    pub fn resolve(&self, privileged: bool, defaults: &[String], last: u8) -> Vec<String> {
        let all = || {
            NAMES
                .iter()
                .take(usize::from(last) + 1)
                .map(|name| (*name).to_owned())
        };
        let has = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
        let added = self.add.iter().filter(|name| *name != "ALL").cloned();
        if privileged {
            return all().collect();
        }
        if has(&self.drop, "ALL") && has(&self.add, "ALL") {
            return all().collect();
        }
        if has(&self.drop, "ALL") {
            return added.collect();
        }
        if has(&self.add, "ALL") {
            return all().filter(|name| !has(&self.drop, name)).collect();
        }
        let mut kept: Vec<String> = defaults
            .iter()
            .filter(|name| !has(&self.drop, name))
            .cloned()
            .collect();
        for name in added {
            if !has(&kept, &name) {
                kept.push(name);
            }
        }
        kept
    }
}

/// `net_admin`, `NET_ADMIN`, `CAP_NET_ADMIN` → `CAP_NET_ADMIN`.
fn name(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    if upper == "ALL" || upper == "CAP_ALL" {
        return Ok("ALL".to_owned());
    }
    let full = if upper.starts_with("CAP_") {
        upper
    } else {
        format!("CAP_{upper}")
    };
    if NAMES.contains(&full.as_str()) {
        return Ok(full);
    }
    let near = NAMES
        .iter()
        .map(|name| (crate::cli::distance(&full, name), name))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    let hint = near.map_or("see capabilities(7)".to_owned(), |(_, near)| {
        format!("did you mean {near}?")
    });
    Err(format!("invalid capability: {full:?}; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(add: &[&str], drop: &[&str], privileged: bool) -> Vec<String> {
        let list = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let defaults = list(&["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]);
        CapabilityChanges::parse(&list(add), &list(drop))
            .unwrap()
            .resolve(privileged, &defaults, 40)
    }

    #[test]
    fn changes_follow_dockers_rules() {
        assert_eq!(
            resolve(&[], &[], false),
            ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]
        );
        assert_eq!(
            resolve(&["net_admin", "kill"], &["CAP_NET_RAW"], false),
            ["CAP_CHOWN", "CAP_KILL", "CAP_NET_ADMIN"]
        );
        assert_eq!(resolve(&["NET_ADMIN"], &["ALL"], false), ["CAP_NET_ADMIN"]);
        assert_eq!(resolve(&[], &["all"], false), [""; 0]);
        assert_eq!(resolve(&["ALL"], &["SYS_ADMIN"], false).len(), 40);
        assert_eq!(resolve(&[], &["ALL"], true).len(), 41);
        assert_eq!(
            resolve(&["NET_RAW"], &["NET_RAW"], false),
            ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]
        );
    }

    #[test]
    fn unknown_names_get_a_near_miss() {
        let error = CapabilityChanges::parse(&["NET_ADMINN".into()], &[]).unwrap_err();
        assert!(
            error.message.contains("did you mean CAP_NET_ADMIN?"),
            "{error}"
        );
        assert!(CapabilityChanges::parse(&[String::new()], &[]).is_err());
        assert!(CapabilityChanges::parse(&[], &["x".repeat(100_000)]).is_err());
    }
}
