//! `--tmpfs TARGET[:OPTIONS]`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::mounts::{self, Mount};
use super::{Invalid, size};

const FLAG: &str = "--tmpfs";
/// Options of mount(8) that mean something on a tmpfs. No propagation, no remount: those are not its own.
const WORDS: &[&str] = &[
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
];
/// Options with a value (tmpfs(5)).
const KEYS: &[&str] = &["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];

/// Reads one flag. docker's own defaults (noexec, nosuid, nodev) are laid below by the plan.
pub(super) fn parse(text: &OsStr) -> Result<Mount, Invalid> {
    let wrong = |why: String| Invalid::value(FLAG, text, why);
    let bytes = text.as_bytes();
    let (target, options) = match bytes.iter().position(|byte| *byte == b':') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b""[..]),
    };
    let target = mounts::target(OsStr::from_bytes(target)).map_err(wrong)?;
    let options = options
        .split(|byte| *byte == b',')
        .filter(|word| !word.is_empty())
        .map(option)
        .collect::<Result<_, _>>()
        .map_err(wrong)?;
    Ok(Mount::Tmpfs { target, options, by_mount: false })
}

/// One option of a tmpfs, checked.
pub(super) fn option(word: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(word).map_err(|_| unknown("tmpfs option", word, "size=64m, mode=1777, noexec"))?;
    let Some((key, value)) = text.split_once('=') else {
        return match WORDS.contains(&text) {
            true => Ok(text.to_owned()),
            false => Err(unknown("tmpfs option", word, "size=64m, mode=1777, noexec")),
        };
    };
    let octal = || u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777);
    let number = || !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let good = match key {
        "size" | "nr_inodes" | "nr_blocks" => {
            value.strip_suffix('%').is_some_and(|part| part.parse::<u8>().is_ok()) || size::parse(value).is_ok()
        }
        "mode" => octal(),
        "uid" | "gid" => number(),
        "mpol" => value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"=:-,".contains(&byte)),
        _ => return Err(unknown("tmpfs option", word, &KEYS.join(", "))),
    };
    match good {
        true => Ok(text.to_owned()),
        false => Err(format!("invalid value for tmpfs option {key}: {value:?}")),
    }
}

/// The sentence for a word that isn't an option.
pub(super) fn unknown(what: &str, word: &[u8], known: &str) -> String {
    format!("invalid {what} {:?}; there are {known}", String::from_utf8_lossy(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_a_tmpfs() {
        let read = |text: &str| parse(OsStr::new(text));
        let mount = |options: &[&str]| Mount::Tmpfs {
            by_mount: false,
            target: "/run".into(),
            options: options.iter().map(|text| (*text).to_owned()).collect(),
        };
        assert_eq!(read("/run").unwrap(), mount(&[]));
        assert_eq!(
            read("/run:rw,noexec,size=65536k,mode=1777,uid=1000").unwrap(),
            mount(&["rw", "noexec", "size=65536k", "mode=1777", "uid=1000"])
        );
        assert_eq!(read("/run:size=50%").unwrap(), mount(&["size=50%"]));
        for text in [
            "foo",
            "/",
            "/run:foo",
            "/run:size=q",
            "/run:mode=99",
            "/run:uid=root",
            "/run:bind",
            "/run:x=y",
            "/run:size=",
            "/run:nr_inodes=-1",
            "",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
