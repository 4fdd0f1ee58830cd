//! Lines of the program.

use flowkit_core::json::Json;
use flowkit_core::message::Metrics;
use serde::Deserialize;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A line of the program, understood.
#[derive(Debug)]
pub(super) enum Said {
    Hello(Hello),
    Result(BatchDone),
    Checkpoint(Checkpoint),
    Progress(Progress),
    Log(Log),
    Error(Failed),
    Cancelled,
    Final(Final),
}

macro_rules! lines {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty $(= $default:expr)?,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name {
            $(pub(super) $field: $type,)*
        }

        impl OfFields for $name {
            const NAMES: &[&str] = &[$(stringify!($field)),*];

            #[allow(unused_variables, reason = "one kind has no fields")]
            fn read(fields: &mut Fields<'_>) -> Result<Self, String> {
                Ok(Self {
                    $($field: match fields.take(stringify!($field))? {
                        Some(value) => value,
                        None => lines!(@absent $field $(= $default)?),
                    },)*
                })
            }
        }
    )*};
    (@absent $field:ident) => {
        return Err(format!("lacks the field `{}`", stringify!($field)))
    };
    (@absent $field:ident = $default:expr) => {
        $default
    };
}

lines! {
    /// The protocol's version that the program speaks.
    Hello {
        protocol: u32,
    }
    /// A batch is done.
    BatchDone {
        batch_uid: String,
        artifact: Option<Json> = None,
        metrics: Metrics = Metrics::new(),
    }
    /// How far the batch in work is, for another attempt.
    Checkpoint {
        batch_uid: String,
        value: Json,
    }
    /// How far the batch in work is, to look at.
    Progress {
        done: u64,
        total: Option<u64> = None,
    }
    /// A line for the worker's log.
    Log {
        message: String,
        level: Level = Level::Info,
    }
    /// The attempt failed.
    Failed {
        message: String,
        code: Option<Arc<str>> = None,
        permanent: bool = false,
        retry_after_ms: Option<u64> = None,
    }
    /// The program ends because it was told to.
    Cancelled {}
    /// What the node gave, after `finalize`.
    Final {
        result: Option<Json> = None,
        metrics: Metrics = Metrics::new(),
    }
}

/// Of a line for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// The kinds, for errors.
const KINDS: &str = "hello, result, checkpoint, progress, log, error, cancelled, final";

/// A kind of line, made of its fields.
trait OfFields: Sized {
    const NAMES: &[&str];

    fn read(fields: &mut Fields<'_>) -> Result<Self, String>;
}

/// The fields of a line, unread. None is there twice.
struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl Fields<'_> {
    /// Reads a field; errors name it.
    fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, String> {
        let field = self.0.remove(name);
        let read = field.map(|value| serde_json::from_str(value.get()));
        read.transpose()
            .map_err(|error| format!("has a wrong `{name}`: {error}"))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(line: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = BTreeMap<String, &'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, _>()? {
                    if fields.contains_key(&name) {
                        let text = format_args!("the field {name:?} is there twice");
                        return Err(serde::de::Error::custom(text));
                    }
                    fields.insert(name, value);
                }
                Ok(fields)
            }
        }

        line.deserialize_map(Object).map(Fields)
    }
}

/// Longest text about what is wrong with a line, in characters: it may hold what the line does.
const WRONG_CHARS_MAX: usize = 300;

/// Understands a line; the text says what is wrong with it.
pub(super) fn understand(line: &[u8]) -> Result<Said, String> {
    read(line).map_err(|why| match why.char_indices().nth(WRONG_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &why[..end]),
        None => why,
    })
}

fn read(line: &[u8]) -> Result<Said, String> {
    let text = std::str::from_utf8(line)
        .map_err(|error| format!("is not UTF-8 (byte {})", error.valid_up_to()))?;
    let mut fields: Fields<'_> = serde_json::from_str(text).map_err(|error| no_line(&error))?;
    let kind: Option<String> = fields.take("kind")?;
    let Some(kind) = kind else {
        return Err(format!("has no `kind`; there are {KINDS}"));
    };
    match kind.as_str() {
        "hello" => of_kind(&kind, fields, Said::Hello),
        "result" => of_kind(&kind, fields, Said::Result),
        "checkpoint" => of_kind(&kind, fields, Said::Checkpoint),
        "progress" => of_kind(&kind, fields, Said::Progress),
        "log" => of_kind(&kind, fields, Said::Log),
        "error" => of_kind(&kind, fields, Said::Error),
        "cancelled" => of_kind(&kind, fields, |Cancelled {}| Said::Cancelled),
        "final" => of_kind(&kind, fields, Said::Final),
        _ => Err(format!("has an unknown `kind`; there are {KINDS}")),
    }
}

fn no_line(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => format!("is no line of the protocol: {error}"),
        _ => format!(
            "is not JSON ({error}); what is meant for people goes to standard error, or into a \
             `log` line"
        ),
    }
}

fn of_kind<T: OfFields>(
    kind: &str,
    mut fields: Fields<'_>,
    made: impl FnOnce(T) -> Said,
) -> Result<Said, String> {
    let line = T::read(&mut fields).map_err(|why| format!("of kind `{kind}` {why}"))?;
    match fields.0.keys().next() {
        None => Ok(made(line)),
        Some(unknown) => Err(format!(
            "of kind `{kind}` has an unknown field {unknown:?}; there are {}",
            T::NAMES.join(", ")
        )),
    }
}

#[cfg(test)]
mod hostile;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_understood_with_its_least_and_its_most() {
        for (line, expected) in [
            (r#"{"kind":"cancelled"}"#, "Cancelled"),
            (r#"{"protocol":1,"kind":"hello"}"#, "protocol: 1"),
            (r#"{"kind":"result","batch_uid":"b"}"#, "artifact: None"),
            (
                r#"{"kind":"result","batch_uid":"b","artifact":{"a":[1]},"metrics":{"n":1}}"#,
                r#"{"a":[1]}"#,
            ),
            (r#"{"kind":"checkpoint","batch_uid":"b","value":7}"#, "7"),
            (
                r#"{"kind":"progress","done":3,"total":9}"#,
                "total: Some(9)",
            ),
            (r#"{"kind":"log","message":"hi"}"#, "level: Info"),
            (r#"{"kind":"log","message":"hi","level":"warn"}"#, "Warn"),
            (r#"{"kind":"error","message":"no"}"#, "permanent: false"),
            (
                r#"{"kind":"error","message":"no","code":"c","permanent":true,"retry_after_ms":5}"#,
                "retry_after_ms: Some(5)",
            ),
            (r#"{"kind":"final","result":{"sum":1}}"#, r#"{"sum":1}"#),
        ] {
            let said = understand(line.as_bytes()).unwrap();
            let shown = format!("{said:?}").replace("\\\"", "\"");
            assert!(shown.contains(expected), "{line}: {shown}");
        }
    }

    #[test]
    fn a_line_that_is_not_understood_says_what_is_wrong() {
        for (line, part) in [
            (&b"Loading model..."[..], "is not JSON"),
            (b"{\"kind\":\"result\"", "is not JSON"),
            (b"[1,2]", "expected a JSON object"),
            (b"[\"hello\",1]", "expected a JSON object"),
            (b"7", "expected a JSON object"),
            (b"{}", "has no `kind`"),
            (b"{\"kind\":7}", "has a wrong `kind`"),
            (b"{\"kind\":\"reslut\"}", "unknown `kind`"),
            (
                b"{\"kind\":\"result\"}",
                "of kind `result` lacks the field `batch_uid`",
            ),
            (
                b"{\"kind\":\"result\",\"batch_uid\":7}",
                "of kind `result` has a wrong `batch_uid`: invalid type: integer",
            ),
            (
                b"{\"kind\":\"log\",\"message\":\"a\",\"message\":\"b\"}",
                "the field \"message\" is there twice",
            ),
            (
                b"{\"kind\":\"result\",\"batch_uid\":\"b\",\"artefact\":1}",
                "unknown field \"artefact\"; there are batch_uid, artifact, metrics",
            ),
            (
                b"{\"kind\":\"progress\",\"done\":-1}",
                "of kind `progress` has a wrong `done`: invalid value: integer `-1`",
            ),
            (
                b"{\"kind\":\"log\",\"message\":\"\xff\"}",
                "is not UTF-8 (byte 25)",
            ),
        ] {
            let text = understand(line).unwrap_err();
            assert!(text.contains(part), "{text}");
        }
    }
}
