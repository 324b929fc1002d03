//! Flags of the commands about containers, but `run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::pflag::{integer, key_value, seconds};

/// List containers.
#[derive(Debug, Clone, Default, Args)]
pub struct PsArgs {
    /// Show stopped containers too
    #[arg(short, long)]
    pub all: bool,
    /// Show only containers that fit: name= id= status= health= label= ancestor= exited= before= since= volume= network=
    /// publish= expose=
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub filter: Vec<String>,
    /// `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Show the N containers created last, running or not
    #[arg(short = 'n', long, value_name = "N", value_parser = integer)]
    pub last: Option<i64>,
    /// Show the container created last, running or not
    #[arg(short, long)]
    pub latest: bool,
    /// Show ids and commands in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Show how many bytes each has written
    #[arg(short, long)]
    pub size: bool,
}

/// What `inspect` looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InspectKind {
    /// A container, else an image.
    #[default]
    Any,
    /// `container inspect`, `--type container`
    Container,
    /// `image inspect`, `--type image`
    Image,
    /// `--type volume`
    Volume,
}

/// Print everything known of containers or images.
#[derive(Debug, Clone, Default, Args)]
pub struct InspectArgs {
    /// `json`, or a Go template such as '{{.State.Pid}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Look only for a `container` or an `image`
    #[arg(long = "type", value_name = "TYPE", value_parser = inspect_kind)]
    kind: Option<InspectKind>,
    /// Show how many bytes a container has written
    #[arg(short, long)]
    pub size: bool,
    /// Names or ids
    #[arg(required = true, value_name = "NAME|ID")]
    pub names: Vec<String>,
}

impl InspectArgs {
    /// What to look for.
    pub fn kind(&self) -> InspectKind {
        self.kind.unwrap_or_default()
    }

    /// For the forms `container inspect` and `image inspect`.
    pub(super) fn only(mut self, kind: InspectKind) -> InspectArgs {
        self.kind = Some(kind);
        self
    }
}

fn inspect_kind(text: &str) -> Result<InspectKind, String> {
    match text {
        "container" => Ok(InspectKind::Container),
        "image" => Ok(InspectKind::Image),
        "volume" => Ok(InspectKind::Volume),
        "" => Ok(InspectKind::Any),
        _ => Err("minidock inspects a \"container\" or an \"image\"".to_owned()),
    }
}

/// Print what a container wrote.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Print what --log-opt labels and env have noted with each line
    #[arg(long)]
    pub details: bool,
    /// Go on printing what comes
    #[arg(short, long)]
    pub follow: bool,
    /// Only from this time on: 2013-01-02T13:23:37Z, seconds since 1970, or 42m for 42 minutes ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only up to this time; forms as for --since
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only the last N lines, or `all`
    #[arg(short = 'n', long, value_name = "N", default_value = "all", value_parser = tail)]
    pub tail: Tail,
    /// Put the time before each line
    #[arg(short, long)]
    pub timestamps: bool,
    /// The container's name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// How many lines at the end of the log are wanted; `None`: all.
pub type Tail = OptionalLines;

/// A number of lines or all of them (a type of its own, because clap reads `Option` as "flag not given").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionalLines(pub Option<usize>);

/// As docker: a negative number is "all". (That docker takes any other word for "all", too, hides mistakes.)
fn tail(text: &str) -> Result<Tail, String> {
    if text == "all" || text.is_empty() {
        return Ok(OptionalLines(None));
    }
    match text.parse::<i64>() {
        Ok(lines) => Ok(OptionalLines(usize::try_from(lines).ok())),
        Err(_) => Err("not a number of lines; use a number or all".to_owned()),
    }
}

/// Attach to a running container.
#[derive(Debug, Clone, Args)]
pub struct AttachArgs {
    /// Keys that detach from the container's terminal [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Don't pass stdin on
    #[arg(long)]
    pub no_stdin: bool,
    /// Pass signals on to the program
    #[arg(long, default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true, value_parser = super::pflag::boolean, action = clap::ArgAction::Set)]
    pub sig_proxy: bool,
    /// The container's name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// Run a further program in a running container.
#[derive(Debug, Clone, Default, Args)]
pub struct ExecArgs {
    /// Start it and come back at once
    #[arg(short, long)]
    pub detach: bool,
    /// Keys that detach from the program's terminal [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Set an environment variable (NAME alone: take it from here)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Pass stdin on
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the program all capabilities
    #[arg(long)]
    pub privileged: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Run as this user: NAME or UID, with :GROUP if wanted
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// The container's name or id, the program and its arguments
    #[arg(required = true, trailing_var_arg = true, num_args = 2.., value_name = "CONTAINER COMMAND [ARG...]")]
    words: Vec<OsString>,
}

impl ExecArgs {
    /// The container's name or id as typed.
    pub fn container(&self) -> String {
        self.words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The program and its arguments; at least one word.
    pub fn command(&self) -> &[OsString] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// Stop containers: the stop signal, then SIGKILL.
#[derive(Debug, Clone, Default, Args)]
pub struct StopArgs {
    /// Signal to send first
    #[arg(short, long, value_name = "SIGNAL")]
    pub signal: Option<String>,
    /// Seconds to wait before SIGKILL; -1 waits for ever
    #[arg(short, long, visible_alias = "time", value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<i64>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Start containers that are stopped or only created.
#[derive(Debug, Clone, Default, Args)]
pub struct StartArgs {
    /// Stay in the foreground: print the output, pass signals on, exit with the program's code
    #[arg(short, long)]
    pub attach: bool,
    /// Keys that detach from the container's terminal [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Pass stdin on
    #[arg(short, long)]
    pub interactive: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Stop containers and start them again.
#[derive(Debug, Clone, Default, Args)]
pub struct RestartArgs {
    /// Signal to send first
    #[arg(short, long, value_name = "SIGNAL")]
    pub signal: Option<String>,
    /// Seconds to wait before SIGKILL; -1 waits for ever
    #[arg(short, long, visible_alias = "time", value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<i64>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Send a signal to containers.
#[derive(Debug, Clone, Default, Args)]
pub struct KillArgs {
    /// Signal to send [default: KILL]
    #[arg(short, long, value_name = "SIGNAL")]
    pub signal: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Remove containers.
#[derive(Debug, Clone, Default, Args)]
pub struct RmArgs {
    /// Kill a running one first
    #[arg(short, long)]
    pub force: bool,
    /// Remove its anonymous volumes too
    #[arg(short, long)]
    pub volumes: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Nothing but containers.
#[derive(Debug, Clone, Default, Args)]
pub struct ContainersArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Give a container another name.
#[derive(Debug, Clone, Default, Args)]
pub struct RenameArgs {
    /// The container's name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// The new name
    #[arg(value_name = "NEW_NAME")]
    pub new_name: String,
}

/// Change limits and restart policies of containers.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct UpdateArgs {
    /// Disk weight, 10 to 1000
    #[arg(long, value_name = "WEIGHT", value_parser = integer)]
    pub blkio_weight: Option<i64>,
    /// CPU period in microseconds
    #[arg(long, value_name = "US", value_parser = integer)]
    pub cpu_period: Option<i64>,
    /// CPU time per period in microseconds
    #[arg(long, value_name = "US", value_parser = integer)]
    pub cpu_quota: Option<i64>,
    /// CPU weight (1024 is normal)
    #[arg(short, long, value_name = "SHARES", value_parser = integer)]
    pub cpu_shares: Option<i64>,
    /// Number of CPUs: 1.5
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<String>,
    /// CPUs to run on: 0-3,5
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use: 0-1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Memory limit: 512m, 1g
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Soft memory limit
    #[arg(long, value_name = "BYTES")]
    pub memory_reservation: Option<String>,
    /// Limit of memory and swap together; -1: no limit for swap
    #[arg(long, value_name = "BYTES")]
    pub memory_swap: Option<String>,
    /// Number of processes; -1: no limit
    #[arg(long, value_name = "NUMBER", value_parser = integer)]
    pub pids_limit: Option<i64>,
    /// What happens when the program ends: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Start the containers whose restart policy wants it.
#[derive(Debug, Clone, Default, Args)]
pub struct BootArgs {
    /// Stop all containers before the machine goes down; the next boot starts what its policy wants
    #[arg(long)]
    pub stop: bool,
}

/// Run a command whose end is that of the containers made under it.
#[derive(Debug, Clone, Default, Args)]
pub struct SessionArgs {
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND [ARG...]")]
    pub words: Vec<OsString>,
}

/// Remove all that isn't in use.
#[derive(Debug, Clone, Default, Args)]
pub struct PruneArgs {
    /// Only what fits: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub filter: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    pub force: bool,
}

/// Print where a container's ports are published.
#[derive(Debug, Clone, Default, Args)]
pub struct PortArgs {
    /// The container's name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Only this port of the container: 80 or 53/udp
    #[arg(value_name = "PRIVATE_PORT[/PROTO]")]
    pub private_port: Option<String>,
}

/// Print minidock's version.
#[derive(Debug, Clone, Default, Args)]
pub struct VersionArgs {
    /// `json`, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}
