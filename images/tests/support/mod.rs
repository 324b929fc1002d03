//! What the tests of this crate share: a root that goes away, tar archives written byte by byte (so that they can
//! be as bad as wanted), images in all forms, and a listing of a folder to compare.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use images::{Digest, Input, LoadOptions, Store};
use serde_json::{Value, json};

/// A folder of the test's own.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new() -> Temp {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("images-test-{}-{count}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Temp(path)
    }

    pub fn store(&self) -> Store {
        Store::open(&self.0.join("root")).unwrap()
    }

    /// Writes a file and gives its path.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn input(&self, name: &str, bytes: &[u8]) -> Input {
        Input::File(self.file(name, bytes))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Quick options: no sync to the disk.
pub fn options() -> LoadOptions {
    LoadOptions { sync: false, ..LoadOptions::default() }
}

/// One entry of an archive; change the fields that matter.
#[derive(Clone)]
pub struct E<'a> {
    pub kind: u8,
    pub name: &'a [u8],
    pub link: &'a [u8],
    pub data: &'a [u8],
    pub mode: u32,
    pub owner: (u64, u64),
    pub mtime: u64,
    pub device: (u32, u32),
    pub pax: Vec<(&'a [u8], &'a [u8])>,
}

pub fn e<'a>(kind: u8, name: &'a str) -> E<'a> {
    let mode = if kind == b'5' { 0o755 } else { 0o644 };
    let (link, data): (&[u8], &[u8]) = (b"", b"");
    E {
        kind,
        name: name.as_bytes(),
        link,
        data,
        mode,
        owner: (0, 0),
        mtime: 1_000_000_000,
        device: (0, 0),
        pax: vec![],
    }
}

pub fn file<'a>(name: &'a str, data: &'a str) -> E<'a> {
    E { data: data.as_bytes(), ..e(b'0', name) }
}

pub fn dir(name: &str) -> E<'_> {
    e(b'5', name)
}

pub fn symlink<'a>(name: &'a str, target: &'a str) -> E<'a> {
    E { link: target.as_bytes(), ..e(b'2', name) }
}

pub fn hardlink<'a>(name: &'a str, target: &'a str) -> E<'a> {
    E { link: target.as_bytes(), ..e(b'1', name) }
}

pub fn header(entry: &E<'_>, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::new(entry.kind));
    let put = |field: &mut [u8], text: &[u8]| {
        let count = text.len().min(field.len());
        field[..count].copy_from_slice(&text[..count]);
    };
    put(&mut header.as_old_mut().name, entry.name);
    put(&mut header.as_old_mut().linkname, entry.link);
    header.set_mode(entry.mode);
    header.set_uid(entry.owner.0);
    header.set_gid(entry.owner.1);
    header.set_mtime(entry.mtime);
    header.set_size(size);
    header.set_device_major(entry.device.0).unwrap();
    header.set_device_minor(entry.device.1).unwrap();
    header.set_cksum();
    header
}

pub fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub fn pax(records: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|length| *length == rest + length.to_string().len()).unwrap();
        data.extend([length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat());
    }
    data
}

/// Bytes of one entry, with a PAX header where it has records or long names.
pub fn entry(e: &E<'_>) -> Vec<u8> {
    let mut records = e.pax.clone();
    let has = |key: &[u8]| e.pax.iter().any(|(known, _)| *known == key);
    if e.name.len() > 100 && !has(b"path") {
        records.push((b"path", e.name));
    }
    if e.link.len() > 100 && !has(b"linkpath") {
        records.push((b"linkpath", e.link));
    }
    let mut bytes = Vec::new();
    if !records.is_empty() {
        let data = pax(&records);
        let x = E { kind: b'x', ..self::e(b'x', "x") };
        bytes.extend_from_slice(header(&x, data.len() as u64).as_bytes());
        bytes.extend(padded(data));
    }
    bytes.extend_from_slice(header(e, e.data.len() as u64).as_bytes());
    bytes.extend(padded(e.data.to_vec()));
    bytes
}

/// A whole archive.
pub fn tar(entries: &[E<'_>]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(entry).collect();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

pub fn config(layers: &[Vec<u8>], extra: Value) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    json!({"architecture": "amd64", "os": "linux", "config": extra,
           "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
    .into_bytes()
}

/// Members of an archive by name, to be changed before they are packed.
pub type Members = BTreeMap<String, Vec<u8>>;

pub fn pack(members: &Members) -> Vec<u8> {
    let entries: Vec<E<'_>> = members.iter().map(|(name, data)| E { data, ..e(b'0', name) }).collect();
    tar(&entries)
}

/// `docker save` before 25: a folder for each layer, with the files of the oldest form.
pub fn docker_old(layers: &[Vec<u8>], tags: &[&str]) -> Members {
    let config = config(layers, json!({"Cmd": ["sh"]}));
    let mut members = Members::new();
    let mut paths = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let id = Digest::of(format!("{number}").as_bytes()).hex();
        members.insert(format!("{id}/VERSION"), b"1.0".to_vec());
        members.insert(format!("{id}/json"), format!(r#"{{"id":"{id}"}}"#).into_bytes());
        members.insert(format!("{id}/layer.tar"), layer.clone());
        paths.push(format!("{id}/layer.tar"));
    }
    let name = format!("{}.json", Digest::of(&config).hex());
    let manifest = json!([{"Config": name, "RepoTags": tags, "Layers": paths}]);
    members.insert(name, config);
    members.insert("manifest.json".into(), manifest.to_string().into_bytes());
    members.insert("repositories".into(), b"{}".to_vec());
    members
}

/// Adds a blob and gives its descriptor.
pub fn blob(members: &mut Members, media_type: &str, bytes: Vec<u8>) -> Value {
    let digest = Digest::of(&bytes);
    let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
    members.insert(format!("blobs/sha256/{}", digest.hex()), bytes);
    descriptor
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Adds an OCI image; `pack` compresses its layers. Gives the manifest's descriptor.
pub fn oci_image(members: &mut Members, layers: &[Vec<u8>], extra: Value, pack: fn(&[u8]) -> Vec<u8>) -> Value {
    let config = blob(members, "application/vnd.oci.image.config.v1+json", config(layers, extra));
    let layers: Vec<Value> =
        layers.iter().map(|layer| blob(members, "application/vnd.oci.image.layer.v1.tar+gzip", pack(layer))).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    blob(members, MANIFEST, manifest.to_string().into_bytes())
}

/// An OCI layout of one image named `name`.
pub fn oci(layers: &[Vec<u8>], name: &str, pack: fn(&[u8]) -> Vec<u8>) -> Members {
    let mut members = Members::new();
    let mut manifest = oci_image(&mut members, layers, json!({"Cmd": ["sh"]}), pack);
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    index(&mut members, &[manifest]);
    members
}

/// Writes `index.json`.
pub fn index(members: &mut Members, manifests: &[Value]) {
    members.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    members.insert("index.json".into(), index.to_string().into_bytes());
}

/// Everything below a folder, one line each: kind, mode, owner, size or target or device, digest; not the times.
pub fn listing(top: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![top.to_path_buf()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let kind = meta.file_type();
        let detail = if kind.is_file() {
            format!("file {}", Digest::of(&fs::read(&path).unwrap()))
        } else if kind.is_symlink() {
            format!("link {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            "dir".into()
        } else {
            let kind = if kind.is_block_device() {
                "block"
            } else if kind.is_fifo() {
                "fifo"
            } else {
                "char"
            };
            format!("{kind} {:x}", meta.rdev())
        };
        lines.push(format!("{name} {:o} {}:{} {detail}", meta.mode() & 0o7777, meta.uid(), meta.gid()));
    }
    lines.sort();
    lines
}

/// The store's files without the folders' times.
pub fn state(store: &Store) -> Vec<String> {
    listing(store.dir())
}

pub fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 65_536];
    let count = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(count);
    Some(value)
}

/// Whether files here can have user.* attributes: tmpfs has them since 6.6 only.
pub fn user_xattrs(folder: &Path) -> bool {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(folder, "user.probe", b"1", flags).is_ok()
}
