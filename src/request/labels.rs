//! Labels: `--label KEY[=VALUE]` and `--label-file`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Invalid, Surroundings, environment};

/// Reads the files, then the flags; later ones win.
pub(super) fn gather(
    files: &[PathBuf],
    flags: &[String],
    around: &Surroundings,
) -> Result<BTreeMap<String, String>, Invalid> {
    let mut labels = BTreeMap::new();
    for path in files {
        let content = around.read("--label-file", path)?;
        for (name, value) in environment::lines("--label-file", path, &content)? {
            // docker: a name alone is no label, in a file.
            let Some(value) = value else { continue };
            labels.insert(name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned());
        }
    }
    for flag in flags {
        let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
        if key.is_empty() {
            return Err(Invalid::value("-l, --label", flag, "the label has no name; write KEY=VALUE"));
        }
        if key.contains(char::is_whitespace) {
            return Err(Invalid::value("-l, --label", flag, format!("label '{key}' contains whitespaces")));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_from_files_and_flags() {
        let around = Surroundings {
            cwd: "/".into(),
            environment: &|_| Some("here".into()),
            read: &|_, _| Ok(b"a=1\nb\n".to_vec()),
        };
        let labels = gather(&["f".into()], &["a=2".into(), "c=x=y".into(), "d".into()], &around).unwrap();
        let expected = [("a", "2"), ("c", "x=y"), ("d", "")];
        assert_eq!(labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>(), expected);
        assert!(gather(&[], &["=x".into()], &around).is_err());
        assert!(gather(&[], &["a b=x".into()], &around).is_err());
        assert!(gather(&[], &[String::new()], &around).is_err());
    }
}
