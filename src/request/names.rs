//! Names of containers and hosts.

use super::Invalid;

/// A container's name is also a file name (its namespace below /run/netns) and part of messages.
const LONGEST_NAME: usize = 128;

/// Checks a container's name; docker's rule. An empty name is none.
///
/// # Errors
/// What a name may consist of.
pub fn container(text: &str) -> Result<Option<String>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    // docker's names used to begin with a slash, and still may.
    let name = text.strip_prefix('/').unwrap_or(text);
    let mut letters = name.bytes();
    let first = letters.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = letters.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if !first || !rest || name.len() < 2 {
        return Err(Invalid::value(
            "--name",
            text,
            "only [a-zA-Z0-9][a-zA-Z0-9_.-]+ is allowed: two or more letters, digits, '_', '.', '-', beginning with a letter or digit",
        ));
    }
    if name.len() > LONGEST_NAME {
        return Err(Invalid::value(
            "--name",
            text,
            format!("longer than {LONGEST_NAME} characters; choose a shorter one"),
        ));
    }
    Ok(Some(name.to_owned()))
}

/// Checks a host name (RFC 1123 labels, and `_` as many use it), at most the kernel's 64 bytes.
///
/// # Errors
/// What a host name may consist of.
pub fn host(flag: &str, text: &str) -> Result<Option<String>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.len() > 63 {
        return Err(Invalid::value(flag, text, "a host name has at most 63 characters"));
    }
    match text.split('.').all(label) {
        true => Ok(Some(text.to_owned())),
        false => Err(Invalid::value(
            flag,
            text,
            "invalid hostname format: parts between dots consist of letters, digits and '-', and don't begin or end with '-'",
        )),
    }
}

/// One part of a host or domain name.
pub(super) fn label(text: &str) -> bool {
    let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    letters && !text.is_empty() && text.len() <= 63 && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_names() {
        for name in ["web", "a1", "a.b_c-d", "0x", "/web"] {
            assert_eq!(container(name).unwrap().as_deref(), Some(name.trim_start_matches('/')));
        }
        assert_eq!(container(""), Ok(None));
        for name in ["a", "-a", ".a", "_a", "a b", "a/b", "../x", "ä1", "a\n", "a\0b", "//web", &"x".repeat(129)] {
            assert!(container(name).is_err(), "{name}");
        }
    }

    #[test]
    fn host_names() {
        for name in ["a", "web.example.org", "a_b", "1-2", &"x".repeat(63)] {
            assert!(host("-h, --hostname", name).is_ok(), "{name}");
        }
        for name in ["-a", "a-", "a..b", ".a", "a.", "a b", "a/b", "a\n127.0.0.1 bank", "ä", &"x".repeat(64)] {
            assert!(host("-h, --hostname", name).is_err(), "{name}");
        }
    }
}
