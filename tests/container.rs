//! What the program in a container sees and may do: environment, user, files, mounts, namespaces, rights.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod host;

use std::collections::BTreeSet;
use std::path::Path;

use host::{TestHost, images};

#[test]
fn environment_folder_user_and_groups_are_what_image_and_flags_say() {
    let host = TestHost::new();
    std::fs::write(host.work.join("env"), "# comment\nFROM_FILE=1\nB=file\n").unwrap();
    let script = "echo $PATH; echo $A$B$FROM_FILE$HOSTED; echo $HOME; pwd; id";
    let flags = [
        "-e",
        "A=a b",
        "-e",
        "B=flag",
        "--env-file",
        "env",
        "-e",
        "HOSTED",
        "-w",
        "/www",
        "-u",
        "student",
        "--group-add",
        "lab",
    ];
    let args = [&["run", "--rm"], &flags[..], &["busybox", "sh", "-c", script]].concat();
    let output = host.command(&args).env("HOSTED", "-from-host").run().ok();
    let student = "uid=1000(student) gid=1000(student) groups=1000(student),2000(lab)";
    assert_eq!(output.out(), format!("{}\na bflag1-from-host\n/home/student\n/www\n{student}", images::PATH));
    assert_eq!(
        host.output_of(&["-u", "1234:99", "busybox", "sh", "-c", "id -u; id -g; id -G; echo $HOME"]),
        "1234\n99\n99\n/"
    );
    host.minidock(&["run", "--rm", "-u", "nobody-here", "busybox", "true"]).exits(125).says(&["nobody-here"]);
    let secret = host.command(&["run", "--rm", "busybox", "env"]).env("SECRET", "x").run().ok().out();
    assert!(
        !secret.contains("SECRET") && !secret.contains("MINIDOCK"),
        "the host's environment stays outside: {secret}"
    );
    host.finish();
}

#[test]
fn a_working_folder_that_is_missing_is_made() {
    let host = TestHost::new();
    assert_eq!(host.output_of(&["-w", "/new/folder", "busybox", "pwd"]), "/new/folder");
    host.finish();
}

#[test]
fn the_image_s_configuration_is_honoured() {
    let host = TestHost::bare();
    let config = serde_json::json!({
        "Env": [format!("PATH={}", images::PATH), "GREETING=hello"], "Entrypoint": ["sh", "-c", "echo $GREETING $0 $(pwd) $(id -un)"],
        "Cmd": ["world"], "WorkingDir": "/tmp", "User": "student", "Volumes": {"/data": {}}, "StopSignal": "SIGUSR1",
        "Labels": {"from": "image"}, "ExposedPorts": {"8080/tcp": {}},
    });
    let archive = host.work.join("image.tar");
    std::fs::write(&archive, images::docker_archive(&[images::rootfs()], config, &["app:1"])).unwrap();
    host.minidock(&["load", "-i", archive.to_str().unwrap()]).ok();
    assert_eq!(host.output_of(&["app:1"]), "hello world /tmp student");
    assert_eq!(host.output_of(&["app:1", "moon"]), "hello moon /tmp student");
    assert_eq!(host.output_of(&["--entrypoint", "echo", "app:1", "plain"]), "plain");
    assert_eq!(host.output_of(&["--entrypoint", "grep", "app:1", "-c", " /data ", "/proc/self/mounts"]), "1");
    let trap = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.02; done";
    host.detached(&[
        "--name",
        "app",
        "--entrypoint",
        "sh",
        "--label",
        "from=flag",
        "--label",
        "more=1",
        "app:1",
        "-c",
        trap,
    ]);
    host.wait_logged("app", "ready");
    host.minidock(&["stop", "-t", "60", "app"]).ok();
    assert_eq!(
        host.inspect("app", "{{.State.ExitCode}} {{index .Config.Labels \"from\"}} {{.Config.Labels.more}}"),
        "5 flag 1"
    );
    host.remove(&["app"]);
    host.finish();
}

#[test]
fn the_host_name_and_the_files_in_etc_are_the_container_s() {
    let host = TestHost::new();
    let flags = [
        "-h",
        "web.lab",
        "--add-host",
        "db:10.1.2.3",
        "--dns",
        "10.9.9.9",
        "--dns-search",
        "lab.test",
        "--dns-option",
        "ndots:2",
    ];
    let output = host.output_of(
        &[&flags[..], &["busybox", "sh", "-c", "hostname; cat /etc/hostname /etc/hosts; cat /etc/resolv.conf"]]
            .concat(),
    );
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], ["web.lab", "web.lab"]);
    assert!(lines.iter().any(|line| line.split_whitespace().eq(["10.1.2.3", "db"])), "{output}");
    assert!(lines.iter().any(|line| line.starts_with("172.17.") && line.contains("web.lab")), "{output}");
    assert!(lines.iter().any(|line| line.starts_with("127.0.0.1") && line.contains("localhost")), "{output}");
    // --dns is the resolver's upstream: tests/dns.rs.
    for line in ["nameserver 127.0.0.11", "search lab.test", "options ndots:2"] {
        assert!(lines.contains(&line), "{output}");
    }
    let id = host.detached(&["busybox", "sleep", "1000"]);
    assert_eq!(host.minidock(&["exec", &id, "hostname"]).ok().out(), id[..12]);
    host.remove(&[&id]);
    host.finish();
}

#[test]
fn the_container_has_namespaces_of_its_own() {
    let host = TestHost::new();
    let inside = host.output_of(&[
        "busybox",
        "sh",
        "-c",
        "for n in /proc/self/ns/*; do readlink $n; done; echo $$; ls /proc | grep -c '^[0-9]'",
    ]);
    let here: BTreeSet<String> = ["cgroup", "ipc", "mnt", "net", "pid", "uts"]
        .iter()
        .map(|kind| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string())
        .collect();
    assert!(inside.lines().filter(|line| line.contains(":[")).count() >= 6, "{inside}");
    assert!(inside.lines().all(|line| !here.contains(line)), "{inside}\n{here:?}");
    let last: Vec<&str> = inside.lines().rev().take(2).collect();
    assert_eq!(last[1], "1", "the program is PID 1");
    assert!(last[0].parse::<u32>().unwrap() < 5, "only its own processes are seen");
    let shared = host.output_of(&[
        "--pid",
        "host",
        "--ipc",
        "host",
        "--uts",
        "host",
        "busybox",
        "sh",
        "-c",
        "for n in /proc/self/ns/*; do readlink $n; done",
    ]);
    for kind in ["ipc", "pid", "uts"] {
        let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
        assert!(shared.contains(&link), "--{kind} host: {shared}");
    }
    host.detached(&["--name", "first", "busybox", "sleep", "1000"]);
    let joined = host.output_of(&["--pid", "container:first", "busybox", "sh", "-c", "cat /proc/1/cmdline"]);
    assert_eq!(joined, "sleep\x001000\0");
    host.remove(&["first"]);
    host.finish();
}

#[test]
fn the_standard_mounts_and_devices_are_there() {
    let host = TestHost::new();
    let mounts = host.output_of(&["busybox", "cat", "/proc/self/mounts"]);
    let find = |point: &str| {
        let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[1] == point);
        fields.map(|fields| format!("{} {}", fields[2], fields[3])).unwrap_or_else(|| panic!("no {point} in\n{mounts}"))
    };
    assert!(find("/").starts_with("overlay rw"));
    for (point, kind, options) in [
        ("/proc", "proc", "rw,nosuid,nodev,noexec"),
        ("/sys", "sysfs", "ro,nosuid,nodev,noexec"),
        ("/dev", "tmpfs", "rw,nosuid"),
        ("/dev/pts", "devpts", "rw,nosuid,noexec"),
        ("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec"),
        ("/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec"),
        ("/proc/sys", "proc", "ro"),
        ("/proc/irq", "proc", "ro"),
    ] {
        let found = find(point);
        assert!(found.starts_with(&format!("{kind} {options}")), "{point}: {found}");
    }
    assert!(
        mounts
            .lines()
            .any(|line| line.contains(" /sys/fs/cgroup") && line.contains(" cgroup") && line.contains(" ro,")),
        "{mounts}"
    );
    let nodes = host.output_of(&[
        "busybox",
        "sh",
        "-c",
        "cd /dev; ls -d *; for n in null zero full random urandom tty; do [ -c $n ] || echo no $n; done",
    ]);
    let expected = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    let seen: BTreeSet<&str> = nodes.split_whitespace().collect();
    for name in expected.split(' ') {
        assert!(seen.contains(name), "/dev/{name} is missing: {nodes}");
    }
    assert!(!seen.contains("no"), "{nodes}");
    host.finish();
}

#[test]
fn sensitive_files_are_masked_or_read_only() {
    let host = TestHost::new();
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/latency_stats /proc/interrupts; do \
                  [ ! -e $f ] || [ $(head -c 1 $f | wc -c) = 0 ] || echo readable $f; done; \
                  for d in /proc/acpi /proc/scsi /sys/firmware; do [ -z \"$(ls $d 2>/dev/null)\" ] || echo full $d; done; \
                  for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/kernel/profiling; do \
                  ( : >>$f ) 2>/dev/null && echo writable $f; done; \
                  mkdir /sys/fs/cgroup/x 2>/dev/null && echo cgroup writable; :";
    assert_eq!(host.output_of(&["busybox", "sh", "-c", script]), "");
    host.finish();
}

#[test]
fn only_descriptors_0_to_2_are_open() {
    let host = TestHost::new();
    // A program that opens nothing itself, looked at from outside: a shell has pipes of its own for a moment.
    host.detached(&["--name", "quiet", "busybox", "sleep", "1000"]);
    let open = host::residue::names_in(Path::new(&format!("/proc/{}/fd", host.pid("quiet"))));
    assert_eq!(open, ["0", "1", "2"].map(String::from).into());
    host.remove(&["quiet"]);
    host.finish();
}

#[test]
fn capabilities_are_docker_s_fourteen_and_follow_the_flags() {
    let host = TestHost::new();
    let caps = |flags: &[&str]| {
        let script = "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb):' /proc/self/status | cut -f2 | tr '\\n' ' '";
        host.output_of(&[flags, &["busybox", "sh", "-c", script]].concat()).trim().to_string()
    };
    let default = "00000000a80425fb";
    let none = "0000000000000000";
    assert_eq!(caps(&[]), format!("{none} {default} {default} {default} {none}"));
    assert_eq!(caps(&["-u", "1000"]), format!("{none} {none} {none} {default} {none}"));
    assert_eq!(caps(&["--cap-drop", "ALL"]), [none; 5].join(" "));
    assert_eq!(
        caps(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]),
        format!("{none} {0} {0} {0} {none}", "0000000000001000")
    );
    assert_eq!(
        caps(&["--cap-add", "SYS_ADMIN", "--cap-drop", "CHOWN"]),
        format!("{none} {0} {0} {0} {none}", "00000000a82425fa")
    );
    let all: u64 = (1 << (host::read("/proc/sys/kernel/cap_last_cap").trim().parse::<u64>().unwrap() + 1)) - 1;
    let privileged = caps(&["--privileged"]);
    let own = host::read("/proc/self/status");
    let bounding =
        u64::from_str_radix(own.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim(), 16).unwrap();
    assert_eq!(privileged.split(' ').nth(2).unwrap(), format!("{:016x}", all & bounding));
    host.minidock(&["run", "--rm", "--cap-add", "FLY", "busybox", "true"]).exits(125).says(&["FLY"]);
    host.finish();
}

#[test]
fn seccomp_is_on_and_refuses_what_docker_s_profile_refuses() {
    let host = TestHost::new();
    let status =
        |flags: &[&str]| host.output_of(&[flags, &["busybox", "grep", "^Seccomp:", "/proc/self/status"]].concat());
    assert_eq!(status(&[]), "Seccomp:\t2");
    assert_eq!(status(&["--security-opt", "seccomp=unconfined"]), "Seccomp:\t0");
    assert_eq!(status(&["--privileged"]), "Seccomp:\t0");
    host.minidock(&["run", "--rm", "busybox", "unshare", "-U", "true"]).exits(1).says(&["Operation not permitted"]);
    host.minidock(&["run", "--rm", "busybox", "mount", "-t", "tmpfs", "x", "/tmp"]).exits(1);
    let mount = ["run", "--rm", "--cap-add", "SYS_ADMIN", "busybox", "mount", "-t", "tmpfs", "x", "/tmp"];
    host.minidock(&mount).ok();
    host.finish();
}

#[test]
fn no_new_privileges_is_set_on_request() {
    let host = TestHost::new();
    let status =
        |flags: &[&str]| host.output_of(&[flags, &["busybox", "grep", "^NoNewPrivs:", "/proc/self/status"]].concat());
    assert_eq!(status(&[]), "NoNewPrivs:\t0");
    assert_eq!(status(&["--security-opt", "no-new-privileges"]), "NoNewPrivs:\t1");
    host.finish();
}

#[test]
fn a_read_only_root_can_be_written_only_where_mounts_are() {
    let host = TestHost::new();
    let script = "touch /x 2>/dev/null && echo written; touch /dev/shm/x /scratch/x && echo ok";
    assert_eq!(
        host.output_of(&["--read-only", "--tmpfs", "/scratch:size=1m,mode=1770", "busybox", "sh", "-c", script]),
        "ok"
    );
    let mounts = host.output_of(&[
        "--tmpfs",
        "/scratch:size=1m,mode=1770",
        "busybox",
        "sh",
        "-c",
        "grep ' /scratch ' /proc/self/mounts; stat -c %a /scratch",
    ]);
    assert!(mounts.contains("size=1024k") && mounts.ends_with("1770"), "{mounts}");
    host.finish();
}

#[test]
fn folders_and_files_of_the_host_are_mounted() {
    let host = TestHost::new();
    let folder = host.work.join("share");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("file"), "from the host").unwrap();
    let (folder, file) = (folder.display().to_string(), folder.join("file").display().to_string());
    let output = host.output_of(&[
        "-v",
        &format!("{folder}:/data"),
        "busybox",
        "sh",
        "-c",
        "cat /data/file; echo back >/data/new",
    ]);
    assert_eq!((output.as_str(), host::read(format!("{folder}/new")).as_str()), ("from the host", "back\n"));
    let script = "cat /data/file; touch /data/x 2>/dev/null && echo written";
    assert_eq!(
        host.minidock(&["run", "--rm", "-v", &format!("{folder}:/data:ro"), "busybox", "sh", "-c", script]).out(),
        "from the host"
    );
    let mount = format!("type=bind,src={file},dst=/etc/motd,readonly");
    assert_eq!(host.output_of(&["--mount", &mount, "busybox", "cat", "/etc/motd"]), "from the host");
    let made = host.work.join("made-by-v");
    host.output_of(&["-v", &format!("{}:/data", made.display()), "busybox", "true"]);
    assert!(made.is_dir(), "-v makes a missing folder, as docker does");
    let missing = format!("type=bind,src={}/missing,dst=/data", host.work.display());
    host.minidock(&["run", "--rm", "--mount", &missing, "busybox", "true"]).exits(125).says(&["missing"]);
    host.output_of(&[
        "--mount",
        "type=tmpfs,dst=/scratch,tmpfs-size=1m",
        "busybox",
        "grep",
        "-q",
        "/scratch tmpfs",
        "/proc/self/mounts",
    ]);
    host.finish();
}

#[test]
fn a_mount_target_that_is_a_link_out_of_the_root_stays_in_the_root() {
    let host = TestHost::bare();
    let mut layer = images::Layer::new();
    layer.link("data", "../../../../escape").link("etc-link", "/etc");
    let archive = host.work.join("image.tar");
    let layers = [images::rootfs(), layer.bytes()];
    std::fs::write(&archive, images::docker_archive(&layers, images::busybox_config(), &["links:1"])).unwrap();
    host.minidock(&["load", "-i", archive.to_str().unwrap()]).ok();
    let share = host.work.join("share");
    std::fs::create_dir(&share).unwrap();
    let run = host
        .minidock(&[
            "run",
            "--rm",
            "-v",
            &format!("{}:/data", share.display()),
            "links:1",
            "sh",
            "-c",
            "ls -d /escape; touch /data/x",
        ])
        .ok();
    assert_eq!(run.out(), "/escape");
    assert!(share.join("x").exists() && !std::path::Path::new("/escape").exists());
    host.finish();
}

#[test]
fn ulimits_sysctls_shm_size_and_devices_are_set() {
    let host = TestHost::new();
    let limits = host.output_of(&[
        "--ulimit",
        "nofile=123:456",
        "--ulimit",
        "core=0",
        "busybox",
        "sh",
        "-c",
        "ulimit -Sn; ulimit -Hn; ulimit -c",
    ]);
    assert_eq!(limits, "123\n456\n0");
    let sysctl = host.output_of(&[
        "--sysctl",
        "net.ipv4.ip_default_ttl=42",
        "--sysctl",
        "kernel.msgmax=7777",
        "busybox",
        "cat",
        "/proc/sys/net/ipv4/ip_default_ttl",
        "/proc/sys/kernel/msgmax",
    ]);
    assert_eq!(sysctl, "42\n7777");
    for bad in [
        "kernel.core_pattern=x",
        "vm.swappiness=1",
        "net.ipv4/../../kernel/core_pattern=x",
        "kernel.shm_rmid_forced=1+kernel.core_pattern=x",
    ] {
        host.minidock(&["run", "--rm", "--sysctl", bad, "busybox", "true"]).exits(125);
    }
    assert!(host.output_of(&["--shm-size", "2m", "busybox", "df", "/dev/shm"]).contains("2048"));
    let device = host.output_of(&[
        "--device",
        "/dev/null:/dev/nothing:r",
        "busybox",
        "sh",
        "-c",
        "stat -c '%t:%T %F' /dev/nothing",
    ]);
    assert_eq!(device, "1:3 character special file");
    host.finish();
}

#[test]
fn a_container_s_changes_do_not_reach_the_image_or_the_next_container() {
    let host = TestHost::new();
    host.output_of(&["busybox", "sh", "-c", "echo changed >/www/index.html; rm /etc/group; echo secret >/root/x"]);
    assert_eq!(
        host.output_of(&["busybox", "sh", "-c", "cat /www/index.html; ls /etc/group; ls /root"]),
        format!("{}/etc/group", images::PAGE)
    );
    host.finish();
}

#[test]
fn tiocsti_cannot_push_input_to_the_caller() {
    let host = TestHost::new();
    let status = host.output_of(&["busybox", "sh", "-c", "cut -d' ' -f6,7 /proc/self/stat"]);
    assert_eq!(status, "1 0", "a session of its own (led by PID 1), without a terminal");
    host.finish();
}
