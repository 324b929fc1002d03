//! Docker's default profile.

use super::{
    ALLOW, Arch, ENOSYS, EPERM, ERRNO, Instruction, NATIVE,
    build::{Compare, Condition, Decision, Rules, program},
    table::{ALWAYS, TABLE},
};
use crate::capabilities::Set;

/// CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
/// PER_LINUX, PER_LINUX32, UNAME26, both, and "what is it?".
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// The kernel looks at the low half of these arguments only, so the filter does too: docker's own 64-bit comparison can
/// be passed by with a bit above.
const LOW_HALF: u64 = 0xffff_ffff;

/// The program of docker's default profile for a container with these capabilities (its bounding set).
pub fn default_filter(capabilities: Set) -> Vec<Instruction> {
    // Fits the kernel's limit whatever the capabilities: a test goes through them.
    filter_for(NATIVE, capabilities).unwrap_or_default()
}

pub(super) fn filter_for(arches: &[Arch], capabilities: Set) -> Result<Vec<Instruction>, super::Error> {
    let decisions = decisions();
    let parts: Vec<Rules> = arches.iter().map(|arch| rules(*arch, capabilities)).collect();
    program(&parts, &decisions, ERRNO | ENOSYS)
}

// Indices into `decisions`.
const REFUSE: u16 = 0;
const PERMIT: u16 = 1;
const SOCKET: u16 = 2;
const PERSONALITY: u16 = 3;
const CLONE: u16 = 4;
const CLONE3: u16 = 5;

fn decisions() -> [Decision; 6] {
    let low = |value: u64| vec![Condition { argument: 0, compare: Compare::Masked(LOW_HALF, value) }];
    let refuse = ERRNO | EPERM;
    [
        Decision::Always(refuse),
        Decision::Always(ALLOW),
        Decision::Cases(vec![(low(AF_ALG), refuse), (low(AF_VSOCK), refuse)], ALLOW),
        Decision::Cases(PERSONALITIES.map(|value| (low(value), ALLOW)).to_vec(), refuse),
        Decision::Cases(
            vec![(vec![Condition { argument: 0, compare: Compare::Masked(CLONE_NAMESPACES, 0) }], ALLOW)],
            refuse,
        ),
        // Its flags are in memory, where a filter can't look: callers fall back to clone.
        Decision::Always(ERRNO | ENOSYS),
    ]
}

fn rules(arch: Arch, capabilities: Set) -> Rules {
    let mut by_number = vec![REFUSE; 600];
    let mut newest = 0;
    for row in &TABLE {
        let Ok(number) = usize::try_from(row.numbers[arch as usize]) else {
            continue;
        };
        let decision = if row.allowed_by == ALWAYS || row.allowed_by & capabilities.0 != 0 {
            PERMIT
        } else {
            match row.name {
                "socket" => SOCKET,
                "personality" => PERSONALITY,
                "clone" => CLONE,
                "clone3" => CLONE3,
                _ => REFUSE,
            }
        };
        if let Some(slot) = by_number.get_mut(number) {
            *slot = decision;
        }
        // What is newer than every rule is "not there" instead of "not allowed", as runc has it: programs then try the
        // older call.
        if decision != REFUSE {
            newest = newest.max(number);
        }
    }
    by_number.truncate(newest + 1);
    Rules { arch, by_number }
}
