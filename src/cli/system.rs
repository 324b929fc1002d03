//! Flags of the commands about what the engine keeps: `system df`, `system prune`, `image prune`.

use clap::Args;

use super::pflag::key_value;

/// Show what takes how much room.
#[derive(Debug, Clone, Default, Args)]
pub struct SystemDfArgs {
    /// `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Each image, container and volume
    #[arg(short, long)]
    pub verbose: bool,
}

/// Remove what isn't used.
#[derive(Debug, Clone, Default, Args)]
pub struct SystemPruneArgs {
    /// All images without a container, not only those without a name
    #[arg(short, long)]
    pub all: bool,
    /// Remove only what fits: label=, label!=, until=
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub filter: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    pub force: bool,
    /// Anonymous volumes too
    #[arg(long)]
    pub volumes: bool,
}

/// Remove images.
#[derive(Debug, Clone, Default, Args)]
pub struct ImagePruneArgs {
    /// All images without a container, not only those without a name
    #[arg(short, long)]
    pub all: bool,
    /// Remove only what fits: label=, label!=, until=, dangling=
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub filter: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    pub force: bool,
}
