//! What each command does.

pub mod attach;
pub mod boot;
pub mod cp;
pub mod diff;
pub mod doctor;
pub mod events;
pub mod exec;
pub mod filter;
pub mod image_list;
pub mod images;
pub mod info;
pub mod inspect;
pub mod logs;
pub mod networks;
pub mod pause;
pub mod prune;
pub mod ps;
pub mod ready;
pub mod router;
pub mod run;
pub mod save;
pub mod shell;
pub mod shutdown;
pub mod start;
pub mod stats;
pub mod stop;
pub mod system;
pub mod top;
pub mod update;
pub mod volume;

use anyhow::{Result, anyhow, bail};

use crate::cli::{Command, Global};
use crate::config::Config;
use crate::error;
use crate::files;
use crate::format::FormatError;
use crate::network;
use crate::recover;
use crate::request::Invalid;
use crate::roots::Roots;
use crate::session;

/// What every command has at hand.
pub struct Engine {
    /// Its folders.
    pub roots: Roots,
    /// The configuration files' settings, with the command line's and the environment's on top.
    pub config: Config,
}

/// Carries a command out; the exit code.
pub fn dispatch(global: Global, command: Command) -> Result<u8> {
    match &command {
        // These ask nothing of the host, or tell what is wrong with it.
        Command::Doctor(args) => return doctor::doctor(&global, args),
        Command::Completion(args) => return shell::completion(args),
        Command::Man(args) => return shell::man(args),
        Command::Version(_) => {}
        _ => need_root()?,
    }
    let roots = Roots::new(global.root.as_deref());
    let mut config = Config::read(&roots.root).map_err(|why| anyhow!(why))?;
    if let Some(backend) = global.firewall {
        config.firewall = Some(backend);
    }
    let engine = Engine { roots, config };
    if let Command::Version(args) = &command {
        return inspect::version(&engine, args);
    }
    if let Command::Run(args) = command {
        return run::run(engine, *args);
    }
    if let Command::Create(args) = command {
        return run::create(engine, *args);
    }
    prepare(&engine.roots)?;
    recover_left_overs(&engine);
    let roots = &engine.roots;
    match command {
        Command::Run(_)
        | Command::Create(_)
        | Command::Version(_)
        | Command::Doctor(_)
        | Command::Completion(_)
        | Command::Man(_) => Ok(0), // above
        Command::Ps(args) => ps::ps(roots, &args),
        Command::Inspect(args) => inspect::inspect(roots, &args),
        Command::Logs(args) => logs::logs(roots, &args),
        Command::Attach(args) => attach::attach(roots, &args),
        Command::Exec(args) => exec::exec(roots, &args),
        Command::Start(args) => start::start(&engine, &args),
        Command::Restart(args) => start::restart(&engine, &args),
        Command::Stop(args) => stop::stop(roots, &args),
        Command::Kill(args) => stop::kill(roots, &args),
        Command::Rm(args) => stop::rm(roots, &args),
        Command::Pause(args) => pause::pause(roots, &args),
        Command::Unpause(args) => pause::unpause(roots, &args),
        Command::Rename(args) => pause::rename(roots, &args),
        Command::ContainerPrune(args) => prune::containers(roots, &args),
        Command::Update(args) => update::update(roots, &args),
        Command::Boot(args) if args.stop => shutdown::stop_all(&engine.roots),
        Command::Boot(_) => boot::boot(&engine),
        Command::Session(args) => session::session(roots, &args),
        Command::Wait(args) => stop::wait(roots, &args),
        Command::Port(args) => ps::port(roots, &args),
        Command::Walk(args) => {
            let report = crate::walk::walk(&engine, &args.from, &args.target, args.names)?;
            match args.format {
                crate::graph::Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
                _ => print!("{}", report.text()),
            }
            Ok(u8::from(!report.outcome.reached))
        }
        Command::NetGraph(args) => {
            print!("{}", crate::graph::print(&engine, args.format)?);
            Ok(0)
        }
        Command::Info(args) => info::info(&engine, &args),
        Command::Events(args) => events::events(roots, &args),
        Command::Stats(args) => stats::stats(roots, &args),
        Command::Top(args) => top::top(roots, &args),
        Command::RouterCreate(args) => router::create(&engine, &args),
        Command::RouterLs(args) => {
            router::wake(&engine);
            router::ls(roots, &args)
        }
        Command::RouterInspect(args) => {
            router::wake(&engine);
            router::inspect(roots, &args)
        }
        Command::RouterRm(args) => router::rm(roots, &args),
        Command::RouterFloating(args) => {
            router::wake(&engine);
            router::floating(roots, &args)
        }
        Command::NetworkCreate(args) => networks::create(&engine, &args),
        Command::NetworkLs(args) => networks::ls(&engine, &args),
        Command::NetworkInspect(args) => networks::inspect(&engine, &args),
        Command::NetworkConnect(args) => networks::connect(&engine, &args),
        Command::NetworkDisconnect(args) => networks::disconnect(&engine, &args),
        Command::NetworkRm(args) => networks::rm(&engine, &args),
        Command::NetworkPrune(args) => networks::prune(&engine, &args),
        Command::NetworkRepair(_) => networks::repair(&engine),
        Command::Load(args) => images::load(roots, &args),
        Command::Import(args) => images::import(roots, &args),
        Command::Images(args) => image_list::images(roots, &args),
        Command::Tag(args) => images::tag(roots, &args),
        Command::Rmi(args) => images::rmi(roots, &args),
        Command::Cp(args) => cp::cp(roots, &args),
        Command::Diff(args) => diff::diff(roots, &args),
        Command::Export(args) => cp::export(roots, &args),
        Command::Save(args) => save::save(roots, &args),
        Command::History(args) => image_list::history(roots, &args),
        Command::ImagePrune(args) => image_list::prune(roots, &args),
        Command::SystemDf(args) => system::df(roots, &args),
        Command::SystemPrune(args) => system::prune_all(&engine, &args),
        Command::VolumeCreate(args) => volume::create(roots, &args),
        Command::VolumeLs(args) => volume::ls(roots, &args),
        Command::VolumeInspect(args) => volume::inspect(roots, &args),
        Command::VolumeRm(args) => volume::rm(roots, &args),
        Command::VolumePrune(args) => volume::prune(roots, &args),
    }
}

/// The exit code of a command that failed before it could say one itself. For `run`, docker has 125 for whatever fails
/// before the program does.
pub fn exit_code(error: &anyhow::Error, is_run: bool) -> u8 {
    if let Some(invalid) = error.downcast_ref::<Invalid>() {
        return if invalid.by_engine && !is_run { 1 } else { invalid.code };
    }
    match error.downcast_ref::<FormatError>() {
        Some(error) => error.code,
        None if is_run => error::ENGINE_FAILED,
        None => 1,
    }
}

/// `run` finds out late that its image is missing (with --rootfs it needs none); the others' parser has said this by then.
pub fn see_help(error: &anyhow::Error, is_run: bool) -> &'static str {
    let missing = error.downcast_ref::<Invalid>().is_some_and(|invalid| invalid.code == 1);
    if missing && is_run { "\nSee 'minidock run --help'." } else { "" }
}

fn need_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("minidock needs root: it makes namespaces, cgroups and firewall rules; run it with sudo");
    }
    Ok(())
}

/// Makes the engine's folders.
pub fn prepare(roots: &Roots) -> Result<()> {
    for folder in [roots.containers(), roots.names(), roots.run.clone()] {
        if !folder.is_dir() {
            files::ensure_folder(&folder)?;
        }
    }
    Ok(())
}

/// What a crash left is taken away first, so that no command shows it.
fn recover_left_overs(engine: &Engine) {
    for problem in recover::recover_all(&engine.roots) {
        eprintln!("minidock: warning: {}", error::text(&problem));
    }
    if let Err(problem) = crate::router::recover(&engine.roots) {
        eprintln!("minidock: warning: {}", error::text(&problem));
    }
    crate::volume::Store::of(&engine.roots).sweep();
    if let Err(problem) = network::remove::recover(engine) {
        eprintln!("minidock: warning: {}", error::text(&problem));
    }
}

/// Does the same for each name; goes on after a failure, and then the exit code is 1, as docker's.
fn each(names: &[String], mut action: impl FnMut(&str) -> Result<()>) -> Result<u8> {
    let mut code = 0;
    for name in names {
        if let Err(problem) = action(name) {
            // docker's prefix; scripts that look for its texts find ours.
            eprintln!("minidock: {}", error::text(&problem));
            code = 1;
        }
    }
    Ok(code)
}
