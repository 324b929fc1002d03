//! A container's state file: what it is and how it is, for every command that isn't its monitor.
//!
//! Written when the program has been exec'd and when it has ended, each time replaced at once. Fields that this program
//! doesn't know (a newer one's) are kept.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use netsetup::{Place, PortMapping};
use serde::{Deserialize, Deserializer, Serialize};

use crate::files;
use crate::health::{self, Health, Healthcheck};
use crate::journal::Header;
use crate::plan::volumes::Volume;
use crate::process::Process;
use crate::request::RunRequest;
use crate::request::mounts::Mount;
use crate::roots::Roots;
use crate::{ranges, unknown};

/// The newest format that this program knows: lists of ports may have ranges in them ([`crate::ranges`]).
const FORMAT: u32 = 2;
/// The format without ranges, which an earlier minidock reads too.
pub const PLAIN: u32 = 1;

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
#[serde(from = "WrittenAttachment")]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// The network's id; empty for one that has none.
    pub network_id: String,
    /// The bridge.
    pub bridge: String,
    /// The host's end of the veth pair.
    pub host_link: String,
    /// The container's end, `eth0`.
    pub inside_link: String,
    /// IPv4 address.
    pub ipv4: Option<Place>,
    /// IPv6 address.
    pub ipv6: Option<Place>,
    /// Further addresses and their prefix lengths.
    pub extra_addresses: Vec<(IpAddr, u8)>,
    /// MAC address.
    pub mac: [u8; 6],
    /// Further names in this network.
    pub aliases: Vec<String>,
    /// Which network has the default route: the highest, then the first.
    pub gateway_priority: i64,
    /// Where the network's ways out lead, one for each IP version, whether or not the container uses them.
    pub gateways: Vec<IpAddr>,
    /// Published ports.
    #[serde(serialize_with = "crate::ranges::mappings::serialize")]
    pub ports: Vec<PortMapping>,
}

impl Attachment {
    /// The address to which a port of this host address leads: that of the same IP version, else the only one.
    pub fn address_for(&self, host_address: IpAddr) -> Option<IpAddr> {
        let (same, other) = if host_address.is_ipv4() { (self.ipv4, self.ipv6) } else { (self.ipv6, self.ipv4) };
        same.or(other).map(|place| place.address)
    }
}

/// As the file has it. The first version had one IPv4 address in fields of its own.
#[derive(Deserialize)]
struct WrittenAttachment {
    network: String,
    #[serde(default)]
    network_id: String,
    bridge: String,
    host_link: String,
    #[serde(default = "eth0")]
    inside_link: String,
    #[serde(default)]
    ipv4: Option<Place>,
    #[serde(default)]
    ipv6: Option<Place>,
    #[serde(default)]
    extra_addresses: Vec<(IpAddr, u8)>,
    mac: [u8; 6],
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    gateway_priority: i64,
    #[serde(default)]
    gateways: Vec<IpAddr>,
    #[serde(default, deserialize_with = "crate::ranges::mappings::deserialize")]
    ports: Vec<PortMapping>,
    #[serde(default)]
    address: Option<IpAddr>,
    #[serde(default)]
    prefix_len: u8,
    #[serde(default)]
    gateway: Option<IpAddr>,
}

fn eth0() -> String {
    "eth0".to_string()
}

impl From<WrittenAttachment> for Attachment {
    fn from(written: WrittenAttachment) -> Attachment {
        let first_version = |address| Place { address, prefix_len: written.prefix_len, gateway: written.gateway };
        Attachment {
            ipv4: written.ipv4.or(written.address.map(first_version)),
            network: written.network,
            network_id: written.network_id,
            bridge: written.bridge,
            host_link: written.host_link,
            inside_link: written.inside_link,
            ipv6: written.ipv6,
            extra_addresses: written.extra_addresses,
            mac: written.mac,
            aliases: written.aliases,
            gateway_priority: written.gateway_priority,
            gateways: if written.gateways.is_empty() {
                written.gateway.into_iter().collect()
            } else {
                written.gateways
            },
            ports: written.ports,
        }
    }
}

/// The first version wrote one attachment or null.
fn attachments<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Attachment>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Many(Vec<Attachment>),
        One(Box<Option<Attachment>>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::Many(many) => many,
        Written::One(one) => one.into_iter().collect(),
    })
}

/// Takes away what the first version called otherwise: it must not come back as an unknown field.
fn forget_first_version(state: &mut serde_json::Value) {
    let Some(state) = state.as_object_mut() else { return };
    if let Some(first) = state.remove("attachment") {
        let list = if first.is_null() { vec![] } else { vec![first] };
        state.entry("attachments").or_insert(list.into());
    }
    let attachments = state.get_mut("attachments").and_then(|attachments| attachments.as_array_mut());
    for attachment in attachments.into_iter().flatten().filter_map(|attachment| attachment.as_object_mut()) {
        let Some(address) = attachment.remove("address") else { continue };
        let (prefix_len, gateway) = (attachment.remove("prefix_len"), attachment.remove("gateway"));
        let place = serde_json::json!({"address": address, "prefix_len": prefix_len, "gateway": gateway});
        attachment.entry("ipv4").or_insert(place);
    }
}

/// What came of request and image together.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Config {
    /// Host name inside.
    pub hostname: String,
    /// NIS domain name inside.
    #[serde(default)]
    pub domainname: String,
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
    #[serde(with = "crate::ranges::texts")]
    pub exposed: Vec<String>,
    /// The signal that asks it to stop (number).
    pub stop_signal: i32,
    /// The same as the user or the image wrote it; empty: nobody did.
    #[serde(default)]
    pub stop_signal_text: String,
    /// Its health check.
    #[serde(default)]
    pub health: Option<Healthcheck>,
    /// The image's SHELL, for the check.
    #[serde(default)]
    pub shell: Vec<String>,
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
    /// Its networks in the order of its cards; none for `host`, `none`, `container:` and `ns:`.
    #[serde(default, alias = "attachment", deserialize_with = "attachments")]
    pub attachments: Vec<Attachment>,
    /// The class of its packets in this run, major number × 65536 + minor number; cards that come later get it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u32>,
    /// Open files (RLIMIT_NOFILE, soft and hard) that the program may have in this run; `exec` and health checks get the
    /// same, whatever their callers have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<(u64, u64)>,
    /// Layer folders, lowest first.
    pub layers: Vec<PathBuf>,
    /// The folder of its hosts, hostname and resolv.conf: its own, or that of the container whose network it shares.
    /// The first version had only the former, and no field.
    #[serde(default)]
    pub etc_folder: PathBuf,
    /// The container vanishes when it ends.
    pub auto_remove: bool,
    /// What came of request and image together.
    pub config: Config,
    /// The user has stopped it: no restart policy starts it again, and `unless-stopped` not even at boot.
    #[serde(default)]
    pub stopped_by_hand: bool,
    /// How often its restart policy has started it since a user did.
    #[serde(default)]
    pub restart_count: u32,
    /// What its health check says of this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Its monitor, while it runs or waits for a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<Process>,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// Binds that it took over by `--volumes-from`.
    #[serde(default)]
    pub inherited: Vec<Mount>,
    /// It was read from its file, which may have fields of another version; [`State::write`] keeps them.
    #[serde(skip)]
    pub was_read: bool,
}

/// What a file of a newer version still says when its other fields mean something else.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
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
        match serde_json::from_slice::<State>(&bytes) {
            Ok(mut state) => {
                state.was_read = true;
                if state.etc_folder.as_os_str().is_empty() {
                    state.etc_folder = folder.to_path_buf();
                }
                Ok(Some(state))
            }
            Err(error) => match serde_json::from_slice::<Versioned>(&bytes) {
                Ok(Versioned { version }) if version > FORMAT => Err(error).with_context(|| {
                    format!(
                        "{} was written by a newer minidock (format {version}, this one knows {FORMAT}); \
                         use that one, or remove the container with rm -f",
                        path.display()
                    )
                }),
                _ => Err(error).with_context(|| format!("{} is damaged; rm -f removes the container", path.display())),
            },
        }
    }

    /// The file's fields, with those that only other versions know.
    fn document(&self, path: &Path) -> Result<serde_json::Value> {
        let mut new = serde_json::to_value(self)?;
        let Ok(Ok(mut old)) = std::fs::read(path).map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes))
        else {
            return Ok(new);
        };
        forget_first_version(&mut old);
        let Ok(mut known) = serde_json::from_value::<State>(old.clone()) else { return Ok(new) };
        if let Ok(request) = serde_json::from_value::<RunRequest>(known.request.clone()) {
            known.request = serde_json::to_value(request)?;
        }
        unknown::carry(&old, &serde_json::to_value(known)?, &mut new);
        Ok(new)
    }

    /// What is known of a container that is being made; `None` for one of an older version.
    pub fn being_made(id: &str, name: String, header: Header) -> Option<State> {
        let birth = header.birth?;
        Some(State {
            version: PLAIN,
            id: id.to_string(),
            name,
            created: birth.created,
            request: serde_json::to_value(RunRequest::plain(&birth.image)?).ok()?,
            image: birth.image,
            image_id: header.image.unwrap_or_default(),
            args: birth.args,
            status: Status::Created,
            process: None,
            started: String::new(),
            finished: String::new(),
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            attachments: vec![],
            class: None,
            open_files: None,
            layers: vec![],
            etc_folder: PathBuf::new(),
            auto_remove: header.auto_remove,
            config: Config { labels: birth.labels, ..Config::default() },
            stopped_by_hand: false,
            restart_count: 0,
            health: None,
            monitor: None,
            volumes: vec![],
            inherited: vec![],
            was_read: false,
        })
    }

    /// Writes it, replacing the former one at once. On a full disk it's written over the former one, which needs no new
    /// block: how a program ended must not be lost.
    pub fn write(&self, roots: &Roots) -> Result<()> {
        let path = roots.container(&self.id).join("state.json");
        let bytes = self.bytes(&path)?;
        files::replace(&path, &bytes).or_else(|error| {
            let full =
                error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::StorageFull);
            if full && files::overwrite(&path, &bytes).is_ok() { Ok(()) } else { Err(error) }
        })
    }

    /// Writes it beside the former one, which [`files::Prepared::put`] then replaces.
    pub fn prepare(&self, roots: &Roots) -> Result<files::Prepared> {
        let path = roots.container(&self.id).join("state.json");
        files::prepare(&path, &self.bytes(&path)?)
    }

    /// Whether some list of ports is written with a range.
    fn has_ranges(&self) -> bool {
        let wishes = self.request.pointer("/network/publish").and_then(serde_json::Value::as_array);
        wishes.is_some_and(|wishes| wishes.iter().any(|wish| wish.get("count").is_some()))
            || self.attachments.iter().any(|one| ranges::mappings::has_some(&one.ports))
            || ranges::texts::has_some(&self.config.exposed)
    }

    /// What is written to the file, which holds the former one. Only a state that was read can lose fields of others.
    fn bytes(&self, path: &Path) -> Result<Vec<u8>> {
        if self.version < FORMAT && self.has_ranges() {
            return State { version: FORMAT, ..self.clone() }.bytes(path);
        }
        Ok(if self.was_read { serde_json::to_vec(&self.document(path)?)? } else { serde_json::to_vec(self)? })
    }

    /// Notes the end of the program, which will be started again by this process, its monitor.
    pub fn end_for_now(&mut self, exit_code: i32, oom_killed: bool) {
        self.end(exit_code, oom_killed, "");
        self.status = Status::Restarting;
        self.monitor = Process::now(std::process::id());
    }

    /// Notes the end of the program.
    pub fn end(&mut self, exit_code: i32, oom_killed: bool, error: &str) {
        self.status = Status::Exited;
        self.process = None;
        self.monitor = None;
        if let Some(health) = &mut self.health {
            health.status = health::Status::Unhealthy; // docker: nobody checks it any more
        }
        self.finished = crate::log::now();
        self.exit_code = exit_code;
        self.oom_killed = oom_killed;
        self.error = error.to_string();
    }

    /// Whether the file says that its program runs.
    pub fn is_open(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }

    /// The published ports of all its networks.
    pub fn ports(&self) -> impl Iterator<Item = &PortMapping> {
        self.attachments.iter().flat_map(|attachment| &attachment.ports)
    }

    /// Whether its program really runs, or its monitor is about to start it again: a monitor that was killed can't say
    /// that it ended.
    pub fn is_alive(&self) -> bool {
        let process = if self.status == Status::Restarting { self.monitor } else { self.process };
        (self.is_open() || self.status == Status::Restarting) && process.is_some_and(|process| process.is_alive())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_s_attachment_is_read() {
        let old = r#"{"network":"bridge","bridge":"docker0","host_link":"veth3f2a9c1","address":"172.17.0.2",
            "prefix_len":16,"gateway":"172.17.0.1","mac":[2,66,172,17,0,2],"ports":[{"protocol":"tcp",
            "host_address":"0.0.0.0","host_port":10080,"container_port":80,"mode":"dnat"}]}"#;
        #[derive(Deserialize)]
        struct Part {
            #[serde(default, alias = "attachment", deserialize_with = "attachments")]
            attachments: Vec<Attachment>,
        }
        let read = |text: &str| serde_json::from_str::<Part>(text).unwrap().attachments;
        let found = read(&format!(r#"{{"attachment":{old}}}"#));
        let place = Place { address: [172, 17, 0, 2].into(), prefix_len: 16, gateway: Some([172, 17, 0, 1].into()) };
        assert_eq!((found.len(), found[0].ipv4, found[0].inside_link.as_str()), (1, Some(place), "eth0"));
        assert_eq!(found[0].ports[0].to_string(), "0.0.0.0:10080->80/tcp");
        let again = read(&format!(r#"{{"attachments":{}}}"#, serde_json::to_string(&found).unwrap()));
        assert_eq!(again[0].ipv4, Some(place));
        assert!(read(r#"{"attachment":null}"#).is_empty() && read("{}").is_empty());
    }
}
