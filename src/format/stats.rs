//! The lines of `stats`.

use std::collections::BTreeMap;

use super::human;
use super::rows::{List, Row};
use super::template::FormatError;

const LIST: List = List {
    headers: &[
        ("Container", "CONTAINER"),
        ("Name", "NAME"),
        ("ID", "CONTAINER ID"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
};

/// What a container uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatsView {
    /// As it was asked for, or the short id.
    pub container: String,
    /// 64 digits.
    pub id: String,
    /// The name.
    pub name: String,
    /// Hundred is one processor.
    pub cpu_percent: f64,
    /// Bytes, without what can be taken back at once.
    pub memory: u64,
    /// Bytes: its limit, or the host's memory.
    pub memory_limit: u64,
    /// Bytes received and sent.
    pub network: (u64, u64),
    /// Bytes read and written.
    pub block: (u64, u64),
    /// Processes and threads.
    pub pids: u64,
}

/// Prints containers in the order given.
///
/// # Errors
/// The template is wrong.
pub fn print(containers: &[StatsView], format: Option<&str>, no_trunc: bool) -> Result<String, FormatError> {
    let rows: Vec<Row> = containers.iter().map(|container| row(container, no_trunc)).collect();
    LIST.print(&rows, format, false)
}

fn row(view: &StatsView, no_trunc: bool) -> Row {
    let pair = |(one, other): (u64, u64)| format!("{} / {}", human::size(one), human::size(other));
    let percent = if view.memory_limit == 0 { 0.0 } else { view.memory as f64 / view.memory_limit as f64 * 100.0 };
    let fields = vec![
        ("Container", view.container.clone()),
        ("Name", view.name.clone()),
        ("ID", if no_trunc { view.id.clone() } else { super::ps::short_id(&view.id) }),
        ("CPUPerc", format!("{:.2}%", view.cpu_percent)),
        ("MemUsage", format!("{} / {}", human::binary_size(view.memory), human::binary_size(view.memory_limit))),
        ("MemPerc", format!("{percent:.2}%")),
        ("NetIO", pair(view.network)),
        ("BlockIO", pair(view.block)),
        ("PIDs", view.pids.to_string()),
    ];
    Row { fields, labels: BTreeMap::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected text is docker's client's, fed with the same numbers.
    #[test]
    fn the_table_is_docker_s() {
        let view = StatsView {
            container: "aaaaaaaaaaaa".into(),
            id: "a".repeat(64),
            name: "web".into(),
            cpu_percent: 10.0,
            memory: 9 << 20,
            memory_limit: 64 << 20,
            network: (1234, 56_789_012),
            block: (4096, 123_456),
            pids: 3,
        };
        let table = "\
CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O           BLOCK I/O       PIDS
aaaaaaaaaaaa   web       10.00%    9MiB / 64MiB        14.06%    1.23kB / 56.8MB   4.1kB / 123kB   3
";
        assert_eq!(print(std::slice::from_ref(&view), None, false).unwrap(), table);
        assert_eq!(
            print(&[view], Some("json"), false).unwrap(),
            "{\"BlockIO\":\"4.1kB / 123kB\",\"CPUPerc\":\"10.00%\",\"Container\":\"aaaaaaaaaaaa\",\
             \"ID\":\"aaaaaaaaaaaa\",\"MemPerc\":\"14.06%\",\"MemUsage\":\"9MiB / 64MiB\",\"Name\":\"web\",\
             \"NetIO\":\"1.23kB / 56.8MB\",\"PIDs\":\"3\"}\n"
        );
        assert_eq!(
            print(&[StatsView::default()], Some("{{.MemUsage}} {{.NetIO}}"), false).unwrap(),
            "0B / 0B 0B / 0B\n"
        );
    }
}
