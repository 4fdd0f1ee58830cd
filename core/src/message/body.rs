//! The payload of every kind of message.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::control::TaskOptions;
use crate::id::{BatchUid, ClientId, Incarnation, NodeId, Role, TaskId, Token, WorkerId};
use crate::json::{Json, present};
use crate::record::{Failure, MetricTotal, TaskState};

/// Metrics of one batch: any JSON value by name; numbers are added up by the engine.
pub type Metrics = BTreeMap<Arc<str>, Json>;

/// How far a reader has taken each source: the newest artifact number whose every chunk is
/// accepted, by source node.
pub type Cursor = BTreeMap<NodeId, u64>;

/// Kind and payload of a message.
///
/// Not exhaustive on the wire: a kind this version does not know arrives as [`Body::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Body {
    /// client -> shard: take this task.
    Submit(Submit),
    /// client -> shard: cancel a task.
    CancelTask(CancelTask),
    /// client -> shard: answer when the task is settled.
    WaitTask(WaitTask),
    /// client -> shard: make no grant of the task until it is resumed.
    PauseTask(ControlTask),
    /// client -> shard: let a paused task go on.
    ResumeTask(ControlTask),
    /// client -> shard: run a settled task again, as a new one.
    RerunTask(RerunTask),
    /// shard -> client: the answer to a request, sent after the commit it rests on.
    Reply(Reply),
    /// shard -> worker: run this node under this token.
    TaskStart(Box<TaskStart>),
    /// shard -> worker: end this run.
    TaskCancel(TaskCancel),
    /// shard -> worker: a source of the reader moved on.
    InputReady(InputReady),
    /// worker -> shard: a START is not taken. Carries no seq.
    TaskRefused(TaskRefused),
    /// worker -> shard: these runs live.
    Heartbeat(Heartbeat),
    /// worker -> shard: a batch succeeded.
    BatchOk(BatchOk),
    /// worker -> shard: the run ended well.
    TaskDone(TaskDone),
    /// worker -> shard: the attempt failed.
    TaskFailed(TaskFailed),
    /// worker -> shard: the run ended because it was told to.
    Cancelled(Cancelled),
    /// worker -> shard: the run ended for a reason of the worker's; grant the node anew.
    TaskReleased(TaskReleased),
    /// worker -> shard: a slot is free again, after a refusal `busy`.
    SlotFree,
    /// worker -> every owner: here I am.
    WorkerOnline(WorkerOnline),
    /// worker -> every owner: I am leaving.
    WorkerOffline(WorkerOffline),
    /// coordinator -> every other one: here I am. Only where there are shards to share.
    CoordinatorOnline(CoordinatorOnline),
    /// coordinator -> every other one: I am leaving, my shards are free.
    CoordinatorOffline(CoordinatorOffline),
    /// A kind that this version does not know.
    Unknown {
        /// `msg_type` as it arrived.
        msg_type: Arc<str>,
        /// `kind` as it arrived.
        kind: Arc<str>,
        /// Its payload, unparsed.
        payload: Json,
    },
}

/// Payload of SUBMIT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit {
    /// The graph as JSON, validated by the owner of the shard.
    pub graph: Json,
    /// The task's vars at its start: a JSON object, or `null`.
    #[serde(default)]
    pub vars: Json,
    /// The client's idempotency key, kept for people; the task id is derived from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<Arc<str>>,
    /// Priority, delayed start, and the key of a limit.
    #[serde(default, skip_serializing_if = "TaskOptions::is_default")]
    pub options: TaskOptions,
    /// Inbox partition for the reply.
    pub inbox: u32,
}

/// Payload of CANCEL_TASK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelTask {
    /// Why, in the words of who cancels.
    #[serde(default)]
    pub reason: Arc<str>,
    /// Time for handlers to end, in milliseconds; the deployment's `cancel_grace_sec` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// Inbox partition for the reply.
    pub inbox: u32,
}

/// Payload of WAIT_TASK: answered once the task is settled (terminal, no grant left).
///
/// Not durable: a new owner knows nothing of it, so clients repeat it now and then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitTask {
    /// Inbox partition for the reply.
    pub inbox: u32,
}

/// Payload of PAUSE_TASK and RESUME_TASK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlTask {
    /// The task's `control_no` + 1, as its record has it. A request that is not the next one is
    /// answered from state: a copy that comes late changes nothing.
    pub control_no: u64,
    /// Why, in the words of who asks.
    #[serde(default)]
    pub reason: Arc<str>,
    /// Inbox partition for the reply.
    pub inbox: u32,
}

/// Payload of RERUN_TASK: the envelope's task is a new one that runs a settled task again and keeps
/// what that has done. Nodes that finished are kept, unless a node that runs again is above them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RerunTask {
    /// The task to run again, of the same shard as the new one.
    pub of: TaskId,
    /// Nodes that run again although they finished, and everything below them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<NodeId>,
    /// Every node runs again; nothing is kept.
    #[serde(default)]
    pub all: bool,
    /// Inbox partition for the reply.
    pub inbox: u32,
}

/// Payload of REPLY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The request was carried out (or had been before).
    pub ok: bool,
    /// State of the task as of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    /// Why the task failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Why the request was refused, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReply>,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// What the client does next depends on this.
    pub kind: ReplyError,
    /// One sentence for people.
    pub message: Arc<str>,
    /// Every fault found, each with its path and the cure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Arc<str>>,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyError {
    /// The graph breaks rules; `faults` lists all of them.
    InvalidGraph,
    /// The task id is taken by another graph.
    IdempotencyConflict,
    /// No such task.
    NotFound,
    /// The task's retention ended: only its id is left.
    Swept,
    /// The task has not ended yet, or runs of it are still ending.
    NotSettled,
    /// This version does not know the request.
    Unsupported,
    /// As many tasks as may be in flight are; try again later.
    Overloaded,
    /// The request itself is malformed, or the store refused it.
    Invalid,
}

/// An input adapter and its arguments, as in the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterSpec {
    /// `input_adapter`: the adapter's name.
    pub name: Arc<str>,
    /// `input_args`, checked.
    #[serde(default)]
    pub args: Json,
}

/// What a reader needs to know about one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// The source node.
    pub node_id: NodeId,
    /// Its newest accepted artifact number; 0 = none yet.
    pub last: u64,
    /// No more will come: the source is terminal.
    pub ended: bool,
    /// The task whose artifacts the source has: set if a rerun kept it from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_from: Option<TaskId>,
}

/// Payload of TASK_START.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStart {
    /// `io.input_ref` and `io.input_inline` of the node: `{"input_ref":…,"input_inline":…}`.
    pub input: Json,
    /// The node's input adapter, if the graph names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterSpec>,
    /// The lease's length; the worker is live until its last confirmed heartbeat plus this.
    pub lease_ttl_ms: u64,
    /// Newest checkpoint committed with a batch.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub checkpoint: Option<Json>,
    /// Batches accepted when that checkpoint was committed; 0 without a checkpoint.
    #[serde(default)]
    pub checkpoint_batches: u64,
    /// Newest adapter cursor committed with a batch.
    #[serde(default)]
    pub cursor: Cursor,
    /// Batches accepted when that cursor was committed; 0 without a cursor.
    #[serde(default)]
    pub cursor_batches: u64,
    /// Batches of this node accepted so far, over all attempts.
    #[serde(default)]
    pub accepted: u64,
    /// Totals of the metrics of those batches.
    #[serde(default)]
    pub totals: BTreeMap<Arc<str>, MetricTotal>,
    /// The task's vars as of the grant: a JSON object, or `null`.
    #[serde(default)]
    pub vars: Json,
    /// Every parent node as of the grant, for readers.
    #[serde(default)]
    pub sources: Vec<SourceState>,
}

/// Why a run is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// A client cancelled the task.
    UserRequest,
    /// A source of the node, which it reads while that works, failed for good, and the task with it.
    UpstreamFailed,
    /// Another node failed for good, and the task with it.
    TaskFailed,
    /// The token is not the current one.
    Fenced,
    /// The slot is needed by a source of this reader; the node is granted again later.
    Yield,
    /// The worker's lease ran out on its own clock.
    LeaseLapsed,
    /// The worker is stopping.
    Shutdown,
    /// The worker could not reach the store for a whole lease.
    StoreUnreachable,
}

/// Payload of TASK_CANCEL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskCancel {
    /// Why.
    pub reason: CancelReason,
    /// How long the handler has to end.
    pub grace_ms: u64,
}

/// Payload of INPUT_READY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputReady {
    /// Every source of the reader.
    pub sources: Vec<SourceState>,
}

/// Why a START was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// No free slot.
    Busy,
    /// The worker is stopping.
    Draining,
    /// The worker has no handler for the role.
    NoHandler,
    /// The store says that the token is not current, or the task is cancelled.
    NotCurrent,
    /// The worker cannot check the grant.
    StoreUnreachable,
}

/// Payload of TASK_REFUSED.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRefused {
    /// Why.
    pub reason: RefusalReason,
}

/// One run in a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunBeat {
    /// The task.
    pub task_id: TaskId,
    /// The node.
    pub node_id: NodeId,
    /// The token it runs under.
    pub token: Token,
    /// Batches done by this run.
    #[serde(default)]
    pub batches: u64,
    /// How long the current batch has been in work, in milliseconds.
    #[serde(default)]
    pub in_batch_ms: u64,
}

/// Payload of HEARTBEAT: the first one that names a token accepts its START.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The worker's runs of this shard.
    pub runs: Vec<RunBeat>,
}

/// What a batch left for later nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Artifact {
    /// The value itself, at most [`super::ARTIFACT_INLINE_BYTES_MAX`] bytes.
    Inline(Json),
    /// Staged in the store under (task, node, batch uid, token); the size in bytes.
    Staged(u64),
}

/// Payload of BATCH_OK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchOk {
    /// The batch.
    pub batch_uid: BatchUid,
    /// Its metrics.
    #[serde(default)]
    pub metrics: Metrics,
    /// Its artifact; if absent, the metrics are the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// The newest checkpoint saved while the batch was in work.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub checkpoint: Option<Json>,
    /// The adapter's cursor after this batch, if it moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    /// The node's result as of this batch, if the handler marked one; TASK_DONE's replaces it.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub result: Option<Json>,
}

/// How the batches of a finished run add up to its final input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Batches this run did.
    pub new: u64,
    /// Batches this run met that were accepted before.
    pub skipped: u64,
    /// Batches that lay behind the checkpoint or cursor it resumed from.
    pub behind_checkpoint: u64,
}

/// Payload of TASK_DONE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDone {
    /// Metrics of `finalize`.
    #[serde(default)]
    pub metrics: Metrics,
    /// The node's result, if `finalize` gave one.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    pub result: Option<Json>,
    /// The sum that must equal the accepted batches.
    pub counts: Counts,
    /// The last batch, if it was not sent on its own; counted in `counts.new`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_batch: Option<BatchOk>,
}

/// Payload of TASK_FAILED.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailed {
    /// The batch in work, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_uid: Option<BatchUid>,
    /// Short, stable name of the error class.
    pub reason_code: Arc<str>,
    /// Trying again is of no use.
    #[serde(default)]
    pub permanent: bool,
    /// The error for people.
    #[serde(default)]
    pub error: Arc<str>,
    /// Earliest next attempt, in milliseconds from now, if the handler asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// Payload of CANCELLED.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// The reason it was told.
    pub reason: CancelReason,
}

/// Why a worker let go of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseReason {
    /// The worker is stopping.
    Shutdown,
    /// It was told to yield its slot.
    Yield,
    /// It could not reach the store for a whole lease.
    StoreUnreachable,
    /// Its lease ran out on its own clock.
    LeaseLapsed,
    /// It was told, or read, that its token is not current.
    Fenced,
}

/// Payload of TASK_RELEASED.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReleased {
    /// Why.
    pub reason: ReleaseReason,
}

/// Payload of WORKER_ONLINE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerOnline {
    /// The worker.
    pub worker_id: WorkerId,
    /// Its roles joined by commas.
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// Its roles.
    pub capabilities: Capabilities,
    /// Its version, for people.
    pub version: Arc<str>,
    /// How much it runs at once.
    pub capacity: Capacity,
    /// `online` or `draining`.
    pub status: Arc<str>,
    /// This process start.
    pub incarnation: Incarnation,
    /// Inbox partition for its commands.
    pub inbox: u32,
    /// Handlers that ignore that they were told to end: each holds a slot for nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub abandoned: u32,
    /// Time until its next announcement in milliseconds: a worker that is silent for much longer is gone. 0 =
    /// it does not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub announce_interval_ms: u64,
}

/// Not worth a field of a message.
fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// What a worker can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Its roles.
    pub roles: Vec<Role>,
}

/// How much a worker runs at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Nodes at once, all roles together.
    pub tasks: u32,
}

/// Payload of WORKER_OFFLINE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerOffline {
    /// The worker.
    pub worker_id: WorkerId,
    /// The process start that ends.
    pub incarnation: Incarnation,
}

/// Payload of COORDINATOR_ONLINE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorOnline {
    /// This start of the coordinator.
    pub owner: ClientId,
}

/// Payload of COORDINATOR_OFFLINE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorOffline {
    /// The start that ends.
    pub owner: ClientId,
}

macro_rules! kinds {
    ($($body:ident $(($payload:pat))? = $name:literal,)+) => {
        impl Body {
            /// The wire names of all kinds that this version knows.
            pub const KINDS: &[&str] = &[$($name),+];

            /// The wire name of the kind.
            #[must_use]
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$body $(($payload))? => $name,)+
                    Self::Unknown { kind, .. } => kind,
                }
            }
        }
    };
}

kinds! {
    Submit(_) = "SUBMIT",
    CancelTask(_) = "CANCEL_TASK",
    WaitTask(_) = "WAIT_TASK",
    PauseTask(_) = "PAUSE_TASK",
    ResumeTask(_) = "RESUME_TASK",
    RerunTask(_) = "RERUN_TASK",
    Reply(_) = "REPLY",
    TaskStart(_) = "TASK_START",
    TaskCancel(_) = "TASK_CANCEL",
    InputReady(_) = "INPUT_READY",
    TaskRefused(_) = "TASK_REFUSED",
    Heartbeat(_) = "HEARTBEAT",
    BatchOk(_) = "BATCH_OK",
    TaskDone(_) = "TASK_DONE",
    TaskFailed(_) = "TASK_FAILED",
    Cancelled(_) = "CANCELLED",
    TaskReleased(_) = "TASK_RELEASED",
    SlotFree = "SLOT_FREE",
    WorkerOnline(_) = "WORKER_ONLINE",
    WorkerOffline(_) = "WORKER_OFFLINE",
    CoordinatorOnline(_) = "COORDINATOR_ONLINE",
    CoordinatorOffline(_) = "COORDINATOR_OFFLINE",
}

impl Body {
    /// The wire name of the message's class.
    #[must_use]
    pub fn msg_type(&self) -> &str {
        match self {
            Self::Submit(_) | Self::CancelTask(_) | Self::WaitTask(_) => "request",
            Self::PauseTask(_) | Self::ResumeTask(_) | Self::RerunTask(_) => "request",
            Self::Reply(_) => "reply",
            Self::TaskStart(_) | Self::TaskCancel(_) | Self::InputReady(_) => "cmd",
            Self::Heartbeat(_) => "heartbeat",
            Self::Unknown { msg_type, .. } => msg_type,
            _ => "event",
        }
    }
}
