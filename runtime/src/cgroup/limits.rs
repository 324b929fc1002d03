//! CPU, cpuset, pids, huge page, RDMA and network priority limits, and OCI's raw cgroup2 values.

use oci_spec::runtime::{LinuxCpu, LinuxResources};

use super::{Error, Home, cpulist, memory::human, plan::Draft};

/// The kernel's own period when none is given (microseconds).
const DEFAULT_PERIOD_US: u64 = 100_000;

/// Plans everything but memory, block devices and device rules.
pub(super) fn plan(resources: &LinuxResources, draft: &mut Draft) -> Result<(), Error> {
    if let Some(cpu) = resources.cpu() {
        plan_cpu(cpu, draft)?;
        plan_cpuset(cpu, draft)?;
    }
    // 0 and -1 mean unlimited, which is how a new group starts.
    if let Some(limit) = resources.pids().as_ref().map(|pids| pids.limit()).filter(|limit| *limit > 0) {
        let flag = format!("--pids-limit {limit}");
        let home = draft.home("pids", &flag)?;
        draft.write(
            home,
            "pids",
            "pids.max",
            limit.to_string(),
            format!("{flag}: no more processes and threads than this"),
        );
    }
    for huge in resources.hugepage_limits().iter().flatten() {
        let size = check_word("huge page size", huge.page_size())?;
        let home = draft.home("hugetlb", &format!("the limit on {size} huge pages"))?;
        let file = match home {
            Home::V1(_) => format!("hugetlb.{size}.limit_in_bytes"),
            Home::V2(_) => format!("hugetlb.{size}.max"),
        };
        let value = if huge.limit() < 0 { "max".to_owned() } else { huge.limit().to_string() };
        let value = if matches!(home, Home::V1(_)) && value == "max" { "-1".to_owned() } else { value };
        draft.write(home, "hugetlb", &file, value, format!("huge pages of {size}, in bytes"));
    }
    let mut rdma: Vec<_> = resources.rdma().iter().flatten().collect();
    rdma.sort_by_key(|(device, _)| *device);
    for (device, limit) in rdma {
        check_word("RDMA device", device)?;
        let home = draft.home("rdma", &format!("the limits on RDMA device {device}"))?;
        let part = |name: &str, value: Option<u32>| value.map(|value| format!(" {name}={value}")).unwrap_or_default();
        let value =
            format!("{device}{}{}", part("hca_handle", limit.hca_handles()), part("hca_object", limit.hca_objects()));
        draft.write(home, "rdma", "rdma.max", value, format!("RDMA limits of {device}"));
    }
    for priority in resources.network().iter().flat_map(|network| network.priorities().iter().flatten()) {
        let (name, value) = (check_word("interface", priority.name())?, priority.priority());
        let home = draft.home("net_prio", &format!("the network priority of {name}"))?;
        draft.write(
            home,
            "net_prio",
            "net_prio.ifpriomap",
            format!("{name} {value}"),
            format!("priority of packets leaving by {name}"),
        );
    }
    plan_unified(resources, draft)
}

fn plan_cpu(cpu: &LinuxCpu, draft: &mut Draft) -> Result<(), Error> {
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        let flag = format!("--cpu-shares {shares}");
        let home = draft.home("cpu", &flag)?;
        match home {
            Home::V1(_) => draft.write(
                home,
                "cpu",
                "cpu.shares",
                shares.to_string(),
                format!("{flag}: share of a busy CPU, 1024 is usual"),
            ),
            Home::V2(_) => {
                let why = format!("{flag}: share of a busy CPU, on cgroup2's scale of 1 to 10000");
                draft.write(home, "cpu", "cpu.weight", weight_of_shares(shares).to_string(), why);
            }
        }
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if let Some(quota) = quota.filter(|quota| *quota < -1) {
        return Err(Error::refused(format!("invalid --cpu-quota {quota}: microseconds, or -1 for unlimited")));
    }
    if quota.is_some_and(|quota| quota > 0) || period.is_some() {
        plan_bandwidth(quota, period, draft)?;
    }
    if let Some(idle) = cpu.idle().filter(|idle| *idle != 0) {
        let home = draft.home("cpu", "cpu.idle")?;
        draft.write(home, "cpu", "cpu.idle", idle.to_string(), "runs only when nobody else wants the CPU");
    }
    if let Some(burst) = cpu.burst().filter(|burst| *burst != 0) {
        let home = draft.home("cpu", "the CPU burst")?;
        let file = match home {
            Home::V1(_) => "cpu.cfs_burst_us",
            Home::V2(_) => "cpu.max.burst",
        };
        draft.write(home, "cpu", file, burst.to_string(), "microseconds that can be saved up beyond the quota");
    }
    // The period first: the runtime must fit into it.
    let period =
        cpu.realtime_period().filter(|period| *period != 0).map(|period| ("cpu.rt_period_us", period.to_string()));
    let runtime = cpu
        .realtime_runtime()
        .filter(|runtime| *runtime != 0)
        .map(|runtime| ("cpu.rt_runtime_us", runtime.to_string()));
    for (file, value) in period.into_iter().chain(runtime) {
        let home = draft.home("cpu", file)?;
        if let Home::V2(_) = home {
            return Err(Error::refused(format!("cannot keep {file}: cgroup2 has no real-time limits; leave it out")));
        }
        draft.write(home, "cpu", file, value, "real-time scheduling, in microseconds");
    }
    Ok(())
}

/// `--cpus`, or `--cpu-quota` within `--cpu-period`.
fn plan_bandwidth(quota: Option<i64>, period: Option<u64>, draft: &mut Draft) -> Result<(), Error> {
    let used_period = period.unwrap_or(DEFAULT_PERIOD_US);
    let flag = match quota.filter(|quota| *quota > 0) {
        // Whole thousandths of a CPU come from --cpus.
        Some(quota) if used_period == DEFAULT_PERIOD_US => {
            format!("--cpus {}", trim(quota, DEFAULT_PERIOD_US))
        }
        Some(quota) => format!("--cpu-quota {quota} --cpu-period {used_period}"),
        None => format!("--cpu-period {used_period}"),
    };
    let home = draft.home("cpu", &flag)?;
    match home {
        Home::V1(_) => {
            if let Some(period) = period {
                draft.write(
                    home,
                    "cpu",
                    "cpu.cfs_period_us",
                    period.to_string(),
                    format!("{flag}: the period in microseconds"),
                );
            }
            if let Some(quota) = quota.filter(|quota| *quota > 0) {
                draft.write(
                    home,
                    "cpu",
                    "cpu.cfs_quota_us",
                    quota.to_string(),
                    format!("{flag}: CPU time in each period"),
                );
            }
        }
        Home::V2(_) => {
            let quota = quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
            draft.write(
                home,
                "cpu",
                "cpu.max",
                format!("{quota} {used_period}"),
                format!("{flag}: microseconds of CPU time in each period"),
            );
        }
    }
    Ok(())
}

/// `150000 / 100000` as `1.5`.
fn trim(quota: i64, period: u64) -> String {
    let quota = quota.unsigned_abs();
    let text = format!("{}.{:05}", quota / period, quota % period);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// v1 shares (2..=262144) on cgroup2's scale (1..=10000): the linear formula that runc used for years, so 1024 gives 39.
///
/// (runc 1.3.2 and crun 1.23 changed to a curve through 1024 → 100; the linear one keeps the ratios between containers.)
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn plan_cpuset(cpu: &LinuxCpu, draft: &mut Draft) -> Result<(), Error> {
    let cpus = (cpu.cpus(), "--cpuset-cpus", "cpuset.cpus", draft.layout.cpus.clone(), "CPUs");
    let mems = (cpu.mems(), "--cpuset-mems", "cpuset.mems", draft.layout.mems.clone(), "memory nodes");
    for (value, flag, file, available, noun) in [cpus, mems] {
        let Some(wanted) = value.as_deref().map(str::trim).filter(|wanted| !wanted.is_empty()) else {
            continue;
        };
        let shown: String = wanted.chars().take(60).collect();
        let ranges = cpulist::parse(wanted)
            .map_err(|why| Error::refused(format!("invalid {flag} {shown:?}: {why}; give a list such as 0-2,5")))?;
        let home = draft.home("cpuset", &format!("{flag} {shown}"))?;
        if let Some(missing) =
            available.as_deref().and_then(|text| cpulist::first_missing(&ranges, &cpulist::parse(text).ok()?))
        {
            let there = available.unwrap_or_default();
            return Err(Error::refused(format!(
                "{flag} {shown}: there is no number {missing}; this host has the {noun} {there}"
            )));
        }
        draft.write(home, "cpuset", file, wanted, format!("{flag} {shown}: runs on these {noun} only"));
    }
    Ok(())
}

/// OCI's `unified`: file names and values for cgroup2, as they are.
fn plan_unified(resources: &LinuxResources, draft: &mut Draft) -> Result<(), Error> {
    let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
    entries.sort();
    for (file, value) in entries {
        let shown: String = file.chars().take(80).collect();
        let Some(v2) = &draft.layout.v2 else {
            return Err(Error::refused(format!(
                "cannot write {shown}: `unified` values need cgroup2, which is not mounted here"
            )));
        };
        let plain = file
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._".contains(&b) || b.is_ascii_uppercase());
        let controller = file.split('.').next().unwrap_or_default();
        // Files of cgroup itself move processes and change the tree; these two only bound it.
        let is_core = ["cgroup.max.depth", "cgroup.max.descendants"].contains(&file.as_str());
        if !plain || !file.contains('.') || (controller == "cgroup" && !is_core) || value.len() > 4096 {
            return Err(Error::refused(format!(
                "invalid `unified` entry {shown:?}: the name of a controller's file, such as memory.high"
            )));
        }
        if !is_core && !v2.controllers.iter().any(|name| name == controller) {
            return Err(Error::refused(format!("cannot write {shown}: {}", draft.layout.why_missing(controller))));
        }
        let needs = if is_core { "devices" } else { controller };
        draft.write(Home::V2(v2), needs, file, value.clone(), "given in `unified`");
    }
    Ok(())
}

/// A word that becomes a part of a file name or line.
fn check_word<'a>(what: &str, word: &'a str) -> Result<&'a str, Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.:".contains(&b);
    if word.is_empty() || word.len() > 64 || word.starts_with('.') || !word.bytes().all(plain) {
        let shown: String = word.chars().take(64).collect();
        return Err(Error::refused(format!("invalid {what} {shown:?}")));
    }
    Ok(word)
}

/// A rate in bytes for people.
pub(super) fn rate(bytes: u64) -> String {
    i64::try_from(bytes).map_or_else(|_| bytes.to_string(), human)
}
