//! Engines and graphs for the tests.

use flowkit_runtime::{Engine, Json, Worker, WorkerBuilder};
use serde_json::{Value, json};

/// An engine in memory with a coordinator.
pub(crate) async fn engine() -> Engine {
    let engine = Engine::memory();
    engine.start().await.expect("a memory engine starts");
    engine
}

pub(crate) fn worker(engine: &Engine) -> WorkerBuilder {
    Worker::builder(engine)
}

/// A graph of one node.
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

pub(crate) fn json_of(value: Value) -> Json {
    Json::from(value)
}
