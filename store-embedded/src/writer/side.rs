//! What is written beside commits: workers, scratch, staged artifacts, the deployment.

use flowkit_core::id::{BatchUid, Incarnation, NodeId, TaskId, Token};
use flowkit_core::json::Json;
use flowkit_core::port::{ErrorKind, PortError, StoreReply};
use flowkit_core::record::{DeploymentRecord, ScratchRecord, WorkerRecord};
use redb::ReadableTable;
use serde::Serialize;

use super::opened::Opened;
use crate::error::Stop;
use crate::format::{
    Key, Table, Unreadable, decode_artifact, decode_plain, decode_worker, encode_plain,
};
use crate::open::DEPLOYMENT;

fn put<T: Serialize>(
    open: &mut Opened<'_>,
    op: &str,
    table: Table,
    key: &[u8],
    value: &T,
) -> Result<(), Stop> {
    let mut bytes = Vec::with_capacity(256);
    encode_plain(value, &mut bytes)
        .map_err(|error| PortError::new(ErrorKind::Invalid, op, error.to_string()))?;
    open.write(table)?.insert(key, &bytes[..])?;
    Ok(())
}

fn get<T>(
    open: &mut Opened<'_>,
    op: &str,
    table: Table,
    key: &[u8],
    decode: impl FnOnce(&[u8]) -> Result<T, Unreadable>,
) -> Result<Option<T>, Stop> {
    let found = open.read(table)?.get(key)?;
    let decoded = found.map(|bytes| decode(bytes.value())).transpose();
    Ok(decoded.map_err(|why| PortError::new(ErrorKind::Corrupt, op, why))?)
}

/// The deployment record, created as proposed if there is none.
pub(super) fn deployment(
    open: &mut Opened<'_>,
    propose: DeploymentRecord,
) -> Result<StoreReply, Stop> {
    const OP: &str = "deployment";
    let decode = |bytes: &[u8]| decode_plain("deployment", bytes);
    if let Some(stored) = get(open, OP, Table::Meta, DEPLOYMENT, decode)? {
        return Ok(StoreReply::Deployment(stored));
    }
    put(open, OP, Table::Meta, DEPLOYMENT, &propose)?;
    Ok(StoreReply::Deployment(propose))
}

/// Raises a worker's incarnation from the one before and writes its record.
pub(super) fn register(open: &mut Opened<'_>, worker: &WorkerRecord) -> Result<StoreReply, Stop> {
    const OP: &str = "register_worker";
    let key = worker.worker_id.as_str().as_bytes().to_vec();
    let before = get(open, OP, Table::Worker, &key, decode_worker)?;
    let raised = worker.incarnation;
    let stored = before
        .as_ref()
        .map_or(Incarnation(0), |known| known.incarnation);
    let repeated =
        stored == raised && before.is_some_and(|known| known.start_nonce == worker.start_nonce);
    if stored.next() == raised {
        put(open, OP, Table::Worker, &key, worker)?;
    } else if !repeated {
        return Ok(StoreReply::IncarnationIs(stored));
    }
    Ok(StoreReply::Registered(raised))
}

fn scratch(
    open: &mut Opened<'_>,
    op: &str,
    key: &[u8],
    token: Token,
) -> Result<Option<ScratchRecord>, Stop> {
    let decode = |bytes: &[u8]| decode_plain::<ScratchRecord>("scratch", bytes);
    let stored = get(open, op, Table::Scratch, key, decode)?;
    match stored {
        Some(stored) if stored.token > token => {
            let detail = format!("token {} was there", stored.token);
            Err(PortError::new(ErrorKind::Fenced, op, detail).into())
        }
        stored => Ok(stored),
    }
}

/// Reads a node's scratch and raises its token.
pub(super) fn take_scratch(
    open: &mut Opened<'_>,
    task: &TaskId,
    node: &NodeId,
    token: Token,
) -> Result<StoreReply, Stop> {
    const OP: &str = "take_scratch";
    let mut key = Vec::new();
    Key::node(task, node, &mut key);
    let stored = scratch(open, OP, &key, token)?;
    if stored.as_ref().is_none_or(|stored| stored.token != token) {
        let raised = ScratchRecord {
            token,
            save_no: 0,
            batch_uid: stored.as_ref().and_then(|s| s.batch_uid.clone()),
            checkpoint: stored
                .as_ref()
                .map_or_else(Json::null, |s| s.checkpoint.clone()),
        };
        put(open, OP, Table::Scratch, &key, &raised)?;
    }
    let saved = stored.filter(|stored| stored.batch_uid.is_some());
    Ok(StoreReply::Scratch(saved))
}

/// Writes a node's scratch.
pub(super) fn put_scratch(
    open: &mut Opened<'_>,
    task: &TaskId,
    node: &NodeId,
    record: &ScratchRecord,
) -> Result<StoreReply, Stop> {
    const OP: &str = "put_scratch";
    let mut key = Vec::new();
    Key::node(task, node, &mut key);
    let stored = scratch(open, OP, &key, record.token)?;
    if stored.is_some_and(|s| s.token == record.token && s.save_no > record.save_no) {
        return Ok(StoreReply::Done); // A late copy: a newer save was acknowledged.
    }
    put(open, OP, Table::Scratch, &key, record)?;
    Ok(StoreReply::Done)
}

/// Stages the body of a large artifact.
pub(super) fn stage(
    open: &mut Opened<'_>,
    task: &TaskId,
    node: &NodeId,
    (uid, token): (&BatchUid, Token),
    body: &Json,
) -> Result<StoreReply, Stop> {
    const OP: &str = "stage_artifact";
    let key = Key::staged(task, node, uid, token);
    let mut new = Vec::with_capacity(body.len() + 8);
    encode_plain(body, &mut new)
        .map_err(|error| PortError::new(ErrorKind::Invalid, OP, error.to_string()))?;
    let stored = open.read(Table::Staged)?.get(&key[..])?;
    if stored.is_some_and(|stored| stored.value() == &new[..]) {
        return Ok(StoreReply::Done);
    }
    if accepted_under(open, task, node, uid)? == Some(token) {
        let detail = "accepted with another body";
        return Err(PortError::new(ErrorKind::Conflict, OP, detail).into());
    }
    // Before it is accepted a body may be replaced: a crash that took the grant with it lets the
    // next run of the node have the same token.
    open.write(Table::Staged)?.insert(&key[..], &new[..])?;
    Ok(StoreReply::Done)
}

/// The token that a batch was accepted under, if it was.
pub(super) fn accepted_under(
    open: &mut Opened<'_>,
    task: &TaskId,
    node: &NodeId,
    uid: &BatchUid,
) -> Result<Option<Token>, Stop> {
    const OP: &str = "stage_artifact";
    let mut key = Vec::new();
    Key::uid(task, node, uid, &mut key);
    let decode = |bytes: &[u8]| decode_plain::<u64>("uid", bytes);
    let Some(number) = get(open, OP, Table::Uid, &key, decode)? else {
        return Ok(None);
    };
    key.clear();
    Key::number(task, node, number, &mut key);
    let artifact = get(open, OP, Table::Artifact, &key, decode_artifact)?;
    Ok(artifact.map(|artifact| artifact.token))
}

/// Writes a version that nobody knows into a record, keeping its head.
#[cfg(any(test, feature = "testing"))]
pub(super) fn damage(open: &mut Opened<'_>, table: Table, key: &[u8]) -> Result<StoreReply, Stop> {
    let found = open.read(table)?.get(key)?;
    let Some(mut value) = found.map(|value| value.value().to_vec()) else {
        return Err(PortError::new(ErrorKind::NotFound, "damage", "no such record").into());
    };
    value.truncate(9);
    value.extend_from_slice(&[0xFF, 0xFF, 0x03]);
    open.write(table)?.insert(key, &value[..])?;
    Ok(StoreReply::Done)
}

/// Puts a row of any bytes.
#[cfg(any(test, feature = "testing"))]
pub(super) fn plant(
    open: &mut Opened<'_>,
    table: Table,
    key: &[u8],
    value: &[u8],
) -> Result<StoreReply, Stop> {
    open.write(table)?.insert(key, value)?;
    Ok(StoreReply::Done)
}
