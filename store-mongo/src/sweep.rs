//! Sweeping: what commits take away, and what is found for it.

use flowkit_core::id::{NodeId, ShardId, TaskId};
use flowkit_core::port::{
    ErrorKind, ExpiredPage, ExpiredTask, PortError, Removal, StagedKey, StoreReply, TaskAnswer,
};
use flowkit_core::record::{NodeRecord, TaskState, TombstoneRecord};
use mongodb::ClientSession;
use mongodb::bson::{DateTime, Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use std::collections::{BTreeMap, BTreeSet};

use crate::commit::{Refused, in_transaction};
use crate::error::{Effect, port_error};
use crate::read::{limit_of, reads};
use crate::statements::Prepared;
use crate::store::Mongo;
use crate::{keys, records};

/// Writes tombstones and takes away what a commit takes away, in its transaction.
pub(crate) async fn write(
    mongo: &Mongo,
    session: &mut ClientSession,
    prepared: &Prepared<'_>,
) -> Result<(), Refused> {
    for (tombstone, body) in &prepared.tombstones {
        let id = tombstone.task_id.as_str();
        let stone = rawdoc! { "v": i32::from(tombstone.version), "body": body.as_str() };
        let upsert = rawdoc! { "q": { "_id": id }, "u": stone, "upsert": true };
        update(mongo, session, "tombstones", upsert).await?;
        let hidden = rawdoc! { "q": { "_id": id }, "u": { "$set": { "swept": true } } };
        update(mongo, session, "tasks", hidden).await?;
    }
    for removal in &prepared.removals {
        remove(mongo, session, removal).await?;
    }
    Ok(())
}

async fn update(
    mongo: &Mongo,
    session: &mut ClientSession,
    collection: &str,
    statement: RawDocumentBuf,
) -> Result<(), Refused> {
    let statements: RawArrayBuf = [statement].into_iter().collect();
    let command = rawdoc! { "update": collection, "updates": statements };
    in_transaction(mongo, session, command).await.map(|_| ())
}

async fn delete(
    mongo: &Mongo,
    session: &mut ClientSession,
    collection: &str,
    filter: RawDocumentBuf,
) -> Result<(), Refused> {
    let statements: RawArrayBuf = [rawdoc! { "q": filter, "limit": 0 }].into_iter().collect();
    let command = rawdoc! { "delete": collection, "deletes": statements };
    in_transaction(mongo, session, command).await.map(|_| ())
}

async fn remove(
    mongo: &Mongo,
    session: &mut ClientSession,
    removal: &Removal,
) -> Result<(), Refused> {
    match removal {
        Removal::Artifacts {
            task_id,
            node_id,
            from,
            to,
        } => {
            let first = keys::artifact(task_id, node_id, *from);
            let last = keys::artifact(task_id, node_id, *to);
            let range = rawdoc! { "_id": { "$gte": first.as_str(), "$lte": last.as_str() } };
            let command = rawdoc! {
                "find": "artifacts",
                "filter": range.clone(),
                "projection": { "uid": 1, "token": 1 },
                "batchSize": i32::MAX,
                "singleBatch": true,
            };
            let reply = in_transaction(mongo, session, command).await?;
            let found = reply.get_document("cursor").ok();
            let found = found.and_then(|cursor| cursor.get_array("firstBatch").ok());
            let found = found
                .into_iter()
                .flatten()
                .filter_map(|found| found.as_document());
            let bodies: RawArrayBuf = found
                .filter_map(|found| {
                    let uid = keys::text(found, "uid")?.parse().ok()?;
                    let token = flowkit_core::id::Token(keys::number(found, "token"));
                    Some(keys::staged(task_id, node_id, &uid, token))
                })
                .collect();
            if bodies.as_bytes().len() <= EMPTY_BYTES {
                return Ok(());
            }
            let bodies = rawdoc! { "_id": { "$in": bodies } };
            delete(mongo, session, "staged", bodies).await?;
            delete(mongo, session, "artifacts", range).await
        }
        Removal::Node { task_id, node_id } => {
            let id = keys::node(task_id, node_id);
            let (from, to) = (keys::below(&id), keys::below_end(&id));
            let bodies = rawdoc! { "_id": { "$gte": from.as_str(), "$lt": to.as_str() } };
            delete(mongo, session, "staged", bodies).await?;
            delete(mongo, session, "scratch", rawdoc! { "_id": id.as_str() }).await?;
            delete(mongo, session, "nodes", rawdoc! { "_id": id.as_str() }).await
        }
        Removal::Task { task_id } => {
            delete(mongo, session, "tasks", rawdoc! { "_id": task_id.as_str() }).await
        }
    }
}

/// Bytes of an array without elements.
const EMPTY_BYTES: usize = 5;

impl Mongo {
    /// What tombstones say of tasks, by id; one that cannot be read still keeps its id.
    pub(crate) async fn tombstones(
        &self,
        op: &str,
        ids: &[&str],
    ) -> Result<BTreeMap<String, TaskAnswer>, PortError> {
        let filter = doc! { "_id": { "$in": ids } };
        let found = self.find(op, "tombstones", filter, 0).await?;
        let answer = |document: &Document| {
            let record = records::decode::<TombstoneRecord>(document).ok();
            TaskAnswer {
                submission_hash: record.as_ref().map_or(0, |record| record.submission_hash),
                state: record.map_or(TaskState::Quarantined, |record| record.state),
                settled: true,
                failure: None,
                swept: true,
            }
        };
        let named =
            |document: &Document| Some((keys::text(document, "_id")?.to_owned(), answer(document)));
        Ok(found.iter().filter_map(named).collect())
    }

    /// The server's clock.
    async fn now(&self, op: &str) -> Result<DateTime, PortError> {
        let hello = self.database.run_command(doc! { "hello": 1 }).await;
        let hello = hello.map_err(reads(op))?;
        let now = hello.get_datetime("localTime").copied();
        now.map_err(|_| PortError::new(ErrorKind::Retry, op, "the server tells no time"))
    }

    pub(crate) async fn expired(
        &self,
        (shard, failed): (ShardId, bool),
        age_ms: u64,
        after: Option<(i64, TaskId)>,
        limit: u32,
    ) -> Result<StoreReply, PortError> {
        const OP: &str = "read_expired";
        let now = self.now(OP).await?.timestamp_millis();
        let age_ms = i64::try_from(age_ms).unwrap_or(i64::MAX);
        let until = DateTime::from_millis(now.saturating_sub(age_ms));
        let mut filter = doc! {
            "shard": i64::from(shard.0), "failed": failed, "ended": { "$lte": until },
        };
        if let Some((at, task)) = &after {
            let at = DateTime::from_millis(*at);
            filter.insert(
                "$or",
                vec![
                    doc! { "ended": { "$gt": at } },
                    doc! { "ended": at, "_id": { "$gt": task.as_str() } },
                ],
            );
        }
        let found = self
            .collection("tasks")
            .find(filter)
            .sort(doc! { "ended": 1, "_id": 1 })
            .projection(doc! { "ended": 1 })
            .limit(limit_of(limit) + 1)
            .await;
        let mut found = found.map_err(reads(OP))?;
        let mut page = ExpiredPage::default();
        use futures_util::TryStreamExt;
        while let Some(document) = found.try_next().await.map_err(reads(OP))? {
            let id = keys::text(&document, "_id").and_then(|id| TaskId::new(id).ok());
            let (Some(task_id), Ok(ended)) = (id, document.get_datetime("ended")) else {
                continue;
            };
            if page.tasks.len() as i64 == limit_of(limit) {
                page.more = true;
                break;
            }
            page.tasks.push(ExpiredTask {
                task_id,
                written_ms: ended.timestamp_millis(),
                pointed: false,
            });
        }
        let ids: Vec<&str> = page
            .tasks
            .iter()
            .map(|task| task.task_id.as_str())
            .collect();
        let filter = doc! { "holds": { "$in": &ids } };
        let pointing = self.find_fields(OP, "tasks", filter, 0, doc! { "holds": 1 });
        let pointing = pointing.await?;
        let held: BTreeSet<&str> = pointing
            .iter()
            .filter_map(|rerun| rerun.get_array("holds").ok())
            .flatten()
            .filter_map(|held| held.as_str())
            .collect();
        for task in &mut page.tasks {
            task.pointed = held.contains(task.task_id.as_str());
        }
        Ok(StoreReply::Expired(page))
    }

    pub(crate) async fn remains(&self, task: &TaskId) -> Result<StoreReply, PortError> {
        let filter = doc! { "_id": task.as_str() };
        self.task_by("read_remains", filter).await
    }

    /// Jumps from one task to the next.
    pub(crate) async fn staged_tasks(
        &self,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<StoreReply, PortError> {
        const OP: &str = "read_staged";
        let behind = |task: &TaskId| keys::below_end(task.as_str());
        let mut from = after.as_ref().map_or_else(String::new, behind);
        let mut tasks: Vec<TaskId> = Vec::new();
        loop {
            let filter = doc! { "_id": { "$gte": &from } };
            let found = self.find_fields(OP, "staged", filter, 1, doc! { "_id": 1 });
            let found = found.await?;
            let key = found.first().and_then(|found| keys::text(found, "_id"));
            let Some(key) = key else {
                return Ok(StoreReply::Staged { tasks, more: false });
            };
            if tasks.len() as i64 == limit_of(limit) {
                return Ok(StoreReply::Staged { tasks, more: true });
            }
            let task = key.split('\n').next().and_then(|id| TaskId::new(id).ok());
            let Some(task) = task else {
                let detail = "a key holds no task id";
                return Err(PortError::new(ErrorKind::Corrupt, OP, detail));
            };
            from = behind(&task);
            tasks.push(task);
        }
    }

    pub(crate) async fn sweep_staged(
        &self,
        task: &TaskId,
        after: Option<&StagedKey>,
        limit: u32,
    ) -> Result<StoreReply, PortError> {
        const OP: &str = "sweep_staged";
        let from = match after {
            Some(after) => keys::staged(task, &after.node_id, &after.batch_uid, after.token),
            None => keys::below(task.as_str()),
        };
        let filter = doc! { "_id": { "$gt": from, "$lt": keys::below_end(task.as_str()) } };
        let fields = doc! { "_id": 1 };
        let found = self.find_fields(OP, "staged", filter, limit_of(limit) + 1, fields);
        let mut found = found.await?;
        let more = found.len() as i64 > limit_of(limit);
        if more {
            found.pop();
        }
        let staged: Vec<(&str, StagedKey)> = found
            .iter()
            .filter_map(|found| keys::text(found, "_id"))
            .filter_map(|key| Some((key, keys::parse_staged(key)?.1)))
            .collect();
        let nodes: BTreeSet<&NodeId> = staged.iter().map(|(_, key)| &key.node_id).collect();
        let live = self.live_nodes(OP, task, &nodes).await?;
        let accepted = self.accepted_bodies(OP, task, &staged).await?;
        let unclaimed: Vec<&str> = staged
            .iter()
            .filter(|(key, staged)| !live.contains(&staged.node_id) && !accepted.contains(*key))
            .map(|(key, _)| *key)
            .collect();
        let next = staged.last().map(|(_, key)| key.clone()).filter(|_| more);
        if unclaimed.is_empty() {
            return Ok(StoreReply::Swept { removed: 0, next });
        }
        let filter = doc! { "_id": { "$in": &unclaimed } };
        let removed = self.collection("staged").delete_many(filter).await;
        let removed = removed.map_err(|error| port_error(OP, Effect::Write, &error))?;
        Ok(StoreReply::Swept {
            removed: u32::try_from(removed.deleted_count).unwrap_or(u32::MAX),
            next,
        })
    }

    /// Nodes that may still accept, among some of a task; one that cannot be read may.
    async fn live_nodes(
        &self,
        op: &str,
        task: &TaskId,
        nodes: &BTreeSet<&NodeId>,
    ) -> Result<BTreeSet<NodeId>, PortError> {
        let ids: Vec<String> = nodes.iter().map(|node| keys::node(task, node)).collect();
        let found = self.find(op, "nodes", doc! { "_id": { "$in": ids } }, 0);
        let found = found.await?;
        let live = |document: &Document| {
            let id = keys::text(document, "_id")?.split('\n').nth(1)?;
            let over = records::decode::<NodeRecord>(document)
                .is_ok_and(|record| record.state.is_terminal());
            (!over).then(|| NodeId::new(id).ok()).flatten()
        };
        Ok(found.iter().filter_map(live).collect())
    }

    /// Keys of staged bodies that accepted artifacts point to.
    async fn accepted_bodies(
        &self,
        op: &str,
        task: &TaskId,
        staged: &[(&str, StagedKey)],
    ) -> Result<BTreeSet<String>, PortError> {
        let asked: Vec<Document> = staged
            .iter()
            .map(|(_, key)| {
                doc! { "node": keys::node(task, &key.node_id), "uid": key.batch_uid.as_str() }
            })
            .collect();
        if asked.is_empty() {
            return Ok(BTreeSet::new());
        }
        let fields = doc! { "node": 1, "uid": 1, "token": 1 };
        let found = self.find_fields(op, "artifacts", doc! { "$or": asked }, 0, fields);
        let found = found.await?;
        let key = |document: &Document| {
            let node = NodeId::new(keys::text(document, "node")?.split('\n').nth(1)?).ok()?;
            let uid = keys::text(document, "uid")?.parse().ok()?;
            let token = flowkit_core::id::Token(keys::number(document, "token"));
            Some(keys::staged(task, &node, &uid, token))
        };
        Ok(found.iter().filter_map(key).collect())
    }
}
