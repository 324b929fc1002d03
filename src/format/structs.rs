//! docker's structs inside templates: the order of their fields, and how Go prints them.
//!
//! The template engine keeps a struct's fields in a hash map and prints it as one. So the order of every kind of struct
//! is noted when its value is made, found again by the set of its keys, and each action's result is printed here.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;

use gtmpl_ng::{FuncError, Value};

thread_local! {
    /// Sorted keys → the fields in docker's order. A handful of kinds; lives as long as the command.
    static ORDERS: RefCell<HashMap<Vec<String>, Vec<Field>>> = RefCell::default();
}

/// A field of a struct.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    /// Its name in the document.
    pub name: &'static str,
    /// JSON leaves it out when it is empty.
    pub omittable: bool,
}

/// What stands in a struct without fields (Go's `struct{}`), so that it isn't taken for [`null_list`].
const NO_FIELDS: &str = "\0";

/// Fields that templates know by a second name: that of Go's struct, where the document has another (JSON, Go).
const SECOND_NAMES: &[(&str, &str)] = &[
    ("Id", "ID"),
    ("NanoCpus", "NanoCPUs"),
    ("CpuShares", "CPUShares"),
    ("CpuPeriod", "CPUPeriod"),
    ("CpuQuota", "CPUQuota"),
    ("CpuCount", "CPUCount"),
    ("CpuPercent", "CPUPercent"),
    ("CpuRealtimePeriod", "CPURealtimePeriod"),
    ("CpuRealtimeRuntime", "CPURealtimeRuntime"),
    ("HostIp", "HostIP"),
    // Of events.
    ("status", "Status"),
    ("id", "ID"),
    ("from", "From"),
    ("scope", "Scope"),
    ("time", "Time"),
    ("timeNano", "TimeNano"),
];

/// A list that was never set: prints as `[]`, is `null` in JSON, empty to `range`, `len` and `with`. No struct of ours is
/// without fields, so an empty one stands for it.
pub(super) fn null_list() -> Value {
    Value::Object(HashMap::new())
}

/// Whether a value is a [`null_list`].
pub(super) fn is_null_list(value: &Value) -> bool {
    matches!(value, Value::Object(map) if map.is_empty())
}

/// A struct's value, with its second names.
pub(super) fn value(fields: impl IntoIterator<Item = (Field, Value)>) -> Value {
    let mut order = Vec::new();
    let mut map = HashMap::new();
    for (field, value) in fields {
        order.push(field);
        map.insert(field.name.to_owned(), value);
    }
    for (key, second) in SECOND_NAMES {
        if let (Some(field), false) = (map.get(*key).cloned(), map.contains_key(*second)) {
            map.insert((*second).to_owned(), field);
        }
    }
    if map.is_empty() {
        map.insert(NO_FIELDS.to_owned(), Value::Nil);
    }
    ORDERS.with_borrow_mut(|orders| orders.insert(sorted(&map), order));
    Value::Object(map)
}

fn sorted(map: &HashMap<String, Value>) -> Vec<String> {
    let mut keys: Vec<String> = map.keys().cloned().collect();
    keys.sort();
    keys
}

/// A struct's fields in docker's order, without second names, and whether JSON may leave each out; a kind that was never
/// noted comes sorted.
pub(super) fn fields(map: &HashMap<String, Value>) -> Vec<(String, bool, &Value)> {
    let keys = sorted(map);
    let order = ORDERS.with_borrow(|orders| orders.get(&keys).cloned());
    let order: Vec<(String, bool)> = match order {
        Some(order) => order.into_iter().map(|field| (field.name.to_owned(), field.omittable)).collect(),
        None => keys.into_iter().map(|key| (key, false)).collect(),
    };
    order.into_iter().filter_map(|(key, omittable)| map.get(&key).map(|field| (key, omittable, field))).collect()
}

/// Go's zero values, but for structs.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Nil | Value::NoValue | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Map(map) | Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(true) | Value::Function(_) => false,
    }
}

/// What an action prints: Go's `%v`.
pub(super) fn print(args: &[Value]) -> Result<Value, FuncError> {
    let mut text = String::new();
    for value in args {
        write(&mut text, value, false);
    }
    Ok(Value::String(text))
}

/// Go's `print` family and `printf` know no structs of ours: they get them as text. `%+v` names the fields.
pub(super) fn plain(args: &[Value], named: bool) -> Vec<Value> {
    args.iter()
        .map(|value| match has_struct(value) {
            true => {
                let mut text = String::new();
                write(&mut text, value, named);
                Value::String(text)
            }
            false => value.clone(),
        })
        .collect()
}

fn has_struct(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Map(map) => map.values().any(has_struct),
        Value::Array(list) => list.iter().any(has_struct),
        _ => false,
    }
}

/// Maps of docker's documents that may be unset: `null` in JSON, but Go prints them as empty ones.
const UNSET_MAPS: &[&str] = &["Options", "Labels", "Volumes"];

/// What an action prints that is the field of an unset map.
pub(super) fn print_map(args: &[Value]) -> Result<Value, FuncError> {
    match args {
        [Value::Nil] => Ok("map[]".into()),
        args => print(args),
    }
}

fn is_unset_map(name: &str, value: &Value) -> bool {
    matches!(value, Value::Nil) && UNSET_MAPS.contains(&name)
}

fn write(text: &mut String, value: &Value, named: bool) {
    match value {
        Value::Object(map) if map.is_empty() => *text += "[]",
        Value::Object(map) => {
            text.push('{');
            for (nth, (key, _, field)) in fields(map).into_iter().enumerate() {
                if nth > 0 {
                    text.push(' ');
                }
                if named {
                    *text += &key;
                    text.push(':');
                }
                match is_unset_map(&key, field) {
                    true => *text += "map[]",
                    false => write(text, field, named),
                }
            }
            text.push('}');
        }
        Value::Map(map) => {
            *text += "map[";
            for (nth, key) in sorted(map).into_iter().enumerate() {
                if nth > 0 {
                    text.push(' ');
                }
                *text += &key;
                text.push(':');
                write(text, &map[&key], named);
            }
            text.push(']');
        }
        Value::Array(list) => {
            text.push('[');
            for (nth, element) in list.iter().enumerate() {
                if nth > 0 {
                    text.push(' ');
                }
                write(text, element, named);
            }
            text.push(']');
        }
        // A String takes any write.
        other => drop(write!(text, "{other}")),
    }
}

/// The name by which [`print`] is called; no user's template has it.
pub(super) const PRINT: &str = "_print";

/// What is put behind each action that prints: `{{.State}}` → `{{.State|_print}}`.
pub(super) const PIPED: &str = "|_print";

/// The same for [`print_map`]; of the same length, so that places in the text are found alike.
pub(super) const PRINT_MAP: &str = "_prmap";
pub(super) const PIPED_MAP: &str = "|_prmap";

/// Words that begin an action which prints nothing by itself.
const KEYWORDS: &[&str] =
    &["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with", "nil"];

/// Sends the result of every action through [`print`]. Gives the new text, and where something was put in.
pub(super) fn printing(text: &str) -> (String, Insertions) {
    let (mut out, mut places) = (String::with_capacity(text.len() + 32), Vec::new());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let (before, action) = rest.split_at(start);
        out += before;
        let Some(length) = action_length(&action[2..]) else {
            rest = action;
            break;
        };
        let (inside, after) = action[2..].split_at(length);
        out += "{{";
        let body = inside.strip_suffix('-').filter(|body| body.ends_with([' ', '\t', '\n', '\r'])).unwrap_or(inside);
        if prints(body) {
            let end = body.trim_end().len();
            out += &body[..end];
            places.push(out.len());
            let field = body.trim().rsplit('.').next().unwrap_or_default();
            out += if UNSET_MAPS.contains(&field) { PIPED_MAP } else { PIPED };
            out += &inside[end..];
        } else {
            out += inside;
        }
        out += "}}";
        rest = &after[2..];
    }
    out += rest;
    (out, Insertions { places })
}

/// How far the closing braces of an action are; quotes and comments may hold braces too.
fn action_length(text: &str) -> Option<usize> {
    if text.trim_start_matches('-').trim_start().starts_with("/*") {
        let end = text.find("*/")?;
        return text[end..].find("}}").map(|at| end + at);
    }
    let mut quote = None;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match quote {
            Some('`') if letter == '`' => quote = None,
            Some('`') => {}
            Some(_) if letter == '\\' => drop(letters.next()),
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if ['"', '\'', '`'].contains(&letter) => quote = Some(letter),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

fn prints(body: &str) -> bool {
    let body = body.strip_prefix("- ").unwrap_or(body).trim_start();
    let word: String = body.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    let declares = || {
        let after = body.trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_' || letter == '$');
        let after = after.trim_start();
        body.starts_with('$') && (after.starts_with(":=") || after.starts_with('=') || after.starts_with(','))
    };
    !body.is_empty() && !body.starts_with("/*") && !KEYWORDS.contains(&word.as_str()) && !declares()
}

/// Where [`printing`] has put something in.
#[derive(Debug, Clone, Default)]
pub(super) struct Insertions {
    places: Vec<usize>,
}

impl Insertions {
    /// The place in the user's own text.
    pub fn original(&self, place: usize) -> usize {
        place - self.places.iter().filter(|at| **at + PIPED.len() <= place).count() * PIPED.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_that_print_are_piped_and_others_are_left() {
        let table = [
            ("{{.State}}", "{{.State|_print}}"),
            ("a {{- .Name -}} b", "a {{- .Name|_print -}} b"),
            ("{{if .A}}{{.B}}{{else if .C}}{{end}}", "{{if .A}}{{.B|_print}}{{else if .C}}{{end}}"),
            ("{{$x := 1}}{{$x}}{{$x = 2}}{{ $ }}", "{{$x := 1}}{{$x|_print}}{{$x = 2}}{{ $|_print }}"),
            ("{{range $k, $v := .A}}{{$k}}{{end}}", "{{range $k, $v := .A}}{{$k|_print}}{{end}}"),
            (r#"{{"}}"}}{{`"`}}"#, r#"{{"}}"|_print}}{{`"`|_print}}"#),
            ("{{/* }} */}}x{{- /* y */ -}}", "{{/* }} */}}x{{- /* y */ -}}"),
            ("{{.Name", "{{.Name"),
            ("{{}}{{ }}", "{{}}{{ }}"),
            ("{{ending}}", "{{ending|_print}}"),
            ("{{ .Config.Volumes -}}", "{{ .Config.Volumes|_prmap -}}"),
            (r#"{{"\"}}"}}"#, r#"{{"\"}}"|_print}}"#),
        ];
        for (text, expected) in table {
            assert_eq!(printing(text).0, expected);
        }
        let (text, places) = printing("{{.A}} {{.B}}");
        assert_eq!(places.original(text.find(".B").unwrap()), "{{.A}} {{".len());
    }
}
