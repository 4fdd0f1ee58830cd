//! A handler that does not listen.

use flowkit_runtime::{Batch, BatchResult, Json, TaskState, handler_fn};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

use crate::support::{engine, one_node, submit, worker};

#[tokio::test]
async fn a_handler_that_ignores_its_cancel_is_dropped_at_the_deadline() {
    let engine = engine().await;
    let began = Arc::new(Semaphore::new(0));
    let begin = began.clone();
    let worker = worker(
        &engine,
        "r",
        handler_fn(move |_, _: Batch<Json>| {
            let begin = begin.clone();
            async move {
                begin.add_permits(1);
                std::future::pending::<()>().await;
                Ok(BatchResult::of(1))
            }
        }),
    );
    let task = submit(&engine, &one_node("r", json!({}))).await;
    began.acquire().await.unwrap().forget();
    assert_eq!(worker.status().running.len(), 1);
    task.cancel("now", Some(Duration::from_millis(30)))
        .await
        .unwrap();
    assert_eq!(task.wait().await.unwrap().state, TaskState::Cancelled);
    engine.stop().await;
    assert!(worker.status().running.is_empty());
}
