//! `when` and coordinator functions, as the machine carries them out.

use serde_json::{Value, json};

use super::bench::*;
use crate::coordinator::Effect;
use crate::function::{Call, Changes, FunctionError, Functions};
use crate::json::Json;
use crate::message::{Body, ReplyError};
use crate::port::TaskWithNodes;
use crate::record::{NodeRecord, NodeState, TaskRecord, TaskState};

fn vars_of(record: &TaskRecord) -> Value {
    record.vars.decode().expect("JSON")
}

fn function(id: &str, after: &[&str], name: &str, args: Value) -> Value {
    json!({"node_id": id, "type": "coordinator_fn", "depends_on": after,
           "io": {"fn": name, "fn_args": args}})
}

fn graph(nodes: &[Value]) -> String {
    json!({"nodes": nodes}).to_string()
}

fn with_functions(functions: Functions) -> Bench {
    let mut config = config();
    config.shard_lease_ttl_ms = 1_000_000;
    config.functions = functions;
    let workers = vec![worker_record("w1", 1, &["a", "b"])];
    Bench::owned_with(config, Vec::new(), workers)
}

#[test]
fn functions_run_in_the_commit_that_makes_them_ready_and_what_follows_sees_their_vars() {
    let graph = graph(&[
        function(
            "set",
            &[],
            "vars.set",
            json!({"kv": {"n": 4, "kind": "gold"}}),
        ),
        function("add", &["set"], "vars.incr", json!({"key": "n", "by": 2})),
        json!({"node_id": "work", "type": "a", "depends_on": ["add"],
               "when": {"var": "n", "op": "eq", "value": 6}}),
        json!({"node_id": "not", "type": "a", "depends_on": ["add"],
               "when": {"var": "kind", "op": "ne", "value": "gold"}}),
        json!({"node_id": "below", "type": "a", "depends_on": ["not"]}),
    ]);
    let mut bench = Bench::owned();
    let commit = bench.submitted("t", &graph);
    let task = task_of(&commit);
    assert_eq!(vars_of(task), json!({"n": 6, "kind": "gold"}));
    assert_eq!((task.vars_version, task.state), (2, TaskState::Running));
    let seen = |id: &str| {
        let node = node_of(&commit, id);
        (node.state, node.when_vars, node.made_vars)
    };
    assert_eq!(seen("set"), (NodeState::Finished, None, Some(1)));
    assert_eq!(seen("add"), (NodeState::Finished, None, Some(2)));
    assert_eq!(seen("work"), (NodeState::Running, Some(2), None));
    assert_eq!(seen("not"), (NodeState::Skipped, Some(2), None));
    assert_eq!(seen("below"), (NodeState::Skipped, None, None));
    let last = node_of(&commit, "not").history.entries.last();
    assert_eq!(
        last.map(|entry| entry.cause.as_str()),
        Some("its `when` does not hold: `kind` ne `\"gold\"` is false")
    );
    let [_, (_, Body::TaskStart(start))] = &bench.sent()[..] else {
        panic!("{:?}", bench.out)
    };
    assert_eq!(start.vars, task.vars, "a START carries the vars of now");
}

#[test]
fn a_task_of_functions_alone_is_done_in_one_commit() {
    let graph = graph(&[
        function("a", &[], "noop", json!({})),
        json!({"node_id": "b", "type": "a", "when": {"var": "x", "op": "exists"}}),
    ]);
    let mut bench = Bench::owned();
    let commit = bench.submitted("t", &graph);
    let task = task_of(&commit);
    assert_eq!((task.state, task.settled), (TaskState::Finished, true));
    assert_eq!(task.vars_version, 1, "also if nothing changed");
    assert_eq!(node_of(&commit, "b").state, NodeState::Skipped);
    assert_eq!(bench.sent_kinds(), ["REPLY - 0"]);
}

#[test]
fn a_function_that_fails_fails_its_node_for_good_and_routing_goes_on() {
    let mut nodes = vec![
        function("set", &[], "vars.set", json!({"kv": {"t": "text"}})),
        function("add", &["set"], "vars.incr", json!({"key": "t"})),
        function("mend", &[], "vars.set", json!({"kv": {"mended": true}})),
    ];
    nodes[1]["routing"] = json!({"on_failure": ["mend"]});
    let mut bench = Bench::owned();
    let commit = bench.submitted("t", &graph(&nodes));
    let add = node_of(&commit, "add");
    assert_eq!((add.state, add.made_vars), (NodeState::Failed, None));
    let failure = add.failure.as_ref().expect("a failure");
    assert_eq!(&*failure.reason_code, "not_a_number");
    assert_eq!(
        &*failure.error,
        "`t` is a text; only a number can be increased"
    );
    let task = task_of(&commit);
    assert_eq!(task.state, TaskState::Finished, "the failure was handled");
    assert_eq!(vars_of(task), json!({"t": "text", "mended": true}));

    nodes.pop();
    nodes[1].as_object_mut().expect("a node").remove("routing");
    let mut bench = Bench::owned();
    let commit = bench.submitted("t", &graph(&nodes));
    let task = task_of(&commit);
    let code = task.failure.as_ref().map(|failure| &*failure.reason_code);
    assert_eq!(
        (task.state, code),
        (TaskState::Failed, Some("not_a_number"))
    );
}

#[test]
fn a_ready_function_is_run_by_the_next_owner_and_when_is_not_judged_again() {
    let nodes = [
        function("add", &[], "vars.incr", json!({"key": "n"})),
        json!({"node_id": "work", "type": "c", "when": {"var": "n", "op": "eq", "value": 1}}),
    ];
    // As an owner left them that judged `when` over `n` = 1 and was gone before it ran `add`.
    let mut bench = Bench::owned();
    let commit = bench.submitted_with("t", &graph(&nodes), r#"{"n":1}"#);
    let mut task = task_of(&commit).clone();
    (task.vars, task.vars_version) = (Json::parse(r#"{"n":1}"#).expect("JSON"), 0);
    (task.state, task.settled) = (TaskState::Queued, false);
    let ready = |id: &str| NodeRecord {
        state: NodeState::Ready,
        made_vars: None,
        ..node_of(&commit, id).clone()
    };
    let stored = TaskWithNodes {
        task,
        nodes: vec![ready("add"), ready("work")],
        node_age_ms: vec![0, 0],
    };
    let mut config = config();
    config.shard_lease_ttl_ms = 1_000_000;
    let mut bench = Bench::owned_with(config, vec![stored], Vec::new());
    let commit = bench.take_commit();
    assert_eq!(vars_of(task_of(&commit)), json!({"n": 2}));
    assert_eq!(node_of(&commit, "add").made_vars, Some(1));
    let touched = commit.records.iter().any(
        |record| matches!(record, crate::port::Record::Node(node) if node.node_id.as_str() == "work"),
    );
    assert!(!touched, "it was decided: {commit:?}");
}

#[test]
fn faults_of_graph_and_vars_are_told_at_once() {
    let graph = graph(&[json!({"node_id": "a", "type": "a", "when": {}})]);
    let mut bench = Bench::owned();
    bench.submit_with("t", &graph, r#"{"a.b":1,"$c":2}"#);
    let (_, Body::Reply(reply)) = &bench.sent()[0] else {
        panic!("{:?}", bench.out)
    };
    let error = reply.error.as_ref().expect("refused");
    assert_eq!(error.kind, ReplyError::InvalidGraph);
    let faults: Vec<&str> = error.faults.iter().map(|fault| &**fault).collect();
    assert_eq!(
        faults,
        [
            "nodes[0].when: names none of `var`, `all`, `any`, `not`; write exactly one of them",
            "vars.$c: a key starts with `$`; rename the key",
        ]
    );
}

#[test]
fn functions_of_users_run_and_one_that_is_not_known_fails_its_node() {
    let functions = Functions::default().function("double", |call: &Call<'_>| {
        let path = call.text_arg("path")?;
        let number = call.var(path).and_then(Value::as_i64);
        let number = number.ok_or_else(|| FunctionError::new("no_number", "nothing to double"))?;
        Ok(Changes::new().set(path, number * 2).result(number))
    });
    let text = graph(&[function("d", &[], "double", json!({"path": "n"}))]);
    let mut bench = with_functions(functions.clone());
    let commit = bench.submitted_with("t", &text, r#"{"n":21}"#);
    assert_eq!(vars_of(task_of(&commit)), json!({"n": 42}));
    let result = node_of(&commit, "d").result.as_ref();
    assert_eq!(result.map(Json::text), Some("21"));

    // Taken over by a coordinator without it.
    let mut task = task_of(&commit).clone();
    (task.state, task.settled) = (TaskState::Queued, false);
    let node = NodeRecord {
        state: NodeState::Ready,
        made_vars: None,
        ..node_of(&commit, "d").clone()
    };
    let stored = TaskWithNodes {
        task,
        nodes: vec![node],
        node_age_ms: vec![0],
    };
    let mut config = config();
    config.shard_lease_ttl_ms = 1_000_000;
    let mut bench = Bench::owned_with(config, vec![stored], Vec::new());
    let commit = bench.take_commit();
    let failure = node_of(&commit, "d").failure.as_ref().expect("failed");
    assert_eq!(&*failure.reason_code, "no_function");
}

#[test]
fn a_commit_takes_as_many_functions_as_its_bytes_allow_and_the_rest_follow() {
    let mut nodes = vec![function("n0", &[], "vars.incr", json!({"key": "n"}))];
    for n in 1..200 {
        let parent = format!("n{}", n - 1);
        nodes.push(function(
            &format!("n{n}"),
            &[&parent],
            "vars.incr",
            json!({"key": "n"}),
        ));
    }
    let large = json!({"text": "x".repeat(60_000)}).to_string();
    let mut bench = Bench::owned();
    let commit = bench.submitted_with("t", &graph(&nodes), &large);
    let first = task_of(&commit).vars_version;
    assert!((10..200).contains(&first), "{first}");
    let mut version = first;
    while version < 200 {
        let commit = bench.take_commit();
        let task = task_of(&commit);
        assert!(task.vars_version > version, "every commit goes on");
        version = task.vars_version;
        assert_eq!(vars_of(task)["n"], json!(version));
    }
}

#[test]
#[should_panic(expected = "careless")]
fn what_panics_is_known_as_the_subject() {
    let functions = Functions::default().function(
        "careless",
        |_: &Call<'_>| -> Result<Changes, FunctionError> { panic!("careless") },
    );
    let mut bench = with_functions(functions);
    let text = graph(&[function("d", &[], "careless", json!({}))]);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        bench.submitted("t", &text);
    }));
    let subject = bench.machine.subject();
    assert_eq!(subject.task_id, Some(task_id("t")));
    let _: &Vec<Effect> = &bench.out;
    if let Err(panic) = caught {
        std::panic::resume_unwind(panic);
    }
}
