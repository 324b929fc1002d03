//! `minidock session -- CMD`: the containers that are made while CMD runs, by it or its children, end and are removed
//! when it ends.
//!
//! CMD's own pid and start time are the session: each container's journal has them, its monitor holds a pidfd of CMD and
//! kills the program when CMD has ended, and whoever settles a journal of a dead session removes the container. So it
//! works however CMD, this command and the monitors end; the keeper, a process that sleeps, only does it without delay.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::cli::SessionArgs;
use crate::client;
use crate::containers;
use crate::error;
use crate::journal;
use crate::process::{self, Process};
use crate::recover;
use crate::roots::Roots;
use crate::streams;
use crate::sys::{self, Fork};

/// Names the session to the commands under it: `PID:START_TICKS`.
const VARIABLE: &str = "MINIDOCK_SESSION";
/// How long the session's containers may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The session that this command runs in.
///
/// # Errors
/// It has ended: a container that is made now would be removed at once.
pub fn current() -> Result<Option<Process>> {
    let Some(text) = std::env::var_os(VARIABLE).filter(|text| !text.is_empty()) else { return Ok(None) };
    let text = text.to_string_lossy();
    let numbers = text.split_once(':').and_then(|(pid, ticks)| Some((pid.parse().ok()?, ticks.parse().ok()?)));
    let Some((pid, start_ticks)) = numbers else {
        bail!("{VARIABLE} is not what 'minidock session' sets: {text:?}; unset it")
    };
    let session = Process { pid, start_ticks };
    if !session.is_alive() {
        bail!("the session that this command belongs to has ended; unset {VARIABLE} to make a container without it");
    }
    Ok(Some(session))
}

/// Runs CMD; the exit code is its own.
pub fn session(roots: &Roots, args: &SessionArgs) -> Result<u8> {
    let words: Vec<CString> = args
        .words
        .iter()
        .map(|word| CString::new(word.as_bytes()).context("a word with a zero byte"))
        .collect::<Result<_>>()?;
    let Some(program) = words.first() else { bail!("which command? minidock session -- CMD") };
    let signals = client::forwarded_signals();
    signals.thread_block().context("cannot block signals")?;
    let child = match sys::fork().context("cannot fork")? {
        Fork::Parent(child) => child,
        Fork::Child => {
            let _ = signals.thread_unblock();
            sys::exit_now(become_command(program, &words).into())
        }
    };
    let command = Process::now(child.as_raw().unsigned_abs()).and_then(|command| Some((command, command.open()?)));
    let keeper = command.as_ref().and_then(|(command, pidfd)| Keeper::fork(roots, *command, pidfd).ok());
    if let Some((_, pidfd)) = &command {
        pass_signals(pidfd, &signals)?;
    }
    let status = nix::sys::wait::waitpid(child, None).context("cannot wait for the command")?;
    let swept = command.map_or(Ok(()), |(command, _)| sweep(roots, command));
    if let Some(keeper) = keeper {
        keeper.dismiss();
    }
    swept?;
    Ok(match status {
        nix::sys::wait::WaitStatus::Exited(_, code) => code as u8,
        nix::sys::wait::WaitStatus::Signaled(_, signal, _) => 128 + signal as u8,
        _ => 1,
    })
}

/// In the child: its own pid is the session.
fn become_command(program: &CString, words: &[CString]) -> u8 {
    let Some(own) = Process::now(std::process::id()) else { return 125 };
    let variables = std::env::vars_os()
        .filter(|(name, _)| name != VARIABLE)
        .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    let own = format!("{VARIABLE}={}:{}", own.pid, own.start_ticks).into_bytes();
    let environment: Vec<CString> = variables.chain([own]).filter_map(|line| CString::new(line).ok()).collect();
    let Err(errno) = nix::unistd::execvpe(program, words, &environment);
    eprintln!("minidock: cannot run {}: {}", program.to_string_lossy(), errno.desc());
    if errno == nix::Error::ENOENT { 127 } else { 126 }
}

/// Until the command ends. What is typed at the terminal reaches it without us.
fn pass_signals(pidfd: &OwnedFd, signals: &nix::sys::signal::SigSet) -> Result<()> {
    let source = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("cannot watch for signals")?;
    loop {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN), PollFd::new(&source, PollFlags::IN)];
        if poll(&mut fds, None).is_err() {
            continue; // a signal that stopped this process and let it go on
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        while let Ok(Some(info)) = source.read_signal() {
            if info.ssi_code == libc::SI_USER {
                process::signal(pidfd, info.ssi_signo as i32);
            }
        }
    }
}

/// Waits until no container of a dead session is left; those that don't run are removed here.
fn sweep(roots: &Roots, command: Process) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let problems = recover::recover_all(roots);
        let left = members(roots, command);
        if left == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            for problem in &problems {
                eprintln!("minidock: warning: {}", error::text(problem));
            }
            bail!("{left} containers of the session are still there; see 'minidock ps -a'");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn members(roots: &Roots, command: Process) -> usize {
    let session = |id: &String| journal::read(&roots.container(id).join("journal")).ok()?.header?.session;
    containers::ids(roots).iter().filter(|id| session(id) == Some(command)).count()
}

/// Sweeps when the command has ended and this process was killed.
struct Keeper {
    wake: OwnedFd,
}

impl Keeper {
    fn fork(roots: &Roots, command: Process, pidfd: &OwnedFd) -> Result<Keeper> {
        let (sleep, wake) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        match sys::fork().context("cannot fork the session's keeper")? {
            Fork::Parent(_) => Ok(Keeper { wake }),
            Fork::Child => {
                let _ = rustix::process::setsid();
                sys::close_all_but(&[sleep.as_fd(), pidfd.as_fd()]);
                std::mem::forget(wake);
                let _ = streams::leave_stdio();
                let _ = rustix::process::chdir("/");
                process::wait_end(pidfd, None);
                // The session's own process does it, unless it was killed.
                let dismissed = matches!(rustix::io::read(&sleep, &mut [0u8; 1]), Ok(1));
                sys::exit_now(i32::from(!dismissed && sweep(roots, command).is_err()))
            }
        }
    }

    fn dismiss(self) {
        let _ = rustix::io::write(&self.wake, b"q");
    }
}
