//! The asking side of the control socket: any command's.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::io::Errno;
use serde_json::Value;

use super::{Answer, Request, prepare};
use crate::journal::Journal;
use crate::recover::short;
use crate::roots::Roots;
use crate::wire;

/// How long a monitor may take to answer; it needs milliseconds unless it was stopped by a signal.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks a running container's monitor something and gives its answer.
///
/// # Errors
/// The container isn't running, its monitor doesn't answer, or its refusal.
pub fn call(roots: &Roots, id: &str, kind: &str, body: &Value) -> Result<Value> {
    let socket = connect(roots, id)?;
    ask(&socket, kind, body)?;
    hear(&socket, id)
}

/// The answer to a question.
///
/// # Errors
/// As for [`call`].
pub fn hear(socket: &UnixStream, id: &str) -> Result<Value> {
    let mut received = Vec::new();
    loop {
        let frame = wire::take_first(&mut received).map_err(|what| anyhow!("the container's monitor sent {what}"))?;
        if let Some((wire::ANSWER, answer)) = frame {
            return read_answer(&answer);
        }
        let mut chunk = [0u8; 4096];
        match (&*socket).read(&mut chunk) {
            Ok(0) => return Err(ended(id)),
            Ok(count) => received.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unanswered(id, error)),
        }
    }
}

/// What an answer says.
///
/// # Errors
/// The monitor's refusal.
pub fn read_answer(content: &[u8]) -> Result<Value> {
    let answer: Answer = serde_json::from_slice(content).context("the container's monitor sent no valid answer")?;
    match answer.error {
        Some(error) => Err(anyhow!(error)),
        None => Ok(answer.ok.unwrap_or_default()),
    }
}

/// Sends the question.
///
/// # Errors
/// The question is too long, or the monitor has just ended.
pub fn ask(mut socket: &UnixStream, kind: &str, body: &Value) -> Result<()> {
    let content = serde_json::to_vec(&Request { kind: kind.to_string(), body: body.clone() })?;
    if content.len() > wire::MAX_FRAME {
        bail!("'{kind}' is too long to be handed to the container's monitor: {} bytes", content.len());
    }
    let mut frame = Vec::with_capacity(content.len() + 8);
    wire::push(&mut frame, wire::CALL, &content);
    std::io::Write::write_all(&mut socket, &frame)
        .map_err(|_| Ended("the container's monitor has just ended".to_string()).into())
}

/// Connects to a container's monitor. Reads and writes have a time limit.
///
/// # Errors
/// The container isn't running.
pub fn connect(roots: &Roots, id: &str) -> Result<UnixStream> {
    let folder = roots.container(id);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (socket, address, _folder) = match prepare(&folder) {
            Ok(prepared) => prepared,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(ended(id)),
            Err(error) => return Err(error).context("cannot make a socket to the container's monitor"),
        };
        let socket = UnixStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?; // also bounds connect(2) while the backlog is full
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            // Nobody listens: not yet, or not any more.
            Err(Errno::NOENT | Errno::CONNREFUSED) if !Journal::is_owned(&folder.join("journal")) => {
                return Err(ended(id));
            }
            Err(Errno::NOENT | Errno::CONNREFUSED) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(unanswered(id, error.into())),
        }
    }
}

/// As [`connect`], but without any waiting: `None` when nobody takes the call at the moment, though somebody should.
///
/// # Errors
/// The container isn't running.
pub fn try_connect(roots: &Roots, id: &str) -> Result<Option<UnixStream>> {
    let folder = roots.container(id);
    let Ok((socket, address, _folder)) = prepare(&folder) else { return Err(ended(id)) };
    rustix::io::ioctl_fionbio(&socket, true)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {
            let socket = UnixStream::from(socket);
            socket.set_nonblocking(false)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(Some(socket))
        }
        Err(_) if Journal::is_owned(&folder.join("journal")) => Ok(None),
        Err(_) => Err(ended(id)),
    }
}

/// The process that listens for calls, whatever the state file says: the monitor. It takes no answer of it, so that one
/// that hangs is found too.
pub fn listener(roots: &Roots, id: &str) -> Option<OwnedFd> {
    let peer = |socket: UnixStream| rustix::net::sockopt::socket_peercred(&socket).ok();
    let monitor = peer(try_connect(roots, id).ok()??)?.pid;
    let pidfd = rustix::process::pidfd_open(monitor, rustix::process::PidfdFlags::empty()).ok()?;
    // It listens still: so the number was not another's by the time of the open.
    let again = peer(try_connect(roots, id).ok()??)?.pid;
    (again == monitor).then_some(pidfd)
}

/// The container's run is over, perhaps since a moment ago: whoever can do its work without a monitor looks again.
#[derive(Debug)]
pub struct Ended(String);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Ended {}

fn ended(id: &str) -> anyhow::Error {
    Ended(format!("container {} is not running", short(id))).into()
}

/// Why a monitor can't be talked to.
pub fn unanswered(id: &str, error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => ended(id),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => anyhow!(
            "the monitor of container {} doesn't answer; was it stopped with SIGSTOP? See 'ps -C minidock'",
            short(id)
        ),
        _ => anyhow!(error).context(format!("cannot talk to the monitor of container {}", short(id))),
    }
}
