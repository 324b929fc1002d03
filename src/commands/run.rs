//! `run` and `create`: checks the request, forks the container's monitor, and is its client until the program ends.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use images::Store;

use super::{Engine, ready};
use crate::cli::RunArgs;
use crate::client::{self, Ended};
use crate::config::Config;
use crate::demo_image;
use crate::facts;
use crate::monitor;
use crate::monitor::fork::{Mode, fork};
use crate::names;
use crate::request::network::NetworkMode;
use crate::request::ready::Wait;
use crate::request::{ImageSource, Invalid, RunRequest, Surroundings};
use crate::session;
use crate::start::{self, Order, Origin};
use crate::terminal;

/// Runs a container; the exit code is its program's.
pub fn run(engine: Engine, args: RunArgs) -> Result<u8> {
    let wait = Wait::from_args(&args);
    let order = order(engine, args, |request| request.check_terminal(rustix::termios::isatty(io::stdin())))?;
    let wait = wait?;
    if let Some(wait) = &wait {
        start::check_wait(&order, wait)?;
    }
    if order.request.dry_run {
        print!("{}", start::script::dry_run(&order)?);
        return Ok(0);
    }
    let mut cid_file = order.request.cid_file.as_deref().map(CidFile::create).transpose()?;
    let (detach, id, roots) = (order.request.detach, order.id.clone(), order.engine.roots.clone());
    let request = &order.request;
    let (interactive, terminal) = (request.interactive, request.terminal);
    let mode = Mode { detach, interactive, attach_stdin: interactive && !detach, terminal, reads_facts: true };
    let options = request.streams.options();
    let first_word = order.request.command.first().cloned();
    let mut client = fork(mode, |connection| monitor::main(order, connection))?;
    facts::read_early(client.facts_pipe.take());
    client.options = options;
    let mut keep_cid = || cid_file.take().map_or(Ok(()), |cid_file| cid_file.keep(&id));
    match client::run(client, &mut keep_cid)? {
        Ended::Detached => {
            if let Some(wait) = wait {
                // From here on ^C ends the waiting.
                client::forwarded_signals().thread_unblock().context("cannot unblock signals")?;
                ready::wait(&roots, &id, &wait)?;
            }
            if detach {
                println!("{id}");
            }
            Ok(0)
        }
        Ended::Exit(code) => Ok(code as u8),
        Ended::Failed { code, message } => {
            eprintln!("minidock: {message}{}", flag_hint(&message, first_word.as_deref(), "image"));
            Ok(code as u8)
        }
        Ended::Signal(number) => Ok(128 + number as u8),
        // As a program that writes into a closed pipe ends.
        Ended::BrokenPipe => Ok(128 + libc::SIGPIPE as u8),
    }
}

/// For who has written a flag behind the image or container, so that it was taken for the program.
pub fn flag_hint(message: &str, word: Option<&OsStr>, place: &str) -> String {
    let word = word.map(|word| word.to_string_lossy()).filter(|word| word.starts_with('-')).unwrap_or_default();
    if word.is_empty() || !message.contains(&format!("exec: \"{word}\": executable file not found")) {
        return String::new();
    }
    format!("; flags go before the {place}: what follows it is the program")
}

/// Makes a container that `start` starts; prints its id.
pub fn create(engine: Engine, args: RunArgs) -> Result<u8> {
    let order = order(engine, args, |_| Ok(()))?;
    if order.request.dry_run {
        bail!("--dry-run shows what 'minidock run' does; creating only makes files");
    }
    let cid_file = order.request.cid_file.as_deref().map(CidFile::create).transpose()?;
    let explain = order.request.explain;
    start::create::create(&order, &mut |commands| {
        if explain {
            eprint!("{}", crate::explain::script(commands));
        }
    })?;
    cid_file.map_or(Ok(()), |cid_file| cid_file.keep(&order.id))?;
    println!("{}", order.id);
    Ok(0)
}

/// From the words of the command line to what is to be made.
fn order(engine: Engine, args: RunArgs, check: impl FnOnce(&RunRequest) -> Result<(), Invalid>) -> Result<Order> {
    let args = &with_defaults(&engine.config, args);
    let mut request = RunRequest::gather(args, &Surroundings::real())?;
    check(&request)?;
    request.network.publish_address = engine.config.publish_address;
    super::prepare(&engine.roots)?;
    crate::network::joining::settle_names(&engine, &mut request)?;
    for warning in &request.warnings {
        eprintln!("WARNING: {warning}");
    }
    let shares_files = matches!(request.network.mode, NetworkMode::Container(_));
    if request.network.dns.is_empty() && !shares_files {
        request.network.dns = engine.config.dns.clone().unwrap_or_default();
    }
    find_image(&engine, &mut request)?;
    let size = terminal::size(io::stdin().as_fd());
    let detach = request.detach;
    let session = session::current()?;
    Ok(Order {
        engine,
        request,
        id: names::new_id(),
        size,
        origin: Origin::New,
        session,
        detach,
        early_facts: Cell::default(),
    })
}

/// The configuration's defaults as flags, where the user gave none.
fn with_defaults(config: &Config, mut args: RunArgs) -> RunArgs {
    if let Some(address) = config.publish_address {
        let address = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        for text in &mut args.publish {
            // [[IP:][HOST]:]CONTAINER: brackets or two colons, and there is an address.
            *text = match text.matches(':').count() {
                _ if text.contains(['[', '=']) => continue,
                0 => format!("{address}::{text}"),
                1 => format!("{address}:{text}"),
                _ => continue,
            };
        }
    }
    let own_limits = args.log_driver.as_deref().is_none_or(|driver| driver.is_empty() || driver == "json-file");
    let mut log_option = |name: &str, value: Option<String>| {
        let given = args.log_opt.iter().any(|text| text.split('=').next() == Some(name));
        args.log_opt.extend(value.filter(|_| own_limits && !given).map(|value| format!("{name}={value}")));
    };
    log_option("max-size", config.log_max_size.clone());
    log_option("max-file", config.log_max_file.map(|files| files.to_string()));
    args
}

/// Loads an archive that was named in the image's place, and makes the built-in demo image when it's wanted.
fn find_image(engine: &Engine, request: &mut RunRequest) -> Result<()> {
    match &request.image {
        ImageSource::Archive(path) if request.dry_run => {
            bail!("--dry-run changes nothing, so the image must be loaded already: minidock load -i {}", path.display())
        }
        ImageSource::Archive(path) => {
            let loaded = load_archive(engine, path)?;
            request.image = ImageSource::Name(loaded);
        }
        ImageSource::Name(name) if demo_image::is_demo(name) => demo_image::ensure(&engine.roots)?,
        _ => {}
    }
    Ok(())
}

fn load_archive(engine: &Engine, path: &Path) -> Result<String> {
    let loaded = super::images::load_or_import(&Store::open(&engine.roots.root)?, path)?;
    match loaded.as_slice() {
        [one] => Ok(one.id.to_string()),
        [] => bail!("{} holds no image", path.display()),
        several => {
            let names: Vec<String> = several.iter().flat_map(|one| &one.names).map(|name| name.to_string()).collect();
            bail!(
                "{} holds {} images ({}); they are loaded now: run one by its name",
                path.display(),
                several.len(),
                names.join(", ")
            )
        }
    }
}

/// `--cidfile`: made before the start, removed again when that fails.
struct CidFile {
    path: std::path::PathBuf,
    file: Option<std::fs::File>,
}

impl CidFile {
    fn create(path: &Path) -> Result<CidFile> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    "it exists already; make sure the other container isn't running, or remove it".to_string()
                }
                _ => crate::error::io_text(&error),
            };
            anyhow!("cannot write the container ID file {}: {why}", path.display())
        })?;
        Ok(CidFile { path: path.to_path_buf(), file: Some(file) })
    }

    fn keep(mut self, id: &str) -> Result<()> {
        if let Some(mut file) = self.file.take() {
            file.write_all(id.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))?;
        }
        Ok(())
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
