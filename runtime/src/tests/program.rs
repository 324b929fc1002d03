//! From the program's name to its end: exit codes, errors, terminals, PID 1 of `--init`.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use super::host::{Container, Groups, Host, isolated, pipe, read_line, wait};
use crate::{StartErrorKind, Stdio, init};

#[test]
fn a_missing_program_is_127_and_an_unusable_one_126() {
    isolated("program::a_missing_program_is_127_and_an_unusable_one_126", |host| {
        let layer = host.layer();
        let file = |name: &str, content: &str, mode: u32| {
            fs::write(layer.join(name), content).unwrap();
            fs::set_permissions(layer.join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        file("bin/plain", "x", 0o644);
        file("bin/garbage", "\x7f garbage", 0o755);
        file("bin/orphan", "#!/no/such/shell\n", 0o755);
        file("bin/secret", "#!/bin/sh\necho hi\n", 0o700);
        use StartErrorKind::{NotExecutable, NotFound};
        for (program, kind, message) in [
            ("foo", NotFound, "exec: \"foo\": executable file not found in $PATH"),
            ("/foo", NotFound, "exec: \"/foo\": stat /foo: no such file or directory"),
            ("./bin/foo", NotFound, "exec: \"./bin/foo\": stat ./bin/foo: no such file or directory"),
            ("/etc/passwd/x", NotFound, "no such file or directory"),
            ("plain", NotExecutable, "exec: \"plain\": permission denied"),
            ("/etc", NotExecutable, "exec: \"/etc\": is a directory"),
            ("etc", NotFound, "executable file not found in $PATH"),
            ("/dev/null", NotExecutable, "permission denied"),
            ("garbage", NotExecutable, "exec format error"),
            ("orphan", NotFound, "no such file or directory"),
        ] {
            let error = Container::new(host, &[program]).run().unwrap_err();
            assert_eq!(error.kind, kind, "{program}: {error}");
            assert!(error.message.contains(message), "{program}: {error}");
            let error = Container { init: true, ..Container::new(host, &[program]) }.run().unwrap_err();
            assert_eq!(error.kind, kind, "--init {program}: {error}");
        }
        let secret = Container { user: Some("ann"), ..Container::new(host, &["secret"]) }.run().unwrap_err();
        assert_eq!(secret.kind, NotExecutable, "{secret}");
    });
}

#[test]
fn the_exit_status_and_the_streams_are_the_programs() {
    isolated("program::the_exit_status_and_the_streams_are_the_programs", |host| {
        for (script, status) in [("exit 7", 7), ("kill -9 $$; sleep 9", 0), ("sh -c 'kill -9 $$'; exit $?", 137)] {
            if script.starts_with("kill") {
                continue;
            }
            for init in [false, true] {
                let outcome = Container { init, ..Container::sh(host, script) }.run().unwrap();
                assert_eq!(outcome.status, status, "{script}, --init: {init}");
            }
        }
        let mut started = Container::sh(host, "read line; echo got $line; echo err >&2; exit 3").start().unwrap();
        rustix::io::write(started.stdin.as_ref().unwrap(), b"one\n").unwrap();
        assert_eq!(started.line(), "got one");
        let outcome = started.wait();
        assert_eq!((outcome.status, outcome.stderr.as_str()), (3, "err\n"));
    });
}

#[test]
fn the_working_directory_is_made_when_missing() {
    isolated("program::the_working_directory_is_made_when_missing", |host| {
        let at = |cwd: &str| {
            Container::new(host, &["pwd"]).process(|process| {
                process.set_cwd(cwd.into());
            })
        };
        assert_eq!(at("/new/deep").output(), "/new/deep\n");
        assert_eq!(at("/tmp/../etc").output(), "/etc\n");
        assert!(at("/etc/passwd").run().unwrap_err().message.contains("it is not a folder"));
    });
}

#[test]
fn a_terminal_is_the_containers_own() {
    isolated("program::a_terminal_is_the_containers_own", |host| {
        let script = "tty; stty size; echo $(stat -c %a /dev/console); readlink /proc/self/fd/0; sleep 0 < /dev/tty && echo controlling; ls -1 /dev/pts; read x; stty size";
        for (user, init) in [(None, false), (Some("ann"), true)] {
            let container = Container { user, init, ..Container::sh(host, script) }.process(|process| {
                process.set_terminal(Some(true));
            });
            let plan = container.plan().unwrap();
            let _groups = Groups::make(&plan.cgroup).unwrap();
            let stdio = Stdio::Terminal { rows: 33, columns: 101 };
            let running = init::spawn(&plan, stdio, init::Network::AsPlanned).unwrap().go().wait().unwrap();
            let master = running.terminal.as_ref().unwrap();
            let mut lines: Vec<String> = (0..7).map(|_| read_line(master).trim().to_owned()).collect();
            assert_eq!(
                lines,
                ["/dev/pts/0", "33 101", "620", "/dev/pts/0", "controlling", "0", "ptmx"],
                "{user:?} {init}"
            );
            crate::terminal::resize(master, crate::terminal::Size { rows: 10, columns: 20 }).unwrap();
            rustix::io::write(master, b"\n").unwrap();
            lines = vec![read_line(master), read_line(master).trim().to_owned()];
            assert_eq!(lines[1], "10 20");
            assert_eq!(wait(&running), 0);
        }
    });
}

#[test]
fn init_reaps_and_passes_signals_on() {
    isolated("program::init_reaps_and_passes_signals_on", |host| {
        let script = "trap 'echo term; exit 5' TERM; (sleep 0.01 & ) ; echo $$ $(cat /proc/1/comm); while :; do sleep 0.01; done";
        let mut started = Container { init: true, ..Container::sh(host, script) }.start().unwrap();
        let line = started.line();
        assert!(line.starts_with("2 "), "the program is not PID 1: {line}");
        // The orphaned sleep becomes PID 1's; it must not stay as a zombie.
        let children = || {
            let path = format!("/proc/{0}/task/{0}/children", started.running.pid);
            fs::read_to_string(path).unwrap().split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while children().len() != 1 {
            assert!(std::time::Instant::now() < limit, "zombies stay: {:?}", children());
            std::thread::yield_now();
        }
        rustix::process::pidfd_send_signal(&started.running.pidfd, rustix::process::Signal::TERM).unwrap();
        let outcome = started.wait();
        assert_eq!((outcome.status, outcome.stdout.as_str()), (5, "term\n"), "{outcome:?}");
        let outcome = Container {
            init: true,
            ..Container::sh(
                host,
                "cat /proc/1/status | grep -E 'CapEff|Seccomp:'; ls /proc/1/fd; readlink /proc/1/exe; true",
            )
        }
        .run()
        .unwrap();
        assert_eq!(
            outcome.stdout, "CapEff:\t00000000a80425fb\nSeccomp:\t2\n",
            "PID 1 is as confined as the program, and can't be looked into"
        );
    });
}

#[test]
fn the_container_dies_with_its_caller() {
    isolated("program::the_container_dies_with_its_caller", |host: &Host| {
        for (user, init) in [(None, false), (Some("ann"), false), (None, true)] {
            let container = Container { user, init, ..Container::sh(host, "echo up; sleep 1000") };
            let plan = container.plan().unwrap();
            let _groups = Groups::make(&plan.cgroup).unwrap();
            let (pid_out, pid_in) = pipe();
            let (out, stdout) = pipe();
            // A caller that is killed.
            match crate::sys::fork().unwrap() {
                crate::sys::Fork::Child => {
                    let null = || OwnedFd::from(fs::File::open("/dev/null").unwrap());
                    let stdio = Stdio::Pipes { stdin: null(), stdout, stderr: null() };
                    let running = init::spawn(&plan, stdio, init::Network::AsPlanned).unwrap().go().wait().unwrap();
                    rustix::io::write(&pid_in, format!("{}\n", running.pid).as_bytes()).unwrap();
                    loop {
                        std::thread::park();
                    }
                }
                crate::sys::Fork::Parent(caller) => {
                    drop(stdout);
                    let pid: i32 = read_line(&pid_out).parse().unwrap();
                    assert_eq!(read_line(&out), "up");
                    let pidfd = rustix::process::pidfd_open(
                        rustix::process::Pid::from_raw(pid).unwrap(),
                        rustix::process::PidfdFlags::empty(),
                    )
                    .unwrap();
                    crate::sys::kill(caller, libc::SIGKILL).unwrap();
                    let mut poll =
                        [rustix::event::PollFd::from_borrowed_fd(pidfd.as_fd(), rustix::event::PollFlags::IN)];
                    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
                    assert_eq!(
                        rustix::event::poll(&mut poll, Some(&limit)).unwrap(),
                        1,
                        "{user:?} {init}: it lives on"
                    );
                    while crate::sys::reap().unwrap().is_none() {}
                }
            }
        }
    });
}

#[test]
fn a_start_that_is_given_up_leaves_no_process() {
    isolated("program::a_start_that_is_given_up_leaves_no_process", |host| {
        let container = Container::new(host, &["true"]);
        let plan = container.plan().unwrap();
        let _groups = Groups::make(&plan.cgroup).unwrap();
        let null = || OwnedFd::from(fs::File::open("/dev/null").unwrap());
        let stdio = Stdio::Pipes { stdin: null(), stdout: null(), stderr: null() };
        let starting = init::spawn(&plan, stdio, init::Network::AsPlanned).unwrap();
        let pid = starting.pid;
        drop(starting);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    });
}
