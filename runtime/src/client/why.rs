//! Why a task is not running: gathers what the store and the streams show, and asks the core.

use flowkit_core::id::ShardId;
use flowkit_core::port::{StoreReply, StoreRequest};
use flowkit_core::why::{Facts, Owner, Why, WorkerFacts, why};

use super::presence::Presence;
use super::{Client, ClientError, TaskHandle};
use crate::engine::unexpected;

impl TaskHandle {
    /// Why the task and its nodes are not running: one sentence each, and the cure.
    ///
    /// It looks at what is stored and at the newest messages, which takes a few reads; ages are by
    /// the clocks of the machines. Nothing changes by it.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTask`], [`ClientError::Swept`], or the store or the transport cannot be
    /// read.
    pub async fn why(&self) -> Result<Why, ClientError> {
        let client = &self.client;
        let task_id = self.task_id.clone();
        let task = match client.read(StoreRequest::ReadTask { task_id }).await? {
            StoreReply::Task(Some(task)) => task,
            StoreReply::Task(None) => return Err(client.missing(&self.task_id).await),
            other => return Err(unexpected("read task", &other).into()),
        };
        let presence = client.presence().await?;
        let workers = client.worker_facts(&presence).await?;
        let shards = client.inner.engine.deployment().await?.shards;
        let shard = ShardId::of(&self.task_id, shards);
        Ok(why(&Facts {
            task: &task,
            workers: &workers,
            owner: client.owner_of(shard, &presence),
        }))
    }
}

impl Client {
    /// What is known of every worker. Those that were not heard lately are not asked what they hold.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn worker_facts(&self, presence: &Presence) -> Result<Vec<WorkerFacts>, ClientError> {
        let mut facts = Vec::new();
        for record in self.workers().await? {
            let heard = presence.workers.get(&record.worker_id);
            let held = match heard {
                Some(_) => self.granted_to(record.worker_id.clone()).await?.len(),
                None => 0,
            };
            facts.push(WorkerFacts {
                worker_id: record.worker_id,
                roles: record.roles,
                capacity: record.capacity,
                held: u32::try_from(held).unwrap_or(u32::MAX),
                heard_ms: heard.map(|heard| heard.age_ms),
                leaving: heard.is_some_and(|heard| heard.status != "online"),
                silent_after_ms: heard.map_or(0, |heard| heard.silent_after_ms),
            });
        }
        Ok(facts)
    }

    /// Who folds a shard, as far as can be seen from here.
    #[must_use]
    pub fn owner_of(&self, shard: ShardId, presence: &Presence) -> Owner {
        if self.inner.engine.is_idle_and_alone() {
            return Owner::Stopped;
        }
        let seen = presence.shards.iter().find(|seen| seen.shard == shard);
        Owner::Folds {
            lag: seen.map_or(0, |seen| seen.lag),
            oldest_ms: seen.and_then(|seen| seen.oldest_ms),
        }
    }
}
