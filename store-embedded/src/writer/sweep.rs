//! Sweeping: what a commit takes away, and staged bodies that nothing points to.

use flowkit_core::id::{BatchUid, NodeId, ShardId, TaskId};
use flowkit_core::message::Artifact;
use flowkit_core::port::{Removal, StagedKey, StoreReply};
use redb::ReadableTable;
use std::ops::{Bound, Range};

use super::opened::Opened;
use super::side::accepted_under;
use crate::error::Stop;
use crate::format::{Key, Table, decode_artifact, decode_task, ended_of, node_state_of};

/// Keys of a table in a range, at most so many.
fn keys(
    open: &mut Opened<'_>,
    table: Table,
    range: &Range<Vec<u8>>,
    most: usize,
) -> Result<Vec<Vec<u8>>, Stop> {
    let bounds = &range.start[..]..&range.end[..];
    let rows = open.read(table)?.range::<&[u8]>(bounds)?;
    let keys = rows.take(most).map(|row| Ok(row?.0.value().to_vec()));
    keys.collect()
}

fn remove_key(open: &mut Opened<'_>, table: Table, key: &[u8]) -> Result<(), Stop> {
    open.write(table)?.remove(key)?;
    Ok(())
}

/// Takes records away; what is not there is no fault.
pub(super) fn remove(open: &mut Opened<'_>, shard: ShardId, removal: &Removal) -> Result<(), Stop> {
    match removal {
        Removal::Artifacts {
            task_id,
            node_id,
            from,
            to,
        } => artifacts(open, (task_id, node_id), (*from, *to)),
        Removal::Node { task_id, node_id } => {
            let mut key = Vec::new();
            Key::node(task_id, node_id, &mut key);
            remove_key(open, Table::Node, &key)?;
            remove_key(open, Table::Scratch, &key)?;
            let bodies = Key::below_node(task_id, node_id);
            for key in keys(open, Table::Staged, &bodies, usize::MAX)? {
                remove_key(open, Table::Staged, &key)?;
            }
            Ok(())
        }
        Removal::Task { task_id } => task(open, shard, task_id),
    }
}

fn artifacts(
    open: &mut Opened<'_>,
    (task, node): (&TaskId, &NodeId),
    (from, to): (u64, u64),
) -> Result<(), Stop> {
    if from > to {
        return Ok(());
    }
    let (mut start, mut end) = (Vec::new(), Vec::new());
    Key::number(task, node, from, &mut start);
    Key::number(task, node, to, &mut end);
    end.push(0);
    for key in keys(open, Table::Artifact, &(start..end), usize::MAX)? {
        let removed = open.write(Table::Artifact)?.remove(&key[..])?;
        let record = removed.map(|value| decode_artifact(value.value()));
        // One that cannot be read leaves its uid behind, which hinders nobody.
        let Some(Ok(record)) = record else { continue };
        let mut uid = Vec::new();
        Key::uid(task, node, &record.batch_uid, &mut uid);
        remove_key(open, Table::Uid, &uid)?;
        if let Some(Artifact::Staged(_)) = record.artifact {
            let body = Key::staged(task, node, &record.batch_uid, record.token);
            remove_key(open, Table::Staged, &body)?;
        }
    }
    Ok(())
}

fn task(open: &mut Opened<'_>, shard: ShardId, id: &TaskId) -> Result<(), Stop> {
    let key = id.as_str().as_bytes();
    let removed = open.write(Table::Task)?.remove(key)?;
    let Some(value) = removed.map(|value| value.value().to_vec()) else {
        return Ok(());
    };
    if let Some((failed, written_ms)) = ended_of(&value) {
        let entry = Key::ended(shard, failed, written_ms, key);
        remove_key(open, Table::Ended, &entry)?;
    } else {
        remove_key(open, Table::Unsettled, &Key::unsettled(shard, key))?;
    }
    let rerun = decode_task(&value).ok().and_then(|task| task.rerun);
    for held in rerun.iter().flat_map(|rerun| &rerun.holds) {
        remove_key(open, Table::Pointer, &Key::pointer(held, key))?;
    }
    Ok(())
}

/// Takes away what nothing can point to among the next staged bodies of a task.
pub(super) fn staged(
    open: &mut Opened<'_>,
    task: &TaskId,
    after: Option<&StagedKey>,
    limit: u32,
) -> Result<StoreReply, Stop> {
    let most = usize::try_from(limit).unwrap_or(usize::MAX).max(1);
    let of_task = Key::nodes_of(task.as_str().as_bytes());
    let start = match after {
        Some(after) => Key::staged(task, &after.node_id, &after.batch_uid, after.token),
        None => of_task.start.clone(),
    };
    let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (
        Bound::Excluded(&start[..]),
        Bound::Excluded(&of_task.end[..]),
    );
    let rows = open.read(Table::Staged)?.range::<&[u8]>(bounds)?;
    let found = rows.take(most.saturating_add(1));
    let found = found.map(|row| Ok(row?.0.value().to_vec()));
    let mut found = found.collect::<Result<Vec<Vec<u8>>, Stop>>()?;
    let more = found.len() > most;
    found.truncate(most);
    let mut last = None;
    let mut removed = 0;
    for key in found {
        let Some((node, uid, token)) = parts(&key) else {
            continue;
        };
        if is_unclaimed(open, task, &node, &uid, token)? {
            remove_key(open, Table::Staged, &key)?;
            removed += 1;
        }
        last = Some(StagedKey {
            node_id: node,
            batch_uid: uid,
            token,
        });
    }
    Ok(StoreReply::Swept {
        removed,
        next: last.filter(|_| more),
    })
}

fn parts(key: &[u8]) -> Option<(NodeId, BatchUid, flowkit_core::id::Token)> {
    let (_, node, uid, token) = Key::parse_staged(key)?;
    Some((NodeId::new(node).ok()?, BatchUid::new(uid).ok()?, token))
}

/// The node is terminal or does not exist, and did not accept the batch under this token.
fn is_unclaimed(
    open: &mut Opened<'_>,
    task: &TaskId,
    node: &NodeId,
    uid: &BatchUid,
    token: flowkit_core::id::Token,
) -> Result<bool, Stop> {
    let mut key = Vec::new();
    Key::node(task, node, &mut key);
    let found = open.read(Table::Node)?.get(&key[..])?;
    let state = found.map(|value| node_state_of(value.value()));
    match state {
        // Who knows what a record that cannot be read says.
        Some(Err(_)) => return Ok(false),
        Some(Ok(state)) if !state.is_terminal() => return Ok(false),
        _ => {}
    }
    Ok(accepted_under(open, task, node, uid)? != Some(token))
}
