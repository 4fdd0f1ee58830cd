//! Why a task is not running: gathers what the store and the streams show, and asks the core.

use flowkit_core::coordinator::Limits;
use flowkit_core::graph::Graph;
use flowkit_core::id::{NodeId, ShardId, TaskId};
use flowkit_core::why::{Facts, Owner, Running, Why, WorkerFacts, why};
use std::collections::BTreeMap;

use super::presence::Presence;
use super::{Client, ClientError, TaskHandle};

impl TaskHandle {
    /// Why the task and its nodes are not running: one sentence each, and the cure.
    ///
    /// It looks at what is stored and at the newest messages, which takes a few reads; ages are by
    /// the clocks of the machines. Nothing changes by it. Limits are those of the coordinator that runs
    /// in this process; see [`TaskHandle::why_within`].
    ///
    /// # Errors
    /// [`ClientError::NoSuchTask`], [`ClientError::Swept`], [`ClientError::Unreadable`], or the store or the
    /// transport cannot be read.
    pub async fn why(&self) -> Result<Why, ClientError> {
        let limits = self.client.inner.engine.limits();
        self.why_within(&limits).await
    }

    /// The same for coordinators elsewhere, which have these limits.
    ///
    /// # Errors
    /// As [`TaskHandle::why`].
    pub async fn why_within(&self, limits: &Limits) -> Result<Why, ClientError> {
        let client = &self.client;
        let task = client.read_task(&self.task_id).await?;
        let presence = client.presence().await?;
        let workers = client.worker_facts(&presence).await?;
        let running = client.running_within(limits).await?;
        let shards = client.inner.engine.deployment().await?.shards;
        let shard = ShardId::of(&self.task_id, shards);
        Ok(why(&Facts {
            task: &task,
            workers: &workers,
            owner: client.owner_of(shard, &presence),
            limits,
            running: &running,
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
                free_slots: heard.and_then(|heard| heard.free_slots),
                abandoned: heard.map_or(0, |heard| heard.abandoned),
            });
        }
        Ok(facts)
    }

    /// What stands against limits: every grant, also of workers that are silent. Nothing is read if
    /// there are none.
    async fn running_within(&self, limits: &Limits) -> Result<Running, ClientError> {
        let mut running = Running::default();
        if limits.is_none() {
            return Ok(running);
        }
        let mut granted: BTreeMap<TaskId, Vec<NodeId>> = BTreeMap::new();
        for record in self.workers().await? {
            for node in self.granted_to(record.worker_id).await? {
                granted.entry(node.task_id).or_default().push(node.node_id);
            }
        }
        for (task_id, nodes) in granted {
            let task = match self.read_task(&task_id).await {
                Ok(found) => found.task,
                // Gone meanwhile, or set aside, and then an owner counts it for nothing.
                Err(
                    ClientError::NoSuchTask(_)
                    | ClientError::Swept(_)
                    | ClientError::Unreadable { .. },
                ) => continue,
                Err(error) => return Err(error),
            };
            // A newer version's: an owner of this version set it aside and counts it for nothing.
            let Ok(graph) = Graph::parse_stored(&task.graph) else {
                continue;
            };
            let plan = graph.plan();
            for at in nodes.iter().filter_map(|node| plan.index(node)) {
                let key = task.control.options.limit_key.as_ref();
                running.count(&plan.node(at).role, key);
            }
        }
        Ok(running)
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
