//! A run context without a worker, for unit tests of handlers.

use flowkit_core::id::{BatchUid, Epoch, NodeId, Role, TaskId, Token, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::message::CancelReason;
use flowkit_core::record::Totals;
use flowkit_core::worker::RunSpec;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::context::Outlet;
use crate::{Progress, RunContext};

/// Plays the worker of a [`RunContext::for_test`].
#[derive(Clone, Debug)]
pub struct TestControl {
    cx: RunContext,
}

impl RunContext {
    /// A context without a worker: task `test-task`, node `test-node`, first attempt, batch
    /// `test-batch` in work. Checkpoints are acknowledged at once and kept for
    /// [`TestControl::checkpoints`]; those over 64 KiB are refused, as a worker does it. Needs a tokio runtime.
    #[must_use]
    pub fn for_test() -> (Self, TestControl) {
        Self::for_test_resumed(None)
    }

    /// The same for a node that resumes at a checkpoint.
    #[must_use]
    pub fn for_test_resumed(checkpoint: Option<Json>) -> (Self, TestControl) {
        let spec = RunSpec {
            task_id: id(TaskId::new("test-task")),
            node_id: id(NodeId::new("test-node")),
            role: id(Role::new("test-role")),
            epoch: Epoch(1),
            token: Token(1),
            input: Json::null(),
            adapter: None,
            checkpoint,
            accepted: 0,
            totals: Totals::new(),
            vars: Json::null(),
        };
        let worker = id(WorkerId::new("test-worker"));
        let outlet = Outlet::Test(Mutex::default());
        let cx = Self::new(&spec, worker, Clock::new(), outlet);
        let control = TestControl { cx: cx.clone() };
        control.begin_batch("test-batch");
        (cx, control)
    }
}

impl TestControl {
    /// Puts another batch in work.
    ///
    /// # Panics
    /// If the text cannot be a batch uid.
    pub fn begin_batch(&self, uid: &str) {
        self.cx.begin_batch(id(BatchUid::new(uid)), None);
    }

    /// Tells the run to end within `grace`. Nothing is dropped when it passes.
    pub fn cancel(&self, reason: CancelReason, grace: Duration) {
        self.cx.raise_cancel(reason, Instant::now() + grace);
    }

    /// How far the handler says that its batch is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.cx.progress()
    }

    /// The JSON texts of the saved checkpoints, oldest first.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<String> {
        match self.cx.outlet() {
            Outlet::Test(kept) => {
                let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.iter().map(|json| json.text().to_owned()).collect()
            }
            Outlet::Worker { .. } => Vec::new(),
        }
    }

    /// Ends the run: its child processes, then what was given to [`RunContext::on_cleanup`], newest
    /// first, then its temporary folder.
    pub async fn run_cleanups(&self) {
        let resources = self.cx.resources();
        resources.end_processes(self.cx.cancel_info()).await;
        while let Some(cleanup) = self.cx.pop_cleanup() {
            cleanup.await;
        }
        resources.end().await;
    }
}

fn id<T>(made: Result<T, flowkit_core::id::IdError>) -> T {
    match made {
        Ok(id) => id,
        Err(error) => panic!("not an id: {error}"),
    }
}
