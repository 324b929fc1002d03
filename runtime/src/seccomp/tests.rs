//! The compiled programs against a plain reading of the rules, and against the kernel.

use oci_spec::runtime::LinuxSeccomp;

use super::{
    ALLOW, Arch, ENOSYS, EPERM, ERRNO, Instruction, KILL_PROCESS, KILL_THREAD, LOG, NATIVE, default::filter_for,
    default_filter, install, oci::compile_for, table::TABLE,
};
use crate::{capabilities::Set, defaults};

const ALL: [Arch; 4] = [Arch::X86_64, Arch::I386, Arch::X32, Arch::Aarch64];

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
struct Call {
    number: u32,
    audit: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.audit,
            16..64 => {
                let value = self.arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { value as u32 } else { (value >> 32) as u32 }
            }
            other => panic!("load at {other}"),
        }
    }
}

/// Classic BPF as the kernel runs it.
fn run(code: &[Instruction], call: &Call) -> u32 {
    let (mut at, mut a) = (0usize, 0u32);
    loop {
        let i = code[at];
        at += 1;
        let jump = |yes: bool| usize::from(if yes { i.jump_true } else { i.jump_false });
        match i.code {
            0x20 => a = call.word(i.k),
            0x54 => a &= i.k,
            0x05 => at += i.k as usize,
            0x15 => at += jump(a == i.k),
            0x25 => at += jump(a > i.k),
            0x35 => at += jump(a >= i.k),
            0x06 => return i.k,
            other => panic!("code {other:#x}"),
        }
    }
}

/// Docker's profile, read plainly.
fn docker(arch: Arch, call: &Call, capabilities: Set) -> u32 {
    let number = call.number & !arch.bit();
    let allowed = |row: &&super::table::Row| row.allowed_by & capabilities.0 != 0 || row.allowed_by == u64::MAX;
    let special = ["socket", "personality", "clone", "clone3"];
    let of_arch = TABLE.iter().filter(|row| row.numbers[arch as usize] >= 0);
    let newest = of_arch
        .clone()
        .filter(|row| allowed(row) || special.contains(&row.name))
        .map(|row| row.numbers[arch as usize] as u32);
    if number > newest.max().unwrap() || (call.number & arch.bit()) != arch.bit() {
        return ERRNO | ENOSYS;
    }
    let row = of_arch.clone().find(|row| row.numbers[arch as usize] as u32 == number);
    let first = call.arguments[0] as u32;
    let yes = match row {
        Some(row) if allowed(&row) => true,
        Some(row) if row.name == "socket" => first != 38 && first != 40,
        Some(row) if row.name == "personality" => [0, 8, 0x20000, 0x20008, 0xffff_ffff].contains(&first),
        Some(row) if row.name == "clone" => first & 0x7e02_0000 == 0,
        Some(row) if row.name == "clone3" => return ERRNO | ENOSYS,
        _ => false,
    };
    if yes { ALLOW } else { ERRNO | EPERM }
}

#[test]
fn the_table_is_sorted_and_right() {
    assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name));
    for arch in ALL {
        let mut numbers: Vec<i16> =
            TABLE.iter().map(|row| row.numbers[arch as usize]).filter(|number| *number >= 0).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "{arch:?}");
    }
    #[cfg(target_arch = "x86_64")]
    for (name, number) in [
        ("read", libc::SYS_read),
        ("clone3", libc::SYS_clone3),
        ("bpf", libc::SYS_bpf),
        ("openat2", libc::SYS_openat2),
        ("mseal", 462),
        ("umount2", libc::SYS_umount2),
        ("keyctl", libc::SYS_keyctl),
        ("userfaultfd", libc::SYS_userfaultfd),
    ] {
        assert_eq!(i64::from(super::table::find(name).unwrap().numbers[0]), number, "{name}");
    }
    // The lecture hall's favourites, by hand: i386, x32 and aarch64.
    for (name, numbers) in [
        ("socketcall", [-1, 102, -1, -1]),
        ("execve", [59, 11, 520, 221]),
        ("openat", [257, 295, 257, 56]),
        ("umount", [-1, 22, -1, -1]),
        ("unshare", [272, 310, 272, 97]),
        ("clock_settime64", [-1, 404, -1, -1]),
        ("mmap", [9, 90, 9, 222]),
    ] {
        assert_eq!(super::table::find(name).unwrap().numbers, numbers, "{name}");
    }
}

#[test]
fn the_default_program_is_dockers_profile_for_every_call() {
    let samples = [
        0u64,
        2,
        8,
        16,
        38,
        39,
        40,
        0x2_0000,
        0x2_0008,
        0x1000_0000,
        0x0200_0000,
        0x11,
        0xffff_ffff,
        1 << 32 | 38,
        1 << 40 | 40,
        u64::MAX,
    ];
    let mut sets = vec![Set::EMPTY, defaults::capabilities(), Set::all(40), Set::all(63)];
    sets.extend((0..41).map(|number| Set::EMPTY.with(number)));
    for set in sets {
        for arches in [&[Arch::X86_64, Arch::X32, Arch::I386][..], &[Arch::Aarch64]] {
            let code = filter_for(arches, set).unwrap();
            assert!(code.len() < 1000);
            for arch in arches {
                let numbers =
                    (0..700).map(|number| number | arch.bit()).chain([arch.bit() | 0x3fff_fffe, arch.bit() | 0x1000]);
                for number in numbers {
                    for first in samples {
                        let call = Call { number, audit: arch.audit(), arguments: [first, 7, 7, 7, 7, 7] };
                        assert_eq!(run(&code, &call), docker(*arch, &call, set), "{arch:?} {set:?} {call:x?}");
                    }
                }
            }
            let stranger = Call { number: 1, audit: 0x4000_0028, arguments: [0; 6] };
            assert_eq!(run(&code, &stranger), KILL_PROCESS);
        }
    }
}

#[test]
fn the_default_program_is_short() {
    let only = filter_for(&[Arch::X86_64], defaults::capabilities()).unwrap().len();
    let all = filter_for(&[Arch::X86_64, Arch::X32, Arch::I386], defaults::capabilities()).unwrap().len();
    assert!(only <= 160 && all <= 420, "{only} and {all} instructions");
}

/// An OCI profile, read plainly.
fn plain(profile: &LinuxSeccomp, row: Option<&super::table::Row>, call: &Call, beyond: bool) -> u32 {
    use oci_spec::runtime::{LinuxSeccompAction as Action, LinuxSeccompOperator as Operator};
    let value = |action: Action, errno: Option<u32>| match action {
        Action::ScmpActErrno => ERRNO | errno.unwrap_or(EPERM),
        Action::ScmpActAllow => ALLOW,
        Action::ScmpActLog => LOG,
        Action::ScmpActKill => KILL_THREAD,
        Action::ScmpActKillProcess => KILL_PROCESS,
        other => panic!("{other:?}"),
    };
    let default = value(profile.default_action(), profile.default_errno_ret());
    if beyond && ![ALLOW, LOG].contains(&default) {
        return ERRNO | ENOSYS;
    }
    let Some(row) = row else { return default };
    let rules: Vec<_> =
        profile.syscalls().iter().flatten().filter(|rule| rule.names().iter().any(|name| name == row.name)).collect();
    let is_bare = |rule: &&&oci_spec::runtime::LinuxSyscall| rule.args().as_ref().is_none_or(Vec::is_empty);
    if let Some(rule) = rules.iter().find(is_bare) {
        return value(rule.action(), rule.errno_ret());
    }
    for rule in rules {
        let args = rule.args().as_ref().unwrap();
        let holds = |arg: &oci_spec::runtime::LinuxSeccompArg| {
            let (there, wanted) = (call.arguments[arg.index()], arg.value());
            match arg.op() {
                Operator::ScmpCmpNe => there != wanted,
                Operator::ScmpCmpLt => there < wanted,
                Operator::ScmpCmpLe => there <= wanted,
                Operator::ScmpCmpEq => there == wanted,
                Operator::ScmpCmpGe => there >= wanted,
                Operator::ScmpCmpGt => there > wanted,
                Operator::ScmpCmpMaskedEq => there & wanted == arg.value_two().unwrap_or(0),
            }
        };
        let repeats = (0..6).any(|index| args.iter().filter(|arg| arg.index() == index).count() > 1);
        if if repeats { args.iter().any(holds) } else { args.iter().all(holds) } {
            return value(rule.action(), rule.errno_ret());
        }
    }
    default
}

#[test]
fn oci_profiles_are_kept_for_every_operator() {
    let operators = [
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    ];
    let values: [u64; 7] = [0, 5, 0xffff_ffff, 1 << 32, (1 << 32) + 5, 0xffff_0000_0000, u64::MAX];
    let arguments: Vec<u64> =
        values.iter().flat_map(|value| [value.wrapping_sub(1), *value, value.wrapping_add(1)]).collect();
    for default in ["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL"] {
        for operator in operators {
            for value in values {
                let json = serde_json::json!({
                    "defaultAction": default,
                    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
                    "syscalls": [
                        {"names": ["read", "no_such_call", "mseal"], "action": "SCMP_ACT_ALLOW"},
                        {"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": [{"index": 1, "value": value, "valueTwo": value & 0xff, "op": operator}]},
                        {"names": ["write"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": value, "op": "SCMP_CMP_GE"}]},
                        {"names": ["close"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": value, "valueTwo": value, "op": operator}]},
                        {"names": ["ptrace"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 5, "value": value, "op": operator}]},
                        {"names": ["ptrace"], "action": "SCMP_ACT_KILL_PROCESS"},
                    ]
                });
                let profile: LinuxSeccomp = serde_json::from_value(json).unwrap();
                for arches in [&[Arch::X86_64, Arch::X32, Arch::I386][..], &[Arch::Aarch64]] {
                    let code = compile_for(arches, &profile).unwrap();
                    for arch in arches {
                        let named = ["read", "write", "close", "ptrace", "mseal", "bpf"]
                            .map(|name| super::table::find(name).unwrap());
                        let newest = named[..5].iter().map(|row| row.numbers[*arch as usize]).max().unwrap();
                        for row in named {
                            for (index, argument) in arguments.iter().enumerate() {
                                let other = arguments[(index * 7 + 3) % arguments.len()];
                                let number = row.numbers[*arch as usize] as u32 | arch.bit();
                                let call = Call {
                                    number,
                                    audit: arch.audit(),
                                    arguments: [3, *argument, other, 0, 0, *argument],
                                };
                                assert_eq!(
                                    run(&code, &call),
                                    plain(&profile, Some(row), &call, false),
                                    "{arch:?} {default} {operator} {value:#x} {call:x?}"
                                );
                            }
                        }
                        for number in [newest as u32 + 1, 5000] {
                            let call = Call { number: number | arch.bit(), audit: arch.audit(), arguments: [0; 6] };
                            assert_eq!(
                                run(&code, &call),
                                plain(&profile, None, &call, true),
                                "{arch:?} {default} {number}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn x32_does_not_slip_past_a_profile_for_x86_64() {
    let json = serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ERRNO"}]});
    let profile: LinuxSeccomp = serde_json::from_value(json).unwrap();
    let code = compile_for(&[Arch::X86_64], &profile).unwrap();
    let call = |number| Call { number, audit: Arch::X86_64.audit(), arguments: [0; 6] };
    assert_eq!(run(&code, &call(165)), ERRNO | EPERM);
    assert_eq!(run(&code, &call(165 | 0x4000_0000)), KILL_PROCESS);
    assert_eq!(run(&code, &call(999)), ALLOW);
}

#[test]
fn profiles_that_cannot_work_are_refused() {
    for (json, why) in [
        (serde_json::json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "NOTIFY"),
        (serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}), "errno"),
        (
            serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}),
            "argument",
        ),
    ] {
        let profile: LinuxSeccomp = serde_json::from_value(json).unwrap();
        assert!(compile_for(NATIVE, &profile).unwrap_err().to_string().contains(why), "{why}");
    }
    // A rule with thousands of conditions must end in an error, not in a wrong jump.
    let args: Vec<_> =
        (0..5000).map(|value| serde_json::json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"})).collect();
    let json = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args}]});
    let profile: LinuxSeccomp = serde_json::from_value(json).unwrap();
    assert!(compile_for(NATIVE, &profile).unwrap_err().to_string().contains("4096"));
}

/// The kernel runs the default program: in a thread of its own, whose filter ends with it.
#[test]
fn the_kernel_takes_the_default_program_and_keeps_it() {
    let program = default_filter(defaults::capabilities());
    let results = std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        install(&program, super::FLAG_SPEC_ALLOW).unwrap();
        let call = |number: i64, first: u64| {
            // SAFETY: each call is one that the filter or a bad argument refuses, or socket(2); none takes a pointer that
            // the kernel could follow (they are null or the number is refused before).
            let result = unsafe { libc::syscall(number, first, 0u64, 0u64, 0u64, 0u64, 0u64) };
            if result >= 0 {
                // SAFETY: socket(2) gave this descriptor to nobody else.
                unsafe { libc::close(i32::try_from(result).unwrap()) };
                return 0;
            }
            std::io::Error::last_os_error().raw_os_error().unwrap()
        };
        [
            call(libc::SYS_unshare, libc::CLONE_NEWUSER as u64),
            call(libc::SYS_keyctl, 0),
            call(libc::SYS_bpf, 0),
            call(libc::SYS_userfaultfd, 0),
            call(libc::SYS_clone3, 0),
            call(libc::SYS_socket, 38),
            call(libc::SYS_socket, 1 << 32 | 38),
            call(libc::SYS_socket, 40),
            call(libc::SYS_socket, 1),
            call(libc::SYS_io_uring_setup, 1),
            call(libc::SYS_mount, 0),
            call(libc::SYS_clone, libc::CLONE_NEWNET as u64),
            call(libc::SYS_personality, 0x4),
            call(1000, 0),
            call(0x4000_0000 | 1000, 0),
            call(libc::SYS_open_by_handle_at, 0),
        ]
    });
    let (eperm, enosys) = (libc::EPERM, libc::ENOSYS);
    // socket(AF_UNIX, 0, 0) is allowed and refused by the kernel itself: no type 0.
    let expected = [
        eperm,
        eperm,
        eperm,
        eperm,
        enosys,
        eperm,
        eperm,
        eperm,
        libc::ESOCKTNOSUPPORT,
        eperm,
        eperm,
        eperm,
        eperm,
        enosys,
        enosys,
        eperm,
    ];
    assert_eq!(results.join().unwrap(), expected);
}
