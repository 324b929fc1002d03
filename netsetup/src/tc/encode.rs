//! rtnetlink messages about queueing disciplines, as bytes: include/uapi/linux/{rtnetlink,pkt_sched}.h.

use super::{Netem, Rate};
use crate::firewall::encode::{bytes, nested};
use crate::netlink::{Batch, u32_at};

pub(super) const CREATE: u16 = libc::NLM_F_CREATE as u16;
pub(super) const EXCL: u16 = libc::NLM_F_EXCL as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
/// TC_H_ROOT
pub(super) const ROOT: u32 = u32::MAX;
/// TCA_KIND
pub(super) const KIND: u16 = 1;
pub(super) const OPTIONS: u16 = 2;
/// TC_LINKLAYER_ETHERNET: then the kernel computes what an old tc sent as a table.
const ETHERNET: u8 = 1;

/// What a message is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Message {
    Qdisc,
    Class,
}

impl Message {
    /// RTM_NEW…; the next numbers are RTM_DEL… and RTM_GET….
    fn number(self) -> u16 {
        match self {
            Message::Qdisc => 36,
            Message::Class => 40,
        }
    }
}

/// struct tcmsg
fn head(out: &mut Vec<u8>, index: u32, handle: u32, parent: u32) {
    for word in [0, index, handle, parent, 0] {
        out.extend_from_slice(&u32::to_ne_bytes(word));
    }
}

fn text(out: &mut Vec<u8>, kind: u16, value: &str) {
    bytes(out, kind, &[value.as_bytes(), &[0]].concat());
}

pub(super) fn qdisc(
    batch: &mut Batch,
    flags: u16,
    index: u32,
    handle: u32,
    kind: &str,
    options: impl FnOnce(&mut Vec<u8>),
) {
    batch.push(Message::Qdisc.number(), flags | ACK, |out| {
        head(out, index, handle, ROOT);
        text(out, KIND, kind);
        options(out);
    });
}

pub(super) fn class(
    batch: &mut Batch,
    flags: u16,
    index: u32,
    class: u32,
    parent: u32,
    options: impl FnOnce(&mut Vec<u8>),
) {
    batch.push(Message::Class.number(), flags | ACK, |out| {
        head(out, index, class, parent);
        text(out, KIND, "htb");
        options(out);
    });
}

pub(super) fn remove(batch: &mut Batch, what: Message, index: u32, handle: u32, parent: u32) {
    batch.push(what.number() + 1, ACK, |out| head(out, index, handle, parent));
}

/// All of a link. (For disciplines the kernel gives those of every link.)
pub(super) fn list(batch: &mut Batch, what: Message, index: u32) {
    batch.push(what.number() + 2, libc::NLM_F_DUMP as u16, |out| head(out, index, 0, 0));
}

/// The root: packets without a class go straight on (default 0).
pub(super) fn htb_tree(out: &mut Vec<u8>) {
    const INIT: u16 = 2;
    // struct tc_htb_glob: version, rate2quantum, defcls, debug, direct_pkts
    let words = [3_u32, 10, 0, 0, 0];
    nested(out, OPTIONS, |out| bytes(out, INIT, &words.map(u32::to_ne_bytes).concat()));
}

/// struct tc_ratespec; the rate in bytes, and the largest number where it needs 64 bits.
fn rate_spec(bytes_per_second: u64) -> Vec<u8> {
    let mut out = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    out.extend_from_slice(&u32::try_from(bytes_per_second).unwrap_or(u32::MAX).to_ne_bytes());
    out
}

/// Time that a burst takes at a rate, in the kernel's ticks of 64 ns (PSCHED_SHIFT).
fn ticks(burst: u32, bytes_per_second: u64) -> u32 {
    let nanoseconds = u128::from(burst) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    u32::try_from(nanoseconds / 64).unwrap_or(u32::MAX).max(1)
}

pub(super) fn htb_class(out: &mut Vec<u8>, rate: Rate) {
    const PARMS: u16 = 1;
    const RATE64: u16 = 6;
    const CEIL64: u16 = 7;
    let (own, ceil) = ((rate.bits / 8).max(1), (rate.ceil / 8).max(1));
    // What it sends in one turn of those that share what is left: between one frame and what keeps a turn short.
    let quantum = (own / 10).clamp(1514, 60_000) as u32;
    let mut parms = [rate_spec(own), rate_spec(ceil)].concat();
    for word in [ticks(rate.burst, own), ticks(rate.burst, ceil), quantum, 0, 0] {
        parms.extend_from_slice(&word.to_ne_bytes());
    }
    nested(out, OPTIONS, |out| {
        bytes(out, PARMS, &parms);
        for (kind, value) in [(RATE64, own), (CEIL64, ceil)] {
            if value > u64::from(u32::MAX) {
                bytes(out, kind, &value.to_ne_bytes());
            }
        }
    });
}

/// Whether a class that the kernel tells of has this rate and burst: its struct tc_htb_opt, whose numbers of bytes a second
/// end at 32 bits.
pub(super) fn is_htb_class(parms: &[u8], rate: Rate) -> bool {
    let bytes_a_second = |bits: u64| u32::try_from((bits / 8).max(1)).unwrap_or(u32::MAX);
    let word = |at: usize| parms.get(at..at + 4).map(|_| u32_at(parms, at));
    word(8) == Some(bytes_a_second(rate.bits)) && word(20) == Some(bytes_a_second(rate.ceil))
}

pub(super) fn tbf(out: &mut Vec<u8>, rate: Rate, latency_ms: u32) {
    const PARMS: u16 = 1;
    const RATE64: u16 = 4;
    const BURST: u16 = 6;
    let own = (rate.bits / 8).max(1);
    let waiting = u128::from(own) * u128::from(latency_ms) / 1000 + u128::from(rate.burst);
    // struct tc_tbf_qopt: rate, peakrate (none), limit, buffer, mtu
    let mut parms = [rate_spec(own), vec![0; 12]].concat();
    for word in [u32::try_from(waiting).unwrap_or(u32::MAX), ticks(rate.burst, own), 0] {
        parms.extend_from_slice(&word.to_ne_bytes());
    }
    nested(out, OPTIONS, |out| {
        bytes(out, PARMS, &parms);
        bytes(out, BURST, &rate.burst.to_ne_bytes());
        if own > u64::from(u32::MAX) {
            bytes(out, RATE64, &own.to_ne_bytes());
        }
    });
}

pub(super) fn netem(out: &mut Vec<u8>, netem: Netem) {
    const LATENCY64: u16 = 10;
    const JITTER64: u16 = 11;
    const LIMIT: u32 = 1000;
    let loss = u64::from(netem.loss_ppm.min(1_000_000)) * u64::from(u32::MAX) / 1_000_000;
    // struct tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter; the times follow as attributes, in nanoseconds.
    let mut options = [0, LIMIT, loss as u32, 0, 0, 0].map(u32::to_ne_bytes).concat();
    bytes(&mut options, LATENCY64, &((netem.delay_us * 1000) as i64).to_ne_bytes());
    bytes(&mut options, JITTER64, &((netem.jitter_us * 1000) as i64).to_ne_bytes());
    bytes(out, OPTIONS, &options);
}
