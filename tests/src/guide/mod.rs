//! The features of the guide, as cases that run on every engine: in memory, in a folder, and as
//! processes over Kafka and MongoDB.
//!
//! A backend implements [`Ground`]; [`guide_conformance!`](crate::guide_conformance) makes one test of
//! each case. A case gets a [`Site`]: a coordinator and a client, and whatever workers it starts, each in
//! a process of its own as far as the backend has such.

pub mod cancels;
mod cut;
pub mod endings;
pub mod failures;
pub mod graphs;
pub mod handlers;
pub mod health;
pub mod inputs;
pub mod operating;
mod site;
pub mod sources;
pub mod why;
pub mod workers;

pub use cut::Cut;
pub use site::{Ground, Ports, Process, Site};

use flowkit_runtime::{Json, TaskHandle, TaskState};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

/// Longer than anything takes that is not lost.
const SOON: Duration = Duration::from_secs(60);

/// Runs a case; one that waits for ever fails.
///
/// # Panics
/// If the case does, or takes too long.
pub fn run_case(case: impl Future<Output = ()>) {
    crate::run(async {
        let done = tokio::time::timeout(2 * SOON, case).await;
        done.expect("the case waits for what does not come");
    });
}

/// A graph of one node `n`, tried up to three times without a pause.
fn one_node(role: &str, input: impl Into<Value>) -> Value {
    json!({"nodes": [{
        "node_id": "n", "type": role, "retry_policy": {"max": 3, "backoff_sec": 0},
        "io": {"input_inline": input.into()},
    }]})
}

/// Waits for the end of a task, which must be a good one.
async fn finished(task: &TaskHandle) {
    let outcome = task.wait().await.expect("it ends");
    assert_eq!(outcome.state, TaskState::Finished, "{:?}", outcome.failure);
}

/// The artifacts of a node, in order.
async fn artifacts<T: DeserializeOwned>(task: &TaskHandle, node: &str) -> Vec<T> {
    let found = task.artifacts(node).all().await.expect("readable");
    let decoded = found.iter().map(|artifact| decoded(&artifact.value));
    decoded.collect()
}

fn decoded<T: DeserializeOwned>(value: &Json) -> T {
    value.decode().unwrap_or_else(|error| panic!("{error}"))
}

/// Looks until it sees what it waits for: for what is told to nobody.
async fn until<T>(look: impl AsyncFn() -> Option<T>) -> T {
    let seen = async {
        loop {
            match look().await {
                Some(seen) => return seen,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let seen = tokio::time::timeout(SOON, seen).await;
    seen.expect("what was waited for came")
}
