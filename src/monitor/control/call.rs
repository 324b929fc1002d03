//! The asking side of the control socket: any command's.

use std::io::Read;
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
    std::io::Write::write_all(&mut socket, &frame).context("the container's monitor has just ended")
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

fn ended(id: &str) -> anyhow::Error {
    anyhow!("container {} is not running", short(id))
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
