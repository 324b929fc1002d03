//! What a program sees from inside, compared with what docker shows.

use std::collections::BTreeSet;
use std::fs;

use super::host::{Container, Host, isolated};

#[test]
fn a_program_is_pid_1_in_namespaces_of_its_own() {
    isolated("view::a_program_is_pid_1_in_namespaces_of_its_own", |host| {
        let text = Container::sh(host, "echo $$; hostname; for n in pid net uts ipc mnt cgroup; do readlink /proc/self/ns/$n; done; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'; ip -o link | grep -c UP; umask")
            .output();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["1", "box"]);
        for (line, kind) in lines[2..8].iter().zip(["pid", "net", "uts", "ipc", "mnt", "cgroup"]) {
            let ours = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            assert_ne!(*line, ours.to_str().unwrap(), "{kind}");
        }
        assert_eq!(lines[8], "sh");
        assert!(lines[9].parse::<u32>().unwrap() <= 3, "the host's processes are visible: {text}");
        assert_eq!(lines[10..], ["1", "0022"], "lo is up");
    });
}

/// A mount table, without what differs between machines: ids, devices, the overlay's folders, sizes.
pub fn table(mountinfo: &str) -> BTreeSet<String> {
    let mounts = mountinfo.lines().map(|line| {
        let (left, right) = line.split_once(" - ").unwrap();
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let options = right[2].split(',').filter(|option| !option.contains("dir=")).collect::<Vec<_>>().join(",");
        format!("{} {} {} {} {options}", left[4], left[5], right[0], right[1])
    });
    mounts.collect()
}

#[test]
fn the_mounts_are_dockers() {
    isolated("view::the_mounts_are_dockers", |host| {
        let text = Container::new(host, &["cat", "/proc/self/mountinfo"]).output();
        let found = table(&text);
        // As `docker run busybox cat /proc/self/mountinfo` (28, cgroups v1 in a private namespace), without its three files
        // in /etc, which are the engine's.
        let expected = "
/ rw,relatime overlay overlay
/proc rw,nosuid,nodev,noexec,relatime proc proc
/dev rw,nosuid tmpfs tmpfs
/dev/pts rw,nosuid,noexec,relatime devpts devpts
/sys ro,nosuid,nodev,noexec,relatime sysfs sysfs
/dev/mqueue rw,nosuid,nodev,noexec,relatime mqueue mqueue
/dev/shm rw,nosuid,nodev,noexec,relatime tmpfs shm
/proc/bus ro,nosuid,nodev,noexec,relatime proc proc
/proc/fs ro,nosuid,nodev,noexec,relatime proc proc
/proc/irq ro,nosuid,nodev,noexec,relatime proc proc
/proc/sys ro,nosuid,nodev,noexec,relatime proc proc
/proc/sysrq-trigger ro,nosuid,nodev,noexec,relatime proc proc
/proc/acpi ro,relatime tmpfs tmpfs
/proc/interrupts rw,nosuid tmpfs tmpfs
/proc/kcore rw,nosuid tmpfs tmpfs
/proc/keys rw,nosuid tmpfs tmpfs
/proc/timer_list rw,nosuid tmpfs tmpfs
/proc/scsi ro,relatime tmpfs tmpfs
/sys/firmware ro,relatime tmpfs tmpfs
/sys/devices/virtual/powercap ro,relatime tmpfs tmpfs";
        let mut expected: BTreeSet<String> = expected.lines().skip(1).map(str::to_owned).collect();
        // What this host's kernel doesn't have can't be covered.
        expected.retain(|line| {
            let path = line.split(' ').next().unwrap();
            !path.starts_with("/proc/") && !path.starts_with("/sys/") || std::path::Path::new(path).exists()
        });
        let short: BTreeSet<String> = found
            .iter()
            .filter(|line| !line.starts_with("/sys/fs/cgroup"))
            .map(|line| line.split(' ').take(4).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(short, expected);
        let devpts = found.iter().find(|line| line.starts_with("/dev/pts ")).unwrap();
        assert!(devpts.ends_with(" rw,gid=5,mode=620,ptmxmode=666"), "{devpts}");
        assert!(
            found.iter().any(|line| line.starts_with("/dev rw,nosuid tmpfs tmpfs rw,size=65536k,mode=755")),
            "{found:#?}"
        );
        assert!(found.iter().any(|line| line.starts_with("/dev/shm ") && line.contains("size=65536k")), "{found:#?}");
        let cgroups: Vec<_> = found.iter().filter(|line| line.starts_with("/sys/fs/cgroup")).collect();
        assert!(
            !cgroups.is_empty()
                && cgroups.iter().all(|line| line.split(' ').nth(1).unwrap().starts_with("ro,nosuid,nodev,noexec")),
            "{cgroups:#?}"
        );
        // Every line is private: no propagation field.
        assert!(!text.contains("shared:") && !text.contains("master:"), "{text}");
    });
}

#[test]
fn masked_paths_are_empty_and_read_only_ones_closed() {
    isolated("view::masked_paths_are_empty_and_read_only_ones_closed", |host| {
        let script = "for f in kcore keys timer_list interrupts; do ! test -e /proc/$f || wc -c < /proc/$f; done | sort -u; ls -A /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v : | grep -c .; echo x > /proc/sys/kernel/domainname; echo $?; echo b > /proc/sysrq-trigger; echo $?; touch /sys/x; echo $?; touch /sys/firmware/x; echo $?; ls -l /proc/keys";
        let outcome = Container::sh(host, script).run().unwrap();
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines[..6], ["0", "0", "1", "1", "1", "1"], "{outcome:?}");
        assert!(lines[6].starts_with("crw-rw-rw-") && lines[6].contains("1,   3"), "{}", lines[6]);
    });
}

#[test]
fn rights_are_dockers() {
    isolated("view::rights_are_dockers", |host| {
        let text = Container::new(host, &["cat", "/proc/self/status"]).output();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        for name in ["CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(field(name), "00000000a80425fb", "{name}");
        }
        assert_eq!([field("CapInh:"), field("CapAmb:")], ["0".repeat(16), "0".repeat(16)]);
        assert_eq!([field("NoNewPrivs:"), field("Seccomp:")], ["0", "2"]);
        assert_eq!(field("SigIgn:"), "0".repeat(16), "ignored signals survive an exec");
        assert_eq!(field("SigBlk:"), "0".repeat(16));
        assert_eq!(field("Groups:"), "");
    });
}

#[test]
fn no_new_privileges_is_set_on_request() {
    isolated("view::no_new_privileges_is_set_on_request", |host| {
        let text = Container::new(host, &["cat", "/proc/self/status"])
            .process(|process| {
                process.set_no_new_privileges(Some(true)).set_oom_score_adj(Some(500));
            })
            .output();
        assert!(text.contains("NoNewPrivs:\t1") && text.contains("Seccomp:\t2"), "{text}");
    });
}

#[test]
fn another_user_has_no_capabilities_and_a_home() {
    isolated("view::another_user_has_no_capabilities_and_a_home", |host| {
        for (user, ids, home) in [
            ("ann", "uid=1000(ann) gid=1001(ann) groups=50(staff),1001(ann)", "/home/ann"),
            // An entry *named* 1000 is root; a number is never a name.
            ("1000", "uid=1000(ann) gid=1001(ann) groups=50(staff),1001(ann)", "/home/ann"),
            ("77:staff", "uid=77 gid=50(staff) groups=50(staff)", "/"),
        ] {
            let mut container =
                Container::sh(host, "id; echo $HOME; grep Cap /proc/self/status; echo hi > /dev/stderr; echo $?");
            container.user = Some(user);
            let outcome = container.run().unwrap();
            let lines: Vec<&str> = outcome.stdout.lines().collect();
            assert!(lines[0].starts_with(ids), "{user}: {outcome:?}");
            assert_eq!(lines[1], home, "{user}");
            assert_eq!(lines[3..5], ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000"], "{user}");
            assert_eq!(
                (lines[7], outcome.stderr.as_str()),
                ("0", "hi\n"),
                "the user can reopen its stderr: {outcome:?}"
            );
        }
        assert!(
            Container { user: Some("nobody"), ..Container::sh(host, "id") }
                .run()
                .unwrap_err()
                .message
                .contains("unable to find user nobody")
        );
        let text = Container::sh(host, "echo $HOME; id").output();
        assert_eq!(text, "/root\nuid=0(root) gid=0(root)\n", "root's HOME comes from the image, too");
    });
}

#[test]
fn only_three_descriptors_are_open() {
    isolated("view::only_three_descriptors_are_open", |host| {
        // A descriptor that somebody forgot to mark.
        let leak = fs::File::open("/etc/passwd").unwrap();
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
        for init in [false, true] {
            // ls itself opens the folder.
            let text = Container { init, ..Container::new(host, &["ls", "/proc/self/fd"]) }.output();
            assert_eq!(text, "0\n1\n2\n3\n", "--init: {init}");
        }
    });
}

#[test]
fn devices_are_the_standard_ones() {
    isolated("view::devices_are_the_standard_ones", |host| {
        let text = Container::sh(host, "ls /dev; for l in fd ptmx stdin; do readlink /dev/$l; done; cat /dev/null; head -c 3 /dev/zero | od -An -tx1; stat -c '%a %t %T' /dev/random; mknod /tmp/sda b 8 0 && cat /tmp/sda 2>&1").run().unwrap().stdout;
        let mut lines: Vec<&str> = text.lines().collect();
        // Only where the kernel has /proc/kcore, to which it leads.
        assert_eq!(lines[0] == "core", fs::exists("/proc/kcore").unwrap());
        lines.retain(|line| *line != "core");
        assert_eq!(
            lines[..14].join(" "),
            "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
        );
        let lines = &lines[14..];
        assert_eq!(lines[..3], ["/proc/self/fd", "pts/ptmx", "/proc/self/fd/0"]);
        assert_eq!(lines[3].trim(), "00 00 00");
        assert_eq!(lines[4], "666 1 8");
        assert!(lines[5].contains("Operation not permitted"), "the devices cgroup: {text}");
    });
}

#[test]
fn binds_tmpfs_and_a_read_only_root() {
    isolated("view::binds_tmpfs_and_a_read_only_root", |host| {
        let data = host.folder.join("data");
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::write(data.join("file"), "hello").unwrap();
        rustix::mount::mount("none", data.join("sub"), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        let mut container = Container::sh(
            host,
            "cat /ro/file /new/place/f; touch /rw/made && echo rw; touch /ro/x || echo ro; touch /ro/sub/x || echo rro; touch /x || echo root; touch /scratch/x && echo tmp; touch /dev/shm/x && echo shm",
        )
        .mount(&data, "/rw", &["rbind", "rprivate"])
        .mount(&data, "/ro", &["rbind", "rprivate", "rro"])
        .mount(&data.join("file"), "/new/place/f", &["bind", "ro"]);
        let mut tmpfs = oci_spec::runtime::Mount::default();
        tmpfs
            .set_destination("/scratch".into())
            .set_typ(Some("tmpfs".into()))
            .set_source(Some("tmpfs".into()))
            .set_options(Some(vec!["size=1m".into(), "nosuid".into()]));
        container.spec.mounts_mut().as_mut().unwrap().push(tmpfs);
        container.spec.root_mut().as_mut().unwrap().set_readonly(Some(true));
        let outcome = container.run().unwrap();
        assert_eq!(outcome.stdout, "hellohellorw\nro\nrro\nroot\ntmp\nshm\n", "{outcome:?}");
        assert!(data.join("made").exists() && !data.join("sub/x").exists());
        let gone = Container::sh(host, "true").mount(&host.folder.join("absent"), "/x", &["bind"]).run().unwrap_err();
        assert!(gone.message.contains("bind source path does not exist"), "{gone}");
        rustix::mount::unmount(data.join("sub"), rustix::mount::UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn parameters_of_own_namespaces_are_set() {
    isolated("view::parameters_of_own_namespaces_are_set", |host| {
        let before = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        let set = |key: &'static str, value: &'static str| {
            Container::sh(host, "cat /proc/sys/net/ipv4/conf/lo/forwarding /proc/sys/kernel/shmmax 2>/dev/null").linux(
                |linux| {
                    linux.set_sysctl(Some([(key.to_owned(), value.to_owned())].into()));
                },
            )
        };
        assert!(set("net.ipv4.conf.lo.forwarding", "1").output().starts_with("1\n"));
        assert!(set("kernel.shmmax", "12345678").output().ends_with("12345678\n"));
        assert!(set("kernel.core_pattern", "|/x").run().unwrap_err().message.contains("core_pattern"));
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), before);
    });
}

#[test]
fn limits_are_set_or_refused() {
    isolated("view::limits_are_set_or_refused", |host: &Host| {
        let limit = |hard: u64| {
            let nofile = oci_spec::runtime::PosixRlimitType::RlimitNofile;
            let limit =
                oci_spec::runtime::PosixRlimitBuilder::default().typ(nofile).hard(hard).soft(64u64).build().unwrap();
            Container::sh(host, "ulimit -n; ulimit -Hn").process(|process| {
                process.set_rlimits(Some(vec![limit]));
            })
        };
        assert_eq!(limit(128).output(), "64\n128\n");
        let error = limit(32).run().unwrap_err();
        assert!(error.message.contains("soft limit 64 is above the hard limit 32"), "{error}");
        if !host.facts.can_raise_limits {
            let error = limit(u64::MAX - 1).run().unwrap_err();
            assert!(error.message.contains("CAP_SYS_RESOURCE"), "{error}");
        }
    });
}

#[test]
fn namespaces_of_another_container_are_joined() {
    isolated("view::namespaces_of_another_container_are_joined", |host| {
        use oci_spec::runtime::LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Uts};
        let mut first = Container::sh(host, "echo up; read x").start().unwrap();
        assert_eq!(first.line(), "up");
        let place = |kind: &str| format!("/proc/{}/ns/{kind}", first.running.pid);
        let script = "for n in pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; ls /proc | grep -c '^[0-9]'";
        let mut second = Container::sh(host, script);
        let mut other = host.sibling();
        other.id = format!("{}-b", host.id);
        second.host = &other;
        let second = second.linux(|linux| {
            let joined = [
                (Pid, Some("pid")),
                (Network, Some("net")),
                (Ipc, Some("ipc")),
                (Uts, Some("uts")),
                (Mount, None),
                (Cgroup, None),
            ];
            let namespaces = joined.map(|(kind, name)| {
                let namespace = oci_spec::runtime::LinuxNamespaceBuilder::default().typ(kind);
                match name {
                    Some(name) => namespace.path(place(name)).build().unwrap(),
                    None => namespace.build().unwrap(),
                }
            });
            linux.set_namespaces(Some(namespaces.to_vec()));
        });
        // A name for a namespace that isn't ours to name would be the other's.
        let mut second = second;
        second.spec.set_hostname(None);
        let own = fs::read_link("/proc/self/ns/pid_for_children").unwrap();
        let text = second.output();
        let lines: Vec<&str> = text.lines().collect();
        for (line, kind) in lines[..4].iter().zip(["pid", "net", "ipc", "uts"]) {
            assert_eq!(*line, fs::read_link(place(kind)).unwrap().to_str().unwrap(), "{kind}");
        }
        assert_ne!(lines[4], fs::read_link(place("cgroup")).unwrap().to_str().unwrap());
        assert!(lines[5].parse::<u32>().unwrap() >= 2, "the first container's processes are seen");
        assert_eq!(fs::read_link("/proc/self/ns/pid_for_children").unwrap(), own, "our own children are ours again");
        first.wait();
    });
}
