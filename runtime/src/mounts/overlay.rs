//! The root file system from layers: the overlay's option string, which must fit into one page.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::error::Error;
use crate::facts::Facts;

/// What mount(2) copies of its data argument: one page, with the zero at the end (mount(2), NOTES).
const DATA_MAX: usize = 4095;
/// More layers than this are refused by the kernel (OVL_MAX_STACK, fs/overlayfs/params.h).
const LAYERS_MAX: usize = 500;
/// Set explicitly because distributions change the kernel's defaults: all off is what docker asks for, too. `index` and
/// `redirect_dir` would need more rights for the same result, `metacopy` trusts attributes of the layers.
const FIXED: &str = "index=off,metacopy=off,redirect_dir=off";

/// An overlay of read-only layers below one writable folder; Documentation/filesystems/overlayfs.rst.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// The layers as they're named, topmost first.
    pub lower: Vec<PathBuf>,
    /// The folder from which relative names in `lower` start.
    pub base: Option<PathBuf>,
    /// One `lowerdir+` each through fsconfig(2) instead of one string (Linux 6.7).
    pub one_by_one: bool,
    /// Takes the changes.
    pub upper: PathBuf,
    /// Same file system as `upper`, empty.
    pub work: PathBuf,
    /// Where it is mounted.
    pub merged: PathBuf,
    /// No sync ever: the content is thrown away or may be lost with the machine.
    pub volatile: bool,
}

impl Overlay {
    /// Chooses the form that the kernel takes: absolute names, else relative ones, else one by one.
    ///
    /// # Errors
    /// No layer, too many of them, or an option string that fits in no form.
    pub fn plan(
        lower: &[PathBuf],
        (upper, work, merged): (&Path, &Path, &Path),
        volatile: bool,
        facts: &Facts,
    ) -> Result<Overlay, Error> {
        if !facts.overlay {
            return Err(Error::refused(
                "this kernel has no overlay file system (CONFIG_OVERLAY_FS); use --rootfs DIR instead of an image",
            ));
        }
        if lower.is_empty() {
            return Err(Error::refused("the image has no layers, so there is nothing to run"));
        }
        if lower.len() > LAYERS_MAX {
            return Err(Error::refused(format!(
                "the image has {} layers; the kernel's overlay takes {LAYERS_MAX}",
                lower.len()
            )));
        }
        for path in lower.iter().map(PathBuf::as_path).chain([upper, work, merged]) {
            if !path.is_absolute() {
                return Err(Error::refused(format!("the layer path {} is not absolute", path.display())));
            }
        }
        let mut overlay = Overlay {
            lower: lower.iter().rev().cloned().collect(),
            base: None,
            one_by_one: false,
            upper: upper.to_owned(),
            work: work.to_owned(),
            merged: merged.to_owned(),
            volatile,
        };
        if overlay.data().len() <= DATA_MAX {
            return Ok(overlay);
        }
        let base = common_folder(&overlay.lower);
        let relative = |path: &PathBuf| path.strip_prefix(&base).map(Path::to_owned).unwrap_or_else(|_| path.clone());
        let short = Overlay {
            lower: overlay.lower.iter().map(relative).collect(),
            base: Some(base.clone()),
            ..overlay.clone()
        };
        if short.data().len() <= DATA_MAX {
            return Ok(short);
        }
        if facts.kernel >= (6, 7) {
            overlay.one_by_one = true;
            return Ok(overlay);
        }
        Err(Error::refused(format!(
            "the names of the image's {} layers are too long for this kernel's overlay: {} bytes, at most {DATA_MAX}; Linux 6.7 takes them one by one, or use an image with fewer layers",
            lower.len(),
            short.data().len()
        )))
    }

    /// The options of mount(2).
    pub(super) fn data(&self) -> Vec<u8> {
        let mut data = b"lowerdir=".to_vec();
        for (number, path) in self.lower.iter().enumerate() {
            if number > 0 {
                data.push(b':');
            }
            escape(path, &mut data);
        }
        for (name, path) in [("upperdir", &self.upper), ("workdir", &self.work)] {
            data.extend_from_slice(format!(",{name}=").as_bytes());
            escape(path, &mut data);
        }
        data.push(b',');
        data.extend_from_slice(self.flags().as_bytes());
        data
    }

    /// The options that are no paths.
    pub(super) fn flags(&self) -> String {
        format!("{FIXED}{}", if self.volatile { ",volatile" } else { "" })
    }
}

/// Colons separate layers, commas options; a backslash takes their meaning away (ovl_next_opt, ovl_split_lowerdirs).
fn escape(path: &Path, data: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            data.push(b'\\');
        }
        data.push(*byte);
    }
}

/// The deepest folder that holds all of them.
fn common_folder(paths: &[PathBuf]) -> PathBuf {
    let mut common: Vec<Component> = paths.first().map(|path| path.components().collect()).unwrap_or_default();
    for path in paths {
        // A layer is never its own base: the relative name would be empty.
        let folder = path.parent().unwrap_or(path).components();
        let same = common.iter().zip(folder).take_while(|(a, b)| **a == *b).count();
        common.truncate(same);
    }
    common.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(layers: usize, kernel: (u32, u32)) -> Result<Overlay, Error> {
        let lower: Vec<_> =
            (0..layers).map(|n| PathBuf::from(format!("/var/lib/minidock/layers/{n:064}/fs"))).collect();
        let folders = (Path::new("/c/upper"), Path::new("/c/work"), Path::new("/c/merged"));
        Overlay::plan(&lower, folders, false, &Facts { kernel, ..Facts::for_tests() })
    }

    #[test]
    fn the_form_follows_the_length() {
        let few = plan(2, (6, 1)).unwrap();
        assert_eq!((few.base.clone(), few.one_by_one), (None, false));
        assert!(few.lower[0].to_str().unwrap().contains("01/fs"), "the topmost layer comes first");
        let many = plan(50, (6, 1)).unwrap();
        assert_eq!(many.base.as_deref(), Some(Path::new("/var/lib/minidock/layers")));
        assert!(many.data().len() <= DATA_MAX);
        assert!(plan(128, (6, 7)).unwrap().one_by_one);
        assert!(plan(128, (6, 1)).unwrap_err().to_string().contains("128 layers"));
        assert!(plan(0, (6, 1)).is_err());
    }

    #[test]
    fn special_bytes_are_escaped() {
        let lower = [PathBuf::from("/a:b,c\\d")];
        let folders = (Path::new("/u"), Path::new("/w"), Path::new("/m"));
        let overlay = Overlay::plan(&lower, folders, true, &Facts::for_tests()).unwrap();
        let data = String::from_utf8(overlay.data()).unwrap();
        assert_eq!(
            data,
            "lowerdir=/a\\:b\\,c\\\\d,upperdir=/u,workdir=/w,index=off,metacopy=off,redirect_dir=off,volatile"
        );
    }
}
