//! Memory limits: v1 `memory.*` and cgroup2 `memory.*`, whose swap is counted apart.

use oci_spec::runtime::LinuxResources;

use super::{Error, Home, plan::Draft};

/// Plans `-m`, `--memory-swap`, `--memory-reservation`, swappiness and the OOM switch.
pub(super) fn plan(resources: &LinuxResources, draft: &mut Draft) -> Result<(), Error> {
    let Some(memory) = resources.memory() else {
        return Ok(());
    };
    // 0 means "not given" in docker's and OCI's files alike; -1 means unlimited, which is how a new group starts.
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let positive = |flag: &str, value: Option<i64>| match given(value) {
        Some(value) if value < -1 => {
            Err(Error::refused(format!("invalid {flag} {value}: a size in bytes, or -1 for unlimited")))
        }
        other => Ok(other),
    };
    let limit = positive("-m", memory.limit())?;
    let swap = positive("--memory-swap", memory.swap())?;
    let reservation = positive("--memory-reservation", memory.reservation())?;
    if given(memory.kernel()).is_some_and(|value| value > 0) {
        return Err(Error::refused(
            "cannot keep a kernel memory limit: Linux has dropped it (5.16); -m counts kernel memory too",
        ));
    }
    if memory.use_hierarchy() == Some(false) {
        return Err(Error::refused("cannot switch memory.use_hierarchy off: Linux has dropped that (5.11)"));
    }
    // check_before_update speaks of `update`; a group that is made now has no usage to check.

    if let Some(bytes) = limit.filter(|bytes| *bytes > 0) {
        let why = format!("-m {}: more than this and the container is out of memory", human(bytes));
        let home = draft.home("memory", &format!("-m {}", human(bytes)))?;
        draft.write(home, "memory", by(home, "memory.limit_in_bytes", "memory.max"), bytes.to_string(), why);
    }
    if let Some(swap) = swap {
        plan_swap(limit, swap, draft)?;
    }
    if let Some(bytes) = reservation.filter(|bytes| *bytes > 0) {
        if limit.is_some_and(|limit| limit > 0 && limit < bytes) {
            return Err(Error::refused(format!(
                "--memory-reservation {} is more than -m {}; give the limit at least as much",
                human(bytes),
                human(limit.unwrap_or(0))
            )));
        }
        let home = draft.home("memory", &format!("--memory-reservation {}", human(bytes)))?;
        let why = format!("--memory-reservation {}: reclaimed from last below this", human(bytes));
        draft.write(home, "memory", by(home, "memory.soft_limit_in_bytes", "memory.low"), bytes.to_string(), why);
    }
    v1_only(
        "kernel TCP memory limit",
        "memory.kmem.tcp.limit_in_bytes",
        given(memory.kernel_tcp()).filter(|v| *v > 0),
        draft,
    )?;
    v1_only("--memory-swappiness", "memory.swappiness", memory.swappiness().map(u64::cast_signed), draft)?;
    let no_killer = memory.disable_oom_killer().unwrap_or(false).then_some(1);
    v1_only("--oom-kill-disable", "memory.oom_control", no_killer, draft)
}

/// `--memory-swap` is memory and swap together, as v1 counts it; cgroup2 takes the swap alone.
fn plan_swap(limit: Option<i64>, swap: i64, draft: &mut Draft) -> Result<(), Error> {
    let flag = if swap < 0 { "--memory-swap -1".to_owned() } else { format!("--memory-swap {}", human(swap)) };
    if swap > 0 {
        match limit.filter(|limit| *limit > 0) {
            None => {
                return Err(Error::refused(format!("{flag} is memory and swap together and needs -m; set -m too")));
            }
            Some(limit) if swap < limit => {
                return Err(Error::refused(format!(
                    "{flag} is less than -m {}; it counts memory and swap together",
                    human(limit)
                )));
            }
            Some(_) => {}
        }
        if !draft.layout.has_swap_limit() {
            draft.home("memory", &flag)?;
            return Err(Error::refused(format!(
                "cannot keep {flag}: this kernel does not count swap; leave the flag out, or boot with swapaccount=1"
            )));
        }
    }
    // Unlimited is how a new group starts: nothing to write, and nothing to refuse where swap is not counted.
    if swap < 0 {
        return Ok(());
    }
    let home = draft.home("memory", &flag)?;
    match home {
        // Behind the memory limit: memsw must never be the smaller one.
        Home::V1(_) => {
            let why = format!("{flag}: memory and swap together");
            draft.write(home, "memory", "memory.memsw.limit_in_bytes", swap.to_string(), why);
        }
        Home::V2(_) => {
            let alone = swap - limit.unwrap_or(0);
            let why = format!("{flag}: cgroup2 counts swap alone, so this is the rest after -m");
            draft.write(home, "memory", "memory.swap.max", alone.to_string(), why);
        }
    }
    Ok(())
}

/// A value that cgroup2 has no file for.
fn v1_only(what: &str, file: &str, value: Option<i64>, draft: &mut Draft) -> Result<(), Error> {
    let Some(value) = value else { return Ok(()) };
    let home = draft.home("memory", what)?;
    if let Home::V2(_) = home {
        return Err(Error::refused(format!("cannot keep {what}: cgroup2 has no such switch; leave it out")));
    }
    draft.write(home, "memory", file, value.to_string(), what);
    Ok(())
}

fn by(home: Home, v1: &'static str, v2: &'static str) -> &'static str {
    match home {
        Home::V1(_) => v1,
        Home::V2(_) => v2,
    }
}

/// A size as docker's flags take it: `64m` when that is exact, plain bytes otherwise.
pub(super) fn human(bytes: i64) -> String {
    for (unit, shift) in [("g", 30), ("m", 20), ("k", 10)] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}
