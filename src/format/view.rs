//! What is known of a container, as plain data for `ps` and `inspect`. The engine fills it in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use netsetup::{PortMapping, Protocol};

use super::human::Nanoseconds;
use crate::request::RunRequest;

/// A container.
#[derive(Debug, Clone)]
pub struct ContainerView<'a> {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without a slash.
    pub name: String,
    /// When it was made.
    pub created: Nanoseconds,
    /// The program's path as it was started, entrypoint included.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it does.
    pub state: StateView,
    /// `sha256:…`; empty for a root folder without image.
    pub image_id: String,
    /// The name it was started by.
    pub image_name: String,
    /// What the user asked for.
    pub request: &'a RunRequest,
    /// What came of request and image together.
    pub config: ConfigView,
    /// Its addresses.
    pub network: NetworkView,
    /// Its mounts as they were made; tmpfs are not listed, as docker has it.
    pub mounts: Vec<MountView>,
    /// The layers; `None` for a root folder.
    pub overlay: Option<OverlayView>,
    /// Bytes that it has written, and those of its image; only where they were asked for.
    pub size: Option<SizeView>,
    /// Restarts by its policy.
    pub restarts: u32,
    /// json-file log; empty without.
    pub log_path: PathBuf,
    /// The files that are mounted over those of the image.
    pub hostname_path: PathBuf,
    /// As above.
    pub hosts_path: PathBuf,
    /// As above.
    pub resolv_conf_path: PathBuf,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// Made, never started.
    #[default]
    Created,
    /// Its first process lives.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its first process has ended, and its policy will start it again.
    Restarting,
    /// It is being removed.
    Removing,
    /// Its first process has ended.
    Exited,
    /// Its removal failed halfway.
    Dead,
}

impl Status {
    /// docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Removing => "removing",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }
}

/// Bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeView {
    /// What it has written itself.
    pub own: u64,
    /// Of its image's layers.
    pub image: u64,
}

/// What its health check says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthView {
    /// `starting`, `healthy` or `unhealthy`
    pub status: String,
    /// Failures one after another.
    pub failing_streak: u32,
    /// The last five, oldest first.
    pub log: Vec<ProbeView>,
}

/// One run of a health check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeView {
    /// RFC 3339.
    pub start: String,
    /// RFC 3339.
    pub end: String,
    /// 0: healthy.
    pub exit_code: i32,
    /// What it wrote.
    pub output: String,
}

/// The state of its first process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateView {
    /// Where it is in its life.
    pub status: Status,
    /// In the host's pid namespace; 0 when it doesn't run.
    pub pid: u32,
    /// Of the last run.
    pub exit_code: i32,
    /// Why it couldn't start.
    pub error: String,
    /// Whether the kernel killed it for memory.
    pub oom_killed: bool,
    /// Start of the last run.
    pub started: Option<Nanoseconds>,
    /// End of the last run.
    pub finished: Option<Nanoseconds>,
    /// `None` without a health check.
    pub health: Option<HealthView>,
}

/// The configuration in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigView {
    /// Host name inside.
    pub hostname: String,
    /// `--domainname`
    pub domainname: String,
    /// User as set by flag or image.
    pub user: String,
    /// `NAME=VALUE` each.
    pub env: Vec<String>,
    /// CMD in force.
    pub cmd: Vec<String>,
    /// ENTRYPOINT in force.
    pub entrypoint: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// VOLUME of the image and anonymous volumes.
    pub volumes: Vec<String>,
    /// Of image and flags.
    pub labels: BTreeMap<String, String>,
    /// Such as `SIGTERM`; empty: the default.
    pub stop_signal: String,
    /// docker's HEALTHCHECK document in force: `{"Test": […], "Interval": …}`.
    pub healthcheck: Option<crate::health::Healthcheck>,
    /// EXPOSE of the image, `--expose` and `-p`.
    pub exposed: BTreeSet<(u16, Protocol)>,
}

/// Addresses and ports in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkView {
    /// Published ports; empty when it doesn't run.
    pub ports: Vec<PortMapping>,
    /// Its places in networks, in the order of its cards. Those of one that doesn't run have no addresses.
    pub places: Vec<PlaceView>,
    /// The name for `ip netns`: /run/netns/NAME.
    pub sandbox_key: PathBuf,
}

/// A container's place in a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlaceView {
    /// The network's name.
    pub network: String,
    /// Its id.
    pub network_id: String,
    /// The place's own id; empty when the container doesn't run.
    pub endpoint_id: String,
    /// IPv4 address and its subnet's length.
    pub ipv4: Option<(IpAddr, u8)>,
    /// IPv6 address and its subnet's length.
    pub ipv6: Option<(IpAddr, u8)>,
    /// Where each IP version's way out of the network leads.
    pub gateways: Vec<IpAddr>,
    /// Of the link in the container.
    pub mac: Option<[u8; 6]>,
    /// Further names that the user has given it here.
    pub aliases: Vec<String>,
    /// All its names here; none in the default network, as docker has it.
    pub dns_names: Vec<String>,
    /// `gw-priority`
    pub gateway_priority: i64,
    /// The addresses that the user has asked for, by docker's names.
    pub wished: Vec<(&'static str, String)>,
}

/// A mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountView {
    /// `bind` or `volume`
    pub kind: String,
    /// Of a volume.
    pub name: String,
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub destination: PathBuf,
    /// Options as typed after the colon.
    pub mode: String,
    /// Only to read.
    pub read_only: bool,
    /// Such as `rprivate`; empty for volumes.
    pub propagation: String,
}

/// The folders of the root file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayView {
    /// Lowest first, as `images` has them; printed topmost first, as overlayfs and docker have them.
    pub lower: Vec<PathBuf>,
    /// The container's own changes.
    pub upper: PathBuf,
    /// overlayfs's own.
    pub work: PathBuf,
    /// Where it is mounted, in the container's mount namespace only.
    pub merged: PathBuf,
}
