//! Workers coming, sharing and going.

use flowkit_runtime::{
    Batch, BatchResult, Engine, HandlerError, Json, RunContext, TaskState, Worker, WorkerSettings,
    handler_fn,
};
use futures_util::FutureExt;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Barrier, Semaphore, oneshot};
use tokio::time::Instant;

use crate::support::{engine, one_node, submit, worker};

#[tokio::test]
async fn every_fault_of_a_worker_is_reported_at_once() {
    let engine = Engine::memory();
    let handler = || handler_fn(|_, _: Batch<Json>| async move { Ok(BatchResult::of(1)) });
    let error = Worker::builder(&engine)
        .worker_id("")
        .capacity(0)
        .role("a", handler())
        .role("a", handler())
        .role("b,c", handler())
        .settings(
            WorkerSettings::default()
                .hb_interval_sec(0.0)
                .worker_version("x".repeat(201)),
        )
        .build()
        .unwrap_err();
    assert_eq!(error.faults.len(), 6, "{error}");
    let of_version = "worker_version: must be at most 200 bytes, not 201";
    assert!(error.to_string().contains(of_version), "{error}");
    let error = Worker::builder(&engine).build().unwrap_err();
    assert_eq!(error.faults.len(), 1, "{error}");
}

#[tokio::test]
async fn several_workers_share_a_role() {
    let engine = engine().await;
    // Three nodes that end only when all three run at the same time, on workers of one slot.
    let together = Arc::new(Barrier::new(3));
    for _ in 0..3 {
        let together = together.clone();
        worker(
            &engine,
            "r",
            handler_fn(move |cx: RunContext, _: Batch<Json>| {
                let together = together.clone();
                async move {
                    together.wait().await;
                    Ok(BatchResult::of(cx.info().worker_id.to_string()))
                }
            }),
        );
    }
    let nodes: Vec<_> = (0..3)
        .map(|n| json!({"node_id": format!("n{n}"), "type": "r"}))
        .collect();
    let task = submit(&engine, &json!({"nodes": nodes, "edges": []})).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let mut workers = BTreeSet::new();
    for n in 0..3 {
        let artifacts = task.artifacts(&format!("n{n}")).all().await.unwrap();
        workers.insert(artifacts[0].value.clone());
    }
    assert_eq!(workers.len(), 3);
    assert_eq!(engine.client().workers().await.unwrap().len(), 3);
    engine.stop().await;
}

#[tokio::test]
async fn a_worker_of_many_slots_runs_as_many_and_no_more() {
    let engine = engine().await;
    let running = Arc::new(Semaphore::new(4));
    let handler = handler_fn(move |_, _: Batch<Json>| {
        let running = running.clone();
        async move {
            // One permit per slot: a fifth run would find none.
            let permit = running.try_acquire()?;
            tokio::task::yield_now().await;
            drop(permit);
            Ok(BatchResult::of(1))
        }
    });
    let worker = Worker::builder(&engine)
        .role("r", handler)
        .capacity(4)
        .build();
    worker.unwrap().start();
    let nodes: Vec<_> = (0..100)
        .map(|n| json!({"node_id": format!("n{n}"), "type": "r", "retry_policy": {"max": 1}}))
        .collect();
    let task = submit(&engine, &json!({"nodes": nodes, "edges": []})).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    engine.stop().await;
}

#[tokio::test]
async fn a_worker_runs_until_its_shutdown_is_ready() {
    let engine = engine().await;
    let handler = handler_fn(|_, _: Batch<Json>| async move { Ok(BatchResult::of(1)) });
    let worker = Worker::builder(&engine).role("r", handler).build().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(worker.run(async {
        let _ = stopped.await;
    }));
    let task = submit(&engine, &one_node("r", json!({}))).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    engine.stop().await;
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_after_the_engine_was_stopped_and_started() {
    let engine = engine().await;
    let began = Arc::new(Semaphore::new(0));
    let begin = began.clone();
    worker(
        &engine,
        "r",
        handler_fn(move |cx: RunContext, _: Batch<Json>| {
            let begin = begin.clone();
            async move {
                begin.add_permits(1);
                cx.cancelled().await;
                Err::<BatchResult<u32>, _>(HandlerError::cancelled())
            }
        }),
    );
    let task = submit(&engine, &one_node("r", json!({}))).await;
    began.acquire().await.unwrap().forget();
    engine.stop().await;
    assert!(!task.status().await.unwrap().settled);

    let started = Instant::now();
    engine.start().await.unwrap();
    worker(
        &engine,
        "r",
        handler_fn(|_, _: Batch<Json>| async move { Ok(BatchResult::of(2)) }),
    );
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    // Nothing was sent to the worker that is gone.
    assert!(
        started.elapsed() < Duration::from_millis(50),
        "{:?}",
        started.elapsed()
    );
    engine.stop().await;
}

/// A time-out around it is a user's right.
#[tokio::test]
async fn a_stop_that_is_given_up_is_gone_on_with() {
    let engine = engine().await;
    let ok = || handler_fn(|_, _: Batch<Json>| async move { Ok(BatchResult::of(1)) });
    let first = worker(&engine, "r", ok());
    let task = submit(&engine, &one_node("r", json!({}))).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    assert!(engine.stop().now_or_never().is_none(), "it takes a while");
    engine.stop().await;
    assert!(first.has_stopped() && engine.workers().is_empty());
    // It begins again, with nothing left of the first time.
    engine.start().await.unwrap();
    worker(&engine, "r", ok());
    let task = submit(&engine, &one_node("r", json!({}))).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    engine.stop().await;
}
