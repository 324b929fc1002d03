//! The documents of `inspect`: docker's names, docker's order, docker's shape.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use netsetup::Protocol;

use super::document::{Document, object};
use super::human;
use super::mounts;
use super::template::{FormatError, Template};
use super::view::{ContainerView, HealthView, MountView, OverlayView, PlaceView, StateView, Status};
use crate::health::Healthcheck;
use crate::request::RunRequest;
use crate::request::attach;
use crate::request::limits::{MemorySwap, Throttle};
use crate::request::namespaces::{Ipc, Pid};
use crate::request::network::NetworkMode;
use crate::request::ports::HostPort;
use crate::request::security::Seccomp;

/// Prints documents: a JSON list indented by four, with `--format json` one without spaces, with a template a line each.
/// Gives the text, and why it isn't all: as with docker, a template that fails at the second container has printed the
/// first, and ends the line.
///
/// # Errors
/// The template can't be read.
pub fn print_some(documents: &[Document], format: Option<&str>) -> Result<(String, Option<FormatError>), FormatError> {
    let mut text = String::new();
    match format.unwrap_or_default() {
        "" => text = indented(documents),
        "json" => text = serde_json::to_string(documents).unwrap_or_default() + "\n",
        template => {
            let template = Template::parse(template)?;
            for document in documents {
                match template.render(document.to_value()) {
                    Ok(line) => text += &(line + "\n"),
                    Err(error) => return Ok((text + "\n", Some(error))),
                }
            }
            if documents.is_empty() {
                text.push('\n'); // as docker, where none was found
            }
        }
    }
    Ok((text, None))
}

/// As [`print_some`], but all or nothing.
///
/// # Errors
/// The template is wrong.
pub fn print(documents: &[Document], format: Option<&str>) -> Result<String, FormatError> {
    match print_some(documents, format)? {
        (text, None) => Ok(text),
        (_, Some(error)) => Err(error),
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
        "RestartCount": view.restarts,
        "Driver": if view.overlay.is_some() { "overlay2" } else { "rootfs" },
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": Document::NoList,
        "HostConfig": host_config(view.request),
        "GraphDriver": match &view.overlay {
            Some(overlay) => graph_driver(&overlay.lower, Some(overlay), &view.id),
            None => graph_driver(&[], None, &view.id),
        },
        "SizeRw": Document::omittable(view.size.map(|size| size.own)),
        "SizeRootFs": Document::omittable(view.size.map(|size| size.own + size.image)),
        "Mounts": view.mounts.iter().map(mount).collect::<Vec<_>>(),
        "Config": config(view),
        "NetworkSettings": network_settings(view),
    }
}

fn state(state: &StateView) -> Document {
    object! {
        "Status": state.status.name(),
        // docker: one that waits for its restart counts as running.
        "Running": matches!(state.status, Status::Running | Status::Paused | Status::Restarting),
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error.as_str(),
        "StartedAt": human::rfc3339(state.started),
        "FinishedAt": human::rfc3339(state.finished),
        "Health": Document::omittable(state.health.as_ref().map(health)),
    }
}

/// The check, with docker's order of fields.
pub(super) fn healthcheck(check: &Healthcheck) -> Document {
    let some = |number: u64| Document::omittable((number != 0).then_some(number));
    object! {
        "Test": Document::omittable(check.test.clone()),
        "Interval": some(check.interval),
        "Timeout": some(check.timeout),
        "StartPeriod": some(check.start_period),
        "StartInterval": some(check.start_interval),
        "Retries": some(check.retries),
    }
}

fn health(health: &HealthView) -> Document {
    object! {
        "Status": health.status.as_str(),
        "FailingStreak": health.failing_streak,
        "Log": health.log.iter().map(|probe| object! {
            "Start": probe.start.as_str(),
            "End": probe.end.as_str(),
            "ExitCode": probe.exit_code,
            "Output": probe.output.as_str(),
        }).collect::<Vec<_>>(),
    }
}

/// overlayfs's folders, the topmost lower one first.
pub(super) fn graph_driver(layers: &[PathBuf], overlay: Option<&OverlayView>, id: &str) -> Document {
    let mut data = BTreeMap::new();
    let mut put = |key: &str, path: String| {
        data.insert(key.to_owned(), path);
    };
    if overlay.is_some() {
        put("ID", id.to_owned());
    }
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
    object! {
        "Type": mount.kind.as_str(),
        "Name": Document::omittable(mount.name.as_str()),
        "Source": &mount.source,
        "Destination": &mount.destination,
        "Driver": Document::omittable(if mount.kind == "volume" { "local" } else { "" }),
        "Mode": mount.mode.as_str(),
        "RW": !mount.read_only,
        "Propagation": mount.propagation.as_str(),
    }
}

/// docker's set of ports: `{"80/tcp": {}}`.
fn port_set<'a>(ports: impl IntoIterator<Item = &'a (u16, Protocol)>) -> Document {
    Document::Map(ports.into_iter().map(|(port, protocol)| (format!("{port}/{protocol}"), object! {})).collect())
}

fn config(view: &ContainerView) -> Document {
    let request = view.request;
    let config = &view.config;
    let attached = !request.detach;
    let volumes: BTreeMap<_, _> = config.volumes.iter().map(|path| (path.clone(), object! {})).collect();
    object! {
        "Hostname": config.hostname.as_str(),
        "Domainname": config.domainname.as_str(),
        "User": config.user.as_str(),
        "AttachStdin": attached && request.interactive,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "ExposedPorts": Document::omittable(port_set(&config.exposed)),
        "Tty": request.terminal,
        "OpenStdin": request.interactive,
        "StdinOnce": attached && request.interactive,
        "Env": config.env.clone(),
        "Cmd": Document::list_or_null(config.cmd.clone()),
        "Healthcheck": Document::omittable(config.healthcheck.as_ref().map(healthcheck)),
        "Image": view.image_name.as_str(),
        "Volumes": if volumes.is_empty() { None::<bool>.into() } else { Document::Map(volumes) },
        "WorkingDir": config.working_dir.as_str(),
        "Entrypoint": Document::list_or_null(config.entrypoint.clone()),
        "OnBuild": Document::NoList,
        "Labels": &config.labels,
        "StopSignal": Document::omittable(config.stop_signal.as_str()),
        "StopTimeout": Document::omittable(request.stop_timeout_s),
    }
}

fn network_mode(request: &RunRequest) -> String {
    match &request.network.mode {
        NetworkMode::Bridge => request.network.attach.first().map_or("bridge", |first| &first.network).to_owned(),
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
        crate::request::LogDriver::Journald => "journald",
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
    let mut ulimits: Vec<_> = security.ulimits.iter().collect();
    ulimits.sort_by_key(|limit| &limit.name);
    let open = security.privileged || security.unconfined_system_paths;
    let paths = |paths: Vec<String>| if open { Document::NoList } else { paths.into() };
    object! {
        "Binds": Document::list_or_null(mounts::binds(request)),
        "ContainerIDFile": request.cid_file.as_ref().map_or(String::new(), |path| path.to_string_lossy().into_owned()),
        "LogConfig": object! { "Type": log, "Config": &request.log_options.typed },
        "NetworkMode": network_mode(request),
        "PortBindings": Document::Map(bindings.into_iter().map(|(port, list)| (port, Document::List(list))).collect()),
        "RestartPolicy": object! {
            "Name": request.restart.name(),
            "MaximumRetryCount": request.restart.most(),
        },
        "AutoRemove": request.remove,
        "VolumeDriver": "",
        "VolumesFrom": Document::list_or_null(mounts::volumes_from(request)),
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
        "Tmpfs": Document::omittable(mounts::tmpfs(request)),
        "UTSMode": if request.namespaces.uts_host { "host" } else { "" },
        "UsernsMode": "",
        "ShmSize": request.shm_bytes,
        "Sysctls": Document::omittable(&security.sysctls),
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
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "PidsLimit": limits.pids,
        "Ulimits": ulimits.into_iter().map(|limit| {
            let number = |value: Option<u64>| value.map_or(-1, |value| i64::try_from(value).unwrap_or(i64::MAX));
            object! { "Name": limit.name.as_str(), "Hard": number(limit.hard), "Soft": number(limit.soft) }
        }).collect::<Vec<_>>(),
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "Mounts": Document::omittable(Document::list_or_null(mounts::by_mount(request))),
        "MaskedPaths": paths(runtime::defaults::masked_paths(&[])),
        "ReadonlyPaths": paths(runtime::defaults::readonly_paths()),
        "Init": Document::omittable(if request.init { Some(true) } else { None }),
        // minidock's own.
        "NetCls": Document::omittable(network.net_cls.map(|id| format!("0x{id:08x}"))),
        "PublishMode": Document::omittable(network.publish_mode.map(|mode| match mode {
            netsetup::PublishMode::Dnat => "dnat",
            netsetup::PublishMode::Proxy => "proxy",
        })),
    }
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
    // docker has these fields from before there were several networks, and fills them in for the default one only.
    let none = PlaceView::default();
    let default = network.places.iter().find(|place| place.network == attach::DEFAULT).unwrap_or(&none);
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
        "EndpointID": default.endpoint_id.as_str(),
        "Gateway": gateway(default, true),
        "GlobalIPv6Address": address(default.ipv6),
        "GlobalIPv6PrefixLen": length(default.ipv6),
        "IPAddress": address(default.ipv4),
        "IPPrefixLen": length(default.ipv4),
        "IPv6Gateway": gateway(default, false),
        "MacAddress": mac(default),
        "Networks": Document::Map(network.places.iter().map(|one| (one.network.clone(), place(one))).collect()),
    }
}

fn place(place: &PlaceView) -> Document {
    let mut wished = BTreeMap::new();
    for (key, text) in &place.wished {
        wished.insert((*key).to_owned(), text.clone());
    }
    object! {
        "IPAMConfig": if wished.is_empty() { None::<bool>.into() } else { Document::from(&wished) },
        "Links": Document::NoList,
        "Aliases": Document::list_or_null(place.aliases.clone()),
        "MacAddress": mac(place),
        "DriverOpts": None::<bool>,
        "GwPriority": place.gateway_priority,
        "NetworkID": place.network_id.as_str(),
        "EndpointID": place.endpoint_id.as_str(),
        "Gateway": gateway(place, true),
        "IPAddress": address(place.ipv4),
        "IPPrefixLen": length(place.ipv4),
        "IPv6Gateway": gateway(place, false),
        "GlobalIPv6Address": address(place.ipv6),
        "GlobalIPv6PrefixLen": length(place.ipv6),
        "DNSNames": Document::list_or_null(place.dns_names.clone()),
    }
}

fn address(place: Option<(IpAddr, u8)>) -> String {
    place.map_or(String::new(), |(address, _)| address.to_string())
}

fn length(place: Option<(IpAddr, u8)>) -> u32 {
    place.map_or(0, |(_, length)| length.into())
}

fn gateway(place: &PlaceView, ipv4: bool) -> String {
    place.gateways.iter().find(|gateway| gateway.is_ipv4() == ipv4).map_or(String::new(), IpAddr::to_string)
}

fn mac(place: &PlaceView) -> String {
    place.mac.map_or(String::new(), |mac| mac.map(|byte| format!("{byte:02x}")).join(":"))
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
