//! What may leave the worker: sizes of events, and what a handler may put into them.

use std::sync::Arc;

use super::io::RunFailure;
use super::run::{Run, SAVES_MAX, Work};
use crate::id::{BatchUid, ID_BYTES_MAX};
use crate::json::{Json, check_value};
use crate::message::{
    Artifact, BatchOk, CHECKPOINT_BYTES_MAX, Envelope, MARK_BYTES_MAX, MESSAGE_BYTES_MAX, Metrics,
    TaskDone, TaskFailed,
};
use crate::record::{ERROR_BYTES_MAX, REASON_CODE_BYTES_MAX};

/// Reason code of a value that no store could keep.
const BAD_VALUE: &str = "bad_value";
/// Largest artifact in bytes: it must fit into one record of every store.
const ARTIFACT_BYTES_MAX: usize = 15 * 1024 * 1024;
/// Room for everything in a message but payload values of users.
const ENVELOPE_BYTES: usize = 8 * 1024;
/// Upper bound of one cursor entry: an id, doubled by escapes, and a number.
const ID_BYTES: usize = 2 * ID_BYTES_MAX + 32;

/// Whether a message whose users' values take `value_bytes` can be sent. Small ones need no look;
/// large ones are encoded, because escapes make text longer.
pub(super) fn fits(value_bytes: usize, message: impl FnOnce() -> Envelope) -> bool {
    value_bytes + ENVELOPE_BYTES <= MESSAGE_BYTES_MAX || message().encode().is_ok()
}

/// Upper bound of the bytes of metrics in a message.
pub(super) fn metrics_bytes(metrics: &Metrics) -> usize {
    // A control character in a name takes six bytes.
    metrics
        .iter()
        .map(|(name, value)| name.len() * 6 + value.len() + 4)
        .sum()
}

/// Upper bound of the bytes of a batch's values in a message.
pub(super) fn batch_bytes(ok: &BatchOk) -> usize {
    let artifact = match &ok.artifact {
        Some(Artifact::Inline(value)) => value.len(),
        _ => 0,
    };
    let cursor = ok
        .cursor
        .as_ref()
        .map_or(0, |cursor| cursor.len() * ID_BYTES);
    let values = [&ok.checkpoint, &ok.result];
    let values = values.map(|value| value.as_ref().map_or(0, Json::len));
    metrics_bytes(&ok.metrics) + artifact + values.iter().sum::<usize>() + cursor
}

/// Upper bound of the bytes of a run's result in a message, its last batch not counted.
pub(super) fn done_bytes(done: &TaskDone) -> usize {
    metrics_bytes(&done.metrics) + done.result.as_ref().map_or(0, Json::len)
}

/// Refuses values that a store could not keep.
pub(super) fn check_output<'a>(
    metrics: &Metrics,
    values: impl IntoIterator<Item = Option<&'a Json>>,
) -> Result<(), RunFailure> {
    for (name, value) in metrics {
        if name.is_empty() || name.starts_with('$') || name.contains('\0') {
            let text = format!("metric name {name:?} is empty, starts with `$` or holds a NUL");
            return Err(permanent(BAD_VALUE, &text));
        }
        check(&format!("metric `{name}`"), value, MESSAGE_BYTES_MAX)?;
    }
    let mut values = values.into_iter().flatten();
    values.try_for_each(|value| check("the artifact or result", value, ARTIFACT_BYTES_MAX))
}

/// Refuses a marked result that would not fit beside the batch's other values.
pub(super) fn check_mark(mark: Option<&Json>) -> Result<(), RunFailure> {
    match mark.map(Json::len) {
        Some(bytes) if bytes > MARK_BYTES_MAX => Err(mark_too_large(bytes)),
        _ => Ok(()),
    }
}

/// The failure of a marked result of so many bytes of JSON.
#[must_use]
pub fn mark_too_large(bytes: usize) -> RunFailure {
    let text = format!(
        "the marked result has {bytes} bytes; the limit is {MARK_BYTES_MAX}: keep what is large in an \
         artifact"
    );
    permanent("result_too_large", &text)
}

/// The failure of a checkpoint that is larger than one may be.
#[must_use]
pub fn checkpoint_too_large(bytes: usize) -> Option<RunFailure> {
    (bytes > CHECKPOINT_BYTES_MAX).then(|| {
        let text = format!(
            "the checkpoint has {bytes} bytes; the limit is {CHECKPOINT_BYTES_MAX}: keep what is large \
             in a file or a store, and a reference to it here"
        );
        permanent("checkpoint_too_large", &text)
    })
}

fn check(what: &str, value: &Json, bytes_max: usize) -> Result<(), RunFailure> {
    check_value(value, bytes_max).map_err(|why| permanent(BAD_VALUE, &format!("{what}: {why}")))
}

/// Whether a checkpoint can be kept now: the batch it belongs to, or why not.
pub(super) fn check_save(run: &Run, checkpoint: &Json) -> Result<BatchUid, RunFailure> {
    let batch = match &run.work {
        Work::Processing(batch) if !run.outgoing.has_terminal() => Some(batch),
        _ => None,
    };
    let Some(batch) = batch else {
        let text = "a checkpoint belongs to the batch in work; none is";
        return Err(permanent("no_batch_in_work", text));
    };
    if let Some(failure) = checkpoint_too_large(checkpoint.len()) {
        return Err(failure);
    }
    check("the checkpoint", checkpoint, CHECKPOINT_BYTES_MAX)?;
    if run.saves.len() >= SAVES_MAX {
        let text = "too many checkpoints wait to be saved; await each";
        return Err(transient("checkpoint_overrun", text));
    }
    Ok(batch.uid.clone())
}

/// A failure that trying again cannot cure.
pub(super) fn permanent(reason_code: &str, error: &str) -> RunFailure {
    RunFailure {
        reason_code: Arc::from(reason_code),
        permanent: true,
        error: Arc::from(error),
        retry_after_ms: None,
        cancelled: false,
    }
}

/// A failure that another attempt may cure.
pub(super) fn transient(reason_code: &str, error: &str) -> RunFailure {
    RunFailure {
        permanent: false,
        ..permanent(reason_code, error)
    }
}

/// The event of a failure, cut so that it can always be sent.
pub(super) fn failed_event(failure: &RunFailure) -> TaskFailed {
    TaskFailed {
        batch_uid: None,
        reason_code: cut(&failure.reason_code, REASON_CODE_BYTES_MAX),
        permanent: failure.permanent,
        error: cut(&failure.error, ERROR_BYTES_MAX),
        retry_after_ms: failure.retry_after_ms,
    }
}

fn cut(text: &Arc<str>, bytes_max: usize) -> Arc<str> {
    if text.len() <= bytes_max {
        return text.clone();
    }
    crate::text::cut(text, bytes_max).into()
}
