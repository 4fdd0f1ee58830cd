//! What really happened in a run, as seen from outside of the machines.

use std::rc::Rc;
use std::sync::Arc;

use flowkit_core::id::{
    BatchUid, Epoch, Incarnation, NodeId, Offset, ShardId, TaskId, Token, WorkerId,
};
use flowkit_core::json::Json;
use flowkit_core::message::{CancelReason, Envelope, Reply, ReplyError};
use flowkit_core::port::{ErrorKind, Removal, Stream};
use flowkit_core::record::{NodeState, TaskState};
use serde::{Deserialize, Serialize};

use crate::ledger::Removed;

/// One event.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// True time in microseconds.
    pub(crate) at: u64,
    /// What happened.
    pub(crate) what: What,
}

/// A process: the n-th start on a host, and which machine of it (embedded: several).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its host.
    pub host: u32,
    /// How many starts of that host there were before.
    pub generation: u32,
    /// Which machine of the process.
    pub machine: u32,
}

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A message stands in a stream for good.
    Appended {
        stream: Stream,
        offset: Offset,
        envelope: Arc<Envelope>,
    },
    /// A commit was applied (for the first time).
    Committed {
        host: u32,
        epoch: u64,
        seq: u64,
        next: Offset,
        changes: Vec<Change>,
    },
    /// A commit was refused.
    Refused {
        host: u32,
        kind: ErrorKind,
        epoch: u64,
        seq: u64,
    },
    /// A client's call ended in an error that says more than that nobody could be reached.
    Failed {
        client: u32,
        task: TaskId,
        ask: Ask,
        error: CallError,
    },
    /// A client was refused, and will ask again.
    Denied {
        client: u32,
        task: TaskId,
        ask: Ask,
        kind: ReplyError,
    },
    /// A client on a host of its own began again, died, froze or went on.
    Client { client: u32, what: Life },
    /// A client is about to look at a task.
    Looks {
        client: u32,
        task: TaskId,
        look: u64,
    },
    /// What it was shown.
    Shown {
        client: u32,
        task: TaskId,
        look: u64,
        shown: Shown,
    },
    /// An owner gave the lease of a shard back.
    Released { host: u32, shard: ShardId },
    /// The process died and took applied commits with it (embedded); newest first.
    Undone { changes: Vec<Change> },
    /// A shard epoch was raised.
    EpochRaised {
        host: u32,
        shard: ShardId,
        epoch: u64,
    },
    /// A worker's record was written.
    Registered {
        place: Place,
        worker: WorkerId,
        incarnation: Incarnation,
    },
    /// Grants were read from the store.
    GrantsRead {
        place: Place,
        nodes: Rc<[(TaskId, NodeId)]>,
    },
    /// A worker's process has read that a token of its is fenced.
    ToldFenced {
        place: Place,
        task: TaskId,
        node: NodeId,
        token: Token,
    },
    /// The store has a checkpoint of a batch in work.
    Kept {
        task: TaskId,
        node: NodeId,
        token: Token,
        uid: BatchUid,
        value: Json,
    },
    /// The store has the body of an artifact that is too large for a message.
    Staged {
        task: TaskId,
        node: NodeId,
        uid: BatchUid,
        token: Token,
    },
    /// The store was asked to take away what nothing points to of a task's staged bodies.
    BodiesSwept { task: TaskId },
    /// Something between a worker machine and a handler.
    Handler { run: Rc<Run>, step: Step },
    /// A client sent a request (again).
    Asked { client: u32, task: TaskId, ask: Ask },
    /// A client got the answer.
    Answered {
        client: u32,
        task: TaskId,
        ask: Ask,
        reply: Reply,
    },
    /// A process began, died, froze or went on.
    Process { place: Place, what: Life },
    /// A fault took effect.
    Fault { text: String },
    /// The store's clock jumped.
    StoreClock { by_ms: i64 },
    /// A record of a task can no longer be read.
    Rotten { task: TaskId },
    /// A shard's log lost its entries from `from` up to `end`; other ones may come to stand there.
    LogLost {
        shard: ShardId,
        from: Offset,
        end: Offset,
    },
    /// Faults are over; from now on everything must settle.
    Healed,
    /// A machine broke, and its process makes a new one.
    Broke,
}

/// What happens to processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It was started.
    Started,
    /// It died without a word.
    Crashed,
    /// It ended by itself.
    Stopped,
    /// It was told to stop; a worker's runs have so long to end.
    Asked {
        /// Their time.
        grace_ms: u64,
    },
    /// It was frozen.
    Stalled,
    /// It goes on.
    Resumed,
}

/// A client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// To take a task on.
    Submit,
    /// To take another graph on under the id of the task.
    SubmitOther,
    /// To cancel a task.
    Cancel {
        /// Time for its handlers to end; the deployment's if absent.
        grace_ms: Option<u64>,
    },
    /// To hold a task back.
    Pause,
    /// To let it go on.
    Resume,
    /// To say when it is settled.
    Wait,
}

impl Ask {
    /// Whether a client that is refused so asks again: the engine is busy, or what it wants to run
    /// again has not ended, or the store refused a cancel or a pause, which a person would not leave
    /// at that.
    #[must_use]
    pub fn is_repeated_after(self, refusal: ReplyError) -> bool {
        match refusal {
            ReplyError::Overloaded | ReplyError::NotSettled => true,
            ReplyError::Invalid => {
                matches!(self, Self::Cancel { .. } | Self::Pause | Self::Resume)
            }
            _ => false,
        }
    }
}

/// What a client is shown of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The task with its nodes: their states and accepted batches.
    Status {
        /// Its state.
        state: TaskState,
        /// It is settled.
        settled: bool,
        /// Its nodes.
        nodes: Vec<(NodeId, NodeState, u64)>,
    },
    /// Its state in the list of all tasks; absent if it is not in there.
    Listed(Option<TaskState>),
    /// Why it waits: its state, and its nodes that have not ended.
    Why(TaskState, Vec<NodeId>),
    /// Which of its nodes workers hold, and under which tokens.
    Held(Vec<(WorkerId, NodeId, Token)>),
    /// The artifacts of its nodes: their numbers and batches.
    Artifacts(Vec<(NodeId, Vec<(u64, BatchUid)>)>),
    /// It was swept.
    Swept,
    /// Something else came of it.
    Failed(String),
}

/// An error in which a client's call ended, and no refusal by a coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// What it says.
    pub text: String,
    /// The call was made again and again for so long, and nobody answered; absent for other errors.
    pub unanswered_ms: Option<u64>,
}

/// One run of a node in a worker process.
#[derive(Clone, Debug)]
pub struct Run {
    /// The process.
    pub place: Place,
    /// The worker that it is.
    pub worker: WorkerId,
    /// Number of the run in its process.
    pub run_id: u64,
    /// The task.
    pub task: TaskId,
    /// The node.
    pub node: NodeId,
    /// The token that it runs under.
    pub token: Token,
    /// The attempt.
    pub epoch: Epoch,
    /// The checkpoint that the source resumes at.
    pub checkpoint: Option<Json>,
    /// Batches accepted before, as the handler was told.
    pub accepted: u64,
}

/// Steps of a run, as its handler sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// It begins.
    Begin,
    /// It begins a batch.
    Process {
        /// The batch.
        uid: BatchUid,
        /// What an earlier attempt saved of this batch.
        checkpoint: Option<Json>,
    },
    /// The handler wants to keep a checkpoint of the batch in work.
    Checkpoint {
        /// The batch.
        uid: BatchUid,
        /// The checkpoint.
        value: Json,
    },
    /// It is told that the checkpoint is safe (or not).
    CheckpointSaved {
        /// The batch.
        uid: BatchUid,
        /// The checkpoint.
        value: Json,
        /// It is safe.
        ok: bool,
    },
    /// It has done a batch.
    Processed {
        /// The batch.
        uid: BatchUid,
    },
    /// It says that it failed.
    Failed {
        /// For good.
        permanent: bool,
        /// Because it was told to end.
        cancelled: bool,
        /// No new attempt before so long, it says.
        #[serde(default)]
        retry_after_ms: Option<u64>,
    },
    /// It begins to finalize.
    Finalize,
    /// It has finalized.
    Finalized,
    /// It is told to end.
    Cancel {
        /// Why.
        reason: CancelReason,
        /// How long it has, by its own clock.
        grace_ms: u64,
    },
    /// It was ended.
    Abort,
    /// It begins to clean up, which takes long: it is told nothing any more.
    CleansUp,
    /// Something that it asked to be run at its end is run.
    Hook {
        /// The n-th that it asked for, from 1.
        number: u32,
    },
    /// Nothing of it is left.
    Closed,
    /// Its process died.
    Lost,
}

/// What one commit did to one record.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Task {
        task: TaskId,
        old: Option<Rc<TaskFact>>,
        new: Rc<TaskFact>,
    },
    Node {
        task: TaskId,
        node: NodeId,
        old: Option<Rc<NodeFact>>,
        new: Rc<NodeFact>,
    },
    Artifact {
        task: TaskId,
        node: NodeId,
        fact: Rc<ArtifactFact>,
    },
    Tombstone {
        task: TaskId,
        state: TaskState,
        /// There was none before.
        first: bool,
    },
    Removed {
        removal: Removal,
        old: Rc<Removed>,
    },
}

/// A task record, as far as checkers look.
#[derive(Debug, PartialEq)]
pub(crate) struct TaskFact {
    pub(crate) state: TaskState,
    pub(crate) settled: bool,
    pub(crate) failure_code: Option<Arc<str>>,
    /// Whose failure it is.
    pub(crate) failed_node: Option<NodeId>,
    /// Pauses and resumes that were carried out.
    pub(crate) control_no: u64,
    pub(crate) vars: Json,
    pub(crate) vars_version: u64,
    /// Tasks that a rerun points to.
    pub(crate) holds: Vec<TaskId>,
}

/// A node record, as far as checkers look.
#[derive(Debug, PartialEq)]
pub(crate) struct NodeFact {
    pub(crate) state: NodeState,
    pub(crate) epoch: Epoch,
    pub(crate) token: Token,
    pub(crate) holder: Option<(WorkerId, Incarnation)>,
    pub(crate) told_to_end: Option<CancelReason>,
    pub(crate) last_seq: u64,
    pub(crate) accepted: u64,
    pub(crate) checkpoint: Option<Json>,
    pub(crate) checkpoint_batches: u64,
    pub(crate) failures: u32,
    pub(crate) losses: u32,
    pub(crate) wait_ms: Option<u64>,
    pub(crate) failure_code: Option<Arc<str>>,
    pub(crate) result: Option<Json>,
    pub(crate) when_vars: Option<u64>,
    pub(crate) made_vars: Option<u64>,
    /// The task that has its batches, if a rerun kept it.
    pub(crate) kept_from: Option<TaskId>,
}

/// An accepted batch, as far as checkers look.
#[derive(Debug, PartialEq)]
pub(crate) struct ArtifactFact {
    pub(crate) number: u64,
    pub(crate) uid: BatchUid,
    pub(crate) token: Token,
    /// Its body lies apart.
    pub(crate) staged: bool,
}
