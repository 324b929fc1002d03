//! What a user asked for, checked for sense alone: plain data, no system calls.
//!
//! [`RunRequest::gather`] is the one step that looks around (environment, env files, working directory), and only
//! through [`Surroundings`]; every parser below it is pure and has its own small file.

pub mod attach;
pub mod capabilities;
pub mod cpus;
pub mod devices;
pub mod environment;
mod exec;
mod health;
mod hosts;
mod invalid;
mod labels;
pub mod limits;
pub mod log_options;
pub mod logs;
mod mount_flag;
pub mod mounts;
pub mod names;
pub mod namespaces;
mod net_cls;
pub mod network;
pub mod network_create;
pub mod ports;
pub mod ready;
pub mod restart;
pub mod security;
pub mod shaping;
pub mod signal;
mod size;
pub mod streams;
mod text;
mod throttle;
mod tmpfs;
pub mod ulimits;
pub mod update;
mod volume_flag;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::RunArgs;
use crate::health::Healthcheck;
use devices::Device;
use environment::EnvChange;
use limits::Limits;
use log_options::LogOptions;
use mounts::{Mount, VolumesFrom};
use namespaces::Namespaces;
use network::Network;
use restart::Restart;
use security::Security;
use signal::Signal;
use streams::Streams;

pub use exec::ExecRequest;
pub use invalid::Invalid;

/// docker's size of /dev/shm.
pub const DEFAULT_SHM_BYTES: u64 = 64 << 20;
/// Env, label and seccomp files are small; a larger one is a mistake or an attack.
const LARGEST_FILE_BYTES: u64 = 16 << 20;

/// Reads a file whole, named by a flag (flag, path).
pub type ReadFile = dyn Fn(&str, &Path) -> Result<Vec<u8>, Invalid>;

/// What the one impure step may look at.
pub struct Surroundings<'a> {
    /// The working directory, for relative paths.
    pub cwd: PathBuf,
    /// A variable of minidock's own environment.
    pub environment: &'a dyn Fn(&OsStr) -> Option<OsString>,
    /// The content of a file named by a flag (flag, path).
    pub read: &'a ReadFile,
}

impl Surroundings<'static> {
    /// The real ones.
    pub fn real() -> Surroundings<'static> {
        Surroundings {
            // Only a relative path in a flag needs it; where it is gone, such a path then fails by its name.
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            environment: &|name| std::env::var_os(name),
            read: &read_file,
        }
    }
}

impl Surroundings<'_> {
    fn read(&self, flag: &str, path: &Path) -> Result<Vec<u8>, Invalid> {
        (self.read)(flag, path)
    }
}

fn read_file(flag: &str, path: &Path) -> Result<Vec<u8>, Invalid> {
    use std::io::Read;
    let failed = |error: std::io::Error| Invalid::value(flag, path, format!("cannot read it: {error}"));
    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    match content.len() as u64 > LARGEST_FILE_BYTES {
        true => Err(Invalid::value(flag, path, format!("larger than {} MiB", LARGEST_FILE_BYTES >> 20))),
        false => Ok(content),
    }
}

/// Everything that `run` was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// Where the root file system comes from.
    pub image: ImageSource,
    /// The program's arguments; empty: the image's CMD.
    #[serde(with = "text::list")]
    pub command: Vec<OsString>,
    /// Instead of the image's ENTRYPOINT (which then also drops its CMD).
    pub entrypoint: Entrypoint,
    /// `--name`
    pub name: Option<String>,
    /// `-d`
    pub detach: bool,
    /// `--rm`
    pub remove: bool,
    /// `-i`
    pub interactive: bool,
    /// `-t`
    pub terminal: bool,
    /// `--init`
    pub init: bool,
    /// `-q`
    pub quiet: bool,
    /// `--explain`
    pub explain: bool,
    /// `--dry-run`
    pub dry_run: bool,
    /// `--env-file` and `-e`, in order
    pub environment: Vec<EnvChange>,
    /// `-u`, as typed: resolved in the container's own /etc/passwd
    pub user: Option<String>,
    /// `--group-add`, names or numbers
    pub groups: Vec<String>,
    /// `-w`, absolute
    #[serde(with = "text::option")]
    pub working_dir: Option<PathBuf>,
    /// `--stop-signal`
    pub stop_signal: Option<Signal>,
    /// The same as typed, which is what `inspect` shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal_typed: Option<String>,
    /// `--stop-timeout`; negative: for ever
    pub stop_timeout_s: Option<i64>,
    /// `--health-*`, `--no-healthcheck`
    #[serde(default)]
    pub health: Option<Healthcheck>,
    /// `--restart`
    #[serde(default)]
    pub restart: Restart,
    /// `--label-file` and `--label`
    pub labels: BTreeMap<String, String>,
    /// `--cidfile`
    #[serde(with = "text::option")]
    pub cid_file: Option<PathBuf>,
    /// `-a`, `--detach-keys`, `--sig-proxy`
    #[serde(default)]
    pub streams: Streams,
    /// `--log-driver`
    pub log: LogDriver,
    /// `--log-opt`
    #[serde(default)]
    pub log_options: LogOptions,
    /// `-v`, `--mount`, `--tmpfs`: each target once
    pub mounts: Vec<Mount>,
    /// `--volumes-from`
    #[serde(default)]
    pub volumes_from: Vec<VolumesFrom>,
    /// `--read-only`
    pub read_only: bool,
    /// `--shm-size`
    pub shm_bytes: u64,
    /// `--device`
    pub devices: Vec<Device>,
    /// Network flags.
    pub network: Network,
    /// Namespace flags.
    pub namespaces: Namespaces,
    /// Rights.
    pub security: Security,
    /// Limits.
    pub limits: Limits,
    /// To be printed on stderr before the start, each after `WARNING: `; docker's words.
    pub warnings: Vec<String>,
}

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageSource {
    /// An image of the store, by name or id.
    Name(String),
    /// An archive or layout that is loaded first: the word began with `/`, `./` or `../`.
    Archive(#[serde(with = "text::one")] PathBuf),
    /// `--rootfs`: a folder, used as it is.
    Rootfs(#[serde(with = "text::one")] PathBuf),
}

/// The program in front of the arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entrypoint {
    /// The image's.
    Image,
    /// None (`--entrypoint ""`), and not the image's CMD either.
    Cleared,
    /// This, and not the image's CMD.
    Program(#[serde(with = "text::one")] OsString),
}

/// What becomes of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogDriver {
    /// Kept in docker's json-file form.
    JsonFile,
    /// Sent to systemd's journal.
    Journald,
    /// Not kept; `logs` has nothing to print.
    None,
}

impl RunRequest {
    /// Checks the flags of `run` and reads what they point to.
    ///
    /// # Errors
    /// The first flag that can't be meant, or two that contradict each other.
    pub fn gather(args: &RunArgs, around: &Surroundings) -> Result<RunRequest, Invalid> {
        let mut warnings = Vec::new();
        refuse_for_now(args)?;
        if args.oom_kill_disable && args.memory.is_none() {
            warnings.push(
                "OOM killer is disabled for the container, but no memory limit is set, this can result in the system \
                 running out of resources."
                    .to_owned(),
            );
        }
        let (image, command) = image_and_command(args, around)?;
        Ok(RunRequest {
            image,
            command,
            entrypoint: entrypoint(args.entrypoint.as_deref()),
            name: names::container(args.name.as_deref().unwrap_or_default()).map_err(Invalid::by_engine)?,
            detach: args.detach,
            remove: args.rm,
            interactive: args.interactive,
            terminal: args.tty,
            init: args.init,
            quiet: args.quiet,
            explain: args.explain,
            dry_run: args.dry_run,
            environment: environment::gather(&args.env_file, &args.env, around)?,
            user: args.user.clone().filter(|user| !user.is_empty()),
            groups: args.group_add.clone(),
            working_dir: working_dir(args.workdir.as_deref())?,
            stop_signal: stop_signal(args.stop_signal.as_deref())?,
            stop_signal_typed: args.stop_signal.clone().filter(|text| !text.is_empty()),
            stop_timeout_s: args.stop_timeout,
            health: health::from_args(args)?,
            restart: restart(args)?,
            labels: labels::gather(&args.label_file, &args.label, around)?,
            cid_file: args
                .cidfile
                .as_ref()
                .filter(|path| !path.as_os_str().is_empty())
                .map(|path| around.cwd.join(path)),
            streams: Streams::from_args(args)?,
            log: log_options::driver(args.log_driver.as_deref())?,
            log_options: log_options::options(log_options::driver(args.log_driver.as_deref())?, &args.log_opt)?,
            mounts: all_mounts(args, around, &mut warnings)?,
            volumes_from: volume_flag::volumes_from(&args.volumes_from)?,
            read_only: args.read_only,
            shm_bytes: shm_bytes(args.shm_size.as_deref())?,
            devices: args.device.iter().map(|text| devices::parse(text)).collect::<Result<_, _>>()?,
            network: Network::from_args(args, &mut warnings)?,
            namespaces: Namespaces::from_args(args)?,
            security: Security::gather(args, around)?,
            limits: Limits::from_args(args)?,
            warnings,
        })
    }

    /// A run of an image without any flag.
    pub fn plain(image: &str) -> Option<RunRequest> {
        let args = RunArgs { words: vec![image.into()], sig_proxy: true, ..RunArgs::default() };
        let nothing = |_: &str, path: &Path| Err(Invalid::value("", path, "not read"));
        let around = Surroundings { cwd: PathBuf::from("/"), environment: &|_| None, read: &nothing };
        RunRequest::gather(&args, &around).ok()
    }

    /// docker's check before a terminal is promised: `-t` in the foreground with `-i` needs one on stdin.
    ///
    /// # Errors
    /// docker's sentence; the exit code is 1.
    pub fn check_terminal(&self, stdin_is_terminal: bool) -> Result<(), Invalid> {
        match self.interactive && self.terminal && !self.detach && !stdin_is_terminal {
            true => Err(Invalid::arguments("the input device is not a TTY; leave out -t")),
            false => Ok(()),
        }
    }
}

/// Flags that docker has with more values than minidock has yet.
fn refuse_for_now(args: &RunArgs) -> Result<(), Invalid> {
    match args.pull.as_deref().unwrap_or("missing") {
        "missing" | "never" | "" => {}
        "always" => {
            return Err(Invalid::value(
                "--pull",
                "always",
                "minidock pulls from no registry yet; load the image with 'minidock load'",
            ));
        }
        text => {
            return Err(Invalid::value("--pull", text, "must be one of \"always\", \"missing\" or \"never\""));
        }
    }
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    match args.platform.as_deref().unwrap_or("linux") {
        "linux" | "" => {}
        text if text == machine || text.strip_prefix("linux/") == Some(machine) => {}
        text => {
            return Err(Invalid::value(
                "--platform",
                text,
                format!("this machine runs linux/{machine} only; leave it out"),
            ));
        }
    }
    Ok(())
}

fn image_and_command(args: &RunArgs, around: &Surroundings) -> Result<(ImageSource, Vec<OsString>), Invalid> {
    if let Some(folder) = &args.rootfs {
        if folder.as_os_str().is_empty() {
            return Err(Invalid::value("--rootfs", "", "write the folder's path"));
        }
        if args.words.is_empty() && args.entrypoint.as_ref().is_none_or(|program| program.is_empty()) {
            return Err(Invalid::new(
                "no command specified: with --rootfs there is no image that names one; write it after the flags",
            ));
        }
        return Ok((ImageSource::Rootfs(around.cwd.join(folder)), args.words.clone()));
    }
    let Some((image, command)) = args.words.split_first() else {
        return Err(Invalid::arguments("'minidock run' requires at least 1 argument"));
    };
    let bytes = image.as_bytes();
    let source = match [&b"/"[..], b"./", b"../"].iter().any(|start| bytes.starts_with(start)) {
        true => ImageSource::Archive(around.cwd.join(Path::new(image))),
        false => match image.to_str() {
            Some(name) if !name.is_empty() => ImageSource::Name(name.to_owned()),
            _ => {
                return Err(Invalid::new(format!("invalid reference format: {image:?} is not an image name")));
            }
        },
    };
    Ok((source, command.to_vec()))
}

fn entrypoint(text: Option<&OsStr>) -> Entrypoint {
    match text {
        None => Entrypoint::Image,
        Some(text) if text.is_empty() => Entrypoint::Cleared,
        Some(text) => Entrypoint::Program(text.to_owned()),
    }
}

fn working_dir(path: Option<&Path>) -> Result<Option<PathBuf>, Invalid> {
    match path {
        None => Ok(None),
        Some(path) if path.as_os_str().is_empty() => Ok(None),
        Some(path) if path.is_absolute() => Ok(Some(path.to_owned())),
        Some(path) => Err(Invalid::value(
            "-w, --workdir",
            path,
            "the working directory is invalid, it needs to be an absolute path",
        )),
    }
}

fn stop_signal(text: Option<&str>) -> Result<Option<Signal>, Invalid> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => signal::parse(text).map(Some).map_err(|why| Invalid::value("--stop-signal", text, why)),
    }
}

fn restart(args: &RunArgs) -> Result<Restart, Invalid> {
    match restart::parse(args.restart.as_deref().unwrap_or_default()).map_err(Invalid::by_engine)? {
        Restart::No => Ok(Restart::No),
        _ if args.rm => Err(Invalid::new("conflicting options: cannot specify both --restart and --rm")),
        policy => Ok(policy),
    }
}

fn shm_bytes(text: Option<&str>) -> Result<u64, Invalid> {
    match text {
        None => Ok(DEFAULT_SHM_BYTES),
        Some(text) => {
            Ok(Some(size::bytes("--shm-size", text)?).filter(|bytes| *bytes > 0).unwrap_or(DEFAULT_SHM_BYTES))
        }
    }
}

fn all_mounts(args: &RunArgs, around: &Surroundings, warnings: &mut Vec<String>) -> Result<Vec<Mount>, Invalid> {
    let mut mounts = Vec::new();
    for text in &args.volume {
        mounts.push(volume_flag::parse(text, &around.cwd, warnings)?);
    }
    for text in &args.mount {
        mounts.push(mount_flag::parse(text, &around.cwd)?);
    }
    for text in &args.tmpfs {
        mounts.push(tmpfs::parse(text)?);
    }
    mounts::refuse_twice(&mounts)?;
    Ok(mounts)
}
