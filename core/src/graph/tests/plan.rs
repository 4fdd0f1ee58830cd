//! What a graph compiles to.

use serde_json::json;

use super::graph;
use crate::graph::{ChildEdge, EdgeCondition, FanIn, ParentEdge, RetryPolicy};
use crate::id::NodeId;

fn success(node: usize) -> ParentEdge {
    ParentEdge {
        node,
        when: EdgeCondition::Success,
        first_batch: false,
    }
}

#[test]
fn a_bare_node_gets_the_defaults_of_the_format() {
    let plan = graph(json!({"nodes": [{"node_id": "a", "type": "echo"}]})).plan();
    let node = plan.node(0);
    assert_eq!(node.fan_in, FanIn::All);
    assert_eq!(node.retry, RetryPolicy::default());
    assert_eq!(
        (node.retry.max, node.retry.backoff_ms, node.retry.losses_max),
        (2, 300_000, 20)
    );
    let permanent: Vec<&str> = node.retry.permanent_on.iter().map(|c| &**c).collect();
    assert_eq!(permanent, ["bad_input", "schema_mismatch"]);
    assert_eq!(node.input.text(), "{}");
    assert!(node.adapter.is_none() && !node.streaming && node.parents.is_empty());
}

#[test]
fn null_is_an_absent_field() {
    let bare = graph(json!({"nodes": [{"node_id": "a", "type": "echo"}]}));
    let nulls = graph(json!({
        "schema_version": null, "edges": null, "edges_ex": null,
        "nodes": [{"node_id": "a", "type": "echo", "depends_on": null, "fan_in": null,
            "retry_policy": null, "routing": null, "when": null, "io": {"input_ref": null,
            "input_inline": null, "batching": null, "start_when": null, "fn": null}}],
    }));
    assert_eq!(bare, nulls);
}

#[test]
fn retry_policy_keeps_fractions_and_zero() {
    for (seconds, millis) in [
        (json!(0), 0),
        (json!(0.05), 50),
        (json!(0.07), 70),
        (json!(0.0001), 1),
        (json!(2), 2000),
    ] {
        let plan = graph(json!({"nodes": [{"node_id": "a", "type": "echo",
            "retry_policy": {"max": 1, "backoff_sec": seconds, "permanent_on": [],
            "losses_max": 3}}]}))
        .plan();
        let retry = &plan.node(0).retry;
        assert_eq!(
            (retry.max, retry.backoff_ms, retry.losses_max),
            (1, millis, 3)
        );
        assert!(retry.permanent_on.is_empty());
    }
}

#[test]
fn all_ways_to_name_a_parent_are_one_edge_and_a_batch_edge_makes_it_stream() {
    let plan = graph(json!({
        "nodes": [
            {"node_id": "a", "type": "r", "routing": {"on_success": ["c"]}},
            {"node_id": "b", "type": "r"},
            {"node_id": "c", "type": "r", "depends_on": ["b", "a"]},
        ],
        "edges": [["a", "c"], ["a", "b"]],
        "edges_ex": [{"from": "a", "to": "c", "mode": "async", "trigger": "on_batch"}],
    }))
    .plan();
    let streaming = ParentEdge {
        first_batch: true,
        ..success(0)
    };
    assert_eq!(plan.node(2).parents, [success(1), streaming]);
    assert!(plan.node(2).streaming);
    assert_eq!(plan.node(1).parents, [success(0)]);
    assert_eq!(
        plan.node(0).children,
        [
            ChildEdge { node: 1, slot: 0 },
            ChildEdge { node: 2, slot: 1 }
        ]
    );
    assert_eq!(plan.node(0).on_success, [2]);
    assert_eq!(plan.topological_order(), [0, 1, 2]);
}

#[test]
fn first_batch_concerns_every_success_edge_but_no_failure_edge() {
    let plan = graph(json!({
        "nodes": [
            {"node_id": "a", "type": "r", "routing": {"on_failure": ["c"]}},
            {"node_id": "b", "type": "r"},
            {"node_id": "c", "type": "r", "depends_on": ["b"], "io": {"start_when": "first_batch"}},
        ],
    }))
    .plan();
    let streaming = ParentEdge {
        first_batch: true,
        ..success(1)
    };
    let on_failure = ParentEdge {
        when: EdgeCondition::Failure,
        ..success(0)
    };
    assert_eq!(plan.node(2).parents, [streaming, on_failure]);
    assert_eq!(plan.node(0).on_failure, [2]);
    assert_eq!(plan.node(0).children, [ChildEdge { node: 2, slot: 1 }]);
}

#[test]
fn a_reader_knows_its_sources_and_carries_its_input() {
    let plan = graph(json!({
        "schema_version": "1.0",
        "nodes": [
            {"node_id": "z", "type": "r", "io": {"input_ref": {"id": 9_007_199_254_740_993_i64}}},
            {"node_id": "a", "type": "r", "depends_on": ["z"], "io": {"input_inline": {
                "unit": "word",
                "input_adapter": "pull.from_artifacts.rechunk:size",
                "input_args": {"from_node": "z", "size": 50, "poll_ms": 0.5e3}}}},
        ],
    }))
    .plan();
    assert_eq!(
        plan.node(0).input.text(),
        r#"{"input_ref":{"id":9007199254740993}}"#
    );
    let reader = plan.node(1);
    assert_eq!(reader.reads, [0]);
    assert_eq!(
        reader.input.text(),
        r#"{"input_inline":{"input_adapter":"pull.from_artifacts.rechunk:size","input_args":{"from_node":"z","poll_ms":500.0,"size":50},"unit":"word"}}"#
    );
    let adapter = reader.adapter.as_ref().expect("named in the graph");
    assert_eq!(&*adapter.name, "pull.from_artifacts.rechunk:size");
    let index = |name: &str| plan.index(&NodeId::new(name).expect("a name"));
    assert_eq!(
        (index("z"), index("a"), index("x")),
        (Some(0), Some(1), None)
    );
    assert_eq!(plan.len(), 2);
}
