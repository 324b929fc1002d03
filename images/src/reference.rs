//! Image names by docker's grammar (github.com/distribution/reference): `[domain[:port]/]path[:tag][@digest]`.
//!
//! `busybox` means `docker.io/library/busybox:latest`; what is printed is the familiar short form.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::Error;

/// The registry that a name without one means.
const DEFAULT_DOMAIN: &str = "docker.io";
/// Prefix of docker.io's one-word names.
const OFFICIAL: &str = "library/";
/// Longest name without tag and digest, in bytes.
const NAME_MAX: usize = 255;
/// Longest tag, in bytes.
const TAG_MAX: usize = 128;

/// An image's name, checked. Compared and sorted by its full form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a name as docker's command line does; without tag and digest, the tag is `latest`.
    pub fn parse(text: &str) -> Result<Reference, Error> {
        parse(text).map_err(|why| {
            // A hostile name must not fill the screen.
            let name = text.chars().take(300).collect();
            Error::BadName { name, why }
        })
    }

    /// `docker.io`
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// `library/busybox`
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `latest`; None only for a name with a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, for `name@sha256:…`.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// `busybox`: the familiar form without tag and digest, as the column REPOSITORY shows it.
    pub fn repository(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return format!("{}/{}", self.domain, self.path);
        }
        let short = self.path.strip_prefix(OFFICIAL).filter(|rest| !rest.contains('/'));
        short.unwrap_or(&self.path).to_owned()
    }
}

/// docker's familiar form: `busybox:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference, Error> {
        Reference::parse(text)
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
        None => (text, None),
    };
    // A colon behind the last slash begins a tag; one before it is a port.
    let slash = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[slash..].find(':') {
        Some(colon) => (&rest[..slash + colon], Some(&rest[slash + colon + 1..])),
        None => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    if Digest::from_hex(name).is_some() {
        return Err("64 hexadecimal digits are an id, not a name".into());
    }
    let (domain, path) = split_domain(name);
    check_domain(domain)?;
    let path = match domain == DEFAULT_DOMAIN && !path.contains('/') {
        true => format!("{OFFICIAL}{path}"),
        false => path.to_owned(),
    };
    path.split('/').try_for_each(check_component)?;
    if domain.len() + 1 + path.len() > NAME_MAX {
        return Err(format!("it is longer than {NAME_MAX} bytes"));
    }
    let tag = match (tag, digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference { domain: domain.to_owned(), path, tag, digest })
}

/// The first part is a registry if it looks like a host: has a dot, a port or a capital, or is localhost.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest))
            if first.contains(['.', ':', '['])
                || first == "localhost"
                || first.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

/// `host.example:5000` or `[fd00::1]:5000`
fn check_domain(domain: &str) -> Result<(), String> {
    let bad = || format!("{domain:?} is not a registry's host name");
    let (host, port) = if let Some(rest) = domain.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or_else(bad)?;
        if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
            return Err(bad());
        }
        let port = match port {
            "" => None,
            port => Some(port.strip_prefix(':').ok_or_else(bad)?),
        };
        ("ipv6", port)
    } else {
        match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        }
    };
    let label = |label: &str| {
        let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        alphanumeric(bytes.first())
            && alphanumeric(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    let port_fits = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    if host.split('.').all(label) && port_fits { Ok(()) } else { Err(bad()) }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn check_component(component: &str) -> Result<(), String> {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let fits = bytes.first().is_some_and(|b| word(*b))
        && bytes.last().is_some_and(|b| word(*b))
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'));
    if fits {
        return Ok(());
    }
    if bytes.iter().any(u8::is_ascii_uppercase) {
        return Err("the repository must be in lower case".into());
    }
    Err("parts of a name are a-z and 0-9, joined by single dots, one or two underscores, or dashes".into())
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
pub(crate) fn check_tag(tag: &str) -> Result<(), String> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    let fits = bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
        && bytes.len() <= TAG_MAX;
    match fits {
        true => Ok(()),
        false => Err(format!("a tag has 1 to {TAG_MAX} letters, digits, _ . - and begins with none of . -")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_mean_and_show_what_docker_means_and_shows() {
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("user/app:v1", "docker.io/user/app:v1", "user/app:v1"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("ghcr.io/a/b/c:T_1.x-", "ghcr.io/a/b/c:T_1.x-", "ghcr.io/a/b/c:T_1.x-"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x:1", "localhost:5000/x:1", "localhost:5000/x:1"),
            ("Host/x", "Host/x:latest", "Host/x:latest"),
            ("[fd00::1]:5000/x", "[fd00::1]:5000/x:latest", "[fd00::1]:5000/x:latest"),
            ("a.b__c-d---e/f0", "a.b__c-d---e/f0", ""),
            ("xn--7o8h.com/myimage:9.6", "xn--7o8h.com/myimage:9.6", "xn--7o8h.com/myimage:9.6"),
        ] {
            let Ok(name) = Reference::parse(text) else {
                assert_eq!(familiar, "", "{text} must be a name");
                continue;
            };
            let tag = name.tag().unwrap();
            assert_eq!(format!("{}/{}:{tag}", name.domain(), name.path()), full);
            assert_eq!(name.to_string(), familiar);
            assert_eq!(Reference::parse(familiar).unwrap(), name, "the familiar form means the same");
        }
        let pinned = Reference::parse(&format!("busybox@sha256:{HEX}")).unwrap();
        assert_eq!((pinned.tag(), pinned.to_string()), (None, format!("busybox@sha256:{HEX}")));
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        let long_tag = format!("a:{}", "t".repeat(129));
        let long_name = "a/".repeat(130) + "a";
        for bad in [
            "",
            ":",
            ":tag",
            "a:",
            "a:-x",
            "a:.x",
            "a:b/c",
            "a:b:c",
            "/a",
            "a/",
            "a//b",
            "../x",
            "a/../b",
            "-rf",
            "a b",
            "a\nb",
            "a\0",
            "Busybox",
            "a/B",
            "_a",
            "a_",
            "a___b",
            "a..b",
            "a.-b",
            "\u{e9}",
            HEX,
            "a@sha256:../../x",
            "a@md5:00",
            "a@",
            "http://a/b",
            "ex ample.com/a",
            "a.com:x/b",
            "[fd00/b",
            "-a.com/b",
            ".",
            "..",
            &long_tag,
            &long_name,
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?} must be refused");
        }
    }
}
