//! Small readers over JSON values that note a fault instead of stopping at it.

use serde_json::{Map, Value};

use super::fault::{Faults, Path, quoted, similar};
use crate::id::IdError;

/// The kind of a JSON value, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn wrong_type(path: &Path<'_>, value: &Value, wanted: &str, faults: &mut Faults) {
    faults.add(
        path,
        format!("is {}", kind(value)),
        format!("write {wanted}"),
    );
}

pub(crate) fn text<'a>(value: &'a Value, path: &Path<'_>, faults: &mut Faults) -> Option<&'a str> {
    if value.as_str().is_none() {
        wrong_type(path, value, "a text", faults);
    }
    value.as_str()
}

pub(crate) fn list<'a>(
    value: &'a Value,
    path: &Path<'_>,
    wanted: &str,
    faults: &mut Faults,
) -> &'a [Value] {
    match value {
        Value::Array(items) => items,
        _ => {
            wrong_type(path, value, wanted, faults);
            &[]
        }
    }
}

/// Makes an id of any kind of a text.
pub(crate) fn id<T>(
    text: &str,
    make: impl Fn(&str) -> Result<T, IdError>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<T> {
    match make(text) {
        Ok(id) => Some(id),
        Err(error) => {
            faults.add(
                path,
                format!("{} is not a name: it {error}", quoted(text)),
                "write 1 to 200 bytes of text without control characters or a leading `$`",
            );
            None
        }
    }
}

/// A list of names, each at most once, each with its place in the list.
pub(crate) fn ids<T>(
    value: &Value,
    make: impl Fn(&str) -> Result<T, IdError>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Vec<(usize, T)> {
    let mut seen = std::collections::BTreeSet::new();
    let mut ids = Vec::new();
    for (index, item) in list(value, path, "a list of node ids", faults)
        .iter()
        .enumerate()
    {
        let path = path.index(index);
        let Some(name) = text(item, &path, faults) else {
            continue;
        };
        if !seen.insert(name) {
            faults.add(
                path,
                format!("{} stands twice in the list", quoted(name)),
                "remove one of them",
            );
        } else if let Some(id) = id(name, &make, &path, faults) {
            ids.push((index, id));
        }
    }
    ids
}

/// The fields of an object. `null` counts as absent.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path<'a>,
}

impl<'a> Fields<'a> {
    /// The fields of `value`; notes a wrong type, and every field that is not in `known`.
    pub(crate) fn of(
        value: &'a Value,
        path: &'a Path<'a>,
        known: &[&'static str],
        faults: &mut Faults,
    ) -> Option<Self> {
        let fields = Self::open(value, path, faults)?;
        for name in fields.map.keys().filter(|n| !known.contains(&n.as_str())) {
            let like = faults.few().then(|| similar(name, known.iter().copied()));
            let cure = match like.flatten() {
                Some(like) => format!("did you mean `{like}`?"),
                None => format!("remove it; known fields are {}", known.join(", ")),
            };
            faults.add(path.key(name), "is not a field of the format", cure);
        }
        Some(fields)
    }

    /// The fields of `value`, any names allowed.
    pub(crate) fn open(value: &'a Value, path: &'a Path<'a>, faults: &mut Faults) -> Option<Self> {
        match value {
            Value::Object(map) => Some(Self { map, path }),
            _ => {
                wrong_type(path, value, "an object", faults);
                None
            }
        }
    }

    pub(crate) fn path(&self, key: &'a str) -> Path<'a> {
        self.path.key(key)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// The field as written: `null` is a value here.
    pub(crate) fn raw(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    pub(crate) fn text(&self, key: &'a str, faults: &mut Faults) -> Option<&'a str> {
        text(self.get(key)?, &self.path(key), faults)
    }

    pub(crate) fn flag(&self, key: &'a str, faults: &mut Faults) -> Option<bool> {
        let value = self.get(key)?;
        if value.as_bool().is_none() {
            wrong_type(&self.path(key), value, "true or false", faults);
        }
        value.as_bool()
    }

    /// A whole number from `least` to `most`.
    pub(crate) fn whole(
        &self,
        key: &'a str,
        least: u32,
        most: u32,
        faults: &mut Faults,
    ) -> Option<u32> {
        let value = self.get(key)?;
        let number = value
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| (least..=most).contains(n));
        if number.is_none() {
            let found = shown(value);
            let cure = format!("write a whole number from {least} to {most}");
            faults.add(self.path(key), format!("is {found}"), cure);
        }
        number
    }

    /// A number from `least` to `most`, fractions allowed.
    pub(crate) fn number(
        &self,
        key: &'a str,
        least: f64,
        most: f64,
        faults: &mut Faults,
    ) -> Option<f64> {
        let value = self.get(key)?;
        let number = value.as_f64().filter(|n| (least..=most).contains(n));
        if number.is_none() {
            let found = shown(value);
            let cure = format!("write a number from {least} to {most}; fractions are allowed");
            faults.add(self.path(key), format!("is {found}"), cure);
        }
        number
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        _ => kind(value).to_owned(),
    }
}
