//! `attach`: the user's terminal or streams on a container that runs already.

use std::io;

use anyhow::{Result, bail};

use crate::cli::AttachArgs;
use crate::client::{self, Ended, Options, attached};
use crate::containers;
use crate::request::Invalid;
use crate::request::streams::detach_keys;
use crate::roots::Roots;
use crate::state::Status;
use crate::view;

/// Attaches; the exit code is the program's.
pub fn attach(roots: &Roots, args: &AttachArgs) -> Result<u8> {
    let detach_keys = detach_keys(args.detach_keys.as_deref()).map_err(|invalid| Invalid { code: 1, ..invalid })?;
    let state = containers::find(roots, &args.container)?;
    match state.status {
        Status::Restarting => bail!("You cannot attach to a restarting container, wait until it is running"),
        _ if !state.is_alive() => bail!("You cannot attach to a stopped container, start it first"),
        Status::Paused => bail!("You cannot attach to a paused container, unpause it first"),
        _ => {}
    }
    let request = view::request(&state)?;
    if !args.no_stdin && request.terminal && !rustix::termios::isatty(io::stdin()) {
        bail!("the input device is not a TTY; add --no-stdin");
    }
    let stdin = !args.no_stdin && request.interactive;
    // docker: with a terminal, signals are typed.
    let options = Options { sig_proxy: args.sig_proxy && !request.terminal, detach_keys, ..Options::default() };
    exit_code(client::run(attached::join(roots, &state.id, stdin, options)?, &mut || Ok(()))?)
}

/// The exit code of a client that was attached.
pub fn exit_code(ended: Ended) -> Result<u8> {
    match ended {
        Ended::Detached => bail!(client::DETACHED),
        Ended::Exit(code) => Ok(code as u8),
        Ended::Failed { message, .. } => bail!(message),
        Ended::Signal(number) => Ok(128 + number as u8),
        Ended::BrokenPipe => Ok(128 + libc::SIGPIPE as u8),
    }
}
