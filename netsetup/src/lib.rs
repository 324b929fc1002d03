//! Container networking: bridge, veth pairs, addresses, NAT, published ports, the built-in proxy.
//!
//! Takes a [`Network`] (what containers share) and an [`Endpoint`] (one container's part), and knows nothing of
//! images, containers or the engine. Planning is pure: description + [`Facts`] → [`Op`]s. An op is applied in slices,
//! explained as the command a person would type, and names its [`Residue`], from which it can be undone after a crash.

/// A shell command and the reason for it.
pub type Command = (String, String);

pub mod mapping;

pub use mapping::{PortMapping, Protocol, PublishMode};
