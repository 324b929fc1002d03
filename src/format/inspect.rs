//! The documents of `inspect`: docker's names, docker's order, docker's shape.

use std::collections::BTreeMap;
use std::path::PathBuf;

use netsetup::Protocol;

use super::document::{Document, object};
use super::human;
use super::template::{FormatError, Template};
use super::view::{ContainerView, MountView, NetworkView, OverlayView, StateView, Status};
use crate::request::RunRequest;
use crate::request::limits::{MemorySwap, Throttle};
use crate::request::mounts::Mount;
use crate::request::namespaces::{Ipc, Pid};
use crate::request::network::NetworkMode;
use crate::request::ports::HostPort;
use crate::request::security::Seccomp;

/// Prints documents: a JSON list indented by four, with `--format json` one without spaces, with a template a line each.
///
/// # Errors
/// The template is wrong. (What was found before the error isn't lost to docker's users either: print in order.)
pub fn print(documents: &[Document], format: Option<&str>) -> Result<String, FormatError> {
    match format.unwrap_or_default() {
        "" => Ok(indented(documents)),
        "json" => Ok(serde_json::to_string(documents).unwrap_or_default() + "\n"),
        template => {
            let template = Template::parse(template)?;
            documents.iter().map(|document| Ok(template.render(document.to_value())? + "\n")).collect()
        }
    }
}

fn indented(documents: &[Document]) -> String {
    use serde::Serialize;
    let mut out = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut to = serde_json::Serializer::with_formatter(&mut out, indent);
    // Only a failing writer or a map with odd keys can fail; here is neither.
    let _ = documents.serialize(&mut to);
    String::from_utf8_lossy(&out).into_owned() + "\n"
}

/// The document of a container.
pub fn container(view: &ContainerView) -> Document {
    object! {
        "Id": view.id.as_str(),
        "Created": human::rfc3339(Some(view.created)),
        "Path": view.path.as_str(),
        "Args": view.args.clone(),
        "State": state(&view.state),
        "Image": view.image_id.as_str(),
        "ResolvConfPath": &view.resolv_conf_path,
        "HostnamePath": &view.hostname_path,
        "HostsPath": &view.hosts_path,
        "LogPath": &view.log_path,
        "Name": format!("/{}", view.name),
        "RestartCount": 0,
        "Driver": if view.overlay.is_some() { "overlay2" } else { "rootfs" },
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": Document::NoList,
        "HostConfig": host_config(view.request),
        "GraphDriver": match &view.overlay {
            Some(overlay) => graph_driver(&overlay.lower, Some(overlay)),
            None => graph_driver(&[], None),
        },
        "Mounts": view.mounts.iter().map(mount).collect::<Vec<_>>(),
        "Config": config(view),
        "NetworkSettings": network_settings(view),
    }
}

fn state(state: &StateView) -> Document {
    object! {
        "Status": state.status.name(),
        "Running": matches!(state.status, Status::Running | Status::Paused),
        "Paused": state.status == Status::Paused,
        "Restarting": false,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error.as_str(),
        "StartedAt": human::rfc3339(state.started),
        "FinishedAt": human::rfc3339(state.finished),
    }
}

/// overlayfs's folders, the topmost lower one first.
pub(super) fn graph_driver(layers: &[PathBuf], overlay: Option<&OverlayView>) -> Document {
    let mut data = BTreeMap::new();
    let mut put = |key: &str, path: String| {
        data.insert(key.to_owned(), path);
    };
    let lower = match overlay {
        Some(_) => layers,
        // An image has an upper of its own: its topmost layer.
        None => layers.split_last().map_or(layers, |(top, below)| {
            put("UpperDir", top.to_string_lossy().into_owned());
            below
        }),
    };
    if !lower.is_empty() {
        put("LowerDir", lower.iter().rev().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(":"));
    }
    if let Some(overlay) = overlay {
        put("UpperDir", overlay.upper.to_string_lossy().into_owned());
        put("WorkDir", overlay.work.to_string_lossy().into_owned());
        put("MergedDir", overlay.merged.to_string_lossy().into_owned());
    }
    object! { "Data": &data, "Name": "overlay2" }
}

fn mount(mount: &MountView) -> Document {
    let mut fields = vec![("Type", Document::from(mount.kind.as_str()))];
    if !mount.name.is_empty() {
        fields.push(("Name", mount.name.as_str().into()));
    }
    fields.push(("Source", (&mount.source).into()));
    fields.push(("Destination", (&mount.destination).into()));
    if mount.kind == "volume" {
        fields.push(("Driver", "local".into()));
    }
    fields.push(("Mode", mount.mode.as_str().into()));
    fields.push(("RW", (!mount.read_only).into()));
    fields.push(("Propagation", mount.propagation.as_str().into()));
    Document::Struct(fields)
}

/// docker's set of ports: `{"80/tcp": {}}`.
fn port_set<'a>(ports: impl IntoIterator<Item = &'a (u16, Protocol)>) -> Document {
    Document::Map(ports.into_iter().map(|(port, protocol)| (format!("{port}/{protocol}"), object! {})).collect())
}

fn config(view: &ContainerView) -> Document {
    let request = view.request;
    let config = &view.config;
    let attached = !request.detach;
    let mut fields = vec![
        ("Hostname", Document::from(config.hostname.as_str())),
        ("Domainname", "".into()),
        ("User", config.user.as_str().into()),
        ("AttachStdin", (attached && request.interactive).into()),
        ("AttachStdout", attached.into()),
        ("AttachStderr", attached.into()),
    ];
    if !config.exposed.is_empty() {
        fields.push(("ExposedPorts", port_set(&config.exposed)));
    }
    let volumes = config.volumes.iter().map(|path| (path.clone(), object! {})).collect::<BTreeMap<_, _>>();
    fields.extend([
        ("Tty", request.terminal.into()),
        ("OpenStdin", request.interactive.into()),
        ("StdinOnce", (attached && request.interactive).into()),
        ("Env", config.env.clone().into()),
        ("Cmd", Document::list_or_null(config.cmd.clone())),
        ("Image", view.image_name.as_str().into()),
        ("Volumes", if volumes.is_empty() { None::<bool>.into() } else { Document::Map(volumes) }),
        ("WorkingDir", config.working_dir.as_str().into()),
        ("Entrypoint", Document::list_or_null(config.entrypoint.clone())),
        ("OnBuild", Document::NoList),
        ("Labels", (&config.labels).into()),
    ]);
    if !config.stop_signal.is_empty() {
        fields.push(("StopSignal", config.stop_signal.as_str().into()));
    }
    if let Some(seconds) = request.stop_timeout_s {
        fields.push(("StopTimeout", seconds.into()));
    }
    Document::Struct(fields)
}

fn network_mode(request: &RunRequest) -> String {
    match &request.network.mode {
        NetworkMode::Bridge => "bridge".to_owned(),
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::Container(name) => format!("container:{name}"),
        NetworkMode::Namespace(path) => format!("ns:{}", path.display()),
    }
}

fn host_config(request: &RunRequest) -> Document {
    let (limits, network, security) = (&request.limits, &request.network, &request.security);
    let binding = |publish: &crate::request::ports::Publish| {
        let address =
            if publish.host_address.is_unspecified() { String::new() } else { publish.host_address.to_string() };
        let port = match publish.host {
            HostPort::Random => String::new(),
            HostPort::Fixed(port) => port.to_string(),
            HostPort::FirstFree(first, last) => format!("{first}-{last}"),
        };
        object! { "HostIp": address, "HostPort": port }
    };
    let mut bindings: BTreeMap<String, Vec<Document>> = BTreeMap::new();
    for publish in &network.publish {
        bindings.entry(format!("{}/{}", publish.container_port, publish.protocol)).or_default().push(binding(publish));
    }
    let log = match request.log {
        crate::request::LogDriver::JsonFile => "json-file",
        crate::request::LogDriver::None => "none",
    };
    let pid = match &request.namespaces.pid {
        Pid::Private => String::new(),
        Pid::Host => "host".to_owned(),
        Pid::Container(name) => format!("container:{name}"),
    };
    let ipc = match &request.namespaces.ipc {
        Ipc::Private => "private".to_owned(),
        Ipc::Shareable => "shareable".to_owned(),
        Ipc::None => "none".to_owned(),
        Ipc::Host => "host".to_owned(),
        Ipc::Container(name) => format!("container:{name}"),
    };
    let swap = match limits.memory_swap {
        None => 0,
        Some(MemorySwap::Unlimited) => -1,
        Some(MemorySwap::Bytes(bytes)) => i64::try_from(bytes).unwrap_or(i64::MAX),
    };
    let cpu_set =
        |set: &Option<crate::request::cpus::CpuSet>| set.as_ref().map_or(String::new(), |set| set.text.clone());
    let hosts = network.extra_hosts.iter().map(|host| match host.address {
        Some(address) => format!("{}:{address}", host.name),
        None => format!("{}:host-gateway", host.name),
    });
    object! {
        "Binds": Document::list_or_null(binds(request)),
        "ContainerIDFile": request.cid_file.as_ref().map_or(String::new(), |path| path.to_string_lossy().into_owned()),
        "LogConfig": object! { "Type": log, "Config": &BTreeMap::new() },
        "NetworkMode": network_mode(request),
        "PortBindings": Document::Map(bindings.into_iter().map(|(port, list)| (port, Document::List(list))).collect()),
        "RestartPolicy": object! { "Name": "no", "MaximumRetryCount": 0 },
        "AutoRemove": request.remove,
        "VolumeDriver": "",
        "VolumesFrom": Document::NoList,
        "ConsoleSize": vec![0, 0],
        "CapAdd": Document::list_or_null(security.capabilities.add.clone()),
        "CapDrop": Document::list_or_null(security.capabilities.drop.clone()),
        "CgroupnsMode": "private",
        "Dns": network.dns.iter().map(|address| address.to_string()).collect::<Vec<_>>(),
        "DnsOptions": network.dns_options.clone(),
        "DnsSearch": network.dns_search.clone(),
        "ExtraHosts": Document::list_or_null(hosts),
        "GroupAdd": Document::list_or_null(request.groups.clone()),
        "IpcMode": ipc,
        "Cgroup": "",
        "Links": Document::NoList,
        "OomScoreAdj": limits.oom_score_adj.unwrap_or(0),
        "PidMode": pid,
        "Privileged": security.privileged,
        "PublishAllPorts": network.publish_all,
        "ReadonlyRootfs": request.read_only,
        "SecurityOpt": Document::list_or_null(security_options(request)),
        "Tmpfs": tmpfs(request),
        "UTSMode": if request.namespaces.uts_host { "host" } else { "" },
        "UsernsMode": "",
        "ShmSize": request.shm_bytes,
        "Sysctls": &security.sysctls,
        "Runtime": "minidock",
        "Isolation": "",
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "Memory": limits.memory_bytes.unwrap_or(0),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CgroupParent": "",
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "BlkioWeightDevice": Vec::<String>::new(),
        "BlkioDeviceReadBps": throttles(&limits.device_read_bps),
        "BlkioDeviceWriteBps": throttles(&limits.device_write_bps),
        "BlkioDeviceReadIOps": throttles(&limits.device_read_iops),
        "BlkioDeviceWriteIOps": throttles(&limits.device_write_iops),
        "CpuPeriod": limits.cpu_period_us.unwrap_or(0),
        "CpuQuota": limits.cpu_quota_us.unwrap_or(0),
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": cpu_set(&limits.cpuset_cpus),
        "CpusetMems": cpu_set(&limits.cpuset_mems),
        "Devices": request.devices.iter().map(|device| object! {
            "PathOnHost": &device.host,
            "PathInContainer": &device.container,
            "CgroupPermissions": device.permissions.as_str(),
        }).collect::<Vec<_>>(),
        "DeviceCgroupRules": Document::NoList,
        "DeviceRequests": Document::NoList,
        "MemoryReservation": limits.memory_reservation_bytes.unwrap_or(0),
        "MemorySwap": swap,
        "MemorySwappiness": None::<i64>,
        "OomKillDisable": false,
        "PidsLimit": limits.pids,
        "Ulimits": security.ulimits.iter().map(|limit| {
            let number = |value: Option<u64>| value.map_or(-1, |value| i64::try_from(value).unwrap_or(i64::MAX));
            object! { "Name": limit.name.as_str(), "Hard": number(limit.hard), "Soft": number(limit.soft) }
        }).collect::<Vec<_>>(),
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "Init": if request.init { Some(true) } else { None },
        "NetCls": network.net_cls.map(|id| format!("0x{id:08x}")),
        "PublishMode": network.publish_mode.map(|mode| match mode {
            netsetup::PublishMode::Dnat => "dnat",
            netsetup::PublishMode::Proxy => "proxy",
        }),
    }
}

fn binds(request: &RunRequest) -> Vec<String> {
    let mut binds = Vec::new();
    for mount in &request.mounts {
        if let Mount::Bind { source, target, read_only, .. } = mount {
            let mode = if *read_only { ":ro" } else { "" };
            binds.push(format!("{}:{}{mode}", source.display(), target.display()));
        }
        if let Mount::Volume { name: Some(name), target, read_only, .. } = mount {
            let mode = if *read_only { ":ro" } else { "" };
            binds.push(format!("{name}:{}{mode}", target.display()));
        }
    }
    binds
}

fn tmpfs(request: &RunRequest) -> Document {
    let mounts = request.mounts.iter().filter_map(|mount| match mount {
        Mount::Tmpfs { target, options } => {
            Some((target.to_string_lossy().into_owned(), Document::from(options.join(","))))
        }
        _ => None,
    });
    Document::Map(mounts.collect())
}

fn security_options(request: &RunRequest) -> Vec<String> {
    let security = &request.security;
    let mut options = Vec::new();
    if security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match &security.seccomp {
        Seccomp::Default => {}
        Seccomp::Unconfined => options.push("seccomp=unconfined".to_owned()),
        Seccomp::File { json, .. } => options.push(format!("seccomp={json}")),
    }
    if security.unconfined_system_paths {
        options.push("systempaths=unconfined".to_owned());
    }
    options
}

fn throttles(list: &[Throttle]) -> Document {
    list.iter().map(|throttle| object! { "Path": &throttle.device, "Rate": throttle.rate }).collect::<Vec<_>>().into()
}

fn network_settings(view: &ContainerView) -> Document {
    let network = &view.network;
    let address = |address: Option<std::net::IpAddr>| address.map_or(String::new(), |address| address.to_string());
    let prefix_len = if network.address.is_some() { network.prefix_len } else { 0 };
    let networks = match view.request.network.mode {
        NetworkMode::Bridge => Some(("bridge", network)),
        NetworkMode::None => Some(("none", network)),
        NetworkMode::Host => Some(("host", network)),
        NetworkMode::Container(_) | NetworkMode::Namespace(_) => None,
    };
    object! {
        "Bridge": "",
        "SandboxID": if network.sandbox_key.as_os_str().is_empty() { "" } else { &view.id },
        "SandboxKey": &network.sandbox_key,
        "Ports": ports(view),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": Document::NoList,
        "SecondaryIPv6Addresses": Document::NoList,
        "EndpointID": if network.address.is_some() { view.id.as_str() } else { "" },
        "Gateway": address(network.gateway),
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": address(network.address),
        "IPPrefixLen": u32::from(prefix_len),
        "IPv6Gateway": "",
        "MacAddress": mac(network),
        "Networks": Document::Map(networks.into_iter().map(|(name, network)| (name.to_owned(), object! {
            "IPAMConfig": None::<bool>,
            "Links": Document::NoList,
            "Aliases": Document::NoList,
            "MacAddress": mac(network),
            "DriverOpts": None::<bool>,
            "GwPriority": 0,
            "NetworkID": name,
            "EndpointID": if network.address.is_some() { view.id.as_str() } else { "" },
            "Gateway": address(network.gateway),
            "IPAddress": address(network.address),
            "IPPrefixLen": u32::from(prefix_len),
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": Document::NoList,
        })).collect()),
    }
}

fn mac(network: &NetworkView) -> String {
    network.mac.map_or(String::new(), |mac| mac.map(|byte| format!("{byte:02x}")).join(":"))
}

/// Published ports with where they are; ports that are only exposed with `null`. Nothing when it doesn't run.
fn ports(view: &ContainerView) -> Document {
    if !matches!(view.state.status, Status::Running | Status::Paused) {
        return Document::Map(BTreeMap::new());
    }
    let mut ports: BTreeMap<String, Vec<Document>> = BTreeMap::new();
    if view.request.network.mode == NetworkMode::Bridge {
        ports.extend(view.config.exposed.iter().map(|(port, protocol)| (format!("{port}/{protocol}"), Vec::new())));
    }
    for mapping in &view.network.ports {
        ports
            .entry(format!("{}/{}", mapping.container_port, mapping.protocol))
            .or_default()
            .push(object! { "HostIp": mapping.host_address.to_string(), "HostPort": mapping.host_port.to_string() });
    }
    Document::Map(ports.into_iter().map(|(port, list)| (port, Document::list_or_null(list))).collect())
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
