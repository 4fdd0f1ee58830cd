//! JSON form of the envelope: reading hostile bytes gives an error, never a panic.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;

use super::{Body, Envelope, MESSAGE_BYTES_MAX, Sender};
use crate::id::{DedupId, Epoch, Incarnation, NodeId, Role, TaskId, Token};
use crate::json::Json;

const VERSION: u32 = 1;

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Larger than any message may be.
    #[error("message of {0} bytes is over the limit of {MESSAGE_BYTES_MAX}")]
    TooLarge(usize),
    /// Not JSON, or without the fields every message has.
    #[error("not an envelope: {0}")]
    Envelope(String),
    /// An envelope version that this build cannot read.
    #[error("envelope version {0} is not known; this build reads version {VERSION}")]
    Version(u32),
    /// A known kind whose payload does not have its shape.
    #[error("payload of {kind}: {message}")]
    Payload {
        /// The message's kind.
        kind: String,
        /// What is wrong with it.
        message: String,
    },
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Wire {
    v: u32,
    msg_type: Arc<str>,
    kind: Arc<str>,
    sender: Sender,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to_incarnation: Option<Incarnation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    corr_id: Option<Arc<str>>,
    #[serde(default)]
    dedup_id: DedupId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task_id: Option<TaskId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node_id: Option<NodeId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    step_type: Option<Role>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt_epoch: Option<Epoch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_no: Option<Token>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    free_slots: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slots_no: Option<u64>,
    #[serde(default)]
    ts_ms: i64,
    #[serde(default)]
    payload: Json,
}

impl Envelope {
    /// The message as JSON bytes.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] when it exceeds the limit of a message.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let bytes = serde_json::to_vec(self).map_err(|e| DecodeError::Envelope(e.to_string()))?;
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// Reads a message from bytes of any origin.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        let wire: Wire =
            serde_json::from_slice(bytes).map_err(|e| DecodeError::Envelope(e.to_string()))?;
        Self::try_from(wire)
    }
}

fn payload_of<T: Serialize>(payload: &T) -> Json {
    // Payload types have text keys only and hold JSON already checked, so encoding cannot fail;
    // `null` would be refused by the receiver like any malformed payload.
    Json::encode(payload).unwrap_or_default()
}

impl From<Envelope> for Wire {
    fn from(envelope: Envelope) -> Self {
        let body = &envelope.body;
        let payload = match body {
            Body::Submit(p) => payload_of(p),
            Body::CancelTask(p) => payload_of(p),
            Body::WaitTask(p) => payload_of(p),
            Body::PauseTask(p) | Body::ResumeTask(p) => payload_of(p),
            Body::RerunTask(p) => payload_of(p),
            Body::Reply(p) => payload_of(p),
            Body::TaskStart(p) => payload_of(p),
            Body::TaskCancel(p) => payload_of(p),
            Body::InputReady(p) => payload_of(p),
            Body::TaskRefused(p) => payload_of(p),
            Body::Heartbeat(p) => payload_of(p),
            Body::BatchOk(p) => payload_of(p),
            Body::TaskDone(p) => payload_of(p),
            Body::TaskFailed(p) => payload_of(p),
            Body::Cancelled(p) => payload_of(p),
            Body::TaskReleased(p) => payload_of(p),
            Body::SlotFree => Json::null(),
            Body::WorkerOnline(p) => payload_of(p),
            Body::WorkerOffline(p) => payload_of(p),
            Body::CoordinatorOnline(p) => payload_of(p),
            Body::CoordinatorOffline(p) => payload_of(p),
            Body::Unknown { payload, .. } => payload.clone(),
        };
        Self {
            v: VERSION,
            msg_type: Arc::from(body.msg_type()),
            kind: Arc::from(body.kind()),
            payload,
            sender: envelope.sender,
            to: envelope.to,
            to_incarnation: envelope.to_incarnation,
            corr_id: envelope.corr_id,
            dedup_id: envelope.dedup_id,
            task_id: envelope.task_id,
            node_id: envelope.node_id,
            step_type: envelope.step_type,
            attempt_epoch: envelope.attempt_epoch,
            lease_no: envelope.lease_no,
            seq: envelope.seq,
            free_slots: envelope.free_slots,
            slots_no: envelope.slots_no,
            ts_ms: envelope.ts_ms,
        }
    }
}

impl TryFrom<Wire> for Envelope {
    type Error = DecodeError;

    fn try_from(wire: Wire) -> Result<Self, DecodeError> {
        if wire.v != VERSION {
            return Err(DecodeError::Version(wire.v));
        }
        let body = body_of(&wire)?;
        Ok(Self {
            body,
            sender: wire.sender,
            to: wire.to,
            to_incarnation: wire.to_incarnation,
            corr_id: wire.corr_id,
            dedup_id: wire.dedup_id,
            task_id: wire.task_id,
            node_id: wire.node_id,
            step_type: wire.step_type,
            attempt_epoch: wire.attempt_epoch,
            lease_no: wire.lease_no,
            seq: wire.seq,
            free_slots: wire.free_slots,
            slots_no: wire.slots_no,
            ts_ms: wire.ts_ms,
        })
    }
}

fn body_of(wire: &Wire) -> Result<Body, DecodeError> {
    fn read<T: DeserializeOwned>(wire: &Wire) -> Result<T, DecodeError> {
        wire.payload.decode().map_err(|e| DecodeError::Payload {
            kind: wire.kind.to_string(),
            message: e.to_string(),
        })
    }
    Ok(match &*wire.kind {
        "SUBMIT" => Body::Submit(read(wire)?),
        "CANCEL_TASK" => Body::CancelTask(read(wire)?),
        "WAIT_TASK" => Body::WaitTask(read(wire)?),
        "PAUSE_TASK" => Body::PauseTask(read(wire)?),
        "RESUME_TASK" => Body::ResumeTask(read(wire)?),
        "RERUN_TASK" => Body::RerunTask(read(wire)?),
        "REPLY" => Body::Reply(read(wire)?),
        "TASK_START" => Body::TaskStart(read(wire)?),
        "TASK_CANCEL" => Body::TaskCancel(read(wire)?),
        "INPUT_READY" => Body::InputReady(read(wire)?),
        "TASK_REFUSED" => Body::TaskRefused(read(wire)?),
        "HEARTBEAT" => Body::Heartbeat(read(wire)?),
        "BATCH_OK" => Body::BatchOk(read(wire)?),
        "TASK_DONE" => Body::TaskDone(read(wire)?),
        "TASK_FAILED" => Body::TaskFailed(read(wire)?),
        "CANCELLED" => Body::Cancelled(read(wire)?),
        "TASK_RELEASED" => Body::TaskReleased(read(wire)?),
        "SLOT_FREE" => Body::SlotFree,
        "WORKER_ONLINE" => Body::WorkerOnline(read(wire)?),
        "WORKER_OFFLINE" => Body::WorkerOffline(read(wire)?),
        "COORDINATOR_ONLINE" => Body::CoordinatorOnline(read(wire)?),
        "COORDINATOR_OFFLINE" => Body::CoordinatorOffline(read(wire)?),
        _ => Body::Unknown {
            msg_type: wire.msg_type.clone(),
            kind: wire.kind.clone(),
            payload: wire.payload.clone(),
        },
    })
}
