//! Engines and graphs for the tests.

use flowkit_runtime::{
    Engine, Handler, SubmitOptions, TaskHandle, Worker, WorkerHandle, WorkerSettings,
};
use serde_json::{Value, json};

/// An engine in memory with a coordinator.
pub(crate) async fn engine() -> Engine {
    let engine = Engine::memory();
    engine.start().await.expect("a memory engine starts");
    engine
}

/// A running worker of one role.
pub(crate) fn worker(engine: &Engine, role: &str, handler: impl Handler) -> WorkerHandle {
    let settings = WorkerSettings::default().shutdown_grace_sec(0.2);
    let built = Worker::builder(engine)
        .role(role, handler)
        .settings(settings)
        .build();
    built.expect("no fault").start()
}

/// A graph of one node `n`, tried up to three times without a pause.
pub(crate) fn one_node(role: &str, input: Value) -> Value {
    json!({
        "nodes": [{
            "node_id": "n",
            "type": role,
            "retry_policy": {"max": 3, "backoff_sec": 0},
            "io": {"input_inline": input},
        }],
        "edges": [],
    })
}

pub(crate) async fn submit(engine: &Engine, graph: &Value) -> TaskHandle {
    let client = engine.client();
    let task = client.submit(graph, SubmitOptions::default()).await;
    task.expect("a valid graph")
}
