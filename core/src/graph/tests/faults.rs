//! Every kind of fault shows its place and its cure.

use serde_json::{Value, json};

use super::faults;
use super::shapes::{each, one, two, with};
use crate::graph::Graph;
use crate::json::Json;

/// `two` with an adapter.
fn reader(name: &str, args: Value) -> Value {
    two(json!({"io": {"input_inline": {"input_adapter": name, "input_args": args}}}))
}

#[test]
fn the_graph_itself() {
    each([
        (json!([]), "graph: is a list; write an object"),
        (
            json!({}),
            "graph: `nodes` is missing; add `nodes`, a list of nodes",
        ),
        (
            json!({"nodes": []}),
            "nodes: is empty; add at least one node",
        ),
        (
            json!({"nodes": {}}),
            "nodes: is an object; write a list of nodes",
        ),
        (
            json!({"nodes": [3]}),
            "nodes[0]: is a number; write an object",
        ),
        (
            with(one(json!({})), json!({"node": 1})),
            "node: is not a field of the format; did you mean `nodes`?",
        ),
        (
            with(one(json!({})), json!({"colour": 1})),
            "colour: is not a field of the format; \
             remove it; known fields are schema_version, nodes, edges, edges_ex",
        ),
        (
            with(one(json!({})), json!({"schema_version": "2.0"})),
            "schema_version: `2.0` is not a known version; write \"1.0\" or leave it out",
        ),
    ]);
}

#[test]
fn names() {
    each([
        (
            json!({"nodes": [{"type": "r"}]}),
            "nodes[0]: `node_id` is missing; add `node_id`, a name unique in the graph",
        ),
        (
            json!({"nodes": [{"node_id": "a"}]}),
            "nodes[0]: `type` is missing; add `type`, the role that runs the node",
        ),
        (
            json!({"nodes": [{"node_id": 7, "type": "r"}]}),
            "nodes[0].node_id: is a number; write a text",
        ),
        (
            json!({"nodes": [{"node_id": "", "type": "r"}]}),
            "nodes[0].node_id: `` is not a name: it must not be empty; \
             write 1 to 200 bytes of text without control characters or a leading `$`",
        ),
        (
            json!({"nodes": [{"node_id": "a", "type": "$r"}]}),
            "nodes[0].type: `$r` is not a name: it must not start with `$`; \
             write 1 to 200 bytes of text without control characters or a leading `$`",
        ),
        (
            json!({"nodes": [{"node_id": "a", "type": "r"}, {"node_id": "a", "type": "r"}]}),
            "nodes[1].node_id: `a` is also the name of nodes[0]; rename one of them",
        ),
        (
            one(json!({"depend_on": []})),
            "nodes[0].depend_on: is not a field of the format; did you mean `depends_on`?",
        ),
    ]);
}

#[test]
fn parents_and_edges() {
    let ab = |edges: Value| with(two(json!({"depends_on": []})), edges);
    each([
        (
            two(json!({"depends_on": ["A"]})),
            "nodes[1].depends_on[0]: `A` is not a node; did you mean `a`?",
        ),
        (
            two(json!({"depends_on": ["elsewhere"]})),
            "nodes[1].depends_on[0]: `elsewhere` is not a node; \
             name a node of this graph, or add the node",
        ),
        (
            two(json!({"depends_on": ["a", "a"]})),
            "nodes[1].depends_on[1]: `a` stands twice in the list; remove one of them",
        ),
        (
            two(json!({"depends_on": "a"})),
            "nodes[1].depends_on: is a text; write a list of node ids",
        ),
        (
            two(json!({"depends_on": ["a", 1]})),
            "nodes[1].depends_on[1]: is a number; write a text",
        ),
        (
            ab(json!({"edges": [["a", "b", "c"]]})),
            "edges[0]: is not a pair; write [from, to]",
        ),
        (
            ab(json!({"edges": ["ab"]})),
            "edges[0]: is a text; write [from, to]",
        ),
        (
            ab(json!({"edges": [["a", 1]]})),
            "edges[0][1]: is a number; write a text",
        ),
        (
            ab(json!({"edges": [["a", "b"], ["a", "b"]]})),
            "edges[1]: is the same edge as edges[0]; remove one of them",
        ),
        (
            ab(json!({"edges": [["nowhere", "b"]]})),
            "edges[0]: `nowhere` is not a node; name a node of this graph, or add the node",
        ),
        (
            ab(json!({"edges_ex": [{"from": "a", "to": "b", "trigger": "on_batch"}]})),
            "edges_ex[0]: `mode` is missing; add \"mode\": \"async\"",
        ),
        (
            ab(json!({"edges_ex": [{"from": "a", "mode": "async", "trigger": "on_batch"}]})),
            "edges_ex[0]: `to` is missing; add `to`, a node id",
        ),
        (
            ab(json!({"edges_ex": [
                {"from": "a", "to": "b", "mode": "sync", "trigger": "on_batch"}]})),
            "edges_ex[0].mode: `sync` is not a known mode; write \"async\"",
        ),
        (
            ab(json!({"edges_ex": [
                {"from": "a", "to": "b", "mode": "async", "trigger": "on_end"}]})),
            "edges_ex[0].trigger: `on_end` is not a known trigger; write \"on_batch\"",
        ),
        (
            ab(json!({"edges_ex": [
                {"from": "a", "to": "b", "mode": "async", "trigger": "on_batch", "x": 1}]})),
            "edges_ex[0].x: is not a field of the format; \
             remove it; known fields are from, to, mode, trigger",
        ),
    ]);
}

#[test]
fn cycles_with_their_path() {
    let node = |id: &str, on: &[&str]| json!({"node_id": id, "type": "r", "depends_on": on});
    let cure = "remove one of these dependencies, so that a first node can start";
    assert_eq!(
        faults(json!({"nodes": [node("a", &["a"])]})),
        [format!("nodes[0]: is in a cycle: `a` -> `a`; {cure}")]
    );
    assert_eq!(
        faults(json!({
            "nodes": [node("start", &[]), node("a", &["start", "c"]), node("b", &["a"]),
                node("c", &[]), node("end", &["c"])],
            "edges": [["b", "c"]],
        })),
        [format!(
            "nodes[1]: is in a cycle: `a` -> `b` -> `c` -> `a`; {cure}"
        )]
    );
    // Routing makes parents too.
    assert_eq!(
        faults(two(json!({"routing": {"on_failure": ["a"]}}))),
        [format!(
            "nodes[0]: is in a cycle: `a` -> `b` -> `a`; {cure}"
        )]
    );
    let many: Vec<Value> = (0..50)
        .map(|n| node(&format!("n{n}"), &[&format!("n{}", (n + 49) % 50)]))
        .collect();
    let found = faults(json!({"nodes": many}));
    assert!(
        found[0].starts_with("nodes[0]: is in a cycle: `n0` -> `n1` -> ")
            && found[0].contains("`n11` -> … 38 more -> `n0`"),
        "{found:?}"
    );
}

#[test]
fn fan_in_and_counts() {
    each([
        (
            two(json!({"fan_in": "most"})),
            "nodes[1].fan_in: `most` is not a fan-in; write `all`, `any` or `count:n`",
        ),
        (
            two(json!({"fan_in": "count:-1"})),
            "nodes[1].fan_in: `count:-1` is not a fan-in; write `all`, `any` or `count:n`",
        ),
        (
            two(json!({"fan_in": 1})),
            "nodes[1].fan_in: is a number; write a text",
        ),
        (
            two(json!({"fan_in": "count:0"})),
            "nodes[1].fan_in: asks for 0 parents; write at least `count:1`",
        ),
        (
            with(
                two(json!({"fan_in": "count:2"})),
                json!({"edges": [["a", "b"]]}),
            ),
            "nodes[1].fan_in: `count:2` asks for more than its parents, 1 in number; \
             lower the count or add parents",
        ),
    ]);
}

#[test]
fn retry_policy() {
    let retry = |fields: Value| one(json!({"retry_policy": fields}));
    each([
        (
            one(json!({"retry_policy": 3})),
            "nodes[0].retry_policy: is a number; write an object",
        ),
        (
            retry(json!({"max": 0})),
            "nodes[0].retry_policy.max: is 0; write a whole number from 1 to 1000000",
        ),
        (
            retry(json!({"max": 1.5})),
            "nodes[0].retry_policy.max: is 1.5; write a whole number from 1 to 1000000",
        ),
        (
            retry(json!({"losses_max": 0})),
            "nodes[0].retry_policy.losses_max: is 0; write a whole number from 1 to 1000000",
        ),
        (
            retry(json!({"backoff_sec": -1})),
            "nodes[0].retry_policy.backoff_sec: is -1; \
             write a number from 0 to 31536000; fractions are allowed",
        ),
        (
            retry(json!({"backoff_sec": "5"})),
            "nodes[0].retry_policy.backoff_sec: is a text; \
             write a number from 0 to 31536000; fractions are allowed",
        ),
        (
            retry(json!({"permanent_on": "bad_input"})),
            "nodes[0].retry_policy.permanent_on: is a text; write a list of reason codes",
        ),
        (
            retry(json!({"permanent_on": [""]})),
            "nodes[0].retry_policy.permanent_on[0]: is empty; name a reason code or remove it",
        ),
        (
            retry(json!({"backoff": 1})),
            "nodes[0].retry_policy.backoff: is not a field of the format; \
             remove it; known fields are max, backoff_sec, permanent_on, losses_max",
        ),
    ]);
}

#[test]
fn routing_conflicts_name_both_fields() {
    let routed = |routing: Value, b: Value| {
        let b = with(json!({"node_id": "b", "type": "r"}), b);
        json!({"nodes": [{"node_id": "a", "type": "r", "routing": routing}, b]})
    };
    each([
        (
            routed(json!({"on_failure": ["b"]}), json!({"depends_on": ["a"]})),
            "nodes[0].routing.on_failure[0]: `b` waits for the failure of its source here and \
             for its success in nodes[1].depends_on[0]; remove it from one of the two",
        ),
        (
            routed(json!({"on_failure": ["b"], "on_success": ["b"]}), json!({})),
            "nodes[0].routing.on_failure[0]: `b` waits for the failure of its source here and \
             for its success in nodes[0].routing.on_success[0]; remove it from one of the two",
        ),
        (
            with(
                routed(json!({"on_failure": ["b"]}), json!({})),
                json!({"edges": [["a", "b"]]}),
            ),
            "nodes[0].routing.on_failure[0]: `b` waits for the failure of its source here and \
             for its success in edges[0]; remove it from one of the two",
        ),
        (
            routed(json!({"on_error": ["b"]}), json!({})),
            "nodes[0].routing.on_error: is not a field of the format; \
             remove it; known fields are on_success, on_failure",
        ),
        (
            routed(json!({"on_success": ["bb"]}), json!({})),
            "nodes[0].routing.on_success[0]: `bb` is not a node; did you mean `b`?",
        ),
    ]);
}

#[test]
fn adapters_and_their_arguments() {
    const PULL: &str = "pull.from_artifacts";
    const RECHUNK: &str = "pull.from_artifacts.rechunk:size";
    each([
        (
            reader("pull.from_artefacts", json!({})),
            "nodes[1].io.input_inline.input_adapter: `pull.from_artefacts` is not an input \
             adapter; did you mean `pull.from_artifacts`?",
        ),
        (
            reader("kafka", json!({})),
            "nodes[1].io.input_inline.input_adapter: `kafka` is not an input adapter; use \
             `pull.from_artifacts` or `pull.from_artifacts.rechunk:size`, or leave it out",
        ),
        (
            two(json!({"io": {"input_inline": {"input_args": {}}}})),
            "nodes[1].io.input_inline.input_args: stands without `input_adapter`; \
             add `input_adapter` beside it, or rename it if it is the handler's own",
        ),
        (
            reader(PULL, json!(null)),
            "nodes[1].io.input_inline.input_args: neither `from_nodes` nor `from_node` is given; \
             add `from_nodes` with the nodes to read",
        ),
        (
            reader(PULL, json!({"from_nodes": ["a"], "from_node": "a"})),
            "nodes[1].io.input_inline.input_args: both `from_nodes` and `from_node` are given; \
             keep `from_nodes` and put every source into it",
        ),
        (
            reader(PULL, json!({"from_nodes": []})),
            "nodes[1].io.input_inline.input_args.from_nodes: is empty; \
             name at least one node to read",
        ),
        (
            reader(PULL, json!({"from_nodes": ["a", "a"]})),
            "nodes[1].io.input_inline.input_args.from_nodes[1]: `a` stands twice in the list; \
             remove one of them",
        ),
        (
            reader(PULL, json!({"from_node": "b"})),
            "nodes[1].io.input_inline.input_args: reads `b`, which is not a parent of `b`; \
             add `b` to nodes[1].depends_on",
        ),
        (
            reader(PULL, json!({"from_node": "nowhere"})),
            "nodes[1].io.input_inline.input_args: `nowhere` is not a node; \
             name a node of this graph, or add the node",
        ),
        (
            reader(PULL, json!({"from_node": "a", "size": 3})),
            "nodes[1].io.input_inline.input_args.size: is not a field of the format; remove it; \
             known fields are from_nodes, from_node, poll_ms, eof_on_task_done, backoff_max_ms",
        ),
        (
            reader(PULL, json!({"from_node": "a", "poll_ms": 0})),
            "nodes[1].io.input_inline.input_args.poll_ms: is 0; \
             write a number from 1 to 86400000; fractions are allowed",
        ),
        (
            reader(
                PULL,
                json!({"from_node": "a", "poll_ms": 9, "backoff_max_ms": 8}),
            ),
            "nodes[1].io.input_inline.input_args.backoff_max_ms: is 8, below `poll_ms` 9; \
             raise `backoff_max_ms` or lower `poll_ms`",
        ),
        (
            reader(PULL, json!({"from_node": "a", "eof_on_task_done": "yes"})),
            "nodes[1].io.input_inline.input_args.eof_on_task_done: is a text; write true or false",
        ),
        (
            reader(RECHUNK, json!({"from_node": "a"})),
            "nodes[1].io.input_inline.input_args: `size` is missing; \
             add `size`, the number of items per batch",
        ),
        (
            reader(RECHUNK, json!({"from_node": "a", "size": 0})),
            "nodes[1].io.input_inline.input_args.size: is 0; write a whole number from 1 to 1000000",
        ),
        (
            reader(
                RECHUNK,
                json!({"from_node": "a", "size": 1, "meta_list_key": ""}),
            ),
            "nodes[1].io.input_inline.input_args.meta_list_key: is empty; \
             name a list in the artifact's meta, or leave it out",
        ),
    ]);
}

#[test]
fn input_and_start() {
    each([
        (
            one(json!({"io": []})),
            "nodes[0].io: is a list; write an object",
        ),
        (
            one(json!({"io": {"input_inline": 5}})),
            "nodes[0].io.input_inline: is a number; write an object",
        ),
        (
            one(json!({"io": {"start_when": "first_batches"}})),
            "nodes[0].io.start_when: `first_batches` is not a start condition; \
             did you mean `first_batch`?",
        ),
        (
            one(json!({"io": {"start_when": "noon"}})),
            "nodes[0].io.start_when: `noon` is not a start condition; \
             write `ready` or `first_batch`",
        ),
    ]);
}

#[test]
fn what_this_version_does_not_do_is_said() {
    each([(
        one(json!({"io": {"batching": {"size": 3}}})),
        "nodes[0].io.batching: is not supported by this version; \
             remove it; `pull.from_artifacts.rechunk:size` cuts batches",
    )]);
}

#[test]
fn functions_and_conditions() {
    let function = |io: Value| one(json!({"type": "coordinator_fn", "io": io}));
    each([
        (
            one(json!({"io": {"fn": "noop"}})),
            "nodes[0].io.fn: belongs to a node that runs inside the coordinator; \
             remove it, or set the node's `type` to `coordinator_fn`",
        ),
        (
            one(json!({"type": "coordinator_fn"})),
            "nodes[0].io: `fn` is missing; name a function, as in \"fn\": \"vars.set\"",
        ),
        (
            function(json!({"fn": "noop", "input_inline": {"a": 1}})),
            "nodes[0].io.input_inline: stands in a `coordinator_fn` node; \
             remove it; a function gets `fn_args`",
        ),
        (
            function(json!({"fn": "noop", "fn_args": [1]})),
            "nodes[0].io.fn_args: is a list; write an object",
        ),
        (
            function(json!({"fn": 7})),
            "nodes[0].io.fn: is a number; write a text",
        ),
        (
            one(json!({"when": {"var": "x", "op": "exist"}})),
            "nodes[0].when.op: `exist` is not a comparison; did you mean `exists`?",
        ),
    ]);
}

#[test]
fn what_a_store_could_refuse() {
    let inline = |value: Value| one(json!({"io": {"input_inline": value}}));
    each([
        (
            inline(json!({"$set": 1})),
            "nodes[0].io.input_inline.$set: a key starts with `$`; rename the key",
        ),
        (
            inline(json!({"n": u64::MAX})),
            "nodes[0].io.input_inline.n: an integer is beyond 64 bits signed; \
             write it as text or as a fraction",
        ),
    ]);
    let text = |text: &str| {
        Graph::parse(&Json::parse(text).expect("JSON"))
            .expect_err("a fault")
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        text(r#"{"nodes":[{"node_id":"a","node_id":"b","type":"r"}]}"#),
        ["nodes[0].node_id: the key stands twice; keep one of them"]
    );
    assert_eq!(
        text(r#"{"nodes":[{"node_id":"a","type":"r","io":{"input_ref":1e999}}]}"#),
        ["nodes[0].io.input_ref: a number is beyond what a double can hold; write it as text"]
    );
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let found = text(&deep);
    assert_eq!(found.len(), 1);
    assert!(found[0].ends_with("[0]: nested deeper than 64; flatten the value"));
}
