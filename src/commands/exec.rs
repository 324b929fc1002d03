//! `exec`: a further program in a running container, with a relay of its own.
//!
//! The relay is a fork of this process, as a container's monitor is; when the client is killed, the program is too.

use std::io;
use std::os::fd::AsFd;

use anyhow::{Context, Result, anyhow, bail};
use oci_spec::runtime::{LinuxCapabilities, PosixRlimitBuilder, PosixRlimitType, Process, Spec};
use runtime::Seccomp;
use runtime::exec::{Target, spawn};
use runtime::init::{Running, Stdio};

use super::run;
use crate::cli::ExecArgs;
use crate::client::{self, Ended};
use crate::containers;
use crate::error::Failure;
use crate::events::{self, Event};
use crate::monitor::ending::Ending;
use crate::monitor::fork::{Connection, Mode, fork};
use crate::monitor::peers::Peers;
use crate::monitor::relay::{self, Relay};
use crate::monitor::send;
use crate::names;
use crate::plan::paths::ContainerFolder;
use crate::request::security::Seccomp as WantedSeccomp;
use crate::request::{ExecRequest, Invalid, RunRequest, Surroundings, environment};
use crate::roots::Roots;
use crate::state::{State, Status};
use crate::streams::{self, Streams};
use crate::terminal;
use crate::view;
use crate::wire;

/// Runs a program in a container; the exit code is the program's.
pub fn exec(roots: &Roots, args: &ExecArgs) -> Result<u8> {
    let request = ExecRequest::gather(args, &Surroundings::real())
        .map_err(|invalid| Invalid { code: if invalid.code == 126 { 126 } else { 1 }, ..invalid })?;
    request.check_terminal(rustix::termios::isatty(io::stdin()))?;
    let state = containers::find_running(roots, &request.container)?;
    if state.status == Status::Paused {
        bail!("Container {} is paused, unpause the container before exec", state.id);
    }
    let run_request = view::request(&state)?;
    let spec = spec(roots, &state)?;
    let program =
        Program { process: process(&request, &run_request, &spec, &state)?, spec, state, request, run_request };
    let ExecRequest { detach, interactive, terminal, .. } = program.request;
    // docker: the input of a detached program is empty.
    let interactive = interactive && !detach;
    let mode = Mode { detach, interactive, attach_stdin: interactive, terminal, reads_facts: false };
    let size = terminal::size(io::stdin().as_fd());
    let mut client = fork(mode, |connection| relay(roots, &program, connection, size))?;
    client.options.detach_keys = program.request.detach_keys.clone();
    match client::run(client, &mut || Ok(()))? {
        Ended::Detached if detach => Ok(0),
        Ended::Detached => bail!(client::DETACHED),
        Ended::Signal(number) => Ok(128 + number as u8),
        Ended::Exit(code) => Ok(code as u8),
        Ended::Failed { code, message } => {
            let hint =
                run::flag_hint(&message, program.request.command.first().map(|word| word.as_os_str()), "container");
            eprintln!("OCI runtime exec failed: exec failed: unable to start container process: {message}{hint}");
            Ok(code as u8)
        }
        Ended::BrokenPipe => Ok(128 + libc::SIGPIPE as u8),
    }
}

/// Starts the program of a health check, in the surroundings of the container's own.
pub fn probe(roots: &Roots, state: &State, command: &[String]) -> Result<(Running, [Option<std::os::fd::OwnedFd>; 2])> {
    let request = ExecRequest {
        container: state.id.clone(),
        command: command.iter().map(std::ffi::OsString::from).collect(),
        detach: false,
        interactive: false,
        terminal: false,
        privileged: false,
        environment: vec![],
        detach_keys: Default::default(),
        user: None,
        working_dir: None,
    };
    let run_request = view::request(state)?;
    let spec = spec(roots, state)?;
    let process = process(&request, &run_request, &spec, state)?;
    start(&Program { process, spec, state: state.clone(), request, run_request }, None, (0, 0))
}

/// The OCI configuration that it was started with.
fn spec(roots: &Roots, state: &State) -> Result<Spec> {
    let path = ContainerFolder::new(&roots.container(&state.id)).config();
    let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
}

struct Program {
    state: State,
    spec: Spec,
    request: ExecRequest,
    run_request: RunRequest,
    process: Process,
}

/// The container's own process with what `exec` says differently.
fn process(request: &ExecRequest, run: &RunRequest, spec: &Spec, state: &State) -> Result<Process> {
    let mut process = spec.process().clone().ok_or_else(|| anyhow!("the container's configuration has no process"))?;
    let utf8 = |words: Vec<std::ffi::OsString>| -> Result<Vec<String>> {
        words
            .into_iter()
            .map(|word| word.into_string().map_err(|word| anyhow!("not UTF-8 text: {}", word.display())))
            .collect()
    };
    let mut base: Vec<std::ffi::OsString> = process.env().iter().flatten().map(Into::into).collect();
    if request.terminal && !run.terminal {
        base.push("TERM=xterm".into());
    }
    process
        .set_args(Some(utf8(request.command.clone())?))
        .set_env(Some(utf8(environment::merge(base, &request.environment))?))
        .set_terminal(Some(request.terminal));
    limit_open_files(&mut process, state)?;
    if let Some(folder) = &request.working_dir {
        process.set_cwd(folder.clone());
    }
    if request.privileged {
        let all = runtime::Facts::read()?.capabilities.to_oci();
        let mut capabilities = LinuxCapabilities::default();
        capabilities
            .set_bounding(Some(all.clone()))
            .set_permitted(Some(all.clone()))
            .set_effective(Some(all))
            .set_inheritable(None)
            .set_ambient(None);
        process.set_capabilities(Some(capabilities));
    }
    Ok(process)
}

/// The container's, not the caller's: a monitor has raised its own, and docker's `exec` doesn't depend on the caller.
fn limit_open_files(process: &mut Process, state: &State) -> Result<()> {
    let mut limits = process.rlimits().clone().unwrap_or_default();
    let Some((soft, hard)) = state.open_files else { return Ok(()) };
    if limits.iter().any(|limit| limit.typ() == PosixRlimitType::RlimitNofile) {
        return Ok(());
    }
    // A caller with less and without CAP_SYS_RESOURCE can't give more than it has.
    let ours = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let hard = hard.min(ours);
    let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(soft.min(hard)).hard(hard);
    limits.push(limit.build()?);
    process.set_rlimits(Some(limits));
    Ok(())
}

fn relay(roots: &Roots, program: &Program, connection: Connection, size: (u16, u16)) -> i32 {
    let Connection { client, stdin, keep_stdin, facts: _ } = connection;
    drop(keep_stdin); // nobody attaches to it: its input ends with the client's
    let (running, outputs) = match streams::leave_stdio().and_then(|()| start(program, stdin, size)) {
        Ok(started) => started,
        Err(error) => {
            let failure = Failure::from(error);
            // docker: 127 for a missing program, 126 for all else that keeps it from running; 1 for exec -d.
            let code = match failure.code {
                _ if program.request.detach => 1,
                crate::error::ENGINE_FAILED => 126,
                code => code,
            };
            let mut content = i32::from(code).to_le_bytes().to_vec();
            content.extend_from_slice(failure.message.as_bytes());
            send(&client, wire::FAILED, &content);
            return 1;
        }
    };
    send(&client, wire::STARTED, &[]);
    runtime::process::show_as(&format!("minidock: exec {}", program.state.name));
    let exec_id = names::new_id();
    let event = |action: &str| Event::container(action, &program.state).with("execID", &exec_id);
    let command: Vec<_> = program.request.command.iter().map(|word| word.to_string_lossy()).collect();
    let command = command.join(" ");
    events::note_all(roots, ["exec_create", "exec_start"].map(|action| event(&format!("{action}: {command}"))));
    let detach = program.request.detach;
    let mut relay = Relay {
        pidfd: running.pidfd,
        outputs,
        terminal: running.terminal,
        log: None,
        peers: Peers::owner((!detach).then_some(client)),
        served: None,
        to_terminal: vec![],
        running: true,
        ending: Ending::new(),
        stdin: None,
        on_detach: Some((roots.clone(), event("exec_detach"))),
    };
    let ended = relay.run(|_, _| ()).unwrap_or(relay::Ended { code: 255, killed: false });
    events::note(roots, event("exec_die").with("exitCode", ended.code));
    relay.peers.end(ended.code);
    relay.peers.flush();
    0
}

fn start(
    program: &Program,
    stdin: Option<std::os::fd::OwnedFd>,
    size: (u16, u16),
) -> Result<(Running, [Option<std::os::fd::OwnedFd>; 2])> {
    let (state, run) = (&program.state, &program.run_request);
    let Some(process) = state.process else { bail!("container {} is not running", state.name) };
    let seccomp = match &run.security.seccomp {
        _ if program.request.privileged => Seccomp::Unconfined,
        WantedSeccomp::File { .. } => Seccomp::FromSpec,
        WantedSeccomp::Default if !run.security.privileged => Seccomp::Default,
        _ => Seccomp::Unconfined,
    };
    let user = program.request.user.as_deref().or(Some(state.config.user.as_str()).filter(|user| !user.is_empty()));
    let target = Target {
        pid: process.pid,
        starttime: process.start_ticks,
        id: &state.id,
        spec: &program.spec,
        seccomp,
        user,
        group_add: &run.groups,
        die_with_caller: !program.request.detach,
    };
    let (stdio, outputs) = if program.request.terminal {
        (Stdio::Terminal { rows: size.0, columns: size.1 }, [None, None])
    } else {
        let Streams { inside: [stdin, stdout, stderr], outputs: [out, err] } = Streams::new(stdin)?;
        (Stdio::Pipes { stdin, stdout, stderr }, [Some(out), Some(err)])
    };
    Ok((spawn(target, &program.process, stdio)?, outputs))
}
