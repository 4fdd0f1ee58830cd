//! One run of one token: what it waits for and what it carries.

use serde::Serialize;
use std::collections::VecDeque;

use super::adapter::Puller;
use super::cancel::Ending;
use super::io::{RunId, RunSpec};
use super::lease::Lease;
use super::outgoing::Outgoing;
use super::tally::Tally;
use crate::id::{BatchUid, Epoch, NodeId, Role, ShardId, TaskId, Token};
use crate::json::Json;
use crate::message::{BatchOk, Body, Cursor, Metrics, TaskStart};
use crate::record::ScratchRecord;
use crate::time::Mono;

/// A node of a task.
pub(super) type NodeKey = (TaskId, NodeId);

/// Checkpoints of one batch that may wait to be saved; a handler awaits each, so more than a few
/// is a fault of its own.
pub(super) const SAVES_MAX: usize = 16;

/// What a run waits for.
#[derive(Clone, Debug, Serialize)]
pub(super) enum Work {
    /// The store's word that the grant is current.
    Checking,
    /// The confirmation of its first heartbeat.
    Accepting,
    /// The answer to `Begin`.
    Loading,
    /// What earlier holders left: scratch, accepted uids.
    Reading { scratch: bool, accepted: bool },
    /// The answer to `NextBatch`.
    Drawing,
    /// Artifacts of a source, a wake, or the next look.
    Pulling {
        /// A read of the store is under way.
        asked: bool,
    },
    /// Confirmations: too many events are under way.
    Crowded,
    /// The answer to `Process`.
    Processing(InWork),
    /// The store: the artifact of the batch (of so many bytes) is being staged.
    Staging(Box<(Done, u64)>),
    /// The answer to `Finalize`.
    Finalizing,
    /// The answer to `Close`.
    Closing,
    /// Nothing: no handler, only events to be confirmed.
    Closed,
}

impl Work {
    /// The handler owes an answer.
    pub(super) const fn handler_busy(&self) -> bool {
        matches!(
            self,
            Self::Loading | Self::Drawing | Self::Processing(_) | Self::Finalizing | Self::Closing
        )
    }

    /// No handler exists yet.
    pub(super) const fn before_begin(&self) -> bool {
        matches!(self, Self::Checking | Self::Accepting)
    }

    /// For people.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Accepting => "accepting",
            Self::Loading => "loading",
            Self::Reading { .. } => "reading",
            Self::Drawing => "drawing",
            Self::Pulling { .. } => "pulling",
            Self::Crowded => "crowded",
            Self::Processing(_) => "processing",
            Self::Staging(_) => "staging",
            Self::Finalizing => "finalizing",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }
}

/// A batch that the source yielded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Drawn {
    pub(super) uid: BatchUid,
    pub(super) payload: Json,
    /// No batch follows.
    pub(super) last: bool,
    /// The adapter's cursor once this batch is done, if it moves then.
    pub(super) cursor: Option<Cursor>,
}

/// The batch in work.
#[derive(Clone, Debug, Serialize)]
pub(super) struct InWork {
    pub(super) uid: BatchUid,
    pub(super) last: bool,
    pub(super) cursor: Option<Cursor>,
    /// Newest checkpoint of this batch that is safe in the store.
    pub(super) checkpoint: Option<Json>,
    pub(super) since: Mono,
}

/// A batch that succeeded.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Done {
    pub(super) uid: BatchUid,
    pub(super) last: bool,
    pub(super) cursor: Option<Cursor>,
    pub(super) checkpoint: Option<Json>,
    pub(super) metrics: Metrics,
    /// The node's result as of this batch.
    pub(super) result: Option<Json>,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) task_id: TaskId,
    pub(super) node_id: NodeId,
    pub(super) role: Role,
    pub(super) epoch: Epoch,
    pub(super) token: Token,
    pub(super) shard: ShardId,
    pub(super) start: Box<TaskStart>,
    pub(super) lease: Lease,
    pub(super) work: Work,
    pub(super) outgoing: Outgoing,
    pub(super) tally: Tally,
    pub(super) ending: Option<Ending>,
    /// The terminal event, decided; it leaves when the handler is closed.
    pub(super) verdict: Option<Body>,
    /// The last batch, kept back to travel inside TASK_DONE.
    pub(super) held: Option<BatchOk>,
    pub(super) puller: Option<Puller>,
    pub(super) scratch: Option<ScratchRecord>,
    /// Checkpoints to be saved, oldest first; the first one is on its way.
    pub(super) saves: VecDeque<(BatchUid, Json)>,
    /// Number of the newest save that was asked for.
    pub(super) saves_newest: u64,
    /// The handler was told to drop.
    pub(super) aborted: bool,
    /// The handler was given up; its slot stays taken.
    pub(super) abandoned: bool,
    /// Nothing more is to be sent about it; it is kept for the slot of its abandoned handler.
    pub(super) forgotten: bool,
}

impl Run {
    pub(super) fn node(&self) -> NodeKey {
        (self.task_id.clone(), self.node_id.clone())
    }

    /// It was told to end, or decided to.
    pub(super) const fn is_ending(&self) -> bool {
        self.ending.is_some() || self.verdict.is_some()
    }

    /// Its token is known not to be current.
    pub(super) fn is_fenced(&self) -> bool {
        self.ending
            .is_some_and(|e| e.reason == crate::message::CancelReason::Fenced)
    }

    pub(super) fn spec(&self) -> RunSpec {
        RunSpec {
            task_id: self.task_id.clone(),
            node_id: self.node_id.clone(),
            role: self.role.clone(),
            epoch: self.epoch,
            token: self.token,
            input: self.start.input.clone(),
            adapter: self.start.adapter.clone(),
            checkpoint: self.start.checkpoint.clone(),
            accepted: self.start.accepted,
            totals: self.tally.totals().clone(),
            vars: self.start.vars.clone(),
        }
    }

    /// Whether an earlier token may have left something: scratch, or accepted batches. The first
    /// token of a node (number 1) has no predecessor, so there is nothing to read.
    pub(super) const fn has_predecessor(&self) -> bool {
        self.token.0 > 1
    }

    pub(super) fn check_invariants(&self) {
        self.outgoing.check_invariants();
        self.tally.check_invariants();
        assert!(self.saves.len() <= SAVES_MAX, "saves are bounded");
        if !self.work.before_begin() && !matches!(self.work, Work::Closed) {
            assert!(
                self.lease.is_confirmed(),
                "no handler before a confirmed heartbeat"
            );
        }
        if self.outgoing.has_terminal() {
            assert!(
                matches!(self.work, Work::Closed) || self.abandoned,
                "the end is told after the handler is gone or given up"
            );
        }
        if matches!(self.work, Work::Closing) {
            assert!(
                self.verdict.is_some() || self.abandoned,
                "a run closes for a reason"
            );
        }
        if let Some(puller) = &self.puller {
            puller.check_invariants();
        }
    }
}
