//! The OCI configuration of a container: docker's defaults with the image's and the request's wishes on top.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use oci_spec::runtime::{
    Linux, LinuxCapabilities, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespace, LinuxNamespaceType,
    Mount, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, Root, Spec, User,
};
use runtime::{capabilities, defaults};

use super::image::ImageFacts;
use super::paths::ContainerFolder;
use super::{limits, seccomp_file, volumes};
use crate::error::Failure;
use crate::facts::{DeviceNode, Facts, Joined};
use crate::request::environment;
use crate::request::mounts::Mount as UserMount;
use crate::request::namespaces::{Ipc, Pid};
use crate::request::network::NetworkMode;
use crate::request::security::Seccomp;
use crate::request::{Entrypoint, RunRequest};
use crate::reservation::Reservation;
use crate::volume::choose::Chosen;

/// The version of the OCI runtime specification that the configuration follows.
pub const OCI_VERSION: &str = "1.2.0";

/// Puts the configuration together.
pub fn spec(request: &RunRequest, image: &ImageFacts, facts: &Facts, reservation: &Reservation) -> Result<Spec> {
    let folder = ContainerFolder::new(&reservation.folder);
    let mut spec = Spec::default();
    let hostname = hostname(request, facts, &reservation.id);
    let mut root = Root::default();
    root.set_path(image.rootfs.clone().unwrap_or_else(|| folder.merged())).set_readonly(Some(request.read_only));
    spec.set_version(OCI_VERSION.to_string())
        .set_root(Some(root))
        .set_process(Some(process(request, image, facts, &hostname)?))
        // In a namespace that others have, the name is theirs.
        .set_hostname((!request.namespaces.uts_host && facts.joined_net.is_none()).then_some(hostname))
        .set_domainname(request.network.domainname.clone())
        .set_mounts(Some(mounts(request, &reservation.chosen, facts, &folder)?))
        .set_linux(Some(linux(request, facts)?))
        .set_annotations(None);
    Ok(spec)
}

/// The container's own name for itself: `--hostname`, the host's where its network is shared, else the id's beginning.
pub fn hostname(request: &RunRequest, facts: &Facts, id: &str) -> String {
    if let Some(name) = &request.network.hostname {
        return name.clone();
    }
    if request.namespaces.uts_host || request.network.mode == NetworkMode::Host {
        return facts.hostname.clone();
    }
    match &facts.joined_net {
        Some(joined) => joined.hostname.clone(),
        None => id.get(..12).unwrap_or(id).to_string(),
    }
}

/// The container's names in its /etc/hosts, as docker: the full one, and the part before the first dot.
pub fn names_in_hosts(hostname: &str, domainname: &str) -> String {
    let full = match domainname {
        "" => hostname.to_owned(),
        domain => format!("{hostname}.{domain}"),
    };
    match full.split_once('.') {
        Some((short, _)) => format!("{full} {short}"),
        None => full,
    }
}

/// Program and arguments: docker's rules for ENTRYPOINT, CMD and the command line.
pub fn arguments(request: &RunRequest, image: &ImageFacts) -> Result<Vec<String>> {
    let words: Vec<String> = request.command.iter().map(|word| text(word, "an argument")).collect::<Result<_>>()?;
    let (mut arguments, inherit_cmd) = match &request.entrypoint {
        Entrypoint::Image => (image.entrypoint.clone(), true),
        Entrypoint::Cleared => (vec![], false),
        Entrypoint::Program(program) => (vec![text(program, "--entrypoint")?], false),
    };
    if words.is_empty() && inherit_cmd {
        arguments.extend(image.cmd.iter().cloned());
    } else {
        arguments.extend(words);
    }
    if arguments.is_empty() {
        bail!("no command specified: the image {} names none; write it after the image", image.name);
    }
    if arguments[0].is_empty() {
        // docker finds it out when it looks for the program.
        let message = "exec: \"\": executable file not found in $PATH: the program's name is empty".to_string();
        return Err(Failure { code: 127, message }.into());
    }
    Ok(arguments)
}

/// The OCI configuration is JSON, which has no way to say other bytes.
fn text(word: &OsStr, what: &str) -> Result<String> {
    word.to_str()
        .map(str::to_string)
        .ok_or_else(|| anyhow!("{what} is not UTF-8 text: {}; the OCI configuration can't hold it", word.display()))
}

fn process(request: &RunRequest, image: &ImageFacts, facts: &Facts, hostname: &str) -> Result<Process> {
    let environment = environment::of_container(hostname, request.terminal, &image.env, &request.environment);
    let environment: Vec<String> =
        environment.iter().map(|line| text(line, "an environment variable")).collect::<Result<_>>()?;
    let cwd = match &request.working_dir {
        Some(cwd) => cwd.clone(),
        None if image.workdir.is_empty() => PathBuf::from("/"),
        None => Path::new("/").join(&image.workdir),
    };
    let mut process = Process::default();
    process
        .set_terminal(Some(request.terminal))
        .set_user(User::default())
        .set_args(Some(arguments(request, image)?))
        .set_env(Some(environment))
        .set_cwd(cwd)
        .set_capabilities(Some(process_capabilities(request, facts)?))
        .set_rlimits(Some(rlimits(request)?))
        .set_no_new_privileges(Some(request.security.no_new_privileges))
        .set_apparmor_profile(None)
        .set_oom_score_adj(request.limits.oom_score_adj);
    Ok(process)
}

fn process_capabilities(request: &RunRequest, facts: &Facts) -> Result<LinuxCapabilities> {
    let changes = &request.security.capabilities;
    // Nobody can give what he hasn't: in a sandbox minidock itself may lack some, and ALL means all that there are.
    let held = facts.runtime.capabilities;
    let set = if request.security.privileged {
        held
    } else {
        let wanted =
            capabilities::resolve(defaults::capabilities(), &changes.add, &changes.drop, facts.runtime.last_cap)?;
        if changes.add.iter().any(|name| name == "ALL") { capabilities::Set(wanted.0 & held.0) } else { wanted }
    };
    let mut all = LinuxCapabilities::default();
    all.set_bounding(Some(set.to_oci()))
        .set_permitted(Some(set.to_oci()))
        .set_effective(Some(set.to_oci()))
        // CVE-2022-24769: inheritable ones would reach programs with inheritable file capabilities.
        .set_inheritable(None)
        .set_ambient(None);
    Ok(all)
}

fn rlimits(request: &RunRequest) -> Result<Vec<PosixRlimit>> {
    let mut limits = Vec::new();
    for ulimit in &request.security.ulimits {
        let name = ulimit.oci_name();
        let kind: PosixRlimitType = serde_json::from_value(serde_json::Value::String(name))
            .with_context(|| format!("the limit --ulimit {} is not known", ulimit.name))?;
        let (soft, hard) = (ulimit.soft.unwrap_or(u64::MAX), ulimit.hard.unwrap_or(u64::MAX));
        limits.push(PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build()?);
    }
    Ok(limits)
}

fn linux(request: &RunRequest, facts: &Facts) -> Result<Linux> {
    let security = &request.security;
    let mut linux = Linux::default();
    let open = security.privileged || security.unconfined_system_paths;
    linux
        .set_namespaces(Some(namespaces(request, facts)))
        .set_sysctl(sysctls(request)?)
        .set_resources(Some(limits::resources(
            &request.limits,
            facts.runtime.cgroup.has_swap_limit(),
            device_rules(request, facts),
            &facts.block_devices,
        )?))
        .set_devices(Some(facts.devices.iter().map(device).collect()))
        .set_masked_paths((!open).then(|| defaults::masked_paths(&facts.thermal_cpus)))
        .set_readonly_paths((!open).then(defaults::readonly_paths))
        .set_rootfs_propagation(Some("rprivate".to_string()))
        .set_cgroups_path(None);
    if let Seccomp::File { path, json } = &security.seccomp {
        let rules = seccomp_file::read(json, &process_capabilities(request, facts)?, facts.runtime.kernel)
            .with_context(|| format!("cannot use the seccomp profile {}", path.display()))?;
        linux.set_seccomp(Some(rules));
    } else {
        linux.set_seccomp(None);
    }
    Ok(linux)
}

fn namespaces(request: &RunRequest, facts: &Facts) -> Vec<LinuxNamespace> {
    let of = |kind: LinuxNamespaceType, path: Option<PathBuf>| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path);
        namespace
    };
    let file = |joined: &Option<Joined>, name: &str| {
        joined.as_ref().map(|joined| PathBuf::from(format!("/proc/{}/ns/{name}", joined.process.pid)))
    };
    let mut list = vec![of(LinuxNamespaceType::Mount, None), of(LinuxNamespaceType::Cgroup, None)];
    match &request.network.mode {
        NetworkMode::Host => {}
        NetworkMode::Namespace(path) => list.push(of(LinuxNamespaceType::Network, Some(path.clone()))),
        _ => list.push(of(LinuxNamespaceType::Network, file(&facts.joined_net, "net"))),
    }
    if request.namespaces.pid != Pid::Host {
        list.push(of(LinuxNamespaceType::Pid, file(&facts.joined_pid, "pid")));
    }
    if request.namespaces.ipc != Ipc::Host {
        list.push(of(LinuxNamespaceType::Ipc, file(&facts.joined_ipc, "ipc")));
    }
    if !request.namespaces.uts_host {
        // docker shares the UTS namespace along with the network: the container is one more process of that "host".
        list.push(of(LinuxNamespaceType::Uts, file(&facts.joined_net, "uts")));
    }
    list
}

fn sysctls(request: &RunRequest) -> Result<Option<HashMap<String, String>>> {
    let own = defaults::OwnNamespaces {
        network: matches!(request.network.mode, NetworkMode::Bridge | NetworkMode::None),
        ipc: !matches!(request.namespaces.ipc, Ipc::Host | Ipc::Container(_)),
        uts: !request.namespaces.uts_host,
    };
    let mut sysctls = HashMap::new();
    for (name, value) in &request.security.sysctls {
        defaults::check_sysctl(name, value, own).map_err(|why| anyhow!("{why}"))?;
        sysctls.insert(name.clone(), value.clone());
    }
    // docker's own two: programs without any right may listen below 1024, and ping without a raw socket.
    if own.network {
        for (name, value) in
            [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")]
        {
            sysctls.entry(name.to_string()).or_insert_with(|| value.to_string());
        }
    }
    Ok((!sysctls.is_empty()).then_some(sysctls))
}

fn device_rules(request: &RunRequest, facts: &Facts) -> Vec<LinuxDeviceCgroup> {
    if request.security.privileged {
        return defaults::device_rules_privileged();
    }
    let mut rules = defaults::device_rules();
    rules.extend(facts.devices.iter().map(|node| {
        let (major, minor) = node.numbers;
        defaults::device_rule(true, device_type(node), Some(major), Some(minor), &node.permissions)
    }));
    rules
}

fn device_type(node: &DeviceNode) -> LinuxDeviceType {
    if node.block { LinuxDeviceType::B } else { LinuxDeviceType::C }
}

fn device(node: &DeviceNode) -> LinuxDevice {
    let mut device = LinuxDevice::default();
    device
        .set_path(node.path.clone())
        .set_typ(device_type(node))
        .set_major(node.numbers.0)
        .set_minor(node.numbers.1)
        .set_file_mode(Some(node.mode))
        .set_uid(Some(node.uid))
        .set_gid(Some(node.gid));
    device
}

fn mounts(request: &RunRequest, chosen: &Chosen, facts: &Facts, folder: &ContainerFolder) -> Result<Vec<Mount>> {
    let mut mounts = defaults::mounts(request.shm_bytes);
    if request.security.privileged {
        for mount in mounts.iter_mut().filter(|mount| mount.destination().starts_with("/sys")) {
            let options = mount.options().iter().flatten().filter(|option| *option != "ro").cloned().collect();
            mount.set_options(Some(options));
        }
    }
    match request.namespaces.ipc {
        Ipc::Host => {
            replace(&mut mounts, bind(Path::new("/dev/shm"), Path::new("/dev/shm"), &["rbind", "rprivate"]));
            // No bind for /dev/mqueue: a new mqueue mount shows the ipc namespace of its maker, which is the host's.
        }
        Ipc::Shareable => {
            let source = folder.shared_memory();
            replace(&mut mounts, bind(&source, Path::new("/dev/shm"), &["rbind", "rprivate"]));
        }
        Ipc::Container(_) => {
            if let Some(source) = &facts.joined_shm {
                replace(&mut mounts, bind(source, Path::new("/dev/shm"), &["rbind", "rprivate"]));
            }
        }
        Ipc::None => mounts.retain(|mount| mount.destination() != Path::new("/dev/shm")),
        Ipc::Private => {}
    }
    let etc =
        facts.joined_net.as_ref().map_or_else(|| folder.clone(), |joined| ContainerFolder::new(&joined.etc_folder));
    let mut own = Vec::new();
    for (source, target) in
        [(etc.hosts(), "/etc/hosts"), (etc.hostname(), "/etc/hostname"), (etc.resolv_conf(), "/etc/resolv.conf")]
    {
        // docker: these are as writable as the root.
        let mode = if request.read_only { &["rbind", "rprivate", "ro"][..] } else { &["rbind", "rprivate"] };
        replace(&mut own, bind(&source, Path::new(target), mode));
    }
    for volume in &chosen.volumes {
        replace(&mut own, volumes::mount(volume));
    }
    for mount in request.mounts.iter().chain(&chosen.inherited) {
        match mount {
            UserMount::Bind { source, target, read_only, propagation, recursive, writable_below, .. } => {
                let mut options = vec![if *recursive { "rbind" } else { "bind" }, propagation.name()];
                // docker since 25: what is mounted below is read-only too.
                let below = *recursive && !writable_below;
                options.extend(read_only.then_some(if below { "rro" } else { "ro" }));
                replace(&mut own, bind(source, target, &options));
            }
            UserMount::Tmpfs { target, options, .. } => replace(&mut own, tmpfs(target, options)),
            UserMount::Volume { .. } => {} // among the volumes
        }
    }
    // As docker: the fewer parts, the earlier, so that nothing hides what lies deeper (a volume on /etc its hosts file).
    own.sort_by_key(|mount| mount.destination().components().count());
    mounts.retain(|mount| own.iter().all(|other| other.destination() != mount.destination()));
    mounts.extend(own);
    Ok(mounts)
}

/// A later mount with the same target takes the earlier one's place.
fn replace(mounts: &mut Vec<Mount>, mount: Mount) {
    mounts.retain(|other| other.destination() != mount.destination());
    mounts.push(mount);
}

fn bind(source: &Path, target: &Path, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(target.to_path_buf())
        .set_typ(Some("bind".to_string()))
        .set_source(Some(source.to_path_buf()))
        .set_options(Some(options.iter().map(|option| option.to_string()).collect()));
    mount
}

/// docker's defaults for a tmpfs, unless the user says the contrary.
fn tmpfs(target: &Path, wanted: &[String]) -> Mount {
    let has = |word: &str| wanted.iter().any(|option| option == word);
    let mut options: Vec<String> = ["noexec", "nosuid", "nodev"]
        .into_iter()
        .filter(|word| !has(word) && !has(word.trim_start_matches("no")))
        .map(str::to_string)
        .collect();
    options.extend(wanted.iter().cloned());
    let mut mount = Mount::default();
    mount
        .set_destination(target.to_path_buf())
        .set_typ(Some("tmpfs".to_string()))
        .set_source(Some(PathBuf::from("tmpfs")))
        .set_options(Some(options));
    mount
}
