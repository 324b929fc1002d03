//! The pure plan: which groups a container needs, and what is written into them.

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::{ClassId, ClassWay, DeviceRule, Error, Home, Layout, Op, devices, io, limits, memory};

/// What a container asks of the host's cgroups.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The container's id: the name of its groups.
    pub id: &'a str,
    /// The group above, below the top of each hierarchy: [`super::PARENT`], or a path such as `lab/blue`.
    pub parent: &'a str,
    /// The OCI limits and device rules. No device rule at all = every device allowed.
    pub resources: Option<&'a LinuxResources>,
    /// `--net-cls`; also taken from `resources.network.classID`.
    pub net_cls: Option<u32>,
    /// What else sees to that class.
    pub class_way: ClassWay,
    /// Where net_cls is mounted when the host has it nowhere and has no v1 folder for it: `/run/minidock/net_cls`.
    pub net_cls_mount: &'a Path,
}

/// Works out the operations, in the order in which they are applied.
///
/// Groups are made only where a limit needs one, and in one hierarchy in any case, so that the container's processes can
/// be found and killed: cgroup2 where it is mounted (`cgroup.kill`, CLONE_INTO_CGROUP), otherwise the cheapest v1 one.
///
/// # Errors
/// A limit that this host can't keep; it is never left out.
pub fn plan(request: &Request, layout: &Layout) -> Result<Vec<Op>, Error> {
    check_name("container id", request.id, false)?;
    check_name("cgroup parent", request.parent, true)?;
    let mut draft = Draft::new(request, layout);
    if let Some(resources) = request.resources {
        memory::plan(resources, &mut draft)?;
        limits::plan(resources, &mut draft)?;
        io::plan(resources, &mut draft)?;
        if let Some(list) = resources.devices() {
            draft.devices(devices::parse(list)?)?;
        }
    }
    draft.net_cls()?;
    draft.tracking();
    Ok(draft.finish())
}

/// A group's name goes into paths: no separators (but in a parent), nothing that climbs, nothing a shell reads.
pub(super) fn check_name(what: &str, name: &str, is_path: bool) -> Result<(), Error> {
    let good = |part: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-+:@".contains(&b);
        !part.is_empty() && part.len() <= 255 && !part.starts_with(['.', '-']) && part.bytes().all(plain)
    };
    let valid = if is_path { name.split('/').all(good) && name.split('/').count() <= 8 } else { good(name) };
    if valid {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::refused(format!(
        "invalid {what} {shown:?}: use letters, digits and _ . - + : @, beginning with a letter or digit"
    )))
}

/// A plan in the making: one entry for each hierarchy that gets a group.
pub(super) struct Draft<'a> {
    pub(super) layout: &'a Layout,
    request: &'a Request<'a>,
    mount: Option<Op>,
    groups: Vec<DraftGroup>,
}

struct DraftGroup {
    /// The folder of the hierarchy's topmost group.
    top: PathBuf,
    /// Empty for cgroup2.
    v1_controllers: Vec<String>,
    /// cgroup2: controllers that the container's group must have.
    needs: Vec<String>,
    writes: Vec<Op>,
}

impl<'a> Draft<'a> {
    fn new(request: &'a Request<'a>, layout: &'a Layout) -> Draft<'a> {
        Draft { layout, request, mount: None, groups: Vec::new() }
    }

    /// Where a controller is, or the error that the limit `what` can't be kept.
    pub(super) fn home(&self, controller: &str, what: &str) -> Result<Home<'a>, Error> {
        self.layout
            .home(controller)
            .ok_or_else(|| Error::refused(format!("cannot keep {what}: {}", self.layout.why_missing(controller))))
    }

    /// Adds one write into the container's group of the controller's hierarchy.
    pub(super) fn write(
        &mut self,
        home: Home,
        controller: &str,
        file: &str,
        value: impl Into<String>,
        why: impl Into<String>,
    ) {
        let path = self.group_path(home).join(file);
        let op = Op::Write { path, value: value.into(), why: why.into() };
        self.group(home, Some(controller)).writes.push(op);
    }

    /// The folder of the container's group in a hierarchy.
    pub(super) fn group_path(&self, home: Home) -> PathBuf {
        let top = match home {
            Home::V1(v1) => &v1.mount,
            Home::V2(v2) => &v2.mount,
        };
        top.join(self.request.parent).join(self.request.id)
    }

    fn group(&mut self, home: Home, controller: Option<&str>) -> &mut DraftGroup {
        let (top, v1_controllers) = match home {
            Home::V1(v1) => (&v1.mount, v1.controllers.clone()),
            Home::V2(v2) => (&v2.mount, Vec::new()),
        };
        let index = self.groups.iter().position(|group| group.top == *top).unwrap_or_else(|| {
            self.groups.push(DraftGroup { top: top.clone(), v1_controllers, needs: Vec::new(), writes: Vec::new() });
            self.groups.len() - 1
        });
        let group = &mut self.groups[index];
        if let (Home::V2(_), Some(controller)) = (home, controller) {
            let name = if controller == "blkio" { "io" } else { controller };
            if name != "devices" && !group.needs.iter().any(|there| there == name) {
                group.needs.push(name.to_owned());
            }
        }
        group
    }

    fn devices(&mut self, rules: Vec<DeviceRule>) -> Result<(), Error> {
        if rules.is_empty() {
            return Ok(());
        }
        // cgroup2 wherever it is, beside a v1 devices controller too: a program is one bpf(2) call, while the first attach
        // to a v1 group waits for an RCU grace period (10-17 ms), and no container needs another v1 group by default.
        let home = match &self.layout.v2 {
            Some(v2) => Home::V2(v2),
            None => self.home("devices", "the container away from the host's devices")?,
        };
        let path = self.group_path(home);
        let op = match home {
            Home::V1(_) => {
                devices::v1_lines(&rules)?;
                Op::DeviceRules { path, rules }
            }
            Home::V2(_) => Op::DeviceProgram { path, rules },
        };
        let controller = matches!(home, Home::V1(_)).then_some("devices");
        self.group(home, controller).writes.push(op);
        Ok(())
    }

    fn net_cls(&mut self) -> Result<(), Error> {
        if let ClassWay::Rated(class) = self.request.class_way {
            let Some(v2) = &self.layout.v2 else {
                return Err(Error::refused(
                    "cannot keep --net-rate in the host's network: it needs cgroup2, which isn't mounted (mount -t cgroup2 \
                     none /sys/fs/cgroup/unified)",
                ));
            };
            self.class_program(v2, ClassId(class));
            return Ok(());
        }
        let from_spec = self.request.resources.and_then(|resources| resources.network().as_ref()?.class_id());
        let class = match (self.request.net_cls, from_spec) {
            (Some(flag), Some(spec)) if flag != spec => {
                return Err(Error::refused(format!(
                    "two net_cls classes for one container: {} by flag and {} in its configuration",
                    ClassId(flag),
                    ClassId(spec)
                )));
            }
            (flag, spec) => flag.or(spec).filter(|class| *class != 0).map(ClassId),
        };
        let Some(class) = class else { return Ok(()) };
        if let (ClassWay::Packets, Some(v2)) = (self.request.class_way, &self.layout.v2) {
            self.class_program(v2, class);
        }
        let optional = match self.request.class_way {
            ClassWay::NetCls | ClassWay::Rated(_) => false,
            ClassWay::Packets => self.layout.v2.is_some(),
            ClassWay::Carried => true,
        };
        let why = format!("--net-cls {class}: tc class of the packets that this container's sockets send");
        if let Some(home) = self.layout.home("net_cls") {
            self.write(home, "net_cls", "net_cls.classid", class.file_form(), why);
            return Ok(());
        }
        let known = self.layout.kernel.iter().find(|known| known.name == "net_cls");
        if known.is_none_or(|known| !known.enabled) {
            if optional {
                return Ok(());
            }
            return Err(Error::refused(format!(
                "cannot keep --net-cls {class}: {}",
                self.layout.why_missing("net_cls")
            )));
        }
        // Beside the other v1 mounts, as the lecture does it, when that folder can be made; never inside the cgroup2 tree.
        let at = match &self.layout.writable_top {
            Some(top) => top.join("net_cls"),
            None => self.request.net_cls_mount.to_owned(),
        };
        let mut controllers = vec!["net_cls".to_owned()];
        controllers.extend(self.layout.net_cls_with.iter().cloned());
        self.mount = Some(Op::Mount { at: at.clone(), options: controllers.join(",") });
        let hierarchy = super::V1 { mount: at, controllers };
        self.write(Home::V1(&hierarchy), "net_cls", "net_cls.classid", class.file_form(), why);
        Ok(())
    }

    fn class_program(&mut self, v2: &'a super::V2, class: ClassId) {
        let home = Home::V2(v2);
        let path = self.group_path(home);
        self.group(home, None).writes.push(Op::ClassProgram { path, class });
    }

    /// The group by which the container's processes are found, when no limit has asked for one.
    fn tracking(&mut self) {
        let layout = self.layout;
        if let Some(v2) = &layout.v2 {
            self.group(Home::V2(v2), None);
        } else if let Some(freezer) = layout.home("freezer") {
            self.group(freezer, None); // for `pause`, too
        } else if self.groups.is_empty() {
            let preferred = ["pids", "devices", "cpuacct", "cpu", "memory"];
            let home = preferred.iter().find_map(|name| layout.home(name));
            if let Some(home) = home.or_else(|| layout.v1.first().map(Home::V1)) {
                self.group(home, None);
            }
        }
    }

    fn finish(self) -> Vec<Op> {
        let mut ops: Vec<Op> = self.mount.into_iter().collect();
        for group in self.groups {
            ops.extend(enable_at_top(&group, self.layout));
            let mut parents = vec![group.top.clone()];
            for part in self.request.parent.split('/') {
                parents.push(parents[parents.len() - 1].join(part));
            }
            let path = parents[parents.len() - 1].join(self.request.id);
            parents.remove(0);
            ops.extend(parents.iter().map(|path| Op::Parent { path: path.clone() }));
            ops.push(Op::Create {
                path: path.clone(),
                controllers: group.v1_controllers.clone(),
                group: format!("{}/{}", self.request.parent, self.request.id),
            });
            if !group.needs.is_empty() {
                let value = plus(&group.needs);
                let why = "the groups below get these controllers".to_owned();
                ops.extend(parents.iter().map(|parent| Op::Write {
                    path: parent.join("cgroup.subtree_control"),
                    value: value.clone(),
                    why: why.clone(),
                }));
            }
            if group.v1_controllers.iter().any(|name| name == "cpuset") {
                ops.extend(fill_cpuset(self.layout, &parents, &path, &group.writes));
            }
            ops.extend(group.writes);
        }
        ops
    }
}

/// `+cpu +memory`.
fn plus<T: AsRef<str>>(controllers: &[T]) -> String {
    controllers.iter().map(|name| format!("+{}", name.as_ref())).collect::<Vec<_>>().join(" ")
}

/// A v1 cpuset group starts empty, and takes no task before both of its lists are filled, nor more than the group above
/// has. The user's own values for the container stay.
fn fill_cpuset(layout: &Layout, parents: &[PathBuf], group: &Path, writes: &[Op]) -> Vec<Op> {
    let mut ops = Vec::new();
    for (file, value) in [("cpuset.cpus", &layout.cpus), ("cpuset.mems", &layout.mems)] {
        let value = value.clone().unwrap_or_else(|| "0".to_owned());
        let why = "a v1 cpuset group starts empty and takes no task so".to_owned();
        ops.extend(parents.iter().map(|parent| Op::Fill {
            path: parent.join(file),
            value: value.clone(),
            why: why.clone(),
        }));
        let path = group.join(file);
        if !writes.iter().any(|op| op.path() == path) {
            ops.push(Op::Write { path, value, why });
        }
    }
    ops
}

/// cgroup2: what the topmost group does not pass on yet. The one write that outlives the container: it changes no
/// process's limits, and other engines and systemd do the same.
fn enable_at_top(group: &DraftGroup, layout: &Layout) -> Option<Op> {
    let v2 = layout.v2.as_ref().filter(|v2| group.v1_controllers.is_empty() && v2.mount == group.top)?;
    let missing: Vec<&str> =
        group.needs.iter().map(String::as_str).filter(|name| !v2.enabled.iter().any(|on| on == name)).collect();
    if missing.is_empty() {
        return None;
    }
    Some(Op::Write {
        path: v2.mount.join("cgroup.subtree_control"),
        value: plus(&missing),
        why: "the top group does not pass these controllers on yet; this stays".to_owned(),
    })
}
