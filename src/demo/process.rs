//! What /proc says about the server's own process: ids, capabilities, seccomp, namespaces, mounts, environment.

use std::fs;

use serde::Serialize;

/// No list of a page is longer.
const MOST_ROWS: usize = 256;
/// /proc files are small; one that isn't is cut off.
const MOST_BYTES: usize = 256 * 1024;

/// The names of capabilities by number (linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The server's own process.
#[derive(Debug, Serialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// 0: the parent is outside of the pid namespace.
    pub(super) parent_pid: u32,
    pub(super) user_id: u32,
    pub(super) group_id: u32,
    pub(super) supplementary_groups: Vec<u32>,
    pub(super) command: Vec<String>,
    pub(super) working_directory: Option<String>,
    pub(super) capabilities: Capabilities,
    /// `disabled`, `strict`, `filter`
    pub(super) seccomp: &'static str,
    pub(super) seccomp_filters: Option<u32>,
    pub(super) no_new_privileges: Option<bool>,
    /// Names only: values may be secrets.
    pub(super) environment: Vec<String>,
}

/// Capability names without `CAP_`, lower case; a number where this program knows no name.
#[derive(Debug, Serialize)]
pub(super) struct Capabilities {
    pub(super) effective: Vec<String>,
    pub(super) permitted: Vec<String>,
    pub(super) inheritable: Vec<String>,
    pub(super) bounding: Vec<String>,
    pub(super) ambient: Vec<String>,
}

/// A namespace of the server's process.
#[derive(Debug, Serialize)]
pub(super) struct Namespace {
    /// `cgroup`, `ipc`, `mnt`, `net`, `pid`, `time`, `user`, `uts`
    pub(super) kind: String,
    /// The inode number, as in `net:[4026532281]`: equal numbers are the same namespace.
    pub(super) id: u64,
}

/// A line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Mount {
    pub(super) target: String,
    pub(super) source: String,
    pub(super) filesystem: String,
    pub(super) options: String,
    /// The folder of the filesystem that is seen here.
    pub(super) root: String,
}

/// A process that can be seen in /proc.
#[derive(Debug, Serialize)]
pub(super) struct Visible {
    pub(super) pid: u32,
    pub(super) name: String,
}

/// Reads a file, cut off at a limit; not text is made text.
pub(super) fn text(path: &str) -> Result<String, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
    file.take(MOST_BYTES as u64).read_to_end(&mut bytes).map_err(|error| format!("{path}: {error}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn read() -> Result<Process, String> {
    let status = text("/proc/self/status")?;
    let command = text("/proc/self/cmdline").unwrap_or_default();
    let mut environment: Vec<String> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).take(MOST_ROWS).collect();
    environment.sort();
    let directory = std::env::current_dir().ok().map(|path| path.display().to_string());
    parse_status(&status, command.split_terminator('\0').map(str::to_string).collect(), directory, environment)
}

fn parse_status(
    status: &str,
    command: Vec<String>,
    directory: Option<String>,
    environment: Vec<String>,
) -> Result<Process, String> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let number = |name: &str| field(name).and_then(|value| value.split_whitespace().next()?.parse::<u32>().ok());
    let wanted = |name: &str| number(name).ok_or_else(|| format!("/proc/self/status has no {name}"));
    let set = |name: &str| field(name).map(capabilities).unwrap_or_default();
    Ok(Process {
        pid: wanted("Pid")?,
        parent_pid: wanted("PPid")?,
        // The second number is the effective id.
        user_id: field("Uid")
            .and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok())
            .ok_or("/proc/self/status has no Uid")?,
        group_id: field("Gid")
            .and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok())
            .ok_or("/proc/self/status has no Gid")?,
        supplementary_groups: field("Groups")
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|id| id.parse().ok())
            .collect(),
        command,
        working_directory: directory,
        capabilities: Capabilities {
            effective: set("CapEff"),
            permitted: set("CapPrm"),
            inheritable: set("CapInh"),
            bounding: set("CapBnd"),
            ambient: set("CapAmb"),
        },
        seccomp: match number("Seccomp") {
            Some(1) => "strict",
            Some(2) => "filter",
            _ => "disabled",
        },
        seccomp_filters: number("Seccomp_filters"),
        no_new_privileges: number("NoNewPrivs").map(|value| value == 1),
        environment,
    })
}

/// The names of a hexadecimal mask as /proc/self/status prints it.
fn capabilities(mask: &str) -> Vec<String> {
    let mask = u64::from_str_radix(mask, 16).unwrap_or_default();
    (0..64usize)
        .filter(|bit| mask >> bit & 1 == 1)
        .map(|bit| CAPABILITIES.get(bit).map_or_else(|| bit.to_string(), |name| (*name).to_string()))
        .collect()
}

pub(super) fn namespaces() -> Result<Vec<Namespace>, String> {
    let folder = "/proc/self/ns";
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| format!("{folder}: {error}"))?.flatten() {
        // `net:[4026532281]`; the `_for_children` twins would only confuse.
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((kind, id)) = target.to_string_lossy().split_once(":[")
            && let Ok(id) = id.trim_end_matches(']').parse()
            && kind == name
        {
            found.push(Namespace { kind: kind.to_string(), id });
        }
    }
    found.sort_by(|a, b| a.kind.cmp(&b.kind));
    Ok(found)
}

pub(super) fn mounts() -> Result<Vec<Mount>, String> {
    Ok(parse_mounts(&text("/proc/self/mountinfo")?))
}

fn parse_mounts(table: &str) -> Vec<Mount> {
    let line = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let (mut front, mut back) = (front.split(' ').skip(3), back.split(' '));
        let (root, target, options) = (front.next()?, front.next()?, front.next()?);
        let (filesystem, source, of_filesystem) = (back.next()?, back.next()?, back.next().unwrap_or_default());
        // Both parts say ro or rw; the mount's word is the one that counts.
        let extra: Vec<&str> = of_filesystem.split(',').filter(|word| !matches!(*word, "" | "ro" | "rw")).collect();
        let options = if extra.is_empty() { options.to_string() } else { format!("{options},{}", extra.join(",")) };
        Some(Mount {
            target: unescape(target),
            source: unescape(source),
            filesystem: filesystem.to_string(),
            options: unescape(&options),
            root: unescape(root),
        })
    };
    table.lines().filter_map(line).take(MOST_ROWS).collect()
}

/// `\040` and its kin: the kernel escapes blanks so.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes
            .get(at + 1..at + 4)
            .filter(|digits| bytes[at] == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                out.push(digits.iter().fold(0u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Everybody in our pid namespace, as far as our /proc shows.
pub(super) fn visible() -> Result<Vec<Visible>, String> {
    let mut found: Vec<Visible> = fs::read_dir("/proc")
        .map_err(|error| format!("/proc: {error}"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .take(MOST_ROWS)
        .map(|pid: u32| Visible {
            pid,
            name: text(&format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_string(),
        })
        .collect();
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_masks_become_names() {
        // Docker's fourteen.
        let names = capabilities("00000000a80425fb");
        assert_eq!(names.len(), 14);
        assert!(names.contains(&"net_bind_service".to_string()) && !names.contains(&"sys_admin".to_string()));
        assert_eq!(capabilities("0000020000000000"), ["41"], "a capability of a future kernel");
        assert_eq!(capabilities("rubbish"), Vec::<String>::new());
    }

    #[test]
    fn a_mount_line_is_taken_apart() {
        let table = "22 1 0:21 / / rw,relatime - overlay overlay ro,lowerdir=/l\n\
                     23 22 8:1 /srv/a\\040b /my\\040data ro,nosuid shared:3 master:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
                     rubbish\n";
        let mounts = parse_mounts(table);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].options, "rw,relatime,lowerdir=/l");
        assert_eq!((mounts[1].target.as_str(), mounts[1].root.as_str()), ("/my data", "/srv/a b"));
        assert_eq!(unescape("a\\13"), "a\\13", "not an escape");
    }

    #[test]
    fn a_status_without_the_needed_lines_is_an_error_and_no_panic() {
        let error = parse_status("Name:\tx\n", Vec::new(), None, Vec::new()).unwrap_err();
        assert!(error.contains("Pid"), "{error}");
        let own = read().unwrap();
        assert_eq!(own.pid, std::process::id());
        assert!(namespaces().unwrap().iter().any(|n| n.kind == "net" && n.id > 0));
        assert!(visible().unwrap().iter().any(|p| p.pid == own.pid));
    }
}
