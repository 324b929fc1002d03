//! The processes of a container, read from the host's /proc: for `top` and `stats`.

pub mod columns;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::journal;
use crate::residue::Residue;
use crate::roots::Roots;

/// More processes than any pids limit of a sane container.
const MAX_PROCESSES: usize = 100_000;
/// A container may make groups in groups; deeper ones aren't looked at.
const DEEPEST: usize = 32;
/// A program's arguments may be megabytes.
const MAX_FILE: u64 = 64 << 10;

/// One process, as proc_pid_stat(5) has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// In the host's pid namespace, as all pids here.
    pub pid: u32,
    /// Its command's name, without its folder.
    pub name: String,
    /// `R`, `S`, `Z`, …
    pub state: char,
    /// Its parent.
    pub parent: u32,
    /// Process group.
    pub group: u32,
    /// Session.
    pub session: u32,
    /// Terminal's device number; 0: none.
    pub terminal: u64,
    /// Foreground process group of its terminal; -1: none.
    pub foreground: i64,
    /// CPU time in clock ticks.
    pub ticks: u64,
    /// Priority, nice value, threads.
    pub priority: i64,
    /// See above.
    pub nice: i64,
    /// See above.
    pub threads: u64,
    /// When it started, in clock ticks after boot.
    pub start_ticks: u64,
    /// Virtual size, bytes.
    pub virtual_bytes: u64,
    /// Resident pages.
    pub resident_pages: u64,
    /// The processor it last ran on.
    pub processor: u64,
    /// Effective ids.
    pub uid: u32,
    /// See above.
    pub gid: u32,
    /// Its arguments; empty for a zombie or a kernel thread.
    pub arguments: Vec<String>,
}

/// The processes in a container's cgroups, those included that `exec` started.
pub fn of_container(roots: &Roots, id: &str) -> Vec<Process> {
    let mut pids = BTreeSet::new();
    for group in groups(roots, id) {
        collect(&group, 0, &mut pids);
        // All hierarchies hold the same processes.
        if !pids.is_empty() {
            break;
        }
    }
    pids.into_iter().filter_map(read).collect()
}

fn groups(roots: &Roots, id: &str) -> Vec<PathBuf> {
    let entries = journal::read(&roots.container(id).join("journal")).map(|contents| contents.entries);
    let group = |entry: Residue| match entry {
        Residue::Cgroup(runtime::cgroup::Residue::Cgroup { path, .. }) => Some(path),
        _ => None,
    };
    entries.unwrap_or_default().into_iter().filter_map(group).collect()
}

fn collect(group: &Path, depth: usize, pids: &mut BTreeSet<u32>) {
    let text = small_file(&group.join("cgroup.procs"));
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid > 0));
    if depth >= DEEPEST || pids.len() > MAX_PROCESSES {
        return;
    }
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), depth + 1, pids);
        }
    }
}

/// Reads one; `None` when it has just ended.
pub fn read(pid: u32) -> Option<Process> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let arguments = small_file(&folder.join("cmdline"));
    let arguments = arguments.trim_end_matches('\0');
    let mut process = parse(pid, &small_file(&folder.join("stat")))?;
    if !arguments.is_empty() {
        process.arguments = arguments.split('\0').map(str::to_owned).collect();
    }
    for line in small_file(&folder.join("status")).lines() {
        let effective = |ids: &str| ids.split_whitespace().nth(1).and_then(|id| id.parse().ok()).unwrap_or_default();
        if let Some(ids) = line.strip_prefix("Uid:") {
            process.uid = effective(ids);
        } else if let Some(ids) = line.strip_prefix("Gid:") {
            process.gid = effective(ids);
        }
    }
    Some(process)
}

/// The name may hold any byte, so the last `)` counts.
fn parse(pid: u32, text: &str) -> Option<Process> {
    let (open, close) = (text.find('(')?, text.rfind(')')?);
    let fields: Vec<&str> = text.get(close + 1..)?.split_whitespace().collect();
    // Field 3 of the manual page is the first here.
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<i64>().ok());
    let natural = |field: usize| number(field).and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
    let id = |field: usize| u32::try_from(natural(field)).unwrap_or(0);
    Some(Process {
        pid,
        name: text.get(open + 1..close)?.to_owned(),
        state: fields.first()?.chars().next()?,
        parent: id(4),
        group: id(5),
        session: id(6),
        terminal: natural(7),
        foreground: number(8)?,
        ticks: natural(14) + natural(15),
        priority: number(18)?,
        nice: number(19)?,
        threads: natural(20),
        start_ticks: natural(22),
        virtual_bytes: natural(23),
        resident_pages: natural(24),
        processor: natural(39),
        ..Process::default()
    })
}

/// What it names is untrusted: bounded, and never an error.
fn small_file(path: &Path) -> String {
    let mut bytes = vec![];
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The host's memory, bytes.
pub fn total_memory() -> u64 {
    let text = small_file(Path::new("/proc/meminfo"));
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or(0u64) << 10
}

/// Bytes received and sent in the network namespace of a process, on all links but lo.
pub fn network_bytes(pid: u32) -> (u64, u64) {
    let (mut received, mut sent) = (0u64, 0u64);
    for line in small_file(Path::new(&format!("/proc/{pid}/net/dev"))).lines() {
        let Some((link, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> = numbers.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
        if link.trim() != "lo" {
            received = received.saturating_add(numbers.first().copied().unwrap_or(0));
            sent = sent.saturating_add(numbers.get(8).copied().unwrap_or(0));
        }
    }
    (received, sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_brackets() {
        let text =
            "7 (a) b) S 1 7 7 34816 9 0 0 0 0 0 30 12 0 0 20 -5 3 0 600 4096 2 0 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0\n";
        let process = parse(7, text).unwrap();
        assert_eq!((process.name.as_str(), process.state, process.parent, process.ticks), ("a) b", 'S', 1, 42));
        assert_eq!((process.nice, process.threads, process.start_ticks, process.resident_pages), (-5, 3, 600, 2));
        assert_eq!(parse(7, ""), None);
        assert_eq!(parse(7, "7 (x"), None);
    }

    #[test]
    fn this_process_is_found() {
        let own = read(std::process::id()).unwrap();
        assert!(own.arguments[0].contains("minidock") && own.resident_pages > 0 && own.threads > 0, "{own:?}");
        assert!(total_memory() > 1 << 20);
    }
}
