//! Carries mount operations out, in the container's mount namespace and before pivot_root.
//!
//! The host's /proc is still there and trusted: `/proc/self/fd/N` is how a mount gets to a target that was resolved by
//! descriptor. Nothing here reads a path of the image except through [`Root`].

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::beneath::{self, Root};
use super::{Attributes, Bind, Device, FileSystem, NodeKind, Op, Overlay, table};
use crate::error::{Doing, StartError};
use crate::sys;
use crate::terminal::{Size, Terminal};

/// What operations need besides their data.
#[derive(Debug, Default)]
pub struct Live {
    /// The root file system; there once its mount is.
    pub root: Option<Root>,
    /// The size of the terminal to make, when one is wanted.
    pub terminal_size: Option<Size>,
    /// The terminal that [`Op::Console`] made.
    pub terminal: Option<Terminal>,
    /// The folder of the last device or link, because most are in /dev.
    folder: Option<(PathBuf, OwnedFd)>,
    /// The device that covers masked files.
    null: Option<OwnedFd>,
    /// An empty, read-only tmpfs that covers masked folders.
    empty: Option<OwnedFd>,
}

impl Live {
    fn root(&self) -> Result<&Root, StartError> {
        self.root.as_ref().ok_or_else(|| StartError::new("the root file system is not mounted yet"))
    }

    /// The open folder of a path and the path's last part.
    fn parent<'a>(&mut self, path: &'a Path) -> Result<(BorrowedFd<'_>, &'a std::ffi::OsStr), Errno> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::INVAL);
        };
        if self.folder.as_ref().is_none_or(|(known, _)| known != parent) {
            let root = self.root.as_ref().ok_or(Errno::BADF)?;
            self.folder = Some((parent.to_owned(), root.folder(parent)?));
        }
        let folder = self.folder.as_ref().ok_or(Errno::BADF)?;
        Ok((folder.1.as_fd(), name))
    }
}

/// Carries out operations, in order.
///
/// # Errors
/// The first one that fails, named; the namespace is left as it is, since its death is its undo.
pub fn apply(ops: &[Op], live: &mut Live) -> Result<(), StartError> {
    ops.iter().try_for_each(|op| apply_one(op, live))
}

fn apply_one(op: &Op, live: &mut Live) -> Result<(), StartError> {
    // A mount may cover the remembered folder.
    if !matches!(op, Op::Device(_) | Op::Symlink { .. }) {
        live.folder = None;
    }
    match op {
        Op::Isolate(propagation) => {
            let flags = MountPropagationFlags::from_bits_retain(propagation.kind as u32)
                | if propagation.recursive { MountPropagationFlags::REC } else { MountPropagationFlags::empty() };
            rustix::mount::mount_change("/", flags).doing(|| op.title())
        }
        Op::Overlay(overlay) => {
            live.root = Some(mount_overlay(overlay)?);
            Ok(())
        }
        Op::RootFolder(path) => {
            live.root = Some(bind_root(path)?);
            Ok(())
        }
        Op::FileSystem(mount) => mount_file_system(mount, live.root()?),
        Op::Bind(bind) => mount_bind(bind, live.root()?),
        Op::Device(device) => make_device(device, live),
        Op::Symlink { path, target } => {
            let (folder, name) = live.parent(path).doing(|| op.title())?;
            match rustix::fs::symlinkat(target, folder, name) {
                // The image or a volume has something of its own there.
                Err(Errno::EXIST) => Ok(()),
                result => result.doing(|| op.title()),
            }
        }
        Op::Console(path) => {
            let size = live.terminal_size.unwrap_or_default();
            let terminal = Terminal::open(live.root()?, size)?;
            let target = live.root()?.file(path).doing(|| op.title())?;
            let tree = clone_mount(terminal.slave.as_fd(), false).doing(|| op.title())?;
            attach(&tree, &target).doing(|| op.title())?;
            live.terminal = Some(terminal);
            Ok(())
        }
        Op::Mask(paths) => paths.iter().try_for_each(|path| mask(path, live)),
        Op::ReadOnly(paths) => paths.iter().try_for_each(|path| make_read_only(path, live.root()?)),
        Op::Sysctl { key, value } => write_sysctl(key, value).doing(|| op.title()),
        Op::Seal { target, attributes } => seal(target, *attributes, live.root()?).doing(|| op.title()),
        Op::PivotRoot { propagation } => {
            let root = live.root()?;
            rustix::process::fchdir(root.fd()).doing(|| op.title())?;
            // Old root and new root in one place: the old one lies on top and is let go of by the next call; no folder
            // in the image is needed (pivot_root(2), NOTES).
            rustix::process::pivot_root(".", ".").doing(|| op.title())?;
            rustix::mount::unmount(".", UnmountFlags::DETACH).doing(|| "let go of the host's file systems")?;
            rustix::process::chdir("/").doing(|| op.title())?;
            match propagation {
                Some(kind) => {
                    sys::mount_setattr(root.fd(), kind.recursive, Attributes::default(), kind.kind).doing(|| op.title())
                }
                None => Ok(()),
            }
        }
    }
}

fn mount_overlay(overlay: &Overlay) -> Result<Root, StartError> {
    let title = || format!("mount the image's layers on {}", overlay.merged.display());
    let advice = |error: Errno| match error {
        Errno::INVAL => {
            "the upper folder was used by a volatile overlay before, or its file system serves none (an overlay, NFS, FAT); the kernel log has the reason"
        }
        Errno::NOENT => "a layer or the container's folder is missing",
        _ => "the kernel log may have the reason",
    };
    if let Some(base) = &overlay.base {
        rustix::process::chdir(base).doing(|| format!("go to the layers' folder {}", base.display()))?;
    }
    let result = if overlay.one_by_one {
        overlay_one_by_one(overlay)
    } else {
        let data =
            std::ffi::CString::new(overlay.data()).map_err(|_| StartError::new("a layer's path holds a zero byte"))?;
        rustix::mount::mount("overlay", &overlay.merged, "overlay", MountFlags::empty(), data.as_c_str())
    };
    result.map_err(|error| {
        StartError::new(format!("cannot {}: {}; {}", title(), crate::error::text(&error.into()), advice(error)))
    })?;
    if overlay.base.is_some() {
        rustix::process::chdir("/").doing(|| "go back to /")?;
    }
    open_folder(&overlay.merged).map(Root::new).doing(title)
}

/// Linux 6.7: a layer at a time, so that no page limits their number.
fn overlay_one_by_one(overlay: &Overlay) -> Result<(), Errno> {
    let file_system = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let fs = file_system.as_fd();
    rustix::mount::fsconfig_set_string(fs, "source", "overlay")?;
    for layer in &overlay.lower {
        rustix::mount::fsconfig_set_string(fs, "lowerdir+", layer.as_os_str().as_bytes())?;
    }
    rustix::mount::fsconfig_set_string(fs, "upperdir", overlay.upper.as_os_str().as_bytes())?;
    rustix::mount::fsconfig_set_string(fs, "workdir", overlay.work.as_os_str().as_bytes())?;
    for option in overlay.flags().split(',') {
        match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(fs, key, value)?,
            None => rustix::mount::fsconfig_set_flag(fs, option)?,
        }
    }
    rustix::mount::fsconfig_create(fs)?;
    let mount = rustix::mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, c"", rustix::fs::CWD, &overlay.merged, flags)
}

fn bind_root(path: &Path) -> Result<Root, StartError> {
    let title = || format!("use {} as root file system", path.display());
    let folder = open_folder(path).doing(title)?;
    let tree = clone_mount(folder.as_fd(), true).doing(title)?;
    attach(&tree, &folder).doing(title)?;
    Ok(Root::new(tree))
}

fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn mount_file_system(mount: &FileSystem, root: &Root) -> Result<(), StartError> {
    let title = || format!("mount {} on {}", mount.kind, mount.target.display());
    let target =
        if mount.strict { plain_folder(&mount.target, root)? } else { root.folder(&mount.target).doing(title)? };
    if !mount.strict {
        refuse_procfs(target.as_fd(), &mount.target)?;
    }
    let flags = MountFlags::from_bits_retain(table::flags(mount) as u32);
    let data = std::ffi::CString::new(mount.data.as_bytes())
        .map_err(|_| StartError::new(format!("cannot {}: zero byte in its options", title())))?;
    let data = (!mount.data.is_empty()).then_some(data.as_c_str());
    rustix::mount::mount(mount.source.as_str(), fd_path(&target).as_str(), mount.kind.as_str(), flags, data)
        .doing(title)?;
    if let Some(propagation) = mount.propagation {
        // What lies on the target now is the new mount: look again.
        let mounted = root.open(&mount.target, OFlags::PATH).doing(title)?;
        sys::mount_setattr(mounted.as_fd(), false, Attributes::default(), propagation.kind).doing(title)?;
    }
    Ok(())
}

/// A target for /proc and /sys: reached without any link, or refused.
fn plain_folder(path: &Path, root: &Root) -> Result<OwnedFd, StartError> {
    let refuse = |error: Errno| match error {
        Errno::LOOP | Errno::NOTDIR => StartError::new(format!(
            "cannot mount on {}: it is a link or a file in this image and must be an ordinary folder (security)",
            path.display()
        )),
        error => StartError::new(format!("cannot mount on {}: {}", path.display(), crate::error::text(&error.into()))),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match root.open_plain(path, flags) {
        Err(Errno::NOENT) => {
            root.folder(path).map_err(refuse)?;
            root.open_plain(path, flags).map_err(refuse)
        }
        result => result.map_err(refuse),
    }
}

/// CVE-2019-16884: what lies over /proc, be it through a link of the image, takes its protection away.
fn refuse_procfs(target: BorrowedFd, path: &Path) -> Result<(), StartError> {
    if beneath::is_procfs(target) {
        return Err(StartError::new(format!(
            "cannot mount on {}: in this container that is /proc, or in it (security)",
            path.display()
        )));
    }
    Ok(())
}

fn mount_bind(bind: &Bind, root: &Root) -> Result<(), StartError> {
    let title = || format!("bind {} to {}", bind.source.display(), bind.target.display());
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if bind.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let opened = match &bind.subpath {
        None => rustix::mount::open_tree(rustix::fs::CWD, &bind.source, flags),
        Some(subpath) => open_folder(&bind.source)
            .and_then(|folder| Root::new(folder).open(subpath, OFlags::PATH))
            .and_then(|place| rustix::mount::open_tree(&place, c"", flags | OpenTreeFlags::AT_EMPTY_PATH)),
    };
    let tree = opened.map_err(|error| match (error, &bind.subpath) {
        (Errno::NOENT, None) => {
            StartError::new(format!("cannot {}: bind source path does not exist: {}", title(), bind.source.display()))
        }
        (error, Some(subpath)) => StartError::new(format!(
            "cannot access path {} of the volume {}: {}",
            subpath.display(),
            bind.source.display(),
            crate::error::text(&error.into())
        )),
        (error, None) => StartError::new(format!("cannot {}: {}", title(), crate::error::text(&error.into()))),
    })?;
    let kind = beneath::file_type(tree.as_fd()).doing(title)?;
    let target = if kind == FileType::Directory { root.folder(&bind.target) } else { root.file(&bind.target) };
    let target = target.doing(title)?;
    refuse_procfs(target.as_fd(), &bind.target)?;
    // Before it is attached: nobody ever sees it writable.
    sys::mount_setattr(tree.as_fd(), bind.propagation.recursive, bind.below, bind.propagation.kind).doing(title)?;
    if !bind.attributes.is_empty() {
        sys::mount_setattr(tree.as_fd(), false, bind.attributes, 0).doing(title)?;
    }
    attach(&tree, &target).map_err(|error| match error {
        Errno::NOTDIR => StartError::new(format!(
            "cannot {}: one is a folder and the other is not; bind a folder to a folder, a file to a file",
            title()
        )),
        error => StartError::new(format!("cannot {}: {}", title(), crate::error::text(&error.into()))),
    })
}

fn make_device(device: &Device, live: &mut Live) -> Result<(), StartError> {
    let title = || format!("make the device {}", device.path.display());
    let kind = match device.kind {
        NodeKind::Character => FileType::CharacterDevice,
        NodeKind::Block => FileType::BlockDevice,
        NodeKind::Fifo => FileType::Fifo,
    };
    let (folder, name) = live.parent(&device.path).doing(title)?;
    let number = rustix::fs::makedev(device.major, device.minor);
    // The umask is 0 here: the mode is meant as it is.
    match rustix::fs::mknodat(folder, name, kind, Mode::from(device.mode), number) {
        Ok(()) if (device.uid, device.gid) == (0, 0) => Ok(()),
        Ok(()) => {
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).doing(title)
        }
        Err(Errno::EXIST) => {
            let there = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).doing(title)?;
            if FileType::from_raw_mode(there.st_mode) == kind && there.st_rdev == number {
                return Ok(());
            }
            Err(StartError::new(format!("cannot {}: the image or a volume has something else there", title())))
        }
        // In a user namespace, or under a parent that forbids mknod: the host's node of the same path will do.
        Err(Errno::PERM) => bind_host_device(device, live.root()?).doing(title),
        Err(error) => Err(error).doing(title),
    }
}

fn bind_host_device(device: &Device, root: &Root) -> Result<(), Errno> {
    let source = rustix::fs::open(&device.path, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    if rustix::fs::fstat(&source)?.st_rdev != rustix::fs::makedev(device.major, device.minor) {
        return Err(Errno::NODEV);
    }
    let tree = clone_mount(source.as_fd(), false)?;
    attach(&tree, &root.file(&device.path)?)
}

/// Covers a file by the null device and a folder by an empty read-only one.
fn mask(path: &Path, live: &mut Live) -> Result<(), StartError> {
    let title = || format!("mask {}", path.display());
    let target = match live.root()?.open(path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result.doing(title)?,
    };
    let cover = if beneath::file_type(target.as_fd()).doing(title)? == FileType::Directory {
        match &live.empty {
            Some(empty) => clone_mount(empty.as_fd(), false).doing(title)?,
            None => {
                let empty = empty_folder().doing(title)?;
                let cover = clone_mount(empty.as_fd(), false);
                live.empty = Some(empty);
                // A detached tree can be cloned again from Linux 6.15 on; before, every cover is a tmpfs of its own.
                match cover {
                    Ok(cover) => cover,
                    Err(_) => live.empty.take().ok_or(Errno::BADF).doing(title)?,
                }
            }
        }
    } else {
        let null = match live.null.take() {
            Some(null) => null,
            None => null_device(live.root()?).doing(title)?,
        };
        clone_mount(live.null.insert(null).as_fd(), false).doing(title)?
    };
    attach(&cover, &target).doing(title)
}

/// The null device that covers masked files: checked to be it, for what an image could put in its place would open the
/// masked file's neighbours instead of closing it (CVE-2025-31133).
fn null_device(root: &Root) -> Result<OwnedFd, Errno> {
    let own = root.open(Path::new("/dev/null"), OFlags::PATH);
    if let Some(fd) = own.ok().filter(|fd| beneath::is_char_device(fd.as_fd(), 1, 3)) {
        return Ok(fd);
    }
    let host = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    if beneath::is_char_device(host.as_fd(), 1, 3) { Ok(host) } else { Err(Errno::NODEV) }
}

/// One tmpfs for all masked folders: a mount of it is four times cheaper than a tmpfs each.
fn empty_folder() -> Result<OwnedFd, Errno> {
    let file_system = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(file_system.as_fd(), "source", "tmpfs")?;
    rustix::mount::fsconfig_set_flag(file_system.as_fd(), "ro")?;
    rustix::mount::fsconfig_create(file_system.as_fd())?;
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
    rustix::mount::fsmount(file_system.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, read_only)
}

fn make_read_only(path: &Path, root: &Root) -> Result<(), StartError> {
    let title = || format!("make {} read-only", path.display());
    let target = match root.open(path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result.doing(title)?,
    };
    let tree = clone_mount(target.as_fd(), true).doing(title)?;
    let attributes = Attributes { set: sys::MOUNT_ATTR_RDONLY, clear: 0 };
    sys::mount_setattr(tree.as_fd(), true, attributes, 0).doing(title)?;
    attach(&tree, &target).doing(title)
}

fn seal(target: &Path, attributes: Attributes, root: &Root) -> Result<(), Errno> {
    if target == Path::new("/") {
        return sys::mount_setattr(root.fd(), false, attributes, 0).map_err(errno);
    }
    let mount = root.open(target, OFlags::PATH)?;
    sys::mount_setattr(mount.as_fd(), false, attributes, 0).map_err(errno)
}

/// Writes through the host's /proc, which no image can touch; which namespace's value is meant follows the writer.
fn write_sysctl(key: &str, value: &str) -> Result<(), Errno> {
    let path = format!("/proc/sys/{key}");
    let file = rustix::fs::open(path.as_str(), OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    if !beneath::is_procfs(file.as_fd()) {
        return Err(Errno::XDEV);
    }
    // One write: the kernel takes a value whole or not at all.
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

fn clone_mount(fd: BorrowedFd, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(fd, c"", flags)
}

fn attach(tree: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", target, c"", flags)
}

fn fd_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
