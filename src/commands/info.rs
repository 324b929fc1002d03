//! `info`: what the engine is, and what is in force.

use anyhow::{Result, anyhow};
use images::Store;
use runtime::cgroup::Layout;

use super::Engine;
use crate::cli::InfoArgs;
use crate::config::{Config, KEYS};
use crate::containers;
use crate::format::info::{InfoView, Limits, print};
use crate::processes;
use crate::state::Status;

/// Prints it.
pub fn info(engine: &Engine, args: &InfoArgs) -> Result<u8> {
    let view = view(engine)?;
    print!("{}", print(&view, args.format.as_deref())?);
    Ok(0)
}

fn view(engine: &Engine) -> Result<InfoView> {
    let states = containers::all(&engine.roots);
    let paused = states.iter().filter(|state| state.is_alive() && state.status == Status::Paused).count();
    let running = states.iter().filter(|state| state.is_alive()).count() - paused;
    let layout = Layout::read().unwrap_or_default();
    let has = |controller: &str| layout.home(controller).is_some();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let uname = rustix::system::uname();
    let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1");
    let limits = Limits {
        memory: has("memory"),
        swap: layout.has_swap_limit(),
        cpu: has("cpu"),
        cpuset: has("cpuset"),
        pids: has("pids"),
    };
    let missing = [
        (limits.memory, "No memory limit support"),
        (limits.swap, "No swap limit support"),
        (limits.cpu, "No cpu cfs quota support"),
        (limits.cpuset, "No cpuset support"),
        (limits.pids, "No pids limit support"),
    ];
    Ok(InfoView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        id: format!("{:08x}", crate::network::mark(&engine.roots.root)),
        running,
        paused,
        stopped: states.len() - running - paused,
        images: Store::open(&engine.roots.root).and_then(|store| store.images()).map_or(0, |images| images.len()),
        backing: backing(&engine.roots.root),
        cgroup_version: if layout.v1.is_empty() { "2" } else { "1" }.to_owned(),
        cgroup_layout: super::inspect::layout_name(&layout).to_owned(),
        limits,
        forwarding,
        kernel: uname.release().to_string_lossy().into_owned(),
        system: system("PRETTY_NAME"),
        system_version: system("VERSION_ID"),
        architecture: uname.machine().to_string_lossy().into_owned(),
        cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get()),
        memory: processes::total_memory(),
        name: uname.nodename().to_string_lossy().into_owned(),
        root: engine.roots.root.display().to_string(),
        time: crate::log::now(),
        config: in_force(engine)?,
        warnings: missing.into_iter().filter(|(has, _)| !has).map(|(_, text)| text.to_owned()).collect(),
    })
}

/// Each key with its value and where that comes from.
fn in_force(engine: &Engine) -> Result<Vec<(String, String, String)>> {
    let files = Config::read(&engine.roots.root).map_err(|why| anyhow!(why))?;
    let network = crate::facts::default_network(engine, crate::host_netns::is_machines_own());
    let default = |key: &str| match key {
        "firewall" => netsetup::Backend::default().to_string(),
        "publish_mode" => "dnat".to_owned(),
        "publish_address" => "0.0.0.0".to_owned(),
        "bridge" => network.bridge.clone(),
        "bip" => bip(&network),
        "mtu" => "as the route to the outside".to_owned(),
        "subnet_pools" => crate::network::pools::defaults(),
        "dns" => "as /etc/resolv.conf".to_owned(),
        "log_max_size" => "10m".to_owned(),
        "log_max_file" => "3".to_owned(),
        _ => String::new(),
    };
    KEYS.into_iter()
        .map(|key| {
            let source = Config::source(&engine.roots.root, key).map_err(|why| anyhow!(why))?;
            let (value, source) = match (engine.config.value(key), source) {
                (Some(value), _) if files.value(key).as_ref() != Some(&value) => {
                    (value, "--firewall or MINIDOCK_FIREWALL".to_owned())
                }
                (Some(value), Some(path)) => (value, path.display().to_string()),
                (Some(value), None) => (value, "default".to_owned()),
                (None, _) => (default(key), "default".to_owned()),
            };
            Ok((key.to_owned(), value, source))
        })
        .collect()
}

/// As one would write it in the configuration: the bridge's address.
fn bip(network: &netsetup::Network) -> String {
    network.ipv4.as_ref().map(|subnet| format!("{}/{}", subnet.gateway, subnet.prefix_len)).unwrap_or_default()
}

/// docker's names of file systems, by statfs's number (statfs(2)).
fn backing(root: &std::path::Path) -> String {
    let kind = rustix::fs::statfs(root).map(|data| data.f_type as u32).unwrap_or(0);
    match kind {
        0xef53 => "extfs",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlayfs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0x6969 => "nfs",
        _ => "<unknown>",
    }
    .to_owned()
}
