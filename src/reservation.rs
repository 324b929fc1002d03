//! The reservation: folder, name, address and host ports of a new container, taken by exclusive creation, so that fifty
//! starts at once can't collide. It's the journal's beginning.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use netsetup::port::{self, Kept, PortError, ReservedPort};
use netsetup::{PortMapping, Protocol, PublishMode, Subnet};
use rustix::fs::{FlockOperation, flock};

use crate::containers;
use crate::files;
use crate::host_netns;
use crate::journal::{self, Birth, FORMAT, Header, Journal};
use crate::log;
use crate::names;
use crate::network;
use crate::network::joining::Joining;
use crate::plan;
use crate::plan::endpoints::Leased;
use crate::plan::image::ImageFacts;
use crate::process::Process;
use crate::recover;
use crate::request::RunRequest;
use crate::request::ports::{HostPort, Publish};
use crate::residue::Residue;
use crate::roots::Roots;
use crate::volume::choose::Chosen;

/// What a container has before anything of it is made. Plain data for the plan.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The container's folder.
    pub folder: PathBuf,
    /// The name.
    pub name: String,
    /// Its addresses in its networks, in their order.
    pub addresses: Vec<Leased>,
    /// Its published ports, with real numbers.
    pub ports: Vec<PortMapping>,
    /// Its volumes, and the binds of `--volumes-from`.
    pub chosen: Chosen,
}

/// Makes the container's folder and its journal, and takes the name. `header` lacks only what is known here.
pub fn begin(
    roots: &Roots,
    id: &str,
    request: &RunRequest,
    image: &ImageFacts,
    chosen: &Chosen,
    session: Option<Process>,
) -> Result<(Journal, String)> {
    let birth = Birth {
        created: log::now(),
        image: image.name.clone(),
        args: plan::arguments(request, image)?,
        labels: plan::labels(request, image),
    };
    let header = Header {
        minidock_journal: FORMAT,
        owner: id.to_string(),
        boot_id: journal::boot_id(),
        auto_remove: request.remove,
        netns: host_netns::current(),
        image: (!image.id.is_empty()).then(|| image.id.clone()),
        birth: Some(birth),
        session,
        volumes: chosen.volumes.iter().map(|volume| volume.name.clone()).collect(),
        other: serde_json::Map::new(),
    };
    let journal = {
        // Held until the journal is locked: a folder without a locked journal is taken for a left-over.
        let containers = File::open(roots.containers()).context("cannot open the containers' folder")?;
        flock(&containers, FlockOperation::LockShared).context("cannot lock the containers' folder")?;
        let folder = roots.container(id);
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(|error| cannot_make(&folder, error))?;
        let anonymous = chosen.volumes.iter().filter(|volume| volume.anonymous);
        let volumes = anonymous.map(|volume| Residue::Volume { name: volume.name.clone(), id: id.to_string() });
        let first: Vec<_> = [Residue::Folder { path: folder.clone() }].into_iter().chain(volumes).collect();
        Journal::create(&folder.join("journal"), &header, &first)?
    };
    let taken = match request.name.as_deref() {
        Some(name) => take_wanted_name(roots, &journal, name, id),
        None => take_any_name(roots, &journal, id),
    };
    match taken {
        Ok(name) => Ok((journal, name)),
        Err(error) => {
            for problem in recover::undo(roots, &journal, recover::Scope::Container) {
                eprintln!("minidock: warning: {}", crate::error::text(&problem));
            }
            Err(error)
        }
    }
}

fn cannot_make(folder: &std::path::Path, error: std::io::Error) -> anyhow::Error {
    let way_out = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room there, or use another --root",
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => "; use a writable --root",
        _ => "",
    };
    anyhow!("cannot make the container's folder {}: {}{way_out}", folder.display(), crate::error::io_text(&error))
}

fn take_name(roots: &Roots, journal: &Journal, name: &str, id: &str) -> Result<Option<String>> {
    journal.record(&[Residue::Name { name: name.to_string(), id: id.to_string() }])?;
    files::take_name(roots, name, id)
}

fn take_any_name(roots: &Roots, journal: &Journal, id: &str) -> Result<String> {
    for attempt in 0..100 {
        let name = names::from_id(id, attempt);
        // Looked at first, so that the journal doesn't fill with names that others have.
        if files::name_owner(roots, &name).is_none() && take_name(roots, journal, &name, id)?.is_none() {
            return Ok(name);
        }
    }
    bail!("found no free name for the container; give one with --name")
}

fn take_wanted_name(roots: &Roots, journal: &Journal, name: &str, id: &str) -> Result<String> {
    journal.record(&[Residue::Name { name: name.to_string(), id: id.to_string() }])?;
    take_new_name(roots, name, id).map(|()| name.to_string())
}

/// Takes a name that the journal has already, or says who has it.
pub fn take_new_name(roots: &Roots, name: &str, id: &str) -> Result<()> {
    for _ in 0..5 {
        let Some(owner) = files::take_name(roots, name, id)? else { return Ok(()) };
        if !recover::wait_if_ending(roots, &owner)? {
            return Err(conflict(name, &owner));
        }
    }
    bail!("the name {name} is taken again and again by others; choose another")
}

/// The same without waiting for a former owner that is just being removed: a monitor has no time for that.
pub fn take_free_name(roots: &Roots, name: &str, id: &str) -> Result<()> {
    match files::take_name(roots, name, id)? {
        None => Ok(()),
        Some(owner) => Err(conflict(name, &owner)),
    }
}

/// Waits for a name's owner that is just being removed, and fails if it is to keep the name.
pub fn wait_for_name(roots: &Roots, name: &str) -> Result<()> {
    match files::name_owner(roots, name) {
        Some(owner) if !recover::wait_if_ending(roots, &owner)? => Err(conflict(name, &owner)),
        _ => Ok(()),
    }
}

fn conflict(name: &str, owner: &str) -> anyhow::Error {
    anyhow!(
        "Conflict. The container name \"/{name}\" is already in use by container {:?}. You have to remove (or rename) \
         that container to be able to reuse that name: minidock rm -f {name}",
        recover::short(owner)
    )
}

/// A journal's entries with one more name, among those that outlive a run, which come first.
pub fn with_name(entries: &[Residue], name: &str, id: &str) -> Vec<Residue> {
    let (of_run, mut all): (Vec<Residue>, Vec<Residue>) = entries.iter().cloned().partition(Residue::ends_with_run);
    all.push(Residue::Name { name: name.to_string(), id: id.to_string() });
    all.extend(of_run);
    all
}

/// Leases an address of each IP version that the network has, under its lock.
pub fn take_addresses(
    roots: &Roots,
    journal: &Journal,
    joining: &Joining,
    in_use: &BTreeSet<IpAddr>,
    id: &str,
) -> Result<Leased> {
    let mut in_use = in_use.clone();
    in_use.extend(crate::router::addresses_of_sleeping(roots, &joining.network.name));
    let asked = Asked { roots, journal, joining, in_use: &in_use, id };
    let mut leased = Leased::default();
    let network = &joining.network;
    for (subnet, wished, into) in [
        (&network.ipv4, joining.wish.ipv4.map(IpAddr::from), &mut leased.ipv4),
        (&network.ipv6, joining.wish.ipv6.map(IpAddr::from), &mut leased.ipv6),
    ] {
        if let Some(subnet) = subnet {
            *into = Some(asked.take(subnet, wished)?);
        }
    }
    Ok(leased)
}

/// The error for an address that somebody has, with the container's name.
fn taken(roots: &Roots, leases: &Path, address: IpAddr) -> String {
    let owner = netsetup::lease::owner(leases, address).unwrap_or_default();
    let name = crate::state::State::read(&roots.container(&owner)).ok().flatten().map(|state| state.name);
    let by = name.map_or_else(|| recover::short(&owner).to_owned(), |name| format!("container {name}"));
    // docker's words first.
    format!("Address already in use: cannot give the address {address}: {by} has it; choose another one")
}

/// Who asks for an address, and where.
struct Asked<'a> {
    roots: &'a Roots,
    journal: &'a Journal,
    joining: &'a Joining,
    /// Addresses that others have without a lease of ours.
    in_use: &'a BTreeSet<IpAddr>,
    id: &'a str,
}

impl Asked<'_> {
    fn take(&self, subnet: &Subnet, wished: Option<IpAddr>) -> Result<IpAddr> {
        let (roots, network) = (self.roots, &self.joining.network);
        for attempt in 0..2 {
            let taken = match wished {
                Some(address) => self.try_wished(subnet, address)?,
                None => self.try_any(subnet)?,
            };
            match taken {
                Some(address) => return Ok(address),
                // Perhaps only dead containers' addresses are left: give those back, then look once more.
                None if attempt == 0 => drop(recover::recover_all(roots)),
                None => {}
            }
        }
        match wished {
            Some(address) => Err(anyhow!(taken(roots, &roots.leases(&network.name), address))),
            None => Err(anyhow!(
                "network {} has no free address left in {}; remove containers that you don't need",
                network.name,
                subnet.range.map_or_else(|| subnet.to_string(), |(first, length)| format!("{first}/{length}"))
            )),
        }
    }

    fn try_wished(&self, subnet: &Subnet, address: IpAddr) -> Result<Option<IpAddr>> {
        netsetup::lease::check_wanted(&self.joining.network, subnet, self.in_use, address)?;
        let leases = self.leases()?;
        let _lock = self.lock()?;
        if netsetup::lease::owner(&leases, address).is_some() {
            return Ok(None);
        }
        self.claim(&leases, address)
    }

    fn try_any(&self, subnet: &Subnet) -> Result<Option<IpAddr>> {
        let leases = self.leases()?;
        let _lock = self.lock()?;
        for address in netsetup::lease::candidates(&leases, subnet, self.in_use) {
            if netsetup::lease::owner(&leases, address).is_none()
                && let Some(address) = self.claim(&leases, address)?
            {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    fn claim(&self, leases: &Path, address: IpAddr) -> Result<Option<IpAddr>> {
        let network = self.joining.network.name.clone();
        self.journal.record(&[Residue::Lease { network, address, id: self.id.to_string() }])?;
        Ok(netsetup::lease::claim(leases, self.id, address)?.then_some(address))
    }

    fn leases(&self) -> Result<PathBuf> {
        let leases = self.roots.leases(&self.joining.network.name);
        if !leases.is_dir() {
            files::ensure_folder(&leases)?;
            if self.joining.wish.is_default() {
                let (network, mark) = (&self.joining.network, network::mark(&self.roots.root));
                let docker = self.joining.facts.firewall.beside_docker()
                    || (host_netns::is_machines_own() && docker_is_installed());
                let shared = network.bridge == "docker0" && docker;
                for subnet in network.subnets() {
                    if shared {
                        // dockerd takes docker0 for its own whenever it starts, and counts from the subnet's beginning.
                        netsetup::lease::start_far(&leases, subnet, mark);
                    } else if self.joining.facts.bridge.is_some() {
                        // Another engine made the bridge; its idle containers can't be seen.
                        netsetup::lease::start_at(&leases, subnet, mark);
                    }
                }
            }
        }
        Ok(leases)
    }

    /// The network's lock, once it is sure that nobody has removed the network meanwhile.
    fn lock(&self) -> Result<File> {
        let (roots, name) = (self.roots, self.joining.network.name.as_str());
        let lock = network::lock(roots, name)?;
        if !self.joining.wish.is_default() {
            let now = network::definition::read(roots, name)?;
            if now.is_none_or(|now| now.id != self.joining.network.id) {
                network::remove::remove_folder(&roots.network(name));
                bail!("network {name} not found: it has just been removed");
            }
        }
        Ok(lock)
    }
}

/// Whether a dockerd runs here or may be started.
fn docker_is_installed() -> bool {
    let places =
        ["/run/docker.sock", "/run/docker.pid", "/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd"];
    places.iter().any(|place| Path::new(place).exists())
}

/// Reserves the host's ports: sockets that are bound and don't listen, the kernel's own register of who has what.
pub fn take_ports(
    roots: &Roots,
    wanted: &[Publish],
    into: Option<&Joining>,
    mode: impl Fn(Protocol, IpAddr) -> PublishMode,
) -> Result<(Vec<PortMapping>, Sockets)> {
    let (mut mappings, mut sockets) = (Vec::with_capacity(wanted.len()), Sockets::default());
    let any6 = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    for publish in wanted {
        let mapping = |socket: &ReservedPort| PortMapping {
            protocol: publish.protocol,
            host_address: socket.address(),
            host_port: socket.port(),
            container_port: publish.container_port,
            mode: mode(publish.protocol, socket.address()),
        };
        let by_proxy = mode(publish.protocol, any6) == PublishMode::Proxy;
        let on_both = publish.both && into.is_some_and(|joining| on_both(joining, publish, wanted.len(), by_proxy));
        let (first, second) = if on_both { take_pair(roots, publish)? } else { (take_port(roots, publish)?, None) };
        for socket in std::iter::once(first).chain(second) {
            let mapping = mapping(&socket);
            mappings.push(mapping);
            // The proxy serves ::1 in any case, which no DNAT can.
            let served = mapping.mode == PublishMode::Proxy
                || (mapping.host_address == any6 && wanted.len() <= MOST_PROXIED && mapping.protocol != Protocol::Sctp);
            if served {
                sockets.served.push((mapping, socket));
            } else {
                sockets.kept.push(socket).context("cannot keep the published ports from others")?;
            }
        }
    }
    Ok((mappings, sockets))
}

/// Sockets at the host's ports.
#[derive(Default)]
pub struct Sockets {
    /// Those that the proxy listens on.
    pub served: Vec<(PortMapping, ReservedPort)>,
    /// Those that only keep the port from others.
    pub kept: Kept,
}

/// More ports than this of a container without IPv6 aren't published for IPv6 clients: each would be a proxy.
pub const MOST_PROXIED: usize = 256;

/// Whether a port that names no address is published for IPv6 clients too.
fn on_both(joining: &Joining, publish: &Publish, count: usize, by_proxy: bool) -> bool {
    if !joining.facts.ipv6.available || (joining.network.ipv6.is_none() && publish.protocol == Protocol::Sctp) {
        return false;
    }
    !by_proxy || count <= MOST_PROXIED
}

/// The same number in both IP versions.
fn take_pair(roots: &Roots, publish: &Publish) -> Result<(ReservedPort, Option<ReservedPort>)> {
    let mut rest = 20;
    loop {
        let first = take_port(roots, publish)?;
        let number = first.port();
        match port::reserve(publish.protocol, Ipv6Addr::UNSPECIFIED, number) {
            Ok(second) => return Ok((first, Some(second))),
            // A kernel without IPv6, or with it switched off.
            Err(PortError::NoProtocol { .. } | PortError::NoSuchAddress { .. }) => return Ok((first, None)),
            Err(PortError::Other { errno: rustix::io::Errno::AFNOSUPPORT, .. }) => return Ok((first, None)),
            Err(PortError::InUse { .. }) if rest > 0 && publish.host == HostPort::Random => rest -= 1,
            Err(PortError::InUse { .. })
                if rest > 0 && matches!(publish.host, HostPort::FirstFree(_, last) if number < last) =>
            {
                let HostPort::FirstFree(_, last) = publish.host else { return Ok((first, None)) };
                let next = Publish { host: HostPort::FirstFree(number + 1, last), ..*publish };
                drop(first);
                return take_pair(roots, &next);
            }
            Err(error) => return Err(name_port_holder(roots, publish, number, error)),
        }
    }
}

fn take_port(roots: &Roots, publish: &Publish) -> Result<ReservedPort> {
    let (first, last) = match publish.host {
        HostPort::Random => (0, 0),
        HostPort::Fixed(port) => (port, port),
        HostPort::FirstFree(first, last) => (first, last),
    };
    let mut last_error = None;
    for number in first..=last {
        match port::reserve(publish.protocol, publish.host_address, number) {
            Ok(socket) => return Ok(socket),
            Err(error) => last_error = Some((number, error)),
        }
    }
    let Some((number, error)) = last_error else { bail!("the port range {first}-{last} is empty") };
    Err(name_port_holder(roots, publish, number, error))
}

/// The container that has published the port, where it is one of ours, is a better name for the holder than its monitor.
fn name_port_holder(roots: &Roots, publish: &Publish, number: u16, error: PortError) -> anyhow::Error {
    let ours = containers::all(roots).into_iter().find(|state| {
        state.is_alive()
            && state.ports().any(|port| {
                port.host_port == number
                    && port.protocol == publish.protocol
                    && (port.host_address == publish.host_address
                        || port.host_address.is_unspecified()
                        || publish.host_address.is_unspecified())
            })
    });
    match (ours, &error) {
        (Some(state), PortError::InUse { .. }) => anyhow!(
            "cannot publish port {number}: port is already allocated by container {} ({}); choose another with -p, or \
             remove it: minidock rm -f {}",
            state.name,
            recover::short(&state.id),
            state.name
        ),
        _ => anyhow!(error),
    }
}
