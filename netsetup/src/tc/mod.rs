//! Shaping over rtnetlink: a container's class in the uplink's HTB tree, and queueing disciplines on its own links.
//!
//! The tree on the uplink is shared: one that somebody else has made is used and stays; ours comes with its first class
//! and goes with its last one. What is on a container's own links goes with them.

mod encode;
mod uplink;

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::netlink::{Batch, Failure, Netlink};
use crate::netns::NewNetns;
use crate::shell::quoted;
use crate::undo::{Residue, Undone};
use crate::{Command, Error, Result, query};
use encode::{CREATE, EXCL, Message, ROOT};
pub use uplink::{Tree, Uplink};

/// The handle of a tree of ours: "md".
pub const OWN_MAJOR: u16 = 0x6d64;

/// A rate and how it may be exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bits in a second.
    pub bits: u64,
    /// What it may have where others leave room, in bits in a second.
    pub ceil: u64,
    /// Bytes that may go at once.
    pub burst: u32,
}

/// What `tc … netem` does to packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netem {
    /// Microseconds that each packet is late.
    pub delay_us: u64,
    /// By how much more or less, in microseconds.
    pub jitter_us: u64,
    /// Packets lost, of a million.
    pub loss_ppm: u32,
}

/// Operations on queueing disciplines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Makes a class in the uplink's tree, and the tree where there's none.
    Class {
        /// The uplink.
        link: String,
        /// Major number × 65536 + minor number.
        class: u32,
        /// Its rate.
        rate: Rate,
        /// Held while the tree is made, filled or removed.
        lock: PathBuf,
    },
    /// Limits what comes to a container, where it leaves the host.
    Inbound {
        /// The host's end of the veth pair.
        link: String,
        /// The rate.
        rate: Rate,
    },
    /// Delays or loses what a container sends.
    Netem {
        /// The link in the container.
        link: String,
        /// How.
        netem: Netem,
    },
}

/// `6d64:1a2b`.
pub(crate) fn class_text(class: u32) -> String {
    format!("{:x}:{:x}", class >> 16, class & 0xffff)
}

impl Op {
    pub(crate) fn residue(&self) -> Option<Residue> {
        match self {
            Op::Class { link, class, rate, lock } => {
                Some(Residue::TcClass { link: link.clone(), class: *class, lock: lock.clone(), rate: Some(*rate) })
            }
            Op::Inbound { .. } | Op::Netem { .. } => None,
        }
    }

    pub(crate) fn explain(&self) -> Vec<Command> {
        match self {
            Op::Class { link, class, rate, .. } => {
                let (link, major) = (quoted(link), class >> 16);
                let Rate { bits, ceil, burst } = rate;
                let tree = format!(
                    "tc qdisc show dev {link} root | grep -q '^qdisc htb {major:x}:' || tc qdisc add dev {link} root handle {major:x}: htb"
                );
                let own = class >> 16 == u32::from(OWN_MAJOR);
                let why = "a tree of classes on the uplink; what has no class in it goes as before";
                let class = class_text(*class);
                let add = format!(
                    "tc class add dev {link} parent {major:x}: classid {class} htb rate {bits}bit ceil {ceil}bit burst {burst} cburst {burst}"
                );
                let mut commands = if own { vec![(tree, why.to_owned())] } else { vec![] };
                commands.push((add, "the container's class".to_owned()));
                commands
            }
            Op::Inbound { link, rate } => vec![(
                format!(
                    "tc qdisc add dev {} root tbf rate {}bit burst {} latency {INBOUND_LATENCY_MS}ms",
                    quoted(link),
                    rate.bits,
                    rate.burst
                ),
                "what comes to the container goes no faster over its cable".to_owned(),
            )],
            Op::Netem { link, netem } => {
                let mut words = format!("nsenter -t $pid -n tc qdisc add dev {} root netem", quoted(link));
                if netem.delay_us > 0 {
                    words += &format!(" delay {}us", netem.delay_us);
                    if netem.jitter_us > 0 {
                        words += &format!(" {}us", netem.jitter_us);
                    }
                }
                if netem.loss_ppm > 0 {
                    words += &format!(" loss {}%", f64::from(netem.loss_ppm) / 1e4);
                }
                vec![(words, "a bad line, for what the container sends".to_owned())]
            }
        }
    }

    pub(crate) fn apply(&self, host: &mut Host, netns: Option<&mut NewNetns>) -> Result<()> {
        match self {
            Op::Class { link, class, rate, lock } => make_class(link, *class, *rate, lock, host.route()?),
            Op::Inbound { link, rate } => {
                let netlink = host.route()?;
                let index = index_of(netlink, link)?;
                let mut batch = Batch::default();
                encode::qdisc(&mut batch, CREATE | EXCL, index, 0, "tbf", |out| {
                    encode::tbf(out, *rate, INBOUND_LATENCY_MS)
                });
                send(netlink, &batch, || format!("limit what comes to the container over {link}"), "sch_tbf")
            }
            Op::Netem { link, netem } => {
                let netns = netns.ok_or_else(|| {
                    Error::Refused("the container has no network namespace of its own to delay packets in".to_owned())
                })?;
                let Some(index) = netns.links.iter().find(|(name, _)| name == link).map(|(_, index)| *index) else {
                    return Err(Error::Refused(format!("the container has no link {link}")));
                };
                let mut batch = Batch::default();
                encode::qdisc(&mut batch, CREATE | EXCL, index, 0, "netem", |out| encode::netem(out, *netem));
                let what = || "delay or lose the container's packets (--net-delay, --net-loss)".to_owned();
                send(&mut netns.route, &batch, what, "sch_netem")
            }
        }
    }
}

/// How long a packet may wait at most for its turn.
const INBOUND_LATENCY_MS: u32 = 50;

fn index_of(netlink: &mut Netlink, link: &str) -> Result<u32> {
    match query::get(netlink, link)? {
        Some(found) => Ok(found.index),
        None => Err(Error::Refused(format!("the link {link} is gone"))),
    }
}

fn send(netlink: &mut Netlink, batch: &Batch, what: impl FnOnce() -> String, module: &str) -> Result<()> {
    netlink.send(batch).map_err(|failure| {
        let missing = failure.errno == libc::ENOENT || failure.errno == libc::EOPNOTSUPP;
        let mut error = failure.into_error(what());
        if let (true, Error::System { detail, .. }) = (missing, &mut error) {
            let option = module.to_uppercase().replace("SCH_", "CONFIG_NET_SCH_");
            *detail = Some(format!("this kernel has no {module} ({option}, or its module)"));
        }
        error
    })
}

/// One at a time: the tree must not go between its last class and the next.
fn locked(path: &Path) -> Result<File> {
    let what = || format!("lock {}", path.display());
    let open = || File::options().create(true).truncate(false).write(true).open(path);
    let file = match open() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(path);
            std::fs::create_dir_all(folder)
                .map_err(|error| Error::system(format!("create {}", folder.display()), error))?;
            open()
        }
        other => other,
    };
    let file = file.map_err(|error| Error::system(what(), error))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| Error::system(what(), error))?;
    Ok(file)
}

fn make_class(link: &str, class: u32, rate: Rate, lock: &Path, netlink: &mut Netlink) -> Result<()> {
    let _lock = locked(lock)?;
    let index = index_of(netlink, link)?;
    let tree = uplink::tree(netlink, index)?;
    let major = class >> 16;
    match tree {
        Tree::Htb { major: found, .. } if u32::from(found) == major => {}
        Tree::None if major == u32::from(OWN_MAJOR) => {
            let mut batch = Batch::default();
            encode::qdisc(&mut batch, CREATE | EXCL, index, major << 16, "htb", encode::htb_tree);
            send(netlink, &batch, || format!("make a tree of classes on {link}"), "sch_htb")?;
        }
        _ => {
            return Err(Error::Refused(format!("the queueing discipline of {link} has just been changed by somebody")));
        }
    }
    let mut batch = Batch::default();
    encode::class(&mut batch, CREATE | EXCL, index, class, major << 16, |out| encode::htb_class(out, rate));
    send(netlink, &batch, || format!("make the class {} on {link}", class_text(class)), "sch_htb")
}

/// Removes the class, and our own tree with its last one. In somebody else's tree only a class of the rate that we gave
/// it: the journal names it before it is made, when another may have taken the number.
pub(crate) fn undo(link: &str, class: u32, rate: Option<Rate>, lock: &Path, host: &mut Host) -> Result<Undone> {
    let _lock = locked(lock)?;
    let netlink = host.route()?;
    let Some(found) = query::get(netlink, link)? else { return Ok(Undone::NotThere) };
    let major = class >> 16;
    let Tree::Htb { major: there, .. } = uplink::tree(netlink, found.index)? else { return Ok(Undone::NotThere) };
    if u32::from(there) != major {
        return Ok(Undone::NotThere);
    }
    if let Some(rate) = rate.filter(|_| major != u32::from(OWN_MAJOR))
        && let Some(parms) = uplink::class_parms(netlink, found.index, class)?
        && !encode::is_htb_class(&parms, rate)
    {
        return Ok(Undone::NotOurs(format!("the class {} on {link} has another rate", class_text(class))));
    }
    let mut batch = Batch::default();
    encode::remove(&mut batch, Message::Class, found.index, class, 0);
    let removed = gone(netlink.send(&batch), || format!("remove the class {} from {link}", class_text(class)))?;
    if major == u32::from(OWN_MAJOR)
        && let Tree::Htb { classes, .. } = uplink::tree(netlink, found.index)?
        && classes.is_empty()
    {
        let mut batch = Batch::default();
        encode::remove(&mut batch, Message::Qdisc, found.index, major << 16, ROOT);
        gone(netlink.send(&batch), || format!("remove the tree of classes from {link}"))?;
    }
    Ok(removed)
}

fn gone(sent: std::result::Result<(), Failure>, what: impl FnOnce() -> String) -> Result<Undone> {
    match sent {
        Ok(()) => Ok(Undone::Removed),
        Err(failure) if matches!(failure.errno, libc::ENOENT | libc::EINVAL | libc::ENODEV) => Ok(Undone::NotThere),
        Err(failure) => Err(failure.into_error(what())),
    }
}
