//! The printer of explained commands: what `--explain` shows on stderr and `--dry-run` prints as one script.

use std::fmt::Write;
use std::path::Path;

/// A shell command and the reason for it, as the member crates give it too.
pub type Command = (String, String);

/// Prints commands as a shell would take them, each below its reason.
pub fn script(commands: &[Command]) -> String {
    let mut text = String::new();
    for (command, why) in commands {
        if !why.is_empty() {
            let _ = writeln!(text, "# {}", why.replace('\n', " "));
        }
        let _ = writeln!(text, "{command}");
    }
    text
}

/// Quotes a word for a POSIX shell, only where it needs it.
pub fn quote(word: &Path) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_split_or_expand_them() {
        for (word, quoted) in [("a/b.c", "a/b.c"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''"), ("$x", "'$x'")]
        {
            assert_eq!(quote(Path::new(word)), quoted);
        }
    }

    #[test]
    fn a_script_has_a_reason_above_each_command() {
        let commands = [("mkdir a".to_string(), "a place".to_string()), ("ls".to_string(), String::new())];
        assert_eq!(script(&commands), "# a place\nmkdir a\nls\n");
    }
}
