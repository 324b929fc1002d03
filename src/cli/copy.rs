//! Flags of the commands that read and write a container's files: `cp`, `diff`, `export`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// Copy files between a container and the host.
#[derive(Debug, Clone, Default, Args)]
pub struct CpArgs {
    /// Keep owner and group of what is copied
    #[arg(short, long)]
    pub archive: bool,
    /// Follow a symbolic link in SRC_PATH
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Print nothing; the default without a terminal
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = super::pflag::boolean, action = clap::ArgAction::Set)]
    pub quiet: Option<bool>,
    /// CONTAINER:PATH, a path of the host, or - for a tar archive on stdin
    #[arg(value_name = "SRC_PATH")]
    pub source: OsString,
    /// CONTAINER:PATH, a path of the host, or - for a tar archive on stdout
    #[arg(value_name = "DEST_PATH")]
    pub target: OsString,
}

/// Show what a container has changed.
#[derive(Debug, Clone, Default, Args)]
pub struct DiffArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// Write a container's file system as a tar archive.
#[derive(Debug, Clone, Default, Args)]
pub struct ExportArgs {
    /// Into a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}
