//! The pipes between a program and the relay that serves it.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use rustix::pipe::{PipeFlags, pipe_with};

/// The standard streams of a program without a terminal.
pub struct Streams {
    /// For the program: standard input, output, error.
    pub inside: [OwnedFd; 3],
    /// Reading ends of its output and error.
    pub outputs: [OwnedFd; 2],
}

/// A pipe, closed on exec: reading end, writing end.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe for the container")
}

impl Streams {
    /// Pipes for output and error; input comes from `stdin`, or there is none.
    pub fn new(stdin: Option<OwnedFd>) -> Result<Streams> {
        let ((out, out_inside), (err, err_inside)) = (pipe()?, pipe()?);
        let stdin = match stdin {
            Some(stdin) => stdin,
            None => File::open("/dev/null").context("cannot open /dev/null")?.into(),
        };
        Ok(Streams { inside: [stdin, out_inside, err_inside], outputs: [out, err] })
    }
}

/// Lets go of the caller's standard streams: whoever reads them must not wait for this process.
pub fn leave_stdio() -> Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
