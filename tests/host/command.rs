//! Commands on a test host: started inside its namespaces, with a time limit, output kept byte by byte.

use std::cell::RefCell;
use std::ffi::CString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::namespaces::Namespaces;
use super::wait_until;

/// No command of a test may take longer.
const COMMAND_LIMIT: Duration = Duration::from_secs(240);
/// How long output may stay open after its command has ended: somebody else holds it then.
const OUTPUT_LIMIT: Duration = Duration::from_secs(60);

/// How a command ended and what it wrote.
#[derive(Clone)]
pub struct Output {
    pub command: String,
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    /// The exit code as a shell shows it: 128+n for death by signal n.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Standard output without its last newline.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_string()
    }

    /// Standard error without its last newline.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end_matches('\n').to_string()
    }

    /// Fails the test unless the exit code is 0.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.exits(0)
    }

    /// Fails the test unless the exit code is this.
    #[track_caller]
    pub fn exits(self, code: i32) -> Output {
        assert!(self.code() == code, "exit code {} and not {code}:\n{}", self.code(), self.describe());
        self
    }

    /// Fails the test unless the exit code is one of these.
    #[track_caller]
    pub fn exits_any(self, codes: &[i32]) -> Output {
        assert!(codes.contains(&self.code()), "exit code {} and none of {codes:?}:\n{}", self.code(), self.describe());
        self
    }

    /// Fails the test unless standard error has all of these words.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Output {
        for word in words {
            assert!(self.err().contains(word), "standard error doesn't say '{word}':\n{}", self.describe());
        }
        self
    }

    pub fn describe(&self) -> String {
        let (stdout, stderr) = (shorten(&self.stdout), shorten(&self.stderr));
        format!("$ {}\n  exit code {}\n  stdout: {stdout}\n  stderr: {stderr}\n", self.command, self.code())
    }
}

/// A command that is not started yet.
pub struct Invocation<'a> {
    command: Command,
    text: String,
    input: Option<Vec<u8>>,
    history: &'a RefCell<Vec<String>>,
}

impl<'a> Invocation<'a> {
    pub fn new(
        place: &'a Namespaces,
        words: Vec<String>,
        environment: Vec<(String, String)>,
        folder: &Path,
        history: &'a RefCell<Vec<String>>,
    ) -> Invocation<'a> {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(environment);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        enter_before_exec(&mut command, place, folder);
        let short = words[0].rsplit('/').next().unwrap_or_default().to_string();
        let text =
            std::iter::once(short).chain(words[1..].iter().map(|word| quoted(word))).collect::<Vec<_>>().join(" ");
        Invocation { command, text, input: None, history }
    }

    /// One more environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Standard input: these bytes, then its end.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.command.stdin(Stdio::piped());
        self.input = Some(bytes.into());
        self
    }

    /// Standard input: an open pipe, see [`Running::stdin`].
    pub fn open_input(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    /// The plain command, for a test that needs other descriptors. It doesn't come into the history.
    pub fn raw(self) -> Command {
        self.command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Output {
        let history = self.history;
        let output = self.start().wait();
        history.borrow_mut().push(output.describe());
        output
    }

    /// Starts it. Its output is read all the time, so it never waits for the test.
    #[track_caller]
    pub fn spawn(self) -> Running {
        self.history.borrow_mut().push(format!("$ {} &\n", self.text));
        self.start()
    }

    #[track_caller]
    fn start(mut self) -> Running {
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", self.text));
        let stdin = child.stdin.take();
        let stdin = match (stdin, self.input.take()) {
            (Some(mut pipe), Some(bytes)) => {
                std::thread::spawn(move || pipe.write_all(&bytes)); // an early end of the reader is no failure
                None
            }
            (stdin, _) => stdin,
        };
        let stdout = Capture::start(child.stdout.take().expect("piped"));
        let stderr = Capture::start(child.stderr.take().expect("piped"));
        Running { command: self.text, child, stdin, stdout, stderr, ended: false }
    }
}

/// A started command. Killed when dropped.
pub struct Running {
    pub command: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Capture,
    stderr: Capture,
    ended: bool,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input (see [`Invocation::open_input`]).
    pub fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().expect("open_input").write_all(bytes).unwrap();
    }

    /// Ends its standard input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Waits until it is attached to a container: it watches for signals from then on.
    #[track_caller]
    pub fn wait_attached(&self) {
        wait_attached(self.pid());
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until standard output has this text.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let told = super::within(super::LIMIT, || self.stdout().contains(text));
        assert!(
            told,
            "waited in vain for '{text}' from\n$ {}\n  stdout: {}\n  stderr: {}",
            self.command,
            self.stdout(),
            self.stderr()
        );
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end and the end of its output.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        self.stdin = None;
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > COMMAND_LIMIT {
                panic!(
                    "not ended after {COMMAND_LIMIT:?}:\n$ {}\n  stdout: {}\n  stderr: {}",
                    self.command,
                    self.stdout(),
                    self.stderr()
                );
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        };
        self.ended = true;
        let closed = super::within(OUTPUT_LIMIT, || self.stdout.closed() && self.stderr.closed());
        let output =
            Output { command: self.command.clone(), status, stdout: self.stdout.bytes(), stderr: self.stderr.bytes() };
        assert!(closed, "ended, but another process holds its output open:\n{}", output.describe());
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Bytes read from a pipe by a thread.
#[derive(Clone)]
pub struct Capture(Arc<Mutex<(Vec<u8>, bool)>>);

impl Capture {
    pub fn start(mut source: impl Read + Send + 'static) -> Capture {
        let capture = Capture(Arc::default());
        let shared = capture.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            loop {
                match source.read(&mut buffer) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Ok(count) if count > 0 => shared.0.lock().unwrap().0.extend_from_slice(&buffer[..count]),
                    _ => break shared.0.lock().unwrap().1 = true, // a terminal ends with EIO
                }
            }
        });
        capture
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().0.clone()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().0).into_owned()
    }

    pub fn closed(&self) -> bool {
        self.0.lock().unwrap().1
    }
}

/// Lets the command's new process enter the namespaces before its exec, and a folder there (entering a mount
/// namespace leads to its root).
fn enter_before_exec(command: &mut Command, place: &Namespaces, folder: &Path) {
    let (place, folder) = (place.duplicate(), CString::new(folder.as_os_str().as_bytes()).unwrap());
    // SAFETY: the closure runs between fork and exec of a threaded process: it must not allocate or lock. It makes
    // three system calls on values that were ready before the fork.
    unsafe {
        command.pre_exec(move || {
            place.enter()?;
            Ok(nix::unistd::chdir(folder.as_c_str())?)
        })
    };
}

/// Waits until a client of `attach` (or `run`) has been answered by the monitor.
#[track_caller]
pub fn wait_attached(client: u32) {
    wait_until("the client is attached", || {
        let entries = std::fs::read_dir(format!("/proc/{client}/fd")).into_iter().flatten().flatten();
        let mut targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.any(|target| target.to_string_lossy().contains("[signalfd]"))
    });
}

/// Waits until a port of the calling namespace is listened on. Reads /proc, so that no connection is made.
pub fn wait_listening(place: &Namespaces, port: u16) {
    wait_until(&format!("port {port} is listened on"), || listening(place, port));
}

/// Whether a TCP socket of this namespace listens on the port.
pub fn listening(place: &Namespaces, port: u16) -> bool {
    let suffix = format!(":{port:04X}");
    place.run(|| {
        ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"].iter().any(|table| {
            let text = std::fs::read_to_string(table).unwrap_or_default();
            text.lines().skip(1).any(|line| {
                let mut fields = line.split_whitespace().skip(1);
                fields.next().is_some_and(|local| local.ends_with(&suffix)) && fields.nth(1) == Some("0A")
            })
        })
    })
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn shorten(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(6000) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], bytes.len()),
        None => text.into_owned(),
    }
}
