//! Lines of the program.

use flowkit_core::json::Json;
use flowkit_core::message::Metrics;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
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
    ($($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            #[serde(rename = "kind")]
            _kind: IgnoredAny,
            $($(#[$attribute])* pub(super) $field: $type,)*
        }
    )*};
}

lines! {
    /// The protocol's version that the program speaks.
    Hello {
        protocol: u32,
    }
    /// A batch is done.
    BatchDone {
        batch_uid: String,
        #[serde(default)]
        artifact: Option<Json>,
        #[serde(default)]
        metrics: Metrics,
    }
    /// How far the batch in work is, for another attempt.
    Checkpoint {
        batch_uid: String,
        value: Json,
    }
    /// How far the batch in work is, to look at.
    Progress {
        done: u64,
        #[serde(default)]
        total: Option<u64>,
    }
    /// A line for the worker's log.
    Log {
        message: String,
        #[serde(default)]
        level: Level,
    }
    /// The attempt failed.
    Failed {
        message: String,
        #[serde(default)]
        code: Option<Arc<str>>,
        #[serde(default)]
        permanent: bool,
        #[serde(default)]
        retry_after_ms: Option<u64>,
    }
    /// The program ends because it was told to.
    Cancelled {}
    /// What the node gave, after `finalize`.
    Final {
        #[serde(default)]
        result: Option<Json>,
        #[serde(default)]
        metrics: Metrics,
    }
}

/// Of a line for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

/// The kinds, for errors.
const KINDS: &str = "hello, result, checkpoint, progress, log, error, cancelled, final";

/// Understands a line; the text says what is wrong with it.
pub(super) fn understand(line: &[u8]) -> Result<Said, String> {
    #[derive(Deserialize)]
    struct Any {
        kind: Option<String>,
    }
    let text = std::str::from_utf8(line)
        .map_err(|error| format!("is not UTF-8 (byte {})", error.valid_up_to()))?;
    let no_json = |error: &serde_json::Error| {
        if error.is_data() {
            "is no JSON object with a `kind`".to_owned()
        } else {
            format!(
                "is not JSON ({error}); what is meant for people goes to standard error, or into a \
                 `log` line"
            )
        }
    };
    if text.trim_start().starts_with('[') {
        return Err("is no JSON object with a `kind`".to_owned()); // a list would pass for one
    }
    let Any { kind } = serde_json::from_str(text).map_err(|error| no_json(&error))?;
    let Some(kind) = kind else {
        return Err(format!("has no `kind`; there are {KINDS}"));
    };
    match kind.as_str() {
        "hello" => of_kind(&kind, text, Said::Hello),
        "result" => of_kind(&kind, text, Said::Result),
        "checkpoint" => of_kind(&kind, text, Said::Checkpoint),
        "progress" => of_kind(&kind, text, Said::Progress),
        "log" => of_kind(&kind, text, Said::Log),
        "error" => of_kind(&kind, text, Said::Error),
        "cancelled" => of_kind(&kind, text, |Cancelled { .. }| Said::Cancelled),
        "final" => of_kind(&kind, text, Said::Final),
        _ => Err(format!("has an unknown `kind`; there are {KINDS}")),
    }
}

fn of_kind<T: DeserializeOwned>(
    kind: &str,
    text: &str,
    made: impl FnOnce(T) -> Said,
) -> Result<Said, String> {
    let line = serde_json::from_str(text);
    line.map(made)
        .map_err(|error| format!("of kind `{kind}` is not as it should be: {error}"))
}

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
            (b"[1,2]", "no JSON object"),
            (b"[\"hello\",1]", "no JSON object"),
            (b"7", "no JSON object"),
            (b"{}", "has no `kind`"),
            (b"{\"kind\":7}", "no JSON object with a `kind`"),
            (b"{\"kind\":\"reslut\"}", "unknown `kind`"),
            (b"{\"kind\":\"result\"}", "batch_uid"),
            (b"{\"kind\":\"result\",\"batch_uid\":7}", "of kind `result`"),
            (
                b"{\"kind\":\"result\",\"batch_uid\":\"b\",\"artefact\":1}",
                "artefact",
            ),
            (b"{\"kind\":\"progress\",\"done\":-1}", "of kind `progress`"),
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
