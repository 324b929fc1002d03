//! The monitor: one small process a container, from its making to the undo of its journal.
//!
//! It is the parent of PID 1, carries output and input, writes the log, holds the host ports, runs the proxies, notes
//! how the program ended and undoes the journal. Its death kills PID 1; its [`cleaner`] then does the rest.

pub mod cleaner;
pub mod control;
pub mod fork;
pub mod peers;
pub mod relay;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::Result;
use netsetup::Host;

use crate::error::Failure;
use crate::events::{self, Event};
use crate::explain::{self, Command};
use crate::journal::Journal;
use crate::network;
use crate::recover;
use crate::request::namespaces::Pid;
use crate::residue::{self, Residue};
use crate::start::{self, Container, Order, Origin, Run};
use crate::state::State;
use crate::streams;
use crate::wire;
use control::Served;
use fork::Connection;
use peers::Peers;
use relay::{Ended, Relay, Stdin};

/// Makes the container, serves it until it ends, and takes it away. Returns this process's exit code.
pub fn main(mut order: Order, connection: Connection) -> i32 {
    let Connection { client, stdin, keep_stdin } = connection;
    let explain = order.request.explain;
    let mut say = |commands: &[Command]| {
        if explain {
            send(&client, wire::NOTE, explain::script(commands).as_bytes());
        }
    };
    let made = streams::leave_stdio().and_then(|()| start::start(&mut order, stdin, &mut say));
    let container = match made {
        Ok(container) => container,
        Err(error) => {
            let failure = Failure::from(error);
            let mut content = i32::from(failure.code).to_le_bytes().to_vec();
            content.extend_from_slice(failure.message.as_bytes());
            send(&client, wire::FAILED, &content);
            return 1;
        }
    };
    serve(order, container, client, keep_stdin);
    0
}

/// From the running program to its end.
fn serve(order: Order, container: Container, client: UnixStream, keep_stdin: Option<OwnedFd>) {
    let Container { journal, cleaner, state, run } = container;
    let Run { running, outputs, proxies, ports, log, mounts, control } = run;
    send(&client, wire::STARTED, &[]);
    let told: &[&str] = if order.origin == Origin::New { &["create", "start"] } else { &["start"] };
    events::note_all(&order.engine.roots, told.iter().map(|action| Event::container(action, &state)));
    let stdin_once = order.request.interactive && !order.request.detach;
    let has_proxies = !proxies.is_empty();
    let mut peers = Peers::owner((!order.detach).then_some(client));
    peers.listener = Some(control);
    let mut relay = Relay {
        pidfd: running.pidfd,
        outputs,
        terminal: running.terminal,
        log,
        peers,
        served: Some(Served { order, journal, state, ports, proxies }),
        to_terminal: vec![],
        running: true,
        stdin: keep_stdin.map(|pipe| Stdin { pipe, once: stdin_once }),
    };
    if has_proxies {
        // Each client of a proxy is two descriptors. Raised only now, so that the container doesn't inherit it.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    }
    let mut oom_killed = false;
    let ended = relay.run(|ended, served| {
        let Some(served) = served else { return };
        oom_killed = ended.killed && was_oom_killed(&served.journal);
        if served.order.request.namespaces.pid != Pid::Private {
            kill_rest(&served.order, &served.journal);
        }
    });
    let ended = ended.unwrap_or(Ended { code: 255, killed: false });
    relay.peers.listener = None;
    let Some(Served { order, journal, mut state, ports, proxies }) = relay.served.take() else { return };
    events::note(&order.engine.roots, Event::died(&state, ended.code));
    drop((proxies, ports)); // the host's ports are free before the exit is known
    let noted = Host::open()
        .map_err(Into::into)
        .and_then(|mut host| note_end(&order, &journal, &mut state, ended, oom_killed, &mut host).map(|()| host));
    if let Err(problem) = &noted {
        relay.peers.note(&format!("minidock: {}\n", crate::error::text(problem)));
    }
    relay.peers.end(ended.code);
    // The report is on its way, at once unless a client is slow. The rest needn't wait for a slow one: the lock goes
    // over to the cleaner, and this process stays only to hand over what the clients haven't taken yet.
    drop(journal);
    cleaner.finish(ended.code);
    drop((noted, mounts, relay.stdin.take()));
    relay.peers.flush();
}

/// One frame, sent at once; the socket still blocks. A client that is gone is noticed later, by the relay.
pub fn send(client: &UnixStream, kind: u8, content: &[u8]) {
    let mut bytes = Vec::with_capacity(content.len() + 16);
    for piece in content.chunks(wire::MAX_FRAME).chain(content.is_empty().then_some(&[][..])) {
        wire::push(&mut bytes, kind, piece);
    }
    let mut rest = &bytes[..];
    while let Ok(written) = rustix::io::write(client, rest)
        && written < rest.len()
    {
        rest = &rest[written..];
    }
}

fn cgroups(journal: &Journal) -> Vec<Residue> {
    let entries = journal.contents().map(|contents| contents.entries).unwrap_or_default();
    entries.into_iter().filter(|entry| matches!(entry, Residue::Cgroup(_))).collect()
}

fn was_oom_killed(journal: &Journal) -> bool {
    cgroups(journal).iter().any(|entry| match entry {
        Residue::Cgroup(runtime::cgroup::Residue::Cgroup { path, .. }) => {
            // v2: memory.events; v1: memory.oom_control has the same line since 4.13.
            ["memory.events", "memory.oom_control"].iter().any(|file| {
                let text = std::fs::read_to_string(path.join(file)).unwrap_or_default();
                text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0"))
            })
        }
        _ => false,
    })
}

/// With a pid namespace that isn't its own, the kernel doesn't end the others along with PID 1: they're in its cgroups,
/// and may hold its pipes open.
fn kill_rest(order: &Order, journal: &Journal) {
    residue::undo(&order.engine.roots, None, &cgroups(journal));
}

/// Writes down how it ended, and stops its traffic, before the exit is reported.
///
/// The sockets stay open in `host`: closing one waits for an RCU grace period (10 ms) while the kernel still has deleted
/// elements to free (nft_rcv_nl_event() in net/netfilter/nf_tables_api.c), and the user need not wait for that.
fn note_end(
    order: &Order,
    journal: &Journal,
    state: &mut State,
    ended: Ended,
    oom_killed: bool,
    host: &mut Host,
) -> Result<()> {
    let entries = journal.contents()?.entries;
    let traffic: Vec<netsetup::Residue> = entries.iter().rev().filter_map(network::leads_traffic).cloned().collect();
    let results = if traffic.is_empty() { vec![] } else { netsetup::undo(&traffic, host) };
    if !state.auto_remove {
        state.end(ended.code, oom_killed, "");
        state.write(&order.engine.roots)?;
    }
    recover::first_error(results.into_iter().filter_map(Result::err).map(Into::into).collect())
}
