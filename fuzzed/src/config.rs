//! Target `config`: files of settings, as the command's processes read them.

use flowkit::settings::{Given, Settings};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Settings whose values nobody may see.
const SECRETS: [&str; 2] = ["mongo_uri", "kafka_properties"];

/// Reads the text as a TOML and as a JSON file, and as variables of the environment. What is
/// accepted is accepted again as written out; no error shows a secret.
///
/// # Panics
/// On a finding.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    judge(file("a.toml", text));
    judge(file("a.json", text));
    let Ok(Value::Object(values)) = serde_json::from_str(text) else {
        return;
    };
    judge(variables(&values));
    let mut twin = values.clone();
    for key in SECRETS {
        if let Some(value) = twin.get_mut(key) {
            disguise(value);
        }
    }
    let error = |values: &Map<String, Value>| {
        let text = Value::Object(values.clone()).to_string();
        [file("a.json", &text).err(), variables(values).err()]
    };
    assert_eq!(error(&values), error(&twin), "an error shows a secret");
}

fn file(name: &str, text: &str) -> Result<Settings, String> {
    let mut given = Given::default();
    given.text(Path::new(name), text)?;
    given.settings()
}

fn variables(values: &Map<String, Value>) -> Result<Settings, String> {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let variables = values
        .iter()
        .map(|(key, value)| (format!("FLOWKIT_{}", key.to_uppercase()), text(value)));
    let mut given = Given::default();
    given.environment(variables);
    given.settings()
}

/// Another value of the same shape.
fn disguise(value: &mut Value) {
    match value {
        Value::Null => {}
        Value::Bool(old) => *old = !*old,
        Value::Number(old) => {
            *value = match (old.as_u64(), old.as_i64()) {
                (Some(number), _) => json!(number ^ 1),
                (None, Some(number)) => json!(number ^ 1),
                (None, None) => json!(old.as_f64().map_or(0.5, |number| number / 3.0)),
            }
        }
        // A text that happens to be JSON stays such a text in a variable of the environment.
        Value::String(old) => match serde_json::from_str::<Value>(old) {
            Ok(mut inner) => {
                disguise(&mut inner);
                *old = inner.to_string();
            }
            // Empty is no other value: it means that none is given.
            Err(_) if old.is_empty() => {}
            Err(_) => old.push('x'),
        },
        Value::Array(items) => items.iter_mut().for_each(disguise),
        Value::Object(fields) => fields.values_mut().for_each(disguise),
    }
}

fn judge(settings: Result<Settings, String>) {
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => {
            assert!(!error.is_empty());
            return;
        }
    };
    let mut all = Map::new();
    for part in [
        serde_json::to_value(&settings.fleet),
        serde_json::to_value(&settings.worker),
        serde_json::to_value(&settings.coordinator),
    ] {
        if let Ok(Value::Object(part)) = part {
            all.extend(part);
        }
    }
    let text = Value::Object(all).to_string();
    // A length of leases that is the coordinators' by default was not given to workers.
    let lease_ttl_sec = settings.worker.lease_ttl_sec;
    let again = file("a.json", &text).map(|mut again| {
        again.worker.lease_ttl_sec = lease_ttl_sec;
        again
    });
    assert_eq!(again, Ok(settings), "accepted once only");
}

/// Every setting, with its default where that says something.
#[must_use]
pub fn donor(_number: u32) -> Value {
    let mut all = Map::new();
    if let Ok(settings) = Given::default().settings() {
        for part in [
            serde_json::to_value(&settings.fleet),
            serde_json::to_value(&settings.worker),
            serde_json::to_value(&settings.coordinator),
        ] {
            if let Ok(Value::Object(part)) = part {
                all.extend(part);
            }
        }
    }
    all.insert("roles".to_owned(), json!(["scan", "echo"]));
    let properties = json!({"security.protocol": "SASL_SSL", "sasl.password": "geheim"});
    all.insert("kafka_properties".to_owned(), properties);
    let limits = json!({
        "running_max": 100,
        "types": {"ocr": {"running_max": 4}},
        "keys": {"api.example.org": {"starts_max": 10, "window_ms": 60_000}},
        "key_default": {"running_max": 2},
    });
    all.insert("limits".to_owned(), limits);
    all.insert("retention_finished_sec".to_owned(), json!(604_800.0));
    all.insert("retention_failed_sec".to_owned(), json!(2_592_000.0));
    Value::Object(all)
}
