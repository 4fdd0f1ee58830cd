//! Whether a message may be sent, told without encoding it as long as it is small.

use super::{Artifact, BatchOk, Body, Cursor, Envelope, MESSAGE_BYTES_MAX, Metrics, TaskStart};
use crate::id::ID_BYTES_MAX;
use crate::json::Json;
use crate::record::Failure;

/// Upper bound of everything in a message but texts and values of users, and lists.
pub(super) const FRAME_BYTES: usize = 8 * 1024;
/// Upper bound of an entry of a list: its ids (escapes double them), numbers and names.
const ENTRY_BYTES: usize = 4 * ID_BYTES_MAX + 256;

impl Envelope {
    /// Whether its encoded form is within [`MESSAGE_BYTES_MAX`].
    #[must_use]
    pub fn is_within_limit(&self) -> bool {
        self.bytes_at_most() <= MESSAGE_BYTES_MAX || self.encode().is_ok()
    }

    /// Upper bound of the size of the encoded form.
    pub(super) fn bytes_at_most(&self) -> usize {
        let address = text(&self.sender.id) + optional(&self.to) + optional(&self.corr_id);
        FRAME_BYTES + address + body(&self.body)
    }
}

/// A control character takes six bytes.
fn text(text: &str) -> usize {
    text.len() * 6
}

fn optional(value: &Option<std::sync::Arc<str>>) -> usize {
    value.as_deref().map_or(0, text)
}

fn value(value: &Option<Json>) -> usize {
    value.as_ref().map_or(0, Json::len)
}

fn metrics(metrics: &Metrics) -> usize {
    let each = |(name, value): (&std::sync::Arc<str>, &Json)| text(name) + value.len() + 4;
    metrics.iter().map(each).sum()
}

fn cursor(cursor: &Cursor) -> usize {
    cursor.len() * ENTRY_BYTES
}

fn failure(failure: &Failure) -> usize {
    ENTRY_BYTES + text(&failure.reason_code) + text(&failure.error)
}

fn batch(ok: &BatchOk) -> usize {
    let artifact = match &ok.artifact {
        Some(Artifact::Inline(body)) => body.len(),
        Some(Artifact::Staged(_)) | None => 0,
    };
    let values = value(&ok.checkpoint) + value(&ok.result);
    metrics(&ok.metrics) + artifact + values + ok.cursor.as_ref().map_or(0, cursor)
}

fn start(start: &TaskStart) -> usize {
    let adapter = start.adapter.as_ref();
    start.input.len()
        + adapter.map_or(0, |adapter| text(&adapter.name) + adapter.args.len())
        + value(&start.checkpoint)
        + cursor(&start.cursor)
        + start
            .totals
            .keys()
            .map(|name| text(name) + ENTRY_BYTES)
            .sum::<usize>()
        + start.vars.len()
        + start.sources.len() * ENTRY_BYTES
}

fn body(body: &Body) -> usize {
    match body {
        Body::Submit(b) => {
            let keys = optional(&b.idempotency_key) + optional(&b.options.limit_key);
            b.graph.len() + b.vars.len() + keys
        }
        Body::CancelTask(b) => text(&b.reason),
        Body::PauseTask(b) | Body::ResumeTask(b) => text(&b.reason),
        Body::RerunTask(b) => b.from.len() * ENTRY_BYTES,
        Body::Reply(b) => {
            let error = b.error.as_ref().map_or(0, |error| {
                let faults = error.faults.iter().map(|fault| text(fault) + 3);
                text(&error.message) + faults.sum::<usize>()
            });
            error + b.failure.as_ref().map_or(0, failure)
        }
        Body::TaskStart(b) => start(b),
        Body::InputReady(b) => b.sources.len() * ENTRY_BYTES,
        Body::Heartbeat(b) => b.runs.len() * ENTRY_BYTES,
        Body::BatchOk(b) => batch(b),
        Body::TaskDone(b) => {
            metrics(&b.metrics) + value(&b.result) + b.last_batch.as_ref().map_or(0, batch)
        }
        Body::TaskFailed(b) => text(&b.reason_code) + text(&b.error),
        Body::WorkerOnline(b) => {
            let roles = b.capabilities.roles.len() * ENTRY_BYTES;
            roles + text(&b.kind) + text(&b.version) + text(&b.status)
        }
        Body::Unknown {
            msg_type,
            kind,
            payload,
        } => text(msg_type) + text(kind) + payload.len(),
        Body::WaitTask(_)
        | Body::TaskCancel(_)
        | Body::TaskRefused(_)
        | Body::Cancelled(_)
        | Body::TaskReleased(_)
        | Body::SlotFree
        | Body::WorkerOffline(_)
        | Body::CoordinatorOnline(_)
        | Body::CoordinatorOffline(_) => 0,
    }
}
