//! Tasks whose retention has ended, over everything that a process has.

use flowkit_runtime::{
    Batch, BatchResult, ClientError, CoordinatorSettings, Engine, ReplyError, RerunOptions,
    SubmitOptions, TaskState, handler_fn,
};
use serde_json::{Value, json};
use std::time::Duration;

use crate::support::{one_node, worker};

#[tokio::test]
async fn a_finished_task_is_swept_and_its_id_stays_taken() {
    let engine = Engine::memory();
    let settings = CoordinatorSettings::default()
        .retention_finished_sec(0.05)
        .sweep_interval_sec(0.02);
    engine.start_with(settings).await.unwrap();
    let _worker = worker(
        &engine,
        "echo",
        handler_fn(|_cx, batch: Batch<Value>| async move { Ok(BatchResult::of(batch.payload)) }),
    );
    let client = engine.client();
    let graph = one_node("echo", json!({"n": 1}));
    let key = || SubmitOptions::with_key("k");
    let task = client.submit(&graph, key()).await.unwrap();
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let swept = async {
        loop {
            match task.status().await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(20), swept)
        .await
        .unwrap();
    assert!(matches!(error, ClientError::Swept(_)), "{error}");
    assert!(error.to_string().contains("retention ended"), "{error}");
    assert!(client.list(None, 10).await.unwrap().0.is_empty());
    let error = task.artifacts("n").all().await.unwrap_err();
    assert!(matches!(error, ClientError::Swept(_)), "{error}");
    let error = task.rerun(RerunOptions::all()).await.unwrap_err();
    assert_eq!(error.refusal(), Some(ReplyError::Swept), "{error}");
    // How it ended is known, and what is done is not done again.
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let same = client.submit(&graph, key()).await.unwrap();
    assert_eq!(same.id(), task.id());
    assert!(matches!(same.status().await, Err(ClientError::Swept(_))));
    let other = one_node("echo", json!({"n": 2}));
    let error = client.submit(&other, key()).await.unwrap_err();
    assert_eq!(error.refusal(), Some(ReplyError::IdempotencyConflict));
    engine.stop().await;
}

#[tokio::test]
async fn a_retention_that_makes_no_sense_does_not_start() {
    let engine = Engine::memory();
    let settings = CoordinatorSettings::default()
        .retention_finished_sec(f64::NAN)
        .retention_failed_sec(-1.0)
        .sweep_interval_sec(0.0);
    let error = engine.start_with(settings).await.unwrap_err().to_string();
    for key in [
        "retention_finished_sec",
        "retention_failed_sec",
        "sweep_interval_sec",
    ] {
        assert!(error.contains(key), "{error}");
    }
}
