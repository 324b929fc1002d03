//! The lines of `history`.

use std::collections::BTreeMap;

use super::human::{self, Nanoseconds};
use super::rows::{List, Row};
use super::template::FormatError;

const LIST: List = List {
    headers: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
};

/// One step of an image's making, the last one first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// The image's id for the last step; the others have none.
    pub id: Option<String>,
    /// When.
    pub created: Option<Nanoseconds>,
    /// As the configuration has it.
    pub created_text: String,
    /// The instruction.
    pub created_by: String,
    /// A remark.
    pub comment: String,
    /// Of its layer.
    pub size_bytes: u64,
}

/// How it prints.
#[derive(Debug, Clone, Copy)]
pub struct Style<'a> {
    /// `--format`
    pub format: Option<&'a str>,
    /// Ids alone.
    pub quiet: bool,
    /// Nothing is cut.
    pub no_trunc: bool,
    /// Sizes and times for people.
    pub human: bool,
}

/// Prints the steps in the order given.
///
/// # Errors
/// The template is wrong.
pub fn print(steps: &[Step], style: Style<'_>, now: Nanoseconds) -> Result<String, FormatError> {
    let rows: Vec<Row> = steps.iter().map(|step| row(step, style, now)).collect();
    LIST.print(&rows, style.format, style.quiet)
}

fn row(step: &Step, style: Style<'_>, now: Nanoseconds) -> Row {
    let id = match &step.id {
        None => "<missing>".to_owned(),
        Some(id) if style.no_trunc => id.clone(),
        Some(id) => super::ps::short_id(id),
    };
    let since = match step.created {
        _ if !style.human => step.created_text.clone(),
        None => String::new(),
        Some(created) => format!("{} ago", human::duration(now.saturating_sub(created))),
    };
    let by = step.created_by.replace('\t', " ");
    let fields = vec![
        ("ID", id),
        ("CreatedSince", since),
        ("CreatedAt", step.created_text.clone()),
        ("CreatedBy", if style.no_trunc { by } else { human::ellipsis(&by, 45) }),
        ("Size", if style.human { human::size(step.size_bytes) } else { step.size_bytes.to_string() }),
        ("Comment", step.comment.clone()),
    ];
    Row { fields, labels: BTreeMap::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_docker_s_lines() {
        let step = Step {
            id: Some(format!("sha256:{}", "ab".repeat(32))),
            created: Some(0),
            created_text: "1970-01-01T00:00:00Z".into(),
            created_by: "CMD [\"sh\"]".into(),
            ..Step::default()
        };
        let base =
            Step { id: None, size_bytes: 4_261_550, created_by: "x".repeat(60), comment: "c".into(), ..step.clone() };
        let style = Style { format: None, quiet: false, no_trunc: false, human: true };
        let table = print(&[step.clone(), base.clone()], style, 3600 * 24 * 3 * 1_000_000_000).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].starts_with("IMAGE          CREATED      CREATED BY"), "{table}");
        assert!(lines[1].starts_with("abababababab   3 days ago   CMD [\"sh\"]"), "{table}");
        assert!(
            lines[2].starts_with(&format!("<missing>      3 days ago   {}…   4.26MB    c", "x".repeat(44))),
            "{table}"
        );
        let quiet = Style { quiet: true, ..style };
        assert_eq!(print(&[step, base], quiet, 0).unwrap(), "abababababab\n<missing>\n");
    }
}
