//! Finds the program as the container's user sees it, and executes it.
//!
//! Until execve this process runs the engine's own binary, so `/proc/self/exe` is a door to it (CVE-2019-5736): neither
//! the program nor the interpreter of a script may be reached through a magic link. What is left is covered by the
//! kernel, which lets nobody write to a binary that runs (ETXTBSY), and the monitor runs as long as the container.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Process, identity};
use crate::channel::Channel;
use crate::error::{StartError, text};
use crate::sys::{self, StringArray};

/// What the kernel reads of a script's first line (BINPRM_BUF_SIZE), and how many interpreters deep it goes.
const SCRIPT_LINE: usize = 256;
const SCRIPT_DEPTH: u32 = 5;

/// Executes the process's `args[0]`, found in `env`'s PATH. Returns only when that failed; the caller is told right before.
pub(crate) fn execute(process: &Process, env: &[CString], channel: &Channel) -> StartError {
    let args = &process.args;
    let Some(name) = args.first() else {
        return StartError::new("no command specified");
    };
    let path = match find(name, env) {
        Ok(path) => path,
        Err(error) => return error,
    };
    let (arguments, environment) = (StringArray::new(args), StringArray::new(env));
    if let Err(error) = identity::limit_descriptors(process) {
        return error;
    }
    // Not heard only when the caller is gone, and then the parent-death signal is on its way.
    let _ = channel.ready();
    let error = sys::execve(&path, &arguments, &environment);
    let shown = path.to_string_lossy();
    match error.raw_os_error() {
        // The file was there a moment ago: what is missing is its interpreter or dynamic loader.
        Some(libc::ENOENT) => StartError::not_found(format!(
            "exec {shown}: no such file or directory: the interpreter (#! line) or dynamic loader that it names is not in the image"
        )),
        Some(libc::ENOEXEC) => StartError::not_executable(format!("exec {shown}: exec format error")),
        Some(libc::E2BIG) => {
            StartError::not_executable(format!("exec {shown}: the arguments and the environment are too long"))
        }
        _ => StartError::not_executable(format!("exec {shown}: {}", text(&error).to_lowercase())),
    }
}

fn find(name: &CStr, env: &[CString]) -> Result<CString, StartError> {
    let shown = name.to_string_lossy();
    if name.to_bytes().contains(&b'/') {
        return match check(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(error) => {
                Err(refusal(error, &shown, || format!("exec: \"{shown}\": stat {shown}: no such file or directory")))
            }
        };
    }
    let path = env.iter().rev().find_map(|variable| variable.to_bytes().strip_prefix(b"PATH=")).unwrap_or_default();
    let mut found = Errno::NOENT;
    for folder in path.split(|byte| *byte == b':') {
        // An empty part is the working directory, as for a shell; Go's look-up, and so docker's, refuses such a find.
        let candidate = Path::new(OsStr::from_bytes(folder)).join(OsStr::from_bytes(name.to_bytes()));
        let Ok(candidate) = CString::new(candidate.as_os_str().as_bytes()) else {
            continue;
        };
        if folder.is_empty() {
            continue;
        }
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            // A file that can't be executed is worth telling, unless a later folder has a better one.
            Err(error @ (Errno::ACCESS | Errno::LOOP)) if found == Errno::NOENT => found = error,
            // Not the program's fault, and the same in the next folder.
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => {
                found = error;
                break;
            }
            Err(_) => {}
        }
    }
    Err(refusal(found, &shown, || format!("exec: \"{shown}\": executable file not found in $PATH")))
}

fn refusal(error: Errno, name: &str, not_found: impl FnOnce() -> String) -> StartError {
    match error {
        Errno::NOENT | Errno::NOTDIR => StartError::not_found(not_found()),
        Errno::ISDIR => StartError::not_executable(format!("exec: \"{name}\": is a directory")),
        Errno::ACCESS | Errno::PERM => StartError::not_executable(format!("exec: \"{name}\": permission denied")),
        Errno::LOOP => StartError::not_executable(format!(
            "exec: \"{name}\": it, or the interpreter in its first line, leads through a magic or endless link (security)"
        )),
        error => StartError::not_executable(format!("exec: \"{name}\": {}", text(&error.into()).to_lowercase())),
    }
}

/// Whether this user can execute a regular file, which is really in the container, and whose interpreters are.
fn check(path: &CStr) -> Result<(), Errno> {
    let file = open(path, OFlags::PATH)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        _ => return Err(Errno::ACCESS),
    }
    // By the ids and capabilities that it will run with.
    rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?;
    let mut next = interpreter(path)?;
    for _ in 0..SCRIPT_DEPTH {
        let Some(path) = next else { break };
        // Missing ones are execve's to report.
        match open(&path, OFlags::PATH) {
            Err(Errno::LOOP) => return Err(Errno::LOOP),
            Err(_) => break,
            Ok(_) => next = interpreter(&path)?,
        }
    }
    Ok(())
}

/// The program in a script's first line.
fn interpreter(path: &CStr) -> Result<Option<CString>, Errno> {
    // A program that can be executed and not read is no script: the kernel couldn't read its first line for the user either.
    let Ok(file) = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) else {
        return Ok(None);
    };
    let mut line = [0u8; SCRIPT_LINE];
    let read = rustix::io::read(&file, &mut line)?;
    let Some(rest) = line[..read].strip_prefix(b"#!") else {
        return Ok(None);
    };
    let rest = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let word = rest.split(|byte| matches!(byte, b' ' | b'\t' | 0)).find(|word| !word.is_empty());
    Ok(word.and_then(|word| CString::new(word).ok()))
}

fn open(path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    match rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        // A seccomp profile of the user's own may not know openat2 (Linux 5.6).
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::open(path, flags, Mode::empty()),
        result => result,
    }
}
