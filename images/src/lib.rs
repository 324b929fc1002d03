//! Container images: archives come in, layers ready for overlayfs, configurations and names come out.
//!
//! - [`Store`]: the folder where all of it lies: `load`, `import`, `find`, `images`, `tag`, `remove`.
//! - [`Reference`], [`Digest`], [`ImageId`]: names and ids, checked when made.
//! - [`Config`]: an image's configuration as an engine needs it.
//! - [`TarReader`]: the bounded reader of tar streams alone, for whoever copies files.
//! - [`unpack_tar`]: the layer unpacker alone, for the fuzz target and for tests.
//!
//! Archives are hostile: everything read is bounded ([`Limits`]), digests are verified while reading, and nothing is
//! written outside the layer's folder. A refused archive leaves the store as it was. The start path ([`Store::open`],
//! [`Store::find`]) reads a few small files and starts no thread; `load` unpacks layers in threads that it joins.

mod archive;
mod beneath;
mod change;
mod commit;
mod compression;
mod config;
mod digest;
mod entries;
mod error;
mod folder;
mod formats;
mod import;
mod layer;
mod limits;
mod load;
mod metadata;
mod meter;
mod near;
mod pax;
mod progress;
mod reference;
mod remove;
mod store;
mod usage;
mod workspace;

pub use archive::Input;
pub use beneath::remove_tree;
pub use compression::decompressed;
pub use config::Config;
pub use digest::{Digest, ImageId};
pub use entries::{Entry, Kind, Sparse, TarReader, Time};
pub use error::{Error, Failure, Result};
pub use import::ImportOptions;
pub use layer::{Contents, unpack_tar};
pub use limits::{Devices, Limits};
pub use load::{LoadOptions, Loaded};
pub use metadata::keeps as keeps_attribute;
pub use progress::{Callback, Phase};
pub use reference::Reference;
pub use remove::Removed;
pub use store::{Guard, Image, Store, Summary};
