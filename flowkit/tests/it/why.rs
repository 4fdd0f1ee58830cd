//! `TaskHandle::why` on the durable engine while it runs: what a limit holds back, and how long.

use flowkit::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// An engine over a folder with one worker of four slots for `hold`, whose batches take until they are
/// cancelled, and for `quick`.
async fn engine(folder: &std::path::Path, limits: Limits) -> Engine {
    let store = EmbeddedStore::open(folder).expect("a store");
    let engine = Engine::local(Arc::new(store)).await.expect("an engine");
    let settings = CoordinatorSettings::default().limits(limits);
    engine.start_with(settings).await.expect("started");
    let hold = handler_fn(|cx: RunContext, _: Batch<Value>| async move {
        cx.cancelled().await;
        Ok(BatchResult::of(()))
    });
    let quick = handler_fn(|_: RunContext, _: Batch<Value>| async { Ok(BatchResult::of(())) });
    let worker = Worker::builder(&engine)
        .worker_id("w")
        .capacity(4)
        .settings(WorkerSettings::default().shutdown_grace_sec(0.0))
        .role("hold", hold)
        .role("quick", quick);
    worker.build().expect("a worker").start();
    engine
}

async fn submitted(engine: &Engine, role: &str, options: SubmitOptions) -> TaskHandle {
    let graph = json!({"nodes": [{"node_id": "n", "type": role, "io": {"input_inline": {}}}]});
    let task = engine.client().submit(&graph, options).await;
    task.expect("submitted")
}

async fn until(task: &TaskHandle, state: NodeState) {
    let mut watch = task.watch(Duration::from_millis(10));
    while let Some(status) = watch.next().await.expect("a status") {
        if status.nodes[0].state == state {
            return;
        }
    }
}

async fn of(task: &TaskHandle) -> (WaitsFor, String) {
    let mut why = task.why().await.expect("an answer");
    let node = why.nodes.remove(0);
    (node.waits_for, node.why)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_that_holds_a_node_back_is_named_with_how_many_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let role = |name: &str| name.parse::<Role>().expect("a role");
    let limits = Limits::default()
        .of_key("tenant-7", Limit::running(1))
        .of_type(role("quick"), Limit::starts(1, 3_600_000));
    let engine = engine(folder.path(), limits).await;
    let keyed = || SubmitOptions::default().limit_key("tenant-7");
    let first = submitted(&engine, "hold", keyed()).await;
    until(&first, NodeState::Running).await;
    let second = submitted(&engine, "hold", keyed()).await;
    let full = "is ready, and limit `tenant-7` is full: 1 of 1 nodes run".to_owned();
    assert_eq!(of(&second).await, (WaitsFor::Limit, full));
    let whole = second.why().await.expect("an answer").why;
    assert!(whole.contains("limit `tenant-7` is full"), "{whole}");
    // Another key's task is not held back by it.
    let other = submitted(&engine, "hold", SubmitOptions::default().limit_key("t")).await;
    until(&other, NodeState::Running).await;

    let quick = submitted(&engine, "quick", SubmitOptions::default()).await;
    quick.wait().await.expect("it ends");
    let next = submitted(&engine, "quick", SubmitOptions::default()).await;
    let starts = "is ready, and the limit of type `quick` allows 1 starts within any 60 min: it \
                  starts once an earlier start is older than that";
    assert_eq!(of(&next).await, (WaitsFor::Limit, starts.to_owned()));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_start_is_told_as_such() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = engine(folder.path(), Limits::default()).await;
    let later = SubmitOptions::default().start_delay(Duration::from_secs(86_400));
    let task = submitted(&engine, "quick", later).await;
    let (waits_for, why) = of(&task).await;
    assert_eq!(waits_for, WaitsFor::Delay);
    assert!(
        why.starts_with("starts in 23 h: ") || why.starts_with("starts in 24 h: "),
        "{why}"
    );
    assert!(
        why.ends_with(": its submission asked for a delay of 24 h"),
        "{why}"
    );
    engine.stop().await;
}
