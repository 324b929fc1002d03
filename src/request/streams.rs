//! What a client shows and passes on: `-a`, `--detach-keys`, `--sig-proxy`.

use serde::{Deserialize, Serialize};

use super::Invalid;
use crate::cli::RunArgs;
use crate::client::Options;
use crate::client::keys::DetachKeys;

/// The streams that `run` attaches its client to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// `-a stdin`, or `-i` in the foreground.
    pub stdin: bool,
    /// Shown: without `-a`, or `-a stdout`.
    pub stdout: bool,
    /// Shown: without `-a`, or `-a stderr`.
    pub stderr: bool,
    /// `--sig-proxy`
    pub sig_proxy: bool,
    /// `--detach-keys`
    pub detach_keys: DetachKeys,
}

impl Default for Streams {
    fn default() -> Streams {
        Streams { stdin: false, stdout: true, stderr: true, sig_proxy: true, detach_keys: DetachKeys::default() }
    }
}

impl Streams {
    /// Reads the flags.
    ///
    /// # Errors
    /// docker's sentences.
    pub fn from_args(args: &RunArgs) -> Result<Streams, Invalid> {
        let mut wanted = [false; 3];
        for text in &args.attach {
            let names = ["stdin", "stdout", "stderr"];
            let Some(at) = names.iter().position(|name| text.eq_ignore_ascii_case(name)) else {
                let why = "valid streams are STDIN, STDOUT and STDERR";
                return Err(Invalid::value("-a, --attach", text, why));
            };
            wanted[at] = true;
        }
        let detach_keys = detach_keys(args.detach_keys.as_deref())?;
        if args.detach && !args.attach.is_empty() {
            let message = "conflicting options: cannot specify both --attach and --detach";
            return Err(Invalid::arguments(message));
        }
        let by_default = args.attach.is_empty() && !args.detach;
        Ok(Streams {
            stdin: wanted[0] || (args.interactive && !args.detach),
            stdout: wanted[1] || by_default,
            stderr: wanted[2] || by_default,
            sig_proxy: args.sig_proxy,
            detach_keys,
        })
    }

    /// For a client.
    pub fn options(&self) -> Options {
        // A terminal has one stream: docker's client shows it for either flag.
        let Streams { stdout, stderr, sig_proxy, ref detach_keys, .. } = *self;
        Options { stdout, stderr, sig_proxy, detach_keys: detach_keys.clone() }
    }
}

/// Reads `--detach-keys`.
///
/// # Errors
/// docker's sentence.
pub fn detach_keys(text: Option<&str>) -> Result<DetachKeys, Invalid> {
    DetachKeys::parse(text.unwrap_or_default()).map_err(Invalid::new)
}
