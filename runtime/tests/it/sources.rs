//! A cancel from each of its sources: the coordinator's signal is in `cancel.rs`; here are the store's
//! flag when that signal is lost, the lapse of the lease, and the worker's shutdown.

use async_trait::async_trait;
use flowkit_core::id::Offset;
use flowkit_core::message::Body;
use flowkit_core::port::{ErrorKind, PortError, Transport, TransportReply, TransportRequest};
use flowkit_memory::{LocalTransport, MemoryStore};
use flowkit_runtime::{
    Batch, BatchResult, CancelReason, CoordinatorSettings, Engine, HandlerError, Json, RunContext,
    TaskHandle, TaskState, Worker, WorkerHandle, WorkerSettings, handler_fn,
};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::support::{one_node, submit};

/// A transport that loses what it is told to lose.
#[derive(Debug)]
struct Losing {
    inner: LocalTransport,
    /// Cancels are taken and lost.
    cancels: AtomicBool,
    /// Heartbeats are refused.
    heartbeats: AtomicBool,
}

#[async_trait]
impl Transport for Losing {
    async fn call(&self, request: TransportRequest) -> Result<TransportReply, PortError> {
        if let TransportRequest::Append { envelope, .. } = &request {
            let on = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
            match &envelope.body {
                Body::TaskCancel(_) if on(&self.cancels) => {
                    return Ok(TransportReply::Appended { offset: Offset(0) });
                }
                Body::Heartbeat(_) if on(&self.heartbeats) => {
                    return Err(PortError::new(ErrorKind::Retry, "append", "lost"));
                }
                _ => {}
            }
        }
        self.inner.call(request).await
    }
}

/// What a handler was told: why, and how much time is left.
type Told = (CancelReason, Duration);

struct Stage {
    engine: Engine,
    transport: Arc<Losing>,
    worker: WorkerHandle,
    task: TaskHandle,
    began: mpsc::UnboundedReceiver<()>,
    told: mpsc::UnboundedReceiver<Told>,
}

/// A node that waits for its cancel in its first run, and succeeds in the next.
async fn stage(lease_ttl_sec: f64) -> Stage {
    let transport = Arc::new(Losing {
        inner: LocalTransport::new(),
        cancels: AtomicBool::new(false),
        heartbeats: AtomicBool::new(false),
    });
    let engine = Engine::alone(Arc::new(MemoryStore::new()), transport.clone());
    let settings = CoordinatorSettings::default().lease_ttl_sec(lease_ttl_sec);
    engine.start_with(settings).await.expect("it starts");
    let (begin, began) = mpsc::unbounded_channel();
    let (tell, told) = mpsc::unbounded_channel();
    let lossy = transport.clone();
    let handler = handler_fn(move |cx: RunContext, _: Batch<Json>| {
        let (begin, tell, lossy) = (begin.clone(), tell.clone(), lossy.clone());
        async move {
            if cx.batch_checkpoint::<u32>()?.is_some() {
                return Ok(BatchResult::of("resumed"));
            }
            cx.save_checkpoint(&7).await?;
            let _ = begin.send(());
            let info = cx.cancelled().await;
            lossy.heartbeats.store(false, Ordering::SeqCst);
            let left = info.deadline.saturating_duration_since(Instant::now());
            let _ = tell.send((info.reason, left));
            Err(HandlerError::cancelled())
        }
    });
    let settings = WorkerSettings::default()
        .hb_interval_sec(0.05)
        .db_cancel_poll_ms(20)
        .shutdown_grace_sec(9.0);
    let worker = Worker::builder(&engine)
        .role("r", handler)
        .settings(settings)
        .build();
    let worker = worker.expect("no fault").start();
    let task = submit(&engine, &one_node("r", json!({}))).await;
    Stage {
        engine,
        transport,
        worker,
        task,
        began,
        told,
    }
}

#[tokio::test]
async fn the_stores_flag_reaches_a_handler_when_the_signal_is_lost() {
    let mut stage = stage(60.0).await;
    stage.began.recv().await.unwrap();
    stage.transport.cancels.store(true, Ordering::SeqCst);
    let grace = Duration::from_secs(7);
    stage.task.cancel("enough", Some(grace)).await.unwrap();
    let (reason, left) = stage.told.recv().await.unwrap();
    assert_eq!(reason, CancelReason::UserRequest);
    assert!(left > Duration::from_secs(3) && left <= grace, "{left:?}");
    let outcome = stage.task.wait().await.unwrap();
    assert_eq!(outcome.state, TaskState::Cancelled);
    stage.engine.stop().await;
}

#[tokio::test]
async fn a_lapsed_lease_ends_a_handler_and_the_next_run_goes_on_at_its_checkpoint() {
    let mut stage = stage(0.4).await;
    stage.began.recv().await.unwrap();
    stage.transport.heartbeats.store(true, Ordering::SeqCst);
    let (reason, left) = stage.told.recv().await.unwrap();
    assert_eq!(reason, CancelReason::LeaseLapsed);
    assert!(left <= Duration::from_millis(500), "{left:?}");
    let outcome = stage.task.wait().await.unwrap();
    assert_eq!(outcome.state, TaskState::Finished);
    let artifacts = stage.task.artifacts("n").all().await.unwrap();
    assert_eq!(artifacts[0].value.text(), "\"resumed\"");
    let status = stage.task.status().await.unwrap();
    assert_eq!(status.node("n").unwrap().failures, 0);
    stage.engine.stop().await;
}

#[tokio::test]
async fn a_stopping_worker_tells_its_handlers_until_when() {
    let mut stage = stage(60.0).await;
    stage.began.recv().await.unwrap();
    stage.worker.stop().await.unwrap();
    let (reason, left) = stage.told.recv().await.unwrap();
    assert_eq!(reason, CancelReason::Shutdown);
    assert!(left > Duration::from_secs(3), "{left:?}");
    assert!(left <= Duration::from_secs(9), "{left:?}");
    stage.engine.stop().await;
}
