//! `update` of a running container: its groups get other values, and groups that it didn't need so far are made and
//! entered.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use runtime::cgroup::{self, Op};
use serde_json::Value;

use super::Served;
use crate::events::{self, Event};
use crate::plan::limits::resources;
use crate::request::RunRequest;
use crate::request::limits::Limits;
use crate::residue::Residue;

/// The new request, of which limits and restart policy count.
pub fn update(served: &mut Served, body: &Value) -> Result<Value> {
    let wanted: RunRequest = serde_json::from_value(body.clone()).context("no limits were given")?;
    let old = served.order.request.limits.clone();
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    wanted.limits.check_cpus(cpus)?;
    if wanted.limits != old
        && let Err(error) = change(served, &changed(&old, &wanted.limits))
    {
        // Half of it may be in force: back to what was.
        let _ = change(served, &changed(&wanted.limits, &old));
        return Err(error);
    }
    served.order.request.limits = wanted.limits;
    served.order.request.restart = wanted.restart;
    served.state.request = serde_json::to_value(&served.order.request)?;
    served.state.write(&served.order.engine.roots)?;
    events::note(&served.order.engine.roots, Event::container("update", &served.state));
    Ok(Value::Null)
}

/// The limits that differ, with those that are written together with them.
fn changed(old: &Limits, new: &Limits) -> Limits {
    let mut limits = Limits::default();
    let memory = |limits: &Limits| (limits.memory_bytes, limits.memory_swap, limits.memory_reservation_bytes);
    if memory(old) != memory(new) {
        limits.memory_bytes = new.memory_bytes;
        limits.memory_swap = new.memory_swap;
        limits.memory_reservation_bytes = new.memory_reservation_bytes;
    }
    if old.cpu_bandwidth() != new.cpu_bandwidth() {
        limits.nano_cpus = new.nano_cpus;
        limits.cpu_period_us = new.cpu_period_us;
        // No limit any more is a value too.
        limits.cpu_quota_us = new.cpu_quota_us.or(new.cpu_bandwidth().is_none().then_some(-1));
    }
    let differs = |wanted: bool| wanted.then_some(());
    limits.cpu_shares = differs(old.cpu_shares != new.cpu_shares).and(new.cpu_shares);
    limits.cpuset_cpus = differs(old.cpuset_cpus != new.cpuset_cpus).and(new.cpuset_cpus.clone());
    limits.cpuset_mems = differs(old.cpuset_mems != new.cpuset_mems).and(new.cpuset_mems.clone());
    limits.blkio_weight = differs(old.blkio_weight != new.blkio_weight).and(new.blkio_weight);
    limits.pids = differs(old.pids != new.pids).map(|()| new.pids.unwrap_or(NO_LIMIT));
    limits
}

/// More processes than the kernel has numbers for (PID_MAX_LIMIT in include/linux/threads.h).
const NO_LIMIT: u64 = 4 << 20;

fn change(served: &Served, limits: &Limits) -> Result<()> {
    let layout = cgroup::Layout::read()?;
    let resources = resources(limits, layout.has_swap_limit(), vec![], &BTreeMap::new())?;
    let request = cgroup::Request {
        id: &served.state.id,
        parent: cgroup::PARENT,
        resources: Some(&resources),
        net_cls: None,
        class_way: cgroup::ClassWay::default(),
        net_cls_mount: &served.order.engine.roots.run.join("net_cls"),
    };
    let planned = cgroup::plan(&request, &layout)?;
    let entries = served.journal.contents()?.entries;
    let has = |path: &PathBuf| {
        entries
            .iter()
            .any(|entry| matches!(entry, Residue::Cgroup(cgroup::Residue::Cgroup { path: known, .. }) if known == path))
    };
    let (made, ops): (Vec<Op>, Vec<Op>) =
        planned.into_iter().partition(|op| matches!(op, Op::Create { path, .. } if has(path)));
    let new: Vec<PathBuf> = cgroup::groups(&ops).into_iter().map(|group| group.path).collect();
    let from = made.iter().map(Op::path).next().or_else(|| freezer(&entries));
    let residues: Vec<Residue> = ops.iter().filter_map(Op::residue).map(Residue::Cgroup).collect();
    served.journal.record(&residues)?;
    apply(&ops)?;
    for group in &new {
        let from = from.ok_or_else(|| anyhow!("the container has no group by which its processes can be found"))?;
        cgroup::move_all(from, group)?;
    }
    Ok(())
}

fn freezer(entries: &[Residue]) -> Option<&std::path::Path> {
    crate::recover::freezer(entries)
}

/// In order; what the kernel refuses now it may take when the rest is done: v1's memory limit must never be above that
/// of memory and swap together, so that one goes up in one order and down in the other.
fn apply(ops: &[Op]) -> Result<()> {
    let mut refused = Vec::new();
    for op in ops {
        match (cgroup::apply(std::slice::from_ref(op)), op) {
            (Ok(()), _) => {}
            (Err(_), Op::Write { .. }) => refused.push(op.clone()),
            (Err(error), _) => return Err(error.into()),
        }
    }
    Ok(cgroup::apply(&refused)?)
}
