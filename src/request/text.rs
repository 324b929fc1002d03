//! How bytes that need not be UTF-8 (arguments, paths, environment) are kept in JSON: as text, or as a list of bytes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Kept {
    Text(String),
    Bytes(Vec<u8>),
}

fn keep(value: &OsStr) -> Kept {
    match value.to_str() {
        Some(text) => Kept::Text(text.to_owned()),
        None => Kept::Bytes(value.as_bytes().to_vec()),
    }
}

fn restore(kept: Kept) -> OsString {
    match kept {
        Kept::Text(text) => text.into(),
        Kept::Bytes(bytes) => OsString::from_vec(bytes),
    }
}

/// For an `OsString` or a `PathBuf`.
pub mod one {
    use super::{Deserialize, Deserializer, Kept, OsStr, OsString, Serialize, Serializer, keep, restore};

    /// serde's `with` function.
    pub fn serialize<S: Serializer>(value: &impl AsRef<OsStr>, to: S) -> Result<S::Ok, S::Error> {
        keep(value.as_ref()).serialize(to)
    }

    /// serde's `with` function.
    pub fn deserialize<'de, D: Deserializer<'de>, T: From<OsString>>(from: D) -> Result<T, D::Error> {
        Kept::deserialize(from).map(|kept| restore(kept).into())
    }
}

/// For an `Option` of them.
pub mod option {
    use super::{Deserialize, Deserializer, Kept, OsStr, OsString, Serialize, Serializer, keep, restore};

    /// serde's `with` function.
    pub fn serialize<S: Serializer, T: AsRef<OsStr>>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|value| keep(value.as_ref())).serialize(to)
    }

    /// serde's `with` function.
    pub fn deserialize<'de, D: Deserializer<'de>, T: From<OsString>>(from: D) -> Result<Option<T>, D::Error> {
        Ok(Option::<Kept>::deserialize(from)?.map(|kept| restore(kept).into()))
    }
}

/// For a list of them.
pub mod list {
    use super::{Deserialize, Deserializer, Kept, OsStr, OsString, Serializer, keep, restore};

    /// serde's `with` function.
    pub fn serialize<S: Serializer, T: AsRef<OsStr>>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(|value| keep(value.as_ref())))
    }

    /// serde's `with` function.
    pub fn deserialize<'de, D: Deserializer<'de>, T: From<OsString>>(from: D) -> Result<Vec<T>, D::Error> {
        Ok(Vec::<Kept>::deserialize(from)?.into_iter().map(|kept| restore(kept).into()).collect())
    }
}
