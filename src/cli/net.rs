//! Flags of `net graph`.

use clap::Args;

use crate::graph::Format;
use crate::walk::From;

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

/// Send a probe and tell its way hop by hop.
#[derive(Debug, Clone, Default, Args)]
pub struct WalkArgs {
    /// Where it begins: a container's name, `outside`, or `host`
    #[arg(long, value_name = "CONTAINER|outside|host", default_value = "host")]
    pub from: From,
    /// `text` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = walk_format)]
    pub format: Format,
    /// Also the rules of the containers' name servers, which let all other packets pass
    #[arg(long)]
    pub names: bool,
    /// An address, `localhost` or what a container is called, and a port
    #[arg(value_name = "HOST:PORT[/udp]")]
    pub target: String,
}

fn walk_format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("{text:?} is no format: use text or json")),
    }
}
