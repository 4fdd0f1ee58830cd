//! The health of a process, as one JSON object.

use flowkit_core::id::ShardId;
use flowkit_runtime::vitals::{CoordinatorVitals, Trouble, WorkerVitals};
use flowkit_runtime::{Engine, WorkerHandle, WorkerStatus};
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

use crate::memory::{self, Memory};
use crate::probe;
use crate::ready::{self, Look};

#[cfg(test)]
mod tests;

/// A process at one moment.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) workers: Vec<WorkerHealth>,
    pub(crate) coordinator: Option<CoordinatorHealth>,
    pub(crate) uptime: Duration,
    pub(crate) resident_bytes: Option<u64>,
    samples: Vec<(Duration, u64)>,
}

#[derive(Debug)]
pub(crate) struct WorkerHealth {
    pub(crate) status: WorkerStatus,
    pub(crate) vitals: Option<WorkerVitals>,
    pub(crate) look: Look,
}

#[derive(Debug)]
pub(crate) struct CoordinatorHealth {
    pub(crate) vitals: Option<CoordinatorVitals>,
    pub(crate) lags: BTreeMap<ShardId, Result<u64, String>>,
}

impl Process {
    /// Asks everybody at once, and whatever they need: the servers have this patience, however many
    /// workers and shards there are.
    pub(crate) async fn look(
        engine: &Engine,
        uptime: Duration,
        memory: &Memory,
        patience: Duration,
    ) -> Self {
        let workers = engine.workers();
        let workers = workers.iter();
        let workers = workers.map(|worker| WorkerHealth::look(engine, worker, patience));
        let (workers, coordinator) =
            tokio::join!(join_all(workers), CoordinatorHealth::look(engine, patience));
        Self {
            workers,
            coordinator,
            uptime,
            resident_bytes: memory::resident_bytes(),
            samples: memory.samples(),
        }
    }

    /// Every driver turns, or will once the store has told what the deployment is: no restart helps that.
    pub(crate) fn is_alive(&self) -> bool {
        let coordinator = self.coordinator.as_ref();
        let mut workers = self.workers.iter();
        workers.all(|worker| worker.vitals.is_some() || worker.status.waiting)
            && coordinator.is_none_or(|coordinator| coordinator.vitals.is_some())
    }

    /// Why it is not ready; empty if it is.
    pub(crate) fn not_ready(&self) -> Vec<String> {
        let mut why = Vec::new();
        for worker in &self.workers {
            let id = &worker.status.worker_id;
            why.extend(
                worker
                    .not_ready()
                    .into_iter()
                    .map(|w| format!("worker {id}: {w}")),
            );
        }
        if let Some(coordinator) = &self.coordinator {
            let reasons = coordinator.not_ready().into_iter();
            why.extend(reasons.map(|w| format!("coordinator: {w}")));
        }
        if self.workers.is_empty() && self.coordinator.is_none() {
            why.push("neither a worker nor a coordinator runs here".to_owned());
        }
        why
    }

    /// All of it.
    pub(crate) fn json(&self) -> Value {
        let why = self.not_ready();
        let mut workers: Vec<Value> = self.workers.iter().map(WorkerHealth::json).collect();
        let mut value = json!({
            "alive": self.is_alive(),
            "ready": why.is_empty(),
            "not_ready": why,
            "uptime_ms": millis(self.uptime),
            "resident_bytes": self.resident_bytes,
            "memory": self.samples.iter()
                .map(|(age, bytes)| json!([millis(*age), bytes])).collect::<Vec<_>>(),
        });
        if let Some(coordinator) = &self.coordinator {
            value["coordinator"] = coordinator.json();
        }
        // A process that is one worker says so without a list around it, too.
        if let ([Value::Object(only)], None, Value::Object(all)) =
            (&mut workers[..], &self.coordinator, &mut value)
        {
            let fields: Map<String, Value> = only.clone();
            for (key, field) in fields {
                all.entry(key).or_insert(field);
            }
        }
        value["workers"] = Value::Array(workers);
        value
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn trouble(trouble: Option<&Trouble>) -> Value {
    trouble.map_or(
        Value::Null,
        |t| json!({"error": t.text, "ms_ago": t.age_ms}),
    )
}

impl WorkerHealth {
    async fn look(engine: &Engine, worker: &WorkerHandle, patience: Duration) -> Self {
        // One that waits for its store has no driver yet that could be asked.
        let status = worker.status();
        let vitals = if status.waiting {
            None
        } else {
            worker.vitals().await
        };
        let look = match &vitals {
            Some(vitals) => {
                let (stream, next) = vitals.inbox;
                let store = probe::store(engine, worker.id(), patience);
                let (store, lag) = tokio::join!(store, probe::lag(engine, stream, next, patience));
                Look { store, lag }
            }
            None => Look {
                store: Err("not asked".to_owned()),
                lag: Err("not asked".to_owned()),
            },
        };
        Self {
            status,
            vitals,
            look,
        }
    }

    pub(crate) fn not_ready(&self) -> Vec<String> {
        if self.status.waiting && !self.status.stopping {
            return vec!["it waits for the store, to read what the deployment is".to_owned()];
        }
        let runs = self.status.running.len();
        ready::worker(self.vitals.as_ref(), runs, self.status.stopping, &self.look)
    }

    fn json(&self) -> Value {
        let status = &self.status;
        let runs = status.running.iter().map(|run| {
            json!({
                "task_id": run.info.task_id,
                "node_id": run.info.node_id,
                "role": run.info.role,
                "attempt": run.info.epoch,
                "token": run.info.token,
                "progress": {"done": run.progress.done, "total": run.progress.total},
                "cancelled": run.cancelled,
                "abandoned": run.abandoned,
            })
        });
        let vitals = self.vitals.as_ref();
        json!({
            "worker_id": status.worker_id,
            "roles": status.roles,
            "capacity": status.capacity,
            "ready": self.not_ready().is_empty(),
            "stopping": status.stopping,
            "busy": !status.running.is_empty(),
            "active_tasks": runs.collect::<Vec<_>>(),
            "free_slots": vitals.map(|v| v.free_slots),
            "incarnation": vitals.and_then(|v| v.incarnation),
            "last_heartbeat_ms_ago": vitals.and_then(|v| v.heartbeat_ms),
            "last_grant_read_ms_ago": vitals.and_then(|v| v.grant_read_ms),
            "store_answered_ms_ago": vitals.and_then(|v| v.store_ok_ms),
            "inbox_read_ms_ago": vitals.and_then(|v| v.inbox_ms),
            "lag": self.look.lag.as_ref().ok(),
            "last_error": trouble(vitals.and_then(|v| v.last_error.as_ref())),
            "abandoned": vitals.map(|v| v.abandoned),
        })
    }
}

impl CoordinatorHealth {
    async fn look(engine: &Engine, patience: Duration) -> Option<Self> {
        let vitals = engine.coordinator_vitals().await?;
        let owned = vitals.as_ref().map(|v| &v.shards);
        let shards = owned.into_iter().flatten();
        let shards = shards.map(|(shard, s)| (*shard, s.next));
        let lags = probe::lags(engine, shards, patience).await;
        Some(Self { vitals, lags })
    }

    pub(crate) fn not_ready(&self) -> Vec<String> {
        ready::coordinator(self.vitals.as_ref(), &self.lags)
    }

    fn json(&self) -> Value {
        let Some(vitals) = &self.vitals else {
            return json!({"ready": false});
        };
        let shards = vitals.shards.iter().map(|(shard, owned)| {
            json!({
                "shard": shard,
                "lease_renewed_ms_ago": owned.renewed_ms,
                "lag": self.lags.get(shard).and_then(|lag| lag.as_ref().ok()),
            })
        });
        json!({
            "ready": self.not_ready().is_empty(),
            "standby": vitals.shards.is_empty(),
            "shards_of_deployment": vitals.shards_all,
            "shards": shards.collect::<Vec<_>>(),
            "tasks_in_flight": vitals.tasks_in_flight,
            "waiting_nodes": vitals.waiting,
            "store_answered_ms_ago": vitals.store_ok_ms,
            "last_error": trouble(vitals.last_error.as_ref()),
        })
    }
}
