//! A JSON document that keeps the order of its keys, as docker's structs have them, and that a template can walk.

use std::collections::{BTreeMap, HashMap};

use gtmpl_ng::Value;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// A value of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// Text, number or boolean; also whole JSON values that come from an image.
    Plain(serde_json::Value),
    /// A list.
    List(Vec<Document>),
    /// A list that was never set: `null` in JSON, an empty list to a template.
    NoList,
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

    /// As a value of templates.
    pub fn to_value(&self) -> Value {
        match self {
            Document::Plain(json) => value(json),
            Document::List(list) => Value::Array(list.iter().map(Document::to_value).collect()),
            Document::NoList => Value::Array(Vec::new()),
            Document::Struct(fields) => {
                let mut fields: HashMap<String, Value> =
                    fields.iter().map(|(key, field)| ((*key).to_owned(), field.to_value())).collect();
                // In docker's templates both spellings work.
                if let (Some(id), false) = (fields.get("Id").cloned(), fields.contains_key("ID")) {
                    fields.insert("ID".to_owned(), id);
                }
                Value::Object(fields)
            }
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
            Document::Map(map) => map.serialize(to),
            Document::Struct(fields) => {
                let mut map = to.serialize_map(Some(fields.len()))?;
                for (key, field) in fields {
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
