//! What `exec` was asked for.

use std::ffi::OsString;
use std::path::PathBuf;

use super::environment::{self, EnvChange};
use super::{Invalid, Surroundings, streams, working_dir};
use crate::cli::ExecArgs;
use crate::client::keys::DetachKeys;

/// A further program in a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecRequest {
    /// The container's name or id, as typed.
    pub container: String,
    /// The program and its arguments; at least one word.
    pub command: Vec<OsString>,
    /// `-d`
    pub detach: bool,
    /// `-i`
    pub interactive: bool,
    /// `-t`
    pub terminal: bool,
    /// `--privileged`
    pub privileged: bool,
    /// `--env-file` and `-e`, over the container's environment
    pub environment: Vec<EnvChange>,
    /// `--detach-keys`
    pub detach_keys: DetachKeys,
    /// `-u`, as typed
    pub user: Option<String>,
    /// `-w`, absolute
    pub working_dir: Option<PathBuf>,
}

impl ExecRequest {
    /// Checks the flags of `exec` and reads what they point to.
    ///
    /// # Errors
    /// The first flag that can't be meant.
    pub fn gather(args: &ExecArgs, around: &Surroundings) -> Result<ExecRequest, Invalid> {
        Ok(ExecRequest {
            container: args.container(),
            command: args.command().to_vec(),
            detach: args.detach,
            interactive: args.interactive,
            terminal: args.tty,
            privileged: args.privileged,
            detach_keys: streams::detach_keys(args.detach_keys.as_deref())?,
            environment: environment::gather(&args.env_file, &args.env, around)?,
            user: args.user.clone().filter(|user| !user.is_empty()),
            // docker lets the runtime find that it isn't absolute.
            working_dir: working_dir(args.workdir.as_deref()).map_err(|invalid| Invalid { code: 126, ..invalid })?,
        })
    }

    /// As [`super::RunRequest::check_terminal`].
    ///
    /// # Errors
    /// docker's sentence; the exit code is 1.
    pub fn check_terminal(&self, stdin_is_terminal: bool) -> Result<(), Invalid> {
        match self.interactive && self.terminal && !self.detach && !stdin_is_terminal {
            true => Err(Invalid::arguments("the input device is not a TTY; leave out -t")),
            false => Ok(()),
        }
    }
}
