//! A `TestHost` is a whole machine for one test: a network namespace of its own with an uplink to an
//! 'outside', its own mounts, and its own `MINIDOCK_ROOT`. Nothing that a test does there can be seen by the
//! machine or by another test, so all tests run at the same time. `finish` checks that nothing is left over.
#![allow(dead_code, reason = "each test binary uses a part of the harness")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a harness fails by panicking")]

pub mod command;
pub mod groups;
pub mod images;
pub mod namespaces;
pub mod net;
pub mod pty;
pub mod residue;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use command::{Invocation, Output, Running};
use namespaces::Namespaces;
use residue::Snapshot;

/// The host's own address on the uplink, and its neighbour in the outside.
pub const HOST: &str = "10.99.0.1";
/// The address of the 'outside' machine.
pub const OUTSIDE: &str = "10.99.0.2";
/// How long a condition may take before it counts as a failure. Generous: two cores run everything.
pub const LIMIT: Duration = Duration::from_secs(60);
/// How long after the last command the host may take to be clean again (teardown is asynchronous).
const TEARDOWN_LIMIT: Duration = Duration::from_secs(60);

/// Which firewall back end the engine is told to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewall {
    Nftables,
    Iptables,
}

impl Firewall {
    pub const BOTH: [Firewall; 2] = [Firewall::Nftables, Firewall::Iptables];
    pub fn name(self) -> &'static str {
        match self {
            Firewall::Nftables => "nftables",
            Firewall::Iptables => "iptables",
        }
    }
}

/// One machine for one test. Call [`TestHost::finish`] at the end of each test.
pub struct TestHost {
    /// All of this host's files; removed at the end.
    pub base: PathBuf,
    /// `MINIDOCK_ROOT`.
    pub root: PathBuf,
    /// A folder for the test's own files.
    pub work: PathBuf,
    pub host: Namespaces,
    pub outside: Namespaces,
    mark: String,
    environment: Vec<(String, String)>,
    history: RefCell<Vec<String>>,
    before: Snapshot,
    finished: bool,
}

impl TestHost {
    /// A host with the image `busybox` loaded.
    pub fn new() -> TestHost {
        let host = TestHost::bare();
        host.minidock(&["load", "-q", "-i", images::busybox().to_str().unwrap()]).ok();
        host
    }

    /// A host with `busybox` whose engine uses this firewall back end.
    pub fn with_firewall(firewall: Firewall) -> TestHost {
        let mut host = TestHost::new();
        host.set("MINIDOCK_FIREWALL", firewall.name());
        host
    }

    /// A host on which nothing has ever been run.
    pub fn bare() -> TestHost {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(rustix::process::geteuid().is_root(), "the end-to-end tests need root: they make namespaces");
        let mark = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let base = std::env::temp_dir().join(format!("{}{mark}", residue::BASE_PREFIX));
        let (root, work, tmp) = (base.join("root"), base.join("work"), base.join("tmp"));
        for folder in [&root, &work, &tmp] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let (host, outside) = namespaces::machine();
        let environment = vec![
            ("MINIDOCK_ROOT".into(), root.display().to_string()),
            ("TMPDIR".into(), tmp.display().to_string()),
            ("HOME".into(), work.display().to_string()),
            ("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()),
            ("LC_ALL".into(), "C.UTF-8".into()),
            (residue::MARK.into(), mark.clone()),
        ];
        let before = Snapshot::take(&host, &outside, &base, &mark);
        let history = RefCell::default();
        TestHost { base, root, work, host, outside, mark, environment, history, before, finished: false }
    }

    /// Sets an environment variable for all later commands.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.into(), value.into()));
    }

    /// Removes an environment variable for all later commands.
    pub fn unset(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    // ---- commands ----

    /// `minidock ARGS` on the host, not started yet: add a standard input or variables, then `run` or `spawn`.
    pub fn command<S: AsRef<str>>(&self, args: &[S]) -> Invocation<'_> {
        let words =
            std::iter::once(minidock().display().to_string()).chain(args.iter().map(|a| a.as_ref().to_string()));
        Invocation::new(&self.host, words.collect(), self.environment.clone(), &self.work, &self.history)
    }

    /// Runs `minidock ARGS` on the host to its end.
    pub fn minidock<S: AsRef<str>>(&self, args: &[S]) -> Output {
        self.command(args).run()
    }

    /// Starts `minidock ARGS` on the host.
    pub fn spawn<S: AsRef<str>>(&self, args: &[S]) -> Running {
        self.command(args).spawn()
    }

    /// `minidock run -d ARGS`: the new container's id.
    pub fn detached<S: AsRef<str>>(&self, args: &[S]) -> String {
        let words: Vec<&str> = ["run", "-d"].into_iter().chain(args.iter().map(AsRef::as_ref)).collect();
        let id = self.minidock(&words).ok().out();
        assert!(
            id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()),
            "`run -d` printed no container id but: {id}"
        );
        id
    }

    /// `minidock run --rm ARGS`: what it printed, without the last newline.
    pub fn output_of<S: AsRef<str>>(&self, args: &[S]) -> String {
        let words: Vec<&str> = ["run", "--rm"].into_iter().chain(args.iter().map(AsRef::as_ref)).collect();
        self.minidock(&words).ok().out()
    }

    /// A shell command on the host.
    pub fn sh(&self, script: &str) -> Output {
        self.shell(&self.host, script).run()
    }

    /// A shell command in the outside.
    pub fn outside(&self, script: &str) -> Output {
        self.shell(&self.outside, script).run()
    }

    /// A shell command in one of the namespaces, not started yet.
    pub fn shell<'a>(&'a self, place: &'a Namespaces, script: &str) -> Invocation<'a> {
        let words = ["sh", "-euc", script].map(String::from).to_vec();
        Invocation::new(place, words, self.environment.clone(), &self.work, &self.history)
    }

    // ---- questions about containers ----

    /// `minidock inspect --format TEMPLATE CONTAINER`.
    pub fn inspect(&self, container: &str, template: &str) -> String {
        self.minidock(&["inspect", "--format", template, container]).ok().out()
    }

    /// The container's PID 1, as the host counts.
    pub fn pid(&self, container: &str) -> u32 {
        self.inspect(container, "{{.State.Pid}}").parse().expect("State.Pid is a number")
    }

    /// The process of its monitor: the parent of PID 1.
    pub fn monitor(&self, container: &str) -> u32 {
        let status = read(format!("/proc/{}/status", self.pid(container)));
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("it has a parent");
        parent.trim().parse().expect("PPid is a number")
    }

    /// The container's address on the bridge.
    pub fn address(&self, container: &str) -> String {
        self.inspect(container, "{{.NetworkSettings.IPAddress}}")
    }

    /// The network namespace of a running container.
    pub fn inside(&self, container: &str) -> Namespaces {
        Namespaces::network_of(self.pid(container))
    }

    /// Waits until the container's state is `exited` (or it is gone).
    pub fn wait_exited(&self, container: &str) {
        wait_until(&format!("{container} has exited"), || {
            let state = self.minidock(&["inspect", "--format", "{{.State.Status}}", container]);
            state.code() != 0 || state.out() == "exited"
        });
    }

    /// Waits until the container has written this line: it has come so far (its traps are set, say).
    pub fn wait_logged(&self, container: &str, line: &str) {
        wait_until(&format!("{container} has written '{line}'"), || {
            self.minidock(&["logs", container]).out().lines().any(|written| written == line)
        });
    }

    /// `minidock rm -f` of each.
    pub fn remove(&self, containers: &[&str]) {
        self.minidock(&[&["rm", "-f"], containers].concat()).ok();
    }

    // ---- the end ----

    /// What differs from the state in which this host was made, once it has had time to settle.
    pub fn leftovers(&self, limit: Duration) -> Vec<String> {
        let start = Instant::now();
        loop {
            let now = Snapshot::take(&self.host, &self.outside, &self.base, &self.mark);
            let left = self.before.difference(&now, &residue::network_journal(&self.root));
            if left.is_empty() || start.elapsed() > limit {
                return left;
            }
            std::thread::sleep(Duration::from_millis(15));
        }
    }

    /// Fails the test if anything is left over from it on the host, on the machine, or below the root.
    pub fn finish(self) {
        self.finish_within(TEARDOWN_LIMIT);
    }

    /// The same with another time to settle.
    pub fn finish_within(mut self, limit: Duration) {
        let left = self.leftovers(limit);
        assert!(left.is_empty(), "left over on the test host:\n  {}", left.join("\n  "));
        self.finished = true;
    }

    /// Kills every process that was started on this host, containers included.
    pub fn kill_everything(&self) {
        residue::kill_all(&self.host, &self.outside, &self.base, &self.mark);
    }

    /// Ends a host that was changed by hand: what is left isn't the engine's.
    pub fn discard(mut self) {
        self.finished = true;
    }

    /// Everything that explains a failure: the commands so far and the journals.
    pub fn story(&self) -> String {
        let mut text = format!("---- test host {} ----\n", self.base.display());
        for line in self.history.borrow().iter() {
            text.push_str(line);
        }
        for journal in residue::files_named(&self.root, "journal") {
            let content = std::fs::read(&journal).unwrap_or_default();
            text.push_str(&format!("---- {} ----\n{}\n", journal.display(), String::from_utf8_lossy(&content)));
        }
        text
    }
}

impl Drop for TestHost {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("{}", self.story());
        }
        residue::destroy(&self.host, &self.outside, &self.base, &self.mark);
        if !failed && !self.finished {
            panic!("the test did not call finish() on its host");
        }
    }
}

/// The program under test: what cargo built beside the tests, or `$MINIDOCK_BIN` (in a VM).
pub fn minidock() -> PathBuf {
    match std::env::var_os("MINIDOCK_BIN") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_BIN_EXE_minidock")),
    }
}

/// Waits for a condition; a panic that names it when it doesn't come.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    assert!(within(LIMIT, &mut condition), "waited {LIMIT:?} in vain until {what}");
}

/// Whether a condition comes true within the limit.
pub fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says what this kernel lacks, so that a part of a test isn't tried. On the kernels of tests/vm/vm.sh it must have all.
#[track_caller]
pub fn lacks(module: &str) {
    assert!(std::env::var_os("MINIDOCK_TEST_ALL").is_none(), "this kernel should have {module}");
    eprintln!("this kernel has no {module}: a part of this test is not tried");
}

/// The text of a file, with the file's name in the panic.
#[track_caller]
pub fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path.as_ref())
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.as_ref().display()))
}
