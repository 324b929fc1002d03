//! Which containers the filters of `ps` let through.

use netsetup::Protocol;
use regex::Regex;

use super::ps::networks;
use super::view::{ContainerView, Status};

/// The filters, ready to be asked. Those of one key are alternatives, different keys all have to fit; labels all have to
/// fit.
pub struct Filter {
    conditions: Vec<Condition>,
}

/// One `-f KEY=VALUE`.
enum Condition {
    Name(Regex),
    Id(String),
    Status(String),
    Health(String),
    Label(String),
    Ancestor(String),
    Exited(i32),
    Before(String),
    Since(String),
    Volume(String),
    Network(String),
    Publish(Ports),
    Expose(Ports),
    IsTask(bool),
}

/// `80`, `80/udp`, `8000-8010/tcp`
struct Ports {
    first: u16,
    last: u16,
    protocol: Protocol,
}

const KEYS: &str =
    "ancestor, before, exited, expose, health, id, is-task, label, name, network, publish, since, status, volume";

impl Filter {
    /// Reads `-f KEY=VALUE` flags.
    ///
    /// # Errors
    /// The first one that is wrong, with what there is.
    pub fn parse(flags: &[String]) -> Result<Filter, String> {
        Ok(Filter { conditions: flags.iter().map(|flag| condition(flag)).collect::<Result<_, _>>()? })
    }

    /// Whether stopped containers are meant too, without `-a`: docker's rule is for `status` alone.
    pub fn wants_stopped(&self) -> bool {
        self.conditions.iter().any(|condition| matches!(condition, Condition::Status(_)))
    }

    /// The containers that `before` and `since` name.
    pub fn landmarks(&self) -> impl Iterator<Item = &str> {
        self.conditions.iter().filter_map(|condition| match condition {
            Condition::Before(name) | Condition::Since(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether a container is let through. `created` tells when the container of a landmark was made.
    pub fn fits(&self, container: &ContainerView, created: &dyn Fn(&str) -> Option<u64>) -> bool {
        let label = |condition: &Condition| matches!(condition, Condition::Label(_));
        let fits = |condition: &Condition| fits(container, condition, created);
        let (labels, others): (Vec<_>, Vec<_>) = self.conditions.iter().partition(|condition| label(condition));
        let alternatives = |of: &Condition| {
            let kind = std::mem::discriminant(of);
            others.iter().any(|other| std::mem::discriminant(*other) == kind && fits(other))
        };
        labels.into_iter().all(fits) && others.iter().all(|condition| alternatives(condition))
    }
}

fn condition(flag: &str) -> Result<Condition, String> {
    let (key, value) =
        flag.split_once('=').ok_or_else(|| format!("bad format of filter {flag:?} (expected name=value)"))?;
    let value = value.trim().to_owned();
    let invalid = |why: &str| format!("invalid filter '{}={value}'; {why}", key.trim());
    let pattern = |text: &str| Regex::new(text).map_err(|_| invalid("not a regular expression"));
    let ports = || ports(&value).ok_or_else(|| invalid("write a port as 80, 53/udp or 8000-8010/tcp"));
    Ok(match key.trim().to_ascii_lowercase().as_str() {
        "name" => Condition::Name(pattern(&value)?),
        "id" => Condition::Id(value),
        "status" => {
            let statuses = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
            if !statuses.contains(&value.as_str()) {
                return Err(invalid(&format!("there are {}", statuses.join(", "))));
            }
            Condition::Status(value)
        }
        "health" => {
            let states = ["none", "starting", "healthy", "unhealthy"];
            if !states.contains(&value.as_str()) {
                return Err(invalid(&format!("there are {}", states.join(", "))));
            }
            Condition::Health(value)
        }
        "label" => Condition::Label(value),
        "ancestor" => Condition::Ancestor(value),
        "exited" => Condition::Exited(value.parse().map_err(|_| invalid("write an exit code"))?),
        "before" => Condition::Before(value),
        "since" => Condition::Since(value),
        "volume" => Condition::Volume(value),
        "network" => Condition::Network(value),
        "publish" => Condition::Publish(ports()?),
        "expose" => Condition::Expose(ports()?),
        "is-task" => Condition::IsTask(crate::cli::boolean(&value).map_err(|_| invalid("write true or false"))?),
        key => {
            let near = crate::near::hint(key, KEYS.split(", "));
            return Err(format!("invalid filter '{key}'{near}; there are {KEYS}"));
        }
    })
}

fn ports(text: &str) -> Option<Ports> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let ports = Ports { first: first.parse().ok()?, last: last.parse().ok()?, protocol: protocol.parse().ok()? };
    (ports.first <= ports.last).then_some(ports)
}

impl Ports {
    fn has(&self, port: u16, protocol: Protocol) -> bool {
        self.protocol == protocol && (self.first..=self.last).contains(&port)
    }
}

fn fits(container: &ContainerView, condition: &Condition, created: &dyn Fn(&str) -> Option<u64>) -> bool {
    match condition {
        // docker's names begin with a slash inside, and people search for ^/web$ as for ^web$.
        Condition::Name(pattern) => {
            pattern.is_match(&container.name) || pattern.is_match(&format!("/{}", container.name))
        }
        Condition::Id(start) => container.id.starts_with(start),
        Condition::Status(wanted) => container.state.status.name() == wanted,
        Condition::Health(wanted) => {
            container.state.health.as_ref().map_or("none", |health| health.status.as_str()) == wanted
        }
        Condition::Label(wanted) => match wanted.split_once('=') {
            Some((key, value)) => container.config.labels.get(key).is_some_and(|found| found == value),
            None => container.config.labels.contains_key(wanted),
        },
        Condition::Ancestor(wanted) => is_ancestor(container, wanted),
        Condition::Exited(code) => {
            container.state.status == Status::Exited
                && container.state.started.is_some()
                && *code == container.state.exit_code
        }
        Condition::Before(name) => created(name).is_some_and(|moment| container.created < moment),
        Condition::Since(name) => created(name).is_some_and(|moment| container.created > moment),
        Condition::Volume(wanted) => container.mounts.iter().any(|mount| {
            let source =
                if mount.name.is_empty() { mount.source.to_string_lossy() } else { mount.name.as_str().into() };
            source == wanted.as_str() || mount.destination.to_string_lossy() == wanted.as_str()
        }),
        Condition::Network(wanted) => networks(container).iter().any(|name| name == wanted),
        Condition::Publish(ports) => {
            container.network.ports.iter().any(|mapping| ports.has(mapping.host_port, mapping.protocol))
        }
        Condition::Expose(ports) => {
            let published = container.network.ports.iter().map(|mapping| (mapping.container_port, mapping.protocol));
            let exposed = container.config.exposed.iter().copied();
            published.chain(exposed).any(|(port, protocol)| ports.has(port, protocol))
        }
        // Tasks are swarm's; there are none.
        Condition::IsTask(wanted) => !wanted,
    }
}

fn is_ancestor(container: &ContainerView, wanted: &str) -> bool {
    let name = container.image_name.as_str();
    let id = container.image_id.strip_prefix("sha256:").unwrap_or(&container.image_id);
    let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    name == wanted
        || name.strip_suffix(":latest") == Some(wanted)
        || wanted.strip_suffix(":latest") == Some(name)
        || (digits.len() >= 4 && id.starts_with(digits))
}
