//! Flags of the `network` commands.

use clap::Args;

use super::pflag::{integer, key_value};

/// Create a network.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkCreateArgs {
    /// Let containers join by hand: always so here
    #[arg(long)]
    pub attachable: bool,
    /// An address in the subnet that no container gets: NAME=ADDRESS
    #[arg(long, value_name = "NAME=ADDRESS")]
    pub aux_address: Vec<String>,
    /// What the network is made of: bridge, macvlan or ipvlan
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    pub driver: String,
    /// The containers' gateway in the subnet
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Vec<String>,
    /// No way out: containers reach only each other
    #[arg(long)]
    pub internal: bool,
    /// Give containers addresses from this part of the subnet
    #[arg(long, value_name = "SUBNET")]
    pub ip_range: Vec<String>,
    /// How addresses are given: default only
    #[arg(long, value_name = "DRIVER", default_value = "default")]
    pub ipam_driver: String,
    /// Give IPv4 addresses (--ipv4=false: none)
    #[arg(long, default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true, value_parser = super::pflag::boolean, action = clap::ArgAction::Set)]
    pub ipv4: bool,
    /// Give IPv6 addresses
    #[arg(long)]
    pub ipv6: bool,
    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// Option of the driver
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    /// `local` only: minidock has no swarm
    #[arg(long, value_name = "SCOPE")]
    pub scope: Option<String>,
    /// The subnet, such as 10.5.0.0/24; without it a free one is chosen
    #[arg(long, value_name = "SUBNET")]
    pub subnet: Vec<String>,
    /// The network's name
    #[arg(value_name = "NETWORK")]
    pub name: String,
}

/// List networks.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkLsArgs {
    /// Show only networks that fit: name=, id=, driver=, scope=, type=, label=, dangling=
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
}

/// Print everything known of networks.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkInspectArgs {
    /// `json`, or a Go template such as '{{.IPAM.Config}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// For docker's scripts: there is no more to say
    #[arg(short, long)]
    pub verbose: bool,
    /// The networks' names or ids
    #[arg(required = true, value_name = "NETWORK")]
    pub networks: Vec<String>,
}

/// Remove networks.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkRmArgs {
    /// A network that isn't there is no error
    #[arg(short, long)]
    pub force: bool,
    /// The networks' names or ids. `bridge` isn't removed for good: the next container makes it anew
    #[arg(required = true, value_name = "NETWORK")]
    pub networks: Vec<String>,
}

/// Bring back firewall rules of networks and containers that somebody has removed.
///
/// Running containers watch over their rules themselves; this does it by hand, and prints whose rules were missing.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkRepairArgs {}

/// Remove all networks that no container uses.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkPruneArgs {
    /// Only networks that fit: label=, label!=, until=
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub filter: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    pub force: bool,
}

/// Connect a container to a network.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkConnectArgs {
    /// A further name in this network
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// Option of the endpoint: com.docker.network.endpoint.ifname=NAME
    #[arg(long, value_name = "KEY=VALUE")]
    pub driver_opt: Vec<String>,
    /// The network with the highest priority has the default gateway
    #[arg(long, value_name = "NUMBER", value_parser = integer)]
    pub gw_priority: Option<i64>,
    /// IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<String>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<String>,
    /// A further address of the link, not routed
    #[arg(long, value_name = "ADDRESS")]
    pub link_local_ip: Vec<String>,
    /// The network's name or id
    #[arg(value_name = "NETWORK")]
    pub network: String,
    /// The container's name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// Disconnect a container from a network.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkDisconnectArgs {
    /// A container that isn't connected is no error
    #[arg(short, long)]
    pub force: bool,
    /// The network's name or id
    #[arg(value_name = "NETWORK")]
    pub network: String,
    /// The container's name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}
