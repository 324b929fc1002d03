//! The residue check: everything on a host that a container engine could leave behind, as sets of lines, and what
//! differs between two moments. What containers share (docker0, the table, ip_forward) may stay after the last of them, but
//! only while the network's journal lists it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use super::namespaces::Namespaces;

/// How the folder of every test host begins.
pub const BASE_PREFIX: &str = "minidock-test-";
/// A variable that marks every process started by a test host.
pub const MARK: &str = "MINIDOCK_TEST_HOST";

/// Lines by section: links, addresses, routes, …
#[derive(Debug, Default)]
pub struct Snapshot(BTreeMap<&'static str, BTreeSet<String>>);

impl Snapshot {
    /// Everything as it is now. Takes about 30 ms.
    pub fn take(host: &Namespaces, outside: &Namespaces, base: &Path, mark: &str) -> Snapshot {
        stale();
        let mut snapshot = host.run(network);
        let root = base.join("root");
        snapshot.0.insert("file", engine_files(&root));
        snapshot.0.insert("temporary file", names_in(&base.join("tmp")));
        let own = processes(&[host.inode(), outside.inode()], base, mark);
        snapshot.0.insert("cgroup", host.run(|| cgroups(&own)));
        snapshot.0.insert("process", own.into_values().collect());
        snapshot.0.insert("on the machine itself", machine());
        snapshot
    }

    /// What differs, a line each: `+` has come, `-` has gone. `network_journal` excuses what it lists.
    pub fn difference(&self, now: &Snapshot, network_journal: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let nothing = BTreeSet::new();
        for (section, after) in &now.0 {
            let before = self.0.get(section).unwrap_or(&nothing);
            let come = after.difference(before).filter(|line| !excused(section, line, network_journal));
            lines.extend(come.map(|line| format!("+ {section}: {line}")));
            // What somebody else's engine took away meanwhile is no matter of this host.
            let whole_machine = ["process", "cgroup", "on the machine itself"].contains(section);
            let gone = before
                .difference(after)
                .filter(|_| !whole_machine)
                .filter(|line| !excused(section, line, network_journal));
            lines.extend(gone.map(|line| format!("- {section}: {line}")));
        }
        lines
    }
}

/// The text of the network's journals, which list what containers share.
pub fn network_journal(root: &Path) -> String {
    let journals = files_named(&root.join("run/network"), "journal");
    journals.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

/// Whether a line is a shared object of the network that its journal lists.
fn excused(section: &str, line: &str, journal: &str) -> bool {
    let listed = |word: &str| journal.contains(word);
    let lists_a = |kind: &str| journal.to_lowercase().replace('_', "").contains(kind);
    match section {
        "link" | "address" | "route" => line.contains("docker0") && listed("docker0"),
        "nft" => line.contains(r#""minidock""#) && lists_a("nfttable") && !names_a_container(line),
        "iptables" => lists_a("iptables") && !names_a_container(line),
        "sysctl" => line.split(' ').next().is_some_and(|key| listed(&key.replace('.', "/")) || listed(key)),
        "mount" => line.contains("net_cls") && listed("net_cls"),
        "cgroup" => line.contains("net_cls") && !line.contains("minidock") && listed("net_cls"),
        _ => false,
    }
}

/// Whether a rule or element is about one container: its card, its address, a published port. The shared ones name
/// the bridge, its subnet and its gateway only.
fn names_a_container(line: &str) -> bool {
    let subnet = line.replace("172.17.0.0", "").replace("172.17.0.1\"", "").replace("172.17.0.1/", "");
    subnet.contains("172.17.") || line.contains("veth") || line.contains("--dport") || line.contains("--to-destination")
}

/// All files below a folder with this name.
pub fn files_named(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(folder, &mut |path, _| {
        if path.file_name().is_some_and(|known| known == name) {
            found.push(path.to_path_buf());
        }
    });
    found
}

// ---- the network, in the host's namespaces ----

fn network() -> Snapshot {
    let script = "ip -o link; echo ====; ip -o -4 addr; echo ====; ip -4 route show table all; echo ====; \
                  iptables-save; echo ====; nft -j list ruleset";
    let text = tool("sh", &["-c", script]);
    let parts: Vec<&str> = text.split("====\n").collect();
    let [links, addresses, routes, iptables, nft] = parts[..] else {
        panic!("the host's state can't be read:\n{text}")
    };
    let mut snapshot = Snapshot::default();
    let mut put = |section, lines: BTreeSet<String>| snapshot.0.insert(section, lines);
    put("link", links.lines().map(link).collect());
    put("address", addresses.lines().map(|line| words(line)[1..4].join(" ")).collect());
    put("route", routes.lines().map(|line| line.replace(" linkdown", "").trim().to_string()).collect());
    put("iptables", iptables_rules(iptables));
    put("nft", nft_objects(nft));
    put("netns name", names_in(Path::new("/run/netns")));
    put("mount", mounts("/proc/thread-self/mountinfo"));
    put("sysctl", sysctls());
    let of_tools = ["netns", "mount", "xtables.lock"]; // iproute2's, mount(8)'s and iptables' own
    put(
        "folder in /run",
        names_in(Path::new("/run")).into_iter().filter(|name| !of_tools.contains(&name.as_str())).collect(),
    );
    put(
        "folder in /var/lib",
        names_in(Path::new("/var/lib")).into_iter().filter(|name| name.contains("minidock")).collect(),
    );
    snapshot
}

/// `3: docker0: <…> mtu 1500 … master x …`: name, MTU and master.
fn link(line: &str) -> String {
    let words = words(line);
    let after = |key: &str| words.iter().position(|word| *word == key).map_or("-", |at| words[at + 1]);
    let name = words[1].trim_end_matches(':').split('@').next().unwrap_or_default();
    format!("{name} mtu {} master {}", after("mtu"), after("master"))
}

/// `iptables-save` as lines of `table: rule`, without counters and without what an empty machine has.
pub fn iptables_rules(text: &str) -> BTreeSet<String> {
    let mut table = "";
    let mut rules = BTreeSet::new();
    for line in text.lines() {
        match line.as_bytes().first() {
            Some(b'*') => table = &line[1..],
            Some(b':') => {
                let words = words(&line[1..]);
                let untouched = words[1] == "ACCEPT"; // a built-in chain with its first policy
                if !untouched {
                    rules.insert(format!("{table}: chain {} {}", words[0], words[1]));
                }
            }
            Some(b'-') => {
                rules.insert(format!("{table}: {line}"));
            }
            _ => {}
        }
    }
    rules
}

/// `nft -j list ruleset` as one line for each table, chain, rule and element, without handles and counters. What
/// iptables-nft keeps (its tables with empty built-in chains) is left out.
pub fn nft_objects(text: &str) -> BTreeSet<String> {
    let document: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("nft -j printed no JSON ({error}):\n{text}"));
    let mut lines = BTreeSet::new();
    for object in document["nftables"].as_array().into_iter().flatten() {
        let Some((kind, body)) = object.as_object().and_then(|object| object.iter().next()) else {
            continue;
        };
        let mut body = body.clone();
        let of_iptables = matches!(body["family"].as_str(), Some("ip" | "ip6"))
            && ["nat", "filter", "mangle", "raw", "security"]
                .iter()
                .any(|name| body["table"] == *name || body["name"] == *name);
        if kind == "metainfo" || of_iptables {
            continue; // the rules of these tables are read with iptables-save
        }
        strip(&mut body);
        let elements = body.as_object_mut().and_then(|body| body.remove("elem"));
        for element in elements.as_ref().and_then(Value::as_array).into_iter().flatten() {
            lines.insert(format!("element of {} {}: {element}", body["table"], body["name"]));
        }
        lines.insert(format!("{kind} {body}"));
    }
    lines
}

/// Takes away what differs between two equal rulesets: handles, counters.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("handle");
            if let Some(counter) = fields.get_mut("counter") {
                *counter = Value::Null;
            }
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

fn sysctls() -> BTreeSet<String> {
    let keys = ["net.ipv4.ip_forward", "net.ipv4.conf.all.route_localnet", "net.ipv4.conf.all.rp_filter"];
    let value = |key: &str| std::fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/"))).unwrap_or_default();
    keys.iter().map(|key| format!("{key} {}", value(key).trim())).collect()
}

/// Mount points with type and source. Ids differ from read to read of nothing; options may.
pub fn mounts(table: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(table).unwrap_or_default();
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let (left, right) = (words(left), words(right));
        Some(format!("{} {} {} from {}", left[4], right[0], right[1], left[3]))
    };
    text.lines().filter_map(line).collect()
}

// ---- files ----

/// What an engine keeps below its root beside images and empty folders. Locks and the network's journal may stay.
fn engine_files(root: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    walk(root, &mut |path, is_folder| {
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let last = name.rsplit('/').next().unwrap_or_default();
        let folder_of = |parent: &str| name.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'));
        let of_a_container = ["containers", "names", "run"].iter().any(|parent| folder_of(parent));
        let half_made =
            last.starts_with("tmp") || last.starts_with(".tmp") || last.ends_with(".tmp") || name.contains("/tmp/");
        let shared =
            folder_of("run/network") && (is_folder || ["journal", "obstacles", "last", ".last"].contains(&last));
        // What happened is kept for `minidock events`, at most two files.
        let history = ["run/events.jsonl", "run/events.1.jsonl"].contains(&name.as_str());
        // Volumes stay, but not half-made ones.
        let half_made = half_made || name.starts_with("volumes/.");
        let lock = last == "lock" || last.ends_with(".lock");
        let empty_parent = is_folder && name.split('/').count() <= 2 && folder_of("run");
        if (of_a_container || half_made && (!is_folder || folder_of("volumes")))
            && !shared
            && !lock
            && !history
            && !empty_parent
        {
            files.insert(name);
        }
    });
    files
}

fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Visits all files and folders below, links not followed.
fn walk(folder: &Path, visit: &mut dyn FnMut(&Path, bool)) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let path = entry.path();
        visit(&path, is_folder);
        // The insides of image layers are the image's business.
        let layer = is_folder && path.components().any(|part| part.as_os_str() == "layers");
        if is_folder && !layer {
            walk(&path, visit);
        }
    }
}

/// The names in a folder; none when it isn't there.
pub fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

// ---- processes and cgroups ----

/// Processes of a test host: marked by their environment, in one of its network namespaces, or with one of its
/// folders mounted (a container's).
fn processes(networks: &[u64], base: &Path, mark: &str) -> BTreeMap<u32, String> {
    let mark = format!("{MARK}={mark}\0");
    let base = base.display().to_string();
    let own_mounts = std::fs::metadata("/proc/self/ns/mnt").map(|meta| meta.ino()).unwrap_or(0);
    let mut seen_mounts: BTreeMap<u64, bool> = BTreeMap::from([(own_mounts, false)]);
    let mut found = BTreeMap::new();
    for pid in names_in(Path::new("/proc")).iter().filter_map(|name| name.parse::<u32>().ok()) {
        if pid == std::process::id() {
            continue;
        }
        let file = |name: &str| format!("/proc/{pid}/{name}");
        let network = std::fs::metadata(file("ns/net")).map(|meta| meta.ino()).unwrap_or(0);
        let Ok(mount) = std::fs::metadata(file("ns/mnt")).map(|meta| meta.ino()) else {
            continue;
        };
        let environment = std::fs::read(file("environ")).unwrap_or_default();
        let marked = environment.windows(mark.len()).any(|window| window == mark.as_bytes());
        let has_folder = *seen_mounts.entry(mount).or_insert_with(|| {
            // A folder name ends here or goes on with '/': minidock-test-1-2 is not minidock-test-1-20.
            let table = std::fs::read_to_string(file("mountinfo")).unwrap_or_default();
            table
                .match_indices(&base)
                .any(|(at, _)| !table[at + base.len()..].starts_with(|c: char| c.is_ascii_digit()))
        });
        if marked || networks.contains(&network) || has_folder {
            let command = std::fs::read(file("cmdline")).unwrap_or_default();
            let state = std::fs::read_to_string(file("stat")).unwrap_or_default();
            let state = state.rsplit(')').next().unwrap_or_default().trim().chars().next().unwrap_or('?');
            if state != 'Z' {
                let command = String::from_utf8_lossy(&command).replace('\0', " ");
                found.insert(pid, format!("{pid} ({state}) {}", command.trim()));
            }
        }
    }
    found
}

/// Groups named by a container's id that no live test host knows, in all hierarchies: empty ones, and those of own
/// processes. (One with others' processes belongs to an engine beside the tests.)
fn cgroups(own: &BTreeMap<u32, String>) -> BTreeSet<String> {
    // A container's folder is made before its groups and goes after them: looked at before and after the groups, it
    // tells that they are known, whatever happens on other hosts meanwhile.
    let mut known = live_ids();
    let groups = cgroup_folders();
    known.extend(live_ids());
    let left_over = |group: &String| {
        let members = std::fs::read_to_string(Path::new(group).join("cgroup.procs")).unwrap_or_default();
        let mut members = members.lines().filter_map(|pid| pid.parse().ok()).peekable();
        let of_nobody_else = members.peek().is_none() || members.any(|pid: u32| own.contains_key(&pid));
        let mut parts = group.split('/');
        Path::new(group).exists() && of_nobody_else && !parts.any(|part| known.contains(part) || stale().contains(part))
    };
    groups.into_iter().filter(left_over).collect()
}

/// The groups that an interrupted run of the tests has left before this process began: seen once more, they are no
/// news. Those of net_cls are in no mounted hierarchy, but come to light with the next `--net-cls`.
fn stale() -> &'static BTreeSet<String> {
    static STALE: OnceLock<BTreeSet<String>> = OnceLock::new();
    STALE.get_or_init(|| {
        let hierarchies = std::fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let net_cls_is_active =
            hierarchies.lines().any(|line| line.starts_with("net_cls\t") && !line.starts_with("net_cls\t0"));
        let mut groups = cgroup_folders();
        if net_cls_is_active {
            groups.extend(super::namespaces::with_net_cls_mounted("/sys", cgroup_folders));
        }
        let known = live_ids();
        let ids = groups.iter().filter_map(|group| group.rsplit('/').next()).map(String::from);
        ids.filter(|id| !known.contains(id)).collect()
    })
}

/// All folders in cgroup file systems that are named by a container's id.
fn cgroup_folders() -> BTreeSet<String> {
    fn below(folder: &Path, depth: u32, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_id(name.trim_start_matches("minidock-").trim_end_matches(".scope")) {
                found.insert(entry.path().display().to_string());
            } else if depth > 0 {
                below(&entry.path(), depth - 1, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    for line in mounts("/proc/thread-self/mountinfo") {
        let words = words(&line);
        if words[1] == "cgroup" || words[1] == "cgroup2" {
            below(Path::new(words[0]), 3, &mut found);
        }
    }
    found
}

/// The ids of the containers of all test hosts that are alive now, in this process and in others: a container's
/// folder outlives its groups.
fn live_ids() -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for host in names_in(&std::env::temp_dir()).iter().filter(|name| name.starts_with(BASE_PREFIX)) {
        let root = std::env::temp_dir().join(host).join("root");
        ids.extend(names_in(&root.join("containers")));
    }
    ids
}

/// Names in the machine's own network namespace that look like an engine's.
fn machine() -> BTreeSet<String> {
    let ours = |name: &str| name.starts_with("veth") || name == "docker0" || name.contains("minidock");
    let mut found: BTreeSet<String> = names_in(Path::new("/sys/class/net"))
        .into_iter()
        .filter(|name| ours(name))
        .map(|name| format!("link {name}"))
        .collect();
    let tables = tool("nft", &["list", "tables"]);
    found.extend(tables.lines().filter(|line| line.contains("minidock")).map(String::from));
    found.extend(names_in(Path::new("/run/netns")).into_iter().map(|name| format!("netns name {name}")));
    found.extend(
        names_in(Path::new("/run")).into_iter().filter(|name| name == "minidock").map(|name| format!("/run/{name}")),
    );
    found
}

// ---- the end ----

/// Takes away what a failed test left: its processes, groups and files. The namespaces go with their last user.
pub fn destroy(host: &Namespaces, outside: &Namespaces, base: &Path, mark: &str) {
    let own = names_in(&base.join("root/containers"));
    kill_all(host, outside, base, mark);
    if !own.is_empty() {
        host.run(|| {
            for group in cgroup_folders().iter().filter(|path| own.iter().any(|id| path.contains(id.as_str()))) {
                remove_group(Path::new(group));
            }
        });
    }
    let _ = std::fs::remove_dir_all(base);
}

/// Kills all processes of a host, until there are none.
pub fn kill_all(host: &Namespaces, outside: &Namespaces, base: &Path, mark: &str) {
    super::within(super::LIMIT, || {
        let left = processes(&[host.inode(), outside.inode()], base, mark);
        for pid in left.keys() {
            let pid = nix::unistd::Pid::from_raw(*pid as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        left.is_empty()
    });
}

fn remove_group(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    super::within(Duration::from_secs(1), || std::fs::remove_dir(group).is_ok() || !group.exists());
}

// ---- helpers ----

fn tool(program: &str, args: &[&str]) -> String {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("the tests need {program}: {error}"));
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    text
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}
