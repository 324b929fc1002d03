//! minidock: a minimal but real container engine with networking built in.
//!
//! Reads the command line, carries the command out, and decides the exit code. See ARCHITECTURE.md for the way of a run.

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
mod error;
mod events;
mod explain;
mod facts;
mod files;
mod format;
mod glob;
mod graph;
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
mod recover;
mod request;
mod reservation;
mod residue;
mod roots;
mod router;
mod sizes;
mod start;
mod state;
mod streams;
mod sys;
mod terminal;
mod view;
mod volume;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    // Programs inside the program: they aren't docker's commands and need no command line parser.
    match arguments.peek().and_then(|word| word.to_str()) {
        Some("demo-server") => return demo::main(&arguments.skip(1).collect::<Vec<OsString>>()),
        Some("proxy") => return proxy(arguments.skip(1).collect()),
        _ => {}
    }
    let invocation = match cli::parse(arguments, &|name| std::env::var_os(name)) {
        Ok(invocation) => invocation,
        Err(stop) => return stop.report().into(),
    };
    let is_run = matches!(invocation.command, cli::Command::Run(_) | cli::Command::Create(_));
    match commands::dispatch(invocation.global, invocation.command) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("minidock: {}", error::text(&error));
            commands::exit_code(&error, is_run).into()
        }
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
