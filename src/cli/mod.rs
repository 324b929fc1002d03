//! The command line: words and flags → a plain [`Command`] value for the engine to match on.
//!
//! Which command is meant is looked up in one table ([`table`]), so that a start only builds the parser of the command
//! that was typed. Flags follow docker's forms (pflag's rules): `-dit`, `--x=y`, `--x y`, `--rm=false`, and for `run`
//! and `exec` the options end at the first argument that isn't one.

pub mod complete;
mod containers;
mod copy;
mod engine;
mod images;
pub mod man;
mod net;
mod networks;
mod not_supported;
mod observe;
mod pflag;
mod router;
mod run;
mod stop;
mod system;
mod table;
mod volumes;

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches};
use netsetup::Backend;

pub use containers::{
    AttachArgs, BootArgs, ContainersArgs, ExecArgs, InspectArgs, InspectKind, KillArgs, LogsArgs, PortArgs, PruneArgs,
    PsArgs, RenameArgs, RestartArgs, RmArgs, SessionArgs, StartArgs, StopArgs, UpdateArgs, VersionArgs,
};
pub use copy::{CpArgs, DiffArgs, ExportArgs};
pub use engine::{CompletionArgs, DoctorArgs, InfoArgs, ManArgs};
pub use images::{HistoryArgs, ImagesArgs, ImportArgs, LoadArgs, RmiArgs, SaveArgs, TagArgs};
pub use net::{NetGraphArgs, WalkArgs};
pub use networks::{
    NetworkConnectArgs, NetworkCreateArgs, NetworkDisconnectArgs, NetworkInspectArgs, NetworkLsArgs, NetworkPruneArgs,
    NetworkRepairArgs, NetworkRmArgs,
};
pub use observe::{EventsArgs, StatsArgs, TopArgs};
pub(crate) use pflag::boolean;
#[cfg(test)]
pub(crate) use pflag::declared;
pub use router::{Floating, RouterCreateArgs, RouterFloatingArgs, RouterInspectArgs, RouterLsArgs, RouterRmArgs};
pub use run::RunArgs;
pub use stop::Stop;
pub(crate) use stop::bounded;
pub use system::{ImagePruneArgs, SystemDfArgs, SystemPruneArgs};
pub use volumes::{VolumeCreateArgs, VolumeInspectArgs, VolumeLsArgs, VolumePruneArgs, VolumeRmArgs};

/// What the user wants done, with its flags as typed (only their form has been checked).
#[derive(Debug)]
pub enum Command {
    /// `run`, `container run`
    Run(Box<RunArgs>),
    /// `create`, `container create`
    Create(Box<RunArgs>),
    /// `start`, `container start`
    Start(StartArgs),
    /// `restart`, `container restart`
    Restart(RestartArgs),
    /// `pause`, `container pause`
    Pause(ContainersArgs),
    /// `unpause`, `container unpause`
    Unpause(ContainersArgs),
    /// `boot`
    Boot(BootArgs),
    /// `session`
    Session(SessionArgs),
    /// `update`, `container update`
    Update(UpdateArgs),
    /// `rename`, `container rename`
    Rename(RenameArgs),
    /// `container prune`
    ContainerPrune(PruneArgs),
    /// `ps`, `container ls`
    Ps(PsArgs),
    /// `inspect`, `container inspect`, `image inspect`
    Inspect(InspectArgs),
    /// `logs`, `container logs`
    Logs(LogsArgs),
    /// `attach`, `container attach`
    Attach(AttachArgs),
    /// `exec`, `container exec`
    Exec(ExecArgs),
    /// `stop`, `container stop`
    Stop(StopArgs),
    /// `kill`, `container kill`
    Kill(KillArgs),
    /// `rm`, `container rm`
    Rm(RmArgs),
    /// `wait`, `container wait`
    Wait(ContainersArgs),
    /// `port`, `container port`
    Port(PortArgs),
    /// `events`, `system events`
    Events(EventsArgs),
    /// `info`, `system info`
    Info(InfoArgs),
    /// `doctor`
    Doctor(DoctorArgs),
    /// `completion`
    Completion(CompletionArgs),
    /// `man`
    Man(ManArgs),
    /// `stats`, `container stats`
    Stats(StatsArgs),
    /// `top`, `container top`
    Top(TopArgs),
    /// `network create`
    NetworkCreate(Box<NetworkCreateArgs>),
    /// `network ls`
    NetworkLs(NetworkLsArgs),
    /// `network inspect`
    NetworkInspect(NetworkInspectArgs),
    /// `network connect`
    NetworkConnect(NetworkConnectArgs),
    /// `network disconnect`
    NetworkDisconnect(NetworkDisconnectArgs),
    /// `network rm`
    NetworkRm(NetworkRmArgs),
    /// `router create`
    RouterCreate(RouterCreateArgs),
    /// `router ls`
    RouterLs(RouterLsArgs),
    /// `router inspect`
    RouterInspect(RouterInspectArgs),
    /// `router rm`
    RouterRm(RouterRmArgs),
    /// `router floating`
    RouterFloating(RouterFloatingArgs),
    /// `network prune`
    NetworkPrune(NetworkPruneArgs),
    /// `network repair`
    NetworkRepair(NetworkRepairArgs),
    /// `walk`
    Walk(WalkArgs),
    /// `net graph`
    NetGraph(NetGraphArgs),
    /// `version`
    Version(VersionArgs),
    /// `load`, `image load`
    Load(LoadArgs),
    /// `import`, `image import`
    Import(ImportArgs),
    /// `images`, `image ls`
    Images(ImagesArgs),
    /// `tag`, `image tag`
    Tag(TagArgs),
    /// `rmi`, `image rm`
    Rmi(RmiArgs),
    /// `cp`, `container cp`
    Cp(CpArgs),
    /// `diff`, `container diff`
    Diff(DiffArgs),
    /// `export`, `container export`
    Export(ExportArgs),
    /// `save`, `image save`
    Save(SaveArgs),
    /// `history`, `image history`
    History(HistoryArgs),
    /// `image prune`
    ImagePrune(ImagePruneArgs),
    /// `system df`
    SystemDf(SystemDfArgs),
    /// `system prune`
    SystemPrune(SystemPruneArgs),
    /// `volume create`
    VolumeCreate(VolumeCreateArgs),
    /// `volume ls`
    VolumeLs(VolumeLsArgs),
    /// `volume inspect`
    VolumeInspect(VolumeInspectArgs),
    /// `volume rm`
    VolumeRm(VolumeRmArgs),
    /// `volume prune`
    VolumePrune(VolumePruneArgs),
}

/// The options that belong to the engine, not to a command; accepted before and after the command's name.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Keep images and containers below DIR: a separate engine (also MINIDOCK_ROOT)
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Program port publishing through `nftables` or `iptables` (also MINIDOCK_FIREWALL)
    #[arg(long, value_name = "BACKEND", value_parser = backend)]
    pub firewall: Option<Backend>,
    /// Say more about what goes wrong
    #[arg(short = 'D', long)]
    pub debug: bool,
}

/// A whole, well-formed command line.
#[derive(Debug)]
pub struct Invocation {
    /// The engine's options; flags win over the environment. What is `None` here comes from the configuration file.
    pub global: Global,
    /// What to do.
    pub command: Command,
}

/// Reads the arguments after the program's name. `environment` looks up a variable of minidock's own environment.
///
/// # Errors
/// [`Stop`] holds the text to print and the exit code: help (0), a wrong flag (125), a wrong command or number of
/// arguments (1), as docker has them.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &dyn Fn(&OsStr) -> Option<OsString>,
) -> Result<Invocation, Stop> {
    let mut words: Vec<OsString> = arguments.into_iter().collect();
    let before = pflag::split_global(&mut words)?;
    let (entry, rest) = table::find(words)?;
    let mut matches = pflag::parse(entry, rest)?;
    let command = (entry.read)(&mut matches).map_err(|error| pflag::explain(error, entry))?;
    let global = read_global(&matches)
        .map_err(|error| pflag::explain(error, entry))?
        .or(before)
        .or(Global::from_environment(environment)?);
    Ok(Invocation { global, command })
}

fn read_global(matches: &ArgMatches) -> Result<Global, clap::Error> {
    Global::from_arg_matches(matches)
}

impl Global {
    /// What is set here, else what is set in `other`.
    fn or(self, other: Global) -> Global {
        Global {
            root: self.root.or(other.root),
            firewall: self.firewall.or(other.firewall),
            debug: self.debug || other.debug,
        }
    }

    /// An empty variable counts as not set.
    fn from_environment(environment: &dyn Fn(&OsStr) -> Option<OsString>) -> Result<Global, Stop> {
        let variable = |name: &str| environment(OsStr::new(name)).filter(|value| !value.is_empty());
        let firewall =
            match variable("MINIDOCK_FIREWALL") {
                None => None,
                Some(value) => Some(backend(&value.to_string_lossy()).map_err(|why| {
                    Stop::flag(format!("invalid environment variable MINIDOCK_FIREWALL: {why}"), None)
                })?),
            };
        Ok(Global { root: variable("MINIDOCK_ROOT").map(PathBuf::from), firewall, debug: false })
    }
}

fn backend(text: &str) -> Result<Backend, String> {
    match text {
        "nftables" | "nft" => Ok(Backend::Nftables),
        "iptables" => Ok(Backend::Iptables),
        _ => Err(format!("unknown firewall {text:?}: use nftables or iptables")),
    }
}
