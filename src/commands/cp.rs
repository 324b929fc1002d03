//! `cp` and `export`: files out of a container and into it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use images::{Entry, Limits, TarReader};
use runtime::mounts::beneath::Root;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::cli::{CpArgs, ExportArgs};
use crate::containers;
use crate::copy::attributes;
use crate::copy::ends::{Missing, Source, Target, absolute, host_root};
use crate::copy::place::{Owner, Place, Way};
use crate::copy::tar_out::TarOut;
use crate::copy::view::{View, Wanted};
use crate::copy::walk::{Order, walk};
use crate::copy::{Sink, archive_bytes, shown};
use crate::events::{self, Event};
use crate::format::human;
use crate::progress::Progress;
use crate::recover;
use crate::roots::Roots;
use crate::state::State;

/// Copies.
pub fn cp(roots: &Roots, args: &CpArgs) -> Result<u8> {
    // Without a terminal docker says nothing about what it copies.
    let quiet = args.quiet.unwrap_or(!rustix::termios::isatty(io::stdout()));
    for (what, path) in [("source", &args.source), ("destination", &args.target)] {
        if path.is_empty() {
            bail!("{what} can not be empty");
        }
    }
    match (in_container(&args.source)?, in_container(&args.target)?) {
        (Some(_), Some(_)) => bail!("copying between containers is not supported"),
        (None, None) => bail!("must specify at least one container source"),
        (Some((name, b"")), None) => bail!("{name}: names no path in the container; its root is {name}:/"),
        (Some((name, path)), None) => from_container(roots, args, name, path, quiet)?,
        (None, Some((name, path))) => to_container(roots, args, name, path, quiet)?,
    }
    Ok(0)
}

/// `NAME:PATH`; a path of the host begins with a slash or a dot, or has no colon.
fn in_container(word: &OsStr) -> Result<Option<(&str, &[u8])>> {
    let bytes = word.as_bytes();
    let Some(colon) = bytes.iter().position(|byte| *byte == b':') else { return Ok(None) };
    if bytes.starts_with(b"/") || bytes.starts_with(b".") {
        return Ok(None);
    }
    let name =
        std::str::from_utf8(&bytes[..colon]).map_err(|_| anyhow!("{}: no name of a container", word.display()))?;
    Ok(Some((name, &bytes[colon + 1..])))
}

fn rooted(path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") { path.to_vec() } else { [b"/", path].concat() }
}

fn not_there(missing: Missing, path: &[u8], container: &str) -> anyhow::Error {
    match missing {
        Missing::NotFound => anyhow!("Could not find the file {} in container {container}", shown(path)),
        Missing::NotAFolder => anyhow!("not a directory: {} in container {container}", shown(path)),
        Missing::Other(errno) => anyhow!("{} in container {container}: {}", shown(path), text(errno)),
    }
}

fn not_here(missing: Missing, path: &OsStr) -> anyhow::Error {
    // docker's words, those of Go's os.Lstat.
    match missing {
        Missing::NotFound => anyhow!("lstat {}: no such file or directory", path.display()),
        Missing::NotAFolder => anyhow!("{}: not a directory", path.display()),
        Missing::Other(errno) => anyhow!("{}: {}", path.display(), text(errno)),
    }
}

fn text(errno: Errno) -> String {
    crate::error::io_text(&io::Error::from(errno))
}

fn from_container(roots: &Roots, args: &CpArgs, name: &str, path: &[u8], quiet: bool) -> Result<()> {
    let id = containers::find_id(roots, name)?;
    let cwd = std::env::current_dir().context("cannot tell the working directory")?;
    let host = host_root()?;
    let to_stdout = args.target == "-";
    if !to_stdout {
        check_output(&args.target)?;
    }
    let view = View::open(roots, &id, Wanted::Everything)?;
    let source = Source::find(view.root.as_fd(), &rooted(path), args.follow_link)
        .map_err(|missing| not_there(missing, path, name))?;
    told(roots, &id, "archive-path", path);
    let own_name = source.name.clone().unwrap_or_default();
    if to_stdout {
        let mut sink = Sink::Tar(TarOut::new(Box::new(BufWriter::new(io::stdout().lock()))));
        copy(&source.found.fd, &own_name, &mut sink, &mut Progress::none())?;
        return sink.finish();
    }
    let target = Target::find(host.as_fd(), &absolute(&args.target, &cwd), &source)?;
    let owner = if args.archive {
        Owner::Kept
    } else {
        Owner::Is(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    };
    let folder = named_folder(&target, &source, owner, true)?;
    let mut sink = Sink::Folder(Place::new(&folder, Way::NoLinks, owner, true));
    let mut progress = if quiet { Progress::none() } else { Progress::new("Copying from container") };
    let bytes = copy(&source.found.fd, &entry_name(&target, &source), &mut sink, &mut progress)?;
    sink.finish()?;
    done(progress, quiet, bytes, &args.target.display().to_string());
    Ok(())
}

/// docker's event, which names the path.
fn told(roots: &Roots, id: &str, action: &str, path: &[u8]) {
    if let Ok(Some(state)) = State::read(&roots.container(id)) {
        events::note(roots, Event::container(action, &state).with("path", shown(path)));
    }
}

/// docker checks the path before it asks for anything: its folder is there, and it's no device, which would be replaced by
/// a file. Neither is a FIFO or a socket, which docker replaces.
fn check_output(target: &OsStr) -> Result<()> {
    let path = Path::new(target);
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists()) {
        bail!("invalid output path: directory {:?} does not exist", parent.display().to_string())
    }
    let kind = match std::fs::metadata(path) {
        Ok(found) => found.file_type(),
        Err(_) => return Ok(()), // a new one, or whoever opens it says why not
    };
    let what = match () {
        () if kind.is_file() || kind.is_dir() => return Ok(()),
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    bail!("invalid output path: {:?} must be a directory or a regular file: got {what}", path.display().to_string())
}

fn to_container(roots: &Roots, args: &CpArgs, name: &str, path: &[u8], quiet: bool) -> Result<()> {
    let id = containers::find_id(roots, name)?;
    let cwd = std::env::current_dir().context("cannot tell the working directory")?;
    let host = host_root()?;
    let from_stdin = args.source == "-";
    let source = match from_stdin {
        true => None,
        false => Some(
            Source::find(host.as_fd(), &absolute(&args.source, &cwd), args.follow_link)
                .map_err(|missing| not_here(missing, &args.source))?,
        ),
    };
    let view = View::open(roots, &id, Wanted::Everything)?;
    let path = rooted(path);
    told(roots, &id, "extract-to-dir", &path);
    let Some(source) = source else {
        return unpack(&view, &path, name).map_err(read_only);
    };
    let target = Target::find(view.root.as_fd(), &path, &source)?;
    let owner = if args.archive { Owner::Kept } else { Owner::Is(0, 0) };
    let folder = named_folder(&target, &source, owner, false).map_err(read_only)?;
    let mut sink = Sink::Folder(Place::new(&folder, Way::NoLinks, owner, false));
    let mut progress = if quiet { Progress::none() } else { Progress::new("Copying to container") };
    let bytes = copy(&source.found.fd, &entry_name(&target, &source), &mut sink, &mut progress).map_err(read_only)?;
    sink.finish()?;
    done(progress, quiet, bytes, &format!("{name}:{}", shown(&path)));
    Ok(())
}

/// A tar archive on standard input, plain or compressed, into a folder of the container. Owners are kept.
fn unpack(view: &View, path: &[u8], name: &str) -> Result<()> {
    let folder = Target::extraction_point(view.root.as_fd(), path).map_err(|missing| match missing {
        Missing::NotAFolder => anyhow!("extraction point is not a directory"),
        missing => not_there(missing, path, name),
    })?;
    let limits = Limits::default();
    let stdin = images::decompressed(io::stdin().lock()).context("cannot read the archive on standard input")?;
    let mut tar = TarReader::new(stdin, &limits);
    let way = Way::Inside(Root::new(view.root.try_clone()?), path.to_vec());
    let mut place = Place::new(&folder, way, Owner::Kept, false);
    while let Some(entry) = tar.next().context("cannot read the archive on standard input")? {
        place.add(&entry, &mut tar)?;
    }
    place.finish()
}

/// The folder that a copy goes into. A new name for a folder's content alone (`cp c:/dir/. new`) is made first.
fn named_folder(target: &Target, source: &Source, owner: Owner, on_host: bool) -> Result<OwnedFd> {
    let (Some(name), None) = (&target.name, &source.name) else { return Ok(target.folder.try_clone()?) };
    let mut place = Place::new(&target.folder, Way::NoLinks, owner, on_host);
    let mut first = None;
    // The folder itself, with its owner and mode, and nothing of what is in it.
    let stop = walk(&source.found.fd, name, Order::AsFound, &mut |entry: &Entry, data: &mut dyn Read| {
        place.add(entry, data)?;
        first = Some(());
        bail!("enough")
    });
    match (stop, first) {
        (Err(_), Some(())) => {}
        (Err(error), None) => return Err(error),
        (Ok(()), _) => {}
    }
    let found = crate::copy::ends::look(target.folder.as_fd(), name, false);
    let found = found.map_err(|_| anyhow!("{} has gone while it was copied", shown(name)))?;
    Ok(found.fd)
}

fn entry_name(target: &Target, source: &Source) -> Vec<u8> {
    match (&source.name, &target.name) {
        (None, _) => Vec::new(),
        (Some(_), Some(name)) => name.clone(),
        (Some(own), None) => own.clone(),
    }
}

fn copy(from: &OwnedFd, name: &[u8], sink: &mut Sink<'_>, progress: &mut Progress) -> Result<u64> {
    // docker counts the archive that it makes, its end included.
    let mut bytes = 1024;
    walk(from, name, Order::AsFound, &mut |entry, data| {
        sink.add(entry, data)?;
        bytes += archive_bytes(entry);
        progress.at(bytes, None);
        Ok(())
    })?;
    Ok(bytes)
}

fn done(progress: Progress, quiet: bool, bytes: u64, place: &str) {
    drop(progress);
    if !quiet {
        eprintln!("Successfully copied {} to {place}", human::size(bytes));
    }
}

/// docker's words for a container that can't be written to.
fn read_only(error: anyhow::Error) -> anyhow::Error {
    let refused = error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem)
    });
    if refused { anyhow!("container rootfs is marked read-only, or the volume there is") } else { error }
}

/// Writes a container's own files as a tar archive: no volumes, nothing of the kernel's.
pub fn export(roots: &Roots, args: &ExportArgs) -> Result<u8> {
    if args.output.is_none() && rustix::termios::isatty(io::stdout()) {
        bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect");
    }
    let id = containers::find_id(roots, &args.container)?;
    let output = args.output.as_deref().map(|path| Output::create(path, "export container")).transpose()?;
    let view = View::open(roots, &id, Wanted::OwnFiles)
        .with_context(|| format!("cannot export container {}", recover::short(&id)))?;
    let root =
        Source::find(view.root.as_fd(), b"/", false).map_err(|missing| not_there(missing, b"/", &args.container))?;
    let to: Box<dyn Write + '_> = match &output {
        Some(output) => Box::new(BufWriter::new(&output.file)),
        None => Box::new(BufWriter::new(io::stdout().lock())),
    };
    let mut progress = if output.is_some() { Progress::new("Exporting") } else { Progress::none() };
    let mut tar = TarOut::new(to);
    let mut bytes = 0;
    walk(&root.found.fd, b"", Order::AsFound, &mut |entry, data| {
        // The root itself is no entry.
        if entry.name == b"./" {
            return Ok(());
        }
        bytes += archive_bytes(entry);
        progress.at(bytes, None);
        let mut entry = entry.clone();
        // More than docker keeps, and what `import` takes. What has vanished meanwhile has none.
        if matches!(entry.kind, images::Kind::File | images::Kind::Dir)
            && let Ok((xattrs, _)) = attributes::of(&root.found.fd, &entry.name)
        {
            entry.xattrs = xattrs;
        }
        tar.add(&entry, data)
    })?;
    tar.finish()?;
    if let Some(output) = output {
        output.keep()?;
    }
    if let Ok(Some(state)) = State::read(&roots.container(&id)) {
        events::note(roots, Event::container("export", &state));
    }
    Ok(0)
}

/// A file that appears whole or not at all. By its folder's descriptor: the view of a running container is another mount
/// namespace, in which the path may be another's or nobody's.
pub struct Output {
    path: PathBuf,
    folder: OwnedFd,
    name: std::ffi::OsString,
    half: std::ffi::OsString,
    /// What is written to.
    pub file: File,
    kept: bool,
}

impl Output {
    /// Begins it; only its owner may read it, as with docker. A link that leads to a file stays: the file is replaced.
    ///
    /// # Errors
    /// docker's words: `what` is what failed.
    pub fn create(path: &Path, what: &str) -> Result<Output> {
        let context = || format!("failed to {what}");
        check_output(path.as_os_str()).with_context(context)?;
        let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let path = real.as_path();
        let name = path.file_name().filter(|_| !path.is_dir());
        let Some(name) = name.map(OsStr::to_owned) else {
            bail!("failed to {what}: invalid output path: {:?} is a directory", path.display().to_string());
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let context = || format!("cannot write {}", path.display());
        let folder = File::open(parent).with_context(context)?.into();
        let mut half = name.clone();
        half.push(format!(".{}.tmp", std::process::id()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, &half, flags, Mode::from_raw_mode(0o600))
            .map_err(io::Error::from)
            .with_context(context)?;
        Ok(Output { path: path.to_path_buf(), folder, name, half, file: file.into(), kept: false })
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// The file system's.
    pub fn keep(mut self) -> Result<()> {
        rustix::fs::renameat(&self.folder, &self.half, &self.folder, &self.name)
            .map_err(io::Error::from)
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.kept {
            let _ = rustix::fs::unlinkat(&self.folder, &self.half, rustix::fs::AtFlags::empty());
        }
    }
}
