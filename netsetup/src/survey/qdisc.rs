//! Queueing disciplines that somebody has set, and the rates of their classes.

use serde::Serialize;

use super::links::dump;
use crate::netlink::{Answer, Batch, Netlink, attribute, text_of, u32_at};
use crate::{Host, Result};

/// A queueing discipline.
#[derive(Debug, Clone, Serialize)]
pub struct Qdisc {
    /// The link's index.
    pub link: u32,
    /// `htb`, `tbf`, …
    pub kind: String,
    /// `1:`
    pub handle: String,
    /// Its classes, for HTB.
    pub classes: Vec<Class>,
}

/// A class of HTB.
#[derive(Debug, Clone, Serialize)]
pub struct Class {
    /// `1:10`
    pub id: String,
    /// Bits in a second.
    pub rate_bits: u64,
    /// The most that it may borrow, bits in a second.
    pub ceiling_bits: u64,
}

const HEADER: usize = 20; // struct tcmsg
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;

/// All but those that the kernel gives to each link by itself.
pub(super) fn read(route: &mut Netlink) -> Result<Vec<Qdisc>> {
    const OF_KERNEL: [&str; 5] = ["noqueue", "pfifo_fast", "mq", "fq_codel", "noop"];
    let mut found: Vec<Qdisc> = Vec::new();
    for answer in dump(route, libc::RTM_GETQDISC, HEADER, "list the queueing disciplines")? {
        let body = answer.payload.get(HEADER..).unwrap_or_default();
        let kind = attribute(body, TCA_KIND).map(text_of).unwrap_or_default();
        let handle = u32_at(&answer.payload, 8);
        if handle == 0 || OF_KERNEL.contains(&kind.as_str()) {
            continue;
        }
        let link = u32_at(&answer.payload, 4);
        let classes = if kind == "htb" { classes(route, link)? } else { Vec::new() };
        found.push(Qdisc { link, kind, handle: format!("{:x}:", handle >> 16), classes });
    }
    Ok(found)
}

/// What kinds of filters sort packets at the roots of such disciplines: `cgroup`, `u32`, `fw`, …, each once for a filter.
///
/// # Errors
/// The kernel doesn't answer.
pub fn filter_kinds(host: &mut Host) -> Result<Vec<String>> {
    const RTM_GETTFILTER: u16 = 46;
    let route = host.route()?;
    let mut kinds = Vec::new();
    for qdisc in read(route)? {
        let major = u32::from_str_radix(qdisc.handle.trim_end_matches(':'), 16).unwrap_or_default();
        let mut batch = Batch::default();
        batch.push(RTM_GETTFILTER, libc::NLM_F_DUMP as u16, |out| {
            let start = out.len();
            out.resize(start + HEADER, 0);
            out[start + 4..start + 8].copy_from_slice(&qdisc.link.to_ne_bytes());
            out[start + 12..start + 16].copy_from_slice(&(major << 16).to_ne_bytes());
        });
        let (answers, _) = route.exchange(&batch).map_err(|failure| failure.into_error("list the filters"))?;
        let kind = |answer: &Answer| attribute(answer.payload.get(HEADER..)?, TCA_KIND).map(text_of);
        kinds.extend(answers.iter().filter_map(kind));
    }
    Ok(kinds)
}

fn classes(route: &mut Netlink, link: u32) -> Result<Vec<Class>> {
    const TCA_HTB_PARMS: u16 = 1;
    const TCA_HTB_RATE64: u16 = 6;
    const TCA_HTB_CEIL64: u16 = 7;
    const RTM_GETTCLASS: u16 = 42;
    let mut batch = Batch::default();
    batch.push(RTM_GETTCLASS, libc::NLM_F_DUMP as u16, |out| {
        let start = out.len();
        out.resize(start + HEADER, 0);
        out[start + 4..start + 8].copy_from_slice(&link.to_ne_bytes());
    });
    let (answers, _) = route.exchange(&batch).map_err(|failure| failure.into_error("list the classes"))?;
    let wide =
        |options: &[u8], kind| attribute(options, kind).and_then(|value| value.try_into().ok()).map(u64::from_ne_bytes);
    let mut classes: Vec<Class> = answers
        .iter()
        .filter_map(|answer| {
            let options = attribute(answer.payload.get(HEADER..)?, TCA_OPTIONS)?;
            // struct tc_htb_opt: two struct tc_ratespec of 12 bytes, the rate (bytes in a second) at their end.
            let parameters = attribute(options, TCA_HTB_PARMS)?;
            let rate = wide(options, TCA_HTB_RATE64).unwrap_or(u64::from(u32_at(parameters, 8)));
            let ceiling = wide(options, TCA_HTB_CEIL64).unwrap_or(u64::from(u32_at(parameters, 20)));
            let id = u32_at(&answer.payload, 8);
            Some(Class {
                id: format!("{:x}:{:x}", id >> 16, id & 0xffff),
                rate_bits: rate.saturating_mul(8),
                ceiling_bits: ceiling.saturating_mul(8),
            })
        })
        .collect();
    classes.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(classes)
}
