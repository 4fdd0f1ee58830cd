//! Workers coming, sharing and going.

use flowkit_runtime::{
    Batch, BatchResult, CancelReason, Engine, HandlerError, Json, RunContext, TaskState, Worker,
    WorkerError, WorkerSettings, handler_fn,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Barrier, Semaphore, mpsc, oneshot};
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
        .settings(WorkerSettings::default().hb_interval_sec(0.0))
        .build()
        .unwrap_err();
    assert_eq!(error.faults.len(), 5, "{error}");
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
async fn five_workers_share_one_role_evenly() {
    let engine = engine().await;
    // Nodes that end only when all of their task run: the first task fills every slot there is, so
    // all five workers are known; the second has far more slots to choose from than it needs.
    let tasks = [100, 40];
    let together = Arc::new(tasks.map(Barrier::new));
    for _ in 0..5 {
        let together = together.clone();
        let handler = handler_fn(
            move |cx: RunContext, batch: Batch<BTreeMap<String, usize>>| {
                let together = together.clone();
                async move {
                    together[batch.payload["task"]].wait().await;
                    Ok(BatchResult::of(cx.info().worker_id.to_string()))
                }
            },
        );
        let built = Worker::builder(&engine)
            .role("r", handler)
            .capacity(20)
            .build();
        built.unwrap().start();
    }
    for (index, nodes) in tasks.into_iter().enumerate() {
        let ids: Vec<_> = (0..nodes).map(|n| format!("n{n}")).collect();
        let graph: Vec<_> = ids
            .iter()
            .map(|id| json!({"node_id": id, "type": "r", "io": {"input_inline": {"task": index}}}))
            .collect();
        let task = submit(&engine, &json!({"nodes": graph})).await;
        assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
        let mut shares = BTreeMap::new();
        for id in &ids {
            let artifacts = task.artifacts(id).all().await.unwrap();
            *shares.entry(artifacts[0].value.clone()).or_insert(0) += 1;
        }
        assert_eq!(shares.into_values().collect::<Vec<_>>(), [nodes / 5; 5]);
    }
    engine.stop().await;
}

#[tokio::test]
async fn the_roles_of_a_worker_share_its_slots() {
    let engine = engine().await;
    let running = Arc::new(Semaphore::new(2));
    let handler = || {
        let running = running.clone();
        handler_fn(move |_, _: Batch<Json>| {
            let running = running.clone();
            async move {
                // One permit per slot: a third run, of whichever role, would find none.
                let permit = running.try_acquire()?;
                tokio::task::yield_now().await;
                drop(permit);
                Ok(BatchResult::of(1))
            }
        })
    };
    let worker = Worker::builder(&engine)
        .role("a", handler())
        .role("b", handler())
        .role("c", handler())
        .capacity(2)
        .build();
    worker.unwrap().start();
    let nodes: Vec<_> = (0..60)
        .map(|n| {
            let role = ["a", "b", "c"][n % 3];
            json!({"node_id": format!("n{n}"), "type": role, "retry_policy": {"max": 1}})
        })
        .collect();
    let task = submit(&engine, &json!({"nodes": nodes})).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    engine.stop().await;
}

#[tokio::test]
async fn a_node_goes_only_to_a_worker_of_its_role() {
    let engine = engine().await;
    for role in ["cpu", "io", "gpu"] {
        worker(
            &engine,
            role,
            handler_fn(move |_, _: Batch<Json>| async move { Ok(BatchResult::of(role)) }),
        );
    }
    let nodes: Vec<_> = (0..9)
        .map(|n| json!({"node_id": format!("n{n}"), "type": (["cpu", "io", "gpu"][n % 3])}))
        .collect();
    let task = submit(&engine, &json!({"nodes": nodes})).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    for n in 0..9 {
        let artifacts = task.artifacts(&format!("n{n}")).all().await.unwrap();
        let role = format!("{:?}", ["cpu", "io", "gpu"][n % 3]);
        assert_eq!(artifacts[0].value.text(), role);
    }
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
async fn a_draining_worker_hands_its_node_over() {
    let engine = engine().await;
    let (seen, mut reasons) = mpsc::unbounded_channel();
    let began = Arc::new(Semaphore::new(0));
    let begin = began.clone();
    let leaving = worker(
        &engine,
        "r",
        handler_fn(move |cx: RunContext, _: Batch<Json>| {
            let (seen, begin) = (seen.clone(), begin.clone());
            async move {
                begin.add_permits(1);
                let _ = seen.send(cx.cancelled().await.reason);
                Err::<BatchResult<u32>, _>(HandlerError::cancelled())
            }
        }),
    );
    let task = submit(&engine, &one_node("r", json!({}))).await;
    began.acquire().await.unwrap().forget();
    worker(
        &engine,
        "r",
        handler_fn(|_, _: Batch<Json>| async move { Ok(BatchResult::of(2)) }),
    );
    leaving.stop().await.unwrap();
    assert_eq!(reasons.recv().await, Some(CancelReason::Shutdown));
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let status = task.status().await.unwrap();
    let node = status.node("n").unwrap();
    // Handed over, not failed and not lost: the attempt is the same one.
    assert_eq!((node.attempts.0, node.grants), (1, 2));
    assert_eq!((node.failures, node.losses), (0, 0));
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

#[tokio::test]
async fn an_older_process_of_the_same_worker_id_ends() {
    let engine = engine().await;
    let handler = || handler_fn(|_, _: Batch<Json>| async move { Ok(BatchResult::of(1)) });
    let build = || {
        Worker::builder(&engine)
            .worker_id("w")
            .role("r", handler())
            .build()
    };
    let older = build().unwrap().start();
    let task = submit(&engine, &one_node("r", json!({}))).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let newer = build().unwrap().start();
    assert!(matches!(
        older.stopped().await,
        Err(WorkerError::Superseded)
    ));
    let task = submit(&engine, &one_node("r", json!({}))).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    assert!(!newer.status().stopping);
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

#[tokio::test]
async fn what_a_worker_runs_and_when_it_was_heard_is_there_to_be_asked() {
    let engine = engine().await;
    let (began, mut begun) = mpsc::channel(1);
    let handle = worker(
        &engine,
        "r",
        handler_fn(move |cx: RunContext, _: Batch<Json>| {
            let began = began.clone();
            async move {
                began.send(()).await.expect("the test listens");
                cx.cancelled().await;
                Err::<BatchResult<u32>, _>(HandlerError::cancelled())
            }
        }),
    );
    let task = submit(&engine, &one_node("r", json!({}))).await;
    begun.recv().await.expect("it runs");
    let client = engine.client();
    let views = client.worker_views().await.unwrap();
    assert_eq!(views.len(), 1);
    let view = client.worker(handle.id()).await.unwrap().expect("known");
    assert_eq!(view.record.incarnation.0, 1);
    let heard = view.heard.as_ref().expect("it announced itself");
    assert_eq!(heard.status, "online");
    assert_eq!((heard.incarnation.0, heard.conflicts), (1, 0));
    assert!(heard.heartbeat_age_ms.is_some(), "it accepted its START");
    let [run] = &view.runs[..] else {
        panic!("one run: {view:?}");
    };
    assert_eq!((&run.node.task_id, run.token.0), (task.id(), 1));
    assert_eq!(run.beat.map(|(batches, _)| batches), Some(0));
    assert_eq!(run.told_to_end, None);
    assert!(client.unreadable().await.unwrap().is_empty());
    let nobody = flowkit_runtime::WorkerId::new("nobody").unwrap();
    assert_eq!(client.worker(&nobody).await.unwrap(), None);

    task.cancel("enough", None).await.unwrap();
    task.wait().await.unwrap();
    handle.stop().await.unwrap();
    let view = client.worker(handle.id()).await.unwrap().expect("known");
    assert!(view.runs.is_empty());
    assert_eq!(view.heard.expect("it said goodbye").status, "offline");
    assert_eq!(client.presence().await.unwrap().shards.len(), 1);
    engine.stop().await;
}
