//! MongoDB's part of the ceiling: transactions like those of the engine, one after the other per
//! shard, each with what it must have: the shard record, then what changed.

use mongodb::Database;
use mongodb::bson::{Bson, Document, doc};

use super::Share;
use crate::Outcome;
use crate::census::{Census, Writes};
use crate::deployment::Deployment;

/// Newest documents of a collection that updates go to: those of the tasks in flight.
const NEWEST: u64 = 1_000;

pub(super) struct Run {
    shards: Vec<Shard>,
}

/// The transactions of one shard.
struct Shard {
    number: u32,
    database: Database,
    collections: Vec<Rows>,
    transactions: u64,
}

/// A collection, and what goes into it.
struct Rows {
    name: String,
    inserts: Share,
    updates: Share,
    inserted: Vec<Document>,
    changed: Vec<Document>,
    /// Documents so far, and updates.
    count: u64,
    updated: u64,
}

impl Rows {
    fn of(writes: &Writes) -> Self {
        Self {
            name: writes.collection.clone(),
            inserts: Share::of(writes.inserts),
            updates: Share::of(writes.updates),
            inserted: writes.inserted.clone(),
            changed: writes.changed.clone(),
            count: 0,
            updated: 0,
        }
    }

    fn id(shard: u32, number: u64) -> String {
        // As long as the engine's, and rising like them.
        format!("01980000-{shard:04}-7000-8000-{number:016}\nn")
    }

    fn new_documents(&mut self, shard: u32) -> Vec<Document> {
        let count = if self.inserted.is_empty() {
            0
        } else {
            self.inserts.next()
        };
        let make = |_| {
            let mut document = self.inserted[self.count as usize % self.inserted.len()].clone();
            let id = Self::id(shard, self.count);
            for field in ["_id", "node", "task"] {
                if document.contains_key(field) {
                    document.insert(field, id.as_str());
                }
            }
            self.count += 1;
            document
        };
        (0..count).map(make).collect()
    }

    fn changes(&mut self, shard: u32) -> Vec<Document> {
        let count = if self.changed.is_empty() {
            0
        } else {
            self.updates.next()
        };
        let newest = NEWEST.min(self.count);
        let oldest = self.count - newest;
        let change = |_| {
            let mut change = self.changed[self.updated as usize % self.changed.len()].clone();
            let id = Self::id(shard, oldest + self.updated % newest.max(1));
            self.updated += 1;
            if change.contains_key("task") {
                change.insert("task", id.as_str());
            }
            doc! { "q": { "_id": id }, "u": change }
        };
        (0..count).map(change).collect()
    }
}

impl Run {
    pub(super) async fn prepare(
        deployment: &Deployment,
        census: &Census,
        nodes: u64,
    ) -> Outcome<Self> {
        let database = deployment.database().await?;
        let all = census.transactions_per_node * nodes as f64;
        let transactions = (all / f64::from(deployment.shards)).ceil() as u64;
        let shard = |number| Shard {
            number,
            database: database.clone(),
            collections: census
                .writes
                .iter()
                .filter(|writes| writes.collection != "shards")
                .map(Rows::of)
                .collect(),
            transactions,
        };
        let shards: Vec<Shard> = (0..deployment.shards).map(shard).collect();
        let records = database.collection::<Document>("shards");
        for shard in &shards {
            let record = doc! { "_id": i64::from(shard.number), "commit_seq": 0_i64 };
            records.insert_one(record).await?;
        }
        Ok(Self { shards })
    }

    pub(super) async fn run(self) -> Outcome {
        let mut running = tokio::task::JoinSet::new();
        for shard in self.shards {
            running.spawn(shard.run());
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        Ok(())
    }
}

impl Shard {
    async fn run(mut self) -> Outcome {
        let mut session = self.database.client().start_session().await?;
        for seq in 0..self.transactions {
            session.start_transaction().await?;
            let seq = i64::try_from(seq)?;
            let change = doc! {
                "q": { "_id": i64::from(self.number), "commit_seq": seq },
                "u": { "$set": { "commit_seq": seq + 1 } },
            };
            let mut commands = vec![doc! { "update": "shards", "updates": [change] }];
            for rows in &mut self.collections {
                let changes = rows.changes(self.number);
                if !changes.is_empty() {
                    let updates: Vec<Bson> = changes.into_iter().map(Bson::from).collect();
                    commands
                        .push(doc! { "update": &rows.name, "updates": updates, "ordered": false });
                }
                let documents = rows.new_documents(self.number);
                if !documents.is_empty() {
                    let documents: Vec<Bson> = documents.into_iter().map(Bson::from).collect();
                    commands.push(
                        doc! { "insert": &rows.name, "documents": documents, "ordered": false },
                    );
                }
            }
            for command in commands {
                let reply = self
                    .database
                    .run_command(command)
                    .session(&mut session)
                    .await?;
                if let Ok(errors) = reply.get_array("writeErrors") {
                    return Err(format!("a write was refused: {errors:?}").into());
                }
            }
            session.commit_transaction().await?;
        }
        Ok(())
    }
}
