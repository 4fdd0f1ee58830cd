//! What was written to MongoDB, transaction by transaction, as its own log has it.

use flowkit_core::id::{Incarnation, Offset, ShardId, WorkerId};
use flowkit_core::port::{Commit, Record, StoreRequest};
use flowkit_memory::{StoreModel, Tables};
use futures_util::TryStreamExt;
use mongodb::Client;
use mongodb::bson::{Bson, Document, Timestamp, doc};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// One write.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// Time of the server's coarse clock, in milliseconds since the Unix epoch: not after the write.
    pub(crate) at_ms: u64,
    pub(crate) what: Write,
}

/// What was written.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    Commit {
        shard: ShardId,
        epoch: u64,
        seq: u64,
        next: Offset,
        records: Vec<Record>,
    },
    EpochRaised {
        shard: ShardId,
        epoch: u64,
    },
    Registered {
        worker: WorkerId,
        incarnation: Incarnation,
        nonce: u64,
    },
}

/// A connection to the server itself.
#[derive(Clone, Debug)]
pub(crate) struct Oplog {
    client: Client,
    database: String,
    from: Timestamp,
}

fn failed(error: mongodb::error::Error) -> String {
    format!("MongoDB's log cannot be read: {error}")
}

impl Oplog {
    /// Remembers where the log ends now.
    pub(crate) async fn open(mongo: &str, database: &str) -> Result<Self, String> {
        let client = Client::with_uri_str(mongo).await.map_err(failed)?;
        let log = client.database("local").collection::<Document>("oplog.rs");
        let newest = log
            .find_one(doc! {})
            .sort(doc! { "$natural": -1 })
            .await
            .map_err(failed)?;
        let newest = newest.ok_or("MongoDB's log is empty: is it a replica set?")?;
        let from = newest.get_timestamp("ts").map_err(|e| e.to_string())?;
        Ok(Self {
            client,
            database: database.to_owned(),
            from,
        })
    }

    /// Everything written since, in order.
    pub(crate) async fn writes(&self) -> Result<Vec<Written>, String> {
        let log = self
            .client
            .database("local")
            .collection::<Document>("oplog.rs");
        let mut entries = log
            .find(doc! { "ts": { "$gt": self.from } })
            .await
            .map_err(failed)?;
        let mut reader = Reader {
            prefix: format!("{}.", self.database),
            shards: BTreeMap::new(),
            written: Vec::new(),
        };
        while let Some(entry) = entries.try_next().await.map_err(failed)? {
            reader.entry(&entry)?;
        }
        Ok(reader.written)
    }

    /// The tables as they stand now.
    pub(crate) async fn tables(&self) -> Result<Tables, String> {
        let mut records = Vec::new();
        for collection in ["tasks", "nodes", "artifacts"] {
            let all = self
                .client
                .database(&self.database)
                .collection::<Document>(collection);
            let mut all = all.find(doc! {}).await.map_err(failed)?;
            while let Some(document) = all.try_next().await.map_err(failed)? {
                let body = document.get_str("body").map_err(|e| e.to_string())?;
                records.push(record(collection, body)?);
            }
        }
        tables(records)
    }

    /// Drops the database.
    pub(crate) async fn drop(&self) -> Result<(), String> {
        self.client
            .database(&self.database)
            .drop()
            .await
            .map_err(failed)
    }
}

/// The tables that hold these records.
fn tables(records: Vec<Record>) -> Result<Tables, String> {
    let mut model = StoreModel::durable();
    let shard = ShardId(0);
    let owner = flowkit_core::id::ClientId::new("reader").map_err(|e| e.to_string())?;
    let lease = StoreRequest::AcquireShard {
        shard,
        owner: owner.clone(),
        ttl_ms: 1_000,
    };
    let raise = StoreRequest::RaiseEpoch {
        shard,
        owner,
        epoch: 0,
        commit_seq: 0,
    };
    for request in [lease, raise] {
        model.apply(0, &request).map_err(|e| e.to_string())?;
    }
    let commit = Commit {
        shard,
        epoch: 1,
        seq: 1,
        id: 1,
        next: Offset(0),
        last_entry: None,
        records,
    };
    model.commit(0, commit).map_err(|e| e.to_string())?;
    Ok(model.applied().clone())
}

fn record(collection: &str, body: &str) -> Result<Record, String> {
    fn read<T: DeserializeOwned>(body: &str) -> Result<T, String> {
        serde_json::from_str(body).map_err(|e| format!("a record cannot be read: {e}: {body}"))
    }
    Ok(match collection {
        "tasks" => Record::Task(read(body)?),
        "nodes" => Record::Node(read(body)?),
        _ => Record::Artifact(read(body)?),
    })
}

/// A shard record so far.
#[derive(Clone, Copy, Debug, Default)]
struct Shard {
    epoch: u64,
    seq: u64,
    next: u64,
}

struct Reader {
    prefix: String,
    shards: BTreeMap<u32, Shard>,
    written: Vec<Written>,
}

impl Reader {
    fn entry(&mut self, entry: &Document) -> Result<(), String> {
        let at_ms = entry
            .get_datetime("wall")
            .map_or(0, |wall| wall.timestamp_millis());
        let at_ms = u64::try_from(at_ms).unwrap_or(0);
        let operations: Vec<&Document> =
            match entry.get_document("o").map(|o| o.get_array("applyOps")) {
                Ok(Ok(operations)) => operations.iter().filter_map(Bson::as_document).collect(),
                _ => vec![entry],
            };
        let mut records = Vec::new();
        let mut committed = None;
        let mut ours = false;
        for operation in operations {
            let namespace = operation.get_str("ns").unwrap_or_default();
            let Some(collection) = namespace.strip_prefix(&self.prefix) else {
                continue;
            };
            let kind = operation.get_str("op").unwrap_or_default();
            if !matches!(kind, "i" | "u") {
                continue;
            }
            ours = true;
            let fields = fields_of(operation)?;
            match collection {
                "tasks" | "nodes" | "artifacts" => {
                    if let Some(body) = fields.get("body").and_then(Bson::as_str) {
                        records.push(record(collection, body)?);
                    }
                }
                "shards" => committed = self.shard(at_ms, operation, &fields)?.or(committed),
                "workers" => self.registered(at_ms, operation, &fields)?,
                _ => {}
            }
        }
        if ours
            && entry
                .get_document("o")
                .is_ok_and(|o| o.contains_key("partialTxn"))
        {
            return Err("a transaction is spread over several entries of the log".to_owned());
        }
        if let Some((shard, record)) = committed {
            let what = Write::Commit {
                shard,
                epoch: record.epoch,
                seq: record.seq,
                next: Offset(record.next),
                records,
            };
            self.written.push(Written { at_ms, what });
        } else if !records.is_empty() {
            return Err(format!(
                "records were written without their shard's record: {records:?}"
            ));
        }
        Ok(())
    }

    /// The shard's record, if this was a commit.
    fn shard(
        &mut self,
        at_ms: u64,
        operation: &Document,
        fields: &BTreeMap<String, Bson>,
    ) -> Result<Option<(ShardId, Shard)>, String> {
        let id = id_of(operation)
            .and_then(Bson::as_i64)
            .ok_or("a shard without a number")?;
        let id = u32::try_from(id).map_err(|e| e.to_string())?;
        let shard = self.shards.entry(id).or_default();
        let number = |name: &str| {
            fields
                .get(name)
                .and_then(Bson::as_i64)
                .map(i64::cast_unsigned)
        };
        shard.epoch = number("epoch").unwrap_or(shard.epoch);
        shard.next = number("next").unwrap_or(shard.next);
        // A takeover writes no number, the first one a 0.
        let Some(seq @ 1..) = number("commit_seq") else {
            let what = Write::EpochRaised {
                shard: ShardId(id),
                epoch: shard.epoch,
            };
            self.written.push(Written { at_ms, what });
            return Ok(None);
        };
        shard.seq = seq;
        Ok(Some((ShardId(id), *shard)))
    }

    fn registered(
        &mut self,
        at_ms: u64,
        operation: &Document,
        fields: &BTreeMap<String, Bson>,
    ) -> Result<(), String> {
        let number = |name: &str| {
            fields
                .get(name)
                .and_then(Bson::as_i64)
                .map(i64::cast_unsigned)
        };
        let id = id_of(operation)
            .and_then(Bson::as_str)
            .ok_or("a worker without an id")?;
        if let (Some(incarnation), Some(nonce)) = (number("incarnation"), number("nonce")) {
            let what = Write::Registered {
                worker: WorkerId::new(id).map_err(|e| e.to_string())?,
                incarnation: Incarnation(incarnation),
                nonce,
            };
            self.written.push(Written { at_ms, what });
        }
        Ok(())
    }
}

/// The `_id` of what an operation wrote.
fn id_of(operation: &Document) -> Option<&Bson> {
    let target = operation.get_document("o2").ok();
    let target = target.or_else(|| operation.get_document("o").ok());
    target?.get("_id")
}

/// The fields that an operation set, with their new values.
fn fields_of(operation: &Document) -> Result<BTreeMap<String, Bson>, String> {
    let o = operation.get_document("o").map_err(|e| e.to_string())?;
    let mut fields = BTreeMap::new();
    let mut take = |document: &Document| {
        for (name, value) in document {
            fields.insert(name.clone(), value.clone());
        }
    };
    match o.get_document("diff") {
        Err(_) => take(o),
        Ok(diff) => {
            for part in ["u", "i"] {
                if let Ok(part) = diff.get_document(part) {
                    take(part);
                }
            }
        }
    }
    Ok(fields)
}
