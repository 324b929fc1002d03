//! seccomp: which system calls a container may make, as one classic BPF program.
//!
//! Docker's default rules ([`default_filter`]) and OCI profiles ([`compile`]) go through the same compiler: a binary
//! search over ranges of call numbers instead of a chain of comparisons, ten times cheaper to install and to run.

mod build;
mod default;
mod oci;
mod sys;
mod table;
#[cfg(test)]
mod tests;

pub use default::default_filter;
pub use oci::{Filter, compile};
pub use sys::{FLAG_LOG, FLAG_SPEC_ALLOW, install};

/// One instruction of classic BPF, `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip when it does not.
    pub jump_false: u8,
    /// The constant.
    pub k: u32,
}

/// A profile that can't become a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid seccomp profile: {0}")]
pub struct Error(pub(crate) String);

/// The system call conventions whose numbers are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "each processor has its own"))]
pub(crate) enum Arch {
    X86_64 = 0,
    I386 = 1,
    /// Shares the audit number of x86_64, and marks its call numbers with [`X32_BIT`].
    X32 = 2,
    Aarch64 = 3,
}

/// Set in the call numbers of x32; arch/x86/include/uapi/asm/unistd.h.
const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    /// `AUDIT_ARCH_*` of linux/audit.h, as the kernel puts it into `struct seccomp_data`.
    fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => 0xc000_003e,
            Arch::I386 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
        }
    }

    fn bit(self) -> u32 {
        if self == Arch::X32 { X32_BIT } else { 0 }
    }
}

/// What this program's own processor runs, the program's own convention first.
#[cfg(target_arch = "x86_64")]
const NATIVE: &[Arch] = &[Arch::X86_64, Arch::X32, Arch::I386];
/// What this program's own processor runs. 32-bit ARM calls are refused whole.
#[cfg(target_arch = "aarch64")]
const NATIVE: &[Arch] = &[Arch::Aarch64];

// Results of a filter; linux/seccomp.h.
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const TRACE: u32 = 0x7ff0_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
