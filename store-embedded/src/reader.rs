//! The reads, each on one snapshot.

use flowkit_core::id::{Incarnation, NodeId, ShardId, TaskId, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::message::Artifact;
use flowkit_core::port::{
    ErrorKind, GrantView, PortError, StoreReply, TaskAnswer, TaskPage, TaskWithNodes, WorkerList,
};
use flowkit_core::record::{ShardRecord, TaskState, TombstoneRecord};
use redb::{ReadOnlyTable, ReadTransaction};
use std::ops::Bound;

use crate::error::Stop;
use crate::format::{
    Key, Table, Unreadable, batch_uid_of, decode_artifact, decode_node, decode_plain, decode_task,
    decode_tombstone, decode_worker, grant_of, is_granted, task_answer_of,
};
use crate::writer::{decode_shard, zero_shard};

/// Artifacts stop to be added to a reply beyond this many bytes.
const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(crate) type ReadTable = ReadOnlyTable<&'static [u8], &'static [u8]>;
type Bounds<'k> = (Bound<&'k [u8]>, Bound<&'k [u8]>);

pub(crate) fn open(read: &ReadTransaction, table: Table) -> Result<ReadTable, Stop> {
    Ok(read.open_table(table.definition())?)
}

fn corrupt(op: &str, why: &str) -> Stop {
    PortError::new(ErrorKind::Corrupt, op, why).into()
}

pub(crate) fn at_least_one(limit: u32) -> usize {
    // A page of nothing would be asked for again for ever.
    usize::try_from(limit).unwrap_or(usize::MAX).max(1)
}

pub(crate) fn shard(read: &ReadTransaction, op: &str, id: ShardId) -> Result<ShardRecord, Stop> {
    let found = open(read, Table::Shard)?.get(&Key::shard(id)[..])?;
    let record = found.map(|bytes| decode_shard(op, bytes.value()));
    Ok(record.transpose()?.unwrap_or(zero_shard(id)))
}

pub(crate) fn lookup(read: &ReadTransaction, ids: &[TaskId]) -> Result<StoreReply, Stop> {
    let tasks = open(read, Table::Task)?;
    let tombstones = open(read, Table::Tombstone)?;
    let mut answers = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(bytes) = tombstones.get(id.as_str().as_bytes())? {
            answers.push(Some(swept(decode_tombstone(bytes.value()))));
            continue;
        }
        let found = tasks.get(id.as_str().as_bytes())?;
        let answer = found.map(|bytes| task_answer_of(bytes.value()));
        // The id is taken for good, and no submission can be told to be the same one.
        let quarantined = |_| TaskAnswer {
            submission_hash: 0,
            state: TaskState::Quarantined,
            settled: true,
            failure: None,
            swept: false,
        };
        answers.push(answer.map(|answer| answer.unwrap_or_else(quarantined)));
    }
    Ok(StoreReply::Answers(answers))
}

/// What a tombstone says; one that cannot be read still keeps its id.
fn swept(tombstone: Result<TombstoneRecord, Unreadable>) -> TaskAnswer {
    let (submission_hash, state) = match tombstone {
        Ok(tombstone) => (tombstone.submission_hash, tombstone.state),
        Err(_) => (0, TaskState::Quarantined),
    };
    TaskAnswer {
        submission_hash,
        state,
        settled: true,
        failure: None,
        swept: true,
    }
}

pub(crate) fn workers(read: &ReadTransaction) -> Result<StoreReply, Stop> {
    let mut found = WorkerList::default();
    for row in open(read, Table::Worker)?.range::<&[u8]>(..)? {
        let (key, value) = row?;
        match decode_worker(value.value()) {
            Ok(worker) => found.workers.push(worker),
            // The others are not to suffer for it: a coordinator reads all of them when it takes over.
            Err(why) => {
                let id = String::from_utf8_lossy(key.value());
                match WorkerId::new(&id) {
                    Ok(id) => found.unreadable.push((id, why)),
                    Err(_) => tracing::warn!(worker = %id, "a worker's record is left out: {why}"),
                }
            }
        }
    }
    Ok(StoreReply::Workers(found))
}

pub(crate) fn grants(
    read: &ReadTransaction,
    worker: &WorkerId,
    asked: &[(TaskId, NodeId)],
) -> Result<StoreReply, Stop> {
    let workers = open(read, Table::Worker)?;
    let incarnation = match workers.get(worker.as_str().as_bytes())? {
        Some(bytes) => {
            let worker = decode_worker(bytes.value());
            worker
                .map_err(|why| corrupt("read_grants", &why))?
                .incarnation
        }
        None => Incarnation(0),
    };
    let (tasks, nodes) = (open(read, Table::Task)?, open(read, Table::Node)?);
    let mut grants = Vec::with_capacity(asked.len());
    let mut key = Vec::with_capacity(64);
    for (task, node) in asked {
        key.clear();
        Key::node(task, node, &mut key);
        let Some(found) = nodes.get(&key[..])? else {
            grants.push(None);
            continue;
        };
        let task = tasks.get(task.as_str().as_bytes())?;
        let task = task.map(|bytes| task_answer_of(bytes.value())).transpose();
        grants.push(Some(match (task, grant_of(found.value())) {
            (Ok(task), Ok((token, grant))) => {
                let ending = task.is_none_or(|task| {
                    task.state == TaskState::Cancelling || task.state.is_terminal()
                });
                let told = grant.as_ref().is_some_and(|grant| grant.cancel.is_some());
                GrantView {
                    token: grant.map(|_| token),
                    cancelled: ending || told,
                    unreadable: false,
                }
            }
            // One rotten record must not fail the read of all the others: the run is told to end.
            _ => GrantView {
                token: None,
                cancelled: true,
                unreadable: true,
            },
        }));
    }
    Ok(StoreReply::Grants {
        incarnation,
        grants,
    })
}

/// The artifacts of a node with a number above `after`: start and end of their keys.
fn numbers_above(task: &TaskId, node: &NodeId, after: u64) -> (Vec<u8>, Vec<u8>) {
    let (mut start, mut end) = (Vec::new(), Vec::new());
    Key::number(task, node, after, &mut start);
    Key::number(task, node, u64::MAX, &mut end);
    (start, end)
}

pub(crate) fn accepted(
    read: &ReadTransaction,
    (task, node): (&TaskId, &NodeId),
    after: u64,
    limit: u32,
) -> Result<StoreReply, Stop> {
    let (start, end) = numbers_above(task, node, after);
    let bounds: Bounds<'_> = (Bound::Excluded(&start), Bound::Included(&end));
    let mut accepted = Vec::new();
    for row in open(read, Table::Artifact)?
        .range::<&[u8]>(bounds)?
        .take(at_least_one(limit))
    {
        let (_, value) = row?;
        let entry = batch_uid_of(value.value());
        accepted.push(entry.map_err(|why| corrupt("read_accepted", &why))?);
    }
    Ok(StoreReply::Accepted(accepted))
}

pub(crate) fn artifacts(
    read: &ReadTransaction,
    (task, node): (&TaskId, &NodeId),
    after: u64,
    limit: u32,
) -> Result<StoreReply, Stop> {
    const OP: &str = "read_artifacts";
    let staged = open(read, Table::Staged)?;
    let (start, end) = numbers_above(task, node, after);
    let bounds: Bounds<'_> = (Bound::Excluded(&start), Bound::Included(&end));
    let mut found = Vec::new();
    let mut bytes = 0;
    for row in open(read, Table::Artifact)?
        .range::<&[u8]>(bounds)?
        .take(at_least_one(limit))
    {
        let (_, value) = row?;
        let mut record = decode_artifact(value.value()).map_err(|why| corrupt(OP, &why))?;
        if let Some(Artifact::Staged(_)) = record.artifact {
            let key = Key::staged(task, node, &record.batch_uid, record.token);
            let Some(body) = staged.get(&key[..])? else {
                let number = record.number;
                let why = format!("no staged body for artifact {number} of {task}/{node}");
                return Err(corrupt(OP, &why));
            };
            let body = decode_plain::<Json>("staged", body.value());
            let body = body.map_err(|why| corrupt(OP, &why))?;
            record.artifact = Some(Artifact::Inline(body));
        }
        if let Some(Artifact::Inline(body)) = &record.artifact {
            bytes += body.len();
        }
        bytes += record.metrics.values().map(Json::len).sum::<usize>();
        if bytes > REPLY_BYTES_MAX && !found.is_empty() {
            break;
        }
        found.push(record);
    }
    Ok(StoreReply::Artifacts(found))
}

/// A task with its nodes; `Err` inside: a record of it cannot be read.
fn with_nodes(
    nodes: &ReadTable,
    now_ms: i64,
    id: &[u8],
    task: &[u8],
) -> Result<Result<TaskWithNodes, Unreadable>, Stop> {
    let mut found = match decode_task(task) {
        Ok(task) => TaskWithNodes {
            task,
            nodes: Vec::new(),
            node_age_ms: Vec::new(),
        },
        Err(why) => return Ok(Err(why)),
    };
    let keys = Key::nodes_of(id);
    for row in nodes.range::<&[u8]>(&keys.start[..]..&keys.end[..])? {
        let (_, value) = row?;
        match decode_node(value.value()) {
            Ok((node, written_ms)) => {
                found.nodes.push(node);
                // The clock may have been set back since: then the age is 0, never less.
                let age = now_ms.saturating_sub(written_ms);
                found.node_age_ms.push(u64::try_from(age).unwrap_or(0));
            }
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(found))
}

pub(crate) fn task(read: &ReadTransaction, now_ms: i64, id: &TaskId) -> Result<StoreReply, Stop> {
    let tombstones = open(read, Table::Tombstone)?;
    if tombstones.get(id.as_str().as_bytes())?.is_some() {
        return Ok(StoreReply::Task(None));
    }
    remains(read, now_ms, id)
}

pub(crate) fn remains(
    read: &ReadTransaction,
    now_ms: i64,
    id: &TaskId,
) -> Result<StoreReply, Stop> {
    let key = id.as_str().as_bytes();
    let Some(task) = open(read, Table::Task)?.get(key)? else {
        return Ok(StoreReply::Task(None));
    };
    let nodes = open(read, Table::Node)?;
    let found = with_nodes(&nodes, now_ms, key, task.value())?;
    let found = found.map_err(|why| corrupt("read_task", &why))?;
    Ok(StoreReply::Task(Some(Box::new(found))))
}

/// The task id in a key; keys are made of ids, so anything else is damage.
pub(crate) fn id_in(op: &str, key: &[u8]) -> Result<TaskId, Stop> {
    let text = std::str::from_utf8(key).ok();
    let id = text.and_then(|text| TaskId::new(text).ok());
    id.ok_or_else(|| corrupt(op, "a key is not a task id"))
}

pub(crate) fn load_tasks(
    read: &ReadTransaction,
    now_ms: i64,
    shard: ShardId,
    after: Option<&TaskId>,
    limit: u32,
) -> Result<StoreReply, Stop> {
    const OP: &str = "load_tasks";
    let (tasks, nodes) = (open(read, Table::Task)?, open(read, Table::Node)?);
    let start = Key::unsettled(shard, after.map_or(&[], |id| id.as_str().as_bytes()));
    let end = Key::unsettled(ShardId(shard.0.saturating_add(1)), &[]);
    let end = if shard.0 == u32::MAX {
        Bound::Unbounded
    } else {
        Bound::Excluded(&end[..])
    };
    let mut page = empty_page();
    let index = open(read, Table::Unsettled)?;
    let mut rows = index.range::<&[u8]>((Bound::Excluded(&start[..]), end))?;
    for row in rows.by_ref().take(at_least_one(limit)) {
        let (key, _) = row?;
        let id = key.value().get(4..).unwrap_or_default();
        let Some(task) = tasks.get(id)? else {
            continue;
        };
        match with_nodes(&nodes, now_ms, id, task.value())? {
            Ok(task) => page.tasks.push(task),
            Err(why) => page.unreadable.push((id_in(OP, id)?, why)),
        }
    }
    page.more = rows.next().transpose()?.is_some();
    Ok(StoreReply::Tasks(page))
}

pub(crate) fn list_tasks(
    read: &ReadTransaction,
    after: Option<&TaskId>,
    limit: u32,
) -> Result<StoreReply, Stop> {
    let start = after.map_or(Bound::Unbounded, |id| {
        Bound::Excluded(id.as_str().as_bytes())
    });
    let tasks = open(read, Table::Task)?;
    let tombstones = open(read, Table::Tombstone)?;
    let rows = tasks.range::<&[u8]>((start, Bound::Unbounded))?;
    let mut page = empty_page();
    let full = at_least_one(limit);
    for row in rows {
        let (key, value) = row?;
        if tombstones.get(key.value())?.is_some() {
            continue;
        }
        if page.tasks.len() + page.unreadable.len() == full {
            page.more = true;
            break;
        }
        match decode_task(value.value()) {
            Ok(task) => page.tasks.push(TaskWithNodes {
                task,
                nodes: Vec::new(),
                node_age_ms: Vec::new(),
            }),
            Err(why) => page
                .unreadable
                .push((id_in("list_tasks", key.value())?, why)),
        }
    }
    Ok(StoreReply::Tasks(page))
}

const fn empty_page() -> TaskPage {
    TaskPage {
        tasks: Vec::new(),
        unreadable: Vec::new(),
        more: false,
    }
}

/// Walks every node: a rare question, so it has no index that every grant would have to write. A
/// node that is not granted costs no more than a look at its first byte.
pub(crate) fn active_runs(read: &ReadTransaction, worker: &WorkerId) -> Result<StoreReply, Stop> {
    let mut runs = Vec::new();
    for row in open(read, Table::Node)?.range::<&[u8]>(..)? {
        let (_, value) = row?;
        if !is_granted(value.value()) {
            continue;
        }
        // A node that cannot be read is reported with its task.
        let Ok((node, _)) = decode_node(value.value()) else {
            continue;
        };
        let holder = node.grant.as_ref().map(|grant| &grant.worker_id);
        if holder == Some(worker) {
            runs.push(node);
        }
    }
    Ok(StoreReply::Nodes(runs))
}
