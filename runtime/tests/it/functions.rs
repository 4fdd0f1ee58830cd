//! Coordinator functions of users that do not do what they should.

use flowkit_runtime::function::{Call, Changes, FunctionError, Functions};
use flowkit_runtime::{Engine, NodeState, StartError, SubmitOptions, TaskState};
use serde_json::{Value, json};

fn function(id: &str, name: &str, args: Value) -> Value {
    json!({"node_id": id, "type": "coordinator_fn", "io": {"fn": name, "fn_args": args}})
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
