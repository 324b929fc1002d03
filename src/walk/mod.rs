//! `walk`: a real probe on its way, hop by hop, as the kernel itself traces it; and where it ends, why, and what to do.
//!
//! Target → namespaces to watch → tracers → probe → events → hops → outcome. What the tracers make goes with this process
//! (see `netsetup::trace`), so that nothing is journaled.

mod end;
mod path;
mod probe;
mod target;
mod text;
mod why;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use netsetup::survey::Namespace;
use netsetup::trace::{Event, Tracer, Visitor};
use netsetup::{Host, within};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Serialize;

use crate::commands::Engine;
use crate::containers;
use crate::graph::{Owner, Picture, harmless};
use crate::roots::Roots;

pub use probe::Answer;
pub use target::{From, Target};

/// More namespaces than this aren't all watched, only those that the packet may come by.
const WATCH_ALL: usize = 40;

/// One station of the way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// The namespace: `host`, or its name.
    pub place: String,
    /// Where in it: a device, a hook, a rule's chain.
    pub at: String,
    /// What happens.
    pub what: String,
    /// The rule that did it.
    pub rule: Option<Rule>,
    /// How it changed the packet.
    pub rewrite: Option<String>,
    /// Why the rule is there.
    pub why: Option<String>,
}

/// A rule of the firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// `ip`, `inet`, …
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// The number that `nft -a` shows; 0 for a chain's policy.
    pub handle: u64,
    /// Its words.
    pub text: String,
    /// What became of the packet.
    pub verdict: String,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Whether the probe reached a program.
    pub reached: bool,
    /// What the client saw: `connected`, `refused`, …
    pub answer: String,
    /// One sentence.
    pub text: String,
    /// The rule that killed it, if one did.
    pub killed_by: Option<Rule>,
    /// What to do.
    pub remedy: Option<String>,
}

/// The whole way.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Format version.
    pub version: u32,
    /// `tcp` or `udp`
    pub protocol: String,
    /// Who asks: `host`, `outside`, a container's name.
    pub from: String,
    /// Its address and port.
    pub source: SocketAddr,
    /// Who is asked.
    pub target: SocketAddr,
    /// How the question came to be asked, where that isn't plain.
    pub note: Option<String>,
    /// The way there.
    pub hops: Vec<Hop>,
    /// The way back, where it matters.
    pub back: Vec<Hop>,
    /// What the host's connection tracking remembers: the flow, and what an answer looks like.
    pub conntrack: Vec<(String, String)>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Report {
    /// For a terminal.
    pub fn text(&self) -> String {
        harmless(&text::render(self))
    }
}

/// While somebody holds this file's lock, a walk is under way. The kernel drops it with the process.
fn lock_path(roots: &Roots) -> PathBuf {
    roots.run.join("walk.lock")
}

/// Whether a walk is under way: the monitors' watch over the firewall, which a walk's own tables wake, must not mend what
/// it is about to find.
pub fn is_under_way(roots: &Roots) -> bool {
    File::open(lock_path(roots))
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK))
}

fn begin(roots: &Roots) -> Result<File> {
    let path = lock_path(roots);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Sends the probe and tells its way.
///
/// `names`: the rules of the containers' own name servers, too, which let everything else pass.
pub fn walk(engine: &Engine, from: &From, target: &str, names: bool) -> Result<Report> {
    let target = Target::parse(&engine.roots, from, target)?;
    let _under_way = begin(&engine.roots)?;
    let mut host = Host::open()?;
    let visitor = match from {
        From::Outside => {
            let uplink = target::uplink(&mut host, target.address.ip())?;
            Some(Visitor::make(&mut host, uplink.as_deref(), target.address.is_ipv6())?)
        }
        _ => None,
    };
    let picture = Picture::take_with(engine, visitor.as_ref().and_then(Visitor::file).into_iter().collect())?;
    let start = start(&picture, engine, from, visitor.as_ref())?;
    let Some(place) = picture.namespace(start) else { bail!("the namespace of {from} has just gone") };
    let probe = place.run(|| Ok(probe::Probe::make(target.protocol, target.address)))??;
    let mut tracers = watch(&picture, start, &target, probe.port)?;
    let answer = probe.send(Duration::from_millis(1400))?;
    let events: BTreeMap<u64, Vec<Event>> = tracers.iter_mut().map(|(inode, tracer)| (*inode, tracer.read())).collect();
    // Neighbours and forwarding tables as they are after the probe.
    let picture = Picture::take_with(engine, visitor.as_ref().and_then(Visitor::file).into_iter().collect())?;
    drop(tracers);
    let way = path::Way {
        engine,
        picture: &picture,
        events: &events,
        visitor: visitor.as_ref(),
        target: &target,
        start,
        port: probe.port,
    };
    let source = way.source(start).unwrap_or_else(|| probe.local_address());
    let mut there = way.follow(start, path::Direction::There);
    let mut back = match there.end {
        path::End::Delivered { place } if answer.is_silence() => Some(way.follow(place, path::Direction::Back)),
        _ => None,
    };
    let outcome = end::outcome(&way, &there, back.as_ref(), &answer);
    for followed in [Some(&mut there), back.as_mut()].into_iter().flatten().filter(|_| !names) {
        followed.hops.retain(|hop| !is_passing_by_names(hop));
    }
    let conntrack = netsetup::trace::flows(target.protocol, probe.port);
    let report = Report {
        version: 1,
        protocol: target.protocol.to_string(),
        from: from.to_string(),
        source,
        target: target.address,
        note: join(target.note.clone(), note(from, visitor.as_ref())),
        hops: there.hops,
        back: back.map(|back| back.hops).unwrap_or_default(),
        conntrack,
        outcome,
    };
    Ok(report)
}

/// A station at the name server's rules in a container, which look at every packet and mean those for the name server.
fn is_passing_by_names(hop: &Hop) -> bool {
    let rule = hop.rule.as_ref().filter(|rule| rule.table == netsetup::dns::TABLE && rule.verdict == "accept");
    rule.is_some() && hop.rewrite.is_none()
}

fn join(first: Option<String>, second: Option<String>) -> Option<String> {
    match (first, second) {
        (Some(first), Some(second)) => Some(format!("{first}\n{second}")),
        (first, second) => first.or(second),
    }
}

fn note(from: &From, visitor: Option<&Visitor>) -> Option<String> {
    let (From::Outside, Some(visitor)) = (from, visitor) else { return None };
    Some(match (&visitor.enters_by, &visitor.why_not) {
        (Some(card), _) => format!(
            "a client in a throw-away namespace, address {}; its packets are led into {card} as if they had come in there",
            visitor.address
        ),
        (None, why) => format!(
            "a client in a throw-away namespace, address {}, on a card {} of its own ({}): rules that name the uplink's \
             card don't judge it",
            visitor.address,
            visitor.cable,
            why.as_deref().unwrap_or("the uplink can't be used")
        ),
    })
}

/// The namespace where the probe begins.
fn start(picture: &Picture, engine: &Engine, from: &From, visitor: Option<&Visitor>) -> Result<u64> {
    match (from, visitor) {
        (From::Outside, Some(visitor)) => Ok(visitor.inode),
        (From::Container(name), _) => {
            let state = containers::find_running(&engine.roots, name)?;
            let Some(process) = state.process else { bail!("container {name} is not running") };
            let file = File::open(format!("/proc/{}/ns/net", process.pid))?;
            Ok(std::os::unix::fs::MetadataExt::ino(&file.metadata()?))
        }
        _ => Ok(picture.host().map_or(0, |host| host.inode)),
    }
}

/// Tracers in every namespace that the packet may come by.
fn watch(picture: &Picture, start: u64, target: &Target, port: u16) -> Result<Vec<(u64, Tracer)>> {
    let all = picture.namespaces.len() <= WATCH_ALL;
    let mut tracers = Vec::new();
    for namespace in &picture.namespaces {
        let wanted = all || namespace.is_host || namespace.inode == start || concerns(picture, namespace, target);
        if !wanted {
            continue;
        }
        let tracer = match namespace.fd() {
            Some(fd) if !namespace.is_host => within(fd.as_fd(), || Tracer::begin(target.protocol, port)),
            _ => Tracer::begin(target.protocol, port),
        };
        match tracer {
            Ok(tracer) => tracers.push((namespace.inode, tracer)),
            // Another namespace may be dying; the host must be watched.
            Err(error) if namespace.is_host => return Err(error.into()),
            Err(_) => {}
        }
    }
    Ok(tracers)
}

/// Whether a packet to the target may come by there: routers, the target's own, and whoever has published the port.
fn concerns(picture: &Picture, namespace: &Namespace, target: &Target) -> bool {
    let has =
        |address: IpAddr| namespace.links.iter().any(|link| link.addresses.iter().any(|(own, _)| *own == address));
    match picture.owner(namespace) {
        Owner::Container(state) => {
            has(target.address.ip())
                || state
                    .attachments
                    .iter()
                    .flat_map(|attachment| &attachment.ports)
                    .any(|port| port.host_port == target.address.port())
        }
        Owner::Router(..) => true,
        Owner::Host(_) => true,
        Owner::Hand => has(target.address.ip()),
    }
}
