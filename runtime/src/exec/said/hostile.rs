//! Lines of any kind: none panics, and what is not understood is named.

use proptest::prelude::*;
use serde_json::Value;

use super::understand;

type Fits = fn(&Value) -> bool;
/// A field's name, whether it must be there, and what fits it.
type Known = (&'static str, bool, Fits);

const ANY: Fits = |_| true;
const TEXT: Fits = Value::is_string;
const TEXT_OR_NULL: Fits = |value| value.is_string() || value.is_null();
const COUNT: Fits = Value::is_u64;
const COUNT_OR_NULL: Fits = |value| value.is_u64() || value.is_null();

/// The protocol's page, once more: every kind and its fields.
const PAGE: &[(&str, &[Known])] = &[
    (
        "hello",
        &[("protocol", true, |value| {
            value.as_u64().is_some_and(|n| n <= u64::from(u32::MAX))
        })],
    ),
    (
        "result",
        &[
            ("batch_uid", true, TEXT),
            ("artifact", false, ANY),
            ("metrics", false, Value::is_object),
        ],
    ),
    (
        "checkpoint",
        &[("batch_uid", true, TEXT), ("value", true, ANY)],
    ),
    (
        "progress",
        &[("done", true, COUNT), ("total", false, COUNT_OR_NULL)],
    ),
    (
        "log",
        &[
            ("message", true, TEXT),
            ("level", false, |value| {
                ["error", "warn", "info", "debug"]
                    .map(Value::from)
                    .contains(value)
            }),
        ],
    ),
    (
        "error",
        &[
            ("message", true, TEXT),
            ("code", false, TEXT_OR_NULL),
            ("permanent", false, Value::is_boolean),
            ("retry_after_ms", false, COUNT_OR_NULL),
        ],
    ),
    ("cancelled", &[]),
    (
        "final",
        &[("result", false, ANY), ("metrics", false, Value::is_object)],
    ),
];

/// What is wrong with the fields of a line of a kind, by the page.
fn at_fault(known: &[Known], fields: &[(String, Value)]) -> Vec<String> {
    let named = |name: &str| known.iter().find(|(field, ..)| *field == name);
    let count = |name: &str| fields.iter().filter(|(field, _)| field == name).count();
    let wrong = fields.iter().filter(|(name, value)| {
        let fits = named(name).is_some_and(|(_, _, fits)| fits(value));
        !fits || count(name) > 1
    });
    let wrong = wrong.map(|(name, _)| name.clone());
    let missing = known
        .iter()
        .filter(|(name, must, _)| *must && count(name) == 0);
    let missing = missing.map(|(name, ..)| (*name).to_owned());
    wrong.chain(missing).collect()
}

fn value() -> impl Strategy<Value = Value> {
    let numbers = vec![0, 1, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(numbers).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}|error|warn|info|debug|fatal".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(serde_json::json!([1, {"a": [null]}])),
        Just(serde_json::json!({"pages": 1, "lang": "de"})),
    ]
}

fn fields() -> impl Strategy<Value = Vec<(String, Value)>> {
    let known: Vec<&str> = PAGE
        .iter()
        .flat_map(|(_, fields)| fields.iter().map(|(name, ..)| *name))
        .collect();
    let name = prop_oneof![
        9 => prop::sample::select(known).prop_map(str::to_owned),
        1 => "[a-z_\u{1b}\n\"]{0,400}",
    ];
    prop::collection::vec((name, value()), 0..5)
}

/// A line of a kind, in most cases with the fields that it must have.
fn line() -> impl Strategy<Value = (usize, Vec<(String, Value)>)> {
    (0..PAGE.len(), any::<[bool; 3]>(), fields()).prop_map(|(kind, with, mut fields)| {
        let must = PAGE[kind].1.iter().filter(|(_, must, _)| *must);
        for ((name, ..), _) in must.zip(with).filter(|(_, with)| *with) {
            let value = match *name {
                "protocol" | "done" => Value::from(1),
                _ => Value::from("b"),
            };
            fields.retain(|(field, _)| field != name);
            fields.push(((*name).to_owned(), value));
        }
        fields.retain(|(field, _)| field != "kind");
        (kind, fields)
    })
}

fn is_clear(why: &str) {
    assert!(why.chars().count() <= 301, "{why}");
    assert!(!why.chars().any(char::is_control), "{why:?}");
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_is_wrong_is_said_shortly(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Err(why) = understand(&bytes) {
            is_clear(&why);
        }
    }

    #[test]
    fn a_line_is_understood_if_it_is_as_the_page_says_and_else_a_field_is_named(
        (kind, fields) in line(),
        at in any::<prop::sample::Index>(),
    ) {
        let (kind, known) = PAGE[kind];
        let mut parts: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
            .collect();
        parts.insert(at.index(parts.len() + 1), format!("\"kind\":\"{kind}\""));
        let line = format!("{{{}}}", parts.join(","));
        let faults = at_fault(known, &fields);
        match understand(line.as_bytes()) {
            Ok(said) => prop_assert!(faults.is_empty(), "{line}: {said:?}, and {faults:?}"),
            Err(why) => {
                is_clear(&why);
                // A long name is shown by its beginning.
                let names = |fault: &String| {
                    let start: String = fault.chars().take(30).collect();
                    let quoted = format!("{start:?}");
                    why.contains(&quoted[..quoted.len() - 1]) || why.contains(&format!("`{start}`"))
                };
                prop_assert!(faults.iter().any(names), "{line}: {why}, and {faults:?}");
            }
        }
    }
}
