//! What a container is called in its networks, and where it asks for the names of others.

use std::path::{Path, PathBuf};

use netsetup::dns::names::Entry;
use netsetup::dns::{self, Scope};
use netsetup::{Endpoint, Network};

use crate::op::Op;

/// The register of a network's names. `networks`: the folder of all networks' run files.
pub fn register(networks: &Path, network: &str) -> PathBuf {
    networks.join(network).join("names")
}

/// A network as its containers' resolvers see it.
pub fn scope(networks: &Path, network: &Network) -> Scope {
    Scope { network: network.name.clone(), folder: register(networks, &network.name), internal: network.internal }
}

/// What others in a network find the container by: name, short id, and the aliases that it has there.
pub fn entry(endpoint: &Endpoint, aliases: &[String]) -> Entry {
    let short = endpoint.owner.get(..12).unwrap_or(&endpoint.owner);
    let mut names = vec![endpoint.name.clone(), short.to_string()];
    names.extend_from_slice(aliases);
    Entry { addresses: endpoint.places().map(|place| place.address).collect(), names }
}

/// Enters the container in the network's register.
pub fn publish(networks: &Path, network: &Network, endpoint: &Endpoint, aliases: &[String]) -> Op {
    Op::Net(netsetup::Op::Dns(dns::Op::Publish {
        folder: register(networks, &network.name),
        id: endpoint.owner.clone(),
        entry: entry(endpoint, aliases),
    }))
}

/// Makes the resolver's sockets in the container.
pub fn listen() -> Op {
    Op::Net(netsetup::Op::Dns(dns::Op::Listen))
}
