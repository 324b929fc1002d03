//! Lists (`ps`, `images`) in docker's forms: table, table of a template, JSON lines, template.

use std::collections::{BTreeMap, HashMap};

use gtmpl_ng::Value;

use super::table;
use super::template::{FormatError, Template};

/// Where a row keeps its labels for `.Label`; no template can spell it.
pub(super) const LABELS: &str = "\0labels";

/// One line: its fields in docker's names, and its labels.
pub(super) struct Row {
    pub fields: Vec<(&'static str, String)>,
    pub labels: BTreeMap<String, String>,
}

/// A kind of list.
pub(super) struct List {
    /// Field → header.
    pub headers: &'static [(&'static str, &'static str)],
    /// The table that is printed without `--format`.
    pub table: &'static str,
}

impl List {
    /// Prints rows by `--format`; with `quiet` the ids alone.
    pub fn print(&self, rows: &[Row], format: Option<&str>, quiet: bool) -> Result<String, FormatError> {
        let format = format.unwrap_or_default();
        match format {
            "json" => Ok(rows.iter().map(|row| json_line(row) + "\n").collect()),
            "" | "table" if quiet => lines(&Template::parse("{{.ID}}")?, rows),
            "" | "table" => self.as_table(self.table, rows),
            _ => {
                // In a shell's quotes the two letters \t are meant as a tab.
                let format = format.replace("\\t", "\t").replace("\\n", "\n");
                match format.strip_prefix("table") {
                    Some(template) => self.as_table(template.trim(), rows),
                    None => lines(&Template::parse(&format)?, rows),
                }
            }
        }
        .map_err(|error| self.name_fields(error))
    }

    fn as_table(&self, template: &str, rows: &[Row]) -> Result<String, FormatError> {
        let template = Template::parse(template)?;
        let header: HashMap<String, Value> =
            self.headers.iter().map(|(field, header)| ((*field).to_owned(), Value::from(*header))).collect();
        let header = template.header(Value::Object(header))?;
        Ok(table::align(&format!("{header}\n{}", lines(&template, rows)?)))
    }

    /// A row is no map: say what it has.
    fn name_fields(&self, error: FormatError) -> FormatError {
        let Some((place, key)) = error.message.split_once("map has no entry for key ") else {
            return error;
        };
        let fields: Vec<&str> = self.headers.iter().map(|(field, _)| *field).collect();
        let key = key.trim_matches('"');
        FormatError {
            message: format!("{place}can't evaluate field {key}; there are {}", fields.join(", ")),
            code: error.code,
        }
    }
}

fn lines(template: &Template, rows: &[Row]) -> Result<String, FormatError> {
    let mut text = String::new();
    for row in rows {
        text += &template.render(row.to_value())?;
        text.push('\n');
    }
    Ok(text)
}

impl Row {
    fn to_value(&self) -> Value {
        let labels = self.labels.iter().map(|(key, text)| (key.clone(), Value::from(text))).collect();
        let fields = self.fields.iter().map(|(key, text)| ((*key).to_owned(), Value::from(text)));
        Value::Object(fields.chain([(LABELS.to_owned(), Value::Map(labels))]).collect())
    }
}

/// One object a line, keys sorted, with Go's escapes for HTML.
fn json_line(row: &Row) -> String {
    let fields: BTreeMap<&str, &str> = row.fields.iter().map(|(key, text)| (*key, text.as_str())).collect();
    let text = serde_json::to_string(&fields).unwrap_or_default();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}
