//! Plans as text, without root: a command line goes in, the shell script that a teacher would write comes out.
//!
//! The expected scripts are in `golden/`. `MINIDOCK_GOLDEN=write cargo test plan` writes them anew; a changed script is
//! reviewed as a changed behaviour.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use netsetup::firewall::{self, nftables};
use netsetup::{Network, PortMapping, PublishMode};
use runtime::cgroup::{Layout, V1, V2};

use super::endpoints::Leased;
use super::image::ImageFacts;
use super::{Places, Plan, plan};
use crate::cli::{self, Command};
use crate::explain;
use crate::facts::Facts;
use crate::network::joining::Joining;
use crate::op::Op;
use crate::request::attach::Attach;
use crate::request::ports::HostPort;
use crate::request::{RunRequest, Surroundings};
use crate::reservation::Reservation;

const ID: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

fn request(words: &[&str]) -> RunRequest {
    let arguments = ["run"].iter().chain(words).map(OsString::from);
    let Ok(cli::Invocation { command: Command::Run(args), .. }) = cli::parse(arguments, &|_| None) else {
        panic!("not a run: {words:?}")
    };
    let around = Surroundings {
        cwd: PathBuf::from("/home/me"),
        environment: &|_| None,
        read: &|_, path| panic!("reads {}", path.display()),
    };
    RunRequest::gather(&args, &around).unwrap()
}

fn v2() -> Layout {
    let controllers: Vec<String> = ["cpuset", "cpu", "io", "memory", "pids"].map(String::from).into();
    let v2 = V2 { mount: "/sys/fs/cgroup".into(), controllers: controllers.clone(), enabled: controllers };
    Layout { v2: Some(v2), cpus: Some("0-1".into()), mems: Some("0".into()), swap_limit: true, ..Layout::default() }
}

fn v1() -> Layout {
    let hierarchy = |name: &str| V1 { mount: format!("/sys/fs/cgroup/{name}").into(), controllers: vec![name.into()] };
    let v1 = ["cpu", "cpuset", "memory", "devices", "pids", "net_cls"].map(hierarchy).into();
    Layout { v1, cpus: Some("0-1".into()), mems: Some("0".into()), swap_limit: true, ..Layout::default() }
}

fn joining(network: Network, facts: netsetup::Facts) -> Joining {
    let wish = Attach::to(&network.name);
    Joining { network, facts, wish, host_binding: None, link_prefix: "eth".into() }
}

fn facts(cgroup: Layout) -> Facts {
    let ipv4 = Some(netsetup::Subnet::new([172, 17, 0, 1], 16));
    let network = Network { ipv4, ..Network::new("bridge", "docker0") };
    let table = nftables::Facts { tables: vec![nftables::TableFacts::nothing(&network, nftables::Family::Ip)] };
    let host = netsetup::Facts {
        bridge: None,
        addresses: vec![],
        ip_forward: false,
        route_localnet: false,
        bridge_netfilter: false,
        egress_mtu: 1500,
        firewall: firewall::Facts::Nftables(table, None),
        guard: Some(nftables::TableFacts::nothing(&network, nftables::Family::Bridge)),
        settings_writable: true,
        ipv6: netsetup::Ipv6Facts::default(),
    };
    Facts {
        runtime: runtime::Facts {
            cgroup,
            last_cap: 40,
            kernel: (6, 1),
            hard_limits: vec![1 << 20; 16],
            capabilities: runtime::capabilities::Set::all(40),
            can_raise_limits: true,
            overlay: true,
            apparmor: false,
            kcore: true,
        },
        networks: vec![joining(network, host)],
        uplink: None,
        resolv_conf: "nameserver 10.0.0.2\n".into(),
        hosts: "127.0.0.1 localhost\n".into(),
        hostname: "lab".into(),
        cgroup_filter: false,
        thermal_cpus: vec![],
        cpus: 2,
        block_devices: BTreeMap::new(),
        devices: vec![],
        missing_sources: vec![],
        joined_net: None,
        joined_pid: None,
        joined_ipc: None,
        joined_shm: None,
    }
}

fn reservation(request: &RunRequest) -> Reservation {
    let ports = request.network.publish.iter().map(|publish| PortMapping {
        protocol: publish.protocol,
        host_address: publish.host_address,
        host_port: if let HostPort::Fixed(port) = publish.host { port } else { 32768 },
        container_port: publish.container_port,
        mode: request.network.publish_mode.unwrap_or(PublishMode::Dnat),
    });
    Reservation {
        id: ID.into(),
        folder: format!("/var/lib/minidock/containers/{ID}").into(),
        name: request.name.clone().unwrap_or_else(|| "calm_wren".into()),
        addresses: vec![Leased { ipv4: Some([172, 17, 0, 2].into()), ipv6: None }],
        ports: ports.collect(),
        chosen: Default::default(),
    }
}

fn planned(words: &[&str], layout: Layout) -> anyhow::Result<Plan> {
    let request = request(words);
    let mut facts = facts(layout);
    let mut reservation = reservation(&request);
    if request.network.mode != crate::request::network::NetworkMode::Bridge {
        (facts.networks, reservation.addresses) = (vec![], vec![]);
    }
    let image = ImageFacts {
        id: "sha256:1".into(),
        name: "web".into(),
        layers: vec!["/var/lib/minidock/images/layers/aaa".into(), "/var/lib/minidock/images/layers/bbb".into()],
        env: vec!["LANG=C".into()],
        entrypoint: vec!["/bin/server".into()],
        cmd: vec!["--port".into(), "80".into()],
        workdir: "/srv".into(),
        exposed: vec!["80/tcp".into()],
        ..ImageFacts::default()
    };
    let places = Places {
        program: "/usr/bin/minidock".into(),
        net_cls_mount: "/run/minidock/net_cls".into(),
        networks: "/run/minidock/network".into(),
        cgroup_parent: "minidock".into(),
    };
    plan(&request, &image, &facts, &reservation, &places)
}

fn script(plan: &Plan) -> String {
    let mut commands: Vec<_> = plan.shared_cgroup.iter().flat_map(runtime::cgroup::Op::explain).collect();
    commands.extend(plan.folders.iter().chain(&plan.files).chain(&plan.cgroup).flat_map(Op::explain));
    commands.extend(plan.init_commands());
    commands.extend(plan.endpoint.iter().flat_map(Op::explain));
    commands.extend(plan.commands_after_network(false, None));
    explain::script(&commands)
}

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/golden").join(name);
    if std::env::var_os("MINIDOCK_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let first = text.lines().zip(expected.lines()).find(|(now, then)| now != then);
    assert!(text == expected, "{name} differs, first in {first:?}; if this is meant: MINIDOCK_GOLDEN=write");
}

#[test]
fn a_whole_run_on_cgroup_v2_is_this_script() {
    let words = ["--name", "web", "-p", "10080:80", "-m", "64m", "--cpus", "0.5", "-v", "/data:/srv/data:ro", "web"];
    compare("v2.sh", &script(&planned(&words, v2()).unwrap()));
}

#[test]
fn a_whole_run_on_cgroup_v1_is_this_script() {
    let words =
        ["--net-cls", "1:10", "-m", "64m", "--pids-limit", "20", "--network", "none", "--read-only", "web", "-v"];
    compare("v1.sh", &script(&planned(&words, v1()).unwrap()));
}

#[test]
fn the_residues_of_a_plan_name_all_that_stays_on_the_host() {
    let plan = planned(&["--name", "web", "-p", "10080:80", "-m", "64m", "web"], v2()).unwrap();
    let all = plan.folders.iter().chain(&plan.files).chain(&plan.cgroup).chain(&plan.endpoint);
    let residues: Vec<String> =
        all.filter_map(|op| op.residue(Some(42))).map(|residue| serde_json::to_string(&residue).unwrap()).collect();
    for part in [format!("minidock/{ID}"), "vethc0ffee0".into(), "\"pid\":42".into(), "10080".into()] {
        assert!(residues.iter().any(|residue| residue.contains(&part)), "{part} in {residues:#?}");
    }
}

#[test]
fn what_can_not_work_is_refused_whole_with_the_reason() {
    let refused = |words: &[&str], layout| planned(words, layout).map(drop).unwrap_err().to_string();
    assert!(refused(&["--cpus", "3", "web"], v2()).contains("only 2 CPUs"));
    let mut no_memory = v1();
    no_memory.v1.retain(|hierarchy| hierarchy.controllers != ["memory"]);
    assert!(refused(&["-m", "64m", "web"], no_memory).contains("memory"));
    assert!(refused(&["--network", "none", "--add-host", "a:host-gateway", "web"], v2()).contains("host-gateway"));
    assert!(refused(&["--sysctl", "kernel.panic=1", "web"], v2()).contains("kernel.panic"));
}

#[test]
fn entrypoint_and_command_follow_dockers_rules() {
    let args =
        |words: &[&str]| planned(words, v2()).map(|plan| plan.spec.process().as_ref().unwrap().args().clone().unwrap());
    assert_eq!(args(&["web"]).unwrap(), ["/bin/server", "--port", "80"]);
    assert_eq!(args(&["web", "-x"]).unwrap(), ["/bin/server", "-x"]);
    assert_eq!(args(&["--entrypoint", "sh", "web"]).unwrap(), ["sh"]);
    assert_eq!(args(&["--entrypoint", "", "web", "ls"]).unwrap(), ["ls"]);
    assert!(args(&["--entrypoint", "", "web"]).unwrap_err().to_string().contains("no command specified"));
}

#[test]
fn what_the_kernel_lacks_is_told_and_done_without() {
    let warned = |change: fn(&mut Joining), words: &[&str]| {
        let request = request(words);
        let mut facts = facts(v2());
        change(&mut facts.networks[0]);
        let places = Places {
            net_cls_mount: "/n".into(),
            networks: "/run/n".into(),
            program: "/usr/bin/minidock".into(),
            cgroup_parent: "minidock".into(),
        };
        let reservation = reservation(&request);
        let image = ImageFacts { layers: vec!["/l".into()], cmd: vec!["x".into()], ..ImageFacts::default() };
        plan(&request, &image, &facts, &reservation, &places).unwrap()
    };
    assert!(warned(|_| {}, &["web"]).warnings.is_empty());
    // No nftables for bridges: said with the network's first container.
    let plan = warned(|joining| joining.facts.guard = None, &["web"]);
    assert_eq!(plan.warnings.len(), 1);
    assert!(plan.warnings[0].contains("no nftables for bridges"), "{:?}", plan.warnings);
    let without = |joining: &mut Joining| {
        joining.facts.firewall = firewall::Facts::Absent;
        joining.facts.guard = None;
        joining.network = joining.facts.adopt(&joining.network);
    };
    let plan = warned(without, &["-p", "10080:80", "web"]);
    assert_eq!(plan.warnings.len(), 1);
    assert!(plan.warnings[0].contains("can't reach the outside"), "{:?}", plan.warnings);
    assert!(!plan.endpoint.iter().any(|op| matches!(op, Op::Net(netsetup::Op::Firewall(_)))), "{:?}", plan.endpoint);
}

#[test]
fn a_class_that_only_a_filter_can_give_is_told() {
    let words = ["--network", "host", "--net-cls", "1:10", "web"];
    let told = planned(&words, v1()).unwrap().warnings;
    assert!(told.len() == 1 && told[0].contains("tc filter add dev"), "{told:?}");
    let mut hybrid = v1();
    hybrid.v2 = v2().v2;
    assert!(planned(&words, hybrid).unwrap().warnings.is_empty());
    // A bridged container's class is given by the host's rules.
    assert!(planned(&["--net-cls", "1:10", "web"], v1()).unwrap().warnings.is_empty());
}

#[test]
fn a_class_that_only_a_filter_makes_hold_is_warned_of_where_there_is_none() {
    let warned = |layout: Layout, cgroup_filter: bool| {
        let facts = Facts { networks: vec![], cgroup_filter, ..facts(layout) };
        super::shaping::warning(&request(&["--network", "host", "--net-cls", "1:10", "web"]), &facts, None)
    };
    assert!(warned(v1(), false).is_some_and(|text| text.contains("cls_cgroup")));
    assert_eq!(warned(v1(), true), None, "the user has it");
    assert_eq!(warned(v2(), false), None, "cgroup2 does it");
}
