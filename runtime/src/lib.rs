//! runtime

pub mod cgroup;
pub mod capabilities;
pub mod defaults;
pub mod users;
