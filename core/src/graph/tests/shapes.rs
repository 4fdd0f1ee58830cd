//! Small graphs to put a fault into.

use serde_json::{Value, json};

use super::faults;

pub(super) fn with(mut into: Value, fields: Value) -> Value {
    let (Value::Object(map), Value::Object(fields)) = (&mut into, fields) else {
        panic!("two objects");
    };
    map.extend(fields);
    into
}

/// A graph of one node with more fields.
pub(super) fn one(fields: Value) -> Value {
    json!({"nodes": [with(json!({"node_id": "a", "type": "r"}), fields)]})
}

/// A graph of `a` and a node `b` that depends on it, with more fields of `b`.
pub(super) fn two(fields: Value) -> Value {
    let b = json!({"node_id": "b", "type": "r", "depends_on": ["a"]});
    json!({"nodes": [{"node_id": "a", "type": "r"}, with(b, fields)]})
}

/// Each graph has exactly this one fault.
pub(super) fn each(table: impl IntoIterator<Item = (Value, &'static str)>) {
    for (value, expected) in table {
        let text = value.to_string();
        let shown: String = text.chars().take(500).collect();
        assert_eq!(faults(value), [expected], "{shown}");
    }
}
