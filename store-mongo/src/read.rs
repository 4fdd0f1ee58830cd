//! The reads: each takes as much as it can at once.

use flowkit_core::id::{BatchUid, Incarnation};
use flowkit_core::id::{NodeId, ShardId, TaskId, WorkerId};
use flowkit_core::json::Json;
use flowkit_core::message::Artifact;
use flowkit_core::port::{
    ErrorKind, GrantView, PortError, StoreReply, TaskAnswer, TaskPage, TaskWithNodes,
};
use flowkit_core::record::{ArtifactRecord, NodeRecord, RECORD_VERSION, TaskRecord, TaskState};
use futures_util::TryStreamExt;
use mongodb::bson::{Document, doc};
use mongodb::error::Error;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Effect, port_error};
use crate::store::Mongo;
use crate::{keys, records};

/// Artifacts stop to be added to a reply beyond this many bytes.
const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Documents in one reply of the server.
const BATCH_DOCUMENTS: u32 = 100_000;

/// Nodes of a task with their ages, or why one of them cannot be read.
type Nodes = Result<(Vec<NodeRecord>, Vec<u64>), Arc<str>>;

pub(crate) fn reads(op: &str) -> impl Fn(Error) -> PortError + '_ {
    move |error| port_error(op, Effect::None, &error)
}

/// A page of nothing would be asked for again for ever.
pub(crate) fn limit_of(limit: u32) -> i64 {
    i64::from(limit.max(1))
}

/// Whether a record's version is known and its body is an object, as far as a look at its start
/// tells, which the server takes: a task's graph is too large to be fetched for this.
fn is_whole() -> Document {
    doc! { "$and": [
        { "$eq": ["$v", i32::from(RECORD_VERSION)] },
        { "$gte": ["$body", "{"] },
        { "$lt": ["$body", "|"] },
    ] }
}

impl Mongo {
    /// Documents by `_id`; a limit of 0 is none.
    pub(crate) async fn find(
        &self,
        op: &str,
        collection: &str,
        filter: Document,
        limit: i64,
    ) -> Result<Vec<Document>, PortError> {
        self.find_fields(op, collection, filter, limit, doc! {})
            .await
    }

    /// The same with some fields only.
    pub(crate) async fn find_fields(
        &self,
        op: &str,
        collection: &str,
        filter: Document,
        limit: i64,
        fields: Document,
    ) -> Result<Vec<Document>, PortError> {
        let collection = self.collection(collection);
        let found = collection.find(filter).sort(doc! { "_id": 1 }).limit(limit);
        // All in one reply, up to the server's 16 MB: the default of 101 costs a second round trip.
        let found = found.batch_size(BATCH_DOCUMENTS).projection(fields);
        let found = found.await.map_err(reads(op))?;
        found.try_collect().await.map_err(reads(op))
    }

    /// The document under an `_id`.
    pub(crate) async fn find_one(
        &self,
        op: &str,
        collection: &str,
        id: &str,
    ) -> Result<Option<Document>, PortError> {
        let found = self
            .collection(collection)
            .find_one(doc! { "_id": id })
            .await;
        found.map_err(reads(op))
    }

    pub(crate) async fn load_tasks(
        &self,
        shard: ShardId,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<StoreReply, PortError> {
        const OP: &str = "load_tasks";
        let mut filter = doc! { "shard": i64::from(shard.0), "settled": false };
        if let Some(after) = &after {
            filter.insert("_id", doc! { "$gt": after.as_str() });
        }
        let mut tasks = self.find(OP, "tasks", filter, limit_of(limit) + 1).await?;
        let more = tasks.len() as i64 > limit_of(limit);
        if more {
            tasks.pop();
        }
        let page = self.with_nodes(OP, &tasks).await?;
        Ok(StoreReply::Tasks(TaskPage { more, ..page }))
    }

    /// Tasks with their nodes; one with a record that cannot be read stands apart.
    async fn with_nodes(&self, op: &str, tasks: &[Document]) -> Result<TaskPage, PortError> {
        let mut page = TaskPage {
            tasks: Vec::with_capacity(tasks.len()),
            unreadable: Vec::new(),
            more: false,
        };
        let ids: Vec<&str> = tasks.iter().filter_map(|t| keys::text(t, "_id")).collect();
        let mut nodes = self.nodes_of(op, &ids).await?;
        for document in tasks {
            let Some(id) = keys::text(document, "_id").and_then(|id| TaskId::new(id).ok()) else {
                continue;
            };
            let nodes = nodes
                .remove(id.as_str())
                .unwrap_or_else(|| Ok(Default::default()));
            match (records::decode::<TaskRecord>(document), nodes) {
                (Ok(task), Ok((nodes, node_age_ms))) => page.tasks.push(TaskWithNodes {
                    task,
                    nodes,
                    node_age_ms,
                }),
                (Err(reason), _) | (_, Err(reason)) => page.unreadable.push((id, reason)),
            }
        }
        Ok(page)
    }

    async fn nodes_of(
        &self,
        op: &str,
        tasks: &[&str],
    ) -> Result<BTreeMap<String, Nodes>, PortError> {
        let mut nodes: BTreeMap<String, Nodes> = BTreeMap::new();
        if tasks.is_empty() {
            return Ok(nodes);
        }
        let pipeline = vec![
            doc! { "$match": { "task": { "$in": tasks } } },
            doc! { "$sort": { "task": 1, "_id": 1 } },
            doc! { "$project": {
                "task": 1, "v": 1, "body": 1,
                "age": { "$subtract": ["$$NOW", "$written"] },
            } },
        ];
        let collection = self.collection("nodes");
        let found = collection.aggregate(pipeline);
        let found = found.batch_size(BATCH_DOCUMENTS).await;
        let mut found = found.map_err(reads(op))?;
        while let Some(document) = found.try_next().await.map_err(reads(op))? {
            let task = keys::text(&document, "task").unwrap_or_default().to_owned();
            let of_task = nodes.entry(task).or_insert_with(|| Ok(Default::default()));
            match (records::decode::<NodeRecord>(&document), of_task) {
                (Ok(node), Ok((nodes, ages))) => {
                    nodes.push(node);
                    let age = document.get_i64("age").unwrap_or(0);
                    ages.push(u64::try_from(age).unwrap_or(0));
                }
                (Err(reason), of_task) => *of_task = Err(reason),
                (Ok(_), Err(_)) => {}
            }
        }
        Ok(nodes)
    }

    pub(crate) async fn lookup(&self, tasks: &[TaskId]) -> Result<StoreReply, PortError> {
        let ids: Vec<&str> = tasks.iter().map(TaskId::as_str).collect();
        let found = self
            .find("lookup_tasks", "tasks", doc! { "_id": { "$in": &ids } }, 0)
            .await?;
        let found: BTreeMap<&str, &Document> = found
            .iter()
            .filter_map(|document| Some((keys::text(document, "_id")?, document)))
            .collect();
        let swept = self.tombstones("lookup_tasks", &ids).await?;
        let answer = |id: &TaskId| {
            if let Some(swept) = swept.get(id.as_str()) {
                return Some(swept.clone());
            }
            let document = found.get(id.as_str())?;
            Some(match records::decode::<TaskRecord>(document) {
                Ok(record) => TaskAnswer {
                    submission_hash: record.submission_hash,
                    state: record.state,
                    settled: record.settled,
                    failure: record.failure,
                    swept: false,
                },
                // The id is taken for good, and no submission can be told to be the same one.
                Err(_) => TaskAnswer {
                    submission_hash: 0,
                    state: TaskState::Quarantined,
                    settled: true,
                    failure: None,
                    swept: false,
                },
            })
        };
        Ok(StoreReply::Answers(tasks.iter().map(answer).collect()))
    }

    /// Nodes first, tasks after them: a cancel that was committed before the request came is seen.
    pub(crate) async fn grants(
        &self,
        worker: &WorkerId,
        nodes: &[(TaskId, NodeId)],
    ) -> Result<StoreReply, PortError> {
        const OP: &str = "read_grants";
        let ids: Vec<String> = nodes
            .iter()
            .map(|(task, node)| keys::node(task, node))
            .collect();
        let filter = doc! { "_id": { "$in": &ids } };
        let fields = doc! { "token": 1, "told": 1, "v": 1, "body": 1 };
        let found = by_id(self.find_fields(OP, "nodes", filter, 0, fields).await?);
        let tasks: Vec<&str> = nodes.iter().map(|(task, _)| task.as_str()).collect();
        let filter = doc! { "_id": { "$in": tasks } };
        let fields = doc! { "ending": 1, "whole": is_whole() };
        let tasks = by_id(self.find_fields(OP, "tasks", filter, 0, fields).await?);
        let mine = self.find_one(OP, "workers", worker.as_str()).await?;
        let grant = |id: &String, task: &TaskId| {
            let node = found.get(id)?;
            let task = tasks.get(task.as_str());
            let is_rotten = records::decode::<NodeRecord>(node).is_err()
                || task.is_some_and(|task| !task.get_bool("whole").unwrap_or(false));
            if is_rotten {
                // One rotten record must not fail the read of all the others: the run is told to end.
                return Some(GrantView {
                    token: None,
                    cancelled: true,
                    unreadable: true,
                });
            }
            let ending = task.is_none_or(|task| task.get_bool("ending").unwrap_or(true));
            let token = node.get_i64("token").ok();
            Some(GrantView {
                token: token.map(|token| flowkit_core::id::Token(token.cast_unsigned())),
                cancelled: ending || node.get_bool("told").unwrap_or(false),
                unreadable: false,
            })
        };
        let grants = ids.iter().zip(nodes).map(|(id, (task, _))| grant(id, task));
        Ok(StoreReply::Grants {
            incarnation: Incarnation(mine.map_or(0, |mine| keys::number(&mine, "incarnation"))),
            grants: grants.collect(),
        })
    }

    fn range(task: &TaskId, node: &NodeId, after: u64) -> Document {
        doc! { "_id": {
            "$gt": keys::artifact(task, node, after),
            "$lt": keys::artifacts_end(task, node),
        } }
    }

    pub(crate) async fn accepted(
        &self,
        task: &TaskId,
        node: &NodeId,
        after: u64,
        limit: u32,
    ) -> Result<StoreReply, PortError> {
        const OP: &str = "read_accepted";
        let filter = Self::range(task, node, after);
        let fields = doc! { "number": 1, "uid": 1 };
        let found = self
            .find_fields(OP, "artifacts", filter, limit_of(limit), fields)
            .await?;
        let accepted = found.iter().map(|document| {
            let uid = keys::text(document, "uid").unwrap_or_default();
            let uid = BatchUid::new(uid).map_err(|error| {
                PortError::new(ErrorKind::Corrupt, OP, format!("batch uid: {error}"))
            })?;
            Ok((keys::number(document, "number"), uid))
        });
        Ok(StoreReply::Accepted(
            accepted.collect::<Result<_, PortError>>()?,
        ))
    }

    pub(crate) async fn artifacts(
        &self,
        task: &TaskId,
        node: &NodeId,
        after: u64,
        limit: u32,
    ) -> Result<StoreReply, PortError> {
        const OP: &str = "read_artifacts";
        let corrupt = |detail: String| PortError::new(ErrorKind::Corrupt, OP, detail);
        let collection = self.collection("artifacts");
        let found = collection.find(Self::range(task, node, after));
        let found = found.sort(doc! { "_id": 1 }).limit(limit_of(limit)).await;
        let mut found = found.map_err(reads(OP))?;
        let mut records: Vec<ArtifactRecord> = Vec::new();
        let mut bytes = 0;
        while let Some(document) = found.try_next().await.map_err(reads(OP))? {
            let record: ArtifactRecord =
                records::decode(&document).map_err(|reason| corrupt(reason.to_string()))?;
            bytes = bytes_of(&record).saturating_add(bytes);
            if bytes > REPLY_BYTES_MAX && !records.is_empty() {
                break;
            }
            records.push(record);
        }
        let mut bodies = self.staged_bodies(OP, &records).await?;
        for record in &mut records {
            let Some(Artifact::Staged(_)) = record.artifact else {
                continue;
            };
            let Some(body) = bodies.remove(&staged_key(record)) else {
                let number = record.number;
                let detail = format!("no staged body for artifact {number} of {task}/{node}");
                return Err(corrupt(detail));
            };
            record.artifact = Some(Artifact::Inline(body));
        }
        Ok(StoreReply::Artifacts(records))
    }

    /// The staged bodies of artifacts that can be read, by their keys.
    async fn staged_bodies(
        &self,
        op: &str,
        records: &[ArtifactRecord],
    ) -> Result<BTreeMap<String, Json>, PortError> {
        let staged = records.iter();
        let staged = staged.filter(|record| matches!(record.artifact, Some(Artifact::Staged(_))));
        let keys: Vec<String> = staged.map(staged_key).collect();
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        let found = self.find(op, "staged", doc! { "_id": { "$in": keys } }, 0);
        let found = found.await?;
        let body = |document: &Document| {
            let body = Json::parse(keys::text(document, "body")?).ok()?;
            Some((keys::text(document, "_id")?.to_owned(), body))
        };
        Ok(found.iter().filter_map(body).collect())
    }

    pub(crate) async fn read_task(&self, task: &TaskId) -> Result<StoreReply, PortError> {
        let filter = doc! { "_id": task.as_str(), "swept": { "$ne": true } };
        self.task_by("read_task", filter).await
    }

    pub(crate) async fn task_by(
        &self,
        op: &str,
        filter: Document,
    ) -> Result<StoreReply, PortError> {
        let found = self.find(op, "tasks", filter, 1).await?;
        let mut page = self.with_nodes(op, &found).await?;
        if let Some((_, reason)) = page.unreadable.first() {
            return Err(PortError::new(ErrorKind::Corrupt, op, reason));
        }
        Ok(StoreReply::Task(page.tasks.pop().map(Box::new)))
    }

    pub(crate) async fn list_tasks(
        &self,
        after: Option<TaskId>,
        limit: u32,
    ) -> Result<StoreReply, PortError> {
        let mut filter = doc! { "swept": { "$ne": true } };
        if let Some(after) = &after {
            filter.insert("_id", doc! { "$gt": after.as_str() });
        }
        let mut tasks = self
            .find("list_tasks", "tasks", filter, limit_of(limit) + 1)
            .await?;
        let more = tasks.len() as i64 > limit_of(limit);
        if more {
            tasks.pop();
        }
        let mut page = TaskPage {
            tasks: Vec::with_capacity(tasks.len()),
            unreadable: Vec::new(),
            more,
        };
        for document in &tasks {
            let id = keys::text(document, "_id").and_then(|id| TaskId::new(id).ok());
            match (records::decode::<TaskRecord>(document), id) {
                (Ok(task), _) => page.tasks.push(TaskWithNodes {
                    task,
                    nodes: Vec::new(),
                    node_age_ms: Vec::new(),
                }),
                (Err(reason), Some(id)) => page.unreadable.push((id, reason)),
                (Err(_), None) => {}
            }
        }
        Ok(StoreReply::Tasks(page))
    }

    pub(crate) async fn active_runs(&self, worker: &WorkerId) -> Result<StoreReply, PortError> {
        let filter = doc! { "worker": worker.as_str() };
        let found = self.find("active_runs", "nodes", filter, 0).await?;
        let nodes = found.iter().filter_map(|node| records::decode(node).ok());
        Ok(StoreReply::Nodes(nodes.collect()))
    }
}

fn staged_key(record: &ArtifactRecord) -> String {
    let ArtifactRecord {
        task_id,
        node_id,
        batch_uid,
        token,
        ..
    } = record;
    keys::staged(task_id, node_id, batch_uid, *token)
}

/// What an artifact adds to a reply; the body of a staged one by the size that was accepted.
fn bytes_of(record: &ArtifactRecord) -> usize {
    let body = match &record.artifact {
        Some(Artifact::Staged(bytes)) => usize::try_from(*bytes).unwrap_or(usize::MAX),
        Some(Artifact::Inline(body)) => body.len(),
        None => 0,
    };
    let metrics: usize = record.metrics.values().map(Json::len).sum();
    body.saturating_add(metrics)
}

fn by_id(found: Vec<Document>) -> BTreeMap<String, Document> {
    found
        .into_iter()
        .filter_map(|document| Some((keys::text(&document, "_id")?.to_owned(), document)))
        .collect()
}
