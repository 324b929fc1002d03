//! minidock: a minimal but real container engine with networking built in.
//!
//! Reads the command line, carries the command out, and decides the exit code. See ARCHITECTURE.md for the way of a run.

#[macro_use]
mod stdout;

mod changes;
mod cli;
mod client;
mod commands;
mod config;
mod containers;
mod copy;
mod crash;
mod demo;
mod demo_image;
mod doctor;
mod error;
mod events;
mod explain;
mod facts;
mod files;
mod format;
mod glob;
mod graph;
mod health;
mod host_netns;
mod journal;
mod log;
mod monitor;
mod name_register;
mod names;
mod near;
mod network;
mod op;
mod plan;
mod process;
mod processes;
mod progress;
mod ranges;
mod recover;
mod request;
mod reservation;
mod residue;
mod roots;
mod router;
mod session;
mod sizes;
mod start;
mod state;
mod streams;
mod sys;
mod terminal;
mod unknown;
mod view;
mod volume;
mod walk;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    // Programs inside the program: they aren't docker's commands and need no command line parser.
    match arguments.peek().and_then(|word| word.to_str()) {
        Some("demo-server") => return demo::main(&arguments.skip(1).collect::<Vec<OsString>>()),
        Some("__complete") => {
            let words: Vec<String> = arguments.skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
            commands::shell::complete(&words);
            return ExitCode::SUCCESS;
        }
        Some("proxy") => return proxy(arguments.skip(1).collect()),
        _ => {}
    }
    sys::keep_freed_memory();
    let invocation = match cli::parse(arguments, &|name| std::env::var_os(name)) {
        Ok(invocation) => invocation,
        Err(stop) => return stop.report().into(),
    };
    if !matches!(invocation.command, cli::Command::Session(_) | cli::Command::Boot(_)) {
        sys::default_interrupts();
    }
    fit_tables();
    let is_run = matches!(invocation.command, cli::Command::Run(_));
    match commands::dispatch(invocation.global, invocation.command) {
        // Its client has nothing left but memory to give back, which the kernel does faster.
        Ok(code) if is_run => sys::exit_now(i32::from(stdout::code(code))),
        Ok(code) => stdout::code(code).into(),
        Err(error) => {
            eprintln!("minidock: {}{}", error::text(&error), commands::see_help(&error, is_run));
            commands::exit_code(&error, is_run).into()
        }
    }
}

/// On a terminal, tables fit it; `--no-trunc` means what it says.
fn fit_tables() {
    let whole = || std::env::args_os().any(|word| word.to_str().is_some_and(|word| word.starts_with("--no-trunc")));
    let stdout = std::io::stdout();
    if rustix::termios::isatty(&stdout) && !whole() {
        let (_, columns) = terminal::size(std::os::fd::AsFd::as_fd(&stdout));
        format::table::set_width(columns.into());
    }
}

/// `minidock proxy`: the built-in port proxy by hand, with docker-proxy's flags.
fn proxy(arguments: Vec<OsString>) -> ExitCode {
    match netsetup::proxy::run_by_hand(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
