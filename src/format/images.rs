//! The lines of `images`, and the document of `image inspect`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::document::{Document, object};
use super::human::{self, Nanoseconds};
use super::ps::short_id;
use super::rows::{List, Row};
use super::template::FormatError;

const LIST: List = List {
    headers: &[
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("Digest", "DIGEST"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
        ("Containers", "CONTAINERS"),
        ("VirtualSize", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
    ],
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
};
const WITH_DIGESTS: &str = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
/// The columns of `system df -v`.
pub const USAGE: &str = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t\
    {{.UniqueSize}}\t{{.Containers}}";

/// How `images` prints.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    /// Ids alone.
    pub quiet: bool,
    /// Nothing is cut.
    pub no_trunc: bool,
    /// With a column of digests.
    pub digests: bool,
}

/// What of an image is its own, and who uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Of layers that other images have too.
    pub shared_bytes: u64,
    /// Of the others.
    pub unique_bytes: u64,
    /// Number of containers.
    pub containers: usize,
}

/// A line of `images`: one per name of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageLine {
    /// `sha256:…`
    pub id: String,
    /// In docker's short form; `None`: `<none>`
    pub repository: Option<String>,
    /// As above.
    pub tag: Option<String>,
    /// `sha256:…` of its manifest, where it came with one.
    pub digest: Option<String>,
    /// From the image's configuration.
    pub created: Option<Nanoseconds>,
    /// Of all its layers, unpacked.
    pub size_bytes: u64,
    /// Where it was counted.
    pub usage: Option<Usage>,
}

/// Prints images in the order given.
///
/// # Errors
/// The template is wrong.
pub fn print(
    images: &[ImageLine],
    format: Option<&str>,
    style: Style,
    now: Nanoseconds,
) -> Result<String, FormatError> {
    let rows: Vec<Row> = images.iter().map(|image| row(image, style.no_trunc, now)).collect();
    let list = List { table: if style.digests { WITH_DIGESTS } else { LIST.table }, ..LIST };
    list.print(&rows, format, style.quiet)
}

fn row(image: &ImageLine, no_trunc: bool, now: Nanoseconds) -> Row {
    let none = || "<none>".to_owned();
    let usage = |tell: fn(&Usage) -> String| image.usage.as_ref().map_or_else(|| "N/A".to_owned(), tell);
    // An image without a date counts from 1970, as docker has it: "56 years ago".
    let created = image.created.unwrap_or(0);
    let fields = vec![
        ("ID", if no_trunc { image.id.clone() } else { short_id(&image.id) }),
        ("Repository", image.repository.clone().unwrap_or_else(none)),
        ("Tag", image.tag.clone().unwrap_or_else(none)),
        ("Digest", image.digest.clone().unwrap_or_else(none)),
        ("CreatedSince", format!("{} ago", human::duration(now.saturating_sub(created)))),
        ("CreatedAt", human::created_at(created / 1_000_000_000)),
        ("Size", human::size(image.size_bytes)),
        ("Containers", usage(|usage| usage.containers.to_string())),
        ("VirtualSize", human::significant(image.size_bytes, 4)),
        ("SharedSize", usage(|usage| human::significant(usage.shared_bytes, 4))),
        ("UniqueSize", usage(|usage| human::significant(usage.unique_bytes, 4))),
    ];
    Row { fields, labels: BTreeMap::new() }
}

/// What is known of an image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageView {
    /// `sha256:…`
    pub id: String,
    /// Names in docker's short form, with tag.
    pub names: Vec<String>,
    /// As the image's configuration has it.
    pub created: String,
    /// As above.
    pub author: String,
    /// The image's own, else its last step's.
    pub comment: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `linux`.
    pub os: String,
    /// The `config` object of the image's configuration, as it is (Env, Cmd, Entrypoint, Labels, …).
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Of all its layers, unpacked.
    pub size_bytes: u64,
    /// `sha256:…` of each layer's tar, lowest first.
    pub diff_ids: Vec<String>,
    /// The layers' folders, lowest first.
    pub layers: Vec<PathBuf>,
}

/// The document of `image inspect`.
pub fn inspect(image: &ImageView) -> Document {
    object! {
        "Id": image.id.as_str(),
        "RepoTags": image.names.clone(),
        "RepoDigests": Vec::<String>::new(),
        "Parent": "",
        "Comment": image.comment.as_str(),
        "Created": image.created.as_str(),
        "DockerVersion": "",
        "Author": image.author.as_str(),
        "Config": config(&image.config),
        "Architecture": image.architecture.as_str(),
        "Os": image.os.as_str(),
        "Size": image.size_bytes,
        "GraphDriver": super::inspect::graph_driver(&image.layers, None, ""),
        "RootFS": object! { "Type": "layers", "Layers": image.diff_ids.clone() },
        "Metadata": object! { "LastTagTime": "0001-01-01T00:00:00Z" },
    }
}

/// The image's configuration with docker's order of fields. What isn't set is left out of the JSON, and is empty text, an
/// empty list or an empty map to a template, as Go's are.
fn config(config: &serde_json::Map<String, serde_json::Value>) -> Document {
    use serde_json::Value as Json;
    let or = |key: &str, empty: Document| match config.get(key) {
        None | Some(Json::Null) => Document::omittable(empty),
        Some(value) => Document::Plain(value.clone()),
    };
    let text = |key: &str| or(key, "".into());
    let list = |key: &str| or(key, Document::NoList);
    let map = |key: &str| or(key, Document::Map(BTreeMap::new()));
    // A set is a map to empty structs in Go, which prints them as `{}`.
    let set = |key: &str| match config.get(key) {
        Some(Json::Object(set)) => Document::Map(set.keys().map(|key| (key.clone(), object! {})).collect()),
        _ => map(key),
    };
    let check = config.get("Healthcheck").and_then(|check| serde::Deserialize::deserialize(check).ok());
    let yes = |key: &str| or(key, false.into());
    object! {
        "Hostname": text("Hostname"),
        "Domainname": text("Domainname"),
        "User": text("User"),
        "AttachStdin": yes("AttachStdin"),
        "AttachStdout": yes("AttachStdout"),
        "AttachStderr": yes("AttachStderr"),
        "ExposedPorts": set("ExposedPorts"),
        "Tty": yes("Tty"),
        "OpenStdin": yes("OpenStdin"),
        "StdinOnce": yes("StdinOnce"),
        "Env": list("Env"),
        "Cmd": list("Cmd"),
        "Healthcheck": Document::omittable(check.as_ref().map(super::inspect::healthcheck)),
        "ArgsEscaped": yes("ArgsEscaped"),
        "Image": text("Image"),
        "Volumes": set("Volumes"),
        "WorkingDir": text("WorkingDir"),
        "Entrypoint": list("Entrypoint"),
        "OnBuild": list("OnBuild"),
        "Labels": map("Labels"),
        "StopSignal": text("StopSignal"),
        "Shell": list("Shell"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected text is docker's client's for the same images.
    #[test]
    fn the_table_is_dockers() {
        let now = 1_795_441_107_000_000_000;
        let line = |id: &str, name: Option<(&str, &str)>, created: Option<u64>, size_bytes: u64| ImageLine {
            id: format!("sha256:{}", id.repeat(32)),
            repository: name.map(|(repository, _)| repository.to_owned()),
            tag: name.map(|(_, tag)| tag.to_owned()),
            digest: None,
            created,
            size_bytes,
            usage: None,
        };
        let forty_days = now - 86400 * 40 * 1_000_000_000;
        let images = [
            line("ab", Some(("busybox", "latest")), Some(forty_days), 4_261_550),
            line("ab", Some(("localhost:5000/bb", "1")), Some(forty_days), 4_261_550),
            line("cd", None, None, 1_234_567_890),
        ];
        let table = "\
REPOSITORY          TAG       IMAGE ID       CREATED        SIZE
busybox             latest    abababababab   5 weeks ago    4.26MB
localhost:5000/bb   1         abababababab   5 weeks ago    4.26MB
<none>              <none>    cdcdcdcdcdcd   56 years ago   1.23GB
";
        assert_eq!(print(&images, None, Style::default(), now).unwrap(), table);
        assert_eq!(
            print(&images[..1], None, Style { quiet: true, no_trunc: true, digests: false }, now).unwrap(),
            format!("sha256:{}\n", "ab".repeat(32))
        );
        assert_eq!(
            print(&images[..1], Some("{{.Repository}}:{{.Tag}} {{.VirtualSize}}"), Style::default(), now).unwrap(),
            "busybox:latest 4.262MB\n"
        );
        assert_eq!(
            print(&[], None, Style::default(), now).unwrap(),
            "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n"
        );
    }
}
