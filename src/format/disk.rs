//! `system df`: a line a kind of thing, and with `-v` a table a kind.

use std::collections::BTreeMap;

use super::human::{self, Nanoseconds};
use super::images::ImageLine;
use super::rows::{List, Row};
use super::template::FormatError;
use super::view::ContainerView;
use super::volumes::{self, VolumeLine};

const LIST: List = List {
    headers: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
};
const CONTAINERS: &str =
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
const VOLUMES: &str = "table {{.Name}}\t{{.Links}}\t{{.Size}}";

/// What there is of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Total {
    /// How many.
    pub count: usize,
    /// How many of them are in use.
    pub active: usize,
    /// Bytes of all.
    pub bytes: u64,
    /// Bytes that a prune would free.
    pub reclaimable: u64,
    /// The share that this is is told too.
    pub percent: bool,
}

/// Prints the lines.
///
/// # Errors
/// The template is wrong.
pub fn print(images: Total, containers: Total, volumes: Total, format: Option<&str>) -> Result<String, FormatError> {
    let kinds = [
        ("Images", images),
        ("Containers", containers),
        ("Local Volumes", volumes),
        // minidock builds nothing; docker's scripts look for the line.
        ("Build Cache", Total::default()),
    ];
    LIST.print(&kinds.map(|(kind, total)| row(kind, total)), format, false)
}

fn row(kind: &str, total: Total) -> Row {
    let size = human::significant(total.reclaimable, 4);
    let reclaimable = match total.bytes {
        bytes if bytes > 0 && total.percent => format!("{size} ({}%)", total.reclaimable * 100 / bytes),
        _ => size,
    };
    let fields = vec![
        ("Type", kind.to_owned()),
        ("TotalCount", total.count.to_string()),
        ("Active", total.active.to_string()),
        ("Size", human::significant(total.bytes, 4)),
        ("Reclaimable", reclaimable),
    ];
    Row { fields, labels: BTreeMap::new() }
}

/// Prints the tables of `-v`, or all of it as one JSON object.
///
/// # Errors
/// None with our own templates.
pub fn verbose(
    images: &[ImageLine],
    containers: &[ContainerView],
    volumes: &[VolumeLine],
    now: Nanoseconds,
    json: bool,
) -> Result<String, FormatError> {
    if json {
        let style = super::ps::Style { format: Some("json"), ..Default::default() };
        let list = |lines: String| format!("[{}]", lines.trim_end().replace('\n', ","));
        return Ok(format!(
            "{{\"Images\":{},\"Containers\":{},\"Volumes\":{},\"BuildCache\":[]}}\n",
            list(super::images::print(images, Some("json"), super::images::Style::default(), now)?),
            list(super::ps::print(containers, style, now)?),
            list(volumes::print(volumes, Some("json"), false)?),
        ));
    }
    let style = super::ps::Style { format: Some(CONTAINERS), ..Default::default() };
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage: 0B\n\n{}",
        super::images::print(images, Some(super::images::USAGE), super::images::Style::default(), now)?,
        super::ps::print(containers, style, now)?,
        volumes::print(volumes, Some(VOLUMES), false)?,
        "CACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED\n",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_docker_s() {
        let images = Total { count: 2, active: 1, bytes: 4_261_550, reclaimable: 2_000_000, percent: true };
        let containers = Total { count: 1, active: 1, percent: true, ..Total::default() };
        let table = "\
TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE
Images          2         1         4.262MB   2MB (46%)
Containers      1         1         0B        0B
Local Volumes   0         0         0B        0B
Build Cache     0         0         0B        0B
";
        assert_eq!(print(images, containers, Total::default(), None).unwrap(), table);
        let one = print(images, containers, Total::default(), Some("{{.Type}} {{.TotalCount}} {{.Active}}")).unwrap();
        assert_eq!(one.lines().next(), Some("Images 2 1"));
    }
}
