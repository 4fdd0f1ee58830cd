//! Messages between clients, coordinators and workers, and their JSON form.
//!
//! The envelope says who, about what and under which token; [`Body`] is the kind with its payload.

mod body;
mod size;
mod wire;

pub use body::{
    AdapterSpec, Artifact, BatchOk, Body, CancelReason, CancelTask, Cancelled, Capabilities,
    Capacity, ControlTask, CoordinatorOffline, CoordinatorOnline, Counts, Cursor, ErrorReply,
    Heartbeat, InputReady, Metrics, RefusalReason, ReleaseReason, Reply, ReplyError, RerunTask,
    RunBeat, SourceState, Submit, TaskCancel, TaskDone, TaskFailed, TaskRefused, TaskReleased,
    TaskStart, WaitTask, WorkerOffline, WorkerOnline,
};
pub use wire::DecodeError;

use serde::{Deserialize, Serialize};

use crate::hash::stable64;
use crate::id::{DedupId, Epoch, Incarnation, NodeId, Role, TaskId, Token};

/// Largest artifact in bytes that travels inside a message; larger ones are staged in the store.
pub const ARTIFACT_INLINE_BYTES_MAX: usize = 256 * 1024;
/// Largest checkpoint in bytes.
pub const CHECKPOINT_BYTES_MAX: usize = 64 * 1024;
/// Largest result of a node in bytes that a batch may mark: it travels beside the batch's artifact and
/// checkpoint.
pub const MARK_BYTES_MAX: usize = 256 * 1024;
/// Largest message in bytes; larger ones are refused where they are made and where they are read.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// What kind of process sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SenderRole {
    /// A client.
    Client,
    /// The owner of a shard.
    Coordinator,
    /// A worker.
    Worker,
}

/// Who sent a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sender {
    /// The kind of process.
    pub role: SenderRole,
    /// Its id: a worker id, a client id, a coordinator id.
    pub id: std::sync::Arc<str>,
    /// The process start of that id (workers); 0 where it has no meaning.
    #[serde(default)]
    pub incarnation: Incarnation,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "wire::Wire", try_from = "wire::Wire")]
pub struct Envelope {
    /// Who sent it.
    pub sender: Sender,
    /// To whom, on a shared inbox: a worker id or client id. Others ignore the message.
    pub to: Option<std::sync::Arc<str>>,
    /// The incarnation that a command is meant for.
    pub to_incarnation: Option<Incarnation>,
    /// Joins a reply to its request; chosen by the requester.
    pub corr_id: Option<std::sync::Arc<str>>,
    /// Stable identity of the message; a redelivery keeps it.
    pub dedup_id: DedupId,
    /// The task it is about.
    pub task_id: Option<TaskId>,
    /// The node it is about.
    pub node_id: Option<NodeId>,
    /// The node's type, which is the role that runs it.
    pub step_type: Option<Role>,
    /// The attempt, for people.
    pub attempt_epoch: Option<Epoch>,
    /// The token of the grant.
    pub lease_no: Option<Token>,
    /// Counts a run's events from 1 per token.
    pub seq: Option<u64>,
    /// Free slots of the sending worker, as of sending.
    pub free_slots: Option<u32>,
    /// Counts the changes of `free_slots` in a worker's process, so that a copy that comes late is not
    /// taken for news.
    pub slots_no: Option<u64>,
    /// Wall time of sending, for people; never compared.
    pub ts_ms: i64,
    /// Kind and payload.
    pub body: Body,
}

impl Envelope {
    /// An envelope with nothing but sender, body and time.
    #[must_use]
    pub fn new(sender: Sender, ts_ms: i64, body: Body) -> Self {
        Self {
            sender,
            to: None,
            to_incarnation: None,
            corr_id: None,
            dedup_id: DedupId(0),
            task_id: None,
            node_id: None,
            step_type: None,
            attempt_epoch: None,
            lease_no: None,
            seq: None,
            free_slots: None,
            slots_no: None,
            ts_ms,
            body,
        }
    }

    /// Sets `dedup_id` from what makes this message the one it is: sender, subject, token, seq,
    /// kind and `nonce` (a counter for kinds that have no seq). Call it last.
    #[must_use]
    pub fn identified(mut self, nonce: u64) -> Self {
        let text = |id: Option<&str>| id.unwrap_or_default().as_bytes().to_vec();
        self.dedup_id = DedupId(stable64(&[
            self.sender.id.as_bytes(),
            &self.sender.incarnation.0.to_le_bytes(),
            self.body.kind().as_bytes(),
            &text(self.task_id.as_ref().map(TaskId::as_str)),
            &text(self.node_id.as_ref().map(NodeId::as_str)),
            &self.lease_no.map_or(0, |t| t.0).to_le_bytes(),
            &self.seq.unwrap_or(0).to_le_bytes(),
            &text(self.corr_id.as_deref()),
            &nonce.to_le_bytes(),
        ]));
        self
    }
}

#[cfg(test)]
mod tests;
