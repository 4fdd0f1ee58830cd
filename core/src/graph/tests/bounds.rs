//! Sizes: of a graph, of what starts its nodes, of the list of its faults.

use serde_json::{Value, json};

use super::shapes::{each, one};
use super::{faults, graph, parse};
use crate::graph::{FAULTS_MAX, GRAPH_BYTES_MAX, GRAPH_NODES_MAX};

#[test]
fn size_is_bounded() {
    let nodes = |count: usize| -> Vec<Value> {
        (0..count)
            .map(|n| json!({"node_id": format!("n{n}"), "type": "r"}))
            .collect()
    };
    graph(json!({"nodes": nodes(GRAPH_NODES_MAX)}));
    each([
        (
            json!({"nodes": nodes(GRAPH_NODES_MAX + 1)}),
            "nodes: holds 10001 nodes; at most 10000: split the graph into several tasks",
        ),
        (
            one(json!({"io": {"input_ref": "x".repeat(GRAPH_BYTES_MAX - 54)}})),
            "graph: it has 1044486 bytes of JSON; \
             make it smaller; large data belongs into artifacts or files",
        ),
        (
            one(json!({"io": {"input_ref": "x".repeat(900_000)}})),
            "nodes[0]: its input and its 0 parents need 900002 bytes; \
             at most 819200: shrink the input, or join parents in between",
        ),
    ]);
}

#[test]
fn the_largest_fan_in_is_allowed() {
    let names: Vec<String> = (1..GRAPH_NODES_MAX).map(|n| format!("n{n}")).collect();
    let mut nodes: Vec<Value> = names
        .iter()
        .map(|n| json!({"node_id": n, "type": "r"}))
        .collect();
    nodes.push(
        json!({"node_id": "join", "type": "r", "depends_on": names, "io": {
        "input_inline": {"input_adapter": "pull.from_artifacts",
            "input_args": {"from_nodes": names[..8_000]}}}}),
    );
    let plan = graph(json!({"nodes": nodes})).plan();
    let join = plan.node(GRAPH_NODES_MAX - 1);
    assert_eq!(
        (join.parents.len(), join.reads.len()),
        (GRAPH_NODES_MAX - 1, 8_000)
    );
}

#[test]
fn all_faults_are_listed_at_once() {
    let found = faults(json!({
        "nodes": [
            {"node_id": "a", "type": "r", "fan_in": "some", "depends_on": ["c"]},
            {"type": "r", "retry_policy": {"max": 0}},
            {"node_id": "c", "type": "r", "depends_on": ["a", "x"], "fan_in": "count:9"},
        ],
        "edges": [["a", "nowhere"]],
        "extra": true,
    }));
    let paths: Vec<&str> = found
        .iter()
        .filter_map(|f| f.split_once(": ").map(|(path, _)| path))
        .collect();
    assert_eq!(
        paths,
        [
            "extra",
            "nodes[0].fan_in",
            "nodes[1]",
            "nodes[1].retry_policy.max",
            "nodes[2].depends_on[1]",
            "edges[0]",
            "nodes[0]",
            "nodes[2].fan_in",
        ]
    );
}

#[test]
fn a_flood_of_faults_is_cut_and_counted() {
    let nodes: Vec<Value> = (0..3000)
        .map(|n| json!({"node_id": format!("n{n}"), "type": "r", "depends_on": ["gone"]}))
        .collect();
    let found = parse(json!({"nodes": nodes})).expect_err("faults");
    assert_eq!(found.len(), FAULTS_MAX + 1);
    assert_eq!(
        found[FAULTS_MAX].to_string(),
        "graph: 2500 more faults are not listed; mend these first"
    );
}

#[test]
fn the_faults_of_any_graph_fit_into_a_reply() {
    // Long names of wide characters, each in a cycle of its own with another.
    let name = |n: usize| format!("{}{n}", "🦀".repeat(45));
    let nodes: Vec<Value> = (0..1200)
        .map(|n| json!({"node_id": name(n), "type": "r", "depends_on": [name(n ^ 1)]}))
        .collect();
    let found = parse(json!({"nodes": nodes})).expect_err("faults");
    let bytes: usize = found.iter().map(|f| f.to_string().len()).sum();
    assert!(bytes < 300_000, "{bytes}");
    assert!(
        found[found.len() - 1]
            .problem
            .ends_with("more faults are not listed")
    );
    // Deep paths of long keys.
    let mut value = json!({"$a": 1, "$b": 2});
    for _ in 0..50 {
        value = json!({"🦀".repeat(100): value});
    }
    let found = parse(one(json!({"io": {"input_inline": value}}))).expect_err("faults");
    assert_eq!(found.len(), 2);
    assert!(
        found
            .iter()
            .all(|f| f.path.len() < 1000 && f.path.ends_with('…'))
    );
}
