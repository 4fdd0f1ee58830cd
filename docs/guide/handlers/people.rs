//! The database cursor of docs/guide/handlers.md: pages of people from a MongoDB collection.

use flowkit::prelude::*;
use mongodb::Collection;
use mongodb::bson::doc;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
pub struct Person {
    #[serde(rename = "_id")]
    pub id: i64,
    pub age: u32,
}

#[derive(Deserialize)]
struct Job {
    batch_size: u32,
}

/// Adds up ages, `batch_size` people at a time.
pub struct Ages {
    pub people: Collection<Person>, // a pool of connections, shared by all runs
}

impl Handler for Ages {
    type Run = ();
    type Input = Vec<Person>;
    type Output = u32;

    async fn init(&self, _cx: &RunContext) -> Result<(), HandlerError> {
        Ok(())
    }

    async fn batches(
        &self,
        cx: &RunContext,
        input: TaskInput,
    ) -> Result<BatchStream<Vec<Person>>, HandlerError> {
        let size = input.decode::<Job>()?.batch_size;
        // Behind the last accepted batch; in an order that is the same in every attempt.
        let filter = match cx.checkpoint::<i64>()? {
            Some(last) => doc! {"_id": {"$gt": last}},
            None => doc! {},
        };
        let cursor = self
            .people
            .find(filter)
            .sort(doc! {"_id": 1})
            .batch_size(size)
            .await?;
        Ok(BatchStream::unfold(cursor, move |mut cursor| async move {
            let mut people: Vec<Person> = Vec::new();
            while people.len() < size as usize && cursor.advance().await? {
                people.push(cursor.deserialize_current()?);
            }
            let Some(first) = people.first() else {
                return Ok(None);
            };
            let uid = format!("from-{}", first.id); // of the data, not of a counter
            Ok(Some((Batch::new(uid, people), cursor)))
        }))
    }

    async fn process(
        &self,
        cx: &RunContext,
        _run: &mut (),
        batch: Batch<Vec<Person>>,
    ) -> Result<BatchResult<u32>, HandlerError> {
        let sum = batch.payload.iter().map(|person| person.age).sum();
        if let Some(last) = batch.payload.last() {
            cx.save_checkpoint(&last.id).await?; // counts once the batch is accepted
        }
        Ok(BatchResult::of(sum).metric("people", batch.payload.len()))
    }
}
