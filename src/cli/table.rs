//! The table of commands: every form that docker has for one, its help line, its flags, and how they are read.
//! Adding a command is one entry here and one variant of `Command`.

use std::ffi::OsString;

use clap::{ArgMatches, Args, FromArgMatches};

use super::containers::{
    AttachArgs, BootArgs, ContainersArgs, ExecArgs, InspectArgs, InspectKind, KillArgs, LogsArgs, PortArgs, PruneArgs,
    PsArgs, RenameArgs, RestartArgs, RmArgs, SessionArgs, StartArgs, StopArgs, UpdateArgs, VersionArgs,
};
use super::copy::{CpArgs, DiffArgs, ExportArgs};
use super::engine::{CompletionArgs, DoctorArgs, InfoArgs, ManArgs};
use super::images::{HistoryArgs, ImagesArgs, ImportArgs, LoadArgs, RmiArgs, SaveArgs, TagArgs};
use super::net::{NetGraphArgs, WalkArgs};
use super::networks::{
    NetworkConnectArgs, NetworkCreateArgs, NetworkDisconnectArgs, NetworkInspectArgs, NetworkLsArgs, NetworkPruneArgs,
    NetworkRepairArgs, NetworkRmArgs,
};
use super::observe::{EventsArgs, StatsArgs, TopArgs};
use super::router::{RouterCreateArgs, RouterFloatingArgs, RouterInspectArgs, RouterLsArgs, RouterRmArgs};
use super::system::{ImagePruneArgs, SystemDfArgs, SystemPruneArgs};
use super::volumes::{VolumeCreateArgs, VolumeInspectArgs, VolumeLsArgs, VolumePruneArgs, VolumeRmArgs};
use super::{Command, RunArgs, Stop};

/// One command in all its forms.
pub(super) struct Entry {
    /// Its forms; the first is its name in messages. A form has one or two words.
    pub names: &'static [&'static str],
    /// What it does, for the list of commands.
    pub about: &'static str,
    /// What follows its name.
    pub usage: &'static str,
    /// How many arguments it takes, in docker's words (`requires at least 1 argument`).
    pub arguments: &'static str,
    /// One line that a user would type; a test parses it.
    pub example: &'static str,
    /// Adds its flags to a parser.
    pub define: fn(clap::Command) -> clap::Command,
    /// Makes the command of what was parsed.
    pub read: fn(&mut ArgMatches) -> Result<Command, clap::Error>,
}

impl Entry {
    /// The name in messages.
    pub fn name(&self) -> &'static str {
        self.names.first().copied().unwrap_or_default()
    }
}

/// One entry: the forms, the help line, the usage, the argument count, the flags' type, the variant, an example.
macro_rules! entry {
    ($names:expr, $about:expr, $usage:expr, $arguments:expr, $args:ty, $make:expr) => {
        compile_error!("give the command an example, last: one line that a user would type")
    };
    ($names:expr, $about:expr, $usage:expr, $arguments:expr, $args:ty, $make:expr, $example:expr) => {
        Entry {
            names: $names,
            about: $about,
            usage: $usage,
            arguments: $arguments,
            example: $example,
            define: <$args>::augment_args,
            read: |matches| <$args>::from_arg_matches_mut(matches).map($make),
        }
    };
}

const AT_LEAST_1: &str = "requires at least 1 argument";

#[rustfmt::skip]
pub(super) const COMMANDS: &[Entry] = &[
    entry!(&["run", "container run"], "Create a container from an image and run a program in it",
        "[OPTIONS] IMAGE [COMMAND] [ARG...]", AT_LEAST_1, RunArgs, |args| Command::Run(Box::new(args)),
        "minidock run --rm -p 8080:80 demo"),
    Entry {
        names: &["create", "container create"],
        about: "Create a container, to be started later",
        usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        arguments: AT_LEAST_1,
        define: |command| RunArgs::augment_args(command).mut_args(run_only),
        read: read_create,
        example: "minidock create --name web -p 8080:80 demo",
    },
    entry!(&["start", "container start"], "Start containers that are stopped or only created",
        "[OPTIONS] CONTAINER [CONTAINER...]", AT_LEAST_1, StartArgs, Command::Start,
        "minidock start web"),
    entry!(&["restart", "container restart"], "Stop containers and start them again",
        "[OPTIONS] CONTAINER [CONTAINER...]", AT_LEAST_1, RestartArgs, Command::Restart,
        "minidock restart -t 3 web"),
    entry!(&["attach", "container attach"], "Attach the terminal or streams to a running container",
        "[OPTIONS] CONTAINER", "requires 1 argument", AttachArgs, Command::Attach,
        "minidock attach --detach-keys ctrl-x web"),
    entry!(&["exec", "container exec"], "Run a further program in a running container",
        "[OPTIONS] CONTAINER COMMAND [ARG...]", "requires at least 2 arguments", ExecArgs, Command::Exec,
        "minidock exec -it web sh"),
    entry!(&["ps", "container ls", "container list", "container ps"], "List containers",
        "[OPTIONS]", "accepts no arguments", PsArgs, Command::Ps,
        "minidock ps -a --filter status=exited --format '{{.Names}} {{.Status}}'"),
    entry!(&["inspect"], "Print everything known of containers or images",
        "[OPTIONS] NAME|ID [NAME|ID...]", AT_LEAST_1, InspectArgs, Command::Inspect,
        "minidock inspect --format '{{.State.Pid}}' web"),
    entry!(&["container inspect"], "Print everything known of containers",
        "[OPTIONS] CONTAINER [CONTAINER...]", AT_LEAST_1, InspectArgs,
        |args: InspectArgs| Command::Inspect(args.only(InspectKind::Container)),
        "minidock container inspect --format '{{json .NetworkSettings.Ports}}' web"),
    entry!(&["image inspect"], "Print everything known of images",
        "[OPTIONS] IMAGE [IMAGE...]", AT_LEAST_1, InspectArgs,
        |args: InspectArgs| Command::Inspect(args.only(InspectKind::Image)),
        "minidock image inspect --format '{{.Config.Cmd}}' demo"),
    entry!(&["logs", "container logs"], "Print what a container wrote",
        "[OPTIONS] CONTAINER", "requires 1 argument", LogsArgs, Command::Logs,
        "minidock logs -f --tail 20 web"),
    entry!(&["stop", "container stop"], "Stop containers: the stop signal, then SIGKILL",
        "[OPTIONS] CONTAINER [CONTAINER...]", AT_LEAST_1, StopArgs, Command::Stop,
        "minidock stop -t 3 web"),
    entry!(&["kill", "container kill"], "Send a signal to containers",
        "[OPTIONS] CONTAINER [CONTAINER...]", AT_LEAST_1, KillArgs, Command::Kill,
        "minidock kill -s HUP web"),
    entry!(&["rm", "container rm", "container remove"], "Remove containers",
        "[OPTIONS] CONTAINER [CONTAINER...]", AT_LEAST_1, RmArgs, Command::Rm,
        "minidock rm -f web"),
    entry!(&["wait", "container wait"], "Wait until containers stop, and print their exit codes",
        "CONTAINER [CONTAINER...]", AT_LEAST_1, ContainersArgs, Command::Wait,
        "minidock wait web"),
    entry!(&["pause", "container pause"], "Freeze all processes of containers",
        "CONTAINER [CONTAINER...]", AT_LEAST_1, ContainersArgs, Command::Pause,
        "minidock pause web"),
    entry!(&["unpause", "container unpause"], "Let the processes of frozen containers go on",
        "CONTAINER [CONTAINER...]", AT_LEAST_1, ContainersArgs, Command::Unpause,
        "minidock unpause web"),
    entry!(&["rename", "container rename"], "Give a container another name",
        "CONTAINER NEW_NAME", "requires 2 arguments", RenameArgs, Command::Rename,
        "minidock rename web site"),
    entry!(&["update", "container update"], "Change limits and restart policies of containers, running ones too",
        "[OPTIONS] CONTAINER [CONTAINER...]", AT_LEAST_1, UpdateArgs, Command::Update,
        "minidock update --memory 256m --cpus 1.5 web"),
    entry!(&["session"], "Run a command; the containers made under it are removed when it ends",
        "[--] COMMAND [ARG...]", AT_LEAST_1, SessionArgs, Command::Session,
        "minidock session -- make test"),
    entry!(&["boot"], "Start the containers whose restart policy wants it after a reboot",
        "[OPTIONS]", "accepts no arguments", BootArgs, Command::Boot,
        "minidock boot"),
    entry!(&["container prune"], "Remove all stopped containers",
        "[OPTIONS]", "accepts no arguments", PruneArgs, Command::ContainerPrune,
        "minidock container prune -f --filter until=24h"),
    entry!(&["port", "container port"], "Print where a container's ports are published",
        "CONTAINER [PRIVATE_PORT[/PROTO]]", "requires at least 1 and at most 2 arguments", PortArgs, Command::Port,
        "minidock port web 80/tcp"),
    entry!(&["top", "container top"], "Print the processes of a container",
        "CONTAINER [ps OPTIONS]", AT_LEAST_1, TopArgs, Command::Top,
        "minidock top web -o pid,user,args"),
    entry!(&["stats", "container stats"], "Print what containers use: CPU, memory, network, disks",
        "[OPTIONS] [CONTAINER...]", "accepts any arguments", StatsArgs, Command::Stats,
        "minidock stats --no-stream --format '{{.Name}} {{.MemUsage}}'"),
    entry!(&["events", "system events"], "Print what happens to containers, images, networks and volumes",
        "[OPTIONS]", "accepts no arguments", EventsArgs, Command::Events,
        "minidock events --since 10m --filter event=die"),
    entry!(&["load", "image load"], "Load images from an archive or an OCI layout",
        "[OPTIONS]", "accepts no arguments", LoadArgs, Command::Load,
        "minidock load -i image.tar"),
    entry!(&["import", "image import"], "Make an image of a root file system",
        "[OPTIONS] FILE|DIR|- [REPOSITORY[:TAG]]", AT_LEAST_1, ImportArgs, Command::Import,
        "minidock import rootfs.tar.gz my-image:1"),
    entry!(&["images", "image ls", "image list"], "List images",
        "[OPTIONS] [REPOSITORY[:TAG]]", "requires at most 1 argument", ImagesArgs, Command::Images,
        "minidock images --format '{{.Repository}}:{{.Tag}} {{.Size}}'"),
    entry!(&["tag", "image tag"], "Give an image a further name",
        "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "requires 2 arguments", TagArgs, Command::Tag,
        "minidock tag busybox my-busybox:1"),
    entry!(&["rmi", "image rm", "image remove"], "Remove images",
        "[OPTIONS] IMAGE [IMAGE...]", AT_LEAST_1, RmiArgs, Command::Rmi,
        "minidock rmi my-busybox:1"),
    entry!(&["router create"], "Make a router for IPv4 in a network namespace of its own",
        "[OPTIONS] NAME", "requires 1 argument", RouterCreateArgs, Command::RouterCreate,
        "minidock router create routerns --inside bridge --outside br-ex,16.158.1.100/24,16.158.1.1"),
    entry!(&["router ls", "router list"], "List routers",
        "[OPTIONS]", "accepts no arguments", RouterLsArgs, Command::RouterLs,
        "minidock router ls"),
    entry!(&["router inspect"], "Print everything known of routers",
        "[OPTIONS] ROUTER [ROUTER...]", AT_LEAST_1, RouterInspectArgs, Command::RouterInspect,
        "minidock router inspect --format '{{.Outside.Address}}' routerns"),
    entry!(&["router rm", "router remove"], "Remove routers",
        "ROUTER [ROUTER...]", AT_LEAST_1, RouterRmArgs, Command::RouterRm,
        "minidock router rm routerns"),
    entry!(&["router floating"], "Addresses outside that belong to one container each",
        "[OPTIONS] add ROUTER ADDRESS CONTAINER | rm ROUTER ADDRESS | ls [ROUTER]", AT_LEAST_1, RouterFloatingArgs,
        Command::RouterFloating,
        "minidock router floating add routerns 16.158.1.103 web"),
    entry!(&["cp", "container cp"], "Copy files between a container and the host",
        "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH", "requires 2 arguments", CpArgs,
        Command::Cp,
        "minidock cp web:/etc/passwd ."),
    entry!(&["diff", "container diff"], "Show what a container has changed of its image",
        "CONTAINER", "requires 1 argument", DiffArgs, Command::Diff,
        "minidock diff web"),
    entry!(&["export", "container export"], "Write a container's files as a tar archive",
        "[OPTIONS] CONTAINER", "requires 1 argument", ExportArgs, Command::Export,
        "minidock export -o web.tar web"),
    entry!(&["save", "image save"], "Write images as a tar archive",
        "[OPTIONS] IMAGE [IMAGE...]", "requires at least 1 argument", SaveArgs, Command::Save,
        "minidock save -o busybox.tar busybox"),
    entry!(&["history", "image history"], "Show how an image was made",
        "[OPTIONS] IMAGE", "requires 1 argument", HistoryArgs, Command::History,
        "minidock history --no-trunc busybox"),
    entry!(&["image prune"], "Remove images that nobody needs",
        "[OPTIONS]", "accepts no arguments", ImagePruneArgs, Command::ImagePrune,
        "minidock image prune -a --filter until=24h"),
    entry!(&["system df"], "Show what takes how much room",
        "[OPTIONS]", "accepts no arguments", SystemDfArgs, Command::SystemDf,
        "minidock system df -v"),
    entry!(&["system prune"], "Remove stopped containers, unused networks and images",
        "[OPTIONS]", "accepts no arguments", SystemPruneArgs, Command::SystemPrune,
        "minidock system prune -a --volumes -f"),
    entry!(&["volume create"], "Make a volume",
        "[OPTIONS] [VOLUME]", "requires at most 1 argument", VolumeCreateArgs, Command::VolumeCreate,
        "minidock volume create --label owner=lab data"),
    entry!(&["volume ls", "volume list"], "List volumes",
        "[OPTIONS]", "accepts no arguments", VolumeLsArgs, Command::VolumeLs,
        "minidock volume ls --filter dangling=true"),
    entry!(&["volume inspect"], "Print everything known of volumes",
        "[OPTIONS] VOLUME [VOLUME...]", AT_LEAST_1, VolumeInspectArgs, Command::VolumeInspect,
        "minidock volume inspect --format '{{.Mountpoint}}' data"),
    entry!(&["volume rm", "volume remove"], "Remove volumes that no container uses",
        "[OPTIONS] VOLUME [VOLUME...]", AT_LEAST_1, VolumeRmArgs, Command::VolumeRm,
        "minidock volume rm data"),
    entry!(&["volume prune"], "Remove all volumes that no container uses",
        "[OPTIONS]", "accepts no arguments", VolumePruneArgs, Command::VolumePrune,
        "minidock volume prune -a -f"),
    entry!(&["network create"], "Create a network",
        "[OPTIONS] NETWORK", "requires 1 argument", NetworkCreateArgs, |args| Command::NetworkCreate(Box::new(args)),
        "minidock network create --subnet 10.5.0.0/24 lan"),
    entry!(&["network ls", "network list"], "List networks",
        "[OPTIONS]", "accepts no arguments", NetworkLsArgs, Command::NetworkLs,
        "minidock network ls --filter driver=bridge"),
    entry!(&["network inspect"], "Print everything known of networks",
        "[OPTIONS] NETWORK [NETWORK...]", AT_LEAST_1, NetworkInspectArgs, Command::NetworkInspect,
        "minidock network inspect --format '{{json .Containers}}' lan"),
    entry!(&["network connect"], "Connect a container to a network",
        "[OPTIONS] NETWORK CONTAINER", "requires 2 arguments", NetworkConnectArgs, Command::NetworkConnect,
        "minidock network connect --alias db lan web"),
    entry!(&["network disconnect"], "Disconnect a container from a network",
        "[OPTIONS] NETWORK CONTAINER", "requires 2 arguments", NetworkDisconnectArgs, Command::NetworkDisconnect,
        "minidock network disconnect lan web"),
    entry!(&["network rm", "network remove"], "Remove networks",
        "[OPTIONS] NETWORK [NETWORK...]", AT_LEAST_1, NetworkRmArgs, Command::NetworkRm,
        "minidock network rm lan"),
    entry!(&["network prune"], "Remove all networks that no container uses",
        "[OPTIONS]", "accepts no arguments", NetworkPruneArgs, Command::NetworkPrune,
        "minidock network prune -f"),
    entry!(&["network repair"], "Bring back firewall rules of networks and containers that somebody has removed",
        "", "accepts no arguments", NetworkRepairArgs, Command::NetworkRepair,
        "minidock network repair"),
    entry!(&["net graph"], "Draw the network as the kernel has it now, and where that differs from minidock's records",
        "[OPTIONS]", "accepts no arguments", NetGraphArgs, Command::NetGraph,
        "minidock net graph --format svg >network.svg"),
    entry!(&["info", "system info"], "Print what the engine is, and what is in force",
        "[OPTIONS]", "accepts no arguments", InfoArgs, Command::Info,
        "minidock info --format '{{.Driver}} {{.CgroupVersion}}'"),
    entry!(&["doctor"], "Print what this host has and lacks, with remedies",
        "[OPTIONS]", "accepts no arguments", DoctorArgs, Command::Doctor,
        "minidock doctor"),
    entry!(&["completion"], "Print a script that completes commands and names in a shell",
        "bash|zsh|fish", "requires 1 argument", CompletionArgs, Command::Completion,
        "minidock completion bash >/etc/bash_completion.d/minidock"),
    entry!(&["man"], "Write the man pages into a folder",
        "DIR", "requires 1 argument", ManArgs, Command::Man,
        "minidock man /usr/local/share/man/man1"),
    entry!(&["walk", "net walk"], "Send a probe and tell its way hop by hop, from the kernel's own trace",
        "[OPTIONS] HOST:PORT[/udp]", "requires 1 argument", WalkArgs, Command::Walk,
        "minidock walk --from outside 10.0.0.1:10080"),
    entry!(&["version"], "Print minidock's version",
        "[OPTIONS]", "accepts no arguments", VersionArgs, Command::Version,
        "minidock version --format '{{.Client.Version}}'"),
];

/// Flags of `run` that mean nothing to `create`.
const RUN_ONLY: &[(&str, &str)] = &[
    ("detach", "-d"),
    ("sig_proxy", "--sig-proxy"),
    ("dry_run", "--dry-run"),
    ("wait", "--wait"),
    ("wait_timeout", "--wait-timeout"),
];

fn run_only(arg: clap::Arg) -> clap::Arg {
    let hide = RUN_ONLY.iter().any(|(id, _)| arg.get_id() == id);
    if hide { arg.hide(true) } else { arg }
}

fn read_create(matches: &mut ArgMatches) -> Result<Command, clap::Error> {
    for (id, flag) in RUN_ONLY {
        if matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine) {
            let mut error = clap::Error::new(clap::error::ErrorKind::UnknownArgument);
            let name = clap::error::ContextValue::String(flag.to_string());
            error.insert(clap::error::ContextKind::InvalidArg, name);
            return Err(error);
        }
    }
    let args = RunArgs::from_arg_matches_mut(matches)?;
    if args.words.is_empty() && args.rootfs.is_none() {
        return Err(clap::Error::new(clap::error::ErrorKind::MissingRequiredArgument)); // said with this command's name
    }
    Ok(Command::Create(Box::new(args)))
}

/// docker's commands that minidock doesn't have (yet), with what to do meanwhile. Both forms are meant.
#[rustfmt::skip]
const MISSING: &[(&str, &str)] = &[
    ("build", "build with another tool, and load the result with 'minidock load'"),
    ("commit", "build with another tool, and load the result with 'minidock load'"),
    ("compose", "start each container with 'minidock run'; those in one 'minidock network create' find each other by name"),
    ("context", "minidock has no daemon to choose: it works on this machine, in the folder of --root"),
    ("login", "load images from archives with 'minidock load'"),
    ("logout", "load images from archives with 'minidock load'"),
    ("pull", "load images from archives with 'minidock load'"),
    ("push", "minidock only loads images so far"),
    ("search", "load images from archives with 'minidock load'"),
    ("swarm", "minidock works on this machine alone"),
];

/// Words that group commands (`container ls`).
pub(super) const GROUPS: &[(&str, &str)] = &[
    ("container", "Manage containers"),
    ("image", "Manage images"),
    ("network", "Manage networks"),
    ("router", "Manage routers"),
    ("system", "Look at and clean up what minidock keeps"),
    ("volume", "Manage volumes"),
    ("net", "Look at the network"),
];

/// Finds the command that `words` begin with; gives it and the words after it.
pub(super) fn find(mut words: Vec<OsString>) -> Result<(&'static Entry, Vec<OsString>), Stop> {
    let word = |at: usize| words.get(at).and_then(|word| word.to_str());
    let Some(first) = words.first() else {
        return Err(Stop::nothing_typed(&help()));
    };
    let first = first.to_string_lossy().into_owned();
    if first == "help" {
        return Err(help_for(&words[1..]));
    }
    if !GROUPS.iter().any(|(group, _)| *group == first) {
        return match entry(&first) {
            Some(entry) => Ok((entry, words.split_off(1))),
            None => Err(unknown(&first)),
        };
    }
    let both = match word(1) {
        None => return Err(Stop::nothing_typed(&group_help(&first))),
        Some("--help" | "-h" | "help") => return Err(Stop::Help(group_help(&first))),
        Some(second) => format!("{first} {second}"),
    };
    match entry(&both) {
        Some(entry) => Ok((entry, words.split_off(2))),
        None => Err(unknown(&both)),
    }
}

/// The entry that has this form.
pub(super) fn entry(form: &str) -> Option<&'static Entry> {
    COMMANDS.iter().find(|entry| entry.names.contains(&form))
}

fn unknown(form: &str) -> Stop {
    let form = &super::bounded(form, 60);
    let short = form.rsplit(' ').next().unwrap_or(form);
    if let Some((_, meanwhile)) = MISSING.iter().find(|(name, _)| *name == form || *name == short) {
        return Stop::arguments(format!("'{form}' is not available yet; {meanwhile}"), None);
    }
    let near = COMMANDS
        .iter()
        .flat_map(|entry| entry.names)
        .filter(|name| name.contains(' ') == form.contains(' '))
        .map(|name| (crate::near::distance(form, name), name))
        .filter(|(distance, _)| *distance <= (short.len() / 3).clamp(1, 2))
        .min();
    let hint = near.map(|(_, name)| format!("; did you mean '{name}'?")).unwrap_or_default();
    Stop::arguments(format!("'{form}' is not a minidock command{hint}"), None)
}

fn help_for(words: &[OsString]) -> Stop {
    if words.is_empty() {
        return Stop::Help(help());
    }
    match find(words.to_vec()) {
        Ok((entry, _)) => super::pflag::help(entry),
        Err(stop) => stop,
    }
}

/// The text of `minidock --help`.
pub(super) fn help() -> String {
    let mut text = String::from(
        "Usage: minidock [OPTIONS] COMMAND\n\nA minimal but real container engine with networking built in\n\nCommands:\n",
    );
    for entry in COMMANDS.iter().filter(|entry| !entry.name().contains(' ')) {
        text += &format!("  {:<12}{}\n", entry.name(), entry.about);
    }
    text += "\nManagement commands (docker's longer forms):\n";
    for (group, about) in GROUPS {
        text += &format!("  {group:<12}{about}\n");
    }
    text += "\nOptions:\n      --root DIR           Keep images and containers below DIR: a separate engine (also MINIDOCK_ROOT)\n      \
             --firewall BACKEND   nftables or iptables (also MINIDOCK_FIREWALL)\n  \
             -D, --debug              Say more about what goes wrong\n  \
             -v, --version            Print the version\n      --help               Print this help\n\n\
             Run 'minidock COMMAND --help' for the flags of a command.\n";
    text
}

fn group_help(group: &str) -> String {
    let mut text = format!("Usage: minidock {group} COMMAND\n\nCommands:\n");
    for entry in COMMANDS {
        for form in entry.names.iter().filter_map(|name| name.strip_prefix(group)?.strip_prefix(' ')).take(1) {
            text += &format!("  {form:<12}{}\n", entry.about);
        }
    }
    text
}
