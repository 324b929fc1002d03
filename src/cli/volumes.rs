//! Flags of the commands about volumes.

use clap::Args;

use super::pflag::key_value;

/// Make a volume.
#[derive(Debug, Clone, Default, Args)]
pub struct VolumeCreateArgs {
    /// The volume's driver; there is `local`
    #[arg(short, long, value_name = "NAME")]
    pub driver: Option<String>,
    /// A label for the volume
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// An option of the local driver: type=, device=, o=, as mount(8) has them
    #[arg(short, long = "opt", value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    /// The volume's name, in docker's older form
    #[arg(long, hide = true, value_name = "NAME")]
    pub name: Option<String>,
    /// The volume's name; without it, 64 digits
    #[arg(value_name = "VOLUME")]
    pub volume: Option<String>,
}

/// List volumes.
#[derive(Debug, Clone, Default, Args)]
pub struct VolumeLsArgs {
    /// Show only volumes that fit: name=, label=, dangling=, driver=
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub filter: Vec<String>,
    /// `table`, `table TEMPLATE`, `json`, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Print everything known of volumes.
#[derive(Debug, Clone, Default, Args)]
pub struct VolumeInspectArgs {
    /// `json`, or a Go template such as '{{.Mountpoint}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    pub names: Vec<String>,
}

/// Remove volumes.
#[derive(Debug, Clone, Default, Args)]
pub struct VolumeRmArgs {
    /// A volume that isn't there is no error
    #[arg(short, long)]
    pub force: bool,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    pub names: Vec<String>,
}

/// Remove volumes that no container uses.
#[derive(Debug, Clone, Default, Args)]
pub struct VolumePruneArgs {
    /// Named ones too, not only anonymous ones
    #[arg(short, long)]
    pub all: bool,
    /// Remove only volumes that fit: label=, label!=
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub filter: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    pub force: bool,
}
