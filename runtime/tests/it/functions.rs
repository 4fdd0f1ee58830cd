//! Coordinator functions of users, and what handlers see of the vars.

use flowkit_runtime::function::{Call, Changes, FunctionError, Functions};
use flowkit_runtime::{
    Batch, BatchResult, Engine, Json, NodeState, StartError, SubmitOptions, TaskState, handler_fn,
};
use serde_json::{Value, json};

use crate::support::worker;

fn function(id: &str, name: &str, args: Value) -> Value {
    json!({"node_id": id, "type": "coordinator_fn", "io": {"fn": name, "fn_args": args}})
}

fn vars(value: Value) -> SubmitOptions {
    SubmitOptions::default().vars(Json::from(value))
}

#[tokio::test]
async fn a_handler_sees_the_vars_that_functions_made_before_it_started() {
    let engine = Engine::memory();
    engine.start().await.unwrap();
    worker(
        &engine,
        "r",
        handler_fn(|cx, _: Batch<Json>| async move {
            let vars: Value = cx.vars().decode()?;
            Ok(BatchResult::of(vars["n"].clone()))
        }),
    );
    let mut work = json!({"node_id": "n", "type": "r", "depends_on": ["add"],
                          "when": {"var": "n", "op": "gt", "value": 40}});
    work["io"] = json!({"input_inline": {}});
    let graph =
        json!({"nodes": [function("add", "vars.incr", json!({"key": "n", "by": 2})), work]});
    let task = engine.client().submit(&graph, vars(json!({"n": 40}))).await;
    let task = task.unwrap();
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let seen = task.artifacts("n").all().await.unwrap();
    assert_eq!(seen[0].value.text(), "42");
    engine.stop().await;
}

#[tokio::test]
async fn a_function_that_panics_costs_its_task_and_no_other() {
    let functions = Functions::default().function(
        "careless",
        |_: &Call<'_>| -> Result<Changes, FunctionError> { panic!("careless") },
    );
    let engine = Engine::memory().with_functions(functions);
    engine.start().await.unwrap();
    let client = engine.client();
    let bad = json!({"nodes": [function("f", "careless", json!({}))]});
    let good = json!({"nodes": [function("f", "vars.set", json!({"kv": {"a": 1}}))]});
    // The first panic comes before the commit that would have made the task; the coordinator then
    // goes with care: one commit makes the task, and what panics behind it sets it aside.
    let bad_id = "bad".parse().unwrap();
    let options = SubmitOptions::with_task_id(bad_id);
    let bad = tokio::spawn({
        let client = client.clone();
        async move {
            client
                .submit(&bad, options)
                .await
                .map(|task| task.id().clone())
        }
    });
    let task = client
        .submit(&good, SubmitOptions::default())
        .await
        .unwrap();
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let id = bad.await.unwrap().unwrap();
    let outcome = client.task(id).wait().await.unwrap();
    assert_eq!(outcome.state, TaskState::Quarantined);
    let task = client
        .submit(&good, SubmitOptions::default())
        .await
        .unwrap();
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let status = task.status().await.unwrap();
    assert_eq!(status.node("f").unwrap().state, NodeState::Finished);
    engine.stop().await;
}

#[tokio::test]
async fn an_engine_whose_functions_are_faulty_does_not_start() {
    let noop = |_: &Call<'_>| Ok(Changes::new());
    let functions = Functions::default()
        .function("vars.set", noop)
        .function("", noop);
    let started = Engine::memory().with_functions(functions).start().await;
    let Err(StartError::Settings(error)) = started else {
        panic!("{started:?}");
    };
    assert_eq!(error.faults.len(), 2, "{error}");
}
