//! Names: a small DNS server for one container, on 127.0.0.11 inside of it, driven by its owner's poll loop.
//!
//! It answers for the containers of the networks that its container is in (`names`), and passes everything else on to
//! the host's name servers (`upstream`). It has no thread and never blocks: poll [`Resolver::fd`] for input with
//! [`Resolver::timeout`], then call [`Resolver::ready`], which does a bounded amount of work. Whoever floods it hurts
//! nobody but the container itself, and there only those who ask at the same moment.

mod clients;
mod message;
pub mod names;
mod op;
mod passing;
mod redirect;
mod resolver;
mod sockets;
#[cfg(test)]
mod tests;
mod upstream;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

pub use op::Op;
pub use resolver::Resolver;
pub use sockets::Sockets;

/// Where the container's resolv.conf sends its questions: docker's address.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// How many descriptors a resolver has at most: its own, its connections, and two sockets for each question that waits.
pub const DESCRIPTORS: u64 = 4 + clients::MOST as u64 + 2 * passing::MOST as u64;
/// The port that our sockets really have: above those that the kernel gives to clients.
const PORT: u16 = 65353;
/// The table in the container's namespace.
pub const TABLE: &str = "minidock_names";

/// A network that the container is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The network's name: `web.NETWORK` is `web` there.
    pub network: String,
    /// The network's register of names.
    pub folder: PathBuf,
    /// Nothing leaves this network. A container that is in such networks only gets no answer from outside.
    pub internal: bool,
}

/// What a container in these networks is told when it asks for a name: the first network where somebody is called so, and
/// the addresses there.
pub fn look_up<'a>(scopes: &'a [Scope], name: &str) -> Option<(&'a Scope, Vec<IpAddr>)> {
    let name = name.to_ascii_lowercase();
    scopes.iter().find_map(|scope| {
        let found = names::View::new(scope.folder.clone()).known(&name, &scope.network).to_vec();
        (!found.is_empty()).then_some((scope, found))
    })
}
