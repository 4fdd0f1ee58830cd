//! Running a settled task again, over everything that a process has.

use flowkit_runtime::{
    Batch, BatchResult, ClientError, HandlerError, NodeState, ReplyError, RerunOptions, TaskId,
    TaskState, handler_fn,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::support::{engine, submit, worker};

/// `src` gives one artifact, `sink` reads it.
fn graph() -> Value {
    json!({"nodes": [
        {"node_id": "src", "type": "src"},
        {"node_id": "sink", "type": "sink", "depends_on": ["src"],
         "retry_policy": {"max": 1},
         "io": {"input_inline": {"input_adapter": "pull.from_artifacts",
                                 "input_args": {"from_node": "src"}}}},
    ]})
}

#[tokio::test]
async fn a_rerun_reads_what_the_old_task_kept() {
    let engine = engine().await;
    let drawn = Arc::new(AtomicU32::new(0));
    let broken = Arc::new(AtomicBool::new(true));
    let count = drawn.clone();
    let _src = worker(
        &engine,
        "src",
        handler_fn(move |_cx, _batch: Batch<Value>| {
            let n = count.fetch_add(1, Ordering::SeqCst);
            async move { Ok(BatchResult::of(json!({ "n": n }))) }
        }),
    );
    let fails = broken.clone();
    let _sink = worker(
        &engine,
        "sink",
        handler_fn(move |_cx, batch: Batch<Value>| {
            let fails = fails.load(Ordering::SeqCst);
            async move {
                if fails {
                    return Err(HandlerError::permanent("broken", "not yet"));
                }
                Ok(BatchResult::of(batch.payload["meta"].clone()))
            }
        }),
    );
    let first = submit(&engine, &graph()).await;
    assert_eq!(first.wait().await.unwrap().state, TaskState::Failed);
    broken.store(false, Ordering::SeqCst);

    let again = first.rerun(RerunOptions::with_key("again")).await.unwrap();
    assert_eq!(again.wait().await.unwrap().state, TaskState::Finished);
    assert_eq!(drawn.load(Ordering::SeqCst), 1, "`src` is kept");
    let status = again.status().await.unwrap();
    assert_eq!(status.rerun_of.as_ref(), Some(first.id()));
    let src = status.node("src").unwrap();
    assert_eq!((src.state, src.batches), (NodeState::Finished, 1));
    assert_eq!(src.kept_from.as_ref(), Some(first.id()));
    for node in ["src", "sink"] {
        let artifacts = again.artifacts(node).all().await.unwrap();
        let values: Vec<Value> = artifacts
            .iter()
            .map(|a| a.value.decode().unwrap())
            .collect();
        assert_eq!(values, [json!({"n": 0})], "{node}");
    }
    // The old task is as it was.
    assert_eq!(first.status().await.unwrap().state, TaskState::Failed);

    // The same again is the same task; another one under the key is not.
    let same = first.rerun(RerunOptions::with_key("again")).await.unwrap();
    assert_eq!(same.id(), again.id());
    let mut other = RerunOptions::with_key("again");
    other.all = true;
    let error = first.rerun(other).await.unwrap_err();
    assert_eq!(error.refusal(), Some(ReplyError::IdempotencyConflict));

    let third = again.rerun(RerunOptions::all()).await.unwrap();
    assert_eq!(third.wait().await.unwrap().state, TaskState::Finished);
    assert_eq!(drawn.load(Ordering::SeqCst), 2);
    engine.stop().await;
}

#[tokio::test]
async fn what_cannot_run_again_is_refused() {
    let engine = engine().await;
    let running = submit(&engine, &graph()).await;
    let error = running.rerun(RerunOptions::default()).await.unwrap_err();
    assert_eq!(error.refusal(), Some(ReplyError::NotSettled), "{error}");
    running.cancel("", None).await.unwrap();
    running.wait().await.unwrap();
    let error = running
        .rerun(RerunOptions::from_nodes(["src", "x", "y"]))
        .await
        .unwrap_err();
    let ClientError::Refused { kind, faults, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((*kind, faults.len()), (ReplyError::Invalid, 2), "{error}");
    let error = running
        .rerun(RerunOptions::from_nodes(["a\0b"]))
        .await
        .unwrap_err();
    assert_eq!(error.refusal(), Some(ReplyError::Invalid), "{error}");
    let nobody = engine.client().task(TaskId::new("nobody").unwrap());
    let error = nobody.rerun(RerunOptions::all()).await.unwrap_err();
    assert_eq!(error.refusal(), Some(ReplyError::NotFound), "{error}");
    engine.stop().await;
}
