//! `doctor`: what this host has and lacks.

use std::io;

use anyhow::Result;

use crate::cli::{DoctorArgs, Global};
use crate::doctor;
use crate::format::doctor::{Level, print};

/// Prints the findings; 1 when a `run` would fail.
pub fn doctor(global: &Global, args: &DoctorArgs) -> Result<u8> {
    let findings = doctor::examine(global);
    let colours = crate::terminal::colours(io::stdout());
    print!("{}", print(&findings, args.format.as_deref(), colours)?);
    Ok(u8::from(findings.iter().any(|finding| finding.level == Level::Fail)))
}
