//! Container networking: bridge, veth pairs, addresses, NAT, published ports, the built-in proxy.
//!
//! Takes a [`Network`] (what containers share) and an [`Endpoint`] (one container's part), and knows nothing of
//! images, containers or the engine. Planning is pure: description + [`Facts`] → [`Op`]s. An op is applied in slices,
//! explained as the command a person would type, and names its [`Residue`], from which it can be undone after a crash.

/// A shell command and the reason for it. The command may span several lines.
pub type Command = (String, String);

mod by_hand;
pub mod dns;
mod error;
mod facts;
pub mod firewall;
mod host;
mod inside;
pub mod lease;
pub mod link;
pub mod mapping;
mod netlink;
pub mod netns;
mod network;
mod obstacle;
mod op;
mod ovs;
pub mod parent;
mod plan;
pub mod port;
pub mod proxy;
mod query;
mod repair;
pub mod router;
pub mod routes;
pub mod shell;
mod subnet;
pub mod survey;
mod sys;
pub mod sysctl;
pub mod tc;
pub mod trace;
mod undo;
mod watch;

pub use error::{Error, Result};
pub use facts::{Address, Bridge, Facts, Ipv6Facts, bridge_addresses_in_use, egress_mtu};
pub use host::Host;
pub use inside::{named, within, within_named};
pub use mapping::{PortMapping, Protocol, PublishMode};
pub use netns::NewNetns;
pub use network::{Backend, Driver, Endpoint, GatewayMode, IpvlanMode, MacvlanMode, Network, Place, mac_of};
pub use obstacle::{Obstacle, Others, input_obstacles, obstacles};
pub use op::{Live, Op, apply};
pub use plan::{plan_class, plan_endpoint, plan_network, plan_rules, publish_mode, warnings};
pub use repair::repair;
pub use subnet::{Subnet, first_address, last_address};
pub use undo::{Links, Residue, Undone, undo, undo_with};
pub use watch::Watch;
