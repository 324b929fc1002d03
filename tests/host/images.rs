//! Images for the tests, made here from Debian's static busybox: a rootfs tar, `docker save` archives of both forms
//! and OCI layouts. Prepared files are shared by all tests; a test that wants a bad archive builds it from the parts.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// The page that the image's web server shows.
pub const PAGE: &str = "hello from the container\n";
/// `PATH` in the image.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A `docker save` archive with `busybox:latest`: `sh` as its command, `httpd -f -h /www` is there for a server.
pub fn busybox() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| prepared("busybox.tar", docker_archive(&[rootfs()], busybox_config(), &["busybox:latest"])))
}

/// The rootfs of [`busybox`] as a plain tar.
pub fn busybox_rootfs() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| prepared("rootfs.tar", rootfs()))
}

/// The `config` part of [`busybox`].
pub fn busybox_config() -> Value {
    json!({ "Env": [format!("PATH={PATH}")], "Cmd": ["sh"] })
}

/// The bytes of a rootfs with busybox, its applets, users and a web page.
pub fn rootfs() -> Vec<u8> {
    let mut layer = Layer::new();
    for folder in [
        "bin",
        "dev",
        "etc",
        "home",
        "lib",
        "proc",
        "sys",
        "usr",
        "usr/bin",
        "usr/local",
        "usr/local/bin",
        "var",
        "www",
        "www/cgi-bin",
    ] {
        layer.folder(folder, 0o755);
    }
    layer.folder("root", 0o700).folder("tmp", 0o1777).owner(1000, 1000).folder("home/student", 0o750).owner(0, 0);
    let program = ["/usr/bin/busybox", "/bin/busybox"].iter().find_map(|path| std::fs::read(path).ok());
    layer.file("bin/busybox", 0o755, &program.expect("busybox-static is installed"));
    for applet in applets() {
        layer.link(&format!("bin/{applet}"), "busybox");
    }
    layer.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nstudent:x:1000:1000:Student:/home/student:/bin/sh\n",
    );
    layer.file("etc/group", 0o644, b"root:x:0:\nstudent:x:1000:\nlab:x:2000:student\n");
    layer.file("www/index.html", 0o644, PAGE.as_bytes());
    layer.file(
        "www/cgi-bin/client",
        0o755,
        b"#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s' \"$REMOTE_ADDR\"\n",
    );
    layer.bytes()
}

fn applets() -> Vec<String> {
    let list = Command::new("busybox").arg("--list").output().expect("busybox-static is installed").stdout;
    String::from_utf8(list).unwrap().lines().filter(|name| *name != "busybox").map(String::from).collect()
}

/// A tar being written. Each call appends an entry, as told, also a bad one.
pub struct Layer {
    tar: Builder<Vec<u8>>,
    uid: u64,
    gid: u64,
}

impl Layer {
    pub fn new() -> Layer {
        Layer { tar: Builder::new(Vec::new()), uid: 0, gid: 0 }
    }

    /// The owner of the entries that follow.
    pub fn owner(&mut self, uid: u64, gid: u64) -> &mut Layer {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub fn folder(&mut self, name: &str, mode: u32) -> &mut Layer {
        self.entry(EntryType::Directory, name, mode, "", b"")
    }

    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> &mut Layer {
        self.entry(EntryType::Regular, name, mode, "", content)
    }

    pub fn link(&mut self, name: &str, target: &str) -> &mut Layer {
        self.entry(EntryType::Symlink, name, 0o777, target, b"")
    }

    pub fn hard_link(&mut self, name: &str, target: &str) -> &mut Layer {
        self.entry(EntryType::Link, name, 0o644, target, b"")
    }

    /// An entry whose name is written as it is, without the tar crate's checks.
    pub fn entry(&mut self, kind: EntryType, name: &str, mode: u32, target: &str, content: &[u8]) -> &mut Layer {
        let mut header = Header::new_gnu();
        assert!(name.len() <= 100 && target.len() <= 100, "the harness writes short names only");
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(self.uid);
        header.set_gid(self.gid);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.tar.append(&header, content).unwrap();
        self
    }

    pub fn bytes(&mut self) -> Vec<u8> {
        let tar = std::mem::replace(&mut self.tar, Builder::new(Vec::new()));
        tar.into_inner().unwrap()
    }
}

/// An image configuration for these layers (uncompressed).
pub fn image_config(layers: &[Vec<u8>], config: Value) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    let document = json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": config, "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    document.to_string().into_bytes()
}

/// What `docker save` of versions from 25 on writes, without the OCI index: blobs by their digest and manifest.json.
pub fn docker_archive(layers: &[Vec<u8>], config: Value, tags: &[&str]) -> Vec<u8> {
    let config = image_config(layers, config);
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
    let names: Vec<String> = layers.iter().map(|layer| blob(layer)).collect();
    let manifest = json!([{ "Config": blob(&config), "RepoTags": tags, "Layers": names }]).to_string();
    let mut archive = Layer::new();
    archive.folder("blobs", 0o755).folder("blobs/sha256", 0o755).file(&blob(&config), 0o644, &config);
    for (name, layer) in names.iter().zip(layers) {
        archive.file(name, 0o644, layer);
    }
    archive.file("manifest.json", 0o644, manifest.as_bytes()).bytes()
}

/// What `docker save` wrote before: a folder for each layer, CONFIG.json, `repositories`.
pub fn docker_archive_old(layers: &[Vec<u8>], config: Value, name: &str, tag: &str) -> Vec<u8> {
    let config = image_config(layers, config);
    let config_name = format!("{}.json", sha256(&config));
    let mut archive = Layer::new();
    let mut names = Vec::new();
    let mut last = String::new();
    for (number, layer) in layers.iter().enumerate() {
        last = sha256(format!("{number}{}", sha256(layer)).as_bytes());
        archive.folder(&format!("{last}/"), 0o755);
        archive.file(&format!("{last}/VERSION"), 0o644, b"1.0");
        archive.file(&format!("{last}/json"), 0o644, json!({ "id": last }).to_string().as_bytes());
        archive.file(&format!("{last}/layer.tar"), 0o644, layer);
        names.push(format!("{last}/layer.tar"));
    }
    archive.file(&config_name, 0o644, &config);
    let manifest = json!([{ "Config": config_name, "RepoTags": [format!("{name}:{tag}")], "Layers": names }]);
    archive.file("manifest.json", 0o644, manifest.to_string().as_bytes());
    archive.file("repositories", 0o644, json!({ name: { tag: last } }).to_string().as_bytes());
    archive.bytes()
}

/// How the layers of an OCI layout are packed.
#[derive(Clone, Copy, Debug)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// The files of an OCI image layout: (path, content).
pub fn oci_layout(layers: &[Vec<u8>], config: Value, name: &str, packing: Packing) -> Vec<(String, Vec<u8>)> {
    let config = image_config(layers, config);
    let mut files = vec![("oci-layout".to_string(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
    let mut put = |bytes: &[u8], media_type: &str| {
        files.push((format!("blobs/sha256/{}", sha256(bytes)), bytes.to_vec()));
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len() })
    };
    let (suffix, packer): (&str, Option<&[&str]>) = match packing {
        Packing::Plain => ("", None),
        Packing::Gzip => ("+gzip", Some(&["gzip", "-1", "-n"])),
        Packing::Zstd => ("+zstd", Some(&["zstd", "-1", "-q"])),
    };
    let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
    let descriptors: Vec<Value> = layers
        .iter()
        .map(|layer| match packer {
            None => put(layer, &media_type),
            Some(command) => put(&piped(command, layer), &media_type),
        })
        .collect();
    let config = put(&config, "application/vnd.oci.image.config.v1+json");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": descriptors,
    });
    let mut manifest = put(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    manifest["annotations"] = json!({ "io.containerd.image.name": format!("docker.io/library/{name}"), "org.opencontainers.image.ref.name": name });
    files.push(("index.json".into(), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string().into_bytes()));
    files
}

/// An OCI layout as a tar.
pub fn oci_tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Layer::new();
    archive.folder("blobs", 0o755).folder("blobs/sha256", 0o755);
    for (name, content) in files {
        archive.file(name, 0o644, content);
    }
    archive.bytes()
}

/// An OCI layout as a folder.
pub fn write_layout(folder: &Path, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

/// What a filter command makes of these bytes.
pub fn piped(command: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new(command[0]).args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?} failed");
    output.stdout
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file below cargo's folder for tests (or the temporary one, in a VM) unless it is there already.
fn prepared(name: &str, content: Vec<u8>) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = if folder.is_dir() { folder.to_path_buf() } else { std::env::temp_dir() };
    let path = folder.join(format!("{}-{name}", &sha256(&content)[..16]));
    if !path.exists() {
        let half = folder.join(format!("{}-{name}.{}", std::process::id(), "half"));
        std::fs::write(&half, content).unwrap();
        std::fs::rename(&half, &path).unwrap();
    }
    path
}
