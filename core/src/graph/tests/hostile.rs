//! JSON of any origin gives a graph or faults, never a panic.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::parse;
use crate::graph::{FAULTS_MAX, Graph, GraphOptions, generate};
use crate::json::Json;

/// Any JSON, with names of the format among its keys and texts so that it gets deep into it.
fn values() -> impl Strategy<Value = Value> {
    let words = prop::sample::select(vec![
        "",
        "a",
        "b",
        "nodes",
        "node_id",
        "type",
        "depends_on",
        "fan_in",
        "all",
        "any",
        "count:2",
        "count:99999999999",
        "retry_policy",
        "max",
        "backoff_sec",
        "permanent_on",
        "routing",
        "on_success",
        "on_failure",
        "io",
        "input_inline",
        "input_adapter",
        "input_args",
        "pull.from_artifacts",
        "pull.from_artifacts.rechunk:size",
        "from_nodes",
        "from_node",
        "size",
        "start_when",
        "first_batch",
        "edges",
        "edges_ex",
        "from",
        "to",
        "mode",
        "async",
        "trigger",
        "on_batch",
        "schema_version",
        "when",
        "coordinator_fn",
        "$set",
        "\u{0}",
        "ünïcödé-🦀",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        words.clone().prop_map(Value::from),
        ".{0,10}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((words.clone(), inner), 0..6).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
            }),
        ]
    })
}

/// Puts `value` at the place that `path` leads to.
fn plant(into: &mut Value, path: &[prop::sample::Index], value: Value) {
    let next = match into {
        _ if path.is_empty() => None,
        Value::Array(items) if !items.is_empty() => {
            let at = path[0].index(items.len());
            items.get_mut(at)
        }
        Value::Object(map) if !map.is_empty() => {
            let at = path[0].index(map.len());
            map.values_mut().nth(at)
        }
        _ => None,
    };
    match next {
        Some(place) => plant(place, &path[1..], value),
        None => *into = value,
    }
}

fn fine(outcome: Result<Graph, Vec<crate::graph::Fault>>) {
    match outcome {
        Ok(graph) => {
            let order = graph.plan().topological_order();
            assert_eq!(order.len(), graph.nodes().len());
        }
        Err(faults) => {
            assert!(!faults.is_empty() && faults.len() <= FAULTS_MAX + 1);
            for fault in faults {
                let parts = [&fault.path, &fault.problem, &fault.cure];
                assert!(parts.iter().all(|p| !p.is_empty()), "{fault:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_json(value in values()) {
        fine(parse(value));
    }

    #[test]
    fn any_json_as_the_nodes(nodes in prop::collection::vec(values(), 0..4), edges in values()) {
        fine(parse(json!({"nodes": nodes, "edges": edges})));
    }

    #[test]
    fn a_valid_graph_with_something_else_in_one_place(
        draws in prop::collection::vec(any::<u64>(), 64),
        path in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        value in values(),
    ) {
        let mut at = 0;
        let mut draw = |bound| {
            at += 1;
            draws[at % draws.len()].wrapping_mul(at as u64 | 1) % bound
        };
        let mut graph = generate(&mut draw, &GraphOptions::default());
        plant(&mut graph, &path, value);
        fine(parse(graph));
    }

    #[test]
    fn any_text_that_passes_for_json(text in r#"[\[\]{}",:a-c0-9eE.$\\-]{0,60}"#) {
        if let Ok(json) = Json::parse(&text) {
            fine(Graph::parse(&json));
        }
    }
}
