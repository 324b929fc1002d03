//! The web server of the built-in demo image: `minidock demo-server [PORT]`. It shows what a container sees of itself.
//!
//! `/` is a page for people, `/json` the same for scripts ([`view::View`] documents the keys), `/healthz` says `ok`. One thread, one
//! poll loop, nothing needed from the file system but /proc: the minidock binary may be the only file of the image.

mod cgroup;
mod http;
mod network;
mod page;
mod process;
mod server;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: minidock demo-server [PORT]

A small web server that shows what its container sees: `/` for people, `/json` for scripts, `/healthz`.
It listens on all addresses at PORT, else at $PORT, else at 80, until SIGTERM or SIGINT.";

/// Runs until SIGTERM or SIGINT (exit code 0). `args` are what follows `minidock demo-server`.
pub fn main(args: &[OsString]) -> ExitCode {
    if args.iter().any(|arg| arg == "-h" || arg == "--help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let port = match port(args, std::env::var_os("PORT")) {
        Ok(port) => port,
        Err(error) => {
            eprintln!("minidock demo-server: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match server::run(port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("minidock demo-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn port(args: &[OsString], environment: Option<OsString>) -> Result<u16, String> {
    let (text, source) = match (args, environment) {
        ([], None) => return Ok(80),
        ([], Some(text)) => (text, "PORT="),
        ([text], _) => (text.clone(), ""),
        (_, _) => return Err("one argument at most, the port".to_string()),
    };
    let number = text.to_str().and_then(|text| text.trim().parse().ok()).filter(|port| *port != 0);
    number.ok_or_else(|| format!("{source}{} is not a port: 1-65535", text.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_comes_from_the_argument_else_the_environment_else_80() {
        let os = |text: &str| OsString::from(text);
        assert_eq!(port(&[], None), Ok(80));
        assert_eq!(port(&[], Some(os("8080"))), Ok(8080));
        assert_eq!(port(&[os("81")], Some(os("8080"))), Ok(81));
        assert_eq!(port(&[os("0")], None).unwrap_err(), "0 is not a port: 1-65535");
        assert_eq!(port(&[], Some(os("http"))).unwrap_err(), "PORT=http is not a port: 1-65535");
        assert!(port(&[os("1"), os("2")], None).is_err());
    }
}
