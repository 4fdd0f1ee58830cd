//! How handlers are told to end.

use flowkit_runtime::{
    Batch, BatchResult, CancelReason, HandlerError, Json, NodeState, RunContext, TaskState,
    handler_fn,
};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

use crate::support::{engine, one_node, submit, worker};

#[tokio::test]
async fn a_running_handler_sees_who_cancelled_it() {
    let engine = engine().await;
    let (seen, mut reasons) = mpsc::unbounded_channel();
    let began = Arc::new(Semaphore::new(0));
    let begin = began.clone();
    worker(
        &engine,
        "r",
        handler_fn(move |cx: RunContext, _: Batch<Json>| {
            let (seen, begin) = (seen.clone(), begin.clone());
            async move {
                begin.add_permits(1);
                let info = cx.cancelled().await;
                let _ = seen.send(info.reason);
                Err::<BatchResult<()>, _>(HandlerError::cancelled())
            }
        }),
    );
    let task = submit(&engine, &one_node("r", json!({}))).await;
    began.acquire().await.unwrap().forget();
    let state = task.cancel("changed my mind", None).await.unwrap();
    assert_eq!(state, Some(TaskState::Cancelling));
    assert_eq!(reasons.recv().await, Some(CancelReason::UserRequest));
    assert_eq!(task.wait().await.unwrap().state, TaskState::Cancelled);
    let status = task.status().await.unwrap();
    assert_eq!(status.node("n").unwrap().state, NodeState::Cancelled);
    engine.stop().await;
}

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

/// It blocks its thread, so that even dropping it is of no use.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_cannot_be_dropped_is_shown_as_abandoned_until_it_returns() {
    let engine = engine().await;
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let began = Arc::new(Semaphore::new(0));
    let begin = began.clone();
    let worker = worker(
        &engine,
        "r",
        handler_fn(move |_, _: Batch<Json>| {
            let (begin, blocked) = (begin.clone(), blocked.clone());
            async move {
                begin.add_permits(1);
                let _ = blocked.lock().unwrap().recv();
                Ok(BatchResult::of(1))
            }
        }),
    );
    let task = submit(&engine, &one_node("r", json!({}))).await;
    began.acquire().await.unwrap().forget();
    assert!(!worker.status().running[0].abandoned);
    task.cancel("now", Some(Duration::from_millis(10)))
        .await
        .unwrap();
    assert_eq!(task.wait().await.unwrap().state, TaskState::Cancelled);
    let running = worker.status().running;
    assert_eq!(running.len(), 1);
    assert!(running[0].abandoned && running[0].cancelled);
    assert_eq!(worker.vitals().await.unwrap().abandoned, 1);
    // It says so, to whoever looks from outside.
    let client = engine.client();
    let heard = async || client.presence().await.unwrap().workers[worker.id()].abandoned;
    let told = async |number| {
        while heard().await != number {
            tokio::task::yield_now().await;
        }
    };
    let soon = Duration::from_secs(30);
    let one = tokio::time::timeout(soon, told(1)).await;
    one.expect("it says that a handler was abandoned");
    release.send(()).unwrap();
    let none = tokio::time::timeout(soon, told(0)).await;
    none.expect("it says that the handler is over");
    assert!(worker.status().running.is_empty());
    engine.stop().await;
}

#[tokio::test]
async fn a_failed_node_ends_its_neighbours() {
    let engine = engine().await;
    let (seen, mut reasons) = mpsc::unbounded_channel();
    let began = Arc::new(Semaphore::new(0));
    let begin = began.clone();
    worker(
        &engine,
        "slow",
        handler_fn(move |cx: RunContext, _: Batch<Json>| {
            let (seen, begin) = (seen.clone(), begin.clone());
            async move {
                begin.add_permits(1);
                let _ = seen.send(cx.cancelled().await.reason);
                Err::<BatchResult<()>, _>(HandlerError::cancelled())
            }
        }),
    );
    worker(
        &engine,
        "bad",
        handler_fn(move |_, _: Batch<Json>| {
            let began = began.clone();
            async move {
                began.acquire().await?.forget();
                Err::<BatchResult<()>, _>(HandlerError::permanent("broken", "on purpose"))
            }
        }),
    );
    let graph = json!({
        "nodes": [{"node_id": "a", "type": "slow"}, {"node_id": "b", "type": "bad"}],
        "edges": [],
    });
    let task = submit(&engine, &graph).await;
    assert_eq!(reasons.recv().await, Some(CancelReason::TaskFailed));
    let outcome = task.wait().await.unwrap();
    assert_eq!(outcome.state, TaskState::Failed);
    assert_eq!(outcome.failure.unwrap().node_id.as_str(), "b");
    engine.stop().await;
}
