//! Flags of the commands about the engine itself: info, doctor, and for the shell: completion, man.

use std::path::PathBuf;

use clap::Args;

/// Print what the engine is and what is in force.
#[derive(Debug, Clone, Default, Args)]
pub struct InfoArgs {
    /// `json`, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Print what this host has and lacks.
#[derive(Debug, Clone, Default, Args)]
pub struct DoctorArgs {
    /// `json`, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Print a script that completes minidock's commands in a shell.
#[derive(Debug, Clone, Default, Args)]
pub struct CompletionArgs {
    /// bash, zsh or fish
    #[arg(value_name = "SHELL")]
    pub shell: String,
}

/// Write the man pages.
#[derive(Debug, Clone, Default, Args)]
pub struct ManArgs {
    /// Where to: an existing folder
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}
