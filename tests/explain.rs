//! Explain = apply: what `--explain` prints, typed by a person on another host, gives the same kernel state. One host is
//! changed by minidock, a second one by the shell script of `--dry-run`; then they are compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use host::command::Running;
use host::{Firewall, TestHost, groups, residue, wait_until};
use serde_json::Value;

/// The state of a host with one container, as comparable text, by section.
type State = BTreeMap<&'static str, BTreeSet<String>>;

/// Links, addresses, rules of the host; links, addresses, routes, mounts of the container; its limits.
fn state(host: &TestHost, pid: u32) -> State {
    let text = |script: &str| host.sh(script).ok().out();
    let inside = |command: &str| text(&format!("nsenter -t {pid} -n {command}"));
    let mut state = State::new();
    state.insert("links of the host", links(&text("ip -j -d link")));
    state.insert("addresses of the host", addresses(&text("ip -j -4 addr")));
    state.insert(
        "routes of the host",
        text("ip -4 route show table all").lines().map(|line| line.trim().to_string()).collect(),
    );
    state.insert("iptables", residue::iptables_rules(&text("iptables-save")));
    state.insert("nft", residue::nft_objects(&text("nft -j list ruleset")));
    state.insert("ip_forward", lines(&text("cat /proc/sys/net/ipv4/ip_forward")));
    state.insert(
        "sysctls of bridge and cards",
        lines(&text(
            "for bridge in docker0 lab0 lab1; do grep -s . /proc/sys/net/ipv4/conf/$bridge/route_localnet \
             /proc/sys/net/ipv6/conf/$bridge/disable_ipv6; done || true",
        )),
    );
    state.insert("names in ip netns", lines(&text("ip netns | cut -d' ' -f1")));
    state.insert("links of the container", links(&inside("ip -j -d link")));
    state.insert("addresses of the container", addresses(&inside("ip -j -4 addr")));
    state.insert("routes of the container", lines(&inside("ip -4 route show table all")));
    state.insert("namespaces that are its own", own_namespaces(pid));
    state.insert("mounts of the container", mounts(pid));
    state.insert("limits", limits(host, pid));
    let ids = random_words(host, &state);
    state.into_iter().map(|(section, lines)| (section, lines.iter().map(|line| ids.clean(line)).collect())).collect()
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(|line| line.trim().to_string()).filter(|line| !line.is_empty()).collect()
}

/// `ip -j -d link`: what was asked for, without what the kernel chose.
fn links(json: &str) -> BTreeSet<String> {
    let links: Vec<Value> = serde_json::from_str(json).unwrap();
    let keep = ["ifname", "mtu", "master", "ifalias", "operstate", "flags", "linkinfo", "address"];
    links
        .iter()
        .map(|link| {
            let mut kept: BTreeMap<&str, Value> = keep.iter().map(|key| (*key, link[key].clone())).collect();
            // Of a bridge's and a port's two hundred details, timers and ids are the kernel's.
            kept.insert("linkinfo", link["linkinfo"]["info_kind"].clone());
            if link["ifname"] != "eth0" && link["ifname"] != "lo" {
                kept.remove("address"); // a random one; the container's follows its IP address
            }
            serde_json::to_string(&kept).unwrap()
        })
        .collect()
}

fn addresses(json: &str) -> BTreeSet<String> {
    let links: Vec<Value> = serde_json::from_str(json).unwrap();
    let each = links.iter().flat_map(|link| {
        let of_link = link["addr_info"].as_array().cloned().unwrap_or_default();
        of_link.into_iter().map(move |address| {
            format!(
                "{} {}/{} {} {}",
                link["ifname"], address["local"], address["prefixlen"], address["broadcast"], address["scope"]
            )
        })
    });
    each.collect()
}

fn own_namespaces(pid: u32) -> BTreeSet<String> {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "uts", "user", "time"];
    let link = |pid: &str, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    kinds
        .iter()
        .filter(|kind| link(&pid.to_string(), kind) != link("self", kind))
        .map(|kind| kind.to_string())
        .collect()
}

/// Mount points, types and options seen inside.
fn mounts(pid: u32) -> BTreeSet<String> {
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ").unwrap();
        let (left, right): (Vec<&str>, Vec<&str>) = (left.split(' ').collect(), right.split(' ').collect());
        let mut options: Vec<&str> =
            right[2].split(',').filter(|option| !option.starts_with("lowerdir") && !option.contains("dir=")).collect();
        options.sort_unstable();
        format!("{} {} {} {}", left[4], right[0], left[5], options.join(","))
    };
    let table = host::read(format!("/proc/{pid}/mountinfo"));
    table.lines().map(line).collect()
}

/// The limit files of all its groups with their values.
fn limits(host: &TestHost, pid: u32) -> BTreeSet<String> {
    let files = [
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.soft_limit_in_bytes",
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "cpu.cfs_quota_us",
        "cpu.cfs_period_us",
        "cpu.shares",
        "cpu.max",
        "cpu.weight",
        "cpuset.cpus",
        "cpuset.mems",
        "pids.max",
        "net_cls.classid",
        "devices.list",
        "blkio.throttle.read_bps_device",
        "io.max",
    ];
    // cgroup2 shows these files, with these values, in a group without limits as soon as another test's container next to
    // it has any: its parent's controllers are switched on for all (cgroup.subtree_control).
    let unlimited = [
        "memory.max: max",
        "memory.swap.max: max",
        "memory.low: 0",
        "cpu.max: max 100000",
        "cpu.weight: 100",
        "cpuset.cpus: ",
        "cpuset.mems: ",
        "pids.max: max",
    ];
    let mut found = BTreeSet::new();
    for group in group_folders(host, pid) {
        for file in files {
            if let Ok(value) = host.host.run(|| std::fs::read_to_string(group.join(file))) {
                found.extend(value.lines().map(|line| format!("{file}: {line}")));
            }
        }
    }
    found.retain(|line| !unlimited.contains(&line.as_str()));
    found
}

fn group_folders(host: &TestHost, pid: u32) -> BTreeSet<PathBuf> {
    let controllers = ["memory", "cpu", "cpuset", "pids", "net_cls", "devices", "blkio", "freezer", "cpuacct", ""];
    controllers
        .iter()
        .filter_map(|controller| groups::folder_of(host, pid, controller))
        .filter(|group| group.to_string_lossy().contains("minidock")) // not where it stays beside the test
        .collect()
}

/// Words of one host that differ from the other's by design: ids, card names, the host's folder.
struct Random(Vec<(String, String)>);

impl Random {
    fn clean(&self, line: &str) -> String {
        self.0.iter().fold(line.to_string(), |line, (word, name)| line.replace(word, name))
    }
}

fn random_words(host: &TestHost, state: &State) -> Random {
    let mut words = vec![(host.base.display().to_string(), "BASE".to_string())];
    for link in &state["links of the host"] {
        let link: Value = serde_json::from_str(link).unwrap();
        if let Some(name) = link["ifname"].as_str().filter(|name| name.starts_with("veth")) {
            words.push((name.to_string(), "vethX".into()));
        }
    }
    for id in host::residue::names_in(&host.root.join("containers")) {
        words.push((id.clone(), "ID".into()));
        words.push((id.get(..12).unwrap_or(&id).to_string(), "SHORT-ID".into()));
    }
    Random(words)
}

/// Runs the printed script on a host; gives it back when the container is there: its PID.
fn typed_by_hand(host: &TestHost, script: &str) -> (Running, u32) {
    std::fs::write(host.work.join("script"), script).unwrap();
    let shell = host.shell(&host.host, "exec sh -eu script").spawn();
    let mut pid = None;
    // Many processes one after the other, in a VM without KVM on one core for each test.
    let there = host::within(4 * host::LIMIT, || {
        pid = host.host.run(|| {
            let link = std::fs::read_link("/run/netns/box").ok()?;
            let pid = link.to_str()?.split('/').nth(2)?.parse::<u32>().ok()?;
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            (command.starts_with(b"sh\0-c\0trap exit TERM; sleep infinity") || command.starts_with(b"sleep\0"))
                .then_some(pid)
        });
        pid.is_some()
    });
    assert!(
        there,
        "the script made no container:\n{script}\n---- stdout\n{}\n---- stderr\n{}",
        shell.stdout(),
        shell.stderr()
    );
    (shell, pid.unwrap())
}

/// The script's own end: after it nothing of the container is left, and nobody holds the script's output any more.
fn take_away(host: &TestHost, shell: Running) {
    host.sh("sh -eu script undo").ok();
    shell.wait();
}

fn explain_is_apply(firewall: Firewall, flags: &[&str]) {
    explain_is_apply_with(firewall, &[], flags);
}

/// `networks`: the flags of networks that both hosts have by then, the last word each one's name.
fn explain_is_apply_with(firewall: Firewall, networks: &[&str], flags: &[&str]) {
    let (applied, typed) = (TestHost::with_firewall(firewall), TestHost::with_firewall(firewall));
    for (host, network) in [&applied, &typed].into_iter().flat_map(|host| networks.iter().map(move |one| (host, one))) {
        host.minidock(&["network", "create"].into_iter().chain(network.split(' ')).collect::<Vec<_>>()).ok();
    }
    let program = ["busybox", "sleep", "1000"];
    let script = typed.minidock(&[&["run", "--dry-run", "--name", "box"], flags, &program].concat()).ok();
    let done = typed.leftovers(host::LIMIT);
    assert!(done.is_empty() || !networks.is_empty(), "--dry-run has done something: {done:?}");
    let run = applied.minidock(&[&["run", "-d", "--explain", "--name", "box"], flags, &program].concat()).ok();
    assert_eq!(run.out().len(), 64, "stdout has the id alone");

    let (shell, pid) = typed_by_hand(&typed, &script.out());
    let by_minidock = state(&applied, applied.pid("box"));
    let mut by_hand = state(&typed, pid);
    wait_until_equal(&typed, pid, &by_minidock, &mut by_hand);
    let mut differences = Vec::new();
    for (section, expected) in &by_minidock {
        let found = &by_hand[section];
        differences.extend(expected.difference(found).map(|line| format!("{section}: only by minidock: {line}")));
        differences.extend(found.difference(expected).map(|line| format!("{section}: only by hand:     {line}")));
    }
    assert!(differences.is_empty(), "not the same:\n{}\n\nthe script:\n{}", differences.join("\n"), script.out());

    // What --explain showed while it happened are the commands of the script.
    let explained = run.err();
    let commands = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| line.starts_with("ip link") || line.starts_with("nft ") || line.starts_with("iptables"))
            .map(String::from)
            .collect()
    };
    assert!(commands(&explained).len() >= 2, "--explain shows the network's commands:\n{explained}");

    let groups = group_folders(&typed, pid);
    take_away(&typed, shell);
    assert!(groups.iter().all(|group| !group.exists()), "groups are left: {groups:?}\n{}", script.out());
    assert!(!typed.root.join("containers").read_dir().is_ok_and(|mut left| left.next().is_some()), "{}", script.out());
    for network in networks {
        typed.minidock(&["network", "rm", network.rsplit(' ').next().unwrap()]).ok();
    }
    typed.finish();
    applied.remove(&["box"]);
    for network in networks {
        applied.minidock(&["network", "rm", network.rsplit(' ').next().unwrap()]).ok();
    }
    applied.finish();
}

/// A card's state and a route's "linkdown" settle a moment after the commands.
fn wait_until_equal(host: &TestHost, pid: u32, expected: &State, found: &mut State) {
    host::within(host::LIMIT, || {
        if found != expected {
            *found = state(host, pid);
        }
        found == expected
    });
}

const PUBLISHED: &[&str] = &["-p", "10080:80", "-p", "127.0.0.1:10053:53/udp"];
const LIMITED: &[&str] = &["--cpus", "0.5", "--cpu-shares", "512", "--pids-limit", "64", "--net-cls", "1:10"];

/// Names and subnets that are the same on both hosts.
const NETWORKS: &[&str] = &[
    "-o com.docker.network.bridge.name=lab0 --subnet 10.5.0.0/24 lan",
    "-o com.docker.network.bridge.name=lab1 --subnet 10.6.0.0/24 --internal inner",
    "-d macvlan -o parent=uplink --subnet 10.99.0.0/24 --ip-range 10.99.0.64/26 --gateway 10.99.0.2 seg",
];

#[test]
fn several_networks_with_nftables() {
    let flags = ["--network", "lan", "--network", "seg,gw-priority=2", "--network", "inner", "-p", "10080:80"];
    explain_is_apply_with(Firewall::Nftables, NETWORKS, &flags);
}

#[test]
fn several_networks_with_iptables() {
    let flags = ["--network", "inner", "--network", "lan,ip=10.5.0.9,mac-address=02:00:00:00:00:09", "-p", "10080:80"];
    explain_is_apply_with(Firewall::Iptables, NETWORKS, &flags);
}

#[test]
fn a_plain_run_with_nftables() {
    explain_is_apply(Firewall::Nftables, &[]);
}

#[test]
fn a_plain_run_with_iptables() {
    explain_is_apply(Firewall::Iptables, &[]);
}

#[test]
fn published_ports_with_nftables() {
    explain_is_apply(Firewall::Nftables, PUBLISHED);
}

#[test]
fn published_ports_with_iptables() {
    explain_is_apply(Firewall::Iptables, PUBLISHED);
}

#[test]
fn limits_and_net_cls() {
    explain_is_apply(Firewall::Nftables, LIMITED);
}

#[test]
fn memory_and_cpuset_where_the_host_has_them() {
    if groups::version("memory").is_some() && groups::version("cpuset").is_some() {
        explain_is_apply(Firewall::Nftables, &["-m", "64m", "--memory-reservation", "32m", "--cpuset-cpus", "0"]);
    }
}

#[test]
fn mounts_of_all_kinds() {
    explain_is_apply(
        Firewall::Nftables,
        &["-v", "/etc/hostname:/etc/of-the-host:ro", "--tmpfs", "/scratch:size=1m", "--read-only", "--shm-size", "2m"],
    );
}

/// The script has no name server of its own: with the variable that it tells of, its container asks a real one.
#[test]
fn a_typed_container_gets_the_name_server_that_is_asked_for() {
    let host = TestHost::new();
    let script = host.minidock(&["run", "--dry-run", "--name", "box", "busybox", "sleep", "1000"]).ok().out();
    assert!(script.contains("with NAMESERVER=9.9.9.9 set before it"), "{script}");
    let (shell, pid) = typed_by_hand(&host, &format!("NAMESERVER=10.99.0.2\n{script}"));
    wait_until("the container has its root, and the name server in it", || {
        host.sh(&format!("cat /proc/{pid}/root/etc/resolv.conf")).out() == "nameserver 10.99.0.2"
    });
    assert!(pid > 0);
    take_away(&host, shell);
    host.finish();
}

/// A detached one returns, though its processes run; the proxy is this very program, wherever it lies; and its undo ends all
/// of it, twice if need be, without force.
#[test]
fn a_script_with_proxies_holds_nothing_and_can_be_taken_back() {
    for firewall in Firewall::BOTH {
        let host = TestHost::with_firewall(firewall);
        let ports = ["-p", "10987:80", "-p", "10053:53/udp", "--publish-mode", "proxy", "--net-rate", "8mbit"];
        let program = ["busybox", "httpd", "-f", "-h", "/www"];
        let flags = ["run", "-d", "--dry-run", "--name", "box", "-v", "/anonymous"];
        let script = host.minidock(&[&flags[..], &ports, &program].concat()).ok().out();
        assert!(script.contains(&format!("{} proxy -proto tcp", host::minidock().display())), "{script}");
        assert!(!script.contains("kill -9") && !script.contains("KILL"), "{script}");
        std::fs::write(host.work.join("script"), &script).unwrap();
        let proxies = || host.sh("pgrep -f -- '[-]host-port 10987' | wc -l").ok().out();
        for _ in 0..2 {
            host.sh("sh -eu script").ok(); // waits until nobody has its output open
            let pid = host.sh("readlink /run/netns/box | cut -d/ -f3").ok().out().parse().unwrap();
            host::command::wait_listening(&host::namespaces::Namespaces::network_of(pid), 80);
            assert_eq!(
                host::net::fetch(&host.outside, &format!("{}:10987", host::HOST), "/index.html"),
                host::images::PAGE
            );
            assert!(proxies() != "0");
            // Other commands meanwhile leave it alone, though it is none of minidock's containers.
            host.minidock(&["ps", "-a"]).ok();
            assert!(host.root.join("containers").read_dir().unwrap().count() == 1);
            assert_eq!(host.sh("sh -eu script undo").ok().err(), "");
            assert_eq!(host.sh("sh -eu script undo").ok().err(), "", "a second time");
            wait_until("the proxies have ended", || proxies() == "0");
            assert!(!host.root.join("containers").read_dir().is_ok_and(|mut left| left.next().is_some()), "{script}");
        }
        host.finish();
    }
}

#[test]
fn dry_run_prints_one_script_with_reasons_and_does_nothing() {
    let host = TestHost::new();
    let script = host
        .minidock(&["run", "--dry-run", "--name", "box", "-p", "10080:80", "--net-cls", "1:10", "busybox", "true"])
        .ok()
        .out();
    let net_cls = ["0x00010010", "net_cls.classid"];
    for word in [
        "ip link add",
        "docker0",
        "nsenter",
        "ip addr add",
        "mount",
        "overlay",
        "pivot_root",
        "unshare",
        "nft ",
        "10080",
    ]
    .iter()
    .chain(&net_cls)
    {
        assert!(script.contains(word), "the script has no '{word}':\n{script}");
    }
    assert!(
        script.lines().filter(|line| line.starts_with("# ")).count() > 10,
        "each command has its reason:\n{script}"
    );
    assert_eq!(host.minidock(&["ps", "-aq"]).ok().out(), "");
    assert!(host.sh("ls /sys/class/net").ok().out().split('\n').eq(["lo", "uplink"]));
    host.finish();
}

#[test]
fn explain_prints_on_stderr_and_leaves_stdout_to_the_program() {
    let host = TestHost::new();
    let run =
        host.minidock(&["run", "--rm", "--explain", "busybox", "echo", "hi"]).ok().says(&["ip link add", "docker0"]);
    assert_eq!(run.out(), "hi");
    host.finish();
}
