//! What can go wrong, in the user's words: what failed, on what, why, what to do.

use std::io;
use std::net::IpAddr;

use crate::PortMapping;

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A variant of its own exists only where a caller matches on it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another rule or map element already leads this host port somewhere.
    #[error("cannot publish {mapping}: {holder} already leads this port elsewhere; choose another host port")]
    PortTaken {
        /// The mapping that was refused.
        mapping: PortMapping,
        /// What holds the port, such as `the nftables map ip minidock ports`.
        holder: String,
    },
    /// The wanted address is leased, in use on the bridge, or has another job.
    #[error("cannot give the address {address}: {why}; choose another one")]
    AddressTaken {
        /// The address that was asked for.
        address: IpAddr,
        /// Who has it.
        why: String,
    },
    /// Every address of the subnet is in use.
    #[error("no free address in {subnet}/{prefix_len}: remove containers, or use a network with a larger subnet")]
    NoAddress {
        /// The subnet's first address.
        subnet: IpAddr,
        /// The subnet's length in bits.
        prefix_len: u8,
    },
    /// The plan can't work on this host; nothing has been changed.
    #[error("{0}")]
    Refused(String),
    /// The kernel (or a program that asks it) said no.
    #[error("cannot {what}: {}{}", reason(.source), detail.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    System {
        /// The action and its object, such as `create the bridge docker0`.
        what: String,
        /// The errno.
        source: io::Error,
        /// The kernel's own words (netlink extended ack) or a hint.
        detail: Option<String>,
    },
}

impl Error {
    /// A system error without further words.
    pub(crate) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error::System { what: what.into(), source: source.into(), detail: None }
    }

    /// The errno behind the error, when there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::System { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// `File exists`, without Rust's `(os error 17)`.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => "permission denied: needs root (CAP_NET_ADMIN)".to_owned(),
        Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_on_what_and_why() {
        let error = Error::System {
            what: "create the bridge docker0".into(),
            source: io::Error::from_raw_os_error(libc::EEXIST),
            detail: Some("name in use".into()),
        };
        assert_eq!(error.to_string(), "cannot create the bridge docker0: File exists (name in use)");
        assert_eq!(error.errno(), Some(libc::EEXIST));
    }
}
