//! Records as documents: the fields that are searched, and the record as JSON text.
//!
//! Text keeps users' payloads as they are (key order, large numbers, `$` in keys) and is decoded by the
//! same code as everywhere.

use flowkit_core::record::{ArtifactRecord, NodeRecord, RECORD_VERSION, TaskRecord, TaskState};
use mongodb::bson::{DateTime, Document, RawArrayBuf, RawBsonRef, RawDocumentBuf, cstr, rawdoc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

use crate::keys;

/// The JSON text of a record.
pub(crate) fn body<T: Serialize>(record: &T) -> Result<String, String> {
    serde_json::to_string(record).map_err(|error| format!("a record has no JSON form: {error}"))
}

/// The record of a document, or why it cannot be read.
pub(crate) fn decode<T: DeserializeOwned>(document: &Document) -> Result<T, Arc<str>> {
    let version = document.get_i32("v").unwrap_or(0);
    if version != i32::from(RECORD_VERSION) {
        return Err(
            format!("record version {version}; this program reads {RECORD_VERSION}").into(),
        );
    }
    let text = keys::text(document, "body").ok_or("the record has no body")?;
    serde_json::from_str(text).map_err(|error| format!("undecodable: {error}").into())
}

/// Whether the task's runs are to end.
fn is_ending(state: TaskState) -> bool {
    state == TaskState::Cancelling || state.is_terminal()
}

/// The fields of a task, but for `_id`.
pub(crate) fn task(
    shard: u32,
    record: &TaskRecord,
    now: DateTime,
    body: &str,
    fields: &mut RawDocumentBuf,
) {
    fields.append(cstr!("shard"), i64::from(shard));
    fields.append(cstr!("settled"), record.settled);
    fields.append(cstr!("ending"), is_ending(record.state));
    fields.append(cstr!("v"), i32::from(record.version));
    fields.append(cstr!("body"), body);
    if record.settled {
        fields.append(cstr!("failed"), record.state != TaskState::Finished);
        fields.append(cstr!("ended"), now);
    }
    if let Some(rerun) = &record.rerun {
        let holds: RawArrayBuf = rerun.holds.iter().map(|task| task.as_str()).collect();
        fields.append(cstr!("holds"), holds);
    }
}

/// The fields of a node, but for `_id`.
pub(crate) fn node(
    record: &NodeRecord,
    written: DateTime,
    body: &str,
    fields: &mut RawDocumentBuf,
) {
    let grant = record.grant.as_ref();
    fields.append(cstr!("task"), record.task_id.as_str());
    match grant {
        Some(_) => fields.append(cstr!("token"), keys::int(record.lease_no.0)),
        None => fields.append(cstr!("token"), RawBsonRef::Null),
    }
    let told = grant.is_some_and(|grant| grant.cancel.is_some());
    fields.append(cstr!("told"), told);
    match grant {
        Some(grant) => fields.append(cstr!("worker"), grant.worker_id.as_str()),
        None => fields.append(cstr!("worker"), RawBsonRef::Null),
    }
    fields.append(cstr!("v"), i32::from(record.version));
    fields.append(cstr!("body"), body);
    fields.append(cstr!("written"), written);
}

/// A whole artifact.
pub(crate) fn artifact(record: &ArtifactRecord) -> Result<RawDocumentBuf, String> {
    Ok(rawdoc! {
        "_id": keys::artifact(&record.task_id, &record.node_id, record.number),
        "node": keys::node(&record.task_id, &record.node_id),
        "number": keys::int(record.number),
        "uid": record.batch_uid.as_str(),
        "token": keys::int(record.token.0),
        "v": i32::from(record.version),
        "body": body(record)?,
    })
}
