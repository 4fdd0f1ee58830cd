//! What a rerun begins with: vars, options, and nodes that start the way they start in any task.

use serde_json::{Value, json};

use super::bench::*;
use super::rerun::{asked, made, refusal, rerun, source_read};
use crate::control::{TaskControl, TaskOptions};
use crate::json::Json;
use crate::message::{Body, ReplyError};
use crate::port::{StoreReply, TaskWithNodes};
use crate::record::{NodeState, TaskState};

use NodeState::{Failed, Finished, Queued, Running, Skipped};

/// `f`, `h` and `g` change vars: `f -> w -> g -> x`, `h` alone. `x` looks at them.
fn graph() -> String {
    let function = |id: &str, after: &[&str], name: &str, args: Value| {
        json!({"node_id": id, "type": "coordinator_fn", "depends_on": after,
               "io": {"fn": name, "fn_args": args}})
    };
    json!({"nodes": [
        function("f", &[], "vars.incr", json!({"key": "n", "by": 1})),
        {"node_id": "w", "type": "a", "depends_on": ["f"]},
        function("g", &["w"], "vars.incr", json!({"key": "n", "by": 10})),
        {"node_id": "x", "type": "b", "depends_on": ["g"],
         "when": {"var": "n", "op": "ge", "value": 10}},
        function("h", &[], "vars.set", json!({"kv": {"m": 1}})),
    ]})
    .to_string()
}

fn json_of(text: &str) -> Json {
    Json::parse(text).expect("JSON")
}

/// The task `t` as it ended: `x` failed; `n` was 0, and is 11.
fn source() -> TaskWithNodes {
    let mut bench = Bench::owned();
    let commit = bench.submitted_with("t", &graph(), r#"{"n":0}"#);
    let mut task = task_of(&commit).clone();
    (task.state, task.settled) = (TaskState::Failed, true);
    (task.vars, task.vars_version) = (json_of(r#"{"m":1,"n":11}"#), 3);
    task.submitted_vars = Some(json_of(r#"{"n":0}"#));
    let as_ended = [
        ("f", Finished, Some(1), None),
        ("w", Finished, None, None),
        ("g", Finished, Some(3), None),
        ("x", Failed, None, Some(3)),
        ("h", Finished, Some(2), None),
    ];
    let nodes = as_ended.map(|(node, state, made_vars, when_vars)| {
        let mut node = node_of(&commit, node).clone();
        (node.state, node.grant) = (state, None);
        (node.made_vars, node.when_vars) = (made_vars, when_vars);
        node
    });
    TaskWithNodes {
        node_age_ms: vec![0; nodes.len()],
        task,
        nodes: nodes.into(),
    }
}

/// The vars, their version, those of the submission, and each node's state and versions.
type Begins = (
    Value,
    u64,
    Option<Value>,
    Vec<(NodeState, Option<u64>, Option<u64>)>,
);

fn begins(commit: &crate::port::Commit) -> Begins {
    let value = |vars: &Json| vars.decode::<Value>().expect("JSON");
    let task = task_of(commit);
    let nodes = ["f", "w", "g", "x", "h"].map(|node| {
        let node = node_of(commit, node);
        (node.state, node.made_vars, node.when_vars)
    });
    (
        value(&task.vars),
        task.vars_version,
        task.submitted_vars.as_ref().map(value),
        nodes.into(),
    )
}

#[test]
fn the_first_change_of_vars_keeps_those_of_the_submission() {
    let mut bench = Bench::owned();
    let commit = bench.submitted_with("t", &graph(), r#"{"n":0}"#);
    assert_eq!(
        task_of(&commit).submitted_vars,
        Some(json_of(r#"{"n":0}"#)),
        "two functions have changed them"
    );
    let nothing = json!({"nodes": [{"node_id": "w", "type": "a"}]}).to_string();
    let commit = bench.submitted_with("u", &nothing, r#"{"n":0}"#);
    assert_eq!(task_of(&commit).submitted_vars, None);
}

#[test]
fn kept_functions_have_changed_the_vars_and_when_is_judged_over_them() {
    let mut bench = Bench::owned();
    let commit = made(&mut bench, "r", rerun("t", &[], false), &source());
    let nodes = vec![
        (Finished, Some(1), None),
        (Finished, None, None),
        (Finished, Some(3), None),
        (Running, None, Some(3)),
        (Finished, Some(2), None),
    ];
    let submitted = Some(json!({"n": 0}));
    assert_eq!(
        begins(&commit),
        (json!({"m": 1, "n": 11}), 3, submitted, nodes)
    );
}

#[test]
fn what_nodes_that_run_again_did_to_the_vars_is_not_there() {
    let mut bench = Bench::owned();
    let commit = made(&mut bench, "r", rerun("t", &["w"], false), &source());
    let nodes = vec![
        (Finished, Some(1), None),
        (Running, None, None),
        (Queued, None, None),
        (Queued, None, None),
        (Finished, Some(2), None),
    ];
    let submitted = Some(json!({"n": 0}));
    assert_eq!(
        begins(&commit),
        (json!({"m": 1, "n": 1}), 2, submitted, nodes)
    );
    let start = bench.sent().into_iter().find_map(|(_, body)| match body {
        Body::TaskStart(start) => Some(start.vars.decode::<Value>().expect("JSON")),
        _ => None,
    });
    assert_eq!(start, Some(json!({"m": 1, "n": 1})));

    // The same of a rerun of the rerun: the records alone tell.
    let mut second = source();
    second.task.vars = json_of(r#"{"m":1,"n":1}"#);
    second.task.vars_version = 2;
    for (node, state) in second
        .nodes
        .iter_mut()
        .zip([Finished, Failed, Skipped, Skipped, Finished])
    {
        node.state = state;
        node.made_vars = node.made_vars.filter(|_| state == Finished);
        node.kept_from = (state == Finished).then(|| task_id("first"));
    }
    let mut bench = Bench::owned();
    let commit = made(&mut bench, "r", rerun("t", &["f"], false), &second);
    // `h` is kept; `f` has run again, in this very commit.
    let (vars, version, submitted, nodes) = begins(&commit);
    assert_eq!((vars, version), (json!({"m": 1, "n": 1}), 2));
    assert_eq!(submitted, Some(json!({"n": 0})));
    assert_eq!(nodes[4], (Finished, Some(1), None));
    assert_eq!(nodes[0], (Finished, Some(2), None));
}

#[test]
fn all_of_it_again_begins_with_the_vars_of_the_submission() {
    let mut bench = Bench::owned();
    let commit = made(&mut bench, "r", rerun("t", &[], true), &source());
    let (vars, version, submitted, nodes) = begins(&commit);
    assert_eq!((vars, version), (json!({"m": 1, "n": 1}), 2));
    assert_eq!(submitted, Some(json!({"n": 0})));
    assert_eq!(nodes[1].0, Running);

    // `when` is judged like in any task: `f` leaves `n` at 1, which is too little for `x`.
    let low = graph().replace(r#""by":10"#, r#""by":1"#);
    let mut bench = Bench::owned();
    let mut source = source();
    source.task.graph = json_of(&low);
    let commit = made(&mut bench, "r", rerun("t", &["g"], false), &source);
    let (vars, version, _, nodes) = begins(&commit);
    assert_eq!((vars, version), (json!({"m": 1, "n": 2}), 3));
    assert_eq!(nodes[2], (Finished, Some(3), None));
    assert_eq!(nodes[3], (Skipped, None, Some(3)));
    assert_eq!(task_of(&commit).state, TaskState::Finished);
}

#[test]
fn a_kept_change_that_cannot_be_made_without_the_others_is_refused_with_the_cure() {
    let mut source = source();
    // `g` increased a number that only `h` had made one.
    let graph = graph().replace(r#""key":"n","by":10"#, r#""key":"m","by":10"#);
    let graph = graph.replace(r#""by":10,"key":"n""#, r#""by":10,"key":"m""#);
    source.task.graph = json_of(&graph);
    source.task.submitted_vars = Some(json_of(r#"{"m":"text","n":0}"#));
    let mut bench = Bench::owned();
    asked(&mut bench, "r", rerun("t", &["h"], false), Some(&source));
    let op = source_read(&bench);
    let found = StoreReply::Task(Some(Box::new(source)));
    bench.input(store_ok(op, found));
    let (kind, text) = refusal(&bench);
    assert_eq!(kind, ReplyError::Invalid);
    assert!(
        text.starts_with("`g` is to be kept") && text.contains("not_a_number"),
        "{text}"
    );
    assert!(text.ends_with("name it in `from`, too"), "{text}");
}

#[test]
fn a_rerun_is_operated_like_the_old_task_but_starts_now_and_is_not_paused() {
    let mut source = source();
    source.task.control = TaskControl {
        no: 3,
        options: TaskOptions {
            priority: 4,
            start_delay_ms: 60_000,
            limit_key: Some("tenant".into()),
        },
    };
    let mut bench = Bench::owned();
    let commit = made(&mut bench, "r", rerun("t", &["w"], false), &source);
    let control = TaskControl {
        no: 0,
        options: TaskOptions {
            priority: 4,
            start_delay_ms: 0,
            limit_key: Some("tenant".into()),
        },
    };
    let task = task_of(&commit);
    assert_eq!((&task.control, task.state), (&control, TaskState::Running));
    assert_eq!(node_of(&commit, "w").state, Running);
}

#[test]
fn a_kept_node_takes_no_place_of_a_limit() {
    let mut config = config();
    config.limits.running_max = Some(1);
    let workers = vec![worker_record("w", 1, &["a", "b"])];
    let mut bench = Bench::owned_with(config, Vec::new(), workers);
    let commit = made(&mut bench, "r", rerun("t", &[], false), &source());
    assert_eq!(
        node_of(&commit, "x").state,
        Running,
        "the only place is free"
    );
    // What is ready stands in the queue like anything else.
    let mut other = source();
    other.task.task_id = task_id("u");
    for node in &mut other.nodes {
        node.task_id = task_id("u");
    }
    let commit = made(&mut bench, "s", rerun("u", &[], false), &other);
    assert_eq!(node_of(&commit, "x").state, NodeState::Ready);
}
