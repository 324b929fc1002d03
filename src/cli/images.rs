//! Flags of the commands about images.

use std::path::PathBuf;

use clap::Args;

use super::pflag::key_value;

/// Load images from an archive or an OCI layout.
#[derive(Debug, Clone, Default, Args)]
pub struct LoadArgs {
    /// A tar archive (docker save, OCI layout) or a layout's folder, instead of stdin
    #[arg(short, long, value_name = "FILE|DIR")]
    pub input: Option<PathBuf>,
    /// Print nothing while loading
    #[arg(short, long)]
    pub quiet: bool,
}

/// Make an image of a root file system.
#[derive(Debug, Clone, Default, Args)]
pub struct ImportArgs {
    /// Dockerfile instructions that set the image's configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// A comment for the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// A tar archive, a folder, or - for stdin
    #[arg(value_name = "FILE|DIR|-")]
    pub source: PathBuf,
    /// Name for the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub name: Option<String>,
}

/// List images.
#[derive(Debug, Clone, Default, Args)]
pub struct ImagesArgs {
    /// Show all images (minidock keeps no intermediate ones)
    #[arg(short, long)]
    pub all: bool,
    /// Show the digest of each image's manifest
    #[arg(long)]
    pub digests: bool,
    /// Show only images that fit: reference=, label=, dangling=, before=, since=, until=
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub filter: Vec<String>,
    /// `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Show ids in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Only images of this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub repository: Option<String>,
}

/// Write images as a tar archive.
#[derive(Debug, Clone, Default, Args)]
pub struct SaveArgs {
    /// Into a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Names or ids; a name without a tag means all tags of it
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// Show how an image was made.
#[derive(Debug, Clone, Default, Args)]
pub struct HistoryArgs {
    /// `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Sizes and times for people; the default
    #[arg(short = 'H', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = super::pflag::boolean, action = clap::ArgAction::Set)]
    pub human: Option<bool>,
    /// Show ids and instructions in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

/// Give an image a further name.
#[derive(Debug, Clone, Default, Args)]
pub struct TagArgs {
    /// Name or id of the image
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    pub source: String,
    /// The new name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    pub target: String,
}

/// Remove images.
#[derive(Debug, Clone, Default, Args)]
pub struct RmiArgs {
    /// Remove all names of an id, and an image that a stopped container uses
    #[arg(short, long)]
    pub force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}
