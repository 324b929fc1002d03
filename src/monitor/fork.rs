//! Forks the process that serves a program (a container's monitor, or the relay of `exec`) off its client.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};

use crate::client::{self, Client, Options};
use crate::streams;
use crate::sys::{self, Fork};

/// What the new process gets from the client that forks it.
pub struct Connection {
    /// To the client.
    pub client: UnixStream,
    /// The reading end for the program's standard input.
    pub stdin: Option<OwnedFd>,
    /// The writing end: for further clients, and so that a detached `-i` program doesn't see the end of its input.
    pub keep_stdin: Option<OwnedFd>,
    /// Where the client writes facts of the host that it reads meanwhile.
    pub facts: Option<OwnedFd>,
}

/// docker's three letters.
#[derive(Debug, Clone, Copy)]
pub struct Mode {
    /// `-d`
    pub detach: bool,
    /// `-i`: the program has a standard input.
    pub interactive: bool,
    /// The client passes its own standard input on.
    pub attach_stdin: bool,
    /// `-t`
    pub terminal: bool,
    /// The client reads facts of the host, on another processor, while its monitor does other things.
    pub reads_facts: bool,
}

/// Forks. `serve` runs in the new process, whose exit code it returns; the caller becomes the client.
pub fn fork(mode: Mode, serve: impl FnOnce(Connection) -> i32) -> Result<Client> {
    let Mode { detach, interactive, attach_stdin, terminal, reads_facts } = mode;
    let (ours, theirs) = UnixStream::pair().context("cannot make the socket to the container's monitor")?;
    let (stdin, stdin_pipe) = match interactive && !terminal {
        true => {
            let (reader, writer) = streams::pipe()?;
            (Some(reader), Some(writer))
        }
        false => (None, None),
    };
    let (facts, facts_pipe) = reads_facts.then(streams::pipe).transpose()?.unzip();
    // Blocked before the fork: a signal between here and the client's loop waits instead of killing the client.
    let blocked = client::forwarded_signals();
    blocked.thread_block().context("cannot block signals")?;
    match sys::fork().context("cannot fork the container's monitor")? {
        Fork::Child => {
            // What would end the monitor ends the container (see `ending`); the others have their default action.
            let mut others = blocked;
            super::ending::blocked().iter().for_each(|signal| others.remove(signal));
            let _ = others.thread_unblock();
            std::mem::forget((ours, facts_pipe)); // the client's; closed with all the others by `settle_in`
            let connection = Connection { client: theirs, stdin, keep_stdin: stdin_pipe, facts };
            settle_in(&connection);
            sys::exit_now(serve(connection))
        }
        Fork::Parent(_) => Ok(Client {
            monitor: ours,
            facts_pipe,
            received: vec![],
            attached: false,
            stdin_pipe: stdin_pipe.filter(|_| attach_stdin),
            terminal: terminal && !detach,
            interactive: terminal && attach_stdin,
            detach,
            options: Options::default(),
        }),
    }
}

/// A session of its own (the terminal's ^C is for the client, which passes it on), and nothing of what the caller has
/// open: a lock, a jobserver or a test runner's pipe isn't for a process that lives on, nor is a working directory.
fn settle_in(connection: &Connection) {
    let _ = rustix::process::setsid();
    let mut keep = vec![connection.client.as_fd()];
    let others = connection.stdin.iter().chain(&connection.keep_stdin).chain(&connection.facts);
    keep.extend(others.map(AsFd::as_fd));
    sys::close_all_but(&keep);
    let _ = rustix::process::chdir("/");
}
