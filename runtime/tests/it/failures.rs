//! Handlers that fail, and what is left of their work.

use flowkit_runtime::{
    Batch, BatchResult, BatchStream, Handler, HandlerError, Json, NodeState, RunContext, TaskInput,
    TaskState, handler_fn,
};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{engine, one_node, submit, worker};

#[tokio::test]
async fn a_transient_failure_is_repeated_until_it_succeeds() {
    let engine = engine().await;
    let tries = Arc::new(AtomicU32::new(0));
    worker(
        &engine,
        "r",
        handler_fn(move |_, _: Batch<Json>| {
            let number = tries.fetch_add(1, Ordering::Relaxed);
            async move {
                if number < 2 {
                    "x".parse::<u32>()?;
                }
                Ok(BatchResult::of(number).metric("done", 1))
            }
        }),
    );
    let task = submit(&engine, &one_node("r", json!({}))).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let status = task.status().await.unwrap();
    let node = status.node("n").unwrap();
    assert_eq!((node.attempts.0, node.failures, node.batches), (3, 2, 1));
    assert_eq!(node.totals["done"].count, 1);
    assert_eq!(
        task.artifacts("n").all().await.unwrap()[0].value.text(),
        "2"
    );
    engine.stop().await;
}

#[tokio::test]
async fn used_up_retries_fail_the_task_with_the_reason() {
    let engine = engine().await;
    worker(
        &engine,
        "r",
        handler_fn(|_, _: Batch<Json>| async move {
            Err::<BatchResult<()>, _>(HandlerError::transient("flaky", "the server is away"))
        }),
    );
    let task = submit(&engine, &one_node("r", json!({}))).await;
    let outcome = task.wait().await.unwrap();
    assert_eq!(outcome.state, TaskState::Failed);
    let failure = outcome.failure.unwrap();
    assert_eq!(
        (&*failure.reason_code, &*failure.error),
        ("flaky", "the server is away")
    );
    assert_eq!(task.status().await.unwrap().node("n").unwrap().failures, 3);
    engine.stop().await;
}

#[tokio::test]
async fn a_permanent_failure_is_not_repeated() {
    let engine = engine().await;
    worker(
        &engine,
        "r",
        handler_fn(|_, _: Batch<Json>| async move {
            Err::<BatchResult<()>, _>(HandlerError::permanent("gone", "no such page"))
        }),
    );
    let task = submit(&engine, &one_node("r", json!({}))).await;
    let outcome = task.wait().await.unwrap();
    assert_eq!(&*outcome.failure.unwrap().reason_code, "gone");
    assert_eq!(task.status().await.unwrap().node("n").unwrap().failures, 1);
    engine.stop().await;
}

#[tokio::test]
async fn a_panic_is_one_failed_attempt_and_the_worker_lives() {
    let engine = engine().await;
    let tries = Arc::new(AtomicU32::new(0));
    let worker = worker(
        &engine,
        "r",
        handler_fn(move |_, _: Batch<Json>| {
            let number = tries.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(number > 0, "the first try panics");
                Ok(BatchResult::of(number))
            }
        }),
    );
    let task = submit(&engine, &one_node("r", json!({}))).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let status = task.status().await.unwrap();
    assert_eq!(status.node("n").unwrap().failures, 1);
    assert!(!worker.status().stopping);
    engine.stop().await;
}

#[tokio::test]
async fn input_of_another_shape_fails_for_good() {
    let engine = engine().await;
    worker(
        &engine,
        "r",
        handler_fn(|_, batch: Batch<Vec<u32>>| async move { Ok(BatchResult::of(batch.payload)) }),
    );
    let task = submit(&engine, &one_node("r", json!({"not": "a list"}))).await;
    let failure = task.wait().await.unwrap().failure.unwrap();
    assert_eq!(&*failure.reason_code, "bad_input");
    assert_eq!(task.status().await.unwrap().node("n").unwrap().failures, 1);
    engine.stop().await;
}

/// Ten batches; says where it resumed. Fails in batch 6 after half of it, once.
struct Resuming {
    failed: AtomicU32,
    resumed_at: AtomicU32,
}

impl Handler for Resuming {
    type Run = ();
    type Input = u32;
    type Output = u32;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        cx: &RunContext,
        _: TaskInput,
    ) -> Result<BatchStream<u32>, HandlerError> {
        let done = cx.checkpoint::<u32>()?.map_or(0, |last| last + 1);
        self.resumed_at.store(done, Ordering::Relaxed);
        let batches = (done..10).map(|n| Batch::new(format!("b{n}"), n));
        Ok(BatchStream::iter(batches))
    }

    async fn process(
        &self,
        cx: &RunContext,
        (): &mut (),
        batch: Batch<u32>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        let number = batch.payload;
        if number == 6 {
            if self.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                cx.save_checkpoint(&1_000).await?;
                return Err(HandlerError::transient("half", "stopped half way"));
            }
            // Only the same batch sees what was saved while it was in work.
            assert_eq!(cx.batch_checkpoint::<u32>()?, Some(1_000));
        } else {
            assert_eq!(cx.batch_checkpoint::<u32>()?, None);
        }
        cx.save_checkpoint(&number).await?;
        Ok(BatchResult::of(number).metric("number", number))
    }
}

#[tokio::test]
async fn a_failed_attempt_resumes_behind_the_last_accepted_batch() {
    let engine = engine().await;
    let handler = Arc::new(Resuming {
        failed: AtomicU32::new(0),
        resumed_at: AtomicU32::new(0),
    });
    worker(&engine, "r", handler.clone());
    let task = submit(&engine, &one_node("r", json!({}))).await;
    let outcome = task.wait().await.unwrap();
    assert_eq!(outcome.state, TaskState::Finished, "{:?}", outcome.failure);
    assert_eq!(handler.resumed_at.load(Ordering::Relaxed), 6);
    let status = task.status().await.unwrap();
    let node = status.node("n").unwrap();
    assert_eq!(node.state, NodeState::Finished);
    assert_eq!((node.attempts.0, node.batches), (2, 10));
    assert_eq!(node.totals["number"].sum.0, 45.0);
    assert_eq!(node.checkpoint.as_ref().unwrap().text(), "9");
    let artifacts = task.artifacts("n").all().await.unwrap();
    let values: Vec<_> = artifacts
        .iter()
        .map(|a| a.value.text().to_owned())
        .collect();
    assert_eq!(values, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    engine.stop().await;
}

/// Two batches that mark the node's result; the second fails once, after it has.
struct Marking;

impl Handler for Marking {
    type Run = ();
    type Input = u32;
    type Output = u32;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        cx: &RunContext,
        _: TaskInput,
    ) -> Result<BatchStream<u32>, HandlerError> {
        let done = cx.checkpoint::<u32>()?.map_or(0, |last| last + 1);
        let batches = (done..3).map(|n| Batch::new(format!("b{n}"), n));
        Ok(BatchStream::iter(batches))
    }

    async fn process(
        &self,
        cx: &RunContext,
        (): &mut (),
        batch: Batch<u32>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        let number = batch.payload;
        cx.save_checkpoint(&number).await?;
        let first = cx.info().epoch.0 == 1;
        if number == 0 || first {
            let marked = json!({"by": number, "first": first});
            cx.artifacts().mark_complete(&marked)?;
        }
        if number == 1 && first {
            return Err(HandlerError::transient("half", "it broke behind its mark"));
        }
        Ok(BatchResult::of(number))
    }
}

#[tokio::test]
async fn a_result_that_was_marked_in_an_accepted_batch_outlives_a_failed_run() {
    let engine = engine().await;
    worker(&engine, "r", Marking);
    let task = submit(&engine, &one_node("r", json!({}))).await;
    assert_eq!(task.wait().await.unwrap().state, TaskState::Finished);
    let status = task.status().await.unwrap();
    let node = status.node("n").unwrap();
    assert_eq!((node.attempts.0, node.batches), (2, 3));
    // Not that of the batch that failed.
    let result: serde_json::Value = node.result.as_ref().unwrap().decode().unwrap();
    assert_eq!(result, json!({"by": 0, "first": true}));
    engine.stop().await;
}

#[tokio::test]
async fn the_same_batch_uid_twice_is_a_permanent_failure() {
    struct Twice;
    impl Handler for Twice {
        type Run = ();
        type Input = u32;
        type Output = u32;
        async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
            Ok(())
        }
        async fn batches(
            &self,
            _: &RunContext,
            _: TaskInput,
        ) -> Result<BatchStream<u32>, HandlerError> {
            Ok(BatchStream::iter([1, 2].map(|n| Batch::new("same", n))))
        }
        async fn process(
            &self,
            _: &RunContext,
            (): &mut (),
            batch: Batch<u32>,
        ) -> Result<BatchResult<u32>, HandlerError> {
            Ok(BatchResult::of(batch.payload))
        }
    }
    let engine = engine().await;
    worker(&engine, "r", Twice);
    let task = submit(&engine, &one_node("r", json!({}))).await;
    let failure = task.wait().await.unwrap().failure.unwrap();
    assert_eq!(&*failure.reason_code, "duplicate_batch_uid");
    engine.stop().await;
}

#[tokio::test]
async fn a_checkpoint_over_the_limit_is_a_permanent_failure() {
    let engine = engine().await;
    worker(
        &engine,
        "r",
        handler_fn(|cx: RunContext, _: Batch<Json>| async move {
            cx.save_checkpoint(&"x".repeat(65 * 1024)).await?;
            Ok(BatchResult::of(1))
        }),
    );
    let task = submit(&engine, &one_node("r", json!({}))).await;
    let failure = task.wait().await.unwrap().failure.unwrap();
    assert_eq!(&*failure.reason_code, "checkpoint_too_large");
    engine.stop().await;
}
