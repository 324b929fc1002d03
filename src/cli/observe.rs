//! Flags of the commands that watch containers: events, stats, top.

use std::ffi::OsString;

use clap::Args;

use super::pflag::key_value;

/// Print what happens to containers, images, networks and volumes.
#[derive(Debug, Clone, Default, Args)]
pub struct EventsArgs {
    /// Only events that fit: type= event= container= image= label= network= volume= scope=
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub filter: Vec<String>,
    /// `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Begin with what happened since this time: 2013-01-02T13:23:37Z, seconds since 1970, or 42m for 42 minutes ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// End at this time; forms as for --since
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// Print what containers use: CPU, memory, network, disks, processes.
#[derive(Debug, Clone, Default, Args)]
pub struct StatsArgs {
    /// Show stopped containers too
    #[arg(short, long)]
    pub all: bool,
    /// `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Print once and leave
    #[arg(long)]
    pub no_stream: bool,
    /// Show ids in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Names or ids; none: all that run
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// Print the processes of a container.
#[derive(Debug, Clone, Default, Args)]
pub struct TopArgs {
    /// The container's name or id, and options of ps(1): -ef, aux, -o pid,user,args
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CONTAINER [ps OPTIONS]")]
    words: Vec<OsString>,
}

impl TopArgs {
    /// The container's name or id as typed.
    pub fn container(&self) -> String {
        self.words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What would be given to ps(1).
    pub fn options(&self) -> Vec<String> {
        self.words.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
    }
}
