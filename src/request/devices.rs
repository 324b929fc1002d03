//! Devices of the host: `--device HOST[:CONTAINER[:rwm]]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Invalid, text};

const FLAG: &str = "--device";

/// A device, or a folder of devices, that the container may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where it is on the host.
    #[serde(with = "text::one")]
    pub host: PathBuf,
    /// Where it will be in the container.
    #[serde(with = "text::one")]
    pub container: PathBuf,
    /// Read, write, mknod: letters of `rwm`.
    pub permissions: String,
}

/// Reads one flag.
pub(super) fn parse(text: &str) -> Result<Device, Invalid> {
    let wrong = |why: String| Invalid::value(FLAG, text, why);
    if !text.starts_with('/') && text.contains('=') {
        return Err(wrong(
            "CDI devices (vendor.com/class=name) are not supported; name the file below /dev".to_owned(),
        ));
    }
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, permissions) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, second] if is_mode(second) => (host, host, second),
        [host, container] => (host, container, "rwm"),
        [host, container, mode] if is_mode(mode) => (host, container, mode),
        [_, _, mode] => {
            return Err(wrong(format!("bad mode specified: {mode}; use letters of rwm")));
        }
        _ => return Err(wrong("bad format; write HOST[:CONTAINER[:rwm]]".to_owned())),
    };
    for path in [host, container] {
        if !path.starts_with('/') {
            return Err(wrong(format!("{path:?} is not an absolute path")));
        }
    }
    if container.split('/').any(|part| part == "..") {
        return Err(wrong("the path in the container may not contain '..'".to_owned()));
    }
    Ok(Device { host: host.into(), container: container.into(), permissions: permissions.to_owned() })
}

/// Letters of `rwm`, each at most once.
fn is_mode(text: &str) -> bool {
    !text.is_empty() && "rwm".chars().filter(|letter| text.matches(*letter).count() == 1).count() == text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let read = |text: &str| {
            let device = parse(text).unwrap();
            (device.host.display().to_string(), device.container.display().to_string(), device.permissions)
        };
        let three = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(read("/dev/null"), three("/dev/null", "/dev/null", "rwm"));
        assert_eq!(read("/dev/null:r"), three("/dev/null", "/dev/null", "r"));
        assert_eq!(read("/dev/null:/dev/x"), three("/dev/null", "/dev/x", "rwm"));
        assert_eq!(read("/dev/null:/dev/x:wr"), three("/dev/null", "/dev/x", "wr"));
        for text in [
            "",
            "foo",
            "/dev/null:x",
            "/dev/null:/dev/x:q",
            "/dev/null:/dev/x:rr",
            "/dev/null:/dev/x:r:w",
            "vendor.com/gpu=all",
            "/dev/null:/dev/../etc/x",
            "/dev/null:",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
