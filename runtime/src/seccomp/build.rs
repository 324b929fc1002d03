//! The compiler: decisions by system call number → classic BPF.
//!
//! Program: load the architecture, jump to its part; there load the call number and search its range by halving; a leaf
//! returns at once or looks at arguments first. Emitted backwards, so that every jump's length is known when it is made.

use super::{Arch, Error, Instruction, KILL_PROCESS, X32_BIT};

// linux/filter.h and linux/bpf_common.h
const LOAD: u16 = 0x20; // LD | W | ABS
const AND: u16 = 0x54; // ALU | AND | K
const JUMP: u16 = 0x05; // JMP | JA
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// The kernel's limit, BPF_MAXINSNS.
const LONGEST: usize = 4096;

// struct seccomp_data
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// How an argument is compared; all 64 bits, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Equal(u64),
    GreaterOrEqual(u64),
    Greater(u64),
    /// The argument under the mask is the value.
    Masked(u64, u64),
}

/// One condition on one argument (0 to 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub argument: u32,
    pub compare: Compare,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// The same for all arguments.
    Always(u32),
    /// The action of the first case whose conditions all hold, or else the last value.
    Cases(Vec<(Vec<Condition>, u32)>, u32),
}

/// The rules of one architecture.
pub(super) struct Rules {
    pub arch: Arch,
    /// Index into the decisions for each call number (x32's without its bit); shorter than the numbers there are.
    pub by_number: Vec<u16>,
}

/// Puts a whole program together. `decisions[0]` is for calls without a rule, `beyond` for calls newer than any rule.
/// A call of an architecture without rules kills the process: its numbers mean something else.
pub(super) fn program(parts: &[Rules], decisions: &[Decision], beyond: u32) -> Result<Vec<Instruction>, Error> {
    let mut all = decisions.to_vec();
    let beyond_index = u16::try_from(all.len()).map_err(|_| too_long())?;
    all.extend([Decision::Always(beyond), Decision::Always(KILL_PROCESS)]);
    let leaves: Vec<Vec<Instruction>> = all.iter().map(leaf).collect::<Result<_, _>>()?;
    let mut code = Backwards { code: Vec::with_capacity(512), shared: vec![None; leaves.len()] };
    code.push(RETURN, KILL_PROCESS);
    let mut audits: Vec<u32> = Vec::new();
    for part in parts {
        if !audits.contains(&part.arch.audit()) {
            audits.push(part.arch.audit());
        }
    }
    for audit in audits.iter().rev() {
        let end = code.code.len();
        let ranges = ranges(parts.iter().filter(|part| part.arch.audit() == *audit), beyond_index, beyond_index + 1);
        let entry = code.search(&ranges, &leaves)?;
        code.go_to(entry)?;
        code.push(LOAD, NUMBER);
        let length = code.code.len() - end;
        code.push(JUMP, u32::try_from(length).map_err(|_| too_long())?);
        code.code.push(Instruction { code: IF_EQUAL, jump_true: 1, jump_false: 0, k: *audit });
    }
    code.push(LOAD, ARCHITECTURE);
    if code.code.len() > LONGEST {
        return Err(too_long());
    }
    code.code.reverse();
    Ok(code.code)
}

fn too_long() -> Error {
    Error(format!("its program is longer than the kernel's {LONGEST} instructions; use fewer rules with arguments"))
}

/// The ranges of call numbers with one decision each: first number and decision, ascending, the first from 0.
fn ranges<'a>(parts: impl Iterator<Item = &'a Rules>, beyond: u16, foreign: u16) -> Vec<(u32, u16)> {
    let mut ranges: Vec<(u32, u16)> = Vec::with_capacity(128);
    let mut add = |first: u32, decision: u16| match ranges.last() {
        Some((_, last)) if *last == decision => {}
        _ => ranges.push((first, decision)),
    };
    let mut parts: Vec<&Rules> = parts.collect();
    parts.sort_by_key(|part| part.arch.bit());
    for part in &parts {
        let first = part.arch.bit();
        for (number, decision) in (first..).zip(&part.by_number) {
            add(number, *decision);
        }
        add(first + u32::try_from(part.by_number.len()).unwrap_or(0), beyond);
    }
    // Without rules for x32 its calls would slip past those for x86_64.
    if parts.iter().all(|part| part.arch == Arch::X86_64) {
        add(X32_BIT, foreign);
    }
    ranges
}

/// The instructions of one decision, forwards.
fn leaf(decision: &Decision) -> Result<Vec<Instruction>, Error> {
    let (cases, otherwise) = match decision {
        Decision::Always(action) => (&[][..], *action),
        Decision::Cases(cases, otherwise) => (&cases[..], *otherwise),
    };
    let mut code = Vec::new();
    for (conditions, action) in cases {
        // Every mismatch jumps behind the case's return.
        let mut blocks: Vec<Vec<Test>> = conditions.iter().map(tests).collect();
        blocks.push(vec![Test::Return(*action)]);
        let total: usize = blocks.iter().map(Vec::len).sum();
        let mut at = 0;
        for block in &blocks {
            let block_end = at + block.len();
            for test in block {
                at += 1;
                code.push(test.instruction(block_end - at, total - at)?);
            }
        }
    }
    code.push(Instruction { code: RETURN, jump_true: 0, jump_false: 0, k: otherwise });
    Ok(code)
}

/// Where a comparison goes.
#[derive(Clone, Copy)]
enum Then {
    /// On with the next instruction.
    Next,
    /// The condition holds.
    Hold,
    /// The condition fails, and with it the case.
    Fail,
}

#[derive(Clone, Copy)]
enum Test {
    Load(u32),
    And(u32),
    If(u16, u32, Then, Then),
    Return(u32),
}

impl Test {
    /// `hold` and `fail`: how many instructions behind this one the two ends are.
    fn instruction(self, hold: usize, fail: usize) -> Result<Instruction, Error> {
        let to = |then: Then| {
            u8::try_from(match then {
                Then::Next => 0,
                Then::Hold => hold,
                Then::Fail => fail,
            })
            .map_err(|_| Error("too many conditions in one rule".to_owned()))
        };
        let plain = |code, k| Instruction { code, jump_true: 0, jump_false: 0, k };
        Ok(match self {
            Test::Load(offset) => plain(LOAD, offset),
            Test::And(mask) => plain(AND, mask),
            Test::Return(action) => plain(RETURN, action),
            Test::If(code, k, yes, no) => Instruction { code, jump_true: to(yes)?, jump_false: to(no)?, k },
        })
    }
}

/// A 64-bit comparison in two 32-bit halves, the high one first.
fn tests(condition: &Condition) -> Vec<Test> {
    use Then::{Fail, Hold, Next};
    // Both processors are little-endian: the low half comes first in memory.
    let low_at = ARGUMENTS + 8 * condition.argument;
    let high_at = low_at + 4;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let ordered = |value: u64, above: Then, below: Then, code: u16, yes: Then, no: Then| {
        let (high, low) = halves(value);
        vec![
            Test::Load(high_at),
            Test::If(IF_GREATER, high, above, Next),
            Test::If(IF_EQUAL, high, Next, below),
            Test::Load(low_at),
            Test::If(code, low, yes, no),
        ]
    };
    match condition.compare {
        Compare::Equal(value) => {
            let (high, low) = halves(value);
            vec![
                Test::Load(high_at),
                Test::If(IF_EQUAL, high, Next, Fail),
                Test::Load(low_at),
                Test::If(IF_EQUAL, low, Next, Fail),
            ]
        }
        Compare::NotEqual(value) => {
            let (high, low) = halves(value);
            vec![
                Test::Load(high_at),
                Test::If(IF_EQUAL, high, Next, Hold),
                Test::Load(low_at),
                Test::If(IF_EQUAL, low, Fail, Next),
            ]
        }
        Compare::Less(value) => ordered(value, Fail, Hold, IF_AT_LEAST, Fail, Next),
        Compare::LessOrEqual(value) => ordered(value, Fail, Hold, IF_GREATER, Fail, Next),
        Compare::Greater(value) => ordered(value, Hold, Fail, IF_GREATER, Next, Fail),
        Compare::GreaterOrEqual(value) => ordered(value, Hold, Fail, IF_AT_LEAST, Next, Fail),
        Compare::Masked(mask, value) => {
            let mut code = Vec::with_capacity(6);
            for (at, mask, value) in
                [(high_at, halves(mask).0, halves(value).0), (low_at, halves(mask).1, halves(value).1)]
            {
                if mask == 0 && value == 0 {
                    continue;
                }
                code.push(Test::Load(at));
                if mask != u32::MAX {
                    code.push(Test::And(mask));
                }
                code.push(Test::If(IF_EQUAL, value, Next, Fail));
            }
            code
        }
    }
}

/// A program from its end to its beginning: what is pushed later is executed earlier.
struct Backwards {
    code: Vec<Instruction>,
    /// Where the newest copy of each leaf begins.
    shared: Vec<Option<usize>>,
}

/// How far back a leaf is used again. Conditional jumps reach 255 instructions; the rest is for the search's own.
const NEAR: usize = 150;

impl Backwards {
    fn push(&mut self, code: u16, k: u32) {
        self.code.push(Instruction { code, jump_true: 0, jump_false: 0, k });
    }

    /// The search among ranges (not empty): halves them. Returns where it begins.
    fn search(&mut self, ranges: &[(u32, u16)], leaves: &[Vec<Instruction>]) -> Result<usize, Error> {
        if let [(_, decision)] = ranges {
            return self.leaf(usize::from(*decision), leaves);
        }
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        let mut yes = self.search(upper, leaves)?;
        let mut no = self.search(lower, leaves)?;
        // A target too far away gets a stepping stone, which moves the other one further.
        let (yes_skip, no_skip) = loop {
            match (u8::try_from(self.code.len() - 1 - yes), u8::try_from(self.code.len() - 1 - no)) {
                (Ok(yes), Ok(no)) => break (yes, no),
                (Err(_), _) => yes = self.stone(yes)?,
                (_, Err(_)) => no = self.stone(no)?,
            }
        };
        self.code.push(Instruction { code: IF_AT_LEAST, jump_true: yes_skip, jump_false: no_skip, k: upper[0].0 });
        Ok(self.code.len() - 1)
    }

    /// The code of a decision; one that is near is used again.
    fn leaf(&mut self, decision: usize, leaves: &[Vec<Instruction>]) -> Result<usize, Error> {
        if let Some(Some(there)) = self.shared.get(decision)
            && self.code.len() - there <= NEAR
        {
            return Ok(*there);
        }
        self.code.extend(leaves.get(decision).into_iter().flatten().rev());
        if self.code.len() > LONGEST {
            return Err(too_long());
        }
        let begins = self.code.len() - 1;
        if let Some(slot) = self.shared.get_mut(decision) {
            *slot = Some(begins);
        }
        Ok(begins)
    }

    /// An instruction here that leads to a place far behind: a plain jump reaches any distance.
    fn stone(&mut self, target: usize) -> Result<usize, Error> {
        let skip = u32::try_from(self.code.len() - 1 - target).map_err(|_| too_long())?;
        self.push(JUMP, skip);
        Ok(self.code.len() - 1)
    }

    /// Makes the next instruction lead to a place.
    fn go_to(&mut self, target: usize) -> Result<(), Error> {
        if target + 1 != self.code.len() {
            self.stone(target)?;
        }
        Ok(())
    }
}
