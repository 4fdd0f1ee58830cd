//! What is kept in the store: the only truth. Everything that must still be sent follows from it.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::control::TaskControl;
use crate::id::{
    BatchUid, DedupId, Epoch, Incarnation, NodeId, Offset, Role, ShardId, TaskId, Token, WorkerId,
};
use crate::json::Json;
use crate::message::{Artifact, CancelReason, Cursor, Metrics};
use crate::text::cut;

/// Format version written into every record; a record of a newer version is set aside.
pub const RECORD_VERSION: u16 = 1;
/// Transitions kept per record; beyond, the middle is dropped and counted.
pub const HISTORY_MAX: usize = 128;
/// The most of a transition's cause that is kept, in bytes.
pub const CAUSE_BYTES_MAX: usize = 1024;
/// The most of a failure's error text that is kept, in bytes.
pub const ERROR_BYTES_MAX: usize = 8 * 1024;
/// Longest reason code of a failure, in bytes.
pub const REASON_CODE_BYTES_MAX: usize = 128;

/// State of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Accepted, nothing granted yet.
    Queued,
    /// At least one node was granted.
    Running,
    /// Held back by a client.
    Paused,
    /// A cancel is acknowledged; running nodes are ending.
    Cancelling,
    /// Every node ended and no failure is left unhandled.
    Finished,
    /// A node failed for good and nothing handled it.
    Failed,
    /// Cancelled by a client.
    Cancelled,
    /// A record of the task cannot be read, or it broke an invariant; set aside.
    Quarantined,
}

impl TaskState {
    /// A terminal state never changes.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Finished | Self::Failed | Self::Cancelled | Self::Quarantined
        )
    }
}

/// State of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Its fan-in does not hold yet.
    Queued,
    /// May start; waits for a slot.
    Ready,
    /// Waits for its retry time.
    Deferred,
    /// Granted to a worker.
    Running,
    /// Ended well.
    Finished,
    /// Failed for good.
    Failed,
    /// Ended by a cancel, or never started because its task ended.
    Cancelled,
    /// Its rule can no longer hold.
    Skipped,
}

impl NodeState {
    /// A terminal state never changes.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Finished | Self::Failed | Self::Cancelled | Self::Skipped
        )
    }
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The node that failed.
    pub node_id: NodeId,
    /// Short, stable name of the error class.
    pub reason_code: Arc<str>,
    /// The error for people.
    pub error: Arc<str>,
}

/// One change of state, kept for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition<S> {
    /// The state entered.
    pub to: S,
    /// Wall time of the owner when it folded the cause.
    pub at_ms: i64,
    /// What caused it, in a few words.
    pub cause: SmolStr,
}

/// The newest and the first transitions of a task or node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History<S> {
    /// In order; when full, the middle is dropped.
    pub entries: Vec<Transition<S>>,
    /// How many were dropped from the middle.
    pub dropped: u64,
}

impl<S> Default for History<S> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            dropped: 0,
        }
    }
}

impl<S> History<S> {
    /// Notes a change of state. Of a long cause only the beginning is kept ([`CAUSE_BYTES_MAX`]): whatever
    /// it was made of, a task may have as many such records as nodes.
    pub fn push(&mut self, to: S, at_ms: i64, cause: impl AsRef<str>) {
        if self.entries.len() >= HISTORY_MAX {
            self.entries.remove(HISTORY_MAX / 4);
            self.dropped += 1;
        }
        self.entries.push(Transition {
            to,
            at_ms,
            cause: SmolStr::new(cut(cause.as_ref(), CAUSE_BYTES_MAX)),
        });
    }
}

/// Causes of transitions that are looked for in histories.
pub mod cause {
    use crate::id::WorkerId;

    /// A grant is lost: its owner did not hear of the run for the length of its lease.
    pub const LEASE_RAN_OUT: &str = "its lease ran out";
    /// A grant is lost: its worker could not confirm in time that it runs, and ended it by itself.
    pub const LEASE_LAPSED: &str = "the worker let go of it: its lease had lapsed";
    /// A node fails since the message that would start it fits into no message.
    pub const START_TOO_LARGE: &str = "start_too_large";
    /// A node fails since it was lost too often; its error ends with the cause of the last loss.
    pub const WORKER_LOST: &str = "worker_lost";
    const GRANTED_TO: &str = "granted to ";

    /// A node is granted.
    #[must_use]
    pub fn granted_to(worker: &WorkerId) -> String {
        format!("{GRANTED_TO}{worker}")
    }

    /// Whom a node was granted to, if this is the cause of a grant.
    #[must_use]
    pub fn worker_of_grant(cause: &str) -> Option<WorkerId> {
        WorkerId::new(cause.strip_prefix(GRANTED_TO)?).ok()
    }
}

/// A finite floating point number, so that records can be compared.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number(pub f64);

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0.total_cmp(&other.0).is_eq()
    }
}
impl Eq for Number {}

/// Running totals of one numeric metric over accepted batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricTotal {
    /// Sum of the values.
    pub sum: Number,
    /// How many batches had the metric.
    pub count: u64,
    /// Smallest value.
    pub min: Number,
    /// Largest value.
    pub max: Number,
    /// Value of the newest batch.
    pub last: Number,
}

impl MetricTotal {
    /// Adds one value.
    pub fn add(&mut self, value: f64) {
        let first = self.count == 0;
        // Infinity has no form in JSON: a total that reached it could not be sent any more.
        self.sum = Number((self.sum.0 + value).clamp(f64::MIN, f64::MAX));
        self.count += 1;
        self.min = Number(if first { value } else { self.min.0.min(value) });
        self.max = Number(if first { value } else { self.max.0.max(value) });
        self.last = Number(value);
    }
}

/// Totals by metric name.
pub type Totals = BTreeMap<Arc<str>, MetricTotal>;

/// Most metric names that a node keeps totals of.
pub const TOTALS_MAX: usize = 256;

/// Longest name of a metric that a node keeps a total of, in bytes.
pub const TOTAL_NAME_BYTES_MAX: usize = 256;

/// Adds the numbers among a batch's metrics to the totals. Other values, names that are longer than
/// [`TOTAL_NAME_BYTES_MAX`], and names beyond the first [`TOTALS_MAX`], are kept per batch only.
pub fn add_metrics(totals: &mut Totals, metrics: &Metrics) {
    for (name, value) in metrics {
        let Ok(number) = value.text().parse::<f64>() else {
            continue;
        };
        let has_room = totals.len() < TOTALS_MAX || totals.contains_key(name);
        if number.is_finite() && name.len() <= TOTAL_NAME_BYTES_MAX && has_room {
            totals.entry(name.clone()).or_default().add(number);
        }
    }
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Format version.
    pub version: u16,
    /// The task.
    pub task_id: TaskId,
    /// Hash of the submission: the same id with another one is a conflict.
    pub submission_hash: u128,
    /// The graph as submitted, validated.
    pub graph: Json,
    /// The task's vars: a JSON object, or `null`.
    pub vars: Json,
    /// The client's idempotency key, if it gave one.
    pub idempotency_key: Option<Arc<str>>,
    /// State of the task.
    pub state: TaskState,
    /// Terminal and no grant left.
    pub settled: bool,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Grace of the acknowledged cancel in milliseconds, if there is one.
    pub cancel_grace_ms: Option<u64>,
    /// Wall time of the submission, for people.
    pub created_at_ms: i64,
    /// Every change of state.
    pub history: History<TaskState>,
    /// How it is operated.
    #[serde(default)]
    pub control: TaskControl,
    /// How many coordinator functions have ended well: the version of `vars`, 0 as submitted.
    #[serde(default)]
    pub vars_version: u64,
    /// The vars as submitted, once functions have changed them: what a rerun begins with, so also what
    /// `vars.unset` removed.
    #[serde(default)]
    pub submitted_vars: Option<Json>,
    /// The task that it runs again, if it is a rerun.
    #[serde(default)]
    pub rerun: Option<Rerun>,
}

/// What a rerun rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rerun {
    /// The task that it runs again (`rerun_of`), of the same shard.
    pub of: TaskId,
    /// Every task that it points to, by id: that one, and those whose accepted batches are those of
    /// its kept nodes. None of them is swept before it.
    pub holds: Vec<TaskId>,
}

/// What is left of a task that was swept: its id is taken for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TombstoneRecord {
    /// Format version.
    pub version: u16,
    /// The task.
    pub task_id: TaskId,
    /// Hash of its submission.
    pub submission_hash: u128,
    /// How it ended.
    pub state: TaskState,
}

/// The right to run a node now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who may run it.
    pub worker_id: WorkerId,
    /// The process of that worker.
    pub incarnation: Incarnation,
    /// Inbox partition of that worker.
    pub inbox: u32,
    /// Length of the lease in milliseconds.
    pub lease_ttl_ms: u64,
    /// The run was told to end: why, and within what time.
    pub cancel: Option<GrantCancel>,
}

/// A cancel of one grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantCancel {
    /// Why.
    pub reason: CancelReason,
    /// Time for the handler to end.
    pub grace_ms: u64,
}

/// A node of a task. One record holds everything its next holder and its next owner need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Format version.
    pub version: u16,
    /// The task.
    pub task_id: TaskId,
    /// The node.
    pub node_id: NodeId,
    /// State of the node.
    pub state: NodeState,
    /// The attempt, counted from 1 once it was granted.
    pub epoch: Epoch,
    /// The newest token ever given out; current only while `grant` is set.
    pub lease_no: Token,
    /// The current grant.
    pub grant: Option<Grant>,
    /// `seq` of the last applied event of the current token.
    pub last_seq: u64,
    /// Accepted batches over all attempts = number of the newest artifact.
    pub accepted: u64,
    /// Newest checkpoint committed with a batch.
    pub checkpoint: Option<Json>,
    /// `accepted` when that checkpoint was committed.
    pub checkpoint_batches: u64,
    /// Newest adapter cursor committed with a batch.
    pub cursor: Cursor,
    /// `accepted` when that cursor was committed.
    pub cursor_batches: u64,
    /// Totals over accepted batches (and `finalize`, once finished).
    pub totals: Totals,
    /// What `finalize` returned; until then, and without that, what the newest batch marked.
    pub result: Option<Json>,
    /// Attempts that the handler ended in failure.
    pub failures: u32,
    /// Grants lost in a row; an accepted batch sets it back to 0.
    pub losses: u32,
    /// Grants made, for people.
    pub grants: u32,
    /// Milliseconds left of the wait when the record was written (state `deferred`).
    pub wait_ms: Option<u64>,
    /// The next grant begins a new attempt (the last one ended in a failure).
    pub new_attempt: bool,
    /// Why it failed or was skipped, if it was.
    pub failure: Option<Failure>,
    /// Every change of state.
    pub history: History<NodeState>,
    /// Version of the task's vars by which its `when` was judged, once it was.
    #[serde(default)]
    pub when_vars: Option<u64>,
    /// Version of the task's vars that its function made, once it has ended well.
    #[serde(default)]
    pub made_vars: Option<u64>,
    /// The node was kept by a rerun: its accepted batches are those of the same node of this task.
    #[serde(default)]
    pub kept_from: Option<TaskId>,
}

/// One accepted batch: its artifact and metrics, numbered within its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// Format version.
    pub version: u16,
    /// The task.
    pub task_id: TaskId,
    /// The node.
    pub node_id: NodeId,
    /// Place in the node's accepted sequence, from 1.
    pub number: u64,
    /// The batch. (task, node, batch uid) is unique in the store.
    pub batch_uid: BatchUid,
    /// Token it was accepted under; names the staged body.
    pub token: Token,
    /// Metrics of the batch.
    pub metrics: Metrics,
    /// The artifact; if absent, the metrics are the artifact.
    pub artifact: Option<Artifact>,
}

/// A shard: who may write it, and how far it has folded its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// The shard.
    pub shard: ShardId,
    /// Raised by every takeover.
    pub epoch: u64,
    /// Raised by every commit.
    pub commit_seq: u64,
    /// Id of the newest commit.
    pub commit_id: u64,
    /// First offset of the stream that is not folded.
    pub next: Offset,
    /// `dedup_id` of the entry before `next`, to notice another log.
    pub last_entry: Option<DedupId>,
}

/// The newest process of a worker id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Format version.
    pub version: u16,
    /// The worker.
    pub worker_id: WorkerId,
    /// Its newest process start.
    pub incarnation: Incarnation,
    /// Drawn by that process start: tells a repeat of its registration from another start's.
    pub start_nonce: u64,
    /// Roles of that process.
    pub roles: Vec<Role>,
    /// Nodes it runs at once.
    pub capacity: u32,
    /// Its inbox partition.
    pub inbox: u32,
    /// Its version, for people.
    pub worker_version: Arc<str>,
}

/// A checkpoint of the batch in work, for the next holder that meets the same batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScratchRecord {
    /// The newest token that read or wrote it; an older one may not write.
    pub token: Token,
    /// Number of the save under that token; 0 if that token only read. A late copy of an older
    /// save changes nothing.
    pub save_no: u64,
    /// The batch it belongs to, if one was saved.
    pub batch_uid: Option<BatchUid>,
    /// The checkpoint.
    pub checkpoint: Json,
}

/// What is fixed when a deployment is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentRecord {
    /// Number of shards of all tasks.
    pub shards: u32,
    /// Number of inbox partitions.
    pub inboxes: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_history_keeps_its_first_and_its_newest_entries_and_counts_the_rest() {
        let mut history = History::default();
        for at_ms in 0..300 {
            history.push((), at_ms, "");
        }
        let kept: Vec<i64> = history.entries.iter().map(|entry| entry.at_ms).collect();
        let first = 0..32;
        let newest = 204..300;
        assert_eq!(kept, first.chain(newest).collect::<Vec<_>>());
        assert_eq!(history.dropped, 172);
    }

    #[test]
    fn no_total_is_kept_under_an_endless_name() {
        let one = || Json::parse("1").expect("JSON");
        let longest = "x".repeat(TOTAL_NAME_BYTES_MAX);
        let longer = "x".repeat(TOTAL_NAME_BYTES_MAX + 1);
        let metrics: Metrics = [longest.clone(), longer]
            .map(|name| (name.into(), one()))
            .into();
        let mut totals = Totals::new();
        add_metrics(&mut totals, &metrics);
        assert_eq!(
            totals.keys().map(|name| &**name).collect::<Vec<_>>(),
            [longest]
        );
    }

    #[test]
    fn only_finite_numbers_are_added_up_and_a_sum_stays_finite() {
        let metrics: Metrics = [
            ("huge", "1.7e308"),
            ("text", "\"5\""),
            ("list", "[1]"),
            ("over", "1e999"),
            ("small", "-2.5"),
        ]
        .map(|(name, text)| (Arc::from(name), Json::parse(text).expect("JSON")))
        .into();
        let mut totals = Totals::new();
        add_metrics(&mut totals, &metrics);
        add_metrics(&mut totals, &metrics);
        let names: Vec<&str> = totals.keys().map(|name| &**name).collect();
        assert_eq!(names, ["huge", "small"]);
        assert_eq!(totals["huge"].sum, Number(f64::MAX));
        let small = totals["small"];
        assert_eq!((small.sum, small.count), (Number(-5.0), 2));
        assert_eq!(
            (small.min, small.max, small.last),
            (Number(-2.5), Number(-2.5), Number(-2.5))
        );
    }
}
