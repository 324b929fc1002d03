//! `-v [SOURCE:]TARGET[:OPTIONS]`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::mounts::{self, Mount, Propagation, VolumeOptions, VolumesFrom};
use super::{Invalid, tmpfs};

const FLAG: &str = "-v, --volume";

/// Reads one flag. `warnings` gets what has no effect on this host.
pub(super) fn parse(text: &OsStr, cwd: &Path, warnings: &mut Vec<String>) -> Result<Mount, Invalid> {
    let wrong = |why: String| Invalid::value(FLAG, text, why);
    let parts: Vec<&[u8]> = text.as_bytes().split(|byte| *byte == b':').collect();
    let (source, target, options) =
        match parts[..] {
            [target] => (None, target, &b""[..]),
            [source, target] => (Some(source), target, &b""[..]),
            [source, target, options] => (Some(source), target, options),
            _ => return Err(wrong(
                "invalid volume specification; write SOURCE:TARGET[:OPTIONS], and use --mount for paths with a colon"
                    .to_owned(),
            )),
        };
    let target = mounts::target(OsStr::from_bytes(target)).map_err(|why| wrong(why).by_engine())?;
    let options = Options::parse(options, warnings).map_err(wrong)?;
    let volume = |name: Option<String>, target: PathBuf, options: &Options| Mount::Volume {
        target,
        read_only: options.read_only,
        copy: !options.no_copy,
        name,
        options: Box::new(VolumeOptions { propagation: options.propagation.unwrap_or_default(), ..Default::default() }),
    };
    let Some(source) = source else {
        return Ok(volume(None, target, &options));
    };
    match source.first() {
        None => Err(wrong("invalid volume specification: the source is empty".to_owned())),
        Some(b'/' | b'.') => {
            if options.no_copy {
                return Err(wrong("nocopy is for volumes; leave it out".to_owned()));
            }
            Ok(Mount::Bind {
                source: mounts::source(OsStr::from_bytes(source), cwd).map_err(wrong)?,
                target,
                read_only: options.read_only,
                propagation: options.propagation.unwrap_or_default(),
                recursive: true,
                writable_below: false,
                create_source: true,
            })
        }
        Some(_) => {
            let name = String::from_utf8_lossy(source).into_owned();
            crate::volume::check_name(&name).map_err(wrong)?;
            Ok(volume(Some(name), target, &options))
        }
    }
}

/// `--volumes-from CONTAINER[:ro|rw]`.
pub(super) fn volumes_from(words: &[String]) -> Result<Vec<VolumesFrom>, Invalid> {
    let read = |word: &String| {
        let (container, mode) = word.split_once(':').unwrap_or((word, "rw"));
        let wrong = |why: &str| Invalid::value("--volumes-from", OsStr::new(word), why);
        if container.is_empty() {
            return Err(wrong("the container's name is missing"));
        }
        let mut read_only = false;
        for word in mode.split(',') {
            match word {
                "ro" => read_only = true,
                "rw" | "z" | "Z" | "nocopy" => {}
                _ => return Err(wrong("invalid mode; there are ro and rw")),
            }
        }
        Ok(VolumesFrom { container: container.to_owned(), read_only })
    };
    words.iter().map(read).collect()
}

#[derive(Default)]
struct Options {
    read_only: bool,
    no_copy: bool,
    propagation: Option<Propagation>,
}

impl Options {
    fn parse(text: &[u8], warnings: &mut Vec<String>) -> Result<Options, String> {
        let mut options = Options::default();
        if text.is_empty() {
            return Ok(options);
        }
        let mut kinds = Vec::new();
        for word in text.split(|byte| *byte == b',') {
            let kind = match word {
                b"ro" | b"rw" => {
                    options.read_only = word == b"ro";
                    "ro or rw"
                }
                b"z" | b"Z" => {
                    warnings.push("the volume option z has no effect: minidock has no SELinux labels".to_owned());
                    "z or Z"
                }
                b"nocopy" => {
                    options.no_copy = true;
                    "nocopy"
                }
                // Documented by docker as without effect on Linux.
                b"consistent" | b"cached" | b"delegated" => "consistency",
                word => match Propagation::parse(word) {
                    Some(propagation) => {
                        options.propagation = Some(propagation);
                        "propagation"
                    }
                    None => {
                        return Err(tmpfs::unknown(
                            "volume option",
                            word,
                            "ro, rw, nocopy, z, Z, rprivate, rshared, rslave, private, shared, slave",
                        ));
                    }
                },
            };
            if kinds.contains(&kind) {
                return Err(format!("invalid mode: {kind} is given twice"));
            }
            kinds.push(kind);
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    fn read(text: &str) -> Result<Mount, Invalid> {
        parse(OsStr::new(text), Path::new("/cwd"), &mut Vec::new())
    }

    fn bind(source: &str, target: &str, read_only: bool, propagation: Propagation) -> Mount {
        Mount::Bind {
            source: source.into(),
            target: target.into(),
            read_only,
            propagation,
            recursive: true,
            writable_below: false,
            create_source: true,
        }
    }

    #[test]
    fn the_forms_of_a_volume() {
        assert_eq!(read("/a:/b").unwrap(), bind("/a", "/b", false, Propagation::Rprivate));
        assert_eq!(read("./a:/b:ro").unwrap(), bind("/cwd/a", "/b", true, Propagation::Rprivate));
        assert_eq!(read("/a:/b:rw,rslave,z").unwrap(), bind("/a", "/b", false, Propagation::Rslave));
        let volume = |name: Option<&str>, target: &str, read_only, copy, propagation| Mount::Volume {
            target: target.into(),
            read_only,
            copy,
            name: name.map(str::to_string),
            options: Box::new(VolumeOptions { propagation, ..Default::default() }),
        };
        assert_eq!(read("/anon/").unwrap(), volume(None, "/anon", false, true, Propagation::Rprivate));
        assert_eq!(read("data:/b").unwrap(), volume(Some("data"), "/b", false, true, Propagation::Rprivate));
        assert_eq!(
            read("da.ta:/b:ro,nocopy,z,rslave").unwrap(),
            volume(Some("da.ta"), "/b", true, false, Propagation::Rslave)
        );
        let bytes = OsString::from_vec(b"/a\xff:/b\xfe".to_vec());
        assert!(parse(&bytes, Path::new("/"), &mut Vec::new()).is_ok());
    }

    #[test]
    fn wrong_volumes_are_refused() {
        for text in [
            "",
            ":",
            "a",
            "/a:b",
            "/a:/",
            ":/b",
            "/a:",
            "a:b:c:d",
            "/a:/b:zz",
            "/a:/b:ro,rw",
            "/a:/b:ro,",
            "/a:/b:nocopy",
            "/a:ro",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let error = read("my/data:/b").unwrap_err();
        assert!(error.message.contains("includes invalid characters for a local volume name"), "{error}");
        assert!(read("d:/b").unwrap_err().message.contains("too short"));
    }
}
