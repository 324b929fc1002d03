//! `update`: changes of the limits and of the restart policy of a container that is there already.

use super::limits::{Limits, MemorySwap};
use super::restart::{self, Restart};
use super::{Invalid, RunRequest};
use crate::cli::{RunArgs, UpdateArgs};

/// What the request is after the change.
///
/// # Errors
/// No flag at all, a value that `run` would refuse, or one that contradicts what the container has.
pub fn updated(request: &RunRequest, args: &UpdateArgs) -> Result<RunRequest, Invalid> {
    if args == &(UpdateArgs { containers: args.containers.clone(), ..UpdateArgs::default() }) {
        return Err(Invalid::arguments("you must provide one or more flags when using this command"));
    }
    let restart = match &args.restart {
        Some(text) => restart::parse(text)?,
        None => request.restart,
    };
    if request.remove && restart != Restart::No {
        return Err(Invalid::arguments(
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ));
    }
    Ok(RunRequest { restart, limits: limits(&request.limits, args)?, ..request.clone() })
}

fn limits(old: &Limits, args: &UpdateArgs) -> Result<Limits, Invalid> {
    let touches_memory = args.memory.is_some() || args.memory_swap.is_some() || args.memory_reservation.is_some();
    let memory_now = old.memory_bytes.filter(|_| touches_memory).map(|bytes| bytes.to_string());
    // Read by the rules of `run`.
    let given = Limits::from_args(&RunArgs {
        memory: args.memory.clone().or(memory_now),
        memory_swap: args.memory_swap.clone(),
        memory_reservation: args.memory_reservation.clone(),
        cpus: args.cpus.clone(),
        cpu_shares: args.cpu_shares,
        cpu_period: args.cpu_period,
        cpu_quota: args.cpu_quota,
        cpuset_cpus: args.cpuset_cpus.clone(),
        cpuset_mems: args.cpuset_mems.clone(),
        pids_limit: args.pids_limit,
        blkio_weight: args.blkio_weight,
        ..RunArgs::default()
    })?;
    let mut new = old.clone();
    new.memory_bytes = given.memory_bytes.or(old.memory_bytes);
    new.memory_reservation_bytes = given.memory_reservation_bytes.or(old.memory_reservation_bytes);
    new.memory_swap = match (&args.memory_swap, old.memory_swap) {
        (None, Some(MemorySwap::Bytes(swap))) if new.memory_bytes.is_some_and(|memory| memory > swap) => {
            return Err(Invalid::arguments(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            ));
        }
        (None, Some(swap)) => Some(swap),
        // As for a new container: twice the memory.
        _ => given.memory_swap.filter(|_| touches_memory).or(old.memory_swap),
    };
    let conflict = |new: &str, old: &str| {
        Err(Invalid::arguments(format!("Conflicting options: {new} cannot be updated as {old} has already been set")))
    };
    match (given.nano_cpus, old.nano_cpus) {
        (Some(_), _) if old.cpu_period_us.is_some() => return conflict("Nano CPUs", "CPU Period"),
        (Some(_), _) if old.cpu_quota_us.is_some() => return conflict("Nano CPUs", "CPU Quota"),
        (_, Some(_)) if given.cpu_period_us.is_some() => return conflict("CPU Period", "NanoCPUs"),
        (_, Some(_)) if given.cpu_quota_us.is_some() => return conflict("CPU Quota", "NanoCPUs"),
        _ => {}
    }
    new.nano_cpus = given.nano_cpus.or(old.nano_cpus);
    new.cpu_period_us = given.cpu_period_us.or(old.cpu_period_us);
    new.cpu_quota_us = given.cpu_quota_us.or(old.cpu_quota_us);
    new.cpu_shares = given.cpu_shares.or(old.cpu_shares);
    new.cpuset_cpus = given.cpuset_cpus.or(new.cpuset_cpus);
    new.cpuset_mems = given.cpuset_mems.or(new.cpuset_mems);
    new.blkio_weight = given.blkio_weight.or(old.blkio_weight);
    if args.pids_limit.is_some_and(|limit| limit != 0) {
        new.pids = given.pids;
    }
    Ok(new)
}
