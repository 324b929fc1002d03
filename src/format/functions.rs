//! docker's template functions, beside those of Go itself.

use std::collections::BTreeMap;

use gtmpl_ng::{FuncError, Value};
use serde::{Serialize, Serializer};

use super::structs;

type Answer = Result<Value, FuncError>;
type Function = fn(&[Value]) -> Answer;

/// The functions of templates about data.
pub(super) const DATA: &[(&str, Function)] = &[
    ("json", json),
    ("split", split),
    ("join", join),
    ("title", |args| text1("title", args, title)),
    ("lower", |args| text1("lower", args, |text| text.to_lowercase())),
    ("upper", |args| text1("upper", args, |text| text.to_uppercase())),
    ("pad", pad),
    ("truncate", truncate),
    ("index", index),
    ("label", label),
    (structs::PRINT, structs::print),
    (structs::PRINT_MAP, structs::print_map),
    ("print", |args| gtmpl_ng::funcs::print(&structs::plain(args, false))),
    ("println", |args| gtmpl_ng::funcs::println(&structs::plain(args, false))),
    ("printf", printf),
];

/// The same names while the header of a table is made: they leave the header's words alone.
pub(super) const HEADER: &[(&str, Function)] = &[
    ("json", first),
    ("split", first),
    ("join", first),
    ("title", first),
    ("lower", first),
    ("upper", first),
    ("pad", pad),
    ("truncate", first),
    (structs::PRINT, structs::print),
    (structs::PRINT_MAP, structs::print_map),
    ("label", |args| Ok(args.get(1).cloned().unwrap_or(Value::NoValue))),
];

/// An error with a text of its own.
fn failed(why: impl Into<String>) -> FuncError {
    FuncError::Generic(why.into())
}

/// Go's sentence for a wrong number of arguments.
fn count(function: &str, args: &[Value], wanted: usize) -> Result<(), FuncError> {
    match args.len() == wanted {
        true => Ok(()),
        false => Err(failed(format!("wrong number of args for {function}: want {wanted} got {}", args.len()))),
    }
}

fn first(args: &[Value]) -> Answer {
    Ok(args.first().cloned().unwrap_or(Value::NoValue))
}

fn text<'a>(function: &str, args: &'a [Value], at: usize) -> Result<&'a str, FuncError> {
    match args.get(at) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(failed(format!("{function}: wrong type for value; expected string; got {other}"))),
        None => Err(failed(format!("wrong number of args for {function}"))),
    }
}

fn number(function: &str, args: &[Value], at: usize) -> Result<usize, FuncError> {
    match args.get(at) {
        Some(Value::Number(number)) => number
            .as_i64()
            .and_then(|number| usize::try_from(number).ok())
            // A template is a command-line argument: enough for any line, too little to fill the memory.
            .filter(|number| *number <= 65536)
            .ok_or_else(|| failed(format!("{function}: the number is out of range"))),
        _ => Err(failed(format!("{function}: a number is needed"))),
    }
}

fn text1(function: &str, args: &[Value], change: fn(&str) -> String) -> Answer {
    count(function, args, 1)?;
    Ok(Value::String(change(text(function, args, 0)?)))
}

/// Each word with a capital first letter.
fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|letter| {
            let was_start = start;
            start = !(letter.is_alphanumeric() || letter == '_' || letter == '\'');
            let upper: Vec<char> = if was_start { letter.to_uppercase().collect() } else { vec![letter] };
            upper
        })
        .collect()
}

fn split(args: &[Value]) -> Answer {
    count("split", args, 2)?;
    let (whole, separator) = (text("split", args, 0)?, text("split", args, 1)?);
    let parts: Vec<Value> = match separator {
        "" => whole.chars().map(|letter| Value::String(letter.to_string())).collect(),
        separator => whole.split(separator).map(|part| Value::String(part.to_owned())).collect(),
    };
    Ok(Value::Array(parts))
}

fn join(args: &[Value]) -> Answer {
    count("join", args, 2)?;
    if structs::is_null_list(&args[0]) {
        return Ok(Value::String(String::new()));
    }
    let Some(Value::Array(parts)) = args.first() else {
        return Err(failed("join: a list of strings is needed"));
    };
    let separator = text("join", args, 1)?;
    let parts = parts.iter().map(|part| match part {
        Value::String(text) => Ok(text.as_str()),
        other => Err(failed(format!("join: wrong type for value; expected string; got {other}"))),
    });
    Ok(Value::String(parts.collect::<Result<Vec<_>, _>>()?.join(separator)))
}

fn pad(args: &[Value]) -> Answer {
    count("pad", args, 3)?;
    let (whole, left, right) = (text("pad", args, 0)?, number("pad", args, 1)?, number("pad", args, 2)?);
    match whole {
        "" => Ok(Value::String(String::new())),
        whole => Ok(Value::String(format!("{}{whole}{}", " ".repeat(left), " ".repeat(right)))),
    }
}

fn truncate(args: &[Value]) -> Answer {
    count("truncate", args, 2)?;
    let (whole, length) = (text("truncate", args, 0)?, number("truncate", args, 1)?);
    Ok(Value::String(whole.chars().take(length).collect()))
}

/// Go's `index`, but a key that a map of strings doesn't have gives an empty string, as with docker's typed maps.
fn index(args: &[Value]) -> Answer {
    if let [Value::Map(map), Value::String(key)] = args
        && !map.contains_key(key)
    {
        let strings = map.values().all(|value| matches!(value, Value::String(_)));
        return Ok(if strings { Value::String(String::new()) } else { Value::NoValue });
    }
    let (lists, keys) = args.split_at(args.len().min(1));
    if let ([Value::Array(list)], [Value::Number(at), ..]) = (lists, keys)
        && at.as_i64().is_none_or(|at| usize::try_from(at).map_or(true, |at| at >= list.len()))
    {
        return Err(failed(format!("error calling index: index out of range: {at}")));
    }
    gtmpl_ng::funcs::index(args)
}

/// `{{.Label "key"}}` comes here as `{{label . "key"}}`: the engine has no methods with arguments.
fn label(args: &[Value]) -> Answer {
    let key = text("label", args, 1)?;
    match args.first() {
        Some(Value::Object(row)) => match row.get(super::rows::LABELS) {
            Some(Value::Map(labels)) => Ok(labels.get(key).cloned().unwrap_or(Value::String(String::new()))),
            _ => Err(failed("there are no labels here")),
        },
        _ => Err(failed("there are no labels here")),
    }
}

/// Go's, but structs and maps are printed as Go prints them; only `%v`, `%+v` and `%s` fit them.
fn printf(args: &[Value]) -> Answer {
    let named = matches!(args.first(), Some(Value::String(format)) if format.contains("%+v"));
    gtmpl_ng::funcs::printf(&structs::plain(args, named))
}

fn json(args: &[Value]) -> Answer {
    match args {
        [one] => Ok(Value::String(serde_json::to_string(&Json(one)).unwrap_or_default())),
        _ => Err(failed(format!("wrong number of args for json: want 1 got {}", args.len()))),
    }
}

/// A value that writes itself as JSON: structs in docker's order, maps sorted.
struct Json<'a>(&'a Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::NoValue | Value::Nil | Value::Function(_) => to.serialize_unit(),
            Value::Bool(yes) => to.serialize_bool(*yes),
            Value::String(text) => to.serialize_str(text),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(number), _, _) => to.serialize_i64(number),
                (_, Some(number), _) => to.serialize_u64(number),
                (_, _, number) => number.serialize(to),
            },
            Value::Array(list) => to.collect_seq(list.iter().map(Json)),
            Value::Object(map) if map.is_empty() => to.serialize_unit(),
            Value::Object(map) => {
                let shown = |key: &str, omittable: bool, field: &Value| {
                    key != super::rows::LABELS && !(omittable && structs::is_empty(field))
                };
                let fields = structs::fields(map);
                let fields = fields.into_iter().filter(|(key, omittable, field)| shown(key, *omittable, field));
                to.collect_map(fields.map(|(key, _, field)| (key, Json(field))))
            }
            Value::Map(map) => {
                let sorted: BTreeMap<&String, Json> = map.iter().map(|(key, field)| (key, Json(field))).collect();
                to.collect_map(sorted)
            }
        }
    }
}
