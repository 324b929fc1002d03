//! The lines of `volume ls`, and the document of `volume inspect`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::document::{Document, object};
use super::human;
use super::rows::{List, Row};
use super::template::FormatError;

const LIST: List = List {
    headers: &[
        ("Name", "VOLUME NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Status", "STATUS"),
        ("Availability", "AVAILABILITY"),
        ("Group", "GROUP"),
    ],
    table: "{{.Driver}}\t{{.Name}}",
};

/// A line of `volume ls`, or of `system df -v`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeLine {
    /// The name.
    pub name: String,
    /// `local`
    pub driver: String,
    /// The folder of its content.
    pub mountpoint: PathBuf,
    /// All of them.
    pub labels: BTreeMap<String, String>,
    /// How many containers use it, where it was counted.
    pub links: Option<usize>,
    /// Its size, where it was counted.
    pub size_bytes: Option<u64>,
}

/// Prints volumes in the order given.
///
/// # Errors
/// The template is wrong.
pub fn print(volumes: &[VolumeLine], format: Option<&str>, quiet: bool) -> Result<String, FormatError> {
    let rows: Vec<Row> = volumes.iter().map(row).collect();
    let format =
        if quiet && format.is_none_or(|format| ["", "table"].contains(&format)) { Some("{{.Name}}") } else { format };
    LIST.print(&rows, format, false)
}

/// A volume's fields.
pub(super) fn row(volume: &VolumeLine) -> Row {
    let unknown = || "N/A".to_owned();
    let labels = volume.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
    let fields = vec![
        ("Name", volume.name.clone()),
        ("Driver", volume.driver.clone()),
        ("Scope", "local".to_owned()),
        ("Mountpoint", volume.mountpoint.to_string_lossy().into_owned()),
        ("Labels", labels.join(",")),
        ("Links", volume.links.map_or_else(unknown, |links| links.to_string())),
        ("Size", volume.size_bytes.map_or_else(unknown, human::size)),
        ("Status", unknown()),
        ("Availability", unknown()),
        ("Group", unknown()),
    ];
    Row { fields, labels: volume.labels.clone() }
}

/// What is known of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeView {
    /// The name.
    pub name: String,
    /// `local`
    pub driver: String,
    /// RFC 3339.
    pub created: String,
    /// The folder of its content.
    pub mountpoint: PathBuf,
    /// All of them.
    pub labels: BTreeMap<String, String>,
    /// The local driver's.
    pub options: BTreeMap<String, String>,
}

/// The document of `volume inspect`. Maps that were never set are `null`, as docker's are.
pub fn document(volume: &VolumeView) -> Document {
    let map = |map: &BTreeMap<String, String>| {
        if map.is_empty() { None::<bool>.into() } else { Document::from(map) }
    };
    // docker gives whole seconds.
    let created = volume.created.split('.').next().unwrap_or_default().trim_end_matches('Z').to_owned() + "Z";
    object! {
        "CreatedAt": created,
        "Driver": volume.driver.as_str(),
        "Labels": map(&volume.labels),
        "Mountpoint": &volume.mountpoint,
        "Name": volume.name.as_str(),
        "Options": map(&volume.options),
        "Scope": "local",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, labels: &[(&str, &str)]) -> VolumeLine {
        VolumeLine {
            name: name.into(),
            driver: "local".into(),
            mountpoint: format!("/v/{name}/_data").into(),
            labels: labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            links: None,
            size_bytes: None,
        }
    }

    #[test]
    fn lists_are_dockers() {
        let volumes = [line("data", &[("a", "1")]), line("web", &[])];
        assert_eq!(print(&volumes, None, false).unwrap(), "DRIVER    VOLUME NAME\nlocal     data\nlocal     web\n");
        assert_eq!(print(&volumes, None, true).unwrap(), "data\nweb\n");
        assert_eq!(print(&volumes[..1], Some("{{.Name}} {{.Label \"a\"}} {{.Links}}"), false).unwrap(), "data 1 N/A\n");
        assert_eq!(
            print(&volumes[..1], Some("json"), false).unwrap(),
            "{\"Availability\":\"N/A\",\"Driver\":\"local\",\"Group\":\"N/A\",\"Labels\":\"a=1\",\"Links\":\"N/A\",\
             \"Mountpoint\":\"/v/data/_data\",\"Name\":\"data\",\"Scope\":\"local\",\"Size\":\"N/A\",\"Status\":\"N/A\"}\n"
        );
    }

    #[test]
    fn what_was_never_set_is_null() {
        let view = VolumeView {
            name: "data".into(),
            driver: "local".into(),
            created: "2025-01-02T03:04:05.678Z".into(),
            mountpoint: "/v/data/_data".into(),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        };
        let text = |template| super::super::inspect::print(&[document(&view)], Some(template)).unwrap();
        assert_eq!(text("{{.Options}} {{ .Labels }} {{json .Options}} {{if .Options}}x{{end}}"), "map[] map[] null \n");
        assert_eq!(text("{{range $k, $v := .Options}}x{{end}}{{len .Name}}"), "4\n");
        assert!(text("{{.}}").contains(" map[] "));
        assert_eq!(
            serde_json::to_string(&document(&view)).unwrap(),
            r#"{"CreatedAt":"2025-01-02T03:04:05Z","Driver":"local","Labels":null,"Mountpoint":"/v/data/_data","Name":"data","Options":null,"Scope":"local"}"#
        );
    }
}
