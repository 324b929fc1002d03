//! The lines of `ps`.

use super::human::{self, Nanoseconds};
use super::port;
use super::rows::{List, NULL, Row};
use super::template::FormatError;
use super::view::{ContainerView, StateView, Status};

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
        ("Platform", "PLATFORM"),
    ],
    table: TABLE,
};
const TABLE: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const TABLE_WITH_SIZE: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";
/// docker's `--format raw`.
const RAW: &str = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\n\
    state: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\n\
    ports: {{- pad .Ports 1 0}}\n";

/// How `ps` prints.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style<'a> {
    /// `--format`
    pub format: Option<&'a str>,
    /// Ids alone; wins over the format.
    pub quiet: bool,
    /// Nothing is cut.
    pub no_trunc: bool,
    /// With a column of sizes.
    pub size: bool,
}

/// Prints containers in the order given.
///
/// # Errors
/// The template is wrong.
pub fn print(containers: &[ContainerView], style: Style, now: Nanoseconds) -> Result<String, FormatError> {
    LIST.check(style.format.unwrap_or_default())?;
    let rows: Vec<Row> = containers.iter().map(|container| row(container, style.no_trunc, now)).collect();
    let list = List { table: if style.size { TABLE_WITH_SIZE } else { TABLE }, ..LIST };
    match style.format {
        _ if style.quiet => list.print(&rows, None, true),
        Some("raw") if style.size => list.print(&rows, Some(&format!("{RAW}size: {{{{- pad .Size 1 0}}}}\n")), false),
        Some("raw") => list.print(&rows, Some(RAW), false),
        format => list.print(&rows, format, false),
    }
}

fn row(container: &ContainerView, no_trunc: bool, now: Nanoseconds) -> Row {
    let cut = |text: &str, width: usize| {
        if no_trunc { text.to_owned() } else { human::ellipsis(text, width) }
    };
    // docker's quoting: only of blanks, and not of the program.
    let words = container.args.iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() });
    let command = std::iter::once(container.path.clone()).chain(words).collect::<Vec<_>>().join(" ");
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
        ("Size", size(container)),
        ("Labels", labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")),
        ("Mounts", mounts.join(",")),
        ("LocalVolumes", container.mounts.iter().filter(|mount| mount.kind == "volume").count().to_string()),
        ("Networks", networks(container).join(",")),
        ("Platform", NULL.to_owned()),
    ];
    Row { fields, labels: labels.clone() }
}

/// The names of its networks.
pub(super) fn networks(container: &ContainerView) -> Vec<String> {
    let mut names: Vec<String> = container.network.places.iter().map(|place| place.network.clone()).collect();
    names.sort(); // docker's map
    names
}

/// `2.15kB (virtual 4.26MB)`
fn size(container: &ContainerView) -> String {
    match container.size {
        None => "0B".to_owned(),
        // The image's share was left out (`system df -v`).
        Some(size) if size.image == 0 => human::significant(size.own, 3),
        Some(size) => {
            format!("{} (virtual {})", human::significant(size.own, 3), human::significant(size.own + size.image, 3))
        }
    }
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
        Status::Running => match state.health.as_ref().map(|health| health.status.as_str()) {
            None | Some("" | "none") => format!("Up {}", since(state.started)),
            Some("starting") => format!("Up {} (health: starting)", since(state.started)),
            Some(health) => format!("Up {} ({health})", since(state.started)),
        },
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished)),
        Status::Removing => "Removal In Progress".to_owned(),
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
