//! What a commit writes, as the server is told it.

use flowkit_core::id::ShardId;
use flowkit_core::port::{Commit, Record, Removal};
use flowkit_core::record::{NodeRecord, TaskRecord, TombstoneRecord};
use mongodb::bson::{DateTime, RawDocumentBuf, cstr, rawdoc};
use std::collections::BTreeSet;

use crate::{keys, records};

/// Transitions of a task that may be in its first commit: queued, and running at once.
const FIRST_TRANSITIONS_MAX: usize = 2;

/// The records of a commit as text, each key once.
pub(crate) struct Prepared<'a> {
    tasks: Vec<(&'a TaskRecord, String)>,
    nodes: Vec<(String, &'a NodeRecord, String)>,
    pub(crate) artifacts: Vec<RawDocumentBuf>,
    pub(crate) tombstones: Vec<(&'a TombstoneRecord, String)>,
    pub(crate) removals: Vec<&'a Removal>,
}

/// Documents to insert, and upserts.
#[derive(Default)]
pub(crate) struct Statements {
    pub(crate) new_tasks: Vec<RawDocumentBuf>,
    pub(crate) tasks: Vec<RawDocumentBuf>,
    pub(crate) new_nodes: Vec<RawDocumentBuf>,
    pub(crate) nodes: Vec<RawDocumentBuf>,
}

impl<'a> Prepared<'a> {
    /// Refuses a commit that names a key twice.
    pub(crate) fn new(commit: &'a Commit) -> Result<Self, String> {
        let mut prepared = Self {
            tasks: Vec::new(),
            nodes: Vec::new(),
            artifacts: Vec::new(),
            tombstones: Vec::new(),
            removals: Vec::new(),
        };
        let mut keys_met = BTreeSet::new();
        let mut uids_met = BTreeSet::new();
        for record in &commit.records {
            let key = match record {
                Record::Task(record) => {
                    prepared.tasks.push((record, records::body(record)?));
                    record.task_id.as_str().to_owned()
                }
                Record::Node(record) => {
                    let id = keys::node(&record.task_id, &record.node_id);
                    let body = records::body(record)?;
                    prepared.nodes.push((id.clone(), record, body));
                    id
                }
                Record::Artifact(record) => {
                    let uid = (&record.task_id, &record.node_id, &record.batch_uid);
                    if !uids_met.insert(uid) {
                        return Err(format!("batch {} is accepted twice", record.batch_uid));
                    }
                    prepared.artifacts.push(records::artifact(record)?);
                    keys::artifact(&record.task_id, &record.node_id, record.number)
                }
                Record::Tombstone(record) => {
                    prepared.tombstones.push((record, records::body(record)?));
                    format!("\n{}", record.task_id)
                }
                Record::Remove(removal) => {
                    prepared.removals.push(removal);
                    continue;
                }
            };
            if !keys_met.insert(key) {
                return Err("a key is written twice in one commit".to_owned());
            }
        }
        Ok(prepared)
    }

    /// Tasks that this commit may be the first one of: no proof, only where to look.
    pub(crate) fn maybe_new(&self) -> BTreeSet<&str> {
        let tasks = self.tasks.iter().map(|(task, _)| task);
        tasks
            .filter(|task| task.history.entries.len() <= FIRST_TRANSITIONS_MAX)
            .map(|task| task.task_id.as_str())
            .collect()
    }

    /// The statements, if these tasks are not there yet. A task's first commit is that of its nodes.
    pub(crate) fn statements(
        &self,
        shard: ShardId,
        now: DateTime,
        new: &BTreeSet<&str>,
    ) -> Statements {
        let mut statements = Statements::default();
        for (task, body) in &self.tasks {
            let id = task.task_id.as_str();
            let fields = |document: &mut _| records::task(shard.0, task, now, body, document);
            match new.contains(id) {
                true => statements.new_tasks.push(whole(id, fields)),
                false => statements.tasks.push(upsert(id, fields)),
            }
        }
        for (id, node, body) in &self.nodes {
            let fields = |document: &mut _| records::node(node, now, body, document);
            match new.contains(node.task_id.as_str()) {
                true => statements.new_nodes.push(whole(id, fields)),
                false => statements.nodes.push(upsert(id, fields)),
            }
        }
        statements
    }
}

fn whole(id: &str, fields: impl FnOnce(&mut RawDocumentBuf)) -> RawDocumentBuf {
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), id);
    fields(&mut document);
    document
}

fn upsert(id: &str, fields: impl FnOnce(&mut RawDocumentBuf)) -> RawDocumentBuf {
    // All of it is ours, and to replace a document costs the server less than to set its fields.
    let mut document = RawDocumentBuf::new();
    fields(&mut document);
    rawdoc! { "q": { "_id": id }, "u": document, "upsert": true }
}
