//! Lists (`ps`, `images`) in docker's forms: table, table of a template, JSON lines, template.

use std::collections::{BTreeMap, HashMap};

use gtmpl_ng::Value;

use super::table;
use super::template::{FormatError, Template};

/// Where a row keeps its labels for `.Label`; no template can spell it.
pub(super) const LABELS: &str = "\0labels";

/// A field that docker has, with nothing in it: `null` in JSON, `<nil>` in a template.
pub(super) const NULL: &str = "\0";

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
        self.print_by(format.unwrap_or_default(), rows, quiet).map_err(|error| self.in_dockers_words(error))
    }

    /// Whether a template asks only for what there is; `ps` tells that also where there is no row.
    ///
    /// # Errors
    /// It doesn't.
    pub fn check(&self, format: &str) -> Result<(), FormatError> {
        let template = format.strip_prefix("table").unwrap_or(format);
        if ["", "json", "raw"].contains(&template.trim()) {
            return Ok(());
        }
        let fields = self.headers.iter().map(|(field, _)| (*field, String::new())).collect();
        let row = Row { fields, labels: BTreeMap::new() };
        let tried = Template::parse(template).and_then(|template| template.render(row.to_value()));
        tried.map(drop).map_err(|error| self.in_dockers_words(error))
    }

    fn print_by(&self, format: &str, rows: &[Row], quiet: bool) -> Result<String, FormatError> {
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
    }

    fn as_table(&self, template: &str, rows: &[Row]) -> Result<String, FormatError> {
        let template = Template::parse(template)?;
        let header: HashMap<String, Value> =
            self.headers.iter().map(|(field, header)| ((*field).to_owned(), Value::from(*header))).collect();
        let header = template.header(Value::Object(header))?;
        Ok(table::align(&format!("{header}\n{}", lines(&template, rows)?)))
    }

    /// A list's template fails with other words than that of `inspect`, always with 1. A row is no map: say what it has.
    fn in_dockers_words(&self, error: FormatError) -> FormatError {
        let what = if error.code == 64 { "parse" } else { "execute" };
        let mut message = error.message.replacen("template parsing error:", &format!("failed to {what} template:"), 1);
        if let Some((place, key)) = message.split_once("map has no entry for key ") {
            let fields: Vec<&str> = self.headers.iter().map(|(field, _)| *field).collect();
            let key = key.trim_matches('"');
            message = format!("{place}can't evaluate field {key} in a row; there are {}", fields.join(", "));
        }
        FormatError { message, code: 1 }
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
        let field = |text: &String| if text == NULL { Value::Nil } else { Value::from(text) };
        let fields = self.fields.iter().map(|(key, text)| ((*key).to_owned(), field(text)));
        Value::Object(fields.chain([(LABELS.to_owned(), Value::Map(labels))]).collect())
    }
}

/// One object a line, keys sorted, with Go's escapes for HTML.
fn json_line(row: &Row) -> String {
    let field = |text: &'_ String| if text == NULL { None } else { Some(text.clone()) };
    let fields: BTreeMap<&str, Option<String>> = row.fields.iter().map(|(key, text)| (*key, field(text))).collect();
    let text = serde_json::to_string(&fields).unwrap_or_default();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}
