//! The extended attributes of files that go into an archive.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use images::keeps_attribute;
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// An attribute is never larger (linux/limits.h, XATTR_SIZE_MAX, XATTR_LIST_MAX).
const ATTRIBUTE_MAX: usize = 64 << 10;

/// Names and values.
pub type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// The attributes that an image may have, and whether overlayfs's says that the folder is opaque.
pub fn of(top: &OwnedFd, name: &[u8]) -> Result<(Attributes, bool)> {
    let name = name.strip_suffix(b"/").unwrap_or(name);
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let fd = rustix::fs::openat2(top, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), how)
        .map_err(io::Error::from)?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let mut names = vec![0; ATTRIBUTE_MAX];
    let length = match rustix::fs::listxattr(&path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(io::Error::from(errno)).context("cannot list attributes"),
    };
    let (mut kept, mut opaque) = (Vec::new(), false);
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; if name == b"trusted.overlay.opaque" { 8 } else { ATTRIBUTE_MAX }];
        let Ok(length) = rustix::fs::getxattr(&path, name, &mut value) else { continue };
        value.truncate(length);
        opaque |= name == b"trusted.overlay.opaque" && value == b"y";
        if keeps_attribute(name) {
            kept.push((name.to_vec(), value));
        }
    }
    kept.sort();
    Ok((kept, opaque))
}
