//! Flags of `net graph`.

use clap::Args;

use crate::graph::Format;

/// Draw the network as the kernel has it now.
#[derive(Debug, Clone, Default, Args)]
pub struct NetGraphArgs {
    /// `text`, `svg`, `dot` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = format)]
    pub format: Format,
}

fn format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "svg" => Ok(Format::Svg),
        "dot" => Ok(Format::Dot),
        "json" => Ok(Format::Json),
        _ => Err(format!("{text:?} is no format: use text, svg, dot or json")),
    }
}
