//! The container runtime: namespaces, cgroups, root file system, capabilities, seccomp rules, exec.
//!
//! Takes an OCI configuration and a bundle-like description ([`Bundle`]), and knows nothing of images, networks or the
//! engine, so that an OCI command line is a thin shell around it:
//!
//! ```text
//! Facts::read → plan(bundle, facts) → cgroup::apply → init::spawn → (the caller's links) → Starting::go → Going::wait → Running
//! ```
//!
//! [`plan()`] is pure and decides everything. Of what follows only cgroups leave something on the host when every process
//! is dead ([`cgroup::Residue`]); mounts and namespaces end with the processes.

pub mod capabilities;
pub mod cgroup;
mod channel;
pub mod defaults;
pub mod error;
pub mod exec;
pub mod facts;
pub mod init;
pub mod mounts;
pub mod namespaces;
pub mod plan;
pub mod process;
mod reaper;
pub mod seccomp;
mod shell;
mod sys;
pub mod terminal;
pub mod users;

#[cfg(test)]
mod tests;

pub use error::{Error, StartError, StartErrorKind};
pub use facts::Facts;
pub use init::{Running, Starting, Stdio};
pub use plan::{Bundle, Op, Plan, Rootfs, Seccomp, plan};

/// A shell command (one or more lines) and the reason for it.
pub type Command = (String, String);
