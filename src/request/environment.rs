//! Environment variables: `-e`, `--env-file`, and how they are laid over the image's.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Serialize};

use super::{Invalid, Surroundings, text};

/// docker's PATH where the image sets none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One variable set or taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvChange {
    /// Not empty, without `=`.
    #[serde(with = "text::one")]
    pub name: OsString,
    /// `None`: the image's variable is removed (`-e NAME` where NAME isn't set here).
    #[serde(with = "text::option")]
    pub value: Option<OsString>,
}

/// Reads `--env-file` and then `-e`; later ones win.
pub(super) fn gather(
    files: &[std::path::PathBuf],
    flags: &[OsString],
    around: &Surroundings,
) -> Result<Vec<EnvChange>, Invalid> {
    let mut changes = Vec::new();
    for path in files {
        let content = around.read("--env-file", path)?;
        for (name, value) in lines("--env-file", path, &content)? {
            // A name alone is taken from here, or not at all: a file, unlike -e, never removes.
            if let Some(value) = value.or_else(|| (around.environment)(&name)) {
                changes.push(EnvChange { name, value: Some(value) });
            }
        }
    }
    for flag in flags {
        let (name, value) = split(flag);
        if name.is_empty() {
            return Err(Invalid::value("-e, --env", flag, "the variable has no name; write NAME=VALUE"));
        }
        let value = value.or_else(|| (around.environment)(&name));
        changes.push(EnvChange { name, value });
    }
    Ok(changes)
}

/// The lines of an `--env-file` or `--label-file`: `NAME=VALUE` or `NAME`; `#` begins a comment line.
///
/// # Errors
/// File, line and what is wrong there.
pub(super) fn lines(
    flag: &str,
    path: &std::path::Path,
    content: &[u8],
) -> Result<Vec<(OsString, Option<OsString>)>, Invalid> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut found = Vec::new();
    for (number, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let wrong = |why: &str| Invalid::value(flag, path, format!("line {}: {why}", number + 1));
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if std::str::from_utf8(line).is_err() {
            return Err(wrong("not UTF-8 text"));
        }
        if line.contains(&0) {
            return Err(wrong("it holds a NUL byte"));
        }
        let (name, value) = split(OsStr::from_bytes(line));
        if name.is_empty() {
            return Err(wrong("there is no name before ="));
        }
        if name.as_bytes().iter().any(|byte| byte.is_ascii_whitespace()) {
            return Err(wrong(&format!("the name {name:?} contains whitespace")));
        }
        found.push((name, value));
    }
    Ok(found)
}

/// At the first `=`.
fn split(text: &OsStr) -> (OsString, Option<OsString>) {
    let bytes = text.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        None => (text.to_owned(), None),
        Some(at) => (OsString::from_vec(bytes[..at].to_vec()), Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
    }
}

/// The environment of a container's program, in docker's order: PATH, HOSTNAME, TERM, then the image's variables and
/// the user's; a variable keeps its first place and its last value. Linear, so that 10⁵ variables stay cheap.
pub fn of_container(hostname: &str, terminal: bool, image: &[String], changes: &[EnvChange]) -> Vec<OsString> {
    let mut base = vec![OsString::from(DEFAULT_PATH), OsString::from(format!("HOSTNAME={hostname}"))];
    if terminal {
        base.push("TERM=xterm".into());
    }
    base.extend(image.iter().map(OsString::from));
    merge(base, changes)
}

/// Lays `changes` over `base` (`NAME=VALUE` each).
pub fn merge(base: Vec<OsString>, changes: &[EnvChange]) -> Vec<OsString> {
    let mut places: HashMap<OsString, usize> = HashMap::new();
    let mut merged: Vec<Option<OsString>> = Vec::new();
    let base = base.into_iter().map(|variable| {
        let (name, value) = split(&variable);
        EnvChange { name, value: Some(value.unwrap_or_default()) }
    });
    for EnvChange { name, value } in base.chain(changes.iter().cloned()) {
        let line = value.map(|value| {
            let mut line = name.clone();
            line.push("=");
            line.push(value);
            line
        });
        match places.get(&name) {
            Some(place) => merged[*place] = line,
            None => {
                places.insert(name, merged.len());
                merged.push(line);
            }
        }
    }
    merged.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(content: &str) -> Result<Vec<(OsString, Option<OsString>)>, Invalid> {
        lines("--env-file", Path::new("x"), content.as_bytes())
    }

    #[test]
    fn a_file_has_a_variable_a_line() {
        let found = read("\u{feff}A=1\r\n  # comment\n\n  B=x y = z \nC\nD=\n").unwrap();
        let expected: [(OsString, Option<OsString>); 4] = [
            ("A".into(), Some("1".into())),
            ("B".into(), Some("x y = z ".into())),
            ("C".into(), None),
            ("D".into(), Some("".into())),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_wrong_line_is_named() {
        assert!(read("A=1\n=x").unwrap_err().message.contains("line 2"));
        assert!(read("A B=1").unwrap_err().message.contains("whitespace"));
        assert!(lines("--env-file", Path::new("x"), b"A=\xff").unwrap_err().message.contains("UTF-8"));
        assert!(lines("--env-file", Path::new("x"), b"A=\0").is_err());
    }

    #[test]
    fn names_alone_come_from_here_and_flags_win_over_files() {
        let around = Surroundings {
            cwd: "/".into(),
            environment: &|name| (name == "HERE").then(|| "yes".into()),
            read: &|_, _| Ok(b"A=file\nHERE\nGONE\n".to_vec()),
        };
        let changes =
            gather(&["f".into()], &["A=flag".into(), "HERE".into(), "GONE".into(), "E=".into()], &around).unwrap();
        let merged = merge(vec!["GONE=image".into(), "PATH=/bin".into()], &changes);
        assert_eq!(merged, ["PATH=/bin", "A=flag", "HERE=yes", "E="]);
        for flag in ["", "=x"] {
            assert!(gather(&[], &[flag.into()], &around).is_err());
        }
    }

    #[test]
    fn a_container_has_dockers_variables_first() {
        let changes = [EnvChange { name: "TERM".into(), value: Some("vt100".into()) }];
        let image = ["PATH=/x".to_owned(), "LANG=C".to_owned()];
        assert_eq!(of_container("h", true, &image, &changes), ["PATH=/x", "HOSTNAME=h", "TERM=vt100", "LANG=C"]);
        assert_eq!(of_container("h", false, &[], &[]), [DEFAULT_PATH, "HOSTNAME=h"]);
    }

    #[test]
    fn a_hundred_thousand_variables_and_bytes_that_are_no_text() {
        let flags: Vec<OsString> = (0..100_000)
            .map(|n| format!("V{n}={n}").into())
            .chain([OsString::from_vec(b"X=\xff\xfe".to_vec())])
            .collect();
        let around = Surroundings { cwd: "/".into(), environment: &|_| None, read: &|_, _| Ok(Vec::new()) };
        let merged = merge(Vec::new(), &gather(&[], &flags, &around).unwrap());
        assert_eq!(merged.len(), 100_001);
        assert_eq!(merged[100_000].as_bytes(), b"X=\xff\xfe");
    }
}
