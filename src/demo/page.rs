//! The page for people: a [`View`] as HTML. Everything that isn't written here goes through [`escape`]; no script, no foreign asset.

use std::fmt::Write;

use super::cgroup::{Cgroup, Limits};
use super::process::Process;
use super::view::View;

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(super) fn render(view: &View) -> String {
    let mut out = String::with_capacity(32 * 1024);
    head(&mut out, &format!("{} · minidock", view.hostname));
    let _ = write!(
        out,
        "<h1>Hello from {}</h1>\n<p class=lead>A program in a container of minidock answers you. This page shows what it can see from in there.</p>\n",
        escape(&view.hostname)
    );
    way(&mut out, view);
    out.push_str("<div class=cards>\n");
    process(&mut out, view);
    limits(&mut out, view);
    network(&mut out, view);
    namespaces(&mut out, view);
    rights(&mut out, view);
    environment(&mut out, view);
    out.push_str("</div>\n");
    mounts(&mut out, view);
    files(&mut out, view);
    let _ = write!(
        out,
        "<footer>minidock {} · {} · {} · the same for scripts: <a href=\"/json\">/json</a></footer>\n</main>\n",
        escape(view.minidock_version),
        escape(&view.kernel),
        escape(&view.architecture)
    );
    out
}

/// The page for a path that isn't there.
pub(super) fn not_found(path: &str) -> String {
    let mut out = String::new();
    head(&mut out, "Not found");
    let _ = write!(
        out,
        "<h1>Nothing here</h1>\n<p class=lead>There is no <code>{}</code>. There are <a href=\"/\">/</a>, <a href=\"/json\">/json</a> and \
         <a href=\"/healthz\">/healthz</a>.</p>\n</main>\n",
        escape(path)
    );
    out
}

/// Makes text safe inside elements and quoted attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            character if character.is_control() => out.push('\u{fffd}'),
            character => out.push(character),
        }
    }
    out
}

fn head(out: &mut String, title: &str) {
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<link rel=icon href=\"data:,\">\n<style>\n{STYLE}</style>\n<main>\n",
        escape(title)
    );
}

/// The way of this very request.
fn way(out: &mut String, view: &View) {
    let client = &view.client;
    let address = client.server_address.as_deref().unwrap_or("?");
    let port = client.server_port.map_or_else(|| "?".to_string(), |port| port.to_string());
    let pid = view.process.as_ref().map_or_else(|| "?".to_string(), |process| process.pid.to_string());
    let _ = write!(
        out,
        "<div class=way>\n<div class=stop><span>you, as the container sees you</span><b class=mono>{}</b><span>port {}</span></div>\n\
         <div class=arrow>→</div>\n<div class=stop><span>the container’s address</span><b class=mono>{}</b><span>port {port}</span></div>\n\
         <div class=arrow>→</div>\n<div class=\"stop here\"><span>the program that answers</span><b>PID {pid}</b><span>on {}</span></div>\n</div>\n",
        escape(&client.address),
        client.port,
        escape(address),
        escape(&view.hostname)
    );
}

/// A card. `why` is a sentence of ours and may hold markup.
fn card(out: &mut String, title: &str, why: &str, body: &str) {
    let _ = write!(
        out,
        "<section>
<h2>{title}</h2>
<p class=why>{why}</p>
{body}</section>
"
    );
}

/// In place of a body: why there is none.
fn missing(view: &View, key: &str) -> String {
    format!(
        "<p class=none>Not to be seen here: {}</p>\n",
        escape(view.missing.get(key).map_or("it is not there", String::as_str))
    )
}

/// A table of name and value; the values are markup already.
fn facts(rows: &[(&str, String)]) -> String {
    let mut out = String::from("<table class=facts>\n");
    for (name, value) in rows {
        let _ = writeln!(out, "<tr><th>{name}<td>{value}");
    }
    out.push_str("</table>\n");
    out
}

/// A table with a head; the cells are plain text. The first column is kept on one line; lines within a cell are kept.
fn table(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut out = String::from("<div class=scroll><table><thead><tr>");
    columns.iter().for_each(|column| out += &format!("<th>{column}"));
    out.push_str("<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (number, cell) in row.iter().enumerate() {
            let class = if number == 0 { "mono keep" } else { "mono lines" };
            let _ = write!(out, "<td class=\"{class}\">{}", escape(cell));
        }
        out.push('\n');
    }
    out.push_str("</table></div>\n");
    out
}

fn tags(words: &[String]) -> String {
    if words.is_empty() {
        return "<span class=none>none</span>".to_string();
    }
    let words: Vec<String> =
        words.iter().map(|word| format!("<span class=\"tag mono\">{}</span>", escape(word))).collect();
    format!("<div class=tags>{}</div>", words.join(" "))
}

fn process(out: &mut String, view: &View) {
    let body = match &view.process {
        None => missing(view, "process"),
        Some(process) => {
            let parent = if process.parent_pid == 0 {
                "0 (outside of the container)".to_string()
            } else {
                process.parent_pid.to_string()
            };
            let mut rows = vec![
                ("PID", format!("<b>{}</b>", process.pid)),
                ("parent", parent),
                ("command", format!("<span class=mono>{}</span>", escape(&process.command.join(" ")))),
                ("user : group", format!("{} : {}", process.user_id, process.group_id)),
                ("hostname", escape(&view.hostname)),
                ("kernel", format!("{}, {}", escape(&view.kernel), escape(&view.architecture))),
            ];
            if let Some(directory) = &process.working_directory {
                rows.push(("folder", format!("<span class=mono>{}</span>", escape(directory))));
            }
            if let Some(all) = &view.processes {
                let names: Vec<String> =
                    all.iter().take(40).map(|process| format!("{} {}", process.pid, process.name)).collect();
                rows.push(("all processes in sight", tags(&names)));
            }
            facts(&rows)
        }
    };
    card(
        out,
        "Process",
        "In its pid namespace the first program is PID 1, and it sees only what was started in there.",
        &body,
    );
}

fn limits(out: &mut String, view: &View) {
    let body = match &view.cgroup {
        None => missing(view, "cgroup"),
        Some(cgroup) => limit_rows(&cgroup.limits) + &membership(cgroup),
    };
    card(
        out,
        "Limits",
        "What the control groups allow, as <code>/sys/fs/cgroup</code> shows it in the container.",
        &body,
    );
}

fn limit_rows(limits: &Limits) -> String {
    let set = |text: String| format!("<span class=set>{}</span>", escape(&text));
    let none = || "<span class=none>no limit</span>".to_string();
    let used = |used: Option<String>| {
        used.map(|used| format!(" <span class=none>· {} used</span>", escape(&used))).unwrap_or_default()
    };
    let mut rows = vec![
        (
            "memory",
            limits.memory_bytes.map_or_else(none, |bytes| set(size(bytes))) + &used(limits.memory_used_bytes.map(size)),
        ),
        ("processors’ time", limits.cpus.map_or_else(none, |cpus| set(format!("{cpus} CPUs")))),
        (
            "processes",
            limits.pids.map_or_else(none, |pids| set(pids.to_string()))
                + &used(limits.pids_used.map(|pids| pids.to_string())),
        ),
    ];
    let mut more = |name, value: Option<String>| rows.extend(value.map(|value| (name, value)));
    more("swap", limits.swap_bytes.map(|bytes| set(size(bytes))));
    more("memory reservation", limits.memory_reservation_bytes.map(|bytes| set(size(bytes))));
    more("cpu shares", limits.cpu_shares.map(|shares| shares.to_string()));
    more("cpu weight", limits.cpu_weight.map(|weight| weight.to_string()));
    more("processors", limits.cpuset_cpus.as_deref().map(escape));
    more("memory nodes", limits.cpuset_mems.as_deref().map(escape));
    more(
        "net_cls class id",
        limits.net_cls_classid.as_ref().map(|id| format!("<span class=mono>{}</span>", escape(id))),
    );
    facts(&rows)
}

/// One row for each group, however many controllers are in it.
fn membership(cgroup: &Cgroup) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for group in &cgroup.membership {
        let known = match groups.iter().position(|(path, _)| *path == group.path) {
            Some(known) => known,
            None => {
                groups.push((&group.path, Vec::new()));
                groups.len() - 1
            }
        };
        match group.controllers.is_empty() {
            true => groups[known].1.push("cgroup v2"),
            false => groups[known].1.extend(group.controllers.iter().map(String::as_str)),
        }
    }
    let rows = groups.into_iter().map(|(path, names)| vec![path.to_string(), names.join(", ")]);
    format!("<p class=why>Layout: {}</p>\n", escape(cgroup.layout)) + &table(&["group", "in the hierarchies of"], rows)
}

fn network(out: &mut String, view: &View) {
    let body = match (&view.interfaces, &view.routes) {
        (Some(interfaces), Some(routes)) => {
            let links = table(
                &["link", "addresses", "MAC", "MTU", "peer"],
                interfaces.iter().map(|link| {
                    let name = if link.up { link.name.clone() } else { format!("{} (down)", link.name) };
                    let peer = link.peer_index.map(|index| format!("if{index}")).unwrap_or_default();
                    vec![
                        name,
                        link.addresses.join("\n"),
                        link.mac.clone().unwrap_or_default(),
                        link.mtu.map(|mtu| mtu.to_string()).unwrap_or_default(),
                        peer,
                    ]
                }),
            );
            let routes = table(
                &["route to", "by gateway", "on link"],
                routes.iter().map(|r| {
                    vec![
                        r.destination.clone(),
                        r.gateway.clone().unwrap_or_default(),
                        r.interface.clone().unwrap_or_default(),
                    ]
                }),
            );
            links + &routes
        }
        _ => missing(view, "interfaces"),
    };
    card(
        out,
        "Network",
        "One end of a veth pair is in here, the other end on the host’s bridge: <code>ip addr</code>, <code>ip route</code>.",
        &body,
    );
}

fn namespaces(out: &mut String, view: &View) {
    let says = |kind: &str| match kind {
        "cgroup" => "which group is the root of /sys/fs/cgroup",
        "ipc" => "message queues, shared memory",
        "mnt" => "the tree of mounts",
        "net" => "links, addresses, routes, ports, firewall",
        "pid" => "process numbers",
        "time" => "offsets of the boot clocks",
        "user" => "user and group numbers",
        "uts" => "the hostname",
        _ => "",
    };
    let body = match &view.namespaces {
        None => missing(view, "namespaces"),
        Some(all) => table(
            &["namespace", "number", "what is its own"],
            all.iter().map(|namespace| {
                vec![namespace.kind.clone(), namespace.id.to_string(), says(&namespace.kind).to_string()]
            }),
        ),
    };
    card(
        out,
        "Namespaces",
        "Compare with <code>ls -l /proc/self/ns</code> on the host: equal numbers are shared.",
        &body,
    );
}

fn rights(out: &mut String, view: &View) {
    let body = view.process.as_ref().map_or_else(|| missing(view, "process"), rights_of);
    card(out, "Rights", "Root in a container is not root: these are the capabilities that are left of 41.", &body);
}

fn rights_of(process: &Process) -> String {
    let capabilities = &process.capabilities;
    let filters = process
        .seccomp_filters
        .filter(|count| *count > 0)
        .map(|count| format!(" ({count} installed)"))
        .unwrap_or_default();
    let yes = |value: Option<bool>| value.map_or("unknown", |value| if value { "yes" } else { "no" }).to_string();
    facts(&[
        ("effective", tags(&capabilities.effective)),
        ("ambient", tags(&capabilities.ambient)),
        ("inheritable", tags(&capabilities.inheritable)),
        (
            "could be gained",
            if capabilities.bounding == capabilities.effective {
                "no more than these".to_string()
            } else {
                tags(&capabilities.bounding)
            },
        ),
        ("seccomp", format!("{}{filters}", process.seccomp)),
        ("no new privileges", yes(process.no_new_privileges)),
    ])
}

fn environment(out: &mut String, view: &View) {
    let body = view.process.as_ref().map_or_else(|| missing(view, "process"), |process| tags(&process.environment));
    card(out, "Environment", "Names only: the values may be secrets.", &body);
}

fn mounts(out: &mut String, view: &View) {
    let body = match &view.mounts {
        None => missing(view, "mounts"),
        Some(mounts) => table(
            &["mounted at", "type", "source", "options"],
            mounts.iter().map(|mount| {
                let source =
                    if mount.root == "/" { mount.source.clone() } else { format!("{} [{}]", mount.source, mount.root) };
                vec![mount.target.clone(), mount.filesystem.clone(), source, mount.options.replace(',', ", ")]
            }),
        ),
    };
    card(
        out,
        "Mounts",
        "The container’s own tree, after <code>pivot_root</code>: <code>cat /proc/self/mountinfo</code>.",
        &body,
    );
}

fn files(out: &mut String, view: &View) {
    let mut body = String::new();
    for (name, key, content) in
        [("/etc/hosts", "hosts", &view.hosts), ("/etc/resolv.conf", "resolv_conf", &view.resolv_conf)]
    {
        let _ = match content {
            Some(content) => {
                write!(body, "<p class=why><code>{name}</code></p>\n<pre>{}</pre>\n", escape(content.trim_end()))
            }
            None => write!(body, "<p class=why><code>{name}</code></p>\n{}", missing(view, key)),
        };
    }
    card(out, "Names", "Who is called what, and who is asked for the rest.", &body);
}

/// `64 MiB`; one decimal where it isn't whole.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = (0..units.len()).rev().find(|step| bytes >> (10 * step) > 0).unwrap_or(0);
    let value = bytes as f64 / (1u64 << (10 * step)) as f64;
    if value.fract() < 0.05 { format!("{value:.0} {}", units[step]) } else { format!("{value:.1} {}", units[step]) }
}

#[cfg(test)]
mod tests {
    use super::super::view::Client;
    use super::*;

    fn view() -> View {
        View::read(Client::new("192.0.2.9:4321".parse().unwrap(), "172.17.0.2:80".parse().ok()))
    }

    #[test]
    fn hostile_names_cannot_leave_their_place() {
        let evil = "<script>alert('x')</script>\"&\u{1b}[2J";
        assert_eq!(escape(evil), "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;\u{fffd}[2J");
        let mut view = view();
        view.hostname = evil.to_string();
        view.hosts = Some(evil.to_string());
        view.missing.insert("resolv_conf", evil.to_string());
        view.resolv_conf = None;
        let process = view.process.as_mut().unwrap();
        process.environment = vec![evil.to_string()];
        process.command = vec![evil.to_string()];
        process.capabilities.ambient = vec![evil.to_string()];
        view.mounts.as_mut().unwrap()[0].target = evil.to_string();
        view.cgroup.as_mut().unwrap().limits.net_cls_classid = Some(evil.to_string());
        view.interfaces.as_mut().unwrap()[0].name = evil.to_string();
        let page = render(&view);
        assert!(!page.contains("<script") && !page.contains('\u{1b}'));
        assert!(page.matches("&lt;script&gt;").count() >= 8);
        assert!(!not_found("/<script>").contains("<script"));
    }

    #[test]
    fn what_is_missing_says_why() {
        let mut view = view();
        (view.process, view.processes, view.interfaces, view.routes) = (None, None, None, None);
        (view.namespaces, view.cgroup, view.mounts, view.hosts) = (None, None, None, None);
        for key in ["process", "interfaces", "namespaces", "cgroup", "mounts", "hosts"] {
            view.missing.insert(key, format!("no {key} today"));
        }
        let page = render(&view);
        for key in ["process", "interfaces", "namespaces", "cgroup", "mounts", "hosts"] {
            assert!(page.contains(&format!("no {key} today")), "{key}");
        }
    }

    #[test]
    fn the_page_shows_the_client_and_the_limits() {
        let mut view = view();
        view.cgroup.as_mut().unwrap().limits = Limits {
            memory_bytes: Some(64 << 20),
            cpus: Some(0.5),
            memory_used_bytes: Some(1_700_000),
            ..Limits::default()
        };
        let page = render(&view);
        for text in ["192.0.2.9", "port 4321", "172.17.0.2", ">64 MiB<", ">0.5 CPUs<", "1.6 MiB used", "no limit"] {
            assert!(page.contains(text), "{text}");
        }
    }

    #[test]
    fn sizes_read_well() {
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1_700_000, "1.6 MiB"),
            (64 << 20, "64 MiB"),
            (3 << 40, "3 TiB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
    }
}
