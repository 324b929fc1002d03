//! Makes again what somebody has taken away of a container's rules: from its residues, which name every rule and element.

use crate::firewall::{iptables, table};
use crate::{Host, Residue, Result, firewall::nftables::Family};

/// Adds what is missing of these rules and elements; others of the residues are no concern of it. Gives back how many
/// were missing. `comment`: what published ports are marked with.
///
/// # Errors
/// The firewall can't be read or written.
pub fn repair(residues: &[Residue], comment: &str, host: &mut Host) -> Result<usize> {
    let mut count = 0;
    let mut rules = Vec::new();
    for residue in residues {
        match residue {
            Residue::NftElements { family, table, elements } => {
                if let Some(family) = Family::of(family) {
                    count += table::add_missing(host.netfilter()?, family, table, elements, comment)?;
                }
            }
            Residue::IptablesRule { .. } => rules.push(residue),
            _ => {}
        }
    }
    if !rules.is_empty() {
        count += iptables::add_missing(&rules)?;
    }
    Ok(count)
}
