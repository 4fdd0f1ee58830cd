//! In which order what belongs to a run ends, for every way that a run ends.

use flowkit_runtime::{
    Batch, BatchResult, FinalizeResult, Handler, HandlerError, Json, RunContext, TaskState,
};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

use crate::support::{engine, one_node, submit, worker};

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Success,
    Failure,
    Panic,
    Cancel,
    /// It does not listen to its cancel and is dropped.
    Abort,
    WorkerStop,
}

type Log = Arc<Mutex<Vec<&'static str>>>;

/// Says what ends, when it does.
struct Ends(Log, &'static str);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(self.1);
    }
}

struct Logged {
    end: End,
    log: Log,
    began: mpsc::UnboundedSender<()>,
}

impl Handler for Logged {
    type Run = Ends;
    type Input = Json;
    type Output = u32;

    async fn init(&self, cx: &RunContext) -> Result<Ends, HandlerError> {
        for text in ["oldest cleanup", "newer cleanup"] {
            let ends = Ends(self.log.clone(), text);
            cx.on_cleanup(async move { drop(ends) });
        }
        Ok(Ends(self.log.clone(), "state of the run"))
    }

    async fn process(
        &self,
        cx: &RunContext,
        _: &mut Ends,
        _: Batch<Json>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        let _ends = Ends(self.log.clone(), "batch in work");
        let newest = Ends(self.log.clone(), "newest cleanup");
        cx.on_cleanup(async move { drop(newest) });
        self.began.send(()).expect("the test listens");
        match self.end {
            End::Success => Ok(BatchResult::of(1)),
            End::Failure => Err(HandlerError::permanent("broken", "on purpose")),
            End::Panic => panic!("on purpose"),
            End::Cancel | End::WorkerStop => {
                cx.cancelled().await;
                Err(HandlerError::cancelled())
            }
            End::Abort => std::future::pending().await,
        }
    }

    async fn finalize(&self, _: &RunContext, run: Ends) -> Result<FinalizeResult, HandlerError> {
        drop(run);
        Ok(FinalizeResult::new())
    }

    async fn cleanup(&self, _: &RunContext) {
        self.log.lock().unwrap().push("cleanup of the handler");
    }
}

async fn ends_in_order(end: End) {
    let engine = engine().await;
    let log = Log::default();
    let (began, mut begun) = mpsc::unbounded_channel();
    let handler = Logged {
        end,
        log: log.clone(),
        began,
    };
    let worker = worker(&engine, "r", handler);
    let mut graph = one_node("r", json!({}));
    graph["nodes"][0]["retry_policy"]["max"] = json!(1);
    let task = submit(&engine, &graph).await;
    begun.recv().await.expect("it began");
    let grace = Duration::from_millis(20);
    let state = match end {
        End::Success => Some(TaskState::Finished),
        End::Failure | End::Panic => Some(TaskState::Failed),
        End::Cancel | End::Abort => {
            let grace = (end == End::Abort).then_some(grace);
            task.cancel("enough", grace).await.unwrap();
            Some(TaskState::Cancelled)
        }
        End::WorkerStop => {
            worker.stop().await.unwrap();
            None
        }
    };
    if let Some(state) = state {
        assert_eq!(task.wait().await.unwrap().state, state, "{end:?}");
    }
    let expected = [
        "batch in work",
        "state of the run",
        "newest cleanup",
        "newer cleanup",
        "oldest cleanup",
        "cleanup of the handler",
    ];
    assert_eq!(*log.lock().unwrap(), expected, "{end:?}");
    engine.stop().await;
}

#[tokio::test]
async fn a_run_that_succeeds_cleans_up_newest_first() {
    ends_in_order(End::Success).await;
}

#[tokio::test]
async fn a_run_that_fails_cleans_up_newest_first() {
    ends_in_order(End::Failure).await;
}

#[tokio::test]
async fn a_run_that_panics_cleans_up_newest_first() {
    ends_in_order(End::Panic).await;
}

#[tokio::test]
async fn a_run_that_is_cancelled_cleans_up_newest_first() {
    ends_in_order(End::Cancel).await;
}

#[tokio::test]
async fn a_run_that_is_dropped_cleans_up_newest_first() {
    ends_in_order(End::Abort).await;
}

#[tokio::test]
async fn a_run_whose_worker_stops_cleans_up_newest_first() {
    ends_in_order(End::WorkerStop).await;
}
