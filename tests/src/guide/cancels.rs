//! Cancels: what a handler is told, and what becomes of one that does not listen.

#![allow(missing_docs, reason = "cases are named for what they show")]

use flowkit_runtime::{
    Batch, BatchResult, BatchStream, CancelReason, CoordinatorSettings, Handler, HandlerError,
    Json, NodeState, Pulled, RunContext, TaskHandle, TaskInput, TaskState, WaitsFor,
    WorkerSettings, handler_fn,
};
use serde_json::json;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::{Cut, Ground, Site, artifacts, finished, one_node, until};

/// What a handler was told: why, and how much time is left.
type Told = (CancelReason, Duration);

/// Says that it began, waits until it is told to end, and says what it was told.
fn listener() -> (
    impl Handler,
    mpsc::UnboundedReceiver<()>,
    mpsc::UnboundedReceiver<Told>,
) {
    let (begin, began) = mpsc::unbounded_channel();
    let (tell, told) = mpsc::unbounded_channel();
    let handler = handler_fn(move |cx: RunContext, _: Batch<Json>| {
        let (begin, tell) = (begin.clone(), tell.clone());
        async move {
            if cx.batch_checkpoint::<u32>()?.is_some() {
                return Ok(BatchResult::of("resumed"));
            }
            cx.save_checkpoint(&7).await?;
            let _ = begin.send(());
            let info = cx.cancelled().await;
            let left = info.deadline.saturating_duration_since(Instant::now());
            let _ = tell.send((info.reason, left));
            Err(HandlerError::cancelled())
        }
    });
    (handler, began, told)
}

pub async fn a_handler_sees_that_a_client_cancelled_it_and_until_when(ground: impl Ground) {
    let site = Site::new(ground).await;
    let (handler, mut began, mut told) = listener();
    site.worker("r", handler).await;
    let task = site.submit(&one_node("r", json!({}))).await;
    began.recv().await.expect("it runs");
    let grace = Duration::from_secs(45);
    let state = task.cancel("changed my mind", Some(grace)).await;
    assert_eq!(state.expect("durable"), Some(TaskState::Cancelling));
    let (reason, left) = told.recv().await.expect("it is told");
    assert_eq!(reason, CancelReason::UserRequest);
    assert!(left > grace / 3 && left <= grace, "{left:?}");
    let outcome = task.wait().await.expect("it ends");
    assert_eq!(outcome.state, TaskState::Cancelled);
    let status = task.status().await.expect("there");
    assert_eq!(status.nodes[0].state, NodeState::Cancelled);
    site.stop().await;
}

pub async fn a_stopping_worker_tells_its_handlers_and_hands_the_node_over(ground: impl Ground) {
    let site = Site::new(ground).await;
    let (handler, mut began, mut told) = listener();
    let handler = Arc::new(handler);
    let process = site.process().await;
    let settings = WorkerSettings::default().shutdown_grace_sec(45.0);
    let leaving = process
        .builder()
        .role("r", handler.clone())
        .settings(settings);
    let leaving = process.start(leaving);
    let task = site.submit(&one_node("r", json!({}))).await;
    began.recv().await.expect("it runs");
    site.worker("r", handler).await;
    leaving.stop().await.expect("in order");
    let (reason, left) = told.recv().await.expect("it is told");
    assert_eq!(reason, CancelReason::Shutdown);
    assert!(
        left > Duration::from_secs(15) && left <= Duration::from_secs(45),
        "{left:?}"
    );
    finished(&task).await;
    assert_eq!(artifacts::<String>(&task, "n").await, ["resumed"]);
    // Handed over, not failed and not lost: the attempt is the same one.
    let node = task.status().await.expect("there").nodes.remove(0);
    assert_eq!((node.attempts.0, node.grants), (1, 2));
    assert_eq!((node.failures, node.losses), (0, 0));
    site.stop().await;
}

pub async fn a_failed_node_ends_its_neighbours(ground: impl Ground) {
    let site = Site::new(ground).await;
    let (handler, mut began, mut told) = listener();
    site.worker("slow", handler).await;
    let bad = handler_fn(|_, _: Batch<Json>| async move {
        Err::<BatchResult<()>, _>(HandlerError::permanent("broken", "on purpose"))
    });
    let graph = json!({"nodes": [
        {"node_id": "a", "type": "slow"},
        {"node_id": "b", "type": "bad"},
    ]});
    let task = site.submit(&graph).await;
    began.recv().await.expect("it runs");
    site.worker("bad", bad).await;
    let (reason, left) = told.recv().await.expect("it is told");
    assert_eq!(reason, CancelReason::TaskFailed);
    assert!(
        left > Duration::from_secs(10) && left <= Duration::from_secs(30),
        "{left:?}"
    );
    let outcome = task.wait().await.expect("it ends");
    assert_eq!(outcome.state, TaskState::Failed);
    assert_eq!(outcome.failure.expect("it failed").node_id.as_str(), "b");
    site.stop().await;
}

/// Writes one artifact, and fails when it gets a permit.
struct Broken(Arc<Semaphore>);

impl Handler for Broken {
    type Run = ();
    type Input = u64;
    type Output = u64;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        _: &RunContext,
        _: TaskInput,
    ) -> Result<BatchStream<u64>, HandlerError> {
        let batches = [0, 1].map(|n| Batch::new(format!("b{n}"), n));
        Ok(BatchStream::iter(batches))
    }

    async fn process(
        &self,
        _: &RunContext,
        (): &mut (),
        batch: Batch<u64>,
    ) -> Result<BatchResult<u64>, HandlerError> {
        if batch.payload == 1 {
            self.0.acquire().await?.forget();
            return Err(HandlerError::permanent("broken", "on purpose"));
        }
        Ok(BatchResult::of(batch.payload))
    }
}

pub async fn a_failed_source_ends_its_reader_and_is_named_as_the_reason(ground: impl Ground) {
    let site = Site::new(ground).await;
    let (read, mut was_read) = mpsc::unbounded_channel();
    let (tell, mut told) = mpsc::unbounded_channel();
    site.worker("read", Reader(read, tell)).await;
    let fail = Arc::new(Semaphore::new(0));
    site.worker("write", Broken(fail.clone())).await;
    let graph = json!({"nodes": [
        {"node_id": "w", "type": "write"},
        {"node_id": "r", "type": "read", "depends_on": ["w"], "io": {
            "start_when": "first_batch",
            "input_inline": {"input_adapter": "pull.from_artifacts",
                "input_args": {"from_node": "w"}}}},
    ]});
    let task = site.submit(&graph).await;
    was_read.recv().await.expect("it reads");
    fail.add_permits(1);
    let (reason, _) = told.recv().await.expect("it is told");
    assert_eq!(reason, CancelReason::UpstreamFailed);
    let outcome = task.wait().await.expect("it ends");
    assert_eq!(outcome.failure.expect("it failed").node_id.as_str(), "w");
    let status = task.status().await.expect("there");
    let reader = status.node("r").expect("there");
    assert_eq!((reader.state, reader.failures), (NodeState::Cancelled, 0));
    site.stop().await;
}

/// A worker whose ports can be cut, and a node that waits in it for its cancel.
struct Stage {
    site: Site,
    cut: Arc<Cut>,
    task: TaskHandle,
    told: mpsc::UnboundedReceiver<Told>,
}

impl Stage {
    /// Its leases are short; `more` workers with whole ports stand by.
    async fn new(ground: impl Ground, more: usize) -> Self {
        Self::of_lease(LEASE, ground, more).await
    }

    async fn of_lease(lease: Duration, ground: impl Ground, more: usize) -> Self {
        let settings = CoordinatorSettings::default().lease_ttl_sec(lease.as_secs_f64());
        let site = Site::with(ground, settings).await;
        let (handler, mut began, told) = listener();
        let handler = Arc::new(handler);
        let settings = || {
            let settings = WorkerSettings::default().hb_interval_sec(0.2);
            settings.db_cancel_poll_ms(50)
        };
        let (process, cut) = site.cut_process().await;
        process.start(
            process
                .builder()
                .role("r", handler.clone())
                .settings(settings()),
        );
        let task = site.submit(&one_node("r", json!({}))).await;
        began.recv().await.expect("it runs");
        for _ in 0..more {
            let process = site.process().await;
            process.start(
                process
                    .builder()
                    .role("r", handler.clone())
                    .settings(settings()),
            );
        }
        Self {
            site,
            cut,
            task,
            told,
        }
    }

    async fn told(&mut self) -> Told {
        self.told.recv().await.expect("it is told")
    }

    /// The next run went on at the checkpoint; nothing counts as a failure.
    async fn resumed(self) {
        finished(&self.task).await;
        assert_eq!(artifacts::<String>(&self.task, "n").await, ["resumed"]);
        let node = self.task.status().await.expect("there").nodes.remove(0);
        assert_eq!((node.attempts.0, node.failures), (1, 0));
        assert!(node.grants >= 2, "{node:?}");
        self.site.stop().await;
    }
}

/// Real time: as short as a machine that is busy elsewhere can keep up with.
const LEASE: Duration = Duration::from_secs(5);
/// What a handler is left by a worker that must not go on.
const LAST_GRACE: Duration = Duration::from_millis(500);

pub async fn the_stores_flag_reaches_a_handler_when_the_signal_is_lost(ground: impl Ground) {
    let mut stage = Stage::of_lease(Duration::from_secs(60), ground, 0).await;
    stage.site.cut().cancels.store(true, Ordering::SeqCst);
    let grace = Duration::from_secs(45);
    let cancelled = stage.task.cancel("enough", Some(grace)).await;
    cancelled.expect("durable");
    let (reason, left) = stage.told().await;
    assert_eq!(reason, CancelReason::UserRequest);
    assert!(left > grace / 3 && left <= grace, "{left:?}");
    let outcome = stage.task.wait().await.expect("it ends");
    assert_eq!(outcome.state, TaskState::Cancelled);
    stage.site.stop().await;
}

pub async fn a_lapsed_lease_ends_a_handler(ground: impl Ground) {
    let mut stage = Stage::new(ground, 0).await;
    stage.cut.heartbeats.store(true, Ordering::SeqCst);
    let (reason, left) = stage.told().await;
    assert_eq!(reason, CancelReason::LeaseLapsed);
    assert!(left <= LAST_GRACE, "{left:?}");
    stage.cut.heartbeats.store(false, Ordering::SeqCst);
    stage.resumed().await;
}

pub async fn a_store_that_is_away_for_a_lease_ends_a_handler(ground: impl Ground) {
    let mut stage = Stage::new(ground, 0).await;
    stage.cut.store.store(true, Ordering::SeqCst);
    let (reason, left) = stage.told().await;
    assert_eq!(reason, CancelReason::StoreUnreachable);
    assert!(left <= LAST_GRACE, "{left:?}");
    stage.cut.store.store(false, Ordering::SeqCst);
    stage.resumed().await;
}

/// Its heartbeats are confirmed and never read: the coordinator gives the node to another worker.
pub async fn a_handler_whose_node_has_a_newer_holder_is_fenced(ground: impl Ground) {
    let mut stage = Stage::new(ground, 1).await;
    stage.cut.heartbeats_lost.store(true, Ordering::SeqCst);
    let (reason, left) = stage.told().await;
    assert_eq!((reason, left), (CancelReason::Fenced, Duration::ZERO));
    stage.resumed().await;
}

pub async fn a_handler_of_an_older_process_of_its_worker_is_fenced(ground: impl Ground) {
    let site = Site::new(ground).await;
    let (handler, mut began, mut told) = listener();
    let handler = Arc::new(handler);
    let start = async || {
        let process = site.process().await;
        process.start(process.builder().worker_id("w").role("r", handler.clone()))
    };
    let older = start().await;
    let task = site.submit(&one_node("r", json!({}))).await;
    began.recv().await.expect("it runs");
    start().await;
    let ended = older.stopped().await;
    let superseded = flowkit_runtime::WorkerError::Superseded;
    assert_eq!(
        ended.expect_err("it ends").to_string(),
        superseded.to_string()
    );
    let (reason, left) = told.recv().await.expect("it is told");
    assert_eq!((reason, left), (CancelReason::Fenced, Duration::ZERO));
    finished(&task).await;
    assert_eq!(artifacts::<String>(&task, "n").await, ["resumed"]);
    site.stop().await;
}

/// Reads what others write; says of each that it did, and at the end of a run why it ended.
struct Reader(mpsc::UnboundedSender<()>, mpsc::UnboundedSender<Told>);

impl Handler for Reader {
    type Run = ();
    type Input = Pulled<Json>;
    type Output = Json;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn process(
        &self,
        _: &RunContext,
        (): &mut (),
        batch: Batch<Pulled<Json>>,
    ) -> Result<BatchResult<Json>, HandlerError> {
        let _ = self.0.send(());
        Ok(BatchResult::of(batch.payload.meta))
    }

    async fn cleanup(&self, cx: &RunContext) {
        if let Some(info) = cx.cancel_info() {
            let left = info.deadline.saturating_duration_since(Instant::now());
            let _ = self.1.send((info.reason, left));
        }
    }
}

/// Writes three artifacts, each when it gets a permit.
struct Writer(Arc<Semaphore>);

impl Handler for Writer {
    type Run = ();
    type Input = u64;
    type Output = u64;

    async fn init(&self, _: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        _: &RunContext,
        _: TaskInput,
    ) -> Result<BatchStream<u64>, HandlerError> {
        let batches = (0..3).map(|n| Batch::new(format!("b{n}"), n));
        Ok(BatchStream::iter(batches))
    }

    async fn process(
        &self,
        _: &RunContext,
        (): &mut (),
        batch: Batch<u64>,
    ) -> Result<BatchResult<u64>, HandlerError> {
        self.0.acquire().await?.forget();
        Ok(BatchResult::of(batch.payload))
    }
}

/// Its source has no worker any more, and something else needs the slot.
pub async fn a_reader_that_waits_yields_its_slot_and_goes_on_where_it_was(ground: impl Ground) {
    let site = Site::new(ground).await;
    let pages = Arc::new(Semaphore::new(1));
    let (see, mut seen) = mpsc::unbounded_channel();
    let (tell, mut told) = mpsc::unbounded_channel();
    let writer = site.worker("writer", Writer(pages.clone())).await;
    let urgent = handler_fn(|_, _: Batch<Json>| async move { Ok(BatchResult::<()>::new()) });
    let process = site.process().await;
    let one_slot = process.builder().role("reader", Reader(see, tell));
    process.start(one_slot.role("urgent", urgent));
    let graph = json!({"nodes": [
        {"node_id": "w", "type": "writer"},
        {"node_id": "r", "type": "reader", "depends_on": ["w"], "io": {
            "start_when": "first_batch", "input_inline": {
                "input_adapter": "pull.from_artifacts", "input_args": {"from_nodes": ["w"]}}}},
    ]});
    let task = site.submit(&graph).await;
    seen.recv().await.expect("it reads the first");
    writer.stop().await.expect("in order");
    let urgent = site.submit(&one_node("urgent", json!({}))).await;
    finished(&urgent).await;
    let (reason, left) = told.recv().await.expect("it is told");
    assert_eq!(reason, CancelReason::Yield);
    assert!(
        left > Duration::from_secs(10) && left <= Duration::from_secs(30),
        "{left:?}"
    );
    pages.add_permits(2);
    site.worker("writer", Writer(pages)).await;
    finished(&task).await;
    assert_eq!(artifacts::<u64>(&task, "r").await, [0, 1, 2]);
    let status = task.status().await.expect("there");
    let reader = status.node("r").expect("there");
    assert_eq!((reader.attempts.0, reader.failures), (1, 0));
    assert!(reader.grants >= 2, "{reader:?}");
    site.stop().await;
}

/// It blocks its thread, so that even dropping it is of no use.
pub async fn a_handler_that_cannot_be_ended_is_shown_as_abandoned_until_it_returns(
    ground: impl Ground,
) {
    let site = Site::new(ground).await;
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let (begin, mut began) = mpsc::unbounded_channel();
    let deaf = handler_fn(move |_, _: Batch<Json>| {
        let (begin, blocked) = (begin.clone(), blocked.clone());
        async move {
            let _ = begin.send(());
            let _ = blocked.lock().expect("no panic").recv();
            Ok(BatchResult::of(1))
        }
    });
    let worker = site.worker("r", deaf).await;
    let task = site.submit(&one_node("r", json!({}))).await;
    began.recv().await.expect("it runs");
    assert!(!worker.status().running[0].abandoned);
    let grace = Some(Duration::from_millis(10));
    task.cancel("now", grace).await.expect("durable");
    let outcome = task.wait().await.expect("nobody waits for it");
    assert_eq!(outcome.state, TaskState::Cancelled);
    let running = worker.status().running;
    assert_eq!(running.len(), 1);
    assert!(running[0].abandoned && running[0].cancelled);
    assert_eq!(worker.vitals().await.expect("it answers").abandoned, 1);
    // It says so, to whoever looks from outside.
    let heard = async |number| {
        until(async || {
            let presence = site.client().presence().await.expect("readable");
            let heard = presence.workers.get(worker.id())?;
            (heard.abandoned == number).then_some(())
        })
        .await;
    };
    heard(1).await;
    // Whoever waits for the slot is told what holds it.
    let waiting = site.submit(&one_node("r", json!({}))).await;
    let said = until(async || {
        let node = waiting.why().await.expect("readable").nodes.pop()?;
        (node.waits_for == WaitsFor::Slot).then_some(node)
    })
    .await;
    let why = "and a handler that ignores its cancel holds a slot";
    assert!(said.why.ends_with(why), "{said:?}");
    assert!(said.cure.is_some_and(|cure| cure.starts_with("restart ")));
    for _ in 0..2 {
        release.send(()).expect("it waits");
    }
    heard(0).await;
    finished(&waiting).await;
    assert!(worker.status().running.is_empty());
    site.stop().await;
}
