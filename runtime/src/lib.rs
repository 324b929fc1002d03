//! runtime

pub mod cgroup;
