//! The control socket: how any command talks to a running container's monitor.
//!
//! A stream socket `control` in the container's folder, readable for root only; no container process can reach it.
//! Questions and answers are frames (`wire::CALL`, `wire::ANSWER`) with JSON in them. The relay's poll loop reads them
//! without ever waiting for a peer; [`handle`] answers. Callers use [`call`](call::call).

#[allow(dead_code, reason = "the commands that change running containers come next")]
pub mod call;
mod cards;
mod life;
mod networks;
mod ports;
mod update;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use netsetup::PortMapping;
use netsetup::dns::Resolver;
use netsetup::port::Kept;
use netsetup::proxy::Proxy;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cleaner::Cleaner;
use crate::events::{self, Event};
use crate::health::probe::Checker;
use crate::journal::Journal;
use crate::start::Order;
use crate::state::State;

/// The socket's name in the container's folder.
const NAME: &str = "control";
/// The question that makes a caller a client; the relay itself answers it.
pub const ATTACH: &str = "attach";
/// Callers that the kernel lets wait while the monitor is busy.
const BACKLOG: i32 = 32;

/// A question. A newer command may ask an older monitor: unknown kinds are refused, unknown fields ignored.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// What is wanted, e.g. `resize`.
    pub kind: String,
    /// The kind's own fields.
    #[serde(default)]
    pub body: Value,
}

/// The answer: one of the two.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Value>,
    /// Why not, in the user's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a monitor has of its container besides the bytes that the relay carries; handlers work on it.
pub struct Served {
    /// What was started.
    pub order: Order,
    /// Locked by this process and its cleaner.
    pub journal: Journal,
    /// As written to the state file.
    pub state: State,
    /// Ports that the kernel serves, kept from others.
    pub ports: Kept,
    /// Ports that this process serves.
    pub proxies: Vec<Proxy>,
    /// Reserved ports that lead to no card at the moment: their network was disconnected.
    pub adrift: Vec<PortMapping>,
    /// The container's name server.
    pub resolver: Option<Resolver>,
    /// Takes over when this process is killed.
    pub cleaner: Option<Cleaner>,
    /// Its health checks.
    pub health: Option<Checker>,
    /// The command whose end is the container's.
    pub session: Option<OwnedFd>,
    /// After its end the program is started again at once: `restart`.
    pub restart_now: bool,
    /// Since when the machine goes down: for a while no policy starts the program again.
    pub shutting_down: Option<std::time::Instant>,
    /// Over the firewall's rules; none without a network of its own.
    pub watch: Option<netsetup::Watch>,
    /// When what is in its networks' way is looked at.
    pub looks: crate::network::obstacles::Looks,
    /// When the routers of its networks are to be asked for.
    pub routers_due: Option<std::time::Instant>,
}

#[allow(dead_code, reason = "handlers of changes come next")]
/// The container's program, for handlers.
#[derive(Clone, Copy)]
pub struct Program<'a> {
    /// PID 1.
    pub pidfd: BorrowedFd<'a>,
    /// The terminal's master, with `-t`.
    pub terminal: Option<BorrowedFd<'a>>,
}

/// Answers one question. It runs in the poll loop: while it does, no output is carried, so it must be quick (a few
/// milliseconds) and wait for nobody.
///
/// # Errors
/// For the asker's eyes.
pub fn handle(served: &mut Served, program: Program<'_>, request: &Request) -> Result<Value> {
    match request.kind.as_str() {
        "ping" => Ok(Value::Null),
        "resize" => resize(served, program, &request.body),
        "stopping" => life::stopping(served, &request.body),
        "restart" => life::restart(served, &request.body),
        "pause" => life::pause(served),
        "unpause" => life::unpause(served),
        "update" => update::update(served, &request.body),
        "rename" => life::rename(served, &request.body),
        "network-connect" => networks::connect(served, &request.body),
        "network-disconnect" => networks::disconnect(served, &request.body),
        other => bail!(
            "the container's monitor (minidock {}) doesn't know '{other}': it is older than this command; \
             restart the container",
            env!("CARGO_PKG_VERSION")
        ),
    }
}

/// Lets a frozen program go on.
pub fn thaw(served: &mut Served) -> Result<Value> {
    life::unpause(served)
}

/// `{"rows": 24, "columns": 80}`
fn resize(served: &Served, program: Program<'_>, body: &Value) -> Result<Value> {
    let word = |name: &str| body.get(name).and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok());
    let (Some(rows), Some(columns)) = (word("rows"), word("columns")) else { bail!("no rows and columns were given") };
    let Some(terminal) = program.terminal else { bail!("the container has no terminal") };
    crate::terminal::set_size(terminal, rows, columns);
    resized(served, rows, columns);
    Ok(Value::Null)
}

/// Tells of a new size of the container's terminal.
pub fn resized(served: &Served, rows: u16, columns: u16) {
    let event = Event::container("resize", &served.state).with("height", rows).with("width", columns);
    events::note(&served.order.engine.roots, event);
}

/// The listening end.
pub struct Listener {
    socket: OwnedFd,
}

impl Listener {
    /// Listens in the container's folder, in place of a former monitor's socket.
    pub fn open(folder: &Path) -> Result<Listener> {
        let what = || format!("cannot listen on {}", folder.join(NAME).display());
        let (socket, address, _folder) = prepare(folder).with_context(what)?;
        // Before the bind: the file is born with this mode (unix_bind() in net/unix/af_unix.c).
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).with_context(what)?;
        match rustix::net::bind(&socket, &address) {
            Err(rustix::io::Errno::ADDRINUSE) => {
                std::fs::remove_file(folder.join(NAME)).with_context(what)?;
                rustix::net::bind(&socket, &address).with_context(what)?;
            }
            other => other.with_context(what)?,
        }
        rustix::net::listen(&socket, BACKLOG).with_context(what)?;
        rustix::io::ioctl_fionbio(&socket, true).with_context(what)?;
        Ok(Listener { socket })
    }

    /// For poll(2).
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// A caller that waits, if there's one. Only root is let in: a container with the socket's folder mounted and a user
    /// namespace of its own is not.
    pub fn accept(&self) -> Option<UnixStream> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let peer = rustix::net::accept_with(&self.socket, flags).ok()?;
        let credentials = rustix::net::sockopt::socket_peercred(&peer).ok()?;
        credentials.uid.is_root().then(|| peer.into())
    }
}

/// Removes a dead monitor's socket. One that stays would do no harm: nobody listens there.
pub fn remove(folder: &Path) {
    let _ = std::fs::remove_file(folder.join(NAME));
}

/// A socket, and the address of the control socket in a folder. Valid while the folder's descriptor lives: a path of a
/// socket may have 107 bytes only, which a root's own path can have alone.
fn prepare(folder: &Path) -> std::io::Result<(OwnedFd, SocketAddrUnix, OwnedFd)> {
    let folder = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{NAME}", std::os::fd::AsRawFd::as_raw_fd(&folder));
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    Ok((socket, SocketAddrUnix::new(path)?, folder))
}
