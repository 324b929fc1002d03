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

/// Text for a terminal: names of links and namespaces come from outside and may hold escape sequences, or marks that turn
/// the direction of writing.
pub fn harmless(text: &str) -> String {
    text.split('\n').map(netsetup::shell::printable).collect::<Vec<_>>().join("\n")
}

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
        Format::Text => harmless(&text::render(&picture)),
        Format::Svg => harmless(&svg::render(&picture)),
        Format::Dot => harmless(&dot::render(&picture)),
        Format::Json => serde_json::to_string_pretty(&picture.json())? + "\n",
    })
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn names_cannot_speak_to_the_terminal() {
        assert_eq!(harmless("a\u{1b}[31m\u{9b}b\u{202e}\r\u{7f}\nä"), "a?[31m?b???\nä");
    }
}
