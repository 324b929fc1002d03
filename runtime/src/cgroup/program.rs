//! The eBPF form of a device rule list, for cgroup2 (program type `cgroup_device`).
//!
//! The kernel runs the program at each mknod and open with `struct bpf_cgroup_dev_ctx` (linux/bpf.h); 1 = allowed.
//! It walks the rules from the last to the first and decides each wanted access by the first that speaks of it.

use super::devices::{DeviceKind, DeviceRule};

/// One eBPF instruction, `struct bpf_insn` of linux/bpf.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub code: u8,
    /// Destination register in the low, source in the high four bits.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

// Opcodes: class | size or operation | source; linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61; // LDX | MEM | W
const AND_IMMEDIATE: u8 = 0x57; // ALU64 | AND | K
const SHIFT_RIGHT: u8 = 0x77; // ALU64 | RSH | K
const MOVE_REGISTER: u8 = 0xbf; // ALU64 | MOV | X
const MOVE_IMMEDIATE: u8 = 0xb7; // ALU64 | MOV | K
const JUMP_NOT_EQUAL: u8 = 0x55; // JMP | JNE | K
const JUMP_BITS: u8 = 0x45; // JMP | JSET | K
const EXIT: u8 = 0x95; // JMP | EXIT

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

fn op(code: u8, destination: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: destination, offset: 0, immediate }
}

fn load(destination: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: CONTEXT << 4 | destination, offset, immediate: 0 }
}

fn decide(allow: bool) -> [Instruction; 2] {
    [op(MOVE_IMMEDIATE, RESULT, i32::from(allow)), op(EXIT, 0, 0)]
}

/// Assembles the program. The rules come from [`super::devices::parse`]; the numbers in them fit 31 bits.
pub(super) fn assemble(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut code = vec![
        load(TYPE, 0),
        Instruction { code: MOVE_REGISTER, registers: TYPE << 4 | ACCESS, offset: 0, immediate: 0 },
        op(AND_IMMEDIATE, TYPE, 0xffff),
        op(SHIFT_RIGHT, ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    let mut decided = false;
    for rule in rules.iter().rev() {
        let block = rule_block(rule);
        let is_final = rule.kind == DeviceKind::All && rule.access_bits() == 7;
        code.extend(block);
        if is_final {
            // What stands before can't be reached, and the verifier refuses unreachable code.
            decided = true;
            break;
        }
    }
    if !decided {
        code.extend(decide(true));
    }
    code
}

/// A program for packets on their way out: each gets the class as its priority, which is how a queueing discipline finds
/// the class of a packet without a filter (tc-htb(8): "classid of skb->priority"). 1 lets it go on.
pub(super) fn class(class: u32) -> Vec<Instruction> {
    const STORE_WORD: u8 = 0x63; // STX | MEM | W
    const PRIORITY: i16 = 32; // in struct __sk_buff
    const CLASS: u8 = 2;
    let store = Instruction { code: STORE_WORD, registers: CLASS << 4 | CONTEXT, offset: PRIORITY, immediate: 0 };
    let [allow, exit] = decide(true);
    vec![op(MOVE_IMMEDIATE, CLASS, class.cast_signed()), store, allow, exit]
}

/// Tests of one rule; a mismatch jumps behind the block.
fn rule_block(rule: &DeviceRule) -> Vec<Instruction> {
    if rule.kind == DeviceKind::All && rule.access_bits() == 7 {
        return decide(rule.allow).to_vec();
    }
    let mut tests: Vec<(u8, i32)> = Vec::with_capacity(3);
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => tests.push((TYPE, 1)),
        DeviceKind::Char => tests.push((TYPE, 2)),
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        tests.extend(number.map(|number| (register, number.cast_signed())));
    }
    let bits = i32::from(rule.access_bits());
    let action: Vec<Instruction> = if rule.allow && bits == 7 {
        // Nothing is left to decide. Two instructions less for the verifier, which takes its time for each way to them.
        decide(true).to_vec()
    } else if rule.allow {
        // These accesses are settled; allowed when no other is left to decide.
        let [allow, exit] = decide(true);
        let left = Instruction { code: JUMP_NOT_EQUAL, registers: ACCESS, offset: 2, immediate: 0 };
        vec![op(AND_IMMEDIATE, ACCESS, !bits & 7), left, allow, exit]
    } else {
        let [deny, exit] = decide(false);
        let hit = Instruction { code: JUMP_BITS, registers: ACCESS, offset: 1, immediate: bits };
        let skip = Instruction { code: 0x05, registers: 0, offset: 2, immediate: 0 };
        vec![hit, skip, deny, exit]
    };
    let mut block = Vec::with_capacity(tests.len() + action.len());
    for (index, (register, value)) in tests.iter().enumerate() {
        let behind = i16::try_from(tests.len() - index - 1 + action.len()).unwrap_or(0);
        block.push(Instruction { code: JUMP_NOT_EQUAL, registers: *register, offset: behind, immediate: *value });
    }
    block.extend(action);
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::devices::tests::rule;

    /// Runs the few opcodes that the assembler knows.
    fn run(code: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> u64 {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        for _ in 0..10_000 {
            let i = code[at];
            at += 1;
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let value = i64::from(i.immediate).cast_unsigned();
            let jump = |yes: bool| {
                if yes { usize::try_from(i.offset).unwrap() } else { 0 }
            };
            match i.code {
                LOAD_WORD => registers[to] = u64::from(context[usize::try_from(i.offset / 4).unwrap()]),
                AND_IMMEDIATE => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                MOVE_REGISTER => registers[to] = registers[from],
                MOVE_IMMEDIATE => registers[to] = value,
                JUMP_NOT_EQUAL => at += jump(registers[to] != value),
                JUMP_BITS => at += jump(registers[to] & value != 0),
                0x05 => at += jump(true),
                EXIT => return registers[0],
                other => panic!("opcode {other:#x}"),
            }
        }
        panic!("endless");
    }

    /// The meaning of a list, straight from its description.
    fn naive(rules: &[DeviceRule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        [1u32, 2, 4].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            let speaks = |rule: &&DeviceRule| {
                let kind_fits = match rule.kind {
                    DeviceKind::All => true,
                    DeviceKind::Block => kind == 1,
                    DeviceKind::Char => kind == 2,
                };
                kind_fits
                    && rule.major.is_none_or(|number| number == major)
                    && rule.minor.is_none_or(|number| number == minor)
                    && u32::from(rule.access_bits()) & bit != 0
            };
            rules.iter().rev().find(speaks).is_none_or(|rule| rule.allow)
        })
    }

    #[test]
    fn the_program_decides_as_the_list_says() {
        let lists: [&[&str]; 7] = [
            &[],
            &["-a"],
            &["-a", "+c *:* m", "+b *:* m", "+c 1:3 rwm", "+c 136:* rwm", "+c 5:2 rw"],
            &["-a", "+c 1:3 rwm", "-c 1:3 w", "+c 10:200 r"],
            &["-b 8:0 w", "-c *:3 rwm"],
            &["-a", "+c 1:* rw", "-c 1:5 r", "+c 1:5 m", "-a *:* m"],
            &["+c 1:3 rwm", "-a", "+b 8:* r", "+a *:* w"],
        ];
        for list in lists {
            let rules: Vec<DeviceRule> = list.iter().map(|text| rule(text)).collect();
            let code = assemble(&rules);
            for kind in [1, 2] {
                for access in 1..8 {
                    for (major, minor) in
                        [(1, 3), (1, 5), (8, 0), (8, 1), (136, 7), (5, 2), (10, 200), (10, 229), (0, 0)]
                    {
                        assert_eq!(
                            run(&code, kind, access, major, minor) == 1,
                            naive(&rules, kind, access, major, minor),
                            "{list:?}: type {kind} access {access} {major}:{minor}"
                        );
                    }
                }
            }
        }
    }
}
