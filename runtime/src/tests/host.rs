//! A host for one test: a process of its own (the runtime clones, so it must have one thread), a private mount
//! namespace, a busybox root file system, unique cgroups.

use std::cell::Cell;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use oci_spec::runtime::{
    LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResourcesBuilder, Mount,
    ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use rustix::process::{WaitId, WaitIdOptions};

use crate::{Bundle, Facts, Plan, Rootfs, Running, Seccomp, StartError, Stdio, cgroup, defaults, init};

const CHILD: &str = "RUNTIME_TEST_CHILD";

/// Runs a test's body in a process of its own, which has one thread that matters and its own mount namespace.
pub fn isolated(name: &str, body: fn(&Host)) {
    if std::env::var_os(CHILD).is_some() {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("these tests need root");
        rustix::mount::mount_change(
            "/",
            rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
        )
        .unwrap();
        let host = Host::new(name);
        body(&host);
        return;
    }
    let path = format!("tests::{name}");
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&path, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "no test is called {path}:\n{text}");
    if text.contains("REPORT") {
        text.lines().filter(|line| line.contains("REPORT")).for_each(|line| println!("{line}"));
    }
}

/// One test's folder and names.
pub struct Host {
    pub folder: PathBuf,
    pub id: String,
    pub facts: Facts,
    overlays: Cell<u32>,
}

/// What a program left behind.
#[derive(Debug)]
pub struct Outcome {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Host {
    fn new(name: &str) -> Host {
        let id = format!("rt-{}-{}", name.replace(':', "-"), std::process::id());
        let folder = std::env::temp_dir().join(&id);
        let host = Host { folder, id, facts: Facts::read().unwrap(), overlays: Cell::new(0) };
        host.make_rootfs(&host.folder.join("layer"));
        host
    }

    /// Debian's static busybox under all its names.
    pub fn make_rootfs(&self, root: &Path) {
        for folder in ["bin", "etc", "root", "tmp", "usr"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        // In a virtual machine it is copied beside the tests.
        let busybox =
            ["busybox", "/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).is_file());
        let busybox = busybox.expect("apt-get install busybox-static");
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        let applets = "sh cat ls mount id env true false sleep echo stat readlink hostname ps kill test touch mkdir pwd stty tty grep wc head chmod mknod dd nc ip ulimit od setsid umount sort";
        for applet in applets.split(' ') {
            let _ = symlink("busybox", root.join("bin").join(applet));
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n1000:x:0:0::/:/bin/sh\n",
        )
        .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nstaff:x:50:ann\nann:x:1001:\n").unwrap();
    }

    /// Another container's names, without a folder of its own.
    pub fn sibling(&self) -> Host {
        Host {
            folder: PathBuf::from("/nonexistent"),
            id: String::new(),
            facts: self.facts.clone(),
            overlays: Cell::new(0),
        }
    }

    pub fn layer(&self) -> PathBuf {
        self.folder.join("layer")
    }

    /// A fresh overlay for each container: a volatile one can't be mounted twice.
    pub fn overlay(&self) -> Rootfs {
        let number = self.overlays.replace(self.overlays.get() + 1);
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| {
            let folder = self.folder.join(format!("{number}/{name}"));
            fs::create_dir_all(&folder).unwrap();
            folder
        });
        Rootfs::Overlay { lower: vec![self.layer()], upper, work, merged, volatile: true }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A container in the making: docker's defaults, to be changed by the test.
pub struct Container<'a> {
    pub host: &'a Host,
    pub spec: Spec,
    pub rootfs: Rootfs,
    pub user: Option<&'a str>,
    pub init: bool,
    pub seccomp: Seccomp,
}

impl<'a> Container<'a> {
    pub fn new(host: &'a Host, args: &[&str]) -> Container<'a> {
        Container { host, spec: spec(args), rootfs: host.overlay(), user: None, init: false, seccomp: Seccomp::Default }
    }

    /// `sh -c script`.
    pub fn sh(host: &'a Host, script: &str) -> Container<'a> {
        Container::new(host, &["sh", "-c", script])
    }

    pub fn process(mut self, change: impl FnOnce(&mut oci_spec::runtime::Process)) -> Self {
        change(self.spec.process_mut().as_mut().unwrap());
        self
    }

    pub fn linux(mut self, change: impl FnOnce(&mut oci_spec::runtime::Linux)) -> Self {
        change(self.spec.linux_mut().as_mut().unwrap());
        self
    }

    pub fn mount(mut self, source: &Path, destination: &str, options: &[&str]) -> Self {
        let mut mount = Mount::default();
        mount
            .set_destination(destination.into())
            .set_typ(Some("bind".to_owned()))
            .set_source(Some(source.to_owned()))
            .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
        self.spec.mounts_mut().as_mut().unwrap().push(mount);
        self
    }

    pub fn plan(&self) -> Result<Plan, crate::Error> {
        let bundle = Bundle {
            spec: &self.spec,
            id: &self.host.id,
            rootfs: self.rootfs.clone(),
            mounts_extra: &[],
            seccomp: self.seccomp,
            user: self.user,
            group_add: &[],
            net_cls: None,
            class_way: crate::cgroup::ClassWay::NetCls,
            net_cls_mount: Path::new("/run/minidock/net_cls"),
            cgroup_parent: "minidock-test",
            init: self.init,
        };
        crate::plan(&bundle, &self.host.facts)
    }

    /// Starts it with pipes.
    pub fn start(&self) -> Result<Started, StartError> {
        let plan = self.plan()?;
        let groups = Groups::make(&plan.cgroup)?;
        let (stdin, stdin_end) = pipe();
        let (stdout_end, stdout) = pipe();
        let (stderr_end, stderr) = pipe();
        let starting = init::spawn(&plan, Stdio::Pipes { stdin, stdout, stderr }, init::Network::AsPlanned)?;
        let running = starting.go().wait()?;
        Ok(Started { running, stdin: Some(stdin_end), stdout: stdout_end, stderr: stderr_end, _groups: groups })
    }

    /// Starts it and waits for its end.
    pub fn run(&self) -> Result<Outcome, StartError> {
        Ok(self.start()?.wait())
    }

    /// The same for tests of what a program sees.
    pub fn output(&self) -> String {
        let outcome = self.run().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(outcome.status, 0, "{outcome:?}");
        outcome.stdout
    }
}

/// cgroups that go when the test does.
pub struct Groups(Vec<cgroup::Residue>);

impl Groups {
    pub fn make(ops: &[cgroup::Op]) -> Result<Groups, crate::Error> {
        let groups = Groups(ops.iter().filter_map(cgroup::Op::residue).rev().collect());
        cgroup::apply(ops)?;
        Ok(groups)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for undone in cgroup::undo(&self.0) {
            undone.unwrap();
        }
    }
}

/// A running container with pipes.
pub struct Started {
    pub running: Running,
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    pub _groups: Groups,
}

impl Started {
    /// Reads all output and waits.
    pub fn wait(mut self) -> Outcome {
        self.stdin = None;
        let stdout = read_all(&self.stdout);
        let stderr = read_all(&self.stderr);
        Outcome { status: wait(&self.running), stdout, stderr }
    }

    /// Reads one line of standard output.
    pub fn line(&mut self) -> String {
        read_line(&self.stdout)
    }
}

pub fn read_line(fd: &OwnedFd) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while rustix::io::read(fd, &mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// The exit status, or 128 + signal.
pub fn wait(running: &Running) -> i32 {
    let status = rustix::process::waitid(WaitId::PidFd(running.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap())
}

pub fn read_all(fd: &OwnedFd) -> String {
    let mut text = Vec::new();
    fs::File::from(fd.try_clone().unwrap()).read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

pub fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap()
}

/// Docker's configuration of a container without a network.
pub fn spec(args: &[&str]) -> Spec {
    let capabilities = defaults::capabilities().to_oci();
    let none = crate::capabilities::Set::EMPTY.to_oci();
    let sets = LinuxCapabilitiesBuilder::default()
        .bounding(capabilities.clone())
        .effective(capabilities.clone())
        .permitted(capabilities)
        .inheritable(none.clone())
        .ambient(none)
        .build()
        .unwrap();
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(0u32).gid(0u32).build().unwrap())
        .args(args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
        .env(vec![format!("PATH={}", defaults::PATH), "HOSTNAME=box".to_owned()])
        .cwd("/")
        .capabilities(sets)
        .rlimits(Vec::new())
        .no_new_privileges(false)
        .build()
        .unwrap();
    use LinuxNamespaceType::{Cgroup, Ipc, Mount as MountNs, Network, Pid, Uts};
    let namespaces = [Pid, Network, Uts, Ipc, MountNs, Cgroup]
        .map(|kind| LinuxNamespaceBuilder::default().typ(kind).build().unwrap());
    let resources = LinuxResourcesBuilder::default().devices(defaults::device_rules()).build().unwrap();
    let linux = LinuxBuilder::default()
        .namespaces(namespaces.to_vec())
        .resources(resources)
        .masked_paths(defaults::masked_paths(&[]))
        .readonly_paths(defaults::readonly_paths())
        .build()
        .unwrap();
    SpecBuilder::default()
        .version("1.2.0")
        .root(RootBuilder::default().path("rootfs").readonly(false).build().unwrap())
        .process(process)
        .hostname("box")
        .mounts(defaults::mounts(defaults::SHM_BYTES))
        .linux(linux)
        .build()
        .unwrap()
}
