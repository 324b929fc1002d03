//! seccomp(2): the one raw system call of this module.

use std::io;

use super::Instruction;

/// Log refused calls (SECCOMP_FILTER_FLAG_LOG).
pub const FLAG_LOG: u32 = 2;
/// Leave speculative store bypass on (SECCOMP_FILTER_FLAG_SPEC_ALLOW), as runc does by default: its mitigation slows
/// down everything in the container.
pub const FLAG_SPEC_ALLOW: u32 = 4;

/// `struct sock_fprog` of linux/filter.h.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Puts the calling thread, and all it starts from now on, under a filter. Does not allocate.
///
/// # Errors
/// EACCES without CAP_SYS_ADMIN when no_new_privs is not set; EINVAL for an empty, wrong or too long program, or
/// without CONFIG_SECCOMP_FILTER.
pub fn install(program: &[Instruction], flags: u32) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = Program { length, instructions: program.as_ptr() };
    let flags = libc::c_ulong::from(flags & (FLAG_LOG | FLAG_SPEC_ALLOW));
    // SAFETY: the kernel reads `length` instructions of 8 bytes from the slice, which is borrowed until the call
    // returns and is repr(C) like struct sock_filter; it copies them and writes nothing. The flags can't be the one that
    // makes the call return a descriptor. What the filter then refuses are errors of later calls, not memory faults.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&program)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
