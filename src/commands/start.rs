//! `start` and `restart`: a further run of a container that is there already.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use serde_json::json;

use super::{Engine, attach, each, stop};
use crate::cli::{RestartArgs, StartArgs};
use crate::client::{self, Ended, Options, attached};
use crate::containers;
use crate::events::{self, Event};
use crate::facts;
use crate::journal::Journal;
use crate::monitor;
use crate::monitor::control::call;
use crate::monitor::fork::{Mode, fork};
use crate::request::Invalid;
use crate::request::streams::detach_keys;
use crate::roots::Roots;
use crate::start::kept::ALREADY_RUNS;
use crate::start::{Order, Origin};
use crate::state::{State, Status};
use crate::terminal;
use crate::view;

/// How long the end of a program and the start of its next run may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts containers. With `-a` the exit code is the program's.
pub fn start(engine: &Engine, args: &StartArgs) -> Result<u8> {
    if !args.attach && !args.interactive {
        return each(&args.containers, |name| {
            begin(engine, &containers::find(&engine.roots, name)?)?;
            println!("{name}");
            Ok(())
        });
    }
    let [name] = args.containers.as_slice() else {
        bail!("you cannot start and attach multiple containers at once");
    };
    let state = containers::find(&engine.roots, name)?;
    let detach_keys = detach_keys(args.detach_keys.as_deref()).map_err(|invalid| Invalid { code: 1, ..invalid })?;
    // docker: with a terminal, signals are typed.
    let options = Options { sig_proxy: !view::request(&state)?.terminal, detach_keys, ..Options::default() };
    let ended = if state.is_alive() {
        client::run(attached::join(&engine.roots, &state.id, args.interactive, options)?, &mut || Ok(()))?
    } else {
        launch(engine, &state, Some(options), args.interactive)?
    };
    match ended {
        Ended::Detached => Ok(0),
        ended => attach::exit_code(ended),
    }
}

/// Starts a container in the background; one that runs already is left alone, as docker does.
pub fn begin(engine: &Engine, state: &State) -> Result<()> {
    if state.is_alive() {
        if state.status == Status::Paused {
            bail!("cannot start a paused container, try unpause instead");
        }
        return Ok(());
    }
    match launch(engine, state, None, false)? {
        Ended::Failed { code, .. } if code == i32::from(ALREADY_RUNS) => Ok(()), // another minidock was faster
        Ended::Failed { message, .. } => Err(anyhow!(message)),
        _ => Ok(()),
    }
}

/// `options`: of the client that stays; none in the background.
fn launch(engine: &Engine, state: &State, options: Option<Options>, stdin: bool) -> Result<Ended> {
    let attach = options.is_some();
    let request = view::request(state)?;
    let (interactive, terminal) = (request.interactive, request.terminal);
    let mode = Mode { detach: !attach, interactive, attach_stdin: interactive && stdin, terminal, reads_facts: true };
    let engine = Engine { roots: engine.roots.clone(), config: engine.config.clone() };
    let size = terminal::size(io::stdin().as_fd());
    let order = Order {
        engine,
        request,
        id: state.id.clone(),
        size,
        origin: Origin::Kept,
        session: None,
        detach: !attach,
        early_facts: Cell::default(),
    };
    let mut client = fork(mode, |connection| monitor::main(order, connection))?;
    facts::read_early(client.facts_pipe.take());
    client.options = options.unwrap_or_default();
    client::run(client, &mut || Ok(()))
}

/// Waits for the next run; false when there is none, because another command has stopped it meanwhile.
fn wait_restarted(roots: &Roots, before: &State) -> Result<bool> {
    let folder = roots.container(&before.id);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let Some(state) = State::read(&folder)? else {
            bail!("container {} could not be started again, and is removed", before.name)
        };
        if state.started != before.started && state.status != Status::Restarting {
            return Ok(true); // perhaps it has ended again already
        }
        if !Journal::is_owned(&folder.join("journal")) {
            let state = containers::find(roots, &before.id)?;
            return if state.error.is_empty() { Ok(false) } else { Err(anyhow!("{}", state.error)) };
        }
        if Instant::now() >= deadline {
            bail!("container {} is still being started again", before.name);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Stops containers, all at once, and starts them again, one after the other.
pub fn restart(engine: &Engine, args: &RestartArgs) -> Result<u8> {
    let wanted = args.signal.as_deref().map(stop::signal_number).transpose()?;
    let begun: Vec<_> = args.containers.iter().map(|name| begin_restart(engine, name, wanted)).collect();
    let mut begun = begun.into_iter();
    each(&args.containers, |name| {
        let Some(begun) = begun.next() else { return Ok(()) };
        let (state, ending) = begun?;
        let mut restarted = false;
        if let Some(since) = ending {
            let grace = stop::grace(&state, args.timeout).map(|grace| grace.saturating_sub(since.elapsed()));
            stop::kill_after(&engine.roots, &state, grace);
            restarted = wait_restarted(&engine.roots, &state)?;
        }
        if !restarted {
            begin(engine, &containers::find(&engine.roots, name)?)?;
        }
        events::note(&engine.roots, Event::container("restart", &state));
        println!("{name}");
        Ok(())
    })
}

/// Tells its monitor to start it once more, and sends it its signal; gives the time of that. None: it doesn't run.
fn begin_restart(engine: &Engine, name: &str, signal: Option<i32>) -> Result<(State, Option<Instant>)> {
    let state = containers::find(&engine.roots, name)?;
    if !state.is_alive() {
        return Ok((state, None));
    }
    // Its monitor starts it again, so that one with --rm stays, as docker's does.
    let run = json!({ "pid": state.process.map(|process| process.pid) });
    match call::call(&engine.roots, &state.id, "restart", &run) {
        Ok(_) => {
            stop::signal_program(&engine.roots, &state, signal.unwrap_or(state.config.stop_signal));
            Ok((state, Some(Instant::now())))
        }
        // Unless it has just ended by itself.
        Err(error) if containers::find(&engine.roots, name)?.is_alive() => Err(error),
        Err(_) => Ok((state, None)),
    }
}
