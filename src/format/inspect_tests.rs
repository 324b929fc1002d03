//! Tests of `inspect` and `ps` on one made-up container.

use std::collections::{BTreeMap, BTreeSet};

use netsetup::{PortMapping, Protocol, PublishMode};

use super::*;
use crate::format::NetworkView;
use crate::format::ps::{self, Style};
use crate::format::ps_filter::Filter;
use crate::format::view::ConfigView;
use crate::format::view::SizeView;
use crate::request::Surroundings;

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_795_441_107 * SECOND;

fn request(words: &[&str]) -> RunRequest {
    let words = std::iter::once("run").chain(words.iter().copied()).map(Into::into);
    let crate::cli::Command::Run(args) = crate::cli::parse(words, &|_| None).unwrap().command else {
        panic!("not run")
    };
    let around = Surroundings { cwd: "/cwd".into(), environment: &|_| None, read: &|_, _| Ok(Vec::new()) };
    RunRequest::gather(&args, &around).unwrap()
}

fn view(request: &RunRequest) -> ContainerView<'_> {
    let mapping = |host_port, container_port| PortMapping {
        protocol: Protocol::Tcp,
        host_address: std::net::Ipv4Addr::UNSPECIFIED.into(),
        host_port,
        container_port,
        mode: PublishMode::Dnat,
    };
    ContainerView {
        id: "0123456789abcdef".repeat(4),
        name: "web".into(),
        created: NOW - 31 * SECOND,
        path: "sh".into(),
        args: vec!["-c".into(), "while true; do echo \"é\"; done".into()],
        state: StateView { status: Status::Running, pid: 42, started: Some(NOW - 3 * SECOND), ..StateView::default() },
        image_id: format!("sha256:{}", "ab".repeat(32)),
        image_name: "busybox:latest".into(),
        request,
        config: ConfigView {
            hostname: "0123456789ab".into(),
            env: vec!["A=<&>".into()],
            cmd: vec!["sh".into()],
            labels: BTreeMap::from([("a".into(), "1".into()), ("b".into(), "2".into())]),
            exposed: BTreeSet::from([(80, Protocol::Tcp), (53, Protocol::Udp)]),
            ..ConfigView::default()
        },
        network: NetworkView {
            ports: vec![mapping(10080, 80)],
            places: vec![PlaceView {
                network: "bridge".into(),
                ipv4: Some(([172, 17, 0, 2].into(), 16)),
                gateways: vec![[172, 17, 0, 1].into()],
                mac: Some([2, 0x42, 172, 17, 0, 2]),
                ..PlaceView::default()
            }],
            sandbox_key: "/run/netns/web".into(),
        },
        mounts: vec![MountView {
            kind: "bind".into(),
            source: "/very/long/source/path".into(),
            destination: "/d".into(),
            propagation: "rprivate".into(),
            ..MountView::default()
        }],
        overlay: Some(OverlayView {
            lower: vec!["/l/1".into(), "/l/2".into()],
            upper: "/c/upper".into(),
            work: "/c/work".into(),
            merged: "/c/merged".into(),
        }),
        size: None,
        restarts: 0,
        log_path: "/c/log".into(),
        hostname_path: "/c/hostname".into(),
        hosts_path: "/c/hosts".into(),
        resolv_conf_path: "/c/resolv.conf".into(),
    }
}

fn ask(template: &str, view: &ContainerView) -> String {
    print(&[container(view)], Some(template)).unwrap()
}

/// The key of every field of docker 28's document, in its order, taken from what docker's client sends and prints.
#[test]
fn the_document_has_dockers_keys() {
    let request = request(&["busybox"]);
    let text = print(&[container(&view(&request))], None).unwrap();
    assert!(text.starts_with("[\n    {\n        \"Id\": \"0123456789abcdef"), "{text}");
    assert!(text.ends_with("    }\n]\n"));
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    for key in [
        "Id",
        "Created",
        "Path",
        "Args",
        "State",
        "Image",
        "LogPath",
        "Name",
        "RestartCount",
        "Driver",
        "HostConfig",
        "GraphDriver",
        "Mounts",
        "Config",
        "NetworkSettings",
    ] {
        assert!(parsed[0].get(key).is_some(), "{key}");
    }
    let order: Vec<usize> = ["Id", "State", "HostConfig", "GraphDriver", "Config", "NetworkSettings"]
        .iter()
        .map(|key| text.find(&format!("\n        \"{key}\"")).unwrap())
        .collect();
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(print(&[], None).unwrap(), "[]\n");
    assert!(!print(&[container(&view(&request))], Some("json")).unwrap().contains(": "));
}

#[test]
fn what_people_paste_works() {
    let request = request(&[
        "-p",
        "10080:80",
        "-p",
        "127.0.0.1::53/udp",
        "-m",
        "64m",
        "--cpus",
        "1.5",
        "-v",
        "./x:/y:ro",
        "--tmpfs",
        "/t:size=1m",
        "--cap-add",
        "net_admin",
        "--ulimit",
        "nofile=5",
        "--net-cls",
        "1:10",
        "busybox",
    ]);
    let view = view(&request);
    let table = [
        ("{{.State.Pid}}", "42"),
        ("{{.NetworkSettings.IPAddress}}", "172.17.0.2"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "172.17.0.2"),
        ("{{.NetworkSettings.Networks.bridge.Gateway}}", "172.17.0.1"),
        ("{{.NetworkSettings.MacAddress}}", "02:42:ac:11:00:02"),
        ("{{.NetworkSettings.SandboxKey}}", "/run/netns/web"),
        (r#"{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}"#, "10080"),
        (r#"{{json (index .NetworkSettings.Ports "80/tcp")}}"#, r#"[{"HostIp":"0.0.0.0","HostPort":"10080"}]"#),
        (
            "{{json .HostConfig.PortBindings}}",
            r#"{"53/udp":[{"HostIp":"127.0.0.1","HostPort":""}],"80/tcp":[{"HostIp":"","HostPort":"10080"}]}"#,
        ),
        ("{{.Name}} {{.Id}}", "/web 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        ("{{.ID}}", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        ("{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}}", "67108864 134217728 1500000000"),
        ("{{.HostConfig.Binds}}", "[/cwd/x:/y:ro]"),
        ("{{.HostConfig.Tmpfs}}", "map[/t:size=1m]"),
        (
            "{{.HostConfig.CapAdd}} {{.HostConfig.NetCls}} {{.HostConfig.NetworkMode}}",
            "[CAP_NET_ADMIN] 0x00010010 bridge",
        ),
        (r#"{{index .Config.Labels "a"}}"#, "1"),
        ("{{json .Config.Env}}", r#"["A=<&>"]"#),
        ("{{.GraphDriver.Data.LowerDir}} {{.GraphDriver.Data.UpperDir}}", "/l/2:/l/1 /c/upper"),
        (
            "{{range .Mounts}}{{.Type}} {{.Source}} {{.Destination}} {{.RW}}{{end}}",
            "bind /very/long/source/path /d true",
        ),
        ("{{.State.Status}} {{.State.Running}} {{.State.ExitCode}}", "running true 0"),
        ("{{.State.FinishedAt}}", "0001-01-01T00:00:00Z"),
        ("{{.Created}}", "2026-11-23T13:37:56Z"),
        ("{{.LogPath}} {{.HostsPath}}", "/c/log /c/hosts"),
        ("{{len .HostConfig.ExtraHosts}}", "0"),
    ];
    for (template, expected) in table {
        assert_eq!(ask(template, &view), format!("{expected}\n"), "{template}");
    }
    let text = print(&[container(&view)], None).unwrap();
    assert!(text.contains("\"53/udp\": null"), "{text}");
}

/// The expected text is docker's client's for the same container.
#[test]
fn ps_prints_dockers_columns() {
    let request = request(&["busybox"]);
    let mut view = view(&request);
    view.config.exposed.clear();
    let mut old = view.clone();
    old.id = "f".repeat(64);
    old.name = "x".into();
    old.image_name = format!("sha256:{}", "ab".repeat(32));
    old.path = "true".into();
    old.args.clear();
    old.created = NOW - 3 * 86400 * SECOND;
    old.state = StateView { status: Status::Exited, finished: Some(NOW - 120 * SECOND), ..StateView::default() };
    old.network = NetworkView::default();
    let both = [view, old];
    let table = "\
CONTAINER ID   IMAGE            COMMAND                  CREATED          STATUS                     PORTS                   NAMES
0123456789ab   busybox:latest   \"sh -c 'while true; …\"   31 seconds ago   Up 3 seconds               0.0.0.0:10080->80/tcp   web
ffffffffffff   abababababab     \"true\"                   3 days ago       Exited (0) 2 minutes ago                           x
";
    assert_eq!(ps::print(&both, Style::default(), NOW).unwrap(), table);
    assert_eq!(
        ps::print(&[], Style::default(), NOW).unwrap(),
        "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    );
    assert_eq!(
        ps::print(&both, Style { quiet: true, ..Style::default() }, NOW).unwrap(),
        "0123456789ab\nffffffffffff\n"
    );
    let some = |format| ps::print(&both[..1], Style { format: Some(format), ..Style::default() }, NOW);
    assert_eq!(
        some(r#"table {{.ID}}\t{{.Names}}\t{{.Label "a"}}\t{{.Mounts}}"#).unwrap(),
        "CONTAINER ID   NAMES     a         MOUNTS\n0123456789ab   web       1         /very/long/sou…\n"
    );
    assert_eq!(some("table {{json .ID}} {{truncate .Image 3}}").unwrap(), "CONTAINER ID IMAGE\n\"0123456789ab\" bus\n");
    assert_eq!(
        some("{{pad .State 1 2}}|{{title .State}}|{{join (split .Image \":\") \"-\"}}|{{.RunningFor}}").unwrap(),
        " running  |Running|busybox-latest|31 seconds ago\n"
    );
    assert!(some("json").unwrap().contains(r#""Ports":"0.0.0.0:10080-\u003e80/tcp""#));
    let error = some("{{.Names}} {{.Foo}}").unwrap_err();
    assert!(
        error
            .message
            .starts_with("failed to execute template: template: :1:13: executing \"\" at <.Foo>: can't evaluate"),
        "{error}"
    );
    assert_eq!(some("{{").unwrap_err().to_string(), "failed to parse template: template: :1: unclosed action");
    assert_eq!((some("{{").unwrap_err().code, some("{{.Foo}}").unwrap_err().code), (1, 1));
    assert!(some("json").unwrap().contains(r#""Platform":null"#));
    let mut sized = both[0].clone();
    sized.size = Some(SizeView { own: 2150, image: 4_260_000 });
    let text = ps::print(&[sized], Style { size: true, ..Style::default() }, NOW).unwrap();
    assert!(text.contains("NAMES     SIZE\n") && text.ends_with("web       2.15kB (virtual 4.26MB)\n"), "{text}");
    assert!(some("raw").unwrap().starts_with("container_id: 0123456789ab\nimage: busybox:latest\ncommand: \"sh -c"));
}

#[test]
fn filters() {
    let request = request(&["busybox"]);
    let view = view(&request);
    let landmark = |name: &str| match name {
        "older" => Some(NOW - 60 * SECOND),
        "newer" => Some(NOW),
        _ => None,
    };
    let fits = |flags: &[&str]| {
        Filter::parse(&flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>()).unwrap().fits(&view, &landmark)
    };
    for flags in [
        &["name=we"][..],
        &["name=^/web$"],
        &["name=x", "name=web"],
        &["id=0123"],
        &["status=running"],
        &["label=a"],
        &["label=a=1", "label=b"],
        &["ancestor=busybox"],
        &["ancestor=busybox:latest"],
        &["ancestor=abab"],
        &["name=^/web$", "name=^nothing$"],
        &["name=w.b"],
        &["since=older", "before=newer"],
        &["volume=/d"],
        &["volume=/very/long/source/path"],
        &["network=bridge"],
        &["publish=10080"],
        &["publish=10000-10100/tcp"],
        &["expose=80"],
        &["expose=53/udp"],
        &["health=none"],
        &["is-task=false"],
        &[],
    ] {
        assert!(fits(flags), "{flags:?}");
    }
    for flags in [
        &["name=x"][..],
        &["name=^eb"],
        &["id=123"],
        &["status=exited"],
        &["label=c"],
        &["label=a=2"],
        &["label=a", "label=c"],
        &["ancestor=alpine"],
        &["exited=0"],
        &["name=web", "status=exited"],
        &["since=newer"],
        &["before=older"],
        &["volume=/x"],
        &["network=other"],
        &["publish=80"],
        &["expose=53"],
        &["health=healthy"],
        &["is-task=true"],
    ] {
        assert!(!fits(flags), "{flags:?}");
    }
    for flag in ["name", "foo=1", "status=up", "exited=x", "publish=x", "health=good", "name=("] {
        assert!(Filter::parse(&[flag.to_owned()]).is_err(), "{flag}");
    }
}

/// The keys of every part of the document in docker's order, as docker's client 28.2.2 writes its own struct. Fields that
/// Go leaves out when they are empty are missing there; ours may have more of those, and minidock's own at the end.
#[test]
fn every_part_has_all_of_dockers_keys_in_dockers_order() {
    let request = request(&["busybox"]);
    let text = print(&[container(&view(&request))], Some("json")).unwrap();
    for (part, keys) in DOCKERS_KEYS {
        let text = ask(&format!("{{{{json .{part}}}}}"), &view(&request));
        let mut rest = text.as_str();
        for key in keys.split(' ') {
            let key = format!("\"{key}\":");
            let at = rest.find(&key);
            assert!(at.is_some(), "{part}: {key} is missing, or comes too early: {text}");
            rest = &rest[at.unwrap_or(0) + key.len()..];
        }
    }
    assert!(text.starts_with("[{\"Id\":"));
}

const DOCKERS_KEYS: &[(&str, &str)] = &[
    (
        "",
        "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount \
     Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config \
     NetworkSettings",
    ),
    ("State", "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt"),
    (
        "HostConfig",
        "Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver \
     VolumesFrom ConsoleSize CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd \
     IpcMode Cgroup Links OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt \
     UTSMode UsernsMode ShmSize Runtime Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight \
     BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps \
     CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems Devices \
     DeviceCgroupRules DeviceRequests MemoryReservation MemorySwap MemorySwappiness OomKillDisable \
     PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth MaskedPaths ReadonlyPaths",
    ),
    (
        "Config",
        "Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin StdinOnce \
     Env Cmd Image Volumes WorkingDir Entrypoint OnBuild Labels",
    ),
    (
        "NetworkSettings",
        "Bridge SandboxID SandboxKey Ports HairpinMode LinkLocalIPv6Address LinkLocalIPv6PrefixLen \
     SecondaryIPAddresses SecondaryIPv6Addresses EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen \
     IPAddress IPPrefixLen IPv6Gateway MacAddress Networks",
    ),
    (
        "NetworkSettings.Networks.bridge",
        "IPAMConfig Links Aliases MacAddress DriverOpts GwPriority NetworkID EndpointID Gateway IPAddress \
     IPPrefixLen IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen DNSNames",
    ),
];
