//! A JSON value of a user, carried as text and not looked into.

mod limits;

pub use limits::{JSON_DEPTH_MAX, check_value};
pub(crate) use limits::{Limits, breaks};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;

/// One JSON value as compact text. Cheap to clone; the engine moves it unparsed.
///
/// In JSON it is embedded as the value itself, in binary records as its text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json(Arc<str>);

impl Json {
    /// The JSON value `null`.
    #[must_use]
    pub fn null() -> Self {
        Self(Arc::from("null"))
    }

    /// Checks that the text is one JSON value.
    ///
    /// # Errors
    /// The JSON error with its line and column.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let raw: &RawValue = serde_json::from_str(text)?;
        Ok(Self(Arc::from(raw.get())))
    }

    /// Encodes a value.
    ///
    /// # Errors
    /// When the value has no JSON form (a map whose keys are not text, for instance).
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        Ok(Self(Arc::from(serde_json::to_string(value)?)))
    }

    /// Decodes into a type.
    ///
    /// # Errors
    /// When the value does not have the shape of `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }

    /// The value as JSON text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Length of the text in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never true: JSON text is not empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::null()
    }
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        // Faster than to print it, which goes through a formatter.
        let text = serde_json::to_string(&value);
        Self(Arc::from(
            text.expect("a `Value` has text keys and finite numbers only"),
        ))
    }
}

/// Reads an optional value of a user that is there: `null` is a value he saved, not an absence.
///
/// For messages, which leave absent fields out; with `#[serde(default)]` beside it.
pub(crate) fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Json>, D::Error> {
    if d.is_human_readable() {
        Json::deserialize(d).map(Some)
    } else {
        Option::deserialize(d)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            let raw: &RawValue =
                serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
            raw.serialize(s)
        } else {
            s.serialize_str(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            Ok(Self(Arc::from(Box::<RawValue>::deserialize(d)?.get())))
        } else {
            Ok(Self(Arc::from(String::deserialize(d)?)))
        }
    }
}
