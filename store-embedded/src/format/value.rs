//! Values: a short head of our own, then the record in postcard's binary format.

use flowkit_core::record::{
    ArtifactRecord, NodeRecord, RECORD_VERSION, TaskRecord, TaskState, TombstoneRecord,
    WorkerRecord,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Head of a task: it is settled.
const SETTLED: u8 = 1;
/// Head of a task: it did not finish.
const FAILED: u8 = 2;
/// Head of a node: it is granted.
const GRANTED: u8 = 1;

/// Why a value cannot be read; it costs its task, not the store.
pub(crate) type Unreadable = Arc<str>;

pub(crate) fn encode_plain<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), postcard::Error> {
    *out = postcard::to_extend(value, std::mem::take(out))?;
    Ok(())
}

pub(crate) fn encode_task(
    task: &TaskRecord,
    written_ms: i64,
    out: &mut Vec<u8>,
) -> Result<(), postcard::Error> {
    let failed = task.state != TaskState::Finished;
    out.push(if task.settled { SETTLED } else { 0 } | if failed { FAILED } else { 0 });
    out.extend_from_slice(&written_ms.to_le_bytes());
    encode_plain(task, out)
}

pub(crate) fn encode_node(
    node: &NodeRecord,
    written_ms: i64,
    out: &mut Vec<u8>,
) -> Result<(), postcard::Error> {
    out.push(if node.grant.is_some() { GRANTED } else { 0 });
    out.extend_from_slice(&written_ms.to_le_bytes());
    encode_plain(node, out)
}

pub(crate) fn encode_artifact(
    artifact: &ArtifactRecord,
    out: &mut Vec<u8>,
) -> Result<(), postcard::Error> {
    encode_plain(artifact, out)
}

pub(crate) fn is_settled(value: &[u8]) -> bool {
    value.first().is_some_and(|head| head & SETTLED != 0)
}

/// Of a settled task: whether it failed, and when it was written.
pub(crate) fn ended_of(value: &[u8]) -> Option<(bool, i64)> {
    let (head, rest) = value.split_first()?;
    let (written, _) = rest.split_first_chunk::<8>()?;
    let failed = head & FAILED != 0;
    (head & SETTLED != 0).then(|| (failed, i64::from_le_bytes(*written)))
}

pub(crate) fn is_granted(value: &[u8]) -> bool {
    value.first().is_some_and(|head| head & GRANTED != 0)
}

pub(super) fn unreadable(what: &str, cause: impl std::fmt::Display) -> Unreadable {
    Arc::from(format!("{what} record cannot be read: {cause}"))
}

/// Decodes a value that fills the bytes.
pub(crate) fn decode_plain<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Unreadable> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(unreadable(
            what,
            format_args!("{} bytes left over", rest.len()),
        )),
        Err(error) => Err(unreadable(what, error)),
    }
}

/// Decodes a record whose first field is its version.
fn decode_versioned<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Unreadable> {
    // The version first: the rest of a newer record may well decode, into something else.
    let (version, _) =
        postcard::take_from_bytes::<u16>(bytes).map_err(|error| unreadable(what, error))?;
    if version > RECORD_VERSION {
        return Err(unreadable(
            what,
            format_args!(
                "version {version} is not known; this program knows up to {RECORD_VERSION}"
            ),
        ));
    }
    decode_plain(what, bytes)
}

pub(crate) fn decode_task(bytes: &[u8]) -> Result<TaskRecord, Unreadable> {
    let body = bytes.get(9..).unwrap_or_default();
    decode_versioned("task", body)
}

/// The record and when it was written.
pub(crate) fn decode_node(bytes: &[u8]) -> Result<(NodeRecord, i64), Unreadable> {
    let Some((written, body)) = bytes.get(1..).and_then(|b| b.split_first_chunk::<8>()) else {
        return Err(unreadable("node", "too short"));
    };
    Ok((
        decode_versioned("node", body)?,
        i64::from_le_bytes(*written),
    ))
}

pub(crate) fn decode_artifact(bytes: &[u8]) -> Result<ArtifactRecord, Unreadable> {
    decode_versioned("artifact", bytes)
}

pub(crate) fn decode_worker(bytes: &[u8]) -> Result<WorkerRecord, Unreadable> {
    decode_versioned("worker", bytes)
}

pub(crate) fn decode_tombstone(bytes: &[u8]) -> Result<TombstoneRecord, Unreadable> {
    decode_versioned("tombstone", bytes)
}
