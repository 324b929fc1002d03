//! OCI profiles (`linux.seccomp` of config.json, docker's `--security-opt seccomp=FILE`) through the same compiler.

use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

use super::{
    ALLOW, Arch, ENOSYS, EPERM, ERRNO, Error, Instruction, KILL_PROCESS, KILL_THREAD, LOG, NATIVE, TRACE, TRAP,
    build::{Compare, Condition, Decision, Rules, program},
    sys, table,
};

/// Errno values end here (MAX_ERRNO); a larger one would be taken for a result.
const LARGEST_ERRNO: u32 = 4095;

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program.
    pub program: Vec<Instruction>,
    /// The flags for [`super::install`].
    pub flags: u32,
}

/// Compiles an OCI profile. Names that this program does not know are skipped, as runc does: they are other
/// architectures' or too new, and then fall under the default or "no such call".
///
/// Of several rules for one call, one without conditions wins; otherwise the first whose conditions hold.
///
/// # Errors
/// Notify actions, arguments beyond the sixth, errno values out of range, programs beyond the kernel's limit.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, Error> {
    let arches = arches(profile.architectures().as_deref());
    Ok(Filter { program: compile_for(&arches, profile)?, flags: flags(profile)? })
}

/// The architectures of a profile that this processor has; its own alone when none are named.
fn arches(named: Option<&[OciArch]>) -> Vec<Arch> {
    let wanted = |arch: &Arch| {
        let oci = match arch {
            Arch::X86_64 => OciArch::ScmpArchX86_64,
            Arch::I386 => OciArch::ScmpArchX86,
            Arch::X32 => OciArch::ScmpArchX32,
            Arch::Aarch64 => OciArch::ScmpArchAarch64,
        };
        // libseccomp always adds the program's own architecture.
        *arch == NATIVE[0] || named.is_some_and(|named| named.contains(&oci))
    };
    NATIVE.iter().copied().filter(wanted).collect()
}

fn flags(profile: &LinuxSeccomp) -> Result<u32, Error> {
    let Some(flags) = profile.flags() else {
        return Ok(sys::FLAG_SPEC_ALLOW);
    };
    let flag = |flag: &LinuxSeccompFilterFlag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => Ok(sys::FLAG_LOG),
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => Ok(sys::FLAG_SPEC_ALLOW),
        // One thread installs it, before exec: nothing to synchronise.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => Ok(0),
        other => Err(Error(format!("the filter flag {other:?} is not supported"))),
    };
    flags.iter().try_fold(0, |all, next| Ok(all | flag(next)?))
}

pub(super) fn compile_for(arches: &[Arch], profile: &LinuxSeccomp) -> Result<Vec<Instruction>, Error> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    for rule in rules {
        action(rule.action(), rule.errno_ret())?;
    }
    let mut decisions = vec![Decision::Always(default)];
    let mut parts = Vec::with_capacity(arches.len());
    let by_name = collect(rules, default)?;
    for arch in arches {
        let mut by_number = vec![0u16; 1024];
        let mut newest = None;
        for (row, decision) in &by_name {
            let Ok(number) = usize::try_from(row.numbers[*arch as usize]) else {
                continue;
            };
            newest = newest.max(Some(number));
            let index = decisions.iter().position(|known| known == decision).unwrap_or_else(|| {
                decisions.push(decision.clone());
                decisions.len() - 1
            });
            by_number[number] = u16::try_from(index).map_err(|_| Error("too many different rules".to_owned()))?;
        }
        by_number.truncate(newest.map_or(0, |newest| newest + 1));
        parts.push(Rules { arch: *arch, by_number });
    }
    // A profile that refuses by default refuses what it has not heard of as "no such call", so that programs fall back
    // to an older one (runc since 1.0.0-rc93). A profile that allows by default keeps allowing.
    let allows = matches!(
        profile.default_action(),
        LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace
    );
    program(&parts, &decisions, if allows { default } else { ERRNO | ENOSYS })
}

/// The rules by call: each call once, with all its cases.
fn collect(rules: &[LinuxSyscall], default: u32) -> Result<Vec<(&'static table::Row, Decision)>, Error> {
    let mut found: std::collections::BTreeMap<&'static str, (&'static table::Row, Decision)> = Default::default();
    for rule in rules {
        let result = action(rule.action(), rule.errno_ret())?;
        let cases = cases(rule.args().as_deref().unwrap_or_default(), result)?;
        for row in rule.names().iter().filter_map(|name| table::find(name)) {
            let entry = found.entry(row.name).or_insert_with(|| (row, Decision::Cases(Vec::new(), default)));
            match &mut entry.1 {
                // Without conditions, and the first such rule: final.
                Decision::Always(_) => {}
                decision if cases.is_empty() => *decision = Decision::Always(result),
                Decision::Cases(there, _) => there.extend(cases.iter().cloned()),
            }
        }
    }
    Ok(found.into_values().collect())
}

/// The conditions of one rule. As runc has it: several conditions on the *same* argument are alternatives.
fn cases(args: &[LinuxSeccompArg], action: u32) -> Result<Vec<(Vec<Condition>, u32)>, Error> {
    let conditions = args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let repeats = conditions
        .iter()
        .enumerate()
        .any(|(index, one)| conditions[..index].iter().any(|other| other.argument == one.argument));
    if repeats {
        return Ok(conditions.into_iter().map(|condition| (vec![condition], action)).collect());
    }
    Ok(if conditions.is_empty() { Vec::new() } else { vec![(conditions, action)] })
}

fn condition(arg: &LinuxSeccompArg) -> Result<Condition, Error> {
    let argument = u32::try_from(arg.index()).ok().filter(|index| *index < 6);
    let argument = argument.ok_or_else(|| Error(format!("argument index {} (0 to 5 exist)", arg.index())))?;
    let value = arg.value();
    let compare = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => Compare::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Compare::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Compare::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpEq => Compare::Equal(value),
        LinuxSeccompOperator::ScmpCmpGe => Compare::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Compare::Greater(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => Compare::Masked(value, arg.value_two().unwrap_or(0)),
    };
    Ok(Condition { argument, compare })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, Error> {
    let errno = errno.unwrap_or(EPERM);
    if errno > LARGEST_ERRNO {
        return Err(Error(format!("errno {errno} (0 to {LARGEST_ERRNO} exist)")));
    }
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => TRAP,
        LinuxSeccompAction::ScmpActErrno => ERRNO | errno,
        LinuxSeccompAction::ScmpActTrace => TRACE | errno,
        LinuxSeccompAction::ScmpActAllow => ALLOW,
        LinuxSeccompAction::ScmpActLog => LOG,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(Error("SCMP_ACT_NOTIFY needs a supervising program, which minidock does not have".to_owned()));
        }
    })
}
