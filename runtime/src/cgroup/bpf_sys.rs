//! bpf(2): loading a program and attaching it to a cgroup2 group. The only unsafe code of the cgroup family.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use super::program::Instruction;

// linux/bpf.h
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;

/// What a program is for: its type, and where it's attached.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// BPF_PROG_TYPE_CGROUP_DEVICE: mknod and open.
    Device,
    /// BPF_PROG_TYPE_CGROUP_SKB at BPF_CGROUP_INET_EGRESS: packets on their way out.
    Egress,
}

impl Kind {
    fn program_type(self) -> u32 {
        match self {
            Kind::Device => 15,
            Kind::Egress => 8,
        }
    }

    fn attach_type(self) -> u32 {
        match self {
            Kind::Device => 6,
            Kind::Egress => 1,
        }
    }
}

/// Programs of groups above and of other owners stay in force beside ours.
const ALLOW_MULTI: u32 = 2;

/// The head of `union bpf_attr` for BPF_PROG_LOAD, up to prog_name.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The head of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

const LICENSE: &CStr = c"Apache-2.0";

/// Loads a program; the verifier checks it.
///
/// # Errors
/// EPERM without CAP_BPF or CAP_SYS_ADMIN, EINVAL when the kernel lacks CONFIG_CGROUP_BPF or its verifier refuses.
pub(super) fn load(kind: Kind, code: &[Instruction]) -> io::Result<OwnedFd> {
    let mut name = [0u8; 16];
    name[..11].copy_from_slice(b"minidockdev");
    let attributes = LoadAttributes {
        program_type: kind.program_type(),
        instruction_count: u32::try_from(code.len()).map_err(io::Error::other)?,
        instructions: code.as_ptr().addr() as u64,
        license: LICENSE.as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name,
    };
    let fd = bpf(PROG_LOAD, &attributes)?;
    // SAFETY: BPF_PROG_LOAD returned this descriptor just now (close-on-exec, always), so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to the group whose folder is open as `group`. It stays as long as the group.
///
/// # Errors
/// EINVAL without CONFIG_CGROUP_BPF, EPERM where a group above forbids further programs.
pub(super) fn attach(kind: Kind, group: BorrowedFd, program: BorrowedFd) -> io::Result<()> {
    let attributes = AttachAttributes {
        target: group.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: kind.attach_type(),
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &attributes).map(drop)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads size_of::<T>() bytes of a live value whose layout is the head of union bpf_attr for this
    // command (it takes shorter unions as zero-filled); the pointers inside come from slices that the callers borrow
    // until the call returns, with their true lengths; no log buffer is given, so the kernel writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(io::Error::other)
}
