//! The plan: request, image, facts and reservation in; everything that will happen out. Pure: no file, no clock, no
//! randomness, no environment. A request that can't work is refused here, whole, before anything has happened.

pub mod endpoints;
pub mod etc;
pub mod image;
pub mod limits;
pub mod names;
pub mod paths;
mod seccomp_file;
pub mod shaping;
mod spec;
#[cfg(test)]
mod tests;
pub mod volumes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use netsetup::Endpoint;
use oci_spec::runtime::Spec;
use runtime::namespaces::Namespace;
use runtime::{Bundle, Rootfs, Seccomp};

use crate::explain::{Command, quote};
use crate::facts::Facts;
use crate::files;
use crate::network::joining::Joining;
use crate::op::Op;
use crate::request::namespaces::Ipc;
use crate::request::network::NetworkMode;
use crate::request::{RunRequest, signal};
use crate::reservation::{MOST_PROXIED, Reservation};
use crate::state::Attachment;
use image::ImageFacts;
use paths::ContainerFolder;
use volumes::Volume;

pub use spec::{OCI_VERSION, arguments, hostname, names_in_hosts};

/// Everything that will happen, in stages. Within a stage nothing depends on anything else.
#[derive(Debug)]
pub struct Plan {
    /// The container's own folders, made once for all its runs.
    pub folders: Vec<Op>,
    /// The files of this run.
    pub files: Vec<Op>,
    /// The net_cls mount, which all containers share.
    pub shared_cgroup: Vec<runtime::cgroup::Op>,
    /// The container's own cgroups.
    pub cgroup: Vec<Op>,
    /// Process, namespaces, mounts: the init lane.
    pub runtime: runtime::Plan,
    /// The device filter, links, addresses, the namespace's name, published ports: the host lane, while init mounts.
    pub endpoint: Vec<Op>,
    /// The OCI configuration.
    pub spec: Spec,
    /// The proxies, as commands.
    pub proxies: Vec<Command>,
    /// The container's places in networks.
    pub attachments: Vec<Attachment>,
    /// The class of its packets: that of `--net-cls`, or the one that `--net-rate` makes.
    pub class: Option<u32>,
    /// The networks whose names the container may ask for; none: it has no resolver of ours.
    pub names: Vec<netsetup::dns::Scope>,
    /// Its volumes, to be filled from the image where they are empty.
    pub volumes: Vec<Volume>,
    /// Signal number of `stop`.
    pub stop_signal: i32,
    /// What the user should know of this host.
    pub warnings: Vec<String>,
}

/// Where the engine keeps things, as far as plans name it.
#[derive(Debug, Clone)]
pub struct Places {
    /// Where net_cls is mounted when the host has it nowhere.
    pub net_cls_mount: PathBuf,
    /// The folder of all networks' run files.
    pub networks: PathBuf,
    /// This very program, for the commands of a script.
    pub program: PathBuf,
    /// Name of the group above all containers' groups.
    pub cgroup_parent: String,
}

/// Works everything out.
pub fn plan(
    request: &RunRequest,
    image: &ImageFacts,
    facts: &Facts,
    reservation: &Reservation,
    places: &Places,
) -> Result<Plan> {
    request.limits.check_cpus(facts.cpus)?;
    refuse_volumes(image)?;
    let folder = ContainerFolder::new(&reservation.folder);
    let spec = spec::spec(request, image, facts, reservation)?;
    let volumes = reservation.chosen.volumes.clone();
    let user = request.user.as_deref().or(Some(image.user.as_str()).filter(|user| !user.is_empty()));
    let rated = shaping::rated(request, facts, &reservation.id)?;
    for joining in &facts.networks {
        let uplink = facts.uplink.as_ref().map(|uplink| uplink.link.as_str());
        shaping::check(&request.network.shaping, &joining.network, uplink, request.network.net_cls.is_some())?;
        let sctp = |port: &netsetup::PortMapping| port.protocol == netsetup::Protocol::Sctp;
        if let Some(port) = reservation.ports.iter().find(|port| sctp(port) && joining.network.no_firewall) {
            bail!(
                "cannot publish port {}/sctp: this kernel has no firewall that leads it on, and the proxy carries tcp and \
                 udp; leave it out, or use --network host",
                port.host_port
            );
        }
    }
    let bundle = Bundle {
        spec: &spec,
        id: &reservation.id,
        rootfs: rootfs(request, image, &folder),
        mounts_extra: &[],
        seccomp: seccomp(request),
        user,
        group_add: &request.groups,
        net_cls: request.network.net_cls,
        class_way: shaping::class_way(request, facts, rated),
        net_cls_mount: &places.net_cls_mount,
        cgroup_parent: &places.cgroup_parent,
        init: request.init,
    };
    let runtime = runtime::plan(&bundle, &facts.runtime)?;
    let (shared, own): (Vec<_>, Vec<_>) =
        runtime.cgroup.iter().cloned().partition(|op| matches!(op, runtime::cgroup::Op::Mount { .. }));
    // The filter's program takes the kernel 0.3 ms to check; nothing of the image runs before "go".
    let (filters, own): (Vec<_>, Vec<_>) =
        own.into_iter().partition(|op| matches!(op, runtime::cgroup::Op::DeviceProgram { .. }));
    let mut cards = endpoints::endpoints(&facts.networks, reservation);
    for card in &mut cards {
        card.may_spoof |= request.security.may_spoof;
    }
    let mut host_lane: Vec<Op> = filters.into_iter().map(Op::Cgroup).collect();
    match (cards.is_empty(), runtime.namespaces.net == Namespace::New) {
        (false, _) => host_lane.extend(endpoints::ops(&facts.networks, &cards, &places.networks)),
        // A namespace of its own without a card (--network none): only its name for `ip netns`.
        (true, true) => host_lane.push(endpoints::name(&reservation.name)),
        (true, false) => {}
    }
    let is_rule = |op: &Op| matches!(op, Op::Net(netsetup::Op::Firewall(_)));
    let at = host_lane.iter().position(is_rule).unwrap_or(host_lane.len());
    host_lane.splice(at..at, shaping::links(request, facts, &cards, rated, places));
    let class = rated.or(request.network.net_cls);
    for (joining, card) in facts.networks.iter().zip(&cards) {
        host_lane.extend(shaping::class(&joining.network, card, class));
    }
    let attachments: Vec<Attachment> =
        facts.networks.iter().zip(&cards).map(|(one, card)| endpoints::attachment(one, card)).collect();
    Ok(Plan {
        folders: folders(image, &folder, &volumes),
        files: etc_files(request, facts, reservation, &cards, &folder)?,
        warnings: warnings(request, facts, reservation, rated),
        names: facts.networks.iter().map(|one| names::scope(&places.networks, &one.network)).collect(),
        shared_cgroup: shared,
        cgroup: own.into_iter().map(Op::Cgroup).collect(),
        endpoint: host_lane,
        proxies: attachments.iter().flat_map(|one| proxy_commands(&places.program, one, &facts.networks)).collect(),
        attachments,
        class,
        runtime,
        spec,
        volumes,
        stop_signal: stop_signal(request, image)?,
    })
}

impl Plan {
    /// The init lane up to where it waits for its network.
    pub fn init_commands(&self) -> Vec<Command> {
        let ops = self.runtime.ops_before_go();
        ops.iter().filter(|op| !matches!(op, runtime::Op::Cgroup(_))).flat_map(runtime::Op::explain).collect()
    }

    /// The init lane from there on, and the proxies, which are noted in `pids`. `detach`: the script goes on while the
    /// program runs.
    pub fn commands_after_network(&self, detach: bool, pids: Option<&str>) -> Vec<Command> {
        let ops = self.runtime.ops_after_go();
        let (program, mounts): (Vec<_>, Vec<_>) = ops.iter().partition(|op| matches!(op, runtime::Op::Process(_)));
        let mut commands: Vec<Command> = mounts.into_iter().flat_map(runtime::Op::explain).collect();
        for (command, why) in &self.proxies {
            commands.push((command.clone(), why.clone()));
            commands.extend(pids.map(|pids| (format!("echo $! >> {pids}"), "for the undo".to_string())));
        }
        for group in &self.runtime.namespaces.cgroups {
            let procs = quote(&group.path.join("cgroup.procs"));
            let why = "this shell too, for the program is its child; nsenter(1) enters namespaces only";
            commands.push((format!("echo $$ > {procs}"), why.to_string()));
        }
        commands.extend(program.into_iter().flat_map(runtime::Op::explain));
        if let Some((command, _)) = commands.last_mut().filter(|_| detach) {
            command.push_str(" </dev/null >/dev/null 2>&1 &");
        }
        commands
    }
}

/// What the user should know: what this host lacks, and what follows from it.
fn warnings(request: &RunRequest, facts: &Facts, reservation: &Reservation, rated: Option<u32>) -> Vec<String> {
    let networks = facts.networks.iter().flat_map(|one| netsetup::warnings(&one.network, &one.facts));
    networks
        .chain(shaping::warning(request, facts, rated))
        .chain(shaping::no_such_class(request, facts))
        .chain(only_ipv4(request, facts, reservation))
        .collect()
}

/// Very many ports of a container without IPv6 aren't published for IPv6 clients.
fn only_ipv4(request: &RunRequest, facts: &Facts, reservation: &Reservation) -> Option<String> {
    let count = request.network.publish.len();
    let into = &facts.networks[endpoints::port_network(&facts.networks)?];
    let wished = count > MOST_PROXIED && request.network.publish.iter().any(|publish| publish.both);
    let served = reservation.ports.iter().any(|port| port.host_address.is_ipv6());
    (wished && into.facts.ipv6.available && !served).then(|| {
        format!(
            "{count} ports are published for IPv4 clients only: without an IPv6 address of the container's each would need \
             a proxy with descriptors of its own, and there are at most {MOST_PROXIED} such; use a network made with --ipv6"
        )
    })
}

/// The image's labels with the user's on top.
pub fn labels(request: &RunRequest, image: &ImageFacts) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = image.labels.iter().cloned().collect();
    labels.extend(request.labels.clone());
    labels
}

/// The proxy is in the container's monitor; by hand it's a command.
fn proxy_commands(program: &Path, attachment: &Attachment, joinings: &[Joining]) -> Vec<Command> {
    let program = quote(program);
    let joining = joinings.iter().find(|joining| joining.network.name == attachment.network);
    let why = |port: &netsetup::PortMapping| {
        let joining = joining?;
        let (network, facts) = (&joining.network, &joining.facts);
        netsetup::publish_mode(netsetup::PublishMode::Dnat, network, facts, port.protocol, port.host_address).1
    };
    let proxied = attachment.ports.iter().filter(|port| port.mode == netsetup::PublishMode::Proxy);
    let command = |port: &netsetup::PortMapping| {
        let line = format!(
            "{program} proxy -proto {} -host-ip {} -host-port {} -container-ip {} -container-port {} </dev/null >/dev/null 2>&1 &",
            port.protocol,
            port.host_address,
            port.host_port,
            attachment.address_for(port.host_address)?,
            port.container_port
        );
        let why = why(port).map(|why| format!(": {why}")).unwrap_or_default();
        Some((line, format!("carries port {} to the container{why}", port.host_port)))
    };
    proxied.filter_map(command).collect()
}

/// CVE-2019-16884, CVE-2022-23648: an image must not have its volume laid over what protects the host, nor outside.
fn refuse_volumes(image: &ImageFacts) -> Result<()> {
    for volume in &image.volumes {
        let clean = volume.is_absolute() && !volume.components().any(|part| part.as_os_str() == "..");
        let own = ["/proc", "/sys", "/dev"].iter().any(|path| volume.starts_with(path));
        if !clean || own || volume == Path::new("/") {
            bail!(
                "the image {} declares the volume {}: volumes can't be there; rebuild the image without it",
                image.name,
                volume.display()
            );
        }
    }
    Ok(())
}

fn rootfs(request: &RunRequest, image: &ImageFacts, folder: &ContainerFolder) -> Rootfs {
    match &image.rootfs {
        Some(path) => Rootfs::Dir(path.clone()),
        None => Rootfs::Overlay {
            lower: image.layers.clone(),
            upper: folder.upper(),
            work: folder.work(),
            merged: folder.merged(),
            volatile: request.remove,
        },
    }
}

fn seccomp(request: &RunRequest) -> Seccomp {
    use crate::request::security::Seccomp as Wanted;
    match &request.security.seccomp {
        Wanted::File { .. } => Seccomp::FromSpec,
        Wanted::Unconfined => Seccomp::Unconfined,
        Wanted::Default if request.security.privileged => Seccomp::Unconfined,
        Wanted::Default => Seccomp::Default,
    }
}

fn stop_signal(request: &RunRequest, image: &ImageFacts) -> Result<i32> {
    let wanted = match (&request.stop_signal, &image.stop_signal) {
        (Some(wanted), _) => *wanted,
        (None, Some(text)) => signal::parse(text)
            .map_err(|why| anyhow!("the image {} has a wrong STOPSIGNAL: {why}; give --stop-signal", image.name))?,
        (None, None) => signal::Signal::TERM,
    };
    Ok(wanted.0)
}

fn folders(image: &ImageFacts, folder: &ContainerFolder, volumes: &[Volume]) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut make = |path: PathBuf, mode: u32, why: &'static str| ops.push(files::Op::Folder { path, mode, why });
    if image.rootfs.is_none() {
        make(folder.upper(), 0o755, "takes the container's changes");
        make(folder.work(), 0o700, "the overlay's own workspace");
    }
    if image.rootfs.is_none() || !volumes.is_empty() {
        make(folder.merged(), 0o755, "where the container's root is mounted");
    }
    ops.into_iter().map(Op::Files).chain(volumes::ops(volumes)).collect()
}

fn etc_files(
    request: &RunRequest,
    facts: &Facts,
    reservation: &Reservation,
    cards: &[Endpoint],
    folder: &ContainerFolder,
) -> Result<Vec<Op>> {
    let mut ops = Vec::new();
    if facts.joined_net.is_none() {
        let gateway = facts.networks.iter().find_map(|one| one.network.subnets().next()).map(|subnet| subnet.gateway);
        let hostname = hostname(request, facts, &reservation.id);
        let hosts = if request.network.mode == NetworkMode::Host && request.network.extra_hosts.is_empty() {
            facts.hosts.clone()
        } else {
            let mut extra = Vec::new();
            for host in &request.network.extra_hosts {
                let address = host.address.or(gateway).ok_or_else(|| {
                    anyhow!("--add-host {}:host-gateway needs the bridge network; give an address instead", host.name)
                })?;
                extra.push((host.name.clone(), address));
            }
            let domainname = request.network.domainname.as_deref().unwrap_or_default();
            etc::hosts(&extra, &etc::own_addresses(cards), &names_in_hosts(&hostname, domainname))
        };
        let dns = etc::Dns {
            servers: &request.network.dns,
            search: &request.network.dns_search,
            options: &request.network.dns_options,
        };
        let way = match (cards.is_empty(), &request.network.mode) {
            (false, _) => etc::Way::Resolver,
            (true, NetworkMode::Host) => etc::Way::Host,
            _ => etc::Way::OwnLoopback,
        };
        let resolv_conf = etc::resolv_conf(&facts.resolv_conf, dns, way);
        let texts = [
            (folder.hosts(), hosts, "names that the container knows"),
            (folder.hostname(), format!("{hostname}\n"), "its own name"),
            (folder.resolv_conf(), resolv_conf, "its name servers"),
        ];
        let mut files: Vec<files::Op> =
            texts.into_iter().map(|(path, text, why)| files::Op::File { path, text, mode: 0o644, why }).collect();
        ops.append(&mut files);
    }
    let sources = facts.missing_sources.iter().map(|path| files::Op::Source { path: path.clone() });
    let shm = (request.namespaces.ipc == Ipc::Shareable)
        .then(|| files::Op::SharedMemory { path: folder.shared_memory(), bytes: request.shm_bytes });
    Ok(sources.chain(shm).chain(ops).map(Op::Files).collect())
}
