//! Explain = apply: the printed script, run by sh, gives the mounts, names and groups that minidock makes.

use std::fs;
use std::process::{Command, Stdio as Output};

use super::host::{Container, Host, isolated};
use super::view::table;
use crate::{Op, Plan, cgroup};

/// All commands of a plan as one script.
fn script(plan: &Plan) -> String {
    let ops = plan.ops_before_go().into_iter().chain(plan.ops_after_go());
    let commands = ops.flat_map(|op| op.explain());
    commands
        .map(|(command, reason)| if reason.is_empty() { command } else { format!("# {reason}\n{command}") })
        .collect::<Vec<_>>()
        .join("\n")
}

fn container(host: &Host) -> Container<'_> {
    let data = host.folder.join("data dir");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("file"), "x").unwrap();
    let mut container = Container::sh(host, "cat /proc/self/mountinfo; echo; hostname; cat /proc/1/cgroup; for n in pid net uts ipc mnt cgroup; do readlink /proc/1/ns/$n; done; echo $FOO $HOME; cat /proc/sys/net/ipv4/conf/lo/forwarding; ls /dev; ip -o link | grep -c UP")
        .mount(&data, "/data", &["rbind", "rprivate", "rro"])
        .mount(&data.join("file"), "/etc/hosts", &["bind", "rprivate"])
        .process(|process| {
            let mut env = process.env().clone().unwrap();
            env.extend(["FOO=it's a \"test\"".to_owned(), "HOME=/root".to_owned()]);
            process.set_env(Some(env));
        })
        .linux(|linux| {
            linux.set_sysctl(Some([("net.ipv4.conf.lo.forwarding".to_owned(), "1".to_owned())].into()));
        });
    container.spec.root_mut().as_mut().unwrap().set_readonly(Some(true));
    container
}

#[test]
fn the_printed_script_does_the_same() {
    isolated("explain::the_printed_script_does_the_same", |host| {
        let applied = container(host).output();

        let again = container(host);
        let plan = again.plan().unwrap();
        let undo = Undo(plan.cgroup.iter().filter_map(cgroup::Op::residue).rev().collect());
        let script = script(&plan);
        let path = host.folder.join("script");
        // Whoever typed it ends the holder.
        fs::write(&path, format!("trap 'kill -9 $pid; wait' EXIT\n{script}\n")).unwrap();
        let output = Command::new("sh").arg("-eu").arg(&path).stdin(Output::null()).output().unwrap();
        let typed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{script}\n---\n{typed}\n{}", String::from_utf8_lossy(&output.stderr));

        let split = |text: &str| {
            let (mounts, rest) = text.split_once("\n\n").unwrap();
            let rest = rest.replace(&host.id, "ID");
            // The numbers of namespaces differ; that they're new is what counts.
            let rest = rest.lines().filter(|line| !line.contains(":[")).map(str::to_owned).collect::<Vec<_>>();
            (table(mounts), rest)
        };
        let (applied, typed) = (split(&applied), split(&typed));
        let missing: Vec<_> = applied.0.difference(&typed.0).collect();
        let added: Vec<_> = typed.0.difference(&applied.0).collect();
        assert!(missing.is_empty() && added.is_empty(), "only applied: {missing:#?}\nonly typed: {added:#?}\n{script}");
        assert_eq!(applied.1, typed.1, "{script}");
        drop(undo);
    });
}

struct Undo(Vec<cgroup::Residue>);

impl Drop for Undo {
    fn drop(&mut self) {
        cgroup::undo(&self.0).into_iter().for_each(|undone| drop(undone.unwrap()));
    }
}

#[test]
fn the_script_reads_like_a_teachers() {
    isolated("explain::the_script_reads_like_a_teachers", |host| {
        let mut container = Container::new(host, &["sh"]);
        container.rootfs = crate::Rootfs::Overlay {
            lower: vec!["/layers/base".into(), "/layers/app".into()],
            upper: "/c/upper".into(),
            work: "/c/work".into(),
            merged: "/c/merged".into(),
            volatile: false,
        };
        let plan = container.plan().unwrap();
        let lines: Vec<String> = plan.mounts.iter().flat_map(|op| op.explain()).map(|(command, _)| command).collect();
        let expected = r#"
nsenter -t $pid -a -- mount --make-rslave /
root=/c/merged
nsenter -t $pid -a -- mount -t overlay -o lowerdir=/layers/app:/layers/base,upperdir=/c/upper,workdir=/c/work,index=off,metacopy=off,redirect_dir=off overlay "$root"
nsenter -t $pid -a -- mount --mkdir -t proc -o nosuid,nodev,noexec proc "$root/proc"
nsenter -t $pid -a -- mount --mkdir -t tmpfs -o nosuid,strictatime,mode=755,size=65536k tmpfs "$root/dev"
nsenter -t $pid -a -- mount --mkdir -t devpts -o nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
nsenter -t $pid -a -- mount --mkdir -t mqueue -o nosuid,nodev,noexec mqueue "$root/dev/mqueue"
nsenter -t $pid -a -- mount --mkdir -t tmpfs -o nosuid,nodev,noexec,mode=1777,size=67108864 shm "$root/dev/shm"
nsenter -t $pid -a -- mknod -m 666 "$root/dev/null" c 1 3"#;
        assert_eq!(lines[..9].join("\n"), expected.trim_start());
        let namespaces = Op::Namespaces(plan.namespaces.clone()).explain();
        assert!(
            namespaces[0].0.starts_with("unshare --mount --propagation unchanged --uts --ipc --net --pid --fork"),
            "{namespaces:?}"
        );
        assert_eq!(lines.last().unwrap(), "nsenter -t $pid -m -- umount -l /");
    });
}
