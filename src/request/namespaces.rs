//! Which namespaces a container has of its own: `--pid`, `--ipc`, `--uts`, `--cgroupns`, `--userns`.

use serde::{Deserialize, Serialize};

use super::Invalid;
use crate::cli::RunArgs;

/// The namespaces beside network and mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// `--pid`
    pub pid: Pid,
    /// `--ipc`
    pub ipc: Ipc,
    /// `--uts host`
    pub uts_host: bool,
}

/// The PID namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pid {
    /// A new one.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of a container, by name or id.
    Container(String),
}

/// The IPC namespace, and with it /dev/shm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ipc {
    /// A new one that no other container may join.
    #[default]
    Private,
    /// A new one that others may join.
    Shareable,
    /// A new one, without /dev/shm.
    None,
    /// The host's.
    Host,
    /// That of a container, by name or id.
    Container(String),
}

impl Namespaces {
    pub(super) fn from_args(args: &RunArgs) -> Result<Namespaces, Invalid> {
        let uts_host = match args.uts.as_deref().unwrap_or_default() {
            "" => false,
            "host" => true,
            text => {
                return Err(Invalid::value("--uts", text, "invalid UTS mode; use host, or leave it out"));
            }
        };
        match args.cgroupns.as_deref().unwrap_or_default() {
            "" | "private" => {}
            "host" => {
                return Err(Invalid::value(
                    "--cgroupns",
                    "host",
                    "sharing the host's cgroup namespace is not available yet; use private",
                ));
            }
            text => {
                return Err(Invalid::value("--cgroupns", text, "invalid CGROUP mode; use private"));
            }
        }
        match args.userns.as_deref().unwrap_or_default() {
            "" | "host" => {}
            text => {
                return Err(Invalid::value("--userns", text, "user namespaces are not available yet; use host"));
            }
        }
        Ok(Namespaces { pid: pid(args)?, ipc: ipc(args)?, uts_host })
    }
}

fn pid(args: &RunArgs) -> Result<Pid, Invalid> {
    let text = args.pid.as_deref().unwrap_or_default();
    Ok(match text {
        "" | "private" => Pid::Private,
        "host" => Pid::Host,
        _ => Pid::Container(other("--pid", text, "invalid PID mode; use host or container:NAME")?),
    })
}

fn ipc(args: &RunArgs) -> Result<Ipc, Invalid> {
    let text = args.ipc.as_deref().unwrap_or_default();
    Ok(match text {
        "" | "private" => Ipc::Private,
        "shareable" => Ipc::Shareable,
        "none" => Ipc::None,
        "host" => Ipc::Host,
        _ => Ipc::Container(other(
            "--ipc",
            text,
            "invalid IPC mode; use private, shareable, none, host or container:NAME",
        )?),
    })
}

fn other(flag: &str, text: &str, why: &str) -> Result<String, Invalid> {
    match text.strip_prefix("container:") {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(Invalid::value(flag, text, why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_dockers() {
        let some = |text: &str| Some(text.to_owned());
        let args = RunArgs {
            pid: some("container:a"),
            ipc: some("shareable"),
            uts: some("host"),
            cgroupns: some("private"),
            userns: some("host"),
            ..RunArgs::default()
        };
        let expected = Namespaces { pid: Pid::Container("a".into()), ipc: Ipc::Shareable, uts_host: true };
        assert_eq!(Namespaces::from_args(&args), Ok(expected));
        assert_eq!(Namespaces::from_args(&RunArgs::default()), Ok(Namespaces::default()));
        let wrong = [
            RunArgs { pid: some("foo"), ..RunArgs::default() },
            RunArgs { pid: some("container:"), ..RunArgs::default() },
            RunArgs { ipc: some("foo"), ..RunArgs::default() },
            RunArgs { uts: some("container:a"), ..RunArgs::default() },
            RunArgs { cgroupns: some("host"), ..RunArgs::default() },
            RunArgs { userns: some("1000"), ..RunArgs::default() },
        ];
        for args in wrong {
            assert!(Namespaces::from_args(&args).is_err());
        }
    }
}
