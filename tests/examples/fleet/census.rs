//! What a run of the engine really sent and wrote: its topics read from their beginning, and its
//! transactions as the server's oplog has them.

use flowkit_core::id::{Offset, ShardId};
use flowkit_core::message::Envelope;
use flowkit_core::port::{Stream, TransportReply, TransportRequest};
use flowkit_runtime::Engine;
use futures_util::TryStreamExt;
use mongodb::Database;
use mongodb::bson::{Bson, Document, doc};
use std::collections::BTreeMap;

use crate::Outcome;
use crate::deployment::Deployment;

/// Transactions that are looked into, from the newest back.
const SAMPLE: i64 = 400;
/// Documents of one kind that are kept as they were.
const EXAMPLES_MAX: usize = 512;
/// Entries per read.
const PAGE: u32 = 20_000;

/// Everything that a node cost.
#[derive(Debug)]
pub(crate) struct Census {
    pub(crate) messages: Vec<Messages>,
    pub(crate) transactions_per_node: f64,
    pub(crate) writes: Vec<Writes>,
}

/// Messages of one kind.
#[derive(Debug)]
pub(crate) struct Messages {
    pub(crate) kind: String,
    pub(crate) per_node: f64,
    pub(crate) mean_bytes: f64,
}

/// What a mean transaction writes into one collection.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    pub(crate) collection: String,
    pub(crate) inserts: f64,
    pub(crate) updates: f64,
    /// Bytes of the documents and of the fields that were set.
    pub(crate) bytes: f64,
    /// Whole documents that were inserted.
    pub(crate) inserted: Vec<Document>,
    /// Changes: whole documents, or fields to `$set`.
    pub(crate) changed: Vec<Document>,
}

impl Census {
    pub(crate) fn messages_per_node(&self) -> f64 {
        self.messages.iter().map(|m| m.per_node).sum()
    }

    pub(crate) fn message_bytes_per_node(&self) -> f64 {
        let bytes = self.messages.iter().map(|m| m.per_node * m.mean_bytes);
        bytes.sum()
    }

    pub(crate) fn records_per_transaction(&self) -> f64 {
        self.writes.iter().map(|w| w.inserts + w.updates).sum()
    }

    pub(crate) fn record_bytes_per_transaction(&self) -> f64 {
        self.writes.iter().map(|w| w.bytes).sum()
    }
}

pub(crate) async fn take(deployment: &Deployment, engine: &Engine, nodes: u64) -> Outcome<Census> {
    let database = deployment.database().await?;
    Ok(Census {
        messages: messages(engine, deployment.shards, nodes).await?,
        transactions_per_node: transactions(&database).await? / nodes as f64,
        writes: writes(&database).await?,
    })
}

async fn messages(engine: &Engine, shards: u32, nodes: u64) -> Outcome<Vec<Messages>> {
    let inboxes = flowkit_runtime::EngineSettings::default().inboxes;
    let streams = (0..shards).map(|shard| Stream::Shard(ShardId(shard)));
    let streams = streams.chain((0..inboxes).map(Stream::Inbox));
    let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for stream in streams {
        let mut from = Offset(0);
        loop {
            let read = TransportRequest::Read {
                stream,
                from,
                limit: PAGE,
                wait_ms: 0,
            };
            let TransportReply::Entries { entries, next } = engine.transport().call(read).await?
            else {
                return Err("a read was answered with something else".into());
            };
            if entries.is_empty() {
                break;
            }
            from = next;
            for envelope in entries.into_iter().filter_map(|entry| entry.message.ok()) {
                let bytes = Envelope::encode(&envelope)?.len() as u64;
                let sum = sums.entry(envelope.body.kind().to_owned()).or_default();
                *sum = (sum.0 + 1, sum.1 + bytes);
            }
        }
    }
    let of_kind = |(kind, (count, bytes))| Messages {
        kind,
        per_node: count as f64 / nodes as f64,
        mean_bytes: bytes as f64 / count as f64,
    };
    Ok(sums.into_iter().map(of_kind).collect())
}

/// Commits of all shards.
async fn transactions(database: &Database) -> Outcome<f64> {
    let shards = database.collection::<Document>("shards");
    let shards: Vec<Document> = shards.find(doc! {}).await?.try_collect().await?;
    let seqs = shards.iter().filter_map(|s| s.get_i64("commit_seq").ok());
    Ok(seqs.sum::<i64>() as f64)
}

/// A mean transaction.
async fn writes(database: &Database) -> Outcome<Vec<Writes>> {
    let prefix = format!("{}.", database.name());
    let oplog = database.client().database("local");
    let filter = doc! { "o.applyOps.ns": { "$regex": format!("^{}\\.", database.name()) } };
    let found = oplog
        .collection::<Document>("oplog.rs")
        .find(filter)
        .sort(doc! { "$natural": -1 })
        .limit(SAMPLE)
        .await;
    let mut found = found.map_err(|e| format!("the oplog cannot be read: {e}"))?;
    let mut transactions = 0_u32;
    let mut writes: BTreeMap<String, Writes> = BTreeMap::new();
    while let Some(entry) = found.try_next().await? {
        transactions += 1;
        for op in entry.get_document("o")?.get_array("applyOps")? {
            let Bson::Document(op) = op else { continue };
            let Some(collection) = op.get_str("ns")?.strip_prefix(&prefix) else {
                continue;
            };
            let writes = writes.entry(collection.to_owned()).or_default();
            let (fields, examples) = if op.get_str("op")? == "i" {
                writes.inserts += 1.0;
                (op.get_document("o")?.clone(), &mut writes.inserted)
            } else {
                writes.updates += 1.0;
                (change_of(op.get_document("o")?), &mut writes.changed)
            };
            writes.bytes += fields.to_vec()?.len() as f64;
            if examples.len() < EXAMPLES_MAX {
                examples.push(fields);
            }
        }
    }
    if transactions == 0 {
        return Err("the oplog holds no transaction of this run".into());
    }
    let mean = |(collection, writes): (String, Writes)| Writes {
        collection,
        inserts: writes.inserts / f64::from(transactions),
        updates: writes.updates / f64::from(transactions),
        bytes: writes.bytes / f64::from(transactions),
        ..writes
    };
    Ok(writes.into_iter().map(mean).collect())
}

/// What an update command says for a change: the oplog has `{$v: 2, diff: {u: …, i: …}}` or the whole
/// document.
fn change_of(change: &Document) -> Document {
    let Ok(diff) = change.get_document("diff") else {
        let mut whole = change.clone();
        whole.remove("_id");
        return whole;
    };
    let mut fields = Document::new();
    for part in ["u", "i"] {
        fields.extend(diff.get_document(part).cloned().unwrap_or_default());
    }
    doc! { "$set": fields }
}
