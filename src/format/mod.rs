//! What minidock prints: Go templates, docker's tables, and the documents of `inspect`.
//!
//! Input is plain data (views), output is a `String`: no file, no clock, no environment.

pub mod disk;
pub mod doctor;
pub mod document;
pub mod events;
mod functions;
pub mod history;
pub mod human;
pub mod images;
pub mod info;
pub mod inspect;
mod mounts;
pub mod networks;
pub mod port;
pub mod ps;
pub mod ps_filter;
mod rows;
pub mod stats;
mod structs;
pub mod table;
pub mod template;
pub mod version;
pub mod view;
pub mod volumes;

pub use document::Document;
pub use template::FormatError;
pub use view::{
    ConfigView, ContainerView, MountView, NetworkView, OverlayView, PlaceView, SizeView, StateView, Status,
};

#[cfg(test)]
mod oracle_tests;
