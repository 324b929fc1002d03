//! The text and the document of `info`, in docker's words.

use super::document::{Document, object};
use super::human;
use super::template::{FormatError, Template};

/// What the engine is, has, and does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InfoView {
    /// minidock's.
    pub version: String,
    /// Derived from the root: the same for the same root.
    pub id: String,
    /// Containers that run, are paused, and don't run.
    pub running: usize,
    /// See above.
    pub paused: usize,
    /// See above.
    pub stopped: usize,
    /// Images.
    pub images: usize,
    /// Of the root's file system, such as `extfs`.
    pub backing: String,
    /// `1` or `2`, as docker counts: 2 where all controllers are on cgroup2.
    pub cgroup_version: String,
    /// `v1`, `v2`, `hybrid` or `none`
    pub cgroup_layout: String,
    /// Controllers and settings that limits need.
    pub limits: Limits,
    /// net.ipv4.ip_forward
    pub forwarding: bool,
    /// `uname -r`
    pub kernel: String,
    /// PRETTY_NAME of os-release.
    pub system: String,
    /// VERSION_ID of os-release.
    pub system_version: String,
    /// `x86_64`
    pub architecture: String,
    /// Processors.
    pub cpus: usize,
    /// Bytes.
    pub memory: u64,
    /// The host's name.
    pub name: String,
    /// Where images and containers are.
    pub root: String,
    /// Now, RFC 3339.
    pub time: String,
    /// What is in force, and where it comes from: key, value, source.
    pub config: Vec<(String, String, String)>,
    /// What to mind.
    pub warnings: Vec<String>,
}

/// What this host can limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// `-m`
    pub memory: bool,
    /// `--memory-swap`
    pub swap: bool,
    /// `--cpus`, `--cpu-shares`
    pub cpu: bool,
    /// `--cpuset-cpus`
    pub cpuset: bool,
    /// `--pids-limit`
    pub pids: bool,
}

const NETWORKS: [&str; 5] = ["bridge", "host", "ipvlan", "macvlan", "null"];
const LOGS: [&str; 3] = ["json-file", "journald", "none"];

/// Prints it by `--format`.
///
/// # Errors
/// The template is wrong.
pub fn print(view: &InfoView, format: Option<&str>) -> Result<String, FormatError> {
    match format.unwrap_or_default() {
        "" => Ok(text(view)),
        "json" => Ok(serde_json::to_string(&document(view)).unwrap_or_default() + "\n"),
        template => Ok(Template::parse(template)?.render(document(view).to_value())? + "\n"),
    }
}

fn text(view: &InfoView) -> String {
    let mut lines = vec![
        "Client:".to_owned(),
        format!(" Version:    {}", view.version),
        String::new(),
        "Server:".to_owned(),
        format!(" Containers: {}", view.running + view.paused + view.stopped),
        format!("  Running: {}", view.running),
        format!("  Paused: {}", view.paused),
        format!("  Stopped: {}", view.stopped),
        format!(" Images: {}", view.images),
        format!(" Server Version: {}", view.version),
        " Storage Driver: overlay2".to_owned(),
        format!("  Backing Filesystem: {}", view.backing),
        " Logging Driver: json-file".to_owned(),
        " Cgroup Driver: cgroupfs".to_owned(),
        format!(" Cgroup Version: {}", view.cgroup_version),
        format!("  Layout: {}", view.cgroup_layout),
        " Plugins:".to_owned(),
        "  Volume: local".to_owned(),
        format!("  Network: {}", NETWORKS.join(" ")),
        format!("  Log: {}", LOGS.join(" ")),
        " Default Runtime: minidock".to_owned(),
        " Security Options:".to_owned(),
        "  seccomp".to_owned(),
        "   Profile: builtin".to_owned(),
        format!(" Kernel Version: {}", view.kernel),
        format!(" Operating System: {}", view.system),
        " OSType: linux".to_owned(),
        format!(" Architecture: {}", view.architecture),
        format!(" CPUs: {}", view.cpus),
        format!(" Total Memory: {}", human::binary_size(view.memory)),
        format!(" Name: {}", view.name),
        format!(" ID: {}", view.id),
        format!(" Docker Root Dir: {}", view.root),
        " Configuration:".to_owned(),
    ];
    lines.extend(view.config.iter().map(|(key, value, source)| format!("  {key}: {value} ({source})")));
    lines.push(String::new());
    lines.extend(view.warnings.iter().map(|warning| format!("WARNING: {warning}")));
    lines.join("\n").trim_end().to_owned() + "\n"
}

fn document(view: &InfoView) -> Document {
    let config = view.config.iter().map(|(key, value, source)| {
        object! { "Key": key.as_str(), "Value": value.as_str(), "Source": source.as_str() }
    });
    let limits = &view.limits;
    object! {
        "ID": view.id.as_str(),
        "Containers": view.running + view.paused + view.stopped,
        "ContainersRunning": view.running,
        "ContainersPaused": view.paused,
        "ContainersStopped": view.stopped,
        "Images": view.images,
        "Driver": "overlay2",
        "DriverStatus": vec![vec!["Backing Filesystem".to_owned(), view.backing.clone()]],
        "Plugins": object! {
            "Volume": vec!["local"],
            "Network": NETWORKS.to_vec(),
            "Authorization": Document::NoList,
            "Log": LOGS.to_vec(),
        },
        "MemoryLimit": limits.memory,
        "SwapLimit": limits.swap,
        "CpuCfsPeriod": limits.cpu,
        "CpuCfsQuota": limits.cpu,
        "CPUShares": limits.cpu,
        "CPUSet": limits.cpuset,
        "PidsLimit": limits.pids,
        "IPv4Forwarding": view.forwarding,
        "Debug": false,
        "NFd": 0,
        "OomKillDisable": false,
        "NGoroutines": 0,
        "SystemTime": view.time.as_str(),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": view.cgroup_version.as_str(),
        "NEventsListener": 0,
        "KernelVersion": view.kernel.as_str(),
        "OperatingSystem": view.system.as_str(),
        "OSVersion": view.system_version.as_str(),
        "OSType": "linux",
        "Architecture": view.architecture.as_str(),
        "IndexServerAddress": "",
        "RegistryConfig": None::<bool>,
        "NCPU": view.cpus,
        "MemTotal": view.memory,
        "GenericResources": Document::NoList,
        "DockerRootDir": view.root.as_str(),
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": view.name.as_str(),
        "Labels": Vec::<String>::new(),
        "ExperimentalBuild": false,
        "ServerVersion": view.version.as_str(),
        "Runtimes": Document::Map([("minidock".to_owned(), object! { "path": "minidock" })].into()),
        "DefaultRuntime": "minidock",
        "Swarm": object! {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": Document::NoList,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "minidock",
        "SecurityOptions": vec!["name=seccomp,profile=builtin"],
        "Warnings": Document::list_or_null(view.warnings.clone()),
        // minidock's own.
        "CgroupLayout": view.cgroup_layout.as_str(),
        "Configuration": config.collect::<Vec<_>>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scripts_look_for_is_there() {
        let view = InfoView {
            version: "0.1.0".into(),
            running: 1,
            stopped: 2,
            memory: 8 << 30,
            config: vec![("mtu".into(), "1400".into(), "/etc/minidock/config.toml".into())],
            warnings: vec!["x".into()],
            ..InfoView::default()
        };
        let text = print(&view, None).unwrap();
        for line in [
            "\n Containers: 3\n  Running: 1\n  Paused: 0\n  Stopped: 2\n",
            "\n Storage Driver: overlay2\n",
            "\n Total Memory: 8GiB\n",
            "\n  mtu: 1400 (/etc/minidock/config.toml)\n",
            "\nWARNING: x\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let ask = |template| print(&view, Some(template)).unwrap();
        assert_eq!(ask("{{.Driver}} {{.ContainersRunning}} {{.NCPU}} {{.ServerVersion}}"), "overlay2 1 0 0.1.0\n");
        assert_eq!(ask("{{range .Configuration}}{{.Key}}={{.Value}}{{end}}"), "mtu=1400\n");
        assert!(ask("json").starts_with("{\"ID\":"));
    }
}
