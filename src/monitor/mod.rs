//! The monitor: one small process a container, from its making to the undo of its journal.
//!
//! It is the parent of PID 1, carries output and input, writes the log, holds the host ports, runs the proxies, notes
//! how the program ended and undoes the journal. Its death kills PID 1; its [`cleaner`] then does the rest.

mod backoff;
pub mod cleaner;
pub mod control;
pub mod ending;
pub mod fork;
pub mod peers;
pub mod relay;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::Result;
use netsetup::Host;
use rustix::process::Rlimit;

use crate::error::Failure;
use crate::events::{self, Event};
use crate::explain::{self, Command};
use crate::health::probe::Checker;
use crate::journal::Journal;
use crate::name_register;
use crate::network;
use crate::recover::{self, Scope};
use crate::request::namespaces::Pid;
use crate::residue::{self, Residue};
use crate::start::{self, Container, Order, Origin, Run, kept};
use crate::state::Status;
use crate::streams;
use crate::wire;
use backoff::Backoff;
use control::Served;
use ending::Ending;
use fork::Connection;
use peers::Peers;
use relay::{Ended, Relay, Stdin};

/// Makes the container, serves it until it ends, and takes it away. Returns this process's exit code.
pub fn main(mut order: Order, connection: Connection) -> i32 {
    let Connection { client, stdin, keep_stdin, facts } = connection;
    order.early_facts.set(facts);
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

/// The events of a start: the client knows of it already, so it waits for none of this.
fn tell_start(order: &Order, state: &crate::state::State) {
    let roots = &order.engine.roots;
    let mut told = match order.origin {
        Origin::New => events::of_creation(state),
        Origin::Kept => vec![],
    };
    told.extend((order.origin == Origin::New).then(|| Event::container("create", state)));
    told.extend((!order.detach).then(|| Event::container("attach", state)));
    told.extend(events::of_start(roots, state));
    told.push(Event::container("start", state));
    events::note_all(roots, told);
}

/// From the running program to its end, and over its restarts.
fn serve(order: Order, container: Container, client: UnixStream, keep_stdin: Option<OwnedFd>) {
    let Container { journal, cleaner, state, run } = container;
    for warning in &run.warnings {
        send(&client, wire::NOTE, format!("WARNING: {warning}\n").as_bytes());
    }
    send(&client, wire::STARTED, &[]);
    tell_start(&order, &state);
    runtime::process::show_as(&format!("minidock: monitor {}", state.name));
    let stdin_once = order.request.interactive && !order.request.detach;
    let mut peers = Peers::owner((!order.detach).then_some(client));
    let Run { running, outputs, proxies, resolver, ports, log, mounts, control, warnings: _ } = run;
    peers.listener = control;
    let mut aside = Aside { mounts, backoff: Backoff::default(), host: None };
    let cleaner = Some(cleaner);
    let health = Checker::new(&state);
    let mut relay = Relay {
        pidfd: running.pidfd,
        outputs,
        terminal: running.terminal,
        log,
        peers,
        served: Some(Served {
            order,
            journal,
            state,
            ports,
            proxies,
            adrift: vec![],
            resolver,
            cleaner,
            health,
            session: None,
            restart_now: false,
            shutting_down: None,
            watch: None,
            looks: Default::default(),
            routers_due: None,
        }),
        to_terminal: vec![],
        running: true,
        ending: Ending::new(),
        stdin: keep_stdin.map(|pipe| Stdin { pipe, once: stdin_once }),
        on_detach: None,
    };
    join_session(&mut relay);
    loop {
        open_watch(&mut relay);
        let began = Instant::now();
        let limit = raise_limit(&relay);
        let (ended, oom_killed) = wait_for_end(&mut relay);
        let Some(served) = &mut relay.served else { return };
        let again = wants_restart(served, ended.code);
        if !again {
            relay.peers.listener = None;
        }
        let mut told = vec![];
        told.extend(oom_killed.then(|| Event::container("oom", &served.state)));
        told.push(Event::died(&served.state, ended.code));
        told.extend(events::of_end(&served.order.engine.roots, &served.state));
        events::note_all(&served.order.engine.roots, told);
        served.resolver = None; // its sockets hold the container's network namespace
        (served.health, served.watch) = (None, None);
        served.proxies.clear();
        served.adrift.clear();
        served.ports.clear(); // the host's ports are free before the exit is known
        match note_end(served, ended, oom_killed, again) {
            Ok(host) => aside.host = Some(host),
            Err(problem) => relay.peers.note(&format!("minidock: {}\n", crate::error::text(&problem))),
        }
        relay.peers.end(ended.code);
        if again {
            if let Some(limit) = limit {
                let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
            }
            if restart(&mut relay, &mut aside, began.elapsed()) {
                continue;
            }
        }
        let Some(Served { journal, cleaner, .. }) = relay.served.take() else { return };
        // The report is on its way, at once unless a client is slow. The rest needn't wait for a slow one: the lock goes
        // over to the cleaner, and this process stays only to hand over what the clients haven't taken yet.
        drop(journal);
        if let Some(cleaner) = cleaner {
            cleaner.finish(ended.code);
        }
        drop((aside, relay.stdin.take()));
        relay.peers.flush();
        return;
    }
}

/// The container ends with the command of its session, which may have ended just now.
fn join_session(relay: &mut Relay) {
    let Some(served) = &mut relay.served else { return };
    let header = if served.order.origin == Origin::New {
        served.order.session
    } else {
        served.journal.contents().ok().and_then(|contents| contents.header?.session)
    };
    let Some(session) = header else { return };
    served.session = session.open();
    if served.session.is_none() {
        relay.end_session();
    }
}

/// Only now that the program runs: nobody waits for it. Without nftables there is nothing to be noticed.
fn open_watch(relay: &mut Relay) {
    if let Some(served) = relay.served.as_mut().filter(|served| !served.state.attachments.is_empty()) {
        let legacy = served.order.engine.config.firewall == Some(netsetup::Backend::Iptables);
        served.watch = netsetup::Watch::open(legacy).ok();
        served.routers_due = Some(Instant::now());
    }
}

/// What the monitor holds beside what the relay carries.
struct Aside {
    mounts: Option<File>,
    backoff: Backoff,
    /// The sockets of [`note_end`].
    host: Option<Host>,
}

/// What a monitor has open besides: logs, clients, streams, health checks.
const OTHER_DESCRIPTORS: u64 = 256;

/// Each client of a proxy is two descriptors; the name server needs what [`netsetup::dns::DESCRIPTORS`] says. Raised while
/// the program runs only, so that it doesn't inherit it; gives the former limit.
fn raise_limit(relay: &Relay) -> Option<Rlimit> {
    let served = relay.served.as_ref()?;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let current = match (served.proxies.is_empty(), &served.resolver) {
        (false, _) => limit.maximum,
        (true, Some(_)) => {
            let needed = netsetup::dns::DESCRIPTORS + OTHER_DESCRIPTORS;
            limit.current.filter(|current| *current < needed)?;
            Some(limit.maximum.map_or(needed, |most| most.min(needed)))
        }
        (true, None) => return None,
    };
    let raised = Rlimit { current, maximum: limit.maximum };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    Some(limit)
}

fn wait_for_end(relay: &mut Relay) -> (Ended, bool) {
    let mut oom_killed = false;
    let ended = relay.run(|ended, served| {
        let Some(served) = served else { return };
        oom_killed = ended.killed && was_oom_killed(&served.journal);
        if served.order.request.namespaces.pid != Pid::Private {
            kill_rest(&served.order, &served.journal);
        }
    });
    (ended.unwrap_or(Ended { code: 255, killed: false }), oom_killed)
}

/// So long a machine is taken to go down: longer than the `TimeoutStopSec` of the unit that says so. One that runs still
/// has changed its mind.
const GOING_DOWN: Duration = Duration::from_secs(150);

fn is_stopped(served: &Served) -> bool {
    served.state.stopped_by_hand || is_going_down(served.shutting_down, Instant::now())
}

fn is_going_down(since: Option<Instant>, now: Instant) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) < GOING_DOWN)
}

fn wants_restart(served: &Served, code: i32) -> bool {
    let state = &served.state;
    served.restart_now || (!is_stopped(served) && served.order.request.restart.wants(code, state.restart_count))
}

/// The next run of the program, after docker's pause; false when the container has come to its end instead.
fn restart(relay: &mut Relay, aside: &mut Aside, ran: Duration) -> bool {
    (aside.mounts, aside.host) = (None, None); // the root must be free for its next mount
    let pause = aside.backoff.next(ran);
    let deadline = Instant::now() + pause;
    let Some(served) = &mut relay.served else { return false };
    let undone = recover::undo(&served.order.engine.roots, &served.journal, Scope::Run);
    let mut result = recover::first_error(undone);
    if result.is_ok() {
        result = relay.idle(deadline, |served| is_stopped(served) || served.restart_now);
    }
    let Some(served) = &mut relay.served else { return false };
    let again = result.and_then(|()| {
        if is_stopped(served) && !served.restart_now {
            served.state.status = Status::Exited;
            return Ok(None);
        }
        next_run(served).map(Some)
    });
    match again {
        Ok(Some((run, stdin))) => {
            relay.stdin = stdin.map(|pipe| Stdin { pipe, once: false });
            let Run { running, outputs, proxies, resolver, ports, log, mounts, control: _, warnings: _ } = run;
            aside.mounts = mounts;
            (served.proxies, served.ports, served.resolver) = (proxies, ports, resolver);
            served.health = Checker::new(&served.state);
            let mut told = events::of_start(&served.order.engine.roots, &served.state);
            told.push(Event::container("start", &served.state));
            events::note_all(&served.order.engine.roots, told);
            relay.pidfd = running.pidfd;
            (relay.outputs, relay.terminal, relay.log) = (outputs, running.terminal, log);
            relay.to_terminal.clear();
            true
        }
        Ok(None) => {
            served.state.monitor = None;
            // A state that can't be written says "restarting" still: the cleaner corrects it.
            let _ = served.state.write(&served.order.engine.roots);
            relay.peers.end(served.state.exit_code);
            false
        }
        Err(error) => {
            kept::not_started(&served.order, &served.journal, &mut served.state, error);
            relay.peers.end(served.state.exit_code);
            false
        }
    }
}

/// The run, and the writing end of its input.
fn next_run(served: &mut Served) -> Result<(Run, Option<OwnedFd>)> {
    let request = &served.order.request;
    let (stdin, writer) = match request.interactive && !request.terminal {
        true => streams::pipe().map(|(reader, writer)| (Some(reader), Some(writer)))?,
        false => (None, None),
    };
    served.state.status = Status::Restarting;
    served.shutting_down = None;
    match std::mem::take(&mut served.restart_now) {
        true => served.state.restart_count = 0,
        false => served.state.restart_count += 1,
    }
    let (state, run) = kept::run(&served.order, &served.journal, &served.state, stdin, &mut |_| ())?;
    served.state = state;
    Ok((run, writer))
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
fn note_end(served: &mut Served, ended: Ended, oom_killed: bool, again: bool) -> Result<Host> {
    let mut host = Host::open()?;
    let entries = served.journal.entries()?;
    let traffic: Vec<netsetup::Residue> = entries.iter().rev().filter_map(network::leads_traffic).cloned().collect();
    let results = if traffic.is_empty() { vec![] } else { netsetup::undo(&traffic, &mut host) };
    name_register::strike_out(&entries);
    let state = &mut served.state;
    match again {
        true => state.end_for_now(ended.code, oom_killed),
        false => state.end(ended.code, oom_killed, ""),
    }
    if again || !state.auto_remove {
        state.write(&served.order.engine.roots)?;
    }
    recover::first_error(results.into_iter().filter_map(Result::err).map(Into::into).collect())?;
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_that_came_to_nothing_is_forgotten() {
        let begin = Instant::now();
        assert!(!is_going_down(None, begin));
        assert!(is_going_down(Some(begin), begin + GOING_DOWN - Duration::from_millis(1)));
        assert!(!is_going_down(Some(begin), begin + GOING_DOWN));
    }
}
