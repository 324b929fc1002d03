//! An image's configuration as the engine needs it, read leniently: docker's and OCI's fields, null or missing
//! ones, unknown ones. The raw bytes are kept: the image's id is their digest, and `inspect` shows them.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;
use serde_json::Value;

use crate::digest::Digest;

/// A configuration: accessors give empty values for what isn't there.
#[derive(Clone, Debug)]
pub struct Config {
    raw: Vec<u8>,
    wire: Wire,
}

/// The document. Go writes null for empty lists and maps, so every field may be null.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Wire {
    created: Option<String>,
    author: Option<String>,
    comment: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    os: Option<String>,
    config: Option<Run>,
    rootfs: Option<Rootfs>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Rootfs {
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Run {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, Value>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Words>,
    cmd: Option<Words>,
    volumes: Option<BTreeMap<String, Value>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, Option<String>>>,
    stop_signal: Option<String>,
    stop_timeout: Option<u64>,
    shell: Option<Words>,
    healthcheck: Option<Value>,
}

/// docker takes one string for a list of one.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    List(Vec<String>),
    One(String),
}

impl Words {
    fn list(words: &Option<Words>) -> &[String] {
        match words {
            Some(Words::List(list)) => list,
            Some(Words::One(word)) => std::slice::from_ref(word),
            None => &[],
        }
    }
}

impl Config {
    /// Reads a configuration; the error is the reason alone.
    pub fn parse(raw: Vec<u8>) -> Result<Config, String> {
        match serde_json::from_slice(&raw) {
            Ok(wire) => Ok(Config { raw, wire }),
            Err(error) => Err(format!("not an image configuration: {error}")),
        }
    }

    /// The same for a document from outside: refuses also what only [`Config::json`] couldn't read (JSON deeper than
    /// 128, in a field that nobody needs).
    pub(crate) fn check(raw: Vec<u8>) -> Result<Config, String> {
        match serde_json::from_slice::<Value>(&raw) {
            // serde would take a list for a struct.
            Ok(Value::Object(_)) => Config::parse(raw),
            Ok(_) => Err("not an image configuration: not an object".into()),
            Err(error) => Err(format!("not an image configuration: {error}")),
        }
    }

    /// The document's bytes; their digest is the image's id.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The whole document, for `inspect`, `history` and fields that only docker knows.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.raw).unwrap_or_default()
    }

    /// The document as OCI's type, without nulls and with `architecture`, `os` and `rootfs` filled in where an
    /// old image has none. None where it still isn't valid OCI: the accessors here are more patient.
    pub fn oci(&self) -> Option<ImageConfiguration> {
        let mut document = self.json();
        strip_nulls(&mut document);
        let fields = document.as_object_mut()?;
        fields.entry("architecture").or_insert_with(|| host_architecture().into());
        fields.entry("os").or_insert_with(|| "linux".into());
        fields.entry("rootfs").or_insert_with(|| serde_json::json!({"type": "layers", "diff_ids": []}));
        serde_json::from_value(document).ok()
    }

    /// `NAME=value` entries of ENV.
    pub fn env(&self) -> &[String] {
        self.run().and_then(|run| run.env.as_deref()).unwrap_or_default()
    }

    /// ENTRYPOINT; empty if there is none.
    pub fn entrypoint(&self) -> &[String] {
        self.run().map_or(&[], |run| Words::list(&run.entrypoint))
    }

    /// CMD; empty if there is none.
    pub fn cmd(&self) -> &[String] {
        self.run().map_or(&[], |run| Words::list(&run.cmd))
    }

    /// SHELL, for CMD-SHELL health checks; empty means `/bin/sh -c`.
    pub fn shell(&self) -> &[String] {
        self.run().map_or(&[], |run| Words::list(&run.shell))
    }

    /// WORKDIR; empty means `/`.
    pub fn workdir(&self) -> &str {
        self.run().and_then(|run| run.working_dir.as_deref()).unwrap_or_default()
    }

    /// USER, `name|uid[:group|gid]`; empty means root.
    pub fn user(&self) -> &str {
        self.run().and_then(|run| run.user.as_deref()).unwrap_or_default()
    }

    /// Paths of VOLUME, sorted.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        self.run().and_then(|run| run.volumes.as_ref()).into_iter().flatten().map(|(path, _)| path.as_str())
    }

    /// EXPOSE as `80/tcp`, sorted; an entry without protocol is given as written.
    pub fn exposed_ports(&self) -> impl Iterator<Item = &str> {
        self.run().and_then(|run| run.exposed_ports.as_ref()).into_iter().flatten().map(|(port, _)| port.as_str())
    }

    /// STOPSIGNAL as written (`SIGQUIT`, `QUIT`, `3`).
    pub fn stop_signal(&self) -> Option<&str> {
        self.run().and_then(|run| run.stop_signal.as_deref()).filter(|signal| !signal.is_empty())
    }

    /// docker's StopTimeout in seconds.
    pub fn stop_timeout(&self) -> Option<u64> {
        self.run().and_then(|run| run.stop_timeout)
    }

    /// LABEL, sorted by name.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = self.run().and_then(|run| run.labels.as_ref()).into_iter().flatten();
        labels.map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or_default()))
    }

    /// docker's Healthcheck as it stands in the document.
    pub fn healthcheck(&self) -> Option<&Value> {
        self.run().and_then(|run| run.healthcheck.as_ref())
    }

    /// RFC 3339 time of creation as written; empty if unknown.
    pub fn created(&self) -> &str {
        self.wire.created.as_deref().unwrap_or_default()
    }

    /// Who made it; empty if unknown.
    pub fn author(&self) -> &str {
        self.wire.author.as_deref().unwrap_or_default()
    }

    /// docker's comment; empty if there is none.
    pub fn comment(&self) -> &str {
        self.wire.comment.as_deref().unwrap_or_default()
    }

    /// Go's name of the architecture (`amd64`); the host's if the image doesn't say.
    pub fn architecture(&self) -> &str {
        self.wire.architecture.as_deref().filter(|name| !name.is_empty()).unwrap_or(host_architecture())
    }

    /// Variant of the architecture (`v7`); empty if there is none.
    pub fn variant(&self) -> &str {
        self.wire.variant.as_deref().unwrap_or_default()
    }

    /// `linux` if the image doesn't say.
    pub fn os(&self) -> &str {
        self.wire.os.as_deref().filter(|name| !name.is_empty()).unwrap_or("linux")
    }

    /// Digests of the uncompressed layers, lowest first, as the image lists them.
    pub fn diff_ids(&self) -> &[Digest] {
        self.wire.rootfs.as_ref().and_then(|rootfs| rootfs.diff_ids.as_deref()).unwrap_or_default()
    }

    fn run(&self) -> Option<&Run> {
        self.wire.config.as_ref()
    }
}

/// Go's name for the architecture that we run on.
pub(crate) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text.into()).unwrap()
    }

    #[test]
    fn dockers_configuration_is_read_with_its_own_fields() {
        let config = config(
            r#"{"architecture":"arm64","os":"linux","created":"2024-01-02T03:04:05.6Z","docker_version":"28",
            "config":{"User":"app:1","ExposedPorts":{"80/tcp":{},"53/udp":{}},"Env":["PATH=/bin","A=b=c"],
              "Entrypoint":["/e"],"Cmd":["a","b"],"Volumes":{"/data":{}},"WorkingDir":"/w","Labels":{"k":"v"},
              "StopSignal":"SIGQUIT","Healthcheck":{"Test":["CMD","true"],"Interval":1000000000},"OnBuild":null},
            "rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"x","empty_layer":true}],"extra":1}"#,
        );
        assert_eq!(config.env(), ["PATH=/bin", "A=b=c"]);
        assert_eq!((config.entrypoint(), config.cmd()), (&["/e".to_owned()][..], &["a".into(), "b".into()][..]));
        assert_eq!((config.user(), config.workdir(), config.architecture()), ("app:1", "/w", "arm64"));
        assert_eq!(config.exposed_ports().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.volumes().collect::<Vec<_>>(), ["/data"]);
        assert_eq!(config.labels().collect::<Vec<_>>(), [("k", "v")]);
        assert_eq!(config.stop_signal(), Some("SIGQUIT"));
        assert_eq!(config.healthcheck().unwrap()["Test"][1], "true");
        let oci = config.oci().unwrap();
        assert_eq!(oci.config().as_ref().unwrap().cmd().as_deref(), Some(config.cmd()));
    }

    #[test]
    fn null_and_missing_fields_are_empty_ones() {
        for text in [
            "{}",
            r#"{"config":null,"rootfs":null,"architecture":null,"os":"","created":null}"#,
            r#"{"config":{"Env":null,"Cmd":null,"Entrypoint":null,"Volumes":null,"ExposedPorts":null,"Labels":null,
               "Healthcheck":null,"StopSignal":"","User":null,"WorkingDir":null},"rootfs":{"diff_ids":null}}"#,
        ] {
            let config = config(text);
            assert_eq!((config.env(), config.cmd(), config.entrypoint()), (&[][..], &[][..], &[][..]));
            assert_eq!((config.user(), config.workdir(), config.os()), ("", "", "linux"));
            assert_eq!((config.stop_signal(), config.healthcheck()), (None, None));
            assert_eq!(config.architecture(), host_architecture());
            assert!(config.diff_ids().is_empty());
        }
        assert_eq!(config(r#"{"config":{"Cmd":"sh"}}"#).cmd(), ["sh"]);
    }

    #[test]
    fn what_is_no_configuration_is_an_error() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let deep = format!(r#"{{"extra":{deep}}}"#);
        for bad in
            ["", "null", "[]", "{", r#"{"config":{"Env":"A=b"}}"#, r#"{"rootfs":{"diff_ids":["sha256:x"]}}"#, &deep]
        {
            assert!(Config::check(bad.into()).is_err(), "{}", &bad[..bad.len().min(40)]);
        }
    }
}
