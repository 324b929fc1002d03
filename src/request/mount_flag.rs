//! `--mount type=bind|tmpfs|volume,src=…,dst=…,…`: one line of CSV, so that paths may hold commas and colons.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::mounts::{self, Mount, Propagation, VolumeOptions};
use super::{Invalid, size};

const FLAG: &str = "--mount";

/// Reads one flag.
pub(super) fn parse(text: &OsStr, cwd: &Path) -> Result<Mount, Invalid> {
    read(text.as_bytes(), cwd).map_err(|why| Invalid::value(FLAG, text, why))
}

#[derive(Default)]
struct Fields {
    kind: Vec<u8>,
    source: Vec<u8>,
    target: Option<PathBuf>,
    read_only: bool,
    propagation: Option<Propagation>,
    non_recursive: bool,
    writable_below: bool,
    read_only_below: bool,
    no_copy: bool,
    subpath: Option<String>,
    labels: BTreeMap<String, String>,
    driver: Option<String>,
    driver_options: BTreeMap<String, String>,
    tmpfs: Vec<String>,
    /// Which type a key was for, to refuse it with another.
    only_for: Vec<(&'static str, String)>,
}

fn read(text: &[u8], cwd: &Path) -> Result<Mount, String> {
    let mut fields = Fields { kind: b"volume".to_vec(), ..Fields::default() };
    for field in csv(text)? {
        let (key, value) = match field.iter().position(|byte| *byte == b'=') {
            Some(at) => (&field[..at], Some(&field[at + 1..])),
            None => (&field[..], None),
        };
        fields.set(&String::from_utf8_lossy(key).to_ascii_lowercase(), value)?;
    }
    fields.mount(cwd)
}

impl Fields {
    fn set(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), String> {
        let Some(bytes) = value else {
            return match key {
                "readonly" | "ro" => {
                    self.read_only = true;
                    Ok(())
                }
                "volume-nocopy" => {
                    self.only_for.push(("volume", key.to_owned()));
                    self.no_copy = true;
                    Ok(())
                }
                "bind-nonrecursive" => {
                    self.only_for.push(("bind", key.to_owned()));
                    self.non_recursive = true;
                    Ok(())
                }
                _ => Err(format!("invalid field '{key}' must be a key=value pair")),
            };
        };
        let text = String::from_utf8_lossy(bytes);
        let bad = || format!("invalid value for {key}: {text}");
        let boolean = || crate::cli::boolean(&text).map_err(|_| bad());
        if let Some((kind, _)) = key.split_once('-') {
            match kind {
                "bind" => self.only_for.push(("bind", key.to_owned())),
                "volume" => self.only_for.push(("volume", key.to_owned())),
                "tmpfs" => self.only_for.push(("tmpfs", key.to_owned())),
                _ => {}
            }
        }
        match key {
            "type" => self.kind = bytes.to_ascii_lowercase(),
            "source" | "src" => self.source = bytes.to_vec(),
            "target" | "dst" | "destination" => self.target = Some(mounts::target(OsStr::from_bytes(bytes))?),
            "readonly" | "ro" => self.read_only = boolean()?,
            "consistency" => {}
            "bind-propagation" => self.propagation = Some(Propagation::parse(bytes).ok_or_else(bad)?),
            "bind-nonrecursive" => self.non_recursive = boolean()?,
            "bind-recursive" => {
                self.non_recursive = match &text[..] {
                    "enabled" => false,
                    "disabled" => true,
                    "writable" => {
                        self.writable_below = true;
                        false
                    }
                    // What read-only means anyway, but an error where it can't be had.
                    "readonly" => {
                        self.read_only_below = true;
                        false
                    }
                    _ => return Err(bad()),
                }
            }
            "volume-nocopy" => self.no_copy = boolean()?,
            "tmpfs-size" => self.tmpfs.push(format!("size={}", size::parse(&text).map_err(|_| bad())?)),
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(bad)?;
                self.tmpfs.push(format!("mode={mode:o}"));
            }
            "volume-subpath" => self.subpath = Some(subpath(bytes)?),
            "volume-driver" => self.driver = Some(text.into_owned()),
            "volume-label" | "volume-opt" => {
                // docker: a label without `=` has an empty value.
                let (name, value) = text.split_once('=').unwrap_or((&text, ""));
                let map = if key == "volume-label" { &mut self.labels } else { &mut self.driver_options };
                map.insert(name.to_owned(), value.to_owned());
            }
            "image-subpath" => return Err(format!("{key} is not supported: there is no mount type image")),
            // docker: options of mount(8) for the tmpfs, by colons where one is a list.
            "tmpfs-options" => {
                for word in text.split([',', ':']) {
                    self.tmpfs.push(super::tmpfs::option(word.as_bytes())?);
                }
            }
            _ => return Err(format!("unexpected key '{key}' in '{key}={text}'")),
        }
        Ok(())
    }

    fn mount(self, cwd: &Path) -> Result<Mount, String> {
        let kind = String::from_utf8_lossy(&self.kind).into_owned();
        let target = self.target.ok_or("target is required; add dst=PATH")?;
        if let Some((of, key)) = self.only_for.iter().find(|(of, _)| *of != kind) {
            return Err(format!("cannot mix '{key}' (for type {of}) with mount type '{kind}'"));
        }
        match &kind[..] {
            "bind" if self.source.is_empty() => Err("source is required for a bind mount; add src=PATH".to_owned()),
            "bind" if self.writable_below && !self.read_only => {
                Err("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction".to_owned())
            }
            "bind" if self.read_only_below && !self.read_only => {
                Err("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction".to_owned())
            }
            "bind" if self.read_only_below && self.propagation != Some(Propagation::Rprivate) => Err(
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
                    .to_owned(),
            ),
            "bind" => Ok(Mount::Bind {
                source: mounts::source(OsStr::from_bytes(&self.source), cwd)
                    .map_err(|why| format!("{why}; begin it with / or ./"))?,
                target,
                read_only: self.read_only,
                propagation: self.propagation.unwrap_or_default(),
                recursive: !self.non_recursive,
                writable_below: self.writable_below,
                create_source: false,
            }),
            "tmpfs" if !self.source.is_empty() => Err("a tmpfs has no source; leave src out".to_owned()),
            "tmpfs" => {
                let mut options = self.tmpfs;
                if self.read_only {
                    options.push("ro".to_owned());
                }
                Ok(Mount::Tmpfs { target, options, by_mount: true })
            }
            "volume" => {
                if let Some(driver) = self.driver.filter(|driver| driver != crate::volume::DRIVER) {
                    return Err(format!(
                        "volume driver {driver:?} is not there; minidock has local, which is the default"
                    ));
                }
                mounts::check_driver_options(&self.driver_options)?;
                let name = String::from_utf8_lossy(&self.source).into_owned();
                if !name.is_empty() {
                    crate::volume::check_name(&name)?;
                }
                Ok(Mount::Volume {
                    target,
                    read_only: self.read_only,
                    copy: !self.no_copy,
                    name: Some(name).filter(|name| !name.is_empty()),
                    options: Box::new(VolumeOptions {
                        propagation: Propagation::default(),
                        by_mount: true,
                        subpath: self.subpath,
                        labels: self.labels,
                        driver: self.driver_options,
                    }),
                })
            }
            _ => Err(format!("mount type '{kind}' is not supported; use bind, tmpfs or volume")),
        }
    }
}

/// A place inside a volume: relative, and not out of it.
fn subpath(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "volume-subpath is not UTF-8 text".to_owned())?;
    let inside =
        |part: std::path::Component| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir);
    if text.is_empty() || text.contains('\0') || !Path::new(text).components().all(inside) {
        return Err(format!("invalid value for volume-subpath: {text:?}; write a relative path without .."));
    }
    Ok(text.to_owned())
}

/// One record of CSV (RFC 4180): fields between commas; a field in double quotes may hold commas, and `""` for a quote.
fn csv(text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix(b"\"") {
            None => {
                let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
                if rest[..end].contains(&b'"') {
                    return Err("bare \" in an unquoted field; put the whole key=value in quotes".to_owned());
                }
                (rest[..end].to_vec(), &rest[end..])
            }
            Some(quoted) => unquote(quoted)?,
        };
        fields.push(field);
        match after.strip_prefix(b",") {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err("text after a closing quote".to_owned()),
        }
    }
}

fn unquote(text: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let mut field = Vec::new();
    let mut at = 0;
    loop {
        match (text.get(at), text.get(at + 1)) {
            (Some(b'"'), Some(b'"')) => {
                field.push(b'"');
                at += 2;
            }
            (Some(b'"'), _) => return Ok((field, &text[at + 1..])),
            (Some(byte), _) => {
                field.push(*byte);
                at += 1;
            }
            (None, _) => return Err("a quote is not closed".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Mount, Invalid> {
        parse(OsStr::new(text), Path::new("/cwd"))
    }

    #[test]
    fn the_three_types() {
        let bind = Mount::Bind {
            source: "/cwd/a".into(),
            target: "/b".into(),
            read_only: true,
            propagation: Propagation::Rslave,
            recursive: false,
            writable_below: false,
            create_source: false,
        };
        assert_eq!(
            read("type=bind,src=./a,dst=/b,readonly,bind-propagation=rslave,bind-recursive=disabled").unwrap(),
            bind
        );
        assert_eq!(
            read("type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=1770,ro").unwrap(),
            Mount::Tmpfs {
                target: "/t".into(),
                options: vec!["size=1048576".into(), "mode=1770".into(), "ro".into()],
                by_mount: true
            }
        );
        let volume = |name: Option<&str>, copy, options| Mount::Volume {
            target: "/v".into(),
            read_only: false,
            copy,
            name: name.map(str::to_string),
            options: Box::new(VolumeOptions { by_mount: true, ..options }),
        };
        assert_eq!(read("target=/v,volume-nocopy").unwrap(), volume(None, false, VolumeOptions::default()));
        let options = VolumeOptions {
            subpath: Some("a/b".into()),
            labels: BTreeMap::from([("k".into(), "v=1".into()), ("x".into(), String::new())]),
            driver: BTreeMap::from([
                ("type".into(), "none".into()),
                ("o".into(), "bind".into()),
                ("device".into(), "/srv".into()),
            ]),
            ..Default::default()
        };
        assert_eq!(
            read("src=data,dst=/v,volume-subpath=a/b,volume-label=k=v=1,volume-label=x,volume-driver=local,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/srv").unwrap(),
            volume(Some("data"), true, options)
        );
        assert_eq!(
            read("type=tmpfs,dst=/t,tmpfs-options=noexec:uid=5").unwrap(),
            Mount::Tmpfs { target: "/t".into(), options: vec!["noexec".into(), "uid=5".into()], by_mount: true }
        );
        let Mount::Bind { source, .. } = read("type=bind,\"src=/a,b:\"\"c\",dst=/b").unwrap() else {
            panic!("not a bind")
        };
        assert_eq!(source, Path::new("/a,b:\"c"));
    }

    #[test]
    fn wrong_mounts_are_refused() {
        for text in [
            "",
            "foo",
            "type=bind",
            "type=bind,dst=/b",
            "type=bind,src=a,dst=/b",
            "type=bind,src=/a,dst=/b,bind-recursive=readonly",
            "type=bind,src=/a,dst=/b,readonly,bind-recursive=readonly",
            "type=bind,src=/a,dst=/b,bind-recursive=writable",
            "type=bind,src=/a,dst=b",
            "type=foo,dst=/x",
            "type=volume,src=na/med,dst=/x",
            "src=named,dst=/x,volume-driver=nfs",
            "src=named,dst=/x,volume-subpath=../x",
            "src=named,dst=/x,volume-subpath=/x",
            "dst=/x,volume-opt=type=tmpfs,volume-opt=device=tmpfs",
            "type=tmpfs,src=/a,dst=/x",
            "type=bind,src=/a,dst=/b,tmpfs-size=1m",
            "type=tmpfs,dst=/x,tmpfs-mode=99",
            "type=tmpfs,dst=/x,tmpfs-size=q",
            "type=bind,src=/a,dst=/b,readonly=maybe",
            "type=bind,src=/a,dst=/b,what=1",
            "type=bind,\"src=/a",
            "type=bind,src=\"/a\",dst=/b",
            "dst=/x,volume-opt=o=x",
            "type=bind,src=/a,dst=/b,",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
