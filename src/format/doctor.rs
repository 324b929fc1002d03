//! The lines of `doctor`.

use super::document::{Document, object};
use super::template::{FormatError, Template};
use crate::graph::harmless;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// Something won't work.
    Warn,
    /// A `run` will fail.
    Fail,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Note => "note",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        }
    }

    /// ECMA-48: green, blue, yellow, bold red.
    fn colour(self) -> &'static str {
        match self {
            Level::Ok => "32",
            Level::Note => "34",
            Level::Warn => "33",
            Level::Fail => "1;31",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at.
    pub what: &'static str,
    /// What is there.
    pub found: String,
    /// What to do; empty where nothing is to be done.
    pub remedy: String,
}

/// Prints findings by `--format`.
///
/// # Errors
/// The template is wrong.
pub fn print(findings: &[Finding], format: Option<&str>, colours: bool) -> Result<String, FormatError> {
    match format.unwrap_or_default() {
        "" => Ok(findings.iter().map(|finding| text(finding, colours)).collect()),
        "json" => {
            Ok(serde_json::to_string(&findings.iter().map(document).collect::<Vec<_>>()).unwrap_or_default() + "\n")
        }
        template => {
            let template = Template::parse(template)?;
            findings.iter().map(|finding| Ok(template.render(document(finding).to_value())? + "\n")).collect()
        }
    }
}

fn text(finding: &Finding, colours: bool) -> String {
    let name = format!("{:<4}", finding.level.name());
    let name = if colours { format!("\x1b[{}m{name}\x1b[0m", finding.level.colour()) } else { name };
    let line = format!("{name}  {:<16}{}\n", finding.what, harmless(&finding.found));
    match finding.remedy.is_empty() {
        true => line,
        false => format!("{line}{:22}-> {}\n", "", harmless(&finding.remedy)),
    }
}

fn document(finding: &Finding) -> Document {
    object! {
        "Level": finding.level.name().to_lowercase(),
        "What": finding.what,
        "Found": finding.found.as_str(),
        "Remedy": finding.remedy.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_and_its_remedy() {
        let fail = Finding { level: Level::Fail, what: "disk", found: "full".into(), remedy: "make room".into() };
        let plain = print(std::slice::from_ref(&fail), None, false).unwrap();
        assert_eq!(plain, "FAIL  disk            full\n                      -> make room\n");
        assert!(print(std::slice::from_ref(&fail), None, true).unwrap().starts_with("\x1b[1;31mFAIL\x1b[0m  disk"));
        assert_eq!(
            print(std::slice::from_ref(&fail), Some("{{.Level}} {{.Remedy}}"), true).unwrap(),
            "fail make room\n"
        );
        assert!(print(&[fail], Some("json"), true).unwrap().starts_with("[{\"Level\":\"fail\",\"What\":\"disk\""));
    }
}
