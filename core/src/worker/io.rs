//! What goes into the worker machine and what comes out of it.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::id::{BatchUid, Epoch, NodeId, OpId, Role, TaskId, Token};
use crate::json::Json;
use crate::message::{AdapterSpec, CancelReason, Metrics};
use crate::port::{PortError, StoreReply, StoreRequest, TransportReply, TransportRequest};
use crate::record::Totals;
use crate::report::Report;
use crate::time::Mono;

/// A run of this process: one token, taken at most once. Never used again within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub u64);

/// An input of the worker machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// The first input of a process, or a timer; early, late and double wakes are legal.
    Wake,
    /// The answer to [`Effect::Store`].
    StoreDone {
        /// Names the request.
        op: OpId,
        /// Its outcome.
        result: Result<StoreReply, PortError>,
    },
    /// The answer to [`Effect::Transport`].
    TransportDone {
        /// Names the request.
        op: OpId,
        /// Its outcome.
        result: Result<TransportReply, PortError>,
    },
    /// Something happened in a handler.
    Run {
        /// The run.
        run: RunId,
        /// What.
        event: RunEvent,
    },
    /// Stop gracefully: no new work, running batches end, runs are handed over.
    Shutdown {
        /// Time for running batches to end.
        grace_ms: u64,
    },
}

/// An effect of the worker machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Ask the store.
    Store {
        /// Names the request.
        op: OpId,
        /// The request.
        request: StoreRequest,
    },
    /// Ask the transport. Appends to one stream are carried out in the order of these effects.
    Transport {
        /// Names the request.
        op: OpId,
        /// The request.
        request: TransportRequest,
    },
    /// Tell a handler.
    Run {
        /// The run.
        run: RunId,
        /// What.
        command: RunCommand,
    },
    /// Tell people.
    Report(Report),
    /// The machine is done; the process (or this worker in it) ends.
    Stopped {
        /// A newer process of the same worker id is alive.
        superseded: bool,
    },
    /// The machine is done: the store has a record of this worker that it cannot read, so it cannot be
    /// registered, now or later. The process (or this worker in it) ends with this error.
    Unregistered(PortError),
}

/// What a new run works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The task.
    pub task_id: TaskId,
    /// The node.
    pub node_id: NodeId,
    /// The role whose handler runs it.
    pub role: Role,
    /// The attempt.
    pub epoch: Epoch,
    /// The token it runs under.
    pub token: Token,
    /// The node's input: `{"input_ref":…,"input_inline":…}`.
    pub input: Json,
    /// The input adapter that the graph names, if any.
    pub adapter: Option<AdapterSpec>,
    /// Checkpoint of the last accepted batch that carried one: where the source resumes.
    pub checkpoint: Option<Json>,
    /// Batches accepted before this run.
    pub accepted: u64,
    /// Totals of their metrics.
    pub totals: Totals,
    /// The task's vars.
    pub vars: Json,
}

/// What the machine asks of a handler.
///
/// At most one of `Begin`, `NextBatch`, `Process`, `Finalize` and `Close` is outstanding per run;
/// each is answered by exactly one event (`Close` by [`RunEvent::Closed`]), unless the process ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunCommand {
    /// Make the run: `init`, then `load_input`. -> `Loaded` or `Failed`
    Begin(Box<RunSpec>),
    /// Draw the next batch from the handler's own source, opening it the first time.
    /// -> `Batch`, `BatchesEnded` or `Failed`
    NextBatch,
    /// Process one batch. -> `Processed` or `Failed`
    Process {
        /// The batch.
        batch_uid: BatchUid,
        /// Its payload.
        payload: Json,
        /// Newest checkpoint that an earlier holder saved while this very batch was in work.
        checkpoint: Option<Json>,
    },
    /// Answers `Checkpoint`: the checkpoint is safe, or why it is not.
    CheckpointSaved(Result<(), RunFailure>),
    /// Every batch is done. -> `Finalized` or `Failed`
    Finalize {
        /// Totals over the accepted batches of all attempts, this run's included.
        totals: Totals,
    },
    /// Tell the handler to end: raise its cancel flag. Its outstanding command is still answered.
    Cancel {
        /// Why.
        reason: CancelReason,
        /// When it will be dropped.
        deadline: Mono,
    },
    /// The deadline passed: drop the handler's future wherever it is. Its outstanding command is
    /// answered by `Failed` once it is really gone; a handler that blocks its thread never answers.
    Abort,
    /// Nothing more comes: clean up. -> `Closed`
    Close,
}

impl RunCommand {
    /// Its kind, for logs: the rest may be a payload.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Begin(_) => "begin",
            Self::NextBatch => "next_batch",
            Self::Process { .. } => "process",
            Self::CheckpointSaved(_) => "checkpoint_saved",
            Self::Finalize { .. } => "finalize",
            Self::Cancel { .. } => "cancel",
            Self::Abort => "abort",
            Self::Close => "close",
        }
    }
}

/// What a handler tells the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunEvent {
    /// The handler is ready; it may propose an input adapter.
    Loaded {
        /// `input_adapter` of the loaded input, if any.
        adapter: Option<AdapterSpec>,
    },
    /// The next batch of the handler's own source.
    Batch {
        /// Unique in the node and the same in every attempt.
        batch_uid: BatchUid,
        /// Its payload.
        payload: Json,
        /// The source knows that no batch follows.
        last: bool,
    },
    /// The handler's own source is at its end.
    BatchesEnded,
    /// The handler wants to keep a checkpoint of the batch in work; it waits for `CheckpointSaved`.
    Checkpoint(Json),
    /// The batch succeeded.
    Processed {
        /// Its metrics.
        metrics: Metrics,
        /// Its artifact, if the handler wrote one.
        artifact: Option<Json>,
        /// The node's result as of this batch, if the handler marked one.
        result: Option<Json>,
    },
    /// `finalize` succeeded.
    Finalized {
        /// Its metrics.
        metrics: Metrics,
        /// The node's result, if it gave one.
        result: Option<Json>,
    },
    /// The outstanding command failed (or was cancelled).
    Failed(RunFailure),
    /// Cleanup is done and nothing of the run is left: its slot is free.
    Closed,
}

/// How a handler failed, classified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFailure {
    /// Short, stable name of the error class.
    pub reason_code: Arc<str>,
    /// Trying again is of no use.
    pub permanent: bool,
    /// The error for people.
    pub error: Arc<str>,
    /// Earliest next attempt, in milliseconds from now.
    pub retry_after_ms: Option<u64>,
    /// The handler ended because it was told to.
    pub cancelled: bool,
}
