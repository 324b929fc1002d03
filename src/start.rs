//! A start: facts → reservation → plan → stages of operations → the running program. Runs in the monitor.
//!
//! `run` makes a container and starts it in one go; `create` ([`create`]) makes it; `start` and the restart policy start
//! one that is there ([`kept`]). Two lanes: init mounts (the container's side) while this process makes links and rules
//! (the host's side); they meet at "go". Only this process writes the journal.

pub mod create;
pub mod kept;
pub mod script;

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, anyhow};
use images::Store;
use netsetup::dns::Resolver;
use netsetup::netns::Begun;
use netsetup::port::{Kept, ReservedPort};
use netsetup::proxy::{Gate, Proxy};
use netsetup::{Host, Live, NewNetns, PortMapping, PublishMode};
use runtime::init::{Network, Running, Starting, Stdio};
use runtime::namespaces::Namespace;

use crate::commands::Engine;
use crate::explain::Command;
use crate::facts::{self, Facts};
use crate::health::{Health, Healthcheck};
use crate::journal::Journal;
use crate::log;
use crate::monitor::cleaner::Cleaner;
use crate::monitor::control::Listener;
use crate::network;
use crate::network::joining::Joining;
use crate::op::{self, Op};
use crate::plan::image::ImageFacts;
use crate::plan::paths::ContainerFolder;
use crate::plan::volumes::Volume;
use crate::plan::{self, Places, Plan};
use crate::process::Process;
use crate::recover::{self, Scope};
use crate::request::mounts::Mount;
use crate::request::network::NetworkMode;
use crate::request::ports::{HostPort, Publish};
use crate::request::ready::{Ready, Wait};
use crate::request::{Entrypoint, ImageSource, RunRequest};
use crate::reservation::{self, Reservation, Sockets};
use crate::roots::Roots;
use crate::state::{Attachment, Config, PLAIN, State, Status};
use crate::streams::Streams;
use crate::volume::{self, choose::Chosen};

/// What is to be started.
pub struct Order {
    /// Folders and settings.
    pub engine: Engine,
    /// What the user asked for.
    pub request: RunRequest,
    /// The container's id.
    pub id: String,
    /// The terminal's rows and columns, with `-t`.
    pub size: (u16, u16),
    /// Whether the container is there already.
    pub origin: Origin,
    /// The command whose end is a new container's.
    pub session: Option<Process>,
    /// Nobody stays to see the output of this run.
    pub detach: bool,
    /// Where the client writes the facts that it reads while this process reads others.
    pub early_facts: Cell<Option<OwnedFd>>,
}

/// Where the container comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Origin {
    /// `run`: it is made now, and a failed start leaves nothing of it.
    New,
    /// `start`: it was made before, and stays as it was when it can't be started.
    Kept,
}

/// A container whose program runs.
pub struct Container {
    /// Locked by this process and the cleaner.
    pub journal: Journal,
    /// Sleeps until this process ends.
    pub cleaner: Cleaner,
    /// As written to the state file.
    pub state: State,
    /// The program and what serves it.
    pub run: Run,
}

/// One run of a container's program; it may have several, one after the other.
pub struct Run {
    /// PID 1.
    pub running: Running,
    /// Reading ends of its output and error; none with a terminal.
    pub outputs: [Option<OwnedFd>; 2],
    /// Ports that the proxy serves.
    pub proxies: Vec<Proxy>,
    /// The container's name server.
    pub resolver: Option<Resolver>,
    /// Ports that the kernel serves, kept from others.
    pub ports: Kept,
    /// The log.
    pub log: Option<log::Writer>,
    /// The container's mount namespace. Whoever drops the last reference does the unmounting, which waits for RCU grace
    /// periods (4-16 ms): that must not be PID 1, whose end is only known afterwards.
    pub mounts: Option<File>,
    /// Where other commands reach this process; none in a restart, which goes on with the former one.
    pub control: Option<Listener>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Tells the user of each operation as it happens.
pub type Say<'a> = &'a mut dyn FnMut(&[Command]);

/// Starts the container's program, and makes the container first if it's new. After an error nothing is left of a new
/// one, and nothing of this run of another.
pub fn start(order: &mut Order, stdin: Option<OwnedFd>, say: Say<'_>) -> Result<Container> {
    match order.origin {
        Origin::New => start_new(order, stdin, say),
        Origin::Kept => kept::start(order, stdin, say),
    }
}

fn start_new(order: &Order, stdin: Option<OwnedFd>, say: Say<'_>) -> Result<Container> {
    let roots = &order.engine.roots;
    let mut host = Host::open()?;
    let netns = begin_netns(&order.request);
    let store = Store::open(&roots.root)?;
    // Held until the journal names the image, so that it isn't removed in between.
    let guard = store.lock_shared()?;
    let image = image_facts(&store, &order.request)?;
    let facts = facts::read(&order.engine, &order.request, &mut host, order.early_facts.take())?;
    let (chosen, volumes_guard) = choose_volumes(roots, &order.request, &image)?;
    let (journal, name) = reservation::begin(roots, &order.id, &order.request, &image, &chosen, order.session)?;
    drop((guard, volumes_guard));
    let cleaner = match Cleaner::fork(roots, &order.id, &journal) {
        Ok(cleaner) => cleaner,
        Err(error) => return Err(undo_failed(order, &journal, error)),
    };
    let mut making = Making { order, host: &mut host, netns, journal: &journal, image: &image, facts: &facts, say };
    match making.make(name, None, chosen, stdin) {
        Ok((state, run)) => Ok(Container { journal, cleaner, state, run }),
        Err(error) => {
            let error = undo_failed(order, &journal, error);
            cleaner.dismiss();
            Err(error)
        }
    }
}

/// Begins to make the network namespace of a container that gets one of its own, while the facts are read.
fn begin_netns(request: &RunRequest) -> Option<Begun> {
    matches!(request.network.mode, NetworkMode::Bridge | NetworkMode::None).then(Begun::begin)
}

/// A failed start leaves nothing; what could not be undone is told beside the reason for the failure.
fn undo_failed(order: &Order, journal: &Journal, error: anyhow::Error) -> anyhow::Error {
    let problems = recover::undo(&order.engine.roots, journal, Scope::Container);
    match recover::first_error(problems) {
        Ok(()) => error,
        Err(problem) => error.context(format!("and something is left over: {}", crate::error::text(&problem))),
    }
}

/// A new container's volumes. The guard is held until the journal names them, so that none is removed in between. Most
/// containers have none, and pay nothing for them.
fn choose_volumes(roots: &Roots, request: &RunRequest, image: &ImageFacts) -> Result<(Chosen, Option<volume::Guard>)> {
    let wishes = request.mounts.iter().any(|mount| matches!(mount, Mount::Volume { .. }));
    if !wishes && request.volumes_from.is_empty() && image.volumes.is_empty() {
        return Ok((Chosen::default(), None));
    }
    let guard = volume::Store::of(roots).lock_shared()?;
    Ok((volume::choose::choose(roots, request, image)?, Some(guard)))
}

fn image_facts(store: &Store, request: &RunRequest) -> Result<ImageFacts> {
    match &request.image {
        ImageSource::Rootfs(path) => {
            let path = std::fs::canonicalize(path).map_err(|error| {
                anyhow!("cannot use --rootfs {}: {}", path.display(), crate::error::io_text(&error))
            })?;
            if !path.is_dir() {
                return Err(anyhow!("cannot use --rootfs {}: not a folder; load or import an archive", path.display()));
            }
            Ok(ImageFacts::folder(path))
        }
        // An archive has been loaded by the client, which put the image's id in its place.
        ImageSource::Name(name) => {
            let found = store.find(name);
            if let Err(error @ images::Error::NoSuchImage { .. }) = found {
                return Err(anyhow!(
                    "{error}; minidock pulls from no registry: 'minidock images' lists what is here, 'minidock load -i FILE' \
                     and 'minidock import' bring more, and 'demo' is built in"
                ));
            }
            Ok(ImageFacts::of(name, &found?))
        }
        ImageSource::Archive(path) => Err(anyhow!("{} has not been loaded", path.display())),
    }
}

/// Refuses a `--wait` that could never be met, before anything is made.
///
/// # Errors
/// The image is missing; no port or no health check is there to be waited for.
pub fn check_wait(order: &Order, wait: &Wait) -> Result<()> {
    let request = &order.request;
    let image = image_facts(&Store::open(&order.engine.roots.root)?, request)?;
    let is_tcp = |publish: &Publish| publish.protocol == netsetup::Protocol::Tcp;
    for condition in &wait.conditions {
        match condition {
            Ready::Port(None) | Ready::Http(None, _)
                if !request.network.publish.iter().any(is_tcp)
                    && !exposed(request, &image).iter().any(|port| port.ends_with("/tcp")) =>
            {
                return Err(anyhow!(
                    "--wait: neither -p, --expose nor the image names a TCP port; write --wait port:N or http:N/path"
                ));
            }
            Ready::Healthy if health(request, &image).is_none_or(|check| check.command(&[]).is_none()) => {
                return Err(anyhow!("--wait healthy: the container has no health check; give one with --health-cmd"));
            }
            _ => {}
        }
    }
    Ok(())
}

struct Making<'a> {
    order: &'a Order,
    host: &'a mut Host,
    /// On its way since before the facts were read.
    netns: Option<Begun>,
    journal: &'a Journal,
    image: &'a ImageFacts,
    facts: &'a Facts,
    say: Say<'a>,
}

impl Making<'_> {
    /// `kept`: the state of a container that has been made before.
    fn make(
        &mut self,
        name: String,
        kept: Option<&State>,
        chosen: Chosen,
        stdin: Option<OwnedFd>,
    ) -> Result<(State, Run)> {
        let (roots, request) = (&self.order.engine.roots, &self.order.request);
        let (mappings, sockets) =
            take_ports(&self.order.engine, request, || exposed(request, self.image), &self.facts.networks)?;
        let addresses = self.facts.networks.iter().map(|joining| {
            let in_use = netsetup::bridge_addresses_in_use(self.host, &joining.network)?;
            reservation::take_addresses(roots, self.journal, joining, &in_use, &self.order.id)
        });
        let addresses = addresses.collect::<Result<_>>()?;
        let reservation = Reservation {
            id: self.order.id.clone(),
            folder: roots.container(&self.order.id),
            name,
            addresses,
            ports: mappings,
            chosen,
        };
        let plan = plan::plan(request, self.image, self.facts, &reservation, &places(&self.order.engine))?;
        let mut warnings = self.make_shared(&plan)?;
        let asked = |port: &&PortMapping| network::obstacles::is_asked(port);
        let proxied: Vec<PortMapping> = reservation.ports.iter().filter(asked).copied().collect();
        warnings.extend(netsetup::input_obstacles(self.host, &proxied).iter().map(ToString::to_string));
        let begun = self.netns.take().filter(|_| plan.runtime.namespaces.net == Namespace::New);
        let netns_fd = begun.map(Begun::finish).transpose()?;
        let bare = plan.attachments.is_empty();
        let (netns_fd, mut netns) = match netns_fd {
            Some(fd) if !bare => (None, Some(NewNetns::of(fd)?)),
            fd => (fd, None),
        };
        if let Some(netns) = &mut netns {
            self.begin_cards(&plan, netns)?;
        }
        if kept.is_none() {
            self.make_folders(&plan)?;
        }
        self.stage(&plan.files, None, None)?;
        self.stage(&plan.cgroup, None, None)?;
        if request.explain {
            (self.say)(&plan.init_commands());
        }
        let (stdio, outputs) = self.streams(stdin)?;
        let network = match (&netns, &netns_fd) {
            (Some(netns), _) => Network::Made(netns.fd()),
            (None, Some(fd)) => Network::Bare(fd.as_fd()),
            (None, None) => Network::AsPlanned,
        };
        let starting = runtime::init::spawn(&plan.runtime, stdio, network)?;
        drop(netns_fd);
        self.check_joined()?;
        // Here, while init mounts; before the state says 'running', so that whoever reads that finds the socket.
        let control = match kept.map(|state| state.status) {
            Some(Status::Restarting) => None,
            _ => Some(Listener::open(&reservation.folder)?),
        };
        let log = self.open_log(&plan, &reservation)?;
        let mounts = File::open(format!("/proc/{}/ns/mnt", starting.pid)).ok();
        let starting = self.connect(&plan, starting, netns.as_mut())?;
        let sockets_for_names = netns.as_mut().and_then(NewNetns::take_resolver);
        let resolver = sockets_for_names
            .map(|sockets| Resolver::new(sockets, plan.names.clone(), &request.network.dns))
            .transpose()?;
        if request.explain {
            (self.say)(&plan.commands_after_network(request.detach, None));
        }
        let gate_netns = netns.as_ref().map(NewNetns::fd);
        let proxies = proxies(&plan.attachments, sockets.served, gate_netns)?;
        // While init still mounts.
        let config = ContainerFolder::new(&reservation.folder).config();
        crate::files::replace(&config, &serde_json::to_vec(&plan.spec)?)?;
        let pid = starting.pid;
        let going = starting.go();
        // While init becomes the program.
        let state = match kept {
            Some(state) => state.clone(),
            None => self.state(&plan, &reservation)?,
        };
        let state = self.state_of_run(state, &plan, &reservation, pid);
        let prepared = state.prepare(roots);
        let running = going.wait()?;
        match prepared {
            Ok(prepared) => prepared.put()?,
            Err(_) => state.write(roots)?, // perhaps in another way; else it says why not
        }
        Ok((state, Run { running, outputs, proxies, resolver, ports: sockets.kept, log, mounts, control, warnings }))
    }

    /// What the container has once for all its runs.
    fn make_folders(&mut self, plan: &Plan) -> Result<()> {
        self.stage(&plan.folders, None, None)?;
        let layers = self.image.rootfs.as_ref().map_or(self.image.layers.as_slice(), std::slice::from_ref);
        let (roots, id) = (&self.order.engine.roots, &self.order.id);
        let in_use = |volume: &Volume| volume::users::has_mounted(roots, &volume.name, id);
        volume::fill(&plan.volumes, layers, &roots.container(id).join("merged"), &in_use)
    }

    /// What containers share: the network, and the net_cls mount. Gives back what the user should know.
    fn make_shared(&mut self, plan: &Plan) -> Result<Vec<String>> {
        let roots = &self.order.engine.roots;
        let mut warnings = plan.warnings.clone();
        for joining in &self.facts.networks {
            let obstacles = network::ensure(roots, &joining.network, &joining.facts, self.host, self.say)?;
            warnings.extend(obstacles.iter().map(ToString::to_string));
        }
        network::ensure_mounts(roots, &plan.shared_cgroup, self.host, self.say)?;
        Ok(warnings)
    }

    /// Journals what the operations will leave, tells of them, applies them.
    fn stage(&mut self, ops: &[Op], netns: Option<&mut NewNetns>, init_pid: Option<u32>) -> Result<()> {
        let residues: Vec<_> = ops.iter().filter_map(|op| op.residue(init_pid)).collect();
        self.journal.record(&residues)?;
        self.tell(ops);
        op::apply(ops, &mut Live { host: self.host, netns, init_pid })
    }

    fn tell(&mut self, ops: &[Op]) {
        if self.order.request.explain {
            (self.say)(&ops.iter().flat_map(Op::explain).collect::<Vec<_>>());
        }
    }

    /// Has the cards made by another process, while this one goes on to clone init and load its filters: the kernel takes a
    /// millisecond for a veth pair, and nothing but "go" needs it. Told of in [`Making::connect`], among the others.
    fn begin_cards(&mut self, plan: &Plan, netns: &mut NewNetns) -> Result<()> {
        let (_, cards, _) = lanes(&plan.endpoint);
        let residues: Vec<_> = cards.iter().filter_map(|op| op.residue(None)).collect();
        self.journal.record(&residues)?;
        let cards: Vec<_> = cards
            .iter()
            .filter_map(|op| if let Op::Net(netsetup::Op::Link(op)) = op { Some(op.clone()) } else { None })
            .collect();
        Ok(netsetup::link::begin(&cards, self.host, netns)?)
    }

    /// The host's lane while init mounts.
    fn connect(&mut self, plan: &Plan, starting: Starting, mut netns: Option<&mut NewNetns>) -> Result<Starting> {
        let pid = Some(starting.pid);
        let (filters, cards, rest) = lanes(&plan.endpoint);
        self.stage(filters, None, pid)?;
        if let Some(netns) = netns.as_deref_mut() {
            self.tell(cards);
            netsetup::link::finish(self.host, netns)?;
        }
        let is_rule = |op: &Op| matches!(op, Op::Net(netsetup::Op::Firewall(_)));
        let (links, rules) = rest.split_at(rest.iter().position(is_rule).unwrap_or(rest.len()));
        self.stage(links, netns, pid)?;
        match self.stage(rules, None, pid) {
            Err(error) if matches!(error.downcast_ref(), Some(netsetup::Error::PortTaken { .. })) => {
                // The socket was free, so the mapping may be a dead container's: give those back, then once more.
                recover::recover_all(&self.order.engine.roots);
                op::apply(rules, &mut Live { host: self.host, netns: None, init_pid: pid })?;
            }
            other => other?,
        }
        Ok(starting)
    }

    /// The namespaces to join were opened by pid: if their container has ended, that may have been another's.
    fn check_joined(&self) -> Result<()> {
        let joined = [&self.facts.joined_net, &self.facts.joined_pid, &self.facts.joined_ipc];
        match joined.into_iter().flatten().find(|joined| !joined.process.is_alive()) {
            Some(joined) => Err(anyhow!("container {} has just ended; its namespaces can't be joined", joined.id)),
            None => Ok(()),
        }
    }

    fn streams(&self, stdin: Option<OwnedFd>) -> Result<(Stdio, [Option<OwnedFd>; 2])> {
        if self.order.request.terminal {
            let (rows, columns) = self.order.size;
            return Ok((Stdio::Terminal { rows, columns }, [None, None]));
        }
        let Streams { inside: [stdin, stdout, stderr], outputs: [out, err] } = Streams::new(stdin)?;
        Ok((Stdio::Pipes { stdin, stdout, stderr }, [Some(out), Some(err)]))
    }

    fn open_log(&self, plan: &Plan, reservation: &Reservation) -> Result<Option<log::Writer>> {
        let request = &self.order.request;
        let options = &request.log_options;
        let labels = if options.labels.is_empty() {
            std::collections::BTreeMap::new()
        } else {
            plan::labels(request, self.image)
        };
        let env = plan.spec.process().as_ref().and_then(|process| process.env().as_deref()).unwrap_or_default();
        let source =
            log::Source { id: &reservation.id, name: &reservation.name, image: &self.image.name, labels: &labels, env };
        log::Writer::open(request.log, options, &ContainerFolder::new(&reservation.folder).log(), &source)
    }

    /// The state of a container that has not run yet.
    fn state(&self, plan: &Plan, reservation: &Reservation) -> Result<State> {
        let request = &self.order.request;
        Ok(State {
            version: PLAIN,
            id: reservation.id.clone(),
            name: reservation.name.clone(),
            created: log::now(),
            image: self.image.name.clone(),
            image_id: self.image.id.clone(),
            args: plan::arguments(request, self.image)?,
            request: serde_json::to_value(request)?,
            status: Status::Created,
            process: None,
            started: String::new(),
            finished: String::new(),
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            attachments: vec![],
            class: None,
            open_files: None,
            layers: self.image.layers.clone(),
            config: self.config(plan, reservation)?,
            volumes: plan.volumes.clone(),
            inherited: reservation.chosen.inherited.clone(),
            etc_folder: self.etc_folder(reservation),
            auto_remove: request.remove,
            stopped_by_hand: false,
            restart_count: 0,
            health: None,
            monitor: None,
            was_read: false,
        })
    }

    fn state_of_run(&self, state: State, plan: &Plan, reservation: &Reservation, pid: u32) -> State {
        State {
            status: Status::Running,
            process: Process::now(pid),
            health: state.config.health.as_ref().and_then(|check| check.command(&[])).map(|_| Health::new()),
            monitor: Process::now(std::process::id()),
            started: log::now(),
            finished: String::new(),
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            attachments: plan.attachments.clone(),
            class: plan.class,
            open_files: Some(open_files()),
            etc_folder: self.etc_folder(reservation),
            ..state
        }
    }

    fn etc_folder(&self, reservation: &Reservation) -> std::path::PathBuf {
        match &self.facts.joined_net {
            Some(joined) => joined.etc_folder.clone(),
            None => reservation.folder.clone(),
        }
    }
}

impl Making<'_> {
    fn config(&self, plan: &Plan, reservation: &Reservation) -> Result<Config> {
        let (request, image) = (&self.order.request, self.image);
        let process = plan.spec.process().as_ref();
        let words = |list: &[std::ffi::OsString]| list.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let (entrypoint, inherits) = match &request.entrypoint {
            Entrypoint::Image => (image.entrypoint.clone(), true),
            Entrypoint::Cleared => (vec![], false),
            Entrypoint::Program(program) => (vec![program.to_string_lossy().into_owned()], false),
        };
        let cmd = if request.command.is_empty() && inherits { image.cmd.clone() } else { words(&request.command) };
        Ok(Config {
            hostname: plan::hostname(request, self.facts, &reservation.id),
            domainname: request.network.domainname.clone().unwrap_or_default(),
            user: request.user.clone().unwrap_or_else(|| image.user.clone()),
            env: environment(request, image),
            cmd,
            entrypoint,
            working_dir: process.map(|process| process.cwd().display().to_string()).unwrap_or_default(),
            labels: plan::labels(request, image),
            exposed: exposed(request, image),
            stop_signal: plan.stop_signal,
            stop_signal_text: request.stop_signal_typed.clone().or(image.stop_signal.clone()).unwrap_or_default(),
            health: health(request, image),
            shell: image.shell.clone(),
            stop_timeout_seconds: request.stop_timeout_s.unwrap_or(10),
        })
    }
}

/// What init inherits, and so the program, unless `--ulimit nofile` says otherwise.
fn open_files() -> (u64, u64) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX))
}

/// The host's lane: the filters; the cards' links, which are begun before there is an init; what else.
fn lanes(endpoint: &[Op]) -> (&[Op], &[Op], &[Op]) {
    let (filters, rest) = endpoint.split_at(endpoint.iter().take_while(|op| matches!(op, Op::Cgroup(_))).count());
    let is_card = |op: &&Op| matches!(op, Op::Net(netsetup::Op::Link(_)));
    let (cards, rest) = rest.split_at(rest.iter().take_while(is_card).count());
    (filters, cards, rest)
}

/// What image and user say, without what every container has (PATH, HOSTNAME), as `docker inspect` shows it.
fn environment(request: &RunRequest, image: &ImageFacts) -> Vec<String> {
    let base = image.env.iter().map(std::ffi::OsString::from).collect();
    let merged = crate::request::environment::merge(base, &request.environment);
    merged.iter().map(|line| line.to_string_lossy().into_owned()).collect()
}

/// The user's health check over the image's.
fn health(request: &RunRequest, image: &ImageFacts) -> Option<Healthcheck> {
    match &request.health {
        Some(check) => Some(check.clone().over(image.health.as_ref())),
        None => image.health.clone(),
    }
}

/// Every port that the image or the user says the container listens on: `80/tcp`.
fn exposed(request: &RunRequest, image: &ImageFacts) -> Vec<String> {
    let user = request.network.exposed.iter().map(|(port, protocol)| format!("{port}/{protocol}"));
    let published = request.network.publish.iter().map(|one| format!("{}/{}", one.container_port, one.protocol));
    let image = image.exposed.iter().map(|text| if text.contains('/') { text.clone() } else { format!("{text}/tcp") });
    let mut all: Vec<String> = image.chain(user).chain(published).collect();
    all.sort();
    all.dedup();
    all
}

/// `-p`, and with `-P` every exposed port that `-p` doesn't name, on a free port of the host.
fn published(
    request: &RunRequest,
    exposed: impl FnOnce() -> Vec<String>,
    networks: &[Joining],
) -> Result<Vec<Publish>> {
    let Some(network) = plan::endpoints::port_network(networks) else { return Ok(vec![]) };
    let mut all = request.network.publish.clone();
    if request.network.publish_all && request.network.mode == NetworkMode::Bridge {
        for text in exposed() {
            let (port, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
            let container_port: u16 =
                port.parse().with_context(|| format!("the image exposes {text:?}, which is no port; leave out -P"))?;
            let protocol = protocol.parse().map_err(|why: String| anyhow!(why))?;
            if !all.iter().any(|one| one.container_port == container_port && one.protocol == protocol) {
                let any = std::net::Ipv4Addr::UNSPECIFIED.into();
                let host_address = request.network.publish_address.unwrap_or(any);
                let both = request.network.publish_address.is_none();
                all.push(Publish { protocol, host_address, both, host: HostPort::Random, container_port });
            }
        }
    }
    // The network's option says where ports are published that name no address.
    if let Some(binding) = networks[network].host_binding {
        // 0.0.0.0 written out is an address, too.
        for publish in all.iter_mut().filter(|publish| publish.both) {
            (publish.host_address, publish.both) = (binding, binding.is_unspecified());
        }
    }
    Ok(all)
}

/// Reserves the host's ports. By what means each is published follows from what the host can do. `exposed`: what the image
/// and the user say that the container listens on.
pub fn take_ports(
    engine: &Engine,
    request: &RunRequest,
    exposed: impl FnOnce() -> Vec<String>,
    networks: &[Joining],
) -> Result<(Vec<PortMapping>, Sockets)> {
    let into = plan::endpoints::port_network(networks).map(|at| &networks[at]);
    let wanted = request.network.publish_mode.or(engine.config.publish_mode).unwrap_or(PublishMode::Dnat);
    reservation::take_ports(&engine.roots, &published(request, exposed, networks)?, into, |protocol, address| {
        into.map_or(wanted, |joining| {
            netsetup::publish_mode(wanted, &joining.network, &joining.facts, protocol, address).0
        })
    })
}

fn places(engine: &Engine) -> Places {
    Places {
        program: std::env::current_exe().unwrap_or_else(|_| "minidock".into()),
        net_cls_mount: engine.roots.run.join("net_cls"),
        networks: engine.roots.networks(),
        cgroup_parent: runtime::cgroup::PARENT.to_string(),
    }
}

/// Ports that the kernel doesn't lead on get a proxy that listens once the container does.
fn proxies(
    attachments: &[Attachment],
    served: Vec<(PortMapping, ReservedPort)>,
    netns: Option<std::os::fd::BorrowedFd<'_>>,
) -> Result<Vec<Proxy>> {
    let with_ports = attachments.iter().find(|attachment| !attachment.ports.is_empty());
    let mut proxies = Vec::with_capacity(served.len());
    for (mapping, socket) in served {
        if let Some(address) = with_ports.and_then(|one| one.address_for(mapping.host_address)) {
            let gate = netns.map(Gate::inside).transpose()?;
            proxies.push(Proxy::new(&mapping, address, socket, gate)?);
        }
    }
    Ok(proxies)
}
