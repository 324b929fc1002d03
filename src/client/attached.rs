//! How a client joins a program that runs already, through its monitor's control socket.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, anyhow, bail};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

use super::{Client, Options, forwarded_signals};
use crate::monitor::control::{ATTACH, call};
use crate::roots::Roots;
use crate::wire;

/// Joins. `stdin`: what the user types or pipes goes to the program, if it takes any.
///
/// # Errors
/// The container isn't running; its monitor's refusal.
pub fn join(roots: &Roots, id: &str, stdin: bool, options: Options) -> Result<Client> {
    // A signal between here and the client's loop waits there.
    forwarded_signals().thread_block().context("cannot block signals")?;
    let monitor = call::connect(roots, id)?;
    call::ask(&monitor, ATTACH, &json!({"stdin": stdin}))?;
    let mut received = Vec::new();
    let mut pipe = None;
    let answer = loop {
        receive(&monitor, &mut received, &mut pipe).map_err(|error| call::unanswered(id, error))?;
        if let Some(answer) = wire::take_first(&mut received).map_err(|what| anyhow!("the monitor sent {what}"))? {
            break answer;
        }
    };
    if answer.0 != wire::ANSWER {
        bail!("the container's monitor sent no answer");
    }
    let answer = call::read_answer(&answer.1)?;
    let terminal = answer.get("terminal").and_then(serde_json::Value::as_bool) == Some(true);
    Ok(Client {
        monitor,
        facts_pipe: None,
        received,
        attached: true,
        stdin_pipe: pipe,
        terminal,
        interactive: terminal && stdin,
        detach: false,
        options,
    })
}

/// Some more bytes, and the descriptor that comes with them.
fn receive(monitor: &UnixStream, received: &mut Vec<u8>, pipe: &mut Option<OwnedFd>) -> std::io::Result<()> {
    let mut chunk = [0u8; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(monitor, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            *pipe = fds.last();
        }
    }
    if message.bytes == 0 {
        return Err(std::io::ErrorKind::BrokenPipe.into());
    }
    received.extend_from_slice(&chunk[..message.bytes]);
    Ok(())
}
