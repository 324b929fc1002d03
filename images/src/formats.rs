//! Which images an archive holds: docker's `manifest.json` (old form with layer folders, new form with OCI blobs),
//! an OCI layout, or docker's form of before 2016 (`repositories`).

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::archive::{Archive, Blob};
use crate::config::{Config, host_architecture};
use crate::digest::Digest;
use crate::error::Result;
use crate::limits::Limits;
use crate::reference::{Reference, check_tag};

/// Nested indexes: one level is usual.
const INDEX_DEPTH: usize = 4;

/// A layer as the archive has it.
pub(crate) struct Layer {
    /// Its name in the archive.
    pub entry: String,
    pub blob: Blob,
    /// Digest of the blob as stored, where the archive says it.
    pub digest: Option<Digest>,
    /// Digest of the uncompressed tar; the oldest form doesn't say it.
    pub diff_id: Option<Digest>,
}

/// An image as the archive has it.
pub(crate) struct Found {
    pub config: FoundConfig,
    /// Lowest first.
    pub layers: Vec<Layer>,
    pub names: Vec<Reference>,
    /// OCI's manifest.
    pub manifest: Option<Vec<u8>>,
}

pub(crate) enum FoundConfig {
    /// The document; its bytes' digest is the image's id.
    Ready(Vec<u8>),
    /// The oldest form: the document is made from this one when the diff ids are known.
    Legacy(Value),
}

/// Reads the archive's own description of its images.
pub(crate) fn read(archive: &Archive, limits: &Limits) -> Result<Vec<Found>> {
    let reader = Reader { archive, limits };
    // docker ≥ 25 writes both; manifest.json has the names as the user gave them.
    let found = if let Some(blob) = archive.get("manifest.json")? {
        reader.docker(&blob)?
    } else if let Some(blob) = archive.get("index.json")? {
        reader.oci(&blob)?
    } else if let Some(blob) = archive.get("repositories")? {
        reader.repositories(&blob)?
    } else {
        return Err(crate::Error::NotAnImage { archive: archive.name.clone() });
    };
    if found.is_empty() {
        return Err(crate::Error::Refused {
            archive: archive.name.clone(),
            entry: None,
            why: "it holds no image".into(),
        });
    }
    Ok(found)
}

struct Reader<'a> {
    archive: &'a Archive,
    limits: &'a Limits,
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Reader<'_> {
    fn docker(&self, blob: &Blob) -> Result<Vec<Found>> {
        let entry = "manifest.json";
        let images: Vec<DockerImage> = self.parse(entry, &self.archive.json(entry, blob, None, self.limits)?)?;
        self.check_count(entry, images.len())?;
        images.into_iter().map(|image| self.docker_image(image)).collect()
    }

    fn docker_image(&self, image: DockerImage) -> Result<Found> {
        let blob = self.archive.need(&image.config)?;
        let raw = self.archive.json(&image.config, &blob, named_digest(&image.config).as_ref(), self.limits)?;
        let mut layers = Vec::new();
        for entry in image.layers.unwrap_or_default() {
            self.check_layers(&image.config, layers.len() + 1)?;
            let blob = self.archive.need(&entry)?;
            let digest = blob_digest(&entry);
            layers.push(Layer { entry, blob, digest, diff_id: None });
        }
        let names = image.repo_tags.unwrap_or_default().into_iter().map(|name| {
            let parsed =
                Reference::parse(&name).map_err(|error| self.archive.refused("manifest.json", error.to_string()))?;
            match parsed.digest() {
                None => Ok(parsed),
                Some(_) => Err(self.archive.refused("manifest.json", format!("{name:?} is no tag"))),
            }
        });
        let names = names.collect::<Result<_>>()?;
        self.found(&image.config, raw, layers, names, None)
    }

    fn oci(&self, blob: &Blob) -> Result<Vec<Found>> {
        let entry = "index.json";
        let raw = self.archive.json(entry, blob, None, self.limits)?;
        let index: ImageIndex = self.index(entry, &raw)?;
        self.check_count(entry, index.manifests().len())?;
        // Manifests of one name are one image for several platforms.
        let mut groups: Vec<(Option<String>, Vec<&Descriptor>)> = Vec::new();
        for descriptor in index.manifests().iter().filter(|descriptor| !is_attestation(descriptor)) {
            let name = name_of(descriptor);
            // Without name and platform it is an image of its own.
            let single = name.is_none() && descriptor.platform().is_none();
            match groups.iter_mut().find(|(known, _)| *known == name && !single) {
                Some((_, group)) => group.push(descriptor),
                None => groups.push((name, vec![descriptor])),
            }
        }
        let mut images: Vec<Found> = Vec::new();
        for (name, group) in groups {
            let names = name.map(|name| self.oci_name(&name)).transpose()?.flatten();
            let mut found = self.manifest(self.choose(entry, &group)?, 0)?;
            found.names.extend(names);
            // containerd lists one image once for each of its names.
            match images.iter_mut().find(|known| known.manifest == found.manifest) {
                Some(known) => known.names.extend(found.names),
                None => images.push(found),
            }
        }
        Ok(images)
    }

    /// `org.opencontainers.image.ref.name` may be a full name or only a tag; the image of a tag is named after the
    /// file or folder.
    fn oci_name(&self, name: &str) -> Result<Option<Reference>> {
        let full = match (&self.archive.stem, check_tag(name)) {
            (None, Ok(())) => return Ok(None),
            // A file's name need not make an image's name.
            (Some(stem), Ok(())) => return Ok(Reference::parse(&format!("{stem}:{name}")).ok()),
            (_, Err(_)) => name,
        };
        let parsed = Reference::parse(full).map_err(|error| self.archive.refused("index.json", error.to_string()))?;
        Ok(Some(parsed).filter(|name| name.digest().is_none()))
    }

    /// The manifest for this host among those of one image.
    fn choose<'d>(&self, entry: &str, group: &[&'d Descriptor]) -> Result<&'d Descriptor> {
        if let [only] = group {
            // A single image is taken as it is, for whatever platform, as docker does.
            return Ok(only);
        }
        let fits = |descriptor: &&&Descriptor| match descriptor.platform() {
            Some(platform) => {
                platform.os().to_string() == "linux" && platform.architecture().to_string() == host_architecture()
            }
            None => false,
        };
        // arm64 v8 and such: the first is the one that its maker prefers.
        if let Some(descriptor) = group.iter().find(fits) {
            return Ok(descriptor);
        }
        let has: Vec<String> = group
            .iter()
            .filter_map(|descriptor| descriptor.platform().as_ref())
            .map(|platform| format!("{}/{}", platform.os(), platform.architecture()))
            .collect();
        let has = if has.is_empty() { "several images without a platform".into() } else { has.join(", ") };
        Err(self.archive.refused(entry, format!("no image for linux/{}; it has {has}", host_architecture())))
    }

    /// Follows a descriptor to its image, through nested indexes.
    fn manifest(&self, descriptor: &Descriptor, depth: usize) -> Result<Found> {
        let (entry, blob, digest) = self.described(descriptor)?;
        let raw = self.archive.json(&entry, &blob, Some(&digest), self.limits)?;
        let document: Value = self.parse(&entry, &raw)?;
        let has = |field: &str| document.get(field).is_some_and(|value| !value.is_null());
        match (has("manifests"), has("layers") || has("config")) {
            // Two readers could see two different images (CVE-2021-41190).
            (true, true) => Err(self.archive.refused(&entry, "it is an index and a manifest at once")),
            (true, false) if depth >= INDEX_DEPTH => Err(self.archive.refused(&entry, "indexes nested too deep")),
            (true, false) => {
                let index = self.index(&entry, &raw)?;
                self.check_count(&entry, index.manifests().len())?;
                let group: Vec<&Descriptor> =
                    index.manifests().iter().filter(|descriptor| !is_attestation(descriptor)).collect();
                if group.is_empty() {
                    return Err(self.archive.refused(&entry, "an index without images"));
                }
                self.manifest(self.choose(&entry, &group)?, depth + 1)
            }
            (false, true) => self.oci_image(&entry, raw),
            (false, false) => Err(self
                .archive
                .refused(&entry, "neither an index nor a manifest (docker's schema 1 is not supported)")),
        }
    }

    fn oci_image(&self, entry: &str, raw: Vec<u8>) -> Result<Found> {
        let manifest: ImageManifest = self.parse(entry, &raw)?;
        self.check_layers(entry, manifest.layers().len())?;
        let (config_entry, blob, digest) = self.described(manifest.config())?;
        let config = self.archive.json(&config_entry, &blob, Some(&digest), self.limits)?;
        let mut layers = Vec::new();
        for layer in manifest.layers() {
            let (entry, blob, digest) = self.described(layer)?;
            layers.push(Layer { entry, blob, digest: Some(digest), diff_id: None });
        }
        self.found(&config_entry, config, layers, Vec::new(), Some(raw))
    }

    /// The blob of a descriptor; its size must fit.
    fn described(&self, descriptor: &Descriptor) -> Result<(String, Blob, Digest)> {
        let text = descriptor.digest().to_string();
        let digest: Digest = text.parse().map_err(|why: String| self.archive.refused("index.json", why))?;
        let entry = format!("blobs/sha256/{}", digest.hex());
        let blob = self.archive.blob(&digest)?;
        if blob.size != descriptor.size() {
            let why = format!("it has {} bytes, not {}: damaged", blob.size, descriptor.size());
            return Err(self.archive.refused(&entry, why));
        }
        Ok((entry, blob, digest))
    }

    /// Gives the layers their diff ids from the configuration.
    fn found(
        &self,
        entry: &str,
        raw: Vec<u8>,
        mut layers: Vec<Layer>,
        names: Vec<Reference>,
        manifest: Option<Vec<u8>>,
    ) -> Result<Found> {
        let config = Config::check(raw).map_err(|why| self.archive.refused(entry, why))?;
        if config.os() != "linux" {
            return Err(self.archive.refused(entry, format!("an image for {}, not for linux", config.os())));
        }
        let diff_ids = config.diff_ids();
        if diff_ids.len() != layers.len() {
            let why = format!("it describes {} layers, but the archive has {}", diff_ids.len(), layers.len());
            return Err(self.archive.refused(entry, why));
        }
        for (layer, diff_id) in layers.iter_mut().zip(diff_ids) {
            layer.diff_id = Some(*diff_id);
        }
        Ok(Found { config: FoundConfig::Ready(config.raw().to_vec()), layers, names, manifest })
    }

    /// docker before 1.10: names lead to a layer's id, each layer's `json` to its parent, the top one's holds the
    /// configuration.
    fn repositories(&self, blob: &Blob) -> Result<Vec<Found>> {
        let entry = "repositories";
        let repositories: BTreeMap<String, BTreeMap<String, String>> =
            self.parse(entry, &self.archive.json(entry, blob, None, self.limits)?)?;
        let mut tops: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
        for (repository, tags) in repositories {
            for (tag, id) in tags {
                let name = Reference::parse(&format!("{repository}:{tag}"))
                    .map_err(|error| self.archive.refused(entry, error.to_string()))?;
                tops.entry(id).or_default().push(name);
            }
        }
        self.check_count(entry, tops.len())?;
        tops.into_iter().map(|(id, names)| self.legacy(&id, names)).collect()
    }

    fn legacy(&self, top: &str, names: Vec<Reference>) -> Result<Found> {
        let (mut layers, mut next, mut config) = (Vec::new(), Some(top.to_owned()), None);
        // The limit also ends a chain that leads back into itself.
        while let Some(id) = next {
            self.check_layers("repositories", layers.len() + 1)?;
            let entry = format!("{id}/json");
            let raw = self.archive.json(&entry, &self.archive.need(&entry)?, None, self.limits)?;
            let document: Value = self.parse(&entry, &raw)?;
            next = document.get("parent").and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
            let entry = format!("{id}/layer.tar");
            layers.push(Layer { blob: self.archive.need(&entry)?, entry, digest: None, diff_id: None });
            config.get_or_insert(document);
        }
        layers.reverse();
        let config = FoundConfig::Legacy(config.unwrap_or_default());
        Ok(Found { config, layers, names, manifest: None })
    }

    fn index(&self, entry: &str, raw: &[u8]) -> Result<ImageIndex> {
        let document: Value = self.parse(entry, raw)?;
        if document.get("layers").is_some_and(|layers| !layers.is_null()) {
            return Err(self.archive.refused(entry, "it is an index and a manifest at once"));
        }
        self.parse(entry, raw)
    }

    fn parse<T: for<'a> Deserialize<'a>>(&self, entry: &str, raw: &[u8]) -> Result<T> {
        serde_json::from_slice(raw).map_err(|error| self.archive.refused(entry, format!("bad JSON: {error}")))
    }

    fn check_count(&self, entry: &str, count: usize) -> Result<()> {
        match count > self.limits.images {
            true => Err(self.archive.refused(entry, format!("{count} images; the limit is {}", self.limits.images))),
            false => Ok(()),
        }
    }

    fn check_layers(&self, entry: &str, count: usize) -> Result<()> {
        match count > self.limits.layers {
            true => Err(self.archive.refused(entry, format!("more than {} layers", self.limits.layers))),
            false => Ok(()),
        }
    }
}

/// Makes today's configuration of the oldest form's.
pub(crate) fn modern(legacy: &Value, diff_ids: &[Digest]) -> Value {
    let mut config = serde_json::Map::new();
    for field in ["architecture", "author", "comment", "config", "created", "docker_version", "os", "variant"] {
        if let Some(value) = legacy.get(field).filter(|value| !value.is_null()) {
            config.insert(field.into(), value.clone());
        }
    }
    config.insert("rootfs".into(), json!({"type": "layers", "diff_ids": diff_ids}));
    config.into()
}

/// The digest in `blobs/sha256/HEX`.
fn blob_digest(entry: &str) -> Option<Digest> {
    Digest::from_hex(entry.strip_prefix("blobs/sha256/")?)
}

/// The digest in the name of a configuration: `HEX.json`, or a blob.
fn named_digest(entry: &str) -> Option<Digest> {
    blob_digest(entry).or_else(|| Digest::from_hex(entry.strip_suffix(".json")?))
}

/// buildkit's provenance documents stand beside the images with the platform unknown/unknown.
fn is_attestation(descriptor: &Descriptor) -> bool {
    let noted = descriptor.annotations().as_ref().is_some_and(|notes| notes.contains_key("vnd.docker.reference.type"));
    noted || descriptor.platform().as_ref().is_some_and(|platform| platform.os().to_string() == "unknown")
}

/// containerd's annotation has the full name, OCI's often only the tag.
fn name_of(descriptor: &Descriptor) -> Option<String> {
    let notes = descriptor.annotations().as_ref()?;
    let name = notes.get("io.containerd.image.name").or_else(|| notes.get("org.opencontainers.image.ref.name"));
    name.filter(|name| !name.is_empty()).cloned()
}
