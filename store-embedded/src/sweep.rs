//! The reads that a sweep begins with.

use flowkit_core::id::{ShardId, TaskId};
use flowkit_core::port::{ExpiredPage, ExpiredTask, StoreReply};
use redb::ReadTransaction;
use std::ops::Bound;

use crate::error::Stop;
use crate::format::{Key, Table};
use crate::reader::{at_least_one, id_in, open};

/// Settled tasks of a shard and class that were written until a time.
pub(crate) fn expired(
    read: &ReadTransaction,
    (shard, failed): (ShardId, bool),
    until_ms: i64,
    after: Option<&(i64, TaskId)>,
    limit: u32,
) -> Result<StoreReply, Stop> {
    const OP: &str = "read_expired";
    let start = match after {
        Some((at, task)) => Key::ended(shard, failed, *at, task.as_str().as_bytes()),
        None => Key::ended(shard, failed, i64::MIN, &[]),
    };
    let end = match until_ms.checked_add(1) {
        Some(end) => Key::ended(shard, failed, end, &[]),
        // No task id begins so.
        None => Key::ended(shard, failed, i64::MAX, &[0xFF]),
    };
    if start >= end {
        return Ok(StoreReply::Expired(ExpiredPage::default()));
    }
    let pointers = open(read, Table::Pointer)?;
    let index = open(read, Table::Ended)?;
    let mut rows =
        index.range::<&[u8]>((Bound::Excluded(&start[..]), Bound::Excluded(&end[..])))?;
    let mut page = ExpiredPage::default();
    for row in rows.by_ref().take(at_least_one(limit)) {
        let (key, _) = row?;
        let Some((written_ms, task)) = Key::parse_ended(key.value()) else {
            continue;
        };
        let mut from = task.to_vec();
        from.push(0);
        let mut to = task.to_vec();
        to.push(1);
        let mut pointed = pointers.range::<&[u8]>(&from[..]..&to[..])?;
        page.tasks.push(ExpiredTask {
            task_id: id_in(OP, task)?,
            written_ms,
            pointed: pointed.next().transpose()?.is_some(),
        });
    }
    page.more = rows.next().transpose()?.is_some();
    Ok(StoreReply::Expired(page))
}

/// Tasks that have staged bodies: jumps from one to the next.
pub(crate) fn staged_tasks(
    read: &ReadTransaction,
    after: Option<&TaskId>,
    limit: u32,
) -> Result<StoreReply, Stop> {
    const OP: &str = "read_staged";
    let staged = open(read, Table::Staged)?;
    let behind = |task: &TaskId| Key::nodes_of(task.as_str().as_bytes()).end;
    let mut start = after.map(behind).unwrap_or_default();
    let mut tasks = Vec::new();
    loop {
        let mut rows = staged.range::<&[u8]>(&start[..]..)?;
        let Some(row) = rows.next() else {
            return Ok(StoreReply::Staged { tasks, more: false });
        };
        if tasks.len() == at_least_one(limit) {
            return Ok(StoreReply::Staged { tasks, more: true });
        }
        let (key, _) = row?;
        let name = key.value().split(|byte| *byte == 0).next();
        let task = id_in(OP, name.unwrap_or_default())?;
        start = behind(&task);
        tasks.push(task);
    }
}
