//! `--security-opt`, `--privileged`, `--sysctl`, and the capabilities and ulimits beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::capabilities::CapabilityChanges;
use super::ulimits::{self, Ulimit};
use super::{Invalid, Surroundings, text};
use crate::cli::{RunArgs, boolean};

const FLAG: &str = "--security-opt";

/// What the container may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// All capabilities, all devices, nothing masked, no seccomp rules.
    pub privileged: bool,
    /// Changes of the default capabilities.
    pub capabilities: CapabilityChanges,
    /// PR_SET_NO_NEW_PRIVS: set-uid programs gain nothing.
    pub no_new_privileges: bool,
    /// Which seccomp rules.
    pub seccomp: Seccomp,
    /// Nothing of /proc and /sys is masked or read-only.
    pub unconfined_system_paths: bool,
    /// Its cards may send with addresses that aren't theirs.
    #[serde(default)]
    pub may_spoof: bool,
    /// Limits of each process.
    pub ulimits: Vec<Ulimit>,
    /// Kernel parameters of the container's own namespaces; which are allowed is for the runtime to say.
    pub sysctls: BTreeMap<String, String>,
}

/// The choice of seccomp rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// docker's default rules (none for a privileged container).
    #[default]
    Default,
    /// None.
    Unconfined,
    /// The rules of a file in docker's JSON format.
    File {
        /// Where it is.
        #[serde(with = "text::one")]
        path: PathBuf,
        /// What it says; known to be UTF-8 text, not yet known to be rules.
        json: String,
    },
}

impl Security {
    pub(super) fn gather(args: &RunArgs, around: &Surroundings) -> Result<Security, Invalid> {
        let mut security = Security {
            privileged: args.privileged,
            capabilities: CapabilityChanges::parse(&args.cap_add, &args.cap_drop)?,
            ulimits: ulimits::parse(&args.ulimit)?,
            sysctls: sysctls(&args.sysctl)?,
            ..Security::default()
        };
        for text in &args.security_opt {
            security.option(text, around)?;
        }
        Ok(security)
    }

    fn option(&mut self, text: &str, around: &Surroundings) -> Result<(), Invalid> {
        let wrong = |why: &str| Err(Invalid::value(FLAG, text, why));
        // docker's older form has a colon.
        let (key, value) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
        match (key, value) {
            ("no-new-privileges", "") if key == text => self.no_new_privileges = true,
            ("no-new-privileges", value) => match boolean(value) {
                Ok(on) => self.no_new_privileges = on,
                Err(_) => return wrong("not true or false"),
            },
            ("seccomp", "unconfined") => self.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin") => self.seccomp = Seccomp::Default,
            ("seccomp", "") => return wrong("write seccomp=unconfined or seccomp=FILE"),
            ("seccomp", file) => {
                let path = around.cwd.join(Path::new(file));
                let content = around.read(FLAG, &path)?;
                let Ok(json) = String::from_utf8(content) else {
                    return wrong("the seccomp profile is not UTF-8 text");
                };
                self.seccomp = Seccomp::File { path, json };
            }
            ("apparmor", "unconfined") | ("label", "disable") => {}
            ("apparmor", _) => {
                return wrong("AppArmor profiles are not supported; leave it out, or use apparmor=unconfined");
            }
            ("label", _) => {
                return wrong("SELinux labels are not supported; leave it out, or use label=disable");
            }
            ("systempaths", "unconfined") => self.unconfined_system_paths = true,
            ("systempaths", _) => return wrong("use systempaths=unconfined"),
            ("net-spoof", "allow") => self.may_spoof = true,
            ("net-spoof", "deny") => self.may_spoof = false,
            ("net-spoof", _) => return wrong("use net-spoof=allow or net-spoof=deny"),
            ("credentialspec", _) => return wrong("it exists on Windows only; leave it out"),
            _ => {
                return wrong(
                    "there are no-new-privileges, seccomp=unconfined|FILE, systempaths=unconfined, net-spoof=allow, \
                     apparmor=unconfined, label=disable",
                );
            }
        }
        Ok(())
    }
}

/// The form of a name: parts between dots (or slashes), no way out of /proc/sys.
fn sysctls(flags: &[String]) -> Result<BTreeMap<String, String>, Invalid> {
    let mut found = BTreeMap::new();
    for text in flags {
        let wrong = |why: &str| Invalid::value("--sysctl", text, why);
        let (name, value) =
            text.split_once('=').ok_or_else(|| wrong("write NAME=VALUE, such as net.core.somaxconn=1024"))?;
        let name = name.replace('/', ".");
        let part = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        if !name.contains('.') || !name.split('.').all(part) || name.len() > 256 {
            return Err(wrong("not the name of a kernel parameter; write one such as net.core.somaxconn"));
        }
        if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') || value.len() > 4096 {
            return Err(wrong("the value holds control characters or is too long"));
        }
        found.insert(name, value.to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(options: &[&str]) -> Result<Security, Invalid> {
        let around = Surroundings {
            cwd: "/cwd".into(),
            environment: &|_| None,
            read: &|_, path| match path.to_str() {
                Some("/cwd/rules.json") => Ok(b"{}".to_vec()),
                Some("/bytes") => Ok(vec![0xff]),
                _ => Err(Invalid::new("open: no such file")),
            },
        };
        let security_opt = options.iter().map(|text| (*text).to_owned()).collect();
        Security::gather(&RunArgs { security_opt, ..RunArgs::default() }, &around)
    }

    #[test]
    fn security_options() {
        assert!(gather(&["no-new-privileges"]).unwrap().no_new_privileges);
        assert!(gather(&["no-new-privileges:true"]).unwrap().no_new_privileges);
        assert!(!gather(&["no-new-privileges=true", "no-new-privileges=false"]).unwrap().no_new_privileges);
        assert_eq!(gather(&["seccomp=unconfined"]).unwrap().seccomp, Seccomp::Unconfined);
        assert_eq!(
            gather(&["seccomp=rules.json"]).unwrap().seccomp,
            Seccomp::File { path: "/cwd/rules.json".into(), json: "{}".into() }
        );
        assert!(gather(&["systempaths=unconfined"]).unwrap().unconfined_system_paths);
        assert_eq!(gather(&["apparmor=unconfined", "label=disable", "label:disable"]), Ok(Security::default()));
        for text in [
            "",
            "foo",
            "seccomp",
            "seccomp=",
            "seccomp=/nope",
            "seccomp=/bytes",
            "apparmor=docker-default",
            "label=type:x",
            "no-new-privileges=maybe",
            "no-new-privileges=",
            "systempaths=x",
            "credentialspec=x",
        ] {
            assert!(gather(&[text]).is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_kernel_parameters_have_a_form() {
        let read = |text: &str| sysctls(&[text.to_owned()]);
        assert!(read("net.ipv4.ip_forward=1").is_ok());
        assert_eq!(read("net/core/somaxconn=1").unwrap().keys().collect::<Vec<_>>(), ["net.core.somaxconn"]);
        for text in ["foo", "=1", "net=1", "net..x=1", "net.../x=1", "../etc/passwd=1", "net.a b=1", "net.x=1\n2", "."]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
