//! Operations: a container enters the register of names, and gets its own server's sockets.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::names::{self, Entry};
use super::{ADDRESS, Sockets, redirect};
use crate::netns::NewNetns;
use crate::shell::quoted;
use crate::undo::Residue;
use crate::{Command, Error, Result};

/// Operations on names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Makes the resolver's sockets and its redirect in the container's namespace; they go with it.
    Listen,
    /// Tells the others in a network the container's names.
    Publish {
        /// The network's register.
        folder: PathBuf,
        /// The container's id.
        id: String,
        /// Its names and addresses.
        entry: Entry,
    },
}

impl Op {
    pub(crate) fn residue(&self) -> Option<Residue> {
        match self {
            Op::Listen => None,
            Op::Publish { folder, id, .. } => Some(Residue::Names { folder: folder.clone(), id: id.clone() }),
        }
    }

    pub(crate) fn explain(&self) -> Vec<Command> {
        match self {
            Op::Listen => vec![(
                format!("nsenter -t $pid -n nft -f - <<'EOF'\n{}EOF", redirect::script()),
                format!("questions for names, to {ADDRESS} in the container, reach the monitor's socket there"),
            )],
            Op::Publish { folder, id, entry } => {
                let folder = quoted(&folder.display().to_string());
                vec![
                    (format!("mkdir -p {folder}"), "the network's register of names".to_owned()),
                    (
                        format!("ln -s {} {folder}/{id}", quoted(&entry.text())),
                        "what the others in the network find the container by".to_owned(),
                    ),
                ]
            }
        }
    }

    pub(crate) fn apply(&self, netns: Option<&mut NewNetns>) -> Result<()> {
        match (self, netns) {
            (Op::Publish { folder, id, entry }, _) => names::publish(folder, id, entry),
            (Op::Listen, Some(netns)) => {
                netns.resolver = Some(Sockets::inside(netns.fd())?);
                Ok(())
            }
            (Op::Listen, None) => Err(Error::Refused("the container has no network namespace of its own".to_owned())),
        }
    }
}
