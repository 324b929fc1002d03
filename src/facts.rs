//! Facts: what this host is, as far as this request needs to know. Read once; nothing is changed.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use netsetup::{Backend, Host, Network, Subnet};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::commands::Engine;
use crate::containers;
use crate::network;
use crate::network::joining::Joining;
use crate::plan::limits::DeviceNumbers;
use crate::plan::paths::ContainerFolder;
use crate::process::Process;
use crate::request::RunRequest;
use crate::request::mounts::Mount;
use crate::request::namespaces::{Ipc, Pid};
use crate::request::network::NetworkMode;
use crate::state::State;
use crate::view;

/// Name of the network that containers are in unless told otherwise.
pub const DEFAULT_NETWORK: &str = "bridge";
/// A resolv.conf or hosts file larger than this isn't one.
const MAX_CONFIG_BYTES: usize = 1 << 20;

/// A device node of the host that the container gets.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceNode {
    /// Where in the container.
    pub path: PathBuf,
    /// Block device (else a character device).
    pub block: bool,
    /// Numbers.
    pub numbers: DeviceNumbers,
    /// Permission bits, owner, group.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `rwm` or a part of it.
    pub permissions: String,
}

/// The container whose namespaces are joined.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Its PID 1.
    pub process: Process,
    /// Its name for itself.
    pub hostname: String,
    /// Its id.
    pub id: String,
    /// The folder of the hosts, hostname and resolv.conf that it has, perhaps those of a third container.
    pub etc_folder: PathBuf,
}

/// What the plan knows of the host.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Cgroups, capabilities, limits, kernel.
    pub runtime: runtime::Facts,
    /// The networks that it joins and what's there of them, in the order of its cards; none in other modes.
    pub networks: Vec<Joining>,
    /// The uplink, with `--net-rate`; with `--net-cls` where there is one.
    pub uplink: Option<netsetup::tc::Uplink>,
    /// Where only that makes `--net-cls` hold: whether some filter of the kernel's cgroup classifier is there.
    pub cgroup_filter: bool,
    /// `/etc/resolv.conf`, or systemd-resolved's real list of servers.
    pub resolv_conf: String,
    /// `/etc/hosts`, for `--network host`.
    pub hosts: String,
    /// The host's name.
    pub hostname: String,
    /// CPUs whose thermal counters are to be masked.
    pub thermal_cpus: Vec<u32>,
    /// How many CPUs the host has.
    pub cpus: u64,
    /// Numbers of the block devices that throttles name.
    pub block_devices: BTreeMap<PathBuf, DeviceNumbers>,
    /// The nodes of `--device`, or all with `--privileged`.
    pub devices: Vec<DeviceNode>,
    /// Sources of `-v` that don't exist and are to be made.
    pub missing_sources: Vec<PathBuf>,
    /// `--network container:X`.
    pub joined_net: Option<Joined>,
    /// `--pid container:X`.
    pub joined_pid: Option<Joined>,
    /// `--ipc container:X`.
    pub joined_ipc: Option<Joined>,
    /// The host's path of X's `/dev/shm`.
    pub joined_shm: Option<PathBuf>,
}

/// What the facts are for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Purpose {
    /// To make a container that is started later: those that it joins need not run yet.
    Create,
    /// To start one now.
    Start,
}

/// Reads what the request needs to be started.
pub fn read(engine: &Engine, request: &RunRequest, host: &mut Host, early: Option<OwnedFd>) -> Result<Facts> {
    read_for(Purpose::Start, engine, request, host, early)
}

/// Reads what the request needs. `early`: where [`read_early`] writes a part of it.
pub fn read_for(
    purpose: Purpose,
    engine: &Engine,
    request: &RunRequest,
    host: &mut Host,
    early: Option<OwnedFd>,
) -> Result<Facts> {
    let mode = &request.network.mode;
    let networks = match mode {
        NetworkMode::Bridge if request.network.alone => vec![],
        NetworkMode::Bridge => network::joining::read(engine, &request.network.attach, host)?,
        _ => vec![],
    };
    let join = |wanted: Option<&str>| wanted.map(|name| joined(purpose, engine, name)).transpose();
    let net = if let NetworkMode::Container(name) = mode { Some(name.as_str()) } else { None };
    let pid = if let Pid::Container(name) = &request.namespaces.pid { Some(name.as_str()) } else { None };
    let ipc = if let Ipc::Container(name) = &request.namespaces.ipc { Some(name.as_str()) } else { None };
    let runtime = match early.and_then(take_early) {
        Some(facts) => facts,
        None => runtime::Facts::read()?,
    };
    let asks = request.network.net_cls.is_some() && runtime.cgroup.v2.is_none();
    let cgroup_filter = asks && netsetup::survey::filter_kinds(host)?.iter().any(|kind| kind == "cgroup");
    Ok(Facts {
        runtime,
        cgroup_filter,
        networks,
        uplink: match (request.network.shaping.rate, request.network.net_cls) {
            (Some(_), _) => Some(netsetup::tc::Uplink::read(host)?),
            (None, Some(_)) => netsetup::tc::Uplink::read(host).ok(),
            (None, None) => None,
        },
        resolv_conf: resolv_conf(),
        hosts: small_file("/etc/hosts"),
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        thermal_cpus: runtime::defaults::thermal_cpus(),
        cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
        block_devices: block_devices(request)?,
        devices: devices(request)?,
        missing_sources: missing_sources(request)?,
        joined_net: join(net)?,
        joined_pid: join(pid)?,
        joined_shm: ipc.map(|name| shared_memory(purpose, engine, name)).transpose()?,
        joined_ipc: join(ipc)?,
    })
}

/// For a process that has nothing else to do while the one behind `pipe` starts a container: reads facts for it. That one
/// reads them itself where none come.
pub fn read_early(pipe: Option<OwnedFd>) {
    let (Some(pipe), Ok(facts)) = (pipe, runtime::Facts::read()) else { return };
    // More than that would wait for the reader.
    if let Some(bytes) = serde_json::to_vec(&facts).ok().filter(|bytes| bytes.len() <= MOST_EARLY_BYTES) {
        let _ = rustix::io::write(&pipe, &bytes);
    }
}

/// What a pipe takes without a reader.
const MOST_EARLY_BYTES: usize = 64 << 10;

/// The facts of [`read_early`], unless its process is slow (stopped, say).
fn take_early(pipe: OwnedFd) -> Option<runtime::Facts> {
    let mut bytes = Vec::with_capacity(4096);
    let patience = Timespec { tv_sec: 0, tv_nsec: EARLY_PATIENCE_NS };
    while poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&patience)).is_ok_and(|ready| ready > 0) {
        match rustix::io::read(&pipe, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => break,
            Ok(_) => bytes.reserve(4096),
            Err(_) => return None,
        }
    }
    serde_json::from_slice(&bytes).ok()
}

/// About what reading them oneself takes twice.
const EARLY_PATIENCE_NS: i64 = 1_000_000;

/// The network that a router serves, as it is on this host, and what is there of it.
pub fn router_network(engine: &Engine, name: &str, host: &mut Host) -> Result<(Network, netsetup::Facts)> {
    let definition = network::catalog::find(engine, name)?;
    let mut wanted = network::catalog::for_the_kernel(engine, &definition)?;
    if wanted.driver != netsetup::Driver::Bridge {
        bail!("network {name} has no bridge that a router could be plugged into: it needs the driver bridge");
    }
    if wanted.mtu == 0 {
        wanted.mtu = netsetup::egress_mtu(host);
    }
    let facts = netsetup::Facts::read(host, &wanted)?;
    Ok((facts.adopt(&wanted), facts))
}

/// The network that containers are in unless told otherwise. Only the default root uses the plain names in the machine's
/// own network namespace; elsewhere (a test host) nobody else can want them.
pub fn default_network(engine: &Engine, machines_own: bool) -> Network {
    let own_names = machines_own && !engine.roots.is_default();
    let mark = network::mark(&engine.roots.root);
    let (bridge, gateway, table) = if own_names {
        let octet = 18 + (mark % 14) as u8;
        (format!("md{mark:08x}"), Ipv4Addr::new(172, octet, 0, 1), format!("minidock_{mark:08x}"))
    } else {
        ("docker0".to_string(), Ipv4Addr::new(172, 17, 0, 1), "minidock".to_string())
    };
    let (gateway, prefix_len) = engine.config.bip.unwrap_or((gateway, 16));
    Network {
        ipv4: Some(Subnet::new(gateway, prefix_len)),
        mtu: engine.config.mtu.unwrap_or(1500),
        table,
        backend: engine.config.firewall.unwrap_or(Backend::Nftables),
        ..Network::new(DEFAULT_NETWORK, engine.config.bridge.as_deref().unwrap_or(&bridge))
    }
}

fn joined(purpose: Purpose, engine: &Engine, name: &str) -> Result<Joined> {
    let state =
        joinable(purpose, engine, name).with_context(|| format!("cannot join the namespaces of container {name}"))?;
    let process = match (state.process, purpose) {
        (Some(process), _) => process,
        (None, Purpose::Create) => Process { pid: 0, start_ticks: 0 }, // only looked at, never joined
        (None, Purpose::Start) => bail!("container {name} is not running"),
    };
    Ok(Joined { process, hostname: state.config.hostname, etc_folder: state.etc_folder, id: state.id })
}

fn joinable(purpose: Purpose, engine: &Engine, name: &str) -> Result<State> {
    match purpose {
        Purpose::Create => containers::find(&engine.roots, name),
        Purpose::Start => containers::find_running(&engine.roots, name),
    }
}

/// docker: only a container that says so shares its memory.
fn shared_memory(purpose: Purpose, engine: &Engine, name: &str) -> Result<PathBuf> {
    let state = joinable(purpose, engine, name)
        .with_context(|| format!("cannot join the IPC namespace of container {name}"))?;
    match view::request(&state)?.namespaces.ipc {
        Ipc::Shareable => Ok(ContainerFolder::new(&engine.roots.container(&state.id)).shared_memory()),
        Ipc::Host => Ok(PathBuf::from("/dev/shm")),
        Ipc::Container(owner) => {
            bail!("container {name} has the IPC namespace of {owner}: use --ipc container:{owner}")
        }
        Ipc::Private | Ipc::None => {
            bail!("cannot join IPC of container {name}: non-shareable IPC; start that one with --ipc shareable")
        }
    }
}

/// systemd-resolved's stub on 127.0.0.53 can't be reached from a container; its real servers are in another file.
fn resolv_conf() -> String {
    let text = small_file("/etc/resolv.conf");
    let servers: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("nameserver")).map(str::trim).collect();
    if servers == ["127.0.0.53"] {
        let real = small_file("/run/systemd/resolve/resolv.conf");
        if !real.is_empty() {
            return real;
        }
    }
    text
}

/// Empty when it's missing: a container without name servers is better than none.
fn small_file(path: &str) -> String {
    let mut bytes = fs::read(path).unwrap_or_default();
    bytes.truncate(MAX_CONFIG_BYTES);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn block_devices(request: &RunRequest) -> Result<BTreeMap<PathBuf, DeviceNumbers>> {
    let limits = &request.limits;
    let lists =
        [&limits.device_read_bps, &limits.device_write_bps, &limits.device_read_iops, &limits.device_write_iops];
    let mut devices = BTreeMap::new();
    for throttle in lists.into_iter().flatten() {
        let path = &throttle.device;
        let data = fs::metadata(path).with_context(|| format!("cannot limit the device {}", path.display()))?;
        if !data.file_type().is_block_device() {
            bail!("cannot limit {}: not a block device; lsblk lists those of this host", path.display());
        }
        devices.insert(path.clone(), numbers(&data));
    }
    Ok(devices)
}

fn numbers(data: &fs::Metadata) -> DeviceNumbers {
    (i64::from(rustix::fs::major(data.rdev())), i64::from(rustix::fs::minor(data.rdev())))
}

fn devices(request: &RunRequest) -> Result<Vec<DeviceNode>> {
    let mut nodes = Vec::new();
    if request.security.privileged {
        collect_nodes(Path::new("/dev"), Path::new("/dev"), "rwm", 0, &mut nodes)?;
    }
    for device in &request.devices {
        let data = fs::metadata(&device.host).map_err(|error| {
            anyhow!(
                "error gathering device information while adding custom device {:?}: {}",
                device.host,
                crate::error::io_text(&error)
            )
        })?;
        if data.is_dir() {
            collect_nodes(&device.host, &device.container, &device.permissions, 0, &mut nodes)?;
        } else {
            match node(&device.container, &data, &device.permissions) {
                Some(node) => nodes.push(node),
                None => bail!("cannot give {} to the container: not a device node", device.host.display()),
            }
        }
    }
    Ok(nodes)
}

fn node(path: &Path, data: &fs::Metadata, permissions: &str) -> Option<DeviceNode> {
    let kind = data.file_type();
    (kind.is_block_device() || kind.is_char_device()).then(|| DeviceNode {
        path: path.to_path_buf(),
        block: kind.is_block_device(),
        numbers: numbers(data),
        mode: data.mode() & 0o7777,
        uid: data.uid(),
        gid: data.gid(),
        permissions: permissions.to_string(),
    })
}

/// Folders below /dev that the container has of its own, as docker leaves them out too.
const OWN_FOLDERS: [&str; 5] = ["pts", "shm", "fd", "mqueue", ".lxc"];

fn collect_nodes(from: &Path, to: &Path, permissions: &str, depth: u32, nodes: &mut Vec<DeviceNode>) -> Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("cannot list the devices in {}", from.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        // Not followed: links in /dev lead to devices that are listed themselves, or outside.
        let Ok(data) = fs::symlink_metadata(entry.path()) else { continue };
        if data.is_dir() && depth < 4 && !OWN_FOLDERS.iter().any(|own| name == *own) {
            collect_nodes(&entry.path(), &to.join(&name), permissions, depth + 1, nodes)?;
        } else if name != "console"
            && let Some(node) = node(&to.join(&name), &data, permissions)
        {
            nodes.push(node);
        }
    }
    Ok(())
}

fn missing_sources(request: &RunRequest) -> Result<Vec<PathBuf>> {
    let mut missing = Vec::new();
    for mount in &request.mounts {
        let Mount::Bind { source, create_source, .. } = mount else { continue };
        match fs::metadata(source) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && *create_source => {
                missing.push(source.clone());
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}; make it, or use -v, which \
                 makes it as a folder",
                source.display()
            ),
            Err(error) => return Err(error).with_context(|| format!("cannot mount {}", source.display())),
        }
    }
    Ok(missing)
}
