//! `--cap-add`, `--cap-drop`: names. What they make of the default set is the runtime's to work out.

use runtime::capabilities;
use serde::{Deserialize, Serialize};

use super::Invalid;

/// Which capabilities are added to the default ones and taken from them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityChanges {
    /// `CAP_…` names, or `ALL`; each once.
    pub add: Vec<String>,
    /// `CAP_…` names, or `ALL`; each once.
    pub drop: Vec<String>,
}

impl CapabilityChanges {
    pub(super) fn parse(add: &[String], drop: &[String]) -> Result<CapabilityChanges, Invalid> {
        Ok(CapabilityChanges { add: names("--cap-add", add)?, drop: names("--cap-drop", drop)? })
    }
}

/// `net_admin`, `NET_ADMIN`, `CAP_NET_ADMIN` → `CAP_NET_ADMIN`, as docker stores them.
fn names(flag: &str, list: &[String]) -> Result<Vec<String>, Invalid> {
    let mut names = Vec::new();
    for text in list {
        let name = match text.to_ascii_uppercase().as_str() {
            "ALL" | "CAP_ALL" => "ALL".to_owned(),
            _ => {
                let number = capabilities::parse(text).map_err(|why| Invalid::value(flag, text, why))?;
                capabilities::NAMES[usize::from(number)].to_owned()
            }
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stored_in_full_and_once() {
        let add = ["net_admin", "CAP_NET_ADMIN", "Kill", "all"].map(str::to_owned);
        let changes = CapabilityChanges::parse(&add, &["cap_all".to_owned()]).unwrap();
        assert_eq!(changes.add, ["CAP_NET_ADMIN", "CAP_KILL", "ALL"]);
        assert_eq!(changes.drop, ["ALL"]);
    }

    #[test]
    fn unknown_names_get_a_near_miss() {
        let error = CapabilityChanges::parse(&["NET_ADMINN".into()], &[]).unwrap_err();
        assert!(error.message.contains("did you mean CAP_NET_ADMIN?"), "{error}");
        assert!(CapabilityChanges::parse(&[String::new()], &[]).is_err());
        assert!(CapabilityChanges::parse(&[], &["x".repeat(100_000)]).is_err());
    }
}
