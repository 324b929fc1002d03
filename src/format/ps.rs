//! The lines of `ps`, and which containers its filters let through.

use super::human::{self, Nanoseconds};
use super::port;
use super::rows::{List, Row};
use super::template::FormatError;
use super::view::{ContainerView, StateView, Status};
use crate::request::network::NetworkMode;

const LIST: List = List {
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Names", "NAMES"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Ports", "PORTS"),
        ("State", "STATE"),
        ("Status", "STATUS"),
        ("Size", "SIZE"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Networks", "NETWORKS"),
    ],
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
};

/// Prints containers in the order given.
///
/// # Errors
/// The template is wrong.
pub fn print(
    containers: &[ContainerView],
    format: Option<&str>,
    quiet: bool,
    no_trunc: bool,
    now: Nanoseconds,
) -> Result<String, FormatError> {
    let rows: Vec<Row> = containers.iter().map(|container| row(container, no_trunc, now)).collect();
    LIST.print(&rows, format, quiet)
}

fn row(container: &ContainerView, no_trunc: bool, now: Nanoseconds) -> Row {
    let cut = |text: &str, width: usize| {
        if no_trunc { text.to_owned() } else { human::ellipsis(text, width) }
    };
    let command = std::iter::once(&container.path).chain(&container.args).cloned().collect::<Vec<_>>().join(" ");
    let mounts: Vec<String> = container
        .mounts
        .iter()
        .map(
            |mount| {
                if mount.name.is_empty() { cut(&mount.source.to_string_lossy(), 15) } else { cut(&mount.name, 15) }
            },
        )
        .collect();
    let labels = &container.config.labels;
    let network = match &container.request.network.mode {
        NetworkMode::Bridge => "bridge",
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
        NetworkMode::Container(_) | NetworkMode::Namespace(_) => "",
    };
    let fields = vec![
        ("ID", if no_trunc { container.id.clone() } else { short_id(&container.id) }),
        ("Names", container.name.clone()),
        ("Image", image(&container.image_name, no_trunc)),
        ("Command", quote(&cut(&command, 20))),
        ("CreatedAt", human::created_at(container.created / 1_000_000_000)),
        ("RunningFor", format!("{} ago", human::duration(now.saturating_sub(container.created)))),
        ("Ports", port::column(&container.network.ports, &ports_of_interest(container))),
        ("State", container.state.status.name().to_owned()),
        ("Status", status(&container.state, now)),
        ("Size", "0B".to_owned()),
        ("Labels", labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")),
        ("Mounts", mounts.join(",")),
        ("LocalVolumes", container.mounts.iter().filter(|mount| mount.kind == "volume").count().to_string()),
        ("Networks", network.to_owned()),
    ];
    Row { fields, labels: labels.clone() }
}

/// docker shows exposed ports of running containers only.
fn ports_of_interest(container: &ContainerView) -> std::collections::BTreeSet<(u16, netsetup::Protocol)> {
    match container.state.status {
        Status::Running | Status::Paused => container.config.exposed.clone(),
        _ => Default::default(),
    }
}

/// `Up 3 seconds`, `Exited (0) 2 minutes ago`.
pub fn status(state: &StateView, now: Nanoseconds) -> String {
    let since = |time: Option<Nanoseconds>| human::duration(now.saturating_sub(time.unwrap_or(now)));
    match state.status {
        Status::Running => format!("Up {}", since(state.started)),
        Status::Paused => format!("Up {} (Paused)", since(state.started)),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Exited => match state.finished {
            None => String::new(),
            finished => format!("Exited ({}) {} ago", state.exit_code, since(finished)),
        },
    }
}

/// Twelve digits, without the digest's kind.
pub(super) fn short_id(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

fn image(name: &str, no_trunc: bool) -> String {
    match name {
        "" => "<no image>".to_owned(),
        name if !no_trunc && name.starts_with("sha256:") => short_id(name),
        name => name.to_owned(),
    }
}

/// Go's `strconv.Quote`.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted += "\\\"",
            '\\' => quoted += "\\\\",
            '\n' => quoted += "\\n",
            '\t' => quoted += "\\t",
            '\r' => quoted += "\\r",
            '\u{7}' => quoted += "\\a",
            '\u{8}' => quoted += "\\b",
            '\u{c}' => quoted += "\\f",
            '\u{b}' => quoted += "\\v",
            letter if letter.is_control() => quoted += &format!("\\x{:02x}", u32::from(letter)),
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}

/// The filters of `ps`, ready to be asked. Filters of one key are alternatives, different keys all have to fit;
/// labels all have to fit.
pub struct Filter {
    conditions: Vec<(Key, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Name,
    Id,
    Status,
    Label,
    Ancestor,
    Exited,
}

impl Filter {
    /// Reads `-f KEY=VALUE` flags.
    ///
    /// # Errors
    /// The first one that is wrong, with what there is.
    pub fn parse(flags: &[String]) -> Result<Filter, String> {
        let mut conditions = Vec::new();
        for flag in flags {
            let (key, value) =
                flag.split_once('=').ok_or_else(|| format!("bad format of filter {flag:?} (expected name=value)"))?;
            let key = match key.trim().to_ascii_lowercase().as_str() {
                "name" => Key::Name,
                "id" => Key::Id,
                "status" => Key::Status,
                "label" => Key::Label,
                "ancestor" => Key::Ancestor,
                "exited" => Key::Exited,
                key => {
                    return Err(format!("invalid filter '{key}'; there are name, id, status, label, ancestor, exited"));
                }
            };
            let statuses = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
            if key == Key::Status && !statuses.contains(&value) {
                return Err(format!("invalid filter 'status={value}'; there are {}", statuses.join(", ")));
            }
            if key == Key::Exited && value.parse::<i32>().is_err() {
                return Err(format!("invalid filter 'exited={value}'; write an exit code"));
            }
            conditions.push((key, value.to_owned()));
        }
        Ok(Filter { conditions })
    }

    /// Whether stopped containers are meant too, without `-a`.
    pub fn wants_stopped(&self) -> bool {
        self.conditions.iter().any(|(key, _)| matches!(key, Key::Status | Key::Exited))
    }

    /// Whether a container is let through.
    pub fn fits(&self, container: &ContainerView) -> bool {
        let keys = [Key::Name, Key::Id, Key::Status, Key::Ancestor, Key::Exited];
        let values =
            |key: Key| self.conditions.iter().filter(move |(other, _)| *other == key).map(|(_, value)| value.as_str());
        values(Key::Label).all(|value| fits(container, Key::Label, value))
            && keys
                .into_iter()
                .all(|key| values(key).next().is_none() || values(key).any(|value| fits(container, key, value)))
    }
}

fn fits(container: &ContainerView, key: Key, value: &str) -> bool {
    match key {
        Key::Name => {
            // docker takes a pattern here; what people write is a part of the name, or ^/?NAME$.
            let name = container.name.as_str();
            let pattern = value.strip_prefix('^').unwrap_or(value);
            let (start, pattern) = (pattern.len() < value.len(), pattern.strip_prefix('/').unwrap_or(pattern));
            match (start, pattern.strip_suffix('$')) {
                (true, Some(whole)) => name == whole,
                (true, None) => name.starts_with(pattern),
                (false, Some(tail)) => name.ends_with(tail),
                (false, None) => name.contains(pattern),
            }
        }
        Key::Id => container.id.starts_with(value),
        Key::Status => container.state.status.name() == value,
        Key::Label => match value.split_once('=') {
            Some((key, value)) => container.config.labels.get(key).is_some_and(|found| found == value),
            None => container.config.labels.contains_key(value),
        },
        Key::Ancestor => {
            let name = container.image_name.as_str();
            let id = container.image_id.strip_prefix("sha256:").unwrap_or(&container.image_id);
            let wanted = value.strip_prefix("sha256:").unwrap_or(value);
            name == value
                || name.strip_suffix(":latest") == Some(value)
                || value.strip_suffix(":latest") == Some(name)
                || (wanted.len() >= 4 && id.starts_with(wanted))
        }
        Key::Exited => container.state.status == Status::Exited && value.parse() == Ok(container.state.exit_code),
    }
}
