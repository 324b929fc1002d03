//! `net graph`: the network as the kernel has it now, with what minidock thinks of it beside, and the differences marked.
//!
//! Kernel (`netsetup::survey`) + state files → one [`Picture`] → text, JSON, dot or SVG. Reading changes nothing.

mod differences;
mod dot;
pub mod model;
mod svg;
mod text;

use anyhow::Result;

pub use model::{Owner, Picture};

use crate::commands::Engine;

/// How the picture is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For a terminal.
    #[default]
    Text,
    /// An image for slides and pages.
    Svg,
    /// For graphviz.
    Dot,
    /// For programs.
    Json,
}

/// Looks, and prints.
pub fn print(engine: &Engine, format: Format) -> Result<String> {
    let picture = Picture::take(engine)?;
    Ok(match format {
        Format::Text => text::render(&picture),
        Format::Svg => svg::render(&picture),
        Format::Dot => dot::render(&picture),
        Format::Json => serde_json::to_string_pretty(&picture.json())? + "\n",
    })
}
