//! A second process in a running container.

use std::fs;

use oci_spec::runtime::Process;

use super::host::{Container, Started, isolated, pipe, read_all, read_line, wait};
use crate::{Running, Seccomp, StartError, StartErrorKind, Stdio, exec};

struct Exec<'a> {
    container: &'a Container<'a>,
    started: &'a Started,
    user: Option<&'a str>,
}

impl Exec<'_> {
    fn spawn(&self, args: &[&str], change: impl FnOnce(&mut Process), stdio: Stdio) -> Result<Running, StartError> {
        let mut process = self.container.spec.process().clone().unwrap();
        process.set_args(Some(args.iter().map(|arg| (*arg).to_owned()).collect()));
        change(&mut process);
        let pid = self.started.running.pid;
        let target = exec::Target {
            pid,
            starttime: exec::starttime(pid).unwrap(),
            id: "box",
            spec: &self.container.spec,
            seccomp: Seccomp::Default,
            user: self.user,
            group_add: &[],
            die_with_caller: false,
        };
        exec::spawn(target, &process, stdio)
    }

    fn run(&self, args: &[&str], change: impl FnOnce(&mut Process)) -> Result<(i32, String), StartError> {
        let (stdin, _stdin_end) = pipe();
        let (out, stdout) = pipe();
        let stderr = stdout.try_clone().unwrap();
        let running = self.spawn(args, change, Stdio::Pipes { stdin, stdout, stderr })?;
        let text = read_all(&out);
        Ok((wait(&running), text))
    }
}

#[test]
fn it_joins_everything_and_gets_the_same_rights() {
    isolated("exec::it_joins_everything_and_gets_the_same_rights", |host| {
        let container = Container::sh(host, "echo up; read x");
        let mut started = container.start().unwrap();
        assert_eq!(started.line(), "up");
        let exec = Exec { container: &container, started: &started, user: None };
        let script = "for n in pid net uts ipc mnt cgroup; do test $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) || echo $n; done; cat /proc/self/cgroup | grep -v ':/$'; grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status; hostname; pwd; echo $HOME";
        // A descriptor of the host that somebody forgot to mark.
        let leak = fs::File::open("/").unwrap();
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
        let (status, text) = exec.run(&["sh", "-c", script], |_| {}).unwrap();
        let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\nbox\n/\n/root\n";
        assert_eq!((status, text.as_str()), (0, expected));
        // The fourth is ls's own.
        assert_eq!(exec.run(&["ls", "/proc/self/fd"], |_| {}).unwrap().1, "0\n1\n2\n3\n");
        // The same groups, as the host sees them.
        let (stdin, stdin_end) = pipe();
        let (out, stdout) = pipe();
        let stderr = stdout.try_clone().unwrap();
        let running = exec
            .spawn(&["sh", "-c", "echo here; read x; exit 4"], |_| {}, Stdio::Pipes { stdin, stdout, stderr })
            .unwrap();
        assert_eq!(read_line(&out), "here");
        let groups = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert_eq!(groups(running.pid), groups(started.running.pid));
        assert!(groups(running.pid).contains(&host.id));
        drop(stdin_end);
        assert_eq!(wait(&running), 4);
    });
}

#[test]
fn its_errors_are_told_apart() {
    isolated("exec::its_errors_are_told_apart", |host| {
        let container = Container::sh(host, "echo up; read x");
        let mut started = container.start().unwrap();
        started.line();
        let mut exec = Exec { container: &container, started: &started, user: None };
        let error = exec.run(&["foo"], |_| {}).unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (StartErrorKind::NotFound, "exec: \"foo\": executable file not found in $PATH")
        );
        assert_eq!(exec.run(&["/etc"], |_| {}).unwrap_err().kind, StartErrorKind::NotExecutable);
        for number in 0..32 {
            let error = exec
                .run(&["pwd"], |process| {
                    process.set_cwd(format!("/proc/self/fd/{number}").into());
                })
                .unwrap_err();
            assert!(error.message.contains("working directory"), "{error}");
        }
        assert_ne!(exec.run(&["/proc/self/exe"], |_| {}).unwrap_err().kind, StartErrorKind::Other);
        exec.user = Some("ann");
        let (_, text) = exec.run(&["sh", "-c", "id -u; grep CapEff /proc/self/status; echo $HOME"], |_| {}).unwrap();
        assert_eq!(text, "1000\nCapEff:\t0000000000000000\n/home/ann\n");
        exec.user = Some("nobody");
        assert!(exec.run(&["id"], |_| {}).unwrap_err().message.contains("nobody"));

        // Another process of the same pid is never touched.
        let pid = started.running.pid;
        let target = |starttime| exec::Target {
            pid,
            starttime,
            id: "box",
            spec: &container.spec,
            seccomp: Seccomp::Default,
            user: None,
            group_add: &[],
            die_with_caller: false,
        };
        let process = container.spec.process().clone().unwrap();
        let stdio = || Stdio::Terminal { rows: 1, columns: 1 };
        let error = exec::spawn(target(1), &process, stdio()).unwrap_err();
        assert_eq!(error.message, "container box is not running");
        let starttime = exec::starttime(pid).unwrap();
        started.wait();
        assert_eq!(
            exec::spawn(target(starttime), &process, stdio()).unwrap_err().message,
            "container box is not running"
        );
    });
}

#[test]
fn it_has_a_terminal_of_its_own() {
    isolated("exec::it_has_a_terminal_of_its_own", |host| {
        let container = Container::sh(host, "echo up; read x");
        let mut started = container.start().unwrap();
        started.line();
        let exec = Exec { container: &container, started: &started, user: Some("ann") };
        let stdio = Stdio::Terminal { rows: 12, columns: 34 };
        let running =
            exec.spawn(&["sh", "-c", "tty; stty size; sleep 0 < /dev/tty && echo ok; read x"], |_| {}, stdio).unwrap();
        let master = running.terminal.as_ref().unwrap();
        let lines: Vec<String> = (0..3).map(|_| read_line(master).trim().to_owned()).collect();
        assert_eq!(lines, ["/dev/pts/0", "12 34", "ok"]);
        rustix::io::write(master, b"\n").unwrap();
        assert_eq!(wait(&running), 0);
    });
}

/// CVE-2016-9962: with SYS_PTRACE a container can look into whoever joins. There must be nothing of the host in there.
#[test]
fn a_tracing_container_finds_no_descriptor_of_the_host() {
    isolated("exec::a_tracing_container_finds_no_descriptor_of_the_host", |host| {
        // Watches every new process and prints what its descriptors lead to.
        let watcher = "echo up; while :; do for p in /proc/[0-9]*; do case $p in /proc/1|/proc/$$) continue;; esac; for f in $p/fd/*; do l=$(readlink $f 2>/dev/null) && case $l in pipe:*|socket:*|/dev/null|'anon_inode:[pidfd]') ;; *) echo $p $l;; esac; done; done; done";
        let container = Container::sh(host, watcher).process(|process| {
            let all = host.facts.capabilities.to_oci();
            let mut sets = process.capabilities().clone().unwrap();
            sets.set_bounding(Some(all.clone())).set_effective(Some(all.clone())).set_permitted(Some(all));
            process.set_capabilities(Some(sets));
        });
        let mut started = container.start().unwrap();
        started.line();
        let secret = fs::File::open(host.layer()).unwrap();
        rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
        let exec = Exec { container: &container, started: &started, user: None };
        for _ in 0..30 {
            exec.run(&["true"], |_| {}).unwrap();
        }
        rustix::process::pidfd_send_signal(&started.running.pidfd, rustix::process::Signal::KILL).unwrap();
        let seen = started.wait().stdout;
        assert!(!seen.contains(&host.id), "descriptors of the host were seen: {seen}");
    });
}
