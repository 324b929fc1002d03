//! Words for a POSIX shell.

use std::ffi::OsStr;

/// One word, quoted when it needs to be.
pub(crate) fn word(text: impl AsRef<OsStr>) -> String {
    let text = text.as_ref().to_string_lossy();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_.-+:,@%=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A path of the container as a word, from the host's side: `"$root/proc"`.
pub(crate) fn inside(path: impl AsRef<OsStr>) -> String {
    let path = path.as_ref().to_string_lossy();
    let escaped: String =
        path.chars().flat_map(|c| "\"\\$`".contains(c).then_some('\\').into_iter().chain([c])).collect();
    format!("\"$root{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for text in ["plain", "", "two words", "it's", "$HOME`id`\\", "a\nb", "*"] {
            let output =
                std::process::Command::new("sh").args(["-c", &format!("printf %s {}", word(text))]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
            let script = format!("root=/r; printf %s {}", inside(format!("/{text}")));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("/r/{text}"));
        }
    }
}
