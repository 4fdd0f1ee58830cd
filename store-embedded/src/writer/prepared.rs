//! A commit in the form in which it is written: encoded and sorted by its caller, so that the one
//! writer has nothing to do but write.

use flowkit_core::port::{Commit, Record, Removal};
use flowkit_core::record::ShardRecord;
use std::ops::Range;

use crate::format::{Key, Table, encode_artifact, encode_node, encode_plain, encode_task};

/// A commit, ready to be written.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The shard record as it will be.
    pub(super) shard: ShardRecord,
    /// Why the commit can never be written, if it cannot.
    pub(super) refusal: Option<String>,
    bytes: Vec<u8>,
    rows: Vec<Row>,
    /// What is taken away after the rows.
    pub(super) removals: Vec<Removal>,
}

#[derive(Debug)]
struct Row {
    table: Table,
    key: Range<usize>,
    value: Range<usize>,
}

impl Prepared {
    /// Encodes and sorts a commit; `now_ms` is when its node records count as written.
    pub(crate) fn new(commit: &Commit, now_ms: i64) -> Self {
        let mut prepared = Self {
            shard: ShardRecord {
                shard: commit.shard,
                epoch: commit.epoch,
                commit_seq: commit.seq,
                commit_id: commit.id,
                next: commit.next,
                last_entry: commit.last_entry,
            },
            refusal: None,
            bytes: Vec::with_capacity(commit.records.len() * 384),
            rows: Vec::with_capacity(commit.records.len() + commit.records.len() / 2),
            removals: Vec::new(),
        };
        for record in &commit.records {
            if let Err(error) = prepared.add(record, now_ms) {
                prepared.refusal = Some(format!("a record cannot be encoded: {error}"));
                return prepared;
            }
        }
        let bytes = &prepared.bytes;
        let key = |row: &Row| (row.table, &bytes[row.key.clone()]);
        prepared.rows.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        if let Some(twice) = prepared.rows.windows(2).find(|w| key(&w[0]) == key(&w[1])) {
            prepared.refusal = Some(format!(
                "{} is written twice in one commit",
                name_of(twice[0].table, &bytes[twice[0].key.clone()])
            ));
        }
        prepared
    }

    fn add(&mut self, record: &Record, now_ms: i64) -> Result<(), postcard::Error> {
        match record {
            Record::Task(task) => {
                for held in task.rerun.iter().flat_map(|rerun| &rerun.holds) {
                    let key = Key::pointer(held, task.task_id.as_str().as_bytes());
                    self.row(
                        Table::Pointer,
                        |out| out.extend_from_slice(&key),
                        |_| Ok(()),
                    )?;
                }
                self.row(
                    Table::Task,
                    |out| out.extend_from_slice(task.task_id.as_str().as_bytes()),
                    |out| encode_task(task, now_ms, out),
                )
            }
            Record::Tombstone(tombstone) => self.row(
                Table::Tombstone,
                |out| out.extend_from_slice(tombstone.task_id.as_str().as_bytes()),
                |out| encode_plain(&**tombstone, out),
            ),
            Record::Remove(removal) => {
                self.removals.push(removal.clone());
                Ok(())
            }
            Record::Node(node) => self.row(
                Table::Node,
                |out| Key::node(&node.task_id, &node.node_id, out),
                |out| encode_node(node, now_ms, out),
            ),
            Record::Artifact(artifact) => {
                let (task, node) = (&artifact.task_id, &artifact.node_id);
                self.row(
                    Table::Artifact,
                    |out| Key::number(task, node, artifact.number, out),
                    |out| encode_artifact(artifact, out),
                )?;
                self.row(
                    Table::Uid,
                    |out| Key::uid(task, node, &artifact.batch_uid, out),
                    |out| encode_plain(&artifact.number, out),
                )
            }
        }
    }

    fn row(
        &mut self,
        table: Table,
        key: impl FnOnce(&mut Vec<u8>),
        value: impl FnOnce(&mut Vec<u8>) -> Result<(), postcard::Error>,
    ) -> Result<(), postcard::Error> {
        let start = self.bytes.len();
        key(&mut self.bytes);
        let middle = self.bytes.len();
        value(&mut self.bytes)?;
        self.rows.push(Row {
            table,
            key: start..middle,
            value: middle..self.bytes.len(),
        });
        Ok(())
    }

    /// Bytes of all keys and values.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Every row: table, key, value; by table, then by key.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Table, &[u8], &[u8])> {
        self.rows.iter().map(|row| {
            let (key, value) = (row.key.clone(), row.value.clone());
            (row.table, &self.bytes[key], &self.bytes[value])
        })
    }
}

/// A key for people.
pub(super) fn name_of(table: Table, key: &[u8]) -> String {
    let mut parts = key
        .splitn(3, |byte| *byte == 0)
        .map(String::from_utf8_lossy);
    let mut part = || parts.next().unwrap_or_default();
    match table {
        Table::Artifact => {
            let (task, node) = (part(), part());
            let number = key.last_chunk::<8>().map_or(0, |n| u64::from_be_bytes(*n));
            format!("artifact {number} of {task}/{node}")
        }
        Table::Uid => {
            let (task, node, uid) = (part(), part(), part());
            format!("batch {uid} of {task}/{node}")
        }
        Table::Node => {
            let (task, node) = (part(), part());
            format!("node {task}/{node}")
        }
        _ => format!("{table:?} {}", part()).to_lowercase(),
    }
}
