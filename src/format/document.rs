//! A JSON document that keeps the order of its keys, as docker's structs have them, and that a template can walk.

use std::collections::BTreeMap;

use gtmpl_ng::Value;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::structs;

/// A value of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// Text, number or boolean; also whole JSON values that come from an image.
    Plain(serde_json::Value),
    /// A list.
    List(Vec<Document>),
    /// A list that was never set: `null` in JSON, an empty list to a template.
    NoList,
    /// A field that JSON leaves out when it is empty (Go's `omitempty`); a template finds the empty value.
    Omittable(Box<Document>),
    /// docker's structs: a fixed set of keys; asking for another is an error.
    Struct(Vec<(&'static str, Document)>),
    /// docker's maps: any keys; asking for another gives nothing. Sorted.
    Map(BTreeMap<String, Document>),
}

/// A [`Document::Struct`]: `object! { "Id": id, "Pid": 42 }`.
macro_rules! object {
    ($($key:literal: $value:expr),* $(,)?) => {
        $crate::format::document::Document::Struct(vec![$(($key, $crate::format::document::Document::from($value))),*])
    };
}
pub(crate) use object;

impl Document {
    /// A list that is `null` when it is empty, as docker's unset lists are.
    pub fn list_or_null(list: impl IntoIterator<Item = impl Into<Document>>) -> Document {
        let list: Vec<Document> = list.into_iter().map(Into::into).collect();
        if list.is_empty() { Document::NoList } else { Document::List(list) }
    }

    /// A field that JSON leaves out when it is empty.
    pub fn omittable(value: impl Into<Document>) -> Document {
        Document::Omittable(Box::new(value.into()))
    }

    fn is_empty(&self) -> bool {
        use serde_json::Value as Json;
        match self {
            Document::Plain(Json::Null | Json::Bool(false)) | Document::NoList => true,
            Document::Plain(Json::String(text)) => text.is_empty(),
            Document::Plain(Json::Number(number)) => number.as_f64() == Some(0.0),
            Document::Plain(Json::Array(list)) => list.is_empty(),
            Document::Plain(Json::Object(map)) => map.is_empty(),
            Document::Plain(_) | Document::Struct(_) => false,
            Document::List(list) => list.is_empty(),
            Document::Map(map) => map.is_empty(),
            Document::Omittable(inner) => inner.is_empty(),
        }
    }

    /// As a value of templates.
    pub fn to_value(&self) -> Value {
        match self {
            Document::Plain(json) => value(json),
            Document::List(list) => Value::Array(list.iter().map(Document::to_value).collect()),
            Document::NoList => structs::null_list(),
            Document::Omittable(inner) => inner.to_value(),
            Document::Struct(fields) => structs::value(fields.iter().map(|(key, field)| {
                let omittable = matches!(field, Document::Omittable(_));
                (structs::Field { name: key, omittable }, field.to_value())
            })),
            Document::Map(map) => Value::Map(map.iter().map(|(key, field)| (key.clone(), field.to_value())).collect()),
        }
    }
}

/// A JSON value as a template's value; objects are maps.
pub fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Nil,
        Json::Bool(yes) => Value::Bool(*yes),
        Json::String(text) => Value::String(text.clone()),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::from(number),
            (_, Some(number), _) => Value::from(number),
            (_, _, number) => Value::from(number.unwrap_or_default()),
        },
        Json::Array(list) => Value::Array(list.iter().map(value).collect()),
        Json::Object(map) => Value::Map(map.iter().map(|(key, field)| (key.clone(), value(field))).collect()),
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Document::Plain(json) => json.serialize(to),
            Document::List(list) => list.serialize(to),
            Document::NoList => to.serialize_unit(),
            Document::Omittable(inner) => inner.serialize(to),
            Document::Map(map) => map.serialize(to),
            Document::Struct(fields) => {
                let shown = |field: &Document| !matches!(field, Document::Omittable(inner) if inner.is_empty());
                let mut map = to.serialize_map(None)?;
                for (key, field) in fields.iter().filter(|(_, field)| shown(field)) {
                    map.serialize_entry(key, field)?;
                }
                map.end()
            }
        }
    }
}

impl<T: Into<Document>> From<Option<T>> for Document {
    fn from(value: Option<T>) -> Document {
        value.map_or(Document::Plain(serde_json::Value::Null), Into::into)
    }
}

impl<T: Into<Document>> From<Vec<T>> for Document {
    fn from(list: Vec<T>) -> Document {
        Document::List(list.into_iter().map(Into::into).collect())
    }
}

impl From<&BTreeMap<String, String>> for Document {
    fn from(map: &BTreeMap<String, String>) -> Document {
        Document::Map(map.iter().map(|(key, text)| (key.clone(), Document::from(text.as_str()))).collect())
    }
}

/// What serde_json takes by itself.
macro_rules! plain {
    ($($from:ty),*) => {
        $(impl From<$from> for Document {
            fn from(value: $from) -> Document {
                Document::Plain(serde_json::Value::from(value))
            }
        })*
    };
}
plain!(&str, String, bool, i32, i64, u32, u64, usize, u16, serde_json::Map<String, serde_json::Value>);

impl From<serde_json::Value> for Document {
    fn from(json: serde_json::Value) -> Document {
        Document::Plain(json)
    }
}

impl From<&std::path::Path> for Document {
    fn from(path: &std::path::Path) -> Document {
        Document::from(path.to_string_lossy().into_owned())
    }
}

impl From<&std::path::PathBuf> for Document {
    fn from(path: &std::path::PathBuf) -> Document {
        Document::from(path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_unset_lists_are_null() {
        let document = object! { "Z": 1, "A": "x", "L": Document::list_or_null(Vec::<String>::new()), "M": &BTreeMap::from([("k".to_owned(), "v".to_owned())]), "N": None::<bool> };
        assert_eq!(serde_json::to_string(&document).unwrap(), r#"{"Z":1,"A":"x","L":null,"M":{"k":"v"},"N":null}"#);
    }
}
