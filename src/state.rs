//! A container's state file: what it is and how it is, for every command that isn't its monitor.
//!
//! Written when the program has been exec'd and when it has ended, each time replaced at once. Fields that this program
//! doesn't know (a newer one's) are kept.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use netsetup::PortMapping;
use serde::{Deserialize, Serialize};

use crate::files;
use crate::plan::volumes::Volume;
use crate::process::Process;
use crate::roots::Roots;

/// The format that this program writes.
pub const FORMAT: u32 = 1;

/// Where a container is in its life, with docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never started.
    Created,
    /// Its program runs.
    Running,
    /// Its program is frozen.
    Paused,
    /// Its program has ended, and the monitor will start it again.
    Restarting,
    /// Its program has ended.
    Exited,
    /// Its removal has begun.
    Removing,
    /// Its removal has failed.
    Dead,
}

/// The container's place in a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// The bridge.
    pub bridge: String,
    /// The host's end of the veth pair.
    pub host_link: String,
    /// IPv4 address.
    pub address: Ipv4Addr,
    /// Bits of the network part.
    pub prefix_len: u8,
    /// The default route's next hop.
    pub gateway: Ipv4Addr,
    /// MAC address.
    pub mac: [u8; 6],
    /// Published ports.
    pub ports: Vec<PortMapping>,
}

/// What came of request and image together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Config {
    /// Host name inside.
    pub hostname: String,
    /// As the flag or the image says.
    pub user: String,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// CMD in force.
    pub cmd: Vec<String>,
    /// ENTRYPOINT in force.
    pub entrypoint: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// The image's and the user's.
    pub labels: BTreeMap<String, String>,
    /// All ports that it listens on by word of image or user, `80/tcp`.
    pub exposed: Vec<String>,
    /// The signal that asks it to stop (number).
    pub stop_signal: i32,
    /// Seconds before `stop` kills it; negative: it waits for ever.
    pub stop_timeout_seconds: i64,
}

/// The state file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Format version.
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// The image as the user named it.
    pub image: String,
    /// `sha256:…`; empty for `--rootfs`.
    pub image_id: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// What the user asked for (see `request::RunRequest`), for `inspect`.
    pub request: serde_json::Value,
    /// How it is.
    pub status: Status,
    /// PID 1 of the container, while it runs.
    pub process: Option<Process>,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339; empty while it runs.
    pub finished: String,
    /// The program's exit code; 128+n when signal n ended it.
    pub exit_code: i32,
    /// The kernel killed it for memory.
    pub oom_killed: bool,
    /// What went wrong beyond the exit code.
    pub error: String,
    /// Its network; none for `host`, `none`, `container:` and `ns:`.
    pub attachment: Option<Attachment>,
    /// Layer folders, lowest first.
    pub layers: Vec<PathBuf>,
    /// The folder of its hosts, hostname and resolv.conf: its own, or that of the container whose network it shares.
    pub etc_folder: PathBuf,
    /// The container vanishes when it ends.
    pub auto_remove: bool,
    /// What came of request and image together.
    pub config: Config,
    /// Anonymous volumes.
    pub volumes: Vec<Volume>,
    /// Fields of other versions.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl State {
    /// Reads a container's state; `None` when it has none (yet, or any more).
    pub fn read(folder: &Path) -> Result<Option<State>> {
        let path = folder.join("state.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Writes it, replacing the former one at once. On a full disk it's written over the former one, which needs no new
    /// block: how a program ended must not be lost.
    pub fn write(&self, roots: &Roots) -> Result<()> {
        let (path, bytes) = (roots.container(&self.id).join("state.json"), serde_json::to_vec(self)?);
        files::replace(&path, &bytes).or_else(|error| {
            let full =
                error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull);
            if full && files::overwrite(&path, &bytes).is_ok() { Ok(()) } else { Err(error) }
        })
    }

    /// Notes the end of the program.
    pub fn end(&mut self, exit_code: i32, oom_killed: bool, error: &str) {
        self.status = Status::Exited;
        self.process = None;
        self.finished = crate::log::now();
        self.exit_code = exit_code;
        self.oom_killed = oom_killed;
        self.error = error.to_string();
    }

    /// Whether the file says that its program runs.
    pub fn is_open(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }

    /// Whether its program really runs: a monitor that was killed can't say that it ended.
    pub fn is_alive(&self) -> bool {
        self.is_open() && self.process.is_some_and(|process| process.is_alive())
    }
}
