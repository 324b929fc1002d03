//! Where the crash test kills this program: right before and right after each journal write, and each family's undo.
//!
//! Debug builds only; a release build has nothing of this. `MINIDOCK_CRASH=before:N|after:N` kills the process at its
//! N-th such point (counted over the monitor and its cleaner together), `all-before:N|all-after:N` the whole process
//! group, `stop-before:N|stop-after:N` stops the process until SIGCONT, and `MINIDOCK_CRASH_COUNT=FILE` appends a line for each.

/// Which side of the write.
#[derive(Clone, Copy, PartialEq)]
pub enum When {
    /// Nothing has been written yet.
    Before,
    /// The entry is in the file, its effect has not begun.
    After,
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_when: When) {}

/// Kills this process, or its process group, when the environment says so.
#[cfg(debug_assertions)]
pub fn point(when: When) {
    use std::io::Write;
    let Ok(count_file) = std::env::var("MINIDOCK_CRASH_COUNT") else { return };
    // The file is the counter: monitor and cleaner write the same journal one after the other.
    if when == When::Before
        && let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(&count_file)
    {
        let _ = file.write_all(b"write\n");
    }
    let Ok(wish) = std::env::var("MINIDOCK_CRASH") else { return };
    let number = std::fs::read_to_string(&count_file).unwrap_or_default().lines().count();
    let side = if when == When::Before { "before" } else { "after" };
    if wish == format!("{side}:{number}") {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    if wish == format!("stop-{side}:{number}") {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
    }
    if wish == format!("all-{side}:{number}") {
        let _ = rustix::process::kill_current_process_group(rustix::process::Signal::KILL);
    }
}
