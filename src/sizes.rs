//! How many bytes a folder's files have: what a container has written, for `ps -s` and `inspect -s`.
//!
//! A running container may swap folders for links meanwhile, so every folder is opened below the first one, links never
//! followed (openat2), and the walk is bounded.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat, openat2, statat};

/// A container can make folders without end; beyond this the number is "at least".
const MAX_ENTRIES: usize = 10_000_000;

/// The sum of the lengths of all regular files below a folder, each inode once. 0 where there is no folder.
pub fn of_folder(folder: &Path) -> u64 {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = openat(CWD, folder, flags, Mode::empty()) else { return 0 };
    let mut seen = HashSet::new();
    let (mut bytes, mut entries) = (0u64, 0usize);
    let mut waiting = vec![PathBuf::new()];
    while let Some(relative) = waiting.pop() {
        let Some(folder) = open_below(&root, &relative) else { continue };
        for entry in Dir::read_from(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            entries += 1;
            if entries > MAX_ENTRIES {
                return bytes;
            }
            let Ok(data) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            match FileType::from_raw_mode(data.st_mode) {
                FileType::Directory => {
                    use std::os::unix::ffi::OsStrExt;
                    waiting.push(relative.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
                }
                // Only files with several names need remembering.
                FileType::RegularFile if data.st_nlink == 1 || seen.insert((data.st_dev, data.st_ino)) => {
                    bytes = bytes.saturating_add(u64::try_from(data.st_size).unwrap_or(0));
                }
                _ => {}
            }
        }
    }
    bytes
}

fn open_below(root: &OwnedFd, relative: &Path) -> Option<OwnedFd> {
    let path = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(root, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_and_links_are_not_followed() {
        let base = std::env::temp_dir().join(format!("minidock-sizes-{}", std::process::id()));
        let folder = base.join("upper");
        std::fs::create_dir_all(folder.join("a/b")).unwrap();
        std::fs::write(base.join("outside"), vec![0; 5000]).unwrap();
        std::fs::write(folder.join("a/b/file"), vec![0; 100]).unwrap();
        std::fs::hard_link(folder.join("a/b/file"), folder.join("again")).unwrap();
        std::fs::write(folder.join("one"), vec![0; 7]).unwrap();
        std::os::unix::fs::symlink(&base, folder.join("link")).unwrap();
        std::os::unix::fs::symlink(base.join("outside"), folder.join("file-link")).unwrap();
        assert_eq!(of_folder(&folder), 107);
        assert_eq!(of_folder(&base.join("none")), 0);
        std::fs::remove_dir_all(&base).unwrap();
    }
}
